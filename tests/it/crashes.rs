//! SIGKILL at random moments, under write load, through a filter: whatever was in flight, both ends are equal afterwards.

use std::time::Duration;

use anyhow::{Result, ensure};
use rand::Rng;
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{Comparison, Stage};

use crate::support::{CATCH_UP, START, Seed, Workload, launch, on_both_sources, plugins, start};

/// Kills of one test.
const KILLS: u32 = 10;

/// What the filter keeps of `people`; the workload moves rows into it and out of it.
const KEPT: &str = "kind < 7";

on_both_sources! {
    a_load_killed_at_random_moments_converges: 300,
    a_stream_killed_at_random_moments_converges: 300,
}

async fn filtered(stage: &Stage) -> Result<Value> {
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

async fn assert_equal(stage: &Stage) -> Result<()> {
    stage
        .assert(Comparison::of("people").only_where(KEPT))
        .await?;
    for table in Workload::TABLES.iter().filter(|table| **table != "people") {
        stage.assert_same(table).await?;
    }
    Ok(())
}

async fn a_load_killed_at_random_moments_converges(kind: SourceKind) -> Result<()> {
    let seed = Seed::new("a_load_killed_at_random_moments_converges");
    let mut moments = seed.generator(0);
    let stage = Stage::shared(kind).await?;
    let workload = Workload { row_count: 30_000 };
    workload.create(&stage).await?;
    let mut file = filtered(&stage).await?;
    file["snapshot"] =
        json!({ "rows_per_partition": 300, "threads_per_table": 2, "tables_in_parallel": 2 });
    let writers = [1, 2].map(|which| workload.write(&stage.source, seed.generator(which)));
    let mut pipe = start(launch(&file))?;
    let mut killed_loading = 0;
    for _ in 0..KILLS {
        // The first kills fall into Provisioning and Setup, the later ones between partitions.
        tokio::time::sleep(Duration::from_millis(moments.random_range(20..1200))).await;
        let state = pipe
            .status()
            .await
            .map(|status| status["state"].clone())
            .unwrap_or_default();
        killed_loading += u32::from(state != "Running");
        pipe.kill9()?;
        pipe.restart()?;
    }
    pipe.wait_state("Running", START).await?;
    for writer in writers {
        writer.stop().await?;
    }
    eprintln!("{killed_loading} of {KILLS} kills fell into the load");
    ensure!(
        killed_loading > 0,
        "the load was over before the first kill"
    );
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    assert_equal(&stage).await
}

async fn a_stream_killed_at_random_moments_converges(kind: SourceKind) -> Result<()> {
    let seed = Seed::new("a_stream_killed_at_random_moments_converges");
    let mut moments = seed.generator(0);
    let stage = Stage::shared(kind).await?;
    let workload = Workload { row_count: 2_000 };
    workload.create(&stage).await?;
    let mut pipe = start(launch(&filtered(&stage).await?))?;
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
    assert_equal(&stage).await
}
