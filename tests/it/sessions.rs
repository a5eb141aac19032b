//! What a server gives each session, or an account, changes nothing of what a pipe reads.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use testbed::harness::Stage;
use testbed::{SourceKind, SourceOptions, SourceServer};

use crate::support::{START, assert_caught_up, double, launch, on_both_sources, start};

on_both_sources! {
    limits_and_modes_of_the_server_cut_no_load_and_keep_no_old_row: 300,
}

/// More than one partition, and than one SELECT of whole rows.
const ROWS: u32 = 2_048;

/// A global limit is what `DEFAULT` of a session is; without autocommit a session reads one moment for ever; and
/// MariaDB shows every table with system versioning as of a day.
async fn limits_and_modes_of_the_server_cut_no_load_and_keep_no_old_row(
    kind: SourceKind,
) -> Result<()> {
    let server = move || {
        let options = SourceOptions::new(kind);
        SourceServer::start(options.arg("--binlog-row-image=MINIMAL"))
    };
    let stage = Stage::with_source(server).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, a INT NOT NULL, b VARCHAR(20) NULL)",
            "INSERT INTO t (a) VALUES (1)",
        ])
        .await?;
    double(&stage, "t", "a", ROWS.ilog2()).await?;
    let mut tables = vec!["t"];
    let mut globals = vec![
        "SET GLOBAL sql_select_limit = 7",
        "SET GLOBAL init_connect = 'SET autocommit = 0'",
    ];
    if kind.is_mariadb() {
        stage
            .source
            .execute_all([
                "CREATE TABLE versioned (id INT PRIMARY KEY, a INT) WITH SYSTEM VERSIONING",
                "INSERT INTO versioned VALUES (1, 1), (2, 2)",
            ])
            .await?;
        tables.push("versioned");
        globals.push("SET GLOBAL system_versioning_asof = '2001-01-01 00:00:00'");
    }
    stage.source.execute_all(globals).await?;
    let mut file = stage.pipe_file(&tables);
    file["row_image"] = json!("complete");
    file["snapshot"] = json!({ "rows_per_partition": 500 });
    let mut pipe = start(launch(&file))?;
    let loaded = pipe.wait_state("Running", START).await?;
    // Whoever compares is given no limit.
    stage
        .source
        .execute("SET GLOBAL sql_select_limit = DEFAULT")
        .await?;
    if kind.is_mariadb() {
        let present = "SET GLOBAL system_versioning_asof = DEFAULT";
        stage.source.execute(present).await?;
    }
    assert_caught_up(&stage, &mut pipe, &tables).await?;
    let of_t = loaded["tables"].as_array().into_iter().flatten();
    let partitions = of_t
        .filter_map(|table| table["snapshot"]["partitions_total"].as_u64())
        .max();
    ensure!(partitions.context("partitions")? > 1, "{loaded:#}");
    for _ in 0..3 {
        // Each is read whole behind its event.
        for statement in [
            "UPDATE t SET a = a + 1 WHERE id <= 3",
            "INSERT INTO t (a) VALUES (9)",
        ] {
            stage.source.execute(statement).await?;
            assert_caught_up(&stage, &mut pipe, &["t"]).await?;
        }
    }
    Ok(())
}
