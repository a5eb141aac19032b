//! From a batch to what crosses into the guest.
//!
//! Arrow's layout is the contract's, so a column is borrowed, and copied once, into the guest's memory. Offsets are
//! rewritten only where a slice does not begin at 0, bitmaps only where it does not begin at a byte.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, ListArray};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{ArrowNativeType, ToByteSlice};

use super::addresses;
use super::binding::Binding;
use super::limits::ROWS_PER_CALL;
use super::target::Target;
use super::version::{GuestInput, GuestOps, InputColumn};
use crate::batch::{ChangeBatch, Changes, ColumnType};

/// Cuts a batch into row ranges whose input takes at most `byte_limit`, one row at least. Where rows may be copied, the
/// columns that they take along count as well. Cuts stand at multiples of eight rows where they can, so that bitmaps need no
/// shifting.
pub(super) fn cut(binding: &Binding, batch: &ChangeBatch, byte_limit: usize) -> Vec<Range<usize>> {
    let passed = binding.targets.iter().flat_map(Target::passed);
    let columns: BTreeSet<usize> = binding.reads.iter().copied().chain(passed).collect();
    let mut ranges = Vec::new();
    let mut start = 0;
    while start < batch.row_count {
        let mut rows = (batch.row_count - start).min(ROWS_PER_CALL);
        while rows > 1 && input_bytes(binding, &columns, batch, &(start..start + rows)) > byte_limit
        {
            rows = if rows > 16 {
                (rows / 2).next_multiple_of(8)
            } else {
                rows / 2
            };
        }
        ranges.push(start..start + rows);
        start += rows;
    }
    ranges
}

fn input_bytes(
    binding: &Binding,
    columns: &BTreeSet<usize>,
    batch: &ChangeBatch,
    range: &Range<usize>,
) -> usize {
    columns
        .iter()
        .map(|index| {
            let column = &batch.columns[*index];
            let column_type = binding.input.columns[*index].column_type;
            let values = if let Some(width) = addresses::text_width(column_type) {
                (width + 4) * range.len()
            } else if let Some(binary) = column.as_any().downcast_ref::<BinaryArray>() {
                bytes_between(binary.value_offsets(), range, 1)
            } else if let Some(lists) = column.as_any().downcast_ref::<ListArray>() {
                bytes_between(lists.value_offsets(), range, width(lists.values()))
            } else {
                // Eight booleans share the byte that is added here.
                width(column) * range.len()
            };
            values + range.len() / 8
        })
        .sum()
}

/// What `range` takes of a column with offsets, whose elements have that many bytes.
fn bytes_between(offsets: &[i32], range: &Range<usize>, width: usize) -> usize {
    let elements = offsets[range.end] - offsets[range.start];
    elements.as_usize() * width + 4 * range.len()
}

/// The input of one call, or the text column that is not UTF-8. With `is_routing` the chain must find again where an image
/// went.
pub(super) fn input<'a>(
    binding: &Binding,
    batch: &'a ChangeBatch,
    range: &Range<usize>,
    is_routing: bool,
) -> Result<GuestInput<'a>, usize> {
    let mut columns = Vec::with_capacity(binding.reads.len());
    for read in &binding.reads {
        let column = &batch.columns[*read];
        let column_type = binding.input.columns[*read].column_type;
        columns.push(input_column(column, column_type, range).ok_or(*read)?);
    }
    Ok(GuestInput {
        row_count: u32::try_from(range.len()).expect("a call has at most 65,536 rows"),
        ops: match &batch.changes {
            // What an image becomes elsewhere may not depend on what happened to it, or it could not be taken back.
            _ if is_routing => GuestOps::AllInserts,
            Changes::Load => GuestOps::AllInserts,
            Changes::Stream { ops, .. } => GuestOps::Each(&ops[range.clone()]),
        },
        columns,
    })
}

fn input_column<'a>(
    column: &'a ArrayRef,
    column_type: ColumnType,
    range: &Range<usize>,
) -> Option<InputColumn<'a>> {
    if addresses::text_width(column_type).is_some() {
        return Some(address_column(
            &column.slice(range.start, range.len()),
            column_type,
        ));
    }
    let validity = validity(column, range);
    if let Some(booleans) = column.as_boolean_opt() {
        return Some(InputColumn {
            validity,
            offsets: None,
            values: bits(booleans.values(), range),
        });
    }
    if let Some(lists) = column.as_any().downcast_ref::<ListArray>() {
        return Some(list_column(lists, range, validity));
    }
    if let Some(binary) = column.as_any().downcast_ref::<BinaryArray>() {
        let offsets = &binary.value_offsets()[range.start..=range.end];
        let (first, last) = (offsets[0].as_usize(), offsets[offsets.len() - 1].as_usize());
        let values = &binary.value_data()[first..last];
        let is_text = matches!(
            column_type,
            ColumnType::Text | ColumnType::Label | ColumnType::Json
        );
        if is_text && !is_utf8(values, offsets) {
            return None;
        }
        return Some(InputColumn {
            validity,
            offsets: Some(offsets_from_zero(offsets)),
            values: Cow::Borrowed(values),
        });
    }
    let width = width(column);
    // The buffer behind `values` begins at the array's first row, and may go on past its last.
    let values = primitive_bytes(column)
        .and_then(|values| values.get(range.start * width..range.end * width))
        .expect("a column has the type that its schema says");
    Some(InputColumn {
        validity,
        offsets: None,
        values: Cow::Borrowed(values),
    })
}

/// Texts are made for the call, so nothing of them can be borrowed.
fn address_column<'a>(part: &ArrayRef, column_type: ColumnType) -> InputColumn<'a> {
    let texts = addresses::as_seen(part, column_type);
    let texts = texts.as_binary::<i32>();
    let validity = texts.nulls().filter(|nulls| nulls.null_count() > 0);
    InputColumn {
        validity: validity.map(|nulls| {
            let bits = nulls.inner().sliced();
            Cow::Owned(bits.as_slice()[..texts.len().div_ceil(8)].to_vec())
        }),
        offsets: Some(Cow::Owned(texts.value_offsets().to_byte_slice().to_vec())),
        values: Cow::Owned(texts.value_data().to_vec()),
    }
}

/// Lists of numbers; none of them is NULL.
fn list_column<'a>(
    lists: &'a ListArray,
    range: &Range<usize>,
    validity: Option<Cow<'a, [u8]>>,
) -> InputColumn<'a> {
    let offsets = &lists.value_offsets()[range.start..=range.end];
    let (first, last) = (offsets[0].as_usize(), offsets[offsets.len() - 1].as_usize());
    let width = width(lists.values());
    let values = primitive_bytes(lists.values())
        .and_then(|values| values.get(first * width..last * width))
        .expect("a column has the type that its schema says");
    InputColumn {
        validity,
        offsets: Some(offsets_from_zero(offsets)),
        values: Cow::Borrowed(values),
    }
}

fn validity<'a>(column: &'a ArrayRef, range: &Range<usize>) -> Option<Cow<'a, [u8]>> {
    let nulls = column.nulls().filter(|nulls| nulls.null_count() > 0)?;
    Some(bits(nulls.inner(), range))
}

fn bits<'a>(bits: &'a BooleanBuffer, range: &Range<usize>) -> Cow<'a, [u8]> {
    let first_bit = bits.offset() + range.start;
    let byte_count = range.len().div_ceil(8);
    if first_bit.is_multiple_of(8) {
        return Cow::Borrowed(&bits.values()[first_bit / 8..first_bit / 8 + byte_count]);
    }
    let shifted = bits.slice(range.start, range.len()).sliced();
    Cow::Owned(shifted.as_slice()[..byte_count].to_vec())
}

fn offsets_from_zero(offsets: &[i32]) -> Cow<'_, [u8]> {
    let first = offsets[0];
    if first == 0 && cfg!(target_endian = "little") {
        return Cow::Borrowed(offsets.to_byte_slice());
    }
    Cow::Owned(
        offsets
            .iter()
            .flat_map(|offset| (offset - first).to_le_bytes())
            .collect(),
    )
}

/// Whether all values are UTF-8: one pass over the bytes together, then a look at each boundary.
fn is_utf8(values: &[u8], offsets: &[i32]) -> bool {
    let first = offsets[0];
    std::str::from_utf8(values).is_ok_and(|text| {
        // ASCII has a boundary everywhere.
        text.is_ascii()
            || offsets
                .iter()
                .all(|offset| text.is_char_boundary((offset - first).as_usize()))
    })
}

pub(super) fn width(column: &ArrayRef) -> usize {
    column.data_type().primitive_width().unwrap_or_default()
}

/// The values of a column of fixed width, as they lie in memory.
fn primitive_bytes(column: &ArrayRef) -> Option<&[u8]> {
    use arrow::array::PrimitiveArray;
    use arrow::datatypes::{
        ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Decimal256Type, Float32Type,
        Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Time64MicrosecondType,
        TimestampMicrosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    };
    fn bytes<T: ArrowPrimitiveType>(column: &ArrayRef) -> Option<&[u8]> {
        let array: &PrimitiveArray<T> = column.as_primitive_opt()?;
        Some(array.values().inner().as_slice())
    }
    match column.data_type() {
        DataType::Int8 => bytes::<Int8Type>(column),
        DataType::Int16 => bytes::<Int16Type>(column),
        DataType::Int32 => bytes::<Int32Type>(column),
        DataType::Int64 => bytes::<Int64Type>(column),
        DataType::UInt8 => bytes::<UInt8Type>(column),
        DataType::UInt16 => bytes::<UInt16Type>(column),
        DataType::UInt32 => bytes::<UInt32Type>(column),
        DataType::UInt64 => bytes::<UInt64Type>(column),
        DataType::Float32 => bytes::<Float32Type>(column),
        DataType::Float64 => bytes::<Float64Type>(column),
        DataType::Decimal128(..) => bytes::<Decimal128Type>(column),
        DataType::Decimal256(..) => bytes::<Decimal256Type>(column),
        DataType::Date32 => bytes::<Date32Type>(column),
        DataType::Time64(_) => bytes::<Time64MicrosecondType>(column),
        DataType::Timestamp(..) => bytes::<TimestampMicrosecondType>(column),
        _ => None,
    }
}
