//! Which tables the wildcards of a pipe pass over, and what becomes of those when the list changes: a table that is listed by
//! now leaves the pipe as if it were taken out, one that is listed no more comes back by itself.

use super::command::{Change, take_out};
use super::lifecycle::PipeEvent;
use super::record::Records;
use super::supervisor::Pipe;
use super::table_state::TableState;
use crate::batch::TableName;
use crate::config::{PipeConfig, TablePattern};
use crate::error::{Error, ErrorKind, Result};

/// Prepares another list in place of the file's; without one the file's own counts again. None is prepared where it is so
/// already.
///
/// # Errors
/// `Config` for a list that cannot be read or has a table that `tables` names, `IllegalCommand` where no table would be left.
pub(super) fn prepare(pipe: &Pipe, list: Option<Vec<serde_json::Value>>) -> Result<Option<Change>> {
    let records = pipe.store.records();
    let mut overlay = pipe.store.record().overlay;
    let of_file = records.applied.as_deref();
    let of_file = of_file.and_then(|applied| applied.document["exclude"].as_array());
    let list = list.filter(|list| Some(list) != of_file);
    if overlay.exclude == list {
        return Ok(None);
    }
    overlay.exclude.clone_from(&list);
    let config = pipe.laid_over(&overlay)?;
    ensure_unnamed(&config)?;
    let stays = |name: &TableName| {
        let table = records.tables.get(name);
        table.is_some_and(|table| table.state != TableState::Removed) && !excludes(&config, name)
    };
    if !records.tables.keys().any(stays) {
        return Err(Error::new(
            ErrorKind::IllegalCommand,
            "no table would be left in the pipe",
        )
        .with_hint("exclude less, or drop the pipe instead: pipewright drop"));
    }
    let edit = move |draft: &mut Records| {
        draft.pipe_mut().overlay.exclude = list;
        for name in draft.carried() {
            if excludes(&config, &name) {
                take_out(draft, &name)?;
            }
        }
        mark(draft, &config);
        Ok(())
    };
    Ok(Some(Change::new(Some(PipeEvent::Modified), edit)))
}

/// A table that an entry names is not what a wildcard means.
fn ensure_unnamed(config: &PipeConfig) -> Result<()> {
    let same = |one: &TablePattern, other: &TablePattern| {
        (&one.database, &one.table) == (&other.database, &other.table)
    };
    let named = |item: &&TablePattern| {
        let mut entries = config.tables.iter().map(|entry| &entry.source);
        !item.is_wildcard() && entries.any(|source| !source.is_wildcard() && same(source, item))
    };
    match config.exclude.iter().find(named) {
        None => Ok(()),
        Some(item) => Err(Error::new(
            ErrorKind::Config,
            format!("`exclude`: an entry of `tables` names `{item}`, which no wildcard then means"),
        )
        .with_hint(format!(
            "leave it out of `exclude`; to take the table out: pipewright tables remove PIPE {item}"
        ))),
    }
}

/// Whether a wildcard would mean the table if it were not listed, and no other entry does.
fn excludes(config: &PipeConfig, name: &TableName) -> bool {
    let entries = || config.tables.iter().map(|entry| &entry.source);
    entries().any(|source| source.passes_over(name))
        && !entries().any(|source| source.matches(name))
}

/// Marks the tables that are out of the pipe and that are listed, whoever took them out: they come back when they are no
/// longer.
pub(super) fn mark(draft: &mut Records, config: &PipeConfig) {
    let out = draft.names_where(|table| table.state == TableState::Removed && !table.excluded);
    for name in out.into_iter().filter(|name| excludes(config, name)) {
        draft.table_mut(&name).excluded = true;
    }
}
