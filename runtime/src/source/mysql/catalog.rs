//! What the source says of its tables: every column with all that decoding its values takes.
//!
//! information_schema is asked for one database at a time, with the tables' names as a list: MariaDB opens each table
//! that it describes, and finds only those which the condition names without reading the whole server.

mod ask;
mod cells;
mod history;
mod keys;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use serde::{Deserialize, Serialize};

use self::ask::{each_database, folded, folds_case};
use self::cells::Cells;
pub use self::keys::UniqueKey;
use self::keys::{Collations, KeyPart, choose_key, load_keys};
use super::connection::query_error;
use super::date_rules::DateRule;
use super::labels::{complete_labels, parse_labels};
use super::sql::quote_table;
use super::types::{Geometry, column_type};
use super::{Flavor, Source};
use crate::batch::{Column, TableName, TableSchema};
use crate::error::{Error, ErrorKind, Result};

/// A table as the catalog describes it at one moment. Serialised into the state, since a binlog is read with the
/// definition that was true at its place, not with today's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceTable {
    /// The columns that leave the source, and the key among them.
    #[serde(with = "shared")]
    pub schema: Arc<TableSchema>,
    /// Every column in ordinal order, the order of row images; excluded and invisible ones too.
    pub columns: Vec<SourceColumn>,
    /// What the decoder makes of dates, by column, where it is not the default.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub date_rules: BTreeMap<String, DateRule>,
    /// Whether NULL stays NULL, by column, where the pipe file says so for the column itself.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub keeps_null: BTreeMap<String, bool>,
    /// Whether the schema's key is the primary key, and not another unique one.
    #[serde(default)]
    pub key_is_primary: bool,
    /// Whether the table's engine can roll back; none for one that is not known.
    #[serde(default)]
    pub transactional: Option<bool>,
    /// All unique keys, without their names; none where they are not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unique_keys: Vec<UniqueKey>,
}

/// One column, with what its decoder must know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceColumn {
    /// The source's name.
    pub name: String,
    /// The index in the schema's columns; none for an excluded column.
    pub included: Option<usize>,
    /// `DATA_TYPE` in lower case: `int`, `varchar`, `uuid` ...
    pub data_type: String,
    /// `COLUMN_TYPE` as the server prints it.
    pub column_type: String,
    /// UNSIGNED or ZEROFILL.
    pub unsigned: bool,
    /// NULL allowed.
    pub nullable: bool,
    /// The charset of a character column, in lower case; none for others.
    pub charset: Option<String>,
    /// How a character column's values compare; none for others, and in a record of an earlier build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collation: Option<String>,
    /// Characters or bytes declared: CHAR(n), BINARY(n), BIT(n).
    pub length: Option<u64>,
    /// All digits of a DECIMAL.
    pub precision: Option<u8>,
    /// Digits after the point of a DECIMAL, or of a time's fraction.
    pub scale: Option<u8>,
    /// The labels of an ENUM or SET in declared order, in UTF-8.
    pub labels: Vec<String>,
    /// Computed from other columns, stored or not.
    #[serde(default)]
    pub generated: bool,
    /// Says until when the row was true, in a system-versioned table; for ever in a row of the present.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub row_end: bool,
    /// How geometries are written; none where the column holds none.
    #[serde(default)]
    pub geometry: Option<Geometry>,
    /// What rows get that were there before the column was added.
    pub default: ColumnDefault,
}

/// A column's DEFAULT, as far as it can be told without asking the server for rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnDefault {
    /// None, or NULL.
    #[default]
    None,
    /// The same text for every row, unquoted.
    Literal(String),
    /// An expression, a generated column, or a literal in a form that is not plain text: each row may have its own.
    Computed,
    /// The next number (AUTO_INCREMENT).
    Counted,
    /// This one, and ON UPDATE: rows have another value that a tool has copied into the table that has the column.
    Touched(Box<ColumnDefault>),
}

impl ColumnDefault {
    /// From COLUMN_DEFAULT and EXTRA. MySQL prints a literal bare and marks expressions in EXTRA; MariaDB prints SQL:
    /// quotes around text, NULL spelled out.
    fn of(flavor: Flavor, text: Option<String>, extra: &str) -> Self {
        let extra = extra.to_ascii_uppercase();
        match extra.contains("ON UPDATE") {
            true => Self::Touched(Box::new(Self::at_first(flavor, text, &extra))),
            false => Self::at_first(flavor, text, &extra),
        }
    }

    /// What a row gets that says nothing of the column.
    fn at_first(flavor: Flavor, text: Option<String>, extra: &str) -> Self {
        if extra.contains("AUTO_INCREMENT") {
            return ColumnDefault::Counted;
        }
        if extra.contains("GENERATED") {
            return ColumnDefault::Computed;
        }
        let Some(text) = text else {
            return ColumnDefault::None;
        };
        // A question mark may stand for a character that information_schema cannot print.
        let plain = |text: &str| {
            !text.contains(['\\', '\'', '?']) && !text.starts_with("b'") && !text.starts_with("0x")
        };
        match flavor {
            Flavor::MySql if plain(&text) => ColumnDefault::Literal(text),
            Flavor::MariaDb if text == "NULL" => ColumnDefault::None,
            Flavor::MariaDb if text.parse::<f64>().is_ok() => ColumnDefault::Literal(text),
            Flavor::MariaDb => match text
                .strip_prefix('\'')
                .and_then(|rest| rest.strip_suffix('\''))
            {
                Some(inner) if plain(inner) => ColumnDefault::Literal(inner.to_owned()),
                _ => ColumnDefault::Computed,
            },
            Flavor::MySql => ColumnDefault::Computed,
        }
    }
}

impl SourceTable {
    /// The table's name.
    pub fn name(&self) -> &TableName {
        &self.schema.name
    }

    /// The ordinal of the column by which rows of the present are told from those of history; none where there are only
    /// the former.
    pub fn row_end(&self) -> Option<usize> {
        self.columns.iter().position(|column| column.row_end)
    }

    /// The ordinals of the key's columns, in the key's order.
    pub fn key_ordinals(&self) -> Vec<usize> {
        let ordinal_of = |index: &usize| {
            let mut columns = self.columns.iter();
            columns.position(|column| column.included == Some(*index))
        };
        self.schema.key.iter().filter_map(ordinal_of).collect()
    }
}

/// A shared schema is stored as a plain one.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T: Serialize, S: Serializer>(
        value: &Arc<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        T::serialize(value, serializer)
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<T>, D::Error> {
        T::deserialize(deserializer).map(Arc::new)
    }
}

/// A table as a wildcard meets it, and what the server guesses of its size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedTable {
    /// The table's name.
    pub name: TableName,
    /// `BASE TABLE`, or `SYSTEM VERSIONED` on MariaDB.
    pub table_type: String,
    /// The storage engine; none where the server cannot open the table.
    pub engine: Option<String>,
    /// Rows, as the server's statistics have it: often far off.
    pub row_estimate: Option<u64>,
}

impl ListedTable {
    /// Whether the table also holds what its rows once were.
    fn is_versioned(&self) -> bool {
        self.table_type == "SYSTEM VERSIONED"
    }
}

/// Databases of the server itself.
pub(super) const SYSTEM_DATABASES: &str =
    "'mysql', 'information_schema', 'performance_schema', 'sys'";

/// Every table that can be replicated: no views, sequences or temporary tables (pitfall 39), and none of the server's
/// own.
///
/// # Errors
/// As [`query_error`] says.
pub async fn list_tables(conn: &mut Conn) -> Result<Vec<ListedTable>> {
    let query = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE, TABLE_ROWS FROM information_schema.TABLES \
         WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') AND TABLE_SCHEMA NOT IN ({SYSTEM_DATABASES})"
    );
    let rows: Vec<Row> = conn.query(query).await.map_err(query_error)?;
    let mut tables = rows.into_iter().map(listed).collect::<Result<Vec<_>>>()?;
    tables.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(tables)
}

/// What [`list_tables`] says, of `tables` only, in their order.
///
/// # Errors
/// `SourceMissing` for a table that does not exist, `Unsupported` for a view or sequence, and as [`query_error`] says.
pub async fn describe_tables(conn: &mut Conn, tables: &[TableName]) -> Result<Vec<ListedTable>> {
    describe_each(conn, tables).await?.into_iter().collect()
}

async fn describe_each(conn: &mut Conn, tables: &[TableName]) -> Result<Vec<Result<ListedTable>>> {
    let fold = folds_case(conn).await?;
    let mut found = HashMap::new();
    let query = "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE, TABLE_ROWS FROM information_schema.TABLES";
    for row in each_database(conn, query, "", tables).await? {
        let table = listed(row)?;
        found.insert(folded(&table.name, fold), table);
    }
    let describe = |name: &TableName| {
        let table: &ListedTable = found
            .get(&folded(name, fold))
            .ok_or_else(|| missing(name))?;
        match table.table_type.as_str() {
            "BASE TABLE" | "SYSTEM VERSIONED" => Ok(table.clone()),
            other => Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "it is a {}, which has no rows of its own",
                    other.to_lowercase()
                ),
            )
            .with_table(name)
            .with_hint("take it out of `tables`, and name the tables behind it")),
        }
    };
    Ok(tables.iter().map(describe).collect())
}

/// Whether the source shows something under that name.
///
/// # Errors
/// As [`query_error`] says.
pub async fn exists(conn: &mut Conn, table: &TableName) -> Result<bool> {
    match describe_tables(conn, std::slice::from_ref(table)).await {
        Err(error) if error.kind() == ErrorKind::SourceMissing => Ok(false),
        Err(error) if error.kind() != ErrorKind::Unsupported => Err(error),
        Ok(_) | Err(_) => Ok(true),
    }
}

/// The definitions of `tables` in their order. `exclude` gives the columns of a table that never leave the source.
///
/// # Errors
/// `SourceMissing` for a table or excluded column that does not exist, `Unsupported` for a table or an included column
/// that cannot be replicated exactly, `Config` for an excluded key column, and as [`query_error`] says.
pub async fn load_tables(
    conn: &mut Conn,
    source: &Source,
    tables: &[TableName],
    exclude: impl Fn(&TableName) -> Vec<String>,
) -> Result<Vec<SourceTable>> {
    let each = load_each(conn, source, tables, exclude).await?;
    each.into_iter().collect()
}

/// The same, with what stands against each table alone in its place.
///
/// # Errors
/// As [`query_error`] says.
pub async fn load_each(
    conn: &mut Conn,
    source: &Source,
    tables: &[TableName],
    exclude: impl Fn(&TableName) -> Vec<String>,
) -> Result<Vec<Result<SourceTable>>> {
    let flavor = source.flavor();
    let described = describe_each(conn, tables).await?;
    let listed: Vec<ListedTable> = described.iter().flatten().cloned().collect();
    let names: Vec<TableName> = listed.iter().map(|table| table.name.clone()).collect();
    let (mut columns, collations) = load_columns(conn, flavor, &names).await?;
    complete_labels(conn, flavor, &mut columns).await?;
    let mut parts = Parts {
        flavor,
        columns,
        collations,
        keys: load_keys(conn, &names).await?,
        periods: history::declared(conn, &listed).await?,
    };
    let build = |table: Result<ListedTable>| {
        let table = table?;
        let excluded = exclude(&table.name);
        parts.build(&table, &excluded)
    };
    Ok(described.into_iter().map(build).collect())
}

/// What the catalog has said of several tables.
struct Parts {
    flavor: Flavor,
    columns: HashMap<TableName, Vec<SourceColumn>>,
    collations: HashMap<TableName, Collations>,
    keys: HashMap<TableName, Vec<KeyPart>>,
    periods: HashMap<TableName, history::Period>,
}

impl Parts {
    /// Takes what belongs to one table.
    fn build(&mut self, table: &ListedTable, excluded: &[String]) -> Result<SourceTable> {
        let name = &table.name;
        // A table that was dropped since it was listed.
        let mut described = self.columns.remove(name).ok_or_else(|| missing(name))?;
        let mut parts = self.keys.remove(name).unwrap_or_default();
        let mut unlisted = Vec::new();
        if table.is_versioned() {
            let declared = self.periods.get(name).map_or(&[][..], Vec::as_slice);
            unlisted = history::prepare(declared, &mut described, &mut parts);
            history::ensure_logged(&described).map_err(|error| error.with_table(name))?;
        }
        // MariaDB keeps the hash of a unique TEXT or BLOB in a column that row images hold and no catalog lists.
        if self.flavor == Flavor::MariaDb
            && table.engine.as_deref() != Some("MEMORY")
            && let Some(part) = parts.iter().find(|part| part.hash)
        {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("its unique index `{}` is too long for a plain one, so its row images hold a hidden column", part.index),
            )
            .with_table(name)
            .with_hint(format!("drop the index `{}`, or make it one over a prefix of the column", part.index)));
        }
        let mut built = build_table(name, described, &parts, excluded)?;
        built.columns.extend(unlisted);
        // Its binlog has rows that it has not.
        if table.engine.as_deref() == Some("BLACKHOLE") {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "its engine BLACKHOLE keeps none of the rows that the binlog has of it",
            )
            .with_table(name)
            .with_hint(format!(
                "ALTER TABLE {} ENGINE = InnoDB, and resync the table; or take it out of `tables`",
                quote_table(name)
            )));
        }
        built.transactional = table.engine.as_deref().and_then(rolls_back);
        built.unique_keys = keys::of_rows(&parts, self.collations.get(name));
        Ok(built)
    }
}

const COLUMNS: &str = "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, IS_NULLABLE, \
     CHARACTER_SET_NAME, CHARACTER_MAXIMUM_LENGTH, NUMERIC_PRECISION, NUMERIC_SCALE, DATETIME_PRECISION, \
     COLUMN_DEFAULT, EXTRA, COLLATION_NAME \
     FROM information_schema.COLUMNS";

async fn load_columns(
    conn: &mut Conn,
    flavor: Flavor,
    tables: &[TableName],
) -> Result<(
    HashMap<TableName, Vec<SourceColumn>>,
    HashMap<TableName, Collations>,
)> {
    let mut columns: HashMap<TableName, Vec<SourceColumn>> = HashMap::new();
    let mut collations: HashMap<TableName, Collations> = HashMap::new();
    let order = "ORDER BY TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION";
    for row in each_database(conn, COLUMNS, order, tables).await? {
        let (name, column) = source_column(flavor, row)?;
        if let Some(collation) = &column.collation {
            let of_table = collations.entry(name.clone()).or_default();
            of_table.insert(column.name.clone(), collation.clone());
        }
        columns.entry(name).or_default().push(column);
    }
    Ok((columns, collations))
}

fn source_column(flavor: Flavor, row: Row) -> Result<(TableName, SourceColumn)> {
    let mut cells = Cells::of(row);
    let table = TableName::new(cells.text()?, cells.text()?);
    let name = cells.text()?;
    let data_type = cells.text()?.to_ascii_lowercase();
    let column_type = cells.text()?;
    let nullable = cells.text()? == "YES";
    let charset = cells.maybe_text()?.map(|name| name.to_ascii_lowercase());
    let characters = cells.maybe_number()?;
    let digits = cells.maybe_number()?;
    let scale = cells.maybe_number()?;
    let time_digits = cells.maybe_number()?;
    let default = cells.maybe_text()?;
    let extra = cells.text()?;
    let collation = cells.maybe_text()?;
    // MySQL's `DEFAULT_GENERATED` is another thing.
    let generated = ["STORED GENERATED", "VIRTUAL GENERATED"]
        .iter()
        .any(|mark| extra.contains(mark));
    let default = ColumnDefault::of(flavor, default, &extra);
    let labelled = matches!(data_type.as_str(), "enum" | "set");
    let labels = if labelled {
        parse_labels(&column_type).unwrap_or_default()
    } else {
        vec![]
    };
    // ZEROFILL is unsigned even where the word is missing (pitfall 10).
    let unsigned =
        !labelled && (column_type.contains("unsigned") || column_type.contains("zerofill"));
    let small = |number: Option<u64>| number.and_then(|number| u8::try_from(number).ok());
    let column = SourceColumn {
        name,
        included: None,
        unsigned,
        nullable,
        charset,
        collation,
        length: if data_type == "bit" {
            digits
        } else {
            characters
        },
        precision: small(digits),
        scale: small(time_digits.or(scale)),
        labels,
        generated,
        row_end: false,
        geometry: Geometry::of(flavor, &data_type),
        default,
        data_type,
        column_type,
    };
    Ok((table, column))
}

/// The table of `columns`, in ordinal order, without those of `excluded`.
fn build_table(
    name: &TableName,
    mut columns: Vec<SourceColumn>,
    keys: &[KeyPart],
    excluded: &[String],
) -> Result<SourceTable> {
    // Column names ignore case, on every server and platform.
    let same = |one: &str, other: &str| one.to_lowercase() == other.to_lowercase();
    if let Some(unknown) = excluded
        .iter()
        .find(|wanted| !columns.iter().any(|column| same(&column.name, wanted)))
    {
        return Err(Error::new(
            ErrorKind::SourceMissing,
            format!("there is no column `{unknown}`, which `exclude_columns` names"),
        )
        .with_table(name)
        .with_hint("take it out of `exclude_columns`"));
    }
    let mut schema = Vec::with_capacity(columns.len());
    for column in &mut columns {
        if excluded.iter().any(|wanted| same(&column.name, wanted)) {
            continue;
        }
        column.included = Some(schema.len());
        schema.push(Column {
            name: column.name.clone(),
            column_type: column_type(column).map_err(|error| error.with_table(name))?,
            nullable: column.nullable,
            source_type: column.column_type.clone(),
        });
    }
    let mut key = vec![];
    for part in choose_key(&columns, keys) {
        let column = columns.iter().find(|column| same(&column.name, part));
        key.push(column.and_then(|column| column.included).ok_or_else(|| {
            Error::new(
                ErrorKind::Config,
                format!("column `{part}` is excluded, and belongs to the table's key"),
            )
            .with_table(name)
            .with_hint("take it out of `exclude_columns`")
        })?);
    }
    Ok(SourceTable {
        schema: Arc::new(TableSchema {
            name: name.clone(),
            columns: schema,
            key,
        }),
        columns,
        date_rules: BTreeMap::new(),
        keeps_null: BTreeMap::new(),
        key_is_primary: keys.iter().any(|part| part.index == "PRIMARY"),
        transactional: None,
        unique_keys: Vec::new(),
    })
}

/// Whether an engine rolls its rows back; none for one that nobody here has heard of.
fn rolls_back(engine: &str) -> Option<bool> {
    match engine.to_ascii_uppercase().as_str() {
        "INNODB" | "ROCKSDB" | "TOKUDB" | "NDBCLUSTER" | "NDB" => Some(true),
        // Aria survives a crash, and rolls nothing back.
        "MYISAM" | "MEMORY" | "ARIA" | "ARCHIVE" | "CSV" | "BLACKHOLE" | "MRG_MYISAM" => {
            Some(false)
        }
        _ => None,
    }
}

fn listed(row: Row) -> Result<ListedTable> {
    let mut cells = Cells::of(row);
    Ok(ListedTable {
        name: TableName::new(cells.text()?, cells.text()?),
        table_type: cells.text()?,
        engine: cells.maybe_text()?,
        row_estimate: cells.maybe_number()?,
    })
}

fn missing(name: &TableName) -> Error {
    Error::new(
        ErrorKind::SourceMissing,
        "it does not exist, or the user has no right to see it",
    )
    .with_table(name)
    .with_hint(format!(
        "check the name, with its case; or GRANT SELECT ON `{}`.*",
        name.database
    ))
}

#[cfg(test)]
#[path = "catalog_tests.rs"]
mod tests;
