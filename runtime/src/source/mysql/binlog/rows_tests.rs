//! Hand-made row events through the builder.

use arrow::array::{Array, Int32Array};

use super::*;
use crate::batch::{Column, ColumnType, TableName, TableSchema};
use crate::source::mysql::catalog::SourceColumn;

pub(super) const LONG: ImageFormat = ImageFormat {
    wire_type: 3,
    meta: 0,
};
pub(super) const TERM: u16 = 2;

/// `shop.orders`: id INT, place INT.
pub(super) fn table() -> Arc<SourceTable> {
    let names = ["id", "place"];
    let source_column = |index: usize, name: &str| SourceColumn {
        name: name.into(),
        included: Some(index),
        nullable: index == 1,
        precision: Some(10),
        scale: Some(0),
        ..SourceColumn::sample("int")
    };
    let column = |index: usize, name: &str| Column {
        name: name.into(),
        column_type: ColumnType::Int32,
        nullable: index == 1,
        source_type: "int".into(),
    };
    let named = || names.iter().enumerate();
    Arc::new(SourceTable {
        schema: Arc::new(TableSchema {
            name: TableName::new("shop", "orders"),
            columns: named().map(|(index, name)| column(index, name)).collect(),
            key: vec![0],
        }),
        columns: named()
            .map(|(index, name)| source_column(index, name))
            .collect(),
        date_rules: std::collections::BTreeMap::new(),
        keeps_null: std::collections::BTreeMap::new(),
        key_is_primary: true,
        transactional: None,
        unique_keys: Vec::new(),
    })
}

pub(super) fn map() -> TableMap {
    TableMap {
        id: 1,
        name: TableName::new("shop", "orders"),
        formats: vec![LONG, LONG],
        unsigned: None,
        collations: Vec::new(),
        names: None,
        primary_key: None,
        labels: None,
        body: Vec::new(),
    }
}

/// A row event body of version 2; every image is nine bytes, or five with NULL.
fn body(kind: RowKind, present: u8, images: &[(i32, Option<i32>)]) -> Vec<u8> {
    let mut body = vec![1, 0, 0, 0, 0, 0, 1, 0, 2, 0, 2, 0b11];
    if kind == RowKind::Update {
        body.push(present);
    } else {
        body[11] = present;
    }
    for (id, place) in images {
        body.push(if place.is_none() { 2 } else { 0 });
        body.extend(id.to_le_bytes());
        body.extend(place.iter().flat_map(|place| place.to_le_bytes()));
    }
    body
}

fn push(builder: &mut ChangeBuilder, map: TableMap, kind: RowKind, body: &[u8]) -> Result<Counts> {
    let event = RowEvent {
        table: Arc::new(map),
        kind,
        extra_data: true,
        partial: false,
        body,
        offset: 1000,
        undone: false,
    };
    builder.push_event(&event, TERM)
}

fn builder() -> ChangeBuilder {
    ChangeBuilder::new(table(), vec![0], false).unwrap()
}

pub(super) type Row = (Op, u64, i32, Option<i32>);

pub(super) fn rows(builder: &mut ChangeBuilder) -> Vec<Row> {
    let batch = builder.finish().unwrap();
    let Changes::Stream { ops, versions } = &batch.changes else {
        panic!("the stream builds stream changes");
    };
    let column = |index: usize| {
        let array: &Int32Array = batch.columns[index].as_any().downcast_ref().unwrap();
        array
    };
    (0..batch.row_count)
        .map(|row| {
            let place = column(1);
            (
                ops[row],
                versions[row] - (u64::from(TERM) << 48),
                column(0).value(row),
                place.is_valid(row).then(|| place.value(row)),
            )
        })
        .collect()
}

#[test]
fn every_image_has_the_version_of_its_own_place() {
    let mut builder = builder();
    let insert = body(RowKind::Insert, 3, &[(1, Some(5)), (2, None), (3, Some(6))]);
    let counts = push(&mut builder, map(), RowKind::Insert, &insert).unwrap();
    assert_eq!(counts.inserted, 3);
    let delete = body(RowKind::Delete, 3, &[(1, Some(5))]);
    push(&mut builder, map(), RowKind::Delete, &delete).unwrap();
    assert_eq!(
        rows(&mut builder),
        [
            (Op::Insert, 1012, 1, Some(5)),
            (Op::Insert, 1021, 2, None),
            (Op::Insert, 1026, 3, Some(6)),
            (Op::Delete, 1012, 1, Some(5)),
        ]
    );
    assert!(builder.finish().is_none());
}

#[test]
fn an_update_that_keeps_the_key_is_one_row_at_the_after_images_place() {
    let mut builder = builder();
    let update = body(
        RowKind::Update,
        3,
        &[(1, Some(5)), (1, None), (2, None), (2, Some(7))],
    );
    let counts = push(&mut builder, map(), RowKind::Update, &update).unwrap();
    assert_eq!(counts.updated, 2);
    assert_eq!(
        rows(&mut builder),
        [
            (Op::Update, 1013 + 9, 1, None),
            (Op::Update, 1013 + 9 + 5 + 5, 2, Some(7)),
        ]
    );
}

/// pitfall 99: rows of other tables follow what their keys refer to, and nothing else.
#[test]
fn updates_count_by_themselves_where_a_watched_column_has_changed() {
    let update = body(
        RowKind::Update,
        3,
        &[
            (1, Some(5)),
            (1, None),
            (2, Some(6)),
            (2, Some(6)),
            (3, Some(7)),
            (4, Some(7)),
        ],
    );
    let columns = |ordinals: &[usize]| Watched::Columns(ordinals.to_vec());
    for (watched, moved) in [
        (columns(&[]), 0),
        (columns(&[0]), 1),
        (columns(&[1]), 1),
        (columns(&[1, 0]), 2),
        (Watched::Any, 3),
    ] {
        let mut builder = builder();
        builder.watch(watched.clone());
        let counts = push(&mut builder, map(), RowKind::Update, &update).unwrap();
        assert_eq!((counts.updated, counts.moved), (3, moved), "{watched:?}");
    }
}

#[test]
fn a_key_change_is_a_delete_and_an_insert_each_at_its_images_place() {
    let mut builder = builder();
    let update = body(
        RowKind::Update,
        3,
        &[(1, Some(5)), (2, Some(5)), (2, Some(5)), (3, Some(5))],
    );
    let counts = push(&mut builder, map(), RowKind::Update, &update).unwrap();
    assert_eq!(
        counts,
        Counts {
            updated: 2,
            ..Counts::default()
        }
    );
    assert_eq!(
        rows(&mut builder),
        [
            (Op::Delete, 1013, 1, Some(5)),
            (Op::Insert, 1022, 2, Some(5)),
            (Op::Delete, 1031, 2, Some(5)),
            (Op::Insert, 1040, 3, Some(5)),
        ]
    );
}

#[test]
fn an_image_that_leaves_a_column_out_is_refused_by_the_tables_name() {
    let insert = body(RowKind::Insert, 1, &[(1, None)]);
    let error = push(&mut builder(), map(), RowKind::Insert, &insert).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SourceSetting);
    assert_eq!(error.table(), Some(&TableName::new("shop", "orders")));
    assert!(error.hint().unwrap().contains("binlog_row_image"));
}

#[test]
fn a_table_map_that_contradicts_the_recorded_table_is_refused() {
    let insert = body(RowKind::Insert, 3, &[(1, Some(5))]);
    let fails = |map: TableMap| {
        let error = push(&mut builder(), map, RowKind::Insert, &insert).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SchemaConflict, "{error}");
    };
    fails(TableMap {
        formats: vec![LONG],
        ..map()
    });
    fails(TableMap {
        formats: vec![
            LONG,
            ImageFormat {
                wire_type: 8,
                meta: 0,
            },
        ],
        ..map()
    });
    fails(TableMap {
        names: Some(vec!["id".into(), "spot".into()]),
        ..map()
    });
    fails(TableMap {
        unsigned: Some(vec![Some(true), Some(false)]),
        ..map()
    });
    // FULL metadata of a table without a primary key, and of one with another key.
    fails(TableMap {
        names: Some(vec!["id".into(), "place".into()]),
        ..map()
    });
    fails(TableMap {
        primary_key: Some(vec![0, 1]),
        ..map()
    });
    let fits = TableMap {
        names: Some(vec!["ID".into(), "place".into()]),
        primary_key: Some(vec![0]),
        unsigned: Some(vec![Some(false), Some(false)]),
        ..map()
    };
    push(&mut builder(), fits, RowKind::Insert, &insert).unwrap();
}

#[test]
fn a_text_in_another_charset_than_the_recorded_one_is_refused() {
    let mut table = SourceTable::clone(&table());
    let place = &mut table.columns[1];
    place.data_type = "varchar".into();
    place.charset = Some("gbk".into());
    let formats = vec![
        LONG,
        ImageFormat {
            wire_type: 15,
            meta: 40,
        },
    ];
    let table = Arc::new(SourceTable {
        schema: Arc::new(TableSchema {
            columns: vec![
                table.schema.columns[0].clone(),
                Column {
                    column_type: ColumnType::Text,
                    ..table.schema.columns[1].clone()
                },
            ],
            ..TableSchema::clone(&table.schema)
        }),
        ..table
    });
    let body = body(RowKind::Insert, 3, &[]);
    let pushed = |collation: u32| {
        let map = TableMap {
            formats: formats.clone(),
            collations: vec![None, Some(collation)],
            ..map()
        };
        let mut builder = ChangeBuilder::new(Arc::clone(&table), vec![0], false).unwrap();
        push(&mut builder, map, RowKind::Insert, &body)
    };
    for collation_of_gbk in [28, 87, 1052] {
        assert!(pushed(collation_of_gbk).is_ok(), "{collation_of_gbk}");
    }
    let conflict = pushed(13).unwrap_err();
    assert_eq!(conflict.kind(), ErrorKind::SchemaConflict);
    assert!(conflict.message().contains("`place`"), "{conflict}");
    assert!(conflict.message().contains("`sjis`"), "{conflict}");
    let unknown = pushed(40_000).unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::Unsupported);
    assert_eq!(unknown.table(), Some(&TableName::new("shop", "orders")));
    assert!(unknown.message().contains("40000"), "{unknown}");
    assert!(unknown.hint().unwrap().contains("exclude_columns"));
}

#[test]
fn a_row_event_cut_anywhere_is_refused() {
    for kind in [RowKind::Insert, RowKind::Update, RowKind::Delete] {
        let whole = body(kind, 3, &[(1, Some(5)), (2, Some(6))]);
        let image = if kind == RowKind::Update { 18 } else { 9 };
        let front = whole.len() - 18;
        for length in 0..whole.len() {
            // Cut between rows it is an event of fewer rows.
            let whole_rows = length >= front && (length - front).is_multiple_of(image);
            let result = push(&mut builder(), map(), kind, &whole[..length]);
            assert_eq!(result.is_ok(), whole_rows, "{kind:?} cut at {length}");
        }
    }
}
