//! Trims text columns and writes them in lower case.

use pipewright_sdk::{
    Batch, Binding, BytesBuilder, Column, DataType, Failure, Outcome, Problem, Read, Shape, Table,
    Transform, Write, export,
};
use serde::Deserialize;

export!(Tidy);

/// The plugin, configured.
#[derive(Debug)]
pub struct Tidy {
    columns: Vec<String>,
}

/// What the pipe file says under `config`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    columns: Vec<String>,
}

impl Transform for Tidy {
    type Config = Config;
    type Binding = BoundTidy;

    fn new(config: Config) -> Result<Self, Vec<Problem>> {
        if config.columns.is_empty() {
            return Err(vec![Problem::at("/columns", "name at least one column")]);
        }
        Ok(Self {
            columns: config.columns,
        })
    }

    /// Called for each table: says which columns are read and which are made, so that no others cross the boundary.
    fn bind(&self, table: &Table) -> Result<BoundTidy, Failure> {
        let mut shape = Shape::new();
        let mut columns = Vec::new();
        for name in &self.columns {
            let (index, field) = table.require(name)?;
            if field.data_type != DataType::Utf8 {
                return Err(Failure::unsupported(format!("column `{name}` is not text")));
            }
            columns.push((shape.read(index), shape.replace(index, field.clone())));
        }
        Ok(BoundTidy { shape, columns })
    }
}

/// The plugin, bound to a table.
#[derive(Debug)]
pub struct BoundTidy {
    shape: Shape,
    columns: Vec<(Read, Write)>,
}

impl Binding for BoundTidy {
    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    /// A function of each row: the rows beside it and the batches before it play no part.
    fn transform(&self, batch: &Batch) -> Result<Outcome, Failure> {
        let mut outcome = Outcome::unchanged();
        for (read, write) in &self.columns {
            outcome = outcome.column(*write, tidy(batch.column(*read))?);
        }
        Ok(outcome)
    }
}

fn tidy(column: &Column) -> Result<Column, Failure> {
    let mut builder = BytesBuilder::new(DataType::Utf8, column.len());
    for text in column.strings()?.iter() {
        builder.push(text.map(|text| text.trim().to_lowercase()).as_deref().map(str::as_bytes));
    }
    Ok(builder.finish())
}

#[cfg(test)]
mod tests {
    use pipewright_sdk::testing::{Cell, Harness};
    use pipewright_sdk::{Field, Op};

    use super::*;

    #[test]
    fn text_is_trimmed_and_lower_case_and_null_stays_null() {
        let fields = [
            Field::new("id", DataType::Int64).key(),
            Field::new("email", DataType::Utf8),
        ];
        let harness = Harness::<Tidy>::new(r#"{"columns": ["email"]}"#, &fields).unwrap();
        let rows = [
            (Op::Insert, vec![Cell::Int(1), Cell::text(" Ann@Example.com ")]),
            (Op::Insert, vec![Cell::Int(2), Cell::Null]),
        ];
        let rows = harness.run(&rows).unwrap();
        assert_eq!(rows[0].as_ref().unwrap()[1], Cell::text("ann@example.com"));
        assert_eq!(rows[1].as_ref().unwrap()[1], Cell::Null);
    }
}
