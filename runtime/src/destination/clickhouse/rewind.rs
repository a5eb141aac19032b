//! Taking out of append tables what was written beyond a checkpoint, before it is written again under other versions.
//!
//! ClickHouse rewrites the parts that have such rows in the background. A statement that waited for it would end with the
//! connection, however near it was, so the rows are counted instead until none is left.

use std::time::{Duration, Instant};

use serde::Deserialize;

use super::client::{ClickHouse, STATEMENT_TIMEOUT};
use super::ddl;
use super::failure::Doing;
use super::target::TargetTable;
use crate::batch::Version;
use crate::error::{Error, ErrorKind, Result};

/// How long the rows may stay as many as they are: one part is rewritten at a time, of up to 150 GB
/// (`max_bytes_to_merge_at_max_space_in_pool`).
const PATIENCE: Duration = Duration::from_secs(6 * 3600);

/// The same where ClickHouse says that it fails, which it tries again by itself.
const PATIENCE_FAILING: Duration = Duration::from_secs(300);

/// How often it is looked how many are left, and how often that is told.
const POLL: Duration = Duration::from_millis(200);
const TELL: Duration = Duration::from_secs(30);

const DOING: Doing<'static> = Doing::Definition("to take out rows that are written again");

fn delete_above(target: &TargetTable, version: Version) -> String {
    format!(
        "ALTER TABLE {} DELETE WHERE {} SETTINGS mutations_sync = 0",
        ddl::table(target),
        above(target, version)
    )
}

fn count_above(target: &TargetTable, version: Version) -> String {
    format!(
        "SELECT count() AS rows FROM {} WHERE {}",
        ddl::table(target),
        above(target, version)
    )
}

fn above(target: &TargetTable, version: Version) -> String {
    let ours = ddl::ident(&target.system_columns().version);
    format!("{ours} > {}", version.get())
}

/// The alterations of the table's rows that are not done, and why the newest that failed did.
fn unfinished(target: &TargetTable) -> String {
    format!(
        "SELECT count() AS count, argMax(latest_fail_reason, latest_fail_time) AS failure FROM system.mutations \
         WHERE database = {} AND table = {} AND NOT is_done",
        ddl::text(target.database()),
        ddl::text(target.name())
    )
}

#[derive(Deserialize)]
struct CountRow {
    rows: u64,
}

#[derive(Deserialize)]
pub(super) struct UnfinishedRow {
    pub(super) count: u64,
    pub(super) failure: String,
}

impl ClickHouse {
    /// Takes out of an append table what was written beyond `version`, and ends what is still on its way. Repeatable. It
    /// waits for as long as rows go.
    ///
    /// # Errors
    /// `DestinationUnavailable` when they go no more, else as any statement.
    pub async fn rewind(&self, target: &TargetTable, version: Version) -> Result<()> {
        let tag = |error: Error| error.with_table(target.source());
        if self.inspect(target.name()).await.map_err(tag)?.is_none() {
            return Ok(());
        }
        self.end_outstanding_changes(target.name())
            .await
            .map_err(tag)?;
        self.forget_known(target);
        self.take_out_above(target, version).await.map_err(tag)
    }

    async fn take_out_above(&self, target: &TargetTable, version: Version) -> Result<()> {
        let mut fewest = u64::MAX;
        let mut asked = false;
        let (mut progress, mut told) = (Instant::now(), Instant::now());
        loop {
            // Before the rows are counted: what is done by now is not among them.
            let unfinished = self.unfinished(target).await?;
            let rows = self.rows_above(target, version).await?;
            if rows == 0 {
                return Ok(());
            }
            if rows < fewest {
                (fewest, progress) = (rows, Instant::now());
            }
            // One that an earlier attempt has asked for goes on by itself.
            let is_under_way = match &unfinished {
                Some(unfinished) => unfinished.count > 0,
                None => asked,
            };
            if !is_under_way {
                let sql = delete_above(target, version);
                self.run(&sql, DOING, STATEMENT_TIMEOUT).await?;
                asked = true;
            }
            let failure = unfinished.map(|row| row.failure).unwrap_or_default();
            let patience = match failure.is_empty() {
                true => PATIENCE,
                false => PATIENCE_FAILING,
            };
            if progress.elapsed() > patience {
                return Err(stuck(target, rows, failure));
            }
            if told.elapsed() > TELL {
                told = Instant::now();
                tracing::info!(table = %target.source(), rows, "waiting until rows are taken out that are written again");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn rows_above(&self, target: &TargetTable, version: Version) -> Result<u64> {
        let rows: Vec<CountRow> = self.rows(&count_above(target, version), DOING).await?;
        Ok(rows.first().map_or(0, |row| row.rows))
    }

    /// None where the account may not look.
    pub(super) async fn unfinished(&self, target: &TargetTable) -> Result<Option<UnfinishedRow>> {
        match self.rows(&unfinished(target), DOING).await {
            Ok(rows) => Ok(rows.into_iter().next()),
            Err(error) if error.kind() == ErrorKind::DestinationDenied => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn stuck(target: &TargetTable, rows: u64, failure: String) -> Error {
    let error = Error::new(
        ErrorKind::DestinationUnavailable,
        format!(
            "{rows} rows of {} are to be written again, and ClickHouse does not take them out",
            ddl::table(target)
        ),
    )
    .with_hint("look at system.mutations, and whether merges are stopped: SYSTEM START MERGES");
    match failure.is_empty() {
        true => error,
        false => error.with_source(failure),
    }
}
