//! Places in the binlog by GTID and by file and offset, and what servers wrap row events in.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mysql_async::prelude::Queryable;
use serde_json::json;
use testbed::harness::{Pipe, Stage};
use testbed::{SourceKind, SourceOptions, SourceServer};
use tokio::task::JoinHandle;

use crate::support::{
    CATCH_UP, START, Seed, Workload, assert_caught_up, end_of_binlog, events_behind, has_kinds,
    launch, on_both_sources, once, purge_all_but_the_newest, running_with, start,
};

on_both_sources! {
    places_by_file_and_offset_carry_a_pipe_over_a_restart: 300,
    binlog_files_may_be_rotated_under_the_stream: 300,
    a_binlog_purged_or_made_anew_fails_the_pipe_by_name: 420,
    by_file_loads_end_on_a_source_that_has_written_nothing_since_its_file_began: 300,
}

once! {
    mysql_without_gtids_is_followed_by_file: 300,
    gtids_asked_for_where_there_are_none_are_refused: 240,
    compressed_transactions_of_mysql_are_read: 300,
    compressed_events_of_mariadb_are_read: 300,
    anonymous_and_named_gtid_domains_of_mariadb_are_followed: 300,
    events_without_checksums_are_read: 300,
    minimal_row_images_are_refused_by_name: 240,
    tagged_gtids_and_gaps_carry_a_pipe_over_a_restart: 300,
    by_file_a_load_does_not_miss_what_waits_for_a_replica_to_acknowledge_it: 300,
    by_file_a_table_that_is_added_does_not_miss_what_waits_for_an_acknowledgement: 300,
    offsets_that_mariadb_11_leaves_out_of_transactions_are_not_needed: 420,
}

/// Writes before the start, while streaming, while the pipe is stopped and after it has come back.
async fn follow_over_a_restart(stage: &Stage, position: &str) -> Result<Pipe> {
    let seed = Seed::new("follow_over_a_restart");
    let workload = Workload { row_count: 2_000 };
    workload.create(stage).await?;
    let mut file = stage.pipe_file(&Workload::TABLES);
    file["source"]["position"] = json!(position);
    let writer = workload.write(&stage.source, seed.generator(1));
    let mut pipe = start(launch(&file))?;
    pipe.wait_state("Running", START).await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    ensure!(pipe.stop().await? == 0);
    tokio::time::sleep(Duration::from_millis(500)).await;
    pipe.restart()?;
    pipe.wait_state("Running", START).await?;
    writer.stop().await?;
    assert_caught_up(stage, &mut pipe, &Workload::TABLES).await?;
    Ok(pipe)
}

async fn places_by_file_and_offset_carry_a_pipe_over_a_restart(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    let pipe = follow_over_a_restart(&stage, "file").await?;
    let status = pipe.status().await?;
    let position = status["checkpoint"]["position"]
        .as_str()
        .unwrap_or_default();
    ensure!(
        position.starts_with("binlog.") && position.contains(':'),
        "no file and offset: {status:#}"
    );
    Ok(())
}

/// A new file begins with events of no group, and the server tells the place behind them as its binlog's end. Behind a
/// statement in that file a load begins where the statement ends.
async fn by_file_loads_end_on_a_source_that_has_written_nothing_since_its_file_began(
    kind: SourceKind,
) -> Result<()> {
    const ROTATE: &str = "FLUSH BINARY LOGS";
    let stage = Stage::with_source(move || SourceServer::start(SourceOptions::new(kind))).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a VARCHAR(10))",
            "INSERT INTO t VALUES (1, '1'), (2, '2')",
            ROTATE,
        ])
        .await?;
    let mut file = stage.pipe_file(&["t"]);
    file["source"]["position"] = json!("file");
    let mut pipe = running_with(&file).await?;
    ensure!(stage.assert_same("t").await? == 2);
    stage.source.execute(ROTATE).await?;
    let (code, answer) = pipe.command("resync").await?;
    ensure!(code == 200, "{code} {answer}");
    pipe.wait_state("Running", START).await?;
    stage.assert_no_load_left().await?;
    ensure!(stage.assert_same("t").await? == 2);
    let loaded_anew = format!(
        "SELECT count() FROM system.columns WHERE database = '{}' AND table = 't' AND name = 'a' AND type LIKE '%Int32%'",
        stage.database
    );
    stage.source.execute("ALTER TABLE t MODIFY a INT").await?;
    let until = Instant::now() + CATCH_UP;
    while stage.clickhouse.number(&loaded_anew).await? == 0 {
        ensure!(Instant::now() < until, "no load has followed the statement");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_caught_up(&stage, &mut pipe, &["t"]).await
}

/// A server with `t` and `u` whose next commit waits behind its binlog and before its engine, for a replica that never
/// acknowledges it: the transaction is in the binlog, and in no SELECT.
async fn with_commits_that_wait() -> Result<Stage> {
    let stage =
        Stage::with_source(|| SourceServer::start(SourceOptions::new(SourceKind::MySql))).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY)",
            "CREATE TABLE u (id INT PRIMARY KEY)",
            "INSERT INTO t VALUES (1)",
            "INSERT INTO u VALUES (1)",
            "FLUSH BINARY LOGS",
            "INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'",
            "SET GLOBAL rpl_semi_sync_source_timeout = 600000",
        ])
        .await?;
    Ok(stage)
}

/// A writer whose row of `table` is in the binlog, and in no SELECT.
async fn write_and_wait(stage: &Stage, table: &str) -> Result<JoinHandle<Result<()>>> {
    const WAIT: &str = "SET GLOBAL rpl_semi_sync_source_enabled = ON";
    stage.source.execute(WAIT).await?;
    let before = end_of_binlog(stage).await?;
    let source = stage.source.clone();
    let insert = format!("INSERT INTO {table} VALUES (2)");
    let writer = tokio::spawn(async move { source.execute(&insert).await });
    let until = Instant::now() + CATCH_UP;
    while end_of_binlog(stage).await? == before {
        ensure!(Instant::now() < until, "nothing was written");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let count = format!("SELECT COUNT(*) FROM {table}");
    let shown = stage.source.number(&count).await?;
    ensure!(shown == 1, "the server does not wait");
    Ok(writer)
}

async fn let_go(stage: &Stage, writer: JoinHandle<Result<()>>) -> Result<()> {
    const GO_ON: &str = "SET GLOBAL rpl_semi_sync_source_enabled = OFF";
    stage.source.execute(GO_ON).await?;
    writer.await?
}

/// No load waits with the transaction: the pipe begins where the file does.
async fn by_file_a_load_does_not_miss_what_waits_for_a_replica_to_acknowledge_it() -> Result<()> {
    let stage = with_commits_that_wait().await?;
    let writer = write_and_wait(&stage, "t").await?;
    let mut file = stage.pipe_file(&["t"]);
    file["source"]["position"] = json!("file");
    let mut pipe = running_with(&file).await?;
    ensure!(
        !writer.is_finished(),
        "the server did not wait for the load"
    );
    let_go(&stage, writer).await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await
}

/// The stream has passed the transaction before the table was the pipe's, so its load waits with it.
async fn by_file_a_table_that_is_added_does_not_miss_what_waits_for_an_acknowledgement()
-> Result<()> {
    let stage = with_commits_that_wait().await?;
    let mut file = stage.pipe_file(&["t"]);
    file["source"]["position"] = json!("file");
    let mut pipe = running_with(&file).await?;
    let writer = write_and_wait(&stage, "u").await?;
    let (_, end) = end_of_binlog(&stage).await?;
    let place = format!(":{end}");
    pipe.wait_for("a checkpoint behind it", CATCH_UP, |status| {
        let at = status["checkpoint"]["position"].as_str();
        at.is_some_and(|at| at.ends_with(&place))
    })
    .await?;
    let add = json!({ "tables": { "add": [{ "source": format!("{}.u", stage.database) }] } });
    let (status, document) = pipe.change(add).await?;
    ensure!(status == 200, "{document:#}");
    tokio::time::sleep(Duration::from_secs(3)).await;
    ensure!(!writer.is_finished(), "the server does not wait");
    let there = format!("SELECT count() FROM `{}`.u_current", stage.database);
    let loaded = stage.clickhouse.number(&there).await.unwrap_or_default();
    ensure!(loaded == 0, "the load has not waited: {loaded} rows");
    let_go(&stage, writer).await?;
    assert_caught_up(&stage, &mut pipe, &["t", "u"]).await
}

async fn binlog_files_may_be_rotated_under_the_stream(kind: SourceKind) -> Result<()> {
    for position in ["auto", "file"] {
        let stage = Stage::shared(kind).await?;
        stage
            .source
            .execute("CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, a INT)")
            .await?;
        let mut file = stage.pipe_file(&["t"]);
        file["source"]["position"] = json!(position);
        let mut pipe = start(launch(&file))?;
        pipe.wait_state("Running", START).await?;
        for _ in 0..4 {
            stage
                .source
                .execute_all([
                    "INSERT INTO t (a) VALUES (1), (2)",
                    "FLUSH BINARY LOGS",
                    "UPDATE t SET a = a + 1",
                ])
                .await?;
        }
        assert_caught_up(&stage, &mut pipe, &["t"]).await?;
        pipe.kill9()?;
        stage
            .source
            .execute_all([
                "FLUSH BINARY LOGS",
                "INSERT INTO t (a) VALUES (9)",
                "FLUSH BINARY LOGS",
            ])
            .await?;
        pipe.restart()?;
        assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    }
    Ok(())
}

async fn mysql_without_gtids_is_followed_by_file() -> Result<()> {
    let stage = Stage::with_source(|| {
        let options = SourceOptions::new(SourceKind::MySql)
            .arg("--gtid-mode=OFF")
            .arg("--enforce-gtid-consistency=OFF");
        SourceServer::start(options)
    })
    .await?;
    follow_over_a_restart(&stage, "auto").await.map(drop)
}

async fn gtids_asked_for_where_there_are_none_are_refused() -> Result<()> {
    let stage = Stage::with_source(|| {
        let options = SourceOptions::new(SourceKind::MySql)
            .arg("--gtid-mode=OFF")
            .arg("--enforce-gtid-consistency=OFF");
        SourceServer::start(options)
    })
    .await?;
    stage
        .source
        .execute("CREATE TABLE t (id INT PRIMARY KEY)")
        .await?;
    let mut file = stage.pipe_file(&["t"]);
    file["source"]["position"] = json!("gtid");
    let mut pipe = start(launch(&file))?;
    ensure!(pipe.wait_exit(START).await? == 1);
    let log = pipe.log().tail();
    ensure!(
        log.contains("gtid_mode") && log.contains("position: file"),
        "{log}"
    );
    Ok(())
}

async fn compressed_transactions_of_mysql_are_read() -> Result<()> {
    let stage = Stage::shared(SourceKind::MySql).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, a VARCHAR(200))",
            "CREATE TABLE other (id INT PRIMARY KEY)",
        ])
        .await?;
    let mut pipe = start(launch(&stage.pipe_file(&["t"])))?;
    pipe.wait_state("Running", START).await?;
    let mut conn = stage.source.connect().await?;
    conn.query_drop("SET SESSION binlog_transaction_compression = ON")
        .await?;
    for n in 0..20 {
        conn.query_drop("START TRANSACTION").await?;
        conn.query_drop(format!(
            "INSERT INTO t (a) VALUES (REPEAT('x', 200)), (REPEAT('{n}', 50)), (NULL)"
        ))
        .await?;
        conn.query_drop(format!("INSERT INTO other VALUES ({n})"))
            .await?;
        conn.query_drop("UPDATE t SET a = CONCAT(LEFT(a, 100), 'y') WHERE id % 3 = 0")
            .await?;
        conn.query_drop(format!("UPDATE t SET id = id - 10000 WHERE id = {}", n + 1))
            .await?;
        conn.query_drop("COMMIT").await?;
    }
    // One transaction of some megabytes.
    conn.query_drop(
        "INSERT INTO t (a) SELECT REPEAT('z', 200) FROM t a, t b, (SELECT 1 FROM t LIMIT 10) c",
    )
    .await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    pipe.kill9()?;
    conn.query_drop("DELETE FROM t WHERE id % 2 = 0").await?;
    pipe.restart()?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await
}

/// pitfall 84
async fn compressed_events_of_mariadb_are_read() -> Result<()> {
    let stage = Stage::with_source(|| {
        let options = SourceOptions::new(SourceKind::MariaDb)
            .arg("--log-bin-compress=ON")
            .arg("--log-bin-compress-min-len=10");
        SourceServer::start(options)
    })
    .await?;
    follow_over_a_restart(&stage, "auto").await?;
    let events = events_behind(&stage, &("binlog.000001".to_owned(), 4)).await?;
    let compressed = [
        "Query_compressed",
        "Write_rows_compressed_v1",
        "Update_rows_compressed_v1",
        "Delete_rows_compressed_v1",
    ];
    has_kinds(&events, &compressed)
}

async fn anonymous_and_named_gtid_domains_of_mariadb_are_followed() -> Result<()> {
    let stage = Stage::shared(SourceKind::MariaDb).await?;
    stage
        .source
        .execute("CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, a INT)")
        .await?;
    let mut pipe = start(launch(&stage.pipe_file(&["t"])))?;
    pipe.wait_state("Running", START).await?;
    let mut conn = stage.source.connect().await?;
    for round in 0..3 {
        for domain in [0, 7, 4_000_000_000_u32] {
            conn.query_drop(format!("SET SESSION gtid_domain_id = {domain}"))
                .await?;
            conn.query_drop(format!(
                "INSERT INTO t (a) VALUES ({round}), ({domain} % 1000)"
            ))
            .await?;
            conn.query_drop("UPDATE t SET a = a + 1 WHERE id % 2 = 0")
                .await?;
        }
        assert_caught_up(&stage, &mut pipe, &["t"]).await?;
        pipe.kill9()?;
        pipe.restart()?;
    }
    assert_caught_up(&stage, &mut pipe, &["t"]).await
}

/// pitfall 48: each file begins with an event of its own length, which says whether those behind it have checksums.
async fn events_without_checksums_are_read() -> Result<()> {
    for kind in crate::support::KINDS {
        let stage = Stage::with_source(move || {
            SourceServer::start(SourceOptions::new(kind).arg("--binlog-checksum=NONE"))
        })
        .await?;
        stage
            .source
            .execute("CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, a INT)")
            .await?;
        let mut pipe = start(launch(&stage.pipe_file(&["t"])))?;
        pipe.wait_state("Running", START).await?;
        // The files that follow have checksums again: the kind changes within one stream.
        for checksum in ["NONE", "CRC32", "NONE"] {
            stage
                .source
                .execute(format!("SET GLOBAL binlog_checksum = {checksum}"))
                .await?;
            stage
                .source
                .execute_all([
                    "INSERT INTO t (a) VALUES (1), (2)",
                    "UPDATE t SET a = a * 2",
                ])
                .await?;
            assert_caught_up(&stage, &mut pipe, &["t"]).await?;
        }
    }
    Ok(())
}

async fn minimal_row_images_are_refused_by_name() -> Result<()> {
    for kind in crate::support::KINDS {
        let stage = Stage::with_source(move || {
            SourceServer::start(SourceOptions::new(kind).arg("--binlog-row-image=MINIMAL"))
        })
        .await?;
        stage
            .source
            .execute("CREATE TABLE t (id INT PRIMARY KEY, a INT)")
            .await?;
        let mut pipe = start(launch(&stage.pipe_file(&["t"])))?;
        ensure!(pipe.wait_exit(START).await? == 1);
        let log = pipe.log().tail();
        ensure!(
            log.contains("binlog_row_image") && log.contains("FULL"),
            "{log}"
        );
    }
    Ok(())
}

/// pitfall 60, pitfall 62: both are told apart before anything is read.
async fn a_binlog_purged_or_made_anew_fails_the_pipe_by_name(kind: SourceKind) -> Result<()> {
    let reset = match kind.is_mariadb() {
        true => "RESET MASTER",
        false => "RESET BINARY LOGS AND GTIDS",
    };
    // Behind a RESET more may be written than was read, under the same GTIDs.
    for (code, remedy, written) in [
        ("position_purged", "keep the binlog", 0),
        ("source_diverged", "resync", 0),
        ("source_diverged", "resync", 30),
    ] {
        let stage =
            Stage::with_source(move || SourceServer::start(SourceOptions::new(kind))).await?;
        stage
            .source
            .execute("CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY)")
            .await?;
        let mut pipe = start(launch(&stage.pipe_file(&["t"])))?;
        pipe.wait_state("Running", START).await?;
        assert_caught_up(&stage, &mut pipe, &["t"]).await?;
        pipe.kill9()?;
        if code == "position_purged" {
            stage.source.execute("INSERT INTO t VALUES (), ()").await?;
            purge_all_but_the_newest(&stage.source_server).await?;
        } else {
            // The time of a file is in seconds.
            tokio::time::sleep(Duration::from_millis(1_100)).await;
            stage.source.execute(reset).await?;
            for _ in 0..written {
                stage.source.execute("INSERT INTO t VALUES ()").await?;
            }
        }
        pipe.restart()?;
        let status = pipe
            .wait_for("Failed", CATCH_UP, |status| status["state"] == "Failed")
            .await?;
        let text = status.to_string();
        ensure!(text.contains(code) && text.contains(remedy), "{status:#}");
    }
    Ok(())
}

/// pitfall 58, pitfall 59
async fn tagged_gtids_and_gaps_carry_a_pipe_over_a_restart() -> Result<()> {
    let stage =
        Stage::with_source(|| SourceServer::start(SourceOptions::new(SourceKind::MySql))).await?;
    stage
        .source
        .execute("CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, a INT)")
        .await?;
    let mut pipe = start(launch(&stage.pipe_file(&["t"])))?;
    pipe.wait_state("Running", START).await?;
    let mut conn = stage.source.connect().await?;
    let uuid: Option<String> = conn.query_first("SELECT @@server_uuid").await?;
    let uuid = uuid.unwrap_or_default();
    for round in 0..3_u32 {
        let far = 100_000 - round * 10_000;
        for next in [
            "AUTOMATIC:night".to_owned(),
            format!("{uuid}:{far}"),
            format!("{uuid}:day:{far}"),
            "AUTOMATIC".to_owned(),
        ] {
            conn.query_drop(format!("SET SESSION gtid_next = '{next}'"))
                .await?;
            conn.query_drop(format!("INSERT INTO t (a) VALUES ({round})"))
                .await?;
        }
        conn.query_drop("SET SESSION gtid_next = 'AUTOMATIC'")
            .await?;
        assert_caught_up(&stage, &mut pipe, &["t"]).await?;
        pipe.kill9()?;
        conn.query_drop("UPDATE t SET a = a + 10").await?;
        pipe.restart()?;
    }
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    let status = pipe.status().await?;
    let position = status["checkpoint"]["position"]
        .as_str()
        .unwrap_or_default();
    ensure!(
        position.contains(":night:1-3") && position.contains(":100000"),
        "{position}"
    );
    Ok(())
}

/// pitfall 83: since 11.4 events inside a transaction are written without their end. The place behind the transaction is
/// the server's to tell, and reading begins there again.
async fn offsets_that_mariadb_11_leaves_out_of_transactions_are_not_needed() -> Result<()> {
    for legacy in [false, true] {
        let stage = Stage::with_source(move || {
            let options = SourceOptions::new(SourceKind::MariaDb11);
            SourceServer::start(
                options.arg(format!("--binlog-legacy-event-pos={}", u8::from(legacy))),
            )
        })
        .await?;
        let mut conn = stage.source.connect().await?;
        let effective: Option<bool> = conn
            .query_first("SELECT @@GLOBAL.binlog_legacy_event_pos")
            .await?;
        ensure!(effective == Some(legacy), "the server is set otherwise");
        conn.query_drop("CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY)")
            .await?;
        let mut file = stage.pipe_file(&["t"]);
        file["source"]["position"] = json!("file");
        let mut pipe = start(launch(&file))?;
        pipe.wait_state("Running", START).await?;
        for _ in 0..3 {
            for statement in [
                "START TRANSACTION",
                "INSERT INTO t VALUES (), ()",
                "DELETE FROM t ORDER BY id LIMIT 1",
                "COMMIT",
            ] {
                conn.query_drop(statement).await?;
            }
            assert_caught_up(&stage, &mut pipe, &["t"]).await?;
            pipe.kill9()?;
            conn.query_drop("INSERT INTO t VALUES (), ()").await?;
            pipe.restart()?;
        }
        assert_caught_up(&stage, &mut pipe, &["t"]).await?;
        let status = pipe.status().await?;
        let position = status["checkpoint"]["position"].as_str();
        ensure!(
            position.is_some_and(|position| position.starts_with("binlog.")),
            "{status:#}"
        );
    }
    Ok(())
}
