//! Row images that leave columns out, and a binlog that leaves databases out: both are told before anything is read.

use anyhow::{Result, ensure};
use serde_json::json;
use testbed::harness::Stage;
use testbed::{SourceKind, SourceOptions, SourceServer};

use super::{asked_pipe, assert_setup_tells, follow, told};
use crate::support::{assert_caught_up, once, running_with};

once! {
    what_a_binlog_leaves_out_is_told_with_what_reading_it_takes: 240,
}

async fn what_a_binlog_leaves_out_is_told_with_what_reading_it_takes() -> Result<()> {
    let start = || SourceServer::start(SourceOptions::new(SourceKind::MySql));
    let stage = Stage::with_source(start).await?;
    let only = format!("--binlog-do-db={}", stage.database);
    tokio::task::block_in_place(|| {
        stage.source_server.stop()?;
        stage.source_server.start_again_with(&[
            "--binlog-row-image=MINIMAL",
            "--gtid-mode=OFF",
            "--enforce-gtid-consistency=OFF",
            &only,
        ])
    })?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a INT, b INT)",
            "INSERT INTO t VALUES (1, 1, 1), (2, 2, 2)",
            "CREATE DATABASE elsewhere",
            "CREATE TABLE elsewhere.u (id INT PRIMARY KEY)",
        ])
        .await?;
    let asked = Stage::shared(SourceKind::MySql).await?;
    let pipe = asked_pipe(&asked, None).await?;
    let entry = |source: String| json!({ "source": source });
    let t = format!("{}.t", stage.database);
    let mut file = stage.pipe_file_of(vec![entry(t), entry("elsewhere.u".to_owned())]);
    file["row_image"] = json!("complete");
    let found = told(&pipe, &file).await?;
    // By file and offset nobody knows whether a row is older than its event.
    found.ensure(
        &["row_image", "binlog_filter"],
        &["binlog_row_image", "gtid_mode"],
    )?;
    assert_setup_tells(&file, &found).await?;
    // A wildcard is no less specific about its tables than their names are.
    let t = format!("{}.t", stage.database);
    let wild = stage.pipe_file_of(vec![entry(t), entry("else*.u*".to_owned())]);
    let wild = told(&pipe, &wild).await?;
    wild.ensure(&["binlog_filter", "binlog_row_image"], &["gtid_mode"])?;

    follow(&stage, &found.found, "SET GLOBAL enforce_gtid_consistency").await?;
    let mut file = stage.pipe_file(&["t"]);
    file["row_image"] = json!("complete");
    let found = told(&pipe, &file).await?;
    found.ensure(&[], &["binlog_row_image"])?;
    ensure!(
        found.errors.is_empty() && !found.warnings.contains("gtid_mode"),
        "{found:#?}"
    );
    let mut pipe = running_with(&file).await?;
    stage
        .source
        .execute_all([
            "UPDATE t SET a = 3 WHERE id = 1",
            "DELETE FROM t WHERE id = 2",
        ])
        .await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await
}
