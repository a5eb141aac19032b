//! Keys stay apart whatever was chosen.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{Stage, run_to_end};

use super::lifetime::failed;
use crate::support::{
    CATCH_UP, START, launch, on_both_sources, once, program, running_with, start,
};

on_both_sources! {
    dates_as_text_keep_two_keys_apart: 240,
    a_key_with_a_zero_date_stops_the_table_by_name: 240,
}

once! {
    policies_that_could_make_two_keys_one_are_refused_at_setup: 240,
    a_choice_that_does_not_concern_its_column_is_refused_at_setup: 240,
}

async fn zero_keys(kind: SourceKind) -> Result<Stage> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (day DATE NOT NULL, id INT NOT NULL, note VARCHAR(9), PRIMARY KEY (day, id))",
            "INSERT INTO t VALUES ('1970-01-01', 1, 'real'), ('2024-02-29', 1, 'leap')",
        ])
        .await?;
    Ok(stage)
}

const ZERO_KEY: [&str; 2] = [
    "SET sql_mode = ''",
    "INSERT INTO t VALUES ('0000-00-00', 1, 'zero')",
];

async fn dates_as_text_keep_two_keys_apart(kind: SourceKind) -> Result<()> {
    let stage = zero_keys(kind).await?;
    stage.source.execute_all(ZERO_KEY).await?;
    let entry = json!({
        "source": format!("{}.t", stage.database),
        "columns": { "day": { "date_range": "string" } },
    });
    let mut pipe = running_with(&stage.pipe_file_of(vec![entry])).await?;
    stage
        .source
        .execute_all([
            "SET sql_mode = 'ALLOW_INVALID_DATES'",
            "INSERT INTO t VALUES ('2024-00-00', 1, 'partial'), ('1970-01-01', 2, 'late')",
            "UPDATE t SET note = 'changed' WHERE day = '0000-00-00'",
        ])
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let rows = stage
        .clickhouse
        .rows(&format!(
            "SELECT day, note FROM `{}`.t_current ORDER BY day, id",
            stage.database
        ))
        .await?;
    let expected: Vec<Vec<Option<String>>> = [
        ["0000-00-00", "changed"],
        ["1970-01-01", "real"],
        ["1970-01-01", "late"],
        ["2024-00-00", "partial"],
        ["2024-02-29", "leap"],
    ]
    .map(|row| row.map(|text| Some(text.to_owned())).to_vec())
    .to_vec();
    ensure!(rows == expected, "{rows:?}");
    Ok(())
}

async fn a_key_with_a_zero_date_stops_the_table_by_name(kind: SourceKind) -> Result<()> {
    let stage = zero_keys(kind).await?;
    let mut pipe = running_with(&stage.pipe_file(&["t"])).await?;
    stage.source.execute_all(ZERO_KEY).await?;
    let reason = failed(&mut pipe).await?;
    for part in [
        "column `day`",
        "key",
        "date_range: string",
        &format!("{}.t", stage.database),
    ] {
        ensure!(reason.contains(part), "no `{part}` in {reason}");
    }
    let zero = format!(
        "SELECT count() FROM `{}`.t_current WHERE note = 'zero'",
        stage.database
    );
    ensure!(stage.clickhouse.number(&zero).await? == 0);
    // The load meets it in the same way.
    let stage = zero_keys(kind).await?;
    stage.source.execute_all(ZERO_KEY).await?;
    let mut file = stage.pipe_file(&["t"]);
    file["mode"] = json!("snapshot");
    let mut pipe = start(launch(&file).argument("--once"))?;
    let code = pipe.wait_exit(START).await?;
    ensure!(code == 1, "ended with {code}");
    let log = pipe.log().tail();
    ensure!(
        log.contains("day") && log.contains("date_range: string"),
        "{log}"
    );
    Ok(())
}

/// What `validate --online` says of a table and what was chosen for it.
async fn refusal(stage: &Stage, types: Value, columns: Value) -> Result<String> {
    let entry = json!({ "source": format!("{}.t", stage.database), "columns": columns });
    let mut file = stage.pipe_file_of(vec![entry]);
    file["types"] = types;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("pipe.yaml");
    std::fs::write(&path, format!("{file:#}"))?;
    let path = path.display().to_string();
    let arguments = ["pipewright", "validate", &path, "--online"];
    let finished = run_to_end(program(), arguments, &[], Duration::from_secs(50)).await?;
    ensure!(finished.code != 0, "accepted: {file:#}");
    Ok(finished.stderr)
}

async fn policies_that_could_make_two_keys_one_are_refused_at_setup() -> Result<()> {
    let stage = Stage::shared(SourceKind::MySql).await?;
    stage
        .source
        .execute(
            "CREATE TABLE t (day DATE NOT NULL, flag TINYINT(1) NOT NULL, PRIMARY KEY (day, flag))",
        )
        .await?;
    let none = || json!({});
    for (types, columns, column) in [
        (json!({ "zero_dates": "epoch" }), none(), "`day`"),
        (json!({ "zero_dates": "clamp" }), none(), "`day`"),
        (none(), json!({ "day": { "date_range": null } }), "`day`"),
        (none(), json!({ "day": { "date_range": "clamp" } }), "`day`"),
        (json!({ "tinyint1": "bool" }), none(), "`flag`"),
    ] {
        let told = refusal(&stage, types, columns).await?;
        ensure!(
            told.contains(column)
                && told.contains("part of the key")
                && told.contains("columns: {"),
            "{told}"
        );
    }
    Ok(())
}

async fn a_choice_that_does_not_concern_its_column_is_refused_at_setup() -> Result<()> {
    let stage = Stage::shared(SourceKind::MySql).await?;
    stage
        .source
        .execute("CREATE TABLE t (id INT PRIMARY KEY, n INT)")
        .await?;
    for key in [
        json!({ "zero_dates": "epoch" }),
        json!({ "date_range": "string" }),
        json!({ "date_range": null }),
        json!({ "tinyint1": "bool" }),
        json!({ "enum": "integer" }),
        json!({ "set": "array" }),
        json!({ "binary": "hex" }),
        json!({ "json": "json" }),
        json!({ "decimal": "string" }),
    ] {
        let name = key.as_object().and_then(|key| key.keys().next()).cloned();
        let told = refusal(&stage, json!({}), json!({ "n": key })).await?;
        let name = name.unwrap_or_default();
        ensure!(
            told.contains("column `n`") && told.contains(&name),
            "{name}: {told}"
        );
    }
    Ok(())
}
