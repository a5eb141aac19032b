//! Row metadata in every amount that the servers write, changed in mid-stream, and against the recorded definition
//! (pitfalls 8, 10, 15, 22, 46, 47).

use anyhow::{Result, ensure};
use mysql_async::prelude::Queryable;
use serde_json::json;
use testbed::harness::{Comparison, Pipe, Stage};
use testbed::{SourceKind, SourceOptions, SourceServer};

use crate::support::{
    CATCH_UP, assert_caught_up, on_all_sources, on_both_sources, once, running, running_with,
};

on_all_sources! {
    columns_keep_their_places_and_signs_whatever_the_metadata: 300,
}

on_both_sources! {
    a_definition_that_changed_unseen_is_refused_by_what_differs: 300,
}

once! {
    hidden_columns_of_functional_indexes_are_in_no_row: 300,
}

/// A server of the test's own: how much it writes is one setting for all of its sessions.
async fn stage(kind: SourceKind) -> Result<Stage> {
    Stage::with_source(move || SourceServer::start(SourceOptions::new(kind))).await
}

/// Signed and unsigned numbers in turns, with whatever might be counted among them and is not, over more than three bytes
/// of bitmap; generated and invisible columns, and some in the middle that stay at the source.
fn table(kind: SourceKind) -> String {
    let invisible = match kind {
        SourceKind::MySql => "hidden INT UNSIGNED NULL DEFAULT 5 INVISIBLE",
        SourceKind::MariaDb | SourceKind::MariaDb11 => {
            "hidden INT UNSIGNED NULL INVISIBLE DEFAULT 5"
        }
    };
    format!(
        "CREATE TABLE t (
            c0 BIGINT UNSIGNED NOT NULL, c1 TINYINT NULL, c2 YEAR NULL, c3 TINYINT UNSIGNED NULL,
            c4 VARCHAR(20) CHARACTER SET latin1 NULL, c5 SMALLINT UNSIGNED NULL, c6 DATE NULL, c7 MEDIUMINT NULL,
            c8 MEDIUMINT UNSIGNED NULL, c9 BIT(5) NULL, c10 DECIMAL(10,2) NULL, c11 DECIMAL(10,2) UNSIGNED NULL,
            secret1 INT NULL DEFAULT 1, c12 FLOAT NULL, c13 DOUBLE UNSIGNED NULL, c14 YEAR NULL, c15 INT NULL,
            c16 TIMESTAMP(2) NULL, c17 INT UNSIGNED NULL, c18 ENUM('x','é''','z') CHARACTER SET latin1 NULL,
            c19 SET('p','q','ü') NULL, secret2 BIGINT UNSIGNED NULL DEFAULT 2, c20 BINARY(3) NULL, c21 BIGINT NULL,
            c22 BIGINT UNSIGNED NULL, c23 INT(7) ZEROFILL NULL, c24 JSON NULL, c25 TIME(1) NULL,
            g1 BIGINT UNSIGNED GENERATED ALWAYS AS (c17 + 1) VIRTUAL, g2 INT GENERATED ALWAYS AS (-c17 % 1000) STORED,
            {invisible}, secret3 TEXT NULL, c26 TINYINT(1) NULL, c27 DATETIME(6) NULL, c28 SMALLINT NULL,
            c29 LONGTEXT NULL, c30 TINYINT UNSIGNED NULL,
            PRIMARY KEY (c15, c0), UNIQUE KEY other (c5, c0))"
    )
    .replace("c15 INT NULL", "c15 INT NOT NULL")
}

/// Three rows: the largest, the smallest, and NULL wherever it may be.
fn rows(round: usize) -> [String; 3] {
    [
        format!(
            "INSERT INTO t (c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13, c14, c15, c16, c17, c18, c19, c20, \
             c21, c22, c23, c24, c25, hidden, c26, c27, c28, c29, c30) VALUES (18446744073709551615 - {round}, 127, 2155, 255, \
             'é', 65535, '2024-02-29', 8388607, 16777215, b'11111', 99999999.99, 99999999.99, 3.4e38, 1.7e308, 1901, \
             2147483647, '2038-01-19 03:14:07', 4294967294, 'z', 'p,ü', X'0100', 9223372036854775807, 18446744073709551615, \
             4294967295, '[1]', '838:59:58.9', 4294967295, 127, '2024-01-01 00:00:00.000001', 32767, REPEAT('x', 300), 255)"
        ),
        format!(
            "INSERT INTO t (c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13, c14, c15, c16, c17, c18, c19, c20, \
             c21, c22, c23, c24, c25, hidden, c26, c27, c28, c29, c30) VALUES ({round}, -128, 1901, 128, '', 32768, \
             '1000-01-01', -8388608, 8388608, b'0', -99999999.99, 0, -3.4e38, 0, 2155, -2147483648, '1970-01-01 00:00:01', \
             2147483648, 'é''', '', X'', -9223372036854775808, 9223372036854775808, 0, '{{}}', '-838:59:58.9', 2147483648, \
             -128, '1000-01-01 00:00:00', -32768, '', 128)"
        ),
        format!("INSERT INTO t (c0, c15) VALUES ({round}, 0)"),
    ]
}

async fn columns_keep_their_places_and_signs_whatever_the_metadata(kind: SourceKind) -> Result<()> {
    let stage = stage(kind).await?;
    stage.source.execute(table(kind)).await?;
    stage.source.execute_all(rows(0)).await?;
    // MariaDB 11 logs no generated columns.
    let left_out: &[&str] = match kind {
        SourceKind::MySql | SourceKind::MariaDb => &["secret1", "secret2", "secret3"],
        SourceKind::MariaDb11 => &["secret1", "secret2", "secret3", "g1", "g2"],
    };
    let entry = json!({ "source": format!("{}.t", stage.database), "exclude_columns": left_out });
    let mut pipe = running_with(&stage.pipe_file_of(vec![entry])).await?;
    let modes: &[&str] = match kind {
        SourceKind::MySql => &["FULL", "MINIMAL", "FULL", "MINIMAL"],
        SourceKind::MariaDb | SourceKind::MariaDb11 => {
            &["NO_LOG", "FULL", "MINIMAL", "NO_LOG", "FULL"]
        }
    };
    let mut conn = stage.source.connect().await?;
    for (round, mode) in modes.iter().enumerate() {
        let round = 10 * (round + 1);
        conn.query_drop(format!("SET GLOBAL binlog_row_metadata = '{mode}'"))
            .await?;
        for row in rows(round) {
            conn.query_drop(row).await?;
        }
        // One transaction over the change, and updates and deletes of rows that came under the other amount.
        conn.query_drop("START TRANSACTION").await?;
        conn.query_drop(format!(
            "UPDATE t SET c1 = -1, c3 = 200, c8 = 9000000, c22 = c22 - 1 WHERE c0 = {round}"
        ))
        .await?;
        conn.query_drop("SET GLOBAL binlog_row_metadata = 'MINIMAL'")
            .await?;
        conn.query_drop(
            "UPDATE t SET c7 = -7, c17 = 3000000000, c30 = 255, hidden = 4000000000 WHERE c15 <> 0",
        )
        .await?;
        conn.query_drop("COMMIT").await?;
        conn.query_drop(format!("SET GLOBAL binlog_row_metadata = '{mode}'"))
            .await?;
        conn.query_drop(format!(
            "UPDATE t SET c15 = c15 + 1 WHERE c15 = 0 AND c0 < {round}"
        ))
        .await?;
        conn.query_drop(format!(
            "DELETE FROM t WHERE c15 = 0 AND c0 = {}",
            round - 10
        ))
        .await?;
        stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
        let comparison = left_out
            .iter()
            .fold(Comparison::of("t"), |comparison, name| {
                comparison.without(name)
            });
        stage.assert(comparison).await?;
    }
    Ok(())
}

async fn refused(pipe: &mut Pipe, said: &[&str]) -> Result<()> {
    let status = pipe.wait_state("Degraded", CATCH_UP).await?.to_string();
    for text in said {
        ensure!(status.contains(text), "no `{text}` in {status}");
    }
    Ok(())
}

/// A change that the binlog does not tell: only what a table map says of its columns can give it away.
async fn a_definition_that_changed_unseen_is_refused_by_what_differs(
    kind: SourceKind,
) -> Result<()> {
    let stage = stage(kind).await?;
    let changes: [(&str, &[&str]); 6] = [
        // Pitfall 15: the numbers in the rows stay, and mean other labels.
        ("MODIFY e ENUM('b','a','c') NULL", &["`e`", "labels"]),
        ("MODIFY s SET('q','p') NULL", &["`s`", "labels"]),
        ("MODIFY n INT UNSIGNED NULL", &["`n`", "unsigned"]),
        ("CHANGE n m INT NULL", &["`m`", "`n`"]),
        (
            "DROP PRIMARY KEY, ADD PRIMARY KEY (id, other)",
            &["primary key", "`other`"],
        ),
        ("DROP PRIMARY KEY", &["primary key"]),
    ];
    for (n, (change, said)) in changes.iter().enumerate() {
        let table = format!("t{n}");
        stage
            .source
            .execute_all([
                format!(
                    "CREATE TABLE {table} (id INT NOT NULL PRIMARY KEY, other INT NOT NULL, n INT NULL, \
                     e ENUM('a','b') NULL, s SET('p','q') NULL)"
                ),
                format!("INSERT INTO {table} VALUES (1, 1, 1, 'a', 'p')"),
            ])
            .await?;
        let mut file = stage.pipe_file(&[&table]);
        file["pipe"] = json!(format!("{}_{n}", stage.database));
        file["destination"]["database"] = json!(format!("{}_{n}", stage.database));
        let mut pipe = running_with(&file).await?;
        let mut conn = stage.source.connect().await?;
        conn.query_drop("SET sql_log_bin = 0").await?;
        conn.query_drop(format!("ALTER TABLE {table} {change}"))
            .await?;
        conn.query_drop("SET sql_log_bin = 1").await?;
        conn.query_drop(format!("INSERT INTO {table} VALUES (2, 2, 2, 'b', 'q')"))
            .await?;
        refused(&mut pipe, said).await?;
    }
    // Labels that were appended change the meaning of nothing; nor does it matter what the server calls its key.
    stage
        .source
        .execute_all([
            "CREATE TABLE fine (k INT NOT NULL, l INT NOT NULL, e ENUM('a','b') NULL, UNIQUE KEY z (k), UNIQUE KEY y (l))",
            "INSERT INTO fine VALUES (1, 1, 'a')",
        ])
        .await?;
    let mut pipe = running(&stage, &["fine"]).await?;
    stage
        .source
        .execute("INSERT INTO fine VALUES (2, 2, 'b')")
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    stage.assert(Comparison::of("fine").by(&["k"])).await?;
    Ok(())
}

/// Pitfall 30: MySQL keeps what such an index is over in columns that no catalog lists.
async fn hidden_columns_of_functional_indexes_are_in_no_row() -> Result<()> {
    let stage = stage(SourceKind::MySql).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, j JSON NULL, n INT UNSIGNED NULL, s VARCHAR(20) NULL, \
             INDEX many ((CAST(j AS UNSIGNED ARRAY))), INDEX half ((n DIV 2)), INDEX lowered ((LOWER(s))))",
            "INSERT INTO t VALUES (1, '[1, 2]', 4000000000, 'One')",
        ])
        .await?;
    let mut pipe = running(&stage, &["t"]).await?;
    for (round, mode) in ["FULL", "MINIMAL"].iter().enumerate() {
        let id = 10 * (round + 1);
        stage
            .source
            .execute_all([
                format!("SET GLOBAL binlog_row_metadata = '{mode}'"),
                format!(
                    "INSERT INTO t VALUES ({id}, '[3]', 4000000001, 'Two'), ({}, NULL, NULL, NULL)",
                    id + 1
                ),
                format!("UPDATE t SET n = n - 1, j = '[4, 5, 6]', s = 'Three' WHERE id = {id}"),
                "UPDATE t SET id = id + 1000 WHERE id = 1".to_owned(),
            ])
            .await?;
        assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    }
    Ok(())
}
