//! Loading tables again: beside the live ones, which are exchanged for the fresh ones when these are whole.
//!
//! A table in the pipe's stream is connected to its past: from the next run on its rows go to the live table and to the
//! fresh one alike, from the checkpoint on, and a load that begins after that checkpoint lacks nothing. A table that has
//! fallen out of the stream begins anew: its definition is read together with a start place of its own, its events up
//! to there are passed over, and the live table stays as it is until the exchange. So does one whose plugins have changed:
//! what they make now may not fit the live table, or go to others. The same holds for all tables when the
//! pipe itself has failed or is Completed; then its checkpoint is set to the new start place and a term is claimed that
//! no row has had before. Rows that were deleted at the source are not carried over.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

use super::clock::now_us;
use super::command::{Change, take_out};
use super::established;
use super::heal::{Kinship, Silent};
use super::lifecycle::{Failure, PipeEvent, PipeState};
use super::pinned::PinnedPlugin;
use super::plugin_files::PluginFiles;
use super::record::{Checkpoint, Records, Shadow, Skip, TablePlace, TableRecord, random_server_id};
use super::session::{LiveTable, Session};
use super::setup::{self, Matched, recorded};
use super::start_place;
use super::supervisor::Pipe;
use super::table_state::{TableEvent, TableState};
use super::tables;
use super::target_findings;
use crate::batch::TableName;
use crate::config::PipeConfig;
use crate::destination::clickhouse::Owner;
use crate::error::{Error, ErrorKind, Finding, Result};
use crate::source::mysql::catalog::SourceTable;
use crate::source::mysql::position::{Position, StreamPlace};

/// Loads one table again, through plugins as `files` are.
///
/// # Errors
/// `Config` for a table that is not the pipe's, else whatever the checks refuse with.
pub(super) async fn one(
    pipe: &Arc<Pipe>,
    config: Arc<PipeConfig>,
    files: &PluginFiles,
    name: TableName,
) -> Result<Change> {
    let records = pipe.store.records();
    let table = records
        .tables
        .get(&name)
        .filter(|table| table.state != TableState::Removed)
        .ok_or_else(|| tables::unknown(&records, &name))?;
    match records.state() {
        PipeState::Failed { .. } | PipeState::Completed => {
            return Err(Error::new(
                ErrorKind::IllegalCommand,
                format!(
                    "a pipe that is {} has no stream for one table to come back to",
                    records.state()
                ),
            )
            .with_hint("resync the whole pipe, or `start` it first"));
        }
        _ => {}
    }
    let session = Session::connect(config, &pipe.engine, files, None).await?;
    let entries = entries_of(&session, pipe, std::slice::from_ref(&name))?;
    tables::ensure_replicable(&session, &entries).await?;
    let fresh = match is_connected(&session, pipe, &name, table)? {
        true => {
            check(&session, pipe, std::slice::from_ref(&name)).await?;
            None
        }
        false => Some(begin_anew(&session, pipe, std::slice::from_ref(&name)).await?),
    };
    Ok(Change::new(
        Some(PipeEvent::Resync),
        move |draft| match fresh {
            Some(fresh) => fresh.record(draft, true),
            None => {
                load_beside(draft, &name, false);
                draft.table_event(&name, TableEvent::Resync)
            }
        },
    ))
}

/// Loads every table again, through plugins as `files` are.
///
/// # Errors
/// Whatever the checks refuse with.
pub(super) async fn all(
    pipe: &Arc<Pipe>,
    config: Arc<PipeConfig>,
    files: &PluginFiles,
) -> Result<Change> {
    let records = pipe.store.records();
    let whole_pipe = matches!(
        records.state(),
        PipeState::Failed { .. } | PipeState::Completed
    );
    if records
        .pipe
        .as_ref()
        .is_none_or(|record| record.checkpoint.is_none())
    {
        return Err(Error::new(
            ErrorKind::IllegalCommand,
            "the pipe has never left Setup, so there is nothing to load again",
        )
        .with_hint("mend what Setup refused, then `start` it"));
    }
    let session = Session::connect(config, &pipe.engine, files, None).await?;
    validate_all(&session, pipe).await?;
    if whole_pipe {
        return begin_pipe_anew(&session, pipe).await;
    }
    let (mut connected, mut lost) = (Vec::new(), Vec::new());
    for (name, table) in &records.tables {
        if table.state == TableState::Removed {
            continue;
        }
        match is_connected(&session, pipe, name, table)? {
            true => connected.push(name.clone()),
            false => lost.push(name.clone()),
        }
    }
    if !connected.is_empty() {
        check(&session, pipe, &connected).await?;
    }
    let fresh = match lost.is_empty() {
        true => None,
        false => Some(begin_anew(&session, pipe, &lost).await?),
    };
    Ok(Change::new(Some(PipeEvent::Resync), move |draft| {
        for name in &connected {
            load_beside(draft, name, false);
            draft.table_event(name, TableEvent::Resync)?;
        }
        match fresh {
            Some(fresh) => fresh.record(draft, true),
            None => Ok(()),
        }
    }))
}

/// Whether the table is in the pipe's stream, and the plugins are those that its rows have passed. The load of an append
/// table has a place of its own, up to which the stream's rows are passed over, for the live table too.
fn is_connected(
    session: &Session,
    pipe: &Pipe,
    name: &TableName,
    table: &TableRecord,
) -> Result<bool> {
    if !table.state.is_in_stream() || table.appends {
        return Ok(false);
    }
    let matched = recorded(&session.config, &known(pipe, &[]))?;
    let config = matched.iter().find(|(_, matched)| matched == name);
    Ok(config.is_none_or(|(config, _)| {
        PinnedPlugin::all_make_the_same(&session.pins(config), &table.plugins)
    }))
}

/// Every table that the pipe file means now is loaded, but for those that a person took out, from a new start place of
/// the pipe itself.
async fn begin_pipe_anew(session: &Session, pipe: &Pipe) -> Result<Change> {
    let records = pipe.store.records();
    let taken_out = records.names_where(TableRecord::is_taken_out);
    let matched = setup::matched_tables(session, &taken_out).await?;
    let names: Vec<TableName> = matched.iter().map(|(_, name)| name.clone()).collect();
    if names.is_empty() {
        return Err(Error::new(
            ErrorKind::IllegalCommand,
            "the source has no table of the pipe any more but those that were taken out of it",
        )
        .with_hint("create a table that the pipe file means, or drop the pipe: pipewright drop"));
    }
    // The others have been looked at.
    let mut new = matched;
    new.retain(|(_, name)| {
        records
            .tables
            .get(name)
            .is_none_or(|table| table.state == TableState::Removed)
    });
    if !new.is_empty() {
        tables::ensure_replicable(session, &new).await?;
    }
    let fresh = begin_anew(session, pipe, &names).await?;
    let established = established::fingerprint(&pipe.config)?;
    let identity = session.source.identity().clone();
    let now_there = session.source.moment_us().await?;
    Ok(Change::new(Some(PipeEvent::Resync), move |draft| {
        let record = draft.pipe_mut();
        record.established = Some(established);
        record.server = Some(identity);
        record.checkpoint = Some(Checkpoint {
            place: StreamPlace {
                position: fresh.start.clone(),
                offset: 0,
            },
            committed_at_us: now_there,
            written_at_us: now_us(),
        });
        (record.sent, record.begun) = (None, None);
        // Attaching claims a term above everything that has been written.
        record.anew = true;
        // Nothing is prepared at the new place, and nothing before it counts.
        draft.prepared.clear();
        // The source has no such table: nobody took it out.
        let mut gone = draft.carried();
        gone.retain(|name| !names.contains(name));
        for name in gone {
            take_out(draft, &name)?;
            draft.table_mut(&name).dropped = true;
        }
        fresh.record(draft, false)
    }))
}

/// Definitions at a start place of their own.
pub(super) struct Fresh {
    start: Position,
    tables: Vec<FreshTable>,
    /// Where one of the tables was out of the stream.
    kinship: Kinship,
}

struct FreshTable {
    source: SourceTable,
    plugins: Vec<PinnedPlugin>,
    target: String,
    routed: Vec<String>,
    routing: bool,
    appends: bool,
}

impl Fresh {
    /// Makes the tables' loads begin at the start place; `ahead` of the checkpoint, up to which their events are passed
    /// over. A table that the pipe has not had yet is loaded in place.
    ///
    /// # Errors
    /// `IllegalCommand` for a table whose state does not allow it.
    pub(super) fn record(self, draft: &mut Records, ahead: bool) -> Result<()> {
        let names: Vec<TableName> = self.names().collect();
        let place = ahead.then_some(TablePlace {
            term: None,
            place: StreamPlace {
                position: self.start,
                offset: 0,
            },
            sent: None,
            as_of_us: None,
        });
        let was_out = |name: &&TableName| {
            let table = draft.tables.get(*name);
            table.is_some_and(|table| !table.state.is_in_stream())
        };
        let lost: Vec<TableName> = names.iter().filter(was_out).cloned().collect();
        for fresh in self.tables {
            let name = fresh.source.name().clone();
            let used = draft.generation_beside(&fresh.target);
            let event = draft.tables.get(&name).map(|table| match table.state {
                TableState::Removed => TableEvent::Add,
                _ => TableEvent::Resync,
            });
            match event {
                Some(event) => {
                    load_beside(draft, &name, true);
                    draft.table_event(&name, event)?;
                    let table = draft.table_mut(&name);
                    let before: Vec<String> = table.targets().map(str::to_owned).collect();
                    table.left.extend(before);
                }
                None => {
                    let record = TableRecord {
                        unmade: true,
                        ..TableRecord::new(fresh.source.clone())
                    };
                    draft.tables.insert(name.clone(), Arc::new(record));
                }
            }
            let table = draft.table_mut(&name);
            (table.altering, table.dropped) = (false, false);
            table.excluded = false;
            (table.source, table.plugins) = (fresh.source, fresh.plugins);
            (table.target, table.routed) = (fresh.target, fresh.routed);
            table.generation = table.generation.max(used);
            (table.routing, table.appends) = (fresh.routing, fresh.appends);
            let now: Vec<String> = table.targets().map(str::to_owned).collect();
            table.left.retain(|left| !now.contains(left));
            table.place.clone_from(&place);
            table.image_reach = None;
        }
        // Nobody has read what followed their rows meanwhile; a table that is loaded as well has it.
        for name in &lost {
            self.kinship.mark(draft, name, Silent::ANY, None);
        }
        for name in &names {
            draft.table_mut(name).cascaded = false;
        }
        Ok(())
    }

    fn names(&self) -> impl Iterator<Item = TableName> {
        self.tables.iter().map(|table| table.source.name().clone())
    }

    /// Makes the tables stream from the start place, as they are. One that comes back goes on in the target that it left,
    /// and says what it lacks.
    pub(super) fn record_without_load(self, draft: &mut Records) -> Result<()> {
        let names: Vec<TableName> = self.names().collect();
        let returning: Vec<TableName> = names
            .iter()
            .filter(|name| draft.tables.contains_key(*name))
            .cloned()
            .collect();
        self.record(draft, true)?;
        for name in &names {
            draft.table_event(name, TableEvent::Loaded)?;
            let table = draft.table_mut(name);
            // Nothing fills it, and no load makes its target.
            (table.shadow, table.unmade) = (None, true);
        }
        for name in &returning {
            draft.table_mut(name).inexact = Some(missed(name));
        }
        Ok(())
    }
}

/// What is wrong with a table that was out of the pipe and is not loaded again.
fn missed(name: &TableName) -> Failure {
    Failure {
        kind: ErrorKind::SchemaConflict,
        message: format!(
            "table `{name}`: what changed between its removal and its return is not in its target"
        ),
        table: Some(name.clone()),
        remedy: Some(format!(
            "resync the table: pipewright resync --table {name}"
        )),
        at_us: Some(now_us()),
    }
}

/// Takes a start place, and the definitions that hold there, and sees that they can be replicated.
pub(super) async fn begin_anew(
    session: &Session,
    pipe: &Pipe,
    names: &[TableName],
) -> Result<Fresh> {
    let matched = entries_of(session, pipe, names)?;
    // The pipe's own stream may be open under the pipe's id.
    let (start, sources) = start_place::take(session, &matched, random_server_id()).await?;
    let mut bound = Vec::new();
    for (table, name) in setup::bind_all(session, &matched, sources).await {
        bound.push(table.map_err(|error| error.with_table(&name))?);
    }
    check_targets(session, pipe, &bound, 0).await?;
    session.keep_plugins(&pipe.store).await?;
    let tables = bound
        .iter()
        .map(|table| FreshTable {
            source: SourceTable::clone(&table.source),
            plugins: session.pins(&table.config),
            target: table.target.name().to_owned(),
            routed: table.routed_names(),
            routing: table.chain.is_routing(),
            appends: table.target.is_append(),
        })
        .collect();
    let records = pipe.store.records();
    let is_out = |name: &TableName| {
        let table = records.tables.get(name);
        table.is_some_and(|table| !table.state.is_in_stream())
    };
    let kinship = match names.iter().any(is_out) {
        true => Kinship::read(session, &records).await?,
        false => Kinship::default(),
    };
    Ok(Fresh {
        start,
        tables,
        kinship,
    })
}

/// Sees that the source still shows every table of the pipe as a load needs it: what keeps one from being loaded would be
/// met when the loads have begun, by the whole pipe. One that has gone hinders no other, and leaves the pipe; one that the
/// account may no longer read is hidden from the catalog in the same way, and hinders.
async fn validate_all(session: &Session, pipe: &Pipe) -> Result<()> {
    let entries = entries_of(session, pipe, &pipe.store.records().carried())?;
    let mut findings = tables::findings_of(session, &entries).await?;
    let gone =
        |finding: &Finding| finding.kind == ErrorKind::SourceMissing && finding.check == "table";
    findings.retain(|finding| !gone(finding));
    setup::refuse(&findings)
}

/// The entries of these tables, which the pipe has or is to have.
fn entries_of(session: &Session, pipe: &Pipe, names: &[TableName]) -> Result<Matched> {
    let mut matched = recorded(&session.config, &known(pipe, names))?;
    matched.retain(|(_, name)| names.contains(name));
    Ok(matched)
}

/// Sees that tables of the pipe's stream could be created beside the live ones.
async fn check(session: &Session, pipe: &Pipe, names: &[TableName]) -> Result<()> {
    let records = pipe.store.records();
    let mut bound = Vec::new();
    for (config, name) in &entries_of(session, pipe, names)? {
        if let Some(record) = records.tables.get(name) {
            let source = Arc::new(record.source.clone());
            bound.push(session.bind(config, source, Arc::default()).await?);
        }
    }
    check_targets(session, pipe, &bound, 0).await
}

/// Sees that no two tables have one target, and that those from `first` on could be created.
pub(super) async fn check_targets(
    session: &Session,
    pipe: &Pipe,
    bound: &[LiveTable],
    first: usize,
) -> Result<()> {
    let owner = Owner::new(pipe.store.pipe(), pipe.store.record().id);
    let records = pipe.store.records();
    let (mut targets, mut new) = (Vec::new(), Vec::new());
    for table in bound.iter().skip(first) {
        match records.tables.get(table.source.name()) {
            Some(record) => {
                let next = records.generation_beside(&record.target) + 1;
                let shadow = shadow(&record.target, next, false);
                targets.extend(table.targets().map(|target| {
                    target.with_name(shadow.name_for(target.name(), table.target.name()))
                }));
            }
            None => new.extend(table.targets().cloned()),
        }
    }
    let mut findings = target_findings::shared(&records, bound);
    findings.extend(
        session
            .destination
            .preflight(&session.config, &targets, &owner)
            .await?,
    );
    // A new table is loaded in place. Rows that this pipe has written into its target are those of a table that has left.
    let nobody = Owner::new(pipe.store.pipe(), String::new());
    findings.extend(session.destination.preflight_targets(&new, &nobody).await?);
    setup::refuse(&findings)
}

/// Every table that is in the pipe, and those in question. One that has left is none: another may have its target.
fn known(pipe: &Pipe, names: &[TableName]) -> Vec<TableName> {
    let mut known = pipe.store.records().carried();
    known.extend(names.iter().cloned());
    known.sort();
    known.dedup();
    known
}

/// The table beside the live one that has this number.
fn shadow(target: &str, generation: u32, alone: bool) -> Shadow {
    Shadow {
        name: format!("{target}_resync_{generation}"),
        alone,
        exchange: None,
        routed: BTreeMap::new(),
    }
}

/// Makes the table's next load begin, into a table of its own.
pub(super) fn load_beside(draft: &mut Records, name: &TableName, alone: bool) {
    *draft.done.entry(name.clone()).or_default() = Arc::default();
    let table = draft.table_mut(name);
    let was_alone = table.shadow.as_ref().is_some_and(|shadow| shadow.alone);
    table.give_up_shadow();
    let target = table.target.clone();
    let generation = draft.generation_beside(&target) + 1;
    let table = draft.table_mut(name);
    table.shadow = Some(shadow(&target, generation, alone || was_alone));
    table.generation = generation;
    (table.partitions, table.load_end, table.in_snapshot) = (None, None, false);
    (table.load_server, table.load_reach) = (None, None);
    table.rows_loaded_before += mem::take(&mut table.rows_loaded);
    table.bytes_loaded_before += mem::take(&mut table.bytes_loaded);
    table.rows_estimated = None;
    table.skip = Skip::No;
    // Letters of before belong to another load.
    table.named_at.clear();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipe::lost::tests::table;

    #[test]
    fn what_earlier_loads_came_to_is_kept_when_another_begins() {
        let mut draft = Records::default();
        let (name, loaded) = table("t", |table| {
            (table.rows_loaded, table.bytes_loaded) = (3, 30);
        });
        draft.tables.insert(name.clone(), loaded);
        load_beside(&mut draft, &name, false);
        let record = draft.table_mut(&name);
        assert_eq!((record.rows_loaded, record.bytes_loaded), (0, 0));
        (record.rows_loaded, record.bytes_loaded) = (4, 40);
        // Given up before it was whole: what it wrote was written all the same.
        load_beside(&mut draft, &name, false);
        let record = &draft.tables[&name];
        assert_eq!((record.rows_loaded, record.bytes_loaded), (0, 0));
        let before = (record.rows_loaded_before, record.bytes_loaded_before);
        assert_eq!(before, (7, 70));
    }
}
