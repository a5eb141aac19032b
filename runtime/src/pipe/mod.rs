//! The lifecycle of a pipe, and the one place where source, transform, destination and state meet.
//!
//! [`Runtime`] holds the pipes of one process. Each has a supervisor task that runs what the pipe's state asks for:
//! `setup` prepares, `load` and `follow` read, `apply` writes and checkpoints, `complete` reads rows that the binlog
//! holds in part. `record` is all that is remembered, `store` the one door to it.

mod absence;
mod append;
mod apply;
mod attach;
mod beside;
mod clock;
mod command;
mod complete;
pub mod connections;
mod ddl;
#[cfg(test)]
mod diagram_tests;
mod difference;
pub mod document;
mod established;
mod exclude;
mod faults;
pub mod files;
mod flush;
mod follow;
mod gathered;
mod go_on;
mod heal;
mod incomplete;
pub mod journal;
mod keys;
mod lag;
pub mod leftovers;
mod legal;
mod letters;
pub mod lifecycle;
mod load;
mod lost;
mod mirror;
mod objectives;
mod obstacles;
mod operate;
mod outside;
mod patience;
mod pinned;
mod plan;
mod plugin_files;
pub mod prepared;
mod progress;
mod pulse;
mod quarantine;
mod reaching;
pub mod record;
mod replace;
pub mod requests;
mod resync;
mod sample;
mod session;
mod setup;
mod start_place;
mod status;
pub mod store;
mod strayed;
mod supervisor;
mod swap;
pub mod table_state;
mod tables;
mod target_findings;
mod track;
mod turns;
mod under_way;
mod unopened;
pub mod values;
mod waits;
mod watch;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::document::PipeDocument;
use self::files::Origin;
use self::journal::Journal;
use self::lifecycle::{Failure, PipeState};
use self::plugin_files::PluginFiles;
use self::progress::Progress;
use self::store::PipeStore;
use self::supervisor::{Pipe, Request, Supervisor};
use self::table_state::TableState;
use self::turns::Turns;
use self::unopened::AllUnopened;
use crate::config::{Folders, PipeFile};
use crate::error::{Error, ErrorKind, Result};
use crate::state::StateStore;
use crate::transform::Engine;

pub use command::Command;
pub use ddl::{Forecast, forecast};
pub use letters::{DeadLetter, LetterPage, LetterPlace, Letters, Replayed, Unfit};
pub use plan::{Plan, plan, validate_online};
pub use sample::{Sample, sample};

/// Commands waiting for a pipe: more than a person or script sends before the first is answered.
const COMMANDS_WAITING: usize = 16;

type Handles = BTreeMap<String, Handle>;

/// What a pipe is opened for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Opening {
    /// To run: whoever started the process or gave the file has had the chance to mend what failed.
    Anew,
    /// To take a command, which decides what becomes of it.
    ForCommand,
}

/// How a process runs its pipes.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The state folder, made when absent.
    pub state_dir: PathBuf,
    /// How long a server may be unreachable before the process gives up on its only pipe, which has never run; with `once`,
    /// on any.
    pub wait: Duration,
    /// End when every pipe is Completed or one has Failed.
    pub once: bool,
    /// Where the paths of documents that are sent may lead.
    pub folders: Folders,
}

/// Why a process that runs pipes ends by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every pipe is Completed.
    Completed,
    /// A pipe has failed, and nothing else keeps the process up.
    Failed {
        /// The pipe's name.
        pipe: String,
        /// Its reason.
        failure: Failure,
    },
    /// A server could not be reached in time by a pipe that has never run.
    Unreachable {
        /// The pipe's name.
        pipe: String,
        /// The newest reason.
        message: String,
    },
}

/// All pipes of one process.
#[derive(Debug)]
pub struct Runtime {
    pipes: Arc<RwLock<Handles>>,
    /// Those that requests have made and that cannot be opened, by name.
    unopened: RwLock<AllUnopened>,
    /// When commands have dropped pipes: the file of one of them does not bring it back by itself.
    dropped: Arc<RwLock<BTreeMap<String, Instant>>>,
    options: RunOptions,
    /// The pipes of the files that the process was started with.
    given: BTreeSet<String>,
    state: Arc<StateStore>,
    engine: Arc<Engine>,
    shutdown: CancellationToken,
    tasks: Mutex<JoinSet<()>>,
    /// Of those who make pipes, or put them in another's place.
    turns: Turns,
    /// Held while it is looked at whether a pipe has a place beside the others, until it is among them.
    opening: Mutex<()>,
}

#[derive(Clone, Debug)]
struct Handle {
    pipe: Arc<Pipe>,
    file: Arc<PipeFile>,
    commands: mpsc::Sender<Request>,
    /// Whether the pipe had left Setup before this process began.
    had_run: bool,
    /// Cancelled when the pipe's task has ended.
    ended: CancellationToken,
}

impl Runtime {
    /// Opens the state folder and starts every pipe where it was: those of the files, and those that requests have made.
    ///
    /// # Errors
    /// `Busy` when the folder belongs to another process, `State` when it cannot be used.
    pub async fn start(files: Vec<PipeFile>, options: RunOptions) -> Result<Arc<Self>> {
        let state = StateStore::open(&options.state_dir)?;
        let engine = Engine::new(Some(state.folder().join("compiled")))?;
        let runtime = Arc::new(Self {
            pipes: Arc::default(),
            unopened: RwLock::default(),
            dropped: Arc::default(),
            given: files.iter().map(|file| file.config.pipe.clone()).collect(),
            options,
            state,
            engine,
            shutdown: CancellationToken::new(),
            tasks: Mutex::default(),
            turns: Turns::default(),
            opening: Mutex::default(),
        });
        for file in files {
            runtime.open(file, Origin::File, Opening::Anew).await?;
        }
        runtime.open_requested().await?;
        runtime.go_on_dropping().await?;
        Ok(runtime)
    }

    /// Starts one pipe where it was, or anew.
    async fn open(&self, file: PipeFile, origin: Origin, opening: Opening) -> Result<()> {
        let store = PipeStore::open(Arc::clone(&self.state), &file.config.pipe).await?;
        let had_run = match store.records().state() {
            PipeState::Provisioning | PipeState::Setup => false,
            PipeState::Failed { .. } => store
                .records()
                .pipe
                .as_ref()
                .is_some_and(|pipe| pipe.term > 0),
            _ => true,
        };
        let (commands, received) = mpsc::channel(COMMANDS_WAITING);
        let pipe = Arc::new(Pipe {
            config: Arc::new(file.config.clone()),
            store,
            engine: Arc::clone(&self.engine),
            plugins: PluginFiles::default(),
            progress: Progress::default(),
            refused: RwLock::default(),
            folders: self.options.folders.clone(),
            shutdown: self.shutdown.child_token(),
            wishes: commands.downgrade(),
        });
        let mut supervisor = Supervisor {
            pipe: Arc::clone(&pipe),
            commands: received,
            waiting: VecDeque::new(),
            pending: None,
            told: Vec::new(),
            unfit: None,
        };
        supervisor.begin(opening).await?;
        let additions = match files::take_up(&pipe, &file.document, origin).await {
            // By itself: the other pipes of the process go on, and this one's status says why.
            Err(error) if error.kind() == ErrorKind::Config => {
                supervisor.fail(&error).await;
                None
            }
            taken_up => taken_up?,
        };
        let handle = Handle {
            pipe: Arc::clone(&pipe),
            file: Arc::new(file),
            commands: commands.clone(),
            had_run,
            ended: CancellationToken::new(),
        };
        let ended = handle.ended.clone().drop_guard();
        let name = handle.file.config.pipe.clone();
        self.pipes
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.clone(), handle);
        self.unopened_mut().remove(&name);
        self.supervise(supervisor, ended).await;
        if let Some(additions) = additions {
            let mut tasks = self.tasks.lock().await;
            tasks.spawn(additions.carry_out(pipe, commands));
        }
        Ok(())
    }

    /// Runs the pipe until it ends, and then drops `ended`.
    async fn supervise(&self, supervisor: Supervisor, ended: DropGuard) {
        let (pipes, dropped) = (Arc::clone(&self.pipes), Arc::clone(&self.dropped));
        let mut tasks = self.tasks.lock().await;
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let pipe = Arc::clone(&supervisor.pipe);
            supervisor.run().await;
            // Here, since who asked for the drop may be gone by now.
            if pipe.store.records().dropped {
                let mut dropped = dropped.write().unwrap_or_else(PoisonError::into_inner);
                dropped.insert(pipe.store.pipe().to_owned(), Instant::now());
                forget(&pipes, &pipe);
            }
            drop(ended);
        });
    }

    /// Every pipe's document, by name.
    pub fn pipes(&self) -> Vec<PipeDocument> {
        let (handles, unopened) = (self.handles(), self.unopened());
        let open = handles.values().map(|handle| status::of(&handle.pipe));
        let closed = unopened.iter().map(|(name, one)| one.shown(name));
        let mut all: Vec<PipeDocument> = open.chain(closed).collect();
        all.sort_by(|one, other| one.pipe.cmp(&other.pipe));
        // One that is just being opened.
        all.dedup_by(|later, first| later.pipe == first.pipe);
        all
    }

    /// One pipe's document.
    pub fn pipe(&self, name: &str) -> Option<PipeDocument> {
        if let Some(handle) = self.handles().get(name) {
            return Some(status::of(&handle.pipe));
        }
        self.unopened().get(name).map(|one| one.shown(name))
    }

    /// What has happened to a pipe.
    pub fn journal(&self, name: &str) -> Option<Arc<Journal>> {
        Some(Arc::clone(self.store(name)?.journal()))
    }

    /// What is remembered of a pipe, open or not.
    fn store(&self, name: &str) -> Option<Arc<PipeStore>> {
        if let Some(handle) = self.handles().get(name) {
            return Some(Arc::clone(&handle.pipe.store));
        }
        self.unopened().get(name)?.store.clone()
    }

    fn handles(&self) -> RwLockReadGuard<'_, Handles> {
        self.pipes.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Dead letters of a pipe.
    ///
    /// # Errors
    /// `UnknownPipe`, else whatever the destination fails with.
    pub async fn letters(&self, name: &str, which: &Letters<'_>) -> Result<LetterPage> {
        letters::list(&self.handle(name)?.pipe, which).await
    }

    /// Sends dead letters of a pipe through the present plugins.
    ///
    /// # Errors
    /// As [`Runtime::letters`], or whatever a plugin fails with.
    pub async fn replay_letters(&self, name: &str, which: Letters<'_>) -> Result<Replayed> {
        letters::replay(&self.handle(name)?.pipe, which).await
    }

    fn handle(&self, name: &str) -> Result<Handle> {
        if let Some(handle) = self.handles().get(name) {
            return Ok(handle.clone());
        }
        let unopened = self.unopened();
        Err(match unopened.get(name) {
            Some(unopened) => unopened.refusal(name),
            None => unknown_pipe(name),
        })
    }

    /// Gives a command to a pipe and waits until it is persisted. The document of a pipe that is dropped says what is left of
    /// it at the destination.
    ///
    /// # Errors
    /// `UnknownPipe`, `IllegalCommand` naming the state where the command has no place, or why the pipe is not open.
    pub async fn command(&self, name: &str, command: Command) -> Result<PipeDocument> {
        let stopped = || Error::new(ErrorKind::Stopped, "the process is shutting down");
        if matches!(command, Command::Start | Command::Resume) {
            self.renew_secrets(name, &command).await?;
        }
        if command == Command::Drop
            && let Some(document) = self.drop_unopened(name).await?
        {
            return Ok(document);
        }
        loop {
            let handle = self.handle(name)?;
            let (answer, answered) = oneshot::channel();
            let request = Request {
                command: command.clone(),
                answer,
            };
            let heard = match handle.commands.send(request).await {
                Ok(()) => answered.await.ok(),
                Err(_) => None,
            };
            if let Some(done) = heard {
                done?;
                if command == Command::Drop {
                    handle.ended.cancelled().await;
                }
                return Ok(status::of(&handle.pipe));
            }
            if self.shutdown.is_cancelled() {
                return Err(stopped());
            }
            handle.ended.cancelled().await;
            if handle.pipe.store.records().dropped {
                return match command {
                    Command::Drop => Ok(status::of(&handle.pipe)),
                    _ => Err(unknown_pipe(name)),
                };
            }
            // The command is for the pipe that comes in its place.
            self.ensure_replaced(name, &handle).await?;
        }
    }

    /// Waits until the process has a reason to end by itself: the only pipe that it was started for never ran, and has
    /// failed or found no server in time; or, with `once`, all pipes are Completed or one has Failed.
    pub async fn wait(&self) -> Outcome {
        let began = tokio::time::Instant::now();
        loop {
            if let Some(outcome) = self.outcome(began.elapsed()) {
                return outcome;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn outcome(&self, elapsed: Duration) -> Option<Outcome> {
        let mut completed = 0;
        let (pipes, unopened) = (self.handles(), self.unopened());
        if let (true, Some((pipe, one))) = (self.options.once, unopened.first_key_value()) {
            return Some(Outcome::Failed {
                pipe: pipe.clone(),
                failure: one.failure.clone(),
            });
        }
        for (name, handle) in pipes.iter() {
            let fresh = !handle.had_run
                && handle
                    .pipe
                    .store
                    .records()
                    .pipe
                    .as_ref()
                    .is_none_or(|pipe| pipe.term == 0);
            // No other pipe, present or to come, goes down with one that cannot begin.
            let ends = self.options.once
                || (pipes.len() + unopened.len() == 1 && self.given.contains(name));
            let records = handle.pipe.store.records();
            match records.state() {
                PipeState::Failed { failure } if ends && (fresh || self.options.once) => {
                    return Some(Outcome::Failed {
                        pipe: name.clone(),
                        failure,
                    });
                }
                PipeState::Provisioning | PipeState::Setup
                    if fresh && ends && elapsed > self.options.wait =>
                {
                    if let Some(reason) = handle.pipe.progress.reasons().first() {
                        return Some(Outcome::Unreachable {
                            pipe: name.clone(),
                            message: reason.message.clone(),
                        });
                    }
                }
                PipeState::Completed => {
                    let fallen_short = self.options.once.then(|| short_of_its_file(handle));
                    if let Some(failure) = fallen_short.flatten() {
                        return Some(Outcome::Failed {
                            pipe: name.clone(),
                            failure,
                        });
                    }
                    completed += 1;
                }
                _ => {}
            }
        }
        (self.options.once && completed == pipes.len()).then_some(Outcome::Completed)
    }

    /// Finishes and checkpoints what is in flight, and ends every task. Pipes keep their states for the next start.
    pub async fn drain(&self) {
        self.shutdown.cancel();
        let mut tasks = self.tasks.lock().await;
        while tasks.join_next().await.is_some() {}
        if let Err(error) = self.state.gather().await {
            tracing::warn!(hint = error.hint(), "{}", error.chain());
        }
    }
}

/// What is said of a name that no pipe has, or has no longer.
pub(crate) fn unknown_pipe(name: &str) -> Error {
    let message = format!("no pipe is named `{}`", name.escape_debug());
    Error::new(ErrorKind::UnknownPipe, message)
        .with_hint("`pipewright status`, or GET /v1/pipes, lists the pipes of this process")
}

/// Takes a pipe that is dropped off the list; another of its name stays.
fn forget(pipes: &RwLock<Handles>, dropped: &Arc<Pipe>) {
    pipes
        .write()
        .unwrap_or_else(PoisonError::into_inner)
        .retain(|_, handle| !Arc::ptr_eq(&handle.pipe, dropped));
}

/// Why a Completed pipe has not copied all that its file says: a table is out of service or may differ from the source, or the
/// file has changed since.
fn short_of_its_file(handle: &Handle) -> Option<Failure> {
    let Pipe { config, store, .. } = &*handle.pipe;
    let records = store.records();
    let inexact = || {
        let tables = records.tables.values();
        let mut carried = tables.filter(|table| table.state != TableState::Removed);
        carried.find_map(|table| table.inexact.clone())
    };
    let changed = || established::ensure_unchanged(config, store).err();
    let unmet = || {
        let source = &tables::unmet(config, &records).next()?.source;
        let message = format!("the file names `{source}`, which the pipe has not copied");
        let hint = format!(
            "resync the pipe, which takes it in: pipewright resync {}",
            store.pipe()
        );
        Some(Error::new(ErrorKind::Config, message).with_hint(hint))
    };
    let failed = || changed().or_else(unmet).map(|error| Failure::from(&error));
    let quarantined = records.quarantined().cloned();
    quarantined.or_else(inexact).or_else(failed)
}
