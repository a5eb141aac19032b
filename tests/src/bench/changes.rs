//! Catching up: changes are written while the pipe is paused, and the time from `resume` until all of them are visible is
//! taken.

use std::env;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use testbed::harness::{Launch, Pipe, Stage, usage_of};

use super::lineitem;
use super::report::{print, thousands};

/// Rows of one transaction.
const TRANSACTION_ROWS: u64 = 100;

const TIMEOUT: Duration = Duration::from_secs(600);

/// Figures of one catch-up.
pub(super) async fn stream(
    stage: &Stage,
    row_count: u64,
    rows_per_statement: u64,
) -> Result<Value> {
    stage.source.execute(lineitem::CREATE).await?;
    let mut file = stage.pipe_file(&["lineitem"]);
    file["sync"] = json!({ "interval": "1s" });
    let mut pipe = Pipe::start(Launch::new(&env::current_exe()?, &file))?;
    pipe.wait_state("Running", TIMEOUT).await?;
    pipe.command("pause").await?;
    pipe.wait_state("Paused", TIMEOUT).await?;
    let written = Instant::now();
    let changes = write(
        stage,
        row_count,
        rows_per_statement.clamp(1, TRANSACTION_ROWS),
    )
    .await?;
    eprintln!(
        "  {changes} row changes written in {:.1} s",
        written.elapsed().as_secs_f64()
    );
    let (processor_before, _) = usage_of(pipe.pid().context("the pipe has gone")?)?;
    let started = Instant::now();
    pipe.command("resume").await?;
    stage.wait_caught_up(&mut pipe, TIMEOUT).await?;
    let left = row_count - row_count / 10;
    let count = format!("SELECT count() FROM `{}`.lineitem_current", stage.database);
    while stage.clickhouse.number(&count).await? != left {
        ensure!(started.elapsed() < TIMEOUT, "the rows never became {left}");
    }
    let seconds = started.elapsed().as_secs_f64();
    let (processor, peak_bytes) = usage_of(pipe.pid().context("the pipe has gone")?)?;
    stage.assert_same("lineitem").await?;
    ensure!(pipe.stop().await? == 0, "the pipe did not drain");
    let rate = changes as f64 / seconds;
    let processor = (processor - processor_before) / (changes as f64 / 1e6);
    let peak = peak_bytes as f64 / f64::from(1 << 20);
    let head = ["", "changes/s", "seconds", "CPU s/M changes", "peak MiB"];
    let row = [
        "catch-up".to_owned(),
        thousands(rate),
        format!("{seconds:.2}"),
        format!("{processor:.2}"),
        format!("{peak:.0}"),
    ];
    print(&[head.map(str::to_owned).to_vec(), row.to_vec()]);
    Ok(json!({
        "changes": changes,
        "rows_per_statement": rows_per_statement,
        "changes_per_second": rate.round(),
        "seconds": seconds,
        "cpu_seconds_per_million_changes": processor,
        "peak_mib": peak,
    }))
}

/// Inserts all rows, updates a fifth of them and deletes a tenth, in transactions of a hundred rows.
async fn write(stage: &Stage, row_count: u64, rows_per_statement: u64) -> Result<u64> {
    let mut generator = StdRng::seed_from_u64(1);
    let mut conn = stage.source.connect().await?;
    let mut changes = 0;
    for from in (0..row_count).step_by(TRANSACTION_ROWS as usize) {
        let until = row_count.min(from + TRANSACTION_ROWS);
        conn.query_drop("START TRANSACTION").await?;
        for first in (from..until).step_by(rows_per_statement as usize) {
            conn.query_drop(lineitem::insert(
                first..until.min(first + rows_per_statement),
                &mut generator,
            ))
            .await?;
        }
        conn.query_drop("COMMIT").await?;
        changes += until - from;
    }
    // Four rows share an order key.
    let orders = TRANSACTION_ROWS / 4;
    let updated = row_count / 5 / 4;
    for first in (1..=updated).step_by(orders as usize) {
        let last = updated.min(first + orders - 1);
        conn.query_drop(format!(
            "UPDATE lineitem SET l_quantity = l_quantity + 1, l_comment = 'updated' WHERE l_orderkey BETWEEN {first} AND {last}"
        ))
        .await?;
        changes += conn.affected_rows();
    }
    let (from, until) = (updated, updated + row_count / 10 / 4);
    for first in (from + 1..=until).step_by(orders as usize) {
        let last = until.min(first + orders - 1);
        conn.query_drop(format!(
            "DELETE FROM lineitem WHERE l_orderkey BETWEEN {first} AND {last}"
        ))
        .await?;
        changes += conn.affected_rows();
    }
    Ok(changes)
}
