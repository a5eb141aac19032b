//! From a column's charset to UTF-8, for rows of the load and of the stream alike.
//!
//! Both paths meet the bytes as the table stores them: a row image holds nothing else (pitfall 20), and the load's
//! sessions set `character_set_results` to NULL, so that the server converts nothing. The one decoder here then gives
//! the one text; the server's own conversion, which prints `?` for what it cannot convert, takes no part.
//!
//! A value is text or its stored bytes, never a mixture: where any part of it stands for no character, the whole value
//! stays as it is stored. Such bytes exist in every charset with holes, since the servers store an unassigned code
//! without a word. Nothing is lost in this way, and what is not valid UTF-8 at the destination is known to be the stored
//! bytes. Values of utf8mb3, utf8mb4 and ascii columns are their stored bytes in any case (pitfall 21).
//!
//! U+FFFD is no character: the servers' tables of big5 and tis620 name it for codes that stand for nothing.
//!
//! Some charsets code a character twice: cp932 has 396 such characters. To the source two keys may differ in that alone,
//! and at the destination they would be one key. So a key must hold every character in the coding that the server itself
//! chooses for it, see [`Charset::decode_key`].

mod collation;
mod table;

use super::DecodeError;
pub use collation::charset_of_collation;
use table::CodeTable;

/// How a charset's bytes become UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charset {
    /// UTF-8 or a subset of it: the bytes stay as they are.
    Utf8,
    /// UTF-16, high byte first, without surrogates.
    Ucs2,
    /// UTF-16, high byte first.
    Utf16Be,
    /// UTF-16, low byte first.
    Utf16Le,
    /// UTF-32, high byte first.
    Utf32,
    /// A charset with a table of its codes.
    Coded(&'static CodeTable),
}

impl Charset {
    /// The charset of that name; none for one that neither server ships.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "utf8mb4" | "utf8mb3" | "utf8" | "ascii" | "binary" => Charset::Utf8,
            "ucs2" => Charset::Ucs2,
            "utf16" => Charset::Utf16Be,
            "utf16le" => Charset::Utf16Le,
            "utf32" => Charset::Utf32,
            _ => Charset::Coded(CodeTable::named(name)?),
        })
    }

    /// Appends a value to `out`; false where it is no text and its stored bytes were appended.
    #[inline]
    pub(super) fn decode(self, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let decoded = match self {
            Charset::Utf8 => None,
            Charset::Ucs2 => ucs2(bytes, out),
            Charset::Utf16Be => utf16(bytes, u16::from_be_bytes, out),
            Charset::Utf16Le => utf16(bytes, u16::from_le_bytes, out),
            Charset::Utf32 => utf32(bytes, out),
            Charset::Coded(table) => table.decode(bytes, out),
        };
        if decoded.is_none() {
            out.truncate(start);
            out.extend_from_slice(bytes);
        }
        decoded.is_some() || self == Charset::Utf8
    }

    /// As [`Charset::decode`], for a key.
    ///
    /// # Errors
    /// `AmbiguousKey` where another value of the column could become the same bytes: one with another coding of a
    /// character, or stored bytes that look like a text.
    pub(super) fn decode_key(self, bytes: &[u8], out: &mut Vec<u8>) -> Result<bool, DecodeError> {
        let decoded = self.decode(bytes, out);
        let twin = match self {
            Charset::Utf8 => false,
            _ if !decoded => std::str::from_utf8(bytes).is_ok(),
            Charset::Coded(table) => table.has_second_coding(bytes),
            _ => false,
        };
        if twin {
            Err(DecodeError::AmbiguousKey)
        } else {
            Ok(decoded)
        }
    }

    /// A value as text; none where it is no text.
    pub fn text(self, bytes: &[u8]) -> Option<String> {
        let mut out = Vec::with_capacity(bytes.len());
        self.decode(bytes, &mut out)
            .then(|| String::from_utf8(out).ok())
            .flatten()
    }

    /// The characters of a value as its charset codes them, up to the first code that is none; nothing for forms of
    /// Unicode.
    pub fn characters(self, bytes: &[u8]) -> Vec<&[u8]> {
        match self {
            Charset::Coded(table) => table.characters(bytes).collect(),
            _ => Vec::new(),
        }
    }

    /// Characters above ASCII as the charset codes them, about `count`, spread evenly; none for forms of Unicode.
    pub fn samples(self, count: usize) -> Vec<Vec<u8>> {
        match self {
            Charset::Coded(table) => table.samples(count),
            _ => Vec::new(),
        }
    }
}

fn ucs2(bytes: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (units, []) = bytes.as_chunks::<2>() else {
        return None;
    };
    for unit in units {
        push(char::from_u32(u16::from_be_bytes(*unit).into())?, out);
    }
    Some(())
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16, out: &mut Vec<u8>) -> Option<()> {
    let (units, []) = bytes.as_chunks::<2>() else {
        return None;
    };
    for character in char::decode_utf16(units.iter().map(|pair| unit(*pair))) {
        push(character.ok()?, out);
    }
    Some(())
}

fn utf32(bytes: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (units, []) = bytes.as_chunks::<4>() else {
        return None;
    };
    for unit in units {
        push(char::from_u32(u32::from_be_bytes(*unit))?, out);
    }
    Some(())
}

#[inline]
fn push(character: char, out: &mut Vec<u8>) {
    let mut buffer = [0; 4];
    out.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes());
}

#[cfg(test)]
#[path = "charset_tests.rs"]
mod tests;
