//! Whether ClickHouse still holds what it had acknowledged, and whether this state is the newest that has written there.
//!
//! The mirror of a checkpoint is written after its rows and before the state, so at a start it stands at the state's
//! checkpoint or ahead of it. One that stands behind proves that ClickHouse has lost rows. They are read again from the
//! mirror's place, where that is behind the ends of all loads: rows of a load carry no place, so of them nobody can tell
//! which are gone. One that stands ahead of everything that this state has ever sent was written by a state of which this
//! one is an earlier copy, or by another claimant: whatever was written then must lose to what is written from now on.

use super::lifecycle::Failure;
use super::record::{Checkpoint, PipeRecord, Records, TablePlace, TableRecord};
use super::session::Session;
use super::store::PipeStore;
use super::table_state::TableState;
use crate::batch::TableName;
use crate::destination::clickhouse::Mirror;
use crate::error::{Error, ErrorKind, Result};
use crate::source::mysql::past;
use crate::source::mysql::position::{Position, StreamPlace};

/// What the destination says of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It holds what the state says, and nothing that the state knows nothing of.
    Held,
    /// It holds more, or may: a term is to be claimed above all of it.
    Overtaken,
}

/// Whether the mirror shows that the destination holds everything up to the checkpoint of our record. A claim that is in
/// the record came after it.
pub(super) fn is_held(record: &PipeRecord, mirror: &Mirror) -> bool {
    let ours = record.checkpoint.as_ref();
    ours.is_none_or(|ours| {
        mirror.owner == record.owner
            && (mirror.term, mirror.offset) >= (record.term, ours.place.offset)
    })
}

/// Sees, between the rows of a checkpoint and its mirror, that what was acknowledged before is still there: a newer mirror
/// would hide for good that ClickHouse has come back older, which on an idle connection nobody notices.
///
/// # Errors
/// `DestinationUnavailable` when it is not: the next run goes back to what is there. `DestinationLost` when nothing is there.
/// Else as any query.
pub(super) async fn ensure_held(session: &Session, store: &PipeStore) -> Result<()> {
    let record = store.record();
    let is_behind = |mirror: &Mirror| {
        let offset = record.checkpoint.as_ref().map(|ours| ours.place.offset);
        // Whoever has claimed a later term has seen to that.
        (mirror.term < record.term)
            || (mirror.term == record.term
                && mirror.owner == record.owner
                && offset.is_some_and(|offset| mirror.offset < offset))
    };
    match session.destination.read_mirror(store.pipe()).await? {
        None => Err(gone(store.pipe())),
        Some(mirror) if !is_behind(&mirror) => Ok(()),
        Some(_) => Err(Error::new(
            ErrorKind::DestinationUnavailable,
            "ClickHouse holds less than it had acknowledged",
        )
        .with_hint("nothing: the pipe goes back to what is there, and reads on from that, or says that it cannot")),
    }
}

/// Compares the mirror with the state, and goes back to its place where ClickHouse has lost rows that can be read again.
///
/// # Errors
/// `DestinationLost` where they cannot; `SourceDiverged` when the source lacks what an overtaking state has written;
/// `DestinationRejected` for an append table that another state has written to.
pub(super) async fn compare(session: &Session, store: &PipeStore) -> Result<Standing> {
    let record = store.record();
    if record.term == 0 || record.anew {
        // Whatever stands there counts no more.
        return Ok(Standing::Overtaken);
    }
    let Some(mirror) = session.destination.read_mirror(store.pipe()).await? else {
        return Err(gone(store.pipe()));
    };
    let position: Position = serde_json::from_str(&mirror.position).map_err(|error| {
        lost(store.pipe(), "the mirrored position cannot be read").with_source(error)
    })?;
    match judge(&record, &mirror, &position) {
        Verdict::Held => Ok(Standing::Held),
        Verdict::Claimed => Ok(Standing::Overtaken),
        Verdict::Overtaken => {
            tracing::warn!(
                pipe = store.pipe(),
                "more was written to ClickHouse than this state knows of: it is an earlier copy, or the process ended \
                 between two writes; what follows is written above all of it"
            );
            if mirror.term > record.term && !are_claims_alone(session, store).await? {
                ensure_tellable(&store.records())?;
            }
            if mirror.owner == record.owner {
                past::ensure_holds(&session.source, &position).await?;
            }
            Ok(Standing::Overtaken)
        }
        Verdict::Lost => Err(lost(
            store.pipe(),
            "its newest checkpoint is of an earlier term than the pipe's",
        )),
        Verdict::Behind => {
            let place = StreamPlace {
                position,
                offset: mirror.offset,
            };
            read_again(store, place).await?;
            Ok(match record.claiming {
                Some(_) => Standing::Overtaken,
                None => Standing::Held,
            })
        }
    }
}

/// Lets the pipe go on from `place`, up to which ClickHouse holds everything.
async fn read_again(store: &PipeStore, place: StreamPlace) -> Result<()> {
    if !is_past_loads(&store.records(), &place.position) {
        return Err(lost(
            store.pipe(),
            "its newest checkpoint is older than the end of a load, whose rows carry no place",
        ));
    }
    if has_decided_behind(&store.records(), &place.position) {
        return Err(lost(
            store.pipe(),
            "its newest checkpoint lies between the PREPARE and the decision of an XA transaction, whose rows are no longer \
             kept",
        ));
    }
    tracing::warn!(
        pipe = store.pipe(),
        "ClickHouse's newest checkpoint is older than ours: it has lost rows, which are read again from the binlog"
    );
    store
        .commit(|draft| {
            go_back(draft, &place);
            Ok(())
        })
        .await
}

/// Whether a transaction was prepared before `place`, and its decision has been carried out behind it, with the rows that
/// were kept until then.
fn has_decided_behind(records: &Records, place: &Position) -> bool {
    let holds = |place: &Position, other: &Position| place.contains(other) == Some(true);
    let at = records.checkpoint();
    records.prepared.values().any(|prepared| {
        let decided = prepared.decided.as_ref();
        holds(place, &prepared.end)
            && decided.is_some_and(|decided| {
                !holds(place, decided) && at.is_some_and(|at| holds(&at.place.position, decided))
            })
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Held,
    /// A claim has not ended: whether its row is there is not known.
    Claimed,
    Overtaken,
    /// Rows are gone, back to the mirror's place in the same term.
    Behind,
    /// Rows are gone, and the offsets of their term with them.
    Lost,
}

fn judge(record: &PipeRecord, mirror: &Mirror, position: &Position) -> Verdict {
    let Some(checkpoint) = &record.checkpoint else {
        return Verdict::Claimed;
    };
    // Also of another owner: what is in our record came after it.
    if mirror.term < record.term {
        return Verdict::Lost;
    }
    if mirror.term > record.term || mirror.owner != record.owner {
        let is_own_claim =
            Some(mirror.term) == record.claiming && Some(&mirror.owner) == record.claimant.as_ref();
        return match is_own_claim {
            true => Verdict::Claimed,
            false => Verdict::Overtaken,
        };
    }
    if mirror.offset < checkpoint.place.offset {
        return Verdict::Behind;
    }
    let knows = |place: &StreamPlace| place.position.contains(position) == Some(true);
    // A crash between mirror and state leaves the former ahead, by one flush, which was announced.
    let known = knows(&checkpoint.place) || record.sent.as_ref().is_some_and(knows);
    match (known, record.claiming) {
        (false, _) => Verdict::Overtaken,
        (true, Some(_)) => Verdict::Claimed,
        (true, None) => Verdict::Held,
    }
}

/// Whether nothing was written in the terms above ours, nor taken out of what we have written: whoever claimed one began
/// no earlier than where we are, and got no further.
async fn are_claims_alone(session: &Session, store: &PipeStore) -> Result<bool> {
    let record = store.record();
    let above = session.destination.places_above(store.pipe(), record.term);
    let ours = record
        .checkpoint
        .map(|checkpoint| checkpoint.place.position);
    Ok(above.await?.iter().all(|(offset, position)| {
        let began: Option<Position> = serde_json::from_str(position).ok();
        let is_behind = began
            .zip(ours.as_ref())
            .is_some_and(|(began, ours)| began.contains(ours) == Some(true));
        *offset == 0 && is_behind
    }))
}

/// A state that has written in a later term may have begun it at an earlier place than ours. Its rows of replaced tables
/// are ours once more, or lose; those of append tables would be missing, or there twice.
fn ensure_tellable(records: &Records) -> Result<()> {
    let settled = |table: &TableRecord| {
        table.appends && table.state.is_in_stream() && !table.state.is_loading()
    };
    match records.names_where(settled).first() {
        None => Ok(()),
        Some(name) => Err(Error::new(
            ErrorKind::DestinationRejected,
            "another state of this pipe has written to the append table since, and which of its changes are there cannot \
             be told",
        )
        .with_table(name)
        .with_hint(format!(
            "go on from the newest state folder; or resync the table: pipewright resync --table {name}"
        ))),
    }
}

/// Whether every load had ended before `position`, or has not written anything yet.
fn is_past_loads(records: &Records, position: &Position) -> bool {
    let mut tables = records.tables.iter();
    tables.all(|(name, table)| {
        let is_empty = records.done.get(name).is_none_or(|done| done.is_empty());
        match &table.load_end {
            _ if table.state == TableState::Removed => true,
            Some(end) => position.contains(end) == Some(true),
            None => is_empty,
        }
    })
}

/// Takes the checkpoint back to `to`, and tables that stand ahead of it by themselves as well. When the source committed what
/// lies before `to`, no record says.
fn go_back(draft: &mut Records, to: &StreamPlace) {
    let record = draft.pipe_mut();
    if let Some(checkpoint) = record.checkpoint.take() {
        record.checkpoint = Some(Checkpoint {
            place: to.clone(),
            committed_at_us: None,
            ..checkpoint
        });
    }
    let apart = draft.names_where(|table| {
        table.place.is_some() && !table.state.is_loading() && table.state != TableState::Removed
    });
    for name in apart {
        let table = draft.table_mut(&name);
        let Some(own) = table.place.take() else {
            continue;
        };
        if own.term.is_some() {
            table.inexact = Some(Failure::from(&may_lack(&name)));
        }
        table.place = match to.position.contains(&own.place.position) {
            Some(true) => Some(own),
            // Up to where it was taken in, its events are nothing to it.
            _ if table.state.is_in_stream() => own.term.is_none().then_some(own),
            _ => Some(TablePlace {
                term: None,
                place: to.clone(),
                sent: own.sent,
                as_of_us: None,
            }),
        };
    }
}

/// What a table reads by itself stands in no mirror.
fn may_lack(name: &TableName) -> Error {
    Error::new(
        ErrorKind::DestinationLost,
        "ClickHouse has lost rows that it had acknowledged, perhaps some that this table had read by itself",
    )
    .with_table(name)
    .with_hint(format!(
        "resync the table: pipewright resync --table {name}"
    ))
}

fn gone(pipe: &str) -> Error {
    lost(
        pipe,
        "the pipe's rows in `_pipewright_checkpoints` are gone",
    )
}

fn lost(pipe: &str, what: &str) -> Error {
    Error::new(
        ErrorKind::DestinationLost,
        format!("ClickHouse has lost rows that it had acknowledged: {what}"),
    )
    .with_hint(format!(
        "resync the pipe, which loads every table again: pipewright resync {pipe}; or bring back what ClickHouse has \
         lost, and `start` the pipe"
    ))
}

#[cfg(test)]
#[path = "lost_tests.rs"]
pub(super) mod tests;
