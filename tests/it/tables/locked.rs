//! Tables that somebody keeps locked at the source, as a restore does: they wait for that alone, and nothing else does.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use reqwest::Method;
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{Pipe, Proxy, Stage};

use super::{name_of, two_tables, wait_table};
use crate::support::{
    CATCH_UP, START, assert_caught_up, launch, on_both_sources, running, running_with, start,
    wait_for_pipe,
};

on_both_sources! {
    a_new_table_that_is_locked_keeps_neither_others_out_nor_the_pipe_from_pausing: 300,
    an_addition_of_a_table_that_stays_locked_is_refused_in_time: 300,
    many_tables_that_stay_locked_hold_a_changed_file_up_no_longer_than_one: 300,
    a_load_that_ends_while_an_addition_is_refused_ends_the_snapshot: 240,
    a_command_in_checks_goes_on_to_the_pipe_that_takes_up_a_changed_file: 240,
}

/// How long a command may take while a table stays locked.
const ANSWERED_WITHIN: Duration = Duration::from_secs(40);

/// How long the end of a pipe or of its process may take meanwhile: less than the ten seconds that such a table is given.
const ENDED_WITHIN: Duration = Duration::from_secs(8);

async fn lock(stage: &Stage, table: &str) -> Result<Conn> {
    let mut conn = stage.source.connect().await?;
    let sql = format!("LOCK TABLES {table} WRITE");
    conn.query_drop(sql).await?;
    Ok(conn)
}

async fn a_new_table_that_is_locked_keeps_neither_others_out_nor_the_pipe_from_pausing(
    kind: SourceKind,
) -> Result<()> {
    let stage = two_tables(kind).await?;
    let create = |table: &str| format!("CREATE TABLE {table} (id INT PRIMARY KEY)");
    stage.source.execute(create("log_1")).await?;
    let mut file = stage.pipe_file(&["t", "log_*"]);
    file["follow_new_tables"] = json!(true);
    let mut pipe = running_with(&file).await?;
    stage.source.execute(create("log_2")).await?;
    let mut held = lock(&stage, "log_2").await?;
    let others = [&create("log_3"), "INSERT INTO log_3 VALUES (1)"];
    stage.source.execute_all(others).await?;

    wait_table(&mut pipe, "log_3", "Streaming").await?;
    let name = name_of(&stage, "log_2");
    let is_told_of = |document: &Value| {
        let mut reasons = document["reasons"].as_array().into_iter().flatten();
        reasons.any(|reason| {
            reason["table"] == *name && reason["message"].to_string().contains("locked")
        })
    };
    pipe.wait_for("the reason of the locked one", CATCH_UP, is_told_of)
        .await?;
    stage.source.execute("DELETE FROM t WHERE id = 1").await?;
    assert_caught_up(&stage, &mut pipe, &["t", "log_3"]).await?;
    ensure!(pipe.command("pause").await?.0 == 200);
    pipe.wait_state("Paused", ANSWERED_WITHIN).await?;
    ensure!(pipe.command("resume").await?.0 == 200);
    pipe.wait_for("the reason again", CATCH_UP, is_told_of)
        .await?;
    pipe.terminate()?;
    ensure!(pipe.wait_exit(ANSWERED_WITHIN).await? == 0);

    pipe.restart()?;
    pipe.wait_for("the reason anew", START, is_told_of).await?;
    held.query_drop("UNLOCK TABLES").await?;
    wait_table(&mut pipe, "log_2", "Streaming").await?;
    let document = pipe.wait_state("Running", CATCH_UP).await?;
    ensure!(document["reasons"] == json!([]), "{document:#}");
    stage.source.execute("INSERT INTO log_2 VALUES (7)").await?;
    assert_caught_up(&stage, &mut pipe, &["t", "log_2", "log_3"]).await
}

async fn an_addition_of_a_table_that_stays_locked_is_refused_in_time(
    kind: SourceKind,
) -> Result<()> {
    let stage = two_tables(kind).await?;
    let mut pipe = running(&stage, &["t"]).await?;
    let mut held = lock(&stage, "u").await?;
    let name = name_of(&stage, "u");
    let add = || json!({ "tables": { "add": [{ "source": name }] } });

    let began = Instant::now();
    let refused = async { (pipe.change(add()).await, Instant::now()) };
    let ((added, refused_at), streamed) = tokio::join!(refused, streams_meanwhile(&stage, &pipe));
    let streamed_at = streamed?;
    ensure!(
        streamed_at < refused_at,
        "the other table's row waited for the locked one"
    );
    let (status, problem) = added?;
    let said = |key: &str| problem[key].as_str().unwrap_or_default().to_owned();
    ensure!(
        status == 503
            && said("code") == "source_unavailable"
            && said("detail").contains(&format!("`{name}`"))
            && said("detail").contains("locked")
            && said("hint").contains("SHOW PROCESSLIST"),
        "{status}: {problem:#}"
    );
    let took = began.elapsed();
    ensure!(took < ANSWERED_WITHIN, "answered after {took:?}");
    pipe.wait_state("Running", CATCH_UP).await?;
    let url = pipe.url();
    let line = ["tables", "add", &stage.database, &name, "--server", &url];
    let refused = pipe.cli(&line).await?;
    ensure!(
        refused.code == 69 && refused.stderr.contains("locked"),
        "{refused:?}"
    );

    // Whoever wants the process, or the pipe, to end does not wait for that.
    let ended = async {
        wait_modifying(&stage, &pipe).await?;
        pipe.terminate()
    };
    let (_, ended) = tokio::join!(pipe.change(add()), ended);
    ended?;
    ensure!(pipe.wait_exit(ENDED_WITHIN).await? == 0);
    pipe.restart()?;
    pipe.wait_state("Running", START).await?;
    stage.source.execute("DELETE FROM t WHERE id = 2").await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    let dropped = async {
        wait_modifying(&stage, &pipe).await?;
        tokio::time::timeout(ENDED_WITHIN, pipe.forget()).await?
    };
    let (_, dropped) = tokio::join!(pipe.change(add()), dropped);
    let (status, answer) = dropped?;
    ensure!(status == 200, "{status}: {answer:#}");
    ensure!(
        pipe.status().await.is_err(),
        "a dropped pipe has a document"
    );
    Ok(held.query_drop("UNLOCK TABLES").await?)
}

async fn a_load_that_ends_while_an_addition_is_refused_ends_the_snapshot(
    kind: SourceKind,
) -> Result<()> {
    let stage = two_tables(kind).await?;
    let create = "CREATE TABLE gated LIKE t";
    stage
        .source
        .execute_all([create, "INSERT INTO gated SELECT * FROM t"])
        .await?;
    let gate = Proxy::before(stage.clickhouse_server.http_port()).await?;
    let mut file = stage.pipe_file(&["gated"]);
    file["destination"]["url"] = json!(gate.url());
    gate.close_gate("gated", 0);
    let mut pipe = start(launch(&file))?;
    gate.wait_gated(START).await?;
    pipe.wait_state("Snapshot", START).await?;
    let mut held = lock(&stage, "u").await?;
    let add = json!({ "tables": { "add": [{ "source": name_of(&stage, "u") }] } });
    let loaded = async {
        wait_modifying(&stage, &pipe).await?;
        gate.open_gate();
        Ok::<_, anyhow::Error>(())
    };
    let (added, loaded) = tokio::join!(pipe.change(add), loaded);
    loaded?;
    let (status, problem) = added?;
    ensure!(status == 503, "{status}: {problem:#}");
    pipe.wait_state("Running", CATCH_UP).await?;
    stage
        .source
        .execute("DELETE FROM gated WHERE id = 1")
        .await?;
    assert_caught_up(&stage, &mut pipe, &["gated"]).await?;
    Ok(held.query_drop("UNLOCK TABLES").await?)
}

/// How long a command may take behind a file with tables that stay locked, however many they are.
const ANSWERED_BEHIND_MANY: Duration = Duration::from_secs(15);

async fn many_tables_that_stay_locked_hold_a_changed_file_up_no_longer_than_one(
    kind: SourceKind,
) -> Result<()> {
    let stage = two_tables(kind).await?;
    let create = |table: &str| format!("CREATE TABLE {table} (id INT PRIMARY KEY)");
    let mut many: Vec<String> = (10..70).map(|number| format!("held_{number}")).collect();
    let mut creates: Vec<String> = many.iter().map(|table| create(table)).collect();
    creates.push(create("idle"));
    stage.source.execute_all(creates).await?;
    let name = format!("{}_many", stage.database);
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("many.yaml");
    let write = |tables: &[&str]| -> Result<()> {
        let mut file = stage.pipe_file(tables);
        file["pipe"] = json!(name);
        file["destination"]["database"] = json!(name);
        Ok(std::fs::write(&path, format!("{file:#}"))?)
    };
    write(&["u"])?;
    let launched = launch(&stage.pipe_file(&["t"]));
    let mut pipe = start(launched.argument(folder.path().display().to_string()))?;
    let running = |document: &Value| document["state"] == "Running";
    wait_for_pipe(&pipe, &name, "Running", running).await?;

    let locks: Vec<String> = many.iter().map(|table| format!("{table} WRITE")).collect();
    let mut held = stage.source.connect().await?;
    held.query_drop(format!("LOCK TABLES {}", locks.join(", ")))
        .await?;
    // One that can be taken in stands behind them.
    many.extend(["u".to_owned(), "idle".to_owned()]);
    let tables: Vec<&str> = many.iter().map(String::as_str).collect();
    write(&tables)?;
    let modifying = |document: &Value| document["state"] == "Modifying";
    wait_for_pipe(&pipe, &name, "Modifying", modifying).await?;
    let began = Instant::now();
    let state = format!("/v1/pipes/{name}/state");
    let order = |command: &str| json!({ "command": command }).to_string();
    let (status, answer) = pipe.call(Method::PATCH, &state, order("pause")).await?;
    let took = began.elapsed();
    ensure!(status == 200, "{status}: {answer:#}");
    ensure!(took < ANSWERED_BEHIND_MANY, "answered after {took:?}");
    let paused = |document: &Value| document["state"] == "Paused";
    wait_for_pipe(&pipe, &name, "Paused", paused).await?;

    let (status, answer) = pipe.call(Method::PATCH, &state, order("resume")).await?;
    ensure!(status == 200, "{status}: {answer:#}");
    let streams = |document: &Value, wanted: &[&str]| {
        let tables = document["tables"].as_array();
        wanted.iter().all(|wanted| {
            let source = name_of(&stage, wanted);
            let mut tables = tables.into_iter().flatten();
            tables.any(|table| table["source"] == *source && table["state"] == "Streaming")
        })
    };
    let idle_streams = |document: &Value| streams(document, &["idle"]);
    wait_for_pipe(&pipe, &name, "the one that nobody has locked", idle_streams).await?;
    held.query_drop("UNLOCK TABLES").await?;
    let all_stream = |document: &Value| running(document) && streams(document, &tables);
    wait_for_pipe(&pipe, &name, "all of them", all_stream).await?;
    ensure!(pipe.stop().await? == 0);
    Ok(())
}

async fn a_command_in_checks_goes_on_to_the_pipe_that_takes_up_a_changed_file(
    kind: SourceKind,
) -> Result<()> {
    let stage = two_tables(kind).await?;
    let name = format!("{}_watched", stage.database);
    let folder = tempfile::tempdir()?;
    let write = |max_rows: u32| -> Result<()> {
        let mut file = stage.pipe_file(&["t"]);
        file["pipe"] = json!(name);
        file["destination"]["database"] = json!(name);
        file["sync"]["max_rows"] = json!(max_rows);
        Ok(std::fs::write(
            folder.path().join("watched.yaml"),
            format!("{file:#}"),
        )?)
    };
    write(1_000)?;
    let launched = launch(&stage.pipe_file(&["t"]));
    let mut pipe = start(launched.argument(folder.path().display().to_string()))?;
    let is_at = |state: &'static str| move |document: &Value| document["state"] == state;
    wait_for_pipe(&pipe, &name, "Running", is_at("Running")).await?;
    let mut held = lock(&stage, "u").await?;
    let add = json!({ "tables": { "add": [{ "source": name_of(&stage, "u") }] } });
    let path = format!("/v1/pipes/{name}");
    let changed = async {
        wait_for_pipe(&pipe, &name, "Modifying", is_at("Modifying")).await?;
        write(777)
    };
    let added = pipe.call(Method::PATCH, &path, add.to_string());
    let (added, changed) = tokio::join!(added, changed);
    changed?;
    let (status, problem) = added?;
    ensure!(
        status == 503 && problem["detail"].to_string().contains("locked"),
        "{status}: {problem:#}"
    );
    let file = pipe.get(&format!("{path}/file")).await?;
    ensure!(file["sync"]["max_rows"] == 777, "{file:#}");
    held.query_drop("UNLOCK TABLES").await?;
    ensure!(pipe.stop().await? == 0);
    Ok(())
}

async fn wait_modifying(stage: &Stage, pipe: &Pipe) -> Result<()> {
    let modifying = |document: &Value| document["state"] == "Modifying";
    wait_for_pipe(pipe, &stage.database, "Modifying", modifying)
        .await
        .map(drop)
}

/// When a row of the other table has passed that was written while the pipe waits for the locked one.
async fn streams_meanwhile(stage: &Stage, pipe: &Pipe) -> Result<Instant> {
    wait_modifying(stage, pipe).await?;
    let insert = "INSERT INTO t VALUES (30, 'meanwhile', 1)";
    stage.source.execute(insert).await?;
    let rows = format!(
        "SELECT count() FROM `{}`.t_current WHERE id = 30",
        stage.database
    );
    while stage.clickhouse.number(&rows).await? == 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(Instant::now())
}
