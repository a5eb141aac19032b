//! Commands that come while a pipe finishes what is in flight: answered at once or when that is done, as the lifecycle says.

use anyhow::{Context, Result, ensure};
use pipewright::pipe::Command;
use pipewright::pipe::lifecycle::{PipeState, Resume};
use serde_json::json;
use testbed::harness::{Pipe, Stage};

use super::{
    Asked, assert_moves, assert_stays, give_well, lock, name_of, newest_event, resync, state,
    table_state, unlock, wait_told,
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
    slow.end().await?;
    let one = Asked::State(json!({ "command": "resync", "table": name_of(stage, "u") }));
    for load in [state("resync"), one.clone()] {
        load_asked_for_while_pausing(stage, pipe, load).await?;
    }

    // Who thinks better of it gets no pause at all.
    for again in [resume(), (state("start"), Command::Start)] {
        let slow = SlowInserts::begin(stage, "t").await?;
        stage.source.execute(insert).await?;
        slow.wait_insert().await?;
        assert_moves(stage, pipe, &PipeState::Running, pause()).await?;
        assert_moves(stage, pipe, &pausing, again).await?;
        slow.end().await?;
        pipe.wait_state("Running", CATCH_UP).await?;
        assert_caught_up(stage, pipe, &["t", "u"]).await?;
    }

    // A load leads out of a pause, also that of one table.
    assert_moves(stage, pipe, &PipeState::Running, pause()).await?;
    pipe.wait_state("Paused", CATCH_UP).await?;
    stage.source.execute("DELETE FROM u WHERE id = 1").await?;
    assert_moves(stage, pipe, &paused, (one, resync())).await?;
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(stage, pipe, &["t", "u"]).await?;
    resumed_while_a_load_is_paused(stage, pipe).await
}

/// It begins when what is in flight is done.
async fn load_asked_for_while_pausing(stage: &Stage, pipe: &mut Pipe, load: Asked) -> Result<()> {
    let slow = SlowInserts::begin(stage, "t").await?;
    let insert = "INSERT INTO t (a) VALUES ('slow')";
    stage.source.execute(insert).await?;
    slow.wait_insert().await?;
    let pause = (state("pause"), Command::Pause);
    assert_moves(stage, pipe, &PipeState::Running, pause).await?;
    let newest = newest_event(stage, pipe).await?;
    let pausing = PipeState::Pausing {
        resume: Resume::Running,
    };
    assert_stays(stage, pipe, &pausing).await?;
    let resynced = give_well(pipe, &load);
    let ended = async {
        wait_told(stage, pipe, newest, "resync").await?;
        slow.end().await
    };
    let (resynced, ended) = tokio::join!(resynced, ended);
    ended?;
    resynced.with_context(|| format!("{load:?} at Pausing"))?;
    wait_told(stage, pipe, newest, "Paused to Snapshot").await?;
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(stage, pipe, &["t", "u"]).await
}

/// The commands that ask for a table which is out of service.
const WAYS_BACK: [&str; 2] = ["retry", "skip"];

/// A table out of service that a paused pipe is told to take back is read when the pipe goes on, and not before; the same
/// while it finishes what is in flight. What is wrong with it is met again.
pub(super) async fn ways_back_while_paused(
    stage: &Stage,
    pipe: &mut Pipe,
    table: &str,
) -> Result<()> {
    let source = name_of(stage, table);
    let back = |verb| Asked::State(json!({ "command": verb, "table": source }));
    let pause = || (state("pause"), Command::Pause);
    for verb in WAYS_BACK {
        assert_moves(stage, pipe, &PipeState::Degraded, pause()).await?;
        pipe.wait_state("Paused", CATCH_UP).await?;
        let document = give_well(pipe, &back(verb)).await?;
        ensure!(
            document["state"] == "Paused" && table_state(&document, &source) == "CatchingUp",
            "{verb} at Paused: {document:#}"
        );
        meets_its_trouble_again(stage, pipe, &source).await?;

        let slow = SlowInserts::begin(stage, "t").await?;
        let insert = "INSERT INTO t (a) VALUES ('slow')";
        stage.source.execute(insert).await?;
        slow.wait_insert().await?;
        assert_moves(stage, pipe, &PipeState::Degraded, pause()).await?;
        ensure!(pipe.status().await?["state"] == "Pausing");
        let asked = back(verb);
        let (taken, ended) = tokio::join!(give_well(pipe, &asked), slow.end());
        ended?;
        taken.with_context(|| format!("{verb} at Pausing"))?;
        let document = pipe.wait_state("Paused", CATCH_UP).await?;
        ensure!(
            table_state(&document, &source) == "CatchingUp",
            "{verb} at Pausing: {document:#}"
        );
        meets_its_trouble_again(stage, pipe, &source).await?;
    }
    Ok(())
}

async fn meets_its_trouble_again(stage: &Stage, pipe: &mut Pipe, source: &str) -> Result<()> {
    let paused = PipeState::Paused {
        resume: Resume::Running,
    };
    let resume = (state("resume"), Command::Resume);
    assert_moves(stage, pipe, &paused, resume).await?;
    pipe.wait_for("the same trouble", CATCH_UP, |document| {
        document["state"] == "Degraded" && table_state(document, source) == "Quarantined"
    })
    .await
    .map(drop)
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
