//! The verbs that look and end: what they print, and that they touch nothing.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use testbed::SourceKind;
use testbed::harness::{Finished, Stage, run_to_end};

use crate::connections::{rotate, with_account};
use crate::support::{CATCH_UP, on_both_sources, once, program, running, running_with};

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
    changes_come_by_while_they_are_watched: 240,
    a_followed_history_goes_on_through_a_renewed_secret_and_ends_with_the_pipe: 240,
    refusals_keep_the_code_of_the_process: 240,
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
            "ALTER TABLE other EXCHANGE PARTITION p WITH TABLE orders WITHOUT VALIDATION",
            "shop.orders: rows came or went without row events: the table is loaded anew",
        ),
        (
            "ALTER TABLE other CONVERT TABLE orders TO PARTITION p VALUES LESS THAN (5)",
            "shop.orders: another table has taken in its rows: what was there is kept aside",
        ),
        (
            "ALTER TABLE other CONVERT PARTITION p TO TABLE items",
            "shop.items: it was made of another table's rows: it joins the pipe and is loaded, where it has been there before",
        ),
        (
            "ALTER TABLE other RENAME TO orders",
            "shop.orders: another table has its name: the table is loaded anew",
        ),
        (
            "ALTER TABLE orders REORGANIZE PARTITION p INTO (PARTITION p VALUES LESS THAN (9))",
            "nothing: the statement changes no table",
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
            "RENAME TABLE orders TO _orders_del, _orders_gho TO orders",
            "shop.orders: unique keys, collations, CHECKs, foreign keys or partitions beyond those of before, and columns of \
             another name: nothing, where the statements on its copy have none; rows may have been left out, or stand \
             elsewhere: the table is loaded anew",
        ),
        (
            "RENAME TABLE orders TO backup, _orders_gho TO orders",
            "shop.orders: RENAME: the table is loaded anew",
        ),
        (
            "CREATE UNIQUE INDEX i ON orders (a)",
            "shop.orders: a primary or unique key: nothing, where the key that tells rows apart stays; else the table",
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

/// A verb that goes on until it is ended, and what it has printed so far.
struct Watching {
    child: Child,
    out: NamedTempFile,
}

impl Watching {
    fn begin(arguments: &[&str]) -> Result<Self> {
        let out = NamedTempFile::new()?;
        let child = Command::new(program())
            .arg("pipewright")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(out.reopen()?)
            .spawn()?;
        Ok(Self { child, out })
    }

    /// Waits until a line is as wanted.
    async fn wait_for(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> Result<()> {
        let until = Instant::now() + CATCH_UP;
        loop {
            let printed = std::fs::read_to_string(self.out.path())?;
            if printed.lines().any(&wanted) {
                return Ok(());
            }
            if let Some(code) = self.child.try_wait()? {
                bail!("ended with {code} before `{what}`; it printed:\n{printed}");
            }
            ensure!(Instant::now() < until, "no `{what}` in:\n{printed}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The exit code, once it ends by itself.
    async fn wait_exit(&mut self) -> Result<Option<i32>> {
        let until = Instant::now() + CATCH_UP;
        loop {
            if let Some(code) = self.child.try_wait()? {
                return Ok(code.code());
            }
            ensure!(Instant::now() < until, "it does not end");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        // One that has ended by itself is what was wanted.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

async fn changes_come_by_while_they_are_watched() -> Result<()> {
    let stage = Stage::shared(SourceKind::MySql).await?;
    stage
        .source
        .execute("CREATE TABLE t (id INT PRIMARY KEY)")
        .await?;
    let mut pipe = running(&stage, &["t"]).await?;
    let (name, address) = (stage.database.as_str(), pipe.url());
    let url = address.as_str();
    let begin = |verb: &[&str]| Watching::begin(&[verb, &[name, "--server", url]].concat());
    let json = |line: &str| -> Value { serde_json::from_str(line).unwrap_or_default() };
    let mut documents = begin(&["status", "--watch", "--json"])?;
    let mut shown = begin(&["status", "--watch"])?;
    let mut events = begin(&["events", "--follow", "--json"])?;
    let mut told = begin(&["events", "--follow", "--limit", "1"])?;
    documents
        .wait_for("Running", |line| json(line)["state"] == "Running")
        .await?;
    shown
        .wait_for("Running", |line| line.contains("Running"))
        .await?;
    events
        .wait_for("the past", |line| {
            json(line)["text"] == "Provisioning to Setup"
        })
        .await?;
    ensure!(pipe.command("pause").await?.0 == 200);
    documents
        .wait_for("Paused", |line| json(line)["state"] == "Paused")
        .await?;
    shown
        .wait_for("Paused", |line| line.contains("Paused"))
        .await?;
    for text in ["pause", "Pausing to Paused"] {
        events
            .wait_for(text, |line| json(line)["text"] == text)
            .await?;
        told.wait_for(text, |line| line.contains(text)).await?;
    }
    // Both end with the process: one has nobody to ask any more, the other has seen everything.
    ensure!(pipe.stop().await? == 0);
    for (watching, expected) in [(&mut documents, 69), (&mut events, 0)] {
        let code = watching.wait_exit().await?;
        ensure!(code == Some(expected), "{code:?} in place of {expected}");
    }
    Ok(())
}

/// A secret that means something else puts another pipe in the place of the one that is resumed.
async fn a_followed_history_goes_on_through_a_renewed_secret_and_ends_with_the_pipe() -> Result<()>
{
    let stage = Stage::shared(SourceKind::MySql).await?;
    stage
        .source
        .execute("CREATE TABLE t (id INT PRIMARY KEY)")
        .await?;
    let user = with_account(&stage, "canary-1").await?;
    let folder = tempfile::tempdir()?;
    let secret = folder.path().join("password");
    std::fs::write(&secret, "canary-1\n")?;
    let mut file = stage.pipe_file(&["t"]);
    file["source"]["user"] = json!(user);
    file["source"]["password"] = json!(format!("${{file:{}}}", secret.display()));
    let pipe = running_with(&file).await?;
    let (name, address) = (stage.database.as_str(), pipe.url());
    let arguments = ["events", name, "--follow", "--json", "--server", &address];
    let mut events = Watching::begin(&arguments)?;
    let json = |line: &str| -> Value { serde_json::from_str(line).unwrap_or_default() };
    ensure!(pipe.command("pause").await?.0 == 200);
    events
        .wait_for("Paused", |line| json(line)["text"] == "Pausing to Paused")
        .await?;
    rotate(&stage, &user, "canary-2").await?;
    std::fs::write(&secret, "canary-2\n")?;
    ensure!(pipe.command("resume").await?.0 == 200);
    events
        .wait_for("Running", |line| json(line)["text"] == "Paused to Running")
        .await?;
    let path = format!("/v1/pipes/{name}");
    let (status, answer) = pipe.call(Method::DELETE, &path, "").await?;
    ensure!(status == 200, "{status}: {answer:#}");
    let code = events.wait_exit().await?;
    let printed = std::fs::read_to_string(events.out.path())?;
    ensure!(
        code == Some(1) && printed.contains("the pipe was dropped"),
        "{code:?}: {printed}"
    );
    let ids: Vec<u64> = printed
        .lines()
        .filter_map(|line| json(line)["id"].as_u64())
        .collect();
    ensure!(
        ids.iter().zip(1..).all(|(id, expected)| *id == expected),
        "lost or told twice: {printed}"
    );
    Ok(())
}

async fn refusals_keep_the_code_of_the_process() -> Result<()> {
    let stage = Stage::shared(SourceKind::MariaDb).await?;
    stage
        .source
        .execute("CREATE TABLE t (id INT PRIMARY KEY)")
        .await?;
    let pipe = running(&stage, &["t"]).await?;
    let (name, address) = (stage.database.as_str(), pipe.url());
    let url = address.as_str();
    let absent = format!("{name}.absent");
    let absent = absent.as_str();
    for (arguments, code, hinted) in [
        (&["pause", "absent"][..], "unknown_pipe", true),
        (&["set", name, "interval=soon"], "config", true),
        (&["set", name, "source.port=1"], "illegal_command", true),
        (&["tables", "remove", name, absent], "config", true),
        (&["tables", "retry", name, "t"], "body", true),
        (&["export", "absent"], "unknown_pipe", true),
        (&["events", "absent", "--follow"], "unknown_pipe", true),
    ] {
        let line = [arguments, &["--json", "--server", url]].concat();
        let refused = pipe.cli(&line).await?;
        let document: Value = serde_json::from_str(&refused.stdout)
            .with_context(|| format!("{arguments:?}: {refused:?}"))?;
        let error = &document["error"];
        ensure!(
            refused.code == 1 && error["code"] == code && error["hint"].is_string() == hinted,
            "{arguments:?}: {} {document:#}",
            refused.code
        );
        let refused = pipe.cli(&[arguments, &["--server", url]].concat()).await?;
        ensure!(
            refused.code == 1 && refused.stdout.is_empty() && refused.stderr.contains("hint:"),
            "{arguments:?}: {refused:?}"
        );
    }
    Ok(())
}
