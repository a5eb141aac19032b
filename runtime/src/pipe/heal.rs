//! Rows that the storage engine changes for a foreign key, and that no binlog has (pitfall 99).
//!
//! With `cascades: reload` a table is marked in the write that moves the checkpoint past a change of its parent, and
//! tables that refer to it in turn are marked as well. A change whose event says that the server has carried out, and so
//! logged, what follows marks none. A marked table may differ from the source, says so, and is loaded anew when no load
//! is running; the load begins after the change, so it shows whatever that has led to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::clock::now_us;
use super::command::Command;
use super::ddl::Fate;
use super::lifecycle::{Failure, PipeState};
use super::record::Records;
use super::session::Session;
use super::supervisor::Pipe;
use crate::batch::TableName;
use crate::config::Cascades;
use crate::error::{ErrorKind, Result};
use crate::source::mysql::binlog::ddl::Cascade;
use crate::source::mysql::cascades::unlogged_cascades;

/// How often marked tables are looked for: changes of a parent come in bursts, and one load serves them all.
const HEAL_INTERVAL: Duration = Duration::from_secs(10);

/// Changes of a table's rows behind which rows of other tables may have followed in silence.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Silent {
    pub(super) updates: bool,
    pub(super) deletes: bool,
}

/// The cascading foreign keys of a pipe's tables, by the table whose rows change.
#[derive(Debug, Default)]
pub(super) struct Kinship(BTreeMap<TableName, Vec<Cascade>>);

impl Kinship {
    /// Reads them, where the pipe file wants them healed.
    ///
    /// # Errors
    /// Whatever the source fails with.
    pub(super) async fn read(session: &Session, records: &Records) -> Result<Self> {
        if session.config.cascades == Cascades::Warn {
            return Ok(Self::default());
        }
        let names = records.names_where(|table| table.state.is_in_stream());
        let mut conn = session.source.control().await?;
        let found = unlogged_cascades(&mut conn, &names).await;
        conn.disconnect().await.ok();
        Ok(Self(found?))
    }

    /// The tables whose rows may have followed `changes` of `parent`.
    fn reached(&self, parent: &TableName, changes: Silent) -> BTreeSet<TableName> {
        let mut reached = BTreeSet::new();
        let mut next = vec![(parent.clone(), changes.deletes, changes.updates)];
        while let Some((parent, deleted, updated)) = next.pop() {
            for (child, cascades) in &self.0 {
                let follows = cascades.iter().any(|cascade| {
                    cascade.parent == parent
                        && ((cascade.on_delete && deleted) || (cascade.on_update && updated))
                });
                if follows && reached.insert(child.clone()) {
                    // What became of its rows, deleted or updated, is not told.
                    next.push((child.clone(), true, true));
                }
            }
        }
        reached
    }

    /// Marks the tables whose rows may have followed `changes` of `parent`.
    pub(super) fn mark(&self, draft: &mut Records, parent: &TableName, changes: Silent) {
        if self.0.is_empty() {
            return;
        }
        for child in self.reached(parent, changes) {
            if draft.tables.get(&child).is_none_or(|table| table.cascaded) {
                continue;
            }
            let table = draft.table_mut(&child);
            table.cascaded = true;
            table.inexact = Some(Failure {
                kind: ErrorKind::SchemaConflict,
                message: format!(
                    "table `{child}`: rows may have followed a foreign key to `{parent}`, which no binlog tells"
                ),
                table: Some(child.clone()),
                remedy: Some("wait: the table is loaded anew by itself".to_owned()),
                at_us: Some(now_us()),
            });
        }
    }
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
