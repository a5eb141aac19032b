//! Rows that the binlog holds in part, completed from the source.
//!
//! With `binlog_row_image` MINIMAL or NOBLOB an event at place D says which row has changed and not what it is now. The
//! row is then read by its key, and written with the version of D. That the target converges all the same (DESIGN §7):
//!
//! - *What is read is never older than D.* The SELECT runs on a session which has proved that its server shows everything
//!   up to the end of the flush. The binlog alone proves nothing: the server sends a transaction before other sessions
//!   see it. The proof takes GTIDs; places in files have none, and are refused.
//! - *What is read may be newer than D.* Then an event D' > D made it so. It is still to come, it writes the same key with
//!   a higher version, and what it writes is not older than D' either. When the last event of a key has been applied the
//!   target has what was read for that event, and nothing has changed since: the source's own row.
//! - *The row may be gone,* deleted or moved to another key by a D' > D. Then a tombstone at D takes its place, which
//!   hides what the target had, and D' brings its own. What was read under another spelling of the key, which the
//!   source's collation takes for the same, belongs to such a D' too, and is passed over.
//! - *A replay may read something newer still* and write it under the same version D as before. Whichever of the two rows
//!   the target keeps, the D' that made the difference is still to come and outranks both.
//! - *Several events of one key in one flush* need one reading, for the last of them: what is written for an earlier one
//!   would lose to it. Tombstones of old keys are no readings, and stay.
//! - *The source may lose that D',* or be followed by one that has never had it. So the place up to which what was read may
//!   reach is recorded with the table before it is written, until the stream has got there; a source without it has the
//!   table loaded anew ([`super::strayed`]).
//! - *The columns are those of the recorded definition.* Where the table has changed since, the SELECT fails, or its answer
//!   has other types, and either is an error and not a row ([`PartitionReader::start`]). Where other columns have the names
//!   and types by then, the first of the statements that brought this about has the table loaded anew ([`super::ddl`]).
//!
//! The rows come through the load's own reader and decoders, so a value is the same whichever way it came; and a plugin
//! never sees a row with holes, but for tombstones, of which it may change nothing that matters.

use std::sync::Arc;

use super::apply::{Written, write};
use super::reaching::{Reaching, Read};
use super::session::{LiveTable, Session};
use super::store::PipeStore;
use crate::batch::{ChangeBatch, TableName};
use crate::error::{Error, ErrorKind, Result};
use crate::source::mysql::binlog::IncompleteRows;
use crate::source::mysql::decode::TableBuilder;
use crate::source::mysql::position::Position;
use crate::source::mysql::snapshot::{Partition, PartitionReader, SnapshotSession};

/// Rows that were read are handed on at this size: what an event left out may be far larger than the event.
const HAND_ON_BYTES: usize = 16 << 20;

/// Reads and writes incomplete rows, over sessions that are kept between flushes.
#[derive(Debug, Default)]
pub(super) struct Completer {
    reader: Option<PartitionReader>,
    reaching: Option<Reaching>,
}

/// What completes one table's rows.
struct Completing<'a> {
    session: &'a Session,
    store: &'a PipeStore,
    reaching: &'a Reaching,
    table: &'a LiveTable,
    /// The place of the flush, for dead letters.
    at: &'a str,
}

impl Completer {
    /// Completes the rows of a flush that ends at `end`.
    ///
    /// # Errors
    /// Whatever the source, a plugin or the destination fails with; then nothing is known to be written.
    pub(super) async fn complete(
        &mut self,
        session: &Session,
        store: &PipeStore,
        tables: Vec<(Arc<LiveTable>, IncompleteRows)>,
        end: &Position,
    ) -> Result<Vec<(TableName, Written)>> {
        if tables.is_empty() {
            return Ok(Vec::new());
        }
        // Kept again only when all went well: after an error an answer may be half read.
        let reaching = self.standing(session).await?;
        let mut reader = self.proved_reader(session, end).await?;
        let (mut completed, at) = (Vec::new(), end.to_string());
        for (table, rows) in tables {
            let name = table.source.name();
            let completing = Completing {
                session,
                store,
                reaching: &reaching,
                table: &table,
                at: &at,
            };
            let done = completing.complete(&mut reader, rows).await;
            completed.push((name.clone(), done.map_err(|error| error.with_table(name))?));
        }
        (self.reader, self.reaching) = (Some(reader), Some(reaching));
        Ok(completed)
    }

    /// Before the first SELECT it may be renewed.
    async fn standing(&mut self, session: &Session) -> Result<Reaching> {
        if let Some(reaching) = self.reaching.take()
            && reaching.stands().await
        {
            return Ok(reaching);
        }
        Reaching::open(&session.source).await
    }

    async fn proved_reader(
        &mut self,
        session: &Session,
        end: &Position,
    ) -> Result<PartitionReader> {
        if let Position::File { .. } = end {
            return Err(Error::new(
                ErrorKind::SourceSetting,
                "rows of partial row images can only be completed where positions are GTIDs",
            )
            .with_hint(
                "set gtid_mode = ON and `source.position: auto`; or binlog_row_image = FULL",
            ));
        }
        if let Some(mut reader) = self.reader.take() {
            match reader.prove_executed(&session.source, end).await {
                Ok(()) => return Ok(reader),
                // The server closes connections that were idle for long.
                Err(error) => {
                    tracing::debug!(error = %error.chain(), "the session for reading rows again is renewed")
                }
            }
        }
        let session = SnapshotSession::open(&session.source, Some(end)).await?;
        Ok(PartitionReader::new(session))
    }
}

impl Completing<'_> {
    async fn complete(
        &self,
        reader: &mut PartitionReader,
        mut rows: IncompleteRows,
    ) -> Result<Written> {
        let mut completed = Written::default();
        let source = Arc::clone(rows.table());
        let mut builder = TableBuilder::new(&source, !self.session.config.nullable)?;
        for (number, predicate) in (0..).zip(rows.conditions()) {
            let keys = Partition {
                number,
                predicate,
                description: "keys of partial row images".to_owned(),
            };
            reader.start(&source, &keys).await?;
            loop {
                let more = reader
                    .next_rows(|packet| builder.push_packet_row(packet))
                    .await?;
                if builder.byte_count() >= HAND_ON_BYTES
                    && let Some(found) = rows.found(&builder.finish())?
                {
                    self.write(found, &mut completed).await?;
                }
                if !more {
                    break;
                }
            }
        }
        for batch in [rows.found(&builder.finish())?, rows.gone()?]
            .into_iter()
            .flatten()
        {
            self.write(batch, &mut completed).await?;
        }
        completed.values.add(&builder.take_changed());
        Ok(completed)
    }

    /// What a row is not may come of a transaction that is lost as well as what it is.
    async fn write(&self, batch: ChangeBatch, completed: &mut Written) -> Result<()> {
        let name = self.table.source.name();
        let recorded = self.reaching.record(self.store, name, Read::Images);
        recorded.await?;
        write(self.session, self.table, batch, self.at, None, completed).await
    }
}
