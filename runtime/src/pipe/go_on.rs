//! Tables that are out of service and read on from their own places.

use std::sync::Arc;

use super::command::Change;
use super::lifecycle::PipeState;
use super::plugin_files::PluginFiles;
use super::record::{Records, Skip};
use super::supervisor::Pipe;
use super::table_state::{TableEvent, TableState};
use super::tables;
use crate::batch::TableName;
use crate::config::Mode;
use crate::error::{Error, ErrorKind, Result};

/// Prepares that a table reads on; there is no change to make where it does already, by the same rule.
///
/// # Errors
/// `IllegalCommand` where it cannot, or nobody would read; whatever the plugins' files are refused with.
pub(super) async fn retry(pipe: &Arc<Pipe>, name: TableName, skip: Skip) -> Result<Option<Change>> {
    let records = pipe.store.records();
    let table = records.tables.get(&name);
    let table = table.ok_or_else(|| tables::unknown(&records, &name))?;
    let after = table.state.clone().apply(TableEvent::Retry)?;
    let by_another_rule = after == TableState::CatchingUp && table.skip != skip;
    if after == table.state && !by_another_rule && !table.failed_in_plugin {
        return Ok(None);
    }
    ensure_read(pipe.config.mode, &records, &name)?;
    if table.appends && matches!(table.state, TableState::Quarantined(_)) {
        // What it had beyond its place would come again under other versions.
        return Err(Error::new(
            ErrorKind::IllegalCommand,
            "an append table that is out of service cannot read on from its place",
        )
        .with_hint(format!(
            "resync the table: pipewright resync --table {name}"
        ))
        .with_table(&name));
    }
    // Its remedy may have been another plugin.
    let mended = match table.failed_in_plugin {
        true => Some(PluginFiles::read_anew(pipe, |table, _| *table == name).await?),
        false => None,
    };
    let mode = pipe.config.mode;
    let change = Change::new(None, move |draft| {
        // The pipe may have come to its end since.
        ensure_read(mode, draft, &name)?;
        go_on(draft, &name, skip)
    });
    Ok(Some(match mended {
        Some(files) => change.through(pipe, files),
        None => change,
    }))
}

/// Ensures that somebody is to read what goes on.
fn ensure_read(mode: Mode, records: &Records, name: &TableName) -> Result<()> {
    let state = records.state();
    if is_read(mode, &state) {
        return Ok(());
    }
    let message = format!("the pipe is {state}, and reads on from no place any more");
    Err(Error::new(ErrorKind::IllegalCommand, message)
        .with_hint("load everything again, once the pipe is Completed: pipewright resync PIPE")
        .with_table(name))
}

/// Whether a run is to come that reads: not behind a pipe that is Completed, nor before it becomes that with the exchange
/// of its tables.
fn is_read(mode: Mode, state: &PipeState) -> bool {
    match state {
        PipeState::Completed => false,
        PipeState::Resync => mode != Mode::Snapshot,
        _ => true,
    }
}

/// Lets a table that is out of service read on from its own place. A load beside a live table that kept its connection
/// is given up: the live one is nearer.
fn go_on(draft: &mut Records, name: &TableName, skip: Skip) -> Result<()> {
    draft.table_event(name, TableEvent::Retry)?;
    let table = draft.table_mut(name);
    if table.state == TableState::CatchingUp {
        table.skip = skip;
        if table.whole && !table.is_loading_alone() {
            table.give_up_shadow();
        }
    }
    Ok(())
}

/// The same for every table out of service: whoever starts a pipe again has had the chance to mend what was wrong. Append
/// tables wait for a resync, and so do all where nobody would read on.
///
/// # Errors
/// When the store fails.
pub(super) async fn with_all(pipe: &Pipe) -> Result<()> {
    let mode = pipe.config.mode;
    pipe.store
        .commit(|draft| {
            if !is_read(mode, &draft.state()) {
                return Ok(());
            }
            let names = draft.names_where(|table| {
                matches!(table.state, TableState::Quarantined(_)) && !table.appends
            });
            names
                .iter()
                .try_for_each(|name| go_on(draft, name, Skip::No))
        })
        .await
}
