//! Rows on their way into a table: one insert for a flush, answered only when it is durable.
//!
//! An insert whose answer is lost may or may not have happened, and its server may still be working on it. Both are
//! harmless: the caller sends the same rows again, and equal versions are equal rows. For tables where they are not
//! harmless see [`super::append`].

use std::time::Duration;

use super::client::ClickHouse;
use super::failure::{Doing, silent};
use super::outstanding::{change_id, query_id};
use super::target::TargetTable;
use super::{ddl, encode};
use crate::batch::{Adjustment, ChangeBatch, Version};
use crate::config::Engine;
use crate::error::{Error, ErrorKind, Result};

/// How long the connection may take no further piece: longer than any pause of a server that lives.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the answer may take after the last piece; it includes materialized views that hang on the table.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);

/// How long the tombstones of a TRUNCATE may take: every live row is read and written again.
const TOMBSTONE_TIMEOUT: Duration = Duration::from_secs(6 * 3600);

/// Settings of every insert; the reasons are the traps 6 to 8 of silent changes by defaults.
pub(super) const SETTINGS: &[(&str, &str)] = &[
    // 1 by default: an answer would mean "accepted".
    ("async_insert", "0"),
    // A missing column or a NULL is an error, never a default.
    ("input_format_null_as_default", "0"),
    ("insert_null_as_default", "0"),
    ("input_format_arrow_allow_missing_columns", "0"),
    ("input_format_skip_unknown_fields", "0"),
    ("input_format_defaults_for_omitted_fields", "1"),
    // One insert, one block, so that it is there whole or not at all in each partition.
    ("max_insert_block_size", "1000000000"),
    ("min_insert_block_size_rows", "1000000000"),
    ("min_insert_block_size_bytes", "0"),
    ("max_insert_threads", "1"),
    ("max_partitions_per_insert_block", "0"),
    // Versions make a repetition harmless; a block that is taken for a repetition and dropped may since have been lost.
    ("insert_deduplicate", "0"),
    ("wait_end_of_query", "1"),
];

/// The proof of a durable write. Only this module can make one, and a checkpoint is mirrored only against it.
#[derive(Debug)]
#[must_use = "a durable write that nobody takes note of is written again after a restart"]
pub struct Durable {
    rows: u64,
    bytes: u64,
    adjustments: Vec<Vec<Adjustment>>,
}

impl Durable {
    /// Where there was nothing to write.
    pub(super) fn of_no_rows() -> Self {
        Self::of_letters(0, 0)
    }

    /// Of dead letters, which are in no target.
    pub(super) fn of_letters(rows: u64, bytes: u64) -> Self {
        Self {
            rows,
            bytes,
            adjustments: Vec::new(),
        }
    }

    /// Rows written.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes sent.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What declared policies changed in the rows of the `batch`-th batch that was given.
    pub fn adjustments(&self, batch: usize) -> &[Adjustment] {
        self.adjustments.get(batch).map_or(&[], Vec::as_slice)
    }
}

impl ClickHouse {
    /// Writes all of `batches` with one insert. Any number of calls may run at once, also on one table. Repeating a call
    /// changes nothing. After `Ok` the rows are durable as the table's settings promise; after `Err` they may be there,
    /// and the caller sends them again.
    ///
    /// # Errors
    /// `DestinationUnavailable` for what passes, a lost answer among it; `DestinationDenied`; `DestinationRejected` for a
    /// target that was changed; `Unsupported` for a key value that the target cannot hold.
    pub async fn insert(&self, target: &TargetTable, batches: &[ChangeBatch]) -> Result<Durable> {
        match target.engine() {
            Engine::Replacing => self.send(target, batches, None).await,
            Engine::Append => self.append(target, batches).await,
        }
    }

    /// Sends the rows. Those of an insert with a `token` are passed over when the server has had the same one lately.
    pub(super) async fn send(
        &self,
        target: &TargetTable,
        batches: &[ChangeBatch],
        token: Option<&str>,
    ) -> Result<Durable> {
        let prepared = encode::prepare(target, batches)?;
        let with_system = prepared.with_system;
        let mut durable = Durable {
            rows: prepared.row_count,
            bytes: 0,
            adjustments: prepared.adjustments.clone(),
        };
        if durable.rows == 0 {
            return Ok(durable);
        }
        let pieces = if self.compresses() {
            // Compressing takes a while; without, nothing but the frames is made.
            tokio::task::spawn_blocking(move || prepared.into_stream(true))
                .await
                .map_err(|error| {
                    Error::new(ErrorKind::Internal, "the encoder broke off").with_source(error)
                })??
        } else {
            prepared.into_stream(false)?
        };
        durable.bytes = pieces.iter().map(|piece| piece.len() as u64).sum();
        let doing = Doing::Rows("an insert", target);
        let claim = self.condition(target);
        let mut insert = self
            .client()
            .insert_formatted_with(ddl::insert(target, with_system, claim.as_deref()))
            .with_timeouts(Some(SEND_TIMEOUT), Some(ANSWER_TIMEOUT));
        for (name, value) in SETTINGS {
            insert = insert.with_setting(*name, *value);
        }
        insert = match token {
            None => insert.with_setting("query_id", query_id(target.database(), target.name())),
            Some(token) => insert
                .with_setting("query_id", change_id(target.database(), target.name()))
                .with_setting("insert_deduplicate", "1")
                .with_setting("insert_deduplication_token", token),
        };
        let sent = async {
            for piece in pieces {
                insert.send(piece).await?;
            }
            insert.end().await
        };
        match sent.await {
            Ok(()) => Ok(durable),
            Err(error) => Err(self.why_refused(target, self.failed(error, doing)).await),
        }
    }

    /// TRUNCATE of the source at `version`: a tombstone of that version for every row that lives below it. Repeating it
    /// writes nothing more. The caller has everything below `version` durably written, and nothing of its own in flight
    /// on this table.
    ///
    /// # Errors
    /// As [`ClickHouse::insert`].
    pub async fn tombstone_below(&self, target: &TargetTable, version: Version) -> Result<Durable> {
        let doing = Doing::Rows("the tombstones of a TRUNCATE", target);
        self.end_outstanding(target.name())
            .await
            .map_err(|error| error.with_table(target.source()))?;
        let mut sql = ddl::tombstone_below(target, version);
        if let Some(claim) = self.condition(target) {
            sql.push_str(&format!("\nWHERE {claim}"));
        }
        match self.copy_rows(target, &sql, doing).await {
            Err(error) => Err(self.why_refused(target, error).await),
            copied => copied,
        }
    }

    /// Copies every row that lives below `version` into the table `name`, which is like `target`, with the values of
    /// `columns`. Repeatable.
    ///
    /// # Errors
    /// As [`ClickHouse::insert`].
    pub(super) async fn copy_below(
        &self,
        target: &TargetTable,
        name: &str,
        columns: &str,
        version: Version,
    ) -> Result<Durable> {
        let doing = Doing::Rows("the copy of a table", target);
        let sql = ddl::copy_below(target, name, columns, version);
        self.copy_rows(target, &sql, doing).await
    }

    async fn copy_rows(
        &self,
        target: &TargetTable,
        sql: &str,
        doing: Doing<'_>,
    ) -> Result<Durable> {
        let query = self
            .client()
            .query_raw(sql)
            .with_setting("query_id", query_id(target.database(), target.name()))
            .with_setting("async_insert", "0")
            .with_setting("insert_deduplicate", "0")
            .with_setting("max_partitions_per_insert_block", "0")
            .with_setting("wait_end_of_query", "1");
        match tokio::time::timeout(TOMBSTONE_TIMEOUT, query.execute()).await {
            Ok(Ok(())) => Ok(Durable::of_no_rows()),
            Ok(Err(error)) => Err(self.failed(error, doing)),
            Err(_) => Err(silent(self.url()).with_table(target.source())),
        }
    }
}
