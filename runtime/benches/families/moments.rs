//! Dates and times, in the layouts of today and of before.

use super::{Family, family};

pub(super) fn families() -> Vec<Family> {
    let digits = |family: Family, digits: u8| Family {
        shape: (None, Some(digits), None),
        ..family
    };
    let time = vec![12, 0, 0, 0, 0, 0, 12, 34, 56, 0x40, 0xe2, 1, 0];
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
                packet: moment.clone(),
                image: vec![0x65, 0xe0, 0x7a, 0xf0, 1, 0xe2, 0x40],
                ..family("temporal: timestamp(6)", "timestamp", (17, 6))
            },
            6,
        ),
        digits(
            Family {
                packet: time.clone(),
                image: vec![0x80, 0xc8, 0xb8, 1, 0xe2, 0x40],
                ..family("temporal: time(6)", "time", (19, 6))
            },
            6,
        ),
        Family {
            packet: moment.clone(),
            image: vec![0x01, 0x02, 0x7a, 0xbd, 0x73, 0x84, 0x06, 0x83],
            ..old("temporal: old datetime(6)", "datetime", 12, 6)
        },
        Family {
            packet: moment.clone(),
            image: vec![0x65, 0xe0, 0x79, 0xf0, 0x0c, 0x0a, 0x83],
            ..old("temporal: old timestamp(6)", "timestamp", 7, 6)
        },
        Family {
            packet: time.clone(),
            image: vec![0x00, 0xb6, 0xba, 0xd2, 0x15],
            ..old("temporal: old time(3)", "time", 11, 3)
        },
        Family {
            packet: moment,
            image: 20_240_229_123_456u64.to_le_bytes().into(),
            ..old("temporal: old datetime", "datetime", 12, 0)
        },
        Family {
            packet: time,
            image: vec![0x40, 0xe2, 0x01],
            ..old("temporal: old time", "time", 11, 0)
        },
    ]
}

/// In MariaDB's layouts of before 10.1, with a fraction its own. A table map does not tell the digits.
fn old(name: &'static str, data_type: &'static str, wire_type: u8, digits: u8) -> Family {
    Family {
        column_type: match digits {
            0 => data_type,
            _ => "of some digits /* mariadb-5.3 */",
        },
        shape: (None, Some(digits), None),
        ..family(name, data_type, (wire_type, 0))
    }
}
