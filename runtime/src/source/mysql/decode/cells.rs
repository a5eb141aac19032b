//! Row images that leave columns out or hold only parts of documents, column by column.
//!
//! The images of such an event have to be looked at together before anything of a row can be decoded: a column that the
//! after image leaves out is as the before image has it, and a changed document is the old one with changes (pitfalls
//! 28, 44, 45). So they are taken apart into [`Cell`]s that still are raw bytes; images that hold every column never
//! come this way.

use super::cursor::{take, take_lenenc_uint};
use super::image::{Layout, Presence, RowStart, bit};
use super::{DecodeError, ImageFormat};

/// One column of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell<'a> {
    /// The image leaves it out: unchanged, and never NULL.
    Absent,
    /// NULL.
    Null,
    /// The bytes of a value as the image holds them, with their length prefix.
    Value(&'a [u8]),
    /// A JSON document as it was, and the changes that make it what it is; both with their length prefix.
    Changed {
        /// The value of the before image.
        document: &'a [u8],
        /// The changes, one behind the other.
        changes: &'a [u8],
    },
}

/// Takes one row image off the front of `cursor`, a cell for each format.
///
/// # Errors
/// When the image ends early or a format is unknown.
pub fn take_cells<'a>(
    formats: &[ImageFormat],
    present: &'a [u8],
    cursor: &mut &'a [u8],
    cells: &mut Vec<Cell<'a>>,
) -> Result<(), DecodeError> {
    cells.clear();
    let mut row = RowStart::take(formats.len(), present, cursor)?;
    for (ordinal, format) in formats.iter().enumerate() {
        cells.push(match row.next(ordinal) {
            Presence::Absent => Cell::Absent,
            Presence::Null => Cell::Null,
            Presence::Value => Cell::Value(take(cursor, format.value_length(cursor)?)?),
        });
    }
    Ok(())
}

/// The row's options that say: some documents come as changes.
const PARTIAL_JSON: u64 = 1;

/// Takes the front of an after image that may hold changes of documents: its options, and where they say so a bit for
/// each JSON column of the table, whether the image holds the column or not. No bits where all documents are whole.
///
/// # Errors
/// When the image ends early or has options that this build does not know.
pub fn take_changed_documents<'a>(
    formats: &[ImageFormat],
    cursor: &mut &'a [u8],
) -> Result<&'a [u8], DecodeError> {
    match take_lenenc_uint(cursor)? {
        0 => Ok(&[]),
        PARTIAL_JSON => {
            let documents = formats.iter().filter(|format| format.is_json()).count();
            take(cursor, documents.div_ceil(8))
        }
        _ => Err(DecodeError::BadValue("options of a row image")),
    }
}

/// The row as the after image leaves it, into `row`: what `after` holds, and `before` where that leaves out. `changed` is
/// what [`take_changed_documents`] found.
///
/// # Errors
/// When a document that was NULL is said to have changed in part.
pub fn merge_cells<'a>(
    formats: &[ImageFormat],
    before: &[Cell<'a>],
    after: &[Cell<'a>],
    changed: &[u8],
    row: &mut Vec<Cell<'a>>,
) -> Result<(), DecodeError> {
    row.clear();
    let mut documents = 0;
    for ((format, before), after) in formats.iter().zip(before).zip(after) {
        let in_parts = format.is_json() && {
            documents += 1;
            bit(changed, documents - 1)
        };
        row.push(match (*after, *before) {
            (Cell::Absent, unchanged) => unchanged,
            (Cell::Value(changes), Cell::Value(document)) if in_parts => {
                Cell::Changed { document, changes }
            }
            // Nobody knows what has changed: the row has to be read.
            (Cell::Value(_), Cell::Absent) if in_parts => Cell::Absent,
            (Cell::Value(_), _) if in_parts => {
                return Err(DecodeError::BadJson("parts of a document that is NULL"));
            }
            (value, _) => value,
        });
    }
    Ok(())
}

impl ImageFormat {
    /// Whether values are JSON documents in binary form.
    #[inline]
    pub(super) fn is_json(self) -> bool {
        matches!(self.layout(), Ok(Layout::Json(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: ImageFormat = ImageFormat {
        wire_type: 3,
        meta: 0,
    };
    const JSON: ImageFormat = ImageFormat {
        wire_type: 245,
        meta: 4,
    };

    #[test]
    fn null_bits_count_present_columns_only() {
        // Pitfall 44: of three columns the second is left out, so the third's bit is the second one.
        let image = [0b10, 7, 0, 0, 0, 99];
        let mut cursor = image.as_slice();
        let mut cells = Vec::new();
        take_cells(&[LONG, LONG, LONG], &[0b101], &mut cursor, &mut cells).unwrap();
        assert_eq!(
            cells,
            [Cell::Value(&[7, 0, 0, 0]), Cell::Absent, Cell::Null]
        );
        assert_eq!(cursor, [99]);
    }

    #[test]
    fn a_column_that_the_after_image_leaves_out_is_as_before_and_null_is_null() {
        let before = [Cell::Value(&[1]), Cell::Value(&[2]), Cell::Absent];
        let after = [Cell::Absent, Cell::Null, Cell::Absent];
        let mut row = Vec::new();
        merge_cells(&[LONG; 3], &before, &after, &[], &mut row).unwrap();
        assert_eq!(row, [Cell::Value(&[1]), Cell::Null, Cell::Absent]);
    }

    #[test]
    fn a_bit_for_each_document_of_the_table_says_which_came_in_parts() {
        let formats = [LONG, JSON, LONG, JSON, JSON];
        // Options 1, then three bits: the second and third document.
        let mut cursor = [1, 0b110, 42].as_slice();
        let changed = take_changed_documents(&formats, &mut cursor).unwrap();
        assert_eq!((changed, cursor), ([0b110].as_slice(), [42].as_slice()));
        let value = |byte: &'static [u8]| Cell::Value(byte);
        let before = [
            value(&[0]),
            value(&[1]),
            value(&[2]),
            value(&[3]),
            Cell::Absent,
        ];
        let after = [
            value(&[9]),
            value(&[8]),
            value(&[7]),
            value(&[6]),
            value(&[5]),
        ];
        let mut row = Vec::new();
        merge_cells(&formats, &before, &after, changed, &mut row).unwrap();
        assert_eq!(row[1], value(&[8]));
        assert_eq!(
            row[3],
            Cell::Changed {
                document: &[3],
                changes: &[6]
            }
        );
        assert_eq!(row[4], Cell::Absent, "its document is nowhere");
        let before = [Cell::Null; 5];
        merge_cells(&formats, &before, &after, changed, &mut row).unwrap_err();
    }

    #[test]
    fn options_without_parts_and_unknown_ones() {
        let mut cursor = [0, 42].as_slice();
        assert!(
            take_changed_documents(&[JSON], &mut cursor)
                .unwrap()
                .is_empty()
        );
        assert_eq!(cursor, [42]);
        take_changed_documents(&[JSON], &mut [2, 0].as_slice()).unwrap_err();
        take_changed_documents(&[JSON], &mut [1].as_slice()).unwrap_err();
    }
}
