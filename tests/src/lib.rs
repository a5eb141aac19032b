//! The real servers for tests, demo and benches: found on the machine or fetched into a cache, started on free ports,
//! gone with the process that started them.
//!
//! Nothing here needs root or containers. Every call blocks; from async code go through `spawn_blocking`.

pub mod charsets;
mod clickhouse;
pub mod harness;
mod native;
mod port;
mod python;
mod shared;
pub mod soak;
mod source;
mod supervisor;

pub use clickhouse::{ClickHouseOptions, ClickHouseServer, ClickHouseUser};
pub use pipewright::fetch::cache::cache_folder;
pub use python::python_tool;
pub use shared::{
    database_name, shared_clickhouse, shared_mariadb, shared_mariadb11, shared_mysql, shared_source,
};
pub use source::{MariaDbExtras, SourceKind, SourceOptions, SourceServer};

use pipewright::fetch::{cache, command, debian};
