//! The main promise: whatever is committed before, during and after the load, both ends hold the same rows with the same
//! values.

use std::time::Duration;

use anyhow::{Result, ensure};
use mysql_async::prelude::Queryable;
use testbed::SourceKind;
use testbed::harness::Stage;

use crate::support::{
    CATCH_UP, START, Seed, Workload, assert_caught_up, launch, on_both_sources, running,
    running_with, start,
};

on_both_sources! {
    transactions_before_during_and_after_the_load_arrive: 300,
    every_kind_of_change_arrives_while_streaming: 240,
    keys_that_move_leave_nothing_behind: 240,
    a_key_change_in_case_only_moves_the_row: 240,
    a_transaction_that_is_rolled_back_leaves_no_trace: 240,
    a_transaction_over_several_tables_arrives: 240,
    null_in_every_nullable_column_stays_null: 240,
    empty_tables_are_replicated: 240,
    names_that_need_quoting_are_replicated: 240,
    a_transaction_larger_than_a_batch_arrives: 300,
    a_key_that_comes_back_after_its_delete_is_visible: 240,
}

async fn transactions_before_during_and_after_the_load_arrive(kind: SourceKind) -> Result<()> {
    let seed = Seed::new("transactions_before_during_and_after_the_load_arrive");
    let stage = Stage::shared(kind).await?;
    let workload = Workload { row_count: 20_000 };
    workload.create(&stage).await?;
    let mut file = stage.pipe_file(&Workload::TABLES);
    file["snapshot"] = serde_json::json!({ "rows_per_partition": 2000, "threads_per_table": 2, "tables_in_parallel": 2 });
    let writers = [1, 2].map(|which| workload.write(&stage.source, seed.generator(which)));
    let mut pipe = start(launch(&file))?;
    pipe.wait_state("Running", START).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut written = 0;
    for writer in writers {
        written += writer.stop().await?;
    }
    ensure!(written > 20, "only {written} transactions were written");
    assert_caught_up(&stage, &mut pipe, &Workload::TABLES).await
}

async fn every_kind_of_change_arrives_while_streaming(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a VARCHAR(20) NULL, b INT NOT NULL DEFAULT 7)",
            "INSERT INTO t VALUES (1, 'one', 1), (2, 'two', 2), (3, NULL, 3), (4, 'four', 4), (5, 'five', 5)",
        ])
        .await?;
    let mut pipe = running(&stage, &["t"]).await?;
    for statement in [
        "INSERT INTO t (id) VALUES (10)",
        "INSERT INTO t VALUES (11, 'a', 1), (12, 'b', 2), (13, '', 3)",
        "UPDATE t SET a = 'changed' WHERE id = 1",
        "UPDATE t SET b = b * 10 WHERE id > 2",
        "UPDATE t SET a = NULL WHERE id = 2",
        "DELETE FROM t WHERE id = 4",
        "REPLACE INTO t VALUES (5, 'replaced', 0)",
        "INSERT INTO t VALUES (5, 'x', 1) ON DUPLICATE KEY UPDATE a = 'duplicate'",
        "INSERT INTO t SELECT id + 100, a, b FROM t",
    ] {
        stage.source.execute(statement).await?;
        assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    }
    stage.source.execute("DELETE FROM t").await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    ensure!(
        stage
            .clickhouse
            .number(&format!(
                "SELECT count() FROM `{}`.t_current",
                stage.database
            ))
            .await?
            == 0
    );
    Ok(())
}

async fn keys_that_move_leave_nothing_behind(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE shifted (id INT PRIMARY KEY, name VARCHAR(20))",
            "INSERT INTO shifted VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd')",
            "CREATE TABLE pairs (a INT, b VARCHAR(20), n INT, PRIMARY KEY (a, b))",
            "INSERT INTO pairs VALUES (1, 'x', 1), (1, 'y', 2), (2, 'x', 3)",
        ])
        .await?;
    let mut pipe = running(&stage, &["shifted", "pairs"]).await?;
    let tables = ["shifted", "pairs"];
    // One statement in which every row but one lands on a key that another has just left.
    stage
        .source
        .execute("UPDATE shifted SET id = id + 1 ORDER BY id DESC")
        .await?;
    assert_caught_up(&stage, &mut pipe, &tables).await?;
    stage
        .source
        .execute("UPDATE shifted SET id = id - 1 ORDER BY id")
        .await?;
    stage
        .source
        .execute("UPDATE pairs SET b = 'z', n = n + 1 WHERE a = 1 AND b = 'y'")
        .await?;
    assert_caught_up(&stage, &mut pipe, &tables).await?;
    let mut conn = stage.source.connect().await?;
    for statement in [
        "START TRANSACTION",
        // Two rows change places, by way of a third key.
        "UPDATE shifted SET id = 99 WHERE id = 1",
        "UPDATE shifted SET id = 1 WHERE id = 2",
        "UPDATE shifted SET id = 2 WHERE id = 99",
        // Away and back, with another value.
        "UPDATE pairs SET a = 50 WHERE a = 2",
        "UPDATE pairs SET a = 2, n = 77 WHERE a = 50",
        // A new row under the key that an old one gave up.
        "UPDATE shifted SET id = 40 WHERE id = 4",
        "INSERT INTO shifted VALUES (4, 'new')",
        "DELETE FROM shifted WHERE id = 40",
        "COMMIT",
    ] {
        conn.query_drop(statement).await?;
    }
    assert_caught_up(&stage, &mut pipe, &tables).await
}

async fn a_key_change_in_case_only_moves_the_row(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE words (word VARCHAR(20) PRIMARY KEY, n INT)",
            "INSERT INTO words VALUES ('apple', 1), ('straße', 2), ('Éclair', 3), ('', 4)",
        ])
        .await?;
    let mut pipe = running(&stage, &["words"]).await?;
    stage
        .source
        .execute_all([
            "UPDATE words SET word = 'APPLE' WHERE n = 1",
            "UPDATE words SET word = 'eclair' WHERE n = 3",
            "UPDATE words SET word = 'not empty' WHERE n = 4",
            "REPLACE INTO words VALUES ('Apple', 5)",
        ])
        .await?;
    assert_caught_up(&stage, &mut pipe, &["words"]).await
}

async fn a_transaction_that_is_rolled_back_leaves_no_trace(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a VARCHAR(20))",
            "CREATE TABLE old_fashioned (id INT PRIMARY KEY, a VARCHAR(20)) ENGINE = MyISAM",
            "INSERT INTO t VALUES (1, 'one')",
        ])
        .await?;
    let mut pipe = running(&stage, &["t", "old_fashioned"]).await?;
    let mut conn = stage.source.connect().await?;
    for statement in [
        "START TRANSACTION",
        "INSERT INTO t VALUES (2, 'two')",
        "UPDATE t SET a = 'changed' WHERE id = 1",
        "ROLLBACK",
        "START TRANSACTION",
        "INSERT INTO t VALUES (3, 'three')",
        "SAVEPOINT s",
        "INSERT INTO t VALUES (4, 'four')",
        "DELETE FROM t WHERE id = 1",
        "ROLLBACK TO SAVEPOINT s",
        "INSERT INTO t VALUES (5, 'five')",
        "COMMIT",
        "INSERT INTO old_fashioned VALUES (1, 'stays')",
    ] {
        conn.query_drop(statement).await?;
    }
    // A table without transactions keeps its row, and the server logs it in a way of its own. MySQL with GTIDs refuses it.
    if kind == SourceKind::MariaDb {
        for statement in [
            "START TRANSACTION",
            "INSERT INTO t VALUES (6, 'six')",
            "INSERT INTO old_fashioned VALUES (2, 'stays')",
            "ROLLBACK",
        ] {
            conn.query_drop(statement).await?;
        }
    }
    assert_caught_up(&stage, &mut pipe, &["t", "old_fashioned"]).await?;
    let kept = if kind == SourceKind::MariaDb { 2 } else { 1 };
    ensure!(
        stage
            .source
            .number("SELECT COUNT(*) FROM old_fashioned")
            .await?
            == kept
    );
    Ok(())
}

async fn a_transaction_over_several_tables_arrives(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE orders (id INT AUTO_INCREMENT PRIMARY KEY, total INT)",
            "CREATE TABLE items (order_id INT, line INT, price INT, PRIMARY KEY (order_id, line))",
            "CREATE TABLE not_replicated (id INT AUTO_INCREMENT PRIMARY KEY, x TEXT)",
        ])
        .await?;
    let mut pipe = running(&stage, &["orders", "items"]).await?;
    let mut conn = stage.source.connect().await?;
    for order in 1..50 {
        conn.query_drop("START TRANSACTION").await?;
        conn.query_drop(format!("INSERT INTO orders VALUES ({order}, 0)"))
            .await?;
        conn.query_drop("INSERT INTO not_replicated (x) VALUES (REPEAT('x', 1000))")
            .await?;
        for line in 0..order % 4 {
            conn.query_drop(format!(
                "INSERT INTO items VALUES ({order}, {line}, {})",
                order * 10 + line
            ))
            .await?;
        }
        // One statement, two tables: both tables' rows stand in one group of events.
        conn.query_drop(format!(
            "UPDATE orders, items SET orders.total = orders.total + 1, items.price = items.price + 1 \
             WHERE orders.id = items.order_id AND orders.id = {order}"
        ))
        .await?;
        conn.query_drop("COMMIT").await?;
    }
    conn.query_drop("DELETE orders, items FROM orders JOIN items ON items.order_id = orders.id WHERE orders.id < 10")
        .await?;
    assert_caught_up(&stage, &mut pipe, &["orders", "items"]).await
}

async fn null_in_every_nullable_column_stays_null(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    // More than eight columns: the bits that mark NULLs span bytes.
    let columns: Vec<String> = (0..20)
        .map(|n| format!("c{n} {} NULL", ["INT", "VARCHAR(10)", "DATETIME"][n % 3]))
        .collect();
    let create = format!(
        "CREATE TABLE t (id INT PRIMARY KEY, {})",
        columns.join(", ")
    );
    let row = |id: usize| {
        let values: Vec<&str> = (0..20)
            .map(|n| match (id >> (n % 5)) & 1 {
                0 => "NULL",
                _ => ["42", "''", "'2024-02-29 12:00:00'"][n % 3],
            })
            .collect();
        format!("INSERT INTO t VALUES ({id}, {})", values.join(", "))
    };
    stage.source.execute(create).await?;
    stage.source.execute_all((0..32).map(row)).await?;
    let mut pipe = running(&stage, &["t"]).await?;
    stage.source.execute_all((32..64).map(row)).await?;
    stage
        .source
        .execute_all([
            "UPDATE t SET c0 = NULL, c19 = NULL WHERE id % 2 = 0",
            "UPDATE t SET c7 = 'x' WHERE id % 3 = 0",
        ])
        .await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await
}

async fn empty_tables_are_replicated(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute("CREATE TABLE t (id BIGINT UNSIGNED PRIMARY KEY, a TEXT)")
        .await?;
    let mut pipe = running(&stage, &["t"]).await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    stage
        .source
        .execute("INSERT INTO t VALUES (18446744073709551615, 'largest'), (0, NULL)")
        .await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await
}

async fn names_that_need_quoting_are_replicated(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    let table = "order-by \"select\" ünï?";
    let quoted = testbed::harness::quoted(table);
    stage
        .source
        .execute_all([
            format!("CREATE TABLE {quoted} (`key` INT, `from-to` VARCHAR(20), `it's` INT, `ü` INT NULL, PRIMARY KEY (`key`, `from-to`))"),
            format!("INSERT INTO {quoted} VALUES (1, 'a', 2, 3), (2, 'b', 3, NULL)"),
        ])
        .await?;
    let entry = serde_json::json!({ "source": { "database": stage.database, "table": table } });
    let mut pipe = running_with(&stage.pipe_file_of(vec![entry])).await?;
    stage
        .source
        .execute(format!(
            "UPDATE {quoted} SET `it's` = 7, `from-to` = 'c' WHERE `key` = 1"
        ))
        .await?;
    assert_caught_up(&stage, &mut pipe, &[table]).await
}

async fn a_transaction_larger_than_a_batch_arrives(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute("CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, a VARCHAR(300))")
        .await?;
    let mut file = stage.pipe_file(&["t"]);
    file["sync"] =
        serde_json::json!({ "interval": "200ms", "max_rows": 1000, "max_bytes": "1MiB" });
    let mut pipe = start(launch(&file))?;
    pipe.wait_state("Running", START).await?;
    let mut conn = stage.source.connect().await?;
    conn.query_drop("START TRANSACTION").await?;
    conn.query_drop("INSERT INTO t (a) VALUES (REPEAT('a', 300))")
        .await?;
    for _ in 0..14 {
        conn.query_drop("INSERT INTO t (a) SELECT CONCAT(LEFT(a, 200), RAND()) FROM t")
            .await?;
    }
    conn.query_drop("UPDATE t SET a = CONCAT(a, 'x') WHERE id % 2 = 0")
        .await?;
    conn.query_drop("COMMIT").await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    ensure!(stage.assert_same("t").await? == 16_384);
    Ok(())
}

async fn a_key_that_comes_back_after_its_delete_is_visible(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a INT)",
            "INSERT INTO t VALUES (1, 0)",
        ])
        .await?;
    let mut pipe = running(&stage, &["t"]).await?;
    for round in 1..6 {
        stage.source.execute("DELETE FROM t WHERE id = 1").await?;
        stage
            .source
            .execute(format!("INSERT INTO t VALUES (1, {round})"))
            .await?;
    }
    let mut conn = stage.source.connect().await?;
    for statement in [
        "START TRANSACTION",
        "DELETE FROM t",
        "INSERT INTO t VALUES (1, 100)",
        "DELETE FROM t",
        "INSERT INTO t VALUES (1, 101)",
        "COMMIT",
    ] {
        conn.query_drop(statement).await?;
    }
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    // Merged by ClickHouse, the answer is the same.
    stage
        .clickhouse
        .query(&format!("OPTIMIZE TABLE `{}`.t FINAL", stage.database))
        .await?;
    stage.assert_same("t").await.map(drop)
}
