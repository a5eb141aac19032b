//! What the rest may know of a source: connecting, its tables, places in its binlog, rows as change batches.

pub mod mysql;
