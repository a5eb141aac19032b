use pipewright_sdk::testing::{Cell, Harness};
use pipewright_sdk::{DataType, Field, Op};

use super::Filter;

fn fields() -> Vec<Field> {
    let decimal = DataType::Decimal128 {
        precision: 10,
        scale: 2,
    };
    let large = DataType::Decimal256 {
        precision: 65,
        scale: 30,
    };
    vec![
        Field::new("id", DataType::UInt64).key(),
        Field::new("age", DataType::Int8),
        Field::new("total", decimal),
        Field::new("large", large),
        Field::new("rate", DataType::Float64),
        Field::new("status", DataType::Utf8),
        Field::new("born", DataType::Date32),
        Field::new("seen", DataType::TimestampMicros { utc: true }),
        Field::new("took", DataType::Time64Micros),
        Field::new("and", DataType::Int32),
    ]
}

fn row() -> Vec<Cell> {
    vec![
        Cell::Int(u64::MAX.into()),
        Cell::Int(-5),
        Cell::Int(1_050),
        Cell::Int(-3_000_000_000_000_000_000_000_000_000_001),
        Cell::Float(0.5),
        Cell::text("päid"),
        Cell::Int(-1),
        Cell::Int(1_000_000),
        Cell::Int(-3_600_000_000),
        Cell::Int(7),
    ]
}

fn config(condition: &str) -> String {
    format!("{{\"where\": \"{}\"}}", condition.replace('\\', "\\\\"))
}

fn keeps(condition: &str, row: Vec<Cell>) -> bool {
    let harness = Harness::<Filter>::new(&config(condition), &fields())
        .unwrap_or_else(|error| panic!("{condition}: {error}"));
    harness.run(&[(Op::Insert, row)]).unwrap()[0].is_some()
}

fn refusal(condition: &str) -> String {
    Harness::<Filter>::new(&config(condition), &fields()).unwrap_err()
}

#[test]
fn comparisons_are_those_of_the_columns_type() {
    for condition in [
        "id = 18446744073709551615",
        "id > 18446744073709551614.5",
        "id < 18446744073709551616",
        "id >= -1",
        "age = -5",
        "age < -4.5",
        "age > -5.5",
        "age <> 1000",
        "age > -1000",
        "-5 = age",
        "-6 < age",
        "total = 10.5",
        "total = 10.500",
        "total > 10.499",
        "total < 10.501",
        "total != 10.501",
        "large < -3",
        "large = -3.000000000000000000000000000001",
        "large > -3.0000000000000000000000000000015",
        "rate = 5e-1",
        "rate <= 0.5",
        "status = 'päid'",
        "status > 'paid'",
        "status IN ('open', 'päid')",
        "born = '1969-12-31'",
        "born < DATE '1970-01-01'",
        "seen = '1970-01-01 00:00:01'",
        "seen >= '1970-01-01'",
        "seen < timestamp '1970-01-01 00:00:01.000001'",
        "took = '-01:00:00'",
        "age BETWEEN -5 AND -5",
        "age NOT BETWEEN 0 AND 9",
        "`and` = 7",
    ] {
        assert!(keeps(condition, row()), "{condition}");
        assert!(
            !keeps(&format!("NOT ({condition})"), row()),
            "NOT ({condition})"
        );
    }
}

#[test]
fn and_binds_closer_than_or_and_not_closest() {
    assert!(keeps("age = -5 OR age = 1 AND age = 2", row()));
    assert!(!keeps("(age = -5 OR age = 1) AND age = 2", row()));
    assert!(keeps("not age = 1 and age = -5", row()));
    assert!(!keeps("not (age = 1 or age = -5)", row()));
}

#[test]
fn a_comparison_with_null_drops_the_row_negated_or_not() {
    let mut row = row();
    row[1] = Cell::Null;
    row[5] = Cell::Null;
    for condition in [
        "age = -5",
        "NOT age = -5",
        "age <> 1",
        "age IN (1, 2)",
        "age NOT IN (1, 2)",
        "status LIKE '%'",
        "status NOT LIKE '%'",
        "status <> 'x'",
        "age > 1 AND rate = 0.5",
        "age > 1 OR rate = 9",
        "age < 1000",
    ] {
        assert!(!keeps(condition, row.clone()), "{condition}");
    }
    for condition in [
        "age IS NULL",
        "rate IS NOT NULL",
        "age > 1 OR rate = 0.5",
        "NOT (age > 1 AND rate = 9)",
    ] {
        assert!(keeps(condition, row.clone()), "{condition}");
    }
}

#[test]
fn like_knows_percent_underscore_and_escape() {
    let with = |text: &str| {
        let mut row = row();
        row[5] = Cell::text(text);
        row
    };
    for (pattern, text, expected) in [
        ("päid", "päid", true),
        ("p_id", "päid", true),
        ("p__d", "päid", true),
        ("p%", "päid", true),
        ("%id", "päid", true),
        ("%a%b%c", "xaxbxbxc", true),
        ("%a%b%c", "xaxbxbxcx", false),
        ("%ab", "aab", true),
        ("", "", true),
        ("%", "", true),
        ("_", "", false),
        ("p", "päid", false),
        ("100\\%", "100%", true),
        ("100\\%", "1000", false),
        ("P%", "päid", false),
    ] {
        let condition = format!("status LIKE '{pattern}'");
        assert_eq!(
            keeps(&condition, with(text)),
            expected,
            "{condition} of {text}"
        );
    }
}

#[test]
fn quotes_are_doubled_to_stand_for_themselves() {
    let mut row = row();
    row[5] = Cell::text("it's");
    assert!(keeps("status = 'it''s'", row));
}

#[test]
fn a_delete_passes_whatever_the_expression_says() {
    let harness = Harness::<Filter>::new(&config("age = 1"), &fields()).unwrap();
    assert!(harness.run(&[(Op::Delete, row())]).unwrap()[0].is_some());
}

#[test]
fn a_syntax_error_is_told_at_its_character() {
    for (condition, expected) in [
        (
            "",
            "/where: at character 1: expected an expression, found the end",
        ),
        (
            "age = ",
            "/where: at character 7: expected an expression, found the end",
        ),
        (
            "age = 1 x",
            "/where: at character 9: expected AND, OR or the end, found `x`",
        ),
        (
            "(age = 1",
            "/where: at character 9: expected `)`, found the end",
        ),
        (
            "age = 'x",
            "/where: at character 7: the closing ' is missing",
        ),
        (
            "age = NULL",
            "/where: at character 7: nothing equals NULL; use IS NULL",
        ),
        ("ä ; b", "/where: at character 3: `;` has no meaning here"),
        (
            "age IN (1, and)",
            "/where: at character 12: expected an expression, found `and`",
        ),
        (
            "age = 1 AND",
            "/where: at character 12: expected an expression, found the end",
        ),
    ] {
        assert_eq!(refusal(condition), expected, "{condition}");
    }
    let deep = "(".repeat(10_000);
    assert!(refusal(&deep).contains("nested more than 100 deep"));
}

#[test]
fn a_literal_of_another_type_is_told_at_its_character() {
    for (condition, expected) in [
        (
            "age = 1 OR agee = 1",
            "at character 12: column `agee` does not exist in table `test.t`",
        ),
        (
            "age = 'x'",
            "at character 7: column `age` is ``: compare it with a number",
        ),
        (
            "age = 1x",
            "at character 7: column `age` is ``: compare it with a number",
        ),
        (
            "status = 1",
            "at character 10: column `status` is ``: compare it with a string",
        ),
        (
            "born = '2026-02-29'",
            "at character 8: column `born` is ``: compare it with a date",
        ),
        (
            "born = 20260101",
            "at character 8: column `born` is ``: compare it with a date",
        ),
        (
            "seen = '2026-02-28 24:00:00'",
            "at character 8: column `seen` is ``: compare it with a time",
        ),
        ("age LIKE '1%'", "at character 1: LIKE needs text"),
        (
            "age",
            "at character 1: a condition is needed here, and this is an integer",
        ),
        (
            "age = status",
            "at character 7: text stands beside an integer",
        ),
    ] {
        let text = refusal(condition);
        assert!(
            text.starts_with(&format!("in `where`, {expected}")),
            "{condition}: {text}"
        );
    }
}

#[test]
fn columns_and_what_is_computed_of_them_are_compared_with_each_other() {
    for condition in [
        "age < total",
        "total * 2 = 21",
        "total + age = 5.5",
        "lower(status) = 'päid'",
        "upper(status) IN ('PÄID', 'OPEN')",
        "char_length(status) = 4",
        "year(seen) = 1970",
        "born + 1 = DATE '1970-01-01'",
        "CASE WHEN age < 0 THEN 'below' ELSE 'above' END = 'below'",
        "coalesce(rate, 9) = 0.5",
        "regexp_like(status, '^p.*d$')",
        "CAST(rate AS int64) = 1",
        "TRY_CAST(status AS int64) IS NULL",
    ] {
        assert!(keeps(condition, row()), "{condition}");
        assert!(
            !keeps(&format!("NOT ({condition})"), row()),
            "NOT ({condition})"
        );
    }
}

#[test]
fn what_cannot_be_told_rejects_the_row_only_where_it_decides() {
    let harness = |condition: &str| Harness::<Filter>::new(&config(condition), &fields()).unwrap();
    let told = |condition: &str| harness(condition).run(&[(Op::Insert, row())]);
    assert_eq!(
        told("CAST(status AS int64) = 1").unwrap_err(),
        "row 0: bad-cast: a value is none of the type that it is cast to"
    );
    assert!(told("age = -5 AND CAST(status AS int64) = 1").is_err());
    assert_eq!(
        told("age = 1 AND CAST(status AS int64) = 1").unwrap(),
        [None]
    );
    assert!(told("age = -5 OR CAST(status AS int64) = 1").unwrap()[0].is_some());
    // A row that is gone is gone whatever the expression says.
    let gone = harness("CAST(status AS int64) = 1").run(&[(Op::Delete, row())]);
    assert!(gone.unwrap()[0].is_some());
}
