//! The life of a pipe as its user sees it: states, commands, exit codes, and what a restart repeats.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use testbed::harness::{Pipe, Stage};
use testbed::{SourceKind, SourceOptions, SourceServer};

use crate::support::{
    CATCH_UP, START, Seed, Workload, assert_caught_up, launch, on_both_sources, once, running,
    start, table_of_many_rows,
};

on_both_sources! {
    a_drained_pipe_ends_with_0_and_goes_on_where_it_stopped: 300,
    a_paused_pipe_reads_nothing_and_catches_up_after_resume: 300,
    mode_snapshot_ends_completed: 300,
    finished_partitions_are_not_read_again: 400,
    an_idle_pipe_moves_its_checkpoint_with_foreign_traffic: 300,
    a_second_signal_ends_at_once_and_loses_nothing: 300,
    a_command_that_has_no_place_is_refused: 240,
    a_paused_pipe_stays_paused_over_a_restart: 300,
    a_pause_during_the_load_stops_at_a_partitions_end: 300,
}

once! {
    the_command_line_commands_a_running_process: 300,
    the_listener_serves_documents_health_and_metrics: 240,
    a_second_process_on_the_same_state_is_refused: 240,
}

async fn table_with(stage: &Stage, doublings: u32) -> Result<()> {
    let row = ("payload_of_a_row VARCHAR(300)", "REPEAT('x', 100)");
    table_of_many_rows(stage, "t", row, doublings).await
}

/// A load that takes a while: many partitions, one at a time.
fn slowly(stage: &Stage) -> serde_json::Value {
    let mut file = stage.pipe_file(&["t"]);
    file["snapshot"] =
        json!({ "rows_per_partition": 100, "threads_per_table": 1, "tables_in_parallel": 1 });
    file["destination"]["durability"] = json!("fsync");
    file
}

async fn partitions_done(pipe: &Pipe) -> Result<(u64, u64)> {
    let snapshot = pipe.status().await?["tables"][0]["snapshot"].clone();
    Ok((
        snapshot["partitions_done"].as_u64().unwrap_or(0),
        snapshot["partitions_total"].as_u64().unwrap_or(0),
    ))
}

async fn wait_for_partitions(pipe: &mut Pipe, count: u64) -> Result<()> {
    pipe.wait_for("finished partitions", CATCH_UP, |status| {
        status["tables"][0]["snapshot"]["partitions_done"].as_u64() >= Some(count)
    })
    .await
    .map(drop)
}

async fn a_drained_pipe_ends_with_0_and_goes_on_where_it_stopped(kind: SourceKind) -> Result<()> {
    let seed = Seed::new("a_drained_pipe_ends_with_0_and_goes_on_where_it_stopped");
    let stage = Stage::shared(kind).await?;
    let workload = Workload { row_count: 1_000 };
    workload.create(&stage).await?;
    let writer = workload.write(&stage.source, seed.generator(1));
    let mut pipe = running(&stage, &Workload::TABLES).await?;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        ensure!(
            pipe.stop().await? == 0,
            "a drained pipe ends with another code than 0"
        );
        pipe.restart()?;
        pipe.wait_state("Running", START).await?;
    }
    writer.stop().await?;
    assert_caught_up(&stage, &mut pipe, &Workload::TABLES).await
}

async fn a_paused_pipe_reads_nothing_and_catches_up_after_resume(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    table_with(&stage, 3).await?;
    let mut pipe = running(&stage, &["t"]).await?;
    let (status, document) = pipe.command("pause").await?;
    ensure!(
        status == 200
            && document["state"]
                .as_str()
                .is_some_and(|state| state.starts_with("Paus")),
        "{status}: {document:#}"
    );
    pipe.wait_state("Paused", CATCH_UP).await?;
    stage
        .source
        .execute("INSERT INTO t (payload_of_a_row) VALUES ('while paused')")
        .await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let seen = format!(
        "SELECT count() FROM `{}`.t_current WHERE payload_of_a_row = 'while paused'",
        stage.database
    );
    ensure!(
        stage.clickhouse.number(&seen).await? == 0,
        "a paused pipe replicates"
    );
    let sql = format!(
        "SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'pipewright' AND db = '{}'",
        stage.database
    );
    ensure!(
        stage.source.number(sql).await? == 0,
        "a paused pipe holds connections to the source"
    );
    // For the present state a command has no effect.
    ensure!(pipe.command("pause").await?.0 == 200);
    ensure!(pipe.command("resume").await?.0 == 200);
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await
}

async fn mode_snapshot_ends_completed(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    table_with(&stage, 10).await?;
    let mut file = stage.pipe_file(&["t"]);
    file["mode"] = json!("snapshot");
    let mut pipe = start(launch(&file))?;
    let status = pipe.wait_state("Completed", START).await?;
    ensure!(
        status["tables"][0]["snapshot"]["rows"] == 1024,
        "{status:#}"
    );
    // Without --once the process stays, to be asked.
    tokio::time::sleep(Duration::from_millis(500)).await;
    ensure!(pipe.exited()?.is_none(), "the process has gone");
    stage.assert_same("t").await?;
    ensure!(pipe.stop().await? == 0);
    let mut once = start(launch(&file_named(&stage, "again")).argument("--once"))?;
    ensure!(once.wait_exit(START).await? == 0);
    let count = format!("SELECT count() FROM `{}_again`.t_current", stage.database);
    ensure!(stage.clickhouse.number(&count).await? == 1024);
    Ok(())
}

/// Another snapshot pipe over the same table, into a database of its own.
fn file_named(stage: &Stage, suffix: &str) -> serde_json::Value {
    let mut file = stage.pipe_file(&["t"]);
    file["mode"] = json!("snapshot");
    file["pipe"] = json!(format!("{}_{suffix}", stage.database));
    file["destination"]["database"] = json!(format!("{}_{suffix}", stage.database));
    file
}

/// The source's own log of statements is the witness: no SELECT of rows is seen twice, but for those in flight at a kill.
async fn finished_partitions_are_not_read_again(kind: SourceKind) -> Result<()> {
    let stage = Stage::with_source(move || {
        let options = SourceOptions::new(kind)
            .arg("--general-log=ON")
            .arg("--log-output=TABLE");
        SourceServer::start(options)
    })
    .await?;
    table_with(&stage, 20).await?;
    let mut pipe = start(launch(&slowly(&stage)))?;
    let mut killed = 0;
    let mut unfinished = 0;
    for least in [5, 15, 30] {
        wait_for_partitions(&mut pipe, least).await?;
        if pipe.status().await?["state"] == "Snapshot" {
            killed += 1;
        }
        let (before, _) = partitions_done(&pipe).await?;
        pipe.kill9()?;
        let selects = partition_selects(&stage).await?.len() as u64;
        pipe.restart()?;
        pipe.wait_for("the document", START, |status| {
            status["tables"][0]["snapshot"]["partitions_total"].as_u64() > Some(0)
        })
        .await?;
        let (after, _) = partitions_done(&pipe).await?;
        ensure!(
            after >= before,
            "{before} partitions were finished before the kill, {after} are after it"
        );
        // Read, but not all durable when the kill came: these may be read once more.
        unfinished = selects.saturating_sub(after);
    }
    ensure!(killed > 0, "the load was over before the first kill");
    pipe.wait_state("Running", START).await?;
    ensure!(stage.assert_same("t").await? == 1 << 20);
    let (_, total) = partitions_done(&pipe).await?;
    let dives: Vec<Vec<u8>> = stage
        .source
        .rows("SELECT argument FROM mysql.general_log WHERE argument LIKE 'EXPLAIN%'")
        .await?;
    ensure!(
        dives.len() as u64 * 3 < total,
        "{total} partitions were planned with {} looks at the index, one after the other",
        dives.len()
    );
    let statements = partition_selects(&stage).await?;
    let mut read = BTreeMap::<Vec<u8>, u32>::new();
    for statement in statements {
        *read.entry(statement).or_default() += 1;
    }
    ensure!(
        read.len() as u64 >= total.saturating_sub(1),
        "the log shows {} SELECTs for {total} partitions",
        read.len()
    );
    let again: u64 = read.values().map(|&times| u64::from(times) - 1).sum();
    ensure!(
        again <= unfinished,
        "{again} of {total} partitions were read again, though only {unfinished} reads had not finished at the kills"
    );
    Ok(())
}

/// The SELECTs that have read partitions of `t` so far, by the server's own log.
async fn partition_selects(stage: &Stage) -> Result<Vec<Vec<u8>>> {
    stage
        .source
        .rows(
            "SELECT argument FROM mysql.general_log WHERE command_type IN ('Query', 'Execute') \
             AND argument LIKE 'SELECT%payload_of_a_row%FROM%WHERE%' AND argument NOT LIKE '%CONVERT(%'",
        )
        .await
}

/// pitfall 70: else the source would purge what an idle pipe stands at.
async fn an_idle_pipe_moves_its_checkpoint_with_foreign_traffic(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    table_with(&stage, 1).await?;
    stage
        .source
        .execute("CREATE TABLE foreign_table (id INT AUTO_INCREMENT PRIMARY KEY)")
        .await?;
    let mut pipe = running(&stage, &["t"]).await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let before = pipe.status().await?["checkpoint"]["position"].clone();
    for _ in 0..20 {
        stage
            .source
            .execute("INSERT INTO foreign_table VALUES ()")
            .await?;
    }
    pipe.wait_for("a later checkpoint", Duration::from_secs(60), |status| {
        !status["checkpoint"]["position"].is_null() && status["checkpoint"]["position"] != before
    })
    .await?;
    let status = pipe
        .wait_for("no lag", Duration::from_secs(60), |status| {
            status["lag_seconds"].as_f64() < Some(2.0)
        })
        .await?;
    ensure!(status["state"] == "Running");
    Ok(())
}

async fn a_pause_during_the_load_stops_at_a_partitions_end(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    table_with(&stage, 18).await?;
    let mut pipe = start(launch(&slowly(&stage)))?;
    wait_for_partitions(&mut pipe, 3).await?;
    pipe.command("pause").await?;
    pipe.wait_state("Paused", CATCH_UP).await?;
    let (done, total) = partitions_done(&pipe).await?;
    ensure!(done < total, "the load was over before the pause");
    tokio::time::sleep(Duration::from_secs(1)).await;
    ensure!(
        partitions_done(&pipe).await?.0 == done,
        "a paused load goes on"
    );
    stage
        .source
        .execute_all([
            "DELETE FROM t WHERE id < 100",
            "UPDATE t SET payload_of_a_row = 'y' WHERE id > 16000",
        ])
        .await?;
    pipe.command("resume").await?;
    pipe.wait_state("Running", START).await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await
}

async fn a_paused_pipe_stays_paused_over_a_restart(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    table_with(&stage, 3).await?;
    let mut pipe = running(&stage, &["t"]).await?;
    pipe.command("pause").await?;
    pipe.wait_state("Paused", CATCH_UP).await?;
    pipe.kill9()?;
    stage
        .source
        .execute("INSERT INTO t (payload_of_a_row) VALUES ('while stopped')")
        .await?;
    pipe.restart()?;
    pipe.wait_state("Paused", START).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    ensure!(pipe.status().await?["state"] == "Paused");
    pipe.command("resume").await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await
}

async fn the_command_line_commands_a_running_process() -> Result<()> {
    let stage = Stage::shared(SourceKind::MySql).await?;
    table_with(&stage, 3).await?;
    let mut pipe = running(&stage, &["t"]).await?;
    let url = pipe.url();
    let status = pipe.cli(&["status", "--server", &url]).await?;
    ensure!(
        status.code == 0
            && status.stdout.contains("Running")
            && status.stdout.contains(&stage.database),
        "{status:?}"
    );
    let status = pipe
        .cli(&["status", &stage.database, "--server", &url, "--json"])
        .await?;
    let document: serde_json::Value =
        serde_json::from_str(&status.stdout).context("status --json prints no JSON")?;
    ensure!(document["state"] == "Running", "{document:#}");
    let paused = pipe
        .cli(&["pause", &stage.database, "--server", &url])
        .await?;
    ensure!(paused.code == 0, "{paused:?}");
    pipe.wait_state("Paused", CATCH_UP).await?;
    // The only pipe of a process needs no name.
    let resumed = pipe.cli(&["resume", "--server", &url]).await?;
    ensure!(resumed.code == 0, "{resumed:?}");
    pipe.wait_state("Running", CATCH_UP).await?;
    let unknown = pipe
        .cli(&["pause", "no_such_pipe", "--server", &url])
        .await?;
    ensure!(
        unknown.code != 0 && unknown.stderr.contains("no_such_pipe"),
        "{unknown:?}"
    );
    drop(pipe);
    Ok(())
}

async fn the_listener_serves_documents_health_and_metrics() -> Result<()> {
    let stage = Stage::shared(SourceKind::MariaDb).await?;
    table_with(&stage, 3).await?;
    let mut pipe = running(&stage, &["t"]).await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let list = pipe.get("/v1/pipes").await?;
    ensure!(list.to_string().contains(&stage.database), "{list:#}");
    let status = pipe.status().await?;
    for key in [
        "pipe",
        "state",
        "reasons",
        "mode",
        "tables",
        "checkpoint",
        "lag_seconds",
    ] {
        ensure!(
            status.get(key).is_some(),
            "the document has no `{key}`: {status:#}"
        );
    }
    let table = &status["tables"][0];
    ensure!(
        table["source"] == format!("{}.t", stage.database)
            && table["target"] == "t"
            && table["state"] == "Streaming",
        "{table:#}"
    );
    ensure!(
        table["snapshot"]["rows"] == 8 && table["rows"]["inserted"].is_u64(),
        "{table:#}"
    );
    ensure!(
        !status["checkpoint"]["position"].is_null()
            && !status["checkpoint"]["committed_at"].is_null(),
        "{status:#}"
    );
    for path in ["/livez", "/readyz"] {
        pipe.get_text(path).await?;
    }
    let metrics = pipe.get_text("/metrics").await?;
    ensure!(
        metrics.contains("pipewright_") && metrics.contains(&stage.database),
        "{metrics}"
    );
    ensure!(pipe.get("/v1/pipes/no_such_pipe").await.is_err());
    Ok(())
}

async fn a_second_process_on_the_same_state_is_refused() -> Result<()> {
    let stage = Stage::shared(SourceKind::MySql).await?;
    table_with(&stage, 3).await?;
    let mut pipe = running(&stage, &["t"]).await?;
    let (path, state) = (
        pipe.path().display().to_string(),
        pipe.state_dir().display().to_string(),
    );
    let second = pipe
        .cli(&["run", &path, "--state", &state, "--listen", "127.0.0.1:0"])
        .await?;
    ensure!(second.code == 1, "{second:?}");
    ensure!(second.stderr.contains("state"), "{second:?}");
    // The first is none the worse for it.
    assert_caught_up(&stage, &mut pipe, &["t"]).await
}

async fn a_command_that_has_no_place_is_refused(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    table_with(&stage, 3).await?;
    let mut file = stage.pipe_file(&["t"]);
    file["mode"] = json!("snapshot");
    let mut pipe = start(launch(&file))?;
    pipe.wait_state("Completed", START).await?;
    let (status, answer) = pipe.command("pause").await?;
    ensure!(
        status == 409 && answer.to_string().contains("Completed"),
        "{status}: {answer:#}"
    );
    let (status, answer) = pipe.command("dance").await?;
    ensure!(status == 422, "{status}: {answer:#}");
    Ok(())
}

async fn a_second_signal_ends_at_once_and_loses_nothing(kind: SourceKind) -> Result<()> {
    let seed = Seed::new("a_second_signal_ends_at_once_and_loses_nothing");
    let stage = Stage::shared(kind).await?;
    let workload = Workload { row_count: 1_000 };
    workload.create(&stage).await?;
    let writer = workload.write(&stage.source, seed.generator(1));
    let mut pipe = running(&stage, &Workload::TABLES).await?;
    pipe.terminate()?;
    // Drained already is as good as ended at once: which of the two it is depends on the moment.
    pipe.terminate().ok();
    let code = pipe.wait_exit(Duration::from_secs(20)).await?;
    ensure!(code == 0 || code == 130, "exit code {code}");
    pipe.restart()?;
    pipe.wait_state("Running", START).await?;
    writer.stop().await?;
    assert_caught_up(&stage, &mut pipe, &Workload::TABLES).await
}
