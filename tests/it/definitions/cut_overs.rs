//! Tables that gh-ost and pt-online-schema-change put in the place of others.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use testbed::SourceKind;
use testbed::harness::{Pipe, Stage};

use super::{identity, settled};
use crate::support::{CATCH_UP, assert_caught_up, on_both_sources, once, running, running_with};

on_both_sources! {
    online_schema_change_tools_put_their_table_in_place: 500,
    a_copy_that_may_hold_other_rows_or_columns_is_loaded: 500,
}

once! {
    a_table_is_loaded_anew_by_file_and_offset_while_a_copy_of_it_is_made: 240,
}

/// pitfall 104: gh-ost and pt-online-schema-change; the target stays, only its definition changes.
async fn online_schema_change_tools_put_their_table_in_place(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a INT)",
            "INSERT INTO t VALUES (1, 1), (2, 2)",
        ])
        .await?;
    let mut pipe = running(&stage, &["t"]).await?;
    let before = identity(&stage, "t").await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE _t_gho LIKE t",
            "ALTER TABLE _t_gho ADD COLUMN b VARCHAR(10) NOT NULL DEFAULT 'new', MODIFY a BIGINT",
            "INSERT INTO _t_gho (id, a) SELECT id, a FROM t",
            "INSERT INTO t VALUES (3, 3)",
            "INSERT INTO _t_gho (id, a) VALUES (3, 3)",
            "RENAME TABLE t TO _t_del, _t_gho TO t",
            "INSERT INTO t VALUES (4, 5000000000, 'after')",
            "DROP TABLE _t_del",
        ])
        .await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE _t_new LIKE t",
            "ALTER TABLE _t_new DROP COLUMN b",
            "CREATE TRIGGER pt_ins AFTER INSERT ON t FOR EACH ROW REPLACE INTO _t_new (id, a) VALUES (NEW.id, NEW.a)",
            "INSERT INTO t VALUES (5, 5, 'by trigger')",
            "INSERT IGNORE INTO _t_new (id, a) SELECT id, a FROM t",
            "RENAME TABLE t TO _t_old, _t_new TO t",
            "DROP TABLE IF EXISTS _t_old",
            "INSERT INTO t VALUES (6, 6)",
        ])
        .await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    ensure!(
        identity(&stage, "t").await? == before,
        "the table was loaded anew"
    );
    // Both tools copy with INSERT IGNORE, so that NULL becomes 0 whatever the mode of the session that renames.
    stage
        .source
        .execute_all([
            "INSERT INTO t VALUES (7, NULL)",
            "CREATE TABLE _t_gho LIKE t",
            "ALTER TABLE _t_gho MODIFY a BIGINT NOT NULL",
            "INSERT IGNORE INTO _t_gho SELECT * FROM t",
            "RENAME TABLE t TO _t_del, _t_gho TO t",
        ])
        .await?;
    settled(&stage, &mut pipe, &["t"]).await?;
    a_new_unique_key_leaves_rows_out(&stage, &mut pipe).await?;
    a_copy_changes_what_no_event_tells(&stage, &mut pipe).await?;
    a_copy_that_is_begun_behind_an_alteration(&stage, &mut pipe).await?;
    a_table_that_changes_beside_its_copy_is_loaded(&stage, &mut pipe).await?;
    // A table of a tool's name that no tool puts in place brings rows of its own.
    stage
        .source
        .execute_all([
            "CREATE TABLE _t_new (id INT PRIMARY KEY, a BIGINT)",
            "INSERT INTO _t_new VALUES (100, 100)",
            "RENAME TABLE t TO past, _t_new TO t",
        ])
        .await?;
    settled(&stage, &mut pipe, &["t"]).await
}

/// What is done to a copy is nothing that is done to the table, which is altered before the pipe has come there.
async fn a_copy_that_is_begun_behind_an_alteration(stage: &Stage, pipe: &mut Pipe) -> Result<()> {
    let before = identity(stage, "t").await?;
    ensure!(pipe.stop().await? == 0);
    stage
        .source
        .execute_all([
            "ALTER TABLE t ADD COLUMN q INT NULL",
            "DROP TABLE IF EXISTS _t_gho",
            "CREATE TABLE _t_gho LIKE t",
            "ALTER TABLE _t_gho ADD COLUMN r INT NULL",
        ])
        .await?;
    pipe.restart()?;
    settled(stage, pipe, &["t"]).await?;
    ensure!(
        identity(stage, "t").await? == before,
        "the table was loaded anew"
    );
    Ok(())
}

/// No tool copies a TRUNCATE, or an alteration: the copy brings rows back that the table has lost.
async fn a_table_that_changes_beside_its_copy_is_loaded(
    stage: &Stage,
    pipe: &mut Pipe,
) -> Result<()> {
    for change in ["ALTER TABLE t ADD COLUMN late INT NULL", "TRUNCATE TABLE t"] {
        let before = identity(stage, "t").await?;
        stage
            .source
            .execute_all([
                "DROP TABLE IF EXISTS _t_del, _t_gho",
                "CREATE TABLE _t_gho LIKE t",
                "ALTER TABLE _t_gho ADD COLUMN beside INT NULL",
                "INSERT IGNORE INTO _t_gho SELECT *, NULL FROM t",
                change,
                "RENAME TABLE t TO _t_del, _t_gho TO t",
            ])
            .await?;
        settled(stage, pipe, &["t"]).await?;
        ensure!(
            identity(stage, "t").await? != before,
            "a copy beside `{change}` was followed in place"
        );
        stage
            .source
            .execute("ALTER TABLE t DROP COLUMN beside")
            .await?;
        settled(stage, pipe, &["t"]).await?;
    }
    Ok(())
}

/// gh-ost changes rows of its copy under that one's name, which changes what ON UPDATE sets. The table that it puts aside
/// may be named after a time.
async fn a_copy_changes_what_no_event_tells(stage: &Stage, pipe: &mut Pipe) -> Result<()> {
    stage
        .source
        .execute_all([
            "DROP TABLE IF EXISTS _t_del",
            "CREATE TABLE _t_gho LIKE t",
            "ALTER TABLE _t_gho ADD COLUMN x TIMESTAMP NULL ON UPDATE CURRENT_TIMESTAMP",
            "INSERT IGNORE INTO _t_gho SELECT *, NULL FROM t",
            "UPDATE t SET a = 99 WHERE id = 1",
            "UPDATE _t_gho SET a = 99 WHERE id = 1",
            "RENAME TABLE t TO _t_del, _t_gho TO t",
        ])
        .await?;
    settled(stage, pipe, &["t"]).await?;
    let before = identity(stage, "t").await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE _t_gho LIKE t",
            "ALTER TABLE _t_gho ADD COLUMN z INT NULL",
            "INSERT IGNORE INTO _t_gho SELECT *, NULL FROM t",
            "RENAME TABLE t TO _t_20260101120000_del, _t_gho TO t",
            "UPDATE t SET z = 1 WHERE id = 1",
        ])
        .await?;
    settled(stage, pipe, &["t"]).await?;
    ensure!(
        identity(stage, "t").await? == before,
        "the table was loaded anew"
    );
    Ok(())
}

/// A key that the table has already leaves nothing out; another one, or another collation, does so in silence.
async fn a_new_unique_key_leaves_rows_out(stage: &Stage, pipe: &mut Pipe) -> Result<()> {
    let copy = |change: &str| {
        [
            "DROP TABLE IF EXISTS _t_del".to_owned(),
            "CREATE TABLE _t_gho LIKE t".to_owned(),
            format!("ALTER TABLE _t_gho {change}"),
            "INSERT IGNORE INTO _t_gho SELECT * FROM t".to_owned(),
            "RENAME TABLE t TO _t_del, _t_gho TO t".to_owned(),
        ]
    };
    stage
        .source
        .execute_all([
            "ALTER TABLE t ADD COLUMN e VARCHAR(10) COLLATE utf8mb4_bin NOT NULL DEFAULT 'x'",
            "UPDATE t SET e = IF(id = 2, 'A', IF(id = 1, 'a', id))",
            "INSERT INTO t VALUES (8, 1, 'y')",
            "ALTER TABLE t ADD UNIQUE KEY u (e)",
        ])
        .await?;
    settled(stage, pipe, &["t"]).await?;
    let before = identity(stage, "t").await?;
    let same = copy("DROP INDEX u, ADD UNIQUE KEY v (e), ADD UNIQUE KEY w (e, a)");
    stage.source.execute_all(same).await?;
    settled(stage, pipe, &["t"]).await?;
    // A key of later on, behind which the catalog may be ahead.
    stage
        .source
        .execute_all([
            "ALTER TABLE t ADD COLUMN g INT NULL",
            "CREATE UNIQUE INDEX g1 ON t (g)",
            "ALTER TABLE t COMMENT = 'more'",
            "UPDATE t SET g = id",
        ])
        .await?;
    settled(stage, pipe, &["t"]).await?;
    let same = copy("DROP INDEX g1, ADD UNIQUE KEY g2 (g)");
    stage.source.execute_all(same).await?;
    settled(stage, pipe, &["t"]).await?;
    ensure!(
        identity(stage, "t").await? == before,
        "the table was loaded anew"
    );
    let lossy = [
        "ADD UNIQUE KEY (a)",
        "MODIFY e VARCHAR(10) COLLATE utf8mb4_general_ci NOT NULL DEFAULT 'x'",
    ];
    for change in lossy {
        let rows = || stage.source.number("SELECT COUNT(*) FROM t");
        let stood = rows().await?;
        stage.source.execute_all(copy(change)).await?;
        ensure!(rows().await? < stood, "{change} leaves no row out");
        settled(stage, pipe, &["t"]).await?;
    }
    Ok(())
}

/// What a tool was told of its copy, and how it then copied: the catalog shows the same columns as before, or some more.
const OTHERWISE: [(&str, &str); 6] = [
    // gh-ost copies no column that is dropped.
    (
        "DROP COLUMN a, ADD COLUMN a INT NULL",
        "(id, b) SELECT id, b",
    ),
    (
        "CHANGE a b INT NULL, CHANGE b a INT NULL",
        "(id, b, a) SELECT id, a, b",
    ),
    (
        "CHANGE a c INT NULL, ADD COLUMN a INT NULL",
        "(id, c, b) SELECT id, a, b",
    ),
    ("ADD CHECK (a > 1)", "(id, a, b) SELECT id, a, b"),
    (
        "PARTITION BY RANGE (id) (PARTITION p VALUES LESS THAN (2))",
        "(id, a, b) SELECT id, a, b",
    ),
    (
        "ADD CONSTRAINT k FOREIGN KEY (a) REFERENCES none (id)",
        "(id, a, b) SELECT id, a, b",
    ),
];

/// pitfall 104: both tools copy with INSERT IGNORE, which leaves out what a CHECK, a partition or a foreign key refuses; and
/// a column of a known name may be another.
async fn a_copy_that_may_hold_other_rows_or_columns_is_loaded(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute("CREATE TABLE none (id INT PRIMARY KEY)")
        .await?;
    let mut pipe: Option<Pipe> = None;
    for (number, (change, copied)) in OTHERWISE.into_iter().enumerate() {
        let name = format!("t{number}");
        stage
            .source
            .execute_all([
                format!("CREATE TABLE {name} (id INT PRIMARY KEY, a INT NULL, b INT NULL)"),
                format!("INSERT INTO {name} VALUES (1, 1, 10), (2, 2, 20)"),
            ])
            .await?;
        let entry = json!({ "source": format!("{}.{name}", stage.database) });
        match &mut pipe {
            None => pipe = Some(running(&stage, &[&name]).await?),
            Some(pipe) => {
                let add = json!({ "tables": { "add": [entry] } });
                ensure!(pipe.change(add).await?.0 == 200);
                pipe.wait_state("Running", CATCH_UP).await?;
            }
        }
        let pipe = pipe.as_mut().context("a pipe")?;
        let before = identity(&stage, &name).await?;
        let rename = format!("RENAME TABLE {name} TO _{name}_del, _{name}_gho TO {name}");
        stage
            .source
            .execute_all([
                format!("CREATE TABLE _{name}_gho LIKE {name}"),
                format!("ALTER TABLE _{name}_gho {change}"),
                format!("INSERT IGNORE INTO _{name}_gho {copied} FROM {name}"),
                rename.clone(),
            ])
            .await?;
        settled(&stage, pipe, &[&name]).await?;
        ensure!(
            identity(&stage, &name).await? != before,
            "`{change}` was followed in place"
        );
        // What was done to a copy is known over a restart; of one that was begun before a load nothing is.
        let begin = [
            format!("DROP TABLE _{name}_del"),
            format!("CREATE TABLE _{name}_gho LIKE {name}"),
            format!("INSERT IGNORE INTO _{name}_gho SELECT * FROM {name}"),
        ];
        stage.source.execute_all(begin).await?;
        stage.wait_caught_up(pipe, CATCH_UP).await?;
        let is_first = number == 0;
        if is_first {
            pipe.kill9()?;
            pipe.restart()?;
        } else {
            let order =
                json!({ "command": "resync", "table": format!("{}.{name}", stage.database) });
            ensure!(pipe.order(order).await?.0 == 200);
        }
        settled(&stage, pipe, &[&name]).await?;
        let before = identity(&stage, &name).await?;
        stage.source.execute(rename).await?;
        settled(&stage, pipe, &[&name]).await?;
        ensure!(
            (identity(&stage, &name).await? == before) == is_first,
            "a copy begun before: {is_first}"
        );
    }
    Ok(())
}

/// The start of a load is looked for from the beginning of the binlog file.
async fn a_table_is_loaded_anew_by_file_and_offset_while_a_copy_of_it_is_made() -> Result<()> {
    let stage = Stage::shared(SourceKind::MySql).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a INT)",
            "INSERT INTO t VALUES (1, 1), (2, 2)",
        ])
        .await?;
    let mut file = stage.pipe_file(&["t"]);
    file["source"]["position"] = json!("file");
    let mut pipe = running_with(&file).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE _t_gho LIKE t",
            "ALTER TABLE _t_gho ADD COLUMN b INT NULL",
        ])
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let order = json!({ "command": "resync", "table": format!("{}.t", stage.database) });
    let (status, answer) = pipe.order(order).await?;
    ensure!(status == 200, "{status}: {answer:#}");
    settled(&stage, &mut pipe, &["t"]).await
}
