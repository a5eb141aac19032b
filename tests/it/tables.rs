//! One table's trouble and its ways out: quarantine, retry, skip, resync.

mod cancelled;
mod completeness;
mod impostors;
mod locked;
mod membership;
mod validation;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable;
use rand::Rng;
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{Pipe, Stage};

use crate::support::{
    CATCH_UP, START, Seed, Workload, assert_caught_up, fixed_rows, launch, on_both_sources,
    running, running_with, start,
};

on_both_sources! {
    one_tables_trouble_leaves_the_others_streaming: 300,
    a_table_that_was_mended_catches_up_from_its_own_place: 240,
    a_statement_can_be_passed_over_and_the_table_says_so: 300,
    only_the_transaction_that_fails_is_passed_over: 300,
    a_table_whose_load_broke_off_goes_on_with_it: 300,
    readers_see_a_full_table_at_every_instant_of_a_resync: 300,
    a_resync_takes_up_what_the_stream_could_not: 300,
    a_failed_or_completed_pipe_is_loaded_anew: 300,
    additions_and_resyncs_survive_kills: 400,
}

fn table<'a>(status: &'a Value, name: &str) -> &'a Value {
    let ends_with = format!(".{name}");
    status["tables"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|table| {
            table["source"]
                .as_str()
                .is_some_and(|source| source.ends_with(&ends_with))
        })
        .unwrap_or(&Value::Null)
}

async fn wait_table(pipe: &mut Pipe, name: &str, state: &str) -> Result<Value> {
    let what = format!("table {name} {state}");
    pipe.wait_for(&what, CATCH_UP, |status| {
        table(status, name)["state"] == state
    })
    .await
}

fn name_of(stage: &Stage, table: &str) -> String {
    format!("{}.{table}", stage.database)
}

async fn order(pipe: &Pipe, stage: &Stage, command: &str, table: &str) -> Result<Value> {
    let body = json!({ "command": command, "table": name_of(stage, table) });
    let (status, document) = pipe.order(body).await?;
    ensure!(status == 200, "{command} {table}: {status} {document:#}");
    Ok(document)
}

async fn resync(pipe: &Pipe) -> Result<()> {
    let (status, document) = pipe.command("resync").await?;
    ensure!(status == 200, "resync: {status} {document:#}");
    Ok(())
}

/// What the metrics say that loads have written.
async fn rows_of_loads(pipe: &Pipe) -> Result<u64> {
    let metrics = pipe.get_text("/metrics").await?;
    let counted = metrics.lines().find_map(|line| {
        let (name, count) = line.rsplit_once(' ')?;
        let is_it = name.starts_with("pipewright_rows_written_total{") && name.contains("\"load\"");
        is_it.then_some(count)
    });
    Ok(counted.context("no such metric")?.parse()?)
}

async fn two_tables(kind: SourceKind) -> Result<Stage> {
    let stage = Stage::shared(kind).await?;
    for name in ["t", "u"] {
        stage
            .source
            .execute_all([
                &format!(
                    "CREATE TABLE {name} (id INT PRIMARY KEY, a VARCHAR(40) NULL, b INT NULL)"
                )[..],
                &format!("INSERT INTO {name} VALUES (1, 'one', 1), (2, 'two', 2), (3, NULL, 3)"),
            ])
            .await?;
    }
    Ok(stage)
}

/// A pipe over both tables that leaves statements which change columns or take a load to people.
fn refusing_statements(stage: &Stage) -> Value {
    let mut file = stage.pipe_file(&["t", "u"]);
    let kinds = ["add_column", "rename_column", "modify_column", "reload"];
    file["ddl"] = kinds
        .map(|kind| (kind.to_owned(), json!("quarantine")))
        .into_iter()
        .collect();
    file
}

async fn one_tables_trouble_leaves_the_others_streaming(kind: SourceKind) -> Result<()> {
    let stage = two_tables(kind).await?;
    let mut pipe = running_with(&refusing_statements(&stage)).await?;
    stage
        .source
        .execute_all([
            "INSERT INTO t VALUES (4, 'before', 4)",
            "ALTER TABLE t CHANGE COLUMN b bb BIGINT NULL",
            "INSERT INTO t VALUES (5, 'after', 5)",
            "INSERT INTO u VALUES (5, 'after', 5)",
        ])
        .await?;
    let status = pipe.wait_state("Degraded", CATCH_UP).await?;
    let broken = table(&status, "t");
    ensure!(broken["state"] == "Quarantined", "{status:#}");
    let reason = &status["reasons"][0];
    ensure!(
        reason["table"] == name_of(&stage, "t")
            && reason["message"].to_string().contains("`b`")
            && reason["remedy"].to_string().contains("resync")
            && reason["position"].is_string(),
        "{status:#}"
    );
    assert_caught_up(&stage, &mut pipe, &["u"]).await?;
    // What was committed before the statement is there, and nothing of what came after.
    let rows = format!("SELECT count() FROM `{}`.t_current", stage.database);
    ensure!(stage.clickhouse.number(&rows).await? == 4);
    // A restart tries the table again, meets the same statement, and takes it out again.
    pipe.stop().await?;
    pipe.restart()?;
    pipe.wait_state("Degraded", CATCH_UP).await?;
    order(&pipe, &stage, "resync", "t").await?;
    pipe.wait_state("Running", CATCH_UP).await?;
    stage.source.execute("DELETE FROM t WHERE id = 2").await?;
    assert_caught_up(&stage, &mut pipe, &["t", "u"]).await
}

async fn a_table_that_was_mended_catches_up_from_its_own_place(kind: SourceKind) -> Result<()> {
    let seed = Seed::new("a_table_that_was_mended_catches_up_from_its_own_place");
    let stage = Stage::shared(kind).await?;
    let workload = Workload { row_count: 500 };
    workload.create(&stage).await?;
    let mut pipe = running(&stage, &Workload::TABLES).await?;
    let writers = [1, 2].map(|which| workload.write(&stage.source, seed.generator(which)));
    let target = format!("`{}`.people", stage.database);
    stage
        .clickhouse
        .query(&format!("ALTER TABLE {target} RENAME COLUMN nick TO other"))
        .await?;
    wait_table(&mut pipe, "people", "Quarantined").await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    // Still broken: it comes back to where it was, and says so.
    order(&pipe, &stage, "retry", "people").await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    wait_table(&mut pipe, "people", "Quarantined").await?;
    stage
        .clickhouse
        .query(&format!("ALTER TABLE {target} RENAME COLUMN other TO nick"))
        .await?;
    order(&pipe, &stage, "retry", "people").await?;
    // Killed on its way back, it goes on from its own place.
    pipe.kill9()?;
    pipe.restart()?;
    wait_table(&mut pipe, "people", "Streaming").await?;
    pipe.wait_state("Running", CATCH_UP).await?;
    for writer in writers {
        writer.stop().await?;
    }
    assert_caught_up(&stage, &mut pipe, &Workload::TABLES).await
}

async fn a_statement_can_be_passed_over_and_the_table_says_so(kind: SourceKind) -> Result<()> {
    let stage = two_tables(kind).await?;
    let mut pipe = running_with(&refusing_statements(&stage)).await?;
    stage
        .source
        .execute("ALTER TABLE t ADD COLUMN c VARCHAR(60) NOT NULL DEFAULT (CONCAT('row ', 'x'))")
        .await?;
    pipe.wait_state("Degraded", CATCH_UP).await?;
    // It stands where it stood: what it is to be passed over is found, not guessed.
    order(&pipe, &stage, "retry", "t").await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    wait_table(&mut pipe, "t", "Quarantined").await?;
    order(&pipe, &stage, "skip", "t").await?;
    wait_table(&mut pipe, "t", "Streaming").await?;
    let status = pipe
        .wait_for("an inexact table", CATCH_UP, |status| {
            status["state"] == "Degraded"
                && status["reasons"][0]["message"]
                    .to_string()
                    .contains("passed over")
        })
        .await?;
    ensure!(
        status["reasons"][0]["kind"] == "warning" && status["reasons"][0]["remedy"].is_string(),
        "{status:#}"
    );
    stage
        .source
        .execute_all([
            "ALTER TABLE t DROP COLUMN c",
            "INSERT INTO t VALUES (6, 'later', 6)",
        ])
        .await?;
    assert_caught_up(&stage, &mut pipe, &["t", "u"]).await?;
    // Only a load can prove that nothing is missing.
    ensure!(pipe.status().await?["state"] == "Degraded");
    order(&pipe, &stage, "resync", "t").await?;
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(&stage, &mut pipe, &["t", "u"]).await
}

/// One that cannot be read, while those before it are still on their way into the table.
async fn only_the_transaction_that_fails_is_passed_over(kind: SourceKind) -> Result<()> {
    const FAILING: u64 = 110;
    let stage = two_tables(kind).await?;
    let mut pipe = running(&stage, &["t", "u"]).await?;
    let target = format!("`{}`.t", stage.database);
    stage
        .clickhouse
        .query(&format!("ALTER TABLE {target} RENAME COLUMN a TO other"))
        .await?;
    stage
        .source
        .execute("INSERT INTO t VALUES (100, 'first', 100)")
        .await?;
    wait_table(&mut pipe, "t", "Quarantined").await?;
    let mut conn = stage.source.connect().await?;
    for id in 101..=120 {
        let format = if id == FAILING { "STATEMENT" } else { "ROW" };
        conn.query_drop(format!("SET SESSION binlog_format = '{format}'"))
            .await?;
        conn.query_drop(format!("INSERT INTO t VALUES ({id}, 'good', {id})"))
            .await?;
    }
    conn.disconnect().await?;
    stage
        .clickhouse
        .query(&format!("ALTER TABLE {target} RENAME COLUMN other TO a"))
        .await?;
    // What is to be passed over lies behind the pipe's own stream, which the table comes back to.
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    order(&pipe, &stage, "skip", "t").await?;
    wait_table(&mut pipe, "t", "Streaming").await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let shown = format!(
        "SELECT arrayStringConcat(groupArray(toString(id)), ' ') FROM \
         (SELECT id FROM `{}`.t_current WHERE id >= 100 ORDER BY id)",
        stage.database
    );
    let shown = stage.clickhouse.query(&shown).await?;
    let wanted = (100..=120).filter(|id| *id != FAILING);
    let wanted = wanted.map(|id| id.to_string()).collect::<Vec<_>>();
    ensure!(shown.trim() == wanted.join(" "), "{shown} are shown");
    order(&pipe, &stage, "resync", "t").await?;
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(&stage, &mut pipe, &["t", "u"]).await
}

async fn a_table_whose_load_broke_off_goes_on_with_it(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    let workload = Workload { row_count: 3_000 };
    workload.create(&stage).await?;
    let mut file = stage.pipe_file(&Workload::TABLES);
    file["snapshot"] = json!({ "rows_per_partition": 100, "threads_per_table": 1 });
    let mut pipe = start(launch(&file))?;
    pipe.wait_for("a load under way", START, |status| {
        table(status, "people")["snapshot"]["partitions_done"].as_u64() > Some(2)
    })
    .await?;
    let target = format!("`{}`.people", stage.database);
    stage
        .clickhouse
        .query(&format!("ALTER TABLE {target} RENAME COLUMN nick TO other"))
        .await?;
    stage
        .source
        .execute("UPDATE people SET amount = amount + 1 WHERE id < 400")
        .await?;
    wait_table(&mut pipe, "people", "Quarantined").await?;
    pipe.wait_state("Degraded", CATCH_UP).await?;
    stage
        .source
        .execute("DELETE FROM people WHERE id BETWEEN 100 AND 200")
        .await?;
    stage
        .clickhouse
        .query(&format!("ALTER TABLE {target} RENAME COLUMN other TO nick"))
        .await?;
    order(&pipe, &stage, "retry", "people").await?;
    wait_table(&mut pipe, "people", "Streaming").await?;
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(&stage, &mut pipe, &Workload::TABLES).await
}

async fn readers_see_a_full_table_at_every_instant_of_a_resync(kind: SourceKind) -> Result<()> {
    let seed = Seed::new("readers_see_a_full_table_at_every_instant_of_a_resync");
    let stage = Stage::shared(kind).await?;
    let workload = Workload { row_count: 4_000 };
    workload.create(&stage).await?;
    fixed_rows(&stage, 3_000).await?;
    let mut file = stage.pipe_file(&[&Workload::TABLES[..], &["fixed"]].concat());
    file["snapshot"] = json!({ "rows_per_partition": 500 });
    let mut pipe = running_with(&file).await?;
    stage
        .source
        .execute("DELETE FROM fixed WHERE id > 2500")
        .await?;
    assert_caught_up(&stage, &mut pipe, &["fixed"]).await?;
    let writer = workload.write(&stage.source, seed.generator(1));
    let count = format!("SELECT count() FROM `{}`.fixed_current", stage.database);
    let (clickhouse, sql) = (stage.clickhouse.clone(), count.clone());
    let reader = tokio::spawn(async move {
        let mut read = 0_u64;
        loop {
            match clickhouse.number(&sql).await {
                Ok(2500) => read += 1,
                other => return (read, format!("{other:?}")),
            }
        }
    });
    // The second one cuts finer.
    let mut cut = Vec::new();
    for whole in [false, true] {
        if whole {
            let finer = json!({ "command": "resync", "snapshot": { "rows_per_partition": 100 } });
            let (status, document) = pipe.order(finer).await?;
            ensure!(status == 200, "{status}: {document:#}");
        } else {
            order(&pipe, &stage, "resync", "fixed").await?;
        }
        let status = pipe
            .wait_for("the end of the resync", CATCH_UP, |status| {
                status["state"] == "Running" && table(status, "fixed")["state"] == "Streaming"
            })
            .await?;
        let partitions = &table(&status, "fixed")["snapshot"]["partitions_total"];
        cut.extend(partitions.as_u64());
    }
    ensure!(cut.len() == 2 && cut[1] > cut[0] * 2, "partitions: {cut:?}");
    ensure!(!reader.is_finished(), "a reader saw {:?}", reader.await?);
    reader.abort();
    writer.stop().await?;
    assert_caught_up(&stage, &mut pipe, &Workload::TABLES).await?;
    stage.assert_same("fixed").await?;
    // Rows that were deleted before are not carried over, and nothing of the loads is left.
    let tombstones = format!(
        "SELECT count() FROM `{}`.fixed WHERE _is_deleted = 1",
        stage.database
    );
    ensure!(stage.clickhouse.number(&tombstones).await? == 0);
    stage.assert_no_load_left().await
}

async fn a_resync_takes_up_what_the_stream_could_not(kind: SourceKind) -> Result<()> {
    let stage = two_tables(kind).await?;
    let mut pipe = running_with(&refusing_statements(&stage)).await?;
    for statement in [
        "ALTER TABLE t MODIFY COLUMN a TEXT, CHANGE COLUMN b bb BIGINT UNSIGNED NULL",
        "ALTER TABLE t DROP PRIMARY KEY, ADD PRIMARY KEY (id, bb)",
    ] {
        stage.source.execute(statement).await?;
        wait_table(&mut pipe, "t", "Quarantined").await?;
        stage
            .source
            .execute(
                "INSERT INTO t VALUES (100, 'in between', 7) ON DUPLICATE KEY UPDATE a = 'again'",
            )
            .await?;
        order(&pipe, &stage, "resync", "t").await?;
        pipe.wait_state("Running", CATCH_UP).await?;
        stage
            .source
            .execute("UPDATE t SET a = 'resynced' WHERE id = 1")
            .await?;
        assert_caught_up(&stage, &mut pipe, &["t", "u"]).await?;
    }
    Ok(())
}

/// What a command has taken out of the pipe stays out of it, what the source has dropped meanwhile leaves it, and comes
/// back with it.
async fn a_failed_or_completed_pipe_is_loaded_anew(kind: SourceKind) -> Result<()> {
    let stage = two_tables(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE v (id INT PRIMARY KEY)",
            "INSERT INTO v VALUES (1)",
            "CREATE TABLE w_1 (id INT PRIMARY KEY)",
            "CREATE TABLE w_2 (id INT PRIMARY KEY)",
        ])
        .await?;
    let mut file = stage.pipe_file(&["t", "u", "v", "w_*"]);
    let mut pipe = running_with(&file).await?;
    let remove = json!({ "tables": { "remove": [name_of(&stage, "v")] } });
    let (status, document) = pipe.change(remove).await?;
    ensure!(status == 200, "{status}: {document:#}");
    pipe.stop().await?;
    // The pipe file asks for another key than the targets were made with: the pipe says so and fails.
    file["tables"][0]["order_by"] = json!(["b", "id"]);
    stage
        .source
        .execute("ALTER TABLE t MODIFY b INT NOT NULL")
        .await?;
    pipe.change_file(&file);
    pipe.restart()?;
    let failed = |status: &Value| status["state"] == "Failed";
    let status = pipe.wait_for("failure", CATCH_UP, failed).await?;
    ensure!(
        status["reasons"][0]["remedy"]
            .to_string()
            .contains("resync"),
        "{status:#}"
    );
    stage
        .source
        .execute_all([
            "DELETE FROM t WHERE id = 1",
            "DELETE FROM v",
            "DROP TABLE w_2",
        ])
        .await?;
    resync(&pipe).await?;
    let status = pipe.wait_state("Running", CATCH_UP).await?;
    for out in ["v", "w_2"] {
        ensure!(table(&status, out)["state"] == "Removed", "{status:#}");
    }
    let left = format!("SELECT count() FROM `{}`.v_current", stage.database);
    ensure!(
        stage.clickhouse.number(&left).await? == 1,
        "the target of a table that was taken out is not as it was left"
    );
    stage
        .source
        .execute_all([
            "CREATE TABLE w_2 (id INT PRIMARY KEY)",
            "INSERT INTO w_2 VALUES (2)",
        ])
        .await?;
    wait_table(&mut pipe, "w_2", "Streaming").await?;
    assert_caught_up(&stage, &mut pipe, &["t", "u", "w_1", "w_2"]).await?;
    let status = pipe.status().await?;
    ensure!(table(&status, "v")["state"] == "Removed", "{status:#}");
    let key = format!(
        "SELECT count() FROM system.tables WHERE database = '{}' AND name = 't' AND sorting_key = 'b, id'",
        stage.database
    );
    ensure!(stage.clickhouse.number(&key).await? == 1);
    pipe.stop().await?;

    let other = two_tables(kind).await?;
    let mut file = other.pipe_file(&["t", "u"]);
    file["mode"] = json!("snapshot");
    let mut pipe = start(launch(&file))?;
    pipe.wait_state("Completed", START).await?;
    ensure!(rows_of_loads(&pipe).await? == 6);
    other
        .source
        .execute_all([
            "DELETE FROM t WHERE id = 1",
            "INSERT INTO u VALUES (7, 'later', 7)",
        ])
        .await?;
    resync(&pipe).await?;
    pipe.wait_for("the second load", CATCH_UP, |status| {
        status["state"] == "Completed" && table(status, "u")["snapshot"]["rows"] == 4
    })
    .await?;
    ensure!(
        rows_of_loads(&pipe).await? == 12,
        "a counter counts what the first load wrote, too"
    );
    other.assert_same("t").await?;
    other.assert_same("u").await.map(drop)
}

async fn additions_and_resyncs_survive_kills(kind: SourceKind) -> Result<()> {
    let seed = Seed::new("additions_and_resyncs_survive_kills");
    let mut moments = seed.generator(0);
    let stage = Stage::shared(kind).await?;
    let workload = Workload { row_count: 3_000 };
    workload.create(&stage).await?;
    let mut file = stage.pipe_file(&Workload::TABLES[..2]);
    file["snapshot"] = json!({ "rows_per_partition": 300, "threads_per_table": 2 });
    let mut pipe = running_with(&file).await?;
    let writers = [1, 2].map(|which| workload.write(&stage.source, seed.generator(which)));
    for round in 0..8_usize {
        let added =
            |table: &str| json!({ "tables": { "add": [{ "source": name_of(&stage, table) }] } });
        let command = async {
            match round {
                0 | 1 => pipe.change(added(Workload::TABLES[2 + round])).await,
                _ if round % 2 == 0 => pipe.command("resync").await,
                _ => {
                    let table = name_of(&stage, "people");
                    pipe.order(json!({ "command": "resync", "table": table }))
                        .await
                }
            }
        };
        // Killed before, while or after it is recorded, and somewhere on the way to the exchange.
        let answered = tokio::time::timeout(
            Duration::from_millis(moments.random_range(100..3000)),
            command,
        )
        .await;
        if let Ok(Ok((status, document))) = &answered {
            ensure!(matches!(status, 200 | 409 | 422), "{status}: {document:#}");
            tokio::time::sleep(Duration::from_millis(moments.random_range(0..2500))).await;
        }
        pipe.kill9()?;
        pipe.restart()?;
        if round < 2 {
            pipe.wait_state("Running", START).await?;
        } else {
            pipe.wait_for("an answer", START, |_| true).await?;
        }
    }
    pipe.wait_state("Running", START).await?;
    for table in &Workload::TABLES[2..] {
        // An addition that was not recorded is asked for again.
        let add = json!({ "tables": { "add": [{ "source": name_of(&stage, table) }] } });
        let (status, document) = pipe.change(add).await?;
        ensure!(matches!(status, 200 | 422), "{status}: {document:#}");
        pipe.wait_state("Running", START).await?;
    }
    for writer in writers {
        writer.stop().await?;
    }
    assert_caught_up(&stage, &mut pipe, &Workload::TABLES).await?;
    stage.assert_no_load_left().await
}
