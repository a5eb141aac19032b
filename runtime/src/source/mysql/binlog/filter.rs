//! Which tables the stream reads.

use std::collections::HashSet;

use super::ddl::copied_table;
use crate::batch::TableName;

/// The tables whose rows and statements are wanted.
#[derive(Clone, Debug, Default)]
pub struct TableFilter {
    tables: HashSet<TableName>,
    databases: HashSet<String>,
    /// Whether what schema change tools do to their copies of the tables is wanted too, and what comes over them.
    copies: bool,
}

impl TableFilter {
    /// Wants exactly `tables`.
    pub fn new(tables: impl IntoIterator<Item = TableName>) -> Self {
        let tables: HashSet<TableName> = tables.into_iter().collect();
        let databases = tables.iter().map(|table| table.database.clone()).collect();
        Self {
            tables,
            databases,
            copies: false,
        }
    }

    /// The same with the statements that make copies of the tables, which a tool may put in their place, and those that make
    /// tables through which they are written.
    #[must_use]
    pub fn with_copies(self) -> Self {
        Self {
            copies: true,
            ..self
        }
    }

    /// Whether a statement on `copy` is wanted for the table that it is a copy of.
    pub fn wants_copy(&self, copy: &TableName) -> bool {
        self.copies && copied_table(copy).is_some_and(|table| self.wants(&table))
    }

    /// Whether a statement on a table is wanted through which `merged` are written.
    pub fn wants_merge(&self, merged: &[TableName]) -> bool {
        self.copies && merged.iter().any(|table| self.wants(table))
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
