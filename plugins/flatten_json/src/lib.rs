//! Values inside JSON documents as typed columns of their own.

mod find;
mod value;

use pipewright_sdk::schema::{self, JsonSchema, schemars};
use pipewright_sdk::{
    Batch, Binding, DataType, Failure, Field, Op, Outcome, Problem, Read, Shape, Table, Transform,
    Write, export,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::find::{Paths, Room};
use crate::value::{Builder, Misfit, Type};

export!(FlattenJson);

/// The plugin, configured.
#[derive(Debug)]
pub struct FlattenJson {
    column: String,
    columns: Vec<Wanted>,
    paths: Paths,
}

/// Values inside JSON documents as typed columns of their own.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The column that holds the documents.
    column: String,
    /// What is taken out of them.
    columns: Vec<ColumnConfig>,
    /// What a value is that is not in the document.
    #[serde(default = "null")]
    on_missing: Policy,
    /// What a value is that has another type.
    #[serde(default = "reject")]
    on_mismatch: Policy,
}

/// One new column.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ColumnConfig {
    /// The new column's name.
    name: String,
    /// A JSON pointer, such as `/address/city` or `/items/0/price`.
    path: String,
    /// `bool`, `int64`, `uint64`, `float64`, `decimal(P,S)`, `text`, `json`, `date`, `datetime`, `list(int64)` or
    /// `list(float64)`.
    #[serde(rename = "type")]
    type_name: String,
    /// The value that the policy `default` means.
    default: Option<Value>,
    /// For this column, what a value is that is not in the document.
    on_missing: Option<Policy>,
    /// For this column, what a value is that has another type.
    on_mismatch: Option<Policy>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Policy {
    /// NULL.
    Null,
    /// The column's `default`.
    Default,
    /// The row is rejected, and the pipe's `on_error` says what then.
    Reject,
}

fn null() -> Policy {
    Policy::Null
}

fn reject() -> Policy {
    Policy::Reject
}

#[derive(Clone, Debug)]
struct Wanted {
    name: String,
    wanted: Type,
    /// As JSON text, which is read as what stands in a document is.
    default: Option<String>,
    on_missing: Policy,
    on_mismatch: Policy,
}

impl Transform for FlattenJson {
    type Config = Config;
    type Binding = BoundFlatten;

    fn new(config: Config) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut columns: Vec<Wanted> = Vec::new();
        let mut paths = Paths::default();
        if config.columns.is_empty() {
            problems.push(Problem::at("/columns", "name at least one column"));
        }
        for (index, column) in config.columns.into_iter().enumerate() {
            let at = |key: &str| format!("/columns/{index}/{key}");
            if columns.iter().any(|other| other.name == column.name) {
                problems.push(Problem::at(at("name"), "this name stands here twice"));
            }
            let wanted = Type::parse(&column.type_name);
            if let Err(message) = paths.add(&column.path, index) {
                problems.push(Problem::at(at("path"), message));
            }
            let Some(wanted) = wanted else {
                let message = format!(
                    "`{}` is no type here; known are {}",
                    column.type_name,
                    value::TYPES
                );
                problems.push(Problem::at(at("type"), message));
                continue;
            };
            let wanted = Wanted {
                name: column.name,
                wanted,
                default: column.default.map(|default| default.to_string()),
                on_missing: column.on_missing.unwrap_or(config.on_missing),
                on_mismatch: column.on_mismatch.unwrap_or(config.on_mismatch),
            };
            if let Err(message) = wanted.ensure_default() {
                problems.push(Problem::at(at("default"), message));
            }
            columns.push(wanted);
        }
        if problems.is_empty() {
            Ok(Self {
                column: config.column,
                columns,
                paths,
            })
        } else {
            Err(problems)
        }
    }

    fn bind(&self, table: &Table) -> Result<BoundFlatten, Failure> {
        let (index, field) = table.require(&self.column)?;
        if field.data_type != DataType::Utf8 {
            return Err(Failure::unsupported(format!(
                "column `{}` is `{}`, which holds no JSON",
                self.column, field.source_type
            )));
        }
        let mut shape = Shape::new();
        let document = shape.read(index);
        let mut writes = Vec::with_capacity(self.columns.len());
        for column in &self.columns {
            if table.index_of(&column.name).is_some() {
                return Err(Failure::unsupported(format!(
                    "table `{}.{}` has a column `{}` already; choose another name",
                    table.database, table.name, column.name
                )));
            }
            writes.push(shape.add(Field::new(&column.name, column.wanted.data_type())));
        }
        Ok(BoundFlatten {
            shape,
            document,
            writes,
            columns: self.columns.clone(),
            paths: self.paths.clone(),
        })
    }

    fn config_schema() -> Option<String> {
        Some(schema::of::<Config>())
    }
}

impl Wanted {
    /// A default must be there where it is asked for, and be of the column's type.
    fn ensure_default(&self) -> Result<(), String> {
        let needed = [self.on_missing, self.on_mismatch].contains(&Policy::Default);
        match &self.default {
            None if needed => Err("`default` is asked for and not given".to_owned()),
            None => Ok(()),
            Some(default) => {
                let mut builder = Builder::new(self.wanted, 1);
                let fits = builder.push(Some(default));
                fits.map_err(|_| format!("it is no {}", self.wanted.name()))
            }
        }
    }
}

/// The plugin, bound to a table.
#[derive(Debug)]
pub struct BoundFlatten {
    shape: Shape,
    document: Read,
    writes: Vec<Write>,
    columns: Vec<Wanted>,
    paths: Paths,
}

impl Binding for BoundFlatten {
    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn transform(&self, batch: &Batch) -> Result<Outcome, Failure> {
        let documents = batch.column(self.document).strings()?;
        let mut builders: Vec<Builder> = self
            .columns
            .iter()
            .map(|column| Builder::new(column.wanted, batch.len()))
            .collect();
        let mut rejected: Vec<(usize, &str, String)> = Vec::new();
        let mut room = Room::default();
        let mut found: Vec<Option<&str>> = vec![None; self.columns.len()];
        for row in 0..batch.len() {
            found.fill(None);
            let document = documents.get(row);
            let sound =
                document.is_none_or(|document| self.paths.find(document, &mut room, &mut found));
            for (index, (column, builder)) in self.columns.iter().zip(&mut builders).enumerate() {
                let fault = match (document, sound, found[index]) {
                    // A row without a document has nothing that could be missing.
                    (None, ..) => {
                        builder.push_null();
                        None
                    }
                    (_, false, _) => {
                        Some((column.on_mismatch, "no-json", "the document is no JSON"))
                    }
                    (_, true, None) => Some((
                        column.on_missing,
                        "missing",
                        "the document has no such value",
                    )),
                    (_, true, Some(value)) => match builder.push(Some(value)) {
                        Ok(()) => None,
                        Err(Misfit) => Some((
                            column.on_mismatch,
                            "wrong-type",
                            "the value is of another type",
                        )),
                    },
                };
                let Some((policy, code, message)) = fault else {
                    continue;
                };
                match (policy, &column.default) {
                    (Policy::Default, Some(default)) => {
                        // It was tried when the plugin was configured.
                        if builder.push(Some(default)).is_err() {
                            builder.push_null();
                        }
                    }
                    (Policy::Reject, _) if batch.op(row) != Op::Delete => {
                        builder.push_null();
                        if rejected.last().is_none_or(|(last, ..)| *last != row) {
                            rejected.push((
                                row,
                                code,
                                format!("column `{}`: {message}", column.name),
                            ));
                        }
                    }
                    _ => builder.push_null(),
                }
            }
        }
        let mut outcome = Outcome::unchanged();
        for (write, builder) in self.writes.iter().zip(builders) {
            outcome = outcome.column(*write, builder.finish());
        }
        for (row, code, message) in rejected {
            outcome = outcome.reject(row, code, message);
        }
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests;
