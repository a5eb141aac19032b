//! Values as the server stores and logs them: row images of the binlog.

use super::{ColumnBuilder, Values};
use crate::source::mysql::decode::cursor::{take_array, take_be, take_le, take_u8};
use crate::source::mysql::decode::image::{Layout, take_prefixed};
use crate::source::mysql::decode::temporal::{self, Stored};
use crate::source::mysql::decode::text::{push_label, push_set, push_text};
use crate::source::mysql::decode::{DecodeError, ImageFormat, compressed, decimal, json, network};

/// Bytes of room that stay between compressed values.
const ROOM_KEPT: usize = 1 << 20;

impl ColumnBuilder {
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
        let layout = format.layout()?;
        match (&mut self.values, layout) {
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
            (_, Layout::Decimal { precision, scale }) => {
                self.push_image_decimal(format, (precision, scale), cursor)?;
            }
            (_, Layout::Temporal(_)) => return self.push_image_moment(format, cursor),
            (_, Layout::Compressed(prefix)) => {
                return self.push_compressed(format, take_prefixed(prefix, cursor)?);
            }
            _ => self.push_image_bytes(format, layout, cursor)?,
        }
        self.validity.append_non_null();
        Ok(())
    }

    #[inline]
    fn push_image_decimal(
        &mut self,
        format: ImageFormat,
        (precision, stored): (u8, u8),
        cursor: &mut &[u8],
    ) -> Result<(), DecodeError> {
        match &mut self.values {
            Values::Narrow { scale, values } if *scale == stored => {
                values.push(decimal::narrow_from_image(precision, stored, cursor)?);
            }
            Values::Wide { scale, values } if *scale == stored => {
                values.push(decimal::wide_from_image(precision, stored, cursor)?);
            }
            _ => return Err(DecodeError::Mismatch(format.wire_type)),
        }
        Ok(())
    }

    #[inline]
    fn push_image_moment(
        &mut self,
        format: ImageFormat,
        cursor: &mut &[u8],
    ) -> Result<(), DecodeError> {
        let ImageFormat { wire_type, meta } = format;
        match &mut self.values {
            Values::Date(_) if temporal::is_date(wire_type) => {
                let date = temporal::date_from_image(cursor)?;
                return self.push_date(date);
            }
            Values::DateTime(_) => {
                let moment = temporal::datetime_from_image(wire_type, meta, cursor)?;
                return self.push_moment(moment);
            }
            Values::Timestamp(values) => {
                match temporal::timestamp_from_image(wire_type, meta, cursor)? {
                    Some(micros) => values.push(micros),
                    None => return self.push_moment(Stored::ZERO),
                }
            }
            Values::DateText { digits, values } => {
                let stored = match digits {
                    Some(_) => temporal::datetime_from_image(wire_type, meta, cursor)?,
                    None if temporal::is_date(wire_type) => temporal::date_from_image(cursor)?,
                    None => return Err(DecodeError::Mismatch(wire_type)),
                };
                values.push_with(|out| {
                    stored.print(*digits, out);
                    Ok(())
                })?;
            }
            Values::Time(values) => {
                values.push(temporal::time_from_image(wire_type, meta, cursor)?);
            }
            _ => return Err(DecodeError::Mismatch(wire_type)),
        }
        self.validity.append_non_null();
        Ok(())
    }

    /// A value of no fixed width.
    #[inline]
    fn push_image_bytes(
        &mut self,
        format: ImageFormat,
        layout: Layout,
        cursor: &mut &[u8],
    ) -> Result<(), DecodeError> {
        match (&mut self.values, layout) {
            (
                Values::Text {
                    charset,
                    key,
                    values,
                },
                Layout::Bytes(prefix),
            ) => {
                let text = push_text(*charset, *key, values, take_prefixed(prefix, cursor)?)?;
                self.texts_kept += u64::from(!text);
                Ok(())
            }
            (Values::Bytes { pad, values }, Layout::Bytes(prefix)) => {
                let bytes = take_prefixed(prefix, cursor)?;
                if bytes.len() >= *pad {
                    return values.push(bytes);
                }
                values.push_with(|out| {
                    let end = out.len() + *pad;
                    out.extend_from_slice(bytes);
                    out.resize(end, 0);
                    Ok(())
                })
            }
            (Values::Json(values), Layout::Json(prefix)) => {
                let document = take_prefixed(prefix, cursor)?;
                values.push_with(|out| json::print(document, out))
            }
            (
                Values::Enum {
                    labels,
                    refused,
                    values,
                },
                Layout::Enum(length),
            ) => push_label(labels, refused.distinct(take_le(cursor, length)?)?, values),
            (
                Values::Set {
                    labels,
                    refused,
                    values,
                },
                Layout::Set(length),
            ) => push_set(labels, refused.distinct(take_le(cursor, length)?)?, values),
            (Values::Geometry { .. } | Values::Vector(_), Layout::Bytes(prefix)) => {
                self.push_stored(take_prefixed(prefix, cursor)?)
            }
            (Values::Uuid(_) | Values::Inet4(_) | Values::Inet6(_), Layout::Bytes(prefix)) => {
                self.push_address(take_prefixed(prefix, cursor)?)
            }
            _ => Err(DecodeError::Mismatch(format.wire_type)),
        }
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

    fn push_address(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        match &mut self.values {
            Values::Uuid(values) | Values::Inet6(values) => {
                values.push(i128::from_ne_bytes(network::padded(bytes)?));
            }
            Values::Inet4(values) => values.push(u32::from_be_bytes(network::padded(bytes)?)),
            _ => return Err(DecodeError::BadLength),
        }
        Ok(())
    }

    /// A value of a COMPRESSED column takes the way of a LONGBLOB once it is plain.
    fn push_compressed(&mut self, format: ImageFormat, stored: &[u8]) -> Result<(), DecodeError> {
        if !matches!(self.values, Values::Text { .. } | Values::Bytes { .. }) {
            return Err(DecodeError::Mismatch(format.wire_type));
        }
        let mut room = std::mem::take(&mut self.room);
        let pushed = compressed::expand(stored, &mut room)
            .and_then(|()| self.push_image(ImageFormat::LONGBLOB, &mut room.as_slice()));
        // One long value should not hold its room for ever.
        room.clear();
        room.shrink_to(ROOM_KEPT);
        self.room = room;
        pushed
    }
}

#[cfg(test)]
#[path = "image_tests.rs"]
mod tests;
