//! Statements about the table of dead letters.

use super::ddl::{qualified, settings, text};
use super::dead_letters::LetterPlace;
use crate::batch::Version;

/// One row a letter; a replayed one outranks the same letter as it was written.
pub(super) fn create_letters(database: &str, name: &str, fsync: bool) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {}\n(\n    pipe String,\n    table String,\n    load String,\n    version UInt64,\n    key String,\n    \
         op LowCardinality(String),\n    row String,\n    position String,\n    plugin LowCardinality(String),\n    \
         digest String,\n    code LowCardinality(String),\n    reason String,\n    replayed UInt8,\n    \
         at DateTime64(6, 'UTC') DEFAULT now64(6)\n)\n\
         ENGINE = ReplacingMergeTree(replayed)\nORDER BY (pipe, table, load, version, key){}\n\
         COMMENT 'pipewright: rows that plugins could not transform'",
        qualified(database, name),
        settings(fsync),
    )
}

const LETTER_COLUMNS: &str =
    "pipe, table, load, version, key, op, row, position, plugin, digest, code, reason";

pub(super) fn insert_letters(database: &str, name: &str) -> String {
    format!(
        "INSERT INTO {} ({LETTER_COLUMNS}, replayed) FORMAT JSONEachRow",
        qualified(database, name)
    )
}

/// The letters of one load of a table.
#[derive(Clone, Copy)]
pub(super) struct Letters<'a> {
    pub(super) pipe: &'a str,
    pub(super) table: &'a str,
    pub(super) load: &'a str,
}

/// Writes those below `version` again as replayed. No alias: it would take the column's place in the condition.
pub(super) fn close_letters(
    database: &str,
    name: &str,
    letters: Letters<'_>,
    version: Version,
) -> String {
    let name = qualified(database, name);
    format!(
        "INSERT INTO {name} ({LETTER_COLUMNS}, replayed) SELECT {LETTER_COLUMNS}, 1 FROM {name} FINAL\n\
         WHERE pipe = {} AND table = {} AND load = {} AND version < {} AND replayed = 0",
        text(letters.pipe),
        text(letters.table),
        text(letters.load),
        version.get(),
    )
}

/// What is asked of open letters.
#[derive(Clone, Copy)]
pub(super) enum Asked {
    /// How large each is.
    Size,
    /// All of it.
    Whole,
}

/// Open letters of a pipe's tables, each given with its load, behind a place.
#[derive(Clone, Copy)]
pub(super) struct Open<'a> {
    pub(super) pipe: &'a str,
    pub(super) loads: &'a [&'a (String, String)],
    pub(super) after: Option<&'a LetterPlace>,
}

/// The first of them. The place is compared part by part, by which the server passes over what it need not read.
pub(super) fn select_letters(
    asked: Asked,
    database: &str,
    name: &str,
    Open { pipe, loads, after }: Open<'_>,
    limit: u64,
) -> String {
    let what = match asked {
        Asked::Size => "length(key) + length(row) + length(reason) AS bytes".to_owned(),
        Asked::Whole => format!("{LETTER_COLUMNS}, replayed"),
    };
    let behind = after.map_or_else(String::new, |after| {
        let (table, version, key) = (text(after.table()), after.version(), text(after.key()));
        let same = format!("version > {version} OR (version = {version} AND key > {key})");
        format!(" AND (table > {table} OR (table = {table} AND ({same})))")
    });
    let loads: Vec<String> = loads
        .iter()
        .map(|(table, load)| format!("({}, {})", text(table), text(load)))
        .collect();
    format!(
        "SELECT {what}\nFROM {} FINAL WHERE pipe = {} AND (table, load) IN ({}){behind} AND replayed = 0\n\
         ORDER BY table, version, key LIMIT {limit}",
        qualified(database, name),
        text(pipe),
        loads.join(", "),
    )
}
