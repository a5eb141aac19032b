//! Pipes made by request whose documents do not hold when the process starts again.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{Pipe, Stage};

use super::with_t;
use crate::support::{CATCH_UP, START, launch, once, start, wait_for_pipe};

once! {
    a_pipe_made_by_request_waits_for_its_secrets_and_can_be_dropped_until_they_are_there: 400,
}

/// Where the password of one of the pipes stands.
const VARIABLE: &str = "UNOPENED_PIPE_PASSWORD";

fn running(document: &Value) -> bool {
    document["state"] == "Running"
}

async fn make(pipe: &Pipe, stage: &Stage, password: &str) -> Result<()> {
    let mut file = stage.pipe_file(&["t"]);
    file["source"]["password"] = json!(password);
    let made = pipe.call(Method::POST, "/v1/pipes", file.to_string());
    let (status, answer) = made.await?;
    ensure!(status == 201, "{status}: {answer:#}");
    wait_for_pipe(pipe, &stage.database, "Running", running).await?;
    Ok(())
}

/// It is among the pipes, with what is missing and what mends it, and takes nothing but a drop.
async fn assert_waits_for(pipe: &Pipe, stage: &Stage, missing: &str) -> Result<()> {
    let name = &stage.database;
    let at = format!("/v1/pipes/{name}");
    let document = pipe.get(&at).await?;
    let reason = &document["reasons"][0];
    ensure!(
        document["state"] == "Failed"
            && reason["kind"] == "retrying"
            && reason["message"].to_string().contains(missing)
            && reason["remedy"].is_string()
            && document["checkpoint"].is_object(),
        "{document:#}"
    );
    let tables = document["tables"].as_array().context("tables")?;
    ensure!(tables.len() == 2, "{document:#}");
    let list = pipe.get("/v1/pipes").await?;
    let listed = list["pipes"].as_array().context("pipes")?;
    let own = listed.iter().filter(|one| one["pipe"] == **name);
    ensure!(own.collect::<Vec<_>>() == [&document], "{list:#}");
    let metrics = pipe.get_text("/metrics").await?;
    let failed = format!("pipewright_pipe_state{{pipe=\"{name}\",state=\"Failed\"}} 1");
    ensure!(metrics.contains(&failed), "{metrics}");
    let events = pipe.get(&format!("{at}/events?limit=1000")).await?;
    ensure!(
        events.to_string().contains("Snapshot to Running"),
        "{events:#}"
    );
    let file = pipe.get(&format!("{at}/file")).await?;
    ensure!(file["pipe"] == **name, "{file:#}");

    let pause = json!({ "command": "pause" }).to_string();
    let mut another = stage.pipe_file(&["keyless"]);
    another["tables"][0]["keyless"] = json!("append");
    for (method, path, body) in [
        (Method::PATCH, format!("{at}/state"), pause),
        (Method::POST, "/v1/pipes".to_owned(), another.to_string()),
    ] {
        let (status, problem) = pipe.call(method, &path, body).await?;
        let detail = problem["detail"].to_string();
        ensure!(
            status == 409
                && detail.contains(name)
                && detail.contains(missing)
                && problem["hint"].to_string().contains("DELETE"),
            "{path}: {status}: {problem:#}"
        );
    }
    Ok(())
}

async fn assert_goes_on(pipe: &mut Pipe, stage: &Stage, text: &str) -> Result<()> {
    let update = format!("UPDATE t SET a = '{text}' WHERE id = 2");
    stage.source.execute(update).await?;
    wait_for_pipe(pipe, &stage.database, "Running again", |document| {
        running(document) && document["reasons"] == json!([])
    })
    .await?;
    stage.wait_caught_up(pipe, CATCH_UP).await?;
    stage.assert_same("t").await.map(drop)
}

async fn a_pipe_made_by_request_waits_for_its_secrets_and_can_be_dropped_until_they_are_there()
-> Result<()> {
    let kind = SourceKind::MySql;
    let (base, by_variable, by_file) = (
        with_t(kind).await?,
        with_t(kind).await?,
        with_t(kind).await?,
    );
    let secrets = tempfile::tempdir()?;
    let secret = secrets.path().join("late");
    let place = |path: &Path| std::fs::write(path, "pipewright\n");
    place(&secret)?;
    let launched = launch(&base.pipe_file(&["t"]))
        .argument("--secrets-dir")
        .argument(secrets.path().display().to_string())
        .env(VARIABLE, "pipewright");
    let mut pipe = start(launched)?;
    pipe.wait_state("Running", START).await?;
    make(&pipe, &by_variable, &format!("${{{VARIABLE}}}")).await?;
    make(&pipe, &by_file, "${file:late}").await?;

    ensure!(pipe.stop().await? == 0);
    std::fs::remove_file(&secret)?;
    pipe.change_env(VARIABLE, None);
    pipe.restart()?;
    pipe.wait_state("Running", START).await?;
    assert_waits_for(&pipe, &by_variable, VARIABLE).await?;
    assert_waits_for(&pipe, &by_file, "late").await?;
    let process = pipe.pid();
    place(&secret)?;
    assert_goes_on(&mut pipe, &by_file, "the file is there").await?;
    ensure!(pipe.pid() == process, "it is another process");
    assert_waits_for(&pipe, &by_variable, VARIABLE).await?;
    ensure!(pipe.stop().await? == 0);
    pipe.change_env(VARIABLE, Some("pipewright"));
    pipe.restart()?;
    assert_goes_on(&mut pipe, &by_variable, "the variable is set").await?;

    ensure!(pipe.stop().await? == 0);
    pipe.change_env(VARIABLE, None);
    pipe.restart()?;
    pipe.wait_state("Running", START).await?;
    assert_waits_for(&pipe, &by_variable, VARIABLE).await?;
    let at = format!("/v1/pipes/{}", by_variable.database);
    let (status, answer) = pipe.call(Method::DELETE, &at, "").await?;
    ensure!(
        status == 200
            && answer["reasons"]
                .to_string()
                .contains("the pipe is dropped"),
        "{status}: {answer:#}"
    );
    // Longer than until it would be tried again.
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_gone(&pipe, &at).await?;
    ensure!(pipe.stop().await? == 0);
    pipe.change_env(VARIABLE, Some("pipewright"));
    pipe.restart()?;
    assert_goes_on(&mut pipe, &by_file, "the other one").await?;
    assert_gone(&pipe, &at).await?;
    let sql = format!(
        "SELECT count() FROM `{}`._pipewright_checkpoints WHERE pipe = '{0}' AND kind = 'dropped'",
        by_variable.database
    );
    crate::support::wait_answer(&by_variable, &sql, "1").await
}

async fn assert_gone(pipe: &Pipe, at: &str) -> Result<()> {
    let (status, answer) = pipe.call(Method::GET, at, "").await?;
    ensure!(status == 404, "{status}: {answer:#}");
    Ok(())
}
