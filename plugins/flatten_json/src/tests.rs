use pipewright_sdk::testing::{Cell, Harness};

use super::*;

fn harness(columns: &str, more: &str) -> Result<Harness<FlattenJson>, String> {
    let fields = [
        Field::new("id", DataType::Int64).key(),
        Field::new("doc", DataType::Utf8),
        Field::new("n", DataType::Int32),
    ];
    Harness::new(
        &format!(r#"{{"column": "doc", "columns": [{columns}]{more}}}"#),
        &fields,
    )
}

fn run(harness: &Harness<FlattenJson>, document: Cell) -> Result<Vec<Cell>, String> {
    let rows = harness.run(&[(Op::Insert, vec![Cell::Int(1), document, Cell::Int(0)])])?;
    Ok(rows[0].as_ref().unwrap()[3..].to_vec())
}

const COLUMNS: &str = r#"
    {"name": "city", "path": "/address/city", "type": "text"},
    {"name": "zip", "path": "/address/zip", "type": "int64"},
    {"name": "address", "path": "/address", "type": "json"},
    {"name": "price", "path": "/items/1/price", "type": "decimal(10,2)"},
    {"name": "on", "path": "/a~1b", "type": "bool"},
    {"name": "at", "path": "/at", "type": "datetime"}"#;

#[test]
fn values_are_found_by_path_and_typed() {
    let harness = harness(COLUMNS, "").unwrap();
    let document = r#" {"x": [{}, "y"], "address": {"zip": 10115, "city": "B\u00e4r \"x\""}, "items": [{"price": 1}, {"price": 12.5}],
        "a/b": true, "at": "2026-01-31T12:00:00.5+02:00"} "#;
    let cells = run(&harness, Cell::text(document)).unwrap();
    assert_eq!(
        cells,
        [
            Cell::text("Bär \"x\""),
            Cell::Int(10_115),
            Cell::text(r#"{"zip": 10115, "city": "B\u00e4r \"x\""}"#),
            Cell::Int(1_250),
            Cell::Bool(true),
            Cell::Int(1_769_853_600_500_000),
        ]
    );
}

#[test]
fn what_is_missing_null_or_no_document_is_null() {
    let harness = harness(COLUMNS, "").unwrap();
    for document in [
        Cell::Null,
        Cell::text("{}"),
        Cell::text(r#"{"address": null, "items": [1], "a/b": null, "at": null}"#),
        Cell::text("3"),
        Cell::text("[1, 2]"),
    ] {
        assert_eq!(
            run(&harness, document.clone()).unwrap(),
            vec![Cell::Null; 6],
            "{document:?}"
        );
    }
}

#[test]
fn policies_decide_on_what_is_missing_or_of_another_type() {
    let column = |more: &str| format!(r#"{{"name": "v", "path": "/v", "type": "int64"{more}}}"#);
    let strict = harness(&column(r#", "on_missing": "reject""#), "").unwrap();
    let text = run(&strict, Cell::text("{}")).unwrap_err();
    assert_eq!(
        text,
        "row 0: missing: column `v`: the document has no such value"
    );
    for document in [
        r#"{"v": "1"}"#,
        r#"{"v": 1.5}"#,
        r#"{"v": {}}"#,
        r#"{"v": 9223372036854775808}"#,
    ] {
        let text = run(&strict, Cell::text(document)).unwrap_err();
        assert_eq!(
            text,
            "row 0: wrong-type: column `v`: the value is of another type"
        );
    }
    assert!(
        run(&strict, Cell::text(r#"{"v": 1"#))
            .unwrap_err()
            .starts_with("row 0: no-json")
    );
    let lenient = harness(&column(""), r#", "on_mismatch": "null""#).unwrap();
    assert_eq!(
        run(&lenient, Cell::text(r#"{"v": "1"}"#)).unwrap(),
        [Cell::Null]
    );
    let defaults = column(r#", "default": -1, "on_missing": "default", "on_mismatch": "default""#);
    let defaults = harness(&defaults, "").unwrap();
    for document in ["{}", r#"{"v": "1"}"#, "no json"] {
        assert_eq!(
            run(&defaults, Cell::text(document)).unwrap(),
            [Cell::Int(-1)],
            "{document}"
        );
    }
}

#[test]
fn a_value_that_is_no_text_hides_no_other_value() {
    let columns = r#"{"name": "a", "path": "/a", "type": "text"}, {"name": "b", "path": "/b", "type": "text"}"#;
    let harness = harness(columns, r#", "on_mismatch": "null""#).unwrap();
    for odd in [
        r#""\ud800""#,
        "1e999",
        "1",
        "true",
        r#"{"b": "no"}"#,
        r#"["no"]"#,
    ] {
        let cells = run(
            &harness,
            Cell::text(&format!(r#"{{"a": {odd}, "b": "x"}}"#)),
        )
        .unwrap();
        assert_eq!(cells, [Cell::Null, Cell::text("x")], "{odd}");
    }
}

#[test]
fn decimals_are_exact_or_do_not_fit() {
    let harness = harness(r#"{"name": "v", "path": "/v", "type": "decimal(5,2)"}"#, "").unwrap();
    for (number, units) in [
        ("1.5", 150),
        ("-0.01", -1),
        ("1e1", 1_000),
        ("125e-2", 125),
        ("999.99", 99_999),
    ] {
        let cells = run(&harness, Cell::text(&format!(r#"{{"v": {number}}}"#))).unwrap();
        assert_eq!(cells, [Cell::Int(units)], "{number}");
    }
    for number in ["1.005", "1000", "1e9"] {
        assert!(
            run(&harness, Cell::text(&format!(r#"{{"v": {number}}}"#))).is_err(),
            "{number}"
        );
    }
}

#[test]
fn arrays_of_numbers_are_lists_and_others_do_not_fit() {
    let columns = r#"{"name": "i", "path": "/i", "type": "list(int64)"}, {"name": "f", "path": "/f", "type": "list(float64)"}"#;
    let harness = harness(columns, "").unwrap();
    let cells = run(&harness, Cell::text(r#"{"i": [1, -2], "f": [0.5, 3]}"#)).unwrap();
    let integers = Cell::List(vec![Cell::Int(1), Cell::Int(-2)]);
    let floats = Cell::List(vec![Cell::Float(0.5), Cell::Float(3.0)]);
    assert_eq!(cells, [integers, floats]);
    let cells = run(&harness, Cell::text(r#"{"i": []}"#)).unwrap();
    assert_eq!(cells, [Cell::List(Vec::new()), Cell::Null]);
    for document in [
        r#"{"i": [1, null]}"#,
        r#"{"i": [1.5]}"#,
        r#"{"f": ["1"]}"#,
        r#"{"f": 1}"#,
    ] {
        assert!(run(&harness, Cell::text(document)).is_err(), "{document}");
    }
}

#[test]
fn a_bad_configuration_is_refused_with_all_its_places() {
    let columns = r#"{"name": "a", "path": "city", "type": "text"}, {"name": "a", "path": "/b", "type": "money"},
        {"name": "c", "path": "/c", "type": "int64", "default": "x"}, {"name": "d", "path": "/d", "type": "int64", "on_missing": "default"}"#;
    let text = harness(columns, "").unwrap_err();
    for place in [
        "/columns/0/path: ",
        "/columns/1/name: ",
        "/columns/1/type: ",
        "/columns/2/default: it is no int64",
        "/columns/3/default: ",
    ] {
        assert!(text.contains(place), "{place} in {text}");
    }
    let taken = harness(r#"{"name": "n", "path": "/n", "type": "int64"}"#, "").unwrap_err();
    assert!(taken.contains("has a column `n` already"), "{taken}");
}

/// Documents whose bytes were changed at random, beside a parser that builds a tree of them.
#[test]
fn what_is_json_and_what_a_path_means_is_what_a_parser_says() {
    let seeds = [
        r#" {"a": {"b\u0062": [1, -2.5e+10, {"c": "x\ny"}], "b": null}, "0": [true, false, [], {}], "": "Zoë \ud83d\ude00"} "#,
        r#"[{"a": "0123456789abcdef\"\\"}, [[[["deep"]]]], 0, -0.1E-2, "\u12aF", 10]"#,
        r#"{"a":{"a":{"a":1}},"long key of many bytes":"long value of many bytes","\u0061":2}"#,
    ];
    let pointers = [
        "/a/bb/2/c",
        "/a/b",
        "/0/1",
        "/",
        "/0/a",
        "/1/0/0/0/0",
        "/a/a",
        "/a",
        "/long key of many bytes",
    ];
    let mut paths = Paths::default();
    for (column, pointer) in pointers.iter().enumerate() {
        paths.add(pointer, column).unwrap();
    }
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % below
    };
    let bytes = b"\"\\{}[],:0123456789eE+-. \n\x01tfnub";
    let (mut room, mut sound, mut unsound) = (Room::default(), 0, 0);
    for round in 0..60_000 {
        let mut document = seeds[round % seeds.len()].as_bytes().to_vec();
        for _ in 0..random(3) {
            let at = random(document.len());
            match random(3) {
                0 => document[at] = bytes[random(bytes.len())],
                1 => document.insert(at, bytes[random(bytes.len())]),
                _ => drop(document.remove(at)),
            }
        }
        let Ok(document) = str::from_utf8(&document) else {
            continue;
        };
        let mut found = vec![None; pointers.len()];
        let is_json = paths.find(document, &mut room, &mut found);
        let parsed = serde_json::from_str::<serde::de::IgnoredAny>(document);
        assert_eq!(is_json, parsed.is_ok(), "{document}");
        *(if is_json { &mut sound } else { &mut unsound }) += 1;
        let Ok(tree) = serde_json::from_str::<Value>(document) else {
            continue;
        };
        for (pointer, found) in pointers.iter().zip(found) {
            // Of a key that stands there twice a tree has the last alone.
            let found = found.map(|json| serde_json::from_str(json).unwrap());
            if let Some(value) = tree.pointer(pointer) {
                assert_eq!(found.as_ref(), Some(value), "{pointer} in {document}");
            }
        }
    }
    assert!(sound > 10_000 && unsound > 10_000, "{sound} and {unsound}");
}
