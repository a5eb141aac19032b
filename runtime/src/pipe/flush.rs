//! What a follower gathers until it goes out: one builder a table, and where the last whole transaction ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::follow::Follower;
use super::heal::Silent;
use super::lag::Commit;
use super::prepared::WaitingByXid;
use super::record::RowCounts;
use super::session::LiveTable;
use crate::batch::{Adjustment, ChangeBatch, TableName};
use crate::config::RowImage;
use crate::error::Result;
use crate::source::mysql::binlog::{ChangeBuilder, IncompleteRows, Prepared, RowEvent, RowKind};
use crate::source::mysql::position::{Position, StreamPlace};

/// One table's changes of a flush.
#[derive(Debug)]
pub(super) struct Changed {
    pub(super) table: Arc<LiveTable>,
    pub(super) batch: Option<ChangeBatch>,
    /// Rows that have to be read from the source first.
    pub(super) incomplete: Option<IncompleteRows>,
    pub(super) counts: RowCounts,
    pub(super) silent: Silent,
    /// What policies have changed on the way from the binlog into the batch.
    pub(super) values: Vec<Adjustment>,
}

/// Whole transactions of some time, ready to be applied.
#[derive(Debug)]
pub(super) struct Flush {
    /// One entry for each table with changes.
    pub(super) batches: Vec<Changed>,
    /// Where the last whole transaction ends: the checkpoint once all of this is durable.
    pub(super) end: StreamPlace,
    /// Where the rows reach to: beyond `end` when they are part of a transaction larger than the budget.
    pub(super) sent: StreamPlace,
    /// When the source committed the last transaction before `end`, microseconds since 1970.
    pub(super) committed_at_us: Option<u64>,
    /// The first commit of which rows waited for this flush.
    pub(super) oldest: Option<Commit>,
    /// The last one.
    pub(super) newest: Option<Commit>,
    /// Changes of tables that stand ahead of the stream, whose rows it passed over.
    pub(super) passed: BTreeMap<TableName, Silent>,
    /// XA transactions that wait for their decision at `end`, and are not in the state yet.
    pub(super) prepared: Vec<Prepared>,
    /// Those that were decided before `end` and are in the state, each with the place behind its decision.
    pub(super) decided: Vec<(String, Position)>,
    /// Answered when everything up to `end` is checkpointed.
    pub(super) done: Option<oneshot::Sender<()>>,
}

/// The rows of one table that wait.
struct Gathering {
    table: Arc<LiveTable>,
    builder: ChangeBuilder,
    counts: RowCounts,
    silent: Silent,
    /// How often the kinship had learned when the builder was told what to watch; none before.
    learned: Option<u64>,
}

/// The rows that wait, and since when.
pub(super) struct Open {
    builders: BTreeMap<TableName, Gathering>,
    passed: BTreeMap<TableName, Silent>,
    pub(super) end: StreamPlace,
    committed_at_us: Option<u64>,
    pub(super) oldest: Option<Commit>,
    pub(super) newest: Option<Commit>,
    pub(super) rows: u64,
    /// When the flush becomes due; none while nothing waits.
    pub(super) due: Option<Instant>,
    /// Whether `end` has moved since the last flush.
    pub(super) moved: bool,
    /// XA transactions that are prepared and not decided at `end`.
    pub(super) waiting: WaitingByXid,
    /// Those decided since the last flush.
    pub(super) decided: Vec<(String, Position)>,
}

impl Open {
    /// Nothing gathered, at `end`.
    pub(super) fn new(end: StreamPlace, waiting: WaitingByXid) -> Self {
        Self {
            builders: BTreeMap::new(),
            passed: BTreeMap::new(),
            end,
            committed_at_us: None,
            oldest: None,
            newest: None,
            rows: 0,
            due: None,
            moved: false,
            waiting,
            decided: Vec::new(),
        }
    }

    /// Bytes of the rows that wait, for the flush or for a decision: both leave memory with the flush.
    pub(super) fn byte_count(&self) -> u64 {
        let builders = self.builders.values();
        let gathered: u64 = builders
            .map(|gathering| gathering.builder.byte_count() as u64)
            .sum();
        let prepared = self.waiting.values();
        let undecided: u64 = prepared
            .filter_map(|waiting| waiting.rows.as_ref())
            .map(Prepared::in_memory)
            .sum();
        gathered + undecided
    }

    pub(super) fn moved_to(&mut self, end: StreamPlace, committed_at_us: Option<u64>) {
        self.end = end;
        self.committed_at_us = committed_at_us.or(self.committed_at_us);
        self.moved = true;
    }

    pub(super) fn push(&mut self, follower: &Follower<'_>, event: &RowEvent<'_>) -> Result<()> {
        let name = &event.table.name;
        if !self.builders.contains_key(name) {
            let table = follower.session.table(name);
            let null_as_default = !follower.session.config.nullable;
            let builder = ChangeBuilder::new(
                Arc::clone(&table.source),
                table.key_ordinals.clone(),
                null_as_default,
            )?;
            let builder = match table.chain.is_routing() {
                true => builder.with_both_images(),
                false => builder,
            };
            let builder = match follower.session.config.row_image {
                RowImage::Complete => builder.completing(null_as_default)?,
                RowImage::Refuse => builder,
            };
            let gathering = Gathering {
                table,
                builder,
                counts: RowCounts::default(),
                silent: Silent::default(),
                learned: None,
            };
            self.builders.insert(name.clone(), gathering);
        }
        let gathering = self.builders.get_mut(name).expect("inserted above");
        // A foreign key may come, or a column change its name, while rows wait.
        let learned = Some(follower.kinship.learned());
        if gathering.learned != learned {
            let watched = follower.kinship.followed_columns(&gathering.table.source);
            gathering.builder.watch(watched);
            gathering.learned = learned;
        }
        let added = gathering.builder.push_event(event, follower.term)?;
        if !event.logs_cascades() {
            gathering.silent.updates |= added.moved > 0;
            gathering.silent.deletes |= added.deleted > 0;
        }
        self.rows += added.inserted + added.updated + added.deleted;
        gathering.counts.add(RowCounts {
            inserted: added.inserted,
            updated: added.updated,
            deleted: added.deleted,
            bytes: 0,
        });
        Ok(())
    }

    /// Rows that the load of their own table has already, but not those that followed them in silence.
    pub(super) fn pass(&mut self, event: &RowEvent<'_>) {
        // Only engines that roll back have foreign keys.
        if !event.undone && !event.logs_cascades() {
            let silent = Silent {
                updates: event.kind == RowKind::Update,
                deletes: event.kind == RowKind::Delete,
            };
            self.pass_silent(&event.table.name, silent);
        }
    }

    /// The same, where only the table is known.
    pub(super) fn pass_silent(&mut self, table: &TableName, changes: Silent) {
        let silent = self.passed.entry(table.clone()).or_default();
        silent.updates |= changes.updates;
        silent.deletes |= changes.deletes;
    }

    /// Everything that waits, as a flush whose rows reach up to `sent`.
    pub(super) fn take(
        &mut self,
        sent: StreamPlace,
        done: Option<oneshot::Sender<()>>,
    ) -> Result<Flush> {
        let mut batches = Vec::with_capacity(self.builders.len());
        let builders = std::mem::take(&mut self.builders);
        for gathering in builders.into_values() {
            let Gathering {
                table,
                mut builder,
                counts,
                silent,
                learned: _,
            } = gathering;
            let (incomplete, batch) = (builder.take_incomplete(), builder.finish());
            if batch.is_some() || incomplete.is_some() {
                batches.push(Changed {
                    table,
                    batch,
                    incomplete,
                    counts,
                    silent,
                    values: builder.take_changed(),
                });
            }
        }
        let waiting = self.waiting.values_mut();
        let prepared = waiting.filter_map(|waiting| waiting.rows.take()).collect();
        self.rows = 0;
        self.due = None;
        self.moved = false;
        Ok(Flush {
            batches,
            end: self.end.clone(),
            sent,
            committed_at_us: self.committed_at_us,
            oldest: self.oldest.take(),
            newest: self.newest.take(),
            passed: std::mem::take(&mut self.passed),
            prepared,
            decided: std::mem::take(&mut self.decided),
            done,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::prepared::Waiting;
    use super::*;
    use crate::pipe::lost::tests::place;

    #[test]
    fn what_waits_for_a_decision_counts_as_far_as_it_is_in_memory_and_leaves_with_the_flush() {
        const BODY_BYTES: u64 = 1 << 20;
        for (budget, in_memory) in [(4 << 20, 2 * BODY_BYTES), (1 << 20, BODY_BYTES)] {
            let mut open = Open::new(place(1), WaitingByXid::new());
            let rows = Prepared::with_body(BODY_BYTES as usize, budget);
            let (xid, id) = (rows.xid.clone(), rows.id.clone());
            let rows = Some(rows);
            open.waiting.insert(xid, Waiting { id, rows });
            let counted = open.byte_count();
            assert!(
                (in_memory..in_memory + BODY_BYTES).contains(&counted),
                "{counted} of {in_memory}"
            );
            let flush = open.take(place(2), None).expect("nothing to decode");
            assert_eq!(flush.prepared.len(), 1);
            assert_eq!(open.byte_count(), 0);
        }
    }
}
