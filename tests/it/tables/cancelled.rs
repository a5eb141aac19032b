//! Tables that leave in the middle of something: an addition is cancelled whatever it is at, and a table on its way back
//! takes another. The others stream on all the while.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{Pipe, Proxy, Stage};

use super::{name_of, order, table, two_tables, wait_table};
use crate::support::{CATCH_UP, assert_caught_up, on_both_sources, running_with, wait_for_pipe};

on_both_sources! {
    an_addition_is_cancelled_whatever_it_is_at: 300,
    a_table_on_its_way_back_takes_another_way: 300,
}

/// Names by which the proxy tells tables apart, and rows that do not fit into one part.
async fn with_gated(kind: SourceKind, tables: &[&str]) -> Result<(Stage, Proxy, Value)> {
    let stage = two_tables(kind).await?;
    for table in tables {
        stage
            .source
            .execute_all([
                format!("CREATE TABLE {table} (id INT AUTO_INCREMENT PRIMARY KEY, n INT)"),
                format!("INSERT INTO {table} (n) VALUES (1), (2), (3), (4), (5), (6), (7), (8)"),
                format!("INSERT INTO {table} (n) SELECT one.n FROM {table} one JOIN {table} other JOIN {table} third"),
                format!("ANALYZE TABLE {table}"),
            ])
            .await?;
    }
    let proxy = Proxy::before(stage.clickhouse_server.http_port()).await?;
    let mut file = stage.pipe_file(&["t", "u", tables[0]]);
    file["destination"]["url"] = json!(proxy.url());
    file["snapshot"] =
        json!({ "rows_per_partition": 50, "threads_per_table": 1, "tables_in_parallel": 1 });
    Ok((stage, proxy, file))
}

async fn add(stage: &Stage, pipe: &Pipe, tables: &[&str]) -> Result<()> {
    let entries: Vec<Value> = tables
        .iter()
        .map(|table| json!({ "source": name_of(stage, table) }))
        .collect();
    let (status, document) = pipe.change(json!({ "tables": { "add": entries } })).await?;
    ensure!(status == 200, "{status}: {document:#}");
    Ok(())
}

/// What is on its way waits at the gate until the removal is.
async fn remove(stage: &Stage, pipe: &Pipe, proxy: &Proxy, name: &str) -> Result<()> {
    let change = json!({ "tables": { "remove": [name_of(stage, name)] } });
    let opened = async {
        // It may be over before anybody has looked.
        let begun = |document: &Value| {
            document["state"] == "Modifying" || table(document, name)["state"] == "Removed"
        };
        wait_for_pipe(pipe, &stage.database, "the removal", begun).await?;
        proxy.open_gate();
        anyhow::Ok(())
    };
    let ((status, document), ()) = tokio::try_join!(pipe.change(change), opened)?;
    ensure!(status == 200, "{status}: {document:#}");
    Ok(())
}

async fn rows(stage: &Stage, table: &str) -> Result<u64> {
    let sql = format!("SELECT count() FROM `{}`.{table}_current", stage.database);
    stage.clickhouse.number(&sql).await
}

/// The table is out, and nothing of it follows; the pipe is well.
async fn assert_gone(stage: &Stage, pipe: &mut Pipe, name: &str) -> Result<()> {
    pipe.wait_for("a pipe without that table", CATCH_UP, |document| {
        document["state"] == "Running"
            && document["reasons"] == json!([])
            && table(document, name)["state"] == "Removed"
    })
    .await?;
    let left = rows(stage, name).await?;
    stage
        .source
        .execute_all([
            format!("DELETE FROM {name} WHERE n < 5"),
            "UPDATE t SET b = b + 1".to_owned(),
        ])
        .await?;
    assert_caught_up(stage, pipe, &["t", "u"]).await?;
    let now = rows(stage, name).await?;
    ensure!(now == left, "{left} rows, and {now} after the removal");
    stage.assert_no_load_left().await
}

async fn rename(stage: &Stage, from: &str, to: &str) -> Result<()> {
    let database = &stage.database;
    let sql = format!("RENAME TABLE `{database}`.{from} TO `{database}`.{to}");
    stage.clickhouse.query(&sql).await.map(drop)
}

/// A row in `t` arrives, whatever another table is at.
async fn assert_others_stream(stage: &Stage, pipe: &mut Pipe) -> Result<()> {
    let update = "UPDATE t SET b = b + 1";
    stage.source.execute(update).await?;
    assert_caught_up(stage, pipe, &["t", "u"]).await
}

async fn an_addition_is_cancelled_whatever_it_is_at(kind: SourceKind) -> Result<()> {
    let tables = ["gated_stream", "first", "gated_load", "third"];
    let (stage, proxy, file) = with_gated(kind, &tables).await?;
    let mut pipe = running_with(&file).await?;
    before_its_load(&stage, &mut pipe, &proxy).await?;
    out_of_service(&stage, &mut pipe, &proxy).await?;
    behind_its_load(&stage, &mut pipe, &proxy).await?;
    assert_caught_up(&stage, &mut pipe, &["gated_stream", "first"]).await
}

/// Another's comes first.
async fn before_its_load(stage: &Stage, pipe: &mut Pipe, proxy: &Proxy) -> Result<()> {
    proxy.close_gate("first", 0);
    add(stage, pipe, &["first", "gated_load"]).await?;
    proxy.wait_gated(CATCH_UP).await?;
    let document = wait_table(pipe, "gated_load", "Pending").await?;
    ensure!(
        table(&document, "first")["state"] == "Snapshotting",
        "{document:#}"
    );
    assert_others_stream(stage, pipe).await?;
    remove(stage, pipe, proxy, "gated_load").await?;
    wait_table(pipe, "first", "Streaming").await?;
    ensure!(rows(stage, "gated_load").await? == 0, "it was loaded");
    assert_gone(stage, pipe, "gated_load").await?;
    assert_caught_up(stage, pipe, &["first"]).await
}

/// In the middle of its load.
async fn out_of_service(stage: &Stage, pipe: &mut Pipe, proxy: &Proxy) -> Result<()> {
    proxy.close_gate("third", 0);
    add(stage, pipe, &["third"]).await?;
    proxy.wait_gated(CATCH_UP).await?;
    rename(stage, "third", "aside").await?;
    proxy.open_gate();
    let document = wait_table(pipe, "third", "Quarantined").await?;
    let snapshot = &table(&document, "third")["snapshot"];
    ensure!(
        snapshot["partitions_done"].as_u64() < snapshot["partitions_total"].as_u64(),
        "{document:#}"
    );
    assert_others_stream(stage, pipe).await?;
    remove(stage, pipe, proxy, "third").await?;
    rename(stage, "aside", "third").await?;
    assert_gone(stage, pipe, "third").await
}

/// It waits for the checkpoint to pass the end of its load, before which there is a row on its way.
async fn behind_its_load(stage: &Stage, pipe: &mut Pipe, proxy: &Proxy) -> Result<()> {
    proxy.close_gate("gated", 0);
    add(stage, pipe, &["gated_load"]).await?;
    proxy.wait_gated(CATCH_UP).await?;
    let insert = "INSERT INTO gated_stream (n) VALUES (0)";
    stage.source.execute(insert).await?;
    pipe.wait_for("a row on its way", CATCH_UP, |document| {
        document["lag_seconds"].as_f64() > Some(0.5)
    })
    .await?;
    proxy.close_gate("gated_stream", 0);
    pipe.wait_for("the load of all parts", CATCH_UP, |document| {
        let load = table(document, "gated_load");
        let snapshot = &load["snapshot"];
        load["state"] == "Snapshotting"
            && snapshot["partitions_total"].as_u64() > Some(0)
            && snapshot["partitions_done"] == snapshot["partitions_total"]
    })
    .await?;
    remove(stage, pipe, proxy, "gated_load").await?;
    assert_gone(stage, pipe, "gated_load").await
}

/// The table falls out of the stream, is mended, and is asked back; its rows wait at the gate.
async fn held_on_its_way_back(stage: &Stage, pipe: &mut Pipe, proxy: &Proxy) -> Result<()> {
    rename(stage, "gated", "aside").await?;
    let update = "UPDATE gated SET n = n + 1 WHERE id < 5";
    stage.source.execute(update).await?;
    wait_table(pipe, "gated", "Quarantined").await?;
    rename(stage, "aside", "gated").await?;
    // From where it left the stream would be there at once.
    assert_others_stream(stage, pipe).await?;
    proxy.close_gate("gated", 0);
    order(pipe, stage, "retry", "gated").await?;
    proxy.wait_gated(CATCH_UP).await?;
    wait_table(pipe, "gated", "CatchingUp").await?;
    assert_others_stream(stage, pipe).await
}

async fn a_table_on_its_way_back_takes_another_way(kind: SourceKind) -> Result<()> {
    let (stage, proxy, file) = with_gated(kind, &["gated"]).await?;
    let mut pipe = running_with(&file).await?;

    // It falls out once more.
    held_on_its_way_back(&stage, &mut pipe, &proxy).await?;
    rename(&stage, "gated", "aside").await?;
    proxy.open_gate();
    wait_table(&mut pipe, "gated", "Quarantined").await?;
    rename(&stage, "aside", "gated").await?;
    order(&pipe, &stage, "retry", "gated").await?;
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(&stage, &mut pipe, &["t", "u", "gated"]).await?;

    // It is loaded anew.
    held_on_its_way_back(&stage, &mut pipe, &proxy).await?;
    let opened = async {
        // What is asked for meanwhile must be on its way.
        tokio::time::sleep(Duration::from_secs(1)).await;
        proxy.open_gate();
        Ok(())
    };
    tokio::try_join!(order(&pipe, &stage, "resync", "gated"), opened)?;
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(&stage, &mut pipe, &["t", "u", "gated"]).await?;
    stage.assert_no_load_left().await?;

    // It leaves the pipe.
    held_on_its_way_back(&stage, &mut pipe, &proxy).await?;
    remove(&stage, &pipe, &proxy, "gated").await?;
    assert_gone(&stage, &mut pipe, "gated").await
}
