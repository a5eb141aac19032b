//! Whether the tables of the pipe file are there, readable, and have keys.

use std::collections::BTreeSet;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::super::binlog::ddl::{Cascade, merged};
use super::super::cascades::unlogged_cascades;
use super::super::catalog::SYSTEM_DATABASES;
use super::super::connection::query_error;
use super::super::sql::{quote_identifier, quote_string, quote_table};
use super::super::{Flavor, Source};
use super::locks::{Touched, touch};
use super::{Grants, account, ask, finding};
use crate::batch::TableName;
use crate::config::{
    Cascades, Engine, Keyless, Mode, PipeConfig, TableConfig, TablePattern, without_table,
};
use crate::error::{Error, ErrorKind, Finding, Result, Severity};

/// Looks at all tables that the file names or its wildcards match.
pub(super) async fn check(
    source: &Source,
    conn: &mut Conn,
    config: &PipeConfig,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let existing = existing(conn).await?;
    let keyed = keyed(source, conn).await?;
    let account = account(conn).await?;
    let locks = source.flavor() == Flavor::MySql
        && config.mode != Mode::CdcOnly
        && config.snapshot.allow_locks;
    let grants = match locks && config.tables.iter().any(may_append) {
        true => Some(Grants::read(conn).await?),
        false => None,
    };
    let mut seen = BTreeSet::new();
    // A table is its exact entry's, wherever a wildcard stands.
    let mut entries: Vec<&TableConfig> = config.tables.iter().collect();
    entries.sort_by_key(|entry| entry.source.is_wildcard());
    for entry in entries {
        let tables: Vec<&TableName> = existing
            .iter()
            .filter(|table| entry.source.matches(table))
            .collect();
        if tables.is_empty() {
            findings.push(missing(conn, &entry.source, &existing, &account).await?);
        }
        for table in tables {
            if !seen.insert(table.clone()) {
                continue;
            }
            findings.extend(hindrance(conn, table, &account).await?);
            let appends = may_append(entry);
            if !keyed.contains(table) && !appends {
                findings.push(keyless(table));
            }
            let is_append = entry.engine == Engine::Append || !keyed.contains(table) && appends;
            if is_append
                && let Some(grants) = &grants
                && grants.has("LOCK TABLES", Some(&table.database)) == Some(false)
            {
                findings.push(unlockable(table, &account));
            }
            findings.extend(tool_table(entry, table));
            if !entry.source.is_wildcard() {
                check_columns(conn, entry, table, findings).await?;
            }
        }
    }
    if config.mode != Mode::Snapshot {
        check_cascades(conn, config, &seen, findings).await?;
        check_merges(conn, &seen, findings).await?;
    }
    Ok(())
}

/// Whether tables of the entry are append tables, or would be without a key.
fn may_append(entry: &TableConfig) -> bool {
    entry.engine == Engine::Append || entry.keyless == Keyless::Append
}

/// The tables that an account can see, in order.
pub(super) async fn existing(conn: &mut Conn) -> Result<Vec<TableName>> {
    let names: Vec<(String, String)> = conn
        .query(
            "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE IN ('BASE TABLE', \
             'SYSTEM VERSIONED') AND TABLE_SCHEMA NOT IN ('mysql', 'information_schema', 'performance_schema', 'sys') \
             ORDER BY TABLE_SCHEMA, TABLE_NAME",
        )
        .await
        .map_err(query_error)?;
    Ok(names
        .into_iter()
        .map(|(database, table)| TableName { database, table })
        .collect())
}

/// The tables with a primary key, or a unique one without a nullable column.
async fn keyed(source: &Source, conn: &mut Conn) -> Result<BTreeSet<TableName>> {
    // An index over an expression has no column there; MariaDB has none of those.
    let columns = match source.flavor() {
        Flavor::MySql => "COUNT(COLUMN_NAME) = COUNT(*)",
        Flavor::MariaDb => "TRUE",
    };
    // By bytes: MariaDB's information_schema compares without case, where `Twin` and `twin` would be one.
    let names: Vec<(String, String)> = conn
        .query(format!(
            "SELECT MIN(TABLE_SCHEMA), MIN(TABLE_NAME) FROM information_schema.STATISTICS WHERE NON_UNIQUE = 0 \
             GROUP BY CAST(TABLE_SCHEMA AS BINARY), CAST(TABLE_NAME AS BINARY), INDEX_NAME \
             HAVING SUM(NULLABLE = 'YES') = 0 AND {columns}"
        ))
        .await
        .map_err(query_error)?;
    Ok(names
        .into_iter()
        .map(|(database, table)| TableName { database, table })
        .collect())
}

/// What keeps the account from reading the table; one that is only locked can be read.
///
/// # Errors
/// When the server does not answer.
pub(in super::super) async fn hindrance(
    conn: &mut Conn,
    table: &TableName,
    account: &str,
) -> Result<Option<Finding>> {
    Ok(match touch(conn, table).await? {
        Touched::Free | Touched::Locked => None,
        Touched::Refused(error) if error.kind() == ErrorKind::SourceDenied => {
            Some(unreadable(table, account))
        }
        Touched::Refused(error) => Some(unusable(table, &error)),
    })
}

/// A table that the catalog does not show is missing, or hidden from an account without any right on it.
async fn missing(
    conn: &mut Conn,
    pattern: &TablePattern,
    existing: &[TableName],
    account: &str,
) -> Result<Finding> {
    let name = TableName::new(&pattern.database, &pattern.table);
    if !pattern.is_wildcard() {
        let sql = format!("SELECT 1 FROM {} LIMIT 0", quote_table(&name));
        match conn.query_drop(sql).await.map_err(query_error) {
            Err(error) if error.kind() == ErrorKind::SourceDenied => {
                return Ok(unreadable(&name, account));
            }
            Err(error) if error.kind() == ErrorKind::SourceUnavailable => return Err(error),
            Err(error) if error.kind() != ErrorKind::SourceMissing => {
                return Ok(unusable(&name, &error));
            }
            Ok(()) => {
                return Ok(finding(
                    Severity::Error,
                    ErrorKind::Unsupported,
                    "table",
                    format!("`{name}` is a view or a system table"),
                    "a base table",
                    "name the tables that the view reads, or take it out of `tables`",
                ));
            }
            Err(_) => {}
        }
    }
    Ok(without_table(pattern, existing))
}

fn unusable(table: &TableName, error: &Error) -> Finding {
    let mend = "mend the table at the source, or take it out of `tables`";
    finding(
        Severity::Error,
        error.kind(),
        "table",
        format!("`{table}`: {}", error.chain()),
        "a table that can be read",
        error.hint().unwrap_or(mend),
    )
}

fn unreadable(table: &TableName, account: &str) -> Finding {
    finding(
        Severity::Error,
        ErrorKind::SourceDenied,
        "select",
        format!("`{table}` may not be read"),
        format!("SELECT on `{table}`"),
        format!("GRANT SELECT ON {} TO {account}", quote_table(table)),
    )
}

/// The load of an append table begins at a moment at which nobody writes into it.
fn unlockable(table: &TableName, account: &str) -> Finding {
    let database = quote_identifier(&table.database);
    finding(
        Severity::Error,
        ErrorKind::SourceDenied,
        "lock_tables",
        format!("`{table}` may not be locked"),
        "LOCK TABLES on its database: an append table is locked for the moment in which its load begins, unless \
         `snapshot: { allow_locks: false }` is set",
        format!("GRANT LOCK TABLES ON {database}.* TO {account}"),
    )
}

fn keyless(table: &TableName) -> Finding {
    finding(
        Severity::Error,
        ErrorKind::Unsupported,
        "key",
        format!("`{table}` has neither a primary key nor a unique key without nullable columns"),
        "a key, which may be a generated one: without any, equal rows cannot be told apart and only one of them would be \
         kept; or `keyless: append`, which keeps every change as a row, and whose view counts equal rows",
        format!(
            "ALTER TABLE {} ADD COLUMN pipewright_id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY",
            quote_table(table)
        ),
    )
}

/// A table that an online schema change makes for itself, and that a wildcard means too. It is copied like every other,
/// and gone when the tool is done.
fn tool_table(entry: &TableConfig, table: &TableName) -> Option<Finding> {
    let name = table.table.strip_prefix('_')?;
    let tool = ["_gho", "_ghc", "_del", "_new", "_old"]
        .iter()
        .any(|suffix| name.len() > suffix.len() && name.ends_with(suffix));
    (tool && entry.source.is_wildcard()).then(|| {
        finding(
            Severity::Warning,
            ErrorKind::Config,
            "tool_table",
            format!(
                "`{table}` is named as the tables that gh-ost and pt-online-schema-change work with"
            ),
            "tables that stay",
            "start the pipe when the schema change is done, or name its tables one by one",
        )
    })
}

/// The tables whose columns may hold more than a small packet.
pub(super) async fn with_large_columns(
    conn: &mut Conn,
    config: &PipeConfig,
) -> Result<Vec<TableName>> {
    let names: Vec<(String, String)> = conn
        .query(
            "SELECT DISTINCT TABLE_SCHEMA, TABLE_NAME FROM information_schema.COLUMNS WHERE DATA_TYPE IN ('longblob', \
             'longtext', 'json') AND TABLE_SCHEMA NOT IN ('mysql', 'information_schema', 'performance_schema', 'sys')",
        )
        .await
        .map_err(query_error)?;
    Ok(names
        .into_iter()
        .map(|(database, table)| TableName { database, table })
        .filter(|table| {
            config
                .tables
                .iter()
                .any(|entry| entry.source.matches(table))
        })
        .collect())
}

/// The columns that the entry names must be there.
async fn check_columns(
    conn: &mut Conn,
    entry: &TableConfig,
    table: &TableName,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let columns: Vec<String> = conn
        .query(format!(
            "SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {}",
            quote_string(&table.database),
            quote_string(&table.table)
        ))
        .await
        .map_err(query_error)?;
    let named = entry
        .exclude_columns
        .iter()
        .map(|column| ("exclude_columns", column))
        .chain(entry.split_by.iter().map(|column| ("split_by", column)))
        .chain(entry.columns.keys().map(|column| ("columns", column)));
    for (key, name) in named {
        if !columns
            .iter()
            .any(|column| column.to_lowercase() == name.to_lowercase())
        {
            findings.push(finding(
                Severity::Error,
                ErrorKind::SourceMissing,
                key,
                format!("`{table}` has no column `{name}`"),
                "an existing column",
                format!("mend `{key}` of `{table}`"),
            ));
        }
    }
    Ok(())
}

async fn check_cascades(
    conn: &mut Conn,
    config: &PipeConfig,
    tables: &BTreeSet<TableName>,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let found = unlogged_cascades(conn, tables).await?;
    for (table, cascades) in found
        .cascades
        .into_iter()
        .filter(|(table, _)| tables.contains(table))
    {
        let followed = |cascade: Cascade| {
            let carried = tables.contains(&cascade.parent);
            cascade_of(&table, &cascade, config, carried)
        };
        findings.extend(cascades.into_iter().filter_map(followed));
    }
    Ok(())
}

/// A foreign key to a parent that the pipe carries or not. With `cascades: reload` a change of one that it carries has the
/// child loaded again.
fn cascade_of(
    table: &TableName,
    cascade: &Cascade,
    config: &PipeConfig,
    carried: bool,
) -> Option<Finding> {
    let Cascade {
        parent,
        on_delete,
        on_update,
        columns: _,
    } = cascade;
    let first = match (config.mode, config.cascades) {
        // Which loads nothing.
        (Mode::CdcOnly, _) => String::new(),
        (_, Cascades::Reload) if carried => return None,
        (_, Cascades::Reload) => format!("take `{parent}` into the pipe; or "),
        (_, Cascades::Warn) => {
            "set `cascades: reload`, with both tables in the pipe; or ".to_owned()
        }
    };
    let events = match (on_delete, on_update) {
        (true, true) => "DELETE and UPDATE",
        (true, false) => "DELETE",
        (false, _) => "UPDATE",
    };
    Some(finding(
        Severity::Warning,
        ErrorKind::SourceSetting,
        "foreign_key_cascade",
        format!("rows of `{table}` follow every {events} of `{parent}` by a foreign key"),
        "no cascading foreign key: what InnoDB changes for it is written to no binlog",
        format!(
            "{first}let the application or triggers change the child rows; or resync the table after such changes"
        ),
    ))
}

/// What goes through a table of the engine MERGE is logged as rows of that one.
async fn check_merges(
    conn: &mut Conn,
    tables: &BTreeSet<TableName>,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let merges: Vec<(String, String)> = conn
        .query(format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES \
             WHERE ENGINE = 'MRG_MYISAM' AND TABLE_SCHEMA NOT IN ({SYSTEM_DATABASES})"
        ))
        .await
        .map_err(query_error)?;
    for (database, table) in merges {
        let merge = TableName { database, table };
        // One that fits its tables no more cannot be written through, nor shown.
        let shown = ask(conn, &format!("SHOW CREATE TABLE {}", quote_table(&merge))).await?;
        let row = shown.unwrap_or_default().into_iter().next();
        let text = row.and_then(|row| row.into_iter().nth(1).flatten());
        for table in merged(&merge.database, &text.unwrap_or_default()) {
            if !tables.contains(&table) {
                continue;
            }
            findings.push(finding(
                Severity::Warning,
                ErrorKind::SourceSetting,
                "merge_table",
                format!("rows of `{table}` can be written through the MERGE table `{merge}`"),
                "no MERGE table over a table of the pipe: the binlog has such changes under the name of the MERGE table",
                "write to the table itself; INSERT_METHOD = NO keeps no UPDATE, DELETE or TRUNCATE from going through the \
                 MERGE table. Or resync the table after such changes",
            ));
        }
    }
    Ok(())
}
