//! Nanoseconds a cell, for each family of types and either form: `cargo bench -p pipewright`.
//!
//! A table of one column is decoded over and over, so a figure has in it what a row costs by itself; it is the median of
//! several rounds. `cargo bench -p pipewright -- text` measures what has that in its name.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pipewright::batch::{Column, TableName, TableSchema};
use pipewright::source::mysql::catalog::{ColumnDefault, SourceColumn, SourceTable};
use pipewright::source::mysql::decode::{ImageFormat, TableBuilder};
use pipewright::source::mysql::types::column_type;

const ROUNDS: usize = 9;
const ROWS: usize = 20_000;

/// One column, and one value of it in either form.
struct Family {
    name: &'static str,
    data_type: &'static str,
    column_type: &'static str,
    charset: Option<&'static str>,
    /// Digits and scale, or length.
    shape: (Option<u8>, Option<u8>, Option<u64>),
    labels: &'static [&'static str],
    wire_type: u8,
    meta: u16,
    packet: Vec<u8>,
    image: Vec<u8>,
}

fn family(name: &'static str, data_type: &'static str, wire: (u8, u16)) -> Family {
    Family {
        name,
        data_type,
        column_type: data_type,
        charset: None,
        shape: (None, None, None),
        labels: &[],
        wire_type: wire.0,
        meta: wire.1,
        packet: Vec::new(),
        image: Vec::new(),
    }
}

/// Bytes behind a length of one byte, as both forms have short ones.
fn short(bytes: &[u8]) -> Vec<u8> {
    let mut value = vec![u8::try_from(bytes.len()).expect("short")];
    value.extend_from_slice(bytes);
    value
}

fn numbers() -> Vec<Family> {
    let same = |family: Family, bytes: Vec<u8>| Family {
        packet: bytes.clone(),
        image: bytes,
        ..family
    };
    let decimal = |name, digits, scale, wire: (u8, u16), text: &str, image: Vec<u8>| Family {
        shape: (Some(digits), Some(scale), None),
        packet: short(text.as_bytes()),
        image,
        ..family(name, "decimal", wire)
    };
    vec![
        same(family("integer: tinyint", "tinyint", (1, 0)), vec![200]),
        same(family("integer: int", "int", (3, 0)), vec![1, 2, 3, 4]),
        Family {
            packet: vec![1, 2, 3, 0],
            image: vec![1, 2, 3],
            ..family("integer: mediumint", "mediumint", (9, 0))
        },
        same(family("integer: bigint", "bigint", (8, 0)), vec![1; 8]),
        same(
            family("float: double", "double", (5, 8)),
            1.5f64.to_le_bytes().into(),
        ),
        decimal(
            "decimal: (9,2)",
            9,
            2,
            (246, 9 << 8 | 2),
            "1234567.89",
            vec![0x80, 0x12, 0xd6, 0x87, 89],
        ),
        decimal(
            "decimal: (18,9)",
            18,
            9,
            (246, 18 << 8 | 9),
            "123456789.000000001",
            vec![0x87, 0x5b, 0xcd, 0x15, 0, 0, 0, 1],
        ),
        decimal("decimal: (65,30)", 65, 30, (246, 65 << 8 | 30), "1.5", {
            let mut image = vec![0; 30];
            image[0] = 0x80;
            image[15] = 1;
            image
        }),
        Family {
            shape: (None, None, Some(33)),
            packet: short(&[1, 2, 3, 4, 5]),
            image: vec![1, 2, 3, 4, 5],
            ..family("bit: (33)", "bit", (16, 4 << 8 | 1))
        },
    ]
}

fn moments() -> Vec<Family> {
    let digits = |family: Family, digits: u8| Family {
        shape: (None, Some(digits), None),
        ..family
    };
    let moment = vec![11, 0xe8, 7, 2, 29, 12, 34, 56, 0x40, 0xe2, 1, 0];
    vec![
        Family {
            packet: vec![4, 0xe8, 7, 2, 29],
            image: vec![0x5d, 0xd0, 0x0f],
            ..family("temporal: date", "date", (10, 0))
        },
        digits(
            Family {
                packet: moment.clone(),
                image: vec![0x99, 0xb2, 0x7a, 0xc8, 0xb8, 1, 0xe2, 0x40],
                ..family("temporal: datetime(6)", "datetime", (18, 6))
            },
            6,
        ),
        digits(
            Family {
                packet: moment,
                image: vec![0x65, 0xe0, 0x7a, 0xf0, 1, 0xe2, 0x40],
                ..family("temporal: timestamp(6)", "timestamp", (17, 6))
            },
            6,
        ),
        digits(
            Family {
                packet: vec![12, 0, 0, 0, 0, 0, 12, 34, 56, 0x40, 0xe2, 1, 0],
                image: vec![0x80, 0xc8, 0xb8, 1, 0xe2, 0x40],
                ..family("temporal: time(6)", "time", (19, 6))
            },
            6,
        ),
    ]
}

fn strings() -> Vec<Family> {
    let text = "a text of some forty bytes, mostly ascii";
    // Both hold the bytes as they are stored.
    let varchar = |name, charset, bytes: &[u8]| Family {
        charset: Some(charset),
        packet: short(bytes),
        image: short(bytes),
        ..family(name, "varchar", (15, 200))
    };
    vec![
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
            packet: short(br#"{"a": 1, "bc": [true, "x"]}"#),
            image: vec![
                34, 0, 0, 0, 0, 2, 0, 33, 0, 18, 0, 1, 0, 19, 0, 2, 0, 5, 1, 0, 2, 21, 0, b'a',
                b'b', b'c', 2, 0, 12, 0, 4, 1, 0, 12, 10, 0, 1, b'x',
            ],
            ..family("json: small object", "json", (245, 4))
        },
    ]
}

fn table(family: &Family) -> SourceTable {
    let (precision, scale, length) = family.shape;
    let column = SourceColumn {
        name: "c".into(),
        included: Some(0),
        data_type: family.data_type.into(),
        column_type: family.column_type.into(),
        unsigned: false,
        nullable: true,
        charset: family.charset.map(str::to_owned),
        length,
        precision,
        scale,
        labels: family
            .labels
            .iter()
            .map(|label| (*label).to_owned())
            .collect(),
        default: ColumnDefault::None,
        generated: false,
        geometry: None,
        row_end: false,
    };
    SourceTable {
        schema: Arc::new(TableSchema {
            name: TableName::new("bench", "t"),
            columns: vec![Column {
                name: "c".into(),
                column_type: column_type(&column).expect("a type that is known"),
                nullable: true,
                source_type: family.column_type.into(),
            }],
            key: vec![],
        }),
        columns: vec![column],
        date_rules: std::collections::BTreeMap::new(),
        keeps_null: std::collections::BTreeMap::new(),
        key_is_primary: false,
        transactional: None,
    }
}

/// The median time of `ROWS` rows, over rounds that each begin with an empty builder which has had as many.
fn measure(builder: &mut TableBuilder, mut rows: impl FnMut(&mut TableBuilder)) -> Duration {
    let mut rounds: Vec<Duration> = (0..=ROUNDS)
        .map(|_| {
            let begin = Instant::now();
            rows(builder);
            let elapsed = begin.elapsed();
            black_box(builder.finish());
            elapsed
        })
        .skip(1)
        .collect();
    rounds.sort_unstable();
    rounds[ROUNDS / 2]
}

fn packet_time(family: &Family) -> Duration {
    let mut builder = TableBuilder::new(&table(family), false).expect("a builder");
    let packet = [&[0, 0], family.packet.as_slice()].concat();
    measure(&mut builder, |builder| {
        for _ in 0..ROWS {
            builder
                .push_packet_row(black_box(&packet))
                .expect("a row of the bench's own");
        }
    })
}

fn image_time(family: &Family) -> Duration {
    let mut builder = TableBuilder::new(&table(family), false).expect("a builder");
    let formats = [ImageFormat {
        wire_type: family.wire_type,
        meta: family.meta,
    }];
    let row = [&[0], family.image.as_slice()].concat();
    let rows = row.repeat(ROWS);
    measure(&mut builder, |builder| {
        let mut cursor = black_box(rows.as_slice());
        while !cursor.is_empty() {
            builder
                .push_image_row(&formats, &[1], &mut cursor)
                .expect("a row of the bench's own");
        }
    })
}

fn main() {
    // Cargo adds `--bench`; a name may stand beside it.
    let wanted = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    if cfg!(debug_assertions) {
        eprintln!("a figure of a debug build says little: cargo bench -p pipewright");
    }
    println!("{:<28} {:>12} {:>12}", "ns a cell", "packet", "row image");
    let nanoseconds = |time: Duration| time.as_secs_f64() * 1e9 / ROWS as f64;
    for family in numbers().into_iter().chain(moments()).chain(strings()) {
        if wanted
            .as_ref()
            .is_some_and(|wanted| !family.name.contains(wanted.as_str()))
        {
            continue;
        }
        println!(
            "{:<28} {:>12.1} {:>12.1}",
            family.name,
            nanoseconds(packet_time(&family)),
            nanoseconds(image_time(&family))
        );
    }
}
