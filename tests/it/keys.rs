//! Keys of every kind, and names of every kind: what tells rows apart, and what tells tables apart.

use anyhow::{Result, ensure};
use mysql_async::prelude::Queryable;
use serde_json::json;
use testbed::SourceKind;
use testbed::harness::{Comparison, Stage};

use crate::support::{CATCH_UP, assert_caught_up, on_both_sources, running_with};

on_both_sources! {
    keys_of_every_kind_are_cut_loaded_and_followed: 400,
    names_of_every_kind_are_quoted_at_both_ends: 400,
    a_table_without_a_primary_key_goes_by_its_unique_key: 300,
}

/// pitfall 18, pitfall 117, pitfall 118, pitfall 120, pitfall 121, pitfall 122, pitfall 123, pitfall 124: cut into
/// partitions of two rows, then moved about, several rows of one statement onto keys that others have just left.
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
            "CREATE TABLE moments (k DATETIME(3), d DECIMAL(20,5), n INT, PRIMARY KEY (k, d))",
            "INSERT INTO moments VALUES ('2024-01-01', -1.5, 1), ('2024-01-01', 1.5, 2), ('2024-01-01 00:00:00.001', 0, 3), \
             ('1970-01-01', 99999999999999.99999, 4)",
        ])
        .await?;
    let tables = ["labels", "fronts", "bytes", "words", "sparse", "moments"];
    let mut file = stage.pipe_file(&tables);
    file["snapshot"] = json!({ "rows_per_partition": 2, "tables_in_parallel": 3 });
    let mut pipe = running_with(&file).await?;
    assert_caught_up(&stage, &mut pipe, &tables).await?;
    stage
        .source
        .execute_all([
            "UPDATE labels SET k = 'asp' WHERE k = 'ape'",
            "UPDATE labels SET k = k - 1 WHERE n IN (3, 4, 5) ORDER BY k",
            "UPDATE fronts SET k = CONCAT(k, ' and more') WHERE n < 3",
            "UPDATE fronts SET k = UPPER(k) WHERE n = 5",
            "UPDATE bytes SET k = CONCAT(SUBSTR(k, 1, 1), X'01') WHERE n IN (1, 4)",
            "DELETE FROM bytes WHERE k = X'00000000'",
            "UPDATE words SET k = 'A' WHERE k = 'a'",
            "UPDATE words SET k = 'z' WHERE n = 4",
            "UPDATE words SET k = 'Straße' WHERE n = 3",
            "REPLACE INTO words VALUES ('ä B', 20)",
            "UPDATE sparse SET id = id - 1 WHERE tenant = 1 AND id > 1 ORDER BY id",
            "UPDATE sparse SET tenant = 4294967295 - tenant ORDER BY tenant",
            "UPDATE moments SET k = k + INTERVAL 1 DAY ORDER BY k DESC, d DESC",
            "UPDATE moments SET d = -d WHERE d <> 0 ORDER BY d",
        ])
        .await?;
    assert_caught_up(&stage, &mut pipe, &tables).await
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
