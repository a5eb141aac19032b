//! JSON: MySQL's binary documents, MariaDB's texts.

use anyhow::Result;
use testbed::SourceKind;
use testbed::harness::Stage;

use super::families::Family;
use super::{both_paths, both_paths_on};
use crate::support::{CATCH_UP, on_all_sources, once, running};

on_all_sources! {
    json_as_the_server_prints_it: 240,
}

once! {
    json_of_every_kind_on_mysql: 240,
}

/// Pitfalls 24 and 29: MySQL prints its binary form, MariaDB keeps the text as it was written.
async fn json_as_the_server_prints_it(kind: SourceKind) -> Result<()> {
    both_paths(
        kind,
        "",
        &[
            (
                "JSON",
                &[
                    "'{}'",
                    "'[]'",
                    "'null'",
                    "'true'",
                    "'\"text\"'",
                    "'42'",
                    "'-1.5'",
                    "'{\"b\": 1, \"a\": [1, 2, {\"c\": null}]}'",
                    "'[18446744073709551615, -9223372036854775808, 0.1, 1e10, 1.0]'",
                    "'{\"ü\": \"😀 \\\\\" \\\\n\"}'",
                ],
            ),
            ("JSON", &["'{\"same\": \"row\"}'"]),
        ],
    )
    .await
}

/// A value of every kind that a document takes over from a column without turning it into one of JSON's own, and of those
/// that it does.
const KINDS: &str = "CREATE TABLE kinds (d DATE, t TIME(6), dt DATETIME(6), ts TIMESTAMP(2) NULL, n DECIMAL(65,30), y YEAR, \
     b1 BIT, b10 BIT(10), b64 BIT(64), fix BINARY(4), var VARBINARY(9), tb TINYBLOB, bl BLOB, mb MEDIUMBLOB, lb LONGBLOB, \
     e ENUM('ä','b'), s SET('x','y'), f FLOAT, u BIGINT UNSIGNED, p POINT, g GEOMETRY SRID 4326)";

/// What lies in its only row. Bytes that are no text, of more than a line of Base64 and of none.
const KINDS_ROW: &str = "INSERT INTO kinds VALUES ('1000-01-01', '-838:59:59', '9999-12-31 23:59:59.999999', \
     '2038-01-19 03:14:07.49', -99999999999999999999999999999999999.000000000000000000000000000001, 1901, b'1', b'1000000001', \
     18446744073709551615, X'00FF', X'', X'C328', REPEAT(X'FE', 200), X'00', REPEAT(X'0102', 50000), 'ä', 'x,y', 0.1, \
     18446744073709551615, ST_GeomFromText('POINT(1.5 -2)'), ST_GeomFromText('POLYGON((0 0,1 0,1 1,0 0))', 4326))";

const KINDS_COLUMNS: [&str; 21] = [
    "d", "t", "dt", "ts", "n", "y", "b1", "b10", "b64", "fix", "var", "tb", "bl", "mb", "lb", "e",
    "s", "f", "u", "p", "g",
];

/// Pitfalls 25 and 27: opaque values, integers of 64 bits, depth, doubles of every size.
async fn json_of_every_kind_on_mysql() -> Result<()> {
    let deep = format!("'{}1{}'", "[".repeat(90), "]".repeat(90));
    let long_text = "JSON_OBJECT('k', REPEAT('x', 70000))";
    let large = "JSON_ARRAY(REPEAT('a', 40000), REPEAT('b', 40000), 1, 2, NULL, TRUE)";
    let many: Vec<String> = (0..600).map(|n| format!("\"key{n}\": {n}")).collect();
    let many = format!("'{{{}}}'", many.join(", "));
    let stage = Stage::shared(SourceKind::MySql).await?;
    stage.source.execute_all([KINDS, KINDS_ROW]).await?;
    let of_columns = KINDS_COLUMNS.map(|column| {
        format!(
            "(SELECT JSON_OBJECT('of column', {column}, 'again', JSON_ARRAY({column})) FROM kinds)"
        )
    });
    let of_columns = of_columns.each_ref().map(String::as_str);
    let documents = Family::of(
        "",
        &[
            ("JSON", &of_columns),
            (
                "JSON",
                &[
                    &deep,
                    long_text,
                    large,
                    &many,
                    "CAST(CAST('2024-02-29' AS DATE) AS JSON)",
                    "JSON_OBJECT('d', CAST('2024-02-29' AS DATE))",
                    "JSON_OBJECT('t', CAST('-12:34:56.789' AS TIME(3)))",
                    "JSON_OBJECT('dt', CAST('2024-02-29 12:34:56.789012' AS DATETIME(6)))",
                    "JSON_ARRAY(CAST(1.50 AS DECIMAL(10,2)), CAST(-99999999999999999999.123 AS DECIMAL(30,3)))",
                    "JSON_ARRAY(1, -1, 32767, 32768, -32769, 2147483647, 2147483648, -2147483649, 9223372036854775807, 18446744073709551615)",
                    "JSON_ARRAY(0.1e0, 1e0, 1e15, 1e16, 1e17, 1e-5, 1e-7, 1.7976931348623157e308, 123456789012345680e0, -0e0)",
                    "JSON_OBJECT('b', CAST('bytes' AS BINARY))",
                    "JSON_OBJECT('', '', 'a', '\\0\\Z\\b\\t\\r\\n\"\\\\/')",
                    "'\"\\\\u0001\\\\u001f\\\\u007f\\\\u2028\"'",
                    "JSON_ARRAY(TRUE, FALSE, NULL)",
                    "'{\"a\": {\"a\": {\"a\": {}}}, \"aa\": 1, \"b\": []}'",
                ],
            ),
            ("JSON", &["'1'"]),
        ],
    );
    both_paths_on(&stage, &[documents]).await?;
    // A changed member travels as a whole document as long as partial JSON is off.
    let stage = Stage::shared(SourceKind::MySql).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, j JSON)",
            "INSERT INTO t VALUES (1, '{\"a\": 1, \"b\": [1, 2, 3]}')",
        ])
        .await?;
    let mut pipe = running(&stage, &["t"]).await?;
    stage
        .source
        .execute_all([
            "UPDATE t SET j = JSON_SET(j, '$.a', 2)",
            "UPDATE t SET j = JSON_REMOVE(j, '$.b[1]')",
            "UPDATE t SET j = JSON_SET(j, '$.c', 0.5)",
        ])
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    stage.assert_same("t").await.map(drop)
}
