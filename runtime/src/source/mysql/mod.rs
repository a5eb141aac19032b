//! MySQL and MariaDB, by their own protocol.
//!
//! Control queries and the binlog's transport go through `mysql_async`; the rows of a load come through [`wire`], those
//! of the stream through [`binlog`]; both end in the column decoders of [`decode`].

pub mod binlog;
pub mod cascades;
pub mod catalog;
mod connection;
pub mod date_rules;
pub mod decode;
pub mod following;
pub mod inspect;
mod labels;
pub mod past;
pub mod position;
pub mod preflight;
pub mod replica;
pub mod retention;
pub mod snapshot;
pub mod sql;
pub mod types;
pub mod wire;

pub use connection::{Flavor, ServerIdentity, ServerVersion, Source};
