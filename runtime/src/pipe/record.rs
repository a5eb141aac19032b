//! What a pipe remembers across restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

pub use super::beside::{Beside, Exchange, History, Retire, Shadow};
use super::connections::EndKeys;
use super::ddl::Copy;
use super::faults::FaultCounts;
use super::files::Applied;
use super::leftovers::Left;
use super::lifecycle::{Failure, PipeState};
use super::pinned::PinnedPlugin;
use super::prepared::PreparedRecord;
use super::table_state::{TableEvent, TableState};
use super::values::ValueCounts;
use crate::batch::TableName;
use crate::config::{Folders, PipeConfig, Problem};
use crate::error::{Error, ErrorKind, Result};
use crate::source::mysql::ServerIdentity;
use crate::source::mysql::binlog::BegunFile;
use crate::source::mysql::catalog::SourceTable;
use crate::source::mysql::position::{Position, StreamPlace};
use crate::source::mysql::snapshot::Partition;

/// A pipe's own record: lifecycle and checkpoint in one, so that one write moves both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PipeRecord {
    /// The random token that marks target tables as this pipe's own.
    pub id: String,
    /// Where the pipe is in its life.
    pub state: PipeState,
    /// The replica identity shown to the source, stable for the pipe's life.
    pub server_id: u32,
    /// The settings that Setup built the targets from; none before Setup is done.
    pub established: Option<serde_json::Value>,
    /// The server whose coordinates the term counts.
    pub server: Option<ServerIdentity>,
    /// The claimed term; 0 before the first claim.
    pub term: u16,
    /// A term that is being claimed: a crash in between claims a higher one.
    pub claiming: Option<u16>,
    /// The random id under which it is being claimed.
    #[serde(default)]
    pub claimant: Option<String>,
    /// Whether the pipe begins anew at its checkpoint: what stands at the destination is no past of it any more, until a
    /// term is claimed.
    #[serde(default)]
    pub anew: bool,
    /// The random id under which the term is claimed at the destination.
    pub owner: String,
    /// Everything up to here is durable at the destination. None until Setup has taken the start place.
    pub checkpoint: Option<Checkpoint>,
    /// Rows up to here may be at the destination: the end place of the newest batch that was begun.
    pub sent: Option<StreamPlace>,
    /// The newest binlog file of that server that the stream has read from.
    #[serde(default)]
    pub begun: Option<BegunFile>,
    /// What commands have laid over the pipe file.
    #[serde(default)]
    pub overlay: Overlay,
}

/// Changes by command that the pipe file does not say, as [`crate::config::lay_over`] reads them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Overlay {
    /// Keys of `source` that were set.
    #[serde(default, skip_serializing_if = "EndKeys::is_empty")]
    pub source: EndKeys,
    /// Keys of `destination` that were set.
    #[serde(default, skip_serializing_if = "EndKeys::is_empty")]
    pub destination: EndKeys,
    /// Entries of `tables` that were added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<serde_json::Value>,
    /// The list that was set in the place of `exclude`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude: Option<Vec<serde_json::Value>>,
    /// Keys of `sync` that were set.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub sync: serde_json::Map<String, serde_json::Value>,
    /// Keys of `snapshot` that were set.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub snapshot: serde_json::Map<String, serde_json::Value>,
}

impl Overlay {
    /// Whether the pipe runs as its file says.
    pub fn is_empty(&self) -> bool {
        self.source.is_empty()
            && self.destination.is_empty()
            && self.tables.is_empty()
            && self.exclude.is_none()
            && self.sync.is_empty()
            && self.snapshot.is_empty()
    }

    /// The file's configuration with this laid over it; `folders` are those that sent documents may name files in.
    ///
    /// # Errors
    /// `Config`, with every problem.
    pub fn over(&self, base: &PipeConfig, folders: &Folders) -> Result<PipeConfig> {
        if self.is_empty() {
            return Ok(base.clone());
        }
        // Empty parts are left out when it is written; an absent key changes nothing.
        let change = serde_json::to_value(self).map_err(|error| {
            Error::new(ErrorKind::Internal, "the overlay does not serialise").with_source(error)
        })?;
        crate::config::lay_over(base, &change, folders).map_err(|problems| refused(&problems))
    }
}

/// Sets what `change` sets; `null` goes back to what the file says.
pub(super) fn lay(
    keys: &mut serde_json::Map<String, serde_json::Value>,
    change: serde_json::Map<String, serde_json::Value>,
) {
    for (name, value) in change {
        match value {
            serde_json::Value::Null => drop(keys.remove(&name)),
            value => drop(keys.insert(name, value)),
        }
    }
}

/// Problems of a change as one error.
fn refused(problems: &[Problem]) -> Error {
    let remedy: Vec<&str> = problems
        .iter()
        .map(|problem| problem.remedy.as_str())
        .collect();
    let found: Vec<String> = problems
        .iter()
        .map(|problem| {
            format!(
                "`{}`: found {}, expected {}",
                problem.path, problem.found, problem.expected
            )
        })
        .collect();
    Error::new(ErrorKind::Config, found.join("; ")).with_hint(remedy.join("; "))
}

/// A place proved durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The place.
    pub place: StreamPlace,
    /// When the source committed the last transaction before it, or showed the place that the pipe began at: microseconds
    /// since 1970 by its own clock; none when not known.
    pub committed_at_us: Option<u64>,
    /// When the checkpoint was written, microseconds since 1970.
    pub written_at_us: u64,
}

/// A table's record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableRecord {
    /// The definition that holds at the checkpoint.
    pub source: SourceTable,
    /// The target table's name.
    pub target: String,
    /// The names of further targets, which a plugin sends rows to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routed: Vec<String>,
    /// Whether its last plugin chooses targets or keys, so that only a load can change it.
    #[serde(default)]
    pub routing: bool,
    /// The names of targets of former plugins, to be let go when the load through the present ones is whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<String>,
    /// Where the table is.
    pub state: TableState,
    /// Its own place, while it is out of the pipe's stream; the pipe's checkpoint otherwise.
    #[serde(default)]
    pub place: Option<TablePlace>,
    /// The table that a later load fills beside the live one.
    #[serde(default)]
    pub shadow: Option<Shadow>,
    /// The number of the last shadow, so that no name is used twice.
    #[serde(default)]
    pub generation: u32,
    /// Whether a load of it has ever been whole, so that it can go on from its place.
    #[serde(default = "yes")]
    pub whole: bool,
    /// Tables at the destination that a load which was given up has left, to be cleared away.
    #[serde(default, skip_serializing_if = "Vec::is_empty", alias = "orphans")]
    pub given_up: Vec<Beside>,
    /// Whether the target may stand between this definition and the next: an alteration has begun.
    #[serde(default)]
    pub altering: bool,
    /// What the columns held that it renames, by target, when it began.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub renamed_values: BTreeMap<String, String>,
    /// By column that was added or renamed in place: the version of the statement. What rows of before have under its name is
    /// another column's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub named_at: BTreeMap<String, u64>,
    /// Whether the live target has values of columns that the source has dropped and the pipe file wants archived.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub archives: bool,
    /// Whether its target is still to be made: it has joined since the pipe last worked.
    #[serde(default)]
    pub unmade: bool,
    /// Whether it left because the source has it no longer; it comes back when it is there again.
    #[serde(default)]
    pub dropped: bool,
    /// Whether it is out because the file's `exclude` lists it; it comes back when the list no longer does.
    #[serde(default)]
    pub excluded: bool,
    /// The copy that a tool makes of it, to put in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<Copy>,
    /// Whether rows may have followed a foreign key, so that it is to be loaded anew.
    #[serde(default)]
    pub cascaded: bool,
    /// What is to become of the target that it has left.
    #[serde(default)]
    pub retire: Option<Retire>,
    /// Why the table may differ from the source until it is loaded again.
    #[serde(default)]
    pub inexact: Option<Failure>,
    /// Whether it was a plugin that took it out of service, and has not let its rows pass since.
    #[serde(default)]
    pub failed_in_plugin: bool,
    /// Whether one failing transaction may be passed over, and how near its place is known.
    #[serde(default)]
    pub skip: Skip,
    /// Whether every change is a row of its own at the destination.
    #[serde(default)]
    pub appends: bool,
    /// Whether the load has begun that reads one moment.
    #[serde(default)]
    pub in_snapshot: bool,
    /// How the load is cut; none before it is planned.
    pub partitions: Option<Vec<Partition>>,
    /// The server that the load reads; none before it is planned.
    #[serde(default)]
    pub load_server: Option<ServerIdentity>,
    /// Rows of the load may show what the source had committed up to here; none where it has no GTIDs, in a record of a
    /// former build, and before the load is planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_reach: Option<Position>,
    /// Where the load ended; none while partitions are left.
    pub load_end: Option<Position>,
    /// Rows that the stream has completed from the source may show what that had committed up to here; none once the
    /// stream has got there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_reach: Option<Position>,
    /// Digests of the plugins and their configurations, in order.
    pub plugins: Vec<PinnedPlugin>,
    /// Rows read by the load.
    pub rows_loaded: u64,
    /// Bytes sent to the destination by the load.
    #[serde(default)]
    pub bytes_loaded: u64,
    /// Rows read by all loads before it.
    #[serde(default)]
    pub rows_loaded_before: u64,
    /// Bytes sent to the destination by all loads before it.
    #[serde(default)]
    pub bytes_loaded_before: u64,
    /// Rows that the source expected the table to have when the load was planned.
    pub rows_estimated: Option<u64>,
}

fn yes() -> bool {
    true
}

/// How far passing over one failing transaction has come. Each failure of the table's own stream goes one step on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Skip {
    /// Nothing may be passed over.
    #[default]
    No,
    /// A person allows it for the next failure.
    Allowed,
    /// It failed within a flush of several transactions: each goes by itself, so that the failing one is found.
    Narrow,
    /// It failed by itself: the next one is passed over.
    PassOver,
}

/// Where a table stands that is out of the pipe's stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablePlace {
    /// The term that its rows beyond the place take; none until one is claimed for them.
    pub term: Option<u16>,
    /// The place.
    pub place: StreamPlace,
    /// Rows up to here may be at the destination.
    pub sent: Option<StreamPlace>,
    /// A moment by the source's clock, in microseconds since 1970, up to which everything that it had committed stands
    /// before the place; none when not known.
    #[serde(default)]
    pub as_of_us: Option<u64>,
}

/// Row changes applied since the pipe was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowCounts {
    /// Inserts.
    pub inserted: u64,
    /// Updates.
    pub updated: u64,
    /// Deletes.
    pub deleted: u64,
    /// Bytes sent to the destination for them.
    #[serde(default)]
    pub bytes: u64,
}

impl TableRecord {
    /// The record of a table whose load has not begun, with the target that it has by default.
    pub fn new(source: SourceTable) -> Self {
        Self {
            target: source.name().table.clone(),
            routed: Vec::new(),
            routing: false,
            left: Vec::new(),
            source,
            state: TableState::Pending,
            place: None,
            shadow: None,
            generation: 0,
            whole: false,
            given_up: Vec::new(),
            altering: false,
            renamed_values: BTreeMap::new(),
            named_at: BTreeMap::new(),
            archives: false,
            unmade: false,
            dropped: false,
            excluded: false,
            copy: None,
            cascaded: false,
            retire: None,
            inexact: None,
            failed_in_plugin: false,
            skip: Skip::No,
            appends: false,
            in_snapshot: false,
            partitions: None,
            load_server: None,
            load_reach: None,
            load_end: None,
            image_reach: None,
            plugins: Vec::new(),
            rows_loaded: 0,
            bytes_loaded: 0,
            rows_loaded_before: 0,
            bytes_loaded_before: 0,
            rows_estimated: None,
        }
    }

    /// The names of its targets, its own first.
    pub fn targets(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.target)
            .chain(&self.routed)
            .map(String::as_str)
    }

    /// The tables that loads have made beside the targets.
    pub fn beside(&self) -> Vec<Beside> {
        let mut beside = self.given_up.clone();
        let Some(shadow) = &self.shadow else {
            return beside;
        };
        beside.extend(self.targets().map(|live| {
            let exchange = shadow.exchange_with(live, &self.target);
            let kept = exchange.filter(|exchange| exchange.history);
            let identity = kept.and_then(|exchange| exchange.live.clone());
            Beside {
                name: shadow.name_for(live, &self.target),
                history: identity.map(|identity| History {
                    identity,
                    name: shadow.history_of(live, &self.target),
                }),
            }
        }));
        beside
    }

    /// Gives its load beside the live table up.
    pub fn give_up_shadow(&mut self) {
        self.given_up = self.beside();
        self.shadow = None;
    }

    /// What tells dead letters of its present load from those of earlier ones, also of an earlier pipe of that name.
    pub(super) fn load(&self, pipe_id: &str) -> String {
        format!("{pipe_id}/{}", self.generation)
    }

    /// Whether a command has taken it out. One that the source has dropped, or the file excludes, comes back by itself.
    pub fn is_taken_out(&self) -> bool {
        self.state == TableState::Removed && !self.dropped && !self.excluded
    }

    /// Whether a load fills a table beside a live one that the stream no longer reaches.
    pub fn is_loading_alone(&self) -> bool {
        self.shadow.as_ref().is_some_and(|shadow| shadow.alone)
    }
}

impl Records {
    /// Up to where everything is durable; none before Setup is done.
    pub(super) fn checkpoint(&self) -> Option<&Checkpoint> {
        self.pipe.as_ref()?.checkpoint.as_ref()
    }

    /// Where the pipe is in its life.
    pub fn state(&self) -> PipeState {
        self.pipe
            .as_ref()
            .map_or(PipeState::Provisioning, |record| record.state.clone())
    }

    /// The tables whose records are as wanted.
    pub fn names_where(&self, wanted: impl Fn(&TableRecord) -> bool) -> Vec<TableName> {
        self.tables
            .iter()
            .filter(|(_, table)| wanted(table))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// The tables that the pipe has, and that have not left it. Those that have left hold no target.
    pub fn carried(&self) -> Vec<TableName> {
        self.names_where(|table| table.state != TableState::Removed)
    }

    /// The highest number that a table beside this target has had, whichever table's target it was: one that has left may
    /// have had it before another got it, and what its loads have left may still be there.
    pub(super) fn generation_beside(&self, target: &str) -> u32 {
        let has_it = |table: &&Arc<TableRecord>| {
            let left = table.left.iter().map(String::as_str);
            table.targets().chain(left).any(|name| name == target)
        };
        let have_it = self.tables.values().filter(has_it);
        have_it.map(|table| table.generation).max().unwrap_or(0)
    }

    /// Why the first table that is out of service is so.
    pub fn quarantined(&self) -> Option<&Failure> {
        self.tables.values().find_map(|table| match &table.state {
            TableState::Quarantined(failure) => Some(failure),
            _ => None,
        })
    }

    /// A table's record, to be edited.
    ///
    /// # Panics
    /// When the pipe has no such table.
    pub fn table_mut(&mut self, name: &TableName) -> &mut TableRecord {
        Arc::make_mut(
            self.tables
                .get_mut(name)
                .expect("a table of the pipe has a record"),
        )
    }

    /// Applies a table's event.
    ///
    /// # Errors
    /// `IllegalCommand` where the event has no place in the table's present state.
    ///
    /// # Panics
    /// When the pipe has no such table.
    pub fn table_event(&mut self, name: &TableName, event: TableEvent) -> Result<()> {
        let table = self.table_mut(name);
        if matches!(event, TableEvent::Resync | TableEvent::Add) {
            // Statements before the load's place are not read.
            table.copy = None;
        }
        if event == TableEvent::Loaded {
            table.whole = true;
            // One that was marked during the load is loaded once more.
            if !table.cascaded {
                table.inexact = None;
            }
        }
        table.state = table
            .state
            .clone()
            .apply(event)
            .map_err(|error| error.with_table(name))?;
        Ok(())
    }

    /// The pipe's own record, to be edited.
    ///
    /// # Panics
    /// Before [`super::store::PipeStore::begin`].
    pub fn pipe_mut(&mut self) -> &mut PipeRecord {
        self.pipe.as_mut().expect("begin() has made the record")
    }
}

impl RowCounts {
    /// Adds another count.
    pub fn add(&mut self, other: RowCounts) {
        self.inserted += other.inserted;
        self.updated += other.updated;
        self.deleted += other.deleted;
        self.bytes += other.bytes;
    }
}

/// All records of one pipe. Those of tables are shared, and so are the maps that hold them: a draft costs no copy of what it
/// leaves alone, and what it changes is found without a look at the rest, however many tables there are.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// None for a pipe that has never run.
    pub pipe: Option<PipeRecord>,
    /// By source table.
    pub tables: OrdMap<TableName, Arc<TableRecord>>,
    /// Finished partitions by source table.
    pub done: OrdMap<TableName, Arc<BTreeSet<u32>>>,
    /// Applied changes by source table.
    pub rows: OrdMap<TableName, RowCounts>,
    /// XA transactions between PREPARE and decision, by the id of the PREPARE.
    pub prepared: BTreeMap<String, Arc<PreparedRecord>>,
    /// What the pipe was last told by its file, or by the request that made it.
    pub applied: Option<Arc<Applied>>,
    /// Values that policies have changed, by source table.
    pub values: OrdMap<TableName, ValueCounts>,
    /// Rows that plugins failed on and that were passed over, by source table.
    pub faults: OrdMap<TableName, FaultCounts>,
    /// Set when the pipe is to be forgotten: every record of it is removed in that write.
    pub dropped: bool,
    /// What takes their place then, if something is to be cleared away.
    pub left: Option<Arc<Left>>,
}

/// A replica id that nobody is likely to use: those below 1000 are what people give to replicas by hand. A source allows
/// one connection of each.
pub fn random_server_id() -> u32 {
    rand::random_range(1000..u32::MAX)
}

/// 128 random bits as hexadecimal text.
pub fn random_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}
