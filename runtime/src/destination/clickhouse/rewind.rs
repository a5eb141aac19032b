//! Taking out of append tables what was written beyond a checkpoint, before it is written again under other versions.
//!
//! The rows are counted until none is left.

use std::time::Instant;

use serde::Deserialize;

use super::client::{ClickHouse, STATEMENT_TIMEOUT};
use super::ddl;
use super::failure::Doing;
use super::mutations::{POLL, TELL, stuck};
use super::target::TargetTable;
use crate::batch::Version;
use crate::error::{Error, Result};

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

#[derive(Deserialize)]
struct CountRow {
    rows: u64,
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
            if progress.elapsed() > unfinished.unwrap_or_default().patience() {
                return Err(stuck(format!(
                    "{rows} rows of {} are to be written again, and ClickHouse does not take them out",
                    ddl::table(target)
                )));
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
}
