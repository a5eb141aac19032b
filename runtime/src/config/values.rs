//! Durations and sizes as people write them, and the known key that someone probably meant.

use std::time::Duration;

/// A duration as pipe files and command lines have it: `200ms`, `1s`, `5m`, `1h`.
pub fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        _ => None,
    }
}

/// `512B`, `64KiB`, `64MiB`, `2GiB`.
pub(super) fn size(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    let factor = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// The size as [`size`] reads it, in the largest unit that keeps it whole.
pub(super) fn show_size(bytes: u64) -> String {
    for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes > 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

/// The duration as [`duration`] reads it.
pub(super) fn show_duration(duration: Duration) -> String {
    match duration.as_millis() {
        millis if millis % 3_600_000 == 0 => format!("{}h", millis / 3_600_000),
        millis if millis % 60_000 == 0 => format!("{}m", millis / 60_000),
        millis if millis % 1000 == 0 => format!("{}s", millis / 1000),
        millis => format!("{millis}ms"),
    }
}

/// The one of `known` that `written` is closest to, if it is close enough to be a slip.
pub(crate) fn nearest<'a>(
    written: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let written = written.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (distance(&written, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| {
            let length = written.chars().count().max(candidate.chars().count());
            *distance <= (length / 3).max(1)
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit.trim_start()))
}

/// Insertions, deletions, replacements and swaps of neighbours between two words.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, &left) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, &right) in b.iter().enumerate() {
            let mut cost = (row[j] + usize::from(left != right))
                .min(row[j + 1] + 1)
                .min(next[j] + 1);
            if i > 0 && j > 0 && left == b[j - 1] && a[i - 1] == right {
                cost = cost.min(before[j - 1] + 1);
            }
            next.push(cost);
        }
        before = std::mem::replace(&mut row, next);
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_needs_its_unit() {
        assert_eq!(duration("200ms"), Some(Duration::from_millis(200)));
        assert_eq!(duration("5m"), Some(Duration::from_secs(300)));
        assert_eq!(duration("1"), None);
        assert_eq!(duration("s"), None);
        assert_eq!(duration("-1s"), None);
        assert_eq!(duration("99999999999999999999s"), None);
    }

    #[test]
    fn a_size_that_does_not_fit_is_no_size() {
        assert_eq!(size("64MiB"), Some(64 << 20));
        assert_eq!(size("17179869184GiB"), None);
        assert_eq!(size("64MB"), None);
    }

    #[test]
    fn sizes_and_durations_are_shown_as_they_are_read() {
        for text in ["1B", "1536B", "64MiB", "2GiB", "0B"] {
            assert_eq!(show_size(size(text).expect("a size")), text);
        }
        for text in ["200ms", "1s", "5m", "36h"] {
            assert_eq!(show_duration(duration(text).expect("a duration")), text);
        }
    }

    #[test]
    fn a_slip_is_told_from_another_word() {
        let known = ["order_by", "partition_by", "source"];
        assert_eq!(nearest("ordr_by", known), Some("order_by"));
        assert_eq!(nearest("soruce", known), Some("source"));
        assert_eq!(nearest("colour", known), None);
    }
}
