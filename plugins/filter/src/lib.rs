//! Keeps the rows for which an expression over their columns is true.

use pipewright_expression::{Expr, Failed, Predicate, TRUE, parse};
use pipewright_sdk::schema::{self, JsonSchema, schemars};
use pipewright_sdk::{
    Batch, Binding, Failure, Op, Outcome, Problem, Selection, Shape, Table, Transform, export,
};
use serde::Deserialize;

export!(Filter);

/// The plugin, configured.
#[derive(Debug)]
pub struct Filter {
    expression: Expr,
}

/// Keeps the rows for which an expression is true.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The expression, such as `status = 'paid' AND total > 10`.
    #[serde(rename = "where")]
    condition: String,
}

impl Transform for Filter {
    type Config = Config;
    type Binding = BoundFilter;

    fn new(config: Config) -> Result<Self, Vec<Problem>> {
        parse(&config.condition)
            .map(|expression| Self { expression })
            .map_err(|error| vec![Problem::at("/where", error.to_string())])
    }

    fn bind(&self, table: &Table) -> Result<BoundFilter, Failure> {
        let mut shape = Shape::new();
        shape.may_drop();
        let condition = Predicate::bind(&self.expression, table, &mut shape)
            .map_err(|error| Failure::unsupported(format!("in `where`, {error}")))?;
        Ok(BoundFilter { shape, condition })
    }

    fn config_schema() -> Option<String> {
        Some(schema::of::<Config>())
    }
}

/// The plugin, bound to a table.
#[derive(Debug)]
pub struct BoundFilter {
    shape: Shape,
    condition: Predicate,
}

impl Binding for BoundFilter {
    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn transform(&self, batch: &Batch) -> Result<Outcome, Failure> {
        let truth = self.condition.evaluate(batch)?;
        let kept: Vec<bool> = truth.iter().map(|truth| *truth == TRUE).collect();
        let keep = Selection::from_bools(&kept);
        if keep.count() == batch.len() {
            return Ok(Outcome::unchanged());
        }
        let mut outcome = Outcome::unchanged().keep(keep);
        // A row that is gone needs no answer.
        let failed = Failed::of_truth(&truth).into_iter();
        for failed in failed.filter(|failed| batch.op(failed.row) != Op::Delete) {
            outcome = outcome.reject(failed.row, failed.code, failed.message);
        }
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests;
