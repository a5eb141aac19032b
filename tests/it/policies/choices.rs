//! What each choice makes of its values.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use testbed::SourceKind;

use super::trial::{Column, both_paths, ensure_changed, read_again};
use crate::support::{START, on_all_sources, on_both_sources};

on_both_sources! {
    the_pipes_choices_hold_for_every_column: 300,
    without_a_choice_every_column_has_its_default: 300,
    nulls_that_become_defaults_are_counted: 240,
}

on_all_sources! {
    a_columns_choices_win_over_the_pipes: 300,
}

const DATES: [&str; 5] = [
    "'0000-00-00'",
    "'2024-00-15'",
    "'2024-03-00'",
    "'2023-02-30'",
    "'1970-01-02'",
];

async fn the_pipes_choices_hold_for_every_column(kind: SourceKind) -> Result<()> {
    let types = json!({
        "zero_dates": "clamp", "tinyint1": "bool", "enum": "enum16", "set": "array", "binary": "hex", "json": "json",
        "decimal": "string", "geometry": "ewkt",
    });
    let columns = [
        Column {
            definition: "DATE",
            sql_type: "Nullable(Date32)",
            policy: "zero_dates",
            values: &[
                (DATES[0], "1900-01-01", true),
                (DATES[1], "2024-01-15", true),
                (DATES[2], "2024-03-01", true),
                (DATES[3], "2023-02-28", true),
                (DATES[4], "1970-01-02", false),
            ],
            ..Column::default()
        },
        Column {
            definition: "DATETIME(3)",
            sql_type: "Nullable(DateTime64(6, 'UTC'))",
            policy: "zero_dates",
            values: &[
                ("'0000-00-00 00:00:00'", "1900-01-01 00:00:00.000000", true),
                (
                    "'2024-05-00 12:30:00.25'",
                    "2024-05-01 12:30:00.250000",
                    true,
                ),
                (
                    "'2024-05-01 12:30:00.25'",
                    "2024-05-01 12:30:00.250000",
                    false,
                ),
            ],
            ..Column::default()
        },
        Column {
            definition: "TIMESTAMP",
            sql_type: "Nullable(DateTime64(6, 'UTC'))",
            policy: "zero_dates",
            values: &[
                ("'0000-00-00 00:00:00'", "1900-01-01 00:00:00.000000", true),
                ("'1970-01-01 00:00:01'", "1970-01-01 00:00:01.000000", false),
            ],
            ..Column::default()
        },
        Column {
            definition: "TINYINT(1)",
            sql_type: "Nullable(Bool)",
            policy: "tinyint1",
            values: &[
                ("0", "false", false),
                ("1", "true", false),
                ("2", "true", true),
                ("-128", "true", true),
            ],
            ..Column::default()
        },
        Column {
            definition: "TINYINT(2)",
            sql_type: "Nullable(Int8)",
            values: &[("2", "2", false)],
            ..Column::default()
        },
        Column {
            definition: "ENUM('it''s','a\\\\b','ü')",
            sql_type: "Nullable(Enum16('' = 0, 'it\\'s' = 1, 'a\\\\b' = 2, 'ü' = 3))",
            values: &[
                ("'it''s'", "it's", false),
                ("3", "ü", false),
                ("2", "a\\b", false),
                ("'unknown'", "", false),
            ],
            ..Column::default()
        },
        Column {
            definition: "SET('a','b c','ü')",
            sql_type: "Array(String)",
            policy: "set",
            null: Some("[]"),
            values: &[
                ("'a,ü'", "['a','ü']", false),
                ("''", "[]", false),
                ("'b c'", "['b c']", false),
            ],
            ..Column::default()
        },
        Column {
            definition: "BINARY(4)",
            sql_type: "Nullable(String)",
            values: &[("X'00FF'", "", false), ("'ab'", "", false)],
            source_sql: Some("HEX({})"),
            ..Column::default()
        },
        Column {
            definition: "BLOB",
            sql_type: "Nullable(String)",
            values: &[("X''", "", false), ("X'C3280A'", "", false)],
            source_sql: Some("HEX({})"),
            ..Column::default()
        },
        Column {
            definition: "JSON",
            // MariaDB's JSON is a LONGTEXT.
            chosen: match kind {
                SourceKind::MySql => json!(null),
                SourceKind::MariaDb | SourceKind::MariaDb11 => json!({ "json": "json" }),
            },
            sql_type: "Nullable(JSON)",
            policy: "json",
            values: &[
                ("'{\"a\": 1}'", "{\"a\":1}", false),
                ("'[1, 2]'", "{\"value\":[1,2]}", true),
                ("'\"x\"'", "{\"value\":\"x\"}", true),
            ],
            ..Column::default()
        },
        Column {
            definition: "DECIMAL(65,30)",
            sql_type: "Nullable(String)",
            values: &[
                (
                    "-12345678901234567890123456789012345.000000000000000000000000000001",
                    "",
                    false,
                ),
                ("0", "", false),
                ("0.5", "", false),
            ],
            source_sql: Some("{}"),
            ..Column::default()
        },
        Column {
            definition: "DECIMAL(10,2)",
            sql_type: "Nullable(String)",
            values: &[("-0.01", "", false), ("99999999.99", "", false)],
            source_sql: Some("{}"),
            ..Column::default()
        },
        Column {
            definition: "POINT",
            sql_type: "Nullable(String)",
            values: &[
                (
                    "ST_GeomFromText('POINT(1 2)', 3857)",
                    "SRID=3857;POINT(1 2)",
                    false,
                ),
                (
                    "ST_GeomFromText('POINT(1.5 -2)')",
                    "SRID=0;POINT(1.5 -2)",
                    false,
                ),
            ],
            ..Column::default()
        },
    ];
    let (trial, mut pipe) = both_paths(kind, json!({ "types": types }), &columns).await?;
    // What was counted is kept, shown to people, and a metric.
    pipe.kill9()?;
    pipe.restart()?;
    pipe.wait_state("Running", START).await?;
    ensure_changed(&pipe, &trial.changed(2))
        .await
        .context("after a restart")?;
    let metric = format!(
        "pipewright_values_changed_total{{pipe=\"{0}\",table=\"{0}.t\",column=\"c0\",policy=\"zero_dates\"}} {1}",
        trial.stage.database,
        trial.changed(2)[0]["values"]
    );
    let metrics = pipe.get_text("/metrics").await?;
    ensure!(metrics.contains(&metric), "no {metric} in {metrics}");
    let url = pipe.url();
    let told = pipe
        .cli(&["status", &trial.stage.database, "--server", &url])
        .await?;
    ensure!(
        told.stdout.contains("VALUES CHANGED") && told.stdout.contains("tinyint1"),
        "{told:?}"
    );
    Ok(())
}

async fn a_columns_choices_win_over_the_pipes(kind: SourceKind) -> Result<()> {
    let types = json!({
        "zero_dates": "clamp", "date_range": "string", "tinyint1": "bool", "enum": "enum16", "set": "array", "binary": "hex",
        "json": "json", "decimal": "string", "geometry": "ewkt",
    });
    let columns = [
        Column {
            definition: "DATE",
            chosen: json!({ "date_range": "clamp", "zero_dates": null }),
            sql_type: "Nullable(Date32)",
            policy: "zero_dates",
            values: &[(DATES[4], "1970-01-02", false)],
            ..Column::default()
        },
        Column {
            definition: "DATE",
            chosen: json!({ "date_range": "clamp", "zero_dates": "epoch" }),
            sql_type: "Nullable(Date32)",
            policy: "zero_dates",
            values: &[
                (DATES[0], "1970-01-01", true),
                (DATES[1], "1970-01-01", true),
                (DATES[4], "1970-01-02", false),
            ],
            ..Column::default()
        },
        Column {
            definition: "DATE",
            sql_type: "Nullable(String)",
            values: &[
                (DATES[0], "", false),
                (DATES[1], "", false),
                (DATES[3], "", false),
                ("'9999-12-31'", "", false),
            ],
            source_sql: Some("{}"),
            ..Column::default()
        },
        Column {
            definition: "DATETIME(2)",
            sql_type: "Nullable(String)",
            values: &[
                ("'0000-00-00 00:00:00'", "", false),
                ("'2024-05-00 12:30:00.25'", "", false),
                ("'1000-01-01 00:00:00.01'", "", false),
            ],
            source_sql: Some("{}"),
            ..Column::default()
        },
        Column {
            definition: "DATETIME(2)",
            chosen: json!({ "date_range": "clamp" }),
            sql_type: "Nullable(DateTime64(6, 'UTC'))",
            policy: "zero_dates",
            values: &[("'0000-00-00 01:00:00'", "1900-01-01 01:00:00.000000", true)],
            ..Column::default()
        },
        Column {
            definition: "TINYINT(1)",
            chosen: json!({ "tinyint1": "int8" }),
            sql_type: "Nullable(Int8)",
            values: &[("-128", "-128", false), ("2", "2", false)],
            ..Column::default()
        },
        Column {
            definition: "ENUM('a','b')",
            chosen: json!({ "enum": "integer" }),
            sql_type: "Nullable(UInt16)",
            values: &[("'b'", "", false), ("'unknown'", "", false)],
            source_sql: Some("{} + 0"),
            ..Column::default()
        },
        Column {
            definition: "ENUM('a','b')",
            chosen: json!({ "enum": "label" }),
            sql_type: "LowCardinality(Nullable(String))",
            values: &[("'b'", "b", false)],
            ..Column::default()
        },
        Column {
            definition: "SET('a','b')",
            chosen: json!({ "set": "string" }),
            sql_type: "Nullable(String)",
            values: &[("'b,a'", "a,b", false)],
            ..Column::default()
        },
        Column {
            definition: "BINARY(3)",
            chosen: json!({ "binary": "base64" }),
            sql_type: "Nullable(String)",
            values: &[("X'00FF'", "", false), ("'abc'", "", false)],
            source_sql: Some("TO_BASE64({})"),
            ..Column::default()
        },
        Column {
            definition: "VARBINARY(20)",
            chosen: json!({ "binary": "raw" }),
            sql_type: "Nullable(String)",
            values: &[("'ab '", "ab ", false)],
            ..Column::default()
        },
        Column {
            definition: "BINARY(16)",
            chosen: json!({ "type": "UUID" }),
            sql_type: "Nullable(UUID)",
            values: &[(
                "X'0123456789ABCDEF0123456789ABCDEF'",
                "01234567-89ab-cdef-0123-456789abcdef",
                false,
            )],
            ..Column::default()
        },
        Column {
            definition: "BINARY(4)",
            chosen: json!({ "type": "FixedString(4)" }),
            sql_type: "Nullable(FixedString(4))",
            values: &[("'abcd'", "abcd", false)],
            ..Column::default()
        },
        Column {
            definition: "BIGINT UNSIGNED",
            chosen: json!({ "type": "String" }),
            sql_type: "Nullable(String)",
            values: &[("18446744073709551615", "", false), ("0", "", false)],
            source_sql: Some("{}"),
            ..Column::default()
        },
        Column {
            definition: "INT UNSIGNED",
            chosen: json!({ "type": "IPv4" }),
            sql_type: "Nullable(IPv4)",
            values: &[("2130706433", "127.0.0.1", false)],
            ..Column::default()
        },
        Column {
            definition: "JSON",
            chosen: json!({ "json": "string" }),
            sql_type: "Nullable(String)",
            values: &[("'[1, 2]'", "[1, 2]", false)],
            ..Column::default()
        },
        Column {
            definition: "POINT",
            chosen: json!({ "geometry": "wkt" }),
            sql_type: "Nullable(String)",
            values: &[("ST_GeomFromText('POINT(1 2)', 3857)", "POINT(1 2)", false)],
            ..Column::default()
        },
        Column {
            definition: "LINESTRING",
            // Bytes, which the pipe would have in hexadecimal digits.
            chosen: json!({ "geometry": "wkb", "binary": "raw" }),
            sql_type: "Nullable(String)",
            // As it is stored, behind the SRID.
            values: &[
                (
                    "ST_GeomFromText('LINESTRING(52.5 13.25,-1 2)', 4326)",
                    "",
                    false,
                ),
                ("ST_GeomFromText('LINESTRING(0 0,1e100 -1)')", "", false),
            ],
            source_sql: Some("SUBSTRING(HEX({}), 9)"),
            target_sql: "hex({})",
            ..Column::default()
        },
        Column {
            definition: "INT",
            chosen: json!({ "nullable": false }),
            sql_type: "Int32",
            policy: "null_as_default",
            null: Some("0"),
            values: &[("0", "0", false), ("-7", "-7", false)],
            ..Column::default()
        },
        Column {
            definition: "VARCHAR(10)",
            chosen: json!({ "type": "LowCardinality(String)", "nullable": false }),
            sql_type: "LowCardinality(String)",
            policy: "null_as_default",
            null: Some(""),
            values: &[("'a'", "a", false)],
            ..Column::default()
        },
        Column {
            definition: "DATE",
            chosen: json!({ "nullable": false }),
            // Text, as the pipe says, which has no default but the empty one.
            sql_type: "String",
            policy: "null_as_default",
            null: Some(""),
            values: &[("'9999-12-31'", "9999-12-31", false)],
            ..Column::default()
        },
        Column {
            definition: "DECIMAL(10,2)",
            chosen: json!({ "decimal": "decimal" }),
            sql_type: "Nullable(Decimal(10, 2))",
            values: &[("1.25", "1.25", false)],
            ..Column::default()
        },
    ];
    let (trial, mut pipe) = both_paths(
        kind,
        json!({ "types": types, "row_image": "complete" }),
        &columns,
    )
    .await?;
    read_again(&trial, &mut pipe).await
}

async fn without_a_choice_every_column_has_its_default(kind: SourceKind) -> Result<()> {
    let columns = [
        Column {
            definition: "DATE",
            sql_type: "Nullable(Date32)",
            policy: "date_range",
            values: &[
                ("'1000-01-01'", "1900-01-01", true),
                ("'9999-12-31'", "2299-12-31", true),
                ("'2299-12-31'", "2299-12-31", false),
            ],
            ..Column::default()
        },
        Column {
            definition: "DATE",
            chosen: json!({ "type": "DateTime64(0, 'UTC')" }),
            sql_type: "Nullable(DateTime64(0, 'UTC'))",
            policy: "date_range",
            values: &[
                ("'1000-01-01'", "1000-01-01 00:00:00", false),
                ("'9999-12-31'", "9999-12-31 00:00:00", false),
                ("'0000-05-05'", "0000-05-05 00:00:00", false),
            ],
            ..Column::default()
        },
        Column {
            definition: "DATETIME",
            sql_type: "Nullable(DateTime64(6, 'UTC'))",
            policy: "date_range",
            values: &[
                ("'0000-05-05 12:00:00'", "0000-05-05 12:00:00.000000", false),
                ("'0001-01-01 00:00:00'", "0001-01-01 00:00:00.000000", false),
                ("'9999-12-31 23:59:59'", "9999-12-31 23:59:59.000000", false),
            ],
            ..Column::default()
        },
        Column {
            definition: "TINYINT(1)",
            sql_type: "Nullable(Int8)",
            values: &[("2", "2", false)],
            ..Column::default()
        },
        Column {
            definition: "ENUM('a','b')",
            sql_type: "LowCardinality(Nullable(String))",
            values: &[("'b'", "b", false), ("'unknown'", "", false)],
            ..Column::default()
        },
        Column {
            definition: "SET('a','b')",
            sql_type: "Nullable(String)",
            values: &[("'b,a'", "a,b", false)],
            ..Column::default()
        },
        Column {
            definition: "JSON",
            sql_type: "Nullable(String)",
            values: &[("'[1, 2]'", "[1, 2]", false)],
            ..Column::default()
        },
        Column {
            definition: "DECIMAL(10,2)",
            sql_type: "Nullable(Decimal(10, 2))",
            values: &[("1.25", "1.25", false)],
            ..Column::default()
        },
    ];
    both_paths(kind, json!({}), &columns).await.map(drop)
}

async fn nulls_that_become_defaults_are_counted(kind: SourceKind) -> Result<()> {
    let columns = [
        Column {
            definition: "INT",
            sql_type: "Int32",
            policy: "null_as_default",
            null: Some("0"),
            values: &[("0", "0", false), ("7", "7", false)],
            ..Column::default()
        },
        Column {
            definition: "VARCHAR(10)",
            sql_type: "String",
            policy: "null_as_default",
            null: Some(""),
            values: &[("''", "", false)],
            ..Column::default()
        },
        Column {
            definition: "ENUM('a')",
            chosen: json!({ "enum": "enum16" }),
            sql_type: "Enum16('' = 0, 'a' = 1)",
            policy: "null_as_default",
            null: Some(""),
            values: &[("'a'", "a", false)],
            ..Column::default()
        },
        Column {
            definition: "SET('a')",
            chosen: json!({ "set": "array" }),
            sql_type: "Array(String)",
            policy: "null_as_default",
            null: Some("[]"),
            values: &[("'a'", "['a']", false)],
            ..Column::default()
        },
        Column {
            definition: "BINARY(4)",
            chosen: json!({ "type": "FixedString(4)" }),
            sql_type: "FixedString(4)",
            policy: "null_as_default",
            // Four zeros, which ClickHouse's toString cuts off.
            null: Some(""),
            values: &[("'abcd'", "abcd", false)],
            ..Column::default()
        },
    ];
    let kept = [
        Column {
            definition: "INT",
            chosen: json!({ "nullable": true }),
            sql_type: "Nullable(Int32)",
            values: &[("0", "0", false)],
            ..Column::default()
        },
        Column {
            definition: "VARCHAR(10)",
            chosen: json!({ "type": "LowCardinality(String)", "nullable": true }),
            sql_type: "LowCardinality(Nullable(String))",
            values: &[("''", "", false)],
            ..Column::default()
        },
    ];
    // A LONGTEXT, which MariaDB's JSON is, may be empty by itself, which would be counted a second time.
    let json = Column {
        definition: "JSON",
        chosen: json!({ "json": "json" }),
        sql_type: "JSON",
        policy: "null_as_default",
        null: Some("{}"),
        values: &[("'{\"a\": 1}'", "{\"a\":1}", false)],
        ..Column::default()
    };
    let json = (!kind.is_mariadb()).then_some(json);
    let columns: Vec<Column<'_>> = columns.into_iter().chain(kept).chain(json).collect();
    both_paths(kind, json!({ "nullable": false }), &columns)
        .await
        .map(drop)
}
