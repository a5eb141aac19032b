//! The decoders of a table's columns together, so that a row comes whole or not at all.

mod sparse;

use std::sync::Arc;

use arrow::array::ArrayRef;

pub use sparse::Absent;

use super::cursor::{take, take_u8};
use super::image::{Presence, RowStart, bit};
use super::{ColumnBuilder, DecodeError, ImageFormat};
use crate::batch::Adjustment;
use crate::error::{Error, ErrorKind, Result};
use crate::source::mysql::catalog::SourceTable;

/// Fills the Arrow arrays of a table's included columns, row by row, from either form.
///
/// After an error the rows before it are all there, and nothing of the row that failed.
#[derive(Debug)]
pub struct TableBuilder {
    /// One for each included column, in the order of the schema.
    columns: Vec<ColumnBuilder>,
    /// The included column of each ordinal of the source table.
    included: Vec<Option<usize>>,
    /// Whether each included column may hold NULL.
    nullable: Vec<bool>,
    /// Whether each included column is generated.
    generated: Vec<bool>,
    names: Vec<String>,
    table: crate::batch::TableName,
    row_count: usize,
}

impl TableBuilder {
    /// An empty builder for `table`; `null_as_default` as in [`ColumnBuilder::new`], for columns without a choice of their own.
    ///
    /// # Errors
    /// As [`ColumnBuilder::new`]; `Internal` when the table's columns and its schema contradict each other.
    pub fn new(table: &SourceTable, null_as_default: bool) -> Result<Self> {
        let schema = &table.schema.columns;
        let mut columns: Vec<Option<ColumnBuilder>> = schema.iter().map(|_| None).collect();
        let mut nullable = vec![false; schema.len()];
        let mut generated = vec![false; schema.len()];
        for column in &table.columns {
            let Some(index) = column.included else {
                continue;
            };
            let (Some(place), Some(described)) = (columns.get_mut(index), schema.get(index)) else {
                return Err(contradiction(table));
            };
            let fills = table.null_as_default(&column.name, null_as_default);
            let builder = ColumnBuilder::new(column, described.column_type, fills)
                .map_err(|error| error.with_table(table.name()))?
                .with_date_rule(table.date_rule(&column.name));
            *place = Some(match table.schema.key.contains(&index) {
                true => builder.of_key(),
                false => builder,
            });
            if let Some(place) = nullable.get_mut(index) {
                *place = column.nullable;
            }
            if let Some(place) = generated.get_mut(index) {
                *place = column.generated;
            }
        }
        Ok(Self {
            columns: columns
                .into_iter()
                .collect::<Option<_>>()
                .ok_or_else(|| contradiction(table))?,
            included: table.columns.iter().map(|column| column.included).collect(),
            nullable,
            generated,
            names: schema.iter().map(|column| column.name.clone()).collect(),
            table: table.name().clone(),
            row_count: 0,
        })
    }

    /// Appends a binary-protocol row that holds exactly the included columns in the schema's order; `packet` is its
    /// body with the leading zero.
    ///
    /// # Errors
    /// `SourceCorrupt` or `SchemaConflict`, with the table and column.
    #[inline]
    pub fn push_packet_row(&mut self, packet: &[u8]) -> Result<()> {
        let mut place = 0;
        match self.packet_row(packet, &mut place) {
            Ok(()) => {
                self.row_count += 1;
                Ok(())
            }
            Err(error) => Err(self.undo(error, Some(place))),
        }
    }

    /// Appends the row image at the front of `cursor`, and moves `cursor` behind it. `formats` is the event's table map,
    /// `present` its bitmap of the columns that its images hold. Columns are matched by ordinal: whether the formats fit
    /// the recorded columns is checked once a table map, by [`TableBuilder::fitted_formats`].
    ///
    /// # Errors
    /// `SourceCorrupt`, `SchemaConflict`, or `SourceSetting` where the image leaves out an included column; with the
    /// table and column.
    #[inline]
    pub fn push_image_row<'a>(
        &mut self,
        formats: &[ImageFormat],
        present: &'a [u8],
        cursor: &mut &'a [u8],
    ) -> Result<()> {
        let mut ordinal = 0;
        match self.image_row(formats, present, cursor, &mut ordinal) {
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

    /// Checks a table map against the recorded columns of `table`, which this builder was made for (pitfall 47), and
    /// gives the formats by which its images are read: the map's, with what only the recorded columns know.
    ///
    /// # Errors
    /// `SchemaConflict` that names the first column which does not fit.
    pub fn fitted_formats(
        table: &SourceTable,
        formats: &[ImageFormat],
    ) -> Result<Arc<[ImageFormat]>> {
        let recorded = table.columns.len();
        if formats.len() != recorded {
            let found = formats.len();
            return Err(
                Error::from(DecodeError::ColumnCount { found, recorded }).with_table(table.name())
            );
        }
        for (format, column) in formats.iter().zip(&table.columns) {
            if !format.fits(column) {
                return Err(
                    named(DecodeError::Mismatch(format.wire_type), Some(&column.name))
                        .with_table(table.name()),
                );
            }
        }
        Ok(formats
            .iter()
            .zip(&table.columns)
            .map(|(format, column)| format.completed(column))
            .collect())
    }

    /// The rows so far.
    #[inline]
    pub fn row_count(&self) -> usize {
        self.row_count
    }

    /// Bytes of the values so far, over all columns.
    #[inline]
    pub fn byte_count(&self) -> usize {
        self.columns.iter().map(ColumnBuilder::byte_count).sum()
    }

    /// How many values of each included column are not the source's own, by policy, since this was last asked.
    pub fn take_changed(&mut self) -> Vec<Adjustment> {
        let mut changed = Vec::new();
        for (name, column) in self.names.iter().zip(&mut self.columns) {
            for (policy, values) in column.take_changed() {
                if values > 0 {
                    changed.push(Adjustment {
                        column: name.clone(),
                        policy,
                        values,
                    });
                }
            }
        }
        changed
    }

    /// The rows so far, one array for each included column; the builder is empty afterwards.
    pub fn finish(&mut self) -> Vec<ArrayRef> {
        self.row_count = 0;
        self.columns.iter_mut().map(ColumnBuilder::finish).collect()
    }

    #[inline]
    fn packet_row(&mut self, packet: &[u8], place: &mut usize) -> Result<(), DecodeError> {
        let mut cursor = packet;
        if take_u8(&mut cursor)? != 0 {
            return Err(DecodeError::NotARow);
        }
        // Two bits of the bitmap are reserved.
        let nulls = take(&mut cursor, (self.columns.len() + 2).div_ceil(8))?;
        for (index, column) in self.columns.iter_mut().enumerate() {
            *place = index;
            if bit(nulls, index + 2) {
                push_null(column, self.nullable.get(index))?;
            } else {
                column.push_packet(&mut cursor)?;
            }
        }
        if cursor.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::TrailingBytes)
        }
    }

    #[inline]
    fn image_row<'a>(
        &mut self,
        formats: &[ImageFormat],
        present: &'a [u8],
        cursor: &mut &'a [u8],
        place: &mut usize,
    ) -> Result<(), DecodeError> {
        *place = usize::MAX;
        if formats.len() != self.included.len() {
            return Err(DecodeError::ColumnCount {
                found: formats.len(),
                recorded: self.included.len(),
            });
        }
        let mut row = RowStart::take(formats.len(), present, cursor)?;
        for (ordinal, (format, included)) in formats.iter().zip(&self.included).enumerate() {
            *place = ordinal;
            let presence = row.next(ordinal);
            let column = match included {
                Some(index) => self.columns.get_mut(*index).map(|column| (column, *index)),
                None => None,
            };
            match (presence, column) {
                (Presence::Value, Some((column, _))) => column.push_image(*format, cursor)?,
                (Presence::Value, None) => {
                    take(cursor, format.value_length(cursor)?)?;
                }
                (Presence::Null, Some((column, index))) => {
                    push_null(column, self.nullable.get(index))?;
                }
                (Presence::Absent, Some((_, index))) => return Err(self.absent(index)),
                (Presence::Null | Presence::Absent, None) => {}
            }
        }
        Ok(())
    }

    #[cold]
    fn absent(&self, index: usize) -> DecodeError {
        match self.generated.get(index) {
            Some(true) => DecodeError::AbsentGenerated,
            _ => DecodeError::AbsentColumn,
        }
    }

    #[cold]
    fn undo(&mut self, error: DecodeError, place: Option<usize>) -> Error {
        for column in &mut self.columns {
            column.truncate(self.row_count);
        }
        let name = place.and_then(|place| self.names.get(place));
        named(error, name).with_table(&self.table)
    }
}

#[inline]
fn push_null(column: &mut ColumnBuilder, nullable: Option<&bool>) -> Result<(), DecodeError> {
    if nullable != Some(&true) {
        return Err(DecodeError::UnexpectedNull);
    }
    column.push_null();
    Ok(())
}

fn named(error: DecodeError, column: Option<&String>) -> Error {
    match column {
        Some(column) => error.of_column(&format!("`{column}`")),
        None => error.into(),
    }
}

fn contradiction(table: &SourceTable) -> Error {
    Error::new(
        ErrorKind::Internal,
        "the table's columns and its schema contradict each other",
    )
    .with_table(table.name())
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
