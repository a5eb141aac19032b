//! Pipes of a watched folder that are dropped by command while their file is tried again.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{Pipe, Stage};

use super::{has_reason, running, with_tables};
use crate::support::{launch, once, start, wait_for_pipe};

once! {
    a_dropped_pipe_comes_back_with_another_version_of_its_file_alone: 300,
}

/// Longer than a refused file waits until it is tried again.
const TRIED_AGAIN: Duration = Duration::from_secs(10);

fn write(path: &Path, documents: &[&Value]) -> Result<()> {
    let texts: Vec<String> = documents.iter().map(|one| format!("{one:#}")).collect();
    Ok(std::fs::write(path, texts.join("\n---\n"))?)
}

/// Drops the pipe, sees that it stays away, and makes room at the destination for when it comes back.
async fn assert_stays_dropped(pipe: &Pipe, stage: &Stage) -> Result<()> {
    drop_pipe(pipe, stage).await?;
    tokio::time::sleep(TRIED_AGAIN).await;
    let at = format!("/v1/pipes/{}", stage.database);
    let (status, answer) = pipe.call(Method::GET, &at, "").await?;
    ensure!(status == 404, "{status}: {answer:#}");
    make_room(stage).await
}

async fn drop_pipe(pipe: &Pipe, stage: &Stage) -> Result<()> {
    let at = format!("/v1/pipes/{}", stage.database);
    let (status, answer) = pipe.call(Method::DELETE, &at, "").await?;
    ensure!(status == 200, "{status}: {answer:#}");
    Ok(())
}

async fn make_room(stage: &Stage) -> Result<()> {
    let sql = format!("DROP DATABASE `{}` SYNC", stage.database);
    stage.clickhouse.query(&sql).await.map(drop)
}

async fn a_dropped_pipe_comes_back_with_another_version_of_its_file_alone() -> Result<()> {
    let base = with_tables(SourceKind::MySql).await?;
    let (first, second) = (
        with_tables(SourceKind::MariaDb).await?,
        with_tables(SourceKind::MariaDb).await?,
    );
    let (one, two) = (first.pipe_file(&["a"]), second.pipe_file(&["a"]));
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("both.yaml");
    write(&path, &[&one, &two])?;
    let launched = launch(&base.pipe_file(&["a"])).argument(folder.path().display().to_string());
    let mut pipe = start(launched)?;
    for stage in [&first, &second] {
        wait_for_pipe(&pipe, &stage.database, "Running", running).await?;
    }

    // What is refused is tried again, with the whole file.
    let mut misfit = two.clone();
    misfit["nullable"] = json!(false);
    write(&path, &[&one, &misfit])?;
    let refused = |document: &Value| has_reason(document, "nullable");
    wait_for_pipe(&pipe, &second.database, "the refusal", refused).await?;
    assert_stays_dropped(&pipe, &first).await?;
    wait_for_pipe(&pipe, &second.database, "the other pipe", refused).await?;
    assert_stays_dropped(&pipe, &second).await?;

    // Another version of the file is another word, and so is a start of the process.
    let mut changed = one.clone();
    changed["sync"]["interval"] = json!("300ms");
    write(&path, &[&changed, &two])?;
    for stage in [&first, &second] {
        wait_for_pipe(&pipe, &stage.database, "Running again", running).await?;
    }
    drop_pipe(&pipe, &first).await?;
    make_room(&first).await?;
    ensure!(pipe.stop().await? == 0);
    pipe.restart()?;
    for stage in [&base, &first, &second] {
        wait_for_pipe(&pipe, &stage.database, "Running anew", running).await?;
    }
    Ok(())
}
