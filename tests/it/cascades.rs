//! Rows that InnoDB changes for a foreign key, which are in no binlog, and those that MySQL's SQL layer changes, which are.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use serde_json::json;
use testbed::harness::{Pipe, Stage};
use testbed::{SourceKind, SourceOptions, SourceServer};

use crate::preflight::{findings, said_of};
use crate::support::{
    CATCH_UP, assert_caught_up, events, on_both_sources, once, running_with, wait_answer,
};

on_both_sources! {
    rows_that_follow_a_foreign_key_are_loaded_again: 400,
    rows_that_followed_changes_which_are_passed_over_are_loaded_again: 400,
    rows_that_follow_others_of_their_own_table_are_loaded_again: 300,
}

once! {
    rows_that_follow_a_foreign_key_within_innodb_are_loaded_again: 400,
    rows_that_mysql_logs_for_a_foreign_key_need_no_load: 300,
    a_pipe_without_loads_says_what_may_have_followed: 240,
    a_foreign_key_that_comes_is_warned_of: 240,
    rows_that_followed_a_key_which_went_while_the_pipe_was_away_are_loaded_again: 300,
}

const TABLES: [&str; 5] = ["parents", "children", "toys", "apart", "far"];

/// What is done to the parents, each of which reaches children and toys, and the first one what refers to them through a
/// table outside of the pipe.
const CHANGES: [&str; 2] = [
    "DELETE FROM parents WHERE id = 2",
    "UPDATE parents SET id = 33 WHERE id = 3",
];

/// A foreign key that comes while the pipe runs.
const COMES: &str = "ALTER TABLE apart DROP FOREIGN KEY holds, \
     ADD CONSTRAINT follows FOREIGN KEY (parent) REFERENCES parents (id) ON DELETE CASCADE";

/// A pipe over tables that follow one another, and one that does not; and what validation says of them.
async fn family(stage: &Stage, cascades: &str) -> Result<(Pipe, String)> {
    stage
        .source
        .execute_all([
            "CREATE TABLE parents (id INT PRIMARY KEY, x INT NULL)",
            "CREATE TABLE children (id INT PRIMARY KEY, parent INT NULL, \
             FOREIGN KEY (parent) REFERENCES parents (id) ON DELETE CASCADE ON UPDATE CASCADE)",
            "CREATE TABLE toys (id INT PRIMARY KEY, child INT NULL, \
             FOREIGN KEY (child) REFERENCES children (id) ON DELETE SET NULL)",
            "CREATE TABLE apart (id INT PRIMARY KEY, parent INT NULL, \
             CONSTRAINT holds FOREIGN KEY (parent) REFERENCES parents (id))",
            "CREATE TABLE outside (id INT PRIMARY KEY, parent INT NULL, \
             FOREIGN KEY (parent) REFERENCES parents (id) ON DELETE CASCADE)",
            "CREATE TABLE far (id INT PRIMARY KEY, outside INT NULL, \
             FOREIGN KEY (outside) REFERENCES outside (id) ON DELETE CASCADE)",
            "INSERT INTO parents (id) VALUES (1), (2), (3), (4), (5)",
            "INSERT INTO children VALUES (10, 1), (20, 2), (21, 2), (30, 3)",
            "INSERT INTO toys VALUES (100, 10), (200, 20), (300, 30)",
            "INSERT INTO apart VALUES (1, 4), (2, 5)",
            "INSERT INTO outside VALUES (5, 2), (6, 4)",
            "INSERT INTO far VALUES (50, 5), (60, 6)",
        ])
        .await?;
    let mut file = stage.pipe_file(&TABLES);
    file["cascades"] = json!(cascades);
    file["ddl"] = json!({ "add_column": "quarantine" });
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

/// pitfall 99: a table may be the parent of itself.
async fn rows_that_follow_others_of_their_own_table_are_loaded_again(
    kind: SourceKind,
) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE tree (id INT PRIMARY KEY, up INT NULL, \
             FOREIGN KEY (up) REFERENCES tree (id) ON DELETE CASCADE)",
            "INSERT INTO tree VALUES (1, NULL), (2, 1), (3, 2), (4, NULL)",
        ])
        .await?;
    let mut file = stage.pipe_file(&["tree"]);
    file["cascades"] = json!("reload");
    let mut pipe = running_with(&file).await?;
    ensure!(stage.assert_same("tree").await? == 4);
    stage
        .source
        .execute("DELETE FROM tree WHERE id = 1")
        .await?;
    ensure!(stage.source.number("SELECT COUNT(*) FROM tree").await? == 1);
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let there = format!("SELECT count() FROM `{}`.tree_current", stage.database);
    let until = Instant::now() + CATCH_UP;
    while stage.clickhouse.number(&there).await? != 1 {
        ensure!(Instant::now() < until, "rows that are gone have stayed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_caught_up(&stage, &mut pipe, &["tree"]).await
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
    // What is healed needs nobody; a change of a table outside of the pipe itself marks nothing.
    ensure!(
        told.contains("far` follow every DELETE of") && told.contains("outside` into the pipe"),
        "no warning: {told}"
    );
    for healed in ["children", "toys", "apart"] {
        ensure!(!told.contains(&format!("{healed}` follow")), "{told}");
    }
    let before = identities(stage).await?;
    // No key refers to the column, so nothing follows.
    stage.source.execute("UPDATE parents SET x = id").await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let status = pipe.status().await?;
    ensure!(status["reasons"] == json!([]), "{}", status["reasons"]);
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
        now[0] == before[0]
            && now[3] == before[3]
            && now[1] != before[1]
            && now[2] != before[2]
            && now[4] != before[4],
        "others than those that follow were loaded anew: {before:?}, {now:?}"
    );
    // A key that comes while the pipe runs.
    stage
        .source
        .execute_all([COMES, "DELETE FROM parents WHERE id = 5"])
        .await?;
    loaded_anew(stage, &mut pipe, "apart", &now[3]).await
}

/// Waits until the table is another than the one that was, and no table may differ; then all are equal.
async fn loaded_anew(stage: &Stage, pipe: &mut Pipe, table: &str, before: &str) -> Result<()> {
    let number = TABLES.iter().position(|known| *known == table);
    let number = number.expect("one of the tables");
    stage.wait_caught_up(pipe, CATCH_UP).await?;
    let until = Instant::now() + CATCH_UP;
    while identities(stage).await?[number] == before {
        ensure!(Instant::now() < until, "`{table}` was not loaded anew");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    pipe.wait_for("the loads", CATCH_UP, |status| {
        status["state"] == "Running" && status["reasons"].as_array().is_some_and(Vec::is_empty)
    })
    .await?;
    assert_caught_up(stage, pipe, &TABLES).await
}

/// pitfall 99: the load of the parent has its changes, so that its events are passed over; what followed them is in no
/// event. A parent that was out of service comes back the same way.
async fn rows_that_followed_changes_which_are_passed_over_are_loaded_again(
    kind: SourceKind,
) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    let (mut pipe, _) = family(&stage, "reload").await?;
    let before = identities(&stage).await?;
    ensure!(pipe.stop().await? == 0);
    stage
        .source
        .execute_all([
            "ALTER TABLE parents MODIFY x VARCHAR(20)",
            "DELETE FROM parents WHERE id = 2",
        ])
        .await?;
    pipe.restart()?;
    loaded_anew(&stage, &mut pipe, "children", &before[1]).await?;
    let before = identities(&stage).await?;
    stage
        .source
        .execute("ALTER TABLE parents ADD COLUMN y INT")
        .await?;
    pipe.wait_state("Degraded", CATCH_UP).await?;
    stage
        .source
        .execute("DELETE FROM parents WHERE id = 1")
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    // Readers are told that children lack what has followed its parent since.
    let told = format!(
        "SELECT complete['children'] = complete['parents'] AND complete['parents'] NOT IN ('', complete['']) \
         FROM `{0}`._pipewright_checkpoints FINAL WHERE pipe = '{0}' ORDER BY term DESC, stream_offset DESC LIMIT 1",
        stage.database
    );
    wait_answer(&stage, &told, "1").await?;
    brought_back(&stage, &pipe, "resync", "parents").await?;
    loaded_anew(&stage, &mut pipe, "children", &before[1]).await?;

    // A child that is out of service comes back by its own events, and those of its parent are not among them.
    let before = identities(&stage).await?;
    let rename = |from: &str, to: &str| {
        let table = format!("`{}`.children", stage.database);
        format!("ALTER TABLE {table} RENAME COLUMN {from} TO {to}")
    };
    stage.clickhouse.query(&rename("parent", "p")).await?;
    stage
        .source
        .execute("INSERT INTO children VALUES (40, 4)")
        .await?;
    pipe.wait_state("Degraded", CATCH_UP).await?;
    stage
        .source
        .execute("DELETE FROM parents WHERE id = 3")
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    stage.clickhouse.query(&rename("p", "parent")).await?;
    brought_back(&stage, &pipe, "retry", "children").await?;
    loaded_anew(&stage, &mut pipe, "children", &before[1]).await
}

/// Gives the command that brings a table back into service.
async fn brought_back(stage: &Stage, pipe: &Pipe, command: &str, table: &str) -> Result<()> {
    let table = format!("{}.{table}", stage.database);
    let asked = json!({ "command": command, "table": table });
    let (code, answer) = pipe.order(asked).await?;
    ensure!(code < 300, "{code}: {answer}");
    Ok(())
}

/// pitfall 99: from 9.6 on, and only in sessions that are as they began: one that was reset is as in
/// [`rows_that_follow_a_foreign_key_are_loaded_again`].
async fn rows_that_mysql_logs_for_a_foreign_key_need_no_load() -> Result<()> {
    let stage = Stage::shared(SourceKind::MySql).await?;
    let (mut pipe, _) = family(&stage, "reload").await?;
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

/// pitfall 99: and loads none of it.
async fn a_pipe_without_loads_says_what_may_have_followed() -> Result<()> {
    let stage = Stage::shared(SourceKind::MariaDb).await?;
    let mut file = stage.pipe_file(&["parents", "children"]);
    file["cascades"] = json!("reload");
    file["mode"] = json!("cdc_only");
    stage
        .source
        .execute_all([
            "CREATE TABLE parents (id INT PRIMARY KEY)",
            "CREATE TABLE children (id INT PRIMARY KEY, parent INT NULL, \
             FOREIGN KEY (parent) REFERENCES parents (id) ON DELETE CASCADE)",
        ])
        .await?;
    let mut pipe = running_with(&file).await?;
    let told = said_of(&findings(&pipe).await?, "foreign_key_cascade");
    ensure!(
        told.contains("children` follow") && !told.contains("cascades: reload"),
        "{told}"
    );
    stage
        .source
        .execute_all([
            "INSERT INTO parents VALUES (1), (2)",
            "INSERT INTO children VALUES (10, 1), (20, 2)",
            "DELETE FROM parents WHERE id = 2",
        ])
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    pipe.wait_for("the mark", CATCH_UP, |status| {
        let told = status["reasons"].to_string();
        told.contains("may have followed a foreign key") && told.contains("loads nothing by itself")
    })
    .await?;
    Ok(())
}

/// pitfall 99: validation could not know of it.
async fn a_foreign_key_that_comes_is_warned_of() -> Result<()> {
    let stage = Stage::shared(SourceKind::MariaDb).await?;
    let (mut pipe, told) = family(&stage, "warn").await?;
    ensure!(
        told.contains("children` follow every DELETE and UPDATE of")
            && told.contains("toys` follow every DELETE of")
            && told.contains("set `cascades: reload`")
            && !told.contains("apart` follow"),
        "no warning: {told}"
    );
    stage.source.execute(COMES).await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let told = events(&stage, &pipe).await?.to_string();
    ensure!(told.contains("a foreign key has come: rows of"), "{told}");
    ensure!(
        told.matches("a foreign key has come").count() == 1,
        "{told}"
    );
    // From a session that quotes names as no other does.
    stage
        .source
        .execute_all([
            "SET sql_mode = 'ANSI_QUOTES'",
            "ALTER TABLE apart DROP FOREIGN KEY follows, \
             ADD CONSTRAINT \"again\" FOREIGN KEY (\"parent\") REFERENCES \"parents\" (\"id\") ON DELETE SET NULL",
        ])
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let told = events(&stage, &pipe).await?.to_string();
    ensure!(
        told.matches("a foreign key has come").count() == 2,
        "{told}"
    );
    Ok(())
}

/// pitfall 99: the pipe sees the catalog as it is behind the statements, and the changes as they were before.
async fn rows_that_followed_a_key_which_went_while_the_pipe_was_away_are_loaded_again() -> Result<()>
{
    let stage = Stage::shared(SourceKind::MariaDb).await?;
    let follows = "REFERENCES p (no) ON UPDATE CASCADE";
    stage
        .source
        .execute_all([
            "CREATE TABLE p (id INT PRIMARY KEY, no INT UNIQUE, x INT UNIQUE)".to_owned(),
            format!("CREATE TABLE gone (id INT PRIMARY KEY, no INT, CONSTRAINT f1 FOREIGN KEY (no) {follows})"),
            format!("CREATE TABLE moved (id INT PRIMARY KEY, no INT, x INT, CONSTRAINT f2 FOREIGN KEY (no) {follows})"),
            "INSERT INTO p VALUES (1, 1, 1), (2, 2, 2)".to_owned(),
            "INSERT INTO gone VALUES (1, 1), (2, 2)".to_owned(),
            "INSERT INTO moved VALUES (1, 1, 1), (2, 2, 2)".to_owned(),
            "CREATE TABLE q (id INT PRIMARY KEY)".to_owned(),
            "CREATE TABLE of_q (id INT PRIMARY KEY, q INT, FOREIGN KEY (q) REFERENCES q (id) ON DELETE CASCADE)".to_owned(),
            "INSERT INTO q VALUES (1), (2)".to_owned(),
            "INSERT INTO of_q VALUES (1, 1), (2, 2)".to_owned(),
        ])
        .await?;
    let mut file = stage.pipe_file(&["p", "gone", "moved", "q", "of_q"]);
    file["cascades"] = json!("reload");
    let mut pipe = running_with(&file).await?;
    ensure!(pipe.stop().await? == 0);
    stage
        .source
        .execute_all([
            "UPDATE p SET no = 11 WHERE id = 1",
            "ALTER TABLE gone DROP FOREIGN KEY f1",
            "ALTER TABLE moved DROP FOREIGN KEY f2, \
             ADD CONSTRAINT f3 FOREIGN KEY (x) REFERENCES p (x) ON UPDATE CASCADE",
            "DELETE FROM q WHERE id = 2",
            "ALTER TABLE q RENAME TO r",
        ])
        .await?;
    pipe.restart()?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    for table in ["gone", "moved"] {
        let shown = format!(
            "SELECT no FROM `{}`.{table}_current WHERE id = 1",
            stage.database
        );
        wait_answer(&stage, &shown, "11").await?;
    }
    let left = format!("SELECT count() FROM `{}`.of_q_current", stage.database);
    wait_answer(&stage, &left, "1").await?;
    pipe.wait_for("the loads", CATCH_UP, |status| {
        status["state"] == "Running" && status["reasons"].as_array().is_some_and(Vec::is_empty)
    })
    .await?;
    assert_caught_up(&stage, &mut pipe, &["p", "gone", "moved", "of_q"]).await
}
