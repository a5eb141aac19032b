//! A batch on its way from one plugin to the next, and what becomes of rows that one of them drops or fails on.

use std::sync::Arc;

use arrow::array::{BooleanArray, BooleanBufferBuilder};
use arrow::buffer::BooleanBuffer;
use arrow::error::ArrowError;

use crate::batch::{ChangeBatch, Changes, Op};
use crate::config::OnRejected;
use crate::error::Result;

/// A batch between two plugins.
pub(super) struct Passing {
    pub(super) batch: ChangeBatch,
    /// Which rows stayed each time that some left: what it takes to tell where a row was before the first plugin.
    pub(super) stayed: Vec<BooleanBuffer>,
    pub(super) gone: Gone,
}

/// Of which rows of the stream nothing is lost when a plugin fails on them.
#[derive(Clone, Debug)]
pub(super) struct Gone {
    /// Whether the chain must find again where a last image went.
    pub(super) is_routing: bool,
    /// Which rows a plugin has dropped or failed on, so that they are deletes now; none while there are none.
    pub(super) dropped: Option<Arc<[bool]>>,
}

impl Gone {
    /// A tombstone needs no more than its key. One that is to be found again must be found where it was made, unless a
    /// plugin before drops the image, then as now.
    pub(super) fn holds(&self, batch: &ChangeBatch, row: usize) -> bool {
        match &batch.changes {
            Changes::Load => false,
            Changes::Stream { ops, .. } if !self.is_routing => ops[row] == Op::Delete,
            Changes::Stream { .. } => self.is_dropped(row),
        }
    }

    pub(super) fn is_dropped(&self, row: usize) -> bool {
        self.dropped.as_ref().is_some_and(|dropped| dropped[row])
    }
}

impl Passing {
    /// For each row its place in the batch before the first plugin; none while all are where they were.
    pub(super) fn origins(&self) -> Option<Vec<usize>> {
        let (last, before) = self.stayed.split_last()?;
        let mut origins: Vec<usize> = last.set_indices().collect();
        for stayed in before.iter().rev() {
            let places: Vec<usize> = stayed.set_indices().collect();
            origins.iter_mut().for_each(|row| *row = places[*row]);
        }
        Some(origins)
    }

    /// Rows without a bit, and rows that failed, leave a load and become deletes in the stream. With `keep_old` a row that
    /// failed leaves the stream too, unless it is a delete.
    pub(super) fn drop_rows(
        mut self,
        keep: Option<BooleanBuffer>,
        bad: &[usize],
        on_rejected: OnRejected,
    ) -> Result<Self, ArrowError> {
        if keep.is_none() && bad.is_empty() {
            return Ok(self);
        }
        let rows = self.batch.row_count;
        let kept = without(keep.unwrap_or_else(|| BooleanBuffer::new_set(rows)), bad);
        let gone = &mut self.gone;
        let staying = match &mut self.batch.changes {
            Changes::Load => kept,
            Changes::Stream { ops, .. } => {
                let leaving: Vec<usize> = match on_rejected {
                    OnRejected::KeepOld => {
                        let rows = bad.iter().copied();
                        rows.filter(|row| ops[*row] != Op::Delete).collect()
                    }
                    OnRejected::Hide => Vec::new(),
                };
                let staying = without(BooleanBuffer::new_set(rows), &leaving);
                for (op, kept) in ops.iter_mut().zip(&kept) {
                    if !kept {
                        *op = Op::Delete;
                    }
                }
                // Nobody asks for them elsewhere.
                if gone.is_routing {
                    let dropped = staying.set_indices();
                    let dropped = dropped
                        .map(|row| !kept.value(row) || gone.is_dropped(row))
                        .collect();
                    gone.dropped = Some(dropped);
                }
                staying
            }
        };
        if staying.count_set_bits() == rows {
            return Ok(self);
        }
        self.batch = self.batch.keep(&BooleanArray::new(staying.clone(), None))?;
        self.stayed.push(staying);
        Ok(self)
    }
}

/// The same selection without these rows.
fn without(rows: BooleanBuffer, fewer: &[usize]) -> BooleanBuffer {
    if fewer.is_empty() {
        return rows;
    }
    let mut bits = BooleanBufferBuilder::new(rows.len());
    bits.append_buffer(&rows);
    fewer.iter().for_each(|row| bits.set_bit(*row, false));
    bits.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::binding::tests::schema;

    #[test]
    fn a_row_is_told_by_its_place_before_the_first_plugin() {
        let ids: Vec<i64> = (0..6).collect();
        let columns: Vec<arrow::array::ArrayRef> = vec![
            Arc::new(arrow::array::Int64Array::from(ids)),
            Arc::new(arrow::array::BinaryArray::from(vec![None; 6])),
            Arc::new(arrow::array::BinaryArray::from(vec![&b"open"[..]; 6])),
        ];
        let passing = Passing {
            batch: ChangeBatch {
                schema: schema(),
                columns,
                row_count: 6,
                changes: Changes::Load,
            },
            stayed: Vec::new(),
            gone: Gone {
                is_routing: false,
                dropped: None,
            },
        };
        assert_eq!(passing.origins(), None);
        let odd = BooleanBuffer::from_iter([false, true, false, true, true, true]);
        let dropped = passing.drop_rows(Some(odd), &[4], OnRejected::Hide);
        let passing = dropped.expect("sound columns");
        assert_eq!(passing.origins(), Some(vec![1, 3, 5]));
        let dropped = passing.drop_rows(None, &[0], OnRejected::Hide);
        let passing = dropped.expect("sound columns");
        assert_eq!(passing.origins(), Some(vec![3, 5]));
        assert_eq!(passing.batch.row_count, 2);
    }
}
