//! The one table from column types to ClickHouse types, and what a person may choose instead.
//!
//! A chosen type is accepted only where every value of the column has its own value in it: ClickHouse itself would wrap
//! an Int32 into a UInt8 without a word.

use crate::batch::ColumnType;
use crate::error::{Error, ErrorKind, Result};

/// What a column's array goes through before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Conversion {
    /// The array as it is.
    None,
    /// Days into the range of Date32, outside of which ClickHouse refuses the whole insert.
    ClampDate,
    /// Days to seconds, for DateTime64, which holds every date that MySQL can.
    DateToSeconds,
    /// The span's microseconds as Int64: sent as a time, ClickHouse would refuse; sent to Time64, it would mean seconds.
    TimeToMicros,
}

/// A ClickHouse type without its nullability, in the spelling that ClickHouse prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapped {
    /// Such as `Decimal(15, 2)`.
    base: String,
    /// `LowCardinality(...)` stands outside of `Nullable(...)`.
    low_cardinality: bool,
    /// ClickHouse has no Nullable(Array(...)).
    never_null: bool,
    /// What the arrays go through.
    pub(super) conversion: Conversion,
}

impl Mapped {
    fn plain(base: impl Into<String>) -> Self {
        Self {
            base: base.into(),
            low_cardinality: false,
            never_null: false,
            conversion: Conversion::None,
        }
    }

    fn converted(base: impl Into<String>, conversion: Conversion) -> Self {
        Self {
            conversion,
            ..Self::plain(base)
        }
    }

    /// NULL becomes the empty array, which no value of the source is: a declared policy, and counted as one.
    fn array(element: &str) -> Self {
        Self {
            never_null: true,
            ..Self::plain(format!("Array({element})"))
        }
    }

    fn low_cardinality() -> Self {
        Self {
            low_cardinality: true,
            ..Self::plain("String")
        }
    }

    /// Whether the type can be nullable at all.
    pub(super) fn takes_null(&self) -> bool {
        !self.never_null
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

/// The type that a column gets when nobody chose one; `time64` is whether the server has Time64.
pub(super) fn default_type(column_type: ColumnType, time64: bool) -> Mapped {
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
        ColumnType::Date => Mapped::converted("Date32", Conversion::ClampDate),
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
        ColumnType::Vector => Mapped::array("Float32"),
    }
}

/// The type that a person chose for `column`, if it loses nothing.
///
/// # Errors
/// `Config`, naming the column, its source type and what could be chosen.
pub(super) fn chosen_type(
    column: &str,
    column_type: ColumnType,
    chosen: &str,
    time64: bool,
) -> Result<Mapped> {
    let accepted = Spelled::parse(chosen)
        .filter(|spelled| time64 || !matches!(spelled, Spelled::Time64(_)))
        .and_then(|spelled| lossless(column_type, &spelled));
    accepted.ok_or_else(|| {
        let hint = if chosen.contains("Nullable") {
            "write the type without `Nullable`: it follows from the source column and from `nullable`"
                .to_owned()
        } else {
            match choices(column_type) {
                Some(choices) => format!("choose {choices}, or remove the entry"),
                None => format!(
                    "remove the entry: only `{}` fits",
                    default_type(column_type, time64).sql(false)
                ),
            }
        };
        Error::new(
            ErrorKind::Config,
            format!("column `{column}` cannot be stored as `{chosen}` without loss or by this build"),
        )
        .with_hint(hint)
    })
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

fn lossless(column_type: ColumnType, spelled: &Spelled) -> Option<Mapped> {
    let mapped = match (column_type, spelled) {
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
        (ColumnType::Date, Spelled::Date32) => default_type(column_type, true),
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
        (
            ColumnType::Text | ColumnType::Label | ColumnType::Bytes | ColumnType::Json,
            Spelled::String,
        ) => Mapped::plain("String"),
        (
            ColumnType::Text | ColumnType::Label | ColumnType::Bytes | ColumnType::Json,
            Spelled::LowCardinality,
        ) => Mapped::low_cardinality(),
        _ => return None,
    };
    Some(mapped)
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

fn choices(column_type: ColumnType) -> Option<String> {
    Some(match column_type {
        ColumnType::Int8 | ColumnType::Int16 | ColumnType::Int32 | ColumnType::Int64 => {
            "a signed integer at least as wide".to_owned()
        }
        ColumnType::UInt8 | ColumnType::UInt16 | ColumnType::UInt32 | ColumnType::UInt64 => {
            "an unsigned integer at least as wide or a wider signed one".to_owned()
        }
        ColumnType::Float32 | ColumnType::Float64 => "`Float64`".to_owned(),
        ColumnType::Decimal { precision, scale } => {
            format!("a Decimal with room for Decimal({precision}, {scale}), of up to 76 digits")
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
        ColumnType::Text | ColumnType::Label | ColumnType::Bytes | ColumnType::Json => {
            "`String` or `LowCardinality(String)`".to_owned()
        }
        ColumnType::Uuid | ColumnType::Inet4 | ColumnType::Inet6 | ColumnType::Vector => {
            return None;
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(column_type: ColumnType, text: &str) -> Option<String> {
        chosen_type("c", column_type, text, true)
            .ok()
            .map(|mapped| mapped.sql(false))
    }

    #[test]
    fn nullable_stands_inside_of_low_cardinality() {
        let label = default_type(ColumnType::Label, true);
        assert_eq!(label.sql(true), "LowCardinality(Nullable(String))");
        assert_eq!(label.sql(false), "LowCardinality(String)");
        assert_eq!(
            default_type(ColumnType::Text, true).sql(true),
            "Nullable(String)"
        );
    }

    #[test]
    fn a_type_of_which_there_is_one_form_says_so() {
        assert_eq!(
            default_type(ColumnType::Vector, true).sql(false),
            "Array(Float32)"
        );
        assert!(!default_type(ColumnType::Vector, true).takes_null());
        let error = chosen_type("c", ColumnType::Uuid, "String", true).expect_err("refused");
        assert!(
            error.hint().is_some_and(|hint| hint.contains("`UUID`")),
            "{error}"
        );
    }

    #[test]
    fn a_server_without_time64_gets_microseconds() {
        let time = ColumnType::Time { digits: 3 };
        assert_eq!(default_type(time, true).sql(false), "Time64(6)");
        let old = default_type(time, false);
        assert_eq!(old.sql(false), "Int64");
        assert_eq!(old.conversion, Conversion::TimeToMicros);
        assert!(chosen_type("c", time, "Time64(6)", false).is_err());
    }

    #[test]
    fn wider_types_are_accepted_in_the_spelling_that_clickhouse_prints() {
        let decimal = ColumnType::Decimal {
            precision: 15,
            scale: 2,
        };
        for (column_type, text, printed) in [
            (ColumnType::Int32, "Int64", "Int64"),
            (ColumnType::UInt32, "Int64", "Int64"),
            (ColumnType::UInt64, "UInt256", "UInt256"),
            (ColumnType::Float32, "Float64", "Float64"),
            (decimal, "Decimal(20,4)", "Decimal(20, 4)"),
            (ColumnType::Date, "DateTime64(0)", "DateTime64(0, 'UTC')"),
            (
                ColumnType::DateTime { digits: 3 },
                "DateTime64(3)",
                "DateTime64(3, 'UTC')",
            ),
            (
                ColumnType::Timestamp { digits: 0 },
                "DateTime64(0, 'Europe/Berlin')",
                "DateTime64(0, 'Europe/Berlin')",
            ),
            (
                ColumnType::Text,
                "LowCardinality( String )",
                "LowCardinality(String)",
            ),
            (ColumnType::Label, "String", "String"),
        ] {
            assert_eq!(
                chosen(column_type, text).as_deref(),
                Some(printed),
                "{text}"
            );
        }
    }

    #[test]
    fn types_that_could_lose_something_are_refused() {
        let decimal = ColumnType::Decimal {
            precision: 15,
            scale: 2,
        };
        for (column_type, text) in [
            (ColumnType::Int32, "UInt8"),
            (ColumnType::Int32, "UInt64"),
            (ColumnType::Int8, "Bool"),
            (ColumnType::UInt64, "Int64"),
            (ColumnType::Float64, "Float32"),
            (decimal, "Decimal(15, 3)"),
            (decimal, "Decimal(77, 2)"),
            (decimal, "Float64"),
            (ColumnType::Date, "Date"),
            (ColumnType::DateTime { digits: 3 }, "DateTime64(2)"),
            (
                ColumnType::DateTime { digits: 0 },
                "DateTime64(0, 'Europe/Berlin')",
            ),
            (ColumnType::DateTime { digits: 0 }, "DateTime64(9)"),
            (
                ColumnType::Timestamp { digits: 0 },
                "DateTime64(0, 'x') + 1",
            ),
            (ColumnType::Text, "UUID"),
            (ColumnType::Text, "Nullable(String)"),
            (ColumnType::Json, "JSON"),
        ] {
            assert_eq!(chosen(column_type, text), None, "{text}");
        }
    }
}
