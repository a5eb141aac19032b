//! Lists of numbers, by row.

use std::marker::PhantomData;

use super::builder::Validity;
use super::{Column, Value};
use crate::{DataType, Item};

/// Lists of numbers of one width, by row.
///
/// ```
/// use pipewright_sdk::{Item, ListBuilder};
/// let mut builder = ListBuilder::<i32>::new(Item::Int32, 2);
/// builder.push(Some(&[1, 2, 3]));
/// builder.push(None);
/// let column = builder.finish();
/// let lists = column.lists::<i32>()?;
/// let sums: Vec<_> = lists.iter().map(|list| list.map(|list| list.iter().sum::<i32>())).collect();
/// assert_eq!(sums, [Some(6), None]);
/// # Ok::<(), pipewright_sdk::Failure>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Lists<'a, T> {
    column: &'a Column,
    offsets: &'a [[u8; 4]],
    value: PhantomData<T>,
}

impl<'a, T: Value> Lists<'a, T> {
    /// None for a column of something else.
    pub(super) fn new(column: &'a Column) -> Option<Self> {
        let DataType::List(item) = column.data_type else {
            return None;
        };
        item.data_type().filter(|item| T::fits(*item))?;
        Some(Self {
            column,
            offsets: column.offsets.as_ref()?.as_chunks::<4>().0,
            value: PhantomData,
        })
    }

    /// The list of a row, none for NULL.
    ///
    /// ```
    /// # use pipewright_sdk::{Item, ListBuilder};
    /// # let mut builder = ListBuilder::<i64>::new(Item::Int64, 1);
    /// # builder.push(Some(&[7, 8]));
    /// # let column = builder.finish();
    /// assert_eq!(column.lists::<i64>()?.get(0).and_then(|list| list.get(1)), Some(8));
    /// # Ok::<(), pipewright_sdk::Failure>(())
    /// ```
    pub fn get(&self, row: usize) -> Option<List<'a, T>> {
        if self.column.is_null(row) {
            return None;
        }
        let place = |row: usize| u32::from_le_bytes(self.offsets[row]) as usize * size_of::<T>();
        Some(List {
            values: &self.column.values[place(row)..place(row + 1)],
            value: PhantomData,
        })
    }

    /// All rows in order.
    ///
    /// ```
    /// # use pipewright_sdk::{Column, DataType, Item};
    /// let column = Column::nulls(DataType::List(Item::Float32), 3);
    /// assert_eq!(column.lists::<f32>()?.iter().filter(Option::is_none).count(), 3);
    /// # Ok::<(), pipewright_sdk::Failure>(())
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = Option<List<'a, T>>> + '_ {
        (0..self.column.row_count).map(|row| self.get(row))
    }
}

/// The numbers of one row's list, none of which is NULL.
///
/// ```
/// use pipewright_sdk::{Item, ListBuilder};
/// let mut builder = ListBuilder::<u16>::new(Item::UInt16, 1);
/// builder.push(Some(&[7, 9]));
/// let column = builder.finish();
/// let list = column.lists::<u16>()?.get(0).expect("the row is not NULL");
/// assert_eq!((list.len(), list.get(1), list.get(2)), (2, Some(9), None));
/// # Ok::<(), pipewright_sdk::Failure>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct List<'a, T> {
    values: &'a [u8],
    value: PhantomData<T>,
}

impl<'a, T: Value> List<'a, T> {
    /// How many there are.
    ///
    /// ```
    /// # use pipewright_sdk::{Item, ListBuilder};
    /// # let mut builder = ListBuilder::<f32>::new(Item::Float32, 1);
    /// # builder.push(Some(&[1.0, 2.0, 3.0]));
    /// # let column = builder.finish();
    /// assert_eq!(column.lists::<f32>()?.get(0).map(|list| list.len()), Some(3));
    /// # Ok::<(), pipewright_sdk::Failure>(())
    /// ```
    pub fn len(&self) -> usize {
        self.values.len() / size_of::<T>()
    }

    /// Whether there are none.
    ///
    /// ```
    /// # use pipewright_sdk::{Item, ListBuilder};
    /// # let mut builder = ListBuilder::<f32>::new(Item::Float32, 1);
    /// # builder.push(Some(&[]));
    /// # let column = builder.finish();
    /// assert_eq!(column.lists::<f32>()?.get(0).map(|list| list.is_empty()), Some(true));
    /// # Ok::<(), pipewright_sdk::Failure>(())
    /// ```
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// One of them; none past the last.
    ///
    /// ```
    /// # use pipewright_sdk::{Item, ListBuilder};
    /// # let mut builder = ListBuilder::<f32>::new(Item::Float32, 1);
    /// # builder.push(Some(&[0.5]));
    /// # let column = builder.finish();
    /// let lists = column.lists::<f32>()?;
    /// assert_eq!(lists.get(0).and_then(|list| list.get(0)), Some(0.5));
    /// assert_eq!(lists.get(0).and_then(|list| list.get(1)), None);
    /// # Ok::<(), pipewright_sdk::Failure>(())
    /// ```
    pub fn get(&self, index: usize) -> Option<T> {
        (index < self.len()).then(|| T::load(self.values, index))
    }

    /// All of them in order.
    ///
    /// ```
    /// # use pipewright_sdk::{Item, ListBuilder};
    /// # let mut builder = ListBuilder::<u8>::new(Item::UInt8, 1);
    /// # builder.push(Some(&[1, 2]));
    /// # let column = builder.finish();
    /// assert_eq!(column.lists::<u8>()?.get(0).map(|list| list.iter().sum()), Some(3u8));
    /// # Ok::<(), pipewright_sdk::Failure>(())
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = T> + 'a {
        T::load_all(self.values)
    }
}

/// Makes a column of lists, which at the destination is an Array.
///
/// ```
/// use pipewright_sdk::{DataType, Item, ListBuilder};
/// let mut builder = ListBuilder::<f64>::new(Item::Float64, 2);
/// builder.push(None);
/// builder.push(Some(&[0.5]));
/// let column = builder.finish();
/// assert_eq!(column.data_type(), DataType::List(Item::Float64));
/// assert!(column.is_null(0) && !column.is_null(1));
/// ```
#[derive(Debug)]
pub struct ListBuilder<T> {
    data_type: DataType,
    validity: Validity,
    offsets: Vec<u8>,
    values: Vec<u8>,
    value: PhantomData<T>,
}

impl<T: Value> ListBuilder<T> {
    /// For about so many rows of lists of `item`.
    ///
    /// ```
    /// # use pipewright_sdk::{Item, ListBuilder};
    /// assert!(ListBuilder::<f32>::new(Item::Float32, 10).finish().is_empty());
    /// ```
    ///
    /// # Panics
    /// When `item` is of another width.
    pub fn new(item: Item, row_count: usize) -> Self {
        assert!(
            item.data_type().is_some_and(T::fits),
            "lists of {item:?} do not hold {}",
            std::any::type_name::<T>()
        );
        let mut offsets = Vec::with_capacity(4 * (row_count + 1));
        offsets.extend_from_slice(&[0; 4]);
        Self {
            data_type: DataType::List(item),
            validity: Validity::default(),
            offsets,
            values: Vec::new(),
            value: PhantomData,
        }
    }

    /// Adds a row, none for NULL.
    ///
    /// ```
    /// # use pipewright_sdk::{Item, ListBuilder};
    /// # let mut builder = ListBuilder::<f32>::new(Item::Float32, 1);
    /// builder.push(Some(&[0.25, -1.0]));
    /// ```
    ///
    /// # Panics
    /// When the column passes 2 Gi numbers.
    pub fn push(&mut self, list: Option<&[T]>) {
        for value in list.unwrap_or_default() {
            value.store(&mut self.values);
        }
        let end = i32::try_from(self.values.len() / size_of::<T>())
            .expect("a column stays below 2 Gi numbers");
        self.offsets.extend_from_slice(&end.to_le_bytes());
        self.validity.push(list.is_some());
    }

    /// The column.
    ///
    /// ```
    /// # use pipewright_sdk::{Item, ListBuilder};
    /// assert_eq!(ListBuilder::<f32>::new(Item::Float32, 0).finish().len(), 0);
    /// ```
    pub fn finish(self) -> Column {
        Column {
            data_type: self.data_type,
            row_count: self.validity.row_count(),
            validity: self.validity.finish(),
            offsets: Some(self.offsets),
            values: self.values,
        }
    }
}
