//! Dates without an equal in ClickHouse, by each column's own choice, where NULL is taken and where it is not.

use anyhow::Result;
use serde_json::{Value, json};
use testbed::SourceKind;

use super::trial::{Column, NULL, Row, both_paths};
use crate::support::on_all_sources;

on_all_sources! {
    dates_without_an_equal_become_what_their_column_chooses: 300,
}

const ZERO: &str = "'0000-00-00'";
const PARTIAL: &str = "'2024-00-15'";
const IMPOSSIBLE: &str = "'2023-02-30'";
const EARLY: &str = "'1000-01-01'";
const LATE: &str = "'9999-12-31'";
const ZERO_MOMENT: &str = "'0000-00-00 00:00:00'";
const PARTIAL_MOMENT: &str = "'2024-05-00 12:30:00.25'";
const REAL: Row<'static> = ("'2024-02-29'", "2024-02-29", false);
const EPOCH: &str = "1970-01-01";
const EPOCH_MOMENT: &str = "1970-01-01 00:00:00.000000";

const DAY: &str = "Nullable(Date32)";
const MOMENT: &str = "Nullable(DateTime64(6, 'UTC'))";

fn column<'a>(
    definition: &'a str,
    chosen: Value,
    sql_type: &'a str,
    values: &'a [Row<'a>],
) -> Column<'a> {
    Column {
        definition,
        chosen,
        sql_type,
        policy: "zero_dates",
        values,
        ..Column::default()
    }
}

/// Of dates that ClickHouse's Date32 does not hold.
fn ranged(column: Column<'_>) -> Column<'_> {
    Column {
        policy: "date_range",
        ..column
    }
}

fn not_null(column: Column<'_>) -> Column<'_> {
    Column {
        not_null: true,
        ..column
    }
}

fn of_nullable() -> Vec<Column<'static>> {
    let chosen = |zero_dates: &str| json!({ "zero_dates": zero_dates });
    vec![
        ranged(column(
            "DATE",
            Value::Null,
            DAY,
            &[
                (EARLY, NULL, true),
                (LATE, NULL, true),
                ("'1900-01-01'", "1900-01-01", false),
                ("'2299-12-31'", "2299-12-31", false),
            ],
        )),
        ranged(column(
            "DATE",
            json!({ "date_range": "clamp" }),
            DAY,
            &[(EARLY, "1900-01-01", true), (LATE, "2299-12-31", true)],
        )),
        column(
            "DATE",
            json!({ "date_range": "string" }),
            "Nullable(String)",
            &[
                (ZERO, "0000-00-00", false),
                (PARTIAL, "2024-00-15", false),
                (EARLY, "1000-01-01", false),
                (LATE, "9999-12-31", false),
            ],
        ),
        column(
            "DATETIME(3)",
            json!({ "date_range": "string" }),
            "Nullable(String)",
            &[
                (ZERO_MOMENT, "0000-00-00 00:00:00.000", false),
                (PARTIAL_MOMENT, "2024-05-00 12:30:00.250", false),
                (
                    "'9999-12-31 23:59:59.999'",
                    "9999-12-31 23:59:59.999",
                    false,
                ),
            ],
        ),
        column(
            "DATE",
            json!({ "zero_dates": null }),
            DAY,
            &[
                (ZERO, NULL, true),
                (PARTIAL, NULL, true),
                (IMPOSSIBLE, NULL, true),
                REAL,
            ],
        ),
        column(
            "DATE",
            chosen("epoch"),
            DAY,
            &[(ZERO, EPOCH, true), (PARTIAL, EPOCH, true), REAL],
        ),
        column(
            "DATE",
            chosen("clamp"),
            DAY,
            &[
                (ZERO, "1900-01-01", true),
                (PARTIAL, "2024-01-15", true),
                (IMPOSSIBLE, "2023-02-28", true),
                REAL,
            ],
        ),
        column(
            "DATETIME(6)",
            json!({ "zero_dates": null }),
            MOMENT,
            &[(ZERO_MOMENT, NULL, true), (PARTIAL_MOMENT, NULL, true)],
        ),
        column(
            "DATETIME(6)",
            chosen("epoch"),
            MOMENT,
            &[
                (ZERO_MOMENT, EPOCH_MOMENT, true),
                (PARTIAL_MOMENT, EPOCH_MOMENT, true),
            ],
        ),
        column(
            "DATETIME(6)",
            chosen("clamp"),
            MOMENT,
            &[
                (ZERO_MOMENT, "1900-01-01 00:00:00.000000", true),
                (PARTIAL_MOMENT, "2024-05-01 12:30:00.250000", true),
            ],
        ),
        column(
            "TIMESTAMP",
            json!({ "zero_dates": null }),
            MOMENT,
            &[(ZERO_MOMENT, NULL, true)],
        ),
        column(
            "TIMESTAMP",
            chosen("epoch"),
            MOMENT,
            &[(ZERO_MOMENT, EPOCH_MOMENT, true)],
        ),
    ]
}

/// NULL stands for nothing here: what has no equal is 1970-01-01, unless its column has chosen something else.
fn of_not_null() -> Vec<Column<'static>> {
    let moment = MOMENT
        .trim_start_matches("Nullable(")
        .strip_suffix(')')
        .unwrap_or(MOMENT);
    let columns = [
        column("DATE", Value::Null, "Date32", &[(ZERO, EPOCH, true), REAL]),
        column(
            "DATE",
            json!({ "zero_dates": null }),
            "Date32",
            &[(PARTIAL, EPOCH, true), (IMPOSSIBLE, EPOCH, true)],
        ),
        column(
            "DATE",
            json!({ "zero_dates": "clamp" }),
            "Date32",
            &[(ZERO, "1900-01-01", true), (PARTIAL, "2024-01-15", true)],
        ),
        column(
            "DATETIME(6)",
            Value::Null,
            moment,
            &[
                (ZERO_MOMENT, EPOCH_MOMENT, true),
                (PARTIAL_MOMENT, EPOCH_MOMENT, true),
            ],
        ),
        column(
            "TIMESTAMP(3)",
            Value::Null,
            moment,
            &[
                (ZERO_MOMENT, EPOCH_MOMENT, true),
                (
                    "'2024-02-29 12:00:00.5'",
                    "2024-02-29 12:00:00.500000",
                    false,
                ),
            ],
        ),
        ranged(column(
            "DATE",
            Value::Null,
            "Date32",
            &[(EARLY, EPOCH, true), (LATE, EPOCH, true), REAL],
        )),
        column(
            "DATE",
            json!({ "date_range": "string" }),
            "String",
            &[(ZERO, "0000-00-00", false), (LATE, "9999-12-31", false)],
        ),
    ];
    columns.map(not_null).into()
}

/// Pitfalls 1, 2 and 3.
async fn dates_without_an_equal_become_what_their_column_chooses(kind: SourceKind) -> Result<()> {
    let columns = [of_nullable(), of_not_null()]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>();
    let types = json!({ "types": { "date_range": null } });
    both_paths(kind, types, &columns).await.map(drop)
}
