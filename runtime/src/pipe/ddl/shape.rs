//! Which column of before an ALTER is which column of after.
//!
//! The catalog shows a table as it is now, and a statement of the binlog lies in the past: others may have followed it
//! (pitfall 113). The text of each says which columns came, went and changed names; walked through all of them, the
//! recorded columns must come out as the catalog has them, name by name, or nothing is concluded. A column's definition
//! behind the first statement is then the catalog's, where no later statement gave it another, or the recorded one,
//! where the first gave it none.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::batch::TableSchema;
use crate::source::mysql::binlog::ddl::{Alter, Clause, Place};
use crate::source::mysql::catalog::{SourceColumn, SourceTable, UniqueKey};

/// A table behind a statement.
#[derive(Debug)]
pub(super) struct Shape {
    /// The definition.
    pub(super) table: SourceTable,
    /// For each of its columns the ordinal that it had before; none for a new one.
    pub(super) origins: Vec<Option<usize>>,
}

/// A column on its way through the statements.
#[derive(Clone, Debug)]
struct Slot {
    name: String,
    /// The same through all statements; below the number of recorded columns it is the ordinal there.
    id: usize,
    /// The last statement that gave it a definition, counted from 1; 0 is the record.
    defined_by: usize,
}

/// The columns on their way.
#[derive(Clone, Debug)]
struct Slots {
    slots: Vec<Slot>,
    /// How many columns the record has; a new one has a higher id.
    recorded: usize,
    next_id: usize,
}

/// The number of a statement that stands nowhere: what the column came with is not known any more.
const LOST: usize = usize::MAX;

/// The shape of `before` behind the first statement of `series`, when behind the last it is `now`. None where the text
/// and the catalog do not agree, or a definition is lost.
pub(super) fn behind_first(
    before: &SourceTable,
    series: &[&Alter],
    now: &SourceTable,
) -> Option<Shape> {
    let mut walked = Slots::of(before);
    let mut first = None;
    for (index, alter) in series.iter().enumerate() {
        walked.apply(alter, index + 1)?;
        if index == 0 {
            first = Some(walked.slots.clone());
        }
    }
    let first = first?;
    let Slots {
        slots, recorded, ..
    } = walked;
    let same = |one: &str, other: &str| one.to_lowercase() == other.to_lowercase();
    // The order of columns that one ALTER moved is the server's to tell.
    let agrees = slots.len() == now.columns.len()
        && slots.iter().all(|slot| {
            now.columns
                .iter()
                .any(|column| same(&column.name, &slot.name))
        });
    if !agrees || first.iter().any(|slot| slot.defined_by == LOST) {
        return None;
    }
    let origin = |id: usize| (id < recorded).then_some(id);
    if series.len() == 1 {
        let origins = now.columns.iter().map(|column| {
            let slot = slots.iter().find(|slot| same(&slot.name, &column.name))?;
            origin(slot.id)
        });
        return Some(Shape {
            origins: origins.collect(),
            table: now.clone(),
        });
    }
    let ordered = slots
        .iter()
        .zip(&now.columns)
        .all(|(slot, column)| same(&column.name, &slot.name));
    if !ordered {
        return None;
    }
    let columns = definitions(before, now, &first, &slots)?;
    let key = key_behind_first(before, series, now, &first, &slots)?;
    Some(Shape {
        origins: first.iter().map(|slot| origin(slot.id)).collect(),
        table: SourceTable {
            transactional: engine_behind_first(series, now),
            unique_keys: unique_keys_behind_first(series, now),
            ..build(before, columns, key)?
        },
    })
}

/// The definitions behind the first statement, slot by slot.
fn definitions<'a>(
    before: &'a SourceTable,
    now: &'a SourceTable,
    first: &[Slot],
    slots: &[Slot],
) -> Option<Vec<Definition<'a>>> {
    let same = |one: &str, other: &str| one.to_lowercase() == other.to_lowercase();
    let mut columns = Vec::with_capacity(first.len());
    for slot in first {
        let last = slots.iter().find(|last| last.id == slot.id);
        let definition = match last {
            Some(last) if last.defined_by <= 1 => Definition::of(
                now,
                now.columns
                    .iter()
                    .find(|column| same(&column.name, &last.name))?,
            ),
            _ if slot.defined_by == 0 => Definition::of(before, before.columns.get(slot.id)?),
            _ => return None,
        };
        columns.push(definition.named(&slot.name));
    }
    Some(columns)
}

impl Slots {
    fn of(table: &SourceTable) -> Self {
        let slots = table.columns.iter().enumerate().map(|(id, column)| Slot {
            name: column.name.clone(),
            id,
            defined_by: 0,
        });
        Self {
            slots: slots.collect(),
            recorded: table.columns.len(),
            next_id: table.columns.len(),
        }
    }

    /// One statement's clauses. All of them name columns as they were before it, but for AFTER.
    fn apply(&mut self, alter: &Alter, number: usize) -> Option<()> {
        let old: BTreeMap<String, usize> = self
            .slots
            .iter()
            .map(|slot| (slot.name.to_lowercase(), slot.id))
            .collect();
        let id = |name: &str| old.get(&name.to_lowercase()).copied();
        for clause in &alter.clauses {
            match clause {
                Clause::Add(name, place) => self.add(name, place, number)?,
                Clause::Drop(name) => {
                    if let Some(id) = id(name) {
                        self.slots.retain(|slot| slot.id != id);
                    }
                }
                Clause::Rename(from, to) => {
                    if let Some(id) = id(from) {
                        let index = self.index(id)?;
                        self.slots.get_mut(index)?.name.clone_from(to);
                    }
                }
                Clause::Change(from, to, place) => {
                    if let Some(id) = id(from) {
                        let index = self.index(id)?;
                        let mut slot = self.slots.remove(index);
                        (slot.name, slot.defined_by) = (to.clone(), number);
                        self.put(slot, place, index)?;
                    }
                }
                Clause::Default(name) => self.lose_default(name),
                Clause::Convert => {
                    let slots = self.slots.iter_mut();
                    slots.for_each(|slot| slot.defined_by = number);
                }
                Clause::Key
                | Clause::Constraint
                | Clause::RenameTable
                | Clause::Rows
                | Clause::Discard
                | Clause::GiveOut
                | Clause::TakeIn
                | Clause::Unvalidated
                | Clause::Engine
                | Clause::Repair
                | Clause::Nothing => {}
                Clause::Unknown => return None,
            }
        }
        Some(())
    }

    fn index(&self, id: usize) -> Option<usize> {
        self.slots.iter().position(|slot| slot.id == id)
    }

    fn add(&mut self, name: &str, place: &Place, number: usize) -> Option<()> {
        // IF NOT EXISTS.
        let stands = |slot: &Slot| slot.name.to_lowercase() == name.to_lowercase();
        if self.slots.iter().any(stands) {
            return Some(());
        }
        let slot = Slot {
            name: name.to_owned(),
            id: self.next_id,
            defined_by: number,
        };
        self.next_id += 1;
        self.put(slot, place, self.slots.len())
    }

    /// Rows that were there when a new column came have the default of then, which stands nowhere any more.
    fn lose_default(&mut self, name: &str) {
        let recorded = self.recorded;
        let came = |slot: &&mut Slot| {
            slot.id >= recorded && slot.name.to_lowercase() == name.to_lowercase()
        };
        if let Some(slot) = self.slots.iter_mut().find(came) {
            slot.defined_by = LOST;
        }
    }

    /// Puts a slot where `place` says; at `index` where it says nothing.
    fn put(&mut self, slot: Slot, place: &Place, index: usize) -> Option<()> {
        let at = match place {
            Place::Unsaid => index,
            Place::First => 0,
            Place::After(name) => {
                let same = |other: &Slot| other.name.to_lowercase() == name.to_lowercase();
                self.slots.iter().position(same)? + 1
            }
        };
        self.slots.insert(at, slot);
        Some(())
    }
}

/// The key behind the first statement, by slot. None where more than one statement may have changed it.
fn key_behind_first(
    before: &SourceTable,
    series: &[&Alter],
    now: &SourceTable,
    first: &[Slot],
    last: &[Slot],
) -> Option<(Vec<usize>, bool)> {
    let changes = |alter: &&&Alter| alter.clauses.contains(&Clause::Key);
    let later = series.iter().skip(1).any(|alter| changes(&alter));
    let (table, slots): (&SourceTable, &[Slot]) = match (series.first().filter(changes), later) {
        (Some(_), true) => return None,
        (_, false) => (now, last),
        (None, true) => (before, first),
    };
    let key = table.schema.key.iter().map(|&index| {
        let ordinal = table
            .columns
            .iter()
            .position(|column| column.included == Some(index))?;
        let id = match std::ptr::eq(table, before) {
            true => ordinal,
            false => slots.get(ordinal)?.id,
        };
        first.iter().position(|slot| slot.id == id)
    });
    Some((key.collect::<Option<_>>()?, table.key_is_primary))
}

/// A column with all that belongs to it in its table.
struct Definition<'a> {
    table: &'a SourceTable,
    column: SourceColumn,
    rule_of: String,
}

impl<'a> Definition<'a> {
    fn of(table: &'a SourceTable, column: &SourceColumn) -> Self {
        Self {
            table,
            column: column.clone(),
            rule_of: column.name.clone(),
        }
    }

    fn named(mut self, name: &str) -> Self {
        self.column.name = name.to_owned();
        self
    }
}

fn build(
    before: &SourceTable,
    definitions: Vec<Definition<'_>>,
    (key, key_is_primary): (Vec<usize>, bool),
) -> Option<SourceTable> {
    let mut schema = TableSchema {
        name: before.schema.name.clone(),
        columns: Vec::new(),
        key: Vec::new(),
    };
    let mut columns = Vec::new();
    let mut date_rules = BTreeMap::new();
    let mut keeps_null = BTreeMap::new();
    for Definition {
        table,
        mut column,
        rule_of,
    } in definitions
    {
        if let Some(index) = column.included {
            let mut described = table.schema.columns.get(index)?.clone();
            described.name.clone_from(&column.name);
            column.included = Some(schema.columns.len());
            schema.columns.push(described);
            if let Some(rule) = table.date_rules.get(&rule_of) {
                date_rules.insert(column.name.clone(), *rule);
            }
            if let Some(keeps) = table.keeps_null.get(&rule_of) {
                keeps_null.insert(column.name.clone(), *keeps);
            }
        }
        columns.push(column);
    }
    for slot in key {
        schema.key.push(columns.get(slot)?.included?);
    }
    Some(SourceTable {
        schema: Arc::new(schema),
        columns,
        date_rules,
        keeps_null,
        key_is_primary,
        transactional: None,
        unique_keys: Vec::new(),
    })
}

/// The unique keys: the catalog's, unless a later statement may have changed one or a column of one. Of those none is
/// taken for known, and the last of the statements tells all.
fn unique_keys_behind_first(series: &[&Alter], now: &SourceTable) -> Vec<UniqueKey> {
    let keeps = |clause: &Clause| {
        matches!(
            clause,
            Clause::Add(..)
                | Clause::Default(_)
                | Clause::Engine
                | Clause::Constraint
                | Clause::Repair
                | Clause::Nothing
        )
    };
    let mut later = series.iter().skip(1).flat_map(|alter| &alter.clauses);
    match later.all(keeps) {
        true => now.unique_keys.clone(),
        false => Vec::new(),
    }
}

/// Whether the engine rolls back: the catalog's, unless a later statement has chosen it.
fn engine_behind_first(series: &[&Alter], now: &SourceTable) -> Option<bool> {
    let mut later = series.iter().skip(1);
    match later.any(|alter| alter.clauses.contains(&Clause::Engine)) {
        true => None,
        false => now.transactional,
    }
}

#[cfg(test)]
#[path = "shape_tests.rs"]
mod tests;
