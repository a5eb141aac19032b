//! Whether a column's new definition leaves every stored value as it was.
//!
//! An ALTER rewrites rows without row events (pitfall 106). Only where the server cannot have changed a value does the
//! destination keep its own; else the table is loaded anew.

use crate::source::mysql::catalog::{ColumnDefault, SourceColumn};

/// The session that ran the statement, as far as it decides what becomes of values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mode {
    /// It refused values that do not fit.
    pub(super) strict: bool,
    /// It read CHAR with all of its padding.
    pub(super) pads: bool,
}

/// Whether what stands in `before` stands unchanged in `after`.
pub(super) fn keeps_values(before: &SourceColumn, after: &SourceColumn, mode: Mode) -> bool {
    let Mode { strict, pads } = mode;
    // What it is computed from may have changed, which no definition of ours holds.
    if before.generated || after.generated || is_numbered_anew(before, after) {
        return false;
    }
    // Outside of strict mode NULL silently becomes '' or 0, and in any mode the present moment.
    if before.nullable && !after.nullable && (!strict || after.data_type == "timestamp") {
        return false;
    }
    if let (Some(from), Some(to)) = (integer(before), integer(after)) {
        return match (from, to) {
            ((true, from), (true, to)) | ((false, from), (false, to)) => to >= from,
            ((false, from), (true, to)) => to > from,
            ((true, _), (false, _)) => false,
        };
    }
    let kind = (before.data_type.as_str(), after.data_type.as_str());
    match kind {
        ("decimal", "decimal") => {
            let whole = |column: &SourceColumn| {
                let scale = column.scale.unwrap_or(0);
                column.precision.unwrap_or(0).saturating_sub(scale)
            };
            whole(after) >= whole(before)
                && after.scale >= before.scale
                && (before.unsigned == after.unsigned || before.unsigned)
        }
        // DOUBLE(10,2) rounds.
        ("float", "double") => after.scale.is_none() && (before.unsigned || !after.unsigned),
        ("datetime", "datetime") | ("timestamp", "timestamp") | ("time", "time") => {
            after.scale >= before.scale
        }
        ("enum", "enum") | ("set", "set") => {
            after.labels.starts_with(&before.labels) && keeps_characters(before, after, strict)
        }
        ("bit", "bit") | ("varbinary", "varbinary") => after.length >= before.length,
        ("char", to) if to != "char" && pads => false,
        (from, to) if texts(from, to) => {
            keeps_characters(before, after, strict) && has_room(before, after)
        }
        (from, to) if blob_rank(from).is_some() => blob_rank(to) >= blob_rank(from),
        (from, to) => {
            from == to
                && before.length == after.length
                && before.precision == after.precision
                && before.scale == after.scale
                && before.unsigned == after.unsigned
                && before.geometry == after.geometry
                && before.charset == after.charset
        }
    }
}

/// A column that begins to count gives rows with 0, or with NULL, the next numbers, in strict mode too.
pub(super) fn is_numbered_anew(before: &SourceColumn, after: &SourceColumn) -> bool {
    // A state of an earlier build says of one that counts that it is computed.
    let counts = |column: &SourceColumn| {
        matches!(
            column.default,
            ColumnDefault::Counted | ColumnDefault::Computed
        )
    };
    after.default == ColumnDefault::Counted && !counts(before)
}

/// Whether signed, and bytes.
fn integer(column: &SourceColumn) -> Option<(bool, u8)> {
    let bytes = match column.data_type.as_str() {
        "tinyint" => 1,
        "smallint" => 2,
        "mediumint" => 3,
        "int" | "integer" => 4,
        "bigint" => 8,
        _ => return None,
    };
    Some((!column.unsigned, bytes))
}

/// CHAR is padded, so that spaces at the end are lost on the way into it.
fn texts(from: &str, to: &str) -> bool {
    let long = |kind: &str| {
        matches!(
            kind,
            "varchar" | "tinytext" | "text" | "mediumtext" | "longtext"
        )
    };
    (long(from) || from == "char") && (long(to) || (from == "char" && to == "char"))
}

/// Every character of the one charset is in the other: the same, or the one that has all. Outside of strict mode codes
/// that stand for no character become question marks; these charsets have none of those.
fn keeps_characters(before: &SourceColumn, after: &SourceColumn, strict: bool) -> bool {
    let is_full = matches!(
        before.charset.as_deref(),
        Some("latin1" | "utf8" | "utf8mb3")
    );
    before.charset == after.charset
        || (after.charset.as_deref() == Some("utf8mb4") && (strict || is_full))
}

/// CHAR and VARCHAR count characters, the others bytes, of which a character takes up to four.
fn has_room(before: &SourceColumn, after: &SourceColumn) -> bool {
    let in_characters =
        |column: &SourceColumn| matches!(column.data_type.as_str(), "char" | "varchar");
    let (had, has) = (before.length.unwrap_or(u64::MAX), after.length.unwrap_or(0));
    match (in_characters(before), in_characters(after)) {
        (true, false) => has >= had.saturating_mul(4),
        // As many characters as it had bytes.
        (false, true) | (true, true) => has >= had,
        (false, false) if before.charset == after.charset => has >= had,
        // The longest that there is holds whatever fitted before the charset grew.
        (false, false) => has >= had.saturating_mul(4) || after.data_type == "longtext",
    }
}

fn blob_rank(kind: &str) -> Option<u8> {
    ["tinyblob", "blob", "mediumblob", "longblob"]
        .iter()
        .position(|known| *known == kind)
        .and_then(|rank| u8::try_from(rank).ok())
}

/// What rows get that were there before the column was added, where the destination can show it by itself (pitfalls 42,
/// 43): NULL, the type's own default, or a plain literal. None where only the source's rows tell.
///
/// `copied`: a tool has made the rows anew, so that ON UPDATE may have given them another value.
pub(super) fn fill(column: &SourceColumn, copied: bool) -> Option<Option<&str>> {
    let kind = column.data_type.as_str();
    let default = match &column.default {
        ColumnDefault::Touched(default) if !copied => default,
        default => default,
    };
    match default {
        ColumnDefault::Computed | ColumnDefault::Counted | ColumnDefault::Touched(_) => None,
        ColumnDefault::None if column.nullable => Some(None),
        // 0 and '' are the default of both ends. Zero dates, JSON's null and padded bytes are not.
        ColumnDefault::None => (is_number(kind)
            || matches!(
                kind,
                "char" | "varchar" | "varbinary" | "set" | "bit" | "time"
            )
            || kind.ends_with("text")
            || kind.ends_with("blob"))
        .then_some(None),
        ColumnDefault::Literal(text) => {
            // Both servers print the default of a FLOAT with six digits, whatever it is.
            let is_float = kind == "float" && column.scale.is_none();
            let plain = (is_number(kind) && (!is_float || text.parse() == Ok(0.0_f32)))
                || matches!(kind, "char" | "varchar" | "enum")
                || (matches!(kind, "date" | "datetime") && is_common_date(text));
            plain.then_some(Some(text.as_str()))
        }
    }
}

fn is_number(kind: &str) -> bool {
    matches!(
        kind,
        "tinyint"
            | "smallint"
            | "mediumint"
            | "int"
            | "integer"
            | "bigint"
            | "decimal"
            | "float"
            | "double"
            | "year"
    )
}

/// A date that ClickHouse has.
fn is_common_date(text: &str) -> bool {
    let year = text.get(..4).and_then(|year| year.parse::<u16>().ok());
    year.is_some_and(|year| (1970..=2200).contains(&year)) && !text.contains("-00")
}

#[cfg(test)]
#[path = "kept_tests.rs"]
mod tests;
