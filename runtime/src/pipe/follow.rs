//! The stream: from the binlog into open batches, flushed at transaction boundaries.
//!
//! Whole transactions are taken from the binlog one after the other; their rows wait in one builder a table. A flush is
//! due when the oldest waiting row is `sync.interval` old; it goes out as soon as the applier has room, and until then
//! more rows may join it. At `sync.max_rows` or `sync.max_bytes` reading stops until the applier has room, so memory is
//! bounded however slow the destination is. A flush always ends where a transaction ends: only such a place can become
//! a checkpoint.
//!
//! The rows of an XA transaction wait for its decision ([`prepared`]).
//!
//! A statement that changes a replicated table is a barrier: everything before it is applied and checkpointed, then the
//! statement is, then the checkpoint moves past it.
//!
//! The pipe's own stream carries every table in service. A table that has fallen out of it and comes back is read by a
//! follower of its own (`Track::Table`) from its own place; one that has a place ahead of the checkpoint passes over
//! what lies before that place.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ddl::{self, Outcome, Stand};
use super::flush::{Flush, Open};
use super::heal::{Kinship, Silent};
use super::lag::Commit;
use super::prepared::{self, Waiting, WaitingByXid};
use super::progress::Progress;
use super::session::Session;
use super::store::PipeStore;
use super::supervisor::Pipe;
use super::track::Track;
use crate::batch::TableName;
use crate::error::{Error, ErrorKind, Result};
use crate::source::mysql::binlog::ddl::Class;
use crate::source::mysql::binlog::{
    BinlogStream, Decided, Idle, Item, Prepared, RowEvent, RowEvents, Statement, Transaction, Xid,
};
use crate::source::mysql::position::{GroupGtid, Position, StreamPlace};

/// Flushes that wait for the applier besides the one that it works on: one, so that decoding overlaps inserting.
pub(super) const FLUSHES_WAITING: usize = 1;

/// How often an idle pipe moves its checkpoint over foreign transactions: often enough that retention cannot strand it,
/// seldom enough that it costs nothing.
const IDLE_CHECKPOINT: Duration = Duration::from_secs(5);

/// The longest a row waits while tables are being loaded.
const LOADING_INTERVAL: Duration = Duration::from_secs(1);

/// Follows the binlog from `stream`'s place until `stop`, then flushes what is whole.
pub(super) struct Follower<'a> {
    pub(super) pipe: &'a Pipe,
    pub(super) session: &'a Session,
    pub(super) store: &'a PipeStore,
    pub(super) progress: &'a Progress,
    pub(super) track: Track,
    pub(super) kinship: &'a Kinship,
    pub(super) term: u16,
    pub(super) flushes: mpsc::Sender<Flush>,
    /// Tables whose events are passed over.
    pub(super) passed: Passed,
    /// What may be done with the next transaction beside applying it.
    pub(super) pace: Pace,
    /// XA transactions that were prepared and not decided where the stream begins.
    pub(super) waiting: WaitingByXid,
}

/// Tables with the places up to which their events are passed over; without a place all of them are, for this run.
///
/// A transaction is before a table's place when the place has its own GTID. The stream's place does not tell that: another
/// server may have committed what is before the table's place and what is behind it in another order, and then it holds
/// some of both.
#[derive(Debug, Default)]
pub(super) struct Passed(BTreeMap<TableName, Ahead>);

#[derive(Debug)]
struct Ahead {
    place: Option<Position>,
    /// Whether the group that is being read is before the place.
    now: bool,
}

impl Passed {
    pub(super) fn of(places: impl IntoIterator<Item = (TableName, Option<Position>)>) -> Self {
        let ahead = |place| Ahead { place, now: true };
        let places = places.into_iter();
        Self(places.map(|(name, place)| (name, ahead(place))).collect())
    }

    /// The group of that name, which ends at `end`, is read next. Tables whose places the stream has passed are forgotten.
    fn meet(&mut self, group: &GroupGtid, end: &Position) {
        self.0.retain(|_, ahead| {
            let Some(place) = &ahead.place else {
                return true;
            };
            let has_it = place.has(group);
            ahead.now = has_it.unwrap_or_else(|| place.contains(end) == Some(true));
            ahead.now || end.contains(place) == Some(false)
        });
    }

    /// Whether the table's events of the group that is being read are passed over.
    pub(super) fn contains(&self, name: &TableName) -> bool {
        self.0.get(name).is_some_and(|ahead| ahead.now)
    }
}

/// How a follower cuts its flushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// By `sync`.
    AsConfigured,
    /// Each transaction by itself, checkpointed before the next is read, so that the place before a failing one is known.
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
        let mut open = Open::new(from, std::mem::take(&mut self.waiting));
        let flushes = self.flushes.clone();
        loop {
            if let Some(begun) = stream.take_begun() {
                self.track.reads(self.session, self.store, begun).await?;
            }
            // What fails next must not take with it what came before: the place behind that is where it is passed over.
            if self.pace == Pace::EachTransaction && open.moved {
                self.flush_and_wait(&mut open).await?;
            }
            let now = Instant::now();
            let due = open.due.is_some_and(|due| due <= now);
            let full = self.is_over_budget(&open);
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
                item = stream.next(), if !full => match self.heard(item, &open)? {
                    Item::Transaction(transaction) => self.on_transaction(&mut open, transaction).await?,
                    Item::Prepared(prepared) => self.on_prepared(&mut open, prepared),
                    Item::Decided(decided) => self.on_decided(&mut open, decided).await?,
                    Item::Idle(idle) => self.on_idle(&mut open, idle),
                    Item::Statement(statement) => {
                        // Cancelled, the statement waits for the next run.
                        if !self.on_statement(&mut open, statement, stop).await? {
                            break;
                        }
                    }
                },
                () = tokio::time::sleep_until(wake), if !due && !full && open.due.is_some() => {}
            }
        }
        // The applier ends what it has in hand before it goes.
        if open.moved {
            self.flush_and_wait(&mut open).await?;
        }
        Ok(())
    }

    fn heard(&self, item: Result<Item>, open: &Open) -> Result<Item> {
        match self.track {
            Track::Pipe => self.progress.heard(item, &open.end.position),
            Track::Table(_) => item,
        }
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

    /// Whether what waits goes out before more is read.
    fn is_over_budget(&self, open: &Open) -> bool {
        let config = &self.session.config;
        let (sync, most) = (config.sync, config.memory_part());
        open.rows >= sync.max_rows || open.byte_count() >= sync.max_bytes.min(most)
    }

    /// When the source committed what has just been read, as far as that can be known.
    fn dated(&self, committed_at_us: Option<u64>) -> Option<u64> {
        let lag = &self.progress.lag;
        committed_at_us.map(|micros| match self.track {
            Track::Pipe => lag.since_idle(micros),
            Track::Table(_) => lag.until_now(micros),
        })
    }

    async fn on_transaction(
        &mut self,
        open: &mut Open,
        mut transaction: Transaction,
    ) -> Result<()> {
        let end = transaction.end.clone();
        let committed_at_us = self.dated(transaction.committed_at_us);
        if self.pace == Pace::PassOverFirst {
            self.pass_over_first(&end).await?;
            open.moved_to(end, committed_at_us);
            return Ok(());
        }
        self.passed.meet(&transaction.gtid, &end.position);
        // What was logged as text is in the load of a table that stands behind it.
        for table in transaction.take_texts_of(|table| self.passed.contains(table)) {
            open.pass_silent(&table, Silent::ANY);
        }
        self.wait_from_first_row(open);
        let commit = self.progress.lag.read(committed_at_us);
        self.push_all(open, transaction.row_events()?, &end, commit)
            .await?;
        open.newest = Some(commit);
        open.moved_to(end, committed_at_us);
        // A part that went out above has taken the due time with it.
        open.due
            .get_or_insert_with(|| Instant::now() + self.longest_wait());
        Ok(())
    }

    /// The interval counts from the first row, not from a checkpoint that was due without rows.
    fn wait_from_first_row(&self, open: &mut Open) {
        if open.rows == 0 {
            open.due = Some(Instant::now() + self.longest_wait());
        }
    }

    /// Decodes the rows of what is committed at `end`. More than the budget goes out in parts: the commit is known, so
    /// the rows may be written, but the checkpoint stays before it.
    async fn push_all(
        &self,
        open: &mut Open,
        mut events: RowEvents<'_>,
        end: &StreamPlace,
        commit: Commit,
    ) -> Result<()> {
        while let Some(event) = events.next()? {
            if self.is_no_more(open, &event)? {
                continue;
            }
            open.push(self, &event)?;
            drop(event);
            self.note_waiting(open, commit);
            if self.is_over_budget(open) {
                let flush = open.take(end.clone(), None)?;
                if self.flushes.send(flush).await.is_err() {
                    return std::future::pending().await;
                }
            }
        }
        Ok(())
    }

    /// Whether the event's rows are not to be written: their table stands behind them, or they were rolled back.
    fn is_no_more(&self, open: &mut Open, event: &RowEvent<'_>) -> Result<bool> {
        if self.passed.contains(&event.table.name) {
            open.pass(event);
            return Ok(true);
        }
        self.is_rolled_back(event)
    }

    /// Whether rows of a rollback that was logged are gone: those of an engine that cannot roll back have stayed.
    fn is_rolled_back(&self, event: &RowEvent<'_>) -> Result<bool> {
        if !event.undone {
            return Ok(false);
        }
        let table = self.session.table(&event.table.name);
        table.source.transactional.ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                "rows were rolled back although they were logged, and whether the table's engine rolls back is not known",
            )
            .with_hint("resync the table")
            .with_table(&event.table.name)
        })
    }

    /// The lag counts from the first commit of which rows wait.
    fn note_waiting(&self, open: &mut Open, commit: Commit) {
        if open.oldest.is_none() {
            open.oldest = Some(commit);
            if self.track == Track::Pipe {
                self.progress.lag.waits(commit);
            }
        }
    }

    fn on_prepared(&self, open: &mut Open, prepared: Prepared) {
        let (end, committed_at_us) = (prepared.end.clone(), self.dated(prepared.committed_at_us));
        let (xid, id) = (prepared.xid.clone(), prepared.id.clone());
        let rows = Some(prepared);
        open.waiting.insert(xid, Waiting { id, rows });
        open.moved_to(end, committed_at_us);
        open.due
            .get_or_insert_with(|| Instant::now() + self.longest_wait());
    }

    /// The rows that were prepared become visible at this place, or never.
    async fn on_decided(&mut self, open: &mut Open, decided: Decided) -> Result<()> {
        let Decided {
            xid,
            commit,
            base,
            gtid,
            end,
            committed_at_us,
        } = decided;
        let committed_at_us = self.dated(committed_at_us);
        self.passed.meet(&gtid, &end.position);
        let passed_over =
            commit && self.pace == Pace::PassOverFirst && self.is_concerned(open, &xid).await?;
        if passed_over {
            self.pass_over_first(&end).await?;
        }
        match open.waiting.get(&xid) {
            None if commit && !passed_over => return Err(prepared::unread(&xid)),
            Some(_) if commit && !passed_over => {
                self.wait_from_first_row(open);
                let commit = self.progress.lag.read(committed_at_us);
                self.push_prepared(open, &xid, base, &end, commit).await?;
                open.newest = Some(commit);
            }
            _ => {}
        }
        if let Some(Waiting { id, rows: None }) = open.waiting.remove(&xid) {
            open.decided.push((id, end.position.clone()));
        }
        open.moved_to(end, committed_at_us);
        open.due
            .get_or_insert_with(|| Instant::now() + self.longest_wait());
        Ok(())
    }

    async fn push_prepared(
        &self,
        open: &mut Open,
        xid: &Xid,
        base: u64,
        end: &StreamPlace,
        commit: Commit,
    ) -> Result<()> {
        let small = |rows: &Prepared| rows.byte_count() <= prepared::IN_MEMORY_BYTES;
        let Some(waiting) = open.waiting.get_mut(xid) else {
            return Ok(());
        };
        if let Some(mut rows) = waiting.rows.take_if(|rows| small(rows)) {
            let mut events = rows.row_events(base)?;
            while let Some(event) = events.next()? {
                if self.is_no_more(open, &event)? {
                    continue;
                }
                open.push(self, &event)?;
                self.note_waiting(open, commit);
            }
            drop(events);
            // Nothing of it is in the state, so nothing has to be forgotten there.
            if let Some(waiting) = open.waiting.get_mut(xid) {
                waiting.rows = Some(rows);
            }
            return Ok(());
        }
        let id = waiting.id.clone();
        // The rows are in the state once everything before this place is.
        self.flush_and_wait(open).await?;
        let records = self.store.records();
        let pieces = records
            .prepared
            .get(&id)
            .map(|record| record.pieces.clone());
        for (table, count) in pieces.unwrap_or_default() {
            if !self.track.carries(&records, &table) {
                continue;
            }
            if self.passed.contains(&table) {
                open.pass_silent(&table, Silent::ANY);
                continue;
            }
            for number in 1..=count {
                let piece = prepared::kept(self.store, &id, &table, number).await?;
                self.push_all(open, piece.row_events(base), end, commit)
                    .await?;
            }
        }
        Ok(())
    }

    fn on_idle(&self, open: &mut Open, idle: Idle) {
        let Idle {
            end,
            committed_at_us,
            caught_up,
        } = idle;
        let committed_at_us = self.dated(committed_at_us);
        if open.rows == 0 && self.track == Track::Pipe {
            let lag = &self.progress.lag;
            match caught_up {
                true => lag.caught_up(),
                false => lag.idle(committed_at_us),
            }
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
    /// False when this run ends before the statement.
    async fn on_statement(
        &mut self,
        open: &mut Open,
        mut statement: Statement,
        stop: &CancellationToken,
    ) -> Result<bool> {
        statement.committed_at_us = self.dated(statement.committed_at_us);
        let end = statement.end.clone();
        let committed_at_us = statement.committed_at_us;
        self.passed.meet(&statement.gtid, &end.position);
        self.kinship
            .learn(self.session, self.store, &statement)
            .await?;
        if self.track == Track::Pipe {
            ddl::warn_of_merge(self.store, &statement).await?;
        }
        if self.pace == Pace::PassOverFirst && self.is_named(&statement) {
            self.pass_over_first(&end).await?;
        } else if !self.is_passed(&statement) {
            self.flush_and_wait(open).await?;
            let stand = Stand {
                session: self.session,
                store: self.store,
                track: &self.track,
                kinship: self.kinship,
                term: self.term,
                passed: &self.passed,
            };
            if let Outcome::Ask(command) = ddl::apply(stand, &statement).await? {
                // What is asked for is recorded when this run has ended.
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    answer = self.pipe.ask(command) => answer.map_err(|error| match error.kind() {
                        // Another change came first: the statement is met again behind it.
                        ErrorKind::IllegalCommand => {
                            Error::new(ErrorKind::Stopped, "another change came first")
                        }
                        _ => error,
                    })?,
                }
                return Ok(false);
            }
            open.moved_to(end, committed_at_us);
            open.moved = false;
            return Ok(true);
        }
        open.moved_to(end, committed_at_us);
        // On an idle source nothing more comes, and a load may wait for the checkpoint to get here.
        open.due
            .get_or_insert_with(|| Instant::now() + self.longest_wait());
        Ok(true)
    }

    /// Whether every table of ours that the statement names stands behind it already.
    fn is_passed(&self, statement: &Statement) -> bool {
        let records = self.store.records();
        let mut ours = statement
            .tables
            .iter()
            .filter(|name| self.track.carries(&records, name))
            .peekable();
        ours.peek().is_some() && ours.all(|name| self.passed.contains(name))
    }

    /// Whether an XA transaction that is decided holds rows of a table of this stream. What was not read may.
    async fn is_concerned(&self, open: &mut Open, xid: &Xid) -> Result<bool> {
        let id = match open.waiting.get(xid) {
            None => return Ok(true),
            Some(Waiting {
                rows: Some(rows), ..
            }) => {
                let records = self.store.records();
                return Ok(rows
                    .tables()
                    .any(|table| self.track.carries(&records, table)));
            }
            Some(waiting) => waiting.id.clone(),
        };
        // Its rows may be on their way into the state.
        self.flush_and_wait(open).await?;
        let records = self.store.records();
        let mut pieces = records.prepared.get(&id).into_iter();
        Ok(pieces.any(|kept| {
            let mut tables = kept.pieces.iter();
            tables.any(|(table, _)| self.track.carries(&records, table))
        }))
    }

    /// Whether the statement concerns a table of this stream, or may: what no table is known of concerns each.
    fn is_named(&self, statement: &Statement) -> bool {
        let records = self.store.records();
        let told = |name: &TableName| records.tables.contains_key(name);
        let carried = |name: &&TableName| self.track.carries(&records, name);
        match &statement.class {
            Class::Unknown if !statement.tables.iter().any(told) => true,
            Class::DropDatabase(database) => {
                let mut carried = records.tables.keys().filter(carried);
                carried.any(|name| name.database == *database)
            }
            _ => statement.tables.iter().any(|name| carried(&name)),
        }
    }

    /// Records that what ends at `end` is passed over for this table, and goes on as configured.
    async fn pass_over_first(&mut self, end: &StreamPlace) -> Result<()> {
        self.track.pass_over(self.store, self.kinship, end).await?;
        self.pace = Pace::AsConfigured;
        Ok(())
    }

    /// Waits until all that has been read is durable and checkpointed. Flushes are applied in order, so one goes out even
    /// where nothing is open: those before it may still be on their way.
    async fn flush_and_wait(&self, open: &mut Open) -> Result<()> {
        let (done, wait) = oneshot::channel();
        let flush = open.take(open.end.clone(), Some(done))?;
        if self.flushes.send(flush).await.is_err() || wait.await.is_err() {
            // The applier failed, and its error ends the run. Nothing that comes after may be applied until then.
            return std::future::pending().await;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
