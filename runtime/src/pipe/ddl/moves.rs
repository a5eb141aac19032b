//! ALTER TABLE that moves whole tables, or rows without row events: what it leads to stands in its text alone.

use super::Fate;
use crate::batch::TableName;
use crate::source::mysql::binlog::ddl::{Alter, Clause};

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
