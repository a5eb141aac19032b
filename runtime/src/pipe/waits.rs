//! Append tables whose load cannot begin, or broke off, and what they wait for.
//!
//! Each waits by itself: the pipe's stream and the loads of other tables go on. The time between two attempts grows with
//! each, so that a load which breaks off after an hour does not read the source for ever.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::document::{Reason, ReasonKind};
use crate::batch::TableName;
use crate::error::Error;

/// The first wait; doubled each time.
const FIRST: Duration = Duration::from_secs(1);

/// The longest before a load is read from its beginning once more.
const LONGEST: Duration = Duration::from_secs(120);

/// The longest where no more than a lock is tried.
const LONGEST_HELD: Duration = Duration::from_secs(15);

/// By table; for as long as the process lives.
#[derive(Debug, Default)]
pub(super) struct Waits(Mutex<BTreeMap<TableName, Wait>>);

#[derive(Debug)]
struct Wait {
    what: What,
    attempts: u32,
    due: Instant,
    reason: Reason,
}

/// Why a table waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// Transactions at the source stand in the way of its load.
    Held,
    /// Its load broke off.
    Broken,
    /// The same, and it has begun anew: the reason stands until it has come to its end.
    BegunAnew,
}

impl Waits {
    fn all(&self) -> MutexGuard<'_, BTreeMap<TableName, Wait>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The load could not begin for what `error` tells of.
    pub(super) fn hold(&self, name: &TableName, error: &Error) {
        self.put(name, error, What::Held);
    }

    /// The load broke off.
    pub(super) fn broke_off(&self, name: &TableName, error: &Error) {
        self.put(name, error, What::Broken);
    }

    fn put(&self, name: &TableName, error: &Error, what: What) {
        let mut all = self.all();
        let before = all.get(name);
        let attempts = before.map_or(0, |wait| wait.attempts) + 1;
        let mut reason = Reason::new(ReasonKind::Retrying, error);
        if let Some(before) = before.filter(|wait| wait.reason.code == reason.code) {
            reason.since = before.reason.since;
        }
        let delay = delay(attempts, what);
        tracing::warn!(
            table = %name,
            attempts,
            retry_in_ms = delay.as_millis() as u64,
            hint = error.hint(),
            "{}",
            error.chain()
        );
        let wait = Wait {
            what,
            attempts,
            due: Instant::now() + delay,
            reason,
        };
        all.insert(name.clone(), wait);
    }

    /// What held the load is still there.
    pub(super) fn still_held(&self, name: &TableName) {
        if let Some(wait) = self.all().get_mut(name) {
            wait.attempts += 1;
            wait.due = Instant::now() + delay(wait.attempts, wait.what);
        }
    }

    /// The load begins.
    pub(super) fn begin(&self, name: &TableName) {
        let mut all = self.all();
        match all.get_mut(name) {
            Some(wait) if wait.what != What::Held => wait.what = What::BegunAnew,
            _ => drop(all.remove(name)),
        }
    }

    /// The load has come to its end, or is not wanted any more.
    pub(super) fn end(&self, name: &TableName) {
        self.all().remove(name);
    }

    /// Whether it is time to try.
    pub(super) fn is_due(&self, name: &TableName) -> bool {
        let all = self.all();
        all.get(name).is_none_or(|wait| wait.due <= Instant::now())
    }

    /// Whether the load waits for transactions at the source.
    pub(super) fn is_held(&self, name: &TableName) -> bool {
        self.is(name, What::Held)
    }

    /// Whether the load broke off and has not begun anew.
    pub(super) fn is_broken(&self, name: &TableName) -> bool {
        self.is(name, What::Broken)
    }

    fn is(&self, name: &TableName, what: What) -> bool {
        self.all().get(name).is_some_and(|wait| wait.what == what)
    }

    /// What stands against the pipe for these tables.
    pub(super) fn reasons(&self, stands: impl Fn(&TableName) -> bool) -> Vec<Reason> {
        let all = self.all();
        let standing = all.iter().filter(|(name, _)| stands(name));
        standing.map(|(_, wait)| wait.reason.clone()).collect()
    }
}

/// Jitter keeps tables that lost one server from returning all at once.
fn delay(attempts: u32, what: What) -> Duration {
    let longest = match what {
        What::Held => LONGEST_HELD,
        What::Broken | What::BegunAnew => LONGEST,
    };
    let doubled = 2_u32.saturating_pow(attempts.saturating_sub(1));
    let delay = FIRST.saturating_mul(doubled).min(longest);
    delay.mul_f64(rand::random_range(0.75..1.25))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn name() -> TableName {
        TableName {
            database: "shop".to_owned(),
            table: "log".to_owned(),
        }
    }

    fn error() -> Error {
        Error::new(ErrorKind::SourceUnavailable, "it broke off").with_table(&name())
    }

    #[test]
    fn each_attempt_waits_longer_up_to_a_bound() {
        assert!(delay(1, What::Broken) <= FIRST.mul_f64(1.25));
        assert!(delay(5, What::Broken) >= FIRST.mul_f64(16.0 * 0.75));
        assert!(delay(40, What::Broken) <= LONGEST.mul_f64(1.25));
        assert!(delay(40, What::Held) <= LONGEST_HELD.mul_f64(1.25));
    }

    #[test]
    fn a_load_that_broke_off_is_told_of_until_its_end_and_counts_its_attempts() {
        let waits = Waits::default();
        assert!(waits.is_due(&name()));
        waits.broke_off(&name(), &error());
        assert!(waits.is_broken(&name()) && !waits.is_due(&name()));
        waits.begin(&name());
        assert!(!waits.is_broken(&name()));
        assert_eq!(waits.reasons(|_| true).len(), 1);
        waits.broke_off(&name(), &error());
        assert_eq!(waits.all()[&name()].attempts, 2);
        waits.end(&name());
        assert!(waits.reasons(|_| true).is_empty() && waits.is_due(&name()));
    }

    #[test]
    fn what_held_a_load_is_forgotten_when_it_begins() {
        let waits = Waits::default();
        waits.hold(&name(), &error());
        assert!(waits.is_held(&name()) && !waits.is_broken(&name()));
        waits.begin(&name());
        assert!(waits.reasons(|_| true).is_empty());
    }
}
