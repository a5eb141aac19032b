//! Rows that the storage engine changes for a foreign key, and that no binlog has (pitfall 99).
//!
//! With `cascades: reload` a table is marked in the write that moves the checkpoint past a change of its parent, and
//! tables that refer to it in turn are marked as well, also through tables outside of the pipe. Events that are passed
//! over mark too: the load of the parent has them, its children's targets have not what followed. So does a parent that
//! comes back after it was out of service. Of updates those mark that may have changed a column which a key refers to;
//! of updates that are passed over, all. A change whose event says that the server has carried out, and so
//! logged, what follows marks none. A marked table may differ from the source, says so, and is loaded anew when no load
//! is running; the load begins after the change, so it shows whatever that has led to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::clock::now_us;
use super::command::Command;
use super::ddl::{Fate, is_ghost};
use super::journal::{EventKind, Level, Note};
use super::lifecycle::{Failure, PipeState};
use super::record::Records;
use super::session::Session;
use super::store::PipeStore;
use super::supervisor::Pipe;
use crate::batch::TableName;
use crate::config::{Cascades, Mode};
use crate::error::{ErrorKind, Result};
use crate::source::mysql::binlog::ddl::{Alter, Cascade, Class, Clause, cascades};
use crate::source::mysql::binlog::{Statement, Watched};
use crate::source::mysql::cascades::unlogged_cascades;
use crate::source::mysql::catalog::SourceTable;
use crate::source::mysql::position::{Position, StreamPlace};
use crate::source::mysql::snapshot;

/// How often marked tables are looked for: changes of a parent come in bursts, and one load serves them all.
const HEAL_INTERVAL: Duration = Duration::from_secs(10);

/// Changes of a table's rows behind which rows of other tables may have followed in silence.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Silent {
    pub(super) updates: bool,
    pub(super) deletes: bool,
}

impl Silent {
    /// Any change may have been among them.
    pub(super) const ANY: Self = Self {
        updates: true,
        deletes: true,
    };
}

/// The cascading foreign keys of a pipe's tables, and of those outside of it that they refer to, by the table whose rows
/// change. One that goes is kept until the next run, since rows of before may be read behind it.
#[derive(Debug, Default)]
pub(super) struct Kinship {
    /// By parent.
    known: Mutex<BTreeMap<TableName, Parent>>,
    learned: AtomicU64,
    /// Up to where the catalog had got when it was read: it does not show what statements before that have taken away.
    shown_at: Option<Position>,
    /// The pipe's, by which a table is loaded anew by itself or not.
    mode: Mode,
}

/// A table that others follow.
#[derive(Debug, Default)]
struct Parent {
    /// What each table follows of its changes.
    followers: BTreeMap<TableName, Silent>,
    /// The columns whose updates they follow, in lower case.
    columns: BTreeSet<String>,
    /// It is not known which columns those are.
    any_column: bool,
}

impl Kinship {
    /// Reads them, where the pipe file wants them healed.
    ///
    /// # Errors
    /// Whatever the source fails with.
    pub(super) async fn read(session: &Session, records: &Records) -> Result<Self> {
        if session.config.cascades == Cascades::Warn {
            return Ok(Self::default());
        }
        // Also those that are out of service: what follows meanwhile is in no stream that brings them back.
        let names = records.carried();
        let mut conn = session.source.control().await?;
        let found = unlogged_cascades(&mut conn, &names).await;
        conn.disconnect().await.ok();
        let found = found?;
        let by = session.config.source.position;
        let kinship = Self {
            known: Mutex::default(),
            learned: AtomicU64::default(),
            shown_at: Some(snapshot::newest_place(&session.source, by).await?),
            mode: session.config.mode,
        };
        kinship.take_in(found.cascades);
        // Names of a definition that the stream has not come to yet may be those of other columns there.
        kinship.lose_columns_of(|parent| {
            let record = records.tables.get(parent);
            let known =
                record.map(|record| record.source.columns.iter().map(|column| &column.name));
            !known.is_some_and(|known| found.columns.get(parent).into_iter().flatten().eq(known))
        });
        Ok(kinship)
    }

    /// From now on every update of these parents counts.
    fn lose_columns_of(&self, is_lost: impl Fn(&TableName) -> bool) {
        let mut known = self.known();
        for (_, parent) in known.iter_mut().filter(|(name, _)| is_lost(name)) {
            if !parent.any_column {
                parent.any_column = true;
                self.learned.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// The columns of a table whose updates are followed by rows of others.
    pub(super) fn followed_columns(&self, table: &SourceTable) -> Watched {
        let known = self.known();
        let Some(parent) = known.get(table.name()) else {
            return Watched::default();
        };
        let place = |name: &String| {
            let mut columns = table.columns.iter();
            columns.position(|column| column.name.to_lowercase() == *name)
        };
        let places: Option<Vec<usize>> = parent.columns.iter().map(place).collect();
        match places {
            Some(places) if !parent.any_column => Watched::Columns(places),
            _ => Watched::Any,
        }
    }

    /// Takes in what a statement says of foreign keys; by its text, since the catalog may be ahead of it.
    ///
    /// # Errors
    /// Whatever the source or the store fails with.
    pub(super) async fn learn(
        &self,
        session: &Session,
        store: &PipeStore,
        statement: &Statement,
    ) -> Result<()> {
        let text = statement.text.to_ascii_uppercase();
        let unseen = self.unseen(statement, &text);
        if !unseen.is_empty() {
            let marked = store.commit(|draft| {
                let key = "a foreign key as it was before the pipe went on";
                self.mark_each(draft, key, &unseen, Some(&statement.end));
                Ok(())
            });
            marked.await?;
        }
        let table = match &statement.class {
            Class::AlterTable { table, alter } => {
                self.lose_columns_of(|parent| parent == table && names_anew(alter));
                table
            }
            Class::CreateTable { table, .. } => {
                self.lose_columns_of(|parent| parent == table);
                table
            }
            Class::RenameTable(_) => {
                self.lose_columns_of(|_| true);
                return Ok(());
            }
            _ => return Ok(()),
        };
        if !text.contains("REFERENCES") || !store.records().tables.contains_key(table) {
            return Ok(());
        }
        let said = cascades(&table.database, &statement.text);
        let warns = session.config.cascades == Cascades::Warn;
        // Names that a session has quoted as ANSI does are not read from the text.
        let may_follow = || text.contains("CASCADE") || text.contains("SET NULL");
        let asks = !warns || (said.is_empty() && may_follow());
        let mut found = BTreeMap::new();
        if asks {
            let mut conn = session.source.control().await?;
            let shown = unlogged_cascades(&mut conn, [table]).await;
            conn.disconnect().await.ok();
            found = shown?.cascades;
        }
        if warns {
            let mut own = said.iter().chain(found.get(table).into_iter().flatten());
            let Some(first) = own.next() else {
                return Ok(());
            };
            let text = format!(
                "a foreign key has come: rows of `{table}` change with those of `{}`, which no binlog may tell; set `cascades: reload`",
                first.parent
            );
            tracing::warn!(pipe = store.pipe(), table = %table, "{text}");
            let note = Note::new(Level::Warning, EventKind::Transition, text).of_table(table);
            return store.note(note).await;
        }
        self.take_in(found.into_iter().chain([(table.clone(), said)]));
        Ok(())
    }

    /// Tables whose rows may have followed changes before the statement, by a key that it changes: the catalog that was read
    /// has the key, or the names in it, only as they are behind it.
    fn unseen(&self, statement: &Statement, text: &str) -> BTreeSet<TableName> {
        let mut unseen = BTreeSet::new();
        let shown = self.shown_at.as_ref();
        if shown.and_then(|shown| shown.contains(&statement.end.position)) != Some(true) {
            return unseen;
        }
        let mut follow = |parent: &TableName| unseen.extend(self.reached(parent, Silent::ANY));
        match &statement.class {
            Class::AlterTable { table, alter } => {
                if names_anew(alter) {
                    // A table of another name has its followers under that.
                    statement.tables.iter().for_each(&mut follow);
                }
                if takes_key(text) {
                    follow(table);
                    unseen.insert(table.clone());
                }
            }
            Class::RenameTable(pairs) => {
                pairs.iter().for_each(|(_, to)| follow(to));
                // What a tool puts in a table's place may have its keys no more.
                let ghosts = pairs.iter().filter(|(from, to)| is_ghost(pairs, from, to));
                unseen.extend(
                    ghosts
                        .map(|(_, to)| to.clone())
                        .filter(|to| !self.follows(to)),
                );
            }
            _ => {}
        }
        unseen
    }

    /// Whether rows of the table are known to follow others.
    fn follows(&self, child: &TableName) -> bool {
        let known = self.known();
        known
            .values()
            .any(|parent| parent.followers.contains_key(child))
    }

    /// Adds what is not known yet.
    pub(super) fn take_in(&self, found: impl IntoIterator<Item = (TableName, Vec<Cascade>)>) {
        let mut known = self.known();
        for (child, cascades) in found {
            for cascade in cascades {
                let parent = known.entry(cascade.parent).or_default();
                let follows = parent.followers.entry(child.clone()).or_default();
                follows.updates |= cascade.on_update;
                follows.deletes |= cascade.on_delete;
                if cascade.on_update {
                    parent.any_column |= cascade.columns.is_empty();
                    let columns = cascade.columns.iter();
                    parent
                        .columns
                        .extend(columns.map(|name| name.to_lowercase()));
                }
            }
        }
        self.learned.fetch_add(1, Ordering::Relaxed);
    }

    /// How often something was added; counted before anybody else can read it.
    pub(super) fn learned(&self) -> u64 {
        self.learned.load(Ordering::Relaxed)
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<TableName, Parent>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tables whose rows may have followed `changes` of `parent`.
    pub(super) fn reached(&self, parent: &TableName, changes: Silent) -> BTreeSet<TableName> {
        let known = self.known();
        let mut reached = BTreeSet::new();
        let mut next = vec![(parent.clone(), changes)];
        while let Some((parent, changes)) = next.pop() {
            let followers = known.get(&parent).map(|parent| &parent.followers);
            for (child, follows) in followers.into_iter().flatten() {
                let is_reached =
                    (follows.deletes && changes.deletes) || (follows.updates && changes.updates);
                if is_reached && reached.insert(child.clone()) {
                    // What became of its rows, deleted or updated, is not told.
                    next.push((child.clone(), Silent::ANY));
                }
            }
        }
        reached
    }

    /// Marks the tables whose rows may have followed `changes` of `parent`, which came before `at` where that is known.
    pub(super) fn mark(
        &self,
        draft: &mut Records,
        parent: &TableName,
        changes: Silent,
        at: Option<&StreamPlace>,
    ) {
        self.mark_each(draft, &key_to(parent), &self.reached(parent, changes), at);
    }

    /// The same for tables that are known to have followed `key`.
    pub(super) fn mark_each(
        &self,
        draft: &mut Records,
        key: &str,
        followers: &BTreeSet<TableName>,
        at: Option<&StreamPlace>,
    ) {
        for child in followers {
            let Some(record) = draft.tables.get(child) else {
                continue;
            };
            // A load that begins behind the changes has what followed them. One that has read by itself got to its place
            // without.
            let begins = record.place.as_ref().filter(|own| own.term.is_none());
            let begins = begins.filter(|_| record.state.is_loading());
            let own = begins.zip(at);
            let is_ahead = own
                .is_some_and(|(own, at)| own.place.position.contains(&at.position) == Some(true));
            if record.cascaded || is_ahead {
                continue;
            }
            let remedy = match self.mode {
                Mode::Cdc => "wait: the table is loaded anew by itself".to_owned(),
                Mode::Snapshot => {
                    "`mode: snapshot` loads nothing twice by itself; once the pipe is Completed: pipewright resync PIPE"
                        .to_owned()
                }
                Mode::CdcOnly => format!(
                    "`mode: cdc_only` loads nothing by itself; resync the table: pipewright resync --table {child}"
                ),
            };
            let table = draft.table_mut(child);
            table.cascaded = true;
            table.inexact = Some(Failure {
                kind: ErrorKind::SchemaConflict,
                message: format!(
                    "table `{child}`: rows may have followed {key}, which no binlog tells"
                ),
                table: Some(child.clone()),
                remedy: Some(remedy),
                at_us: Some(now_us()),
            });
        }
    }
}

/// Whether the table or columns of it have other names by the statement.
fn names_anew(alter: &Alter) -> bool {
    alter.clauses.iter().any(|clause| match clause {
        Clause::RenameTable | Clause::Rename(..) => true,
        Clause::Change(from, to, _) => from != to,
        _ => false,
    })
}

/// Whether the text of an ALTER TABLE, in upper case, takes a foreign key away, or may.
fn takes_key(text: &str) -> bool {
    let words: Vec<&str> = text.split_whitespace().collect();
    words
        .windows(2)
        .any(|pair| matches!(pair, [drop, "FOREIGN" | "CONSTRAINT"] if drop.ends_with("DROP")))
}

/// What rows of others follow the table by.
pub(super) fn key_to(parent: &TableName) -> String {
    format!("a foreign key to `{parent}`")
}

/// Has marked tables loaded anew, until `stop`.
///
/// # Errors
/// Whatever the supervisor refuses with.
pub(super) async fn heal(pipe: Arc<Pipe>, stop: CancellationToken) -> Result<()> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(HEAL_INTERVAL) => {}
        }
        let records = pipe.store.records();
        if pipe.effective_config()?.mode == Mode::CdcOnly {
            stop.cancelled().await;
            return Ok(());
        }
        if !matches!(records.state(), PipeState::Running | PipeState::Degraded) {
            continue;
        }
        let marked = records.names_where(|table| table.cascaded && table.state.is_in_stream());
        if marked.is_empty() {
            continue;
        }
        let fates = marked
            .into_iter()
            .map(|name| (name, Fate::Reload))
            .collect();
        let command = Command::FollowStatement { fates, end: None };
        let answer = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            answer = pipe.ask(command) => answer,
        };
        match answer {
            // Another change came first.
            Err(error) if error.kind() == ErrorKind::IllegalCommand => {}
            answer => answer?,
        }
    }
}

#[cfg(test)]
#[path = "heal_tests.rs"]
mod tests;
