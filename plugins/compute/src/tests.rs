use pipewright_sdk::testing::{Cell, Harness};
use pipewright_sdk::{DataType, Field, Op};

use super::*;

fn harness(config: &str) -> Result<Harness<Compute>, String> {
    let fields = [
        Field::new("id", DataType::Int64).key(),
        Field::new("name", DataType::Utf8),
        Field::new("age", DataType::Int32),
    ];
    Harness::new(config, &fields)
}

fn row() -> (Op, Vec<Cell>) {
    (
        Op::Insert,
        vec![Cell::Int(1), Cell::text("Ann"), Cell::Int(36)],
    )
}

#[test]
fn columns_come_in_the_order_in_which_they_are_written_and_see_the_row_as_it_came() {
    let config = r#"{"columns": {"z": "age + 1", "name": "lower(name)", "a": "name || age"}}"#;
    let harness = harness(config).unwrap();
    let names: Vec<String> = harness
        .output_fields()
        .into_iter()
        .map(|field| field.name)
        .collect();
    assert_eq!(names, ["id", "name", "age", "z", "a"]);
    let rows = harness.run(&[row()]).unwrap();
    let expected = vec![
        Cell::Int(1),
        Cell::text("ann"),
        Cell::Int(36),
        Cell::Int(37),
        Cell::text("Ann36"),
    ];
    assert_eq!(rows, [Some(expected)]);
}

#[test]
fn a_value_that_cannot_be_is_rejected_or_null_by_setting() {
    let rejecting = harness(r#"{"columns": {"n": "CAST(name AS int64)"}}"#).unwrap();
    assert!(
        rejecting
            .run(&[row()])
            .unwrap_err()
            .starts_with("row 0: bad-cast")
    );
    let lenient = harness(r#"{"columns": {"n": "CAST(name AS int64)"}, "on_failure": "null"}"#);
    assert_eq!(
        lenient.unwrap().run(&[row()]).unwrap()[0].as_ref().unwrap()[3],
        Cell::Null
    );
}

#[test]
fn every_fault_of_the_configuration_is_told_at_its_place() {
    let text = harness(r#"{"columns": {"a/b": "1 +", "c": "'"}}"#).unwrap_err();
    assert!(
        text.contains("/columns/a~1b: at character 4: expected an expression"),
        "{text}"
    );
    assert!(
        text.contains("/columns/c: at character 1: the closing ' is missing"),
        "{text}"
    );
    let text = harness(r#"{"columns": {"id": "age"}}"#).unwrap_err();
    assert!(text.starts_with("column `id` is part of the key"), "{text}");
    let text = harness(r#"{"columns": {}}"#).unwrap_err();
    assert_eq!(text, "/columns: name at least one column");
}
