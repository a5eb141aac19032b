//! Files of a watched folder that do not fit: what commands have set, or a pipe that another file names.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{Pipe, Stage};

use super::{has_reason, running, table, with_tables, write};
use crate::support::{CATCH_UP, launch, plugins, start, wait_for_pipe};

/// A process that runs `stage`'s pipe by `one.yaml` of a watched folder, and another pipe beside it.
async fn watched(folder: &Path, stage: &Stage, file: &Value, base: &Stage) -> Result<Pipe> {
    write(&folder.join("one.yaml"), file)?;
    let launched = launch(&base.pipe_file(&["a"])).argument(folder.display().to_string());
    let pipe = start(launched)?;
    wait_for_pipe(&pipe, &stage.database, "Running", running).await?;
    Ok(pipe)
}

pub(super) async fn a_file_that_does_not_fit_what_commands_have_set_is_refused_and_ends_no_other_pipe()
-> Result<()> {
    let (stage, base) = (
        with_tables(SourceKind::MariaDb).await?,
        with_tables(SourceKind::MySql).await?,
    );
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("one.yaml");
    let mut file = stage.pipe_file(&["a"]);
    let filter = plugins().await?.path("filter");
    file["transforms"] = json!({ "few": { "plugin": filter, "config": { "where": "n < 100" } } });
    let mut pipe = watched(folder.path(), &stage, &file, &base).await?;
    let name = &stage.database;
    let at = format!("/v1/pipes/{name}");
    let entry = json!({ "source": format!("{name}.b"), "transforms": ["few"] });
    let add = json!({ "tables": { "add": [entry] } }).to_string();
    let (status, answer) = pipe.call(Method::PATCH, &at, add).await?;
    ensure!(status == 200, "{status}: {answer:#}");
    wait_for_pipe(&pipe, name, "b", |document| {
        running(document) && table(&stage, document, "b")["state"] == "Streaming"
    })
    .await?;

    let without = stage.pipe_file(&["a"]);
    write(&path, &without)?;
    wait_for_pipe(&pipe, name, "the refusal", |document| {
        running(document)
            && has_reason(document, "does not fit the file")
            && has_reason(document, "few")
    })
    .await?;
    stage.source.execute("UPDATE b SET n = n + 1").await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    stage.assert_same("b").await?;

    // At a restart too, it is that pipe's trouble alone.
    ensure!(pipe.stop().await? == 0);
    pipe.restart()?;
    wait_for_pipe(&pipe, &base.database, "the other pipe", running).await?;
    wait_for_pipe(&pipe, name, "Failed", |document| {
        document["state"] == "Failed" && has_reason(document, "does not fit the file")
    })
    .await?;
    write(&path, &file)?;
    wait_for_pipe(&pipe, name, "the file's return", |document| {
        !has_reason(document, "does not fit the file") || running(document)
    })
    .await?;
    let order = json!({ "command": "start" }).to_string();
    let (status, answer) = pipe
        .call(Method::PATCH, &format!("{at}/state"), order)
        .await?;
    ensure!(status == 200, "{status}: {answer:#}");
    wait_for_pipe(&pipe, name, "Running again", running).await?;
    stage.source.execute("DELETE FROM b WHERE id = 1").await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    for table in ["a", "b"] {
        stage.assert_same(table).await?;
    }
    Ok(())
}

pub(super) async fn a_second_file_of_a_pipe_is_refused_until_the_first_goes() -> Result<()> {
    let (stage, base) = (
        with_tables(SourceKind::MySql).await?,
        with_tables(SourceKind::MariaDb).await?,
    );
    let folder = tempfile::tempdir()?;
    let (first, second) = (
        folder.path().join("one.yaml"),
        folder.path().join("two.yaml"),
    );
    let mut pipe = watched(folder.path(), &stage, &stage.pipe_file(&["a"]), &base).await?;
    let name = &stage.database;
    write(&second, &stage.pipe_file(&["a", "b"]))?;
    let refused = |document: &Value| {
        running(document) && has_reason(document, "one.yaml") && has_reason(document, "two.yaml")
    };
    wait_for_pipe(&pipe, name, "the refusal", refused).await?;
    // It stays, and neither file takes the pipe from the other.
    tokio::time::sleep(Duration::from_secs(7)).await;
    let document = wait_for_pipe(&pipe, name, "the same refusal", refused).await?;
    ensure!(table(&stage, &document, "b").is_null(), "{document:#}");
    ensure!(
        document["reasons"].as_array().map(Vec::len) == Some(1),
        "{document:#}"
    );

    std::fs::remove_file(&first)?;
    wait_for_pipe(&pipe, name, "the second file's table", |document| {
        running(document)
            && document["reasons"] == json!([])
            && table(&stage, document, "b")["state"] == "Streaming"
    })
    .await?;
    stage.source.execute("DELETE FROM b WHERE id = 1").await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    stage.assert_same("b").await.map(drop)
}
