//! From one type to another.

use std::io::Write;

use pipewright_sdk::DataType;

use crate::arithmetic::{in_range, power, rounded};
use crate::calendar;
use crate::compile::{Code, Typed};
use crate::literal;
use crate::syntax::{Error, Spanned, error};
use crate::vector::{BAD_CAST, Data, Kind, NULL, OVERFLOW, Texts, VALUE, Vector, mark};

/// What a value becomes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Target {
    Bool,
    Number { scale: u8, least: i128, most: i128 },
    Float,
    Float32,
    Text,
    Bytes,
    Date,
    DateTime,
    Timestamp,
    Time,
}

impl Target {
    pub(crate) fn kind(self) -> Kind {
        match self {
            Target::Bool => Kind::Bool,
            Target::Number { scale, .. } => Kind::Number { scale },
            Target::Float | Target::Float32 => Kind::Float,
            Target::Text => Kind::Text,
            Target::Bytes => Kind::Bytes,
            Target::Date => Kind::Date,
            Target::DateTime => Kind::DateTime,
            Target::Timestamp => Kind::Timestamp,
            Target::Time => Kind::Time,
        }
    }

    /// The widest of its kind.
    pub(crate) fn of(kind: Kind) -> Self {
        match kind {
            Kind::Null | Kind::Text => Target::Text,
            Kind::Bool => Target::Bool,
            Kind::Number { scale } => Target::digits(38, scale),
            Kind::Float => Target::Float,
            Kind::Bytes => Target::Bytes,
            Kind::Date => Target::Date,
            Kind::DateTime => Target::DateTime,
            Kind::Timestamp => Target::Timestamp,
            Kind::Time => Target::Time,
        }
    }

    fn digits(precision: u8, scale: u8) -> Self {
        let most = power(precision) - 1;
        Target::Number {
            scale,
            least: -most,
            most,
        }
    }

    /// Refuses what no value could ever become.
    pub(crate) fn ensure_possible(self, from: Kind, at: usize) -> Result<(), Error> {
        let numeric = |kind: Kind| matches!(kind, Kind::Number { .. } | Kind::Float | Kind::Bool);
        let dated = |kind: Kind| matches!(kind, Kind::Date | Kind::DateTime | Kind::Timestamp);
        let to = self.kind();
        let possible = from == to
            || from == Kind::Null
            || (from == Kind::Text)
            || (to == Kind::Text && from != Kind::Bytes)
            || (numeric(from) && numeric(to))
            || (dated(from) && dated(to));
        if possible {
            return Ok(());
        }
        error(
            at,
            format!("{} cannot be cast to {}", from.name(), to.name()),
        )
    }
}

/// The type that CAST names, and what a column of it holds.
pub(crate) fn target(to: &Spanned<(String, Vec<u8>)>) -> Result<(Target, DataType), Error> {
    let (name, arguments) = &to.value;
    let whole = |least: i128, most: i128, data_type| {
        (
            Target::Number {
                scale: 0,
                least,
                most,
            },
            data_type,
        )
    };
    Ok(match (name.as_str(), arguments.as_slice()) {
        ("int8" | "tinyint", []) => whole(i8::MIN.into(), i8::MAX.into(), DataType::Int8),
        ("int16" | "smallint", []) => whole(i16::MIN.into(), i16::MAX.into(), DataType::Int16),
        ("int32" | "int" | "integer", []) => {
            whole(i32::MIN.into(), i32::MAX.into(), DataType::Int32)
        }
        ("int64" | "bigint" | "signed", []) => {
            whole(i64::MIN.into(), i64::MAX.into(), DataType::Int64)
        }
        ("uint8", []) => whole(0, u8::MAX.into(), DataType::UInt8),
        ("uint16", []) => whole(0, u16::MAX.into(), DataType::UInt16),
        ("uint32", []) => whole(0, u32::MAX.into(), DataType::UInt32),
        ("uint64" | "unsigned", []) => whole(0, u64::MAX.into(), DataType::UInt64),
        ("bool" | "boolean", []) => (Target::Bool, DataType::UInt8),
        ("float32" | "float", []) => (Target::Float32, DataType::Float32),
        ("float64" | "double", []) => (Target::Float, DataType::Float64),
        ("text" | "char" | "varchar" | "string", []) => (Target::Text, DataType::Utf8),
        ("binary" | "bytes", []) => (Target::Bytes, DataType::Binary),
        ("date", []) => (Target::Date, DataType::Date32),
        ("datetime", []) => (Target::DateTime, DataType::TimestampMicros { utc: false }),
        ("timestamp", []) => (Target::Timestamp, DataType::TimestampMicros { utc: true }),
        ("time", []) => (Target::Time, DataType::Time64Micros),
        ("decimal" | "numeric", [precision, scale])
            if (1..=38).contains(precision) && scale <= precision && *scale <= 30 =>
        {
            let data_type = DataType::Decimal128 {
                precision: *precision,
                scale: scale.cast_signed(),
            };
            (Target::digits(*precision, *scale), data_type)
        }
        _ => {
            return error(
                to.character,
                format!(
                    "`{name}` is no type here; known are int8 to int64, uint8 to uint64, decimal(P,S) up to 38 digits, float32, float64, bool, text, bytes, date, datetime, timestamp, time"
                ),
            );
        }
    })
}

/// A string literal as what stands beside it.
pub(crate) fn literal_as(text: &[u8], at: usize, kind: Kind) -> Result<Typed, Error> {
    let words = std::str::from_utf8(text).unwrap_or_default();
    let moment = match kind {
        Kind::Date => literal::date(words),
        Kind::DateTime | Kind::Timestamp => literal::timestamp(words),
        Kind::Time => literal::time(words),
        // Bytes and text are compared byte by byte.
        Kind::Bytes => return Ok(Typed::new(Kind::Bytes, at, Code::Text(text.to_vec()))),
        _ => return Ok(Typed::new(Kind::Text, at, Code::Text(text.to_vec()))),
    };
    match moment {
        Some(moment) => Ok(Typed::new(kind, at, Code::Moment(moment))),
        None => error(
            at,
            format!(
                "this is not {}, such as '2026-01-31', '2026-01-31 12:00:00' or '12:00:00'",
                kind.name()
            ),
        ),
    }
}

/// What is cast.
#[derive(Clone, Copy)]
pub(crate) struct Origin {
    pub(crate) kind: Kind,
    /// Whether floats are of 32 bits: as text they have the digits of those.
    pub(crate) is_single: bool,
}

/// Casts every row; with `or_null` what cannot be is NULL, else it is marked.
pub(crate) fn cast(
    vector: Vector,
    from: Origin,
    target: Target,
    or_null: bool,
    rows: usize,
) -> Vector {
    let kind = from.kind;
    if kind == target.kind() && !matches!(target, Target::Number { .. } | Target::Float32) {
        return vector;
    }
    let Vector { data, mut states } = vector;
    if kind == Kind::Null {
        return Vector::nulls(target.kind(), rows);
    }
    let mut cast = Casting {
        rows,
        or_null,
        states: &mut states,
    };
    let data = match target {
        Target::Bool => Data::Bool(cast.bools(&data)),
        Target::Number { scale, least, most } => {
            Data::Number(cast.numbers(&data, kind, (scale, least, most)))
        }
        Target::Float => Data::Float(cast.floats(&data, kind)),
        Target::Float32 => {
            let wide = Data::Float(cast.floats(&data, kind));
            Data::Float(cast.narrowed(&wide))
        }
        Target::Text => Data::Bytes(texts(&data, from)),
        Target::Bytes => data,
        Target::Date | Target::DateTime | Target::Timestamp | Target::Time => {
            Data::Moment(cast.moments(&data, kind, target))
        }
    };
    Vector { data, states }
}

struct Casting<'a> {
    rows: usize,
    or_null: bool,
    states: &'a mut Option<Vec<u8>>,
}

impl Casting<'_> {
    /// What stands at a NULL, or at what failed already, is left alone.
    fn counts(&self, row: usize) -> bool {
        self.states
            .as_ref()
            .is_none_or(|states| states[row] == VALUE)
    }

    fn fail(&mut self, row: usize, state: u8) {
        let state = if self.or_null { NULL } else { state };
        mark(self.states, self.rows, row, state);
    }

    fn each<T: Default>(&mut self, value: impl Fn(usize) -> Result<T, u8>) -> Vec<T> {
        (0..self.rows)
            .map(|row| match value(row) {
                Ok(value) => value,
                Err(state) => {
                    if self.counts(row) {
                        self.fail(row, state);
                    }
                    T::default()
                }
            })
            .collect()
    }

    fn bools(&mut self, data: &Data) -> Vec<bool> {
        self.each(|row| match data {
            Data::Bool(values) => Ok(values[row]),
            Data::Number(values) => Ok(values[row] != 0),
            Data::Float(values) => Ok(values[row] != 0.0),
            Data::Bytes(texts) => match texts.text(row) {
                "true" | "1" => Ok(true),
                "false" | "0" => Ok(false),
                _ => Err(BAD_CAST),
            },
            Data::Moment(_) => Err(BAD_CAST),
        })
    }

    fn numbers(
        &mut self,
        data: &Data,
        from: Kind,
        (scale, least, most): (u8, i128, i128),
    ) -> Vec<i128> {
        let bounded = |value: i128| {
            if (least..=most).contains(&value) {
                Ok(value)
            } else {
                Err(OVERFLOW)
            }
        };
        let up = |value: i128, digits: u8| value.checked_mul(power(digits)).ok_or(OVERFLOW);
        self.each(|row| match data {
            Data::Number(values) => {
                let has = if let Kind::Number { scale } = from {
                    scale
                } else {
                    0
                };
                let value = if has > scale {
                    Ok(rounded(values[row], power(has - scale)))
                } else {
                    up(values[row], scale - has)
                };
                bounded(value?)
            }
            Data::Bool(values) => bounded(up(values[row].into(), scale)?),
            Data::Float(values) => bounded(from_float(values[row], scale).ok_or(OVERFLOW)?),
            Data::Bytes(texts) => bounded(from_text(texts.text(row), scale).ok_or(BAD_CAST)?),
            Data::Moment(_) => Err(BAD_CAST),
        })
    }

    fn floats(&mut self, data: &Data, from: Kind) -> Vec<f64> {
        let scale = if let Kind::Number { scale } = from {
            scale
        } else {
            0
        };
        self.each(|row| match data {
            Data::Float(values) => Ok(values[row]),
            // Through the digits, which rounds once where a division would round twice.
            Data::Number(values) if scale == 0 => Ok(values[row] as f64),
            Data::Number(values) => format!("{}e-{scale}", values[row])
                .parse()
                .map_err(|_| BAD_CAST),
            Data::Bool(values) => Ok(f64::from(u8::from(values[row]))),
            Data::Bytes(texts) => {
                let parsed: Result<f64, _> = texts.text(row).trim().parse();
                parsed
                    .ok()
                    .filter(|value| value.is_finite())
                    .ok_or(BAD_CAST)
            }
            Data::Moment(_) => Err(BAD_CAST),
        })
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "a float of 32 bits was asked for"
    )]
    fn narrowed(&mut self, wide: &Data) -> Vec<f64> {
        self.each(|row| match wide {
            Data::Float(values) => {
                let narrow = Some(values[row] as f32).filter(|value| value.is_finite());
                narrow.map(f64::from).ok_or(OVERFLOW)
            }
            _ => Err(BAD_CAST),
        })
    }

    fn moments(&mut self, data: &Data, from: Kind, target: Target) -> Vec<i64> {
        self.each(|row| match data {
            Data::Bytes(texts) => {
                let text = texts.text(row).trim();
                let moment = match target {
                    Target::Date => literal::date(text).or_else(|| {
                        literal::timestamp(text).map(|micros| calendar::split(micros).0)
                    }),
                    Target::Time => {
                        literal::time(text).filter(|span| calendar::SPAN.contains(span))
                    }
                    _ => literal::timestamp(text),
                };
                moment.ok_or(BAD_CAST)
            }
            Data::Moment(values) => match (from, target) {
                (Kind::Date, Target::DateTime | Target::Timestamp) => {
                    calendar::midnight(values[row]).ok_or(OVERFLOW)
                }
                (Kind::DateTime | Kind::Timestamp, Target::Date) => {
                    Ok(calendar::split(values[row]).0)
                }
                // A wall clock is taken as UTC, and the other way round.
                _ => Ok(values[row]),
            },
            Data::Bool(_) | Data::Number(_) | Data::Float(_) => Err(BAD_CAST),
        })
    }
}

/// By the digits that the float is written with, as MySQL does: 1.005 is 1.01 with two digits, though no float is 1.005.
fn from_float(value: f64, scale: u8) -> Option<i128> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if scale == 0 && value.abs() < EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "below 2^53")]
        return Some(value.round() as i128);
    }
    from_text(&value.to_string(), scale)
}

/// `-12.345` with so many digits after the point, halves away from zero.
fn from_text(text: &str, scale: u8) -> Option<i128> {
    let mut text = text.trim();
    // The first digit behind the last one that counts decides; of small floats there are hundreds.
    if let Some((whole, fraction)) = text.split_once('.')
        && fraction.len() > usize::from(scale) + 1
        && fraction.bytes().all(|digit| digit.is_ascii_digit())
    {
        text = &text[..whole.len() + usize::from(scale) + 2];
    }
    let fraction = text
        .split_once('.')
        .map_or(0, |(_, fraction)| fraction.len());
    let digits = fraction.max(scale.into());
    let value = literal::saturated(literal::bound(text, digits)?.floor);
    let cut = u8::try_from(digits - usize::from(scale))
        .ok()
        .filter(|cut| *cut <= 38)?;
    in_range(value).then(|| rounded(value, power(cut)))
}

fn texts(data: &Data, from: Origin) -> Texts {
    let rows = match data {
        Data::Bool(values) => values.len(),
        Data::Number(values) => values.len(),
        Data::Float(values) => values.len(),
        Data::Bytes(texts) => return texts.clone(),
        Data::Moment(values) => values.len(),
    };
    let mut texts = Texts::with_capacity(rows, 12 * rows);
    for row in 0..rows {
        let out = &mut texts.bytes;
        // A vector takes whatever is written.
        match data {
            Data::Bool(values) => {
                out.extend_from_slice(if values[row] { b"true" } else { b"false" })
            }
            Data::Number(values) => write_number(values[row], from.kind, out),
            Data::Float(values) if from.is_single => {
                #[expect(clippy::cast_possible_truncation, reason = "widened from 32 bits")]
                write!(out, "{}", values[row] as f32).ok();
            }
            Data::Float(values) => {
                write!(out, "{}", values[row]).ok();
            }
            Data::Moment(values) => match from.kind {
                Kind::Date => calendar::write_date(values[row], out),
                Kind::Time => calendar::write_time(values[row], out),
                _ => calendar::write_moment(values[row], out),
            },
            Data::Bytes(_) => {}
        }
        texts.end_row();
    }
    texts
}

fn write_number(value: i128, kind: Kind, out: &mut Vec<u8>) {
    let scale = if let Kind::Number { scale } = kind {
        scale
    } else {
        0
    };
    if scale == 0 {
        write!(out, "{value}").ok();
        return;
    }
    let sign = if value < 0 { "-" } else { "" };
    let (value, unit) = (value.unsigned_abs(), power(scale).unsigned_abs());
    write!(
        out,
        "{sign}{}.{:0width$}",
        value / unit,
        value % unit,
        width = scale.into()
    )
    .ok();
}
