//! Events whose images leave columns out (`binlog_row_image` MINIMAL, NOBLOB), or hold documents in parts.
//!
//! What a row becomes is the same as with whole images: where its key stays one row at the after image's place, else a
//! tombstone and a new row. What an image leaves out is unchanged, never NULL (pitfall 45): so a column of the after
//! image's row is looked for in the before image, the key above all. A row that is whole then goes its way with the
//! others; one that is not is taken aside to be read. A tombstone needs its key and nothing else.

use std::sync::Arc;

use super::{ChangeBuilder, Counts, Images, live_op};
use crate::batch::{Op, Version};
use crate::error::{Error, ErrorKind, Result};
use crate::source::mysql::binlog::event::truncated;
use crate::source::mysql::binlog::transaction::{RowEvent, RowKind};
use crate::source::mysql::decode::{
    Absent, Cell, DecodeError, ImageFormat, merge_cells, take_cells, take_changed_documents,
};

/// One row's images, kept for their room.
#[derive(Default)]
struct Row<'a> {
    before: Vec<Cell<'a>>,
    after: Vec<Cell<'a>>,
    merged: Vec<Cell<'a>>,
}

impl ChangeBuilder {
    /// The first column that is replicated, or says whether the row is of the present, and that images with this bitmap
    /// leave out.
    pub(super) fn first_absent(&self, present: &[u8]) -> Option<&str> {
        let holds = |ordinal: usize| {
            let byte = present.get(ordinal / 8);
            byte.is_some_and(|byte| byte >> (ordinal % 8) & 1 == 1)
        };
        let mut columns = self.table.columns.iter().enumerate();
        columns
            .find(|(ordinal, column)| {
                (column.included.is_some() || column.row_end) && !holds(*ordinal)
            })
            .map(|(_, column)| column.name.as_str())
    }

    pub(super) fn push_sparse(
        &mut self,
        event: &RowEvent<'_>,
        images: &Images<'_>,
        term: u16,
    ) -> Result<Counts> {
        let formats = Arc::clone(&self.formats);
        let formats = &*formats;
        let total = event.body.len();
        let place = |rest: usize| Version::new(term, event.offset + (total - rest) as u64).get();
        let mut cursor = images.rows;
        let mut counts = Counts::default();
        let mut row = Row::default();
        while !cursor.is_empty() {
            let left = cursor.len();
            match event.kind {
                RowKind::Insert => {
                    take_cells(formats, images.after, &mut cursor, &mut row.merged)?;
                    self.ensure_key(&row.merged)?;
                    self.live(Op::Insert, formats, &row.merged, place(left))?;
                    counts.inserted += 1;
                }
                RowKind::Delete => {
                    take_cells(formats, images.before, &mut cursor, &mut row.before)?;
                    self.gone(formats, &row.before, place(left))?;
                    counts.deleted += 1;
                }
                RowKind::Update => {
                    take_cells(formats, images.before, &mut cursor, &mut row.before)?;
                    let after = cursor.len();
                    let changed = match event.partial {
                        true => take_changed_documents(formats, &mut cursor)?,
                        false => &[],
                    };
                    take_cells(formats, images.after, &mut cursor, &mut row.after)?;
                    let Row {
                        before,
                        after: image,
                        merged,
                    } = &mut row;
                    merge_cells(formats, before, image, changed, merged)?;
                    self.forget_computed(image, merged);
                    self.updated(formats, &row, (place(left), place(after)))?;
                    counts.updated += 1;
                    // Images that leave columns out do not tell.
                    counts.moved += 1;
                }
            }
            // An image without columns would take no bytes, for ever.
            if cursor.len() == left {
                return Err(truncated("rows"));
            }
        }
        Ok(counts)
    }

    /// A generated column that the after image leaves out has changed with the columns that it is made of, so the before
    /// image's value is not its own (pitfall 40). One of the key is in the image whenever it changes.
    fn forget_computed<'a>(&self, after: &[Cell<'a>], row: &mut [Cell<'a>]) {
        let columns = self.table.columns.iter().zip(after).zip(row).enumerate();
        for (ordinal, ((column, after), cell)) in columns {
            if column.generated && *after == Cell::Absent && !self.key_ordinals.contains(&ordinal) {
                *cell = Cell::Absent;
            }
        }
    }

    fn updated(
        &mut self,
        formats: &[ImageFormat],
        row: &Row<'_>,
        (before, after): (u64, u64),
    ) -> Result<()> {
        self.ensure_key(&row.before)?;
        let mut ordinals = self.key_ordinals.iter();
        let same_key = ordinals.all(|&key| row.before.get(key) == row.merged.get(key));
        if self.both_images || !same_key {
            self.gone(formats, &row.before, before)?;
        }
        self.live(live_op(same_key), formats, &row.merged, after)
    }

    /// A row that is there after the event: as it is, or to be read.
    fn live(
        &mut self,
        op: Op,
        formats: &[ImageFormat],
        cells: &[Cell<'_>],
        version: u64,
    ) -> Result<()> {
        let absent = self.absent(cells);
        match (absent, &mut self.incomplete) {
            (None, incomplete) => {
                if let Some(incomplete) = incomplete {
                    incomplete.settle(cells);
                }
                self.row(op, version);
                self.rows.push_cells(formats, cells, Absent::Refused)
            }
            (Some(_), Some(incomplete)) => incomplete.push(formats, cells, version),
            (Some(name), None) => Err(left_out(&name)),
        }
    }

    /// A row that is not there any more under this key.
    fn gone(&mut self, formats: &[ImageFormat], cells: &[Cell<'_>], version: u64) -> Result<()> {
        self.ensure_key(cells)?;
        if let Some(incomplete) = &mut self.incomplete {
            incomplete.settle(cells);
        } else if let Some(name) = self.absent(cells) {
            return Err(left_out(&name));
        }
        self.row(Op::Delete, version);
        self.rows.push_cells(formats, cells, Absent::Default)
    }

    /// The first replicated column that the row lacks.
    fn absent(&self, cells: &[Cell<'_>]) -> Option<String> {
        let mut columns = self.table.columns.iter().zip(cells);
        columns
            .find(|(column, cell)| column.included.is_some() && **cell == Cell::Absent)
            .map(|(column, _)| column.name.clone())
    }

    /// Without its whole key nobody can say which row of the target an image means.
    fn ensure_key(&self, cells: &[Cell<'_>]) -> Result<()> {
        let mut ordinals = self.key_ordinals.iter();
        let absent = ordinals.find(|&&key| matches!(cells.get(key), Some(Cell::Absent) | None));
        match absent.and_then(|&key| self.table.columns.get(key)) {
            None => Ok(()),
            Some(column) => Err(Error::new(
                ErrorKind::SourceSetting,
                format!(
                    "the row image leaves out column `{}`, which belongs to the target's key",
                    column.name
                ),
            )
            .with_hint("SET GLOBAL binlog_row_image = 'FULL' and reconnect the writing sessions; or let `order_by` name columns of the primary key only")),
        }
    }
}

/// As the decoders say it, with the column.
pub(super) fn left_out(column: &str) -> Error {
    let error = Error::from(DecodeError::AbsentColumn);
    let named = Error::new(
        error.kind(),
        format!("column `{column}`: {}", error.message()),
    );
    match error.hint() {
        Some(hint) => named.with_hint(hint),
        None => named,
    }
}

#[cfg(test)]
#[path = "sparse_tests.rs"]
mod tests;
