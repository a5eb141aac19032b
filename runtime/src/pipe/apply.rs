//! Flushes to ClickHouse, and the checkpoint behind them.
//!
//! The order is the whole of the safety: the flush's end is persisted as *sent*; the rows go out, several tables at
//! once; when every insert is durable, the mirror in the destination is written, then the checkpoint in the state. A
//! crash between any two of these replays from the older checkpoint, and the replayed rows carry the same versions.

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;

use super::follow::Flush;
use super::progress::Progress;
use super::session::{LiveTable, Session};
use super::store::PipeStore;
use super::track::Track;
use crate::batch::ChangeBatch;
use crate::destination::clickhouse::Durable;
use crate::error::Result;
use crate::source::mysql::position::StreamPlace;

/// Tables that are transformed and inserted at once: enough to hide one insert's wait behind another's work.
const TABLES_AT_ONCE: usize = 4;

/// What an applier works with.
pub(super) struct Applier<'a> {
    pub(super) session: &'a Session,
    pub(super) store: &'a PipeStore,
    pub(super) progress: &'a Progress,
    pub(super) track: Track,
}

impl Applier<'_> {
    /// Applies flushes in order until the sender has gone.
    ///
    /// # Errors
    /// Whatever a plugin, the destination or the state store fails with; the place then stands before that flush.
    pub(super) async fn run(&self, mut flushes: mpsc::Receiver<Flush>) -> Result<()> {
        while let Some(flush) = flushes.recv().await {
            self.apply(flush).await?;
        }
        Ok(())
    }

    async fn apply(&self, flush: Flush) -> Result<()> {
        if !flush.batches.is_empty() {
            self.track.begin(self.store, &flush.sent).await?;
        }
        let counts: Vec<_> = flush
            .batches
            .iter()
            .map(|(table, _, counts)| (table.source.name().clone(), *counts))
            .collect();
        let durable: Vec<Vec<Durable>> = stream::iter(flush.batches)
            .map(|(table, batch, _)| async move {
                self.write(&table, batch)
                    .await
                    .map_err(|error| error.with_table(table.source.name()))
            })
            .buffer_unordered(TABLES_AT_ONCE)
            .try_collect()
            .await?;
        let durable: Vec<Durable> = durable.into_iter().flatten().collect();
        self.track
            .checkpoint(
                self.session,
                self.store,
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
        if self.track == Track::Pipe {
            self.progress.applied(flush.committed_at_us);
        }
        if let Some(done) = flush.done {
            done.send(()).ok();
        }
        Ok(())
    }

    async fn write(&self, table: &LiveTable, batch: ChangeBatch) -> Result<Vec<Durable>> {
        let batches = [table.chain.apply(batch).await?];
        let mut durable = Vec::new();
        for target in table.stream_targets() {
            durable.push(self.session.destination.insert(target, &batches).await?);
        }
        Ok(durable)
    }
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
