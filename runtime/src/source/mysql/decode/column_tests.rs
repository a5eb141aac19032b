use crate::source::mysql::catalog::ColumnDefault;
use crate::source::mysql::decode::ImageFormat;
use arrow::array::{Array, AsArray};

use super::*;
use crate::source::mysql::types::column_type;

fn column(data_type: &str) -> SourceColumn {
    SourceColumn::sample(data_type)
}

fn builder(column: &SourceColumn) -> ColumnBuilder {
    let column_type = column_type(column).expect("supported");
    ColumnBuilder::new(column, column_type, false).expect("a builder")
}

fn text(charset: &str) -> SourceColumn {
    SourceColumn {
        charset: Some(charset.into()),
        ..column("varchar")
    }
}

fn labels(data_type: &str, labels: &[&str]) -> SourceColumn {
    SourceColumn {
        charset: Some("utf8mb4".into()),
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
        generated: false,
        geometry: None,
        default: ColumnDefault::None,
        ..column(data_type)
    }
}

fn unsigned(data_type: &str) -> SourceColumn {
    SourceColumn {
        unsigned: true,
        ..column(data_type)
    }
}

fn decimal(precision: u8, scale: u8) -> SourceColumn {
    SourceColumn {
        precision: Some(precision),
        scale: Some(scale),
        ..column("decimal")
    }
}

fn format(wire_type: u8, meta: u16) -> ImageFormat {
    ImageFormat { wire_type, meta }
}

/// One value of a packet and one of an image, which must come out equal.
fn both(column: &SourceColumn, packet: &[u8], format: ImageFormat, image: &[u8]) -> ArrayRef {
    let mut builder = builder(column);
    let (mut packet, mut image) = (packet, image);
    builder.push_packet(&mut packet).expect("a packet's value");
    builder
        .push_image(format, &mut image)
        .expect("an image's value");
    assert!(packet.is_empty() && image.is_empty(), "both take it all");
    let array = builder.finish();
    assert_eq!(array.len(), 2);
    assert_eq!(
        array.data_type(),
        &column_type(column).expect("supported").arrow()
    );
    assert_eq!(
        &array.slice(0, 1),
        &array.slice(1, 1),
        "load and stream agree on {}",
        column.data_type
    );
    array
}

fn bytes(array: &ArrayRef) -> &[u8] {
    array.as_binary::<i32>().value(0)
}

#[test]
fn integers_keep_their_extremes_in_both_forms() {
    let array = both(&column("tinyint"), &[0x80], format(1, 0), &[0x80]);
    assert_eq!(array.as_primitive::<Int8Type>().value(0), i8::MIN);
    let array = both(&column("smallint"), &[0, 0x80], format(2, 0), &[0, 0x80]);
    assert_eq!(array.as_primitive::<Int16Type>().value(0), i16::MIN);
    let least = (-8_388_608i32).to_le_bytes();
    let array = both(&column("mediumint"), &least, format(9, 0), &[0, 0, 0x80]);
    assert_eq!(array.as_primitive::<Int32Type>().value(0), -8_388_608);
    let array = both(
        &unsigned("mediumint"),
        &[0xff, 0xff, 0xff, 0],
        format(9, 0),
        &[0xff; 3],
    );
    assert_eq!(array.as_primitive::<UInt32Type>().value(0), 16_777_215);
    let most = u64::MAX.to_le_bytes();
    let array = both(&unsigned("bigint"), &most, format(8, 0), &most);
    assert_eq!(array.as_primitive::<UInt64Type>().value(0), u64::MAX);
    let least = i64::MIN.to_le_bytes();
    let array = both(&column("bigint"), &least, format(8, 0), &least);
    assert_eq!(array.as_primitive::<Int64Type>().value(0), i64::MIN);
}

#[test]
fn the_year_0000_stays_0() {
    let array = both(&column("year"), &[0, 0], format(13, 0), &[0]);
    assert_eq!(array.as_primitive::<UInt16Type>().value(0), 0);
    let array = both(&column("year"), &[0x6b, 0x08], format(13, 0), &[255]);
    assert_eq!(array.as_primitive::<UInt16Type>().value(0), 2155);
}

#[test]
fn floats_keep_their_bits() {
    let minus_zero = (-0.0f32).to_le_bytes();
    let array = both(&column("float"), &minus_zero, format(4, 4), &minus_zero);
    let value = array.as_primitive::<Float32Type>().value(0);
    assert_eq!(value.to_bits(), 0x8000_0000);
    let third = (1.0f64 / 3.0).to_le_bytes();
    both(&column("double"), &third, format(5, 8), &third);
}

#[test]
fn bits_are_read_high_byte_first() {
    let bit = SourceColumn {
        length: Some(13),
        ..column("bit")
    };
    let array = both(&bit, &[2, 0x1f, 0xfe], format(16, 0x0105), &[0x1f, 0xfe]);
    assert_eq!(array.as_primitive::<UInt64Type>().value(0), 0x1ffe);
}

#[test]
fn a_decimals_text_and_groups_are_one_mantissa() {
    let image = [0x81, 0x0d, 0xfb, 0x38, 0xd2, 0x04, 0xd2].map(|byte: u8| !byte);
    let array = both(
        &decimal(14, 4),
        b"\x10-1234567890.1234",
        format(246, 14 << 8 | 4),
        &image,
    );
    assert_eq!(
        array.as_primitive::<Decimal128Type>().value(0),
        -12_345_678_901_234
    );
    let mut wide = builder(&decimal(65, 30));
    let digits = format!("-{}.{}", "9".repeat(35), "9".repeat(30));
    let mut packet = vec![digits.len() as u8];
    packet.extend_from_slice(digits.as_bytes());
    wide.push_packet(&mut &packet[..]).expect("a value");
    let array = wide.finish();
    assert_eq!(
        array.as_primitive::<Decimal256Type>().value_as_string(0),
        digits
    );
}

#[test]
fn a_decimal_of_another_scale_is_refused() {
    let mut builder = builder(&decimal(14, 4));
    let image = [0x80u8; 16];
    assert_eq!(
        builder.push_image(format(246, 14 << 8 | 3), &mut &image[..]),
        Err(DecodeError::Mismatch(246))
    );
    assert_eq!(builder.len(), 0);
}

#[test]
fn a_date_that_no_calendar_has_becomes_null_or_1970_and_is_counted() {
    let mut date = column("date");
    let mut kept = builder(&date);
    kept.push_packet(&mut &[0u8][..]).expect("the zero date");
    kept.push_image(format(10, 0), &mut &[0, 0, 0][..])
        .expect("the zero date");
    assert_eq!(kept.take_changed()[0], (Policy::ZeroDates, 2));
    assert_eq!(kept.take_changed()[0], (Policy::ZeroDates, 0));
    let array = kept.finish();
    assert!(array.is_null(0) && array.is_null(1));
    date.nullable = false;
    let mut moved = builder(&date);
    moved.push_packet(&mut &[0u8][..]).expect("the zero date");
    let array = moved.finish();
    assert_eq!(array.null_count(), 0);
    assert_eq!(array.as_primitive::<Date32Type>().value(0), 0);
    let timestamp = SourceColumn {
        scale: Some(0),
        ..column("timestamp")
    };
    let mut kept = builder(&timestamp);
    kept.push_image(format(17, 0), &mut &[0; 4][..])
        .expect("the zero timestamp");
    assert!(kept.finish().is_null(0));
}

#[test]
fn null_becomes_the_default_where_the_pipe_says_so() {
    let column = text("utf8mb4");
    let mut kept = builder(&column);
    kept.push_null();
    assert!(kept.finish().is_null(0));
    let mut defaults = ColumnBuilder::new(&column, ColumnType::Text, true).expect("a builder");
    defaults.push_null();
    let array = defaults.finish();
    assert!(!array.is_null(0));
    assert_eq!(bytes(&array), b"");
}

#[test]
fn text_is_decoded_from_its_stored_bytes_in_both_forms() {
    let array = both(
        &text("latin1"),
        &[2, 0xe9, 0x80],
        format(15, 300),
        &[2, 0, 0xe9, 0x80],
    );
    assert_eq!(bytes(&array), "é€".as_bytes());
    let array = both(&text("ucs2"), &[2, 0, 0xe9], format(15, 20), &[2, 0, 0xe9]);
    assert_eq!(bytes(&array), "é".as_bytes());
    let array = both(
        &text("gbk"),
        b"\x03a\xd2\xbb",
        format(15, 20),
        b"\x03a\xd2\xbb",
    );
    assert_eq!(bytes(&array), "a一".as_bytes());
    // Bytes that are no UTF-8 are kept (pitfall 21).
    let array = both(&text("utf8mb4"), &[1, 0xff], format(252, 2), &[1, 0, 0xff]);
    assert_eq!(bytes(&array), [0xff]);
}

#[test]
fn a_text_with_an_unassigned_code_is_its_stored_bytes_and_counted() {
    let column = text("gbk");
    let stored = b"\x04\xd2\xbb\xfe\xfe";
    let array = both(&column, stored, format(15, 20), stored);
    assert_eq!(bytes(&array), &stored[1..]);
    let mut counting = builder(&column);
    counting.push_packet(&mut &stored[..]).expect("kept");
    counting
        .push_image(format(15, 20), &mut &stored[..])
        .expect("kept");
    counting
        .push_packet(&mut &b"\x02\xd2\xbb"[..])
        .expect("text");
    assert_eq!(counting.take_changed()[2], (Policy::InvalidText, 2));
}

#[test]
fn a_key_that_another_one_could_become_leaves_no_trace() {
    let mut key = builder(&text("cp932")).of_key();
    let twins: [&[u8]; 2] = [b"\x02\xfa\x5c", b"\x02\xed\x40"];
    assert_eq!(key.push_packet(&mut &twins[0][..]), Ok(()));
    assert_eq!(
        key.push_packet(&mut &twins[1][..]),
        Err(DecodeError::AmbiguousKey)
    );
    assert_eq!(
        key.push_image(format(15, 20), &mut &twins[1][..]),
        Err(DecodeError::AmbiguousKey)
    );
    assert_eq!(key.len(), 1);
    assert_eq!(bytes(&key.finish()), "纊".as_bytes());
    both(&text("cp932"), twins[1], format(15, 20), twins[1]);
}

#[test]
fn binary_gets_its_zeros_back() {
    let binary = SourceColumn {
        length: Some(4),
        ..column("binary")
    };
    let array = both(&binary, &[4, 1, 0, 0, 0], format(254, 0xfe04), &[1, 1]);
    assert_eq!(bytes(&array), [1, 0, 0, 0]);
    let array = both(&column("varbinary"), &[1, 1], format(15, 4), &[1, 1]);
    assert_eq!(bytes(&array), [1]);
}

#[test]
fn labels_come_by_number_in_both_forms() {
    let colour = labels("enum", &["red", "it's, green"]);
    let number = |number: u64| number.to_le_bytes();
    let array = both(&colour, &number(2), format(254, 0xf701), &[2]);
    assert_eq!(bytes(&array), b"it's, green");
    let array = both(&colour, &number(0), format(254, 0xf701), &[0]);
    assert_eq!(bytes(&array), b"", "index 0 is the server's error value");
    let mut failing = builder(&colour);
    assert_eq!(
        failing.push_packet(&mut &number(3)[..]),
        Err(DecodeError::UnknownLabel)
    );
    assert_eq!(
        failing.push_image(format(254, 0xf701), &mut &[3][..]),
        Err(DecodeError::UnknownLabel)
    );
    let many: Vec<String> = (1..=64).map(|label| label.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let array = both(
        &labels("set", &many),
        &number(1 << 63 | 5),
        format(254, 0xf808),
        &[5, 0, 0, 0, 0, 0, 0, 0x80],
    );
    assert_eq!(bytes(&array), b"1,3,64");
}

#[test]
fn json_of_an_image_is_the_servers_text() {
    let array = both(
        &column("json"),
        b"\x04true",
        format(245, 4),
        &[2, 0, 0, 0, 4, 1],
    );
    assert_eq!(bytes(&array), b"true");
    let mut empty = builder(&column("json"));
    empty
        .push_image(format(245, 4), &mut &[0; 4][..])
        .expect("a document of no bytes");
    assert_eq!(bytes(&empty.finish()), b"null");
}

#[test]
fn a_failed_value_leaves_the_column_as_it_was() {
    let mut json = builder(&column("json"));
    json.push_packet(&mut &b"\x02[]"[..]).expect("a value");
    let before = json.byte_count();
    // An array that says it has a member, and ends.
    assert!(
        json.push_image(format(245, 4), &mut &[5, 0, 0, 0, 2, 1, 0, 4, 0][..])
            .is_err()
    );
    assert_eq!((json.len(), json.byte_count()), (1, before));
    assert_eq!(bytes(&json.finish()), b"[]");
}

#[test]
fn a_builder_is_empty_and_usable_after_finish() {
    let mut numbers = builder(&column("int"));
    for round in 0..3i32 {
        numbers
            .push_packet(&mut &round.to_le_bytes()[..])
            .expect("a value");
        numbers.push_null();
        let array = numbers.finish();
        assert_eq!((array.len(), array.null_count()), (2, 1));
        assert_eq!(array.as_primitive::<Int32Type>().value(0), round);
        assert!(numbers.is_empty());
    }
}

#[test]
fn garbage_is_an_error_or_a_value_and_never_a_panic() {
    use rand::{Rng, SeedableRng};
    let seed: u64 = rand::random();
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let mut columns: Vec<SourceColumn> = [
        "tinyint",
        "smallint",
        "mediumint",
        "int",
        "bigint",
        "float",
        "double",
        "bit",
        "year",
        "date",
        "time",
        "datetime",
        "timestamp",
        "binary",
        "blob",
        "json",
    ]
    .map(column)
    .into();
    columns.extend([
        text("latin1"),
        text("utf16"),
        text("utf32"),
        text("utf8mb4"),
    ]);
    columns.extend([decimal(9, 2), decimal(38, 10), decimal(65, 30)]);
    columns.extend([labels("enum", &["a", "b"]), labels("set", &["a", "b", "c"])]);
    columns.extend(["gb18030", "ujis", "cp932", "swe7", "ucs2"].map(text));
    columns[13].length = Some(255);
    let mut builders: Vec<ColumnBuilder> = columns.iter().map(builder).collect();
    for _ in 0..200_000 {
        let mut garbage = [0u8; 48];
        random.fill(&mut garbage);
        // Small numbers are lengths, counts and types more often than large ones.
        let mask = [0xff, 0x1f, 0x0f, 0x03][random.random_range(0..4)];
        garbage.iter_mut().for_each(|byte| *byte &= mask);
        let garbage = &garbage[..random.random_range(0..48)];
        let place = random.random_range(0..builders.len());
        let wire_type = match place {
            15 => 245,
            20..=22 => 246,
            _ => random.random(),
        };
        let builder = &mut builders[place];
        let before = builder.len();
        let pushed = if random.random() {
            builder.push_packet(&mut &*garbage).is_ok()
        } else {
            let meta = u16::from_be_bytes([random.random(), random.random::<u8>() & 0x0f]);
            let format = format(wire_type, meta);
            let _ = format.value_length(garbage);
            builder.push_image(format, &mut &*garbage).is_ok()
        };
        assert_eq!(builder.len(), before + usize::from(pushed), "seed {seed}");
        if builder.byte_count() > 1 << 20 {
            builder.finish();
        }
    }
    for builder in &mut builders {
        let expected = builder.len();
        assert_eq!(builder.finish().len(), expected, "seed {seed}");
    }
}

/// One zero, one partial and one real date, from a packet and from an image each.
fn dates_by(rule: DateRule) -> (ArrayRef, u64) {
    let date = column("date");
    let mut builder = builder(&date).with_date_rule(rule);
    let packets: [&[u8]; 3] = [&[0], &[4, 0xe8, 0x07, 0, 15], &[4, 0xb2, 0x07, 1, 2]];
    let images: [[u8; 3]; 3] = [[0; 3], [0x0f, 0xd0, 0x0f], [0x22, 0x64, 0x0f]];
    for (mut packet, image) in packets.into_iter().zip(images) {
        builder.push_packet(&mut packet).expect("a packet's date");
        builder
            .push_image(format(10, 0), &mut &image[..])
            .expect("an image's date");
    }
    (builder.finish(), builder.take_changed()[0].1)
}

#[test]
fn each_rule_gives_both_paths_the_same_dates() {
    for (rule, expected) in [
        (DateRule::Null, [None, None, Some(1)]),
        (DateRule::Epoch, [Some(0), Some(0), Some(1)]),
        // 1900-01-01 and 2024-01-15.
        (DateRule::Clamp, [Some(-25_567), Some(19_737), Some(1)]),
    ] {
        let (array, changed) = dates_by(rule);
        let days: Vec<Option<i32>> = array.as_primitive::<Date32Type>().iter().collect();
        let twice: Vec<Option<i32>> = expected.iter().flat_map(|day| [*day, *day]).collect();
        assert_eq!(days, twice, "{rule:?}");
        assert_eq!(changed, 4, "{rule:?}");
    }
}

#[test]
fn a_key_with_a_zero_date_is_an_error_and_leaves_no_trace() {
    let mut builder = builder(&column("date")).with_date_rule(DateRule::Refuse);
    assert_eq!(
        builder.push_packet(&mut &[0u8][..]),
        Err(DecodeError::ImpossibleKeyDate)
    );
    assert_eq!(
        builder.push_image(format(10, 0), &mut &[0, 0, 0][..]),
        Err(DecodeError::ImpossibleKeyDate)
    );
    assert_eq!((builder.len(), builder.take_changed()[0].1), (0, 0));
}

#[test]
fn dates_as_text_are_the_sources_own() {
    let date = column("date");
    let mut builder = ColumnBuilder::new(&date, ColumnType::Text, false).expect("a builder");
    builder.push_packet(&mut &[0u8][..]).expect("the zero date");
    builder
        .push_image(format(10, 0), &mut &[0x0f, 0xd0, 0x0f][..])
        .expect("a partial date");
    builder.push_null();
    let array = builder.finish();
    let texts = array.as_binary::<i32>();
    assert_eq!(texts.value(0), b"0000-00-00");
    assert_eq!(texts.value(1), b"2024-00-15");
    assert!(texts.is_null(2));
    let datetime = SourceColumn {
        scale: Some(3),
        ..column("datetime")
    };
    let mut builder = ColumnBuilder::new(&datetime, ColumnType::Text, false).expect("a builder");
    let packet = [11, 0xb2, 0x07, 1, 1, 1, 2, 3, 0xc8, 0xaf, 0, 0];
    builder.push_packet(&mut &packet[..]).expect("a moment");
    assert_eq!(
        builder.finish().as_binary::<i32>().value(0),
        b"1970-01-01 01:02:03.045"
    );
}

#[test]
fn filled_nulls_are_counted() {
    let date = text("utf8mb4");
    let mut builder = ColumnBuilder::new(&date, ColumnType::Text, true).expect("a builder");
    builder.push_null();
    assert_eq!(builder.take_changed()[1], (Policy::NullAsDefault, 1));
    let mut builder = ColumnBuilder::new(&date, ColumnType::Text, false).expect("a builder");
    builder.push_null();
    assert_eq!(builder.take_changed()[1], (Policy::NullAsDefault, 0));
}

#[test]
fn what_a_tombstone_lacks_is_no_value_that_a_policy_has_changed() {
    for null_as_default in [true, false] {
        let mut builder = ColumnBuilder::new(&text("utf8mb4"), ColumnType::Text, null_as_default)
            .expect("a builder");
        builder.push_absent();
        assert_eq!(builder.take_changed()[1], (Policy::NullAsDefault, 0));
        assert_eq!(builder.finish().is_null(0), !null_as_default);
    }
}
