//! Whether SELECT on a connection shows everything up to a place: proved by every session before it reads its first row.

use std::time::{Duration, Instant};

use super::super::binlog::goes_back;
use super::super::connection::identity_sql;
use super::super::position::{BinlogState, GtidList, MariaGtid, Position, split_file_name};
use super::super::sql::quote_string;
use super::super::wire::WireConn;
use super::super::{Flavor, Source};
use super::boundary::{FILE_START, POLL, binlog_end, ensure_same_server, mariadb_snapshot};
use crate::error::{Error, ErrorKind, Result};

/// How long a lagging server may take to get to the place.
const EXECUTED_DEADLINE: Duration = Duration::from_secs(30);

/// A session whose server has executed the load's start place: the only way to a [`super::PartitionReader`].
#[derive(Debug)]
pub struct SnapshotSession {
    conn: WireConn,
    reads_one_moment: bool,
}

/// What a session in a snapshot goes back to behind each partition. MySQL then releases the metadata locks that were taken
/// since, and the snapshot stays: mysqldump --single-transaction relies on it. MariaDB 10.11 was seen to keep them until
/// the transaction's end.
const SAVEPOINT: &str = "SAVEPOINT pipewright";
pub(super) const BACK_TO_SAVEPOINT: &str = "ROLLBACK TO SAVEPOINT pipewright";

impl SnapshotSession {
    /// Connects, and proves that the server has executed `place`; a load without a stream has none to prove. Which server
    /// rows were read from is known for good: it is the one that is connected.
    ///
    /// # Errors
    /// `SourceUnavailable` when the server does not get there in time, or another one answers; `SourceDiverged` when it
    /// never will; as [`WireConn::connect`].
    pub async fn open(source: &Source, place: Option<&Position>) -> Result<SnapshotSession> {
        let mut conn = WireConn::connect(source.config()).await?;
        ensure_same_server(&mut conn, source).await?;
        if let Some(place) = place {
            prove_executed(&mut conn, source, place).await?;
        }
        Ok(SnapshotSession {
            conn,
            reads_one_moment: false,
        })
    }

    /// A session in a snapshot that was taken together with its place.
    ///
    /// # Errors
    /// A broken connection.
    pub(super) async fn at_once(mut conn: WireConn) -> Result<SnapshotSession> {
        conn.query_ok(SAVEPOINT).await?;
        Ok(SnapshotSession {
            conn,
            reads_one_moment: true,
        })
    }

    /// Ends a session that was opened for its proof alone.
    pub async fn close(self) {
        self.conn.quit().await;
    }

    /// The proved connection, and whether it is in a snapshot.
    pub(super) fn into_parts(self) -> (WireConn, bool) {
        (self.conn, self.reads_one_moment)
    }
}

/// Proves that SELECT on this connection shows everything up to `place`, waiting for a lagging server.
///
/// # Errors
/// As [`SnapshotSession::open`].
pub async fn prove_executed(conn: &mut WireConn, source: &Source, place: &Position) -> Result<()> {
    let begin = Instant::now();
    loop {
        let executed = match place {
            Position::Gtid { set } => {
                let sql = format!(
                    "SELECT GTID_SUBSET({}, @@GLOBAL.gtid_executed)",
                    quote_string(&set.to_string())
                );
                conn.query_value(&sql).await?.as_deref() == Some("1")
            }
            Position::MariaGtid { list } => {
                let executed = mariadb_executed(conn, source).await?.contains_list(list);
                if !executed {
                    ensure_went_on(conn, list).await?;
                }
                executed
            }
            Position::File {
                server,
                file,
                offset,
                ..
            } => {
                ensure_file_exists_yet(conn, source, &server.0, file, *offset).await?;
                *offset <= FILE_START || shows_file_place(conn, source, (file, *offset)).await?
            }
        };
        if executed {
            return Ok(());
        }
        if begin.elapsed() > EXECUTED_DEADLINE {
            return Err(Error::new(
                ErrorKind::SourceUnavailable,
                format!(
                    "the server at {}:{} has not executed what the load starts from after {} s",
                    source.config().host,
                    source.config().port,
                    EXECUTED_DEADLINE.as_secs()
                ),
            )
            .with_hint("let `source.host` name one server, or wait until the replica behind it has caught up; by file and offset, until no commit waits for a semi-synchronous replica, or FLUSH BINARY LOGS"));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Whether SELECT shows everything up to a place within a file. MariaDB says so; MySQL does where a later file has begun, or
/// where no commit waits between its binlog and its engine for a replica's acknowledgement.
async fn shows_file_place(
    conn: &mut WireConn,
    source: &Source,
    (file, offset): (&str, u64),
) -> Result<bool> {
    let place = (file_number(file), offset);
    if source.flavor() == Flavor::MariaDb {
        let (shown, at, _) = mariadb_snapshot(conn, source).await?;
        return Ok((file_number(&shown), at) >= place);
    }
    let waiting = conn
        .query_text("SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_%_wait_sessions'")
        .await?;
    let waits = |row: &Vec<Option<Vec<u8>>>| {
        let count = row.get(1).and_then(Option::as_deref);
        count.is_some_and(|count| count != b"0")
    };
    if !waiting.iter().any(waits) {
        return Ok(true);
    }
    let (current, _) = binlog_end(conn, source).await?;
    Ok(file_number(&current) > file_number(file))
}

/// A server that has written a transaction and something of a lower number behind it will never be there.
async fn ensure_went_on(conn: &mut WireConn, list: &GtidList) -> Result<()> {
    let mut value = async |sql| conn.query_value(sql).await.map(Option::unwrap_or_default);
    // In this order: what is written in between is not taken for older.
    let state = value("SELECT @@GLOBAL.gtid_binlog_state").await?;
    let end: GtidList = value("SELECT @@GLOBAL.gtid_binlog_pos").await?.parse()?;
    let lacked = BinlogState::parse(&state, "")?.lacks(list);
    let written = list.difference(&lacked);
    let older = |gtid: MariaGtid| {
        end.iter()
            .find(|newest| newest.domain == gtid.domain && newest.sequence < gtid.sequence)
    };
    match written.iter().find_map(|gtid| Some((gtid, older(gtid)?))) {
        Some((gtid, newest)) => Err(goes_back(gtid, newest)),
        None => Ok(()),
    }
}

/// What SELECT shows, in GTIDs: the consistent snapshot's place, and on a replica its own place, which commits along
/// with the rows. `gtid_binlog_pos` would be ahead.
async fn mariadb_executed(conn: &mut WireConn, source: &Source) -> Result<GtidList> {
    let (.., snapshot) = mariadb_snapshot(conn, source).await?;
    let replica = conn
        .query_value("SELECT @@GLOBAL.gtid_slave_pos")
        .await?
        .unwrap_or_default();
    // A domain that stands in both keeps the higher number.
    format!("{snapshot},{replica}").parse()
}

/// A file and offset mean something on one server only, and what lies beyond its end was written by one that is gone.
async fn ensure_file_exists_yet(
    conn: &mut WireConn,
    source: &Source,
    server: &str,
    file: &str,
    offset: u64,
) -> Result<()> {
    let identity = conn
        .query_value(identity_sql(source.flavor(), source.version()))
        .await?
        .unwrap_or_default();
    let diverged = |message: String| {
        Error::new(ErrorKind::SourceDiverged, message)
            .with_hint("resync the pipe, or use `source.position: gtid`, which survives a change of the server")
    };
    if identity != server {
        return Err(diverged(format!(
            "server `{identity}` answers where the load began on `{server}`"
        )));
    }
    let (current, end) = binlog_end(conn, source).await?;
    if (file_number(file), offset) > (file_number(&current), end) {
        return Err(diverged(format!(
            "the load began at `{file}`:{offset}, and the binlog ends at `{current}`:{end}"
        )));
    }
    Ok(())
}

/// The number at a binlog file's end; names of seven digits sort wrongly as text.
fn file_number(name: &str) -> u64 {
    split_file_name(name).map_or(0, |(_, number)| number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binlog_files_are_ordered_by_number() {
        assert!(file_number("binlog.1000000") > file_number("binlog.999999"));
    }
}
