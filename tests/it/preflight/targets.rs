//! What stands in a target's place, and cannot be written to as it is.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::Stage;

use super::{asked_pipe, assert_setup_tells, said_of, told};
use crate::support::{allow_locks, append, assert_caught_up, on_both_sources, running_with};

on_both_sources! {
    what_stands_in_a_targets_place_and_is_none_is_told_by_what_it_is: 300,
}

/// A view, a materialized view, a table with columns that take no value, and one that does not know an insert again.
async fn occupied(kind: SourceKind) -> Result<Stage> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE v (id INT PRIMARY KEY)",
            "CREATE TABLE m (id INT PRIMARY KEY)",
            "CREATE TABLE t (id INT PRIMARY KEY, born DATE NULL, kind VARCHAR(20) NULL)",
            "CREATE TABLE a (id INT PRIMARY KEY)",
            "CREATE TABLE f (id INT PRIMARY KEY)",
        ])
        .await?;
    allow_locks(&stage).await?;
    let database = &stage.database;
    for sql in [
        format!("CREATE DATABASE `{database}` ENGINE = Atomic"),
        format!("CREATE VIEW `{database}`.v AS SELECT toInt32(1) AS id WHERE 0"),
        format!("CREATE TABLE `{database}`.other (id Int32) ENGINE = MergeTree ORDER BY id"),
        format!(
            "CREATE MATERIALIZED VIEW `{database}`.m (id Int32) ENGINE = MergeTree ORDER BY id AS SELECT id FROM `{database}`.other"
        ),
        format!(
            "CREATE TABLE `{database}`.t (id Int32, born Nullable(Date32) MATERIALIZED today(), kind Nullable(String) EPHEMERAL, \
             _version UInt64, _is_deleted UInt8) ENGINE = ReplacingMergeTree(_version, _is_deleted) ORDER BY id"
        ),
        format!(
            "CREATE TABLE `{database}`.a (id Int32, _version UInt64) ENGINE = MergeTree ORDER BY (id, _version)"
        ),
    ] {
        stage.clickhouse.query(&sql).await?;
    }
    Ok(stage)
}

fn file_of(stage: &Stage, partition_by: Value) -> Value {
    let entry = |table: &str| json!({ "source": format!("{}.{table}", stage.database) });
    let mut f = entry("f");
    f["partition_by"] = partition_by;
    stage.pipe_file_of(vec![
        entry("v"),
        entry("m"),
        entry("t"),
        append(stage, "a"),
        f,
    ])
}

async fn what_stands_in_a_targets_place_and_is_none_is_told_by_what_it_is(
    kind: SourceKind,
) -> Result<()> {
    let stage = occupied(kind).await?;
    let asked = Stage::shared(kind).await?;
    let pipe = asked_pipe(&asked, None).await?;
    let file = file_of(&stage, json!("no_such_function(id)"));
    let found = told(&pipe, &file).await?;
    found.ensure(&["partition_by", "target_table"], &[])?;
    let targets = said_of(&found.found, "target_table");
    for part in [
        "its engine is View",
        "its engine is MaterializedView",
        "`born` is MATERIALIZED",
        "`kind` is EPHEMERAL",
        "non_replicated_deduplication_window = 0",
    ] {
        ensure!(targets.contains(part), "no `{part}` in {targets}");
    }
    assert_setup_tells(&file, &found).await?;
    let marker = stage.clickhouse.exists(&stage.database, "pw_marker");
    ensure!(!marker.await?, "the sound table was made all the same");
    let mut system = file;
    for name in ["system", "information_schema"] {
        system["destination"]["database"] = json!(name);
        told(&pipe, &system).await?.ensure(&["database"], &[])?;
    }

    // Each statement mends its own. What stood behind a column that takes no value is compared once there is one that does.
    let file = file_of(&stage, json!(null));
    for _ in 0..3 {
        for finding in told(&pipe, &file).await?.found {
            if finding["check"] == "target_table" {
                let remedy = finding["remedy"].as_str().unwrap_or_default();
                // A table that is dropped is told of several times.
                let remedy = remedy.replace("DROP TABLE ", "DROP TABLE IF EXISTS ");
                stage.clickhouse.query(&remedy).await?;
            }
        }
    }
    let left = told(&pipe, &file).await?;
    ensure!(left.errors.is_empty(), "{:#?}", left.found);
    let mut pipe = running_with(&file).await?;
    stage
        .source
        .execute_all([
            "INSERT INTO v VALUES (1)",
            "INSERT INTO m VALUES (1)",
            "INSERT INTO t VALUES (1, '1999-12-31', 'x')",
            "INSERT INTO f VALUES (1)",
        ])
        .await?;
    assert_caught_up(&stage, &mut pipe, &["v", "m", "t", "f"]).await
}
