//! Tables that somebody has locked, as a restore does table after table: nobody can read them for now.

use std::time::{Duration, Instant};

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::super::connection::query_error;
use super::super::sql::quote_table;
use super::ask;
use crate::batch::TableName;
use crate::error::{Error, ErrorKind, Result};

/// ER_LOCK_WAIT_TIMEOUT
const LOCK_WAIT_TIMEOUT: u16 = 1205;

/// The least that MySQL takes.
const SECONDS_MIN: u64 = 1;

/// Has this connection's next preflight wait for no table that somebody has locked.
///
/// # Errors
/// When the connection is broken.
pub async fn pass_over_locks(conn: &mut Conn) -> Result<()> {
    wait_for_locks(conn, SECONDS_MIN).await
}

/// The first `most` of the tables that are not free within `patience` in all; when that is over, each other one has a
/// second. What else is wrong with a table is for [`super::preflight`] to say.
///
/// # Errors
/// When the connection is broken.
pub async fn locked(
    conn: &mut Conn,
    tables: &[TableName],
    patience: Duration,
    most: usize,
) -> Result<Vec<TableName>> {
    let until = Instant::now() + patience;
    let mut locked = Vec::new();
    for table in tables {
        if locked.len() == most {
            break;
        }
        let left = until.saturating_duration_since(Instant::now());
        wait_for_locks(conn, left.as_secs().max(SECONDS_MIN)).await?;
        if let Touched::Locked = touch(conn, table).await? {
            locked.push(table.clone());
        }
    }
    Ok(locked)
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

async fn wait_for_locks(conn: &mut Conn, seconds: u64) -> Result<()> {
    let sql = format!("SET SESSION lock_wait_timeout = {seconds}");
    ask(conn, &sql).await.map(drop)
}
