//! Foreign keys whose changes are in no binlog: InnoDB itself carries them out (pitfall 99).
//!
//! They are read from SHOW CREATE TABLE, which needs no right but SELECT; information_schema shows constraints only to
//! those who may do more.

use std::collections::{BTreeMap, BTreeSet};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

use super::binlog::ddl::{Cascade, cascades, column_names};
use super::connection::query_error;
use super::sql::quote_table;
use crate::batch::TableName;
use crate::error::{ErrorKind, Result};

/// Tables as the source shows them.
#[derive(Debug, Default)]
pub struct Shown {
    /// The cascading foreign keys of those that have some, by the table whose rows change.
    pub cascades: BTreeMap<TableName, Vec<Cascade>>,
    /// The columns of every table that was looked at, in order.
    pub columns: BTreeMap<TableName, Vec<String>>,
}

/// The cascading foreign keys of `tables`, and of those that they refer to in turn, by the table whose rows change. Tables
/// that are gone, or that the account may not read, have none.
///
/// MySQL from 9.6 on lets its SQL layer carry them out, which logs them, unless `innodb_native_foreign_keys` is ON. But
/// a session that was reset (COM_RESET_CONNECTION, as connection pools do between two users) goes back to InnoDB, and
/// nothing tells beforehand whose sessions are (seen with 9.7.4). So no server is taken to log all of them.
///
/// # Errors
/// A broken connection.
pub async fn unlogged_cascades<'a>(
    conn: &mut Conn,
    tables: impl IntoIterator<Item = &'a TableName>,
) -> Result<Shown> {
    let mut found = Shown::default();
    let mut seen = BTreeSet::new();
    let mut next: Vec<TableName> = tables.into_iter().cloned().collect();
    while let Some(table) = next.pop() {
        if !seen.insert(table.clone()) {
            continue;
        }
        let sql = format!("SHOW CREATE TABLE {}", quote_table(&table));
        let row: Option<Row> = match conn.query_first(sql).await.map_err(query_error) {
            Ok(row) => row,
            Err(error) if error.kind() == ErrorKind::SourceUnavailable => return Err(error),
            // Gone, denied, or broken in its engine: what can be said of that is said by whoever reads its rows.
            Err(_) => continue,
        };
        let text: Option<Vec<u8>> = row.and_then(|row| row.get(1));
        let text = String::from_utf8_lossy(text.as_deref().unwrap_or_default()).into_owned();
        found.columns.insert(table.clone(), column_names(&text));
        let own = cascades(&table.database, &text);
        if !own.is_empty() {
            next.extend(own.iter().map(|cascade| cascade.parent.clone()));
            found.cascades.insert(table, own);
        }
    }
    Ok(found)
}
