//! When silence of the source means a dead connection.
//!
//! A whole event is heard, and so is any part of one: a large event takes longer than the limit on a slow link, and in the
//! middle of it a source has no heartbeats to send.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, ErrorKind};

/// How long a caller who comes back after a long absence waits for what should have piled up meanwhile.
const GRACE: Duration = Duration::from_secs(5);

/// What was heard last, and how long nothing may be.
#[derive(Debug)]
pub(super) struct Silence {
    limit: Duration,
    event_at: Instant,
    grace_from: Option<Instant>,
}

impl Silence {
    /// Counts from `now`.
    pub(super) fn new(limit: Duration, now: Instant) -> Self {
        Self {
            limit,
            event_at: now,
            grace_from: None,
        }
    }

    /// A whole event has come. When the one before it did.
    pub(super) fn hears_event(&mut self, now: Instant) -> Instant {
        self.grace_from = None;
        std::mem::replace(&mut self.event_at, now)
    }

    /// When the connection is dead, of which bytes came last at `read_at`. Nobody heard what came while nobody asked, so the
    /// first question after the time is up gets a grace; further ones do not prolong it.
    pub(super) fn deadline(&mut self, now: Instant, read_at: Instant) -> Instant {
        let deadline = self.event_at.max(read_at) + self.limit;
        if now < deadline {
            deadline
        } else {
            *self.grace_from.get_or_insert(now) + GRACE
        }
    }

    /// That it is.
    pub(super) fn error(&self) -> Error {
        Error::new(
            ErrorKind::SourceUnavailable,
            format!(
                "neither event nor heartbeat from the source for {} s",
                self.limit.as_secs()
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[test]
    fn parts_of_an_event_put_the_end_off_and_questions_do_not() {
        let began = Instant::now();
        let mut silence = Silence::new(LIMIT, began);
        assert_eq!(silence.deadline(began, began), began + LIMIT);
        let read_at = began + LIMIT / 2;
        assert_eq!(silence.deadline(read_at, read_at), read_at + LIMIT);
        let now = began + LIMIT;
        assert_eq!(silence.deadline(now, read_at), read_at + LIMIT);
        assert_eq!(silence.hears_event(now), began);
        assert_eq!(silence.deadline(now, read_at), now + LIMIT);
    }

    #[test]
    fn who_comes_back_late_waits_for_a_grace_once() {
        let began = Instant::now();
        let mut silence = Silence::new(LIMIT, began);
        let back = began + 2 * LIMIT;
        assert_eq!(silence.deadline(back, began), back + GRACE);
        assert_eq!(silence.deadline(back + GRACE / 2, began), back + GRACE);
        silence.hears_event(back);
        let again = back + LIMIT;
        assert_eq!(silence.deadline(again, began), again + GRACE);
    }
}
