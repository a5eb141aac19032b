//! The inserts of a load: what its readers send is gathered, and written in larger pieces than it comes in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedRwLockReadGuard, mpsc};

use super::document::{BatchDocument, BatchKind, Timestamp};
use super::faults::FaultCounts;
use super::reaching::{Reaching, Read};
use super::session::Session;
use super::supervisor::Pipe;
use super::values::{Unfinished, ValueCounts};
use crate::batch::{Adjustment, ChangeBatch, TableName};
use crate::destination::clickhouse::TargetTable;
use crate::error::Result;
use crate::fault;
use crate::transform::Fault;

/// No more rows or bytes are gathered while an insert is under way: ClickHouse takes 15 % more rows a second in inserts
/// of this size than in those of one small partition, and merges less.
const INSERT_ROWS: usize = 400_000;
const INSERT_BYTES: usize = 64 << 20;

/// With no insert under way the next one begins at this many rows. While it runs, more are gathered than that.
const INSERT_ROWS_IDLE: usize = 50_000;

/// An insert waits no longer for more rows once the readers have gone quiet.
const INSERT_WAIT: Duration = Duration::from_millis(200);

/// What one table's load works with.
#[derive(Clone, Copy)]
pub(super) struct Loading<'a> {
    pub(super) session: &'a Arc<Session>,
    pub(super) pipe: &'a Arc<Pipe>,
    pub(super) name: &'a TableName,
    pub(super) reaching: &'a Arc<Reaching>,
}

/// Part of a partition, transformed.
pub(super) struct Piece {
    /// By target.
    pub(super) batches: Vec<(TargetTable, ChangeBatch)>,
    pub(super) partition: u32,
    /// What policies have changed on the way from the packets into the batch.
    pub(super) changed: Vec<Adjustment>,
    /// What plugins failed on.
    pub(super) faults: Vec<Fault>,
    /// Set on the last piece: the partition is done when this piece is durable.
    pub(super) last: Option<Finished>,
}

pub(super) struct Finished {
    pub(super) partition: u32,
    pub(super) rows: u64,
    pub(super) _gate: OwnedRwLockReadGuard<()>,
}

/// Gathers pieces into inserts: one is under way while the next is gathered.
pub(super) async fn insert(loading: Loading<'_>, mut pieces: mpsc::Receiver<Piece>) -> Result<()> {
    let mut under_way = None;
    let mut gathered = Gathered::default();
    // Handed from each insert to the next, as only one is under way.
    let mut unfinished = Unfinished::default();
    let mut ended = false;
    loop {
        let mut quiet = false;
        let room = !ended && !gathered.is_large();
        // Cancel-safe: `recv` loses nothing, and the insert is polled in place.
        tokio::select! {
            result = async { under_way.as_mut().expect("checked by the guard").await }, if under_way.is_some() => {
                under_way = None;
                unfinished = result?;
            }
            next = tokio::time::timeout(INSERT_WAIT, pieces.recv()), if room => match next {
                Ok(Some(piece)) => gathered.add(piece),
                Ok(None) => ended = true,
                Err(_) => quiet = true,
            },
        }
        let ready = gathered.is_worthwhile() || ((quiet || ended) && !gathered.is_empty());
        if under_way.is_none() && ready {
            let counted = std::mem::take(&mut unfinished);
            under_way = Some(Box::pin(
                std::mem::take(&mut gathered).insert(loading, counted),
            ));
        }
        if ended && under_way.is_none() {
            return Ok(());
        }
    }
}

#[derive(Default)]
struct Gathered {
    /// By the target's name; for most tables there is one.
    inserts: BTreeMap<String, Insert>,
    /// What policies have changed before the insert, and what plugins failed on, by partition.
    changed: Vec<(u32, Vec<Adjustment>, Vec<Fault>)>,
    finished: Vec<Finished>,
    rows: usize,
    bytes: usize,
}

/// Rows of one target.
struct Insert {
    target: TargetTable,
    batches: Vec<ChangeBatch>,
    /// The partition of each batch.
    partitions: Vec<u32>,
}

impl Gathered {
    fn add(&mut self, piece: Piece) {
        self.changed
            .push((piece.partition, piece.changed, piece.faults));
        for (target, batch) in piece.batches {
            self.rows += batch.row_count;
            self.bytes += batch.byte_count();
            if batch.row_count == 0 {
                continue;
            }
            let insert = self.inserts.entry(target.name().to_owned());
            let insert = insert.or_insert_with(|| Insert {
                target,
                batches: Vec::new(),
                partitions: Vec::new(),
            });
            insert.batches.push(batch);
            insert.partitions.push(piece.partition);
        }
        self.finished.extend(piece.last);
    }

    fn is_large(&self) -> bool {
        self.rows >= INSERT_ROWS || self.bytes >= INSERT_BYTES
    }

    fn is_worthwhile(&self) -> bool {
        self.rows >= INSERT_ROWS_IDLE || self.is_large()
    }

    fn is_empty(&self) -> bool {
        self.inserts.is_empty() && self.finished.is_empty()
    }

    async fn insert(self, loading: Loading<'_>, mut unfinished: Unfinished) -> Result<Unfinished> {
        let Loading {
            session,
            pipe,
            name,
            reaching,
        } = loading;
        // Rows that were gone when a partition was read count as well as those that were there.
        reaching.record(&pipe.store, name, Read::Load).await?;
        for (partition, changed, faults) in &self.changed {
            unfinished.add(*partition, changed);
            unfinished.add_faults(*partition, faults);
        }
        for insert in self.inserts.values() {
            let began = Instant::now();
            let durable = session.destination.insert(&insert.target, &insert.batches);
            let durable = durable.await?;
            pipe.progress.add_batch(BatchDocument {
                kind: BatchKind::Load,
                table: Some(name.to_string()),
                rows: durable.rows(),
                bytes: durable.bytes(),
                seconds: began.elapsed().as_secs_f64(),
                finished_at: Timestamp::now(),
            });
            tracing::debug!(table = %name, rows = durable.rows(), bytes = durable.bytes(), "loaded");
            unfinished.inserted(&insert.partitions, &durable);
        }
        if self.finished.is_empty() {
            return Ok(unfinished);
        }
        let bytes = unfinished.take_bytes();
        let mut values = ValueCounts::default();
        let mut faults = FaultCounts::default();
        for finished in &self.finished {
            values.merge(&unfinished.take(finished.partition));
            faults.merge(&unfinished.take_faults(finished.partition));
        }
        pipe.store
            .commit(|draft| {
                let done = Arc::make_mut(draft.done.entry(name.clone()).or_default());
                done.extend(self.finished.iter().map(|finished| finished.partition));
                draft.add_values(name, &values);
                draft.add_faults(name, &faults);
                let table = draft.table_mut(name);
                table.bytes_loaded += bytes;
                table.rows_loaded += self
                    .finished
                    .iter()
                    .map(|finished| finished.rows)
                    .sum::<u64>();
                Ok(())
            })
            .await?;
        fault::point("load:3");
        Ok(unfinished)
    }
}
