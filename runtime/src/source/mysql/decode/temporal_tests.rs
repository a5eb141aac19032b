use super::*;

const DAY: i64 = DAY_MICROS;

#[test]
fn days_count_from_1970_over_the_whole_calendar() {
    assert_eq!(days(1970, 1, 1), Some(0));
    assert_eq!(days(2000, 2, 29), Some(11_016));
    assert_eq!(days(1969, 12, 31), Some(-1));
    assert_eq!(days(1, 1, 1), Some(-719_162));
    assert_eq!(days(9999, 12, 31), Some(2_932_896));
    for (year, month, day) in [
        (0, 0, 0),
        (2024, 0, 15),
        (2024, 3, 0),
        (2023, 2, 29),
        (1900, 2, 29),
        (2024, 13, 1),
    ] {
        assert_eq!(days(year, month, day), None, "{year}-{month}-{day}");
    }
}

#[test]
fn every_day_follows_the_one_before() {
    let mut expected = days(1, 1, 1).expect("a day");
    for year in 1..=9999 {
        for month in 1..=12 {
            for day in 1..=month_length(year, month) {
                assert_eq!(days(year, month, day), Some(expected));
                expected += 1;
            }
        }
    }
}

#[test]
fn a_packet_says_a_date_in_0_4_7_or_11_bytes() {
    assert_eq!(moment_from_packet(&mut &[0u8][..]), Ok(Stored::ZERO));
    assert_eq!(
        date_from_packet(&mut &[4, 0xe8, 0x07, 2, 29][..]).map(Stored::days),
        Ok(Some(19_782))
    );
    assert_eq!(
        moment_from_packet(&mut &[4, 0xb2, 0x07, 1, 2][..]).map(Stored::micros),
        Ok(Some(DAY))
    );
    assert_eq!(
        moment_from_packet(&mut &[7, 0xb2, 0x07, 1, 1, 1, 2, 3][..]).map(Stored::micros),
        Ok(Some(3_723 * MICROS))
    );
    assert_eq!(
        moment_from_packet(&mut &[11, 0xb2, 0x07, 1, 1, 0, 0, 0, 0x40, 0xe2, 1, 0][..])
            .map(Stored::micros),
        Ok(Some(123_456))
    );
    assert_eq!(
        moment_from_packet(&mut &[5, 0, 0, 0, 0, 0][..]),
        Err(DecodeError::BadLength)
    );
    assert_eq!(
        moment_from_packet(&mut &[7, 0xb2, 0x07, 1, 1, 24, 0, 0][..]),
        Err(DecodeError::BadValue("time of day"))
    );
}

#[test]
fn a_packet_says_a_time_with_its_days_and_sign() {
    assert_eq!(time_from_packet(&mut &[0u8][..]), Ok(0));
    // -838:59:59.999999 is 34 days and 22 hours.
    let least = [12, 1, 34, 0, 0, 0, 22, 59, 59, 0x3f, 0x42, 0x0f, 0];
    assert_eq!(
        time_from_packet(&mut &least[..]),
        Ok(-(3_020_399 * MICROS + 999_999))
    );
    let too_long = [8, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0];
    assert!(time_from_packet(&mut &too_long[..]).is_err());
}

#[test]
fn an_images_time_borrows_for_its_negative_fraction() {
    let time = |digits, bytes: &[u8]| time_from_image(wire::TIME2, digits, &mut &*bytes);
    assert_eq!(time(0, &[0x80, 0, 0]), Ok(0));
    assert_eq!(time(0, &[0x80, 0x10, 0x83]), Ok(3_723 * MICROS));
    // -00:00:00.5 at each width.
    assert_eq!(time(1, &[0x7f, 0xff, 0xff, 0xce]), Ok(-500_000));
    assert_eq!(time(3, &[0x7f, 0xff, 0xff, 0xec, 0x78]), Ok(-500_000));
    assert_eq!(time(6, &[0x7f, 0xff, 0xff, 0xf8, 0x5e, 0xe0]), Ok(-500_000));
    // -00:00:01.00 has nothing to borrow.
    assert_eq!(time(2, &[0x7f, 0xff, 0xff, 0x00]), Ok(-MICROS));
    assert_eq!(
        time(0, &[0x4b, 0x91, 0x05]),
        Ok(-3_020_399 * MICROS),
        "-838:59:59"
    );
    assert!(time(7, &[0; 8]).is_err());
    assert!(time(2, &[0x80, 0, 0, 100]).is_err());
}

#[test]
fn an_images_datetime_keeps_the_wall_clock() {
    let value = |digits, bytes: &[u8]| {
        datetime_from_image(wire::DATETIME2, digits, &mut &*bytes).map(Stored::micros)
    };
    // The zero date.
    assert_eq!(value(0, &[0x80, 0, 0, 0, 0]), Ok(None));
    let pack = |year: u64, month: u64, day: u64, hour: u64, minute: u64, second: u64| {
        let whole = ((year * 13 + month) << 5 | day) << 17 | hour << 12 | minute << 6 | second;
        (whole + 0x80_0000_0000).to_be_bytes()[3..].to_vec()
    };
    assert_eq!(value(0, &pack(1970, 1, 2, 0, 0, 1)), Ok(Some(DAY + MICROS)));
    let mut with_fraction = pack(9999, 12, 31, 23, 59, 59);
    with_fraction.extend_from_slice(&[0x0f, 0x42, 0x3f]);
    assert_eq!(value(6, &with_fraction), Ok(Some(2_932_897 * DAY - 1)));
    assert_eq!(value(0, &pack(2024, 0, 10, 0, 0, 0)), Ok(None));
    let old = 19_700_102_000_001u64.to_le_bytes();
    assert_eq!(
        datetime_from_image(wire::DATETIME, 0, &mut &old[..]).map(Stored::micros),
        Ok(Some(DAY + MICROS))
    );
}

#[test]
fn an_images_timestamp_zero_is_no_moment() {
    let value = |bytes: &[u8]| timestamp_from_image(wire::TIMESTAMP2, 0, &mut &*bytes);
    assert_eq!(value(&[0; 4]), Ok(None));
    assert_eq!(value(&[0, 0, 0, 1]), Ok(Some(MICROS)));
    assert_eq!(
        value(&[0xff; 4]),
        Ok(Some(i64::from(u32::MAX) * MICROS)),
        "2106"
    );
    assert_eq!(
        timestamp_from_image(wire::TIMESTAMP, 0, &mut &[1, 0, 0, 0][..]),
        Ok(Some(MICROS))
    );
}

#[test]
fn the_layouts_of_before_5_6_keep_their_sign() {
    let bytes = (-8_385_959i32).to_le_bytes();
    assert_eq!(
        time_from_image(wire::TIME, 0, &mut &bytes[..3]),
        Ok(-3_020_399 * MICROS)
    );
    assert_eq!(
        date_from_image(&mut &[0x5d, 0xd0, 0x0f][..]).map(Stored::days),
        Ok(days(2024, 2, 29))
    );
}

#[test]
fn a_stored_date_prints_as_the_source_prints_it() {
    let print = |stored: Stored, digits| {
        let mut out = Vec::new();
        stored.print(digits, &mut out);
        String::from_utf8(out).expect("digits")
    };
    let partial = Stored {
        year: 2024,
        month: 0,
        day: 15,
        clock: (3_600 + 2 * 60 + 3) * MICROS + 45_000,
    };
    assert_eq!(print(partial, None), "2024-00-15");
    assert_eq!(print(partial, Some(0)), "2024-00-15 01:02:03");
    assert_eq!(print(partial, Some(3)), "2024-00-15 01:02:03.045");
    assert_eq!(print(partial, Some(6)), "2024-00-15 01:02:03.045000");
    assert_eq!(print(Stored::ZERO, Some(1)), "0000-00-00 00:00:00.0");
}
