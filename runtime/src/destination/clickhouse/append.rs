//! Append tables: every change is a row of its own, and each is there once.
//!
//! Nothing replaces a row here, so a repetition must be told from what is new. A row image has a version that no other
//! has ([`crate::batch::Version`]), and a replay gives it the same: before rows are written that may be there already, the
//! table is asked for their versions, and only what it lacks is sent. That may be so for everything up to the highest
//! version that the table has when this process writes into it for the first time, and again after an insert whose answer
//! was lost. What is still on its way then is ended first ([`super::outstanding`]); an insert that reaches the server later
//! than that is known by its deduplication token, which a repetition in the same run of the pipe has too. A server may know
//! a token and have lost the block, since it writes the token down first: after an answer to a token that was sent before
//! the table is asked once more. A new run has other tokens.
//!
//! Where a term is raised, what has been written beyond the checkpoint would come again under other versions. It is taken
//! out before ([`ClickHouse::rewind`]). Each insert carries the condition that nobody has claimed a higher term
//! ([`ClickHouse::write_as`]), and the server looks at it as the insert begins there, however late it arrives: either it
//! finds the winner's claim and writes nothing, or it has begun before the claim, and the winner finds and ends it. That
//! holds where both ask one server: a replica may see a claim later, and shows no statement of another's.
//!
//! Rows of a load have version 0 and are not told apart: an interrupted load begins anew in a table of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use arrow::array::BooleanArray;
use serde::Deserialize;

use super::checkpoints::CHECKPOINTS_TABLE;
use super::client::ClickHouse;
use super::ddl;
use super::failure::Doing;
use super::target::TargetTable;
use super::writer::Durable;
use crate::batch::{ChangeBatch, Changes, Version};
use crate::error::{Error, ErrorKind, Result};

/// The column that says what has happened.
pub(super) const OP: &str = "_op";

/// Its type, as ClickHouse prints it; the numbers are those of [`crate::batch::Op`].
pub(super) const OP_TYPE: &str = "Enum8('insert' = 0, 'update' = 1, 'delete' = 2)";

/// How many blocks the server knows again by their tokens; 0, the default of tables that are not replicated, is none.
pub(super) const WINDOW: &str = "non_replicated_deduplication_window";

/// The same for tables that are.
pub(super) const REPLICATED_WINDOW: &str = "replicated_deduplication_window";

/// What our tables have of it.
pub(super) const WINDOW_BLOCKS: u32 = 1000;

/// Makes it cheap to look for a few versions.
pub(super) fn version_index(version: &str) -> String {
    format!("INDEX pipewright_version {version} TYPE minmax GRANULARITY 1")
}

/// The SELECT of the rows as they stand, or as they stood behind `version`, without those that were of that version. With a
/// key the newest row of each; without one as many equal rows as were inserted more than deleted.
pub(super) fn current(target: &TargetTable, version: Option<Version>) -> String {
    let columns = ddl::source_columns(target);
    let (table, op) = (ddl::table(target), ddl::ident(OP));
    let ours = ddl::ident(&target.system_columns().version);
    let (until, below) = match version.map(Version::get) {
        None => (String::new(), String::new()),
        Some(version) => (
            format!(" WHERE {ours} <= {version}"),
            format!(" AND {ours} < {version}"),
        ),
    };
    if target.is_keyless() {
        return format!(
            "SELECT {columns}\nFROM\n(\n    SELECT {columns}, sum(multiIf({op} = 'insert', 1, {op} = 'delete', -1, 0)) AS {COPIES}\n    \
             FROM {table}{until}\n    GROUP BY {columns}\n)\nARRAY JOIN range(toUInt64(greatest({COPIES}, 0))) AS {COPY}"
        );
    }
    let key = ddl::idents(target.key_names().into_iter());
    format!(
        "SELECT {columns}\nFROM\n(\n    SELECT {columns}, {op}, {ours}\n    FROM {table}{until}\n    \
         ORDER BY {key}, {ours} DESC\n    LIMIT 1 BY {key}\n)\nWHERE {op} != 'delete'{below}"
    )
}

/// Names that no column of a source has.
const COPIES: &str = "_pipewright_copies";
const COPY: &str = "_pipewright_copy";

/// A delete of `version` for every row that stands there. A repetition finds those that are deleted already.
pub(super) fn delete_below(target: &TargetTable, version: Version) -> String {
    let columns = ddl::source_columns(target);
    let ours = ddl::ident(&target.system_columns().version);
    format!(
        "INSERT INTO {} ({columns}, {ours}, {})\nSELECT {columns}, toUInt64({}), 'delete'\nFROM\n(\n{}\n)",
        ddl::table(target),
        ddl::ident(OP),
        version.get(),
        current(target, Some(version)),
    )
}

fn between(target: &TargetTable, first: u64, last: u64) -> String {
    let ours = ddl::ident(&target.system_columns().version);
    format!(
        "SELECT {ours} AS version FROM {} WHERE {ours} BETWEEN {first} AND {last}",
        ddl::table(target)
    )
}

/// What is known of append tables in this run.
#[derive(Debug)]
pub(super) struct Known {
    state: Mutex<State>,
    /// Begins the tokens of this run.
    nonce: u64,
}

#[derive(Debug, Default)]
struct State {
    /// Up to which version each table may have rows already, since it was last asked.
    versions: BTreeMap<String, u64>,
    /// Tokens of inserts whose answers were lost.
    doubtful: BTreeSet<String>,
    /// Pipe and term that are written for; none before the first.
    claim: Option<(String, u16)>,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            nonce: rand::random(),
        }
    }
}

impl Known {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Deserialize)]
struct VersionRow {
    version: u64,
}

const DOING: Doing<'static> = Doing::Definition("to look for rows that were written before");

impl ClickHouse {
    /// Writes those of the changes that the append table lacks, with one insert. As [`ClickHouse::insert`].
    pub(super) async fn append(
        &self,
        target: &TargetTable,
        batches: &[ChangeBatch],
    ) -> Result<Durable> {
        let stream = |batch: &ChangeBatch| matches!(batch.changes, Changes::Stream { .. });
        if !batches.iter().any(stream) {
            return self.send(target, batches, None).await;
        }
        let mut attempt = 0;
        let mut answered = None;
        loop {
            let known = self.highest_known(target).await?;
            let mut lacking = Vec::with_capacity(batches.len());
            for batch in batches {
                lacking.push(self.lacking(target, batch, known).await?);
            }
            let Some(token) = token(self.known().nonce, attempt, &lacking) else {
                return match answered {
                    // Asked once more, the table has them.
                    Some(durable) => Ok(durable),
                    None => self.send(target, &lacking, None).await,
                };
            };
            let sent = self.send(target, &lacking, Some(&token)).await;
            let mut state = self.known().state();
            match sent {
                Ok(durable) if !state.doubtful.contains(&token) => return Ok(durable),
                Ok(durable) => answered = Some(durable),
                Err(error) => {
                    state.versions.remove(target.name());
                    state.doubtful.insert(token);
                    return Err(error);
                }
            }
            state.versions.remove(target.name());
            attempt += 1;
        }
    }

    /// The next write asks anew what the table has.
    pub(super) fn forget_known(&self, target: &TargetTable) {
        self.known().state().versions.remove(target.name());
    }

    async fn highest_known(&self, target: &TargetTable) -> Result<u64> {
        if let Some(known) = self.known().state().versions.get(target.name()) {
            return Ok(*known);
        }
        self.end_outstanding_changes(target.name())
            .await
            .map_err(|error| error.with_table(target.source()))?;
        let known = self.highest_version_in(target).await?;
        let mut state = self.known().state();
        state.versions.insert(target.name().to_owned(), known);
        Ok(known)
    }

    async fn lacking(
        &self,
        target: &TargetTable,
        batch: &ChangeBatch,
        known: u64,
    ) -> Result<ChangeBatch> {
        let Changes::Stream { versions, .. } = &batch.changes else {
            return Ok(batch.clone());
        };
        // In order but for pieces of an XA transaction, which come as they were kept.
        let (Some(&first), Some(&last)) = (versions.iter().min(), versions.iter().max()) else {
            return Ok(batch.clone());
        };
        if first > known {
            return Ok(batch.clone());
        }
        let sql = between(target, first, last.min(known));
        let rows: Vec<VersionRow> = self
            .rows(&sql, DOING)
            .await
            .map_err(|error| error.with_table(target.source()))?;
        let present: BTreeSet<u64> = rows.into_iter().map(|row| row.version).collect();
        without(batch, &present)
    }

    /// From now on append tables are written for `pipe` at `term`, which it has claimed.
    pub fn write_as(&self, pipe: &str, term: u16) {
        self.known().state().claim = Some((pipe.to_owned(), term));
    }

    /// What a statement that writes into an append table has to carry: whoever has claimed a higher term since takes out
    /// what is not checkpointed, and writes it.
    pub(super) fn condition(&self, target: &TargetTable) -> Option<String> {
        let claim = self.known().state().claim.clone();
        let (pipe, term) = claim.filter(|_| target.is_append())?;
        let database = self.database();
        Some(ddl::claim_stands(database, CHECKPOINTS_TABLE, &pipe, term))
    }

    /// A refusal by the condition says no more than that: whether it was is asked for.
    pub(super) async fn why_refused(&self, target: &TargetTable, error: Error) -> Error {
        let claim = self.known().state().claim.clone();
        let is_refusal = target.is_append() && error.kind() == ErrorKind::DestinationRejected;
        let Some((pipe, term)) = claim.filter(|_| is_refusal) else {
            return error;
        };
        match self.ensure_highest(&pipe, term).await {
            Err(lost) if lost.kind() == ErrorKind::Busy => lost,
            _ => error,
        }
    }
}

/// The batch without the rows of these versions.
fn without(batch: &ChangeBatch, present: &BTreeSet<u64>) -> Result<ChangeBatch> {
    let batch = batch.clone();
    let Changes::Stream { versions, .. } = &batch.changes else {
        return Ok(batch);
    };
    if present.is_empty() {
        return Ok(batch);
    }
    let lacking: Vec<bool> = versions.iter().map(|v| !present.contains(v)).collect();
    let name = batch.schema.name.clone();
    batch.keep(&BooleanArray::from(lacking)).map_err(|error| {
        Error::new(ErrorKind::Internal, "rows cannot be left out of a batch")
            .with_source(error)
            .with_table(&name)
    })
}

/// The same for the same rows and attempt in this run, and for no others; none for no rows.
fn token(nonce: u64, attempt: u32, batches: &[ChangeBatch]) -> Option<String> {
    let versions = || {
        batches.iter().flat_map(|batch| match &batch.changes {
            Changes::Load => &[][..],
            Changes::Stream { versions, .. } => versions,
        })
    };
    let (first, last) = (versions().next()?, versions().last()?);
    Some(format!(
        "{nonce:x}/{attempt}/{first}-{last}/{}",
        versions().count()
    ))
}

#[cfg(test)]
#[path = "append_tests.rs"]
mod tests;
