//! Tables that gh-ost and pt-online-schema-change put in the place of others.

use anyhow::{Result, ensure};
use testbed::SourceKind;
use testbed::harness::{Pipe, Stage};

use super::{identity, settled};
use crate::support::{assert_caught_up, on_both_sources, running};

on_both_sources! {
    online_schema_change_tools_put_their_table_in_place: 500,
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
