//! Whether the pipe's stream gets anywhere. A source, or what stands before it, may take every connection and break off
//! every binlog that it is asked for; each attempt alone looks as if the source were back.
//!
//! A stream gets somewhere with a heartbeat, or with anything behind the place at which an earlier one broke. One that
//! broke without either leaves the pipe stuck, until a later one has got somewhere.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::progress::Progress;
use crate::error::{Error, ErrorKind, Result};
use crate::source::mysql::binlog::{Idle, Item};
use crate::source::mysql::position::Position;

/// Of the pipe's own stream; those of single tables end with it.
#[derive(Debug, Default)]
pub(super) struct Pulse(Mutex<Beats>);

#[derive(Debug, Default)]
struct Beats {
    /// Where the newest stream that broke had come to.
    broke_at: Option<Position>,
    /// Whether the present stream has got somewhere.
    heard: bool,
    stuck: bool,
}

impl Pulse {
    /// Another stream is open.
    pub(super) fn begins(&self) {
        self.beats().heard = false;
    }

    /// Whether the newest stream that broke had got nowhere, and none has since.
    pub(super) fn is_stuck(&self) -> bool {
        self.beats().stuck
    }

    /// The stream has brought `item`. True when with it the pipe is stuck no more.
    pub(super) fn hears(&self, item: &Item) -> bool {
        let mut beats = self.beats();
        if beats.heard {
            return false;
        }
        let nothing_new = |at: &Position| at.contains(&item.end().position) == Some(true);
        let silent = matches!(
            item,
            Item::Idle(Idle {
                caught_up: true,
                ..
            })
        );
        if !silent && beats.broke_at.as_ref().is_some_and(nothing_new) {
            return false;
        }
        beats.heard = true;
        std::mem::take(&mut beats.stuck)
    }

    /// The stream has broken behind `at`. True when it had got nowhere.
    pub(super) fn breaks(&self, at: &Position) -> bool {
        let mut beats = self.beats();
        beats.stuck = !beats.heard;
        if beats.heard {
            beats.broke_at = Some(at.clone());
        }
        beats.stuck
    }

    fn beats(&self) -> MutexGuard<'_, Beats> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    /// Takes note of what the pipe's stream has brought behind `at`. What held it up stands no longer once it has got
    /// somewhere.
    pub(super) fn heard(&self, item: Result<Item>, at: &Position) -> Result<Item> {
        match item {
            Ok(item) => {
                if self.pulse.hears(&item) {
                    self.set_reasons(Vec::new());
                }
                Ok(item)
            }
            Err(error) if error.kind() != ErrorKind::SourceUnavailable => Err(error),
            Err(error) if self.pulse.breaks(at) => Err(breaking_off(error)),
            Err(error) => Err(error),
        }
    }
}

fn breaking_off(error: Error) -> Error {
    let hint = error.hint().map(str::to_owned);
    Error::new(
        ErrorKind::SourceUnavailable,
        "the source takes connections, and breaks off the binlog before it sends anything new",
    )
    .with_hint(hint.unwrap_or_else(|| {
        "look into the source's error log; where a proxy or balancer stands before the source, let it carry \
         COM_BINLOG_DUMP, or name the server itself as `source.host`"
            .to_owned()
    }))
    .with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::mysql::position::StreamPlace;

    fn idle(transactions: u64, caught_up: bool) -> Item {
        let set = format!("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-{transactions}");
        let set = set.parse().expect("a GTID set");
        Item::Idle(Idle {
            end: StreamPlace {
                position: Position::Gtid { set },
                offset: 0,
            },
            committed_at_us: None,
            caught_up,
        })
    }

    fn place(transactions: u64) -> Position {
        idle(transactions, false).end().position.clone()
    }

    #[test]
    fn what_was_read_before_is_no_sign_of_life() {
        let pulse = Pulse::default();
        pulse.begins();
        assert!(!pulse.hears(&idle(5, false)), "nothing was wrong");
        assert!(!pulse.breaks(&place(5)), "it had got somewhere");
        pulse.begins();
        assert!(!pulse.is_stuck());
        assert!(!pulse.hears(&idle(5, false)));
        assert!(pulse.breaks(&place(5)));
        pulse.begins();
        assert!(pulse.is_stuck());
        assert!(!pulse.hears(&idle(4, false)));
        assert!(pulse.is_stuck());
        assert!(pulse.hears(&idle(6, false)), "further than ever");
        assert!(!pulse.is_stuck());
    }

    #[test]
    fn a_heartbeat_is_a_sign_of_life() {
        let pulse = Pulse::default();
        for _ in 0..2 {
            pulse.begins();
            assert!(pulse.breaks(&place(5)));
        }
        pulse.begins();
        assert!(pulse.hears(&idle(5, true)));
        assert!(!pulse.is_stuck() && !pulse.breaks(&place(5)));
    }
}
