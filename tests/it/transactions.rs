//! Transactions that are not begun and committed in one go: XA, rollbacks that are logged, and ones larger than memory.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use serde_json::json;
use testbed::harness::Stage;
use testbed::soak::large;
use testbed::{SourceKind, SourceOptions, SourceServer};

use crate::support::{CATCH_UP, assert_caught_up, on_both_sources, once, program, running};

/// The program itself and the parts of the budget; without the disk it would be the transaction besides.
const PEAK_MAX: u64 = 250 << 20;

/// How long a server killed with prepared transactions may take to recover, and the pipe to find it.
const RECOVERY: Duration = Duration::from_secs(180);

on_both_sources! {
    rows_of_xa_transactions_appear_at_their_commit_whatever_was_restarted: 480,
    a_table_out_of_service_gets_the_xa_rows_prepared_before: 360,
    a_transaction_larger_than_memory_goes_by_disk: 480,
    a_statement_of_a_hundred_thousand_rows_arrives_whole: 360,
}

once! {
    rows_of_a_logged_rollback_are_not_shown: 300,
}

/// XA RECOVER lists the whole server's transactions, and a server is killed.
async fn own_source(kind: SourceKind) -> Result<Stage> {
    Stage::with_source(move || SourceServer::start(SourceOptions::new(kind))).await
}

async fn run(conn: &mut Conn, statements: &[&str]) -> Result<()> {
    for statement in statements {
        conn.query_drop(*statement).await?;
    }
    Ok(())
}

/// Prepares what these statements do, in a session that then goes away.
pub(crate) async fn prepare(stage: &Stage, name: &str, statements: &[&str]) -> Result<()> {
    let mut conn = stage.source.connect().await?;
    conn.query_drop(format!("XA START '{name}'")).await?;
    run(&mut conn, statements).await?;
    conn.query_drop(format!("XA END '{name}'")).await?;
    conn.query_drop(format!("XA PREPARE '{name}'")).await?;
    Ok(conn.disconnect().await?)
}

/// Ends a prepared transaction. Until the server has noticed that its session is gone, it belongs to that.
pub(crate) async fn decide(conn: &mut Conn, statement: &str) -> Result<()> {
    const UNKNOWN_XID: u16 = 1397;
    for _ in 0..100 {
        match conn.query_drop(statement).await {
            Err(mysql_async::Error::Server(error)) if error.code == UNKNOWN_XID => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            done => return Ok(done?),
        }
    }
    anyhow::bail!("`{statement}` finds nothing to decide")
}

pub(crate) async fn shown(stage: &Stage, condition: &str) -> Result<u64> {
    let sql = format!(
        "SELECT count() FROM `{}`.t_current WHERE {condition}",
        stage.database
    );
    stage.clickhouse.number(&sql).await
}

/// Tables of one flush are written at once: the marker may be there before the others.
pub(crate) async fn wait_shown(stage: &Stage, condition: &str, count: u64) -> Result<()> {
    let until = Instant::now() + CATCH_UP;
    while shown(stage, condition).await? != count {
        ensure!(Instant::now() < until, "not {count} rows where {condition}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// pitfall 96: on MySQL the rows come at PREPARE, and may wait for days.
async fn rows_of_xa_transactions_appear_at_their_commit_whatever_was_restarted(
    kind: SourceKind,
) -> Result<()> {
    let stage = own_source(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a TEXT)",
            "CREATE TABLE u (id INT PRIMARY KEY, a INT)",
            "CREATE TABLE foreign_one (id INT PRIMARY KEY)",
            "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd')",
        ])
        .await?;
    let mut pipe = running(&stage, &["t", "u"]).await?;
    let changes = [
        "UPDATE t SET a = 'prepared' WHERE id = 1",
        "DELETE FROM t WHERE id = 2",
        "UPDATE t SET id = 30 WHERE id = 3",
        "INSERT INTO t VALUES (50, 'prepared')",
        "INSERT INTO u VALUES (1, 1), (2, 2)",
        "INSERT INTO foreign_one VALUES (1)",
    ];
    prepare(&stage, "held", &changes).await?;
    prepare(&stage, "gone", &["INSERT INTO t VALUES (60, 'never')"]).await?;
    // Larger than what is written from memory.
    let numbers = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 600) \
                   SELECT 1000 + n, REPEAT('x', 15000) FROM n";
    prepare(&stage, "large", &[&format!("INSERT INTO t {numbers}")]).await?;
    prepare(&stage, "elsewhere", &["INSERT INTO foreign_one VALUES (2)"]).await?;
    stage
        .source
        .execute_all([
            "INSERT INTO t VALUES (70, 'after')",
            "FLUSH BINARY LOGS",
            "UPDATE t SET a = 'later' WHERE id = 4",
        ])
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    wait_shown(&stage, "a IN ('after', 'later')", 2).await?;
    ensure!(shown(&stage, "a = 'prepared' OR id IN (30, 60) OR id > 1000").await? == 0);
    pipe.kill9()?;
    pipe.restart()?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    tokio::task::block_in_place(|| {
        stage.source_server.kill()?;
        stage.source_server.start_again()
    })?;
    stage.wait_caught_up(&mut pipe, RECOVERY).await?;
    ensure!(shown(&stage, "id IN (2, 3)").await? == 2);

    let mut conn = stage.source.connect().await?;
    decide(&mut conn, "XA ROLLBACK 'gone'").await?;
    decide(&mut conn, "XA COMMIT 'elsewhere'").await?;
    decide(&mut conn, "XA COMMIT 'held'").await?;
    run(&mut conn, &["UPDATE t SET a = 'newest' WHERE id = 50"]).await?;
    decide(&mut conn, "XA COMMIT 'large'").await?;
    // The same name again, decided at once and at its second attempt.
    for id in [80, 81] {
        prepare(
            &stage,
            "held",
            &[&format!("INSERT INTO t VALUES ({id}, 'again')")],
        )
        .await?;
        decide(&mut conn, "XA COMMIT 'held'").await?;
    }
    run(
        &mut conn,
        &[
            "XA START 'one'",
            "INSERT INTO t VALUES (90, 'one phase')",
            "XA END 'one'",
            "XA COMMIT 'one' ONE PHASE",
        ],
    )
    .await?;
    assert_caught_up(&stage, &mut pipe, &["t", "u"]).await?;
    ensure!(shown(&stage, "id IN (30, 50, 80, 81, 90) OR id > 1000").await? == 605);
    // All of them from the state and from the binlog give the same.
    pipe.kill9()?;
    pipe.restart()?;
    assert_caught_up(&stage, &mut pipe, &["t", "u"]).await
}

/// pitfall 96: while the decision passes, the table stands before it.
async fn a_table_out_of_service_gets_the_xa_rows_prepared_before(kind: SourceKind) -> Result<()> {
    let stage = own_source(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT, day DATE, PRIMARY KEY (id, day))",
            "CREATE TABLE u (id INT PRIMARY KEY, a INT)",
        ])
        .await?;
    let mut pipe = running(&stage, &["t", "u"]).await?;
    prepare(
        &stage,
        "both",
        &[
            "INSERT INTO t VALUES (1, '2024-01-01')",
            "INSERT INTO u VALUES (1, 1)",
        ],
    )
    .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    // A key that ClickHouse's Date32 does not hold, behind a decision that concerns another table: one flush has both.
    let (status, answer) = pipe.command("pause").await?;
    ensure!(status == 200, "{answer:#}");
    pipe.wait_state("Paused", CATCH_UP).await?;
    let mut conn = stage.source.connect().await?;
    prepare(&stage, "strangers", &["INSERT INTO u VALUES (2, 2)"]).await?;
    decide(&mut conn, "XA COMMIT 'strangers'").await?;
    stage
        .source
        .execute("INSERT INTO t VALUES (2, '1800-01-01')")
        .await?;
    let (status, answer) = pipe.command("resume").await?;
    ensure!(status == 200, "{answer:#}");
    pipe.wait_state("Degraded", CATCH_UP).await?;
    prepare(&stage, "later", &["INSERT INTO t VALUES (3, '2024-01-03')"]).await?;
    decide(&mut conn, "XA COMMIT 'both'").await?;
    decide(&mut conn, "XA COMMIT 'later'").await?;
    assert_caught_up(&stage, &mut pipe, &["u"]).await?;
    ensure!(shown(&stage, "1").await? == 0);
    let table = format!("{}.t", stage.database);
    let (status, answer) = pipe
        .order(json!({ "command": "skip", "table": table }))
        .await?;
    ensure!(status == 200, "{answer:#}");
    pipe.wait_for("t streams again", CATCH_UP, |status| {
        status["tables"].as_array().is_some_and(|tables| {
            tables
                .iter()
                .any(|found| found["source"] == table.as_str() && found["state"] == "Streaming")
        })
    })
    .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    // All but the row that was passed over.
    ensure!(shown(&stage, "id IN (1, 3)").await? == 2);
    ensure!(shown(&stage, "1").await? == 2);
    Ok(())
}

/// pitfall 93, pitfall 94: a transaction that also wrote to a table without transactions is logged although it was
/// rolled back; `outside` is written as a statement, and so in the same group. MariaDB writes `outside` by itself unless a
/// savepoint is there to be rolled back to. MySQL 9.7 logs no rollback of rows: with GTIDs it refuses such a transaction
/// (error 1785), without them it writes `outside` as rows and by itself. What earlier versions log has a test beside the
/// reader of groups.
async fn rows_of_a_logged_rollback_are_not_shown() -> Result<()> {
    let stage = own_source(SourceKind::MariaDb).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a VARCHAR(40)) ENGINE = InnoDB",
            "CREATE TABLE kept (id INT PRIMARY KEY, a VARCHAR(40)) ENGINE = MyISAM",
            "CREATE TABLE outside (id INT) ENGINE = MyISAM",
        ])
        .await?;
    let mut pipe = running(&stage, &["t", "kept"]).await?;
    let mut conn = stage.source.connect().await?;
    run(
        &mut conn,
        &[
            // UUID() makes a statement one that is logged as rows.
            "SET SESSION binlog_format = MIXED",
            "START TRANSACTION",
            "INSERT INTO t VALUES (1, UUID())",
            "INSERT INTO outside VALUES (1)",
            "INSERT INTO kept VALUES (1, UUID())",
            "ROLLBACK",
            "START TRANSACTION",
            "INSERT INTO t VALUES (2, UUID())",
            "SAVEPOINT s",
            "INSERT INTO t VALUES (3, UUID())",
            "INSERT INTO outside VALUES (2)",
            "ROLLBACK TO s",
            "INSERT INTO t VALUES (4, UUID())",
            "COMMIT",
        ],
    )
    .await?;
    // Decided while its rows are in memory, and when they are in the state.
    for (name, id) in [("soon", 10), ("late", 20)] {
        let (stays, goes) = (id, id + 1);
        run(
            &mut conn,
            &[
                &format!("XA START '{name}'"),
                &format!("INSERT INTO t VALUES ({stays}, UUID())"),
                "SAVEPOINT s",
                &format!("INSERT INTO t VALUES ({goes}, UUID())"),
                &format!("INSERT INTO outside VALUES ({id})"),
                "ROLLBACK TO s",
                &format!("XA END '{name}'"),
                &format!("XA PREPARE '{name}'"),
            ],
        )
        .await?;
        if name == "late" {
            stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
        }
        run(&mut conn, &[&format!("XA COMMIT '{name}'")]).await?;
    }
    assert_caught_up(&stage, &mut pipe, &["t", "kept"]).await?;
    let file = current_file(&mut conn).await?;
    let events = format!("SHOW BINLOG EVENTS IN '{file}'");
    let binlog: Vec<mysql_async::Row> = conn.query(events).await?;
    let rolled_back = binlog.iter().filter(|row| {
        row.get::<String, _>("Info")
            .is_some_and(|info| info.starts_with("ROLLBACK"))
    });
    let logged = rolled_back.count();
    ensure!(logged >= 1, "no rollback was logged");
    eprintln!("{logged} rollbacks were logged");
    ensure!(shown(&stage, "id IN (2, 4, 10, 20)").await? == 4);
    let version = format!("SELECT count() FROM `{}`.t", stage.database);
    ensure!(
        stage.clickhouse.number(&version).await? == 4,
        "rows were written and hidden"
    );
    Ok(())
}

async fn current_file(conn: &mut Conn) -> Result<String> {
    let row: Option<mysql_async::Row> = conn.query_first("SHOW MASTER STATUS").await?;
    Ok(row.and_then(|row| row.get(0)).unwrap_or_default())
}

/// pitfall 97: 200 MiB in one transaction, on MySQL compressed as well (pitfall 54), through a budget of 64 MiB.
async fn a_transaction_larger_than_memory_goes_by_disk(kind: SourceKind) -> Result<()> {
    let stage = own_source(kind).await?;
    let peak = large::spill(&stage, program(), 200, "64MiB").await?;
    eprintln!("{} MiB at the most", peak >> 20);
    ensure!(peak < PEAK_MAX, "{} MiB at the most", peak >> 20);
    Ok(())
}

/// `testbed soak statement` has a million, which goes by disk.
async fn a_statement_of_a_hundred_thousand_rows_arrives_whole(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    large::statement(&stage, program(), 100, "64MiB").await
}
