//! Sessions that log statements although the server logs rows: what cannot be followed takes its table out of service by
//! name, and what was undone, or done to a table of another kind, changes nothing.

use std::fs;

use anyhow::{Context, Result, ensure};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use serde_json::json;
use testbed::harness::{Pipe, Stage};
use testbed::{SourceKind, SourceOptions, SourceServer};

use crate::support::{
    CATCH_UP, assert_caught_up, end_of_binlog, events_behind, has_kinds, on_both_mariadbs,
    on_both_sources, running,
};

on_both_sources! {
    rows_changed_in_statement_form_take_their_table_out: 240,
    a_delete_that_waits_for_the_decision_of_an_xa_transaction_empties_no_table: 240,
    a_statement_that_reaches_a_table_without_naming_it_takes_that_table_out: 300,
    a_statement_of_what_the_account_does_not_see_is_told_and_of_what_it_sees_is_followed: 300,
    what_was_logged_as_text_before_a_load_is_passed_over: 240,
    a_temporary_table_of_the_same_name_is_another: 240,
    a_file_that_is_loaded_comes_as_rows_or_takes_its_table_out: 240,
}

on_both_mariadbs! {
    a_delete_that_was_rolled_back_empties_no_table: 240,
}

async fn own_source(options: SourceOptions) -> Result<Stage> {
    Stage::with_source(move || SourceServer::start(options)).await
}

/// Two tables with rows, of which `t` is the one that something happens to.
async fn with_rows(stage: &Stage) -> Result<()> {
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, v INT)",
            "CREATE TABLE u (id INT PRIMARY KEY, v INT)",
            "INSERT INTO t VALUES (1, 1), (2, 2)",
            "INSERT INTO u VALUES (1, 1)",
        ])
        .await
}

async fn run(conn: &mut Conn, statements: &[&str]) -> Result<()> {
    for statement in statements {
        let done = conn.query_drop(*statement).await;
        done.with_context(|| (*statement).to_owned())?;
    }
    Ok(())
}

/// Runs them in a session that logs statements.
async fn in_text(stage: &Stage, statements: &[&str]) -> Result<()> {
    let mut conn = stage.source.connect().await?;
    conn.query_drop("SET SESSION binlog_format = 'STATEMENT'")
        .await?;
    run(&mut conn, statements).await?;
    Ok(conn.disconnect().await?)
}

/// Waits until `t` is out of service for that reason, with the rows that it had, and `u` goes on; then takes it in again.
async fn out_and_back(stage: &Stage, pipe: &mut Pipe, said: &str, rows: u64) -> Result<()> {
    let table = format!("{}.t", stage.database);
    let status = pipe
        .wait_for("t out of service", CATCH_UP, |status| {
            status["state"] == "Degraded"
        })
        .await?;
    let reasons = status["reasons"].as_array().context("reasons")?;
    ensure!(
        reasons.len() == 1
            && reasons[0]["table"] == table.as_str()
            && reasons[0].to_string().contains(said)
            && reasons[0].to_string().contains("binlog_format"),
        "{status:#}"
    );
    assert_caught_up(stage, pipe, &["u"]).await?;
    let shown = format!("SELECT count() FROM `{}`.t_current", stage.database);
    let shown = stage.clickhouse.number(&shown).await?;
    ensure!(shown == rows, "{shown} rows are shown instead of {rows}");
    let body = json!({ "command": "resync", "table": table });
    let (code, answer) = pipe.order(body).await?;
    ensure!(code == 200, "{code} {answer:#}");
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(stage, pipe, &["t", "u"]).await
}

/// pitfall 66: a session may log statements although the server logs rows.
async fn rows_changed_in_statement_form_take_their_table_out(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    with_rows(&stage).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE foreign_one (id INT PRIMARY KEY, v INT)",
            "INSERT INTO foreign_one VALUES (1, 1), (2, 2)",
        ])
        .await?;
    let mut pipe = running(&stage, &["t", "u"]).await?;
    let changes = [
        "DELETE FROM foreign_one WHERE id = 1",
        "DELETE FROM t WHERE id = 1",
    ];
    in_text(&stage, &changes).await?;
    stage.source.execute("INSERT INTO u VALUES (2, 2)").await?;
    out_and_back(&stage, &mut pipe, "logged as text", 2).await?;
    stage.source.execute("INSERT INTO t VALUES (3, 3)").await?;
    assert_caught_up(&stage, &mut pipe, &["t", "u"]).await
}

/// pitfall 66, pitfall 95, pitfall 96: only the server itself says by a DELETE that a table is empty.
async fn a_delete_that_waits_for_the_decision_of_an_xa_transaction_empties_no_table(
    kind: SourceKind,
) -> Result<()> {
    let stage = own_source(SourceOptions::new(kind)).await?;
    with_rows(&stage).await?;
    stage
        .source
        .execute(
            "CREATE FUNCTION f(n INT) RETURNS INT DETERMINISTIC MODIFIES SQL DATA \
             BEGIN UPDATE t SET v = v + n; RETURN n; END",
        )
        .await?;
    let mut pipe = running(&stage, &["t", "u"]).await?;
    let prepared = |statement: &'static str| {
        [
            "XA START 'd'",
            statement,
            "XA END 'd'",
            "XA PREPARE 'd'",
            "XA COMMIT 'd'",
        ]
    };
    in_text(&stage, &prepared("DELETE FROM t")).await?;
    out_and_back(&stage, &mut pipe, "logged as text", 2).await?;
    ensure!(stage.assert_same("t").await? == 0);
    // Of what a function did nothing is logged but its name.
    stage
        .source
        .execute("INSERT INTO t VALUES (1, 1), (2, 2)")
        .await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    in_text(&stage, &prepared("SELECT f(10)")).await?;
    out_and_back(&stage, &mut pipe, "by a view, a trigger", 2).await
}

/// pitfall 93, pitfall 94: it is logged where a table without transactions took part. MySQL refuses that with GTIDs.
async fn a_delete_that_was_rolled_back_empties_no_table(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    with_rows(&stage).await?;
    stage
        .source
        .execute("CREATE TABLE outside (id INT) ENGINE = MyISAM")
        .await?;
    let mut pipe = running(&stage, &["t", "u"]).await?;
    let start = end_of_binlog(&stage).await?;
    for undone in [
        [
            "START TRANSACTION",
            "DELETE FROM t",
            "INSERT INTO outside VALUES (9)",
            "ROLLBACK",
        ]
        .as_slice(),
        &[
            "START TRANSACTION",
            "INSERT INTO outside VALUES (8)",
            "SAVEPOINT s",
            "DELETE FROM t",
            "INSERT INTO outside VALUES (7)",
            "ROLLBACK TO s",
            "COMMIT",
        ],
    ] {
        in_text(&stage, undone).await?;
        out_and_back(&stage, &mut pipe, "logged as text", 2).await?;
        ensure!(stage.assert_same("t").await? == 2);
    }
    let events = events_behind(&stage, &start).await?;
    for text in ["ROLLBACK", "ROLLBACK TO `s`"] {
        ensure!(
            events.iter().any(|event| event.info == text),
            "no {text} in {events:#?}"
        );
    }
    Ok(())
}

/// pitfall 66: views, triggers and functions, also over several steps. What they do elsewhere concerns nobody.
async fn a_statement_that_reaches_a_table_without_naming_it_takes_that_table_out(
    kind: SourceKind,
) -> Result<()> {
    let stage = own_source(SourceOptions::new(kind)).await?;
    with_rows(&stage).await?;
    let grant = format!(
        "GRANT TRIGGER, SHOW VIEW ON `{}`.* TO pipewright@'%'",
        stage.database
    );
    stage
        .source
        .execute_all([
            grant.as_str(),
            "CREATE TABLE plain (id INT PRIMARY KEY, v INT)",
            "CREATE TABLE audited (id INT PRIMARY KEY, v INT)",
            "CREATE TABLE audit (id INT, v INT)",
            "CREATE TRIGGER noted AFTER INSERT ON audited FOR EACH ROW INSERT INTO audit VALUES (NEW.id, NEW.v)",
            "CREATE TABLE copied (id INT PRIMARY KEY, v INT)",
            "CREATE TRIGGER copy AFTER INSERT ON copied FOR EACH ROW INSERT INTO t VALUES (NEW.id, NEW.v)",
            "CREATE TABLE first_one (id INT PRIMARY KEY, v INT)",
            "CREATE TRIGGER next_one AFTER INSERT ON first_one FOR EACH ROW INSERT INTO copied VALUES (NEW.id, NEW.v)",
            "CREATE VIEW seen AS SELECT id, v FROM t",
            "CREATE FUNCTION f(n INT) RETURNS INT DETERMINISTIC MODIFIES SQL DATA \
             BEGIN UPDATE t SET v = v + n; RETURN n; END",
            "CREATE FUNCTION g(n INT) RETURNS INT DETERMINISTIC MODIFIES SQL DATA \
             BEGIN UPDATE plain SET v = v + n; RETURN n; END",
            "CREATE VIEW calling AS SELECT f(id) AS x FROM audited",
        ])
        .await?;
    let mut pipe = running(&stage, &["t", "u"]).await?;
    let harmless = [
        "START TRANSACTION",
        "SELECT g(1)",
        "DO g(2)",
        "COMMIT",
        "CREATE TEMPORARY TABLE scratch (id INT)",
        "INSERT INTO scratch VALUES (1)",
        "DROP TEMPORARY TABLE scratch",
        "INSERT INTO plain VALUES (1, 1), (2, 2)",
        "UPDATE plain AS p JOIN audit AS a ON p.id = a.id SET p.v = IFNULL(a.v, 0)",
        "INSERT INTO audited SELECT id, MAX(v) FROM t GROUP BY id",
    ];
    in_text(&stage, &harmless).await?;
    assert_caught_up(&stage, &mut pipe, &["t", "u"]).await?;
    let mut rows = 2;
    let by_name = match kind.is_mariadb() {
        true => "ANALYZE FORMAT=JSON UPDATE t SET v = v + 1",
        false => "UPDATE LOW_PRIORITY t SET v = v + 1",
    };
    for (statement, said, more) in [
        ("INSERT INTO seen VALUES (7, 7)", "by a view, a trigger", 1),
        (
            "INSERT INTO copied VALUES (8, 8)",
            "by a view, a trigger",
            1,
        ),
        (
            "INSERT INTO first_one VALUES (9, 9)",
            "by a view, a trigger",
            1,
        ),
        (
            "INSERT INTO plain SELECT 20, f(1)",
            "by a view, a trigger",
            0,
        ),
        (
            "INSERT INTO audit SELECT 30, MAX(x) FROM calling",
            "by a view, a trigger",
            0,
        ),
        ("SELECT f(1)", "by a view, a trigger", 0),
        (by_name, "logged as text", 0),
    ] {
        in_text(&stage, &[statement]).await?;
        let back = out_and_back(&stage, &mut pipe, said, rows).await;
        back.with_context(|| statement.to_owned())?;
        rows += more;
    }
    let status = pipe.status().await?;
    ensure!(status["state"] == "Running", "{status:#}");
    Ok(())
}

/// pitfall 66: a hidden view or trigger is as good as none, and the log tells with which right it would be seen.
async fn a_statement_of_what_the_account_does_not_see_is_told_and_of_what_it_sees_is_followed(
    kind: SourceKind,
) -> Result<()> {
    let stage = own_source(SourceOptions::new(kind)).await?;
    with_rows(&stage).await?;
    let database = &stage.database;
    let (grant, view, function) = (
        format!("GRANT SELECT ON `{database}`.* TO pipewright@'%'"),
        format!("CREATE VIEW elsewhere.seen AS SELECT id, v FROM `{database}`.t"),
        format!(
            "CREATE FUNCTION elsewhere.f(n INT) RETURNS INT DETERMINISTIC MODIFIES SQL DATA \
             BEGIN UPDATE `{database}`.t SET v = v + n; RETURN n; END"
        ),
    );
    stage
        .source
        .execute_all([
            "CREATE DATABASE elsewhere",
            "CREATE TABLE elsewhere.plain (id INT PRIMARY KEY)",
            view.as_str(),
            function.as_str(),
            "REVOKE SELECT ON *.* FROM pipewright@'%'",
            grant.as_str(),
        ])
        .await?;
    let mut pipe = running(&stage, &["t", "u"]).await?;
    // As a tool does that keeps its notes in a schema of its own.
    in_text(&stage, &["INSERT INTO elsewhere.plain VALUES (1)"]).await?;
    stage.source.execute("INSERT INTO t VALUES (8, 8)").await?;
    assert_caught_up(&stage, &mut pipe, &["t", "u"]).await?;
    let told = pipe.log().text();
    ensure!(
        told.contains("SHOW VIEW ON `elsewhere`.*"),
        "nothing is told of a schema that is not shown: {told}"
    );
    stage
        .source
        .execute("GRANT SELECT, TRIGGER, SHOW VIEW, EXECUTE ON elsewhere.* TO pipewright@'%'")
        .await?;
    in_text(&stage, &["INSERT INTO elsewhere.seen VALUES (7, 7)"]).await?;
    out_and_back(&stage, &mut pipe, "elsewhere.seen", 3).await?;
    // Its text is shown to whoever has made it.
    in_text(&stage, &["SELECT elsewhere.f(1)"]).await?;
    let status = pipe.wait_state("Failed", CATCH_UP).await?;
    ensure!(
        status["reasons"].to_string().contains("binlog_format"),
        "{status:#}"
    );
    let (code, answer) = pipe.order(json!({ "command": "resync" })).await?;
    ensure!(code == 200, "{code} {answer:#}");
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(&stage, &mut pipe, &["t", "u"]).await?;
    in_text(&stage, &["INSERT INTO elsewhere.plain VALUES (2)"]).await?;
    stage.source.execute("INSERT INTO t VALUES (9, 9)").await?;
    assert_caught_up(&stage, &mut pipe, &["t", "u"]).await?;
    ensure!(stage.assert_same("t").await? == 5);
    Ok(())
}

/// pitfall 66: the load begins behind it, and has what it did.
async fn what_was_logged_as_text_before_a_load_is_passed_over(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    with_rows(&stage).await?;
    let mut pipe = running(&stage, &["t", "u"]).await?;
    ensure!(pipe.stop().await? == 0);
    stage
        .source
        .execute("ALTER TABLE t MODIFY v VARCHAR(20)")
        .await?;
    let changes = [
        "START TRANSACTION",
        "UPDATE t SET v = 'text' WHERE id = 1",
        "DELETE FROM t WHERE id = 2",
        "COMMIT",
    ];
    in_text(&stage, &changes).await?;
    stage.source.execute("INSERT INTO u VALUES (2, 2)").await?;
    pipe.restart()?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(&stage, &mut pipe, &["t", "u"]).await?;
    ensure!(stage.assert_same("t").await? == 1);
    Ok(())
}

/// pitfall 39: what is done to it is logged with the name of the table that it hides, where statements are; MariaDB logs
/// its RENAME in every format.
async fn a_temporary_table_of_the_same_name_is_another(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    with_rows(&stage).await?;
    let mut pipe = running(&stage, &["t", "u"]).await?;
    let start = end_of_binlog(&stage).await?;
    for done in ["TRUNCATE t", "ALTER TABLE t DROP COLUMN v"] {
        let statements = [
            "CREATE TEMPORARY TABLE t (id INT PRIMARY KEY, v INT)",
            done,
            "DROP TEMPORARY TABLE t",
        ];
        in_text(&stage, &statements).await?;
        stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
        pipe.wait_state("Running", CATCH_UP).await?;
        assert_caught_up(&stage, &mut pipe, &["t", "u"]).await?;
    }
    if kind.is_mariadb() {
        let mut conn = stage.source.connect().await?;
        let renamed = [
            "CREATE TEMPORARY TABLE t (id INT)",
            "RENAME TABLE t TO t_aside",
        ];
        run(&mut conn, &renamed).await?;
        conn.disconnect().await?;
        stage.source.execute("INSERT INTO t VALUES (3, 3)").await?;
        stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
        pipe.wait_state("Running", CATCH_UP).await?;
        assert_caught_up(&stage, &mut pipe, &["t", "u"]).await?;
        let archived = format!(
            "SELECT count() FROM system.tables WHERE database = '{}' AND name LIKE 't_dropped%'",
            stage.database
        );
        ensure!(
            stage.clickhouse.number(&archived).await? == 0,
            "the table was taken for one that is gone"
        );
    }
    let rows = stage.assert_same("t").await?;
    ensure!(rows == if kind.is_mariadb() { 3 } else { 2 }, "{rows} rows");
    let events = events_behind(&stage, &start).await?;
    ensure!(
        events.iter().any(|event| event.info.contains("TRUNCATE t")),
        "the TRUNCATE was not logged: {events:#?}"
    );
    Ok(())
}

/// pitfall 66: LOAD DATA is rows where rows are logged, and a file beside a statement where statements are.
async fn a_file_that_is_loaded_comes_as_rows_or_takes_its_table_out(
    kind: SourceKind,
) -> Result<()> {
    let stage = own_source(SourceOptions::new(kind).arg("--secure-file-priv=")).await?;
    with_rows(&stage).await?;
    let mut pipe = running(&stage, &["t", "u"]).await?;
    let file = stage.source_server.data_dir().join("rows.txt");
    let load = format!("LOAD DATA INFILE '{}' REPLACE INTO TABLE t", file.display());
    fs::write(&file, "2\t20\n3\t30\n4\t\\N\n")?;
    stage.source.execute(&load).await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    ensure!(stage.assert_same("t").await? == 4);
    fs::write(&file, "4\t40\n5\t50\n")?;
    let start = end_of_binlog(&stage).await?;
    in_text(&stage, &[load.as_str()]).await?;
    out_and_back(&stage, &mut pipe, "logged as text", 4).await?;
    ensure!(stage.assert_same("t").await? == 5);
    let events = events_behind(&stage, &start).await?;
    has_kinds(&events, &["Begin_load_query", "Execute_load_query"])
}
