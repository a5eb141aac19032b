//! Rows that a plugin could not transform, kept for a person in a table of their own.
//!
//! A letter is named by pipe, table, load, version and key, so that writing it again changes nothing. One that was replayed,
//! or that a TRUNCATE has overtaken, is written a second time with `replayed` 1, which wins.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::client::{ClickHouse, STATEMENT_TIMEOUT};
use super::failure::Doing;
use super::letters_ddl as ddl;
use super::writer::Durable;
use crate::batch::{TableName, Version};
use crate::error::Result;

/// The name of the table, in each pipe's database.
pub const DEAD_LETTERS_TABLE: &str = "_pipewright_dead_letters";

const DOING: Doing<'static> = Doing::Definition("the dead letters");

/// One row that a plugin could not transform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeadLetter {
    /// The pipe.
    pub pipe: String,
    /// The source table.
    pub table: String,
    /// Which load of the table the row belongs to; letters of earlier loads are closed.
    pub load: String,
    /// The row's version; 0 for a row of a load.
    pub version: u64,
    /// A JSON array of the source key's values.
    pub key: String,
    /// `load`, `insert`, `update` or `delete`.
    pub op: String,
    /// The row before the first plugin, as JSON.
    pub row: String,
    /// The place in the binlog at or behind the row, or which part of a load.
    pub position: String,
    /// The plugin's name in the pipe file.
    pub plugin: String,
    /// The plugin's digest.
    pub digest: String,
    /// The plugin's own word for what was wrong, or the fault's.
    pub code: String,
    /// For people.
    pub reason: String,
    /// 1 once the row has passed, or nothing is left of it at the source.
    pub replayed: u8,
}

/// Bytes of letters that are read at once: a table may have a million of them, and a row a hundred megabytes.
const BYTES_AT_ONCE: u64 = 16 << 20;

#[derive(Deserialize)]
struct Size {
    bytes: u64,
}

/// How many of these letters are read at once: one at least.
fn fitting(sizes: impl Iterator<Item = u64>) -> u64 {
    let mut total = 0;
    let fits = |(place, bytes): &(usize, u64)| {
        total += bytes;
        *place == 0 || total <= BYTES_AT_ONCE
    };
    sizes.enumerate().take_while(fits).count() as u64
}

impl ClickHouse {
    /// Writes letters, and the table for them when it is not there. Repeatable.
    ///
    /// # Errors
    /// As any insert.
    pub async fn write_letters(&self, letters: &[DeadLetter]) -> Result<Durable> {
        self.ensure_letters().await?;
        let sql = ddl::insert_letters(self.database(), DEAD_LETTERS_TABLE);
        let bytes = self.insert_rows(&sql, letters, DOING).await?;
        Ok(Durable::of_letters(letters.len() as u64, bytes))
    }

    /// The open letters of a pipe's tables, each given with its load, in order of tables and versions, behind `last`:
    /// `limit` at most, and fewer where they are large, but one where there is one.
    ///
    /// # Errors
    /// As any query.
    pub async fn read_letters(
        &self,
        pipe: &str,
        loads: &[(String, String)],
        last: Option<&DeadLetter>,
        limit: u64,
    ) -> Result<Vec<DeadLetter>> {
        if loads.is_empty() {
            return Ok(Vec::new());
        }
        self.ensure_letters().await?;
        let select = |asked, limit| {
            let page = (last, limit);
            ddl::select_letters(
                asked,
                self.database(),
                DEAD_LETTERS_TABLE,
                pipe,
                loads,
                page,
            )
        };
        let sizes: Vec<Size> = self.rows(&select(ddl::Asked::Size, limit), DOING).await?;
        match fitting(sizes.iter().map(|size| size.bytes)) {
            0 => Ok(Vec::new()),
            fitting => {
                let sql = select(ddl::Asked::Whole, fitting);
                self.rows(&sql, DOING).await
            }
        }
    }

    /// Closes the letters of one load of a table whose rows are older than `version`. Repeatable.
    ///
    /// # Errors
    /// As any statement.
    pub async fn close_letters_below(
        &self,
        pipe: &str,
        table: &TableName,
        load: &str,
        version: Version,
    ) -> Result<()> {
        if self.inspect(DEAD_LETTERS_TABLE).await?.is_none() {
            return Ok(());
        }
        let (database, table) = (self.database(), table.to_string());
        let letters = ddl::Letters {
            pipe,
            table: &table,
            load,
        };
        let sql = ddl::close_letters(database, DEAD_LETTERS_TABLE, letters, version);
        self.run(&sql, DOING, STATEMENT_TIMEOUT).await
    }

    async fn ensure_letters(&self) -> Result<()> {
        let sql = ddl::create_letters(self.database(), DEAD_LETTERS_TABLE, self.is_fsync());
        self.run(&sql, DOING, STATEMENT_TIMEOUT).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_letters_are_read_few_at_once_and_the_largest_alone() {
        let of = |sizes: &[u64]| fitting(sizes.iter().copied());
        assert_eq!(of(&[]), 0);
        assert_eq!(of(&[100; 10_000]), 10_000);
        assert_eq!(of(&[1 << 20; 300]), 16);
        assert_eq!(of(&[1 << 30, 1]), 1);
        assert_eq!(of(&[1, 1 << 30, 1]), 1);
        assert_eq!(of(&[BYTES_AT_ONCE, 1]), 1);
    }
}
