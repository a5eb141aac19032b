//! A transaction's row events, kept raw until its commit is known.
//!
//! Rows count only once the group has ended with a commit, and a group can be larger than memory (pitfall 97). So the
//! bodies are appended to one buffer; past the budget the buffer goes to an unnamed file, and reading back goes through
//! the file and then what is left in memory.
//!
//! What was rolled back although it was logged stays in the buffer, marked: whether its rows are gone depends on the
//! engine of their table, which the binlog does not tell (pitfalls 93, 94).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::TableMap;
use super::refusal::statement_format;
use crate::batch::TableName;
use crate::error::{Error, ErrorKind, Result};
use crate::source::mysql::position::{GroupGtid, StreamPlace};

/// Written to the spill file at once, after the budget has been passed for the first time.
const SPILL_BYTES: usize = 4 << 20;

/// Length, offset, table, kind, shape.
const RECORD_HEAD: usize = 4 + 8 + 4 + 1 + 1;

/// What a row event does to its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowKind {
    /// One image a row, the after image.
    Insert,
    /// Two images a row, before and after.
    Update,
    /// One image a row, the before image.
    Delete,
}

/// One row event of a replicated table.
#[derive(Clone, Debug)]
pub struct RowEvent<'a> {
    /// What the table looked like.
    pub table: Arc<TableMap>,
    /// What happens to the rows.
    pub kind: RowKind,
    /// Whether the body has the extra data of version 2 (pitfall 53).
    pub extra_data: bool,
    /// Whether after images may hold changes of JSON documents instead of whole ones (pitfall 28).
    pub partial: bool,
    /// The uncompressed body, without checksum.
    pub body: &'a [u8],
    /// The stream offset before the event; a row image's own place in the body completes it.
    pub offset: u64,
    /// Whether the source rolled it back: the rows stand only where their table's engine cannot roll back.
    pub undone: bool,
}

impl RowEvent<'_> {
    /// Whether the server itself carried out what foreign keys ask for after this event, so that rows that followed are
    /// logged too. MySQL says so of each event from 9.6 on (`USE_SQL_FOREIGN_KEY_F` in its `rows_event.h`).
    pub fn logs_cascades(&self) -> bool {
        const USE_SQL_FOREIGN_KEY_F: u8 = 1 << 4;
        // The flags stand behind the table id. MariaDB, whose events have no extra data, gives the bit no meaning.
        let flags = self.body.get(6).copied().unwrap_or_default();
        self.extra_data && flags & USE_SQL_FOREIGN_KEY_F != 0
    }
}

/// A committed transaction with rows of replicated tables.
#[derive(Debug)]
pub struct Transaction {
    /// Its own name.
    pub gtid: GroupGtid,
    /// The place behind it.
    pub end: StreamPlace,
    /// When it was committed, in microseconds since 1970 by the source's clock; whole seconds on MariaDB.
    pub committed_at_us: Option<u64>,
    pub(super) rows: RowBuffer,
    /// The tables that were changed by text, each with the statement where that was on others.
    pub(super) texts: BTreeMap<TableName, Option<String>>,
}

impl Transaction {
    /// Reads the row events from the first on, in binlog order.
    ///
    /// # Errors
    /// `State` when the spill file cannot be read; `Unsupported`, of each table of which the transaction has changes that
    /// were logged as text.
    pub fn row_events(&mut self) -> Result<RowEvents<'_>> {
        match statement_format(&self.texts) {
            Some(error) => Err(error),
            None => self.rows.read(),
        }
    }

    /// Takes out the tables whose changes by text the caller has by other means.
    pub fn take_texts_of(&mut self, is_known: impl Fn(&TableName) -> bool) -> Vec<TableName> {
        let known = self.texts.extract_if(.., |table, _| is_known(table));
        known.map(|(table, _)| table).collect()
    }

    /// The tables that have rows in it, each once.
    pub fn tables(&self) -> &[Arc<TableMap>] {
        self.rows.tables()
    }

    /// Bytes of row events, on disk and in memory.
    pub fn byte_count(&self) -> u64 {
        self.rows.length()
    }
}

/// Row events in binlog order, in memory up to a budget and on disk beyond it.
#[derive(Debug)]
pub(super) struct RowBuffer {
    tables: Vec<Arc<TableMap>>,
    memory: Vec<u8>,
    file: Option<File>,
    /// Bytes in the file.
    spilled: u64,
    budget: usize,
    folder: Option<PathBuf>,
    /// What was rolled back, as ranges of the bytes in it.
    undone: Vec<Range<u64>>,
}

impl RowBuffer {
    /// An empty buffer of at most `budget` bytes in memory; spilled to `folder`, or the system's own for such files.
    pub(super) fn new(budget: usize, folder: Option<PathBuf>) -> Self {
        Self {
            tables: Vec::new(),
            memory: Vec::new(),
            file: None,
            spilled: 0,
            budget,
            folder,
            undone: Vec::new(),
        }
    }

    /// Marks everything from byte `from` on as rolled back.
    pub(super) fn undo_from(&mut self, from: u64) {
        let end = self.length();
        if from < end {
            self.undone.push(from..end);
        }
    }

    /// The tables that have rows in it, each once.
    pub(super) fn tables(&self) -> &[Arc<TableMap>] {
        &self.tables
    }

    /// Whether nothing is in it.
    pub(super) fn is_empty(&self) -> bool {
        self.length() == 0
    }

    /// Bytes in it, on disk and in memory.
    pub(super) fn length(&self) -> u64 {
        self.spilled + self.memory.len() as u64
    }

    /// Bytes of it in memory.
    pub(super) fn in_memory(&self) -> usize {
        self.memory.capacity()
    }

    /// The first table that has rows in it.
    pub(super) fn first_table(&self) -> Option<&Arc<TableMap>> {
        self.tables.first()
    }

    /// Appends an event.
    ///
    /// # Errors
    /// `State` when the spill file cannot be written, say for a full disk.
    pub(super) fn push(&mut self, event: &RowEvent<'_>) -> Result<()> {
        let table = match self
            .tables
            .iter()
            .rposition(|table| Arc::ptr_eq(table, &event.table))
        {
            Some(index) => index,
            None => {
                self.tables.push(Arc::clone(&event.table));
                self.tables.len() - 1
            }
        };
        let limit = if self.file.is_some() {
            SPILL_BYTES.min(self.budget)
        } else {
            self.budget
        };
        if self.memory.len() + RECORD_HEAD + event.body.len() > limit {
            self.spill()?;
        }
        append_record(&mut self.memory, event, table, event.offset)
    }

    fn spill(&mut self) -> Result<()> {
        if self.memory.is_empty() {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let file = match &self.folder {
                    Some(folder) => tempfile::tempfile_in(folder),
                    None => tempfile::tempfile(),
                };
                self.file.insert(file.map_err(spill_error)?)
            }
        };
        file.write_all(&self.memory).map_err(spill_error)?;
        self.spilled += self.memory.len() as u64;
        self.memory.clear();
        self.memory.shrink_to(SPILL_BYTES);
        Ok(())
    }

    /// Reads the events from the first on.
    ///
    /// # Errors
    /// `State` when the spill file cannot be read.
    pub(super) fn read(&mut self) -> Result<RowEvents<'_>> {
        if let Some(file) = &mut self.file {
            file.seek(SeekFrom::Start(0)).map_err(spill_error)?;
        }
        Ok(RowEvents {
            tables: &self.tables,
            file: self
                .file
                .as_mut()
                .map(|file| std::io::BufReader::with_capacity(1 << 20, file)),
            file_left: self.spilled,
            memory: &self.memory,
            record: Vec::new(),
            at: 0,
            undone: &self.undone,
            moved_by: 0,
        })
    }
}

/// Appends an event in the form that [`RowEvents`] reads.
///
/// # Errors
/// `Unsupported` for a body of over 4 GiB.
pub(super) fn append_record(
    to: &mut Vec<u8>,
    event: &RowEvent<'_>,
    table: usize,
    offset: u64,
) -> Result<()> {
    let fits = |number: usize| {
        u32::try_from(number).map_err(|_| {
            Error::new(ErrorKind::Unsupported, "a row event is larger than 4 GiB")
                .with_hint("resync the pipe: its load reads row by row")
        })
    };
    to.extend_from_slice(&fits(event.body.len())?.to_le_bytes());
    to.extend_from_slice(&offset.to_le_bytes());
    to.extend_from_slice(&fits(table)?.to_le_bytes());
    to.extend_from_slice(&[event.kind as u8, shape_bits(event)]);
    to.extend_from_slice(event.body);
    Ok(())
}

const EXTRA_DATA: u8 = 1;
const PARTIAL: u8 = 2;
/// In a buffer that goes on a rollback is known only later, and kept as a range.
const UNDONE: u8 = 4;

fn shape_bits(event: &RowEvent<'_>) -> u8 {
    (u8::from(event.extra_data) * EXTRA_DATA)
        | (u8::from(event.partial) * PARTIAL)
        | (u8::from(event.undone) * UNDONE)
}

fn spill_error(error: std::io::Error) -> Error {
    Error::new(
        ErrorKind::State,
        "the file that a large transaction spills to cannot be used",
    )
    .with_hint("make room on the disk of the folder, or set `spill_dir` in the pipe file (without it: TMPDIR) to another")
    .with_source(error)
}

/// Reads a transaction's row events in order.
#[derive(Debug)]
pub struct RowEvents<'a> {
    tables: &'a [Arc<TableMap>],
    file: Option<std::io::BufReader<&'a mut File>>,
    file_left: u64,
    memory: &'a [u8],
    record: Vec<u8>,
    /// Bytes read so far.
    at: u64,
    undone: &'a [Range<u64>],
    /// Added to every offset.
    moved_by: u64,
}

impl<'a> RowEvents<'a> {
    /// The records of one table's rows, as [`append_record`] wrote them.
    pub(super) fn of(table: &'a [Arc<TableMap>], records: &'a [u8]) -> Self {
        Self {
            tables: table,
            file: None,
            file_left: 0,
            memory: records,
            record: Vec::new(),
            at: 0,
            undone: &[],
            moved_by: 0,
        }
    }

    /// Gives the events other places: those that they take when another group makes them visible.
    pub(super) fn moved_by(mut self, amount: u64) -> Self {
        self.moved_by = amount;
        self
    }

    /// The next event; its body is valid until the one after is asked for.
    ///
    /// # Errors
    /// `State` when the spill file cannot be read.
    #[expect(
        clippy::should_implement_trait,
        reason = "it lends, as Iterator cannot"
    )]
    pub fn next(&mut self) -> Result<Option<RowEvent<'_>>> {
        if self.file_left > 0 {
            let file = self.file.as_mut().ok_or_else(broken)?;
            self.record.resize(RECORD_HEAD, 0);
            file.read_exact(&mut self.record).map_err(spill_error)?;
            let length = RecordHead::parse(&self.record).ok_or_else(broken)?.length;
            self.record.resize(RECORD_HEAD + length, 0);
            let body = self.record.get_mut(RECORD_HEAD..).ok_or_else(broken)?;
            file.read_exact(body).map_err(spill_error)?;
            self.file_left = self
                .file_left
                .checked_sub(self.record.len() as u64)
                .ok_or_else(broken)?;
            let place = (self.at, self.moved_by);
            self.at += self.record.len() as u64;
            return event(self.tables, &self.record, place, self.undone).map(Some);
        }
        if self.memory.is_empty() {
            return Ok(None);
        }
        let length = RecordHead::parse(self.memory).ok_or_else(broken)?.length;
        let (record, rest) = self
            .memory
            .split_at_checked(RECORD_HEAD + length)
            .ok_or_else(broken)?;
        self.memory = rest;
        let place = (self.at, self.moved_by);
        self.at += record.len() as u64;
        event(self.tables, record, place, self.undone).map(Some)
    }
}

struct RecordHead {
    length: usize,
    offset: u64,
    table: usize,
    kind: RowKind,
    extra_data: bool,
    partial: bool,
    undone: bool,
}

impl RecordHead {
    fn parse(record: &[u8]) -> Option<Self> {
        let (length, rest) = record.split_first_chunk::<4>()?;
        let (offset, rest) = rest.split_first_chunk::<8>()?;
        let (table, rest) = rest.split_first_chunk::<4>()?;
        let [kind, shape] = *rest.first_chunk::<2>()?;
        Some(Self {
            length: u32::from_le_bytes(*length) as usize,
            offset: u64::from_le_bytes(*offset),
            table: u32::from_le_bytes(*table) as usize,
            kind: match kind {
                0 => RowKind::Insert,
                1 => RowKind::Update,
                _ => RowKind::Delete,
            },
            extra_data: shape & EXTRA_DATA != 0,
            partial: shape & PARTIAL != 0,
            undone: shape & UNDONE != 0,
        })
    }
}

/// `at` is the record's place among the bytes, and what its offset is moved by.
fn event<'a>(
    tables: &[Arc<TableMap>],
    record: &'a [u8],
    (at, moved_by): (u64, u64),
    undone: &[Range<u64>],
) -> Result<RowEvent<'a>> {
    let head = RecordHead::parse(record).ok_or_else(broken)?;
    Ok(RowEvent {
        table: Arc::clone(tables.get(head.table).ok_or_else(broken)?),
        kind: head.kind,
        extra_data: head.extra_data,
        partial: head.partial,
        body: record.get(RECORD_HEAD..).ok_or_else(broken)?,
        offset: head.offset + moved_by,
        undone: head.undone || undone.iter().any(|range| range.contains(&at)),
    })
}

fn broken() -> Error {
    Error::new(ErrorKind::Internal, "the buffer of a transaction is broken")
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::batch::TableName;

    fn table(id: u64) -> Arc<TableMap> {
        Arc::new(TableMap {
            id,
            name: TableName::new("s", format!("t{id}")),
            formats: Vec::new(),
            unsigned: None,
            collations: Vec::new(),
            names: None,
            primary_key: None,
            labels: None,
            body: Vec::new(),
        })
    }

    #[test]
    fn events_come_back_in_order_from_disk_and_memory() {
        let mut rng = StdRng::seed_from_u64(3);
        for budget in [0, 100, 5_000, usize::MAX] {
            let tables = [table(1), table(2)];
            let mut buffer = RowBuffer::new(budget, None);
            let mut mark = None;
            let bodies: Vec<Vec<u8>> = (0..200)
                .map(|_| (0..rng.random_range(0..90)).map(|_| rng.random()).collect())
                .collect();
            for (index, body) in bodies.iter().enumerate() {
                buffer
                    .push(&RowEvent {
                        table: Arc::clone(&tables[index % 2]),
                        kind: [RowKind::Insert, RowKind::Update, RowKind::Delete][index % 3],
                        extra_data: index % 2 == 1,
                        partial: index % 5 == 1,
                        body,
                        offset: index as u64 * 7,
                        undone: false,
                    })
                    .unwrap();
                if index == 149 {
                    let from = mark.unwrap();
                    buffer.undo_from(from);
                }
                if index == 99 {
                    mark = Some(buffer.length());
                }
            }
            assert_eq!(buffer.file.is_some(), budget < usize::MAX);
            assert!(buffer.memory.len() <= budget.max(RECORD_HEAD + 90));
            for _ in 0..2 {
                let mut events = buffer.read().unwrap();
                for (index, body) in bodies.iter().enumerate() {
                    let event = events.next().unwrap().unwrap();
                    assert_eq!(event.body, body, "budget {budget}, event {index}");
                    assert!(Arc::ptr_eq(&event.table, &tables[index % 2]));
                    assert_eq!(event.offset, index as u64 * 7);
                    assert_eq!(event.extra_data, index % 2 == 1);
                    assert_eq!(event.partial, index % 5 == 1);
                    assert_eq!(event.undone, (100..150).contains(&index));
                    assert_eq!(event.kind as usize, index % 3);
                }
                assert!(events.next().unwrap().is_none());
            }
        }
    }
}
