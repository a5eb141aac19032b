//! One text for a value, whichever end it was read from.
//!
//! Each kind of column has an expression for the source, one for ClickHouse, and a step on the text that takes away what
//! the two print differently. The steps know nothing of how Pipewright converts: they restate DESIGN §9 from outside.

use anyhow::{Context, Result, bail};

use super::source::quoted;

/// DATE is kept within the years that ClickHouse's Date32 has, in days since 1970.
const DATE_RANGE: (i64, i64) = (-25_567, 120_529);

/// How a column's values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Integer,
    Bit,
    Float,
    Decimal,
    Date,
    DateTime,
    Time,
    Text,
    Bytes,
    Geometry,
    /// A value whose text both ends write alike.
    Plain,
    Inet6,
    Vector,
}

/// Which end a text came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Source,
    Destination,
}

impl Kind {
    /// The kind of a column, by the source's `data_type`.
    pub(super) fn of(data_type: &str) -> Result<Self> {
        Ok(match data_type {
            "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "year" => Kind::Integer,
            "bit" => Kind::Bit,
            "float" | "double" => Kind::Float,
            "decimal" => Kind::Decimal,
            "date" => Kind::Date,
            "datetime" | "timestamp" => Kind::DateTime,
            "time" => Kind::Time,
            "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" | "enum"
            | "set" | "json" => Kind::Text,
            "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => Kind::Bytes,
            "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring"
            | "multipolygon" | "geometrycollection" | "geomcollection" => Kind::Geometry,
            "uuid" | "inet4" => Kind::Plain,
            "inet6" => Kind::Inet6,
            "vector" => Kind::Vector,
            other => bail!("no comparison is written for `{other}`"),
        })
    }

    /// The source's expression; a text or NULL.
    pub(super) fn source_sql(self, column: &str) -> String {
        let column = quoted(column);
        match self {
            Kind::Integer
            | Kind::Decimal
            | Kind::Date
            | Kind::DateTime
            | Kind::Time
            | Kind::Plain
            | Kind::Inet6 => format!("CAST({column} AS CHAR)"),
            // MySQL swaps coordinates unless told not to. MariaDB knows no such option, and passes over the comment.
            Kind::Geometry => format!("ST_AsText({column} /*!50700 , 'axis-order=long-lat' */)"),
            Kind::Bit => format!("CAST(CAST({column} AS UNSIGNED) AS CHAR)"),
            // As DOUBLE: the text of a FLOAT has six digits only. Through JSON: MySQL's own text of a DOUBLE is cut.
            Kind::Float => format!(
                "IF({column} IS NULL, NULL, CAST(JSON_EXTRACT(JSON_ARRAY(CAST({column} AS DOUBLE)), '$[0]') AS CHAR))"
            ),
            Kind::Text => format!("HEX(CONVERT({column} USING utf8mb4))"),
            Kind::Bytes | Kind::Vector => format!("HEX({column})"),
        }
    }

    /// ClickHouse's expression; a text or NULL.
    pub(super) fn destination_sql(self, column: &str) -> String {
        let column = quoted(column);
        match self {
            Kind::Integer
            | Kind::Bit
            | Kind::Decimal
            | Kind::Time
            | Kind::Geometry
            | Kind::Plain
            | Kind::Inet6 => format!("toString({column})"),
            Kind::Vector => format!(
                "arrayStringConcat(arrayMap(number -> hex(reinterpretAsFixedString(number)), {column}))"
            ),
            Kind::Float => format!("toString(toFloat64({column}))"),
            // Numbers: texts of what lies outside of a type's range are all the same.
            Kind::Date => format!("toString(toInt32({column}))"),
            Kind::DateTime => format!("toString(toUnixTimestamp64Micro({column}))"),
            Kind::Text | Kind::Bytes => format!("hex({column})"),
        }
    }

    /// The canonical text. `nullable` is whether ClickHouse's column can be NULL, for values that no calendar has.
    pub(super) fn canonical(
        self,
        end: End,
        text: Option<String>,
        nullable: bool,
    ) -> Result<Option<String>> {
        let Some(text) = text else {
            // There is no Nullable(Array): the empty one stands for NULL.
            return Ok((self == Kind::Vector).then(String::new));
        };
        let nothing = || if nullable { None } else { Some("0".to_owned()) };
        Ok(match (self, end) {
            (
                Kind::Bit | Kind::Text | Kind::Bytes | Kind::Geometry | Kind::Plain | Kind::Vector,
                _,
            ) => Some(text),
            (Kind::Inet6, _) => {
                let address: std::net::Ipv6Addr = text
                    .parse()
                    .with_context(|| format!("`{text}` is no address"))?;
                Some(address.to_string())
            }
            // YEAR and ZEROFILL columns print leading zeros.
            (Kind::Integer, _) => Some(
                text.parse::<i128>()
                    .with_context(|| format!("`{text}` is no number"))?
                    .to_string(),
            ),
            (Kind::Float, _) => {
                let number: f64 = text
                    .parse()
                    .with_context(|| format!("`{text}` is no floating point number"))?;
                Some(format!("{number:?} ({:016x})", number.to_bits()))
            }
            (Kind::Decimal, _) => Some(plain_decimal(&text)),
            (Kind::Date, End::Source) => match days(&text) {
                Some(days) => Some(days.clamp(DATE_RANGE.0, DATE_RANGE.1).to_string()),
                None => nothing(),
            },
            (Kind::DateTime, End::Source) => match moment(&text)? {
                Some(micros) => Some(micros.to_string()),
                None => nothing(),
            },
            (Kind::Date | Kind::DateTime, End::Destination) => Some(text),
            (Kind::Time, _) if text.contains(':') => Some(span(&text)?.to_string()),
            (Kind::Time, _) => Some(text),
        })
    }

    /// A canonical text as a person wants to read it.
    pub(super) fn shown(self, text: Option<&str>) -> String {
        let Some(text) = text else {
            return "NULL".to_owned();
        };
        match self {
            Kind::Text => format!("'{}'", unhexed(text)),
            Kind::Bytes | Kind::Vector => format!("x'{text}'"),
            Kind::Date => format!("day {text}"),
            Kind::DateTime | Kind::Time => format!("{text} µs"),
            Kind::Integer
            | Kind::Bit
            | Kind::Float
            | Kind::Decimal
            | Kind::Geometry
            | Kind::Plain
            | Kind::Inet6 => text.to_owned(),
        }
    }
}

fn unhexed(hex: &str) -> String {
    let digits = hex.as_bytes().chunks(2);
    let byte = |pair: &[u8]| {
        u8::from_str_radix(std::str::from_utf8(pair).unwrap_or_default(), 16).unwrap_or(b'?')
    };
    let bytes: Vec<u8> = digits.map(byte).collect();
    let text = String::from_utf8_lossy(&bytes);
    match text.char_indices().nth(120) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], bytes.len()),
        None => text.into_owned(),
    }
}

/// ClickHouse leaves out zeros at the end of a fraction, and ZEROFILL columns have some at the front.
fn plain_decimal(text: &str) -> String {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let (whole, fraction) = (
        whole.trim_start_matches('0'),
        fraction.trim_end_matches('0'),
    );
    match (whole, fraction) {
        ("", "") => "0".to_owned(),
        ("", _) => format!("{sign}0.{fraction}"),
        (_, "") => format!("{sign}{whole}"),
        (_, _) => format!("{sign}{whole}.{fraction}"),
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar; none for a date that no calendar has.
fn days(text: &str) -> Option<i64> {
    let mut parts = text.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if day < 1 || day > length {
        return None;
    }
    // Years that begin in March: the leap day is then the last day of a year.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

/// Microseconds since 1970; none for a zero or impossible date.
fn moment(text: &str) -> Result<Option<i64>> {
    let (date, time) = text
        .split_once(' ')
        .with_context(|| format!("`{text}` has no time of day"))?;
    let time = span(time)?;
    Ok(days(date).map(|days| days * 86_400_000_000 + time))
}

/// The microseconds of `[-]H..:MM:SS[.f..]`.
fn span(text: &str) -> Result<i64> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (clock, fraction) = rest.split_once('.').unwrap_or((rest, ""));
    let parts: Result<Vec<i64>, _> = clock.split(':').map(str::parse).collect();
    let (Ok(parts), Ok(micros)) = (parts, format!("{fraction:0<6}").parse::<i64>()) else {
        bail!("`{text}` is no time");
    };
    let [hours, minutes, seconds] = parts[..] else {
        bail!("`{text}` is no time")
    };
    let total = ((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros;
    Ok(if negative { -total } else { total })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_from_1970() {
        assert_eq!(days("1970-01-01"), Some(0));
        assert_eq!(days("1900-01-01"), Some(DATE_RANGE.0));
        assert_eq!(days("2299-12-31"), Some(DATE_RANGE.1));
        assert_eq!(days("2000-02-29"), Some(11_016));
        assert_eq!(days("0001-01-01"), Some(-719_162));
        assert_eq!(days("2023-02-29"), None);
        assert_eq!(days("2024-00-15"), None);
    }

    #[test]
    fn both_ends_texts_of_a_value_become_one() {
        let same = |kind: Kind, source: &str, destination: &str| {
            let of = |end, text: &str| {
                kind.canonical(end, Some(text.to_owned()), true)
                    .expect("a value")
            };
            assert_eq!(
                of(End::Source, source),
                of(End::Destination, destination),
                "{source} and {destination}"
            );
        };
        same(Kind::Decimal, "-1.500", "-1.5");
        same(Kind::Decimal, "100", "100");
        same(Kind::Decimal, "0000000.50", "0.5");
        same(Kind::Decimal, "-0.00", "0");
        same(Kind::DateTime, "1969-12-31 23:59:59.5", "-500000");
        same(Kind::Time, "-838:59:59", "-838:59:59.000000");
        same(Kind::Time, "00:00:00.25", "250000");
        same(Kind::Float, "1e10", "10000000000");
    }

    #[test]
    fn zero_dates_are_null_or_the_epoch() {
        let of = |nullable| {
            Kind::Date
                .canonical(End::Source, Some("0000-00-00".to_owned()), nullable)
                .expect("a value")
        };
        assert_eq!(of(true), None);
        assert_eq!(of(false).as_deref(), Some("0"));
    }
}
