//! Columns from a small CSV or Parquet file, by a key that each row has.

mod columnar;
mod csv;
mod file;

use std::collections::HashMap;
use std::fmt;

use pipewright_sdk::schema::{self, JsonSchema, schemars};
use pipewright_sdk::{
    Batch, Binding, BytesBuilder, DataType, Failure, Field, Op, Ordered, Outcome, Problem, Read,
    Shape, Table, Transform, Write, export, lookup,
};
use serde::{Deserialize, Serialize};

use crate::file::Records;

export!(Lookup);

/// The plugin, configured.
#[derive(Debug)]
pub struct Lookup {
    column: String,
    /// New columns, each with its place in the file.
    adds: Vec<(String, usize)>,
    on_missing: OnMissing,
    records: Vec<Vec<Option<String>>>,
    /// Places in `records` by key.
    by_key: HashMap<String, usize>,
}

/// Columns from a small file, by a key that each row has.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The name under which the pipe file grants the file.
    file: String,
    /// The table's column that holds the key.
    column: String,
    /// The file's column that holds the key.
    key: String,
    /// The file's columns that are added, by their new names, in this order.
    add: Ordered<String>,
    /// What a row gets whose key is not in the file.
    #[serde(default)]
    on_missing: OnMissing,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum OnMissing {
    /// NULL.
    #[default]
    Null,
    /// The row is rejected, and the pipe's `on_error` says what then.
    Reject,
}

impl Transform for Lookup {
    type Config = Config;
    type Binding = BoundLookup;

    fn new(config: Config) -> Result<Self, Vec<Problem>> {
        let one = |path: &str, message: String| vec![Problem::at(path, message)];
        let bytes = lookup::read(&config.file).map_err(|message| one("/file", message))?;
        let added = config.add.0.iter().map(|(_, from)| from.as_str());
        let wanted: Vec<&str> = added.chain([config.key.as_str()]).collect();
        let Records { header, records } = file::read(bytes, &wanted)
            .map_err(|message| one("/file", format!("`{}`: {message}", config.file)))?;
        let mut problems = Vec::new();
        let mut place = |path: String, name: &str| {
            let mut places = (0..header.len()).filter(|place| header[*place] == name);
            let (place, other) = (places.next(), places.next());
            if place.is_none() || other.is_some() {
                let how = if place.is_none() {
                    "no"
                } else {
                    "more than one"
                };
                let message = format!("`{}` has {how} column `{name}`", config.file);
                problems.push(Problem::at(path, message));
            }
            place.unwrap_or_default()
        };
        let key = place("/key".to_owned(), &config.key);
        let adds: Vec<(String, usize)> = config
            .add
            .0
            .into_iter()
            .map(|(name, from)| {
                let found = place(format!("/add/{name}"), &from);
                (name, found)
            })
            .collect();
        if adds.is_empty() {
            problems.push(Problem::at("/add", "name at least one column"));
        }
        let mut by_key = HashMap::with_capacity(records.len());
        for (index, record) in records.iter().enumerate() {
            // A row without a key is found by nothing.
            let Some(value) = &record[key] else { continue };
            if by_key.insert(value.clone(), index).is_some() {
                let message = format!("`{}` has one key twice, in row {}", config.file, index + 1);
                problems.push(Problem::at("/key", message));
                break;
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self {
            column: config.column,
            adds,
            on_missing: config.on_missing,
            records,
            by_key,
        })
    }

    fn bind(&self, table: &Table) -> Result<BoundLookup, Failure> {
        let (index, field) = table.require(&self.column)?;
        let is_text = match field.data_type {
            DataType::Utf8 => true,
            DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::UInt8
            | DataType::UInt16
            | DataType::UInt32
            | DataType::UInt64 => false,
            _ => {
                return Err(Failure::unsupported(format!(
                    "column `{}` is `{}`; a key is text or an integer of at most 64 bits",
                    self.column, field.source_type
                )));
            }
        };
        let mut shape = Shape::new();
        let key = shape.read(index);
        let mut writes = Vec::with_capacity(self.adds.len());
        for (name, _) in &self.adds {
            if table.index_of(name).is_some() {
                return Err(Failure::unsupported(format!(
                    "table `{}.{}` has a column `{name}` already; choose another name",
                    table.database, table.name
                )));
            }
            writes.push(shape.add(Field::new(name, DataType::Utf8)));
        }
        // One copy a table, so that a binding does not hold on to its plugin.
        let values = self.adds.iter().map(|(_, place)| {
            self.records
                .iter()
                .map(|record| record[*place].clone())
                .collect()
        });
        Ok(BoundLookup {
            shape,
            key,
            is_text,
            writes,
            values: values.collect(),
            by_key: self.by_key.clone(),
            on_missing: self.on_missing,
        })
    }

    fn config_schema() -> Option<String> {
        Some(schema::of::<Config>())
    }
}

/// The plugin, bound to a table.
#[derive(Debug)]
pub struct BoundLookup {
    shape: Shape,
    key: Read,
    is_text: bool,
    writes: Vec<Write>,
    /// By new column, then by record.
    values: Vec<Vec<Option<String>>>,
    by_key: HashMap<String, usize>,
    on_missing: OnMissing,
}

impl Binding for BoundLookup {
    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn transform(&self, batch: &Batch) -> Result<Outcome, Failure> {
        let found = self.found(batch)?;
        let mut outcome = Outcome::unchanged();
        for (write, values) in self.writes.iter().zip(&self.values) {
            let mut builder = BytesBuilder::new(DataType::Utf8, batch.len());
            for record in &found {
                let value = record.and_then(|record| values[record].as_deref());
                builder.push(value.map(str::as_bytes));
            }
            outcome = outcome.column(*write, builder.finish());
        }
        if self.on_missing == OnMissing::Reject {
            let key = batch.column(self.key);
            let missing = found
                .iter()
                .enumerate()
                .filter(|(_, record)| record.is_none());
            // NULL is no key that could be missing, and a row that is gone needs no answer.
            for (row, _) in
                missing.filter(|(row, _)| !key.is_null(*row) && batch.op(*row) != Op::Delete)
            {
                outcome = outcome.reject(row, "missing", "the file has no such key");
            }
        }
        Ok(outcome)
    }
}

impl BoundLookup {
    fn found(&self, batch: &Batch) -> Result<Vec<Option<usize>>, Failure> {
        let column = batch.column(self.key);
        if self.is_text {
            let keys = column.strings()?;
            return Ok(keys
                .iter()
                .map(|key| self.by_key.get(key?).copied())
                .collect());
        }
        if column.data_type() == DataType::UInt64 {
            let keys = column.values::<u64>()?;
            return Ok(self.found_by_digits(batch.len(), |row| keys.get(row)));
        }
        let keys = column.integers()?;
        Ok(self.found_by_digits(batch.len(), |row| keys.get(row)))
    }

    fn found_by_digits<T: fmt::Display>(
        &self,
        row_count: usize,
        key: impl Fn(usize) -> Option<T>,
    ) -> Vec<Option<usize>> {
        let mut digits = String::new();
        let found = |row| {
            digits.clear();
            fmt::Write::write_fmt(&mut digits, format_args!("{}", key(row)?)).ok()?;
            self.by_key.get(&digits).copied()
        };
        (0..row_count).map(found).collect()
    }
}

#[cfg(test)]
mod tests {
    use pipewright_sdk::testing::{Cell, Harness};

    use super::*;

    fn harness(more: &str) -> Result<Harness<Lookup>, String> {
        lookup::provide(
            "countries",
            b"code,name,no\nDE,\"Germany\",1\nFR,France,2\nXX,,3\n".to_vec(),
        );
        let fields = [
            Field::new("id", DataType::Int64).key(),
            Field::new("country", DataType::Utf8),
        ];
        let config =
            format!(r#"{{"file": "countries", "add": {{"country_name": "name"}}, {more}}}"#);
        Harness::new(&config, &fields)
    }

    const BY_CODE: &str = r#""column": "country", "key": "code""#;

    #[test]
    fn rows_get_the_files_value_or_null() {
        let harness = harness(BY_CODE).unwrap();
        let keys = [
            Cell::text("DE"),
            Cell::text("XX"),
            Cell::text("ZZ"),
            Cell::Null,
        ];
        let rows: Vec<_> = keys
            .into_iter()
            .map(|key| (Op::Insert, vec![Cell::Int(2), key]))
            .collect();
        let found: Vec<Cell> = harness
            .run(&rows)
            .unwrap()
            .into_iter()
            .map(|row| row.unwrap()[2].clone())
            .collect();
        assert_eq!(
            found,
            [Cell::text("Germany"), Cell::Null, Cell::Null, Cell::Null]
        );
    }

    #[test]
    fn an_integer_is_a_key_by_its_digits() {
        let harness = harness(r#""column": "id", "key": "no""#).unwrap();
        let rows = harness
            .run(&[(Op::Insert, vec![Cell::Int(2), Cell::Null])])
            .unwrap();
        assert_eq!(rows[0].as_ref().unwrap()[2], Cell::text("France"));
    }

    #[test]
    fn a_key_that_is_missing_rejects_by_setting() {
        let harness = harness(&format!(r#"{BY_CODE}, "on_missing": "reject""#)).unwrap();
        let row = |key| vec![(Op::Insert, vec![Cell::Int(1), key])];
        assert!(
            harness
                .run(&row(Cell::text("ZZ")))
                .unwrap_err()
                .starts_with("row 0: missing")
        );
        assert!(harness.run(&row(Cell::Null)).is_ok());
    }

    #[test]
    fn what_the_file_has_not_is_told() {
        let text = harness(r#""column": "country", "key": "iso""#).unwrap_err();
        assert_eq!(text, "/key: `countries` has no column `iso`");
        lookup::provide("twice", b"k,v\n1,a\n1,b\n".to_vec());
        let fields = [Field::new("id", DataType::Int64).key()];
        let config = r#"{"file": "twice", "column": "id", "key": "k", "add": {"v": "v"}}"#;
        let text = Harness::<Lookup>::new(config, &fields).unwrap_err();
        assert_eq!(text, "/key: `twice` has one key twice, in row 2");
        let config = config.replace("twice", "absent");
        assert!(
            Harness::<Lookup>::new(&config, &fields)
                .unwrap_err()
                .starts_with("/file: ")
        );
    }
}
