//! Rows written down as JSON, into Arrow columns and back.
//!
//! Numbers are JSON numbers, or strings where JSON's would lose digits; decimals, dates and times are strings; bytes are
//! `0x` and hexadecimal digits; a JSON column holds the document itself.

use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, FixedSizeBinaryBuilder, ListArray,
    PrimitiveArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::kernels::cast_utils::{Parser, parse_decimal, string_to_datetime};
use arrow::datatypes::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type,
    Int8Type, Int16Type, Int32Type, Int64Type, Time64MicrosecondType, TimestampMicrosecondType,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::util::display::array_value_to_string;
use serde_json::{Map, Value};

use crate::batch::{Column, ColumnType, Number, TableSchema};

/// A column of cells; Err says which value does not fit, without the value.
pub(super) fn column(column: &Column, cells: &[Value]) -> Result<ArrayRef, String> {
    if let (false, Some(row)) = (column.nullable, cells.iter().position(Value::is_null)) {
        return Err(format!(
            "row {}: column `{}` may not be NULL",
            row + 1,
            column.name
        ));
    }
    let column_type = column.column_type;
    Ok(match column_type {
        ColumnType::Int8 => integers::<Int8Type>(column, cells)?,
        ColumnType::Int16 => integers::<Int16Type>(column, cells)?,
        ColumnType::Int32 => integers::<Int32Type>(column, cells)?,
        ColumnType::Int64 => integers::<Int64Type>(column, cells)?,
        ColumnType::UInt8 => integers::<UInt8Type>(column, cells)?,
        ColumnType::UInt16 => integers::<UInt16Type>(column, cells)?,
        ColumnType::UInt32 => integers::<UInt32Type>(column, cells)?,
        ColumnType::UInt64 => integers::<UInt64Type>(column, cells)?,
        ColumnType::Float32 => values::<Float32Type>(column, cells, |cell| {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a column of 32 bits holds no more"
            )]
            float(cell).and_then(|value| {
                let narrow = value as f32;
                (narrow.is_finite() || !value.is_finite()).then_some(narrow)
            })
        })?,
        ColumnType::Float64 => values::<Float64Type>(column, cells, float)?,
        ColumnType::Decimal { precision, scale } => decimals(column, cells, precision, scale)?,
        ColumnType::Date => {
            values::<Date32Type>(column, cells, |cell| Date32Type::parse(cell.as_str()?))?
        }
        ColumnType::DateTime { .. } | ColumnType::Timestamp { .. } => {
            values::<TimestampMicrosecondType>(column, cells, |cell| moment(cell.as_str()?))?
        }
        ColumnType::Time { .. } => {
            values::<Time64MicrosecondType>(column, cells, |cell| time(cell.as_str()?))?
        }
        ColumnType::Text | ColumnType::Label => binary(column, cells, |cell| match cell {
            Value::String(text) => Some(text.clone().into_bytes()),
            _ => None,
        })?,
        ColumnType::Json => binary(column, cells, |cell| Some(cell.to_string().into_bytes()))?,
        ColumnType::Bytes => binary(column, cells, |cell| {
            unhex(cell.as_str()?.strip_prefix("0x")?)
        })?,
        ColumnType::Inet4 => values::<UInt32Type>(column, cells, |cell| {
            cell.as_str()?
                .parse::<std::net::Ipv4Addr>()
                .ok()
                .map(u32::from)
        })?,
        ColumnType::Inet6 => sixteen(column, cells, |text| {
            text.parse::<std::net::Ipv6Addr>()
                .ok()
                .map(|address| address.octets())
        })?,
        ColumnType::Uuid => sixteen(column, cells, |text| {
            unhex(&text.replace('-', ""))?.try_into().ok()
        })?,
        ColumnType::Bool => {
            let bits: Result<Vec<Option<bool>>, String> = cells
                .iter()
                .enumerate()
                .map(|(row, cell)| match cell {
                    Value::Null => Ok(None),
                    cell => cell.as_bool().map(Some).ok_or_else(|| misfit(column, row)),
                })
                .collect();
            Arc::new(BooleanArray::from(bits?))
        }
        ColumnType::Vector => lists(column, Number::Float32, cells)?,
        ColumnType::List(number) => lists(column, number, cells)?,
    })
}

fn decimals(
    column: &Column,
    cells: &[Value],
    precision: u8,
    scale: u8,
) -> Result<ArrayRef, String> {
    // The parser would round: what has more digits than the column is no value of it.
    let text = |cell: &Value| {
        let text = text(cell)?;
        let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
        let digits = fraction.trim_end_matches('0').len();
        (digits <= scale.into() && !text.contains(['e', 'E'])).then_some(text)
    };
    let signed = scale.cast_signed();
    if precision <= 38 {
        return values::<Decimal128Type>(column, cells, |cell| {
            parse_decimal::<Decimal128Type>(&text(cell)?, precision, signed).ok()
        });
    }
    values::<Decimal256Type>(column, cells, |cell| {
        parse_decimal::<Decimal256Type>(&text(cell)?, precision, signed).ok()
    })
}

fn misfit(column: &Column, row: usize) -> String {
    format!(
        "row {}: the value of column `{}` is no {}",
        row + 1,
        column.name,
        super::table::type_name(column.column_type)
    )
}

fn values<T: ArrowPrimitiveType>(
    column: &Column,
    cells: &[Value],
    value: impl Fn(&Value) -> Option<T::Native>,
) -> Result<ArrayRef, String> {
    let values: Result<Vec<Option<T::Native>>, String> = cells
        .iter()
        .enumerate()
        .map(|(row, cell)| match cell {
            Value::Null => Ok(None),
            cell => value(cell).map(Some).ok_or_else(|| misfit(column, row)),
        })
        .collect();
    let array: PrimitiveArray<T> = values?.into_iter().collect();
    Ok(Arc::new(array.with_data_type(column.column_type.arrow())))
}

fn integers<T: ArrowPrimitiveType>(column: &Column, cells: &[Value]) -> Result<ArrayRef, String>
where
    T::Native: TryFrom<i128>,
{
    values::<T>(column, cells, |cell| {
        let integer = match cell {
            Value::Number(number) => number
                .as_i64()
                .map(i128::from)
                .or(number.as_u64().map(i128::from)),
            Value::String(text) => text.parse().ok(),
            Value::Bool(value) => Some((*value).into()),
            _ => None,
        };
        T::Native::try_from(integer?).ok()
    })
}

fn binary(
    column: &Column,
    cells: &[Value],
    value: impl Fn(&Value) -> Option<Vec<u8>>,
) -> Result<ArrayRef, String> {
    let values: Result<Vec<Option<Vec<u8>>>, String> = cells
        .iter()
        .enumerate()
        .map(|(row, cell)| match cell {
            Value::Null => Ok(None),
            cell => value(cell).map(Some).ok_or_else(|| misfit(column, row)),
        })
        .collect();
    Ok(Arc::new(
        values?
            .iter()
            .map(Option::as_deref)
            .collect::<BinaryArray>(),
    ))
}

fn sixteen(
    column: &Column,
    cells: &[Value],
    value: impl Fn(&str) -> Option<[u8; 16]>,
) -> Result<ArrayRef, String> {
    let mut builder = FixedSizeBinaryBuilder::with_capacity(cells.len(), 16);
    for (row, cell) in cells.iter().enumerate() {
        if cell.is_null() {
            builder.append_null();
            continue;
        }
        let value = cell
            .as_str()
            .and_then(&value)
            .ok_or_else(|| misfit(column, row))?;
        builder
            .append_value(value)
            .map_err(|error| error.to_string())?;
    }
    Ok(Arc::new(builder.finish()))
}

fn lists(column: &Column, number: Number, cells: &[Value]) -> Result<ArrayRef, String> {
    let elements = Column {
        column_type: number.column_type(),
        nullable: false,
        ..column.clone()
    };
    let mut all = Vec::new();
    for (row, cell) in cells.iter().enumerate().filter(|(_, cell)| !cell.is_null()) {
        let items = cell.as_array().ok_or_else(|| misfit(column, row))?;
        self::column(&elements, items).map_err(|_| misfit(column, row))?;
        all.extend(items.iter().cloned());
    }
    let lengths = cells.iter().map(|cell| cell.as_array().map_or(0, Vec::len));
    let lists = ListArray::try_new(
        number.list_field(),
        OffsetBuffer::from_lengths(lengths),
        self::column(&elements, &all)?,
        Some(cells.iter().map(Value::is_array).collect()),
    );
    lists
        .map(|lists| Arc::new(lists) as ArrayRef)
        .map_err(|error| error.to_string())
}

fn float(cell: &Value) -> Option<f64> {
    match cell {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn text(cell: &Value) -> Option<String> {
    match cell {
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        _ => None,
    }
}

fn moment(text: &str) -> Option<i64> {
    let utc: Tz = "+00:00".parse().ok()?;
    string_to_datetime(&utc, text)
        .ok()
        .map(|moment| moment.timestamp_micros())
}

/// Microseconds of `[-]838:59:59.999999`.
fn time(text: &str) -> Option<i64> {
    let (sign, clock) = text
        .strip_prefix('-')
        .map_or((1, text), |clock| (-1, clock));
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let parts: Option<Vec<i64>> = clock.split(':').map(|part| part.parse().ok()).collect();
    let [hours, minutes, seconds] = parts?.try_into().ok()?;
    let micros: i64 = match fraction {
        "" => 0,
        digits if digits.len() <= 6 => format!("{digits:0<6}").parse().ok()?,
        _ => return None,
    };
    let sound =
        (0..=838).contains(&hours) && (0..60).contains(&minutes) && (0..60).contains(&seconds);
    sound.then_some(sign * (((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros))
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks(2).map(byte).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One row of columns as a JSON object, in the schema's order.
pub fn row_to_json(schema: &TableSchema, columns: &[ArrayRef], row: usize) -> Map<String, Value> {
    let cells = schema.columns.iter().zip(columns);
    cells
        .map(|(column, array)| (column.name.clone(), cell(column.column_type, array, row)))
        .collect()
}

fn cell(column_type: ColumnType, array: &ArrayRef, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    let display = || array_value_to_string(array, row).unwrap_or_else(|error| error.to_string());
    match column_type {
        ColumnType::Int8
        | ColumnType::Int16
        | ColumnType::Int32
        | ColumnType::Int64
        | ColumnType::UInt8
        | ColumnType::UInt16
        | ColumnType::UInt32
        | ColumnType::UInt64 => {
            let digits = display();
            let number = digits.parse::<i64>().map(serde_json::Number::from);
            let number = number.or_else(|_| digits.parse::<u64>().map(serde_json::Number::from));
            number.map_or(Value::String(digits), Value::Number)
        }
        ColumnType::Float32 => from_float(array.as_primitive::<Float32Type>().value(row).into()),
        ColumnType::Float64 => from_float(array.as_primitive::<Float64Type>().value(row)),
        ColumnType::Decimal { .. } | ColumnType::Date => display().into(),
        ColumnType::DateTime { .. } | ColumnType::Timestamp { .. } => {
            // Names of zones would need their tables, and UTC is the only one.
            let moments = array.as_primitive::<TimestampMicrosecondType>().clone();
            let wall_clock = moments.with_timezone_opt(None::<&str>);
            let text = array_value_to_string(&wall_clock, row);
            text.unwrap_or_else(|error| error.to_string())
                .replace('T', " ")
                .into()
        }
        ColumnType::Time { .. } => {
            from_time(array.as_primitive::<Time64MicrosecondType>().value(row)).into()
        }
        ColumnType::Text | ColumnType::Label => {
            String::from_utf8_lossy(array.as_binary::<i32>().value(row)).into()
        }
        ColumnType::Json => {
            let document = array.as_binary::<i32>().value(row);
            serde_json::from_slice(document)
                .unwrap_or_else(|_| String::from_utf8_lossy(document).into())
        }
        ColumnType::Bytes => format!("0x{}", hex(array.as_binary::<i32>().value(row))).into(),
        ColumnType::Inet4 => {
            let address = array.as_primitive::<UInt32Type>().value(row);
            std::net::Ipv4Addr::from(address).to_string().into()
        }
        ColumnType::Inet6 => match array.as_fixed_size_binary().value(row).try_into() {
            Ok(octets) => std::net::Ipv6Addr::from_octets(octets).to_string().into(),
            Err(_) => Value::Null,
        },
        ColumnType::Uuid => {
            let mut digits = hex(array.as_fixed_size_binary().value(row));
            for place in [20, 16, 12, 8] {
                digits.insert(place, '-');
            }
            digits.into()
        }
        ColumnType::Bool => array.as_boolean().value(row).into(),
        ColumnType::Vector => list(Number::Float32, array, row),
        ColumnType::List(number) => list(number, array, row),
    }
}

fn list(number: Number, array: &ArrayRef, row: usize) -> Value {
    let items = array.as_list::<i32>().value(row);
    (0..items.len())
        .map(|place| cell(number.column_type(), &items, place))
        .collect()
}

/// JSON has no infinity and no NaN.
fn from_float(value: f64) -> Value {
    serde_json::Number::from_f64(value).map_or_else(|| value.to_string().into(), Value::Number)
}

fn from_time(micros: i64) -> String {
    let sign = if micros < 0 { "-" } else { "" };
    let (seconds, fraction) = (
        micros.unsigned_abs() / 1_000_000,
        micros.unsigned_abs() % 1_000_000,
    );
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let fraction = if fraction == 0 {
        String::new()
    } else {
        format!(".{fraction:06}")
    };
    format!("{sign}{hours:02}:{minutes:02}:{seconds:02}{fraction}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::author::table::parse_type;

    fn round_trip(type_name: &str, cells: &[Value]) {
        let described = Column {
            name: "c".to_owned(),
            column_type: parse_type(type_name).expect("a type"),
            nullable: true,
            source_type: String::new(),
        };
        let array = column(&described, cells).unwrap_or_else(|what| panic!("{type_name}: {what}"));
        assert_eq!(
            array.data_type(),
            &described.column_type.arrow(),
            "{type_name}"
        );
        for (row, written) in cells.iter().enumerate() {
            assert_eq!(
                &cell(described.column_type, &array, row),
                written,
                "{type_name}"
            );
        }
    }

    #[test]
    fn every_type_is_read_back_as_it_was_written() {
        round_trip("int8", &[json!(-128), Value::Null]);
        round_trip("uint64", &[json!(18_446_744_073_709_551_615_u64)]);
        round_trip("float32", &[json!(0.5)]);
        round_trip("float64", &[json!(-1e300), json!("NaN")]);
        round_trip("decimal(10,2)", &[json!("-12.50"), Value::Null]);
        round_trip(
            "decimal(65,30)",
            &[json!("3.000000000000000000000000000001")],
        );
        round_trip("date", &[json!("2026-01-31"), json!("0001-01-01")]);
        round_trip(
            "datetime",
            &[
                json!("9999-12-31 23:59:59.999999"),
                json!("2026-01-31 12:00:00"),
            ],
        );
        round_trip("timestamp", &[json!("2026-01-31 12:00:00.500")]);
        round_trip("time", &[json!("-838:59:59"), json!("12:00:00.000001")]);
        round_trip("text", &[json!(""), json!("zoë"), Value::Null]);
        round_trip("enum", &[json!("new")]);
        round_trip("bytes", &[json!("0x00ff"), json!("0x")]);
        round_trip("json", &[json!({ "a": [1, null, "x"] })]);
        round_trip("uuid", &[json!("6ccd780c-baba-1026-9564-5b8c656024db")]);
        round_trip("inet4", &[json!("10.0.0.1")]);
        round_trip("inet6", &[json!("2001:db8::1")]);
        round_trip("vector", &[json!([1.5, -2.0])]);
        round_trip("bool", &[json!(true), Value::Null, json!(false)]);
        round_trip(
            "list(uint64)",
            &[json!([1, u64::MAX]), Value::Null, json!([])],
        );
        round_trip("list(float64)", &[json!([0.1])]);
    }

    #[test]
    fn a_value_that_does_not_fit_is_named_by_row_and_column_and_not_shown() {
        let described = Column {
            name: "age".to_owned(),
            column_type: ColumnType::UInt8,
            nullable: false,
            source_type: String::new(),
        };
        let text = column(&described, &[json!(1), json!(256)]).expect_err("256");
        assert_eq!(text, "row 2: the value of column `age` is no uint8");
        for (type_name, cell) in [
            ("float32", json!(1e300)),
            ("decimal(10,2)", json!("1.005")),
            ("decimal(10,2)", json!(1e-7)),
            ("decimal(10,2)", json!(100_000_000)),
            ("int64", json!(1.0)),
            ("uint8", json!(-1)),
            ("text", json!(1)),
            ("date", json!("2026-02-30")),
            ("bool", json!("true")),
        ] {
            let described = Column {
                column_type: parse_type(type_name).expect("a type"),
                ..described.clone()
            };
            let text = column(&described, std::slice::from_ref(&cell)).expect_err(type_name);
            let expected = format!("row 1: the value of column `age` is no {type_name}");
            assert_eq!(text, expected, "{cell}");
        }
        let text = column(&described, &[Value::Null]).expect_err("NULL");
        assert_eq!(text, "row 1: column `age` may not be NULL");
    }
}
