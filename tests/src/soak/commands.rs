//! Random sequences of commands to a pipe under write load, kills and restarts among them: whatever was asked in whatever
//! state, both ends are equal when the pipe is let go on.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::SourceKind;
use crate::harness::{Launch, Pipe, Stage, Workload};

/// Commands of one sequence.
const STEPS: usize = 14;

/// How long a pipe may take to come back to Running, and to show what was committed.
const PATIENCE: Duration = Duration::from_secs(180);

/// Tables that stay in the pipe whatever is asked.
const KEPT: &str = "people";

#[derive(Clone, Copy, Debug)]
enum Step {
    Pause,
    Resume,
    Start,
    Resync,
    ResyncTable(&'static str),
    Add(&'static str),
    Remove(&'static str),
    Retry(&'static str),
    Set,
    Connect,
    Stop,
    Kill,
}

impl Step {
    fn random(generator: &mut StdRng) -> Self {
        let table = Workload::TABLES[generator.random_range(0..Workload::TABLES.len())];
        let other = Workload::TABLES[generator.random_range(1..Workload::TABLES.len())];
        match generator.random_range(0..21) {
            0..3 => Step::Pause,
            3..6 => Step::Resume,
            6 => Step::Start,
            7..9 => Step::Resync,
            9..11 => Step::ResyncTable(table),
            11..14 => Step::Add(other),
            14..16 => Step::Remove(other),
            16 => Step::Retry(table),
            17 => Step::Set,
            18 => Step::Connect,
            19 => Step::Stop,
            _ => Step::Kill,
        }
    }
}

/// `count` sequences from `seed` on, by turns on both sources.
///
/// # Errors
/// The first sequence that ends otherwise than equal, with its seed.
pub async fn run(program: &Path, count: u64, seed: u64) -> Result<()> {
    for seed in seed..seed + count {
        let kind = match seed % 2 {
            0 => SourceKind::MySql,
            _ => SourceKind::MariaDb,
        };
        let began = Instant::now();
        let stage = Stage::shared(kind).await?;
        round(&stage, program, seed)
            .await
            .with_context(|| format!("seed {seed} on {}", kind.label()))?;
        println!(
            "seed {seed} on {}: equal after {:.0} s",
            kind.label(),
            began.elapsed().as_secs_f64()
        );
    }
    Ok(())
}

/// One sequence.
///
/// # Errors
/// An answer that no command may have, a pipe that does not come back, or a difference between both ends.
pub async fn round(stage: &Stage, program: &Path, seed: u64) -> Result<()> {
    let mut generator = StdRng::seed_from_u64(seed);
    let workload = Workload { row_count: 600 };
    workload.create(stage).await?;
    let mut file = stage.pipe_file(&Workload::TABLES[..2]);
    file["sync"] = json!({ "interval": "100ms" });
    file["snapshot"] = json!({ "rows_per_partition": 150, "threads_per_table": 2 });
    let mut pipe = Pipe::start(Launch::new(program, &file))?;
    let log = pipe.log();
    let writers = [1, 2].map(|which| {
        workload.write(
            &stage.source,
            StdRng::seed_from_u64(seed.wrapping_mul(1000) + which),
        )
    });
    let mut steps = Vec::new();
    let done = async {
        for _ in 0..STEPS {
            let step = Step::random(&mut generator);
            steps.push(step);
            take(&mut pipe, stage, step).await?;
            tokio::time::sleep(Duration::from_millis(generator.random_range(0..900))).await;
        }
        let_go_on(&mut pipe).await
    };
    let done = done.await;
    for writer in writers {
        writer.stop().await?;
    }
    let equal = match done {
        Ok(()) => assert_equal(stage, &mut pipe).await,
        Err(error) => Err(error),
    };
    equal.with_context(|| format!("after {steps:?}; the pipe printed:\n{}", log.tail()))
}

async fn take(pipe: &mut Pipe, stage: &Stage, step: Step) -> Result<()> {
    let name = |table: &str| format!("{}.{table}", stage.database);
    let answer = match step {
        Step::Kill => {
            pipe.kill9()?;
            return pipe.restart();
        }
        Step::Stop => {
            let code = pipe.stop().await?;
            // A process that has only just begun ends by the signal itself.
            ensure!(matches!(code, 0 | 143), "a drained pipe ended with {code}");
            return pipe.restart();
        }
        Step::Pause => pipe.command("pause").await,
        Step::Resume => pipe.command("resume").await,
        Step::Start => pipe.command("start").await,
        Step::Resync => pipe.command("resync").await,
        Step::ResyncTable(table) => {
            pipe.order(json!({ "command": "resync", "table": name(table) }))
                .await
        }
        Step::Retry(table) => {
            pipe.order(json!({ "command": "retry", "table": name(table) }))
                .await
        }
        Step::Add(table) => {
            pipe.change(json!({ "tables": { "add": [{ "source": name(table) }] } }))
                .await
        }
        Step::Remove(table) => {
            pipe.change(json!({ "tables": { "remove": [name(table)] } }))
                .await
        }
        Step::Connect => {
            pipe.change(json!({ "source": { "host": "localhost" } }))
                .await
        }
        Step::Set => pipe.change(json!({ "sync": { "max_rows": 500 } })).await,
    };
    match answer {
        // Done, no place for it in this state, no sense in it, or not yet listening after a start.
        Ok((200 | 404 | 409 | 422, _)) | Err(_) => Ok(()),
        Ok((status, document)) => bail!("{step:?} is answered {status}: {document:#}"),
    }
}

/// Resumes whatever is paused, until the pipe is Running.
async fn let_go_on(pipe: &mut Pipe) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let status = pipe.status().await.unwrap_or_default();
        match status["state"].as_str() {
            Some("Running") => return Ok(()),
            Some("Failed") => bail!("the pipe has failed: {status:#}"),
            Some("Paused" | "Pausing") => drop(pipe.command("resume").await),
            _ => {}
        }
        if let Some(code) = pipe.exited()? {
            bail!("the pipe's process has ended with {code}");
        }
        if Instant::now() > until {
            bail!("the pipe does not come back: {status:#}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn assert_equal(stage: &Stage, pipe: &mut Pipe) -> Result<()> {
    stage.wait_caught_up(pipe, PATIENCE).await?;
    let status = pipe.status().await?;
    let carried = |table: &&&str| {
        let name = format!("{}.{table}", stage.database);
        let tables = status["tables"].as_array();
        let found = tables.and_then(|tables| tables.iter().find(|one| one["source"] == name));
        found.is_some_and(|one: &Value| one["state"] != "Removed")
    };
    let tables: Vec<&&str> = Workload::TABLES.iter().filter(carried).collect();
    ensure!(
        tables.contains(&&KEPT),
        "{KEPT} has left the pipe: {status:#}"
    );
    for table in tables {
        stage.assert_same(table).await?;
    }
    stage.assert_no_load_left().await
}
