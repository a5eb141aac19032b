//! Builders: columns for what goes out.

use std::marker::PhantomData;

use super::Column;
use super::value::Value;
use crate::DataType;

/// Makes a column of numbers.
///
/// ```
/// use pipewright_sdk::{DataType, ValuesBuilder};
/// let mut builder = ValuesBuilder::<i32>::new(DataType::Date32, 2);
/// builder.push(Some(19_000));
/// builder.push(None);
/// assert_eq!(builder.finish().len(), 2);
/// ```
#[derive(Debug)]
pub struct ValuesBuilder<T> {
    data_type: DataType,
    validity: Validity,
    values: Vec<u8>,
    value: PhantomData<T>,
}

impl<T: Value> ValuesBuilder<T> {
    /// For a column of that type and about so many rows.
    ///
    /// ```
    /// # use pipewright_sdk::{DataType, ValuesBuilder};
    /// assert!(ValuesBuilder::<f64>::new(DataType::Float64, 10).finish().is_empty());
    /// ```
    ///
    /// # Panics
    /// When the type does not hold such values.
    pub fn new(data_type: DataType, row_count: usize) -> Self {
        assert!(
            T::fits(data_type),
            "a column of {data_type:?} does not hold {}",
            std::any::type_name::<T>()
        );
        Self {
            data_type,
            validity: Validity::default(),
            values: Vec::with_capacity(row_count * size_of::<T>()),
            value: PhantomData,
        }
    }

    /// Adds a row, none for NULL.
    ///
    /// ```
    /// # use pipewright_sdk::{DataType, ValuesBuilder};
    /// # let mut builder = ValuesBuilder::<u8>::new(DataType::UInt8, 1);
    /// builder.push(Some(200));
    /// ```
    pub fn push(&mut self, value: Option<T>) {
        self.validity.push(value.is_some());
        value.unwrap_or_else(T::zero).store(&mut self.values);
    }

    /// The column.
    ///
    /// ```
    /// # use pipewright_sdk::{DataType, ValuesBuilder};
    /// assert_eq!(ValuesBuilder::<u8>::new(DataType::UInt8, 0).finish().len(), 0);
    /// ```
    pub fn finish(self) -> Column {
        Column {
            data_type: self.data_type,
            row_count: self.validity.row_count(),
            validity: self.validity.finish(),
            offsets: None,
            values: self.values,
        }
    }
}

/// Makes a column of text or bytes.
///
/// ```
/// use pipewright_sdk::{BytesBuilder, DataType};
/// let mut builder = BytesBuilder::new(DataType::Utf8, 2);
/// builder.push(None);
/// builder.push_with(|bytes| bytes.extend(b"ANN".iter().map(u8::to_ascii_lowercase)));
/// let column = builder.finish();
/// assert_eq!((column.strings()?.get(0), column.strings()?.get(1)), (None, Some("ann")));
/// # Ok::<(), pipewright_sdk::Failure>(())
/// ```
#[derive(Debug)]
pub struct BytesBuilder {
    data_type: DataType,
    validity: Validity,
    offsets: Vec<u8>,
    values: Vec<u8>,
}

impl BytesBuilder {
    /// For a column of that type and about so many rows.
    ///
    /// ```
    /// # use pipewright_sdk::{BytesBuilder, DataType};
    /// assert!(BytesBuilder::new(DataType::Binary, 10).finish().is_empty());
    /// ```
    ///
    /// # Panics
    /// When the type is neither text nor bytes.
    pub fn new(data_type: DataType, row_count: usize) -> Self {
        assert!(
            matches!(data_type, DataType::Utf8 | DataType::Binary),
            "a column of {data_type:?} holds neither text nor bytes"
        );
        let mut offsets = Vec::with_capacity(4 * (row_count + 1));
        offsets.extend_from_slice(&[0; 4]);
        Self {
            data_type,
            validity: Validity::default(),
            offsets,
            values: Vec::new(),
        }
    }

    /// Makes room for so many bytes more.
    ///
    /// ```
    /// # use pipewright_sdk::{BytesBuilder, DataType};
    /// let mut builder = BytesBuilder::new(DataType::Binary, 10);
    /// builder.reserve_bytes(640);
    /// ```
    pub fn reserve_bytes(&mut self, byte_count: usize) {
        self.values.reserve(byte_count);
    }

    /// Adds a row, none for NULL.
    ///
    /// ```
    /// # use pipewright_sdk::{BytesBuilder, DataType};
    /// # let mut builder = BytesBuilder::new(DataType::Binary, 1);
    /// builder.push(Some(b"abc"));
    /// ```
    ///
    /// # Panics
    /// When the column passes 2 GiB.
    pub fn push(&mut self, value: Option<&[u8]>) {
        if let Some(value) = value {
            self.values.extend_from_slice(value);
        }
        self.end_row(value.is_some());
    }

    /// Adds a row whose bytes `write` appends: no temporary string.
    ///
    /// ```
    /// # use pipewright_sdk::{BytesBuilder, DataType};
    /// # let mut builder = BytesBuilder::new(DataType::Utf8, 1);
    /// builder.push_with(|bytes| bytes.extend_from_slice(b"abc"));
    /// assert_eq!(builder.finish().strings()?.get(0), Some("abc"));
    /// # Ok::<(), pipewright_sdk::Failure>(())
    /// ```
    ///
    /// # Panics
    /// When the column passes 2 GiB.
    pub fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.values);
        self.end_row(true);
    }

    /// The column.
    ///
    /// ```
    /// # use pipewright_sdk::{BytesBuilder, DataType};
    /// assert_eq!(BytesBuilder::new(DataType::Utf8, 0).finish().len(), 0);
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

    fn end_row(&mut self, valid: bool) {
        let end = i32::try_from(self.values.len()).expect("a column stays below 2 GiB");
        self.offsets.extend_from_slice(&end.to_le_bytes());
        self.validity.push(valid);
    }
}

/// A bit for each row, least significant bit first.
#[derive(Debug, Default)]
pub(super) struct Bits {
    bytes: Vec<u8>,
    row_count: usize,
}

impl Bits {
    pub(super) fn push(&mut self, bit: bool) {
        if self.row_count.is_multiple_of(8) {
            self.bytes.push(0);
        }
        if let Some(last) = self.bytes.last_mut() {
            *last |= u8::from(bit) << (self.row_count % 8);
        }
        self.row_count += 1;
    }

    pub(super) fn len(&self) -> usize {
        self.row_count
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// A bitmap that exists only when a row is NULL.
#[derive(Debug, Default)]
pub(super) struct Validity {
    bits: Bits,
    any_null: bool,
}

impl Validity {
    pub(super) fn push(&mut self, valid: bool) {
        self.bits.push(valid);
        self.any_null |= !valid;
    }

    pub(super) fn row_count(&self) -> usize {
        self.bits.len()
    }

    pub(super) fn finish(self) -> Option<Vec<u8>> {
        self.any_null.then(|| self.bits.into_bytes())
    }
}
