//! Inserts that take long: a pipe that is to finish what is in flight has to wait for them.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use testbed::harness::Stage;

use super::CATCH_UP;

/// Steps of an insert, each of three seconds, the longest that ClickHouse sleeps in one block.
const STEPS: u32 = 4;

/// Inserts into one table take long.
pub(crate) struct SlowInserts<'a> {
    stage: &'a Stage,
    database: String,
    table: String,
}

impl<'a> SlowInserts<'a> {
    /// Views, one behind the other, which an insert waits for.
    pub(crate) async fn begin(stage: &'a Stage, table: &str) -> Result<Self> {
        Self::begin_in(stage, &stage.database, table).await
    }

    /// The same in another database than the stage's.
    pub(crate) async fn begin_in(stage: &'a Stage, database: &str, table: &str) -> Result<Self> {
        let mut from = table.to_owned();
        for step in 0..STEPS {
            for sql in [
                format!("CREATE TABLE `{database}`.slow_{step} (s UInt8) ENGINE = Null"),
                format!(
                    "CREATE MATERIALIZED VIEW `{database}`.slow_view_{step} TO `{database}`.slow_{step} \
                     AS SELECT sleep(3) AS s FROM `{database}`.{from}"
                ),
            ] {
                stage.clickhouse.query(&sql).await?;
            }
            from = format!("slow_{step}");
        }
        Ok(Self {
            stage,
            database: database.to_owned(),
            table: table.to_owned(),
        })
    }

    /// Waits until one is under way, of this table: those of checkpoints are quick.
    pub(crate) async fn wait_insert(&self) -> Result<()> {
        let sql = format!(
            "SELECT count() FROM system.processes WHERE startsWith(query, 'INSERT INTO `{}`.`{}` ')",
            self.database, self.table
        );
        let until = Instant::now() + CATCH_UP;
        while self.stage.clickhouse.number(&sql).await? == 0 {
            ensure!(Instant::now() < until, "nothing is inserted");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// From now on they fail when they have taken their time.
    pub(crate) async fn refuse(&self) -> Result<()> {
        let database = &self.database;
        for sql in [
            format!("CREATE TABLE `{database}`.slow_end (s UInt8) ENGINE = Null"),
            format!(
                "CREATE MATERIALIZED VIEW `{database}`.slow_view_end TO `{database}`.slow_end \
                 AS SELECT throwIf(s = 0) AS s FROM `{database}`.slow_{}",
                STEPS - 1
            ),
        ] {
            self.stage.clickhouse.query(&sql).await?;
        }
        Ok(())
    }

    /// From now on inserts are as they were.
    pub(crate) async fn end(self) -> Result<()> {
        for what in ["slow_view_end", "slow_end"] {
            let sql = format!("DROP TABLE IF EXISTS `{}`.{what} SYNC", self.database);
            self.stage.clickhouse.query(&sql).await?;
        }
        for step in 0..STEPS {
            for what in ["slow_view", "slow"] {
                let sql = format!("DROP TABLE `{}`.{what}_{step} SYNC", self.database);
                self.stage.clickhouse.query(&sql).await?;
            }
        }
        Ok(())
    }
}
