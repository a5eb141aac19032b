//! Texts and bytes of every length, compressed ones too, labels and sets; each in a charset and collation of its own.

use std::collections::BTreeSet;

use rand::Rng;
use rand::rngs::StdRng;

use super::columns::{Column, Defaults, column, once_in, pick, pick_ref};
use super::server::Server;
use crate::soak::corpus::to_hex;

/// Characters that are in the charsets of that name, beyond ASCII.
const SCRIPTS: &[(&[&str], &str)] = &[
    (&["cp1251", "koi8r", "koi8u", "cp866"], "абвгдежзийклмнЯЖЩ"),
    (&["greek"], "αβγδεζηθικλμΩΨ"),
    (&["hebrew"], "אבגדהוזחטי"),
    (&["tis620"], "กขคงจฉชซญ"),
    (&["armscii8"], "ԱԲԳԴԵաբգդե"),
    (&["geostd8"], "აბგდევზთი"),
    (&["cp1256"], "ابتثجحخد"),
    (&["euckr"], "가각간갈감갑강개객갱一丁七"),
    (&["big5", "gb2312", "gbk"], "一丁七三上下不世中丰"),
    (
        &["sjis", "cp932", "ujis", "eucjpms"],
        "一丁七三ァアィイぁあ表能",
    ),
    (
        &["latin2", "cp1250", "cp852", "keybcs2", "macce"],
        "čšžéáíý",
    ),
    (&["latin7", "cp1257"], "čšžéÄÖ"),
    (&["latin5"], "ğşéüçö"),
    (&["swe7"], "ÅÄÖåäöéÜü"),
    (&["latin1", "cp850", "macroman", "dec8", "hp8"], "éüßñåçÆØ"),
    (&["ascii"], "azAZqM"),
    (&["ucs2", "utf8mb3"], "éü€я一한ァ\u{fffc}\u{e000}"),
];

/// Of what holds all of Unicode, the other planes too.
const UNICODE: &str = "éü€я一한ァ😀𠀀\u{10ffff}\u{fffc}\u{10000}";

fn script(charset: &str) -> Vec<char> {
    let found = SCRIPTS.iter().find(|(names, _)| names.contains(&charset));
    found.map_or(UNICODE, |(_, text)| text).chars().collect()
}

/// Any character that such a text may have: quotes, control characters, those of its script.
fn characters(random: &mut StdRng, script: &[char], at_most: usize) -> String {
    let count = random.random_range(0..=at_most);
    let one = |random: &mut StdRng| match random.random_range(0..8) {
        0 => pick(
            random,
            &['\'', '"', '\\', '\0', '\n', '\t', '%', '_', ' ', '\u{7f}'],
        ),
        1..4 => pick(random, script),
        4 => char::from_u32(random.random_range(0x4e00..0x9fff)).unwrap_or('?'),
        _ => char::from(random.random_range(b' '..b'~')),
    };
    (0..count).map(|_| one(random)).collect()
}

/// A literal that the server converts to the column's charset: what that lacks becomes a question mark.
fn converted(text: &str) -> String {
    format!("_utf8mb4 X'{}'", to_hex(text.as_bytes()))
}

fn text_of(random: &mut StdRng, server: &Server, name: &str, at_most: usize) -> Column {
    let (charset, clause) = server.charset(random);
    let script = script(&charset);
    column(format!("{name}{clause}"), move |random| {
        // Every byte of this one is a character, and both servers name the same.
        if charset == "latin1" && random.random() {
            return format!("_latin1 X'{}'", to_hex(&raw(random, at_most)));
        }
        converted(&characters(random, &script, at_most))
    })
    .with_default(Defaults::Text("'it''s plain'"))
}

pub(super) fn short_text(random: &mut StdRng, server: &Server) -> Column {
    let (name, at_most) = pick(
        random,
        &[
            ("CHAR(30)", 30),
            ("CHAR(100)", 100),
            ("VARCHAR(10)", 10),
            ("VARCHAR(300)", 300),
        ],
    );
    text_of(random, server, name, at_most)
}

pub(super) fn long_text(random: &mut StdRng, server: &Server) -> Column {
    let (name, at_most) = pick(
        random,
        &[
            ("TINYTEXT", 60),
            ("TEXT", 500),
            ("MEDIUMTEXT", 500),
            ("LONGTEXT", 2000),
        ],
    );
    let many = matches!(name, "MEDIUMTEXT" | "LONGTEXT");
    repeated(text_of(random, server, name, at_most), many)
}

/// Longer values by repetition, which row images and pages hold in other ways; cut by the server where there is no room.
fn repeated(column: Column, many: bool) -> Column {
    let Column {
        definition,
        literal,
        ..
    } = column;
    super::columns::column(definition, move |random| {
        let literal = literal(random);
        match random.random_range(0..12) {
            0 if many => format!("REPEAT({literal}, 200)"),
            0..3 => format!("REPEAT({literal}, 5)"),
            _ => literal,
        }
    })
    .with_default(Defaults::Never)
}

/// A text of a key: the literals end in a number, so that they differ under most collations.
pub(super) fn key_text(random: &mut StdRng, server: &Server) -> Column {
    let (charset, clause) = server.charset(random);
    let script = script(&charset);
    let name = pick(random, &["VARCHAR(24)", "CHAR(24)"]);
    column(format!("{name}{clause}"), move |random| {
        let text = characters(random, &script, 12);
        let number = random.random_range(0..100_000);
        converted(&format!("{text}{number}"))
    })
}

fn raw(random: &mut StdRng, at_most: usize) -> Vec<u8> {
    let count = random.random_range(0..=at_most);
    (0..count)
        .map(|_| match once_in(random, 4) {
            true => 0,
            false => random.random(),
        })
        .collect()
}

fn bytes_of(name: &str, at_most: usize) -> Column {
    column(name, move |random| {
        format!("X'{}'", to_hex(&raw(random, at_most)))
    })
}

pub(super) fn short_bytes(random: &mut StdRng, _: &Server) -> Column {
    let (name, at_most) = pick(
        random,
        &[
            ("BINARY(1)", 1),
            ("BINARY(12)", 12),
            ("BINARY(255)", 255),
            ("VARBINARY(20)", 20),
            ("VARBINARY(400)", 400),
        ],
    );
    bytes_of(name, at_most)
}

pub(super) fn long_bytes(random: &mut StdRng, _: &Server) -> Column {
    let (name, at_most) = pick(
        random,
        &[
            ("TINYBLOB", 255),
            ("BLOB", 3000),
            ("MEDIUMBLOB", 1000),
            ("LONGBLOB", 1000),
        ],
    );
    let many = matches!(name, "MEDIUMBLOB" | "LONGBLOB");
    repeated(bytes_of(name, at_most), many)
}

/// Bytes of a key.
pub(super) fn key_bytes(random: &mut StdRng, _: &Server) -> Column {
    let name = pick(random, &["BINARY(12)", "VARBINARY(12)"]);
    bytes_of(name, 12)
}

/// MariaDB's columns that are compressed one by one.
pub(super) fn compressed_text(random: &mut StdRng, server: &Server) -> Column {
    let (name, at_most) = pick(
        random,
        &[
            ("VARCHAR(50)", 50),
            ("VARCHAR(500)", 300),
            ("TINYTEXT", 60),
            ("TEXT", 500),
            ("MEDIUMTEXT", 500),
            ("LONGTEXT", 1000),
        ],
    );
    let name = format!("{name} COMPRESSED");
    repeated(text_of(random, server, &name, at_most), true)
}

pub(super) fn compressed_bytes(random: &mut StdRng, _: &Server) -> Column {
    let (name, at_most) = pick(
        random,
        &[
            ("VARBINARY(400)", 400),
            ("TINYBLOB", 250),
            ("BLOB", 1000),
            ("MEDIUMBLOB", 1000),
            ("LONGBLOB", 1000),
        ],
    );
    repeated(bytes_of(&format!("{name} COMPRESSED"), at_most), true)
}

/// Labels that the charset has, with quotes; commas where a label may have them.
fn labels(random: &mut StdRng, charset: &str, at_most: usize, commas: bool) -> Vec<String> {
    let count = random.random_range(1..=at_most);
    let script = script(charset);
    let mut odd = vec!["it''s", "a b", "\"q\"", "("];
    if commas {
        odd.push("a,b");
    }
    let labels = (0..count).map(|n| {
        let front = match random.random() {
            true => (*pick_ref(random, &odd)).to_owned(),
            false => pick(random, &script).to_string(),
        };
        format!("{front}{n}")
    });
    // One label to the server, whose collation may pass over some characters, should be one here.
    labels.collect::<BTreeSet<_>>().into_iter().collect()
}

fn labelled(kind: &str, labels: &[String], clause: &str) -> String {
    format!("{kind}('{}'){clause}", labels.join("','"))
}

fn enumeration(random: &mut StdRng, server: &Server, with_empty: bool) -> Column {
    let (charset, clause) = server.charset(random);
    let at_most = pick(random, &[3, 40, 300]);
    let mut labels = labels(random, &charset, at_most, true);
    if with_empty {
        labels.insert(random.random_range(0..=labels.len()), String::new());
    }
    let count = labels.len();
    column(labelled("ENUM", &labels, &clause), move |random| {
        // By number; 0 is what is no label.
        random.random_range(0..=count).to_string()
    })
    .with_default(Defaults::Never)
}

pub(super) fn label(random: &mut StdRng, server: &Server) -> Column {
    let with_empty = random.random();
    enumeration(random, server, with_empty)
}

/// An ENUM of a key, in which nothing but number 0 reads as ''.
pub(super) fn key_label(random: &mut StdRng, server: &Server) -> Column {
    enumeration(random, server, false)
}

pub(super) fn set(random: &mut StdRng, server: &Server) -> Column {
    let (charset, clause) = server.charset(random);
    let at_most = pick(random, &[3, 9, 33, 64]);
    let labels = labels(random, &charset, at_most, false);
    let count = labels.len();
    column(
        labelled("SET", &labels, &clause),
        move |random| match once_in(random, 6) {
            true => "0".to_owned(),
            false => (random.random::<u64>() >> (64 - count)).to_string(),
        },
    )
    .with_default(Defaults::Never)
}
