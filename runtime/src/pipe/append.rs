//! Loads of append tables.
//!
//! Rows of an append table are never replaced, so its load reads one moment, and its stream begins where that moment is.
//! Both are taken between two runs, while nothing follows the binlog: the sessions that will read are opened in the
//! snapshot, and its place is recorded as the table's own, up to which events are passed over. The moment is gone with
//! the sessions. A load that was interrupted therefore begins anew, beside what it has left, and is exchanged for it.
//!
//! No more moments are taken for a run than tables are loaded at once, so that no session waits for hours. The others wait
//! for theirs, all of their events being passed over meanwhile, and the run ends when their turn has come. So does a
//! table that somebody's transactions keep from being locked, or whose load broke off ([`super::waits`]); one that
//! cannot be read in this way at all is taken out of service. None of them holds up another.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::BooleanArray;
use tokio_util::sync::CancellationToken;

use super::attach::{Attached, attach};
use super::quarantine;
use super::record::{TablePlace, TableRecord, random_server_id};
use super::resync;
use super::session::{LiveTable, Session};
use super::setup;
use super::supervisor::Pipe;
use super::waits::Waits;
use crate::batch::{ChangeBatch, Changes, Op, TableName, Version};
use crate::config::{Engine, Keyless, Mode, PipeConfig, RowImage, SourceType, TableConfig};
use crate::destination::clickhouse::TargetTable;
use crate::error::{Error, ErrorKind, Result, Retry, Scope};
use crate::source::mysql::binlog::StreamOptions;
use crate::source::mysql::catalog::SourceTable;
use crate::source::mysql::position::{Position, StreamPlace};
use crate::source::mysql::snapshot::{self, Attempt, SnapshotSession, Unlocked, Wanted, Window};
use crate::transform::Chain;

/// How often a statement may come between a table's definition and its snapshot before the run is tried again later.
const ROUNDS: u32 = 5;

/// How often it is looked whether the next load can begin.
const NEXT_INTERVAL: Duration = Duration::from_millis(500);

/// What waits for a table's load to read by it: at least one session, and what has changed while they began.
pub(super) type Opened = (Vec<SnapshotSession>, Option<Arc<Window>>);

/// The moments that were taken.
#[derive(Debug, Default)]
pub(super) struct Snapshots(Mutex<BTreeMap<TableName, Opened>>);

impl Snapshots {
    fn keep(&self, name: &TableName, opened: Opened) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(name.clone(), opened);
    }

    /// What the table's load reads by.
    ///
    /// # Errors
    /// `SourceUnavailable` when it is gone.
    pub(super) fn take(&self, name: &TableName) -> Result<Opened> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(name).ok_or_else(|| broken_off(name))
    }
}

const BROKEN_OFF: &str = "the load of an append table broke off, and begins anew";

/// The error of a load that cannot go on in the moment that it began in.
pub(super) fn broken_off(name: &TableName) -> Error {
    Error::new(ErrorKind::SourceUnavailable, BROKEN_OFF)
        .with_hint(
            "wait: the table is loaded anew by itself, after a longer time with each attempt",
        )
        .with_table(name)
}

/// Attaches, and opens snapshots for the append tables that are to be loaded next.
///
/// # Errors
/// As [`attach`], [`resync::begin_anew`] and [`snapshot::take_consistent`].
pub(super) async fn attach_with_snapshots(pipe: &Arc<Pipe>) -> Result<Attached> {
    let mut round = 0;
    loop {
        let attached = attach(pipe).await?;
        let session = &attached.session;
        let record = pipe.store.record();
        session.destination.write_as(pipe.store.pipe(), record.term);
        let mut anew = pipe.store.records().names_where(reads_its_moment);
        if anew.is_empty() {
            anew = take_snapshots(session, pipe).await?;
        }
        if anew.is_empty() {
            return Ok(attached);
        }
        let tables: Vec<String> = anew.iter().map(ToString::to_string).collect();
        tracing::info!(
            pipe = pipe.store.pipe(),
            tables = tables.join(", "),
            "loads of append tables begin anew"
        );
        for name in &anew {
            begin_anew(session, pipe, name).await?;
        }
        round += 1;
        if round >= ROUNDS {
            for name in &anew {
                pipe.progress.waits.hold(name, &kept_changing(name));
            }
        }
    }
}

/// Makes the load of one table begin anew. What keeps it from that is this table's trouble, and stops no other.
async fn begin_anew(session: &Session, pipe: &Pipe, name: &TableName) -> Result<()> {
    let error = match resync::begin_anew(session, pipe, std::slice::from_ref(name)).await {
        Ok(fresh) => return pipe.store.commit(|draft| fresh.record(draft, true)).await,
        Err(error) => error,
    };
    match concerns_one_table(&error) {
        true => take_out(pipe, name, &error.with_table(name)).await,
        false => Err(error),
    }
}

/// Whether what keeps a load from beginning is the trouble of its table, until somebody has mended it.
pub(super) fn concerns_one_table(error: &Error) -> bool {
    error.kind().scope() == Scope::Table && error.kind().retry() == Retry::AfterOperator
}

/// Takes a table out of service.
///
/// # Errors
/// When none is left.
pub(super) async fn take_out(pipe: &Pipe, name: &TableName, error: &Error) -> Result<()> {
    match quarantine::quarantine(pipe, name, error).await? {
        true => Ok(()),
        false => Err(quarantine::nothing_left(error)),
    }
}

fn kept_changing(name: &TableName) -> Error {
    Error::new(
        ErrorKind::SourceUnavailable,
        "statements keep changing an append table whose load is to begin",
    )
    .with_hint("it is tried again; let the table be for a moment")
    .with_table(name)
}

/// A snapshot was taken for its load, and the load has not come to its end. At the beginning of a run it never will.
fn reads_its_moment(table: &TableRecord) -> bool {
    table.state.is_loading() && table.in_snapshot && table.load_end.is_none()
}

/// The moment that its load reads is still to be taken: until then nothing of the stream is the table's.
pub(super) fn awaits_its_moment(table: &TableRecord) -> bool {
    table.appends && table.state.is_loading() && !table.in_snapshot && table.load_end.is_none()
}

/// Opens the snapshots of the tables that are next. Returns tables whose definitions are no longer the recorded ones.
async fn take_snapshots(session: &Session, pipe: &Pipe) -> Result<Vec<TableName>> {
    let waits = &pipe.progress.waits;
    let mut waiting = pipe.store.records().names_where(awaits_its_moment);
    in_turn(waits, &mut waiting);
    let mut left = session.config.snapshot.tables_in_parallel.get();
    let mut changed = Vec::new();
    let mut places = Vec::new();
    for name in waiting {
        if left == 0 {
            break;
        }
        let Some(attempt) = take(session, pipe, &name, &mut left).await? else {
            continue;
        };
        // Read behind the snapshot: the same as before, it was the same then. What holds it up may be that it is not.
        let matched = setup::recorded(&session.config, std::slice::from_ref(&name))?;
        let now = setup::definitions(session, &matched).await?;
        if now.first() != Some(&*session.table(&name).source) {
            changed.push(name);
            continue;
        }
        let Attempt::Taken(taken) = attempt else {
            continue;
        };
        let opened = (taken.sessions, taken.window);
        session.snapshots.keep(&name, opened);
        places.push((name, taken.place));
    }
    if changed.is_empty() && !places.is_empty() {
        for (name, _) in &places {
            waits.begin(name);
        }
        pipe.store
            .commit(|draft| {
                for (name, position) in places {
                    let table = draft.table_mut(&name);
                    table.in_snapshot = true;
                    table.place = Some(ahead_at(position));
                }
                Ok(())
            })
            .await?;
    }
    Ok(changed)
}

/// Leaves those that are tried now, in that order: those that were held come behind those that were not tried yet.
fn in_turn(waits: &Waits, names: &mut Vec<TableName>) {
    names.retain(|name| waits.is_due(name));
    names.sort_by_key(|name| waits.is_held(name));
}

/// Takes one table's moment, or has it wait; none when it is out of service now.
async fn take(
    session: &Session,
    pipe: &Pipe,
    name: &TableName,
    left: &mut u32,
) -> Result<Option<Attempt>> {
    let table = session.table(name);
    let mode = session.config.source.position;
    let wanted = wanted(&session.config, &table);
    match snapshot::take_consistent(&session.source, mode, &wanted).await {
        Ok(attempt) => {
            // Also of one that is held: the stream stands still while it is tried.
            *left -= 1;
            if let Attempt::Held(error) = &attempt {
                pipe.progress.waits.hold(name, error);
            }
            Ok(Some(attempt))
        }
        Err(error) if error.kind().retry() == Retry::AfterOperator => {
            take_out(pipe, name, &error).await?;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn wanted<'a>(config: &PipeConfig, table: &'a LiveTable) -> Wanted<'a> {
    Wanted {
        table: table.source.name(),
        sessions: config.snapshot.threads_per_table.get() as usize,
        unlocked: match config.snapshot.allow_locks {
            true => None,
            false => Some(unlocked(config, table)),
        },
    }
}

fn unlocked<'a>(config: &PipeConfig, table: &'a LiveTable) -> Unlocked<'a> {
    let mut stream = StreamOptions::new(random_server_id(), &config.pipe);
    stream.memory_bytes = usize::try_from(config.memory_part()).unwrap_or(usize::MAX);
    stream.spill_folder.clone_from(&config.spill_dir);
    Unlocked {
        table: &table.source,
        null_as_default: !config.nullable,
        stream,
    }
}

/// The place of a table that stands ahead of the stream.
fn ahead_at(position: Position) -> TablePlace {
    TablePlace {
        term: None,
        place: StreamPlace {
            position,
            offset: 0,
        },
        sent: None,
        as_of_us: None,
    }
}

/// A load of the table ended with `error`. One that passes lets this load alone begin anew, in its time; any other is
/// returned.
///
/// # Errors
/// `error`.
pub(super) fn broke_off(pipe: &Pipe, name: &TableName, error: Error) -> Result<()> {
    let passes = [
        ErrorKind::SourceUnavailable,
        ErrorKind::DestinationUnavailable,
    ];
    if !passes.contains(&error.kind()) {
        return Err(error);
    }
    let error = match error.message() == BROKEN_OFF {
        true => error,
        false => broken_off(name).with_source(error),
    };
    pipe.progress.waits.broke_off(name, &error);
    Ok(())
}

/// Ends the run at a checkpoint once the next load of an append table can begin and none is under way, which would end with
/// the run.
///
/// # Errors
/// Never; what the source fails with here, it fails the stream with.
pub(super) async fn end_for_the_next(
    pipe: Arc<Pipe>,
    session: Arc<Session>,
    stop: CancellationToken,
) -> Result<()> {
    let waits = &pipe.progress.waits;
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(NEXT_INTERVAL) => {}
        }
        let records = pipe.store.records();
        let (broken, under_way): (Vec<_>, Vec<_>) = records
            .names_where(reads_its_moment)
            .into_iter()
            .partition(|name| waits.is_broken(name));
        let next = records.names_where(awaits_its_moment);
        if next.is_empty() && broken.is_empty() && under_way.is_empty() {
            return Ok(());
        }
        if !under_way.is_empty() {
            continue;
        }
        let mut due: Vec<TableName> = next.into_iter().chain(broken).collect();
        in_turn(waits, &mut due);
        due.truncate(session.config.snapshot.tables_in_parallel.get() as usize);
        // Whoever is tried in the next run has been asked before: the stream stands still while it is tried.
        let mut ready = None;
        for name in due {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                is_held = is_held(&pipe, &session, &name) => if !is_held {
                    ready = Some(name);
                },
            }
        }
        if let Some(name) = ready {
            tracing::info!(pipe = pipe.store.pipe(), table = %name, "the load of an append table is next");
            stop.cancel();
            return Ok(());
        }
    }
}

/// Whether something at the source holds the load up still, or, of one that takes no lock, would hold it up; it waits then.
async fn is_held(pipe: &Pipe, session: &Session, name: &TableName) -> bool {
    let waits = &pipe.progress.waits;
    let was_held = waits.is_held(name);
    if !was_held && (session.config.snapshot.allow_locks || waits.is_broken(name)) {
        return false;
    }
    let table = session.table(name);
    let wanted = wanted(&session.config, &table);
    let mode = session.config.source.position;
    match snapshot::what_holds(&session.source, mode, &wanted).await {
        Ok(None) => false,
        Err(error) if error.kind().retry() == Retry::AfterOperator => false,
        Ok(Some(error)) | Err(error) if !was_held => {
            waits.hold(name, &error);
            true
        }
        Ok(Some(_)) | Err(_) => {
            waits.still_held(name);
            true
        }
    }
}

/// Takes out of append tables what was written beyond the checkpoint, before a term is raised: it comes again under
/// versions of the new one, and would be there twice.
///
/// # Errors
/// `PositionPurged` when the source cannot give it again, and then nothing is taken out; else as any statement.
pub(super) async fn rewind(session: &Session, term: u16, checkpoint: &StreamPlace) -> Result<()> {
    let tables = session.tables();
    let targets: Vec<&TargetTable> = tables
        .iter()
        .flat_map(|table| table.stream_targets())
        .filter(|target| target.is_append())
        .collect();
    if targets.is_empty() {
        return Ok(());
    }
    let mut conn = session.source.control().await?;
    let held = session
        .source
        .retention(&mut conn, &checkpoint.position)
        .await;
    conn.disconnect().await.ok();
    if let Some(purged) = held?.purged {
        return Err(purged);
    }
    let version = Version::new(term, checkpoint.offset);
    for target in targets {
        session.destination.rewind(target, version).await?;
    }
    Ok(())
}

/// The versions of the inserts among rows that go through plugins into an append table, in order; none for other rows.
pub(super) fn inserted(table: &LiveTable, batch: &ChangeBatch) -> Option<Vec<u64>> {
    let Changes::Stream { ops, versions } = &batch.changes else {
        return None;
    };
    if !table.target.is_append() || table.chain.is_empty() {
        return None;
    }
    let rows = ops.iter().zip(versions);
    let inserts = rows.filter(|(op, _)| **op == Op::Insert);
    let mut inserted: Vec<u64> = inserts.map(|(_, version)| *version).collect();
    inserted.sort_unstable();
    Some(inserted)
}

/// Leaves out the deletes of rows that a plugin did not let in: there is nothing that they would take away.
///
/// # Errors
/// Never for columns of one length.
pub(super) fn without_kept_out(batch: ChangeBatch, inserted: &[u64]) -> Result<ChangeBatch> {
    let Changes::Stream { ops, versions } = &batch.changes else {
        return Ok(batch);
    };
    let rows = ops.iter().zip(versions);
    let stays: Vec<bool> = rows
        .map(|(op, version)| *op != Op::Delete || inserted.binary_search(version).is_err())
        .collect();
    if stays.iter().all(|stays| *stays) {
        return Ok(batch);
    }
    batch.keep(&BooleanArray::from(stays)).map_err(|error| {
        Error::new(ErrorKind::Internal, "rows cannot be left out of a batch").with_source(error)
    })
}

/// Sees that the table can be an append table, if that is what its target is.
///
/// # Errors
/// `Unsupported` and `Config`, naming the remedy.
pub(super) fn ensure_possible(
    config: &PipeConfig,
    table: &TableConfig,
    source: &SourceTable,
    target: &TargetTable,
    chain: &Chain,
) -> Result<()> {
    if !target.is_append() {
        return Ok(());
    }
    let refused = |kind, message: &str, hint: &str| {
        let instead = match (table.engine, table.keyless) {
            (Engine::Append, _) => "use `engine: replacing`",
            (Engine::Replacing, Keyless::Append | Keyless::Refuse) => {
                "give the table a primary key"
            }
        };
        Err(Error::new(kind, message)
            .with_hint(format!("{hint}, or {instead}"))
            .with_table(source.name()))
    };
    if let Some(unfit) = unfit(target, chain) {
        return refused(
            ErrorKind::Unsupported,
            &format!("rows of an append table pass through {unfit}"),
            "take it out of `transforms` in the table's entry (`on_error: fail` and `skip` keep no dead letters)",
        );
    }
    if config.row_image == RowImage::Complete {
        return refused(
            ErrorKind::Config,
            "images of an append table's rows must be whole: what is read later is not what the row was",
            "set binlog_row_image = FULL at the source, and `row_image: refuse`",
        );
    }
    if config.mode != Mode::CdcOnly && source.transactional != Some(true) {
        return refused(
            ErrorKind::Unsupported,
            "the engine of the table shows no consistent snapshot, which the load of an append table reads",
            "make it a table of InnoDB, set `mode: cdc_only`",
        );
    }
    let locks = config.snapshot.allow_locks || config.source.source_type == SourceType::Mariadb;
    if !locks && config.mode != Mode::CdcOnly && target.is_keyless() {
        return refused(
            ErrorKind::Config,
            "the load of a table without a key takes a lock, since nothing else tells which of its rows have changed",
            "set `snapshot: { allow_locks: true }`",
        );
    }
    Ok(())
}

/// What of the plugins an append table cannot have, in words.
fn unfit(target: &TargetTable, chain: &Chain) -> Option<&'static str> {
    match chain {
        chain if chain.is_empty() => None,
        // What it sent elsewhere, or made several of, is not known when the row changes.
        chain if chain.is_routing() => {
            Some("a plugin that chooses targets or keys, or makes several rows of one")
        }
        // A row that a plugin changed is not the one that is to be taken away.
        _ if target.is_keyless() => Some("a plugin, without a key that tells its rows apart"),
        // A letter that is sent again has the version of its row, at which the delete that hides the row may stand; one
        // of a load has none.
        chain if chain.keeps_letters() => Some("a plugin whose rows are kept as dead letters"),
        _ => None,
    }
}
