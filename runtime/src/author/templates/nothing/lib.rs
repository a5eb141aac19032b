//! A plugin that reads columns and changes nothing: what the sandbox itself costs.

use pipewright_sdk::{Batch, Binding, Failure, Outcome, Problem, Shape, Table, Transform, export};
use serde::Deserialize;

export!(Nothing);

/// The plugin, configured.
#[derive(Debug)]
pub struct Nothing {
    columns: Vec<String>,
}

/// What the pipe file says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The columns that cross into the sandbox.
    columns: Vec<String>,
}

impl Transform for Nothing {
    type Config = Config;
    type Binding = BoundNothing;

    fn new(config: Config) -> Result<Self, Vec<Problem>> {
        Ok(Self {
            columns: config.columns,
        })
    }

    fn bind(&self, table: &Table) -> Result<BoundNothing, Failure> {
        let mut shape = Shape::new();
        for name in &self.columns {
            let (index, _) = table.require(name)?;
            shape.read(index);
        }
        Ok(BoundNothing { shape })
    }
}

/// The plugin, bound to a table.
#[derive(Debug)]
pub struct BoundNothing {
    shape: Shape,
}

impl Binding for BoundNothing {
    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn transform(&self, _batch: &Batch) -> Result<Outcome, Failure> {
        Ok(Outcome::unchanged())
    }
}
