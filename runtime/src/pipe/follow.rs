//! The stream: from the binlog into open batches, flushed at transaction boundaries.
//!
//! Whole transactions are taken from the binlog one after the other; their rows wait in one builder a table. A flush is
//! due when the oldest waiting row is `sync.interval` old; it goes out as soon as the applier has room, and until then
//! more rows may join it. At `sync.max_rows` or `sync.max_bytes` reading stops until the applier has room, so memory is
//! bounded however slow the destination is. A flush always ends where a transaction ends: only such a place can become
//! a checkpoint.
//!
//! A statement that changes a replicated table is a barrier: everything before it is applied and checkpointed, then the
//! statement is, then the checkpoint moves past it.
//!
//! The pipe's own stream carries every table in service. A table that has fallen out of it and comes back is read by a
//! follower of its own (`Track::Table`) from its own place; one that has a place ahead of the checkpoint passes over
//! what lies before that place.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ddl;
use super::progress::Progress;
use super::record::RowCounts;
use super::session::{LiveTable, Session};
use super::store::PipeStore;
use super::track::Track;
use crate::batch::{Adjustment, ChangeBatch, TableName};
use crate::config::RowImage;
use crate::error::Result;
use crate::source::mysql::binlog::{
    BinlogStream, ChangeBuilder, Idle, IncompleteRows, Item, RowEvent, Statement, Transaction,
};
use crate::source::mysql::position::{Position, StreamPlace};

/// Flushes that wait for the applier besides the one that it works on: one, so that decoding overlaps inserting.
pub(super) const FLUSHES_WAITING: usize = 1;

/// How often an idle pipe moves its checkpoint over foreign transactions: often enough that retention cannot strand it,
/// seldom enough that it costs nothing.
const IDLE_CHECKPOINT: Duration = Duration::from_secs(5);

/// The longest a row waits while tables are being loaded.
const LOADING_INTERVAL: Duration = Duration::from_secs(1);

/// One table's changes of a flush.
#[derive(Debug)]
pub(super) struct Changed {
    pub(super) table: Arc<LiveTable>,
    pub(super) batch: Option<ChangeBatch>,
    /// Rows that have to be read from the source first.
    pub(super) incomplete: Option<IncompleteRows>,
    pub(super) counts: RowCounts,
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
    /// Answered when everything up to `end` is checkpointed.
    pub(super) done: Option<oneshot::Sender<()>>,
}

/// The rows that wait, and since when.
struct Open {
    builders: BTreeMap<TableName, (Arc<LiveTable>, ChangeBuilder, RowCounts)>,
    end: StreamPlace,
    committed_at_us: Option<u64>,
    rows: u64,
    /// When the flush becomes due; none while nothing waits.
    due: Option<Instant>,
    /// Whether `end` has moved since the last flush.
    moved: bool,
}

/// Follows the binlog from `stream`'s place until `stop`, then flushes what is whole.
pub(super) struct Follower<'a> {
    pub(super) session: &'a Session,
    pub(super) store: &'a PipeStore,
    pub(super) progress: &'a Progress,
    pub(super) track: Track,
    pub(super) term: u16,
    pub(super) flushes: mpsc::Sender<Flush>,
    /// Tables with the places up to which their events are passed over.
    pub(super) passed: BTreeMap<TableName, Position>,
    /// What may be done with the next transaction beside applying it.
    pub(super) pace: Pace,
}

/// How a follower cuts its flushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// By `sync`.
    AsConfigured,
    /// Each transaction by itself, so that the place before a failing one is known.
    EachTransaction,
    /// The same, but the first one's rows, or the first statement, are passed over.
    PassOverFirst,
}

impl Follower<'_> {
    /// Runs until `stop` is cancelled or something fails.
    ///
    /// # Errors
    /// Whatever the source, a decoder or a barrier's statement fails with.
    pub(super) async fn run(
        mut self,
        mut stream: BinlogStream,
        from: StreamPlace,
        stop: &CancellationToken,
    ) -> Result<()> {
        let mut open = Open {
            builders: BTreeMap::new(),
            end: from,
            committed_at_us: None,
            rows: 0,
            due: None,
            moved: false,
        };
        let flushes = self.flushes.clone();
        loop {
            let now = Instant::now();
            let due = open.due.is_some_and(|due| due <= now);
            let full = self.is_full(&open);
            let wake = open.due.unwrap_or(now + IDLE_CHECKPOINT);
            // Every branch is cancel-safe: `next` keeps its progress in the stream, `reserve` holds no rows.
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                permit = flushes.reserve(), if due || full => match permit {
                    Ok(permit) => permit.send(open.take(open.end.clone(), None)?),
                    // The applier has gone, and its error is the one to report.
                    Err(_) => return Ok(()),
                },
                item = stream.next(), if !full => match item? {
                    Item::Transaction(transaction) => self.on_transaction(&mut open, transaction).await?,
                    Item::Idle(idle) => self.on_idle(&mut open, idle),
                    Item::Statement(statement) => self.on_statement(&mut open, statement).await?,
                },
                () = tokio::time::sleep_until(wake), if !due && !full && open.due.is_some() => {}
            }
        }
        self.flush_and_wait(&mut open).await
    }

    /// How long a row may wait. During a load the checkpoint's progress is what ends it, so a long interval is cut short.
    fn longest_wait(&self) -> Duration {
        let interval = self.session.config.sync.interval;
        if self.progress.is_loading() {
            interval.min(LOADING_INTERVAL)
        } else {
            interval
        }
    }

    /// Whether what waits at a transaction's end goes out before more is read.
    fn is_full(&self, open: &Open) -> bool {
        match self.pace {
            Pace::AsConfigured => self.is_over_budget(open),
            Pace::EachTransaction | Pace::PassOverFirst => open.rows > 0,
        }
    }

    fn is_over_budget(&self, open: &Open) -> bool {
        let sync = self.session.config.sync;
        open.rows >= sync.max_rows
            || open
                .builders
                .values()
                .map(|(_, builder, _)| builder.byte_count() as u64)
                .sum::<u64>()
                >= sync.max_bytes
    }

    async fn on_transaction(
        &mut self,
        open: &mut Open,
        mut transaction: Transaction,
    ) -> Result<()> {
        let end = transaction.end.clone();
        let committed_at_us = transaction.committed_at_us;
        if self.pace == Pace::PassOverFirst {
            self.pass_over_first(&end).await?;
            open.moved_to(end, committed_at_us);
            return Ok(());
        }
        self.passed
            .retain(|_, place| place.contains(&end.position) == Some(true));
        if open.rows == 0 {
            // The interval counts from the first row, not from a checkpoint that was due without rows.
            open.due = Some(Instant::now() + self.longest_wait());
        }
        let mut events = transaction.row_events()?;
        while let Some(event) = events.next()? {
            if self.passed.contains_key(&event.table.name) {
                continue;
            }
            open.push(self, &event)?;
            drop(event);
            if self.is_over_budget(open) {
                // Part of a transaction larger than the budget: its commit is known, so the rows may go out, but the
                // checkpoint stays before it.
                let flush = open.take(end.clone(), None)?;
                if self.flushes.send(flush).await.is_err() {
                    return Ok(());
                }
            }
        }
        open.moved_to(end, committed_at_us);
        // A part that went out above has taken the due time with it.
        open.due
            .get_or_insert_with(|| Instant::now() + self.longest_wait());
        Ok(())
    }

    fn on_idle(&self, open: &mut Open, idle: Idle) {
        let Idle {
            end,
            committed_at_us,
            ..
        } = idle;
        if open.rows == 0 {
            self.progress.caught_up();
        }
        if open.end != end {
            open.moved_to(end, committed_at_us);
            let pace = if self.progress.is_loading() {
                self.longest_wait()
            } else {
                IDLE_CHECKPOINT
            };
            open.due.get_or_insert_with(|| Instant::now() + pace);
        }
    }

    /// A barrier: what came before is durable and checkpointed before the statement is applied, and the checkpoint moves
    /// past it together with the table's new definition.
    async fn on_statement(&mut self, open: &mut Open, statement: Statement) -> Result<()> {
        let end = statement.end.clone();
        let committed_at_us = statement.committed_at_us;
        self.passed
            .retain(|_, place| place.contains(&end.position) == Some(true));
        if self.pace == Pace::PassOverFirst {
            self.pass_over_first(&end).await?;
        } else if !self.is_passed(&statement) {
            self.flush_and_wait(open).await?;
            ddl::apply(self.session, self.store, &self.track, self.term, &statement).await?;
            open.moved_to(end, committed_at_us);
            open.moved = false;
            return Ok(());
        }
        open.moved_to(end, committed_at_us);
        Ok(())
    }

    /// Whether every table of ours that the statement names stands behind it already.
    fn is_passed(&self, statement: &Statement) -> bool {
        let records = self.store.records();
        let mut ours = statement
            .tables
            .iter()
            .filter(|name| self.track.carries(&records, name))
            .peekable();
        ours.peek().is_some() && ours.all(|name| self.passed.contains_key(name))
    }

    /// Records that what ends at `end` is passed over for this table, and goes on as configured.
    async fn pass_over_first(&mut self, end: &StreamPlace) -> Result<()> {
        self.track.pass_over(self.store, end).await?;
        self.pace = Pace::AsConfigured;
        Ok(())
    }

    async fn flush_and_wait(&self, open: &mut Open) -> Result<()> {
        if !open.moved {
            return Ok(());
        }
        let (done, wait) = oneshot::channel();
        let flush = open.take(open.end.clone(), Some(done))?;
        if self.flushes.send(flush).await.is_ok() {
            // A dropped sender means that the applier failed: its own error is reported.
            wait.await.ok();
        }
        Ok(())
    }
}

impl Open {
    fn moved_to(&mut self, end: StreamPlace, committed_at_us: Option<u64>) {
        self.end = end;
        self.committed_at_us = committed_at_us.or(self.committed_at_us);
        self.moved = true;
    }

    fn push(&mut self, follower: &Follower<'_>, event: &RowEvent<'_>) -> Result<()> {
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
            self.builders
                .insert(name.clone(), (table, builder, RowCounts::default()));
        }
        let (_, builder, counts) = self.builders.get_mut(name).expect("inserted above");
        let added = builder.push_event(event, follower.term)?;
        self.rows += added.inserted + added.updated + added.deleted;
        counts.add(RowCounts {
            inserted: added.inserted,
            updated: added.updated,
            deleted: added.deleted,
        });
        Ok(())
    }

    /// Everything that waits, as a flush whose rows reach up to `sent`.
    fn take(&mut self, sent: StreamPlace, done: Option<oneshot::Sender<()>>) -> Result<Flush> {
        let mut batches = Vec::with_capacity(self.builders.len());
        for (table, mut builder, counts) in std::mem::take(&mut self.builders).into_values() {
            let (incomplete, batch) = (builder.take_incomplete(), builder.finish());
            if batch.is_some() || incomplete.is_some() {
                batches.push(Changed {
                    table,
                    batch,
                    incomplete,
                    counts,
                    values: builder.take_changed(),
                });
            }
        }
        self.rows = 0;
        self.due = None;
        self.moved = false;
        Ok(Flush {
            batches,
            end: self.end.clone(),
            sent,
            committed_at_us: self.committed_at_us,
            done,
        })
    }
}
