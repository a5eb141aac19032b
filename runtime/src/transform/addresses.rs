//! UUIDs and addresses as plugins see them: text, in the canonical forms of RFC 9562 and RFC 5952. The contract has no
//! type of 16 bytes, and who masks or filters such a column thinks of its text.

use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::UInt32Type;

use crate::batch::ColumnType;

/// The most bytes that the text of one such value takes; none for other types, which cross as they are.
pub(super) fn text_width(column_type: ColumnType) -> Option<usize> {
    match column_type {
        ColumnType::Uuid => Some(36),
        ColumnType::Inet4 => Some(15),
        ColumnType::Inet6 => Some(39),
        _ => None,
    }
}

/// The column as plugins see it, with texts where it holds UUIDs or addresses.
pub(super) fn as_seen(column: &ArrayRef, column_type: ColumnType) -> ArrayRef {
    let Some(width) = text_width(column_type) else {
        return Arc::clone(column);
    };
    let mut texts = Texts::with_capacity(column.len(), width);
    match column_type {
        ColumnType::Inet4 => {
            for address in column.as_primitive::<UInt32Type>().values() {
                texts.push(|out| write!(out, "{}", Ipv4Addr::from(*address)));
            }
        }
        ColumnType::Uuid => {
            for uuid in sixteens(column) {
                texts.push(|out| print_uuid(*uuid, out));
            }
        }
        _ => {
            for address in sixteens(column) {
                texts.push(|out| write!(out, "{}", Ipv6Addr::from(*address)));
            }
        }
    }
    Arc::new(BinaryArray::new(
        OffsetBuffer::new(ScalarBuffer::from(texts.ends)),
        Buffer::from_vec(texts.bytes),
        column.nulls().cloned(),
    ))
}

/// The values of 16 bytes, NULLs too.
fn sixteens(column: &ArrayRef) -> &[[u8; 16]] {
    column.as_fixed_size_binary().values().as_chunks().0
}

struct Texts {
    ends: Vec<i32>,
    bytes: Vec<u8>,
}

impl Texts {
    fn with_capacity(count: usize, width: usize) -> Self {
        let mut ends = Vec::with_capacity(count + 1);
        ends.push(0);
        Self {
            ends,
            bytes: Vec::with_capacity(count * width),
        }
    }

    fn push(&mut self, print: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) {
        print(&mut self.bytes).expect("writing to memory does not fail");
        let end = i32::try_from(self.bytes.len()).expect("a call has at most 65,536 rows");
        self.ends.push(end);
    }
}

fn print_uuid(uuid: [u8; 16], out: &mut Vec<u8>) -> std::io::Result<()> {
    for (index, byte) in uuid.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        write!(out, "{byte:02x}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use arrow::array::{FixedSizeBinaryArray, UInt32Array};

    use super::*;

    fn seen(column: ArrayRef, column_type: ColumnType) -> Vec<Option<String>> {
        let seen = as_seen(&column, column_type);
        let texts = seen.as_binary::<i32>().iter();
        texts
            .map(|text| text.map(|text| String::from_utf8(text.to_vec()).expect("ASCII")))
            .collect()
    }

    #[test]
    fn plugins_see_text_of_the_rows_that_they_are_given() {
        let uuid: [u8; 16] = std::array::from_fn(|n| n as u8);
        let sixteen = |values: Vec<Option<[u8; 16]>>| -> ArrayRef {
            let array =
                FixedSizeBinaryArray::try_from_sparse_iter_with_size(values.into_iter(), 16);
            Arc::new(array.expect("16 bytes each"))
        };
        let column = sixteen(vec![Some([9; 16]), Some(uuid), None]);
        assert_eq!(
            seen(column.slice(1, 2), ColumnType::Uuid),
            [
                Some("00010203-0405-0607-0809-0a0b0c0d0e0f".to_owned()),
                None
            ]
        );
        let mut mapped = [0; 16];
        mapped[10..].copy_from_slice(&[255, 255, 1, 2, 3, 4]);
        assert_eq!(
            seen(
                sixteen(vec![Some(mapped), Some([0; 16])]),
                ColumnType::Inet6
            ),
            [Some("::ffff:1.2.3.4".to_owned()), Some("::".to_owned())]
        );
        let inet4: ArrayRef = Arc::new(UInt32Array::from(vec![Some(0x0102_03ff), None]));
        assert_eq!(
            seen(inet4, ColumnType::Inet4),
            [Some("1.2.3.255".to_owned()), None]
        );
    }

    #[test]
    fn other_columns_pass_by_reference() {
        let column: ArrayRef = Arc::new(UInt32Array::from(vec![1]));
        assert!(Arc::ptr_eq(&column, &as_seen(&column, ColumnType::UInt32)));
    }
}
