//! Literals as values of a column's type.

use pipewright_sdk::{I256, days_since_1970};

/// A number by which integers and decimals can be compared exactly: the largest column value that is not above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    /// In units of the column's last digit, rounded down.
    pub(crate) floor: I256,
    /// Whether nothing was cut off.
    pub(crate) exact: bool,
}

/// Reads `-12.345` in units of a column with `scale` digits after the point. None when it is no number, or has more
/// digits than 256 bits hold.
pub(crate) fn bound(text: &str, scale: usize) -> Option<Bound> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let fraction = fraction.as_bytes();
    let kept = fraction.get(..scale).unwrap_or(fraction);
    let cut = fraction.get(scale..).unwrap_or_default();
    let zeros = scale.saturating_sub(fraction.len());
    let mut magnitude = U256::default();
    for digit in whole
        .bytes()
        .chain(kept.iter().copied())
        .chain(std::iter::repeat_n(b'0', zeros))
    {
        magnitude = magnitude.append_digit(digit - b'0')?;
    }
    let exact = cut.iter().all(|digit| *digit == b'0');
    let floor = match negative {
        false => magnitude.to_signed(),
        // Rounding down goes away from zero.
        true if exact => magnitude.to_signed().negated(),
        true => magnitude.to_signed().negated().minus_one(),
    };
    Some(Bound {
        floor: floor.0,
        exact,
    })
}

#[derive(Clone, Copy, Debug, Default)]
struct U256 {
    high: u128,
    low: u128,
}

impl U256 {
    fn append_digit(self, digit: u8) -> Option<Self> {
        const MASK: u128 = u64::MAX as u128;
        let low_part = (self.low & MASK) * 10 + u128::from(digit);
        let high_part = (self.low >> 64) * 10 + (low_part >> 64);
        let low = (high_part << 64) | (low_part & MASK);
        let high = self.high.checked_mul(10)?.checked_add(high_part >> 64)?;
        (high >> 127 == 0).then_some(Self { high, low })
    }

    fn to_signed(self) -> Signed {
        Signed(I256 {
            high: self.high.cast_signed(),
            low: self.low,
        })
    }
}

/// The little arithmetic that is needed on 256 bits. Magnitudes are below 2^255, so nothing overflows.
#[derive(Clone, Copy)]
struct Signed(I256);

impl Signed {
    fn negated(self) -> Self {
        let low = (!self.0.low).wrapping_add(1);
        let carry = i128::from(low == 0);
        let high = (!self.0.high).wrapping_add(carry);
        Self(I256 { high, low })
    }

    fn minus_one(self) -> Self {
        let (low, borrow) = self.0.low.overflowing_sub(1);
        let high = self.0.high.wrapping_sub(i128::from(borrow));
        Self(I256 { high, low })
    }
}

/// The value as `i128`, saturated: enough to compare with columns of at most 128 bits.
pub(crate) fn saturated(value: I256) -> i128 {
    match value.high {
        0 => i128::try_from(value.low).unwrap_or(i128::MAX),
        -1 if value.low >> 127 == 1 => value.low.cast_signed(),
        high if high < 0 => i128::MIN,
        _ => i128::MAX,
    }
}

/// Days since 1970-01-01 of `2026-01-31`.
pub(crate) fn date(text: &str) -> Option<i64> {
    let mut parts = text.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || year.len() != 4 {
        return None;
    }
    days_since_1970(number(year)?, number(month)?, number(day)?)
}

/// Microseconds since 1970-01-01 00:00:00 of `2026-01-31 12:00:00.5`; the time may be missing.
pub(crate) fn timestamp(text: &str) -> Option<i64> {
    const DAY: i64 = 86_400_000_000;
    let (day, time) = match text.split_once([' ', 'T']) {
        Some((day, clock)) => (day, time(clock)?),
        None => (text, 0),
    };
    (0..DAY)
        .contains(&time)
        .then(|| Some(date(day)? * DAY + time))?
}

/// Microseconds of `[-]838:59:59.999999`.
pub(crate) fn time(text: &str) -> Option<i64> {
    let (sign, text) = match text.strip_prefix('-') {
        Some(text) => (-1, text),
        None => (1, text),
    };
    let (clock, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut parts = clock.split(':');
    let (hours, minutes) = (number(parts.next()?)?, number(parts.next()?)?);
    let seconds = parts.next().map_or(Some(0), number)?;
    if parts.next().is_some() || minutes > 59 || seconds > 59 || fraction.len() > 6 {
        return None;
    }
    let micros = match fraction {
        "" => 0,
        digits => number(digits)? * 10_i64.pow(6 - u32::try_from(digits.len()).ok()?),
    };
    Some(sign * (((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros))
}

fn number(text: &str) -> Option<i64> {
    (!text.is_empty() && text.len() <= 6 && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().ok())?
}
