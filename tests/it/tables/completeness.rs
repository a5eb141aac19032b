//! What readers of ClickHouse are told of each table: `_pipewright_checkpoints` has the pipe's place, and those of tables
//! that are not complete up to there.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use pipewright::source::mysql::position::Position;
use reqwest::Method;
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{MARKER_TABLE, Pipe, Proxy, Stage};

use super::{name_of, order, table, wait_table};
use crate::support::{
    CATCH_UP, START, assert_caught_up, launch, newest_place, on_both_sources, once, running, start,
    wait_for_pipe,
};

on_both_sources! {
    each_table_says_up_to_where_it_is_complete: 300,
    a_pipe_that_is_done_has_told_what_its_loads_hold: 240,
}

once! {
    a_table_of_checkpoints_that_an_earlier_build_has_made_serves_new_pipes_and_drops: 240,
}

/// The pipe's place, and by target the place of each that has another, empty where none can be named.
struct Told {
    position: String,
    incomplete: BTreeMap<String, String>,
}

async fn told(stage: &Stage) -> Result<Option<Told>> {
    let sql = format!(
        "SELECT complete FROM `{0}`._pipewright_checkpoints FINAL WHERE pipe = '{0}' \
         ORDER BY term DESC, stream_offset DESC LIMIT 1 FORMAT JSONEachRow",
        stage.database
    );
    let text = stage.clickhouse.query(&sql).await?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    let row: Value = serde_json::from_str(&text)?;
    let mut incomplete: BTreeMap<String, String> = serde_json::from_value(row["complete"].clone())?;
    let position = incomplete.remove("");
    Ok(position.map(|position| Told {
        position,
        incomplete,
    }))
}

/// Waits until the tables with a place of their own are these.
async fn wait_incomplete(stage: &Stage, wanted: &[&str]) -> Result<Told> {
    let until = Instant::now() + CATCH_UP;
    loop {
        let told = told(stage).await?;
        let names = told.as_ref().map(|told| told.incomplete.keys());
        if names.is_some_and(|names| names.eq(wanted)) {
            return told.context("a row");
        }
        ensure!(
            Instant::now() < until,
            "{:?} and not {wanted:?} are incomplete",
            told.map(|told| told.incomplete)
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// pitfall 98: the place of one table that is out of service is not the pipe's.
async fn each_table_says_up_to_where_it_is_complete(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE gated (id INT PRIMARY KEY, a VARCHAR(40) NULL, b INT NULL)",
            "CREATE TABLE u LIKE gated",
            "INSERT INTO gated VALUES (1, 'one', 1), (2, 'two', 2), (3, NULL, 3)",
        ])
        .await?;
    let mut file = stage.pipe_file(&["gated", "u"]);
    file["ddl"] = json!({ "modify_column": "quarantine", "rename_column": "quarantine" });
    let gate = Proxy::before(stage.clickhouse_server.http_port()).await?;
    file["destination"]["url"] = json!(gate.url());
    gate.close_gate("gated", 0);
    let mut pipe = start(launch(&file))?;
    gate.wait_gated(START).await?;
    // While it is loaded for the first time there is no such place.
    let first = wait_incomplete(&stage, &["gated", MARKER_TABLE, "u"]).await?;
    ensure!(first.incomplete.values().all(String::is_empty));
    gate.open_gate();
    // Nothing moves the pipe's place from here on.
    pipe.wait_state("Running", START).await?;
    wait_incomplete(&stage, &[]).await?;

    assert_own_place_out_of_service(&stage, &mut pipe).await?;
    // The table that is loaded anew is whole when that is over, also where nothing else happens.
    order(&pipe, &stage, "resync", "gated").await?;
    wait_table(&mut pipe, "gated", "Streaming").await?;
    wait_incomplete(&stage, &[]).await?;
    // Beside a live table that is followed, a load takes nothing from it.
    gate.close_gate("gated_resync_2", 0);
    order(&pipe, &stage, "resync", "gated").await?;
    gate.wait_gated(CATCH_UP).await?;
    assert_caught_up(&stage, &mut pipe, &["gated", "u"]).await?;
    let beside = told(&stage).await?.context("a row")?;
    ensure!(beside.incomplete.is_empty(), "{:?}", beside.incomplete);
    gate.open_gate();
    pipe.wait_state("Running", CATCH_UP).await?;

    let remove = json!({ "tables": { "remove": [name_of(&stage, "gated")] } });
    ensure!(pipe.change(remove).await?.0 == 200);
    let removed = wait_incomplete(&stage, &["gated"]).await?;
    ensure!(removed.incomplete["gated"].is_empty());
    assert_told_again_behind_an_earlier_build(&stage, &mut pipe).await
}

/// A statement takes `gated` out of service between two rows of it.
async fn assert_own_place_out_of_service(stage: &Stage, pipe: &mut Pipe) -> Result<()> {
    stage
        .source
        .execute("INSERT INTO gated VALUES (4, 'before', 4)")
        .await?;
    let before = newest_place(stage).await?;
    stage
        .source
        .execute_all([
            "ALTER TABLE gated CHANGE COLUMN b bb BIGINT NULL",
            "INSERT INTO gated VALUES (5, 'after', 5)",
            "INSERT INTO u VALUES (5, 'after', 5)",
        ])
        .await?;
    let after = newest_place(stage).await?;
    wait_table(pipe, "gated", "Quarantined").await?;
    assert_caught_up(stage, pipe, &["u"]).await?;
    // Rows are there before their place is told.
    let until = Instant::now() + CATCH_UP;
    let place = loop {
        let out = wait_incomplete(stage, &["gated"]).await?;
        let place: Position = serde_json::from_str(&out.incomplete["gated"])?;
        let pipes: Position = serde_json::from_str(&out.position)?;
        if pipes.contains(&after) == Some(true) {
            break place;
        }
        ensure!(Instant::now() < until, "the pipe is at {pipes}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    ensure!(
        place.contains(&before) == Some(true) && place.contains(&after) == Some(false),
        "`gated` is said to be complete up to {place}"
    );
    Ok(())
}

/// As an earlier build has left the table of checkpoints, and as another pipe that is started finds it: its rows tell
/// nothing. `gated` has been removed.
async fn assert_told_again_behind_an_earlier_build(stage: &Stage, pipe: &mut Pipe) -> Result<()> {
    ensure!(pipe.stop().await? == 0);
    let alter = async |change: &str| {
        let table = format!("`{}`._pipewright_checkpoints", stage.database);
        let sql = format!("ALTER TABLE {table} {change}");
        stage.clickhouse.query(&sql).await
    };
    alter("DROP COLUMN complete").await?;
    alter("ADD COLUMN complete Map(String, String)").await?;
    ensure!(
        told(stage).await?.is_none(),
        "a row of before tells something"
    );
    alter("DROP COLUMN complete").await?;
    pipe.restart()?;
    assert_caught_up(stage, pipe, &["u"]).await?;
    let removed = wait_incomplete(stage, &["gated"]).await?;
    ensure!(removed.incomplete["gated"].is_empty());
    let status = pipe.status().await?;
    ensure!(table(&status, "gated")["state"] == "Removed", "{status:#}");
    Ok(())
}

/// pitfall 98: nothing writes behind one that is Completed, nor behind one that is paused as soon as its load is over, and
/// the source is idle.
async fn a_pipe_that_is_done_has_told_what_its_loads_hold(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a INT)",
            "CREATE TABLE u LIKE t",
            "INSERT INTO t VALUES (1, 1), (2, 2)",
        ])
        .await?;
    let mut file = stage.pipe_file(&["t", "u"]);
    file["mode"] = json!("snapshot");
    let before = newest_place(&stage).await?;
    let mut pipe = start(launch(&file))?;
    pipe.wait_state("Completed", START).await?;
    ensure_told(&stage, &before)
        .await
        .context("behind the load")?;
    stage.source.execute("INSERT INTO t VALUES (3, 3)").await?;
    let before = newest_place(&stage).await?;
    let (status, answer) = pipe.command("resync").await?;
    ensure!(status == 200, "{status}: {answer:#}");
    pipe.wait_for("the load anew", CATCH_UP, |status| {
        status["state"] == "Completed" && table(status, "t")["snapshot"]["rows"] == 3
    })
    .await?;
    ensure_told(&stage, &before)
        .await
        .context("behind the exchange")?;
    ensure!(pipe.stop().await? == 0);

    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a INT)",
            "INSERT INTO t VALUES (1, 1)",
        ])
        .await?;
    let mut file = stage.pipe_file(&["t"]);
    let gate = Proxy::before(stage.clickhouse_server.http_port()).await?;
    file["destination"]["url"] = json!(gate.url());
    gate.close_gate("t", 0);
    let before = newest_place(&stage).await?;
    let mut pipe = start(launch(&file))?;
    gate.wait_gated(START).await?;
    gate.open_gate();
    wait_table(&mut pipe, "t", "Streaming").await?;
    let (status, answer) = pipe.command("pause").await?;
    ensure!(status == 200, "{status}: {answer:#}");
    pipe.wait_state("Paused", CATCH_UP).await?;
    ensure_told(&stage, &before)
        .await
        .context("behind the pause")
}

/// Sees that all targets are said to hold everything up to one place, which is at `least` or behind it.
async fn ensure_told(stage: &Stage, least: &Position) -> Result<()> {
    let told = told(stage).await?.context("no row tells anything")?;
    let incomplete = &told.incomplete;
    ensure!(incomplete.is_empty(), "{incomplete:?} have another place");
    let place: Position = serde_json::from_str(&told.position)
        .with_context(|| format!("the place is `{}`", told.position))?;
    ensure!(
        place.contains(least) == Some(true),
        "{place} is not behind {least}"
    );
    Ok(())
}

/// None of them goes on where it was before, which would give the table what it lacks.
async fn a_table_of_checkpoints_that_an_earlier_build_has_made_serves_new_pipes_and_drops()
-> Result<()> {
    let stage = Stage::shared(SourceKind::MySql).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE a (id INT PRIMARY KEY)",
            "CREATE TABLE b (id INT PRIMARY KEY)",
            "INSERT INTO b VALUES (1), (2)",
        ])
        .await?;
    let mut pipe = running(&stage, &["a"]).await?;
    ensure!(pipe.command("pause").await?.0 == 200);
    pipe.wait_state("Paused", CATCH_UP).await?;
    let earlier = format!(
        "ALTER TABLE `{}`._pipewright_checkpoints DROP COLUMN complete",
        stage.database
    );
    stage.clickhouse.query(&earlier).await?;
    let name = format!("{}_b", stage.database);
    let mut file = stage.pipe_file_of(vec![json!({ "source": name_of(&stage, "b") })]);
    file["pipe"] = json!(name);
    file["tables"] = json!([{ "source": name_of(&stage, "b") }]);
    let (status, made) = pipe
        .call(Method::POST, "/v1/pipes", file.to_string())
        .await?;
    ensure!(status == 201, "{status}: {made:#}");
    let running = |document: &Value| document["state"] == "Running";
    wait_for_pipe(&pipe, &name, "Running", running).await?;
    let rows = format!("SELECT count() FROM `{}`.b_current", stage.database);
    ensure!(stage.clickhouse.number(&rows).await? == 2);

    stage.clickhouse.query(&earlier).await?;
    let (status, answer) = pipe.forget().await?;
    ensure!(
        status == 200 && answer["reasons"] == json!([]),
        "{status}: {answer:#}"
    );
    Ok(())
}
