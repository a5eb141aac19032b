use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Int32Type;

use super::*;
use crate::batch::{Column, ColumnType, TableName, TableSchema};
use crate::source::mysql::catalog::SourceColumn;

/// `id INT NOT NULL, note VARCHAR(20), secret VARCHAR(20), amount INT`, without `secret`.
fn table() -> SourceTable {
    let describe = |name: &str, data_type: &str, nullable, included| SourceColumn {
        name: name.into(),
        included,
        nullable,
        charset: (data_type == "varchar").then(|| "utf8mb4".into()),
        length: Some(20),
        ..SourceColumn::sample(data_type)
    };
    let columns = vec![
        describe("id", "int", false, Some(0)),
        describe("note", "varchar", true, Some(1)),
        describe("secret", "varchar", true, None),
        describe("amount", "int", true, Some(2)),
    ];
    let column = |index: usize, column_type| Column {
        name: columns[index].name.clone(),
        column_type,
        nullable: columns[index].nullable,
        source_type: columns[index].column_type.clone(),
    };
    SourceTable {
        schema: Arc::new(TableSchema {
            name: TableName::new("shop", "orders"),
            columns: vec![
                column(0, ColumnType::Int32),
                column(1, ColumnType::Text),
                column(3, ColumnType::Int32),
            ],
            key: vec![0],
        }),
        columns,
        date_rules: std::collections::BTreeMap::new(),
        keeps_null: std::collections::BTreeMap::new(),
        key_is_primary: true,
        transactional: None,
        unique_keys: Vec::new(),
    }
}

const INT: ImageFormat = ImageFormat {
    wire_type: 3,
    meta: 0,
};
const VARCHAR: ImageFormat = ImageFormat {
    wire_type: 15,
    meta: 80,
};
const FORMATS: [ImageFormat; 4] = [INT, VARCHAR, VARCHAR, INT];
const PACKET: [u8; 13] = [0, 0, 7, 0, 0, 0, 2, b'h', b'i', 9, 0, 0, 0];
const IMAGE: [u8; 15] = [0, 7, 0, 0, 0, 2, b'h', b'i', 2, b's', b's', 9, 0, 0, 0];

fn builder() -> TableBuilder {
    TableBuilder::new(&table(), false).expect("a builder")
}

#[test]
fn a_row_is_the_same_from_a_packet_and_from_an_image() {
    let mut builder = builder();
    builder.push_packet_row(&PACKET).expect("a row");
    let mut cursor = &IMAGE[..];
    builder
        .push_image_row(&FORMATS, &[0b1111], &mut cursor)
        .expect("a row");
    assert!(cursor.is_empty());
    assert_eq!(builder.row_count(), 2);
    let columns = builder.finish();
    assert_eq!(columns.len(), 3, "without the excluded one");
    for column in &columns {
        assert_eq!(&column.slice(0, 1), &column.slice(1, 1));
    }
    assert_eq!(columns[2].as_primitive::<Int32Type>().value(0), 9);
    assert_eq!(builder.row_count(), 0);
}

/// A row in either form whose second and third column are NULL. The bitmap of a packet begins at bit 2.
fn push_nulls(builder: &mut TableBuilder) {
    builder
        .push_packet_row(&[0, 0b0001_1000, 7, 0, 0, 0])
        .expect("a row");
    builder
        .push_image_row(&FORMATS, &[0b1111], &mut &[0b1110, 7, 0, 0, 0][..])
        .expect("a row");
}

#[test]
fn null_takes_no_bytes_in_either_form() {
    let mut builder = builder();
    push_nulls(&mut builder);
    let columns = builder.finish();
    assert_eq!(columns[1].null_count(), 2);
    assert_eq!(columns[2].null_count(), 2);
}

#[test]
fn a_columns_own_choice_of_nulls_wins_in_either_form() {
    for (of_pipe, of_note) in [(false, false), (true, true)] {
        let mut table = table();
        table.keeps_null.insert("note".into(), of_note);
        let mut builder = TableBuilder::new(&table, of_pipe).expect("a builder");
        push_nulls(&mut builder);
        let changed = builder.take_changed();
        let [filled] = &changed[..] else {
            panic!("one column's: {changed:?}");
        };
        assert_eq!(filled.column, if of_note { "amount" } else { "note" });
        assert_eq!(filled.values, 2);
        let columns = builder.finish();
        assert_eq!(columns[1].null_count(), if of_note { 2 } else { 0 });
        assert_eq!(columns[2].null_count(), if of_pipe { 0 } else { 2 });
    }
}

#[test]
fn a_row_that_fails_leaves_no_trace() {
    let mut builder = builder();
    builder.push_packet_row(&PACKET).expect("a row");
    for length in 0..PACKET.len() {
        let error = builder
            .push_packet_row(&PACKET[..length])
            .expect_err("half a row");
        assert_eq!(error.kind(), ErrorKind::SourceCorrupt);
        assert!(error.table().is_some());
    }
    for length in 0..IMAGE.len() {
        builder
            .push_image_row(&FORMATS, &[0b1111], &mut &IMAGE[..length])
            .expect_err("half a row");
    }
    let mut long = PACKET.to_vec();
    long.push(0);
    builder.push_packet_row(&long).expect_err("too long a row");
    builder.push_packet_row(&PACKET).expect("a row");
    assert_eq!(builder.row_count(), 2);
    for column in builder.finish() {
        assert_eq!(column.len(), 2);
    }
}

#[test]
fn an_error_names_its_column_and_not_its_value() {
    let mut builder = builder();
    let error = builder
        .push_packet_row(&PACKET[..8])
        .expect_err("half a row");
    assert_eq!(
        error.to_string(),
        "table `shop.orders`: column `note`: the row ends inside a value"
    );
    let error = builder
        .push_image_row(&FORMATS, &[0b1111], &mut &[1, 0][..])
        .expect_err("NULL in a NOT NULL column");
    assert_eq!(error.kind(), ErrorKind::SchemaConflict);
    assert!(error.message().starts_with("column `id`"), "{error}");
}

#[test]
fn an_image_without_an_included_column_is_refused_with_the_setting() {
    let error = builder()
        .push_image_row(&FORMATS, &[0b1101], &mut &[0, 7, 0, 0, 0, 0, 0][..])
        .expect_err("a minimal image");
    assert_eq!(error.kind(), ErrorKind::SourceSetting);
    assert!(
        error
            .hint()
            .is_some_and(|hint| hint.contains("binlog_row_image"))
    );
    // The excluded one may well be absent.
    builder()
        .push_image_row(
            &FORMATS,
            &[0b1011],
            &mut &[0, 7, 0, 0, 0, 0, 9, 0, 0, 0][..],
        )
        .expect("a row");
}

#[test]
fn an_image_without_a_generated_column_says_so_since_no_setting_would_help() {
    let mut table = table();
    for column in &mut table.columns {
        column.generated = true;
    }
    let error = TableBuilder::new(&table, false)
        .expect("a builder")
        .push_image_row(&FORMATS, &[0b1101], &mut &[0, 7, 0, 0, 0, 0, 0][..])
        .expect_err("an image of MariaDB 11");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("generated"), "{error}");
    assert!(
        error
            .hint()
            .is_some_and(|hint| hint.contains("exclude_columns"))
    );
}

#[test]
fn a_table_map_that_does_not_fit_names_the_first_column_that_differs() {
    TableBuilder::fitted_formats(&table(), &FORMATS).expect("fits");
    let error =
        TableBuilder::fitted_formats(&table(), &FORMATS[..3]).expect_err("a column too few");
    assert_eq!(error.kind(), ErrorKind::SchemaConflict);
    let error = TableBuilder::fitted_formats(&table(), &[INT, INT, VARCHAR, INT])
        .expect_err("another type");
    assert!(error.message().starts_with("column `note`"), "{error}");
}
