//! What the destination is told of where the pipe stands, and of tables that do not hold all up to there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use tokio_util::sync::CancellationToken;

use super::lost;
use super::record::{Checkpoint, Records, TableRecord};
use super::session::Session;
use super::store::PipeStore;
use super::table_state::TableState;
use crate::destination::clickhouse::{Durable, Incomplete, MirrorRow};
use crate::error::{Error, ErrorKind, Result};
use crate::source::mysql::position::{Position, StreamPlace};

/// How soon the mirror follows a table that has become complete, or has come further, where no checkpoint moves.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// Writes the mirror of a checkpoint at `place`, before the checkpoint itself; may be repeated.
///
/// # Errors
/// As [`lost::ensure_held`]; as any insert.
pub(super) async fn write(
    session: &Session,
    store: &PipeStore,
    place: &StreamPlace,
    committed_at_us: Option<u64>,
    durable: &[Durable],
) -> Result<()> {
    lost::ensure_held(session, store).await?;
    let row = row_at(&store.records(), place, committed_at_us)?;
    session
        .destination
        .write_mirror(store.pipe(), &row, durable)
        .await
}

/// Writes the mirror of the last checkpoint anew whenever other tables are incomplete than it says. A table that was
/// complete at a place stays so, whatever becomes of it later, so a row never says too much; without this an idle pipe
/// would leave it at too little. Who writes rows finds out what is wrong with the destination: here it is tried again.
pub(super) async fn keep_true(session: &Session, store: &PipeStore, stop: &CancellationToken) {
    let mut seen: Option<Arc<Records>> = None;
    let mut told: Option<Incomplete> = None;
    loop {
        let records = store.records();
        if !seen
            .as_ref()
            .is_some_and(|seen| Arc::ptr_eq(seen, &records))
        {
            let telling = tell(session, store, &records, told.as_ref());
            match stop.run_until_cancelled(telling).await {
                None => return,
                Some(Ok(incomplete)) => (seen, told) = (Some(records), Some(incomplete)),
                Some(Err(error)) => {
                    tracing::debug!(pipe = store.pipe(), "not told yet: {}", error.chain());
                }
            }
        }
        let pause = tokio::time::sleep(TELL_INTERVAL);
        if stop.run_until_cancelled(pause).await.is_none() {
            return;
        }
    }
}

async fn tell(
    session: &Session,
    store: &PipeStore,
    records: &Records,
    told: Option<&Incomplete>,
) -> Result<Incomplete> {
    let incomplete = records.incomplete()?;
    let Some(checkpoint) = records.checkpoint() else {
        return Ok(incomplete);
    };
    if told != Some(&incomplete) {
        lost::ensure_held(session, store).await?;
        let Checkpoint {
            place,
            committed_at_us,
            ..
        } = checkpoint;
        let row = row_at(records, place, *committed_at_us)?;
        session
            .destination
            .write_mirror(store.pipe(), &row, &[])
            .await?;
    }
    Ok(incomplete)
}

/// The row for `place`, in the pipe's term.
///
/// # Panics
/// Before [`PipeStore::begin`].
fn row_at(
    records: &Records,
    place: &StreamPlace,
    committed_at_us: Option<u64>,
) -> Result<MirrorRow> {
    let record = records.pipe.as_ref().expect("begin() has made the record");
    Ok(MirrorRow {
        term: record.term,
        offset: place.offset,
        position: position_text(&place.position)?,
        owner: record.owner.clone(),
        source_committed_at: committed_at_us.map(|us| UNIX_EPOCH + Duration::from_micros(us)),
        incomplete: records.incomplete()?,
    })
}

/// A place as the mirror keeps it: the same JSON as in the state.
///
/// # Errors
/// Never for a place that was read from a source.
pub(super) fn position_text(position: &Position) -> Result<String> {
    serde_json::to_string(position).map_err(|error| {
        Error::new(ErrorKind::Internal, "a position does not serialise").with_source(error)
    })
}

/// Up to where a table's targets hold what the source had.
enum Held<'a> {
    /// As far as the pipe's checkpoint, or further.
    AtCheckpoint,
    /// Its own place.
    UpTo(&'a Position),
    /// No place can be named.
    Unknown,
}

fn held(table: &TableRecord) -> Held<'_> {
    let live_is_whole = table.whole && table.inexact.is_none() && !table.cascaded;
    if !live_is_whole || table.is_loading_alone() {
        return Held::Unknown;
    }
    match &table.state {
        TableState::Streaming => Held::AtCheckpoint,
        // Beside a live table that the stream goes on to fill.
        TableState::Pending | TableState::Snapshotting if table.shadow.is_some() => {
            Held::AtCheckpoint
        }
        TableState::Quarantined(_) | TableState::CatchingUp => match &table.place {
            Some(own) => Held::UpTo(&own.place.position),
            None => Held::Unknown,
        },
        TableState::Pending | TableState::Snapshotting | TableState::Removed => Held::Unknown,
    }
}

impl Records {
    /// The targets that do not hold all up to the checkpoint, those of removed tables among them. A target that several
    /// tables fill is as incomplete as they agree on, else at no place that can be named.
    ///
    /// # Errors
    /// As [`position_text`].
    pub(super) fn incomplete(&self) -> Result<Incomplete> {
        let mut incomplete: Incomplete = BTreeMap::new();
        let mut removed: BTreeSet<&str> = BTreeSet::new();
        for table in self.tables.values() {
            if table.state == TableState::Removed {
                removed.extend(table.targets());
                continue;
            }
            let up_to = match held(table) {
                Held::AtCheckpoint => continue,
                Held::UpTo(position) => position_text(position)?,
                Held::Unknown => String::new(),
            };
            for target in table.targets() {
                incomplete
                    .entry(target.to_owned())
                    .and_modify(|known| {
                        if *known != up_to {
                            known.clear();
                        }
                    })
                    .or_insert_with(|| up_to.clone());
            }
        }
        if !removed.is_empty() {
            let others = self.tables.values();
            for table in others.filter(|table| table.state != TableState::Removed) {
                for target in table.targets() {
                    removed.remove(target);
                }
            }
            let removed = removed.into_iter();
            incomplete.extend(removed.map(|target| (target.to_owned(), String::new())));
        }
        Ok(incomplete)
    }
}
