//! Values between two keys, by type.
//!
//! These values only aim: a partition's bound is always a real key that the server found from there on by its own
//! comparison, so an aim that misses costs balance and never rows.

mod network;

pub(super) use network::Network;

use super::super::decode::Charset;
use super::super::sql::{quote_bytes, quote_string};

/// How values of a key column are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Space {
    /// Whole numbers of any width and sign; YEAR too.
    Integer,
    /// Numbers with a point; `scale` digits after it take part.
    Decimal { scale: u32 },
    /// Days.
    Date,
    /// Microseconds; TIMESTAMP in the session's zone, which is UTC everywhere here.
    DateTime,
    /// Characters in the column's collation.
    Text(Alphabet),
    /// Bytes.
    Bytes,
    /// The label's number (pitfall 121).
    Enum { labels: u32 },
    /// MariaDB's UUIDs and addresses.
    Network(Network),
}

impl Space {
    /// The column as a probe selects it.
    pub(super) fn select(&self, name: &str) -> String {
        match self {
            Space::Enum { .. } => format!("{name} + 0"),
            // The key itself: in another charset it may look like its neighbour (pitfall 122).
            Space::Text(_) => format!("CAST({name} AS BINARY)"),
            _ => name.to_owned(),
        }
    }

    /// A value that the server sent, as a literal that means the same key again (pitfall 124). None for what cannot be
    /// written so.
    pub(super) fn literal(&self, raw: &[u8]) -> Option<String> {
        match self {
            Space::Integer | Space::Decimal { .. } | Space::Enum { .. } => {
                let text = std::str::from_utf8(raw).ok()?;
                let plain = text
                    .bytes()
                    .all(|byte| byte.is_ascii_digit() || byte == b'-' || byte == b'.');
                (plain && !text.is_empty()).then(|| text.to_owned())
            }
            Space::Date | Space::DateTime => std::str::from_utf8(raw).ok().map(quote_string),
            Space::Text(alphabet) => Some(alphabet.literal(raw)),
            Space::Bytes => Some(quote_bytes(raw)),
            Space::Network(network) => network.literal(raw),
        }
    }

    /// A literal above `first` and not above `last`, about `part` of `parts` on the way; none where nothing lies
    /// between.
    pub(super) fn between(
        &self,
        first: &[u8],
        last: &[u8],
        part: u32,
        parts: u32,
    ) -> Option<String> {
        match self {
            Space::Integer | Space::Enum { .. } => {
                number_between(integer(first)?, integer(last)?, part, parts)
                    .map(|number| number.to_string())
            }
            Space::Decimal { scale } => {
                number_between(decimal(first, *scale)?, decimal(last, *scale)?, part, parts)
                    .map(|number| decimal_text(number, *scale))
            }
            Space::Date => {
                let number = number_between(
                    microseconds(first)? / DAY,
                    microseconds(last)? / DAY,
                    part,
                    parts,
                )?;
                moment_text(number * DAY).map(|text| quote_string(text.get(..10).unwrap_or(&text)))
            }
            Space::DateTime => {
                let number =
                    number_between(microseconds(first)?, microseconds(last)?, part, parts)?;
                moment_text(number).map(|text| quote_string(&text))
            }
            Space::Text(alphabet) => alphabet.aim(first, last, part, parts),
            Space::Network(network) => network.between(first, last, part, parts),
            Space::Bytes => {
                bytes_between(first, last, part, parts).map(|bytes| quote_bytes(&bytes))
            }
        }
    }
}

impl Space {
    /// Literals that stand behind everything which begins like `first`, or may do so: where a collation's order is not
    /// the one that [`Space::between`] counts in, they still divide by leading characters.
    pub(super) fn behind(&self, first: &[u8], last: &[u8]) -> Vec<String> {
        let Space::Text(alphabet) = self else {
            return Vec::new();
        };
        let (Some(first), Some(last)) = (alphabet.text(first), alphabet.text(last)) else {
            return Vec::new();
        };
        let common = first
            .chars()
            .zip(last.chars())
            .take_while(|(a, b)| a == b)
            .count();
        let mut high = Vec::new();
        // No key of the range begins higher than the last one.
        high.extend(last.chars().nth(common));
        high.extend(char::from_u32(alphabet.last));
        high.extend(alphabet.characters.last());
        let mut literals = Vec::new();
        for length in [common + 1, common + 2] {
            let beginning: String = first.chars().take(length).collect();
            literals.extend(
                high.iter()
                    .map(|high| quote_string(&format!("{beginning}{high}{high}"))),
            );
        }
        literals
    }
}

/// `part / parts` of `width` without overflow, at least 1 and at most all of it.
fn share(width: u128, part: u32, parts: u32) -> u128 {
    let (part, parts) = (u128::from(part), u128::from(parts.max(1)));
    (width / parts * part + width % parts * part / parts).clamp(1, width.max(1))
}

fn number_between(first: i128, last: i128, part: u32, parts: u32) -> Option<i128> {
    if first >= last {
        return None;
    }
    // Differences of 38 digits do not fit i128; as wrapped u128 they do.
    let width = last.wrapping_sub(first).cast_unsigned();
    Some(first.wrapping_add(share(width, part, parts).cast_signed()))
}

fn integer(raw: &[u8]) -> Option<i128> {
    std::str::from_utf8(raw).ok()?.parse().ok()
}

/// A decimal's digits as one number, with `scale` digits after the point and the rest cut.
fn decimal(raw: &[u8], scale: u32) -> Option<i128> {
    let text = std::str::from_utf8(raw).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let scale = usize::try_from(scale).ok()?;
    let fraction = fraction.get(..scale.min(fraction.len()))?;
    format!("{whole}{fraction:0<scale$}").parse().ok()
}

fn decimal_text(number: i128, scale: u32) -> String {
    let digits = format!(
        "{:0>width$}",
        number.unsigned_abs(),
        width = scale as usize + 1
    );
    let (whole, fraction) = digits.split_at(digits.len() - scale as usize);
    let sign = if number < 0 { "-" } else { "" };
    if fraction.is_empty() {
        format!("{sign}{whole}")
    } else {
        format!("{sign}{whole}.{fraction}")
    }
}

const DAY: i128 = 86_400_000_000;

/// Microseconds since 1970 of `2024-01-31`, `2024-01-31 01:02:03` or `2024-01-31 01:02:03.456`. Zero months and days,
/// which MySQL allows, count as first ones.
fn microseconds(raw: &[u8]) -> Option<i128> {
    let text = std::str::from_utf8(raw).ok()?;
    let (date, time) = text.split_once(' ').unwrap_or((text, "0:0:0"));
    let mut date = date.splitn(3, '-').map(str::parse::<i128>);
    let mut next = || date.next()?.ok();
    let (year, month, day) = (next()?, next()?.max(1), next()?.max(1));
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let fraction: i128 = format!("{fraction:0<6}").parse().ok()?;
    let mut time = time.splitn(3, ':').map(str::parse::<i128>);
    let mut next = || time.next()?.ok();
    let (hour, minute, second) = (next()?, next()?, next()?);
    let seconds = (hour * 60 + minute) * 60 + second;
    Some(days(year, month, day) * DAY + seconds * 1_000_000 + fraction)
}

/// Days since 1970 in the proleptic Gregorian calendar, by years that begin in March.
fn days(year: i128, month: i128, day: i128) -> i128 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn moment_text(microseconds: i128) -> Option<String> {
    let days = microseconds.div_euclid(DAY) + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + i128::from(month <= 2);
    let rest = microseconds.rem_euclid(DAY);
    let (seconds, fraction) = (rest / 1_000_000, rest % 1_000_000);
    (0..=9999).contains(&year).then(|| {
        format!(
            "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}.{fraction:06}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        )
    })
}

fn bytes_between(first: &[u8], last: &[u8], part: u32, parts: u32) -> Option<Vec<u8>> {
    const DIGITS: usize = 15;
    let common = first.iter().zip(last).take_while(|(a, b)| a == b).count();
    let digits = |bytes: &[u8]| {
        let tail = bytes.get(common..).unwrap_or_default();
        (0..DIGITS).fold(0u128, |number, i| {
            number << 8 | u128::from(tail.get(i).copied().unwrap_or(0))
        })
    };
    let (low, high) = (digits(first), digits(last));
    if low >= high {
        return None;
    }
    let aim = low + share(high - low, part, parts);
    let mut bytes = last.get(..common)?.to_vec();
    bytes.extend((0..DIGITS).map(|i| (aim >> (8 * (DIGITS - 1 - i)) & 0xff) as u8));
    Some(bytes)
}

/// Characters in the order of a collation, as far as it is known: printable ASCII by rank, others by code point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Alphabet {
    /// The rank of each character from space to tilde, from 1 on; equal for equal characters.
    ranks: Vec<u8>,
    /// The first character of each rank.
    characters: Vec<char>,
    /// The last code point that the column can hold; literals of others would not use the index.
    last: u32,
    /// The column's charset, by the server's name and by its decoder.
    introducer: String,
    charset: Option<Charset>,
    collation: Option<String>,
}

const FIRST_ASCII: u32 = 0x20;
const LAST_ASCII: u32 = 0x7e;

impl Alphabet {
    /// Takes the ranks from space to tilde as the server has them, or else by byte.
    pub(super) fn new(ranks: Option<Vec<u8>>, charset: &str) -> Alphabet {
        let count = (LAST_ASCII - FIRST_ASCII + 1) as usize;
        let usable = ranks.filter(|ranks| {
            ranks.len() == count
                && ranks
                    .iter()
                    .all(|&rank| 1 <= rank && usize::from(rank) <= count)
        });
        let ranks = usable.unwrap_or_else(|| (1..).take(count).collect());
        let highest = ranks.iter().copied().max().unwrap_or(0);
        let characters = (1..=highest)
            .map(|rank| {
                let index = ranks.iter().position(|&r| r == rank).unwrap_or(0);
                u32::try_from(index)
                    .ok()
                    .and_then(|index| char::from_u32(FIRST_ASCII + index))
                    .unwrap_or(' ')
            })
            .collect();
        let last = match charset {
            "utf8mb4" | "utf16" | "utf16le" | "utf32" => 0x10_ffff,
            "utf8" | "utf8mb3" | "ucs2" => 0xffff,
            "latin1" => 0xff,
            _ => LAST_ASCII,
        };
        Alphabet {
            ranks,
            characters,
            last,
            introducer: format!("_{charset}"),
            charset: Charset::named(charset),
            collation: None,
        }
    }

    /// The alphabet of a column with that collation.
    pub(super) fn of_collation(mut self, collation: Option<String>) -> Alphabet {
        self.collation = collation;
        self
    }

    /// A key as the very bytes that the column holds: compared with the column it has the column's charset and takes
    /// its collation, and no conversion can make another key of it.
    pub(super) fn literal(&self, raw: &[u8]) -> String {
        format!("{} {}", self.introducer, quote_bytes(raw))
    }

    /// Whether nothing is known of the order between two keys.
    pub(super) fn is_sampled(&self, first: &[u8], last: &[u8]) -> bool {
        self.last == LAST_ASCII && !(first.is_ascii() && last.is_ascii())
    }

    /// The column's charset.
    pub(super) fn charset(&self) -> Option<Charset> {
        self.charset
    }

    /// The column's collation, where it is known.
    pub(super) fn collation(&self) -> Option<&str> {
        self.collation.as_deref()
    }

    fn text(&self, raw: &[u8]) -> Option<String> {
        self.charset?.text(raw)
    }

    /// A literal between two keys. Where it is known how ASCII sorts and no more, the server must be asked instead: see
    /// [`samples`](super::samples).
    fn aim(&self, first: &[u8], last: &[u8], part: u32, parts: u32) -> Option<String> {
        if self.is_sampled(first, last) {
            return None;
        }
        let text = self.between(&self.text(first)?, &self.text(last)?, part, parts)?;
        Some(quote_string(&text))
    }

    /// A character's digit; 0 is the end of the text.
    fn digit(&self, character: char, wide: bool) -> u128 {
        let code = u32::from(character);
        let highest = self.characters.len() as u128;
        match code {
            0..FIRST_ASCII => 0,
            FIRST_ASCII..=LAST_ASCII => self
                .ranks
                .get((code - FIRST_ASCII) as usize)
                .map_or(0, |&rank| u128::from(rank)),
            _ if wide => highest + u128::from(code.min(self.last) - LAST_ASCII),
            _ => highest,
        }
    }

    fn character(&self, digit: u128) -> char {
        let highest = self.characters.len() as u128;
        if digit <= highest {
            let index = usize::try_from(digit.saturating_sub(1)).unwrap_or(0);
            return self.characters.get(index).copied().unwrap_or(' ');
        }
        let code = u32::try_from(digit - highest)
            .unwrap_or(u32::MAX)
            .saturating_add(LAST_ASCII);
        // Between the surrogates there are no characters.
        char::from_u32(code.min(self.last)).unwrap_or('\u{e000}')
    }

    fn between(&self, first: &str, last: &str, part: u32, parts: u32) -> Option<String> {
        let wide = self.last > LAST_ASCII && !(first.is_ascii() && last.is_ascii());
        let mut base = self.characters.len() as u128 + 1;
        if wide {
            base += u128::from(self.last - LAST_ASCII);
        }
        let mut count = 1u32;
        while base
            .checked_pow(count + 1)
            .is_some_and(|power| power < 1 << 120)
        {
            count += 1;
        }
        let common: String = first
            .chars()
            .zip(last.chars())
            .take_while(|(a, b)| a == b)
            .map(|(a, _)| a)
            .collect();
        let digits = |text: &str| {
            let mut tail = text.get(common.len()..).unwrap_or_default().chars();
            (0..count).fold(0u128, |number, _| {
                number * base + tail.next().map_or(0, |c| self.digit(c, wide))
            })
        };
        let (low, high) = (digits(first), digits(last));
        if low >= high {
            return None;
        }
        let mut aim = low + share(high - low, part, parts);
        let mut tail = Vec::new();
        for _ in 0..count {
            tail.push(aim % base);
            aim /= base;
        }
        let end = tail.iter().position(|&digit| digit != 0)?;
        let mut text = common.clone();
        text.extend(
            tail.get(end..)?
                .iter()
                .rev()
                .map(|&digit| self.character(digit)),
        );
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_of_both_extremes_have_a_middle() {
        let middle = Space::Integer.between(b"0", b"18446744073709551615", 1, 2);
        assert_eq!(middle.as_deref(), Some("9223372036854775807"));
        let middle = Space::Integer.between(b"-9223372036854775808", b"9223372036854775807", 1, 2);
        assert_eq!(middle.as_deref(), Some("-1"));
        assert_eq!(
            Space::Integer.between(b"5", b"6", 1, 2).as_deref(),
            Some("6")
        );
        assert_eq!(Space::Integer.between(b"5", b"5", 1, 2), None);
    }

    #[test]
    fn decimals_keep_their_point_and_sign() {
        let space = Space::Decimal { scale: 2 };
        assert_eq!(
            space.between(b"-1.00", b"0.50", 1, 2).as_deref(),
            Some("-0.25")
        );
        let wide = Space::Decimal { scale: 0 };
        let nines = "9".repeat(38);
        let middle = wide.between(format!("-{nines}").as_bytes(), nines.as_bytes(), 1, 2);
        assert_eq!(middle.as_deref(), Some("0"));
    }

    #[test]
    fn every_day_goes_to_a_number_and_back() {
        for day in (-719_528..2_932_896).step_by(97) {
            let text = moment_text(day * DAY).unwrap();
            assert_eq!(microseconds(text.as_bytes()), Some(day * DAY), "{text}");
        }
        assert_eq!(microseconds(b"1970-01-02"), Some(DAY));
        assert_eq!(
            moment_text(microseconds(b"2024-02-29 23:59:59.000001").unwrap()).unwrap(),
            "2024-02-29 23:59:59.000001"
        );
    }

    #[test]
    fn a_zero_date_is_a_place_like_any_other() {
        let middle = Space::Date.between(b"0000-00-00", b"2000-01-01", 1, 2);
        assert!(middle.is_some());
    }

    #[test]
    fn bytes_have_a_middle_after_their_common_beginning() {
        let middle = Space::Bytes.between(&[7, 0], &[7, 4], 1, 2).unwrap();
        assert!(middle.starts_with("x'0702"), "{middle}");
    }

    #[test]
    fn text_has_a_middle_in_the_order_of_its_collation() {
        let bytewise = Alphabet::new(None, "utf8mb4");
        assert_eq!(bytewise.between("a", "c", 1, 2).as_deref(), Some("b"));
        assert_eq!(bytewise.between("xa", "xc", 1, 2).as_deref(), Some("xb"));
        let middle = bytewise.between("к", "т", 1, 2).unwrap();
        assert!("к" < middle.as_str() && middle.as_str() < "т", "{middle}");
    }

    #[test]
    fn letters_of_both_cases_share_a_rank_where_the_collation_says_so() {
        let ranks = (0x20u8..0x7f)
            .map(|c| c.to_ascii_lowercase() - 0x1f)
            .collect();
        let folded = Alphabet::new(Some(ranks), "latin1");
        assert_eq!(folded.digit('A', false), folded.digit('a', false));
        assert_eq!(
            folded
                .between("a", "C", 1, 2)
                .map(|m| m.to_lowercase())
                .as_deref(),
            Some("b")
        );
    }

    #[test]
    fn what_is_no_plain_number_never_becomes_a_literal() {
        assert_eq!(Space::Integer.literal(b"1 OR 1"), None);
        assert_eq!(Space::Integer.literal(b""), None);
    }
}
