//! Hand-made events of a system-versioned table.

use super::super::tests::{LONG, TERM, map, rows, table};
use super::*;
use crate::error::ErrorKind;
use crate::source::mysql::binlog::TableMap;
use crate::source::mysql::catalog::{SourceColumn, SourceTable};

const TIMESTAMP2: ImageFormat = ImageFormat {
    wire_type: 17,
    meta: 6,
};

const FOR_EVER: [u8; 7] = [0x7f, 0xff, 0xff, 0xff, 0x0f, 0x42, 0x3f];
const FOR_EVER_11: [u8; 7] = [0xff, 0xff, 0xff, 0xff, 0x0f, 0x42, 0x3f];
const ENDED: [u8; 7] = [0x65, 0x00, 0x00, 0x00, 0x0f, 0x42, 0x3f];

/// `shop.orders` with the period's end that the server added; its start would be a column like any other.
fn versioned() -> Arc<SourceTable> {
    let mut versioned = SourceTable::clone(&table());
    versioned.columns.push(SourceColumn {
        name: "row_end".into(),
        included: None,
        nullable: false,
        scale: Some(6),
        row_end: true,
        ..SourceColumn::sample("timestamp")
    });
    Arc::new(versioned)
}

fn versioned_map() -> TableMap {
    TableMap {
        formats: vec![LONG, LONG, TIMESTAMP2],
        names: Some(["id", "place", "row_end"].map(str::to_owned).to_vec()),
        // As the server has it: the end belongs to every key.
        primary_key: Some(vec![0, 2]),
        ..map()
    }
}

fn builder() -> ChangeBuilder {
    ChangeBuilder::new(versioned(), vec![0], false).unwrap()
}

/// Every image is 16 bytes; the first of an event begins at 12, of an update at 13.
fn push(
    builder: &mut ChangeBuilder,
    kind: RowKind,
    present: u8,
    images: &[(i32, i32, [u8; 7])],
) -> Result<Counts> {
    let mut body = vec![1, 0, 0, 0, 0, 0, 1, 0, 2, 0, 3, present];
    if kind == RowKind::Update {
        body.push(present);
    }
    for (id, place, end) in images {
        body.push(0);
        body.extend(id.to_le_bytes());
        body.extend(place.to_le_bytes());
        if present & 0b100 != 0 {
            body.extend(end);
        }
    }
    let event = RowEvent {
        table: Arc::new(versioned_map()),
        kind,
        extra_data: true,
        partial: false,
        body: &body,
        offset: 1000,
        undone: false,
    };
    builder.push_event(&event, TERM)
}

/// pitfall 38
#[test]
fn rows_of_history_are_none_and_a_row_that_gets_an_end_is_deleted() {
    for for_ever in [FOR_EVER, FOR_EVER_11] {
        let mut builder = builder();
        let inserted = [(1, 5, for_ever), (1, 4, ENDED), (2, 6, for_ever)];
        let counts = push(&mut builder, RowKind::Insert, 7, &inserted).unwrap();
        assert_eq!(counts.inserted, 2);
        let updated = [
            (1, 5, for_ever),
            (1, 7, for_ever),
            (2, 6, for_ever),
            (2, 6, ENDED),
            (3, 1, ENDED),
            (3, 2, ENDED),
            (4, 3, for_ever),
            (40, 3, for_ever),
        ];
        let counts = push(&mut builder, RowKind::Update, 7, &updated).unwrap();
        assert_eq!((counts.updated, counts.deleted), (2, 1));
        let deleted = [(1, 4, ENDED), (40, 3, for_ever)];
        let counts = push(&mut builder, RowKind::Delete, 7, &deleted).unwrap();
        assert_eq!(counts.deleted, 1);
        assert_eq!(
            rows(&mut builder),
            [
                (Op::Insert, 1012, 1, Some(5)),
                (Op::Insert, 1044, 2, Some(6)),
                (Op::Update, 1029, 1, Some(7)),
                (Op::Delete, 1045, 2, Some(6)),
                // Under another key it is another row.
                (Op::Delete, 1109, 4, Some(3)),
                (Op::Insert, 1125, 40, Some(3)),
                (Op::Delete, 1028, 40, Some(3)),
            ]
        );
    }
}

#[test]
fn an_image_that_does_not_say_until_when_is_refused_by_the_column() {
    let mut builder = builder();
    let refused = push(&mut builder, RowKind::Insert, 0b011, &[(1, 1, ENDED)]);
    let error = refused.expect_err("it may be history");
    assert_eq!(error.kind(), ErrorKind::SourceSetting);
    assert!(error.message().contains("row_end"), "{error}");
}
