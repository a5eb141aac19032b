//! Copies that gh-ost and pt-online-schema-change make of a table, and put in its place (pitfall 104).
//!
//! The target stays where the copy holds the same rows under the same columns. The catalog alone does not tell that: a column
//! that was dropped and added again looks as before, so do two that exchanged their names, and a CHECK leaves rows out. The
//! tool's own statements on its copy tell, long before it takes the table's place; they are kept until then.

use serde::{Deserialize, Serialize};

use super::super::record::Records;
use super::judge;
use super::kinds::Kinds;
use super::{Stand, Verdict};
use crate::batch::TableName;
use crate::error::Result;
use crate::source::mysql::binlog::Statement;
use crate::source::mysql::binlog::ddl::{Alter, Class, Clause, copied_table};

/// A copy in the making.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copy {
    /// Its name; the database is the table's.
    table: String,
    /// What was done to it since it was created, in order.
    alters: Vec<Alter>,
}

impl Copy {
    /// Its alterations as one; none where they may give rows or columns that those of the table are not.
    fn alter(&self) -> Option<Alter> {
        let tells = |alter: &&Alter| {
            alter
                .clauses
                .iter()
                .any(|clause| *clause != Clause::Nothing)
        };
        let mut telling = self.alters.iter().filter(tells);
        let alter = telling.next().cloned().unwrap_or_default();
        let is_alike = |clause: &Clause| match clause {
            // gh-ost copies a column of another name, or leaves it out, as it was told.
            Clause::Change(from, to, _) => from.to_lowercase() == to.to_lowercase(),
            Clause::Add(..)
            | Clause::Drop(_)
            | Clause::Default(_)
            | Clause::Convert
            | Clause::Key
            | Clause::Engine
            | Clause::Nothing => true,
            Clause::Rename(..)
            | Clause::RenameTable
            | Clause::Constraint
            | Clause::Rows
            | Clause::Discard
            | Clause::GiveOut
            | Clause::TakeIn
            | Clause::Unvalidated
            | Clause::Repair
            | Clause::Unknown => false,
        };
        let alike = !alter.ignore && alter.clauses.iter().all(is_alike);
        (alike && telling.next().is_none()).then_some(alter)
    }
}

/// Takes note of what a statement does to a copy of a table that the stream carries, or to that table while it is copied.
pub(super) fn note(stand: Stand<'_>, draft: &mut Records, statement: &Statement) {
    let carried = |draft: &Records, name: &TableName| {
        stand.track.carries(draft, name) && !stand.passed.contains(name)
    };
    let forget = |draft: &mut Records, name: &TableName| {
        for name in [Some(name.clone()), copied_table(name)]
            .into_iter()
            .flatten()
        {
            if carried(draft, &name) {
                draft.table_mut(&name).copy = None;
            }
        }
    };
    match &statement.class {
        // With IF NOT EXISTS an older one may stand there.
        Class::CreateTable {
            table: copy,
            keeps: false,
            ..
        } => {
            let of = copied_table(copy).filter(|name| carried(draft, name));
            if let Some(name) = of {
                draft.table_mut(&name).copy = Some(Copy {
                    table: copy.table.clone(),
                    alters: Vec::new(),
                });
            }
        }
        // Rows that the tool copied before are none of the table's any more, or a copy lacks them.
        Class::Truncate(name) => forget(draft, name),
        Class::AlterTable { table: copy, alter } => {
            let changes = |clause: &Clause| *clause != Clause::Nothing;
            if carried(draft, copy) && alter.clauses.iter().any(changes) {
                draft.table_mut(copy).copy = None;
            }
            let of = copied_table(copy).filter(|name| carried(draft, name));
            let Some(name) = of else {
                return;
            };
            if let Some(known) = &mut draft.table_mut(&name).copy
                && known.table == copy.table
            {
                known.alters.push(alter.clone());
            }
        }
        Class::RenameTable(pairs) => {
            for (_, name) in pairs {
                if carried(draft, name) {
                    draft.table_mut(name).copy = None;
                }
            }
        }
        _ => {}
    }
}

/// What it leads to that the copy `holder` takes the place of a table. The tool has copied every row, and its changes came
/// under the old name.
pub(super) async fn in_place(
    stand: Stand<'_>,
    name: &TableName,
    holder: &TableName,
    statement: &Statement,
) -> Result<Verdict> {
    let records = stand.store.records();
    let copy = records
        .tables
        .get(name)
        .and_then(|table| table.copy.as_ref());
    let known = copy.filter(|copy| copy.table == holder.table);
    match known.and_then(Copy::alter) {
        Some(alter) => judge::copied(stand, name, &alter, statement).await,
        None => {
            let alters = known.into_iter().flat_map(|copy| &copy.alters);
            let kinds = Kinds::of_clauses(&stand.session.table(name), alters);
            kinds.accept(stand, name, statement).await?;
            Ok(Verdict::Reload(format!(
                "`{holder}` has its name, and may have other rows or columns"
            )))
        }
    }
}

/// Whether the RENAME is a cut-over of one of the tools, by the names that they give to the table that they put in the place
/// of another and to the one that they put aside with it. gh-ost may name the latter after a time.
pub(in crate::pipe) fn is_ghost(
    pairs: &[(TableName, TableName)],
    holder: &TableName,
    name: &TableName,
) -> bool {
    if copied_table(holder).as_ref() != Some(name) {
        return false;
    }
    let by_gh_ost = holder.table.ends_with("_gho");
    let is_empty_or_time = |middle: &str| match middle.strip_prefix('_') {
        Some(time) => time.bytes().all(|byte| byte.is_ascii_digit()),
        None => middle.is_empty(),
    };
    let is_put_aside = |aside: &TableName| {
        let bare = aside.table.trim_start_matches('_');
        let marked = aside.database == name.database && bare.len() < aside.table.len();
        let rest = bare.strip_prefix(&name.table).filter(|_| marked);
        match by_gh_ost {
            true => rest
                .and_then(|rest| rest.strip_suffix("_del"))
                .is_some_and(is_empty_or_time),
            false => rest == Some("_old"),
        }
    };
    let mut aside = pairs.iter().filter(|(from, _)| from == name);
    aside.any(|(_, aside)| is_put_aside(aside))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_cut_over(holder: &str, aside: &str) -> bool {
        let [holder, aside] = [holder, aside].map(|name| match name.split_once('.') {
            Some((database, name)) => TableName::new(database, name),
            None => TableName::new("s", name),
        });
        let name = TableName::new("s", "t");
        let pairs = [(name.clone(), aside), (holder.clone(), name.clone())];
        is_ghost(&pairs, &holder, &name)
    }

    #[test]
    fn a_cut_over_is_told_by_the_copys_name_and_that_of_the_table_put_aside() {
        for (holder, aside) in [
            ("_t_gho", "_t_del"),
            ("_t_gho", "_t_20261129093000_del"),
            ("_t_new", "_t_old"),
            ("__t_new", "__t_old"),
        ] {
            assert!(is_cut_over(holder, aside), "{holder}, {aside}");
        }
        for (holder, aside) in [
            ("_t_gho", "_t_old"),
            ("_t_gho", "_t_soon_del"),
            ("_t_gho", "t_del"),
            ("_t_gho", "other._t_del"),
            ("_t_new", "_t_del"),
            ("_t_new", "_t_1_old"),
            ("t_new", "_t_old"),
            ("_u_new", "_t_old"),
            ("other._t_new", "_t_old"),
        ] {
            assert!(!is_cut_over(holder, aside), "{holder}, {aside}");
        }
    }
}
