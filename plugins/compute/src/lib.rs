//! New and changed columns from expressions over a row.

use pipewright_expression::{Expr, OnFailure, Projection, parse};
use pipewright_sdk::schema::{self, JsonSchema, schemars};
use pipewright_sdk::{Failure, Ordered, Problem, Table, Transform, export};
use serde::Deserialize;

export!(Compute);

/// The plugin, configured.
#[derive(Debug)]
pub struct Compute {
    columns: Vec<(String, Expr)>,
    on_failure: OnFailure,
}

/// New and changed columns from expressions over a row.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Expressions by column, such as `net: "round(total / 1.19, 2)"`. A column of the table is replaced, any other added,
    /// in this order.
    columns: Ordered<String>,
    /// What becomes of a value that cannot be computed.
    #[serde(default)]
    on_failure: OnFailure,
}

impl Transform for Compute {
    type Config = Config;
    type Binding = Projection;

    fn new(config: Config) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut columns: Vec<(String, Expr)> = Vec::new();
        if config.columns.0.is_empty() {
            problems.push(Problem::at("/columns", "name at least one column"));
        }
        for (name, text) in config.columns.0 {
            let at = format!("/columns/{}", name.replace('~', "~0").replace('/', "~1"));
            match parse(&text) {
                Ok(expression) => columns.push((name, expression)),
                Err(error) => problems.push(Problem::at(at, error.to_string())),
            }
        }
        if problems.is_empty() {
            Ok(Self {
                columns,
                on_failure: config.on_failure,
            })
        } else {
            Err(problems)
        }
    }

    fn bind(&self, table: &Table) -> Result<Projection, Failure> {
        Projection::bind(&self.columns, None, self.on_failure, table)
    }

    fn config_schema() -> Option<String> {
        Some(schema::of::<Config>())
    }
}

#[cfg(test)]
mod tests;
