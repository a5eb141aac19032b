//! The pipe file: from what is written to the validated [`PipeConfig`], which alone reaches the rest.
//!
//! A file is parsed into a tree whose nodes know their line and column, `${...}` is replaced inside its strings, and
//! the tree is then read key by key. Reading never stops at the first fault: whoever mends a file mends it once. Since
//! replacement comes after parsing, no value of the environment can add a key or a list entry.

mod across;
mod alone;
mod ddl;
mod ends;
mod field;
mod file;
mod interpolate;
mod matching;
mod node;
mod overlay;
mod policies;
mod problem;
mod read;
mod schema;
mod section;
mod settings;
mod tables;
#[cfg(test)]
mod tests;
mod transforms;
mod values;

pub use alone::transform_alone;
pub use ddl::{DdlAction, DdlPolicies};
pub use file::{
    PipeFile, Stamp, apart, environment, load, load_files, pipe_files, read_sent, stamp,
};
pub use matching::{match_each, match_tables, without_table};
pub use overlay::{Difference, compare, lay_over, merged, pattern_of, shown, shown_at, source_of};
pub use policies::{
    BinaryForm, ColumnConfig, DateRange, DecimalForm, EnumForm, GeometryForm, JsonForm, SetForm,
    Tinyint1, TypePolicies, ZeroDates,
};
pub use problem::Problem;
pub use read::{is_name, is_setting};
pub use schema::{json_schema, pipe_file_schema, source_schema};
pub use section::Folders;
pub use settings::{
    Cascades, DestinationConfig, Durability, Engine, HostPort, Keyless, LimitsConfig, Mode,
    ObjectivesConfig, OnError, OnRejected, PipeConfig, PluginConfig, PositionMode, RowImage,
    Secret, SnapshotConfig, SourceConfig, SourceType, SyncConfig, SystemColumns, TableConfig,
    TablePattern, TlsConfig, TlsMode, TransformConfig,
};
pub use values::duration as parse_duration;
pub(crate) use values::nearest;

/// What becomes of `${...}` that the machine at hand cannot resolve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    /// An undefined variable or an unreadable file is a problem: the pipe is about to run.
    Resolve,
    /// It stays as written, and mounted secrets are not read: the file alone is looked at, perhaps on a machine that has
    /// none of them. The result is good for looking, not for running.
    Offline,
}
