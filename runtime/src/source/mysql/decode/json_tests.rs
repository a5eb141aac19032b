use super::*;

fn text(document: &[u8]) -> Result<String, DecodeError> {
    let mut out = vec![];
    print(document, &mut out)?;
    Ok(String::from_utf8(out).expect("UTF-8"))
}

fn double(number: f64) -> String {
    let mut document = vec![DOUBLE];
    document.extend_from_slice(&number.to_le_bytes());
    text(&document).expect("prints")
}

fn opaque(field_type: u8, content: &[u8]) -> Result<String, DecodeError> {
    let mut document = vec![OPAQUE, field_type];
    let length = content.len();
    if length > 127 {
        document.push((length & 0x7f) as u8 | 0x80);
        document.push((length >> 7) as u8);
    } else {
        document.push(length as u8);
    }
    document.extend_from_slice(content);
    text(&document)
}

/// `{"a": 1, "bc": [true, "x"]}` as the server stores it.
const DOCUMENT: [u8; 41] = [
    0, 2, 0, 40, 0, // small object, 2 members, 40 bytes
    18, 0, 1, 0, 19, 0, 2, 0, // keys
    5, 1, 0, 2, 21, 0, // values: inlined 1, array at 21
    b'a', b'b', b'c', // key bytes
    2, 0, 12, 0, 4, 1, 0, 12, 10, 0, 1, b'x', // array: true inlined, string at 10
    0, 0, 0, 0, 0, 0, 0,
];

#[test]
fn containers_print_with_the_servers_spacing() {
    assert_eq!(
        text(&DOCUMENT).as_deref(),
        Ok(r#"{"a": 1, "bc": [true, "x"]}"#)
    );
    assert_eq!(text(&[0, 0, 0, 4, 0]).as_deref(), Ok("{}"));
    assert_eq!(text(&[2, 0, 0, 4, 0]).as_deref(), Ok("[]"));
}

/// Pitfall 26.
#[test]
fn a_document_of_no_bytes_is_null() {
    assert_eq!(text(&[]).as_deref(), Ok("null"));
    assert_eq!(text(&[4, 0]).as_deref(), Ok("null"));
}

#[test]
fn integers_keep_all_their_digits() {
    let mut document = vec![UINT64];
    document.extend_from_slice(&u64::MAX.to_le_bytes());
    assert_eq!(text(&document).as_deref(), Ok("18446744073709551615"));
    let mut document = vec![INT64];
    document.extend_from_slice(&i64::MIN.to_le_bytes());
    assert_eq!(text(&document).as_deref(), Ok("-9223372036854775808"));
}

#[test]
fn doubles_print_as_the_server_prints_them() {
    for (number, expected) in [
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (1.0, "1.0"),
        (-2.5, "-2.5"),
        (0.1, "0.1"),
        (1e14, "100000000000000.0"),
        (1e15, "1e15"),
        (123_456_789_012_345.0, "123456789012345.0"),
        (1_234_567_890_123_456.0, "1.234567890123456e15"),
        (1_234_567_890_123_456.5, "1234567890123456.5"),
        (1e-14, "0.00000000000001"),
        (1e-15, "0.000000000000001"),
        (1e-16, "1e-16"),
        (f64::MAX, "1.7976931348623157e308"),
        (5e-324, "5e-324"),
        (1e100, "1e100"),
        // Half-way between two shortest texts: the even one, as the server was seen to print.
        (-905_104_988_728_773.0 - 0.25, "-905104988728773.2"),
        (158_496_533_282_780.0 + 0.125, "158496533282780.12"),
        (905_104_988_728_773.0 + 0.75, "905104988728773.8"),
        (2.5, "2.5"),
        (0.5, "0.5"),
    ] {
        assert_eq!(double(number), expected, "{number:e}");
    }
    let mut infinite = vec![DOUBLE];
    infinite.extend_from_slice(&f64::INFINITY.to_le_bytes());
    assert!(text(&infinite).is_err());
}

#[test]
fn strings_escape_what_json_demands_and_nothing_else() {
    let raw = "\u{0}\u{1f}\u{8}\t\n\u{c}\r\"\\/\u{7f}é\u{1f600}";
    let mut document = vec![STRING, raw.len() as u8];
    document.extend_from_slice(raw.as_bytes());
    assert_eq!(
        text(&document).as_deref(),
        Ok("\"\\u0000\\u001f\\b\\t\\n\\f\\r\\\"\\\\/\u{7f}é\u{1f600}\"")
    );
}

#[test]
fn opaque_values_print_as_their_types_do() {
    // DECIMAL(5,2) -1.50
    assert_eq!(
        opaque(NEWDECIMAL, &[5, 2, !0x80, !0x01, !50]).as_deref(),
        Ok("-1.50")
    );
    let packed = (((2024i64 * 13 + 2) << 5 | 29) << 17 | 1 << 12 | 2 << 6 | 3) << 24 | 45;
    let packed = packed.to_le_bytes();
    assert_eq!(
        opaque(wire::DATETIME, &packed).as_deref(),
        Ok("\"2024-02-29 01:02:03.000045\"")
    );
    assert_eq!(opaque(wire::DATE, &packed).as_deref(), Ok("\"2024-02-29\""));
    let time = -((838i64 << 12 | 59 << 6 | 58) << 24 | 500_000);
    assert_eq!(
        opaque(wire::TIME, &time.to_le_bytes()).as_deref(),
        Ok("\"-838:59:58.500000\"")
    );
    assert_eq!(opaque(15, b"ab").as_deref(), Ok("\"base64:type15:YWI=\""));
    assert_eq!(opaque(16, &[1]).as_deref(), Ok("\"base64:type16:AQ==\""));
}

#[test]
fn a_document_that_refers_to_itself_ends_in_an_error() {
    // An array whose two members are the array itself, at offset 0.
    let looping = [2, 2, 0, 10, 0, 2, 0, 0, 2, 0, 0];
    assert!(text(&looping).is_err());
    // One long string, named by a thousand members.
    let mut shared = vec![LARGE_ARRAY];
    let (count, string) = (1000u32, 8 + 1000 * 5u32);
    shared.extend_from_slice(&count.to_le_bytes());
    shared.extend_from_slice(&(string + 2002).to_le_bytes());
    for _ in 0..count {
        shared.push(STRING);
        shared.extend_from_slice(&string.to_le_bytes());
    }
    shared.extend_from_slice(&[0xd0, 0x0f]);
    shared.extend(std::iter::repeat_n(b'x', 2000));
    assert_eq!(text(&shared), Err(DecodeError::BadJson("values overlap")));
}

#[test]
fn a_broken_document_is_an_error_or_a_short_text() {
    let mut out = vec![];
    let mut check = |document: &[u8]| {
        out.clear();
        let printed = print(document, &mut out);
        assert!(
            printed.is_err() || out.len() <= 16 * document.len().max(1),
            "{document:?}"
        );
    };
    for length in 0..DOCUMENT.len() {
        check(&DOCUMENT[..length]);
    }
    let mut broken = DOCUMENT;
    for place in 0..broken.len() {
        for value in 0..=255 {
            let kept = std::mem::replace(&mut broken[place], value);
            check(&broken);
            broken[place] = kept;
        }
    }
}
