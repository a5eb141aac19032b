//! Change batches: what source, transform and destination have in common, and all that they have in common.
//!
//! A batch is one table's rows in binlog order: source columns as Arrow arrays, and for each row what happened to it
//! and its version. Versions decide everything afterwards, so a batch may be replayed, cut otherwise or overtaken.

mod change;
mod keys;
mod policy;
mod row_text;
mod schema;

pub use change::{ChangeBatch, Changes, MAX_STREAM_OFFSET, Op, Version};
pub use keys::Keys;
pub use policy::{Adjustment, Policy};
pub use row_text::{RowText, UnfitRow, row_texts, rows_from_texts};
pub use schema::{Column, ColumnType, Number, TableName, TableSchema};
