//! The account that a pipe reads with: what it must be granted, and how its password goes over the network.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::harness::{Pipe, Stage};
use testbed::{MariaDbExtras, SourceKind, SourceOptions, SourceServer};

use crate::preflight::{asked_pipe, assert_setup_tells, codes, findings, told};
use crate::support::{
    CATCH_UP, START, assert_caught_up, assert_each_change_once, events_behind, has_kinds, launch,
    on_both_sources, once, running_with, start,
};

on_both_sources! {
    an_account_is_told_each_grant_that_it_lacks_and_needs_no_more: 360,
}

once! {
    an_append_table_is_told_the_right_to_lock_it: 240,
    an_encrypted_binlog_is_read_by_an_account_that_signs_with_ed25519: 360,
}

/// A pipe file that reads by an account without any right, which no server has seen before.
async fn with_account(stage: &Stage) -> Result<Value> {
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a INT)",
            "INSERT INTO t VALUES (1, 1), (2, 2)",
        ])
        .await?;
    // Another case has its own on the same server. Account names are short, and so are databases' here.
    let user = format!("u_{}", stage.database);
    stage
        .source
        .execute(format!("CREATE USER '{user}'@'%' IDENTIFIED BY 'secret'"))
        .await?;
    let mut file = stage.pipe_file(&["t"]);
    file["source"]["user"] = json!(user);
    file["source"]["password"] = json!("secret");
    Ok(file)
}

/// Runs what the findings of this severity name as their remedies; the codes of all findings.
async fn follow_remedies(stage: &Stage, pipe: &Pipe, severity: &str) -> Result<usize> {
    let found = findings(pipe).await?;
    let mut granted = 0;
    for finding in &found {
        let remedy = finding["remedy"].as_str().unwrap_or_default();
        if finding["severity"] == severity && remedy.starts_with("GRANT ") {
            stage
                .source
                .execute(remedy)
                .await
                .with_context(|| format!("{finding:#}"))?;
            granted += 1;
        }
    }
    Ok(granted)
}

/// pitfall 65: each right is probed, and its remedy is the statement that grants it. pitfall 135: on MySQL the password of
/// an account that the server has not in its cache crosses a plain connection under the server's key, and none crosses it
/// where the pipe file asks for TLS.
async fn an_account_is_told_each_grant_that_it_lacks_and_needs_no_more(
    kind: SourceKind,
) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    let mut file = with_account(&stage).await?;
    file["source"]["server_id"] = json!(3_000_000 + u64::from(std::process::id()));
    let mut pipe = start(launch(&file))?;
    ensure!(pipe.wait_exit(START).await? == 1);
    let found = findings(&pipe).await?;
    let errors = codes(&found, "error");
    let client = match kind.is_mariadb() {
        true => "binlog_monitor",
        false => "replication_client",
    };
    for code in [client, "replication_slave", "select"] {
        ensure!(errors.contains(code), "{code} was not found: {found:#?}");
    }
    let wanted: &[&str] = match kind.is_mariadb() {
        true => &["replication_master_admin", "slave_monitor"],
        false => &["xa_recover_admin"],
    };
    let warnings = codes(&found, "warning");
    ensure!(
        wanted.iter().all(|code| warnings.contains(*code)),
        "{found:#?}"
    );
    // A table becomes visible with the first right on it, and so does what else it lacks.
    let mut granted = 0;
    while let count @ 1.. = follow_remedies(&stage, &pipe, "error").await? {
        granted += count;
        ensure!(granted < 20, "the remedies do not help");
    }
    ensure!(granted >= 4, "only {granted} grants were asked for");
    pipe.restart()?;
    pipe.wait_state("Running", START).await?;
    stage
        .source
        .execute("UPDATE t SET a = 3 WHERE id = 1")
        .await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    follow_remedies(&stage, &pipe, "warning").await?;
    let left = codes(&findings(&pipe).await?, "warning");
    ensure!(
        wanted.iter().all(|code| !left.contains(*code)),
        "the remedies do not help: {left:?}"
    );

    ensure!(pipe.stop().await? == 0);
    file["source"]["tls"] = json!({ "mode": "required" });
    pipe.change_file(&file);
    pipe.restart()?;
    if kind.is_mariadb() {
        // This server has no certificate.
        let status = pipe
            .wait_for("Failed", START, |status| status["state"] == "Failed")
            .await?;
        ensure!(
            status["reasons"].to_string().contains("offers no TLS"),
            "{status:#}"
        );
        return Ok(());
    }
    pipe.wait_state("Running", START).await?;
    stage.source.execute("DELETE FROM t WHERE id = 2").await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    let user = file["source"]["user"].as_str().unwrap_or_default();
    let connections: Vec<String> = stage
        .source
        .rows(format!(
            "SELECT connection_type FROM performance_schema.threads WHERE processlist_user = '{user}'"
        ))
        .await?;
    ensure!(
        !connections.is_empty() && connections.iter().all(|kind| kind == "SSL/TLS"),
        "{connections:?}"
    );
    Ok(())
}

async fn an_append_table_is_told_the_right_to_lock_it() -> Result<()> {
    let stage = Stage::shared(SourceKind::MySql).await?;
    let mut file = with_account(&stage).await?;
    file["tables"][0]["engine"] = json!("append");
    let asked = Stage::shared(SourceKind::MySql).await?;
    let pipe = asked_pipe(&asked, None).await?;
    let mut found = told(&pipe, &file).await?;
    // Everything but that.
    while found.errors.iter().any(|code| code != "lock_tables") {
        for finding in &found.found {
            let remedy = finding["remedy"].as_str().unwrap_or_default();
            if finding["severity"] == "error" && finding["check"] != "lock_tables" {
                stage.source.execute(remedy).await?;
            }
        }
        found = told(&pipe, &file).await?;
    }
    found.ensure(&["lock_tables"], &[])?;
    assert_setup_tells(&file, &found).await?;
    for finding in &found.found {
        if finding["severity"] == "error" {
            let remedy = finding["remedy"].as_str().unwrap_or_default();
            stage.source.execute(remedy).await?;
        }
    }
    let mut pipe = running_with(&file).await?;
    stage
        .source
        .execute("UPDATE t SET a = 3 WHERE id = 1")
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    assert_each_change_once(&stage, "t", 1).await
}

/// pitfall 75: what is encrypted on the disk of the server is not on its way to a client. pitfall 82: it begins with events
/// that say so, and what the file is about. pitfall 92: MariaDB's own method of authentication, on control connections, on
/// those that load and on the one that follows.
async fn an_encrypted_binlog_is_read_by_an_account_that_signs_with_ed25519() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let keys = folder.path().join("keys.txt");
    std::fs::write(&keys, format!("1;{}\n", "0f".repeat(32)))?;
    let started = move || {
        let extras = MariaDbExtras::find()?;
        let mut options = SourceOptions::new(SourceKind::MariaDb);
        options.extra_args = vec![
            format!("--plugin-dir={}", extras.plugins.display()),
            "--plugin-load-add=file_key_management".to_owned(),
            format!("--file-key-management-filename={}", keys.display()),
            "--encrypt-binlog=ON".to_owned(),
            "--plugin-load-add=auth_ed25519".to_owned(),
        ];
        SourceServer::start(options)
    };
    let stage = Stage::with_source(started).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a VARCHAR(50))",
            "INSERT INTO t VALUES (1, 'one'), (2, 'two')",
            "CREATE USER signer@'%' IDENTIFIED VIA ed25519 USING PASSWORD('secret')",
            "GRANT SELECT, REPLICATION SLAVE, BINLOG MONITOR, SLAVE MONITOR ON *.* TO signer@'%'",
        ])
        .await?;
    let mut file = stage.pipe_file(&["t"]);
    file["source"]["user"] = json!("signer");
    file["source"]["password"] = json!("secret");
    let mut pipe = start(launch(&file))?;
    pipe.wait_state("Running", START).await?;
    stage
        .source
        .execute_all([
            "INSERT INTO t VALUES (3, 'written in secret')",
            "UPDATE t SET id = 20 WHERE id = 2",
            "DELETE FROM t WHERE id = 1",
        ])
        .await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    let binlog = std::fs::read(stage.source_server.data_dir().join("binlog.000001"))?;
    ensure!(
        !binlog.windows(7).any(|bytes| bytes == b"written"),
        "the binlog is not encrypted"
    );
    let events = events_behind(&stage, &("binlog.000001".to_owned(), 4)).await?;
    let beside = [
        "Start_encryption",
        "Gtid_list",
        "Binlog_checkpoint",
        "Annotate_rows",
    ];
    has_kinds(&events, &beside)?;
    file["source"]["password"] = json!("another");
    let mut refused = start(launch(&file))?;
    ensure!(refused.wait_exit(START).await? == 1);
    let told = refused.log().tail();
    ensure!(told.contains("refused user `signer`"), "{told}");
    Ok(())
}
