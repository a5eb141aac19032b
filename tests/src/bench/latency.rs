//! From commit to visible: single-row transactions at a steady rate, and a reader of the target that asks for the newest
//! one every few milliseconds.

use std::env;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable;
use serde_json::{Value, json};
use testbed::harness::{Launch, Pipe, Source, Stage};

use super::report::{percentile, print};

/// How often the target is asked; it is part of the figure.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

const TIMEOUT: Duration = Duration::from_secs(60);

/// Figures of one stretch of time.
pub(super) async fn latency(stage: &Stage, rate: u32, seconds: u32) -> Result<Value> {
    stage.source.execute("CREATE TABLE ticks (id BIGINT AUTO_INCREMENT PRIMARY KEY, at DATETIME(6), note VARCHAR(40))").await?;
    let mut file = stage.pipe_file(&["ticks"]);
    file["sync"] = json!({ "interval": "200ms" });
    let mut pipe = Pipe::start(Launch::new(&env::current_exe()?, &file))?;
    pipe.wait_state("Running", TIMEOUT).await?;
    stage.wait_caught_up(&mut pipe, TIMEOUT).await?;
    let commits = Arc::new(Mutex::new(Vec::new()));
    let total = u64::from(rate) * u64::from(seconds);
    let writer = tokio::spawn(write(
        stage.source.clone(),
        rate,
        total,
        Arc::clone(&commits),
    ));
    let mut latencies = Vec::with_capacity(total as usize);
    let newest = format!("SELECT max(id) FROM `{}`.ticks", stage.database);
    let started = Instant::now();
    while (latencies.len() as u64) < total {
        let visible = stage.clickhouse.number(&newest).await?;
        let now = Instant::now();
        {
            let commits = commits.lock().unwrap_or_else(PoisonError::into_inner);
            // A row may be seen before its writer has got the answer to the commit: it waited no time at all.
            while (latencies.len() as u64) < visible
                && let Some(committed) = commits.get(latencies.len())
            {
                latencies.push(now.saturating_duration_since(*committed).as_secs_f64());
            }
        }
        ensure!(
            started.elapsed() < TIMEOUT + Duration::from_secs(u64::from(seconds)),
            "not every row became visible"
        );
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    let took = writer.await.context("the writer panicked")??;
    ensure!(pipe.stop().await? == 0, "the pipe did not drain");
    latencies.sort_by(f64::total_cmp);
    let [p50, p99, worst] = [0.5, 0.99, 1.0].map(|share| percentile(&latencies, share) * 1000.0);
    let achieved = total as f64 / took.as_secs_f64();
    let head = ["", "commits/s", "p50 ms", "p99 ms", "max ms"];
    let row = [
        "commit to visible".to_owned(),
        format!("{achieved:.0}"),
        format!("{p50:.0}"),
        format!("{p99:.0}"),
        format!("{worst:.0}"),
    ];
    print(&[head.map(str::to_owned).to_vec(), row.to_vec()]);
    Ok(
        json!({ "transactions": total, "commits_per_second": achieved, "p50_ms": p50, "p99_ms": p99, "max_ms": worst }),
    )
}

/// Commits on a fixed timetable, and notes when each was answered.
async fn write(
    source: Source,
    rate: u32,
    total: u64,
    commits: Arc<Mutex<Vec<Instant>>>,
) -> Result<Duration> {
    let mut conn = source.connect().await?;
    let mut timetable = tokio::time::interval(Duration::from_secs(1) / rate);
    let started = Instant::now();
    for n in 0..total {
        timetable.tick().await;
        conn.query_drop(format!(
            "INSERT INTO ticks (at, note) VALUES (NOW(6), 'tick {n}')"
        ))
        .await?;
        commits
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Instant::now());
    }
    Ok(started.elapsed())
}
