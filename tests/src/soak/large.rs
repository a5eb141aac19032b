//! What is large: a transaction through a small budget, a statement of many rows, and thousands of tables.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable;
use serde_json::json;

use crate::harness::{Launch, Pipe, Stage, usage_of};
use crate::{SourceKind, SourceOptions, SourceServer};

/// How long any of these may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// Of thousands of tables, about so many are written to behind their load and compared, and of fewer each is.
const WRITTEN_TABLES: u32 = 100;

/// One transaction of `mebibytes`, written in rows of 3.7 MB, through a budget of `memory`; returns the peak of the pipe's
/// resident memory in bytes. On MySQL the transaction is compressed as well.
///
/// # Errors
/// A difference, or a pipe that does not get there.
pub async fn spill(stage: &Stage, program: &Path, mebibytes: u64, memory: &str) -> Result<u64> {
    const ROW_BYTES: u64 = 3_700_000;
    stage
        .source
        .execute("CREATE TABLE t (id INT PRIMARY KEY, a LONGTEXT)")
        .await?;
    let mut file = stage.pipe_file(&["t"]);
    file["memory"] = json!(memory);
    let spill = tempfile::tempdir()?;
    file["spill_dir"] = json!(spill.path());
    let mut pipe = Pipe::start(Launch::new(program, &file))?;
    pipe.wait_state("Running", PATIENCE).await?;
    let mut conn = stage.source.connect().await?;
    if !stage.kind().is_mariadb() {
        conn.query_drop("SET SESSION binlog_transaction_compression = ON")
            .await?;
    }
    conn.query_drop("START TRANSACTION").await?;
    for n in 0..(mebibytes << 20) / ROW_BYTES {
        conn.query_drop(format!(
            "INSERT INTO t VALUES ({n}, REPEAT(LEFT(SHA2({n}, 256), 37), 115625))"
        ))
        .await?;
    }
    conn.query_drop("COMMIT").await?;
    stage.wait_caught_up(&mut pipe, PATIENCE).await?;
    let sums = "SELECT CAST(SUM(CRC32(a)) AS CHAR) FROM t";
    let expected: Vec<String> = stage.source.rows(sums).await?;
    let found = format!(
        "SELECT toString(sum(CRC32(a))) FROM `{}`.t_current",
        stage.database
    );
    let found = stage.clickhouse.query(&found).await?;
    ensure!(
        expected.first() == Some(&found),
        "the sums differ: {expected:?} and {found}"
    );
    let (_, peak) = usage_of(pipe.pid().context("the pipe runs")?)?;
    Ok(peak)
}

/// One INSERT of `thousands` thousand narrow rows, and one UPDATE of all of them, through a budget of `memory`, compared
/// value by value.
///
/// # Errors
/// A difference, or a pipe that does not get there.
pub async fn statement(stage: &Stage, program: &Path, thousands: u64, memory: &str) -> Result<()> {
    stage
        .source
        .execute("CREATE TABLE t (id INT PRIMARY KEY, a INT NOT NULL)")
        .await?;
    let mut file = stage.pipe_file(&["t"]);
    file["memory"] = json!(memory);
    let mut pipe = Pipe::start(Launch::new(program, &file))?;
    pipe.wait_state("Running", PATIENCE).await?;
    let begin = Instant::now();
    for statement in [
        &format!(
            "INSERT INTO t WITH RECURSIVE n (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < 999) \
             SELECT a.n * 1000 + b.n, a.n FROM n a JOIN n b WHERE a.n < {thousands}"
        ),
        "UPDATE t SET a = a * 7 - id",
    ] {
        stage.source.execute(statement).await?;
    }
    println!(
        "{thousands} thousand rows written twice in {:?}",
        begin.elapsed()
    );
    stage.wait_caught_up(&mut pipe, PATIENCE).await?;
    println!("there after {:?}", begin.elapsed());
    let compared = stage.assert_same("t").await?;
    println!("equal after {:?}", begin.elapsed());
    ensure!(compared == thousands * 1000, "{compared} rows");
    Ok(())
}

/// `count` tables behind a wildcard, one of them with as many columns as the server takes: MariaDB's definition file holds
/// 64 KiB of names and types, so that it refuses 4,096 columns whatever their names (error 1117).
///
/// # Errors
/// A difference, or a pipe that does not get there.
pub async fn tables(kind: SourceKind, program: &Path, count: u32) -> Result<()> {
    let columns: u32 = if kind.is_mariadb() { 2_600 } else { 4_096 };
    let server =
        move || SourceServer::start(SourceOptions::new(kind).arg("--table-open-cache=4000"));
    let stage = Stage::with_source(server).await?;
    let mut conn = stage.source.connect().await?;
    let last = columns - 1;
    let columns: Vec<String> = (1..columns).map(|n| format!("c{n} TINYINT")).collect();
    conn.query_drop(format!(
        "CREATE TABLE t_wide (id TINYINT PRIMARY KEY, {}) ENGINE = MyISAM",
        columns.join(", ")
    ))
    .await?;
    conn.query_drop(format!(
        "INSERT INTO t_wide (id, c{last}) VALUES (1, 1), (2, NULL)"
    ))
    .await?;
    for n in 0..count {
        conn.query_drop(format!("CREATE TABLE t_{n} (id INT PRIMARY KEY, a INT)"))
            .await?;
        conn.query_drop(format!("INSERT INTO t_{n} VALUES (1, {n})"))
            .await?;
    }
    let written = || (0..count).step_by((count / WRITTEN_TABLES).max(1) as usize);
    let entries = vec![json!({ "source": format!("{}.t_*", stage.database) })];
    let mut file = stage.pipe_file_of(entries);
    file["snapshot"] = json!({ "tables_in_parallel": 4, "threads_per_table": 1 });
    let begin = Instant::now();
    let mut pipe = Pipe::start(Launch::new(program, &file))?;
    pipe.wait_state("Running", PATIENCE).await?;
    println!("{count} tables loaded in {:?}", begin.elapsed());
    for n in written() {
        conn.query_drop(format!("INSERT INTO t_{n} VALUES (2, NULL)"))
            .await?;
    }
    conn.query_drop(format!("UPDATE t_wide SET c{last} = 5, c2000 = 7"))
        .await?;
    stage.wait_caught_up(&mut pipe, PATIENCE).await?;
    for n in written() {
        stage.assert_same(&format!("t_{n}")).await?;
    }
    stage.assert_same("t_wide").await?;
    Ok(())
}
