//! One pipe's life: runs what its state asks for, retries what is transient, and takes commands at any moment.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::attach::attach;
use super::document::{Reason, ReasonKind};
use super::follow::{FLUSHES_WAITING, Follower};
use super::lifecycle::{Failure, PipeEvent, PipeState, TableState};
use super::progress::Progress;
use super::record::PipeStore;
use super::session::Session;
use super::{Command, apply, load, setup};
use crate::config::{Mode, PipeConfig};
use crate::error::{Error, ErrorKind, Result, Retry};
use crate::source::mysql::binlog::{BinlogStream, StreamOptions, TableFilter};
use crate::transform::Engine;

/// The first wait after a transient error; doubled each time.
const BACKOFF_FIRST: Duration = Duration::from_millis(200);

/// The longest wait: a server that is back is noticed within it.
const BACKOFF_LONGEST: Duration = Duration::from_secs(5);

/// A command with the place for its answer.
pub(super) struct Request {
    pub(super) command: Command,
    pub(super) answer: oneshot::Sender<Result<()>>,
}

/// What every part of one pipe shares.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) config: Arc<PipeConfig>,
    pub(super) store: Arc<PipeStore>,
    pub(super) engine: Arc<Engine>,
    pub(super) progress: Progress,
    pub(super) shutdown: CancellationToken,
}

/// The one task that moves a pipe through its states.
pub(super) struct Supervisor {
    pub(super) pipe: Arc<Pipe>,
    pub(super) commands: mpsc::Receiver<Request>,
}

impl Supervisor {
    /// Runs until the process shuts down.
    pub(super) async fn run(mut self) {
        let mut delay = BACKOFF_FIRST;
        while !self.pipe.shutdown.is_cancelled() {
            let result = match self.pipe.store.records().state() {
                PipeState::Provisioning | PipeState::Setup => self.start_up().await,
                PipeState::Snapshot | PipeState::Running => self.operate(&mut delay).await,
                PipeState::Pausing { .. } => self.transition(PipeEvent::Drained).await,
                PipeState::Paused { .. } | PipeState::Completed | PipeState::Failed { .. } => {
                    self.drive(std::future::pending(), None).await
                }
            };
            match result {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Stopped => {}
                Err(error) if error.kind().retry() == Retry::Backoff => {
                    self.wait_to_retry(&error, &mut delay).await
                }
                Err(error) => self.fail(&error).await,
            }
        }
    }

    /// Makes the records of a new pipe. A pipe that failed before is started again, since whoever started the process has
    /// had the chance to mend it; a paused one stays paused.
    ///
    /// # Errors
    /// When the state store fails.
    pub(super) async fn begin(&mut self) -> Result<()> {
        let pipe = &self.pipe;
        // Ids below 1000 are what people give to replicas by hand.
        let random = || rand::random_range(1000..u32::MAX);
        pipe.store
            .begin(
                pipe.config
                    .source
                    .server_id
                    .map_or_else(random, |id| id.get()),
            )
            .await?;
        if let PipeState::Failed { .. } = pipe.store.records().state() {
            self.transition(PipeEvent::Start).await?;
        }
        if let Err(error) = setup::ensure_unchanged(&pipe.config, &pipe.store) {
            self.fail(&error).await;
        }
        Ok(())
    }

    async fn start_up(&mut self) -> Result<()> {
        let pipe = Arc::clone(&self.pipe);
        let work = async move {
            let session = Session::connect(Arc::clone(&pipe.config), &pipe.engine).await?;
            if pipe.store.records().state() == PipeState::Provisioning {
                pipe.transition(PipeEvent::Provisioned).await?;
            }
            setup::set_up(&session, &pipe.store).await?;
            pipe.progress.set_reasons(Vec::new());
            tracing::info!(pipe = pipe.store.pipe(), state = %pipe.store.records().state(), "the pipe is set up");
            Ok(())
        };
        self.drive(work, None).await
    }

    async fn operate(&mut self, delay: &mut Duration) -> Result<()> {
        let stop = self.pipe.shutdown.child_token();
        let work = operate(Arc::clone(&self.pipe), stop.clone());
        let began = tokio::time::Instant::now();
        let result = self.drive(work, Some(&stop)).await;
        self.pipe.progress.set_following(false);
        if began.elapsed() > BACKOFF_LONGEST {
            *delay = BACKOFF_FIRST;
        }
        result
    }

    /// Runs `work` while taking commands. With `stop`, work ends by itself when a command or the shutdown cancels it;
    /// without, it is dropped.
    async fn drive(
        &mut self,
        work: impl Future<Output = Result<()>>,
        stop: Option<&CancellationToken>,
    ) -> Result<()> {
        let mut work = std::pin::pin!(work);
        let shutdown = self.pipe.shutdown.clone();
        loop {
            tokio::select! {
                biased;
                result = &mut work => return result,
                Some(request) = self.commands.recv() => {
                    let before = self.pipe.store.records().state();
                    self.on_command(request).await;
                    if self.pipe.store.records().state() == before {
                        continue;
                    }
                    match stop {
                        Some(stop) => stop.cancel(),
                        None => return Ok(()),
                    }
                }
                () = shutdown.cancelled(), if stop.is_none() => return Ok(()),
            }
        }
    }

    async fn on_command(&self, request: Request) {
        let event = match request.command {
            Command::Pause => PipeEvent::Pause,
            Command::Resume => PipeEvent::Resume,
        };
        // Who asked may have gone.
        request.answer.send(self.transition(event).await).ok();
    }

    async fn wait_to_retry(&mut self, error: &Error, delay: &mut Duration) {
        tracing::warn!(
            pipe = self.pipe.store.pipe(),
            retry_in_ms = delay.as_millis() as u64,
            "{}",
            error.chain()
        );
        let mut reason = Reason::new(ReasonKind::Retrying, error);
        if let Some(standing) = self
            .pipe
            .progress
            .reasons()
            .iter()
            .find(|standing| standing.code == reason.code)
        {
            reason.since = standing.since;
        }
        self.pipe.progress.set_reasons(vec![reason]);
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

    async fn fail(&mut self, error: &Error) {
        tracing::error!(
            pipe = self.pipe.store.pipe(),
            hint = error.hint(),
            "{}",
            error.chain()
        );
        self.pipe.progress.set_reasons(Vec::new());
        if let Err(unwritten) = self.transition(PipeEvent::Fail(Failure::from(error))).await {
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

    async fn transition(&self, event: PipeEvent) -> Result<()> {
        self.pipe.transition(event).await
    }
}

impl Pipe {
    async fn transition(&self, event: PipeEvent) -> Result<()> {
        let before = self.store.records().state();
        let after = self.store.transition(event).await?;
        if before != after {
            tracing::info!(pipe = self.store.pipe(), from = %before, to = %after, "state");
        }
        Ok(())
    }
}

/// Follows, applies and loads until `stop` is cancelled, something fails, or nothing is left to do.
async fn operate(pipe: Arc<Pipe>, stop: CancellationToken) -> Result<()> {
    let session = Arc::new(attach(&pipe).await?);
    if stop.is_cancelled() {
        return Ok(());
    }
    let record = pipe.store.record();
    let place = record
        .checkpoint
        .expect("a pipe that is set up has a checkpoint")
        .place;
    let loading = record.state == PipeState::Snapshot;
    let filter = TableFilter::new(pipe.store.records().tables.keys().cloned());
    let options = StreamOptions::new(record.server_id);
    let stream = BinlogStream::open(&session.source, &place, Arc::new(filter), &options).await?;
    pipe.progress.set_reasons(Vec::new());
    pipe.progress.set_loading(loading);
    pipe.progress.set_following(true);

    let (flushes, received) = mpsc::channel(FLUSHES_WAITING);
    let follow_stop = stop.child_token();
    let mut tasks = tokio::task::JoinSet::new();
    let (shared, live, until) = (Arc::clone(&pipe), Arc::clone(&session), follow_stop.clone());
    let term = record.term;
    let start = place.clone();
    tasks.spawn(async move {
        let follower = Follower {
            session: &live,
            store: &shared.store,
            progress: &shared.progress,
            term,
            flushes,
        };
        follower.run(stream, start, &until).await
    });
    let (shared, live) = (Arc::clone(&pipe), Arc::clone(&session));
    tasks
        .spawn(async move { apply::apply(&live, &shared.store, &shared.progress, received).await });
    if loading {
        tasks.spawn(load_and_pass(
            Arc::clone(&pipe),
            session,
            place.position,
            stop,
            follow_stop,
        ));
    }
    // The first error ends all: dropping the set aborts the others, and whatever they had begun is replayed.
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|error| {
            Error::new(ErrorKind::Internal, "a task of the pipe panicked").with_source(error)
        })??;
    }
    if let PipeState::Pausing { .. } = pipe.store.records().state() {
        pipe.transition(PipeEvent::Drained).await?;
    }
    Ok(())
}

/// Loads what is left, then waits until the checkpoint has passed each table's end place.
async fn load_and_pass(
    pipe: Arc<Pipe>,
    session: Arc<Session>,
    start: crate::source::mysql::position::Position,
    stop: CancellationToken,
    follow_stop: CancellationToken,
) -> Result<()> {
    load::load(&session, &pipe.store, &start, &stop).await?;
    let mut changed = pipe.store.subscribe();
    loop {
        let records = Arc::clone(&changed.borrow_and_update());
        let at = records
            .pipe
            .as_ref()
            .and_then(|record| record.checkpoint.as_ref())
            .map(|c| &c.place.position);
        let waiting: Vec<_> = records
            .tables
            .iter()
            .filter(|(_, table)| table.state != TableState::Streaming)
            .collect();
        let passed: Vec<_> = waiting
            .iter()
            .filter(|(_, table)| match (&table.load_end, at) {
                (Some(end), Some(at)) => at.contains(end) == Some(true),
                _ => false,
            })
            .map(|(name, _)| (*name).clone())
            .collect();
        if passed.len() == waiting.len() {
            return finish(&pipe, passed, &follow_stop).await;
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            result = changed.changed() => result.expect("the store outlives its pipe"),
        }
    }
}

async fn finish(
    pipe: &Pipe,
    passed: Vec<crate::batch::TableName>,
    follow_stop: &CancellationToken,
) -> Result<()> {
    let done = pipe.config.mode == Mode::Snapshot;
    pipe.store
        .commit(|draft| {
            for name in &passed {
                draft.table_mut(name).state = TableState::Streaming;
            }
            Ok(())
        })
        .await?;
    pipe.progress.set_loading(false);
    // A pause that came in between keeps its state, and finds nothing left to load when it resumes.
    if pipe.store.records().state() == PipeState::Snapshot {
        pipe.transition(if done {
            PipeEvent::LoadedAndDone
        } else {
            PipeEvent::Loaded
        })
        .await?;
    }
    if done {
        follow_stop.cancel();
    }
    Ok(())
}
