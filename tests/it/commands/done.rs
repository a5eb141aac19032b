//! A pipe that has copied what it was to copy reads no more: what it lacks stays said, and whoever waits for its end hears
//! of it, however often.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{Pipe, Stage};

use super::{give_well, name_of, run_once, state, table_state, with_tables};
use crate::support::{START, launch, once, start};

once! {
    a_copy_that_lacks_a_table_is_short_of_its_file_at_every_start: 300,
}

async fn a_copy_that_lacks_a_table_is_short_of_its_file_at_every_start() -> Result<()> {
    let stage = with_tables(SourceKind::MySql, 1).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE bad (day DATE PRIMARY KEY)",
            "SET sql_mode = ''",
            "INSERT INTO bad VALUES ('0000-00-00')",
        ])
        .await?;
    let of = |tables: &[&str]| {
        let mut file = stage.pipe_file(tables);
        file["mode"] = json!("snapshot");
        file
    };
    let bad = name_of(&stage, "bad");
    let mut pipe = start(launch(&of(&["t", "bad"])))?;
    pipe.wait_state("Completed", START).await?;
    pipe.stop().await?;
    for again in 0..2 {
        let (code, said) = run_once(&pipe).await?;
        ensure!(code == 1 && said.contains(&bad), "{again}: {code}: {said}");
    }
    pipe.restart()?;
    let document = pipe.wait_state("Completed", START).await?;
    ensure!(
        table_state(&document, &bad) == "Quarantined",
        "{document:#}"
    );
    for verb in ["retry", "skip"] {
        let order = json!({ "command": verb, "table": bad });
        let (code, answer) = pipe.order(order).await?;
        ensure!(
            code == 409 && answer["hint"].to_string().contains("pipewright resync"),
            "{verb}: {code}: {answer:#}"
        );
    }
    pipe.stop().await?;
    with_one_table_more(&stage, &mut pipe, &of(&["t", "bad", "u"])).await
}

/// The file has a table that the copy is to have as well.
async fn with_one_table_more(stage: &Stage, pipe: &mut Pipe, file: &Value) -> Result<()> {
    stage.source.execute("DELETE FROM bad").await?;
    let added = name_of(stage, "u");
    pipe.change_file(file);
    pipe.restart()?;
    let is_told = |document: &Value| {
        let mut reasons = document["reasons"].as_array().into_iter().flatten();
        reasons.any(|reason| {
            let (message, remedy) = (&reason["message"], &reason["remedy"]);
            message.to_string().contains(&added) && remedy.to_string().contains("resync")
        })
    };
    let document = pipe.wait_for("the refusal", START, is_told).await?;
    ensure!(document["state"] == "Completed", "{document:#}");
    pipe.stop().await?;
    let (code, said) = run_once(pipe).await?;
    ensure!(code == 1, "{code}: {said}");

    pipe.restart()?;
    pipe.wait_for("the refusal again", START, is_told).await?;
    give_well(pipe, &state("resync")).await?;
    let is_whole = |document: &Value| {
        let streams = |table| table_state(document, &name_of(stage, table)) == "Streaming";
        document["state"] == "Completed" && ["t", "bad", "u"].into_iter().all(streams)
    };
    let document = pipe.wait_for("the whole copy", START, is_whole).await?;
    ensure!(document["reasons"] == json!([]), "{document:#}");
    pipe.stop().await?;
    let (code, said) = run_once(pipe).await?;
    ensure!(code == 0, "{code}: {said}");
    let copied = format!("SELECT count() FROM `{}`.u_current", stage.database);
    let here = stage.source.number("SELECT COUNT(*) FROM u").await?;
    let there = stage.clickhouse.number(&copied).await?;
    ensure!(here == there, "{here} rows, and {there} copied");
    Ok(())
}
