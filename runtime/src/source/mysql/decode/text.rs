//! Texts and labels on their way into a column's bytes.

use super::DecodeError;
use super::charset::Charset;
use super::values::ByteValues;

/// Appends a text as UTF-8; false where it is none and its stored bytes were appended.
#[inline]
pub(super) fn push_text(
    charset: Charset,
    key: bool,
    values: &mut ByteValues,
    bytes: &[u8],
) -> Result<bool, DecodeError> {
    if let Charset::Utf8 = charset {
        values.push(bytes)?;
        return Ok(true);
    }
    let mut text = true;
    values.push_with(|out| {
        text = match key {
            true => charset.decode_key(bytes, out)?,
            false => charset.decode(bytes, out),
        };
        Ok(())
    })?;
    Ok(text)
}

/// Appends the label of that number. Number 0 is what the server stored for a value that is no label; it reads as ''
/// (pitfall 14).
#[inline]
pub(super) fn push_label(
    labels: &[String],
    number: u64,
    values: &mut ByteValues,
) -> Result<(), DecodeError> {
    match number.checked_sub(1) {
        None => {
            values.push_empty();
            Ok(())
        }
        Some(index) => values.push(label(labels, index)?.as_bytes()),
    }
}

#[inline]
fn label(labels: &[String], index: u64) -> Result<&str, DecodeError> {
    usize::try_from(index)
        .ok()
        .and_then(|index| labels.get(index))
        .map(String::as_str)
        .ok_or(DecodeError::UnknownLabel)
}

/// Appends the labels of the bits that are set, in declared order (pitfall 16).
pub(super) fn push_set(
    labels: &[String],
    bits: u64,
    values: &mut ByteValues,
) -> Result<(), DecodeError> {
    values.push_with(|out| print_set(labels, bits, out))
}

fn print_set(labels: &[String], bits: u64, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let (mut rest, mut first) = (bits, true);
    while rest != 0 {
        if !first {
            out.push(b',');
        }
        first = false;
        out.extend_from_slice(label(labels, rest.trailing_zeros().into())?.as_bytes());
        rest &= rest - 1;
    }
    Ok(())
}
