//! A watched folder while one of its pipes cannot stop.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{Pipe, Proxy, Stage};

use super::{has_reason, running, table, with_tables, write};
use crate::support::{CATCH_UP, START, launch, once, start, wait_for_pipe};

once! {
    a_pipe_that_cannot_stop_keeps_no_other_file_of_its_folder_waiting: 400,
}

/// How often the pipe writes, by the file that it was last told.
async fn interval(pipe: &Pipe, name: &str) -> Result<Value> {
    let file = pipe.get(&format!("/v1/pipes/{name}/file")).await?;
    Ok(file["sync"]["interval"].clone())
}

/// A ClickHouse that takes an insert and does not answer keeps the pipe from its checkpoint.
async fn hang(gate: &Proxy, stage: &Stage, number: u32) -> Result<()> {
    gate.close_gate("a", 0);
    let update = format!("UPDATE a SET n = {number}");
    stage.source.execute(update).await?;
    gate.wait_gated(CATCH_UP).await
}

async fn a_pipe_that_cannot_stop_keeps_no_other_file_of_its_folder_waiting() -> Result<()> {
    let (slow, other, base) = (
        with_tables(SourceKind::MySql).await?,
        with_tables(SourceKind::MariaDb).await?,
        with_tables(SourceKind::MySql).await?,
    );
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    let gate = Proxy::before(slow.clickhouse_server.http_port()).await?;
    let mut file = slow.pipe_file(&["a"]);
    file["destination"]["url"] = json!(gate.url());
    write(&at("slow.yaml"), &file)?;
    let folder_argument = folder.path().display().to_string();
    let mut pipe = start(launch(&base.pipe_file(&["a"])).argument(folder_argument))?;
    wait_for_pipe(&pipe, &slow.database, "Running", running).await?;

    hang(&gate, &slow, 10).await?;
    file["sync"]["interval"] = json!("300ms");
    write(&at("slow.yaml"), &file)?;
    // By then the change is seen, and the pipe told to stop. ClickHouse ends a request that does not go on after 30 s.
    tokio::time::sleep(Duration::from_secs(2)).await;
    write(&at("other.yaml"), &other.pipe_file(&["a"]))?;
    wait_for_pipe(&pipe, &other.database, "the new pipe", running).await?;
    let told = interval(&pipe, &slow.database).await?;
    ensure!(told == "200ms", "the pipe has stopped: {told}");
    write(&at("other.yaml"), &other.pipe_file(&["a", "b"]))?;
    wait_for_pipe(&pipe, &other.database, "its new table", |document| {
        running(document) && table(&other, document, "b")["state"] == "Streaming"
    })
    .await?;
    std::fs::remove_file(at("other.yaml"))?;
    wait_for_pipe(&pipe, &other.database, "Paused", |document| {
        document["state"] == "Paused" && has_reason(document, "file is gone")
    })
    .await?;
    // The newest version counts, whatever the file has been meanwhile.
    file["sync"]["interval"] = json!("400ms");
    write(&at("slow.yaml"), &file)?;
    gate.open_gate();
    wait_interval(&pipe, &slow.database, "400ms").await?;
    wait_for_pipe(&pipe, &slow.database, "Running by its new file", running).await?;
    write(&at("other.yaml"), &other.pipe_file(&["a", "b"]))?;
    wait_for_pipe(&pipe, &other.database, "Running again", running).await?;

    // The process ends in the midst of the same, and the pipe is one or the other.
    hang(&gate, &slow, 20).await?;
    file["sync"]["interval"] = json!("500ms");
    write(&at("slow.yaml"), &file)?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    pipe.terminate()?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    gate.open_gate();
    let code = pipe.wait_exit(Duration::from_secs(60)).await?;
    ensure!(code == 0, "{code}");
    pipe.restart()?;
    for stage in [&slow, &other, &base] {
        wait_for_pipe(&pipe, &stage.database, "Running anew", running).await?;
        stage.source.execute("DELETE FROM a WHERE id = 1").await?;
        stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
        stage.assert_same("a").await?;
    }
    ensure!(interval(&pipe, &slow.database).await? == "500ms");
    Ok(())
}

async fn wait_interval(pipe: &Pipe, name: &str, wanted: &str) -> Result<()> {
    let until = std::time::Instant::now() + START;
    loop {
        let found = interval(pipe, name).await?;
        if found == wanted {
            return Ok(());
        }
        ensure!(std::time::Instant::now() < until, "{found}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
