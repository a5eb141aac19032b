//! A table written down: the columns that a plugin would be bound to, without a server that has them.

use std::path::Path;

use serde::Deserialize;

use crate::batch::{Column, ColumnType, Number, TableName, TableSchema};
use crate::error::{Error, ErrorKind, Result};

/// `table` of a case, or the whole of `table.yaml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TableFile {
    #[serde(default = "default_name")]
    name: String,
    columns: Vec<ColumnFile>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ColumnFile {
    name: String,
    #[serde(rename = "type")]
    type_name: String,
    #[serde(default)]
    key: bool,
    nullable: Option<bool>,
    source_type: Option<String>,
}

fn default_name() -> String {
    "test.t".to_owned()
}

/// Reads a table's columns from a YAML file.
///
/// # Errors
/// [`ErrorKind::Config`] naming the file and what is wrong in it.
pub fn read_table(path: &Path) -> Result<TableSchema> {
    let file: TableFile = read_yaml(path)?;
    file.schema()
        .map_err(|what| Error::new(ErrorKind::Config, format!("`{}`: {what}", path.display())))
}

/// Reads any YAML file of the author's.
pub(super) fn read_yaml<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Error::new(
            ErrorKind::Config,
            format!("`{}` cannot be read", path.display()),
        )
        .with_source(error)
    })?;
    // As the pipe file is read: `n`, `yes` and `007` are words.
    let options = serde_saphyr::options! {
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
    };
    serde_saphyr::from_str_with_options(&text, options).map_err(|error| {
        Error::new(
            ErrorKind::Config,
            format!("`{}` is not as it should be: {error}", path.display()),
        )
    })
}

impl TableFile {
    pub(super) fn schema(&self) -> Result<TableSchema, String> {
        let (database, table) = self
            .name
            .split_once('.')
            .ok_or_else(|| format!("the table's name `{}` is not `database.table`", self.name))?;
        let mut columns: Vec<Column> = Vec::with_capacity(self.columns.len());
        let mut key = Vec::new();
        for (index, column) in self.columns.iter().enumerate() {
            if columns.iter().any(|other| other.name == column.name) {
                return Err(format!("column `{}` stands there twice", column.name));
            }
            let column_type = parse_type(&column.type_name).ok_or_else(|| {
                format!(
                    "column `{}` has the type `{}`; known are {TYPES}",
                    column.name, column.type_name
                )
            })?;
            if column.key {
                key.push(index);
            }
            columns.push(Column {
                name: column.name.clone(),
                column_type,
                nullable: column.nullable.unwrap_or(!column.key),
                source_type: column
                    .source_type
                    .clone()
                    .unwrap_or_else(|| source_type(column_type)),
            });
        }
        Ok(TableSchema {
            name: TableName::new(database, table),
            columns,
            key,
        })
    }
}

const TYPES: &str = "int8 to int64, uint8 to uint64, float32, float64, decimal(P,S), date, datetime, timestamp, time, text, enum, bytes, json, uuid, inet4, inet6, vector, bool, list(T) of a number";

/// The words that a table file uses for types.
pub(super) fn parse_type(text: &str) -> Option<ColumnType> {
    let text = text.trim().to_ascii_lowercase();
    if let Some(arguments) = text.strip_prefix("decimal(") {
        let (precision, scale) = arguments.strip_suffix(')')?.split_once(',')?;
        let (precision, scale) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
        let possible = (1..=65).contains(&precision) && scale <= 30 && scale <= precision;
        return possible.then_some(ColumnType::Decimal { precision, scale });
    }
    if let Some(element) = text.strip_prefix("list(") {
        let element = parse_type(element.strip_suffix(')')?)?;
        return Number::of(element).map(ColumnType::List);
    }
    Some(match text.as_str() {
        "int8" => ColumnType::Int8,
        "int16" => ColumnType::Int16,
        "int32" => ColumnType::Int32,
        "int64" => ColumnType::Int64,
        "uint8" => ColumnType::UInt8,
        "uint16" => ColumnType::UInt16,
        "uint32" => ColumnType::UInt32,
        "uint64" => ColumnType::UInt64,
        "float32" => ColumnType::Float32,
        "float64" => ColumnType::Float64,
        "date" => ColumnType::Date,
        "datetime" => ColumnType::DateTime { digits: 6 },
        "timestamp" => ColumnType::Timestamp { digits: 6 },
        "time" => ColumnType::Time { digits: 6 },
        "text" => ColumnType::Text,
        "enum" => ColumnType::Label,
        "bytes" => ColumnType::Bytes,
        "json" => ColumnType::Json,
        "uuid" => ColumnType::Uuid,
        "inet4" => ColumnType::Inet4,
        "inet6" => ColumnType::Inet6,
        "vector" => ColumnType::Vector,
        "bool" => ColumnType::Bool,
        _ => return None,
    })
}

/// What MySQL would call such a column.
fn source_type(column_type: ColumnType) -> String {
    let plain = match column_type {
        ColumnType::Int8 => "tinyint",
        ColumnType::Int16 => "smallint",
        ColumnType::Int32 => "int",
        ColumnType::Int64 => "bigint",
        ColumnType::UInt8 => "tinyint unsigned",
        ColumnType::UInt16 => "smallint unsigned",
        ColumnType::UInt32 => "int unsigned",
        ColumnType::UInt64 => "bigint unsigned",
        ColumnType::Float32 => "float",
        ColumnType::Float64 => "double",
        ColumnType::Decimal { precision, scale } => return format!("decimal({precision},{scale})"),
        ColumnType::Date => "date",
        ColumnType::DateTime { .. } => "datetime(6)",
        ColumnType::Timestamp { .. } => "timestamp(6)",
        ColumnType::Time { .. } => "time(6)",
        ColumnType::Text => "text",
        ColumnType::Label => "enum",
        ColumnType::Bytes => "blob",
        ColumnType::Json => "json",
        ColumnType::Uuid => "uuid",
        ColumnType::Inet4 => "inet4",
        ColumnType::Inet6 => "inet6",
        ColumnType::Vector => "vector",
        ColumnType::Bool | ColumnType::List(_) => return type_name(column_type),
    };
    plain.to_owned()
}

/// The word of a table file for a type.
pub(super) fn type_name(column_type: ColumnType) -> String {
    match column_type {
        ColumnType::Decimal { precision, scale } => format!("decimal({precision},{scale})"),
        ColumnType::DateTime { .. } => "datetime".to_owned(),
        ColumnType::Timestamp { .. } => "timestamp".to_owned(),
        ColumnType::Time { .. } => "time".to_owned(),
        ColumnType::Label => "enum".to_owned(),
        ColumnType::List(number) => format!("list({})", type_name(number.column_type())),
        other => format!("{other:?}").to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_one_name_that_is_read_back() {
        for name in [
            "int8",
            "int16",
            "int32",
            "int64",
            "uint8",
            "uint16",
            "uint32",
            "uint64",
            "float32",
            "float64",
            "decimal(65,30)",
            "date",
            "datetime",
            "timestamp",
            "time",
            "text",
            "enum",
            "bytes",
            "json",
            "uuid",
            "inet4",
            "inet6",
            "vector",
            "bool",
            "list(int8)",
            "list(float64)",
        ] {
            let column_type = parse_type(name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!(type_name(column_type), name);
        }
        assert_eq!(parse_type("decimal(10,11)"), None);
        assert_eq!(parse_type("varchar(10)"), None);
        assert_eq!(parse_type("list(text)"), None);
    }

    #[test]
    fn a_key_column_is_not_nullable_and_another_is_unless_it_says_so() {
        let file: TableFile = serde_saphyr::from_str(
            "name: shop.t\ncolumns:\n- { name: id, type: int64, key: true }\n- { name: a, type: text }\n- { name: b, type: date, nullable: false }\n",
        )
        .expect("YAML");
        let schema = file.schema().expect("a schema");
        assert_eq!(schema.key, [0]);
        let nullable: Vec<_> = schema
            .columns
            .iter()
            .map(|column| column.nullable)
            .collect();
        assert_eq!(nullable, [false, true, false]);
        assert_eq!(schema.columns[1].source_type, "text");
    }
}
