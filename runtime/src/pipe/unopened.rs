//! Pipes that requests have made and that cannot be opened: a secret is not there, or another pipe has their place.
//!
//! Such a pipe keeps its records and its name, says what stands against it, and is tried again until it opens. Until then
//! a drop is all that it takes.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::document::PipeDocument;
use super::files::{Applied, Origin};
use super::keys::APPLIED;
use super::leftovers::{self, Left};
use super::lifecycle::Failure;
use super::replace::refusal;
use super::store::PipeStore;
use super::{Opening, Runtime, files, status};
use crate::config;
use crate::error::{Error, ErrorKind, Result};
use crate::state::Entry;

/// How soon what has been mended is seen.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct Unopened {
    /// Its document, as it was sent.
    pub(super) document: Value,
    /// What stands against it.
    pub(super) failure: Failure,
    /// Its records; none where they cannot be read.
    pub(super) store: Option<Arc<PipeStore>>,
}

pub(super) type AllUnopened = BTreeMap<String, Unopened>;

impl Runtime {
    pub(super) fn unopened(&self) -> RwLockReadGuard<'_, AllUnopened> {
        let unopened = self.unopened.read();
        unopened.unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn unopened_mut(&self) -> RwLockWriteGuard<'_, AllUnopened> {
        let unopened = self.unopened.write();
        unopened.unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the pipes that requests have made in former processes.
    pub(super) async fn open_requested(&self) -> Result<()> {
        let kept: Vec<(String, Entry<Applied>)> = self.state.list(APPLIED).await?;
        for (key, entry) in kept {
            let name = key.strip_prefix(APPLIED).unwrap_or(&key);
            if self.pipe(name).is_some() {
                continue;
            }
            if entry.value.origin == Origin::File {
                let hint = "start the process with its file, so that it goes on before the source purges what it has \
                            not read, or so that it can be dropped";
                tracing::warn!(
                    pipe = name,
                    hint,
                    "the state folder holds a pipe that no file names: it does not run"
                );
                continue;
            }
            let document = entry.value.document;
            if let Err(error) = self.open_sent(&document).await {
                let unopened = Unopened {
                    document,
                    failure: told(name, &error),
                    store: PipeStore::open(Arc::clone(&self.state), name).await.ok(),
                };
                self.unopened_mut().insert(name.to_owned(), unopened);
            }
        }
        Ok(())
    }

    async fn open_sent(&self, document: &Value) -> Result<()> {
        let read = self.read(&document.to_string());
        let file = read.map_err(|problems| refusal(&problems))?;
        self.open_beside_others(file, Origin::Request, Opening::Anew)
            .await
    }

    /// Tries again to open the pipes that could not be, until the process shuts down.
    pub async fn open_as_mended(&self) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(TRY_AGAIN) => {}
                () = self.shutdown.cancelled() => return,
            }
            let names: Vec<String> = self.unopened().keys().cloned().collect();
            for name in names {
                self.try_again(&name).await;
            }
        }
    }

    async fn try_again(&self, name: &str) {
        let _turn = self.turns.of(name).await;
        // It may have been dropped, or a file may name it by now.
        let Some(unopened) = self.unopened().get(name).cloned() else {
            return;
        };
        match self.open_sent(&unopened.document).await {
            Ok(()) => tracing::info!(pipe = name, "what stood against the pipe is mended"),
            Err(error) if error.chain() == unopened.failure.message => {}
            Err(error) => {
                let failure = told(name, &error);
                if let Some(unopened) = self.unopened_mut().get_mut(name) {
                    unopened.failure = failure;
                }
            }
        }
    }

    /// Forgets such a pipe; none where it has been opened or dropped meanwhile.
    ///
    /// # Errors
    /// When its records cannot be read or written.
    pub(super) async fn drop_unopened(&self, name: &str) -> Result<Option<PipeDocument>> {
        // Nobody's turn is waited for because of another pipe.
        if !self.unopened().contains_key(name) {
            return Ok(None);
        }
        let _turn = self.turns.of(name).await;
        let Some(unopened) = self.unopened().get(name).cloned() else {
            return Ok(None);
        };
        let mut document = PipeDocument {
            reasons: Vec::new(),
            ..unopened.shown(name)
        };
        let store = PipeStore::open(Arc::clone(&self.state), name).await?;
        let records = store.records();
        let running = files::merged(&records).unwrap_or_else(|| unopened.document.clone());
        let end = |key: &str| {
            let text = running["destination"][key].as_str();
            text.unwrap_or_default().to_owned()
        };
        let (url, database) = (end("url").trim_end_matches('/').to_owned(), end("database"));
        store
            .commit(|draft| {
                draft.dropped = true;
                draft.left = Left::at(draft, name, url, database).map(Arc::new);
                Ok(())
            })
            .await?;
        tracing::info!(pipe = name, "dropped, though it could not be opened");
        self.unopened_mut().remove(name);
        self.dropped
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_owned(), Instant::now());
        if let Some(left) = store.records().left.as_deref() {
            let read = self.read(&unopened.document.to_string());
            let destination = read
                .map_err(|problems| refusal(&problems))
                .and_then(|file| left.destination_of(&file.config, &self.options.folders));
            let left = Left::clone(left);
            let stays = leftovers::clear(left, destination, &self.state).await;
            document.reasons.extend(stays);
        }
        Ok(Some(document))
    }
}

impl Unopened {
    /// As it is shown.
    pub(super) fn shown(&self, name: &str) -> PipeDocument {
        let mode = self.document.get("mode").cloned();
        let mode = mode.and_then(|mode| serde_json::from_value(mode).ok());
        let records = self.store.as_ref().map(|store| store.records());
        let mode = mode.unwrap_or(config::Mode::Cdc);
        status::of_unopened(name, mode, &records.unwrap_or_default(), &self.failure)
    }

    /// Why nothing can be asked of it but a drop.
    pub(super) fn refusal(&self, name: &str) -> Error {
        let message = format!(
            "pipe `{name}` exists, and cannot be started: {}",
            self.failure.message
        );
        let mend = self.failure.remedy.as_deref();
        let hint = format!(
            "mend that, and it starts within seconds, or drop it with DELETE; to mend it: {}",
            mend.unwrap_or("see the log")
        );
        Error::new(ErrorKind::IllegalCommand, message).with_hint(hint)
    }
}

/// Says in the log what stands against the pipe.
fn told(name: &str, error: &Error) -> Failure {
    tracing::error!(
        pipe = name,
        hint = error.hint(),
        "the pipe is not started: {}",
        error.chain()
    );
    Failure::from(error)
}
