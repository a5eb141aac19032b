//! A key's value in a row image as an SQL literal that finds the same row again.
//!
//! The literal is made from the image's bytes and not from what became of them: a zero date may have become NULL and an
//! ENUM its label, and either would find another row or none (pitfalls 121, 124).

use std::fmt::Write;

use super::cursor::{take_array, take_be, take_le};
use super::image::{Layout, take_prefixed};
use super::temporal::{self, wire};
use super::{DecodeError, ImageFormat, decimal, hires, network};
use crate::error::{Error, ErrorKind, Result};
use crate::source::mysql::catalog::SourceColumn;
use crate::source::mysql::sql::{quote_bytes, quote_string};

/// Appends the literal of `value`, a value of `column` as an image of `format` holds it. Compared with the column by a
/// session in UTC it is equal to that value; under a collation to others as well.
///
/// # Errors
/// `Unsupported` for a type of which no such literal is known; as the decoders.
pub fn key_literal(
    column: &SourceColumn,
    format: ImageFormat,
    value: &[u8],
    out: &mut String,
) -> Result<()> {
    let name = &column.name;
    match literal(column, format, value) {
        Ok(Some(literal)) => {
            out.push_str(&literal);
            Ok(())
        }
        Ok(None) => Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "column `{name}` ({}) belongs to the key, and rows cannot be read by such a key",
                column.column_type
            ),
        )
        .with_hint("SET GLOBAL binlog_row_image = 'FULL' and reconnect the writing sessions")),
        Err(error) => {
            let error = Error::from(error);
            Err(Error::new(
                error.kind(),
                format!("column `{name}`: {}", error.message()),
            ))
        }
    }
}

fn literal(
    column: &SourceColumn,
    format: ImageFormat,
    value: &[u8],
) -> Result<Option<String>, DecodeError> {
    let mut cursor = value;
    let cursor = &mut cursor;
    Ok(Some(match format.layout()? {
        Layout::Integer(length) => integer(take_le(cursor, length)?, length, column.unsigned),
        Layout::Year => match take_le(cursor, 1)? {
            0 => "0".to_owned(),
            year => (1900 + year).to_string(),
        },
        Layout::Bits(length) => take_be(cursor, length)?.to_string(),
        Layout::Enum(length) | Layout::Set(length) => take_le(cursor, length)?.to_string(),
        // The server compares a FLOAT as the double that it widens to.
        Layout::Float => format!("{:e}", f64::from(f32::from_le_bytes(take_array(cursor)?))),
        Layout::Double => format!("{:e}", f64::from_le_bytes(take_array(cursor)?)),
        Layout::Decimal { precision, scale } => {
            let mut text = Vec::new();
            decimal::print(precision, scale, cursor, &mut text)?;
            String::from_utf8(text).map_err(|_| DecodeError::BadValue("decimal"))?
        }
        Layout::Temporal(_) => moment(format, cursor)?,
        Layout::Bytes(prefix) => {
            let bytes = take_prefixed(prefix, cursor)?;
            let address = network::text(&column.data_type, bytes)?;
            return Ok(match address {
                Some(text) => Some(quote_string(&text)),
                None => string(column, bytes),
            });
        }
        // No index holds a compressed column.
        Layout::Json(_) | Layout::Compressed(_) | Layout::Nothing => return Ok(None),
    }))
}

fn integer(number: u64, length: usize, unsigned: bool) -> String {
    let unused = 64 - 8 * u32::try_from(length).unwrap_or(8);
    if unsigned {
        number.to_string()
    } else {
        (number.cast_signed() << unused >> unused).to_string()
    }
}

fn moment(format: ImageFormat, cursor: &mut &[u8]) -> Result<String, DecodeError> {
    let packed = |wire_type, packed| {
        let mut printed = Ok(());
        let text = quoted(|text| printed = temporal::print_packed(wire_type, packed, text));
        printed.and(text)
    };
    let digits = format.meta;
    match format.wire_type {
        wire::DATE | wire::NEWDATE => {
            let date = take_le(cursor, 3)?.cast_signed();
            let year_month = (date >> 9) * 13 + (date >> 5 & 15);
            packed(wire::DATE, (year_month << 5 | date & 31) << 41)
        }
        wire::DATETIME2 => {
            let whole = (take_be(cursor, 5)?.cast_signed() - 0x80_0000_0000) << 24;
            packed(wire::DATETIME, whole + temporal::fraction(digits, cursor)?)
        }
        wire::TIME2 => packed(wire::TIME, temporal::time2_packed(digits, cursor)?),
        wire::TIMESTAMP2 => {
            let seconds = take_be(cursor, 4)?;
            Ok(timestamp(seconds, temporal::fraction(digits, cursor)?))
        }
        // MariaDB's layouts of before 10.1 (pitfall 35).
        wire::TIMESTAMP if digits > 0 => {
            let micros = hires::timestamp(digits, cursor)?.unwrap_or(0);
            let (seconds, fraction) = (micros / temporal::MICROS, micros % temporal::MICROS);
            Ok(timestamp(seconds.cast_unsigned(), fraction))
        }
        wire::DATETIME if digits > 0 => {
            let stored = hires::datetime(digits, cursor)?;
            quoted(|text| stored.print(Some(6), text))
        }
        wire::TIME if digits > 0 => {
            let micros = hires::time(digits, cursor)?;
            quoted(|text| temporal::print_time(micros, text))
        }
        wire::TIMESTAMP => Ok(timestamp(take_le(cursor, 4)?, 0)),
        // The formats of before 5.6 are the numbers YYYYMMDDhhmmss and hhmmss, which the server reads as such.
        wire::DATETIME => Ok(take_le(cursor, 8)?.to_string()),
        wire::TIME => Ok(integer(take_le(cursor, 3)?, 3, false)),
        other => Err(DecodeError::UnknownWireType(other)),
    }
}

/// What `print` appends, as a string literal.
fn quoted(print: impl FnOnce(&mut Vec<u8>)) -> Result<String, DecodeError> {
    let mut text = Vec::new();
    print(&mut text);
    let text = String::from_utf8(text).map_err(|_| DecodeError::BadValue("date"))?;
    Ok(format!("'{text}'"))
}

/// Zero is the zero timestamp, which no moment is.
fn timestamp(seconds: u64, micros: i64) -> String {
    match (seconds, micros) {
        (0, 0) => "'0000-00-00 00:00:00'".to_owned(),
        _ => format!("FROM_UNIXTIME({seconds}.{micros:06})"),
    }
}

/// Text stays in the column's charset: a literal in another one would be converted, and might not survive it.
fn string(column: &SourceColumn, bytes: &[u8]) -> Option<String> {
    match column.data_type.as_str() {
        "binary" => {
            // The image lacks zeros at the end (pitfall 18), and bytes compare with them.
            let length = usize::try_from(column.length.unwrap_or(0)).ok()?;
            let mut padded = bytes.to_vec();
            padded.resize(length.max(bytes.len()), 0);
            Some(quote_bytes(&padded))
        }
        "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => Some(quote_bytes(bytes)),
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => {
            let mut literal = String::new();
            match column.charset.as_deref() {
                None | Some("binary") => {}
                Some(charset) => write!(literal, "_{charset} ").ok()?,
            }
            literal.push_str(&quote_bytes(bytes));
            Some(literal)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(data_type: &str, charset: Option<&str>) -> SourceColumn {
        SourceColumn {
            name: "k".into(),
            nullable: false,
            charset: charset.map(str::to_owned),
            length: Some(4),
            ..SourceColumn::sample(data_type)
        }
    }

    fn of(column: &SourceColumn, wire_type: u8, meta: u16, value: &[u8]) -> String {
        let mut out = String::new();
        key_literal(column, ImageFormat { wire_type, meta }, value, &mut out).unwrap();
        out
    }

    #[test]
    fn integers_have_their_width_and_sign() {
        let signed = column("mediumint", None);
        assert_eq!(of(&signed, 9, 0, &[0xfb, 0xff, 0xff]), "-5");
        let unsigned = SourceColumn {
            unsigned: true,
            ..column("bigint", None)
        };
        assert_eq!(of(&unsigned, 8, 0, &[0xff; 8]), u64::MAX.to_string());
        assert_eq!(of(&column("bigint", None), 8, 0, &[0xff; 8]), "-1");
        assert_eq!(of(&column("year", None), 13, 0, &[0]), "0");
        assert_eq!(of(&column("year", None), 13, 0, &[124]), "2024");
    }

    #[test]
    fn strings_stay_in_their_charset_and_binary_gets_its_zeros_back() {
        let latin1 = column("varchar", Some("latin1"));
        assert_eq!(of(&latin1, 15, 20, &[2, b'a', 0xe9]), "_latin1 x'61E9'");
        assert_eq!(
            of(&column("binary", None), 254, 0xfe04, &[1, 1]),
            "x'01000000'"
        );
        assert_eq!(of(&column("varbinary", None), 15, 20, &[0]), "x''");
    }

    #[test]
    fn dates_are_texts_the_zero_date_too() {
        let packed = (2024u32 << 9 | 2 << 5 | 29).to_le_bytes();
        assert_eq!(
            of(&column("date", None), 10, 0, &packed[..3]),
            "'2024-02-29'"
        );
        assert_eq!(of(&column("date", None), 10, 0, &[0; 3]), "'0000-00-00'");
        let zero = [0x80, 0, 0, 0, 0];
        assert_eq!(
            of(&column("datetime", None), 18, 0, &zero),
            "'0000-00-00 00:00:00.000000'"
        );
        assert_eq!(
            of(&column("timestamp", None), 17, 0, &[0; 4]),
            "'0000-00-00 00:00:00'"
        );
        assert_eq!(
            of(&column("timestamp", None), 17, 6, &[0, 0, 0, 1, 0, 0, 5]),
            "FROM_UNIXTIME(1.000005)"
        );
    }

    /// Pitfalls 35 and 121, with the bytes of hires.rs's tests.
    #[test]
    fn times_in_the_layouts_of_before_10_1_find_their_rows() {
        let old = |data_type, wire_type, digits, value: &[u8]| {
            of(&column(data_type, None), wire_type, digits, value)
        };
        assert_eq!(
            old(
                "datetime",
                12,
                3,
                &[0x00, 0x42, 0x2b, 0xb5, 0x9e, 0x98, 0x95]
            ),
            "'2024-02-29 12:34:56.789000'"
        );
        assert_eq!(
            old("datetime", 12, 6, &[0; 8]),
            "'0000-00-00 00:00:00.000000'"
        );
        assert_eq!(old("time", 11, 1, &[0, 0, 0, 1]), "'-838:59:59.900000'");
        assert_eq!(
            old(
                "timestamp",
                7,
                6,
                &[0x65, 0xe0, 0x79, 0xf0, 0x0c, 0x0a, 0x83]
            ),
            "FROM_UNIXTIME(1709210096.789123)"
        );
        assert_eq!(old("timestamp", 7, 2, &[0; 5]), "'0000-00-00 00:00:00'");
    }

    #[test]
    fn addresses_are_texts() {
        let uuid = column("uuid", None);
        assert_eq!(
            of(&uuid, 254, 0xfe10, &[2, 0xa0, 0xee]),
            "'a0ee0000-0000-0000-0000-000000000000'"
        );
        assert_eq!(
            of(&column("inet4", None), 254, 0xfe04, &[1, 10]),
            "'10.0.0.0'"
        );
        assert_eq!(
            of(&column("inet6", None), 254, 0xfe10, &[1, 0xfe]),
            "'fe00::'"
        );
    }

    #[test]
    fn labels_are_numbers() {
        assert_eq!(of(&column("enum", Some("latin1")), 254, 0xf701, &[3]), "3");
        assert_eq!(of(&column("set", Some("latin1")), 254, 0xf801, &[5]), "5");
    }

    #[test]
    fn a_type_without_a_literal_is_refused_by_its_columns_name() {
        let mut out = String::new();
        let format = ImageFormat {
            wire_type: 254,
            meta: 0xfe10,
        };
        let error = key_literal(&column("point", None), format, &[1, 1], &mut out).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.message().contains("`k`"));
    }
}
