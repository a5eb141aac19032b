//! Rows as JSON and back, without loss: for rows that are kept until a person has mended why they failed.
//!
//! Integers are numbers; floats, decimals, dates and timestamps are texts as Arrow prints and reads them, digit for digit; a
//! TIME is its microseconds, since it may be longer than a day. Bytes, and texts that are not UTF-8, are `{"base64": …}`.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, FixedSizeBinaryBuilder, ListArray, StringArray,
    Time64MicrosecondArray, UInt64Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{CastOptions, cast, cast_with_options, take};
use arrow::datatypes::{DataType, Time64MicrosecondType, TimestampMicrosecondType};
use arrow::error::ArrowError;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

use super::{ChangeBatch, ColumnType, Number, TableSchema};

/// One row as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowText {
    /// An array of the key's values.
    pub key: String,
    /// An object of all values by column.
    pub row: String,
}

/// These rows of a batch, as JSON.
///
/// # Errors
/// Where Arrow cannot print a value.
pub fn row_texts(batch: &ChangeBatch, rows: &[usize]) -> Result<Vec<RowText>, ArrowError> {
    let places = UInt64Array::from_iter_values(rows.iter().map(|row| *row as u64));
    let mut columns = Vec::with_capacity(batch.columns.len());
    for (column, array) in batch.schema.columns.iter().zip(&batch.columns) {
        let taken = take(array, &places, None)?;
        columns.push(values(column.column_type, &taken)?);
    }
    let texts = (0..rows.len()).map(|row| {
        let fields = batch.schema.columns.iter().zip(&columns);
        let object: Map<String, Value> = fields
            .map(|(column, values)| (column.name.clone(), values[row].clone()))
            .collect();
        let key: Vec<&Value> = batch
            .schema
            .key
            .iter()
            .map(|key| &columns[*key][row])
            .collect();
        RowText {
            key: json!(key).to_string(),
            row: Value::Object(object).to_string(),
        }
    });
    Ok(texts.collect())
}

/// Why a row that was kept is none of the table as it is by now. Columns are named, and values are not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum UnfitRow {
    /// Not what [`row_texts`] writes.
    #[error("is no JSON object")]
    NoObject,
    /// The column was added or renamed after the row was kept: what the row has there is not known.
    #[error("lacks column `{0}`, which the table has by now")]
    Lacks(String),
    /// The row was kept before the column had this name; what it has there is of another column.
    #[error("was kept before column `{0}` was added or renamed")]
    Older(String),
    /// The column's type is another one by now.
    #[error("has something else in column `{0}` than values of its present type")]
    OtherType(String),
    /// The column takes no NULL by now.
    #[error("has no value in column `{0}`, which takes no NULL by now")]
    Null(String),
}

/// The columns of rows that [`row_texts`] wrote.
///
/// # Errors
/// For the first column that one of the rows does not have as the table does.
pub fn rows_from_texts(schema: &TableSchema, rows: &[&str]) -> Result<Vec<ArrayRef>, UnfitRow> {
    let rows: Vec<HashMap<String, Value>> = rows
        .iter()
        .map(|row| serde_json::from_str(row).map_err(|_| UnfitRow::NoObject))
        .collect::<Result<_, _>>()?;
    let columns = schema.columns.iter().map(|column| {
        let name = || column.name.clone();
        let values = rows.iter().map(|row| row.get(&column.name));
        let values: Vec<&Value> = values
            .collect::<Option<_>>()
            .ok_or_else(|| UnfitRow::Lacks(name()))?;
        // Arrow's own words may hold the value.
        let array = array(column.column_type, &values).map_err(|_| UnfitRow::OtherType(name()))?;
        match column.nullable || array.null_count() == 0 {
            true => Ok(array),
            false => Err(UnfitRow::Null(name())),
        }
    });
    columns.collect()
}

fn values(column_type: ColumnType, array: &ArrayRef) -> Result<Vec<Value>, ArrowError> {
    let rows = 0..array.len();
    let of = |value: &dyn Fn(usize) -> Value| -> Vec<Value> {
        rows.clone()
            .map(|row| {
                if array.is_null(row) {
                    Value::Null
                } else {
                    value(row)
                }
            })
            .collect()
    };
    Ok(match column_type {
        ColumnType::Text | ColumnType::Label | ColumnType::Json => {
            let bytes = array.as_binary::<i32>();
            of(&|row| match std::str::from_utf8(bytes.value(row)) {
                Ok(text) => text.into(),
                Err(_) => encoded(bytes.value(row)),
            })
        }
        ColumnType::Bytes => of(&|row| encoded(array.as_binary::<i32>().value(row))),
        ColumnType::Uuid | ColumnType::Inet6 => {
            of(&|row| encoded(array.as_fixed_size_binary().value(row)))
        }
        ColumnType::Time { .. } => of(&|row| {
            array
                .as_primitive::<Time64MicrosecondType>()
                .value(row)
                .into()
        }),
        // Arrow knows no names of zones here; the moment is written as UTC's wall clock.
        ColumnType::Timestamp { .. } => {
            let moments = array.as_primitive::<TimestampMicrosecondType>().clone();
            let wall: ArrayRef = Arc::new(moments.with_timezone_opt(None::<Arc<str>>));
            values(ColumnType::DateTime { digits: 6 }, &wall)?
        }
        ColumnType::Bool => of(&|row| array.as_boolean().value(row).into()),
        ColumnType::Vector | ColumnType::List(_) => {
            let lists = array.as_list::<i32>();
            let elements = match column_type.elements() {
                Some(number) => values(number.column_type(), lists.values())?,
                None => Vec::new(),
            };
            let offsets = lists.value_offsets();
            of(&|row| elements[offsets[row] as usize..offsets[row + 1] as usize].into())
        }
        ColumnType::Int8
        | ColumnType::Int16
        | ColumnType::Int32
        | ColumnType::Int64
        | ColumnType::UInt8
        | ColumnType::UInt16
        | ColumnType::UInt32
        | ColumnType::UInt64
        | ColumnType::Inet4 => {
            let texts = cast(array, &DataType::Utf8)?;
            of(&|row| {
                let text = texts.as_string::<i32>().value(row);
                serde_json::from_str(text).unwrap_or(Value::Null)
            })
        }
        ColumnType::Float32
        | ColumnType::Float64
        | ColumnType::Decimal { .. }
        | ColumnType::Date
        | ColumnType::DateTime { .. } => {
            let texts = cast(array, &DataType::Utf8)?;
            of(&|row| texts.as_string::<i32>().value(row).into())
        }
    })
}

fn encoded(bytes: &[u8]) -> Value {
    json!({ "base64": BASE64_STANDARD.encode(bytes) })
}

fn decoded(value: &Value) -> Result<Option<Vec<u8>>, ArrowError> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone().into_bytes())),
        other => {
            let text = other["base64"].as_str();
            let bytes = text.and_then(|text| BASE64_STANDARD.decode(text).ok());
            bytes
                .map(Some)
                .ok_or_else(|| unfit("a value is neither text nor base64"))
        }
    }
}

fn lists(number: Number, values: &[&Value]) -> Result<ArrayRef, ArrowError> {
    let lists: Vec<Option<&Vec<Value>>> = values.iter().map(|value| value.as_array()).collect();
    let lengths = lists.iter().map(|list| list.map_or(0, Vec::len));
    let elements: Vec<&Value> = lists.iter().flatten().copied().flatten().collect();
    Ok(Arc::new(ListArray::try_new(
        number.list_field(),
        OffsetBuffer::from_lengths(lengths),
        array(number.column_type(), &elements)?,
        Some(lists.iter().map(Option::is_some).collect()),
    )?))
}

fn array(column_type: ColumnType, values: &[&Value]) -> Result<ArrayRef, ArrowError> {
    let data_type = column_type.arrow();
    Ok(match column_type {
        ColumnType::Text | ColumnType::Label | ColumnType::Json | ColumnType::Bytes => {
            let mut builder = BinaryBuilder::new();
            for value in values {
                builder.append_option(decoded(value)?);
            }
            Arc::new(builder.finish())
        }
        ColumnType::Uuid | ColumnType::Inet6 => {
            let mut builder = FixedSizeBinaryBuilder::new(16);
            for value in values {
                match decoded(value)? {
                    Some(bytes) => builder.append_value(bytes)?,
                    None => builder.append_null(),
                }
            }
            Arc::new(builder.finish())
        }
        ColumnType::Time { .. } => {
            let numbers = values.iter().map(|value| value.as_i64());
            Arc::new(numbers.collect::<Time64MicrosecondArray>())
        }
        ColumnType::Timestamp { .. } => {
            let wall = array(ColumnType::DateTime { digits: 6 }, values)?;
            let wall = wall.as_primitive::<TimestampMicrosecondType>().clone();
            Arc::new(wall.with_timezone("UTC"))
        }
        ColumnType::Vector => lists(Number::Float32, values)?,
        ColumnType::List(number) => lists(number, values)?,
        _ => {
            let texts = values.iter().map(|value| match value {
                Value::Null => None,
                Value::String(text) => Some(text.clone()),
                other => Some(other.to_string()),
            });
            let texts: ArrayRef = Arc::new(texts.collect::<StringArray>());
            let strict = CastOptions {
                safe: false,
                ..CastOptions::default()
            };
            cast_with_options(&texts, &data_type, &strict)?
        }
    })
}

fn unfit(what: &str) -> ArrowError {
    ArrowError::InvalidArgumentError(what.to_owned())
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        BinaryArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int64Array,
        TimestampMicrosecondArray,
    };

    use super::super::{Changes, Column, TableName};
    use super::*;

    #[test]
    fn a_row_comes_back_as_it_was() {
        let decimal = ColumnType::Decimal {
            precision: 20,
            scale: 3,
        };
        let columns: Vec<(&str, ColumnType, ArrayRef)> = vec![
            (
                "id",
                ColumnType::Int64,
                Arc::new(Int64Array::from(vec![i64::MIN, i64::MAX])),
            ),
            (
                "big",
                ColumnType::UInt64,
                Arc::new(UInt64Array::from(vec![Some(u64::MAX), None])),
            ),
            (
                "note",
                ColumnType::Text,
                Arc::new(BinaryArray::from_vec(vec![b"zo\xc3\xab", b"\xff\x00"])),
            ),
            (
                "blob",
                ColumnType::Bytes,
                Arc::new(BinaryArray::from_vec(vec![b"", b"\x00\x01"])),
            ),
            (
                "total",
                decimal,
                Arc::new(
                    Decimal128Array::from(vec![Some(-1_234_567_890_123_456_789), None])
                        .with_precision_and_scale(20, 3)
                        .expect("20 digits"),
                ),
            ),
            (
                "born",
                ColumnType::Date,
                Arc::new(Date32Array::from(vec![-25_567, 120_529])),
            ),
            (
                "at",
                ColumnType::DateTime { digits: 6 },
                Arc::new(TimestampMicrosecondArray::from(vec![
                    -1,
                    253_402_300_799_999_999,
                ])),
            ),
            (
                "moment",
                ColumnType::Timestamp { digits: 6 },
                Arc::new(
                    TimestampMicrosecondArray::from(vec![0, 1_700_000_000_123_456])
                        .with_timezone("UTC"),
                ),
            ),
            (
                "span",
                ColumnType::Time { digits: 6 },
                Arc::new(Time64MicrosecondArray::from(vec![-3_020_399_999_999, 1])),
            ),
            (
                "f",
                ColumnType::Float32,
                Arc::new(Float32Array::from(vec![0.1, f32::MIN_POSITIVE])),
            ),
            (
                "d",
                ColumnType::Float64,
                Arc::new(Float64Array::from(vec![0.1, f64::MAX])),
            ),
        ];
        let schema = Arc::new(TableSchema {
            name: TableName::new("d", "t"),
            columns: columns
                .iter()
                .map(|(name, column_type, _)| Column {
                    name: (*name).to_owned(),
                    column_type: *column_type,
                    nullable: true,
                    source_type: String::new(),
                })
                .collect(),
            key: vec![0],
        });
        let batch = ChangeBatch {
            schema: Arc::clone(&schema),
            columns: columns.into_iter().map(|(_, _, array)| array).collect(),
            row_count: 2,
            changes: Changes::Load,
        };
        let texts = row_texts(&batch, &[0, 1]).expect("texts");
        assert_eq!(texts[0].key, "[-9223372036854775808]");
        let rows: Vec<&str> = texts.iter().map(|text| text.row.as_str()).collect();
        let again = rows_from_texts(&schema, &rows).expect("rows");
        for (column, (array, before)) in schema.columns.iter().zip(again.iter().zip(&batch.columns))
        {
            assert_eq!(array, before, "column `{}`", column.name);
        }
    }
}
