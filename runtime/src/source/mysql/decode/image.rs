//! How values lie in a row image, and walking over images without decoding them.

use std::ops::Range;

use super::cursor::{take, take_le};
use super::temporal::{fraction_length, wire};
use super::{DecodeError, decimal, hires};
use crate::source::mysql::catalog::SourceColumn;
use crate::source::mysql::types::is_hires;

/// How one column's values lie in a row image, by the event's table map.
///
/// The table map writes metadata of two bytes in two byte orders. [`ImageFormat::read`] knows which; what it makes of
/// them is the meaning that `meta` has here: real type or precision in the high byte for STRING, ENUM, SET and
/// NEWDECIMAL, the plain number for VARCHAR, whole bytes in the high byte and further bits in the low one for BIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageFormat {
    /// The type number of the binlog.
    pub wire_type: u8,
    /// What the type number leaves open.
    pub meta: u16,
}

const TINY: u8 = 1;
const SHORT: u8 = 2;
const LONG: u8 = 3;
const FLOAT: u8 = 4;
const DOUBLE: u8 = 5;
const NULL: u8 = 6;
const LONGLONG: u8 = 8;
const INT24: u8 = 9;
const YEAR: u8 = 13;
const VARCHAR: u8 = 15;
const BIT: u8 = 16;
const BLOB_COMPRESSED: u8 = 140;
const VARCHAR_COMPRESSED: u8 = 141;
const VECTOR: u8 = 242;
const JSON: u8 = 245;
const NEWDECIMAL: u8 = 246;
const ENUM: u8 = 247;
const SET: u8 = 248;
const TINY_BLOB: u8 = 249;
const BLOB: u8 = 252;
const VAR_STRING: u8 = 253;
const STRING: u8 = 254;
const GEOMETRY: u8 = 255;

/// What a format comes down to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// An integer of that many bytes, low byte first.
    Integer(usize),
    /// Four bytes of IEEE 754.
    Float,
    /// Eight bytes of IEEE 754.
    Double,
    /// One byte, years since 1900, or 0.
    Year,
    /// A date or time; its wire type and digits say the rest.
    Temporal(usize),
    /// Groups of nine digits.
    Decimal {
        /// All digits.
        precision: u8,
        /// Digits behind the point.
        scale: u8,
    },
    /// That many bytes, high byte first.
    Bits(usize),
    /// A label's index, one or two bytes.
    Enum(usize),
    /// A bit for each label.
    Set(usize),
    /// Bytes behind a length of that many bytes.
    Bytes(usize),
    /// Bytes behind a length of that many bytes, which MariaDB may have compressed.
    Compressed(usize),
    /// A document behind a length of that many bytes.
    Json(usize),
    /// Nothing: every value is NULL.
    Nothing,
}

impl ImageFormat {
    /// Bytes behind a length of four bytes.
    pub(super) const LONGBLOB: Self = Self {
        wire_type: BLOB,
        meta: 4,
    };

    /// This format with what only the recorded column knows: the digits of a time in MariaDB's layout of before 10.1,
    /// without which nobody can say how long its values are (pitfall 35). To be asked once [`ImageFormat::fits`] is true.
    #[must_use]
    pub fn completed(self, column: &SourceColumn) -> Self {
        let old = matches!(
            self.wire_type,
            wire::TIME | wire::DATETIME | wire::TIMESTAMP
        );
        match column.scale {
            Some(digits) if old && is_hires(column) => Self {
                meta: digits.into(),
                ..self
            },
            _ => self,
        }
    }

    /// Takes the metadata of a column of `wire_type` off the front of a table map's metadata block.
    ///
    /// # Errors
    /// When the block is too short, or the type unknown, so that nobody can say how much of the block is its.
    pub fn read(wire_type: u8, block: &mut &[u8]) -> Result<Self, DecodeError> {
        let meta = match wire_type {
            TINY | SHORT | LONG | NULL | LONGLONG | INT24 | YEAR => 0,
            wire::TIMESTAMP | wire::DATE | wire::TIME | wire::DATETIME | wire::NEWDATE => 0,
            FLOAT | DOUBLE | BLOB_COMPRESSED | VECTOR | JSON | GEOMETRY => take_le(block, 1)?,
            wire::TIMESTAMP2 | wire::DATETIME2 | wire::TIME2 => take_le(block, 1)?,
            TINY_BLOB..=BLOB => take_le(block, 1)?,
            VARCHAR | BIT | VARCHAR_COMPRESSED => take_le(block, 2)?,
            NEWDECIMAL | ENUM | SET | VAR_STRING | STRING => super::cursor::take_be(block, 2)?,
            other => return Err(DecodeError::UnknownWireType(other)),
        };
        Ok(Self {
            wire_type,
            meta: u16::try_from(meta).map_err(|_| DecodeError::BadLength)?,
        })
    }

    /// What the format comes down to. Cheap enough for every value.
    #[inline]
    pub(super) fn layout(self) -> Result<Layout, DecodeError> {
        let [high, low] = self.meta.to_be_bytes();
        Ok(match self.wire_type {
            TINY => Layout::Integer(1),
            SHORT => Layout::Integer(2),
            INT24 => Layout::Integer(3),
            LONG => Layout::Integer(4),
            LONGLONG => Layout::Integer(8),
            FLOAT => Layout::Float,
            DOUBLE => Layout::Double,
            NULL => Layout::Nothing,
            YEAR => Layout::Year,
            wire::DATE | wire::NEWDATE => Layout::Temporal(3),
            wire::TIME | wire::TIMESTAMP | wire::DATETIME if self.meta > 0 => {
                let length = hires::length(self.wire_type, self.meta);
                Layout::Temporal(length.ok_or(DecodeError::BadLength)?)
            }
            wire::TIME => Layout::Temporal(3),
            wire::TIMESTAMP => Layout::Temporal(4),
            wire::DATETIME => Layout::Temporal(8),
            wire::TIME2 => Layout::Temporal(3 + self.fraction()?),
            wire::TIMESTAMP2 => Layout::Temporal(4 + self.fraction()?),
            wire::DATETIME2 => Layout::Temporal(5 + self.fraction()?),
            NEWDECIMAL => Layout::Decimal {
                precision: high,
                scale: low,
            },
            BIT => Layout::Bits(usize::from(high) + usize::from(low > 0)),
            VARCHAR => Layout::Bytes(prefix(self.meta)),
            VARCHAR_COMPRESSED => Layout::Compressed(prefix(self.meta)),
            BLOB_COMPRESSED => Layout::Compressed(low.into()),
            ENUM => Layout::Enum(low.into()),
            SET => Layout::Set(low.into()),
            VAR_STRING | STRING => self.string(high, low),
            JSON => Layout::Json(low.into()),
            VECTOR | GEOMETRY | TINY_BLOB..=BLOB => Layout::Bytes(low.into()),
            other => return Err(DecodeError::UnknownWireType(other)),
        })
    }

    /// ENUM and SET hide in STRING's metadata; and a CHAR of more than 255 bytes has two bits of its length, inverted,
    /// where its real type's bits 4 and 5 would be (pitfall 19).
    #[inline]
    fn string(self, high: u8, low: u8) -> Layout {
        match high {
            ENUM => Layout::Enum(low.into()),
            SET => Layout::Set(low.into()),
            _ => Layout::Bytes(prefix(self.string_length(high, low))),
        }
    }

    /// Whether it is that of BINARY(`length`), under which MariaDB hides its newer types (pitfall 33).
    fn is_binary(self, length: u16) -> bool {
        let [high, low] = self.meta.to_be_bytes();
        self.wire_type == STRING
            && matches!(self.string(high, low), Layout::Bytes(_))
            && self.string_length(high, low) == length
    }

    fn string_length(self, high: u8, low: u8) -> u16 {
        u16::from((high & 0x30) ^ 0x30) << 4 | u16::from(low)
    }

    #[inline]
    fn fraction(self) -> Result<usize, DecodeError> {
        fraction_length(self.meta).ok_or(DecodeError::BadLength)
    }

    /// Whether values are numbers of an ENUM's labels.
    pub fn is_enum(self) -> bool {
        matches!(self.layout(), Ok(Layout::Enum(_)))
    }

    /// Whether values are a SET's bits.
    pub fn is_set(self) -> bool {
        matches!(self.layout(), Ok(Layout::Set(_)))
    }

    /// The bytes that the value at the front of `cursor` takes, its length prefix included.
    ///
    /// # Errors
    /// `Truncated` when `cursor` does not hold them all.
    #[inline]
    pub fn value_length(self, cursor: &[u8]) -> Result<usize, DecodeError> {
        let length = match self.layout()? {
            Layout::Nothing => 0,
            Layout::Integer(length)
            | Layout::Temporal(length)
            | Layout::Bits(length)
            | Layout::Enum(length)
            | Layout::Set(length) => length,
            Layout::Year => 1,
            Layout::Float => 4,
            Layout::Double => 8,
            Layout::Decimal { precision, scale } => {
                decimal::image_length(precision, scale).ok_or(DecodeError::BadLength)?
            }
            Layout::Bytes(prefix) | Layout::Compressed(prefix) | Layout::Json(prefix) => {
                let length = take_le(&mut &*cursor, check_prefix(prefix)?)?;
                usize::try_from(length)
                    .ok()
                    .and_then(|length| length.checked_add(prefix))
                    .ok_or(DecodeError::BadLength)?
            }
        };
        if length > cursor.len() {
            return Err(DecodeError::Truncated);
        }
        Ok(length)
    }

    /// Whether values of this format can be values of the recorded column: the cross-check of a table map against the
    /// recorded schema (pitfall 47). What a decoder reads from the format itself, such as the length of a VARCHAR, may
    /// differ; what it takes from the schema may not.
    pub fn fits(self, column: &SourceColumn) -> bool {
        let Ok(layout) = self.layout() else {
            return false;
        };
        let [high, low] = self.meta.to_be_bytes();
        let digits = u16::from(column.scale.unwrap_or(0));
        match column.data_type.as_str() {
            "tinyint" => layout == Layout::Integer(1),
            "smallint" => layout == Layout::Integer(2),
            "mediumint" => layout == Layout::Integer(3),
            "int" | "integer" => layout == Layout::Integer(4),
            "bigint" => layout == Layout::Integer(8),
            "float" => layout == Layout::Float,
            "double" => layout == Layout::Double,
            "year" => layout == Layout::Year,
            "decimal" | "numeric" => {
                self.wire_type == NEWDECIMAL
                    && (column.precision, column.scale) == (Some(high), Some(low))
            }
            "bit" => {
                self.wire_type == BIT && column.length == Some(u64::from(high) * 8 + u64::from(low))
            }
            "date" => matches!(self.wire_type, wire::DATE | wire::NEWDATE),
            "time" => match self.wire_type {
                wire::TIME2 => self.meta == digits,
                wire::TIME => digits == 0 || is_hires(column),
                _ => false,
            },
            "datetime" => match self.wire_type {
                wire::DATETIME2 => self.meta == digits,
                wire::DATETIME => digits == 0 || is_hires(column),
                _ => false,
            },
            "timestamp" => match self.wire_type {
                wire::TIMESTAMP2 => self.meta == digits,
                wire::TIMESTAMP => digits == 0 || is_hires(column),
                _ => false,
            },
            "char" => self.wire_type == STRING && matches!(layout, Layout::Bytes(_)),
            // The length is what values are padded to.
            "binary" => {
                self.wire_type == STRING
                    && matches!(layout, Layout::Bytes(_))
                    && column.length == Some(self.string_length(high, low).into())
            }
            "varchar" | "varbinary" => {
                matches!(self.wire_type, VARCHAR | VAR_STRING | VARCHAR_COMPRESSED)
            }
            "tinytext" | "text" | "mediumtext" | "longtext" | "tinyblob" | "blob"
            | "mediumblob" | "longblob" => {
                matches!(self.wire_type, TINY_BLOB..=BLOB | BLOB_COMPRESSED)
            }
            "enum" => layout == Layout::Enum(if column.labels.len() < 256 { 1 } else { 2 }),
            "set" => layout == Layout::Set(set_length(column.labels.len())),
            "json" => matches!(layout, Layout::Json(_)),
            "uuid" | "inet6" => self.is_binary(16),
            "inet4" => self.is_binary(4),
            // MariaDB gives a vector the type number of a VARBINARY (pitfall 32).
            "vector" => matches!(self.wire_type, VECTOR | VARCHAR),
            _ if column.geometry.is_some() => self.wire_type == GEOMETRY,
            // Types that are only ever skipped.
            _ => true,
        }
    }
}

/// A string's length takes one byte while the longest possible one allows it.
#[inline]
fn prefix(longest: u16) -> usize {
    if longest > 255 { 2 } else { 1 }
}

#[inline]
fn check_prefix(prefix: usize) -> Result<usize, DecodeError> {
    match prefix {
        1..=4 => Ok(prefix),
        _ => Err(DecodeError::BadLength),
    }
}

fn set_length(labels: usize) -> usize {
    match labels.div_ceil(8) {
        length @ 0..=4 => length,
        _ => 8,
    }
}

/// The bytes behind a length of `prefix` bytes.
#[inline]
pub(super) fn take_prefixed<'a>(
    prefix: usize,
    cursor: &mut &'a [u8],
) -> Result<&'a [u8], DecodeError> {
    let length = take_le(cursor, check_prefix(prefix)?)?;
    take(
        cursor,
        usize::try_from(length).map_err(|_| DecodeError::BadLength)?,
    )
}

/// Whether bit `index` of a bitmap is set; bits past its end are not.
#[inline]
pub(super) fn bit(bitmap: &[u8], index: usize) -> bool {
    bitmap
        .get(index / 8)
        .is_some_and(|byte| byte >> (index % 8) & 1 == 1)
}

/// The front of a row image: the columns that it holds, and which of them are NULL.
pub(super) struct RowStart<'a> {
    present: &'a [u8],
    nulls: &'a [u8],
    next: usize,
}

/// What a row image says of one column before its value.
pub(super) enum Presence {
    Absent,
    Null,
    Value,
}

impl<'a> RowStart<'a> {
    /// Takes the NULL bitmap off the front of a row image; it counts present columns only (pitfall 44).
    #[inline]
    pub(super) fn take(
        column_count: usize,
        present: &'a [u8],
        cursor: &mut &'a [u8],
    ) -> Result<Self, DecodeError> {
        let (whole, rest) = (column_count / 8, column_count % 8);
        let whole_bytes = present.get(..whole).unwrap_or(present);
        let last = present
            .get(whole)
            .map_or(0, |byte| byte & ((1u8 << rest) - 1));
        let count = whole_bytes
            .iter()
            .map(|byte| byte.count_ones() as usize)
            .sum::<usize>()
            + last.count_ones() as usize;
        Ok(Self {
            present,
            nulls: take(cursor, count.div_ceil(8))?,
            next: 0,
        })
    }

    /// What is there of the column at `ordinal`; ordinals must be asked in order.
    #[inline]
    pub(super) fn next(&mut self, ordinal: usize) -> Presence {
        if !bit(self.present, ordinal) {
            return Presence::Absent;
        }
        let null = bit(self.nulls, self.next);
        self.next += 1;
        if null {
            Presence::Null
        } else {
            Presence::Value
        }
    }
}

/// Moves `cursor` behind one row image. `present` is the event's bitmap of the columns that its images hold.
///
/// # Errors
/// When the image ends early or a format is unknown.
pub fn skip_image_row<'a>(
    formats: &[ImageFormat],
    present: &'a [u8],
    cursor: &mut &'a [u8],
) -> Result<(), DecodeError> {
    let mut row = RowStart::take(formats.len(), present, cursor)?;
    for (ordinal, format) in formats.iter().enumerate() {
        if let Presence::Value = row.next(ordinal) {
            take(cursor, format.value_length(cursor)?)?;
        }
    }
    Ok(())
}

/// As [`skip_image_row`], and fills `keys` with the bytes of the columns at `key_ordinals`, in their order, as ranges
/// of the slice that `cursor` was; none for NULL. Two images of one event have equal keys exactly where these bytes are
/// equal.
///
/// # Errors
/// When the image ends early, a format is unknown, or the image leaves out a key column.
pub fn image_key_slices<'a>(
    formats: &[ImageFormat],
    present: &'a [u8],
    key_ordinals: &[usize],
    cursor: &mut &'a [u8],
    keys: &mut Vec<Option<Range<usize>>>,
) -> Result<(), DecodeError> {
    keys.clear();
    keys.resize(key_ordinals.len(), None);
    if key_ordinals
        .iter()
        .any(|ordinal| *ordinal >= formats.len() || !bit(present, *ordinal))
    {
        return Err(DecodeError::AbsentColumn);
    }
    let total = cursor.len();
    let mut row = RowStart::take(formats.len(), present, cursor)?;
    for (ordinal, format) in formats.iter().enumerate() {
        if let Presence::Value = row.next(ordinal) {
            let start = total - cursor.len();
            let length = format.value_length(cursor)?;
            take(cursor, length)?;
            for (key, wanted) in keys.iter_mut().zip(key_ordinals) {
                if *wanted == ordinal {
                    *key = Some(start..start + length);
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "image_tests.rs"]
mod tests;
