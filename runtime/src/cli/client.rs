//! `status`, `pause` and `resume`: asking a running process over its REST interface.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::arguments::Ask;
use super::exit::Exit;
use super::output::{self, Failure, Result};
use super::progress::view;
use crate::error::{Error, ErrorKind};
use crate::pipe::document::PipeDocument;

/// A pause answers when it is persisted, which takes no longer than a flush.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
struct PipeList {
    pipes: Vec<PipeDocument>,
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
            let pipe: PipeDocument = ask(options, Method::GET, &format!("/{name}"), None).await?;
            show(&pipe, as_json);
        }
        None => {
            let PipeList { pipes } = ask(options, Method::GET, "", None).await?;
            if as_json {
                output::data(&json!({ "pipes": pipes }));
            } else {
                output::text(&view::table(&pipes));
            }
        }
    }
    Ok(Exit::Done)
}

pub(super) async fn command(options: &Ask, command: &str, as_json: bool) -> Result<Exit> {
    let name = match &options.pipe {
        Some(name) => name.clone(),
        None => only_pipe(options).await?,
    };
    let body = json!({ "command": command }).to_string();
    let pipe: PipeDocument = ask(
        options,
        Method::PATCH,
        &format!("/{name}/state"),
        Some(body),
    )
    .await?;
    show(&pipe, as_json);
    Ok(Exit::Done)
}

fn show(pipe: &PipeDocument, as_json: bool) {
    if as_json {
        output::data(&json!(pipe));
    } else {
        output::text(&view::details(pipe));
    }
}

async fn only_pipe(options: &Ask) -> Result<String> {
    let PipeList { pipes } = ask(options, Method::GET, "", None).await?;
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
    options: &Ask,
    method: Method,
    path: &str,
    body: Option<String>,
) -> Result<T> {
    let server = options.server.trim_end_matches('/');
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
