//! The plugins of one table, in order, over its batches.
//!
//! What a plugin may do is bounded so that the destination converges whatever the plugin is: it cannot set op or
//! version, cannot drop a delete, and a row that it drops from the stream becomes a delete at its own version, so that
//! a row which stops matching a filter disappears. A row dropped from a load was never there and needs no delete. How rows
//! that go to several targets converge stands in `outputs`, what becomes of rows that fail in `faults`.

mod calls;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrow::array::new_empty_array;
use arrow::error::ArrowError;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::binding::{Binding, WriteKind};
use super::engine::blocking;
use super::faults::{Fault, is_limit};
use super::instance::Plugin;
use super::limits::{BATCH_ANSWER_BYTES, INPUT_PART_OF_MEMORY};
use super::outputs::{self, Unfit};
use super::passing::{Gone, Passing};
use super::verdict::{Answer, bad_rows};
use super::{addresses, blank, convert, verdict};
use crate::batch::{ChangeBatch, Changes, Op, TableSchema};
use crate::config::{OnError, OnRejected};
use crate::error::{Error, ErrorKind, Result};

/// The plugins of one table, bound to its columns. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Chain {
    steps: Vec<Arc<Step>>,
    input: Arc<TableSchema>,
    outputs: Vec<ChainOutput>,
    /// Whether no other table waits for its batches.
    is_apart: bool,
}

/// Where a chain's rows go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainOutput {
    /// The target's name; none for the table's own.
    pub target: Option<String>,
    /// Its columns, and what identifies a row.
    pub schema: Arc<TableSchema>,
}

/// What a chain made of a batch.
#[derive(Clone, Debug)]
pub struct Applied {
    /// Rows by place among [`Chain::outputs`], each at most once.
    pub batches: Vec<(usize, ChangeBatch)>,
    /// Rows that failed and were passed over.
    pub faults: Vec<Fault>,
}

/// What one plugin of a chain does, for people.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct StepDescription {
    /// The plugin's name in the pipe file.
    pub plugin: String,
    /// The columns that it gets to see.
    pub reads: Vec<String>,
    /// The columns that it replaces or adds.
    pub writes: Vec<String>,
    /// Whether it may drop rows.
    pub may_drop: bool,
    /// The targets that it sends rows to; an empty name is the table's own. None when every row stays in its table.
    pub targets: Vec<String>,
}

#[derive(Debug)]
struct Step {
    plugin: Arc<Plugin>,
    binding: Binding,
    /// Under which the pool keeps its instances.
    id: u64,
    /// Whether what fails in an instance that has served others is told at once.
    tells_history: AtomicBool,
    /// Whether rows of the table's own target are told apart by more than their key.
    is_ordered_wider: AtomicBool,
    /// Whether each tombstone is given, also one that the next row outranks.
    gives_all: AtomicBool,
}

static NEXT_BINDING: AtomicU64 = AtomicU64::new(0);

impl Chain {
    /// Binds plugins to a table in the order in which they will run; each sees the columns that the one before leaves.
    ///
    /// # Errors
    /// [`ErrorKind::PluginRefused`] when a plugin refuses the table or wants what this build or the key forbids.
    pub async fn bind(plugins: &[Arc<Plugin>], schema: Arc<TableSchema>) -> Result<Self> {
        let mut steps: Vec<Arc<Step>> = Vec::with_capacity(plugins.len());
        let mut output = Arc::clone(&schema);
        for plugin in plugins {
            ensure_stays(steps.last(), &schema)?;
            let plugin = Arc::clone(plugin);
            let input = Arc::clone(&output);
            let step = blocking(move || Step::bind(plugin, input)).await?;
            ensure_both_images(&steps, &step, &schema)?;
            output = Arc::clone(&step.binding.output);
            steps.push(Arc::new(step));
        }
        let outputs = match steps.last() {
            Some(step) if !step.binding.targets.is_empty() => step.outputs(),
            _ => vec![ChainOutput {
                target: None,
                schema: output,
            }],
        };
        Ok(Self {
            steps,
            input: schema,
            outputs,
            is_apart: false,
        })
    }

    /// The same, telling what fails in an instance that has served others without a second try: its author is to see it.
    #[must_use]
    pub fn telling_history(self) -> Self {
        for step in &self.steps {
            step.tells_history.store(true, Ordering::Relaxed);
        }
        self
    }

    /// The same for a table whose own target is ordered by more columns than the key: an image of the same key need not
    /// outrank the tombstone of the one before.
    #[must_use]
    pub fn ordered_wider(self) -> Self {
        for step in &self.steps {
            step.is_ordered_wider.store(true, Ordering::Relaxed);
        }
        self
    }

    /// The same, giving each tombstone, also one that the next row outranks: so that what rows give together can be compared
    /// with what each gives alone.
    #[must_use]
    pub fn giving_all(self) -> Self {
        for step in &self.steps {
            step.gives_all.store(true, Ordering::Relaxed);
        }
        self
    }

    /// The same, for batches that no other table waits for: failing rows may be searched for however often.
    #[must_use]
    pub fn apart(&self) -> Self {
        Self {
            is_apart: true,
            ..self.clone()
        }
    }

    /// Where rows go: one place at least.
    pub fn outputs(&self) -> &[ChainOutput] {
        &self.outputs
    }

    /// The columns of the first output.
    pub fn output(&self) -> &Arc<TableSchema> {
        &self.outputs[0].schema
    }

    /// Whether rows may go to several targets or have another key: the chain then needs both images of an update, as a
    /// delete and the row that follows.
    pub fn is_routing(&self) -> bool {
        self.steps
            .last()
            .is_some_and(|step| !step.binding.targets.is_empty())
    }

    /// Whether rows that fail may be kept as dead letters.
    pub fn keeps_letters(&self) -> bool {
        self.steps
            .iter()
            .any(|step| step.plugin.on_error == OnError::DeadLetter)
    }

    /// Whether batches pass as they are.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// What each plugin does.
    pub fn describe(&self) -> Vec<StepDescription> {
        self.steps.iter().map(|step| step.describe()).collect()
    }

    /// Sends a batch through all plugins. Rows keep their order; rows dropped from a load are gone, rows dropped from the
    /// stream are deletes. The same batch may be applied again.
    ///
    /// # Errors
    /// What a plugin did: a trap, an exceeded limit, malformed output, rejected rows, where these are not passed over.
    /// Nothing of the batch is usable then.
    pub async fn apply(&self, batch: ChangeBatch) -> Result<Applied> {
        if !Arc::ptr_eq(&batch.schema, &self.input) && batch.schema != self.input {
            let error = Error::new(
                ErrorKind::Internal,
                "a batch has other columns than its plugins were bound to",
            );
            return Err(error.with_table(&self.input.name));
        }
        let mut faults = Vec::new();
        let mut passing = Passing {
            batch,
            stayed: Vec::new(),
            gone: Gone {
                is_routing: self.is_routing(),
                dropped: None,
            },
        };
        for step in &self.steps {
            let gone = passing.gone.clone();
            // Loads wait for nobody, and nobody for them.
            let is_stream = matches!(passing.batch.changes, Changes::Stream { .. });
            let holds_up = is_stream && !self.is_apart;
            let (batch, answers) = Step::answers(step, passing.batch, gone, holds_up).await?;
            passing.batch = batch;
            step.note_faults(&passing, &answers, &mut faults);
            if self.is_routing() {
                step.ensure_last_images(&passing, &answers)?;
            }
            if !step.binding.targets.is_empty() {
                let batches = step.route(&passing, &answers)?;
                return Ok(Applied { batches, faults });
            }
            passing = step.finish(passing, &answers)?;
        }
        Ok(Applied {
            batches: vec![(0, passing.batch)],
            faults,
        })
    }
}

/// Rows of several targets have several sets of columns, of which the next plugin could be bound to one only.
fn ensure_stays(before: Option<&Arc<Step>>, schema: &TableSchema) -> Result<()> {
    let Some(before) = before.filter(|step| !step.binding.targets.is_empty()) else {
        return Ok(());
    };
    let name = before.plugin.name();
    Err(Error::new(
        ErrorKind::PluginRefused,
        format!("plugin `{name}` sends rows to targets of its own, and another plugin follows it"),
    )
    .with_hint(format!("put `{name}` last in the table's `transforms`"))
    .with_table(&schema.name))
}

/// Where a plugin sends rows elsewhere, it needs both images of an update: without the one after, the one before would be a
/// delete.
fn ensure_both_images(before: &[Arc<Step>], step: &Step, schema: &TableSchema) -> Result<()> {
    let keeps_old = |before: &&Arc<Step>| before.plugin.on_rejected == OnRejected::KeepOld;
    match before.iter().find(keeps_old) {
        Some(keeping) if !step.binding.targets.is_empty() => {
            let (name, routing) = (keeping.plugin.name(), step.plugin.name());
            Err(Error::new(
                ErrorKind::PluginRefused,
                format!("plugin `{name}` is to keep old rows, and plugin `{routing}` behind it sends rows elsewhere"),
            )
            .with_hint(format!("set `transforms.{name}.on_rejected` to hide"))
            .with_table(&schema.name))
        }
        _ => Ok(()),
    }
}

impl Step {
    fn bind(plugin: Arc<Plugin>, input: Arc<TableSchema>) -> Result<Self> {
        let mut instance = plugin.instance(&input)?;
        let shape = instance.shape(&plugin, &input)?;
        let binding = Binding::new(&plugin, input, shape)?;
        let id = NEXT_BINDING.fetch_add(1, Ordering::Relaxed);
        let bytes = instance.memory_bytes();
        plugin.engine.pool.put(id, bytes, instance);
        Ok(Self {
            plugin,
            binding,
            id,
            tells_history: AtomicBool::new(false),
            is_ordered_wider: AtomicBool::new(false),
            gives_all: AtomicBool::new(false),
        })
    }

    fn outputs(&self) -> Vec<ChainOutput> {
        let targets = self.binding.targets.iter();
        targets
            .map(|target| ChainOutput {
                target: target.name.clone(),
                schema: Arc::clone(&target.schema),
            })
            .collect()
    }

    fn describe(&self) -> StepDescription {
        let binding = &self.binding;
        let written = binding
            .writes
            .iter()
            .map(|write| &binding.output.columns[write.place]);
        let made = binding.targets.iter().flat_map(|target| {
            let places = target.made();
            places.map(|place| &target.schema.columns[place])
        });
        let targets = binding.targets.iter();
        StepDescription {
            plugin: self.plugin.name().to_owned(),
            reads: binding
                .reads
                .iter()
                .map(|read| binding.input.columns[*read].name.clone())
                .collect(),
            writes: written
                .chain(made)
                .map(|column| column.name.clone())
                .collect(),
            may_drop: binding.may_drop || !binding.targets.is_empty(),
            targets: targets
                .map(|target| target.name.clone().unwrap_or_default())
                .collect(),
        }
    }

    /// The plugin's answers to a batch, in the order of its rows.
    async fn answers(
        step: &Arc<Self>,
        batch: ChangeBatch,
        gone: Gone,
        holds_up: bool,
    ) -> Result<(ChangeBatch, Vec<Answer>)> {
        let byte_limit = step.plugin.limits.memory_bytes / INPUT_PART_OF_MEMORY;
        let byte_limit = usize::try_from(byte_limit).unwrap_or(usize::MAX);
        let ranges = convert::cut(&step.binding, &batch, byte_limit);
        let batch = Arc::new(batch);
        let calls = ranges.into_iter().map(|range| {
            let step = Arc::clone(step);
            let batch = Arc::clone(&batch);
            let gone = gone.clone();
            async move {
                let permit = step.plugin.engine.permit().await?;
                blocking(move || step.call(&batch, range, &gone, holds_up, permit)).await
            }
        });
        let mut calls = stream::iter(calls).buffered(step.plugin.engine.cores);
        let (mut answers, mut bytes) = (Vec::new(), 0);
        while let Some(answered) = calls.try_next().await? {
            bytes += answered.iter().map(Answer::bytes).sum::<u64>();
            if bytes > BATCH_ANSWER_BYTES {
                let error = step.plugin.fills_batch();
                return Err(error.with_table(&step.binding.input.name));
            }
            answers.extend(answered);
        }
        drop(calls);
        let batch = Arc::try_unwrap(batch).unwrap_or_else(|shared| (*shared).clone());
        Ok((batch, answers))
    }

    /// Takes down the rows that failed, by their places before the first plugin.
    fn note_faults(&self, passing: &Passing, answers: &[Answer], faults: &mut Vec<Fault>) {
        let counts = |(row, _): &(usize, _)| !passing.gone.holds(&passing.batch, *row);
        let mut bad = bad_rows(answers).filter(counts).peekable();
        // Asked for by batches with faults alone.
        let origins = bad.peek().and_then(|_| passing.origins());
        for (row, bad) in bad {
            faults.push(Fault {
                row: origins.as_ref().map_or(row, |origins| origins[row]),
                plugin: self.plugin.name().to_owned(),
                digest: self.plugin.digest().to_owned(),
                kind: bad.kind,
                code: bad.code.clone(),
                message: bad.message.clone(),
                is_letter: self.plugin.on_error == OnError::DeadLetter,
            });
        }
    }

    /// What was made of a row that is gone has to be made again, to be deleted where it went. What fails in the row itself
    /// has failed before as well, and nothing was made; time and memory may have sufficed then.
    fn ensure_last_images(&self, passing: &Passing, answers: &[Answer]) -> Result<()> {
        let Changes::Stream { ops, .. } = &passing.batch.changes else {
            return Ok(());
        };
        let lost = bad_rows(answers).find(|(row, bad)| {
            ops[*row] == Op::Delete && is_limit(bad.kind) && !passing.gone.is_dropped(*row)
        });
        let Some((_, bad)) = lost else {
            return Ok(());
        };
        // A limit's message is the host's own.
        let (name, message) = (self.plugin.name(), &bad.message);
        Err(Error::new(
            bad.kind,
            format!("plugin `{name}` fails on a row that is gone, so where it went cannot be told: {message}"),
        )
        .with_hint(format!("raise `transforms.{name}.limits`, then retry the table"))
        .with_table(&self.binding.input.name))
    }

    fn route(&self, passing: &Passing, answers: &[Answer]) -> Result<Vec<(usize, ChangeBatch)>> {
        let batch = &passing.batch;
        let barren = outputs::barren(batch, answers, &passing.gone);
        let mut batches = Vec::with_capacity(self.binding.targets.len());
        for (place, target) in self.binding.targets.iter().enumerate() {
            let is_own = target.name.is_none();
            let is_apart = is_own && self.is_ordered_wider.load(Ordering::Relaxed);
            let settles = !is_apart && !self.gives_all.load(Ordering::Relaxed);
            let joined = outputs::join(target, place, batch, answers, barren.as_deref(), settles)
                .map_err(|error| self.arrow_error(error))?;
            if joined.row_count > 0 {
                batches.push((place, joined));
            }
        }
        Ok(batches)
    }

    fn unfit(&self, unfit: Unfit) -> Error {
        match unfit {
            Unfit::Breach(breach) => {
                let error = self.plugin.breach(&breach);
                error.with_table(&self.binding.input.name)
            }
            Unfit::Arrow(error) => self.arrow_error(error),
        }
    }

    fn arrow_error(&self, error: ArrowError) -> Error {
        Error::new(ErrorKind::Internal, "a plugin's answers cannot be joined")
            .with_table(&self.binding.input.name)
            .with_source(error)
    }

    fn finish(&self, passing: Passing, answers: &[Answer]) -> Result<Passing> {
        let arrow_error = |error: ArrowError| self.arrow_error(error);
        let Passing {
            mut batch,
            stayed,
            gone,
        } = passing;
        let bad: Vec<usize> = bad_rows(answers).map(|(row, _)| row).collect();
        for (index, write) in self.binding.writes.iter().enumerate() {
            let column_type = self.binding.output.columns[write.place].column_type;
            let answered = answers.iter().any(|answer| answer.columns[index].is_some());
            let original = (write.kind == WriteKind::Replaced).then(|| {
                let replaced = self.binding.input.columns[write.place].column_type;
                addresses::as_seen(&batch.columns[write.place], replaced)
            });
            let mut column = match (answered, original) {
                (false, Some(original)) => original,
                _ if answers.is_empty() => new_empty_array(&column_type.arrow()),
                (_, original) => {
                    verdict::join_column(answers, index, original.as_ref(), column_type)
                        .map_err(arrow_error)?
                }
            };
            if !bad.is_empty() {
                // What the plugin should have changed, to hide it perhaps, goes nowhere as it was.
                let nullable = self.binding.output.columns[write.place].nullable;
                column = blank::at(&column, &bad, nullable).map_err(arrow_error)?;
            }
            match batch.columns.get_mut(write.place) {
                Some(place) => *place = column,
                None => batch.columns.push(column),
            }
        }
        batch.schema = Arc::clone(&self.binding.output);
        let passing = Passing {
            batch,
            stayed,
            gone,
        };
        let keep = verdict::join_keep(answers);
        let kept = passing.drop_rows(keep, &bad, self.plugin.on_rejected);
        kept.map_err(arrow_error)
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.plugin.engine.pool.forget(self.id);
    }
}
