use super::*;

/// `{"a": 1, "bc": [true, "x"]}` as the server stores it.
const DOCUMENT: [u8; 34] = [
    0, 2, 0, 33, 0, 18, 0, 1, 0, 19, 0, 2, 0, 5, 1, 0, 2, 21, 0, b'a', b'b', b'c', 2, 0, 12, 0, 4,
    1, 0, 12, 10, 0, 1, b'x',
];

/// The number 7.
const SEVEN: [u8; 3] = [5, 7, 0];

fn change(operation: u8, path: &str, value: &[u8]) -> Vec<u8> {
    let mut change = vec![operation, u8::try_from(path.len()).unwrap()];
    change.extend(path.as_bytes());
    if operation != REMOVE {
        change.push(u8::try_from(value.len()).unwrap());
        change.extend(value);
    }
    change
}

fn changed(changes: &[Vec<u8>]) -> Result<String, DecodeError> {
    let mut out = Vec::new();
    print_changed(&DOCUMENT, &changes.concat(), &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn values_are_put_in_the_place_of_others_at_any_depth() {
    let text = |path| changed(&[change(REPLACE, path, &SEVEN)]).unwrap();
    assert_eq!(text("$.a"), r#"{"a": 7, "bc": [true, "x"]}"#);
    assert_eq!(text("$.bc[1]"), r#"{"a": 1, "bc": [true, 7]}"#);
    assert_eq!(text(r#"$."bc"[0]"#), r#"{"a": 1, "bc": [7, "x"]}"#);
    assert_eq!(text("$.bc[last-1]"), r#"{"a": 1, "bc": [7, "x"]}"#);
    assert_eq!(text("$.a[0]"), r#"{"a": 7, "bc": [true, "x"]}"#);
    assert_eq!(text("$"), "7");
}

#[test]
fn members_are_added_in_the_servers_order_of_keys() {
    let text = |path| changed(&[change(INSERT, path, &SEVEN)]).unwrap();
    assert_eq!(text("$.b"), r#"{"a": 1, "b": 7, "bc": [true, "x"]}"#);
    assert_eq!(text("$.\"\""), r#"{"": 7, "a": 1, "bc": [true, "x"]}"#);
    assert_eq!(text("$.zz"), r#"{"a": 1, "bc": [true, "x"], "zz": 7}"#);
    assert_eq!(
        text(r#"$."q\"uo te""#),
        r#"{"a": 1, "bc": [true, "x"], "q\"uo te": 7}"#
    );
}

#[test]
fn elements_are_added_where_they_are_named_and_behind_the_last_at_most() {
    let text = |path| changed(&[change(INSERT, path, &SEVEN)]).unwrap();
    assert_eq!(text("$.bc[0]"), r#"{"a": 1, "bc": [7, true, "x"]}"#);
    assert_eq!(text("$.bc[2]"), r#"{"a": 1, "bc": [true, "x", 7]}"#);
    assert_eq!(text("$.bc[99]"), r#"{"a": 1, "bc": [true, "x", 7]}"#);
}

#[test]
fn members_and_elements_are_taken_away() {
    let text = |path| changed(&[change(REMOVE, path, &[])]).unwrap();
    assert_eq!(text("$.a"), r#"{"bc": [true, "x"]}"#);
    assert_eq!(text("$.bc[0]"), r#"{"a": 1, "bc": ["x"]}"#);
    assert_eq!(text("$.bc"), r#"{"a": 1}"#);
}

#[test]
fn changes_are_made_one_after_the_other() {
    let changes = [
        change(INSERT, "$.n", &DOCUMENT),
        change(REMOVE, "$.n.bc[0]", &[]),
        change(REPLACE, "$.n.bc[0]", &SEVEN),
    ];
    assert_eq!(
        changed(&changes).unwrap(),
        r#"{"a": 1, "n": {"a": 1, "bc": [7]}, "bc": [true, "x"]}"#
    );
    assert_eq!(changed(&[]).unwrap(), r#"{"a": 1, "bc": [true, "x"]}"#);
}

#[test]
fn a_place_that_is_not_there_is_an_error() {
    for (operation, path) in [
        (REPLACE, "$.b"),
        (REPLACE, "$.bc[2]"),
        (REPLACE, "$.a.b"),
        (INSERT, "$.a"),
        (INSERT, "$.a[1]"),
        (INSERT, "$.x.y"),
        (INSERT, "$"),
        (REMOVE, "$.x"),
        (REMOVE, "$.bc[2]"),
        (REMOVE, "$"),
        (REPLACE, "$.bc[1"),
        (REPLACE, "$.bc[-1]"),
        (REPLACE, "a"),
        (REPLACE, "$.\"a"),
        (9, "$.a"),
    ] {
        let error = changed(&[change(operation, path, &SEVEN)]);
        assert!(error.is_err(), "{operation} {path}: {error:?}");
    }
}

#[test]
fn changes_cut_anywhere_are_refused() {
    let whole = change(REPLACE, "$.a", &SEVEN);
    for length in 1..whole.len() {
        assert!(changed(&[whole[..length].to_vec()]).is_err(), "{length}");
    }
}

#[test]
fn a_document_that_refers_to_itself_does_not_grow() {
    // An array whose two elements are the array itself.
    let mut evil = vec![2, 2, 0, 10, 0];
    evil.extend([2, 0, 0, 2, 0, 0]);
    for path in ["$[0]", "$[0][0][0][0]", "$[1][0][1]"] {
        let mut out = Vec::new();
        let changes = change(REPLACE, path, &SEVEN);
        print_changed(&evil, &changes, &mut out).unwrap_err();
        assert!(out.len() < 1000);
    }
}
