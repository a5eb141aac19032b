//! Rows that a plugin could not transform, kept for a person in a table of their own.
//!
//! A letter is named by pipe, table, load, version and key, so that writing it again changes nothing. One that was replayed,
//! or that a TRUNCATE has overtaken, is written a second time with `replayed` 1, which wins.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemars::JsonSchema;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::client::{ClickHouse, STATEMENT_TIMEOUT};
use super::failure::Doing;
use super::letters_ddl as ddl;
use super::writer::Durable;
use crate::batch::{TableName, Version};
use crate::error;

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

impl DeadLetter {
    /// Whether its row has a column of that name.
    pub fn has(&self, column: &str) -> bool {
        let row: Result<BTreeMap<String, IgnoredAny>, _> = serde_json::from_str(&self.row);
        row.is_ok_and(|row| row.contains_key(column))
    }
}

/// The place of a letter among those of its pipe, in the order in which they are read. For others it is a word without a
/// meaning, which goes into an address as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(into = "String", try_from = "String")]
#[schemars(with = "String")]
pub struct LetterPlace {
    table: String,
    version: u64,
    key: String,
}

impl LetterPlace {
    pub(super) fn table(&self) -> &str {
        &self.table
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }
}

impl From<&DeadLetter> for LetterPlace {
    fn from(letter: &DeadLetter) -> Self {
        Self {
            table: letter.table.clone(),
            version: letter.version,
            key: letter.key.clone(),
        }
    }
}

impl From<LetterPlace> for String {
    fn from(place: LetterPlace) -> Self {
        let LetterPlace {
            table,
            version,
            key,
        } = place;
        let text = serde_json::to_vec(&(table, version, key)).expect("texts and a number are JSON");
        URL_SAFE_NO_PAD.encode(text)
    }
}

/// What is no place of a letter. It does not show what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoLetterPlace;

impl fmt::Display for NoLetterPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not the `next` of an answer about dead letters")
    }
}

impl std::error::Error for NoLetterPlace {}

impl TryFrom<String> for LetterPlace {
    type Error = NoLetterPlace;

    fn try_from(text: String) -> Result<Self, NoLetterPlace> {
        let text = URL_SAFE_NO_PAD.decode(text).map_err(|_| NoLetterPlace)?;
        let (table, version, key) = serde_json::from_slice(&text).map_err(|_| NoLetterPlace)?;
        Ok(Self {
            table,
            version,
            key,
        })
    }
}

/// Letters that were read at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LetterPage {
    /// In order of tables, versions and keys.
    pub letters: Vec<DeadLetter>,
    /// Behind which to go on, where there are more.
    pub next: Option<LetterPlace>,
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
    pub async fn write_letters(&self, letters: &[DeadLetter]) -> error::Result<Durable> {
        self.ensure_letters().await?;
        let sql = ddl::insert_letters(self.database(), DEAD_LETTERS_TABLE);
        let bytes = self.insert_rows(&sql, letters, DOING).await?;
        Ok(Durable::of_letters(letters.len() as u64, bytes))
    }

    /// The open letters of a pipe's tables, each given with its load, in order of tables, versions and keys, behind `after`:
    /// `limit` at most, and fewer where they are large, but one where there is one.
    ///
    /// # Errors
    /// As any query.
    pub async fn read_letters(
        &self,
        pipe: &str,
        loads: &[(String, String)],
        after: Option<&LetterPlace>,
        limit: u64,
    ) -> error::Result<LetterPage> {
        let behind = |table: &str| after.is_none_or(|after| table >= after.table());
        let loads = loads.iter().filter(|(table, _)| behind(table));
        let loads: Vec<&(String, String)> = loads.collect();
        if loads.is_empty() {
            return Ok(LetterPage::default());
        }
        self.ensure_letters().await?;
        let open = ddl::Open {
            pipe,
            loads: &loads,
            after,
        };
        let select = |asked, limit| {
            ddl::select_letters(asked, self.database(), DEAD_LETTERS_TABLE, open, limit)
        };
        // One more than is wanted tells whether there are more.
        let sql = select(ddl::Asked::Size, limit.saturating_add(1));
        let sizes: Vec<Size> = self.rows(&sql, DOING).await?;
        let fitting = fitting(sizes.iter().map(|size| size.bytes)).min(limit);
        if fitting == 0 {
            return Ok(LetterPage::default());
        }
        let sql = select(ddl::Asked::Whole, fitting);
        let letters: Vec<DeadLetter> = self.rows(&sql, DOING).await?;
        let are_more = sizes.len() as u64 > fitting;
        let last = letters.last().filter(|_| are_more);
        let next = last.map(LetterPlace::from);
        Ok(LetterPage { letters, next })
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
    ) -> error::Result<()> {
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

    async fn ensure_letters(&self) -> error::Result<()> {
        let sql = ddl::create_letters(self.database(), DEAD_LETTERS_TABLE, self.is_fsync());
        self.run(&sql, DOING, STATEMENT_TIMEOUT).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_comes_back_from_an_address_and_anything_else_is_none() {
        let place = LetterPlace {
            table: "shop.o'ders".to_owned(),
            version: u64::MAX,
            key: r#"["\u0000\\ä"]"#.to_owned(),
        };
        let text = String::from(place.clone());
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        assert!(text.chars().all(plain), "{text}");
        assert_eq!(LetterPlace::try_from(text.clone()), Ok(place));
        for text in ["", "1", "~", "WyJhIl0", &text[1..], &format!("{text}=")] {
            assert_eq!(
                LetterPlace::try_from(text.to_owned()),
                Err(NoLetterPlace),
                "{text}"
            );
        }
    }

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
