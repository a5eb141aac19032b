//! The pipe file as it may be written, for its JSON Schema: an editor that knows the schema completes keys and shows
//! these very comments.
//!
//! The types are never filled. A test holds their keys to those that reading knows, in both directions.
#![expect(dead_code, reason = "the fields exist for the derived schema alone")]

mod ddl;
mod plugins;
mod table;

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use self::table::{Engine, Keyless, TableSource};
use super::values::{show_duration, show_size};
use super::{ends, read};

/// The JSON Schema of one document of a pipe file, for `pipewright schema`.
pub fn json_schema() -> serde_json::Value {
    schemars::schema_for!(PipeFile).to_value()
}

/// The same among other schemas, for the description of the REST interface.
pub fn pipe_file_schema(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<PipeFile>()
}

/// The schema of the section `source` alone.
pub fn source_schema(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<Source>()
}

/// One pipe: tables of a MySQL or MariaDB server, copied into ClickHouse and kept in step.
///
/// Any string may hold `${NAME}` or `${NAME:-default}` (environment), `${file:path}` (a mounted secret), and `$$` for a
/// dollar. Paths are relative to the file.
#[derive(JsonSchema)]
#[schemars(title = "Pipewright pipe file", deny_unknown_fields)]
struct PipeFile {
    /// The version of this format.
    #[schemars(extend("const" = 1))]
    version: u32,
    /// The pipe's name: letters, digits, `_` and `-`. It identifies the pipe's state, so it stays for the pipe's life.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_-]{1,64}$"))]
    pipe: String,
    /// What is copied.
    #[schemars(extend("default" = "cdc"))]
    mode: Option<Mode>,
    /// Where rows come from.
    source: Source,
    /// Where rows go.
    destination: Destination,
    /// The tables to copy.
    #[schemars(length(min = 1))]
    tables: Vec<Table>,
    /// Tables, written as in `tables`, that no wildcard of `tables` means. An entry of `tables` that names a table beats a
    /// wildcard here. A table that has left the pipe by this list comes back when it is listed no more.
    exclude: Option<Vec<TableSource>>,
    /// WebAssembly plugins that change rows on their way, by the names that `tables[].transforms` use.
    transforms: Option<BTreeMap<String, plugins::Transform>>,
    /// How the load is cut.
    snapshot: Option<Snapshot>,
    /// When the stream is flushed: at the first of the three.
    sync: Option<Sync>,
    /// The names of the columns that the runtime adds to every table.
    system_columns: Option<SystemColumns>,
    /// Whether NULL stays NULL. When false, columns are not Nullable and NULL becomes the type's default.
    #[schemars(schema_with = "boolean", extend("default" = true))]
    nullable: Option<bool>,
    /// What becomes of values that have no equal in ClickHouse, and in which form others arrive; each key also stands
    /// below `tables[].columns`, where it wins.
    types: Option<Types>,
    /// Whether a table that is created or renamed later, and matches a wildcard of `tables`, joins the pipe by itself. It is
    /// loaded like every other; the source is asked every ten seconds.
    #[schemars(schema_with = "boolean", extend("default" = false))]
    follow_new_tables: Option<bool>,
    /// What becomes of row images that leave columns out (binlog_row_image MINIMAL or NOBLOB).
    #[schemars(extend("default" = "refuse"))]
    row_image: Option<RowImage>,
    /// What becomes of rows that change by a foreign key (ON DELETE or ON UPDATE CASCADE, SET NULL), which MariaDB,
    /// MySQL before 9.6 and a later one in sessions that were reset write to no binlog.
    #[schemars(extend("default" = "warn"))]
    cascades: Option<Cascades>,
    /// What becomes of tables with neither a primary key nor a unique one without NULL.
    #[schemars(extend("default" = "refuse"))]
    keyless: Option<Keyless>,
    /// What becomes of statements that change tables.
    ddl: Option<ddl::Ddl>,
    /// Beyond what the pipe is Degraded, until it is well within again.
    objectives: Option<Objectives>,
    /// What rows on their way may take of memory: an eighth is the most that a batch takes, or a transaction's row events
    /// before the rest of them goes to disk.
    #[schemars(schema_with = "size", extend("default" = show_size(read::MEMORY_BYTES)))]
    memory: Option<String>,
    /// The folder for transactions that are larger; the system's folder for temporary files when absent.
    spill_dir: Option<String>,
}

/// What becomes of rows that change by a foreign key.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Cascades {
    /// Setup warns of such foreign keys.
    Warn,
    /// After a change of the table that is referred to, where that is in the pipe too, the referring table is loaded anew
    /// beside the live one.
    Reload,
}

/// Beyond what the pipe is Degraded.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Objectives {
    /// The longest that a commit at the source may take until it is durable at the destination. When absent: any.
    #[schemars(schema_with = "duration")]
    lag: Option<String>,
    /// The shortest that the source may go on to hold what the pipe has yet to read; watched while the pipe is paused
    /// too. When absent: 6h, or a quarter of what the source keeps where that is less.
    #[schemars(schema_with = "duration")]
    retention_headroom: Option<String>,
}

/// What becomes of row images that leave columns out.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum RowImage {
    /// They are refused: binlog_row_image must be FULL.
    Refuse,
    /// The rows are read from the source by key, one SELECT for the rows of a table and flush.
    Complete,
}

/// What is copied.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Mode {
    /// Load every row, then follow the binlog.
    Cdc,
    /// Load every row, then end.
    Snapshot,
    /// Follow the binlog from now on, without a load.
    CdcOnly,
}

/// Where rows come from.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Source {
    /// The kind of server; checked against the server itself.
    #[schemars(rename = "type")]
    source_type: SourceType,
    /// Name or address.
    host: String,
    /// TCP port.
    #[schemars(schema_with = "port", extend("default" = ends::SOURCE_PORT))]
    port: Option<u16>,
    /// Further servers with the same data, as `name` or `name:port`. When a connection is opened, the first that can be
    /// written to is taken, and where there is none the first that answers; the place in the binlog is carried over by
    /// GTIDs.
    hosts: Option<Vec<String>>,
    /// The account; it needs SELECT on the tables, REPLICATION SLAVE and REPLICATION CLIENT.
    user: String,
    /// Its password; best as `${NAME}` or `${file:path}`.
    password: Option<String>,
    /// Encryption. When absent: verify_identity, but none on loopback.
    tls: Option<Tls>,
    /// How places in the binlog are named.
    #[schemars(extend("default" = "auto"))]
    position: Option<Position>,
    /// The identity as a replica, unlike that of every other replica of the source. When absent: random at first,
    /// then kept for as long as no other replica takes it.
    #[schemars(schema_with = "positive")]
    server_id: Option<u32>,
}

/// The kind of server.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum SourceType {
    /// MySQL 8.0 or later.
    Mysql,
    /// MariaDB 10.5 or later.
    Mariadb,
}

/// Encryption of the source connection.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Tls {
    /// How much of the server's certificate is checked.
    #[schemars(extend("default" = "verify_identity"))]
    mode: Option<TlsMode>,
    /// A PEM file of certificate authorities; the public ones when absent.
    ca: Option<String>,
}

/// How much of the server's certificate is checked.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum TlsMode {
    /// Plain text.
    Disabled,
    /// Encrypted, the certificate not checked.
    Required,
    /// Encrypted, the certificate's chain checked.
    VerifyCa,
    /// Encrypted, chain and host name checked.
    VerifyIdentity,
}

/// How places in the binlog are named.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Position {
    /// GTID where the server has it, else file and offset.
    Auto,
    /// GTID, which survives a change of the primary.
    Gtid,
    /// File and offset, which mean something on one server only.
    File,
}

/// Where rows go.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Destination {
    /// ClickHouse's HTTP address; https:// for TLS. Without account: `user` and `password` are keys of their own.
    url: String,
    /// The database of the target tables; created when absent.
    #[schemars(extend("default" = ends::CLICKHOUSE_DEFAULT))]
    database: Option<String>,
    /// The account.
    #[schemars(extend("default" = ends::CLICKHOUSE_DEFAULT))]
    user: Option<String>,
    /// Its password; best as `${NAME}` or `${file:path}`.
    password: Option<String>,
    /// What an answered insert promises.
    #[schemars(extend("default" = "fsync"))]
    durability: Option<Durability>,
}

/// What an answered insert promises.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Durability {
    /// The rows are on disk: tables are created with fsync_after_insert and fsync_part_directory.
    Fsync,
    /// ClickHouse's own default: the rows survive a crash of the process, not of the machine.
    Answered,
}

/// One table, or a wildcard that means several.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Table {
    /// `database.table`; `*` stands for any run of characters. An exact entry beats a wildcard.
    source: TableSource,
    /// The target table's name; the source table's when absent.
    target: Option<String>,
    /// Columns that never leave the source.
    #[schemars(extend("uniqueItems" = true))]
    exclude_columns: Option<Vec<String>>,
    /// The sorting key; the primary key when absent. It must contain every column of the source's key.
    #[schemars(length(min = 1), extend("uniqueItems" = true))]
    order_by: Option<Vec<String>>,
    /// A ClickHouse PARTITION BY expression; with `engine: replacing` over columns of `order_by` only, since versions never
    /// merge across partitions.
    partition_by: Option<String>,
    /// The engine.
    #[schemars(extend("default" = "replacing"))]
    engine: Option<Engine>,
    /// What becomes of the table when it has no key; the pipe's `keyless` when absent.
    keyless: Option<Keyless>,
    /// The column that cuts the load into partitions; the leading columns of the key when absent.
    split_by: Option<String>,
    /// ClickHouse types and policies chosen by hand, by column.
    columns: Option<BTreeMap<String, ColumnChoice>>,
    /// The names of `transforms` that rows pass through, in this order.
    #[schemars(extend("uniqueItems" = true))]
    transforms: Option<Vec<String>>,
}

/// What becomes of values that have no equal in ClickHouse, and in which form others arrive.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Types {
    /// Zero and partial dates, and days that no month has. Every such value is counted. They act before plugins.
    #[schemars(schema_with = "zero_dates")]
    zero_dates: Option<()>,
    /// DATE outside of 1900 to 2299, which Date32 does not hold; every such value is counted. `string` concerns DATETIME
    /// too, and acts before plugins, the others after them.
    #[schemars(schema_with = "date_range")]
    date_range: Option<()>,
    /// TINYINT(1), after plugins.
    #[schemars(extend("default" = "int8"))]
    tinyint1: Option<Tinyint1>,
    /// ENUM, after plugins.
    #[schemars(rename = "enum", extend("default" = "label"))]
    enum_form: Option<EnumForm>,
    /// SET, after plugins.
    #[schemars(rename = "set", extend("default" = "string"))]
    set_form: Option<SetForm>,
    /// BINARY, VARBINARY and BLOB, after plugins.
    #[schemars(rename = "binary", extend("default" = "raw"))]
    binary_form: Option<BinaryForm>,
    /// JSON, after plugins. MariaDB's is a LONGTEXT, for which its column has to say so.
    #[schemars(rename = "json", extend("default" = "string"))]
    json_form: Option<JsonForm>,
    /// DECIMAL, after plugins.
    #[schemars(rename = "decimal", extend("default" = "decimal"))]
    decimal_form: Option<DecimalForm>,
    /// The geometry types, before plugins.
    #[schemars(rename = "geometry", extend("default" = "wkt"))]
    geometry_form: Option<GeometryForm>,
}

/// What was chosen for a column: the keys of [`Types`], and its type.
struct ColumnChoice;

impl JsonSchema for ColumnChoice {
    fn schema_name() -> Cow<'static, str> {
        "ColumnChoice".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = Types::json_schema(generator);
        schema.insert(
            "description".to_owned(),
            "What was chosen for a column: its type, or policies, which win over the pipe's."
                .into(),
        );
        schema.insert("minProperties".to_owned(), 1.into());
        let column_type = json_schema!({
            "description": "The ClickHouse type, such as `LowCardinality(String)`; every value of the column must fit.",
            "type": ["string", "null"],
        });
        let mut nullable = boolean(generator);
        nullable.insert(
            "description".to_owned(),
            "Whether NULL stays NULL; else it becomes the type's default, which is counted. The pipe's `nullable` when absent."
                .into(),
        );
        if let Some(keys) = schema
            .get_mut("properties")
            .and_then(|keys| keys.as_object_mut())
        {
            keys.insert("type".to_owned(), column_type.to_value());
            keys.insert("nullable".to_owned(), nullable.to_value());
        }
        schema
    }
}

/// How the geometry types arrive.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum GeometryForm {
    /// String, the text that the source prints, coordinates in stored order.
    Wkt,
    /// String, `SRID=4326;` and the text.
    Ewkt,
    /// String, well-known binary without the SRID.
    Wkb,
}

/// How TINYINT(1) arrives.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Tinyint1 {
    /// As the number that it is.
    Int8,
    /// As Bool; every number but 0 is true, and those other than 0 and 1 are counted.
    Bool,
}

/// How ENUM arrives.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum EnumForm {
    /// LowCardinality(String), the label.
    Label,
    /// Enum16 with the declared labels and numbers, and '' for 0.
    Enum16,
    /// UInt16, the label's number, and 0 for ''; refused where an empty label is declared, which reads the same.
    Integer,
}

/// How SET arrives.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum SetForm {
    /// String, the labels joined by commas.
    String,
    /// Array(String); NULL becomes the empty array and is counted, since no array can be NULL. Refused where an empty
    /// label is declared: a set of it alone reads like the empty set.
    Array,
}

/// How BINARY, VARBINARY and BLOB arrive.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum BinaryForm {
    /// String, the bytes.
    Raw,
    /// String, two upper-case hexadecimal digits a byte.
    Hex,
    /// String, Base64 with padding and without line ends.
    Base64,
}

/// How JSON arrives.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum JsonForm {
    /// String, the server's own text.
    String,
    /// ClickHouse's JSON. What is no object becomes the member `value` of one and is counted.
    Json,
}

/// How DECIMAL arrives.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum DecimalForm {
    /// Decimal of the same digits.
    Decimal,
    /// String, with all digits of the fraction.
    String,
}

/// How the load is cut.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Snapshot {
    /// Readers of one table.
    #[schemars(schema_with = "positive", extend("default" = read::THREADS_PER_TABLE))]
    threads_per_table: Option<u32>,
    /// Tables loaded at once.
    #[schemars(schema_with = "positive", extend("default" = read::TABLES_IN_PARALLEL))]
    tables_in_parallel: Option<u32>,
    /// Rows of a partition, as far as estimates tell; a partition is what a crash reads again.
    #[schemars(schema_with = "positive", extend("default" = read::ROWS_PER_PARTITION))]
    rows_per_partition: Option<u32>,
    /// Whether an append table of MySQL may be locked for the moment in which its load begins; otherwise the binlog
    /// tells what has changed while it began, which takes a key and whole row images. MariaDB needs no lock.
    #[schemars(schema_with = "boolean", extend("default" = read::ALLOW_LOCKS))]
    allow_locks: Option<bool>,
}

/// When the stream is flushed: at the first of the three.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Sync {
    /// The age of the oldest row that waits, such as `200ms` or `1s`.
    #[schemars(schema_with = "duration", extend("default" = show_duration(read::SYNC_INTERVAL)))]
    interval: Option<String>,
    /// Rows that wait, over all tables.
    #[schemars(schema_with = "positive", extend("default" = read::SYNC_MAX_ROWS))]
    max_rows: Option<u64>,
    /// Bytes that wait, over all tables, such as `64MiB`.
    #[schemars(schema_with = "size", extend("default" = show_size(read::SYNC_MAX_BYTES)))]
    max_bytes: Option<String>,
}

/// The names of the columns that the runtime adds to every table.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct SystemColumns {
    /// UInt64; the row with the highest wins.
    #[schemars(extend("default" = read::SYSTEM_COLUMNS[0]))]
    version: Option<String>,
    /// UInt8; 1 on the tombstone of a deleted row.
    #[schemars(extend("default" = read::SYSTEM_COLUMNS[1]))]
    deleted: Option<String>,
    /// When ClickHouse took the row.
    #[schemars(extend("default" = read::SYSTEM_COLUMNS[2]))]
    synced_at: Option<String>,
}

/// A string that `${...}` turns into the value.
const REFERENCE: &str = r"\$\{.+\}";

fn port(_: &mut SchemaGenerator) -> Schema {
    number(u64::from(u16::MAX))
}

fn positive(_: &mut SchemaGenerator) -> Schema {
    number(u64::from(u32::MAX))
}

fn number(maximum: u64) -> Schema {
    json_schema!({ "anyOf": [
        { "type": "integer", "minimum": 1, "maximum": maximum },
        { "type": "string", "pattern": REFERENCE },
    ]})
}

fn boolean(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "anyOf": [{ "type": "boolean" }, { "type": "string", "pattern": REFERENCE }]})
}

fn zero_dates(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "default": null, "anyOf": [
        { "const": "null", "description": "NULL, or 1970-01-01 where the column takes no NULL." },
        { "type": "null", "description": "The same." },
        { "const": "epoch", "description": "1970-01-01." },
        { "const": "clamp", "description": "A zero month or day becomes 01, an impossible day its month's last, the zero date \
            1900-01-01; the time of day is kept." },
    ]})
}

fn date_range(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "default": "clamp", "anyOf": [
        { "const": "clamp", "description": "1900-01-01 or 2299-12-31." },
        { "const": "null", "description": "NULL, or 1970-01-01 where the column takes no NULL." },
        { "type": "null", "description": "The same as `null`." },
        { "const": "string", "description": "The column is a String with the source's text of every value." },
    ]})
}

fn duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": format!(r"^[0-9]+ ?(ms|s|m|h)$|{REFERENCE}") })
}

fn size(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": format!(r"^[0-9]+ ?(B|KiB|MiB|GiB)$|{REFERENCE}") })
}
