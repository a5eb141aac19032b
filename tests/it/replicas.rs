//! A source that follows another server: what its own binlog holds, and how far it has got.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use testbed::harness::replication::{follow, promote, set_applying, wait_followed};
use testbed::harness::{Held, Source, Stage};
use testbed::{ClickHouseServer, SourceKind, SourceOptions, SourceServer};

use crate::preflight::{codes, findings};
use crate::support::{CATCH_UP, START, assert_caught_up, launch, on_both_sources, start};

on_both_sources! {
    a_replica_that_does_not_log_what_it_applies_is_refused_until_it_is_promoted: 420,
    a_replica_that_lags_is_loaded_and_followed_as_it_is: 420,
}

/// A server, on either family with or without what it applies in its own binlog.
async fn server(
    kind: SourceKind,
    logs: &str,
    more: &'static [&'static str],
) -> Result<SourceServer> {
    let name = match kind.is_mariadb() {
        true => "log-slave-updates",
        false => "log-replica-updates",
    };
    let mut options = SourceOptions::new(kind).arg(format!("--{name}={logs}"));
    for argument in more {
        options = options.arg(*argument);
    }
    tokio::task::spawn_blocking(move || SourceServer::start(options)).await?
}

/// pitfall 67: what a replica leaves out reaches no binlog of its own. pitfall 68: nor does anything without
/// log_replica_updates. pitfall 78: what it applied then is in no file of the promoted server, so that a place which names
/// it could not be read from.
async fn a_replica_that_does_not_log_what_it_applies_is_refused_until_it_is_promoted(
    kind: SourceKind,
) -> Result<()> {
    let primary = server(kind, "ON", &[]).await?;
    let replica = server(kind, "OFF", &["--replicate-ignore-db=left_alone"]).await?;
    let clickhouse: &'static ClickHouseServer =
        tokio::task::spawn_blocking(testbed::shared_clickhouse).await?;
    let stage = Stage::on(Held::Own(Box::new(replica)), Held::Shared(clickhouse)).await?;
    let writer = Source::with_database(&primary, &stage.database).await?;
    follow(&stage.source_server, &primary).await?;
    writer
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a INT)",
            "INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)",
            "DELETE FROM t WHERE id = 2",
        ])
        .await?;
    wait_followed(&stage.source_server, &primary).await?;
    let mut pipe = start(launch(&stage.pipe_file(&["t"])))?;
    ensure!(pipe.wait_exit(START).await? == 1);
    let found = findings(&pipe).await?;
    ensure!(
        codes(&found, "error").contains("log_replica_updates"),
        "{found:#?}"
    );
    let filter = found
        .iter()
        .find(|finding| finding["check"] == "replication_filter");
    ensure!(
        filter.is_some_and(|filter| filter["severity"] == "warning"
            && filter["found"].to_string().contains("left_alone")),
        "{found:#?}"
    );

    promote(&stage.source_server).await?;
    if kind.is_mariadb() {
        let places: Vec<(String, String)> = stage
            .source
            .rows("SELECT @@GLOBAL.gtid_current_pos, @@GLOBAL.gtid_binlog_pos")
            .await?;
        ensure!(
            places
                .first()
                .is_some_and(|(current, logged)| current != logged),
            "the place of what was applied is the binlog's: {places:?}"
        );
    }
    pipe.restart()?;
    pipe.wait_state("Running", START).await?;
    for round in 0..2 {
        stage
            .source
            .execute_all([
                format!("INSERT INTO t VALUES ({}, 10)", 10 + round),
                "UPDATE t SET a = a + 1 WHERE id <> 3".to_owned(),
            ])
            .await?;
        assert_caught_up(&stage, &mut pipe, &["t"]).await?;
        pipe.kill9()?;
        stage.source.execute("UPDATE t SET a = a * 2").await?;
        pipe.restart()?;
    }
    assert_caught_up(&stage, &mut pipe, &["t"]).await
}

/// pitfall 68: the place is the replica's own, however much it has received and not applied; that it applies nothing is
/// told, for to the stream it is idle.
async fn a_replica_that_lags_is_loaded_and_followed_as_it_is(kind: SourceKind) -> Result<()> {
    let primary = server(kind, "ON", &[]).await?;
    let stage = Stage::with_source(move || Ok(primary)).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a INT)",
            "INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)",
        ])
        .await?;
    let replica = server(kind, "ON", &[]).await?;
    follow(&replica, &stage.source_server).await?;
    wait_followed(&replica, &stage.source_server).await?;
    set_applying(&replica, false).await?;
    stage
        .source
        .execute_all([
            "INSERT INTO t VALUES (4, 4), (5, 5)",
            "DELETE FROM t WHERE id = 1",
            "UPDATE t SET id = 20 WHERE id = 2",
        ])
        .await?;
    // It has them by now, or soon; it shows none of them either way.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut file = stage.pipe_file(&["t"]);
    file["source"]["port"] = json!(replica.port());
    let mut pipe = start(launch(&file))?;
    let status = pipe.wait_state("Degraded", START).await?;
    let reason = &status["reasons"][0];
    ensure!(
        reason["code"] == "replica_stopped"
            && reason["message"].to_string().contains("applies nothing")
            && status["replica"]["behind_seconds"].is_null(),
        "{status:#}"
    );
    let shown = format!(
        "SELECT arrayStringConcat(arraySort(groupArray(toString(id))), ' ') FROM `{}`.t_current",
        stage.database
    );
    let shown = stage.clickhouse.query(&shown).await?;
    ensure!(shown == "1 2 3", "the load shows {shown}");
    stage.source.execute("INSERT INTO t VALUES (6, 6)").await?;
    set_applying(&replica, true).await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    ensure!(stage.assert_same("t").await? == 5);
    let status = pipe.wait_state("Running", CATCH_UP).await?;
    let behind = status["replica"]["behind_seconds"].as_f64();
    ensure!(behind.is_some_and(|behind| behind < 60.0), "{status:#}");
    let metrics = pipe.get_text("/metrics").await?;
    ensure!(
        metrics.contains("pipewright_replica_lag_seconds{"),
        "{metrics}"
    );
    Ok(())
}
