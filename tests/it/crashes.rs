//! SIGKILL at random moments, under write load, through a filter: whatever was in flight, both ends are equal afterwards.

use std::time::Duration;

use anyhow::{Result, ensure};
use rand::Rng;
use serde_json::json;
use testbed::SourceKind;
use testbed::harness::Stage;

use crate::support::{
    CATCH_UP, KILLS, START, Seed, Workload, assert_filtered, assert_stream_survives_kills,
    filtered, launch, on_both_sources, start,
};

on_both_sources! {
    a_load_killed_at_random_moments_converges: 300,
    a_stream_killed_at_random_moments_converges: 300,
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
    assert_filtered(&stage).await
}

async fn a_stream_killed_at_random_moments_converges(kind: SourceKind) -> Result<()> {
    let seed = Seed::new("a_stream_killed_at_random_moments_converges");
    let stage = Stage::shared(kind).await?;
    assert_stream_survives_kills(&stage, &filtered(&stage).await?, seed).await
}
