//! `events`: what has happened to a pipe, and what happens.

use std::fmt::Write;

use serde::Deserialize;
use serde_json::json;

use super::arguments::Events;
use super::client::named;
use super::connection::Connection;
use super::exit::Exit;
use super::output::{self, Result};
use super::progress::view::clean;
use crate::pipe::journal::{Event, EventKind, Level};

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
        (Some(event), _) => format!("after={}", event.id),
        (None, Some(since)) => format!("since={since}"),
        (None, None) => "after=0".to_owned(),
    };
    follow(&connection, &format!("{path}?{from}"), as_json).await
}

/// Shows events as they come, until the process or the pipe is gone.
async fn follow(connection: &Connection, path: &str, as_json: bool) -> Result<Exit> {
    let mut stream = connection.stream(path).await?;
    let mut unread = Vec::new();
    while let Some(chunk) = connection.next(&mut stream).await? {
        unread.extend_from_slice(&chunk);
        while let Some(end) = unread.windows(2).position(|pair| pair == b"\n\n") {
            let message: Vec<u8> = unread.drain(..end + 2).collect();
            let message = String::from_utf8_lossy(&message);
            let data = message.lines().find_map(|line| line.strip_prefix("data:"));
            if let Some(event) = data.and_then(|data| serde_json::from_str(data).ok()) {
                show(&event, as_json);
            }
        }
    }
    Ok(Exit::Done)
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
