//! Which tables the stream reads.

use std::collections::HashSet;

use crate::batch::TableName;

/// The tables whose rows and statements are wanted.
#[derive(Clone, Debug, Default)]
pub struct TableFilter {
    tables: HashSet<TableName>,
    databases: HashSet<String>,
}

impl TableFilter {
    /// Wants exactly `tables`.
    pub fn new(tables: impl IntoIterator<Item = TableName>) -> Self {
        let tables: HashSet<TableName> = tables.into_iter().collect();
        let databases = tables.iter().map(|table| table.database.clone()).collect();
        Self { tables, databases }
    }

    /// Whether the table is wanted.
    pub fn wants(&self, table: &TableName) -> bool {
        self.tables.contains(table)
    }

    /// The tables that are wanted, in the order of their names.
    pub fn tables(&self) -> Vec<&TableName> {
        let mut tables: Vec<&TableName> = self.tables.iter().collect();
        tables.sort_unstable();
        tables
    }

    /// Whether a table of the database is wanted.
    pub fn wants_database(&self, database: &str) -> bool {
        self.databases.contains(database)
    }
}
