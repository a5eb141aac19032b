//! Texts in charsets of one and more bytes, bytes, labels.

use super::{Family, counted, family, short};

pub(super) fn families() -> Vec<Family> {
    let text = "a text of some forty bytes, mostly ascii";
    let mut families = vec![
        varchar("text: utf8mb4", "utf8mb4", text.as_bytes()),
        varchar("text: latin1, ascii", "latin1", text.as_bytes()),
        varchar(
            "text: latin1, accents",
            "latin1",
            b"\xe9t\xe9, \xfcber, gar\xe7on, ma\xf1ana, bl\xe5b\xe6r",
        ),
        Family {
            packet: short(&[7; 40]),
            image: short(&[7; 40]),
            ..family("bytes: varbinary", "varbinary", (15, 200))
        },
        Family {
            shape: (None, None, Some(16)),
            packet: short(&[7; 16]),
            image: short(&[7; 16]),
            ..family("bytes: binary(16)", "binary", (254, 254 << 8 | 16))
        },
        Family {
            charset: Some("utf8mb4"),
            labels: &["new", "paid", "shipped", "returned"],
            // By number: see the load's SELECT.
            packet: vec![3, 0, 0, 0, 0, 0, 0, 0],
            image: vec![3],
            ..family("enum", "enum", (254, 247 << 8 | 1))
        },
        Family {
            charset: Some("utf8mb4"),
            labels: &["red", "green", "blue", "black"],
            packet: vec![0b101, 0, 0, 0, 0, 0, 0, 0],
            image: vec![0b101],
            ..family("set", "set", (254, 248 << 8 | 1))
        },
        Family {
            packet: counted(&[7; 400]),
            image: [&400u16.to_le_bytes()[..], &[7; 400]].concat(),
            ..family("bytes: blob of 400", "blob", (252, 2))
        },
        Family {
            charset: Some("utf8mb4"),
            packet: counted(&[b'x'; 400]),
            image: [&400u16.to_le_bytes()[..], &[b'x'; 400]].concat(),
            ..family("text: text of 400", "text", (252, 2))
        },
    ];
    families.extend(of_several_bytes());
    families
}

/// Charsets whose characters take two bytes and more.
fn of_several_bytes() -> Vec<Family> {
    vec![
        varchar("text: gbk", "gbk", &b"\xd6\xd0\xce\xc4".repeat(10)),
        varchar("text: big5", "big5", &b"\xa4\xa4\xa4\xe5".repeat(10)),
        varchar("text: sjis", "sjis", &b"\x93\xfa\x96\x7b".repeat(10)),
        varchar("text: ujis", "ujis", &b"\xc6\xfc\xcb\xdc".repeat(10)),
        varchar("text: euckr", "euckr", &b"\xc7\xd1\xb1\xdb".repeat(10)),
        varchar(
            "text: gb18030",
            "gb18030",
            &b"\xd6\xd0\x94\x39\xfc\x36".repeat(6),
        ),
        varchar(
            "text: utf16",
            "utf16",
            &b"\x4e\x2d\xd8\x3d\xde\x00".repeat(6),
        ),
        varchar(
            "text: utf32",
            "utf32",
            &b"\0\0\x4e\x2d\0\x01\xf6\0".repeat(5),
        ),
    ]
}

/// Both forms hold the bytes as they are stored.
fn varchar(name: &'static str, charset: &'static str, bytes: &[u8]) -> Family {
    Family {
        charset: Some(charset),
        packet: short(bytes),
        image: short(bytes),
        ..family(name, "varchar", (15, 200))
    }
}
