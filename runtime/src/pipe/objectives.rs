//! What a pipe promises beyond its rows: how far behind it may be, and how long the source must go on to hold what it has
//! yet to read.
//!
//! The stream's lag is looked at by the running pipe. The source's retention is asked for at intervals, over a connection
//! of its own that is closed again; while the pipe is paused this is the only one there is. A reason stands from the
//! moment an objective is missed until it is met with a margin, so that a pipe at the edge does not flicker.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::document::{Reason, ReasonKind, ReplicaDocument, RetentionDocument, Timestamp};
use super::progress::Alarm;
use super::record::Records;
use super::supervisor::Pipe;
use super::table_state::TableState;
use crate::batch::TableName;
use crate::error::{Error, ErrorKind, Result};
use crate::source::mysql::Source;
use crate::source::mysql::following::Following;
use crate::source::mysql::position::Position;
use crate::source::mysql::retention::Expiry;

/// How often the source is asked what it still holds: seldom enough to cost nothing, and no alarm is later than that.
const CHECK_INTERVAL: Duration = Duration::from_secs(15);

/// The headroom below which a person should know, where the pipe file does not say: a night.
const HEADROOM: Duration = Duration::from_secs(6 * 3600);

/// What a source is asked to keep that keeps too little: a weekend and a bit.
const LONGER_SECONDS: u64 = 3 * 86_400;

/// Compares the stream's lag with its objective; that of a replica which is the source is part of it.
pub(super) fn check_lag(pipe: &Pipe) {
    let progress = &pipe.progress;
    let (Some(objective), Some(ours)) = (pipe.config.objectives.lag, progress.lag.now()) else {
        return progress.set_alarm(Alarm::Lag, None);
    };
    let replica = progress.replica().and_then(|found| found.behind_seconds);
    let replica = Duration::from_secs_f64(replica.unwrap_or_default());
    // What the replica has applied late is already as old as that.
    let lag = ours.max(replica);
    let limit = match progress.has_alarm(Alarm::Lag) {
        true => objective.mul_f64(0.8),
        false => objective,
    };
    let reason = (lag > limit).then(|| {
        let error = Error::new(
            ErrorKind::LagBeyondObjective,
            format!(
                "the newest durable change is {} old; the objective is {}",
                shown(lag),
                shown(objective)
            ),
        )
        .with_hint(
            "`lag` in the pipe's status says where the time goes, and `replica` how far the source itself is behind: raise \
             `sync.max_rows` and `sync.max_bytes` where it is inserting, look at the plugins where it is transforming, at \
             the network or the source where it is reading",
        );
        Reason::new(ReasonKind::Warning, &error)
    });
    progress.set_alarm(Alarm::Lag, reason);
}

/// How often in a row a source may fail to be asked, while its stream goes on, before that is told: a stream that is as
/// old as its connection goes on where no other gets in.
const FAILURES_TOLD: u32 = 3;

/// What successive looks at the source of a run have shown.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// How many in a row have failed.
    failed: u32,
    /// How far the pipe had got at the last one.
    read: Option<Position>,
    /// When the source had said by then that it has nothing more, by its own clock.
    quiet_at_us: Option<u64>,
}

impl Looks {
    /// Asks the source for its clock, by which commits are dated, and for what it holds.
    ///
    /// # Errors
    /// `SourceUnavailable` where the stream goes on undisturbed, and at a server that is not the right one any more.
    pub(super) async fn look(&mut self, pipe: &Pipe, source: &Source) -> Result<()> {
        let read = pipe.store.record().checkpoint;
        let read = read.map(|checkpoint| checkpoint.place.position);
        // Whatever brings transactions to a server that is read-only, it stands where it should. One that is long in coming
        // shows in neither place.
        let quiet_at_us = pipe.progress.lag.as_of(None);
        let idle = read.is_some() && read == self.read && quiet_at_us > self.quiet_at_us;
        (self.read, self.quiet_at_us) = (read, quiet_at_us);
        match check_source(pipe, source, idle).await {
            Ok(Found::Elsewhere(error)) => return Err(error),
            Ok(Found::Holds | Found::Purged(_)) => {
                self.failed = 0;
                pipe.progress.set_alarm(Alarm::Unwatched, None);
            }
            Err(error) => {
                tracing::debug!(error = %error.chain(), "the source's retention is not known");
                self.failed += 1;
                if self.failed >= FAILURES_TOLD {
                    return unasked(pipe, source, error).await;
                }
            }
        }
        Ok(())
    }
}

/// The source cannot be asked any more. What goes wrong for a moment the stream meets as well, and tells of.
///
/// # Errors
/// `SourceUnavailable` where another server would do.
async fn unasked(pipe: &Pipe, source: &Source, error: Error) -> Result<()> {
    let config = pipe.effective_config()?;
    let past = pipe.past();
    let why = "cannot be asked how it stands";
    if let Some(left) = source.left_for(&config.source, past.as_ref(), why).await {
        return Err(left.with_source(error));
    }
    let unwatched = unwatched(
        "the source cannot be asked how it stands, nor whether it still holds what is yet to be read",
        error,
    );
    pipe.progress.set_alarm(Alarm::Unwatched, Some(unwatched));
    Ok(())
}

fn unwatched(what: &str, error: Error) -> Reason {
    let hint = error.hint().unwrap_or("see that the source can be reached");
    let hint = hint.to_owned();
    let error = Error::new(error.kind(), what)
        .with_hint(hint)
        .with_source(error);
    Reason::new(ReasonKind::Warning, &error)
}

/// Looks again and again until `stop`, from one interval on: a run begins with a look.
///
/// # Errors
/// As [`Looks::look`].
pub(super) async fn watch_source(
    pipe: &Pipe,
    source: &Source,
    mut looks: Looks,
    stop: &CancellationToken,
) -> Result<()> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(CHECK_INTERVAL) => {}
        }
        // A server that takes its time keeps nobody from ending the run.
        let look = looks.look(pipe, source);
        if let Some(looked) = stop.run_until_cancelled(look).await {
            looked?;
        }
    }
}

/// The same for a paused pipe, which has no stream that would tell.
///
/// # Errors
/// `PositionPurged` once the source no longer holds what the pipe would go on with.
pub(super) async fn watch_paused(pipe: &Pipe) -> Result<()> {
    const WHAT: &str =
        "the source cannot be asked whether it still holds what the paused pipe has yet to read";
    let mut elsewhere = 0;
    loop {
        let checked = async {
            let config = pipe.effective_config()?;
            let source = Source::connect(&config.source, pipe.past().as_ref()).await?;
            check_source(pipe, &source, false).await
        };
        let before = std::mem::take(&mut elsewhere);
        let unwatched = match checked.await {
            Ok(Found::Purged(purged)) => return Err(purged),
            Ok(Found::Holds) => None,
            // The next connection chooses anew, unless the name leads to another server each time.
            Ok(Found::Elsewhere(error)) => {
                elsewhere = before + 1;
                (elsewhere >= FAILURES_TOLD).then(|| unwatched(WHAT, error))
            }
            Err(error) => Some(unwatched(WHAT, error)),
        };
        pipe.progress.set_alarm(Alarm::Unwatched, unwatched);
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
}

/// A place that is read on from, and how old the newest commit before it is.
struct Held {
    table: Option<TableName>,
    position: Position,
    age: Duration,
}

/// What a look at the source has shown.
enum Found {
    /// The pipe can go on with it.
    Holds,
    /// What the pipe itself would read next has gone; with the proof.
    Purged(Error),
    /// The pipe had better connect anew; with the reason.
    Elsewhere(Error),
}

/// Asks the server that is read from how it stands, and compares what it holds with the objective, for the pipe's place and
/// those of tables out of service. Another one at its address tells nothing of it. Where nothing has come of late, it may be
/// that nothing comes any more.
async fn check_source(pipe: &Pipe, source: &Source, idle: bool) -> Result<Found> {
    let mut conn = source.control().await?;
    if let Some(moved) = source.moved(&mut conn).await? {
        return Ok(Found::Elsewhere(moved));
    }
    if let Some(clock) = source.clock(&mut conn).await? {
        pipe.progress.lag.set_clock(clock);
    }
    let following = source.following(&mut conn).await?;
    let is_cut_off = following.is_none() && source.is_stranded(&mut conn).await?;
    let stranded = (idle || !is_cut_off).then_some(is_cut_off);
    if stranded == Some(true) {
        let config = pipe.effective_config()?;
        let past = pipe.past();
        let why = "is read-only and follows no other server";
        if let Some(left) = source.left_for(&config.source, past.as_ref(), why).await {
            return Ok(Found::Elsewhere(left));
        }
    }
    check_replica(pipe, following, stranded);
    let mut purged = None;
    let mut least: Option<(Duration, Option<TableName>)> = None;
    let mut expiry = None;
    for held in places(pipe, &pipe.store.records()) {
        let found = source.retention(&mut conn, &held.position).await?;
        expiry = found.expiry;
        let headroom = match found.purged {
            Some(_) => Some(Duration::ZERO),
            None => found.headroom(held.age),
        };
        if let Some(headroom) = headroom
            && least.as_ref().is_none_or(|(least, _)| headroom < *least)
        {
            least = Some((headroom, held.table.clone()));
        }
        if held.table.is_none() {
            purged = found.purged;
        }
    }
    conn.disconnect().await.ok();
    pipe.progress.set_retention(Some(RetentionDocument {
        keeps_seconds: expiry.map(|expiry| expiry.keeps.as_secs_f64()),
        headroom_seconds: least.as_ref().map(|(headroom, _)| headroom.as_secs_f64()),
        checked_at: Timestamp::now(),
    }));
    let reason = least.and_then(|(headroom, table)| low(pipe, headroom, expiry, table));
    pipe.progress.set_alarm(Alarm::Retention, reason);
    Ok(purged.map_or(Found::Holds, Found::Purged))
}

/// A source that has stopped to follow its primary shows nothing new, which to the stream looks like an idle one. Whether it
/// is stranded is not known while something comes.
fn check_replica(pipe: &Pipe, following: Option<Following>, stranded: Option<bool>) {
    let behind = following.as_ref().map(|following| following.behind);
    pipe.progress
        .set_replica(behind.map(|behind| ReplicaDocument {
            behind_seconds: behind.map(|behind| behind.as_secs_f64()),
            checked_at: Timestamp::now(),
        }));
    let Some(stranded) = stranded else {
        return;
    };
    let stopped = following.and_then(|following| following.stopped);
    let error = match stopped {
        Some(stopped) => Some(
            Error::new(
                ErrorKind::ReplicaStopped,
                format!("the source is a replica that {stopped}: what is written there does not reach it"),
            )
            .with_hint(
                "see SHOW REPLICA STATUS (SHOW ALL SLAVES STATUS on MariaDB), then START REPLICA; or RESET REPLICA ALL where \
                 the server follows nobody any more",
            ),
        ),
        None => stranded.then(|| {
            Error::new(
                ErrorKind::ReplicaStopped,
                "the source is read-only and follows no other server: what is written elsewhere does not reach it",
            )
            .with_hint(
                "where another server is the primary now, let this one follow it, or name that one in `source.hosts`: pause the \
                 pipe, `pipewright set`, and resume it; where this one is, SET GLOBAL read_only = OFF",
            )
        }),
    };
    let reason = error.map(|error| Reason::new(ReasonKind::Warning, &error));
    pipe.progress.set_alarm(Alarm::Replica, reason);
}

/// Each distinct place once: the pipe's, and those of tables that wait for a person, or are on their way back.
fn places(pipe: &Pipe, records: &Records) -> Vec<Held> {
    let mut places = Vec::new();
    // By the source's clock, by which it purges. Records of earlier programs may not tell.
    let age_of = |at_us: Option<u64>| {
        let age = at_us.and_then(|at_us| pipe.progress.lag.age_of(at_us));
        age.unwrap_or_default()
    };
    if let Some(at) = records.checkpoint() {
        places.push(Held {
            table: None,
            position: at.place.position.clone(),
            age: age_of(at.committed_at_us),
        });
    }
    let mut seen = BTreeMap::new();
    for (name, table) in &records.tables {
        let reads_by_itself = matches!(
            table.state,
            TableState::Quarantined(_) | TableState::CatchingUp
        );
        if let Some(own) = table.place.as_ref().filter(|_| reads_by_itself) {
            seen.entry(own.place.position.to_string())
                .or_insert_with(|| Held {
                    table: Some(name.clone()),
                    position: own.place.position.clone(),
                    age: age_of(own.as_of_us),
                });
        }
    }
    places.extend(seen.into_values());
    places
}

/// The reason that a headroom is, if it is below its objective.
fn low(
    pipe: &Pipe,
    headroom: Duration,
    expiry: Option<Expiry>,
    table: Option<TableName>,
) -> Option<Reason> {
    let keeps = expiry.map_or(Duration::MAX, |expiry| expiry.keeps);
    let objective = pipe
        .config
        .objectives
        .retention_headroom
        .unwrap_or_else(|| HEADROOM.min(keeps / 4));
    let limit = match pipe.progress.has_alarm(Alarm::Retention) {
        true => clears_at(objective, keeps),
        false => objective,
    };
    (headroom < limit).then(|| {
        let (headroom, objective) = (shown(headroom), shown(objective));
        let message = match expiry {
            Some(_) => format!(
                "the source keeps its binlog for {}, and purges what is yet to be read in {headroom}; the objective is {objective}",
                shown(keeps)
            ),
            None => format!(
                "the source purges its binlog by hand or by size, and what is yet to be read in {headroom}; the objective is {objective}"
            ),
        };
        let records = pipe.store.records();
        let waits = |name: &TableName| {
            let table = records.tables.get(name);
            table.is_some_and(|table| matches!(table.state, TableState::Quarantined(_)))
        };
        let read_on = match table.as_ref().is_some_and(waits) {
            false => "let the pipe read on",
            true => "`retry`, `skip` or `resync` the table",
        };
        let hint = match expiry {
            Some(expiry) => format!(
                "{read_on}, or keep the binlog for longer: {}",
                expiry.statement(LONGER_SECONDS)
            ),
            // It was purged by hand, or for its size.
            None => read_on.to_owned(),
        };
        let error = Error::new(ErrorKind::RetentionBelowObjective, message).with_hint(hint);
        let error = match &table {
            Some(table) => error.with_table(table),
            None => error,
        };
        Reason::new(ReasonKind::Warning, &error)
    })
}

/// The headroom at which a standing alarm clears: a tenth above the objective, but never beyond what can be had.
fn clears_at(objective: Duration, keeps: Duration) -> Duration {
    let margin = objective / 10;
    objective + margin.min(keeps.saturating_sub(objective) / 2)
}

fn shown(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds >= 2 * 86_400 => format!("{} days", seconds / 86_400),
        seconds if seconds >= 2 * 3_600 => format!("{} h", seconds / 3_600),
        seconds if seconds >= 120 => format!("{} min", seconds / 60),
        _ => format!("{:.1} s", duration.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_clears_with_a_margin_that_can_be_had() {
        let seconds = Duration::from_secs;
        assert_eq!(clears_at(seconds(100), seconds(1_000)), seconds(110));
        assert_eq!(clears_at(seconds(100), seconds(110)), seconds(105));
        assert_eq!(clears_at(seconds(100), seconds(100)), seconds(100));
        assert_eq!(clears_at(seconds(100), Duration::MAX), seconds(110));
    }
}
