//! Columns that are not like others: generated, invisible, hidden, numbered by the server (pitfalls 30, 40, 41).

use anyhow::{Result, ensure};
use mysql_async::prelude::Queryable;
use serde_json::json;
use testbed::harness::{Comparison, Stage};
use testbed::{SourceKind, SourceOptions, SourceServer};

use crate::support::{
    CATCH_UP, START, launch, on_all_sources, on_both_sources, once, running, running_with, start,
};

on_both_sources! {
    generated_columns_arrive_stored_or_not: 240,
}

on_all_sources! {
    generated_columns_may_be_left_out: 240,
    invisible_columns_arrive: 240,
    columns_that_the_server_fills: 240,
}

once! {
    mariadb_11_names_the_generated_column_that_it_does_not_log: 240,
    generated_columns_that_mariadb_11_does_not_log_are_read_by_setting: 240,
    neither_views_nor_sequences_are_tables: 240,
    generated_invisible_keys_are_keys_even_where_the_server_hides_them: 240,
    hidden_columns_of_functional_indexes_do_not_shift_the_others: 240,
}

const GENERATED: &str = "CREATE TABLE t (id INT PRIMARY KEY, a INT, s INT GENERATED ALWAYS AS (a * 2) STORED, \
     v INT GENERATED ALWAYS AS (a * 3) VIRTUAL, z VARCHAR(10), \
     w VARCHAR(20) GENERATED ALWAYS AS (CONCAT(z, '!')) VIRTUAL, KEY (v))";

const CHANGES: [&str; 4] = [
    "INSERT INTO t (id, a, z) VALUES (10, 10, 'ten'), (11, NULL, NULL), (12, 12, 'twelve')",
    "UPDATE t SET a = 100, z = 'hundred' WHERE id = 10",
    "UPDATE t SET id = 20 WHERE id = 11",
    "DELETE FROM t WHERE id = 12",
];

async fn generated_columns_arrive_stored_or_not(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            GENERATED,
            "INSERT INTO t (id, a, z) VALUES (1, 1, 'one'), (2, NULL, NULL)",
        ])
        .await?;
    let mut pipe = running(&stage, &["t"]).await?;
    stage.source.execute_all(CHANGES).await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    ensure!(stage.assert_same("t").await? == 4);
    Ok(())
}

/// Row images may hold the columns that are not wanted (MySQL, MariaDB 10.11) or not (MariaDB 11).
async fn generated_columns_may_be_left_out(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            GENERATED,
            "INSERT INTO t (id, a, z) VALUES (1, 1, 'one'), (2, NULL, NULL)",
        ])
        .await?;
    let file = stage.pipe_file_of(vec![json!({
        "source": format!("{}.t", stage.database),
        "exclude_columns": ["s", "v", "w"],
    })]);
    let mut pipe = running_with(&file).await?;
    stage.source.execute_all(CHANGES).await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let comparison = ["s", "v", "w"]
        .iter()
        .fold(Comparison::of("t"), |comparison, name| {
            comparison.without(name)
        });
    ensure!(stage.assert(comparison).await? == 4);
    Ok(())
}

async fn mariadb_11_names_the_generated_column_that_it_does_not_log() -> Result<()> {
    let stage = Stage::shared(SourceKind::MariaDb11).await?;
    stage.source.execute(GENERATED).await?;
    let mut pipe = start(launch(&stage.pipe_file(&["t"])))?;
    pipe.wait_exit(START).await?;
    let log = pipe.log().tail();
    for word in [
        "`s` is generated",
        "exclude_columns",
        "row_image: complete",
        &format!("{}.t", stage.database),
    ] {
        ensure!(log.contains(word), "no {word} in:\n{log}");
    }
    Ok(())
}

/// Pitfall 40: what an image leaves out of a generated column has changed with the others.
async fn generated_columns_that_mariadb_11_does_not_log_are_read_by_setting() -> Result<()> {
    let stage = Stage::shared(SourceKind::MariaDb11).await?;
    stage
        .source
        .execute_all([
            GENERATED,
            "INSERT INTO t (id, a, z) VALUES (1, 1, 'one'), (2, NULL, NULL), (3, 3, 'three')",
            "CREATE TABLE plain (id INT PRIMARY KEY, a INT)",
            "INSERT INTO plain VALUES (1, 1)",
        ])
        .await?;
    let mut file = stage.pipe_file(&["t", "plain"]);
    file["row_image"] = json!("complete");
    let mut pipe = running_with(&file).await?;
    ensure!(stage.assert_same("t").await? == 3);
    stage.source.execute_all(CHANGES).await?;
    stage
        .source
        .execute_all([
            "UPDATE t SET a = a + 1 WHERE id = 1",
            "UPDATE t SET z = 'two' WHERE id = 2",
            "UPDATE t SET a = NULL, z = NULL WHERE id = 3",
            "UPDATE plain SET a = 2",
            "START TRANSACTION",
            "UPDATE t SET a = 50 WHERE id = 1",
            "UPDATE t SET id = 30 WHERE id = 1",
            "UPDATE t SET a = 51 WHERE id = 30",
            "COMMIT",
        ])
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    ensure!(stage.assert_same("t").await? == 5);
    stage.assert_same("plain").await.map(drop)
}

/// Pitfall 39: a sequence logs row events like a table's.
async fn neither_views_nor_sequences_are_tables() -> Result<()> {
    let stage = Stage::shared(SourceKind::MariaDb).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a INT)",
            "CREATE SEQUENCE numbers",
            "CREATE VIEW seen AS SELECT * FROM t",
            "INSERT INTO t VALUES (NEXTVAL(numbers), 1)",
        ])
        .await?;
    let mut pipe = running(&stage, &["*"]).await?;
    stage
        .source
        .execute_all([
            "INSERT INTO t VALUES (NEXTVAL(numbers), 2)",
            "DO SETVAL(numbers, 5000)",
            "CREATE TEMPORARY TABLE passing (id INT PRIMARY KEY)",
            "INSERT INTO passing VALUES (1)",
            "INSERT INTO t VALUES (NEXTVAL(numbers), 3)",
        ])
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    ensure!(stage.assert_same("t").await? == 3);
    for name in ["numbers", "seen", "passing"] {
        ensure!(
            !stage.clickhouse.exists(&stage.database, name).await?,
            "`{name}` has a target"
        );
    }
    let mut pipe = start(launch(&stage.pipe_file(&["numbers"])))?;
    pipe.wait_exit(START).await?;
    let log = pipe.log().tail();
    ensure!(log.contains("numbers"), "{log}");
    Ok(())
}

async fn invisible_columns_arrive(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a INT INVISIBLE DEFAULT 5, b INT)",
            "INSERT INTO t (id, b) VALUES (1, 2)",
            "INSERT INTO t (id, a, b) VALUES (2, NULL, 3)",
        ])
        .await?;
    let mut pipe = running(&stage, &["t"]).await?;
    stage
        .source
        .execute_all([
            "INSERT INTO t (id, b) VALUES (3, 2)",
            "INSERT INTO t (id, a, b) VALUES (4, -1, 3)",
            "UPDATE t SET a = 77 WHERE id = 1",
        ])
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    ensure!(stage.assert_same("t").await? == 4);
    let sql = format!("SELECT a FROM `{}`.t_current WHERE id = 1", stage.database);
    ensure!(stage.clickhouse.query(&sql).await? == "77");
    Ok(())
}

/// SERIAL, ZEROFILL, BOOL, defaults that are expressions, ON UPDATE.
async fn columns_that_the_server_fills(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id SERIAL, z INT(6) ZEROFILL NOT NULL DEFAULT 42, b BOOL NOT NULL DEFAULT TRUE, \
             y YEAR NOT NULL DEFAULT 0, e VARCHAR(40) DEFAULT (CONCAT('a', 'b')), \
             u TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3), \
             d DECIMAL(65,30) NOT NULL DEFAULT -0.5, PRIMARY KEY (id))",
            "INSERT INTO t () VALUES (), ()",
        ])
        .await?;
    let mut pipe = running(&stage, &["t"]).await?;
    stage
        .source
        .execute_all([
            "INSERT INTO t () VALUES (), ()",
            "INSERT INTO t (id, z, b) VALUES (18446744073709551614, 7, -128)",
            "UPDATE t SET b = FALSE WHERE id = 1",
        ])
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    ensure!(stage.assert_same("t").await? == 5);
    Ok(())
}

async fn generated_invisible_keys_are_keys_even_where_the_server_hides_them() -> Result<()> {
    // The settings are global, so the server is one's own.
    let stage = Stage::with_source(|| {
        SourceServer::start(
            SourceOptions::new(SourceKind::MySql)
                .arg("--sql-generate-invisible-primary-key=ON")
                .arg("--show-gipk-in-create-table-and-information-schema=OFF"),
        )
    })
    .await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (a INT, b VARCHAR(10))",
            "INSERT INTO t VALUES (7, 'seven'), (7, 'seven')",
        ])
        .await?;
    let mut pipe = running(&stage, &["t"]).await?;
    stage
        .source
        .execute_all([
            "INSERT INTO t VALUES (8, 'eight'), (7, 'seven')",
            "UPDATE t SET b = 'changed' WHERE a = 8",
            "DELETE FROM t WHERE a = 7 LIMIT 1",
        ])
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    ensure!(stage.assert_same("t").await? == 3);
    let sql = format!(
        "SELECT sorting_key FROM system.tables WHERE database = '{}' AND name = 't'",
        stage.database
    );
    let key = stage.clickhouse.query(&sql).await?;
    ensure!(key.trim_matches(['(', ')']) == "my_row_id", "{key}");
    Ok(())
}

async fn hidden_columns_of_functional_indexes_do_not_shift_the_others() -> Result<()> {
    let stage = Stage::shared(SourceKind::MySql).await?;
    let mut conn = stage.source.connect().await?;
    conn.query_drop(
        "CREATE TABLE t (id INT PRIMARY KEY, a VARCHAR(20), j JSON, n INT, KEY ((UPPER(a))), \
         KEY ((CAST(j->'$.x' AS UNSIGNED ARRAY))), UNIQUE KEY ((n + 1)))",
    )
    .await?;
    conn.query_drop("INSERT INTO t VALUES (1, 'abc', '{\"x\": [1, 2]}', 5)")
        .await?;
    let mut pipe = running(&stage, &["t"]).await?;
    for statement in [
        "INSERT INTO t VALUES (2, 'def', '{\"x\": []}', 6), (3, NULL, NULL, NULL)",
        "UPDATE t SET a = 'ghi', n = 7 WHERE id = 1",
        // An index added on the way brings another hidden column.
        "ALTER TABLE t ADD KEY ((LOWER(a)))",
        "INSERT INTO t VALUES (4, 'jkl', '{\"x\": [9]}', 8)",
    ] {
        conn.query_drop(statement).await?;
    }
    drop(conn);
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    ensure!(stage.assert_same("t").await? == 4);
    Ok(())
}
