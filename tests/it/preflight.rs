//! What stands in the way of a pipe is told all at once, each with its code, what was found and what mends it; and
//! `validate --online` tells the same as Setup.

mod both_ends;

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable;
use serde_json::{Value, json};
use testbed::harness::{Pipe, Stage};
use testbed::{SourceKind, SourceOptions, SourceServer};

use crate::support::{CATCH_UP, launch, on_both_sources, running_with, start};

on_both_sources! {
    everything_that_stands_in_the_way_is_found_at_once: 300,
}

/// The findings of `validate --online --json`.
pub(crate) async fn findings(pipe: &Pipe) -> Result<Vec<Value>> {
    findings_at(pipe, &pipe.path().display().to_string()).await
}

/// The same for another file.
async fn findings_at(pipe: &Pipe, path: &str) -> Result<Vec<Value>> {
    let told = pipe.cli(&["validate", "--online", "--json", path]).await?;
    let document: Value =
        serde_json::from_str(&told.stdout).with_context(|| format!("{told:?}"))?;
    let found = match &document["error"]["findings"] {
        Value::Null => &document["findings"],
        found => found,
    };
    found
        .as_array()
        .cloned()
        .with_context(|| format!("{document:#}"))
}

/// The codes of those that weigh so much.
pub(crate) fn codes(findings: &[Value], severity: &str) -> BTreeSet<String> {
    findings
        .iter()
        .filter(|finding| finding["severity"] == severity)
        .filter_map(|finding| finding["check"].as_str().map(str::to_owned))
        .collect()
}

/// A server with every fault that a server can be started with, and a database with those that tables can have.
async fn faulty(kind: SourceKind) -> Result<Stage> {
    let stage = Stage::with_source(move || {
        let mut options = SourceOptions::new(kind)
            .arg("--binlog-ignore-db=left_out")
            .arg("--binlog-expire-logs-seconds=3600")
            .arg("--binlog-row-metadata=MINIMAL")
            .arg("--max-allowed-packet=1M");
        if kind == SourceKind::MySql {
            options = options
                .arg("--gtid-mode=OFF")
                .arg("--enforce-gtid-consistency=OFF");
        }
        SourceServer::start(options)
    })
    .await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, note LONGTEXT)",
            "CREATE TABLE keyless (a INT)",
            "CREATE TABLE Twin (id INT PRIMARY KEY)",
            "CREATE TABLE twin (id INT PRIMARY KEY)",
            "CREATE TABLE _t_gho (id INT PRIMARY KEY)",
            "CREATE DATABASE left_out",
            "CREATE TABLE left_out.a (id INT PRIMARY KEY)",
            "CREATE TABLE mysql.rds_configuration (name VARCHAR(100), value VARCHAR(100))",
            "INSERT INTO mysql.rds_configuration VALUES ('binlog retention hours', NULL)",
        ])
        .await?;
    Ok(stage)
}

/// pitfall 64: the filters come from the statement that each server has for its binlog's end; pitfall 67, pitfall 137.
async fn everything_that_stands_in_the_way_is_found_at_once(kind: SourceKind) -> Result<()> {
    let stage = faulty(kind).await?;
    // The session stays until its rollback: after the rollback of a transaction whose session is gone, MariaDB 10.11
    // refuses a row of any other session now and then (error 1031, one run in four).
    let mut prepared = stage.source.connect().await?;
    for sql in [
        "XA START 'x'",
        "INSERT INTO _t_gho VALUES (1)",
        "XA END 'x'",
        "XA PREPARE 'x'",
    ] {
        prepared.query_drop(sql).await?;
    }
    let mut file = stage.pipe_file_of(vec![
        json!({ "source": format!("{}.t", stage.database), "exclude_columns": ["no_such_column"] }),
        json!({ "source": format!("{}.*", stage.database) }),
        json!({ "source": "left_out.a" }),
        json!({ "source": format!("{}.no_such_table", stage.database) }),
    ]);
    let own_id = stage.source.number("SELECT @@GLOBAL.server_id").await?;
    file["source"]["server_id"] = json!(own_id);
    file["destination"]["password"] = json!("wrong");
    let mut pipe = start(launch(&file))?;
    let found = findings(&pipe).await?;
    let refusing: &[&str] = &[
        "destination",
        "binlog_filter",
        "exclude_columns",
        "key",
        "rds_retention",
        "server_id",
        "table",
    ];
    let mut warning = vec![
        "binlog_expire_logs_seconds",
        "binlog_row_metadata",
        "max_allowed_packet",
        "tool_table",
        "xa_prepared",
    ];
    if kind == SourceKind::MySql {
        warning.push("gtid_mode");
    }
    let (errors, warnings) = (codes(&found, "error"), codes(&found, "warning"));
    for code in refusing {
        ensure!(errors.contains(*code), "{code} was not found: {found:#?}");
    }
    for code in &warning {
        ensure!(warnings.contains(*code), "{code} was not found: {found:#?}");
    }
    let twins = found.iter().filter(|finding| {
        finding["check"] == "key"
            && finding["found"]
                .as_str()
                .is_some_and(|found| !found.contains("keyless"))
    });
    ensure!(
        twins.count() == 0,
        "tables whose names differ in case only are taken for one: {found:#?}"
    );
    for finding in &found {
        for part in ["found", "needed", "remedy", "kind"] {
            let text = finding[part].as_str().unwrap_or_default();
            ensure!(!text.is_empty(), "no {part}: {finding:#}");
        }
    }
    // Setup refuses with the same, and says all of it.
    ensure!(pipe.wait_exit(CATCH_UP).await? == 1);
    let log = pipe.log().tail();
    for code in &errors {
        ensure!(
            log.contains(&format!("{code}: ")),
            "Setup does not tell of {code}:\n{log}"
        );
    }
    // Each remedy mends its own: afterwards there are warnings only, and the pipe starts.
    prepared.query_drop("XA ROLLBACK 'x'").await?;
    stage
        .source
        .execute_all([
            "UPDATE mysql.rds_configuration SET value = '72'",
            "SET GLOBAL binlog_expire_logs_seconds = 259200",
            "SET GLOBAL binlog_row_metadata = 'FULL'",
            "SET GLOBAL max_allowed_packet = 67108864",
        ])
        .await?;
    let file = stage.pipe_file(&["t"]);
    let mut pipe = running_with(&file).await?;
    let left = findings(&pipe).await?;
    let occupied = |code: &String| code == "target_table";
    ensure!(
        codes(&left, "error").iter().all(occupied),
        "something is left: {left:#?}"
    );
    ensure!(
        codes(&left, "warning")
            .iter()
            .all(|code| code == "gtid_mode"),
        "something is left: {left:#?}"
    );
    stage
        .source
        .execute("INSERT INTO t VALUES (1, 'one')")
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    ensure!(stage.assert_same("t").await? == 1);
    Ok(())
}
