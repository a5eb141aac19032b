//! The calls of one plugin: in instances that wait or fresh ones, and more of them to find rows that fail.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::sync::OwnedSemaphorePermit;

use super::super::convert;
use super::super::faults::{self, BadRow, Search, is_of_rows, not_started};
use super::super::instance::{Instance, keeps_reasons};
use super::super::outputs;
use super::super::passing::Gone;
use super::super::verdict::{self, Answer};
use super::super::version::GuestInput;
use super::Step;
use crate::batch::{ChangeBatch, TableSchema};
use crate::config::OnError;
use crate::error::{Error, ErrorKind, Result};

impl Step {
    /// One call of the guest, on a thread that may block; more of them to find rows that fail, where these are passed over.
    /// The permit is held until the guest has really ended, also when nobody waits for it any more. Where other tables are
    /// held up by it, searches may take a part of the time only.
    pub(super) fn call(
        &self,
        batch: &ChangeBatch,
        range: Range<usize>,
        gone: &Gone,
        holds_up: bool,
        permit: OwnedSemaphorePermit,
    ) -> Result<Vec<Answer>> {
        let passes_over = self.plugin.on_error != OnError::Fail;
        let began = Instant::now();
        match self.attempt(batch, range.clone(), gone.is_routing, false) {
            Ok(answer) if passes_over => Ok(vec![answer]),
            Ok(answer) => {
                let counts = |bad: &&BadRow| !gone.holds(batch, range.start + bad.row);
                let bad: Vec<_> = answer.bad.iter().filter(counts).collect();
                match bad.as_slice() {
                    [first, ..] => Err(self.rejected(first, bad.len())),
                    [] => Ok(vec![answer]),
                }
            }
            Err(error) if passes_over && is_of_rows(error.kind()) => {
                // Other tables and pipes have their turn between the calls of a search.
                drop(permit);
                if holds_up {
                    self.ensure_holds_up_little(began, &error)?;
                }
                self.search(batch, range, gone.is_routing, holds_up, error)
            }
            Err(error) => Err(error),
        }
    }

    fn search(
        &self,
        batch: &ChangeBatch,
        range: Range<usize>,
        is_routing: bool,
        holds_up: bool,
        error: Error,
    ) -> Result<Vec<Answer>> {
        let runtime = tokio::runtime::Handle::current();
        let table = &self.binding.input.name;
        let attempt = |range| {
            let _permit = runtime.block_on(self.plugin.engine.permit())?;
            let began = Instant::now();
            let outcome = self.attempt(batch, range, is_routing, true);
            if holds_up {
                self.plugin.hold_ups.add(table, began, Instant::now());
            }
            outcome
        };
        Search::new(&self.binding, &self.plugin, &attempt)
            .run(range, error)
            .map_err(|error| error.with_table(table))
    }

    /// Counts a call that failed, which began then.
    fn ensure_holds_up_little(&self, began: Instant, error: &Error) -> Result<()> {
        let (plugin, table) = (&self.plugin, &self.binding.input.name);
        let now = Instant::now();
        plugin.hold_ups.add(table, began, now);
        let excess = plugin.hold_ups.excess(plugin.name(), table, now, error);
        excess.map_or(Ok(()), Err)
    }

    /// One call of the guest: in an instance that waits, or in a fresh one. What fails in an instance that has served others
    /// says nothing of these rows yet, so they are tried once more in one without a history.
    fn attempt(
        &self,
        batch: &ChangeBatch,
        range: Range<usize>,
        is_routing: bool,
        fresh: bool,
    ) -> Result<Answer> {
        let schema = &self.binding.input;
        let input = convert::input(&self.binding, batch, &range, is_routing).map_err(|column| {
            let column = &schema.columns[column].name;
            let name = self.plugin.name();
            Error::new(
                ErrorKind::PluginRejected,
                format!("column `{column}` holds bytes that are not UTF-8, and plugin `{name}` reads it as text"),
            )
            .with_table(&schema.name)
            .with_hint(format!(
                "mend the column's values at the source, exclude the column, or take `{name}` out of the table's `transforms`"
            ))
        })?;
        let pool = &self.plugin.engine.pool;
        let waiting = if fresh { None } else { pool.take(self.id) };
        if let Some(instance) = waiting {
            let tells = self.tells_history.load(Ordering::Relaxed);
            let has_history = instance.has_served() && !tells;
            match self.enter(instance, batch, &range, &input) {
                Err(error) if has_history && is_of_rows(error.kind()) => {}
                outcome => return outcome,
            }
        }
        let instance = self.start(schema)?;
        self.enter(instance, batch, &range, &input)
    }

    /// One more instance. Many that start at once, as when a load begins, take longer than one.
    fn start(&self, schema: &TableSchema) -> Result<Instance> {
        let started = faults::start(|| self.plugin.instance(schema));
        started.map_err(|error| not_started(self.plugin.name(), error))
    }

    /// One call of an instance, which serves others only after a sound answer.
    fn enter(
        &self,
        mut instance: Instance,
        batch: &ChangeBatch,
        range: &Range<usize>,
        input: &GuestInput<'_>,
    ) -> Result<Answer> {
        let schema = &self.binding.input;
        let outcome = instance.transform(&self.plugin, schema, input)?;
        let mut answer = verdict::check(&self.binding, range.len(), outcome)
            .map_err(|breach| self.plugin.breach(&breach).with_table(&schema.name))?;
        let most = self.plugin.limits.rows;
        if answer.output_rows() as u64 > most.max(range.len() as u64) {
            let error = self.plugin.too_much(format!("{most} rows"), "rows");
            return Err(error.with_table(&schema.name));
        }
        let targets = &self.binding.targets;
        answer.copied_bytes = outputs::copied_bytes(targets, batch, range, &answer);
        if answer.copied_bytes > self.plugin.limits.output_bytes {
            return Err(self.plugin.returns_too_much().with_table(&schema.name));
        }
        for (place, target) in targets.iter().enumerate() {
            outputs::ensure_distinct(target, place, batch, range, &answer)
                .map_err(|unfit| self.unfit(unfit))?;
        }
        if instance.may_serve() {
            let bytes = instance.memory_bytes();
            self.plugin.engine.pool.put(self.id, bytes, instance);
        }
        Ok(answer)
    }

    fn rejected(&self, first: &BadRow, count: usize) -> Error {
        let name = self.plugin.name();
        let (code, message) = (&first.code, &first.message);
        Error::new(
            ErrorKind::PluginRejected,
            format!("plugin `{name}` rejected {count} of a batch's rows"),
        )
        .with_table(&self.binding.input.name)
        .with_hint(keeps_reasons(name))
        .with_words(format!("the first with `{code}`: {message}"))
    }
}
