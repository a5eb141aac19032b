//! How far the stream is behind its source, and where the time goes.
//!
//! The source stamps a commit with its own clock. Its age is taken by that same clock when the commit is read, and counts
//! on here from the moment of reading; so neither the offset between the two clocks nor a jump of ours takes part. MariaDB
//! stamps it with what a session has set instead (`SET timestamp`): that is believed as far as it can be.
//! While something has been read and is not yet durable, the oldest of it is the lag, and it grows.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::source::mysql::retention::SourceClock;

/// A commit that has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Commit {
    /// When it was read.
    pub(super) read_at: Instant,
    /// How old it was then.
    age: Duration,
}

impl Commit {
    /// How old it is now.
    pub(super) fn age(&self) -> Duration {
        self.age + self.read_at.elapsed()
    }
}

/// Where the time between a commit and its durable rows went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Split {
    /// From the commit until it was read.
    pub(super) read: Duration,
    /// For the flush to become due, and for the one before it.
    pub(super) waiting: Duration,
    /// In plugins.
    pub(super) transform: Duration,
    /// For ClickHouse and the checkpoint.
    pub(super) insert: Duration,
}

impl Split {
    /// The parts of a flush whose newest commit is `newest`, and whose work began at `began` and has just ended. Tables
    /// go side by side, so `transform` and `insert` say in which proportion the time belongs to each.
    pub(super) fn of(
        newest: Commit,
        began: Instant,
        transform: Duration,
        insert: Duration,
    ) -> Self {
        let work = began.elapsed();
        let share = match (transform + insert).as_secs_f64() {
            sum if sum > 0.0 => transform.as_secs_f64() / sum,
            _ => 0.0,
        };
        let transform = work.mul_f64(share);
        Self {
            read: newest.age,
            waiting: began.saturating_duration_since(newest.read_at),
            transform,
            insert: work.saturating_sub(transform),
        }
    }

    /// All of it.
    pub(super) fn total(&self) -> Duration {
        self.read + self.waiting + self.transform + self.insert
    }
}

/// How long plugins and inserts took, summed over tables that go side by side.
#[derive(Debug, Default)]
pub(super) struct Spent(Mutex<(Duration, Duration)>);

impl Spent {
    /// Adds what one table's rows took.
    pub(super) fn add(&self, transform: Duration, insert: Duration) {
        let mut spent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        spent.0 += transform;
        spent.1 += insert;
    }

    /// What was added since this was last asked.
    pub(super) fn take(&self) -> (Duration, Duration) {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The lag of one pipe's stream.
#[derive(Debug, Default)]
pub(super) struct Lag(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    clock: Option<SourceClock>,
    /// The oldest commit of each flush that is being gathered or applied.
    pending: VecDeque<Commit>,
    /// Where the time of the newest flush went, and when it was durable.
    newest: Option<(Split, Instant)>,
    /// How far reading is behind while there is nothing of ours in what is read; none while there is.
    idle: Option<Duration>,
    /// When the source had last nothing more than is durable, by its own clock.
    caught_up_at_us: Option<u64>,
}

impl Inner {
    fn until_now(&self, micros: u64) -> u64 {
        self.clock
            .map_or(micros, |clock| micros.min(clock.shows_us()))
    }
}

/// A commit of that age is what has just happened, as far as clocks can be compared.
const PRESENT: Duration = Duration::from_secs(2);

/// So long what the newest flush took is the lag. A source that has sent nothing since then has nothing more, which it says
/// itself with its next heartbeat only.
const SHOWN: Duration = Duration::from_secs(1);

impl Lag {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of the source's clock.
    pub(super) fn set_clock(&self, clock: SourceClock) {
        self.lock().clock = Some(clock);
    }

    /// How old the source's commit of that moment is; none before the source's clock is known.
    pub(super) fn age_of(&self, committed_at_us: u64) -> Option<Duration> {
        Some(self.lock().clock?.age_of(committed_at_us))
    }

    /// A moment by the source's clock up to which all of its commits stand before a checkpoint with that newest commit.
    /// Where the source was idle that is later than the commit.
    pub(super) fn as_of(&self, committed_at_us: Option<u64>) -> Option<u64> {
        let inner = self.lock();
        let committed = committed_at_us.map(|micros| inner.until_now(micros));
        committed.max(inner.caught_up_at_us)
    }

    /// When a commit that any stream has just read was made, by the source's clock: on no day to come, whatever its date.
    pub(super) fn until_now(&self, committed_at_us: u64) -> u64 {
        self.lock().until_now(committed_at_us)
    }

    /// The same for the pipe's stream. What the source had not when it had nothing more came later, whatever its date.
    pub(super) fn since_idle(&self, committed_at_us: u64) -> u64 {
        let inner = self.lock();
        let idle = inner.caught_up_at_us.unwrap_or_default();
        inner.until_now(committed_at_us).max(idle)
    }

    /// A stream begins: nothing of it is read.
    pub(super) fn begin(&self) {
        let mut inner = self.lock();
        inner.pending.clear();
        (inner.newest, inner.idle, inner.caught_up_at_us) = (None, None, None);
    }

    /// A commit has been read just now; of one without a time the age is not known, and counts from now.
    pub(super) fn read(&self, committed_at_us: Option<u64>) -> Commit {
        Commit {
            read_at: Instant::now(),
            age: committed_at_us
                .and_then(|micros| self.age_of(micros))
                .unwrap_or_default(),
        }
    }

    /// `oldest` is the first commit of a new flush.
    pub(super) fn waits(&self, oldest: Commit) {
        let mut inner = self.lock();
        inner.pending.push_back(oldest);
        inner.idle = None;
    }

    /// The flush that began with `oldest` is durable.
    pub(super) fn applied(&self, oldest: Option<Commit>, split: Option<Split>) {
        let mut inner = self.lock();
        if inner.pending.front().copied() == oldest {
            inner.pending.pop_front();
        }
        inner.newest = split.map(|split| (split, Instant::now())).or(inner.newest);
    }

    /// Nothing of ours is in what was read last. `passed` is when the source committed the last of that; none when the
    /// source has nothing more.
    pub(super) fn idle(&self, passed: Option<u64>) {
        let age = passed.and_then(|micros| self.age_of(micros));
        let age = age.filter(|age| *age > PRESENT).unwrap_or_default();
        let mut inner = self.lock();
        inner.idle = inner.pending.is_empty().then_some(age);
    }

    /// The source has nothing more than what was read last.
    pub(super) fn caught_up(&self) {
        self.idle(None);
        let mut inner = self.lock();
        if inner.pending.is_empty() {
            inner.caught_up_at_us = inner.clock.map(|clock| clock.shows_us());
        }
    }

    /// How far the stream is behind now; none before anything is known of that.
    pub(super) fn now(&self) -> Option<Duration> {
        let inner = self.lock();
        match inner.pending.front() {
            Some(oldest) => Some(oldest.age()),
            None => inner
                .idle
                .or(inner.newest.map(|(split, at)| match at.elapsed() < SHOWN {
                    true => split.total(),
                    false => Duration::ZERO,
                })),
        }
    }

    /// Where the time of the newest flush went.
    pub(super) fn newest(&self) -> Option<Split> {
        self.lock().newest.map(|(split, _)| split)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lag_at(source_us: u64) -> Lag {
        let lag = Lag::default();
        lag.set_clock(SourceClock {
            micros: source_us,
            at: Instant::now(),
        });
        lag
    }

    #[test]
    fn what_waits_grows_until_it_is_durable() {
        let lag = lag_at(100_000_000);
        assert_eq!(lag.now(), None);
        let oldest = lag.read(Some(70_000_000));
        lag.waits(oldest);
        let newer = lag.read(Some(90_000_000));
        lag.waits(newer);
        let now = lag.now().expect("something waits");
        assert!(
            now >= Duration::from_secs(30) && now < Duration::from_secs(60),
            "{now:?}"
        );
        std::thread::sleep(Duration::from_millis(20));
        assert!(lag.now().expect("it still waits") > now);
        lag.idle(None);
        assert!(
            lag.now() > Some(Duration::from_secs(30)),
            "what waits is not caught up"
        );
        lag.applied(Some(oldest), None);
        assert!(
            lag.now() < Some(Duration::from_secs(30)),
            "the newer one is left"
        );
        let split = Split {
            read: Duration::from_secs(3_600),
            ..Split::default()
        };
        lag.applied(Some(newer), Some(split));
        assert_eq!(lag.now(), Some(split.total()), "as of just now");
        std::thread::sleep(SHOWN);
        assert_eq!(lag.now(), Some(Duration::ZERO), "nothing waits");
        lag.idle(None);
        assert_eq!(lag.now(), Some(Duration::ZERO));
        lag.idle(Some(40_000_000));
        assert!(
            lag.now() >= Some(Duration::from_secs(60)),
            "foreign commits of long ago"
        );
        lag.idle(Some(99_500_000));
        assert_eq!(lag.now(), Some(Duration::ZERO));
    }

    #[test]
    fn a_place_is_as_new_as_its_commit_or_the_source_s_idleness() {
        let lag = Lag::default();
        assert_eq!(lag.as_of(Some(7)), Some(7));
        let lag = lag_at(100_000_000);
        assert_eq!(lag.as_of(None), None);
        assert_eq!(lag.as_of(Some(40_000_000)), Some(40_000_000));
        let from_tomorrow = lag.as_of(Some(90_000_000_000)).expect("a moment");
        assert!(
            (100_000_000..200_000_000).contains(&from_tomorrow),
            "{from_tomorrow}"
        );
        let oldest = lag.read(Some(99_000_000));
        lag.waits(oldest);
        lag.caught_up();
        assert_eq!(
            lag.as_of(Some(40_000_000)),
            Some(40_000_000),
            "what waits may be what stands behind the place"
        );
        lag.applied(Some(oldest), None);
        lag.caught_up();
        assert!(lag.as_of(Some(40_000_000)) >= Some(100_000_000));
        lag.begin();
        assert_eq!(lag.as_of(Some(40_000_000)), Some(40_000_000));
    }

    #[test]
    fn a_commit_is_of_no_day_to_come_and_of_none_before_the_source_was_idle() {
        let lag = Lag::default();
        assert_eq!((lag.until_now(7), lag.since_idle(7)), (7, 7));
        let lag = lag_at(100_000_000);
        let now = 100_000_000..200_000_000;
        assert!(now.contains(&lag.until_now(90_000_000_000)));
        assert!(now.contains(&lag.since_idle(90_000_000_000)));
        assert_eq!(lag.since_idle(40_000_000), 40_000_000);
        lag.caught_up();
        assert!(now.contains(&lag.since_idle(40_000_000)));
        assert_eq!(
            lag.until_now(40_000_000),
            40_000_000,
            "a table's own stream reads what was there before"
        );
    }

    #[test]
    fn the_parts_make_up_the_whole() {
        let lag = lag_at(100_000_000);
        let newest = lag.read(Some(99_000_000));
        std::thread::sleep(Duration::from_millis(10));
        let began = Instant::now();
        std::thread::sleep(Duration::from_millis(20));
        let split = Split::of(
            newest,
            began,
            Duration::from_millis(1),
            Duration::from_millis(3),
        );
        assert!(split.read >= Duration::from_secs(1));
        assert!(split.waiting >= Duration::from_millis(10));
        assert!(
            split.transform >= Duration::from_millis(5)
                && split.insert >= Duration::from_millis(15)
        );
        assert!(split.total() <= newest.age());
    }

    #[test]
    fn a_clock_that_is_behind_gives_no_negative_lag() {
        let lag = lag_at(100_000_000);
        let commit = lag.read(Some(3_700_000_000));
        assert!(commit.age() < Duration::from_secs(1));
    }
}
