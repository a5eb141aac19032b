//! What servers of one topology keep for a pipe, each for itself: prepared transactions, domains in which nothing happens
//! any more, and the binlog.

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use serde_json::json;
use testbed::SourceKind;
use testbed::harness::replication::{follow, promote, stop_following, wait_followed};
use testbed::harness::{MARKER_TABLE, Source};

use super::{TAKE_OVER, file_with, followed, primary, read_by_pipes, server};
use crate::protocol::in_domain;
use crate::support::{
    CATCH_UP, allow_locks, append, assert_caught_up, assert_each_change_once, on_both_mariadbs,
    on_both_sources, place, purge_all_but_the_newest, running_with,
};
use crate::transactions::{decide, prepare, shown, wait_shown};

on_both_sources! {
    rows_of_xa_transactions_that_the_dead_primary_prepared_appear_at_their_commit_on_the_new_one: 480,
    a_server_that_has_purged_what_the_pipe_needs_is_passed_over_for_one_that_has_it: 360,
}

on_both_mariadbs! {
    transactions_of_all_domains_arrive_once_over_a_failover_however_long_a_domain_was_idle: 360,
    a_replica_that_began_with_a_backup_carries_a_domain_on_in_which_nothing_has_happened_since: 300,
}

/// pitfall 96: a replica prepares what its primary has prepared, and nobody prepares it again there. The pipe is at work
/// when the primary dies, or away: then it has read the rows of one transaction at the old primary, and of another at none.
async fn rows_of_xa_transactions_that_the_dead_primary_prepared_appear_at_their_commit_on_the_new_one(
    kind: SourceKind,
) -> Result<()> {
    for away in [false, true] {
        ensure_decided_elsewhere(kind, away)
            .await
            .with_context(|| format!("the pipe is away: {away}"))?;
    }
    Ok(())
}

async fn ensure_decided_elsewhere(kind: SourceKind, away: bool) -> Result<()> {
    let made = [
        "CREATE TABLE t (id INT PRIMARY KEY, a INT)",
        "INSERT INTO t VALUES (1, 1), (2, 2), (3, 3), (4, 4)",
    ];
    let (mut stage, replica) = followed(kind, &made).await?;
    let mut pipe = running_with(&file_with(&stage, &replica, &["t"])).await?;
    let held = [
        "UPDATE t SET a = 10 WHERE id = 1",
        "DELETE FROM t WHERE id = 2",
        "INSERT INTO t VALUES (50, 50)",
    ];
    prepare(&stage, "held", &held).await?;
    let gone = [
        "INSERT INTO t VALUES (60, 60)",
        "DELETE FROM t WHERE id = 3",
    ];
    prepare(&stage, "gone", &gone).await?;
    stage.source.execute("INSERT INTO t VALUES (5, 5)").await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    wait_shown(&stage, "id = 5", 1).await?;
    if away {
        ensure!(pipe.stop().await? == 0);
    }
    prepare(&stage, "late", &["INSERT INTO t VALUES (70, 70)"]).await?;
    wait_followed(&replica, &stage.source_server).await?;
    tokio::task::block_in_place(|| stage.source_server.kill())?;
    promote(&replica).await?;
    stage.source = Source::with_database(&replica, &stage.database).await?;
    let prepared: Vec<Row> = stage.source.rows("XA RECOVER").await?;
    ensure!(prepared.len() == 3, "the new primary holds {prepared:?}");
    if away {
        pipe.restart()?;
    }

    stage.source.execute("INSERT INTO t VALUES (6, 6)").await?;
    stage.wait_caught_up(&mut pipe, TAKE_OVER).await?;
    wait_shown(&stage, "id = 6", 1).await?;
    let early = shown(&stage, "a >= 10").await?;
    ensure!(early == 0, "{early} rows appear before their commit");
    ensure!(shown(&stage, "id IN (1, 2, 3)").await? == 3);
    let mut conn = stage.source.connect().await?;
    decide(&mut conn, "XA COMMIT 'held'").await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    ensure!(shown(&stage, "a IN (10, 50)").await? == 2);
    decide(&mut conn, "XA ROLLBACK 'gone'").await?;
    decide(&mut conn, "XA COMMIT 'late'").await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    // All but the one that was deleted.
    ensure!(stage.assert_same("t").await? == 7);
    let never = format!("SELECT count() FROM `{}`.t WHERE id = 60", stage.database);
    ensure!(
        stage.clickhouse.number(&never).await? == 0,
        "a row of the transaction that was rolled back has been written"
    );
    Ok(())
}

/// pitfall 60: the one that is passed over is named first, and takes the writes. While the other is away, it is waited for.
async fn a_server_that_has_purged_what_the_pipe_needs_is_passed_over_for_one_that_has_it(
    kind: SourceKind,
) -> Result<()> {
    let (mut stage, purged) =
        followed(kind, &["CREATE TABLE t (id INT PRIMARY KEY, a INT)"]).await?;
    let other = server(kind).await?;
    follow(&other, &stage.source_server).await?;
    let mut file = file_with(&stage, &purged, &["t"]);
    file["source"]["hosts"] = json!([
        format!("127.0.0.1:{}", purged.port()),
        format!("127.0.0.1:{}", other.port()),
    ]);
    let mut pipe = running_with(&file).await?;
    stage.source.execute("INSERT INTO t VALUES (1, 1)").await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    ensure!(pipe.stop().await? == 0);
    stage
        .source
        .execute_all([
            "INSERT INTO t VALUES (2, 2), (3, 3)",
            "UPDATE t SET a = 10 WHERE id = 1",
        ])
        .await?;
    for replica in [&purged, &other] {
        wait_followed(replica, &stage.source_server).await?;
    }
    tokio::task::block_in_place(|| stage.source_server.kill())?;
    promote(&purged).await?;
    stage.source = Source::with_database(&purged, &stage.database).await?;
    stop_following(&other).await?;
    follow(&other, &purged).await?;
    wait_followed(&other, &purged).await?;
    purge_all_but_the_newest(&purged).await?;
    stage.source.execute("INSERT INTO t VALUES (4, 4)").await?;

    tokio::task::block_in_place(|| other.stop())?;
    pipe.restart()?;
    let address = format!("127.0.0.1:{}", purged.port());
    pipe.wait_for("a server that is waited for", TAKE_OVER, |status| {
        let reason = &status["reasons"][0];
        reason["code"] == "source_unavailable"
            && reason["message"]
                .to_string()
                .contains(&format!("{address} has purged transactions"))
    })
    .await?;
    tokio::task::block_in_place(|| other.start_again_with(&["--read-only=ON"]))?;
    stage.wait_caught_up(&mut pipe, TAKE_OVER).await?;
    ensure!(stage.assert_same("t").await? == 4);
    pipe.wait_state("Running", TAKE_OVER).await?;
    let read = (read_by_pipes(&purged).await?, read_by_pipes(&other).await?);
    ensure!(
        read == (0, 1),
        "the server without the binlog, and the one with it, are read by {read:?}"
    );
    Ok(())
}

/// Domains of MariaDB beside the first: idle before the pipe begins, idle before the primary dies, used throughout, and
/// used by the new primary alone.
const LONG_IDLE: u32 = 7;
const IDLE: u32 = 9;
const BUSY: u32 = 4_000_000_000;
const NEW: u32 = 11;

/// pitfall 79, pitfall 80: no file of either server has an event of the idle domains when the primary dies. The pipe is at
/// work then, or away while there are changes of the others.
async fn transactions_of_all_domains_arrive_once_over_a_failover_however_long_a_domain_was_idle(
    kind: SourceKind,
) -> Result<()> {
    for away in [false, true] {
        ensure_all_domains_once(kind, away)
            .await
            .with_context(|| format!("the pipe is away: {away}"))?;
    }
    Ok(())
}

async fn ensure_all_domains_once(kind: SourceKind, away: bool) -> Result<()> {
    let made = [
        "CREATE TABLE t (id INT PRIMARY KEY, a INT)",
        "CREATE TABLE log (id INT PRIMARY KEY, a INT)",
    ];
    let (mut stage, replica) = followed(kind, &made).await?;
    allow_locks(&stage).await?;
    let rows = |id: u32| ["t", "log"].map(|table| format!("INSERT INTO {table} VALUES ({id}, 0)"));
    for (id, domain) in [(1, LONG_IDLE), (2, BUSY), (3, 0)] {
        in_domain(&stage, domain, &rows(id)).await?;
    }
    let mut file = file_with(&stage, &replica, &["t"]);
    let tables = file["tables"].as_array_mut().context("tables")?;
    tables.push(append(&stage, "log"));
    let mut pipe = running_with(&file).await?;
    for (id, domain) in [(10, IDLE), (11, BUSY), (12, 0)] {
        in_domain(&stage, domain, &rows(id)).await?;
    }
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    assert_each_change_once(&stage, "log", 3).await?;
    wait_followed(&replica, &stage.source_server).await?;
    for server in [&*stage.source_server, &replica] {
        purge_all_but_the_newest(server).await?;
    }
    if away {
        ensure!(pipe.stop().await? == 0);
    }
    for (id, domain) in [(20, BUSY), (21, 0), (22, BUSY)] {
        in_domain(&stage, domain, &rows(id)).await?;
    }
    wait_followed(&replica, &stage.source_server).await?;

    tokio::task::block_in_place(|| stage.source_server.kill())?;
    promote(&replica).await?;
    stage.source = Source::with_database(&replica, &stage.database).await?;
    in_domain(&stage, 0, &rows(30)).await?;
    if away {
        pipe.restart()?;
    }
    stage.wait_caught_up(&mut pipe, TAKE_OVER).await?;
    ensure!(stage.assert_same("t").await? == 10);
    assert_each_change_once(&stage, "log", 7).await?;
    // The idle ones awake.
    for (id, domain) in [(40, LONG_IDLE), (41, NEW), (42, IDLE), (43, BUSY), (44, 0)] {
        in_domain(&stage, domain, &rows(id)).await?;
    }
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    ensure!(stage.assert_same("t").await? == 15);
    assert_each_change_once(&stage, "log", 12).await?;
    pipe.wait_for("a checkpoint in every domain", CATCH_UP, |status| {
        let domains = place(status)
            .split(',')
            .filter_map(|gtid| gtid.trim().split('-').next());
        let domains: Vec<u32> = domains.filter_map(|domain| domain.parse().ok()).collect();
        domains.len() == 5
            && [0, LONG_IDLE, IDLE, NEW, BUSY]
                .iter()
                .all(|one| domains.contains(one))
    })
    .await?;
    Ok(())
}

/// pitfall 79: such a replica's binlog knows nothing of the domain.
async fn a_replica_that_began_with_a_backup_carries_a_domain_on_in_which_nothing_has_happened_since(
    kind: SourceKind,
) -> Result<()> {
    let mut stage = primary(kind).await?;
    let made = "CREATE TABLE t (id INT PRIMARY KEY, a INT)";
    let rows = "INSERT INTO t VALUES (1, 1), (2, 2)";
    stage.source.execute(made).await?;
    in_domain(&stage, LONG_IDLE, &[rows]).await?;
    let replica = server(kind).await?;
    let place: Vec<String> = stage.source.rows("SELECT @@GLOBAL.gtid_binlog_pos").await?;
    let database = &stage.database;
    let mut conn = Conn::from_url(replica.root_url()).await?;
    for statement in [
        "SET SESSION sql_log_bin = OFF",
        &format!("CREATE DATABASE `{database}`"),
        &format!("USE `{database}`"),
        &format!("CREATE TABLE {MARKER_TABLE} (id BIGINT AUTO_INCREMENT PRIMARY KEY)"),
        made,
        rows,
        &format!("SET GLOBAL gtid_slave_pos = '{}'", place.join("")),
    ] {
        conn.query_drop(statement)
            .await
            .context(statement.to_owned())?;
    }
    conn.disconnect().await?;
    follow(&replica, &stage.source_server).await?;
    let mut pipe = running_with(&file_with(&stage, &replica, &["t"])).await?;
    stage.source.execute("INSERT INTO t VALUES (3, 3)").await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    wait_followed(&replica, &stage.source_server).await?;
    tokio::task::block_in_place(|| stage.source_server.kill())?;
    promote(&replica).await?;
    stage.source = Source::with_database(&replica, &stage.database).await?;
    let state: Vec<String> = stage
        .source
        .rows("SELECT @@GLOBAL.gtid_binlog_state")
        .await?;
    let idle = format!("{LONG_IDLE}-");
    ensure!(
        !state
            .join("")
            .split(',')
            .any(|gtid| gtid.trim().starts_with(&idle)),
        "the new primary's binlog knows the idle domain: {state:?}"
    );
    stage.source.execute("INSERT INTO t VALUES (4, 4)").await?;
    stage.wait_caught_up(&mut pipe, TAKE_OVER).await?;
    ensure!(stage.assert_same("t").await? == 4);
    in_domain(&stage, LONG_IDLE, &["INSERT INTO t VALUES (5, 5)"]).await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    ensure!(stage.assert_same("t").await? == 5);
    Ok(())
}
