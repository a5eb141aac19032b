//! What a pipe that is dropped leaves at the destination, and what of it is cleared away.
//!
//! Targets stay as they are. A table that a load was filling beside one is nobody's any more and is dropped; its comment
//! must carry the pipe's own id. The pipe's claims in `_pipewright_checkpoints` stay: a later pipe of that name counts its
//! terms on from them, so that nothing which a process of the dropped pipe still inserts outranks its rows. The newest row
//! says that the pipe is dropped. All this comes after the pipe's records are gone: were the table of a load dropped
//! before them, a process that ends in between would go on with that load in an empty one.
//!
//! What is to be cleared away takes the records' place in the same write, and stays there until it is. After a process that
//! ended in between, or while ClickHouse was away, the next pipe of that name clears it away when it connects; for a pipe
//! that a request had made, whose document is kept with it, the next process does.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::connections::EndKeys;
use super::document::{Reason, ReasonKind};
use super::files::Origin;
use super::record::{Beside, Overlay, Records};
use super::store::PipeStore;
use super::supervisor::Pipe;
use super::swap::clear_beside;
use crate::config::{DestinationConfig, Folders, PipeConfig};
use crate::destination::clickhouse::{ClickHouse, Owner, statement_to_drop};
use crate::error::{Error, ErrorKind, Result};
use crate::state::{Entry, StateStore};

/// How long a person who drops a pipe waits for a destination that does not answer.
const CLEARING_TIME: Duration = Duration::from_secs(30);

/// The prefix of the keys of what dropped pipes have left.
pub(super) const KEPT: &str = "dropped/";

/// What is still to be cleared away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Left {
    pipe: String,
    /// The pipe's own id, which the comments of its tables carry.
    id: String,
    /// Where: elsewhere nothing of it is to be found.
    url: String,
    database: String,
    /// The tables of loads, and of loads that were given up.
    #[serde(default, alias = "beside")]
    left_beside: Vec<Beside>,
    /// The id with which the pipe has claimed its term; none when it never did, or its rows say already that it is dropped.
    claimant: Option<String>,
    /// The document of a pipe that a request had made: no file says how its destination is reached.
    pub(super) document: Option<serde_json::Value>,
    /// What commands had set of that.
    #[serde(default, skip_serializing_if = "EndKeys::is_empty")]
    destination: EndKeys,
}

impl Left {
    /// What a pipe with these records leaves; none when that is nothing.
    pub(super) fn of(
        records: &Records,
        pipe: &str,
        destination: &DestinationConfig,
    ) -> Option<Self> {
        Self::at(
            records,
            pipe,
            destination.url.clone(),
            destination.database.clone(),
        )
    }

    /// The same at a destination of which no more is known.
    pub(super) fn at(records: &Records, pipe: &str, url: String, database: String) -> Option<Self> {
        let record = records.pipe.as_ref()?;
        let tables = records.tables.values();
        let left_beside: Vec<Beside> = tables.flat_map(|table| table.beside()).collect();
        let claimant = (record.term > 0).then(|| record.owner.clone());
        let sent = |origin| origin == Origin::Request;
        let applied = records.applied.as_deref();
        (!left_beside.is_empty() || claimant.is_some()).then(|| Self {
            pipe: pipe.to_owned(),
            id: record.id.clone(),
            url,
            database,
            left_beside,
            claimant,
            document: applied
                .filter(|applied| sent(applied.origin))
                .map(|applied| applied.document.clone()),
            destination: record.overlay.destination.clone(),
        })
    }

    /// Where the state keeps it. A pipe's id is its own, so those of several pipes of one name do not meet.
    pub(super) fn key(&self) -> String {
        format!("{KEPT}{}/{}", self.pipe, self.id)
    }

    /// The destination that the pipe had by its document, and by what commands had set.
    ///
    /// # Errors
    /// `Config` where the two do not fit together.
    pub(super) fn destination_of(
        &self,
        config: &PipeConfig,
        folders: &Folders,
    ) -> Result<DestinationConfig> {
        let overlay = Overlay {
            destination: self.destination.clone(),
            ..Overlay::default()
        };
        Ok(overlay.over(config, folders)?.destination)
    }

    fn is_at(&self, destination: &DestinationConfig) -> bool {
        (self.url.as_str(), &self.database) == (destination.url.as_str(), &destination.database)
    }

    async fn clear(&mut self, destination: &ClickHouse) -> Result<()> {
        let owner = Owner::new(&self.pipe, self.id.clone());
        while let Some(beside) = self.left_beside.last() {
            clear_beside(destination, beside, &owner).await?;
            self.left_beside.pop();
        }
        if let Some(claimant) = &self.claimant {
            destination.mark_dropped(&self.pipe, claimant).await?;
            self.claimant = None;
        }
        Ok(())
    }

    /// The same from the beginning, within a time, and forgets it then.
    async fn clear_away(
        &mut self,
        config: &DestinationConfig,
        state: &Arc<StateStore>,
    ) -> Result<()> {
        let cleared = async {
            let destination = ClickHouse::connect(config).await?;
            self.clear(&destination).await
        };
        let cleared = tokio::time::timeout(CLEARING_TIME, cleared).await;
        cleared.unwrap_or_else(|_| {
            let seconds = CLEARING_TIME.as_secs();
            Err(Error::new(
                ErrorKind::DestinationUnavailable,
                format!("ClickHouse has not answered within {seconds} s"),
            ))
        })?;
        state.remove(&self.key()).await
    }

    /// What is left, and who clears it away.
    fn told(&self, error: &Error) -> Reason {
        let again = match &self.document {
            Some(_) => "the next start of the process tries again",
            None => "the next pipe of that name tries again",
        };
        let names: Vec<&str> = self.left_beside.iter().map(|b| b.name.as_str()).collect();
        // What may have been live before is not a person's to drop unseen.
        let fresh = self.left_beside.iter().filter(|b| b.history.is_none());
        let statements = fresh.map(|beside| {
            let statement = statement_to_drop(&self.database, &beside.name);
            format!("{statement};")
        });
        let statements: Vec<String> = statements.collect();
        let by_hand = match statements.is_empty() {
            true => String::new(),
            false => format!("; by hand: {}", statements.join(" ")),
        };
        let (what, remedy) = match names.is_empty() {
            true => (
                "its rows in `_pipewright_checkpoints` do not say so".to_owned(),
                format!(
                    "nothing needs to be done: a pipe of that name can be made all the same, and {again}"
                ),
            ),
            false => (
                format!(
                    "tables of its unfinished loads are left: {}",
                    names.join(", ")
                ),
                format!("{again}{by_hand}"),
            ),
        };
        let message = format!("the pipe is dropped, and {what}");
        // Underneath, as the chain tells it.
        let cause = error.chain();
        let error = Error::new(error.kind(), message)
            .with_hint(remedy)
            .with_source(cause);
        Reason::new(ReasonKind::Warning, &error)
    }
}

/// Clears away what a pipe has left that was just dropped; a reason when something stays.
pub(super) async fn clear_away(pipe: &Pipe) -> Option<Reason> {
    let left = Left::clone(pipe.store.records().left.as_deref()?);
    let config = pipe.effective_config();
    let config = config.unwrap_or_else(|_| Arc::clone(&pipe.config));
    clear(left, Ok(config.destination.clone()), pipe.store.state()).await
}

/// The same, where it may be that nobody can tell how the destination is reached.
pub(super) async fn clear(
    mut left: Left,
    destination: Result<DestinationConfig>,
    state: &Arc<StateStore>,
) -> Option<Reason> {
    let cleared = match destination {
        Ok(destination) => left.clear_away(&destination, state).await,
        Err(error) => Err(error),
    };
    cleared.err().map(|error| left.told(&error))
}

/// Clears away what pipes of that name have left at this destination.
///
/// # Errors
/// When ClickHouse or the state store fails.
pub(super) async fn clear_former(
    destination: &ClickHouse,
    config: &DestinationConfig,
    store: &PipeStore,
) -> Result<()> {
    let prefix = format!("{KEPT}{}/", store.pipe());
    let kept: Vec<(String, Entry<Left>)> = store.state().list(&prefix).await?;
    for (key, entry) in kept {
        let mut left = entry.value;
        if left.is_at(config) {
            left.clear(destination).await?;
            store.state().remove(&key).await?;
        }
    }
    Ok(())
}

/// Goes on with a drop that a former process has not ended, until it is done or the process ends.
pub(super) async fn go_on(
    mut left: Left,
    config: DestinationConfig,
    state: Arc<StateStore>,
    shutdown: CancellationToken,
) {
    while let Err(error) = left.clear_away(&config, &state).await {
        let reason = left.told(&error);
        tracing::warn!(pipe = left.pipe, hint = reason.remedy, "{}", reason.message);
        tokio::select! {
            () = tokio::time::sleep(CLEARING_TIME) => {}
            () = shutdown.cancelled() => return,
        }
    }
}
