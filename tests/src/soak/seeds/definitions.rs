//! Definitions that change under the writers: columns that come, go, and change names, places and types, keys, and tables
//! that are put in another's place. The columns that writers name stay.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};
use rand::Rng;
use rand::rngs::StdRng;

use super::TABLES;

/// Types of a column that comes: with and without what earlier rows get, known to the text or to the server alone.
const ADDED: [&str; 9] = [
    "INT NOT NULL DEFAULT 7",
    "INT",
    "VARCHAR(20) NULL DEFAULT 'of old'",
    "DECIMAL(8,2) NOT NULL DEFAULT 1.5",
    "BIGINT UNSIGNED NOT NULL DEFAULT 0",
    "DATETIME(3) NOT NULL DEFAULT '2024-02-29 01:02:03'",
    "INT DEFAULT (1 + 1)",
    "VARCHAR(60) DEFAULT (CONCAT('made ', 2 * 3))",
    "ENUM('x', 'y') NOT NULL DEFAULT 'y'",
];

/// Types that a column is given later; some keep every value, others do not, or are refused.
const GIVEN: [&str; 4] = [
    "BIGINT",
    "VARCHAR(80)",
    "DECIMAL(12,3)",
    "INT NOT NULL DEFAULT 3",
];

/// Statements that fail for what the tables hold or for a statement that was given twice, since its answer was lost: an
/// unknown or known column, key, or table; a value, or NULL, that a type does not take.
pub(super) const EXPECTED_ERRORS: [u16; 12] = [
    1050, 1051, 1054, 1060, 1061, 1091, 1138, 1146, 1264, 1265, 1292, 1366,
];

/// What the writer knows of the columns that it has added.
#[derive(Debug, Default)]
pub(super) struct Definitions {
    /// Tables with their added columns.
    columns: Vec<(&'static str, String)>,
    next: u32,
    /// Changes that the server has carried out.
    pub(super) changes: u32,
}

impl Definitions {
    /// Changes one table, then some of its rows.
    pub(super) async fn change(
        &mut self,
        conn: &mut Conn,
        generator: &mut StdRng,
    ) -> Result<(), Error> {
        let table = TABLES[generator.random_range(0..TABLES.len())];
        for statement in self.statements(table, generator) {
            conn.query_drop(statement).await?;
        }
        self.changes += 1;
        if let Some(column) = self.any(table, generator) {
            let some = generator.random_range(3..9);
            conn.query_drop(format!(
                "UPDATE {table} SET `{column}` = {} LIMIT {some}",
                generator.random_range(1..3)
            ))
            .await?;
        }
        Ok(())
    }

    fn any(&self, table: &str, generator: &mut StdRng) -> Option<String> {
        let of_table: Vec<&String> = self
            .columns
            .iter()
            .filter(|(of, _)| *of == table)
            .map(|(_, column)| column)
            .collect();
        let nth = generator.random_range(0..of_table.len().max(1));
        of_table.get(nth).map(|column| (*column).clone())
    }

    fn statements(&mut self, table: &'static str, generator: &mut StdRng) -> Vec<String> {
        let known = self.any(table, generator);
        match (generator.random_range(0..10), known) {
            (0, _) => vec![format!("TRUNCATE TABLE {table}")],
            (1, _) => taken_over(table),
            (2, _) if table == "pairs" => {
                vec!["ALTER TABLE pairs DROP PRIMARY KEY, ADD PRIMARY KEY (l, o)".to_owned()]
            }
            (2, _) if table == "words" => {
                vec![
                    "ALTER TABLE words MODIFY w VARCHAR(50) NOT NULL FIRST".to_owned(),
                    "ALTER TABLE words ADD INDEX n_of_words (n)".to_owned(),
                    "DROP INDEX n_of_words ON words".to_owned(),
                ]
            }
            (3 | 4, Some(column)) => {
                self.forget(table, &column);
                vec![format!("ALTER TABLE {table} DROP COLUMN `{column}`")]
            }
            (5, Some(column)) => {
                self.forget(table, &column);
                let to = self.name(table);
                vec![format!(
                    "ALTER TABLE {table} RENAME COLUMN `{column}` TO `{to}`"
                )]
            }
            (6, Some(column)) => {
                let given = GIVEN[generator.random_range(0..GIVEN.len())];
                vec![format!("ALTER TABLE {table} MODIFY `{column}` {given}")]
            }
            (7, Some(column)) => {
                self.forget(table, &column);
                let added = self.added(table, generator);
                vec![format!(
                    "ALTER TABLE {table} DROP COLUMN `{column}`, ADD COLUMN {added}"
                )]
            }
            _ => {
                let added = self.added(table, generator);
                vec![format!("ALTER TABLE {table} ADD COLUMN {added}")]
            }
        }
    }

    /// A new column with its type, and sometimes its place.
    fn added(&mut self, table: &'static str, generator: &mut StdRng) -> String {
        let definition = ADDED[generator.random_range(0..ADDED.len())];
        let place = match generator.random_range(0..4) {
            0 => "FIRST",
            _ => "",
        };
        let name = self.name(table);
        format!("`{name}` {definition} {place}")
    }

    fn name(&mut self, table: &'static str) -> String {
        let name = format!("more {}", self.next);
        self.next += 1;
        self.columns.push((table, name.clone()));
        name
    }

    fn forget(&mut self, table: &str, column: &str) {
        self.columns
            .retain(|(of, known)| *of != table || known != column);
    }
}

/// A copy takes the table's name, as tools for schema changes do it, but without their care for rows that come meanwhile.
fn taken_over(table: &str) -> Vec<String> {
    vec![
        format!("DROP TABLE IF EXISTS {table}_copy, {table}_old"),
        format!("CREATE TABLE {table}_copy LIKE {table}"),
        format!("INSERT INTO {table}_copy SELECT * FROM {table}"),
        format!("RENAME TABLE {table} TO {table}_old, {table}_copy TO {table}"),
        format!("DROP TABLE {table}_old"),
    ]
}
