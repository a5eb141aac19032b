//! A pipe is dropped whatever it is at, with the targets left as they are and nothing of its loads beside them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{Pipe, Proxy, Stage};
use tokio::task::JoinHandle;

use super::effects::{loads, newest_kind};
use super::{adding, give_well, lock, name_of, state, unlock, wait_state, with_tables};
use crate::support::{
    CATCH_UP, START, SlowInserts, SlowReader, launch, on_both_sources, running, running_with, start,
};

on_both_sources! {
    a_pipe_is_dropped_from_whatever_it_is_at: 900,
    a_pipe_is_dropped_in_time_though_an_end_of_it_hangs: 300,
}

/// What is left at a ClickHouse that does not answer is tried for half a minute.
const DROPPED_WITHIN: Duration = Duration::from_secs(50);

async fn a_pipe_is_dropped_from_whatever_it_is_at(kind: SourceKind) -> Result<()> {
    let stage = || with_tables(kind, 6);
    while_it_is_set_up(&stage().await?).await.context("Setup")?;
    while_it_loads(&stage().await?).await.context("Snapshot")?;
    for paused in [false, true] {
        while_tables_are_added(&stage().await?, paused)
            .await
            .with_context(|| format!("Modifying, paused: {paused}"))?;
    }
    for_nobody_who_waits(&stage().await?)
        .await
        .context("a client that goes away")?;
    while_it_pauses(&stage().await?).await.context("Pausing")?;
    while_it_is_paused(&stage().await?)
        .await
        .context("Paused")?;
    while_tables_are_exchanged(&stage().await?)
        .await
        .context("Resync")?;
    with_a_table_out_of_service(&stage().await?)
        .await
        .context("Degraded")?;
    without_its_source(&stage().await?).await.context("Failed")
}

/// Writes to `u` until it is aborted.
fn writing(stage: &Stage) -> JoinHandle<Result<()>> {
    let source = stage.source.clone();
    tokio::spawn(async move {
        loop {
            source.execute("INSERT INTO u (a) VALUES ('more')").await?;
            source.execute("DELETE FROM u ORDER BY id LIMIT 1").await?;
        }
    })
}

async fn assert_drops(stage: &Stage, pipe: &Pipe) -> Result<()> {
    let (status, answer) = pipe.forget().await?;
    assert_dropped(stage, pipe, (status, answer)).await
}

async fn assert_dropped(stage: &Stage, pipe: &Pipe, (status, answer): (u16, Value)) -> Result<()> {
    let left = answer["reasons"].to_string();
    ensure!(
        status == 200 && !left.contains("the pipe is dropped"),
        "{status}: {answer:#}"
    );
    ensure!(
        pipe.status().await.is_err(),
        "a dropped pipe has a document"
    );
    stage.assert_no_load_left().await?;
    ensure!(newest_kind(stage).await? == "dropped");
    for table in ["t", "u"] {
        let sql = format!("EXISTS TABLE `{}`.{table}_current", stage.database);
        ensure!(
            stage.clickhouse.number(&sql).await? == 1,
            "a target has gone: {table}"
        );
    }
    Ok(())
}

/// Nothing of it is at the destination yet.
async fn while_it_is_set_up(stage: &Stage) -> Result<()> {
    let held = lock(stage, "t").await?;
    let mut pipe = start(launch(&stage.pipe_file(&["t", "u"])))?;
    pipe.wait_state("Setup", START).await?;
    let (status, answer) = pipe.forget().await?;
    drop(held);
    ensure!(
        status == 200 && answer["reasons"] == json!([]) && pipe.status().await.is_err(),
        "{status}: {answer:#}"
    );
    stage.assert_no_load_left().await
}

async fn while_it_is_paused(stage: &Stage) -> Result<()> {
    let pipe = running(stage, &["t", "u"]).await?;
    give_well(&pipe, &state("pause")).await?;
    wait_state(stage, &pipe, "Paused").await?;
    assert_drops(stage, &pipe).await
}

async fn while_it_loads(stage: &Stage) -> Result<()> {
    let pipe = running(stage, &["t", "u"]).await?;
    let writer = writing(stage);
    let held = lock(stage, "t").await?;
    give_well(&pipe, &state("resync")).await?;
    wait_state(stage, &pipe, "Snapshot").await?;
    let until = Instant::now() + CATCH_UP;
    while loads(stage).await?.is_empty() {
        ensure!(Instant::now() < until, "no table of a load is made");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let dropped = assert_drops(stage, &pipe).await;
    ensure!(!writer.is_finished(), "nobody writes");
    writer.abort();
    drop(held);
    dropped
}

async fn while_tables_are_added(stage: &Stage, paused: bool) -> Result<()> {
    let pipe = running(stage, &["t", "u"]).await?;
    if paused {
        give_well(&pipe, &state("pause")).await?;
        wait_state(stage, &pipe, "Paused").await?;
    }
    let held = lock(stage, "w").await?;
    let add = adding(json!({ "source": name_of(stage, "w") }));
    let forget = async {
        wait_state(stage, &pipe, "Modifying").await?;
        pipe.forget().await
    };
    let (added, dropped) = tokio::join!(pipe.change(add), forget);
    unlock(held).await?;
    let (status, answer) = added?;
    ensure!(
        status == 503 && answer["detail"].to_string().contains("dropped"),
        "tables add: {status}: {answer:#}"
    );
    assert_dropped(stage, &pipe, dropped?).await
}

/// Who asks for the drop goes away before it is over; two others wait for it.
async fn for_nobody_who_waits(stage: &Stage) -> Result<()> {
    let pipe = running(stage, &["t", "u"]).await?;
    let slow = SlowInserts::begin(stage, "t").await?;
    let insert = "INSERT INTO t (a) VALUES ('slow')";
    stage.source.execute(insert).await?;
    slow.wait_insert().await?;
    let gone = tokio::time::timeout(Duration::from_millis(300), pipe.forget()).await;
    ensure!(gone.is_err(), "the drop did not wait: {gone:?}");
    let (one, other) = tokio::join!(pipe.forget(), pipe.forget());
    slow.end().await?;
    let (one, other) = (one?, other?);
    assert_dropped(stage, &pipe, one).await?;
    assert_dropped(stage, &pipe, other).await?;

    // One that nobody waited for to the end is gone as well, and its name is free.
    let mut again = stage.pipe_file(&["t"]);
    again["destination"]["database"] = json!(format!("{}_again", stage.database));
    let make = || pipe.call(Method::POST, "/v1/pipes", again.to_string());
    let (status, answer) = make().await?;
    ensure!(status == 201, "{status}: {answer:#}");
    wait_state(stage, &pipe, "Running").await?;
    let database = format!("{}_again", stage.database);
    let slow = SlowInserts::begin_in(stage, &database, "t").await?;
    stage.source.execute(insert).await?;
    slow.wait_insert().await?;
    let gone = tokio::time::timeout(Duration::from_millis(300), pipe.forget()).await;
    ensure!(gone.is_err(), "the drop did not wait: {gone:?}");
    slow.end().await?;
    let until = Instant::now() + CATCH_UP;
    while pipe.status().await.is_ok() {
        ensure!(Instant::now() < until, "the pipe is still listed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (status, answer) = make().await?;
    ensure!(status == 201, "{status}: {answer:#}");
    pipe.forget().await.map(drop)
}

async fn while_it_pauses(stage: &Stage) -> Result<()> {
    let pipe = running(stage, &["t", "u"]).await?;
    let slow = SlowInserts::begin(stage, "t").await?;
    let insert = "INSERT INTO t (a) VALUES ('slow')";
    stage.source.execute(insert).await?;
    slow.wait_insert().await?;
    give_well(&pipe, &state("pause")).await?;
    let now = pipe.status().await?;
    ensure!(now["state"] == "Pausing", "{now:#}");
    assert_drops(stage, &pipe).await?;
    slow.end().await
}

async fn while_tables_are_exchanged(stage: &Stage) -> Result<()> {
    let mut pipe = running(stage, &["t", "u"]).await?;
    let reader = SlowReader::begin(stage, "t").await?;
    give_well(&pipe, &state("resync")).await?;
    pipe.wait_state("Resync", CATCH_UP).await?;
    reader.wait_in_the_way().await?;
    let (dropped, ended) = tokio::join!(pipe.forget(), reader.end_later());
    ended?;
    assert_dropped(stage, &pipe, dropped?).await
}

async fn with_a_table_out_of_service(stage: &Stage) -> Result<()> {
    let mut pipe = running(stage, &["t", "u"]).await?;
    let sql = format!("ALTER TABLE `{}`.u RENAME COLUMN a TO b", stage.database);
    stage.clickhouse.query(&sql).await?;
    let insert = "INSERT INTO u (a) VALUES ('x')";
    stage.source.execute(insert).await?;
    pipe.wait_state("Degraded", CATCH_UP).await?;
    assert_drops(stage, &pipe).await
}

async fn without_its_source(stage: &Stage) -> Result<()> {
    let mut pipe = running(stage, &["t", "u"]).await?;
    pipe.stop().await?;
    let mut file = stage.pipe_file(&["t", "u"]);
    file["tables"][0]["order_by"] = json!(["tenant", "id"]);
    file["source"]["port"] = json!(1);
    pipe.change_file(&file);
    pipe.restart()?;
    wait_state(stage, &pipe, "Failed").await?;
    assert_drops(stage, &pipe).await
}

/// A machine that takes connections and never answers; what was open stands still.
async fn a_pipe_is_dropped_in_time_though_an_end_of_it_hangs(kind: SourceKind) -> Result<()> {
    let insert = "INSERT INTO u (a) VALUES ('on its way')";
    for hanging in ["source", "destination"] {
        let stage = with_tables(kind, 1).await?;
        let mut file = stage.pipe_file(&["t", "u"]);
        let proxy = match hanging {
            "source" => {
                let proxy = Proxy::before(stage.source_server.port()).await?;
                file["source"]["port"] = json!(proxy.port());
                proxy
            }
            _ => {
                let proxy = Proxy::before(stage.clickhouse_server.http_port()).await?;
                file["destination"]["url"] = json!(proxy.url());
                proxy
            }
        };
        let pipe = running_with(&file).await?;
        proxy.hang();
        stage.source.execute(insert).await?;
        // For the flush that it is in.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let begun = Instant::now();
        let (status, answer) = pipe.forget().await.context(hanging)?;
        let took = begun.elapsed();
        ensure!(
            status == 200 && took < DROPPED_WITHIN && pipe.status().await.is_err(),
            "{hanging}, after {took:?}: {status}: {answer:#}"
        );
        let told = answer["reasons"].to_string();
        ensure!(
            told.contains("the pipe is dropped") == (hanging == "destination"),
            "{hanging}: {answer:#}"
        );
    }
    Ok(())
}
