//! Tables of somebody else that stand, after a crash, where those of an exchange stood: they are told apart by their UUIDs.

use anyhow::{Context, Result, ensure};
use pipewright::fault::VARIABLE;
use serde_json::json;
use testbed::SourceKind;
use testbed::harness::{Pipe, Stage};

use super::{name_of, order, two_tables, wait_table};
use crate::support::{CATCH_UP, START, assert_caught_up, once, running, wait_aborted};

once! {
    a_table_that_took_anothers_name_is_neither_exchanged_nor_dropped: 300,
}

/// Ends the process at this point of an exchange and gives the name of the load's table to another table. Its name.
async fn taken_at(point: &str, stage: &Stage, pipe: &mut Pipe) -> Result<String> {
    pipe.change_env(VARIABLE, Some(point));
    pipe.restart()?;
    pipe.wait_state("Running", START).await?;
    let resync = json!({ "command": "resync", "table": name_of(stage, "t") });
    let (status, answer) = pipe.order(resync).await?;
    ensure!(status == 200, "{status}: {answer:#}");
    wait_aborted(pipe).await.context("an exchange")?;
    let database = &stage.database;
    let sql = format!(
        "SELECT name FROM system.tables WHERE database = '{database}' AND name LIKE 't\\_resync%'"
    );
    let name = stage.clickhouse.query(&sql).await?;
    for sql in [
        format!("RENAME TABLE `{database}`.`{name}` TO `{database}`.`of_{name}`"),
        format!("CREATE TABLE `{database}`.`{name}` (id Int32) ENGINE = MergeTree ORDER BY id"),
        format!("INSERT INTO `{database}`.`{name}` VALUES (99)"),
    ] {
        stage.clickhouse.query(&sql).await?;
    }
    pipe.change_env(VARIABLE, None);
    pipe.restart()?;
    Ok(name)
}

async fn a_table_that_took_anothers_name_is_neither_exchanged_nor_dropped() -> Result<()> {
    let stage = two_tables(SourceKind::MariaDb).await?;
    let mut pipe = running(&stage, &["t", "u"]).await?;
    // Before the exchange it stands where the fresh table stood, behind it where the old one did.
    for (point, id) in [("swap:3", 1), ("swap:4", 2)] {
        let name = taken_at(point, &stage, &mut pipe).await?;
        if point == "swap:3" {
            let document = wait_table(&mut pipe, "t", "Quarantined").await?;
            let reason = &document["reasons"][0];
            ensure!(
                reason["message"]
                    .to_string()
                    .contains("no longer the table")
                    && reason["remedy"].to_string().contains("resync"),
                "{document:#}"
            );
            order(&pipe, &stage, "resync", "t").await?;
        }
        pipe.wait_state("Running", CATCH_UP).await?;
        let delete = format!("DELETE FROM t WHERE id = {id}");
        stage.source.execute(delete).await?;
        assert_caught_up(&stage, &mut pipe, &["t", "u"]).await?;
        let database = &stage.database;
        let sql = format!("SELECT groupArray(id) FROM `{database}`.`{name}`");
        let left = stage.clickhouse.query(&sql).await?;
        ensure!(left == "[99]", "{point}: {left}");
        let sql = format!("DROP TABLE `{database}`.`{name}` SYNC");
        stage.clickhouse.query(&sql).await?;
    }
    Ok(())
}
