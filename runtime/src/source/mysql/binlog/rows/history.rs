//! Rows of a system-versioned table: those of the present, without those of history (pitfall 38).
//!
//! MariaDB logs what it does to the table's rows, of which most are history. An UPDATE changes the row of the present and
//! inserts what it was before, with an end; a DELETE gives the row an end; DELETE HISTORY deletes rows that have one. A
//! load shows the present alone, as every SELECT does, so that is what the stream keeps too: a row that gets an end is
//! deleted, and one that has an end is none.

use std::sync::Arc;

use super::sparse::left_out;
use super::{ChangeBuilder, Counts, Images};
use crate::batch::{Op, Version};
use crate::error::Result;
use crate::source::mysql::binlog::event::truncated;
use crate::source::mysql::binlog::transaction::{RowEvent, RowKind};
use crate::source::mysql::decode::{ImageFormat, image_key_slices};

/// The microseconds at the end of a TIMESTAMP(6), in its last three bytes.
const LAST_MICROSECOND: [u8; 3] = [0x0f, 0x42, 0x3f];

impl ChangeBuilder {
    /// Appends the rows of the present among those of an event.
    pub(super) fn push_present(
        &mut self,
        event: &RowEvent<'_>,
        images: &Images<'_>,
        row_end: usize,
        term: u16,
    ) -> Result<Counts> {
        // What is left out cannot be read again: by then the row may be history.
        for present in [images.before, images.after] {
            if let Some(column) = self.first_absent(present) {
                return Err(left_out(column));
            }
        }
        let formats = Arc::clone(&self.formats);
        let formats = &*formats;
        let total = event.body.len();
        let place = |row: &[u8]| {
            let offset = event.offset + (total - row.len()) as u64;
            Version::new(term, offset).get()
        };
        let mut cursor = images.rows;
        let mut counts = Counts::default();
        while !cursor.is_empty() {
            let first = cursor;
            let (op, present) = match event.kind {
                RowKind::Insert => (Op::Insert, images.after),
                RowKind::Update | RowKind::Delete => (Op::Delete, images.before),
            };
            let was = self.is_present(formats, present, row_end, &mut cursor)?;
            if event.kind == RowKind::Update {
                let second = cursor;
                let is = self.is_present(formats, images.after, row_end, &mut cursor)?;
                match (was, is) {
                    (true, true) => {
                        let moved = self.update(formats, images, &mut { first }, place)?;
                        counts.moved += u64::from(moved);
                        counts.updated += 1;
                    }
                    (true, false) => {
                        counts += self.image(op, place(first), formats, (present, first))?;
                    }
                    (false, true) => {
                        let image = (images.after, second);
                        counts += self.image(Op::Insert, place(second), formats, image)?;
                    }
                    (false, false) => {}
                }
            } else if was {
                counts += self.image(op, place(first), formats, (present, first))?;
            }
            // An image without columns would take no bytes, for ever.
            if cursor.len() == first.len() {
                return Err(truncated("rows"));
            }
        }
        Ok(counts)
    }

    /// Appends one image: the row appears, or goes.
    fn image<'a>(
        &mut self,
        op: Op,
        version: u64,
        formats: &[ImageFormat],
        (present, mut image): (&'a [u8], &'a [u8]),
    ) -> Result<Counts> {
        self.row(op, version);
        self.rows.push_image_row(formats, present, &mut image)?;
        let deleted = u64::from(op == Op::Delete);
        Ok(Counts {
            inserted: 1 - deleted,
            deleted,
            ..Counts::default()
        })
    }

    /// Whether the image at the front of `cursor` is true for ever, and moves `cursor` behind it.
    fn is_present<'a>(
        &mut self,
        formats: &[ImageFormat],
        present: &'a [u8],
        row_end: usize,
        cursor: &mut &'a [u8],
    ) -> Result<bool> {
        let image = *cursor;
        image_key_slices(formats, present, &[row_end], cursor, &mut self.before_key)?;
        let end = self.before_key.first().cloned().flatten();
        Ok(end
            .and_then(|range| image.get(range))
            .is_some_and(is_for_ever))
    }
}

/// The greatest TIMESTAMP(6), whose seconds end in 2038 or, since MariaDB 11.5, in 2106.
fn is_for_ever(end: &[u8]) -> bool {
    matches!(end, [0x7f | 0xff, 0xff, 0xff, 0xff, micros @ ..] if *micros == LAST_MICROSECOND)
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
