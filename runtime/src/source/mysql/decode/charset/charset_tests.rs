//! Samples by hand; that every code is what both servers say is shown end to end.

use super::*;

fn charset(name: &str) -> Charset {
    Charset::named(name).unwrap_or_else(|| panic!("{name} is known"))
}

fn decoded(name: &str, bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut out = b"before".to_vec();
    let text = charset(name).decode(bytes, &mut out);
    let tail = out.strip_prefix(b"before").expect("what was there stays");
    (tail.to_vec(), text)
}

fn text(name: &str, bytes: &[u8]) -> String {
    let (out, text) = decoded(name, bytes);
    assert!(text, "{name} {bytes:x?}");
    String::from_utf8(out).expect("valid")
}

fn stays(name: &str, bytes: &[u8]) {
    assert_eq!(decoded(name, bytes), (bytes.to_vec(), false), "{name}");
}

#[test]
fn latin1_is_windows_1252_with_its_holes_as_control_characters() {
    assert_eq!(text("latin1", b"plain"), "plain");
    assert_eq!(
        text(
            "latin1",
            &[0x80, 0x81, 0x8d, 0x8f, 0x90, 0x9d, 0x9f, 0xa0, 0xe9, 0xff]
        ),
        "\u{20ac}\u{81}\u{8d}\u{8f}\u{90}\u{9d}\u{178}\u{a0}é\u{ff}"
    );
}

#[test]
fn wide_charsets_become_utf_8() {
    assert_eq!(
        text("utf16", &[0, b'a', 0xd8, 0x3d, 0xde, 0x00]),
        "a\u{1f600}"
    );
    assert_eq!(
        text("utf16le", &[b'a', 0, 0x3d, 0xd8, 0x00, 0xde]),
        "a\u{1f600}"
    );
    assert_eq!(text("utf32", &[0, 1, 0xf6, 0]), "\u{1f600}");
    assert_eq!(text("ucs2", &[0x20, 0xac]), "€");
}

#[test]
fn east_asian_codes_of_every_length_become_utf_8() {
    assert_eq!(text("gbk", b"a\xd2\xbbz"), "a一z");
    assert_eq!(text("big5", b"\xa4\x40"), "一");
    assert_eq!(text("euckr", b"\xb0\xa1"), "가");
    assert_eq!(text("gb2312", b"\xa1\xa4"), "\u{30fb}");
    assert_eq!(text("ujis", b"\x8e\xb1\xb0\xec\x8f\xb0\xa1"), "ｱ一丂");
    assert_eq!(text("eucjpms", b"\xad\xa1"), "①");
    assert_eq!(
        text("gb18030", b"\xd2\xbb\x81\x30\x81\x30\x94\x39\xda\x33"),
        "一\u{80}\u{1f4a9}"
    );
    // The second byte of these is a backslash and an x.
    assert_eq!(text("sjis", b"\x95\x5c\x83\x78"), "表ベ");
    assert_eq!(text("cp932", b"\xb1\x87\x40"), "ｱ①");
}

#[test]
fn the_servers_tables_stand_above_the_standards() {
    assert_eq!(text("sjis", b"\x81\x60"), "\u{301c}");
    assert_eq!(text("cp932", b"\x81\x60"), "\u{ff5e}");
    assert_eq!(text("gb18030", b"\xa6\xd9"), "\u{e78d}");
    assert_eq!(text("swe7", b"[]{|}@"), "ÄÅäöåÉ");
    assert_eq!(text("armscii8", &[0xa5]), "(");
}

#[test]
fn a_value_with_a_code_that_is_no_character_stays_as_it_is_stored() {
    for (name, bytes) in [
        ("gbk", &b"a\xd2\xbb\xfe\xfe"[..]),
        ("gbk", b"\xd2\xbb\x81"),
        ("gbk", b"\xd2\x20"),
        ("gbk", b"\x80"),
        ("sjis", b"\x85\x40"),
        ("ujis", b"\x8f\xa1"),
        ("ujis", b"\x8f\xa1\x20"),
        ("gb18030", b"\x81\x30\x81"),
        ("gb18030", b"\xff\x30\x81\x30"),
        ("gb18030", b"\xfe\x39\xfe\x39"),
        ("greek", b"\xe1\xae"),
        ("swe7", b"a\x7f"),
        ("swe7", b"\x80"),
        ("ucs2", b"\0a\xd8\x3d\xde\x00"),
        ("ucs2", b"\0"),
        ("utf16", b"\xd8\x3d"),
        ("utf16le", b"\x3d\xd8\0"),
        ("utf32", b"\0\0\xd8\0"),
        ("utf32", b"\0\x11\0\0"),
        ("utf32", b"\0\0\0"),
    ] {
        stays(name, bytes);
    }
}

#[test]
fn what_the_servers_call_a_replacement_character_is_none() {
    stays("tis620", b"\xa1\xdb");
    stays("big5", b"\xa1\x5a");
}

#[test]
fn utf_8_is_never_touched() {
    for name in ["utf8mb4", "utf8mb3", "utf8", "ascii"] {
        assert_eq!(decoded(name, b"\xff\xc3"), (b"\xff\xc3".to_vec(), true));
    }
}

#[test]
fn a_key_in_a_second_coding_is_refused() {
    let key = |name: &str, bytes: &[u8]| charset(name).decode_key(bytes, &mut Vec::new());
    assert_eq!(key("cp932", b"\xfa\x5c"), Ok(true));
    assert_eq!(
        key("cp932", b"\xed\x40"),
        Err(DecodeError::AmbiguousKey),
        "both are U+7E8A"
    );
    assert_eq!(key("sjis", b"\x81\x5f"), Ok(true));
    assert_eq!(key("sjis", b"a\\"), Err(DecodeError::AmbiguousKey));
    assert_eq!(key("gbk", b"\xfe\xfe"), Ok(false));
    assert_eq!(key("utf8mb4", b"\xff"), Ok(true));
    // Stored bytes that another key's text could be: CE AE is the letter of 0xDE.
    assert_eq!(key("greek", b"\xde"), Ok(true));
    assert_eq!(key("greek", b"\xce\xae"), Err(DecodeError::AmbiguousKey));
}

#[test]
fn no_two_codes_of_a_key_have_one_character() {
    for name in [
        "armscii8", "big5", "cp850", "cp932", "eucjpms", "euckr", "gb18030", "gb2312", "gbk",
        "koi8r", "latin7", "sjis", "swe7", "ujis",
    ] {
        let charset = charset(name);
        let mut seen = std::collections::HashMap::new();
        let singles = (0..=0xff).map(|byte| vec![byte]);
        let pairs = (0x8000u16..=0xffff).map(|code| code.to_be_bytes().to_vec());
        let triples = (0x8000u16..=0xffff).map(|code| [&[0x8f], &code.to_be_bytes()[..]].concat());
        for code in singles.chain(pairs).chain(triples) {
            let mut out = Vec::new();
            if charset.decode_key(&code, &mut out) == Ok(true) {
                let characters = String::from_utf8(out).expect("text");
                if let Some(other) = seen.insert(characters, code.clone()) {
                    panic!("{name}: {other:x?} and {code:x?}");
                }
            }
        }
    }
}

#[test]
fn every_line_of_the_committed_tables_is_read() {
    let count = |name: &str, codes: &mut dyn Iterator<Item = Vec<u8>>| {
        codes
            .filter(|code| {
                charset(name)
                    .text(code)
                    .is_some_and(|text| text.chars().count() == 1)
            })
            .count()
    };
    // Codes of one and of two bytes that the servers convert, U+FFFD left out.
    for (name, singles, pairs) in [
        ("armscii8", 256, 0),
        ("big5", 128, 13_710),
        ("cp1250", 251, 0),
        ("cp1251", 255, 0),
        ("cp1256", 248, 0),
        ("cp1257", 244, 0),
        ("cp850", 256, 0),
        ("cp852", 256, 0),
        ("cp866", 256, 0),
        ("cp932", 191, 9_604),
        ("dec8", 242, 0),
        ("eucjpms", 128, 7_965),
        ("euckr", 128, 17_048),
        ("gb18030", 128, 23_940),
        ("gb2312", 128, 7_445),
        ("gbk", 128, 21_791),
        ("geostd8", 215, 0),
        ("greek", 250, 0),
        ("hebrew", 220, 0),
        ("hp8", 255, 0),
        ("keybcs2", 256, 0),
        ("koi8r", 256, 0),
        ("koi8u", 256, 0),
        ("latin1", 256, 0),
        ("latin2", 256, 0),
        ("latin5", 256, 0),
        ("latin7", 256, 0),
        ("macce", 256, 0),
        ("macroman", 256, 0),
        ("sjis", 191, 6_879),
        ("swe7", 127, 0),
        ("tis620", 247, 0),
        ("ujis", 128, 7_882),
    ] {
        let ones = count(name, &mut (0..=0xff).map(|byte| vec![byte]));
        let twos = count(
            name,
            &mut (0x8000u16..=0xffff)
                .map(|code| code.to_be_bytes().to_vec())
                // Two codes of one byte each are none of two.
                .filter(|code| charset(name).text(&code[..1]).is_none()),
        );
        assert_eq!((ones, twos), (singles, pairs), "{name}");
    }
}

#[test]
fn samples_are_characters_of_the_charset_from_end_to_end() {
    for name in ["gbk", "sjis", "koi8r", "greek"] {
        let samples = charset(name).samples(100);
        assert!((60..=100).contains(&samples.len()), "{}", samples.len());
        for sample in &samples {
            assert_eq!(text(name, sample).chars().count(), 1, "{name} {sample:x?}");
        }
    }
    assert!(charset("utf8mb4").samples(100).is_empty());
}
