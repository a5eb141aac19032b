//! Dead letters: shown, and sent through the plugins again once a person has mended why they failed.
//!
//! A letter that passes is written with the version that its row had, so whatever has happened to the row since outranks it.
//! At that version stands at most the tombstone that hid the row; of two rows of one version ClickHouse keeps the one that
//! was inserted last. Two things leave nothing that outranks it, and close the letters before them instead: a later load of
//! the table, whose rows have version 0, and a TRUNCATE, which gives tombstones to rows that are there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::attach::connected_anew;
use super::session::{LiveTable, Session};
use super::supervisor::Pipe;
use crate::batch::{ChangeBatch, Changes, Op, rows_from_texts};
use crate::destination::clickhouse::ClickHouse;
pub use crate::destination::clickhouse::DeadLetter;
use crate::error::{Error, ErrorKind, Result};

/// Letters that are read at once.
const LETTERS_AT_ONCE: u64 = 10_000;

/// What became of letters that were sent again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Replayed {
    /// They have passed, and are letters no more.
    pub passed: u64,
    /// They fail still.
    pub failing: u64,
}

/// The letters of a pipe, of one table or of all; `limit` at most.
///
/// # Errors
/// Whatever the destination fails with.
pub(super) async fn list(pipe: &Pipe, table: Option<&str>, limit: u64) -> Result<Vec<DeadLetter>> {
    let destination = ClickHouse::connect(&pipe.effective_config()?.destination).await?;
    let loads = loads(pipe, table);
    destination
        .read_letters(pipe.store.pipe(), &loads, 0, limit)
        .await
}

/// The present loads of all tables or of one, whose letters are open.
fn loads(pipe: &Pipe, table: Option<&str>) -> Vec<(String, String)> {
    let records = pipe.store.records();
    let Some(pipe) = &records.pipe else {
        return Vec::new();
    };
    let wanted = |name: &String| table.is_none_or(|table| table == name);
    records
        .tables
        .iter()
        .map(|(name, record)| (name.to_string(), record.load(&pipe.id)))
        .filter(|(name, _)| wanted(name))
        .collect()
}

/// Sends the letters of a pipe, of one table or of all, through the present plugins.
///
/// # Errors
/// Whatever a plugin or the destination fails with; letters that have passed until then stay passed.
pub(super) async fn replay(pipe: &Pipe, table: Option<&str>) -> Result<Replayed> {
    let _letters = pipe.store.letters().lock().await;
    let session = connected_anew(pipe).await?;
    let loads = loads(pipe, table);
    let mut replayed = Replayed::default();
    loop {
        // Those that have passed are no longer among the open ones.
        let read = session.destination.read_letters(
            pipe.store.pipe(),
            &loads,
            replayed.failing,
            LETTERS_AT_ONCE,
        );
        let letters = read.await?;
        if letters.is_empty() {
            return Ok(replayed);
        }
        let done = replay_page(&session, letters).await?;
        replayed.passed += done.passed;
        replayed.failing += done.failing;
    }
}

async fn replay_page(session: &Session, letters: Vec<DeadLetter>) -> Result<Replayed> {
    let mut by_table: BTreeMap<String, Vec<DeadLetter>> = BTreeMap::new();
    for letter in letters {
        by_table
            .entry(letter.table.clone())
            .or_default()
            .push(letter);
    }
    let mut replayed = Replayed::default();
    for (name, letters) in by_table {
        let mut tables = session.tables().into_iter();
        let table = tables
            .find(|table| table.source.name().to_string() == name)
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::IllegalCommand,
                    format!("table `{name}` has dead letters and is out of service"),
                )
                .with_hint("bring the table back with `pipewright tables retry`, or name another with --table")
            })?;
        let done = replay_table(session, &table, letters)
            .await
            .map_err(|error| error.with_table(table.source.name()))?;
        replayed.passed += done.passed;
        replayed.failing += done.failing;
    }
    Ok(replayed)
}

async fn replay_table(
    session: &Session,
    table: &LiveTable,
    letters: Vec<DeadLetter>,
) -> Result<Replayed> {
    let rows: Vec<String> = letters.iter().map(|letter| letter.row.clone()).collect();
    let columns = rows_from_texts(&table.source.schema, &rows).map_err(|error| {
        Error::new(
            ErrorKind::SchemaConflict,
            "a dead letter does not fit the table's present columns",
        )
        .with_hint("resync the table")
        .with_source(error)
    })?;
    let batch = ChangeBatch {
        schema: Arc::clone(&table.source.schema),
        columns,
        row_count: letters.len(),
        changes: Changes::Stream {
            ops: letters.iter().map(op).collect(),
            versions: letters.iter().map(|letter| letter.version).collect(),
        },
    };
    let applied = table.chain.apply(batch).await?;
    for (output, batch) in applied.batches {
        let batches = [batch];
        for target in table.stream_targets_of(output) {
            // The letters are marked below, only after this.
            drop(session.destination.insert(target, &batches).await?);
        }
    }
    let failing: BTreeSet<usize> = applied.faults.iter().map(|fault| fault.row).collect();
    let passed: Vec<DeadLetter> = letters
        .into_iter()
        .enumerate()
        .filter(|(row, _)| !failing.contains(row))
        .map(|(_, letter)| DeadLetter {
            replayed: 1,
            ..letter
        })
        .collect();
    let replayed = Replayed {
        passed: passed.len() as u64,
        failing: failing.len() as u64,
    };
    if !passed.is_empty() {
        drop(session.destination.write_letters(&passed).await?);
    }
    Ok(replayed)
}

fn op(letter: &DeadLetter) -> Op {
    match letter.op.as_str() {
        "update" => Op::Update,
        "delete" => Op::Delete,
        _ => Op::Insert,
    }
}
