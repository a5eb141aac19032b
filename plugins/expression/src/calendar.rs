//! Moments as people write them.

use std::io::Write;
use std::ops::RangeInclusive;

const DAY: i64 = 86_400_000_000;

/// Days since 1970-01-01 of the dates that MySQL has: the years 0 to 9999.
pub(crate) const DAYS: RangeInclusive<i64> = -719_528..=2_932_896;

/// And the span of its TIME: 838:59:59.999999 either way.
pub(crate) const SPAN: RangeInclusive<i64> = -3_020_399_999_999..=3_020_399_999_999;

/// Year, month and day of days since 1970-01-01: the civil calendar, in eras of 400 years that begin in March.
pub(crate) fn civil(days: i64) -> (i64, i64, i64) {
    // 719,468 days lie between 0000-03-01 and 1970-01-01.
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Days and the microseconds of the day.
pub(crate) fn split(micros: i64) -> (i64, i64) {
    (micros.div_euclid(DAY), micros.rem_euclid(DAY))
}

/// The first microsecond of a day.
pub(crate) fn midnight(days: i64) -> Option<i64> {
    days.checked_mul(DAY)
}

pub(crate) fn write_date(days: i64, out: &mut Vec<u8>) {
    let (year, month, day) = civil(days);
    // A vector takes whatever is written.
    write!(out, "{year:04}-{month:02}-{day:02}").ok();
}

/// `12:00:00`, with a fraction where there is one.
pub(crate) fn write_time(micros: i64, out: &mut Vec<u8>) {
    let sign = if micros < 0 { "-" } else { "" };
    let micros = micros.unsigned_abs();
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    write!(out, "{sign}{hours:02}:{minutes:02}:{:02}", seconds % 60).ok();
    if fraction != 0 {
        write!(out, ".{fraction:06}").ok();
    }
}

pub(crate) fn write_moment(micros: i64, out: &mut Vec<u8>) {
    let (days, micros) = split(micros);
    write_date(days, out);
    out.push(b' ');
    write_time(micros, out);
}
