//! `events`: what has happened to a pipe, and what happens.

use std::fmt::Write;
use std::time::Duration;

use reqwest::Response;
use serde::Deserialize;
use serde_json::json;

use super::arguments::Events;
use super::client::named;
use super::connection::Connection;
use super::exit::Exit;
use super::output::{self, Failure, Result};
use super::progress::view::clean;
use crate::pipe::journal::{Event, EventKind, Level};

/// How long after a stream's end it is asked for again: whatever ends each at once is asked no more often.
const ASK_AGAIN: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
struct EventList {
    events: Vec<Event>,
}

pub(super) async fn events(options: &Events, as_json: bool) -> Result<Exit> {
    let connection = Connection::new(&options.ask.server)?;
    let path = format!("/v1/pipes/{}/events", named(&options.ask).await?);
    let mut query = format!("?limit={}", options.limit);
    if let Some(since) = &options.since {
        let _ = write!(query, "&since={since}");
    }
    let EventList { events } = connection.get(&format!("{path}{query}")).await?;
    if !options.follow {
        if as_json {
            output::data(&json!({ "events": events }));
        } else {
            output::text(&events.iter().map(line).collect::<String>());
        }
        return Ok(Exit::Done);
    }
    events.iter().for_each(|event| show(event, as_json));
    let from = match (events.last(), &options.since) {
        (Some(event), _) => after(event.id),
        (None, Some(since)) => format!("since={since}"),
        (None, None) => after(0),
    };
    follow(&connection, &path, from, as_json).await
}

/// Shows events as they come, until the pipe is dropped, which is an error, or the process ends. The stream of a pipe ends
/// as well when another takes its place under its name, by a changed file or a renewed secret: the history goes on there.
async fn follow(
    connection: &Connection,
    path: &str,
    mut from: String,
    as_json: bool,
) -> Result<Exit> {
    let mut stream = connection.stream(&format!("{path}?{from}")).await?;
    loop {
        if let Some(last) = until_end(connection, &mut stream, as_json).await? {
            from = after(last);
        }
        tokio::time::sleep(ASK_AGAIN).await;
        stream = match connection.stream(&format!("{path}?{from}")).await {
            Ok(stream) => stream,
            // It has told everything before it ended the stream.
            Err(failure) if failure.exit() == Exit::Unavailable => return Ok(Exit::Done),
            Err(Failure::Refused(refusal)) if refusal.code == "stopped" => return Ok(Exit::Done),
            Err(Failure::Refused(mut refusal)) if refusal.code == "unknown_pipe" => {
                refusal.detail = format!("the pipe was dropped: {}", refusal.detail);
                return Err(Failure::Refused(refusal));
            }
            Err(failure) => return Err(failure),
        };
    }
}

/// Shows the events of one stream; the id of the last.
async fn until_end(
    connection: &Connection,
    stream: &mut Response,
    as_json: bool,
) -> Result<Option<u64>> {
    let (mut unread, mut last) = (Vec::new(), None);
    while let Some(chunk) = connection.next(stream).await? {
        unread.extend_from_slice(&chunk);
        while let Some(end) = unread.windows(2).position(|pair| pair == b"\n\n") {
            let message: Vec<u8> = unread.drain(..end + 2).collect();
            let message = String::from_utf8_lossy(&message);
            let data = message.lines().find_map(|line| line.strip_prefix("data:"));
            let event: Option<Event> = data.and_then(|data| serde_json::from_str(data).ok());
            if let Some(event) = event {
                show(&event, as_json);
                last = Some(event.id);
            }
        }
    }
    Ok(last)
}

fn after(id: u64) -> String {
    format!("after={id}")
}

fn show(event: &Event, as_json: bool) {
    if as_json {
        output::flow(&format!("{}\n", json!(event)));
    } else {
        output::flow(&line(event));
    }
}

fn line(event: &Event) -> String {
    let level = match event.level {
        Level::Info => "info",
        Level::Warning => "warning",
        Level::Error => "error",
    };
    let kind = match event.kind {
        EventKind::Transition => "state",
        EventKind::Command => "command",
        EventKind::Error => "trouble",
        EventKind::File => "file",
    };
    let mut text = format!("{}  {level:7}  {kind:7}  ", event.time);
    if let Some(table) = &event.table {
        let _ = write!(text, "{}: ", clean(table));
    }
    let _ = writeln!(text, "{}", clean(&event.text));
    if let Some(remedy) = &event.remedy {
        let _ = writeln!(text, "{:26}remedy: {}", "", clean(remedy));
    }
    text
}
