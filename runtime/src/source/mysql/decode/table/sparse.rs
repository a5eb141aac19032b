//! Rows that are put together from images which do not hold every column.

use super::{TableBuilder, push_null};
use crate::error::Result;
use crate::source::mysql::decode::image::{Layout, take_prefixed};
use crate::source::mysql::decode::{Cell, ColumnBuilder, DecodeError, ImageFormat};

/// What a cell that is not there becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// An error: the row must be whole.
    Refused,
    /// NULL, or the type's default where the column has no NULL: a tombstone needs its key and nothing else.
    Default,
}

impl TableBuilder {
    /// Appends a row, of which there is a cell for every column of the source table; `formats` is the event's table map.
    ///
    /// # Errors
    /// As [`TableBuilder::push_image_row`].
    pub fn push_cells(
        &mut self,
        formats: &[ImageFormat],
        cells: &[Cell<'_>],
        absent: Absent,
    ) -> Result<()> {
        let mut ordinal = 0;
        match self.cells_row(formats, cells, absent, &mut ordinal) {
            Ok(()) => {
                self.row_count += 1;
                Ok(())
            }
            Err(error) => {
                let place = self.included.get(ordinal).copied().flatten();
                Err(self.undo(error, place))
            }
        }
    }

    fn cells_row(
        &mut self,
        formats: &[ImageFormat],
        cells: &[Cell<'_>],
        absent: Absent,
        place: &mut usize,
    ) -> Result<(), DecodeError> {
        *place = usize::MAX;
        let recorded = self.included.len();
        if formats.len() != recorded || cells.len() != recorded {
            let found = formats.len();
            return Err(DecodeError::ColumnCount { found, recorded });
        }
        let columns = formats.iter().zip(cells).zip(&self.included);
        for (ordinal, ((format, cell), included)) in columns.enumerate() {
            *place = ordinal;
            let Some(index) = *included else { continue };
            let Some(column) = self.columns.get_mut(index) else {
                continue;
            };
            match *cell {
                Cell::Null => push_null(column, self.nullable.get(index))?,
                Cell::Absent if absent == Absent::Default => column.push_absent(),
                Cell::Absent => return Err(DecodeError::AbsentColumn),
                Cell::Value(mut bytes) => {
                    column.push_image(*format, &mut bytes)?;
                    if !bytes.is_empty() {
                        return Err(DecodeError::TrailingBytes);
                    }
                }
                Cell::Changed { document, changes } => {
                    push_changed(column, *format, document, changes)?;
                }
            }
        }
        Ok(())
    }
}

fn push_changed(
    column: &mut ColumnBuilder,
    format: ImageFormat,
    mut document: &[u8],
    mut changes: &[u8],
) -> Result<(), DecodeError> {
    let Layout::Json(prefix) = format.layout()? else {
        return Err(DecodeError::Mismatch(format.wire_type));
    };
    let document = take_prefixed(prefix, &mut document)?;
    let changes = take_prefixed(prefix, &mut changes)?;
    column.push_changed_document(document, changes)
}
