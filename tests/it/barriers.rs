//! A statement is applied once the rows before it are durable, also those that somebody else is still sending.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use testbed::SourceKind;
use testbed::harness::{Pipe, Proxy, Stage};

use crate::support::{CATCH_UP, assert_caught_up, on_both_sources, running_with};

on_both_sources! {
    a_statement_waits_for_the_rows_on_their_way: 200,
    rows_on_their_way_outlive_a_kill_behind_a_statement: 200,
}

const TABLES: [&str; 1] = ["gated"];

/// As long as the pipe would take for a statement that waits for nothing, and then some.
const MEANWHILE: Duration = Duration::from_millis(800);

/// A pipe that reaches ClickHouse through a proxy, which can keep its inserts waiting.
async fn behind_a_gate(kind: SourceKind) -> Result<(Stage, Proxy, Pipe)> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE gated (id INT PRIMARY KEY, a INT)",
            "INSERT INTO gated VALUES (1, 1), (2, 2), (3, 3)",
        ])
        .await?;
    let proxy = Proxy::before(stage.clickhouse_server.http_port()).await?;
    let mut file = stage.pipe_file(&TABLES);
    file["destination"]["url"] = json!(proxy.url());
    file["sync"] = json!({ "interval": "100ms" });
    let mut pipe = running_with(&file).await?;
    assert_caught_up(&stage, &mut pipe, &TABLES).await?;
    Ok((stage, proxy, pipe))
}

/// Makes `change`, whose insert waits at the gate, and then `statement`; nothing of it may be done until the gate opens.
async fn overtake(
    stage: &Stage,
    proxy: &Proxy,
    pipe: &Pipe,
    change: &str,
    statement: &str,
) -> Result<()> {
    proxy.close_gate("gated", 0);
    stage.source.execute(change).await?;
    proxy.wait_gated(CATCH_UP).await?;
    let before = pipe.status().await?;
    stage.source.execute(statement).await?;
    tokio::time::sleep(MEANWHILE).await;
    let now = pipe.status().await?;
    ensure!(
        now["checkpoint"]["position"] == before["checkpoint"]["position"],
        "`{statement}` has moved the checkpoint past rows that are on their way: {before:#} {now:#}"
    );
    Ok(())
}

/// pitfall 101: the rows on their way would come behind tombstones that do not know them, or with a column that is gone.
async fn a_statement_waits_for_the_rows_on_their_way(kind: SourceKind) -> Result<()> {
    let (stage, proxy, mut pipe) = behind_a_gate(kind).await?;
    for (change, statement) in [
        (
            "DELETE FROM gated WHERE id = 2",
            "ALTER TABLE gated RENAME COLUMN a TO b",
        ),
        ("INSERT INTO gated VALUES (5, 5)", "TRUNCATE TABLE gated"),
    ] {
        overtake(&stage, &proxy, &pipe, change, statement).await?;
        proxy.open_gate();
        assert_caught_up(&stage, &mut pipe, &TABLES).await?;
        let status = pipe.status().await?;
        ensure!(
            status["state"] == "Running" && status["reasons"] == json!([]),
            "{statement}: {status:#}"
        );
    }
    Ok(())
}

/// A checkpoint behind the statement would be one behind rows that have never arrived.
async fn rows_on_their_way_outlive_a_kill_behind_a_statement(kind: SourceKind) -> Result<()> {
    let (stage, proxy, mut pipe) = behind_a_gate(kind).await?;
    let change = "DELETE FROM gated WHERE id = 2";
    overtake(
        &stage,
        &proxy,
        &pipe,
        change,
        "ALTER TABLE gated COMMENT 'x'",
    )
    .await?;
    // What waits at the gate goes nowhere, whoever opens it.
    proxy.stall();
    pipe.kill9()?;
    proxy.open_gate();
    pipe.restart()?;
    assert_caught_up(&stage, &mut pipe, &TABLES).await
}
