//! The mirror of every checkpoint in the destination, and the claim of terms.
//!
//! The mirror is written after the rows up to its place are durable and before the state store moves. So at a start
//! mirror ≥ state; a mirror behind the state proves that ClickHouse lost rows that it had acknowledged. A claim is a row
//! too: whoever finds itself alone at its term and nobody above may write versions of it. Two claimants of one term see
//! each other, for each reads after its own row is there, and at most one goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::client::{ClickHouse, STATEMENT_TIMEOUT};
use super::ddl;
use super::failure::Doing;
use super::target::TargetTable;
use super::writer::Durable;
use crate::error::{Error, ErrorKind, Result};

/// The table in the destination's database.
pub const CHECKPOINTS_TABLE: &str = "_pipewright_checkpoints";

/// Where a pipe stands according to the destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The term.
    pub term: u16,
    /// The stream offset within the term.
    pub offset: u64,
    /// The place, as JSON.
    pub position: String,
    /// The random id of the process that claimed the term.
    pub owner: String,
    /// When ClickHouse received the row, by its own clock.
    pub written_at: SystemTime,
}

/// Targets that do not hold all that the source had at a place: up to where each does, as JSON of a place, and nothing for
/// one that cannot be told of, such as one that is loaded for the first time.
pub type Incomplete = BTreeMap<String, String>;

/// A checkpoint to mirror, or a place to begin a term at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorRow {
    /// The term, claimed by `owner`.
    pub term: u16,
    /// The stream offset within the term.
    pub offset: u64,
    /// The place, as JSON.
    pub position: String,
    /// The id with which the term was claimed.
    pub owner: String,
    /// When the source committed the last transaction before the place.
    pub source_committed_at: Option<SystemTime>,
    /// The targets that are not complete at the place; all others of the pipe are. None where nothing is told of any.
    pub incomplete: Option<Arc<Incomplete>>,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Claim,
    Checkpoint,
    Dropped,
}

#[derive(Serialize)]
struct SentRow<'a> {
    pipe: &'a str,
    term: u16,
    owner: &'a str,
    stream_offset: u64,
    position: &'a str,
    kind: Kind,
    source_committed_at: Option<String>,
    /// By target, and for all others by the empty name. Empty where nothing is told, as in rows of builds that did not.
    complete: BTreeMap<&'a str, &'a str>,
}

impl<'a> SentRow<'a> {
    fn new(pipe: &'a str, row: &'a MirrorRow, kind: Kind) -> Self {
        let source_committed_at = row.source_committed_at.and_then(|at| {
            let since = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
            Some(format!("{}.{:06}", since.as_secs(), since.subsec_micros()))
        });
        let mut complete = BTreeMap::new();
        if let Some(incomplete) = &row.incomplete {
            let behind = incomplete.iter().map(|(target, at)| (&**target, &**at));
            complete.extend(behind);
            complete.insert("", &*row.position);
        }
        Self {
            pipe,
            term: row.term,
            owner: &row.owner,
            stream_offset: row.offset,
            position: &row.position,
            kind,
            source_committed_at,
            complete,
        }
    }
}

#[derive(Deserialize)]
struct ReadRow {
    term: u16,
    offset: u64,
    position: String,
    owner: String,
    written_at: i64,
}

#[derive(Deserialize)]
struct PlaceRow {
    offset: u64,
    position: String,
}

#[derive(Deserialize)]
struct RivalsRow {
    rivals: u64,
    ours: u64,
}

#[derive(Deserialize)]
struct TermRow {
    term: u16,
}

#[derive(Deserialize)]
struct LacksRow {
    lacks: u8,
}

#[derive(Deserialize)]
struct HighestRow {
    highest: u64,
}

const DOING: Doing<'static> = Doing::Definition("to read or write the checkpoints");

impl ClickHouse {
    /// Creates the table, or gives one of an earlier build what it lacks. Idempotent; the database must exist.
    ///
    /// # Errors
    /// As any statement.
    pub async fn ensure_checkpoints(&self) -> Result<()> {
        let sql = ddl::create_checkpoints(self.database(), CHECKPOINTS_TABLE, self.is_fsync());
        self.run(&sql, DOING, STATEMENT_TIMEOUT).await?;
        self.widen_checkpoints().await
    }

    /// Gives the table of an earlier build the columns that it lacks. Idempotent; one that is gone stays gone.
    ///
    /// # Errors
    /// As any statement.
    pub async fn widen_checkpoints(&self) -> Result<()> {
        let (database, table) = (self.database(), CHECKPOINTS_TABLE);
        let rows: Vec<LacksRow> = self
            .rows(&ddl::lacks_complete(database, table), DOING)
            .await?;
        match rows.first().is_some_and(|row| row.lacks != 0) {
            true => {
                let sql = ddl::add_complete(database, table);
                self.run(&sql, DOING, STATEMENT_TIMEOUT).await
            }
            false => Ok(()),
        }
    }

    /// The highest place that `pipe` has mirrored or claimed; none, too, where the table or the database of the checkpoints
    /// is gone.
    ///
    /// # Errors
    /// As any query.
    pub async fn read_mirror(&self, pipe: &str) -> Result<Option<Mirror>> {
        let sql = ddl::highest_checkpoint(self.database(), CHECKPOINTS_TABLE, pipe);
        let rows: Vec<ReadRow> = match self.rows(&sql, DOING).await {
            Err(error) if error.kind() == ErrorKind::DestinationRejected => return Ok(None),
            rows => rows?,
        };
        Ok(rows.into_iter().next().map(|row| Mirror {
            term: row.term,
            offset: row.offset,
            position: row.position,
            owner: row.owner,
            written_at: SystemTime::UNIX_EPOCH
                + Duration::from_micros(u64::try_from(row.written_at).unwrap_or(0)),
        }))
    }

    /// Offset and place of each who has claimed a term above `term` for `pipe`.
    ///
    /// # Errors
    /// As any query.
    pub async fn places_above(&self, pipe: &str, term: u16) -> Result<Vec<(u64, String)>> {
        let sql = ddl::checkpoints_above(self.database(), CHECKPOINTS_TABLE, pipe, term);
        let rows: Vec<PlaceRow> = self.rows(&sql, DOING).await?;
        let places = rows.into_iter().map(|row| (row.offset, row.position));
        Ok(places.collect())
    }

    /// The highest term that `pipe` has claimed here, 0 when none.
    ///
    /// # Errors
    /// As any query.
    pub async fn highest_term(&self, pipe: &str) -> Result<u16> {
        let sql = ddl::highest_term(self.database(), CHECKPOINTS_TABLE, pipe);
        let rows: Vec<TermRow> = self.rows(&sql, DOING).await?;
        Ok(rows.first().map_or(0, |row| row.term))
    }

    /// The highest term of any row in an existing target, 0 when it is empty. It reads the whole version column.
    ///
    /// # Errors
    /// As any query.
    pub async fn highest_term_in(&self, target: &TargetTable) -> Result<u16> {
        let highest = self.highest_version_in(target).await?;
        Ok(u16::try_from(highest >> 48).expect("16 bits are left"))
    }

    /// The highest version of any row in an existing target, 0 when it is empty. It reads the whole version column.
    pub(super) async fn highest_version_in(&self, target: &TargetTable) -> Result<u64> {
        let doing = Doing::Rows("to read versions", target);
        let rows: Vec<HighestRow> = self.rows(&ddl::highest_version(target), doing).await?;
        Ok(rows.first().map_or(0, |row| row.highest))
    }

    /// Claims the row's term for its owner, a random id of this process, from its place on. After `Ok` nobody else
    /// holds the term, and no higher one existed. A refused claim burns the number: try again with
    /// [`ClickHouse::highest_term`] plus one, after a random pause.
    ///
    /// # Errors
    /// `Busy` when another claimant stands there or above, else as any insert; after an error the claim may stand, and
    /// the next attempt takes a higher number.
    pub async fn claim_term(&self, pipe: &str, row: &MirrorRow) -> Result<()> {
        self.send_row(&SentRow::new(pipe, row, Kind::Claim)).await?;
        let (term, owner) = (row.term, &row.owner);
        let sql = ddl::rivals(self.database(), CHECKPOINTS_TABLE, pipe, term, owner);
        let rows: Vec<RivalsRow> = self.rows(&sql, DOING).await?;
        match rows.first() {
            Some(RivalsRow { rivals: 0, ours }) if *ours > 0 => Ok(()),
            Some(RivalsRow { rivals: 0, .. }) | None => Err(Error::new(
                ErrorKind::DestinationLost,
                format!("the claim of term {term} for pipe `{pipe}` was acknowledged and is not there"),
            )
            .with_hint(format!(
                "see that every query of this destination reaches the same server or replica of `{CHECKPOINTS_TABLE}`"
            ))),
            Some(_) => Err(taken_over(pipe, term)),
        }
    }

    /// Sees that no term above `term` is claimed for `pipe`.
    ///
    /// # Errors
    /// `Busy` when one is, else as any query.
    pub(super) async fn ensure_highest(&self, pipe: &str, term: u16) -> Result<()> {
        match self.highest_term(pipe).await? > term {
            false => Ok(()),
            true => Err(taken_over(pipe, term)),
        }
    }

    /// Mirrors a checkpoint, once everything up to it is durable: `durable` is the proof of the writes since the last
    /// one, empty when the stream was idle. Repeatable.
    ///
    /// # Errors
    /// As any insert; the row may be there all the same.
    pub async fn write_mirror(
        &self,
        pipe: &str,
        row: &MirrorRow,
        durable: &[Durable],
    ) -> Result<()> {
        tracing::trace!(
            pipe,
            offset = row.offset,
            rows = durable.iter().map(Durable::rows).sum::<u64>(),
            "mirroring a checkpoint"
        );
        self.send_row(&SentRow::new(pipe, row, Kind::Checkpoint))
            .await
    }

    /// Says at the newest place of a pipe, claimed by `owner`, that it is dropped. Its claims stay, so that a later pipe of
    /// that name counts its terms on from them. Repeatable; nothing is said where somebody else has claimed since, or nobody
    /// keeps checkpoints any more.
    ///
    /// # Errors
    /// As any query or insert.
    pub async fn mark_dropped(&self, pipe: &str, owner: &str) -> Result<()> {
        let newest = self.read_mirror(pipe).await?;
        let Some(newest) = newest.filter(|newest| newest.owner == owner) else {
            return Ok(());
        };
        self.widen_checkpoints().await?;
        let row = MirrorRow {
            term: newest.term,
            offset: newest.offset,
            position: newest.position,
            owner: newest.owner,
            source_committed_at: None,
            incomplete: None,
        };
        self.send_row(&SentRow::new(pipe, &row, Kind::Dropped))
            .await
    }

    async fn send_row(&self, row: &SentRow<'_>) -> Result<()> {
        let sql = ddl::insert_checkpoint(self.database(), CHECKPOINTS_TABLE);
        self.insert_rows(&sql, std::slice::from_ref(row), DOING)
            .await
            .map(drop)
    }
}

fn taken_over(pipe: &str, term: u16) -> Error {
    Error::new(
        ErrorKind::Busy,
        format!("another process writes for pipe `{pipe}`, at term {term} or above"),
    )
    .with_hint("stop the other process, or give one of the two pipes another name")
}
