//! Commands that come while a pipe finishes what is in flight: answered at once or when that is done, as the lifecycle says.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pipewright::pipe::Command;
use pipewright::pipe::lifecycle::{PipeState, Resume};
use serde_json::json;
use testbed::harness::{Pipe, Stage};

use super::{assert_moves, assert_stays, state};
use crate::support::{CATCH_UP, assert_caught_up};

/// Steps of an insert, each of three seconds, the longest that ClickHouse sleeps in one block.
const STEPS: u32 = 4;

/// Inserts into one table take long.
pub(super) struct SlowInserts<'a> {
    stage: &'a Stage,
}

impl<'a> SlowInserts<'a> {
    /// Views, one behind the other, which an insert waits for.
    pub(super) async fn begin(stage: &'a Stage, table: &str) -> Result<Self> {
        let database = &stage.database;
        let mut from = table.to_owned();
        for step in 0..STEPS {
            for sql in [
                format!("CREATE TABLE `{database}`.slow_{step} (s UInt8) ENGINE = Null"),
                format!(
                    "CREATE MATERIALIZED VIEW `{database}`.slow_view_{step} TO `{database}`.slow_{step} \
                     AS SELECT sleep(3) AS s FROM `{database}`.{from}"
                ),
            ] {
                stage.clickhouse.query(&sql).await?;
            }
            from = format!("slow_{step}");
        }
        Ok(Self { stage })
    }

    /// Waits until one is under way.
    pub(super) async fn wait_insert(&self) -> Result<()> {
        let sql = format!(
            "SELECT count() FROM system.processes WHERE query_kind = 'Insert' AND query LIKE '%{}%'",
            self.stage.database
        );
        let until = Instant::now() + CATCH_UP;
        while self.stage.clickhouse.number(&sql).await? == 0 {
            ensure!(Instant::now() < until, "nothing is inserted");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// From now on inserts are as they were.
    pub(super) async fn end(self) -> Result<()> {
        for step in 0..STEPS {
            for what in ["slow_view", "slow"] {
                let sql = format!("DROP TABLE `{}`.{what}_{step} SYNC", self.stage.database);
                self.stage.clickhouse.query(&sql).await?;
            }
        }
        Ok(())
    }
}

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

    // Who thinks better of it gets no pause at all.
    stage.source.execute(insert).await?;
    slow.wait_insert().await?;
    assert_moves(stage, pipe, &PipeState::Running, pause()).await?;
    assert_moves(stage, pipe, &pausing, resume()).await?;
    slow.end().await?;
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(stage, pipe, &["t", "u"]).await
}
