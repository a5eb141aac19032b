//! DECIMAL as a mantissa: from text, which the binary protocol sends, and from the groups of nine digits of a row image.

use arrow::datatypes::i256;

use super::DecodeError;
use super::cursor::{take, take_be};

/// Digits that a `u128` certainly holds.
const HALF_DIGITS: u32 = 38;

/// Digits of a value inside JSON: the servers calculate with nine groups of nine.
const PRINTED_DIGITS_MAX: usize = 81;

/// Bytes that a group of that many digits takes.
const GROUP_BYTES: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];

/// The bytes of a DECIMAL(`precision`, `scale`) in a row image; none where no such DECIMAL exists.
pub(super) fn image_length(precision: u8, scale: u8) -> Option<usize> {
    if precision == 0 || precision > 65 || scale > 30 {
        return None;
    }
    group_bytes(precision, scale)
}

/// The bytes of so many digits; none for more after the point than there are.
fn group_bytes(precision: u8, scale: u8) -> Option<usize> {
    let (whole, fraction) = (
        usize::from(precision.checked_sub(scale)?),
        usize::from(scale),
    );
    Some(
        whole / 9 * 4
            + GROUP_BYTES.get(whole % 9)?
            + fraction / 9 * 4
            + GROUP_BYTES.get(fraction % 9)?,
    )
}

/// Unsigned digits in two halves, so that 65 of them need no wide arithmetic until the end.
#[derive(Default)]
struct Digits {
    high: u128,
    high_digits: u32,
    low: u128,
    low_digits: u32,
}

impl Digits {
    /// Appends `count` digits of the value `group`.
    #[inline]
    fn push(&mut self, group: u64, count: u32) -> Result<(), DecodeError> {
        if self.low_digits == 0 && self.high_digits + count <= HALF_DIGITS {
            self.high = self.high * u128::from(10u64.pow(count)) + u128::from(group);
            self.high_digits += count;
            return Ok(());
        }
        if self.low_digits + count > HALF_DIGITS {
            return Err(DecodeError::BadLength);
        }
        self.low = self.low * u128::from(10u64.pow(count)) + u128::from(group);
        self.low_digits += count;
        Ok(())
    }

    fn narrow(&self, negative: bool) -> Result<i128, DecodeError> {
        if self.low_digits != 0 {
            return Err(DecodeError::BadLength);
        }
        // Below 10^38, so it fits.
        let value = self.high.cast_signed();
        Ok(if negative { -value } else { value })
    }

    fn wide(&self, negative: bool) -> i256 {
        let shift = i256::from_i128(10i128.pow(self.low_digits));
        let value = i256::from_parts(self.high, 0)
            .wrapping_mul(shift)
            .wrapping_add(i256::from_parts(self.low, 0));
        if negative {
            value.wrapping_neg()
        } else {
            value
        }
    }
}

/// The mantissa of `text` at `scale`, for columns of up to 38 digits.
#[inline]
pub(super) fn narrow_from_text(text: &[u8], scale: u8) -> Result<i128, DecodeError> {
    // What most columns hold: up to 18 digits, in one register.
    if text.len() <= 18 {
        let (negative, text) = sign(text);
        let (mut value, mut point, mut digits) = (0u64, None, 0u32);
        for byte in text {
            match byte {
                b'0'..=b'9' => {
                    value = value * 10 + u64::from(byte - b'0');
                    digits += 1;
                }
                b'.' if point.is_none() => point = Some(digits),
                _ => return Err(DecodeError::BadValue("decimal digits")),
            }
        }
        if digits == 0 {
            return Err(DecodeError::BadValue("decimal digits"));
        }
        let fraction = digits - point.unwrap_or(digits);
        let missing = u32::from(scale)
            .checked_sub(fraction)
            .ok_or(DecodeError::BadValue("decimal scale"))?;
        let value = if missing == 0 {
            i128::from(value)
        } else {
            10i128
                .checked_pow(missing)
                .and_then(|shift| shift.checked_mul(i128::from(value)))
                .ok_or(DecodeError::BadValue("decimal digits"))?
        };
        return Ok(if negative { -value } else { value });
    }
    let (negative, digits) = digits_of_text(text, scale)?;
    digits.narrow(negative)
}

/// The mantissa of `text` at `scale`, for columns of more than 38 digits.
pub(super) fn wide_from_text(text: &[u8], scale: u8) -> Result<i256, DecodeError> {
    let (negative, digits) = digits_of_text(text, scale)?;
    Ok(digits.wide(negative))
}

/// The mantissa of a row image's value, for columns of up to 38 digits.
pub(super) fn narrow_from_image(
    precision: u8,
    scale: u8,
    cursor: &mut &[u8],
) -> Result<i128, DecodeError> {
    let (negative, digits) = digits_of_image(precision, scale, cursor)?;
    digits.narrow(negative)
}

/// The mantissa of a row image's value, for columns of more than 38 digits.
pub(super) fn wide_from_image(
    precision: u8,
    scale: u8,
    cursor: &mut &[u8],
) -> Result<i256, DecodeError> {
    let (negative, digits) = digits_of_image(precision, scale, cursor)?;
    Ok(digits.wide(negative))
}

/// Appends the text that the server prints for a DECIMAL in its binary form. Inside JSON that may have more digits than
/// a column's, zeros at the front: MySQL 9.7 gives more than 65 to `CAST(REPEAT('9', 60) AS DECIMAL(65,5))`.
pub(super) fn print(
    precision: u8,
    scale: u8,
    cursor: &mut &[u8],
    out: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    let mut text = [b'0'; PRINTED_DIGITS_MAX];
    let digits = text.get_mut(..usize::from(precision));
    let digits = digits.ok_or(DecodeError::BadLength)?;
    let mut places = digits.iter_mut();
    let negative = groups_of_image(precision, scale, cursor, |group, count| {
        for place in (0..count).rev() {
            if let Some(digit) = places.next() {
                *digit = b'0' + (group / 10u64.pow(place) % 10) as u8;
            }
        }
        Ok(())
    })?;
    let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
    let first = whole.iter().position(|byte| *byte != b'0');
    if negative && (first.is_some() || fraction.iter().any(|byte| *byte != b'0')) {
        out.push(b'-');
    }
    out.extend_from_slice(match first {
        Some(first) => whole.get(first..).unwrap_or(b"0"),
        None => b"0",
    });
    if scale > 0 {
        out.push(b'.');
        out.extend_from_slice(fraction);
    }
    Ok(())
}

fn sign(text: &[u8]) -> (bool, &[u8]) {
    match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, text),
    }
}

fn digits_of_text(text: &[u8], scale: u8) -> Result<(bool, Digits), DecodeError> {
    let (negative, text) = sign(text);
    let (mut digits, mut fraction, mut seen) = (Digits::default(), None, 0u32);
    for byte in text {
        match byte {
            b'0'..=b'9' => {
                digits.push(u64::from(byte - b'0'), 1)?;
                seen += 1;
                fraction = fraction.map(|count: u32| count + 1);
            }
            b'.' if fraction.is_none() => fraction = Some(0),
            _ => return Err(DecodeError::BadValue("decimal digits")),
        }
    }
    if seen == 0 {
        return Err(DecodeError::BadValue("decimal digits"));
    }
    let missing = u32::from(scale)
        .checked_sub(fraction.unwrap_or(0))
        .ok_or(DecodeError::BadValue("decimal scale"))?;
    for _ in 0..missing {
        digits.push(0, 1)?;
    }
    Ok((negative, digits))
}

/// The digits before and after the point stand in groups of nine, four bytes each, high byte first; the incomplete
/// group is the first of the whole part and the last of the fraction. The top bit is inverted, and every bit of a
/// negative number (pitfall 11).
fn digits_of_image(
    precision: u8,
    scale: u8,
    cursor: &mut &[u8],
) -> Result<(bool, Digits), DecodeError> {
    image_length(precision, scale).ok_or(DecodeError::BadLength)?;
    let mut digits = Digits::default();
    let negative = groups_of_image(precision, scale, cursor, |group, count| {
        digits.push(group, count)
    })?;
    Ok((negative, digits))
}

/// Hands on each group's value and how many digits it has; whether the number is negative.
#[inline]
fn groups_of_image(
    precision: u8,
    scale: u8,
    cursor: &mut &[u8],
    mut on_group: impl FnMut(u64, u32) -> Result<(), DecodeError>,
) -> Result<bool, DecodeError> {
    let length = group_bytes(precision, scale).ok_or(DecodeError::BadLength)?;
    let stored = take(cursor, length)?;
    let mut buffer = [0u8; 48];
    let bytes = buffer.get_mut(..length).ok_or(DecodeError::BadLength)?;
    bytes.copy_from_slice(stored);
    let first = bytes.first_mut().ok_or(DecodeError::BadLength)?;
    let negative = *first & 0x80 == 0;
    *first ^= 0x80;
    if negative {
        bytes.iter_mut().for_each(|byte| *byte = !*byte);
    }
    let (whole, fraction) = (u32::from(precision - scale), u32::from(scale));
    let mut rest = &*bytes;
    let mut take_group = |count| {
        let length = GROUP_BYTES.get(count as usize).copied().unwrap_or(0);
        if length == 0 {
            return Ok(());
        }
        let group = take_be(&mut rest, length)?;
        if group >= 10u64.pow(count) {
            return Err(DecodeError::BadValue("decimal digits"));
        }
        on_group(group, count)
    };
    take_group(whole % 9)?;
    for _ in 0..whole / 9 + fraction / 9 {
        take_group(9)?;
    }
    take_group(fraction % 9)?;
    Ok(negative)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wide(text: &str) -> i256 {
        i256::from_string(text).expect("a number")
    }

    #[test]
    fn text_becomes_a_mantissa_of_the_columns_scale() {
        assert_eq!(narrow_from_text(b"-0.05", 2), Ok(-5));
        assert_eq!(narrow_from_text(b"12", 2), Ok(1200));
        assert_eq!(narrow_from_text(b"00000012.50", 2), Ok(1250));
        assert_eq!(
            narrow_from_text(b"-99999999999999999999999999999999999999", 0),
            Ok(-(10i128.pow(38) - 1))
        );
        for bad in [&b""[..], b"-", b".", b"1.2.3", b"1.234", b"1e5", b"+1"] {
            assert!(narrow_from_text(bad, 2).is_err(), "{bad:?}");
        }
        let nines = format!("-{}.{}", "9".repeat(35), "9".repeat(30));
        assert_eq!(
            wide_from_text(nines.as_bytes(), 30),
            Ok(wide(&format!("-{}", "9".repeat(65))))
        );
        assert!(wide_from_text("9".repeat(77).as_bytes(), 0).is_err());
    }

    #[test]
    fn an_image_becomes_the_same_mantissa() {
        // 1234567890.1234 as DECIMAL(14,4), the manual's own example.
        let image = [0x81, 0x0d, 0xfb, 0x38, 0xd2, 0x04, 0xd2];
        assert_eq!(
            narrow_from_image(14, 4, &mut &image[..]),
            Ok(12_345_678_901_234)
        );
        let image = image.map(|byte| !byte);
        assert_eq!(
            narrow_from_image(14, 4, &mut &image[..]),
            Ok(-12_345_678_901_234)
        );
        assert_eq!(narrow_from_image(1, 1, &mut &[0x85u8][..]), Ok(5));
    }

    #[test]
    fn sixty_five_digits_survive_an_image() {
        // DECIMAL(65,30): 35 digits before the point (8 + 27), 30 behind (27 + 3).
        let mut image = vec![];
        image.extend_from_slice(&99_999_999u32.to_be_bytes());
        for _ in 0..6 {
            image.extend_from_slice(&999_999_999u32.to_be_bytes());
        }
        image.extend_from_slice(&999u16.to_be_bytes());
        image[0] ^= 0x80;
        assert_eq!(image_length(65, 30), Some(image.len()));
        assert_eq!(
            wide_from_image(65, 30, &mut &image[..]),
            Ok(wide(&"9".repeat(65)))
        );
        let negative: Vec<u8> = image.iter().map(|byte| !byte).collect();
        assert_eq!(
            wide_from_image(65, 30, &mut &negative[..]),
            Ok(wide(&format!("-{}", "9".repeat(65))))
        );
        let mut text = vec![];
        print(65, 30, &mut &negative[..], &mut text).expect("prints");
        assert_eq!(
            String::from_utf8(text).expect("ascii"),
            format!("-{}.{}", "9".repeat(35), "9".repeat(30))
        );
    }

    #[test]
    fn a_decimal_inside_json_may_have_more_digits_than_a_column() {
        let group = 999_999_999u32.to_be_bytes();
        let mut image = 999_999u32.to_be_bytes().to_vec();
        image[0] ^= 0x80;
        (0..6).for_each(|_| image.extend(group));
        image.extend([0, 0, 5]);
        let mut out = Vec::new();
        print(68, 5, &mut image.as_slice(), &mut out).expect("a number");
        let expected = format!("{}.00005", "9".repeat(60));
        assert_eq!(String::from_utf8(out).expect("digits"), expected);
        assert_eq!(image_length(68, 5), None, "no column has so many");
        let mut out = Vec::new();
        assert!(print(82, 5, &mut [0x80; 48].as_slice(), &mut out).is_err());
        assert!(print(3, 5, &mut [0x80; 48].as_slice(), &mut out).is_err());
    }

    #[test]
    fn a_group_of_too_many_digits_is_refused() {
        assert_eq!(
            narrow_from_image(9, 0, &mut &[0xff, 0xff, 0xff, 0xff][..]),
            Err(DecodeError::BadValue("decimal digits"))
        );
        assert_eq!(
            narrow_from_image(66, 0, &mut &[0xff; 64][..]),
            Err(DecodeError::BadLength)
        );
        assert_eq!(
            narrow_from_image(9, 0, &mut &[0x80, 0][..]),
            Err(DecodeError::Truncated)
        );
    }
}
