//! Commands that come while a pipe finishes what is in flight: answered at once or when that is done, as the lifecycle says.

use anyhow::{Context, Result, ensure};
use pipewright::pipe::Command;
use pipewright::pipe::lifecycle::{PipeState, Resume};
use serde_json::json;
use testbed::harness::{Pipe, Stage};

use super::{
    Asked, assert_moves, assert_stays, give_well, lock, name_of, newest_event, state, unlock,
    wait_told,
};
use crate::support::{CATCH_UP, SlowInserts, assert_caught_up};

/// A pipe that streams is paused while ClickHouse takes its time over an insert.
pub(super) async fn commands_while_pausing(stage: &Stage, pipe: &mut Pipe) -> Result<()> {
    let slow = SlowInserts::begin(stage, "t").await?;
    let insert = "INSERT INTO t (a) VALUES ('slow')";
    let pause = || (state("pause"), Command::Pause);
    let resume = || (state("resume"), Command::Resume);
    let pausing = PipeState::Pausing {
        resume: Resume::Running,
    };
    stage.source.execute(insert).await?;
    slow.wait_insert().await?;
    assert_moves(stage, pipe, &PipeState::Running, pause()).await?;
    assert_stays(stage, pipe, &pausing).await?;
    // It holds from the next run on, and is answered when this one is over.
    let (status, answer) = pipe.change(json!({ "sync": { "max_rows": 777 } })).await?;
    ensure!(
        status == 200 && answer["drift"].to_string().contains("777"),
        "set at Pausing: {status}: {answer:#}"
    );
    pipe.wait_state("Paused", CATCH_UP).await?;
    let paused = PipeState::Paused {
        resume: Resume::Running,
    };
    assert_moves(stage, pipe, &paused, resume()).await?;

    // A load that is asked for begins when what is in flight is done.
    stage.source.execute(insert).await?;
    slow.wait_insert().await?;
    assert_moves(stage, pipe, &PipeState::Running, pause()).await?;
    let newest = newest_event(stage, pipe).await?;
    assert_stays(stage, pipe, &pausing).await?;
    let resync = state("resync");
    let resynced = give_well(pipe, &resync);
    let ended = async {
        wait_told(stage, pipe, newest, "resync").await?;
        slow.end().await
    };
    let (resynced, ended) = tokio::join!(resynced, ended);
    ended?;
    resynced.context("resync at Pausing")?;
    wait_told(stage, pipe, newest, "Paused to Snapshot").await?;
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(stage, pipe, &["t", "u"]).await?;
    let slow = SlowInserts::begin(stage, "t").await?;

    // Who thinks better of it gets no pause at all.
    stage.source.execute(insert).await?;
    slow.wait_insert().await?;
    assert_moves(stage, pipe, &PipeState::Running, pause()).await?;
    assert_moves(stage, pipe, &pausing, resume()).await?;
    slow.end().await?;
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(stage, pipe, &["t", "u"]).await?;
    resumed_while_a_load_is_paused(stage, pipe).await
}

/// The load is kept from its end by a lock.
async fn resumed_while_a_load_is_paused(stage: &Stage, pipe: &mut Pipe) -> Result<()> {
    let held = lock(stage, "u").await?;
    let one = json!({ "command": "resync", "table": name_of(stage, "u") });
    give_well(pipe, &Asked::State(one)).await?;
    pipe.wait_state("Snapshot", CATCH_UP).await?;
    let slow = SlowInserts::begin(stage, "t").await?;
    let insert = "INSERT INTO t (a) VALUES ('slow')";
    stage.source.execute(insert).await?;
    slow.wait_insert().await?;
    let pause = (state("pause"), Command::Pause);
    assert_moves(stage, pipe, &PipeState::Snapshot, pause).await?;
    let pausing = PipeState::Pausing {
        resume: Resume::Snapshot,
    };
    let resume = (state("resume"), Command::Resume);
    assert_moves(stage, pipe, &pausing, resume).await?;
    slow.end().await?;
    unlock(held).await?;
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(stage, pipe, &["t", "u"]).await?;
    stage.assert_no_load_left().await
}
