//! What goes wrong around a pipe: disks, merges, answers, targets. Each has its reason and remedy, and nothing is lost.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable;
use pipewright::fault::VARIABLE;
use serde_json::{Value, json};
use testbed::harness::{BinlogProxy, Disk, MARKER_TABLE, Pipe, Proxy, Stage};
use testbed::{SourceKind, SourceOptions, SourceServer};

use crate::support::{
    CATCH_UP, START, Seed, Workload, assert_caught_up, launch, on_both_sources, once, running,
    running_with, start,
};

on_both_sources! {
    answers_lost_after_the_insert_change_nothing: 300,
    a_clock_that_jumps_moves_no_row_and_raises_no_alarm: 300,
    commits_from_another_day_are_followed_in_their_order: 240,
    a_target_dropped_while_it_is_loaded_is_not_made_anew_empty: 300,
    a_read_only_target_stops_its_table_alone: 240,
    a_dropped_target_stops_its_table_alone: 300,
    clickhouse_without_room_is_waited_for: 400,
}

once! {
    a_state_folder_that_takes_no_writes_holds_the_pipe_up_and_loses_nothing: 300,
    a_spill_folder_without_room_is_waited_for: 400,
    a_spill_folder_that_becomes_read_only_is_waited_for: 300,
    a_source_away_for_over_a_minute_degrades_the_pipe_until_it_is_back: 400,
    a_source_that_breaks_off_every_binlog_degrades_the_pipe_until_it_sends_one: 400,
}

async fn answers_lost_after_the_insert_change_nothing(kind: SourceKind) -> Result<()> {
    let seed = Seed::new("answers_lost_after_the_insert_change_nothing");
    let stage = Stage::shared(kind).await?;
    let proxy = Proxy::before(stage.clickhouse_server.http_port()).await?;
    let workload = Workload { row_count: 2_000 };
    workload.create(&stage).await?;
    let mut file = stage.pipe_file(&Workload::TABLES);
    file["destination"]["url"] = json!(proxy.url());
    file["snapshot"] = json!({ "rows_per_partition": 500 });
    // The load loses answers too.
    proxy.lose_answers(3);
    let mut pipe = start(launch(&file).argument("--wait").argument("10m"))?;
    pipe.wait_state("Running", START).await?;
    let writer = workload.write(&stage.source, seed.generator(1));
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        proxy.lose_answers(2);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    writer.stop().await?;
    assert_caught_up(&stage, &mut pipe, &Workload::TABLES).await?;
    ensure!(proxy.lost() >= 5, "only {} answers were lost", proxy.lost());
    Ok(())
}

/// Waits until the pipe says that it tries again because of `code`, with a remedy that names `remedy`.
async fn wait_held_up(pipe: &mut Pipe, code: &str, remedy: &str) -> Result<Value> {
    let what = format!("{code}: {remedy}");
    pipe.wait_for(&what, CATCH_UP, |status| {
        let reasons = status["reasons"].as_array();
        reasons.into_iter().flatten().any(|reason| {
            reason["code"] == code
                && reason["kind"] == "retrying"
                && reason["remedy"]
                    .as_str()
                    .is_some_and(|text| text.contains(remedy))
        })
    })
    .await
}

async fn small_table(stage: &Stage) -> Result<()> {
    let statements = [
        "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, a VARCHAR(200))",
        "INSERT INTO t (a) VALUES ('one'), ('two')",
    ];
    stage.source.execute_all(statements).await
}

async fn clickhouse_without_room_is_waited_for(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    small_table(&stage).await?;
    let mut pipe = running(&stage, &["t"]).await?;
    let target = format!("`{}`.t", stage.database);
    for (fault, mended, remedy) in [
        (
            "parts_to_throw_insert = 1, parts_to_delay_insert = 1",
            "parts_to_throw_insert, parts_to_delay_insert",
            "merges",
        ),
        (
            "min_free_disk_bytes_to_perform_insert = 1000000000000000",
            "min_free_disk_bytes_to_perform_insert",
            "free space",
        ),
    ] {
        let stop = format!("SYSTEM STOP MERGES {target}");
        stage.clickhouse.query(&stop).await?;
        let set = format!("ALTER TABLE {target} MODIFY SETTING {fault}");
        stage.clickhouse.query(&set).await?;
        for _ in 0..3 {
            stage
                .source
                .execute("INSERT INTO t (a) VALUES ('meanwhile')")
                .await?;
            tokio::time::sleep(Duration::from_millis(600)).await;
        }
        let status = wait_held_up(&mut pipe, "destination_unavailable", remedy).await?;
        ensure!(
            status["tables"][0]["state"] == "Streaming",
            "the table was taken out of service: {status:#}"
        );
        let reset = format!("ALTER TABLE {target} RESET SETTING {mended}");
        stage.clickhouse.query(&reset).await?;
        let start = format!("SYSTEM START MERGES {target}");
        stage.clickhouse.query(&start).await?;
        assert_caught_up(&stage, &mut pipe, &["t"]).await?;
        pipe.wait_for("no reason", CATCH_UP, |status| {
            status["reasons"].as_array().is_some_and(Vec::is_empty)
        })
        .await?;
    }
    Ok(())
}

async fn a_dropped_target_stops_its_table_alone(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    small_table(&stage).await?;
    stage
        .source
        .execute("CREATE TABLE u (id INT PRIMARY KEY)")
        .await?;
    let mut pipe = running(&stage, &["t", "u"]).await?;
    let drop = format!("DROP TABLE `{}`.t SYNC", stage.database);
    stage.clickhouse.query(&drop).await?;
    stage
        .source
        .execute_all([
            "INSERT INTO t (a) VALUES ('gone')",
            "INSERT INTO u VALUES (1)",
        ])
        .await?;
    let status = pipe.wait_state("Degraded", CATCH_UP).await?;
    ensure!(
        status["tables"][0]["state"] == "Quarantined"
            && status["reasons"][0]["remedy"]
                .to_string()
                .contains("resync"),
        "{status:#}"
    );
    assert_caught_up(&stage, &mut pipe, &["u"]).await?;
    let order = json!({ "command": "resync", "table": format!("{}.t", stage.database) });
    ensure!(pipe.order(order).await?.0 == 200);
    pipe.wait_state("Running", CATCH_UP).await?;
    stage.source.execute("DELETE FROM t WHERE id = 1").await?;
    assert_caught_up(&stage, &mut pipe, &["t", "u"]).await
}

async fn a_read_only_target_stops_its_table_alone(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    small_table(&stage).await?;
    let mut pipe = running(&stage, &["t"]).await?;
    let set = format!(
        "ALTER TABLE `{}`.t MODIFY SETTING table_readonly = 1",
        stage.database
    );
    stage.clickhouse.query(&set).await?;
    stage.source.execute("DELETE FROM t WHERE id = 1").await?;
    let status = pipe.wait_state("Degraded", CATCH_UP).await?;
    let reason = &status["reasons"][0];
    let remedy = reason["remedy"].as_str().unwrap_or_default();
    ensure!(
        status["tables"][0]["state"] == "Quarantined" && reason["code"] == "destination_rejected",
        "{status:#}"
    );
    assert_caught_up(&stage, &mut pipe, &[MARKER_TABLE]).await?;
    let (statement, _) = remedy.split_once(", then retry").context("no statement")?;
    stage.clickhouse.query(statement).await?;
    let order = json!({ "command": "retry", "table": format!("{}.t", stage.database) });
    ensure!(pipe.order(order).await?.0 == 200);
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await
}

/// How a folder comes to take no writes.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// No file may grow any more.
    Limit,
    /// Nor is the disk what it was.
    Disk(Disk),
}

impl Trouble {
    fn set(self, pipe: &Pipe, stands: bool) -> Result<()> {
        match self {
            Self::Limit => pipe.limit_files(stands.then_some(1)),
            Self::Disk(disk) => pipe.set_state_disk(if stands { disk } else { Disk::Sound }),
        }
    }
}

async fn a_state_folder_that_takes_no_writes_holds_the_pipe_up_and_loses_nothing() -> Result<()> {
    let seed = Seed::new("a_state_folder_that_takes_no_writes");
    let stage = Stage::shared(SourceKind::MySql).await?;
    let workload = Workload { row_count: 1_000 };
    workload.create(&stage).await?;
    let launch = launch(&stage.pipe_file(&Workload::TABLES));
    let mut pipe = start(launch.with_limited_files().with_surroundings())?;
    pipe.wait_state("Running", START).await?;
    let writer = workload.write(&stage.source, seed.generator(1));
    for trouble in [
        Trouble::Limit,
        Trouble::Disk(Disk::Full),
        Trouble::Disk(Disk::ReadOnly),
    ] {
        held_up_by(&mut pipe, trouble)
            .await
            .with_context(|| format!("{trouble:?}"))?;
    }
    writer.stop().await?;
    assert_caught_up(&stage, &mut pipe, &Workload::TABLES).await
}

async fn held_up_by(pipe: &mut Pipe, trouble: Trouble) -> Result<()> {
    trouble.set(pipe, true)?;
    let status = wait_held_up(pipe, "state", "disk").await?;
    ensure!(status["state"] == "Running", "{status:#}");
    let (refused, document) = pipe.command("pause").await?;
    ensure!(
        refused == 500 || refused == 503,
        "a command that cannot be recorded: {refused} {document:#}"
    );
    trouble.set(pipe, false)?;
    pipe.wait_for("no reason", CATCH_UP, |status| {
        status["reasons"].as_array().is_some_and(Vec::is_empty)
    })
    .await?;
    // Ended in mid-flight, it goes on from what was recorded.
    trouble.set(pipe, true)?;
    wait_held_up(pipe, "state", "disk").await?;
    pipe.kill9()?;
    if let Trouble::Disk(_) = trouble {
        trouble.set(pipe, false)?;
    }
    pipe.restart()?;
    pipe.wait_state("Running", START).await.map(drop)
}

/// A table out of service is what the retention of the source is compared with.
async fn a_clock_that_jumps_moves_no_row_and_raises_no_alarm(kind: SourceKind) -> Result<()> {
    let seed = Seed::new("a_clock_that_jumps_moves_no_row_and_raises_no_alarm");
    let stage = Stage::with_source(move || {
        let options = SourceOptions::new(kind).arg("--binlog-expire-logs-seconds=7200");
        SourceServer::start(options)
    })
    .await?;
    let workload = Workload { row_count: 500 };
    workload.create(&stage).await?;
    small_table(&stage).await?;
    let tables = [&Workload::TABLES[..], &["t"]].concat();
    let mut file = stage.pipe_file(&tables);
    file["objectives"] = json!({ "lag": "60s", "retention_headroom": "1h" });
    let mut pipe = start(launch(&file).with_surroundings())?;
    pipe.wait_state("Running", START).await?;
    let writer = workload.write(&stage.source, seed.generator(1));
    let rename = |from: &str, to: &str| {
        let database = &stage.database;
        format!("RENAME TABLE `{database}`.{from} TO `{database}`.{to}")
    };
    stage.clickhouse.query(&rename("t", "aside")).await?;
    let insert = "INSERT INTO t (a) VALUES ('meanwhile')";
    stage.source.execute(insert).await?;
    let before = pipe.wait_state("Degraded", CATCH_UP).await?;
    for seconds in [86_400, -172_800] {
        pipe.set_clock(seconds)?;
        assert_calm_at(&stage, &mut pipe, &before).await?;
        // It is as calm where it begins in that day.
        pipe.kill9()?;
        pipe.restart()?;
        assert_calm_at(&stage, &mut pipe, &before)
            .await
            .with_context(|| format!("{seconds} s off"))?;
    }
    pipe.set_clock(0)?;
    stage.clickhouse.query(&rename("aside", "t")).await?;
    let order = json!({ "command": "retry", "table": format!("{}.t", stage.database) });
    ensure!(pipe.order(order).await?.0 == 200);
    pipe.wait_state("Running", CATCH_UP).await?;
    writer.stop().await?;
    assert_caught_up(&stage, &mut pipe, &tables).await
}

/// Once the source was asked for what it keeps on the pipe's new date, nothing is said but what was said before.
async fn assert_calm_at(stage: &Stage, pipe: &mut Pipe, before: &Value) -> Result<()> {
    let day = |document: &Value| {
        let at = document["retention"]["checked_at"].as_str();
        at.and_then(|at| at.get(..10)).map(str::to_owned)
    };
    let status = pipe
        .wait_for("a look at the source on another day", CATCH_UP, |status| {
            day(status).is_some() && day(status) != day(before) && status["state"] == "Degraded"
        })
        .await?;
    stage.wait_caught_up(pipe, CATCH_UP).await?;
    let headroom = status["retention"]["headroom_seconds"].as_f64();
    let lag = status["lag_seconds"].as_f64().unwrap_or_default();
    ensure!(
        status["reasons"].as_array().map(Vec::len) == Some(1)
            && status["reasons"][0]["code"] == before["reasons"][0]["code"]
            && headroom.is_some_and(|headroom| (3_600.0..=7_200.0).contains(&headroom))
            && (0.0..60.0).contains(&lag)
            && status["checkpoint"]["term"] == before["checkpoint"]["term"],
        "{status:#}"
    );
    Ok(())
}

async fn commits_from_another_day_are_followed_in_their_order(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    small_table(&stage).await?;
    let mut file = stage.pipe_file(&["t"]);
    file["objectives"] = json!({ "lag": "30s" });
    let mut pipe = running_with(&file).await?;
    let mut conn = stage.source.connect().await?;
    for (day, sql) in [
        ("UNIX_TIMESTAMP() + 86400", "UPDATE t SET a = 'tomorrow'"),
        (
            "UNIX_TIMESTAMP() - 172800",
            "UPDATE t SET a = 'the day before yesterday'",
        ),
        ("UNIX_TIMESTAMP() - 86400", "DELETE FROM t WHERE id = 1"),
    ] {
        conn.query_drop(format!("SET timestamp = {day}")).await?;
        conn.query_drop(sql).await?;
        assert_caught_up(&stage, &mut pipe, &["t"])
            .await
            .with_context(|| day.to_owned())?;
        let lag = pipe.status().await?["lag_seconds"].as_f64();
        ensure!(
            lag.is_none_or(|lag| (0.0..180_000.0).contains(&lag)),
            "{lag:?} with {day}"
        );
    }
    conn.query_drop("SET timestamp = DEFAULT").await?;
    conn.query_drop("UPDATE t SET a = 'today'").await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    pipe.wait_for("no lag and no reason", CATCH_UP, |status| {
        status["state"] == "Running"
            && status["reasons"] == json!([])
            && status["lag_seconds"].as_f64().is_some_and(|lag| lag < 2.0)
    })
    .await?;
    Ok(())
}

/// The rows of `t` by number and checksum, at both ends: some of them are too long to be compared as text.
async fn assert_sums_arrive(stage: &Stage, pipe: &mut Pipe) -> Result<()> {
    let expected: Vec<String> = stage
        .source
        .rows("SELECT CONCAT(COUNT(*), ' ', SUM(CRC32(a))) FROM t")
        .await?;
    stage.wait_caught_up(pipe, CATCH_UP).await?;
    let sql = format!(
        "SELECT concat(toString(count()), ' ', toString(sum(CRC32(a)))) FROM `{}`.t_current",
        stage.database
    );
    // The marker may be there before what is on its way in the same flush.
    let until = Instant::now() + CATCH_UP;
    loop {
        let found = stage.clickhouse.query(&sql).await?;
        if expected == [found.clone()] {
            return Ok(());
        }
        ensure!(Instant::now() < until, "{expected:?} and {found}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Far more than the smallest budget of memory keeps of a transaction, and below any `max_allowed_packet`.
async fn large_transaction(stage: &Stage, from: u32) -> Result<()> {
    let rows = (from..from + 12).map(|id| {
        format!("INSERT INTO t VALUES ({id}, REPEAT(LEFT(SHA2({id}, 256), 37), 100000))")
    });
    let statements: Vec<String> = ["START TRANSACTION".to_owned()]
        .into_iter()
        .chain(rows)
        .chain(["COMMIT".to_owned()])
        .collect();
    stage.source.execute_all(statements).await
}

/// A table of long rows, and a pipe that has to spill large transactions of it into `folder`.
async fn spilling(kind: SourceKind, folder: &Path) -> Result<(Stage, Value)> {
    let stage = Stage::shared(kind).await?;
    let sql = "CREATE TABLE t (id INT PRIMARY KEY, a LONGTEXT)";
    stage.source.execute(sql).await?;
    let mut file = stage.pipe_file(&["t"]);
    file["memory"] = json!("64MiB");
    file["spill_dir"] = json!(folder);
    Ok((stage, file))
}

/// A large transaction from `id` on waits for the folder, and nothing is taken out of service.
async fn wait_for_spill(stage: &Stage, pipe: &mut Pipe, id: u32) -> Result<()> {
    large_transaction(stage, id).await?;
    let delete = format!("DELETE FROM t WHERE id = {}", id + 1);
    stage.source.execute(delete).await?;
    let status = wait_held_up(pipe, "state", "spill_dir").await?;
    ensure!(
        status["state"] == "Running" && status["tables"][0]["state"] == "Streaming",
        "{status:#}"
    );
    Ok(())
}

async fn assert_recovered(stage: &Stage, pipe: &mut Pipe) -> Result<()> {
    assert_sums_arrive(stage, pipe).await?;
    pipe.wait_for("no reason", CATCH_UP, |status| {
        status["state"] == "Running" && status["reasons"] == json!([])
    })
    .await
    .map(drop)
}

async fn a_spill_folder_without_room_is_waited_for() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let spill = folder.path().join("spill");
    std::fs::create_dir(&spill)?;
    let (stage, file) = spilling(SourceKind::MariaDb, &spill).await?;
    let mut pipe = start(launch(&file).with_limited_files())?;
    pipe.wait_state("Running", START).await?;
    // Room for the state, and for a part of the transaction.
    pipe.limit_files(Some(16 << 20))?;
    wait_for_spill(&stage, &mut pipe, 1).await?;
    pipe.limit_files(None)?;
    assert_sums_arrive(&stage, &mut pipe).await?;

    // A folder that goes away is no other case.
    std::fs::remove_dir(&spill)?;
    wait_for_spill(&stage, &mut pipe, 101).await?;
    std::fs::create_dir(&spill)?;
    assert_recovered(&stage, &mut pipe).await
}

/// Mounted so by the kernel, which refuses the same of the state's folder, whose database is open all the while.
async fn a_spill_folder_that_becomes_read_only_is_waited_for() -> Result<()> {
    let spill = tempfile::tempdir()?;
    let (stage, file) = spilling(SourceKind::MySql, spill.path()).await?;
    let mut pipe = start(launch(&file).with_lockable(spill.path()))?;
    pipe.wait_state("Running", START).await?;
    pipe.set_read_only(true)?;
    wait_for_spill(&stage, &mut pipe, 1).await?;
    pipe.set_read_only(false)?;
    assert_recovered(&stage, &mut pipe).await
}

/// The other end's minute is in `outages`.
async fn a_source_away_for_over_a_minute_degrades_the_pipe_until_it_is_back() -> Result<()> {
    let kind = SourceKind::MariaDb;
    let stage = Stage::with_source(move || SourceServer::start(SourceOptions::new(kind))).await?;
    small_table(&stage).await?;
    let mut pipe = running(&stage, &["t"]).await?;
    tokio::task::block_in_place(|| stage.source_server.kill())?;
    wait_held_up(&mut pipe, "source_unavailable", "source.host").await?;
    let status = pipe.status().await?;
    ensure!(status["state"] == "Running", "at once: {status:#}");
    let status = pipe.wait_state("Degraded", CATCH_UP).await?;
    let reason = &status["reasons"][0];
    ensure!(
        reason["code"] == "source_unavailable" && reason["kind"] == "retrying",
        "{status:#}"
    );
    tokio::task::block_in_place(|| stage.source_server.start_again())?;
    let status = pipe.wait_state("Running", CATCH_UP).await?;
    ensure!(status["reasons"] == json!([]), "{status:#}");
    stage.source.execute("DELETE FROM t WHERE id = 1").await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await
}

/// It takes every connection all the while, and answers every query.
async fn a_source_that_breaks_off_every_binlog_degrades_the_pipe_until_it_sends_one() -> Result<()>
{
    // Where nobody else writes: a stream that passes over another's transaction gets somewhere.
    let server = || SourceServer::start(SourceOptions::new(SourceKind::MySql));
    let stage = Stage::with_source(server).await?;
    small_table(&stage).await?;
    let proxy = BinlogProxy::before(stage.source_server.port(), |_, _, _| {}).await?;
    let mut file = stage.pipe_file(&["t"]);
    file["source"]["port"] = json!(proxy.port());
    let mut pipe = running_with(&file).await?;
    proxy.break_off(true);
    stage.source.execute("DELETE FROM t WHERE id = 1").await?;
    let status = wait_held_up(&mut pipe, "source_unavailable", "COM_BINLOG_DUMP").await?;
    ensure!(status["state"] == "Running", "at once: {status:#}");
    let since = status["reasons"][0]["since"].clone();
    let status = pipe.wait_state("Degraded", CATCH_UP).await?;
    let reason = &status["reasons"][0];
    ensure!(
        reason["code"] == "source_unavailable" && reason["since"] == since,
        "{status:#}, and it has stood since {since}"
    );
    ensure!(proxy.broken_off() > 5, "{} attempts", proxy.broken_off());
    proxy.break_off(false);
    let status = pipe.wait_state("Running", CATCH_UP).await?;
    ensure!(status["reasons"] == json!([]), "{status:#}");
    assert_caught_up(&stage, &mut pipe, &["t"]).await
}

async fn a_target_dropped_while_it_is_loaded_is_not_made_anew_empty(
    kind: SourceKind,
) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    // The first by name is loaded first.
    stage
        .source
        .execute_all([
            "CREATE TABLE a (id INT PRIMARY KEY, n INT)",
            "INSERT INTO a VALUES (1, 1), (2, 2), (3, 3)",
        ])
        .await?;
    let mut pipe = start(launch(&stage.pipe_file(&["a"])).env(VARIABLE, "load:3"))?;
    pipe.wait_exit(START).await?;
    let drop = format!("DROP TABLE `{}`.a SYNC", stage.database);
    stage.clickhouse.query(&drop).await?;
    pipe.change_env(VARIABLE, None);
    pipe.restart()?;
    let status = pipe.wait_state("Degraded", START).await?;
    let reason = &status["reasons"][0];
    ensure!(
        status["tables"][0]["state"] == "Quarantined"
            && reason["message"].to_string().contains("it is gone")
            && reason["remedy"].to_string().contains("resync"),
        "{status:#}"
    );
    assert_caught_up(&stage, &mut pipe, &[MARKER_TABLE]).await?;
    let order = json!({ "command": "resync", "table": format!("{}.a", stage.database) });
    ensure!(pipe.order(order).await?.0 == 200);
    pipe.wait_state("Running", CATCH_UP).await?;
    stage.source.execute("DELETE FROM a WHERE id = 1").await?;
    assert_caught_up(&stage, &mut pipe, &["a"]).await
}
