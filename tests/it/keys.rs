//! Keys of every kind, and names of every kind: what tells rows apart, and what tells tables apart.

use anyhow::{Result, ensure};
use mysql_async::prelude::Queryable;
use rand::Rng;
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{Comparison, Stage};

use crate::support::{
    CATCH_UP, START, Seed, assert_caught_up, launch, on_both_sources, once, running_with, start,
};

on_both_sources! {
    keys_of_every_kind_are_cut_loaded_and_followed: 400,
    text_keys_are_cut_and_told_apart_whatever_their_collation: 400,
    what_is_deleted_while_it_is_loaded_stays_deleted: 400,
    a_table_without_a_primary_key_goes_by_its_unique_key: 300,
    names_of_every_kind_are_quoted_at_both_ends: 400,
}

once! {
    sorting_and_partition_keys_leave_one_row_of_each: 300,
}

/// Partitions of few rows, several tables at once.
fn cut_small(stage: &Stage, tables: &[&str], rows: u32) -> Value {
    let mut file = stage.pipe_file(tables);
    file["snapshot"] = json!({ "rows_per_partition": rows, "tables_in_parallel": 3 });
    file
}

/// pitfall 18, pitfall 117, pitfall 118, pitfall 120, pitfall 121, pitfall 123, pitfall 124, pitfall 129: cut into
/// partitions of two rows; then every row is changed in place, which doubles it where load and stream do not give the
/// same key; then moved about, several rows of one statement onto keys that others have just left.
async fn keys_of_every_kind_are_cut_loaded_and_followed(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE labels (k ENUM('zebra', 'ape', 'mule', 'bee', 'cow', 'asp'), n INT, PRIMARY KEY (k))",
            "INSERT INTO labels VALUES ('zebra', 1), ('ape', 2), ('mule', 3), ('bee', 4), ('cow', 5)",
            "CREATE TABLE fronts (k TEXT NOT NULL, n INT, PRIMARY KEY (k(4)))",
            "INSERT INTO fronts VALUES ('aaaa-1', 1), ('bbbb-2', 2), ('cc', 3), ('', 4), ('dddd''\\\\', 5)",
            "CREATE TABLE bytes (k BINARY(4) PRIMARY KEY, n INT)",
            "INSERT INTO bytes VALUES (X'01', 1), (X'0100FF00', 2), (X'00', 3), (X'FF', 4), (X'5C27', 5)",
            "CREATE TABLE words (k VARCHAR(20) PRIMARY KEY, n INT)",
            "INSERT INTO words VALUES ('a', 1), ('Ä b', 2), ('STRASSE', 3), ('z ', 4), ('it''s \\\\', 5), ('?', 6)",
            "CREATE TABLE sparse (tenant INT UNSIGNED, id BIGINT UNSIGNED, n INT, PRIMARY KEY (tenant, id))",
            "INSERT INTO sparse VALUES (1, 1, 1), (1, 18446744073709551615, 2), (1, 9223372036854775808, 3), \
             (4294967295, 1, 4), (2, 7, 5)",
            "CREATE TABLE far (k BIGINT PRIMARY KEY, n INT)",
            "INSERT INTO far VALUES (-9223372036854775808, 1), (-3, 2), (-2, 3), (-1, 4), (0, 5), (1, 6), \
             (9007199254740993, 7), (9223372036854775806, 8)",
            "CREATE TABLE moments (k DATETIME(3), d DECIMAL(20,5), n INT, PRIMARY KEY (k, d))",
            "INSERT INTO moments VALUES ('2024-01-01', -1.5, 1), ('2024-01-01', 1.5, 2), ('2024-01-01 00:00:00.001', 0, 3), \
             ('1970-01-01', 99999999999999.99999, 4)",
        ])
        .await?;
    let tables = [
        "labels", "fronts", "bytes", "words", "sparse", "far", "moments",
    ];
    let mut pipe = running_with(&cut_small(&stage, &tables, 2)).await?;
    assert_caught_up(&stage, &mut pipe, &tables).await?;
    for table in tables {
        let in_place = format!("UPDATE `{table}` SET n = n + 100");
        stage.source.execute(in_place).await?;
    }
    assert_caught_up(&stage, &mut pipe, &tables).await?;
    stage
        .source
        .execute_all([
            "UPDATE labels SET k = 'asp' WHERE k = 'ape'",
            "UPDATE labels SET k = k - 1 WHERE n IN (103, 104, 105) ORDER BY k",
            "UPDATE fronts SET k = CONCAT(k, ' and more') WHERE n < 103",
            "UPDATE fronts SET k = UPPER(k) WHERE n = 105",
            "UPDATE bytes SET k = CONCAT(SUBSTR(k, 1, 1), X'01') WHERE n IN (101, 104)",
            "DELETE FROM bytes WHERE k = X'00000000'",
            "UPDATE words SET k = 'A' WHERE k = 'a'",
            "UPDATE words SET k = 'z' WHERE n = 104",
            "UPDATE words SET k = 'Straße' WHERE n = 103",
            "REPLACE INTO words VALUES ('ä B', 20)",
            "UPDATE sparse SET id = id - 1 WHERE tenant = 1 AND id > 1 ORDER BY id",
            "UPDATE sparse SET tenant = 4294967295 - tenant ORDER BY tenant",
            "UPDATE far SET k = k + 1 ORDER BY k DESC",
            "UPDATE far SET k = k - 1 WHERE k BETWEEN -5 AND 5 ORDER BY k",
            "UPDATE moments SET k = k + INTERVAL 1 DAY ORDER BY k DESC, d DESC",
            "UPDATE moments SET d = d - 3 ORDER BY d",
        ])
        .await?;
    assert_caught_up(&stage, &mut pipe, &tables).await
}

/// Words that collations sort and equate in ways of their own; tabs sort below the spaces that are padded with. Letters
/// of Latin 1 alone, so that every charset has them.
const LETTERS: [&str; 18] = [
    "a", "A", "ä", "Ä", "á", "s", "S", "ß", "ss", "z", "i", "I", "ñ", " ", "\t", "''", "\\\\", "%_",
];

/// pitfall 118, pitfall 122: the server's own comparison cuts the table; which rows are one is told by their bytes.
async fn text_keys_are_cut_and_told_apart_whatever_their_collation(kind: SourceKind) -> Result<()> {
    let seed = Seed::new("text_keys_are_cut_and_told_apart_whatever_their_collation");
    let stage = Stage::shared(kind).await?;
    let tables = [
        ("german", "latin1", "latin1_german2_ci"),
        ("swedish", "latin1", "latin1_swedish_ci"),
        ("binary_text", "utf8mb4", "utf8mb4_bin"),
        ("turkish", "utf8mb4", "utf8mb4_turkish_ci"),
        ("spanish", "utf8mb4", "utf8mb4_spanish2_ci"),
        ("wide", "utf16", "utf16_unicode_ci"),
    ];
    for (number, (table, charset, collation)) in tables.iter().enumerate() {
        let mut random = seed.generator(number as u64);
        let mut word = || -> String {
            let length = random.random_range(0..6);
            (0..length)
                .map(|_| LETTERS[random.random_range(0..LETTERS.len())])
                .collect()
        };
        let rows: Vec<String> = (0..400)
            .map(|n| format!("('{}', '{}', {n})", word(), word()))
            .collect();
        stage
            .source
            .execute_all([
                format!(
                    "CREATE TABLE {table} (k VARCHAR(40) NOT NULL, l VARCHAR(40) NOT NULL, n INT, PRIMARY KEY (k, l)) \
                     CHARACTER SET {charset} COLLATE {collation}"
                ),
                format!("INSERT IGNORE INTO {table} VALUES {}", rows.join(", ")),
            ])
            .await?;
    }
    let names = tables.map(|(table, _, _)| table);
    let mut pipe = running_with(&cut_small(&stage, &names, 20)).await?;
    assert_caught_up(&stage, &mut pipe, &names).await?;
    for table in names {
        stage
            .source
            .execute_all([
                format!("UPDATE {table} SET n = n + 1000"),
                format!("UPDATE IGNORE {table} SET k = UPPER(k) WHERE n % 3 = 0"),
                format!(
                    "UPDATE IGNORE {table} SET k = CONCAT(k, ' '), l = LOWER(l) WHERE n % 3 = 1"
                ),
                format!("UPDATE IGNORE {table} SET k = REPLACE(k, 'ä', 'a') WHERE n % 4 = 0"),
                format!("UPDATE IGNORE {table} SET k = l, l = k WHERE n % 5 = 0"),
                format!("DELETE FROM {table} WHERE n % 7 = 0"),
            ])
            .await?;
    }
    assert_caught_up(&stage, &mut pipe, &names).await
}

/// pitfall 127: rows that a partition has brought and rows that one still will, deleted, moved between the two, and put
/// back; the pipe stands still in mid-load for a part of it. pitfall 128: a delete counts whether its row was read before
/// it, would have been read after it, or lies in a partition that is read at another time: its tombstone outranks a load.
async fn what_is_deleted_while_it_is_loaded_stays_deleted(kind: SourceKind) -> Result<()> {
    // More than go out in one insert, so that the first partitions are done before the last are read.
    const ROWS: u32 = 800_000;
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, n INT)".to_owned(),
            "CREATE TABLE digits (d INT PRIMARY KEY)".to_owned(),
            "INSERT INTO digits VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)".to_owned(),
            "INSERT INTO t SELECT a.d + 10 * b.d + 100 * c.d + 1000 * d.d + 10000 * e.d, 0 \
             FROM digits a, digits b, digits c, digits d, digits e"
                .to_owned(),
            "INSERT INTO t SELECT id + 100000, 0 FROM t".to_owned(),
            "INSERT INTO t SELECT id + 200000, 0 FROM t".to_owned(),
            "INSERT INTO t SELECT id + 400000, 0 FROM t".to_owned(),
            "ANALYZE TABLE t".to_owned(),
        ])
        .await?;
    let mut file = stage.pipe_file(&["t"]);
    file["snapshot"] = json!({ "rows_per_partition": 20, "threads_per_table": 1 });
    let mut pipe = start(launch(&file))?;
    pipe.wait_for("a load under way", START, |status| {
        status["tables"][0]["snapshot"]["partitions_done"].as_u64() > Some(2)
    })
    .await?;
    let (code, answer) = pipe.command("pause").await?;
    ensure!(code == 200, "{answer:#}");
    let paused = pipe.wait_state("Paused", CATCH_UP).await?;
    let snapshot = &paused["tables"][0]["snapshot"];
    ensure!(
        snapshot["partitions_done"].as_u64() < snapshot["partitions_total"].as_u64(),
        "nothing was left to load: {snapshot}"
    );
    stage
        .source
        .execute_all([
            "DELETE FROM t WHERE id % 4 IN (0, 1)".to_owned(),
            format!("UPDATE t SET id = id + {ROWS} WHERE id % 100 = 2 AND id < {ROWS}"),
            format!("UPDATE t SET id = -id WHERE id % 100 = 3 AND id > {ROWS} - 50000"),
            "INSERT INTO t SELECT id - 2, 1 FROM t WHERE id % 100 = 6 AND id > 0".to_owned(),
        ])
        .await?;
    let (code, answer) = pipe.command("resume").await?;
    ensure!(code == 200, "{answer:#}");
    pipe.wait_for("more of the load", START, |status| {
        status["state"] == "Snapshot" || status["state"] == "Running"
    })
    .await?;
    stage
        .source
        .execute("DELETE FROM t WHERE id % 8 = 7")
        .await?;
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    // Merged by ClickHouse, what was deleted does not come back.
    let merge = format!("OPTIMIZE TABLE `{}`.t FINAL", stage.database);
    stage.clickhouse.query(&merge).await?;
    stage.assert_same("t").await.map(drop)
}

/// pitfall 133: what can be NULL does not sort, what is outside of the key does not part, and a reader whose profile
/// would compare within partitions only sees one row of each all the same.
async fn sorting_and_partition_keys_leave_one_row_of_each() -> Result<()> {
    let stage = Stage::shared(SourceKind::MySql).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (tenant INT NOT NULL, id INT PRIMARY KEY, day DATE NULL, n INT NOT NULL)",
            "INSERT INTO t VALUES (1, 1, '2024-01-01', 1), (2, 2, NULL, 2), (3, 3, '2024-01-03', 3), (4, 4, NULL, 4)",
        ])
        .await?;
    let entry = |more: Value| {
        let mut entry = json!({ "source": format!("{}.t", stage.database) });
        let keys = more.as_object().cloned().unwrap_or_default();
        entry.as_object_mut().expect("a map").extend(keys);
        stage.pipe_file_of(vec![entry])
    };
    for (more, named) in [
        (
            json!({ "order_by": ["day", "id"] }),
            "`day`, which can be NULL",
        ),
        (
            json!({ "partition_by": "toYYYYMM(day)" }),
            "`day`, which is not in `order_by`",
        ),
        (
            json!({ "partition_by": "n % 2" }),
            "`n`, which is not in `order_by`",
        ),
    ] {
        let mut pipe = start(launch(&entry(more)))?;
        let code = pipe.wait_exit(START).await?;
        let said = pipe.log().tail();
        ensure!(code == 1 && said.contains(named), "{code}: {said}");
    }
    let by_tenant = json!({ "order_by": ["tenant", "id"], "partition_by": "tenant % 4" });
    let mut pipe = running_with(&entry(by_tenant)).await?;
    stage
        .source
        .execute_all([
            "UPDATE t SET tenant = tenant + 1 ORDER BY tenant DESC",
            "UPDATE t SET n = n + 1",
        ])
        .await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    let count = format!(
        "SELECT count() FROM `{}`.t_current SETTINGS do_not_merge_across_partitions_select_final = 1",
        stage.database
    );
    ensure!(stage.clickhouse.number(&count).await? == 4);
    Ok(())
}

/// pitfall 112, pitfall 114: keywords, quotes, dashes, question marks, spaces, 64 characters, twins that differ in case;
/// in statements of sessions whose modes give quotes and backslashes another meaning.
async fn names_of_every_kind_are_quoted_at_both_ends(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    let long = "n".repeat(64);
    let names = [
        "select",
        "it's",
        "a`b",
        "dash-ed",
        "what?",
        "two words",
        "Twin",
        "twin",
        "back\\slash",
        &long,
    ];
    let quoted = |name: &str| format!("`{}`", name.replace('`', "``"));
    let mut entries = Vec::new();
    for name in names {
        let table = quoted(name);
        stage
            .source
            .execute_all([
                format!("CREATE TABLE {table} (`primary key` INT PRIMARY KEY, `a``b` INT, `it's?` VARCHAR(20))"),
                format!("INSERT INTO {table} VALUES (1, 1, 'x'), (2, 2, NULL)"),
            ])
            .await?;
        entries.push(json!({ "source": { "database": stage.database, "table": name } }));
    }
    let mut pipe = running_with(&stage.pipe_file_of(entries)).await?;
    assert_caught_up(&stage, &mut pipe, &names).await?;
    let mut conn = stage.source.connect().await?;
    conn.query_drop("SET sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES'")
        .await?;
    for name in names {
        let table = format!("\"{}\"", name.replace('"', "\"\""));
        for statement in [
            format!("INSERT INTO {table} VALUES (3, 3, 'back\\')"),
            format!(
                "ALTER TABLE {table} COMMENT 'a \\', ADD COLUMN \"new-one\" INT DEFAULT 4, RENAME COLUMN \"a`b\" TO \"?\""
            ),
            format!("UPDATE {table} SET \"?\" = 9, \"new-one\" = NULL WHERE \"primary key\" = 2"),
        ] {
            conn.query_drop(&statement).await?;
        }
    }
    assert_caught_up(&stage, &mut pipe, &names).await?;
    conn.query_drop("TRUNCATE TABLE \"Twin\"").await?;
    conn.query_drop("DROP TABLE \"it's\"").await?;
    drop(conn);
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    ensure!(stage.assert_same("Twin").await? == 0 && stage.assert_same("twin").await? == 3);
    let left: Vec<&str> = names
        .iter()
        .copied()
        .filter(|name| *name != "it's")
        .collect();
    assert_caught_up(&stage, &mut pipe, &left).await
}

/// pitfall 119: and when the index that was the key goes, the table does not go on as if it were there.
async fn a_table_without_a_primary_key_goes_by_its_unique_key(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (a INT NOT NULL, b VARCHAR(10) NOT NULL, n INT, UNIQUE KEY u (b, a), UNIQUE KEY w (n))",
            "INSERT INTO t VALUES (1, 'x', 1), (1, 'y', NULL), (2, 'x', NULL)",
        ])
        .await?;
    let mut pipe = running_with(&stage.pipe_file(&["t"])).await?;
    stage
        .source
        .execute_all([
            "UPDATE t SET a = a + 1 ORDER BY a DESC",
            "DELETE FROM t WHERE n = 1",
        ])
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    stage.assert(Comparison::of("t").by(&["a", "b"])).await?;
    stage
        .source
        .execute_all(["DROP INDEX u ON t", "INSERT INTO t VALUES (3, 'x', 7)"])
        .await?;
    let status = pipe.wait_state("Degraded", CATCH_UP).await?;
    ensure!(
        status["reasons"]
            .to_string()
            .contains("neither a primary key nor a unique key"),
        "{status:#}"
    );
    // With another key it comes back by a load.
    stage
        .source
        .execute("ALTER TABLE t ADD COLUMN id INT AUTO_INCREMENT PRIMARY KEY")
        .await?;
    let (code, answer) = pipe
        .order(json!({ "command": "resync", "table": format!("{}.t", stage.database) }))
        .await?;
    ensure!(code == 200, "{answer:#}");
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await
}
