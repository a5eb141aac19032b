//! What a person or program may ask of a pipe, checked before anything is changed.
//!
//! `prepare` runs while the pipe works on: it asks the servers whatever must be known, and refuses what cannot be. What
//! it returns is recorded in one write after the work has stopped at a checkpoint ([`Change::carry_out`]), so a crash
//! in between leaves the pipe as it was.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::connections::{self, EndKeys};
use super::leftovers::Left;
use super::lifecycle::{PipeEvent, PipeState};
use super::plugin_files::PluginFiles;
use super::record::{Overlay, Records, Skip, TableRecord, lay};
use super::supervisor::Pipe;
use super::table_state::{TableEvent, TableState};
use super::{ddl, exclude, files, go_on, resync, tables};
use crate::batch::TableName;
use crate::config::{PipeConfig, is_setting, source_of};
use crate::error::{Error, ErrorKind, Result};
use crate::fault;
use crate::source::mysql::position::Position;

/// What a person may ask of a pipe.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Go on: a failed pipe is started again from Provisioning, a paused one resumes.
    Start,
    /// Finish and checkpoint what is in flight, then stop reading.
    Pause,
    /// Pause a pipe whose file is gone. One that is paused already is left to whoever paused it.
    PauseWithoutFile,
    /// Go on where the pause stopped.
    Resume,
    /// Load one table again, or all, beside the live ones, and exchange them.
    Resync {
        /// The table; all when absent.
        table: Option<TableName>,
        /// Keys of `snapshot` to load with from now on.
        snapshot: Map<String, Value>,
    },
    /// Read a table that is out of service from its own place on.
    Retry {
        /// The table.
        table: TableName,
    },
    /// The same, and pass over the one transaction or statement that fails.
    Skip {
        /// The table.
        table: TableName,
    },
    /// Take further tables into the pipe.
    AddTables {
        /// Entries of `tables`, as in the pipe file.
        entries: Vec<Value>,
    },
    /// Take the tables that entries of a changed pipe file mean into the pipe.
    TakeIn {
        /// Entries of `tables` that the file has and the pipe does not.
        entries: Vec<Value>,
    },
    /// Take the tables that a wildcard has begun to match into the pipe.
    FollowNewTables,
    /// Follow a statement that the stream stands before: some tables are loaded anew, some have gone.
    FollowStatement {
        /// What becomes of each.
        fates: Vec<(TableName, ddl::Fate)>,
        /// The place behind the statement, if there is one: tables that stand behind it have followed it already.
        end: Option<Position>,
    },
    /// Stop replicating tables; the targets stay as they are.
    RemoveTables {
        /// The tables.
        tables: Vec<TableName>,
    },
    /// Let wildcards pass over other tables than the file says.
    Exclude {
        /// Items of `exclude`, as in the pipe file; the file's own again when absent.
        list: Option<Vec<Value>>,
    },
    /// Change how batches are cut.
    Configure {
        /// Keys of `sync`.
        sync: Map<String, Value>,
    },
    /// Reach one end or both by other settings.
    Connect {
        /// Keys of `source`.
        source: EndKeys,
        /// Keys of `destination`.
        destination: EndKeys,
    },
    /// Forget the pipe; the targets stay as they are.
    Drop,
}

/// Whether a text can be the name of tables, and no address with a password.
fn is_name(text: &str) -> bool {
    text.contains('.') && !text.contains("://") && !text.contains(['@', '"'])
}

/// As the history shows it: what was asked, and of which tables.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A key that does not belong there may be one of another section, such as a password.
        let settings = |section: &str, map: &Map<String, Value>| -> String {
            let shown = |(key, value): (&String, &Value)| match value {
                Value::Array(_) | Value::Object(_) => format!(" {key}"),
                value if is_setting(section, key) => format!(" {key}={value}"),
                _ => format!(" {key}"),
            };
            map.iter().map(shown).collect()
        };
        let names = |names: &[TableName]| -> String {
            names.iter().map(|name| format!(" {name}")).collect()
        };
        match self {
            Command::Start => f.write_str("start"),
            Command::Pause => f.write_str("pause"),
            Command::PauseWithoutFile => f.write_str("pause, since the pipe file is gone"),
            Command::Resume => f.write_str("resume"),
            Command::Resync { table, snapshot } => {
                let table = table.as_ref().map(std::slice::from_ref).unwrap_or_default();
                write!(
                    f,
                    "resync{}{}",
                    names(table),
                    settings("snapshot", snapshot)
                )
            }
            Command::Retry { table } => write!(f, "retry {table}"),
            Command::Skip { table } => write!(f, "skip {table}"),
            Command::AddTables { entries } | Command::TakeIn { entries } => {
                f.write_str("add tables")?;
                let mut named = entries.iter().map(source_of).filter(|name| is_name(name));
                named.try_for_each(|name| write!(f, " {name}"))
            }
            Command::FollowNewTables => f.write_str("take in tables that match a wildcard"),
            Command::FollowStatement { fates, .. } => {
                f.write_str("follow a statement:")?;
                fates.iter().try_for_each(|(name, fate)| match fate {
                    ddl::Fate::Reload => write!(f, " load {name} anew"),
                    ddl::Fate::Gone => write!(f, " let {name} go"),
                })
            }
            Command::RemoveTables { tables } => write!(f, "remove tables{}", names(tables)),
            Command::Exclude { list } => {
                f.write_str("set exclude")?;
                let items = list.iter().flatten().filter_map(Value::as_str);
                let mut named = items.filter(|name| is_name(name));
                named.try_for_each(|name| write!(f, " {name}"))
            }
            Command::Configure { sync } => write!(f, "set{}", settings("sync", sync)),
            // Their values are nobody's business.
            Command::Connect {
                source,
                destination,
            } => {
                f.write_str("set")?;
                let mut names = source.names();
                names.try_for_each(|name| write!(f, " source.{name}"))?;
                let mut names = destination.names();
                names.try_for_each(|name| write!(f, " destination.{name}"))
            }
            Command::Drop => f.write_str("drop"),
        }
    }
}

/// An edit of the records, and what it does to the lifecycle.
pub(super) struct Change {
    pub(super) event: Option<PipeEvent>,
    pub(super) edit: Edit,
}

pub(super) type Edit = Box<dyn FnOnce(&mut Records) -> Result<()> + Send + Sync>;

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Change")
            .field("event", &self.event)
            .finish_non_exhaustive()
    }
}

impl Change {
    pub(super) fn new(
        event: Option<PipeEvent>,
        edit: impl FnOnce(&mut Records) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self {
            event,
            edit: Box::new(edit),
        }
    }

    /// The same change, from which on rows pass through plugins as `files` are.
    pub(super) fn through(self, pipe: &Arc<Pipe>, files: PluginFiles) -> Self {
        let (pipe, edit) = (Arc::clone(pipe), self.edit);
        Self::new(self.event, move |draft| {
            edit(draft)?;
            pipe.plugins.take(&files);
            Ok(())
        })
    }

    /// Records the change in one write. The pipe must not be working.
    ///
    /// # Errors
    /// Whatever the edit refuses with, when tables have changed since it was prepared; then the pipe is as it was.
    pub(super) async fn carry_out(self, pipe: &Pipe) -> Result<()> {
        let before = pipe.store.records().state();
        fault::point("change:1");
        let done = match self.event {
            Some(event) => pipe.store.transition_with(event, self.edit).await.map(drop),
            None => pipe.store.commit(self.edit).await,
        };
        fault::point("change:2");
        let after = pipe.store.records().state();
        if before != after {
            tracing::info!(pipe = pipe.store.pipe(), from = %before, to = %after, "state");
        }
        if done.is_err() {
            give_up_modifying(pipe).await?;
        }
        done
    }
}

/// Checks a command, and carries it out where that needs no more than a lifecycle event. Otherwise returns the change
/// that is to be recorded when the pipe's work has stopped.
///
/// # Errors
/// `IllegalCommand` naming the state, `Config` for what the command itself cannot mean, or whatever the servers refuse
/// with; then nothing is changed.
pub(super) async fn prepare(pipe: &Arc<Pipe>, command: Command) -> Result<Option<Change>> {
    let asked = command.clone();
    let prepared = prepare_unexplained(pipe, command).await;
    prepared.map_err(|error| asked.explain(error, &pipe.store.records().state()))
}

async fn prepare_unexplained(pipe: &Arc<Pipe>, command: Command) -> Result<Option<Change>> {
    let state = pipe.store.records().state();
    let event = command.event(&state);
    match command {
        Command::Start | Command::Resume | Command::Pause => {
            let event = event.expect("these are for the lifecycle alone");
            turn(pipe, event, &state).await.map(|()| None)
        }
        Command::PauseWithoutFile => {
            if !matches!(state, PipeState::Pausing { .. } | PipeState::Paused { .. }) {
                let edit = |draft: &mut Records| files::set_gone(draft, true);
                pipe.transition_with(PipeEvent::Pause, edit).await?;
            }
            Ok(None)
        }
        Command::Resync { table, snapshot } => {
            ensure_legal(pipe, PipeEvent::Resync)?;
            let config = with_snapshot(pipe, &snapshot)?;
            let files = PluginFiles::default();
            let mut change = match table {
                Some(name) => resync::one(pipe, config, &files, name).await?,
                None => resync::all(pipe, config, &files).await?,
            };
            fault::point("resync:1");
            let edit = change.edit;
            change.edit = Box::new(move |draft| {
                lay(&mut draft.pipe_mut().overlay.snapshot, snapshot);
                edit(draft)
            });
            Ok(Some(change.through(pipe, files)))
        }
        Command::Retry { table } => go_on::retry(pipe, table, Skip::No).await,
        Command::Skip { table } => go_on::retry(pipe, table, Skip::Allowed).await,
        Command::AddTables { entries } => {
            modify(pipe, tables::add(pipe, entries, tables::Whose::Command)).await
        }
        Command::TakeIn { entries } => {
            modify(pipe, tables::add(pipe, entries, tables::Whose::File)).await
        }
        Command::FollowNewTables => tables::follow_new(pipe).await,
        Command::FollowStatement { fates, end } => {
            ensure_legal(pipe, PipeEvent::Reload)?;
            ddl::follow(pipe, fates, end).await.map(Some)
        }
        Command::RemoveTables { tables } => modify(pipe, async { remove(pipe, tables) }).await,
        Command::Exclude { list } => modify(pipe, async { exclude::prepare(pipe, list) }).await,
        Command::Configure { sync } => configure(pipe, sync).await,
        Command::Connect {
            source,
            destination,
        } => connections::prepare(pipe, source, destination)
            .await
            .map(Some),
        Command::Drop => {
            let (name, config) = (pipe.store.pipe().to_owned(), pipe.effective_config());
            let config = config.unwrap_or_else(|_| Arc::clone(&pipe.config));
            Ok(Some(Change::new(None, move |draft| {
                draft.dropped = true;
                draft.left = Left::of(draft, &name, &config.destination).map(Arc::new);
                Ok(())
            })))
        }
    }
}

impl Pipe {
    /// The pipe file with what commands have laid over it.
    ///
    /// # Errors
    /// `Config` where the two no longer fit together.
    pub(super) fn effective_config(&self) -> Result<Arc<PipeConfig>> {
        let records = self.store.records();
        match &records.pipe {
            Some(record) if !record.overlay.is_empty() => {
                self.laid_over(&record.overlay).map(Arc::new)
            }
            _ => Ok(Arc::clone(&self.config)),
        }
    }

    /// The pipe file with `overlay` laid over it.
    ///
    /// # Errors
    /// `Config` where the two do not fit together.
    pub(super) fn laid_over(&self, overlay: &Overlay) -> Result<PipeConfig> {
        overlay.over(&self.config, &self.folders)
    }
}

fn ensure_legal(pipe: &Pipe, event: PipeEvent) -> Result<()> {
    pipe.store.records().state().apply(event).map(drop)
}

/// Prepares a change of tables in state Modifying, which is left again where the change is refused, or there is none to
/// make.
///
/// # Errors
/// `IllegalCommand` where the state does not allow it, or what `prepared` is refused with.
pub(super) async fn modify(
    pipe: &Pipe,
    prepared: impl Future<Output = Result<Option<Change>>>,
) -> Result<Option<Change>> {
    pipe.transition(PipeEvent::Modify).await?;
    fault::point("modify:1");
    let prepared = prepared.await;
    match &prepared {
        Ok(Some(_)) => fault::point("modify:2"),
        Ok(None) | Err(_) => give_up_modifying(pipe).await?,
    }
    prepared
}

async fn give_up_modifying(pipe: &Pipe) -> Result<()> {
    match pipe.store.records().state() {
        PipeState::Modifying { .. } => pipe.transition(PipeEvent::Modified).await,
        _ => Ok(()),
    }
}

fn with_snapshot(pipe: &Pipe, snapshot: &Map<String, Value>) -> Result<Arc<PipeConfig>> {
    let mut overlay = pipe.store.record().overlay;
    lay(&mut overlay.snapshot, snapshot.clone());
    pipe.laid_over(&overlay).map(Arc::new)
}

/// Prepares other settings of `sync`. Where the pipe runs by them already, its work goes on: there is no change to make, and
/// only what a command has said is recorded, which counts for the next file.
async fn configure(pipe: &Pipe, sync: Map<String, Value>) -> Result<Option<Change>> {
    let before = pipe.store.record().overlay;
    let mut overlay = before.clone();
    lay(&mut overlay.sync, sync);
    let config = pipe.laid_over(&overlay)?;
    let is_new = overlay != before;
    let edit = move |draft: &mut Records| {
        draft.pipe_mut().overlay.sync = overlay.sync;
        Ok(())
    };
    let running = pipe.effective_config().ok();
    if running.is_none_or(|running| running.sync != config.sync) {
        return Ok(Some(Change::new(None, edit)));
    }
    if is_new {
        pipe.store.commit(edit).await?;
    }
    Ok(None)
}

/// Starts, resumes or pauses the pipe.
async fn turn(pipe: &Arc<Pipe>, event: PipeEvent, state: &PipeState) -> Result<()> {
    let read = files_to_go_on_with(pipe, &event, state).await?;
    if let (PipeEvent::Start, PipeState::Failed { .. }) = (&event, state) {
        go_on::with_all(pipe).await?;
    }
    let anew = event == PipeEvent::Start;
    let edit = |draft: &mut Records| {
        if anew {
            pipe.plugins.forget();
        }
        if let Some(read) = &read {
            pipe.plugins.take(read);
        }
        files::set_gone(draft, false)
    };
    pipe.transition_with(event, edit).await
}

/// What a pipe goes on with that somebody starts or resumes: the plugins as their files are now. A failed one is started
/// again whatever they are, and fails with what is wrong with them.
///
/// # Errors
/// Whatever the first plugin that cannot be used is refused with; a paused pipe stays paused then.
async fn files_to_go_on_with(
    pipe: &Pipe,
    event: &PipeEvent,
    state: &PipeState,
) -> Result<Option<PluginFiles>> {
    match (event, state) {
        (PipeEvent::Resume, PipeState::Pausing { .. } | PipeState::Paused { .. }) => {
            let in_service = |_: &TableName, table: &TableRecord| table.state.is_in_service();
            PluginFiles::read_anew(pipe, in_service).await.map(Some)
        }
        _ => Ok(None),
    }
}

/// Prepares the removal of tables; none is prepared where all of them have left already.
fn remove(pipe: &Pipe, names: Vec<TableName>) -> Result<Option<Change>> {
    let records = pipe.store.records();
    let mut leaving = BTreeSet::new();
    for name in names {
        match records.tables.get(&name) {
            None => return Err(tables::unknown(&records, &name)),
            Some(table) if table.state == TableState::Removed => {}
            Some(_) => drop(leaving.insert(name)),
        }
    }
    if leaving.is_empty() {
        return Ok(None);
    }
    let left = records
        .tables
        .iter()
        .any(|(name, table)| table.state != TableState::Removed && !leaving.contains(name));
    if !left {
        return Err(Error::new(
            ErrorKind::IllegalCommand,
            "no table would be left in the pipe",
        )
        .with_hint("drop the pipe instead: pipewright drop"));
    }
    let edit = move |draft: &mut Records| leaving.iter().try_for_each(|name| take_out(draft, name));
    Ok(Some(Change::new(Some(PipeEvent::Modified), edit)))
}

/// Ends a table's replication; its target stays as it is.
///
/// # Errors
/// `IllegalCommand` where the table's state does not allow it.
pub(super) fn take_out(draft: &mut Records, name: &TableName) -> Result<()> {
    draft.table_event(name, TableEvent::Remove)?;
    let table = draft.table_mut(name);
    (table.place, table.skip, table.excluded) = (None, Skip::No, false);
    table.give_up_shadow();
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keys(value: Value) -> Map<String, Value> {
        serde_json::from_value(value).expect("a map")
    }

    #[test]
    fn the_history_shows_values_of_known_settings_alone() {
        let configure = |sync: Value| Command::Configure { sync: keys(sync) }.to_string();
        assert_eq!(
            configure(json!({ "interval": "5s", "max_rows": 9 })),
            "set interval=\"5s\" max_rows=9"
        );
        for (asked, told) in [
            (json!({ "password": "canary" }), "set password"),
            (
                json!({ "interval": { "password": "canary" } }),
                "set interval",
            ),
            (
                json!({ "threads_per_table": "canary" }),
                "set threads_per_table",
            ),
        ] {
            assert_eq!(configure(asked), told);
        }
        let snapshot = keys(json!({ "password": "canary", "threads_per_table": 4 }));
        let resync = Command::Resync {
            table: None,
            snapshot,
        };
        assert_eq!(resync.to_string(), "resync password threads_per_table=4");
        let entries = vec![
            json!({ "source": "s.a" }),
            json!({ "source": { "database": "s", "table": "b" } }),
            json!({ "source": { "password": "canary" } }),
        ];
        let add = Command::AddTables { entries };
        assert_eq!(add.to_string(), "add tables s.a s.b");
        let address = "mysql://root:canary@db.local";
        let add = Command::AddTables {
            entries: vec![json!({ "source": address })],
        };
        assert_eq!(add.to_string(), "add tables");
        let exclude = Command::Exclude {
            list: Some(vec![
                json!("s.old_*"),
                json!(address),
                json!({ "password": "canary" }),
            ]),
        };
        assert_eq!(exclude.to_string(), "set exclude s.old_*");
    }
}
