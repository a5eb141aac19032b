//! The civil calendar.

/// Days since 1970-01-01 of a civil date, as a `Date32` column counts them; none for a day that the calendar lacks.
///
/// ```
/// use pipewright_sdk::days_since_1970;
/// assert_eq!(days_since_1970(1970, 1, 1), Some(0));
/// assert_eq!(days_since_1970(2024, 2, 29), Some(19_782));
/// assert_eq!(days_since_1970(2023, 2, 29), None);
/// ```
pub fn days_since_1970(year: i64, month: i64, day: i64) -> Option<i64> {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    // Years that begin in March have their leap day at the end.
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // 719,468 days lie between 0000-03-01 and 1970-01-01.
    Some(year * 365 + leap_days + day_of_year - 719_468)
}
