//! Dead letters: shown, and sent through the plugins again once a person has mended why they failed.
//!
//! A letter that passes is written with the version that its row had, so whatever has happened to the row since outranks it.
//! At that version stands at most the tombstone that hid the row; of two rows of one version ClickHouse keeps the one that
//! was inserted last. So a letter waits until its tombstone is there for good: the letter is written first, and what lies
//! beyond the checkpoint may be sent once more after a crash, its tombstones too. Two things leave nothing that outranks a
//! letter, and close the letters before them instead: a later load of the table, whose rows have version 0, and a TRUNCATE,
//! which gives tombstones to rows that are there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::ArrayRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::attach::connected_anew;
use super::record::Records;
use super::session::{LiveTable, Session};
use super::supervisor::Pipe;
use super::table_state::TableState;
use crate::batch::{
    ChangeBatch, Changes, Op, TableName, TableSchema, UnfitRow, Version, rows_from_texts,
};
use crate::destination::clickhouse::ClickHouse;
pub use crate::destination::clickhouse::{DeadLetter, LetterPage, LetterPlace};
use crate::error::{Error, ErrorKind, Result};

/// Letters that are read at once, where their rows are small.
const LETTERS_AT_ONCE: u64 = 10_000;

/// Letters of a pipe: which are meant, from where on, and how many.
#[derive(Clone, Debug, Default)]
pub struct Letters<'a> {
    /// Only those of this source table.
    pub table: Option<&'a str>,
    /// Only those behind this place.
    pub after: Option<LetterPlace>,
    /// This many at most.
    pub limit: Option<u64>,
}

/// What became of letters that were sent again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Replayed {
    /// They have passed, and are letters no more.
    pub passed: u64,
    /// They fail still.
    pub failing: u64,
    /// Their rows lie beyond the checkpoint; they were left for a later replay.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub waiting: u64,
    /// What does not fit its table's present columns. These letters are among the failing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unfit: Vec<Unfit>,
    /// Behind which to go on, as `after`: there are more than were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<LetterPlace>,
}

/// Letters of one table that do not fit its present columns, all for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unfit {
    /// The source table.
    pub table: String,
    /// What is wrong with their rows.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
    /// How many they are.
    pub letters: u64,
}

// serde hands a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Replayed {
    /// Counts the letters behind these too.
    pub fn add(&mut self, more: Self) {
        self.next = more.next;
        self.passed += more.passed;
        self.failing += more.failing;
        self.waiting += more.waiting;
        for more in more.unfit {
            let same =
                |known: &&mut Unfit| (&known.table, &known.reason) == (&more.table, &more.reason);
            match self.unfit.iter_mut().find(same) {
                Some(known) => known.letters += more.letters,
                None => self.unfit.push(more),
            }
        }
    }
}

/// Letters of a pipe: as many as were asked for at most, and fewer where their rows are large.
///
/// # Errors
/// Whatever the destination fails with.
pub(super) async fn list(pipe: &Pipe, which: &Letters<'_>) -> Result<LetterPage> {
    let destination = ClickHouse::connect(&pipe.effective_config()?.destination).await?;
    let loads = loads(pipe, which.table);
    let limit = which.limit.unwrap_or(LETTERS_AT_ONCE);
    destination
        .read_letters(pipe.store.pipe(), &loads, which.after.as_ref(), limit)
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

/// Sends letters of a pipe through the present plugins: all of them, or as many as were asked for.
///
/// # Errors
/// Whatever a plugin or the destination fails with; letters that have passed until then stay passed. `IllegalCommand` while
/// rows pass through former plugins once more.
pub(super) async fn replay(pipe: &Pipe, which: Letters<'_>) -> Result<Replayed> {
    let _letters = pipe.store.letters().lock().await;
    let session = connected_anew(pipe).await?;
    let loads = loads(pipe, which.table);
    let mut replayed = Replayed {
        next: which.after,
        ..Replayed::default()
    };
    let mut left = which.limit.unwrap_or(u64::MAX);
    while left > 0 {
        // Before the letters: one that is there with its checkpoint has its tombstone.
        let records = pipe.store.records();
        let (name, after) = (pipe.store.pipe(), replayed.next.take());
        let at_once = left.min(LETTERS_AT_ONCE);
        let read = session
            .destination
            .read_letters(name, &loads, after.as_ref(), at_once);
        let LetterPage { letters, next } = read.await?;
        left -= letters.len() as u64;
        let page = replay_page(&session, &records, letters).await?;
        replayed.add(Replayed { next, ..page });
        if replayed.next.is_none() {
            break;
        }
    }
    for unfit in &replayed.unfit {
        let Unfit { table, reason, .. } = unfit;
        let (pipe, letters) = (pipe.store.pipe(), unfit.letters);
        tracing::warn!(
            pipe,
            table,
            letters,
            "dead letters cannot be replayed: {reason}"
        );
    }
    Ok(replayed)
}

async fn replay_page(
    session: &Session,
    records: &Records,
    letters: Vec<DeadLetter>,
) -> Result<Replayed> {
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
        let reached = reached(records, table.source.name());
        let (settled, waiting): (Vec<_>, Vec<_>) = letters
            .into_iter()
            .partition(|letter| letter.version <= reached.get());
        replayed.waiting += waiting.len() as u64;
        let record = records.tables.get(table.source.name());
        let none = BTreeMap::new();
        let named_at = record.map_or(&none, |record| &record.named_at);
        let done = replay_table(session, &table, named_at, settled)
            .await
            .map_err(|error| error.with_table(table.source.name()))?;
        replayed.add(done);
    }
    Ok(replayed)
}

/// The version up to which all rows of a table, tombstones too, are at the destination for good: that of the checkpoint, or
/// of its own place while it reads by itself. One without a term for that has written nothing there yet.
fn reached(records: &Records, name: &TableName) -> Version {
    let table = records.tables.get(name);
    let alone = table.filter(|table| table.state == TableState::CatchingUp);
    if let Some(own) = alone.and_then(|table| table.place.as_ref()) {
        return match own.term {
            Some(term) => Version::new(term, own.place.offset),
            None => Version::LOAD,
        };
    }
    match (&records.pipe, records.checkpoint()) {
        (Some(pipe), Some(at)) => Version::new(pipe.term, at.place.offset),
        _ => Version::LOAD,
    }
}

async fn replay_table(
    session: &Session,
    table: &LiveTable,
    named_at: &BTreeMap<String, u64>,
    letters: Vec<DeadLetter>,
) -> Result<Replayed> {
    let (letters, columns, unfit) = fitting(&table.source.schema, named_at, letters);
    let mut replayed = Replayed::default();
    for (reason, letters) in unfit {
        replayed.failing += letters;
        replayed.unfit.push(Unfit {
            table: table.source.name().to_string(),
            reason: format!("a row {reason}"),
            remedy: format!(
                "resync the table: pipewright resync --table {}",
                table.source.name()
            ),
            letters,
        });
    }
    if letters.is_empty() {
        return Ok(replayed);
    }
    let batch = ChangeBatch {
        schema: Arc::clone(&table.source.schema),
        columns,
        row_count: letters.len(),
        changes: Changes::Stream {
            ops: letters.iter().map(op).collect(),
            versions: letters.iter().map(|letter| letter.version).collect(),
        },
    };
    let applied = table.chain.apart().apply(batch).await?;
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
    replayed.passed += passed.len() as u64;
    replayed.failing += failing.len() as u64;
    if !passed.is_empty() {
        drop(session.destination.write_letters(&passed).await?);
    }
    Ok(replayed)
}

/// The letters whose rows fit the table's present columns, with these rows, and how many do not, by the reason. One that
/// does not keeps no other back.
fn fitting(
    schema: &TableSchema,
    named_at: &BTreeMap<String, u64>,
    mut letters: Vec<DeadLetter>,
) -> (Vec<DeadLetter>, Vec<ArrayRef>, BTreeMap<UnfitRow, u64>) {
    let mut unfit = BTreeMap::new();
    let names = || schema.columns.iter().map(|column| &column.name);
    letters.retain(|letter| {
        let is_later = |name: &&String| named_at.get(*name).is_some_and(|at| letter.version < *at);
        let later = names().filter(is_later).find(|name| letter.has(name));
        if let Some(name) = later {
            *unfit.entry(UnfitRow::Older(name.clone())).or_default() += 1;
        }
        later.is_none()
    });
    loop {
        let rows = letters.iter().map(|letter| letter.row.as_str());
        match rows_from_texts(schema, &rows.collect::<Vec<_>>()) {
            Ok(columns) => return (letters, columns, unfit),
            Err(reason) => {
                let before = letters.len();
                letters.retain(|letter| {
                    let Err(reason) = rows_from_texts(schema, &[&letter.row]) else {
                        return true;
                    };
                    *unfit.entry(reason).or_default() += 1;
                    false
                });
                // Where each fits by itself, and all together do not.
                if letters.len() == before {
                    *unfit.entry(reason).or_default() += before as u64;
                    letters.clear();
                }
            }
        }
    }
}

fn op(letter: &DeadLetter) -> Op {
    match letter.op.as_str() {
        "update" => Op::Update,
        "delete" => Op::Delete,
        _ => Op::Insert,
    }
}
