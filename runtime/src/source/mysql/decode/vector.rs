//! Vectors: four-byte floats, low byte first, one behind the other; the same bytes in packets and row images (pitfall
//! 32). `VECTOR(n)` says how many there may be: MySQL stores shorter ones too, and neither server stores an empty one.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, ListArray};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};

use super::DecodeError;
use crate::batch::Number;

/// Lists of floats, one behind the other.
#[derive(Debug)]
pub(super) struct FloatLists {
    /// Where each ends; the first entry is 0.
    ends: Vec<i32>,
    floats: Vec<f32>,
}

impl FloatLists {
    pub(super) fn new() -> Self {
        Self {
            ends: vec![0],
            floats: Vec::new(),
        }
    }

    pub(super) fn byte_count(&self) -> usize {
        size_of_val(self.floats.as_slice()) + size_of_val(self.ends.as_slice())
    }

    /// Appends the vector that `bytes` are.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        let (floats, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(DecodeError::BadLength);
        }
        let end =
            i32::try_from(self.floats.len() + floats.len()).map_err(|_| DecodeError::ColumnFull)?;
        self.floats
            .extend(floats.iter().map(|float| f32::from_le_bytes(*float)));
        self.ends.push(end);
        Ok(())
    }

    pub(super) fn push_empty(&mut self) {
        let end = self.ends.last().copied().unwrap_or(0);
        self.ends.push(end);
    }

    pub(super) fn truncate(&mut self, row_count: usize) {
        self.ends.truncate(row_count + 1);
        let end = self.ends.last().copied().unwrap_or(0);
        self.floats.truncate(usize::try_from(end).unwrap_or(0));
    }

    pub(super) fn finish(&mut self, nulls: Option<NullBuffer>) -> ArrayRef {
        let ends = std::mem::replace(&mut self.ends, vec![0]);
        let room = Vec::with_capacity(self.floats.len());
        let floats = std::mem::replace(&mut self.floats, room);
        Arc::new(ListArray::new(
            Number::Float32.list_field(),
            OffsetBuffer::new(ScalarBuffer::from(ends)),
            Arc::new(Float32Array::new(ScalarBuffer::from(floats), None)),
            nulls,
        ))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::Float32Type;

    use super::*;
    use crate::batch::ColumnType;

    #[test]
    fn vectors_may_be_of_several_lengths_and_null_is_an_empty_one() {
        let mut lists = FloatLists::new();
        lists
            .push(&[0, 0, 128, 63, 0, 0, 0, 64])
            .expect("two floats");
        lists.push_empty();
        lists.push(&[0, 0, 192, 191]).expect("a float");
        assert_eq!(lists.push(&[0, 0, 192]), Err(DecodeError::BadLength));
        lists.push_empty();
        lists.truncate(3);
        let array = lists.finish(None);
        assert_eq!(*array.data_type(), ColumnType::Vector.arrow());
        let lists = array.as_list::<i32>();
        let floats = |row| {
            lists
                .value(row)
                .as_primitive::<Float32Type>()
                .values()
                .to_vec()
        };
        assert_eq!(
            [floats(0), floats(1), floats(2)],
            [vec![1.0, 2.0], vec![], vec![-1.5]]
        );
    }
}
