//! How information_schema is asked about many tables.

use std::collections::HashSet;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Params, Row, Value};

use crate::batch::TableName;
use crate::error::Result;
use crate::source::mysql::connection::query_error;

/// The names of one query's list. Long enough for few round trips, short enough for every packet limit.
const NAMES_A_QUERY: usize = 200;

/// Runs `query`, which selects from an information_schema table, for all `tables`, database by database; `rest` is added
/// behind its condition. Rows of tables that only look alike to the server's collation are dropped (pitfall 114).
pub(super) async fn each_database(
    conn: &mut Conn,
    query: &str,
    rest: &str,
    tables: &[TableName],
) -> Result<Vec<Row>> {
    let fold = folds_case(conn).await?;
    let mut databases: Vec<(&str, Vec<&str>)> = vec![];
    for table in tables {
        match databases
            .iter_mut()
            .find(|(database, _)| *database == table.database)
        {
            Some((_, names)) => names.push(&table.table),
            None => databases.push((&table.database, vec![&table.table])),
        }
    }
    let mut found = vec![];
    for (database, names) in databases {
        for names in names.chunks(NAMES_A_QUERY) {
            let marks = vec!["?"; names.len()].join(", ");
            let query =
                format!("{query} WHERE TABLE_SCHEMA = ? AND TABLE_NAME IN ({marks}) {rest}");
            let values = std::iter::once(database)
                .chain(names.iter().copied())
                .map(Value::from)
                .collect();
            let rows: Vec<Row> = conn
                .exec(query, Params::Positional(values))
                .await
                .map_err(query_error)?;
            let names: HashSet<TableName> = names
                .iter()
                .map(|name| folded(&TableName::new(database, *name), fold))
                .collect();
            let wanted = |row: &Row| {
                let cell = |index| row.get::<String, usize>(index).unwrap_or_default();
                names.contains(&folded(&TableName::new(cell(0), cell(1)), fold))
            };
            found.extend(rows.into_iter().filter(wanted));
        }
    }
    Ok(found)
}

/// Whether the server keeps table names without case (`lower_case_table_names` 1 or 2).
pub(super) async fn folds_case(conn: &mut Conn) -> Result<bool> {
    let setting: Option<u8> = conn
        .query_first("SELECT @@lower_case_table_names")
        .await
        .map_err(query_error)?;
    Ok(setting.unwrap_or(0) != 0)
}

pub(super) fn folded(name: &TableName, fold: bool) -> TableName {
    if fold {
        TableName::new(name.database.to_lowercase(), name.table.to_lowercase())
    } else {
        name.clone()
    }
}
