//! What a column's rule makes of a date that no calendar has.

use super::DecodeError;
use super::temporal::{Stored, month_length};
use crate::source::mysql::date_rules::DateRule;

/// 1970-01-01 00:00:00, the zero of all our date types.
const EPOCH: Stored = Stored {
    year: 1970,
    month: 1,
    day: 1,
    clock: 0,
};

/// The first year that ClickHouse's documentation gives for Date32 and DateTime64 alike.
const FIRST_YEAR: i64 = 1900;

/// A date in the place of `stored`, which no calendar has; none for NULL.
///
/// # Errors
/// Where the column is part of the key: whatever stood there could be the key of another row.
#[cold]
pub(super) fn replacement(
    rule: DateRule,
    keep_null: bool,
    stored: Stored,
) -> Result<Option<Stored>, DecodeError> {
    match rule {
        DateRule::Null if keep_null => Ok(None),
        DateRule::Null | DateRule::Epoch => Ok(Some(EPOCH)),
        DateRule::Clamp => Ok(Some(clamped(stored))),
        DateRule::Text | DateRule::Refuse => Err(DecodeError::ImpossibleKeyDate),
    }
}

/// A zero month or day becomes 01 and a day that its month does not have the month's last; a date without a year, of
/// which nothing is known, the first day that ClickHouse has. The time of day stays.
fn clamped(stored: Stored) -> Stored {
    if stored.year == 0 {
        return Stored {
            year: FIRST_YEAR,
            month: 1,
            day: 1,
            ..stored
        };
    }
    let month = stored.month.clamp(1, 12);
    Stored {
        month,
        day: stored.day.clamp(1, month_length(stored.year, month)),
        ..stored
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(year: i64, month: i64, day: i64) -> Stored {
        Stored {
            year,
            month,
            day,
            clock: 7,
        }
    }

    #[test]
    fn clamping_keeps_what_is_known_of_a_date() {
        for (found, expected) in [
            (stored(2024, 0, 15), stored(2024, 1, 15)),
            (stored(2024, 3, 0), stored(2024, 3, 1)),
            (stored(2024, 0, 0), stored(2024, 1, 1)),
            (stored(2023, 2, 30), stored(2023, 2, 28)),
            (stored(2024, 2, 31), stored(2024, 2, 29)),
            (stored(2024, 0, 31), stored(2024, 1, 31)),
            (stored(0, 0, 0), stored(1900, 1, 1)),
            (stored(0, 0, 5), stored(1900, 1, 1)),
        ] {
            let made = replacement(DateRule::Clamp, true, found);
            assert_eq!(made, Ok(Some(expected)), "{found:?}");
            assert!(expected.days().is_some(), "{expected:?} is a real date");
        }
    }

    #[test]
    fn every_other_rule_makes_null_or_1970_or_an_error() {
        let zero = Stored::ZERO;
        assert_eq!(replacement(DateRule::Null, true, zero), Ok(None));
        assert_eq!(replacement(DateRule::Null, false, zero), Ok(Some(EPOCH)));
        assert_eq!(replacement(DateRule::Epoch, true, zero), Ok(Some(EPOCH)));
        assert_eq!(EPOCH.micros(), Some(0));
        assert_eq!(
            replacement(DateRule::Refuse, false, zero),
            Err(DecodeError::ImpossibleKeyDate)
        );
    }
}
