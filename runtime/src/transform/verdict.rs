//! What comes back from a guest, checked whole before a byte of it is used.
//!
//! The guest chose every length, offset and bit, so nothing is trusted: buffers must have exactly the size that the row
//! count asks for, offsets must begin at 0, never fall and end at the last byte, text must be UTF-8 at each boundary,
//! decimals must fit their precision, and a column that may not be NULL must have every value.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayData, ArrayRef, AsArray, BooleanBufferBuilder, make_array, new_null_array,
};
use arrow::buffer::{BooleanBuffer, Buffer};
use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type};

use super::binding::{Binding, WriteKind};
use super::version::{GuestColumn, GuestOutcome, GuestRejection, GuestVerdict};
use crate::batch::{Column, ColumnType};

/// What a call answered, sound.
pub(super) struct Answer {
    pub(super) row_count: usize,
    /// None: all rows stay.
    pub(super) keep: Option<BooleanBuffer>,
    /// One entry for each of the binding's writes. None: the column stays as it was, or is NULL when it was added.
    pub(super) columns: Vec<Option<ArrayRef>>,
    pub(super) rejected: Vec<GuestRejection>,
}

/// Checks an answer; Err says what breaks the contract.
pub(super) fn check(
    binding: &Binding,
    row_count: usize,
    outcome: GuestOutcome,
) -> Result<Answer, String> {
    if let Some(rejection) = outcome
        .rejected
        .iter()
        .find(|rejection| rejection.row as usize >= row_count)
    {
        return Err(format!("rejected row {} of {row_count}", rejection.row));
    }
    let (keep, columns) = match outcome.verdict {
        GuestVerdict::Unchanged => (None, Vec::new()),
        GuestVerdict::Rows { keep, columns } => (keep, columns),
        GuestVerdict::Replace => {
            return Err("answered `replace`, which its shape does not declare".to_owned());
        }
    };
    let keep = keep
        .map(|bits| check_keep(binding, row_count, bits))
        .transpose()?;
    let mut answered: Vec<Option<ArrayRef>> = vec![None; binding.writes.len()];
    for (index, column) in columns {
        let (Some(slot), Some(write)) = (
            answered.get_mut(index as usize),
            binding.writes.get(index as usize),
        ) else {
            return Err(format!(
                "answered column {index}, which its shape does not declare"
            ));
        };
        let expected = &binding.output.columns[write.place];
        if slot.is_some() {
            return Err(format!("answered column `{}` twice", expected.name));
        }
        let array = check_column(expected, row_count, column)
            .map_err(|what| format!("answered column `{}` {what}", expected.name))?;
        *slot = Some(array);
    }
    if outcome.rejected.is_empty() {
        ensure_answered(binding, &answered)?;
    }
    Ok(Answer {
        row_count,
        keep,
        columns: answered,
        rejected: outcome.rejected,
    })
}

fn ensure_answered(binding: &Binding, answered: &[Option<ArrayRef>]) -> Result<(), String> {
    for (write, column) in binding.writes.iter().zip(answered) {
        let expected = &binding.output.columns[write.place];
        let needed = match write.kind {
            WriteKind::Replaced => false,
            WriteKind::Retyped => true,
            WriteKind::Added => !expected.nullable,
        };
        if needed && column.is_none() {
            return Err(format!(
                "did not answer column `{}`, which has no other value",
                expected.name
            ));
        }
    }
    Ok(())
}

fn check_keep(binding: &Binding, row_count: usize, bits: Vec<u8>) -> Result<BooleanBuffer, String> {
    if !binding.may_drop {
        return Err("dropped rows, though its shape says that all stay".to_owned());
    }
    if bits.len() != row_count.div_ceil(8) {
        return Err(format!(
            "answered {} bytes of selection for {row_count} rows",
            bits.len()
        ));
    }
    Ok(BooleanBuffer::new(Buffer::from_vec(bits), 0, row_count))
}

fn check_column(
    expected: &Column,
    row_count: usize,
    column: GuestColumn,
) -> Result<ArrayRef, String> {
    if column.absent || column.children {
        return Err("with buffers that its type does not have".to_owned());
    }
    let data_type = expected.column_type.arrow();
    let mut builder = ArrayData::builder(data_type.clone()).len(row_count);
    if let Some(validity) = column.validity {
        if validity.len() != row_count.div_ceil(8) {
            return Err(format!(
                "with {} bytes of validity for {row_count} rows",
                validity.len()
            ));
        }
        builder = builder.null_bit_buffer(Some(Buffer::from_vec(validity)));
    }
    match (data_type.primitive_width(), column.offsets) {
        (Some(width), None) => {
            if column.values.len() != width * row_count {
                return Err(format!(
                    "with {} bytes for {row_count} rows of {width}",
                    column.values.len()
                ));
            }
        }
        (None, Some(offsets)) => {
            check_offsets(&offsets, row_count, column.values.len())?;
            if expected.column_type == ColumnType::Text {
                check_utf8(&offsets, &column.values)?;
            }
            builder = builder.add_buffer(Buffer::from_vec(offsets));
        }
        (Some(_), Some(_)) => return Err("with offsets, which its type does not have".to_owned()),
        (None, None) => return Err("without offsets".to_owned()),
    }
    // Bytes from the guest lie wherever the allocator put them; numbers are copied when that does not suit them.
    let data = builder
        .add_buffer(Buffer::from_vec(column.values))
        .align_buffers(true)
        .build()
        .map_err(|error| format!("that is no Arrow array: {error}"))?;
    let array = make_array(data);
    if !expected.nullable && array.null_count() > 0 {
        return Err("with NULL, though it is declared not null".to_owned());
    }
    check_decimals(&array)?;
    Ok(array)
}

fn check_offsets(offsets: &[u8], row_count: usize, byte_count: usize) -> Result<(), String> {
    let (offsets, rest) = offsets.as_chunks::<4>();
    if offsets.len() != row_count + 1 || !rest.is_empty() {
        return Err(format!(
            "with {} offsets for {row_count} rows",
            offsets.len()
        ));
    }
    let mut last = 0;
    for (row, offset) in offsets.iter().enumerate() {
        let offset = i32::from_le_bytes(*offset);
        if offset < last || (row == 0 && offset != 0) {
            return Err("with offsets that do not rise from 0".to_owned());
        }
        last = offset;
    }
    if usize::try_from(last) != Ok(byte_count) {
        return Err(format!("with offsets up to {last} for {byte_count} bytes"));
    }
    Ok(())
}

/// Offsets are checked already.
fn check_utf8(offsets: &[u8], values: &[u8]) -> Result<(), String> {
    let not_utf8 = || "with text that is not UTF-8".to_owned();
    let text = std::str::from_utf8(values).map_err(|_| not_utf8())?;
    let whole = text.is_ascii()
        || offsets
            .as_chunks::<4>()
            .0
            .iter()
            .all(|offset| text.is_char_boundary(u32::from_le_bytes(*offset) as usize));
    whole.then_some(()).ok_or_else(not_utf8)
}

fn check_decimals(array: &ArrayRef) -> Result<(), String> {
    let fits = match array.data_type() {
        DataType::Decimal128(precision, _) => array
            .as_primitive::<Decimal128Type>()
            .validate_decimal_precision(*precision),
        DataType::Decimal256(precision, _) => array
            .as_primitive::<Decimal256Type>()
            .validate_decimal_precision(*precision),
        _ => Ok(()),
    };
    // Arrow's own text would show the value.
    fits.map_err(|_| "with a decimal of more digits than declared".to_owned())
}

/// The column of a whole batch out of those of its calls. `original` gives the rows of calls that did not answer it.
pub(super) fn join_column(
    answers: &[Answer],
    write: usize,
    original: Option<&ArrayRef>,
    column_type: ColumnType,
) -> Result<ArrayRef, arrow::error::ArrowError> {
    let mut start = 0;
    let parts: Vec<ArrayRef> = answers
        .iter()
        .map(|answer| {
            let part = match (&answer.columns[write], original) {
                (Some(array), _) => Arc::clone(array),
                (None, Some(original)) => original.slice(start, answer.row_count),
                (None, None) => new_null_array(&column_type.arrow(), answer.row_count),
            };
            start += answer.row_count;
            part
        })
        .collect();
    match parts.as_slice() {
        [part] => Ok(Arc::clone(part)),
        parts => {
            arrow::compute::concat(&parts.iter().map(|part| part.as_ref()).collect::<Vec<_>>())
        }
    }
}

/// The selection over a whole batch; none when every row stays.
pub(super) fn join_keep(answers: &[Answer]) -> Option<BooleanBuffer> {
    if let [answer] = answers {
        return answer
            .keep
            .clone()
            .filter(|keep| keep.count_set_bits() < keep.len());
    }
    answers.iter().find(|answer| answer.keep.is_some())?;
    let mut keep = BooleanBufferBuilder::new(answers.iter().map(|answer| answer.row_count).sum());
    for answer in answers {
        match &answer.keep {
            Some(part) => keep.append_buffer(part),
            None => keep.append_n(answer.row_count, true),
        }
    }
    let keep = keep.finish();
    (keep.count_set_bits() < keep.len()).then_some(keep)
}
