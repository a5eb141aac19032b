//! Rows that a plugin rejects or fails on: kept, shown, and sent again with the versions that they had.

mod many;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pipewright::fault::VARIABLE;
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use testbed::SourceKind;
use testbed::harness::{Comparison, Pipe, Stage, workspace_folder};

use many::{
    letters_beyond_a_page_are_all_shown_and_all_sent_again,
    letters_of_a_mebibyte_each_are_kept_in_bounded_memory,
};

use crate::connections::{end_connections, with_account};
use crate::support::{
    CATCH_UP, START, hostile_guest, launch, on_both_sources, once, start, wait_aborted,
};

on_both_sources! {
    rows_that_fail_are_kept_and_pass_once_the_plugin_is_mended: 400,
}

once! {
    a_letter_waits_until_its_tombstone_is_there_for_good: 240,
    a_letter_without_a_column_that_its_table_has_by_now_fails_alone: 240,
    a_letter_is_never_sent_into_another_column_of_its_columns_name: 240,
    letters_beyond_a_page_are_all_shown_and_all_sent_again: 240,
    a_replaced_plugin_file_is_taken_up_by_a_resume_and_never_by_accident: 300,
    a_plugin_that_takes_no_configuration_in_time_costs_its_own_table: 300,
    letters_of_a_mebibyte_each_are_kept_in_bounded_memory: 400,
}

async fn through(stage: &Stage, crime: &str) -> Result<Value> {
    let guest = hostile_guest().await?;
    let failing = format!("{}.failing", stage.database);
    let others = format!("{}.others", stage.database);
    let mut file = stage.pipe_file_of(vec![
        json!({ "source": failing, "transforms": ["sent"] }),
        json!({ "source": others }),
    ]);
    file["transforms"]["sent"] = json!({
        "plugin": guest,
        "config": { "crime": crime },
        "on_error": "dead_letter",
        "limits": { "time": "500ms" },
        "grants": { "lookup": { "any": workspace_folder().join("Cargo.toml") } },
    });
    Ok(file)
}

async fn rows_that_fail_are_kept_and_pass_once_the_plugin_is_mended(
    kind: SourceKind,
) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE failing (id BIGINT PRIMARY KEY, label VARCHAR(50) NULL, at DATETIME(6) NULL)",
            "CREATE TABLE others (id BIGINT PRIMARY KEY)",
            "INSERT INTO failing VALUES (1, 'one', NULL), (2, NULL, '2024-02-29 12:00:00.123456'), (3, 'bad', NULL)",
            "INSERT INTO others VALUES (1)",
        ])
        .await?;
    let file = through(&stage, "panic_on_three").await?;
    let mut pipe = start(launch(&file))?;
    pipe.wait_state("Running", START).await?;
    let good = Comparison::of("failing").only_where("id <> 3");
    stage.assert(good.clone()).await?;
    let before = executed(&stage).await?;
    stage
        .source
        .execute_all([
            "INSERT INTO failing VALUES (4, 'four', NULL)",
            "UPDATE failing SET label = 'worse', at = '2001-01-01 00:00:00' WHERE id = 3",
            "UPDATE failing SET label = 'better' WHERE id = 1",
            "INSERT INTO others VALUES (2)",
        ])
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let places = [before, executed(&stage).await?];
    stage.assert(good).await?;
    stage.assert_same("others").await?;
    let status = failed_rows_are_told(&mut pipe).await?;
    let failed = &status["tables"][0]["failed_rows"];
    let name = status["pipe"].as_str().unwrap_or_default();
    let listed = pipe.get(&format!("/v1/pipes/{name}/dead-letters")).await?;
    let letters = listed["dead_letters"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    ensure!(letters.len() == 2, "listed {listed}");
    let row: Value = serde_json::from_str(letters[1]["row"].as_str().unwrap_or_default())?;
    ensure!(row["label"] == "worse" && row["id"] == 3, "kept {row}");
    says_what_failed_and_where(&stage, &letters, &file, &places).await?;
    // Once no more rows fail for a minute nothing stands against the pipe; the letters stay.
    if kind == SourceKind::MariaDb {
        let status = pipe.wait_state("Running", CATCH_UP).await?;
        ensure!(
            status["reasons"] == json!([]) && status["tables"][0]["failed_rows"] == *failed,
            "{status:#}"
        );
    }
    letters_pass_once_the_plugin_is_mended(&stage, &mut pipe).await?;
    letters_end_with_what_they_are_of(&stage, &mut pipe).await
}

/// In status and metrics, with the fault's name. The status.
async fn failed_rows_are_told(pipe: &mut Pipe) -> Result<Value> {
    let status = pipe.wait_state("Degraded", CATCH_UP).await?;
    let reason = &status["reasons"][0];
    ensure!(
        reason["code"] == "plugin_trap"
            && reason["table"] == status["tables"][0]["source"]
            && reason["remedy"].to_string().contains("dead-letters"),
        "{status:#}"
    );
    let table = &status["tables"][0];
    let failed =
        json!([{ "plugin": "sent", "fault": "plugin_trap", "dead_letters": 2, "skipped": 0 }]);
    ensure!(
        table["failed_rows"] == failed,
        "counted {}",
        table["failed_rows"]
    );
    let metrics = pipe.get_text("/metrics").await?;
    let counted = metrics.lines().any(|line| {
        line.starts_with("pipewright_plugin_rows_failed_total")
            && line.contains("fault=\"plugin_trap\"")
            && line.contains("action=\"dead_letter\"")
            && line.ends_with(" 2")
    });
    ensure!(counted, "not in the metrics");
    Ok(status)
}

/// The letters pass, the newer one wins, and none is left.
async fn letters_pass_once_the_plugin_is_mended(stage: &Stage, pipe: &mut Pipe) -> Result<()> {
    ensure!(pipe.stop().await? == 0);
    pipe.change_file(&through(stage, "none").await?);
    pipe.restart()?;
    pipe.wait_state("Running", START).await?;
    let server = pipe.url();
    let replayed = pipe
        .cli(&["dead-letters", "replay", "--json", "--server", &server])
        .await?;
    ensure!(replayed.code == 0, "{}{}", replayed.stdout, replayed.stderr);
    let answer: Value = serde_json::from_str(&replayed.stdout)?;
    ensure!(
        answer == json!({ "passed": 2, "failing": 0 }),
        "replayed {answer}"
    );
    stage.assert(Comparison::of("failing")).await?;
    let left = pipe
        .cli(&["dead-letters", "list", "--json", "--server", &server])
        .await?;
    let left: Value = serde_json::from_str(&left.stdout)?;
    ensure!(left["dead_letters"] == json!([]), "left {left}");
    Ok(())
}

/// Each of a letter's columns is what the source and the plugin are. `places` are the
/// source's before the failing update and behind the flush with it.
async fn says_what_failed_and_where(
    stage: &Stage,
    letters: &[Value],
    file: &Value,
    places: &[String; 2],
) -> Result<()> {
    let component = file["transforms"]["sent"]["plugin"].as_str();
    let component = std::fs::read(component.context("the plugin's file")?)?;
    let digest = digest_of(&component);
    for (letter, op) in letters.iter().zip(["load", "update"]) {
        ensure!(
            letter["table"] == format!("{}.failing", stage.database)
                && letter["key"] == "[3]"
                && letter["op"] == op
                && letter["plugin"] == "sent"
                && letter["digest"] == digest.as_str()
                && letter["code"] == "plugin_trap",
            "{letter:#} with the digest {digest}"
        );
        let reason = letter["reason"].as_str().unwrap_or_default();
        ensure!(
            reason.contains("`sent`") && reason.contains("as configured"),
            "{letter:#}"
        );
    }
    let at = |letter: &Value| letter["position"].as_str().unwrap_or_default().to_owned();
    ensure!(
        at(&letters[0]).starts_with("load, partition "),
        "{letters:#?}"
    );
    let (at, [before, after]) = (at(&letters[1]), places);
    ensure!(
        is_within(stage, &at, after).await? && !is_within(stage, &at, before).await?,
        "`{at}` is not between `{before}` and `{after}`"
    );
    Ok(())
}

fn digest_of(component: &[u8]) -> String {
    let digest = Sha256::digest(component);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The GTID set that the source has executed.
async fn executed(stage: &Stage) -> Result<String> {
    let statement = match stage.kind() {
        SourceKind::MySql => "SELECT @@GLOBAL.gtid_executed",
        SourceKind::MariaDb | SourceKind::MariaDb11 => "SELECT @@GLOBAL.gtid_binlog_pos",
    };
    let mut rows: Vec<String> = stage.source.rows(statement).await?;
    rows.pop().context("the source has a GTID set")
}

/// Whether all of one GTID set is in the other; on MariaDB by the newest transaction of each domain.
async fn is_within(stage: &Stage, one: &str, other: &str) -> Result<bool> {
    if stage.kind() == SourceKind::MySql {
        let subset = format!("SELECT GTID_SUBSET('{one}', '{other}')");
        return Ok(stage.source.number(subset).await? == 1);
    }
    let newest = |set: &str| -> BTreeMap<String, u64> {
        set.split(',')
            .filter_map(|gtid| {
                let (domain, rest) = gtid.split_once('-')?;
                let (_, number) = rest.split_once('-')?;
                Some((domain.to_owned(), number.parse().ok()?))
            })
            .collect()
    };
    let (one, other) = (newest(one), newest(other));
    ensure!(!one.is_empty(), "no GTID");
    Ok(one
        .iter()
        .all(|(domain, number)| other.get(domain).is_some_and(|newest| number <= newest)))
}

/// Rows of a load have version 0, and a TRUNCATE gives tombstones to rows that are there: neither would outrank a letter.
async fn letters_end_with_what_they_are_of(stage: &Stage, pipe: &mut Pipe) -> Result<()> {
    ensure!(pipe.stop().await? == 0);
    pipe.change_file(&through(stage, "panic_on_three").await?);
    pipe.restart()?;
    pipe.wait_state("Running", START).await?;
    stage
        .source
        .execute("UPDATE failing SET label = 'of before' WHERE id = 3")
        .await?;
    stage.wait_caught_up(pipe, CATCH_UP).await?;
    let status = pipe.status().await?;
    let name = status["pipe"].as_str().unwrap_or_default();
    let path = format!("/v1/pipes/{name}/dead-letters");
    let listed = pipe.get(&path).await?;
    ensure!(
        listed["dead_letters"].as_array().map(Vec::len) == Some(1)
            && listed["dead_letters"][0]["op"] == "update",
        "listed {listed}"
    );
    let table = format!("{}.failing", stage.database);
    let order = json!({ "command": "resync", "table": table });
    ensure!(pipe.order(order).await?.0 == 200);
    pipe.wait_for("the letters of the new load alone", CATCH_UP, |status| {
        status["tables"][0]["state"] == "Streaming"
    })
    .await?;
    let listed = pipe.get(&path).await?;
    ensure!(
        listed["dead_letters"].as_array().map(Vec::len) == Some(1)
            && listed["dead_letters"][0]["op"] == "load",
        "listed {listed}"
    );
    stage.source.execute("TRUNCATE TABLE failing").await?;
    stage.wait_caught_up(pipe, CATCH_UP).await?;
    let listed = pipe.get(&path).await?;
    ensure!(listed["dead_letters"] == json!([]), "left {listed}");
    stage.assert(Comparison::of("failing")).await?;
    letters_that_are_sent_while_their_table_is_emptied_leave_nothing(stage, pipe).await
}

/// A row that is written after the tombstones were would stay: it has none.
async fn letters_that_are_sent_while_their_table_is_emptied_leave_nothing(
    stage: &Stage,
    pipe: &mut Pipe,
) -> Result<()> {
    let insert = "INSERT INTO failing VALUES (3, 'sent again', NULL)";
    stage.source.execute(insert).await?;
    stage.wait_caught_up(pipe, CATCH_UP).await?;
    ensure!(pipe.stop().await? == 0);
    pipe.change_file(&through(stage, "none").await?);
    pipe.restart()?;
    pipe.wait_state("Running", START).await?;
    let server = pipe.url();
    let replay = ["dead-letters", "replay", "--json", "--server", &server];
    let (replayed, emptied) = tokio::join!(
        pipe.cli(&replay),
        stage.source.execute("TRUNCATE TABLE failing")
    );
    emptied?;
    let replayed = replayed?;
    ensure!(replayed.code == 0, "{replayed:?}");
    stage.wait_caught_up(pipe, CATCH_UP).await?;
    stage.assert(Comparison::of("failing")).await.map(drop)
}

/// `failing` with its first row, and `others`.
async fn with_tables(stage: &Stage) -> Result<()> {
    let statements = [
        "CREATE TABLE failing (id BIGINT PRIMARY KEY, label VARCHAR(50) NULL, at DATETIME(6) NULL)",
        "CREATE TABLE others (id BIGINT PRIMARY KEY)",
        "INSERT INTO failing VALUES (1, 'one', NULL)",
        "INSERT INTO others VALUES (1)",
    ];
    stage.source.execute_all(statements).await
}

async fn letters_of(stage: &Stage, pipe: &Pipe) -> Result<Vec<Value>> {
    let path = format!("/v1/pipes/{}/dead-letters", stage.database);
    let listed = pipe.get(&path).await?;
    let letters = listed["dead_letters"].as_array().cloned();
    letters.with_context(|| format!("listed {listed}"))
}

async fn replay(stage: &Stage, pipe: &Pipe) -> Result<(u16, Value)> {
    let path = format!("/v1/pipes/{}/dead-letters/replay", stage.database);
    pipe.call(Method::POST, &path, "").await
}

/// A plugin that does nothing takes the place of the one that failed.
async fn mend(stage: &Stage, pipe: &mut Pipe) -> Result<()> {
    ensure!(pipe.stop().await? == 0);
    pipe.change_file(&through(stage, "none").await?);
    pipe.restart()?;
    pipe.wait_state("Running", START).await.map(drop)
}

/// The letter is written before the tombstone, and both once more after a crash in between: a row that is written before
/// that would be hidden for ever.
async fn a_letter_waits_until_its_tombstone_is_there_for_good() -> Result<()> {
    let stage = Stage::shared(SourceKind::MySql).await?;
    with_tables(&stage).await?;
    let [mut failing, mut mended] = [
        through(&stage, "panic_on_three").await?,
        through(&stage, "none").await?,
    ];
    // Time to replay before the first flush.
    for file in [&mut failing, &mut mended] {
        file["sync"] = json!({ "interval": "3s" });
    }
    let mut pipe = start(launch(&failing).env(VARIABLE, "flush:1"))?;
    pipe.wait_state("Running", START).await?;
    let insert = "INSERT INTO failing VALUES (3, 'sent', NULL)";
    stage.source.execute(insert).await?;
    wait_aborted(&mut pipe).await?;
    pipe.change_env(VARIABLE, None);
    pipe.change_file(&mended);
    pipe.restart()?;
    pipe.wait_state("Running", START).await?;
    let deadline = Instant::now() + CATCH_UP;
    loop {
        let (status, answer) = replay(&stage, &pipe).await?;
        if status == 200 && answer["passed"] == 1 {
            break;
        }
        let named = status == 409 && answer["detail"].to_string().contains("once more");
        let waiting = status == 200 && answer["failing"] == 0;
        ensure!(named || waiting, "{status} {answer:#}");
        ensure!(Instant::now() < deadline, "{status} {answer:#}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    stage.assert(Comparison::of("failing")).await?;
    ensure!(letters_of(&stage, &pipe).await?.is_empty());
    Ok(())
}

/// Its row has a value there, which is not known: NULL would be a guess.
async fn a_letter_without_a_column_that_its_table_has_by_now_fails_alone() -> Result<()> {
    let stage = Stage::shared(SourceKind::MySql).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE failing (kind BIGINT NOT NULL, id INT PRIMARY KEY, label VARCHAR(50) NULL)",
            "CREATE TABLE others (id BIGINT PRIMARY KEY)",
            "INSERT INTO failing VALUES (1, 1, 'one'), (3, 2, 'early')",
        ])
        .await?;
    let mut pipe = start(launch(&through(&stage, "panic_on_three").await?))?;
    pipe.wait_state("Running", START).await?;
    for statement in [
        "INSERT INTO failing VALUES (3, 3, 'early too')",
        "ALTER TABLE failing RENAME COLUMN label TO name, ADD COLUMN points INT NOT NULL DEFAULT 7",
        "INSERT INTO failing VALUES (3, 4, 'late', 8), (5, 5, 'good', 9)",
    ] {
        stage.source.execute(statement).await?;
        stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    }
    ensure!(letters_of(&stage, &pipe).await?.len() == 3);
    mend(&stage, &mut pipe).await?;
    let (status, answer) = replay(&stage, &pipe).await?;
    ensure!(
        status == 200 && answer["passed"] == 1 && answer["failing"] == 2,
        "{status} {answer:#}"
    );
    let unfit = &answer["unfit"][0];
    let table = format!("{}.failing", stage.database);
    ensure!(
        unfit["letters"] == 2
            && unfit["table"] == table.as_str()
            && unfit["reason"].to_string().contains("lacks column `name`")
            && unfit["remedy"].to_string().contains("resync"),
        "{answer:#}"
    );
    let known = Comparison::of("failing").only_where("id NOT IN (2, 3)");
    ensure!(stage.assert(known).await? == 3);
    ensure!(letters_of(&stage, &pipe).await?.len() == 2);
    // As the remedy says.
    let order = json!({ "command": "resync", "table": table });
    ensure!(pipe.order(order).await?.0 == 200);
    pipe.wait_for("the table loaded again", CATCH_UP, |status| {
        status["tables"][0]["state"] == "Streaming"
    })
    .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    ensure!(stage.assert(Comparison::of("failing")).await? == 5);
    ensure!(letters_of(&stage, &pipe).await?.is_empty());
    Ok(())
}

async fn a_letter_is_never_sent_into_another_column_of_its_columns_name() -> Result<()> {
    let stage = Stage::shared(SourceKind::MySql).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE failing (kind BIGINT NOT NULL, id INT PRIMARY KEY, a INT NOT NULL, b INT NOT NULL, c INT NOT NULL)",
            "CREATE TABLE others (id BIGINT PRIMARY KEY)",
            "INSERT INTO failing VALUES (1, 1, 1, 1, 1), (3, 2, 2, 20, 200)",
        ])
        .await?;
    let mut pipe = start(launch(&through(&stage, "panic_on_three").await?))?;
    pipe.wait_state("Running", START).await?;
    for statement in [
        "INSERT INTO failing VALUES (3, 3, 3, 30, 300)",
        "ALTER TABLE failing DROP COLUMN a",
        "ALTER TABLE failing ADD COLUMN a INT NOT NULL DEFAULT 7",
        "INSERT INTO failing VALUES (3, 4, 40, 400, 4)",
        // One has the name that the other had.
        "ALTER TABLE failing RENAME COLUMN b TO d",
        "ALTER TABLE failing RENAME COLUMN c TO b",
        "INSERT INTO failing VALUES (3, 5, 500, 50, 5), (5, 6, 600, 60, 6)",
    ] {
        stage.source.execute(statement).await?;
        stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    }
    mend(&stage, &mut pipe).await?;
    let (status, answer) = replay(&stage, &pipe).await?;
    ensure!(
        status == 200
            && answer["passed"] == 1
            && answer["failing"] == 3
            && answer["unfit"]
                .to_string()
                .contains("was kept before column"),
        "{status} {answer:#}"
    );
    let known = Comparison::of("failing").only_where("id NOT IN (2, 3, 4)");
    ensure!(stage.assert(known).await? == 3);
    Ok(())
}

async fn a_replaced_plugin_file_is_taken_up_by_a_resume_and_never_by_accident() -> Result<()> {
    let stage = Stage::shared(SourceKind::MySql).await?;
    with_tables(&stage).await?;
    let user = with_account(&stage, "of-its-own").await?;
    let folder = tempfile::tempdir()?;
    let plugin = folder.path().join("plugin.wasm");
    let former = std::fs::read(hostile_guest().await?)?;
    std::fs::write(&plugin, &former)?;
    let mut file = through(&stage, "panic_on_three").await?;
    file["transforms"]["sent"]["plugin"] = json!(plugin);
    file["source"]["user"] = json!(user);
    file["source"]["password"] = json!("of-its-own");
    let mut pipe = start(launch(&file))?;
    pipe.wait_state("Running", START).await?;
    // As a copy that is under way leaves it.
    std::fs::write(&plugin, &former[..former.len() / 2])?;
    end_connections(&stage, &user).await?;
    let insert = "INSERT INTO failing VALUES (3, 'before', NULL), (4, 'four', NULL)";
    stage.source.execute(insert).await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let good = Comparison::of("failing").only_where("id <> 3");
    stage.assert(good.clone()).await?;
    ensure!(pipe.command("pause").await?.0 == 200);
    pipe.wait_state("Paused", CATCH_UP).await?;
    let insert = "INSERT INTO failing VALUES (5, 'while paused', NULL)";
    stage.source.execute(insert).await?;
    let (status, problem) = pipe.command("resume").await?;
    ensure!(
        status == 422
            && problem["code"] == "plugin_refused"
            && problem["detail"].to_string().contains("`sent`"),
        "{status} {problem:#}"
    );
    ensure!(pipe.status().await?["state"] == "Paused");
    let present = rewritten(&former)?;
    std::fs::write(&plugin, &present)?;
    ensure!(pipe.command("resume").await?.0 == 200);
    let update = "UPDATE failing SET label = 'after' WHERE id = 3";
    stage.source.execute(update).await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    stage.assert(good).await?;
    let letters = letters_of(&stage, &pipe).await?;
    let of = |letter: &Value, component: &[u8], words: &str| {
        let reason = letter["reason"].as_str().unwrap_or_default();
        letter["digest"] == digest_of(component).as_str() && reason.contains(words)
    };
    ensure!(
        letters.len() == 2
            && of(&letters[0], &former, CONFIGURED)
            && of(&letters[1], &present, REWRITTEN),
        "{letters:#?}"
    );
    Ok(())
}

/// What the guest says when it panics, and what it says when its component has been [`rewritten`].
const CONFIGURED: &str = "as configured";
const REWRITTEN: &str = "as rewritten!";

/// Another component than this one, which tells itself from it.
fn rewritten(component: &[u8]) -> Result<Vec<u8>> {
    let mut rewritten = component.to_vec();
    let mut place = 0;
    while let Some(rest) = rewritten.get_mut(place..place + CONFIGURED.len()) {
        if rest == CONFIGURED.as_bytes() {
            rest.copy_from_slice(REWRITTEN.as_bytes());
        }
        place += 1;
    }
    ensure!(rewritten != component, "the guest's words are not in it");
    Ok(rewritten)
}

async fn a_plugin_that_takes_no_configuration_in_time_costs_its_own_table() -> Result<()> {
    let stage = Stage::shared(SourceKind::MySql).await?;
    with_tables(&stage).await?;
    let mut pipe = start(launch(&through(&stage, "none").await?))?;
    pipe.wait_state("Running", START).await?;
    ensure!(pipe.stop().await? == 0);
    pipe.change_file(&through(&stage, "loop_in_configure").await?);
    pipe.restart()?;
    let table = format!("{}.failing", stage.database);
    let status = pipe.wait_state("Degraded", CATCH_UP).await?;
    let reason = &status["reasons"][0];
    ensure!(
        reason["code"] == "plugin_timeout" && reason["table"] == table.as_str(),
        "{status:#}"
    );
    stage
        .source
        .execute_all([
            "INSERT INTO failing VALUES (2, 'two', NULL)",
            "INSERT INTO others VALUES (2)",
        ])
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    stage.assert_same("others").await?;
    ensure!(pipe.stop().await? == 0);
    pipe.change_file(&through(&stage, "none").await?);
    pipe.restart()?;
    pipe.wait_for("the table back", CATCH_UP, |status| {
        status["state"] == "Running" && status["tables"][0]["state"] == "Streaming"
    })
    .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    stage.assert(Comparison::of("failing")).await.map(drop)
}
