use pipewright_sdk::testing::{Cell, Harness};
use pipewright_sdk::{DataType, Failure, Field, Op, Problem, Table, Transform};

use crate::{Expr, OnFailure, Projection, literal, parse};

/// One column `r`, computed from the expression that the configuration is.
#[derive(Debug)]
struct One(Expr);

impl Transform for One {
    type Config = String;
    type Binding = Projection;

    fn new(config: String) -> Result<Self, Vec<Problem>> {
        parse(&config)
            .map(One)
            .map_err(|error| vec![Problem::at("", error.to_string())])
    }

    fn bind(&self, table: &Table) -> Result<Projection, Failure> {
        let columns = [("r".to_owned(), self.0.clone())];
        Projection::bind(&columns, None, OnFailure::Reject, table)
    }
}

fn fields() -> Vec<Field> {
    let decimal = DataType::Decimal128 {
        precision: 10,
        scale: 2,
    };
    vec![
        Field::new("id", DataType::UInt64).key(),
        Field::new("n", DataType::Int32),
        Field::new("price", decimal),
        Field::new("rate", DataType::Float64),
        Field::new("name", DataType::Utf8),
        Field::new("day", DataType::Date32),
        Field::new("seen", DataType::TimestampMicros { utc: true }),
        Field::new("took", DataType::Time64Micros),
        Field::new("none", DataType::Utf8),
        Field::new("flag", DataType::Boolean),
        Field::new("unset", DataType::Boolean),
        Field::new("large", DataType::Float64),
        Field::new("single", DataType::Float32),
        Field {
            source_type: "tinyint(1)".to_owned(),
            ..Field::new("active", DataType::Int8)
        },
    ]
}

fn row() -> Vec<Cell> {
    vec![
        Cell::Int(7),
        Cell::Int(-3),
        Cell::Int(1_050),
        Cell::Float(0.5),
        Cell::text("  Zoë B "),
        // 2024-02-29
        Cell::Int(19_782),
        // 2024-02-29 12:34:56.5
        Cell::Int(1_709_210_096_500_000),
        Cell::Int(-3_600_000_000),
        Cell::Null,
        Cell::Bool(true),
        Cell::Null,
        Cell::Float(1e300),
        Cell::Float(f64::from(1.2345_f32)),
        // As true as 1, and no other number for that.
        Cell::Int(2),
    ]
}

fn harness(expression: &str) -> Result<Harness<One>, String> {
    Harness::new(&format!("{expression:?}"), &fields())
}

fn computed(expression: &str) -> Result<(DataType, Cell), String> {
    let harness = harness(expression)?;
    let field = harness.output_fields().pop().ok_or("a column is added")?;
    let rows = harness.run(&[(Op::Insert, row())])?;
    let cell = rows[0]
        .as_ref()
        .and_then(|row| row.last().cloned())
        .ok_or("the row stays")?;
    Ok((field.data_type, cell))
}

#[test]
fn numbers_are_exact_and_rounded_as_mysql_rounds() {
    let decimal = |scale| DataType::Decimal128 {
        precision: 38,
        scale,
    };
    for (expression, data_type, value) in [
        ("n + 1", DataType::Int64, -2),
        ("-n", DataType::Int64, 3),
        ("2 - -3", DataType::Int64, 5),
        ("1 + 2 * 3", DataType::Int64, 7),
        ("(1 + 2) * 3", DataType::Int64, 9),
        ("price * 3", decimal(2), 3_150),
        ("price * 1.5", decimal(3), 15_750),
        ("price + n", decimal(2), 750),
        ("10 / 4", decimal(4), 25_000),
        ("price / 3", decimal(6), 3_500_000),
        ("-2 / 3", decimal(4), -6_667),
        ("n % 2", DataType::Int64, -1),
        ("round(price / 3, 2)", decimal(2), 350),
        ("round(2.345, 2)", decimal(2), 235),
        ("round(-2.345, 2)", decimal(2), -235),
        ("floor(-2.5)", DataType::Int64, -3),
        ("ceil(-2.5)", DataType::Int64, -2),
        ("abs(n)", DataType::Int64, 3),
        ("CAST(price AS int32)", DataType::Int32, 11),
        (
            "CAST('12.345' AS decimal(10,2))",
            DataType::Decimal128 {
                precision: 10,
                scale: 2,
            },
            1_235,
        ),
        ("CAST(rate * 10 AS uint8)", DataType::UInt8, 5),
        ("n < 0", DataType::UInt8, 1),
        ("id", DataType::UInt64, 7),
    ] {
        assert_eq!(
            computed(expression),
            Ok((data_type, Cell::Int(value))),
            "{expression}"
        );
    }
    for (comparison, truth) in [
        ("price * 1 > n", 1),
        ("price = 10.500 * 1", 1),
        ("price < 10.5001 * 1", 1),
        ("-price < -10.4999 * 1", 1),
        ("-price = -10.50 * 1", 1),
        // More digits than both have together when one is brought to the other's.
        ("99999999999999999999999999999999999999 * 1 > price", 1),
        ("price > -99999999999999999999999999999999999999 * 1", 1),
        ("99999999999999999999999999999999999999 * 1 = price", 0),
    ] {
        assert_eq!(
            computed(comparison),
            Ok((DataType::UInt8, Cell::Int(truth))),
            "{comparison}"
        );
    }
    assert_eq!(
        computed("rate + 1").map(|found| found.1),
        Ok(Cell::Float(1.5))
    );
    assert_eq!(computed("1 / 0").map(|found| found.1), Ok(Cell::Null));
    assert_eq!(computed("n % (n + 3)").map(|found| found.1), Ok(Cell::Null));
}

#[test]
fn texts_are_cut_by_characters_and_joined_with_anything() {
    for (expression, value) in [
        ("trim(name)", "Zoë B"),
        ("lower(trim(name))", "zoë b"),
        ("upper(trim(name))", "ZOË B"),
        ("ltrim(rtrim(name))", "Zoë B"),
        ("substring(trim(name), 2, 2)", "oë"),
        ("substring(trim(name), -1)", "B"),
        ("left(trim(name), 3)", "Zoë"),
        ("right(trim(name), 3)", "ë B"),
        ("right(trim(name), 0)", ""),
        ("replace(name, ' ', '')", "ZoëB"),
        (
            "'#' || id || ':' || price || ':' || day",
            "#7:10.50:2024-02-29",
        ),
        (
            "concat(seen, '/', took, '/', n < 0)",
            "2024-02-29 12:34:56.500000/-01:00:00/true",
        ),
        ("regexp_replace(trim(name), '[^A-Z]', '.')", "Z...B"),
        ("regexp_replace(trim(name), '(B)', '$1 ok')", "Zoë B ok"),
        ("regexp_replace(trim(name), '(B)', '${1}_x')", "Zoë B_x"),
        (
            "regexp_replace(trim(name), '(?P<end>B)', '<$end>')",
            "Zoë <B>",
        ),
        ("regexp_replace(trim(name), '(B)', '$0$$')", "Zoë B$"),
        ("regexp_replace(trim(name), 'B', '$$')", "Zoë $"),
        ("regexp_replace(trim(name), 'B', '$$1')", "Zoë $1"),
        ("regexp_replace(trim(name), 'B', '$ ${1')", "Zoë $ ${1"),
        ("regexp_extract(name, '([A-Z])ö?o', 1)", "Z"),
        ("CASE n WHEN -3 THEN 'three' ELSE 'other' END", "three"),
        (
            "CASE WHEN n > 0 THEN 'above' WHEN n < 0 THEN 'below' END",
            "below",
        ),
        ("coalesce(none, trim(name))", "Zoë B"),
        ("ifnull(nullif(trim(name), 'Zoë B'), 'gone')", "gone"),
        ("if(none IS NULL, 'a', 'b')", "a"),
        ("CAST(price / 3 AS text)", "3.500000"),
        // The digits of 32 bits, which the same value of 64 bits has not.
        ("concat(single, '/', -single)", "1.2345/-1.2345"),
        ("CAST(coalesce(NULL, single) AS text)", "1.2345"),
        ("single || if(n > 0, 1, single)", "1.23451.2345000505447388"),
        ("CAST(CAST(0.1 AS float32) AS text)", "0.1"),
    ] {
        assert_eq!(
            computed(expression),
            Ok((DataType::Utf8, Cell::text(value))),
            "{expression}"
        );
    }
    for expression in [
        "none || 'x'",
        "regexp_extract(name, 'x')",
        "CASE WHEN n > 0 THEN 'a' END",
    ] {
        assert_eq!(
            computed(expression).map(|found| found.1),
            Ok(Cell::Null),
            "{expression}"
        );
    }
}

#[test]
fn moments_have_parts_and_days_can_be_added() {
    for (expression, value) in [
        ("year(day)", 2024),
        ("month(seen)", 2),
        ("day(day + 1)", 1),
        ("hour(seen)", 12),
        ("minute(seen)", 34),
        ("second(seen)", 56),
        ("hour(took)", 1),
        ("unix_timestamp(seen)", 1_709_210_096),
        ("day - CAST('2024-01-01' AS date)", 59),
        ("date(seen) = day", 1),
        ("day BETWEEN '2024-02-01' AND '2024-02-29'", 1),
    ] {
        assert_eq!(
            computed(expression).map(|found| found.1),
            Ok(Cell::Int(value)),
            "{expression}"
        );
    }
    let (data_type, cell) = computed("day + 1").unwrap();
    assert_eq!((data_type, cell), (DataType::Date32, Cell::Int(19_783)));
    let (data_type, cell) = computed("CAST(day AS datetime)").unwrap();
    assert_eq!(data_type, DataType::TimestampMicros { utc: false });
    assert_eq!(cell, Cell::Int(19_782 * 86_400_000_000));
}

#[test]
fn truths_stand_wherever_a_value_or_a_condition_may() {
    for (expression, value) in [
        ("flag AND n < 0", Some(1)),
        ("NOT flag", Some(0)),
        ("flag = TRUE", Some(1)),
        ("flag = 1", Some(1)),
        ("flag <> FALSE", Some(1)),
        ("flag IN (FALSE, TRUE)", Some(1)),
        ("flag = (n < 0)", Some(1)),
        ("flag = (n > 0)", Some(0)),
        ("unset", None),
        ("unset OR flag", Some(1)),
        ("unset AND flag", None),
        ("unset AND NOT flag", Some(0)),
        ("unset = TRUE", None),
        ("coalesce(unset, FALSE)", Some(0)),
        ("ifnull(unset, flag)", Some(1)),
        ("nullif(flag, TRUE)", None),
        ("if(active, flag, unset)", Some(1)),
        ("active", Some(2)),
        ("NOT active", Some(0)),
        ("active AND flag", Some(1)),
        ("active IS TRUE", Some(1)),
        ("active = TRUE", Some(0)),
        ("coalesce(active, FALSE) AND flag", Some(1)),
        ("if(flag, active, NULL) OR unset", Some(1)),
        ("CASE flag WHEN TRUE THEN FALSE ELSE TRUE END", Some(0)),
        ("CASE WHEN active THEN flag END", Some(1)),
        ("unset IS NULL", Some(1)),
        ("unset IS TRUE", Some(0)),
        ("unset IS NOT TRUE", Some(1)),
        ("flag IS NOT FALSE", Some(1)),
        ("(none = 'x') IS UNKNOWN", Some(1)),
        ("NULL IS NOT UNKNOWN", Some(0)),
        ("CAST('true' AS bool)", Some(1)),
        ("NULL LIKE 'x'", None),
    ] {
        let (_, cell) = computed(expression).unwrap_or_else(|text| panic!("{expression}: {text}"));
        let found = match cell {
            Cell::Bool(value) => Some(i64::from(value)),
            Cell::Int(value) => Some(i64::try_from(value).unwrap()),
            Cell::Null => None,
            other => panic!("{expression}: {other:?}"),
        };
        assert_eq!(found, value, "{expression}");
    }
    let number = |expression| computed(expression).map(|found| found.1);
    assert_eq!(number("flag + (n < 0) + (n > 0)"), Ok(Cell::Int(2)));
    assert_eq!(number("-flag"), Ok(Cell::Int(-1)));
    assert_eq!(number("CAST(flag AS int64) * 3"), Ok(Cell::Int(3)));
    assert_eq!(number("flag || ''"), Ok(Cell::text("true")));
    assert_eq!(computed("flag"), Ok((DataType::Boolean, Cell::Bool(true))));
}

#[test]
fn a_float_becomes_the_number_that_it_is_written_as() {
    for (expression, value) in [
        ("CAST(rate + 2 AS int64)", 3),
        ("CAST(-rate - 2 AS int64)", -3),
        ("CAST(1005e-3 AS decimal(10,2))", 101),
        ("CAST(1e-1 AS decimal(38,30))", 10_i128.pow(29)),
        ("CAST(1e23 AS decimal(38,0))", 10_i128.pow(23)),
        ("CAST(1e-45 AS decimal(10,2))", 0),
        ("CAST(1.2345678901234567e-25 AS decimal(38,26))", 12),
        ("CAST(5e-3 AS decimal(10,2))", 1),
        ("CAST(9007199254740993e0 AS int64)", 9_007_199_254_740_992),
    ] {
        assert_eq!(
            computed(expression).map(|found| found.1),
            Ok(Cell::Int(value)),
            "{expression}"
        );
    }
    let rounded = computed("round(large, 30)").map(|found| found.1);
    assert_eq!(rounded, Ok(Cell::Float(1e300)));
}

#[test]
fn a_date_that_says_so_is_one_wherever_it_stands() {
    let date = |expression| computed(expression).unwrap_or_else(|text| panic!("{text}"));
    assert_eq!(
        date("DATE '2026-01-31'"),
        (DataType::Date32, Cell::Int(20_484))
    );
    assert_eq!(date("DATE '2026-01-31' + 1").1, Cell::Int(20_485));
    assert_eq!(date("DATE '9999-12-31' - day").1, Cell::Int(2_913_114));
    for expression in [
        "day < DATE '2026-01-31'",
        "seen < DATE '2026-01-31'",
        "seen < TIMESTAMP '2024-02-29 12:34:57'",
        "coalesce(seen, seen) < TIMESTAMP '2024-02-29 12:34:57'",
        "coalesce(seen, seen) > DATE '2024-02-29'",
        "CAST(seen AS datetime) < TIMESTAMP '2024-02-29 12:34:57'",
        "took < TIME '00:00:00'",
    ] {
        assert_eq!(date(expression).1, Cell::Int(1), "{expression}");
    }
}

#[test]
fn what_cannot_be_rejects_the_row_unless_it_is_not_chosen() {
    for (expression, code) in [
        ("CAST(name AS int64)", "bad-cast"),
        ("CAST(n AS uint8)", "overflow"),
        ("CAST(name AS date)", "bad-cast"),
        ("DATE '9999-12-31' + 1", "overflow"),
        ("DATE '0000-01-01' - 1", "overflow"),
        ("CAST('839:00:00' AS time)", "bad-cast"),
        ("CAST(large AS int64)", "overflow"),
        ("CAST(large AS float32)", "overflow"),
        ("CAST(CAST(large AS float32) AS float64)", "overflow"),
        ("large * large", "overflow"),
        ("CAST(2147483648 AS int32)", "overflow"),
        ("CAST(-1 AS uint64)", "overflow"),
        ("id + 9223372036854775807", "overflow"),
        ("99999999999999999999999999999999999999 + 1", "overflow"),
        (
            "id * 18446744073709551615 * 18446744073709551615",
            "overflow",
        ),
        ("coalesce(CAST(name AS int64), 1)", "bad-cast"),
        (
            "CASE WHEN CAST(name AS int64) = 1 THEN 1 ELSE 2 END",
            "bad-cast",
        ),
    ] {
        let text = computed(expression).unwrap_err();
        assert!(
            text.starts_with(&format!("row 0: {code}: ")),
            "{expression}: {text}"
        );
    }
    for (expression, value) in [
        ("TRY_CAST(name AS int64)", Cell::Null),
        ("TRY_CAST(large AS int64)", Cell::Null),
        ("TRY_CAST(large AS float32)", Cell::Null),
        (
            "CASE WHEN n > 0 THEN CAST(name AS int64) ELSE 1 END",
            Cell::Int(1),
        ),
        ("if(n > 0 AND CAST(name AS int64) = 1, 1, 2)", Cell::Int(2)),
        ("coalesce(1, CAST(name AS int64))", Cell::Int(1)),
    ] {
        assert_eq!(
            computed(expression).map(|found| found.1),
            Ok(value),
            "{expression}"
        );
    }
}

#[test]
fn what_does_not_fit_is_told_at_its_character() {
    for (expression, expected) in [
        (
            "n + name",
            "in column `r`, at character 1: an integer and text cannot be calculated with",
        ),
        (
            "lower(n)",
            "in column `r`, at character 7: `lower` takes text here, not an integer",
        ),
        (
            "nope(n)",
            "in column `r`, at character 1: `nope` is no function here",
        ),
        (
            "now()",
            "in column `r`, at character 1: `now` is not the same on a replay",
        ),
        ("sum(n)", "at character 1: `sum` looks at more than one row"),
        (
            "CAST(n AS money)",
            "in column `r`, at character 11: `money` is no type here",
        ),
        (
            "CAST(day AS int64)",
            "in column `r`, at character 1: a date cannot be cast to an integer",
        ),
        (
            "regexp_like(name, '(')",
            "in column `r`, at character 1: the pattern of `regexp_like` is none",
        ),
        (
            "regexp_replace(name, '(B)', '$1_x')",
            "in column `r`, at character 29: the pattern of `regexp_replace` has no group `1_x`",
        ),
        (
            "regexp_replace(name, '(B)', '$1 $9')",
            "in column `r`, at character 29: the pattern of `regexp_replace` has no group `9`",
        ),
        (
            "regexp_replace(name, '(B)', '$${$$${end}')",
            "in column `r`, at character 29: the pattern of `regexp_replace` has no group `end`",
        ),
        (
            "hour(day)",
            "in column `r`, at character 1: a date has no `hour`",
        ),
        (
            "CASE WHEN n THEN 1 END",
            "in column `r`, at character 11: a condition is needed here",
        ),
        (
            "CASE END",
            "at character 6: expected an expression, found `END`",
        ),
        (
            "substring(name)",
            "in column `r`, at character 1: `substring` takes 3 arguments, not 1",
        ),
        ("NULL", "in column `r`, at character 1: it is always NULL"),
        (
            "n +",
            "at character 4: expected an expression, found the end",
        ),
        (
            "1 -",
            "at character 4: expected an expression, found the end",
        ),
        (
            "row_number() OVER (ORDER BY id)",
            "at character 14: OVER looks at more than one row",
        ),
        ("n > 1 LIMIT 3", "at character 7: LIMIT looks at"),
        ("count(*)", "at character 1: `count` looks at"),
        ("(SELECT 1)", "at character 2: a subquery looks at"),
        ("n IN (SELECT n FROM t)", "at character 7: a subquery looks"),
        ("EXISTS (SELECT 1)", "at character 1: EXISTS looks at"),
        (
            "t.n + 1",
            "at character 2: write the column without `t.`: there is one table",
        ),
        (
            "n IS 1",
            "at character 6: expected NULL, TRUE, FALSE or UNKNOWN, found 1",
        ),
        (
            "flag = 'yes'",
            "in column `r`, at character 8: column `flag` is ``: compare it with TRUE or FALSE",
        ),
        (
            "DATE '2026-02-30'",
            "in column `r`, at character 1: this is not a date",
        ),
        (
            "took < DATE '2026-01-31'",
            "in column `r`, at character 8: column `took`",
        ),
    ] {
        let text = harness(expression).map(drop).unwrap_err();
        assert!(text.starts_with(expected), "{expression}: {text}");
    }
}

#[test]
fn dates_are_those_of_the_calendar_both_ways() {
    for (text, days) in [
        ("1970-01-01", 0),
        ("2000-02-29", 11_016),
        ("1900-01-01", -25_567),
        ("2299-12-31", 120_529),
        ("0001-01-01", -719_162),
        ("9999-12-31", 2_932_896),
    ] {
        assert_eq!(literal::date(text), Some(days));
        let mut written = Vec::new();
        crate::calendar::write_date(days, &mut written);
        assert_eq!(written, text.as_bytes());
    }
    assert_eq!(literal::date("1900-02-29"), None);
}
