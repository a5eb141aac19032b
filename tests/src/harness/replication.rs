//! A second server that follows the first, as failover needs: set up, waited for, promoted.

use anyhow::{Context, Result, ensure};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::SourceServer;

/// How long a replica may take to catch up, in seconds.
const CATCH_UP_SECONDS: u32 = 90;

/// Makes `replica` follow `primary` by GTID, and refuses writes to it.
///
/// # Errors
/// What either server says.
pub async fn follow(replica: &SourceServer, primary: &SourceServer) -> Result<()> {
    let mut conn = root(replica).await?;
    let (host, port) = (primary.host(), primary.port());
    let statements = if replica.kind().is_mariadb() {
        [
            "SET GLOBAL read_only = ON".to_owned(),
            format!(
                "CHANGE MASTER TO MASTER_HOST = '{host}', MASTER_PORT = {port}, MASTER_USER = 'pipewright', \
                 MASTER_PASSWORD = 'pipewright', MASTER_CONNECT_RETRY = 1, MASTER_USE_GTID = slave_pos"
            ),
            "START SLAVE".to_owned(),
        ]
    } else {
        [
            "SET GLOBAL super_read_only = ON".to_owned(),
            format!(
                "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '{host}', SOURCE_PORT = {port}, SOURCE_USER = 'pipewright', \
                 SOURCE_PASSWORD = 'pipewright', SOURCE_CONNECT_RETRY = 1, SOURCE_AUTO_POSITION = 1, \
                 GET_SOURCE_PUBLIC_KEY = 1"
            ),
            "START REPLICA".to_owned(),
        ]
    };
    for statement in statements {
        conn.query_drop(&statement)
            .await
            .with_context(|| statement.clone())?;
    }
    Ok(conn.disconnect().await?)
}

/// Waits until `replica` has applied all that `primary` has written.
///
/// # Errors
/// When it has not in time.
pub async fn wait_followed(replica: &SourceServer, primary: &SourceServer) -> Result<()> {
    let mut conn = root(primary).await?;
    let maria = replica.kind().is_mariadb();
    let place: Option<String> = conn
        .query_first(match maria {
            true => "SELECT @@GLOBAL.gtid_binlog_pos",
            false => "SELECT @@GLOBAL.gtid_executed",
        })
        .await?;
    conn.disconnect().await?;
    let wait = match maria {
        true => "SELECT MASTER_GTID_WAIT(?, ?)",
        false => "SELECT WAIT_FOR_EXECUTED_GTID_SET(?, ?)",
    };
    let mut conn = root(replica).await?;
    let answer: Option<i64> = conn
        .exec_first(wait, (place.unwrap_or_default(), CATCH_UP_SECONDS))
        .await?;
    conn.disconnect().await?;
    ensure!(
        answer == Some(0),
        "the replica has not caught up: {answer:?}"
    );
    Ok(())
}

/// Stops receiving from the primary; what was received is applied.
///
/// # Errors
/// What the server says.
pub async fn stop_following(replica: &SourceServer) -> Result<()> {
    let mut conn = root(replica).await?;
    conn.query_drop(match replica.kind().is_mariadb() {
        true => "STOP SLAVE",
        false => "STOP REPLICA",
    })
    .await?;
    Ok(conn.disconnect().await?)
}

/// Lets a replica apply what it receives, or only receive it.
///
/// # Errors
/// What the server says.
pub async fn set_applying(replica: &SourceServer, applying: bool) -> Result<()> {
    let mut conn = root(replica).await?;
    conn.query_drop(match (replica.kind().is_mariadb(), applying) {
        (true, true) => "START SLAVE SQL_THREAD",
        (true, false) => "STOP SLAVE SQL_THREAD",
        (false, true) => "START REPLICA SQL_THREAD",
        (false, false) => "STOP REPLICA SQL_THREAD",
    })
    .await?;
    Ok(conn.disconnect().await?)
}

/// Makes a replica a primary: it follows nobody and takes writes.
///
/// # Errors
/// What the server says.
pub async fn promote(replica: &SourceServer) -> Result<()> {
    stop_following(replica).await?;
    let mut conn = root(replica).await?;
    let statements = match replica.kind().is_mariadb() {
        true => ["RESET SLAVE ALL", "SET GLOBAL read_only = OFF"],
        false => ["RESET REPLICA ALL", "SET GLOBAL read_only = OFF"],
    };
    for statement in statements {
        conn.query_drop(statement).await?;
    }
    Ok(conn.disconnect().await?)
}

async fn root(server: &SourceServer) -> Result<Conn> {
    Conn::from_url(server.root_url())
        .await
        .context("cannot connect to a server of the topology")
}
