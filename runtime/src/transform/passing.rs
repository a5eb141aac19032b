//! A batch on its way from one plugin to the next, and what becomes of rows that one of them drops or fails on.

use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::buffer::BooleanBuffer;
use arrow::error::ArrowError;

use crate::batch::{ChangeBatch, Changes, Op};
use crate::config::OnRejected;
use crate::error::Result;

/// A batch between two plugins.
pub(super) struct Passing {
    pub(super) batch: ChangeBatch,
    /// For each row its place in the batch before the first plugin; none while all are where they were.
    pub(super) origins: Option<Vec<usize>>,
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
        let mut kept: Vec<bool> = match &keep {
            Some(keep) => keep.iter().collect(),
            None => vec![true; rows],
        };
        bad.iter().for_each(|row| kept[*row] = false);
        let gone = &mut self.gone;
        let leaving: Vec<bool> = match &mut self.batch.changes {
            Changes::Load => kept,
            Changes::Stream { ops, .. } => {
                let mut stays = vec![true; rows];
                if on_rejected == OnRejected::KeepOld {
                    bad.iter()
                        .for_each(|row| stays[*row] = ops[*row] == Op::Delete);
                }
                for (op, kept) in ops.iter_mut().zip(&kept) {
                    if !kept {
                        *op = Op::Delete;
                    }
                }
                // Nobody asks for them elsewhere.
                if gone.is_routing {
                    let dropped = kept.iter().zip(&stays).enumerate();
                    let dropped = dropped
                        .filter(|(_, (_, stays))| **stays)
                        .map(|(row, (kept, _))| !kept || gone.is_dropped(row))
                        .collect();
                    gone.dropped = Some(dropped);
                }
                stays
            }
        };
        if leaving.iter().all(|stays| *stays) {
            return Ok(self);
        }
        let origins = leaving.iter().enumerate().filter(|(_, stays)| **stays);
        self.origins = Some(
            origins
                .map(|(row, _)| match &self.origins {
                    Some(origins) => origins[row],
                    None => row,
                })
                .collect(),
        );
        self.batch = self.batch.keep(&BooleanArray::from(leaving))?;
        Ok(self)
    }
}
