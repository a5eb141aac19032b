//! Sessions that all read one moment, whose place in the binlog is known.
//!
//! Where nothing replaces a row, load and stream must meet without overlap: the load has what was committed up to a place,
//! and the stream brings what comes behind it.
//!
//! MariaDB names the place that a consistent snapshot shows; sessions whose snapshots show the same place read the same
//! moment. MySQL names none, so the table is locked against writers for the moment in which the snapshots begin: whoever
//! has written into the table holds its metadata until the commit is in the engine, in the binlog and in `gtid_executed`,
//! also between XA PREPARE and XA COMMIT. LOCK TABLES waits for all of them, and while it is held nobody begins. What
//! other tables' transactions do meanwhile does not matter, as long as `gtid_executed` grows in the binlog's order. Where no
//! lock is allowed the binlog tells what has changed while the snapshots began ([`super::window`]).
//!
//! On MySQL a session keeps the snapshot, and not the table: behind each partition it goes back to a savepoint, which lets
//! go of the table's metadata ([`super::PartitionReader::release`]). What is altered in between either refuses the next
//! SELECT (error 1412, since the definition is younger than the snapshot) or is met by the stream before the load's end
//! place. On MariaDB statements that change the table wait until the load has ended.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::super::connection::{identity_sql, query_error};
use super::super::position::Position;
use super::super::sql::{quote_identifier, quote_string, quote_table};
use super::super::wire::WireConn;
use super::super::{Flavor, Source};
use super::SnapshotSession;
use super::boundary::{
    XaPatience, binlog_end, ensure_same_server, file_position, is_by_gtid, mariadb_list_at_end,
    mariadb_snapshot_place, place_now, prepared_transactions, without_snapshot,
};
use super::window::{self, Unlocked, Window};
use crate::batch::TableName;
use crate::config::PositionMode;
use crate::error::{Error, ErrorKind, Result};

/// Everything that the sessions read was committed up to `place`, and nothing that comes behind it.
#[derive(Debug)]
pub struct Consistent {
    /// The place.
    pub place: Position,
    /// At least one.
    pub sessions: Vec<SnapshotSession>,
    /// What sets right what they read, where they began at different moments and rows changed in between.
    pub window: Option<Arc<Window>>,
}

/// What is to be read at one moment.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// The table.
    pub table: &'a TableName,
    /// The most sessions.
    pub sessions: usize,
    /// On MySQL, how without a lock; none where the table may be locked.
    pub unlocked: Option<Unlocked<'a>>,
}

/// What has come of the attempt to begin.
#[derive(Debug)]
pub enum Attempt {
    /// The sessions read.
    Taken(Consistent),
    /// Transactions at the source stand in the way. They pass, or somebody ends them; the error says how.
    Held(Error),
}

/// How long LOCK TABLES may wait, in seconds: those who come behind it wait with it (pitfall 126).
const LOCK_WAIT: u32 = 5;

/// The same where it is only tried.
const LOCK_WAIT_TO_TRY: u32 = 1;

/// What LOCK TABLES ends with when it has waited so long.
const LOCK_WAIT_TIMEOUT: u16 = 1205;

pub(super) const BEGIN: &str = "START TRANSACTION WITH CONSISTENT SNAPSHOT";

/// Opens sessions that read a table at one moment.
///
/// # Errors
/// `SourceDenied` without the right to lock the table, `SourceSetting` for a server whose places do not follow its commits,
/// `Unsupported` for a table that takes a lock and may not have it; failures of the queries.
pub async fn take_consistent(
    source: &Arc<Source>,
    mode: PositionMode,
    wanted: &Wanted<'_>,
) -> Result<Attempt> {
    let by_gtid = is_by_gtid(source, mode)?;
    let (table, most) = (wanted.table, wanted.sessions.max(1));
    let mut conns = Vec::with_capacity(most);
    for _ in 0..most {
        let mut conn = WireConn::connect(source.config()).await?;
        ensure_same_server(&mut conn, source).await?;
        conns.push(conn);
    }
    let taken = match (source.flavor(), &wanted.unlocked) {
        (Flavor::MySql, None) => mysql(source, by_gtid, table, conns).await,
        (Flavor::MySql, Some(unlocked)) => window::take(source, by_gtid, unlocked, conns).await,
        (Flavor::MariaDb, _) => mariadb(source, by_gtid, conns).await,
    };
    match taken {
        Ok(Attempt::Held(error)) => Ok(Attempt::Held(error.with_table(table))),
        taken => taken.map_err(|error| error.with_table(table)),
    }
}

/// What stands in the way just now and does not go in seconds, as [`Attempt::Held`] would tell of it. Whoever asks waits for
/// it here, and takes the moment when there is nothing.
///
/// # Errors
/// As [`take_consistent`].
pub async fn what_holds(
    source: &Arc<Source>,
    mode: PositionMode,
    wanted: &Wanted<'_>,
) -> Result<Option<Error>> {
    let by_gtid = is_by_gtid(source, mode)?;
    let held = match (source.flavor(), &wanted.unlocked) {
        (Flavor::MySql, None) => {
            let mut conn = source.control().await?;
            let held = lock(&mut conn, source, wanted.table, LOCK_WAIT_TO_TRY).await;
            // It unlocks the table too.
            conn.disconnect().await.ok();
            held
        }
        (Flavor::MySql, Some(unlocked)) => window::what_holds(source, by_gtid, unlocked).await,
        (Flavor::MariaDb, _) => stays_prepared(source).await,
    };
    let named = |error: Error| error.with_table(wanted.table);
    Ok(held.map_err(named)?.map(named))
}

/// What is prepared, and is not decided in seconds.
async fn stays_prepared(source: &Source) -> Result<Option<Error>> {
    let mut conn = WireConn::connect(source.config()).await?;
    let mut patience = XaPatience::of(Duration::from_secs(LOCK_WAIT_TO_TRY.into()));
    loop {
        let prepared = prepared_transactions(&mut conn).await?;
        if prepared.is_empty() {
            conn.quit().await;
            return Ok(None);
        }
        if let Err(held) = patience.wait(&prepared).await {
            return Ok(Some(held));
        }
    }
}

/// Locks the table against writers. What holds it is returned.
async fn lock(
    conn: &mut Conn,
    source: &Source,
    table: &TableName,
    seconds: u32,
) -> Result<Option<Error>> {
    for sql in [
        format!("SET SESSION lock_wait_timeout = {seconds}"),
        format!("LOCK TABLES {} READ", quote_table(table)),
    ] {
        let Err(error) = conn.query_drop(sql).await else {
            continue;
        };
        let is_held = matches!(&error, mysql_async::Error::Server(server) if server.code == LOCK_WAIT_TIMEOUT);
        let error = not_locked(query_error(error), source, table, is_held);
        return match is_held {
            true => Ok(Some(error)),
            false => Err(error.with_table(table)),
        };
    }
    Ok(None)
}

async fn mysql(
    source: &Source,
    by_gtid: bool,
    table: &TableName,
    mut conns: Vec<WireConn>,
) -> Result<Attempt> {
    let mut side = WireConn::connect(source.config()).await?;
    ensure_same_server(&mut side, source).await?;
    if by_gtid {
        ensure_ordered(&mut side).await?;
    }
    let mut locking = source.control().await?;
    let sql = identity_sql(source.flavor(), source.version());
    let identity: Option<String> = locking.query_first(sql).await.map_err(query_error)?;
    if identity.as_deref() != Some(source.identity().0.as_str()) {
        return Err(Error::new(
            ErrorKind::SourceUnavailable,
            "another server answers than a moment ago",
        ));
    }
    if let Some(held) = lock(&mut locking, source, table, LOCK_WAIT).await? {
        return Ok(Attempt::Held(held));
    }
    // Whatever goes wrong closes the connection, which unlocks the table.
    let place = if by_gtid {
        place_now(&mut side, source, true).await?
    } else {
        let (file, offset) = binlog_end(&mut side, source).await?;
        file_position(source, file, offset)
    };
    for conn in &mut conns {
        conn.query_ok(BEGIN).await?;
    }
    locking
        .query_drop("UNLOCK TABLES")
        .await
        .map_err(query_error)?;
    locking.disconnect().await.ok();
    side.quit().await;
    Ok(Attempt::Taken(Consistent {
        place,
        sessions: in_snapshots(conns).await?,
        window: None,
    }))
}

/// Sessions of connections that are in their snapshots.
pub(super) async fn in_snapshots(conns: Vec<WireConn>) -> Result<Vec<SnapshotSession>> {
    let mut sessions = Vec::with_capacity(conns.len());
    for conn in conns {
        sessions.push(SnapshotSession::at_once(conn).await?);
    }
    Ok(sessions)
}

/// Else a place may hold a transaction without one that stands before it in the binlog.
async fn ensure_ordered(conn: &mut WireConn) -> Result<()> {
    let ordered = conn
        .query_value("SELECT @@GLOBAL.binlog_order_commits")
        .await?;
    if ordered.as_deref() != Some("0") {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::SourceSetting,
        "the server commits in another order than it writes its binlog, so load and stream of an append table cannot meet",
    )
    .with_hint("SET GLOBAL binlog_order_commits = ON, or use `engine: replacing`"))
}

fn not_locked(error: Error, source: &Source, table: &TableName, is_held: bool) -> Error {
    let kind = error.kind();
    let wanted = Error::new(
        kind,
        "the table could not be locked against writers for the moment in which the load of an append table begins",
    );
    let wanted = match kind {
        ErrorKind::SourceDenied => wanted.with_hint(format!(
            "GRANT LOCK TABLES ON {}.* TO {}, or set `snapshot: {{ allow_locks: false }}`, then resync the table: \
             pipewright resync --table {table}",
            quote_identifier(&table.database),
            source.config().user
        )),
        _ if is_held => wanted.with_hint(
            "it is tried again; end transactions that have written into the table and stay open",
        ),
        ErrorKind::SourceMissing => wanted.with_hint(format!(
            "see that the table exists, then resync it: pipewright resync --table {table}"
        )),
        _ => wanted.with_hint("it is tried again"),
    };
    wanted.with_source(error)
}

async fn mariadb(source: &Source, by_gtid: bool, mut conns: Vec<WireConn>) -> Result<Attempt> {
    let mut side = WireConn::connect(source.config()).await?;
    ensure_same_server(&mut side, source).await?;
    let mut patience = XaPatience::of(Duration::from_secs(LOCK_WAIT.into()));
    let (place, same) = loop {
        // An XA COMMIT is in the binlog before the engine has it: a place may be past it, and the snapshot before it.
        let mut prepared = prepared_transactions(&mut side).await?;
        if prepared.is_empty() {
            let begun = begin_together(&mut conns, source, by_gtid).await?;
            prepared = prepared_transactions(&mut side).await?;
            if prepared.is_empty() {
                break begun;
            }
        }
        if let Err(held) = patience.wait(&prepared).await {
            return Ok(Attempt::Held(held));
        }
    };
    side.quit().await;
    let mut sessions = Vec::with_capacity(conns.len());
    for (conn, same) in conns.into_iter().zip(same) {
        match same {
            true => sessions.push(SnapshotSession::at_once(conn).await?),
            // Somebody has committed in between.
            false => conn.quit().await,
        }
    }
    Ok(Attempt::Taken(Consistent {
        place,
        sessions,
        window: None,
    }))
}

/// Begins a snapshot in each session, in place of one that it has. Returns the place of the first, and which show the same.
async fn begin_together(
    conns: &mut [WireConn],
    source: &Source,
    by_gtid: bool,
) -> Result<(Position, Vec<bool>)> {
    let mut first: Option<(Position, (String, u64))> = None;
    let mut same = Vec::with_capacity(conns.len());
    for conn in conns {
        conn.query_ok(BEGIN).await?;
        let Some(shown) = mariadb_snapshot_place(conn).await? else {
            return Err(without_snapshot(conn).await);
        };
        match &first {
            Some((_, first)) => same.push(*first == shown),
            None => {
                let place = mariadb_place(conn, source, by_gtid, &shown).await?;
                first = Some((place, shown));
                same.push(true);
            }
        }
    }
    let (place, _) =
        first.ok_or_else(|| Error::new(ErrorKind::Internal, "no session was opened"))?;
    Ok((place, same))
}

async fn mariadb_place(
    conn: &mut WireConn,
    source: &Source,
    by_gtid: bool,
    (file, offset): &(String, u64),
) -> Result<Position> {
    if !by_gtid {
        return Ok(file_position(source, file.clone(), *offset));
    }
    let mut list = mariadb_list_at_end(conn, source, file, *offset).await?;
    if list.is_none() {
        let sql = format!("SELECT BINLOG_GTID_POS({}, {offset})", quote_string(file));
        list = conn.query_value(&sql).await?;
    }
    let list: String = list
        .ok_or_else(|| {
            Error::new(
                ErrorKind::SourceUnavailable,
                format!("the source does not know the GTIDs at `{file}`:{offset}"),
            )
        })?
        .split_whitespace()
        .collect();
    Ok(Position::MariaGtid {
        list: list.parse()?,
    })
}
