//! Statements that are no row events: what is applied, what stops the pipe by name, and what concerns nobody.

use std::time::Duration;

use anyhow::{Result, ensure};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use serde_json::{Value, json};
use testbed::harness::{Pipe, Stage};
use testbed::{SourceKind, SourceOptions, SourceServer};

use crate::support::{
    CATCH_UP, assert_caught_up, launch, on_both_sources, running, start, table_of_many_rows,
};

on_both_sources! {
    truncate_hides_every_row_and_forgets_no_version: 300,
    truncate_during_the_load_leaves_the_later_rows: 300,
    an_added_nullable_column_is_added_at_the_destination: 300,
    columns_added_in_several_places_hold_later_rows: 300,
    a_literal_default_of_an_added_column_is_shown_for_earlier_rows: 300,
    statements_left_to_a_person_take_the_table_out_by_name: 300,
    statements_on_other_tables_concern_nobody: 300,
    a_call_that_is_logged_as_text_stops_the_one_table_that_its_function_writes_to: 300,
}

async fn with_rows(kind: SourceKind) -> Result<(Stage, Pipe)> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a VARCHAR(20) NULL)",
            "INSERT INTO t VALUES (1, 'one'), (2, 'two'), (3, NULL)",
        ])
        .await?;
    let pipe = running(&stage, &["t"]).await?;
    Ok((stage, pipe))
}

async fn truncate_hides_every_row_and_forgets_no_version(kind: SourceKind) -> Result<()> {
    let (stage, mut pipe) = with_rows(kind).await?;
    stage
        .source
        .execute_all(["UPDATE t SET a = 'x' WHERE id = 1", "TRUNCATE TABLE t"])
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    ensure!(stage.assert_same("t").await? == 0);
    // FINAL would hide them.
    let tombstones = format!(
        "SELECT uniqExact(id) FROM `{}`.t WHERE _is_deleted = 1",
        stage.database
    );
    ensure!(
        stage.clickhouse.number(&tombstones).await? == 3,
        "rows were removed instead of hidden"
    );
    stage
        .source
        .execute_all([
            "INSERT INTO t VALUES (2, 'again'), (7, 'new')",
            "TRUNCATE t",
            "INSERT INTO t VALUES (2, 'once more')",
        ])
        .await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    pipe.kill9()?;
    stage
        .source
        .execute_all(["TRUNCATE TABLE t", "INSERT INTO t VALUES (5, 'five')"])
        .await?;
    pipe.restart()?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await
}

async fn truncate_during_the_load_leaves_the_later_rows(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    let row = ("a VARCHAR(200)", "REPEAT('x', 200)");
    table_of_many_rows(&stage, "t", row, 15).await?;
    let mut file = stage.pipe_file(&["t"]);
    file["snapshot"] = json!({ "rows_per_partition": 200, "threads_per_table": 1 });
    let mut pipe = start(launch(&file))?;
    pipe.wait_for("a partition", CATCH_UP, |status| {
        status["state"] != "Snapshot"
            && status["state"] != "Provisioning"
            && status["state"] != "Setup"
            || status["tables"][0]["snapshot"]["partitions_done"].as_u64() > Some(2)
    })
    .await?;
    stage
        .source
        .execute_all([
            "TRUNCATE TABLE t",
            "INSERT INTO t (a) VALUES ('after')",
            "INSERT INTO t VALUES (30000, 'high')",
        ])
        .await?;
    pipe.wait_state("Running", CATCH_UP).await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    ensure!(stage.assert_same("t").await? == 2);
    Ok(())
}

async fn an_added_nullable_column_is_added_at_the_destination(kind: SourceKind) -> Result<()> {
    let (stage, mut pipe) = with_rows(kind).await?;
    stage
        .source
        .execute_all([
            "INSERT INTO t VALUES (4, 'before')",
            "ALTER TABLE t ADD COLUMN b INT NULL",
            "INSERT INTO t VALUES (5, 'after', 5)",
        ])
        .await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    stage
        .source
        .execute_all([
            "UPDATE t SET b = id WHERE id < 3",
            "DELETE FROM t WHERE id = 3",
        ])
        .await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    ensure!(pipe.stop().await? == 0);
    stage
        .source
        .execute("INSERT INTO t VALUES (6, 'stopped', NULL)")
        .await?;
    pipe.restart()?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await
}

async fn columns_added_in_several_places_hold_later_rows(kind: SourceKind) -> Result<()> {
    let (stage, mut pipe) = with_rows(kind).await?;
    stage.source.execute("ALTER TABLE t ADD COLUMN z DATETIME(3) NULL, ADD COLUMN `odd name` VARCHAR(10) NULL AFTER id").await?;
    stage
        .source
        .execute("INSERT INTO t VALUES (9, 'odd', 'a', '2024-05-05 05:05:05.555')")
        .await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    stage
        .source
        .execute("ALTER TABLE t ADD COLUMN first_one DECIMAL(5,2) NULL FIRST")
        .await?;
    stage
        .source
        .execute_all([
            "UPDATE t SET first_one = id / 3",
            "INSERT INTO t VALUES (1.25, 10, NULL, NULL, NULL)",
        ])
        .await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await
}

async fn a_literal_default_of_an_added_column_is_shown_for_earlier_rows(
    kind: SourceKind,
) -> Result<()> {
    let (stage, mut pipe) = with_rows(kind).await?;
    stage.source.execute("ALTER TABLE t ADD COLUMN b INT NOT NULL DEFAULT 5, ADD COLUMN c VARCHAR(20) DEFAULT 'for all'").await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    stage
        .source
        .execute_all([
            "INSERT INTO t (id, b) VALUES (20, 7)",
            "UPDATE t SET c = NULL WHERE id = 1",
        ])
        .await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await
}

/// pitfall 116: one table waits, and the pipe does not.
async fn statements_left_to_a_person_take_the_table_out_by_name(kind: SourceKind) -> Result<()> {
    for (policy, statement) in [
        ("drop_column", "ALTER TABLE t DROP COLUMN a"),
        // The load that the narrower number takes would bring the drop too.
        (
            "drop_column",
            "ALTER TABLE t DROP COLUMN a, MODIFY id SMALLINT",
        ),
        ("modify_column", "ALTER TABLE t MODIFY COLUMN a TEXT"),
        ("rename_column", "ALTER TABLE t RENAME COLUMN a TO b"),
        ("truncate", "TRUNCATE TABLE t"),
        (
            "reload",
            "ALTER TABLE t ADD COLUMN b VARCHAR(40) NOT NULL DEFAULT (CONCAT('row ', id))",
        ),
        ("drop_table", "RENAME TABLE t TO t2"),
        ("drop_table", "DROP TABLE t"),
    ] {
        let (stage, mut pipe) = with_rows(kind).await?;
        ensure!(pipe.stop().await? == 0);
        let mut file = stage.pipe_file(&["t"]);
        file["ddl"] = json!({ policy: "quarantine" });
        pipe.change_file(&file);
        pipe.restart()?;
        pipe.wait_state("Running", CATCH_UP).await?;
        stage
            .source
            .execute("INSERT INTO t VALUES (10, 'last')")
            .await?;
        stage.source.execute(statement).await?;
        let status = pipe.wait_state("Degraded", CATCH_UP).await?;
        let reason = &status["reasons"][0];
        let text = reason.to_string();
        ensure!(
            text.contains(&format!("{}.t", stage.database)),
            "`{statement}` does not name the table: {status:#}"
        );
        ensure!(
            reason["remedy"]
                .as_str()
                .is_some_and(|remedy| !remedy.is_empty()),
            "no remedy: {status:#}"
        );
        // Everything before the statement is there.
        let last = format!(
            "SELECT count() FROM `{}`.t_current WHERE id = 10",
            stage.database
        );
        ensure!(
            stage.clickhouse.number(&last).await? == 1,
            "the row before `{statement}` is missing"
        );
        let column = format!(
            "SELECT count() FROM system.columns WHERE database = '{}' AND table = 't' AND name = 'a'",
            stage.database
        );
        ensure!(
            stage.clickhouse.number(&column).await? == 1,
            "`{statement}` was followed"
        );
    }
    Ok(())
}

async fn statements_on_other_tables_concern_nobody(kind: SourceKind) -> Result<()> {
    let (stage, mut pipe) = with_rows(kind).await?;
    let mut conn = stage.source.connect().await?;
    for statement in [
        "CREATE TABLE other (id INT PRIMARY KEY, a INT)",
        "INSERT INTO other VALUES (1, 1)",
        "ALTER TABLE other ADD COLUMN b INT NOT NULL DEFAULT 3",
        "TRUNCATE TABLE other",
        "RENAME TABLE other TO another",
        "DROP TABLE another",
        "CREATE TABLE t_like LIKE t",
        "DROP TABLE t_like",
        "CREATE VIEW v AS SELECT id FROM t",
        "DROP VIEW v",
        "CREATE INDEX later ON t (a)",
        "ANALYZE TABLE t",
        "CREATE TEMPORARY TABLE t_temporary (id INT)",
        "DROP TEMPORARY TABLE t_temporary",
        "CREATE PROCEDURE p() BEGIN INSERT INTO t VALUES (50, 'by procedure'); END",
        "CALL p()",
        "CREATE TRIGGER g AFTER INSERT ON t FOR EACH ROW SET @x = NEW.id",
        "INSERT INTO t VALUES (51, 'with trigger')",
        "DROP TRIGGER g",
        "FLUSH TABLES",
    ] {
        conn.query_drop(statement).await?;
    }
    // A view and a table of the same statement in another database.
    let elsewhere = format!("{}_elsewhere", stage.database);
    for statement in [
        format!("CREATE DATABASE {elsewhere}"),
        format!("CREATE TABLE {elsewhere}.t (id INT PRIMARY KEY)"),
        format!("ALTER TABLE {elsewhere}.t ADD COLUMN b INT"),
        format!("DROP DATABASE {elsewhere}"),
    ] {
        conn.query_drop(statement).await?;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_caught_up(&stage, &mut pipe, &["t"]).await
}

/// pitfall 66: a function that writes is logged as the SELECT that called it, where statements are logged as text. What it
/// writes to, its own text tells, whatever its name is. On a server of its own, since it may concern every pipe.
async fn a_call_that_is_logged_as_text_stops_the_one_table_that_its_function_writes_to(
    kind: SourceKind,
) -> Result<()> {
    let server = move || SourceServer::start(SourceOptions::new(kind));
    let stage = Stage::with_source(server).await?;
    let mut root = Conn::from_url(stage.source_server.root_url()).await?;
    root.query_drop(format!("USE `{}`", stage.database)).await?;
    for (function, table) in [("t", "t"), ("elsewhere", "u")] {
        for statement in [
            format!("CREATE TABLE {table} (id INT PRIMARY KEY, a INT)"),
            format!("INSERT INTO {table} VALUES (1, 1)"),
            format!(
                "CREATE FUNCTION {function}(n INT) RETURNS INT DETERMINISTIC MODIFIES SQL DATA \
                 BEGIN UPDATE {table} SET a = a + n; RETURN n; END"
            ),
        ] {
            root.query_drop(statement).await?;
        }
    }
    let mut pipe = running(&stage, &["t", "u"]).await?;
    for (function, stopped, other) in [("t", "t", "u"), ("elsewhere", "u", "t")] {
        for statement in [
            "SET SESSION binlog_format = 'STATEMENT'".to_owned(),
            format!("SELECT {function}(10)"),
            "SET SESSION binlog_format = 'ROW'".to_owned(),
            "UPDATE u SET a = a * 2".to_owned(),
        ] {
            root.query_drop(statement).await?;
        }
        let out = |status: &Value| {
            let tables = status["tables"].as_array().into_iter().flatten();
            let out = tables.filter(|table| table["state"] == "Quarantined");
            let names = out.filter_map(|table| table["source"].as_str()?.split('.').next_back());
            status["state"] == "Degraded" && names.eq([stopped])
        };
        let status = pipe.wait_for("those out of service", CATCH_UP, out).await?;
        let told = status["reasons"].to_string();
        ensure!(
            told.contains("reaches the table by a view, a trigger or a function"),
            "{status:#}"
        );
        assert_caught_up(&stage, &mut pipe, &[other]).await?;
        let table = format!("{}.{stopped}", stage.database);
        let resync = json!({ "command": "resync", "table": table });
        let (status, answer) = pipe.order(resync).await?;
        ensure!(status == 200, "{status} {answer:#}");
        pipe.wait_state("Running", CATCH_UP).await?;
        assert_caught_up(&stage, &mut pipe, &["t", "u"]).await?;
    }
    Ok(())
}
