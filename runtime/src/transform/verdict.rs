//! What comes back from a guest, checked whole before a byte of it is used.
//!
//! The guest chose every length, offset and bit, so nothing is trusted: buffers must have exactly the size that the row
//! count asks for, offsets must begin at 0, never fall and end at the last byte, text must be UTF-8 at each boundary,
//! decimals must fit their precision, and a column that may not be NULL must have every value.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayData, ArrayDataBuilder, ArrayRef, AsArray, BooleanBufferBuilder, make_array,
    new_null_array,
};
use arrow::buffer::{BooleanBuffer, Buffer};
use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type};

use super::binding::{Binding, WriteKind};
use super::faults::BadRow;
use super::target::Target;
use super::version::{GuestColumn, GuestOutcome, GuestOutput, GuestVerdict};
use crate::batch::{Column, ColumnType, Number};
use crate::error::ErrorKind;

/// What a call answered, sound.
pub(super) struct Answer {
    pub(super) row_count: usize,
    /// None: all rows stay.
    pub(super) keep: Option<BooleanBuffer>,
    /// One entry for each of the binding's writes. None: the column stays as it was, or is NULL when it was added.
    pub(super) columns: Vec<Option<ArrayRef>>,
    /// One entry for each of the binding's targets.
    pub(super) outputs: Vec<Routed>,
    /// Rows of which nothing above is used.
    pub(super) bad: Vec<BadRow>,
    /// What its rows copy of columns that are only passed, beyond one copy of each.
    pub(super) copied_bytes: u64,
}

/// Rows on their way to one target.
#[derive(Default)]
pub(super) struct Routed {
    /// For each the row of the call that it came from; never falling.
    pub(super) parents: Vec<u32>,
    /// The columns that the plugin makes; none for a target without rows.
    pub(super) columns: Vec<ArrayRef>,
}

/// In which way an answer breaks the contract.
#[derive(Debug)]
pub(super) struct Breach {
    pub(super) kind: ErrorKind,
    /// Goes on a sentence that begins with the plugin.
    pub(super) what: String,
}

impl Breach {
    pub(super) fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
        }
    }

    /// Says of which column it is.
    fn of(self, column: &str) -> Self {
        Self {
            what: format!("answered column `{column}` {}", self.what),
            ..self
        }
    }
}

impl From<String> for Breach {
    fn from(what: String) -> Self {
        Self::new(ErrorKind::PluginOutput, what)
    }
}

impl Answer {
    /// Of one row on which the guest failed.
    pub(super) fn failed(binding: &Binding, bad: BadRow) -> Self {
        Self {
            row_count: 1,
            keep: None,
            columns: vec![None; binding.writes.len()],
            outputs: binding.targets.iter().map(|_| Routed::default()).collect(),
            bad: vec![bad],
            copied_bytes: 0,
        }
    }

    /// What the host holds for it.
    pub(super) fn bytes(&self) -> u64 {
        let made = self.outputs.iter().flat_map(|routed| &routed.columns);
        let columns = self.columns.iter().flatten().chain(made);
        let bytes = columns.map(|column| column.get_buffer_memory_size() as u64);
        bytes.sum::<u64>() + self.copied_bytes
    }

    /// All rows that it gives.
    pub(super) fn output_rows(&self) -> usize {
        let routed = self.outputs.iter().map(|routed| routed.parents.len());
        self.row_count.max(routed.sum())
    }
}

/// Rows that failed, by place in the batch.
pub(super) fn bad_rows(answers: &[Answer]) -> impl Iterator<Item = (usize, &BadRow)> {
    let mut start = 0;
    answers.iter().flat_map(move |answer| {
        let first = start;
        start += answer.row_count;
        answer.bad.iter().map(move |bad| (first + bad.row, bad))
    })
}

/// Checks an answer; Err says what breaks the contract.
pub(super) fn check(
    binding: &Binding,
    row_count: usize,
    outcome: GuestOutcome,
) -> Result<Answer, Breach> {
    let mut bad = Vec::with_capacity(outcome.rejected.len());
    for rejection in outcome.rejected {
        if rejection.row as usize >= row_count {
            let what = format!("rejected row {} of {row_count}", rejection.row);
            return Err(Breach::new(ErrorKind::PluginRowCount, what));
        }
        bad.push(BadRow::rejected(rejection));
    }
    bad.sort_by_key(|bad| bad.row);
    bad.dedup_by_key(|bad| bad.row);
    let targets = &binding.targets;
    let (keep, columns, outputs) = match outcome.verdict {
        GuestVerdict::Replace(outputs) if !targets.is_empty() => (None, Vec::new(), outputs),
        GuestVerdict::Replace(_) => {
            return Err("answered `replace`, which its shape does not declare"
                .to_owned()
                .into());
        }
        _ if !targets.is_empty() => {
            let what = "did not answer `replace`, as its shape declares";
            return Err(what.to_owned().into());
        }
        GuestVerdict::Unchanged => (None, Vec::new(), Vec::new()),
        GuestVerdict::Rows { keep, columns } => (keep, columns, Vec::new()),
    };
    let answer = Answer {
        row_count,
        keep: keep
            .map(|bits| check_keep(binding, row_count, bits))
            .transpose()?,
        columns: check_columns(binding, row_count, columns)?,
        outputs: check_outputs(targets, row_count, outputs)?,
        bad,
        copied_bytes: 0,
    };
    // Who rejects every row need not answer anything else.
    if answer.bad.len() < row_count {
        ensure_answered(binding, &answer.columns)?;
    }
    Ok(answer)
}

fn check_columns(
    binding: &Binding,
    row_count: usize,
    columns: Vec<(u32, GuestColumn)>,
) -> Result<Vec<Option<ArrayRef>>, Breach> {
    let mut answered: Vec<Option<ArrayRef>> = vec![None; binding.writes.len()];
    for (index, column) in columns {
        let (Some(slot), Some(write)) = (
            answered.get_mut(index as usize),
            binding.writes.get(index as usize),
        ) else {
            let what = format!("answered column {index}, which its shape does not declare");
            return Err(Breach::new(ErrorKind::PluginSchema, what));
        };
        let expected = &binding.output.columns[write.place];
        if slot.is_some() {
            let what = format!("answered column `{}` twice", expected.name);
            return Err(Breach::new(ErrorKind::PluginSchema, what));
        }
        let array = check_column(expected, row_count, column)
            .map_err(|breach| breach.of(&expected.name))?;
        *slot = Some(array);
    }
    Ok(answered)
}

fn check_outputs(
    targets: &[Target],
    row_count: usize,
    outputs: Vec<GuestOutput>,
) -> Result<Vec<Routed>, Breach> {
    let mut routed: Vec<Option<Routed>> = targets.iter().map(|_| None).collect();
    for output in outputs {
        let place = output.target as usize;
        let (Some(slot), Some(target)) = (routed.get_mut(place), targets.get(place)) else {
            let what = format!("answered target {place}, which its shape does not declare");
            return Err(Breach::new(ErrorKind::PluginSchema, what));
        };
        if slot.is_some() {
            let what = format!("answered target {place} twice");
            return Err(Breach::new(ErrorKind::PluginSchema, what));
        }
        *slot = Some(check_output(target, row_count, output)?);
    }
    Ok(routed.into_iter().map(Option::unwrap_or_default).collect())
}

fn check_output(target: &Target, row_count: usize, output: GuestOutput) -> Result<Routed, Breach> {
    let parents = output.parents;
    let past = parents.iter().find(|parent| **parent as usize >= row_count);
    if let Some(parent) = past {
        let what = format!("made a row of row {parent}, and was given {row_count}");
        return Err(Breach::new(ErrorKind::PluginKey, what));
    }
    if !parents.is_sorted() {
        let what = "made rows in another order than it was given theirs";
        return Err(Breach::new(ErrorKind::PluginKey, what));
    }
    let made: Vec<&Column> = target
        .made()
        .map(|place| &target.schema.columns[place])
        .collect();
    if output.columns.len() != made.len() {
        let what = format!(
            "answered {} columns for a target of which it makes {}",
            output.columns.len(),
            made.len()
        );
        return Err(Breach::new(ErrorKind::PluginSchema, what));
    }
    let columns: Result<_, Breach> = made
        .into_iter()
        .zip(output.columns)
        .map(|(expected, column)| {
            check_column(expected, parents.len(), column)
                .map_err(|breach| breach.of(&expected.name))
        })
        .collect();
    Ok(Routed {
        columns: columns?,
        parents,
    })
}

fn ensure_answered(binding: &Binding, answered: &[Option<ArrayRef>]) -> Result<(), Breach> {
    for (write, column) in binding.writes.iter().zip(answered) {
        let expected = &binding.output.columns[write.place];
        let needed = match write.kind {
            WriteKind::Replaced => false,
            WriteKind::Retyped => true,
            WriteKind::Added => !expected.nullable,
        };
        if needed && column.is_none() {
            let what = format!(
                "did not answer column `{}`, which has no other value",
                expected.name
            );
            return Err(Breach::new(ErrorKind::PluginSchema, what));
        }
    }
    Ok(())
}

fn check_keep(binding: &Binding, row_count: usize, bits: Vec<u8>) -> Result<BooleanBuffer, Breach> {
    let counted = |what: String| Err(Breach::new(ErrorKind::PluginRowCount, what));
    if !binding.may_drop {
        return counted("dropped rows, though its shape says that all stay".to_owned());
    }
    if bits.len() != row_count.div_ceil(8) {
        return counted(format!(
            "answered {} bytes of selection for {row_count} rows",
            bits.len()
        ));
    }
    Ok(BooleanBuffer::new(Buffer::from_vec(bits), 0, row_count))
}

fn check_column(
    expected: &Column,
    row_count: usize,
    mut column: GuestColumn,
) -> Result<ArrayRef, Breach> {
    if column.absent || column.child_offsets {
        return of_another_type("with buffers that its type does not have");
    }
    let mut builder = ArrayData::builder(expected.column_type.arrow()).len(row_count);
    if let Some(validity) = column.validity.take() {
        if validity.len() != row_count.div_ceil(8) {
            let what = format!(
                "with {} bytes of validity for {row_count} rows",
                validity.len()
            );
            return Err(Breach::new(ErrorKind::PluginRowCount, what));
        }
        builder = builder.null_bit_buffer(Some(Buffer::from_vec(validity)));
    }
    let builder = match expected.column_type.elements() {
        Some(number) => with_lists(builder, number, row_count, column)?,
        None if column.child_validity.is_some() => {
            return of_another_type("with buffers that its type does not have");
        }
        None => with_values(builder, expected.column_type, row_count, column)?,
    };
    // Bytes from the guest lie wherever the allocator put them; numbers are copied when that does not suit them.
    let data = builder
        .align_buffers(true)
        .build()
        .map_err(|error| format!("that is no Arrow array: {error}"))?;
    let array = make_array(data);
    if !expected.nullable && array.null_count() > 0 {
        return of_another_type("with NULL, though it is declared not null");
    }
    check_decimals(&array)?;
    Ok(array)
}

fn of_another_type<T>(what: &str) -> Result<T, Breach> {
    Err(Breach::new(ErrorKind::PluginSchema, what))
}

fn with_values(
    builder: ArrayDataBuilder,
    column_type: ColumnType,
    row_count: usize,
    column: GuestColumn,
) -> Result<ArrayDataBuilder, Breach> {
    let wanted = match column_type.arrow() {
        // Eight share a byte.
        DataType::Boolean => Some(row_count.div_ceil(8)),
        data_type => data_type.primitive_width().map(|width| width * row_count),
    };
    let builder = match (wanted, column.offsets) {
        (Some(wanted), None) => {
            if column.values.len() != wanted {
                let given = column.values.len();
                let what = format!("with {given} bytes for {row_count} rows, which have {wanted}");
                return Err(Breach::new(ErrorKind::PluginRowCount, what));
            }
            builder
        }
        (None, Some(offsets)) => {
            check_offsets(&offsets, row_count, column.values.len())?;
            if column_type == ColumnType::Text {
                check_utf8(&offsets, &column.values)?;
            }
            builder.add_buffer(Buffer::from_vec(offsets))
        }
        (Some(_), Some(_)) => return of_another_type("with offsets, which its type does not have"),
        (None, None) => return of_another_type("without offsets"),
    };
    Ok(builder.add_buffer(Buffer::from_vec(column.values)))
}

fn with_lists(
    builder: ArrayDataBuilder,
    number: Number,
    row_count: usize,
    column: GuestColumn,
) -> Result<ArrayDataBuilder, Breach> {
    let Some(offsets) = column.offsets else {
        return of_another_type("without offsets");
    };
    let data_type = number.column_type().arrow();
    let width = data_type.primitive_width().unwrap_or(1);
    let element_count = column.values.len() / width;
    if !column.values.len().is_multiple_of(width) {
        return of_another_type("with a part of a list's element");
    }
    check_offsets(&offsets, row_count, element_count)?;
    if let Some(bits) = column.child_validity {
        let every = bits.len() == element_count.div_ceil(8)
            && BooleanBuffer::new(Buffer::from_vec(bits), 0, element_count).count_set_bits()
                == element_count;
        if !every {
            return of_another_type("with NULL in a list, of which each element needs a value");
        }
    }
    let elements = ArrayData::builder(data_type)
        .len(element_count)
        .add_buffer(Buffer::from_vec(column.values))
        .align_buffers(true)
        .build()
        .map_err(|error| format!("with lists of what is no Arrow array: {error}"))?;
    Ok(builder
        .add_buffer(Buffer::from_vec(offsets))
        .add_child_data(elements))
}

fn check_offsets(offsets: &[u8], row_count: usize, byte_count: usize) -> Result<(), Breach> {
    let (offsets, rest) = offsets.as_chunks::<4>();
    if offsets.len() != row_count + 1 || !rest.is_empty() {
        let what = format!("with {} offsets for {row_count} rows", offsets.len());
        return Err(Breach::new(ErrorKind::PluginRowCount, what));
    }
    let mut last = 0;
    for (row, offset) in offsets.iter().enumerate() {
        let offset = i32::from_le_bytes(*offset);
        if offset < last || (row == 0 && offset != 0) {
            return Err("with offsets that do not rise from 0".to_owned().into());
        }
        last = offset;
    }
    if usize::try_from(last) != Ok(byte_count) {
        return Err(format!("with offsets up to {last} for {byte_count} bytes").into());
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

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
