//! Change batches to the bytes of an Arrow stream, by reference wherever the array already is what ClickHouse takes.
//!
//! Each change batch becomes one record batch. Columns pass untouched but for three declared policies: a date outside
//! of Date32 is clamped, NULL for a column without NULL becomes the type's default, and both are counted. On key columns
//! both are refused, since two keys could become one.

use std::sync::Arc;

use arrow::array::types::{Date32Type, Int64Type, Time64MicrosecondType, TimestampSecondType};
use arrow::array::{
    Array, ArrayData, ArrayRef, AsArray, BooleanArray, ListArray, RecordBatch, Scalar, UInt8Array,
    UInt64Array, make_array, new_empty_array,
};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::kernels::zip::zip;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{IpcWriteOptions, StreamEncoder};
use bytes::{Bytes, BytesMut};

use super::target::{TargetColumn, TargetTable};
use super::types::Conversion;
use crate::batch::{ChangeBatch, Changes, ColumnType, Op, Version};
use crate::error::{Error, ErrorKind, Result};

/// Days of 1900-01-01 and 2299-12-31, between which Date32 holds (trap 7).
const DATE_MIN: i32 = -25_567;
const DATE_MAX: i32 = 120_529;

/// Pieces that are handed to the connection: large enough to be few, small enough for back-pressure (trap 12).
const CHUNK_BYTES: usize = 1 << 20;

/// Buffers below this are gathered, since a piece of its own costs more than a copy.
const GATHER_BYTES: usize = 16 << 10;

/// A policy that changed values.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// A date before 1900-01-01 or after 2299-12-31 became that limit.
    DateClamped,
    /// NULL became the type's default, because the target column takes no NULL.
    NullToDefault,
}

/// How often a policy changed values of a column.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Adjustment {
    /// The column.
    pub column: String,
    /// What was done.
    pub policy: Policy,
    /// To how many values.
    pub values: u64,
}

/// Record batches of one insert, not yet bytes.
#[derive(Debug)]
pub(super) struct Prepared {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    /// Whether `_version` and `_is_deleted` are among the columns. An insert that only loads leaves them out: the types'
    /// default 0 is [`Version::LOAD`] and "not deleted".
    pub(super) with_system: bool,
    pub(super) row_count: u64,
    pub(super) adjustments: Vec<Adjustment>,
}

const _: () = assert!(size_of::<Version>() == size_of::<u64>());

/// Maps every batch onto the target's columns.
pub(super) fn prepare(target: &TargetTable, batches: &[ChangeBatch]) -> Result<Prepared> {
    let with_system = batches
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
    for batch in batches.iter().filter(|batch| batch.row_count > 0) {
        ensure_fits(target, batch)?;
        let mut arrays = Vec::with_capacity(schema.fields().len());
        for (index, (column, array)) in target.columns().iter().zip(&batch.columns).enumerate() {
            let is_key = target.key_columns().contains(&index);
            let mut work = ColumnWork {
                target,
                column,
                is_key,
                adjustments: &mut prepared.adjustments,
            };
            arrays.push(work.convert(array)?);
        }
        if with_system {
            let (versions, deleted) = system_columns(batch)?;
            arrays.extend([versions, deleted]);
        }
        let record = RecordBatch::try_new(Arc::clone(&schema), arrays).map_err(|error| {
            broken(target, "the arrays do not make a record batch").with_source(error)
        })?;
        prepared.row_count += batch.row_count as u64;
        prepared.batches.push(record);
    }
    Ok(prepared)
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
        .map(|column| Field::new(&column.name, sent_type(column), column.nullable))
        .collect();
    if with_system {
        let system = target.system_columns();
        fields.push(Field::new(&system.version, DataType::UInt64, false));
        fields.push(Field::new(&system.deleted, DataType::UInt8, false));
    }
    Arc::new(Schema::new(fields))
}

fn sent_type(column: &TargetColumn) -> DataType {
    match column.conversion {
        Conversion::None | Conversion::ClampDate => column.column_type.arrow(),
        Conversion::DateToSeconds => DataType::Timestamp(arrow::datatypes::TimeUnit::Second, None),
        Conversion::TimeToMicros => DataType::Int64,
    }
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
        let array = match self.column.conversion {
            Conversion::None => Arc::clone(array),
            Conversion::ClampDate => self.clamp(array)?,
            Conversion::DateToSeconds => Arc::new(
                array
                    .as_primitive::<Date32Type>()
                    .unary::<_, TimestampSecondType>(|day| i64::from(day) * 86_400),
            ),
            Conversion::TimeToMicros => Arc::new(
                array
                    .as_primitive::<Time64MicrosecondType>()
                    .reinterpret_cast::<Int64Type>(),
            ),
        };
        if self.column.nullable || array.null_count() == 0 {
            return Ok(array);
        }
        self.fill(&array)
    }

    fn clamp(&mut self, array: &ArrayRef) -> Result<ArrayRef> {
        let dates = array.as_primitive::<Date32Type>();
        // Without a branch, so that the usual case is one pass over the values.
        let outside = dates.values().iter().fold(false, |any, day| {
            any | (*day < DATE_MIN) | (*day > DATE_MAX)
        });
        if !outside {
            return Ok(Arc::clone(array));
        }
        let clamped = dates
            .iter()
            .flatten()
            .filter(|day| !(DATE_MIN..=DATE_MAX).contains(day))
            .count();
        if clamped > 0 && self.is_key {
            return Err(self.refused(
                "is part of the key and has a date outside of 1900-01-01 to 2299-12-31, which Date32 does not hold",
                &format!("set `columns: {{{}: {{type: \"DateTime64(0, 'UTC')\"}}}}`", self.column.name),
            ));
        }
        self.count(Policy::DateClamped, clamped);
        Ok(Arc::new(dates.unary::<_, Date32Type>(|day| {
            day.clamp(DATE_MIN, DATE_MAX)
        })))
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
        self.count(Policy::NullToDefault, array.null_count());
        let failed = |error| broken(self.target, "NULL cannot be filled").with_source(error);
        let default = default_value(array.data_type()).map_err(failed)?;
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

/// An array of one value whose bytes are all zero: 0, the epoch, the empty string, the empty list.
fn default_value(data_type: &DataType) -> std::result::Result<ArrayRef, arrow::error::ArrowError> {
    if let DataType::List(element) = data_type {
        let offsets = OffsetBuffer::from_lengths([0]);
        let nothing = new_empty_array(element.data_type());
        let list = ListArray::try_new(Arc::clone(element), offsets, nothing, None)?;
        return Ok(Arc::new(list));
    }
    let builder = ArrayData::builder(data_type.clone()).len(1);
    let builder = if matches!(data_type, DataType::Binary) {
        builder
            .add_buffer(Buffer::from_slice_ref([0_i32, 0]))
            .add_buffer(Buffer::from_slice_ref::<u8, &[u8; 0]>(&[]))
    } else {
        // The widest value is a Decimal256, a UUID has half of it; alignment is that of the allocation.
        builder.add_buffer(Buffer::from(arrow::buffer::MutableBuffer::from_len_zeroed(
            32,
        )))
    };
    Ok(make_array(builder.build()?))
}

fn system_columns(batch: &ChangeBatch) -> Result<(ArrayRef, ArrayRef)> {
    let (versions, deleted) = match &batch.changes {
        Changes::Load => (
            UInt64Array::from(vec![Version::LOAD.get(); batch.row_count]),
            UInt8Array::from(vec![0; batch.row_count]),
        ),
        Changes::Stream { ops, versions } => {
            if ops.len() != batch.row_count || versions.len() != batch.row_count {
                return Err(Error::new(
                    ErrorKind::Internal,
                    "a batch has not one version and one change for each row",
                )
                .with_table(&batch.schema.name));
            }
            let deleted: ScalarBuffer<u8> =
                ops.iter().map(|op| u8::from(*op == Op::Delete)).collect();
            let versions: ScalarBuffer<u64> = versions.iter().copied().collect();
            (
                UInt64Array::new(versions, None),
                UInt8Array::new(deleted, None),
            )
        }
    };
    Ok((Arc::new(versions), Arc::new(deleted)))
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
