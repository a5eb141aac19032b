//! A thin reader of result sets and binlogs: packets as they come, no value objects.
//!
//! A load reads millions of rows whose bytes go straight into column builders; a value object a cell would cost several
//! times the decoding itself. So this client knows just enough of the protocol to hand out row packets where they lie
//! in its receive buffer: handshake, authentication and TLS ([`auth`], [`tls`]), packets ([`channel`]), the two
//! kinds of results ([`connection`]), and the events of a binlog ([`dump`]). Of the column definitions only the types are kept ([`definition`]): the catalog knows
//! the columns, and a type that is another one shows that it no longer does.

mod auth;
mod channel;
mod connection;
mod definition;
mod dump;
mod error;
mod tls;

pub use connection::{KillHandle, WireConn};
pub use definition::Definition;
pub use dump::{Dump, DumpStart};
pub use error::ServerError;
