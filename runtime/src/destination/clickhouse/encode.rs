//! Change batches to the bytes of an Arrow stream, by reference wherever the array already is what ClickHouse takes.
//!
//! Each change batch becomes one record batch. Columns pass untouched but for what `convert` makes of them, and for NULL in
//! a column without NULL, which becomes the type's default. Whatever a policy changes is counted by batch, and refused
//! in key columns, since two keys could become one.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayData, ArrayRef, BooleanArray, Int8Array, ListArray, RecordBatch, Scalar,
    UInt8Array, UInt64Array, make_array, new_empty_array,
};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::kernels::zip::zip;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{IpcWriteOptions, StreamEncoder};
use bytes::{Bytes, BytesMut};

use super::target::{TargetColumn, TargetTable};
use super::types::Conversion;
use super::{append, convert};
use crate::batch::{Adjustment, ChangeBatch, Changes, ColumnType, Op, Policy, Version};
use crate::config::Engine;
use crate::error::{Error, ErrorKind, Result};

/// Pieces that are handed to the connection: large enough to be few, small enough for back-pressure (trap 12).
const CHUNK_BYTES: usize = 1 << 20;

/// Buffers below this are gathered, since a piece of its own costs more than a copy.
const GATHER_BYTES: usize = 16 << 10;

/// Record batches of one insert, not yet bytes.
#[derive(Debug)]
pub(super) struct Prepared {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    /// Whether `_version` and `_is_deleted` are among the columns. An insert that only loads leaves them out: the types'
    /// default 0 is [`Version::LOAD`] and "not deleted". In append tables they always are.
    pub(super) with_system: bool,
    pub(super) row_count: u64,
    /// What policies changed, one list for each change batch.
    pub(super) adjustments: Vec<Vec<Adjustment>>,
}

const _: () = assert!(size_of::<Version>() == size_of::<u64>());

/// Maps every batch onto the target's columns.
pub(super) fn prepare(target: &TargetTable, batches: &[ChangeBatch]) -> Result<Prepared> {
    let with_system = target.is_append()
        || batches
            .iter()
            .any(|batch| !matches!(batch.changes, Changes::Load));
    let schema = arrow_schema(target, with_system);
    let mut prepared = Prepared {
        schema: Arc::clone(&schema),
        batches: Vec::with_capacity(batches.len()),
        with_system,
        row_count: 0,
        adjustments: Vec::new(),
    };
    for batch in batches {
        let mut adjustments = Vec::new();
        if batch.row_count > 0 {
            let record = record(target, &schema, batch, &mut adjustments)?;
            prepared.row_count += batch.row_count as u64;
            prepared.batches.push(record);
        }
        prepared.adjustments.push(adjustments);
    }
    Ok(prepared)
}

fn record(
    target: &TargetTable,
    schema: &SchemaRef,
    batch: &ChangeBatch,
    adjustments: &mut Vec<Adjustment>,
) -> Result<RecordBatch> {
    ensure_fits(target, batch)?;
    let mut arrays = Vec::with_capacity(schema.fields().len());
    for (index, (column, array)) in target.columns().iter().zip(&batch.columns).enumerate() {
        let mut work = ColumnWork {
            target,
            column,
            is_key: target.key_columns().contains(&index),
            adjustments,
        };
        arrays.push(work.convert(array)?);
    }
    if schema.fields().len() > arrays.len() {
        let (versions, what) = system_columns(target, batch)?;
        arrays.extend([versions, what]);
    }
    RecordBatch::try_new(Arc::clone(schema), arrays)
        .map_err(|error| broken(target, "the arrays do not make a record batch").with_source(error))
}

impl Prepared {
    /// The Arrow stream in pieces. Without compression the large buffers are those of the arrays, not copies.
    pub(super) fn into_stream(self, compress: bool) -> Result<Vec<Bytes>> {
        let encode = || -> std::result::Result<Vec<Bytes>, arrow::error::ArrowError> {
            let codec = compress.then_some(CompressionType::LZ4_FRAME);
            let options = IpcWriteOptions::default().try_with_compression(codec)?;
            let mut encoder = StreamEncoder::try_new_with_options(&self.schema, options)?;
            let mut pieces = Pieces::default();
            for batch in &self.batches {
                pieces.extend(encoder.encode(batch)?);
            }
            pieces.extend(encoder.finish()?);
            Ok(pieces.finish())
        };
        encode().map_err(|error| {
            Error::new(
                ErrorKind::Internal,
                "the batch cannot be written as an Arrow stream",
            )
            .with_source(error)
        })
    }
}

fn broken(target: &TargetTable, what: &str) -> Error {
    Error::new(
        ErrorKind::Internal,
        format!("{what}, target `{}`", target.name()),
    )
    .with_table(target.source())
}

fn arrow_schema(target: &TargetTable, with_system: bool) -> SchemaRef {
    let mut fields: Vec<Field> = target
        .columns()
        .iter()
        .map(|column| Field::new(&column.name, convert::sent_type(column), column.nullable))
        .collect();
    if with_system {
        let system = target.system_columns();
        fields.push(Field::new(&system.version, DataType::UInt64, false));
        fields.push(match target.engine() {
            Engine::Replacing => Field::new(&system.deleted, DataType::UInt8, false),
            Engine::Append => Field::new(append::OP, DataType::Int8, false),
        });
    }
    Arc::new(Schema::new(fields))
}

/// ClickHouse matches columns by name and converts in silence, so the match is proved here.
fn ensure_fits(target: &TargetTable, batch: &ChangeBatch) -> Result<()> {
    let columns = target.columns();
    let same = columns.len() == batch.schema.columns.len()
        && columns.len() == batch.columns.len()
        && columns
            .iter()
            .zip(&batch.schema.columns)
            .all(|(ours, theirs)| {
                ours.name == theirs.name && ours.column_type == theirs.column_type
            });
    if !same {
        return Err(broken(
            target,
            "the batch has other columns than the target was planned with",
        ));
    }
    let typed = columns
        .iter()
        .zip(&batch.columns)
        .all(|(column, array)| *array.data_type() == column.column_type.arrow());
    if !typed {
        return Err(broken(target, "an array has another type than its column"));
    }
    Ok(())
}

/// One column of one batch on its way.
struct ColumnWork<'a> {
    target: &'a TargetTable,
    column: &'a TargetColumn,
    is_key: bool,
    adjustments: &'a mut Vec<Adjustment>,
}

impl ColumnWork<'_> {
    fn convert(&mut self, array: &ArrayRef) -> Result<ArrayRef> {
        let converted = convert::convert(self.column, array)
            .map_err(|error| error.with_table(self.target.source()))?;
        if let Some((policy, values)) = converted.changed {
            if self.is_key {
                return Err(self.refused(
                    "is part of the key and has a date outside of what its ClickHouse type holds",
                    &format!(
                        "set `columns: {{{}: {{date_range: string}}}}`, which keeps every date as its own text",
                        self.column.name
                    ),
                ));
            }
            self.count(policy, values);
        }
        if self.column.nullable || converted.array.null_count() == 0 {
            return Ok(converted.array);
        }
        self.fill(&converted.array)
    }

    fn fill(&mut self, array: &ArrayRef) -> Result<ArrayRef> {
        // A NOT NULL date may be zero at the source, which is no date and arrives as NULL.
        let temporal = matches!(
            self.column.column_type,
            ColumnType::Date | ColumnType::DateTime { .. } | ColumnType::Timestamp { .. }
        );
        if self.is_key {
            return Err(self.refused(
                "is part of the key and has a value without equivalent, such as a zero date",
                "correct the rows at the source, or set `order_by` to other columns with a unique key at the source",
            ));
        }
        if !self.column.source_nullable && !temporal {
            return Err(Error::new(
                ErrorKind::SchemaConflict,
                format!("column `{}` takes no NULL, and a row has one", self.column.name),
            )
            .with_hint("resync the table; if a plugin fills this column, its shape must say that it can be NULL")
            .with_table(self.target.source()));
        }
        self.count(Policy::NullAsDefault, array.null_count());
        let failed = |error| broken(self.target, "NULL cannot be filled").with_source(error);
        let default = default_value(self.column.conversion, array.data_type()).map_err(failed)?;
        let nulls = array.logical_nulls();
        let mask = match nulls {
            Some(nulls) => BooleanArray::new(nulls.into_inner(), None),
            None => return Ok(Arc::clone(array)),
        };
        let filled = zip(&mask, array, &Scalar::new(default)).map_err(failed)?;
        Ok(filled)
    }

    fn refused(&self, problem: &str, hint: &str) -> Error {
        Error::new(
            ErrorKind::Unsupported,
            format!("column `{}` {problem}", self.column.name),
        )
        .with_hint(hint)
        .with_table(self.target.source())
    }

    fn count(&mut self, policy: Policy, values: usize) {
        if values == 0 {
            return;
        }
        let values = values as u64;
        let known = self
            .adjustments
            .iter_mut()
            .find(|known| known.policy == policy && known.column == self.column.name);
        match known {
            Some(known) => known.values += values,
            None => self.adjustments.push(Adjustment {
                column: self.column.name.clone(),
                policy,
                values,
            }),
        }
    }
}

/// An array of one value: 0, the epoch, the empty string, the empty object, the empty list.
fn default_value(
    conversion: Conversion,
    data_type: &DataType,
) -> std::result::Result<ArrayRef, arrow::error::ArrowError> {
    if let DataType::List(element) = data_type {
        let offsets = OffsetBuffer::from_lengths([0]);
        let nothing = new_empty_array(element.data_type());
        let list = ListArray::try_new(Arc::clone(element), offsets, nothing, None)?;
        return Ok(Arc::new(list));
    }
    let builder = ArrayData::builder(data_type.clone()).len(1);
    let zeros = |length: usize| Buffer::from(arrow::buffer::MutableBuffer::from_len_zeroed(length));
    let builder = match data_type {
        DataType::Binary => {
            let text: &[u8] = match conversion {
                Conversion::JsonToObject => b"{}",
                _ => b"",
            };
            builder
                .add_buffer(Buffer::from_slice_ref([0_i32, text.len() as i32]))
                .add_buffer(Buffer::from_slice_ref(text))
        }
        DataType::FixedSizeBinary(length) => {
            builder.add_buffer(zeros(length.unsigned_abs() as usize))
        }
        // The widest value is a Decimal256; alignment is that of the allocation.
        _ => builder.add_buffer(zeros(32)),
    };
    Ok(make_array(builder.build()?))
}

/// Versions, and what has happened in the target's own way of saying it.
fn system_columns(target: &TargetTable, batch: &ChangeBatch) -> Result<(ArrayRef, ArrayRef)> {
    let (versions, ops): (ScalarBuffer<u64>, Option<&Vec<Op>>) = match &batch.changes {
        Changes::Load => (vec![Version::LOAD.get(); batch.row_count].into(), None),
        Changes::Stream { ops, versions } => {
            if ops.len() != batch.row_count || versions.len() != batch.row_count {
                return Err(Error::new(
                    ErrorKind::Internal,
                    "a batch has not one version and one change for each row",
                )
                .with_table(&batch.schema.name));
            }
            (versions.iter().copied().collect(), Some(ops))
        }
    };
    let nothing = vec![Op::Insert; if ops.is_none() { batch.row_count } else { 0 }];
    let ops = ops.unwrap_or(&nothing).iter();
    let what: ArrayRef = match target.engine() {
        Engine::Replacing => {
            let deleted: ScalarBuffer<u8> = ops.map(|op| u8::from(*op == Op::Delete)).collect();
            Arc::new(UInt8Array::new(deleted, None))
        }
        Engine::Append => {
            let numbers: ScalarBuffer<i8> = ops.map(|op| *op as i8).collect();
            Arc::new(Int8Array::new(numbers, None))
        }
    };
    Ok((Arc::new(UInt64Array::new(versions, None)), what))
}

/// Pieces of about [`CHUNK_BYTES`]: small buffers are gathered, large ones are cut by reference.
#[derive(Default)]
struct Pieces {
    done: Vec<Bytes>,
    gathered: BytesMut,
}

impl Pieces {
    fn extend(&mut self, buffers: Vec<Buffer>) {
        for buffer in buffers {
            if buffer.len() < GATHER_BYTES {
                self.gathered.extend_from_slice(buffer.as_slice());
                if self.gathered.len() >= CHUNK_BYTES {
                    self.flush();
                }
                continue;
            }
            self.flush();
            let mut bytes = Bytes::from(buffer);
            while bytes.len() > CHUNK_BYTES {
                self.done.push(bytes.split_to(CHUNK_BYTES));
            }
            self.done.push(bytes);
        }
    }

    fn flush(&mut self) {
        if !self.gathered.is_empty() {
            self.done.push(self.gathered.split().freeze());
        }
    }

    fn finish(mut self) -> Vec<Bytes> {
        self.flush();
        self.done
    }
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
