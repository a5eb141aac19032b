//! ENUM and SET as keys, where '' is a label and also what a value without a label reads as.

use anyhow::{Result, ensure};
use testbed::SourceKind;
use testbed::harness::Stage;

use crate::support::{CATCH_UP, on_both_sources, running};

on_both_sources! {
    label_keys_that_read_alike_take_their_table_out_by_name: 240,
}

/// Pitfalls 14 and 16.
async fn label_keys_that_read_alike_take_their_table_out_by_name(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "SET sql_mode = ''",
            "CREATE TABLE one (k ENUM('', 'a') NOT NULL PRIMARY KEY, n INT)",
            "CREATE TABLE some (k SET('', 'a') NOT NULL PRIMARY KEY, n INT)",
            "CREATE TABLE without (k ENUM('a', 'b') NOT NULL PRIMARY KEY, n INT)",
            "INSERT INTO one VALUES (1, 1), (2, 2)",
            "INSERT INTO some VALUES (0, 1), (2, 2)",
            "INSERT INTO without VALUES (1, 1)",
            // Where the SQL mode is strict, nobody can declare a label twice.
            "SET sql_mode = ''",
            "CREATE TABLE twice (k ENUM('a', 'b', 'a') NOT NULL PRIMARY KEY, n INT)",
            "INSERT INTO twice VALUES (1, 1), (2, 2)",
        ])
        .await?;
    let mut pipe = running(&stage, &["one", "some", "twice", "without"]).await?;
    for table in ["one", "some", "twice", "without"] {
        stage.assert_same(table).await?;
    }
    stage
        .source
        .execute_all([
            "SET sql_mode = ''",
            // Number 0, which no label has; a set of the label '' alone.
            "INSERT INTO one VALUES ('no label', 3)",
            "INSERT INTO some VALUES (1, 3)",
            "INSERT INTO twice VALUES (3, 3)",
            // Where '' is no label, number 0 is a key of its own.
            "INSERT INTO without VALUES ('no label', 3)",
        ])
        .await?;
    let status = pipe
        .wait_for("the tables out of service", CATCH_UP, |status| {
            let told = status.to_string();
            told.matches("reads as the empty label").count() >= 2 && told.contains("declares twice")
        })
        .await?
        .to_string();
    for part in [
        "column `k`",
        "MODIFY",
        &format!("{}.one", stage.database),
        &format!("{}.some", stage.database),
        &format!("{}.twice", stage.database),
    ] {
        ensure!(status.contains(part), "no `{part}` in {status}");
    }
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    ensure!(stage.assert_same("without").await? == 2);
    ensure!(stage.source.number("SELECT COUNT(*) FROM one").await? == 3);
    for table in ["one", "some", "twice"] {
        let count = format!("SELECT count() FROM `{}`.{table}_current", stage.database);
        ensure!(stage.clickhouse.number(&count).await? == 2, "{table}");
    }
    Ok(())
}
