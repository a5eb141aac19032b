//! The exchange of freshly loaded tables for the live ones, each atomic, so that readers always see a full table.
//!
//! The stream stands still: its last checkpoint covers everything in both tables. The identities are recorded before the
//! exchange and compared after a restart; the table's own record says that it is done.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::attach::connected;
use super::heal::Kinship;
use super::journal::{EventKind, Level, Note};
use super::lifecycle::PipeEvent;
use super::mirror::Mirroring;
use super::record::{Beside, Exchange, TableRecord};
use super::session::Session;
use super::store::PipeStore;
use super::supervisor::Pipe;
use super::table_state::{TableEvent, TableState};
use crate::batch::TableName;
use crate::config::{DdlAction, Mode};
use crate::destination::clickhouse::{ClickHouse, ExistingTable, Fresh, Owner, TargetTable};
use crate::error::{Error, ErrorKind, Result};
use crate::fault;

/// How long whoever wants the pipe to do something else waits for the exchange under way. A reader of the old table holds
/// it up for as long as it reads; each step may be broken off and done again.
const EXCHANGE_PATIENCE: Duration = Duration::from_secs(10);

/// Exchanges every table whose load has passed its end place, then moves the pipe on. When `stop` is cancelled, the
/// exchange under way is the last: what is done is recorded, and the other tables are as they were.
///
/// # Errors
/// Whatever the destination fails with; what is done stays done.
pub(super) async fn swap(pipe: &Pipe, stop: &CancellationToken) -> Result<()> {
    let session = tokio::select! {
        session = connected(pipe) => session?,
        () = stop.cancelled() => return Ok(()),
    };
    let _letters = pipe.store.letters().lock().await;
    fault::point("swap:1");
    let owner = Owner::new(pipe.store.pipe(), pipe.store.record().id);
    let records = pipe.store.records();
    for name in records.names_where(|table| table.state.is_loading()) {
        if stop.is_cancelled() {
            return Ok(());
        }
        let impatient = async {
            stop.cancelled().await;
            tokio::time::sleep(EXCHANGE_PATIENCE).await;
        };
        tokio::select! {
            swapped = swap_table(pipe, &session, &name, &owner) => swapped?,
            () = impatient => return Ok(()),
        }
        fault::point("swap:7");
    }
    let kinship = Kinship::read(&session, &pipe.store.records()).await?;
    let mirroring = Mirroring {
        session: &session,
        store: &pipe.store,
        kinship: &kinship,
    };
    // Nobody writes behind a pipe that is Completed.
    mirroring.tell_at_last().await;
    pipe.transition(match pipe.config.mode {
        Mode::Snapshot => PipeEvent::SwappedAndDone,
        Mode::Cdc | Mode::CdcOnly => PipeEvent::Swapped,
    })
    .await?;
    fault::point("swap:8");
    Ok(())
}

/// Ends exchanges that a former run has begun, of tables that are at work again: the one beside the live table may be the
/// old one by now, which rows are not to go to.
///
/// # Errors
/// As [`swap`], with the table.
pub(super) async fn end_begun(pipe: &Pipe) -> Result<()> {
    let begun = |table: &TableRecord| {
        let shadow = table.shadow.as_ref();
        table.state.is_in_service()
            && shadow.is_some_and(|shadow| shadow.exchange.is_some() || !shadow.routed.is_empty())
    };
    let names = pipe.store.records().names_where(begun);
    if names.is_empty() {
        return Ok(());
    }
    let session = connected(pipe).await?;
    let _letters = pipe.store.letters().lock().await;
    let owner = Owner::new(pipe.store.pipe(), pipe.store.record().id);
    for name in names {
        let ended = swap_table(pipe, &session, &name, &owner).await;
        ended.map_err(|error| error.with_table(&name))?;
    }
    Ok(())
}

async fn swap_table(pipe: &Pipe, session: &Session, name: &TableName, owner: &Owner) -> Result<()> {
    let records = pipe.store.records();
    let shadow = records.tables.get(name).and_then(|t| t.shadow.clone());
    if let Some(shadow) = shadow {
        let table = session.table(name);
        for target in table.targets() {
            let (live, own) = (target.name(), table.target.name());
            let beside = shadow.name_for(live, own);
            let exchange = match shadow.exchange_with(live, own) {
                Some(exchange) => exchange.clone(),
                None => identities(pipe, &session.destination, name, target, &beside).await?,
            };
            let history = exchange.history.then(|| shadow.history_of(live, own));
            let fresh = Fresh {
                shadow: &beside,
                fresh: &exchange.shadow,
                old: exchange.live.as_deref(),
                history: history.as_deref(),
            };
            let exchanged = session.destination.exchange(target, fresh, owner);
            if let Some(kept) = exchanged.await? {
                tell_of_history(&pipe.store, name, &kept).await?;
            }
        }
        let_go(pipe, &session.destination, name, owner).await?;
        fault::point("swap:6");
        tracing::info!(pipe = pipe.store.pipe(), table = %name, "the freshly loaded table is live");
    }
    pipe.store
        .commit(|draft| {
            let table = draft.table_mut(name);
            table.shadow = None;
            table.left.clear();
            table.archives = false;
            if table.state.is_loading() {
                return draft.table_event(name, TableEvent::Loaded);
            }
            // It has been out of service since, and reads on from its place.
            table.whole = true;
            Ok(())
        })
        .await
}

/// The source does not have the changes of before any more.
pub(super) async fn tell_of_history(store: &PipeStore, name: &TableName, kept: &str) -> Result<()> {
    let text = format!("what the target held before the load is kept in `{kept}`");
    tracing::warn!(pipe = store.pipe(), table = %name, "{text}; drop it when nobody reads it");
    let note = Note::new(Level::Info, EventKind::Transition, text).of_table(name);
    store.note(note).await
}

/// Drops a table that a load has left beside a live one. What was live before its exchange is put away; its new name.
pub(super) async fn clear_beside(
    destination: &ClickHouse,
    beside: &Beside,
    owner: &Owner,
) -> Result<Option<String>> {
    if let Some(history) = &beside.history
        && destination.identity(&beside.name).await?.as_ref() == Some(&history.identity)
    {
        let (name, identity) = (&beside.name, &history.identity);
        let kept = destination.put_away(name, identity, &history.name, owner);
        return kept.await.map(Some);
    }
    destination.drop_beside(&beside.name, owner).await?;
    Ok(None)
}

/// Lets go of what only former plugins of the table sent rows to.
async fn let_go(
    pipe: &Pipe,
    destination: &ClickHouse,
    name: &TableName,
    owner: &Owner,
) -> Result<()> {
    let records = pipe.store.records();
    let left = records.tables.get(name).into_iter();
    let is_anothers = |target: &&String| {
        let mut tables = records.tables.values();
        tables.any(|table| {
            table.state != TableState::Removed && table.targets().any(|own| own == *target)
        })
    };
    for target in left
        .flat_map(|table| &table.left)
        .filter(|target| !is_anothers(target))
    {
        let gone = destination.let_go(target, owner).await;
        gone.map_err(|error| error.with_table(name))?;
        tracing::warn!(
            pipe = pipe.store.pipe(),
            table = %name,
            target,
            "no rows go to this target any more; drop it when nobody reads it"
        );
    }
    Ok(())
}

/// Records what both tables are before they are exchanged.
async fn identities(
    pipe: &Pipe,
    destination: &ClickHouse,
    name: &TableName,
    target: &TargetTable,
    shadow: &str,
) -> Result<Exchange> {
    let target = target.name();
    let gone = || {
        Error::new(
            ErrorKind::DestinationLost,
            format!("the table `{shadow}`, which was loaded to replace `{target}`, is gone"),
        )
        .with_table(name)
        .with_hint("resync the pipe")
    };
    let live = destination.inspect(target).await?;
    let records = pipe.store.records();
    let record = records.tables.get(name);
    let fresh = destination.inspect(shadow).await?.ok_or_else(gone)?;
    let archives = pipe.config.ddl.drop_column == DdlAction::Archive;
    // A column that the pipe file leaves out is not one that the source has dropped.
    let is_at_source = |column: &str| {
        let mut columns = record.into_iter().flat_map(|table| &table.source.columns);
        columns.any(|known| known.name == column)
    };
    let is_history = |live: &ExistingTable| {
        live.keeps_every_row()
            || record.is_some_and(|table| table.archives)
            || (archives
                && live
                    .columns_beyond(&fresh)
                    .any(|column| !is_at_source(column)))
    };
    let exchange = Exchange {
        // What a first load has left that broke off is no history.
        history: record.is_some_and(|table| table.whole) && live.as_ref().is_some_and(is_history),
        live: live.map(|live| live.uuid.0),
        shadow: fresh.uuid.0,
    };
    fault::point("swap:2");
    pipe.store
        .commit(|draft| {
            let table = draft.table_mut(name);
            let is_own = table.target == target;
            if let Some(shadow) = &mut table.shadow {
                match is_own {
                    true => shadow.exchange = Some(exchange.clone()),
                    false => drop(shadow.routed.insert(target.to_owned(), exchange.clone())),
                }
            }
            Ok(())
        })
        .await?;
    fault::point("swap:3");
    Ok(exchange)
}
