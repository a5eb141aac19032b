//! MySQL's binary JSON as the text that the server prints of it (pitfalls 24 to 27).
//!
//! The load gets a document as text from the server, the stream as bytes from the binlog; both must be the same text.
//! So members keep the stored order, `, ` and `: ` separate, and numbers are printed by the server's own rules. A
//! document can refer to any of its bytes twice, and garbage does; a budget of entries and of bytes that values take
//! beside them, which an honest document cannot pass, keeps the text's length in proportion to the document's.

mod changes;

use std::io::Write;

pub(super) use changes::print_changed;

use super::cursor::{take, take_array, take_le, take_u8};
use super::double::Digits;
use super::temporal::{print_packed, wire};
use super::{DecodeError, decimal};

/// How deep the server lets documents nest.
const MAX_DEPTH: u32 = 100;

const SMALL_OBJECT: u8 = 0;
const LARGE_OBJECT: u8 = 1;
const SMALL_ARRAY: u8 = 2;
const LARGE_ARRAY: u8 = 3;
const LITERAL: u8 = 4;
const INT16: u8 = 5;
const UINT16: u8 = 6;
const INT32: u8 = 7;
const UINT32: u8 = 8;
const INT64: u8 = 9;
const UINT64: u8 = 10;
const DOUBLE: u8 = 11;
const STRING: u8 = 12;
const OPAQUE: u8 = 15;

/// The wire type of DECIMAL, which opaque values name.
const NEWDECIMAL: u8 = 246;

/// Appends the text of `document`. One of no bytes is `null`: an ALTER that adds a NOT NULL column leaves it (pitfall
/// 26).
pub(super) fn print(document: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    if document.is_empty() {
        out.extend_from_slice(b"null");
        return Ok(());
    }
    let mut cursor = document;
    let value_type = take_u8(&mut cursor)?;
    Printer {
        budget: document.len(),
        out,
    }
    .value(value_type, cursor, 1)
}

struct Printer<'a> {
    /// Bytes of the document that may still be shown.
    budget: usize,
    out: &'a mut Vec<u8>,
}

/// The sizes of a container's own numbers.
#[derive(Clone, Copy)]
struct Width {
    bytes: usize,
}

impl Printer<'_> {
    fn spend(&mut self, count: usize) -> Result<(), DecodeError> {
        self.budget = self
            .budget
            .checked_sub(count)
            .ok_or(DecodeError::BadJson("values overlap"))?;
        Ok(())
    }

    /// Prints the value at the front of `bytes`.
    fn value(&mut self, value_type: u8, bytes: &[u8], depth: u32) -> Result<(), DecodeError> {
        let mut cursor = bytes;
        match value_type {
            SMALL_OBJECT => self.container(bytes, Width { bytes: 2 }, true, depth),
            LARGE_OBJECT => self.container(bytes, Width { bytes: 4 }, true, depth),
            SMALL_ARRAY => self.container(bytes, Width { bytes: 2 }, false, depth),
            LARGE_ARRAY => self.container(bytes, Width { bytes: 4 }, false, depth),
            LITERAL => {
                self.out.extend_from_slice(match take_u8(&mut cursor)? {
                    0 => b"null",
                    1 => b"true",
                    2 => b"false",
                    _ => return Err(DecodeError::BadJson("unknown literal")),
                });
                Ok(())
            }
            INT16 => self.integer(i16::from_le_bytes(take_array(&mut cursor)?)),
            UINT16 => self.integer(u16::from_le_bytes(take_array(&mut cursor)?)),
            INT32 => self.integer(i32::from_le_bytes(take_array(&mut cursor)?)),
            UINT32 => self.integer(u32::from_le_bytes(take_array(&mut cursor)?)),
            INT64 | UINT64 | DOUBLE => {
                // These never stand in an entry.
                self.spend(8)?;
                let bytes = take_array(&mut cursor)?;
                match value_type {
                    INT64 => self.integer(i64::from_le_bytes(bytes)),
                    UINT64 => self.integer(u64::from_le_bytes(bytes)),
                    _ => print_double(f64::from_le_bytes(bytes), self.out),
                }
            }
            STRING => {
                let text = take_counted(&mut cursor)?;
                self.spend(text.len())?;
                quote(text, self.out);
                Ok(())
            }
            OPAQUE => {
                let field_type = take_u8(&mut cursor)?;
                let content = take_counted(&mut cursor)?;
                self.spend(content.len())?;
                self.opaque(field_type, content)
            }
            _ => Err(DecodeError::BadJson("unknown type")),
        }
    }

    fn integer(&mut self, number: impl std::fmt::Display) -> Result<(), DecodeError> {
        write!(self.out, "{number}").map_err(|_| DecodeError::BadJson("number"))
    }

    fn container(
        &mut self,
        whole: &[u8],
        width: Width,
        object: bool,
        depth: u32,
    ) -> Result<(), DecodeError> {
        if depth > MAX_DEPTH {
            return Err(DecodeError::BadJson("nested too deep"));
        }
        let mut members = Members::of(whole, width, object)?;
        self.out.push(if object { b'{' } else { b'[' });
        let mut first = true;
        while let Some(member) = members.next()? {
            self.spend(1 + width.bytes)?;
            if !first {
                self.out.extend_from_slice(b", ");
            }
            first = false;
            if object {
                self.spend(member.key.len())?;
                quote(member.key, self.out);
                self.out.extend_from_slice(b": ");
            }
            self.value(member.value_type, member.bytes, depth + 1)?;
        }
        self.out.push(if object { b'}' } else { b']' });
        Ok(())
    }

    /// A value of a type that JSON lacks: numbers and times as text, all others as `base64:typeN:` and their bytes.
    fn opaque(&mut self, field_type: u8, content: &[u8]) -> Result<(), DecodeError> {
        let mut cursor = content;
        match field_type {
            NEWDECIMAL => {
                let [precision, scale] = take_array(&mut cursor)?;
                decimal::print(precision, scale, &mut cursor, self.out)
            }
            wire::DATE | wire::NEWDATE | wire::TIME | wire::DATETIME | wire::TIMESTAMP => {
                let packed = i64::from_le_bytes(take_array(&mut cursor)?);
                self.out.push(b'"');
                print_packed(field_type, packed, self.out)?;
                self.out.push(b'"');
                Ok(())
            }
            _ => {
                write!(self.out, "\"base64:type{field_type}:")
                    .map_err(|_| DecodeError::BadJson("opaque value"))?;
                print_base64(content, self.out);
                self.out.push(b'"');
                Ok(())
            }
        }
    }
}

/// An object's or array's members in stored order: its count and size, then for an object each key's offset and length,
/// then each value's type with its offset, or itself where it is short enough.
struct Members<'a> {
    whole: &'a [u8],
    width: Width,
    object: bool,
    left: usize,
    keys: &'a [u8],
    values: &'a [u8],
}

/// A member of a container: its key, empty in an array, and its value's type and bytes from its place on.
struct Member<'a> {
    key: &'a [u8],
    value_type: u8,
    bytes: &'a [u8],
}

impl<'a> Members<'a> {
    fn of(bytes: &'a [u8], width: Width, object: bool) -> Result<Self, DecodeError> {
        let mut cursor = bytes;
        let count = width.take(&mut cursor)?;
        let size = width.take(&mut cursor)?;
        let whole = bytes.get(..size).ok_or(DecodeError::Truncated)?;
        let header = 2 * width.bytes;
        let key_bytes = if object { width.bytes + 2 } else { 0 };
        let values = count
            .checked_mul(key_bytes)
            .and_then(|keys| keys.checked_add(header))
            .ok_or(DecodeError::BadLength)?;
        Ok(Self {
            whole,
            width,
            object,
            left: count,
            keys: whole.get(header..values).ok_or(DecodeError::Truncated)?,
            values: whole.get(values..).ok_or(DecodeError::Truncated)?,
        })
    }

    fn next(&mut self) -> Result<Option<Member<'a>>, DecodeError> {
        let Some(left) = self.left.checked_sub(1) else {
            return Ok(None);
        };
        self.left = left;
        let mut key = [].as_slice();
        if self.object {
            let offset = self.width.take(&mut self.keys)?;
            let length = usize::from(u16::from_le_bytes(take_array(&mut self.keys)?));
            key = self
                .whole
                .get(offset..)
                .and_then(|key| key.get(..length))
                .ok_or(DecodeError::Truncated)?;
        }
        let value_type = take_u8(&mut self.values)?;
        let mut bytes = take(&mut self.values, self.width.bytes)?;
        if !self.width.inlines(value_type) {
            let offset = self.width.take(&mut bytes)?;
            bytes = self.whole.get(offset..).ok_or(DecodeError::Truncated)?;
        }
        Ok(Some(Member {
            key,
            value_type,
            bytes,
        }))
    }
}

impl Width {
    fn take(self, cursor: &mut &[u8]) -> Result<usize, DecodeError> {
        usize::try_from(take_le(cursor, self.bytes)?).map_err(|_| DecodeError::BadLength)
    }

    /// Whether a value of that type stands in its entry rather than at an offset.
    fn inlines(self, value_type: u8) -> bool {
        match value_type {
            LITERAL | INT16 | UINT16 => true,
            INT32 | UINT32 => self.bytes == 4,
            _ => false,
        }
    }
}

/// The bytes behind a length in groups of seven bits, low group first, at most five of them.
fn take_counted<'a>(cursor: &mut &'a [u8]) -> Result<&'a [u8], DecodeError> {
    let mut length = 0u64;
    for group in 0..5 {
        let byte = take_u8(cursor)?;
        length |= u64::from(byte & 0x7f) << (7 * group);
        if byte & 0x80 == 0 {
            let length = usize::try_from(length).map_err(|_| DecodeError::BadLength)?;
            return take(cursor, length);
        }
    }
    Err(DecodeError::BadLength)
}

/// Appends `text` in quotes. Only what JSON demands is escaped, and control characters by the short forms that exist;
/// all else, DEL and non-ASCII too, stands for itself.
fn quote(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text;
    while let Some(place) = rest
        .iter()
        .position(|byte| *byte < 0x20 || matches!(byte, b'"' | b'\\'))
    {
        let (plain, special) = rest.split_at(place);
        out.extend_from_slice(plain);
        let Some((byte, tail)) = special.split_first() else {
            break;
        };
        rest = tail;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\r' => out.extend_from_slice(b"\\r"),
            other => {
                out.extend_from_slice(b"\\u00");
                for digit in [other >> 4, other & 15] {
                    out.push(if digit < 10 {
                        b'0' + digit
                    } else {
                        b'a' + digit - 10
                    });
                }
            }
        }
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// Appends a double as the server does: the shortest digits, and `.0` where nothing else would show a double.
fn print_double(number: f64, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let digits = Digits::of(number).ok_or(DecodeError::BadJson("number"))?;
    if !digits.is_plain() {
        digits.print_exponent(out);
        return Ok(());
    }
    digits.print_plain(out);
    if digits.is_whole() {
        out.extend_from_slice(b".0");
    }
    Ok(())
}

const BASE64: [u8; 64] = *b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Characters after which the server's encoder begins a new line, which JSON then escapes.
const BASE64_LINE: usize = 76;

fn print_base64(bytes: &[u8], out: &mut Vec<u8>) {
    for (index, group) in bytes.chunks(3).enumerate() {
        if index > 0 && index % (BASE64_LINE / 4) == 0 {
            out.extend_from_slice(b"\\n");
        }
        let mut padded = [0; 3];
        for (place, byte) in padded.iter_mut().zip(group) {
            *place = *byte;
        }
        let [first, second, third] = padded;
        let number = u32::from_be_bytes([0, first, second, third]);
        for place in 0..4 {
            let code = (number >> (18 - 6 * place) & 63) as usize;
            out.push(if place <= group.len() {
                BASE64.get(code).copied().unwrap_or(b'=')
            } else {
                b'='
            });
        }
    }
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
