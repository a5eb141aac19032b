//! Settings that a pipe runs by already: its work goes on.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{Pipe, Stage};

use super::{name_of, with_tables};
use crate::connections::with_account;
use crate::support::{CATCH_UP, assert_caught_up, on_both_sources, running_with};

on_both_sources! {
    a_setting_that_holds_already_leaves_the_work_alone: 240,
}

/// The connection that the pipe's stream comes over.
async fn stream(stage: &Stage, user: &str) -> Result<u64> {
    let sql = format!(
        "SELECT id FROM information_schema.processlist WHERE user = '{user}' AND command LIKE 'Binlog Dump%'"
    );
    let open: Vec<u64> = stage.source.rows(sql).await?;
    // A server may take a moment to see that a former one has gone.
    open.into_iter().max().context("no stream")
}

async fn set(pipe: &Pipe, sync: Value) -> Result<Value> {
    let (status, document) = pipe.change(json!({ "sync": sync })).await?;
    ensure!(status == 200, "{sync}: {status}: {document:#}");
    Ok(document)
}

async fn a_setting_that_holds_already_leaves_the_work_alone(kind: SourceKind) -> Result<()> {
    let stage = with_tables(kind, 1).await?;
    let user = with_account(&stage, "its-own").await?;
    let mut file = stage.pipe_file(&["t"]);
    file["source"]["user"] = json!(user);
    file["source"]["password"] = json!("its-own");
    let mut pipe = running_with(&file).await?;
    let interval = &file["sync"]["interval"];
    ensure!(interval.is_string(), "{file:#}");
    let first = stream(&stage, &user).await?;
    for unchanged in [
        json!({}),
        json!({ "interval": interval }),
        json!({ "interval": null }),
    ] {
        let document = set(&pipe, unchanged.clone()).await?;
        ensure!(document["drift"] == json!([]), "{unchanged}: {document:#}");
        assert_caught_up(&stage, &mut pipe, &["t"]).await?;
        let now = stream(&stage, &user).await?;
        ensure!(now == first, "{unchanged} began another run");
    }
    // A table in service has nothing to go on with.
    for verb in ["retry", "skip"] {
        let order = json!({ "command": verb, "table": name_of(&stage, "t") });
        let (status, document) = pipe.order(order).await?;
        ensure!(status == 200, "{verb}: {status}: {document:#}");
        assert_caught_up(&stage, &mut pipe, &["t"]).await?;
        let now = stream(&stage, &user).await?;
        ensure!(now == first, "{verb} began another run");
    }

    let document = set(&pipe, json!({ "interval": "300ms", "max_rows": 777 })).await?;
    ensure!(
        document["drift"].to_string().contains("300ms"),
        "{document:#}"
    );
    pipe.wait_state("Running", CATCH_UP).await?;
    stage
        .source
        .execute("INSERT INTO t (a) VALUES ('more')")
        .await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    let second = stream(&stage, &user).await?;
    ensure!(second != first, "the settings were not taken up");
    set(&pipe, json!({ "max_rows": 777 })).await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    ensure!(stream(&stage, &user).await? == second);

    // What the file says counts again, and nothing is left of the commands.
    let document = set(&pipe, json!({ "interval": null, "max_rows": null })).await?;
    ensure!(document["drift"] == json!([]), "{document:#}");
    let order = json!({ "command": "resync", "snapshot": { "threads_per_table": null } });
    let (status, document) = pipe.order(order).await?;
    ensure!(
        status == 200 && document["drift"] == json!([]),
        "{status}: {document:#}"
    );
    pipe.wait_state("Running", CATCH_UP).await?;
    let path = format!("/v1/pipes/{}/file", stage.database);
    let written = pipe.get(&path).await?;
    let sync = written["sync"].as_object().context("sync")?;
    ensure!(!sync.values().any(Value::is_null), "{written:#}");
    ensure!(
        written["snapshot"]["threads_per_table"].is_null(),
        "{written:#}"
    );
    assert_caught_up(&stage, &mut pipe, &["t"]).await
}
