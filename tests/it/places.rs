//! Where a load starts and ends: whatever is committed around these places is neither lost nor applied twice.

use std::time::Duration;

use anyhow::{Result, ensure};
use mysql_async::prelude::Queryable;
use serde_json::json;
use testbed::harness::Stage;
use testbed::{SourceKind, SourceOptions, SourceServer};

use crate::support::{
    CATCH_UP, START, Seed, Workload, assert_caught_up, launch, on_both_sources, running_with, start,
};

on_both_sources! {
    a_transaction_open_over_the_start_arrives_when_it_commits: 240,
    commits_around_the_start_are_neither_lost_nor_doubled: 240,
    a_prepared_xa_transaction_holds_the_start_until_it_is_resolved: 300,
    a_load_alone_holds_one_moment_of_each_row: 240,
    keys_of_every_kind_are_cut_into_partitions: 300,
}

async fn a_transaction_open_over_the_start_arrives_when_it_commits(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a INT)",
            "INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)",
        ])
        .await?;
    let mut conn = stage.source.connect().await?;
    conn.query_drop("START TRANSACTION").await?;
    conn.query_drop("INSERT INTO t VALUES (10, 10)").await?;
    conn.query_drop("UPDATE t SET a = 20 WHERE id = 2").await?;
    conn.query_drop("DELETE FROM t WHERE id = 3").await?;
    let mut pipe = running_with(&stage.pipe_file(&["t"])).await?;
    let seen = format!(
        "SELECT count() FROM `{}`.t_current WHERE id IN (1, 2, 3)",
        stage.database
    );
    ensure!(
        stage.clickhouse.number(&seen).await? == 3,
        "the load does not show what is committed"
    );
    conn.query_drop("COMMIT").await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await
}

/// Many short pipes that start under write load: each meets another moment of the server's commit.
async fn commits_around_the_start_are_neither_lost_nor_doubled(kind: SourceKind) -> Result<()> {
    let seed = Seed::new("commits_around_the_start_are_neither_lost_nor_doubled");
    for round in 0..4 {
        let stage = Stage::shared(kind).await?;
        let workload = Workload { row_count: 300 };
        workload.create(&stage).await?;
        let writers = [0, 1, 2]
            .map(|which| workload.write(&stage.source, seed.generator(round * 10 + which)));
        let mut pipe = running_with(&stage.pipe_file(&Workload::TABLES)).await?;
        for writer in writers {
            writer.stop().await?;
        }
        assert_caught_up(&stage, &mut pipe, &Workload::TABLES).await?;
    }
    Ok(())
}

/// XA RECOVER lists the whole server's transactions: these tests have it to themselves.
async fn own_source(kind: SourceKind) -> Result<Stage> {
    Stage::with_source(move || SourceServer::start(SourceOptions::new(kind))).await
}

async fn a_prepared_xa_transaction_holds_the_start_until_it_is_resolved(
    kind: SourceKind,
) -> Result<()> {
    let stage = own_source(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a INT)",
            "INSERT INTO t VALUES (1, 1)",
        ])
        .await?;
    let mut conn = stage.source.connect().await?;
    for statement in [
        "XA START 'held'",
        "INSERT INTO t VALUES (2, 2)",
        "XA END 'held'",
        "XA PREPARE 'held'",
    ] {
        conn.query_drop(statement).await?;
    }
    let mut pipe = start(launch(&stage.pipe_file(&["t"])))?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let state = pipe.status().await?["state"].clone();
    ensure!(
        state == "Setup" || state == "Provisioning",
        "the pipe is {state} although a transaction is prepared"
    );
    conn.query_drop("XA COMMIT 'held'").await?;
    pipe.wait_state("Running", START).await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    ensure!(stage.source.number("SELECT COUNT(*) FROM t").await? == 2);
    Ok(())
}

async fn a_load_alone_holds_one_moment_of_each_row(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    Workload { row_count: 5_000 }.create(&stage).await?;
    let mut file = stage.pipe_file(&Workload::TABLES);
    file["mode"] = json!("snapshot");
    let mut pipe = start(launch(&file).argument("--once"))?;
    ensure!(pipe.wait_exit(START).await? == 0);
    for table in Workload::TABLES {
        stage.assert_same(table).await?;
    }
    // A load never outranks a change: its rows have version 0.
    let versions = format!("SELECT max(_version) FROM `{}`.people", stage.database);
    ensure!(stage.clickhouse.number(&versions).await? == 0);
    Ok(())
}

async fn keys_of_every_kind_are_cut_into_partitions(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    let keys = [
        ("small", "TINYINT NOT NULL", "n % 256 - 128"),
        (
            "unsigned_big",
            "BIGINT UNSIGNED NOT NULL",
            "18446744073709551615 - n * 1000000007",
        ),
        (
            "negative",
            "BIGINT NOT NULL",
            "n * 9000000000 - 18000000000000",
        ),
        ("decimals", "DECIMAL(30,10) NOT NULL", "n / 7 - 100"),
        ("days", "DATE NOT NULL", "'1900-01-01' + INTERVAL n DAY"),
        (
            "moments",
            "DATETIME(6) NOT NULL",
            "'2024-01-01' + INTERVAL n * 333333 MICROSECOND",
        ),
        (
            "stamps",
            "TIMESTAMP(3) NOT NULL",
            "'2001-01-01' + INTERVAL n HOUR",
        ),
        (
            "strings",
            "VARCHAR(40) NOT NULL",
            "CONCAT(CHAR(97 + n % 26 USING utf8mb4), 'ä', n)",
        ),
        ("uuids", "CHAR(32) NOT NULL", "LEFT(SHA2(n, 256), 32)"),
        (
            "raw",
            "BINARY(16) NOT NULL",
            "UNHEX(LEFT(SHA2(n, 256), 32))",
        ),
        (
            "latin",
            "VARCHAR(40) CHARACTER SET latin1 NOT NULL",
            "CONCAT('é', n)",
        ),
        ("labels", "ENUM('a','b','c') NOT NULL", "n % 3 + 1"),
    ];
    let mut statements = vec![
        "CREATE TABLE digits (d INT PRIMARY KEY)".to_owned(),
        "INSERT INTO digits VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)".to_owned(),
        "CREATE TABLE numbers AS SELECT a.d + 10 * b.d + 100 * c.d + 1000 * e.d AS n FROM digits a, digits b, digits c, digits e WHERE e.d < 4"
            .to_owned(),
    ];
    for (name, definition, expression) in keys {
        // A second key column makes every kind unique, and the key composite.
        statements.push(format!("CREATE TABLE k_{name} (k {definition}, n INT NOT NULL, a VARCHAR(20), PRIMARY KEY (k, n))"));
        statements.push(format!(
            "INSERT INTO k_{name} SELECT {expression}, n, CONCAT('row ', n) FROM numbers"
        ));
        statements.push(format!("ANALYZE TABLE k_{name}"));
    }
    // A unique key of a nullable column cannot tell rows apart, but one without NULL stands in for a primary key.
    statements
        .push("CREATE TABLE k_unique (u VARCHAR(20) NOT NULL, a INT, UNIQUE KEY (u))".to_owned());
    statements.push("INSERT INTO k_unique SELECT CONCAT('u', n), n FROM numbers".to_owned());
    stage.source.execute_all(statements).await?;
    let mut file = stage.pipe_file_of(vec![json!({ "source": format!("{}.k_*", stage.database) })]);
    file["snapshot"] =
        json!({ "rows_per_partition": 300, "threads_per_table": 2, "tables_in_parallel": 2 });
    let mut pipe = running_with(&file).await?;
    for (name, _, _) in keys {
        stage
            .source
            .execute(format!(
                "UPDATE k_{name} SET a = 'changed', n = n + 10000 WHERE n % 1000 = 7"
            ))
            .await?;
    }
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    for (name, _, _) in keys {
        ensure!(stage.assert_same(&format!("k_{name}")).await? == 4_000);
    }
    let comparison = testbed::harness::Comparison::of("k_unique").by(&["u"]);
    ensure!(stage.assert(comparison).await? == 4_000);
    Ok(())
}
