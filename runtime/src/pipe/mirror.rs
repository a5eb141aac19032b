//! What the destination is told of where the pipe stands, and of tables that do not hold all up to there.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use tokio_util::sync::CancellationToken;

use super::heal::Kinship;
use super::incomplete::LastLook;
use super::lost;
use super::record::{PipeRecord, Records};
use super::session::Session;
use super::store::PipeStore;
use crate::config::Cascades;
use crate::destination::clickhouse::{Durable, Incomplete, Mirror, MirrorRow};
use crate::error::{Error, ErrorKind, Result};
use crate::source::mysql::position::{Position, StreamPlace};

/// How soon the mirror follows a table that has become complete, or has come further, where no checkpoint moves.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// How long the end of a run is held up by the last word on it.
const LAST_WORD_WITHIN: Duration = Duration::from_secs(5);

/// The newest row that this run has written: its term and offset, and the places in it; and what it would say now.
#[derive(Debug, Default)]
pub(super) struct Mirrored {
    newest: Mutex<Option<Newest>>,
    look: LastLook,
}

/// A row's term and offset, and the places in it.
type Newest = ((u16, u64), Arc<Incomplete>);

impl Mirrored {
    /// Whatever has become of the records: another's row, of records of before, may have come on top of the one that told.
    fn says(&self, incomplete: &Arc<Incomplete>) -> bool {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.as_ref().is_some_and(|(_, told)| told == incomplete)
    }

    /// Two may write at the same time; readers see the row that is further.
    fn has_written(&self, at: (u16, u64), incomplete: Arc<Incomplete>) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
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
        let mirrored = &self.session.mirrored;
        let incomplete = mirrored.look.incomplete(records, self.kinship)?;
        let row = MirrorRow {
            term: record.term,
            offset: place.offset,
            position: position_text(&place.position)?,
            owner: record.owner.clone(),
            source_committed_at: committed_at_us.map(|us| UNIX_EPOCH + Duration::from_micros(us)),
            incomplete: Some(Arc::clone(&incomplete)),
        };
        let destination = &self.session.destination;
        destination
            .write_mirror(self.store.pipe(), &row, durable)
            .await?;
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
        let mirrored = &self.session.mirrored;
        let incomplete = mirrored.look.incomplete(&records, self.kinship)?;
        if mirrored.says(&incomplete) {
            return Ok(());
        }
        self.write(&records, &checkpoint.place, checkpoint.committed_at_us, &[])
            .await
    }
}

/// Takes back what the newest mirror says of append tables beyond the checkpoint: rows that are taken out of them are read
/// again, which may be long after. Where this state has not written that mirror it is an earlier copy, and does not know
/// which tables the pipe has had since, or what had become of them: then nothing is told of any.
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
    let is_ours = records
        .pipe
        .as_ref()
        .is_some_and(|record| has_written(record, &newest));
    // Which rows follow those of others is not known here.
    let is_told = is_ours && session.config.cascades == Cascades::Warn;
    let row = MirrorRow {
        term: newest.term,
        offset: newest.offset,
        position: newest.position,
        owner: newest.owner,
        source_committed_at: None,
        incomplete: is_told.then(|| Arc::new(incomplete)),
    };
    session
        .destination
        .write_mirror(store.pipe(), &row, &[])
        .await
}

/// Whether the mirror is of a place in the record's term that the record has got to, or had announced.
fn has_written(record: &PipeRecord, mirror: &Mirror) -> bool {
    let Ok(position) = serde_json::from_str::<Position>(&mirror.position) else {
        return false;
    };
    let checkpoint = record.checkpoint.iter().map(|checkpoint| &checkpoint.place);
    (mirror.term, &mirror.owner) == (record.term, &record.owner)
        && checkpoint
            .chain(&record.sent)
            .any(|place| place.position.contains(&position) == Some(true))
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

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::pipe::lost::tests::{place, record};

    #[test]
    fn a_row_of_records_of_before_that_came_on_top_of_a_newer_one_says_no_more_what_that_said() {
        let behind = Incomplete::from([("t".to_owned(), String::new())]);
        let (behind, whole) = (Arc::new(behind), Arc::new(Incomplete::new()));
        let mirrored = Mirrored::default();
        assert!(!mirrored.says(&whole), "nothing is written yet");
        mirrored.has_written((1, 5), Arc::clone(&whole));
        assert!(mirrored.says(&whole));
        mirrored.has_written((1, 6), Arc::clone(&behind));
        assert!(mirrored.says(&behind) && !mirrored.says(&whole));
        // Readers do not see this one.
        mirrored.has_written((1, 5), Arc::clone(&whole));
        assert!(mirrored.says(&behind));
    }

    #[test]
    fn a_mirror_that_the_state_has_not_written_is_none_of_its_own() {
        let record = PipeRecord {
            sent: Some(place(12)),
            ..record()
        };
        let wrote = |term: u16, until: u64, owner: &str| {
            let position = place(until).position;
            let mirror = Mirror {
                term,
                offset: 0,
                position: position_text(&position).expect("JSON"),
                owner: owner.to_owned(),
                written_at: SystemTime::UNIX_EPOCH,
            };
            has_written(&record, &mirror)
        };
        assert!(wrote(3, 9, "us"));
        assert!(wrote(3, 12, "us"), "it was announced");
        assert!(!wrote(3, 13, "us"), "the state is an earlier copy");
        assert!(!wrote(4, 9, "us"));
        assert!(!wrote(3, 9, "another"));
    }
}
