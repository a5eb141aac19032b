//! Rows that a statement changes beside those that it names: by triggers, by unique keys, and as history.

use anyhow::{Result, ensure};
use testbed::SourceKind;
use testbed::harness::{Comparison, Stage};

use crate::support::{
    CATCH_UP, START, assert_caught_up, launch, on_both_mariadbs, on_both_sources, running, start,
};

on_both_sources! {
    rows_that_triggers_and_unique_keys_change_follow: 300,
}

on_both_mariadbs! {
    the_present_of_system_versioned_tables_is_kept_without_their_history: 300,
}

/// pitfall 100: what a trigger does is in the binlog; INSERT ... ON DUPLICATE KEY UPDATE is logged as an update, and REPLACE
/// as a delete and an insert, or as an update of a row that had another key.
async fn rows_that_triggers_and_unique_keys_change_follow(kind: SourceKind) -> Result<()> {
    let tables = ["t", "audit", "sums"];
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, u INT NOT NULL UNIQUE, a INT NOT NULL)",
            "CREATE TABLE audit (n INT AUTO_INCREMENT PRIMARY KEY, id INT, what VARCHAR(20))",
            "CREATE TABLE sums (k INT PRIMARY KEY, total INT)",
            "INSERT INTO sums VALUES (1, 0)",
            "CREATE TRIGGER t_ai AFTER INSERT ON t FOR EACH ROW INSERT INTO audit (id, what) VALUES (NEW.id, 'insert')",
            "CREATE TRIGGER t_au AFTER UPDATE ON t FOR EACH ROW UPDATE sums SET total = total + NEW.a - OLD.a",
            "CREATE TRIGGER t_bd BEFORE DELETE ON t FOR EACH ROW DELETE FROM audit WHERE id = OLD.id",
            "INSERT INTO t VALUES (1, 10, 1), (2, 20, 2)",
        ])
        .await?;
    let mut pipe = running(&stage, &tables).await?;
    for statement in [
        "INSERT INTO t VALUES (3, 30, 3), (4, 40, 4), (5, 50, 5), (6, 60, 6)",
        "INSERT INTO t VALUES (1, 99, 9), (7, 70, 7) ON DUPLICATE KEY UPDATE a = a + 10, u = u + 1",
        // The row that is there gets another key.
        "INSERT INTO t VALUES (8, 20, 8) ON DUPLICATE KEY UPDATE id = id + 100",
        // Two rows stand in the way, by two keys, and both go.
        "REPLACE INTO t VALUES (3, 40, 33)",
        // One stands in the way by its unique key alone.
        "REPLACE INTO t VALUES (9, 50, 9)",
        "REPLACE INTO t VALUES (6, 60, 66), (10, 100, 10)",
        "INSERT IGNORE INTO t VALUES (11, 100, 0), (12, 120, 0)",
        "UPDATE t SET id = id + 1 ORDER BY id DESC",
        "DELETE FROM t WHERE a > 9",
    ] {
        stage.source.execute(statement).await?;
        assert_caught_up(&stage, &mut pipe, &tables).await?;
    }
    // Without triggers a server may log a REPLACE as the update of a row with another key.
    stage
        .source
        .execute_all([
            "DROP TRIGGER t_bd",
            "DROP TRIGGER t_au",
            "DROP TRIGGER t_ai",
            "REPLACE INTO t VALUES (200, 70, 1), (201, 120, 2), (202, 2020, 3)",
        ])
        .await?;
    assert_caught_up(&stage, &mut pipe, &tables).await
}

/// Tables whose period the server added, whose author declared it, and whose history lies in a partition of its own.
const VERSIONED: [&str; 3] = [
    "CREATE TABLE plain (id INT PRIMARY KEY, a VARCHAR(20)) WITH SYSTEM VERSIONING",
    "CREATE TABLE declared (id INT PRIMARY KEY, a VARCHAR(20), \
     since TIMESTAMP(6) GENERATED ALWAYS AS ROW START, until TIMESTAMP(6) GENERATED ALWAYS AS ROW END, \
     PERIOD FOR SYSTEM_TIME (since, until)) WITH SYSTEM VERSIONING",
    "CREATE TABLE parted (id INT PRIMARY KEY, a VARCHAR(20)) WITH SYSTEM VERSIONING \
     PARTITION BY SYSTEM_TIME (PARTITION past HISTORY, PARTITION present CURRENT)",
];

/// A table whose period is told in transactions: the server logs its changes as statements, whatever binlog_format is.
const COUNTED: &str = "CREATE TABLE counted (id INT PRIMARY KEY, \
     since BIGINT UNSIGNED GENERATED ALWAYS AS ROW START, until BIGINT UNSIGNED GENERATED ALWAYS AS ROW END, \
     PERIOD FOR SYSTEM_TIME (since, until)) ENGINE = InnoDB WITH SYSTEM VERSIONING";

/// A table that begins to keep its history while it is followed.
const LATE: [&str; 2] = [
    "CREATE TABLE late (id INT PRIMARY KEY, a VARCHAR(20))",
    "INSERT INTO late VALUES (1, 'one'), (2, 'two')",
];

const TABLES: [&str; 3] = ["plain", "declared", "parted"];

async fn on_each(stage: &Stage, statements: &[&str]) -> Result<()> {
    for table in TABLES {
        let statements: Vec<String> = statements
            .iter()
            .map(|statement| statement.replace("TABLE_NAME", table))
            .collect();
        stage.source.execute_all(statements).await?;
    }
    Ok(())
}

/// pitfall 38: an UPDATE is logged with the row of history that it makes, and a DELETE as an update that ends the row.
async fn the_present_of_system_versioned_tables_is_kept_without_their_history(
    kind: SourceKind,
) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage.source.execute_all(VERSIONED).await?;
    stage.source.execute_all(LATE).await?;
    stage.source.execute(COUNTED).await?;
    let mut refused = start(launch(&stage.pipe_file(&["counted"])))?;
    ensure!(refused.wait_exit(START).await? == 1);
    let log = refused.log().tail();
    ensure!(
        log.contains("counted") && log.contains("TIMESTAMP(6)"),
        "{log}"
    );
    on_each(
        &stage,
        &[
            "INSERT INTO TABLE_NAME (id, a) VALUES (1, 'one'), (2, 'two'), (3, 'three'), (4, 'four')",
            "UPDATE TABLE_NAME SET a = 'second life' WHERE id = 1",
            "DELETE FROM TABLE_NAME WHERE id = 2",
        ],
    )
    .await?;
    let mut pipe = running(&stage, &["plain", "declared", "parted", "late"]).await?;
    on_each(
        &stage,
        &[
            "INSERT INTO TABLE_NAME (id, a) VALUES (5, 'five'), (6, NULL)",
            "UPDATE TABLE_NAME SET a = CONCAT(a, '!') WHERE id IN (1, 5)",
            "UPDATE TABLE_NAME SET id = 40 WHERE id = 4",
            "DELETE FROM TABLE_NAME WHERE id = 3",
            // The same key again, as it was in the past.
            "INSERT INTO TABLE_NAME (id, a) VALUES (2, 'again')",
        ],
    )
    .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    for table in TABLES {
        let comparison = Comparison::of(table).by(&["id"]);
        ensure!(stage.assert(comparison).await? == 5, "{table}");
    }
    pipe.kill9()?;
    on_each(
        &stage,
        &[
            "START TRANSACTION",
            "UPDATE TABLE_NAME SET a = 'three times' WHERE id = 6",
            "DELETE FROM TABLE_NAME WHERE id = 6",
            "INSERT INTO TABLE_NAME (id, a) VALUES (6, 'last')",
            "COMMIT",
        ],
    )
    .await?;
    stage
        .source
        .execute_all([
            "DELETE HISTORY FROM plain",
            "SET STATEMENT system_versioning_alter_history = KEEP FOR ALTER TABLE plain ADD COLUMN b INT DEFAULT 7",
            "UPDATE plain SET b = 8 WHERE id = 1",
        ])
        .await?;
    pipe.restart()?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    for table in TABLES {
        let comparison = Comparison::of(table).by(&["id"]);
        ensure!(stage.assert(comparison).await? == 5, "{table}");
    }
    let status = pipe.status().await?;
    ensure!(status["state"] == "Running", "{status:#}");
    // Under FINAL a row of history would hide the present one, or show up under a key of the past.
    let ended = format!(
        "SELECT count() FROM `{}`.plain FINAL WHERE a IN ('second life', 'three', 'four') AND _is_deleted = 0 AND id <> 40",
        stage.database
    );
    ensure!(stage.clickhouse.number(&ended).await? == 0);

    stage
        .source
        .execute_all([
            "ALTER TABLE late ADD SYSTEM VERSIONING",
            "UPDATE late SET a = 'changed' WHERE id = 1",
            "DELETE FROM late WHERE id = 2",
        ])
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(&stage, &mut pipe, &["late"]).await
}
