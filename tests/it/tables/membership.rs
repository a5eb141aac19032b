//! Tables that join and leave a running pipe.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use testbed::SourceKind;
use testbed::harness::{Comparison, Stage};

use super::{name_of, table, two_tables, wait_table};
use crate::support::{
    CATCH_UP, START, Seed, Workload, assert_caught_up, on_both_sources, once, running, running_with,
};

once! {
    a_table_that_is_loaded_again_before_it_was_made_is_there: 240,
}

on_both_sources! {
    tables_join_and_leave_while_the_others_stream: 300,
    a_removed_table_that_comes_back_is_loaded_again: 240,
    a_removed_table_that_comes_back_without_a_load_streams_on_and_says_what_it_lacks: 240,
    a_table_that_begins_to_match_a_wildcard_joins_by_itself: 300,
}

async fn tables_join_and_leave_while_the_others_stream(kind: SourceKind) -> Result<()> {
    let seed = Seed::new("tables_join_and_leave_while_the_others_stream");
    let stage = Stage::shared(kind).await?;
    let workload = Workload { row_count: 1_000 };
    workload.create(&stage).await?;
    let [first, second, third, fourth] = Workload::TABLES;
    let mut pipe = running(&stage, &[first, second]).await?;
    let writers = [1, 2].map(|which| workload.write(&stage.source, seed.generator(which)));
    let add = json!({ "tables": { "add": [
        { "source": name_of(&stage, third) },
        { "source": name_of(&stage, fourth), "target": "renamed" },
    ] } });
    let (status, document) = pipe.change(add.clone()).await?;
    ensure!(status == 200, "{status}: {document:#}");
    // Asked again it changes nothing.
    let (status, document) = pipe.change(add).await?;
    ensure!(status == 200, "{status}: {document:#}");
    pipe.wait_state("Running", CATCH_UP).await?;
    let (status, document) = pipe
        .change(json!({ "tables": { "remove": [name_of(&stage, first)] } }))
        .await?;
    ensure!(
        status == 200 && table(&document, first)["state"] == "Removed",
        "{status}: {document:#}"
    );
    for unknown in [
        json!({ "tables": { "remove": ["no.such"] } }),
        json!({ "tables": { "add": [{ "source": "no.such" }] } }),
        json!({ "tables": { "add": [{ "source": name_of(&stage, first), "colour": "red" }] } }),
    ] {
        let (status, document) = pipe.change(unknown).await?;
        ensure!(
            status == 422 && document["hint"].is_string(),
            "{status}: {document:#}"
        );
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    // What was added and removed holds over a restart, with the same pipe file.
    pipe.stop().await?;
    pipe.restart()?;
    pipe.wait_state("Running", CATCH_UP).await?;
    for writer in writers {
        writer.stop().await?;
    }
    assert_caught_up(&stage, &mut pipe, &[second, third]).await?;
    stage
        .assert(Comparison::of(fourth).target("renamed"))
        .await?;
    let status = pipe.status().await?;
    ensure!(table(&status, first)["state"] == "Removed", "{status:#}");
    let rows = format!("SELECT count() FROM `{}`.{first}_current", stage.database);
    ensure!(
        stage.clickhouse.number(&rows).await? > 0,
        "the removed table's target has gone"
    );
    Ok(())
}

async fn a_removed_table_that_comes_back_is_loaded_again(kind: SourceKind) -> Result<()> {
    let stage = two_tables(kind).await?;
    let mut pipe = running(&stage, &["t", "u"]).await?;
    let change = |verb: &str| match verb {
        "remove" => json!({ "tables": { "remove": [name_of(&stage, "t")] } }),
        _ => {
            json!({ "tables": { "add": [{ "source": name_of(&stage, "t"), "exclude_columns": ["b"] }] } })
        }
    };
    ensure!(pipe.change(change("remove")).await?.0 == 200);
    stage
        .source
        .execute_all([
            "DELETE FROM t WHERE id = 1",
            "UPDATE t SET a = 'while away' WHERE id = 2",
            "INSERT INTO t VALUES (9, 'while away', 9)",
        ])
        .await?;
    // The entry of the command counts, not the file's.
    let (status, document) = pipe.change(change("add")).await?;
    ensure!(status == 200, "{status}: {document:#}");
    pipe.wait_state("Running", CATCH_UP).await?;
    stage
        .source
        .execute("INSERT INTO t VALUES (10, 'back', 10)")
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    stage.assert(Comparison::of("t").without("b")).await?;
    stage.assert_same("u").await.map(drop)
}

async fn a_removed_table_that_comes_back_without_a_load_streams_on_and_says_what_it_lacks(
    kind: SourceKind,
) -> Result<()> {
    let stage = two_tables(kind).await?;
    let mut file = stage.pipe_file(&["t", "u"]);
    file["mode"] = json!("cdc_only");
    let mut pipe = running_with(&file).await?;
    stage
        .source
        .execute("INSERT INTO t VALUES (20, 'before', 1)")
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let remove = json!({ "tables": { "remove": [name_of(&stage, "t")] } });
    ensure!(pipe.change(remove).await?.0 == 200);
    stage
        .source
        .execute("INSERT INTO t VALUES (21, 'while away', 2)")
        .await?;
    let add = json!({ "tables": { "add": [{ "source": name_of(&stage, "t") }] } });
    let (status, document) = pipe.change(add).await?;
    ensure!(status == 200, "{status}: {document:#}");
    pipe.wait_for("table t Streaming", CATCH_UP, |status| {
        table(status, "t")["state"] == "Streaming" && status["state"] == "Degraded"
    })
    .await?;
    stage
        .source
        .execute("INSERT INTO t VALUES (22, 'back', 3)")
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    stage
        .assert(Comparison::of("t").only_where("id IN (20, 22)"))
        .await?;
    let status = pipe.status().await?.to_string();
    for said in [
        "between its removal and its return",
        "pipewright resync --table",
    ] {
        ensure!(status.contains(said), "no `{said}` in {status}");
    }
    // As it was after a restart too.
    pipe.kill9()?;
    pipe.restart()?;
    stage
        .source
        .execute("INSERT INTO t VALUES (23, 'restarted', 4)")
        .await?;
    pipe.wait_state("Degraded", START).await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    stage
        .assert(Comparison::of("t").only_where("id IN (20, 22, 23)"))
        .await
        .map(drop)
}

async fn a_table_that_begins_to_match_a_wildcard_joins_by_itself(kind: SourceKind) -> Result<()> {
    let stage = two_tables(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE log_1 (id INT PRIMARY KEY, a INT)",
            "INSERT INTO log_1 VALUES (1, 1)",
        ])
        .await?;
    let mut file = stage.pipe_file(&["log_*"]);
    file["follow_new_tables"] = json!(true);
    let mut pipe = running_with(&file).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE log_2 (id INT PRIMARY KEY, a INT)",
            "INSERT INTO log_2 VALUES (1, 1), (2, 2)",
            "CREATE TABLE log_keyless (a INT)",
            "RENAME TABLE u TO log_u",
            "INSERT INTO log_2 VALUES (3, 3)",
        ])
        .await?;
    // One that cannot be replicated holds up those that can be until it is mended, and is named.
    tokio::time::sleep(Duration::from_secs(12)).await;
    ensure!(
        pipe.log().tail().contains("log_keyless"),
        "nothing is said of the table without key:\n{}",
        pipe.log().tail()
    );
    stage.source.execute("DROP TABLE log_keyless").await?;
    wait_table(&mut pipe, "log_2", "Streaming").await?;
    wait_table(&mut pipe, "log_u", "Streaming").await?;
    stage
        .source
        .execute_all([
            "DELETE FROM log_2 WHERE id = 1",
            "INSERT INTO log_u VALUES (9, 'x', 9)",
        ])
        .await?;
    assert_caught_up(&stage, &mut pipe, &["log_1", "log_2", "log_u"]).await
}

async fn a_table_that_is_loaded_again_before_it_was_made_is_there() -> Result<()> {
    let stage = two_tables(SourceKind::MySql).await?;
    let mut pipe = running(&stage, &["t"]).await?;
    ensure!(pipe.command("pause").await?.0 == 200);
    pipe.wait_state("Paused", CATCH_UP).await?;
    // A paused pipe makes nothing at the destination: the resync comes before the table is there.
    let added = json!({ "tables": { "add": [{ "source": name_of(&stage, "u") }] } });
    for (status, document) in [pipe.change(added).await?, pipe.command("resync").await?] {
        ensure!(status == 200, "{status}: {document:#}");
    }
    stage.source.execute("DELETE FROM u WHERE id = 1").await?;
    let document = pipe.wait_state("Running", CATCH_UP).await?;
    ensure!(document["reasons"] == json!([]), "{document:#}");
    assert_caught_up(&stage, &mut pipe, &["t", "u"]).await?;
    stage.assert_no_load_left().await
}
