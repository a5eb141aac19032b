//! The growing buffers that become Arrow arrays without a copy.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BinaryArray, FixedSizeBinaryArray, PrimitiveArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{ArrowNativeType, DataType};

use super::DecodeError;

/// Byte strings, one behind the other.
#[derive(Debug)]
pub(super) struct ByteValues {
    /// Where each ends; the first entry is 0.
    ends: Vec<i32>,
    data: Vec<u8>,
}

impl ByteValues {
    pub(super) fn new() -> Self {
        Self {
            ends: vec![0],
            data: Vec::new(),
        }
    }

    pub(super) fn byte_count(&self) -> usize {
        self.data.len() + self.ends.len() * size_of::<i32>()
    }

    /// Appends one value.
    #[inline]
    pub(super) fn push(&mut self, value: &[u8]) -> Result<(), DecodeError> {
        let end =
            i32::try_from(self.data.len() + value.len()).map_err(|_| DecodeError::ColumnFull)?;
        self.data.extend_from_slice(value);
        self.ends.push(end);
        Ok(())
    }

    /// Appends one value that `write` adds to the end of the bytes; if it fails nothing is appended.
    #[inline]
    pub(super) fn push_with(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        let start = self.data.len();
        let written = write(&mut self.data)
            .and_then(|()| i32::try_from(self.data.len()).map_err(|_| DecodeError::ColumnFull));
        match written {
            Ok(end) => {
                self.ends.push(end);
                Ok(())
            }
            Err(error) => {
                self.data.truncate(start);
                Err(error)
            }
        }
    }

    pub(super) fn push_empty(&mut self) {
        let end = self.ends.last().copied().unwrap_or(0);
        self.ends.push(end);
    }

    pub(super) fn truncate(&mut self, row_count: usize) {
        self.ends.truncate(row_count + 1);
        let end = self.ends.last().copied().unwrap_or(0);
        self.data.truncate(end.as_usize());
    }

    pub(super) fn finish(&mut self, nulls: Option<NullBuffer>) -> ArrayRef {
        let mut next = Vec::with_capacity(self.ends.len());
        next.push(0);
        let ends = trimmed(std::mem::replace(&mut self.ends, next));
        let capacity = self.data.len();
        let data = trimmed(std::mem::replace(
            &mut self.data,
            Vec::with_capacity(capacity),
        ));
        Arc::new(BinaryArray::new(
            OffsetBuffer::new(ScalarBuffer::from(ends)),
            Buffer::from_vec(data),
            nulls,
        ))
    }
}

/// Makes an array of `data_type` out of `values`, and leaves room for as many again.
pub(super) fn finish_fixed<T: ArrowPrimitiveType>(
    values: &mut Vec<T::Native>,
    nulls: Option<NullBuffer>,
    data_type: &DataType,
) -> ArrayRef {
    let next = Vec::with_capacity(values.len());
    let values = trimmed(std::mem::replace(values, next));
    Arc::new(
        PrimitiveArray::<T>::new(ScalarBuffer::from(values), nulls)
            .with_data_type(data_type.clone()),
    )
}

/// Makes an array of 16 bytes a value out of `values`, which hold them in memory's order.
pub(super) fn finish_sixteen(values: &mut Vec<i128>, nulls: Option<NullBuffer>) -> ArrayRef {
    let next = Vec::with_capacity(values.len());
    let values = trimmed(std::mem::replace(values, next));
    Arc::new(FixedSizeBinaryArray::new(
        16,
        Buffer::from_vec(values),
        nulls,
    ))
}

/// A batch may wait a while, so it should not hold twice what it needs.
fn trimmed<T>(mut values: Vec<T>) -> Vec<T> {
    if values.capacity() / 2 > values.len() {
        values.shrink_to_fit();
    }
    values
}
