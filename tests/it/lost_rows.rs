//! ClickHouse comes back with less than it had acknowledged, or without targets: what can be read again is, and otherwise
//! the pipe fails, says why, and goes on once that is mended.

use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{Comparison, MARKER_TABLE, Pipe, Stage};

use crate::support::{
    CATCH_UP, START, Seed, Workload, allow_locks, append, assert_caught_up,
    assert_each_change_once, on_both_sources, running_with,
};

on_both_sources! {
    rows_that_clickhouse_has_lost_are_read_again_or_fail_the_pipe: 500,
    a_pipe_fails_when_no_table_is_left_and_starts_again_when_that_is_mended: 400,
}

/// The mirror of the checkpoints.
const MIRROR: &str = "_pipewright_checkpoints";

/// What is restored from the backup.
const RESTORED: [&str; 4] = ["people", "log", MARKER_TABLE, MIRROR];

/// The last of them, at once: a pipe at work sees the checkpoints of then or those of now.
fn exchange_mirrors(database: &str) -> String {
    format!("EXCHANGE TABLES `{database}`.`{MIRROR}` AND `{database}`.`backup_{MIRROR}`")
}

async fn at_clickhouse(stage: &Stage, statements: &[String]) -> Result<()> {
    for statement in statements {
        stage.clickhouse.query(statement).await?;
    }
    Ok(())
}

/// Keeps what the tables have now.
async fn back_up(stage: &Stage) -> Result<()> {
    let database = &stage.database;
    let copies = RESTORED.iter().flat_map(|table| {
        let backup = format!("`{database}`.`backup_{table}`");
        [
            format!("CREATE OR REPLACE TABLE {backup} AS `{database}`.`{table}`"),
            format!("INSERT INTO {backup} SELECT * FROM `{database}`.`{table}`"),
        ]
    });
    at_clickhouse(stage, &copies.collect::<Vec<_>>()).await
}

/// Puts it back in the place of what they have got since.
async fn restore(stage: &Stage) -> Result<()> {
    let database = &stage.database;
    let tables = RESTORED.iter().filter(|table| **table != MIRROR);
    let restored = tables.flat_map(|table| {
        [
            format!("TRUNCATE TABLE `{database}`.`{table}` SYNC"),
            format!(
                "INSERT INTO `{database}`.`{table}` SELECT * FROM `{database}`.`backup_{table}`"
            ),
        ]
    });
    let restored = restored.chain([exchange_mirrors(database)]);
    at_clickhouse(stage, &restored.collect::<Vec<_>>()).await
}

async fn wait_failed(pipe: &mut Pipe, code: &str) -> Result<Value> {
    let failed = |status: &Value| status["state"] == "Failed";
    let status = pipe.wait_for("failure", START, failed).await?;
    ensure!(
        status["reasons"][0]["code"] == code
            && status["reasons"][0]["remedy"]
                .to_string()
                .contains("resync"),
        "{status:#}"
    );
    Ok(status)
}

async fn command(pipe: &Pipe, command: &str) -> Result<()> {
    let (status, document) = pipe.command(command).await?;
    ensure!(status == 200, "{command}: {status} {document:#}");
    Ok(())
}

async fn rows_that_clickhouse_has_lost_are_read_again_or_fail_the_pipe(
    kind: SourceKind,
) -> Result<()> {
    let seed = Seed::new("rows_that_clickhouse_has_lost_are_read_again_or_fail_the_pipe");
    let stage = Stage::shared(kind).await?;
    let workload = Workload { row_count: 500 };
    workload.create(&stage).await?;
    allow_locks(&stage).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE log (id INT PRIMARY KEY, a INT)",
            "INSERT INTO log VALUES (1, 1), (2, 2)",
        ])
        .await?;
    let people = json!({ "source": format!("{}.people", stage.database) });
    let file = stage.pipe_file_of(vec![people, append(&stage, "log")]);
    let mut pipe = running_with(&file).await?;
    stage.source.execute("UPDATE log SET a = 10").await?;
    assert_caught_up(&stage, &mut pipe, &["people"]).await?;
    back_up(&stage).await?;
    let writer = workload.write(&stage.source, seed.generator(1));
    stage
        .source
        .execute_all([
            "UPDATE log SET a = 20",
            "INSERT INTO log VALUES (3, 3)",
            "DELETE FROM people WHERE id < 50",
        ])
        .await?;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    writer.stop().await?;
    assert_caught_up(&stage, &mut pipe, &["people"]).await?;
    assert_each_change_once(&stage, "log", 5).await?;

    // Back to a checkpoint behind the load: what came after it is in the binlog.
    ensure!(pipe.stop().await? == 0);
    restore(&stage).await?;
    let lost = format!("SELECT count() FROM `{}`.log", stage.database);
    ensure!(
        stage.clickhouse.number(&lost).await? == 4,
        "nothing was lost"
    );
    stage.source.execute("DELETE FROM log WHERE id = 2").await?;
    pipe.restart()?;
    pipe.wait_state("Running", START).await?;
    assert_caught_up(&stage, &mut pipe, &["people"]).await?;
    assert_each_change_once(&stage, "log", 6).await?;

    older_under_an_idle_pipe(&stage, &mut pipe).await?;
    assert_each_change_once(&stage, "log", 8).await?;
    without_checkpoints_for_a_while(&stage, &mut pipe).await?;
    assert_each_change_once(&stage, "log", 10).await?;
    without_checkpoints_for_good(&stage, &mut pipe).await
}

/// Nobody asks while the source is idle. The next checkpoint would hide for good what is gone.
async fn older_under_an_idle_pipe(stage: &Stage, pipe: &mut Pipe) -> Result<()> {
    back_up(stage).await?;
    stage
        .source
        .execute_all([
            "UPDATE log SET a = 25 WHERE id = 1",
            "DELETE FROM people WHERE id < 60",
        ])
        .await?;
    assert_caught_up(stage, pipe, &["people"]).await?;
    restore(stage).await?;
    stage
        .source
        .execute("UPDATE log SET a = 26 WHERE id = 1")
        .await?;
    assert_caught_up(stage, pipe, &["people"]).await
}

/// Nobody can tell what is left then. Once that is mended, the pipe goes on where it was.
async fn without_checkpoints_for_a_while(stage: &Stage, pipe: &mut Pipe) -> Result<()> {
    ensure!(pipe.stop().await? == 0);
    let rename = |from: &str, to: &str| {
        let database = &stage.database;
        format!("RENAME TABLE `{database}`.`{from}` TO `{database}`.`{to}`")
    };
    at_clickhouse(stage, &[rename(MIRROR, "hidden")]).await?;
    stage.source.execute("UPDATE log SET a = 30").await?;
    pipe.restart()?;
    wait_failed(pipe, "destination_lost").await?;
    at_clickhouse(stage, &[rename("hidden", MIRROR)]).await?;
    command(pipe, "start").await?;
    pipe.wait_state("Running", START).await?;
    assert_caught_up(stage, pipe, &["people"]).await
}

/// Checkpoints and a target are gone: a resync loads everything.
async fn without_checkpoints_for_good(stage: &Stage, pipe: &mut Pipe) -> Result<()> {
    ensure!(pipe.stop().await? == 0);
    let drop = |table: &str| format!("DROP TABLE `{}`.`{table}` SYNC", stage.database);
    at_clickhouse(stage, &[drop(MIRROR), drop("people")]).await?;
    stage
        .source
        .execute("DELETE FROM people WHERE id < 99")
        .await?;
    pipe.restart()?;
    let before = wait_failed(pipe, "destination_lost").await?;
    // Tried again as it is, it fails again, and no empty table takes the place of the one that is gone.
    command(pipe, "start").await?;
    let since = before["reasons"][0]["since"].clone();
    pipe.wait_for("another failure", START, |status| {
        status["state"] == "Failed" && status["reasons"][0]["since"] != since
    })
    .await?;
    ensure!(!stage.clickhouse.exists(&stage.database, "people").await?);
    command(pipe, "resync").await?;
    pipe.wait_state("Running", START).await?;
    stage.source.execute("DELETE FROM log WHERE id = 3").await?;
    assert_caught_up(stage, pipe, &["people"]).await?;
    stage.assert(Comparison::of("log").view_alone()).await?;
    stage.assert_no_load_left().await
}

/// Without the marker table, which nothing takes out of service.
async fn wait_same(stage: &Stage, table: &str) -> Result<()> {
    let until = Instant::now() + CATCH_UP;
    loop {
        match stage.assert_same(table).await {
            Err(_) if Instant::now() < until => {}
            ended => return ended.map(drop),
        }
    }
}

async fn a_pipe_fails_when_no_table_is_left_and_starts_again_when_that_is_mended(
    kind: SourceKind,
) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    let tables = ["t", "u"];
    for table in tables {
        stage
            .source
            .execute_all([
                format!("CREATE TABLE {table} (id INT PRIMARY KEY, a INT)"),
                format!("INSERT INTO {table} VALUES (1, 1), (2, 2)"),
            ])
            .await?;
    }
    let mut file = stage.pipe_file(&tables);
    let entries = tables.map(|table| json!({ "source": format!("{}.{table}", stage.database) }));
    file["tables"] = json!(entries);
    let mut pipe = running_with(&file).await?;
    let rename = |table: &str, from: &str, to: &str| {
        let database = &stage.database;
        format!("ALTER TABLE `{database}`.{table} RENAME COLUMN {from} TO {to}")
    };

    // One table is left: the pipe goes on with it.
    at_clickhouse(&stage, &[rename("t", "a", "other")]).await?;
    stage.source.execute("INSERT INTO t VALUES (3, 3)").await?;
    pipe.wait_state("Degraded", CATCH_UP).await?;
    stage.source.execute("INSERT INTO u VALUES (3, 3)").await?;
    wait_same(&stage, "u").await?;
    ensure!(pipe.status().await?["state"] == "Degraded");
    at_clickhouse(&stage, &[rename("u", "a", "other")]).await?;
    stage.source.execute("DELETE FROM u WHERE id = 1").await?;
    let status = wait_failed(&mut pipe, "destination_rejected").await?;
    let reasons = status["reasons"].to_string();
    ensure!(reasons.contains("no table is left in service"), "{reasons}");
    let mended = tables.map(|table| rename(table, "other", "a"));
    at_clickhouse(&stage, &mended).await?;
    command(&pipe, "start").await?;
    pipe.wait_state("Running", START).await?;
    for table in tables {
        wait_same(&stage, table).await?;
    }
    without_targets(&stage, &mut pipe, tables).await
}

/// Dropped targets have taken their rows with them, which no start brings back.
async fn without_targets(stage: &Stage, pipe: &mut Pipe, tables: [&str; 2]) -> Result<()> {
    let drop = tables.map(|table| format!("DROP TABLE `{}`.{table} SYNC", stage.database));
    at_clickhouse(stage, &drop).await?;
    stage
        .source
        .execute_all(["INSERT INTO t VALUES (4, 4)", "INSERT INTO u VALUES (4, 4)"])
        .await?;
    let status = wait_failed(pipe, "destination_rejected").await?;
    let since = status["reasons"]
        .as_array()
        .and_then(|all| all.last())
        .cloned();
    command(pipe, "start").await?;
    pipe.wait_for("another failure", START, |status| {
        let reasons = status["reasons"].as_array();
        status["state"] == "Failed" && reasons.and_then(|all| all.last()).cloned() != since
    })
    .await?;
    ensure!(!stage.clickhouse.exists(&stage.database, "t").await?);
    command(pipe, "resync").await?;
    pipe.wait_state("Running", START).await?;
    stage.source.execute("DELETE FROM t WHERE id = 2").await?;
    for table in tables {
        wait_same(stage, table).await?;
    }
    Ok(())
}
