//! A source as somebody sees it who is about to choose tables: databases, tables, columns, sizes, and what keeps a table
//! from being replicated.

use std::collections::BTreeMap;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use schemars::JsonSchema;
use serde::Serialize;

use super::catalog::{self, ListedTable, SourceTable};
use super::connection::query_error;
use super::{Flavor, Source, preflight};
use crate::batch::TableName;
use crate::error::Result;

/// Tables described; a server with more is looked at database by database with its own tools.
const TABLES_MAX: usize = 10_000;

/// A source's tables.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Inspection {
    /// `mysql` or `mariadb`.
    pub server: String,
    /// The server's version.
    pub version: String,
    /// Databases that hold tables which the account can see, by name.
    pub databases: Vec<InspectedDatabase>,
    /// Whether there are more tables than are shown.
    pub more: bool,
}

/// One database of a source.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct InspectedDatabase {
    /// Its name.
    pub database: String,
    /// Its tables, by name; no views.
    pub tables: Vec<InspectedTable>,
}

/// One table of a source.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct InspectedTable {
    /// Its name.
    pub table: String,
    /// Its storage engine.
    pub engine: Option<String>,
    /// Rows, as the server's statistics have it: often far off.
    pub rows_estimated: Option<u64>,
    /// Bytes of rows and indexes, as the server's statistics have it.
    pub bytes: Option<u64>,
    /// Its columns in order; empty where the catalog cannot be read as far as that.
    pub columns: Vec<InspectedColumn>,
    /// The columns of the key that tells its rows apart.
    pub key: Vec<String>,
    /// Whether it can be replicated.
    pub replicable: bool,
    /// What keeps it from that.
    pub why_not: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// One column of a table.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct InspectedColumn {
    /// Its name.
    pub name: String,
    /// Its type, as the source writes it.
    pub source_type: String,
    /// Whether it takes NULL.
    pub nullable: bool,
}

/// Looks at everything that the account can see.
///
/// # Errors
/// When the server does not answer.
pub async fn inspect(source: &Source) -> Result<Inspection> {
    let mut conn = source.control().await?;
    let mut listed = catalog::list_tables(&mut conn).await?;
    let more = listed.len() > TABLES_MAX;
    listed.truncate(TABLES_MAX);
    let sizes = sizes(&mut conn).await?;
    let mut by_database: BTreeMap<String, Vec<ListedTable>> = BTreeMap::new();
    for table in listed {
        let tables = by_database.entry(table.name.database.clone()).or_default();
        tables.push(table);
    }
    let account = preflight::account(&mut conn).await?;
    preflight::pass_over_locks(&mut conn).await?;
    let mut databases = Vec::new();
    for (database, listed) in by_database {
        let mut tables = Vec::new();
        for (table, described) in describe(&mut conn, source, listed).await? {
            let bytes = sizes.get(&table.name).copied();
            // The catalog shows it to whoever has any right on it.
            let hindrance = preflight::hindrance(&mut conn, &table.name, &account).await?;
            let mut table = inspected(table, described, bytes);
            if let Some(finding) = hindrance {
                table.replicable = false;
                (table.why_not, table.remedy) = (Some(finding.found), Some(finding.remedy));
            }
            tables.push(table);
        }
        databases.push(InspectedDatabase { database, tables });
    }
    conn.disconnect().await.ok();
    let server = match source.flavor() {
        Flavor::MySql => "mysql",
        Flavor::MariaDb => "mariadb",
    };
    Ok(Inspection {
        server: server.to_owned(),
        version: source.version().to_string(),
        databases,
        more,
    })
}

/// The tables' definitions, or why they have none that can be used.
async fn describe(
    conn: &mut Conn,
    source: &Source,
    listed: Vec<ListedTable>,
) -> Result<Vec<(ListedTable, Result<SourceTable>)>> {
    let names: Vec<TableName> = listed.iter().map(|table| table.name.clone()).collect();
    let definitions = catalog::load_each(conn, source, &names, |_| Vec::new()).await?;
    Ok(listed.into_iter().zip(definitions).collect())
}

async fn sizes(conn: &mut Conn) -> Result<BTreeMap<TableName, u64>> {
    let rows: Vec<(String, String, Option<u64>)> = conn
        .query(
            "SELECT TABLE_SCHEMA, TABLE_NAME, CAST(DATA_LENGTH + INDEX_LENGTH AS UNSIGNED) \
             FROM information_schema.TABLES WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED')",
        )
        .await
        .map_err(query_error)?;
    let known = |(database, table, bytes): (String, String, Option<u64>)| {
        Some((TableName { database, table }, bytes?))
    };
    Ok(rows.into_iter().filter_map(known).collect())
}

fn inspected(
    table: ListedTable,
    described: Result<SourceTable>,
    bytes: Option<u64>,
) -> InspectedTable {
    let mut inspected = InspectedTable {
        table: table.name.table,
        engine: table.engine,
        rows_estimated: table.row_estimate,
        bytes,
        columns: Vec::new(),
        key: Vec::new(),
        replicable: false,
        why_not: None,
        remedy: None,
    };
    match described {
        Err(error) => {
            inspected.why_not = Some(error.message().to_owned());
            inspected.remedy = error.hint().map(str::to_owned);
        }
        Ok(definition) => {
            let schema = &definition.schema;
            let key = schema
                .key
                .iter()
                .filter_map(|&index| schema.columns.get(index));
            inspected.key = key.map(|column| column.name.clone()).collect();
            inspected.replicable = !inspected.key.is_empty();
            if !inspected.replicable {
                inspected.why_not = Some(
                    "neither a primary key nor a unique key without nullable columns".to_owned(),
                );
                inspected.remedy =
                    Some("add a key, generated if need be, or set `keyless: append`".to_owned());
            }
            let columns = definition.columns.into_iter();
            inspected.columns = columns
                .map(|column| InspectedColumn {
                    name: column.name,
                    source_type: column.column_type,
                    nullable: column.nullable,
                })
                .collect();
        }
    }
    inspected
}
