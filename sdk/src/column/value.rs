//! Rust types that columns hold as they are.

use crate::DataType;

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
///
/// ```
/// use pipewright_sdk::{Column, DataType, Failure, Value};
///
/// fn count<T: Value + PartialEq>(column: &Column, wanted: T) -> Result<usize, Failure> {
///     Ok(column.values::<T>()?.iter().filter(|value| *value == Some(wanted)).count())
/// }
///
/// assert!(i32::fits(DataType::Date32) && !i64::fits(DataType::Date32));
/// assert_eq!(count(&Column::nulls(DataType::Date32, 4), 0_i32)?, 0);
/// # Ok::<(), pipewright_sdk::Failure>(())
/// ```
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
