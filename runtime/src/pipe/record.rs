//! What a pipe remembers across restarts, and the one door through which it is changed.
//!
//! All records of a pipe change by [`PipeStore::commit`]: a draft is edited, written in one atomic write, and only then
//! becomes what the process sees. Lifecycle, checkpoint and the table definitions that belong to it therefore never
//! disagree after a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};

use super::lifecycle::{PipeEvent, PipeState, TableState};
use super::values::ValueCounts;
use crate::batch::TableName;
use crate::error::{Error, ErrorKind, Result};
use crate::source::mysql::ServerIdentity;
use crate::source::mysql::catalog::SourceTable;
use crate::source::mysql::position::{Position, StreamPlace};
use crate::source::mysql::snapshot::Partition;
use crate::state::{Entry, StateStore, Write};

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
    /// The random id under which the term is claimed at the destination.
    pub owner: String,
    /// Everything up to here is durable at the destination. None until Setup has taken the start place.
    pub checkpoint: Option<Checkpoint>,
    /// Rows up to here may be at the destination: the end place of the newest batch that was begun.
    pub sent: Option<StreamPlace>,
}

/// A place proved durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The place.
    pub place: StreamPlace,
    /// When the source committed the last transaction before it, microseconds since 1970; none when not known.
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
    /// Where the table is.
    pub state: TableState,
    /// How the load is cut; none before it is planned.
    pub partitions: Option<Vec<Partition>>,
    /// Where the load ended; none while partitions are left.
    pub load_end: Option<Position>,
    /// Digests of the plugins and their configurations, in order.
    pub plugins: Vec<PinnedPlugin>,
    /// Rows read by the load.
    pub rows_loaded: u64,
    /// Rows that the source expected the table to have when the load was planned.
    pub rows_estimated: Option<u64>,
}

/// A plugin as it was when the table was set up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedPlugin {
    /// Its name in the pipe file.
    pub name: String,
    /// SHA-256 of the component.
    pub digest: String,
    /// SHA-256 of the resolved configuration.
    pub config_digest: String,
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
}

impl Records {
    /// Where the pipe is in its life.
    pub fn state(&self) -> PipeState {
        self.pipe
            .as_ref()
            .map_or(PipeState::Provisioning, |record| record.state.clone())
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

    /// The pipe's own record, to be edited.
    ///
    /// # Panics
    /// Before [`PipeStore::begin`].
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
    }
}

/// All records of one pipe. Those of tables are shared, so that a draft costs no copy of what it leaves alone.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// None for a pipe that has never run.
    pub pipe: Option<PipeRecord>,
    /// By source table.
    pub tables: BTreeMap<TableName, Arc<TableRecord>>,
    /// Finished partitions by source table.
    pub done: BTreeMap<TableName, Arc<BTreeSet<u32>>>,
    /// Applied changes by source table.
    pub rows: BTreeMap<TableName, RowCounts>,
    /// Values that policies have changed, by source table.
    pub values: BTreeMap<TableName, ValueCounts>,
}

/// The records with their revisions, and the state that the outside sees.
#[derive(Debug)]
pub struct PipeStore {
    store: Arc<StateStore>,
    pipe: String,
    /// The revisions of all keys written; held for the length of a commit.
    revisions: Arc<Mutex<BTreeMap<String, i64>>>,
    published: watch::Sender<Arc<Records>>,
}

impl PipeStore {
    /// Reads the pipe's records, or begins new ones in state Provisioning.
    ///
    /// # Errors
    /// When the store fails or holds damaged records.
    pub async fn open(store: Arc<StateStore>, pipe: &str) -> Result<Arc<Self>> {
        let mut records = Records::default();
        let mut revisions = BTreeMap::new();
        let own: Option<Entry<PipeRecord>> = store.get(&format!("pipe/{pipe}")).await?;
        if let Some(entry) = own {
            revisions.insert(format!("pipe/{pipe}"), entry.revision);
            records.pipe = Some(entry.value);
        }
        let tables: Vec<(String, Entry<TableRecord>)> =
            store.list(&format!("table/{pipe}/")).await?;
        for (key, entry) in tables {
            revisions.insert(key, entry.revision);
            records
                .tables
                .insert(entry.value.source.name().clone(), Arc::new(entry.value));
        }
        let done: Vec<(String, Entry<(TableName, u32)>)> =
            store.list(&format!("part/{pipe}/")).await?;
        for (key, entry) in done {
            revisions.insert(key, entry.revision);
            Arc::make_mut(records.done.entry(entry.value.0).or_default()).insert(entry.value.1);
        }
        let rows: Vec<(String, Entry<(TableName, RowCounts)>)> =
            store.list(&format!("rows/{pipe}/")).await?;
        for (key, entry) in rows {
            revisions.insert(key, entry.revision);
            records.rows.insert(entry.value.0, entry.value.1);
        }
        let values: Vec<(String, Entry<(TableName, ValueCounts)>)> =
            store.list(&format!("values/{pipe}/")).await?;
        for (key, entry) in values {
            revisions.insert(key, entry.revision);
            records.values.insert(entry.value.0, entry.value.1);
        }
        Ok(Arc::new(Self {
            store,
            pipe: pipe.to_owned(),
            revisions: Arc::new(Mutex::new(revisions)),
            published: watch::Sender::new(Arc::new(records)),
        }))
    }

    /// The pipe's name.
    pub fn pipe(&self) -> &str {
        &self.pipe
    }

    /// A way to wait for the next commit.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Records>> {
        self.published.subscribe()
    }

    /// All records as last persisted.
    pub fn records(&self) -> Arc<Records> {
        Arc::clone(&self.published.borrow())
    }

    /// A copy of the pipe's own record.
    ///
    /// # Panics
    /// Before [`PipeStore::begin`].
    pub fn record(&self) -> PipeRecord {
        self.records()
            .pipe
            .clone()
            .expect("begin() has made the record")
    }

    /// Makes the pipe's record when it has none.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn begin(&self, server_id: u32) -> Result<()> {
        self.commit(|draft| {
            draft.pipe.get_or_insert_with(|| PipeRecord {
                id: random_id(),
                state: PipeState::Provisioning,
                server_id,
                established: None,
                server: None,
                term: 0,
                claiming: None,
                owner: random_id(),
                checkpoint: None,
                sent: None,
            });
            Ok(())
        })
        .await
    }

    /// Applies a lifecycle event: checked, persisted, then published.
    ///
    /// # Errors
    /// `IllegalCommand` where the event has no place in the present state.
    pub async fn transition(&self, event: PipeEvent) -> Result<PipeState> {
        self.commit(|draft| {
            let record = draft.pipe_mut();
            record.state = record.state.clone().apply(event)?;
            Ok(record.state.clone())
        })
        .await
    }

    /// Edits the records: all of the edit is on disk when this returns, or none of it. A caller that goes away in
    /// between leaves the write to finish by itself, so that memory and disk never part.
    ///
    /// # Errors
    /// The edit's own error, or the store's.
    pub async fn commit<T>(&self, edit: impl FnOnce(&mut Records) -> Result<T>) -> Result<T> {
        let mut revisions = Arc::clone(&self.revisions).lock_owned().await;
        let before = self.records();
        let mut draft = Records::clone(&before);
        let result = edit(&mut draft)?;
        let writes = self.difference(&revisions, &before, &draft)?;
        if writes.is_empty() {
            return Ok(result);
        }
        let (store, published) = (Arc::clone(&self.store), self.published.clone());
        let write = tokio::spawn(async move {
            let keys: Vec<String> = writes.iter().map(|(key, _)| key.clone()).collect();
            store
                .write(writes.into_iter().map(|(_, write)| write).collect())
                .await?;
            for key in keys {
                *revisions.entry(key).or_insert(0) += 1;
            }
            published.send_replace(Arc::new(draft));
            Ok::<(), Error>(())
        });
        write.await.map_err(|error| {
            Error::new(ErrorKind::Internal, "a state write panicked").with_source(error)
        })??;
        Ok(result)
    }

    /// One write for each record that the draft changed. Records are never removed here.
    fn difference(
        &self,
        revisions: &BTreeMap<String, i64>,
        before: &Records,
        draft: &Records,
    ) -> Result<Vec<(String, Write)>> {
        let mut writes = Vec::new();
        let mut put = |key: String, value: &dyn erased::Value| -> Result<()> {
            let expected = revisions.get(&key).copied().unwrap_or(0);
            writes.push((key.clone(), value.put(key, expected)?));
            Ok(())
        };
        if let Some(record) = &draft.pipe
            && before.pipe.as_ref() != Some(record)
        {
            put(format!("pipe/{}", self.pipe), record)?;
        }
        for (name, table) in &draft.tables {
            if before
                .tables
                .get(name)
                .is_none_or(|old| !Arc::ptr_eq(old, table))
            {
                put(format!("table/{}/{name}", self.pipe), &**table)?;
            }
        }
        for (name, parts) in &draft.done {
            let old = before.done.get(name);
            if old.is_some_and(|old| Arc::ptr_eq(old, parts)) {
                continue;
            }
            for part in parts
                .iter()
                .filter(|part| old.is_none_or(|old| !old.contains(part)))
            {
                put(format!("part/{}/{name}/{part}", self.pipe), &(name, part))?;
            }
        }
        for (name, rows) in &draft.rows {
            if before.rows.get(name) != Some(rows) {
                put(format!("rows/{}/{name}", self.pipe), &(name, rows))?;
            }
        }
        for (name, values) in &draft.values {
            if before.values.get(name) != Some(values) {
                put(format!("values/{}/{name}", self.pipe), &(name, values))?;
            }
        }
        Ok(writes)
    }
}

/// Lets one closure write records of several types.
mod erased {
    use crate::error::Result;
    use crate::state::Write;

    pub(super) trait Value {
        fn put(&self, key: String, expected: i64) -> Result<Write>;
    }

    impl<T: serde::Serialize> Value for T {
        fn put(&self, key: String, expected: i64) -> Result<Write> {
            Write::put(key, self, expected)
        }
    }
}

/// 128 random bits as hexadecimal text.
pub fn random_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}
