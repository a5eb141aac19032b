//! The validated configuration: what the running pipe may rely on.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ddl::DdlPolicies;
use super::policies::{ColumnConfig, TypePolicies};

/// A password or the like. Shows as `***` wherever it is printed; serialising it writes `***` too.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a resolved secret.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The secret itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

/// A plugin's configuration. It may hold secrets: printed and serialised it shows `***` for every string that came out
/// of `${...}`.
#[derive(Clone, PartialEq, Eq)]
pub struct PluginConfig {
    resolved: serde_json::Value,
    redacted: serde_json::Value,
}

impl PluginConfig {
    /// A configuration, and how it may be shown.
    pub fn new(resolved: serde_json::Value, redacted: serde_json::Value) -> Self {
        Self { resolved, redacted }
    }

    /// With its secrets, for the one place that hands it to the plugin.
    pub fn expose(&self) -> &serde_json::Value {
        &self.resolved
    }

    /// As it may be shown.
    pub fn redacted(&self) -> &serde_json::Value {
        &self.redacted
    }
}

impl Default for PluginConfig {
    fn default() -> Self {
        Self::from(serde_json::json!({}))
    }
}

/// A configuration without secrets.
impl From<serde_json::Value> for PluginConfig {
    fn from(value: serde_json::Value) -> Self {
        Self::new(value.clone(), value)
    }
}

impl fmt::Debug for PluginConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.redacted.fmt(f)
    }
}

impl Serialize for PluginConfig {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.redacted.serialize(serializer)
    }
}

/// One pipe, validated.
#[derive(Clone, Debug, Serialize)]
pub struct PipeConfig {
    /// The pipe's name: letters, digits, `_` and `-`.
    pub pipe: String,
    /// What is copied: load and stream, load only, or stream only.
    pub mode: Mode,
    /// Where rows come from.
    pub source: SourceConfig,
    /// Where rows go.
    pub destination: DestinationConfig,
    /// The tables in file order; [`super::match_tables`] lets exact names beat wildcards.
    pub tables: Vec<TableConfig>,
    /// What no wildcard of `tables` means.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<TablePattern>,
    /// The plugins that tables name.
    pub transforms: BTreeMap<String, TransformConfig>,
    /// How the load is cut.
    pub snapshot: SnapshotConfig,
    /// When the stream flushes.
    pub sync: SyncConfig,
    /// The names of our own columns.
    pub system_columns: SystemColumns,
    /// Whether NULL stays NULL; else it becomes the type's default.
    pub nullable: bool,
    /// What becomes of tables without a key whose entries do not say.
    #[serde(skip_serializing_if = "Keyless::is_refuse")]
    pub keyless: Keyless,
    /// What becomes of values without an equal in ClickHouse, and in which form others arrive.
    #[serde(skip_serializing_if = "TypePolicies::is_empty")]
    pub types: TypePolicies,
    /// Whether tables that begin to match a wildcard later join the pipe by themselves.
    pub follow_new_tables: bool,
    /// What becomes of row images that leave columns out.
    pub row_image: RowImage,
    /// What becomes of rows that change by a foreign key.
    pub cascades: Cascades,
    /// What becomes of statements that change tables.
    #[serde(skip_serializing_if = "DdlPolicies::is_default")]
    pub ddl: DdlPolicies,
    /// Beyond what the pipe is Degraded.
    pub objectives: ObjectivesConfig,
    /// What rows on their way may take of memory.
    pub memory_bytes: u64,
    /// Where transactions go that are larger; the system's folder for temporary files when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spill_dir: Option<PathBuf>,
}

/// The parts that `memory` is cut into: a transaction being read, the batch being filled, the one waiting, the one being
/// inserted, and the copies that transforming and encoding make of it.
const MEMORY_PARTS: u64 = 8;

impl PipeConfig {
    /// What one transaction's row events, or one batch, may take of memory.
    pub fn memory_part(&self) -> u64 {
        self.memory_bytes / MEMORY_PARTS
    }

    /// Whether the secrets that references of the document lead to are those of `other`: of both ends, and of plugins.
    pub fn has_secrets_of(&self, other: &Self) -> bool {
        let settings = |config: &TransformConfig| config.config.expose().clone();
        let ends = self.source == other.source && self.destination == other.destination;
        let plugins = self.transforms.values().map(settings);
        ends && plugins.eq(other.transforms.values().map(settings))
    }
}

/// Beyond what the pipe is Degraded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ObjectivesConfig {
    /// The longest that a commit may take until it is durable at the destination; none where nobody asks for that.
    pub lag: Option<Duration>,
    /// The shortest that the source may go on to hold what the pipe has yet to read; when absent 6 h, or a quarter of
    /// what the source keeps where that is less.
    pub retention_headroom: Option<Duration>,
}

/// What becomes of row images that leave columns out (`binlog_row_image` other than FULL).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowImage {
    /// Setup refuses a server that writes them, and the stream an event that leaves out a replicated column.
    Refuse,
    /// The rows are read from the source by key.
    Complete,
}

/// What becomes of rows that change by a foreign key, where no binlog has that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cascades {
    /// Setup warns of them.
    Warn,
    /// The table is loaded anew.
    Reload,
}

/// What is copied.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Load, then stream.
    #[default]
    Cdc,
    /// Load only.
    Snapshot,
    /// Stream only, from now on.
    CdcOnly,
}

/// The kind of source server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceType {
    /// MySQL 8.0 or later.
    Mysql,
    /// MariaDB 10.5 or later.
    Mariadb,
}

/// Where rows come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceConfig {
    /// Checked against the server.
    pub source_type: SourceType,
    /// Name or address; ignored with a socket.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Further servers with the same data, in the order in which they are tried.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostPort>,
    /// Account.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// Encryption of the connection.
    pub tls: TlsConfig,
    /// How places in the binlog are named.
    pub position: PositionMode,
    /// The replica identity; random when absent, and then stable for the pipe's life.
    pub server_id: Option<NonZeroU32>,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostPort {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl SourceConfig {
    /// The same settings for each server in the order in which they are tried.
    pub fn each_host(&self) -> impl Iterator<Item = SourceConfig> {
        let first = HostPort {
            host: self.host.clone(),
            port: self.port,
        };
        std::iter::once(first)
            .chain(self.hosts.iter().cloned())
            .map(|HostPort { host, port }| SourceConfig {
                host,
                port,
                ..self.clone()
            })
    }
}

/// Encryption of the source connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TlsConfig {
    /// How much is checked.
    pub mode: TlsMode,
    /// A PEM file of authorities; the public ones when absent.
    pub ca: Option<PathBuf>,
}

/// How much of the server's certificate is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TlsMode {
    /// Plain text.
    Disabled,
    /// Encrypted, certificate not checked.
    Required,
    /// Encrypted, the certificate's chain checked.
    VerifyCa,
    /// Encrypted, chain and host name checked.
    VerifyIdentity,
}

/// How places in the binlog are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PositionMode {
    /// GTID where the server has it, else file and offset.
    Auto,
    /// GTID, or Setup refuses.
    Gtid,
    /// File and offset.
    File,
}

/// Where rows go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DestinationConfig {
    /// `http://host:port` or `https://host:port`, without user information.
    pub url: String,
    /// The database that holds the target tables; created when absent.
    pub database: String,
    /// Account.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// What an answered insert promises.
    pub durability: Durability,
}

/// What an answered insert promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Rows are on disk: tables are created with `fsync_after_insert` and `fsync_part_directory`.
    Fsync,
    /// ClickHouse's own default: rows survive a crash of the process, not of the machine.
    Answered,
}

/// One entry of `tables`.
#[derive(Clone, Debug, Serialize)]
pub struct TableConfig {
    /// The source table, or a wildcard.
    pub source: TablePattern,
    /// The target table; the source table's name when absent.
    pub target: Option<String>,
    /// Columns that never leave the source.
    pub exclude_columns: Vec<String>,
    /// The target's sorting key; the source key when absent.
    pub order_by: Option<Vec<String>>,
    /// The target's PARTITION BY expression, over `order_by` columns only.
    pub partition_by: Option<String>,
    /// The target's engine.
    pub engine: Engine,
    /// What becomes of the table when it has no key; the pipe's choice where the entry has none.
    #[serde(skip_serializing_if = "Keyless::is_refuse")]
    pub keyless: Keyless,
    /// The column that cuts the load; the leading key columns when absent.
    pub split_by: Option<String>,
    /// ClickHouse types and policies chosen by hand, by column.
    pub columns: BTreeMap<String, ColumnConfig>,
    /// Names of `transforms`, applied in this order.
    pub transforms: Vec<String>,
}

/// Which source tables an entry means.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TablePattern {
    /// Database, `*` standing for any run of characters unless `literal`.
    pub database: String,
    /// Table, likewise.
    pub table: String,
    /// `{database, table}` form: `*` is a character of the name.
    pub literal: bool,
    /// What a wildcard passes over although it matches: `exclude`, which may change while the entry stays the same.
    #[serde(skip)]
    pub except: Vec<TablePattern>,
}

/// The target's engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// `ReplacingMergeTree` with versions and tombstones.
    Replacing,
    /// `MergeTree` with every change as a row of its own.
    Append,
}

/// What becomes of a table with neither a primary key nor a unique one without NULL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keyless {
    /// Setup refuses it, and a table that loses its key is taken out of service.
    #[default]
    Refuse,
    /// Its target is as of [`Engine::Append`]; its view tells rows apart by all of their columns, and counts equal ones.
    Append,
}

impl Keyless {
    fn is_refuse(&self) -> bool {
        *self == Keyless::Refuse
    }
}

/// One entry of `transforms`.
#[derive(Clone, Debug, Serialize)]
pub struct TransformConfig {
    /// The component's file, already relative to nothing.
    pub plugin: PathBuf,
    /// Handed to the plugin as JSON.
    pub config: PluginConfig,
    /// What a failing row does.
    pub on_error: OnError,
    /// What readers see of a row that failed and was passed over.
    pub on_rejected: OnRejected,
    /// What one call may use.
    pub limits: LimitsConfig,
    /// Files that the plugin may read, by the name under which it asks.
    pub lookups: BTreeMap<String, PathBuf>,
}

/// What a failing row does: one that the plugin rejects, and one on which it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// Its table is taken out of service with the row's reason.
    Fail,
    /// It goes to `_pipewright_dead_letters`, and the table goes on.
    DeadLetter,
    /// It is counted, and the table goes on.
    Skip,
}

/// What readers see of a row that failed and was passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnRejected {
    /// Nothing: the row that was there disappears.
    Hide,
    /// The row as it last passed.
    KeepOld,
}

/// What one plugin call may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsConfig {
    /// Bytes of the guest's memory.
    pub memory_bytes: u64,
    /// Wall time of one call.
    pub time: Duration,
    /// Bytes that one call may return.
    pub output_bytes: u64,
    /// Rows that one call may return.
    pub rows: u64,
    /// Bytes that one call may write to the log, 128 for each line among them.
    pub log_bytes: u64,
}

/// How the load is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SnapshotConfig {
    /// Readers of one table.
    pub threads_per_table: NonZeroU32,
    /// Tables loaded at once.
    pub tables_in_parallel: NonZeroU32,
    /// Rows of a partition, as far as estimates tell.
    pub rows_per_partition: NonZeroU32,
    /// Whether an append table may be locked for the moment that its load reads; MySQL alone needs it.
    pub allow_locks: bool,
}

/// When the stream flushes: at the first of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SyncConfig {
    /// Age of the oldest row that waits.
    pub interval: Duration,
    /// Rows waiting, over all tables.
    pub max_rows: u64,
    /// Bytes waiting, over all tables.
    pub max_bytes: u64,
}

/// The names of our own columns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SystemColumns {
    /// `_version UInt64`.
    pub version: String,
    /// `_is_deleted UInt8`.
    pub deleted: String,
    /// `_synced_at DateTime64(6)`.
    pub synced_at: String,
}
