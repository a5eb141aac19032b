//! Tables that somebody has locked, as a restore does table after table: nobody can read them for now.

use std::time::{Duration, Instant};

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::super::connection::query_error;
use super::super::sql::quote_table;
use super::ask;
use super::tables::LOCKED;
use crate::batch::TableName;
use crate::error::{ErrorKind, Result};

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
        let sql = format!("SELECT 1 FROM {} LIMIT 0", quote_table(table));
        match conn.query_drop(sql).await {
            Ok(()) => {}
            Err(mysql_async::Error::Server(server)) if server.code == LOCKED => {
                locked.push(table.clone());
            }
            Err(error) => {
                let error = query_error(error);
                if error.kind() == ErrorKind::SourceUnavailable {
                    return Err(error);
                }
            }
        }
    }
    Ok(locked)
}

async fn wait_for_locks(conn: &mut Conn, seconds: u64) -> Result<()> {
    let sql = format!("SET SESSION lock_wait_timeout = {seconds}");
    ask(conn, &sql).await.map(drop)
}
