//! Random sequences of commands to a pipe under write load, kills and restarts among them: whatever was asked in whatever
//! state, both ends are equal when the pipe is let go on. Half of the pipes are dropped then, and their names serve others.

mod aside;

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

/// Commands between the end of a sequence and the drop of its pipe.
const STEPS_BEFORE_DROP: usize = 2;

/// How long a pipe may take to come back to Running, and to show what was committed.
const PATIENCE: Duration = Duration::from_secs(180);

/// A table that stays in the pipe whatever is asked.
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
    Break,
    Mend,
    RetryAside,
    SkipAside,
    ResyncAside,
    Set,
    Connect,
    Stop,
    Kill,
    /// The last of a pipe; never drawn among others.
    Drop,
}

impl Step {
    fn random(generator: &mut StdRng) -> Self {
        let table = Workload::TABLES[generator.random_range(0..Workload::TABLES.len())];
        let other = Workload::TABLES[generator.random_range(1..Workload::TABLES.len())];
        match generator.random_range(0..28) {
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
            20..22 => Step::Break,
            22 => Step::Mend,
            23..25 => Step::RetryAside,
            25 => Step::SkipAside,
            26 => Step::ResyncAside,
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
    aside::create(stage).await?;
    let [first, second, ..] = Workload::TABLES;
    let mut file = stage.pipe_file(&[first, second, aside::TABLE]);
    file["sync"] = json!({ "interval": "100ms" });
    file["snapshot"] = json!({ "rows_per_partition": 150, "threads_per_table": 2 });
    let mut pipe = Pipe::start(Launch::new(program, &file))?;
    let log = pipe.log();
    let write = |which| {
        workload.write(
            &stage.source,
            StdRng::seed_from_u64(seed.wrapping_mul(1000) + which),
        )
    };
    let mut sequence = Sequence {
        stage,
        pipe: &mut pipe,
        generator: &mut generator,
        steps: Vec::new(),
    };
    let writers = [write(1), write(2)];
    let mut equal = sequence.run_and_go_on().await;
    for writer in writers {
        writer.stop().await?;
    }
    if equal.is_ok() {
        equal = assert_equal(stage, sequence.pipe).await;
    }
    if equal.is_ok() && sequence.generator.random() {
        let writer = write(3);
        equal = sequence.drop_and_begin_anew().await;
        writer.stop().await?;
        if equal.is_ok() {
            equal = assert_equal(stage, sequence.pipe).await;
        }
    }
    let steps = sequence.steps;
    equal.with_context(|| format!("after {steps:?}; the pipe printed:\n{}", log.tail()))
}

/// What is asked of one pipe.
struct Sequence<'a> {
    stage: &'a Stage,
    pipe: &'a mut Pipe,
    generator: &'a mut StdRng,
    steps: Vec<Step>,
}

impl Sequence<'_> {
    async fn run_and_go_on(&mut self) -> Result<()> {
        self.run(STEPS).await?;
        let_go_on(self.pipe, self.stage).await
    }

    async fn run(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            let step = Step::random(self.generator);
            self.steps.push(step);
            take(self.pipe, self.stage, step).await?;
            let pause = self.generator.random_range(0..900);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        Ok(())
    }

    /// Drops the pipe from whatever it is at. Its tables stay, with nothing of its loads beside them; once they have made
    /// room the same file is another pipe.
    async fn drop_and_begin_anew(&mut self) -> Result<()> {
        self.run(STEPS_BEFORE_DROP).await?;
        self.steps.push(Step::Drop);
        let (stage, until) = (self.stage, Instant::now() + PATIENCE);
        while self.pipe.status().await.is_err() {
            ensure!(
                Instant::now() < until,
                "a pipe that was started again has no document"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let (status, answer) = self.pipe.forget().await?;
        ensure!(status == 200, "Drop is answered {status}: {answer:#}");
        ensure!(
            self.pipe.status().await.is_err(),
            "a dropped pipe has a document"
        );
        stage.assert_no_load_left().await?;
        let targets = format!(
            "SELECT name FROM system.tables WHERE database = '{}' AND engine LIKE '%MergeTree' \
             AND NOT startsWith(name, '_pipewright')",
            stage.database
        );
        let targets: Vec<String> = stage
            .clickhouse
            .rows(&targets)
            .await?
            .into_iter()
            .flatten()
            .flatten()
            .collect();
        ensure!(
            targets.iter().any(|target| target == KEPT),
            "only {targets:?} are left"
        );
        for target in targets {
            let sql = format!("DROP TABLE `{}`.`{target}` SYNC", stage.database);
            stage.clickhouse.query(&sql).await?;
        }
        self.pipe.restart()?;
        let_go_on(self.pipe, stage).await
    }
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
        Step::Break => return aside::make_trouble(stage).await,
        Step::Mend => return aside::mend(stage).await,
        Step::RetryAside => aside::order(pipe, stage, "retry").await,
        Step::SkipAside => aside::order(pipe, stage, "skip").await,
        Step::ResyncAside => aside::order(pipe, stage, "resync").await,
        Step::Drop => pipe.forget().await,
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

/// Resumes whatever is paused and brings back what is out of service, until the pipe is Running.
async fn let_go_on(pipe: &mut Pipe, stage: &Stage) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let status = pipe.status().await.unwrap_or_default();
        match status["state"].as_str() {
            Some("Running") if aside::bring_back(pipe, stage, &status).await? => return Ok(()),
            Some("Failed") => bail!("the pipe has failed: {status:#}"),
            Some("Paused" | "Pausing") => drop(pipe.command("resume").await),
            Some("Degraded" | "Snapshot") => {
                aside::bring_back(pipe, stage, &status).await?;
            }
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
    // What its target has refused of `aside` shows once the stream has come by, perhaps behind a moment of Running.
    aside::mend(stage).await?;
    stage.wait_caught_up(pipe, PATIENCE).await?;
    let_go_on(pipe, stage).await?;
    stage.wait_caught_up(pipe, PATIENCE).await?;
    let status = pipe.status().await?;
    let carried = |table: &&&str| {
        let name = format!("{}.{table}", stage.database);
        let tables = status["tables"].as_array();
        let found = tables.and_then(|tables| tables.iter().find(|one| one["source"] == name));
        found.is_some_and(|one: &Value| one["state"] != "Removed")
    };
    let all = Workload::TABLES.iter().chain([&aside::TABLE]);
    let tables: Vec<&&str> = all.filter(carried).collect();
    ensure!(
        tables.contains(&&KEPT) && tables.contains(&&aside::TABLE),
        "{KEPT} or {} has left the pipe: {status:#}",
        aside::TABLE
    );
    for table in tables {
        stage.assert_same(table).await?;
    }
    stage.assert_no_load_left().await
}
