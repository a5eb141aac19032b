//! Computed columns and a condition, bound to a table: what `compute` and `sql` do.

use pipewright_sdk::schema::{JsonSchema, schemars};
use pipewright_sdk::{Batch, Binding, Failure, Field, Op, Outcome, Selection, Shape, Table, Write};
use serde::{Deserialize, Serialize};

use crate::{Computed, Error, Expr, Failed, Predicate, TRUE};

/// What becomes of a value that cannot be computed.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// The row is rejected, and the pipe's `on_error` says what then.
    #[default]
    Reject,
    /// It is NULL; a condition that cannot be told is not true.
    Null,
}

/// Columns that are computed from a row, and whether the row stays.
#[derive(Debug)]
pub struct Projection {
    shape: Shape,
    condition: Option<Predicate>,
    columns: Vec<(Write, Computed)>,
    on_failure: OnFailure,
}

impl Projection {
    /// Binds to a table. A column that exists is replaced, any other is added; all see the row as it came.
    ///
    /// # Errors
    /// The first expression that does not fit, by its name.
    pub fn bind(
        columns: &[(String, Expr)],
        condition: Option<&Expr>,
        on_failure: OnFailure,
        table: &Table,
    ) -> Result<Self, Failure> {
        let mut shape = Shape::new();
        let unfit = |what: &str, error: Error| Failure::unsupported(format!("in {what}, {error}"));
        let condition = condition
            .map(|condition| Predicate::bind(condition, table, &mut shape))
            .transpose()
            .map_err(|error| unfit("the condition", error))?;
        if condition.is_some() {
            shape.may_drop();
        }
        let mut computed = Vec::with_capacity(columns.len());
        for (place, (name, expression)) in columns.iter().enumerate() {
            if columns[..place].iter().any(|(other, _)| other == name) {
                return Err(Failure::unsupported(format!(
                    "column `{name}` is computed twice"
                )));
            }
            let value = Computed::bind(expression, table, &mut shape)
                .map_err(|error| unfit(&format!("column `{name}`"), error))?;
            let field = Field::new(name, value.data_type());
            let write = match table.index_of(name) {
                Some(index) if table.fields[index].key => {
                    return Err(Failure::unsupported(format!(
                        "column `{name}` is part of the key; give what is computed another name"
                    )));
                }
                Some(index) => shape.replace(index, field),
                None => shape.add(field),
            };
            computed.push((write, value));
        }
        Ok(Self {
            shape,
            condition,
            columns: computed,
            on_failure,
        })
    }
}

impl Binding for Projection {
    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn transform(&self, batch: &Batch) -> Result<Outcome, Failure> {
        let mut outcome = Outcome::unchanged();
        let mut failed: Vec<Failed> = Vec::new();
        let mut kept = None;
        if let Some(condition) = &self.condition {
            let truth = condition.evaluate(batch)?;
            failed.extend(Failed::of_truth(&truth));
            if truth.iter().any(|truth| *truth != TRUE) {
                outcome = outcome.keep(Selection::from_fn(batch.len(), |row| truth[row] == TRUE));
                kept = Some(truth);
            }
        }
        for (write, computed) in &self.columns {
            let (column, more) = computed.evaluate(batch)?;
            // What is dropped need not be computed.
            let stays = |row: usize| kept.as_ref().is_none_or(|truth| truth[row] == TRUE);
            failed.extend(more.into_iter().filter(|failed| stays(failed.row)));
            outcome = outcome.column(*write, column);
        }
        if self.on_failure == OnFailure::Reject {
            failed.sort_by_key(|failed| failed.row);
            failed.dedup_by_key(|failed| failed.row);
            // A row that is gone needs no answer.
            for failed in failed
                .iter()
                .filter(|failed| batch.op(failed.row) != Op::Delete)
            {
                outcome = outcome.reject(failed.row, failed.code, failed.message);
            }
        }
        Ok(outcome)
    }
}
