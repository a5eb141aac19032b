//! The writes that make of one set of records another.

use std::collections::BTreeMap;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use serde::Serialize;

use super::keys::{self, applied_key, part_key, pipe_key, prepared_key};
use super::record::Records;
use crate::batch::TableName;
use crate::error::Result;
use crate::state::Write;

/// One write, with its key, for each record of `pipe` that the draft changed. Only finished partitions are ever removed,
/// those of a load that is begun again, and prepared transactions; of a pipe that is dropped everything goes.
///
/// # Errors
/// `Internal` for a record that has no JSON.
pub(super) fn difference(
    pipe: &str,
    revisions: &BTreeMap<String, i64>,
    before: &Records,
    draft: &Records,
) -> Result<Vec<(String, Write)>> {
    let mut difference = Difference {
        pipe,
        revisions,
        writes: Vec::new(),
    };
    if draft.dropped {
        difference.everything_goes(draft)?;
        return Ok(difference.writes);
    }
    difference.pipe(before, draft)?;
    difference.tables(before, draft)?;
    difference.partitions(before, draft)?;
    difference.prepared(before, draft)?;
    difference.counts(before, draft)?;
    Ok(difference.writes)
}

struct Difference<'a> {
    pipe: &'a str,
    revisions: &'a BTreeMap<String, i64>,
    writes: Vec<(String, Write)>,
}

impl Difference<'_> {
    fn put(&mut self, key: String, value: &impl Serialize) -> Result<()> {
        let expected = self.revisions.get(&key).copied().unwrap_or(0);
        let write = Write::put(key.clone(), value, expected)?;
        self.writes.push((key, write));
        Ok(())
    }

    fn delete(&mut self, key: String) {
        let expected = self.revisions.get(&key).copied().unwrap_or(0);
        self.writes
            .push((key.clone(), Write::delete(key, expected)));
    }

    fn everything_goes(&mut self, draft: &Records) -> Result<()> {
        for key in self.revisions.keys() {
            self.delete(key.clone());
        }
        match draft.left.as_deref() {
            Some(left) => self.put(left.key(), left),
            None => Ok(()),
        }
    }

    fn pipe(&mut self, before: &Records, draft: &Records) -> Result<()> {
        if let Some(record) = &draft.pipe
            && before.pipe.as_ref() != Some(record)
        {
            self.put(pipe_key(self.pipe), record)?;
        }
        if let Some(applied) = &draft.applied
            && before.applied.as_ref() != Some(applied)
        {
            self.put(applied_key(self.pipe), &**applied)?;
        }
        Ok(())
    }

    fn tables(&mut self, before: &Records, draft: &Records) -> Result<()> {
        for (name, table) in changed(&before.tables, &draft.tables) {
            self.put(keys::TABLES.of_table(self.pipe, name), &**table)?;
        }
        Ok(())
    }

    fn partitions(&mut self, before: &Records, draft: &Records) -> Result<()> {
        for (name, parts) in changed(&before.done, &draft.done) {
            let old = before.done.get(name);
            let pipe = self.pipe;
            let key = |part: &u32| part_key(pipe, name, *part);
            for part in parts.iter() {
                if old.is_none_or(|old| !old.contains(part)) {
                    self.put(key(part), &(name, part))?;
                }
            }
            for part in old.iter().flat_map(|old| old.difference(parts)) {
                self.delete(key(part));
            }
        }
        Ok(())
    }

    fn prepared(&mut self, before: &Records, draft: &Records) -> Result<()> {
        for (id, record) in &draft.prepared {
            if before.prepared.get(id) != Some(record) {
                self.put(prepared_key(self.pipe, id), &**record)?;
            }
        }
        for id in before.prepared.keys() {
            if !draft.prepared.contains_key(id) {
                self.delete(prepared_key(self.pipe, id));
            }
        }
        Ok(())
    }

    fn counts(&mut self, before: &Records, draft: &Records) -> Result<()> {
        for (name, rows) in changed(&before.rows, &draft.rows) {
            self.put(keys::ROWS.of_table(self.pipe, name), &(name, rows))?;
        }
        for (name, values) in changed(&before.values, &draft.values) {
            self.put(keys::VALUES.of_table(self.pipe, name), &(name, values))?;
        }
        for (name, faults) in changed(&before.faults, &draft.faults) {
            self.put(keys::FAULTS.of_table(self.pipe, name), &(name, faults))?;
        }
        Ok(())
    }
}

/// What a draft has added or changed. What both share is passed over without a look.
pub(super) fn changed<'a, T: Clone + PartialEq>(
    before: &'a OrdMap<TableName, T>,
    draft: &'a OrdMap<TableName, T>,
) -> impl Iterator<Item = (&'a TableName, &'a T)> {
    before.diff(draft).filter_map(|item| match item {
        DiffItem::Add(name, value) => Some((name, value)),
        DiffItem::Update {
            new: (name, value), ..
        } => Some((name, value)),
        DiffItem::Remove(..) => None,
    })
}
