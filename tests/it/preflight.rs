//! What stands in the way of a pipe is told all at once, each with its code, what was found and what mends it; and
//! `validate --online` tells the same as Setup.

mod away;
mod both_ends;
mod entries;
mod images;
mod targets;

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable;
use serde_json::{Value, json};
use testbed::harness::{Pipe, Stage};
use testbed::{SourceKind, SourceOptions, SourceServer};

pub(crate) use both_ends::{asked_pipe, assert_setup_tells, told};

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
                .arg("--enforce-gtid-consistency=OFF")
                // Else it shows sizes of a day ago.
                .arg("--information-schema-stats-expiry=0");
        }
        SourceServer::start(options)
    })
    .await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, note LONGTEXT) STATS_PERSISTENT=1 STATS_AUTO_RECALC=0",
            "CREATE TABLE keyless (a INT)",
            "CREATE TABLE Twin (id INT PRIMARY KEY)",
            "CREATE TABLE twin (id INT PRIMARY KEY)",
            "CREATE TABLE _t_gho (id INT PRIMARY KEY)",
            "CREATE DATABASE left_out",
            "CREATE TABLE left_out.a (id INT PRIMARY KEY)",
            "CREATE TABLE mysql.rds_configuration (name VARCHAR(100), value VARCHAR(100))",
            "INSERT INTO mysql.rds_configuration VALUES ('binlog retention hours', NULL)",
            "ANALYZE TABLE t",
            // 305 GiB, which the server believes.
            "UPDATE mysql.innodb_table_stats SET clustered_index_size = 20000000 WHERE table_name = 't'",
            "FLUSH TABLE t",
        ])
        .await?;
    // MariaDB goes on with the sizes that it knows until it begins anew.
    if kind.is_mariadb() {
        tokio::task::block_in_place(|| {
            stage.source_server.stop()?;
            stage.source_server.start_again()
        })?;
    }
    Ok(stage)
}

/// Runs the statements of those remedies that begin so.
pub(crate) async fn follow(stage: &Stage, found: &[Value], verb: &str) -> Result<()> {
    for finding in found {
        let remedy = finding["remedy"].as_str().unwrap_or_default();
        if remedy.starts_with(verb) {
            let statements = remedy.split("; ");
            let followed = stage.source.execute_all(statements).await;
            followed.with_context(|| format!("{finding:#}"))?;
        }
    }
    Ok(())
}

/// What is said under this code.
pub(crate) fn said_of(found: &[Value], code: &str) -> String {
    let said = found.iter().filter(|finding| finding["check"] == code);
    said.map(Value::to_string).collect()
}

/// Each finding has all of its parts, and those that statements mend name them, with what they are about.
fn ensure_exact(found: &[Value]) -> Result<()> {
    for finding in found {
        for part in ["found", "needed", "remedy", "kind"] {
            let text = finding[part].as_str().unwrap_or_default();
            ensure!(!text.is_empty(), "no {part}: {finding:#}");
        }
    }
    let keys = found.iter().filter(|finding| finding["check"] == "key");
    let of_twins = keys.filter(|finding| !finding["found"].to_string().contains("keyless"));
    ensure!(
        of_twins.count() == 0,
        "tables whose names differ in case only are taken for one: {found:#?}"
    );
    for (code, said) in [
        ("key", "ALTER TABLE"),
        (
            "xa_prepared",
            "XA COMMIT X'78',X'',1; or XA ROLLBACK X'78',X'',1",
        ),
        ("table", "no table that the account can see is"),
        // Three loads of that outlast what the server keeps.
        (
            "binlog_expire_logs_seconds",
            "the load of 305 GiB may take 31250 s",
        ),
    ] {
        let text = said_of(found, code);
        ensure!(text.contains(said), "no `{said}` in {text}");
    }
    Ok(())
}

/// Each remedy mends its own: afterwards nothing is left, and the pipe starts.
async fn mended(stage: &Stage, ended: &Pipe, found: &[Value]) -> Result<Pipe> {
    let set_hours = |hours: u32| format!("UPDATE mysql.rds_configuration SET value = '{hours}'");
    stage.source.execute(set_hours(12)).await?;
    let hours = said_of(&findings(ended).await?, "rds_retention");
    ensure!(hours.contains("12 hours"), "{hours}");
    stage.source.execute(set_hours(72)).await?;
    follow(stage, found, "SET GLOBAL ").await?;
    let pipe = running_with(&stage.pipe_file(&["t"])).await?;
    let left = findings(&pipe).await?;
    let errors = codes(&left, "error");
    let occupied = |code: &String| code == "target_table";
    ensure!(
        errors.iter().all(occupied) && codes(&left, "warning").is_empty(),
        "something is left: {left:#?}"
    );
    Ok(pipe)
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
        "destination_denied",
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
    for (codes, wanted) in [(&errors, refusing), (&warnings, warning.as_slice())] {
        for code in wanted {
            ensure!(codes.contains(*code), "{code} was not found: {found:#?}");
        }
    }
    ensure_exact(&found)?;
    // Setup refuses with the same, and says all of it.
    ensure!(pipe.wait_exit(CATCH_UP).await? == 1);
    let log = pipe.log().tail();
    for code in &errors {
        ensure!(
            log.contains(&format!("{code}: ")),
            "Setup does not tell of {code}:\n{log}"
        );
    }
    prepared.query_drop("XA ROLLBACK X'78',X'',1").await?;
    drop(prepared);
    let mut pipe = mended(&stage, &pipe, &found).await?;
    stage
        .source
        .execute("INSERT INTO t VALUES (1, 'one')")
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    ensure!(stage.assert_same("t").await? == 1);
    Ok(())
}
