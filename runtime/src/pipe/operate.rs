//! A pipe at work: its stream, its loads, and the streams of tables on their way back, until something ends it.
//!
//! One run works with the tables as the records have them at its start. Whatever changes that (a table that falls out
//! of the stream, comes back, is added, or is loaded again) ends the run at a checkpoint, is recorded, and a new run
//! begins there. So no task ever meets a table that has changed under it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::append;
use super::apply::Applier;
use super::attach::Attached;
use super::command::Command;
use super::follow::{FLUSHES_WAITING, Follower, Pace, Passed};
use super::heal::{self, Kinship};
use super::journal::{EventKind, Level, Note};
use super::lifecycle::{PipeEvent, PipeState, Resume};
use super::mirror::Mirroring;
use super::objectives::Looks;
use super::prepared;
use super::progress::Alarm;
use super::record::{Records, Skip, random_server_id};
use super::session::Session;
use super::store::PipeStore;
use super::supervisor::Pipe;
use super::table_state::{TableEvent, TableState};
use super::tables;
use super::track::Track;
use super::{load, objectives, pinned};
use crate::batch::TableName;
use crate::config::{Cascades, Mode};
use crate::error::{Error, ErrorKind, Result};
use crate::fault;
use crate::source::mysql::binlog::{BinlogStream, StreamOptions, TableFilter, ensure_unbroken};
use crate::source::mysql::position::{Position, StreamPlace};

/// How soon a state follows its reasons.
const SETTLE_INTERVAL: Duration = Duration::from_millis(500);

/// How often the source is asked for tables that a wildcard has begun to match.
const NEW_TABLES_INTERVAL: Duration = Duration::from_secs(10);

/// The same while what keeps them out stays the same.
const NEW_TABLES_INTERVAL_LONGEST: Duration = Duration::from_secs(120);

/// One run, and what ends it.
struct Run {
    pipe: Arc<Pipe>,
    session: Arc<Session>,
    kinship: Arc<Kinship>,
    /// Ends the pipe's stream and all else at a checkpoint.
    stop: CancellationToken,
    tasks: JoinSet<Result<()>>,
}

/// Follows, applies, loads and catches up until `stop` is cancelled, something fails, or the records ask for another run.
pub(super) async fn operate(pipe: Arc<Pipe>, stop: CancellationToken) -> Result<()> {
    let Attached { session, replaying } = append::attach_with_snapshots(&pipe).await?;
    let session = Arc::new(session);
    let records = pipe.store.records();
    if stop.is_cancelled() {
        // Tables may have come back just now.
        match Kinship::read(&session, &records).await {
            Ok(kinship) => mirroring(&pipe, &session, &kinship).tell_at_last().await,
            Err(error) => {
                let pipe = pipe.store.pipe();
                tracing::debug!(pipe, "not told any more: {}", error.chain());
            }
        }
        return Ok(());
    }
    let record = pipe.store.record();
    let place = record
        .checkpoint
        .expect("a pipe that is set up has a checkpoint")
        .place;
    let loading = record.state.resume() == Resume::Snapshot;
    let kinship = Arc::new(Kinship::read(&session, &records).await?);
    pipe.progress.lag.begin();
    let mut looks = Looks::default();
    looks.look(&pipe, &session.source).await?;
    let mut run = Run {
        pipe: Arc::clone(&pipe),
        kinship: Arc::clone(&kinship),
        session,
        stop: stop.child_token(),
        tasks: JoinSet::new(),
    };
    run.follow(&Line {
        track: Track::Pipe,
        names: records.names_where(|table| table.state.is_in_stream()),
        place: place.clone(),
        term: record.term,
        server_id: record.server_id,
        pace: Pace::AsConfigured,
    })
    .await?;
    pipe.progress.pulse.begins();
    // A source whose streams have broken before they got anywhere is not back yet.
    if !pipe.progress.pulse.is_stuck() {
        pipe.progress.set_reasons(Vec::new());
    }
    pipe.progress.set_loading(loading);
    pipe.progress.set_following(true);
    pipe.progress.set_alarm(Alarm::Unwatched, None);
    pipe.settle().await?;
    if loading {
        run.load(&place.position);
        run.begin_next_loads();
    }
    run.watch(looks);
    run.follow_new_tables();
    run.end_replayed(replaying);
    if run.session.config.cascades == Cascades::Reload {
        run.tasks
            .spawn(heal::heal(Arc::clone(&pipe), run.stop.clone()));
    }
    let returning = records.names_where(|table| table.state == TableState::CatchingUp);
    for name in returning {
        // The pipe's own id stands for its main stream.
        run.catch_up(&records, &name, random_server_id())
            .await
            .map_err(|error| error.with_table(&name))?;
    }
    // The first error ends all: dropping the set aborts the others, and whatever they had begun is replayed.
    while let Some(ended) = run.tasks.join_next().await {
        ended.map_err(|error| {
            Error::new(ErrorKind::Internal, "a task of the pipe panicked").with_source(error)
        })??;
    }
    mirroring(&pipe, &run.session, &kinship)
        .tell_at_last()
        .await;
    pipe.transition_where(
        |state| matches!(state, PipeState::Pausing { .. }),
        PipeEvent::Drained,
    )
    .await
}

/// One stream: whose place it moves, and from where.
struct Line {
    track: Track,
    names: Vec<TableName>,
    place: StreamPlace,
    term: u16,
    server_id: u32,
    pace: Pace,
}

impl Run {
    /// Opens a stream and spawns its follower and applier.
    async fn follow(&mut self, line: &Line) -> Result<()> {
        let filter = TableFilter::new(line.names.iter().cloned()).with_copies();
        let filter = Arc::new(filter);
        let (waiting, lengths) =
            prepared::waiting_at(&self.pipe.store.records(), &line.place.position);
        let config = &self.session.config;
        let mut options = StreamOptions::new(line.server_id, &config.pipe);
        options.prepared = lengths;
        options.memory_bytes = usize::try_from(config.memory_part()).unwrap_or(usize::MAX);
        options.spill_folder.clone_from(&config.spill_dir);
        if line.track == Track::Pipe {
            let known = self.pipe.store.record().begun;
            ensure_unbroken(&self.session.source, known.as_ref(), &options).await?;
        }
        let stream =
            BinlogStream::open(&self.session.source, &line.place, filter, &options).await?;
        let (flushes, received) = mpsc::channel(FLUSHES_WAITING);
        let (pipe, session, until) = (
            Arc::clone(&self.pipe),
            Arc::clone(&self.session),
            self.stop.clone(),
        );
        let kinship = Arc::clone(&self.kinship);
        let (from, term, pace, track) =
            (line.place.clone(), line.term, line.pace, line.track.clone());
        let passed = match line.track {
            Track::Pipe => places_ahead(&pipe.store),
            Track::Table(_) => Passed::default(),
        };
        self.tasks.spawn(async move {
            let follower = Follower {
                pipe: &pipe,
                session: &session,
                store: &pipe.store,
                progress: &pipe.progress,
                track,
                kinship: &kinship,
                term,
                flushes,
                passed,
                pace,
                waiting,
            };
            follower.run(stream, from, &until).await
        });
        let (pipe, session, track) = (
            Arc::clone(&self.pipe),
            Arc::clone(&self.session),
            line.track.clone(),
        );
        let kinship = Arc::clone(&self.kinship);
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let applier = Applier {
                session: &session,
                store: &pipe.store,
                progress: &pipe.progress,
                track,
                kinship: &kinship,
                stop,
            };
            applier.run(received).await
        });
        Ok(())
    }

    /// Keeps the pipe's state in step with its reasons, and the destination with what the tables hold.
    fn watch(&mut self, looks: Looks) {
        let (pipe, stop) = (Arc::clone(&self.pipe), self.stop.clone());
        self.tasks.spawn(async move {
            loop {
                pipe.progress.measure_loads(&pipe.store.records());
                objectives::check_lag(&pipe);
                pipe.settle().await?;
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = tokio::time::sleep(SETTLE_INTERVAL) => {}
                }
            }
        });
        let (pipe, session) = (Arc::clone(&self.pipe), Arc::clone(&self.session));
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            objectives::watch_source(&pipe, &session.source, looks, &stop).await
        });
        let (pipe, session) = (Arc::clone(&self.pipe), Arc::clone(&self.session));
        let (kinship, stop) = (Arc::clone(&self.kinship), self.stop.clone());
        self.tasks.spawn(async move {
            mirroring(&pipe, &session, &kinship).keep_true(&stop).await;
            Ok(())
        });
    }

    /// Asks the source again and again for tables that the pipe has never had although an entry names them, that the
    /// wildcards have begun to match, or that are there again, and the supervisor to take them in. One that cannot be
    /// taken in stands against the pipe; what keeps all of them out is told of once.
    fn follow_new_tables(&mut self) {
        if !tables::may_have_unseen(&self.session, &self.pipe.store.records()) {
            self.pipe.progress.outside.set(&[]);
            return;
        }
        let (pipe, session) = (Arc::clone(&self.pipe), Arc::clone(&self.session));
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let (mut told, mut pause) = (None, NEW_TABLES_INTERVAL);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = tokio::time::sleep(pause) => {}
                }
                // A server that takes its time keeps nobody from ending the run.
                let looking = tables::joining(&session, &pipe);
                let Some(joining) = stop.run_until_cancelled(looking).await else {
                    return Ok(());
                };
                let error = match joining {
                    Ok(joining) => {
                        pipe.keep_outside(&joining.refused).await;
                        if joining.able.is_empty() {
                            (told, pause) = (None, NEW_TABLES_INTERVAL);
                            continue;
                        }
                        // The change waits for this very run to end.
                        let answer = tokio::select! {
                            () = stop.cancelled() => return Ok(()),
                            answer = pipe.ask(Command::FollowNewTables) => answer,
                        };
                        match answer {
                            Ok(()) => {
                                pause = NEW_TABLES_INTERVAL;
                                continue;
                            }
                            // Another command went before.
                            Err(error) if error.kind() == ErrorKind::Stopped => continue,
                            Err(error) => error,
                        }
                    }
                    Err(error) => error,
                };
                let message = error.chain();
                // Each try of what takes its time holds up whoever asks, and stands in the history.
                pause = match told.as_ref() == Some(&message) {
                    true => (2 * pause).min(NEW_TABLES_INTERVAL_LONGEST),
                    false => NEW_TABLES_INTERVAL,
                };
                if told.as_ref() != Some(&message) {
                    let text = "no new table joins";
                    let name = pipe.store.pipe();
                    tracing::warn!(pipe = name, hint = error.hint(), "{text}: {message}");
                    let note = Note::over(Level::Warning, EventKind::Error, text, &error);
                    pipe.note(note).await;
                    told = Some(message);
                }
            }
        });
    }

    /// Ends this run at a checkpoint once nothing of these tables is sent beyond their places.
    fn end_replayed(&mut self, replaying: Vec<TableName>) {
        if replaying.is_empty() {
            return;
        }
        let (pipe, stop) = (Arc::clone(&self.pipe), self.stop.clone());
        self.tasks.spawn(async move {
            let replayed = |records: &Arc<Records>| {
                !replaying.iter().any(|name| pinned::is_ahead(records, name))
            };
            if pipe.store.wait_until(&stop, replayed).await {
                tracing::info!(
                    pipe = pipe.store.pipe(),
                    "all that had been sent has passed the former plugins once more"
                );
                stop.cancel();
            }
            Ok(())
        });
    }

    fn load(&mut self, start: &Position) {
        let (pipe, session) = (Arc::clone(&self.pipe), Arc::clone(&self.session));
        let (start, stop) = (start.clone(), self.stop.clone());
        let kinship = Arc::clone(&self.kinship);
        let ends = pipe.config.mode == Mode::Snapshot;
        self.tasks.spawn(async move {
            load::load(&session, &pipe, &start, &stop).await?;
            if pipe
                .store
                .wait_until(&stop, |records| {
                    all_passed(records) && !(ends && is_anyone_on_the_way(records))
                })
                .await
            {
                let mirroring = mirroring(&pipe, &session, &kinship);
                finish_load(&pipe, mirroring, &stop).await?;
            }
            Ok(())
        });
    }

    /// Loads of append tables begin between two runs.
    fn begin_next_loads(&mut self) {
        let (pipe, session) = (Arc::clone(&self.pipe), Arc::clone(&self.session));
        self.tasks
            .spawn(append::end_for_the_next(pipe, session, self.stop.clone()));
    }

    /// Reads one table from its own place until that has passed the pipe's checkpoint.
    async fn catch_up(
        &mut self,
        records: &Records,
        name: &TableName,
        server_id: u32,
    ) -> Result<()> {
        let record = records
            .tables
            .get(name)
            .expect("the name came from the records");
        let own = record.place.clone().ok_or_else(|| {
            Error::new(ErrorKind::Internal, "the table has no place to go on from")
        })?;
        let pace = match record.skip {
            Skip::No | Skip::Allowed => Pace::AsConfigured,
            Skip::Narrow => Pace::EachTransaction,
            Skip::PassOver => Pace::PassOverFirst,
        };
        let term = own
            .term
            .ok_or_else(|| Error::new(ErrorKind::Internal, "no term is claimed for the table"))?;
        self.follow(&Line {
            track: Track::Table(name.clone()),
            names: vec![name.clone()],
            place: own.place,
            term,
            server_id,
            pace,
        })
        .await?;
        let (pipe, name, stop) = (Arc::clone(&self.pipe), name.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            pipe.store
                .wait_until(&stop, |records| has_met(records, &name))
                .await;
            // Ends this run at a checkpoint; the next one carries the table in the pipe's stream.
            stop.cancel();
            Ok(())
        });
        Ok(())
    }
}

fn mirroring<'a>(pipe: &'a Pipe, session: &'a Session, kinship: &'a Kinship) -> Mirroring<'a> {
    Mirroring {
        session,
        store: &pipe.store,
        kinship,
    }
}

/// Tables in the stream that stand ahead of the checkpoint, and those whose place is not known yet.
fn places_ahead(store: &PipeStore) -> Passed {
    let records = store.records();
    let in_stream = records.tables.iter();
    let in_stream = in_stream.filter(|(_, table)| table.state.is_in_stream());
    Passed::of(in_stream.filter_map(|(name, table)| {
        if append::awaits_its_moment(table) {
            return Some((name.clone(), None));
        }
        let place = table.place.as_ref()?;
        Some((name.clone(), Some(place.place.position.clone())))
    }))
}

/// Whether a table on its way back stands at the pipe's checkpoint or ahead of it.
pub(super) fn has_met(records: &Records, name: &TableName) -> bool {
    let own = records
        .tables
        .get(name)
        .filter(|table| table.state == TableState::CatchingUp)
        .and_then(|table| Some((table.place.as_ref()?, table.skip)));
    let at = records.checkpoint();
    let passes = |one: &Position, other: &Position| one.contains(other) == Some(true);
    match (own, at) {
        (Some((own, skip)), Some(at)) => {
            let (own, at) = (&own.place.position, &at.place.position);
            // What may be passed over may be the next thing that either would read.
            passes(own, at) && (skip == Skip::No || !passes(at, own))
        }
        _ => false,
    }
}

/// Whether the checkpoint has passed the end place of every load.
fn all_passed(records: &Records) -> bool {
    let at = records
        .checkpoint()
        .map(|checkpoint| &checkpoint.place.position);
    records
        .tables
        .values()
        .filter(|table| table.state.is_loading())
        .all(|table| match (&table.load_end, at) {
            (Some(end), Some(at)) => at.contains(end) == Some(true),
            _ => false,
        })
}

/// Whether a table that was out of service is on its way back, to a load that is not over.
fn is_anyone_on_the_way(records: &Records) -> bool {
    let mut tables = records.tables.values();
    tables.any(|table| table.state == TableState::CatchingUp)
}

/// Tables that were loaded in place stream from now on. Those beside live ones are exchanged when the stream has been
/// drained.
async fn finish_load(
    pipe: &Pipe,
    mirroring: Mirroring<'_>,
    stop: &CancellationToken,
) -> Result<()> {
    let mut to_swap = false;
    pipe.store
        .commit(|draft| {
            for name in draft.names_where(|table| table.state.is_loading()) {
                if draft.table_mut(&name).shadow.is_some() {
                    to_swap = true;
                } else {
                    draft.table_event(&name, TableEvent::Loaded)?;
                }
            }
            Ok(())
        })
        .await?;
    fault::point("load:5");
    let done = pipe.config.mode == Mode::Snapshot;
    // Nobody writes behind a pipe that is Completed. One that is to end before finds nothing left to load, and tells then.
    if done && !to_swap {
        match stop.run_until_cancelled(mirroring.tell()).await {
            Some(told) => told?,
            None => return Ok(()),
        }
    }
    // What has come in between keeps its state: a pause, or a change of tables in preparation. The next run finds nothing left
    // to load, also where that change is refused and the pipe is in Snapshot once more.
    pipe.transition_where(
        |state| *state == PipeState::Snapshot,
        match (to_swap, done) {
            (true, _) => PipeEvent::LoadedToSwap,
            (false, true) => PipeEvent::LoadedAndDone,
            (false, false) => PipeEvent::Loaded,
        },
    )
    .await?;
    fault::point("load:6");
    pipe.progress.set_loading(false);
    pipe.settle().await?;
    let is_over = pipe.store.records().state().resume() == Resume::Running;
    if done || to_swap || !is_over {
        stop.cancel();
    }
    Ok(())
}
