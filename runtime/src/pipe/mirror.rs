//! What the destination is told of where the pipe stands, and of tables that do not hold all up to there.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use tokio_util::sync::CancellationToken;

use super::heal::{Kinship, Silent};
use super::lost;
use super::record::{Records, TableRecord};
use super::session::Session;
use super::store::PipeStore;
use super::table_state::TableState;
use crate::config::Cascades;
use crate::destination::clickhouse::{Durable, Incomplete, MirrorRow};
use crate::error::{Error, ErrorKind, Result};
use crate::source::mysql::position::{Position, StreamPlace};

/// How soon the mirror follows a table that has become complete, or has come further, where no checkpoint moves.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// How long the end of a run is held up by the last word on it.
const LAST_WORD_WITHIN: Duration = Duration::from_secs(5);

/// The newest row that this run has written: its term and offset, and the places in it.
#[derive(Debug, Default)]
pub(super) struct Mirrored(Mutex<Option<((u16, u64), Incomplete)>>);

impl Mirrored {
    fn says(&self, incomplete: &Incomplete) -> bool {
        let newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        newest.as_ref().is_some_and(|(_, told)| told == incomplete)
    }

    /// Two may write at the same time; readers see the row that is further.
    fn has_written(&self, at: (u16, u64), incomplete: Incomplete) {
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if newest.as_ref().is_none_or(|(newest, _)| *newest <= at) {
            *newest = Some((at, incomplete));
        }
    }
}

/// What writes to the mirror work with.
#[derive(Clone, Copy)]
pub(super) struct Mirroring<'a> {
    pub(super) session: &'a Session,
    pub(super) store: &'a PipeStore,
    pub(super) kinship: &'a Kinship,
}

impl Mirroring<'_> {
    /// Writes the mirror of a checkpoint at `place`, before the checkpoint itself; may be repeated. `records` are those of
    /// behind it.
    ///
    /// # Errors
    /// As [`lost::ensure_held`]; as any insert.
    pub(super) async fn write(
        &self,
        records: &Records,
        place: &StreamPlace,
        committed_at_us: Option<u64>,
        durable: &[Durable],
    ) -> Result<()> {
        lost::ensure_held(self.session, self.store).await?;
        let record = records.pipe.as_ref();
        let record = record.expect("begin() has made the record");
        let incomplete = records.incomplete(self.kinship)?;
        let row = MirrorRow {
            term: record.term,
            offset: place.offset,
            position: position_text(&place.position)?,
            owner: record.owner.clone(),
            source_committed_at: committed_at_us.map(|us| UNIX_EPOCH + Duration::from_micros(us)),
            incomplete: Some(incomplete.clone()),
        };
        let destination = &self.session.destination;
        destination
            .write_mirror(self.store.pipe(), &row, durable)
            .await?;
        let mirrored = &self.session.mirrored;
        mirrored.has_written((record.term, place.offset), incomplete);
        Ok(())
    }

    /// Writes the mirror of the last checkpoint anew whenever other tables are incomplete than it says. A table that was
    /// complete at a place stays so, whatever becomes of it later, so a row never says too much; without this an idle pipe
    /// would leave it at too little. Who writes rows finds out what is wrong with the destination: here it is tried again.
    pub(super) async fn keep_true(&self, stop: &CancellationToken) {
        loop {
            match stop.run_until_cancelled(self.tell()).await {
                None => return,
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    tracing::debug!(pipe = self.store.pipe(), "not told yet: {}", error.chain());
                }
            }
            let pause = tokio::time::sleep(TELL_INTERVAL);
            if stop.run_until_cancelled(pause).await.is_none() {
                return;
            }
        }
    }

    /// The same once, when nothing else of the pipe writes any more: it may be long until something does again.
    pub(super) async fn tell_at_last(&self) {
        let told = async {
            while let Err(error) = self.tell().await {
                tracing::debug!(pipe = self.store.pipe(), "not told yet: {}", error.chain());
                tokio::time::sleep(TELL_INTERVAL).await;
            }
        };
        tokio::time::timeout(LAST_WORD_WITHIN, told).await.ok();
    }

    /// Writes the mirror of the last checkpoint anew where other tables are incomplete than it says.
    ///
    /// # Errors
    /// As [`Mirroring::write`].
    pub(super) async fn tell(&self) -> Result<()> {
        let records = self.store.records();
        let Some(checkpoint) = records.checkpoint() else {
            return Ok(());
        };
        let incomplete = records.incomplete(self.kinship)?;
        if self.session.mirrored.says(&incomplete) {
            return Ok(());
        }
        self.write(&records, &checkpoint.place, checkpoint.committed_at_us, &[])
            .await
    }
}

/// Takes back what the newest mirror says of append tables beyond the checkpoint: rows that are taken out of them are read
/// again, which may be long after.
///
/// # Errors
/// As any query or insert.
pub(super) async fn take_back(session: &Session, store: &PipeStore) -> Result<()> {
    let records = store.records();
    let Some(checkpoint) = records.checkpoint() else {
        return Ok(());
    };
    // Before its first term the pipe has written nothing.
    let writes = records.pipe.as_ref().is_some_and(|record| record.term > 0);
    if !writes || !records.tables.values().any(|table| table.appends) {
        return Ok(());
    }
    let at = position_text(&checkpoint.place.position)?;
    let newest = session.destination.read_mirror(store.pipe()).await?;
    let Some(newest) = newest.filter(|newest| newest.position != at) else {
        return Ok(());
    };
    let mut incomplete = records.incomplete(&Kinship::default())?;
    for table in records.tables.values() {
        for target in table.targets() {
            incomplete
                .entry(target.to_owned())
                .or_insert_with(|| at.clone());
        }
    }
    let row = MirrorRow {
        term: newest.term,
        offset: newest.offset,
        position: newest.position,
        owner: newest.owner,
        source_committed_at: None,
        // Which rows follow those of others is not known here.
        incomplete: (session.config.cascades == Cascades::Warn).then_some(incomplete),
    };
    session
        .destination
        .write_mirror(store.pipe(), &row, &[])
        .await
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

/// Adds that the targets of `table` hold all up to `up_to`; where they are said to end elsewhere too, no place can be named.
fn add(incomplete: &mut Incomplete, table: &TableRecord, up_to: &str) {
    for target in table.targets() {
        incomplete
            .entry(target.to_owned())
            .and_modify(|known| {
                if known != up_to {
                    known.clear();
                }
            })
            .or_insert_with(|| up_to.to_owned());
    }
}

impl Records {
    /// The targets that do not hold all up to the checkpoint, also former ones that still stand. Tables whose rows follow
    /// those of a table out of service lack what has followed since.
    ///
    /// # Errors
    /// As [`position_text`].
    pub(super) fn incomplete(&self, kinship: &Kinship) -> Result<Incomplete> {
        let mut incomplete = Incomplete::new();
        let mut former: BTreeSet<&str> = BTreeSet::new();
        for (name, table) in &self.tables {
            former.extend(table.left.iter().map(String::as_str));
            let up_to = match held(table) {
                Held::AtCheckpoint => continue,
                Held::UpTo(position) => position_text(position)?,
                Held::Unknown => String::new(),
            };
            if table.state == TableState::Removed {
                former.extend(table.targets());
                continue;
            }
            add(&mut incomplete, table, &up_to);
            if !table.state.is_in_stream() {
                let followers = kinship.reached(name, Silent::ANY);
                for follower in followers.iter().filter_map(|name| self.tables.get(name)) {
                    add(&mut incomplete, follower, &up_to);
                }
            }
        }
        if !former.is_empty() {
            let carried = self.tables.values();
            for table in carried.filter(|table| table.state != TableState::Removed) {
                for target in table.targets() {
                    former.remove(target);
                }
            }
            let former = former.into_iter();
            incomplete.extend(former.map(|target| (target.to_owned(), String::new())));
        }
        Ok(incomplete)
    }
}
