//! The text of statements as clients write it: in their charset, in comments that a server executes, in the case that they
//! like; and what is said of engines.

use anyhow::{Result, ensure};
use mysql_async::prelude::Queryable;
use serde_json::json;
use testbed::harness::{Pipe, Stage};
use testbed::{SourceKind, SourceOptions, SourceServer};

use crate::support::{CATCH_UP, assert_caught_up, events, on_both_sources, once, running};

on_both_sources! {
    a_definition_is_read_in_the_charset_of_its_client: 240,
    a_comment_is_read_where_the_server_executes_it: 240,
    a_repair_loads_a_table_anew_that_it_may_have_taken_rows_from: 240,
    tables_that_are_written_through_a_merge_table_are_warned_of: 240,
}

once! {
    a_table_of_an_engine_that_keeps_no_rows_is_refused_by_name: 240,
    names_are_one_in_either_case_where_the_server_folds_them: 300,
}

async fn with_rows(kind: SourceKind, table: &str) -> Result<(Stage, Pipe)> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([table, "INSERT INTO t (id, a) VALUES (1, 1), (2, 2)"])
        .await?;
    let pipe = running(&stage, &["t"]).await?;
    Ok((stage, pipe))
}

/// The identity of the target: another after a load.
async fn identity(stage: &Stage) -> Result<String> {
    let sql = format!(
        "SELECT toString(uuid) FROM system.tables WHERE database = '{}' AND name = 't'",
        stage.database
    );
    stage.clickhouse.query(&sql).await
}

/// Waits until what was loaded anew is equal.
async fn settled(stage: &Stage, pipe: &mut Pipe) -> Result<u64> {
    stage.wait_caught_up(pipe, CATCH_UP).await?;
    pipe.wait_state("Running", CATCH_UP).await?;
    stage.wait_caught_up(pipe, CATCH_UP).await?;
    stage.assert_same("t").await
}

/// pitfall 112: the second byte of a character may be a backslash or a quote, and a name is none in UTF-8.
async fn a_definition_is_read_in_the_charset_of_its_client(kind: SourceKind) -> Result<()> {
    let (stage, mut pipe) = with_rows(kind, "CREATE TABLE t (id INT PRIMARY KEY, a INT)").await?;
    let before = identity(&stage).await?;
    let mut conn = stage.source.connect().await?;
    let statements: [(&str, &[u8]); 4] = [
        (
            "sjis",
            b"ALTER TABLE t ADD c INT DEFAULT 4 COMMENT '\x95\x5c', ADD `\x95\x5c` INT",
        ),
        (
            "gbk",
            b"ALTER TABLE t ADD d INT DEFAULT 5 COMMENT '\xd5\x5c', ADD `\xd5\x5c` INT AFTER id",
        ),
        ("latin1", b"ALTER TABLE t ADD `caf\xe9` INT DEFAULT 6"),
        (
            "latin1",
            b"ALTER TABLE t RENAME COLUMN `caf\xe9` TO `th\xe9`, ADD e INT DEFAULT 7",
        ),
    ];
    for (charset, statement) in statements {
        conn.query_drop(format!("SET NAMES {charset}")).await?;
        conn.query_drop(statement).await?;
        conn.query_drop("UPDATE t SET a = a + 1 WHERE id = 1")
            .await?;
        assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    }
    conn.query_drop("SET NAMES utf8mb4").await?;
    conn.query_drop("INSERT INTO t (id, a, `表`, `誠`, `thé`) VALUES (3, 3, 3, 3, 3)")
        .await?;
    conn.disconnect().await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    ensure!(
        identity(&stage).await? == before,
        "a definition was not understood"
    );
    Ok(())
}

/// pitfall 88: and one that it does not execute is none of a statement, also where the other family would.
async fn a_comment_is_read_where_the_server_executes_it(kind: SourceKind) -> Result<()> {
    let (stage, mut pipe) = with_rows(kind, "CREATE TABLE t (id INT PRIMARY KEY, a INT)").await?;
    let before = identity(&stage).await?;
    for statement in [
        "ALTER TABLE t /*!40100 ADD COLUMN c INT DEFAULT 3 */ /*!999999 , DROP COLUMN a */",
        "ALTER TABLE t ADD COLUMN d INT /*!80000 , ADD COLUMN e INT */ /*M!100100 , ADD COLUMN f INT */",
        "/*!40000 ALTER TABLE t DISABLE KEYS */",
        "ALTER TABLE t ADD COLUMN g INT /* , DROP COLUMN a */ COMMENT '/*! , DROP COLUMN a */'",
    ] {
        stage.source.execute(statement).await?;
        stage.source.execute("UPDATE t SET a = a + 1").await?;
        assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    }
    ensure!(
        identity(&stage).await? == before,
        "a comment was not understood"
    );
    Ok(())
}

async fn a_repair_loads_a_table_anew_that_it_may_have_taken_rows_from(
    kind: SourceKind,
) -> Result<()> {
    let create = "CREATE TABLE t (id INT PRIMARY KEY, a INT) ENGINE = MyISAM";
    let (stage, mut pipe) = with_rows(kind, create).await?;
    let before = identity(&stage).await?;
    stage.source.execute("REPAIR TABLE t").await?;
    ensure!(settled(&stage, &mut pipe).await? == 2);
    let repaired = identity(&stage).await?;
    ensure!(repaired != before, "the REPAIR was passed over");
    // InnoDB repairs nothing, and has nothing to lose by it.
    stage
        .source
        .execute("ALTER TABLE t ENGINE = InnoDB")
        .await?;
    stage.source.execute("REPAIR TABLE t").await?;
    stage.source.execute("INSERT INTO t VALUES (3, 3)").await?;
    ensure!(settled(&stage, &mut pipe).await? == 3);
    ensure!(
        identity(&stage).await? == repaired,
        "loaded anew without need"
    );
    Ok(())
}

/// Its binlog has rows that it has not. MariaDB has the engine in a plugin of its own.
async fn a_table_of_an_engine_that_keeps_no_rows_is_refused_by_name() -> Result<()> {
    let create = "CREATE TABLE t (id INT PRIMARY KEY, a INT)";
    let (stage, mut pipe) = with_rows(SourceKind::MySql, create).await?;
    stage
        .source
        .execute_all([
            "ALTER TABLE t COMMENT = 'no rows', ENGINE = 'BLACKHOLE'",
            "INSERT INTO t VALUES (5, 5)",
        ])
        .await?;
    let status = pipe.wait_state("Degraded", CATCH_UP).await?;
    ensure!(
        status["reasons"].to_string().contains("BLACKHOLE"),
        "{status:#}"
    );
    let path = pipe.path().display().to_string();
    let checked = pipe.cli(&["validate", &path, "--online"]).await?;
    let told = format!("{}{}", checked.stdout, checked.stderr);
    ensure!(
        told.contains("BLACKHOLE") && told.contains("ENGINE = InnoDB"),
        "{told}"
    );
    stage
        .source
        .execute_all([
            "ALTER TABLE t ENGINE = InnoDB",
            "INSERT INTO t VALUES (6, 6)",
        ])
        .await?;
    let table = format!("{}.t", stage.database);
    let body = json!({ "command": "resync", "table": table });
    let (code, answer) = pipe.order(body).await?;
    ensure!(code == 200, "{code} {answer:#}");
    ensure!(settled(&stage, &mut pipe).await? == 1);
    Ok(())
}

/// Rows that go through it are logged under its name.
async fn tables_that_are_written_through_a_merge_table_are_warned_of(
    kind: SourceKind,
) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a INT) ENGINE = MyISAM",
            "CREATE TABLE apart (id INT PRIMARY KEY, a INT) ENGINE = MyISAM",
            "CREATE TABLE m (id INT NOT NULL, a INT, KEY (id)) ENGINE = MERGE UNION = (apart, t) INSERT_METHOD = LAST",
        ])
        .await?;
    let mut pipe = running(&stage, &["t"]).await?;
    let path = pipe.path().display().to_string();
    let checked = pipe.cli(&["validate", &path, "--online"]).await?;
    let told = format!("{}{}", checked.stdout, checked.stderr);
    let warned = |table: &str| {
        let of = format!("rows of `{}.{table}` can be written", stage.database);
        told.contains(&of)
    };
    ensure!(warned("t") && !warned("apart"), "{told}");
    // One that comes while the pipe runs.
    stage
        .source
        .execute(
            "CREATE TABLE later (id INT NOT NULL, a INT, KEY (id)) ENGINE = MERGE UNION (apart, t)",
        )
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let events = events(&stage, &pipe).await?.to_string();
    let comes = |table: &str| {
        format!(
            "rows of `{0}.{table}` can be written through `{0}.later`",
            stage.database
        )
    };
    ensure!(
        events.contains(&comes("t")) && !events.contains(&comes("apart")),
        "{events}"
    );
    Ok(())
}

/// pitfall 114: MariaDB alone, since MySQL folds names only where its data folder was made so.
async fn names_are_one_in_either_case_where_the_server_folds_them() -> Result<()> {
    let options = SourceOptions::new(SourceKind::MariaDb).arg("--lower-case-table-names=1");
    let stage = Stage::with_source(move || SourceServer::start(options)).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE Tx (id INT PRIMARY KEY, a INT)",
            "INSERT INTO tX VALUES (1, 1), (2, 2)",
        ])
        .await?;
    let mut pipe = running(&stage, &["tx"]).await?;
    let identity = format!(
        "SELECT toString(uuid) FROM system.tables WHERE database = '{}' AND name = 'tx'",
        stage.database
    );
    let before = stage.clickhouse.query(&identity).await?;
    stage
        .source
        .execute_all([
            "ALTER TABLE TX ADD COLUMN b INT DEFAULT 5",
            "INSERT INTO Tx VALUES (3, 3, 3)",
        ])
        .await?;
    assert_caught_up(&stage, &mut pipe, &["tx"]).await?;
    ensure!(
        stage.clickhouse.query(&identity).await? == before,
        "the ALTER was not taken for one of the table"
    );
    stage
        .source
        .execute_all(["TRUNCATE tX", "INSERT INTO TX VALUES (4, 4, 4)"])
        .await?;
    assert_caught_up(&stage, &mut pipe, &["tx"]).await?;
    ensure!(stage.assert_same("tx").await? == 1);
    Ok(())
}
