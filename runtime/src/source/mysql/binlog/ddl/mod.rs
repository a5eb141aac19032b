//! What a statement of the binlog does to tables, as far as its text tells.
//!
//! A QUERY event carries text. The stream must know from it whether the statement can touch a replicated table, since a
//! statement that cannot is passed over, and one that is passed over wrongly is silent damage. So the classes err to one
//! side: what is not recognised as harmless is [`Class::Unknown`] and is handed on.
//!
//! A parser of whole statements would read less: sqlparser 0.64 with its MySQL dialect reads 48 of 88 statements as these
//! servers log them. It refuses every clause on partitions, CONVERT, ORDER BY, FORCE, ENGINE, RENAME INDEX, ALTER IGNORE,
//! WAIT, SET STATEMENT and XA, takes MariaDB's `/*M! ... */` for nothing at all, and wants UTF-8. The tokenizer would be
//! needed beside it for all of that, so there is one way of reading alone.

mod clauses;
mod foreign_keys;
mod mentions;
mod merge;
mod statement;
mod text;
mod tokens;

pub use clauses::{Alter, Clause, Place};
pub use foreign_keys::{Cascade, cascades, column_names};
pub(super) use mentions::mentions;
pub use merge::merged;
pub(super) use statement::classify;

use std::collections::BTreeSet;

use super::event::Query;
use super::xa::Xid;
use crate::batch::TableName;

const UTF8MB4_GENERAL_CI: u16 = 45;

/// The table that a copy of that name is made of: gh-ost calls it `_t_gho`, pt-online-schema-change `_t_new`, with more
/// underscores where the name is taken (pitfall 104).
pub fn copied_table(copy: &TableName) -> Option<TableName> {
    let bare = copy.table.trim_start_matches('_');
    let of = bare
        .strip_suffix("_gho")
        .or_else(|| bare.strip_suffix("_new"))?;
    let marked = bare.len() < copy.table.len() && !of.is_empty();
    marked.then(|| TableName::new(copy.database.as_str(), of))
}

/// What a statement does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// Begins, ends or marks a transaction.
    Control(Control),
    /// Cannot touch a table's rows or definition as far as we replicate them: views, routines, users, indexes.
    NoEffect,
    /// TRUNCATE, or the DELETE by which a server says that a MEMORY table is empty since it started (pitfall 95).
    Truncate(TableName),
    /// ALTER TABLE; CREATE UNIQUE INDEX and DROP INDEX are such, since the index may be the key.
    AlterTable {
        /// The table.
        table: TableName,
        /// What becomes of it.
        alter: Alter,
    },
    /// CREATE TABLE; rows may follow in the same group (pitfall 111).
    CreateTable {
        /// The table.
        table: TableName,
        /// MySQL's `CREATE TABLE ... START TRANSACTION`: the group goes on with the rows.
        rows_follow: bool,
        /// IF NOT EXISTS: a table that stands stays as it is.
        keeps: bool,
        /// MariaDB's OR REPLACE: a table that stands is dropped first.
        replaces: bool,
    },
    /// DROP TABLE.
    DropTable(Vec<TableName>),
    /// RENAME TABLE, as (from, to) in the order of their execution (pitfall 103).
    RenameTable(Vec<(TableName, TableName)>),
    /// DROP DATABASE, or CREATE OR REPLACE DATABASE.
    DropDatabase(String),
    /// Row changes in statement form, and what may lead to some (pitfall 66).
    Rows,
    /// Anything else.
    Unknown,
}

/// Transaction control.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// BEGIN, START TRANSACTION.
    Begin,
    /// COMMIT.
    Commit,
    /// ROLLBACK of all.
    Rollback,
    /// SAVEPOINT.
    Savepoint(Vec<u8>),
    /// ROLLBACK TO SAVEPOINT.
    RollbackTo(Vec<u8>),
    /// RELEASE SAVEPOINT.
    Release,
    /// XA START.
    XaStart,
    /// XA END.
    XaEnd,
    /// XA COMMIT of a transaction prepared in an earlier group.
    XaCommit(Xid),
    /// XA ROLLBACK of one.
    XaRollback(Xid),
}

/// A statement's class, and the tables that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Classified {
    /// What it does.
    pub(super) class: Class,
    /// Every table that it names; of row changes those alone that it may write to.
    pub(super) tables: Vec<TableName>,
    /// Of row changes, what stands in front of a parenthesis: functions that it calls are among that.
    pub(super) calls: Vec<Call>,
    /// Of row changes, whatever may be a name: views that it reads are among that.
    pub(super) mentions: BTreeSet<TableName>,
    /// Whether views, triggers and routines, and who sees them, may be others behind it.
    pub(super) changes_objects: bool,
}

/// What stands in front of a parenthesis.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Call {
    /// In the database that is named, or in the session's.
    pub(super) name: TableName,
    /// Whether the database is named.
    pub(super) qualified: bool,
}

/// What the server says of names and text, which an event does not.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Dialect {
    /// `lower_case_table_names = 1`: names are lower case wherever the server keeps them, but not in statements.
    pub(super) lower_case_names: bool,
    /// MySQL, to which MariaDB's executable comments are plain ones.
    pub(super) mysql: bool,
}

/// What a statement that a person wrote would do: in UTF-8, under the server's default mode, in `database`.
pub fn read_statement(database: &str, text: &str) -> (Class, Vec<TableName>) {
    let query = Query {
        database: database.as_bytes(),
        sql_mode: 0,
        client_collation: UTF8MB4_GENERAL_CI,
        text: text.as_bytes(),
    };
    let Classified { class, tables, .. } = classify(&query, Dialect::default());
    (class, tables)
}

/// Whether `text` is exactly one of the statements that frame nearly every transaction; saves tokenizing them.
pub(super) fn frequent_control(query: &Query<'_>) -> Option<Control> {
    match query.text {
        b"BEGIN" => Some(Control::Begin),
        b"COMMIT" => Some(Control::Commit),
        b"ROLLBACK" => Some(Control::Rollback),
        _ => None,
    }
}
