//! From computed values to a column of the type that was declared.

use pipewright_sdk::{BooleanBuilder, BytesBuilder, Column, DataType, Value, ValuesBuilder};

use crate::truth::{TRUE, has_failed};
use crate::vector::{BAD_CAST, Data, OVERFLOW, VALUE, Vector};

/// A row that could not be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The row of the batch.
    pub row: usize,
    /// A short stable word.
    pub code: &'static str,
    /// For people.
    pub message: &'static str,
}

impl Failed {
    fn new(row: usize, state: u8) -> Self {
        let (code, message) = match state {
            OVERFLOW => ("overflow", "a number is larger than its type holds"),
            _ => ("bad-cast", "a value is none of the type that it is cast to"),
        };
        Self { row, code, message }
    }

    /// The rows for which a condition could not be told.
    pub fn of_truth(truth: &[u8]) -> Vec<Self> {
        if !has_failed(truth) {
            return Vec::new();
        }
        let failed = truth.iter().enumerate().filter(|(_, truth)| **truth > TRUE);
        failed
            .map(|(row, truth)| Self::new(row, *truth - TRUE + 1))
            .collect()
    }
}

/// A column of `data_type`, NULL where a row failed, and the rows that did.
pub(crate) fn column(vector: &Vector, data_type: DataType) -> (Column, Vec<Failed>) {
    let mut failed = Vec::new();
    if let Some(states) = &vector.states {
        let marked = states
            .iter()
            .enumerate()
            .filter(|(_, state)| **state >= OVERFLOW);
        failed.extend(marked.map(|(row, state)| Failed::new(row, *state)));
    }
    let column = match data_type {
        DataType::Boolean => booleans(vector),
        DataType::Int8 => integers::<i8>(vector, data_type, &mut failed),
        DataType::Int16 => integers::<i16>(vector, data_type, &mut failed),
        DataType::Int32 => integers::<i32>(vector, data_type, &mut failed),
        DataType::Int64 => integers::<i64>(vector, data_type, &mut failed),
        DataType::UInt8 => match &vector.data {
            Data::Bool(values) => values_of(
                vector,
                data_type,
                |row| Some(u8::from(values[row])),
                &mut failed,
            ),
            _ => integers::<u8>(vector, data_type, &mut failed),
        },
        DataType::UInt16 => integers::<u16>(vector, data_type, &mut failed),
        DataType::UInt32 => integers::<u32>(vector, data_type, &mut failed),
        DataType::UInt64 => integers::<u64>(vector, data_type, &mut failed),
        DataType::Decimal128 { precision, .. } => {
            let bound = 10_u128.pow(precision.min(38).into());
            let values = vector.numbers();
            let value = |row: usize| Some(values[row]).filter(|value| value.unsigned_abs() < bound);
            values_of(vector, data_type, value, &mut failed)
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a float of 32 bits was asked for"
        )]
        DataType::Float32 => values_of(
            vector,
            data_type,
            |row| Some(vector.floats()[row] as f32).filter(|value| value.is_finite()),
            &mut failed,
        ),
        DataType::Float64 => values_of(
            vector,
            data_type,
            |row| Some(vector.floats()[row]),
            &mut failed,
        ),
        DataType::Date32 => values_of(
            vector,
            data_type,
            |row| i32::try_from(vector.moments()[row]).ok(),
            &mut failed,
        ),
        DataType::Utf8 | DataType::Binary => bytes(vector, data_type),
        _ => values_of(
            vector,
            data_type,
            |row| Some(vector.moments()[row]),
            &mut failed,
        ),
    };
    (column, failed)
}

fn integers<T: Value + TryFrom<i128>>(
    vector: &Vector,
    data_type: DataType,
    failed: &mut Vec<Failed>,
) -> Column {
    let values = vector.numbers();
    values_of(
        vector,
        data_type,
        |row| T::try_from(values[row]).ok(),
        failed,
    )
}

/// A value that does not fit overflows.
fn values_of<T: Value>(
    vector: &Vector,
    data_type: DataType,
    value: impl Fn(usize) -> Option<T>,
    failed: &mut Vec<Failed>,
) -> Column {
    let rows = row_count(vector);
    let mut builder = ValuesBuilder::<T>::new(data_type, rows);
    for row in 0..rows {
        if vector.state(row) != VALUE {
            builder.push(None);
            continue;
        }
        let value = value(row);
        if value.is_none() {
            failed.push(Failed::new(row, OVERFLOW));
        }
        builder.push(value);
    }
    builder.finish()
}

fn booleans(vector: &Vector) -> Column {
    let mut builder = BooleanBuilder::new();
    for (row, value) in vector.bools().iter().enumerate() {
        builder.push((vector.state(row) == VALUE).then_some(*value));
    }
    builder.finish()
}

fn bytes(vector: &Vector, data_type: DataType) -> Column {
    let texts = vector.texts();
    let mut builder = BytesBuilder::new(data_type, texts.len());
    builder.reserve_bytes(texts.bytes.len());
    for row in 0..texts.len() {
        builder.push((vector.state(row) == VALUE).then(|| texts.get(row)));
    }
    builder.finish()
}

pub(crate) fn row_count(vector: &Vector) -> usize {
    match &vector.data {
        Data::Bool(values) => values.len(),
        Data::Number(values) => values.len(),
        Data::Float(values) => values.len(),
        Data::Bytes(texts) => texts.len(),
        Data::Moment(values) => values.len(),
    }
}

const _: () = assert!(BAD_CAST == OVERFLOW + 1);
