//! Tables that join and leave a running pipe.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{Comparison, Proxy, Stage};

use super::{name_of, table, two_tables, wait_table};
use crate::support::{
    CATCH_UP, START, Seed, Workload, assert_caught_up, events, on_both_sources, once, running,
    running_with, wait_for_pipe,
};

once! {
    an_addition_under_way_is_cancelled_by_a_removal: 300,
}

on_both_sources! {
    a_table_that_is_loaded_again_before_it_was_made_is_there: 240,
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

/// One that cannot be replicated stands against the pipe, and keeps no other out.
async fn a_table_that_begins_to_match_a_wildcard_joins_by_itself(kind: SourceKind) -> Result<()> {
    let stage = two_tables(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE log_1 (id INT PRIMARY KEY, a INT)",
            "INSERT INTO log_1 VALUES (1, 1)",
            "CREATE TABLE x_both (id INT PRIMARY KEY)",
        ])
        .await?;
    let mut file = stage.pipe_file(&["log_*", "*_both"]);
    file["follow_new_tables"] = json!(true);
    let mut pipe = running_with(&file).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE log_2 (id INT PRIMARY KEY, a INT)",
            "INSERT INTO log_2 VALUES (1, 1), (2, 2)",
            "CREATE TABLE log_keyless (a INT)",
            "CREATE TABLE log_both (id INT PRIMARY KEY)",
            "RENAME TABLE u TO log_u",
            "INSERT INTO log_2 VALUES (3, 3)",
        ])
        .await?;
    wait_table(&mut pipe, "log_2", "Streaming").await?;
    wait_table(&mut pipe, "log_u", "Streaming").await?;
    let outside = |document: &Value| {
        let reasons = document["reasons"].as_array().into_iter().flatten();
        let tables = reasons.filter(|reason| reason["remedy"].to_string().contains("exclude"));
        let tables = tables.filter_map(|reason| reason["table"].as_str().map(str::to_owned));
        tables.collect::<BTreeSet<String>>()
    };
    let refused = ["log_both", "log_keyless"].map(|name| name_of(&stage, name));
    let both = BTreeSet::from(refused.clone());
    pipe.wait_for("the reasons of both", CATCH_UP, |document| {
        document["state"] == "Degraded" && outside(document) == both
    })
    .await?;
    // Nor do they keep out one that comes back, and the pipe tells of each once.
    stage.source.execute("DROP TABLE log_2").await?;
    wait_table(&mut pipe, "log_2", "Removed").await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE log_2 (id INT PRIMARY KEY, a INT)",
            "INSERT INTO log_2 VALUES (1, 1), (2, 2)",
            "DROP TABLE log_both",
        ])
        .await?;
    wait_table(&mut pipe, "log_2", "Streaming").await?;
    let one = BTreeSet::from([refused[1].clone()]);
    pipe.wait_for("the reason of the keyless one", CATCH_UP, |document| {
        outside(document) == one
    })
    .await?;
    let events = events(&stage, &pipe).await?;
    let events = events["events"].as_array().context("events")?;
    for name in &refused {
        let told = events
            .iter()
            .filter(|event| event["text"].to_string().contains(&format!("`{name}`")));
        ensure!(told.count() == 1, "not once of {name}: {events:#?}");
    }
    stage
        .source
        .execute_all([
            "ALTER TABLE log_keyless ADD PRIMARY KEY (a)",
            "DELETE FROM log_2 WHERE id = 1",
            "INSERT INTO log_u VALUES (9, 'x', 9)",
            "INSERT INTO log_keyless VALUES (1)",
            "CREATE TABLE log_like LIKE log_2",
            "INSERT INTO log_like VALUES (8, 8)",
            "CREATE TABLE log_select (PRIMARY KEY (id)) SELECT * FROM log_2",
            "INSERT INTO log_select VALUES (9, 9)",
        ])
        .await?;
    for table in ["log_keyless", "log_like", "log_select"] {
        wait_table(&mut pipe, table, "Streaming").await?;
    }
    let document = pipe.wait_state("Running", CATCH_UP).await?;
    ensure!(document["reasons"] == json!([]), "{document:#}");
    let tables = [
        "log_1",
        "log_2",
        "log_u",
        "log_keyless",
        "log_like",
        "log_select",
    ];
    assert_caught_up(&stage, &mut pipe, &tables).await
}

/// Both the first load, which fills the target itself, and a later one, beside the target. The state folder, too, is
/// nobody else's meanwhile.
async fn an_addition_under_way_is_cancelled_by_a_removal() -> Result<()> {
    let stage = two_tables(SourceKind::MariaDb).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE big (id INT PRIMARY KEY, a CHAR(40))",
            "INSERT INTO big SELECT seq, seq FROM seq_1_to_300000",
        ])
        .await?;
    let proxy = Proxy::before(stage.clickhouse_server.http_port()).await?;
    let mut file = stage.pipe_file(&["t", "u"]);
    file["destination"]["url"] = json!(proxy.url());
    file["snapshot"] = json!({ "rows_per_partition": 50, "threads_per_table": 1 });
    let mut pipe = running_with(&file).await?;
    let add = json!({ "tables": { "add": [{ "source": name_of(&stage, "big") }] } });
    let remove = json!({ "tables": { "remove": [name_of(&stage, "big")] } });
    let rows = format!("SELECT count() FROM `{}`.big_current", stage.database);
    for round in 1..=2 {
        // What is read waits behind one insert; all of it takes seconds to read, whatever the machine is busy with.
        proxy.close_gate("big", 1);
        let (status, document) = pipe.change(add.clone()).await?;
        ensure!(status == 200, "{status}: {document:#}");
        pipe.wait_for("a part of the load", CATCH_UP, |document| {
            let big = table(document, "big");
            big["state"] == "Snapshotting" && big["snapshot"]["partitions_done"].as_u64() > Some(0)
        })
        .await?;
        let opened = async {
            // It may be over before anybody has looked.
            let begun = |document: &Value| {
                document["state"] == "Modifying" || table(document, "big")["state"] == "Removed"
            };
            wait_for_pipe(&pipe, &stage.database, "the removal", begun).await?;
            proxy.open_gate();
            anyhow::Ok(())
        };
        let (removed, opened) = tokio::join!(pipe.change(remove.clone()), opened);
        opened?;
        let (status, document) = removed?;
        ensure!(status == 200, "{status}: {document:#}");
        pipe.wait_for("the end of the load", CATCH_UP, |document| {
            document["state"] == "Running" && table(document, "big")["state"] == "Removed"
        })
        .await?;
        let left = stage.clickhouse.number(&rows).await?;
        ensure!(left < 300_000, "the load went on to its end");
        stage
            .source
            .execute_all([
                format!("INSERT INTO t VALUES ({round}0, 'meanwhile', 1)"),
                format!("DELETE FROM big WHERE id = {round}"),
            ])
            .await?;
        assert_caught_up(&stage, &mut pipe, &["t", "u"]).await?;
        let now = stage.clickhouse.number(&rows).await?;
        ensure!(now == left, "{left} rows, and {now} after the removal");
        stage.assert_no_load_left().await?;
    }
    let (path, state) = (pipe.path(), pipe.state_dir());
    let second = [
        "run".to_owned(),
        path.display().to_string(),
        "--state".to_owned(),
        state.display().to_string(),
        "--listen".to_owned(),
        "127.0.0.1:0".to_owned(),
    ];
    let second = pipe.cli(&second.each_ref().map(String::as_str)).await?;
    ensure!(
        second.code != 0 && second.stderr.contains("in use by another process"),
        "{second:?}"
    );
    let (status, document) = pipe.change(add).await?;
    ensure!(status == 200, "{status}: {document:#}");
    pipe.wait_for("the whole load", CATCH_UP, |document| {
        document["state"] == "Running" && table(document, "big")["state"] == "Streaming"
    })
    .await?;
    assert_caught_up(&stage, &mut pipe, &["t", "u", "big"]).await
}

async fn a_table_that_is_loaded_again_before_it_was_made_is_there(kind: SourceKind) -> Result<()> {
    let stage = two_tables(kind).await?;
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
