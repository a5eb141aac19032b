//! The window of hand-made changes.

use arrow::array::{ArrayRef, AsArray, BinaryArray, Int32Array};
use arrow::datatypes::Int32Type;

use super::*;
use crate::batch::{Column, ColumnType, TableName, TableSchema};

/// `shop.names`, by name.
fn table() -> SourceTable {
    let column = |name: &str, column_type| Column {
        name: name.into(),
        column_type,
        nullable: false,
        source_type: String::new(),
    };
    SourceTable {
        schema: Arc::new(TableSchema {
            name: TableName::new("shop", "names"),
            columns: vec![
                column("v", ColumnType::Int32),
                column("name", ColumnType::Text),
            ],
            key: vec![1],
        }),
        columns: Vec::new(),
        date_rules: std::collections::BTreeMap::new(),
        keeps_null: std::collections::BTreeMap::new(),
        key_is_primary: true,
        transactional: Some(true),
        unique_keys: Vec::new(),
    }
}

fn batch(rows: &[(&str, i32)], changes: Changes) -> ChangeBatch {
    let names = rows.iter().map(|(name, _)| *name);
    let values = rows.iter().map(|(_, value)| *value);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from_iter_values(values)),
        Arc::new(BinaryArray::from_iter_values(names)),
    ];
    ChangeBatch {
        schema: table().schema,
        row_count: rows.len(),
        columns,
        changes,
    }
}

fn window(changes: &[(Op, &str, i32)]) -> Window {
    let rows: Vec<(&str, i32)> = changes.iter().map(|(_, name, v)| (*name, *v)).collect();
    let stream = Changes::Stream {
        ops: changes.iter().map(|(op, ..)| *op).collect(),
        versions: (1..).take(rows.len()).collect(),
    };
    Window::of(&table(), batch(&rows, stream), Vec::new()).unwrap()
}

fn rows(batch: &ChangeBatch) -> Vec<(String, i32)> {
    let names = batch.columns[1].as_binary::<i32>().iter().flatten();
    let values = batch.columns[0].as_primitive::<Int32Type>().values();
    names
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .zip(values.iter().copied())
        .collect()
}

/// What the table was at the moment, by a snapshot that shows `read`.
fn made_of(window: &Window, read: &[(&str, i32)]) -> Vec<(String, i32)> {
    let mut all = rows(&window.leave_out(batch(read, Changes::Load)).unwrap());
    let stood = window.take_rows().map(|stood| stood.batch);
    all.extend(stood.iter().flat_map(rows));
    all.sort();
    all
}

#[test]
fn whichever_moment_a_snapshot_shows_the_rows_are_those_of_the_window_s_end() {
    let changes = [
        (Op::Update, "one", 2),
        (Op::Delete, "two", 2),
        (Op::Insert, "three", 3),
        (Op::Update, "one", 3),
        (Op::Delete, "three", 3),
        (Op::Insert, "two", 9),
        (Op::Insert, "four", 4),
        (Op::Delete, "four", 4),
    ];
    let at_moments: [&[(&str, i32)]; 4] = [
        &[("one", 1), ("two", 2), ("zero", 0)],
        &[("one", 2), ("zero", 0)],
        &[("one", 3), ("three", 3), ("zero", 0)],
        &[("four", 4), ("one", 3), ("two", 9), ("zero", 0)],
    ];
    for read in at_moments {
        let found = made_of(&window(&changes), read);
        let expected = [("one", 3), ("two", 9), ("zero", 0)];
        assert_eq!(
            found,
            expected.map(|(name, v)| (name.to_owned(), v)).to_vec()
        );
    }
}

/// pitfalls 117, 118: a collation takes both spellings for one key, and a snapshot may show either.
#[test]
fn a_key_that_changes_its_spelling_is_dropped_in_both() {
    let changes = [(Op::Delete, "a", 1), (Op::Insert, "A", 2)];
    for read in [("a", 1), ("A", 2)] {
        let found = made_of(&window(&changes), &[read, ("b", 7)]);
        assert_eq!(found, [("A".to_owned(), 2), ("b".to_owned(), 7)]);
    }
}

#[test]
fn rows_of_the_window_are_handed_out_once() {
    let window = window(&[(Op::Insert, "one", 1)]);
    assert!(matches!(
        window.take_rows(),
        Some(Stood { batch, .. }) if batch.row_count == 1 && batch.changes == Changes::Load
    ));
    assert!(window.take_rows().is_none());
}

/// The first as MySQL 9.7.4 wrote it, the second as its manual has it.
#[test]
fn owned_gtids_are_told_apart_by_server_tag_and_owner() {
    let (one, other) = (
        "9cae5c9f-eb6a-11f1-8f0d-02fc00000001",
        "9caf6a9d-eb6a-11f1-8f0d-02fc00000001",
    );
    let expected = BTreeSet::from([
        format!("{one}:1#9"),
        format!("{other}:2#10"),
        format!("{other}:tagg:9#13"),
    ]);
    let run_together = format!("{one}:1#9{other}:2#10{other}:tagg:9#13");
    assert_eq!(gtids_owned(&run_together), expected);
    let listed = format!("{one}:1#9,\n{other}:2#10:tagg:9#13");
    assert_eq!(gtids_owned(&listed), expected);
    assert!(gtids_owned("").is_empty());
}
