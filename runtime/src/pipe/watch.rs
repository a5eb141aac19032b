//! Folders of pipe files, watched while their pipes run: a new file starts a pipe, a changed one is applied or refused,
//! one that is gone pauses its pipes.
//!
//! A file is looked at once it has kept its size and time from one look to the next, so that one which an editor is
//! still writing is left alone. A changed pipe is stopped at a checkpoint and started anew, the way a restart of the
//! process would do it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::oneshot;

use super::command::Command;
use super::document::{Reason, ReasonKind};
use super::files::Origin;
use super::lifecycle::{PipeEvent, PipeState};
use super::supervisor::Request;
use super::{Handle, Runtime, established};
use crate::config::{self, PipeFile, Problem, Secrets, Stamp, stamp};
use crate::error::{Error, ErrorKind, Result};

/// How soon a change is seen: twice this.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A file as last seen.
#[derive(Debug, Default)]
struct Watched {
    seen: Stamp,
    taken_up: Stamp,
    pipes: BTreeSet<String>,
}

impl Runtime {
    /// Watches `folders` until the process shuts down.
    pub async fn watch(&self, folders: Vec<PathBuf>) {
        let mut watched: BTreeMap<PathBuf, Watched> = BTreeMap::new();
        let mut waiting = BTreeSet::new();
        for handle in self.handles().values() {
            let file = handle.file.file();
            if folders.iter().any(|folder| file.parent() == Some(folder)) {
                let entry = watched.entry(file.to_owned()).or_default();
                entry.seen = stamp(file);
                entry.taken_up = entry.seen;
                entry.pipes.insert(handle.file.config.pipe.clone());
            }
        }
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = self.shutdown.cancelled() => return,
            }
            self.look(&folders, &mut watched, &mut waiting).await;
        }
    }

    /// `waiting` are pipes whose files are gone and that were not to be paused yet.
    async fn look(
        &self,
        folders: &[PathBuf],
        watched: &mut BTreeMap<PathBuf, Watched>,
        waiting: &mut BTreeSet<String>,
    ) {
        let mut present = BTreeSet::new();
        for folder in folders {
            match config::pipe_files(folder) {
                Ok(files) => present.extend(files),
                // A folder that cannot be read for a moment has not lost its files.
                Err(error) => {
                    tracing::warn!("the folder `{}` cannot be read: {error}", folder.display());
                    return;
                }
            }
        }
        let mut gone: BTreeSet<String> = BTreeSet::new();
        watched.retain(|path, file| {
            let there = present.contains(path);
            if !there {
                gone.append(&mut file.pipes);
            }
            there
        });
        for path in present {
            let file = watched.entry(path.clone()).or_default();
            let now = stamp(&path);
            let settled = now.is_some() && file.seen == now;
            file.seen = now;
            if settled && file.taken_up != now {
                file.taken_up = now;
                self.take_up_file(&path, file, &mut gone).await;
            }
        }
        // A pipe that has moved to another file is not gone.
        for file in watched.values() {
            gone.retain(|pipe| !file.pipes.contains(pipe));
            waiting.retain(|pipe| !file.pipes.contains(pipe));
        }
        for pipe in std::mem::take(waiting) {
            if !self.file_gone(&pipe, true).await {
                waiting.insert(pipe);
            }
        }
        for pipe in gone {
            if !self.file_gone(&pipe, false).await {
                waiting.insert(pipe);
            }
        }
    }

    async fn take_up_file(&self, path: &Path, file: &mut Watched, gone: &mut BTreeSet<String>) {
        let paths = [path.to_owned()];
        match config::load_files(&paths, &config::environment, Secrets::Resolve) {
            Ok(pipes) => {
                let names = pipes.iter().map(|pipe| pipe.config.pipe.clone()).collect();
                let former = std::mem::replace(&mut file.pipes, names);
                gone.extend(former.difference(&file.pipes).cloned());
                for pipe in pipes {
                    self.take_up_pipe(pipe).await;
                }
            }
            Err(problems) => {
                let error = refusal(&problems);
                for name in &file.pipes {
                    self.refuse_file(name, &error).await;
                }
                if file.pipes.is_empty() {
                    tracing::error!(hint = error.hint(), "{}", error.message());
                }
            }
        }
    }

    /// Starts a new pipe, or takes up the changed file of one that runs.
    async fn take_up_pipe(&self, file: PipeFile) {
        let name = file.config.pipe.clone();
        let handle = self.handles().get(&name).cloned();
        let result = match &handle {
            None => self.open_beside_others(file).await,
            Some(handle) => self.change_file(handle, file).await,
        };
        if let Err(error) = result {
            match handle {
                Some(_) => self.refuse_file(&name, &error).await,
                None => tracing::error!(pipe = name, hint = error.hint(), "{}", error.chain()),
            }
        }
    }

    async fn open_beside_others(&self, file: PipeFile) -> Result<()> {
        self.ensure_apart(&file)?;
        self.open(file, Origin::File).await
    }

    /// Nothing stands against running `file` beside all pipes but the one of its own name.
    pub(super) fn ensure_apart(&self, file: &PipeFile) -> Result<()> {
        let handles = self.handles();
        let others = handles.values().map(|handle| &*handle.file);
        let others = others.filter(|other| other.config.pipe != file.config.pipe);
        let problems = config::apart(others.chain([file]));
        if problems.is_empty() {
            return Ok(());
        }
        Err(refusal(&problems))
    }

    async fn change_file(&self, handle: &Handle, file: PipeFile) -> Result<()> {
        let pipe = &handle.pipe;
        pipe.accept();
        let records = pipe.store.records();
        let applied = records.applied.as_deref();
        let returned = applied.is_some_and(|applied| applied.gone);
        let by_file = applied.is_some_and(|applied| applied.origin == Origin::File);
        let rests = matches!(
            records.state(),
            PipeState::Completed | PipeState::Failed { .. }
        );
        if handle.file.document == file.document && !returned && by_file {
            let unchanged = established::ensure_unchanged(&file.config, &pipe.store);
            if let (PipeState::Completed, Err(error)) = (records.state(), unchanged) {
                pipe.refuse_file(&error).await;
            }
            return Ok(());
        }
        self.ensure_apart(&file)?;
        // What rests has nothing to lose by the file, says what stands against it, and takes it up by a resync.
        if !rests {
            established::ensure_unchanged(&file.config, &pipe.store).map_err(|error| {
                error.with_hint(
                    "put the former values back, and the pipe goes on as it was; or start the process anew with the file \
                     as it is, then resync the pipe, which loads every table beside the live one as the file says now",
                )
            })?;
        }
        pipe.shutdown.cancel();
        handle.ended.cancelled().await;
        self.open(file, Origin::File).await
    }

    async fn refuse_file(&self, name: &str, error: &Error) {
        let handle = self.handles().get(name).cloned();
        if let Some(handle) = handle {
            handle.pipe.accept();
            handle.pipe.refuse_file(error).await;
        }
    }

    /// Pauses a pipe whose file is gone, which resumes when the file is back, and says so. False when its state does not
    /// take that yet.
    async fn file_gone(&self, name: &str, told: bool) -> bool {
        let handle = self.handles().get(name).cloned();
        let Some(handle) = handle else {
            return true;
        };
        let outcome = pause_without_file(&handle).await;
        if told && outcome == Absence::Waits {
            return false;
        }
        let message = format!("its pipe file is gone: `{}`", handle.file.file().display());
        let error = Error::new(ErrorKind::Config, message).with_hint(outcome.remedy());
        handle.pipe.accept();
        handle
            .pipe
            .refuse(Reason::new(ReasonKind::Warning, &error))
            .await;
        outcome != Absence::Waits
    }
}

/// What becomes of a pipe whose file is gone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Absence {
    /// It is paused for that, and only for that.
    Pauses,
    /// It is not at work anyway: a person paused it, or it has failed or is done.
    Rests,
    /// It goes on until its state takes a pause.
    Waits,
}

impl Absence {
    fn remedy(self) -> &'static str {
        match self {
            Absence::Pauses => {
                "put the file back to resume the pipe, or drop the pipe: pipewright drop"
            }
            Absence::Rests => "put the file back, or drop the pipe: pipewright drop",
            Absence::Waits => {
                "put the file back, or the pipe is paused as soon as its state allows; or drop the pipe: pipewright drop"
            }
        }
    }
}

async fn pause_without_file(handle: &Handle) -> Absence {
    let records = handle.pipe.store.records();
    let of_file = records.applied.as_ref().is_some_and(|applied| applied.gone);
    match records.state() {
        PipeState::Pausing { .. } | PipeState::Paused { .. } if of_file => return Absence::Pauses,
        PipeState::Pausing { .. }
        | PipeState::Paused { .. }
        | PipeState::Completed
        | PipeState::Failed { .. } => return Absence::Rests,
        // Asked in vain twice a second, the history would be full of it.
        state if state.clone().apply(PipeEvent::Pause).is_err() => return Absence::Waits,
        _ => {}
    }
    let (answer, answered) = oneshot::channel();
    let command = Command::PauseWithoutFile;
    let request = Request { command, answer };
    if handle.commands.send(request).await.is_err() {
        return Absence::Rests;
    }
    if !matches!(answered.await, Ok(Ok(()))) {
        return Absence::Waits;
    }
    let records = handle.pipe.store.records();
    match &records.applied {
        Some(applied) if applied.gone => Absence::Pauses,
        _ => Absence::Rests,
    }
}

/// Problems of a file as one error.
fn refusal(problems: &[Problem]) -> Error {
    let texts: Vec<String> = problems
        .iter()
        .map(|problem| {
            let (file, line) = (problem.file.display(), problem.line);
            format!(
                "{file}:{line}: {}: found {}, expected {}",
                problem.path, problem.found, problem.expected
            )
        })
        .collect();
    let remedies: Vec<&str> = problems
        .iter()
        .map(|problem| problem.remedy.as_str())
        .collect();
    Error::new(ErrorKind::Config, texts.join("; ")).with_hint(remedies.join("; "))
}
