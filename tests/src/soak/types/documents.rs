//! JSON: every kind of value, deep, wide and long; and the changes that MySQL logs in parts.

use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Map, Value};

use super::columns::{Column, Defaults, column, once_in, pick};
use super::server::Server;
use crate::SourceKind;
use crate::soak::corpus::to_hex;

/// Below what MariaDB takes, whose limit is 32.
const DEPTH_MAX: u32 = 24;

/// What only MySQL's documents hold.
const OPAQUE: &str = "JSON_OBJECT('d', CAST(-1.50 AS DECIMAL(10,2)), 'wide', CAST(REPEAT('9', 60) AS DECIMAL(65,5)), \
     'day', CAST('2024-02-29' AS DATE), 'at', CAST('2024-02-29 01:02:03.5' AS DATETIME(6)), \
     't', CAST('-01:02:03.000004' AS TIME(6)), 'raw', CAST(X'00FF10' AS BINARY), 'u', 18446744073709551615)";

/// Each with the column's name for `{}`.
const EDITS: [&str; 6] = [
    "JSON_SET({}, '$.edited', 'by a part', '$[1]', 7)",
    "JSON_REPLACE({}, '$[0]', NULL, '$.edited', JSON_ARRAY(1.5, TRUE))",
    "JSON_REMOVE({}, '$.edited')",
    "JSON_ARRAY_APPEND({}, '$', 'at the end')",
    "JSON_SET({}, '$.edited', REPEAT('long ', 60))",
    "JSON_INSERT({}, '$[last]', JSON_OBJECT('k', -70000))",
];

pub(super) fn json(_: &mut StdRng, server: &Server) -> Column {
    let is_mysql = server.kind == SourceKind::MySql;
    let column = column("JSON", move |random| {
        if is_mysql && once_in(random, 10) {
            return OPAQUE.to_owned();
        }
        let document = match random.random_range(0..12) {
            0 => nested(random),
            1 => wide(random),
            2 => long(random).into(),
            _ => document(random, 4),
        };
        format!("_utf8mb4 X'{}'", to_hex(document.to_string().as_bytes()))
    })
    .with_default(Defaults::Never);
    if !is_mysql {
        return column;
    }
    Column {
        edit: Some(Box::new(|random| pick(random, &EDITS).to_owned())),
        ..column
    }
}

fn document(random: &mut StdRng, depth: u32) -> Value {
    match random.random_range(0..if depth == 0 { 7 } else { 10 }) {
        0 => Value::Null,
        1 => random.random::<bool>().into(),
        2 => random.random::<i64>().into(),
        3 => pick(random, &[0, 32_767, 32_768, 65_536, u64::MAX, 1 << 63]).into(),
        4 => f64::from(random.random_range(-1_000_000..1_000_000) as f32 / 64.0).into(),
        5 => pick(random, &[-32_768, -32_769, i64::MIN, -2_147_483_649]).into(),
        6 => text(random, 20).into(),
        7 => (0..random.random_range(0..5))
            .map(|_| document(random, depth - 1))
            .collect(),
        _ => (0..random.random_range(0..6))
            .map(|_| {
                (
                    text(random, 6).replace('\0', ""),
                    document(random, depth - 1),
                )
            })
            .collect::<Map<_, _>>()
            .into(),
    }
}

fn text(random: &mut StdRng, at_most: usize) -> String {
    let count = random.random_range(0..=at_most);
    let one = |random: &mut StdRng| match random.random_range(0..4) {
        0 => pick(
            random,
            &['"', '\\', '\0', '\n', '\u{1f}', '/', '\u{7f}', '\u{2028}'],
        ),
        1 => pick(random, &['é', '€', '一', '😀', '\u{10ffff}']),
        _ => char::from(random.random_range(b' '..b'~')),
    };
    (0..count).map(|_| one(random)).collect()
}

/// As deep as any.
fn nested(random: &mut StdRng) -> Value {
    let depth = random.random_range(1..=DEPTH_MAX - 4);
    (0..depth).fold(document(random, 2), |inner, _| match random.random() {
        true => Value::Array(vec![inner]),
        false => Value::Object(Map::from_iter([("k".to_owned(), inner)])),
    })
}

/// More elements than a byte counts; now and then more bytes than MySQL's small form holds.
fn wide(random: &mut StdRng) -> Value {
    let count = random.random_range(250..700);
    let length = if once_in(random, 3) { 200 } else { 2 };
    match random.random() {
        true => (0..count).map(|n| Value::from(vec![n; length])).collect(),
        false => (0..count)
            .map(|n| (format!("key {n}"), Value::from("x".repeat(length))))
            .collect::<Map<_, _>>()
            .into(),
    }
}

/// Lengths of one, two and three bytes in MySQL's form.
fn long(random: &mut StdRng) -> String {
    let times = pick(random, &[126, 127, 128, 129, 8_191, 16_383, 16_384, 70_000]);
    "é".repeat(times / 2) + &"x".repeat(times % 2)
}
