//! Row events of one table, decoded into one change batch.
//!
//! An update whose key bytes stay is one row; one whose key bytes change is a tombstone at the before image's place and
//! a new row at the after image's (pitfalls 117, 118: compared are bytes, since ClickHouse knows no collation). So what
//! becomes of a row follows from its event alone, however events are cut into batches.
//!
//! Images that leave out a replicated column are refused, or taken aside as [`IncompleteRows`] to be read from the source.

mod history;
mod sparse;

use std::ops::Range;
use std::sync::Arc;

use super::event::{Fields, truncated};
use super::incomplete::Incomplete;
use super::transaction::{RowEvent, RowKind};
use super::{IncompleteRows, TableMap, collations, cross_check};
use crate::batch::{Adjustment, ChangeBatch, Changes, Op, Version};
use crate::error::Result;
use crate::source::mysql::catalog::SourceTable;
use crate::source::mysql::decode::{ImageFormat, TableBuilder, image_key_slices};

/// Rows of an event by what happened to them at the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// New rows.
    pub inserted: u64,
    /// Changed rows; one whose key changed counts here too, though it becomes two.
    pub updated: u64,
    /// Deleted rows.
    pub deleted: u64,
    /// Of the changed rows those that may have another value in a column which is watched.
    pub moved: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.inserted += other.inserted;
        self.updated += other.updated;
        self.deleted += other.deleted;
        self.moved += other.moved;
    }
}

/// Collects the row changes of one table in binlog order.
#[derive(Debug)]
pub struct ChangeBuilder {
    table: Arc<SourceTable>,
    rows: TableBuilder,
    key_ordinals: Vec<usize>,
    ops: Vec<Op>,
    versions: Vec<u64>,
    /// The map that was last found to fit the table.
    checked: Option<Arc<TableMap>>,
    /// How the images behind that map are read.
    formats: Arc<[ImageFormat]>,
    before_key: Vec<Option<Range<usize>>>,
    after_key: Vec<Option<Range<usize>>>,
    /// Rows that must be read; none where images must be whole.
    incomplete: Option<Incomplete>,
    /// Whether an update gives both of its images.
    both_images: bool,
    watched: Watched,
    /// The ordinal of the column that tells rows of history apart, in a table that has them.
    row_end: Option<usize>,
}

/// The columns whose changes are counted by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    /// Those of these ordinals.
    Columns(Vec<usize>),
    /// Which is not known: every change counts.
    Any,
}

impl Default for Watched {
    fn default() -> Self {
        Self::Columns(Vec::new())
    }
}

/// A row event's body, its front taken off.
struct Images<'a> {
    before: &'a [u8],
    after: &'a [u8],
    rows: &'a [u8],
}

impl ChangeBuilder {
    /// An empty builder. `key_ordinals` are the ordinals of the columns that the destination orders by.
    ///
    /// # Errors
    /// As [`TableBuilder::new`].
    pub fn new(
        table: Arc<SourceTable>,
        key_ordinals: Vec<usize>,
        null_as_default: bool,
    ) -> Result<Self> {
        Ok(Self {
            rows: TableBuilder::new(&table, null_as_default)?,
            row_end: table.row_end(),
            table,
            key_ordinals,
            ops: Vec::new(),
            versions: Vec::new(),
            checked: None,
            formats: Arc::default(),
            before_key: Vec::new(),
            after_key: Vec::new(),
            incomplete: None,
            both_images: false,
            watched: Watched::default(),
        })
    }

    /// From now on counts changes of these columns; without this of none.
    pub fn watch(&mut self, watched: Watched) {
        self.watched = watched;
    }

    /// Gives both images of every update, as of one that changes the key: where what becomes of a row is not told by its
    /// key, what its image before has become must be taken back.
    #[must_use]
    pub fn with_both_images(self) -> Self {
        Self {
            both_images: true,
            ..self
        }
    }

    /// Takes rows whose images leave columns out aside instead of refusing them; [`ChangeBuilder::take_incomplete`] hands
    /// them out.
    ///
    /// # Errors
    /// As [`TableBuilder::new`].
    pub fn completing(mut self, null_as_default: bool) -> Result<Self> {
        self.incomplete = Some(Incomplete::new(
            &self.table,
            &self.key_ordinals,
            null_as_default,
        )?);
        Ok(self)
    }

    /// The rows that must be read, if there are any; the builder has none afterwards.
    pub fn take_incomplete(&mut self) -> Option<IncompleteRows> {
        self.incomplete.as_mut()?.finish()
    }

    /// Appends the rows of an event, with the versions of its place in `term`.
    ///
    /// # Errors
    /// `SchemaConflict` when the event does not fit the recorded table, `SourceSetting` when its images leave columns
    /// out, `SourceCorrupt`; all name the table. The builder must not be used afterwards.
    pub fn push_event(&mut self, event: &RowEvent<'_>, term: u16) -> Result<Counts> {
        self.push(event, term)
            .map_err(|error| error.with_table(self.table.name()))
    }

    /// Rows waiting.
    pub fn row_count(&self) -> usize {
        self.ops.len()
    }

    /// Bytes waiting.
    pub fn byte_count(&self) -> usize {
        let incomplete = self.incomplete.as_ref().map_or(0, Incomplete::byte_count);
        self.rows.byte_count() + incomplete + self.ops.len() * (size_of::<Op>() + size_of::<u64>())
    }

    /// The table as recorded.
    pub fn table(&self) -> &Arc<SourceTable> {
        &self.table
    }

    /// How many values of each column are not the source's own, by policy, since this was last asked.
    pub fn take_changed(&mut self) -> Vec<Adjustment> {
        self.rows.take_changed()
    }

    /// The rows so far; none when there are none. The builder is empty afterwards.
    pub fn finish(&mut self) -> Option<ChangeBatch> {
        if self.ops.is_empty() {
            return None;
        }
        Some(ChangeBatch {
            schema: Arc::clone(&self.table.schema),
            columns: self.rows.finish(),
            row_count: self.ops.len(),
            changes: Changes::Stream {
                ops: std::mem::take(&mut self.ops),
                versions: std::mem::take(&mut self.versions),
            },
        })
    }

    fn push(&mut self, event: &RowEvent<'_>, term: u16) -> Result<Counts> {
        self.check(&event.table, event.offset)?;
        let images = Images::of(event)?;
        if let Some(row_end) = self.row_end {
            return self.push_present(event, &images, row_end, term);
        }
        let lacking = self
            .first_absent(images.before)
            .or_else(|| self.first_absent(images.after));
        if event.partial || (lacking.is_some() && self.incomplete.is_some()) {
            return self.push_sparse(event, &images, term);
        }
        if let Some(column) = lacking {
            return Err(sparse::left_out(column));
        }
        let formats = Arc::clone(&self.formats);
        let formats = &*formats;
        let mut cursor = images.rows;
        let mut counts = Counts::default();
        let total = event.body.len();
        while !cursor.is_empty() {
            let left = cursor.len();
            let place = |cursor: &[u8]| {
                let offset = event.offset + (total - cursor.len()) as u64;
                Version::new(term, offset).get()
            };
            match event.kind {
                RowKind::Insert => {
                    self.row(Op::Insert, place(cursor));
                    self.rows
                        .push_image_row(formats, images.after, &mut cursor)?;
                    counts.inserted += 1;
                }
                RowKind::Delete => {
                    self.row(Op::Delete, place(cursor));
                    self.rows
                        .push_image_row(formats, images.before, &mut cursor)?;
                    counts.deleted += 1;
                }
                RowKind::Update => {
                    counts.moved += u64::from(self.update(formats, &images, &mut cursor, place)?);
                    counts.updated += 1;
                }
            }
            // An image without columns would take no bytes, for ever.
            if cursor.len() == left {
                return Err(truncated("rows"));
            }
        }
        Ok(counts)
    }

    /// Whether a watched column may have another value.
    fn update<'a>(
        &mut self,
        formats: &[ImageFormat],
        images: &Images<'a>,
        cursor: &mut &'a [u8],
        place: impl Fn(&[u8]) -> u64,
    ) -> Result<bool> {
        let before = *cursor;
        image_key_slices(
            formats,
            images.before,
            &self.key_ordinals,
            cursor,
            &mut self.before_key,
        )?;
        let after = *cursor;
        image_key_slices(
            formats,
            images.after,
            &self.key_ordinals,
            &mut { after },
            &mut self.after_key,
        )?;
        let same_key = same(&self.before_key, before, &self.after_key, after);
        let moved = match &self.watched {
            Watched::Any => true,
            Watched::Columns(watched)
                if watched.iter().all(|of| self.key_ordinals.contains(of)) =>
            {
                !watched.is_empty() && !same_key
            }
            Watched::Columns(watched) => {
                let (old, new) = (&mut self.before_key, &mut self.after_key);
                image_key_slices(formats, images.before, watched, &mut { before }, old)?;
                image_key_slices(formats, images.after, watched, &mut { after }, new)?;
                !same(old, before, new, after)
            }
        };
        if self.both_images || !same_key {
            self.row(Op::Delete, place(before));
            self.rows
                .push_image_row(formats, images.before, &mut { before })?;
        }
        self.row(live_op(same_key), place(after));
        self.rows.push_image_row(formats, images.after, cursor)?;
        Ok(moved)
    }

    fn row(&mut self, op: Op, version: u64) {
        self.ops.push(op);
        self.versions.push(version);
    }

    /// Compares a map with the recorded table, once (pitfalls 46, 47).
    fn check(&mut self, map: &Arc<TableMap>, offset: u64) -> Result<()> {
        if self
            .checked
            .as_ref()
            .is_some_and(|checked| Arc::ptr_eq(checked, map))
        {
            return Ok(());
        }
        self.formats = TableBuilder::fitted_formats(&self.table, &map.formats)?;
        for (ordinal, column) in self.table.columns.iter().enumerate() {
            collations::check(map, ordinal, column)?;
        }
        cross_check::metadata(&self.table, map, offset)?;
        self.checked = Some(Arc::clone(map));
        Ok(())
    }
}

/// Whether the values at these places of two images are the same, NULL being one.
fn same(
    old: &[Option<Range<usize>>],
    before: &[u8],
    new: &[Option<Range<usize>>],
    after: &[u8],
) -> bool {
    old.iter().zip(new).all(|pair| match pair {
        (Some(old), Some(new)) => before.get(old.clone()) == after.get(new.clone()),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    })
}

/// What an update's image after is: under another key a row of its own.
fn live_op(same_key: bool) -> Op {
    match same_key {
        true => Op::Update,
        false => Op::Insert,
    }
}

impl<'a> Images<'a> {
    fn of(event: &RowEvent<'a>) -> Result<Self> {
        let mut fields = Fields::new("rows", event.body);
        fields.take(8)?;
        if event.extra_data {
            let length = usize::from(fields.u16()?);
            fields.take(length.checked_sub(2).ok_or_else(|| truncated("rows"))?)?;
        }
        let width = usize::try_from(fields.lenenc()?).map_err(|_| truncated("rows"))?;
        if width != event.table.formats.len() {
            return Err(truncated("rows"));
        }
        let first = fields.take(width.div_ceil(8))?;
        let second = match event.kind {
            RowKind::Update => fields.take(width.div_ceil(8))?,
            RowKind::Insert | RowKind::Delete => first,
        };
        Ok(Self {
            before: first,
            after: second,
            rows: fields.rest(),
        })
    }
}

#[cfg(test)]
use crate::error::ErrorKind;

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
