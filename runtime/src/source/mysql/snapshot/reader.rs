//! One partition's rows, as packets.

use super::super::Source;
use super::super::catalog::SourceTable;
use super::super::position::Position;
use super::super::sql::{quote_identifier, quote_table};
use super::super::wire::{KillHandle, ServerError, WireConn};
use super::proof::{BACK_TO_SAVEPOINT, prove_executed};
use super::{Partition, SnapshotSession};
use crate::batch::TableName;
use crate::error::{Error, ErrorKind, Result};

/// Reads partitions, one after the other, over one proved session. The caller pulls: between two calls of
/// [`PartitionReader::next_rows`] it may wait for room downstream, and the server waits with it.
#[derive(Debug)]
pub struct PartitionReader {
    conn: WireConn,
    table: Option<TableName>,
    reads_one_moment: bool,
}

impl PartitionReader {
    /// A reader over a session that has proved the load's start place.
    pub fn new(session: SnapshotSession) -> PartitionReader {
        let (conn, reads_one_moment) = session.into_parts();
        PartitionReader {
            conn,
            table: None,
            reads_one_moment,
        }
    }

    /// The partition is read whole: on MySQL, lets a statement go that waits to change the table. A session in a snapshot
    /// would keep it waiting until the last partition. What it does to the table shows in the next SELECT, or in the binlog.
    ///
    /// # Errors
    /// As [`PartitionReader::start`].
    pub async fn release(&mut self) -> Result<()> {
        if !self.reads_one_moment {
            return Ok(());
        }
        let released = self.conn.query_ok(BACK_TO_SAVEPOINT).await;
        released.map_err(|error| self.explain(error))
    }

    /// Sends the SELECT of a partition: the included columns by name, in the schema's order.
    ///
    /// # Errors
    /// `SchemaConflict` when the table has changed since its definition was read, `SourceMissing` when it is gone; a
    /// broken connection.
    pub async fn start(&mut self, table: &SourceTable, partition: &Partition) -> Result<()> {
        self.table = Some(table.name().clone());
        let sql = select(table, partition);
        let result = self.conn.execute(&sql).await;
        let columns = result.map_err(|error| self.explain(error))?;
        let expected = table.schema.columns.len().max(1);
        if columns != expected {
            return Err(Error::new(
                ErrorKind::SourceCorrupt,
                format!("{columns} columns came where {expected} were asked for"),
            )
            .with_table(table.name()));
        }
        let included = table
            .columns
            .iter()
            .filter_map(|column| Some((column, column.included?)));
        for (column, index) in included {
            let definition = self.conn.definitions().get(index);
            if definition.is_some_and(|definition| !definition.fits(column)) {
                return Err(Error::new(
                    ErrorKind::SchemaConflict,
                    format!(
                        "column `{}` is of another type than as recorded",
                        column.name
                    ),
                )
                .with_hint("the table's definition changed while it was read: load the table anew")
                .with_table(table.name()));
            }
        }
        Ok(())
    }

    /// Waits until what this session selects shows everything up to `place`.
    ///
    /// # Errors
    /// As [`SnapshotSession::open`].
    pub async fn prove_executed(&mut self, source: &Source, place: &Position) -> Result<()> {
        prove_executed(&mut self.conn, source, place).await
    }

    /// Hands the rows that have arrived to `on_row`, waiting for the first; false when the partition is read whole. A
    /// row is its packet's whole payload: the byte 0, the NULL bitmap, the values of the schema's columns in order.
    /// Cancel safe.
    ///
    /// # Errors
    /// Of `on_row`; as [`PartitionReader::start`].
    pub async fn next_rows<F>(&mut self, on_row: F) -> Result<bool>
    where
        F: FnMut(&[u8]) -> Result<()>,
    {
        let result = self.conn.next_rows(on_row).await;
        result.map_err(|error| self.explain(error))
    }

    /// What ends the running SELECT from outside.
    pub fn kill_handle(&self) -> KillHandle {
        self.conn.kill_handle()
    }

    /// Ends the session. A SELECT that is still running is killed at the server, which would otherwise notice only when
    /// it next writes.
    pub async fn close(self) {
        if self.conn.is_reading() {
            let handle = self.conn.kill_handle();
            drop(self.conn);
            if let Err(error) = handle.kill_query().await {
                tracing::debug!(error = %error.chain(), "the abandoned SELECT was not killed");
            }
        } else {
            self.conn.quit().await;
        }
    }

    /// Names the table, and tells a changed definition from other refusals.
    fn explain(&self, error: Error) -> Error {
        const DEFINITION_CHANGED: u16 = 1412;
        const NEEDS_PREPARE_AGAIN: u16 = 1615;
        const NO_SUCH_COLUMN: u16 = 1054;
        let (Some(table), Some(server)) = (&self.table, ServerError::of(&error)) else {
            return error;
        };
        match server.code {
            DEFINITION_CHANGED | NEEDS_PREPARE_AGAIN | NO_SUCH_COLUMN => Error::new(
                ErrorKind::SchemaConflict,
                "the table's definition changed while it was loaded",
            )
            .with_hint("start the load of this table again")
            .with_source(server.clone())
            .with_table(table),
            _ => error.with_table(table),
        }
    }
}

fn select(table: &SourceTable, partition: &Partition) -> String {
    let mut sql = format!(
        "SELECT {} FROM {}",
        select_list(table),
        quote_table(table.name())
    );
    if partition.predicate != "TRUE" {
        sql.push_str(" WHERE ");
        sql.push_str(&partition.predicate);
    }
    sql
}

/// The included columns as the decoders take them, in the schema's order.
///
/// Texts come in the session's `character_set_results`, which is NULL: their stored bytes. ENUM and SET come as numbers,
/// since row images hold those, and the labels of both paths are then the recorded ones; OR makes them BIGINT UNSIGNED
/// on both servers, where a CAST is as wide as the digits on MariaDB.
fn select_list(table: &SourceTable) -> String {
    let mut columns = vec!["NULL".to_owned(); table.schema.columns.len().max(1)];
    for column in &table.columns {
        let Some(place) = column.included.and_then(|index| columns.get_mut(index)) else {
            continue;
        };
        let name = quote_identifier(&column.name);
        *place = match column.data_type.as_str() {
            "enum" | "set" => format!("{name} | 0"),
            _ => name,
        };
    }
    columns.join(", ")
}
