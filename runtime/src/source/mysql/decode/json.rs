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

/// Digits left of the point past which the server turns to exponents, unless digits stand right of it too.
const MAX_POINT: i32 = 15;

/// Appends the shortest digits that read back as `number`, laid out as the server does: no exponent while the point is
/// within 15 places of the digits, no plus sign in one, and `.0` where nothing else would show a double.
fn print_double(number: f64, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    const BAD: DecodeError = DecodeError::BadJson("number");
    if !number.is_finite() {
        return Err(BAD);
    }
    // `d.ddddde-nnn`: 23 bytes at most.
    let mut buffer = [0u8; 40];
    let mut space = &mut buffer[..];
    write!(space, "{:e}", number.abs()).map_err(|_| BAD)?;
    let length = 40 - space.len();
    let text = buffer.get_mut(..length).ok_or(BAD)?;
    let mark = text.iter().position(|byte| *byte == b'e').ok_or(BAD)?;
    let (mantissa, exponent) = text.split_at_mut(mark);
    let exponent: i32 = std::str::from_utf8(exponent.get(1..).ok_or(BAD)?)
        .ok()
        .and_then(|exponent| exponent.parse().ok())
        .ok_or(BAD)?;
    let digit_count = mantissa.len().max(2) as i32 - 1;
    // Where two shortest texts are equally near, Rust takes the upper one and the server the even one.
    if places(number) == Some(digit_count - exponent)
        && let Some(last) = mantissa.last_mut()
        && *last % 2 == 1
    {
        *last -= 1;
    }
    let (first, rest) = mantissa.split_first().ok_or(BAD)?;
    let rest = rest.get(1..).unwrap_or(&[]);
    // The point stands behind that many digits.
    let point = exponent + 1;
    if number.is_sign_negative() {
        out.push(b'-');
    }
    let plain = point > -MAX_POINT && (point <= MAX_POINT || digit_count > point);
    if !plain {
        out.push(*first);
        if !rest.is_empty() {
            out.push(b'.');
            out.extend_from_slice(rest);
        }
        return write!(out, "e{exponent}").map_err(|_| BAD);
    }
    let digits = std::iter::once(first).chain(rest).copied();
    if point <= 0 {
        out.extend_from_slice(b"0.");
        out.extend(std::iter::repeat_n(b'0', point.unsigned_abs() as usize));
        out.extend(digits);
        return Ok(());
    }
    for (index, digit) in digits.enumerate() {
        if index as i32 == point {
            out.push(b'.');
        }
        out.push(digit);
    }
    if digit_count <= point {
        out.extend(std::iter::repeat_n(b'0', (point - digit_count) as usize));
        out.extend_from_slice(b".0");
    }
    Ok(())
}

/// The decimal places that it takes to write `number` out in full, the last of which is then a 5; none for a whole
/// number.
fn places(number: f64) -> Option<i32> {
    let bits = number.to_bits();
    let exponent = (bits >> 52 & 0x7ff) as i32;
    let fraction = bits & ((1 << 52) - 1);
    let mantissa = if exponent == 0 {
        fraction
    } else {
        fraction | 1 << 52
    };
    // The number is an odd one divided by 2 to the power of this.
    let power = 1075 - exponent.max(1) - mantissa.trailing_zeros() as i32;
    (mantissa != 0 && power > 0).then_some(power)
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
