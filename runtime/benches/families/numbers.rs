//! Numbers, bits and years.

use super::{Family, family, short};

pub(super) fn families() -> Vec<Family> {
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
            family("float: float", "float", (4, 4)),
            1.5f32.to_le_bytes().into(),
        ),
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
        Family {
            packet: vec![0xe8, 7],
            image: vec![124],
            ..family("year", "year", (13, 0))
        },
    ]
}
