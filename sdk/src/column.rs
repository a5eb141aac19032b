//! Columns: typed views on what came in, builders for what goes out.
//!
//! Nothing is parsed cell by cell: a view is a check of the type, after which a value is a load from the buffer. Loads do
//! not rely on alignment, which the boundary does not promise (16-byte decimals arrive at any address).

mod boolean;
mod builder;
mod list;
mod selection;
mod value;

use std::marker::PhantomData;

pub use boolean::{BooleanBuilder, Booleans};
pub use builder::{BytesBuilder, ValuesBuilder};
pub use list::{List, ListBuilder, Lists};
pub use selection::Selection;
pub use value::{I256, Value};

use crate::{DataType, Failure};

/// One column: its type and its Arrow buffers.
///
/// ```
/// use pipewright_sdk::{Column, DataType};
/// let column = Column::nulls(DataType::Binary, 3);
/// assert_eq!((column.len(), column.data_type()), (3, DataType::Binary));
/// assert!(column.has_nulls() && column.is_null(2));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub(crate) data_type: DataType,
    pub(crate) row_count: usize,
    pub(crate) validity: Option<Vec<u8>>,
    pub(crate) offsets: Option<Vec<u8>>,
    pub(crate) values: Vec<u8>,
}

impl Column {
    /// A column of nothing but NULL.
    ///
    /// ```
    /// use pipewright_sdk::{Column, DataType};
    /// let column = Column::nulls(DataType::Int64, 3);
    /// assert!(column.is_null(2));
    /// ```
    pub fn nulls(data_type: DataType, row_count: usize) -> Self {
        let values = match data_type.width() {
            Some(width) => vec![0; width * row_count],
            None if data_type == DataType::Boolean => vec![0; row_count.div_ceil(8)],
            None => Vec::new(),
        };
        Self {
            data_type,
            row_count,
            validity: Some(vec![0; row_count.div_ceil(8)]),
            offsets: data_type
                .has_offsets()
                .then(|| vec![0; 4 * (row_count + 1)]),
            values,
        }
    }

    /// What it holds.
    ///
    /// ```
    /// # use pipewright_sdk::{Column, DataType};
    /// assert_eq!(Column::nulls(DataType::Utf8, 1).data_type(), DataType::Utf8);
    /// ```
    pub fn data_type(&self) -> DataType {
        self.data_type
    }

    /// How many rows it has.
    ///
    /// ```
    /// # use pipewright_sdk::{Column, DataType};
    /// assert_eq!(Column::nulls(DataType::Utf8, 7).len(), 7);
    /// ```
    pub fn len(&self) -> usize {
        self.row_count
    }

    /// Whether it has no rows.
    ///
    /// ```
    /// # use pipewright_sdk::{Column, DataType};
    /// assert!(Column::nulls(DataType::Utf8, 0).is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.row_count == 0
    }

    /// Whether a row has no value.
    ///
    /// ```
    /// # use pipewright_sdk::{Column, DataType};
    /// assert!(Column::nulls(DataType::Utf8, 1).is_null(0));
    /// ```
    pub fn is_null(&self, row: usize) -> bool {
        self.validity
            .as_ref()
            .is_some_and(|bits| bits[row / 8] >> (row % 8) & 1 == 0)
    }

    /// Whether a row without a value is possible at all; false saves asking each row.
    ///
    /// ```
    /// # use pipewright_sdk::{Column, DataType};
    /// assert!(Column::nulls(DataType::Utf8, 1).has_nulls());
    /// ```
    pub fn has_nulls(&self) -> bool {
        self.validity.is_some()
    }

    /// The values as text.
    ///
    /// ```
    /// use pipewright_sdk::{BytesBuilder, DataType};
    /// let mut builder = BytesBuilder::new(DataType::Utf8, 2);
    /// builder.push(Some(b"ann"));
    /// builder.push(None);
    /// let column = builder.finish();
    /// let names = column.strings()?;
    /// assert_eq!((names.get(0), names.get(1)), (Some("ann"), None));
    /// # Ok::<(), pipewright_sdk::Failure>(())
    /// ```
    ///
    /// # Errors
    /// When the column is not text.
    pub fn strings(&self) -> Result<Strings<'_>, Failure> {
        if self.data_type != DataType::Utf8 {
            return Err(self.mismatch("text"));
        }
        let text = std::str::from_utf8(&self.values)
            .map_err(|_| Failure::failed("a text column is not UTF-8"))?;
        Ok(Strings {
            bytes: self.bytes()?,
            text,
        })
    }

    /// The values of text or bytes as bytes: the cheapest access to text.
    ///
    /// ```
    /// # use pipewright_sdk::{BytesBuilder, DataType};
    /// # let mut builder = BytesBuilder::new(DataType::Utf8, 1);
    /// # builder.push(Some(b"ann"));
    /// # let column = builder.finish();
    /// assert_eq!(column.bytes()?.get(0), Some(&b"ann"[..]));
    /// # Ok::<(), pipewright_sdk::Failure>(())
    /// ```
    ///
    /// # Errors
    /// When the column is neither text nor bytes.
    pub fn bytes(&self) -> Result<Bytes<'_>, Failure> {
        let offsets = self
            .offsets
            .as_ref()
            .filter(|_| matches!(self.data_type, DataType::Utf8 | DataType::Binary))
            .ok_or_else(|| self.mismatch("text or bytes"))?;
        Ok(Bytes {
            column: self,
            offsets: offsets.as_chunks::<4>().0,
        })
    }

    /// The values as numbers of exactly this width: integers, floats, decimals (`i128`), dates (`i32`, days), times and
    /// timestamps (`i64`, microseconds).
    ///
    /// ```
    /// use pipewright_sdk::{DataType, ValuesBuilder};
    /// let mut builder = ValuesBuilder::<i128>::new(DataType::Decimal128 { precision: 10, scale: 2 }, 2);
    /// builder.push(Some(1050));
    /// builder.push(None);
    /// let column = builder.finish();
    /// let prices = column.values::<i128>()?;
    /// assert_eq!((prices.get(0), prices.get(1)), (Some(1050), None));
    /// assert!(column.values::<i64>().is_err());
    /// # Ok::<(), pipewright_sdk::Failure>(())
    /// ```
    ///
    /// # Errors
    /// When the column holds something else.
    pub fn values<T: Value>(&self) -> Result<Values<'_, T>, Failure> {
        if !T::fits(self.data_type) {
            return Err(self.mismatch(std::any::type_name::<T>()));
        }
        Ok(Values {
            column: self,
            value: PhantomData,
        })
    }

    /// The values of any integer column as `i64`; `u64` past its range is not served, use [`Column::values`] there.
    ///
    /// ```
    /// # use pipewright_sdk::{DataType, ValuesBuilder};
    /// # let mut builder = ValuesBuilder::<u16>::new(DataType::UInt16, 1);
    /// # builder.push(Some(7));
    /// # let column = builder.finish();
    /// assert_eq!(column.integers()?.get(0), Some(7));
    /// # Ok::<(), pipewright_sdk::Failure>(())
    /// ```
    ///
    /// # Errors
    /// When the column is not an integer of at most 64 bits signed or 32 bits unsigned.
    pub fn integers(&self) -> Result<Integers<'_>, Failure> {
        match self.data_type {
            DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::UInt8
            | DataType::UInt16
            | DataType::UInt32 => Ok(Integers { column: self }),
            _ => Err(self.mismatch("integers")),
        }
    }

    /// The lists of numbers of exactly this width, which is how a VECTOR arrives: as lists of `f32`.
    ///
    /// ```
    /// use pipewright_sdk::{DataType, Item, ListBuilder};
    /// let mut builder = ListBuilder::<f32>::new(Item::Float32, 2);
    /// builder.push(Some(&[3.0, 4.0]));
    /// builder.push(None);
    /// let column = builder.finish();
    /// assert_eq!(column.data_type(), DataType::List(Item::Float32));
    /// let vectors = column.lists::<f32>()?;
    /// let length = vectors.get(0).map(|vector| vector.iter().map(|x| x * x).sum::<f32>().sqrt());
    /// assert_eq!(length, Some(5.0));
    /// assert!(vectors.get(1).is_none());
    /// assert!(column.lists::<f64>().is_err());
    /// # Ok::<(), pipewright_sdk::Failure>(())
    /// ```
    ///
    /// # Errors
    /// When the column holds something else.
    pub fn lists<T: Value>(&self) -> Result<Lists<'_, T>, Failure> {
        Lists::new(self)
            .ok_or_else(|| self.mismatch(&format!("lists of {}", std::any::type_name::<T>())))
    }

    /// The values as booleans.
    ///
    /// ```
    /// use pipewright_sdk::BooleanBuilder;
    /// let mut builder = BooleanBuilder::new();
    /// builder.push(Some(true));
    /// builder.push(None);
    /// let column = builder.finish();
    /// let flags = column.booleans()?;
    /// assert_eq!((flags.get(0), flags.get(1)), (Some(true), None));
    /// # Ok::<(), pipewright_sdk::Failure>(())
    /// ```
    ///
    /// # Errors
    /// When the column holds something else.
    pub fn booleans(&self) -> Result<Booleans<'_>, Failure> {
        Booleans::new(self).ok_or_else(|| self.mismatch("booleans"))
    }

    fn mismatch(&self, wanted: &str) -> Failure {
        Failure::failed(format!(
            "a column of {:?} was read as {wanted}",
            self.data_type
        ))
    }
}

/// Text, by row.
///
/// ```
/// use pipewright_sdk::{BytesBuilder, DataType};
/// let mut builder = BytesBuilder::new(DataType::Utf8, 3);
/// [Some("ann"), None, Some("")].map(|name| builder.push(name.map(str::as_bytes)));
/// let column = builder.finish();
/// let lengths: Vec<_> = column.strings()?.iter().map(|name| name.map(str::len)).collect();
/// assert_eq!(lengths, [Some(3), None, Some(0)]);
/// # Ok::<(), pipewright_sdk::Failure>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Strings<'a> {
    bytes: Bytes<'a>,
    text: &'a str,
}

impl<'a> Strings<'a> {
    /// The text of a row, none for NULL.
    ///
    /// ```
    /// # use pipewright_sdk::{Column, DataType};
    /// assert_eq!(Column::nulls(DataType::Utf8, 1).strings()?.get(0), None);
    /// # Ok::<(), pipewright_sdk::Failure>(())
    /// ```
    pub fn get(&self, row: usize) -> Option<&'a str> {
        let (start, end) = self.bytes.range(row)?;
        Some(&self.text[start..end])
    }

    /// All rows in order.
    ///
    /// ```
    /// # use pipewright_sdk::{Column, DataType};
    /// assert_eq!(Column::nulls(DataType::Utf8, 3).strings()?.iter().count(), 3);
    /// # Ok::<(), pipewright_sdk::Failure>(())
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = Option<&'a str>> + '_ {
        (0..self.bytes.column.row_count).map(|row| self.get(row))
    }
}

/// Bytes, by row.
///
/// ```
/// use pipewright_sdk::{BytesBuilder, DataType};
/// let mut builder = BytesBuilder::new(DataType::Binary, 2);
/// builder.push(Some(&[0xff, 0x00]));
/// builder.push(None);
/// let column = builder.finish();
/// let bytes = column.bytes()?;
/// assert_eq!((bytes.get(0), bytes.get(1)), (Some(&[0xff, 0x00][..]), None));
/// assert_eq!(bytes.byte_count(), 2);
/// # Ok::<(), pipewright_sdk::Failure>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a> {
    column: &'a Column,
    offsets: &'a [[u8; 4]],
}

impl<'a> Bytes<'a> {
    fn range(&self, row: usize) -> Option<(usize, usize)> {
        if self.column.is_null(row) {
            return None;
        }
        let start = u32::from_le_bytes(self.offsets[row]) as usize;
        let end = u32::from_le_bytes(self.offsets[row + 1]) as usize;
        Some((start, end))
    }

    /// The bytes of a row, none for NULL.
    ///
    /// ```
    /// # use pipewright_sdk::{Column, DataType};
    /// assert_eq!(Column::nulls(DataType::Binary, 1).bytes()?.get(0), None);
    /// # Ok::<(), pipewright_sdk::Failure>(())
    /// ```
    pub fn get(&self, row: usize) -> Option<&'a [u8]> {
        let (start, end) = self.range(row)?;
        Some(&self.column.values[start..end])
    }

    /// All rows in order.
    ///
    /// ```
    /// # use pipewright_sdk::{Column, DataType};
    /// assert_eq!(Column::nulls(DataType::Binary, 3).bytes()?.iter().count(), 3);
    /// # Ok::<(), pipewright_sdk::Failure>(())
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = Option<&'a [u8]>> + '_ {
        (0..self.column.row_count).map(|row| self.get(row))
    }

    /// Bytes of all values together.
    ///
    /// ```
    /// # use pipewright_sdk::{Column, DataType};
    /// assert_eq!(Column::nulls(DataType::Binary, 3).bytes()?.byte_count(), 0);
    /// # Ok::<(), pipewright_sdk::Failure>(())
    /// ```
    pub fn byte_count(&self) -> usize {
        self.column.values.len()
    }
}

/// Numbers of one width, by row.
///
/// ```
/// use pipewright_sdk::{DataType, ValuesBuilder};
/// let mut builder = ValuesBuilder::<f64>::new(DataType::Float64, 3);
/// [Some(1.5), None, Some(2.0)].map(|value| builder.push(value));
/// let column = builder.finish();
/// assert_eq!(column.values::<f64>()?.iter().flatten().sum::<f64>(), 3.5);
/// # Ok::<(), pipewright_sdk::Failure>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Values<'a, T> {
    column: &'a Column,
    value: PhantomData<T>,
}

impl<T: Value> Values<'_, T> {
    /// The value of a row, none for NULL.
    ///
    /// ```
    /// # use pipewright_sdk::{Column, DataType};
    /// assert_eq!(Column::nulls(DataType::Float64, 1).values::<f64>()?.get(0), None);
    /// # Ok::<(), pipewright_sdk::Failure>(())
    /// ```
    pub fn get(&self, row: usize) -> Option<T> {
        (!self.column.is_null(row)).then(|| T::load(&self.column.values, row))
    }

    /// All rows in order.
    ///
    /// ```
    /// # use pipewright_sdk::{Column, DataType};
    /// assert_eq!(Column::nulls(DataType::Date32, 3).values::<i32>()?.iter().count(), 3);
    /// # Ok::<(), pipewright_sdk::Failure>(())
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = Option<T>> + '_ {
        (0..self.column.row_count).map(|row| self.get(row))
    }

    /// All places in order whether NULL or not: what stands at a NULL means nothing. For loops that look at validity
    /// afterwards, column by column.
    ///
    /// ```
    /// # use pipewright_sdk::{Column, DataType};
    /// let column = Column::nulls(DataType::Int32, 2);
    /// assert_eq!(column.values::<i32>()?.iter_raw().filter(|value| *value == 0).count(), 2);
    /// # Ok::<(), pipewright_sdk::Failure>(())
    /// ```
    pub fn iter_raw(&self) -> impl Iterator<Item = T> + '_ {
        T::load_all(&self.column.values)
    }
}

/// Integers of any width, by row.
///
/// ```
/// use pipewright_sdk::{DataType, ValuesBuilder};
/// let mut builder = ValuesBuilder::<i8>::new(DataType::Int8, 2);
/// builder.push(Some(-128));
/// builder.push(None);
/// let column = builder.finish();
/// let integers = column.integers()?;
/// assert_eq!((integers.get(0), integers.get(1)), (Some(-128), None));
/// # Ok::<(), pipewright_sdk::Failure>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Integers<'a> {
    column: &'a Column,
}

impl Integers<'_> {
    /// The value of a row, none for NULL.
    ///
    /// ```
    /// # use pipewright_sdk::{Column, DataType};
    /// assert_eq!(Column::nulls(DataType::Int8, 1).integers()?.get(0), None);
    /// # Ok::<(), pipewright_sdk::Failure>(())
    /// ```
    pub fn get(&self, row: usize) -> Option<i64> {
        if self.column.is_null(row) {
            return None;
        }
        let values = &self.column.values;
        Some(match self.column.data_type {
            DataType::Int8 => i8::load(values, row).into(),
            DataType::Int16 => i16::load(values, row).into(),
            DataType::Int32 => i32::load(values, row).into(),
            DataType::UInt8 => u8::load(values, row).into(),
            DataType::UInt16 => u16::load(values, row).into(),
            DataType::UInt32 => u32::load(values, row).into(),
            _ => i64::load(values, row),
        })
    }
}
