//! Tables that somebody has locked, as a restore does table after table: nobody can read them for now.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

use super::super::connection::query_error;
use super::super::sql::quote_table;
use super::ask;
use crate::batch::TableName;
use crate::error::{Error, ErrorKind, Result};

/// ER_LOCK_WAIT_TIMEOUT
const LOCK_WAIT_TIMEOUT: u16 = 1205;

/// The least that MySQL takes.
const SECONDS_MIN: u64 = 1;

/// How long is waited for locks, whoever has patience for none: commands wait behind that.
const ALL_WITHIN: Duration = Duration::from_secs(10);

/// Has this connection's next preflight wait for no table that somebody has locked.
///
/// # Errors
/// When the connection is broken.
pub async fn pass_over_locks(conn: &mut Conn) -> Result<()> {
    wait_for_locks(conn, SECONDS_MIN).await
}

/// The first `most` of the tables that are not free within `patience` in all. Each has a second for that, until
/// [`ALL_WITHIN`] was spent on ones that are locked: the rest counts as such. What else is wrong with a table is for [`super::preflight`] to say.
///
/// # Errors
/// When the connection is broken.
pub async fn locked(
    conn: &mut Conn,
    tables: &[TableName],
    patience: Duration,
    most: usize,
) -> Result<Vec<TableName>> {
    let began = Instant::now();
    let (mut waited_for, mut spent) = (Vec::new(), Duration::ZERO);
    wait_for_locks(conn, SECONDS_MIN).await?;
    // Those that nobody uses come first: of those behind, some may be left when the time is over.
    for table in unused_first(conn, tables).await? {
        let asked = Instant::now();
        if spent >= ALL_WITHIN.max(patience) || is_locked(conn, table).await? {
            waited_for.push(table);
            spent += asked.elapsed();
        }
    }
    let mut locked = Vec::new();
    for table in waited_for {
        if locked.len() == most {
            break;
        }
        let left = patience.saturating_sub(began.elapsed()).as_secs();
        if left >= SECONDS_MIN {
            wait_for_locks(conn, left).await?;
        }
        if left < SECONDS_MIN || is_locked(conn, table).await? {
            locked.push(table.clone());
        }
    }
    Ok(locked)
}

async fn is_locked(conn: &mut Conn, table: &TableName) -> Result<bool> {
    Ok(matches!(touch(conn, table).await?, Touched::Locked))
}

/// What becomes of a query for none of a table's rows.
pub(super) enum Touched {
    /// It is answered.
    Free,
    /// Somebody has locked the table for longer than this connection waits. Servers look at an account's rights before
    /// they wait for a lock, so it can be read then.
    Locked,
    /// It is refused.
    Refused(Error),
}

/// Asks for none of a table's rows.
///
/// # Errors
/// When the server does not answer.
pub(super) async fn touch(conn: &mut Conn, table: &TableName) -> Result<Touched> {
    let sql = format!("SELECT 1 FROM {} LIMIT 0", quote_table(table));
    let error = match conn.query_drop(sql).await {
        Ok(()) => return Ok(Touched::Free),
        Err(mysql_async::Error::Server(server)) if server.code == LOCK_WAIT_TIMEOUT => {
            return Ok(Touched::Locked);
        }
        Err(error) => query_error(error),
    };
    match error.kind() {
        ErrorKind::SourceUnavailable => Err(error),
        _ => Ok(Touched::Refused(error)),
    }
}

/// The tables, those behind that sessions have in use by now, as far as the server tells.
async fn unused_first<'a>(conn: &mut Conn, tables: &'a [TableName]) -> Result<Vec<&'a TableName>> {
    let mut ordered: Vec<&TableName> = tables.iter().collect();
    if tables.len() > 1 {
        let sql = "SHOW OPEN TABLES WHERE In_use > 0 OR Name_locked > 0";
        let used: Vec<Row> = match conn.query(sql).await.map_err(query_error) {
            Ok(used) => used,
            Err(error) if error.kind() == ErrorKind::SourceUnavailable => return Err(error),
            Err(_) => Vec::new(),
        };
        let used: BTreeSet<(String, String)> = used
            .into_iter()
            .filter_map(|row| Some((row.get_opt(0)?.ok()?, row.get_opt(1)?.ok()?)))
            .collect();
        ordered.sort_by_key(|name| used.contains(&(name.database.clone(), name.table.clone())));
    }
    Ok(ordered)
}

async fn wait_for_locks(conn: &mut Conn, seconds: u64) -> Result<()> {
    let sql = format!("SET SESSION lock_wait_timeout = {seconds}");
    ask(conn, &sql).await.map(drop)
}
