//! Types that only MariaDB has, and its older ways of storing those that all have.

use anyhow::{Result, ensure};
use mysql_async::prelude::Queryable;
use serde_json::json;
use testbed::SourceKind;
use testbed::harness::Stage;

use super::families::{Column, Family};
use super::{both_paths, both_paths_on};
use crate::support::{
    CATCH_UP, assert_caught_up, on_both_mariadbs, once, plugins, running, running_with,
};

once! {
    timestamps_reach_2106_on_mariadb_11: 240,
}

on_both_mariadbs! {
    uuids_of_every_version: 240,
    addresses_of_both_families: 240,
    a_uuid_may_be_the_key: 240,
    keys_of_uuids_and_addresses_are_cut_and_completed: 300,
    plugins_see_the_text_of_uuids_and_addresses: 300,
    compressed_columns_arrive_plain: 240,
    times_in_the_layouts_of_before_10_1: 240,
    oracle_mode_has_other_names_for_the_same_types: 240,
}

/// Pitfall 33.
async fn uuids_of_every_version(kind: SourceKind) -> Result<()> {
    both_paths(
        kind,
        "",
        &[(
            "UUID",
            &[
                "'00000000-0000-0000-0000-000000000000'",
                "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
                // Versions 1 to 8; the server keeps 1 to 5 in another order of bytes.
                "'a0eebc99-9c0b-11ee-8000-0242ac120002'",
                "'01020304-0506-2708-a908-0a0b0c0d0e0f'",
                "'01020304-0506-3708-8908-0a0b0c0d0e0f'",
                "'f47ac10b-58cc-4372-a567-0e02b2c3d479'",
                "'01020304-0506-5708-8908-0a0b0c0d0e0f'",
                "'1ee9c0b0-ebc9-69a0-8000-0242ac120002'",
                "'018e6f3c-7b2a-7c3d-9e4f-001122334455'",
                "'01020304-0506-8708-8908-0a0b0c0d0e0f'",
                // Zeros at the end, which row images leave out, and at the front.
                "'f47ac10b-58cc-4372-a567-0e02b2c30000'",
                "'a0eebc99-9c0b-11ee-8000-000000000000'",
                "'00000000-0000-4000-8000-000000000001'",
                // A variant of before RFC 4122.
                "'01020304-0506-1708-1908-0a0b0c0d0e0f'",
                "UUID()",
            ],
        )],
    )
    .await
}

/// Pitfall 33.
async fn addresses_of_both_families(kind: SourceKind) -> Result<()> {
    both_paths(
        kind,
        "",
        &[
            (
                "INET4",
                &[
                    "'0.0.0.0'",
                    "'1.2.3.4'",
                    "'192.168.1.0'",
                    "'255.255.255.255'",
                    "'10.0.0.0'",
                ],
            ),
            (
                "INET6",
                &[
                    "'::'",
                    "'::1'",
                    "'2001:db8::1'",
                    "'::ffff:1.2.3.4'",
                    "'::1.2.3.4'",
                    "'1:0:2:3:4:5:6:7'",
                    "'fe80::'",
                    "'ff02::1:ff00:0'",
                    "'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'",
                ],
            ),
        ],
    )
    .await
}

async fn a_uuid_may_be_the_key(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    let types = |stage: &Stage| {
        let sql = format!(
            "SELECT arrayStringConcat(groupArray(type), ',') FROM (SELECT type FROM system.columns \
             WHERE database = '{}' AND table = 't' AND name IN ('id', 'a', 'b') ORDER BY position)",
            stage.database
        );
        let clickhouse = stage.clickhouse.clone();
        async move { clickhouse.query(&sql).await }
    };
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id UUID PRIMARY KEY, a INET4 NOT NULL, b INET6, n INT)",
            "INSERT INTO t SELECT UUID(), '10.0.0.0', '::', seq FROM seq_1_to_500",
        ])
        .await?;
    let mut pipe = running(&stage, &["t"]).await?;
    ensure!(types(&stage).await? == "UUID,IPv4,Nullable(IPv6)");
    stage
        .source
        .execute_all([
            "INSERT INTO t SELECT UUID(), '10.0.0.1', '::2', seq FROM seq_501_to_600",
            "UPDATE t SET n = -n WHERE n % 3 = 0",
            "UPDATE t SET id = '018e6f3c-7b2a-7c3d-9e4f-001122330000' WHERE n = 7",
            "DELETE FROM t WHERE n % 5 = 0",
        ])
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    stage.assert_same("t").await.map(drop)
}

/// Pitfalls 33 and 124: the server sorts UUIDs by their last group first, but for those of version 6 and later.
async fn keys_of_uuids_and_addresses_are_cut_and_completed(kind: SourceKind) -> Result<()> {
    const RANDOM: &str =
        "CONCAT(LEFT(MD5(seq), 12), '4', SUBSTR(MD5(seq), 14, 3), 'a', SUBSTR(MD5(seq), 18))";
    const BY_TIME: &str = "CONCAT(LPAD(HEX(1700000000000 + seq * 1000), 12, '0'), '7', SUBSTR(MD5(seq), 14, 3), '9', \
         SUBSTR(MD5(seq), 18))";
    let stage = Stage::shared(kind).await?;
    let keys = [
        ("random", "UUID", RANDOM.to_owned(), "UUID()"),
        (
            "by_time",
            "UUID",
            BY_TIME.to_owned(),
            "'018e6f3c-7b2a-7c3d-9e4f-001122330000'",
        ),
        (
            "by_clock",
            "UUID",
            "UUID()".to_owned(),
            "'f47ac10b-58cc-4372-a567-0e02b2c30000'",
        ),
        (
            "mixed",
            "UUID",
            format!("IF(seq % 2, {RANDOM}, {BY_TIME})"),
            "UUID()",
        ),
        (
            "v4",
            "INET4",
            "INET_NTOA(seq * 1400000)".to_owned(),
            "'255.255.0.0'",
        ),
        (
            "v6",
            "INET6",
            "CONCAT('2001:db8:', HEX(seq), '::', HEX(seq % 7))".to_owned(),
            "'fe80::'",
        ),
    ];
    let mut tables = Vec::new();
    for (name, column, key, _) in &keys {
        for (suffix, order) in [("", "k"), ("_pair", "n, k")] {
            let table = format!("{name}{suffix}");
            stage
                .source
                .execute_all([
                    format!("CREATE TABLE {table} (k {column} NOT NULL, n INT NOT NULL, w VARCHAR(9) DEFAULT 'd', PRIMARY KEY ({order}))"),
                    format!("INSERT INTO {table} (k, n) SELECT {key}, seq % 4 FROM seq_1_to_3000"),
                    format!("ANALYZE TABLE {table}"),
                ])
                .await?;
            tables.push(table);
        }
    }
    let names: Vec<&str> = tables.iter().map(String::as_str).collect();
    let mut file = stage.pipe_file(&names);
    file["row_image"] = json!("complete");
    file["snapshot"] = json!({ "rows_per_partition": 400 });
    let mut pipe = running_with(&file).await?;
    let status = pipe.status().await?;
    for table in &tables {
        let source = format!("{}.{table}", stage.database);
        let mut shown = status["tables"].as_array().into_iter().flatten();
        let shown = shown.find(|shown| shown["source"] == source.as_str());
        let total = shown.and_then(|shown| shown["snapshot"]["partitions_total"].as_u64());
        ensure!(total >= Some(5), "{table}: {shown:?}");
        ensure!(stage.assert_same(table).await? == 3000, "{table}");
    }
    let mut conn = stage.source.connect().await?;
    conn.query_drop("SET SESSION binlog_row_image = 'MINIMAL'")
        .await?;
    for (name, _, _, other) in &keys {
        for suffix in ["", "_pair"] {
            for statement in [
                "UPDATE {table} SET w = 'changed' WHERE n = 1",
                "DELETE FROM {table} WHERE n = 2 LIMIT 100",
                "UPDATE {table} SET k = {other} WHERE n = 3 LIMIT 1",
                "UPDATE {table} SET w = NULL WHERE k = {other}",
            ] {
                let statement = statement
                    .replace("{table}", &format!("{name}{suffix}"))
                    .replace("{other}", other);
                conn.query_drop(statement).await?;
            }
        }
    }
    drop(conn);
    assert_caught_up(&stage, &mut pipe, &names).await
}

/// A filter by the text of one column, a mask over another, and a third that passes untouched beside them.
async fn plugins_see_the_text_of_uuids_and_addresses(kind: SourceKind) -> Result<()> {
    let plugins = plugins().await?;
    let stage = Stage::shared(kind).await?;
    let rows = |first: u32| {
        format!(
            "INSERT INTO t VALUES ({first}, 'f47ac10b-58cc-4372-a567-0e02b2c30000', '10.0.0.0', '2001:db8::'), \
             ({}, '00000000-0000-0000-0000-000000000000', '10.0.0.0', '::1'), \
             ({}, 'f47ac10b-58cc-4372-a567-0e02b2c30000', NULL, NULL)",
            first + 1,
            first + 2
        )
    };
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, u UUID, a INET4, b INET6)".to_owned(),
            rows(1),
        ])
        .await?;
    let mut file = stage.pipe_file_of(vec![json!({
        "source": format!("{}.t", stage.database),
        "transforms": ["one_owner", "hide"],
    })]);
    file["transforms"]["one_owner"] = json!({
        "plugin": plugins.path("filter"),
        "config": { "where": "u = 'f47ac10b-58cc-4372-a567-0e02b2c30000'" },
    });
    file["transforms"]["hide"] = json!({
        "plugin": plugins.path("mask"),
        "config": { "columns": ["a"], "method": "sha256", "salt": "pepper" },
    });
    let mut pipe = running_with(&file).await?;
    stage.source.execute(rows(11)).await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let shown = stage
        .clickhouse
        .query(&format!(
            "SELECT id, toTypeName(u), a = lower(hex(SHA256('pepper10.0.0.0'))), toTypeName(a), b \
             FROM `{}`.t_current ORDER BY id",
            stage.database
        ))
        .await?;
    let row = |id: u32, hidden: &str, address: &str| {
        format!("{id}\tNullable(UUID)\t{hidden}\tNullable(String)\t{address}")
    };
    let expected = [
        row(1, "1", "2001:db8::"),
        row(3, "\\N", "\\N"),
        row(11, "1", "2001:db8::"),
        row(13, "\\N", "\\N"),
    ];
    ensure!(shown == expected.join("\n"), "{shown}");
    Ok(())
}

/// Pitfall 34.
async fn compressed_columns_arrive_plain(kind: SourceKind) -> Result<()> {
    let noise = "CONCAT(UUID(), UUID(), UUID(), UUID())";
    both_paths(
        kind,
        "CHARACTER SET utf8mb4",
        &[
            ("VARCHAR(50) COMPRESSED", &["''", "'short'", "'äöü€😀'"]),
            (
                "VARCHAR(3000) COMPRESSED",
                &["REPEAT('😀', 3000)", "''", noise],
            ),
            ("TINYTEXT COMPRESSED", &["REPEAT('f', 255)", "'x'"]),
            ("TEXT COMPRESSED", &["REPEAT('b', 200)", "''", noise]),
            ("MEDIUMTEXT COMPRESSED", &["REPEAT('ab', 70000)", "'m'"]),
            ("LONGTEXT COMPRESSED", &["REPEAT('日本', 50000)", "'l'"]),
            (
                "VARCHAR(300) COMPRESSED CHARACTER SET latin1",
                &["REPEAT('é', 300)", "'ü'"],
            ),
            (
                "VARBINARY(1000) COMPRESSED",
                &["REPEAT(X'00FF', 500)", "X''", "X'00'"],
            ),
            ("TINYBLOB COMPRESSED", &["REPEAT(X'01', 250)"]),
            ("BLOB COMPRESSED", &["REPEAT(X'FE', 60000)", "X'C328'"]),
            (
                "LONGBLOB COMPRESSED",
                &["REPEAT(X'00', 300000)", "X'000000'"],
            ),
        ],
    )
    .await?;
    // The other kind of stream.
    let stage = Stage::shared(kind).await?;
    let mut conn = stage.source.connect().await?;
    conn.query_drop("SET column_compression_zlib_wrap = ON")
        .await?;
    conn.query_drop("CREATE TABLE wrapped (id INT PRIMARY KEY, c TEXT COMPRESSED)")
        .await?;
    let mut pipe = running(&stage, &["wrapped"]).await?;
    conn.query_drop("INSERT INTO wrapped VALUES (1, REPEAT('wrapped ', 400)), (2, 'plain')")
        .await?;
    drop(conn);
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    stage.assert_same("wrapped").await.map(drop)
}

/// Pitfalls 35 and 36: with a fraction MariaDB's own layouts, without one those of everyone before MySQL 5.6.
async fn times_in_the_layouts_of_before_10_1(kind: SourceKind) -> Result<()> {
    // The setting is global, so the server is one's own.
    let stage = Stage::with_source(move || {
        let options = testbed::SourceOptions::new(kind).arg("--mysql56-temporal-format=OFF");
        testbed::SourceServer::start(options)
    })
    .await?;
    let times = [
        "'-838:59:59'",
        "'838:59:59'",
        "'00:00:00'",
        "'-00:00:01'",
        "'12:34:56.789123'",
        "'-00:00:00.999999'",
        "'838:59:58.999999'",
        "'-838:59:58.999999'",
    ];
    let moments = [
        "'1000-01-01 00:00:00'",
        "'1969-12-31 23:59:59.999999'",
        "'2024-02-29 12:34:56.789123'",
        "'9999-12-31 23:59:59.999999'",
        "'0000-00-00 00:00:00'",
        "'2024-00-00 00:00:00'",
        "'2024-05-00 12:30:00.5'",
    ];
    let stamps = [
        "'1970-01-01 00:00:01'",
        "'2024-02-29 12:34:56.789123'",
        "'2038-01-19 03:14:07.499999'",
        "'0000-00-00 00:00:00'",
    ];
    let definitions: Vec<(String, &[&str])> = ["TIME", "DATETIME", "TIMESTAMP"]
        .iter()
        .zip([&times[..], &moments[..], &stamps[..]])
        .flat_map(|(name, literals)| {
            (0..=6).map(move |digits| (format!("{name}({digits})"), literals))
        })
        .collect();
    let columns: Vec<Column<'_>> = definitions
        .iter()
        .map(|(definition, literals)| (definition.as_str(), *literals))
        .collect();
    both_paths_on(&stage, &[Family::of("", &columns)]).await?;
    let marked = stage
        .source
        .number(
            "SELECT COUNT(*) FROM information_schema.columns WHERE table_schema = DATABASE() \
             AND table_name = 't' AND column_type LIKE '%mariadb-5.3%'",
        )
        .await?;
    ensure!(marked == 21, "{marked} columns have the old layout");
    drop(stage);
    old_times_as_keys(kind).await
}

/// Rows whose images lack columns are read by keys in these layouts (pitfalls 35 and 121).
async fn old_times_as_keys(kind: SourceKind) -> Result<()> {
    let stage = Stage::with_source(move || {
        let options = testbed::SourceOptions::new(kind).arg("--mysql56-temporal-format=OFF");
        testbed::SourceServer::start(options)
    })
    .await?;
    let row = |second: u32| {
        format!(
            "INSERT INTO t VALUES ('2024-02-29 12:34:{second}.5', '-00:00:{second}.25', '2024-02-29 12:34:{second}.000001', \
             '1000-01-01 00:00:{second}', 1, 'a note')"
        )
    };
    stage
        .source
        .execute_all([
            "CREATE TABLE t (a DATETIME(3), b TIME(2), c TIMESTAMP(6), d DATETIME, n INT, note TEXT, \
             PRIMARY KEY (a, b, c, d))"
                .to_owned(),
            row(10),
            row(11),
        ])
        .await?;
    let mut file = stage.pipe_file(&["t"]);
    file["row_image"] = json!("complete");
    let mut pipe = running_with(&file).await?;
    let minimal = "SET SESSION binlog_row_image = 'MINIMAL'".to_owned();
    stage
        .source
        .execute_all([
            minimal,
            row(12),
            "UPDATE t SET n = 2".to_owned(),
            "UPDATE t SET b = '838:59:58.75' WHERE c < '2024-02-29 12:34:11'".to_owned(),
        ])
        .await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    ensure!(stage.assert_same("t").await? == 3);
    Ok(())
}

/// Pitfall 4: four bytes without a sign.
async fn timestamps_reach_2106_on_mariadb_11() -> Result<()> {
    both_paths(
        SourceKind::MariaDb11,
        "",
        &[
            (
                "TIMESTAMP",
                &["'2038-01-19 03:14:08'", "'2106-02-07 06:28:15'"],
            ),
            (
                "TIMESTAMP(6)",
                &[
                    "'2038-01-19 03:14:08.000001'",
                    "'2106-02-07 06:28:15.999999'",
                ],
            ),
        ],
    )
    .await
}

/// Pitfall 37.
async fn oracle_mode_has_other_names_for_the_same_types(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    let mut conn = stage.source.connect().await?;
    conn.query_drop("SET sql_mode = 'ORACLE'").await?;
    conn.query_drop(
        "CREATE TABLE t (id NUMBER(10) PRIMARY KEY, a NUMBER, b VARCHAR2(20), c CLOB, d RAW(16), e DATE, \
         f BLOB, g NUMBER(10,2))",
    )
    .await?;
    let insert = |id: u32| {
        format!(
            "INSERT INTO t VALUES ({id}, 2.5, 'text', 'long text', 'raw', '2024-02-29 12:34:56', 'bytes', -1.25), \
             ({}, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
            id + 1
        )
    };
    conn.query_drop(insert(1)).await?;
    let mut pipe = running(&stage, &["t"]).await?;
    conn.query_drop(insert(3)).await?;
    drop(conn);
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    ensure!(stage.assert_same("t").await? == 4);
    Ok(())
}
