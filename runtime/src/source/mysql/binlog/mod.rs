//! The binlog as committed transactions and statements, each with the place behind it.
//!
//! [`BinlogStream`] reads events and puts them together into groups; of a group without anything of ours only the place
//! is kept. Row events stay raw until their commit is known ([`Transaction`]) and are then decoded straight into Arrow
//! builders by [`ChangeBuilder`], or wait as [`IncompleteRows`] where their images leave columns out. [`ddl`] says what a statement does.

mod begun;
mod collations;
mod compress;
mod cross_check;
pub mod ddl;
mod event;
mod filter;
mod fragments;
mod group;
mod incomplete;
mod indirect;
mod maps;
mod payload;
mod refusal;
mod rows;
mod shape;
mod silence;
mod stream;
mod table_map;
mod transaction;
mod transport;
mod xa;

pub use begun::{BegunFile, ensure_unbroken};
pub use filter::TableFilter;
pub use incomplete::IncompleteRows;
pub(super) use refusal::{goes_back, purged};
pub use rows::{ChangeBuilder, Counts, Watched};
pub use stream::{BinlogStream, Idle, Item, Statement, StreamOptions, statements_between};
pub use table_map::TableMap;
pub use transaction::{RowEvent, RowEvents, RowKind, Transaction};
pub use xa::{Decided, Packed, Prepared, Xid};
