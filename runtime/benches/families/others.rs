//! Documents, geometries, vectors, UUIDs, addresses, and what MariaDB compresses.

use std::io::Write;

use flate2::Compression;
use flate2::write::DeflateEncoder;

use super::{Family, counted, family, long, short};

const UUID: [u8; 16] = [
    0xf4, 0x7a, 0xc1, 0x0b, 0x58, 0xcc, 0x43, 0x72, 0xa5, 0x67, 0x0e, 0x02, 0xb2, 0xc3, 0xd4, 0x79,
];

pub(super) fn families() -> Vec<Family> {
    // The same bytes in both forms, behind lengths of their own.
    let stored = |family: Family, bytes: &[u8]| Family {
        packet: counted(bytes),
        image: long(bytes),
        ..family
    };
    let floats = |count: u16| -> Vec<u8> {
        (0..count)
            .flat_map(|n| (f32::from(n) / 7.0).to_le_bytes())
            .collect()
    };
    let address = |name, data_type, text: &str, bytes: &[u8]| Family {
        packet: short(text.as_bytes()),
        image: short(bytes),
        ..family(name, data_type, (254, 0xfe00 | bytes.len() as u16))
    };
    let plain = "a text that goes into its column many times over, ".repeat(8);
    vec![
        Family {
            packet: short(br#"{"a": 1, "bc": [true, "x"]}"#),
            image: vec![
                34, 0, 0, 0, 0, 2, 0, 33, 0, 18, 0, 1, 0, 19, 0, 2, 0, 5, 1, 0, 2, 21, 0, b'a',
                b'b', b'c', 2, 0, 12, 0, 4, 1, 0, 12, 10, 0, 1, b'x',
            ],
            ..family("json: small object", "json", (245, 4))
        },
        stored(
            family("geometry: point", "point", (255, 4)),
            &[&[0; 4], point(13.25, 52.5).as_slice()].concat(),
        ),
        stored(
            family("geometry: line of 20", "linestring", (255, 4)),
            &line(20),
        ),
        stored(family("vector: (3)", "vector", (242, 4)), &floats(3)),
        stored(family("vector: (384)", "vector", (242, 4)), &floats(384)),
        address(
            "uuid",
            "uuid",
            "f47ac10b-58cc-4372-a567-0e02b2c3d479",
            &UUID,
        ),
        address("inet4", "inet4", "192.168.1.20", &[192, 168, 1, 20]),
        address(
            "inet6",
            "inet6",
            "2001:db8::ff00:42:8329",
            &[
                0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0xff, 0, 0, 0x42, 0x83, 0x29,
            ],
        ),
        Family {
            charset: Some("utf8mb4"),
            column_type: "varchar(500) /*!100301 COMPRESSED*/",
            packet: counted(plain.as_bytes()),
            image: deflated(plain.as_bytes()),
            ..family("compressed: varchar of 400", "varchar", (141, 2001))
        },
    ]
}

fn point(x: f64, y: f64) -> Vec<u8> {
    let mut wkb = vec![1, 1, 0, 0, 0];
    wkb.extend(x.to_le_bytes());
    wkb.extend(y.to_le_bytes());
    wkb
}

fn line(points: u8) -> Vec<u8> {
    let mut stored = vec![0, 0, 0, 0, 1, 2, 0, 0, 0, points, 0, 0, 0];
    for n in 0..points {
        stored.extend((f64::from(n) + 0.25).to_le_bytes());
        stored.extend((f64::from(n) * -1.7).to_le_bytes());
    }
    stored
}

/// As MariaDB stores a value that it has compressed, behind a length of two bytes.
fn deflated(plain: &[u8]) -> Vec<u8> {
    let length = u16::try_from(plain.len()).expect("not so long");
    let head = [&[0x80 | 0x08 | 2], &length.to_be_bytes()[..]].concat();
    let mut stream = DeflateEncoder::new(head, Compression::default());
    stream.write_all(plain).expect("memory takes it");
    let stored = stream.finish().expect("memory takes it");
    let length = u16::try_from(stored.len()).expect("not so long");
    [&length.to_le_bytes()[..], &stored].concat()
}
