//! More letters than an answer holds, and larger ones.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{Comparison, Pipe, Stage, usage_of};

use super::{letters_of, mend, through};
use crate::support::{CATCH_UP, START, launch, start};

pub(super) async fn letters_beyond_a_page_are_all_shown_and_all_sent_again() -> Result<()> {
    let stage = Stage::shared(SourceKind::MySql).await?;
    let rows: Vec<String> = (1..=2500).map(|id| format!("(3, {id})")).collect();
    let insert = format!("INSERT INTO failing VALUES {}, (1, 0)", rows.join(", "));
    stage
        .source
        .execute_all([
            "CREATE TABLE failing (kind BIGINT NOT NULL, id INT PRIMARY KEY)",
            "CREATE TABLE others (id BIGINT PRIMARY KEY)",
            insert.as_str(),
        ])
        .await?;
    let mut pipe = start(launch(&through(&stage, "reject_three").await?))?;
    pipe.wait_state("Running", START).await?;
    all_are_shown(&stage, &pipe).await?;
    mend(&stage, &mut pipe).await?;
    let path = format!("/v1/pipes/{}/dead-letters/replay?limit=700", stage.database);
    let (status, sent) = pipe.call(Method::POST, &path, "").await?;
    ensure!(
        status == 200 && sent["passed"] == 700 && sent["next"].is_string(),
        "{status} {sent:#}"
    );
    let server = pipe.url();
    let replay = ["dead-letters", "replay", "--json", "--server", &server];
    let sent = pipe.cli(&replay).await?;
    let sent: Value = serde_json::from_str(&sent.stdout)?;
    ensure!(sent == json!({ "passed": 1800, "failing": 0 }), "{sent:#}");
    ensure!(stage.assert(Comparison::of("failing")).await? == 2501);
    ensure!(letters_of(&stage, &pipe).await?.is_empty());
    Ok(())
}

/// Page by page over REST, and by the command line as many as are asked for.
async fn all_are_shown(stage: &Stage, pipe: &Pipe) -> Result<()> {
    let path = format!("/v1/pipes/{}/dead-letters", stage.database);
    let (mut keys, mut sizes, mut after) = (BTreeSet::new(), Vec::new(), String::new());
    loop {
        let listed = pipe.get(&format!("{path}?limit=999{after}")).await?;
        let letters = listed["dead_letters"].as_array().context("letters")?;
        keys.extend(letters.iter().map(|letter| letter["key"].to_string()));
        sizes.push(letters.len());
        match listed["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    ensure!(sizes == [999, 999, 502], "pages of {sizes:?}");
    ensure!(keys.len() == 2500, "{} letters", keys.len());
    let server = pipe.url();
    let list = ["dead-letters", "list", "--json", "--server", &server];
    let some = pipe
        .cli(&[&list[..], &["--limit", "1200"]].concat())
        .await?;
    let some: Value = serde_json::from_str(&some.stdout)?;
    let next = some["next"].as_str().context("there are more")?;
    let rest = [&list[..], &["--limit", "5000", "--after", next]].concat();
    let rest: Value = serde_json::from_str(&pipe.cli(&rest).await?.stdout)?;
    let count = |listed: &Value| listed["dead_letters"].as_array().map(Vec::len);
    ensure!(
        count(&some) == Some(1200) && count(&rest) == Some(1300) && rest.get("next").is_none(),
        "{:?} and {:?}",
        count(&some),
        count(&rest)
    );
    Ok(())
}

/// What the process may have at its peak for a budget of 64 MiB: engine, code and the guest's instances are beside it.
const PEAK_BYTES: u64 = 400 << 20;

pub(super) async fn letters_of_a_mebibyte_each_are_kept_in_bounded_memory() -> Result<()> {
    const ROWS: u64 = 400;
    let stage = Stage::shared(SourceKind::MySql).await?;
    let rows = |from: u64| {
        format!(
            "INSERT INTO failing WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20) \
             SELECT {from} + i, REPEAT(CHAR(65 + i % 26), 1048576) FROM n"
        )
    };
    let inserts = |from: u64| (from..from + ROWS / 2).step_by(20).map(rows);
    let made = [
        "CREATE TABLE failing (id BIGINT PRIMARY KEY, body LONGTEXT)",
        "CREATE TABLE others (id BIGINT PRIMARY KEY)",
    ];
    stage.source.execute_all(made).await?;
    stage.source.execute_all(inserts(0)).await?;
    let mut file = through(&stage, "panic").await?;
    file["memory"] = json!("64MiB");
    let mut pipe = start(launch(&file))?;
    let streams = |status: &Value| status["tables"][0]["state"] == "Streaming";
    pipe.wait_for("the load", CATCH_UP, streams).await?;
    stage.source.execute_all(inserts(ROWS / 2)).await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let sql = format!(
        "SELECT count(), sum(length(JSONExtractString(row, 'body'))) FROM `{}`._pipewright_dead_letters FINAL",
        stage.database
    );
    let kept = stage.clickhouse.query(&sql).await?;
    ensure!(
        kept.trim() == format!("{ROWS}\t{}", ROWS << 20),
        "letters and their bytes: {kept}"
    );
    let (_, peak_bytes) = usage_of(pipe.pid().context("the pipe runs")?)?;
    ensure!(peak_bytes < PEAK_BYTES, "{peak_bytes} bytes at its peak");
    Ok(())
}
