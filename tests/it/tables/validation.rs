//! What a load would be refused is found before anything is changed for it.

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable;
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{Pipe, Stage};

use super::{name_of, order, resync, table, two_tables};
use crate::support::{CATCH_UP, START, assert_caught_up, on_both_sources, running_with};

on_both_sources! {
    a_load_that_the_source_would_refuse_is_not_begun: 300,
}

/// An account that may read these tables, each by a grant of its own.
async fn with_account(stage: &Stage, tables: &[&str]) -> Result<Value> {
    let user = format!("u_{}", stage.database);
    let follow = match stage.kind().is_mariadb() {
        true => "REPLICATION SLAVE, BINLOG MONITOR",
        false => "REPLICATION SLAVE, REPLICATION CLIENT",
    };
    stage
        .source
        .execute_all([
            format!("CREATE USER '{user}'@'%' IDENTIFIED BY 'secret'"),
            format!("GRANT {follow} ON *.* TO '{user}'@'%'"),
        ])
        .await?;
    let mut file = stage.pipe_file(tables);
    for entry in file["tables"].as_array().into_iter().flatten() {
        let name = entry["source"].as_str().context("a table by name")?;
        let grant = format!("GRANT SELECT ON {name} TO '{user}'@'%'");
        stage.source.execute(grant).await?;
    }
    file["source"]["user"] = json!(user);
    file["source"]["password"] = json!("secret");
    Ok(file)
}

/// Takes the right to read `t` away.
async fn revoke(stage: &Stage) -> Result<()> {
    let (name, user) = (name_of(stage, "t"), format!("u_{}", stage.database));
    let revoke = format!("REVOKE SELECT ON {name} FROM '{user}'@'%'");
    stage.source.execute(revoke).await
}

/// Each load that concerns `t` is refused with the statement that mends it, which is given back.
async fn refused(stage: &Stage, pipe: &Pipe, orders: &[Value], at: &str) -> Result<String> {
    let before = pipe.status().await?;
    let mut grant = String::new();
    for order in orders {
        let (status, answer) = pipe.order(order.clone()).await?;
        grant = answer["hint"].as_str().unwrap_or_default().to_owned();
        ensure!(
            status == 422
                && answer["code"] == "source_denied"
                && answer["detail"].to_string().contains(&name_of(stage, "t"))
                && grant.starts_with("GRANT SELECT ON "),
            "{order} at {at}: {status}: {answer:#}"
        );
        let after = pipe.status().await?;
        ensure!(after["state"] == at, "{order} at {at}: {after:#}");
        for name in ["t", "u"] {
            let (was, is) = (table(&before, name), table(&after, name));
            ensure!(
                was["state"] == is["state"] && was["snapshot"] == is["snapshot"],
                "{order} at {at}: {was:#}, and {is:#}"
            );
        }
        stage.assert_no_load_left().await?;
    }
    Ok(grant)
}

async fn a_load_that_the_source_would_refuse_is_not_begun(kind: SourceKind) -> Result<()> {
    let stage = two_tables(kind).await?;
    let alter = "ALTER TABLE t MODIFY b INT NOT NULL";
    stage.source.execute(alter).await?;
    let mut file = with_account(&stage, &["t", "u"]).await?;
    let mut pipe = running_with(&file).await?;
    let one = json!({ "command": "resync", "table": name_of(&stage, "t") });
    let orders = [one.clone(), json!({ "command": "resync" })];

    revoke(&stage).await?;
    let grant = refused(&stage, &pipe, &orders, "Running").await?;
    let changes = |id: u32| {
        [
            format!("INSERT INTO t VALUES ({id}, 'meanwhile', 1)"),
            format!("UPDATE u SET a = 'at {id}' WHERE id = 1"),
        ]
    };
    stage.source.execute_all(changes(10)).await?;
    assert_caught_up(&stage, &mut pipe, &["t", "u"]).await?;
    // It concerns no load but that table's.
    order(&pipe, &stage, "resync", "u").await?;
    pipe.wait_state("Running", CATCH_UP).await?;

    let (status, answer) = pipe.command("pause").await?;
    ensure!(status == 200, "{status}: {answer:#}");
    pipe.wait_state("Paused", CATCH_UP).await?;
    refused(&stage, &pipe, &orders, "Paused").await?;
    stage.source.execute(&grant).await?;
    stage.source.execute_all(changes(11)).await?;
    // Who holds the table keeps the load from beginning, and nobody from asking for it.
    let mut held = stage.source.connect().await?;
    held.query_drop("LOCK TABLES t WRITE").await?;
    let (status, answer) = pipe.order(one).await?;
    held.query_drop("UNLOCK TABLES").await?;
    ensure!(status == 200, "{status}: {answer:#}");
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(&stage, &mut pipe, &["t", "u"]).await?;

    // Another key than the targets were made with.
    pipe.stop().await?;
    revoke(&stage).await?;
    file["tables"][0]["order_by"] = json!(["b", "id"]);
    pipe.change_file(&file);
    pipe.restart()?;
    pipe.wait_for("failure", START, |document| document["state"] == "Failed")
        .await?;
    let all = &orders[1..];
    let target = format!("SELECT count() FROM `{}`.t_current", stage.database);
    let rows = stage.clickhouse.number(&target).await?;
    refused(&stage, &pipe, all, "Failed").await?;
    ensure!(stage.clickhouse.number(&target).await? == rows);
    stage.source.execute(&grant).await?;
    stage.source.execute_all(changes(12)).await?;
    resync(&pipe).await?;
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(&stage, &mut pipe, &["t", "u"]).await?;
    stage.assert_no_load_left().await
}
