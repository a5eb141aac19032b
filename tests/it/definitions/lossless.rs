//! New definitions of columns that look wider: most leave every stored value as it was, some do not.

use anyhow::{Result, ensure};
use mysql_async::prelude::Queryable;
use serde_json::json;
use testbed::SourceKind;
use testbed::harness::Stage;

use super::{identity, settled};
use crate::support::{assert_caught_up, on_both_sources, running, running_with};

on_both_sources! {
    wider_definitions_of_each_type_keep_values_in_place: 400,
    definitions_that_make_values_anew_load_the_table: 400,
    what_earlier_rows_show_behind_a_definition_is_told_by_a_load: 300,
    a_comment_beside_a_computed_column_loads_nothing: 300,
}

/// Each with a row that only the new definition holds.
const WIDER: [(&str, &str); 9] = [
    ("MODIFY s SET('a', 'b', 'c')", "s = 'a,c'"),
    ("MODIFY d DATETIME(3)", "d = '2024-05-05 05:05:05.125'"),
    ("MODIFY h TIME(6)", "h = '-12:34:56.654321'"),
    ("MODIFY f DOUBLE", "f = 1e100"),
    (
        "MODIFY c VARCHAR(9) CHARACTER SET utf8mb4",
        "c = '123456789'",
    ),
    ("MODIFY y BLOB", "y = REPEAT(X'00FF', 200)"),
    (
        "MODIFY l MEDIUMTEXT CHARACTER SET utf8mb4",
        "l = '\u{2603}'",
    ),
    ("MODIFY u BIGINT", "u = -5000000000"),
    ("MODIFY v VARBINARY(40)", "v = REPEAT(X'00', 40)"),
];

/// pitfall 106: with rows from before and after each.
async fn wider_definitions_of_each_type_keep_values_in_place(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, s SET('a', 'b'), d DATETIME, h TIME, f FLOAT, \
             c CHAR(5) CHARACTER SET utf8mb4, y TINYBLOB, l TEXT CHARACTER SET latin1, u INT UNSIGNED, v VARBINARY(4))",
            "INSERT INTO t VALUES (1, 'a,b', '2024-01-01 01:01:01', '-838:59:59', 0.1, 'a ', X'00FF', \
             _latin1 X'808E9FE9', 4294967295, X'0000'), \
             (2, '', '1970-01-01 00:00:00', '00:00:01', 2e-38, '', '', '', 0, ''), \
             (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
        ])
        .await?;
    let mut pipe = running(&stage, &["t"]).await?;
    let before = identity(&stage, "t").await?;
    for (number, (change, value)) in WIDER.iter().enumerate() {
        let id = 10 + number;
        stage
            .source
            .execute_all([
                format!("ALTER TABLE t {change}"),
                format!("INSERT INTO t (id) VALUES ({id})"),
                format!("UPDATE t SET {value} WHERE id = {id}"),
            ])
            .await?;
        assert_caught_up(&stage, &mut pipe, &["t"]).await?;
        ensure!(
            identity(&stage, "t").await? == before,
            "`{change}`: the table was loaded anew"
        );
    }
    Ok(())
}

/// Statements after which the server has other values in a row that was there, in strict mode too.
const ANEW: [&str; 5] = [
    "ALTER TABLE t MODIFY f DOUBLE(10,2)",
    "ALTER TABLE t MODIFY two DOUBLE(10,2)",
    "ALTER TABLE t MODIFY c VARCHAR(5)",
    "ALTER TABLE t MODIFY at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3), ALGORITHM=COPY",
    "ALTER TABLE t MODIFY id INT NOT NULL AUTO_INCREMENT",
];

/// pitfall 106: a number that is rounded, a CHAR with its padding, a NULL that becomes the present moment, a 0 that becomes
/// the next number.
async fn definitions_that_make_values_anew_load_the_table(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, f FLOAT, two FLOAT(7,2), c CHAR(5), at TIMESTAMP NULL)",
            "INSERT INTO t VALUES (0, 1.2345, 0.1, 'a', NULL), (2, 1e-3, 0.3, '', '2024-01-01 00:00:00')",
        ])
        .await?;
    let mut pipe = running(&stage, &["t"]).await?;
    let mut conn = stage.source.connect().await?;
    conn.query_drop("SET SESSION sql_mode = CONCAT(@@sql_mode, ',PAD_CHAR_TO_FULL_LENGTH')")
        .await?;
    for statement in ANEW {
        let before = identity(&stage, "t").await?;
        // A server may refuse to make values up.
        let is_done = match conn.query_drop(statement).await {
            Ok(()) => true,
            Err(mysql_async::Error::Server(refusal)) if refusal.code == 1138 => false,
            Err(error) => return Err(error.into()),
        };
        let marks = [
            "INSERT INTO t (id, at) VALUES (100, '2024-01-01 00:00:00')",
            "DELETE FROM t WHERE id = 100",
        ];
        stage.source.execute_all(marks).await?;
        settled(&stage, &mut pipe, &["t"]).await?;
        ensure!(
            (identity(&stage, "t").await? != before) == is_done,
            "`{statement}`: {is_done}"
        );
    }
    stage.assert_no_load_left().await
}

/// Statements after which earlier rows show something else than the catalog tells of.
const SHOWN: [&str; 4] = [
    // Both servers print it with six digits: 16777200.
    "ALTER TABLE t ADD COLUMN f FLOAT NOT NULL DEFAULT 16777216",
    "ALTER TABLE t MODIFY d DECIMAL(12,4)",
    "ALTER TABLE t MODIFY a VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    "ALTER TABLE t CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci",
];

/// pitfall 43, pitfall 106: a default that is printed short, the digits of a number that is kept as text, and a column that
/// is computed by comparing texts.
async fn what_earlier_rows_show_behind_a_definition_is_told_by_a_load(
    kind: SourceKind,
) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, d DECIMAL(10,2), \
             a VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci, g INT AS (a = 'x') VIRTUAL)",
            "INSERT INTO t (id, d, a) VALUES (1, 1.25, 'X'), (2, -3.5, 'x')",
        ])
        .await?;
    let mut file = stage.pipe_file(&["t"]);
    file["tables"][0]["columns"] = json!({ "d": { "decimal": "string" } });
    let mut pipe = running_with(&file).await?;
    let shown = format!(
        "SELECT d, g FROM `{}`.t_current ORDER BY id",
        stage.database
    );
    for statement in SHOWN {
        let before = identity(&stage, "t").await?;
        stage.source.execute(statement).await?;
        settled(&stage, &mut pipe, &["t"]).await?;
        ensure!(
            identity(&stage, "t").await? != before,
            "`{statement}` was followed in place"
        );
        let here: Vec<(String, i64)> = stage
            .source
            .connect()
            .await?
            .query("SELECT CAST(d AS CHAR), g FROM t ORDER BY id")
            .await?;
        let here: Vec<String> = here.iter().map(|(d, g)| format!("{d}\t{g}")).collect();
        let there = stage.clickhouse.query(&shown).await?;
        ensure!(
            there.trim() == here.join("\n"),
            "`{statement}`: {there} and not {here:?}"
        );
    }
    stage.assert_no_load_left().await
}

/// The text of a computed column's own definition is another matter: no catalog tells whether it is the same.
async fn a_comment_beside_a_computed_column_loads_nothing(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, note TEXT, \
             a VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci, g INT AS (a = 'x') VIRTUAL)",
            "INSERT INTO t (id, note, a) VALUES (1, 'n', 'X'), (2, 'n', 'x')",
        ])
        .await?;
    let mut pipe = running(&stage, &["t"]).await?;
    let before = identity(&stage, "t").await?;
    for statement in [
        "ALTER TABLE t MODIFY note TEXT COMMENT 'said'",
        "ALTER TABLE t MODIFY a VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci COMMENT 'compared'",
    ] {
        stage
            .source
            .execute_all([
                statement,
                "UPDATE t SET a = CONCAT('', a), note = CONCAT(note, '.')",
            ])
            .await?;
        settled(&stage, &mut pipe, &["t"]).await?;
        ensure!(
            identity(&stage, "t").await? == before,
            "`{statement}` had the table loaded anew"
        );
    }
    Ok(())
}
