//! Rows that an event left incomplete: their keys, and the place in the binlog whose version they will have.
//!
//! For each there are three things: the condition by which the source is asked for the row; the key in decoded form, by
//! which an answer is recognised; and a row of the key alone, which is the tombstone to write should the answer lack it.
//! Of several events of one key only the last matters: whatever is read will be at least as new as it.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take;
use arrow::row::OwnedRow;

use crate::batch::{ChangeBatch, Changes, Keys, Op};
use crate::error::{Error, ErrorKind, Result};
use crate::source::mysql::catalog::SourceTable;
use crate::source::mysql::decode::{Absent, Cell, ImageFormat, TableBuilder, key_literal};
use crate::source::mysql::sql::quote_identifier;

/// Keys of one SELECT: well below the 1000 elements from which MariaDB turns a list into a subquery.
const KEYS_A_SELECT: usize = 500;

/// Bytes of one SELECT's conditions, below any `max_allowed_packet`.
const SELECT_BYTES: usize = 256 << 10;

/// Collects incomplete rows of one table.
#[derive(Debug)]
pub(super) struct Incomplete {
    table: Arc<SourceTable>,
    /// Ordinals of the source's own key.
    source_key: Vec<usize>,
    /// Ordinals of the source's and the target's key together, ascending.
    whole_key: Vec<usize>,
    /// A row for each key, and nothing in it but the key.
    tombstones: TableBuilder,
    conditions: Vec<String>,
    /// None for a row that a later event has made whole, or deleted.
    versions: Vec<Option<u64>>,
    /// The place of each key, by its bytes in the images.
    known: HashMap<Vec<u8>, usize>,
    bytes: usize,
}

impl Incomplete {
    /// An empty collection. `key_ordinals` are the target's key.
    ///
    /// # Errors
    /// As [`TableBuilder::new`].
    pub(super) fn new(
        table: &Arc<SourceTable>,
        key_ordinals: &[usize],
        null_as_default: bool,
    ) -> Result<Self> {
        let source_key = table.key_ordinals();
        let mut whole_key = [source_key.as_slice(), key_ordinals].concat();
        whole_key.sort_unstable();
        whole_key.dedup();
        Ok(Self {
            tombstones: TableBuilder::new(table, null_as_default)?,
            table: Arc::clone(table),
            source_key,
            whole_key,
            conditions: Vec::new(),
            versions: Vec::new(),
            known: HashMap::new(),
            bytes: 0,
        })
    }

    /// Takes a row aside; an earlier one of the same key need not be read any more.
    ///
    /// # Errors
    /// `SourceSetting` when the key is not whole; `Unsupported` for a table without a key, or one whose key cannot be
    /// asked for; as the decoders.
    pub(super) fn push(
        &mut self,
        formats: &[ImageFormat],
        cells: &[Cell<'_>],
        version: u64,
    ) -> Result<()> {
        let key = self.key_bytes(cells);
        if let Some(known) = self.known.get(&key)
            && let Some(place) = self.versions.get_mut(*known)
        {
            *place = Some(version);
            return Ok(());
        }
        let condition = self.condition(formats, cells)?;
        let mut only_key = vec![Cell::Absent; cells.len()];
        for &ordinal in &self.whole_key {
            if let (Some(to), Some(from)) = (only_key.get_mut(ordinal), cells.get(ordinal)) {
                *to = *from;
            }
        }
        self.tombstones
            .push_cells(formats, &only_key, Absent::Default)?;
        self.bytes += condition.len() + key.len() + size_of::<(String, Option<u64>, usize)>();
        self.known.insert(key, self.versions.len());
        self.conditions.push(condition);
        self.versions.push(Some(version));
        Ok(())
    }

    /// A later event has said all there is to say of a row's key.
    pub(super) fn settle(&mut self, cells: &[Cell<'_>]) {
        if self.known.is_empty() {
            return;
        }
        let place = self.known.get(&self.key_bytes(cells)).copied();
        if let Some(version) = place.and_then(|place| self.versions.get_mut(place)) {
            *version = None;
        }
    }

    /// Bytes waiting.
    pub(super) fn byte_count(&self) -> usize {
        self.bytes + self.tombstones.byte_count()
    }

    /// The rows to be read, if any; nothing is left afterwards.
    pub(super) fn finish(&mut self) -> Option<IncompleteRows> {
        self.known.clear();
        self.bytes = 0;
        let versions = std::mem::take(&mut self.versions);
        let conditions = std::mem::take(&mut self.conditions);
        let tombstones = self.tombstones.finish();
        if versions.iter().all(Option::is_none) {
            return None;
        }
        let included = |ordinals: &[usize]| -> Vec<usize> {
            let columns = ordinals
                .iter()
                .filter_map(|&key| self.table.columns.get(key));
            columns.filter_map(|column| column.included).collect()
        };
        let single = match self.source_key.as_slice() {
            [key] => self.table.columns.get(*key),
            _ => None,
        };
        Some(IncompleteRows {
            key: included(&self.whole_key),
            column: single.map(|column| quote_identifier(&column.name)),
            table: Arc::clone(&self.table),
            tombstones,
            conditions,
            versions,
            places: None,
        })
    }

    fn key_bytes(&self, cells: &[Cell<'_>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for &ordinal in &self.whole_key {
            match cells.get(ordinal) {
                Some(Cell::Value(value)) => {
                    bytes.extend_from_slice(&value.len().to_le_bytes());
                    bytes.extend_from_slice(value);
                }
                _ => bytes.extend_from_slice(&usize::MAX.to_le_bytes()),
            }
        }
        bytes
    }

    /// The literal of a key of one column, or the whole condition of a composite one: MariaDB finds those through the
    /// index only when they are written out.
    fn condition(&self, formats: &[ImageFormat], cells: &[Cell<'_>]) -> Result<String> {
        let mut condition = String::new();
        for (index, &ordinal) in self.source_key.iter().enumerate() {
            let (Some(column), Some(format)) =
                (self.table.columns.get(ordinal), formats.get(ordinal))
            else {
                continue;
            };
            let Some(Cell::Value(value)) = cells.get(ordinal) else {
                return Err(Error::new(
                    ErrorKind::SourceSetting,
                    format!(
                        "the row image leaves out column `{}`, by which the row would be read",
                        column.name
                    ),
                )
                .with_hint(
                    "SET GLOBAL binlog_row_image = 'FULL' and reconnect the writing sessions",
                ));
            };
            if self.source_key.len() > 1 {
                condition.push_str(if index == 0 { "(" } else { " AND " });
                condition.push_str(&quote_identifier(&column.name));
                condition.push_str(" = ");
            }
            key_literal(column, *format, value, &mut condition)?;
        }
        match self.source_key.len() {
            0 => Err(Error::new(
                ErrorKind::Unsupported,
                "the row image leaves columns out, and the table has no key by which the row could be read",
            )
            .with_hint("SET GLOBAL binlog_row_image = 'FULL' and reconnect the writing sessions; or add a primary key")),
            1 => Ok(condition),
            _ => Ok(condition + ")"),
        }
    }
}

/// Rows of one table that have to be read from the source, each with the version that it will have.
#[derive(Debug)]
pub struct IncompleteRows {
    table: Arc<SourceTable>,
    /// The key's columns among the schema's.
    key: Vec<usize>,
    /// The quoted name of a key of one column.
    column: Option<String>,
    tombstones: Vec<ArrayRef>,
    conditions: Vec<String>,
    /// None for a row that needs nothing any more, or has been found.
    versions: Vec<Option<u64>>,
    /// How keys are compared, and where each is; made with the first answer.
    places: Option<(Keys, HashMap<OwnedRow, usize>)>,
}

impl IncompleteRows {
    /// The table, as its events were read.
    pub fn table(&self) -> &Arc<SourceTable> {
        &self.table
    }

    /// Conditions that together select every row once or more, each of a size that the server takes in one statement.
    pub fn conditions(&self) -> Vec<String> {
        let mut conditions = Vec::new();
        let mut open: Vec<&str> = Vec::new();
        let mut bytes = 0;
        let wanted = self.conditions.iter().zip(&self.versions);
        for (condition, _) in wanted.filter(|(_, version)| version.is_some()) {
            if open.len() >= KEYS_A_SELECT || bytes + condition.len() > SELECT_BYTES {
                conditions.push(self.joined(&open));
                open.clear();
                bytes = 0;
            }
            bytes += condition.len();
            open.push(condition);
        }
        if !open.is_empty() {
            conditions.push(self.joined(&open));
        }
        conditions
    }

    fn joined(&self, conditions: &[&str]) -> String {
        match &self.column {
            Some(column) => format!("{column} IN ({})", conditions.join(", ")),
            None => conditions.join(" OR "),
        }
    }

    /// Of rows that were read, those that were asked for, with their versions; the others came along under the source's
    /// collation, or have changed their key since, of which an event is still to come.
    ///
    /// # Errors
    /// `Internal` when arrays do not fit together.
    pub fn found(&mut self, columns: &[ArrayRef]) -> Result<Option<ChangeBatch>> {
        let (keys, places) = match &mut self.places {
            Some(places) => places,
            None => self.places.insert(index(&self.tombstones, &self.key)?),
        };
        let rows = keys.of(columns).map_err(broken)?;
        let mut chosen = Vec::new();
        for (index, row) in rows.iter().enumerate() {
            let place = places.get(&row.owned());
            let place = place.and_then(|place| self.versions.get_mut(*place));
            if let Some(version) = place.and_then(Option::take) {
                chosen.push((version, u32::try_from(index).map_err(broken)?));
            }
        }
        self.batch(columns, chosen, Op::Update)
    }

    /// A tombstone for each row that no answer had: it has gone since, of which an event is still to come as well.
    ///
    /// # Errors
    /// As [`IncompleteRows::found`].
    pub fn gone(mut self) -> Result<Option<ChangeBatch>> {
        let mut chosen = Vec::new();
        for (index, version) in self.versions.iter_mut().enumerate() {
            if let Some(version) = version.take() {
                chosen.push((version, u32::try_from(index).map_err(broken)?));
            }
        }
        self.batch(&self.tombstones, chosen, Op::Delete)
    }

    /// Rows by their place in `columns`, in the order of their versions.
    fn batch(
        &self,
        columns: &[ArrayRef],
        mut chosen: Vec<(u64, u32)>,
        op: Op,
    ) -> Result<Option<ChangeBatch>> {
        if chosen.is_empty() {
            return Ok(None);
        }
        chosen.sort_unstable();
        let (versions, indices): (Vec<u64>, Vec<u32>) = chosen.into_iter().unzip();
        let indices = UInt32Array::from(indices);
        let columns: Result<Vec<ArrayRef>, _> = columns
            .iter()
            .map(|column| take(column, &indices, None))
            .collect();
        Ok(Some(ChangeBatch {
            schema: Arc::clone(&self.table.schema),
            columns: columns.map_err(broken)?,
            row_count: versions.len(),
            changes: Changes::Stream {
                ops: vec![op; versions.len()],
                versions,
            },
        }))
    }
}

/// Where each key stands. Two keys that differ in the images and are one when decoded are one key: the later one's.
fn index(tombstones: &[ArrayRef], key: &[usize]) -> Result<(Keys, HashMap<OwnedRow, usize>)> {
    let keys = Keys::new(tombstones, key).map_err(broken)?;
    let rows = keys.of(tombstones).map_err(broken)?;
    let places = rows
        .iter()
        .enumerate()
        .map(|(index, row)| (row.owned(), index))
        .collect();
    Ok((keys, places))
}

fn broken(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(
        ErrorKind::Internal,
        "rows that were read do not fit their keys",
    )
    .with_source(error)
}
