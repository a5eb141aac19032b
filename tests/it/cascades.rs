//! Rows that InnoDB changes for a foreign key, which are in no binlog, and those that MySQL's SQL layer changes, which are.

use anyhow::{Result, ensure};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use serde_json::json;
use testbed::harness::{Pipe, Stage};
use testbed::{SourceKind, SourceOptions, SourceServer};

use crate::support::{CATCH_UP, assert_caught_up, on_both_sources, once, running_with};

on_both_sources! {
    rows_that_follow_a_foreign_key_are_loaded_again: 400,
}

once! {
    rows_that_follow_a_foreign_key_within_innodb_are_loaded_again: 400,
    rows_that_mysql_logs_for_a_foreign_key_need_no_load: 300,
}

const TABLES: [&str; 4] = ["parents", "children", "toys", "apart"];

/// What is done to the parents, each of which reaches children and toys.
const CHANGES: [&str; 2] = [
    "DELETE FROM parents WHERE id = 2",
    "UPDATE parents SET id = 33 WHERE id = 3",
];

/// A pipe over tables that follow one another, and one that does not; and what validation says of them.
async fn family(stage: &Stage, cascades: &str) -> Result<(Pipe, String)> {
    stage
        .source
        .execute_all([
            "CREATE TABLE parents (id INT PRIMARY KEY)",
            "CREATE TABLE children (id INT PRIMARY KEY, parent INT NULL, \
             FOREIGN KEY (parent) REFERENCES parents (id) ON DELETE CASCADE ON UPDATE CASCADE)",
            "CREATE TABLE toys (id INT PRIMARY KEY, child INT NULL, \
             FOREIGN KEY (child) REFERENCES children (id) ON DELETE SET NULL)",
            "CREATE TABLE apart (id INT PRIMARY KEY, parent INT NULL, FOREIGN KEY (parent) REFERENCES parents (id))",
            "INSERT INTO parents VALUES (1), (2), (3), (4)",
            "INSERT INTO children VALUES (10, 1), (20, 2), (21, 2), (30, 3)",
            "INSERT INTO toys VALUES (100, 10), (200, 20), (300, 30)",
            "INSERT INTO apart VALUES (1, 4)",
        ])
        .await?;
    let mut file = stage.pipe_file(&TABLES);
    file["cascades"] = json!(cascades);
    let pipe = running_with(&file).await?;
    let path = pipe.path().display().to_string();
    let checked = pipe.cli(&["validate", &path, "--online"]).await?;
    Ok((pipe, format!("{}{}", checked.stdout, checked.stderr)))
}

/// The identities of the targets, in the order of [`TABLES`].
async fn identities(stage: &Stage) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for table in TABLES {
        let sql = format!(
            "SELECT toString(uuid) FROM system.tables WHERE database = '{}' AND name = '{table}'",
            stage.database
        );
        found.push(stage.clickhouse.query(&sql).await?);
    }
    Ok(found)
}

/// pitfall 99: of a table, and of one that refers to that in turn; what no binlog tells is warned of and healed. MySQL
/// logs it by default, but not in sessions that were reset, as those of the harness's pool.
async fn rows_that_follow_a_foreign_key_are_loaded_again(kind: SourceKind) -> Result<()> {
    heals(&Stage::shared(kind).await?).await
}

/// pitfall 99: where InnoDB is told to carry them out, whatever the session.
async fn rows_that_follow_a_foreign_key_within_innodb_are_loaded_again() -> Result<()> {
    let server = || {
        let options = SourceOptions::new(SourceKind::MySql);
        SourceServer::start(options.arg("--innodb-native-foreign-keys=ON"))
    };
    heals(&Stage::with_source(server).await?).await
}

async fn heals(stage: &Stage) -> Result<()> {
    let (mut pipe, told) = family(stage, "reload").await?;
    ensure!(
        told.contains("children` follow every DELETE and UPDATE of")
            && told.contains("toys` follow every DELETE of"),
        "no warning: {told}"
    );
    ensure!(!told.contains("apart` follow"), "{told}");
    let before = identities(stage).await?;
    for statement in CHANGES {
        stage.source.execute(statement).await?;
        stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
        pipe.wait_for("the mark", CATCH_UP, |status| {
            status["reasons"]
                .to_string()
                .contains("may have followed a foreign key")
        })
        .await?;
        pipe.wait_for("the load", CATCH_UP, |status| {
            status["state"] == "Running" && status["reasons"].as_array().is_some_and(Vec::is_empty)
        })
        .await?;
        assert_caught_up(stage, &mut pipe, &TABLES).await?;
    }
    let now = identities(stage).await?;
    ensure!(
        now[0] == before[0] && now[3] == before[3] && now[1] != before[1] && now[2] != before[2],
        "others than those that follow were loaded anew: {before:?}, {now:?}"
    );
    Ok(())
}

/// pitfall 99: from 9.6 on, and only in sessions that are as they began: one that was reset is as in
/// [`rows_that_follow_a_foreign_key_are_loaded_again`], so that setup warns of it.
async fn rows_that_mysql_logs_for_a_foreign_key_need_no_load() -> Result<()> {
    let stage = Stage::shared(SourceKind::MySql).await?;
    let (mut pipe, told) = family(&stage, "reload").await?;
    ensure!(told.contains("children` follow every"), "{told}");
    let mut fresh = Conn::from_url(stage.source_server.root_url()).await?;
    fresh
        .query_drop(format!("USE `{}`", stage.database))
        .await?;
    for statement in CHANGES {
        fresh.query_drop(statement).await?;
    }
    assert_caught_up(&stage, &mut pipe, &TABLES).await?;
    // Marked is a table with the checkpoint; the load would come seconds later.
    let status = pipe.status().await?;
    ensure!(status["reasons"] == json!([]), "marked: {status}");
    Ok(())
}
