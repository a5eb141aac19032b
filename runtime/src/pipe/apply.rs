//! Flushes to ClickHouse, and the checkpoint behind them.
//!
//! The order is the whole of the safety: the flush's end is persisted as *sent*; the rows go out, several tables at
//! once; when every insert is durable, the mirror in the destination is written, then the checkpoint in the state. A
//! crash between any two of these replays from the older checkpoint, and the replayed rows carry the same versions.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;

use super::complete::Completer;
use super::follow::Flush;
use super::progress::Progress;
use super::record::{Checkpoint, PipeStore};
use super::session::Session;
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
    let mut completer = Completer::default();
    while let Some(flush) = flushes.recv().await {
        apply_one(session, store, progress, &mut completer, flush).await?;
    }
    Ok(())
}

async fn apply_one(
    session: &Session,
    store: &PipeStore,
    progress: &Progress,
    completer: &mut Completer,
    flush: Flush,
) -> Result<()> {
    if !flush.batches.is_empty() || !flush.incomplete.is_empty() {
        store
            .commit(|draft| {
                draft.pipe_mut().sent = Some(flush.sent.clone());
                Ok(())
            })
            .await?;
    }
    let counts: Vec<_> = flush
        .batches
        .iter()
        .map(|(table, _, counts)| (table, counts))
        .chain(
            flush
                .incomplete
                .iter()
                .map(|(table, _, counts)| (table, counts)),
        )
        .map(|(table, counts)| (table.source.name().clone(), *counts))
        .collect();
    let mut durable: Vec<Durable> = stream::iter(flush.batches)
        .map(|(table, batch, _)| async move {
            let name = table.source.name();
            let batch = table
                .chain
                .apply(batch)
                .await
                .map_err(|error| error.with_table(name))?;
            session
                .destination
                .insert(&table.target, &[batch])
                .await
                .map_err(|error| error.with_table(name))
        })
        .buffer_unordered(TABLES_AT_ONCE)
        .try_collect()
        .await?;
    let incomplete = flush.incomplete.into_iter();
    let incomplete = incomplete.map(|(table, rows, _)| (table, rows)).collect();
    let sent = &flush.sent.position;
    durable.extend(completer.complete(session, incomplete, sent).await?);
    checkpoint(
        session,
        store,
        flush.end,
        flush.committed_at_us,
        &durable,
        |draft| {
            for (name, counts) in counts {
                draft.rows.entry(name).or_default().add(counts);
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
