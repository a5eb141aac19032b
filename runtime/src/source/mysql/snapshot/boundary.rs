//! The place in the binlog that a load starts from, and the one it ends at.
//!
//! A place is taken so that SELECT already shows everything up to it: MySQL's `gtid_executed` grows only after the
//! engine's commit, where the binlog's own end is ahead of it, and by file and offset it is where the current file begins;
//! MariaDB's consistent snapshot names the place it shows.
//! A row changed after the place comes by the stream, a row changed before it is in every later SELECT, so nothing
//! falls between. Rows of a prepared XA transaction stand in the binlog at its PREPARE and become visible at its
//! COMMIT: a place between the two would lose them, so no place is taken while one is prepared (pitfall 96).
//!
//! Another server behind the same name may lag. So every session that reads proves first that its server has got to the
//! place ([`super::proof`]).

use std::time::{Duration, Instant};

use super::super::connection::identity_sql;
use super::super::position::Position;
use super::super::sql::{quote_string, quote_table};
use super::super::wire::{ServerError, WireConn};
use super::super::{Flavor, ServerVersion, Source};
use crate::batch::TableName;
use crate::config::PositionMode;
use crate::error::{Error, ErrorKind, Result};

/// How long prepared XA transactions may hold a place up.
const XA_DEADLINE: Duration = Duration::from_secs(60);

pub(super) const POLL: Duration = Duration::from_millis(200);

/// How often a place on MariaDB is looked for at which nothing is being written, before the binlog itself is read.
const LISTS_TRIED: u32 = 3;

/// The first event of every binlog file.
pub(super) const FILE_START: u64 = 4;

/// How many seconds a statement that is in the binlog may take to end.
const METADATA_WAIT: u32 = 5;

/// Takes the place up to which SELECT shows everything, and nothing of which is still prepared.
///
/// # Errors
/// `SourceUnavailable` when prepared XA transactions outlast the deadline; `SourceSetting` without a binlog, or without
/// GTIDs where the mode asks for them; failures of the queries.
pub async fn take_place(source: &Source, mode: PositionMode) -> Result<Position> {
    let by_gtid = is_by_gtid(source, mode)?;
    let mut conn = WireConn::connect(source.config()).await?;
    ensure_same_server(&mut conn, source).await?;
    let mut patience = XaPatience::default();
    loop {
        // Looked at on both sides: what is prepared at the place was prepared before the look after it.
        let mut prepared = prepared_transactions(&mut conn).await?;
        if prepared.is_empty() {
            let place = place_now(&mut conn, source, by_gtid).await?;
            prepared = prepared_transactions(&mut conn).await?;
            if prepared.is_empty() {
                conn.quit().await;
                return Ok(place);
            }
        }
        patience.wait(&prepared).await?;
    }
}

/// Waits for the end of prepared XA transactions, but not for ever.
#[derive(Debug)]
pub(super) struct XaPatience {
    since: Option<Instant>,
    deadline: Duration,
}

impl Default for XaPatience {
    fn default() -> Self {
        Self::of(XA_DEADLINE)
    }
}

impl XaPatience {
    pub(super) fn of(deadline: Duration) -> Self {
        Self {
            since: None,
            deadline,
        }
    }

    /// # Errors
    /// `SourceUnavailable` past the deadline.
    pub(super) async fn wait(&mut self, prepared: &[String]) -> Result<()> {
        let names = prepared.join(", ");
        if self.since.is_none() {
            tracing::info!(prepared = %names, "waiting until no XA transaction is prepared at the source");
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() > self.deadline {
            return Err(Error::new(
                ErrorKind::SourceUnavailable,
                format!(
                    "XA transactions are prepared at the source for over {} s, and a load cannot start between their \
                     PREPARE and COMMIT: {names}",
                    self.deadline.as_secs()
                ),
            )
            .with_hint("end them at the source: XA COMMIT or XA ROLLBACK of what XA RECOVER lists"));
        }
        tokio::time::sleep(POLL).await;
        Ok(())
    }
}

/// Whether places are GTIDs.
pub(super) fn is_by_gtid(source: &Source, mode: PositionMode) -> Result<bool> {
    let by_gtid = match mode {
        PositionMode::Auto => source.has_gtid(),
        PositionMode::Gtid => true,
        PositionMode::File => false,
    };
    if by_gtid && !source.has_gtid() {
        return Err(Error::new(
            ErrorKind::SourceSetting,
            "the source has no GTIDs, and `source.position` asks for them",
        )
        .with_hint(
            "set gtid_mode = ON and enforce_gtid_consistency = ON, or `source.position: file`",
        ));
    }
    Ok(by_gtid)
}

/// The identifiers of prepared XA transactions. Without the grant to see them there are none to wait for; preflight
/// has warned of that.
pub(super) async fn prepared_transactions(conn: &mut WireConn) -> Result<Vec<String>> {
    match conn.query_text("XA RECOVER").await {
        Ok(rows) => Ok(rows
            .into_iter()
            .filter_map(|row| row.into_iter().last().flatten())
            .map(|id| format!("`{}`", String::from_utf8_lossy(&id)))
            .collect()),
        Err(error)
            if ServerError::of(&error).is_some()
                && error.kind() != ErrorKind::SourceUnavailable =>
        {
            tracing::warn!(error = %error.chain(), "XA RECOVER is refused: rows of transactions prepared now may be missed");
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

pub(super) async fn place_now(
    conn: &mut WireConn,
    source: &Source,
    by_gtid: bool,
) -> Result<Position> {
    match (source.flavor(), by_gtid) {
        (Flavor::MySql, true) => {
            let set = conn
                .query_value("SELECT @@GLOBAL.gtid_executed")
                .await?
                .unwrap_or_default();
            Ok(Position::Gtid { set: set.parse()? })
        }
        (Flavor::MySql, false) => file_start(conn, source).await,
        (Flavor::MariaDb, by_gtid) => {
            let (file, offset, list) = mariadb_snapshot(conn, source).await?;
            Ok(if by_gtid {
                Position::MariaGtid {
                    list: list.parse()?,
                }
            } else {
                file_position(source, file, offset)
            })
        }
    }
}

pub(super) fn file_position(source: &Source, file: String, offset: u64) -> Position {
    Position::File {
        server: source.identity().clone(),
        file,
        offset,
        created: 0,
    }
}

fn no_binlog() -> Error {
    Error::new(ErrorKind::SourceSetting, "the source writes no binlog")
        .with_hint("start the server with log_bin")
}

/// Where the current binlog file begins. A file begins only when everything of the one before is committed, also in the
/// engines. Of no place within it that is known: a transaction that waits for its fsync, or for a replica to acknowledge it,
/// is in the binlog and in no SELECT. `performance_schema.log_status` names places behind such a transaction on some servers
/// (Percona Server's issue PS-7873), and waits with it on others, for minutes where the replica is away (seen with 9.7.4).
async fn file_start(conn: &mut WireConn, source: &Source) -> Result<Position> {
    let (file, _) = binlog_end(conn, source).await?;
    Ok(file_position(source, file, FILE_START))
}

/// Whether a load may begin behind a statement on `table` that the current binlog file holds, of a server that names no
/// better place than where the file begins: whether everything up to the statement's end is in every later SELECT. It kept
/// the table from everybody until the engine had it, and the server commits in the order of its binlog.
///
/// # Errors
/// A broken connection.
pub async fn is_shown_behind(
    source: &Source,
    mode: PositionMode,
    table: &TableName,
) -> Result<bool> {
    if source.flavor() == Flavor::MariaDb || is_by_gtid(source, mode)? {
        return Ok(false);
    }
    let mut conn = WireConn::connect(source.config()).await?;
    ensure_same_server(&mut conn, source).await?;
    let is_shown = has_ended(&mut conn, table).await;
    conn.quit().await;
    match is_shown {
        Err(error) if ServerError::of(&error).is_some() => {
            tracing::info!(table = %table, "no load can begin behind a statement yet: {}", error.chain());
            Ok(false)
        }
        is_shown => is_shown,
    }
}

/// Whether what has changed the table's definition has been committed, and nothing is prepared that was before it.
async fn has_ended(conn: &mut WireConn, table: &TableName) -> Result<bool> {
    let ordered = conn
        .query_value("SELECT @@GLOBAL.binlog_order_commits")
        .await?;
    if ordered.as_deref() == Some("0") {
        return Ok(false);
    }
    conn.query_ok(&format!("SET SESSION lock_wait_timeout = {METADATA_WAIT}"))
        .await?;
    conn.query_text(&format!("SELECT 1 FROM {} LIMIT 0", quote_table(table)))
        .await?;
    Ok(prepared_transactions(conn).await?.is_empty())
}

/// A place that holds every statement whose effect a catalog query before this call could show. It may be ahead of what
/// SELECT shows, and lie between PREPARE and COMMIT of an XA transaction, and so is never a start: a statement does not
/// wait for a decision that may be days away.
///
/// # Errors
/// Failures of the queries.
pub async fn newest_place(source: &Source, mode: PositionMode) -> Result<Position> {
    let by_file = mode == PositionMode::File || !source.has_gtid();
    let mut conn = WireConn::connect(source.config()).await?;
    ensure_same_server(&mut conn, source).await?;
    let place = if source.flavor() == Flavor::MySql && by_file {
        let (file, offset) = binlog_end(&mut conn, source).await?;
        file_position(source, file, offset)
    } else {
        place_now(&mut conn, source, !by_file).await?
    };
    conn.quit().await;
    Ok(place)
}

/// Where the server writes now. This is ahead of what SELECT shows, and so never a start.
pub(super) async fn binlog_end(conn: &mut WireConn, source: &Source) -> Result<(String, u64)> {
    let rows = conn.query_text(binlog_status_sql(source)).await?;
    match rows.first().map(Vec::as_slice) {
        Some([Some(file), Some(offset), ..]) => Ok((
            String::from_utf8_lossy(file).into_owned(),
            String::from_utf8_lossy(offset).parse().unwrap_or(0),
        )),
        _ => Err(no_binlog()),
    }
}

/// The statement that says where the server writes, which changed its name (pitfall 64).
pub(in crate::source::mysql) fn binlog_status_sql(source: &Source) -> &'static str {
    match source.flavor() {
        Flavor::MySql if source.version() >= ServerVersion(8, 2, 0) => "SHOW BINARY LOG STATUS",
        _ => "SHOW MASTER STATUS",
    }
}

/// File, offset and GTID list of what a consistent snapshot shows at this moment.
pub(super) async fn mariadb_snapshot(
    conn: &mut WireConn,
    source: &Source,
) -> Result<(String, u64, String)> {
    let mut attempt = 1;
    loop {
        conn.query_ok("START TRANSACTION WITH CONSISTENT SNAPSHOT")
            .await?;
        let place = mariadb_snapshot_place(conn).await?;
        let mut list = None;
        if let Some((file, offset)) = &place {
            list = mariadb_list_at_end(conn, source, file, *offset).await?;
            if list.is_none() && attempt == LISTS_TRIED {
                let sql = format!("SELECT BINLOG_GTID_POS({}, {offset})", quote_string(file));
                list = conn.query_value(&sql).await?;
            }
        }
        conn.query_ok("ROLLBACK").await?;
        let Some((file, offset)) = place else {
            return Err(without_snapshot(conn).await);
        };
        match list {
            Some(list) => return Ok((file, offset, list.split_whitespace().collect())),
            None if attempt < LISTS_TRIED => attempt += 1,
            None => {
                return Err(Error::new(
                    ErrorKind::SourceUnavailable,
                    format!("the source does not know the GTIDs at `{file}`:{offset}"),
                ));
            }
        }
    }
}

/// Where in the binlog the open consistent snapshot is; none without a binlog.
pub(super) async fn mariadb_snapshot_place(conn: &mut WireConn) -> Result<Option<(String, u64)>> {
    let rows = conn
        .query_text("SHOW STATUS LIKE 'binlog_snapshot_%'")
        .await?;
    let mut file = String::new();
    let mut offset = None;
    for row in rows {
        let [Some(name), Some(value)] = row.as_slice() else {
            continue;
        };
        let value = String::from_utf8_lossy(value);
        match String::from_utf8_lossy(name).to_lowercase().as_str() {
            "binlog_snapshot_file" => file = value.into_owned(),
            "binlog_snapshot_position" => offset = value.parse().ok(),
            _ => {}
        }
    }
    Ok(offset
        .filter(|_| !file.is_empty())
        .map(|offset| (file, offset)))
}

/// The server's own GTID list, if the binlog still ends at this place; BINLOG_GTID_POS reads the file from its start,
/// which took 79 ms for 96 MB. The list is asked for before the end: the server changes it under the lock of the write
/// that it belongs to, and SHOW MASTER STATUS waits for that lock, so whatever the list holds beyond the place moves the
/// end too.
pub(super) async fn mariadb_list_at_end(
    conn: &mut WireConn,
    source: &Source,
    file: &str,
    offset: u64,
) -> Result<Option<String>> {
    let list = conn.query_value("SELECT @@GLOBAL.gtid_binlog_pos").await?;
    let (end, at) = binlog_end(conn, source).await?;
    Ok(list.filter(|_| end == file && at == offset))
}

/// Why a consistent snapshot names no place.
pub(super) async fn without_snapshot(conn: &mut WireConn) -> Error {
    let engine = conn
        .query_text("SHOW GLOBAL VARIABLES LIKE 'binlog_storage_engine'")
        .await;
    let engine = engine.ok().and_then(|rows| rows.into_iter().next());
    match engine.as_deref() {
        Some([_, Some(engine)]) => without_place(&String::from_utf8_lossy(engine)),
        _ => no_binlog(),
    }
}

/// A binlog that InnoDB keeps has no file offsets (pitfall 86), and none of its GTID variables is known to show no more
/// than SELECT does. Without such an engine there is no binlog at all.
fn without_place(engine: &str) -> Error {
    if engine.is_empty() {
        return no_binlog();
    }
    Error::new(
        ErrorKind::Unsupported,
        format!(
            "the source keeps its binlog in {engine}, where no place is known that a snapshot shows"
        ),
    )
    .with_hint("start the server without binlog_storage_engine")
}

/// # Errors
/// `SourceUnavailable` where another server answers than the one that is connected.
pub(in crate::source::mysql) async fn ensure_same_server(
    conn: &mut WireConn,
    source: &Source,
) -> Result<()> {
    let identity = conn
        .query_value(identity_sql(source.flavor(), source.version()))
        .await?
        .unwrap_or_default();
    if identity == source.identity().0 {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::SourceUnavailable,
        format!(
            "another server answers at {}:{} than a moment ago",
            source.config().host,
            source.config().port
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// pitfall 86: MariaDB 12.3 can keep its binlog in InnoDB; what such a server answers must not become a place.
    #[test]
    fn a_binlog_without_files_is_refused_by_its_engine() {
        let error = without_place("innodb");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.message().contains("innodb"), "{error}");
        let hint = error.hint().unwrap_or_default();
        assert!(hint.contains("binlog_storage_engine"), "{hint}");
        assert_eq!(without_place("").kind(), ErrorKind::SourceSetting);
    }
}
