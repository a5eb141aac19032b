//! The verbs that ask a running process, over its REST interface.

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::arguments::{Ask, OneTable, Server, Set, Status, Tables};
use super::connection::Connection;
use super::exit::Exit;
use super::output::{self, Failure, Result};
use super::progress::view;
use crate::error::{Error, ErrorKind};
use crate::pipe::document::PipeDocument;

/// How often `--watch` looks.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Clears a terminal and begins at its top.
const CLEAR: &str = "\u{1b}[2J\u{1b}[H";

#[derive(Deserialize)]
struct PipeList {
    pipes: Vec<PipeDocument>,
}

pub(super) async fn status(options: &Status, as_json: bool) -> Result<Exit> {
    let connection = Connection::new(&options.ask.server)?;
    if !options.watch {
        let (document, text) = look(&connection, options).await?;
        if as_json {
            output::data(&document);
        } else {
            output::text(&text);
        }
        return Ok(Exit::Done);
    }
    let clear = std::io::stdout().is_terminal();
    loop {
        let (document, text) = look(&connection, options).await?;
        output::flow(&match (as_json, clear) {
            (true, _) => format!("{document}\n"),
            (false, true) => format!("{CLEAR}{text}"),
            (false, false) => format!("{text}\n"),
        });
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

/// What `status` shows, for programs and for people.
async fn look(connection: &Connection, options: &Status) -> Result<(Value, String)> {
    match &options.ask.pipe {
        Some(name) => {
            let pipe: PipeDocument = connection.get(&format!("/v1/pipes/{name}")).await?;
            Ok((json!(pipe), view::details(&pipe)))
        }
        None => {
            let PipeList { pipes } = connection.get("/v1/pipes").await?;
            Ok((json!({ "pipes": pipes }), view::table(&pipes)))
        }
    }
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
    let mut body = json!({});
    for (key, value) in options.settings {
        if key == "exclude" {
            body[key] = excluded(&value);
            continue;
        }
        let mut parts: Vec<&str> = key.split('.').collect();
        if !matches!(parts.first(), Some(&("source" | "destination" | "sync"))) {
            parts.insert(0, "sync");
        }
        // Names may look like numbers.
        let value = match (parts.last(), value) {
            (Some(&("host" | "user" | "password")), Value::Number(number)) => {
                number.to_string().into()
            }
            (_, value) => value,
        };
        lay(&mut body, &parts, value);
    }
    for (end, file) in [
        ("source", options.source_password_file),
        ("destination", options.destination_password_file),
    ] {
        if let Some(file) = file {
            lay(&mut body, &[end, "password"], password(&file)?.into());
        }
    }
    change(&options.server, &options.pipe, &body, as_json).await
}

/// `exclude` as a person writes it: names with commas between them, or nothing.
fn excluded(value: &Value) -> Value {
    let text = match value {
        Value::String(text) => text.clone(),
        number => number.to_string(),
    };
    let names = text.split(',').map(str::trim);
    names
        .filter(|name| !name.is_empty())
        .map(Value::from)
        .collect()
}

/// Puts a value where a path leads; whatever else stood on the way makes room, and the process says what it lacks.
fn lay(at: &mut Value, path: &[&str], value: Value) {
    match path {
        [] => *at = value,
        [first, rest @ ..] => {
            if !at.is_object() {
                *at = json!({});
            }
            lay(&mut at[*first], rest, value);
        }
    }
}

/// A password as a document writes it: a dollar begins a reference there.
fn password(file: &Path) -> Result<String> {
    let text = std::fs::read_to_string(file).map_err(|error| Failure::Error {
        exit: Exit::Usage,
        error: Error::new(
            ErrorKind::Config,
            format!("`{}` cannot be read", file.display()),
        )
        .with_source(error),
    })?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    Ok(line.replace('$', "$$"))
}

pub(super) async fn drop_pipe(options: &Ask, as_json: bool) -> Result<Exit> {
    let name = named(options).await?;
    let path = format!("/{name}");
    send(&options.server, Method::DELETE, &path, None, as_json).await
}

pub(super) async fn export(options: &Ask, as_json: bool) -> Result<Exit> {
    let name = named(options).await?;
    let connection = Connection::new(&options.server)?;
    let document: Value = connection.get(&format!("/v1/pipes/{name}/file")).await?;
    if as_json {
        output::data(&document);
    } else {
        let text = serde_saphyr::to_string(&document).map_err(|error| {
            Error::new(
                ErrorKind::Internal,
                "the document cannot be written as YAML",
            )
            .with_source(error)
        })?;
        output::text(&text);
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
    let path = format!("/v1/pipes{path}");
    let pipe: PipeDocument = Connection::new(server)?.send(method, &path, body).await?;
    show(&pipe, as_json);
    Ok(Exit::Done)
}

/// The pipe that is meant: the only one where none is named.
pub(super) async fn named(options: &Ask) -> Result<String> {
    match &options.pipe {
        Some(name) => Ok(name.clone()),
        None => only_pipe(&Connection::new(&options.server)?).await,
    }
}

fn show(pipe: &PipeDocument, as_json: bool) {
    if as_json {
        output::data(&json!(pipe));
    } else {
        output::text(&view::details(pipe));
    }
}

async fn only_pipe(connection: &Connection) -> Result<String> {
    let PipeList { pipes } = connection.get("/v1/pipes").await?;
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
