//! What fails while a pipe finishes what is in flight, takes in a table, exchanges tables or has one out of service: the
//! pipe stops where it cannot go on, and goes on once that is mended, or is loaded anew; one table's trouble stops that
//! table alone.

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{Pipe, Proxy, Stage};

use super::effects::loads;
use super::{
    Asked, adding, give, give_well, lock, name_of, newest_event, small_partitions, state, unlock,
    unlock_later, wait_partitions, wait_state, wait_told, with_tables,
};
use crate::support::{
    CATCH_UP, SlowInserts, SlowReader, assert_caught_up, launch, on_both_sources, running,
    running_with, start, wait_for_pipe,
};

on_both_sources! {
    a_pipe_fails_at_whatever_it_is_and_goes_on_from_there: 600,
    a_load_is_taken_up_again_while_another_table_stays_out: 300,
    a_pipe_that_cannot_be_set_up_says_so_in_a_process_that_stays: 240,
    a_load_asked_for_while_pausing_begins_though_the_last_insert_failed: 240,
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
        while_a_table_is_out_of_service(&stage, &mut pipe, way)
            .await
            .context("Degraded")?;
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

/// The other table's rows cannot be checkpointed; the pipe that goes on takes both back.
async fn while_a_table_is_out_of_service(stage: &Stage, pipe: &mut Pipe, way: Way) -> Result<()> {
    let newest = newest_event(stage, pipe).await?;
    rename(stage, "u", "u_aside").await?;
    let insert = "INSERT INTO u (a) VALUES ('x')";
    stage.source.execute(insert).await?;
    pipe.wait_state("Degraded", CATCH_UP).await?;
    rename(stage, "u_aside", "u").await?;
    rename(stage, MIRROR.0, MIRROR.1).await?;
    let insert = "INSERT INTO t (a) VALUES ('meanwhile')";
    stage.source.execute(insert).await?;
    wait_told(stage, pipe, newest, "Degraded to Failed").await?;
    // Asked back now, it is read when the pipe goes on.
    let verb = match way {
        Way::Mended => "retry",
        Way::Anew => "skip",
    };
    let back = json!({ "command": verb, "table": name_of(stage, "u") });
    let document = give_well(pipe, &Asked::State(back)).await?;
    ensure!(
        document["state"] == "Failed" && table(stage, &document, "u")["state"] == "CatchingUp",
        "{verb} at Failed: {document:#}"
    );
    go_on(stage, pipe, way, MIRROR).await
}

fn table<'a>(stage: &Stage, document: &'a Value, name: &str) -> &'a Value {
    let source = name_of(stage, name);
    let tables = document["tables"].as_array();
    let found = tables.and_then(|tables| tables.iter().find(|table| table["source"] == *source));
    found.unwrap_or(&Value::Null)
}

/// As it is stopped alone while the pipe streams.
async fn one_tables_trouble_fails_no_pipe_that_pauses_or_takes_in_another(
    kind: SourceKind,
) -> Result<()> {
    let stage = with_tables(kind, 1).await?;
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

/// Both leave in the middle of the load of one; it has trouble of its own alone once that is mended.
async fn a_load_is_taken_up_again_while_another_table_stays_out(kind: SourceKind) -> Result<()> {
    // More than is read before the table is locked.
    let stage = with_tables(kind, 16).await?;
    let mut file = stage.pipe_file(&["t", "u"]);
    file["snapshot"] = small_partitions();
    let mut pipe = start(launch(&file))?;
    wait_partitions(&mut pipe).await?;
    let held = lock(&stage, "t").await?;
    let state_of = |document: &Value, name| table(&stage, document, name)["state"].clone();
    // Its load has not begun: between two runs a target without rows would be made anew.
    rename(&stage, "u", "u_aside").await?;
    let insert = "INSERT INTO u (a) VALUES ('x')";
    stage.source.execute(insert).await?;
    pipe.wait_for("the table that waits", CATCH_UP, |document| {
        state_of(document, "u") == "Quarantined"
    })
    .await?;
    rename(&stage, "t", "t_aside").await?;
    unlock(held).await?;
    pipe.wait_for("both tables out of service", CATCH_UP, |document| {
        document["state"] == "Degraded"
            && ["t", "u"].map(|name| state_of(document, name)) == ["Quarantined", "Quarantined"]
    })
    .await?;

    let retry = |name| {
        let order = json!({ "command": "retry", "table": name_of(&stage, name) });
        Asked::State(order)
    };
    let newest = newest_event(&stage, &pipe).await?;
    rename(&stage, "t_aside", "t").await?;
    give_well(&pipe, &retry("t")).await?;
    wait_told(&stage, &pipe, newest, "Degraded to Snapshot").await?;
    pipe.wait_for("one table back", CATCH_UP, |document| {
        document["state"] == "Degraded"
            && ["t", "u"].map(|name| state_of(document, name)) == ["Streaming", "Quarantined"]
    })
    .await?;
    let done = &table(&stage, &pipe.status().await?, "t")["snapshot"].clone();
    ensure!(
        done["partitions_done"] == done["partitions_total"],
        "{done:#}"
    );
    stage.source.execute("DELETE FROM t WHERE id < 100").await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    rename(&stage, "u_aside", "u").await?;
    give_well(&pipe, &retry("u")).await?;
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(&stage, &mut pipe, &["t", "u"]).await?;
    stage.assert_no_load_left().await
}

/// Beside a pipe that is well.
async fn a_pipe_that_cannot_be_set_up_says_so_in_a_process_that_stays(
    kind: SourceKind,
) -> Result<()> {
    let (well, stage) = tokio::try_join!(with_tables(kind, 1), with_tables(kind, 1))?;
    let mut pipe = running(&well, &["t"]).await?;
    stage
        .source
        .execute_all(["CREATE TABLE k (a INT)", "INSERT INTO k VALUES (1), (2)"])
        .await?;
    let file = stage.pipe_file(&["t", "k"]).to_string();
    let (status, made) = pipe.call(Method::POST, "/v1/pipes", file).await?;
    ensure!(status == 201, "{status}: {made:#}");
    let name = &stage.database;
    let document = wait_for_pipe(&pipe, name, "Failed", |document| {
        document["state"] == "Failed"
    })
    .await?;
    let remedy = document["reasons"][0]["remedy"].as_str();
    let alter = remedy
        .filter(|remedy| remedy.starts_with("ALTER TABLE"))
        .with_context(|| format!("no statement in {document:#}"))?;
    for told in ["Provisioning to Setup", "Setup to Failed"] {
        wait_told(&stage, &pipe, 0, told).await?;
    }
    let made = format!("SELECT count() FROM system.tables WHERE database = '{name}'");
    ensure!(
        stage.clickhouse.number(&made).await? == 0,
        "a target is made"
    );

    stage.source.execute(alter).await?;
    let path = format!("/v1/pipes/{name}/state");
    let order = json!({ "command": "start" }).to_string();
    let (status, answer) = pipe.call(Method::PATCH, &path, order).await?;
    ensure!(status == 200, "{status}: {answer:#}");
    wait_state(&stage, &pipe, "Running").await?;
    stage.source.execute("UPDATE k SET a = a + 10").await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    for table in ["t", "k"] {
        stage.assert_same(table).await?;
    }
    let document = pipe.status().await?;
    ensure!(
        document["state"] == "Running" && document["reasons"] == json!([]),
        "the other one: {document:#}"
    );
    assert_caught_up(&well, &mut pipe, &["t"]).await
}

/// The answer of the last insert in flight is lost, so that the pipe never comes to be Paused.
async fn a_load_asked_for_while_pausing_begins_though_the_last_insert_failed(
    kind: SourceKind,
) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE gated (id INT PRIMARY KEY, a INT)",
            "INSERT INTO gated VALUES (1, 1), (2, 2)",
        ])
        .await?;
    let proxy = Proxy::before(stage.clickhouse_server.http_port()).await?;
    let mut file = stage.pipe_file(&["gated"]);
    file["destination"]["url"] = json!(proxy.url());
    let mut pipe = running_with(&file).await?;
    proxy.close_gate("gated", 0);
    let insert = "INSERT INTO gated VALUES (3, 3)";
    stage.source.execute(insert).await?;
    pipe.wait_for("an insert under way", CATCH_UP, |document| {
        document["lag_seconds"].as_f64() > Some(0.3)
    })
    .await?;
    give_well(&pipe, &state("pause")).await?;
    pipe.wait_state("Pausing", CATCH_UP).await?;
    let newest = newest_event(&stage, &pipe).await?;
    let resync = state("resync");
    let lost = async {
        wait_told(&stage, &pipe, newest, "resync").await?;
        proxy.lose_answers(1);
        proxy.open_gate();
        Ok(())
    };
    let (resynced, lost) = tokio::join!(give_well(&pipe, &resync), lost);
    lost.and(resynced).context("resync at Pausing")?;
    wait_told(&stage, &pipe, newest, "Pausing to Snapshot").await?;
    ensure!(proxy.lost() == 1, "{} answers were lost", proxy.lost());
    pipe.wait_state("Running", CATCH_UP).await?;
    let delete = "DELETE FROM gated WHERE id = 1";
    stage.source.execute(delete).await?;
    assert_caught_up(&stage, &mut pipe, &["gated"]).await?;
    stage.assert_no_load_left().await
}
