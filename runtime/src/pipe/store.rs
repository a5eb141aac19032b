//! The one door through which a pipe's records are changed.
//!
//! All records change by [`PipeStore::commit`]: a draft is edited, written in one atomic write, and only then becomes what
//! the process sees. Lifecycle, checkpoint and the table definitions that belong to it therefore never disagree after a
//! crash.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use tokio_util::sync::CancellationToken;

use super::difference::difference;
use super::faults::FaultCounts;
use super::files::Applied;
use super::journal::{self, Event, Journal, Note};
use super::keys::{
    self, Kind, applied_key, event_key, part_key, pipe_key, prepared_key, prepared_rows_key,
};
use super::lifecycle::{PipeEvent, PipeState};
use super::prepared::PreparedRecord;
use super::record::{Overlay, PipeRecord, Records, RowCounts, TableRecord, random_id};
use super::values::ValueCounts;
use crate::batch::TableName;
use crate::error::{Error, ErrorKind, Result};
use crate::state::{Entry, StateStore, Write};

/// The records with their revisions, and the state that the outside sees.
#[derive(Debug)]
pub struct PipeStore {
    store: Arc<StateStore>,
    pipe: String,
    /// The revisions of all keys written; held for the length of a commit.
    revisions: Arc<Mutex<BTreeMap<String, i64>>>,
    published: watch::Sender<Arc<Records>>,
    journal: Arc<Journal>,
    letters: Mutex<()>,
    /// Whether this process has claimed a term.
    claimed: AtomicBool,
}

impl PipeStore {
    /// Reads the pipe's records, or begins new ones in state Provisioning.
    ///
    /// # Errors
    /// When the store fails or holds damaged records.
    pub async fn open(store: Arc<StateStore>, pipe: &str) -> Result<Arc<Self>> {
        let (mut records, mut revisions) = (Records::default(), BTreeMap::new());
        let own: Option<Entry<PipeRecord>> = store.get(&pipe_key(pipe)).await?;
        if let Some(entry) = own {
            revisions.insert(pipe_key(pipe), entry.revision);
            records.pipe = Some(entry.value);
        }
        let applied: Option<Entry<Applied>> = store.get(&applied_key(pipe)).await?;
        if let Some(entry) = applied {
            revisions.insert(applied_key(pipe), entry.revision);
            records.applied = Some(Arc::new(entry.value));
        }
        let mut read = Reading {
            store: &store,
            pipe,
            revisions,
            moved: Vec::new(),
        };
        let key = |table: &TableRecord| keys::TABLES.of_table(pipe, table.source.name());
        for table in read.all(keys::TABLES, key).await? {
            let name = table.source.name().clone();
            records.tables.insert(name, Arc::new(table));
        }
        let key = |(name, part): &(TableName, u32)| part_key(pipe, name, *part);
        for (name, part) in read.all(keys::PARTS, key).await? {
            Arc::make_mut(records.done.entry(name).or_default()).insert(part);
        }
        let key = |(name, _): &(TableName, RowCounts)| keys::ROWS.of_table(pipe, name);
        records.rows = read.all(keys::ROWS, key).await?.into_iter().collect();
        let key = |(name, _): &(TableName, ValueCounts)| keys::VALUES.of_table(pipe, name);
        records.values = read.all(keys::VALUES, key).await?.into_iter().collect();
        let key = |(name, _): &(TableName, FaultCounts)| keys::FAULTS.of_table(pipe, name);
        records.faults = read.all(keys::FAULTS, key).await?.into_iter().collect();
        let key = |record: &PreparedRecord| prepared_key(pipe, &record.id);
        for record in read.all(keys::PREPARED, key).await? {
            records.prepared.insert(record.id.clone(), Arc::new(record));
        }
        if records.prepared.is_empty() {
            // Rows that were kept for records which never came to be.
            store.remove(&prepared_rows_key(pipe, "")).await?;
        }
        let key = |event: &Event| event_key(pipe, event.id);
        let events = read.all(keys::EVENTS, key).await?;
        let Reading {
            revisions, moved, ..
        } = read;
        store.write(moved).await?;
        Ok(Arc::new(Self {
            store,
            pipe: pipe.to_owned(),
            revisions: Arc::new(Mutex::new(revisions)),
            published: watch::Sender::new(Arc::new(records)),
            journal: Journal::new(events),
            letters: Mutex::default(),
            claimed: AtomicBool::new(false),
        }))
    }

    /// The pipe's name.
    pub fn pipe(&self) -> &str {
        &self.pipe
    }

    /// What the records are kept in.
    pub(super) fn state(&self) -> &Arc<StateStore> {
        &self.store
    }

    /// Keeps rows of a prepared XA transaction. They mean nothing until a record names them.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn keep_rows(&self, key: String, rows: Vec<u8>) -> Result<()> {
        let write = Write::bytes(prepared_rows_key(&self.pipe, &key), &rows);
        self.store.write(vec![write]).await
    }

    /// Rows that were kept.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn kept_rows(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self.store.bytes(&prepared_rows_key(&self.pipe, key)).await
    }

    /// A way to wait for the next commit.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Records>> {
        self.published.subscribe()
    }

    /// Waits until the records are so; false when stopped before.
    pub(super) async fn wait_until(
        &self,
        stop: &CancellationToken,
        wanted: impl FnMut(&Arc<Records>) -> bool,
    ) -> bool {
        let mut changed = self.subscribe();
        tokio::select! {
            // What is so already counts, also for one who is to stop.
            biased;
            found = changed.wait_for(wanted) => {
                found.expect("the store outlives its pipe");
                true
            }
            () = stop.cancelled() => false,
        }
    }

    /// Whether this process has claimed the term, and did not find it in the state.
    pub(super) fn has_claimed(&self) -> bool {
        self.claimed.load(Ordering::Relaxed)
    }

    /// The process has claimed the term.
    pub(super) fn set_claimed(&self) {
        self.claimed.store(true, Ordering::Relaxed);
    }

    /// Held while dead letters are sent again, and by whatever closes letters or exchanges the tables that they go to: a row
    /// that was sent too late would have nothing that outranks it.
    pub(super) fn letters(&self) -> &Mutex<()> {
        &self.letters
    }

    /// What has happened to the pipe.
    pub fn journal(&self) -> &Arc<Journal> {
        &self.journal
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
                claimant: None,
                anew: false,
                owner: random_id(),
                checkpoint: None,
                sent: None,
                begun: None,
                overlay: Overlay::default(),
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
        self.transition_with(event, |_| Ok(())).await
    }

    /// Edits the records and applies a lifecycle event, in one write.
    ///
    /// # Errors
    /// As [`PipeStore::transition`], or the edit's own; then nothing is changed.
    pub async fn transition_with(
        &self,
        event: PipeEvent,
        edit: impl FnOnce(&mut Records) -> Result<()>,
    ) -> Result<PipeState> {
        self.commit(|draft| {
            edit(draft)?;
            let record = draft.pipe_mut();
            record.state = record.state.clone().apply(event)?;
            Ok(record.state.clone())
        })
        .await
    }

    /// Edits the records and applies a lifecycle event, in one write, but only where the state still is as wanted: a
    /// command may have changed it since it was last looked at. False when nothing was done.
    ///
    /// # Errors
    /// As [`PipeStore::transition_with`].
    pub async fn transition_where(
        &self,
        wanted: impl Fn(&PipeState) -> bool,
        event: Option<PipeEvent>,
        edit: impl FnOnce(&mut Records) -> Result<()>,
    ) -> Result<bool> {
        self.commit(|draft| {
            if !wanted(&draft.state()) {
                return Ok(false);
            }
            edit(draft)?;
            if let Some(event) = event {
                let record = draft.pipe_mut();
                record.state = record.state.clone().apply(event)?;
            }
            Ok(true)
        })
        .await
    }

    /// Edits the records: all of the edit is on disk when this returns, or none of it. A caller that goes away in
    /// between leaves the write to finish by itself, so that memory and disk never part.
    ///
    /// # Errors
    /// The edit's own error, or the store's.
    pub async fn commit<T>(&self, edit: impl FnOnce(&mut Records) -> Result<T>) -> Result<T> {
        let revisions = Arc::clone(&self.revisions).lock_owned().await;
        let before = self.records();
        let mut draft = Records::clone(&before);
        let result = edit(&mut draft)?;
        let writes = difference(&self.pipe, &revisions, &before, &draft)?;
        let forgotten = forgotten_rows(&self.pipe, &before, &draft);
        if writes.is_empty() {
            return Ok(result);
        }
        let notes = match draft.dropped {
            true => Vec::new(),
            false => journal::transitions(&before, &draft),
        };
        let dropped = draft.dropped;
        self.write(revisions, writes, notes, Some(draft)).await?;
        // Whoever goes away before this leaves rows that nothing names, and the next opening removes.
        for prefix in forgotten {
            self.store.remove(&prefix).await?;
        }
        if dropped {
            self.forget_except(BTreeSet::new()).await?;
        }
        Ok(result)
    }

    /// Keeps bytes under their digest. Whoever records the digest does so after this.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn keep(&self, digest: &str, bytes: &[u8]) -> Result<()> {
        self.store.keep(&self.pipe, digest, bytes).await
    }

    /// The bytes that are kept under that digest.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn kept(&self, digest: &str) -> Result<Option<Vec<u8>>> {
        self.store.kept(&self.pipe, digest).await
    }

    /// Forgets all kept bytes but these.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn forget_except(&self, wanted: BTreeSet<String>) -> Result<()> {
        self.store.forget_except(&self.pipe, wanted).await
    }

    /// Writes an event that no change of the records tells of.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn note(&self, note: Note) -> Result<()> {
        let revisions = Arc::clone(&self.revisions).lock_owned().await;
        self.write(revisions, Vec::new(), vec![note], None).await
    }

    /// Writes records and events together, and only then shows them.
    async fn write(
        &self,
        mut revisions: OwnedMutexGuard<BTreeMap<String, i64>>,
        mut writes: Vec<(String, Write)>,
        notes: Vec<Note>,
        draft: Option<Records>,
    ) -> Result<()> {
        let (events, outdated) = self.journal.number(notes);
        let key = |id: u64| event_key(&self.pipe, id);
        for event in &events {
            let key = key(event.id);
            writes.push((key.clone(), Write::put(key, event, 0)?));
        }
        for key in outdated.into_iter().map(key) {
            let expected = revisions.get(&key).copied().unwrap_or(0);
            writes.push((key.clone(), Write::delete(key, expected)));
        }
        let (store, published) = (Arc::clone(&self.store), self.published.clone());
        let journal = Arc::clone(&self.journal);
        let write = tokio::spawn(async move {
            let keys: Vec<(String, bool)> = writes
                .iter()
                .map(|(key, write)| (key.clone(), write.is_delete()))
                .collect();
            store
                .write(writes.into_iter().map(|(_, write)| write).collect())
                .await?;
            for (key, deleted) in keys {
                match deleted {
                    true => drop(revisions.remove(&key)),
                    false => *revisions.entry(key).or_insert(0) += 1,
                }
            }
            if let Some(draft) = draft {
                published.send_replace(Arc::new(draft));
            }
            journal.publish(events);
            Ok::<(), Error>(())
        });
        write.await.map_err(|error| {
            Error::new(ErrorKind::Internal, "a state write panicked").with_source(error)
        })?
    }
}

/// A pipe's records, as they are read.
struct Reading<'a> {
    store: &'a Arc<StateStore>,
    pipe: &'a str,
    revisions: BTreeMap<String, i64>,
    /// Records that stand under the keys of an earlier version, which two tables could share.
    moved: Vec<Write>,
}

impl Reading<'_> {
    /// Every record of a kind, each of which belongs under that key.
    async fn all<T: Serialize + DeserializeOwned>(
        &mut self,
        kind: Kind,
        key: impl Fn(&T) -> String,
    ) -> Result<Vec<T>> {
        let prefix = kind.prefix(self.pipe);
        let mut all = Vec::new();
        for (found, Entry { value, revision }) in self.store.list(&prefix).await? {
            let wanted = key(&value);
            let revision = match found == wanted {
                true => revision,
                false => {
                    self.moved.push(Write::put(wanted.clone(), &value, 0)?);
                    self.moved.push(Write::delete(found, revision));
                    1
                }
            };
            self.revisions.insert(wanted, revision);
            all.push(value);
        }
        Ok(all)
    }
}

/// The rows that no record of the draft names any more, as prefixes of their keys.
fn forgotten_rows(pipe: &str, before: &Records, draft: &Records) -> Vec<String> {
    if draft.dropped {
        return vec![prepared_rows_key(pipe, "")];
    }
    let gone = before.prepared.keys();
    gone.filter(|id| !draft.prepared.contains_key(*id))
        .map(|id| prepared_rows_key(pipe, &format!("{id}/")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tables_whose_names_read_the_same_keep_records_of_their_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = StateStore::open(folder.path()).expect("it opens");
        let twins = [TableName::new("a", "b.c"), TableName::new("a.b", "c")];
        // As an earlier version wrote one of them.
        let rows = (&twins[1], RowCounts::default());
        let former = Write::put(format!("rows/shop/{}", twins[1]), &rows, 0).expect("a record");
        state.write(vec![former]).await.expect("it is written");
        for inserted in 1..4 {
            let store = PipeStore::open(Arc::clone(&state), "shop").await;
            let store = store.expect("it opens");
            store.begin(1).await.expect("a record");
            assert_eq!(
                store.records().rows.len(),
                if inserted == 1 { 1 } else { 2 }
            );
            let edit = |draft: &mut Records| {
                for (name, counts) in twins.iter().zip([inserted, 10 * inserted]) {
                    draft.rows.entry(name.clone()).or_default().inserted = counts;
                }
                Ok(())
            };
            store.commit(edit).await.expect("both are written");
        }
        let store = PipeStore::open(state, "shop").await.expect("it opens");
        let rows = store.records();
        let counts = twins.map(|name| rows.rows[&name].inserted);
        assert_eq!(counts, [3, 30]);
    }

    #[tokio::test]
    async fn records_of_earlier_versions_of_the_state_are_read() {
        for (version, folder) in crate::state::earlier() {
            let state = StateStore::open(folder.path()).expect("it opens");
            let store = PipeStore::open(state, "pw_5324_1").await;
            let store = store.unwrap_or_else(|error| panic!("{version}: {}", error.chain()));
            let records = store.records();
            assert!(records.pipe.is_some(), "{version}");
            assert_eq!(records.tables.len(), 2, "{version}");
            for table in records.tables.values() {
                assert_eq!(table.targets().count(), 1, "{version}");
            }
        }
    }
}
