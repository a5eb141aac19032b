//! Times with a fraction in MariaDB's own layouts of before 10.1 (`mysql56_temporal_format=OFF`), which rows keep until
//! their table is rebuilt (pitfall 35).
//!
//! A table map gives them the type numbers of times without a fraction and says nothing of the digits; the catalog
//! marks such columns `/* mariadb-5.3 */` and knows the digits, so with the recorded table the layout is certain. All
//! are big-endian counts of the last digit's unit. Without a fraction the layouts are those of everyone before MySQL 5.6
//! (pitfall 36).

use super::DecodeError;
use super::cursor::{take, take_be};
use super::temporal::{self, Clock, Stored, wire};

/// The number that stands for TIME 0, in seconds: one more than the largest TIME.
const ZERO_SECONDS: i64 = 838 * 3600 + 59 * 60 + 59 + 1;

/// Bytes of a value of that wire type and that many digits, at least one; none for what has no such layout.
pub(super) fn length(wire_type: u8, digits: u16) -> Option<usize> {
    let lengths = match wire_type {
        wire::TIME => [4, 4, 5, 5, 5, 6],
        wire::DATETIME => [6, 6, 7, 7, 7, 8],
        wire::TIMESTAMP => [5, 5, 6, 6, 7, 7],
        _ => return None,
    };
    lengths.get(usize::from(digits).checked_sub(1)?).copied()
}

/// A TIME.
pub(super) fn time(digits: u16, cursor: &mut &[u8]) -> Result<i64, DecodeError> {
    let (stored, unit) = stored(wire::TIME, digits, cursor)?;
    let zero = ZERO_SECONDS * (temporal::MICROS / unit);
    let micros = (stored - zero) * unit;
    if micros.abs() >= ZERO_SECONDS * temporal::MICROS {
        return Err(DecodeError::BadValue("time"));
    }
    Ok(micros)
}

/// A DATETIME: months of thirty-two days and years of thirteen months, then the time of day.
pub(super) fn datetime(digits: u16, cursor: &mut &[u8]) -> Result<Stored, DecodeError> {
    let (stored, unit) = stored(wire::DATETIME, digits, cursor)?;
    let whole = stored / (temporal::MICROS / unit);
    let micros = stored % (temporal::MICROS / unit) * unit;
    let (minutes, second) = (whole / 60, whole % 60);
    let (hours, minute) = (minutes / 60, minutes % 60);
    let (days, hour) = (hours / 24, hours % 24);
    let (months, day) = (days / 32, days % 32);
    let (year, month) = (months / 13, months % 13);
    if year > 9999 {
        return Err(DecodeError::BadValue("year"));
    }
    let clock = Clock {
        hour,
        minute,
        second,
        micros,
    };
    temporal::moment(year, month, day, clock)
}

/// A TIMESTAMP: seconds since 1970 in UTC, then the fraction.
pub(super) fn timestamp(digits: u16, cursor: &mut &[u8]) -> Result<Option<i64>, DecodeError> {
    let length = length(wire::TIMESTAMP, digits).ok_or(DecodeError::BadLength)?;
    let mut bytes = take(cursor, length)?;
    let seconds = take_be(&mut bytes, 4)?.cast_signed();
    let fraction = take_be(&mut bytes, length - 4)?.cast_signed();
    let micros = fraction * unit(digits);
    if micros >= temporal::MICROS {
        return Err(DecodeError::BadValue("fraction of a second"));
    }
    let value = seconds * temporal::MICROS + micros;
    Ok((value != 0).then_some(value))
}

/// The stored count, and the microseconds that one of it is.
fn stored(wire_type: u8, digits: u16, cursor: &mut &[u8]) -> Result<(i64, i64), DecodeError> {
    let length = length(wire_type, digits).ok_or(DecodeError::BadLength)?;
    let unit = unit(digits);
    let stored = take_be(cursor, length)?.cast_signed();
    // No date of four digits comes near this.
    if stored < 0 || stored > i64::MAX / unit {
        return Err(DecodeError::BadValue("date or time"));
    }
    Ok((stored, unit))
}

fn unit(digits: u16) -> i64 {
    10i64.pow(6u32.saturating_sub(digits.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400 * temporal::MICROS;

    fn whole<T>(
        read: fn(u16, &mut &[u8]) -> Result<T, DecodeError>,
        digits: u16,
        bytes: &[u8],
    ) -> T {
        let mut cursor = bytes;
        let value = read(digits, &mut cursor).expect("a value");
        assert!(cursor.is_empty(), "{digits} digits");
        value
    }

    /// Bytes as MariaDB 10.11 logged them for 12:34:56.789123, -838:59:59.9 and the like.
    #[test]
    fn times_are_read_as_the_server_wrote_them() {
        for (digits, bytes, micros) in [
            (1, &[0x01, 0xd3, 0xc9, 0xc7][..], 45_296_700_000),
            (2, &[0x12, 0x45, 0xe1, 0xce], 45_296_780_000),
            (3, &[0x00, 0xb6, 0xba, 0xd2, 0x15], 45_296_789_000),
            (4, &[0x07, 0x23, 0x4c, 0x34, 0xd3], 45_296_789_100),
            (5, &[0x47, 0x60, 0xfa, 0x10, 0x40], 45_296_789_120),
            (6, &[0x02, 0xc9, 0xc9, 0xc4, 0xa2, 0x83], 45_296_789_123),
            (1, &[0, 0, 0, 1], -3_020_399_900_000),
            (4, &[0x07, 0x08, 0x4c, 0x76, 0xff], -100),
            (6, &[0x02, 0xbf, 0x3d, 0xde, 0x7b, 0xff], -1),
        ] {
            assert_eq!(whole(time, digits, bytes), micros, "{digits} digits");
        }
    }

    #[test]
    fn dates_with_times_are_read_as_the_server_wrote_them() {
        // 2024-02-29 is day 19,782.
        let at = |micros| Some(19_782 * DAY + 45_296 * temporal::MICROS + micros);
        let bytes = [0x00, 0xa9, 0x65, 0xa7, 0xfc, 0x67];
        assert_eq!(whole(datetime, 1, &bytes).micros(), at(700_000));
        let bytes = [0x00, 0x42, 0x2b, 0xb5, 0x9e, 0x98, 0x95];
        assert_eq!(whole(datetime, 3, &bytes).micros(), at(789_000));
        let bytes = [0x01, 0x02, 0x7a, 0xbd, 0x73, 0x84, 0x06, 0x83];
        assert_eq!(whole(datetime, 6, &bytes).micros(), at(789_123));
        assert_eq!(whole(datetime, 3, &[0; 7]), Stored::ZERO);
        assert_eq!(
            whole(timestamp, 1, &[0x65, 0xe0, 0x79, 0xf0, 0x07]),
            at(700_000)
        );
        let bytes = [0x65, 0xe0, 0x79, 0xf0, 0x0c, 0x0a, 0x83];
        assert_eq!(whole(timestamp, 6, &bytes), at(789_123));
        assert_eq!(whole(timestamp, 2, &[0; 5]), None);
    }

    #[test]
    fn what_no_clock_shows_is_refused() {
        assert!(time(1, &mut &[0xff; 4][..]).is_err());
        assert!(datetime(6, &mut &[0xff; 8][..]).is_err());
        assert!(datetime(6, &mut &[0x7f; 8][..]).is_err());
        assert!(timestamp(2, &mut &[0, 0, 0, 1, 100][..]).is_err());
        assert_eq!(time(2, &mut &[1, 2, 3][..]), Err(DecodeError::Truncated));
        assert_eq!(time(0, &mut &[1, 2, 3][..]), Err(DecodeError::BadLength));
        assert_eq!(time(7, &mut &[0; 9][..]), Err(DecodeError::BadLength));
    }
}
