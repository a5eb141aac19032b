//! Event bodies of real servers, to begin mutations from: `testbed soak corpus` takes them anew.

mod recordings;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use mysql_async::prelude::Queryable;
use mysql_async::{BinlogStreamRequest, Conn};
use pipewright::batch::TableName;
use pipewright::config::{PositionMode, Secret, SourceConfig, SourceType, TlsConfig, TlsMode};
use pipewright::source::mysql::Source;
use pipewright::source::mysql::binlog::{RowEvent, RowKind, TableMap};
use pipewright::source::mysql::catalog::{SourceTable, load_tables};
use serde::{Deserialize, Serialize};

use crate::harness::workspace_folder;
use crate::{SourceKind, SourceOptions, SourceServer, database_name};
use recordings::Recording;

/// One table: its definition as recorded, its map and row events as the server wrote them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Case {
    /// Where it is from.
    pub name: String,
    /// The definition.
    pub table: SourceTable,
    /// The body of its TABLE_MAP event.
    #[serde(with = "hex")]
    pub map: Vec<u8>,
    /// Its row events.
    pub events: Vec<Body>,
}

/// The body of a row event, its checksum taken off.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Body {
    /// The event's type.
    pub kind: u8,
    /// The bytes.
    #[serde(with = "hex")]
    pub bytes: Vec<u8>,
}

mod hex {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::to_hex(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        let digits = text.as_bytes().chunks(2);
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        digits
            .map(byte)
            .collect::<Option<_>>()
            .ok_or_else(|| serde::de::Error::custom("not hexadecimal"))
    }
}

/// Hexadecimal digits, as the corpus and reports have bytes.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Body {
    /// The event as the stream would hand it on; none for a type that is no row event.
    pub fn event<'a>(&self, table: Arc<TableMap>, body: &'a [u8]) -> Option<RowEvent<'a>> {
        let (kind, extra_data) = match self.kind {
            23 => (RowKind::Insert, false),
            24 => (RowKind::Update, false),
            25 => (RowKind::Delete, false),
            30 => (RowKind::Insert, true),
            31 | 39 => (RowKind::Update, true),
            32 => (RowKind::Delete, true),
            _ => return None,
        };
        Some(RowEvent {
            table,
            kind,
            extra_data,
            partial: self.kind == 39,
            body,
            offset: 1,
            undone: false,
        })
    }
}

/// The folder in the repository.
pub fn folder() -> PathBuf {
    workspace_folder().join("tests/corpus")
}

/// The cases of the repository.
///
/// # Errors
/// When a file cannot be read.
pub fn load() -> Result<Vec<Case>> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder())?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    paths.sort();
    let mut cases = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path)?;
        cases.push(serde_json::from_str(&text).with_context(|| path.display().to_string())?);
    }
    if cases.is_empty() {
        bail!("{} holds no cases", folder().display());
    }
    Ok(cases)
}

/// Takes the corpus anew from servers of every kind, into the repository.
///
/// # Errors
/// When a server cannot be started or asked.
pub async fn capture() -> Result<()> {
    std::fs::create_dir_all(folder())?;
    for (kind, settings, recordings) in recordings::all() {
        let mut options = SourceOptions::new(kind);
        options.extra_args = settings.iter().map(|&setting| setting.to_owned()).collect();
        let server = tokio::task::spawn_blocking(move || SourceServer::start(options)).await??;
        for recording in recordings {
            let case = capture_one(&server, &recording).await?;
            let path = folder().join(format!("{}.json", case.name));
            std::fs::write(&path, serde_json::to_string_pretty(&case)? + "\n")?;
            println!("{}: {} events", path.display(), case.events.len());
        }
    }
    Ok(())
}

async fn capture_one(server: &SourceServer, recording: &Recording) -> Result<Case> {
    let database = database_name("corpus");
    let mut conn = Conn::from_url(server.root_url()).await?;
    conn.query_drop(format!("CREATE DATABASE {database}"))
        .await?;
    conn.query_drop(format!("USE {database}")).await?;
    conn.query_drop(&recording.table).await?;
    let status = match server.kind() {
        SourceKind::MySql => "SHOW BINARY LOG STATUS",
        SourceKind::MariaDb | SourceKind::MariaDb11 => "SHOW MASTER STATUS",
    };
    let row: mysql_async::Row = conn.query_first(status).await?.context("no binlog")?;
    let file: String = row.get(0).context("no file")?;
    let position: u64 = row.get(1).context("no position")?;
    for statement in &recording.statements {
        let done = conn.query_drop(statement).await;
        done.with_context(|| statement.chars().take(300).collect::<String>())?;
    }
    let source = Source::connect(&source_config(server), None).await?;
    let mut control = source.control().await?;
    let table = TableName::new(&database, "t");
    let table = load_tables(&mut control, &source, &[table], |_| Vec::new()).await?;
    let (map, events) = row_events(conn, &file, position).await?;
    Ok(Case {
        name: format!("{}-{}", server.kind().label(), recording.name),
        table: table.into_iter().next().context("no table")?,
        map,
        events,
    })
}

async fn row_events(mut conn: Conn, file: &str, position: u64) -> Result<(Vec<u8>, Vec<Body>)> {
    conn.query_drop("SET @mariadb_slave_capability = 4").await?;
    let request = BinlogStreamRequest::new(4_000_000_001)
        .with_non_blocking()
        .with_filename(file.as_bytes())
        .with_pos(position);
    let mut stream = conn.get_binlog_stream(request).await?;
    let (mut map, mut events) = (None, Vec::new());
    while let Some(event) = stream.next().await {
        let event = event?;
        let bytes = event.data().to_vec();
        match event.header().event_type_raw() {
            19 => map = Some(bytes),
            kind @ (23..=25 | 30..=32 | 39) => events.push(Body { kind, bytes }),
            _ => {}
        }
    }
    Ok((map.context("no table map")?, events))
}

fn source_config(server: &SourceServer) -> SourceConfig {
    SourceConfig {
        source_type: match server.kind() {
            SourceKind::MySql => SourceType::Mysql,
            SourceKind::MariaDb | SourceKind::MariaDb11 => SourceType::Mariadb,
        },
        host: server.host().to_owned(),
        port: server.port(),
        hosts: Vec::new(),
        user: "pipewright".to_owned(),
        password: Secret::new("pipewright"),
        tls: TlsConfig {
            mode: TlsMode::Disabled,
            ca: None,
        },
        position: PositionMode::Auto,
        server_id: None,
    }
}
