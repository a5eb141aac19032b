//! The plugins of one table, in order, over its batches.
//!
//! What a plugin may do is bounded so that the destination converges whatever the plugin is: it cannot set op or
//! version, cannot drop a delete, and a row that it drops from the stream becomes a delete at its own version, so that
//! a row which stops matching a filter disappears. A row dropped from a load was never there and needs no delete.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{ArrayRef, BooleanArray, new_empty_array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::FilterBuilder;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::binding::{Binding, WriteKind};
use super::engine::blocking;
use super::instance::Plugin;
use super::limits::INPUT_PART_OF_MEMORY;
use super::version::GuestRejection;
use super::{addresses, convert, verdict};
use crate::batch::{ChangeBatch, Changes, Op, TableSchema};
use crate::error::{Error, ErrorKind, Result};

/// The plugins of one table, bound to its columns. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Chain {
    steps: Vec<Arc<Step>>,
    input: Arc<TableSchema>,
    output: Arc<TableSchema>,
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
}

#[derive(Debug)]
struct Step {
    plugin: Arc<Plugin>,
    binding: Binding,
    /// Under which the pool keeps its instances.
    id: u64,
}

static NEXT_BINDING: AtomicU64 = AtomicU64::new(0);

impl Chain {
    /// Binds plugins to a table in the order in which they will run; each sees the columns that the one before leaves.
    ///
    /// # Errors
    /// [`ErrorKind::PluginRefused`] when a plugin refuses the table or wants what this build or the key forbids.
    pub async fn bind(plugins: &[Arc<Plugin>], schema: Arc<TableSchema>) -> Result<Self> {
        let mut steps = Vec::with_capacity(plugins.len());
        let mut output = Arc::clone(&schema);
        for plugin in plugins {
            let plugin = Arc::clone(plugin);
            let input = Arc::clone(&output);
            let step = blocking(move || Step::bind(plugin, input)).await?;
            output = Arc::clone(&step.binding.output);
            steps.push(Arc::new(step));
        }
        Ok(Self {
            steps,
            input: schema,
            output,
        })
    }

    /// The columns that [`Chain::apply`] gives.
    pub fn output(&self) -> &Arc<TableSchema> {
        &self.output
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
    /// What a plugin did: a trap, an exceeded limit, malformed output, rejected rows. Nothing of the batch is usable then.
    pub async fn apply(&self, mut batch: ChangeBatch) -> Result<ChangeBatch> {
        if !Arc::ptr_eq(&batch.schema, &self.input) && batch.schema != self.input {
            let error = Error::new(
                ErrorKind::Internal,
                "a batch has other columns than its plugins were bound to",
            );
            return Err(error.with_table(&self.input.name));
        }
        for step in &self.steps {
            batch = Step::apply(step, batch).await?;
        }
        Ok(batch)
    }
}

impl Step {
    fn bind(plugin: Arc<Plugin>, input: Arc<TableSchema>) -> Result<Self> {
        let mut instance = plugin.instance(&input)?;
        let shape = instance.shape(&plugin, &input)?;
        let binding = Binding::new(&plugin, input, shape)?;
        let id = NEXT_BINDING.fetch_add(1, Ordering::Relaxed);
        plugin.engine.pool.put(id, instance);
        Ok(Self {
            plugin,
            binding,
            id,
        })
    }

    fn describe(&self) -> StepDescription {
        let reads = self.binding.reads.iter();
        let writes = self.binding.writes.iter();
        StepDescription {
            plugin: self.plugin.name().to_owned(),
            reads: reads
                .map(|read| self.binding.input.columns[*read].name.clone())
                .collect(),
            writes: writes
                .map(|write| self.binding.output.columns[write.place].name.clone())
                .collect(),
            may_drop: self.binding.may_drop,
        }
    }

    async fn apply(step: &Arc<Self>, batch: ChangeBatch) -> Result<ChangeBatch> {
        let byte_limit = step.plugin.limits.memory_bytes / INPUT_PART_OF_MEMORY;
        let byte_limit = usize::try_from(byte_limit).unwrap_or(usize::MAX);
        let ranges = convert::cut(&step.binding, &batch, byte_limit);
        let batch = Arc::new(batch);
        let calls = ranges.into_iter().map(|range| {
            let step = Arc::clone(step);
            let batch = Arc::clone(&batch);
            async move {
                let permit = step.plugin.engine.permit().await?;
                blocking(move || {
                    let answer = step.call(&batch, range);
                    // Held until the guest has really ended, also when nobody waits for it any more.
                    drop(permit);
                    answer
                })
                .await
            }
        });
        let at_once = std::thread::available_parallelism().map_or(1, usize::from);
        let answers: Vec<_> = stream::iter(calls).buffered(at_once).try_collect().await?;
        let batch = Arc::try_unwrap(batch).unwrap_or_else(|shared| (*shared).clone());
        step.finish(batch, &answers)
    }

    /// One call of the guest, on a thread that may block.
    fn call(&self, batch: &ChangeBatch, range: std::ops::Range<usize>) -> Result<verdict::Answer> {
        let schema = &self.binding.input;
        let input = convert::input(&self.binding, batch, &range).map_err(|column| {
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
        let mut instance = match pool.take(self.id) {
            Some(instance) => instance,
            None => self.plugin.instance(schema)?,
        };
        let outcome = instance.transform(&self.plugin, schema, &input)?;
        if instance.is_fresh() {
            pool.put(self.id, instance);
        }
        let answer = verdict::check(&self.binding, range.len(), outcome)
            .map_err(|what| self.plugin.output_error(what).with_table(&schema.name))?;
        match answer.rejected.as_slice() {
            [] => Ok(answer),
            rejected => Err(self.rejected(rejected)),
        }
    }

    fn rejected(&self, rejected: &[GuestRejection]) -> Error {
        let name = self.plugin.name();
        let (code, message) = rejected.first().map_or(("", String::new()), |first| {
            (first.code.as_str(), short(&first.message))
        });
        let count = rejected.len();
        Error::new(
            ErrorKind::PluginRejected,
            format!("plugin `{name}` rejected {count} of a batch's rows, the first with `{}`: {message}", short(code)),
        )
        .with_table(&self.binding.input.name)
        .with_hint(format!("mend the rows at the source, or edit `transforms.{name}.config`"))
    }

    fn finish(&self, mut batch: ChangeBatch, answers: &[verdict::Answer]) -> Result<ChangeBatch> {
        let arrow_error = |error: arrow::error::ArrowError| {
            Error::new(ErrorKind::Internal, "a plugin's answers cannot be joined")
                .with_table(&self.binding.input.name)
                .with_source(error)
        };
        for (index, write) in self.binding.writes.iter().enumerate() {
            let column_type = self.binding.output.columns[write.place].column_type;
            let answered = answers.iter().any(|answer| answer.columns[index].is_some());
            let original = (write.kind == WriteKind::Replaced).then(|| {
                let replaced = self.binding.input.columns[write.place].column_type;
                addresses::as_seen(&batch.columns[write.place], replaced)
            });
            let column = match (answered, original) {
                (false, Some(original)) => original,
                _ if answers.is_empty() => new_empty_array(&column_type.arrow()),
                (_, original) => {
                    verdict::join_column(answers, index, original.as_ref(), column_type)
                        .map_err(arrow_error)?
                }
            };
            match batch.columns.get_mut(write.place) {
                Some(place) => *place = column,
                None => batch.columns.push(column),
            }
        }
        batch.schema = Arc::clone(&self.binding.output);
        match verdict::join_keep(answers) {
            Some(keep) => drop_rows(batch, keep).map_err(arrow_error),
            None => Ok(batch),
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.plugin.engine.pool.forget(self.id);
    }
}

/// Rows without a bit leave a load, and become deletes in the stream.
fn drop_rows(
    mut batch: ChangeBatch,
    keep: BooleanBuffer,
) -> Result<ChangeBatch, arrow::error::ArrowError> {
    match &mut batch.changes {
        Changes::Load => {
            batch.row_count = keep.count_set_bits();
            let filter = FilterBuilder::new(&BooleanArray::new(keep, None))
                .optimize()
                .build();
            let columns: Result<Vec<ArrayRef>, _> = batch
                .columns
                .iter()
                .map(|column| filter.filter(column))
                .collect();
            batch.columns = columns?;
        }
        Changes::Stream { ops, .. } => {
            for (op, kept) in ops.iter_mut().zip(keep.iter()) {
                if !kept {
                    *op = Op::Delete;
                }
            }
        }
    }
    Ok(batch)
}

/// A guest's text, short enough for a status line.
fn short(text: &str) -> String {
    const CHARACTERS: usize = 300;
    text.chars()
        .take(CHARACTERS)
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .collect()
}
