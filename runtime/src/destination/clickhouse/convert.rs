//! What a column's arrays go through on their way into their ClickHouse type: whole columns at a time, and by reference
//! where nothing changes.

use std::io::Write;
use std::sync::Arc;

use arrow::array::types::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Decimal256Type, Int8Type, Int16Type, Int32Type,
    Int64Type, Time64MicrosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, FixedSizeBinaryArray, ListArray,
    PrimitiveArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, TimeUnit, i256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::labels::Labels;
use super::target::TargetColumn;
use super::types::{Conversion, Outside};
use crate::batch::{ColumnType, Policy};
use crate::error::{Error, ErrorKind, Result};

/// Days of 1900-01-01 and 2299-12-31, between which Date32 holds (trap 7).
pub(super) const DATE32: (i32, i32) = (-25_567, 120_529);

/// An array on its way, and how many of its values a policy has changed.
#[derive(Debug)]
pub(super) struct Converted {
    pub(super) array: ArrayRef,
    pub(super) changed: Option<(Policy, usize)>,
}

impl Converted {
    fn exactly(array: ArrayRef) -> Self {
        Self {
            array,
            changed: None,
        }
    }

    fn with(array: ArrayRef, policy: Policy, values: usize) -> Self {
        Self {
            array,
            changed: (values > 0).then_some((policy, values)),
        }
    }
}

/// The Arrow type that is sent for a column.
pub(super) fn sent_type(column: &TargetColumn) -> DataType {
    match column.conversion {
        Conversion::None | Conversion::Date(_) => column.column_type.arrow(),
        Conversion::DateToSeconds => DataType::Timestamp(TimeUnit::Second, None),
        Conversion::TimeToMicros => DataType::Int64,
        Conversion::TinyintToBool => DataType::Boolean,
        Conversion::LabelToEnum16 => DataType::Int16,
        Conversion::LabelToNumber => DataType::UInt16,
        Conversion::SetToArray => DataType::List(Arc::new(item())),
        Conversion::BytesToHex
        | Conversion::BytesToBase64
        | Conversion::NumberToText
        | Conversion::JsonToObject => DataType::Binary,
        Conversion::BytesToFixed(length) => DataType::FixedSizeBinary(length.into()),
    }
}

/// Takes an array of the column's own type to the one that is sent.
///
/// # Errors
/// For a value that the ClickHouse type cannot hold and no policy covers, naming the column.
pub(super) fn convert(column: &TargetColumn, array: &ArrayRef) -> Result<Converted> {
    Ok(match column.conversion {
        Conversion::None => Converted::exactly(Arc::clone(array)),
        Conversion::Date(outside) => dates(column, array, outside),
        Conversion::DateToSeconds => Converted::exactly(Arc::new(
            array
                .as_primitive::<Date32Type>()
                .unary::<_, TimestampSecondType>(|day| i64::from(day) * 86_400),
        )),
        Conversion::TimeToMicros => Converted::exactly(Arc::new(
            array
                .as_primitive::<Time64MicrosecondType>()
                .reinterpret_cast::<Int64Type>(),
        )),
        Conversion::TinyintToBool if column.column_type == ColumnType::UInt8 => {
            truth::<UInt8Type>(array, 1)
        }
        Conversion::TinyintToBool => truth::<Int8Type>(array, 1),
        Conversion::LabelToEnum16 => {
            let numbers = numbers(column, array)?;
            Converted::exactly(Arc::new(numbers.unary::<_, Int16Type>(u16::cast_signed)))
        }
        Conversion::LabelToNumber => Converted::exactly(Arc::new(numbers(column, array)?)),
        Conversion::SetToArray => members(column, array)?,
        Conversion::BytesToHex => Converted::exactly(hex(column, array)?),
        Conversion::BytesToBase64 => Converted::exactly(base64(column, array)?),
        Conversion::NumberToText => Converted::exactly(number_texts(column, array)?),
        Conversion::JsonToObject => objects(column, array)?,
        Conversion::BytesToFixed(length) => Converted::exactly(fixed(column, array, length)?),
    })
}

/// Days outside of [`DATE32`] as `outside` says; NULL only where the column takes it.
fn dates(column: &TargetColumn, array: &ArrayRef, outside: Outside) -> Converted {
    let (low, high) = DATE32;
    let days = array.as_primitive::<Date32Type>();
    let within = |day: i32| (low..=high).contains(&day);
    // Without a branch, so that the usual case is one pass over the values.
    let any = days
        .values()
        .iter()
        .fold(false, |any, day| any | (*day < low) | (*day > high));
    if !any {
        return Converted::exactly(Arc::clone(array));
    }
    let changed = days.iter().flatten().filter(|day| !within(*day)).count();
    let array: PrimitiveArray<Date32Type> = match outside {
        Outside::Clamp => days.unary(|day| day.clamp(low, high)),
        Outside::Null if column.nullable => days.unary_opt(|day| within(day).then_some(day)),
        Outside::Null => days.unary(|day| if within(day) { day } else { 0 }),
    };
    Converted::with(Arc::new(array), Policy::DateRange, changed)
}

/// Whether each number is not 0. One that is neither 0 nor 1 is changed by that.
fn truth<T: ArrowPrimitiveType>(array: &ArrayRef, one: T::Native) -> Converted {
    let values = array.as_primitive::<T>();
    let zero = T::Native::default();
    let changed = values
        .iter()
        .flatten()
        .filter(|value| *value != zero && *value != one)
        .count();
    let truths = BooleanArray::from_unary(values, |value| value != zero);
    Converted::with(Arc::new(truths), Policy::Tinyint1, changed)
}

fn numbers(column: &TargetColumn, array: &ArrayRef) -> Result<PrimitiveArray<UInt16Type>> {
    let texts = array.as_binary::<i32>();
    let labels: &Labels = column
        .labels
        .as_deref()
        .ok_or_else(|| broken(column, "the labels of an ENUM are not known"))?;
    let mut numbers = Vec::with_capacity(texts.len());
    let mut last: (&[u8], u16) = (b"", labels.number(b"").unwrap_or(0));
    for text in texts {
        let number = match text {
            None => 0,
            // Rows of one kind often follow each other.
            Some(text) if text == last.0 => last.1,
            Some(text) => {
                let number = labels.number(text).ok_or_else(|| {
                    Error::new(
                        ErrorKind::SchemaConflict,
                        format!(
                            "column `{}` has a label that the source does not declare",
                            column.name
                        ),
                    )
                    .with_hint("load the table anew; or choose `enum: label` for the column")
                })?;
                last = (text, number);
                number
            }
        };
        numbers.push(number);
    }
    Ok(PrimitiveArray::new(
        ScalarBuffer::from(numbers),
        array.nulls().cloned(),
    ))
}

fn item() -> Field {
    Field::new("item", DataType::Binary, false)
}

/// The labels of each SET. No array can be NULL, so NULL is an empty one, and counted.
fn members(column: &TargetColumn, array: &ArrayRef) -> Result<Converted> {
    let texts = array.as_binary::<i32>();
    let mut ends = Vec::with_capacity(texts.len() + 1);
    ends.push(0);
    let mut labels = Texts::new(texts.len(), texts.value_data().len());
    for text in texts {
        // No label can hold a comma, and the empty set is the empty text.
        let members = text.filter(|text| !text.is_empty());
        for label in members
            .into_iter()
            .flat_map(|text| text.split(|byte| *byte == b','))
        {
            labels.push(column, |out| out.extend_from_slice(label))?;
        }
        ends.push(labels.count(column)?);
    }
    // A NULL that the source forbids stays one, and is refused by its name.
    let nulls = array.nulls().filter(|_| !column.source_nullable).cloned();
    let list = ListArray::try_new(
        Arc::new(item()),
        OffsetBuffer::new(ScalarBuffer::from(ends)),
        labels.finish(None),
        nulls,
    )
    .map_err(|error| broken(column, "the labels make no array").with_source(error))?;
    let changed = if column.source_nullable {
        array.null_count()
    } else {
        0
    };
    Ok(Converted::with(Arc::new(list), Policy::Set, changed))
}

fn hex(column: &TargetColumn, array: &ArrayRef) -> Result<ArrayRef> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let values = array.as_binary::<i32>();
    let mut texts = Texts::new(values.len(), values.value_data().len() * 2);
    for value in values {
        texts.push(column, |out| {
            for byte in value.unwrap_or_default() {
                out.push(DIGITS[usize::from(byte >> 4)]);
                out.push(DIGITS[usize::from(byte & 15)]);
            }
        })?;
    }
    Ok(texts.finish(array.nulls().cloned()))
}

fn base64(column: &TargetColumn, array: &ArrayRef) -> Result<ArrayRef> {
    let values = array.as_binary::<i32>();
    let mut texts = Texts::new(values.len(), values.value_data().len().div_ceil(3) * 4);
    for value in values {
        let value = value.unwrap_or_default();
        let mut written = Ok(0);
        texts.push(column, |out| {
            let start = out.len();
            out.resize(start + value.len().div_ceil(3) * 4, 0);
            written = STANDARD.encode_slice(value, &mut out[start..]);
        })?;
        written.map_err(|error| broken(column, "Base64 has no room").with_source(error))?;
    }
    Ok(texts.finish(array.nulls().cloned()))
}

fn number_texts(column: &TargetColumn, array: &ArrayRef) -> Result<ArrayRef> {
    match array.data_type() {
        DataType::Int8 => integers::<Int8Type>(column, array),
        DataType::Int16 => integers::<Int16Type>(column, array),
        DataType::Int32 => integers::<Int32Type>(column, array),
        DataType::Int64 => integers::<Int64Type>(column, array),
        DataType::UInt8 => integers::<UInt8Type>(column, array),
        DataType::UInt16 => integers::<UInt16Type>(column, array),
        DataType::UInt32 => integers::<UInt32Type>(column, array),
        DataType::UInt64 => integers::<UInt64Type>(column, array),
        DataType::Decimal128(_, scale) => {
            let (values, scale) = (array.as_primitive::<Decimal128Type>(), *scale);
            each(column, array, values.values(), |value, out| {
                let digits = Digits::of(0, value.unsigned_abs());
                digits.print(*value < 0, scale, out);
            })
        }
        DataType::Decimal256(_, scale) => {
            let (values, scale) = (array.as_primitive::<Decimal256Type>(), *scale);
            each(column, array, values.values(), |value, out| {
                let (high, low) = halves(*value);
                Digits::of(high, low).print(*value < i256::ZERO, scale, out);
            })
        }
        _ => Err(broken(column, "only numbers have texts")),
    }
}

fn integers<T>(column: &TargetColumn, array: &ArrayRef) -> Result<ArrayRef>
where
    T: ArrowPrimitiveType,
    T::Native: std::fmt::Display,
{
    let values = array.as_primitive::<T>();
    each(column, array, values.values(), |value, out| {
        write!(out, "{value}").expect("a vector takes every byte");
    })
}

/// One text for each of `values`, the array's own.
fn each<V>(
    column: &TargetColumn,
    array: &ArrayRef,
    values: &[V],
    print: impl Fn(&V, &mut Vec<u8>),
) -> Result<ArrayRef> {
    let mut texts = Texts::new(values.len(), values.len() * 8);
    for value in values {
        texts.push(column, |out| print(value, out))?;
    }
    Ok(texts.finish(array.nulls().cloned()))
}

/// 10^38, the largest power of ten in an i128.
const HALF: i128 = 10_i128.pow(38);

/// The number without its sign, above and below the 38 lowest digits.
fn halves(value: i256) -> (u128, u128) {
    let size = value.wrapping_abs();
    let half = i256::from_i128(HALF);
    let (high, low) = (size.wrapping_div(half), size.wrapping_rem(half));
    (high.as_i128().unsigned_abs(), low.as_i128().unsigned_abs())
}

/// Up to 76 decimal digits without an allocation.
struct Digits {
    text: [u8; 80],
    length: usize,
}

impl Digits {
    fn of(high: u128, low: u128) -> Self {
        let mut text = [0; 80];
        let mut rest = &mut text[..];
        let written = if high > 0 {
            write!(rest, "{high}{low:038}")
        } else {
            write!(rest, "{low}")
        };
        written.expect("76 digits fit");
        let left = rest.len();
        Self {
            text,
            length: 80 - left,
        }
    }

    /// As MySQL prints a DECIMAL: one digit before the point at least, and all of the scale behind it.
    fn print(&self, negative: bool, scale: i8, out: &mut Vec<u8>) {
        let digits = &self.text[..self.length];
        let scale = usize::from(scale.unsigned_abs());
        if negative {
            out.push(b'-');
        }
        let (whole, fraction) = digits.split_at(digits.len().saturating_sub(scale));
        out.extend_from_slice(if whole.is_empty() { b"0" } else { whole });
        if scale > 0 {
            out.push(b'.');
            out.resize(out.len() + scale - fraction.len(), b'0');
            out.extend_from_slice(fraction);
        }
    }
}

/// Objects pass; everything else becomes the member `value` of one, since ClickHouse's JSON takes objects only (Code
/// 117). The empty text, which is no JSON, is NULL as the default of a column without NULL, and an empty object; a text
/// column may also hold it by itself, and then that is a change.
fn objects(column: &TargetColumn, array: &ArrayRef) -> Result<Converted> {
    let documents = array.as_binary::<i32>();
    let is_object =
        |document: &[u8]| document.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    if documents.iter().flatten().all(is_object) {
        return Ok(Converted::exactly(Arc::clone(array)));
    }
    let mut wrapped = 0;
    let mut texts = Texts::new(documents.len(), documents.value_data().len() * 2);
    for document in documents {
        texts.push(column, |out| match document {
            None => {}
            Some(b"") => {
                out.extend_from_slice(b"{}");
                wrapped += usize::from(column.column_type != ColumnType::Json);
            }
            Some(object) if is_object(object) => out.extend_from_slice(object),
            Some(other) => {
                out.extend_from_slice(b"{\"value\":");
                out.extend_from_slice(other);
                out.push(b'}');
                wrapped += 1;
            }
        })?;
    }
    let array = texts.finish(array.nulls().cloned());
    Ok(Converted::with(array, Policy::Json, wrapped))
}

fn fixed(column: &TargetColumn, array: &ArrayRef, length: u8) -> Result<ArrayRef> {
    let values = array.as_binary::<i32>();
    let mut bytes = Vec::with_capacity(values.len() * usize::from(length));
    for value in values {
        match value {
            None => bytes.resize(bytes.len() + usize::from(length), 0),
            // NULL as the default of a column without NULL, or what a tombstone has in the place of a value; no BINARY(n)
            // is empty.
            Some(b"") if !column.nullable => {
                bytes.resize(bytes.len() + usize::from(length), 0);
            }
            Some(value) if value.len() == usize::from(length) => bytes.extend_from_slice(value),
            Some(_) => {
                return Err(Error::new(
                    ErrorKind::SchemaConflict,
                    format!(
                        "column `{}` has a value of another length than {length} bytes",
                        column.name
                    ),
                )
                .with_hint("remove the column's `type`, or the plugin that changes its length"));
            }
        }
    }
    let array = FixedSizeBinaryArray::try_new(
        length.into(),
        Buffer::from_vec(bytes),
        array.nulls().cloned(),
    )
    .map_err(|error| broken(column, "the values make no array").with_source(error))?;
    Ok(Arc::new(array))
}

/// Byte strings, one behind the other.
struct Texts {
    ends: Vec<i32>,
    data: Vec<u8>,
}

impl Texts {
    fn new(rows: usize, bytes: usize) -> Self {
        let mut ends = Vec::with_capacity(rows + 1);
        ends.push(0);
        Self {
            ends,
            data: Vec::with_capacity(bytes),
        }
    }

    fn push(&mut self, column: &TargetColumn, write: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        write(&mut self.data);
        self.ends.push(bounded_end(column, self.data.len())?);
        Ok(())
    }

    fn count(&self, column: &TargetColumn) -> Result<i32> {
        bounded_end(column, self.ends.len() - 1)
    }

    fn finish(self, nulls: Option<NullBuffer>) -> ArrayRef {
        Arc::new(BinaryArray::new(
            OffsetBuffer::new(ScalarBuffer::from(self.ends)),
            Buffer::from_vec(self.data),
            nulls,
        ))
    }
}

fn bounded_end(column: &TargetColumn, end: usize) -> Result<i32> {
    i32::try_from(end).map_err(|_| {
        Error::new(
            ErrorKind::Unsupported,
            format!(
                "column `{}` has more than 2 GiB in one batch in its chosen form",
                column.name
            ),
        )
        .with_hint("choose the column's default form, or set `sync.max_bytes` lower")
    })
}

fn broken(column: &TargetColumn, what: &str) -> Error {
    Error::new(
        ErrorKind::Internal,
        format!("column `{}`: {what}", column.name),
    )
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
