//! Folders of pipe files, watched while their pipes run: a new file starts a pipe, a changed one is applied or refused,
//! one that is gone pauses its pipes.
//!
//! A file is looked at once it is the same version from one look to the next, so that one which an editor is still
//! writing is left alone, and gone when two looks miss it. A changed pipe is stopped at a checkpoint and started anew,
//! the way a restart of the process would do it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::command::Command;
use super::document::{Reason, ReasonKind};
use super::files::{self, Origin};
use super::lifecycle::{PipeEvent, PipeState};
use super::supervisor::Request;
use super::{Handle, Opening, Runtime, established};
use crate::config::{self, PipeFile, Problem, Secrets, Stamp, stamp};
use crate::error::{Error, ErrorKind, Result};

/// How soon a change is seen: twice this.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// When a file is tried again that could not be taken up for something outside of it.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// What stands in the status of a pipe whose file is not there.
const GONE: &str = "its pipe file is gone";

/// What is watched.
#[derive(Debug, Default)]
struct Watch {
    folders: Vec<PathBuf>,
    files: BTreeMap<PathBuf, Watched>,
    /// Pipes whose files are gone and that were not to be paused yet.
    waiting: BTreeSet<String>,
    /// What stands in the status of pipes for what is wrong with their files.
    said: Said,
    /// Folders that cannot be read, which the log has told of.
    unread: BTreeSet<PathBuf>,
}

type Said = BTreeMap<String, Reason>;

/// A file as last seen.
#[derive(Debug, Default)]
struct Watched {
    seen: Stamp,
    taken_up: Stamp,
    pipes: BTreeSet<String>,
    /// Whether the last look missed it: one that is written anew by way of another name may be away for a moment.
    missed: bool,
    again: Option<Instant>,
    /// Why it is of no use, where no pipe's status can say so.
    useless: Option<String>,
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
                self.take_up_file(&path, &mut file, watch, &mut gone).await;
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
            if !self.file_gone(&pipe, true, &mut watch.said).await {
                waiting.insert(pipe);
            }
        }
        for pipe in gone {
            if !self.file_gone(&pipe, false, &mut watch.said).await {
                waiting.insert(pipe);
            }
        }
    }

    /// `watch` has the other files. One that is refused is tried again by and by: a secret, a server or another pipe may have
    /// stood against it.
    async fn take_up_file(
        &self,
        path: &Path,
        file: &mut Watched,
        watch: &mut Watch,
        gone: &mut BTreeSet<String>,
    ) {
        let paths = [path.to_owned()];
        let again = Some(Instant::now() + TRY_AGAIN);
        match config::load_files(&paths, &config::environment, Secrets::Resolve) {
            Ok(pipes) => {
                let former = std::mem::take(&mut file.pipes);
                let told = std::mem::take(&mut file.doubled);
                for pipe in pipes {
                    let name = pipe.config.pipe.clone();
                    if let Some(other) = self.named_by_another(&name, path, &watch.files) {
                        let reason = self.refuse_double(&name, [path, &other], &told).await;
                        file.doubled.insert(name, reason);
                        file.again = again;
                        continue;
                    }
                    file.pipes.insert(name.clone());
                    match self.take_up_pipe(pipe, &mut watch.said).await {
                        Ok(()) => {}
                        Err(error) => {
                            file.again = again;
                            self.refuse_pipe(&name, &error, file, &mut watch.said).await;
                        }
                    }
                }
                if file.again.is_none() {
                    file.useless = None;
                }
                gone.extend(former.difference(&file.pipes).cloned());
                let over = told.into_iter();
                self.withdraw(over.filter(|(name, _)| !file.doubled.contains_key(name)));
            }
            Err(problems) => {
                let error = refusal(&problems);
                file.again = again;
                for name in file.pipes.clone() {
                    self.refuse_pipe(&name, &error, file, &mut watch.said).await;
                }
                if file.pipes.is_empty() {
                    file.tell(&error);
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
        let mut others_that_do = others
            .iter()
            .filter(|(_, other)| other.pipes.contains(name));
        if let Some((other, _)) = others_that_do.next() {
            return Some(other.to_owned());
        }
        let handles = self.handles();
        let known = handles.get(name)?.file.file();
        // One that the process was given by its name, which nobody watches.
        let unwatched = known != path && !others.contains_key(known) && known.exists();
        unwatched.then(|| known.to_owned())
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

    /// Starts a new pipe, or takes up the changed file of one that runs.
    async fn take_up_pipe(&self, file: PipeFile, said: &mut Said) -> Result<()> {
        let _turn = self.opening.lock().await;
        let handle = self.handles().get(&file.config.pipe).cloned();
        match &handle {
            None => self.open_beside_others(file).await,
            Some(handle) => self.change_file(handle, file, said).await,
        }
    }

    /// Says what stands against a pipe's file: in its status, else in the log.
    async fn refuse_pipe(&self, name: &str, error: &Error, file: &mut Watched, said: &mut Said) {
        let handle = self.handles().get(name).cloned();
        match handle {
            Some(handle) => say(&handle, said, files::not_taken_up(error)).await,
            None => file.tell(error),
        }
    }

    async fn open_beside_others(&self, file: PipeFile) -> Result<()> {
        self.ensure_apart(&file)?;
        self.open(file, Origin::File, Opening::Anew).await
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

    async fn change_file(&self, handle: &Handle, file: PipeFile, said: &mut Said) -> Result<()> {
        let pipe = &handle.pipe;
        let records = pipe.store.records();
        let applied = records.applied.as_deref();
        let returned = applied.is_some_and(|applied| applied.gone);
        let told = said.get(pipe.store.pipe());
        if told.is_some_and(|reason| reason.message.starts_with(GONE)) {
            unsay(handle, said);
        }
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
            match (records.state(), unchanged) {
                (PipeState::Completed, Err(error)) => {
                    say(handle, said, files::not_taken_up(&error)).await;
                }
                _ => unsay(handle, said),
            }
            self.note_file(handle, file);
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
        said.remove(pipe.store.pipe());
        let place = (Origin::File, Opening::Anew);
        self.put_in_place_of(handle, file, place).await
    }

    /// The same document may stand in another file by now.
    fn note_file(&self, handle: &Handle, file: PipeFile) {
        let mut pipes = self.pipes.write().unwrap_or_else(PoisonError::into_inner);
        let listed = pipes.get_mut(handle.pipe.store.pipe());
        if let Some(listed) = listed.filter(|listed| Arc::ptr_eq(&listed.pipe, &handle.pipe)) {
            listed.file = Arc::new(file);
        }
    }

    /// Stops a pipe at a checkpoint, and starts it anew by `file`.
    async fn put_in_place_of(
        &self,
        handle: &Handle,
        file: PipeFile,
        (origin, opening): (Origin, Opening),
    ) -> Result<()> {
        handle.pipe.shutdown.cancel();
        handle.ended.cancelled().await;
        let opened = self.open(file, origin, opening).await;
        opened.map_err(|error| {
            let hint = error.hint().unwrap_or("see the log").to_owned();
            error.with_hint(format!(
                "the pipe has stopped at its checkpoint; it starts as soon as this is mended: {hint}"
            ))
        })
    }

    /// A pipe that has ended is replaced by whoever stopped it, or here where that has failed.
    ///
    /// # Errors
    /// What it cannot be started for.
    pub(super) async fn ensure_replaced(&self, name: &str, ended: &Handle) -> Result<()> {
        let _turn = self.opening.lock().await;
        let listed = self.handle(name)?;
        if self.shutdown.is_cancelled() || !Arc::ptr_eq(&listed.pipe, &ended.pipe) {
            return Ok(());
        }
        let origin = origin_of(&listed);
        let file = PipeFile::clone(&listed.file);
        self.open(file, origin, Opening::ForCommand).await
    }

    /// Gives a pipe that is about to be started or resumed what the references of its document mean by now.
    ///
    /// # Errors
    /// `Config` where they mean nothing any more.
    pub(super) async fn renew_secrets(&self, name: &str, command: &Command) -> Result<()> {
        // One that is at work, or that refuses the command, is left alone, whatever others are waited for.
        if !is_started_by(command, &self.handle(name)?) {
            return Ok(());
        }
        let _turn = self.opening.lock().await;
        let handle = self.handle(name)?;
        if !is_started_by(command, &handle) || self.shutdown.is_cancelled() {
            return Ok(());
        }
        let origin = origin_of(&handle);
        let sent = (origin == Origin::Request).then_some(&self.options.folders);
        let again = handle.file.read_again(sent, &config::environment);
        let file = again.map_err(|problems| refusal(&problems))?;
        if file.config.has_secrets_of(&handle.file.config) && !handle.ended.is_cancelled() {
            return Ok(());
        }
        tracing::info!(
            pipe = name,
            "the references of its document mean something else now"
        );
        let place = (origin, Opening::ForCommand);
        self.put_in_place_of(&handle, file, place).await
    }

    /// Pauses a pipe whose file is gone, which resumes when the file is back, and says so. False when its state does not
    /// take that yet.
    async fn file_gone(&self, name: &str, told: bool, said: &mut Said) -> bool {
        let handle = self.handles().get(name).cloned();
        // One that a request has made since goes on without.
        let Some(handle) = handle.filter(|handle| origin_of(handle) == Origin::File) else {
            return true;
        };
        let outcome = pause_without_file(&handle).await;
        if told && outcome == Absence::Waits {
            return false;
        }
        let message = format!("{GONE}: `{}`", handle.file.file().display());
        let error = Error::new(ErrorKind::Config, message).with_hint(outcome.remedy());
        let reason = Reason::new(ReasonKind::Warning, &error);
        say(&handle, said, reason).await;
        outcome != Absence::Waits
    }
}

/// Lets stand what is wrong with a pipe's file, in place of what stood there for it.
async fn say(handle: &Handle, said: &mut Said, reason: Reason) {
    let is_same = |one: &Reason| (&one.message, &one.remedy) == (&reason.message, &reason.remedy);
    if handle.pipe.refused().iter().any(is_same) {
        return;
    }
    unsay(handle, said);
    said.insert(handle.pipe.store.pipe().to_owned(), reason.clone());
    handle.pipe.refuse(reason).await;
}

fn unsay(handle: &Handle, said: &mut Said) {
    if let Some(former) = said.remove(handle.pipe.store.pipe()) {
        handle.pipe.withdraw(&former);
    }
}

/// Whether the command makes a pipe go on that rests.
fn is_started_by(command: &Command, handle: &Handle) -> bool {
    let state = handle.pipe.store.records().state();
    let rests = matches!(state, PipeState::Paused { .. } | PipeState::Failed { .. });
    rests
        && command
            .event(&state)
            .is_some_and(|event| state.apply(event).is_ok())
}

/// Where the pipe's document comes from.
fn origin_of(handle: &Handle) -> Origin {
    let records = handle.pipe.store.records();
    let applied = records.applied.as_deref();
    applied.map_or(Origin::File, |applied| applied.origin)
}

impl Watched {
    /// Says once that it is of no use.
    fn tell(&mut self, error: &Error) {
        if self.useless.as_deref() != Some(error.message()) {
            self.useless = Some(error.message().to_owned());
            tracing::error!(hint = error.hint(), "{}", error.chain());
        }
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
