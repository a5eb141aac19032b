//! Over restarts, changed files and plugins.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use testbed::SourceKind;
use testbed::harness::{Pipe, Stage};

use super::trial::settled;
use crate::support::{CATCH_UP, START, launch, once, plugins, running_with, start};

once! {
    counts_survive_kills_neither_lost_nor_doubled: 300,
    a_changed_policy_is_refused_by_name_at_the_next_start: 240,
    a_plugin_sees_the_value_before_its_form: 300,
}

pub(super) async fn failed(pipe: &mut Pipe) -> Result<String> {
    let document = pipe
        .wait_for("trouble", CATCH_UP, |document| {
            document["state"] == "Failed" || document["state"] == "Degraded"
        })
        .await?;
    Ok(document["reasons"].to_string())
}

/// More rows than one insert of the load takes, so that some partitions are finished before others.
const LOADED: u64 = 512_000;
const STREAMED: u64 = 300;
const IN_ONE_TRANSACTION: u64 = 2_000;

fn insert(rows: u64) -> String {
    let rows: Vec<&str> = (0..rows).map(|_| "('0000-00-00', '9999-01-01')").collect();
    format!("INSERT INTO t (born, far) VALUES {}", rows.join(", "))
}

async fn execute(stage: &Stage, statements: Vec<String>) -> Result<()> {
    let zeros_allowed = vec!["SET sql_mode = ''".to_owned()];
    stage
        .source
        .execute_all([zeros_allowed, statements].concat())
        .await
}

async fn assert_counted(pipe: &Pipe, rows: u64) -> Result<()> {
    let expected = [("born", "zero_dates"), ("far", "date_range")]
        .map(|(column, policy)| json!({ "column": column, "policy": policy, "values": rows }));
    settled(pipe, &expected).await
}

async fn counts_survive_kills_neither_lost_nor_doubled() -> Result<()> {
    let stage = Stage::shared(SourceKind::MariaDb).await?;
    stage
        .source
        .execute(
            "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, born DATE NULL, far DATE NULL)",
        )
        .await?;
    let doubled = "INSERT INTO t (born, far) SELECT born, far FROM t".to_owned();
    execute(&stage, [vec![insert(2_000)], vec![doubled; 8]].concat()).await?;
    stage.source.execute("ANALYZE TABLE t").await?;
    let mut file = stage.pipe_file(&["t"]);
    file["snapshot"] =
        json!({ "rows_per_partition": 20_000, "threads_per_table": 1, "tables_in_parallel": 1 });
    file["sync"] = json!({ "interval": "100ms", "max_rows": 150 });
    let mut pipe = start(launch(&file))?;
    kill_in_the_load(&mut pipe).await?;
    assert_counted(&pipe, LOADED).await?;
    for _ in 0..3 {
        for _ in 0..10 {
            execute(&stage, vec![insert(STREAMED / 30)]).await?;
        }
        pipe.kill9()?;
        pipe.restart()?;
    }
    pipe.wait_state("Running", START).await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    assert_counted(&pipe, LOADED + STREAMED).await?;
    // One transaction that goes out in many parts.
    let parts = vec![insert(IN_ONE_TRANSACTION / 20); 20];
    let begin = vec!["BEGIN".to_owned()];
    execute(&stage, [begin, parts, vec!["COMMIT".to_owned()]].concat()).await?;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        pipe.kill9()?;
        pipe.restart()?;
    }
    pipe.wait_state("Running", START).await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    assert_counted(&pipe, LOADED + STREAMED + IN_ONE_TRANSACTION).await
}

/// Kills it with all partitions planned, and with some of them done.
async fn kill_in_the_load(pipe: &mut Pipe) -> Result<()> {
    let mut killed = 0;
    for least in [0, 1] {
        let document = pipe
            .wait_for("a load under way", START, |status| {
                let snapshot = &status["tables"][0]["snapshot"];
                let planned = snapshot["partitions_total"].as_u64() > Some(0);
                let done = snapshot["partitions_done"].as_u64() >= Some(least);
                (planned && done) || status["state"] == "Running"
            })
            .await?;
        killed += u32::from(document["state"] == "Snapshot");
        pipe.kill9()?;
        pipe.restart()?;
    }
    ensure!(killed > 0, "the load was over before the first kill");
    pipe.wait_state("Running", START).await.map(drop)
}

async fn a_changed_policy_is_refused_by_name_at_the_next_start() -> Result<()> {
    let stage = Stage::shared(SourceKind::MySql).await?;
    stage
        .source
        .execute("CREATE TABLE t (id INT PRIMARY KEY, b BLOB)")
        .await?;
    let mut file = stage.pipe_file(&["t"]);
    file["types"] = json!({ "binary": "hex" });
    let mut pipe = running_with(&file).await?;
    ensure!(pipe.stop().await? == 0);
    file["types"] = json!({ "binary": "base64" });
    pipe.change_file(&file);
    pipe.restart()?;
    let reason = failed(&mut pipe).await?;
    ensure!(reason.contains("types.binary"), "{reason}");
    Ok(())
}

async fn a_plugin_sees_the_value_before_its_form() -> Result<()> {
    let plugins = plugins().await?;
    let stage = Stage::shared(SourceKind::MySql).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, kind ENUM('keep','drop') NOT NULL, n DECIMAL(10,2) NOT NULL)",
            "INSERT INTO t VALUES (1, 'keep', 1.5), (2, 'drop', 2.5)",
        ])
        .await?;
    let entry = json!({ "source": format!("{}.t", stage.database), "transforms": ["kept"] });
    let mut file = stage.pipe_file_of(vec![entry]);
    file["transforms"]["kept"] =
        json!({ "plugin": plugins.path("filter"), "config": { "where": "kind = 'keep'" } });
    file["types"] = json!({ "enum": "integer", "decimal": "string" });
    let mut pipe = running_with(&file).await?;
    stage
        .source
        .execute("INSERT INTO t VALUES (3, 'keep', 3.5), (4, 'drop', 4.5)")
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let rows = stage
        .clickhouse
        .query(&format!(
            "SELECT arrayStringConcat(groupArray(concat(toString(id), ' ', toString(kind), ' ', n)), '; ') \
             FROM (SELECT * FROM `{}`.t_current ORDER BY id)",
            stage.database
        ))
        .await?;
    ensure!(rows == "1 1 1.50; 3 1 3.50", "{rows}");
    Ok(())
}
