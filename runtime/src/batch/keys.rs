//! Rows told apart by their keys, as bytes that may be compared and kept.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};

/// How the keys of one table's batches become bytes: two keys have the same bytes exactly where all of their values are
/// the same, bit for bit, whatever a collation says of them.
#[derive(Debug)]
pub struct Keys {
    converter: RowConverter,
    /// The key's columns among the batch's.
    key: Vec<usize>,
}

impl Keys {
    /// For batches of these columns, of which those at `key` are the key.
    ///
    /// # Errors
    /// When a column's type has no such bytes.
    pub fn new(columns: &[ArrayRef], key: &[usize]) -> Result<Self, ArrowError> {
        let fields = pick(columns, key)
            .iter()
            .map(|column| SortField::new(column.data_type().clone()))
            .collect();
        Ok(Self {
            converter: RowConverter::new(fields)?,
            key: key.to_vec(),
        })
    }

    /// The keys of a batch of these columns, one a row.
    ///
    /// # Errors
    /// When the columns are of other types than those of the first batch.
    pub fn of(&self, columns: &[ArrayRef]) -> Result<Rows, ArrowError> {
        self.converter.convert_columns(&pick(columns, &self.key))
    }
}

fn pick(columns: &[ArrayRef], key: &[usize]) -> Vec<ArrayRef> {
    key.iter()
        .filter_map(|&index| columns.get(index).map(Arc::clone))
        .collect()
}
