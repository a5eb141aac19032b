//! What a running pipe shows beyond its records: lag, recent batches, how fast loads go, and the reasons that stand
//! against it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::clock::now_us;
use super::document::{BatchDocument, Reason, ReasonKind, ReplicaDocument, RetentionDocument};
use super::faults::FaultCounts;
use super::lag::Lag;
use super::outside::Outside;
use super::pulse::Pulse;
use super::record::Records;
use super::waits::Waits;
use crate::batch::TableName;
use crate::error::{Error, ErrorKind};

/// How many batches are shown: enough to see a trend, few enough to read.
const BATCHES_SHOWN: usize = 20;

/// Shared by the tasks of one pipe; read by whoever asks for its status.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) lag: Lag,
    /// Whether the stream gets anywhere.
    pub(super) pulse: Pulse,
    /// Append tables whose load cannot begin.
    pub(super) waits: Waits,
    /// Tables that the pipe file means and that cannot be taken in as they are.
    pub(super) outside: Outside,
    loading: AtomicBool,
    following: AtomicBool,
    held_up: Mutex<HeldUp>,
    alarms: Mutex<BTreeMap<Alarm, Reason>>,
    batches: Mutex<VecDeque<BatchDocument>>,
    loads: Mutex<BTreeMap<TableName, LoadMeter>>,
    retention: Mutex<Option<RetentionDocument>>,
    replica: Mutex<Option<ReplicaDocument>>,
    /// When plugins last failed on rows that were passed over: the moment, and its date in microseconds since 1970.
    rows_failed: Mutex<BTreeMap<Failing, (Instant, u64)>>,
}

/// A plugin that fails on rows of a table, and in which way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Failing {
    pub(super) table: TableName,
    pub(super) plugin: String,
    pub(super) fault: ErrorKind,
}

/// What holds the pipe's work up.
#[derive(Debug, Default)]
struct HeldUp {
    reasons: Vec<Reason>,
    /// Since when something is tried again, whatever it was first. The dates that reasons show may jump with the clock.
    retrying_since: Option<Instant>,
}

/// What is watched against an objective.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Alarm {
    /// The stream is too far behind.
    Lag,
    /// The source may purge what is not read yet.
    Retention,
    /// The source follows another server, and has stopped to.
    Replica,
    /// The source cannot be asked, though the pipe's stream goes on, or the pipe is paused.
    Unwatched,
}

/// How a load goes, since this process took it up.
#[derive(Clone, Copy, Debug)]
struct LoadMeter {
    began: Instant,
    rows_before: u64,
    parts_before: u64,
    rows: u64,
    parts: u64,
    parts_total: u64,
}

/// The speed of a load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LoadSpeed {
    /// Rows a second.
    pub(super) rows_per_second: f64,
    /// Until the last partition is read, at the present pace; none before the first one is.
    pub(super) seconds_left: Option<f64>,
}

/// For how long rows that were passed over stand against the pipe after the last of them.
const ROWS_FAILED_STAND: Duration = Duration::from_secs(60);

impl Progress {
    /// Whether tables are being loaded.
    pub(super) fn is_loading(&self) -> bool {
        self.loading.load(Ordering::Relaxed)
    }

    /// Says whether tables are being loaded.
    pub(super) fn set_loading(&self, loading: bool) {
        self.loading.store(loading, Ordering::Relaxed);
        lock(&self.loads).clear();
    }

    /// Says whether the binlog is being followed: without that there is no lag to show.
    pub(super) fn set_following(&self, following: bool) {
        self.following.store(following, Ordering::Relaxed);
    }

    /// Whether the binlog is being followed.
    pub(super) fn is_following(&self) -> bool {
        self.following.load(Ordering::Relaxed)
    }

    /// Plugins have failed on rows of the stream, which were passed over.
    pub(super) fn rows_failed(&self, table: &TableName, faults: &FaultCounts) {
        let failed_now = (Instant::now(), now_us());
        let mut failed = lock(&self.rows_failed);
        failed.retain(|_, (at, _)| at.elapsed() < ROWS_FAILED_STAND);
        for (plugin, fault, _) in faults.iter() {
            let failing = Failing {
                table: table.clone(),
                plugin: plugin.to_owned(),
                fault,
            };
            failed.insert(failing, failed_now);
        }
    }

    /// What has failed lately, and the date of the last time.
    pub(super) fn rows_failed_lately(&self) -> Vec<(Failing, u64)> {
        let failed = lock(&self.rows_failed);
        let lately = failed
            .iter()
            .filter(|(_, (at, _))| at.elapsed() < ROWS_FAILED_STAND);
        lately
            .map(|(failing, (_, at_us))| (failing.clone(), *at_us))
            .collect()
    }

    /// Replaces the reasons that hold the pipe's work up.
    pub(super) fn set_reasons(&self, reasons: Vec<Reason>) {
        *lock(&self.held_up) = HeldUp {
            reasons,
            retrying_since: None,
        };
    }

    /// Lets one reason stand: that something is being tried again. It keeps the time since when.
    pub(super) fn retrying(&self, error: &Error) -> Reason {
        let mut reason = Reason::new(ReasonKind::Retrying, error);
        let mut held_up = lock(&self.held_up);
        let mut standing = held_up.reasons.iter();
        if let Some(standing) = standing.find(|standing| standing.code == reason.code) {
            reason.since = standing.since;
        }
        held_up.reasons = vec![reason.clone()];
        held_up.retrying_since.get_or_insert_with(Instant::now);
        reason
    }

    /// For how long the pipe has been trying again; zero when it is not.
    pub(super) fn retrying_for(&self) -> Duration {
        let since = lock(&self.held_up).retrying_since;
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// What holds the pipe's work up.
    pub(super) fn reasons(&self) -> Vec<Reason> {
        lock(&self.held_up).reasons.clone()
    }

    /// What is beyond its objective.
    pub(super) fn alarms(&self) -> Vec<Reason> {
        lock(&self.alarms).values().cloned().collect()
    }

    /// Whether the alarm stands.
    pub(super) fn has_alarm(&self, alarm: Alarm) -> bool {
        lock(&self.alarms).contains_key(&alarm)
    }

    /// Raises an alarm, or clears it. One that stands keeps its beginning.
    pub(super) fn set_alarm(&self, alarm: Alarm, reason: Option<Reason>) {
        let mut alarms = lock(&self.alarms);
        match reason {
            None => drop(alarms.remove(&alarm)),
            Some(mut reason) => {
                if let Some(standing) = alarms.get(&alarm) {
                    reason.since = standing.since;
                }
                alarms.insert(alarm, reason);
            }
        }
    }

    /// Nothing is watched any more.
    pub(super) fn clear_alarms(&self) {
        lock(&self.alarms).clear();
        self.set_retention(None);
        self.set_replica(None);
    }

    /// Adds a batch to those that are shown.
    pub(super) fn add_batch(&self, batch: BatchDocument) {
        let mut batches = lock(&self.batches);
        batches.truncate(BATCHES_SHOWN - 1);
        batches.push_front(batch);
    }

    /// The newest batches, the newest first.
    pub(super) fn batches(&self) -> Vec<BatchDocument> {
        lock(&self.batches).iter().cloned().collect()
    }

    /// What was found of the source's retention.
    pub(super) fn set_retention(&self, retention: Option<RetentionDocument>) {
        *lock(&self.retention) = retention;
    }

    /// The newest of that.
    pub(super) fn retention(&self) -> Option<RetentionDocument> {
        *lock(&self.retention)
    }

    /// What was found of the servers that the source follows.
    pub(super) fn set_replica(&self, replica: Option<ReplicaDocument>) {
        *lock(&self.replica) = replica;
    }

    /// The newest of that.
    pub(super) fn replica(&self) -> Option<ReplicaDocument> {
        *lock(&self.replica)
    }

    /// Takes note of how far each load is.
    pub(super) fn measure_loads(&self, records: &Records) {
        let mut loads = lock(&self.loads);
        loads.retain(|name, _| {
            let table = records.tables.get(name);
            table.is_some_and(|table| table.state.is_loading())
        });
        for (name, table) in records.tables.iter().filter(|(_, t)| t.state.is_loading()) {
            let parts = records.done.get(name).map_or(0, |done| done.len() as u64);
            let meter = loads.entry(name.clone()).or_insert(LoadMeter {
                began: Instant::now(),
                rows_before: table.rows_loaded,
                parts_before: parts,
                rows: 0,
                parts: 0,
                parts_total: 0,
            });
            (meter.rows, meter.parts) = (table.rows_loaded, parts);
            meter.parts_total = table.partitions.as_ref().map_or(0, Vec::len) as u64;
        }
    }

    /// How fast the table's load goes; none while it does not.
    pub(super) fn load_speed(&self, name: &TableName) -> Option<LoadSpeed> {
        let loads = lock(&self.loads);
        let meter = loads.get(name)?;
        Some(meter.speed(meter.began.elapsed().as_secs_f64()))
    }
}

impl LoadMeter {
    fn speed(&self, seconds: f64) -> LoadSpeed {
        let rows = self.rows.saturating_sub(self.rows_before);
        let parts = self.parts.saturating_sub(self.parts_before);
        let left = self.parts_total.saturating_sub(self.parts);
        LoadSpeed {
            rows_per_second: if seconds > 0.0 {
                rows as f64 / seconds
            } else {
                0.0
            },
            seconds_left: (parts > 0).then(|| seconds / parts as f64 * left as f64),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::document::Timestamp;
    use super::*;

    #[test]
    fn the_time_left_follows_the_partitions_of_this_run() {
        let meter = LoadMeter {
            began: Instant::now(),
            rows_before: 1_000,
            parts_before: 10,
            rows: 3_000,
            parts: 20,
            parts_total: 50,
        };
        let speed = meter.speed(5.0);
        assert_eq!(speed.rows_per_second, 400.0);
        assert_eq!(speed.seconds_left, Some(15.0));
        let none = LoadMeter { parts: 10, ..meter };
        assert_eq!(none.speed(5.0).seconds_left, None, "nothing to judge by");
    }

    fn minutes_ago(minutes: u64) -> Instant {
        let ago = Duration::from_secs(minutes * 60);
        Instant::now()
            .checked_sub(ago)
            .expect("the machine is up for longer")
    }

    #[test]
    fn dates_that_jump_neither_hasten_nor_hold_up_what_counts_after_a_while() {
        let hour_us = 3_600_000_000;
        let unavailable = Error::new(ErrorKind::SourceUnavailable, "away");
        for jumped_to_us in [now_us() - hour_us, now_us() + hour_us] {
            let progress = Progress::default();
            assert_eq!(progress.retrying_for(), Duration::ZERO);
            progress.retrying(&unavailable);
            lock(&progress.held_up).reasons[0].since = Timestamp::from_micros(jumped_to_us);
            assert!(progress.retrying_for() < Duration::from_secs(30));
            lock(&progress.held_up).retrying_since = Some(minutes_ago(2));
            // Another end by turns: the pipe does not work all the same.
            let other = Error::new(ErrorKind::DestinationUnavailable, "away");
            progress.retrying(&other);
            assert!(progress.retrying_for() > Duration::from_secs(60));
            progress.set_reasons(Vec::new());
            assert_eq!(progress.retrying_for(), Duration::ZERO);

            let failing = Failing {
                table: TableName::new("shop", "orders"),
                plugin: "mask".to_owned(),
                fault: ErrorKind::PluginTrap,
            };
            let at = |moment| BTreeMap::from([(failing.clone(), (moment, jumped_to_us))]);
            *lock(&progress.rows_failed) = at(Instant::now());
            assert_eq!(
                progress.rows_failed_lately(),
                [(failing.clone(), jumped_to_us)]
            );
            *lock(&progress.rows_failed) = at(minutes_ago(2));
            assert_eq!(progress.rows_failed_lately(), []);
        }
    }

    #[test]
    fn twenty_batches_are_kept_and_the_newest_is_first() {
        let progress = Progress::default();
        for rows in 0..50 {
            progress.add_batch(BatchDocument {
                rows,
                ..BatchDocument::default()
            });
        }
        let rows: Vec<u64> = progress.batches().iter().map(|batch| batch.rows).collect();
        assert_eq!(rows, (30..50).rev().collect::<Vec<u64>>());
    }
}
