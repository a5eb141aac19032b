//! The text of a double, as both servers print one inside JSON and inside a geometry.

use std::io::Write;

/// The shortest decimal digits that read back as a number, `0.ddd` times ten to the power of `point`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Digits {
    text: [u8; Digits::ROOM],
    count: usize,
    /// The decimal point stands behind that many digits.
    point: i32,
    negative: bool,
}

/// Digits left of the point past which the servers turn to exponents, unless digits stand right of it too.
const MAX_POINT: i32 = 15;

impl Digits {
    /// A double has 17 digits at most; `d.dde-nnn` takes seven bytes more on its way here.
    const ROOM: usize = 26;

    /// None for what is no finite number.
    pub(super) fn of(number: f64) -> Option<Self> {
        if !number.is_finite() {
            return None;
        }
        let mut text = [0; Self::ROOM];
        let mut space = text.as_mut_slice();
        write!(space, "{:e}", number.abs()).ok()?;
        let left = space.len();
        let length = Self::ROOM - left;
        let mark = text.iter().position(|byte| *byte == b'e')?;
        let exponent: i32 = std::str::from_utf8(text.get(mark + 1..length)?)
            .ok()?
            .parse()
            .ok()?;
        // `d` or `d.ddd`: the point goes.
        if mark > 1 {
            text.copy_within(2..mark, 1);
        }
        let count = if mark > 1 { mark - 1 } else { 1 };
        // Where two shortest texts are equally near, Rust takes the upper one and the servers the even one.
        if places(number) == Some(i32::try_from(count).ok()? - exponent)
            && let Some(last) = text.get_mut(count - 1)
            && *last % 2 == 1
        {
            *last -= 1;
        }
        Some(Self {
            text,
            count,
            point: exponent + 1,
            negative: number.is_sign_negative(),
        })
    }

    /// Whether the servers print it without an exponent, as long as there is room.
    pub(super) fn is_plain(&self) -> bool {
        self.point > -MAX_POINT && (self.point <= MAX_POINT || self.length() > self.point)
    }

    /// The bytes that [`Digits::print_plain`] takes.
    pub(super) fn plain_length(&self) -> i32 {
        let sign = i32::from(self.negative);
        if self.point <= 0 {
            sign + 2 - self.point + self.length()
        } else if self.is_whole() {
            sign + self.point
        } else {
            sign + self.length() + 1
        }
    }

    /// Whether no digit stands right of the point.
    pub(super) fn is_whole(&self) -> bool {
        self.length() <= self.point
    }

    /// Whether it is zero, of either sign.
    pub(super) fn is_zero(&self) -> bool {
        self.digits() == b"0"
    }

    /// Appends it without an exponent; a whole number has no point.
    pub(super) fn print_plain(&self, out: &mut Vec<u8>) {
        self.print_sign(out);
        let zeros = |count: i32| std::iter::repeat_n(b'0', usize::try_from(count).unwrap_or(0));
        if self.point <= 0 {
            out.extend_from_slice(b"0.");
            out.extend(zeros(-self.point));
            out.extend_from_slice(self.digits());
            return;
        }
        let point = usize::try_from(self.point).unwrap_or(0).min(self.count);
        let (whole, fraction) = self.digits().split_at(point);
        out.extend_from_slice(whole);
        if fraction.is_empty() {
            out.extend(zeros(self.point - self.length()));
        } else {
            out.push(b'.');
            out.extend_from_slice(fraction);
        }
    }

    /// Appends it with an exponent, which has no plus sign.
    pub(super) fn print_exponent(&self, out: &mut Vec<u8>) {
        self.print_sign(out);
        let (first, rest) = self.digits().split_at(1);
        out.extend_from_slice(first);
        if !rest.is_empty() {
            out.push(b'.');
            out.extend_from_slice(rest);
        }
        // Writing to a vector cannot fail.
        let _ = write!(out, "e{}", self.point - 1);
    }

    fn print_sign(&self, out: &mut Vec<u8>) {
        if self.negative {
            out.push(b'-');
        }
    }

    fn digits(&self) -> &[u8] {
        self.text.get(..self.count).unwrap_or(&[])
    }

    /// At most 17.
    fn length(&self) -> i32 {
        self.count as i32
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digits_read_back_as_the_number_in_either_form() {
        let mut numbers = vec![
            0.0,
            -0.0,
            5e-324,
            f64::MAX,
            f64::MIN_POSITIVE,
            0.1,
            1e15,
            -123.456,
        ];
        // A linear congruential generator over bit patterns: the same numbers on every machine.
        let mut seed = 1u64;
        for _ in 0..20_000 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            numbers.push(f64::from_bits(seed));
        }
        for number in numbers.into_iter().filter(|number| number.is_finite()) {
            let digits = Digits::of(number).expect("finite");
            let (mut plain, mut exponent) = (vec![], vec![]);
            digits.print_plain(&mut plain);
            digits.print_exponent(&mut exponent);
            assert_eq!(plain.len(), digits.plain_length() as usize, "{number:e}");
            for text in [plain, exponent] {
                let text = String::from_utf8(text).expect("digits");
                let read: f64 = text.parse().expect(&text);
                assert_eq!(read.to_bits(), number.to_bits(), "{text}");
            }
        }
        assert!(Digits::of(f64::NAN).is_none() && Digits::of(f64::INFINITY).is_none());
    }

    #[test]
    fn exponents_begin_where_the_servers_begin_them() {
        for (number, plain) in [
            (1e14, true),
            (1e15, false),
            (1e-14, true),
            (1e-15, true),
            (1e-16, false),
            // Digits right of the point keep the point.
            (2_460_728_689_948_876.5, true),
            (1_409_125_547_639_553.0, false),
        ] {
            assert_eq!(
                Digits::of(number).expect("finite").is_plain(),
                plain,
                "{number:e}"
            );
        }
    }
}
