//! ALTER TABLE that moves whole tables, or rows without row events: what it leads to stands in its text alone.

use super::Fate;
use crate::batch::TableName;
use crate::error::{Error, ErrorKind};
use crate::source::mysql::binlog::Statement;
use crate::source::mysql::binlog::ddl::{Alter, Class, Clause};
use crate::source::mysql::sql::quote_table;

/// What the statement leads to for `named`, tables of the pipe that it names, each with the reason. None where it moves
/// nothing.
pub(super) fn moved(
    table: &TableName,
    alter: &Alter,
    named: &[TableName],
) -> Option<Vec<(TableName, Fate, &'static str)>> {
    const ROWS: (Fate, &str) = (Fate::Reload, "rows came or went without row events");
    let has = |clause: Clause| alter.clauses.contains(&clause);
    let (own, other) = if has(Clause::RenameTable) {
        let taken = (Fate::Reload, "another table has its name");
        ((Fate::Gone, "it has another name"), taken)
    } else if has(Clause::TakeIn) {
        let taken = (Fate::Reload, "it has taken in another table's rows");
        (taken, (Fate::Gone, "another table has taken in its rows"))
    } else if has(Clause::GiveOut) {
        (ROWS, (Fate::Reload, "it was made of another table's rows"))
    } else if alter.ignore || has(Clause::Rows) || has(Clause::Discard) {
        (ROWS, ROWS)
    } else {
        return None;
    };
    let of = |name: &TableName| {
        let (fate, why) = if name == table { own } else { other };
        (name.clone(), fate, why)
    };
    Some(named.iter().map(of).collect())
}

/// What is to be said of a load that `statement` leads to. The source shows a row that does not fit its partition in some
/// SELECTs alone, and logs nowhere that it drops it later.
pub(super) fn unvalidated(statement: &Statement, fates: &[(TableName, Fate)]) -> Option<Error> {
    let Class::AlterTable { table, alter } = &statement.class else {
        return None;
    };
    let is_loaded = fates.contains(&(table.clone(), Fate::Reload));
    if !is_loaded || !alter.clauses.contains(&Clause::Unvalidated) {
        return None;
    }
    let what =
        "rows came in WITHOUT VALIDATION: those that do not fit their partition may be left out";
    let hint = format!(
        "run CHECK TABLE {} at the source, which finds such rows; where there are any, mend them and resync the table",
        quote_table(table)
    );
    let warning = Error::new(ErrorKind::Unsupported, what).with_hint(hint);
    Some(warning.with_table(table))
}
