//! Tables that go, or become others, while they are loaded.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{Pipe, Proxy, Stage};

use super::{settled, wait_exists};
use crate::support::{CATCH_UP, double, launch, on_both_sources, start, table_of_many_rows};

on_both_sources! {
    a_table_that_goes_during_its_load_keeps_no_other_back: 400,
    a_key_that_is_ordered_otherwise_during_a_load_leaves_no_row_out: 300,
    a_definition_that_changes_nothing_lets_a_load_go_on: 300,
}

/// pitfall 130: renamed away, then dropped and made anew with other columns; the other table goes on, and no table of a
/// load is left.
async fn a_table_that_goes_during_its_load_keeps_no_other_back(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE u (id INT PRIMARY KEY, a INT)",
            "INSERT INTO u VALUES (1, 1)",
        ])
        .await?;
    let row = ("a VARCHAR(200)", "REPEAT('x', 200)");
    table_of_many_rows(&stage, "going", row, 14).await?;
    let mut file = stage.pipe_file(&["going", "u"]);
    file["snapshot"] = json!({ "rows_per_partition": 100, "threads_per_table": 1 });
    // The load waits for the statement, however fast the machine is.
    let proxy = Proxy::before(stage.clickhouse_server.http_port()).await?;
    file["destination"]["url"] = json!(proxy.url());
    proxy.close_gate("going", 2);
    let mut pipe = start(launch(&file))?;
    partly_loaded(&mut pipe).await?;
    stage
        .source
        .execute_all(["RENAME TABLE going TO x", "UPDATE u SET a = 2"])
        .await?;
    proxy.open_gate();
    wait_exists(&stage, "going", false).await?;
    settled(&stage, &mut pipe, &["u"]).await?;
    stage.assert_no_load_left().await?;
    proxy.close_gate("going", 2);
    stage
        .source
        .execute_all(["ANALYZE TABLE x", "RENAME TABLE x TO going"])
        .await?;
    wait_exists(&stage, "going", true).await?;
    partly_loaded(&mut pipe).await?;
    stage
        .source
        .execute_all([
            "DROP TABLE going",
            "CREATE TABLE going (name VARCHAR(20) PRIMARY KEY, a DATE)",
            "INSERT INTO going VALUES ('x', '2024-01-01')",
            "UPDATE u SET a = 3",
        ])
        .await?;
    proxy.open_gate();
    wait_rows(&stage).await?;
    settled(&stage, &mut pipe, &["going", "u"]).await?;
    stage.assert_no_load_left().await
}

/// pitfall 113: the partitions are ranges by the order of before.
async fn a_key_that_is_ordered_otherwise_during_a_load_leaves_no_row_out(
    kind: SourceKind,
) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE n (n INT AUTO_INCREMENT PRIMARY KEY, a INT)",
            "INSERT INTO n (a) VALUES (1)",
        ])
        .await?;
    double(&stage, "n", "a", 13).await?;
    // Letters in either case, in one order where the case does not count.
    stage
        .source
        .execute_all([
            "CREATE TABLE lettered (id VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci PRIMARY KEY, a INT)",
            "INSERT INTO lettered SELECT CONCAT(SUBSTRING(\
             IF(n % 2, 'abcdefghijklmnopqrstuvwxyz', 'ABCDEFGHIJKLMNOPQRSTUVWXYZ'), n % 26 + 1, 1), n), n FROM n",
            "ANALYZE TABLE lettered",
        ])
        .await?;
    let mut file = stage.pipe_file(&["lettered"]);
    file["snapshot"] = json!({ "rows_per_partition": 100, "threads_per_table": 1 });
    let proxy = Proxy::before(stage.clickhouse_server.http_port()).await?;
    file["destination"]["url"] = json!(proxy.url());
    proxy.close_gate("lettered", 2);
    let mut pipe = start(launch(&file))?;
    partly_loaded(&mut pipe).await?;
    stage
        .source
        .execute(
            "ALTER TABLE lettered MODIFY id VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL",
        )
        .await?;
    proxy.open_gate();
    settled(&stage, &mut pipe, &["lettered"]).await?;
    stage.assert_no_load_left().await
}

/// A comment, and a collation that the table has already.
async fn a_definition_that_changes_nothing_lets_a_load_go_on(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE noted (id INT AUTO_INCREMENT PRIMARY KEY, note TEXT, word VARCHAR(9), hidden VARCHAR(9)) \
             CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
            "INSERT INTO noted (note) VALUES ('x')",
        ])
        .await?;
    for _ in 0..13 {
        stage
            .source
            .execute("INSERT INTO noted (note) SELECT note FROM noted")
            .await?;
    }
    stage.source.execute("ANALYZE TABLE noted").await?;
    let mut file = stage.pipe_file(&["noted"]);
    file["snapshot"] = json!({ "rows_per_partition": 100, "threads_per_table": 1 });
    file["tables"][0]["exclude_columns"] = json!(["hidden"]);
    let proxy = Proxy::before(stage.clickhouse_server.http_port()).await?;
    file["destination"]["url"] = json!(proxy.url());
    proxy.close_gate("noted", 2);
    let mut pipe = start(launch(&file))?;
    partly_loaded(&mut pipe).await?;
    for statement in [
        "ALTER TABLE noted MODIFY note TEXT COMMENT 'what it says'",
        "ALTER TABLE noted MODIFY hidden VARCHAR(9) COMMENT 'of whom', MODIFY word VARCHAR(9) COMMENT 'of what'",
        "ALTER TABLE noted CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    ] {
        stage.source.execute(statement).await?;
        stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    }
    stage
        .source
        .execute("INSERT INTO noted (note, word) VALUES ('later', 'w')")
        .await?;
    proxy.open_gate();
    pipe.wait_state("Running", CATCH_UP).await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let status = pipe.status().await?;
    let tables = status["tables"].as_array().into_iter().flatten();
    let before: Vec<&Value> = tables
        .map(|table| &table["snapshot"]["rows_before"])
        .collect();
    ensure!(
        before.iter().all(|rows| **rows == json!(0)),
        "a load has begun anew: {status:#}"
    );
    let shown = format!(
        "SELECT count(), countIf(word = 'w') FROM `{}`.noted_current",
        stage.database
    );
    let shown = stage.clickhouse.query(&shown).await?;
    ensure!(shown.trim() == "8193\t1", "the target holds {shown}");
    stage.assert_no_load_left().await
}

/// Waits until a table has some partitions, and would have more.
async fn partly_loaded(pipe: &mut Pipe) -> Result<()> {
    let partly = |status: &Value| {
        let done = |table: &Value| table["snapshot"]["partitions_done"].as_u64() > Some(1);
        status["tables"]
            .as_array()
            .is_some_and(|tables| tables.iter().any(done))
    };
    pipe.wait_for("a partition", CATCH_UP, partly).await?;
    Ok(())
}

/// Waits until the target is the new table's.
async fn wait_rows(stage: &Stage) -> Result<()> {
    let sql = format!(
        "SELECT count() FROM system.columns WHERE database = '{}' AND table = 'going_current' AND name = 'name'",
        stage.database
    );
    for _ in 0..600 {
        if stage.clickhouse.number(&sql).await? == 1 {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    anyhow::bail!("the new table has not come")
}
