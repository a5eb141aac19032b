//! XA transactions between their PREPARE and their decision.
//!
//! Their rows are read at PREPARE and written at XA COMMIT, which may be days and restarts later. They wait in memory; a
//! checkpoint that moves past a PREPARE takes the rows into the state first, so a replay finds them there. A pair within
//! one flush never touches the state.
//!
//! A record says which pieces of rows the state has, by table, since each table may stand at a place of its own: whoever
//! reads the decision for a table takes that table's pieces. The record itself stays until the decision lies behind every
//! table's place, and a stream begins with those records that were prepared at its place and not decided there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::record::Records;
use super::store::PipeStore;
use super::track::Track;
use crate::batch::TableName;
use crate::error::{Error, ErrorKind, Result};
use crate::source::mysql::binlog::{Packed, Prepared, Xid};
use crate::source::mysql::position::Position;

/// Rows of this size are written from memory in one go, larger ones out of the state: a flush in the middle of them moves
/// the checkpoint past their PREPARE.
pub(super) const IN_MEMORY_BYTES: u64 = 4 << 20;

/// What the state keeps of a prepared transaction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PreparedRecord {
    /// Tells it from others of the same name.
    pub id: String,
    /// The name that its decision gives.
    pub xid: Xid,
    /// The place behind the PREPARE.
    pub end: Position,
    /// What its decision adds to the stream offset.
    pub length: u64,
    /// How many pieces of rows are kept for each table.
    pub pieces: Vec<(TableName, u32)>,
    /// The place behind the decision, once a stream has passed it.
    pub decided: Option<Position>,
}

/// A transaction that waits in a follower.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) id: String,
    /// None once the rows are in the state, or on their way there.
    pub(super) rows: Option<Prepared>,
}

/// Transactions by name.
pub(super) type WaitingByXid = BTreeMap<Xid, Waiting>;

/// What was prepared and not decided at `place`: the followers' part, and the stream's.
pub(super) fn waiting_at(records: &Records, place: &Position) -> (WaitingByXid, HashMap<Xid, u64>) {
    let passed = |at: &Position| place.contains(at) == Some(true);
    let mut waiting = BTreeMap::new();
    let mut lengths = HashMap::new();
    for record in records.prepared.values() {
        if passed(&record.end) && !record.decided.as_ref().is_some_and(passed) {
            let id = record.id.clone();
            waiting.insert(record.xid.clone(), Waiting { id, rows: None });
            lengths.insert(record.xid.clone(), record.length);
        }
    }
    (waiting, lengths)
}

/// Takes the rows of `prepared` into the state; the record that makes them count goes in with the checkpoint.
///
/// # Errors
/// When spill file or state fail.
pub(super) async fn keep(store: &PipeStore, prepared: &mut Prepared) -> Result<PreparedRecord> {
    let mut counts: BTreeMap<TableName, u32> = BTreeMap::new();
    let id = prepared.id.clone();
    prepared
        .pack(|table, piece| {
            let number = counts.entry(table.clone()).or_insert(0);
            *number += 1;
            store.keep_rows(piece_key(&id, &table, *number), piece)
        })
        .await?;
    Ok(PreparedRecord {
        id,
        xid: prepared.xid.clone(),
        end: prepared.end.position.clone(),
        length: prepared.length,
        pieces: counts.into_iter().collect(),
        decided: None,
    })
}

/// Reads a kept piece of a table's rows, numbered from 1.
///
/// # Errors
/// `State` when it is not there.
pub(super) async fn kept(
    store: &PipeStore,
    id: &str,
    table: &TableName,
    number: u32,
) -> Result<Packed> {
    let key = piece_key(id, table, number);
    let piece = store.kept_rows(&key).await?.ok_or_else(|| {
        Error::new(
            ErrorKind::State,
            format!("the state has lost rows of a prepared XA transaction (`{key}`)"),
        )
        .with_hint("resync the table")
        .with_table(table)
    })?;
    Packed::read(&piece)
}

fn piece_key(id: &str, table: &TableName, number: u32) -> String {
    format!("{id}/{number:08}/{}", table.key())
}

/// Records what a flush has kept.
pub(super) fn record_kept(draft: &mut Records, kept: Vec<PreparedRecord>) {
    for new in kept {
        let record = draft.prepared.entry(new.id.clone()).or_insert_with(|| {
            Arc::new(PreparedRecord {
                pieces: Vec::new(),
                ..new.clone()
            })
        });
        let record = Arc::make_mut(record);
        let replaced: BTreeSet<&TableName> = new.pieces.iter().map(|(table, _)| table).collect();
        record.pieces.retain(|(table, _)| !replaced.contains(table));
        record.pieces.extend(new.pieces.clone());
    }
}

/// Records decisions that a stream has carried out, each with the place behind it, and forgets what no table will ask for
/// any more.
pub(super) fn record_decided(draft: &mut Records, track: &Track, decided: &[(String, Position)]) {
    let mut records = std::mem::take(&mut draft.prepared);
    for (id, end) in decided {
        if let Some(record) = records.get_mut(id) {
            let record = Arc::make_mut(record);
            record
                .pieces
                .retain(|(table, _)| !track.carries(draft, table));
            record.decided.get_or_insert_with(|| end.clone());
        }
    }
    let at = draft
        .pipe
        .as_ref()
        .and_then(|pipe| pipe.checkpoint.as_ref());
    let behind = |end: &Position| {
        let pipe = at.is_some_and(|at| at.place.position.contains(end) == Some(true));
        let tables = draft
            .tables
            .values()
            .filter_map(|table| table.place.as_ref());
        pipe && tables
            .into_iter()
            .all(|own| own.place.position.contains(end) == Some(true))
    };
    records.retain(|_, record| !record.decided.as_ref().is_some_and(behind));
    draft.prepared = records;
}

/// An XA COMMIT of something that was prepared before this pipe began to read.
pub(super) fn unread(xid: &Xid) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!(
            "the source committed the XA transaction {xid}, whose rows stand in the binlog before the place that this \
             pipe began at: which tables it changed cannot be told"
        ),
    )
    .with_hint(
        "resync the pipe; grant XA_RECOVER_ADMIN, so that loads wait until nothing is prepared; by file and offset run \
         FLUSH BINARY LOGS first, since a load starts where the current file begins",
    )
}
