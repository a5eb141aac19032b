//! Flushes to ClickHouse, and the checkpoint behind them.
//!
//! The order is the whole of the safety: the flush's end is persisted as *sent*; the rows go out, several tables at
//! once; when every insert is durable, the mirror in the destination is written, then the checkpoint in the state. A
//! crash between any two of these replays from the older checkpoint, and the replayed rows carry the same versions.
//!
//! A destination that is away is waited for in place ([`Patience`]): the flush, and the source's stream behind it, stay.

use std::sync::Arc;
use std::time::Instant;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::complete::Completer;
use super::document::{BatchDocument, BatchKind, Timestamp};
use super::follow::{Changed, Flush};
use super::heal::Kinship;
use super::lag::Split;
use super::patience::Patience;
use super::prepared;
use super::progress::Progress;
use super::record::RowCounts;
use super::session::{LiveTable, Session};
use super::store::PipeStore;
use super::track::Track;
use super::values::ValueCounts;
use crate::batch::{ChangeBatch, TableName};
use crate::destination::clickhouse::Durable;
use crate::error::Result;
use crate::source::mysql::position::StreamPlace;

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
    values: ValueCounts,
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
        let incomplete = flush
            .batches
            .iter_mut()
            .filter_map(|changed| Some((Arc::clone(&changed.table), changed.incomplete.take()?)))
            .collect();
        let written: Vec<(Vec<Durable>, Counted)> = stream::iter(flush.batches)
            .map(|changed| async move {
                let table = changed.table.source.name().clone();
                self.write(changed)
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
            .complete(self.session, incomplete, &flush.sent.position)
            .await?;
        for (table, completed) in completed {
            durable.extend(completed.durable);
            held.push(Counted {
                table,
                rows: RowCounts::default(),
                values: completed.values,
            });
        }
        let written = (
            durable.iter().map(Durable::rows).sum(),
            durable.iter().map(Durable::bytes).sum(),
        );
        let mut kept = Vec::with_capacity(flush.prepared.len());
        for prepared in &mut flush.prepared {
            kept.push(prepared::keep(self.store, prepared).await?);
        }
        let counted = if flush.sent == flush.end {
            std::mem::take(held)
        } else {
            Vec::new()
        };
        let (end, committed_at_us) = (flush.end, flush.committed_at_us);
        let mut patience = self.patience();
        while let Err(error) = self
            .track
            .mirror(self.session, self.store, &end, committed_at_us, &durable)
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
                for counted in counted {
                    self.kinship.mark(draft, &counted.table, counted.rows);
                    draft.add_values(&counted.table, &counted.values);
                    let rows = draft.rows.entry(counted.table).or_default();
                    rows.add(counted.rows);
                }
            })
            .await?;
        if self.track == Track::Pipe {
            let split = flush.newest.map(|newest| {
                let (transform, insert) = self.session.spent.take();
                Split::of(newest, began, transform, insert)
            });
            self.progress.lag.applied(flush.oldest, split);
        }
        self.show(written, began);
        if let Some(done) = flush.done {
            done.send(()).ok();
        }
        Ok(())
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

    async fn write(&self, changed: Changed) -> Result<(Vec<Durable>, Counted)> {
        let mut durable = Vec::new();
        let mut values = ValueCounts::default();
        values.add(&changed.values);
        if let Some(batch) = changed.batch {
            let began = Instant::now();
            let batches = [changed.table.chain.apply(batch).await?];
            let transformed = Instant::now();
            for (number, target) in changed.table.stream_targets().enumerate() {
                let mut patience = self.patience();
                let inserted = loop {
                    match self.session.destination.insert(target, &batches).await {
                        Ok(inserted) => break inserted,
                        Err(error) => patience.again(error).await?,
                    }
                };
                patience.over();
                take(inserted, number, &mut durable, &mut values);
            }
            self.session
                .spent
                .add(transformed - began, transformed.elapsed());
        }
        let counted = Counted {
            table: changed.table.source.name().clone(),
            rows: RowCounts {
                bytes: durable.iter().map(Durable::bytes).sum(),
                ..changed.counts
            },
            values,
        };
        Ok((durable, counted))
    }
}

/// Sends a batch through the table's plugins into each of its targets.
///
/// # Errors
/// Whatever a plugin or the destination fails with.
pub(super) async fn write(
    session: &Session,
    table: &LiveTable,
    batch: ChangeBatch,
    durable: &mut Vec<Durable>,
    values: &mut ValueCounts,
) -> Result<()> {
    let began = Instant::now();
    let batches = [table.chain.apply(batch).await?];
    let transformed = Instant::now();
    for (number, target) in table.stream_targets().enumerate() {
        let written = session.destination.insert(target, &batches).await?;
        take(written, number, durable, values);
    }
    session
        .spent
        .add(transformed - began, transformed.elapsed());
    Ok(())
}

/// Both tables of a resync change the same values; they count once, for the first.
fn take(written: Durable, number: usize, durable: &mut Vec<Durable>, values: &mut ValueCounts) {
    if number == 0 {
        values.add(written.adjustments(0));
    }
    durable.push(written);
}

/// A place as the mirror keeps it: the same JSON as in the state.
///
/// # Errors
/// Never for a place that was read from a source.
pub(super) fn position_text(place: &StreamPlace) -> Result<String> {
    serde_json::to_string(&place.position).map_err(|error| {
        crate::error::Error::new(
            crate::error::ErrorKind::Internal,
            "a position does not serialise",
        )
        .with_source(error)
    })
}
