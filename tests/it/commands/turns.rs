//! Commands that come while tables are added: each waits for its turn, and is answered by what the pipe is at by then. And
//! settings of `sync`, which hold from the next run on whatever the pipe is at.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use pipewright::pipe::lifecycle::PipeState;
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{Pipe, Stage};

use super::{
    Asked, adding, assert_stays, give, give_well, lock, name_of, newest_event, removing,
    small_partitions, state, unlock, unlock_later, wait_partitions, wait_state, wait_told,
    with_tables,
};
use crate::definitions::identity;
use crate::support::{
    CATCH_UP, START, SlowReader, assert_caught_up, double, launch, on_both_sources, running, start,
};

on_both_sources! {
    commands_that_come_while_tables_are_added_wait_for_their_turn: 600,
    a_setting_holds_from_the_next_run_on_whatever_the_pipe_is_at: 400,
    a_pipe_that_copies_once_takes_commands_during_its_exchange: 240,
}

/// What is answered to each of these, given while `w` is added and a lock keeps that from being over.
async fn answers_at_modifying(
    stage: &Stage,
    pipe: &Pipe,
    asked: &[Asked],
) -> Result<Vec<(u16, Value)>> {
    // It may not be the pipe's yet.
    give(pipe, &Asked::Change(removing(stage, "w"))).await?;
    let held = lock(stage, "w").await?;
    let unlocked = AtomicBool::new(false);
    let add = Asked::Change(adding(json!({ "source": name_of(stage, "w") })));
    let answers = async {
        wait_state(stage, pipe, "Modifying").await?;
        let unlocked = &unlocked;
        let answers = asked.iter().map(|asked| async move {
            let answer = give(pipe, asked).await?;
            let late = unlocked.load(Ordering::SeqCst);
            ensure!(late, "{asked:?} did not wait for its turn: {answer:?}");
            Ok(answer)
        });
        try_join_all(answers).await
    };
    let unlock = async {
        wait_state(stage, pipe, "Modifying").await?;
        // What is asked for meanwhile must be on its way.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = pipe.status().await?["state"].clone();
        ensure!(now == "Modifying", "{now} while the table is locked");
        unlocked.store(true, Ordering::SeqCst);
        unlock(held).await
    };
    let (_, answers, ()) = tokio::try_join!(give_well(pipe, &add), answers, unlock)?;
    Ok(answers)
}

fn of_table(stage: &Stage, command: &str, table: &str) -> Asked {
    Asked::State(json!({ "command": command, "table": name_of(stage, table) }))
}

fn set(interval: &str) -> Asked {
    Asked::Change(json!({ "sync": { "interval": interval } }))
}

fn is_there(stage: &Stage, document: &Value, table: &str) -> bool {
    let source = name_of(stage, table);
    let mut tables = document["tables"].as_array().into_iter().flatten();
    tables.any(|table| table["source"] == *source && table["state"] != "Removed")
}

async fn commands_that_come_while_tables_are_added_wait_for_their_turn(
    kind: SourceKind,
) -> Result<()> {
    let stage = with_tables(kind, 4).await?;
    let mut pipe = running(&stage, &["t", "u"]).await?;
    what_changes_no_state(&stage, &mut pipe).await?;

    // The very table that is added, and a load of another.
    let newest = newest_event(&stage, &pipe).await?;
    let asked = [
        Asked::Change(removing(&stage, "w")),
        of_table(&stage, "resync", "t"),
    ];
    for (status, answer) in answers_at_modifying(&stage, &pipe, &asked).await? {
        ensure!(status == 200, "{status}: {answer:#}");
    }
    wait_told(&stage, &pipe, newest, "Snapshot to Resync").await?;
    let document = pipe.wait_state("Running", CATCH_UP).await?;
    ensure!(!is_there(&stage, &document, "w"), "{document:#}");
    stage.source.execute("DELETE FROM t WHERE id < 5").await?;
    assert_caught_up(&stage, &mut pipe, &["t", "u"]).await?;

    let asked = [state("resync")];
    for (status, answer) in answers_at_modifying(&stage, &pipe, &asked).await? {
        ensure!(status == 200, "{status}: {answer:#}");
    }
    let document = pipe.wait_state("Running", CATCH_UP).await?;
    ensure!(is_there(&stage, &document, "w"), "{document:#}");
    assert_caught_up(&stage, &mut pipe, &["t", "u", "w"]).await?;
    stage.assert_no_load_left().await?;
    while_it_is_paused(&stage, &mut pipe).await
}

async fn what_changes_no_state(stage: &Stage, pipe: &mut Pipe) -> Result<()> {
    let asked = [
        state("start"),
        state("resume"),
        set("300ms"),
        Asked::Change(adding(json!({ "source": name_of(stage, "w") }))),
        Asked::Change(json!({ "exclude": ["no.such*"] })),
        of_table(stage, "retry", "t"),
        of_table(stage, "skip", "t"),
    ];
    let connect = Asked::Change(json!({ "source": { "host": "localhost" } }));
    let asked = [&asked[..], &[connect]].concat();
    let mut answers = answers_at_modifying(stage, pipe, &asked).await?;
    let refused = answers.pop();
    for (asked, (status, answer)) in asked.iter().zip(answers) {
        ensure!(status == 200, "{asked:?}: {status}: {answer:#}");
    }
    // Others than these it cannot be at.
    let (status, answer) = refused.unwrap_or_default();
    let detail = answer["detail"].as_str().unwrap_or_default();
    let mut states = ["Snapshot", "Running", "Degraded"].into_iter();
    ensure!(
        status == 409
            && answer["code"] == "illegal_command"
            && states.any(|state| detail.contains(state)),
        "{status}: {answer:#}"
    );
    let document = pipe.wait_state("Running", CATCH_UP).await?;
    let drift = document["drift"].to_string();
    ensure!(
        is_there(stage, &document, "w") && drift.contains("300ms") && drift.contains("no.such*"),
        "{document:#}"
    );
    assert_caught_up(stage, pipe, &["t", "u", "w"]).await
}

/// It is paused again afterwards, unless it is to go on.
async fn while_it_is_paused(stage: &Stage, pipe: &mut Pipe) -> Result<()> {
    give_well(pipe, &state("pause")).await?;
    pipe.wait_state("Paused", CATCH_UP).await?;
    let connect = Asked::Change(json!({ "source": { "host": "localhost" } }));
    let asked = [state("pause"), set("250ms"), connect];
    for (status, answer) in answers_at_modifying(stage, pipe, &asked).await? {
        ensure!(status == 200, "{status}: {answer:#}");
    }
    let document = pipe.wait_state("Paused", CATCH_UP).await?;
    let drift = document["drift"].to_string();
    ensure!(
        drift.contains("250ms") && drift.contains("localhost"),
        "{document:#}"
    );
    what_leaves_it_paused(stage, pipe).await?;
    for asked in [state("resume"), state("start"), state("resync")] {
        let newest = newest_event(stage, pipe).await?;
        let given = std::slice::from_ref(&asked);
        for (status, answer) in answers_at_modifying(stage, pipe, given).await? {
            ensure!(status == 200, "{asked:?}: {status}: {answer:#}");
        }
        wait_told(stage, pipe, newest, "Paused to Snapshot").await?;
        pipe.wait_state("Running", CATCH_UP).await?;
        assert_caught_up(stage, pipe, &["t", "u", "w"]).await?;
        stage.assert_no_load_left().await?;
        give_well(pipe, &state("pause")).await?;
        pipe.wait_state("Paused", CATCH_UP).await?;
    }
    give_well(pipe, &state("resume")).await?;
    pipe.wait_state("Running", CATCH_UP).await.map(drop)
}

/// Other tables, ways back for one that needs none, and the removal of the very table that is added.
async fn what_leaves_it_paused(stage: &Stage, pipe: &mut Pipe) -> Result<()> {
    let asked = [
        Asked::Change(adding(json!({ "source": name_of(stage, "w") }))),
        Asked::Change(json!({ "exclude": ["no.such*", "neither.such"] })),
        of_table(stage, "retry", "t"),
        of_table(stage, "skip", "t"),
    ];
    for (status, answer) in answers_at_modifying(stage, pipe, &asked).await? {
        ensure!(status == 200, "{status}: {answer:#}");
    }
    let document = pipe.wait_state("Paused", CATCH_UP).await?;
    ensure!(
        is_there(stage, &document, "w") && document["drift"].to_string().contains("neither.such"),
        "{document:#}"
    );
    let asked = [Asked::Change(removing(stage, "w"))];
    for (status, answer) in answers_at_modifying(stage, pipe, &asked).await? {
        ensure!(status == 200, "{status}: {answer:#}");
    }
    let document = pipe.wait_state("Paused", CATCH_UP).await?;
    ensure!(!is_there(stage, &document, "w"), "{document:#}");
    Ok(())
}

/// A reader keeps the exchange from being over.
async fn a_pipe_that_copies_once_takes_commands_during_its_exchange(
    kind: SourceKind,
) -> Result<()> {
    let stage = with_tables(kind, 8).await?;
    let mut file = stage.pipe_file(&["t", "u"]);
    file["mode"] = json!("snapshot");
    let mut pipe = start(launch(&file))?;
    pipe.wait_state("Completed", START).await?;
    let tables = ["t", "u"];
    let mut before = Vec::new();
    for table in tables {
        before.push(identity(&stage, table).await?);
    }
    stage.source.execute("DELETE FROM t WHERE id < 10").await?;
    let reader = SlowReader::begin(&stage, "t").await?;
    give_well(&pipe, &state("resync")).await?;
    pipe.wait_state("Resync", CATCH_UP).await?;
    reader.wait_in_the_way().await?;
    // A table that is being exchanged is asked back in vain, and told so.
    assert_stays(&stage, &pipe, &PipeState::Resync).await?;
    reader.end().await?;
    let document = pipe.wait_state("Completed", CATCH_UP).await?;
    ensure!(document["reasons"] == json!([]), "{document:#}");
    for (table, before) in tables.into_iter().zip(before) {
        stage.assert_same(table).await?;
        let now = identity(&stage, table).await?;
        ensure!(now != before, "{table} is the table that was loaded before");
    }
    stage.assert_no_load_left().await
}

/// With an interval of an hour, which no row outwaits here.
async fn assert_rows_wait(stage: &Stage, pipe: &mut Pipe) -> Result<()> {
    let answer = give_well(pipe, &set("1h")).await?;
    ensure!(answer["state"] == "Running", "{answer:#}");
    let insert = "INSERT INTO u (a) VALUES ('waits')";
    stage.source.execute(insert).await?;
    pipe.wait_for("a row that waits", CATCH_UP, |document| {
        document["lag_seconds"].as_f64() > Some(1.5)
    })
    .await?;
    let here = stage.source.number("SELECT COUNT(*) FROM u").await?;
    let there = format!("SELECT count() FROM `{}`.u_current", stage.database);
    let there = stage.clickhouse.number(&there).await?;
    ensure!(there < here, "the row did not wait");
    Ok(())
}

async fn a_setting_holds_from_the_next_run_on_whatever_the_pipe_is_at(
    kind: SourceKind,
) -> Result<()> {
    // More than is read before the table is locked; the other has enough for a slow reader.
    let stage = with_tables(kind, 16).await?;
    double(&stage, "u", "a", 8).await?;
    let mut file = stage.pipe_file(&["t", "u"]);
    file["sync"] = json!({ "interval": "1h" });
    file["snapshot"] = small_partitions();
    let mut pipe = start(launch(&file))?;
    wait_partitions(&mut pipe).await?;
    let held = lock(&stage, "t").await?;
    let at_once = set("200ms");
    let (answer, ()) = tokio::try_join!(give_well(&pipe, &at_once), unlock_later(held))?;
    ensure!(
        answer["state"] == "Snapshot" && answer["drift"].to_string().contains("200ms"),
        "{answer:#}"
    );
    pipe.wait_state("Running", START).await?;
    assert_caught_up(&stage, &mut pipe, &["u"]).await?;

    assert_rows_wait(&stage, &mut pipe).await?;
    let reader = SlowReader::begin(&stage, "u").await?;
    give_well(&pipe, &of_table(&stage, "resync", "u")).await?;
    pipe.wait_state("Resync", CATCH_UP).await?;
    reader.wait_in_the_way().await?;
    let (answer, ()) = tokio::try_join!(give_well(&pipe, &at_once), reader.end_later())?;
    ensure!(answer["drift"].to_string().contains("200ms"), "{answer:#}");
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(&stage, &mut pipe, &["u"]).await?;

    assert_rows_wait(&stage, &mut pipe).await?;
    for (status, answer) in answers_at_modifying(&stage, &pipe, &[at_once]).await? {
        ensure!(
            status == 200 && answer["drift"].to_string().contains("200ms"),
            "{status}: {answer:#}"
        );
    }
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(&stage, &mut pipe, &["t", "u", "w"]).await
}
