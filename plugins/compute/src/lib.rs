//! New and changed columns from expressions over a row.

use std::fmt;

use pipewright_expression::{Expr, OnFailure, Projection, parse};
use pipewright_sdk::{Failure, Problem, Table, Transform, export};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

export!(Compute);

/// The plugin, configured.
#[derive(Debug)]
pub struct Compute {
    columns: Vec<(String, Expr)>,
    on_failure: OnFailure,
}

/// What the pipe file says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Expressions by column, see README.md.
    columns: Ordered,
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
}

/// Expressions in the order in which they are written: new columns come in that order.
#[derive(Debug)]
struct Ordered(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Ordered;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("expressions by column")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Ordered(entries))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests;
