//! Statements that change tables are followed to an end state: in place where every value is kept, by a fresh load
//! beside the live table where not.

mod choices;
mod cut_overs;
mod during_load;
mod lossless;
mod moved_rows;
mod renames;

use std::time::Duration;

use anyhow::{Result, ensure};
use mysql_async::prelude::Queryable;
use serde_json::json;
use testbed::SourceKind;
use testbed::harness::{Pipe, Stage};

use crate::support::{CATCH_UP, assert_caught_up, double, launch, on_both_sources, running, start};

on_both_sources! {
    changes_that_keep_every_value_are_followed_in_place: 400,
    changes_of_values_or_keys_load_the_table_anew: 500,
    statements_that_piled_up_are_taken_one_by_one: 400,
    a_dropped_table_is_archived_and_comes_back: 400,
    tables_that_exchange_names_are_told_apart: 400,
    a_table_altered_during_its_load_arrives_whole: 400,
    a_pipe_killed_among_statements_goes_on: 500,
}

/// The identity of the target: another after an exchange.
pub(crate) async fn identity(stage: &Stage, table: &str) -> Result<String> {
    let sql = format!(
        "SELECT toString(uuid) FROM system.tables WHERE database = '{}' AND name = '{table}'",
        stage.database
    );
    stage.clickhouse.query(&sql).await
}

/// The rows of a target, or of what became of one.
async fn live_rows(stage: &Stage, table: &str) -> Result<u64> {
    let sql = format!(
        "SELECT count() FROM `{}`.`{table}` FINAL WHERE _is_deleted = 0",
        stage.database
    );
    stage.clickhouse.number(&sql).await
}

/// Waits until the stream has met everything, loads have ended, and the tables are equal.
async fn settled(stage: &Stage, pipe: &mut Pipe, tables: &[&str]) -> Result<()> {
    stage.wait_caught_up(pipe, CATCH_UP).await?;
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(stage, pipe, tables).await
}

/// Waits until ClickHouse has a table of that name, or has it no longer.
async fn wait_exists(stage: &Stage, table: &str, wanted: bool) -> Result<()> {
    for _ in 0..600 {
        if stage.clickhouse.exists(&stage.database, table).await? == wanted {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    anyhow::bail!("`{table}`: waited in vain for it to be there: {wanted}")
}

/// Statements that keep every value, each with one that follows it.
const IN_PLACE: [(&str, &str); 15] = [
    (
        "ALTER TABLE t DROP COLUMN e",
        "INSERT INTO t VALUES (10, 'x', 3, 3.5, 'x', 3)",
    ),
    (
        "ALTER TABLE t RENAME COLUMN a TO `new name`",
        "UPDATE t SET `new name` = 'changed' WHERE id = 1",
    ),
    (
        "ALTER TABLE t CHANGE COLUMN b b2 BIGINT NOT NULL",
        "UPDATE t SET b2 = 5000000000 WHERE id = 2",
    ),
    (
        "ALTER TABLE t MODIFY c DECIMAL(12,4), MODIFY d ENUM('x', 'y', 'z') NOT NULL, MODIFY `new name` VARCHAR(200)",
        "INSERT INTO t VALUES (11, REPEAT('w', 200), 4, 12345678.1234, 'z', 4)",
    ),
    (
        "ALTER TABLE t MODIFY COLUMN f INT NULL FIRST",
        "INSERT INTO t VALUES (5, 12, 'moved', 5, 1, 'y')",
    ),
    (
        "ALTER TABLE t MODIFY COLUMN b2 BIGINT NULL",
        "INSERT INTO t (id, d) VALUES (13, 'x')",
    ),
    (
        "UPDATE t SET b2 = 0 WHERE b2 IS NULL",
        "ALTER TABLE t MODIFY COLUMN b2 BIGINT NOT NULL",
    ),
    (
        "ALTER TABLE t ADD INDEX i (f), COMMENT = 'DROP COLUMN f', AUTO_INCREMENT = 7",
        "UPDATE t SET f = 99 WHERE id = 13",
    ),
    (
        "ALTER TABLE t ADD COLUMN g INT NOT NULL DEFAULT 7 AFTER id, DROP INDEX i, DROP COLUMN f, \
         ADD COLUMN h DATETIME DEFAULT '2024-05-05 05:05:05'",
        "INSERT INTO t (id, b2, d, h) VALUES (14, 6, 'z', NULL)",
    ),
    (
        "DROP TABLE IF EXISTS no_such_table",
        "ALTER TABLE t RENAME INDEX no_index TO other",
    ),
    (
        "ALTER TABLE t CHANGE g G INT NOT NULL",
        "UPDATE t SET g = 8 WHERE id = 1",
    ),
    (
        "ALTER TABLE t ADD COLUMN touched TIMESTAMP NULL ON UPDATE CURRENT_TIMESTAMP, ENGINE = 'InnoDB'",
        "UPDATE t SET g = 9 WHERE id = 1",
    ),
    (
        "CREATE TABLE IF NOT EXISTS t (other INT)",
        "DELETE FROM t WHERE id = 2",
    ),
    (
        "ALTER TABLE t ADD COLUMN n INT NOT NULL, ADD COLUMN w VARCHAR(9) NOT NULL, ADD COLUMN x TEXT NOT NULL",
        "DELETE FROM t WHERE id = 1000000",
    ),
    // Rows that came before keep their 0 and ''.
    (
        "DELETE FROM t WHERE id = 1000000",
        "ALTER TABLE t MODIFY n BIGINT NULL, MODIFY w VARCHAR(19) NULL, CHANGE x y TEXT NULL",
    ),
];

/// pitfall 42, pitfall 43, pitfall 106, pitfall 108, pitfall 109: each by its end state, on the very table that was
/// there before, and with rows from before and after each statement.
async fn changes_that_keep_every_value_are_followed_in_place(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a VARCHAR(20) NULL, b SMALLINT NOT NULL, c DECIMAL(6,2), \
             d ENUM('x', 'y') NOT NULL, e TEXT, f INT NULL)",
            "INSERT INTO t VALUES (1, 'one', 1, 1.25, 'x', 'e', 1), (2, 'two', -2, NULL, 'y', NULL, 2)",
        ])
        .await?;
    let mut pipe = running(&stage, &["t"]).await?;
    let before = identity(&stage, "t").await?;
    for (number, (one, other)) in IN_PLACE.iter().enumerate() {
        for statement in [one, other] {
            // One that the server refuses is as if it had not been.
            let done = stage.source.execute(statement).await;
            ensure!(
                done.is_ok() || statement.contains("no_index"),
                "{statement}: {done:?}"
            );
        }
        assert_caught_up(&stage, &mut pipe, &["t"]).await?;
        if number == 4 {
            pipe.kill9()?;
            pipe.restart()?;
        }
    }
    // No row follows the last one.
    stage
        .source
        .execute("ALTER TABLE t ADD COLUMN last_one VARCHAR(10) NOT NULL DEFAULT 'all'")
        .await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    ensure!(
        identity(&stage, "t").await? == before,
        "the table was loaded anew"
    );
    ensure!(pipe.status().await?["state"] == "Running");
    Ok(())
}

/// pitfall 42, pitfall 107, pitfall 110, pitfall 106, pitfall 15: what the binlog does not tell is read again.
async fn changes_of_values_or_keys_load_the_table_anew(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT NOT NULL, sub INT NOT NULL DEFAULT 0, a VARCHAR(40), d ENUM('x', 'y'), \
             n INT NULL, PRIMARY KEY (id)) PARTITION BY HASH (id) PARTITIONS 3",
            "INSERT INTO t (id, a, d, n) VALUES (1, '1', 'x', 1), (2, '2', 'y', NULL), (3, '3', NULL, 3)",
            "CREATE TABLE u (id INT PRIMARY KEY, a INT)",
            "INSERT INTO u VALUES (1, 1)",
        ])
        .await?;
    let mut pipe = running(&stage, &["t", "u"]).await?;
    let mut conn = stage.source.connect().await?;
    for (statement, after) in [
        (
            "ALTER TABLE t ADD COLUMN x VARCHAR(60) DEFAULT (CONCAT('row ', 1 + 1))",
            "UPDATE t SET a = '11' WHERE id = 1",
        ),
        (
            "ALTER TABLE t MODIFY COLUMN a INT",
            "INSERT INTO t (id, a) VALUES (4, 44)",
        ),
        (
            "ALTER TABLE t MODIFY COLUMN d ENUM('y', 'x')",
            "INSERT INTO t (id, d) VALUES (5, 'y')",
        ),
        (
            "ALTER TABLE t DROP PRIMARY KEY, ADD PRIMARY KEY (sub, id)",
            "INSERT INTO t (id, sub) VALUES (5, 1)",
        ),
        (
            "SET sql_mode = ''",
            "ALTER TABLE t MODIFY COLUMN n INT NOT NULL",
        ),
        (
            "ALTER TABLE t TRUNCATE PARTITION p1",
            "INSERT INTO t (id, n) VALUES (6, 6)",
        ),
        (
            "ALTER TABLE t ADD COLUMN w VARCHAR(5) CHARACTER SET cp1250 DEFAULT (CONCAT('w'))",
            "UPDATE t SET n = 8 WHERE id = 1",
        ),
        // Code 81 stands for no character, and this session lets the server write another in its place.
        (
            "UPDATE t SET w = X'81' WHERE id = 1",
            "ALTER TABLE t MODIFY COLUMN w VARCHAR(5) CHARACTER SET utf8mb4",
        ),
        (
            "ALTER TABLE t MODIFY COLUMN id BIGINT NOT NULL",
            "INSERT INTO t (id, n) VALUES (5000000001, 7)",
        ),
        (
            "ALTER TABLE t ADD COLUMN p DECIMAL(6,2) NOT NULL DEFAULT 1.25, ADD COLUMN g VARCHAR(20) AS (CONCAT(p, '#'))",
            "UPDATE t SET n = n + 1 WHERE id = 1",
        ),
        // It is computed anew where what it is computed from keeps its values.
        (
            "ALTER TABLE t MODIFY COLUMN p DECIMAL(8,4) NOT NULL DEFAULT 1.25",
            "UPDATE t SET n = n + 1 WHERE id = 1",
        ),
    ] {
        let before = identity(&stage, "t").await?;
        conn.query_drop(statement).await?;
        conn.query_drop(after).await?;
        conn.query_drop("UPDATE u SET a = a + 1").await?;
        settled(&stage, &mut pipe, &["t", "u"]).await?;
        ensure!(
            identity(&stage, "t").await? != before,
            "`{statement}` was taken for harmless"
        );
    }
    whole_partitions_move(&stage, &mut pipe).await?;
    stage.assert_no_load_left().await
}

/// pitfall 110: no row event tells of their rows.
async fn whole_partitions_move(stage: &Stage, pipe: &mut Pipe) -> Result<()> {
    stage
        .source
        .execute_all([
            "ALTER TABLE t PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (3), \
             PARTITION p1 VALUES LESS THAN (6000000000))",
            "CREATE TABLE e LIKE t",
            "ALTER TABLE e REMOVE PARTITIONING",
            "CREATE TABLE f LIKE e",
            "INSERT INTO e (id, n) VALUES (-5, 5)",
            "INSERT INTO f (id, n) VALUES (6500000000, 65)",
        ])
        .await?;
    settled(stage, pipe, &["t", "u"]).await?;
    let mut statements = vec![
        "ALTER TABLE t EXCHANGE PARTITION p0 WITH TABLE e",
        "ALTER TABLE t DROP PARTITION p0",
    ];
    if stage.kind().is_mariadb() {
        statements
            .push("ALTER TABLE t CONVERT TABLE f TO PARTITION p2 VALUES LESS THAN (7000000000)");
    }
    for statement in statements {
        let before = identity(stage, "t").await?;
        stage
            .source
            .execute_all([statement, "UPDATE u SET a = a + 1"])
            .await?;
        settled(stage, pipe, &["t", "u"]).await?;
        ensure!(
            identity(stage, "t").await? != before,
            "`{statement}` was taken for harmless"
        );
    }
    Ok(())
}

/// pitfall 113, pitfall 47: the catalog is ahead of the binlog by several statements, with rows between them.
async fn statements_that_piled_up_are_taken_one_by_one(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a INT NOT NULL, b VARCHAR(10))",
            "INSERT INTO t VALUES (1, 1, 'b'), (2, 2, NULL)",
            "CREATE TABLE u (id INT PRIMARY KEY, a INT NOT NULL)",
            "INSERT INTO u VALUES (1, 1)",
        ])
        .await?;
    let mut pipe = running(&stage, &["t", "u"]).await?;
    let before = identity(&stage, "t").await?;
    ensure!(pipe.stop().await? == 0);
    stage
        .source
        .execute_all([
            "INSERT INTO t VALUES (3, 3, 'before')",
            "ALTER TABLE t ADD COLUMN c INT NOT NULL DEFAULT 9 AFTER id",
            "INSERT INTO t VALUES (4, 40, 4, 'with c')",
            "ALTER TABLE t RENAME COLUMN a TO a2, DROP COLUMN b",
            "UPDATE t SET a2 = a2 + 100",
            "INSERT INTO t VALUES (5, 50, 5)",
            "ALTER TABLE t RENAME COLUMN c TO c2, ADD COLUMN d INT NULL FIRST",
            "UPDATE t SET d = c2 WHERE id < 3",
            // The definition of `lost` stands nowhere any more.
            "ALTER TABLE u ADD COLUMN lost DATE NULL",
            "INSERT INTO u VALUES (2, 2, '2024-01-01')",
            "ALTER TABLE u DROP COLUMN lost",
            "INSERT INTO u VALUES (3, 3)",
        ])
        .await?;
    pipe.restart()?;
    settled(&stage, &mut pipe, &["t", "u"]).await?;
    ensure!(
        identity(&stage, "t").await? == before,
        "the table was loaded anew"
    );
    Ok(())
}

/// pitfall 102, pitfall 111, pitfall 130: dropped, made anew, renamed away, made of a SELECT; the others go on.
async fn a_dropped_table_is_archived_and_comes_back(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a INT)",
            "INSERT INTO t VALUES (1, 1), (2, 2)",
            "CREATE TABLE u (id INT PRIMARY KEY, a INT)",
            "INSERT INTO u VALUES (1, 1)",
        ])
        .await?;
    let mut pipe = running(&stage, &["t", "u"]).await?;
    stage
        .source
        .execute_all([
            "INSERT INTO t VALUES (3, 3)",
            "DROP TABLE t",
            "UPDATE u SET a = 2",
        ])
        .await?;
    assert_caught_up(&stage, &mut pipe, &["u"]).await?;
    wait_exists(&stage, "t_dropped_1", true).await?;
    wait_exists(&stage, "t", false).await?;
    ensure!(
        !stage
            .clickhouse
            .exists(&stage.database, "t_current")
            .await?,
        "the view is left"
    );
    ensure!(
        live_rows(&stage, "t_dropped_1").await? == 3,
        "the archive lacks rows"
    );
    ensure!(pipe.stop().await? == 0);
    pipe.restart()?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (name VARCHAR(20) PRIMARY KEY, a DATE)",
            "INSERT INTO t VALUES ('x', '2024-01-01')",
        ])
        .await?;
    wait_exists(&stage, "t_current", true).await?;
    stage
        .source
        .execute("INSERT INTO t VALUES ('y', '2024-01-02')")
        .await?;
    settled(&stage, &mut pipe, &["t", "u"]).await?;
    stage
        .source
        .execute_all([
            "ALTER TABLE t RENAME TO away",
            "INSERT INTO away VALUES ('z', NULL)",
        ])
        .await?;
    wait_exists(&stage, "t", false).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (PRIMARY KEY (name)) SELECT * FROM away",
            "INSERT INTO t VALUES ('w', NULL)",
        ])
        .await?;
    wait_exists(&stage, "t_current", true).await?;
    settled(&stage, &mut pipe, &["t", "u"]).await
}

/// pitfall 103: the chain of one statement counts by its end.
async fn tables_that_exchange_names_are_told_apart(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE a (id INT PRIMARY KEY, x INT)",
            "CREATE TABLE b (id INT PRIMARY KEY, y VARCHAR(10))",
            "INSERT INTO a VALUES (1, 1), (2, 2)",
            "INSERT INTO b VALUES (1, 'b')",
        ])
        .await?;
    let mut pipe = running(&stage, &["a", "b"]).await?;
    stage
        .source
        .execute_all([
            "INSERT INTO a VALUES (3, 3)",
            "RENAME TABLE a TO tmp, b TO a, tmp TO b",
            "INSERT INTO a VALUES (9, 'was b')",
            "DELETE FROM b WHERE id = 1",
        ])
        .await?;
    settled(&stage, &mut pipe, &["a", "b"]).await?;
    let (one, other) = (identity(&stage, "a").await?, identity(&stage, "b").await?);
    stage
        .source
        .execute_all([
            "RENAME TABLE a TO tmp, tmp TO a",
            "INSERT INTO a VALUES (10, 'still b')",
        ])
        .await?;
    assert_caught_up(&stage, &mut pipe, &["a", "b"]).await?;
    ensure!(identity(&stage, "a").await? == one && identity(&stage, "b").await? == other);
    // Dropped and made anew while the stream was away.
    ensure!(pipe.stop().await? == 0);
    stage
        .source
        .execute_all([
            "INSERT INTO a VALUES (11, 'lost')",
            "DROP TABLE a",
            "CREATE TABLE a (id INT PRIMARY KEY, z INT)",
            "INSERT INTO a VALUES (1, 5)",
        ])
        .await?;
    pipe.restart()?;
    wait_exists(&stage, "a_dropped_2", true).await?;
    wait_exists(&stage, "a_current", true).await?;
    settled(&stage, &mut pipe, &["a", "b"]).await
}

/// pitfall 105: the load meets definitions that the stream has not met yet.
async fn a_table_altered_during_its_load_arrives_whole(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, a VARCHAR(200), b INT NOT NULL)",
            "INSERT INTO t (a, b) VALUES (REPEAT('x', 200), 1)",
        ])
        .await?;
    double(&stage, "t", "a, b", 14).await?;
    let mut file = stage.pipe_file(&["t"]);
    file["snapshot"] = json!({ "rows_per_partition": 100, "threads_per_table": 1 });
    let mut pipe = start(launch(&file))?;
    for statement in [
        "ALTER TABLE t ADD COLUMN c INT NOT NULL DEFAULT 3",
        "ALTER TABLE t DROP COLUMN b",
        "ALTER TABLE t RENAME COLUMN a TO a2",
    ] {
        pipe.wait_for("a partition", CATCH_UP, |status| {
            !["Snapshot", "Provisioning", "Setup"]
                .contains(&status["state"].as_str().unwrap_or_default())
                || status["tables"][0]["snapshot"]["partitions_done"].as_u64() > Some(1)
        })
        .await?;
        stage
            .source
            .execute_all([statement, "UPDATE t SET c = c + 1 WHERE id % 100 = 0"])
            .await?;
        stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    }
    settled(&stage, &mut pipe, &["t"]).await
}

/// pitfall 113: killed before, within and behind an alteration, so that it finds its target in either form.
async fn a_pipe_killed_among_statements_goes_on(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a INT NOT NULL, b VARCHAR(10))",
            "INSERT INTO t VALUES (1, 1, 'b'), (2, 2, NULL)",
        ])
        .await?;
    let mut pipe = running(&stage, &["t"]).await?;
    for (round, statements) in [
        [
            "ALTER TABLE t RENAME COLUMN a TO a2",
            "UPDATE t SET a2 = a2 + 1",
        ],
        [
            "ALTER TABLE t ADD COLUMN c INT NOT NULL DEFAULT 5 AFTER id",
            "INSERT INTO t (id, a2) VALUES (3, 3)",
        ],
        [
            "ALTER TABLE t DROP COLUMN b, MODIFY a2 BIGINT NOT NULL",
            "UPDATE t SET a2 = 5000000000 WHERE id = 1",
        ],
        [
            "ALTER TABLE t DROP PRIMARY KEY, ADD PRIMARY KEY (id, c)",
            "INSERT INTO t (id, c, a2) VALUES (3, 6, 3)",
        ],
        ["TRUNCATE TABLE t", "INSERT INTO t (id, a2) VALUES (9, 9)"],
        [
            "ALTER TABLE t RENAME COLUMN a2 TO a, ADD COLUMN d INT",
            "DELETE FROM t WHERE id = 9",
        ],
    ]
    .into_iter()
    .enumerate()
    {
        stage.source.execute_all(statements).await?;
        tokio::time::sleep(Duration::from_millis(150 * round as u64)).await;
        pipe.kill9()?;
        pipe.restart()?;
    }
    stage
        .source
        .execute("INSERT INTO t VALUES (10, 10, 10, 10)")
        .await?;
    settled(&stage, &mut pipe, &["t"]).await
}
