//! Servers that go away and come back: the pipe waits, says so, and goes on by itself.

use std::time::Duration;

use anyhow::{Result, ensure};
use mysql_async::prelude::Queryable;
use serde_json::json;
use testbed::harness::{Held, Stage};
use testbed::{ClickHouseOptions, ClickHouseServer, SourceKind, SourceOptions, SourceServer};

use crate::support::{
    CATCH_UP, START, Seed, Workload, assert_caught_up, launch, on_both_sources, start,
};

/// How long a server stays away.
const AWAY: Duration = Duration::from_secs(10);

/// How long a load of many small partitions may take beside other tests.
const LOAD: Duration = Duration::from_secs(180);

on_both_sources! {
    clickhouse_killed_for_ten_seconds_loses_nothing: 240,
    clickhouse_away_costs_neither_the_binlog_connection_nor_a_second_reading: 360,
    a_source_restarted_while_streaming_loses_nothing: 300,
    a_source_killed_during_the_load_loses_nothing: 300,
    a_connection_killed_by_the_source_is_opened_again: 300,
}

async fn clickhouse_killed_for_ten_seconds_loses_nothing(kind: SourceKind) -> Result<()> {
    let seed = Seed::new("clickhouse_killed_for_ten_seconds_loses_nothing");
    let stage = Stage::with_clickhouse(kind, || {
        ClickHouseServer::start(ClickHouseOptions::default())
    })
    .await?;
    let workload = Workload { row_count: 2_000 };
    workload.create(&stage).await?;
    let mut file = stage.pipe_file(&Workload::TABLES);
    file["destination"]["durability"] = json!("fsync");
    let mut pipe = start(launch(&file))?;
    pipe.wait_state("Running", START).await?;
    let writer = workload.write(&stage.source, seed.generator(1));
    tokio::time::sleep(Duration::from_secs(1)).await;
    tokio::task::block_in_place(|| stage.clickhouse_server.kill())?;
    tokio::time::sleep(AWAY).await;
    let status = pipe.status().await?;
    ensure!(
        status["state"] == "Running",
        "an outage changed the state: {status:#}"
    );
    ensure!(
        !status["reasons"].as_array().is_none_or(Vec::is_empty),
        "the outage is not among the reasons: {status:#}"
    );
    tokio::task::block_in_place(|| stage.clickhouse_server.start_again())?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    writer.stop().await?;
    assert_caught_up(&stage, &mut pipe, &Workload::TABLES).await?;
    let cleared = pipe
        .wait_for("no reasons", CATCH_UP, |status| {
            status["reasons"].as_array().is_some_and(Vec::is_empty)
        })
        .await?;
    ensure!(cleared["state"] == "Running");
    Ok(())
}

/// pitfall 71: longer than a silent source is waited for and a pipe may try again unnoticed, with more rows than the pipe
/// holds, of one statement.
async fn clickhouse_away_costs_neither_the_binlog_connection_nor_a_second_reading(
    kind: SourceKind,
) -> Result<()> {
    const LONG: Duration = Duration::from_secs(70);
    let (source, clickhouse) = tokio::task::spawn_blocking(move || {
        anyhow::Ok((
            SourceServer::start(SourceOptions::new(kind))?,
            ClickHouseServer::start(ClickHouseOptions::default())?,
        ))
    })
    .await??;
    let stage = Stage::on(Held::Own(Box::new(source)), Held::Own(Box::new(clickhouse))).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, a VARCHAR(200))",
            "INSERT INTO t (a) VALUES ('1'), ('2'), ('3'), ('4'), ('5'), ('6'), ('7'), ('8'), ('9'), ('10')",
        ])
        .await?;
    let mut file = stage.pipe_file(&["t"]);
    file["sync"] = json!({ "interval": "200ms", "max_rows": 5_000 });
    file["destination"]["durability"] = json!("fsync");
    let mut pipe = start(launch(&file))?;
    pipe.wait_state("Running", START).await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    let dumps = "SELECT id FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'";
    let before: Vec<u64> = stage.source.rows(dumps).await?;
    ensure!(before.len() == 1, "{before:?}");
    tokio::task::block_in_place(|| stage.clickhouse_server.kill())?;
    stage
        .source
        .execute_all([
            "INSERT INTO t (a) SELECT CONCAT(REPEAT('x', 150), a.id) FROM t a, t b, t c, t d, t e",
            "UPDATE t SET a = CONCAT('changed ', id)",
            "DELETE FROM t WHERE id % 3 = 0",
        ])
        .await?;
    tokio::time::sleep(LONG).await;
    let status = pipe.wait_state("Degraded", CATCH_UP).await?;
    ensure!(
        status["reasons"][0]["code"] == "destination_unavailable"
            && status["reasons"][0]["kind"] == "retrying",
        "the outage is not among the reasons: {status:#}"
    );
    tokio::task::block_in_place(|| stage.clickhouse_server.start_again())?;
    stage.wait_caught_up(&mut pipe, LOAD).await?;
    let status = pipe.wait_state("Running", CATCH_UP).await?;
    ensure!(status["reasons"] == json!([]), "{status:#}");
    ensure!(stage.assert_same("t").await? > 60_000);
    let after: Vec<u64> = stage.source.rows(dumps).await?;
    ensure!(before == after, "{before:?} became {after:?}");
    Ok(())
}

async fn a_source_restarted_while_streaming_loses_nothing(kind: SourceKind) -> Result<()> {
    let seed = Seed::new("a_source_restarted_while_streaming_loses_nothing");
    let stage = Stage::with_source(move || SourceServer::start(SourceOptions::new(kind))).await?;
    let workload = Workload { row_count: 2_000 };
    workload.create(&stage).await?;
    let mut pipe = start(launch(&stage.pipe_file(&Workload::TABLES)))?;
    pipe.wait_state("Running", START).await?;
    let writer = workload.write(&stage.source, seed.generator(1));
    for kill in [false, true] {
        tokio::time::sleep(Duration::from_secs(1)).await;
        tokio::task::block_in_place(|| {
            if kill {
                stage.source_server.kill()
            } else {
                stage.source_server.stop()
            }?;
            stage.source_server.start_again()
        })?;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    writer.stop().await?;
    assert_caught_up(&stage, &mut pipe, &Workload::TABLES).await
}

async fn a_source_killed_during_the_load_loses_nothing(kind: SourceKind) -> Result<()> {
    let seed = Seed::new("a_source_killed_during_the_load_loses_nothing");
    let stage = Stage::with_source(move || SourceServer::start(SourceOptions::new(kind))).await?;
    let workload = Workload { row_count: 12_000 };
    workload.create(&stage).await?;
    let mut file = stage.pipe_file(&Workload::TABLES);
    file["snapshot"] = json!({ "rows_per_partition": 300, "threads_per_table": 1 });
    let writer = workload.write(&stage.source, seed.generator(1));
    let mut pipe = start(launch(&file))?;
    pipe.wait_for("a partition", START, |status| {
        status["tables"].as_array().is_some_and(|tables| {
            tables
                .iter()
                .any(|table| table["snapshot"]["partitions_done"].as_u64() > Some(3))
        })
    })
    .await?;
    tokio::task::block_in_place(|| {
        stage.source_server.kill()?;
        stage.source_server.start_again()
    })?;
    pipe.wait_state("Running", LOAD).await?;
    writer.stop().await?;
    assert_caught_up(&stage, &mut pipe, &Workload::TABLES).await
}

async fn a_connection_killed_by_the_source_is_opened_again(kind: SourceKind) -> Result<()> {
    let stage = Stage::with_source(move || SourceServer::start(SourceOptions::new(kind))).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY)",
            "INSERT INTO t VALUES (1)",
        ])
        .await?;
    let mut pipe = start(launch(&stage.pipe_file(&["t"])))?;
    pipe.wait_state("Running", START).await?;
    let mut conn = stage.source.connect().await?;
    for id in 2..6 {
        let connections: Vec<u64> = conn
            .query("SELECT id FROM information_schema.processlist WHERE user = 'pipewright'")
            .await?;
        for connection in connections {
            // Gone already is fine.
            conn.query_drop(format!("KILL {connection}")).await.ok();
        }
        conn.query_drop(format!("INSERT INTO t VALUES ({id})"))
            .await?;
        assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    }
    Ok(())
}
