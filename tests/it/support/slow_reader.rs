//! Somebody who reads a table at ClickHouse for as long as he is let: it cannot be dropped meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use testbed::harness::{ClickHouse, Stage};
use tokio::task::JoinHandle;

use super::CATCH_UP;

/// A query under way.
pub(crate) struct SlowReader {
    clickhouse: ClickHouse,
    database: String,
    query: JoinHandle<Result<String>>,
}

impl SlowReader {
    /// Begins to read `table`, and waits until ClickHouse has begun too.
    pub(crate) async fn begin(stage: &Stage, table: &str) -> Result<Self> {
        let (clickhouse, database) = (stage.clickhouse.clone(), stage.database.clone());
        let sql = format!(
            "SELECT sleepEachRow(0.5) FROM `{database}`.{table} SETTINGS max_block_size = 1, max_threads = 1, \
             function_sleep_max_microseconds_per_block = 1000000000"
        );
        let query = tokio::spawn({
            let clickhouse = clickhouse.clone();
            async move { clickhouse.query(&sql).await }
        });
        let reader = Self {
            clickhouse,
            database,
            query,
        };
        let reads = format!(
            "SELECT count() FROM system.processes WHERE {}",
            reader.own()
        );
        let until = Instant::now() + CATCH_UP;
        while reader.clickhouse.number(&reads).await? == 0 {
            ensure!(
                Instant::now() < until && !reader.query.is_finished(),
                "nobody reads"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(reader)
    }

    /// Waits until somebody wants to drop a table of that database, and has to wait.
    pub(crate) async fn wait_in_the_way(&self) -> Result<()> {
        let drops = format!(
            "SELECT count() FROM system.processes WHERE query LIKE 'DROP TABLE%{}%'",
            self.database
        );
        let until = Instant::now() + CATCH_UP;
        while self.clickhouse.number(&drops).await? == 0 {
            ensure!(Instant::now() < until, "nothing is dropped");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    fn own(&self) -> String {
        format!("query LIKE 'SELECT sleepEachRow%{}%'", self.database)
    }

    /// Reads no longer.
    pub(crate) async fn end(self) -> Result<()> {
        let kill = format!("KILL QUERY WHERE {}", self.own());
        self.clickhouse.query(&kill).await?;
        // It was ended, and has nothing to say.
        self.query.await.ok();
        Ok(())
    }

    /// The same once what is asked for meanwhile must be on its way.
    pub(crate) async fn end_later(self) -> Result<()> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.end().await
    }
}
