//! Columns as they are computed on, and the states of their rows.

use pipewright_sdk::{Batch, Column, DataType, Failure, Read};

/// What a typed expression gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only NULL, of no type yet.
    Null,
    Bool,
    /// An integer or decimal, in units of the last of `scale` digits after the point.
    Number {
        scale: u8,
    },
    Float,
    Text,
    Bytes,
    /// Days.
    Date,
    /// Microseconds of a wall clock.
    DateTime,
    /// Microseconds, UTC.
    Timestamp,
    /// Microseconds of a span.
    Time,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Null => "NULL",
            Kind::Bool => "a truth value",
            Kind::Number { scale: 0 } => "an integer",
            Kind::Number { .. } => "a decimal",
            Kind::Float => "a float",
            Kind::Text => "text",
            Kind::Bytes => "bytes",
            Kind::Date => "a date",
            Kind::DateTime => "a datetime",
            Kind::Timestamp => "a timestamp",
            Kind::Time => "a time",
        }
    }
}

/// Row states: a value, NULL, or why there can be none.
pub(crate) const VALUE: u8 = 0;
pub(crate) const NULL: u8 = 1;
pub(crate) const OVERFLOW: u8 = 2;
pub(crate) const BAD_CAST: u8 = 3;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Data {
    Bool(Vec<bool>),
    Number(Vec<i128>),
    Float(Vec<f64>),
    Bytes(Texts),
    /// Dates in days; datetimes, timestamps and times in microseconds.
    Moment(Vec<i64>),
}

/// A value for each row, and the state of each row; none: every row has a value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Vector {
    pub(crate) data: Data,
    pub(crate) states: Option<Vec<u8>>,
}

/// Texts one after the other.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Texts {
    pub(crate) ends: Vec<u32>,
    pub(crate) bytes: Vec<u8>,
}

impl Texts {
    pub(crate) fn with_capacity(rows: usize, bytes: usize) -> Self {
        Self {
            ends: Vec::with_capacity(rows),
            bytes: Vec::with_capacity(bytes),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn get(&self, row: usize) -> &[u8] {
        let start = if row == 0 {
            0
        } else {
            self.ends[row - 1] as usize
        };
        &self.bytes[start..self.ends[row] as usize]
    }

    /// The text of a row: what is not UTF-8 came from bytes, and never gets here.
    pub(crate) fn text(&self, row: usize) -> &str {
        std::str::from_utf8(self.get(row)).unwrap_or_default()
    }

    /// Ends a row whose bytes have been appended.
    pub(crate) fn end_row(&mut self) {
        self.ends
            .push(u32::try_from(self.bytes.len()).expect("a column stays below 4 GiB"));
    }

    pub(crate) fn push(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        self.end_row();
    }
}

impl Vector {
    pub(crate) fn new(data: Data) -> Self {
        Self { data, states: None }
    }

    pub(crate) fn nulls(kind: Kind, rows: usize) -> Self {
        Self {
            data: blank(kind, rows),
            states: Some(vec![NULL; rows]),
        }
    }

    pub(crate) fn state(&self, row: usize) -> u8 {
        self.states.as_ref().map_or(VALUE, |states| states[row])
    }

    /// The states of two operands: a failure beats NULL, NULL beats a value.
    pub(crate) fn joined(left: Option<Vec<u8>>, right: Option<Vec<u8>>) -> Option<Vec<u8>> {
        match (left, right) {
            (None, other) | (other, None) => other,
            (Some(mut left), Some(right)) => {
                for (left, right) in left.iter_mut().zip(right) {
                    *left = (*left).max(right);
                }
                Some(left)
            }
        }
    }

    pub(crate) fn numbers(&self) -> &[i128] {
        match &self.data {
            Data::Number(values) => values,
            _ => unreachable!("typed as a number"),
        }
    }

    pub(crate) fn floats(&self) -> &[f64] {
        match &self.data {
            Data::Float(values) => values,
            _ => unreachable!("typed as a float"),
        }
    }

    pub(crate) fn moments(&self) -> &[i64] {
        match &self.data {
            Data::Moment(values) => values,
            _ => unreachable!("typed as a moment"),
        }
    }

    pub(crate) fn bools(&self) -> &[bool] {
        match &self.data {
            Data::Bool(values) => values,
            _ => unreachable!("typed as a truth value"),
        }
    }

    pub(crate) fn texts(&self) -> &Texts {
        match &self.data {
            Data::Bytes(texts) => texts,
            _ => unreachable!("typed as text"),
        }
    }
}

/// Marks a row, making the states when it is the first.
pub(crate) fn mark(states: &mut Option<Vec<u8>>, rows: usize, row: usize, state: u8) {
    let states = states.get_or_insert_with(|| vec![VALUE; rows]);
    states[row] = states[row].max(state);
}

pub(crate) fn blank(kind: Kind, rows: usize) -> Data {
    match kind {
        Kind::Null | Kind::Number { .. } => Data::Number(vec![0; rows]),
        Kind::Bool => Data::Bool(vec![false; rows]),
        Kind::Float => Data::Float(vec![0.0; rows]),
        Kind::Text | Kind::Bytes => Data::Bytes(Texts {
            ends: vec![0; rows],
            bytes: Vec::new(),
        }),
        Kind::Date | Kind::DateTime | Kind::Timestamp | Kind::Time => Data::Moment(vec![0; rows]),
    }
}

/// What a column of the table is computed as; none: it cannot be.
pub(crate) fn kind_of(data_type: DataType) -> Option<Kind> {
    Some(match data_type {
        DataType::Boolean => Kind::Bool,
        DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::UInt64 => Kind::Number { scale: 0 },
        DataType::Decimal128 { scale, .. } => Kind::Number {
            scale: u8::try_from(scale).ok()?,
        },
        DataType::Float32 | DataType::Float64 => Kind::Float,
        DataType::Utf8 => Kind::Text,
        DataType::Binary => Kind::Bytes,
        DataType::Date32 => Kind::Date,
        DataType::Time64Micros => Kind::Time,
        DataType::TimestampMicros { utc: false } => Kind::DateTime,
        DataType::TimestampMicros { utc: true } => Kind::Timestamp,
        _ => return None,
    })
}

/// A column of the batch, widened.
pub(crate) fn load(batch: &Batch, read: Read) -> Result<Vector, Failure> {
    let column = batch.column(read);
    let numbers = |values: Vec<i128>| Data::Number(values);
    let data = match column.data_type() {
        DataType::Boolean => {
            let values = column.booleans()?;
            Data::Bool(values.iter().map(Option::unwrap_or_default).collect())
        }
        DataType::Int8 => numbers(column.values::<i8>()?.iter_raw().map(i128::from).collect()),
        DataType::Int16 => numbers(column.values::<i16>()?.iter_raw().map(i128::from).collect()),
        DataType::Int32 => numbers(column.values::<i32>()?.iter_raw().map(i128::from).collect()),
        DataType::Int64 => numbers(column.values::<i64>()?.iter_raw().map(i128::from).collect()),
        DataType::UInt8 => numbers(column.values::<u8>()?.iter_raw().map(i128::from).collect()),
        DataType::UInt16 => numbers(column.values::<u16>()?.iter_raw().map(i128::from).collect()),
        DataType::UInt32 => numbers(column.values::<u32>()?.iter_raw().map(i128::from).collect()),
        DataType::UInt64 => numbers(column.values::<u64>()?.iter_raw().map(i128::from).collect()),
        DataType::Decimal128 { .. } => numbers(column.values::<i128>()?.iter_raw().collect()),
        DataType::Float32 => {
            Data::Float(column.values::<f32>()?.iter_raw().map(f64::from).collect())
        }
        DataType::Float64 => Data::Float(column.values::<f64>()?.iter_raw().collect()),
        DataType::Date32 => {
            Data::Moment(column.values::<i32>()?.iter_raw().map(i64::from).collect())
        }
        DataType::Time64Micros | DataType::TimestampMicros { .. } => {
            Data::Moment(column.values::<i64>()?.iter_raw().collect())
        }
        DataType::Utf8 | DataType::Binary => {
            let bytes = column.bytes()?;
            let mut texts = Texts::with_capacity(column.len(), bytes.byte_count());
            for value in bytes.iter() {
                texts.push(value.unwrap_or_default());
            }
            Data::Bytes(texts)
        }
        other => {
            return Err(Failure::failed(format!(
                "a column of {other:?} is not computed with"
            )));
        }
    };
    Ok(Vector {
        data,
        states: states(column),
    })
}

fn states(column: &Column) -> Option<Vec<u8>> {
    column.has_nulls().then(|| {
        (0..column.len())
            .map(|row| u8::from(column.is_null(row)) * NULL)
            .collect()
    })
}
