//! Rows a second, from counters that only grow.

use std::collections::HashMap;

use tokio::time::Instant;

use crate::pipe::document::{PipeDocument, TableDocument};

/// Seconds after which an observation has lost most of its weight.
const SMOOTHING_SECONDS: f64 = 2.0;

/// Smoothed rates of every table.
#[derive(Debug, Default)]
pub(super) struct Rates {
    at: Option<Instant>,
    tables: HashMap<(String, String), Counters>,
}

#[derive(Debug)]
struct Counters {
    loaded: u64,
    changed: u64,
    rate: Rate,
}

/// Rows a second of one table.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rate {
    /// By the load.
    pub(super) loaded: f64,
    /// By the stream.
    pub(super) changed: f64,
}

impl Rates {
    /// Takes the counters of a moment.
    pub(super) fn observe(&mut self, pipes: &[PipeDocument], now: Instant) {
        let seconds = self.at.map_or(0.0, |at| (now - at).as_secs_f64());
        self.at = Some(now);
        let weight = 1.0 - (-seconds / SMOOTHING_SECONDS).exp();
        let smoothed = |rate: f64, before: u64, after: u64| {
            if seconds == 0.0 {
                return rate;
            }
            rate + weight * (after.saturating_sub(before) as f64 / seconds - rate)
        };
        for pipe in pipes {
            for table in &pipe.tables {
                let (loaded, changed) = (table.snapshot.rows, table.rows.total());
                let counters = self.tables.entry(key(pipe, table)).or_insert(Counters {
                    loaded,
                    changed,
                    rate: Rate::default(),
                });
                counters.rate = Rate {
                    loaded: smoothed(counters.rate.loaded, counters.loaded, loaded),
                    changed: smoothed(counters.rate.changed, counters.changed, changed),
                };
                (counters.loaded, counters.changed) = (loaded, changed);
            }
        }
    }

    /// The rate of a table; nothing for one never observed.
    pub(super) fn of(&self, pipe: &PipeDocument, table: &TableDocument) -> Rate {
        self.tables
            .get(&key(pipe, table))
            .map_or(Rate::default(), |counters| counters.rate)
    }

    /// The rate of all tables of a pipe.
    pub(super) fn sum(&self, pipe: &PipeDocument) -> Rate {
        pipe.tables.iter().fold(Rate::default(), |sum, table| {
            let rate = self.of(pipe, table);
            Rate {
                loaded: sum.loaded + rate.loaded,
                changed: sum.changed + rate.changed,
            }
        })
    }
}

fn key(pipe: &PipeDocument, table: &TableDocument) -> (String, String) {
    (pipe.pipe.clone(), table.source.clone())
}
