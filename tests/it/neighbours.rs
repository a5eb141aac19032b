//! Several pipes in one process: a further one is there at once, and one that fails, burns time or has much to read leaves the
//! others alone.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable;
use reqwest::Method;
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{Pipe, Stage, usage_of};

use crate::support::{
    CATCH_UP, START, assert_caught_up, hostile_guest, launch, once, start, wait_for_pipe,
};

once! {
    a_further_pipe_is_provisioned_at_once: 300,
    a_failing_and_a_hogging_pipe_leave_another_running: 400,
}

/// Pipes that are made one after the other, until one is quick: the machine may be busy with other tests.
const FURTHER_MAX: usize = 30;

/// For both ends to be connected, with the process's engine and plugins at hand.
const PROVISIONED_WITHIN: Duration = Duration::from_millis(100);

/// For a row to reach the destination beside a pipe that is busy for half a minute: on a machine with much else to do, and
/// never as long as the other takes.
const VISIBLE_WITHIN: Duration = Duration::from_secs(20);

async fn a_further_pipe_is_provisioned_at_once() -> Result<()> {
    let guest = hostile_guest().await?;
    let (first, second) = (with_t().await?, with_t().await?);
    let plugged = |stage: &Stage| {
        let entry = json!({ "source": format!("{}.t", stage.database), "transforms": ["note"] });
        let mut file = stage.pipe_file_of(vec![entry]);
        file["transforms"]["note"] = plugin(guest, "none");
        file
    };
    let folder = guest.parent().context("a folder")?.display().to_string();
    let launched = launch(&plugged(&first)).argument("--plugins-dir");
    let mut pipe = start(launched.argument(folder))?;
    pipe.wait_state("Running", START).await?;
    let mut file = plugged(&second);
    // What is sent names files in the folder.
    let inside = Path::new(guest.file_name().context("a file")?);
    file["transforms"]["note"] = plugin(inside, "none");
    let name = &second.database;
    let mut taken = Vec::new();
    for number in 0..FURTHER_MAX {
        // A name of its own, and a target of its own, each time.
        let further = format!("{name}_{number}");
        file["pipe"] = json!(further);
        file["destination"]["database"] = json!(further);
        let (status, made) = pipe
            .call(Method::POST, "/v1/pipes", file.to_string())
            .await?;
        ensure!(status == 201, "{status} {made}");
        wait_for_pipe(&pipe, &further, "Running", |pipe| {
            pipe["state"] == "Running"
        })
        .await?;
        taken.push(provisioning(&pipe, &further).await?);
        let (status, gone) = pipe
            .call(Method::DELETE, &format!("/v1/pipes/{further}"), "")
            .await?;
        ensure!(status == 200, "{status} {gone}");
        if taken.last().is_some_and(|took| *took < PROVISIONED_WITHIN) {
            return Ok(());
        }
    }
    anyhow::bail!("each took longer than {PROVISIONED_WITHIN:?}: {taken:?}")
}

/// How long the pipe was in Provisioning, by its own history.
async fn provisioning(pipe: &Pipe, name: &str) -> Result<Duration> {
    let events = pipe.get(&format!("/v1/pipes/{name}/events")).await?;
    let events = events["events"].as_array().context("events")?;
    let at = |text: &str| -> Result<u64> {
        let told = events.iter().find(|event| event["text"] == text);
        let told = told.with_context(|| format!("no `{text}` in {events:#?}"))?;
        milliseconds(told["time"].as_str().context("a time")?)
    };
    let (begun, done) = (
        at("the pipe is known from now on")?,
        at("Provisioning to Setup")?,
    );
    Ok(Duration::from_millis(done.saturating_sub(begun)))
}

/// The time of day of `2026-01-31T12:00:00.000Z`, which these events have in common.
fn milliseconds(time: &str) -> Result<u64> {
    let clock = time
        .trim_end_matches('Z')
        .split_once('T')
        .context("a time")?
        .1;
    let parts: Vec<u64> = clock
        .split([':', '.'])
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    match parts[..] {
        [hours, minutes, seconds, millis] => {
            Ok(((hours * 60 + minutes) * 60 + seconds) * 1000 + millis)
        }
        _ => anyhow::bail!("{time} is no time"),
    }
}

/// The hostile guest as an entry of `transforms`. It asks for a file, whichever that is.
fn plugin(guest: &Path, crime: &str) -> Value {
    json!({
        "plugin": guest,
        "config": { "crime": crime },
        "on_error": "skip",
        "limits": { "time": "500ms" },
        "grants": { "lookup": { "any": guest } },
    })
}

async fn with_t() -> Result<Stage> {
    let stage = Stage::shared(SourceKind::MySql).await?;
    let statements = [
        "CREATE TABLE t (id INT PRIMARY KEY, a LONGTEXT)",
        "INSERT INTO t VALUES (1, 'one'), (2, 'two')",
    ];
    stage.source.execute_all(statements).await?;
    Ok(stage)
}

/// Rows of one transaction, a mebibyte each: far beyond `memory` of the pipe that reads them.
const LARGE_ROWS: u64 = 256;

/// What the process may grow by meanwhile: the pipe's `memory`, and as much again.
const GROWTH_BYTES: u64 = 128 << 20;

async fn a_failing_and_a_hogging_pipe_leave_another_running() -> Result<()> {
    let (good, failing, hog, large) = (
        with_t().await?,
        with_t().await?,
        with_t().await?,
        with_t().await?,
    );
    hog.source.execute("DELETE FROM t").await?;
    let folder = tempfile::tempdir()?;
    let mut refused = failing.pipe_file(&["t"]);
    refused["source"]["password"] = json!("wrong");
    let entry = json!({ "source": format!("{}.t", hog.database), "transforms": ["never"] });
    let mut looping = hog.pipe_file_of(vec![entry]);
    looping["transforms"]["never"] = plugin(hostile_guest().await?, "loop");
    let mut small = large.pipe_file(&["t"]);
    small["memory"] = json!("64MiB");
    for (name, file) in [
        ("refused.yaml", &refused),
        ("looping.yaml", &looping),
        ("small.yaml", &small),
    ] {
        std::fs::write(folder.path().join(name), format!("{file:#}"))?;
    }
    let launched = launch(&good.pipe_file(&["t"])).argument(folder.path().display().to_string());
    let mut pipe = start(launched)?;
    let running = |document: &Value| document["state"] == "Running";
    pipe.wait_state("Running", START).await?;
    wait_for_pipe(&pipe, &large.database, "Running", running).await?;
    wait_for_pipe(&pipe, &hog.database, "Running", running).await?;
    wait_for_pipe(&pipe, &failing.database, "Failed", |document| {
        document["state"] == "Failed" && document["reasons"][0]["code"] == "source_denied"
    })
    .await?;

    // Each of these rows keeps the plugin busy until its time is up.
    let rows: Vec<String> = (0..30).map(|id| format!("({id}, 'x')")).collect();
    let insert = format!("INSERT INTO t VALUES {}", rows.join(", "));
    hog.source.execute(insert).await?;
    let pid = pipe.pid().context("the pipe runs")?;
    let (_, before) = usage_of(pid)?;
    let mut conn = large.source.connect().await?;
    conn.query_drop("START TRANSACTION").await?;
    for id in 0..LARGE_ROWS {
        let row = format!(
            "INSERT INTO t VALUES ({}, REPEAT(SHA2({id}, 256), 16384))",
            id + 10
        );
        conn.query_drop(row).await?;
    }
    conn.query_drop("COMMIT").await?;
    for id in 10..20 {
        good.source
            .execute(format!("INSERT INTO t VALUES ({id}, 'meanwhile')"))
            .await?;
        let visible = format!(
            "SELECT count() FROM `{}`.t_current WHERE id = {id}",
            good.database
        );
        let committed = Instant::now();
        while good.clickhouse.number(&visible).await? == 0 {
            let waited = committed.elapsed();
            ensure!(
                waited < VISIBLE_WITHIN,
                "row {id} is not there after {waited:?}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert_caught_up(&good, &mut pipe, &["t"]).await?;
    let document = pipe.status().await?;
    ensure!(
        document["state"] == "Running" && document["reasons"] == json!([]),
        "{document:#}"
    );
    large.wait_caught_up(&mut pipe, CATCH_UP).await?;
    large.assert_same("t").await?;
    let (_, after) = usage_of(pid)?;
    let grown = after.saturating_sub(before);
    ensure!(
        grown < GROWTH_BYTES,
        "grown by {} MiB for a transaction of {LARGE_ROWS} MiB",
        grown >> 20
    );
    // The hog passes over its rows one by one, and is counted for them alone.
    hog.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let document = pipe.get(&format!("/v1/pipes/{}", hog.database)).await?;
    ensure!(
        document["tables"][0]["failed_rows"][0]["skipped"] == 30,
        "{document:#}"
    );
    Ok(())
}
