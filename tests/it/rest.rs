//! The REST interface of a process that runs: pipes made by request, history, description, tokens and TLS.

mod unopened;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mysql_async::prelude::Queryable;
use pipewright::fault::VARIABLE;
use rand::Rng;
use reqwest::Method;
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{Finished, Pipe, Stage, run_to_end};
use testbed::soak::api;

use crate::support::{
    CATCH_UP, START, Seed, launch, on_both_sources, once, program, running, start, wait_for_pipe,
};

on_both_sources! {
    a_pipe_made_by_request_outlives_a_restart: 400,
}

once! {
    a_change_of_state_is_told_at_once: 240,
    a_stream_of_events_ends_with_its_token: 120,
    the_description_is_openapi_and_holds_under_random_requests: 600,
    the_command_line_shows_its_token_and_checks_the_certificate: 120,
    completions_and_manual_pages_know_every_verb: 60,
}

async fn with_t(kind: SourceKind) -> Result<Stage> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a VARCHAR(20))",
            "CREATE TABLE keyless (a INT)",
            "INSERT INTO t VALUES (1, 'one'), (2, NULL)",
        ])
        .await?;
    Ok(stage)
}

async fn a_pipe_made_by_request_outlives_a_restart(kind: SourceKind) -> Result<()> {
    let (first, second) = (with_t(kind).await?, with_t(kind).await?);
    let secrets = tempfile::tempdir()?;
    std::fs::write(secrets.path().join("source"), "pipewright\n")?;
    let folder = secrets.path().display().to_string();
    let mut pipe = start(
        launch(&first.pipe_file(&["t"]))
            .argument("--secrets-dir")
            .argument(folder),
    )?;
    pipe.wait_state("Running", START).await?;
    let name = &second.database;

    let mut file = second.pipe_file(&["t"]);
    // A path that leaves the folder, or a plugin where no folder was given, is no way to read this machine's files.
    for (password, plugin) in [
        ("${file:../pipe.yaml}", None),
        ("${file:/etc/hostname}", None),
        ("x", Some("/bin/true")),
    ] {
        let mut bad = file.clone();
        bad["source"]["password"] = json!(password);
        if let Some(plugin) = plugin {
            bad["transforms"] = json!({ "m": { "plugin": plugin } });
        }
        let (status, problem) = pipe
            .call(Method::POST, "/v1/pipes", bad.to_string())
            .await?;
        ensure!(
            status == 422 && problem["code"] == "config",
            "{status} {problem}"
        );
        ensure!(
            problem["problems"][0]["found"]
                .as_str()
                .is_some_and(|found| found.contains("which")),
            "{problem}"
        );
    }
    file["source"]["password"] = json!("${file:source}");

    let (status, found) = pipe
        .call(Method::POST, "/v1/validate", file.to_string())
        .await?;
    ensure!(status == 200 && found["valid"] == true, "{status} {found}");
    let mut missing = file.clone();
    missing["tables"][0]["source"] = json!(format!("{name}.none"));
    let (status, found) = pipe
        .call(Method::POST, "/v1/validate", missing.to_string())
        .await?;
    ensure!(status == 200 && found["valid"] == false, "{status} {found}");
    let findings = found["findings"].to_string();
    ensure!(findings.contains(&format!("{name}.none")), "{findings}");

    // Seen by another right than SELECT.
    let (user, password) = (format!("{name}_i"), "inspects");
    second
        .source
        .execute_all([
            "CREATE TABLE closed (id INT PRIMARY KEY)".to_owned(),
            format!("CREATE USER '{user}'@'%' IDENTIFIED BY '{password}'"),
            format!("GRANT SELECT ON {name}.t TO '{user}'@'%'"),
            format!("GRANT SELECT ON {name}.keyless TO '{user}'@'%'"),
            format!("GRANT INSERT ON {name}.closed TO '{user}'@'%'"),
        ])
        .await?;
    let mut source = file["source"].clone();
    (source["user"], source["password"]) = (json!(user), json!(password));
    let (status, seen) = pipe
        .call(Method::POST, "/v1/sources/inspect", source.to_string())
        .await?;
    ensure!(status == 200, "{status} {seen}");
    let databases = seen["databases"].as_array().context("databases")?;
    let own = databases
        .iter()
        .find(|one| one["database"] == *name)
        .context("our database")?;
    let table = |table: &str| -> Result<Value> {
        let tables = own["tables"].as_array().context("tables")?;
        tables
            .iter()
            .find(|one| one["table"] == table)
            .cloned()
            .context("the table")
    };
    let (t, keyless, closed) = (table("t")?, table("keyless")?, table("closed")?);
    ensure!(
        t["replicable"] == true && t["key"] == json!(["id"]) && t["columns"][1]["name"] == "a",
        "{t}"
    );
    ensure!(
        t["bytes"].as_u64() > Some(0) && t["rows_estimated"].is_u64(),
        "{t}"
    );
    let remedy = closed["remedy"].as_str().unwrap_or_default();
    ensure!(
        closed["replicable"] == false && remedy.starts_with("GRANT SELECT ON "),
        "{closed}"
    );
    ensure!(
        keyless["replicable"] == false && keyless["why_not"].is_string(),
        "{keyless}"
    );

    // YAML, as in a file.
    let yaml = format!("# made by request\n{file:#}");
    let (status, made) = pipe.call(Method::POST, "/v1/pipes", yaml.as_str()).await?;
    ensure!(status == 201 && made["pipe"] == *name, "{status} {made}");
    let (status, problem) = pipe.call(Method::POST, "/v1/pipes", yaml).await?;
    ensure!(status == 409, "{status} {problem}");
    what_other_pipes_have_is_found(&pipe, &file).await?;
    wait_for_pipe(&pipe, name, "Running", |pipe| pipe["state"] == "Running").await?;

    ensure!(pipe.stop().await? == 0);
    pipe.restart()?;
    wait_for_pipe(&pipe, name, "Running again", |pipe| {
        pipe["state"] == "Running"
    })
    .await?;
    second
        .source
        .execute("UPDATE t SET a = 'later' WHERE id = 2")
        .await?;
    second.wait_caught_up(&mut pipe, CATCH_UP).await?;
    second.assert_same("t").await?;
    let tables = pipe.get(&format!("/v1/pipes/{name}/tables")).await?;
    ensure!(
        tables["tables"]
            .as_array()
            .is_some_and(|tables| tables.len() == 2),
        "{tables}"
    );
    let written = pipe.get(&format!("/v1/pipes/{name}/file")).await?;
    ensure!(
        written["source"]["password"] == "${file:source}",
        "{written}"
    );
    let history = pipe
        .get(&format!("/v1/pipes/{name}/events?limit=1000"))
        .await?
        .to_string();
    for step in [
        "Provisioning to Setup",
        "Setup to Snapshot",
        "Snapshot to Running",
    ] {
        ensure!(history.contains(step), "{step} is not in {history}");
    }

    let path = format!("/v1/pipes/{name}");
    // What a lock keeps waiting differs between the two; the drop does not.
    if kind == SourceKind::MySql {
        killed_while_it_is_dropped(&second, &mut pipe, &path).await?;
    } else {
        let (status, _) = pipe.call(Method::DELETE, &path, "").await?;
        ensure!(status == 200);
        ensure!(pipe.stop().await? == 0);
        pipe.restart()?;
    }
    pipe.wait_state("Running", START).await?;
    ensure!(pipe.get(&path).await.is_err(), "a dropped pipe is back");
    let until = Instant::now() + CATCH_UP;
    while second.assert_no_load_left().await.is_err() {
        ensure!(Instant::now() < until, "a load's table was left behind");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// What keeps a pipe from being made of a document is found in it, and its own pipe is none of that.
async fn what_other_pipes_have_is_found(pipe: &Pipe, file: &Value) -> Result<()> {
    let validate = async |document: &Value| {
        let asked = pipe.call(Method::POST, "/v1/validate", document.to_string());
        let (status, found) = asked.await?;
        ensure!(status == 200, "{status} {found}");
        let findings = found["findings"].as_array().context("findings")?;
        let of = |check: &str| {
            let mut findings = findings.iter();
            let found = findings.find(|finding| finding["check"] == check);
            found.map(|finding| finding["severity"].clone())
        };
        let text = found.to_string();
        anyhow::Ok((found["valid"] == true, of("name"), of("other_pipes"), text))
    };
    let (valid, name, others, text) = validate(file).await?;
    ensure!(valid && name.is_none() && others.is_none(), "{text}");
    let mut other = file.clone();
    other["sync"]["interval"] = json!("7s");
    let (valid, name, others, text) = validate(&other).await?;
    let warned = name == Some(json!("warning"));
    ensure!(valid && warned && others.is_none(), "{text}");
    other["pipe"] = json!("of_the_same_targets");
    let (valid, name, others, text) = validate(&other).await?;
    let refused = others == Some(json!("error"));
    ensure!(!valid && name.is_none() && refused, "{text}");
    let made = pipe.call(Method::POST, "/v1/pipes", other.to_string());
    let (status, problem) = made.await?;
    ensure!(status == 422, "{status} {problem}");
    Ok(())
}

/// The process ends when the pipe's records are gone and the table of its load is not; the next one knows how to reach it.
async fn killed_while_it_is_dropped(stage: &Stage, pipe: &mut Pipe, path: &str) -> Result<()> {
    let running = |document: &Value| document["state"] == "Running";
    // The first change is the resync.
    pipe.change_env(VARIABLE, Some("change:2#2"));
    pipe.restart()?;
    wait_for_pipe(pipe, &stage.database, "Running", running).await?;
    let mut lock = stage.source.connect().await?;
    lock.query_drop("LOCK TABLES t WRITE").await?;
    let resync = json!({ "command": "resync" }).to_string();
    let state = format!("{path}/state");
    let (status, answer) = pipe.call(Method::PATCH, &state, resync).await?;
    ensure!(status == 200, "{status} {answer}");
    let until = Instant::now() + CATCH_UP;
    while stage.assert_no_load_left().await.is_ok() {
        ensure!(Instant::now() < until, "no table of a load is made");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let dropped = pipe.call(Method::DELETE, path, "").await;
    ensure!(dropped.is_err(), "the drop was answered: {dropped:?}");
    ensure!(pipe.wait_exit(START).await? != 0);
    ensure!(
        stage.assert_no_load_left().await.is_err(),
        "cleared away before the process ended"
    );
    lock.query_drop("UNLOCK TABLES").await?;
    pipe.change_env(VARIABLE, None);
    pipe.restart()
}

/// The status is right when a command is answered, and each change reaches a client that only listens. The bound is the second that is
/// promised; the median of ten keeps a machine that stands still for a moment out of it.
async fn a_change_of_state_is_told_at_once() -> Result<()> {
    let stage = with_t(SourceKind::MariaDb).await?;
    let pipe = running(&stage, &["t"]).await?;
    let url = format!("{}/v1/pipes/{}/events", pipe.url(), stage.database);
    let mut stream = reqwest::Client::new()
        .get(url)
        .header("accept", "text/event-stream")
        .send()
        .await?;
    let mut unread = String::new();
    let (mut delays, mut shown) = (Vec::new(), Vec::new());
    for (command, told, state, on_the_way) in [
        ("pause", "Pausing to Paused", "Paused", "Pausing"),
        ("resume", "Paused to Running", "Running", "Running"),
    ]
    .repeat(5)
    {
        let (status, answer) = pipe.command(command).await?;
        ensure!(status == 200, "{answer}");
        let answered = Instant::now();
        wait_for_pipe(&pipe, &stage.database, command, |pipe| {
            pipe["state"] == state || pipe["state"] == on_the_way
        })
        .await?;
        shown.push(answered.elapsed());
        // The state was persisted, and so could be seen, at the latest now; a pause takes what it takes to drain.
        wait_for_pipe(&pipe, &stage.database, state, |pipe| pipe["state"] == state).await?;
        let began = Instant::now();
        while !unread.contains(told) {
            let chunk = tokio::time::timeout(Duration::from_secs(60), stream.chunk()).await;
            let chunk = chunk
                .with_context(|| format!("no `{told}`"))??
                .context("the stream has ended")?;
            unread.push_str(std::str::from_utf8(&chunk)?);
        }
        delays.push(began.elapsed());
        unread.clear();
    }
    for delays in [&mut delays, &mut shown] {
        delays.sort();
        ensure!(
            delays[delays.len() / 2] < Duration::from_secs(1),
            "{delays:?}"
        );
    }
    let path = format!("/v1/pipes/{}", stage.database);
    let (status, answer) = pipe.call(Method::DELETE, &path, "").await?;
    ensure!(status == 200, "{answer}");
    let end = async {
        while let Some(chunk) = stream.chunk().await? {
            unread.push_str(std::str::from_utf8(&chunk)?);
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(60), end)
        .await
        .context("the stream goes on without its pipe")??;
    ensure!(
        unread.contains("\"text\":\"drop\""),
        "the last of it: {unread}"
    );
    Ok(())
}

/// Nothing happens to the pipe meanwhile, so the stream looks by itself.
async fn a_stream_of_events_ends_with_its_token() -> Result<()> {
    const TOKEN: &str = "read-0123456789abcdef";
    let folder = tempfile::tempdir()?;
    let tokens = folder.path().join("tokens");
    std::fs::write(&tokens, format!("read {TOKEN}\n"))?;
    let launched = launch(&nowhere())
        .argument("--token-file")
        .argument(tokens.display().to_string())
        .argument("--wait")
        .argument("1h");
    let pipe = start(launched)?;
    let ask = async || {
        reqwest::Client::new()
            .get(format!("{}/v1/pipes/nowhere/events?after=0", pipe.url()))
            .header("accept", "text/event-stream")
            .bearer_auth(TOKEN)
            .send()
            .await
    };
    let until = Instant::now() + START;
    let mut stream = loop {
        match ask().await {
            Ok(answer) if answer.status() == 200 => break answer,
            other => ensure!(Instant::now() < until, "no stream: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    stream.chunk().await?.context("no event of the past")?;
    let other = TOKEN.replace("read", "other");
    std::fs::write(&tokens, format!("read {other}\n"))?;
    let end = async {
        while stream.chunk().await?.is_some() {}
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(30), end)
        .await
        .context("the stream goes on without its token")??;
    ensure!(ask().await?.status() == 401);
    Ok(())
}

async fn the_description_is_openapi_and_holds_under_random_requests() -> Result<()> {
    // Servers that are not there: commands, documents and history answer all the same.
    let file = nowhere();
    let mut pipe = start(launch(&file).argument("--wait").argument("1h"))?;
    wait_for_pipe(&pipe, "nowhere", "an answer", |_| true).await?;
    let document = pipe.get_text("/openapi.json").await?;
    let (url, seed) = (
        pipe.url(),
        Seed::new("random requests")
            .generator(0)
            .random_range(0..1_000_000_000),
    );
    tokio::task::spawn_blocking(move || {
        api::ensure_openapi(&document)?;
        api::hammer(&url, seed, Duration::from_secs(60), false)
    })
    .await??;
    ensure!(pipe.exited()?.is_none(), "the process has ended");
    Ok(())
}

/// A pipe between two servers that are not there.
fn nowhere() -> Value {
    json!({
        "version": 1,
        "pipe": "nowhere",
        "source": { "type": "mysql", "host": "127.0.0.1", "port": 1, "user": "u", "password": "p" },
        "destination": { "url": "http://127.0.0.1:2", "database": "d" },
        "tables": [{ "source": "d.t" }],
    })
}

async fn the_command_line_shows_its_token_and_checks_the_certificate() -> Result<()> {
    const ADMIN: &str = "admin-0123456789abcdef";
    const READ: &str = "read-0123456789abcdef";
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let own = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
    std::fs::write(path("cert.pem"), own.cert.pem())?;
    std::fs::write(path("key.pem"), own.signing_key.serialize_pem())?;
    std::fs::write(path("tokens"), format!("admin {ADMIN}\nread {READ}\n"))?;
    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
    std::fs::write(path("other.pem"), other.cert.pem())?;
    let arguments = [
        "--token-file",
        &path("tokens"),
        "--tls-cert",
        &path("cert.pem"),
        "--tls-key",
        &path("key.pem"),
        "--wait",
        "1h",
    ];
    let launched = arguments
        .iter()
        .fold(launch(&nowhere()), |launch, argument| {
            launch.argument(*argument)
        });
    let pipe = start(launched)?;
    let server = pipe.url().replace("http:", "https:");
    let ask = async |token: &str, ca: &str, arguments: &[&str]| -> Result<Finished> {
        let line = [
            &["pipewright"],
            arguments,
            &["--server", &server, "--ca", ca, "--json"],
        ]
        .concat();
        let envs = [("PIPEWRIGHT_TOKEN".to_owned(), token.to_owned())];
        run_to_end(program(), line, &envs, Duration::from_secs(60)).await
    };
    let ca = path("cert.pem");
    let until = Instant::now() + Duration::from_secs(60);
    let shown = loop {
        let shown = ask(READ, &ca, &["status", "nowhere"]).await?;
        if shown.code == 0 {
            break shown;
        }
        ensure!(shown.code == 69 && Instant::now() < until, "{shown:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let document: Value = serde_json::from_str(&shown.stdout)?;
    ensure!(document["pipe"] == "nowhere", "{document}");
    for (token, ca, arguments, code, told) in [
        (READ, &ca, &["drop", "nowhere"][..], 1, "role is `read`"),
        ("guessed-0123456789", &ca, &["status"], 1, "token"),
        ("", &ca, &["status"], 1, "token"),
        (ADMIN, &path("other.pem"), &["status"], 69, "certificate"),
        (ADMIN, &path("none.pem"), &["status"], 2, "--ca"),
        (
            ADMIN,
            &ca,
            &["events", "nowhere", "--limit", "5"],
            0,
            "events",
        ),
        (ADMIN, &ca, &["export", "nowhere"], 0, "***"),
        (ADMIN, &ca, &["drop", "nowhere"], 0, "nowhere"),
    ] {
        let finished = ask(token, ca, arguments).await?;
        ensure!(finished.code == code, "{arguments:?} {finished:?}");
        ensure!(
            finished.stdout.contains(told) && !finished.stdout.contains(ADMIN),
            "{arguments:?} {finished:?}"
        );
        serde_json::from_str::<Value>(&finished.stdout)?;
    }
    // Whoever is not on this machine must show a token; without a file of them nothing is served to anyone.
    let arguments = [
        "pipewright",
        "run",
        &path("pipe.yaml"),
        "--listen",
        "0.0.0.0:0",
    ];
    std::fs::write(path("pipe.yaml"), nowhere().to_string())?;
    let open = run_to_end(program(), arguments, &[], Duration::from_secs(60)).await?;
    ensure!(
        open.code == 2 && open.stderr.contains("--token-file"),
        "{open:?}"
    );
    Ok(())
}

async fn completions_and_manual_pages_know_every_verb() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let dir = folder.path().display().to_string();
    for (arguments, told) in [
        (
            vec!["completions", "bash"],
            vec!["resync", "events", "--follow"],
        ),
        (vec!["completions", "zsh"], vec!["resync", "--token-file"]),
        (vec!["completions", "fish"], vec!["resync"]),
        (vec!["man"], vec![".TH", "resync"]),
        (vec!["man", "--dir", &dir], vec![]),
    ] {
        let line = [vec!["pipewright"], arguments.clone()].concat();
        let finished = run_to_end(program(), line, &[], Duration::from_secs(50)).await?;
        ensure!(finished.code == 0, "{finished:?}");
        for word in told {
            ensure!(finished.stdout.contains(word), "{arguments:?}: {word}");
        }
    }
    let page = folder.path().join("pipewright-resync.1");
    let Ok(text) = std::fs::read_to_string(&page) else {
        bail!("no page of its own for `resync`");
    };
    ensure!(text.contains("table"), "{text}");
    Ok(())
}
