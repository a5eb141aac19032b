//! What the pipe file chooses to become of statements.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use testbed::SourceKind;
use testbed::harness::{Pipe, Stage};

use super::{identity, settled, wait_exists};
use crate::support::{
    CATCH_UP, assert_caught_up, on_both_sources, once, reason_of, running_with, wait_answer,
};

on_both_sources! {
    chosen_policies_are_kept: 500,
    archived_columns_keep_what_earlier_rows_show_and_later_ones_have_null: 300,
    archived_values_outlive_a_load_in_which_another_column_has_their_name: 300,
    a_quarantined_drop_within_a_statement_that_moves_rows_waits_until_the_table_is_loaded_anew: 300,
}

once! {
    rows_without_a_load_are_not_invented: 300,
}

/// pitfall 101: what the pipe file chooses for each kind of statement.
async fn chosen_policies_are_kept(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    for table in ["cut", "kept", "gone", "held"] {
        stage
            .source
            .execute_all([
                format!("CREATE TABLE {table} (id INT PRIMARY KEY, a INT NOT NULL, b INT)"),
                format!("INSERT INTO {table} VALUES (1, 1, 1), (2, 2, 2)"),
            ])
            .await?;
    }
    let mut file = stage.pipe_file(&["cut", "kept", "gone", "held"]);
    file["ddl"] = json!({
        "truncate": "archive", "drop_column": "archive", "drop_table": "apply", "add_column": "quarantine",
    });
    let mut pipe = running_with(&file).await?;
    stage
        .source
        .execute_all([
            "ALTER TABLE cut DROP COLUMN b",
            "TRUNCATE TABLE cut",
            "INSERT INTO cut VALUES (2, 3)",
            "ALTER TABLE kept DROP COLUMN a",
            "INSERT INTO kept VALUES (3, 3)",
            "DROP TABLE gone",
        ])
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    stage.assert_same("cut").await?;
    stage.assert_same("kept").await?;
    let database = &stage.database;
    let archive = format!(
        "SELECT name FROM system.tables WHERE database = '{database}' AND name LIKE 'cut_truncated_%'"
    );
    let archive = stage.clickhouse.query(&archive).await?;
    let copied = format!(
        "SELECT groupArray((id, a, b)) FROM (SELECT id, a, b FROM `{database}`.`{archive}` FINAL ORDER BY id)"
    );
    let copied = stage.clickhouse.query(&copied).await?;
    ensure!(
        copied == "[(1,1,1),(2,2,2)]",
        "the copy, archived column and all, holds {copied}"
    );
    let filled = format!(
        "SELECT groupArray((id, a)) FROM (SELECT id, a FROM `{database}`.kept FINAL ORDER BY id)"
    );
    let filled = stage.clickhouse.query(&filled).await?;
    ensure!(
        filled == "[(1,1),(2,2),(3,NULL)]",
        "the dropped column holds {filled}"
    );
    wait_exists(&stage, "gone", false).await?;
    stage
        .source
        .execute("ALTER TABLE held ADD COLUMN c INT")
        .await?;
    let status = pipe.wait_state("Degraded", CATCH_UP).await?;
    ensure!(
        status["reasons"].to_string().contains("ADD COLUMN `c`"),
        "the reason does not say what is to be decided: {status:#}"
    );
    other_policies_are_kept(&stage, &mut pipe, file).await
}

/// Policies may be changed while the pipe is down.
async fn other_policies_are_kept(
    stage: &Stage,
    pipe: &mut Pipe,
    mut file: serde_json::Value,
) -> Result<()> {
    let database = &stage.database;
    ensure!(pipe.stop().await? == 0);
    file["ddl"] = json!({
        "truncate": "ignore", "drop_table": "ignore", "drop_column": "archive", "reload": "quarantine",
    });
    pipe.change_file(&file);
    pipe.restart()?;
    settled(stage, pipe, &["held"]).await?;
    names_taken_at_the_target_make_way(stage, pipe).await?;
    stage
        .source
        .execute_all([
            "TRUNCATE TABLE cut",
            "INSERT INTO cut VALUES (7, 7)",
            "DROP TABLE kept",
        ])
        .await?;
    stage.wait_caught_up(pipe, CATCH_UP).await?;
    let left = format!("SELECT count() FROM `{database}`.cut_current");
    ensure!(
        stage.clickhouse.number(&left).await? == 2,
        "TRUNCATE was not ignored"
    );
    let left = format!("SELECT count() FROM `{database}`.kept FINAL");
    ensure!(
        stage.clickhouse.number(&left).await? == 4,
        "DROP was not ignored"
    );
    stage
        .source
        .execute("ALTER TABLE held DROP PRIMARY KEY, ADD PRIMARY KEY (id, a)")
        .await?;
    let status = pipe.wait_state("Degraded", CATCH_UP).await?;
    ensure!(
        status["reasons"].to_string().contains("the key is"),
        "{status:#}"
    );
    Ok(())
}

/// An archived column's values, and those of a user's own column, are not taken for a new column's.
async fn names_taken_at_the_target_make_way(stage: &Stage, pipe: &mut Pipe) -> Result<()> {
    let database = &stage.database;
    let own = format!("ALTER TABLE `{database}`.kept ADD COLUMN c Int32 DEFAULT 99");
    stage.clickhouse.query(&own).await?;
    // How long it waits for the table's lock is MariaDB's to say in the statement.
    let wait = match stage.kind() {
        SourceKind::MySql => "",
        _ => "WAIT 60",
    };
    stage
        .source
        .execute_all([
            format!("ALTER TABLE kept {wait} ADD COLUMN a INT NOT NULL DEFAULT 4 AFTER id"),
            "INSERT INTO kept VALUES (4, 40, 4)".to_owned(),
            "ALTER TABLE kept RENAME COLUMN b TO c".to_owned(),
            "UPDATE kept SET c = 5 WHERE id = 1".to_owned(),
        ])
        .await?;
    assert_caught_up(stage, pipe, &["kept"]).await?;
    let aside = format!(
        "SELECT groupArray((id, a_dropped_1)) FROM \
         (SELECT id, a_dropped_1 FROM `{database}`.kept FINAL WHERE id < 4 ORDER BY id)"
    );
    let aside = stage.clickhouse.query(&aside).await?;
    // The row that was written since has what rows get that leave the column out.
    ensure!(
        aside == "[(1,NULL),(2,2),(3,NULL)]",
        "the archived column holds {aside}"
    );
    // The same name once more, while what was first put away under it is there.
    stage
        .source
        .execute_all([
            "ALTER TABLE kept DROP COLUMN a",
            "UPDATE kept SET c = 6 WHERE id = 2",
            "ALTER TABLE kept ADD COLUMN a VARCHAR(5) NOT NULL DEFAULT 'z'",
            "UPDATE kept SET a = 'y' WHERE id = 3",
        ])
        .await?;
    assert_caught_up(stage, pipe, &["kept"]).await?;
    let aside = format!(
        "SELECT groupArray((id, a_dropped_1, a_dropped_2)) FROM \
         (SELECT id, a_dropped_1, a_dropped_2 FROM `{database}`.kept FINAL WHERE id IN (2, 4) ORDER BY id)"
    );
    let aside = stage.clickhouse.query(&aside).await?;
    // Rows that are written since have the literal that the column was once added with.
    ensure!(
        aside == "[(2,NULL,4),(4,NULL,40)]",
        "the archived columns hold {aside}"
    );
    Ok(())
}

/// pitfall 101: rows in parts from before a column was added, and after it began to take NULL, while ClickHouse merges
/// nothing.
async fn archived_columns_keep_what_earlier_rows_show_and_later_ones_have_null(
    kind: SourceKind,
) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a INT)",
            "INSERT INTO t VALUES (1, 1), (2, 2)",
        ])
        .await?;
    let mut file = stage.pipe_file(&["t"]);
    file["ddl"] = json!({ "drop_column": "archive" });
    let mut pipe = running_with(&file).await?;
    let target = format!("`{}`.t", stage.database);
    // Parts are altered all the same, which SYSTEM STOP MERGES would end too.
    let stop = format!(
        "ALTER TABLE {target} MODIFY SETTING max_bytes_to_merge_at_max_space_in_pool = 1, \
         max_bytes_to_merge_at_min_space_in_pool = 1"
    );
    stage.clickhouse.query(&stop).await?;
    let wait = match kind {
        SourceKind::MySql => "",
        _ => "WAIT 60",
    };
    for statements in [
        [
            format!(
                "ALTER TABLE t {wait} ADD COLUMN plain INT NOT NULL, ADD COLUMN loosened INT NOT NULL, \
                     ADD COLUMN note VARCHAR(9) NOT NULL"
            ),
            "INSERT INTO t VALUES (3, 3, 30, 31, 'x')".to_owned(),
        ],
        [
            format!("ALTER TABLE t {wait} MODIFY loosened INT NULL, MODIFY note VARCHAR(9) NULL"),
            "INSERT INTO t VALUES (4, 4, 40, NULL, NULL)".to_owned(),
        ],
        [
            format!(
                "ALTER TABLE t {wait} DROP COLUMN plain, DROP COLUMN loosened, DROP COLUMN note"
            ),
            "INSERT INTO t VALUES (5, 5)".to_owned(),
        ],
    ] {
        stage.source.execute_all(statements).await?;
        assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    }
    let shown = "[(1,0,0,''),(2,0,0,''),(3,30,31,'x'),(4,40,NULL,NULL),(5,NULL,NULL,NULL)]";
    let archived = format!(
        "SELECT groupArray((id, plain, loosened, note)) FROM \
         (SELECT id, plain, loosened, note FROM {target} FINAL ORDER BY id)"
    );
    let held = async || stage.clickhouse.query(&archived).await;
    let found = held().await?;
    ensure!(found == shown, "the archived columns hold {found}");
    let reset = format!(
        "ALTER TABLE {target} RESET SETTING max_bytes_to_merge_at_max_space_in_pool, \
         max_bytes_to_merge_at_min_space_in_pool"
    );
    stage.clickhouse.query(&reset).await?;
    let merge = format!("OPTIMIZE TABLE {target} FINAL");
    stage.clickhouse.query(&merge).await?;
    let found = held().await?;
    ensure!(
        found == shown,
        "behind a merge the archived columns hold {found}"
    );
    // The source has them no more, so a load anew cannot show them.
    stage
        .source
        .execute("ALTER TABLE t DROP COLUMN a, DROP PRIMARY KEY, ADD COLUMN n INT NOT NULL DEFAULT 7, ADD PRIMARY KEY (id, n)")
        .await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    wait_exists(&stage, "t_history_1", true).await?;
    let put_away = archived.replace(&target, &format!("`{}`.t_history_1", stage.database));
    let found = stage.clickhouse.query(&put_away).await?;
    ensure!(
        found == shown,
        "behind a load the archived columns hold {found}"
    );
    Ok(())
}

/// pitfall 101
async fn archived_values_outlive_a_load_in_which_another_column_has_their_name(
    kind: SourceKind,
) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a INT)",
            "INSERT INTO t VALUES (1, 10), (2, 20)",
        ])
        .await?;
    let mut file = stage.pipe_file(&["t"]);
    file["ddl"] = json!({ "drop_column": "archive" });
    let mut pipe = running_with(&file).await?;
    let held = async |table: &str| {
        let sql = format!(
            "SELECT groupArray((id, a)) FROM (SELECT id, a FROM `{}`.{table} FINAL ORDER BY id)",
            stage.database
        );
        stage.clickhouse.query(&sql).await
    };
    for (statements, kept, shown) in [
        (
            [
                "ALTER TABLE t DROP COLUMN a, ADD COLUMN a INT",
                "INSERT INTO t VALUES (3, 30)",
            ],
            "t_history_1",
            "[(1,10),(2,20)]",
        ),
        // Archived in place, and loaded anew behind that.
        (
            [
                "ALTER TABLE t DROP COLUMN a",
                "ALTER TABLE t ADD COLUMN a INT NOT NULL DEFAULT 5, DROP PRIMARY KEY, ADD PRIMARY KEY (id, a)",
            ],
            "t_history_2",
            "[(1,NULL),(2,NULL),(3,30)]",
        ),
    ] {
        for statement in statements {
            stage.source.execute(statement).await?;
            assert_caught_up(&stage, &mut pipe, &["t"]).await?;
        }
        // It has that name a moment behind the exchange.
        wait_exists(&stage, kept, true).await?;
        let found = held(kept).await?;
        ensure!(found == shown, "`{kept}` holds {found}");
    }
    // Nothing is archived any more.
    let before = identity(&stage, "t").await?;
    let (code, answer) = pipe.command("resync").await?;
    ensure!(code == 200, "{code} {answer}");
    while identity(&stage, "t").await? == before {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    let tables = format!(
        "SELECT count() FROM system.tables WHERE database = '{}' AND name LIKE 't_history_%'",
        stage.database
    );
    ensure!(stage.clickhouse.number(&tables).await? == 2);
    Ok(())
}

/// The load that the narrower number takes would bring the drop too. Until somebody has decided, nothing of the statement
/// is followed, and nothing of what comes behind it; a resync is the decision.
async fn a_quarantined_drop_within_a_statement_that_moves_rows_waits_until_the_table_is_loaded_anew(
    kind: SourceKind,
) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a INT, b INT)",
            "INSERT INTO t VALUES (1, 10, 100), (2, 20, 200)",
        ])
        .await?;
    let mut file = stage.pipe_file(&["t"]);
    file["ddl"] = json!({ "drop_column": "quarantine" });
    let mut pipe = running_with(&file).await?;
    let before = identity(&stage, "t").await?;
    stage
        .source
        .execute_all([
            "INSERT INTO t VALUES (3, 30, 300)",
            "ALTER TABLE t DROP COLUMN a, MODIFY b SMALLINT",
            "INSERT INTO t VALUES (4, 400)",
            "UPDATE t SET b = 101 WHERE id = 1",
        ])
        .await?;
    let reason = reason_of(&mut pipe, &format!("{}.t", stage.database)).await?;
    ensure!(
        reason["message"].to_string().contains("DROP COLUMN `a`"),
        "{reason:#}"
    );
    let status = pipe.wait_state("Degraded", CATCH_UP).await?;
    ensure!(status["tables"][0]["state"] == "Quarantined", "{status:#}");
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let rows = format!(
        "SELECT groupArray((id, a, b)) FROM (SELECT id, a, b FROM `{}`.t_current ORDER BY id)",
        stage.database
    );
    wait_answer(&stage, &rows, "[(1,10,100),(2,20,200),(3,30,300)]").await?;
    ensure!(
        identity(&stage, "t").await? == before,
        "the table was loaded before anybody had decided"
    );

    let table = format!("{}.t", stage.database);
    let resync = json!({ "command": "resync", "table": table });
    let (status, answer) = pipe.order(resync).await?;
    ensure!(status == 200, "{status} {answer:#}");
    pipe.wait_state("Running", CATCH_UP).await?;
    stage
        .source
        .execute("INSERT INTO t VALUES (5, 500)")
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    ensure!(stage.assert_same("t").await? == 5);
    let shape = format!(
        "SELECT groupArray((name, type)) FROM (SELECT name, type FROM system.columns \
         WHERE database = '{}' AND table = 't' AND NOT startsWith(name, '_') ORDER BY position)",
        stage.database
    );
    let shape = stage.clickhouse.query(&shape).await?;
    ensure!(
        shape == "[('id','Int32'),('b','Nullable(Int16)')]",
        "the table that was loaded anew has {shape}"
    );
    stage.assert_no_load_left().await
}

/// A pipe that never loads does not begin to because of a statement.
async fn rows_without_a_load_are_not_invented() -> Result<()> {
    let stage = Stage::shared(SourceKind::MySql).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a INT)",
            "INSERT INTO t VALUES (1, 1)",
        ])
        .await?;
    let mut file = stage.pipe_file(&["t"]);
    file["mode"] = json!("cdc_only");
    let mut pipe = running_with(&file).await?;
    stage
        .source
        .execute_all([
            "INSERT INTO t VALUES (2, 2)",
            "ALTER TABLE t MODIFY a VARCHAR(20)",
        ])
        .await?;
    let status = pipe.wait_state("Degraded", CATCH_UP).await?;
    ensure!(
        status["reasons"].to_string().contains("cdc_only"),
        "{status:#}"
    );
    Ok(())
}
