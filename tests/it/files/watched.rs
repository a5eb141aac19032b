//! Folders of pipe files, watched while their pipes run.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use mysql_async::prelude::Queryable;
use reqwest::Method;
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{Pipe, Proxy, Stage};

use super::{drift, has_reason, table, with_tables, write};
use crate::support::{CATCH_UP, SlowInserts, allow_locks, launch, start, wait_for_pipe};

/// A pipe that a person paused stays so, whatever becomes of its file.
async fn paused_by_hand(pipe: &Pipe, stage: &Stage, path: &Path) -> Result<()> {
    let name = &stage.database;
    let state = format!("/v1/pipes/{name}/state");
    let order = |command: &str| json!({ "command": command }).to_string();
    let (status, answer) = pipe.call(Method::PATCH, &state, order("pause")).await?;
    ensure!(status == 200, "{status}: {answer}");
    let paused = |document: &Value| document["state"] == "Paused";
    wait_for_pipe(pipe, name, "Paused by hand", paused).await?;
    let file = std::fs::read(path)?;
    std::fs::remove_file(path)?;
    wait_for_pipe(pipe, name, "the file's absence", |document| {
        has_reason(document, "file is gone") && !has_reason(document, "to resume the pipe")
    })
    .await?;
    std::fs::write(path, file)?;
    wait_for_pipe(pipe, name, "the file's return", |document| {
        document["reasons"] == json!([])
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let document = pipe.get(&format!("/v1/pipes/{name}")).await?;
    ensure!(paused(&document), "{document:#}");
    let (status, answer) = pipe.call(Method::PATCH, &state, order("resume")).await?;
    ensure!(status == 200, "{status}: {answer}");
    Ok(())
}

/// A file that comes back while the pipe finishes what is in flight.
async fn back_before_the_pause_is_over(pipe: &Pipe, stage: &Stage, path: &Path) -> Result<()> {
    let name = &stage.database;
    let slow = SlowInserts::begin(stage, "b").await?;
    stage.source.execute("UPDATE b SET n = n + 1").await?;
    slow.wait_insert().await?;
    let file = std::fs::read(path)?;
    std::fs::remove_file(path)?;
    wait_for_pipe(pipe, name, "Pausing", |document| {
        document["state"] == "Pausing" && has_reason(document, "to resume the pipe")
    })
    .await?;
    std::fs::write(path, file)?;
    slow.end().await?;
    wait_for_pipe(pipe, name, "Running after Pausing", |document| {
        document["state"] == "Running" && document["reasons"] == json!([])
    })
    .await
    .map(drop)
}

/// A file that comes back while a command prepares a change of the pipe that is paused for its absence.
async fn back_while_tables_are_added(pipe: &Pipe, stage: &Stage, path: &Path) -> Result<()> {
    let name = &stage.database;
    let file = std::fs::read(path)?;
    std::fs::remove_file(path)?;
    wait_for_pipe(pipe, name, "Paused", |document| {
        document["state"] == "Paused" && has_reason(document, "to resume the pipe")
    })
    .await?;
    let mut held = stage.source.connect().await?;
    held.query_drop("LOCK TABLES c WRITE").await?;
    let entry = json!({ "tables": { "add": [{ "source": format!("{name}.c") }] } }).to_string();
    let at = format!("/v1/pipes/{name}");
    let back = async {
        let modifying = |document: &Value| document["state"] == "Modifying";
        wait_for_pipe(pipe, name, "Modifying", modifying).await?;
        std::fs::write(path, file)?;
        let seen = |document: &Value| !has_reason(document, "file is gone");
        wait_for_pipe(pipe, name, "the file's return", seen).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        anyhow::Ok(held.query_drop("UNLOCK TABLES").await?)
    };
    // The command goes on to the pipe that comes in the place of the paused one.
    let (added, back) = tokio::join!(pipe.call(Method::PATCH, &at, entry), back);
    back?;
    let (status, answer) = added?;
    ensure!(status == 200, "{status}: {answer:#}");
    let running = |document: &Value| document["state"] == "Running";
    wait_for_pipe(pipe, name, "Running after Modifying", running).await?;
    Ok(())
}

/// Each new table for itself: those that cannot be taken in are named, and keep no other out. One whose entry is written
/// otherwise is tried as it is then, and one whose obstacle goes at the source joins by itself.
async fn refused_tables_are_tried_anew(pipe: &mut Pipe, stage: &Stage, path: &Path) -> Result<()> {
    let name = &stage.database;
    stage
        .source
        .execute_all([
            "CREATE TABLE keyless (n INT)",
            "INSERT INTO keyless VALUES (1), (1)",
            "CREATE TABLE unkeyed (n INT)",
            "INSERT INTO unkeyed VALUES (1)",
        ])
        .await?;
    let mut file = stage.pipe_file(&["a", "absent", "keyless", "unkeyed", "b"]);
    write(path, &file)?;
    let outside = |document: &Value| {
        let reasons = document["reasons"].as_array().into_iter().flatten();
        let mut tables: Vec<String> = reasons
            .filter(|reason| reason["remedy"].to_string().contains("out of `tables`"))
            .map(|reason| reason["table"].to_string().replace('"', ""))
            .collect();
        tables.sort();
        tables
    };
    let all = |tables: &[&str]| -> Vec<String> {
        tables
            .iter()
            .map(|table| format!("{name}.{table}"))
            .collect()
    };
    let refused = all(&["absent", "keyless", "unkeyed"]);
    wait_for_pipe(pipe, name, "the new table", |document| {
        document["state"] == "Degraded"
            && table(stage, document, "b")["state"] == "Streaming"
            && outside(document) == refused
            && document["reasons"].as_array().map(Vec::len) == Some(3)
    })
    .await?;
    // What was refused is fixed by nothing that was made of it.
    allow_locks(stage).await?;
    file["tables"][2]["keyless"] = json!("append");
    write(path, &file)?;
    let refused = all(&["absent", "unkeyed"]);
    wait_for_pipe(pipe, name, "the edited entry's table", |document| {
        table(stage, document, "keyless")["state"] == "Streaming" && outside(document) == refused
    })
    .await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE absent (id INT PRIMARY KEY)",
            "INSERT INTO absent VALUES (1)",
            "ALTER TABLE unkeyed ADD PRIMARY KEY (n)",
            "INSERT INTO keyless VALUES (2)",
        ])
        .await?;
    wait_for_pipe(pipe, name, "every table of the file", |document| {
        document["state"] == "Running"
            && document["reasons"] == json!([])
            && document["drift"] == json!([])
            && ["absent", "keyless", "unkeyed"]
                .iter()
                .all(|joined| table(stage, document, joined)["state"] == "Streaming")
    })
    .await?;
    stage.wait_caught_up(pipe, CATCH_UP).await?;
    let sql = format!(
        "SELECT concat(toString(count()), ' ', toString(sum(n))) FROM `{name}`.keyless_current"
    );
    let shown = stage.clickhouse.query(&sql).await?;
    ensure!(shown.trim() == "3 4", "the keyless table shows {shown}");
    stage.assert_same("absent").await?;
    stage.assert_same("unkeyed").await.map(drop)
}

pub(super) async fn a_watched_folder_starts_changes_and_pauses_pipes() -> Result<()> {
    let (stage, other) = (
        with_tables(SourceKind::MariaDb).await?,
        with_tables(SourceKind::MySql).await?,
    );
    let folder = tempfile::tempdir()?;
    let (path, later) = (
        folder.path().join("one.yaml"),
        folder.path().join("two.yml"),
    );
    write(&path, &stage.pipe_file(&["a"]))?;
    let base = with_tables(SourceKind::MariaDb).await?;
    let launched = launch(&base.pipe_file(&["a"]))
        .argument(folder.path().display().to_string())
        // The second pipe waits for its source for longer, and ends no other.
        .argument("--wait=1s");
    let mut pipe = start(launched)?;
    let name = &stage.database;
    let running = |document: &Value| document["state"] == "Running";
    wait_for_pipe(&pipe, name, "Running", running).await?;

    refused_tables_are_tried_anew(&mut pipe, &stage, &path).await?;

    // Neither broken YAML nor a change that would need a resync touches what runs.
    std::fs::write(&path, "version: 1\npipe: [")?;
    wait_for_pipe(&pipe, name, "the refusal", |document| {
        running(document) && has_reason(document, "broken YAML")
    })
    .await?;
    let mut file = stage.pipe_file(&["a", "b"]);
    file["nullable"] = json!(false);
    write(&path, &file)?;
    wait_for_pipe(&pipe, name, "the other refusal", |document| {
        running(document)
            && has_reason(document, "nullable")
            && !has_reason(document, "broken YAML")
    })
    .await?;
    write(&path, &stage.pipe_file(&["a", "b"]))?;
    wait_for_pipe(&pipe, name, "nothing to refuse", |document| {
        running(document) && document["reasons"] == json!([])
    })
    .await?;

    std::fs::remove_file(&path)?;
    wait_for_pipe(&pipe, name, "Paused", |document| {
        document["state"] == "Paused" && has_reason(document, "file is gone")
    })
    .await?;
    stage.source.execute("UPDATE b SET n = n + 1").await?;
    write(&path, &stage.pipe_file(&["a", "b"]))?;
    wait_for_pipe(&pipe, name, "Running again", running).await?;
    back_before_the_pause_is_over(&pipe, &stage, &path).await?;
    back_while_tables_are_added(&pipe, &stage, &path).await?;
    paused_by_hand(&pipe, &stage, &path).await?;
    wait_for_pipe(&pipe, name, "Running once more", running).await?;

    // A state that takes no pause takes it as soon as it is over.
    let gate = Proxy::before(other.source_server.port()).await?;
    gate.set_shut(true);
    let mut file = other.pipe_file(&["c"]);
    file["source"]["port"] = json!(gate.port());
    write(&later, &file)?;
    wait_for_pipe(&pipe, &other.database, "Provisioning", |document| {
        document["state"] == "Provisioning"
    })
    .await?;
    std::fs::remove_file(&later)?;
    wait_for_pipe(&pipe, &other.database, "the pause to come", |document| {
        document["state"] == "Provisioning" && has_reason(document, "as soon as its state allows")
    })
    .await?;
    gate.set_shut(false);
    wait_for_pipe(&pipe, &other.database, "Paused", |document| {
        document["state"] == "Paused" && has_reason(document, "to resume the pipe")
    })
    .await?;
    write(&later, &file)?;
    wait_for_pipe(&pipe, &other.database, "the new pipe", running).await?;
    for (stage, table) in [(&stage, "b"), (&other, "c"), (&base, "a")] {
        stage
            .source
            .execute(format!("DELETE FROM {table} WHERE id = 1"))
            .await?;
        stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
        stage.assert_same(table).await?;
    }
    a_completed_pipe_takes_its_changed_file_up_by_a_resync(&base, &pipe, folder.path()).await
}

/// An editor writes beside the file and renames over it. Kubernetes keeps files in a folder of their own, to which a link
/// leads through another link, and puts a new link in its place when they have changed.
pub(super) async fn a_folder_whose_files_are_put_in_place_of_others_is_taken_up() -> Result<()> {
    let stage = with_tables(SourceKind::MySql).await?;
    let base = with_tables(SourceKind::MariaDb).await?;
    let folder = tempfile::tempdir()?;
    let mounted = folder.path().join("mounted");
    std::fs::create_dir(&mounted)?;
    let version = |number: u32, tables: &[&str]| -> Result<()> {
        let name = format!("..2026_{number}");
        std::fs::create_dir(mounted.join(&name))?;
        let path = mounted.join(&name).join("one.yaml");
        write(&path, &stage.pipe_file(tables))?;
        std::os::unix::fs::symlink(&name, mounted.join("..data_tmp"))?;
        std::fs::rename(mounted.join("..data_tmp"), mounted.join("..data"))?;
        let former = mounted.join(format!("..2026_{}", number - 1));
        std::fs::remove_dir_all(former).ok();
        Ok(())
    };
    version(1, &["a"])?;
    std::os::unix::fs::symlink("..data/one.yaml", mounted.join("one.yaml"))?;
    let launched = launch(&base.pipe_file(&["a"])).argument(mounted.display().to_string());
    let mut pipe = start(launched)?;
    let name = &stage.database;
    let running = |document: &Value| document["state"] == "Running";
    wait_for_pipe(&pipe, name, "Running", running).await?;
    // Through the links first, then by a file in the place of the link.
    version(2, &["a", "b"])?;
    let streams = |document: &Value, joined: &str| {
        running(document) && table(&stage, document, joined)["state"] == "Streaming"
    };
    let joined = |document: &Value| streams(document, "b");
    wait_for_pipe(&pipe, name, "the new version's table", joined).await?;
    version(3, &["b", "c"])?;
    wait_for_pipe(&pipe, name, "another version's tables", |document| {
        streams(document, "c") && table(&stage, document, "a")["state"] == "Removed"
    })
    .await?;
    let beside = folder.path().join("one.yaml.new");
    write(&beside, &stage.pipe_file(&["b", "d"]))?;
    std::fs::rename(&beside, mounted.join("one.yaml"))?;
    let document = wait_for_pipe(&pipe, name, "the renamed file's tables", |document| {
        streams(document, "d") && table(&stage, document, "c")["state"] == "Removed"
    })
    .await?;
    ensure!(document["reasons"] == json!([]), "{document:#}");
    let updates = ["b", "d"].map(|table| format!("UPDATE {table} SET n = n + 1"));
    stage.source.execute_all(updates).await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    for table in ["b", "d"] {
        stage.assert_same(table).await?;
    }
    Ok(())
}

async fn a_completed_pipe_takes_its_changed_file_up_by_a_resync(
    stage: &Stage,
    pipe: &Pipe,
    folder: &Path,
) -> Result<()> {
    let name = format!("{}_once", stage.database);
    let mut file = stage.pipe_file(&["d"]);
    file["pipe"] = json!(name);
    file["destination"]["database"] = json!(name);
    file["mode"] = json!("snapshot");
    let path = folder.join("once.yaml");
    write(&path, &file)?;
    let completed = |document: &Value| document["state"] == "Completed";
    wait_for_pipe(pipe, &name, "Completed", completed).await?;
    file["nullable"] = json!(false);
    write(&path, &file)?;
    let refused = wait_for_pipe(pipe, &name, "the refusal", |document| {
        completed(document) && has_reason(document, "nullable")
    })
    .await?;
    ensure!(
        drift(&refused, "nullable")["file"] == json!(false)
            && drift(&refused, "nullable")["running"] == json!(true),
        "{refused:#}"
    );
    // The same file once more takes nothing back.
    write(&path, &file)?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    wait_for_pipe(pipe, &name, "the same refusal", |document| {
        completed(document)
            && has_reason(document, "nullable")
            && document["reasons"].as_array().map(Vec::len) == Some(1)
    })
    .await?;
    let resync = json!({ "command": "resync" }).to_string();
    let at = format!("/v1/pipes/{name}/state");
    let (status, answer) = pipe.call(Method::PATCH, &at, resync).await?;
    ensure!(status == 200, "{status}: {answer:#}");
    let document = wait_for_pipe(pipe, &name, "Completed anew", completed).await?;
    ensure!(
        document["reasons"] == json!([]) && drift(&document, "nullable").is_null(),
        "{document:#}"
    );
    let sql = format!(
        "SELECT type FROM system.columns WHERE database = '{name}' AND table = 'd' AND name = 'n'"
    );
    let shown = stage.clickhouse.query(&sql).await?;
    ensure!(shown.trim() == "Int32", "{shown}");
    Ok(())
}
