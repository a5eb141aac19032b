//! What stands at the destination behind an exchange that broke off, or that is not one table's alone.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testbed::harness::{Pipe, Stage};
use testbed::{ClickHouseOptions, ClickHouseServer, ClickHouseUser, SourceKind};

use crate::support::{CATCH_UP, START, assert_caught_up, on_both_sources, once, running_with};

on_both_sources! {
    a_table_that_was_exchanged_before_it_failed_goes_on_in_the_fresh_one: 240,
}

once! {
    a_table_too_large_to_be_dropped_makes_way_all_the_same: 240,
    a_new_table_takes_no_target_that_has_rows_of_another: 240,
}

async fn with_t(stage: &Stage) -> Result<()> {
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a INT)",
            "INSERT INTO t VALUES (1, 1), (2, 2)",
        ])
        .await
}

fn is_out(document: &Value) -> bool {
    document["tables"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|table| table["state"] == "Quarantined")
}

async fn order(pipe: &Pipe, stage: &Stage, command: &str) -> Result<()> {
    let body = json!({ "command": command, "table": format!("{}.t", stage.database) });
    let (status, document) = pipe.order(body).await?;
    ensure!(status == 200, "{command}: {status} {document:#}");
    Ok(())
}

/// The view's name is taken when the exchange is done. The table beside the live one is the old one then, and what came
/// since would be dropped with it.
async fn a_table_that_was_exchanged_before_it_failed_goes_on_in_the_fresh_one(
    kind: SourceKind,
) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    with_t(&stage).await?;
    let mut pipe = running_with(&stage.pipe_file(&["t"])).await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    let view = format!("`{}`.t_current", stage.database);
    for statement in [
        format!("DROP VIEW {view} SYNC"),
        format!("CREATE TABLE {view} (x UInt8) ENGINE = Memory"),
    ] {
        stage.clickhouse.query(&statement).await?;
    }
    // Only a load can follow it.
    stage
        .source
        .execute("ALTER TABLE t MODIFY COLUMN a VARCHAR(10)")
        .await?;
    let document = pipe.wait_for("Quarantined", CATCH_UP, is_out).await?;
    ensure!(document.to_string().contains("t_current"), "{document:#}");
    stage
        .source
        .execute_all([
            "INSERT INTO t VALUES (3, 'three')",
            "DELETE FROM t WHERE id = 1",
        ])
        .await?;
    let drop = format!("DROP TABLE {view} SYNC");
    stage.clickhouse.query(&drop).await?;
    order(&pipe, &stage, "retry").await?;
    pipe.wait_state("Running", START).await?;
    stage
        .source
        .execute("UPDATE t SET a = 'two' WHERE id = 2")
        .await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    stage.assert_no_load_left().await
}

/// ClickHouse refuses above 50 GB by default; here above one byte.
async fn a_table_too_large_to_be_dropped_makes_way_all_the_same() -> Result<()> {
    let stage = Stage::with_clickhouse(SourceKind::MariaDb, || {
        ClickHouseServer::start(ClickHouseOptions::default())
    })
    .await?;
    let user = ClickHouseUser {
        name: "writer".to_owned(),
        password: "writer".to_owned(),
        settings: vec![("max_table_size_to_drop", "1")],
        ..ClickHouseUser::default()
    };
    tokio::task::block_in_place(|| stage.clickhouse_server.start_again_with(vec![user]))?;
    with_t(&stage).await?;
    let mut file = stage.pipe_file(&["t"]);
    file["destination"]["user"] = json!("writer");
    file["destination"]["password"] = json!("writer");
    let mut pipe = running_with(&file).await?;
    order(&pipe, &stage, "resync").await?;
    pipe.wait_state("Running", START).await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    stage.assert_no_load_left().await
}

/// Rows of `t` have versions that the load of another table has not.
async fn a_new_table_takes_no_target_that_has_rows_of_another() -> Result<()> {
    let stage = Stage::shared(SourceKind::MariaDb).await?;
    with_t(&stage).await?;
    stage
        .source
        .execute_all(["CREATE TABLE other (id INT PRIMARY KEY)"])
        .await?;
    let mut pipe = running_with(&stage.pipe_file(&["t", "other"])).await?;
    stage.source.execute("UPDATE t SET a = 10").await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    ensure!(pipe.stop().await? == 0);
    stage
        .source
        .execute_all([
            "RENAME TABLE t TO t2",
            "UPDATE t2 SET a = 20 WHERE id = 1",
            "DELETE FROM t2 WHERE id = 2",
        ])
        .await?;
    let t2 = |target: &str| {
        let t2 = json!({ "source": format!("{}.t2", stage.database), "target": target });
        let other = json!({ "source": format!("{}.other", stage.database) });
        stage.pipe_file_of(vec![other, t2])
    };
    pipe.change_file(&t2("t"));
    pipe.restart()?;
    let told = |document: &Value| {
        document["reasons"]
            .to_string()
            .contains("has left this one")
    };
    let document = pipe.wait_for("the target refused", START, told).await?;
    ensure!(
        document["reasons"].to_string().contains("DROP TABLE"),
        "{document:#}"
    );
    ensure!(pipe.stop().await? == 0);
    pipe.change_file(&t2("t2"));
    pipe.restart()?;
    pipe.wait_state("Running", START).await?;
    assert_caught_up(&stage, &mut pipe, &["t2", "other"]).await
}
