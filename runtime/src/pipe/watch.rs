//! Folders of pipe files, watched while their pipes run: a new file starts a pipe, a changed one is applied or refused,
//! one that is gone pauses its pipes.
//!
//! A file is looked at once it is the same version from one look to the next, so that one which an editor is still
//! writing is left alone, and gone when two looks miss it. A changed pipe is stopped at a checkpoint and started anew,
//! the way a restart of the process would do it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::command::Command;
use super::document::{Reason, ReasonKind};
use super::files::{self, Origin};
use super::lifecycle::{PipeEvent, PipeState};
use super::supervisor::Request;
use super::{Handle, Runtime, established};
use crate::config::{self, PipeFile, Problem, Secrets, Stamp, stamp};
use crate::error::{Error, ErrorKind, Result};

/// How soon a change is seen: twice this.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// When a file is tried again that could not be taken up for something outside of it.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// What is watched.
#[derive(Debug, Default)]
struct Watch {
    folders: Vec<PathBuf>,
    files: BTreeMap<PathBuf, Watched>,
    /// Pipes whose files are gone and that were not to be paused yet.
    waiting: BTreeSet<String>,
    /// Folders that cannot be read, which the log has told of.
    unread: BTreeSet<PathBuf>,
}

/// A file as last seen.
#[derive(Debug, Default)]
struct Watched {
    seen: Stamp,
    taken_up: Stamp,
    pipes: BTreeSet<String>,
    /// Whether the last look missed it: one that is written anew by way of another name may be away for a moment.
    missed: bool,
    again: Option<Instant>,
    /// Pipes that another file names as well, with what stands in their status for it.
    doubled: BTreeMap<String, Reason>,
}

impl Runtime {
    /// Watches `folders` until the process shuts down.
    pub async fn watch(&self, folders: Vec<PathBuf>) {
        let mut watch = Watch {
            folders,
            ..Watch::default()
        };
        for handle in self.handles().values() {
            let file = handle.file.file();
            if watch.folders.iter().any(|it| file.parent() == Some(it)) {
                let entry = watch.files.entry(file.to_owned()).or_default();
                // As it was read: what has changed since then is a change.
                (entry.seen, entry.taken_up) = (handle.file.stamp(), handle.file.stamp());
                entry.pipes.insert(handle.file.config.pipe.clone());
            }
        }
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = self.shutdown.cancelled() => return,
            }
            self.look(&mut watch).await;
        }
    }

    async fn look(&self, watch: &mut Watch) {
        let present = watch.present();
        let mut gone: BTreeSet<String> = BTreeSet::new();
        for (path, mut file) in std::mem::take(&mut watch.files) {
            let missed = !present.contains(&path);
            if missed && file.missed {
                gone.append(&mut file.pipes);
                self.withdraw(file.doubled);
                continue;
            }
            file.missed = missed;
            watch.files.insert(path, file);
        }
        for path in present {
            let mut file = watch.files.remove(&path).unwrap_or_default();
            let now = stamp(&path);
            let settled = now.is_some() && file.seen == now;
            file.seen = now;
            let due = file.again.is_some_and(|again| again <= Instant::now());
            if settled && (file.taken_up != now || due) {
                (file.taken_up, file.again) = (now, None);
                self.take_up_file(&path, &mut file, &watch.files, &mut gone)
                    .await;
            }
            watch.files.insert(path, file);
        }
        let waiting = &mut watch.waiting;
        // A pipe that has moved to another file is not gone.
        for file in watch.files.values() {
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

    /// `others` are the other files that are watched.
    async fn take_up_file(
        &self,
        path: &Path,
        file: &mut Watched,
        others: &BTreeMap<PathBuf, Watched>,
        gone: &mut BTreeSet<String>,
    ) {
        let paths = [path.to_owned()];
        match config::load_files(&paths, &config::environment, Secrets::Resolve) {
            Ok(pipes) => {
                let former = std::mem::take(&mut file.pipes);
                let told = std::mem::take(&mut file.doubled);
                for pipe in pipes {
                    let name = pipe.config.pipe.clone();
                    if let Some(other) = self.named_by_another(&name, path, others) {
                        let reason = self.refuse_double(&name, [path, &other], &told).await;
                        file.doubled.insert(name, reason);
                        file.again = Some(Instant::now() + TRY_AGAIN);
                        continue;
                    }
                    file.pipes.insert(name);
                    if !self.take_up_pipe(pipe).await {
                        file.again = Some(Instant::now() + TRY_AGAIN);
                    }
                }
                gone.extend(former.difference(&file.pipes).cloned());
                let over = told.into_iter();
                self.withdraw(over.filter(|(name, _)| !file.doubled.contains_key(name)));
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

    /// The other file that names the pipe, and still does.
    fn named_by_another(
        &self,
        name: &str,
        path: &Path,
        others: &BTreeMap<PathBuf, Watched>,
    ) -> Option<PathBuf> {
        let handles = self.handles();
        let known = handles.get(name)?.file.file();
        let names = match others.get(known) {
            Some(other) => other.pipes.contains(name),
            // One that the process was given by its name, which nobody watches.
            None => known != path && known.exists(),
        };
        names.then(|| known.to_owned())
    }

    /// Says once that two files name a pipe, which goes on by the first; returns what stands in its status for that.
    async fn refuse_double(
        &self,
        name: &str,
        [path, other]: [&Path; 2],
        told: &BTreeMap<String, Reason>,
    ) -> Reason {
        let message = format!(
            "two files name pipe `{name}`: `{}`, which it goes on by, and `{}`",
            other.display(),
            path.display()
        );
        let error = Error::new(ErrorKind::Config, message)
            .with_hint("take the pipe out of one of them, or move that file out of the folder");
        let reason = Reason::new(ReasonKind::Warning, &error);
        let handle = self.handles().get(name).cloned();
        match handle {
            Some(handle) if told.contains_key(name) => handle.pipe.stand(reason.clone()),
            Some(handle) => handle.pipe.refuse(reason.clone()).await,
            None => {}
        }
        reason
    }

    fn withdraw(&self, reasons: impl IntoIterator<Item = (String, Reason)>) {
        let handles = self.handles();
        for (name, reason) in reasons {
            if let Some(handle) = handles.get(&name) {
                handle.pipe.withdraw(&reason);
            }
        }
    }

    /// Starts a new pipe, or takes up the changed file of one that runs. False where it was stopped for its file and could
    /// not be started again.
    async fn take_up_pipe(&self, file: PipeFile) -> bool {
        let _turn = self.opening.lock().await;
        let name = file.config.pipe.clone();
        let handle = self.handles().get(&name).cloned();
        let result = match &handle {
            None => self.open_beside_others(file).await,
            Some(handle) => self.change_file(handle, file).await,
        };
        let Err(error) = result else {
            return true;
        };
        let Some(handle) = handle else {
            tracing::error!(pipe = name, hint = error.hint(), "{}", error.chain());
            return true;
        };
        self.refuse_file(&name, &error).await;
        !handle.ended.is_cancelled()
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
        // A secret that a reference leads to may have been rotated under the same text.
        let same = handle.file.document == file.document
            && file.config.has_secrets_of(&handle.file.config);
        if same && !returned && by_file && !handle.ended.is_cancelled() {
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
        files::ensure_fits(pipe, &file)?;
        self.put_in_place_of(handle, file, Origin::File).await
    }

    /// Stops a pipe at a checkpoint, and starts it anew by `file`.
    async fn put_in_place_of(&self, handle: &Handle, file: PipeFile, origin: Origin) -> Result<()> {
        handle.pipe.shutdown.cancel();
        handle.ended.cancelled().await;
        let opened = self.open(file, origin).await;
        opened.map_err(|error| {
            let hint = error.hint().unwrap_or("see the log").to_owned();
            error.with_hint(format!(
                "the pipe has stopped at its checkpoint; it starts as soon as this is mended: {hint}"
            ))
        })
    }

    /// Gives a pipe that is about to be started or resumed what the references of its document mean by now.
    ///
    /// # Errors
    /// `Config` where they mean nothing any more.
    pub(super) async fn renew_secrets(&self, name: &str) -> Result<()> {
        let _turn = self.opening.lock().await;
        let handle = self.handle(name)?;
        let records = handle.pipe.store.records();
        let rests = matches!(
            records.state(),
            PipeState::Paused { .. } | PipeState::Failed { .. }
        );
        if !rests || self.shutdown.is_cancelled() {
            return Ok(());
        }
        let origin = records.applied.as_ref().map(|applied| applied.origin);
        let sent = match origin {
            Some(Origin::Request) => Some(&self.options.folders),
            _ => None,
        };
        let again = handle.file.read_again(sent, &config::environment);
        let file = again.map_err(|problems| refusal(&problems))?;
        if file.config.has_secrets_of(&handle.file.config) && !handle.ended.is_cancelled() {
            return Ok(());
        }
        tracing::info!(
            pipe = name,
            "the references of its document mean something else now"
        );
        self.put_in_place_of(&handle, file, origin.unwrap_or(Origin::File))
            .await
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

impl Watch {
    /// The files that are there. A folder that cannot be read has not lost its files; one that is gone has.
    fn present(&mut self) -> BTreeSet<PathBuf> {
        let mut present = BTreeSet::new();
        for folder in &self.folders {
            match config::pipe_files(folder) {
                Ok(files) => {
                    self.unread.remove(folder);
                    present.extend(files);
                }
                Err(error) => {
                    if self.unread.insert(folder.clone()) {
                        let folder = folder.display();
                        tracing::warn!("the folder `{folder}` cannot be read: {error}");
                    }
                    if error.kind() != io::ErrorKind::NotFound {
                        let known = self
                            .files
                            .keys()
                            .filter(|file| file.parent() == Some(folder));
                        present.extend(known.cloned());
                    }
                }
            }
        }
        present
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
