//! What is answered to which request.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware;
use axum::response::IntoResponse;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::access::{self, Gate};
use super::body::{BODY_BYTES_MAX, Body, Named};
use super::commands::{PipeBody, StateBody};
use super::events::{EventList, STREAMS_MAX, Which, events};
use super::openapi::{Catalogue, JSON, Operation, TEXT, YAML};
use super::problem::Problem;
use super::{Pipes, commands, letters, metrics};
use crate::config::{pipe_file_schema, source_schema};
use crate::pipe::document::{PipeDocument, TableDocument};
use crate::pipe::requests::Validation;
use crate::pipe::{Command, unknown_pipe};
use crate::source::mysql::inspect::Inspection;

pub(super) struct Shared<P> {
    pub(super) pipes: Arc<P>,
    pub(super) draining: CancellationToken,
    /// A permit for each event stream that may still be opened.
    pub(super) streams: Arc<Semaphore>,
    description: Arc<Value>,
}

impl<P> Clone for Shared<P> {
    fn clone(&self) -> Self {
        Self {
            pipes: Arc::clone(&self.pipes),
            draining: self.draining.clone(),
            streams: Arc::clone(&self.streams),
            description: Arc::clone(&self.description),
        }
    }
}

impl<P> Shared<P> {
    /// Refuses what has no end of its own once the process is about to end.
    pub(super) fn ensure_staying(&self) -> Result<(), Problem> {
        if !self.draining.is_cancelled() {
            return Ok(());
        }
        Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "stopped",
            "the process is shutting down",
        ))
    }
}

/// All routes, behind what guards them.
pub(super) fn router<P: Pipes>(
    pipes: Arc<P>,
    draining: CancellationToken,
    gate: Arc<Gate>,
) -> Router {
    let (router, description) =
        surroundings(questions(routes_of_pipes::<P>(Catalogue::new()))).finish();
    let shared = Shared {
        pipes,
        draining,
        streams: Arc::new(Semaphore::new(STREAMS_MAX)),
        description: Arc::new(description),
    };
    router
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(gate, access::guard))
        .with_state(shared)
}

fn routes_of_pipes<P: Pipes>(mut routes: Catalogue<Shared<P>>) -> Catalogue<Shared<P>> {
    let pipe = "/v1/pipes/{pipe}";
    let summary = "Every pipe of the process, by name.";
    let op = routes.answering::<PipeList>((Method::GET, "/v1/pipes"), "listPipes", summary);
    routes = routes.serve(op, list::<P>);

    let summary = "Makes a pipe and starts it. `${file:...}` and plugins lead only into the folders that the process was \
                   started with; a restart of the process runs the pipe again.";
    let body = routes.body_of(pipe_file_schema, &[JSON, YAML]);
    let op = routes.answering::<PipeDocument>((Method::POST, "/v1/pipes"), "createPipe", summary);
    routes = routes.serve(op.with_status(201).taking(body), create::<P>);

    let summary = "One pipe: state, reasons, tables, progress, checkpoint and lag.";
    let op = routes.answering::<PipeDocument>((Method::GET, pipe), "getPipe", summary);
    routes = routes.serve(op, show::<P>);

    let summary = "Adds or removes tables, or changes settings, while the others keep streaming; or changes how a pipe that does not run \
                   reaches its two ends.";
    let body = routes.body::<PipeBody>(&[JSON]);
    let op = routes.answering::<PipeDocument>((Method::PATCH, pipe), "changePipe", summary);
    routes = routes.serve(op.taking(body), change::<P>);

    let summary = "Forgets a pipe. Its tables in ClickHouse stay as they are; those of unfinished loads beside them are dropped, and \
                   what could not be is among `reasons`.";
    let op = routes.answering::<PipeDocument>((Method::DELETE, pipe), "dropPipe", summary);
    routes = routes.serve(op, forget::<P>);

    let at = (Method::PATCH, "/v1/pipes/{pipe}/state");
    let summary =
        "Starts, pauses, resumes or resyncs a pipe, or brings one of its tables back into service.";
    let body = routes.body::<StateBody>(&[JSON]);
    let op = routes.answering::<PipeDocument>(at, "commandPipe", summary);
    routes = routes.serve(op.taking(body), command::<P>);

    let at = (Method::GET, "/v1/pipes/{pipe}/file");
    let summary = "The document that the pipe runs by, with what commands have changed. `***` stands for a password that \
                   is written out.";
    let op = routes.answering::<Map<String, Value>>(at, "exportPipe", summary);
    routes = routes.serve(op, file::<P>);

    let at = (Method::GET, "/v1/pipes/{pipe}/tables");
    let summary = "The tables of a pipe.";
    let op = routes.answering::<TableList>(at, "listTables", summary);
    routes = routes.serve(op, tables::<P>);

    let at = (Method::GET, "/v1/pipes/{pipe}/events");
    let summary = "What has happened to a pipe: transitions, commands, errors. With `Accept: text/event-stream` a \
                   stream that goes on, from `Last-Event-ID`, `after` or `since`, else from now on.";
    let query = routes.query::<Which>();
    let op = routes.answering::<EventList>(at, "listEvents", summary);
    let op = op
        .with_query(query)
        .or_as("text/event-stream", json!({ "type": "string" }));
    letters::describe(routes.serve(op, events::<P>))
}

fn questions<P: Pipes>(mut routes: Catalogue<Shared<P>>) -> Catalogue<Shared<P>> {
    let at = (Method::POST, "/v1/validate");
    let summary = "Everything that stands against a pipe document: its own faults, and what Setup would find at both \
                   servers. Changes nothing.";
    let body = routes.body_of(pipe_file_schema, &[JSON, YAML]);
    let op = routes.answering::<Validation>(at, "validate", summary);
    routes = routes.serve(op.taking(body), validate::<P>);

    let at = (Method::POST, "/v1/sources/inspect");
    let summary = "The tables of a source, and what keeps each from being replicated. Takes the section `source` of a \
                   pipe document.";
    let body = routes.body_of(source_schema, &[JSON]);
    let op = routes.answering::<Inspection>(at, "inspectSource", summary);
    routes.serve(op.taking(body), inspect::<P>)
}

fn surroundings<P: Pipes>(routes: Catalogue<Shared<P>>) -> Catalogue<Shared<P>> {
    let text = |path, id, summary, kind, open| {
        Operation::text((Method::GET, path), id, summary, kind, open)
    };
    let alive = text("/livez", "live", "Whether the process answers.", TEXT, true);
    let ready_op = text(
        "/readyz",
        "ready",
        "Whether the process takes commands.",
        TEXT,
        true,
    );
    let scraped = text(
        "/metrics",
        "metrics",
        "All metrics, for Prometheus.",
        metrics::CONTENT_TYPE,
        false,
    );
    let mut routes = routes
        .serve(alive, async || "ok\n")
        .serve(ready_op, ready::<P>)
        .serve(scraped, scrape::<P>);
    let at = (Method::GET, "/openapi.json");
    let op = routes.answering::<Map<String, Value>>(at, "describe", "This document.");
    routes.serve(op, describe::<P>)
}

/// All pipes.
#[derive(Serialize, JsonSchema)]
struct PipeList {
    pipes: Vec<PipeDocument>,
}

/// The tables of a pipe.
#[derive(Serialize, JsonSchema)]
struct TableList {
    tables: Vec<TableDocument>,
}

async fn list<P: Pipes>(State(shared): State<Shared<P>>) -> Json<PipeList> {
    Json(PipeList {
        pipes: shared.pipes.pipes(),
    })
}

async fn show<P: Pipes>(
    State(shared): State<Shared<P>>,
    Named(name): Named,
) -> Result<Json<PipeDocument>, Problem> {
    find(&*shared.pipes, &name).map(Json)
}

async fn tables<P: Pipes>(
    State(shared): State<Shared<P>>,
    Named(name): Named,
) -> Result<Json<TableList>, Problem> {
    let tables = find(&*shared.pipes, &name)?.tables;
    Ok(Json(TableList { tables }))
}

async fn command<P: Pipes>(
    State(shared): State<Shared<P>>,
    Named(name): Named,
    Body(body): Body,
) -> Result<Json<PipeDocument>, Problem> {
    find(&*shared.pipes, &name)?;
    let command = commands::state(&body)?;
    whole(async move { Ok(Json(shared.pipes.command(&name, command).await?)) }).await
}

async fn change<P: Pipes>(
    State(shared): State<Shared<P>>,
    Named(name): Named,
    Body(body): Body,
) -> Result<Json<PipeDocument>, Problem> {
    let mut document = find(&*shared.pipes, &name)?;
    let commands = commands::change(&body)?;
    whole(async move {
        for command in commands {
            document = shared.pipes.command(&name, command).await?;
        }
        Ok(Json(document))
    })
    .await
}

async fn forget<P: Pipes>(
    State(shared): State<Shared<P>>,
    Named(name): Named,
) -> Result<Json<PipeDocument>, Problem> {
    find(&*shared.pipes, &name)?;
    whole(async move { Ok(Json(shared.pipes.command(&name, Command::Drop).await?)) }).await
}

async fn create<P: Pipes>(
    State(shared): State<Shared<P>>,
    Body(body): Body,
) -> Result<(StatusCode, Json<PipeDocument>), Problem> {
    let text = text(&body)?.to_owned();
    whole(async move {
        let pipe = shared.pipes.create(&text).await?;
        Ok((StatusCode::CREATED, Json(pipe)))
    })
    .await
}

/// In a task of its own: who asked may go away in the middle of it, and what was begun is done to its end.
async fn whole<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let done = tokio::spawn(work).await;
    done.unwrap_or_else(|died| std::panic::resume_unwind(died.into_panic()))
}

async fn validate<P: Pipes>(
    State(shared): State<Shared<P>>,
    Body(body): Body,
) -> Result<Json<Validation>, Problem> {
    Ok(Json(shared.pipes.validate(text(&body)?).await))
}

async fn inspect<P: Pipes>(
    State(shared): State<Shared<P>>,
    Body(body): Body,
) -> Result<Json<Inspection>, Problem> {
    let example = r#"{"type": "mysql", "host": "db.example.com", "user": "u", "password": "p"}"#;
    let section: Map<String, Value> = commands::read(&body, example)?;
    Ok(Json(shared.pipes.inspect(section.into()).await?))
}

async fn file<P: Pipes>(
    State(shared): State<Shared<P>>,
    Named(name): Named,
) -> Result<Json<Value>, Problem> {
    if let Some(document) = shared.pipes.file(&name) {
        return Ok(Json(document));
    }
    // Asked afterwards: a pipe that was dropped before is not one that is being made.
    find(&*shared.pipes, &name)?;
    let detail = "the pipe is being made, and has no document yet";
    Err(Problem::new(
        StatusCode::CONFLICT,
        "illegal_command",
        detail,
    ))
}

fn text(body: &[u8]) -> Result<&str, Problem> {
    let detail = "the request's body is no UTF-8";
    std::str::from_utf8(body).map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "body", detail))
}

async fn describe<P: Pipes>(State(shared): State<Shared<P>>) -> Json<Value> {
    Json(Value::clone(&shared.description))
}

async fn scrape<P: Pipes>(State(shared): State<Shared<P>>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)],
        metrics::render(&shared.pipes.pipes()),
    )
}

/// A failed pipe does not make the process unready: it still serves the others, and its own status.
async fn ready<P: Pipes>(State(shared): State<Shared<P>>) -> Result<&'static str, Problem> {
    shared.ensure_staying().map(|()| "ok\n")
}

pub(super) fn find(pipes: &impl Pipes, name: &str) -> Result<PipeDocument, Problem> {
    let pipe = pipes.pipe(name);
    pipe.ok_or_else(|| unknown_pipe(name).into())
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
