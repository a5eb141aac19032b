//! Flushes to ClickHouse, and the checkpoint behind them.
//!
//! The order is the whole of the safety: the flush's end is persisted as *sent*; the rows go out, several tables at
//! once; when every insert is durable, the mirror in the destination is written, then the checkpoint in the state. A
//! crash between any two of these replays from the older checkpoint, and the replayed rows carry the same versions.
//!
//! A destination that is away is waited for in place ([`Patience`]): the flush, and the source's stream behind it, stay.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::append;
use super::complete::Completer;
use super::document::{BatchDocument, BatchKind, Timestamp};
use super::faults::{FaultCounts, keep_letters};
use super::flush::{Changed, Flush};
use super::heal::{Kinship, Silent, key_to};
use super::lag::Split;
use super::mirror::Mirroring;
use super::patience::Patience;
use super::prepared::{self, PreparedRecord};
use super::progress::Progress;
use super::record::{Records, RowCounts};
use super::session::{LiveTable, Session};
use super::store::PipeStore;
use super::track::Track;
use super::values::ValueCounts;
use crate::batch::{ChangeBatch, TableName};
use crate::destination::clickhouse::Durable;
use crate::error::Result;
use crate::fault;
use crate::transform::Applied;

/// Tables that are transformed and inserted at once: enough to hide one insert's wait behind another's work.
const TABLES_AT_ONCE: usize = 4;

/// What an applier works with.
pub(super) struct Applier<'a> {
    pub(super) session: &'a Session,
    pub(super) store: &'a PipeStore,
    pub(super) progress: &'a Progress,
    pub(super) track: Track,
    pub(super) kinship: &'a Kinship,
    /// Ends the waiting for a destination that is away.
    pub(super) stop: CancellationToken,
}

/// What a table's changes count for.
#[derive(Debug)]
struct Counted {
    table: TableName,
    rows: RowCounts,
    silent: Silent,
    values: ValueCounts,
    faults: FaultCounts,
}

/// What was written of one table.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) durable: Vec<Durable>,
    pub(super) values: ValueCounts,
    pub(super) faults: FaultCounts,
}

impl Applier<'_> {
    /// Applies flushes in order until the sender has gone.
    ///
    /// # Errors
    /// Whatever a plugin, the destination or the state store fails with; the place then stands before that flush.
    pub(super) async fn run(&self, mut flushes: mpsc::Receiver<Flush>) -> Result<()> {
        // Of a transaction that goes out in parts: a restart before its end replays them all, and counts them then.
        let mut held = Vec::new();
        let mut completer = Completer::default();
        while let Some(flush) = flushes.recv().await {
            self.apply(flush, &mut held, &mut completer).await?;
        }
        Ok(())
    }

    async fn apply(
        &self,
        mut flush: Flush,
        held: &mut Vec<Counted>,
        completer: &mut Completer,
    ) -> Result<()> {
        let began = Instant::now();
        self.session.spent.take();
        if !flush.batches.is_empty() {
            self.track.begin(self.store, &flush.sent).await?;
        }
        let durable = self.write_rows(&mut flush, held, completer).await?;
        let written = (
            durable.iter().map(Durable::rows).sum(),
            durable.iter().map(Durable::bytes).sum(),
        );
        let mut kept = Vec::with_capacity(flush.prepared.len());
        for prepared in &mut flush.prepared {
            kept.push(prepared::keep(self.store, prepared).await?);
        }
        if !durable.is_empty() {
            fault::point("flush:1");
        }
        let (oldest, newest, done) = (flush.oldest, flush.newest, flush.done.take());
        let counted = if flush.sent == flush.end {
            std::mem::take(held)
        } else {
            Vec::new()
        };
        self.checkpoint(flush, &durable, kept, counted).await?;
        if self.track == Track::Pipe {
            let split = newest.map(|newest| {
                let (transform, insert) = self.session.spent.take();
                Split::of(newest, began, transform, insert)
            });
            self.progress.lag.applied(oldest, split);
        }
        self.show(written, began);
        if let Some(done) = done {
            done.send(()).ok();
        }
        Ok(())
    }

    /// Writes the rows of a flush, those that had to be completed behind the others; what they count for is `held`.
    async fn write_rows(
        &self,
        flush: &mut Flush,
        held: &mut Vec<Counted>,
        completer: &mut Completer,
    ) -> Result<Vec<Durable>> {
        let mut batches = std::mem::take(&mut flush.batches);
        let incomplete = batches
            .iter_mut()
            .filter_map(|changed| Some((Arc::clone(&changed.table), changed.incomplete.take()?)))
            .collect();
        let at = &flush.sent.position.to_string();
        let written: Vec<(Vec<Durable>, Counted)> = stream::iter(batches)
            .map(|changed| async move {
                let table = changed.table.source.name().clone();
                self.write(changed, at)
                    .await
                    .map_err(|error| error.with_table(&table))
            })
            .buffer_unordered(TABLES_AT_ONCE)
            .try_collect()
            .await?;
        let (durable, counted): (Vec<Vec<Durable>>, Vec<Counted>) = written.into_iter().unzip();
        let mut durable: Vec<Durable> = durable.into_iter().flatten().collect();
        held.extend(counted);
        let completed = completer
            .complete(self.session, self.store, incomplete, &flush.sent.position)
            .await?;
        for (table, completed) in completed {
            self.progress.rows_failed(&table, &completed.faults);
            durable.extend(completed.durable);
            held.push(Counted {
                table,
                rows: RowCounts::default(),
                silent: Silent::default(),
                values: completed.values,
                faults: completed.faults,
            });
        }
        Ok(durable)
    }

    /// Writes the mirror behind rows that are durable, and the checkpoint behind the mirror.
    async fn checkpoint(
        &self,
        flush: Flush,
        durable: &[Durable],
        kept: Vec<PreparedRecord>,
        counted: Vec<Counted>,
    ) -> Result<()> {
        let (end, committed_at_us, passed) = (flush.end, flush.committed_at_us, flush.passed);
        // Of a transaction that goes out in parts, `end` is the place before it.
        let at = flush.sent;
        let silent = counted
            .iter()
            .map(|counted| (&counted.table, counted.silent));
        let silent = passed
            .iter()
            .map(|(table, silent)| (table, *silent))
            .chain(silent);
        let followed: Vec<(&TableName, BTreeSet<TableName>)> = silent
            .map(|(table, silent)| (table, self.kinship.reached(table, silent)))
            .filter(|(_, followers)| !followers.is_empty())
            .collect();
        let mark = |draft: &mut Records| {
            for (table, followers) in &followed {
                self.kinship
                    .mark_each(draft, &key_to(table), followers, Some(&at));
            }
        };
        let mut records = self.store.records();
        // One table's own track mirrors nothing.
        if !followed.is_empty() && self.track == Track::Pipe {
            mark(Arc::make_mut(&mut records));
        }
        let mirroring = Mirroring {
            session: self.session,
            store: self.store,
            kinship: self.kinship,
        };
        let mut patience = self.patience();
        while let Err(error) = self
            .track
            .mirror(mirroring, &records, &end, committed_at_us, durable)
            .await
        {
            patience.again(error).await?;
        }
        patience.over();
        self.track
            .checkpoint(self.store, end, committed_at_us, |draft| {
                prepared::record_kept(draft, kept);
                if !draft.prepared.is_empty() {
                    prepared::record_decided(draft, &self.track, &flush.decided);
                }
                mark(draft);
                for counted in &counted {
                    draft.add_values(&counted.table, &counted.values);
                    draft.add_faults(&counted.table, &counted.faults);
                    let rows = draft.rows.entry(counted.table.clone()).or_default();
                    rows.add(counted.rows);
                }
            })
            .await
    }

    /// Adds what was written to the batches that the pipe's document shows.
    fn show(&self, (rows, bytes): (u64, u64), began: Instant) {
        if rows == 0 {
            return;
        }
        self.progress.add_batch(BatchDocument {
            kind: BatchKind::Stream,
            table: match &self.track {
                Track::Pipe => None,
                Track::Table(name) => Some(name.to_string()),
            },
            rows,
            bytes,
            seconds: began.elapsed().as_secs_f64(),
            finished_at: Timestamp::now(),
        });
    }

    fn patience(&self) -> Patience<'_> {
        Patience {
            session: self.session,
            store: self.store,
            progress: self.progress,
            track: &self.track,
            stop: &self.stop,
            delay: None,
        }
    }

    async fn write(&self, changed: Changed, at: &str) -> Result<(Vec<Durable>, Counted)> {
        let mut written = Written::default();
        written.values.add(&changed.values);
        if let Some(batch) = changed.batch {
            let patience = Some(self.patience());
            write(
                self.session,
                &changed.table,
                batch,
                at,
                patience,
                &mut written,
            )
            .await?;
        }
        let table = changed.table.source.name().clone();
        self.progress.rows_failed(&table, &written.faults);
        let counted = Counted {
            table,
            rows: RowCounts {
                bytes: written.durable.iter().map(Durable::bytes).sum(),
                ..changed.counts
            },
            silent: changed.silent,
            values: written.values,
            faults: written.faults,
        };
        Ok((written.durable, counted))
    }
}

/// Sends a batch through the table's plugins into each of its targets. `at` says for dead letters where the rows stood;
/// with `patience` a destination that is away is waited for.
///
/// # Errors
/// Whatever a plugin or the destination fails with.
pub(super) async fn write(
    session: &Session,
    table: &LiveTable,
    batch: ChangeBatch,
    at: &str,
    mut patience: Option<Patience<'_>>,
    written: &mut Written,
) -> Result<()> {
    let began = Instant::now();
    let (applied, letters) = transform(session, table, batch, at).await?;
    let transformed = Instant::now();
    written.durable.extend(letters);
    written.faults.add(&applied.faults);
    for (output, batch) in applied.batches {
        let batches = [batch];
        for (number, target) in table.stream_targets_of(output).enumerate() {
            let durable = loop {
                match (
                    session.destination.insert(target, &batches).await,
                    &mut patience,
                ) {
                    (Err(error), Some(patience)) => patience.again(error).await?,
                    (inserted, _) => break inserted?,
                }
            };
            // Both tables of a resync change the same values; they count once.
            if number == 0 {
                written.values.add(durable.adjustments(0));
            }
            written.durable.push(durable);
        }
    }
    if let Some(patience) = patience {
        patience.over();
    }
    session
        .spent
        .add(transformed - began, transformed.elapsed());
    Ok(())
}

/// Sends a batch through the table's plugins; rows that fail are durable as dead letters, where they are kept.
///
/// # Errors
/// As [`write`].
pub(super) async fn transform(
    session: &Session,
    table: &LiveTable,
    batch: ChangeBatch,
    at: &str,
) -> Result<(Applied, Vec<Durable>)> {
    let kept = table.chain.keeps_letters().then(|| batch.clone());
    let inserted = append::inserted(table, &batch);
    let mut applied = table.chain.apply(batch).await?;
    let mut passed_over = FaultCounts::default();
    passed_over.add(&applied.faults);
    passed_over.log(&session.config.pipe, table.source.name());
    if let Some(inserted) = inserted {
        let batches = std::mem::take(&mut applied.batches).into_iter();
        let let_in = batches
            .map(|(output, batch)| Ok((output, append::without_kept_out(batch, &inserted)?)));
        applied.batches = let_in.collect::<Result<_>>()?;
    }
    let letters = match &kept {
        Some(batch) => keep_letters(session, table, batch, &applied.faults, at).await?,
        None => Vec::new(),
    };
    Ok((applied, letters))
}
