//! Going on where a pipe was: proves that both ends still hold the past that the checkpoint stands on.

use std::sync::Arc;

use super::record::PipeStore;
use super::session::Session;
use super::setup::{matched, raise_term};
use super::supervisor::Pipe;
use crate::batch::{MAX_STREAM_OFFSET, TableName};
use crate::destination::clickhouse::Owner;
use crate::error::{Error, ErrorKind, Result};
use crate::source::mysql::position::StreamPlace;
use crate::source::mysql::snapshot::SnapshotSession;

use super::lifecycle::PipeState;

/// A term is raised at the next connection once it has used up half of its offsets: at a gigabyte a second of row
/// events that is after 39 hours without one reconnection, and the other half is still there.
const OFFSET_TO_RAISE_AT: u64 = MAX_STREAM_OFFSET / 2;

/// Connects a pipe that is set up, and binds its tables as they were at the checkpoint.
///
/// # Errors
/// `SourceDiverged` when the source lacks what we have applied; `DestinationLost` when ClickHouse lacks what it had
/// acknowledged and the pipe cannot go back to it; `DestinationRejected` when a target was altered by someone else.
pub(super) async fn attach(pipe: &Pipe) -> Result<Session> {
    let session = Session::connect(Arc::clone(&pipe.config), &pipe.engine).await?;
    let names: Vec<TableName> = pipe.store.records().tables.keys().cloned().collect();
    let changed = session
        .bind_recorded(&pipe.store, &matched(&pipe.config.tables, &names)?)
        .await?;
    ensure_targets(&session, &pipe.store).await?;
    ensure_destination_past(&session, &pipe.store).await?;
    ensure_source_past(&session, &pipe.store).await?;
    if !changed.is_empty() {
        take_up_plugins(&session, &pipe.store, changed).await?;
    }
    Ok(session)
}

/// Sees that each target is still the table that was made, with the columns that will be written.
async fn ensure_targets(session: &Session, store: &PipeStore) -> Result<()> {
    let owner = Owner::new(store.pipe(), store.record().id);
    for table in session.tables() {
        session
            .destination
            .ensure_unchanged(&table.target, &owner)
            .await?;
    }
    Ok(())
}

/// Takes changed plugins up for all rows from the checkpoint on. The term is raised first: rows that the former plugins
/// have written beyond the checkpoint are written again and must lose. A plugin of this build gives every row image one
/// row of the same key, so that none of them stays.
pub(super) async fn take_up_plugins(
    session: &Session,
    store: &PipeStore,
    changed: Vec<TableName>,
) -> Result<()> {
    let tables: Vec<String> = changed.iter().map(ToString::to_string).collect();
    tracing::warn!(
        pipe = store.pipe(),
        tables = tables.join(", "),
        "plugins or their configurations have changed: rows from the checkpoint on pass through the new ones, earlier \
         rows stay as they are"
    );
    raise_term(session, store).await?;
    let pins: Vec<_> = changed
        .into_iter()
        .map(|name| {
            let pins = session.pins(&session.table(&name).config);
            (name, pins)
        })
        .collect();
    store
        .commit(|draft| {
            for (name, pins) in pins {
                draft.table_mut(&name).plugins = pins;
            }
            Ok(())
        })
        .await
}

/// Compares the mirror of our checkpoint with the checkpoint.
async fn ensure_destination_past(session: &Session, store: &PipeStore) -> Result<()> {
    let record = store.record();
    let checkpoint = record
        .checkpoint
        .clone()
        .expect("a pipe that is set up has a checkpoint");
    let lost = |what: &str| {
        Error::new(ErrorKind::DestinationLost, format!("ClickHouse has lost rows that it had acknowledged: {what}"))
            .with_hint(
                "drop the pipe's target tables and their rows in `_pipewright_checkpoints`, and start it with an empty \
                 state folder",
            )
    };
    let Some(mirror) = session.destination.read_mirror(store.pipe()).await? else {
        return Err(lost(
            "the pipe's rows in `_pipewright_checkpoints` are gone",
        ));
    };
    if record.claiming.is_some() || mirror.term > record.term || mirror.owner != record.owner {
        // A claim that did not end, another claimant, or a state folder restored from a backup: whatever was written
        // there must lose to what is written from now on.
        return raise_term(session, store).await;
    }
    if (mirror.term, mirror.offset) >= (record.term, checkpoint.place.offset) {
        return Ok(());
    }
    // Rows of the load carry no place, so nobody can tell which of them are gone too.
    if record.state == PipeState::Snapshot || mirror.term < record.term {
        return Err(lost("its newest checkpoint is older than the pipe's"));
    }
    let position = serde_json::from_str(&mirror.position)
        .map_err(|error| lost("the mirrored position cannot be read").with_source(error))?;
    tracing::warn!(
        pipe = store.pipe(),
        "ClickHouse's newest checkpoint is older than ours: it has lost rows, which are read again from the binlog"
    );
    store
        .commit(|draft| {
            let record = draft.pipe_mut();
            record.checkpoint = Some(super::record::Checkpoint {
                place: StreamPlace {
                    position,
                    offset: mirror.offset,
                },
                ..checkpoint
            });
            Ok(())
        })
        .await
}

/// Sees that the server holds everything that may have been applied, and raises the term where its coordinates are not
/// those of the term.
async fn ensure_source_past(session: &Session, store: &PipeStore) -> Result<()> {
    let record = store.record();
    let checkpoint = record
        .checkpoint
        .expect("a pipe that is set up has a checkpoint");
    let newest = record
        .sent
        .map_or(checkpoint.place.position, |sent| sent.position);
    SnapshotSession::open(&session.source, Some(&newest))
        .await?
        .close()
        .await;
    let moved = record.server.as_ref() != Some(session.source.identity());
    if moved || checkpoint.place.offset > OFFSET_TO_RAISE_AT {
        raise_term(session, store).await?;
    }
    Ok(())
}
