//! What programs ask of a running process beyond commands: pipes made by request, documents checked, sources looked at.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::document::PipeDocument;
use super::files::{self, Origin};
use super::leftovers::{self, Left};
use super::plan::findings_with;
use super::setup;
use super::{Opening, Runtime};
use crate::config::{self, PipeFile, Problem};
use crate::destination::clickhouse::Owner;
use crate::error::{Error, ErrorKind, Finding, Result, Severity};
use crate::source::mysql::Source;
use crate::source::mysql::inspect::{self, Inspection};
use crate::state::Entry;

/// How long servers may take to answer all questions of one request.
const SERVERS_TIME: Duration = Duration::from_secs(60);

/// Why a document that was sent is not taken.
#[derive(Debug)]
pub enum Refused {
    /// It has faults.
    Document(Vec<Problem>),
    /// Something else stands against it.
    Error(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Refused::Error(error)
    }
}

/// What stands against a pipe document.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Validation {
    /// Whether a pipe could start with it.
    pub valid: bool,
    /// The pipe's name; none where the document does not say.
    pub pipe: Option<String>,
    /// The document's faults. With any, no server was asked.
    pub problems: Vec<Problem>,
    /// What both servers and the other pipes of the process have against it, warnings too: the findings of Setup.
    pub findings: Vec<Finding>,
}

impl Runtime {
    /// Makes a pipe of a document that was sent; a restart of the process runs it again.
    ///
    /// # Errors
    /// The document's faults, or `IllegalCommand` for a name that is taken.
    pub async fn create(&self, text: &str) -> Result<PipeDocument, Refused> {
        let file = self.read(text).map_err(Refused::Document)?;
        let name = file.config.pipe.clone();
        // Two requests of one name must not both find it free.
        let _turn = self.turns.of(&name).await;
        if let Some(unopened) = self.unopened().get(&name) {
            return Err(unopened.refusal(&name).into());
        }
        if self.pipe(&name).is_some() {
            let message = format!("a pipe named `{name}` exists");
            let hint = "choose another name, change that pipe with PATCH, or drop it with DELETE";
            return Err(Error::new(ErrorKind::IllegalCommand, message)
                .with_hint(hint)
                .into());
        }
        self.open_beside_others(file, Origin::Request, Opening::Anew)
            .await?;
        let gone = || Error::new(ErrorKind::Stopped, "the pipe was dropped at once");
        self.pipe(&name).ok_or_else(|| gone().into())
    }

    /// Says everything that stands against a document, as Setup would.
    pub async fn validate(&self, text: &str) -> Validation {
        let file = match self.read(text) {
            Ok(file) => file,
            Err(problems) => {
                return Validation {
                    valid: false,
                    pipe: None,
                    problems,
                    findings: Vec::new(),
                };
            }
        };
        // A pipe that runs owns its targets.
        let token = self
            .handles()
            .get(&file.config.pipe)
            .and_then(|handle| Some(handle.pipe.store.records().pipe.as_ref()?.id.clone()));
        let owner = Owner::new(file.config.pipe.clone(), token.unwrap_or_default());
        let asked = in_time(findings_with(&file.config, &self.engine, &owner)).await;
        let mut findings = self.findings_beside(&file);
        findings.extend(asked.unwrap_or_else(|error| vec![setup::finding(&error)]));
        let refused = |finding: &Finding| finding.severity == Severity::Error;
        Validation {
            valid: !findings.iter().any(refused),
            pipe: Some(file.config.pipe),
            problems: Vec::new(),
            findings,
        }
    }

    /// What the pipes of the process have against making one of `file`. Its own name is no fault where the document is asked
    /// about again that its pipe runs by.
    fn findings_beside(&self, file: &PipeFile) -> Vec<Finding> {
        let clashes = self.clashes(file).into_iter().map(|problem| Finding {
            severity: Severity::Error,
            check: "other_pipes".to_owned(),
            found: format!("{}: {}", problem.path, problem.found),
            needed: problem.expected,
            remedy: problem.remedy,
            kind: ErrorKind::Config,
        });
        let mut findings: Vec<Finding> = clashes.collect();
        let name = &file.config.pipe;
        let (handles, unopened) = (self.handles(), self.unopened());
        let listed = handles.get(name).map(|handle| &handle.file.document);
        let taken = listed.or_else(|| Some(&unopened.get(name)?.document));
        if taken.is_some_and(|taken| *taken != file.document) {
            findings.push(Finding {
                severity: Severity::Warning,
                check: "name".to_owned(),
                found: format!("a pipe named `{name}` exists, and runs by another document"),
                needed: "a name of its own, to make another pipe of this document".to_owned(),
                remedy: "choose another name, or change that pipe: with PATCH, or in its file"
                    .to_owned(),
                kind: ErrorKind::IllegalCommand,
            });
        }
        findings
    }

    /// Looks at every table of a source, given as the `source` section of a pipe document.
    ///
    /// # Errors
    /// The section's faults, or what the server fails with.
    pub async fn inspect(&self, section: Value) -> Result<Inspection, Refused> {
        // A whole document, so that the section is read by the same rules.
        let document = serde_json::json!({
            "version": 1,
            "pipe": "inspect",
            "source": section,
            "destination": { "url": "http://127.0.0.1:8123", "database": "none" },
            "tables": [{ "source": "*.*" }],
        });
        let file = self
            .read(&document.to_string())
            .map_err(Refused::Document)?;
        let looked = in_time(async {
            let source = Source::connect(&file.config.source, None).await?;
            inspect::inspect(&source).await
        });
        looked.await.map_err(|error| match error.kind() {
            // It is the request that names the server.
            ErrorKind::SourceUnavailable => Refused::Error(
                Error::new(ErrorKind::SourceMissing, error.chain())
                    .with_hint(error.hint().unwrap_or("check host, port and firewall")),
            ),
            _ => Refused::Error(error),
        })
    }

    /// The document that a pipe runs by, with what commands have laid over it; passwords that are written out are hidden.
    pub fn file(&self, name: &str) -> Option<Value> {
        files::merged(&self.store(name)?.records())
    }

    pub(super) fn read(&self, text: &str) -> Result<PipeFile, Vec<Problem>> {
        config::read_sent(text, &self.options.folders, &config::environment)
    }

    /// Goes on with drops of pipes that requests had made, where former processes have not ended them. The next pipe of its
    /// name goes on with any other.
    pub(super) async fn go_on_dropping(&self) -> Result<()> {
        let kept: Vec<(String, Entry<Left>)> = self.state.list(leftovers::KEPT).await?;
        for (key, entry) in kept {
            let left = entry.value;
            let Some(document) = &left.document else {
                continue;
            };
            let destination = match self.read(&document.to_string()) {
                Ok(file) => left.destination_of(&file.config, &self.options.folders),
                Err(problems) => {
                    let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
                    Err(Error::new(ErrorKind::Config, texts.join("; ")))
                }
            };
            match destination {
                Ok(destination) => {
                    let (state, shutdown) = (Arc::clone(&self.state), self.shutdown.clone());
                    let mut tasks = self.tasks.lock().await;
                    tasks.spawn(leftovers::go_on(left, destination, state, shutdown));
                }
                Err(error) => {
                    tracing::error!(key, "what a dropped pipe has left stays: {}", error.chain())
                }
            }
        }
        Ok(())
    }
}

async fn in_time<T>(asked: impl Future<Output = Result<T>>) -> Result<T> {
    let late = || {
        let message = format!(
            "the servers have not answered within {} s",
            SERVERS_TIME.as_secs()
        );
        Error::new(ErrorKind::SourceUnavailable, message)
    };
    match tokio::time::timeout(SERVERS_TIME, asked).await {
        Ok(result) => result,
        Err(_) => Err(late()),
    }
}
