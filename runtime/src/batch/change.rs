//! One table's rows on their way, and the version that makes their order irrelevant.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::FilterBuilder;
use arrow::error::ArrowError;

use super::TableSchema;

/// What happened to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// The row is new.
    Insert = 0,
    /// The row's after image; its key is the before image's.
    Update = 1,
    /// The row's last image, for which the destination writes a tombstone. The before image of an update that changes
    /// the key is one too.
    Delete = 2,
}

/// `term << 48 | stream offset`: a function of the place in the binlog, the same on every replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u64);

/// The largest offset of one term; a term that would pass it is raised.
pub const MAX_STREAM_OFFSET: u64 = (1 << 48) - 1;

impl Version {
    /// The version of rows of a load into a fresh table: below everything that the stream can write.
    pub const LOAD: Version = Version(0);

    /// The version at `offset` of `term`.
    ///
    /// # Panics
    /// When `offset` is past [`MAX_STREAM_OFFSET`]: the stream raises the term before that.
    pub fn new(term: u16, offset: u64) -> Self {
        assert!(
            offset <= MAX_STREAM_OFFSET,
            "stream offset {offset} does not fit 48 bits"
        );
        Self(u64::from(term) << 48 | offset)
    }

    /// The number as ClickHouse stores it.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// What a batch's rows mean to the destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// Rows of a load: all inserts, all at [`Version::LOAD`].
    Load,
    /// Row changes of the stream in binlog order, one entry a row in each list.
    Stream {
        /// What happened to each row.
        ops: Vec<Op>,
        /// Each row's version, ascending.
        versions: Vec<u64>,
    },
}

/// One table's rows in binlog order.
#[derive(Clone, Debug)]
pub struct ChangeBatch {
    /// What the columns are.
    pub schema: Arc<TableSchema>,
    /// One array a column, all of `row_count` rows, of the type that [`super::ColumnType::arrow`] says.
    pub columns: Vec<ArrayRef>,
    /// The rows of each array; kept apart because a table may come without columns.
    pub row_count: usize,
    /// What happened, and when.
    pub changes: Changes,
}

impl ChangeBatch {
    /// Bytes of the arrays' data, for budgets.
    pub fn byte_count(&self) -> usize {
        self.columns
            .iter()
            .map(|column| column.get_buffer_memory_size())
            .sum()
    }

    /// The rows with a bit, in order.
    ///
    /// # Errors
    /// When the bits are not as many as the rows.
    pub fn keep(mut self, kept: &BooleanArray) -> Result<ChangeBatch, ArrowError> {
        let filter = FilterBuilder::new(kept).optimize().build();
        let columns: Result<Vec<ArrayRef>, _> = self
            .columns
            .iter()
            .map(|column| filter.filter(column))
            .collect();
        self.columns = columns?;
        self.row_count = filter.count();
        if let Changes::Stream { ops, versions } = &mut self.changes {
            let mut bits = kept.values().iter();
            ops.retain(|_| bits.next().unwrap_or(false));
            let mut bits = kept.values().iter();
            versions.retain(|_| bits.next().unwrap_or(false));
        }
        Ok(self)
    }
}
