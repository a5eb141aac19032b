//! What a pipe tells of itself while it works, and what it is held to: lag, and the time until the source purges.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable;
use serde_json::{Value, json};
use testbed::harness::{Pipe, Stage};
use testbed::{SourceKind, SourceOptions, SourceServer};

use crate::connections::{file_of_account, with_t};
use crate::support::{
    CATCH_UP, START, assert_caught_up, launch, on_both_sources, reason_of, running_with, start,
    table_of_many_rows,
};

on_both_sources! {
    the_document_tells_how_far_and_how_fast: 300,
    the_status_is_true_within_a_second_of_a_change: 240,
    lag_beyond_its_objective_degrades_until_it_is_met: 300,
    a_paused_pipe_warns_before_the_purge_and_fails_with_proof_after_it: 400,
    a_session_that_dates_its_commits_fools_no_objective: 300,
    a_table_on_its_way_back_is_watched_while_the_pipe_is_paused: 240,
    a_source_that_lets_nobody_in_while_its_stream_goes_on_is_told_of: 300,
}

/// How long it may take until some looks at the source have failed in a row.
const SOME_LOOKS: Duration = Duration::from_secs(120);

/// Rows of a load that takes some seconds, as a power of two.
const DOUBLINGS: u32 = 21;

/// Over a source of its own that keeps its binlog for an hour.
async fn keeping_an_hour(kind: SourceKind) -> Result<Stage> {
    Stage::with_source(move || {
        let options = SourceOptions::new(kind).arg("--binlog-expire-logs-seconds=3600");
        SourceServer::start(options)
    })
    .await
}

fn has_reason(status: &Value, code: &str) -> bool {
    status["reasons"]
        .as_array()
        .is_some_and(|reasons| reasons.iter().any(|reason| reason["code"] == code))
}

async fn the_document_tells_how_far_and_how_fast(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    let row = ("payload VARCHAR(300)", "REPEAT('x', 100)");
    table_of_many_rows(&stage, "t", row, DOUBLINGS).await?;
    let mut file = stage.pipe_file(&["t"]);
    file["snapshot"] = json!({ "rows_per_partition": 500, "threads_per_table": 1 });
    file["destination"]["durability"] = json!("fsync");
    let mut pipe = start(launch(&file))?;
    let status = pipe
        .wait_for("a load's pace", START, |status| {
            let snapshot = &status["tables"][0]["snapshot"];
            snapshot["seconds_left"].as_f64() > Some(0.0)
        })
        .await?;
    let snapshot = &status["tables"][0]["snapshot"];
    ensure!(
        snapshot["partitions_done"].as_u64() < snapshot["partitions_total"].as_u64()
            && snapshot["rows_per_second"].as_f64() > Some(0.0)
            && snapshot["rows_estimated"].as_u64() > Some(1_000)
            && snapshot["bytes"].as_u64() > Some(1_000),
        "{snapshot:#}"
    );
    ensure!(
        status["batches"][0]["kind"] == "load" && status["batches"][0]["rows"].as_u64() > Some(0),
        "{status:#}"
    );
    let status = pipe.wait_state("Running", START).await?;
    let snapshot = &status["tables"][0]["snapshot"];
    ensure!(
        snapshot["rows"] == 1_u64 << DOUBLINGS
            && snapshot["partitions_done"] == snapshot["partitions_total"],
        "{snapshot:#}"
    );
    stage
        .source
        .execute_all([
            "INSERT INTO t (payload) VALUES ('a'), ('b')",
            "UPDATE t SET payload = 'c' WHERE id = 1",
            "DELETE FROM t WHERE id = 2",
        ])
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let status = pipe
        .wait_for("counters and no lag", CATCH_UP, |status| {
            let rows = &status["tables"][0]["rows"];
            rows["inserted"] == 2
                && rows["updated"] == 1
                && rows["deleted"] == 1
                && status["lag_seconds"] == 0.0
        })
        .await?;
    ensure!(
        status["tables"][0]["rows"]["bytes"].as_u64() > Some(100)
            && status["tables"][0]["snapshot"]["rows_per_second"].is_null(),
        "{status:#}"
    );
    for part in ["read", "waiting", "transform", "insert"] {
        let seconds = status["lag"][format!("{part}_seconds")].as_f64();
        ensure!(
            seconds.is_some_and(|seconds| (0.0..3600.0).contains(&seconds)),
            "{part}: {status:#}"
        );
    }
    ensure!(
        status["lag"]["insert_seconds"].as_f64() > Some(0.0)
            && status["checkpoint"]["source_committed_at"].is_string()
            && status["retention"]["checked_at"].is_string(),
        "{status:#}"
    );
    let batches = status["batches"].as_array().cloned().unwrap_or_default();
    let newest = batches.first().cloned().unwrap_or_default();
    ensure!(
        batches.len() <= 20
            && newest["kind"] == "stream"
            && newest["bytes"].as_u64() > Some(0)
            && newest["seconds"].as_f64() > Some(0.0),
        "{status:#}"
    );
    let metrics = pipe.get_text("/metrics").await?;
    for metric in [
        "lag_part_seconds",
        "bytes_written_total",
        "batch_rows",
        "batch_seconds",
    ] {
        ensure!(
            metrics.contains(&format!("pipewright_{metric}{{pipe=\"{}\"", stage.database)),
            "{metric} is missing in\n{metrics}"
        );
    }
    Ok(())
}

/// How late the status may be with what can be seen elsewhere already.
const TRUE_WITHIN: Duration = Duration::from_secs(1);

/// A machine that is busy may hold up one look or another, but not as many as this.
const LOOKS: u64 = 3;

/// How long it takes from now on until the document is as it has to be.
async fn until_told(
    pipe: &mut Pipe,
    what: &str,
    is_true: impl Fn(&Value) -> bool,
) -> Result<Duration> {
    let since = Instant::now();
    pipe.wait_for(what, CATCH_UP, is_true).await?;
    Ok(since.elapsed())
}

/// Waits until the history tells of something behind an event.
async fn wait_event(pipe: &Pipe, name: &str, after: u64, text: &str) -> Result<()> {
    let until = Instant::now() + CATCH_UP;
    let path = format!("/v1/pipes/{name}/events?after={after}&limit=1000");
    while !pipe.get_text(&path).await?.contains(text) {
        ensure!(Instant::now() < until, "no event `{text}`");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

async fn the_status_is_true_within_a_second_of_a_change(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    let sql = "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, a INT)";
    stage.source.execute(sql).await?;
    let mut pipe = running_with(&stage.pipe_file(&["t"])).await?;
    let name = stage.database.clone();
    let mut least = [Duration::MAX; 4];
    for look in 1..=LOOKS {
        let newest = pipe
            .get(&format!("/v1/pipes/{name}/events?limit=1"))
            .await?;
        let newest = newest["events"][0]["id"].as_u64().unwrap_or_default();
        // Rows, from when a reader sees them.
        stage.source.execute("INSERT INTO t (a) VALUES (0)").await?;
        let shown = format!("SELECT count() FROM `{name}`.t_current");
        let until = Instant::now() + CATCH_UP;
        while stage.clickhouse.number(&shown).await? < look {
            ensure!(Instant::now() < until, "the row does not arrive");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let rows = until_told(&mut pipe, "the row", |document| {
            document["tables"][0]["rows"]["inserted"] == look
        })
        .await?;
        // A command, from its answer.
        ensure!(pipe.command("pause").await?.0 == 200);
        let pausing = until_told(&mut pipe, "Pausing", |document| {
            document["state"] == "Pausing" || document["state"] == "Paused"
        })
        .await?;
        // What it leads to, from when the history has it.
        wait_event(&pipe, &name, newest, "Pausing to Paused").await?;
        let paused = until_told(&mut pipe, "Paused", |document| {
            document["state"] == "Paused"
        })
        .await?;
        ensure!(pipe.command("resume").await?.0 == 200);
        pipe.wait_state("Running", CATCH_UP).await?;
        // A fault, from when the log has it.
        let rename =
            |from: &str, to: &str| format!("RENAME TABLE `{name}`.{from} TO `{name}`.{to}");
        let faults = || pipe.log().text().matches("taken out of service").count();
        let known = faults();
        stage.clickhouse.query(&rename("t", "aside")).await?;
        stage.source.execute("UPDATE t SET a = a + 1").await?;
        let until = Instant::now() + CATCH_UP;
        while faults() == known {
            ensure!(Instant::now() < until, "nothing is taken out of service");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let fault = until_told(&mut pipe, "Degraded", |document| {
            document["state"] == "Degraded"
                && document["tables"][0]["state"] == "Quarantined"
                && document["reasons"]
                    .as_array()
                    .is_some_and(|reasons| reasons.len() == 1)
        })
        .await?;
        stage.clickhouse.query(&rename("aside", "t")).await?;
        let retry = json!({ "command": "retry", "table": format!("{name}.t") });
        ensure!(pipe.order(retry).await?.0 == 200);
        pipe.wait_state("Running", CATCH_UP).await?;
        for (least, found) in least.iter_mut().zip([rows, pausing, paused, fault]) {
            *least = found.min(*least);
        }
    }
    ensure!(
        least.iter().all(|late| *late < TRUE_WITHIN),
        "rows, a command, what it leads to, a fault: told late by {least:?}"
    );
    assert_caught_up(&stage, &mut pipe, &["t"]).await
}

async fn lag_beyond_its_objective_degrades_until_it_is_met(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute("CREATE TABLE t (id INT PRIMARY KEY)")
        .await?;
    let mut file = stage.pipe_file(&["t"]);
    // Rows wait for ten seconds, and two are allowed.
    file["sync"] = json!({ "interval": "10s" });
    file["objectives"] = json!({ "lag": "2s" });
    let mut pipe = running_with(&file).await?;
    stage.source.execute("INSERT INTO t VALUES (1)").await?;
    let status = pipe.wait_state("Degraded", CATCH_UP).await?;
    let reason = &status["reasons"][0];
    ensure!(
        reason["code"] == "lag_beyond_objective"
            && reason["kind"] == "warning"
            && reason["remedy"].is_string()
            && status["lag_seconds"].as_f64() > Some(1.6),
        "{status:#}"
    );
    let status = pipe.wait_state("Running", CATCH_UP).await?;
    ensure!(!has_reason(&status, "lag_beyond_objective"), "{status:#}");
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    stage.assert_same("t").await.map(drop)
}

/// The connections of the pipe's account, looked at for some seconds: in how many of the looks there were none.
async fn looks_without_connection(stage: &Stage) -> Result<(u32, u32)> {
    let sql = "SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'pipewright'";
    // That the reader of the binlog has gone the server finds out when it next sends something, a heartbeat at the latest.
    let reader = format!("{sql} AND command LIKE 'Binlog Dump%'");
    let until = Instant::now() + CATCH_UP;
    while stage.source.number(&reader).await? > 0 {
        ensure!(
            Instant::now() < until,
            "a paused pipe goes on reading the binlog"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut without = 0;
    for _ in 0..60 {
        without += u32::from(stage.source.number(sql).await? == 0);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok((without, 60))
}

async fn a_paused_pipe_warns_before_the_purge_and_fails_with_proof_after_it(
    kind: SourceKind,
) -> Result<()> {
    let stage = keeping_an_hour(kind).await?;
    stage
        .source
        .execute("CREATE TABLE t (id INT PRIMARY KEY)")
        .await?;
    let mut file = stage.pipe_file(&["t"]);
    // All but two seconds of what the server keeps.
    file["objectives"] = json!({ "retention_headroom": "3598s" });
    let mut pipe = running_with(&file).await?;
    stage.source.execute("INSERT INTO t VALUES (1)").await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    // A running pipe is as safe as the source keeps its binlog, and says so while that is too short.
    let keep = |seconds: u32| format!("SET GLOBAL binlog_expire_logs_seconds = {seconds}");
    stage.source.execute(keep(1800)).await?;
    let status = pipe.wait_state("Degraded", CATCH_UP).await?;
    ensure!(
        has_reason(&status, "retention_below_objective"),
        "{status:#}"
    );
    stage.source.execute(keep(3600)).await?;
    let status = pipe.wait_state("Running", CATCH_UP).await?;
    ensure!(status["reasons"] == json!([]), "{status:#}");
    ensure!(pipe.command("pause").await?.0 == 200);
    pipe.wait_state("Paused", CATCH_UP).await?;
    stage.source.execute("INSERT INTO t VALUES (2)").await?;
    let status = pipe
        .wait_for("the alarm", CATCH_UP, |status| {
            has_reason(status, "retention_below_objective")
        })
        .await?;
    ensure!(
        status["state"] == "Paused"
            && status["retention"]["keeps_seconds"] == 3600.0
            && status["retention"]["headroom_seconds"].as_f64() < Some(3598.0)
            && status["reasons"][0]["remedy"]
                .to_string()
                .contains("binlog_expire_logs_seconds"),
        "{status:#}"
    );
    let (without, looks) = looks_without_connection(&stage).await?;
    ensure!(
        without * 2 > looks,
        "a paused pipe kept a connection in {} of {looks} looks",
        looks - without
    );
    stage
        .source
        .execute("SET GLOBAL binlog_expire_logs_seconds = 0")
        .await?;
    pipe.wait_for("the alarm's end", CATCH_UP, |status| {
        status["reasons"].as_array().is_some_and(Vec::is_empty)
    })
    .await?;
    // Until the server is away, which is told, and comes back, which is told as well.
    tokio::task::block_in_place(|| stage.source_server.stop())?;
    pipe.wait_for("an unwatched source", CATCH_UP, |status| {
        status["state"] == "Paused" && has_reason(status, "source_unavailable")
    })
    .await?;
    tokio::task::block_in_place(|| stage.source_server.start_again())?;
    // The server begins with what its command line says.
    stage
        .source
        .execute("SET GLOBAL binlog_expire_logs_seconds = 0")
        .await?;
    pipe.wait_for("a watched source", CATCH_UP, |status| {
        status["reasons"].as_array().is_some_and(Vec::is_empty)
    })
    .await?;
    for id in 3..6 {
        stage
            .source
            .execute_all([
                &format!("INSERT INTO t VALUES ({id})")[..],
                "FLUSH BINARY LOGS",
            ])
            .await?;
    }
    let files: Vec<(String, u64)> = match kind {
        SourceKind::MySql => {
            let files: Vec<(String, u64, String)> = stage.source.rows("SHOW BINARY LOGS").await?;
            files.into_iter().map(|file| (file.0, file.1)).collect()
        }
        SourceKind::MariaDb | SourceKind::MariaDb11 => {
            stage.source.rows("SHOW BINARY LOGS").await?
        }
    };
    let newest = files.last().map(|file| file.0.clone()).unwrap_or_default();
    stage
        .source
        .execute(format!("PURGE BINARY LOGS TO '{newest}'"))
        .await?;
    let failed = pipe
        .wait_for("failure", CATCH_UP, |status| status["state"] == "Failed")
        .await?;
    ensure!(
        has_reason(&failed, "position_purged")
            && failed["reasons"].to_string().contains("purged")
            && failed["reasons"].to_string().contains("resync"),
        "{failed:#}"
    );
    ensure!(pipe.command("resync").await?.0 == 200);
    pipe.wait_state("Running", CATCH_UP).await?;
    stage.source.execute("DELETE FROM t WHERE id = 1").await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await
}

/// A paused pipe that begins with a row behind its place is warned at once.
async fn assert_alarm_while_paused(stage: &Stage, pipe: &mut Pipe) -> Result<()> {
    ensure!(pipe.command("pause").await?.0 == 200);
    pipe.wait_state("Paused", CATCH_UP).await?;
    ensure!(pipe.stop().await? == 0);
    let insert = "INSERT INTO t (a) VALUES ('meanwhile')";
    stage.source.execute(insert).await?;
    pipe.restart()?;
    let status = pipe
        .wait_for("the alarm", CATCH_UP, |status| {
            status["state"] == "Paused" && has_reason(status, "retention_below_objective")
        })
        .await?;
    // The place is some minutes old at the most.
    ensure!(
        status["retention"]["headroom_seconds"].as_f64() > Some(3000.0),
        "{status:#}"
    );
    ensure!(pipe.command("resume").await?.0 == 200);
    assert_caught_up(stage, pipe, &["t"]).await
}

/// MariaDB dates a commit by its session; MySQL by the clock, behind whatever the session says.
async fn a_session_that_dates_its_commits_fools_no_objective(kind: SourceKind) -> Result<()> {
    let stage = keeping_an_hour(kind).await?;
    let sql = "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, a VARCHAR(40))";
    stage.source.execute(sql).await?;
    let mut file = stage.pipe_file(&["t"]);
    // All that the server keeps.
    file["objectives"] = json!({ "retention_headroom": "3600s" });
    let mut pipe = running_with(&file).await?;
    let inserted = |status: &Value| status["tables"][0]["rows"]["inserted"].as_u64();
    let mut conn = stage.source.connect().await?;
    for day in ["UNIX_TIMESTAMP() + 86400", "UNIX_TIMESTAMP() - 172800"] {
        // What comes after that was made after that. The source says so with its next heartbeat, within ten seconds.
        let idle = pipe
            .wait_for("a source with nothing more", CATCH_UP, |status| {
                status["lag_seconds"] == 0.0
            })
            .await?;
        tokio::time::sleep(Duration::from_secs(11)).await;
        conn.query_drop(format!("SET timestamp = {day}")).await?;
        conn.query_drop("INSERT INTO t (a) VALUES ('dated')")
            .await?;
        let status = pipe
            .wait_for("the row", CATCH_UP, |status| {
                inserted(status) > inserted(&idle) && status["lag_seconds"].as_f64() < Some(30.0)
            })
            .await?;
        let read = status["lag"]["read_seconds"].as_f64();
        ensure!(read < Some(60.0), "{day}: {status:#}");
        assert_alarm_while_paused(&stage, &mut pipe)
            .await
            .with_context(|| day.to_owned())?;
    }
    Ok(())
}

/// It reads nothing before the pipe goes on, and the source purges what it is to read as before.
async fn a_table_on_its_way_back_is_watched_while_the_pipe_is_paused(
    kind: SourceKind,
) -> Result<()> {
    let stage = keeping_an_hour(kind).await?;
    for table in ["t", "u"] {
        let sql = format!("CREATE TABLE {table} (id INT PRIMARY KEY, a VARCHAR(40))");
        stage.source.execute(sql).await?;
    }
    let mut file = stage.pipe_file(&["t", "u"]);
    file["ddl"] = json!({ "modify_column": "quarantine" });
    file["objectives"] = json!({ "retention_headroom": "3598s" });
    let mut pipe = running_with(&file).await?;
    let table = format!("{}.u", stage.database);
    stage
        .source
        .execute("ALTER TABLE u MODIFY a VARCHAR(80)")
        .await?;
    reason_of(&mut pipe, &table).await?;
    stage
        .source
        .execute("INSERT INTO t VALUES (1, 'one')")
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    ensure!(pipe.command("pause").await?.0 == 200);
    pipe.wait_state("Paused", CATCH_UP).await?;
    let alarm = |status: &Value| {
        let mut reasons = status["reasons"].as_array().into_iter().flatten();
        let low = reasons.find(|reason| reason["code"] == "retention_below_objective");
        low.filter(|reason| reason["table"] == *table).cloned()
    };
    let waits = |status: &Value| alarm(status).is_some();
    let status = pipe.wait_for("the alarm", CATCH_UP, waits).await?;
    let order = json!({ "command": "retry", "table": table });
    ensure!(pipe.order(order).await?.0 == 200);
    let mut checked = status["retention"]["checked_at"].clone();
    let mut told = None;
    for _ in 0..2 {
        let later = |status: &Value| status["retention"]["checked_at"] != checked;
        let status = pipe.wait_for("a later look", CATCH_UP, later).await?;
        checked = status["retention"]["checked_at"].clone();
        told = alarm(&status);
    }
    let told = told.context("nobody watches the table's place any more")?;
    ensure!(
        told["remedy"].to_string().contains("let the pipe read on"),
        "{told:#}"
    );
    ensure!(pipe.command("resume").await?.0 == 200);
    Ok(())
}

/// Nobody watches any more how long the source goes on to hold what is yet to be read.
async fn a_source_that_lets_nobody_in_while_its_stream_goes_on_is_told_of(
    kind: SourceKind,
) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    with_t(&stage).await?;
    let (user, file) = file_of_account(&stage, "canary-1").await?;
    let mut pipe = running_with(&file).await?;
    let lock = |how: &str| format!("ALTER USER {user}@'%' ACCOUNT {how}");
    stage.source.execute(lock("LOCK")).await?;
    let status = pipe
        .wait_for("a source that cannot be asked", SOME_LOOKS, |status| {
            status["state"] == "Degraded"
        })
        .await?;
    ensure!(
        status["reasons"]
            .to_string()
            .contains("cannot be asked how it stands"),
        "{status:#}"
    );
    stage
        .source
        .execute("INSERT INTO t (a) VALUES ('three')")
        .await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    stage.source.execute(lock("UNLOCK")).await?;
    pipe.wait_state("Running", SOME_LOOKS).await?;
    Ok(())
}
