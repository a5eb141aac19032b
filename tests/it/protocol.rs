//! The binlog as a replica asks for it: connections that die unseen, acknowledgements that nobody waits for, when
//! something was committed, and what MariaDB says in its own way.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable;
use serde_json::{Value, json};
use testbed::harness::{Pipe, Proxy, Stage};
use testbed::{SourceKind, SourceOptions, SourceServer};

use crate::support::{
    CATCH_UP, START, assert_caught_up, on_both_sources, once, place, purge_all_but_the_newest,
    running, running_with,
};

/// Longer than a source may be silent.
const LONGER_THAN_SILENCE: Duration = Duration::from_secs(40);

/// How long a statement takes at the source, and for how much of that the test is sure.
const SLOW_SECONDS: u64 = 4;
const SLOW_SECONDS_SURE: u64 = 3;

on_both_sources! {
    an_idle_connection_is_kept_and_a_dead_one_is_noticed: 420,
    commits_wait_for_no_acknowledgement_of_ours_and_have_the_time_of_the_commit: 300,
}

once! {
    an_event_that_takes_longer_than_a_source_may_be_silent_arrives: 300,
    a_domain_that_was_idle_for_long_is_kept_and_one_that_was_forgotten_is_named: 360,
    statements_that_mariadb_writes_in_its_own_way_are_understood: 300,
}

async fn with_table(options: SourceOptions) -> Result<Stage> {
    let stage = Stage::with_source(move || SourceServer::start(options)).await?;
    stage
        .source
        .execute("CREATE TABLE t (id INT PRIMARY KEY, a INT)")
        .await?;
    Ok(stage)
}

/// The connections of the server that send a binlog.
async fn dumps(stage: &Stage) -> Result<Vec<u64>> {
    stage
        .source
        .rows("SELECT id FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'")
        .await
}

/// pitfall 70: heartbeats come often enough (their period is told in nanoseconds) to keep a connection that has nothing
/// else to say, and one over which nothing comes any more, although it is open, is given up for another.
async fn an_idle_connection_is_kept_and_a_dead_one_is_noticed(kind: SourceKind) -> Result<()> {
    let stage = with_table(SourceOptions::new(kind)).await?;
    let proxy = Proxy::before(stage.source_server.port()).await?;
    let mut file = stage.pipe_file(&["t"]);
    file["source"]["port"] = json!(proxy.port());
    let mut pipe = running_with(&file).await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    let first = dumps(&stage).await?;
    ensure!(first.len() == 1, "{first:?}");
    tokio::time::sleep(LONGER_THAN_SILENCE).await;
    let kept = dumps(&stage).await?;
    ensure!(
        kept == first,
        "the idle connection {first:?} became {kept:?}"
    );
    proxy.stall();
    stage.source.execute("INSERT INTO t VALUES (1, 1)").await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    let fresh = dumps(&stage).await?;
    ensure!(
        fresh.iter().any(|connection| !first.contains(connection)),
        "the rows came over a dead connection: {fresh:?}"
    );
    Ok(())
}

/// pitfall 70: in the middle of an event no heartbeat comes, and none is missed while parts of it do.
async fn an_event_that_takes_longer_than_a_source_may_be_silent_arrives() -> Result<()> {
    const EVENT_BYTES: u64 = 10_000_000;
    let stage = with_table(SourceOptions::new(SourceKind::MySql)).await?;
    stage
        .source
        .execute("ALTER TABLE t ADD COLUMN text LONGTEXT")
        .await?;
    let proxy = Proxy::before(stage.source_server.port()).await?;
    let mut file = stage.pipe_file(&["t"]);
    file["source"]["port"] = json!(proxy.port());
    let mut pipe = running_with(&file).await?;
    let first = dumps(&stage).await?;
    proxy.slow_down(EVENT_BYTES / LONGER_THAN_SILENCE.as_secs());
    let began = Instant::now();
    stage
        .source
        .execute(&format!(
            "INSERT INTO t VALUES (1, 1, REPEAT('x', {EVENT_BYTES}))"
        ))
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    ensure!(
        began.elapsed() >= LONGER_THAN_SILENCE,
        "it came in {:?}",
        began.elapsed()
    );
    let kept = dumps(&stage).await?;
    ensure!(kept == first, "the connection {first:?} became {kept:?}");
    stage.assert_same("t").await?;
    Ok(())
}

/// Where each family keeps what semi-synchronous replication is set to and does.
struct SemiSync {
    options: &'static [&'static str],
    enabled: &'static str,
    clients: &'static str,
}

fn semi_sync(kind: SourceKind) -> SemiSync {
    if kind.is_mariadb() {
        SemiSync {
            options: &[
                "--rpl-semi-sync-master-enabled=ON",
                "--rpl-semi-sync-master-timeout=1000",
            ],
            enabled: "SELECT @@GLOBAL.rpl_semi_sync_master_enabled",
            clients: "SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_master_clients'",
        }
    } else {
        SemiSync {
            options: &[
                "--plugin-load-add=semisync_source.so",
                "--rpl-semi-sync-source-enabled=ON",
                "--rpl-semi-sync-source-timeout=1000",
            ],
            enabled: "SELECT @@GLOBAL.rpl_semi_sync_source_enabled",
            clients: "SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_source_clients'",
        }
    }
}

/// The time of the newest durable commit, to the second.
fn committed_at(status: &Value) -> Option<&str> {
    status["checkpoint"]["source_committed_at"]
        .as_str()?
        .get(..19)
}

/// pitfall 72: a replica that announces itself as semi-synchronous lets every commit at the source wait for it. pitfall
/// 73: an event's header has the time at which its statement began.
async fn commits_wait_for_no_acknowledgement_of_ours_and_have_the_time_of_the_commit(
    kind: SourceKind,
) -> Result<()> {
    let semi_sync = semi_sync(kind);
    let mut options = SourceOptions::new(kind);
    for option in semi_sync.options {
        options = options.arg(*option);
    }
    let stage = with_table(options).await?;
    ensure!(
        stage.source.number(semi_sync.enabled).await? == 1,
        "semi-synchronous replication is off"
    );
    let mut pipe = running(&stage, &["t"]).await?;
    stage.source.execute("INSERT INTO t VALUES (1, 1)").await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    let clients: Vec<(String, u64)> = stage.source.rows(semi_sync.clients).await?;
    ensure!(
        clients.first().is_some_and(|(_, count)| *count == 0),
        "the pipe is among those whose acknowledgement is waited for: {clients:?}"
    );

    let mut conn = stage.source.connect().await?;
    let sure = format!(
        "SELECT DATE_FORMAT(UTC_TIMESTAMP() + INTERVAL {SLOW_SECONDS_SURE} SECOND, '%Y-%m-%dT%H:%i:%s')"
    );
    let sure: Option<String> = conn.query_first(sure).await?;
    let sure = sure.context("the source tells no time")?;
    if kind.is_mariadb() {
        // To the second, and of the statement that commits.
        conn.query_drop("START TRANSACTION").await?;
        conn.query_drop("INSERT INTO t VALUES (2, 2)").await?;
        tokio::time::sleep(Duration::from_secs(SLOW_SECONDS)).await;
        conn.query_drop("COMMIT").await?;
    } else {
        conn.query_drop(format!("INSERT INTO t SELECT 2, SLEEP({SLOW_SECONDS})"))
            .await?;
    }
    // No later commit is there that would bring its own time.
    let what = format!("a checkpoint of a commit at {sure} or later");
    pipe.wait_for(&what, CATCH_UP, |status| {
        committed_at(status).is_some_and(|at| at >= sure.as_str())
    })
    .await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await
}

/// Runs statements whose GTIDs are of this domain of MariaDB.
pub(crate) async fn in_domain(
    stage: &Stage,
    domain: u32,
    statements: &[impl AsRef<str>],
) -> Result<()> {
    let mut conn = stage.source.connect().await?;
    conn.query_drop(format!("SET SESSION gtid_domain_id = {domain}"))
        .await?;
    for statement in statements {
        conn.query_drop(statement.as_ref()).await?;
    }
    // Not for whoever takes it from the pool next.
    Ok(conn.disconnect().await?)
}

async fn assert_place_has_domain_7(pipe: &Pipe) -> Result<()> {
    let status = pipe.status().await?;
    let place = place(&status);
    let mut domains = place.split(',').map(str::trim);
    ensure!(
        domains.any(|gtid| gtid.starts_with("7-")) && place.contains("0-"),
        "a domain is missing: {place}"
    );
    Ok(())
}

/// pitfall 77: only a replica that says what it understands is sent GTIDs. pitfall 79: a place without one of the server's
/// domains would be read from that domain's beginning, and of a domain that the server does not know it says nothing.
async fn a_domain_that_was_idle_for_long_is_kept_and_one_that_was_forgotten_is_named() -> Result<()>
{
    let stage = with_table(SourceOptions::new(SourceKind::MariaDb)).await?;
    in_domain(&stage, 7, &["INSERT INTO t VALUES (1, 7)"]).await?;
    let mut pipe = running(&stage, &["t"]).await?;
    stage.source.execute("INSERT INTO t VALUES (2, 0)").await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    assert_place_has_domain_7(&pipe).await?;
    ensure!(pipe.stop().await? == 0);
    // No file has an event of it any more; that it was there stands at the head of each.
    purge_all_but_the_newest(&stage.source_server).await?;
    stage.source.execute("UPDATE t SET a = a + 1").await?;
    pipe.restart()?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    assert_place_has_domain_7(&pipe).await?;
    in_domain(
        &stage,
        7,
        &["INSERT INTO t VALUES (3, 7)", "DELETE FROM t WHERE id = 1"],
    )
    .await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    pipe.kill9()?;
    purge_all_but_the_newest(&stage.source_server).await?;
    stage
        .source
        .execute("FLUSH BINARY LOGS DELETE_DOMAIN_ID = (7)")
        .await?;
    pipe.restart()?;
    let status = pipe
        .wait_for("Failed", START, |status| status["state"] == "Failed")
        .await?;
    let reasons = status["reasons"].to_string();
    ensure!(
        reasons.contains("source_diverged")
            && reasons.contains(": 7-")
            && reasons.contains("DELETE_DOMAIN_ID"),
        "{status:#}"
    );
    Ok(())
}

/// pitfall 87: the rows come in events of version 1. pitfall 88: words that no MySQL has, statements in comments, and one
/// statement that drops and makes a table.
async fn statements_that_mariadb_writes_in_its_own_way_are_understood() -> Result<()> {
    let stage = Stage::shared(SourceKind::MariaDb).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a JSON)",
            "INSERT INTO t VALUES (1, '{\"b\": [1, 2]}'), (2, NULL)",
            "CREATE TABLE u (id INT PRIMARY KEY)",
        ])
        .await?;
    let mut pipe = running(&stage, &["t", "u"]).await?;
    for (id, statement) in [
        (10, "ALTER ONLINE TABLE t ADD COLUMN b INT DEFAULT 3"),
        (
            11,
            "SET STATEMENT max_statement_time = 60, lock_wait_timeout = 50 FOR \
             ALTER TABLE t ADD COLUMN c VARCHAR(20) DEFAULT 'FOR ALL'",
        ),
        (12, "/*M!100000 ALTER TABLE t ADD COLUMN d INT */"),
        (13, "ALTER TABLE t /*!50000 ADD COLUMN e INT */"),
        (14, "RENAME TABLES t TO t_away, t_away TO t"),
        (
            15,
            "CREATE OR REPLACE TABLE foreign_one (id INT PRIMARY KEY)",
        ),
    ] {
        stage.source.execute(statement).await?;
        let rows = [
            format!("INSERT INTO t (id, a) VALUES ({id}, '{{\"id\": {id}}}')"),
            format!("UPDATE t SET a = '[1.50, {id}]' WHERE id = 1"),
            format!("DELETE FROM t WHERE id = {}", id - 1),
        ];
        stage.source.execute_all(rows).await?;
        assert_caught_up(&stage, &mut pipe, &["t"])
            .await
            .with_context(|| format!("behind `{statement}`"))?;
    }
    let status = pipe.status().await?;
    ensure!(
        status["state"] == "Running" && status["tables"][0]["snapshot"]["rows"] == 2,
        "a table was loaded again: {status:#}"
    );
    stage
        .source
        .execute_all([
            "CREATE OR REPLACE TABLE t (name VARCHAR(20) PRIMARY KEY)",
            "INSERT INTO t VALUES ('x')",
            "INSERT INTO u VALUES (1)",
        ])
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    // The table of before is put aside, and the new one is loaded.
    for _ in 0..5 {
        if stage.assert_same("t").await.is_ok() {
            break;
        }
    }
    assert_caught_up(&stage, &mut pipe, &["t", "u"]).await
}
