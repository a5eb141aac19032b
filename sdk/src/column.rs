//! Columns: typed views on what came in, builders for what goes out.
//!
//! Nothing is parsed cell by cell: a view is a check of the type, after which a value is a load from the buffer. Loads do
//! not rely on alignment, which the boundary does not promise (16-byte decimals arrive at any address).

use std::marker::PhantomData;

use crate::{DataType, Failure};

/// One column: its type and its Arrow buffers.
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
            .filter(|_| self.data_type.has_offsets())
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

    fn mismatch(&self, wanted: &str) -> Failure {
        Failure::failed(format!(
            "a column of {:?} was read as {wanted}",
            self.data_type
        ))
    }
}

/// Text, by row.
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

/// A 256-bit two's complement number, ordered as a number.
///
/// ```
/// use pipewright_sdk::I256;
/// assert!(I256 { high: -1, low: 5 } < I256 { high: 0, low: 0 });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct I256 {
    /// The upper half, which has the sign.
    pub high: i128,
    /// The lower half.
    pub low: u128,
}

impl From<i128> for I256 {
    fn from(value: i128) -> Self {
        Self {
            high: value >> 127,
            low: value.cast_unsigned(),
        }
    }
}

/// A Rust type that columns hold as it is. Not to be implemented by plugins.
pub trait Value: Copy + sealed::Sealed + 'static {
    /// Whether a column of that type holds such values.
    fn fits(data_type: DataType) -> bool;
    #[doc(hidden)]
    fn load(values: &[u8], row: usize) -> Self;
    #[doc(hidden)]
    fn load_all(values: &[u8]) -> impl Iterator<Item = Self> + '_;
    #[doc(hidden)]
    fn store(self, values: &mut Vec<u8>);
    #[doc(hidden)]
    fn zero() -> Self;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! values {
    ($($rust:ty, $width:literal, $zero:expr, $types:pat => ;)*) => {$(
        impl sealed::Sealed for $rust {}
        impl Value for $rust {
            fn fits(data_type: DataType) -> bool {
                matches!(data_type, $types)
            }
            fn load(values: &[u8], row: usize) -> Self {
                Self::from_le_bytes(values.as_chunks::<$width>().0[row])
            }
            fn load_all(values: &[u8]) -> impl Iterator<Item = Self> + '_ {
                values.as_chunks::<$width>().0.iter().map(|bytes| Self::from_le_bytes(*bytes))
            }
            fn store(self, values: &mut Vec<u8>) {
                values.extend_from_slice(&self.to_le_bytes());
            }
            fn zero() -> Self {
                $zero
            }
        }
    )*};
}

impl I256 {
    fn from_le_bytes(bytes: [u8; 32]) -> Self {
        let halves = bytes.as_chunks::<16>().0;
        Self {
            high: i128::from_le_bytes(halves[1]),
            low: u128::from_le_bytes(halves[0]),
        }
    }

    fn to_le_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&self.low.to_le_bytes());
        bytes[16..].copy_from_slice(&self.high.to_le_bytes());
        bytes
    }
}

values! {
    i8, 1, 0, DataType::Int8 =>;
    i16, 2, 0, DataType::Int16 =>;
    i32, 4, 0, DataType::Int32 | DataType::Date32 =>;
    i64, 8, 0, DataType::Int64 | DataType::Time64Micros | DataType::TimestampMicros { .. } =>;
    u8, 1, 0, DataType::UInt8 =>;
    u16, 2, 0, DataType::UInt16 =>;
    u32, 4, 0, DataType::UInt32 =>;
    u64, 8, 0, DataType::UInt64 =>;
    f32, 4, 0.0, DataType::Float32 =>;
    f64, 8, 0.0, DataType::Float64 =>;
    i128, 16, 0, DataType::Decimal128 { .. } =>;
    I256, 32, I256 { high: 0, low: 0 }, DataType::Decimal256 { .. } =>;
}

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
            row_count: self.validity.row_count,
            validity: self.validity.finish(),
            offsets: None,
            values: self.values,
        }
    }
}

/// Makes a column of text or bytes. See [`Column::strings`] for an example.
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
            data_type.has_offsets(),
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
            row_count: self.validity.row_count,
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

/// A bitmap that exists only when a row is NULL.
#[derive(Debug, Default)]
struct Validity {
    row_count: usize,
    bits: Vec<u8>,
    any_null: bool,
}

impl Validity {
    fn push(&mut self, valid: bool) {
        if self.row_count.is_multiple_of(8) {
            self.bits.push(0);
        }
        if let Some(last) = self.bits.last_mut() {
            *last |= u8::from(valid) << (self.row_count % 8);
        }
        self.any_null |= !valid;
        self.row_count += 1;
    }

    fn finish(self) -> Option<Vec<u8>> {
        self.any_null.then_some(self.bits)
    }
}

/// Which rows stay.
///
/// ```
/// use pipewright_sdk::Selection;
/// let even = Selection::from_fn(10, |row| row % 2 == 0);
/// assert_eq!((even.len(), even.count()), (10, 5));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    pub(crate) row_count: usize,
    pub(crate) bits: Vec<u8>,
}

impl Selection {
    /// Asks for each row whether it stays.
    ///
    /// ```
    /// # use pipewright_sdk::Selection;
    /// assert!(Selection::from_fn(3, |_| true).keeps(2));
    /// ```
    pub fn from_fn(row_count: usize, mut keep: impl FnMut(usize) -> bool) -> Self {
        let bits = (0..row_count.div_ceil(8))
            .map(|byte| {
                let rows = byte * 8..row_count.min(byte * 8 + 8);
                rows.enumerate()
                    .fold(0, |bits, (bit, row)| bits | u8::from(keep(row)) << bit)
            })
            .collect();
        Self { row_count, bits }
    }

    /// How many rows it speaks of.
    ///
    /// ```
    /// # use pipewright_sdk::Selection;
    /// assert_eq!(Selection::from_fn(3, |_| false).len(), 3);
    /// ```
    pub fn len(&self) -> usize {
        self.row_count
    }

    /// Whether it speaks of no row.
    ///
    /// ```
    /// # use pipewright_sdk::Selection;
    /// assert!(Selection::from_fn(0, |_| true).is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.row_count == 0
    }

    /// How many rows stay.
    ///
    /// ```
    /// # use pipewright_sdk::Selection;
    /// assert_eq!(Selection::from_fn(3, |_| false).count(), 0);
    /// ```
    pub fn count(&self) -> usize {
        self.bits
            .iter()
            .map(|bits| bits.count_ones() as usize)
            .sum()
    }

    /// Whether a row stays.
    ///
    /// ```
    /// # use pipewright_sdk::Selection;
    /// assert!(!Selection::from_fn(3, |row| row > 0).keeps(0));
    /// ```
    pub fn keeps(&self, row: usize) -> bool {
        self.bits[row / 8] >> (row % 8) & 1 == 1
    }
}
