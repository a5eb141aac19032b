//! Commands where nothing streams: a pipe that is yet to be set up, one that is done, and one that has failed.

use anyhow::{Result, ensure};
use pipewright::error::ErrorKind;
use pipewright::pipe::Command;
use pipewright::pipe::lifecycle::{Failure, PipeState};
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{Pipe, Stage};

use super::{
    assert_moves, assert_stays, assert_takes_connections, assert_takes_settings, name_of, resync,
    run_once, state, wait_state, with_tables,
};
use crate::support::{CATCH_UP, START, assert_caught_up, launch, start};

/// Provisioning, Completed and Failed.
pub(super) async fn a_pipe_at_rest_takes_the_commands_that_its_state_allows(
    kind: SourceKind,
) -> Result<()> {
    let stage = with_tables(kind, 1).await?;
    let mut file = stage.pipe_file(&["t", "u"]);
    file["source"]["port"] = json!(1);
    let mut pipe = start(launch(&file).argument("--wait=600s"))?;
    pipe.wait_state("Provisioning", START).await?;
    assert_stays(&stage, &pipe, &PipeState::Provisioning).await?;
    assert_takes_settings(&pipe, &PipeState::Provisioning).await?;
    let (status, answer) = pipe.forget().await?;
    ensure!(
        status == 200 && answer["reasons"].as_array().is_some(),
        "drop at Provisioning: {status}: {answer:#}"
    );
    while_completed(&stage, &mut pipe).await?;

    pipe.change_file(&stage.pipe_file(&["t", "u"]));
    pipe.restart()?;
    pipe.wait_state("Running", START).await?;
    pipe.stop().await?;
    // Another key than the targets were made with.
    let mut file = stage.pipe_file(&["t", "u"]);
    file["tables"][0]["order_by"] = json!(["tenant", "id"]);
    pipe.change_file(&file);
    pipe.restart()?;
    wait_state(&stage, &pipe, "Failed").await?;
    let key = format!("tables[{}].order_by", name_of(&stage, "t"));
    let drift = pipe.status().await?["drift"].to_string();
    ensure!(drift.contains(&key), "{key} is not in {drift}");
    let failure = Failure {
        kind: ErrorKind::Config,
        message: String::new(),
        table: None,
        remedy: None,
        at_us: None,
    };
    let failed = PipeState::Failed { failure };
    assert_stays(&stage, &pipe, &failed).await?;
    assert_takes_settings(&pipe, &failed).await?;
    assert_needs_the_whole_pipe(&stage, &pipe, "Failed").await?;
    let start_again = (state("start"), Command::Start);
    assert_moves(&stage, &pipe, &failed, start_again).await?;
    wait_state(&stage, &pipe, "Failed").await?;
    assert_moves(&stage, &pipe, &failed, (state("resync"), resync())).await?;
    wait_state(&stage, &pipe, "Running").await?;
    assert_caught_up(&stage, &mut pipe, &["t", "u"]).await?;
    pipe.stop().await?;
    another_way_while_it_is_provisioned(&stage).await
}

/// A pipe that cannot reach its source is told where that is.
async fn another_way_while_it_is_provisioned(stage: &Stage) -> Result<()> {
    let mut file = stage.pipe_file(&["t", "u"]);
    let database = format!("{}_way", stage.database);
    file["destination"]["database"] = json!(database);
    let port = std::mem::replace(&mut file["source"]["port"], json!(1));
    let mut pipe = start(launch(&file).argument("--wait=600s"))?;
    pipe.wait_state("Provisioning", START).await?;
    let (status, answer) = pipe.change(json!({ "source": { "port": port } })).await?;
    ensure!(status == 200, "{status}: {answer:#}");
    let document = pipe.wait_state("Running", START).await?;
    let drift = document["drift"].to_string();
    ensure!(drift.contains("source.port"), "{document:#}");
    let here = stage.source.number("SELECT COUNT(*) FROM t").await?;
    let there = format!("SELECT count() FROM `{database}`.t_current");
    let there = stage.clickhouse.number(&there).await?;
    ensure!(here == there, "{here} rows, and {there} at ClickHouse");
    Ok(())
}

/// A pipe that copies once, into a database of its own.
async fn while_completed(stage: &Stage, pipe: &mut Pipe) -> Result<()> {
    pipe.stop().await?;
    let mut file = stage.pipe_file(&["t", "u"]);
    let database = format!("{}_once", stage.database);
    file["destination"]["database"] = json!(database);
    file["mode"] = json!("snapshot");
    pipe.change_file(&file);
    pipe.restart()?;
    pipe.wait_state("Completed", START).await?;
    assert_stays(stage, pipe, &PipeState::Completed).await?;
    assert_takes_settings(pipe, &PipeState::Completed).await?;
    assert_takes_connections(stage, pipe, &PipeState::Completed).await?;
    let (status, answer) = pipe.command("start").await?;
    let (detail, hint) = (answer["detail"].to_string(), answer["hint"].to_string());
    ensure!(
        status == 409 && detail.contains("`start`") && hint.contains("pipewright resync"),
        "{status}: {answer:#}"
    );
    assert_needs_the_whole_pipe(stage, pipe, "Completed").await?;
    stage.source.execute("DELETE FROM t WHERE id = 1").await?;
    let all = (state("resync"), resync());
    assert_moves(stage, pipe, &PipeState::Completed, all).await?;
    pipe.wait_state("Completed", CATCH_UP).await?;
    let here = stage.source.number("SELECT COUNT(*) FROM t").await?;
    let there = format!("SELECT count() FROM `{database}`.t_current");
    let there = stage.clickhouse.number(&there).await?;
    ensure!(here == there, "{here} rows, and {there} after the resync");
    completed_with_another_file(stage, pipe, &database).await?;
    let (status, answer) = pipe.forget().await?;
    ensure!(status == 200, "drop at Completed: {status}: {answer:#}");
    pipe.stop().await.map(drop)
}

/// A fixed key that changes is refused by name and shown as drift, until a resync takes it up.
async fn completed_with_another_file(stage: &Stage, pipe: &mut Pipe, database: &str) -> Result<()> {
    let mut file = stage.pipe_file(&["t", "u"]);
    file["destination"]["database"] = json!(database);
    file["mode"] = json!("snapshot");
    let before = file.clone();
    file["tables"][0]["order_by"] = json!(["tenant", "id"]);
    let key = format!("tables[{}].order_by", name_of(stage, "t"));
    pipe.stop().await?;
    pipe.change_file(&file);
    pipe.restart()?;
    let document = pipe.wait_state("Completed", START).await?;
    let reason = &document["reasons"][0];
    ensure!(
        reason["kind"] == "warning"
            && reason["message"].to_string().contains(&key)
            && reason["remedy"].to_string().contains("resync"),
        "{document:#}"
    );
    let drift = |document: &Value| {
        let mut drift = document["drift"].as_array().into_iter().flatten();
        drift.find(|drift| drift["key"] == key).cloned()
    };
    let expected = json!({ "key": key, "file": ["tenant", "id"], "running": null });
    ensure!(drift(&document) == Some(expected), "{document:#}");
    assert_stays(stage, pipe, &PipeState::Completed).await?;

    // As it was there is nothing to say.
    pipe.stop().await?;
    pipe.change_file(&before);
    pipe.restart()?;
    let document = pipe.wait_state("Completed", START).await?;
    ensure!(
        document["reasons"] == json!([]) && drift(&document).is_none(),
        "{document:#}"
    );

    // Whoever waits for the end does not take it for what the file says.
    pipe.stop().await?;
    pipe.change_file(&file);
    std::fs::write(pipe.path(), file.to_string())?;
    let (code, said) = run_once(pipe).await?;
    ensure!(code == 1 && said.contains(&key), "{code}: {said}");

    pipe.restart()?;
    pipe.wait_state("Completed", START).await?;
    let all = (state("resync"), resync());
    assert_moves(stage, pipe, &PipeState::Completed, all).await?;
    let document = pipe.wait_state("Completed", CATCH_UP).await?;
    ensure!(
        document["reasons"] == json!([]) && drift(&document).is_none(),
        "{document:#}"
    );
    let sql = format!(
        "SELECT sorting_key FROM system.tables WHERE database = '{database}' AND name = 't'"
    );
    let sorted = stage.clickhouse.query(&sql).await?;
    ensure!(sorted.trim() == "tenant, id", "{sorted}");
    Ok(())
}

/// One table has nothing to come back to where nothing streams.
async fn assert_needs_the_whole_pipe(stage: &Stage, pipe: &Pipe, at: &str) -> Result<()> {
    let one = json!({ "command": "resync", "table": name_of(stage, "t") });
    let (status, answer) = pipe.order(one).await?;
    ensure!(
        status == 409 && answer["detail"].to_string().contains(at),
        "{status}: {answer:#}"
    );
    Ok(())
}
