//! The process ends at every numbered step of adding, removing, loading again and exchanging tables, under write load and
//! with a reader that looks all the time. The points are those of `pipewright::fault`.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pipewright::fault::{POINTS, VARIABLE};
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{Pipe, Stage, Writer};
use tokio::task::JoinHandle;

use crate::support::{
    START, Seed, SlowReader, Workload, assert_caught_up, fixed_rows, killed_at, launch,
    on_both_sources, running_with, start, wait_aborted,
};

on_both_sources! {
    additions_and_removals_go_on_from_every_step: 1200,
    loads_and_exchanges_go_on_from_every_step: 1500,
    a_resync_given_during_an_exchange_goes_on_from_its_steps: 900,
    a_failed_pipe_that_is_loaded_anew_goes_on_from_every_step: 900,
    a_pipe_that_copies_once_and_again_goes_on_from_every_step: 900,
    a_column_that_gets_another_name_keeps_its_values_from_every_step: 300,
    a_table_that_is_emptied_stays_so_and_keeps_what_comes_after: 300,
}

/// Rows of the table that nobody changes.
const FIXED_ROWS: u64 = 600;

const CHANGE: [&str; 4] = ["modify:1", "modify:2", "change:1", "change:2"];
const LOAD: [&str; 6] = ["load:1", "load:2", "load:3", "load:4", "load:5", "load:6"];
const SWAP: [&str; 8] = [
    "swap:1", "swap:2", "swap:3", "swap:4", "swap:5", "swap:6", "swap:7", "swap:8",
];

const ALTER: [&str; 3] = ["alter:1", "alter:2", "alter:3"];

const TRUNCATE: &str = "truncate:1";

/// Steps of a load and an exchange that are come to for the second time.
const SECOND: [&str; 6] = [
    "resync:1#2",
    "change:2#2",
    "load:1#2",
    "load:5#2",
    "swap:3#2",
    "swap:5#2",
];

/// Steps of a resync that begins the whole pipe anew.
const ANEW: [&str; 8] = [
    "resync:1", "change:1", "change:2", "term:1", "load:1", "load:5", "swap:3", "swap:4",
];

async fn two_tables(stage: &Stage) -> Result<Value> {
    let workload = Workload { row_count: 600 };
    workload.create(stage).await?;
    fixed_rows(stage, FIXED_ROWS).await?;
    let mut file = stage.pipe_file(&["people", "fixed"]);
    file["snapshot"] = json!({ "rows_per_partition": 200, "threads_per_table": 2 });
    Ok(file)
}

/// Looks at the table until it is not whole.
fn reader(stage: &Stage) -> JoinHandle<String> {
    let sql = format!("SELECT count() FROM `{}`.fixed_current", stage.database);
    let clickhouse = stage.clickhouse.clone();
    tokio::spawn(async move {
        loop {
            match clickhouse.number(&sql).await {
                Ok(FIXED_ROWS) => tokio::time::sleep(Duration::from_millis(5)).await,
                other => return format!("{other:?}"),
            }
        }
    })
}

/// The workload, which rests while both ends are compared.
struct Load<'a> {
    stage: &'a Stage,
    seed: Seed,
    rounds: u64,
    writer: Writer,
}

impl<'a> Load<'a> {
    fn begin(stage: &'a Stage, seed: Seed) -> Self {
        let writer = Workload { row_count: 600 }.write(&stage.source, seed.generator(0));
        Self {
            stage,
            seed,
            rounds: 0,
            writer,
        }
    }

    /// Whatever `point` left behind, both ends are equal.
    async fn assert_equal(self, pipe: &mut Pipe, tables: &[&str], point: &str) -> Result<Self> {
        let Self {
            stage,
            seed,
            rounds,
            writer,
        } = self;
        writer.stop().await?;
        assert_caught_up(stage, pipe, tables)
            .await
            .with_context(|| format!("after {point}"))?;
        let rounds = rounds + 1;
        let writer = Workload { row_count: 600 }.write(&stage.source, seed.generator(rounds));
        Ok(Self {
            stage,
            seed,
            rounds,
            writer,
        })
    }
}

async fn has(pipe: &Pipe, table: &str) -> Result<bool> {
    let status = pipe.status().await?;
    let tables = status["tables"].as_array().cloned().unwrap_or_default();
    Ok(tables.iter().any(|one| {
        one["source"]
            .as_str()
            .is_some_and(|name| name.ends_with(table))
            && one["state"] != "Removed"
    }))
}

async fn done(pipe: &mut Pipe, (status, document): (u16, Value)) -> Result<()> {
    ensure!(status == 200, "{status}: {document:#}");
    pipe.wait_state("Running", START).await.map(drop)
}

async fn additions_and_removals_go_on_from_every_step(kind: SourceKind) -> Result<()> {
    let seed = Seed::new("additions_and_removals_go_on_from_every_step");
    let stage = Stage::shared(kind).await?;
    let file = two_tables(&stage).await?;
    let mut pipe = running_with(&file).await?;
    let mut load = Load::begin(&stage, seed);
    let name = format!("{}.words", stage.database);
    let add = json!({ "tables": { "add": [{ "source": name }] } });
    let remove = json!({ "tables": { "remove": [name] } });
    for point in CHANGE.iter().chain(&LOAD) {
        killed_at(&mut pipe, point, async |pipe| {
            pipe.change(add.clone()).await
        })
        .await?;
        if !has(&pipe, ".words").await? {
            let again = pipe.change(add.clone()).await?;
            done(&mut pipe, again).await?;
        }
        let tables = ["people", "fixed", "words"];
        load = load.assert_equal(&mut pipe, &tables, point).await?;
        let removed = pipe.change(remove.clone()).await?;
        done(&mut pipe, removed).await?;
    }
    for point in CHANGE {
        let again = pipe.change(add.clone()).await?;
        done(&mut pipe, again).await?;
        killed_at(&mut pipe, point, async |pipe| {
            pipe.change(remove.clone()).await
        })
        .await?;
        if has(&pipe, ".words").await? {
            load = load.assert_equal(&mut pipe, &["words"], point).await?;
            let removed = pipe.change(remove.clone()).await?;
            done(&mut pipe, removed).await?;
        }
        let tables = ["people", "fixed"];
        load = load.assert_equal(&mut pipe, &tables, point).await?;
    }
    let again = pipe.change(add.clone()).await?;
    done(&mut pipe, again).await?;
    load.writer.stop().await?;
    assert_caught_up(&stage, &mut pipe, &["people", "fixed", "words"]).await?;
    stage.assert_no_load_left().await
}

async fn loads_and_exchanges_go_on_from_every_step(kind: SourceKind) -> Result<()> {
    let seed = Seed::new("loads_and_exchanges_go_on_from_every_step");
    let stage = Stage::shared(kind).await?;
    let file = two_tables(&stage).await?;
    let mut load = Load::begin(&stage, seed);
    // The first load; there a table is made by Setup, so its first step is not come to.
    let mut pipe = start(launch(&file).env(VARIABLE, "term:1"))?;
    for next in LOAD[1..].iter().map(|point| Some(*point)).chain([None]) {
        wait_aborted(&mut pipe)
            .await
            .with_context(|| format!("before {next:?}"))?;
        pipe.change_env(VARIABLE, next);
        pipe.restart()?;
    }
    pipe.wait_state("Running", START).await?;
    let tables = ["people", "fixed"];
    load = load
        .assert_equal(&mut pipe, &tables, "the first load")
        .await?;
    let reader = reader(&stage);
    let fixed = json!({ "command": "resync", "table": format!("{}.fixed", stage.database) });
    let all = json!({ "command": "resync" });
    let one = ["resync:1", "change:1", "change:2"];
    let one = one
        .iter()
        .chain(&LOAD)
        .chain(&SWAP)
        .map(|point| (*point, &fixed));
    // With two tables an exchange may have been done for one of them alone.
    let both = ["load:5", "swap:3", "swap:4", "swap:6", "swap:7"];
    for (point, order) in one.chain(both.map(|point| (point, &all))) {
        killed_at(&mut pipe, point, async |pipe| {
            pipe.order(order.clone()).await
        })
        .await?;
        ensure!(
            !reader.is_finished(),
            "{point}: a reader saw {}",
            reader.await?
        );
        load = load.assert_equal(&mut pipe, &tables, point).await?;
    }
    reader.abort();
    load.writer.stop().await?;
    assert_caught_up(&stage, &mut pipe, &tables).await?;
    stage.assert_no_load_left().await
}

/// A reader keeps the first exchange from being over; what is killed is on its way to the second.
async fn a_resync_given_during_an_exchange_goes_on_from_its_steps(kind: SourceKind) -> Result<()> {
    let seed = Seed::new("a_resync_given_during_an_exchange_goes_on_from_its_steps");
    let stage = Stage::shared(kind).await?;
    let file = two_tables(&stage).await?;
    let mut pipe = running_with(&file).await?;
    let mut load = Load::begin(&stage, seed);
    let reader = reader(&stage);
    let order = json!({ "command": "resync", "table": format!("{}.fixed", stage.database) });
    for point in SECOND {
        killed_at(&mut pipe, point, async |pipe| {
            let slow = SlowReader::begin(&stage, "fixed").await?;
            let (status, document) = pipe.order(order.clone()).await?;
            ensure!(status == 200, "the first: {status} {document:#}");
            slow.wait_in_the_way().await?;
            let (answer, ended) = tokio::join!(pipe.order(order.clone()), slow.end_later());
            ended?;
            answer
        })
        .await?;
        ensure!(
            !reader.is_finished(),
            "{point}: a reader saw {}",
            reader.await?
        );
        load = load
            .assert_equal(&mut pipe, &["people", "fixed"], point)
            .await?;
    }
    reader.abort();
    load.writer.stop().await?;
    assert_caught_up(&stage, &mut pipe, &["people", "fixed"]).await?;
    stage.assert_no_load_left().await
}

/// Each round the pipe file asks for another key than the targets were made with, which only a new load brings.
async fn a_failed_pipe_that_is_loaded_anew_goes_on_from_every_step(kind: SourceKind) -> Result<()> {
    let seed = Seed::new("a_failed_pipe_that_is_loaded_anew_goes_on_from_every_step");
    let stage = Stage::shared(kind).await?;
    let mut file = two_tables(&stage).await?;
    let alter = "ALTER TABLE fixed MODIFY a INT NOT NULL";
    stage.source.execute(alter).await?;
    let mut pipe = running_with(&file).await?;
    let mut load = Load::begin(&stage, seed);
    let reader = reader(&stage);
    for (round, point) in ANEW.into_iter().enumerate() {
        pipe.stop().await?;
        file["tables"][1]["order_by"] = match round % 2 {
            0 => json!(["a", "id"]),
            _ => json!(["id"]),
        };
        pipe.change_file(&file);
        loaded_anew_over(&mut pipe, point, ("Failed", "Running")).await?;
        ensure!(
            !reader.is_finished(),
            "{point}: a reader saw {}",
            reader.await?
        );
        load = load
            .assert_equal(&mut pipe, &["people", "fixed"], point)
            .await?;
    }
    reader.abort();
    load.writer.stop().await?;
    assert_caught_up(&stage, &mut pipe, &["people", "fixed"]).await?;
    stage.assert_no_load_left().await
}

/// Nothing streams, so that the load alone brings what was written since the last one.
async fn a_pipe_that_copies_once_and_again_goes_on_from_every_step(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    let mut file = two_tables(&stage).await?;
    file["mode"] = json!("snapshot");
    let mut pipe = start(launch(&file))?;
    pipe.wait_state("Completed", START).await?;
    let reader = reader(&stage);
    for point in ANEW {
        stage
            .source
            .execute_all([
                "UPDATE fixed SET a = a + 1",
                "DELETE FROM people ORDER BY id LIMIT 1",
            ])
            .await?;
        pipe.stop().await?;
        loaded_anew_over(&mut pipe, point, ("Completed", "Completed")).await?;
        ensure!(
            !reader.is_finished(),
            "{point}: a reader saw {}",
            reader.await?
        );
        for table in ["people", "fixed"] {
            stage.assert_same(table).await?;
        }
    }
    reader.abort();
    stage.assert_no_load_left().await
}

/// Starts a pipe that rests at a state and has it loaded anew; the process ends at `point`, and the next goes on until it is
/// as wanted.
async fn loaded_anew_over(
    pipe: &mut Pipe,
    point: &str,
    (rest, wanted): (&str, &str),
) -> Result<()> {
    pipe.change_env(VARIABLE, Some(point));
    pipe.restart()?;
    wait_rest(pipe, rest).await?;
    // The answer is lost with the process, or had come before.
    if let Ok((status, document)) = pipe.command("resync").await {
        ensure!(status == 200, "{point}: {status} {document:#}");
    }
    wait_aborted(pipe).await.with_context(|| point.to_owned())?;
    pipe.change_env(VARIABLE, None);
    pipe.restart()?;
    // Before the change is recorded there was none.
    if matches!(point, "resync:1" | "change:1") {
        wait_rest(pipe, rest).await?;
        let (status, document) = pipe.command("resync").await?;
        ensure!(status == 200, "after {point}: {status} {document:#}");
    }
    pipe.wait_state(wanted, START)
        .await
        .with_context(|| format!("after {point}"))
        .map(drop)
}

async fn wait_rest(pipe: &mut Pipe, rest: &str) -> Result<()> {
    let at = |document: &Value| document["state"] == rest;
    pipe.wait_for(rest, START, at).await.map(drop)
}

/// pitfall 113: a target between two definitions is followed to the later one. What ClickHouse loses when it renames a column
/// beside a merge is made good by a load.
async fn a_column_that_gets_another_name_keeps_its_values_from_every_step(
    kind: SourceKind,
) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a0 INT, b VARCHAR(10), n0 INT)",
            "INSERT INTO t VALUES (1, 1, 'b', NULL), (2, NULL, NULL, NULL)",
        ])
        .await?;
    let mut pipe = running_with(&stage.pipe_file(&["t"])).await?;
    // All of one column is NULL.
    let renamed = |round: usize| {
        [
            format!(
                "INSERT INTO t VALUES ({}, 7, 'of {round}', NULL)",
                round + 3
            ),
            format!(
                "ALTER TABLE t RENAME COLUMN a{round} TO a{0}, RENAME COLUMN n{round} TO n{0}",
                round + 1
            ),
            format!(
                "INSERT INTO t VALUES ({}, 8, 'of {round}', NULL)",
                round + 13
            ),
        ]
    };
    for (round, point) in ALTER.into_iter().enumerate() {
        killed_at(&mut pipe, point, async |_| {
            stage.source.execute_all(renamed(round)).await?;
            Ok((200, Value::Null))
        })
        .await?;
        assert_caught_up(&stage, &mut pipe, &["t"])
            .await
            .with_context(|| format!("after {point}"))?;
    }
    let loaded_anew = |pipe: &Pipe| pipe.log().tail().contains("lost values of a column");
    ensure!(!loaded_anew(&pipe), "a load was not needed");

    pipe.change_env(VARIABLE, Some(ALTER[1]));
    pipe.restart()?;
    pipe.wait_state("Running", START).await?;
    stage.source.execute_all(renamed(ALTER.len())).await?;
    wait_aborted(&mut pipe).await?;
    pipe.change_env(VARIABLE, None);
    let lost = format!(
        "ALTER TABLE `{}`.t UPDATE a{} = 0 WHERE id = 1 SETTINGS mutations_sync = 1",
        stage.database,
        ALTER.len() + 1
    );
    stage.clickhouse.query(&lost).await?;
    pipe.restart()?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    pipe.wait_state("Running", START).await?;
    ensure!(loaded_anew(&pipe), "nobody saw what was lost");
    assert_caught_up(&stage, &mut pipe, &["t"]).await
}

async fn a_table_that_is_emptied_stays_so_and_keeps_what_comes_after(
    kind: SourceKind,
) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a INT)",
            "INSERT INTO t VALUES (1, 1), (2, 1)",
        ])
        .await?;
    let mut pipe = running_with(&stage.pipe_file(&["t"])).await?;
    killed_at(&mut pipe, TRUNCATE, async |_| {
        let emptied = [
            "INSERT INTO t VALUES (3, 2)",
            "TRUNCATE TABLE t",
            "INSERT INTO t VALUES (1, 3)",
        ];
        stage.source.execute_all(emptied).await?;
        Ok((200, Value::Null))
    })
    .await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await
}

#[test]
fn every_point_is_killed_at() {
    let killed: BTreeSet<&str> = CHANGE
        .iter()
        .chain(&LOAD)
        .chain(&SWAP)
        .chain(&ALTER)
        .chain([&TRUNCATE])
        // The last one where plugins change: `plugins`.
        .chain(&["resync:1", "term:1", "flush:1"])
        // Where a pipe file changes: `files`.
        .chain(&["file:1", "file:2"])
        .copied()
        .collect();
    assert_eq!(killed, BTreeSet::from(POINTS));
}
