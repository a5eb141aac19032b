//! The one table from column types to ClickHouse types, and what a person may choose instead.
//!
//! A chosen type is accepted only where every value of the column has its own value in it: ClickHouse itself would wrap
//! an Int32 into a UInt8 without a word.

use crate::batch::{Column, ColumnType};
use crate::error::{Error, ErrorKind, Result};

/// What a column's array goes through before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Conversion {
    /// The array as it is.
    None,
    /// Days into the range of Date32, outside of which ClickHouse refuses the whole insert.
    Date(Outside),
    /// Days to seconds, for DateTime64, which holds every date that MySQL can.
    DateToSeconds,
    /// The span's microseconds as Int64: sent as a time, ClickHouse would refuse; sent to Time64, it would mean seconds.
    TimeToMicros,
    /// TINYINT(1) to Bool.
    TinyintToBool,
    /// The label of an ENUM to its number, for an Enum16.
    LabelToEnum16,
    /// The label of an ENUM to its number, for a UInt16.
    LabelToNumber,
    /// The labels of a SET, joined by commas, to an array.
    SetToArray,
    /// Bytes to hexadecimal text.
    BytesToHex,
    /// Bytes to Base64.
    BytesToBase64,
    /// Bytes, of which each value has that many.
    BytesToFixed(u8),
    /// An integer or decimal to its text.
    NumberToText,
    /// A JSON document into the form that ClickHouse's JSON takes.
    JsonToObject,
}

/// What becomes of a date that Date32 does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outside {
    /// The nearest that it holds.
    Clamp,
    /// NULL, or the epoch where the column takes no NULL.
    Null,
}

/// A ClickHouse type without its nullability, in the spelling that ClickHouse prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapped {
    /// Such as `Decimal(15, 2)`.
    base: String,
    /// `LowCardinality(...)` stands outside of `Nullable(...)`.
    low_cardinality: bool,
    /// Whether the type can be NULL at all; an array cannot.
    pub(super) takes_null: bool,
    /// What the arrays go through.
    pub(super) conversion: Conversion,
}

impl Mapped {
    fn plain(base: impl Into<String>) -> Self {
        Self {
            base: base.into(),
            low_cardinality: false,
            takes_null: true,
            conversion: Conversion::None,
        }
    }

    pub(super) fn converted(base: impl Into<String>, conversion: Conversion) -> Self {
        Self {
            conversion,
            ..Self::plain(base)
        }
    }

    /// NULL becomes the empty array: a declared policy, and counted as one. No vector of the source is empty.
    fn array(element: &str) -> Self {
        Self {
            takes_null: false,
            ..Self::plain(format!("Array({element})"))
        }
    }

    pub(super) fn array_of_strings(conversion: Conversion) -> Self {
        Self {
            takes_null: false,
            ..Self::converted("Array(String)", conversion)
        }
    }

    fn low_cardinality() -> Self {
        Self {
            low_cardinality: true,
            ..Self::plain("String")
        }
    }

    /// The type as ClickHouse prints it in `system.columns`.
    pub(super) fn sql(&self, nullable: bool) -> String {
        let inner = if nullable {
            format!("Nullable({})", self.base)
        } else {
            self.base.clone()
        };
        if self.low_cardinality {
            format!("LowCardinality({inner})")
        } else {
            inner
        }
    }
}

/// The type that a column gets when nobody chose one; `time64` is whether the server has Time64, `outside` what becomes
/// of dates that Date32 does not hold.
pub(super) fn default_type(column_type: ColumnType, time64: bool, outside: Outside) -> Mapped {
    match column_type {
        ColumnType::Int8 => Mapped::plain("Int8"),
        ColumnType::Int16 => Mapped::plain("Int16"),
        ColumnType::Int32 => Mapped::plain("Int32"),
        ColumnType::Int64 => Mapped::plain("Int64"),
        ColumnType::UInt8 => Mapped::plain("UInt8"),
        ColumnType::UInt16 => Mapped::plain("UInt16"),
        ColumnType::UInt32 => Mapped::plain("UInt32"),
        ColumnType::UInt64 => Mapped::plain("UInt64"),
        ColumnType::Float32 => Mapped::plain("Float32"),
        ColumnType::Float64 => Mapped::plain("Float64"),
        ColumnType::Decimal { precision, scale } => {
            Mapped::plain(format!("Decimal({precision}, {scale})"))
        }
        ColumnType::Date => Mapped::converted("Date32", Conversion::Date(outside)),
        // Seen on 26.7: it holds the years 0 to 9999, whatever the documentation says.
        ColumnType::DateTime { .. } | ColumnType::Timestamp { .. } => {
            Mapped::plain("DateTime64(6, 'UTC')")
        }
        ColumnType::Time { .. } if time64 => Mapped::plain("Time64(6)"),
        ColumnType::Time { .. } => Mapped::converted("Int64", Conversion::TimeToMicros),
        ColumnType::Label => Mapped::low_cardinality(),
        ColumnType::Text | ColumnType::Bytes | ColumnType::Json => Mapped::plain("String"),
        ColumnType::Uuid => Mapped::plain("UUID"),
        ColumnType::Inet4 => Mapped::plain("IPv4"),
        ColumnType::Inet6 => Mapped::plain("IPv6"),
        ColumnType::Bool => Mapped::plain("Bool"),
        ColumnType::Vector => Mapped::array("Float32"),
        ColumnType::List(number) => {
            Mapped::array(&default_type(number.column_type(), time64, outside).base)
        }
    }
}

/// The type that a person chose for `column`, if it loses nothing but what `outside` says.
///
/// # Errors
/// `Config`, naming the column, its source type and what could be chosen.
pub(super) fn chosen_type(
    column: &Column,
    chosen: &str,
    time64: bool,
    outside: Outside,
) -> Result<Mapped> {
    let accepted = Spelled::parse(chosen)
        .filter(|spelled| time64 || !matches!(spelled, Spelled::Time64(_)))
        .and_then(|spelled| lossless(column, &spelled, outside));
    accepted.ok_or_else(|| {
        let hint = match policy_instead(column, chosen) {
            Some(policy) => format!("write `columns: {{{}: {{{policy}}}}}` instead of the type", column.name),
            None if chosen.contains("Nullable") => {
                "write the type without `Nullable`: it follows from the source column and from `nullable`"
                    .to_owned()
            }
            None => match choices(column) {
                Some(choices) => format!("choose {choices}, or remove the entry"),
                None => format!(
                    "remove the entry: only `{}` fits",
                    default_type(column.column_type, time64, outside).sql(false)
                ),
            },
        };
        Error::new(
            ErrorKind::Config,
            format!(
                "column `{}` ({}) cannot be stored as `{chosen}` without loss or by this build",
                column.name,
                source_type(column)
            ),
        )
        .with_hint(hint)
    })
}

/// The policy that does what a refused type was meant to do.
fn policy_instead(column: &Column, chosen: &str) -> Option<&'static str> {
    let source = column.source_type.as_str();
    Some(match column.column_type {
        ColumnType::Int8 | ColumnType::UInt8
            if chosen == "Bool" && source.starts_with("tinyint(1)") =>
        {
            "tinyint1: bool"
        }
        ColumnType::Date | ColumnType::DateTime { .. } if chosen == "String" => {
            "date_range: string"
        }
        ColumnType::Label if chosen.starts_with("Enum") => "enum: enum16",
        ColumnType::Label if chosen.contains("Int") => "enum: integer",
        ColumnType::Text if chosen.starts_with("Array") && source.starts_with("set(") => {
            "set: array"
        }
        ColumnType::Json if chosen == "JSON" => "json: json",
        _ => return None,
    })
}

/// The source's words for the type, without the labels of an ENUM or SET, which may be thousands.
pub(super) fn source_type(column: &Column) -> &str {
    let text = column.source_type.as_str();
    match text.split_once('(') {
        Some((name @ ("enum" | "set"), _)) => name,
        _ => text,
    }
}

/// The bytes of every value of a BINARY(n).
fn fixed_length(column: &Column) -> Option<u8> {
    let length = column.source_type.strip_prefix("binary(")?;
    length.strip_suffix(')')?.parse().ok().filter(|n| *n > 0)
}

/// A type as a person wrote it, as far as it can be chosen at all.
#[derive(Debug, PartialEq, Eq)]
enum Spelled {
    Int(u16),
    UInt(u16),
    Float64,
    Decimal(u8, u8),
    Date32,
    DateTime64(u8, Option<String>),
    Time64(u8),
    String,
    LowCardinality,
    FixedString(u8),
    Uuid,
    Ipv4,
    Ipv6,
}

impl Spelled {
    fn parse(text: &str) -> Option<Self> {
        let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let (name, arguments) = match compact.split_once('(') {
            Some((name, rest)) => (name, rest.strip_suffix(')')?.split(',').collect()),
            None => (compact.as_str(), Vec::new()),
        };
        let bits = |prefix: &str| -> Option<u16> {
            let bits = name.strip_prefix(prefix)?.parse().ok()?;
            matches!(bits, 8 | 16 | 32 | 64 | 128 | 256).then_some(bits)
        };
        match (name, arguments.as_slice()) {
            ("Float64", []) => Some(Self::Float64),
            ("Date32", []) => Some(Self::Date32),
            ("String", []) => Some(Self::String),
            ("UUID", []) => Some(Self::Uuid),
            ("IPv4", []) => Some(Self::Ipv4),
            ("IPv6", []) => Some(Self::Ipv6),
            ("FixedString", [length]) => Some(Self::FixedString(length.parse().ok()?)),
            ("LowCardinality", ["String"]) => Some(Self::LowCardinality),
            ("Decimal", [precision, scale]) => {
                Some(Self::Decimal(precision.parse().ok()?, scale.parse().ok()?))
            }
            ("DateTime64", [digits]) => Some(Self::DateTime64(digits.parse().ok()?, None)),
            ("DateTime64", [digits, zone]) => {
                let zone = zone.strip_prefix('\'')?.strip_suffix('\'')?;
                let sound = |c: char| c.is_ascii_alphanumeric() || "_+-/".contains(c);
                zone.chars().all(sound).then(|| {
                    Some(Self::DateTime64(
                        digits.parse().ok()?,
                        Some(zone.to_owned()),
                    ))
                })?
            }
            ("Time64", [digits]) => Some(Self::Time64(digits.parse().ok()?)),
            (_, []) => bits("Int")
                .map(Self::Int)
                .or_else(|| bits("UInt").map(Self::UInt)),
            _ => None,
        }
    }
}

fn lossless(column: &Column, spelled: &Spelled, outside: Outside) -> Option<Mapped> {
    number(column.column_type, spelled)
        .or_else(|| moment(column.column_type, spelled, outside))
        .or_else(|| bytes(column, spelled))
}

fn number(column_type: ColumnType, spelled: &Spelled) -> Option<Mapped> {
    Some(match (column_type, spelled) {
        (
            ColumnType::Int8 | ColumnType::Int16 | ColumnType::Int32 | ColumnType::Int64,
            Spelled::Int(bits),
        ) if *bits >= integer_bits(column_type)? => Mapped::plain(format!("Int{bits}")),
        (
            ColumnType::UInt8 | ColumnType::UInt16 | ColumnType::UInt32 | ColumnType::UInt64,
            Spelled::UInt(bits),
        ) if *bits >= integer_bits(column_type)? => Mapped::plain(format!("UInt{bits}")),
        (
            ColumnType::UInt8 | ColumnType::UInt16 | ColumnType::UInt32 | ColumnType::UInt64,
            Spelled::Int(bits),
        ) if *bits > integer_bits(column_type)? => Mapped::plain(format!("Int{bits}")),
        (ColumnType::Float32 | ColumnType::Float64, Spelled::Float64) => Mapped::plain("Float64"),
        (ColumnType::Decimal { precision, scale }, Spelled::Decimal(wide, wide_scale))
            if *wide <= 76
                && *wide_scale >= scale
                && i16::from(*wide) - i16::from(*wide_scale)
                    >= i16::from(precision) - i16::from(scale) =>
        {
            Mapped::plain(format!("Decimal({wide}, {wide_scale})"))
        }
        (
            ColumnType::Int8
            | ColumnType::Int16
            | ColumnType::Int32
            | ColumnType::Int64
            | ColumnType::UInt8
            | ColumnType::UInt16
            | ColumnType::UInt32
            | ColumnType::UInt64
            | ColumnType::Decimal { .. },
            Spelled::String,
        ) => Mapped::converted("String", Conversion::NumberToText),
        (ColumnType::UInt32, Spelled::Ipv4) => Mapped::plain("IPv4"),
        _ => return None,
    })
}

fn moment(column_type: ColumnType, spelled: &Spelled, outside: Outside) -> Option<Mapped> {
    Some(match (column_type, spelled) {
        (ColumnType::Date, Spelled::Date32) => default_type(column_type, true, outside),
        // A date has no zone, and neither has a DATETIME: any other than UTC would show another wall clock.
        (ColumnType::Date, Spelled::DateTime64(digits @ 0..=6, None)) => Mapped::converted(
            format!("DateTime64({digits}, 'UTC')"),
            Conversion::DateToSeconds,
        ),
        (ColumnType::Date, Spelled::DateTime64(digits @ 0..=6, Some(zone))) if zone == "UTC" => {
            Mapped::converted(
                format!("DateTime64({digits}, 'UTC')"),
                Conversion::DateToSeconds,
            )
        }
        (
            ColumnType::DateTime { digits } | ColumnType::Timestamp { digits },
            Spelled::DateTime64(kept, zone),
        ) if (digits..=6).contains(kept) => {
            let zone = zone.as_deref().unwrap_or("UTC");
            let moment = matches!(column_type, ColumnType::Timestamp { .. });
            if zone != "UTC" && !moment {
                return None;
            }
            Mapped::plain(format!("DateTime64({kept}, '{zone}')"))
        }
        (ColumnType::Time { digits }, Spelled::Time64(kept)) if (digits..=6).contains(kept) => {
            Mapped::plain(format!("Time64({kept})"))
        }
        (ColumnType::Time { .. }, Spelled::Int(64)) => {
            Mapped::converted("Int64", Conversion::TimeToMicros)
        }
        _ => return None,
    })
}

fn bytes(column: &Column, spelled: &Spelled) -> Option<Mapped> {
    Some(match (column.column_type, spelled) {
        (
            ColumnType::Text | ColumnType::Label | ColumnType::Bytes | ColumnType::Json,
            Spelled::String,
        ) => Mapped::plain("String"),
        (
            ColumnType::Text | ColumnType::Label | ColumnType::Bytes | ColumnType::Json,
            Spelled::LowCardinality,
        ) => Mapped::low_cardinality(),
        (ColumnType::Bytes, Spelled::FixedString(length))
            if fixed_length(column) == Some(*length) =>
        {
            Mapped::converted(
                format!("FixedString({length})"),
                Conversion::BytesToFixed(*length),
            )
        }
        // All 2^128 values of 16 bytes are a UUID and an address, in the order of their text.
        (ColumnType::Bytes, Spelled::Uuid) if fixed_length(column) == Some(16) => {
            Mapped::converted("UUID", Conversion::BytesToFixed(16))
        }
        (ColumnType::Bytes, Spelled::Ipv6) if fixed_length(column) == Some(16) => {
            Mapped::converted("IPv6", Conversion::BytesToFixed(16))
        }
        _ => return None,
    })
}

fn integer_bits(column_type: ColumnType) -> Option<u16> {
    match column_type {
        ColumnType::Int8 | ColumnType::UInt8 => Some(8),
        ColumnType::Int16 | ColumnType::UInt16 => Some(16),
        ColumnType::Int32 | ColumnType::UInt32 => Some(32),
        ColumnType::Int64 | ColumnType::UInt64 => Some(64),
        _ => None,
    }
}

fn choices(column: &Column) -> Option<String> {
    Some(match column.column_type {
        ColumnType::Int8 | ColumnType::Int16 | ColumnType::Int32 | ColumnType::Int64 => {
            "a signed integer at least as wide, or `String`".to_owned()
        }
        ColumnType::UInt32 => {
            "an unsigned integer at least as wide, a wider signed one, `IPv4` or `String`"
                .to_owned()
        }
        ColumnType::UInt8 | ColumnType::UInt16 | ColumnType::UInt64 => {
            "an unsigned integer at least as wide, a wider signed one, or `String`".to_owned()
        }
        ColumnType::Float32 | ColumnType::Float64 => "`Float64`".to_owned(),
        ColumnType::Decimal { precision, scale } => {
            format!(
                "a Decimal with room for Decimal({precision}, {scale}), of up to 76 digits, or `String`"
            )
        }
        ColumnType::Date => "`Date32` or `DateTime64(0, 'UTC')`".to_owned(),
        ColumnType::DateTime { digits } => {
            format!("`DateTime64({digits}, 'UTC')` to `DateTime64(6, 'UTC')`")
        }
        ColumnType::Timestamp { digits } => {
            format!("`DateTime64({digits}, 'ZONE')` to `DateTime64(6, 'ZONE')`")
        }
        ColumnType::Time { digits } => {
            format!("`Time64({digits})` to `Time64(6)` or `Int64` (microseconds)")
        }
        ColumnType::Bytes => match fixed_length(column) {
            Some(16) => {
                "`String`, `LowCardinality(String)`, `FixedString(16)`, `UUID` or `IPv6`".to_owned()
            }
            Some(length) => {
                format!("`String`, `LowCardinality(String)` or `FixedString({length})`")
            }
            None => "`String` or `LowCardinality(String)`".to_owned(),
        },
        ColumnType::Text | ColumnType::Label | ColumnType::Json => {
            "`String` or `LowCardinality(String)`".to_owned()
        }
        ColumnType::Uuid
        | ColumnType::Inet4
        | ColumnType::Inet6
        | ColumnType::Vector
        | ColumnType::Bool
        | ColumnType::List(_) => return None,
    })
}

#[cfg(test)]
#[path = "types_tests.rs"]
mod tests;
