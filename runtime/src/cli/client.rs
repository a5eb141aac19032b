//! The verbs that ask a running process, over its REST interface.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::arguments::{Ask, DeadLetters, OneTable, Server, Set, Tables};
use super::exit::Exit;
use super::output::{self, Failure, Result};
use super::progress::view;
use crate::destination::clickhouse::DeadLetter;
use crate::error::{Error, ErrorKind};
use crate::pipe::Replayed;
use crate::pipe::document::PipeDocument;

/// A command answers when it is persisted: once the servers have been asked, and the work has stopped at a checkpoint.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Deserialize)]
struct PipeList {
    pipes: Vec<PipeDocument>,
}

#[derive(Deserialize)]
struct LetterList {
    dead_letters: Vec<DeadLetter>,
}

/// What of an error answer is told again.
#[derive(Deserialize)]
struct Problem {
    code: String,
    detail: String,
    hint: Option<String>,
}

pub(super) async fn status(options: &Ask, as_json: bool) -> Result<Exit> {
    match &options.pipe {
        Some(name) => {
            let pipe: PipeDocument =
                ask(&options.server, Method::GET, &format!("/{name}"), None).await?;
            show(&pipe, as_json);
        }
        None => {
            let PipeList { pipes } = ask(&options.server, Method::GET, "", None).await?;
            if as_json {
                output::data(&json!({ "pipes": pipes }));
            } else {
                output::text(&view::table(&pipes));
            }
        }
    }
    Ok(Exit::Done)
}

pub(super) async fn command(options: &Ask, body: &Value, as_json: bool) -> Result<Exit> {
    let name = named(options).await?;
    let path = format!("/{name}/state");
    send(&options.server, Method::PATCH, &path, Some(body), as_json).await
}

pub(super) async fn tables(verb: Tables, as_json: bool) -> Result<Exit> {
    match verb {
        Tables::Add(options) => {
            let add: Vec<Value> = options
                .tables
                .iter()
                .map(|table| json!({ "source": table }))
                .collect();
            let body = json!({ "tables": { "add": add } });
            change(&options.server, &options.pipe, &body, as_json).await
        }
        Tables::Remove(options) => {
            let body = json!({ "tables": { "remove": options.tables } });
            change(&options.server, &options.pipe, &body, as_json).await
        }
        Tables::Retry(options) => one_table(&options, "retry", as_json).await,
        Tables::Skip(options) => one_table(&options, "skip", as_json).await,
    }
}

pub(super) async fn set(options: Set, as_json: bool) -> Result<Exit> {
    let settings: serde_json::Map<String, Value> = options.settings.into_iter().collect();
    let body = json!({ "sync": settings });
    change(&options.server, &options.pipe, &body, as_json).await
}

pub(super) async fn drop_pipe(options: &Ask, as_json: bool) -> Result<Exit> {
    let name = named(options).await?;
    let path = format!("/{name}");
    send(&options.server, Method::DELETE, &path, None, as_json).await
}

pub(super) async fn dead_letters(verb: DeadLetters, as_json: bool) -> Result<Exit> {
    let (options, replays) = match verb {
        DeadLetters::List(options) => (options, false),
        DeadLetters::Replay(options) => (options, true),
    };
    let name = named(&options.ask).await?;
    let mut path = match replays {
        true => format!("/{name}/dead-letters/replay"),
        false => format!("/{name}/dead-letters"),
    };
    if let Some(table) = &options.table {
        // Only to write the name as a query does.
        let query = reqwest::Url::parse_with_params("http://localhost", [("table", table)]);
        let query = query.expect("an address that is written here");
        path.push_str(&format!("?{}", query.query().unwrap_or_default()));
    }
    let server = &options.ask.server;
    if replays {
        let replayed: Replayed = ask(server, Method::POST, &path, None).await?;
        match as_json {
            true => output::data(&json!(replayed)),
            false => output::text(&format!(
                "{} passed, {} fail still\n",
                replayed.passed, replayed.failing
            )),
        }
        return Ok(match replayed.failing {
            0 => Exit::Done,
            _ => Exit::Failed,
        });
    }
    let list: LetterList = ask(server, Method::GET, &path, None).await?;
    match as_json {
        true => output::data(&json!({ "dead_letters": list.dead_letters })),
        false => {
            let lines = list.dead_letters.iter().map(|letter| {
                format!(
                    "{} {} {} version {}: plugin {}: {}: {}\n  {}\n",
                    letter.table,
                    letter.key,
                    letter.op,
                    letter.version,
                    letter.plugin,
                    letter.code,
                    letter.reason,
                    letter.row
                )
            });
            output::text(&lines.collect::<String>());
        }
    }
    Ok(Exit::Done)
}

async fn one_table(options: &OneTable, command: &str, as_json: bool) -> Result<Exit> {
    let body = json!({ "command": command, "table": options.table });
    let path = format!("/{}/state", options.pipe);
    send(&options.server, Method::PATCH, &path, Some(&body), as_json).await
}

async fn change(server: &Server, pipe: &str, body: &Value, as_json: bool) -> Result<Exit> {
    send(
        server,
        Method::PATCH,
        &format!("/{pipe}"),
        Some(body),
        as_json,
    )
    .await
}

/// Sends a request that answers with the pipe's document, and shows that.
async fn send(
    server: &Server,
    method: Method,
    path: &str,
    body: Option<&Value>,
    as_json: bool,
) -> Result<Exit> {
    let pipe: PipeDocument = ask(server, method, path, body.map(Value::to_string)).await?;
    show(&pipe, as_json);
    Ok(Exit::Done)
}

/// The pipe that is meant: the only one where none is named.
async fn named(options: &Ask) -> Result<String> {
    match &options.pipe {
        Some(name) => Ok(name.clone()),
        None => only_pipe(options).await,
    }
}

fn show(pipe: &PipeDocument, as_json: bool) {
    if as_json {
        output::data(&json!(pipe));
    } else {
        output::text(&view::details(pipe));
    }
}

async fn only_pipe(options: &Ask) -> Result<String> {
    let PipeList { pipes } = ask(&options.server, Method::GET, "", None).await?;
    let names: Vec<String> = pipes.into_iter().map(|pipe| pipe.pipe).collect();
    match names.as_slice() {
        [only] => Ok(only.clone()),
        _ => Err(Failure::Error {
            exit: Exit::Usage,
            error: Error::new(ErrorKind::Config, "which pipe is meant")
                .with_hint(format!("name one of: {}", names.join(", "))),
        }),
    }
}

async fn ask<T: DeserializeOwned>(
    server: &Server,
    method: Method,
    path: &str,
    body: Option<String>,
) -> Result<T> {
    let server = server.url.trim_end_matches('/');
    let url = reqwest::Url::parse(&format!("{server}/v1/pipes{path}")).map_err(|error| {
        Failure::Error {
            exit: Exit::Usage,
            error: Error::new(ErrorKind::Config, format!("`{server}` is no address"))
                .with_hint("write --server http://127.0.0.1:8686")
                .with_source(error),
        }
    })?;
    let unavailable = |error: reqwest::Error| Failure::Error {
        exit: Exit::Unavailable,
        error: Error::new(
            ErrorKind::SourceUnavailable,
            format!("no pipewright answers at {server}"),
        )
        .with_hint("start one with `pipewright run pipe.yaml`, or name its address with --server")
        .with_source(error.without_url()),
    };
    // Nothing between us and loopback: a proxy of the environment would send the question elsewhere.
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(ANSWER_TIMEOUT)
        .build()
        .map_err(unavailable)?;
    let mut request = client.request(method, url);
    if let Some(body) = body {
        request = request
            .header("content-type", "application/json")
            .body(body);
    }
    let response = request.send().await.map_err(unavailable)?;
    let status = response.status();
    let bytes = response.bytes().await.map_err(unavailable)?;
    if status.is_success() {
        return serde_json::from_slice(&bytes).map_err(|_| strange(server));
    }
    Err(match serde_json::from_slice(&bytes) {
        Ok(problem) => refused(status, problem),
        Err(_) => strange(server),
    })
}

fn refused(status: StatusCode, problem: Problem) -> Failure {
    let kind = serde_json::from_value(json!(problem.code)).unwrap_or(match status {
        StatusCode::CONFLICT => ErrorKind::IllegalCommand,
        _ => ErrorKind::Config,
    });
    let error = Error::new(kind, problem.detail);
    Failure::Error {
        exit: Exit::Failed,
        error: match problem.hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        },
    }
}

fn strange(server: &str) -> Failure {
    Failure::Error {
        exit: Exit::Failed,
        error: Error::new(
            ErrorKind::Internal,
            format!("what answers at {server} is no pipewright of this version"),
        )
        .with_hint("check --server"),
    }
}
