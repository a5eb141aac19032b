//! What commands of the command line do to a running pipe, and what a pipe that is dropped leaves.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pipewright::fault::VARIABLE;
use serde_json::{Value, json};
use testbed::harness::{Pipe, Stage};
use testbed::{ClickHouseOptions, ClickHouseServer, SourceKind};

use super::{lock, name_of, unlock, wait_state, with_tables};
use crate::support::{
    CATCH_UP, START, assert_caught_up, once, running, running_with, wait_aborted,
};

once! {
    the_command_line_changes_a_running_pipe: 400,
    a_dropped_pipe_clears_its_loads_away_and_its_name_serves_another: 600,
}

/// Gives a command of the command line that is to succeed; the pipe's document, and what people see.
async fn succeed(pipe: &Pipe, arguments: &[&str]) -> Result<(Value, String)> {
    let url = pipe.url();
    let line = [arguments, &["--server", &url, "--json"]].concat();
    let told = pipe.cli(&line).await?;
    ensure!(told.code == 0, "{arguments:?}: {told:?}");
    let document =
        serde_json::from_str(&told.stdout).with_context(|| format!("{arguments:?}: {told:?}"))?;
    // Asked again it changes nothing, or does no harm.
    let told = pipe.cli(&[arguments, &["--server", &url]].concat()).await?;
    Ok((
        document,
        format!("{} {}{}", told.code, told.stdout, told.stderr),
    ))
}

fn table<'a>(document: &'a Value, name: &str) -> &'a Value {
    let mut tables = document["tables"].as_array().into_iter().flatten();
    let found = tables.find(|table| table["source"] == name);
    found.unwrap_or(&Value::Null)
}

async fn wait_table(pipe: &mut Pipe, name: &str, state: &str) -> Result<Value> {
    let at = |document: &Value| table(document, name)["state"] == state;
    let what = format!("{name} {state}");
    pipe.wait_for(&what, CATCH_UP, at).await
}

async fn the_command_line_changes_a_running_pipe() -> Result<()> {
    let stage = with_tables(SourceKind::MariaDb, 4).await?;
    let mut file = stage.pipe_file(&["t", "u"]);
    file["ddl"] = json!({ "add_column": "quarantine" });
    let mut pipe = running_with(&file).await?;
    let name = stage.database.as_str();
    let names = ["t", "u", "w"].map(|table| name_of(&stage, table));
    let [t, u, w] = names.each_ref().map(String::as_str);

    let (_, again) = succeed(&pipe, &["tables", "add", name, w]).await?;
    ensure!(again.starts_with("0 "), "{again}");
    wait_table(&mut pipe, w, "Streaming").await?;
    let (document, again) = succeed(&pipe, &["tables", "remove", name, w]).await?;
    ensure!(
        table(&document, w)["state"] == "Removed" && again.starts_with("0 "),
        "{document:#} {again}"
    );
    let one = [
        "resync",
        name,
        "--table",
        t,
        "--snapshot",
        "rows_per_partition=7",
    ];
    let (document, _) = succeed(&pipe, &one).await?;
    ensure!(
        document["drift"]
            .to_string()
            .contains("snapshot.rows_per_partition"),
        "{document:#}"
    );
    pipe.wait_for(
        "the load of one table in small parts",
        CATCH_UP,
        |document| {
            document["state"] == "Running"
                && table(document, t)["snapshot"]["partitions_total"].as_u64() > Some(1)
        },
    )
    .await?;
    succeed(&pipe, &["resync", name]).await?;
    pipe.wait_state("Running", CATCH_UP).await?;
    let (document, _) = succeed(&pipe, &["set", name, "interval=250ms"]).await?;
    ensure!(
        document["drift"].to_string().contains("sync.interval"),
        "{document:#}"
    );
    let url = pipe.url();
    succeed(&pipe, &["pause", name]).await?;
    pipe.wait_state("Paused", CATCH_UP).await?;
    succeed(&pipe, &["start", name]).await?;
    pipe.wait_state("Running", CATCH_UP).await?;

    out_of_service_and_back(&stage, &mut pipe, (name, u)).await?;
    assert_caught_up(&stage, &mut pipe, &["t", "u"]).await?;
    let dropped = pipe.cli(&["drop", name, "--server", &url]).await?;
    ensure!(dropped.code == 0, "{dropped:?}");
    ensure!(
        pipe.status().await.is_err(),
        "a dropped pipe has a document"
    );
    let again = pipe.cli(&["drop", name, "--server", &url]).await?;
    ensure!(
        again.code == 1 && again.stderr.contains("no pipe is named"),
        "{again:?}"
    );
    Ok(())
}

/// `tables retry` and `tables skip`.
async fn out_of_service_and_back(
    stage: &Stage,
    pipe: &mut Pipe,
    (name, u): (&str, &str),
) -> Result<()> {
    let rename = |from: &str, to: &str| {
        format!(
            "ALTER TABLE `{}`.u RENAME COLUMN {from} TO {to}",
            stage.database
        )
    };
    stage.clickhouse.query(&rename("a", "b")).await?;
    stage
        .source
        .execute("INSERT INTO u (a) VALUES ('x')")
        .await?;
    wait_table(pipe, u, "Quarantined").await?;
    stage.clickhouse.query(&rename("b", "a")).await?;
    let (_, again) = succeed(pipe, &["tables", "retry", name, u]).await?;
    ensure!(again.starts_with("0 "), "{again}");
    wait_table(pipe, u, "Streaming").await?;
    pipe.wait_state("Running", CATCH_UP).await?;

    stage
        .source
        .execute("ALTER TABLE u ADD COLUMN c INT NULL")
        .await?;
    wait_table(pipe, u, "Quarantined").await?;
    succeed(pipe, &["tables", "skip", name, u]).await?;
    pipe.wait_for(
        "a table that says what was passed over",
        CATCH_UP,
        |document| {
            table(document, u)["state"] == "Streaming"
                && document["reasons"].to_string().contains("passed over")
        },
    )
    .await?;
    stage.source.execute("ALTER TABLE u DROP COLUMN c").await?;
    succeed(pipe, &["resync", name, "--table", u]).await?;
    pipe.wait_state("Running", CATCH_UP).await.map(drop)
}

/// Pauses the pipe in the middle of a resync.
async fn paused_in_a_resync(stage: &Stage, pipe: &mut Pipe) -> Result<()> {
    let held = lock(stage, "t").await?;
    let (status, answer) = pipe.command("resync").await?;
    ensure!(status == 200, "{status}: {answer:#}");
    let until = Instant::now() + CATCH_UP;
    while loads(stage).await?.len() < 3 {
        ensure!(Instant::now() < until, "no table of a load is made");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (status, answer) = pipe.command("pause").await?;
    ensure!(status == 200, "{status}: {answer:#}");
    unlock(held).await?;
    wait_state(stage, pipe, "Paused").await
}

/// The tables that loads have made beside the live ones.
pub(super) async fn loads(stage: &Stage) -> Result<Vec<String>> {
    let sql = format!(
        "SELECT name FROM system.tables WHERE database = '{}' AND name LIKE '%resync%' ORDER BY name",
        stage.database
    );
    let rows = stage.clickhouse.rows(&sql).await?;
    Ok(rows.into_iter().flatten().flatten().collect())
}

/// What the pipe's newest row in the table of checkpoints is.
pub(super) async fn newest_kind(stage: &Stage) -> Result<String> {
    let sql = format!(
        "SELECT kind FROM `{0}`._pipewright_checkpoints FINAL WHERE pipe = '{0}' ORDER BY term DESC LIMIT 1",
        stage.database
    );
    stage.clickhouse.query(&sql).await
}

async fn a_dropped_pipe_clears_its_loads_away_and_its_name_serves_another() -> Result<()> {
    let begin = || ClickHouseServer::start(ClickHouseOptions::default());
    let stage = Stage::with_clickhouse(SourceKind::MySql, begin).await?;
    for table in ["t", "u"] {
        stage
            .source
            .execute_all([
                &format!("CREATE TABLE {table} (id INT PRIMARY KEY, a INT)")[..],
                &format!("INSERT INTO {table} VALUES (1, 1), (2, 2)"),
            ])
            .await?;
    }
    let mut pipe = running(&stage, &["t", "u"]).await?;
    paused_in_a_resync(&stage, &mut pipe).await?;
    // One of them has become somebody's own.
    let made = loads(&stage).await?;
    let kept = made
        .iter()
        .find(|name| name.starts_with("u_"))
        .context("a load of u")?;
    let sql = format!(
        "ALTER TABLE `{}`.`{kept}` MODIFY COMMENT 'mine'",
        stage.database
    );
    stage.clickhouse.query(&sql).await?;
    let term = pipe.status().await?["checkpoint"]["term"].as_u64();
    let (status, answer) = pipe.forget().await?;
    ensure!(
        status == 200 && answer["reasons"] == json!([]),
        "{status}: {answer:#}"
    );
    ensure!(
        loads(&stage).await? == [kept.clone()],
        "what is left: {:?}",
        loads(&stage).await?
    );
    ensure!(newest_kind(&stage).await? == "dropped");
    let rows = format!("SELECT count() FROM `{}`.t_current", stage.database);
    ensure!(
        stage.clickhouse.number(&rows).await? == 2,
        "the target has gone"
    );

    // Another of that name: once its targets are free it starts, above whatever the first has written.
    let sql = format!("DROP TABLE `{}`.`{kept}` SYNC", stage.database);
    stage.clickhouse.query(&sql).await?;
    free_targets(&stage).await?;
    pipe.restart()?;
    pipe.wait_state("Running", START).await?;
    let above = pipe.status().await?["checkpoint"]["term"].as_u64();
    ensure!(
        above > term && term > Some(0),
        "term {above:?} after {term:?}"
    );
    assert_caught_up(&stage, &mut pipe, &["t", "u"]).await?;

    killed_between_forgetting_and_clearing(&stage, &mut pipe).await?;
    // Without ClickHouse it is dropped all the same, and says what it leaves there.
    paused_in_a_resync(&stage, &mut pipe).await?;
    let made = loads(&stage).await?;
    tokio::task::block_in_place(|| stage.clickhouse_server.stop())?;
    let (status, answer) = pipe.forget().await?;
    let reasons = answer["reasons"].to_string();
    ensure!(
        status == 200 && made.iter().all(|name| reasons.contains(name.as_str())),
        "{status}: {answer:#}"
    );
    ensure!(reasons.contains("DROP TABLE"), "{answer:#}");
    ensure!(
        pipe.status().await.is_err(),
        "a dropped pipe has a document"
    );
    tokio::task::block_in_place(|| stage.clickhouse_server.start_again())?;
    ensure!(loads(&stage).await? == made);
    // The next of its name clears them away, although it is refused itself: the targets are not its own.
    pipe.restart()?;
    let code = pipe.wait_exit(START).await?;
    let left = loads(&stage).await?;
    ensure!(code == 1 && left.is_empty(), "{code}: {left:?} is left");
    ensure!(newest_kind(&stage).await? == "dropped");
    Ok(())
}

async fn free_targets(stage: &Stage) -> Result<()> {
    for table in ["t", "u", "pw_marker"] {
        let sql = format!("DROP TABLE `{}`.`{table}` SYNC", stage.database);
        stage.clickhouse.query(&sql).await?;
    }
    Ok(())
}

/// The process ends when the pipe's records are gone and its tables are not. The next pipe of that name clears them away,
/// whatever else stands in its way.
async fn killed_between_forgetting_and_clearing(stage: &Stage, pipe: &mut Pipe) -> Result<()> {
    paused_in_a_resync(stage, pipe).await?;
    ensure!(!loads(stage).await?.is_empty());
    pipe.change_env(VARIABLE, Some("change:2"));
    pipe.restart()?;
    pipe.wait_state("Paused", START).await?;
    ensure!(pipe.forget().await.is_err(), "the drop was answered");
    wait_aborted(pipe).await?;
    let made = loads(stage).await?;
    ensure!(!made.is_empty(), "cleared away before the process ended");
    pipe.change_env(VARIABLE, None);
    pipe.restart()?;
    // The targets are no longer its own.
    let code = pipe.wait_exit(START).await?;
    ensure!(code == 1, "ended with {code}");
    let left = loads(stage).await?;
    ensure!(left.is_empty(), "{left:?} of {made:?} is left");
    ensure!(newest_kind(stage).await? == "dropped");
    free_targets(stage).await?;
    pipe.restart()?;
    pipe.wait_state("Running", START).await.map(drop)
}
