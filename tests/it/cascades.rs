//! Rows that InnoDB changes for a foreign key, which MariaDB writes to no binlog.

use anyhow::{Result, ensure};
use serde_json::json;
use testbed::SourceKind;
use testbed::harness::Stage;

use crate::support::{CATCH_UP, assert_caught_up, once, running_with};

once! {
    rows_that_follow_a_foreign_key_are_loaded_again: 400,
}

/// pitfall 99: of a table, and of one that refers to that in turn; what no binlog tells is warned of and healed.
async fn rows_that_follow_a_foreign_key_are_loaded_again() -> Result<()> {
    let stage = Stage::shared(SourceKind::MariaDb).await?;
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
    let tables = ["parents", "children", "toys", "apart"];
    let mut file = stage.pipe_file(&tables);
    file["cascades"] = json!("reload");
    let mut pipe = running_with(&file).await?;
    let path = pipe.path().display().to_string();
    let checked = pipe.cli(&["validate", &path, "--online"]).await?;
    let told = format!("{}{}", checked.stdout, checked.stderr);
    ensure!(
        told.contains("children` follow every DELETE and UPDATE of")
            && told.contains("toys` follow every DELETE of"),
        "no warning: {told}"
    );
    ensure!(!told.contains("apart` follow"), "{told}");
    let apart = format!(
        "SELECT toString(uuid) FROM system.tables WHERE database = '{}' AND name = 'apart'",
        stage.database
    );
    let before = stage.clickhouse.query(&apart).await?;
    for statement in [
        "DELETE FROM parents WHERE id = 2",
        "UPDATE parents SET id = 33 WHERE id = 3",
    ] {
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
        assert_caught_up(&stage, &mut pipe, &tables).await?;
    }
    ensure!(
        stage.clickhouse.query(&apart).await? == before,
        "a table that nothing concerned was loaded anew"
    );
    Ok(())
}
