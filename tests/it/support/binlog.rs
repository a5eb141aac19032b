//! What a source says of its own binlog: the proof that it holds what a test is about.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use pipewright::source::mysql::position::Position;
use serde_json::{Value, json};
use testbed::SourceServer;
use testbed::harness::Stage;

use super::CATCH_UP;

/// An event as the server lists it.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) file: String,
    pub(crate) start: u64,
    /// Such as `Write_rows_v1`.
    pub(crate) kind: String,
    /// Such as the text of a statement, which may be of any bytes.
    pub(crate) info: String,
}

/// Up to where the pipe has read it, by its checkpoint.
pub(crate) fn place(status: &Value) -> &str {
    status["checkpoint"]["position"]
        .as_str()
        .unwrap_or_default()
}

/// The transaction that the source has committed last, as a place.
pub(crate) async fn newest_place(stage: &Stage) -> Result<Position> {
    let (variable, key) = match stage.kind().is_mariadb() {
        true => ("@@gtid_binlog_pos", ("maria_gtid", "list")),
        false => ("@@GLOBAL.gtid_executed", ("gtid", "set")),
    };
    let rows: Vec<String> = stage.source.rows(&format!("SELECT {variable}")).await?;
    let text = rows.first().context("a place")?.replace('\n', "");
    let (kind, name) = key;
    serde_json::from_value(json!({ "kind": kind, name: text })).context(text)
}

/// The newest file, and its end.
pub(crate) async fn end_of_binlog(stage: &Stage) -> Result<(String, u64)> {
    let rows: Vec<Row> = stage
        .source
        .rows(match stage.kind().is_mariadb() {
            true => "SHOW MASTER STATUS",
            false => "SHOW BINARY LOG STATUS",
        })
        .await?;
    let row = rows.first().context("the server has no binlog")?;
    let (file, end) = (row.get(0), row.get(1));
    Ok((file.context("a file")?, end.context("its end")?))
}

/// The newest file, on the server's disk.
pub(crate) async fn newest_file(stage: &Stage) -> Result<PathBuf> {
    let (file, _) = end_of_binlog(stage).await?;
    Ok(stage.source_server.data_dir().join(file))
}

/// The events behind a place that [`end_of_binlog`] gave, those of all other databases included.
pub(crate) async fn events_behind(
    stage: &Stage,
    (first, start): &(String, u64),
) -> Result<Vec<Event>> {
    let files: Vec<Row> = stage.source.rows("SHOW BINARY LOGS").await?;
    let files = files.iter().filter_map(|row| row.get::<String, _>(0));
    let mut events = Vec::new();
    for file in files.skip_while(|file| file != first) {
        let from = match &file == first {
            true => format!(" FROM {start}"),
            false => String::new(),
        };
        let rows: Vec<Row> = stage
            .source
            .rows(format!("SHOW BINLOG EVENTS IN '{file}'{from}"))
            .await?;
        for row in rows {
            let info: Vec<u8> = row.get("Info").context("what an event is")?;
            events.push(Event {
                file: file.clone(),
                start: row.get("Pos").context("where an event is")?,
                kind: row.get("Event_type").context("an event's kind")?,
                info: String::from_utf8_lossy(&info).into_owned(),
            });
        }
    }
    Ok(events)
}

/// Whether events of all of these kinds are among them.
pub(crate) fn has_kinds(events: &[Event], kinds: &[&str]) -> Result<()> {
    for kind in kinds {
        ensure!(
            events.iter().any(|event| event.kind == *kind),
            "the binlog has no {kind}: {events:#?}"
        );
    }
    Ok(())
}

/// Ends the current binlog file, and waits until the server has nothing before the newest. It keeps a file as long as it
/// sends it to somebody, and says so with a warning only; it notices a connection whose other end was killed when it next
/// writes to it.
pub(crate) async fn purge_all_but_the_newest(server: &SourceServer) -> Result<()> {
    let mut conn = Conn::from_url(server.root_url()).await?;
    conn.query_drop("FLUSH BINARY LOGS").await?;
    let until = Instant::now() + CATCH_UP;
    loop {
        let files: Vec<Row> = conn.query("SHOW BINARY LOGS").await?;
        let newest: Option<String> = files.last().and_then(|row| row.get(0));
        let newest = newest.context("the server has no binlog")?;
        if files.len() == 1 {
            return Ok(conn.disconnect().await?);
        }
        ensure!(Instant::now() < until, "files are not purged: {files:?}");
        conn.query_drop(format!("PURGE BINARY LOGS TO '{newest}'"))
            .await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
