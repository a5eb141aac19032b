//! What tests, demo and bench run a pipe with: the process itself, its REST interface, ClickHouse over HTTP, the source
//! over its own protocol, and the comparison of both ends value by value.
//!
//! The pipe is a process of its own, so that it can be killed: the testbed's binary under a hidden subcommand, which is
//! Pipewright's own command line.

mod binlog_proxy;
mod canonical;
mod clickhouse;
mod comparison;
mod galera;
mod pipe;
mod plugins;
mod process;
mod proxy;
pub mod replication;
mod source;
mod stage;
mod surroundings;
mod workload;

pub use binlog_proxy::{Alteration, BinlogProxy, EventPart, PassingEvent};
pub use clickhouse::ClickHouse;
pub use comparison::Comparison;
pub use galera::Galera;
pub use pipe::{LIFELINE_VARIABLE, Launch, Pipe, PipeLog};
pub use plugins::{Plugins, build_guest, workspace_folder};
pub use process::{Finished, run_to_end, usage_of};
pub use proxy::Proxy;
pub use source::{Source, quoted};
pub use stage::{Held, MARKER_TABLE, Stage};
pub use surroundings::Disk;
pub use workload::{Workload, Writer};
