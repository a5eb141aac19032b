//! How a pipe reaches its two ends, changed under it and changed for it: what it says, what it takes, and that nothing is
//! lost and no password shown.

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable;
use reqwest::Method;
use serde_json::{Value, json};
use testbed::harness::{Pipe, Stage};
use testbed::{ClickHouseOptions, ClickHouseServer, ClickHouseUser, SourceKind, shared_source};

use crate::support::{
    CATCH_UP, START, assert_caught_up, double, launch, on_both_sources, once, running_with, start,
};

on_both_sources! {
    rotated_credentials_of_the_source_stop_a_pipe_until_it_is_told_the_new_ones: 400,
    a_secret_that_was_rotated_in_its_file_is_read_again_when_the_pipe_is_started_or_resumed: 300,
    another_way_to_the_source_is_tried_before_it_is_taken: 400,
    credentials_rotated_during_a_load_fail_the_pipe_and_the_load_goes_on_with_the_new_ones: 300,
}

once! {
    an_account_of_clickhouse_that_fails_is_told_of_and_the_pipe_goes_on_with_another: 500,
}

pub(crate) async fn with_t(stage: &Stage) -> Result<()> {
    let statements = [
        "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, a VARCHAR(50))",
        "INSERT INTO t (a) VALUES ('one'), ('two')",
    ];
    stage.source.execute_all(statements).await
}

/// An account of the stage's own at the source, with what a pipe needs.
pub(crate) async fn with_account(stage: &Stage, password: &str) -> Result<String> {
    let user = format!("own_{}", stage.database);
    let grants = match stage.kind() {
        SourceKind::MySql => "SELECT, REPLICATION SLAVE, REPLICATION CLIENT, XA_RECOVER_ADMIN",
        SourceKind::MariaDb | SourceKind::MariaDb11 => {
            "SELECT, REPLICATION SLAVE, BINLOG MONITOR, SLAVE MONITOR"
        }
    };
    stage
        .source
        .execute_all([
            format!("CREATE USER {user}@'%' IDENTIFIED BY '{password}'"),
            format!("GRANT {grants} ON *.* TO {user}@'%'"),
        ])
        .await?;
    Ok(user)
}

/// The same account, and a pipe file over `t` that names it.
pub(crate) async fn file_of_account(stage: &Stage, password: &str) -> Result<(String, Value)> {
    let user = with_account(stage, password).await?;
    let mut file = stage.pipe_file(&["t"]);
    file["source"]["user"] = json!(user);
    file["source"]["password"] = json!(password);
    Ok((user, file))
}

/// Another password for the account, and no connection left that was made with the former one.
pub(crate) async fn rotate(stage: &Stage, user: &str, password: &str) -> Result<()> {
    stage
        .source
        .execute(format!("ALTER USER {user}@'%' IDENTIFIED BY '{password}'"))
        .await?;
    end_connections(stage, user).await
}

/// Ends whatever connections the account has at the source.
pub(crate) async fn end_connections(stage: &Stage, user: &str) -> Result<()> {
    let sql = format!("SELECT id FROM information_schema.processlist WHERE user = '{user}'");
    let open: Vec<u64> = stage.source.rows(sql).await?;
    for id in open {
        // One that has ended meanwhile is what was wanted.
        stage.source.execute(format!("KILL {id}")).await.ok();
    }
    Ok(())
}

/// Everything that a reader of the process can see of the pipe.
async fn seen(pipe: &Pipe, name: &str) -> Result<String> {
    let mut text = pipe.log().tail();
    for path in [
        format!("/v1/pipes/{name}"),
        format!("/v1/pipes/{name}/file"),
        format!("/v1/pipes/{name}/events?limit=1000"),
        "/metrics".to_owned(),
    ] {
        text += &pipe.get_text(&path).await?;
    }
    Ok(text)
}

async fn ensure_keeps_passwords(pipe: &Pipe, name: &str) -> Result<()> {
    let text = seen(pipe, name).await?;
    ensure!(!text.contains("canary"), "a password is shown: {text}");
    Ok(())
}

/// Waits until the pipe has failed for `code`, with a remedy that names `remedy`.
async fn wait_failed(pipe: &mut Pipe, code: &str, remedy: &str) -> Result<()> {
    let failed = pipe.wait_state("Failed", CATCH_UP).await?;
    let reason = &failed["reasons"][0];
    ensure!(
        reason["code"] == code && reason["remedy"].to_string().contains(remedy),
        "{failed:#}"
    );
    Ok(())
}

fn drift<'a>(document: &'a Value, key: &str) -> &'a Value {
    let drift = document["drift"].as_array();
    let found = drift.and_then(|drift| drift.iter().find(|drift| drift["key"] == key));
    found.unwrap_or(&Value::Null)
}

async fn rotated_credentials_of_the_source_stop_a_pipe_until_it_is_told_the_new_ones(
    kind: SourceKind,
) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    with_t(&stage).await?;
    let (user, mut file) = file_of_account(&stage, "canary-1").await?;
    let mut pipe = running_with(&file).await?;

    rotate(&stage, &user, "canary-2").await?;
    let insert = "INSERT INTO t (a) VALUES ('meanwhile')";
    stage.source.execute(insert).await?;
    wait_failed(&mut pipe, "source_denied", "source.password").await?;
    let (status, problem) = pipe
        .change(json!({ "source": { "password": "canary-wrong" } }))
        .await?;
    ensure!(
        status == 422 && problem["code"] == "source_denied",
        "{status} {problem}"
    );
    let (status, document) = pipe
        .change(json!({ "source": { "password": "canary-2" } }))
        .await?;
    ensure!(status == 200, "{status} {document}");
    ensure!(
        drift(&document, "source.password")["running"] == "***",
        "{document:#}"
    );
    let (status, document) = pipe.command("start").await?;
    ensure!(status == 200, "{status} {document}");
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;

    // While the pipe runs, nothing of this is taken.
    let (status, problem) = pipe
        .change(json!({ "source": { "password": "canary-2" } }))
        .await?;
    ensure!(
        status == 409 && problem["detail"].to_string().contains("Running"),
        "{status} {problem}"
    );

    // From the command line, with a password that looks like a reference.
    ensure!(pipe.command("pause").await?.0 == 200);
    pipe.wait_state("Paused", CATCH_UP).await?;
    rotate(&stage, &user, "canary-${3}").await?;
    stage.source.execute(insert).await?;
    let folder = tempfile::tempdir()?;
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "canary-${3}\n")?;
    let (secret, url) = (secret.display().to_string(), pipe.url());
    let line: &[&str] = &[
        "set",
        &stage.database,
        "--source-password-file",
        &secret,
        "--server",
        &url,
    ];
    let set = pipe.cli(line).await?;
    ensure!(set.code == 0 && !set.stdout.contains("canary"), "{set:?}");
    ensure!(pipe.command("resume").await?.0 == 200);
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    ensure_keeps_passwords(&pipe, &stage.database).await?;

    // It outlives the process, and the file's own word for it ends the drift.
    pipe.kill9()?;
    pipe.restart()?;
    let document = pipe.wait_state("Running", CATCH_UP).await?;
    ensure!(
        !drift(&document, "source.password").is_null(),
        "{document:#}"
    );
    ensure!(pipe.stop().await? == 0);
    file["source"]["password"] = json!("canary-$${3}");
    pipe.change_file(&file);
    pipe.restart()?;
    let document = pipe.wait_state("Running", CATCH_UP).await?;
    ensure!(document["drift"] == json!([]), "{document:#}");
    stage.source.execute("DELETE FROM t WHERE id = 1").await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    ensure_keeps_passwords(&pipe, &stage.database).await
}

async fn a_secret_that_was_rotated_in_its_file_is_read_again_when_the_pipe_is_started_or_resumed(
    kind: SourceKind,
) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    with_t(&stage).await?;
    let user = with_account(&stage, "canary-1").await?;
    let folder = tempfile::tempdir()?;
    let secret = folder.path().join("password");
    std::fs::write(&secret, "canary-1\n")?;
    let mut file = stage.pipe_file(&["t"]);
    file["source"]["user"] = json!(user);
    file["source"]["password"] = json!(format!("${{file:{}}}", secret.display()));
    let mut pipe = running_with(&file).await?;
    let insert = "INSERT INTO t (a) VALUES ('meanwhile')";

    rotate(&stage, &user, "canary-2").await?;
    stage.source.execute(insert).await?;
    wait_failed(&mut pipe, "source_denied", "`start` or `resume`").await?;
    std::fs::write(&secret, "canary-2\n")?;
    let (status, document) = pipe.command("start").await?;
    ensure!(status == 200, "{status} {document}");
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;

    ensure!(pipe.command("pause").await?.0 == 200);
    pipe.wait_state("Paused", CATCH_UP).await?;
    rotate(&stage, &user, "canary-3").await?;
    stage.source.execute(insert).await?;
    // A reference that leads nowhere is refused, and the pipe stays as it is.
    std::fs::remove_file(&secret)?;
    let (status, problem) = pipe.command("resume").await?;
    ensure!(
        status == 422 && problem.to_string().contains("source.password"),
        "{status} {problem}"
    );
    ensure!(pipe.status().await?["state"] == "Paused");
    std::fs::write(&secret, "canary-3\n")?;
    let (status, document) = pipe.command("resume").await?;
    ensure!(
        status == 200 && document["drift"] == json!([]),
        "{status} {document}"
    );
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    ensure_keeps_passwords(&pipe, &stage.database).await
}

async fn another_way_to_the_source_is_tried_before_it_is_taken(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    with_t(&stage).await?;
    let mut pipe = running_with(&stage.pipe_file(&["t"])).await?;
    ensure!(pipe.command("pause").await?.0 == 200);
    pipe.wait_state("Paused", CATCH_UP).await?;
    let mut refused = vec![
        (
            json!({ "source": { "port": 1 } }),
            503,
            "source_unavailable",
        ),
        (json!({ "source": { "port": 0 } }), 422, "config"),
        (json!({ "source": { "type": "mariadb" } }), 422, "config"),
        // Plain text is for this machine, unless somebody says otherwise.
        (
            json!({ "source": { "host": "db.example.com" } }),
            422,
            "config",
        ),
        (
            json!({ "source": { "user": "nobody" } }),
            422,
            "source_denied",
        ),
        (
            json!({ "source": { "password": "${NOT_SET_ANYWHERE}" } }),
            422,
            "config",
        ),
        (
            json!({ "destination": { "url": "http://127.0.0.1:1" } }),
            503,
            "destination_unavailable",
        ),
        (
            json!({ "destination": { "database": "other" } }),
            422,
            "config",
        ),
    ];
    if kind == SourceKind::MariaDb {
        // Another server, which has never had what was read.
        let other = tokio::task::spawn_blocking(|| shared_source(SourceKind::MariaDb11)).await?;
        let way = json!({ "source": { "port": other.port() } });
        refused.push((way, 422, "source_diverged"));
    }
    for (change, status, code) in refused {
        let (found, problem) = pipe.change(change.clone()).await?;
        ensure!(
            found == status && problem["code"] == code,
            "{change}: {found} {problem}"
        );
        let document = pipe.status().await?;
        ensure!(
            document["state"] == "Paused" && document["drift"] == json!([]),
            "{change}: {document:#}"
        );
    }
    stage.source.execute("DELETE FROM t WHERE id = 1").await?;
    // The same servers under other names, one key at a time, through the command line too.
    let port = stage.clickhouse_server.http_port();
    let url = format!("destination.url=http://localhost:{port}");
    let server = pipe.url();
    let line: &[&str] = &[
        "set",
        &stage.database,
        "source.host=localhost",
        &url,
        "interval=300ms",
        "--server",
        &server,
        "--json",
    ];
    let set = pipe.cli(line).await?;
    ensure!(set.code == 0, "{set:?}");
    let document: Value = serde_json::from_str(&set.stdout).context("set --json")?;
    for (key, running) in [("source.host", "localhost"), ("sync.interval", "300ms")] {
        ensure!(
            drift(&document, key)["running"] == running,
            "{key}: {document:#}"
        );
    }
    ensure!(pipe.command("resume").await?.0 == 200);
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    // Back to what the file says.
    ensure!(pipe.command("pause").await?.0 == 200);
    pipe.wait_state("Paused", CATCH_UP).await?;
    let (status, document) = pipe.change(json!({ "source": { "host": null } })).await?;
    ensure!(
        status == 200 && drift(&document, "source.host").is_null(),
        "{status} {document:#}"
    );
    ensure!(pipe.command("resume").await?.0 == 200);
    stage.source.execute("DELETE FROM t WHERE id = 2").await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    the_same_way_under_tls(&stage, &mut pipe).await
}

/// MariaDB's server has no certificate: the change is refused, and the pipe goes on as before.
async fn the_same_way_under_tls(stage: &Stage, pipe: &mut Pipe) -> Result<()> {
    let user = with_account(stage, "canary-1").await?;
    let way = json!({ "user": user, "password": "canary-1", "tls": { "mode": "required" } });
    let way = json!({ "source": way });
    let (status, problem) = pipe.change(way.clone()).await?;
    ensure!(
        status == 409 && problem["detail"].to_string().contains("Running"),
        "{status} {problem:#}"
    );
    ensure!(pipe.command("pause").await?.0 == 200);
    pipe.wait_state("Paused", CATCH_UP).await?;
    let (status, answer) = pipe.change(way).await?;
    if stage.kind() == SourceKind::MariaDb {
        ensure!(
            status == 422 && answer.to_string().contains("offers no TLS"),
            "{status} {answer:#}"
        );
        ensure!(pipe.command("resume").await?.0 == 200);
        return assert_caught_up(stage, pipe, &["t"]).await;
    }
    ensure!(status == 200, "{status} {answer:#}");
    ensure!(pipe.command("resume").await?.0 == 200);
    stage
        .source
        .execute("INSERT INTO t (a) VALUES ('x')")
        .await?;
    assert_caught_up(stage, pipe, &["t"]).await?;
    let sql = format!(
        "SELECT connection_type FROM performance_schema.threads WHERE processlist_user = '{user}'"
    );
    let connections: Vec<String> = stage.source.rows(sql).await?;
    ensure!(
        !connections.is_empty() && connections.iter().all(|kind| kind == "SSL/TLS"),
        "{connections:?}"
    );
    Ok(())
}

/// The load is held by a lock while the password changes.
async fn credentials_rotated_during_a_load_fail_the_pipe_and_the_load_goes_on_with_the_new_ones(
    kind: SourceKind,
) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    with_t(&stage).await?;
    double(&stage, "t", "a", 17).await?;
    let (user, mut file) = file_of_account(&stage, "canary-1").await?;
    file["snapshot"] = json!({ "rows_per_partition": 50, "threads_per_table": 1 });
    let mut pipe = start(launch(&file))?;
    let name = format!("{}.t", stage.database);
    let done = |document: &Value| {
        let mut tables = document["tables"].as_array().into_iter().flatten();
        let table = tables.find(|table| table["source"] == *name);
        table.and_then(|table| table["snapshot"]["partitions_done"].as_u64())
    };
    let loading = |document: &Value| document["state"] == "Snapshot" && done(document) > Some(2);
    pipe.wait_for("parts of the load", START, loading).await?;
    let mut held = stage.source.connect().await?;
    held.query_drop("LOCK TABLES t WRITE").await?;
    rotate(&stage, &user, "canary-2").await?;
    held.query_drop("UNLOCK TABLES").await?;
    wait_failed(&mut pipe, "source_denied", "source.password").await?;
    let loaded = done(&pipe.status().await?);

    let change = json!({ "source": { "password": "canary-2" } });
    let (status, document) = pipe.change(change).await?;
    ensure!(status == 200, "{status} {document}");
    let (status, document) = pipe.command("start").await?;
    ensure!(status == 200, "{status} {document}");
    let again = pipe.wait_for("the load again", CATCH_UP, loading).await?;
    ensure!(
        loaded > Some(2) && done(&again) >= loaded,
        "{loaded:?} parts were loaded: {again:#}"
    );
    pipe.wait_state("Running", CATCH_UP).await?;
    let path = format!("/v1/pipes/{}/events?limit=1000", stage.database);
    let told = pipe.get_text(&path).await?;
    ensure!(
        told.contains("Snapshot to Failed") && told.matches("Setup to Snapshot").count() == 2,
        "{told}"
    );
    stage.source.execute("DELETE FROM t WHERE id = 1").await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    ensure_keeps_passwords(&pipe, &stage.database).await
}

/// The server's account for the pipe from now on.
async fn account(
    stage: &Stage,
    password: &str,
    settings: &[(&'static str, &'static str)],
) -> Result<()> {
    granted(stage, password, settings, &[]).await
}

/// The same with these grants alone, if there are any.
async fn granted(
    stage: &Stage,
    password: &str,
    settings: &[(&'static str, &'static str)],
    grants: &[&'static str],
) -> Result<()> {
    let user = ClickHouseUser {
        name: "writer".to_owned(),
        password: password.to_owned(),
        settings: settings.to_vec(),
        grants: grants.to_vec(),
        ..ClickHouseUser::default()
    };
    tokio::task::block_in_place(|| stage.clickhouse_server.start_again_with(vec![user]))
}

async fn an_account_of_clickhouse_that_fails_is_told_of_and_the_pipe_goes_on_with_another()
-> Result<()> {
    let start = || ClickHouseServer::start(ClickHouseOptions::default());
    let stage = Stage::with_clickhouse(SourceKind::MySql, start).await?;
    with_t(&stage).await?;
    account(&stage, "canary-1", &[]).await?;
    stage
        .source
        .execute("CREATE TABLE u (id INT PRIMARY KEY)")
        .await?;
    let mut file = stage.pipe_file(&["t", "u"]);
    file["destination"]["user"] = json!("writer");
    file["destination"]["password"] = json!("canary-1");
    let mut pipe = running_with(&file).await?;
    let insert = "INSERT INTO t (a) VALUES ('meanwhile')";

    // Too little memory passes by itself, as soon as there is more.
    account(
        &stage,
        "canary-1",
        &[("max_memory_usage", "1000"), ("max_untracked_memory", "1")],
    )
    .await?;
    stage.source.execute(insert).await?;
    pipe.wait_for("the want of memory", CATCH_UP, |status| {
        let mut reasons = status["reasons"].as_array().into_iter().flatten();
        reasons.any(|reason| {
            reason["code"] == "destination_unavailable"
                && reason["kind"] == "retrying"
                && reason["remedy"].to_string().contains("max_memory_usage")
        })
    })
    .await?;
    account(&stage, "canary-1", &[]).await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    pipe.wait_for("no reason", CATCH_UP, |status| {
        status["state"] == "Running" && status["reasons"] == json!([])
    })
    .await?;

    // One that may only read does not come back by itself.
    account(&stage, "canary-1", &[("readonly", "1")]).await?;
    stage.source.execute(insert).await?;
    wait_failed(&mut pipe, "destination_denied", "may write").await?;
    account(&stage, "canary-1", &[]).await?;
    ensure!(pipe.command("start").await?.0 == 200);
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;

    account(&stage, "canary-2", &[]).await?;
    stage.source.execute(insert).await?;
    wait_failed(&mut pipe, "destination_denied", "destination.password").await?;
    let change = |password: &str| json!({ "destination": { "password": password } });
    let (status, problem) = pipe.change(change("canary-1")).await?;
    ensure!(
        status == 422 && problem["code"] == "destination_denied",
        "{status} {problem}"
    );
    let (status, document) = pipe.change(change("canary-2")).await?;
    ensure!(status == 200, "{status} {document:#}");
    ensure!(pipe.command("start").await?.0 == 200);
    pipe.wait_state("Running", CATCH_UP).await?;
    stage.source.execute("DELETE FROM t WHERE id = 1").await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    ensure_keeps_passwords(&pipe, &stage.database).await?;

    an_alter_that_is_denied_stops_its_table_alone(&stage, &mut pipe, &file).await?;
    another_server_is_refused(&mut pipe).await
}

/// One that holds nothing of what the pipe has written.
async fn another_server_is_refused(pipe: &mut Pipe) -> Result<()> {
    ensure!(pipe.command("pause").await?.0 == 200);
    pipe.wait_state("Paused", CATCH_UP).await?;
    let other = Stage::shared(SourceKind::MySql).await?;
    let way = json!({ "destination": {
        "url": other.clickhouse_server.url(),
        "user": "pipewright",
        "password": "pipewright",
    } });
    let (status, problem) = pipe.change(way).await?;
    ensure!(
        status == 422 && problem["code"] == "destination_lost",
        "{status} {problem}"
    );
    Ok(())
}

/// The preflight warns of it with the statement that mends it.
async fn an_alter_that_is_denied_stops_its_table_alone(
    stage: &Stage,
    pipe: &mut Pipe,
    file: &Value,
) -> Result<()> {
    let grants = [
        "GRANT SELECT, INSERT, CREATE TABLE, CREATE VIEW, DROP TABLE, DROP VIEW, ALTER ADD COLUMN, \
         ALTER MODIFY COMMENT, ALTER RENAME COLUMN ON *.*",
        "GRANT TABLE ENGINE ON *",
    ];
    granted(stage, "canary-2", &[], &grants).await?;
    let mut asked = file.clone();
    asked["destination"]["password"] = json!("canary-2");
    let (_, answer) = pipe
        .call(Method::POST, "/v1/validate", asked.to_string())
        .await?;
    let mut findings = answer["findings"].as_array().into_iter().flatten();
    let lacks = findings.find(|finding| finding["check"] == "grants");
    let lacks = lacks.with_context(|| format!("no warning: {answer:#}"))?;
    ensure!(lacks["severity"] == "warning", "{lacks:#}");
    for grant in ["GRANT ALTER DROP COLUMN", "ALTER MODIFY COLUMN"] {
        ensure!(lacks["remedy"].to_string().contains(grant), "{lacks:#}");
    }
    ensure!(!lacks.to_string().contains("RENAME"), "{lacks:#}");
    stage
        .source
        .execute_all(["ALTER TABLE t DROP COLUMN a", "INSERT INTO u VALUES (1)"])
        .await?;
    pipe.wait_for("the table alone out of service", CATCH_UP, |status| {
        let mut reasons = status["reasons"].as_array().into_iter().flatten();
        reasons.any(|reason| {
            reason["table"] == format!("{}.t", stage.database)
                && reason["remedy"]
                    .to_string()
                    .contains("GRANT ALTER DROP COLUMN")
        })
    })
    .await?;
    stage.source.execute("INSERT INTO u VALUES (2)").await?;
    assert_caught_up(stage, pipe, &["u"]).await?;
    account(stage, "canary-2", &[]).await?;
    let retry = json!({ "command": "retry", "table": format!("{}.t", stage.database) });
    let (status, document) = pipe.order(retry).await?;
    ensure!(status == 200, "{status} {document:#}");
    pipe.wait_state("Running", CATCH_UP).await?;
    stage.source.execute("INSERT INTO t VALUES ()").await?;
    assert_caught_up(stage, pipe, &["t", "u"]).await
}
