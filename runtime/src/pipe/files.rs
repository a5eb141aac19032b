//! What a pipe was told by its file, and what becomes of a file that says something else.
//!
//! The document as last applied stands in the state. Against it a changed file is compared key by key: what the two say
//! alike is left alone, a table that is new is taken in and one that is gone taken out as the commands do it, one that
//! could not be taken in and is written otherwise now counts as new, other settings hold from the next run on. Where a
//! command has changed the same key, the command's value stays, and the pipe's status names the key. The applied document
//! gets a new table only when that has been taken in or refused, so a crash in between repeats the attempt.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::command::{self, Command};
use super::document::{Drift, Reason, ReasonKind};
use super::established;
use super::exclude;
use super::journal::{EventKind, Level, Note};
use super::lifecycle::{PipeEvent, PipeState};
use super::record::{Overlay, Records, TableRecord};
use super::store::PipeStore;
use super::supervisor::{Pipe, Request};
use super::table_state::TableState;
use super::tables;
use crate::batch::TableName;
use crate::config::{self, Difference, PipeConfig, PipeFile, source_of};
use crate::error::{Error, ErrorKind, Result, Retry};
use crate::fault;

/// How long to wait before a server that did not answer is asked again for a table that the file added.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// What a pipe was last told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// By whom.
    pub origin: Origin,
    /// The document as it was written; of a file, without passwords that are written out.
    pub document: Value,
    /// Whether the pipe was paused because its file is gone, and nobody has given it another word since.
    #[serde(default)]
    pub gone: bool,
}

impl Applied {
    fn new(origin: Origin, document: &Value) -> Self {
        let document = match origin {
            Origin::File => config::shown(document),
            Origin::Request => document.clone(),
        };
        Self {
            origin,
            document,
            gone: false,
        }
    }
}

/// Where a pipe's document comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A pipe file, which is read at each start.
    File,
    /// A request; only the state holds it.
    Request,
}

/// Tables that a changed file has added, to be taken in while the pipe runs.
#[derive(Debug)]
pub(super) struct Additions {
    entries: Vec<Value>,
    whole: Applied,
}

/// Ensures that a changed file can be taken up with what commands have set, before anything is stopped for it.
///
/// # Errors
/// `Config` where overlay and document do not fit together.
pub(super) fn ensure_fits(pipe: &Pipe, file: &PipeFile) -> Result<()> {
    let records = pipe.store.records();
    let whole = Applied::new(Origin::File, &file.document);
    let differences = differences(records.applied.as_deref(), &whole);
    let change = FileChange::weighed(pipe.store.record().overlay, &records, &differences);
    let laid_over = change.overlay.over(&file.config, &pipe.folders);
    laid_over.map(drop).map_err(without_fit)
}

/// The same error, which says what stands against the file.
fn without_fit(error: Error) -> Error {
    let hint = format!(
        "what commands have set does not fit the file as it is now ({}); put the file's former text back, set those values anew, and `pipewright export` shows how the pipe runs",
        error.hint().unwrap_or("see the keys")
    );
    error.with_hint(hint)
}

/// Compares what the pipe was last told with `document`, and takes up what needs no server. The pipe must not be
/// running yet; its configuration is the document's already.
///
/// # Errors
/// When the store fails, or overlay and document do not fit together at all.
pub(super) async fn take_up(
    pipe: &Pipe,
    document: &Value,
    origin: Origin,
) -> Result<Option<Additions>> {
    let records = pipe.store.records();
    let whole = Applied::new(origin, document);
    let before = records.applied.as_deref();
    if before.is_some_and(|applied| applied.gone) {
        resume(&pipe.store).await?;
    }
    forget_agreed(pipe).await?;
    let differences = differences(before, &whole);
    // Before Setup is done nothing has been made of what the former document said.
    let set_up = pipe.store.record().checkpoint.is_some();
    if differences.is_empty() || !set_up {
        remember(pipe, whole).await?;
        return Ok(None);
    }
    let change = FileChange::weighed(pipe.store.record().overlay, &records, &differences);
    let config = pipe.laid_over(&change.overlay).map_err(without_fit)?;
    let unnamed = no_longer_named(&config, &records);
    let keys: Vec<&str> = differences
        .iter()
        .map(|difference| difference.key.as_str())
        .collect();
    let text = format!("the changed pipe file is taken up: {}", keys.join(", "));
    pipe.store
        .note(Note::new(Level::Info, EventKind::File, text))
        .await?;
    for conflict in change.conflicts {
        pipe.refuse(conflict).await;
    }
    let (overlay, entries) = (change.overlay, change.added);
    // So that a table which leaves the file may come back with other settings.
    let established = match established::ensure_unchanged(&pipe.config, &pipe.store) {
        Ok(()) => Some(established::fingerprint(&pipe.config)?),
        Err(_) => None,
    };
    let partly = Arc::new(Applied {
        document: without_entries(&whole.document, &entries),
        ..whole.clone()
    });
    pipe.store
        .commit(|draft| {
            let record = draft.pipe_mut();
            record.overlay = overlay;
            record.established = established.or(record.established.take());
            draft.applied = Some(partly);
            unnamed
                .iter()
                .try_for_each(|name| command::take_out(draft, name))?;
            exclude::mark(draft, &config);
            Ok(())
        })
        .await?;
    fault::point("file:1");
    Ok((!entries.is_empty()).then_some(Additions { entries, whole }))
}

/// Lets a pipe go on that was paused for want of its file. The file may be back before the pause has come to its end, and
/// while a change of tables is prepared, which is given up and leaves the pipe Paused.
async fn resume(store: &PipeStore) -> Result<()> {
    let changing = |state: &PipeState| matches!(state, PipeState::Modifying { paused: true, .. });
    let paused =
        |state: &PipeState| matches!(state, PipeState::Pausing { .. } | PipeState::Paused { .. });
    let keep = |_: &mut Records| Ok(());
    store
        .transition_where(changing, Some(PipeEvent::Modified), keep)
        .await?;
    if store
        .transition_where(paused, Some(PipeEvent::Resume), keep)
        .await?
    {
        let to = store.records().state();
        tracing::info!(pipe = store.pipe(), %to, "the pipe file is back");
    }
    Ok(())
}

/// What `whole` says otherwise than what was applied.
fn differences(before: Option<&Applied>, whole: &Applied) -> Vec<Difference> {
    let shown = |applied: &Applied| config::shown(&applied.document);
    before.map_or_else(Vec::new, |before| {
        config::compare(&shown(before), &shown(whole))
    })
}

/// Forgets what commands have set of the two ends where the file says the same by now. Passwords are among it, and a written
/// one is not remembered, so the documents cannot be compared.
async fn forget_agreed(pipe: &Pipe) -> Result<()> {
    let overlay = pipe.store.record().overlay;
    if overlay.source.is_empty() && overlay.destination.is_empty() {
        return Ok(());
    }
    // What cannot be read any more stops the pipe when it connects, with the reason.
    let Ok(running) = pipe.laid_over(&overlay) else {
        return Ok(());
    };
    let file = &pipe.config;
    if running.source != file.source || running.destination != file.destination {
        return Ok(());
    }
    pipe.store
        .commit(|draft| {
            let overlay = &mut draft.pipe_mut().overlay;
            (overlay.source, overlay.destination) = Default::default();
            Ok(())
        })
        .await
}

/// Says whether it is for the file's absence that the pipe is paused.
pub(super) fn set_gone(draft: &mut Records, gone: bool) {
    if let Some(applied) = draft
        .applied
        .as_mut()
        .filter(|applied| applied.gone != gone)
    {
        Arc::make_mut(applied).gone = gone;
    }
}

async fn remember(pipe: &Pipe, applied: Applied) -> Result<()> {
    pipe.store
        .commit(|draft| {
            draft.applied = Some(Arc::new(applied));
            Ok(())
        })
        .await
}

fn without_entries(document: &Value, entries: &[Value]) -> Value {
    let mut document = document.clone();
    if let Some(tables) = document.get_mut("tables").and_then(Value::as_array_mut) {
        tables.retain(|entry| !entries.contains(entry));
    }
    document
}

/// Tables in service that no entry means any more.
fn no_longer_named(config: &PipeConfig, records: &Records) -> Vec<TableName> {
    let named = |name: &TableName| config.tables.iter().any(|entry| entry.source.matches(name));
    records
        .tables
        .iter()
        .filter(|(name, table)| table.state != TableState::Removed && !named(name))
        .map(|(name, _)| name.clone())
        .collect()
}

/// The difference between two documents, weighed against what commands have changed.
struct FileChange<'a> {
    overlay: Overlay,
    records: &'a Records,
    added: Vec<Value>,
    conflicts: Vec<Reason>,
}

impl<'a> FileChange<'a> {
    fn weighed(overlay: Overlay, records: &'a Records, differences: &[Difference]) -> Self {
        let mut change = Self {
            overlay,
            records,
            added: Vec::new(),
            conflicts: Vec::new(),
        };
        for difference in differences {
            change.weigh(difference);
        }
        change
    }

    fn weigh(&mut self, difference: &Difference) {
        let key = difference.key.as_str();
        match key.split_once('.') {
            _ if key.starts_with("tables[") => self.weigh_table(difference),
            None if key == "exclude" => {
                let set = self.overlay.exclude.clone().map(Value::Array);
                if self.weigh_set(difference, set, "pipewright set PIPE exclude=LIST") {
                    self.overlay.exclude = None;
                }
            }
            Some(("sync", name)) => {
                let set = self.overlay.sync.get(name).cloned();
                if self.weigh_set(difference, set, "pipewright set PIPE KEY=VALUE") {
                    self.overlay.sync.remove(name);
                }
            }
            Some(("snapshot", name)) => {
                let set = self.overlay.snapshot.get(name).cloned();
                if self.weigh_set(
                    difference,
                    set,
                    "pipewright resync PIPE --snapshot KEY=VALUE",
                ) {
                    self.overlay.snapshot.remove(name);
                }
            }
            Some(("source", name)) => {
                let set = self.overlay.source.get(name).cloned();
                self.weigh_set(difference, set, "pipewright set PIPE KEY=VALUE");
            }
            Some(("destination", name)) => {
                let set = self.overlay.destination.get(name).cloned();
                self.weigh_set(difference, set, "pipewright set PIPE KEY=VALUE");
            }
            // Whatever may not change was refused before the document got here.
            _ => {}
        }
    }

    /// Whether a command's value for this key is now the file's own, and no longer needed.
    fn weigh_set(&mut self, difference: &Difference, set: Option<Value>, verb: &str) -> bool {
        let agreed = set.is_some() && set == difference.after;
        if let (Some(set), false) = (set, agreed) {
            let shown = |value: &Value| config::shown_at(&difference.key, value);
            let after = difference.after.as_ref().map(shown);
            let file = after.map_or("nothing".to_owned(), |after| after.to_string());
            let set = shown(&set);
            let text =
                format!("the file now says {file}, and {set}, which a command has set, stays");
            self.conflict(
                &difference.key,
                &text,
                &format!("set the file's value too, with `{verb}`, or write {set} into the file"),
            );
        }
        agreed
    }

    fn weigh_table(&mut self, difference: &Difference) {
        let entry = difference.after.as_ref().or(difference.before.as_ref());
        let source = entry.map(source_of).unwrap_or_default();
        let laid_over = |entry: &Value| source_of(entry) == source;
        if let Some(at) = self.overlay.tables.iter().position(laid_over) {
            if self.overlay.tables.get(at) == difference.after.as_ref() {
                self.overlay.tables.remove(at);
            } else {
                let text =
                    "the file says otherwise now, and the entry that a command has added stays";
                let remedy = "write the command's entry into the file (`pipewright export PIPE` shows it), or remove the \
                              table with `pipewright tables remove` and add it again";
                self.conflict(&difference.key, text, remedy);
            }
            return;
        }
        let removed = |(name, table): (&TableName, &Arc<TableRecord>)| {
            name.to_string() == source && table.state == TableState::Removed
        };
        match (&difference.before, &difference.after) {
            (None, Some(entry)) => self.added.push(entry.clone()),
            // What could not be taken in as it was is tried anew as it is now.
            (Some(_), Some(entry)) if !self.is_met(entry) => self.added.push(entry.clone()),
            (Some(_), Some(_)) if self.records.tables.iter().any(removed) => {
                let text =
                    "the file changes an entry whose table a command has taken out; it stays out";
                let remedy = "take the entry out of the file, or add the table again with `pipewright tables add`";
                self.conflict(&difference.key, text, remedy);
            }
            _ => {}
        }
    }

    /// Whether the pipe has had a table that the entry means.
    fn is_met(&self, entry: &Value) -> bool {
        let meant = config::pattern_of(entry);
        self.records.tables.keys().any(|name| meant.matches(name))
    }

    fn conflict(&mut self, key: &str, text: &str, remedy: &str) {
        let error = Error::new(ErrorKind::Config, format!("`{key}`: {text}")).with_hint(remedy);
        self.conflicts
            .push(Reason::new(ReasonKind::Warning, &error));
    }
}

impl Additions {
    /// Asks for the tables as soon as the pipe takes such a command, until they are taken in or refused. Of a pipe that is
    /// Completed it stands meanwhile that it takes none.
    pub(super) async fn carry_out(self, pipe: Arc<Pipe>, commands: mpsc::Sender<Request>) {
        let mut records = pipe.store.subscribe();
        let mut standing: Option<Reason> = None;
        loop {
            let takes =
                |state: &PipeState| state.is_at_work() || matches!(state, PipeState::Paused { .. });
            let is_over = |state: &PipeState| *state == PipeState::Completed;
            let told = standing.is_some();
            let state = tokio::select! {
                ready = records.wait_for(|records| {
                    let state = records.state();
                    records.dropped || takes(&state) || (is_over(&state) && !told)
                }) => match ready {
                    Ok(records) if !records.dropped => records.state(),
                    Ok(_) | Err(_) => return,
                },
                () = pipe.shutdown.cancelled() => return,
            };
            if is_over(&state) {
                standing = Some(pipe.refuse_file(&self.over()).await);
                continue;
            }
            if let Some(reason) = standing.take() {
                pipe.withdraw(&reason);
            }
            let command = Command::TakeIn {
                entries: self.entries.clone(),
            };
            let (answer, answered) = oneshot::channel();
            if commands.send(Request { command, answer }).await.is_err() {
                return;
            }
            let Ok(answer) = answered.await else {
                return;
            };
            let again = |kind: ErrorKind| {
                kind.retry() == Retry::Backoff
                    || matches!(kind, ErrorKind::IllegalCommand | ErrorKind::Stopped)
            };
            match answer {
                Err(error) if again(error.kind()) => {
                    tokio::select! {
                        () = tokio::time::sleep(ASK_AGAIN) => continue,
                        () = pipe.shutdown.cancelled() => return,
                    }
                }
                Err(error) => pipe.refuse(Reason::new(ReasonKind::Warning, &error)).await,
                Ok(()) => {}
            }
            fault::point("file:2");
            if let Err(error) = remember(&pipe, self.whole).await {
                tracing::error!(pipe = pipe.store.pipe(), "{}", error.chain());
            }
            return;
        }
    }
}

impl Additions {
    fn over(&self) -> Error {
        let names: Vec<String> = self.entries.iter().map(source_of).collect();
        Error::new(
            ErrorKind::IllegalCommand,
            format!(
                "the pipe is Completed, and loads no more: {}",
                names.join(", ")
            ),
        )
        .with_hint("resync the pipe, which takes them in: pipewright resync PIPE")
    }
}

impl Pipe {
    /// What of the changed file was not taken up.
    pub(super) fn refused(&self) -> Vec<Reason> {
        self.refused
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Lets a reason stand beside the state, and in the history.
    pub(super) async fn refuse(&self, reason: Reason) {
        tracing::warn!(
            pipe = self.store.pipe(),
            hint = reason.remedy,
            "{}",
            reason.message
        );
        let note = Note::of_file(&reason);
        self.stand(reason);
        self.note(note).await;
    }

    /// Lets it stand that the changed file is not taken up; returns the reason.
    pub(super) async fn refuse_file(&self, error: &Error) -> Reason {
        let reason = not_taken_up(error);
        self.refuse(reason.clone()).await;
        reason
    }

    /// A reason that has gone stands no longer.
    pub(super) fn withdraw(&self, reason: &Reason) {
        let mut refused = self.refused.write().unwrap_or_else(PoisonError::into_inner);
        refused.retain(|standing| standing.message != reason.message);
    }

    /// Lets a reason stand beside the state, once.
    pub(super) fn stand(&self, reason: Reason) {
        self.withdraw(&reason);
        self.refused
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(reason);
    }
}

/// That a changed file is not taken up.
pub(super) fn not_taken_up(error: &Error) -> Reason {
    let message = format!("the changed pipe file is not taken up: {}", error.message());
    let hint = error.hint();
    let hint = hint.unwrap_or("correct the file; the pipe goes on as it was");
    let refused = Error::new(error.kind(), message).with_hint(hint);
    Reason::new(ReasonKind::Warning, &refused)
}

/// The applied document with what commands have laid over it, as it may be shown; none for a pipe that has none yet.
pub(super) fn merged(records: &Records) -> Option<Value> {
    laid_over(records).map(|document| config::shown(&document))
}

/// The same with the passwords that commands have set.
fn laid_over(records: &Records) -> Option<Value> {
    let applied = records.applied.as_deref()?;
    let overlay = serde_json::to_value(&records.pipe.as_ref()?.overlay).ok()?;
    let removed = records.names_where(TableRecord::is_taken_out);
    Some(config::merged(&applied.document, &overlay, &removed))
}

/// Where the pipe does not run as its document says.
pub(super) fn drift(pipe: &Pipe, records: &Records) -> Vec<Drift> {
    let untouched = records
        .pipe
        .as_ref()
        .is_none_or(|record| record.overlay.is_empty())
        && !records.tables.values().any(|table| table.is_taken_out());
    let mut drift: Vec<Drift> = match (&records.applied, laid_over(records)) {
        (Some(applied), Some(running)) if !untouched => {
            config::compare(&applied.document, &running)
                .into_iter()
                .map(|difference| {
                    let shown =
                        |value: Option<Value>| Some(config::shown_at(&difference.key, &value?));
                    Drift {
                        file: shown(difference.before),
                        running: shown(difference.after),
                        key: difference.key,
                    }
                })
                .collect()
        }
        _ => Vec::new(),
    };
    // Its configuration is no longer what the targets were made with.
    let fixed = established::changed(&pipe.config, &pipe.store).unwrap_or_default();
    drift.extend(fixed.into_iter().map(|found| Drift {
        key: found.key,
        file: found.after,
        running: found.before,
    }));
    if records.checkpoint().is_some() {
        drift.extend(tables::unmet(&pipe.config, records).map(|entry| Drift {
            key: format!("tables[{}]", entry.source),
            file: Some(entry.source.to_string().into()),
            running: None,
        }));
    }
    drift
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
