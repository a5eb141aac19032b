//! Checked reads off the front of foreign bytes.

use super::DecodeError;

/// The next `count` bytes.
#[inline]
pub(super) fn take<'a>(cursor: &mut &'a [u8], count: usize) -> Result<&'a [u8], DecodeError> {
    let (head, tail) = cursor
        .split_at_checked(count)
        .ok_or(DecodeError::Truncated)?;
    *cursor = tail;
    Ok(head)
}

/// The next `N` bytes.
#[inline]
pub(super) fn take_array<const N: usize>(cursor: &mut &[u8]) -> Result<[u8; N], DecodeError> {
    let (head, tail) = cursor
        .split_first_chunk::<N>()
        .ok_or(DecodeError::Truncated)?;
    *cursor = tail;
    Ok(*head)
}

/// The next byte.
#[inline]
pub(super) fn take_u8(cursor: &mut &[u8]) -> Result<u8, DecodeError> {
    Ok(take_array::<1>(cursor)?[0])
}

/// An unsigned number of 1 to 8 bytes, low byte first.
#[inline]
pub(super) fn take_le(cursor: &mut &[u8], count: usize) -> Result<u64, DecodeError> {
    if count > 8 {
        return Err(DecodeError::BadLength);
    }
    let bytes = take(cursor, count)?;
    Ok(bytes
        .iter()
        .rev()
        .fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

/// An unsigned number of 1 to 8 bytes, high byte first.
#[inline]
pub(super) fn take_be(cursor: &mut &[u8], count: usize) -> Result<u64, DecodeError> {
    if count > 8 {
        return Err(DecodeError::BadLength);
    }
    let bytes = take(cursor, count)?;
    Ok(bytes
        .iter()
        .fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

/// The bytes behind a length-encoded integer, the form of every string of the binary protocol.
#[inline]
pub(super) fn take_lenenc<'a>(cursor: &mut &'a [u8]) -> Result<&'a [u8], DecodeError> {
    let length = take_lenenc_uint(cursor)?;
    take(
        cursor,
        usize::try_from(length).map_err(|_| DecodeError::BadLength)?,
    )
}

/// A length-encoded integer.
#[inline]
pub(super) fn take_lenenc_uint(cursor: &mut &[u8]) -> Result<u64, DecodeError> {
    let first = take_u8(cursor)?;
    match first {
        0..=0xfa => Ok(u64::from(first)),
        0xfc => take_le(cursor, 2),
        0xfd => take_le(cursor, 3),
        0xfe => take_le(cursor, 8),
        // NULL stands in the row's bitmap, never here.
        0xfb | 0xff => Err(DecodeError::BadLength),
    }
}
