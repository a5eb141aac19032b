//! Keys of every kind, and names of every kind: what tells rows apart, and what tells tables apart.

use anyhow::{Result, ensure};
use mysql_async::prelude::Queryable;
use serde_json::json;
use testbed::SourceKind;
use testbed::harness::{Comparison, Stage};

use crate::support::{CATCH_UP, assert_caught_up, on_both_sources, once, running_with};

on_both_sources! {
    a_table_without_a_primary_key_goes_by_its_unique_key: 300,
}

once! {
    names_of_every_kind_are_quoted_at_both_ends: 400,
}

/// pitfall 112, pitfall 114: keywords, quotes, dashes, question marks, spaces, 64 characters, twins that differ in case;
/// in statements of sessions whose modes give quotes and backslashes another meaning.
async fn names_of_every_kind_are_quoted_at_both_ends() -> Result<()> {
    let stage = Stage::shared(SourceKind::MySql).await?;
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
