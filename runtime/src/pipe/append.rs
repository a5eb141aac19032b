//! Loads of append tables.
//!
//! Rows of an append table are never replaced, so its load reads one moment, and its stream begins where that moment is.
//! Both are taken between two runs, while nothing follows the binlog: the sessions that will read are opened in the
//! snapshot, and its place is recorded as the table's own, up to which events are passed over. The moment is gone with
//! the sessions. A load that was interrupted therefore begins anew, beside what it has left, and is exchanged for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::attach::{Attached, attach};
use super::record::{TablePlace, TableRecord};
use super::resync;
use super::session::Session;
use super::setup;
use super::supervisor::Pipe;
use crate::batch::{TableName, Version};
use crate::config::{Engine, Keyless, Mode, PipeConfig, RowImage, TableConfig};
use crate::destination::clickhouse::TargetTable;
use crate::error::{Error, ErrorKind, Result};
use crate::source::mysql::catalog::SourceTable;
use crate::source::mysql::position::StreamPlace;
use crate::source::mysql::snapshot::{self, SnapshotSession};

/// How often a statement may come between a table's definition and its snapshot before the run is tried again later.
const ROUNDS: u32 = 5;

/// The sessions that wait for a table's load to read by them.
#[derive(Debug, Default)]
pub(super) struct Snapshots(Mutex<BTreeMap<TableName, Vec<SnapshotSession>>>);

impl Snapshots {
    fn keep(&self, name: &TableName, sessions: Vec<SnapshotSession>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(name.clone(), sessions);
    }

    /// The sessions of the table, at least one.
    ///
    /// # Errors
    /// `SourceUnavailable` when they are gone.
    pub(super) fn take(&self, name: &TableName) -> Result<Vec<SnapshotSession>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(name).ok_or_else(|| broken_off(name))
    }
}

/// The error of a load that cannot go on in the moment that it began in.
pub(super) fn broken_off(name: &TableName) -> Error {
    Error::new(
        ErrorKind::SourceUnavailable,
        "the load of an append table broke off, and begins anew",
    )
    .with_table(name)
}

/// Attaches, and opens a snapshot for every append table that is to be loaded.
///
/// # Errors
/// As [`attach`], [`resync::begin_anew`] and [`snapshot::take_consistent`].
pub(super) async fn attach_with_snapshots(pipe: &Arc<Pipe>) -> Result<Attached> {
    for _ in 0..ROUNDS {
        let attached = attach(pipe).await?;
        let session = &attached.session;
        let mut anew = pipe.store.records().names_where(has_broken_off);
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
        let fresh = resync::begin_anew(session, pipe, &anew).await?;
        pipe.store.commit(|draft| fresh.record(draft, true)).await?;
    }
    Err(Error::new(
        ErrorKind::SourceUnavailable,
        "statements keep changing append tables whose load is to begin",
    ))
}

/// A snapshot was taken for its load, and the load did not come to its end.
fn has_broken_off(table: &TableRecord) -> bool {
    table.state.is_loading() && table.in_snapshot && table.load_end.is_none()
}

/// Opens the snapshots. Returns tables whose definitions are no longer the recorded ones.
async fn take_snapshots(session: &Session, pipe: &Pipe) -> Result<Vec<TableName>> {
    let store = &pipe.store;
    let waiting = store
        .records()
        .names_where(|table| table.appends && table.state.is_loading() && table.load_end.is_none());
    let readers = session.config.snapshot.threads_per_table.get() as usize;
    let mode = session.config.source.position;
    let mut changed = Vec::new();
    let mut places = Vec::new();
    for name in waiting {
        let taken = snapshot::take_consistent(&session.source, mode, &name, readers).await?;
        // Read behind the snapshot: the same as before, it was the same then.
        let matched = setup::recorded(&session.config, std::slice::from_ref(&name))?;
        let now = setup::definitions(session, &matched).await?;
        if now.first() != Some(&*session.table(&name).source) {
            changed.push(name);
            continue;
        }
        let place = TablePlace {
            term: None,
            place: StreamPlace {
                position: taken.place,
                offset: 0,
            },
            sent: None,
        };
        session.snapshots.keep(&name, taken.sessions);
        places.push((name, place));
    }
    if changed.is_empty() && !places.is_empty() {
        store
            .commit(|draft| {
                for (name, place) in places {
                    let table = draft.table_mut(&name);
                    table.in_snapshot = true;
                    table.place = Some(place);
                }
                Ok(())
            })
            .await?;
    }
    Ok(changed)
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

/// Sees that the table can be an append table, if that is what its target is.
///
/// # Errors
/// `Unsupported` and `Config`, naming the remedy.
pub(super) fn ensure_possible(
    config: &PipeConfig,
    table: &TableConfig,
    source: &SourceTable,
    target: &TargetTable,
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
    if !table.transforms.is_empty() {
        return refused(
            ErrorKind::Unsupported,
            "rows of an append table pass through no plugin yet",
            "take `transforms` out of the table's entry",
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
    Ok(())
}
