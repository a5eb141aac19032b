//! Targets that were there before the pipe: everything that does not fit is told at once, with the statement that mends it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{Finished, Stage, run_to_end};

use crate::support::{CATCH_UP, START, launch, once, program, running_with, start, wait_answer};

once! {
    the_printed_alters_mend_a_table_with_nullable_columns: 300,
    the_printed_alters_mend_a_table_without_nullable_columns: 300,
    what_no_alter_mends_says_what_to_drop: 240,
    a_table_with_rows_is_refused_whatever_its_columns: 240,
}

async fn pipewright(arguments: &[&str]) -> Result<Finished> {
    let arguments = [&["pipewright"], arguments].concat();
    run_to_end(program(), arguments, &[], Duration::from_secs(50)).await
}

async fn with_source(kind: SourceKind) -> Result<Stage> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT NOT NULL, tenant INT NOT NULL, note VARCHAR(20) NULL, total DECIMAL(10,2) NULL, \
             kind ENUM('a','it''s') NOT NULL, born DATE NULL, PRIMARY KEY (id))",
            "INSERT INTO t VALUES (1, 1, 'one', 1.5, 'a', '2024-02-29'), (2, 1, NULL, NULL, 'it''s', NULL)",
        ])
        .await?;
    let sql = format!("CREATE DATABASE `{}` ENGINE = Atomic", stage.database);
    stage.clickhouse.query(&sql).await?;
    Ok(stage)
}

fn written(folder: &Path, file: &Value) -> Result<String> {
    let path = folder.join("pipe.yaml");
    std::fs::write(&path, format!("{file:#}"))?;
    Ok(path.display().to_string())
}

/// The findings about targets, as `verb` tells them.
async fn findings(verb: &[&str], path: &str) -> Result<Vec<Value>> {
    let finished = pipewright(&[verb, &[path, "--json"]].concat()).await?;
    let document: Value =
        serde_json::from_str(&finished.stdout).with_context(|| format!("{finished:?}"))?;
    let findings = match verb[0] {
        "plan" => &document["plans"][0]["findings"],
        _ if finished.code == 0 => &document["findings"],
        _ => &document["error"]["findings"],
    };
    let findings = findings
        .as_array()
        .with_context(|| format!("{document:#}"))?;
    Ok(findings
        .iter()
        .filter(|finding| finding["check"] == "target_table")
        .cloned()
        .collect())
}

fn remedies(findings: &[Value]) -> Vec<String> {
    findings
        .iter()
        .filter_map(|finding| finding["remedy"].as_str().map(str::to_owned))
        .collect()
}

/// `run` tells everything that `validate` does, and ends before it has touched anything.
async fn ensure_run_refuses(stage: &Stage, file: &Value, found: &[Value]) -> Result<()> {
    let mut pipe = start(launch(file))?;
    let code = pipe.wait_exit(START).await?;
    let log = pipe.log().tail();
    ensure!(code == 1, "ended with {code}: {log}");
    for remedy in remedies(found) {
        ensure!(log.contains(&remedy), "no `{remedy}` in {log}");
    }
    let rows = format!("SELECT count() FROM `{}`.t", stage.database);
    ensure!(
        stage.clickhouse.number(&rows).await? == 0,
        "rows were written"
    );
    ensure!(
        !stage
            .clickhouse
            .exists(&stage.database, "pw_marker")
            .await?,
        "the other table was made all the same"
    );
    Ok(())
}

async fn mended_by_the_printed_alters(kind: SourceKind, nullable: bool) -> Result<()> {
    let stage = with_source(kind).await?;
    let database = &stage.database;
    // Of eleven columns two fit: the key, and `note` where its nullability is the wanted one, which it is not.
    let note = if nullable {
        "String"
    } else {
        "Nullable(String)"
    };
    let create = format!(
        "CREATE TABLE `{database}`.t (id Int32, tenant Int64, note {note}, total Float64, kind LowCardinality(String), \
         born Date32 ALIAS toDate32(id), extra String DEFAULT 'x', _version UInt32 DEFAULT 5, _is_deleted UInt8, \
         _synced_at DateTime64(6, 'UTC')) ENGINE = ReplacingMergeTree(_version, _is_deleted) ORDER BY id"
    );
    stage.clickhouse.query(&create).await?;
    let entry = json!({
        "source": format!("{database}.t"),
        "columns": { "kind": { "enum": "enum16" } },
    });
    let mut file = stage.pipe_file_of(vec![entry]);
    file["nullable"] = json!(nullable);
    let folder = tempfile::tempdir()?;
    let path = written(folder.path(), &file)?;
    let found = findings(&["validate", "--online"], &path).await?;
    ensure!(
        found == strip_pipe(&found, findings(&["plan"], &path).await?),
        "plan tells other findings"
    );
    let told = json!(found).to_string();
    for part in [
        "`tenant` is Int64",
        "`note` is",
        "`total` is Float64",
        "`kind` is LowCardinality(String)",
        "`born` is ALIAS",
        "`_version` is UInt32",
        "`_version` has a default",
        "`_synced_at` has no default",
    ] {
        ensure!(told.contains(part), "no `{part}` in {told}");
    }
    ensure!(!told.contains("extra"), "{told}");
    ensure_run_refuses(&stage, &file, &found).await?;
    for remedy in remedies(&found) {
        ensure!(remedy.starts_with("ALTER TABLE"), "{remedy}");
        stage.clickhouse.query(&remedy).await?;
    }
    let left = findings(&["validate", "--online"], &path).await?;
    // What stood behind an ALIAS is compared once it is a column.
    for remedy in remedies(&left) {
        stage.clickhouse.query(&remedy).await?;
    }
    let left = findings(&["validate", "--online"], &path).await?;
    ensure!(left.is_empty(), "{left:#?}");
    let mut pipe = running_with(&file).await?;
    stage
        .source
        .execute("INSERT INTO t VALUES (3, 2, 'three', 3.25, 'a', '1999-12-31')")
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let sql = format!(
        "SELECT count(), sum(total), max(kind), countIf(_synced_at > '2020-01-01'), any(extra) FROM `{database}`.t FINAL"
    );
    wait_answer(&stage, &sql, "3\t4.75\tit\\'s\t3\tx").await
}

/// `plan`'s findings as `validate` prints them, which adds the pipe.
fn strip_pipe(like: &[Value], findings: Vec<Value>) -> Vec<Value> {
    let mut findings = findings;
    for (finding, like) in findings.iter_mut().zip(like) {
        finding["pipe"] = like["pipe"].clone();
    }
    findings
}

async fn the_printed_alters_mend_a_table_with_nullable_columns() -> Result<()> {
    mended_by_the_printed_alters(SourceKind::MySql, true).await
}

async fn the_printed_alters_mend_a_table_without_nullable_columns() -> Result<()> {
    mended_by_the_printed_alters(SourceKind::MariaDb11, false).await
}

async fn what_no_alter_mends_says_what_to_drop() -> Result<()> {
    let stage = with_source(SourceKind::MariaDb).await?;
    let database = &stage.database;
    let create = format!(
        "CREATE TABLE `{database}`.t (id Int64, tenant Int32) ENGINE = MergeTree PARTITION BY tenant ORDER BY (tenant, id)"
    );
    stage.clickhouse.query(&create).await?;
    let folder = tempfile::tempdir()?;
    let file = stage.pipe_file(&["t"]);
    let path = written(folder.path(), &file)?;
    let found = findings(&["validate", "--online"], &path).await?;
    let told = json!(found).to_string();
    for part in [
        "engine is MergeTree",
        "ordered by (tenant, id)",
        "partitioned by tenant",
        "`id` is Int64",
        "no column `note`",
        "no column `_synced_at`",
    ] {
        ensure!(told.contains(part), "no `{part}` in {told}");
    }
    let (drops, alters): (Vec<String>, Vec<String>) = remedies(&found)
        .into_iter()
        .partition(|remedy| remedy.starts_with("DROP TABLE"));
    ensure!(
        drops.len() == 4 && alters.len() == 7,
        "{drops:#?} {alters:#?}"
    );
    let drop = drops[0].split(',').next().unwrap_or_default();
    stage.clickhouse.query(drop).await?;
    running_with(&file).await?;
    ensure!(stage.assert_same("t").await? == 2);
    Ok(())
}

async fn a_table_with_rows_is_refused_whatever_its_columns() -> Result<()> {
    let stage = with_source(SourceKind::MySql).await?;
    let database = &stage.database;
    for sql in [
        format!("CREATE TABLE `{database}`.t (id Int64) ENGINE = MergeTree ORDER BY id"),
        format!("INSERT INTO `{database}`.t VALUES (1)"),
    ] {
        stage.clickhouse.query(&sql).await?;
    }
    let folder = tempfile::tempdir()?;
    let path = written(folder.path(), &stage.pipe_file(&["t"]))?;
    let found = findings(&["validate", "--online"], &path).await?;
    ensure!(found.len() == 1, "{found:#?}");
    let told = found[0].to_string();
    ensure!(
        told.contains("rows that this pipe did not write") && told.contains("resync"),
        "{told}"
    );
    Ok(())
}
