//! Tables that a statement has made another, or has taken away: the change of the records, and what it leaves to be done
//! at the destination.

use super::super::command::Change;
use super::super::lifecycle::PipeEvent;
use super::super::record::{Records, Retire, Skip};
use super::super::resync;
use super::super::session::Session;
use super::super::store::PipeStore;
use super::super::supervisor::Pipe;
use super::super::table_state::{TableEvent, TableState};
use super::Fate;
use crate::batch::TableName;
use crate::config::DdlAction;
use crate::destination::clickhouse::Owner;
use crate::error::{Error, Result};
use crate::source::mysql::position::Position;

/// Prepares what `fates` say, to be recorded when the stream stands still before the statement.
///
/// # Errors
/// As [`resync::begin_anew`].
pub(in super::super) async fn follow(
    pipe: &Pipe,
    mut fates: Vec<(TableName, Fate)>,
    end: Option<Position>,
) -> Result<Change> {
    // Whoever asked may have been stopped, and have asked again.
    fates.retain(|(name, _)| !has_followed(&pipe.store.records(), name, end.as_ref()));
    let config = pipe.effective_config()?;
    let policy = config.ddl.drop_table;
    let with = |wanted: Fate| -> Vec<TableName> {
        let chosen = fates.iter().filter(|(_, fate)| *fate == wanted);
        chosen.map(|(name, _)| name.clone()).collect()
    };
    let (reload, gone) = (with(Fate::Reload), with(Fate::Gone));
    let fresh = match reload.is_empty() {
        true => None,
        false => {
            let session =
                Session::connect(config, &pipe.engine, &pipe.plugins, pipe.past().as_ref()).await?;
            let fresh = resync::begin_anew(&session, pipe, &reload).await;
            Some(fresh.map_err(|error| concerning(error, &reload))?)
        }
    };
    // Between the check above and the record nothing moves these tables but a stream that stands before the statement.
    let event = fresh.is_some().then_some(PipeEvent::Resync);
    Ok(Change::new(event, move |draft| {
        for name in &gone {
            leave(draft, name, policy)?;
        }
        match fresh {
            Some(fresh) => fresh.record(draft, true),
            None => Ok(()),
        }
    }))
}

/// Whether the table stands behind the statement, or is no longer in a stream.
fn has_followed(records: &Records, name: &TableName, end: Option<&Position>) -> bool {
    let Some(table) = records.tables.get(name) else {
        return true;
    };
    if !table.state.is_in_stream() && table.state != TableState::CatchingUp {
        return true;
    }
    let own = table.place.as_ref().map(|own| &own.place.position);
    let at = own.or(records
        .checkpoint()
        .map(|checkpoint| &checkpoint.place.position));
    matches!((at, end), (Some(at), Some(end)) if at.contains(end) == Some(true))
}

/// What keeps one table from being loaded is that table's trouble, not the pipe's.
fn concerning(error: Error, reload: &[TableName]) -> Error {
    match (error.table(), reload.first()) {
        (None, Some(name)) => error.with_table(name),
        _ => error,
    }
}

fn leave(draft: &mut Records, name: &TableName, policy: DdlAction) -> Result<()> {
    draft.table_event(name, TableEvent::Remove)?;
    let table = draft.table_mut(name);
    (table.place, table.skip, table.altering) = (None, Skip::No, false);
    table.give_up_shadow();
    table.dropped = true;
    table.retire = match policy {
        DdlAction::Apply => Some(Retire { archive: None }),
        DdlAction::Archive => {
            table.generation += 1;
            let archive = format!("{}_dropped_{}", table.target, table.generation);
            Some(Retire {
                archive: Some(archive),
            })
        }
        DdlAction::Ignore | DdlAction::Quarantine => None,
    };
    Ok(())
}

/// Puts away the targets of tables that have gone.
///
/// # Errors
/// Whatever either end of it fails with; it may be repeated.
pub(in super::super) async fn retire_gone(
    session: &Session,
    store: &PipeStore,
    owner: &Owner,
) -> Result<()> {
    let records = store.records();
    for (name, table) in &records.tables {
        let Some(retire) = &table.retire else {
            continue;
        };
        for target in table.targets() {
            let archive = retire.archive_of(target, &table.target);
            let retired = session
                .destination
                .retire(target, archive.as_deref(), owner);
            retired.await.map_err(|error| error.with_table(name))?;
        }
        store
            .commit(|draft| {
                draft.table_mut(name).retire = None;
                Ok(())
            })
            .await?;
    }
    Ok(())
}
