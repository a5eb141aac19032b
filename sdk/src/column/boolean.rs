//! Booleans, by row: eight share a byte.

use super::builder::{Bits, Validity};
use super::{Column, DataType};

/// Booleans, by row.
///
/// ```
/// use pipewright_sdk::BooleanBuilder;
/// let mut builder = BooleanBuilder::new();
/// [Some(true), None, Some(false), Some(true)].map(|flag| builder.push(flag));
/// let column = builder.finish();
/// assert_eq!(column.booleans()?.iter().filter(|flag| *flag == Some(true)).count(), 2);
/// # Ok::<(), pipewright_sdk::Failure>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Booleans<'a> {
    column: &'a Column,
}

impl<'a> Booleans<'a> {
    pub(super) fn new(column: &'a Column) -> Option<Self> {
        (column.data_type == DataType::Boolean).then_some(Self { column })
    }

    /// The value of a row, none for NULL.
    ///
    /// ```
    /// # use pipewright_sdk::{Column, DataType};
    /// assert_eq!(Column::nulls(DataType::Boolean, 1).booleans()?.get(0), None);
    /// # Ok::<(), pipewright_sdk::Failure>(())
    /// ```
    pub fn get(&self, row: usize) -> Option<bool> {
        (!self.column.is_null(row)).then(|| self.column.values[row / 8] >> (row % 8) & 1 == 1)
    }

    /// All rows in order.
    ///
    /// ```
    /// # use pipewright_sdk::{Column, DataType};
    /// assert_eq!(Column::nulls(DataType::Boolean, 3).booleans()?.iter().count(), 3);
    /// # Ok::<(), pipewright_sdk::Failure>(())
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = Option<bool>> + '_ {
        (0..self.column.row_count).map(|row| self.get(row))
    }
}

/// Makes a column of booleans.
///
/// ```
/// use pipewright_sdk::{BooleanBuilder, DataType};
/// let mut builder = BooleanBuilder::new();
/// (0..9).for_each(|row| builder.push(Some(row == 8)));
/// let column = builder.finish();
/// assert_eq!(column.data_type(), DataType::Boolean);
/// assert_eq!(column.booleans()?.get(8), Some(true));
/// # Ok::<(), pipewright_sdk::Failure>(())
/// ```
#[derive(Debug, Default)]
pub struct BooleanBuilder {
    values: Bits,
    validity: Validity,
}

impl BooleanBuilder {
    /// Without rows.
    ///
    /// ```
    /// # use pipewright_sdk::BooleanBuilder;
    /// assert!(BooleanBuilder::new().finish().is_empty());
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a row, none for NULL.
    ///
    /// ```
    /// # use pipewright_sdk::BooleanBuilder;
    /// # let mut builder = BooleanBuilder::new();
    /// builder.push(Some(true));
    /// ```
    pub fn push(&mut self, value: Option<bool>) {
        self.values.push(value.unwrap_or_default());
        self.validity.push(value.is_some());
    }

    /// The column.
    ///
    /// ```
    /// # use pipewright_sdk::{BooleanBuilder, DataType};
    /// assert_eq!(BooleanBuilder::new().finish().data_type(), DataType::Boolean);
    /// ```
    pub fn finish(self) -> Column {
        Column {
            data_type: DataType::Boolean,
            row_count: self.values.len(),
            validity: self.validity.finish(),
            offsets: None,
            values: self.values.into_bytes(),
        }
    }
}
