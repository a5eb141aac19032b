//! Types that a column is given in the pipe file: what they hold, to the ends of the source's type.

use anyhow::Result;
use serde_json::{Value, json};
use testbed::SourceKind;

use super::trial::{Column, both_paths, read_again};
use crate::support::on_both_sources;

on_both_sources! {
    chosen_types_hold_every_value: 300,
}

/// A column given `chosen`, shown by the source as `source_sql` and by ClickHouse as text.
fn chosen<'a>(
    definition: &'a str,
    chosen: &str,
    sql_type: &'a str,
    values: &'a [(&'a str, &'a str, bool)],
) -> Column<'a> {
    Column {
        definition,
        chosen: json!({ "type": chosen }),
        sql_type,
        values,
        source_sql: Some("{}"),
        ..Column::default()
    }
}

const SIGNED: [(&str, &str, bool); 3] = [
    ("-9223372036854775808", "", false),
    ("9223372036854775807", "", false),
    ("0", "", false),
];
const UNSIGNED: [(&str, &str, bool); 3] = [
    ("18446744073709551615", "", false),
    ("9223372036854775808", "", false),
    ("0", "", false),
];

async fn chosen_types_hold_every_value(kind: SourceKind) -> Result<()> {
    let columns: Vec<Column<'_>> = integers()
        .into_iter()
        .chain(fractions())
        .chain(moments())
        .chain(addresses())
        .collect();
    let more: Value = json!({ "row_image": "complete" });
    let (trial, mut pipe) = both_paths(kind, more, &columns).await?;
    read_again(&trial, &mut pipe).await
}

fn integers() -> Vec<Column<'static>> {
    vec![
        chosen("BIGINT", "Int128", "Nullable(Int128)", &SIGNED),
        chosen("BIGINT", "Int256", "Nullable(Int256)", &SIGNED),
        chosen("BIGINT UNSIGNED", "Int128", "Nullable(Int128)", &UNSIGNED),
        chosen("BIGINT UNSIGNED", "Int256", "Nullable(Int256)", &UNSIGNED),
        chosen("BIGINT UNSIGNED", "UInt128", "Nullable(UInt128)", &UNSIGNED),
        chosen("BIGINT UNSIGNED", "UInt256", "Nullable(UInt256)", &UNSIGNED),
        chosen(
            "TINYINT",
            "Int64",
            "Nullable(Int64)",
            &[("-128", "", false), ("127", "", false)],
        ),
        chosen(
            "SMALLINT",
            "Int256",
            "Nullable(Int256)",
            &[("-32768", "", false), ("32767", "", false)],
        ),
        chosen(
            "TINYINT UNSIGNED",
            "Int16",
            "Nullable(Int16)",
            &[("255", "", false), ("128", "", false)],
        ),
        chosen(
            "MEDIUMINT UNSIGNED",
            "UInt64",
            "Nullable(UInt64)",
            &[("16777215", "", false), ("8388608", "", false)],
        ),
        chosen(
            "INT UNSIGNED",
            "Int64",
            "Nullable(Int64)",
            &[("4294967295", "", false), ("2147483648", "", false)],
        ),
    ]
}

fn fractions() -> Vec<Column<'static>> {
    vec![
        Column {
            source_sql: None,
            ..chosen(
                "FLOAT",
                "Float64",
                "Nullable(Float64)",
                // Each the nearest float, in the digits of a double.
                &[
                    ("0.1", "0.10000000149011612", false),
                    ("3.4028234e38", "3.4028234663852886e38", false),
                    ("-1e-45", "-1.401298464324817e-45", false),
                ],
            )
        },
        chosen(
            "DECIMAL(15,2)",
            "Decimal(38, 2)",
            "Nullable(Decimal(38, 2))",
            &[("-9999999999999.99", "", false), ("0.01", "", false)],
        ),
        Column {
            // With the further digits, which are zeros.
            source_sql: Some("CAST({} AS DECIMAL(22,9))"),
            target_sql: "toDecimalString({}, 9)",
            ..chosen(
                "DECIMAL(15,2)",
                "Decimal(76, 9)",
                "Nullable(Decimal(76, 9))",
                &[("-9999999999999.99", "", false), ("0.01", "", false)],
            )
        },
        Column {
            target_sql: "toDecimalString({}, 30)",
            ..chosen(
                "DECIMAL(65,30)",
                "Decimal(76, 30)",
                "Nullable(Decimal(76, 30))",
                &[
                    (
                        "-99999999999999999999999999999999999.999999999999999999999999999999",
                        "",
                        false,
                    ),
                    ("0.000000000000000000000000000001", "", false),
                ],
            )
        },
    ]
}

fn moments() -> Vec<Column<'static>> {
    let berlin = |definition, digits_type: &'static str, sql_type| Column {
        source_sql: None,
        ..chosen(
            definition,
            digits_type,
            sql_type,
            // Both sides of the hour that comes twice, and the ends.
            &[
                ("'2024-10-27 00:30:00'", "2024-10-27 02:30:00", false),
                ("'2024-10-27 01:30:00'", "2024-10-27 02:30:00", false),
                ("'1970-01-01 00:00:01'", "1970-01-01 01:00:01", false),
                ("'2038-01-19 03:14:07'", "2038-01-19 04:14:07", false),
            ],
        )
    };
    vec![
        berlin(
            "TIMESTAMP",
            "DateTime64(0, 'Europe/Berlin')",
            "Nullable(DateTime64(0, 'Europe/Berlin'))",
        ),
        chosen(
            "DATETIME(3)",
            "DateTime64(3)",
            "Nullable(DateTime64(3, 'UTC'))",
            &[
                ("'1000-01-01 00:00:00.001'", "", false),
                ("'9999-12-31 23:59:59.999'", "", false),
            ],
        ),
        chosen(
            "DATETIME(1)",
            "DateTime64(1, 'UTC')",
            "Nullable(DateTime64(1, 'UTC'))",
            &[("'1969-12-31 23:59:59.9'", "", false)],
        ),
        chosen(
            "TIME(3)",
            "Time64(3)",
            "Nullable(Time64(3))",
            &[
                ("'-00:00:00.001'", "", false),
                ("'838:59:58.999'", "", false),
            ],
        ),
        Column {
            // Seconds have a fraction on MariaDB, and microseconds no sign on either.
            source_sql: Some(
                "CAST(TRUNCATE(TIME_TO_SEC({}), 0) * 1000000 + IF({} < '00:00:00', -1, 1) * MICROSECOND({}) AS SIGNED)",
            ),
            ..chosen(
                "TIME(6)",
                "Int64",
                "Nullable(Int64)",
                &[
                    ("'-00:00:01.000001'", "", false),
                    ("'-838:59:58.999999'", "", false),
                    ("'12:34:56.789012'", "", false),
                ],
            )
        },
    ]
}

fn addresses() -> Vec<Column<'static>> {
    vec![Column {
        source_sql: Some("INET6_NTOA({})"),
        ..chosen(
            "BINARY(16)",
            "IPv6",
            "Nullable(IPv6)",
            &[
                ("INET6_ATON('2001:db8::ff00:42:8329')", "", false),
                ("INET6_ATON('::ffff:192.0.2.1')", "", false),
                ("INET6_ATON('::')", "", false),
            ],
        )
    }]
}
