//! Random transactions over a handful of tables with all kinds of keys, as a busy application writes them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{Source, Stage};
use anyhow::{Context, Result};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};
use rand::Rng;
use rand::rngs::StdRng;
use tokio::task::JoinHandle;

/// Rows of one INSERT while a table is filled.
const FILL_STEP: u32 = 2_000;

/// Errors that a busy application meets and tries again: a duplicate, a deadlock, a lock wait, a row that has gone.
const EXPECTED_ERRORS: [u16; 4] = [1062, 1213, 1205, 1020];

/// The tables, and how many rows they begin with.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Rows in each of the larger tables.
    pub row_count: u32,
}

impl Workload {
    /// An integer key, a composite key, a string key that compares without case, a date/time key.
    pub const TABLES: [&'static str; 4] = ["people", "order_lines", "words", "happenings"];

    /// Makes the tables and fills them.
    pub async fn create(self, stage: &Stage) -> Result<()> {
        stage
            .source
            .execute_all([
                "CREATE TABLE people (id INT AUTO_INCREMENT PRIMARY KEY, email VARCHAR(100) NOT NULL, \
                 nick VARCHAR(40) NULL, amount DECIMAL(12,2) NOT NULL, kind TINYINT NOT NULL, changed DATETIME(3) NULL)",
                "CREATE TABLE order_lines (order_id INT NOT NULL, line SMALLINT UNSIGNED NOT NULL, note VARCHAR(200) NULL, \
                 quantity BIGINT NULL, PRIMARY KEY (order_id, line))",
                "CREATE TABLE words (word VARCHAR(60) NOT NULL PRIMARY KEY, seen INT UNSIGNED NOT NULL, ratio DOUBLE NULL)",
                "CREATE TABLE happenings (at DATETIME(6) NOT NULL PRIMARY KEY, what VARCHAR(30) NOT NULL, data BLOB NULL)",
            ])
            .await?;
        let mut conn = stage.source.connect().await?;
        let mut from = 0;
        while from < self.row_count {
            let until = (from + FILL_STEP).min(self.row_count);
            fill(&mut conn, from, until).await?;
            from = until;
        }
        Ok(())
    }

    /// Writes random transactions in the background until it is stopped.
    pub fn write(self, source: &Source, generator: StdRng) -> Writer {
        let stop = Arc::new(AtomicBool::new(false));
        let written = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(write_until(
            source.clone(),
            self,
            generator,
            Arc::clone(&stop),
            Arc::clone(&written),
        ));
        Writer {
            stop,
            written,
            task,
        }
    }
}

/// Transactions being written.
#[derive(Debug)]
pub struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    task: JoinHandle<Result<()>>,
}

impl Writer {
    /// Ends after the present transaction; how many there were.
    pub async fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.context("the writer panicked")??;
        Ok(self.written.load(Ordering::Relaxed))
    }
}

async fn fill(conn: &mut Conn, from: u32, until: u32) -> Result<()> {
    let values =
        |row: &dyn Fn(u32) -> String| (from..until).map(row).collect::<Vec<_>>().join(", ");
    let people = values(&|n| {
        let nick = if n % 3 == 0 {
            "NULL".to_owned()
        } else {
            format!("'nick {n}'")
        };
        format!(
            "('person{n}@example.com', {nick}, {n}.{:02}, {}, '2024-01-01 00:00:00.123')",
            n % 100,
            n % 10
        )
    });
    let lines = values(&|n| {
        let quantity = if n % 5 == 0 {
            "NULL".to_owned()
        } else {
            n.to_string()
        };
        format!("({}, {}, 'line {n}', {quantity})", n / 5 + 1, n % 5)
    });
    let words = values(&|n| format!("('word number {n}', {n}, {n} / 7)"));
    let happenings = values(&|n| {
        format!(
            "('2024-01-01 00:00:00' + INTERVAL {n} SECOND, 'happening {}', UNHEX('00FF{:08X}'))",
            n % 50,
            n
        )
    });
    conn.query_drop("START TRANSACTION").await?;
    conn.query_drop(format!(
        "INSERT INTO people (email, nick, amount, kind, changed) VALUES {people}"
    ))
    .await?;
    conn.query_drop(format!("INSERT INTO order_lines VALUES {lines}"))
        .await?;
    conn.query_drop(format!("INSERT INTO words VALUES {words}"))
        .await?;
    conn.query_drop(format!("INSERT INTO happenings VALUES {happenings}"))
        .await?;
    Ok(conn.query_drop("COMMIT").await?)
}

async fn write_until(
    source: Source,
    workload: Workload,
    mut generator: StdRng,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
) -> Result<()> {
    let mut conn = source.connect().await?;
    while !stop.load(Ordering::Relaxed) {
        match transaction(&mut conn, workload, &mut generator).await {
            Ok(()) => written.fetch_add(1, Ordering::Relaxed),
            // If the server goes away before the ROLLBACK, it rolls back by itself.
            Err(Error::Server(error))
                if EXPECTED_ERRORS.contains(&error.code)
                    && conn.query_drop("ROLLBACK").await.is_ok() =>
            {
                continue;
            }
            // Some tests restart the server under the writer.
            Err(Error::Io(_) | Error::Driver(_) | Error::Server(_))
                if !stop.load(Ordering::Relaxed) =>
            {
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                if let Ok(again) = source.connect().await {
                    conn = again;
                }
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        // Room for the pipe, which shares the machine.
        tokio::time::sleep(std::time::Duration::from_millis(
            generator.random_range(0..8),
        ))
        .await;
    }
    Ok(())
}

async fn transaction(
    conn: &mut Conn,
    workload: Workload,
    generator: &mut StdRng,
) -> Result<(), Error> {
    conn.query_drop("START TRANSACTION").await?;
    for _ in 0..generator.random_range(1..5) {
        conn.query_drop(statement(workload, generator)).await?;
    }
    match generator.random_range(0..10) {
        0 => conn.query_drop("ROLLBACK").await,
        1 => {
            conn.query_drop("SAVEPOINT half_way").await?;
            conn.query_drop(statement(workload, generator)).await?;
            conn.query_drop("ROLLBACK TO SAVEPOINT half_way").await?;
            conn.query_drop("COMMIT").await
        }
        _ => conn.query_drop("COMMIT").await,
    }
}

fn statement(workload: Workload, generator: &mut StdRng) -> String {
    let rows = workload.row_count.max(1);
    let id = generator.random_range(1..=rows);
    let span = generator.random_range(1..20);
    let fresh = generator.random_range(rows..rows * 20);
    match generator.random_range(0..16) {
        0 | 1 => format!(
            "INSERT INTO people (email, nick, amount, kind) VALUES ('new{fresh}@example.com', NULL, {id}.5, {}), \
             ('newer{fresh}@example.com', 'n', -{id}.25, {})",
            fresh % 10,
            id % 10
        ),
        2 => format!(
            "UPDATE people SET nick = NULL, changed = NOW(3) WHERE id BETWEEN {id} AND {}",
            id + span
        ),
        // Rows come to match a filter on `kind`, and cease to.
        3 | 4 => format!(
            "UPDATE people SET kind = (kind + {span}) % 10, amount = amount + 1 WHERE id BETWEEN {id} AND {}",
            id + span
        ),
        5 => format!("DELETE FROM people WHERE id BETWEEN {id} AND {}", id + 2),
        6 => format!("UPDATE people SET id = id + {} WHERE id = {id}", rows * 3),
        7 => format!(
            "UPDATE people SET id = id + 1 WHERE id BETWEEN {id} AND {} ORDER BY id DESC",
            id + span
        ),
        8 => format!(
            "INSERT INTO order_lines VALUES ({fresh}, {}, NULL, NULL), ({fresh}, {}, 'x', -1) \
             ON DUPLICATE KEY UPDATE quantity = {span}",
            span % 7,
            span % 7 + 7
        ),
        9 => format!(
            "UPDATE order_lines SET line = line + 10 WHERE order_id = {} ORDER BY line DESC",
            id / 5 + 1
        ),
        10 => format!("DELETE FROM order_lines WHERE order_id = {}", id / 5 + 1),
        // Equal for the source's collation, another key for ClickHouse.
        11 => format!("UPDATE words SET word = UPPER(word) WHERE word = 'word number {id}'"),
        12 => format!("REPLACE INTO words VALUES ('word number {id}', {span}, NULL)"),
        13 => format!("DELETE FROM words WHERE seen = {id}"),
        14 => format!(
            "UPDATE happenings SET at = at + INTERVAL 400 DAY, data = NULL \
             WHERE at = '2024-01-01 00:00:00' + INTERVAL {id} SECOND"
        ),
        _ => format!("INSERT INTO happenings VALUES (NOW(6), 'now', X'{span:02X}00')"),
    }
}
