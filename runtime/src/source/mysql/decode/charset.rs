//! From a column's charset to UTF-8, for row images; the load's sessions speak utf8mb4.

use super::super::types::Charset;
use super::DecodeError;

/// What the server prints for a code that is no character.
const NO_CHARACTER: char = '?';

/// Appends `bytes` to `out` as UTF-8.
#[inline]
pub(super) fn transcode(
    charset: Charset,
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    match charset {
        Charset::Utf8 => out.extend_from_slice(bytes),
        Charset::Latin1 => latin1(bytes, out),
        Charset::Utf16Be => utf16(bytes, u16::from_be_bytes, out)?,
        Charset::Utf16Le => utf16(bytes, u16::from_le_bytes, out)?,
        Charset::Utf32 => utf32(bytes, out)?,
    }
    Ok(())
}

/// Windows-1252 from 0x80 on. The five bytes that it leaves undefined are control characters to the server
/// (pitfall 20), as they are here.
const LATIN1_HIGH: [char; 32] = [
    '\u{20ac}', '\u{81}', '\u{201a}', '\u{192}', '\u{201e}', '\u{2026}', '\u{2020}', '\u{2021}',
    '\u{2c6}', '\u{2030}', '\u{160}', '\u{2039}', '\u{152}', '\u{8d}', '\u{17d}', '\u{8f}',
    '\u{90}', '\u{2018}', '\u{2019}', '\u{201c}', '\u{201d}', '\u{2022}', '\u{2013}', '\u{2014}',
    '\u{2dc}', '\u{2122}', '\u{161}', '\u{203a}', '\u{153}', '\u{9d}', '\u{17e}', '\u{178}',
];

fn latin1(bytes: &[u8], out: &mut Vec<u8>) {
    if bytes.is_ascii() {
        out.extend_from_slice(bytes);
        return;
    }
    for byte in bytes {
        let character = match usize::from(*byte).checked_sub(0x80) {
            Some(high) => LATIN1_HIGH.get(high).copied().unwrap_or(char::from(*byte)),
            None => char::from(*byte),
        };
        push(character, out);
    }
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let (units, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(DecodeError::BadLength);
    }
    for character in char::decode_utf16(units.iter().map(|pair| unit(*pair))) {
        push(character.unwrap_or(NO_CHARACTER), out);
    }
    Ok(())
}

fn utf32(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let (units, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(DecodeError::BadLength);
    }
    for unit in units {
        push(
            char::from_u32(u32::from_be_bytes(*unit)).unwrap_or(NO_CHARACTER),
            out,
        );
    }
    Ok(())
}

#[inline]
fn push(character: char, out: &mut Vec<u8>) {
    let mut buffer = [0; 4];
    out.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(charset: Charset, bytes: &[u8]) -> Result<String, DecodeError> {
        let mut out = Vec::new();
        transcode(charset, bytes, &mut out)?;
        Ok(String::from_utf8(out).expect("valid"))
    }

    #[test]
    fn latin1_is_windows_1252_with_its_holes_as_control_characters() {
        assert_eq!(text(Charset::Latin1, b"plain"), Ok("plain".into()));
        assert_eq!(
            text(
                Charset::Latin1,
                &[0x80, 0x81, 0x8d, 0x8f, 0x90, 0x9d, 0x9f, 0xa0, 0xe9, 0xff]
            ),
            Ok("\u{20ac}\u{81}\u{8d}\u{8f}\u{90}\u{9d}\u{178}\u{a0}é\u{ff}".into())
        );
    }

    #[test]
    fn wide_charsets_become_utf_8() {
        assert_eq!(
            text(Charset::Utf16Be, &[0, b'a', 0xd8, 0x3d, 0xde, 0x00]),
            Ok("a\u{1f600}".into())
        );
        assert_eq!(
            text(Charset::Utf16Le, &[b'a', 0, 0x3d, 0xd8, 0x00, 0xde]),
            Ok("a\u{1f600}".into())
        );
        assert_eq!(
            text(Charset::Utf32, &[0, 1, 0xf6, 0]),
            Ok("\u{1f600}".into())
        );
        assert_eq!(text(Charset::Utf16Be, &[0xd8, 0x3d]), Ok("?".into()));
        assert_eq!(text(Charset::Utf16Be, &[0]), Err(DecodeError::BadLength));
        assert_eq!(
            text(Charset::Utf32, &[0, 1, 0xf6]),
            Err(DecodeError::BadLength)
        );
    }
}
