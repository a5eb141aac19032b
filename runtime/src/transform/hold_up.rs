//! How much of the time the search for a table's failing rows may take from the others.
//!
//! The rows of one flush become visible together, so all tables of a pipe wait while the rows on which one table's plugin
//! fails are searched for. A few such rows now and then are what `on_error: skip` and `dead_letter` are for; a plugin that
//! fails all the time would keep every table behind for ever. So the time of failing calls and of their searches is counted
//! for each plugin and table, and a table that has taken more than half of a while is taken out of service.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::batch::TableName;
use crate::error::{Error, ErrorKind};

/// Calls that use up their time: so long may searches take within the window, and with 1 s for a call that is a minute.
const CALLS: u32 = 60;

/// What [`CALLS`] calls are held to: as much as a single search may take, or more.
const MOST: RangeInclusive<Duration> = Duration::from_secs(30)..=Duration::from_secs(300);

/// The window is so many times what searches may take in it: a half.
const WINDOWS: u32 = 2;

/// Calls between which less than this part of the window passes count as one, which bounds what is kept of them.
const GRAINS: u32 = 1_000;

/// The time that one plugin's failing calls and their searches took, by table. It outlives bindings: a search may take so
/// long that the source ends the connection, and the next one binds anew.
#[derive(Debug)]
pub(super) struct HoldUps {
    most: Duration,
    spent: Mutex<BTreeMap<TableName, Spent>>,
}

impl HoldUps {
    /// For calls that may take as long as `time`.
    pub(super) fn new(time: Duration) -> Self {
        Self {
            most: time.saturating_mul(CALLS).clamp(*MOST.start(), *MOST.end()),
            spent: Mutex::default(),
        }
    }

    fn window(&self) -> Duration {
        self.most * WINDOWS
    }

    /// Counts a call of a search, or the one that failed before it. Calls that overlap count once.
    pub(super) fn add(&self, table: &TableName, began: Instant, ended: Instant) {
        let mut spent = self.lock();
        let spent = spent.entry(table.clone()).or_default();
        spent.add(began, ended, self.window());
    }

    /// What takes a table out of service whose searches have taken too much of the time; `error` is the latest fault.
    pub(super) fn excess(
        &self,
        plugin: &str,
        table: &TableName,
        now: Instant,
        error: &Error,
    ) -> Option<Error> {
        let window = self.window();
        let spent = self.lock().get(table)?.within(window, now);
        if spent <= self.most {
            return None;
        }
        let (spent, window) = (spent.as_secs(), window.as_secs());
        let excess = Error::new(
            ErrorKind::PluginHoldsUp,
            format!(
                "plugin `{plugin}` fails on so many rows that the search for them took {spent} of the last {window} s, \
                 for which all tables wait: {}",
                error.message()
            ),
        )
        .with_hint(format!(
            "mend the plugin; or change `transforms.{plugin}.limits.time`: longer where its rows need more, shorter so \
             that each that never ends costs less; then `pipewright tables retry`"
        ))
        .with_words(error.words().map(str::to_owned))
        .with_table(table);
        Some(excess)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TableName, Spent>> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Spans of time, none of which touches the next; the newest last.
#[derive(Debug, Default)]
struct Spent {
    spans: VecDeque<(Instant, Instant)>,
}

impl Spent {
    /// Spans come in the order of their ends, or nearly.
    fn add(&mut self, mut began: Instant, mut ended: Instant, window: Duration) {
        while let Some((first, last)) = self.spans.back().copied() {
            if last + window / GRAINS < began {
                break;
            }
            began = began.min(first);
            ended = ended.max(last);
            self.spans.pop_back();
        }
        self.spans.push_back((began, ended));
        while let Some((_, last)) = self.spans.front()
            && *last + window < ended
        {
            self.spans.pop_front();
        }
    }

    /// How much of the time since `window` before `now` it is.
    fn within(&self, window: Duration, now: Instant) -> Duration {
        let age = |at: Instant| now.saturating_duration_since(at).min(window);
        let spans = self.spans.iter();
        spans.map(|(began, ended)| age(*began) - age(*ended)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Scope;

    const SECOND: Duration = Duration::from_secs(1);

    fn fault() -> Error {
        Error::new(
            ErrorKind::PluginTimeout,
            "plugin `slow` took longer than its limit",
        )
    }

    fn is_over(hold_ups: &HoldUps, table: &TableName, now: Instant) -> bool {
        hold_ups.excess("slow", table, now, &fault()).is_some()
    }

    #[test]
    fn a_table_whose_searches_take_more_than_half_of_the_time_is_too_much_for_the_others() {
        let hold_ups = HoldUps::new(SECOND);
        let (table, other) = (
            TableName::new("shop", "orders"),
            TableName::new("shop", "customers"),
        );
        let start = Instant::now();
        let mut now = start;
        // 17 s of each 18, as with one row in a whole call that loops.
        while !is_over(&hold_ups, &table, now) {
            assert!(now - start < 70 * SECOND, "after {:?}", now - start);
            let began = now + SECOND;
            now = began + 17 * SECOND;
            for second in 0..17 {
                let call = began + second * SECOND;
                hold_ups.add(&table, call, call + SECOND);
            }
        }
        assert!(now - start > 60 * SECOND, "after {:?}", now - start);
        assert!(!is_over(&hold_ups, &other, now), "which has no part in it");
        let error = hold_ups.excess("slow", &table, now, &fault()).unwrap();
        assert_eq!(error.kind().scope(), Scope::Table);
        assert_eq!(error.table(), Some(&table));
        let told = error.chain();
        assert!(
            told.contains("68 of the last 120 s") && told.contains("than its limit"),
            "{told}"
        );
        let hint = error.hint().unwrap_or_default();
        assert!(
            hint.contains("`transforms.slow.limits.time`") && hint.contains("tables retry"),
            "{hint}"
        );
        assert!(
            !is_over(&hold_ups, &table, now + 60 * SECOND),
            "what is long ago is forgotten"
        );
    }

    #[test]
    fn rows_that_fail_now_and_then_are_never_too_much() {
        let hold_ups = HoldUps::new(SECOND);
        let table = TableName::new("shop", "orders");
        let mut now = Instant::now();
        for _ in 0..1_000 {
            hold_ups.add(&table, now, now + 17 * SECOND);
            now += 40 * SECOND;
            assert!(!is_over(&hold_ups, &table, now));
        }
        let kept = hold_ups.lock()[&table].spans.len();
        assert!(kept <= 4, "{kept} spans are kept");
    }

    #[test]
    fn calls_that_overlap_count_once() {
        let hold_ups = HoldUps::new(SECOND);
        let table = TableName::new("shop", "orders");
        let start = Instant::now();
        for core in 0..4 {
            let began = start + core * SECOND / 10;
            hold_ups.add(&table, began, began + 20 * SECOND);
        }
        hold_ups.add(&table, start, start + 30 * SECOND);
        let spent = hold_ups.lock()[&table].within(120 * SECOND, start + 30 * SECOND);
        assert_eq!(spent, 30 * SECOND);
        assert!(!is_over(&hold_ups, &table, start + 30 * SECOND));
    }

    #[test]
    fn a_search_alone_never_takes_too_much_and_the_calls_of_many_are_kept_in_few_places() {
        for (time, most) in [(0, 30), (500, 30), (1_000, 60), (30_000, 300)] {
            let hold_ups = HoldUps::new(Duration::from_millis(time));
            assert_eq!(hold_ups.most, most * SECOND, "{time} ms");
        }
        let hold_ups = HoldUps::new(SECOND);
        let table = TableName::new("shop", "orders");
        let mut now = Instant::now();
        for _ in 0..100_000 {
            hold_ups.add(&table, now, now + SECOND / 1_000);
            now += SECOND / 500;
        }
        let kept = hold_ups.lock()[&table].spans.len();
        assert!(kept <= 1_000, "{kept} spans are kept");
    }
}
