//! Every type, by family: the same rows before the load and after it, so that both paths meet the same values.

mod columns;
mod json;
mod labels;
mod large;
mod mariadb;
mod spatial;
mod vector;

use anyhow::{Result, ensure};
use mysql_async::prelude::Queryable;
use testbed::SourceKind;
use testbed::harness::Stage;

use crate::support::{CATCH_UP, on_all_sources, running};

on_all_sources! {
    integers_of_every_width: 240,
    decimals_of_every_size: 240,
    floating_point_numbers_keep_every_bit: 240,
    bits_and_years: 240,
    dates_and_times_with_their_extremes: 240,
    zero_and_impossible_dates_are_null: 240,
    timestamps_are_moments_whatever_the_time_zone: 240,
    texts_in_utf8: 240,
    texts_in_other_charsets: 240,
    bytes_as_they_are: 240,
    enums_and_sets: 240,
}

/// A column's definition, and the literals it is tried with; NULL is added to each.
type Column<'a> = (&'a str, &'a [&'a str]);

/// Row n holds every column's n-th literal, going round; written once before the load and once after it.
async fn both_paths(kind: SourceKind, table_options: &str, columns: &[Column<'_>]) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    both_paths_on(&stage, table_options, columns).await
}

async fn both_paths_on(stage: &Stage, table_options: &str, columns: &[Column<'_>]) -> Result<()> {
    let definitions: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(n, (definition, _))| format!("c{n} {definition} NULL DEFAULT NULL"))
        .collect();
    let row_count = columns
        .iter()
        .map(|(_, literals)| literals.len() + 1)
        .max()
        .unwrap_or(1);
    let rows: Vec<String> = (0..row_count)
        .map(|row| {
            let values: Vec<&str> = columns
                .iter()
                .map(|(_, literals)| {
                    literals
                        .get(row % (literals.len() + 1))
                        .copied()
                        .unwrap_or("NULL")
                })
                .collect();
            format!(
                "INSERT INTO t ({}) VALUES ({})",
                names(columns.len()),
                values.join(", ")
            )
        })
        .collect();
    let mut conn = stage.source.connect().await?;
    conn.query_drop("SET sql_mode = 'NO_ENGINE_SUBSTITUTION'")
        .await?;
    let create = format!(
        "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, {}) {table_options}",
        definitions.join(", ")
    );
    conn.query_drop(create).await?;
    for row in &rows {
        conn.query_drop(row).await?;
    }
    let mut pipe = running(stage, &["t"]).await?;
    ensure!(stage.assert_same("t").await? == row_count as u64);
    for row in &rows {
        conn.query_drop(row).await?;
    }
    // The same values once more, as the images of updates.
    conn.query_drop(format!(
        "INSERT INTO t ({0}) SELECT {0} FROM t WHERE id <= {row_count}",
        names(columns.len())
    ))
    .await?;
    conn.query_drop(format!(
        "UPDATE t SET id = id + 1000 WHERE id > {}",
        2 * row_count
    ))
    .await?;
    drop(conn);
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    ensure!(stage.assert_same("t").await? == 3 * row_count as u64);
    Ok(())
}

fn names(count: usize) -> String {
    (0..count)
        .map(|n| format!("c{n}"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Pitfalls 8, 9 and 10: signs, three bytes, TINYINT(1), ZEROFILL.
async fn integers_of_every_width(kind: SourceKind) -> Result<()> {
    both_paths(
        kind,
        "",
        &[
            ("TINYINT", &["-128", "-1", "0", "1", "127"]),
            ("TINYINT UNSIGNED", &["0", "128", "255"]),
            ("TINYINT(1)", &["-128", "0", "1", "2", "127"]),
            ("BOOLEAN", &["TRUE", "FALSE", "5"]),
            ("SMALLINT", &["-32768", "-1", "0", "32767"]),
            ("SMALLINT UNSIGNED", &["0", "32768", "65535"]),
            ("MEDIUMINT", &["-8388608", "-1", "0", "1", "8388607"]),
            ("MEDIUMINT UNSIGNED", &["0", "8388608", "16777215"]),
            ("INT", &["-2147483648", "-1", "0", "2147483647"]),
            ("INT UNSIGNED", &["0", "2147483648", "4294967295"]),
            ("INT(8) ZEROFILL", &["0", "42", "4294967295"]),
            (
                "BIGINT",
                &["-9223372036854775808", "-1", "0", "9223372036854775807"],
            ),
            (
                "BIGINT UNSIGNED",
                &["0", "9223372036854775808", "18446744073709551615"],
            ),
        ],
    )
    .await
}

/// Pitfall 11.
async fn decimals_of_every_size(kind: SourceKind) -> Result<()> {
    let nines = "9".repeat(35);
    let fraction = "9".repeat(30);
    let largest = format!("{nines}.{fraction}");
    let smallest = format!("-{nines}.{fraction}");
    let tiny = format!("0.{}1", "0".repeat(29));
    let minus_tiny = format!("-{tiny}");
    let integers = "9".repeat(65);
    let minus_integers = format!("-{integers}");
    both_paths(
        kind,
        "",
        &[
            (
                "DECIMAL(65,30)",
                &[&largest, &smallest, &tiny, &minus_tiny, "0", "1", "-1.5"],
            ),
            (
                "DECIMAL(65,0)",
                &[&integers, &minus_integers, "0", "1000000000", "999999999"],
            ),
            (
                "DECIMAL(30,30)",
                &[
                    "0.000000000000000000000000000001",
                    "-0.999999999999999999999999999999",
                    "0",
                ],
            ),
            (
                "DECIMAL(10,2)",
                &["99999999.99", "-99999999.99", "0.01", "-0.01", "0", "10.10"],
            ),
            ("DECIMAL(9,9)", &["0.999999999", "-0.000000001", "0"]),
            (
                "DECIMAL(18,9)",
                &["999999999.999999999", "-1.000000001", "0"],
            ),
            (
                "DECIMAL(38,10)",
                &[
                    "9999999999999999999999999999.9999999999",
                    "-0.0000000001",
                    "12",
                ],
            ),
            ("DECIMAL(1,0)", &["9", "-9", "0"]),
            ("DECIMAL(12,4) UNSIGNED", &["99999999.9999", "0", "0.0001"]),
            ("NUMERIC", &["1234567890", "-1"]),
        ],
    )
    .await
}

/// Pitfall 12.
async fn floating_point_numbers_keep_every_bit(kind: SourceKind) -> Result<()> {
    both_paths(
        kind,
        "",
        &[
            (
                "FLOAT",
                &[
                    "0",
                    "-0e0",
                    "0.1",
                    "-0.1",
                    "3.4028234e38",
                    "-3.4028234e38",
                    "1.17549435e-38",
                    "1e-45",
                    "16777217",
                    "1234567.8",
                    "0.33333334",
                ],
            ),
            (
                "DOUBLE",
                &[
                    "0",
                    "-0e0",
                    "0.1",
                    "1.7976931348623157e308",
                    "-1.7976931348623157e308",
                    "2.2250738585072014e-308",
                    "5e-324",
                    "9007199254740993",
                    "0.30000000000000004",
                    "1e22",
                    "123456789.12345679",
                ],
            ),
            ("FLOAT(7,3)", &["1234.567", "-0.001", "0"]),
            ("DOUBLE(15,4)", &["12345678901.2345", "-0.0001"]),
            ("FLOAT UNSIGNED", &["0", "1.5"]),
            ("REAL", &["2.718281828459045"]),
        ],
    )
    .await
}

/// Pitfalls 7 and 13.
async fn bits_and_years(kind: SourceKind) -> Result<()> {
    let ones = format!("b'{}'", "1".repeat(64));
    let high = format!("b'1{}'", "0".repeat(63));
    both_paths(
        kind,
        "",
        &[
            ("BIT", &["b'0'", "b'1'"]),
            ("BIT(8)", &["b'0'", "b'10000000'", "b'11111111'"]),
            ("BIT(9)", &["b'0'", "b'100000000'", "b'1'"]),
            ("BIT(33)", &["b'0'", "b'100000000000000000000000000000001'"]),
            ("BIT(64)", &["b'0'", "b'1'", &ones, &high]),
            ("YEAR", &["0", "1901", "1970", "2024", "2155"]),
        ],
    )
    .await
}

/// Pitfalls 3 and 6: dates beyond the range are the nearest in it, times may be negative and longer than a day.
async fn dates_and_times_with_their_extremes(kind: SourceKind) -> Result<()> {
    both_paths(
        kind,
        "",
        &[
            (
                "DATE",
                &[
                    "'1000-01-01'",
                    "'1899-12-31'",
                    "'1900-01-01'",
                    "'1970-01-01'",
                    "'2024-02-29'",
                    "'2299-12-31'",
                    "'2300-01-01'",
                    "'9999-12-31'",
                ],
            ),
            (
                "TIME",
                &[
                    "'-838:59:59'",
                    "'838:59:59'",
                    "'00:00:00'",
                    "'-00:00:01'",
                    "'23:59:59'",
                    "'24:00:00'",
                ],
            ),
            (
                "TIME(1)",
                &["'-00:00:00.1'", "'12:34:56.7'", "'-838:59:58.9'"],
            ),
            (
                "TIME(3)",
                &["'-00:00:00.001'", "'12:34:56.789'", "'-100:00:00.999'"],
            ),
            (
                "TIME(6)",
                &[
                    "'-00:00:00.000001'",
                    "'12:34:56.789012'",
                    "'-838:59:58.999999'",
                    "'838:59:58.999999'",
                    "'-01:00:00.000000'",
                ],
            ),
            (
                "DATETIME",
                &[
                    "'1000-01-01 00:00:00'",
                    "'1969-12-31 23:59:59'",
                    "'1970-01-01 00:00:00'",
                    "'2024-02-29 23:59:59'",
                    "'9999-12-31 23:59:59'",
                    "'1900-01-01 00:00:00'",
                    "'2299-12-31 23:59:59'",
                ],
            ),
            (
                "DATETIME(1)",
                &["'2024-01-01 00:00:00.1'", "'1969-12-31 23:59:59.9'"],
            ),
            ("DATETIME(2)", &["'2024-01-01 00:00:00.12'"]),
            (
                "DATETIME(3)",
                &["'2024-01-01 00:00:00.123'", "'1960-06-01 12:00:00.001'"],
            ),
            ("DATETIME(4)", &["'2024-01-01 00:00:00.1234'"]),
            ("DATETIME(5)", &["'2024-01-01 00:00:00.12345'"]),
            (
                "DATETIME(6)",
                &[
                    "'2024-01-01 00:00:00.123456'",
                    "'1000-01-01 00:00:00.000001'",
                    "'9999-12-31 23:59:59.999999'",
                ],
            ),
            (
                "TIMESTAMP",
                &[
                    "'1970-01-01 00:00:01'",
                    "'2038-01-19 03:14:07'",
                    "'2024-02-29 12:00:00'",
                ],
            ),
            (
                "TIMESTAMP(3)",
                &["'1970-01-01 00:00:01.001'", "'2038-01-19 03:14:07.499'"],
            ),
            (
                "TIMESTAMP(6)",
                &[
                    "'1970-01-01 00:00:01.000001'",
                    "'2038-01-19 03:14:07.499999'",
                ],
            ),
        ],
    )
    .await
}

/// Pitfalls 1 and 2.
async fn zero_and_impossible_dates_are_null(kind: SourceKind) -> Result<()> {
    both_paths(
        kind,
        "",
        &[
            (
                "DATE",
                &[
                    "'0000-00-00'",
                    "'2024-00-00'",
                    "'2024-05-00'",
                    "'2024-01-01'",
                ],
            ),
            (
                "DATETIME",
                &[
                    "'0000-00-00 00:00:00'",
                    "'2024-00-00 00:00:00'",
                    "'2024-05-00 12:30:00'",
                    "'2024-01-01 00:00:00'",
                ],
            ),
            (
                "DATETIME(6)",
                &[
                    "'0000-00-00 00:00:00'",
                    "'0000-00-00 00:00:00.000000'",
                    "'2024-01-01 00:00:00.5'",
                ],
            ),
            (
                "TIMESTAMP",
                &["'0000-00-00 00:00:00'", "'2024-01-01 00:00:00'"],
            ),
            (
                "TIMESTAMP(3)",
                &["'0000-00-00 00:00:00'", "'2024-01-01 00:00:00.5'"],
            ),
        ],
    )
    .await
}

/// Pitfalls 4 and 5: a TIMESTAMP is a moment, a DATETIME a wall clock.
async fn timestamps_are_moments_whatever_the_time_zone(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute("CREATE TABLE t (id INT PRIMARY KEY, ts TIMESTAMP(3) NULL, dt DATETIME(3) NULL)")
        .await?;
    let mut conn = stage.source.connect().await?;
    let insert = |id: u32| {
        format!("INSERT INTO t VALUES ({id}, '2024-07-01 12:00:00.5', '2024-07-01 12:00:00.5')")
    };
    conn.query_drop("SET time_zone = '-07:00'").await?;
    conn.query_drop(insert(1)).await?;
    let mut pipe = running(&stage, &["t"]).await?;
    conn.query_drop(insert(2)).await?;
    conn.query_drop("SET time_zone = '+05:30'").await?;
    conn.query_drop(insert(3)).await?;
    conn.query_drop("SET time_zone = '+00:00'").await?;
    drop(conn);
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    stage.assert_same("t").await?;
    let text = |id: u32| {
        format!(
            "SELECT toString(ts) FROM `{}`.t_current WHERE id = {id}",
            stage.database
        )
    };
    ensure!(stage.clickhouse.query(&text(2)).await? == "2024-07-01 19:00:00.500000");
    ensure!(stage.clickhouse.query(&text(3)).await? == "2024-07-01 06:30:00.500000");
    Ok(())
}

/// Pitfalls 17 and 19.
async fn texts_in_utf8(kind: SourceKind) -> Result<()> {
    let long = format!("REPEAT('aé€😀', {})", 20_000);
    both_paths(
        kind,
        "CHARACTER SET utf8mb4",
        &[
            (
                "CHAR(10)",
                &["''", "'a'", "'ends in  '", "'äöü€😀'", "'0123456789'"],
            ),
            ("CHAR(200)", &["''", "REPEAT('😀', 200)", "'short'"]),
            (
                "VARCHAR(20)",
                &[
                    "''",
                    "'trailing  '",
                    "'日本語テキスト'",
                    "'tab\\tnewline\\nzero\\0end'",
                    "'quote '' \\\\ back'",
                ],
            ),
            ("VARCHAR(255)", &["REPEAT('x', 255)", "''"]),
            ("VARCHAR(256)", &["REPEAT('x', 256)", "'s'"]),
            ("VARCHAR(3000)", &["REPEAT('😀', 3000)", "'s'"]),
            ("TINYTEXT", &["''", "REPEAT('y', 255)"]),
            ("TEXT", &["''", "REPEAT('z', 60000)", "'\\r\\n'"]),
            ("MEDIUMTEXT", &["''", &long]),
            ("LONGTEXT", &["''", &long, "'NULL'"]),
            ("VARCHAR(20) CHARACTER SET utf8mb3", &["'äöü€'", "''"]),
            ("VARCHAR(20) CHARACTER SET ascii", &["'plain'", "''"]),
            ("VARCHAR(20) COLLATE utf8mb4_bin", &["'Binary'", "''"]),
        ],
    )
    .await
}

/// Pitfall 20.
async fn texts_in_other_charsets(kind: SourceKind) -> Result<()> {
    // Bytes 80 to 9F are Windows-1252 in the server's latin1, and five of them nothing at all.
    let all = (0x20..=0xff)
        .map(|byte| format!("{byte:02X}"))
        .collect::<String>();
    let every_byte = format!("_latin1 X'{all}'");
    both_paths(
        kind,
        "CHARACTER SET latin1",
        &[
            (
                "VARCHAR(300)",
                &[
                    &every_byte,
                    "''",
                    "_latin1 X'E9'",
                    "_latin1 X'80'",
                    "'plain'",
                ],
            ),
            (
                "CHAR(20)",
                &["_latin1 X'FC6265722020'", "''", "_latin1 X'819D'"],
            ),
            ("TEXT", &[&every_byte, "''"]),
            ("ENUM('caf\u{e9}', 'th\u{e9}')", &["1", "2"]),
            ("VARCHAR(20) CHARACTER SET ucs2", &["'ä€'", "''"]),
            ("VARCHAR(20) CHARACTER SET utf16", &["'ä€😀'", "''"]),
            ("VARCHAR(20) CHARACTER SET utf16le", &["'ä€😀'", "''"]),
            ("VARCHAR(20) CHARACTER SET utf32", &["'ä€😀'", "''"]),
            ("TEXT CHARACTER SET utf8mb4", &["'ä€😀'", "''"]),
        ],
    )
    .await
}

/// Pitfall 18.
async fn bytes_as_they_are(kind: SourceKind) -> Result<()> {
    both_paths(
        kind,
        "",
        &[
            (
                "BINARY(8)",
                &[
                    "X'0102030000000000'",
                    "X'01'",
                    "X'0000000000000000'",
                    "'ab '",
                    "X'2020202020202020'",
                ],
            ),
            ("BINARY(1)", &["X'00'", "X'20'", "X'FF'"]),
            ("BINARY(255)", &["X'01'", "REPEAT(X'00', 255)"]),
            ("VARBINARY(20)", &["X''", "X'00'", "X'FF00FE00'", "X'2020'"]),
            ("VARBINARY(300)", &["REPEAT(X'00FF', 150)", "X''"]),
            ("TINYBLOB", &["X''", "REPEAT(X'AB', 255)"]),
            ("BLOB", &["X''", "X'C328'", "REPEAT(X'00', 1000)"]),
            ("MEDIUMBLOB", &["X''", "REPEAT(X'FE', 70000)"]),
            ("LONGBLOB", &["X''", "X'00'"]),
            ("CHAR(4) CHARACTER SET binary", &["X'00'", "'a'"]),
            ("VARCHAR(9) CHARACTER SET binary", &["X'FF00'", "X''"]),
        ],
    )
    .await
}

/// Pitfalls 14 and 16.
async fn enums_and_sets(kind: SourceKind) -> Result<()> {
    let many: Vec<String> = (0..300).map(|n| format!("'label {n}'")).collect();
    let many = format!("ENUM({})", many.join(","));
    let wide: Vec<String> = (0..64).map(|n| format!("'m{n}'")).collect();
    let wide = format!("SET({})", wide.join(","));
    both_paths(
        kind,
        "CHARACTER SET utf8mb4",
        &[
            // Index 0 is what a server without strict mode stores for an unknown label.
            (
                "ENUM('a','b','c d','ü','it''s')",
                &["'a'", "'c d'", "'ü'", "5", "'unknown'"],
            ),
            (&many, &["'label 0'", "'label 255'", "'label 299'"]),
            ("ENUM('','x')", &["''", "'x'"]),
            ("SET('a','b','c','ü')", &["''", "'a'", "'a,c'", "'a,b,c,ü'"]),
            (&wide, &["''", "'m0'", "'m63'", "'m0,m31,m32,m63'"]),
            ("SET('one')", &["''", "'one'"]),
        ],
    )
    .await
}
