//! One moment of a table of MySQL without a lock: snapshots that began at different moments, made one by the binlog.
//!
//! Three things come in this order. *Low* is a place of which every snapshot that begins later shows all; then the
//! snapshots begin, each at its own moment; *high* is a place that holds all that any of them shows. The binlog is read from
//! low to *the moment*, a place at or behind high where a transaction ends, and the changes of the table in between are its
//! window. What the table was at the moment is then: the rows of the snapshots whose keys no event of the window names,
//! and for each key that is named the row that its last event left, if it left one. The stream goes on at the moment.
//!
//! - *A row whose key is not named* did not change between low and the moment. So every snapshot shows the same of it, and
//!   that is what it was at the moment.
//! - *A row whose key is named* is dropped from whatever a snapshot shows, and the last event says whether there is a
//!   row of these key bytes at the moment, and which.
//! - *Keys are compared bit for bit, and no collation is asked.* Keys that a collation takes for the same ('a' and 'A',
//!   0.0 and -0.0) are there one after the other, never together. A change from one to the other names both, the old one
//!   in its image before and the new one behind, so either spelling that a snapshot may show is dropped. Both sides are
//!   decoded by the one decoder of their type before they are compared. Two texts of a charset that writes one character
//!   in two ways are one key here, as they are one key at the target.
//! - *Low:* MySQL adds a transaction to `gtid_executed` after the engine has it, so what is in there is in every later
//!   snapshot. By file and offset it is where the current file begins.
//! - *High:* the engine has a transaction, and shows it, before `gtid_executed` does. But it owns its GTID from before it is
//!   written to the binlog until it has been added there: what is shown when the last snapshot has begun is owned or
//!   executed. So those that are owned are waited for, and what is executed then is high. By file and offset it is the
//!   binlog's end, since the binlog is written before the engine commits.
//! - *The moment is at or behind the pipe's checkpoint,* since what was read from the binlog was written to it, and so is
//!   executed or owned as well. No event of the table falls between the two.
//! - *XA:* nothing is prepared at low, so each PREPARE that matters is in the window; it counts at its COMMIT, and the moment
//!   is not between the two.
//!
//! A statement on the table in the window, or a window that is too large, begins it again with new snapshots; by file and
//! offset the same file would be read again, and the table waits. What may hold a window up is waited for beside the pipe's
//! stream ([`what_holds`]), which stands still while the window is taken. Changes that no binlog shows (cascades) could fall
//! between two snapshots, so such tables are refused; so are those without a key, where the pipe binds them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::BooleanArray;
use arrow::error::ArrowError;
use tokio::time::Instant;

use super::super::Source;
use super::super::binlog::{
    BinlogStream, ChangeBuilder, Decided, Item, Prepared, RowEvents, StreamOptions, TableFilter,
    Xid,
};
use super::super::cascades::unlogged_cascades;
use super::super::catalog::SourceTable;
use super::super::position::{Position, StreamPlace};
use super::super::wire::WireConn;
use super::boundary::{
    XaPatience, binlog_end, ensure_same_server, file_position, place_now, prepared_transactions,
};
use super::consistent::{Attempt, BEGIN, Consistent, in_snapshots};
use crate::batch::{Adjustment, ChangeBatch, Changes, Keys, Op, TableSchema};
use crate::error::{Error, ErrorKind, Result};

/// How often the window is begun again before somebody is told.
const ATTEMPTS: u32 = 3;

/// How long transactions may hold it up; the pipe's stream stands still meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long its binlog may take to be read. Without GTIDs, where that is the whole of the current file, it is no longer than
/// [`PATIENCE`].
const READ_DEADLINE: Duration = Duration::from_secs(60);

/// How often it is asked which GTIDs are owned.
const OWNED_POLL: Duration = Duration::from_millis(20);

/// What a window may keep in memory; its binlog is some milliseconds long.
const WINDOW_BYTES: u64 = 64 << 20;

/// What a row takes beside its values: its key among the others, and its place in both maps of them.
const ROW_OVERHEAD: u64 = 128;

/// How a moment is found without a lock.
#[derive(Debug)]
pub struct Unlocked<'a> {
    /// The table as it is recorded.
    pub table: &'a Arc<SourceTable>,
    /// As for [`ChangeBuilder::new`].
    pub null_as_default: bool,
    /// How the binlog is read.
    pub stream: StreamOptions,
}

/// What has changed in a table while the snapshots of its load began.
#[derive(Debug)]
pub struct Window {
    schema: Arc<TableSchema>,
    keys: Keys,
    touched: HashSet<Box<[u8]>>,
    /// Until they are taken.
    rows: Mutex<Option<Stood>>,
}

/// What stands for the rows that are left out: those of the touched keys that were there at the moment.
#[derive(Debug)]
pub struct Stood {
    /// The rows.
    pub batch: ChangeBatch,
    /// What policies have changed in the window's rows.
    pub changed: Vec<Adjustment>,
}

impl Window {
    /// Whether the changes were those of a table of this form, so that its keys can be told in rows of it.
    pub fn is_of(&self, schema: &TableSchema) -> bool {
        *self.schema == *schema
    }

    /// The rows of a load whose keys have not changed.
    ///
    /// # Errors
    /// `Internal` for a batch of another table.
    pub fn leave_out(&self, batch: ChangeBatch) -> Result<ChangeBatch> {
        let keys = self.keys.of(&batch.columns).map_err(unfit)?;
        let stays = |key: &[u8]| !self.touched.contains(key);
        let mask: Vec<bool> = keys.iter().map(|key| stays(key.as_ref())).collect();
        if mask.iter().all(|stays| *stays) {
            return Ok(batch);
        }
        batch.keep(&BooleanArray::from(mask)).map_err(unfit)
    }

    /// What stands for the rows that are left out; none when it was taken before.
    pub fn take_rows(&self) -> Option<Stood> {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.take()
    }

    /// The window of these changes, in binlog order.
    fn of(table: &SourceTable, changes: ChangeBatch, changed: Vec<Adjustment>) -> Result<Self> {
        let keys = Keys::new(&changes.columns, &table.schema.key).map_err(unfit)?;
        let named = keys.of(&changes.columns).map_err(unfit)?;
        let mut last: HashMap<Box<[u8]>, usize> = HashMap::new();
        for (index, key) in named.iter().enumerate() {
            last.insert(key.as_ref().into(), index);
        }
        let mut stands = vec![false; changes.row_count];
        if let Changes::Stream { ops, .. } = &changes.changes {
            for &index in last.values() {
                if let Some(stands) = stands.get_mut(index) {
                    *stands = ops.get(index) != Some(&Op::Delete);
                }
            }
        }
        let mut batch = changes.keep(&BooleanArray::from(stands)).map_err(unfit)?;
        batch.changes = Changes::Load;
        tracing::info!(
            table = %table.name(),
            keys = last.len(),
            rows = batch.row_count,
            "rows have changed while the snapshots of a load began"
        );
        Ok(Self {
            schema: Arc::clone(&table.schema),
            keys,
            touched: last.into_keys().collect(),
            rows: Mutex::new(Some(Stood { batch, changed })),
        })
    }
}

fn unfit(error: ArrowError) -> Error {
    Error::new(
        ErrorKind::Internal,
        "rows of a load do not fit the keys that have changed meanwhile",
    )
    .with_source(error)
}

/// What became of a step: it is done, or something that passes stands in the way.
enum Met<T> {
    Done(T),
    Obstacle(Error),
}

/// Begins a snapshot in each session and reads what has changed meanwhile.
///
/// # Errors
/// `Unsupported` for a table whose changes are not all in the binlog; failures of the queries, and of the rows of the window.
pub(super) async fn take(
    source: &Arc<Source>,
    by_gtid: bool,
    unlocked: &Unlocked<'_>,
    mut conns: Vec<WireConn>,
) -> Result<Attempt> {
    ensure_logged(source, unlocked.table).await?;
    let mut side = WireConn::connect(source.config()).await?;
    ensure_same_server(&mut side, source).await?;
    let mut attempt = 1;
    let (place, window) = loop {
        let read = match snapshots_between(source, by_gtid, &mut side, &mut conns).await? {
            Met::Done((low, high)) => read(source, unlocked, low, &high).await?,
            Met::Obstacle(held) => return Ok(Attempt::Held(held)),
        };
        match read {
            Met::Done(read) => break read,
            // By file and offset it would be the same file once more.
            Met::Obstacle(_) if by_gtid && attempt < ATTEMPTS => attempt += 1,
            Met::Obstacle(held) => return Ok(Attempt::Held(held)),
        }
    };
    // The key may have come while the snapshots began.
    ensure_logged(source, unlocked.table).await?;
    side.quit().await;
    Ok(Attempt::Taken(Consistent {
        place,
        sessions: in_snapshots(conns).await?,
        window,
    }))
}

/// What would hold a window up that is taken now, once it has been waited for in vain.
///
/// # Errors
/// As [`take`].
pub(super) async fn what_holds(
    source: &Arc<Source>,
    by_gtid: bool,
    unlocked: &Unlocked<'_>,
) -> Result<Option<Error>> {
    let mut side = WireConn::connect(source.config()).await?;
    ensure_same_server(&mut side, source).await?;
    let met = match low(source, by_gtid, &mut side).await? {
        Met::Obstacle(held) => Met::Obstacle(held),
        Met::Done(_) if by_gtid => wait_for_owned(&mut side).await?,
        Met::Done(low) => {
            let high = high(source, by_gtid, &mut side).await?;
            match read(source, unlocked, low, &high).await? {
                Met::Done(_) => Met::Done(()),
                Met::Obstacle(held) => Met::Obstacle(held),
            }
        }
    };
    side.quit().await;
    Ok(match met {
        Met::Done(()) => None,
        Met::Obstacle(held) => Some(held),
    })
}

/// Begins a snapshot in each session, in place of one that it has. Returns low and high.
async fn snapshots_between(
    source: &Arc<Source>,
    by_gtid: bool,
    side: &mut WireConn,
    conns: &mut [WireConn],
) -> Result<Met<(Position, Position)>> {
    let low = match low(source, by_gtid, side).await? {
        Met::Done(low) => low,
        Met::Obstacle(held) => return Ok(Met::Obstacle(held)),
    };
    for conn in conns {
        conn.query_ok(BEGIN).await?;
    }
    if by_gtid && let Met::Obstacle(held) = wait_for_owned(side).await? {
        return Ok(Met::Obstacle(held));
    }
    let high = high(source, by_gtid, side).await?;
    Ok(Met::Done((low, high)))
}

async fn low(source: &Source, by_gtid: bool, side: &mut WireConn) -> Result<Met<Position>> {
    let mut patience = XaPatience::of(PATIENCE);
    loop {
        // Looked at on both sides, as for every start of a load.
        let mut prepared = prepared_transactions(side).await?;
        if prepared.is_empty() {
            let low = place_now(side, source, by_gtid).await?;
            prepared = prepared_transactions(side).await?;
            if prepared.is_empty() {
                return Ok(Met::Done(low));
            }
        }
        if let Err(held) = patience.wait(&prepared).await {
            return Ok(Met::Obstacle(held));
        }
    }
}

async fn high(source: &Source, by_gtid: bool, side: &mut WireConn) -> Result<Position> {
    match by_gtid {
        true => place_now(side, source, by_gtid).await,
        false => {
            let (file, offset) = binlog_end(side, source).await?;
            Ok(file_position(source, file, offset))
        }
    }
}

/// Waits until no GTID is owned that is owned now.
async fn wait_for_owned(conn: &mut WireConn) -> Result<Met<()>> {
    let until = Instant::now() + PATIENCE;
    let mut awaited = owned(conn).await?;
    while !awaited.is_empty() {
        if Instant::now() >= until {
            return Ok(Met::Obstacle(Error::new(
                ErrorKind::SourceUnavailable,
                "transactions at the source keep their GTIDs without an end, so the moment that a load reads is not known",
            )
            .with_hint(
                "it is tried again; end the sessions that have set `gtid_next`, or set `snapshot: { allow_locks: true }`",
            )));
        }
        tokio::time::sleep(OWNED_POLL).await;
        let now = owned(conn).await?;
        awaited.retain(|gtid| now.contains(gtid));
    }
    Ok(Met::Done(()))
}

async fn owned(conn: &mut WireConn) -> Result<BTreeSet<String>> {
    let text = conn.query_value("SELECT @@GLOBAL.gtid_owned").await?;
    Ok(gtids_owned(&text.unwrap_or_default()))
}

/// Each with its server, tag and owner. The server writes `uuid:number#owner` for each, and one behind the other without
/// anything in between, so only the length of a UUID tells where the next one begins (seen with 9.7.4).
fn gtids_owned(text: &str) -> BTreeSet<String> {
    const DASHES: usize = 4;
    const BEFORE_DASH: usize = 8;
    let dashes: Vec<usize> = text.match_indices('-').map(|(at, _)| at).collect();
    let starts = dashes.chunks(DASHES).filter_map(|dashes| dashes.first());
    let starts: Vec<usize> = starts
        .map(|dash| dash.saturating_sub(BEFORE_DASH))
        .collect();
    let ends = starts.iter().copied().skip(1).chain([text.len()]);
    let mut gtids = BTreeSet::new();
    for server in starts
        .iter()
        .zip(ends)
        .filter_map(|(&start, end)| text.get(start..end))
    {
        let between = |symbol: char| symbol == ',' || symbol.is_whitespace();
        let mut parts = server.split(':').map(|part| part.trim_matches(between));
        let mut whose = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            match part.contains('#') {
                true => {
                    gtids.insert(format!("{whose}:{part}"));
                }
                false => whose = format!("{whose}:{part}"),
            }
        }
    }
    gtids
}

/// Reads the table's changes from `low` until all up to `high` has been read. Returns where that was.
async fn read(
    source: &Arc<Source>,
    unlocked: &Unlocked<'_>,
    low: Position,
    high: &Position,
) -> Result<Met<(Position, Option<Arc<Window>>)>> {
    if low.contains(high) == Some(true) {
        return Ok(Met::Done((low, None)));
    }
    let table = unlocked.table;
    let from = StreamPlace {
        position: low,
        offset: 0,
    };
    let filter = Arc::new(TableFilter::new([table.name().clone()]));
    let mut stream = BinlogStream::open(source, &from, filter, &unlocked.stream).await?;
    let mut changes = Reading::new(unlocked)?;
    let deadline = match high {
        Position::File { .. } => PATIENCE,
        Position::Gtid { .. } | Position::MariaGtid { .. } => READ_DEADLINE,
    };
    let mut until = Instant::now() + deadline;
    let mut arrived = false;
    loop {
        let Ok(item) = tokio::time::timeout_at(until, stream.next()).await else {
            return Ok(Met::Obstacle(changes.late()));
        };
        let item = item?;
        let place = item.end().position.clone();
        match changes.take(item) {
            Ok(Met::Done(())) => {}
            Ok(Met::Obstacle(held)) => return Ok(Met::Obstacle(held)),
            // What altered it comes behind them, or came before low.
            Err(error) if error.kind() == ErrorKind::SchemaConflict => {
                let held =
                    disturbed("rows of the table as it was before an alteration have changed");
                return Ok(Met::Obstacle(held.with_source(error)));
            }
            Err(error) => return Err(error),
        }
        let contained = place.contains(high).ok_or_else(|| {
            Error::new(
                ErrorKind::SourceUnavailable,
                "the binlog was begun anew while the moment of a load was looked for",
            )
        })?;
        if contained && !arrived {
            arrived = true;
            until = until.min(Instant::now() + PATIENCE);
        }
        if arrived && !changes.awaits_decision() {
            return Ok(Met::Done((place, changes.finish()?)));
        }
    }
}

/// The changes of the table so far.
struct Reading<'a> {
    table: &'a SourceTable,
    builder: ChangeBuilder,
    /// Transactions that are prepared and not decided.
    prepared: HashMap<Xid, Prepared>,
    /// What each of them, and the transaction in hand, keeps in memory at most.
    memory_bytes: u64,
}

impl<'a> Reading<'a> {
    fn new(unlocked: &Unlocked<'a>) -> Result<Self> {
        let table = unlocked.table;
        let null_as_default = unlocked.null_as_default;
        Ok(Self {
            builder: ChangeBuilder::new(Arc::clone(table), table.key_ordinals(), null_as_default)?,
            table,
            prepared: HashMap::new(),
            memory_bytes: unlocked.stream.memory_bytes as u64,
        })
    }

    fn take(&mut self, item: Item) -> Result<Met<()>> {
        match item {
            Item::Transaction(mut transaction) => {
                let in_hand = self.in_memory(transaction.byte_count());
                self.push(transaction.row_events()?, in_hand)
            }
            Item::Prepared(prepared) => {
                self.prepared.insert(prepared.xid.clone(), prepared);
                Ok(self.within_bounds(0))
            }
            Item::Decided(decided) => self.decide(&decided),
            Item::Statement(_) => Ok(Met::Obstacle(disturbed(
                "a statement has changed the table, or may have,",
            ))),
            Item::Idle(_) => Ok(Met::Done(())),
        }
    }

    fn decide(&mut self, decided: &Decided) -> Result<Met<()>> {
        match self.prepared.remove(&decided.xid) {
            Some(mut prepared) if decided.commit => {
                let in_hand = self.in_memory(prepared.byte_count());
                self.push(prepared.row_events(decided.base)?, in_hand)
            }
            // Nobody could see it prepared, and what it has changed cannot be told.
            None if decided.commit => Ok(Met::Obstacle(disturbed(
                "an XA transaction that was prepared before has been committed",
            ))),
            Some(_) | None => Ok(Met::Done(())),
        }
    }

    /// Pushes the rows of what keeps so many bytes in memory.
    fn push(&mut self, mut events: RowEvents<'_>, in_hand: u64) -> Result<Met<()>> {
        while let Some(event) = events.next()? {
            // The engine of an append table rolls back.
            if event.undone {
                continue;
            }
            self.builder.push_event(&event, 0)?;
            if let Met::Obstacle(held) = self.within_bounds(in_hand) {
                return Ok(Met::Obstacle(held));
            }
        }
        Ok(Met::Done(()))
    }

    /// Of so many bytes of row events, those that are not on disk.
    fn in_memory(&self, byte_count: u64) -> u64 {
        byte_count.min(self.memory_bytes)
    }

    fn within_bounds(&self, in_hand: u64) -> Met<()> {
        let rows = self.builder.row_count() as u64 * ROW_OVERHEAD;
        let decoded = self.builder.byte_count() as u64 + rows;
        let prepared = self.prepared.values();
        let prepared = prepared.map(|prepared| self.in_memory(prepared.byte_count()));
        match in_hand + decoded + prepared.sum::<u64>() <= WINDOW_BYTES {
            true => Met::Done(()),
            false => Met::Obstacle(disturbed(
                "transactions have changed more of the table than is kept in memory",
            )),
        }
    }

    /// Whether a transaction with rows of the table is between its PREPARE and its decision.
    fn awaits_decision(&self) -> bool {
        let mut prepared = self.prepared.values();
        prepared.any(|prepared| prepared.byte_count() > 0)
    }

    fn late(&self) -> Error {
        match self.awaits_decision() {
            true => disturbed("an XA transaction with rows of the table stays prepared"),
            false => disturbed("the binlog takes long to be read"),
        }
    }

    fn finish(mut self) -> Result<Option<Arc<Window>>> {
        let Some(changes) = self.builder.finish() else {
            return Ok(None);
        };
        let changed = self.builder.take_changed();
        let window = Window::of(self.table, changes, changed)?;
        Ok(Some(Arc::new(window)))
    }
}

fn disturbed(what: &str) -> Error {
    Error::new(
        ErrorKind::SourceUnavailable,
        format!("{what} while the load of an append table was to begin without a lock"),
    )
    .with_hint(
        "it is tried again; let the table be for a moment, or set `snapshot: { allow_locks: true }`; by file and offset also \
         run FLUSH BINARY LOGS, since the current file is read from its beginning",
    )
}

/// InnoDB carries out foreign keys' actions by itself, and no event tells which snapshots show them.
async fn ensure_logged(source: &Arc<Source>, table: &SourceTable) -> Result<()> {
    let mut conn = source.control().await?;
    let found = unlogged_cascades(&mut conn, [table.name()]).await;
    conn.disconnect().await.ok();
    if found?.cascades.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Unsupported,
        "rows of the table follow a foreign key, which the binlog does not show, so the load of an append table cannot \
         begin without a lock",
    )
    .with_hint(
        "set `snapshot: { allow_locks: true }` and GRANT LOCK TABLES, or use `engine: replacing`",
    ))
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
