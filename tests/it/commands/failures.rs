//! What fails while a pipe finishes what is in flight, takes in a table or exchanges tables: the pipe stops where it cannot
//! go on, and goes on once that is mended, or is loaded anew; one table's trouble stops that table alone.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{Pipe, Stage};

use super::effects::loads;
use super::{
    Asked, adding, give, give_well, lock, name_of, newest_event, state, unlock_later, wait_state,
    wait_told, with_tables,
};
use crate::support::{
    CATCH_UP, SlowInserts, SlowReader, assert_caught_up, on_both_sources, once, running,
};

on_both_sources! {
    a_pipe_fails_at_whatever_it_is_and_goes_on_from_there: 600,
}

once! {
    one_tables_trouble_fails_no_pipe_that_pauses_or_takes_in_another: 300,
}

/// How a person goes on with a failed pipe.
#[derive(Clone, Copy)]
enum Way {
    /// What was wrong is mended, and the pipe started.
    Mended,
    /// What is lost is lost, and the pipe loaded anew.
    Anew,
}

async fn a_pipe_fails_at_whatever_it_is_and_goes_on_from_there(kind: SourceKind) -> Result<()> {
    let stage = with_tables(kind, 1).await?;
    let mut pipe = running(&stage, &["t", "u"]).await?;
    for way in [Way::Mended, Way::Anew] {
        while_it_pauses(&stage, &mut pipe, way)
            .await
            .context("Pausing")?;
        while_a_table_is_added(&stage, &mut pipe, way)
            .await
            .context("Modifying")?;
        while_tables_are_exchanged(&stage, &mut pipe, way)
            .await
            .context("Resync")?;
    }
    Ok(())
}

/// A table of the destination that goes by another name for a while, or for ever.
async fn rename(stage: &Stage, from: &str, to: &str) -> Result<()> {
    let database = &stage.database;
    let sql = format!("RENAME TABLE `{database}`.`{from}` TO `{database}`.`{to}`");
    stage.clickhouse.query(&sql).await.map(drop)
}

/// The failed pipe goes on, equal to its source.
async fn go_on(
    stage: &Stage,
    pipe: &mut Pipe,
    way: Way,
    (name, aside): (&str, &str),
) -> Result<()> {
    let document = pipe.status().await?;
    ensure!(
        document["state"] == "Failed" && document["reasons"][0]["remedy"].is_string(),
        "{document:#}"
    );
    match way {
        Way::Mended => {
            rename(stage, aside, name).await?;
            give_well(pipe, &state("start")).await?;
        }
        Way::Anew => {
            let sql = format!("DROP TABLE `{}`.`{aside}` SYNC", stage.database);
            stage.clickhouse.query(&sql).await?;
            give_well(pipe, &state("resync")).await?;
        }
    }
    pipe.wait_state("Running", CATCH_UP).await?;
    stage
        .source
        .execute_all([
            "UPDATE t SET a = 'after' LIMIT 1",
            "INSERT INTO u (a) VALUES ('after')",
        ])
        .await?;
    assert_caught_up(stage, pipe, &["t", "u"]).await?;
    stage.assert_no_load_left().await
}

/// The mirror of the checkpoint and its name meanwhile.
const MIRROR: (&str, &str) = ("_pipewright_checkpoints", "aside");

/// What is in flight cannot be checkpointed any more.
async fn while_it_pauses(stage: &Stage, pipe: &mut Pipe, way: Way) -> Result<()> {
    let newest = newest_event(stage, pipe).await?;
    let slow = SlowInserts::begin(stage, "t").await?;
    let insert = "INSERT INTO t (a) VALUES ('slow')";
    stage.source.execute(insert).await?;
    slow.wait_insert().await?;
    give_well(pipe, &state("pause")).await?;
    rename(stage, MIRROR.0, MIRROR.1).await?;
    wait_told(stage, pipe, newest, "Pausing to Failed").await?;
    slow.end().await?;
    go_on(stage, pipe, way, MIRROR).await
}

/// The pipe streams on while it looks at the table that is added, and fails at that; the addition is refused.
async fn while_a_table_is_added(stage: &Stage, pipe: &mut Pipe, way: Way) -> Result<()> {
    let newest = newest_event(stage, pipe).await?;
    let held = lock(stage, "w").await?;
    let add = Asked::Change(adding(json!({ "source": name_of(stage, "w") })));
    let broken = async {
        wait_state(stage, pipe, "Modifying").await?;
        rename(stage, MIRROR.0, MIRROR.1).await?;
        let insert = "INSERT INTO t (a) VALUES ('meanwhile')";
        stage.source.execute(insert).await?;
        unlock_later(held).await
    };
    let (added, broken) = tokio::join!(give(pipe, &add), broken);
    broken?;
    let (status, answer) = added?;
    ensure!(status != 200, "added to a failed pipe: {answer:#}");
    wait_told(stage, pipe, newest, "Modifying to Failed").await?;
    go_on(stage, pipe, way, MIRROR).await?;
    let document = pipe.status().await?;
    ensure!(
        table(stage, &document, "w").is_null(),
        "the addition was refused: {document:#}"
    );
    Ok(())
}

/// A reader keeps the exchange of `t` from being over, and what was loaded to replace `u` goes away.
async fn while_tables_are_exchanged(stage: &Stage, pipe: &mut Pipe, way: Way) -> Result<()> {
    let newest = newest_event(stage, pipe).await?;
    let reader = SlowReader::begin(stage, "t").await?;
    give_well(pipe, &state("resync")).await?;
    pipe.wait_state("Resync", CATCH_UP).await?;
    reader.wait_in_the_way().await?;
    let made = loads(stage).await?;
    let fresh = made.iter().find(|name| name.starts_with("u_"));
    let fresh = fresh.context("a load of u")?;
    rename(stage, fresh, "aside").await?;
    reader.end().await?;
    wait_told(stage, pipe, newest, "Resync to Failed").await?;
    go_on(stage, pipe, way, (fresh, "aside")).await
}

fn table<'a>(stage: &Stage, document: &'a Value, name: &str) -> &'a Value {
    let source = name_of(stage, name);
    let tables = document["tables"].as_array();
    let found = tables.and_then(|tables| tables.iter().find(|table| table["source"] == *source));
    found.unwrap_or(&Value::Null)
}

/// As it is stopped alone while the pipe streams.
async fn one_tables_trouble_fails_no_pipe_that_pauses_or_takes_in_another() -> Result<()> {
    let stage = with_tables(SourceKind::MySql, 1).await?;
    let mut pipe = running(&stage, &["t", "u"]).await?;
    let rename = |from: &str, to: &str| {
        format!(
            "ALTER TABLE `{}`.u RENAME COLUMN {from} TO {to}",
            stage.database
        )
    };
    let held = lock(&stage, "w").await?;
    let add = Asked::Change(adding(json!({ "source": name_of(&stage, "w") })));
    let broken = async {
        wait_state(&stage, &pipe, "Modifying").await?;
        stage.clickhouse.query(&rename("a", "b")).await?;
        let insert = "INSERT INTO u (a) VALUES ('x')";
        stage.source.execute(insert).await?;
        unlock_later(held).await
    };
    let (added, broken) = tokio::join!(give_well(&pipe, &add), broken);
    broken?;
    added.context("tables add")?;
    let quarantined = |document: &Value| table(&stage, document, "u")["state"] == "Quarantined";
    pipe.wait_for("the other table", CATCH_UP, |document| {
        document["state"] == "Degraded"
            && quarantined(document)
            && table(&stage, document, "w")["state"] == "Streaming"
    })
    .await?;
    assert_caught_up(&stage, &mut pipe, &["t", "w"]).await?;
    stage.clickhouse.query(&rename("b", "a")).await?;
    let retry = json!({ "command": "retry", "table": name_of(&stage, "u") });
    give_well(&pipe, &Asked::State(retry.clone())).await?;
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(&stage, &mut pipe, &["u"]).await?;

    // An insert that takes its time, and fails in the end.
    let slow = SlowInserts::begin(&stage, "u").await?;
    slow.refuse().await?;
    let insert = "INSERT INTO u (a) VALUES ('y')";
    stage.source.execute(insert).await?;
    slow.wait_insert().await?;
    give_well(&pipe, &state("pause")).await?;
    let document = pipe.wait_state("Paused", CATCH_UP).await?;
    ensure!(quarantined(&document), "{document:#}");
    slow.end().await?;
    give_well(&pipe, &state("resume")).await?;
    pipe.wait_state("Degraded", CATCH_UP).await?;
    give_well(&pipe, &Asked::State(retry)).await?;
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(&stage, &mut pipe, &["t", "u", "w"]).await
}
