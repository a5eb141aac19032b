//! The state folder as a thing of its own: copied, put back from a backup, damaged.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{Comparison, Pipe, Stage};

use crate::support::{
    CATCH_UP, START, Seed, Workload, allow_locks, append, assert_caught_up,
    assert_each_change_once, on_both_sources, once, running, running_with,
};

on_both_sources! {
    a_copy_of_the_state_goes_on_and_so_does_one_that_was_left_behind: 500,
    a_copy_that_was_left_behind_tells_nothing_of_tables_that_it_does_not_know: 300,
}

once! {
    a_damaged_state_is_refused_and_nothing_is_touched: 400,
}

fn term(status: &Value) -> Result<u64> {
    status["checkpoint"]["term"]
        .as_u64()
        .with_context(|| format!("no term in {status:#}"))
}

/// Goes on from the state folder of that name, which nothing has overtaken; the term that the pipe then writes in.
async fn goes_on(pipe: &mut Pipe, state: &str, former: u64) -> Result<u64> {
    pipe.use_state(state);
    pipe.restart()?;
    // The state says Running before the pipe has attached.
    let status = pipe
        .wait_for("a term of its own", START, |status| {
            status["state"] == "Running" && term(status).is_ok_and(|present| present > former)
        })
        .await?;
    term(&status)
}

/// Each change of `log` is there once, and the tables are equal.
async fn assert_exact(stage: &Stage, pipe: &mut Pipe, changes: u64) -> Result<()> {
    assert_caught_up(stage, pipe, &["people", "words"]).await?;
    assert_each_change_once(stage, "log", changes).await
}

async fn a_copy_of_the_state_goes_on_and_so_does_one_that_was_left_behind(
    kind: SourceKind,
) -> Result<()> {
    let seed = Seed::new("a_copy_of_the_state_goes_on_and_so_does_one_that_was_left_behind");
    let stage = Stage::shared(kind).await?;
    let workload = Workload { row_count: 500 };
    workload.create(&stage).await?;
    allow_locks(&stage).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE log (id INT PRIMARY KEY, a INT)",
            "INSERT INTO log VALUES (1, 1)",
        ])
        .await?;
    let entry = |table: &str| format!("{}.{table}", stage.database);
    let file = stage.pipe_file_of(vec![
        json!({ "source": entry("people") }),
        json!({ "source": entry("words") }),
        append(&stage, "log"),
    ]);
    let mut pipe = running_with(&file).await?;
    stage.source.execute("UPDATE log SET a = 2").await?;
    assert_exact(&stage, &mut pipe, 1).await?;
    let former = term(&pipe.status().await?)?;
    ensure!(pipe.stop().await? == 0);
    pipe.copy_state("copy")?;
    let writer = workload.write(&stage.source, seed.generator(1));
    stage.source.execute("UPDATE log SET a = 3").await?;
    let first = goes_on(&mut pipe, "copy", former).await?;
    stage
        .source
        .execute_all([
            "UPDATE log SET a = 4",
            "INSERT INTO log VALUES (2, 2)",
            "DELETE FROM people WHERE id BETWEEN 100 AND 200",
        ])
        .await?;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    // The one left behind knows nothing of this exchange.
    let order = json!({ "command": "resync", "table": entry("words") });
    let (status, document) = pipe.order(order).await?;
    ensure!(status == 200, "{status} {document:#}");
    pipe.wait_for("the exchange", CATCH_UP, |status| {
        let words = status["tables"][1].clone();
        status["state"] == "Running" && words["state"] == "Streaming"
    })
    .await?;
    writer.stop().await?;
    assert_exact(&stage, &mut pipe, 4).await?;
    ensure!(pipe.stop().await? == 0);

    // Each that was left behind writes above what the other has written, and comes to the same.
    let statements = [
        "REPLACE INTO people (id, email, amount, kind) VALUES (150, 'again', 1, 1)",
        "DELETE FROM log WHERE id = 1",
        "DELETE FROM words WHERE seen < 40",
    ];
    stage.source.execute_all(statements).await?;
    let second = overtaken(&stage, &mut pipe, "state", first).await?;
    // In mid-flight, too.
    let writer = workload.write(&stage.source, seed.generator(2));
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    pipe.kill9()?;
    stage.source.execute("UPDATE log SET a = 5").await?;
    writer.stop().await?;
    overtaken(&stage, &mut pipe, "copy", second).await.map(drop)
}

/// Goes on from a state of which another has begun the term `former` since: replaced tables come to the same, and which
/// changes of an append table are there it cannot tell, and does not guess. The term that the pipe then writes in.
async fn overtaken(stage: &Stage, pipe: &mut Pipe, state: &str, former: u64) -> Result<u64> {
    let name = format!("{}.log", stage.database);
    pipe.use_state(state);
    pipe.restart()?;
    let status = pipe
        .wait_for("a term of its own", START, |status| {
            status["state"] == "Degraded" && term(status).is_ok_and(|present| present > former)
        })
        .await?;
    ensure!(
        status["tables"][2]["state"] == "Quarantined"
            && status["reasons"][0]["table"] == name
            && status["reasons"][0]["remedy"]
                .to_string()
                .contains("resync"),
        "{status:#}"
    );
    assert_caught_up(stage, pipe, &["people", "words"]).await?;
    let order = json!({ "command": "resync", "table": name });
    let (status, document) = pipe.order(order).await?;
    ensure!(status == 200, "{status} {document:#}");
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(stage, pipe, &["people", "words"]).await?;
    stage.assert(Comparison::of("log").view_alone()).await?;
    term(&pipe.status().await?)
}

/// Up to where the checkpoints of a term tell that the table is complete.
async fn told(stage: &Stage, term: u64, table: &str) -> Result<String> {
    let sql = format!(
        "SELECT complete[if(mapContains(complete, '{table}'), '{table}', '')] FROM `{database}`._pipewright_checkpoints \
         FINAL WHERE pipe = '{database}' AND term = {term} ORDER BY stream_offset DESC LIMIT 1",
        database = stage.database
    );
    stage.clickhouse.query(&sql).await
}

async fn a_copy_that_was_left_behind_tells_nothing_of_tables_that_it_does_not_know(
    kind: SourceKind,
) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    allow_locks(&stage).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE log (id INT PRIMARY KEY, a INT)",
            "CREATE TABLE late (id INT PRIMARY KEY, a INT)",
            "INSERT INTO log VALUES (1, 1)",
        ])
        .await?;
    let mut pipe = running_with(&stage.pipe_file_of(vec![append(&stage, "log")])).await?;
    let former = term(&pipe.status().await?)?;
    ensure!(pipe.stop().await? == 0);
    pipe.copy_state("copy")?;
    let newer = goes_on(&mut pipe, "state", former).await?;
    let entry = json!({ "source": format!("{}.late", stage.database) });
    let added = pipe.change(json!({ "tables": { "add": [entry] } })).await?;
    ensure!(added.0 == 200, "{added:?}");
    pipe.wait_state("Running", START).await?;
    let unkeyed = "ALTER TABLE late DROP PRIMARY KEY";
    stage.source.execute(unkeyed).await?;
    pipe.wait_state("Degraded", CATCH_UP).await?;
    stage.source.execute("UPDATE log SET a = 2").await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    ensure!(pipe.stop().await? == 0);
    let (of_late, of_log) = (
        told(&stage, newer, "late").await?,
        told(&stage, newer, "log").await?,
    );
    ensure!(
        !of_late.is_empty() && of_late != of_log,
        "late is told to be at {of_late}, and log at {of_log}"
    );
    pipe.use_state("copy");
    pipe.restart()?;
    pipe.wait_for("a term of its own", START, |status| {
        term(status).is_ok_and(|present| present > newer)
    })
    .await?;
    let still = told(&stage, newer, "late").await?;
    ensure!(
        still.is_empty() || still == of_late,
        "late is told to be at {still} in place of {of_late}"
    );
    Ok(())
}

/// What stands at ClickHouse, whatever is merged meanwhile: rows, their versions, and the checkpoints.
async fn at_clickhouse(stage: &Stage) -> Result<String> {
    let mut found = Vec::new();
    for table in ["t", "_pipewright_checkpoints"] {
        let database = &stage.database;
        let sql = format!("SELECT count(), sum(cityHash64(*)) FROM `{database}`.`{table}` FINAL");
        found.push(stage.clickhouse.query(&sql).await?);
    }
    Ok(found.join(", "))
}

/// Changes the file in place.
fn damage(file: &Path, change: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
    let mut bytes = fs::read(file)?;
    change(&mut bytes)?;
    Ok(fs::write(file, bytes)?)
}

/// Makes every record of the pipe say another replica id, as a disk does that turns bits over.
fn turn_bits(bytes: &mut [u8]) -> Result<()> {
    const KEY: &[u8] = b"\"server_id\":";
    let places: Vec<usize> = bytes
        .windows(KEY.len())
        .enumerate()
        .filter(|(_, window)| *window == KEY)
        .map(|(at, _)| at + KEY.len())
        .collect();
    ensure!(!places.is_empty(), "no record is written in the clear");
    for place in places {
        bytes[place] ^= 1;
    }
    Ok(())
}

/// What the pipe has printed since its last start.
fn printed(pipe: &Pipe) -> String {
    let all = pipe.log().tail();
    let last = all.rsplit("--- start ---").next();
    last.unwrap_or_default().to_owned()
}

/// No folder can be made, or the database cannot be written.
async fn without_a_folder(pipe: &mut Pipe) -> Result<()> {
    pipe.use_state("state");
    let folder = pipe.copy_state("unwritable")?;
    fs::remove_file(folder.join("state.sqlite"))?;
    fs::create_dir(folder.join("state.sqlite"))?;
    for (name, text) in [
        ("pipe.yaml/below", "cannot use the state folder"),
        ("unwritable", "cannot open the state database"),
    ] {
        pipe.use_state(name);
        pipe.restart()?;
        let code = pipe.wait_exit(START).await?;
        let printed = printed(pipe);
        ensure!(
            code == 1 && printed.contains(text) && printed.contains("disk"),
            "{name}: ended with {code}: {printed}"
        );
    }
    Ok(())
}

async fn a_damaged_state_is_refused_and_nothing_is_touched() -> Result<()> {
    let stage = Stage::shared(SourceKind::MySql).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a INT)",
            "INSERT INTO t VALUES (1, 1), (2, 2)",
        ])
        .await?;
    let mut pipe = running(&stage, &["t"]).await?;
    stage.source.execute("UPDATE t SET a = 3").await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    ensure!(pipe.stop().await? == 0);
    // Whoever takes the one file from here on has everything.
    let beside = fs::metadata(pipe.state_dir().join("state.sqlite-wal"));
    ensure!(
        beside.as_ref().map_or(0, |found| found.len()) == 0,
        "writes stand beside the database: {beside:?}"
    );
    let before = at_clickhouse(&stage).await?;
    let refusals = [
        ("turned", "is damaged"),
        ("headless", "cannot open the state database"),
        ("halved", "the state database"),
        ("later", "has version 99"),
    ];
    for (name, text) in refusals {
        pipe.use_state("state");
        let database = pipe.copy_state(name)?.join("state.sqlite");
        damage(&database, |bytes| {
            match name {
                "turned" => turn_bits(bytes)?,
                "headless" => bytes[..100].fill(b'x'),
                "halved" => bytes.truncate(bytes.len() / 2),
                // The header's user version, of four bytes.
                _ => bytes[60..64].copy_from_slice(&99_u32.to_be_bytes()),
            }
            Ok(())
        })?;
        let damaged = fs::read(&database)?;
        pipe.use_state(name);
        pipe.restart()?;
        let code = pipe.wait_exit(START).await?;
        let printed = printed(&pipe);
        ensure!(code == 1, "{name}: ended with {code}: {printed}");
        ensure!(
            printed.contains(text) && (printed.contains("backup") || name == "later"),
            "{name}: printed {printed}"
        );
        ensure!(fs::read(&database)? == damaged, "{name}: it was written to");
    }
    without_a_folder(&mut pipe).await?;
    // Emptied, it is that of a pipe that never was, and the target is not its own.
    pipe.use_state("state");
    fs::write(pipe.copy_state("emptied")?.join("state.sqlite"), "")?;
    pipe.use_state("emptied");
    pipe.restart()?;
    let code = pipe.wait_exit(START).await?;
    let printed = printed(&pipe);
    ensure!(
        code == 1 && printed.contains("belongs to an earlier pipe of this name"),
        "ended with {code}: {printed}"
    );
    let after = at_clickhouse(&stage).await?;
    ensure!(before == after, "{before} became {after}");
    pipe.use_state("state");
    pipe.restart()?;
    pipe.wait_state("Running", START).await?;
    stage.source.execute("DELETE FROM t WHERE id = 1").await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await
}
