//! The load: partitions read and inserted in parallel while the stream is followed.
//!
//! Every row of a load has version 0, below all that the stream writes, so a partition may be read at any moment at or
//! after the start place, and read again after a crash: whatever changed since the start place arrives by the stream
//! with a higher version. How far the rows may reach that were read is recorded before they are written ([`reaching`]).
//! A partition is marked done in one write after its last row is durable. When all are done the table's end place is taken;
//! once the checkpoint has passed it, the table equals the source. Loads of append tables read one moment instead
//! ([`append`]).
//!
//! [`reaching`]: super::reaching

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::append;
use super::apply::transform;
use super::gathered::{Finished, Loading, Piece, insert};
use super::reaching::{Reaching, Read};
use super::record::Records;
use super::session::{LiveTable, Session};
use super::store::PipeStore;
use super::supervisor::Pipe;
use super::table_state::TableEvent;
use crate::batch::{ChangeBatch, Changes, TableName};
use crate::error::{Error, ErrorKind, Result};
use crate::fault;
use crate::source::mysql::catalog;
use crate::source::mysql::decode::TableBuilder;
use crate::source::mysql::position::Position;
use crate::source::mysql::snapshot::{
    self, Partition, PartitionReader, SnapshotSession, Stood, Window,
};

/// A reader hands on what it has decoded at this size, so that transform and insert begin before a partition ends: with
/// 16 MiB ClickHouse stood idle for the first tenth of a load of 2,000,000 rows.
const HAND_ON_BYTES: usize = 4 << 20;

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
    let reaching = match session.table(name).target.is_append() {
        true => Reaching::NOT,
        false => Reaching::open(&session.source).await?,
    };
    let partitions = plan(session, pipe, name).await?;
    // Also before anything is read: with a place it does not matter on which server it was planned.
    reaching.record(&pipe.store, name, Read::Load).await?;
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
        let loading = Loading {
            session,
            pipe,
            name,
            reaching: &Arc::new(reaching),
        };
        read_and_insert(loading, start, queue, stop).await?;
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
    loading: Loading<'_>,
    start: &Position,
    queue: VecDeque<Partition>,
    stop: &CancellationToken,
) -> Result<()> {
    let Loading {
        session,
        pipe,
        name,
        reaching,
    } = loading;
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
            pipe: Arc::clone(pipe),
            name: name.clone(),
            reaching: Arc::clone(reaching),
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
    tokio::try_join!(read_all, insert(loading, received)).map(drop)
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
    pipe: Arc<Pipe>,
    name: TableName,
    reaching: Arc<Reaching>,
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
        if table.chain.keeps_letters() {
            let store = &self.pipe.store;
            self.reaching.record(store, &self.name, Read::Load).await?;
        }
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
