//! The workload through a filter, whose pipe is killed at random moments and is equal to its source afterwards.

use std::time::Duration;

use anyhow::{Result, ensure};
use rand::Rng;
use serde_json::{Value, json};
use testbed::harness::{Comparison, Stage};

use super::{CATCH_UP, START, Seed, Workload, launch, plugins, start};

/// What the filter keeps of `people`; the workload moves rows into it and out of it.
const KEPT: &str = "kind < 7";

/// Kills of one test.
pub(crate) const KILLS: u32 = 10;

/// A pipe file of the workload's tables, `people` through the filter.
pub(crate) async fn filtered(stage: &Stage) -> Result<Value> {
    let plugins = plugins().await?;
    let entries = Workload::TABLES
        .iter()
        .map(|table| {
            let transforms: &[&str] = if *table == "people" { &["kept"] } else { &[] };
            json!({ "source": format!("{}.{table}", stage.database), "transforms": transforms })
        })
        .collect();
    let mut file = stage.pipe_file_of(entries);
    file["transforms"]["kept"] =
        json!({ "plugin": plugins.path("filter"), "config": { "where": KEPT } });
    file["destination"]["durability"] = json!("fsync");
    file["sync"] = json!({ "interval": "100ms", "max_rows": 200 });
    Ok(file)
}

/// The workload's tables are what the source has, as far as the filter keeps it.
pub(crate) async fn assert_filtered(stage: &Stage) -> Result<()> {
    stage
        .assert(Comparison::of("people").only_where(KEPT))
        .await?;
    for table in Workload::TABLES.iter().filter(|table| **table != "people") {
        stage.assert_same(table).await?;
    }
    Ok(())
}

/// Kills the pipe of `file` again and again while the workload is written; both ends are equal in the end.
pub(crate) async fn assert_stream_survives_kills(
    stage: &Stage,
    file: &Value,
    seed: Seed,
) -> Result<()> {
    let mut moments = seed.generator(0);
    let workload = Workload { row_count: 2_000 };
    workload.create(stage).await?;
    let mut pipe = start(launch(file))?;
    pipe.wait_state("Running", START).await?;
    let writers = [1, 2, 3].map(|which| workload.write(&stage.source, seed.generator(which)));
    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(moments.random_range(50..1500))).await;
        pipe.kill9()?;
        // Sometimes the backlog is longer than one flush.
        tokio::time::sleep(Duration::from_millis(moments.random_range(0..400))).await;
        pipe.restart()?;
    }
    let mut written = 0;
    for writer in writers {
        written += writer.stop().await?;
    }
    ensure!(written > 100, "only {written} transactions were written");
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    assert_filtered(stage).await
}
