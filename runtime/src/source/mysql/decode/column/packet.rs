//! Values as the server sends them: rows of the binary protocol.

use super::{ColumnBuilder, Values};
use crate::source::mysql::decode::cursor::{take_array, take_be, take_lenenc, take_u8};
use crate::source::mysql::decode::text::{push_label, push_set, push_text};
use crate::source::mysql::decode::{DecodeError, decimal, network, temporal};

impl ColumnBuilder {
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
            _ => self.push_packet_bytes(cursor)?,
        }
        self.validity.append_non_null();
        Ok(())
    }

    /// A value of no fixed width, and those that are sent as text.
    #[inline]
    fn push_packet_bytes(&mut self, cursor: &mut &[u8]) -> Result<(), DecodeError> {
        match &mut self.values {
            Values::DateText { digits, values } => {
                let stored = temporal::moment_from_packet(cursor)?;
                values.push_with(|out| {
                    stored.print(*digits, out);
                    Ok(())
                })
            }
            Values::Text {
                charset,
                key,
                values,
            } => {
                let text = push_text(*charset, *key, values, take_lenenc(cursor)?)?;
                self.texts_kept += u64::from(!text);
                Ok(())
            }
            Values::Bytes { values, .. } | Values::Json(values) => {
                values.push(take_lenenc(cursor)?)
            }
            // By number, as in row images: see the load's SELECT.
            Values::Enum {
                labels,
                refused,
                values,
            } => {
                let number = refused.distinct(u64::from_le_bytes(take_array(cursor)?))?;
                push_label(labels, number, values)
            }
            Values::Set {
                labels,
                refused,
                values,
            } => {
                let bits = refused.distinct(u64::from_le_bytes(take_array(cursor)?))?;
                push_set(labels, bits, values)
            }
            Values::Uuid(_) | Values::Inet4(_) | Values::Inet6(_) => {
                self.push_address_text(take_lenenc(cursor)?)
            }
            _ => self.push_stored(take_lenenc(cursor)?),
        }
    }

    fn push_address_text(&mut self, text: &[u8]) -> Result<(), DecodeError> {
        match &mut self.values {
            Values::Uuid(values) => {
                values.push(i128::from_ne_bytes(network::uuid_from_text(text)?));
            }
            Values::Inet4(values) => values.push(network::inet4_from_text(text)?),
            Values::Inet6(values) => {
                values.push(i128::from_ne_bytes(network::inet6_from_text(text)?));
            }
            _ => return Err(DecodeError::BadLength),
        }
        Ok(())
    }
}
