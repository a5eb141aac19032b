//! Entries of the pipe file that cannot be told, or do not fit their tables: each is told beside the others, and tables
//! that are sound are looked at all the same.

use anyhow::{Result, ensure};
use serde_json::json;
use testbed::SourceKind;
use testbed::harness::Stage;

use super::{asked_pipe, assert_setup_tells, told};
use crate::support::on_both_sources;

on_both_sources! {
    what_the_entries_mean_is_told_entry_by_entry: 240,
}

async fn what_the_entries_mean_is_told_entry_by_entry(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    let tables = ["p", "q", "s", "ta", "tb", "xa"];
    stage
        .source
        .execute_all(tables.map(|table| format!("CREATE TABLE {table} (id INT PRIMARY KEY)")))
        .await?;
    let database = &stage.database;
    for sql in [
        format!("CREATE DATABASE `{database}` ENGINE = Atomic"),
        format!("CREATE TABLE `{database}`.s (id Int32) ENGINE = MergeTree ORDER BY id"),
    ] {
        stage.clickhouse.query(&sql).await?;
    }
    let name = |table: &str| format!("{database}.{table}");
    // A choice for dates, which the column has none of.
    let misplaced = json!({ "id": { "zero_dates": "epoch" } });
    let mut file = stage.pipe_file_of(vec![
        json!({ "source": name("t*") }),
        json!({ "source": name("*a") }),
        json!({
            "source": name("tb"),
            "target": "xa",
            "split_by": "none",
            "columns": { "none": { "json": "string" } },
        }),
        json!({ "source": name("p"), "columns": misplaced }),
        json!({ "source": name("q"), "columns": misplaced }),
        json!({ "source": name("s") }),
    ]);
    // A warning of the kind that misplaced choices are of, which hides none of them.
    file["source"]["host"] = json!("0.0.0.0");
    file["source"]["tls"] = json!({ "mode": "disabled" });
    let asked = Stage::shared(kind).await?;
    let pipe = asked_pipe(&asked, None).await?;
    let told = told(&pipe, &file).await?;
    let errors = [
        "columns",
        "config",
        "split_by",
        "target_table",
        "targets",
        "wildcards",
    ];
    told.ensure(&errors, &["tls"])?;
    let told_alone = |code: &str, part: &str| {
        told.found
            .iter()
            .any(|one| one["check"] == code && one["found"].to_string().contains(part))
    };
    for (code, part) in [
        ("config", &name("p")),
        ("config", &name("q")),
        ("target_table", &name("s")),
        ("wildcards", &name("t*")),
        ("targets", &name("tb")),
    ] {
        ensure!(told_alone(code, part), "no {code} of {part}: {told:#?}");
    }
    for finding in &told.found {
        let remedy = finding["remedy"].as_str().unwrap_or_default();
        ensure!(!remedy.contains(" | "), "several in one: {finding:#}");
    }
    assert_setup_tells(&file, &told).await
}
