//! Which ClickHouse type a column gets from what the pipe file chose: a type, a policy, or neither.
//!
//! A policy that could make two keys equal is refused on a key column by name. Those that concern a few values only, by
//! default or by the whole pipe's choice, stop the table at such a value instead: most keys never hold one.

use std::collections::BTreeMap;

use super::labels::{ENUM16_MAX, Labels};
use super::types::{self, Conversion, Mapped, Outside, source_type};
use crate::batch::{Column, ColumnType};
use crate::config::{
    BinaryForm, ColumnConfig, DateRange, DecimalForm, EnumForm, JsonForm, SetForm, Tinyint1,
    TypePolicies, ZeroDates,
};
use crate::error::{Error, ErrorKind, Result};

/// The declared labels of a table's ENUM and SET columns, by column.
pub type LabelsByColumn = BTreeMap<String, Vec<String>>;

/// What is known of a column when its type is chosen.
#[derive(Debug)]
pub(super) struct Wish<'a> {
    /// The column as it leaves the last transform.
    pub(super) column: &'a Column,
    /// What was chosen for it.
    pub(super) own: Option<&'a ColumnConfig>,
    /// What was chosen for the pipe.
    pub(super) pipe: TypePolicies,
    /// The labels of an ENUM or SET; none once a plugin has written the column.
    pub(super) labels: Option<&'a [String]>,
    /// Whether the target is ordered by it.
    pub(super) in_key: bool,
    /// Whether the server has Time64.
    pub(super) time64: bool,
}

/// What a column is, as far as policies go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Date,
    DateTime,
    Timestamp,
    Tinyint1,
    Enum,
    Set,
    Binary,
    Json,
    /// What MariaDB calls JSON, and any other text of that size: JSON where the column's own choice says so.
    LongText,
    Decimal,
    Other,
}

/// The type of the column.
///
/// # Errors
/// `Config` for a choice that does not fit the column or is not safe for a key, naming the column and the remedy.
pub(super) fn mapped(wish: &Wish<'_>) -> Result<Mapped> {
    ensure_concerned(wish)?;
    let policies = wish.policies();
    if wish.in_key {
        ensure_keys_stay_apart(wish, policies)?;
    }
    let outside = match policies.date_range.unwrap_or_default() {
        DateRange::Null => Outside::Null,
        // A column that is text has no range; what is left of `string` is a date that a plugin made.
        DateRange::Clamp | DateRange::String => Outside::Clamp,
    };
    if let Some(chosen) = wish.own.and_then(|own| own.column_type.as_ref()) {
        return types::chosen_type(wish.column, chosen, wish.time64, outside);
    }
    let own_json = wish.own.and_then(|own| own.policies.json_form);
    Ok(match wish.kind() {
        Kind::Tinyint1 if policies.tinyint1 == Some(Tinyint1::Bool) => {
            Mapped::converted("Bool", Conversion::TinyintToBool)
        }
        Kind::Enum if policies.enum_form == Some(EnumForm::Enum16) => enum16(wish)?,
        Kind::Enum if policies.enum_form == Some(EnumForm::Integer) => {
            ensure_empty_is_told(wish, "enum: label")?;
            Mapped::converted("UInt16", Conversion::LabelToNumber)
        }
        Kind::Set if policies.set_form == Some(SetForm::Array) => {
            ensure_empty_is_told(wish, "set: string")?;
            Mapped::array_of_strings(Conversion::SetToArray)
        }
        Kind::Binary if policies.binary_form == Some(BinaryForm::Hex) => {
            Mapped::converted("String", Conversion::BytesToHex)
        }
        Kind::Binary if policies.binary_form == Some(BinaryForm::Base64) => {
            Mapped::converted("String", Conversion::BytesToBase64)
        }
        Kind::Json if policies.json_form == Some(JsonForm::Json) => {
            Mapped::converted("JSON", Conversion::JsonToObject)
        }
        Kind::LongText if own_json == Some(JsonForm::Json) => {
            Mapped::converted("JSON", Conversion::JsonToObject)
        }
        Kind::Decimal if policies.decimal_form == Some(DecimalForm::String) => {
            Mapped::converted("String", Conversion::NumberToText)
        }
        _ => types::default_type(wish.column.column_type, wish.time64, outside),
    })
}

impl Wish<'_> {
    fn policies(&self) -> TypePolicies {
        let own = self.own.map(|own| own.policies).unwrap_or_default();
        own.or(self.pipe)
    }

    fn kind(&self) -> Kind {
        let source = self.column.source_type.as_str();
        match self.column.column_type {
            ColumnType::Date => Kind::Date,
            ColumnType::DateTime { .. } => Kind::DateTime,
            ColumnType::Timestamp { .. } => Kind::Timestamp,
            ColumnType::Int8 | ColumnType::UInt8 if source.starts_with("tinyint(1)") => {
                Kind::Tinyint1
            }
            ColumnType::Label if self.labels.is_some() => Kind::Enum,
            ColumnType::Text if self.labels.is_some() => Kind::Set,
            ColumnType::Text if source.starts_with("longtext") => Kind::LongText,
            ColumnType::Bytes => Kind::Binary,
            ColumnType::Json => Kind::Json,
            ColumnType::Decimal { .. } => Kind::Decimal,
            _ => Kind::Other,
        }
    }

    fn refused(&self, problem: String, hint: String) -> Error {
        Error::new(
            ErrorKind::Config,
            format!(
                "column `{}` ({}) {problem}",
                self.column.name,
                source_type(self.column)
            ),
        )
        .with_hint(hint)
    }
}

/// Beside a declared empty label the empty text is two values: the label, and no label at all. The source prints them
/// alike, and a form that is not text would have to be one of them.
fn ensure_empty_is_told(wish: &Wish<'_>, as_text: &str) -> Result<()> {
    let labels = wish.labels.unwrap_or_default();
    if !labels.iter().any(String::is_empty) {
        return Ok(());
    }
    let name = &wish.column.name;
    Err(wish.refused(
        "declares an empty label, which reads like no label at all".to_owned(),
        format!("set `columns: {{{name}: {{{as_text}}}}}`, which keeps the source's own text"),
    ))
}

/// A key below `columns` that does not concern its column would have no effect. `zero_dates`, and dates that are kept as
/// text, are the source's affair, and were checked there.
fn ensure_concerned(wish: &Wish<'_>) -> Result<()> {
    let Some(own) = wish.own.map(|own| own.policies) else {
        return Ok(());
    };
    let ranged = matches!(own.date_range, Some(DateRange::Clamp | DateRange::Null));
    let kind = wish.kind();
    // A DATETIME is always within; it may still be taken out of the pipe's `string`.
    let dates = kind == Kind::Date
        || (kind == Kind::DateTime && wish.pipe.date_range == Some(DateRange::String));
    let checks = [
        (ranged, dates, "date_range", "DATE"),
        (
            own.tinyint1.is_some(),
            kind == Kind::Tinyint1,
            "tinyint1",
            "TINYINT(1)",
        ),
        (own.enum_form.is_some(), kind == Kind::Enum, "enum", "ENUM"),
        (own.set_form.is_some(), kind == Kind::Set, "set", "SET"),
        (
            own.binary_form.is_some(),
            kind == Kind::Binary,
            "binary",
            "BINARY, VARBINARY and BLOB",
        ),
        (
            own.json_form.is_some(),
            matches!(kind, Kind::Json | Kind::LongText),
            "json",
            "JSON and LONGTEXT",
        ),
        (
            own.decimal_form.is_some(),
            kind == Kind::Decimal,
            "decimal",
            "DECIMAL",
        ),
    ];
    match checks.iter().find(|(chosen, concerned, ..)| *chosen && !concerned) {
        None => Ok(()),
        Some((_, _, key, kinds)) => Err(wish.refused(
            format!("is given `{key}`"),
            format!("remove the key: it concerns {kinds} columns that no plugin has replaced by another type"),
        )),
    }
}

fn ensure_keys_stay_apart(wish: &Wish<'_>, policies: TypePolicies) -> Result<()> {
    let name = &wish.column.name;
    let kind = wish.kind();
    let own_range = wish.own.and_then(|own| own.policies.date_range);
    let temporal = matches!(kind, Kind::Date | Kind::DateTime | Kind::Timestamp);
    let as_text = if matches!(kind, Kind::Date | Kind::DateTime) {
        format!(
            "set `columns: {{{name}: {{date_range: string}}}}`, which keeps every date as its own text; or "
        )
    } else {
        String::new()
    };
    if temporal
        && matches!(
            policies.zero_dates,
            Some(ZeroDates::Epoch | ZeroDates::Clamp)
        )
    {
        return Err(wish.refused(
            "is part of the key, and `zero_dates` could make two of its values one".to_owned(),
            format!("{as_text}set `columns: {{{name}: {{zero_dates: null}}}}`, with which such a key stops the table"),
        ));
    }
    if kind == Kind::Date
        && (policies.date_range == Some(DateRange::Null) || own_range == Some(DateRange::Clamp))
    {
        return Err(wish.refused(
            "is part of the key, and `date_range` could make two of its values one".to_owned(),
            format!("{as_text}leave it out, with which such a key stops the table"),
        ));
    }
    if kind == Kind::Tinyint1 && policies.tinyint1 == Some(Tinyint1::Bool) {
        return Err(wish.refused(
            "is part of the key, and as Bool 1 and 2 would be one value".to_owned(),
            format!("set `columns: {{{name}: {{tinyint1: int8}}}}`"),
        ));
    }
    if kind == Kind::Json && policies.json_form == Some(JsonForm::Json) {
        return Err(wish.refused(
            "is part of the key, which ClickHouse's JSON cannot be".to_owned(),
            format!("set `columns: {{{name}: {{json: string}}}}`"),
        ));
    }
    Ok(())
}

fn enum16(wish: &Wish<'_>) -> Result<Mapped> {
    let labels = wish.labels.unwrap_or_default();
    if labels.len() > ENUM16_MAX {
        return Err(wish.refused(
            format!(
                "has {} labels, and an Enum16 takes {ENUM16_MAX}",
                labels.len()
            ),
            "choose `enum: integer` or `enum: label`".to_owned(),
        ));
    }
    Ok(Mapped::converted(
        Labels::new(labels).enum16(),
        Conversion::LabelToEnum16,
    ))
}

#[cfg(test)]
#[path = "forms_tests.rs"]
mod tests;
