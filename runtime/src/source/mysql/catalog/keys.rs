//! Unique keys: which one tells rows apart, and whether a table keeps more rows out than another.

use std::collections::HashMap;

use mysql_async::Conn;
use serde::{Deserialize, Serialize};

use super::ask::each_database;
use super::cells::Cells;
use super::{SourceColumn, SourceTable};
use crate::batch::TableName;
use crate::error::Result;

/// The collations of a table's columns that have one, by name.
pub(super) type Collations = HashMap<String, String>;

/// A unique key, by its columns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UniqueKey(Vec<UniquePart>);

/// What is compared of one column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct UniquePart {
    /// None for an expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    column: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prefix: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    collation: Option<String>,
}

impl UniqueKey {
    /// A key of one column, for tests.
    #[cfg(test)]
    pub(crate) fn sample(column: &str) -> Self {
        Self(vec![UniquePart {
            column: Some(column.to_owned()),
            prefix: None,
            collation: None,
        }])
    }

    /// Whether rows that this key lets in differ in `other` too.
    fn implies(&self, other: &Self) -> bool {
        let has = |part: &UniquePart| part.column.is_some() && other.0.contains(part);
        !self.0.is_empty() && self.0.iter().all(has)
    }
}

impl SourceTable {
    /// The columns of a unique key that rows of `before` need not differ in, in words.
    pub fn key_beyond(&self, before: &SourceTable) -> Option<String> {
        let known = |key: &&UniqueKey| before.unique_keys.iter().any(|old| old.implies(key));
        let key = self.unique_keys.iter().find(|key| !known(key))?;
        let names = key.0.iter().map(|part| match &part.column {
            Some(column) => format!("`{column}`"),
            None => "an expression".to_owned(),
        });
        Some(names.collect::<Vec<_>>().join(", "))
    }
}

/// The unique keys of the parts, in an order that their names do not tell.
pub(super) fn of_rows(parts: &[KeyPart], collations: Option<&Collations>) -> Vec<UniqueKey> {
    let mut keys: Vec<(&str, UniqueKey)> = Vec::new();
    for part in parts {
        let collation = part
            .column
            .as_ref()
            .and_then(|column| collations?.get(column));
        let unique = UniquePart {
            column: part.column.clone(),
            prefix: part.prefix,
            collation: collation.cloned(),
        };
        match keys.last_mut() {
            Some((index, key)) if *index == part.index => key.0.push(unique),
            _ => keys.push((&part.index, UniqueKey(vec![unique]))),
        }
    }
    let mut keys: Vec<UniqueKey> = keys.into_iter().map(|(_, key)| key).collect();
    let names = |key: &UniqueKey| -> Vec<(Option<String>, Option<u64>)> {
        let parts = key.0.iter();
        parts
            .map(|part| (part.column.clone(), part.prefix))
            .collect()
    };
    keys.sort_by_key(names);
    keys
}

/// One column of a unique index.
pub(super) struct KeyPart {
    pub(super) index: String,
    /// None where the index is on an expression.
    pub(super) column: Option<String>,
    /// How much of the column is in it, where that is not the whole.
    pub(super) prefix: Option<u64>,
    /// Of the kind HASH.
    pub(super) hash: bool,
}

/// The columns of all unique indexes, by index name and then in the index's order.
pub(super) async fn load_keys(
    conn: &mut Conn,
    tables: &[TableName],
) -> Result<HashMap<TableName, Vec<KeyPart>>> {
    let mut keys: HashMap<TableName, Vec<KeyPart>> = HashMap::new();
    let query = "SELECT TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, COLUMN_NAME, SUB_PART, INDEX_TYPE \
         FROM information_schema.STATISTICS";
    let order = "AND NON_UNIQUE = 0 ORDER BY TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX";
    for row in each_database(conn, query, order, tables).await? {
        let mut cells = Cells::of(row);
        let table = TableName::new(cells.text()?, cells.text()?);
        keys.entry(table).or_default().push(KeyPart {
            index: cells.text()?,
            column: cells.maybe_text()?,
            prefix: cells.maybe_number()?,
            hash: cells.maybe_text()?.as_deref() == Some("HASH"),
        });
    }
    Ok(keys)
}

/// The columns of the primary key, or else of the first unique index, by name, whose columns are all NOT NULL and whole.
/// A prefix in the primary key does not matter: what is unique by its front is unique as a whole (pitfall 120).
pub(super) fn choose_key<'a>(columns: &[SourceColumn], keys: &'a [KeyPart]) -> Vec<&'a str> {
    let index_columns = |index: &str| -> Option<Vec<&'a str>> {
        keys.iter()
            .filter(|part| part.index == index)
            .map(|part| part.column.as_deref())
            .collect()
    };
    if keys.iter().any(|part| part.index == "PRIMARY") {
        return index_columns("PRIMARY").unwrap_or_default();
    }
    let whole = |part: &KeyPart| {
        part.prefix.is_none()
            && part.column.as_deref().is_some_and(|name| {
                columns
                    .iter()
                    .any(|column| column.name.eq_ignore_ascii_case(name) && !column.nullable)
            })
    };
    keys.iter()
        .map(|part| part.index.as_str())
        .find(|index| keys.iter().filter(|part| part.index == *index).all(whole))
        .and_then(index_columns)
        .unwrap_or_default()
}
