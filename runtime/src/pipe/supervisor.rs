//! One pipe's life: runs what its state asks for, retries what is transient, and takes commands at any moment.
//!
//! A command that only changes the lifecycle is persisted at once. One that changes tables or settings is checked while
//! the pipe works on, waits until the work has stopped at a checkpoint, and is then recorded in one write.

use std::collections::VecDeque;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Opening;
use super::command::{Change, Command};
use super::document::{Reason, ReasonKind};
use super::journal::{COMMAND_BYTES_MAX, EventKind, Level, Note, shortened};
use super::lifecycle::{Failure, PipeEvent, PipeState};
use super::obstacles::Obstacles;
use super::operate::operate;
use super::plugin_files::PluginFiles;
use super::progress::{Alarm, Progress};
use super::record::{Records, random_server_id};
use super::session::Session;
use super::store::PipeStore;
use super::table_state::TableState;
use super::{command, established, go_on, leftovers, objectives, quarantine, setup, swap};
use crate::config::{Folders, PipeConfig};
use crate::error::{Error, ErrorKind, Result, Retry, Scope};
use crate::transform::Engine;

/// The first wait after a transient error; doubled each time.
const BACKOFF_FIRST: Duration = Duration::from_millis(200);

/// The longest wait: a server that is back is noticed within it.
const BACKOFF_LONGEST: Duration = Duration::from_secs(5);

/// How long a pipe that is dropped may take to finish what is in flight: an end that does not answer is not waited for.
const DRAINED_WITHIN: Duration = Duration::from_secs(10);

/// What the checks of a command may take: thousands of tables take minutes.
const CHECKED_WITHIN: Duration = Duration::from_secs(15 * 60);

/// How long a pipe tries again before that counts as trouble that somebody should know of.
const RETRYING_IS_TROUBLE: Duration = Duration::from_secs(60);

/// A command with the place for its answer.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) command: Command,
    pub(super) answer: oneshot::Sender<Result<()>>,
}

/// What every part of one pipe shares.
#[derive(Debug)]
pub(super) struct Pipe {
    /// The pipe file; what commands have laid over it is in the records.
    pub(super) config: Arc<PipeConfig>,
    pub(super) store: Arc<PipeStore>,
    pub(super) engine: Arc<Engine>,
    pub(super) plugins: PluginFiles,
    pub(super) progress: Progress,
    /// What of its changed file was not taken up. It stands beside the state, and degrades nothing.
    pub(super) refused: RwLock<Vec<Reason>>,
    /// Where the paths of what was sent may lead.
    pub(super) folders: Folders,
    pub(super) shutdown: CancellationToken,
    /// Where the pipe's own tasks leave what they want of the supervisor.
    pub(super) wishes: mpsc::WeakSender<Request>,
}

/// The one task that moves a pipe through its states.
pub(super) struct Supervisor {
    pub(super) pipe: Arc<Pipe>,
    pub(super) commands: mpsc::Receiver<Request>,
    /// Those that came while another was being checked.
    pub(super) waiting: VecDeque<Request>,
    /// Checked, and waiting for the work to stop.
    pub(super) pending: Option<(Change, oneshot::Sender<Result<()>>)>,
    /// What the history tells of since the pipe last worked: two servers that are both away take turns.
    pub(super) told: Vec<ErrorKind>,
    /// What stands against a Completed pipe whose file has other fixed settings by now, until a resync takes them up.
    pub(super) unfit: Option<Reason>,
}

impl Supervisor {
    /// Runs until the process shuts down or the pipe is dropped.
    pub(super) async fn run(mut self) {
        let mut delay = BACKOFF_FIRST;
        while !self.pipe.shutdown.is_cancelled() && !self.pipe.store.records().dropped {
            if let Some((change, answer)) = self.pending.take() {
                let done = self.carry_out(change).await;
                // Who asked may have gone.
                answer.send(done).ok();
                continue;
            }
            let result = match self.pipe.store.records().state() {
                PipeState::Provisioning | PipeState::Setup => self.start_up().await,
                PipeState::Snapshot | PipeState::Running | PipeState::Degraded => {
                    self.operate(&mut delay).await
                }
                PipeState::Resync => self.swap().await,
                PipeState::Pausing { .. } => {
                    let pausing = |state: &PipeState| matches!(state, PipeState::Pausing { .. });
                    let drained = self
                        .pipe
                        .transition_where(pausing, PipeEvent::Drained)
                        .await;
                    // Nothing is tried any more, and nobody measures how far behind it is.
                    self.pipe.progress.set_reasons(Vec::new());
                    self.pipe.progress.set_alarm(Alarm::Lag, None);
                    drained
                }
                // The process ended before the change was recorded.
                PipeState::Modifying { .. } => self.pipe.transition(PipeEvent::Modified).await,
                PipeState::Paused { .. } => {
                    let pipe = Arc::clone(&self.pipe);
                    self.drive(async move { objectives::watch_paused(&pipe).await }, None)
                        .await
                }
                PipeState::Completed | PipeState::Failed { .. } => {
                    self.pipe.progress.clear_alarms();
                    self.pipe.progress.set_reasons(Vec::new());
                    self.drive(std::future::pending(), None).await
                }
            };
            let result = match result {
                Err(error) => Err(self.with_another_id(error).await),
                Ok(()) => Ok(()),
            };
            match result {
                Ok(()) => self.told.clear(),
                Err(error) if error.kind() == ErrorKind::Stopped => {}
                Err(error) if error.kind().retry() == Retry::Backoff => {
                    self.wait_to_retry(&error, &mut delay).await
                }
                Err(error) => self.stop_what_it_concerns(&error, &mut delay).await,
            }
        }
    }

    async fn carry_out(&mut self, change: Change) -> Result<()> {
        let done = change.carry_out(&self.pipe).await;
        if self.pipe.store.records().dropped {
            let left = leftovers::clear_away(&self.pipe).await;
            left.into_iter().for_each(|reason| self.pipe.stand(reason));
            return done;
        }
        self.settle().await;
        let pipe = &self.pipe;
        if let Some(reason) = self
            .unfit
            .take_if(|_| established::ensure_unchanged(&pipe.config, &pipe.store).is_ok())
        {
            pipe.withdraw(&reason);
        }
        if let Err(error) = &done {
            let text = "the change was refused";
            self.pipe
                .note(Note::over(Level::Warning, EventKind::Command, text, error))
                .await;
        }
        done
    }

    /// Makes the records of a new pipe. A pipe that failed before is started again, since whoever started the process has
    /// had the chance to mend it, unless it is opened for a command alone; a paused one stays paused.
    ///
    /// # Errors
    /// When the state store fails.
    pub(super) async fn begin(&mut self, opening: Opening) -> Result<()> {
        let pipe = &self.pipe;
        pipe.store
            .begin(
                pipe.config
                    .source
                    .server_id
                    .map_or_else(random_server_id, |id| id.get()),
            )
            .await?;
        if opening == Opening::Anew {
            go_on::with_all(pipe).await?;
            if let PipeState::Failed { .. } = pipe.store.records().state() {
                pipe.transition(PipeEvent::Start).await?;
            }
        }
        if let Err(error) = established::ensure_unchanged(&pipe.config, &pipe.store) {
            match pipe.store.records().state() {
                // It has nothing left to do that the settings would change.
                PipeState::Completed => self.unfit = Some(pipe.refuse_file(&error).await),
                _ => self.fail(&error).await,
            }
        }
        Ok(())
    }

    async fn start_up(&mut self) -> Result<()> {
        let pipe = Arc::clone(&self.pipe);
        let work = async move {
            // Also of one that failed and is started again as it is.
            established::ensure_unchanged(&pipe.config, &pipe.store)?;
            let config = pipe.effective_config()?;
            let connected =
                Session::connect_or_tell(Arc::clone(&config), &pipe.engine, &pipe.plugins);
            let session = connected.await.map_err(Obstacles::into_error)?;
            if pipe.store.records().state() == PipeState::Provisioning {
                pipe.transition(PipeEvent::Provisioned).await?;
            }
            // Before Setup refuses what else stands in its way.
            leftovers::clear_former(&session.destination, &config.destination, &pipe.store).await?;
            setup::set_up(&session, &pipe.store).await?;
            pipe.progress.set_reasons(Vec::new());
            tracing::info!(pipe = pipe.store.pipe(), state = %pipe.store.records().state(), "the pipe is set up");
            Ok(())
        };
        self.drive(work, None).await
    }

    async fn operate(&mut self, delay: &mut Duration) -> Result<()> {
        let stop = self.pipe.shutdown.child_token();
        // A command that takes its time to be checked holds up nobody who is connecting: the source ends a login that does not
        // go on within seconds, and what it says then is no answer to what comes next.
        let mut tasks = JoinSet::new();
        tasks.spawn(operate(Arc::clone(&self.pipe), stop.clone()));
        let work = async {
            match tasks.join_next().await {
                Some(Ok(ended)) => ended,
                Some(Err(error)) => {
                    let panicked = Error::new(ErrorKind::Internal, "the pipe's run panicked");
                    Err(panicked.with_source(error))
                }
                None => Ok(()),
            }
        };
        let began = tokio::time::Instant::now();
        let result = self.drive(work, Some(&stop)).await;
        // One that is not waited for any more writes nothing from here on.
        tasks.shutdown().await;
        self.pipe.progress.set_following(false);
        if began.elapsed() > BACKOFF_LONGEST && !self.pipe.progress.pulse.is_stuck() {
            *delay = BACKOFF_FIRST;
            self.told.clear();
        }
        result
    }

    async fn swap(&mut self) -> Result<()> {
        let stop = self.pipe.shutdown.child_token();
        let (pipe, until) = (Arc::clone(&self.pipe), stop.clone());
        let work = async move { swap::swap(&pipe, &until).await };
        self.drive(work, Some(&stop)).await
    }

    /// Runs `work` while taking commands. With `stop`, work ends by itself when a command or the shutdown cancels it, unless
    /// the pipe is dropped and it takes its time; without, it is dropped.
    async fn drive(
        &mut self,
        work: impl Future<Output = Result<()>>,
        stop: Option<&CancellationToken>,
    ) -> Result<()> {
        let mut work = std::pin::pin!(work);
        let shutdown = self.pipe.shutdown.clone();
        let mut is_dropped = false;
        loop {
            // A change that waits goes before the next command.
            let free = self.pending.is_none();
            tokio::select! {
                biased;
                result = &mut work => return result,
                Some(request) = self.next_request(), if free => {
                    let before = self.pipe.store.records().state();
                    let drops = request.command == Command::Drop;
                    self.on_command(request).await;
                    let after = self.pipe.store.records().state();
                    let same = after == before || after.is_same_work(&before);
                    if same && self.pending.is_none() {
                        continue;
                    }
                    match stop {
                        Some(stop) => stop.cancel(),
                        None => return Ok(()),
                    }
                    is_dropped = drops && self.pending.is_some();
                }
                // It is then as it would be had the process ended here.
                () = tokio::time::sleep(DRAINED_WITHIN), if is_dropped => return Ok(()),
                () = shutdown.cancelled(), if stop.is_none() => return Ok(()),
            }
        }
    }

    async fn next_request(&mut self) -> Option<Request> {
        match self.waiting.pop_front() {
            Some(request) => Some(request),
            None => self.commands.recv().await,
        }
    }

    async fn on_command(&mut self, request: Request) {
        let Request { command, answer } = request;
        let asked = shortened(command.to_string(), COMMAND_BYTES_MAX);
        // The pipe tells of its own wish by itself: it may come every ten seconds.
        let is_own = command == Command::FollowNewTables;
        if !is_own {
            self.pipe
                .note(Note::new(Level::Info, EventKind::Command, asked.clone()))
                .await;
        }
        // Whoever asked sends it again to the pipe that comes in the place of this one, if any does.
        let Some(checked) = self.checked(command).await else {
            return;
        };
        match checked {
            Ok(Some(change)) => self.pending = Some((change, answer)),
            Ok(None) => drop(answer.send(Ok(()))),
            Err(error) => {
                if !is_own {
                    let refused = format!("{asked} was refused");
                    let note = Note::over(Level::Warning, EventKind::Command, &refused, &error);
                    self.pipe.note(note).await;
                }
                answer.send(Err(error)).ok();
            }
        }
    }

    /// Checks a command at both ends, which may take its time, or never answer: a drop does not wait for it, and the pipe's
    /// own wish, which comes again, gives way to any other. None where the pipe's task ends meanwhile.
    async fn checked(&mut self, command: Command) -> Option<Result<Option<Change>>> {
        let (pipe, shutdown) = (Arc::clone(&self.pipe), self.pipe.shutdown.clone());
        let gives_way = command == Command::FollowNewTables;
        let given_up = {
            let mut prepared = std::pin::pin!(command::prepare(&pipe, command));
            let mut until = std::pin::pin!(tokio::time::sleep(CHECKED_WITHIN));
            loop {
                tokio::select! {
                    biased;
                    prepared = &mut prepared => return Some(prepared),
                    () = shutdown.cancelled() => break None,
                    Some(next) = self.commands.recv() => {
                        if next.command == Command::Drop {
                            self.waiting.push_front(next);
                            break Some("the pipe is dropped");
                        }
                        self.waiting.push_back(next);
                        if gives_way {
                            break Some("another command goes before");
                        }
                    }
                    () = &mut until => break Some("an end of the pipe has not answered for a long time"),
                }
            }
        };
        // Waits for what was being written as it was given up.
        let is_modifying = |state: &PipeState| matches!(state, PipeState::Modifying { .. });
        let left = pipe.transition_where(is_modifying, PipeEvent::Modified);
        let left = left.await;
        let message = format!(
            "the command is given up as it was being checked: {}",
            given_up?
        );
        let error = Error::new(ErrorKind::Stopped, message);
        Some(left.and(Err(error.with_hint("send it again when that is over"))))
    }

    /// Chooses another number where a replica of the source has the pipe's, and the pipe file leaves the choice: then the
    /// error is one to be tried again.
    async fn with_another_id(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::SourceIdTaken || self.pipe.config.source.server_id.is_some() {
            return error;
        }
        let chosen = self.pipe.store.commit(|draft| {
            draft.pipe_mut().server_id = random_server_id();
            Ok(())
        });
        match chosen.await {
            Ok(()) => Error::new(
                ErrorKind::SourceUnavailable,
                "another replica of the source has the number that was chosen for this pipe; another is chosen",
            )
            .with_hint("nothing needs to be done; `source.server_id` gives the pipe a number of your own")
            .with_source(error),
            Err(unwritten) => unwritten,
        }
    }

    async fn wait_to_retry(&mut self, error: &Error, delay: &mut Duration) {
        tracing::warn!(
            pipe = self.pipe.store.pipe(),
            retry_in_ms = delay.as_millis() as u64,
            "{}",
            error.chain()
        );
        let reason = self.pipe.progress.retrying(error);
        if !self.told.contains(&reason.code) {
            self.told.push(reason.code);
            self.pipe.note(Note::standing(&reason)).await;
        }
        self.settle().await;
        // Jitter keeps pipes that lost one server from returning all at once.
        let jittered = delay.mul_f64(rand::random_range(0.75..1.25));
        self.drive(
            async {
                tokio::time::sleep(jittered).await;
                Ok(())
            },
            None,
        )
        .await
        .ok();
        *delay = (*delay * 2).min(BACKOFF_LONGEST);
    }

    /// A definite error takes the table that it names out of service, or else stops the pipe.
    async fn stop_what_it_concerns(&mut self, error: &Error, delay: &mut Duration) {
        let records = self.pipe.store.records();
        let table = error
            .table()
            .filter(|_| error.kind().scope() == Scope::Table)
            .filter(|_| records.state().has_a_run())
            .filter(|name| records.tables.contains_key(*name));
        let Some(name) = table else {
            return self.fail(error).await;
        };
        // What is left to be put away of one that has left the pipe keeps no other from going on for ever.
        let table = records.tables.get(name);
        if table.is_some_and(|table| table.state == TableState::Removed) {
            return self.wait_to_retry(error, delay).await;
        }
        match quarantine::quarantine(&self.pipe, name, error).await {
            Ok(true) => self.settle().await,
            Ok(false) => self.fail(&quarantine::nothing_left(error)).await,
            // The disk of the state takes no writes; the table's error is met again when it does.
            Err(unwritten) if unwritten.kind().retry() == Retry::Backoff => {
                self.wait_to_retry(&unwritten, delay).await
            }
            Err(unwritten) => self.fail(&unwritten).await,
        }
    }

    async fn settle(&self) {
        if let Err(error) = self.pipe.settle().await {
            tracing::error!(pipe = self.pipe.store.pipe(), "{}", error.chain());
        }
    }

    pub(super) async fn fail(&mut self, error: &Error) {
        tracing::error!(
            pipe = self.pipe.store.pipe(),
            code = error.kind().code(),
            hint = error.hint(),
            "{}",
            error.chain()
        );
        self.pipe.progress.set_reasons(Vec::new());
        self.pipe.progress.clear_alarms();
        self.pipe.progress.outside.set(&[]);
        if let Err(unwritten) = self
            .pipe
            .transition(PipeEvent::Fail(Failure::from(error)))
            .await
        {
            tracing::error!(
                pipe = self.pipe.store.pipe(),
                "the failure cannot be recorded: {}",
                unwritten.chain()
            );
            self.pipe
                .progress
                .set_reasons(vec![Reason::new(ReasonKind::Failing, error)]);
            tokio::select! {
                () = tokio::time::sleep(BACKOFF_LONGEST) => {}
                () = self.pipe.shutdown.cancelled() => {}
            }
        }
    }
}

impl Pipe {
    /// Puts a note into the history, which is worth less than what it tells of: a disk that does not take it stops nothing.
    pub(super) async fn note(&self, note: Note) {
        if let Err(error) = self.store.note(note).await {
            tracing::warn!(pipe = self.store.pipe(), "{}", error.chain());
        }
    }

    /// Applies a lifecycle event and says so in the log.
    ///
    /// # Errors
    /// As [`PipeStore::transition`].
    pub(super) async fn transition(&self, event: PipeEvent) -> Result<()> {
        self.transition_with(event, |_| {}).await
    }

    /// The same with an edit of the records, in one write.
    ///
    /// # Errors
    /// As [`PipeStore::transition`].
    pub(super) async fn transition_with(
        &self,
        event: PipeEvent,
        edit: impl FnOnce(&mut Records),
    ) -> Result<()> {
        let before = self.store.records().state();
        let edit = |draft: &mut Records| {
            edit(draft);
            Ok(())
        };
        let after = self.store.transition_with(event, edit).await?;
        if before != after {
            tracing::info!(pipe = self.store.pipe(), from = %before, to = %after, "state");
        }
        Ok(())
    }

    /// The same, but only where the state still is as wanted.
    ///
    /// # Errors
    /// As [`PipeStore::transition`].
    pub(super) async fn transition_where(
        &self,
        wanted: impl Fn(&PipeState) -> bool,
        event: PipeEvent,
    ) -> Result<()> {
        let name = event.name();
        if self
            .store
            .transition_where(wanted, Some(event), |_| Ok(()))
            .await?
        {
            let to = self.store.records().state();
            tracing::info!(pipe = self.store.pipe(), event = name, %to, "state");
        }
        Ok(())
    }

    /// Moves between Running and Degraded as reasons come and go; what is being tried again counts after a while.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn settle(&self) -> Result<()> {
        let is_trouble = self.progress.retrying_for() > RETRYING_IS_TROUBLE;
        let counts = |reason: &Reason| reason.kind != ReasonKind::Retrying || is_trouble;
        if !super::status::standing(self).iter().any(counts) {
            self.transition_where(|state| *state == PipeState::Degraded, PipeEvent::Recover)
                .await
        } else {
            self.transition_where(|state| *state == PipeState::Running, PipeEvent::Degrade)
                .await
        }
    }
}
