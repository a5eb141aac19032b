//! Foreign keys whose changes are in no binlog: InnoDB itself carries them out (pitfall 99).
//!
//! They are read from SHOW CREATE TABLE, which needs no right but SELECT; information_schema shows constraints only to
//! those who may do more.

use std::collections::BTreeMap;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

use super::binlog::ddl::{Cascade, cascades};
use super::connection::query_error;
use super::sql::quote_table;
use super::{Flavor, ServerVersion, Source};
use crate::batch::TableName;
use crate::error::{ErrorKind, Result};

/// The cascading foreign keys of `tables`, by the table whose rows change. Tables that are gone have none, and a server
/// that logs what cascades has none either: MySQL from 9.6 on, unless it was told otherwise.
///
/// # Errors
/// As [`query_error`] says.
pub async fn unlogged_cascades<'a>(
    source: &Source,
    conn: &mut Conn,
    tables: impl IntoIterator<Item = &'a TableName>,
) -> Result<BTreeMap<TableName, Vec<Cascade>>> {
    let mut found = BTreeMap::new();
    if source.flavor() == Flavor::MySql && source.version() >= ServerVersion(9, 6, 0) {
        let native: Option<u8> = conn
            .query_first("SELECT @@GLOBAL.innodb_native_foreign_keys")
            .await
            .map_err(query_error)?;
        if native == Some(0) {
            return Ok(found);
        }
    }
    for table in tables {
        let sql = format!("SHOW CREATE TABLE {}", quote_table(table));
        let row: Option<Row> = match conn.query_first(sql).await.map_err(query_error) {
            Ok(row) => row,
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::SourceMissing | ErrorKind::SourceDenied
                ) =>
            {
                continue;
            }
            Err(error) => return Err(error),
        };
        let text: Option<Vec<u8>> = row.and_then(|row| row.get(1));
        let text = String::from_utf8_lossy(text.as_deref().unwrap_or_default()).into_owned();
        let own = cascades(&table.database, &text);
        if !own.is_empty() {
            found.insert(table.clone(), own);
        }
    }
    Ok(found)
}
