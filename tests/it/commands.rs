//! Every command in every state that a pipe reaches without a fault: what is answered, and what becomes of the pipe, as
//! the lifecycle's own function says.

mod at_rest;
mod done;
mod drops;
mod effects;
mod failures;
mod held;
mod misplaced;
mod turns;
mod unchanged;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use pipewright::batch::TableName;
use pipewright::pipe::Command;
use pipewright::pipe::lifecycle::{PipeState, Resume};
use serde_json::{Map, Value, json};
use testbed::SourceKind;
use testbed::harness::{Pipe, Stage};

use at_rest::a_pipe_at_rest_takes_the_commands_that_its_state_allows;

use crate::support::{
    CATCH_UP, START, SlowReader, assert_caught_up, double, launch, on_both_sources, start,
    wait_for_pipe,
};

on_both_sources! {
    a_pipe_that_loads_takes_the_commands_that_its_state_allows: 400,
    a_pipe_that_streams_takes_the_commands_that_its_state_allows: 600,
    a_pipe_at_rest_takes_the_commands_that_its_state_allows: 300,
}

/// What is sent: a command for the lifecycle, or a change of tables or settings.
#[derive(Clone, Debug)]
enum Asked {
    State(Value),
    Change(Value),
}

fn state(command: &str) -> Asked {
    Asked::State(json!({ "command": command }))
}

fn name_of(stage: &Stage, table: &str) -> String {
    format!("{}.{table}", stage.database)
}

fn adding(entry: Value) -> Value {
    json!({ "tables": { "add": [entry] } })
}

fn removing(stage: &Stage, table: &str) -> Value {
    json!({ "tables": { "remove": [name_of(stage, table)] } })
}

async fn give(pipe: &Pipe, asked: &Asked) -> Result<(u16, Value)> {
    match asked {
        Asked::State(body) => pipe.order(body.clone()).await,
        Asked::Change(body) => pipe.change(body.clone()).await,
    }
}

async fn give_well(pipe: &Pipe, asked: &Asked) -> Result<Value> {
    let (status, answer) = give(pipe, asked).await?;
    ensure!(status == 200, "{status}: {answer:#}");
    Ok(answer)
}

fn resync() -> Command {
    Command::Resync {
        table: None,
        snapshot: Map::new(),
    }
}

/// The commands of the lifecycle, as they are sent and as the code knows them.
fn commands(stage: &Stage) -> Vec<(Asked, Command)> {
    let entry = json!({ "source": name_of(stage, "w") });
    let table = TableName::new(stage.database.as_str(), "t");
    vec![
        (state("start"), Command::Start),
        (state("pause"), Command::Pause),
        (state("stop"), Command::Pause),
        (state("resume"), Command::Resume),
        (state("resync"), resync()),
        (
            Asked::Change(adding(entry.clone())),
            Command::AddTables {
                entries: vec![entry],
            },
        ),
        (
            Asked::Change(removing(stage, "t")),
            Command::RemoveTables {
                tables: vec![table],
            },
        ),
        (
            Asked::Change(json!({ "exclude": ["no.such*"] })),
            Command::Exclude {
                list: Some(vec![json!("no.such*")]),
            },
        ),
    ]
}

/// The one that adds a table.
fn addition(stage: &Stage) -> Result<(Asked, Command)> {
    let mut commands = commands(stage).into_iter();
    let found = commands.find(|(_, command)| matches!(command, Command::AddTables { .. }));
    found.context("an addition")
}

/// Gives every command that has no place in this state, or changes nothing there: the answer says so, and the state stays.
async fn assert_stays(stage: &Stage, pipe: &Pipe, at: &PipeState) -> Result<()> {
    for (asked, command) in commands(stage) {
        let event = command.event(at).context("a command of the lifecycle")?;
        let expected = match at.clone().apply(event) {
            // It changes no state, and loads tables all the same.
            Ok(_) if matches!(command, Command::Resync { .. }) => continue,
            Ok(after) if after == *at => 200,
            Ok(_) => continue,
            Err(_) => 409,
        };
        let (status, answer) = give(pipe, &asked).await?;
        ensure!(
            status == expected,
            "{command} at {at}: {status} in place of {expected}: {answer:#}"
        );
        if status == 409 {
            let detail = answer["detail"].as_str().unwrap_or_default();
            let hint = answer["hint"].as_str().unwrap_or_default();
            ensure!(
                answer["code"] == "illegal_command"
                    && detail.contains(at.name())
                    && hint.contains("pipewright"),
                "{command} at {at}: {answer:#}"
            );
        }
        let now = pipe.status().await?["state"].clone();
        ensure!(now == at.name(), "{command} leads from {at} to {now}");
    }
    assert_concerns_others(stage, pipe, at).await?;
    let unknown = json!({ "command": "retry", "table": "no.such" });
    for asked in [state("dance"), Asked::State(unknown)] {
        let (status, answer) = give(pipe, &asked).await?;
        ensure!(status == 422, "at {at}: {status}: {answer:#}");
    }
    Ok(())
}

/// What other connections and a table's way back find in this state: taken without a change, or refused by its name.
async fn assert_concerns_others(stage: &Stage, pipe: &Pipe, at: &PipeState) -> Result<()> {
    let at_rest = matches!(
        at,
        PipeState::Provisioning
            | PipeState::Setup
            | PipeState::Paused { .. }
            | PipeState::Completed
            | PipeState::Failed { .. }
    );
    if !at_rest {
        let way = json!({ "source": { "host": "localhost" } });
        let (status, answer) = pipe.change(way).await?;
        let detail = answer["detail"].as_str().unwrap_or_default();
        ensure!(
            status == 409
                && answer["code"] == "illegal_command"
                && detail.contains(at.name())
                && answer["hint"].to_string().contains("pause the pipe"),
            "other connections at {at}: {status}: {answer:#}"
        );
    }
    let source = name_of(stage, "t");
    let table_at = |document: &Value| {
        let mut tables = document["tables"].as_array().into_iter().flatten();
        let table = tables.find(|table| table["source"] == *source);
        table.and_then(|table| table["state"].as_str().map(str::to_owned))
    };
    let Some(before) = table_at(&pipe.status().await?) else {
        return Ok(());
    };
    for verb in ["retry", "skip"] {
        let (status, answer) = pipe
            .order(json!({ "command": verb, "table": source }))
            .await?;
        let taken = status == 200 && table_at(&answer).as_ref() == Some(&before);
        let refused = status == 409 && answer["detail"].to_string().contains(&before);
        ensure!(
            taken || refused,
            "{verb} of a table that is {before} at {at}: {status}: {answer:#}"
        );
    }
    Ok(())
}

/// Settings that are taken at once stop no work for long, so they are tried where nothing holds it up.
async fn assert_takes_settings(pipe: &Pipe, at: &PipeState) -> Result<()> {
    let (status, answer) = pipe
        .change(json!({ "sync": { "interval": "300ms" } }))
        .await?;
    ensure!(status == 200, "set at {at}: {status}: {answer:#}");
    Ok(())
}

/// Other connections are taken where nothing is connected to; those that are given lead to the same servers.
async fn assert_takes_connections(stage: &Stage, pipe: &Pipe, at: &PipeState) -> Result<()> {
    let url = format!("http://localhost:{}", stage.clickhouse_server.http_port());
    for (end, key, value) in [
        ("source", "host", "localhost"),
        ("destination", "url", url.as_str()),
    ] {
        let mut change = json!({});
        change[end][key] = json!(value);
        let (status, answer) = pipe.change(change).await?;
        let drift = answer["drift"].to_string();
        ensure!(
            status == 200 && drift.contains(&format!("{end}.{key}")),
            "set {end}.{key} at {at}: {status}: {answer:#}"
        );
        let now = pipe.status().await?["state"].clone();
        ensure!(now == at.name(), "{end}.{key} leads from {at} to {now}");
    }
    Ok(())
}

async fn newest_event(stage: &Stage, pipe: &Pipe) -> Result<u64> {
    let path = format!("/v1/pipes/{}/events?limit=1", stage.database);
    let newest = pipe.get(&path).await?["events"][0]["id"].clone();
    newest.as_u64().context("a pipe has a history")
}

/// Waits until the history tells of this transition behind an event.
async fn wait_told(stage: &Stage, pipe: &Pipe, after: u64, text: &str) -> Result<()> {
    let path = format!(
        "/v1/pipes/{}/events?after={after}&limit=1000",
        stage.database
    );
    let until = Instant::now() + CATCH_UP;
    loop {
        let told = pipe.get(&path).await?;
        let mut events = told["events"].as_array().into_iter().flatten();
        if events.any(|event| {
            event["text"]
                .as_str()
                .is_some_and(|told| told.starts_with(text))
        }) {
            return Ok(());
        }
        ensure!(Instant::now() < until, "no `{text}` in {told:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Gives a command that has a place in this state, and waits for the transition that the lifecycle makes of it.
async fn assert_moves(
    stage: &Stage,
    pipe: &Pipe,
    at: &PipeState,
    (asked, command): (Asked, Command),
) -> Result<()> {
    let event = command.event(at).context("a command of the lifecycle")?;
    let after = at.clone().apply(event)?;
    ensure!(after.name() != at.name(), "{command} has no effect at {at}");
    let newest = newest_event(stage, pipe).await?;
    give_well(pipe, &asked)
        .await
        .with_context(|| format!("{command} at {at}"))?;
    let told = format!("{} to {}", at.name(), after.name());
    wait_told(stage, pipe, newest, &told)
        .await
        .with_context(|| format!("{command} at {at}"))
}

/// Whoever reads the table waits until it is unlocked.
async fn lock(stage: &Stage, table: &str) -> Result<Conn> {
    let mut conn = stage.source.connect().await?;
    conn.query_drop(format!("LOCK TABLES {table} WRITE"))
        .await?;
    Ok(conn)
}

async fn unlock(mut conn: Conn) -> Result<()> {
    Ok(conn.query_drop("UNLOCK TABLES").await?)
}

/// The same once what is asked for meanwhile must be on its way.
async fn unlock_later(conn: Conn) -> Result<()> {
    tokio::time::sleep(Duration::from_secs(1)).await;
    unlock(conn).await
}

async fn wait_state(stage: &Stage, pipe: &Pipe, name: &str) -> Result<()> {
    let at = |document: &Value| document["state"] == name;
    wait_for_pipe(pipe, &stage.database, name, at)
        .await
        .map(drop)
}

fn table_state(document: &Value, source: &str) -> Value {
    let mut tables = document["tables"].as_array().into_iter().flatten();
    let found = tables.find(|table| table["source"] == source);
    found.map_or(Value::Null, |table| table["state"].clone())
}

/// What `run --once` ends with behind the pipe's state folder.
async fn run_once(pipe: &Pipe) -> Result<(i32, String)> {
    let (path, folder) = (pipe.path(), pipe.state_dir());
    let line = [
        "run",
        &path.display().to_string(),
        "--state",
        &folder.display().to_string(),
        "--listen",
        "127.0.0.1:0",
        "--once",
    ];
    let ended = pipe.cli(&line).await?;
    Ok((ended.code, ended.stderr))
}

async fn with_tables(kind: SourceKind, doublings: u32) -> Result<Stage> {
    let stage = Stage::shared(kind).await?;
    for table in ["t", "u", "w"] {
        stage
            .source
            .execute_all([
                &format!(
                    "CREATE TABLE {table} (id INT AUTO_INCREMENT PRIMARY KEY, tenant INT NOT NULL DEFAULT 1, a VARCHAR(40))"
                )[..],
                &format!("INSERT INTO {table} (a) VALUES ('one'), ('two')"),
            ])
            .await?;
    }
    double(&stage, "t", "a", doublings).await?;
    Ok(stage)
}

/// A load in many parts, one after the other.
fn small_partitions() -> Value {
    json!({ "rows_per_partition": 50, "threads_per_table": 1, "tables_in_parallel": 1 })
}

/// Waits until a load is under way.
async fn wait_partitions(pipe: &mut Pipe) -> Result<Value> {
    pipe.wait_for("finished partitions", START, |status| {
        let mut tables = status["tables"].as_array().into_iter().flatten();
        tables.any(|table| table["snapshot"]["partitions_done"].as_u64() > Some(1))
    })
    .await
}

/// Setup, Snapshot and Paused, held by a lock on a table that the pipe has to read.
async fn a_pipe_that_loads_takes_the_commands_that_its_state_allows(
    kind: SourceKind,
) -> Result<()> {
    // More partitions than are loaded before the table is locked again.
    let stage = with_tables(kind, 17).await?;
    let mut file = stage.pipe_file(&["t", "u"]);
    file["snapshot"] = small_partitions();
    let held = lock(&stage, "t").await?;
    let mut pipe = start(launch(&file))?;
    pipe.wait_state("Setup", START).await?;
    assert_stays(&stage, &pipe, &PipeState::Setup).await?;
    assert_takes_settings(&pipe, &PipeState::Setup).await?;
    assert_takes_connections(&stage, &pipe, &PipeState::Setup).await?;
    unlock(held).await?;
    wait_partitions(&mut pipe).await?;
    let held = lock(&stage, "t").await?;

    assert_stays(&stage, &pipe, &PipeState::Snapshot).await?;
    another_table_comes_and_goes(&stage, &pipe, &PipeState::Snapshot).await?;
    let pause = || (state("pause"), Command::Pause);
    assert_moves(&stage, &pipe, &PipeState::Snapshot, pause()).await?;
    pipe.wait_state("Paused", CATCH_UP).await?;
    let paused = PipeState::Paused {
        resume: Resume::Snapshot,
    };
    let resume = (state("resume"), Command::Resume);
    assert_moves(&stage, &pipe, &paused, resume).await?;
    assert_moves(&stage, &pipe, &PipeState::Snapshot, pause()).await?;
    pipe.wait_state("Paused", CATCH_UP).await?;
    assert_stays(&stage, &pipe, &paused).await?;
    assert_takes_settings(&pipe, &paused).await?;
    // What is so already is changed by nothing.
    let entry = json!({ "source": name_of(&stage, "t") });
    give_well(&pipe, &Asked::Change(adding(entry))).await?;
    assert_moves(&stage, &pipe, &paused, addition(&stage)?).await?;
    pipe.wait_state("Paused", CATCH_UP).await?;
    give_well(&pipe, &Asked::Change(removing(&stage, "w"))).await?;
    pipe.wait_state("Paused", CATCH_UP).await?;

    // A load that is under way gives way to another, with other settings, and to one of a single table.
    let at_once = json!({ "command": "resync", "snapshot": { "rows_per_partition": 1_000_000 } });
    let again = (Asked::State(at_once), resync());
    assert_moves(&stage, &pipe, &paused, again).await?;
    let one = Asked::State(json!({ "command": "resync", "table": name_of(&stage, "t") }));
    let (resynced, unlocked) = tokio::join!(give_well(&pipe, &one), unlock_later(held));
    unlocked?;
    resynced.context("resync of one table at Snapshot")?;
    pipe.wait_state("Running", CATCH_UP).await?;
    let held = lock(&stage, "t").await?;
    let loading = state("resync");
    give_well(&pipe, &loading).await?;
    pipe.wait_state("Snapshot", CATCH_UP).await?;
    let (resynced, unlocked) = tokio::join!(give_well(&pipe, &loading), unlock_later(held));
    unlocked?;
    resynced.context("resync at Snapshot")?;
    pipe.wait_state("Running", CATCH_UP).await?;
    stage.source.execute("DELETE FROM t WHERE id < 100").await?;
    assert_caught_up(&stage, &mut pipe, &["t", "u"]).await?;
    stage.assert_no_load_left().await
}

/// Running, Modifying, Degraded and Resync.
async fn a_pipe_that_streams_takes_the_commands_that_its_state_allows(
    kind: SourceKind,
) -> Result<()> {
    let stage = with_tables(kind, 8).await?;
    let mut pipe = start(launch(&stage.pipe_file(&["t", "u"])))?;
    pipe.wait_state("Running", START).await?;
    assert_stays(&stage, &pipe, &PipeState::Running).await?;
    assert_takes_settings(&pipe, &PipeState::Running).await?;
    held::commands_while_pausing(&stage, &mut pipe).await?;
    membership_while_running(&stage, &mut pipe).await?;
    pause_while_modifying(&stage, &mut pipe).await?;
    // The added table is yet to be loaded.
    let paused = PipeState::Paused {
        resume: Resume::Snapshot,
    };
    assert_stays(&stage, &pipe, &paused).await?;
    let start_again = (state("start"), Command::Start);
    assert_moves(&stage, &pipe, &paused, start_again).await?;
    pipe.wait_state("Running", CATCH_UP).await?;

    break_u(&stage, &mut pipe).await?;
    assert_stays(&stage, &pipe, &PipeState::Degraded).await?;
    assert_takes_settings(&pipe, &PipeState::Degraded).await?;
    another_table_comes_and_goes(&stage, &pipe, &PipeState::Degraded).await?;
    held::ways_back_while_paused(&stage, &mut pipe, "u").await?;
    let one = json!({ "command": "resync", "table": name_of(&stage, "u") });
    let one = (Asked::State(one), resync());
    assert_moves(&stage, &pipe, &PipeState::Degraded, one).await?;
    pipe.wait_state("Running", CATCH_UP).await?;
    break_u(&stage, &mut pipe).await?;
    let all = (state("resync"), resync());
    assert_moves(&stage, &pipe, &PipeState::Degraded, all).await?;
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(&stage, &mut pipe, &["t", "u"]).await?;

    resync_during_the_exchange(&stage, &mut pipe).await?;
    let (status, answer) = pipe.forget().await?;
    ensure!(
        status == 200 && answer["reasons"] == json!([]),
        "{answer:#}"
    );
    ensure!(
        pipe.status().await.is_err(),
        "a dropped pipe has a document"
    );
    let rows = format!("SELECT count() FROM `{}`.t_current", stage.database);
    ensure!(
        stage.clickhouse.number(&rows).await? > 0,
        "a target has gone"
    );
    Ok(())
}

/// A column that somebody has renamed at the destination takes its table out of service.
async fn break_u(stage: &Stage, pipe: &mut Pipe) -> Result<()> {
    let sql = format!("ALTER TABLE `{}`.u RENAME COLUMN a TO b", stage.database);
    stage.clickhouse.query(&sql).await?;
    stage
        .source
        .execute("INSERT INTO u (a) VALUES ('x')")
        .await?;
    pipe.wait_state("Degraded", CATCH_UP).await.map(drop)
}

/// Tables that are there as asked for are no change, others are refused by their keys, and so are those that are not there.
async fn membership_while_running(stage: &Stage, pipe: &mut Pipe) -> Result<()> {
    let entry = |more: Value| {
        let mut entry = json!({ "source": name_of(stage, "t") });
        entry["target"] = more["target"].clone();
        entry["exclude_columns"] = more["exclude_columns"].clone();
        Asked::Change(adding(entry))
    };
    give_well(pipe, &entry(json!({}))).await?;
    give_well(pipe, &entry(json!({ "target": "t" }))).await?;
    let drift = pipe.status().await?["drift"].to_string();
    ensure!(!drift.contains("tables["), "{drift}");
    for (more, keys) in [
        (json!({ "target": "elsewhere" }), vec!["`target`"]),
        (
            json!({ "target": "elsewhere", "exclude_columns": ["a"] }),
            vec!["`target`", "`exclude_columns`"],
        ),
    ] {
        let (status, answer) = give(pipe, &entry(more)).await?;
        let (detail, hint) = (answer["detail"].to_string(), answer["hint"].to_string());
        ensure!(
            status == 422
                && keys.iter().all(|key| detail.contains(key))
                && hint.contains("tables remove"),
            "{status}: {answer:#}"
        );
    }
    let (status, answer) = pipe.change(removing(stage, "tt")).await?;
    ensure!(
        status == 422 && answer["hint"].to_string().contains(&name_of(stage, "t")),
        "no table that may be meant: {status}: {answer:#}"
    );
    assert_moves(stage, pipe, &PipeState::Running, addition(stage)?).await?;
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(stage, pipe, &["w"]).await?;
    for _ in 0..2 {
        let document = give_well(pipe, &Asked::Change(removing(stage, "w"))).await?;
        ensure!(document.to_string().contains("Removed"), "{document:#}");
    }
    pipe.wait_state("Running", CATCH_UP).await.map(drop)
}

/// The pipe comes back to what it was at.
async fn another_table_comes_and_goes(stage: &Stage, pipe: &Pipe, at: &PipeState) -> Result<()> {
    let name = name_of(stage, "w");
    let added = addition(stage)?;
    let table = TableName::new(stage.database.as_str(), "w");
    let removed = (
        Asked::Change(removing(stage, "w")),
        Command::RemoveTables {
            tables: vec![table],
        },
    );
    for (change, there) in [(added, true), (removed, false)] {
        assert_moves(stage, pipe, at, change).await?;
        let what = format!("{name} at {at}");
        wait_for_pipe(pipe, &stage.database, &what, |document| {
            let mut tables = document["tables"].as_array().into_iter().flatten();
            let table = tables.find(|table| table["source"] == *name);
            document["state"] == at.name()
                && table.is_some_and(|table| (table["state"] != "Removed") == there)
        })
        .await?;
    }
    Ok(())
}

/// A command that comes while tables are being added waits for its turn.
async fn pause_while_modifying(stage: &Stage, pipe: &mut Pipe) -> Result<()> {
    let held = lock(stage, "w").await?;
    let add = Asked::Change(adding(json!({ "source": name_of(stage, "w") })));
    let pause = async {
        wait_state(stage, pipe, "Modifying").await?;
        give_well(pipe, &state("pause")).await
    };
    let unlock = async {
        wait_state(stage, pipe, "Modifying").await?;
        unlock_later(held).await
    };
    let (added, paused, unlocked) = tokio::join!(give_well(pipe, &add), pause, unlock);
    unlocked?;
    added.context("tables add")?;
    paused.context("pause at Modifying")?;
    pipe.wait_state("Paused", CATCH_UP).await.map(drop)
}

/// A reader keeps the old table from being dropped, and so the exchange from being over. What is loaded by then is given up
/// for the next load, and readers go on to see full tables.
async fn resync_during_the_exchange(stage: &Stage, pipe: &mut Pipe) -> Result<()> {
    let reader = SlowReader::begin(stage, "t").await?;
    give_well(pipe, &state("resync")).await?;
    pipe.wait_state("Resync", CATCH_UP).await?;
    assert_stays(stage, pipe, &PipeState::Resync).await?;
    stage.source.execute("DELETE FROM t WHERE id < 10").await?;
    let again = (state("resync"), resync());
    let (moved, ended) = tokio::join!(
        assert_moves(stage, pipe, &PipeState::Resync, again),
        reader.end_later()
    );
    ended?;
    moved?;
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(stage, pipe, &["t", "u"]).await?;
    stage.assert_no_load_left().await
}
