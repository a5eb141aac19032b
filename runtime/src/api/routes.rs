//! What is answered to which request.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::problem::Problem;
use super::{Pipes, commands, metrics};
use crate::destination::clickhouse::DeadLetter;
use crate::pipe::document::PipeDocument;
use crate::pipe::{Command, Replayed};

struct Shared<P> {
    pipes: Arc<P>,
    draining: CancellationToken,
}

impl<P> Clone for Shared<P> {
    fn clone(&self) -> Self {
        Self {
            pipes: Arc::clone(&self.pipes),
            draining: self.draining.clone(),
        }
    }
}

/// All routes.
pub(super) fn router<P: Pipes>(pipes: Arc<P>, draining: CancellationToken) -> Router {
    Router::new()
        .route("/v1/pipes", get(list::<P>))
        .route(
            "/v1/pipes/{pipe}",
            get(show::<P>).patch(change::<P>).delete(forget::<P>),
        )
        .route("/v1/pipes/{pipe}/state", patch(command::<P>))
        .route("/v1/pipes/{pipe}/dead-letters", get(letters::<P>))
        .route(
            "/v1/pipes/{pipe}/dead-letters/replay",
            post(replay_letters::<P>),
        )
        .route("/metrics", get(scrape::<P>))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready::<P>))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(commands::BODY_BYTES_MAX))
        .layer(middleware::from_fn(ensure_loopback_host))
        .with_state(Shared { pipes, draining })
}

#[derive(Serialize)]
struct PipeList {
    pipes: Vec<PipeDocument>,
}

async fn list<P: Pipes>(State(shared): State<Shared<P>>) -> Json<PipeList> {
    Json(PipeList {
        pipes: shared.pipes.pipes(),
    })
}

async fn show<P: Pipes>(
    State(shared): State<Shared<P>>,
    Path(name): Path<String>,
) -> Result<Json<PipeDocument>, Problem> {
    find(&*shared.pipes, &name).map(Json)
}

async fn command<P: Pipes>(
    State(shared): State<Shared<P>>,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<PipeDocument>, Problem> {
    find(&*shared.pipes, &name)?;
    let command = commands::state(body)?;
    Ok(Json(shared.pipes.command(&name, command).await?))
}

async fn change<P: Pipes>(
    State(shared): State<Shared<P>>,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<PipeDocument>, Problem> {
    let mut document = find(&*shared.pipes, &name)?;
    for command in commands::change(body)? {
        document = shared.pipes.command(&name, command).await?;
    }
    Ok(Json(document))
}

/// Which dead letters.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LettersQuery {
    table: Option<String>,
    #[serde(default = "letters_limit")]
    limit: u64,
}

/// A page of letters, which hold whole rows.
fn letters_limit() -> u64 {
    100
}

#[derive(Serialize)]
struct LetterList {
    dead_letters: Vec<DeadLetter>,
}

async fn letters<P: Pipes>(
    State(shared): State<Shared<P>>,
    Path(name): Path<String>,
    query: Query<LettersQuery>,
) -> Result<Json<LetterList>, Problem> {
    find(&*shared.pipes, &name)?;
    let read = shared
        .pipes
        .letters(&name, query.table.as_deref(), query.limit);
    let dead_letters = read.await?;
    Ok(Json(LetterList { dead_letters }))
}

async fn replay_letters<P: Pipes>(
    State(shared): State<Shared<P>>,
    Path(name): Path<String>,
    query: Query<LettersQuery>,
) -> Result<Json<Replayed>, Problem> {
    find(&*shared.pipes, &name)?;
    let replayed = shared.pipes.replay_letters(&name, query.table.as_deref());
    Ok(Json(replayed.await?))
}

async fn forget<P: Pipes>(
    State(shared): State<Shared<P>>,
    Path(name): Path<String>,
) -> Result<Json<PipeDocument>, Problem> {
    find(&*shared.pipes, &name)?;
    Ok(Json(shared.pipes.command(&name, Command::Drop).await?))
}

async fn scrape<P: Pipes>(State(shared): State<Shared<P>>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)],
        metrics::render(&shared.pipes.pipes()),
    )
}

/// A failed pipe does not make the process unready: it still serves the others, and its own status.
async fn ready<P: Pipes>(State(shared): State<Shared<P>>) -> Result<&'static str, Problem> {
    if shared.draining.is_cancelled() {
        return Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "stopped",
            "the process is shutting down",
        ));
    }
    Ok("ok\n")
}

fn find(pipes: &impl Pipes, name: &str) -> Result<PipeDocument, Problem> {
    pipes.pipe(name).ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            "unknown_pipe",
            format!("no pipe is named `{}`", name.escape_debug()),
        )
        .with_hint("`pipewright status`, or GET /v1/pipes, lists the pipes of this process")
    })
}

async fn no_such_path() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "unknown_path",
        "there is nothing at this path",
    )
    .with_hint("begin with GET /v1/pipes")
}

async fn no_such_method() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "unknown_method",
        "this path does not take that method",
    )
    .with_hint("documents are read with GET, commands sent with PATCH, pipes dropped with DELETE")
}

/// Refuses requests that were sent to another name than loopback's own: DNS rebinding.
async fn ensure_loopback_host(request: Request, next: Next) -> Response {
    let host = match request.uri().host() {
        Some(host) => Some(host),
        None => request
            .headers()
            .get(header::HOST)
            .and_then(|host| host.to_str().ok())
            .map(without_port),
    };
    if host.is_some_and(is_loopback) {
        return next.run(request).await;
    }
    Problem::new(
        StatusCode::MISDIRECTED_REQUEST,
        "host",
        "the request is addressed to another host",
    )
    .with_hint("address it to localhost, 127.0.0.1 or [::1]")
    .into_response()
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn only_loopback_names_are_ours() {
        for host in [
            "localhost",
            "LocalHost:8686",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]:8686",
            "[::1]",
        ] {
            assert!(is_loopback(without_port(host)), "{host}");
        }
        for host in [
            "example.com",
            "localhost.example.com:80",
            "10.0.0.1",
            "",
            "127.0.0.1.example.com",
        ] {
            assert!(!is_loopback(without_port(host)), "{host}");
        }
    }
}
