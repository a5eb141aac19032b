//! One decoder a column type, from a packet or a row image into its Arrow builder.
//!
//! A value comes in two forms: as the binary protocol of a prepared SELECT sends it (the load), and as a row image of
//! the binlog holds it (the stream). Both end in the same buffers, so that a row is the same bytes on either way; a
//! type's two readers stand side by side in one file for that reason. The bytes are foreign: every read is checked
//! against the end, and whatever does not fit is a [`DecodeError`], after which a row leaves no trace.

mod cells;
mod charset;
mod column;
mod compressed;
mod cursor;
mod dates;
mod decimal;
mod double;
mod error;
mod geometry;
mod hires;
mod image;
mod json;
mod key_literal;
mod labels;
mod network;
mod table;
mod temporal;
mod text;
mod values;
mod vector;

pub use cells::{Cell, merge_cells, take_cells, take_changed_documents};
pub use charset::{Charset, charset_of_collation};
pub use column::ColumnBuilder;
pub use error::DecodeError;
pub use image::{ImageFormat, image_key_slices, skip_image_row};
pub use key_literal::key_literal;
pub use labels::labels_agree;
pub(super) use network::uuid_text;
pub use table::{Absent, TableBuilder};

/// Appends the text of a document in MySQL's binary form: for fuzzing, which has no row around it.
///
/// # Errors
/// As the decoder of a JSON column.
#[doc(hidden)]
pub fn print_document(document: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    json::print(document, out)
}

/// Appends the text of a document with changes made to it, likewise.
///
/// # Errors
/// As the decoder of a JSON column.
#[doc(hidden)]
pub fn print_changed_document(
    document: &[u8],
    changes: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    json::print_changed(document, changes, out)
}
