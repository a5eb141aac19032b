//! The load: partitions read and inserted in parallel while the stream is followed.
//!
//! Every row of a load has version 0, below all that the stream writes, so a partition may be read at any moment at or
//! after the start place, and read again after a crash: whatever changed since the start place arrives by the stream
//! with a higher version. A partition is marked done in one write after its last row is durable. When all are done the
//! table's end place is taken; once the checkpoint has passed it, the table equals the source. Loads of append tables read
//! one moment instead ([`append`]).

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::{OwnedRwLockReadGuard, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::append;
use super::apply::transform;
use super::document::{BatchDocument, BatchKind, Timestamp};
use super::faults::FaultCounts;
use super::record::Records;
use super::session::{LiveTable, Session};
use super::store::PipeStore;
use super::supervisor::Pipe;
use super::table_state::TableEvent;
use super::values::{Unfinished, ValueCounts};
use crate::batch::{Adjustment, ChangeBatch, Changes, TableName};
use crate::destination::clickhouse::TargetTable;
use crate::error::{Error, ErrorKind, Result};
use crate::fault;
use crate::source::mysql::catalog;
use crate::source::mysql::decode::TableBuilder;
use crate::source::mysql::position::Position;
use crate::source::mysql::snapshot::{
    self, Partition, PartitionReader, SnapshotSession, Stood, Window,
};
use crate::transform::Fault;

/// A reader hands on what it has decoded at this size, so that transform and insert begin before a partition ends: with
/// 16 MiB ClickHouse stood idle for the first tenth of a load of 2,000,000 rows.
const HAND_ON_BYTES: usize = 4 << 20;

/// No more rows or bytes are gathered while an insert is under way: ClickHouse takes 15 % more rows a second in inserts
/// of this size than in those of one small partition, and merges less.
const INSERT_ROWS: usize = 400_000;
const INSERT_BYTES: usize = 64 << 20;

/// With no insert under way the next one begins at this many rows. While it runs, more are gathered than that.
const INSERT_ROWS_IDLE: usize = 50_000;

/// An insert waits no longer for more rows once the readers have gone quiet.
const INSERT_WAIT: Duration = Duration::from_millis(200);

/// Part of a partition, transformed.
struct Piece {
    /// By target.
    batches: Vec<(TargetTable, ChangeBatch)>,
    partition: u32,
    /// What policies have changed on the way from the packets into the batch.
    changed: Vec<Adjustment>,
    /// What plugins failed on.
    faults: Vec<Fault>,
    /// Set on the last piece: the partition is done when this piece is durable.
    last: Option<Finished>,
}

struct Finished {
    partition: u32,
    rows: u64,
    _gate: OwnedRwLockReadGuard<()>,
}

/// Loads every table that is not loaded yet and whose turn it is. On `stop` the partitions under way are finished and the
/// rest is left.
///
/// # Errors
/// Whatever either end or a plugin fails with; finished partitions stay finished.
pub(super) async fn load(
    session: &Arc<Session>,
    pipe: &Arc<Pipe>,
    start: &Position,
    stop: &CancellationToken,
) -> Result<()> {
    let records = pipe.store.records();
    let mut pending = records.names_where(|table| {
        table.state.is_loading() && table.load_end.is_none() && !append::awaits_its_moment(table)
    });
    // Sessions that are open wait for nobody.
    pending.sort_by_key(|name| {
        !records
            .tables
            .get(name)
            .is_some_and(|table| table.in_snapshot)
    });
    let parallel = session.config.snapshot.tables_in_parallel.get() as usize;
    stream::iter(pending)
        .map(|name| async move {
            if stop.is_cancelled() {
                return Ok(());
            }
            let loaded = load_table(session, pipe, &name, start, stop).await;
            match loaded.map_err(|error| error.with_table(&name)) {
                Err(error) if session.table(&name).target.is_append() => {
                    append::broke_off(pipe, &name, error)
                }
                loaded => loaded,
            }
        })
        .buffer_unordered(parallel)
        .try_collect()
        .await
}

/// A statement may have altered the table while it was read (pitfall 105). The stream meets it a moment later, and then
/// the load goes on with another definition, or this run has ended.
async fn load_table(
    session: &Arc<Session>,
    pipe: &Arc<Pipe>,
    name: &TableName,
    start: &Position,
    stop: &CancellationToken,
) -> Result<()> {
    loop {
        let table = session.table(name);
        let before = Arc::clone(&table.source);
        let error = match load_rest(session, pipe, name, start, stop).await {
            // The stream passes over what lies before the moment that the load reads: another one is needed.
            Err(error) if is_of_definition(&error) && table.target.is_append() => {
                return Err(append::broken_off(name).with_source(error));
            }
            Err(error) if is_of_definition(&error) => error,
            ended => return ended,
        };
        tracing::info!(table = %name, "the load waits for the stream to meet a statement: {}", error.chain());
        if !wait_until_met(session, &pipe.store, stop).await? {
            return Ok(());
        }
        if Arc::ptr_eq(&before, &session.table(name).source) {
            return Err(error);
        }
    }
}

/// Whether a definition that changed may be the reason.
fn is_of_definition(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::SourceMissing | ErrorKind::SchemaConflict
    )
}

/// Waits until the stream has met everything that the binlog holds now; false when stopped before.
async fn wait_until_met(
    session: &Arc<Session>,
    store: &Arc<PipeStore>,
    stop: &CancellationToken,
) -> Result<bool> {
    let now = snapshot::newest_place(&session.source, session.config.source.position).await?;
    let met = |records: &Arc<Records>| {
        records
            .checkpoint()
            .is_some_and(|at| at.place.position.contains(&now) == Some(true))
    };
    Ok(store.wait_until(stop, met).await)
}

async fn load_rest(
    session: &Arc<Session>,
    pipe: &Arc<Pipe>,
    name: &TableName,
    start: &Position,
    stop: &CancellationToken,
) -> Result<()> {
    let partitions = plan(session, pipe, name).await?;
    let done = pipe
        .store
        .records()
        .done
        .get(name)
        .cloned()
        .unwrap_or_default();
    let queue: VecDeque<Partition> = partitions
        .into_iter()
        .filter(|partition| !done.contains(&partition.number))
        .collect();
    if !queue.is_empty() {
        read_and_insert(session, pipe, name, start, queue, stop).await?;
    }
    if stop.is_cancelled() && !is_done(pipe, name) {
        return Ok(());
    }
    let end = snapshot::newest_place(&session.source, session.config.source.position).await?;
    pipe.store
        .commit(|draft| {
            draft.table_mut(name).load_end = Some(end);
            Ok(())
        })
        .await?;
    pipe.progress.waits.end(name);
    fault::point("load:4");
    Ok(())
}

fn is_done(pipe: &Arc<Pipe>, name: &TableName) -> bool {
    let records = pipe.store.records();
    let total = records
        .tables
        .get(name)
        .and_then(|table| table.partitions.as_ref())
        .map_or(usize::MAX, Vec::len);
    records.done.get(name).map_or(0, |done| done.len()) == total
}

/// The recorded partitions, or new ones: planned after the start place, once, so that a restart knows what is done.
async fn plan(
    session: &Arc<Session>,
    pipe: &Arc<Pipe>,
    name: &TableName,
) -> Result<Vec<Partition>> {
    if let Some(partitions) = pipe
        .store
        .records()
        .tables
        .get(name)
        .and_then(|table| table.partitions.clone())
    {
        return Ok(partitions);
    }
    let table = session.table(name);
    let mut conn = session.source.control().await?;
    let partitions = snapshot::plan_partitions(
        &mut conn,
        &session.source,
        &table.source,
        table.config.split_by.as_deref(),
        session.config.snapshot.rows_per_partition.get(),
    )
    .await?;
    let listed = catalog::describe_tables(&mut conn, std::slice::from_ref(name)).await?;
    let rows_estimated = listed.first().and_then(|table| table.row_estimate);
    conn.disconnect().await.ok();
    pipe.store
        .commit(|draft| {
            let record = draft.table_mut(name);
            record.rows_estimated = rows_estimated;
            record.partitions = Some(partitions.clone());
            record.load_server = Some(session.source.identity().clone());
            draft.table_event(name, TableEvent::Planned)
        })
        .await?;
    fault::point("load:2");
    Ok(partitions)
}

async fn read_and_insert(
    session: &Arc<Session>,
    pipe: &Arc<Pipe>,
    name: &TableName,
    start: &Position,
    queue: VecDeque<Partition>,
    stop: &CancellationToken,
) -> Result<()> {
    let readers = (session.config.snapshot.threads_per_table.get() as usize).min(queue.len());
    let (mut opened, window): (Vec<Option<SnapshotSession>>, _) =
        match session.table(name).target.is_append() {
            true => {
                let (sessions, window) = session.snapshots.take(name)?;
                (sessions.into_iter().map(Some).collect(), window)
            }
            false => (
                std::iter::repeat_with(|| None).take(readers).collect(),
                None,
            ),
        };
    opened.truncate(readers);
    let readers = opened.len();
    let queue = Arc::new(Mutex::new(queue));
    // One piece a reader: a reader that is ahead of the inserts waits with its next piece in hand.
    let (pieces, received) = mpsc::channel(readers);
    // Dropped with this future, and then every reader is aborted.
    let mut tasks = JoinSet::new();
    for opened in opened {
        let reader = Reader {
            session: Arc::clone(session),
            name: name.clone(),
            queue: Arc::clone(&queue),
            window: window.clone(),
            pieces: pieces.clone(),
            stop: stop.clone(),
        };
        let start = proved(&pipe.store.records(), name, start);
        tasks.spawn(async move { reader.run(&start, opened).await });
    }
    drop(pieces);
    let read_all = async {
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(|error| {
                Error::new(ErrorKind::Internal, "a reader panicked").with_source(error)
            })??;
        }
        Ok(())
    };
    tokio::try_join!(read_all, insert(session, pipe, name, received)).map(drop)
}

/// What the server must hold for its rows to be those of the load: a table's own place may be ahead of the pipe's, and
/// whatever is behind it is passed over.
fn proved(records: &Records, name: &TableName, start: &Position) -> Position {
    let table = records.tables.get(name);
    let own = table.and_then(|table| table.place.as_ref());
    let ahead = own.filter(|own| own.place.position.contains(start) == Some(true));
    ahead.map_or_else(|| start.clone(), |own| own.place.position.clone())
}

/// Takes the next partition until none is left.
struct Reader {
    session: Arc<Session>,
    name: TableName,
    queue: Arc<Mutex<VecDeque<Partition>>>,
    /// What has changed while the sessions began.
    window: Option<Arc<Window>>,
    pieces: mpsc::Sender<Piece>,
    stop: CancellationToken,
}

impl Reader {
    /// `opened` is the session of a load that reads one moment.
    async fn run(&self, start: &Position, opened: Option<SnapshotSession>) -> Result<()> {
        let session = match opened {
            Some(session) => session,
            None => SnapshotSession::open(&self.session.source, Some(start)).await?,
        };
        let mut reader = PartitionReader::new(session);
        while !self.stop.is_cancelled() {
            let Some(partition) = self
                .queue
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front()
            else {
                break;
            };
            self.read(&mut reader, &partition).await?;
        }
        Ok(())
    }

    async fn read(&self, reader: &mut PartitionReader, partition: &Partition) -> Result<()> {
        // The gate before the definition: a statement that changes the table waits for the one and changes the other.
        let gate = Arc::clone(&self.session.table(&self.name).gate)
            .read_owned()
            .await;
        let table = self.session.table(&self.name);
        let window = self.window.as_ref();
        if window.is_some_and(|window| !window.is_of(&table.source.schema)) {
            return Err(append::broken_off(&self.name));
        }
        let mut builder = TableBuilder::new(&table.source, !self.session.config.nullable)?;
        let mut rows = self.send_meanwhile(&table, partition).await?;
        reader.start(&table.source, partition).await?;
        loop {
            let more = reader
                .next_rows(|packet| builder.push_packet_row(packet))
                .await?;
            let ready = !more || builder.byte_count() >= HAND_ON_BYTES;
            if ready {
                let mut batch = ChangeBatch {
                    schema: Arc::clone(&table.source.schema),
                    row_count: builder.row_count(),
                    columns: builder.finish(),
                    changes: Changes::Load,
                };
                if let Some(window) = &self.window {
                    batch = window.leave_out(batch)?;
                }
                rows += batch.row_count as u64;
                let mut piece = Piece {
                    last: None,
                    ..self.transformed(&table, batch, partition).await?
                };
                piece.changed = builder.take_changed();
                if more {
                    self.send(piece).await?;
                } else {
                    reader.release().await?;
                    piece.last = Some(Finished {
                        partition: partition.number,
                        rows,
                        _gate: gate,
                    });
                    return self.send(piece).await;
                }
            }
        }
    }

    /// Sends the rows of the keys that are left out of every partition along with the first one. Returns how many.
    async fn send_meanwhile(&self, table: &LiveTable, partition: &Partition) -> Result<u64> {
        let rows = self.window.as_ref().and_then(|window| window.take_rows());
        let Some(Stood { batch, changed }) = rows else {
            return Ok(0);
        };
        let row_count = batch.row_count as u64;
        let mut piece = self.transformed(table, batch, partition).await?;
        piece.changed = changed;
        self.send(piece).await?;
        Ok(row_count)
    }

    /// Dead letters are durable before the piece is sent, so a partition is not done before them.
    async fn transformed(
        &self,
        table: &LiveTable,
        batch: ChangeBatch,
        partition: &Partition,
    ) -> Result<Piece> {
        let at = format!("load, partition {}", partition.number);
        let (applied, _letters) = transform(&self.session, table, batch, &at).await?;
        let targets = table.load_targets();
        let batches = applied.batches.into_iter();
        Ok(Piece {
            batches: batches
                .map(|(output, batch)| (targets[output].clone(), batch))
                .collect(),
            partition: partition.number,
            changed: Vec::new(),
            faults: applied.faults,
            last: None,
        })
    }

    async fn send(&self, piece: Piece) -> Result<()> {
        // The inserter has gone only with an error of its own, which is the one to report.
        self.pieces
            .send(piece)
            .await
            .map_err(|_| Error::new(ErrorKind::Stopped, "the load was given up"))
    }
}

/// Gathers pieces into inserts: one is under way while the next is gathered.
async fn insert(
    session: &Arc<Session>,
    pipe: &Arc<Pipe>,
    name: &TableName,
    mut pieces: mpsc::Receiver<Piece>,
) -> Result<()> {
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
                std::mem::take(&mut gathered).insert(session, pipe, name, counted),
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

    async fn insert(
        self,
        session: &Arc<Session>,
        pipe: &Arc<Pipe>,
        name: &TableName,
        mut unfinished: Unfinished,
    ) -> Result<Unfinished> {
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
