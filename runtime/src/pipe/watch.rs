//! Folders of pipe files, watched while their pipes run: a new file starts a pipe, a changed one is applied or refused,
//! one that is gone pauses its pipes.
//!
//! A file is looked at once it is the same version from one look to the next, so that one which an editor is still
//! writing is left alone, and gone when two looks miss it. A changed pipe is stopped at a checkpoint and started anew,
//! the way a restart of the process would do it. That may take as long as its destination does: it is a task of its own,
//! whose outcome a later look collects, and until then its file waits while all others are looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::absence::{self, Absence};
use super::document::{Reason, ReasonKind};
use super::files::{self, Origin};
use super::lifecycle::PipeState;
use super::replace::{origin_of, refusal};
use super::under_way::{UnderWay, Work};
use super::{Handle, Opening, Runtime, established};
use crate::config::{self, PipeFile, Secrets, Stamp, stamp};
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
    /// Pipes whose files are gone and that are yet to be paused.
    waiting: BTreeSet<String>,
    /// What stands in the status of pipes for what is wrong with their files.
    said: Arc<Said>,
    /// What is done with pipes: whether it has changed anything, or a pause come to its end.
    under_way: UnderWay<bool>,
    /// When the newest change was taken up: it may have stood against what was refused before.
    moved: Option<Instant>,
    /// Folders that cannot be read, which the log has told of.
    unread: BTreeSet<PathBuf>,
}

type Said = Mutex<BTreeMap<String, Told>>;

/// What is said of a pipe's file.
#[derive(Debug)]
struct Told {
    reason: Reason,
    /// That it is not there.
    is_gone: bool,
}

/// A file as last seen.
#[derive(Debug, Default)]
struct Watched {
    seen: Stamp,
    taken_up: Stamp,
    /// Since when that version counts; none for one that was there when the process began.
    since: Option<Instant>,
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
    pub async fn watch(self: &Arc<Self>, folders: Vec<PathBuf>) {
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
            self.collect(&mut watch).await;
            self.look(&mut watch).await;
        }
    }

    /// Takes note of what has come to its end.
    async fn collect(&self, watch: &mut Watch) {
        while let Some((work, outcome)) = watch.under_way.ended() {
            match &work.file {
                Some(path) => self.note_outcome(&work, path, outcome, watch).await,
                None if matches!(outcome, Ok(true)) => {}
                None => {
                    watch.waiting.insert(work.pipe);
                }
            }
        }
    }

    async fn note_outcome(
        &self,
        work: &Work,
        path: &Path,
        outcome: Result<bool>,
        watch: &mut Watch,
    ) {
        let now = Instant::now();
        if matches!(outcome, Ok(true)) {
            watch.moved = Some(now);
            let refused = watch.files.values_mut().filter(|it| it.again.is_some());
            refused.for_each(|file| file.again = Some(now));
        }
        let is_last = !watch.under_way.has_file(path);
        let Some(file) = watch.files.get_mut(path) else {
            return;
        };
        if let Err(error) = outcome {
            let has_moved = watch.moved.is_some_and(|moved| moved >= work.began);
            let wait = if has_moved { Duration::ZERO } else { TRY_AGAIN };
            file.again = Some(now + wait);
            self.refuse_pipe(&work.pipe, &error, file, &watch.said)
                .await;
        }
        if is_last && file.again.is_none() {
            file.useless = None;
        }
    }

    async fn look(self: &Arc<Self>, watch: &mut Watch) {
        let present = watch.present();
        let mut gone: BTreeSet<String> = BTreeSet::new();
        for (path, mut file) in std::mem::take(&mut watch.files) {
            let missed = !present.contains(&path);
            if missed && file.missed && !watch.under_way.has_file(&path) {
                gone.append(&mut file.pipes);
                self.withdraw(file.doubled);
                continue;
            }
            file.missed = missed;
            watch.files.insert(path, file);
        }
        let mut read = Vec::new();
        for path in present {
            let mut file = watch.files.remove(&path).unwrap_or_default();
            let now = stamp(&path);
            let settled = now.is_some() && file.seen == now;
            file.seen = now;
            let due = file.again.is_some_and(|again| again <= Instant::now());
            let is_free = !watch.under_way.has_file(&path);
            if settled && is_free && (file.taken_up != now || due) {
                if file.taken_up != now {
                    file.since = Some(Instant::now());
                }
                (file.taken_up, file.again) = (now, None);
                read.extend(self.read_file(&path, &mut file, watch, &mut gone).await);
            }
            watch.files.insert(path, file);
        }
        self.take_up(read, watch);
        watch.waiting.append(&mut gone);
        // A pipe that has moved to another file is not gone.
        for file in watch.files.values() {
            watch.waiting.retain(|pipe| !file.pipes.contains(pipe));
        }
        self.pause_gone(watch);
    }

    /// The pipes of a file that are to be taken up. `watch` has the other files. One that is refused is tried again by and by:
    /// a secret, a server or another pipe may have stood against it. A pipe that was dropped since comes back with another
    /// version only.
    async fn read_file(
        &self,
        path: &Path,
        file: &mut Watched,
        watch: &Watch,
        gone: &mut BTreeSet<String>,
    ) -> Vec<(PathBuf, PipeFile)> {
        let paths = [path.to_owned()];
        let again = Some(Instant::now() + TRY_AGAIN);
        let pipes = match config::load_files(&paths, &config::environment, Secrets::Resolve) {
            Ok(pipes) => pipes,
            Err(problems) => {
                let error = refusal(&problems);
                file.again = again;
                for name in file.pipes.clone() {
                    self.refuse_pipe(&name, &error, file, &watch.said).await;
                }
                if file.pipes.is_empty() {
                    file.tell(&error);
                }
                return Vec::new();
            }
        };
        let former = std::mem::take(&mut file.pipes);
        let told = std::mem::take(&mut file.doubled);
        let mut read = Vec::new();
        for pipe in pipes {
            let name = pipe.config.pipe.clone();
            if let Some(other) = self.named_by_another(&name, path, &watch.files) {
                let reason = self.refuse_double(&name, [path, &other], &told).await;
                file.doubled.insert(name, reason);
                file.again = again;
                continue;
            }
            file.pipes.insert(name.clone());
            // It is another pipe that this version of the file is tried again for.
            if self.is_dropped_since(&name, file.since) {
                continue;
            }
            read.push((path.to_owned(), pipe));
        }
        gone.extend(former.difference(&file.pipes).cloned());
        let over = told.into_iter();
        self.withdraw(over.filter(|(name, _)| !file.doubled.contains_key(name)));
        read
    }

    /// Whether a command has dropped the pipe since then, and nobody has made it anew.
    fn is_dropped_since(&self, name: &str, since: Option<Instant>) -> bool {
        let dropped = self.dropped.read().unwrap_or_else(PoisonError::into_inner);
        let at = dropped.get(name).copied();
        drop(dropped);
        let later = |at: Instant| since.is_none_or(|since| since <= at);
        at.is_some_and(later) && !self.handles().contains_key(name)
    }

    /// Begins to take up what was read, but for pipes that something is done with: their files come back at the next look.
    fn take_up(self: &Arc<Self>, read: Vec<(PathBuf, PipeFile)>, watch: &mut Watch) {
        for (path, pipe) in read {
            let name = pipe.config.pipe.clone();
            if watch.under_way.has_pipe(&name) {
                if let Some(file) = watch.files.get_mut(&path) {
                    file.again = Some(Instant::now());
                }
                continue;
            }
            let (runtime, said) = (Arc::clone(self), Arc::clone(&watch.said));
            let task = async move { runtime.take_up_pipe(pipe, &said).await };
            watch.under_way.begin(&name, Some(path), task);
        }
    }

    /// Begins to pause the pipes whose files are gone.
    fn pause_gone(self: &Arc<Self>, watch: &mut Watch) {
        for name in std::mem::take(&mut watch.waiting) {
            if watch.under_way.has_pipe(&name) {
                watch.waiting.insert(name);
                continue;
            }
            let (runtime, said) = (Arc::clone(self), Arc::clone(&watch.said));
            let pipe = name.clone();
            let task = async move { Ok(runtime.file_gone(&pipe, &said).await) };
            watch.under_way.begin(&name, None, task);
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

    /// Starts a new pipe, or takes up the changed file of one that runs. False where there was nothing to do.
    async fn take_up_pipe(&self, file: PipeFile, said: &Said) -> Result<bool> {
        let _turn = self.turns.of(&file.config.pipe).await;
        let handle = self.handles().get(&file.config.pipe).cloned();
        match &handle {
            None => {
                let opened = self.open_beside_others(file, Origin::File, Opening::Anew);
                opened.await.map(|()| true)
            }
            Some(handle) => self.change_file(handle, file, said).await,
        }
    }

    /// Says what stands against a pipe's file: in its status, else in the log.
    async fn refuse_pipe(&self, name: &str, error: &Error, file: &mut Watched, said: &Said) {
        let handle = self.handles().get(name).cloned();
        match handle {
            Some(handle) => say(&handle, said, of_text(error)).await,
            None => file.tell(error),
        }
    }

    async fn change_file(&self, handle: &Handle, file: PipeFile, said: &Said) -> Result<bool> {
        let pipe = &handle.pipe;
        let records = pipe.store.records();
        let applied = records.applied.as_deref();
        let returned = applied.is_some_and(|applied| applied.gone);
        let of_absence = |told: &Told| told.is_gone;
        if lock(said).get(pipe.store.pipe()).is_some_and(of_absence) {
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
                    say(handle, said, of_text(&error)).await;
                }
                _ => unsay(handle, said),
            }
            self.note_file(handle, file);
            return Ok(false);
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
        lock(said).remove(pipe.store.pipe());
        let place = (Origin::File, Opening::Anew);
        let put = self.put_in_place_of(handle, file, place).await;
        put.map(|()| true)
    }

    /// The same document may stand in another file by now.
    fn note_file(&self, handle: &Handle, file: PipeFile) {
        let mut pipes = self.pipes.write().unwrap_or_else(PoisonError::into_inner);
        let listed = pipes.get_mut(handle.pipe.store.pipe());
        if let Some(listed) = listed.filter(|listed| Arc::ptr_eq(&listed.pipe, &handle.pipe)) {
            listed.file = Arc::new(file);
        }
    }

    /// Pauses a pipe whose file is gone, which resumes when the file is back, and says so. False when its state does not
    /// take that yet, which is said once.
    async fn file_gone(&self, name: &str, said: &Said) -> bool {
        let handle = self.handles().get(name).cloned();
        // One that a request has made since goes on without.
        let Some(handle) = handle.filter(|handle| origin_of(handle) == Origin::File) else {
            return true;
        };
        let outcome = absence::pause(&handle).await;
        let is_told = lock(said).get(name).is_some_and(|told| told.is_gone);
        if is_told && outcome == Absence::Waits {
            return false;
        }
        let message = format!("its pipe file is gone: `{}`", handle.file.file().display());
        let error = Error::new(ErrorKind::Config, message).with_hint(outcome.remedy());
        let told = Told {
            reason: Reason::new(ReasonKind::Warning, &error),
            is_gone: true,
        };
        say(&handle, said, told).await;
        outcome != Absence::Waits
    }
}

/// Lets stand what is wrong with a pipe's file, in place of what stood there for it.
async fn say(handle: &Handle, said: &Said, told: Told) {
    let reason = told.reason.clone();
    let is_same = |one: &Reason| (&one.message, &one.remedy) == (&reason.message, &reason.remedy);
    if handle.pipe.refused().iter().any(is_same) {
        return;
    }
    unsay(handle, said);
    lock(said).insert(handle.pipe.store.pipe().to_owned(), told);
    handle.pipe.refuse(reason).await;
}

fn unsay(handle: &Handle, said: &Said) {
    if let Some(former) = lock(said).remove(handle.pipe.store.pipe()) {
        handle.pipe.withdraw(&former.reason);
    }
}

fn of_text(error: &Error) -> Told {
    Told {
        reason: files::not_taken_up(error),
        is_gone: false,
    }
}

fn lock(said: &Said) -> MutexGuard<'_, BTreeMap<String, Told>> {
    said.lock().unwrap_or_else(PoisonError::into_inner)
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
