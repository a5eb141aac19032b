//! The decoder of one column: which reader its values take, and the buffers they end in.

use arrow::array::ArrayRef;
use arrow::array::NullBufferBuilder;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int8Type,
    Int16Type, Int32Type, Int64Type, Time64MicrosecondType, TimestampMicrosecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type, i256,
};

use super::charset::transcode;
use super::cursor::{take_array, take_be, take_le, take_lenenc, take_u8};
use super::image::{Layout, take_prefixed};
use super::values::{ByteValues, finish_fixed};
use super::{DecodeError, ImageFormat, decimal, json, temporal};
use crate::batch::ColumnType;
use crate::error::{Error, ErrorKind, Result};
use crate::source::mysql::catalog::SourceColumn;
use crate::source::mysql::types::Charset;

/// Fills one column's Arrow array, value by value, from either form.
///
/// After an error the column is as it was before the call.
#[derive(Debug)]
pub struct ColumnBuilder {
    values: Values,
    validity: NullBufferBuilder,
    /// NULL is kept as NULL; else it becomes the type's default.
    keep_null: bool,
    policy_hits: u64,
    data_type: DataType,
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
    Time(Vec<i64>),
    Text {
        charset: Charset,
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
        values: ByteValues,
    },
    Set {
        labels: Vec<String>,
        values: ByteValues,
    },
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
            Values::Text { values: $bytes, .. }
            | Values::Bytes { values: $bytes, .. }
            | Values::Json($bytes)
            | Values::Enum { values: $bytes, .. }
            | Values::Set { values: $bytes, .. } => $of_bytes,
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
            policy_hits: 0,
            data_type: column_type.arrow(),
        })
    }

    /// Takes one value that is not NULL off the front of a binary-protocol row.
    ///
    /// # Errors
    /// When the bytes are no such value.
    #[inline]
    pub fn push_packet(&mut self, cursor: &mut &[u8]) -> Result<(), DecodeError> {
        match &mut self.values {
            Values::Int8(values) => values.push(i8::from_le_bytes(take_array(cursor)?)),
            Values::Int16(values) => values.push(i16::from_le_bytes(take_array(cursor)?)),
            Values::Int32(values) => values.push(i32::from_le_bytes(take_array(cursor)?)),
            Values::Int64(values) => values.push(i64::from_le_bytes(take_array(cursor)?)),
            Values::UInt8(values) => values.push(take_u8(cursor)?),
            Values::UInt16(values) => values.push(u16::from_le_bytes(take_array(cursor)?)),
            Values::UInt32(values) => values.push(u32::from_le_bytes(take_array(cursor)?)),
            Values::UInt64(values) => values.push(u64::from_le_bytes(take_array(cursor)?)),
            Values::Bit(values) => {
                let mut bytes = take_lenenc(cursor)?;
                let length = bytes.len();
                values.push(take_be(&mut bytes, length)?);
            }
            Values::Float32(values) => values.push(f32::from_le_bytes(take_array(cursor)?)),
            Values::Float64(values) => values.push(f64::from_le_bytes(take_array(cursor)?)),
            Values::Narrow { scale, values } => {
                values.push(decimal::narrow_from_text(take_lenenc(cursor)?, *scale)?);
            }
            Values::Wide { scale, values } => {
                values.push(decimal::wide_from_text(take_lenenc(cursor)?, *scale)?);
            }
            Values::Date(_) => {
                let date = temporal::date_from_packet(cursor)?;
                return self.push_date(date);
            }
            Values::DateTime(_) | Values::Timestamp(_) => {
                let moment = temporal::moment_from_packet(cursor)?;
                return self.push_moment(moment);
            }
            Values::Time(values) => values.push(temporal::time_from_packet(cursor)?),
            Values::Text { values, .. }
            | Values::Bytes { values, .. }
            | Values::Json(values)
            | Values::Enum { values, .. }
            | Values::Set { values, .. } => values.push(take_lenenc(cursor)?)?,
        }
        self.validity.append_non_null();
        Ok(())
    }

    /// Takes one value that is not NULL off the front of a row image.
    ///
    /// # Errors
    /// When the bytes are no such value, or `format` is none of this column's.
    #[inline]
    pub fn push_image(
        &mut self,
        format: ImageFormat,
        cursor: &mut &[u8],
    ) -> Result<(), DecodeError> {
        let mismatch = DecodeError::Mismatch(format.wire_type);
        match (&mut self.values, format.layout()?) {
            (Values::Int8(values), Layout::Integer(1)) => {
                values.push(i8::from_le_bytes(take_array(cursor)?));
            }
            (Values::Int16(values), Layout::Integer(2)) => {
                values.push(i16::from_le_bytes(take_array(cursor)?));
            }
            (Values::Int32(values), Layout::Integer(4)) => {
                values.push(i32::from_le_bytes(take_array(cursor)?));
            }
            // MEDIUMINT brings its sign in the third byte (pitfall 9).
            (Values::Int32(values), Layout::Integer(3)) => {
                let [low, middle, high] = take_array(cursor)?;
                values.push(i32::from_le_bytes([0, low, middle, high]) >> 8);
            }
            (Values::Int64(values), Layout::Integer(8)) => {
                values.push(i64::from_le_bytes(take_array(cursor)?));
            }
            (Values::UInt8(values), Layout::Integer(1)) => values.push(take_u8(cursor)?),
            (Values::UInt16(values), Layout::Integer(2)) => {
                values.push(u16::from_le_bytes(take_array(cursor)?));
            }
            // Year 0000 is byte 0, and 0 here (pitfall 7).
            (Values::UInt16(values), Layout::Year) => {
                let year = u16::from(take_u8(cursor)?);
                values.push(if year == 0 { 0 } else { 1900 + year });
            }
            (Values::UInt32(values), Layout::Integer(4)) => {
                values.push(u32::from_le_bytes(take_array(cursor)?));
            }
            (Values::UInt32(values), Layout::Integer(3)) => {
                let [low, middle, high] = take_array(cursor)?;
                values.push(u32::from_le_bytes([low, middle, high, 0]));
            }
            (Values::UInt64(values), Layout::Integer(8)) => {
                values.push(u64::from_le_bytes(take_array(cursor)?));
            }
            (Values::Bit(values), Layout::Bits(length)) => values.push(take_be(cursor, length)?),
            (Values::Float32(values), Layout::Float) => {
                values.push(f32::from_le_bytes(take_array(cursor)?));
            }
            (Values::Float64(values), Layout::Double) => {
                values.push(f64::from_le_bytes(take_array(cursor)?));
            }
            (
                Values::Narrow { scale, values },
                Layout::Decimal {
                    precision,
                    scale: stored,
                },
            ) if *scale == stored => {
                values.push(decimal::narrow_from_image(precision, stored, cursor)?);
            }
            (
                Values::Wide { scale, values },
                Layout::Decimal {
                    precision,
                    scale: stored,
                },
            ) if *scale == stored => {
                values.push(decimal::wide_from_image(precision, stored, cursor)?);
            }
            (Values::Date(_), Layout::Temporal(3)) if temporal::is_date(format.wire_type) => {
                let date = temporal::date_from_image(cursor)?;
                return self.push_date(date);
            }
            (Values::DateTime(_), Layout::Temporal(_)) => {
                let moment = temporal::datetime_from_image(format.wire_type, format.meta, cursor)?;
                return self.push_moment(moment);
            }
            (Values::Timestamp(_), Layout::Temporal(_)) => {
                let moment = temporal::timestamp_from_image(format.wire_type, format.meta, cursor)?;
                return self.push_moment(moment);
            }
            (Values::Time(values), Layout::Temporal(_)) => {
                values.push(temporal::time_from_image(
                    format.wire_type,
                    format.meta,
                    cursor,
                )?);
            }
            (Values::Text { charset, values }, Layout::Bytes(prefix)) => {
                let bytes = take_prefixed(prefix, cursor)?;
                match charset {
                    Charset::Utf8 => values.push(bytes)?,
                    charset => values.push_with(|out| transcode(*charset, bytes, out))?,
                }
            }
            (Values::Bytes { pad, values }, Layout::Bytes(prefix)) => {
                let bytes = take_prefixed(prefix, cursor)?;
                if bytes.len() < *pad {
                    values.push_with(|out| {
                        let end = out.len() + *pad;
                        out.extend_from_slice(bytes);
                        out.resize(end, 0);
                        Ok(())
                    })?;
                } else {
                    values.push(bytes)?;
                }
            }
            (Values::Json(values), Layout::Json(prefix)) => {
                let document = take_prefixed(prefix, cursor)?;
                values.push_with(|out| json::print(document, out))?;
            }
            (Values::Enum { labels, values }, Layout::Enum(length)) => {
                match take_le(cursor, length)?.checked_sub(1) {
                    // Index 0 is what the server stored for a value that is no label; it reads as '' (pitfall 14).
                    None => values.push_empty(),
                    Some(index) => values.push(label(labels, index)?.as_bytes())?,
                }
            }
            (Values::Set { labels, values }, Layout::Set(length)) => {
                let bits = take_le(cursor, length)?;
                values.push_with(|out| print_set(labels, bits, out))?;
            }
            _ => return Err(mismatch),
        }
        self.validity.append_non_null();
        Ok(())
    }

    /// Takes a JSON document that an update changed in parts: as it was, and the changes; both without length prefix.
    ///
    /// # Errors
    /// When the changes do not fit the document, or this column holds none.
    pub fn push_changed_document(
        &mut self,
        document: &[u8],
        changes: &[u8],
    ) -> Result<(), DecodeError> {
        let Values::Json(values) = &mut self.values else {
            return Err(DecodeError::BadJson("a column that holds no documents"));
        };
        values.push_with(|out| json::print_changed(document, changes, out))?;
        self.validity.append_non_null();
        Ok(())
    }

    /// Appends NULL, or the type's default where the column has no NULL.
    #[inline]
    pub fn push_null(&mut self) {
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

    /// Values that are not the source's own because of a declared policy: dates that no calendar has.
    pub fn policy_hits(&self) -> u64 {
        self.policy_hits
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
            | Values::Bytes { values, .. }
            | Values::Json(values)
            | Values::Enum { values, .. }
            | Values::Set { values, .. } => values.finish(nulls),
        }
    }

    fn push_date(&mut self, date: Option<i32>) -> Result<(), DecodeError> {
        let valid = self.policy(date.is_some());
        if let Values::Date(values) = &mut self.values {
            values.push(date.unwrap_or(0));
            self.validity.append(valid);
        }
        Ok(())
    }

    fn push_moment(&mut self, moment: Option<i64>) -> Result<(), DecodeError> {
        let valid = self.policy(moment.is_some());
        if let Values::DateTime(values) | Values::Timestamp(values) = &mut self.values {
            values.push(moment.unwrap_or(0));
            self.validity.append(valid);
        }
        Ok(())
    }

    /// Counts a date that no calendar has; it becomes NULL, or 1970-01-01 where the column has no NULL (pitfall 1).
    #[inline]
    fn policy(&mut self, real: bool) -> bool {
        self.policy_hits += u64::from(!real);
        real || !self.keep_null
    }
}

impl Values {
    fn new(column: &SourceColumn, column_type: ColumnType) -> Result<Self> {
        let labels = || column.labels.clone();
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
                labels: labels(),
                values: values(),
            },
            (ColumnType::Label, _) => {
                return Err(Error::new(
                    ErrorKind::Internal,
                    format!("column `{}` has labels and is no ENUM", column.name),
                ));
            }
            (ColumnType::Text, "set") => Values::Set {
                labels: labels(),
                values: values(),
            },
            (ColumnType::Text, _) => Values::Text {
                charset: charset(column)?,
                values: values(),
            },
            (ColumnType::Bytes, "binary") => Values::Bytes {
                // The server cuts zeros off the end in row images, and nowhere else (pitfall 18).
                pad: column
                    .length
                    .and_then(|n| usize::try_from(n).ok())
                    .unwrap_or(0),
                values: values(),
            },
            (ColumnType::Bytes, _) => Values::Bytes {
                pad: 0,
                values: values(),
            },
            (ColumnType::Json, _) => Values::Json(values()),
        })
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

#[inline]
fn label(labels: &[String], index: u64) -> Result<&str, DecodeError> {
    usize::try_from(index)
        .ok()
        .and_then(|index| labels.get(index))
        .map(String::as_str)
        .ok_or(DecodeError::UnknownLabel)
}

/// Appends the labels of the bits that are set, in declared order (pitfall 16).
fn print_set(labels: &[String], bits: u64, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let (mut rest, mut first) = (bits, true);
    while rest != 0 {
        if !first {
            out.push(b',');
        }
        first = false;
        out.extend_from_slice(label(labels, rest.trailing_zeros().into())?.as_bytes());
        rest &= rest - 1;
    }
    Ok(())
}

#[cfg(test)]
#[path = "column_tests.rs"]
mod tests;
