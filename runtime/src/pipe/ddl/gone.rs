//! Tables that a statement has made another, or has taken away: the change of the records, and what it leaves to be done
//! at the destination.

use super::super::command::{Change, give_up_shadow};
use super::super::lifecycle::PipeEvent;
use super::super::record::{Records, Retire, Skip};
use super::super::resync;
use super::super::session::Session;
use super::super::store::PipeStore;
use super::super::supervisor::Pipe;
use super::super::table_state::TableEvent;
use super::Fate;
use crate::batch::TableName;
use crate::config::DdlAction;
use crate::destination::clickhouse::Owner;
use crate::error::Result;

/// Prepares what `fates` say, to be recorded when the stream stands still before the statement.
///
/// # Errors
/// As [`resync::begin_anew`].
pub(in super::super) async fn follow(pipe: &Pipe, fates: Vec<(TableName, Fate)>) -> Result<Change> {
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
            let session = Session::connect(config, &pipe.engine).await?;
            Some(resync::begin_anew(&session, pipe, &reload).await?)
        }
    };
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

fn leave(draft: &mut Records, name: &TableName, policy: DdlAction) -> Result<()> {
    draft.table_event(name, TableEvent::Remove)?;
    let table = draft.table_mut(name);
    (table.place, table.skip, table.altering) = (None, Skip::No, false);
    give_up_shadow(table);
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
        let archive = retire.archive.as_deref();
        let retired = session.destination.retire(&table.target, archive, owner);
        retired.await.map_err(|error| error.with_table(name))?;
        store
            .commit(|draft| {
                draft.table_mut(name).retire = None;
                Ok(())
            })
            .await?;
    }
    Ok(())
}
