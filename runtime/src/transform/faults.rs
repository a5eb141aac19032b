//! Rows that a plugin rejects or fails on, and what becomes of them.
//!
//! A call that fails in a fresh instance says nothing of which row was at fault. Under `on_error: dead_letter` and `skip`
//! the rows are given again to fresh instances, half of them at a time, until single rows are left that fail alone. When a
//! call fails on rows together and on none of them alone, its result depends on how rows are cut, which no replay could
//! repeat: that is a fault of its own, and never passed over. Limits are another matter: fewer rows need less of everything.

use std::ops::{Range, RangeInclusive};
use std::time::{Duration, Instant};

use super::binding::Binding;
use super::instance::Plugin;
use super::limits::BATCH_ANSWER_BYTES;
use super::verdict::Answer;
use super::version::GuestRejection;
use crate::error::{Error, ErrorKind, Result};
use crate::one_line::one_line;

/// Calls that may be spent on finding one row: the halves of a whole call down to one row are 32.
const CALLS_PER_ROW: u32 = 40;

/// What a search may take: as long as the calls for one row that use up their time, within these bounds. The table's other
/// rows wait for it, and those that were flushed with them.
const TIME: RangeInclusive<Duration> = Duration::from_secs(30)..=Duration::from_secs(300);

/// Rows of one call that may fail before the plugin counts as broken.
const ROWS_PER_CALL: usize = 1_000;

/// A row of a batch that a plugin rejected or failed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The row of the batch as it was before the first plugin.
    pub row: usize,
    /// The plugin's name in the pipe file.
    pub plugin: String,
    /// The plugin's digest.
    pub digest: String,
    /// Which fault.
    pub kind: ErrorKind,
    /// The plugin's own word for it, or the fault's.
    pub code: String,
    /// For people.
    pub message: String,
    /// Whether the row is kept as a dead letter.
    pub is_letter: bool,
}

/// A row of a call that the guest rejected or failed on.
#[derive(Clone, Debug)]
pub(super) struct BadRow {
    pub(super) row: usize,
    pub(super) kind: ErrorKind,
    pub(super) code: String,
    pub(super) message: String,
}

impl BadRow {
    pub(super) fn rejected(rejection: GuestRejection) -> Self {
        Self {
            row: rejection.row as usize,
            kind: ErrorKind::PluginRejected,
            code: short(&rejection.code),
            message: short(&rejection.message),
        }
    }

    fn failed(error: &Error) -> Self {
        Self {
            row: 0,
            kind: error.kind(),
            code: error.kind().code(),
            message: match error.words() {
                Some(words) => format!("{}: {words}", error.message()),
                None => error.message().to_owned(),
            },
        }
    }
}

/// Whether the rows of a call are at fault, and not the host or the component.
pub(super) fn is_of_rows(kind: ErrorKind) -> bool {
    depends_on_row(kind) || is_limit(kind)
}

fn depends_on_row(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::PluginTrap
            | ErrorKind::PluginOutput
            | ErrorKind::PluginSchema
            | ErrorKind::PluginRowCount
            | ErrorKind::PluginKey
            | ErrorKind::PluginRejected
    )
}

pub(super) fn is_limit(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::PluginTimeout
            | ErrorKind::PluginMemory
            | ErrorKind::PluginOutputSize
            | ErrorKind::PluginLog
    )
}

/// How often a start is tried: the next may succeed on a machine that has more time or memory left then.
const START_TRIES: u32 = 3;

/// Before a start is tried once more, and twice that before the last time.
const START_PAUSE: Duration = Duration::from_millis(200);

/// Starts one more instance of a plugin that has started before, so that whatever it fails of may pass.
pub(super) fn start<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let mut tries = 1;
    loop {
        match attempt() {
            Err(error) if tries < START_TRIES && is_of_rows(error.kind()) => {
                std::thread::sleep(START_PAUSE * tries);
                tries += 1;
            }
            outcome => return outcome,
        }
    }
}

/// The first start of a pipe's plugin, or its binding to a table. One that ran out of time is tried anew, since the machine may
/// have been busy; anything else is the plugin's own.
pub(crate) async fn first_start<T, F>(attempt: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let mut tries = 1;
    loop {
        match attempt().await {
            Err(error) if tries < START_TRIES && error.kind() == ErrorKind::PluginTimeout => {
                tokio::time::sleep(START_PAUSE * tries).await;
                tries += 1;
            }
            outcome => return outcome,
        }
    }
}

/// What became of one more instance of a plugin that has started before. The rows that wait for it are not at fault.
pub(super) fn not_started(plugin: &str, error: Error) -> Error {
    if !is_of_rows(error.kind()) {
        return error;
    }
    let what =
        format!("one more instance of plugin `{plugin}` does not start, {START_TRIES} times");
    let hint = error.hint().map(str::to_owned);
    let table = error.table().cloned();
    let mut failed = Error::new(ErrorKind::PluginStart, what).with_source(error);
    if let Some(hint) = hint {
        failed = failed.with_hint(hint);
    }
    match table {
        Some(table) => failed.with_table(&table),
        None => failed,
    }
}

/// Finds the failing rows of a call that failed as a whole.
pub(super) struct Search<'a> {
    pub(super) binding: &'a Binding,
    pub(super) plugin: &'a Plugin,
    /// One call over these rows in a fresh instance.
    pub(super) attempt: &'a dyn Fn(Range<usize>) -> Result<Answer>,
    deadline: Instant,
    calls_left: u32,
    rows_left: usize,
    found: usize,
    answers: Vec<Answer>,
    bytes: u64,
}

impl<'a> Search<'a> {
    pub(super) fn new(
        binding: &'a Binding,
        plugin: &'a Plugin,
        attempt: &'a dyn Fn(Range<usize>) -> Result<Answer>,
    ) -> Self {
        let time = plugin.limits.time.saturating_mul(CALLS_PER_ROW);
        Self {
            binding,
            plugin,
            attempt,
            deadline: Instant::now() + time.clamp(*TIME.start(), *TIME.end()),
            calls_left: CALLS_PER_ROW,
            rows_left: ROWS_PER_CALL,
            found: 0,
            answers: Vec::new(),
            bytes: 0,
        }
    }

    /// The answers for all of `range`, in order, each failing row with one of its own.
    ///
    /// # Errors
    /// What failed, when too much does; [`ErrorKind::PluginCutDependent`].
    pub(super) fn run(mut self, range: Range<usize>, error: Error) -> Result<Vec<Answer>> {
        self.halve(range, error)?;
        Ok(self.answers)
    }

    fn halve(&mut self, range: Range<usize>, error: Error) -> Result<()> {
        if range.len() == 1 {
            self.rows_left = self
                .rows_left
                .checked_sub(1)
                .ok_or_else(|| self.too_many(&error))?;
            self.calls_left = CALLS_PER_ROW;
            self.found += 1;
            let bad = BadRow::failed(&error);
            self.answers.push(Answer::failed(self.binding, bad));
            return Ok(());
        }
        let found_before = self.found;
        let middle = range.start + range.len() / 2;
        for half in [range.start..middle, middle..range.end] {
            self.calls_left = self
                .calls_left
                .checked_sub(1)
                .filter(|_| Instant::now() < self.deadline)
                .ok_or_else(|| self.too_many(&error))?;
            match (self.attempt)(half.clone()) {
                Ok(answer) => {
                    self.bytes += answer.bytes();
                    self.answers.push(answer);
                    // Parts that were allowed each may be too much together.
                    if self.bytes > BATCH_ANSWER_BYTES {
                        return Err(self.plugin.fills_batch());
                    }
                }
                Err(error) if is_of_rows(error.kind()) => self.halve(half, error)?,
                Err(error) => return Err(error),
            }
        }
        if self.found == found_before && depends_on_row(error.kind()) {
            let (name, rows) = (self.plugin.name(), range.len());
            return Err(Error::new(
                ErrorKind::PluginCutDependent,
                format!(
                    "plugin `{name}` fails on {rows} rows together and on none of them alone: {}",
                    error.message()
                ),
            )
            .with_hint(format!(
                "report this to the author of plugin `{name}`: each row's result must be its own"
            ))
            .with_words(error.words().map(str::to_owned)));
        }
        Ok(())
    }

    fn too_many(&self, error: &Error) -> Error {
        let name = self.plugin.name();
        Error::new(
            error.kind(),
            format!(
                "plugin `{name}` fails on more rows of one batch than are passed over: {}",
                error.message()
            ),
        )
        .with_hint(error.hint().unwrap_or("mend the plugin").to_owned())
        .with_words(error.words().map(str::to_owned))
    }
}

/// A guest's text, short enough for a line.
pub(super) fn short(text: &str) -> String {
    const BYTES: usize = 300;
    one_line(text, BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::TableName;
    use crate::error::Scope;

    #[test]
    fn no_row_is_blamed_for_an_instance_that_does_not_start() {
        for kind in [
            ErrorKind::PluginTimeout,
            ErrorKind::PluginTrap,
            ErrorKind::PluginMemory,
            ErrorKind::PluginLog,
            ErrorKind::PluginOutput,
        ] {
            assert!(is_of_rows(kind), "{kind:?}, behind the start");
            let error = Error::new(kind, "plugin `slow` took longer than its limit")
                .with_table(&TableName::new("shop", "orders"))
                .with_hint("raise `transforms.slow.limits.time`");
            let error = not_started("slow", error);
            assert!(!is_of_rows(error.kind()), "{kind:?}");
            assert_eq!(error.kind().scope(), Scope::Table, "{kind:?}");
            let told = error.chain();
            assert!(told.contains("plugin `slow` does not start"), "{told}");
            assert!(
                told.contains("shop.orders") && told.contains("than its limit"),
                "{told}"
            );
            assert!(
                error
                    .hint()
                    .is_some_and(|hint| hint.contains("limits.time"))
            );
        }
        let refused = Error::new(ErrorKind::PluginRefused, "refuses its configuration");
        assert_eq!(
            not_started("slow", refused).kind(),
            ErrorKind::PluginRefused
        );
    }

    #[tokio::test]
    async fn a_first_start_that_ran_out_of_time_is_tried_anew_and_no_other_is() {
        for (kind, awaited) in [
            (ErrorKind::PluginTimeout, START_TRIES),
            (ErrorKind::PluginTrap, 1),
        ] {
            let tries = std::cell::Cell::new(0);
            let attempt = || {
                tries.set(tries.get() + 1);
                std::future::ready(Err::<(), _>(Error::new(kind, "plugin `slow`")))
            };
            let error = first_start(attempt).await.expect_err("it never starts");
            assert_eq!((error.kind(), tries.get()), (kind, awaited));
        }
        let tries = std::cell::Cell::new(0);
        let attempt = || {
            let first = tries.replace(1) == 0;
            std::future::ready(match first {
                true => Err(Error::new(ErrorKind::PluginTimeout, "plugin `slow`")),
                false => Ok(()),
            })
        };
        first_start(attempt).await.expect("the second time");
    }
}
