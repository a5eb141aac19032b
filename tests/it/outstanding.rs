//! Writes of ours that nobody waits for any more end before the table under them is exchanged, dropped, emptied or altered.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use testbed::SourceKind;
use testbed::harness::{ClickHouse, Stage};
use tokio::task::JoinHandle;

use crate::support::{CATCH_UP, assert_caught_up, once, running};

once! {
    what_still_writes_ends_before_the_table_is_exchanged_emptied_or_altered: 300,
}

/// A write that a process of ours has left behind: it goes into `table` for minutes, under an id as ours have.
fn left_behind(stage: &Stage, table: &str, rows_from: u32) -> JoinHandle<Result<String>> {
    let id = format!("pipewright/{}/{table}/left{rows_from}", stage.database);
    let url = format!(
        "{}/?query_id={}&max_block_size=1&max_threads=1",
        stage.clickhouse_server.url(),
        id.replace('/', "%2F")
    );
    let sql = format!(
        "INSERT INTO `{}`.`{table}` (id, _version, _is_deleted) \
         SELECT {rows_from} + number, 0, 0 FROM numbers(600) WHERE sleepEachRow(0.5) = 0",
        stage.database
    );
    tokio::spawn(async move { ClickHouse::new(url).query(&sql).await })
}

async fn wait_for_queries(stage: &Stage, count: u64) -> Result<()> {
    let sql = format!(
        "SELECT count() FROM system.processes WHERE query_id LIKE 'pipewright/{}/%/left%'",
        stage.database
    );
    for _ in 0..1200 {
        if stage.clickhouse.number(&sql).await? == count {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("there are not {count} writes left behind")
}

async fn ensure_cancelled(write: JoinHandle<Result<String>>) -> Result<()> {
    let answer = tokio::time::timeout(Duration::from_secs(60), write).await??;
    let text = format!("{answer:?}");
    ensure!(
        text.contains("QUERY_WAS_CANCELLED"),
        "the write ended otherwise: {text}"
    );
    Ok(())
}

async fn what_still_writes_ends_before_the_table_is_exchanged_emptied_or_altered() -> Result<()> {
    let stage = Stage::shared(SourceKind::MariaDb).await?;
    for table in ["t", "u"] {
        stage
            .source
            .execute_all([
                &format!("CREATE TABLE {table} (id INT PRIMARY KEY)")[..],
                &format!("INSERT INTO {table} VALUES (1), (2)"),
            ])
            .await?;
    }
    let mut pipe = running(&stage, &["t", "u"]).await?;
    let other = left_behind(&stage, "u", 500_000);
    let write = left_behind(&stage, "t", 100_000);
    wait_for_queries(&stage, 2).await?;
    let table = format!("{}.t", stage.database);
    let (status, document) = pipe
        .order(json!({ "command": "resync", "table": table }))
        .await?;
    ensure!(status == 200, "{document:#}");
    pipe.wait_state("Running", CATCH_UP).await?;
    ensure_cancelled(write).await?;
    wait_for_queries(&stage, 1).await?;
    // Nothing of what was left behind is in the fresh table, and another table's write goes on.
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;

    let write = left_behind(&stage, "t", 200_000);
    wait_for_queries(&stage, 2).await?;
    stage.source.execute("TRUNCATE TABLE t").await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    ensure_cancelled(write).await?;
    ensure!(!other.is_finished(), "a write into another table was ended");

    // What a write has in a column that is renamed under it would be lost.
    let add = "ALTER TABLE t ADD COLUMN a INT NOT NULL DEFAULT 1";
    stage.source.execute(add).await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    let write = left_behind(&stage, "t", 300_000);
    wait_for_queries(&stage, 2).await?;
    stage
        .source
        .execute_all([
            "INSERT INTO t VALUES (3, 3)",
            "ALTER TABLE t RENAME COLUMN a TO b",
        ])
        .await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    ensure_cancelled(write).await?;
    ensure!(!other.is_finished(), "a write into another table was ended");
    // The same when that table is exchanged in its turn.
    let (status, document) = pipe.command("resync").await?;
    ensure!(status == 200, "{document:#}");
    pipe.wait_state("Running", CATCH_UP).await?;
    ensure_cancelled(other).await?;
    assert_caught_up(&stage, &mut pipe, &["t", "u"]).await
}
