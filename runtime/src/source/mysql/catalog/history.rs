//! System-versioned tables of MariaDB (pitfall 38): what the catalog says of their period, and what it leaves out.
//!
//! A period is two columns, from when and until when a row was true. Where the table's author has not declared them the
//! server adds them behind all others, under names of its own, and lists them nowhere; row images hold them in either
//! case. Every unique index goes on with the period's end, so that a key may occur once in the present and many times
//! in the past.

use std::collections::HashMap;

use mysql_async::Conn;

use super::ask::each_database;
use super::cells::Cells;
use super::keys::KeyPart;
use super::{ColumnDefault, ListedTable, SourceColumn};
use crate::batch::TableName;
use crate::error::{Error, ErrorKind, Result};

/// The columns that the server adds, in their order.
const START: &str = "row_start";
const END: &str = "row_end";

/// The columns of a period that the table's author has declared, each with whether it says until when.
pub(super) type Period = Vec<(String, bool)>;

/// The declared periods of system-versioned tables.
///
/// # Errors
/// As [`super::query_error`] says.
pub(super) async fn declared(
    conn: &mut Conn,
    tables: &[ListedTable],
) -> Result<HashMap<TableName, Period>> {
    let versioned = tables.iter().filter(|table| table.is_versioned());
    let names: Vec<TableName> = versioned.map(|table| table.name.clone()).collect();
    let mut periods: HashMap<TableName, Period> = HashMap::new();
    if names.is_empty() {
        return Ok(periods);
    }
    let query = "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, GENERATION_EXPRESSION \
         FROM information_schema.COLUMNS";
    let condition = "AND GENERATION_EXPRESSION IN ('ROW START', 'ROW END')";
    for row in each_database(conn, query, condition, &names).await? {
        let mut cells = Cells::of(row);
        let table = TableName::new(cells.text()?, cells.text()?);
        let column = (cells.text()?, cells.text()?.eq_ignore_ascii_case("ROW END"));
        periods.entry(table).or_default().push(column);
    }
    Ok(periods)
}

/// Marks the period's end in `columns`, takes it out of the keys, and gives the columns that the catalog does not list.
pub(super) fn prepare(
    declared: &[(String, bool)],
    columns: &mut [SourceColumn],
    keys: &mut Vec<KeyPart>,
) -> Vec<SourceColumn> {
    let same = |one: &str, other: &str| one.to_lowercase() == other.to_lowercase();
    let end = declared.iter().find(|(_, is_end)| *is_end);
    let end = end.map_or(END, |(name, _)| name.as_str());
    keys.retain(|part| !part.column.as_deref().is_some_and(|name| same(name, end)));
    if declared.is_empty() {
        return vec![unlisted(START, false), unlisted(END, true)];
    }
    for column in columns {
        let declared = declared.iter().find(|(name, _)| same(name, &column.name));
        if let Some((_, is_end)) = declared {
            column.row_end = *is_end;
            // The server calls it so, and logs it as any other column.
            column.generated = false;
        }
    }
    Vec::new()
}

/// Changes of a table whose period is told in transactions are logged as statements, whatever `binlog_format` is.
///
/// # Errors
/// `Unsupported` for such a table.
pub(super) fn ensure_logged(columns: &[SourceColumn]) -> Result<()> {
    let mut ends = columns.iter().filter(|column| column.row_end);
    match ends.find(|column| column.data_type == "bigint") {
        None => Ok(()),
        Some(end) => Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "its period is told in transactions (column `{}`), and the server logs its changes as statements",
                end.name
            ),
        )
        .with_hint("declare its period with TIMESTAMP(6) columns, or take it out of `tables`")),
    }
}

/// A column that the server added, which never leaves the source.
fn unlisted(name: &str, row_end: bool) -> SourceColumn {
    SourceColumn {
        name: name.to_owned(),
        included: None,
        data_type: "timestamp".to_owned(),
        column_type: "timestamp(6)".to_owned(),
        unsigned: false,
        nullable: false,
        charset: None,
        collation: None,
        length: None,
        precision: None,
        scale: Some(6),
        labels: Vec::new(),
        generated: false,
        row_end,
        geometry: None,
        default: ColumnDefault::Computed,
    }
}
