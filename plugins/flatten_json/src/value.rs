//! JSON text of one value into a column of a type.

use pipewright_sdk::{
    BooleanBuilder, BytesBuilder, Column, DataType, Item, ListBuilder, ValuesBuilder,
    days_since_1970,
};

pub(crate) const TYPES: &str = "bool, int64, uint64, float64, decimal(P,S) up to 38 digits, text, json, date, datetime, \
    list(int64), list(float64)";

/// What a value is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Bool,
    Int64,
    UInt64,
    Float64,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Text,
    /// The value's own JSON, whatever it is.
    Json,
    Date,
    DateTime,
    Integers,
    Floats,
}

impl Type {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Some(arguments) = text.strip_prefix("decimal(") {
            let (precision, scale) = arguments.strip_suffix(')')?.split_once(',')?;
            let (precision, scale) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
            let possible = (1..=38).contains(&precision) && scale <= precision && scale <= 30;
            return possible.then_some(Type::Decimal { precision, scale });
        }
        Some(match text {
            "bool" => Type::Bool,
            "int64" => Type::Int64,
            "uint64" => Type::UInt64,
            "float64" => Type::Float64,
            "text" => Type::Text,
            "json" => Type::Json,
            "date" => Type::Date,
            "datetime" => Type::DateTime,
            "list(int64)" => Type::Integers,
            "list(float64)" => Type::Floats,
            _ => return None,
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Type::Bool => "bool",
            Type::Int64 => "int64",
            Type::UInt64 => "uint64",
            Type::Float64 => "float64",
            Type::Decimal { .. } => "decimal of so many digits",
            Type::Text => "text",
            Type::Json => "json",
            Type::Date => "date",
            Type::DateTime => "datetime",
            Type::Integers => "list(int64)",
            Type::Floats => "list(float64)",
        }
    }

    pub(crate) fn data_type(self) -> DataType {
        match self {
            Type::Bool => DataType::Boolean,
            Type::Int64 => DataType::Int64,
            Type::UInt64 => DataType::UInt64,
            Type::Float64 => DataType::Float64,
            Type::Decimal { precision, scale } => DataType::Decimal128 {
                precision,
                scale: scale.cast_signed(),
            },
            Type::Text | Type::Json => DataType::Utf8,
            Type::Date => DataType::Date32,
            Type::DateTime => DataType::TimestampMicros { utc: false },
            Type::Integers => DataType::List(Item::Int64),
            Type::Floats => DataType::List(Item::Float64),
        }
    }
}

/// The value is of another type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Misfit;

/// A column in the making.
#[derive(Debug)]
pub(crate) enum Builder {
    Bool(BooleanBuilder),
    Int64(ValuesBuilder<i64>),
    UInt64(ValuesBuilder<u64>),
    Float64(ValuesBuilder<f64>),
    Decimal(ValuesBuilder<i128>, u8, u8),
    Text(BytesBuilder),
    Json(BytesBuilder),
    Date(ValuesBuilder<i32>),
    DateTime(ValuesBuilder<i64>),
    Integers(ListBuilder<i64>),
    Floats(ListBuilder<f64>),
}

impl Builder {
    pub(crate) fn new(wanted: Type, rows: usize) -> Self {
        let data_type = wanted.data_type();
        match wanted {
            Type::Bool => Builder::Bool(BooleanBuilder::new()),
            Type::Int64 => Builder::Int64(ValuesBuilder::new(data_type, rows)),
            Type::UInt64 => Builder::UInt64(ValuesBuilder::new(data_type, rows)),
            Type::Float64 => Builder::Float64(ValuesBuilder::new(data_type, rows)),
            Type::Decimal { precision, scale } => {
                Builder::Decimal(ValuesBuilder::new(data_type, rows), precision, scale)
            }
            Type::Text => Builder::Text(BytesBuilder::new(data_type, rows)),
            Type::Json => Builder::Json(BytesBuilder::new(data_type, rows)),
            Type::Date => Builder::Date(ValuesBuilder::new(data_type, rows)),
            Type::DateTime => Builder::DateTime(ValuesBuilder::new(data_type, rows)),
            Type::Integers => Builder::Integers(ListBuilder::new(Item::Int64, rows)),
            Type::Floats => Builder::Floats(ListBuilder::new(Item::Float64, rows)),
        }
    }

    pub(crate) fn push_null(&mut self) {
        match self {
            Builder::Bool(builder) => builder.push(None),
            Builder::Int64(builder) | Builder::DateTime(builder) => builder.push(None),
            Builder::UInt64(builder) => builder.push(None),
            Builder::Float64(builder) => builder.push(None),
            Builder::Decimal(builder, ..) => builder.push(None),
            Builder::Text(builder) | Builder::Json(builder) => builder.push(None),
            Builder::Date(builder) => builder.push(None),
            Builder::Integers(builder) => builder.push(None),
            Builder::Floats(builder) => builder.push(None),
        }
    }

    /// Adds the value that this JSON is; null is NULL. After a misfit nothing was added.
    pub(crate) fn push(&mut self, json: Option<&str>) -> Result<(), Misfit> {
        let json = match json.map(str::trim) {
            None | Some("null") => {
                self.push_null();
                return Ok(());
            }
            Some(json) => json,
        };
        match self {
            Builder::Bool(builder) => builder.push(Some(match json {
                "true" => true,
                "false" => false,
                _ => return Err(Misfit),
            })),
            Builder::Int64(builder) => builder.push(Some(json.parse().map_err(|_| Misfit)?)),
            Builder::UInt64(builder) => builder.push(Some(json.parse().map_err(|_| Misfit)?)),
            // A string is no number, whatever is in it: JSON has the difference.
            Builder::Float64(builder) => {
                let number: f64 = json.parse().map_err(|_| Misfit)?;
                // One past the type's range is read as infinity.
                if number.is_infinite() {
                    return Err(Misfit);
                }
                builder.push(Some(number));
            }
            Builder::Decimal(builder, precision, scale) => {
                builder.push(Some(decimal(json, *precision, *scale).ok_or(Misfit)?));
            }
            Builder::Text(builder) => return push_text(builder, json),
            Builder::Json(builder) => builder.push(Some(json.as_bytes())),
            Builder::Date(builder) => {
                let days = plain(json).and_then(date).ok_or(Misfit)?;
                builder.push(Some(i32::try_from(days).map_err(|_| Misfit)?));
            }
            Builder::DateTime(builder) => {
                builder.push(Some(plain(json).and_then(datetime).ok_or(Misfit)?));
            }
            Builder::Integers(builder) => {
                let list: Vec<i64> = serde_json::from_str(json).map_err(|_| Misfit)?;
                builder.push(Some(&list));
            }
            Builder::Floats(builder) => {
                let list: Vec<f64> = serde_json::from_str(json).map_err(|_| Misfit)?;
                builder.push(Some(&list));
            }
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Column {
        match self {
            Builder::Bool(builder) => builder.finish(),
            Builder::Int64(builder) | Builder::DateTime(builder) => builder.finish(),
            Builder::UInt64(builder) => builder.finish(),
            Builder::Float64(builder) => builder.finish(),
            Builder::Decimal(builder, ..) => builder.finish(),
            Builder::Text(builder) | Builder::Json(builder) => builder.finish(),
            Builder::Date(builder) => builder.finish(),
            Builder::Integers(builder) => builder.finish(),
            Builder::Floats(builder) => builder.finish(),
        }
    }
}

/// What stands between the quotes of a string without escapes.
fn plain(json: &str) -> Option<&str> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    (!inner.contains('\\')).then_some(inner)
}

fn push_text(builder: &mut BytesBuilder, json: &str) -> Result<(), Misfit> {
    if let Some(text) = plain(json) {
        builder.push(Some(text.as_bytes()));
        return Ok(());
    }
    let text: String = serde_json::from_str(json).map_err(|_| Misfit)?;
    builder.push(Some(text.as_bytes()));
    Ok(())
}

/// `-12.5` or `1.25e1` in units of the last digit; what has more digits than the column does not fit.
fn decimal(json: &str, precision: u8, scale: u8) -> Option<i128> {
    let (number, exponent) = match json.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, exponent.parse::<i32>().ok()?),
        None => (json, 0),
    };
    let (negative, digits) = number
        .strip_prefix('-')
        .map_or((false, number), |rest| (true, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = || whole.bytes().chain(fraction.bytes());
    if whole.is_empty() || !all().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let mut value: i128 = 0;
    for digit in all() {
        value = value
            .checked_mul(10)?
            .checked_add(i128::from(digit - b'0'))?;
    }
    let up = i32::from(scale) + exponent - i32::try_from(fraction.len()).ok()?;
    let factor = 10_i128.checked_pow(up.unsigned_abs())?;
    let value = if up >= 0 {
        value.checked_mul(factor)?
    } else if value % factor == 0 {
        value / factor
    } else {
        return None;
    };
    let fits = value < 10_i128.pow(precision.into());
    fits.then_some(if negative { -value } else { value })
}

fn digits(text: &str, count: usize) -> Option<i64> {
    (text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().ok())?
}

/// Days since 1970-01-01 of `2026-01-31`.
fn date(text: &str) -> Option<i64> {
    let mut parts = text.splitn(3, '-');
    days_since_1970(
        digits(parts.next()?, 4)?,
        digits(parts.next()?, 2)?,
        digits(parts.next()?, 2)?,
    )
}

/// Microseconds of `2026-01-31T12:00:00.5Z`; without an offset a wall clock, with one the moment in UTC.
fn datetime(text: &str) -> Option<i64> {
    let (day, clock) = text.split_once(['T', ' '])?;
    let (clock, offset) = match clock.find(['Z', '+', '-']) {
        Some(at) => (&clock[..at], offset(&clock[at..])?),
        None => (clock, 0),
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = clock.splitn(3, ':');
    let (hours, minutes) = (digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let seconds = parts.next().map_or(Some(0), |seconds| digits(seconds, 2))?;
    if hours > 23 || minutes > 59 || seconds > 59 || fraction.len() > 9 {
        return None;
    }
    let micros = match fraction {
        "" => 0,
        fraction => {
            digits(fraction, fraction.len())? * 10_i64.pow(9 - u32::try_from(fraction.len()).ok()?)
                / 1000
        }
    };
    let seconds = (date(day)? * 24 + hours) * 3600 + minutes * 60 + seconds - offset;
    Some(seconds * 1_000_000 + micros)
}

/// Seconds east of UTC of `Z` or `+02:00`.
fn offset(text: &str) -> Option<i64> {
    if text == "Z" {
        return Some(0);
    }
    let (hours, minutes) = text.get(1..)?.split_once(':')?;
    let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let seconds = hours * 3600 + minutes * 60;
    Some(if text.starts_with('-') {
        -seconds
    } else {
        seconds
    })
}
