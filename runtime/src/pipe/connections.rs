//! Other ways to the two ends of a pipe that does not run: address, account, password, TLS.
//!
//! Both ends are asked before anything is recorded, as the next attach would ask them: whether the account may do what the
//! pipe does, whether the source holds all that was read, and whether ClickHouse holds what was written. So a change that
//! would lead elsewhere is refused while what is right still stands.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::command::Change;
use super::lifecycle::PipeState;
use super::lost;
use super::record::lay;
use super::setup;
use super::supervisor::Pipe;
use crate::config::PipeConfig;
use crate::destination::clickhouse::ClickHouse;
use crate::error::{Error, ErrorKind, Result};
use crate::source::mysql::snapshot::SnapshotSession;
use crate::source::mysql::{Source, past, preflight};

/// Keys of one end, as a command has set them. One of them may be a password: printed, it shows their names alone.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EndKeys(Map<String, Value>);

impl fmt::Debug for EndKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl From<Map<String, Value>> for EndKeys {
    fn from(keys: Map<String, Value>) -> Self {
        Self(keys)
    }
}

impl EndKeys {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Sets what `other` sets; `null` goes back to what the file says.
    fn lay(&mut self, other: EndKeys) {
        lay(&mut self.0, other.0);
    }
}

/// Prepares another way to one end or to both.
///
/// # Errors
/// `IllegalCommand` naming the state of a pipe that runs, `Config` for keys that cannot be read, or what either end refuses
/// with.
pub(super) async fn prepare(
    pipe: &Arc<Pipe>,
    source: EndKeys,
    destination: EndKeys,
) -> Result<Change> {
    ensure_at_rest(&pipe.store.records().state())?;
    let (to_source, to_destination) = (!source.is_empty(), !destination.is_empty());
    let mut overlay = pipe.store.record().overlay;
    overlay.source.lay(source);
    overlay.destination.lay(destination);
    let config = pipe.laid_over(&overlay)?;
    if to_source {
        check_source(pipe, &config).await?;
    }
    if to_destination {
        check_destination(pipe, &config).await?;
    }
    Ok(Change::new(None, move |draft| {
        ensure_at_rest(&draft.state())?;
        let laid = &mut draft.pipe_mut().overlay;
        (laid.source, laid.destination) = (overlay.source, overlay.destination);
        Ok(())
    }))
}

/// A pipe that runs holds connections that were made otherwise, and rows on their way over them.
fn ensure_at_rest(state: &PipeState) -> Result<()> {
    match state {
        PipeState::Provisioning
        | PipeState::Setup
        | PipeState::Paused { .. }
        | PipeState::Completed
        | PipeState::Failed { .. } => Ok(()),
        PipeState::Snapshot
        | PipeState::Resync
        | PipeState::Running
        | PipeState::Degraded
        | PipeState::Modifying { .. }
        | PipeState::Pausing { .. } => Err(Error::new(
            ErrorKind::IllegalCommand,
            format!("a pipe that is {state} cannot take other connections"),
        )
        .with_hint("pause the pipe first, and resume it afterwards")),
    }
}

async fn check_source(pipe: &Pipe, config: &PipeConfig) -> Result<()> {
    let past = pipe.past();
    let source = Source::connect(&config.source, past.as_ref()).await?;
    let mut conn = source.control().await?;
    preflight::pass_over_locks(&mut conn).await?;
    let mut findings = preflight::preflight(&source, &mut conn, config).await?;
    conn.disconnect().await.ok();
    // What stands against single tables is theirs, and the way to the server does not change it.
    findings.retain(|finding| {
        matches!(
            finding.kind,
            ErrorKind::SourceDenied | ErrorKind::SourceSetting
        )
    });
    setup::refuse(&findings)?;
    if let Some(past) = past {
        past::ensure_holds(&source, &past.newest).await?;
        // By file and offset the server must be the very one.
        let session = SnapshotSession::open(&source, Some(&past.newest)).await?;
        session.close().await;
    }
    Ok(())
}

async fn check_destination(pipe: &Pipe, config: &PipeConfig) -> Result<()> {
    let destination = ClickHouse::connect(&config.destination).await?;
    let record = pipe.store.record();
    setup::refuse(&destination.preflight_server(config).await?)?;
    if record.checkpoint.is_none() || record.term == 0 {
        return Ok(());
    }
    let mirror = destination.read_mirror(pipe.store.pipe()).await?;
    if mirror.is_some_and(|mirror| lost::is_held(&record, &mirror)) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::DestinationLost,
        format!(
            "ClickHouse at {} does not hold what this pipe has written",
            config.destination.url
        ),
    )
    .with_hint("give an address of the same server; to fill another one, make another pipe"))
}
