//! Flushes to ClickHouse, and the checkpoint behind them.
//!
//! The order is the whole of the safety: the flush's end is persisted as *sent*; the rows go out, several tables at
//! once; when every insert is durable, the mirror in the destination is written, then the checkpoint in the state. A
//! crash between any two of these replays from the older checkpoint, and the replayed rows carry the same versions.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;

use super::follow::{Changed, Flush};
use super::progress::Progress;
use super::record::{Checkpoint, PipeStore, RowCounts};
use super::session::Session;
use super::values::ValueCounts;
use crate::batch::TableName;
use crate::destination::clickhouse::{Durable, MirrorRow};
use crate::error::Result;
use crate::source::mysql::position::StreamPlace;

/// Tables that are transformed and inserted at once: enough to hide one insert's wait behind another's work.
const TABLES_AT_ONCE: usize = 4;

/// Applies flushes in order until the sender has gone.
///
/// # Errors
/// Whatever a plugin, the destination or the state store fails with; the checkpoint then stands before that flush.
pub(super) async fn apply(
    session: &Session,
    store: &PipeStore,
    progress: &Progress,
    mut flushes: mpsc::Receiver<Flush>,
) -> Result<()> {
    // Of a transaction that goes out in parts: a restart before its end replays them all, and counts them then.
    let mut held = Vec::new();
    while let Some(flush) = flushes.recv().await {
        apply_one(session, store, progress, flush, &mut held).await?;
    }
    Ok(())
}

async fn apply_one(
    session: &Session,
    store: &PipeStore,
    progress: &Progress,
    flush: Flush,
    held: &mut Vec<Counted>,
) -> Result<()> {
    if !flush.batches.is_empty() {
        store
            .commit(|draft| {
                draft.pipe_mut().sent = Some(flush.sent.clone());
                Ok(())
            })
            .await?;
    }
    let written: Vec<(Durable, Counted)> = stream::iter(flush.batches)
        .map(|changed| write(session, changed))
        .buffer_unordered(TABLES_AT_ONCE)
        .try_collect()
        .await?;
    let (durable, counted): (Vec<Durable>, Vec<Counted>) = written.into_iter().unzip();
    held.extend(counted);
    let counted = if flush.sent == flush.end {
        std::mem::take(held)
    } else {
        Vec::new()
    };
    checkpoint(
        session,
        store,
        flush.end,
        flush.committed_at_us,
        &durable,
        |draft| {
            for counted in counted {
                draft.add_values(&counted.table, &counted.values);
                draft
                    .rows
                    .entry(counted.table)
                    .or_default()
                    .add(counted.rows);
            }
        },
    )
    .await?;
    progress.applied(flush.committed_at_us);
    if let Some(done) = flush.done {
        done.send(()).ok();
    }
    Ok(())
}

/// What a table's changes count for.
#[derive(Debug)]
struct Counted {
    table: TableName,
    rows: RowCounts,
    values: ValueCounts,
}

async fn write(session: &Session, changed: Changed) -> Result<(Durable, Counted)> {
    let name = changed.table.source.name();
    let batch = changed
        .table
        .chain
        .apply(changed.batch)
        .await
        .map_err(|error| error.with_table(name))?;
    let durable = session
        .destination
        .insert(&changed.table.target, &[batch])
        .await
        .map_err(|error| error.with_table(name))?;
    let mut values = ValueCounts::default();
    values.add(&changed.values);
    values.add(durable.adjustments(0));
    let counted = Counted {
        table: name.clone(),
        rows: changed.counts,
        values,
    };
    Ok((durable, counted))
}

/// Moves the checkpoint to `place`: first its mirror in the destination, then the state, together with `edit`.
///
/// # Errors
/// When either write fails; both may be repeated.
pub(super) async fn checkpoint(
    session: &Session,
    store: &PipeStore,
    place: StreamPlace,
    committed_at_us: Option<u64>,
    durable: &[Durable],
    edit: impl FnOnce(&mut super::record::Records),
) -> Result<()> {
    let record = store.record();
    let mirror = MirrorRow {
        term: record.term,
        offset: place.offset,
        position: position_text(&place)?,
        owner: record.owner,
        source_committed_at: committed_at_us.map(|us| UNIX_EPOCH + Duration::from_micros(us)),
    };
    session
        .destination
        .write_mirror(store.pipe(), &mirror, durable)
        .await?;
    store
        .commit(|draft| {
            draft.pipe_mut().checkpoint = Some(Checkpoint {
                place,
                committed_at_us,
                written_at_us: now_us(),
            });
            edit(draft);
            Ok(())
        })
        .await
}

/// A place as the mirror keeps it: the same JSON as in the state.
///
/// # Errors
/// Never for a place that was read from a source.
pub(super) fn position_text(place: &StreamPlace) -> Result<String> {
    serde_json::to_string(&place.position).map_err(|error| {
        crate::error::Error::new(
            crate::error::ErrorKind::Internal,
            "a position does not serialise",
        )
        .with_source(error)
    })
}

/// Now, in microseconds since 1970.
pub(super) fn now_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
        })
}
