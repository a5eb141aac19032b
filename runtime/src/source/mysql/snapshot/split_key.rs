//! Which columns cut a table: the leading ones of an index, as far as their types can be counted.

use mysql_async::Conn;

use super::super::catalog::{SourceColumn, SourceTable};
use super::super::sql::{quote_identifier, quote_string};
use super::super::{Flavor, ServerVersion, Source};
use super::answer::{query, value};
use super::key_space::{Alphabet, Network, Space};
use super::predicate::KeyColumn;
use crate::error::{Error, ErrorKind, Result};

/// An ENUM of more labels would make lists too long to be of use.
const MAX_LABELS: usize = 256;

/// What cuts: the leading columns of one index.
pub(super) struct SplitKey {
    pub(super) index: String,
    pub(super) columns: Vec<KeyColumn>,
    /// The name of the first column, and whether it takes NULL.
    pub(super) first: String,
    pub(super) nullable: bool,
}

/// The key that cuts `table`: the index that begins with `split_by`, or else the one of its key; none where no index
/// can cut it.
///
/// # Errors
/// Failures of the queries; `SourceMissing` when `split_by` is no column of the table.
pub(super) async fn choose_key(
    conn: &mut Conn,
    source: &Source,
    table: &SourceTable,
    split_by: Option<&str>,
) -> Result<Option<SplitKey>> {
    let key: Vec<&str> = table
        .schema
        .key
        .iter()
        .filter_map(|&index| table.schema.columns.get(index))
        .map(|column| column.name.as_str())
        .collect();
    let Some(leading) = split_by.or(key.first().copied()) else {
        return Ok(None);
    };
    if column(table, leading).is_none() {
        return Err(Error::new(
            ErrorKind::SourceMissing,
            format!("`split_by` names column `{leading}`, which the table does not have"),
        )
        .with_table(table.name())
        .with_hint("name an indexed column of the table in `split_by`, or leave it out"));
    }
    let indexes = indexes(conn, source, table, leading).await?;
    // The index that agrees with the key furthest; among those the primary one.
    let best = indexes.into_iter().max_by_key(|(name, columns)| {
        let agreeing = columns
            .iter()
            .zip(&key)
            .take_while(|(a, b)| same(a, b))
            .count();
        (agreeing, name == "PRIMARY", columns.len())
    });
    let Some((index, names)) = best else {
        if split_by.is_some() {
            tracing::warn!(table = %table.name(), column = leading, "no index begins with `split_by`: the table is read as one partition");
        }
        return Ok(None);
    };
    let mut columns = Vec::new();
    for (position, name) in names.iter().enumerate() {
        let Some(column) = column(table, name) else {
            break;
        };
        if position > 0 && column.nullable {
            break;
        }
        let Some(space) = space(conn, table, column).await? else {
            break;
        };
        columns.push(KeyColumn {
            name: quote_identifier(&column.name),
            space,
        });
    }
    let Some(first) = column(table, leading).filter(|_| !columns.is_empty()) else {
        return Ok(None);
    };
    Ok(Some(SplitKey {
        index,
        columns,
        first: first.name.clone(),
        nullable: first.nullable,
    }))
}

fn same(a: &str, b: &str) -> bool {
    a.to_lowercase() == b.to_lowercase()
}

fn column<'a>(table: &'a SourceTable, name: &str) -> Option<&'a SourceColumn> {
    table.columns.iter().find(|column| same(&column.name, name))
}

/// The ordered indexes that begin with `leading`, each with its columns up to the first that is a prefix (pitfall 120)
/// or an expression.
async fn indexes(
    conn: &mut Conn,
    source: &Source,
    table: &SourceTable,
    leading: &str,
) -> Result<Vec<(String, Vec<String>)>> {
    let usable = match source.flavor() {
        Flavor::MySql => " AND IS_VISIBLE = 'YES'",
        Flavor::MariaDb if source.version() >= ServerVersion(10, 6, 0) => " AND IGNORED = 'NO'",
        Flavor::MariaDb => "",
    };
    let sql = format!(
        "SELECT INDEX_NAME, COLUMN_NAME, SUB_PART FROM information_schema.STATISTICS \
         WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {} AND INDEX_TYPE = 'BTREE'{usable} \
         ORDER BY INDEX_NAME, SEQ_IN_INDEX",
        quote_string(&table.name().database),
        quote_string(&table.name().table)
    );
    let mut indexes: Vec<(String, Vec<String>, bool)> = Vec::new();
    for row in query(conn, &sql).await? {
        let [Some(index), column, prefix] = row.as_slice() else {
            continue;
        };
        let index = String::from_utf8_lossy(index).into_owned();
        if indexes.last().is_none_or(|(name, ..)| *name != index) {
            indexes.push((index, Vec::new(), true));
        }
        let Some((_, columns, open)) = indexes.last_mut() else {
            continue;
        };
        match (column, prefix) {
            (Some(column), None) if *open => {
                columns.push(String::from_utf8_lossy(column).into_owned());
            }
            _ => *open = false,
        }
    }
    Ok(indexes
        .into_iter()
        .filter(|(_, columns, _)| columns.first().is_some_and(|first| same(first, leading)))
        .map(|(name, columns, _)| (name, columns))
        .collect())
}

/// How a column's values are counted; none for a type that is not cut.
async fn space(
    conn: &mut Conn,
    table: &SourceTable,
    column: &SourceColumn,
) -> Result<Option<Space>> {
    let space = match column.data_type.as_str() {
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "year" => Space::Integer,
        "decimal" | "numeric" => {
            let whole = column
                .precision
                .unwrap_or(10)
                .saturating_sub(column.scale.unwrap_or(0));
            // 38 digits are what the arithmetic holds.
            let Some(room) = 38u8.checked_sub(whole) else {
                return Ok(None);
            };
            Space::Decimal {
                scale: u32::from(column.scale.unwrap_or(0).min(room)),
            }
        }
        "date" => Space::Date,
        "datetime" | "timestamp" => Space::DateTime,
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => {
            // The name goes into SQL as it is.
            let Some(charset) = column.charset.as_deref().filter(|name| word(name)) else {
                return Ok(None);
            };
            let collation = collation(conn, table, column).await?;
            let ranks = ranks(conn, charset, collation.as_deref()).await?;
            Space::Text(Alphabet::new(ranks, charset).of_collation(collation))
        }
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => Space::Bytes,
        "uuid" => Space::Network(Network::Uuid),
        "inet4" => Space::Network(Network::Inet4),
        "inet6" => Space::Network(Network::Inet6),
        "enum" if column.labels.len() <= MAX_LABELS => Space::Enum {
            labels: u32::try_from(column.labels.len()).unwrap_or(0),
        },
        _ => return Ok(None),
    };
    Ok(Some(space))
}

/// The column's collation; none where its name is no plain word.
async fn collation(
    conn: &mut Conn,
    table: &SourceTable,
    column: &SourceColumn,
) -> Result<Option<String>> {
    let sql = format!(
        "SELECT COLLATION_NAME FROM information_schema.COLUMNS \
         WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {} AND COLUMN_NAME = {}",
        quote_string(&table.name().database),
        quote_string(&table.name().table),
        quote_string(&column.name)
    );
    let name = value(query(conn, &sql).await?);
    Ok(name
        .and_then(|name| String::from_utf8(name).ok())
        .filter(|name| word(name)))
}

/// The ranks of printable ASCII in a collation; none where the server will not say.
async fn ranks(conn: &mut Conn, charset: &str, collation: Option<&str>) -> Result<Option<Vec<u8>>> {
    let Some(collation) = collation else {
        return Ok(None);
    };
    let characters: Vec<String> = (0x20u8..0x7f)
        .map(|byte| format!("SELECT x'{byte:02X}' AS c"))
        .collect();
    let sql = format!(
        "SELECT DENSE_RANK() OVER (ORDER BY CONVERT(CONVERT(c USING utf8mb4) USING {charset}) COLLATE {collation}) \
         FROM ({}) AS ascii ORDER BY HEX(c)",
        characters.join(" UNION ALL ")
    );
    let Ok(rows) = query(conn, &sql).await else {
        return Ok(None);
    };
    Ok(rows
        .into_iter()
        .map(|row| {
            String::from_utf8(row.into_iter().next()??)
                .ok()?
                .parse()
                .ok()
        })
        .collect())
}

fn word(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
