//! The decoder of one column: the buffers that its values end in, whichever way they come.

mod image;
mod packet;

use arrow::array::ArrayRef;
use arrow::array::NullBufferBuilder;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int8Type,
    Int16Type, Int32Type, Int64Type, Time64MicrosecondType, TimestampMicrosecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type, i256,
};

use super::charset::Charset;
use super::labels::Refused;
use super::temporal::Stored;
use super::values::{ByteValues, finish_fixed, finish_sixteen};
use super::vector::FloatLists;
use super::{DecodeError, dates, geometry};
use crate::batch::{ColumnType, Policy};
use crate::error::{Error, ErrorKind, Result};
use crate::source::mysql::catalog::SourceColumn;
use crate::source::mysql::date_rules::DateRule;
use crate::source::mysql::types::Geometry;

/// Fills one column's Arrow array, value by value, from either form.
///
/// After an error the column is as it was before the call.
#[derive(Debug)]
pub struct ColumnBuilder {
    values: Values,
    validity: NullBufferBuilder,
    /// NULL is kept as NULL; else it becomes the type's default.
    keep_null: bool,
    date_rule: DateRule,
    /// Dates that the rule has changed.
    dates_changed: u64,
    /// NULLs that became the type's default.
    nulls_filled: u64,
    /// Texts that stayed as their stored bytes.
    texts_kept: u64,
    data_type: DataType,
    /// Where compressed values become plain.
    room: Vec<u8>,
}

/// The buffers by what the values are, with what reading them takes.
#[derive(Debug)]
enum Values {
    Int8(Vec<i8>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    UInt8(Vec<u8>),
    UInt16(Vec<u16>),
    UInt32(Vec<u32>),
    UInt64(Vec<u64>),
    Bit(Vec<u64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Narrow {
        scale: u8,
        values: Vec<i128>,
    },
    Wide {
        scale: u8,
        values: Vec<i256>,
    },
    Date(Vec<i32>),
    DateTime(Vec<i64>),
    Timestamp(Vec<i64>),
    /// Dates as texts; with a time of day where they have one, of that many digits.
    DateText {
        digits: Option<u8>,
        values: ByteValues,
    },
    Time(Vec<i64>),
    Text {
        charset: Charset,
        /// Of a key, where no two values may become one.
        key: bool,
        values: ByteValues,
    },
    /// Bytes; those of BINARY(n) are padded to n.
    Bytes {
        pad: usize,
        values: ByteValues,
    },
    Json(ByteValues),
    Enum {
        labels: Vec<String>,
        refused: Refused,
        values: ByteValues,
    },
    /// As an ENUM, bits in place of the number.
    Set {
        labels: Vec<String>,
        refused: Refused,
        values: ByteValues,
    },
    Geometry {
        geometry: Geometry,
        values: ByteValues,
    },
    /// The 16 bytes in the order of the text, as they lie in memory.
    Uuid(Vec<i128>),
    Inet4(Vec<u32>),
    /// As a UUID's.
    Inet6(Vec<i128>),
    Vector(FloatLists),
}

/// Runs one expression on whichever buffer there is.
macro_rules! each_buffer {
    ($values:expr, $fixed:ident => $of_fixed:expr, $bytes:ident => $of_bytes:expr) => {
        match $values {
            Values::Int8($fixed) => $of_fixed,
            Values::Int16($fixed) => $of_fixed,
            Values::Int32($fixed) => $of_fixed,
            Values::Int64($fixed) => $of_fixed,
            Values::UInt8($fixed) => $of_fixed,
            Values::UInt16($fixed) => $of_fixed,
            Values::UInt32($fixed) => $of_fixed,
            Values::UInt64($fixed) | Values::Bit($fixed) => $of_fixed,
            Values::Float32($fixed) => $of_fixed,
            Values::Float64($fixed) => $of_fixed,
            Values::Narrow { values: $fixed, .. } => $of_fixed,
            Values::Wide { values: $fixed, .. } => $of_fixed,
            Values::Date($fixed) => $of_fixed,
            Values::DateTime($fixed) | Values::Timestamp($fixed) | Values::Time($fixed) => {
                $of_fixed
            }
            Values::Uuid($fixed) | Values::Inet6($fixed) => $of_fixed,
            Values::Inet4($fixed) => $of_fixed,
            Values::Vector($bytes) => $of_bytes,
            Values::Text { values: $bytes, .. }
            | Values::DateText { values: $bytes, .. }
            | Values::Bytes { values: $bytes, .. }
            | Values::Json($bytes)
            | Values::Enum { values: $bytes, .. }
            | Values::Set { values: $bytes, .. }
            | Values::Geometry { values: $bytes, .. } => $of_bytes,
        }
    };
}

impl ColumnBuilder {
    /// An empty builder. With `null_as_default` no array has a NULL: the type's default stands for it.
    ///
    /// # Errors
    /// `Unsupported` for a charset that cannot be decoded with certainty, `Internal` for a column type that
    /// [`column_type`](crate::source::mysql::types::column_type) does not give to such a column.
    pub fn new(
        column: &SourceColumn,
        column_type: ColumnType,
        null_as_default: bool,
    ) -> Result<Self> {
        Ok(Self {
            values: Values::new(column, column_type)?,
            validity: NullBufferBuilder::new(0),
            keep_null: column.nullable && !null_as_default,
            date_rule: DateRule::default(),
            dates_changed: 0,
            texts_kept: 0,
            nulls_filled: 0,
            data_type: column_type.arrow(),
            room: Vec::new(),
        })
    }

    /// The same builder with a rule for dates that no calendar has; [`DateRule::Text`] is told by the column type.
    #[must_use]
    pub fn with_date_rule(mut self, rule: DateRule) -> Self {
        self.date_rule = rule;
        self
    }

    /// The column of a key: a text or label that could become the same as another one is an error.
    #[must_use]
    pub fn of_key(mut self) -> Self {
        match &mut self.values {
            Values::Text { key, .. } => *key = true,
            Values::Enum {
                labels, refused, ..
            } => *refused = Refused::of_enum(labels),
            Values::Set {
                labels, refused, ..
            } => *refused = Refused::of_set(labels),
            _ => {}
        }
        self
    }

    /// Appends NULL, or the type's default where the column has no NULL.
    #[inline]
    pub fn push_null(&mut self) {
        self.nulls_filled += u64::from(!self.keep_null);
        self.push_absent();
    }

    /// Appends the same for a value that is not known and that nobody will see: no policy has changed it.
    #[inline]
    pub fn push_absent(&mut self) {
        each_buffer!(&mut self.values, values => values.push(Default::default()), bytes => bytes.push_empty());
        self.validity.append(!self.keep_null);
    }

    /// The rows so far.
    #[inline]
    pub fn len(&self) -> usize {
        self.validity.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the values so far. Offsets reach 2 GiB: a caller flushes long before.
    #[inline]
    pub fn byte_count(&self) -> usize {
        each_buffer!(&self.values, values => size_of_val(values.as_slice()), bytes => bytes.byte_count())
    }

    /// How many values are not the source's own, by policy, since this was last asked.
    pub fn take_changed(&mut self) -> [(Policy, u64); 3] {
        [
            (Policy::ZeroDates, std::mem::take(&mut self.dates_changed)),
            (
                Policy::NullAsDefault,
                std::mem::take(&mut self.nulls_filled),
            ),
            (Policy::InvalidText, std::mem::take(&mut self.texts_kept)),
        ]
    }

    /// Drops all rows from `row_count` on.
    pub fn truncate(&mut self, row_count: usize) {
        each_buffer!(&mut self.values, values => values.truncate(row_count), bytes => bytes.truncate(row_count));
        self.validity.truncate(row_count);
    }

    /// The rows so far as an array of exactly [`ColumnType::arrow`]; the builder is empty afterwards.
    pub fn finish(&mut self) -> ArrayRef {
        let nulls = self.validity.finish();
        let of = &self.data_type;
        match &mut self.values {
            Values::Int8(values) => finish_fixed::<Int8Type>(values, nulls, of),
            Values::Int16(values) => finish_fixed::<Int16Type>(values, nulls, of),
            Values::Int32(values) => finish_fixed::<Int32Type>(values, nulls, of),
            Values::Int64(values) => finish_fixed::<Int64Type>(values, nulls, of),
            Values::UInt8(values) => finish_fixed::<UInt8Type>(values, nulls, of),
            Values::UInt16(values) => finish_fixed::<UInt16Type>(values, nulls, of),
            Values::UInt32(values) => finish_fixed::<UInt32Type>(values, nulls, of),
            Values::UInt64(values) | Values::Bit(values) => {
                finish_fixed::<UInt64Type>(values, nulls, of)
            }
            Values::Float32(values) => finish_fixed::<Float32Type>(values, nulls, of),
            Values::Float64(values) => finish_fixed::<Float64Type>(values, nulls, of),
            Values::Narrow { values, .. } => finish_fixed::<Decimal128Type>(values, nulls, of),
            Values::Wide { values, .. } => finish_fixed::<Decimal256Type>(values, nulls, of),
            Values::Date(values) => finish_fixed::<Date32Type>(values, nulls, of),
            Values::DateTime(values) | Values::Timestamp(values) => {
                finish_fixed::<TimestampMicrosecondType>(values, nulls, of)
            }
            Values::Time(values) => finish_fixed::<Time64MicrosecondType>(values, nulls, of),
            Values::Text { values, .. }
            | Values::DateText { values, .. }
            | Values::Bytes { values, .. }
            | Values::Json(values)
            | Values::Enum { values, .. }
            | Values::Set { values, .. }
            | Values::Geometry { values, .. } => values.finish(nulls),
            Values::Uuid(values) | Values::Inet6(values) => finish_sixteen(values, nulls),
            Values::Inet4(values) => finish_fixed::<UInt32Type>(values, nulls, of),
            Values::Vector(values) => values.finish(nulls),
        }
    }

    #[inline]
    fn push_date(&mut self, date: Stored) -> Result<(), DecodeError> {
        let days = match date.days() {
            Some(days) => Some(days),
            None => self.replace(date)?.and_then(Stored::days),
        };
        if let Values::Date(values) = &mut self.values {
            values.push(days.unwrap_or(0));
            self.validity.append(days.is_some());
        }
        Ok(())
    }

    #[inline]
    fn push_moment(&mut self, moment: Stored) -> Result<(), DecodeError> {
        let micros = match moment.micros() {
            Some(micros) => Some(micros),
            None => self.replace(moment)?.and_then(Stored::micros),
        };
        if let Values::DateTime(values) | Values::Timestamp(values) = &mut self.values {
            values.push(micros.unwrap_or(0));
            self.validity.append(micros.is_some());
        }
        Ok(())
    }

    /// A value whose bytes are the same in packets and row images.
    fn push_stored(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        match &mut self.values {
            Values::Geometry { geometry, values } => {
                values.push_with(|out| geometry::print(*geometry, bytes, out))
            }
            Values::Vector(values) => values.push(bytes),
            _ => Err(DecodeError::BadLength),
        }
    }

    /// What stands for a date that no calendar has, counted.
    #[cold]
    fn replace(&mut self, stored: Stored) -> Result<Option<Stored>, DecodeError> {
        let replaced = dates::replacement(self.date_rule, self.keep_null, stored)?;
        self.dates_changed += 1;
        Ok(replaced)
    }
}

impl Values {
    fn new(column: &SourceColumn, column_type: ColumnType) -> Result<Self> {
        let values = ByteValues::new;
        Ok(match (column_type, column.data_type.as_str()) {
            (ColumnType::Int8, _) => Values::Int8(vec![]),
            (ColumnType::Int16, _) => Values::Int16(vec![]),
            (ColumnType::Int32, _) => Values::Int32(vec![]),
            (ColumnType::Int64, _) => Values::Int64(vec![]),
            (ColumnType::UInt8, _) => Values::UInt8(vec![]),
            (ColumnType::UInt16, _) => Values::UInt16(vec![]),
            (ColumnType::UInt32, _) => Values::UInt32(vec![]),
            (ColumnType::UInt64, "bit") => Values::Bit(vec![]),
            (ColumnType::UInt64, _) => Values::UInt64(vec![]),
            (ColumnType::Float32, _) => Values::Float32(vec![]),
            (ColumnType::Float64, _) => Values::Float64(vec![]),
            (ColumnType::Decimal { precision, scale }, _) if precision <= 38 => Values::Narrow {
                scale,
                values: vec![],
            },
            (ColumnType::Decimal { scale, .. }, _) => Values::Wide {
                scale,
                values: vec![],
            },
            (ColumnType::Date, _) => Values::Date(vec![]),
            (ColumnType::DateTime { .. }, _) => Values::DateTime(vec![]),
            (ColumnType::Timestamp { .. }, _) => Values::Timestamp(vec![]),
            (ColumnType::Time { .. }, _) => Values::Time(vec![]),
            (ColumnType::Label, "enum") => Values::Enum {
                labels: column.labels.clone(),
                refused: Refused::default(),
                values: values(),
            },
            (ColumnType::Label, _) => {
                return Err(Error::new(
                    ErrorKind::Internal,
                    format!("column `{}` has labels and is no ENUM", column.name),
                ));
            }
            (ColumnType::Bool | ColumnType::List(_), _) => {
                return Err(Error::new(
                    ErrorKind::Internal,
                    format!("column `{}` is of a type that no source has", column.name),
                ));
            }
            (ColumnType::Uuid, _) => Values::Uuid(vec![]),
            (ColumnType::Inet4, _) => Values::Inet4(vec![]),
            (ColumnType::Inet6, _) => Values::Inet6(vec![]),
            (ColumnType::Vector, _) => Values::Vector(FloatLists::new()),
            (ColumnType::Text | ColumnType::Bytes, _) if let Some(geometry) = column.geometry => {
                Values::Geometry {
                    geometry,
                    values: values(),
                }
            }
            (ColumnType::Text, _) => Self::text(column)?,
            (ColumnType::Bytes, _) => Self::bytes(column),
            (ColumnType::Json, _) => Values::Json(values()),
        })
    }

    fn text(column: &SourceColumn) -> Result<Self> {
        let values = ByteValues::new();
        Ok(match column.data_type.as_str() {
            "set" => Values::Set {
                labels: column.labels.clone(),
                refused: Refused::default(),
                values,
            },
            "date" => Values::DateText {
                digits: None,
                values,
            },
            "datetime" => Values::DateText {
                digits: Some(column.scale.unwrap_or(0)),
                values,
            },
            _ => Values::Text {
                charset: charset(column)?,
                key: false,
                values,
            },
        })
    }

    fn bytes(column: &SourceColumn) -> Self {
        // The server cuts zeros off the end in row images, and nowhere else (pitfall 18).
        let padded = column.length.filter(|_| column.data_type == "binary");
        Values::Bytes {
            pad: padded.and_then(|n| usize::try_from(n).ok()).unwrap_or(0),
            values: ByteValues::new(),
        }
    }
}

fn charset(column: &SourceColumn) -> Result<Charset> {
    let name = column.charset.as_deref().unwrap_or("binary");
    Charset::named(name).ok_or_else(|| {
        Error::new(
            ErrorKind::Unsupported,
            format!("column `{}` has the charset `{name}`", column.name),
        )
        .with_hint(format!(
            "name `{}` in this table's `exclude_columns`",
            column.name
        ))
    })
}

#[cfg(test)]
#[path = "column_tests.rs"]
mod tests;
