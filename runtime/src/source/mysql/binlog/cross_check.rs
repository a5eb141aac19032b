//! What a table map tells of its table, against what is recorded (pitfalls 8, 15, 46, 47).
//!
//! How much there is to compare depends on `binlog_row_metadata`, which anybody may change at any moment: nothing by
//! MariaDB's default, signs by MySQL's, names, key and labels with FULL. Each map is looked at for itself, so nothing
//! that an earlier one told is taken to hold for a later one. Columns are always matched by ordinal, whatever the map
//! tells, and each thing that it tells must agree. Whether a column is INVISIBLE is no matter: row images hold it, and
//! every SELECT of ours names it.

use super::TableMap;
use crate::error::{Error, ErrorKind, Result};
use crate::source::mysql::catalog::{SourceColumn, SourceTable};
use crate::source::mysql::decode::labels_agree;

/// Compares everything that `map` tells beside the formats.
///
/// # Errors
/// `SchemaConflict` that says what differs; `offset` is the event's.
pub(super) fn metadata(table: &SourceTable, map: &TableMap, offset: u64) -> Result<()> {
    for (ordinal, column) in table.columns.iter().enumerate() {
        name(ordinal, column, map)
            .and_then(|()| sign(ordinal, column, map))
            .and_then(|()| labels(ordinal, column, map))
            .map_err(|what| conflict(&what, offset))?;
    }
    key(table, map).map_err(|what| conflict(&what, offset))
}

fn name(ordinal: usize, column: &SourceColumn, map: &TableMap) -> Result<(), String> {
    match map.names.as_ref().and_then(|names| names.get(ordinal)) {
        Some(name) if name.to_lowercase() != column.name.to_lowercase() => Err(format!(
            "column {} is `{name}` in the binlog and `{}` as recorded",
            ordinal + 1,
            column.name
        )),
        _ => Ok(()),
    }
}

fn sign(ordinal: usize, column: &SourceColumn, map: &TableMap) -> Result<(), String> {
    let told = map.unsigned.as_ref();
    let Some(unsigned) = told.and_then(|told| told.get(ordinal).copied().flatten()) else {
        return Ok(());
    };
    // YEAR is unsigned without saying so.
    if unsigned == column.unsigned || column.data_type == "year" {
        return Ok(());
    }
    let say = |unsigned| if unsigned { "unsigned" } else { "signed" };
    Err(format!(
        "column `{}` is {} in the binlog and {} as recorded",
        column.name,
        say(unsigned),
        say(column.unsigned)
    ))
}

/// A number under another list of labels is another label. Columns that stay at the source may change as they like.
fn labels(ordinal: usize, column: &SourceColumn, map: &TableMap) -> Result<(), String> {
    let told = map.labels.as_ref();
    match told.and_then(|told| told.get(ordinal)?.as_ref()) {
        Some(told) if column.included.is_some() && !labels_agree(column, told) => Err(format!(
            "column `{}` has other labels in the binlog than as recorded",
            column.name
        )),
        _ => Ok(()),
    }
}

/// Under another key rows that differ may be one at the destination. Where the recorded key is no primary key the server
/// may name another of several unique ones, and nothing follows from it.
fn key(table: &SourceTable, map: &TableMap) -> Result<(), String> {
    // Names come with FULL only, and so does the key of a table that has one.
    if !table.key_is_primary || (map.names.is_none() && map.primary_key.is_none()) {
        return Ok(());
    }
    let ordinal_of = |index: &usize| {
        let mut columns = table.columns.iter();
        columns.position(|column| column.included == Some(*index))
    };
    let mut recorded: Vec<usize> = table.schema.key.iter().filter_map(ordinal_of).collect();
    let mut told = map.primary_key.clone().unwrap_or_default();
    // The server adds it to every key of a system-versioned table, and of rows of the present it is the same.
    told.retain(|ordinal| table.row_end() != Some(*ordinal));
    recorded.sort_unstable();
    told.sort_unstable();
    if told == recorded {
        return Ok(());
    }
    let columns: Vec<String> = told
        .iter()
        .map(|&ordinal| match table.columns.get(ordinal) {
            Some(column) => format!("`{}`", column.name),
            None => format!("column {}", ordinal + 1),
        })
        .collect();
    Err(match columns.as_slice() {
        [] => "the table has no primary key in the binlog, and one as recorded".to_owned(),
        columns => format!(
            "the primary key is {} in the binlog and another as recorded",
            columns.join(", ")
        ),
    })
}

fn conflict(what: &str, offset: u64) -> Error {
    Error::new(
        ErrorKind::SchemaConflict,
        format!("{what} (at stream offset {offset})"),
    )
    .with_hint(
        "the table's definition changed between our reading it and this row: resync the table",
    )
}
