//! An interface over a real socket, in front of pipes that answer from a fixed document.

use std::sync::Mutex;

use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::super::*;
use crate::config::Mode;
use crate::pipe::document::{
    BatchDocument, ChangedColumn, CheckpointDocument, LagDocument, ReplicaDocument,
    RetentionDocument, RowsDocument, SnapshotDocument, TableDocument, Timestamp,
};
use crate::pipe::journal::{Event, EventKind, Level};
use crate::pipe::unknown_pipe;

/// Pipes that answer from one document. Without a journal the pipe is gone.
pub(super) struct FixedPipes(
    pub(super) Mutex<PipeDocument>,
    pub(super) Mutex<Option<Arc<Journal>>>,
);

impl FixedPipes {
    pub(super) fn publish(&self, event: Event) {
        let journal = self.1.lock().expect("no panic");
        journal.as_ref().expect("a pipe").publish(vec![event]);
    }
}

impl Pipes for FixedPipes {
    fn pipes(&self) -> Vec<PipeDocument> {
        vec![self.0.lock().expect("no panic").clone()]
    }

    fn pipe(&self, name: &str) -> Option<PipeDocument> {
        self.pipes().into_iter().find(|pipe| pipe.pipe == name)
    }

    async fn letters(&self, _name: &str, _which: &Letters<'_>) -> Result<LetterPage> {
        Ok(LetterPage::default())
    }

    async fn replay_letters(&self, _name: &str, _which: Letters<'_>) -> Result<Replayed> {
        Ok(Replayed {
            passed: 2,
            failing: 1,
            ..Replayed::default()
        })
    }

    fn journal(&self, _name: &str) -> Option<Arc<Journal>> {
        self.1.lock().expect("no panic").clone()
    }

    async fn create(&self, text: &str) -> Result<PipeDocument, Refused> {
        match text {
            "" => Err(Refused::Document(Vec::new())),
            _ => Ok(self.pipes().remove(0)),
        }
    }

    async fn validate(&self, _text: &str) -> Validation {
        Validation {
            valid: true,
            pipe: None,
            problems: Vec::new(),
            findings: Vec::new(),
        }
    }

    async fn inspect(&self, _section: Value) -> Result<Inspection, Refused> {
        Err(Error::new(ErrorKind::SourceDenied, "no").into())
    }

    fn file(&self, _name: &str) -> Option<Value> {
        None
    }

    async fn command(&self, name: &str, command: Command) -> Result<PipeDocument> {
        let mut pipe = self.0.lock().expect("no panic");
        if pipe.state == "Dropped" {
            return Err(unknown_pipe(name));
        }
        let is_refused = match &command {
            Command::Configure { sync } => sync.contains_key("unknown"),
            _ => pipe.state == "Failed",
        };
        if is_refused {
            return Err(Error::new(
                ErrorKind::IllegalCommand,
                "a pipe that is Failed cannot pause",
            )
            .with_hint("start it first")
            .with_source(Error::new(ErrorKind::Internal, "inner detail")));
        }
        pipe.state = match command {
            Command::Pause => "Paused".to_owned(),
            Command::Start | Command::Resume => "Running".to_owned(),
            Command::Resync { table: None, .. } => "Snapshot".to_owned(),
            other => format!("{other:?}"),
        };
        Ok(pipe.clone())
    }
}

/// A free port of this machine, open to everybody on it.
pub(super) fn loopback() -> Access {
    Access {
        address: ([127, 0, 0, 1], 0).into(),
        token_file: None,
        tls: None,
    }
}

pub(super) struct Served {
    pub(super) url: String,
    pub(super) pipes: Arc<FixedPipes>,
    pub(super) draining: CancellationToken,
}

pub(super) async fn served() -> Served {
    served_with(&loopback()).await
}

/// An event of the history, as long ago as its number is small.
pub(super) fn event(id: u64) -> Event {
    Event {
        id,
        time: Timestamp::from_micros(id * 1_000_000),
        level: Level::Info,
        kind: EventKind::Command,
        table: None,
        code: None,
        text: format!("event {id}"),
        remedy: None,
    }
}

pub(super) async fn served_with(access: &Access) -> Served {
    let document = PipeDocument {
        pipe: "shop".to_owned(),
        state: "Running".to_owned(),
        reasons: Vec::new(),
        mode: Mode::Cdc,
        tables: vec![TableDocument {
            source: "shop.orders".to_owned(),
            target: "orders".to_owned(),
            state: "Streaming".to_owned(),
            snapshot: SnapshotDocument {
                partitions_done: 3,
                partitions_total: 5,
                rows: 300,
                rows_estimated: Some(500),
                bytes: 3_000,
                rows_before: 50,
                bytes_before: 500,
                rows_per_second: Some(50.0),
                seconds_left: Some(4.0),
            },
            rows: RowsDocument {
                inserted: 7,
                updated: 2,
                deleted: 1,
                bytes: 120,
            },
            columns: vec![ChangedColumn {
                column: "born".to_owned(),
                policy: "zero_dates".to_owned(),
                values: 4,
            }],
            failed_rows: Vec::new(),
        }],
        checkpoint: Some(CheckpointDocument {
            position: "0-1-14".to_owned(),
            term: 1,
            stream_offset: 99,
            committed_at: Timestamp::now(),
            source_committed_at: None,
        }),
        lag_seconds: Some(0.25),
        lag: Some(LagDocument {
            insert_seconds: 0.125,
            ..LagDocument::default()
        }),
        retention: Some(RetentionDocument {
            keeps_seconds: Some(7200.0),
            headroom_seconds: Some(3600.0),
            checked_at: Timestamp::now(),
        }),
        replica: Some(ReplicaDocument {
            behind_seconds: Some(1.5),
            checked_at: Timestamp::now(),
        }),
        batches: vec![BatchDocument {
            rows: 10,
            bytes: 120,
            seconds: 0.5,
            ..BatchDocument::default()
        }],
        drift: Vec::new(),
    };
    let interface = listen(access).await.expect("a free port");
    let url = interface.url();
    let pipes = Arc::new(FixedPipes(
        Mutex::new(document),
        Mutex::new(Some(Journal::new((1..=3).map(event).collect()))),
    ));
    let draining = CancellationToken::new();
    let server = interface.serve(
        Arc::clone(&pipes),
        draining.clone(),
        CancellationToken::new(),
    );
    tokio::spawn(server);
    Served {
        url,
        pipes,
        draining,
    }
}

impl Served {
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: &str,
    ) -> (StatusCode, String, Value) {
        let response = reqwest::Client::new()
            .request(method, format!("{}{path}", self.url))
            .body(body.to_owned())
            .send()
            .await
            .expect("an answer");
        let status = response.status();
        let kind = response.headers()["content-type"]
            .to_str()
            .expect("text")
            .to_owned();
        let text = response.text().await.expect("a body");
        let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        (status, kind, value)
    }

    pub(super) async fn get(&self, path: &str) -> (StatusCode, String, Value) {
        self.ask(Method::GET, path, "").await
    }

    pub(super) async fn command(&self, pipe: &str, body: &str) -> (StatusCode, Value) {
        let path = format!("/v1/pipes/{pipe}/state");
        let (status, kind, value) = self.ask(Method::PATCH, &path, body).await;
        let problem = kind == "application/problem+json";
        assert_eq!(problem, !status.is_success(), "{status} {kind}");
        if problem {
            assert_eq!(value["status"], status.as_u16());
            assert!(value["code"].is_string() && value["detail"].is_string());
        }
        (status, value)
    }
}
