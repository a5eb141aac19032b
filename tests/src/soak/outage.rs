//! ClickHouse away for long under writers: the reader keeps its binlog connection, memory stays bounded, nothing is lost.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::harness::{Held, Launch, Pipe, Stage, Workload, usage_of};
use crate::{ClickHouseOptions, ClickHouseServer, SourceKind, SourceOptions, SourceServer};

/// How long the pipe may take to begin, and to catch up with hours of writes.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// What the pipe may have at its peak for a budget of 64 MiB.
const PEAK_BYTES: u64 = 400 << 20;

const DUMPS: &str =
    "SELECT id FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'";

/// One outage of ClickHouse, `away` long, under random transactions; returns what to tell of it.
///
/// # Errors
/// A difference, a second binlog connection, memory beyond its bound, or a pipe that does not get there.
pub async fn run(kind: SourceKind, program: &Path, away: Duration, seed: u64) -> Result<String> {
    let servers = tokio::task::spawn_blocking(move || {
        anyhow::Ok((
            SourceServer::start(SourceOptions::new(kind))?,
            ClickHouseServer::start(ClickHouseOptions::default())?,
        ))
    });
    let (source, clickhouse) = servers.await??;
    let stage = Stage::on(Held::Own(Box::new(source)), Held::Own(Box::new(clickhouse))).await?;
    let workload = Workload { row_count: 2_000 };
    workload.create(&stage).await?;
    let mut file = stage.pipe_file(&Workload::TABLES);
    file["memory"] = json!("64MiB");
    file["destination"]["durability"] = json!("fsync");
    let mut pipe = Pipe::start(Launch::new(program, &file))?;
    pipe.wait_state("Running", PATIENCE).await?;
    stage.wait_caught_up(&mut pipe, PATIENCE).await?;
    let before: Vec<u64> = stage.source.rows(DUMPS).await?;
    ensure!(before.len() == 1, "{before:?}");

    let writer = workload.write(&stage.source, StdRng::seed_from_u64(seed));
    tokio::task::block_in_place(|| stage.clickhouse_server.kill())?;
    tokio::time::sleep(away).await;
    let status = pipe.status().await?;
    let told = |status: &Value| {
        status["reasons"]
            .to_string()
            .contains("destination_unavailable")
    };
    ensure!(told(&status), "{status:#}");
    tokio::task::block_in_place(|| stage.clickhouse_server.start_again())?;
    let written = writer.stop().await?;
    ensure!(written > 0, "nothing was written");
    let began = Instant::now();
    stage.wait_caught_up(&mut pipe, PATIENCE).await?;
    let behind = began.elapsed();
    pipe.wait_for("no reasons", PATIENCE, |status| {
        status["state"] == "Running" && status["reasons"] == json!([])
    })
    .await?;
    for table in Workload::TABLES {
        stage.assert_same(table).await?;
    }
    let after: Vec<u64> = stage.source.rows(DUMPS).await?;
    ensure!(
        before == after,
        "the binlog connection {before:?} became {after:?}"
    );
    let (_, peak_bytes) = usage_of(pipe.pid().context("the pipe runs")?)?;
    ensure!(peak_bytes < PEAK_BYTES, "{peak_bytes} bytes at its peak");
    Ok(format!(
        "{}: {written} transactions while ClickHouse was away, equal {behind:.1?} behind its return, {} MiB at the most, \
         one binlog connection",
        kind.label(),
        peak_bytes >> 20
    ))
}
