//! Dates and times: days and microseconds, from the structures of the binary protocol and from every layout that a row
//! image has had.
//!
//! A zero date, a date with a zero in it and a day that no calendar has (`ALLOW_INVALID_DATES`) have parts and no place in
//! the calendar (pitfalls 1 and 2); what becomes of them is the column's rule. All other dates are kept, whatever the
//! year.

use super::cursor::{take, take_array, take_be, take_le};
use super::{DecodeError, hires};

/// The wire types of dates and times in a row image.
pub(super) mod wire {
    /// TIMESTAMP of before 5.6.
    pub(in super::super) const TIMESTAMP: u8 = 7;
    /// DATE.
    pub(in super::super) const DATE: u8 = 10;
    /// TIME of before 5.6.
    pub(in super::super) const TIME: u8 = 11;
    /// DATETIME of before 5.6.
    pub(in super::super) const DATETIME: u8 = 12;
    /// DATE under its internal name.
    pub(in super::super) const NEWDATE: u8 = 14;
    /// TIMESTAMP(n).
    pub(in super::super) const TIMESTAMP2: u8 = 17;
    /// DATETIME(n).
    pub(in super::super) const DATETIME2: u8 = 18;
    /// TIME(n).
    pub(in super::super) const TIME2: u8 = 19;
}

pub(super) const MICROS: i64 = 1_000_000;
const DAY_MICROS: i64 = 86_400 * MICROS;

/// The largest hour of a TIME.
const MAX_HOUR: i64 = 838;

/// Microseconds within a day.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    pub(super) hour: i64,
    pub(super) minute: i64,
    pub(super) second: i64,
    pub(super) micros: i64,
}

impl Clock {
    const MIDNIGHT: Clock = Clock {
        hour: 0,
        minute: 0,
        second: 0,
        micros: 0,
    };

    fn micros(self, hours: i64) -> Result<i64, DecodeError> {
        if self.hour > hours || self.minute > 59 || self.second > 59 || self.micros >= MICROS {
            return Err(DecodeError::BadValue("time of day"));
        }
        Ok(((self.hour * 60 + self.minute) * 60 + self.second) * MICROS + self.micros)
    }
}

/// A date as the source holds it, on the calendar or not, and the time of day in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) year: i64,
    pub(super) month: i64,
    pub(super) day: i64,
    pub(super) clock: i64,
}

impl Stored {
    /// `0000-00-00`.
    pub(super) const ZERO: Stored = Stored {
        year: 0,
        month: 0,
        day: 0,
        clock: 0,
    };

    /// Days since 1970-01-01; none where the calendar has no such day.
    #[inline]
    pub(super) fn days(self) -> Option<i32> {
        days(self.year, self.month, self.day)
    }

    /// Microseconds since 1970-01-01; none where the calendar has no such day.
    #[inline]
    pub(super) fn micros(self) -> Option<i64> {
        self.days()
            .map(|days| i64::from(days) * DAY_MICROS + self.clock)
    }

    /// Appends the text that the source prints: the date, and with `digits` the time of day and that many digits of its
    /// fraction.
    pub(super) fn print(self, digits: Option<u8>, out: &mut Vec<u8>) {
        print_date(self.year, self.month, self.day, out);
        let Some(digits) = digits else {
            return;
        };
        out.push(b' ');
        let seconds = self.clock / MICROS;
        let parts = [seconds / 3600, seconds / 60 % 60, seconds % 60];
        for (part, before) in parts.into_iter().zip(["", ":", ":"]) {
            out.extend_from_slice(before.as_bytes());
            print_number(part, 2, out);
        }
        if digits > 0 {
            out.push(b'.');
            let unit = 10_i64.pow(6_u32.saturating_sub(digits.into()));
            print_number(self.clock % MICROS / unit, digits.into(), out);
        }
    }
}

/// Days since 1970-01-01; none where the calendar has no such day.
#[inline]
fn days(year: i64, month: i64, day: i64) -> Option<i32> {
    if !(1..=12).contains(&month) || day < 1 || day > month_length(year, month) {
        return None;
    }
    // Years begin in March here, so that the leap day is a year's last.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    i32::try_from(era * 146_097 + day_of_era - 719_468).ok()
}

pub(super) fn month_length(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

pub(super) fn moment(year: i64, month: i64, day: i64, clock: Clock) -> Result<Stored, DecodeError> {
    Ok(Stored {
        year,
        month,
        day,
        clock: clock.micros(23)?,
    })
}

/// The structure that DATE, DATETIME and TIMESTAMP share in the binary protocol.
fn packet_parts(cursor: &mut &[u8]) -> Result<(i64, i64, i64, Clock), DecodeError> {
    let length = usize::from(take_array::<1>(cursor)?[0]);
    if !matches!(length, 0 | 4 | 7 | 11) {
        return Err(DecodeError::BadLength);
    }
    let mut bytes = take(cursor, length)?;
    if length == 0 {
        return Ok((0, 0, 0, Clock::MIDNIGHT));
    }
    let [low, high, month, day] = take_array::<4>(&mut bytes)?;
    let mut clock = Clock::MIDNIGHT;
    if length >= 7 {
        let [hour, minute, second] = take_array::<3>(&mut bytes)?;
        clock.hour = hour.into();
        clock.minute = minute.into();
        clock.second = second.into();
    }
    if length == 11 {
        clock.micros = u32::from_le_bytes(take_array(&mut bytes)?).into();
    }
    let year = u16::from_le_bytes([low, high]);
    Ok((year.into(), month.into(), day.into(), clock))
}

/// A DATE of a packet.
#[inline]
pub(super) fn date_from_packet(cursor: &mut &[u8]) -> Result<Stored, DecodeError> {
    let (year, month, day, _) = packet_parts(cursor)?;
    moment(year, month, day, Clock::MIDNIGHT)
}

/// A DATETIME or TIMESTAMP of a packet.
#[inline]
pub(super) fn moment_from_packet(cursor: &mut &[u8]) -> Result<Stored, DecodeError> {
    let (year, month, day, clock) = packet_parts(cursor)?;
    moment(year, month, day, clock)
}

/// A TIME of a packet.
pub(super) fn time_from_packet(cursor: &mut &[u8]) -> Result<i64, DecodeError> {
    let length = usize::from(take_array::<1>(cursor)?[0]);
    if !matches!(length, 0 | 8 | 12) {
        return Err(DecodeError::BadLength);
    }
    let mut bytes = take(cursor, length)?;
    if length == 0 {
        return Ok(0);
    }
    let negative = take_array::<1>(&mut bytes)?[0] != 0;
    let days = i64::from(u32::from_le_bytes(take_array(&mut bytes)?));
    let [hour, minute, second] = take_array::<3>(&mut bytes)?;
    let micros = if length == 12 {
        u32::from_le_bytes(take_array(&mut bytes)?)
    } else {
        0
    };
    let clock = Clock {
        hour: days * 24 + i64::from(hour),
        minute: minute.into(),
        second: second.into(),
        micros: micros.into(),
    };
    let value = clock.micros(MAX_HOUR)?;
    Ok(if negative { -value } else { value })
}

/// Whether values of that wire type are dates without a time.
pub(super) fn is_date(wire_type: u8) -> bool {
    matches!(wire_type, wire::DATE | wire::NEWDATE)
}

/// A DATE of a row image.
pub(super) fn date_from_image(cursor: &mut &[u8]) -> Result<Stored, DecodeError> {
    let packed = take_le(cursor, 3)?.cast_signed();
    moment(packed >> 9, packed >> 5 & 15, packed & 31, Clock::MIDNIGHT)
}

/// A DATETIME of a row image.
pub(super) fn datetime_from_image(
    wire_type: u8,
    digits: u16,
    cursor: &mut &[u8],
) -> Result<Stored, DecodeError> {
    match wire_type {
        wire::DATETIME2 => {
            let packed = (take_be(cursor, 5)?.cast_signed() - 0x80_0000_0000) << 24;
            datetime_from_packed(packed + fraction(digits, cursor)?)
        }
        wire::DATETIME if digits > 0 => hires::datetime(digits, cursor),
        // The number YYYYMMDDhhmmss.
        wire::DATETIME => {
            let number = u64::from_le_bytes(take_array(cursor)?);
            let part = |shift: u64, base: u64| (number / shift % base).cast_signed();
            let clock = Clock {
                hour: part(10_000, 100),
                minute: part(100, 100),
                second: part(1, 100),
                micros: 0,
            };
            let year = number / 10_000_000_000;
            if year > 9999 {
                return Err(DecodeError::BadValue("year"));
            }
            moment(
                year.cast_signed(),
                part(100_000_000, 100),
                part(1_000_000, 100),
                clock,
            )
        }
        other => Err(DecodeError::Mismatch(other)),
    }
}

/// A TIMESTAMP of a row image: seconds since 1970 in UTC, which reach 2106 on MariaDB 11.5 (pitfall 4). Zero is the
/// zero timestamp, since no column can hold 1970-01-01 00:00:00.
pub(super) fn timestamp_from_image(
    wire_type: u8,
    digits: u16,
    cursor: &mut &[u8],
) -> Result<Option<i64>, DecodeError> {
    let (seconds, micros) = match wire_type {
        wire::TIMESTAMP if digits > 0 => return hires::timestamp(digits, cursor),
        wire::TIMESTAMP2 => (take_be(cursor, 4)?, fraction(digits, cursor)?),
        wire::TIMESTAMP => (take_le(cursor, 4)?, 0),
        other => return Err(DecodeError::Mismatch(other)),
    };
    let value = seconds.cast_signed() * MICROS + micros;
    Ok((value != 0).then_some(value))
}

/// A TIME of a row image.
pub(super) fn time_from_image(
    wire_type: u8,
    digits: u16,
    cursor: &mut &[u8],
) -> Result<i64, DecodeError> {
    match wire_type {
        wire::TIME2 => time_from_packed(time2_packed(digits, cursor)?),
        wire::TIME if digits > 0 => hires::time(digits, cursor),
        // The number hhmmss with its sign, in three bytes.
        wire::TIME => {
            let number = take_le(cursor, 3)?.cast_signed() << 40 >> 40;
            let size = number.abs();
            let clock = Clock {
                hour: size / 10_000,
                minute: size / 100 % 100,
                second: size % 100,
                micros: 0,
            };
            let value = clock.micros(MAX_HOUR)?;
            Ok(if number < 0 { -value } else { value })
        }
        other => Err(DecodeError::Mismatch(other)),
    }
}

/// Bytes of a fraction of that many digits; none for a fraction that does not exist.
pub(super) fn fraction_length(digits: u16) -> Option<usize> {
    match digits {
        0..=6 => Some(usize::from(digits).div_ceil(2)),
        _ => None,
    }
}

/// A fraction in microseconds.
pub(super) fn fraction(digits: u16, cursor: &mut &[u8]) -> Result<i64, DecodeError> {
    let length = fraction_length(digits).ok_or(DecodeError::BadLength)?;
    let stored = take_be(cursor, length)?.cast_signed();
    let micros = match length {
        0 => 0,
        1 => stored * 10_000,
        2 => stored * 100,
        _ => stored,
    };
    if micros >= MICROS {
        return Err(DecodeError::BadValue("fraction of a second"));
    }
    Ok(micros)
}

/// TIME's packed number, `(hour << 12 | minute << 6 | second) << 24 | microseconds`, negated as a whole for a negative
/// time. The stored form cuts the fraction to its digits, so a negative one borrows from the whole (pitfall 6).
pub(super) fn time2_packed(digits: u16, cursor: &mut &[u8]) -> Result<i64, DecodeError> {
    let length = fraction_length(digits).ok_or(DecodeError::BadLength)?;
    // The whole and its fraction are one number with an offset; only the fraction's unit differs.
    let stored = take_be(cursor, 3 + length)?.cast_signed();
    let offset = 1i64 << (23 + 8 * length);
    let value = stored - offset;
    let size = value.abs();
    let (whole, rest) = (size >> (8 * length), size & ((1i64 << (8 * length)) - 1));
    let micros = match length {
        0 => 0,
        1 => rest * 10_000,
        2 => rest * 100,
        _ => rest,
    };
    if micros >= MICROS {
        return Err(DecodeError::BadValue("fraction of a second"));
    }
    let packed = (whole << 24) + micros;
    Ok(if value < 0 { -packed } else { packed })
}

/// The parts of a packed time of day.
fn packed_clock(packed: i64) -> Clock {
    let whole = packed >> 24;
    Clock {
        hour: whole >> 12,
        minute: whole >> 6 & 63,
        second: whole & 63,
        micros: packed & 0xff_ffff,
    }
}

fn time_from_packed(packed: i64) -> Result<i64, DecodeError> {
    let clock = packed_clock(packed.checked_abs().ok_or(DecodeError::BadValue("time"))?);
    let value = clock.micros(MAX_HOUR)?;
    Ok(if packed < 0 { -value } else { value })
}

/// Year, month, day and time of day of `((year * 13 + month) << 5 | day) << 41 | time`.
fn packed_parts(packed: i64) -> Result<(i64, i64, i64, Clock), DecodeError> {
    if packed < 0 {
        return Err(DecodeError::BadValue("date"));
    }
    let date = packed >> 41;
    let year_month = date >> 5;
    let clock = packed_clock(packed & ((1 << 41) - 1));
    Ok((year_month / 13, year_month % 13, date & 31, clock))
}

fn datetime_from_packed(packed: i64) -> Result<Stored, DecodeError> {
    let (year, month, day, clock) = packed_parts(packed)?;
    moment(year, month, day, clock)
}

/// Appends the text of a packed date, date and time, or time, as the server prints it inside JSON: always six digits.
pub(super) fn print_packed(
    wire_type: u8,
    packed: i64,
    out: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    if wire_type == wire::TIME {
        let clock = packed_clock(packed.checked_abs().ok_or(DecodeError::BadValue("time"))?);
        clock.micros(MAX_HOUR)?;
        if packed < 0 {
            out.push(b'-');
        }
        print_clock(clock, out);
        return Ok(());
    }
    let (year, month, day, clock) = packed_parts(packed)?;
    clock.micros(23)?;
    print_date(year, month, day, out);
    if !matches!(wire_type, wire::DATE | wire::NEWDATE) {
        out.push(b' ');
        print_clock(clock, out);
    }
    Ok(())
}

/// Appends the text of a TIME of that many microseconds: always six digits.
pub(super) fn print_time(micros: i64, out: &mut Vec<u8>) {
    if micros < 0 {
        out.push(b'-');
    }
    let size = micros.abs();
    let seconds = size / MICROS;
    let clock = Clock {
        hour: seconds / 3600,
        minute: seconds / 60 % 60,
        second: seconds % 60,
        micros: size % MICROS,
    };
    print_clock(clock, out);
}

fn print_date(year: i64, month: i64, day: i64, out: &mut Vec<u8>) {
    print_number(year, 4, out);
    out.push(b'-');
    print_number(month, 2, out);
    out.push(b'-');
    print_number(day, 2, out);
}

fn print_clock(clock: Clock, out: &mut Vec<u8>) {
    print_number(clock.hour, 2, out);
    out.push(b':');
    print_number(clock.minute, 2, out);
    out.push(b':');
    print_number(clock.second, 2, out);
    out.push(b'.');
    print_number(clock.micros, 6, out);
}

/// Appends a number that is not negative in at least `width` digits.
fn print_number(mut number: i64, width: usize, out: &mut Vec<u8>) {
    let start = out.len();
    while number > 0 || out.len() - start < width {
        out.push(b'0' + (number % 10) as u8);
        number /= 10;
    }
    if let Some(digits) = out.get_mut(start..) {
        digits.reverse();
    }
}

#[cfg(test)]
#[path = "temporal_tests.rs"]
mod tests;
