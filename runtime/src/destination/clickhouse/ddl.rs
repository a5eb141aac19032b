//! Every statement that we send, and the only place that puts one together. Names are always quoted.

use super::append;
use super::tables::{ExistingColumn, Owner};
use super::target::{TargetColumn, TargetTable};
use crate::batch::Version;
use crate::config::Engine;

/// The column that says when ClickHouse took a row.
pub(super) const SYNCED_AT_TYPE: &str = "DateTime64(6, 'UTC')";
pub(super) const SYNCED_AT_DEFAULT: &str = "now64(6)";

/// A name in backticks, whatever it contains.
pub(super) fn ident(name: &str) -> String {
    let mut quoted = String::with_capacity(name.len() + 2);
    quoted.push('`');
    for c in name.chars() {
        if matches!(c, '\\' | '`') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('`');
    quoted
}

/// A string literal, whatever it contains.
pub(super) fn text(value: &str) -> String {
    let mut quoted = String::with_capacity(value.len() + 2);
    quoted.push('\'');
    for c in value.chars() {
        if matches!(c, '\\' | '\'') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('\'');
    quoted
}

/// A string literal as ClickHouse prints it in the name of a type: control characters escaped too.
pub(super) fn printed_text(value: &str) -> String {
    let mut quoted = String::with_capacity(value.len() + 2);
    quoted.push('\'');
    for c in value.chars() {
        let escaped = match c {
            '\\' | '\'' => c,
            '\u{8}' => 'b',
            '\u{c}' => 'f',
            '\n' => 'n',
            '\r' => 'r',
            '\t' => 't',
            '\0' => '0',
            plain => {
                quoted.push(plain);
                continue;
            }
        };
        quoted.push('\\');
        quoted.push(escaped);
    }
    quoted.push('\'');
    quoted
}

/// `database`.`name`.
pub(super) fn qualified(database: &str, name: &str) -> String {
    format!("{}.{}", ident(database), ident(name))
}

pub(super) fn table(target: &TargetTable) -> String {
    qualified(target.database(), target.name())
}

pub(super) fn idents<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(ident).collect::<Vec<_>>().join(", ")
}

pub(super) fn source_columns(target: &TargetTable) -> String {
    idents(target.columns().iter().map(|column| column.name.as_str()))
}

fn comment(owner: Option<&Owner>) -> String {
    owner
        .map(|owner| format!("\nCOMMENT {}", text(&owner.to_string())))
        .unwrap_or_default()
}

pub(super) fn create_database(database: &str) -> String {
    format!(
        "CREATE DATABASE IF NOT EXISTS {} ENGINE = Atomic",
        ident(database)
    )
}

/// The fsync settings are the table's own, so that every insert into it is on disk before it is answered, whoever
/// inserts. `clean_deleted_rows` and clean-up merges stay off: they forget tombstones, and a late older row would live.
pub(super) fn create_table(target: &TargetTable, owner: Option<&Owner>) -> String {
    let system = target.system_columns();
    let mut lines: Vec<String> = target.columns().iter().map(column_line).collect();
    let version = ident(&system.version);
    lines.push(format!("{version} UInt64"));
    let mut key: Vec<String> = target.key_names().into_iter().map(ident).collect();
    let engine = match target.engine() {
        Engine::Replacing => {
            let deleted = ident(&system.deleted);
            lines.push(format!("{deleted} UInt8"));
            format!("ReplacingMergeTree({version}, {deleted})")
        }
        Engine::Append => {
            lines.push(format!("{} {}", ident(append::OP), append::OP_TYPE));
            key.push(version.clone());
            "MergeTree".to_owned()
        }
    };
    lines.push(format!(
        "{} {SYNCED_AT_TYPE} DEFAULT {SYNCED_AT_DEFAULT}",
        ident(&system.synced_at)
    ));
    if target.is_append() {
        lines.push(append::version_index(&version));
    }
    let partition = target
        .partition_by()
        .map(|expression| format!("\nPARTITION BY {expression}"))
        .unwrap_or_default();
    format!(
        "CREATE TABLE IF NOT EXISTS {}\n(\n    {}\n)\nENGINE = {engine}{partition}\nORDER BY ({}){}{}",
        table(target),
        lines.join(",\n    "),
        key.join(", "),
        table_settings(target),
        comment(owner),
    )
}

fn table_settings(target: &TargetTable) -> String {
    let settings = settings(target.is_fsync());
    let window = || format!("{} = {}", append::WINDOW, append::WINDOW_BLOCKS);
    match (target.engine(), settings) {
        (Engine::Replacing, settings) => settings.to_owned(),
        (Engine::Append, "") => format!("\nSETTINGS {}", window()),
        (Engine::Append, settings) => format!("{settings}, {}", window()),
    }
}

pub(super) fn settings(fsync: bool) -> &'static str {
    if fsync {
        "\nSETTINGS fsync_after_insert = 1, fsync_part_directory = 1"
    } else {
        ""
    }
}

fn column_line(column: &TargetColumn) -> String {
    let fill = column
        .fill
        .as_ref()
        .map(|fill| format!(" DEFAULT CAST({}, {})", text(fill), text(&column.sql_type)))
        .unwrap_or_default();
    format!("{} {}{fill}", ident(&column.name), column.sql_type)
}

/// The source's columns and rows as they stand. The setting is pinned because with 1 in a user's profile FINAL would
/// not compare across partitions.
pub(super) fn create_view(target: &TargetTable, owner: Option<&Owner>) -> String {
    let rows = match target.engine() {
        Engine::Replacing => format!(
            "SELECT {}\nFROM {} FINAL\nWHERE {} = 0\nSETTINGS do_not_merge_across_partitions_select_final = 0",
            source_columns(target),
            table(target),
            ident(&target.system_columns().deleted),
        ),
        Engine::Append => append::current(target, None),
    };
    format!(
        "CREATE OR REPLACE VIEW {} AS\n{rows}{}",
        qualified(target.database(), &target.view_name()),
        comment(owner),
    )
}

pub(super) fn exchange(database: &str, one: &str, other: &str) -> String {
    format!(
        "EXCHANGE TABLES {} AND {}",
        qualified(database, one),
        qualified(database, other)
    )
}

pub(super) fn rename(database: &str, from: &str, to: &str) -> String {
    format!(
        "RENAME TABLE {} TO {}",
        qualified(database, from),
        qualified(database, to)
    )
}

pub(super) fn drop_table(database: &str, name: &str) -> String {
    format!("DROP TABLE IF EXISTS {} SYNC", qualified(database, name))
}

/// The same however large the table is; servers refuse above 50 GB by default (error 359).
pub(super) fn drop_any_size(database: &str, name: &str) -> String {
    let drop = drop_table(database, name);
    format!("{drop} SETTINGS max_table_size_to_drop = 0")
}

/// Ends the queries whose ids begin so, and waits until they have gone.
pub(super) fn kill_queries(prefix: &str) -> String {
    format!(
        "KILL QUERY WHERE startsWith(query_id, {}) SYNC",
        text(prefix)
    )
}

pub(super) fn set_comment(database: &str, name: &str, comment: &str) -> String {
    format!(
        "ALTER TABLE {} MODIFY COMMENT {}",
        qualified(database, name),
        text(comment)
    )
}

/// Adds columns of `target` in one statement, where they stand in it. None when there are none.
pub(super) fn add_columns(target: &TargetTable, added: &[&TargetColumn]) -> Option<String> {
    let mut previous: Option<&TargetColumn> = None;
    let mut actions = Vec::new();
    for column in target.columns() {
        if added.iter().any(|added| added.name == column.name) {
            let place = previous
                .map(|previous| format!("AFTER {}", ident(&previous.name)))
                .unwrap_or_else(|| "FIRST".to_owned());
            actions.push(format!(
                "ADD COLUMN IF NOT EXISTS {} {place}",
                column_line(column)
            ));
        }
        previous = Some(column);
    }
    (!actions.is_empty()).then(|| {
        format!(
            "ALTER TABLE {}\n    {}",
            table(target),
            actions.join(",\n    ")
        )
    })
}

pub(super) fn rename_column(target: &TargetTable, from: &str, to: &str) -> String {
    format!(
        "ALTER TABLE {} RENAME COLUMN {} TO {}",
        table(target),
        ident(from),
        ident(to)
    )
}

/// One text for what the columns hold in the rows that count. NULL adds nothing to a sum, which is NULL itself where there
/// is nothing else; any value does.
pub(super) fn held_in(target: &TargetTable, columns: &[&str]) -> String {
    let sums: String = columns
        .iter()
        .map(|column| {
            format!(
                ", ':', ifNull(sum(cityHash64(toString({}))), 0)",
                ident(column)
            )
        })
        .collect();
    let rows = match target.engine() {
        Engine::Replacing => " FINAL\nSETTINGS do_not_merge_across_partitions_select_final = 0",
        Engine::Append => "",
    };
    format!(
        "SELECT concat(toString(count()){sums}) AS held\nFROM {}{rows}",
        table(target)
    )
}

pub(super) fn drop_column(target: &TargetTable, name: &str) -> String {
    format!(
        "ALTER TABLE {} DROP COLUMN IF EXISTS {}",
        table(target),
        ident(name)
    )
}

/// Gives a column, which stands as `existing`, another type. Parts from before it was added do not have it: what is read for
/// it there is the default, which of a type that takes NULL is NULL by itself.
pub(super) fn modify_column(
    target: &TargetTable,
    name: &str,
    sql_type: &str,
    existing: Option<&ExistingColumn>,
) -> String {
    let takes_null = |sql_type: &str| sql_type.contains("Nullable(");
    let plain = existing.filter(|existing| {
        existing.default_kind.is_empty()
            && takes_null(sql_type)
            && !takes_null(&existing.column_type)
    });
    let fill = plain
        .map(|existing| {
            let before = text(&existing.column_type);
            format!(" DEFAULT {FILL}{before})")
        })
        .unwrap_or_default();
    format!(
        "ALTER TABLE {} MODIFY COLUMN {} {sql_type}{fill}",
        table(target),
        ident(name)
    )
}

/// How the default begins that [`modify_column`] gives.
const FILL: &str = "defaultValueOfTypeName(";

/// Whether the column has a default for what parts from before it lack, and for nothing else.
pub(super) fn is_filled(column: &ExistingColumn) -> bool {
    column.default_kind == "DEFAULT" && column.default_expression.starts_with(FILL)
}

pub(super) fn drop_view(database: &str, name: &str) -> String {
    format!("DROP VIEW IF EXISTS {} SYNC", qualified(database, name))
}

/// A table of the same columns, engine and key.
pub(super) fn create_like(target: &TargetTable, name: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {} AS {}",
        qualified(target.database(), name),
        table(target)
    )
}

/// Every row that lives below `version`, with the values of `columns`, ours among them. A repetition writes equal rows of
/// equal versions.
pub(super) fn copy_below(
    target: &TargetTable,
    name: &str,
    columns: &str,
    version: Version,
) -> String {
    let system = target.system_columns();
    let (ours, deleted) = (ident(&system.version), ident(&system.deleted));
    let version = version.get();
    format!(
        "INSERT INTO {} ({columns})\nSELECT {columns}\n\
         FROM {} FINAL\nWHERE {ours} < toUInt64({version}) AND {deleted} = 0\n\
         SETTINGS do_not_merge_across_partitions_select_final = 0",
        qualified(target.database(), name),
        table(target),
    )
}

/// The insert of an Arrow stream. The explicit column list makes an unknown name an error, which the Arrow reader alone
/// would pass over in silence (trap 7). `_synced_at` is the server's to fill.
pub(super) fn insert(target: &TargetTable, with_system: bool, claim: Option<&str>) -> String {
    let system = target.system_columns();
    let what = match target.engine() {
        Engine::Replacing => system.deleted.as_str(),
        Engine::Append => append::OP,
    };
    let ours = [system.version.as_str(), what];
    let ours = if with_system { &ours[..] } else { &[] };
    let columns = target.columns().iter().map(|column| column.name.as_str());
    let columns = idents(columns.chain(ours.iter().copied()));
    // `input()` has the types of the target's columns.
    let checked = claim.map(|claim| format!(" SELECT {columns} FROM input() WHERE {claim}"));
    format!(
        "INSERT INTO {} ({columns}){} FORMAT ArrowStream",
        table(target),
        checked.unwrap_or_default()
    )
}

/// A tombstone of `version` for every row that lives below it. What it wrote is at `version`, not below, so that a
/// repetition writes nothing; `_version` is qualified, since an alias of that name would stand for the new value.
pub(super) fn tombstone_below(target: &TargetTable, version: Version) -> String {
    if target.is_append() {
        return append::delete_below(target, version);
    }
    let system = target.system_columns();
    let columns = source_columns(target);
    let (ours, deleted) = (ident(&system.version), ident(&system.deleted));
    let version = version.get();
    let qualified = target
        .columns()
        .iter()
        .map(|column| format!("live.{}", ident(&column.name)))
        .collect::<Vec<_>>()
        .join(", ");
    format!(
        "INSERT INTO {table} ({columns}, {ours}, {deleted})\nSELECT {qualified}, toUInt64({version}), toUInt8(1)\n\
         FROM {table} AS live FINAL\nWHERE live.{ours} < toUInt64({version}) AND live.{deleted} = 0\n\
         SETTINGS do_not_merge_across_partitions_select_final = 0",
        table = table(target),
    )
}

pub(super) fn highest_version(target: &TargetTable) -> String {
    format!(
        "SELECT max({}) AS highest FROM {}",
        ident(&target.system_columns().version),
        table(target)
    )
}

pub(super) fn server_facts() -> &'static str {
    "SELECT version() AS version, \
     (SELECT count() FROM system.settings WHERE name = 'enable_time_time64_type') AS time64, \
     (SELECT count() FROM system.settings WHERE name = 'max_table_size_to_drop') AS drops_any_size"
}

pub(super) fn database_engine(database: &str) -> String {
    format!(
        "SELECT engine FROM system.databases WHERE name = {}",
        text(database)
    )
}

pub(super) fn describe_tables(database: &str, names: &[&str]) -> String {
    format!(
        "SELECT name, toString(uuid) AS uuid, engine, engine_full, sorting_key, partition_key, comment, total_rows\n\
         FROM system.tables WHERE database = {} AND name IN ({})",
        text(database),
        texts(names)
    )
}

pub(super) fn describe_columns(database: &str, names: &[&str]) -> String {
    format!(
        "SELECT table AS of_table, name, type AS column_type, default_kind, default_expression FROM system.columns\n\
         WHERE database = {} AND table IN ({}) ORDER BY table, position",
        text(database),
        texts(names)
    )
}

fn texts(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| text(name)).collect();
    names.join(", ")
}

pub(super) fn any_row(database: &str, name: &str) -> String {
    format!("SELECT 1 AS one FROM {} LIMIT 1", qualified(database, name))
}

/// Answers 1 or 0. `privilege` and `object` are made of our own words and quoted names.
pub(super) fn check_grant(privilege: &str, object: &str) -> String {
    format!("CHECK GRANT {privilege} ON {object}")
}

pub(super) fn readonly() -> &'static str {
    "SELECT toUInt8(value) AS readonly FROM system.settings WHERE name = 'readonly'"
}

/// The values of settings, and what the account may not make of them.
pub(super) fn settings_of_account<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(text).collect();
    format!(
        "SELECT name, value, readonly AS fixed, min AS least, max AS most FROM system.settings WHERE name IN ({})",
        names.join(", ")
    )
}

/// Each interval of the account's own quota.
pub(super) fn quotas_of_account() -> &'static str {
    "SELECT quota_name AS name, toUInt64(ifNull(duration, 0)) AS seconds, max_queries AS queries, \
     max_query_inserts AS query_inserts, max_errors AS errors, max_written_bytes AS written_bytes, \
     max_execution_time AS execution_time FROM system.quota_usage"
}

pub(super) fn disks() -> &'static str {
    "SELECT name, unreserved_space AS free FROM system.disks WHERE total_space > 0"
}

/// What a replicated table says of itself.
pub(super) fn replica(target: &TargetTable) -> String {
    format!(
        "SELECT is_readonly AS readonly FROM system.replicas WHERE database = {} AND table = {}",
        text(target.database()),
        text(target.name())
    )
}

/// Evaluates the partition expression on no row, so that a wrong one is found before anything is created.
pub(super) fn probe_partition(target: &TargetTable, expression: &str) -> String {
    let columns = target
        .columns()
        .iter()
        .enumerate()
        .filter(|(index, _)| target.is_append() || target.key_columns().contains(index))
        .map(|(_, column)| {
            format!(
                "defaultValueOfTypeName({}) AS {}",
                text(&column.sql_type),
                ident(&column.name)
            )
        })
        .collect::<Vec<_>>()
        .join(", ");
    format!("SELECT ({expression}) AS parted FROM (SELECT {columns}) LIMIT 0")
}

/// One row a claim or checkpoint; `written_at` is for people, not for order.
pub(super) fn create_checkpoints(database: &str, name: &str, fsync: bool) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {}\n(\n    pipe String,\n    term UInt16,\n    owner String,\n    \
         stream_offset UInt64,\n    position String,\n    kind LowCardinality(String),\n    \
         source_committed_at Nullable(DateTime64(6, 'UTC')),\n    {COMPLETE},\n    \
         written_at DateTime64(6, 'UTC') DEFAULT now64(6)\n)\n\
         ENGINE = ReplacingMergeTree(stream_offset)\nORDER BY (pipe, term, owner){}\n\
         COMMENT 'pipewright: where each pipe stands'",
        qualified(database, name),
        settings(fsync),
    )
}

/// The column that tells up to where each target is complete: by name, and by the empty name for all others.
const COMPLETE: &str = "complete Map(String, String)";

/// Whether the checkpoints stand, and stand as a build made them that kept no such column.
pub(super) fn lacks_complete(database: &str, name: &str) -> String {
    format!(
        "SELECT count() > 0 AND countIf(name = 'complete') = 0 AS lacks FROM system.columns\n\
         WHERE database = {} AND table = {}",
        text(database),
        text(name)
    )
}

pub(super) fn add_complete(database: &str, name: &str) -> String {
    format!(
        "ALTER TABLE {} ADD COLUMN IF NOT EXISTS {COMPLETE} AFTER source_committed_at",
        qualified(database, name)
    )
}

pub(super) fn insert_checkpoint(database: &str, name: &str) -> String {
    format!(
        "INSERT INTO {} (pipe, term, owner, stream_offset, position, kind, source_committed_at, complete)\n\
         FORMAT JSONEachRow",
        qualified(database, name)
    )
}

/// The highest place that the pipe has reached, a loser's claim standing below the winner's checkpoints.
pub(super) fn highest_checkpoint(database: &str, name: &str, pipe: &str) -> String {
    format!(
        "SELECT term, stream_offset AS offset, position, owner, toUnixTimestamp64Micro(written_at) AS written_at\n\
         FROM {} FINAL WHERE pipe = {}\n\
         ORDER BY term DESC, stream_offset DESC, kind = 'checkpoint' DESC, owner DESC LIMIT 1",
        qualified(database, name),
        text(pipe)
    )
}

/// Where each claimant of a term above `term` stands.
pub(super) fn checkpoints_above(database: &str, name: &str, pipe: &str, term: u16) -> String {
    format!(
        "SELECT stream_offset AS offset, position FROM {} FINAL WHERE pipe = {} AND term > {term}",
        qualified(database, name),
        text(pipe)
    )
}

/// Who else stands at `term` or above it, and whether our own row is there.
pub(super) fn rivals(database: &str, name: &str, pipe: &str, term: u16, owner: &str) -> String {
    let ours = format!("(term = {term} AND owner = {})", text(owner));
    format!(
        "SELECT countIf(NOT {ours}) AS rivals, countIf({ours}) AS ours FROM {} WHERE pipe = {} AND term >= {term}",
        qualified(database, name),
        text(pipe),
    )
}

pub(super) fn highest_term(database: &str, name: &str, pipe: &str) -> String {
    format!(
        "SELECT max(term) AS term FROM {} WHERE pipe = {}",
        qualified(database, name),
        text(pipe)
    )
}

/// A condition of a statement that writes: it is looked at once, as the statement begins, and ends it when `pipe` is
/// claimed above `term`.
pub(super) fn claim_stands(database: &str, name: &str, pipe: &str, term: u16) -> String {
    format!(
        "(SELECT throwIf(max(term) > {term}) FROM {} WHERE pipe = {}) = 0",
        qualified(database, name),
        text(pipe)
    )
}

#[cfg(test)]
#[path = "ddl_tests.rs"]
mod tests;
