//! The verbs that look and end: what they print, and that they touch nothing.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{Finished, Stage, run_to_end};

use crate::support::{on_both_sources, once, program};

on_both_sources! {
    plan_shows_what_setup_would_make_and_makes_nothing: 240,
    validate_online_reports_what_a_start_would_refuse: 240,
}

once! {
    validate_needs_no_server_and_no_secret: 60,
    plan_tells_what_a_statement_would_lead_to: 60,
    schema_describes_the_pipe_file: 60,
    help_teaches: 60,
    a_wrong_command_line_ends_with_2: 60,
}

async fn pipewright(arguments: &[&str]) -> Result<Finished> {
    run_to_end(
        program(),
        [&["pipewright"], arguments].concat(),
        &[],
        Duration::from_secs(50),
    )
    .await
}

fn written(folder: &Path, file: &Value) -> Result<String> {
    let path = folder.join("pipe.yaml");
    std::fs::write(&path, format!("{file:#}"))?;
    Ok(path.display().to_string())
}

async fn plan_tells_what_a_statement_would_lead_to() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = json!({
        "version": 1,
        "pipe": "shop",
        "source": { "type": "mysql", "host": "127.0.0.1", "user": "x", "password": "${NOWHERE}" },
        "destination": { "url": "http://127.0.0.1:1" },
        "tables": [{ "source": "shop.orders" }, { "source": "shop.item*" }],
        "ddl": { "drop_column": "archive", "truncate": "quarantine" },
    });
    let path = written(folder.path(), &file)?;
    for (statement, expected) in [
        (
            "ALTER TABLE orders DROP COLUMN note",
            "shop.orders: DROP COLUMN `note`: what was there is kept aside",
        ),
        (
            "alter table shop.items exchange partition p with table x",
            "loaded anew",
        ),
        (
            "TRUNCATE `shop`.`orders`",
            "taken out of service until a person decides",
        ),
        (
            "DROP TABLE elsewhere.t, items",
            "shop.items: DROP TABLE: what was there is kept aside",
        ),
        (
            "RENAME TABLE orders TO _orders_del, _orders_gho TO orders",
            "follows the new definition",
        ),
        (
            "ALTER TABLE orders ADD INDEX i (a)",
            "nothing: the statement changes no table",
        ),
        (
            "DROP VIEW orders",
            "nothing: the statement changes no table",
        ),
    ] {
        let told = pipewright(&["plan", &path, "--ddl", statement]).await?;
        ensure!(
            told.code == 0 && told.stdout.contains(expected),
            "{statement}: {told:?}"
        );
    }
    let told = pipewright(&[
        "plan",
        &path,
        "--ddl",
        "ALTER TABLE orders ADD a INT",
        "--json",
    ])
    .await?;
    let told: Value = serde_json::from_str(&told.stdout)?;
    ensure!(
        told["ddl"][0]["effects"][0]["policy"] == "apply",
        "{told:#}"
    );
    Ok(())
}

async fn plan_shows_what_setup_would_make_and_makes_nothing(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute("CREATE TABLE t (id INT PRIMARY KEY, price DECIMAL(10,2) NULL)")
        .await?;
    let folder = tempfile::tempdir()?;
    let path = written(folder.path(), &stage.pipe_file(&["t"]))?;
    let plan = pipewright(&["plan", &path]).await?;
    ensure!(plan.code == 0, "{plan:?}");
    for text in [
        "decimal(10,2)",
        "Nullable(Decimal(10, 2))",
        "ReplacingMergeTree(`_version`, `_is_deleted`)",
        "t_current",
    ] {
        ensure!(
            plan.stdout.contains(text),
            "no `{text}` in the plan:\n{}",
            plan.stdout
        );
    }
    let plan = pipewright(&["plan", &path, "--json"]).await?;
    let document: Value =
        serde_json::from_str(&plan.stdout).context("plan --json prints no JSON")?;
    ensure!(
        document.to_string().contains("CREATE TABLE"),
        "{document:#}"
    );
    let databases = format!(
        "SELECT count() FROM system.databases WHERE name = '{}'",
        stage.database
    );
    ensure!(
        stage.clickhouse.number(&databases).await? == 0,
        "plan has made a database"
    );
    Ok(())
}

async fn validate_online_reports_what_a_start_would_refuse(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY)",
            "CREATE TABLE keyless (a INT)",
        ])
        .await?;
    let folder = tempfile::tempdir()?;
    let path = written(folder.path(), &stage.pipe_file(&["t"]))?;
    let fine = pipewright(&["validate", &path, "--online"]).await?;
    ensure!(fine.code == 0, "{fine:?}");
    let path = written(folder.path(), &stage.pipe_file(&["t", "keyless", "absent"]))?;
    let refused = pipewright(&["validate", &path, "--online"]).await?;
    let said = format!("{}{}", refused.stdout, refused.stderr);
    ensure!(
        refused.code == 1 && said.contains("keyless") && said.contains("absent"),
        "{refused:?}"
    );
    Ok(())
}

async fn validate_needs_no_server_and_no_secret() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut file = json!({
        "version": 1,
        "pipe": "shop",
        "source": { "type": "mysql", "host": "db.invalid", "user": "u", "password": "${NOT_SET_ANYWHERE}" },
        "destination": { "url": "http://clickhouse.invalid:8123", "password": "${file:/no/such/secret}" },
        "tables": [{ "source": "shop.orders" }],
    });
    let fine = pipewright(&["validate", &written(folder.path(), &file)?]).await?;
    ensure!(fine.code == 0, "{fine:?}");
    file["tables"][0]["targett"] = json!("x");
    let refused = pipewright(&["validate", &written(folder.path(), &file)?]).await?;
    let said = format!("{}{}", refused.stdout, refused.stderr);
    ensure!(
        refused.code == 78 && said.contains("targett") && said.contains("pipe.yaml:"),
        "{refused:?}"
    );
    let refused = pipewright(&["validate", &written(folder.path(), &file)?, "--json"]).await?;
    let document: Value =
        serde_json::from_str(&refused.stdout).context("validate --json prints no JSON")?;
    ensure!(
        refused.code == 78 && document.to_string().contains("targett"),
        "{document:#}"
    );
    Ok(())
}

async fn schema_describes_the_pipe_file() -> Result<()> {
    let schema = pipewright(&["schema"]).await?;
    let document: Value = serde_json::from_str(&schema.stdout).context("the schema is no JSON")?;
    ensure!(
        schema.code == 0 && document["properties"]["tables"].is_object(),
        "{document:#}"
    );
    Ok(())
}

async fn help_teaches() -> Result<()> {
    let help = pipewright(&["--help"]).await?;
    ensure!(help.code == 0, "{help:?}");
    for text in [
        "run",
        "validate",
        "plan",
        "status",
        "pause",
        "resume",
        "plugin",
        "Exit codes",
    ] {
        ensure!(
            help.stdout.contains(text),
            "no `{text}` in the help:\n{}",
            help.stdout
        );
    }
    let help = pipewright(&["run", "--help"]).await?;
    ensure!(
        help.code == 0 && help.stdout.contains("Examples"),
        "{help:?}"
    );
    Ok(())
}

async fn a_wrong_command_line_ends_with_2() -> Result<()> {
    for arguments in [&["dance"][..], &["run"], &["status", "--no-such-option"]] {
        let refused = pipewright(arguments).await?;
        ensure!(
            refused.code == 2 && !refused.stderr.is_empty(),
            "{arguments:?}: {refused:?}"
        );
    }
    Ok(())
}
