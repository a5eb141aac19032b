//! Pipe files against what commands have changed, at a start and while the process runs.

mod dropped;
mod misfits;
mod slow;
mod watched;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{MARKER_TABLE, Pipe, Stage};

use misfits::{
    a_file_that_does_not_fit_what_commands_have_set_is_refused_and_ends_no_other_pipe,
    a_second_file_of_a_pipe_is_refused_until_the_first_goes,
};
use watched::{
    a_folder_whose_files_are_put_in_place_of_others_is_taken_up,
    a_watched_folder_starts_changes_and_pauses_pipes,
};

use crate::support::{
    CATCH_UP, START, assert_caught_up, ends_at, on_both_sources, once, running_with,
};

on_both_sources! {
    a_changed_file_is_taken_up_as_commands_would_except_where_a_command_was_first: 300,
    a_changed_file_is_taken_up_whole_though_the_process_ends_within: 300,
}

once! {
    a_wildcard_goes_on_without_what_was_taken_out_of_it: 600,
    a_watched_folder_starts_changes_and_pauses_pipes: 300,
    a_file_that_does_not_fit_what_commands_have_set_is_refused_and_ends_no_other_pipe: 300,
    a_second_file_of_a_pipe_is_refused_until_the_first_goes: 300,
    a_folder_whose_files_are_put_in_place_of_others_is_taken_up: 240,
}

async fn with_tables(kind: SourceKind) -> Result<Stage> {
    let stage = Stage::shared(kind).await?;
    for table in ["a", "b", "c", "d"] {
        stage
            .source
            .execute_all([
                format!("CREATE TABLE {table} (id INT PRIMARY KEY, n INT)"),
                format!("INSERT INTO {table} VALUES (1, 1), (2, 2)"),
            ])
            .await?;
    }
    Ok(stage)
}

fn table<'a>(stage: &Stage, document: &'a Value, name: &str) -> &'a Value {
    let source = format!("{}.{name}", stage.database);
    let tables = document["tables"].as_array();
    let found = tables.and_then(|tables| tables.iter().find(|table| table["source"] == *source));
    found.unwrap_or(&Value::Null)
}

fn drift<'a>(document: &'a Value, key: &str) -> &'a Value {
    let drift = document["drift"].as_array();
    let found = drift.and_then(|drift| drift.iter().find(|drift| drift["key"] == key));
    found.unwrap_or(&Value::Null)
}

fn has_reason(document: &Value, text: &str) -> bool {
    document["reasons"].to_string().contains(text)
}

fn running(document: &Value) -> bool {
    document["state"] == "Running"
}

fn write(path: &Path, file: &Value) -> Result<()> {
    Ok(std::fs::write(path, format!("{file:#}"))?)
}

async fn a_changed_file_is_taken_up_as_commands_would_except_where_a_command_was_first(
    kind: SourceKind,
) -> Result<()> {
    let stage = with_tables(kind).await?;
    let mut pipe = running_with(&stage.pipe_file(&["a", "b"])).await?;
    let added = format!("{}.c", stage.database);
    let body = json!({ "tables": { "add": [{ "source": added }] }, "sync": { "interval": "5s" } });
    let (status, document) = pipe.change(body).await?;
    ensure!(status == 200, "{document}");
    let document = pipe.wait_state("Running", START).await?;
    let interval = drift(&document, "sync.interval");
    ensure!(
        interval["file"] == "200ms" && interval["running"] == "5s",
        "{document}"
    );
    let entry = drift(&document, &format!("tables[{added}]"));
    ensure!(
        entry["file"].is_null() && entry["running"]["source"] == *added,
        "{document}"
    );

    let exported = pipe
        .cli(&["export", &stage.database, "--server", &pipe.url()])
        .await?;
    ensure!(
        exported.code == 0 && exported.stdout.contains("interval: 5s"),
        "{exported:?}"
    );
    ensure!(
        exported.stdout.contains(&added) && !exported.stdout.contains("password: pipewright"),
        "{exported:?}"
    );
    let plan = pipe
        .cli(&[
            "plan",
            &pipe.path().display().to_string(),
            "--server",
            &pipe.url(),
            "--detailed-exitcode",
        ])
        .await?;
    ensure!(
        plan.code == 3 && plan.stdout.contains("sync.interval"),
        "{plan:?}"
    );

    // b leaves, d joins, one key that nobody has touched, and one that the command has.
    ensure!(pipe.stop().await? == 0);
    let mut file = stage.pipe_file(&["a", "d"]);
    file["sync"] = json!({ "interval": "1s", "max_rows": 500 });
    pipe.change_file(&file);
    pipe.restart()?;
    let document = pipe
        .wait_for("d in the stream", START, |document| {
            document["state"] == "Running" && table(&stage, document, "d")["state"] == "Streaming"
        })
        .await?;
    ensure!(
        table(&stage, &document, "b")["state"] == "Removed",
        "{document}"
    );
    ensure!(
        table(&stage, &document, "c")["state"] == "Streaming",
        "{document}"
    );
    ensure!(has_reason(&document, "`sync.interval`"), "{document}");
    let interval = drift(&document, "sync.interval");
    ensure!(
        interval["file"] == "1s" && interval["running"] == "5s",
        "{document}"
    );
    ensure!(drift(&document, "sync.max_rows").is_null(), "{document}");
    let events = pipe
        .get(&format!("/v1/pipes/{}/events?limit=1000", stage.database))
        .await?;
    let told = events["events"].as_array().context("events")?;
    let told = told
        .iter()
        .find(|event| event["kind"] == "file" && event["level"] == "warning");
    ensure!(
        told.is_some_and(|event| event["remedy"].is_string()),
        "{events:#}"
    );

    for table in ["a", "b", "c", "d"] {
        stage
            .source
            .execute_all([
                format!("UPDATE {table} SET n = 9 WHERE id = 1"),
                format!("DELETE FROM {table} WHERE id = 2"),
            ])
            .await?;
    }
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    for table in ["a", "c", "d"] {
        stage.assert_same(table).await?;
    }
    let sql = format!(
        "SELECT count() FROM `{}`.b_current WHERE n < 9",
        stage.database
    );
    ensure!(
        stage.clickhouse.number(&sql).await? == 2,
        "a table that left the file still receives rows"
    );

    // An unchanged file leaves everything as it is; the file's own word for the key ends the drift.
    ensure!(pipe.stop().await? == 0);
    pipe.restart()?;
    let document = pipe.wait_state("Running", START).await?;
    ensure!(
        drift(&document, "sync.interval")["running"] == "5s",
        "{document}"
    );
    ensure!(
        table(&stage, &document, "b")["state"] == "Removed",
        "{document}"
    );
    ensure!(pipe.stop().await? == 0);
    file["sync"]["interval"] = json!("5s");
    pipe.change_file(&file);
    pipe.restart()?;
    let document = pipe.wait_state("Running", START).await?;
    ensure!(
        drift(&document, "sync.interval").is_null() && !has_reason(&document, "sync"),
        "{document}"
    );
    Ok(())
}

/// Once before its new table is asked for, and once when that is in the pipe and nothing says so.
async fn a_changed_file_is_taken_up_whole_though_the_process_ends_within(
    kind: SourceKind,
) -> Result<()> {
    let stage = with_tables(kind).await?;
    let mut pipe = running_with(&stage.pipe_file(&["a", "b"])).await?;
    for (point, tables, interval) in [
        ("file:1", ["a", "b", "c"], "150ms"),
        ("file:2", ["a", "c", "d"], "250ms"),
    ] {
        ensure!(pipe.stop().await? == 0);
        let mut file = stage.pipe_file(&tables);
        file["sync"]["interval"] = json!(interval);
        pipe.change_file(&file);
        ends_at(&mut pipe, point).await?;
        let update = |table: &str| format!("UPDATE {table} SET n = n + 1");
        stage.source.execute_all(tables.map(update)).await?;
        pipe.restart()?;
        let taken_up = |document: &Value| {
            let there = tables
                .iter()
                .all(|name| table(&stage, document, name)["state"] == "Streaming");
            document["state"] == "Running" && there
        };
        let document = pipe.wait_for("the tables", START, taken_up).await?;
        ensure!(
            document["reasons"] == json!([]) && document["drift"] == json!([]),
            "after {point}: {document:#}"
        );
        assert_caught_up(&stage, &mut pipe, &tables).await?;
        stage.assert_no_load_left().await?;
    }
    let document = pipe.status().await?;
    ensure!(
        table(&stage, &document, "b")["state"] == "Removed",
        "{document:#}"
    );
    Ok(())
}

/// The pipe file is asked for as `export` gives it, and run as it is.
async fn a_wildcard_goes_on_without_what_was_taken_out_of_it() -> Result<()> {
    let stage = with_tables(SourceKind::MySql).await?;
    let named = |name: &str| format!("{}.{name}", stage.database);
    let mut file = stage.pipe_file(&["*"]);
    file["follow_new_tables"] = json!(true);
    file["exclude"] = json!([named("d"), named("tmp_*")]);
    let mut pipe = running_with(&file).await?;
    let document = pipe.status().await?;
    ensure!(table(&stage, &document, "d").is_null(), "{document:#}");
    let (status, document) = pipe
        .change(json!({ "tables": { "remove": [named("b")] } }))
        .await?;
    ensure!(status == 200, "{document}");
    let document = pipe.wait_state("Running", START).await?;
    let excluded = json!([named("d"), named("tmp_*"), named("b")]);
    ensure!(
        drift(&document, "exclude")["running"] == excluded,
        "{document:#}"
    );
    let url = pipe.url();
    let exported = pipe
        .cli(&["export", &stage.database, "--server", &url, "--json"])
        .await?;
    let mut exported: Value = serde_json::from_str(&exported.stdout).context("export --json")?;
    ensure!(
        exported["exclude"] == excluded && exported["tables"] == file["tables"],
        "{exported:#}"
    );
    for end in ["source", "destination"] {
        if let Some(password) = file[end].get("password") {
            exported[end]["password"] = password.clone();
        }
    }

    // What is exported says it all: nothing differs from it, and new tables join, but for those that are excluded.
    ensure!(pipe.stop().await? == 0);
    pipe.change_file(&exported);
    pipe.restart()?;
    let document = pipe.wait_state("Running", START).await?;
    ensure!(document["drift"] == json!([]), "{document:#}");
    stage
        .source
        .execute_all([
            "CREATE TABLE tmp_1 (id INT PRIMARY KEY, n INT)",
            "CREATE TABLE e (id INT PRIMARY KEY, n INT)",
            "INSERT INTO e VALUES (1, 1)",
            "UPDATE b SET n = 9",
        ])
        .await?;
    let document = pipe
        .wait_for("e in the stream", CATCH_UP, |document| {
            document["state"] == "Running" && table(&stage, document, "e")["state"] == "Streaming"
        })
        .await?;
    ensure!(
        table(&stage, &document, "tmp_1").is_null() && table(&stage, &document, "d").is_null(),
        "{document:#}"
    );
    ensure!(
        table(&stage, &document, "b")["state"] == "Removed",
        "{document:#}"
    );

    // One that the file excludes later leaves the pipe; one that a command names beats the list.
    ensure!(pipe.stop().await? == 0);
    exported["exclude"] = json!([named("a"), named("b"), named("d"), named("tmp_*")]);
    pipe.change_file(&exported);
    pipe.restart()?;
    let document = pipe.wait_state("Running", START).await?;
    ensure!(
        table(&stage, &document, "a")["state"] == "Removed",
        "{document:#}"
    );
    let entry = json!({ "source": named("d") });
    let (status, document) = pipe.change(json!({ "tables": { "add": [entry] } })).await?;
    ensure!(status == 200, "{document}");
    pipe.wait_for("d in the stream", CATCH_UP, |document| {
        document["state"] == "Running" && table(&stage, document, "d")["state"] == "Streaming"
    })
    .await?;
    let merged = pipe
        .get(&format!("/v1/pipes/{}/file", stage.database))
        .await?;
    ensure!(
        !merged["exclude"].to_string().contains(&named("d")),
        "{merged:#}"
    );
    for table in ["a", "c", "d", "e"] {
        let sql = format!("DELETE FROM {table} WHERE id = 1");
        stage.source.execute(sql).await?;
    }
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    for table in ["c", "d", "e"] {
        stage.assert_same(table).await?;
    }
    let sql = format!(
        "SELECT count() FROM `{}`.a_current WHERE id = 1",
        stage.database
    );
    ensure!(
        stage.clickhouse.number(&sql).await? == 1,
        "a table that is excluded still receives rows"
    );

    // What the file no longer excludes comes back, whoever had taken it out before the file did.
    ensure!(pipe.stop().await? == 0);
    exported["exclude"] = json!([named("tmp_*")]);
    exported["follow_new_tables"] = json!(false);
    pipe.change_file(&exported);
    pipe.restart()?;
    let document = pipe
        .wait_for("a and b in the stream", CATCH_UP, |document| {
            let back = |name| table(&stage, document, name)["state"] == "Streaming";
            document["state"] == "Running" && back("a") && back("b")
        })
        .await?;
    ensure!(drift(&document, "exclude").is_null(), "{document:#}");
    stage.source.execute("UPDATE b SET n = 10").await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    for table in ["a", "b", "c", "d", "e"] {
        stage.assert_same(table).await?;
    }
    excluded_while_the_pipe_runs(&stage, &mut pipe, exported).await
}

/// The list as a command sets it: what it names leaves at once, stays out over a restart, and comes back with the file's own.
async fn excluded_while_the_pipe_runs(
    stage: &Stage,
    pipe: &mut Pipe,
    mut file: Value,
) -> Result<()> {
    let (name, url) = (stage.database.as_str(), pipe.url());
    let named = |table: &str| format!("{name}.{table}");
    for (list, part) in [
        (json!([named("d")]), "tables remove"),
        (json!(["no database"]), "exclude"),
        (json!("a.b"), "exclude"),
    ] {
        let (status, problem) = pipe.change(json!({ "exclude": list })).await?;
        ensure!(
            status == 422 && problem.to_string().contains(part),
            "{list}: {status} {problem:#}"
        );
    }
    let (status, problem) = pipe.change(json!({ "exclude": ["*.*"] })).await?;
    // One that is named by a command stays.
    ensure!(status == 200, "{problem:#}");
    let document = pipe.wait_state("Running", CATCH_UP).await?;
    let out = |table_name| table(stage, &document, table_name)["state"] == "Removed";
    ensure!(
        out("a") && out("b") && out("c") && !out("d") && !out(MARKER_TABLE),
        "{document:#}"
    );
    let setting = format!("exclude={},{}", named("b"), named("tmp_*"));
    for _ in 0..2 {
        let told = pipe.cli(&["set", name, &setting, "--server", &url]).await?;
        ensure!(told.code == 0, "{told:?}");
    }
    let back = |table_name: &'static str| {
        move |document: &Value| {
            document["state"] == "Running"
                && table(stage, document, table_name)["state"] == "Streaming"
        }
    };
    pipe.wait_for("c back in the stream", CATCH_UP, back("c"))
        .await?;
    ensure!(pipe.stop().await? == 0);
    pipe.restart()?;
    let document = pipe.wait_state("Running", START).await?;
    ensure!(
        table(stage, &document, "b")["state"] == "Removed"
            && drift(&document, "exclude")["running"] == json!([named("b"), named("tmp_*")]),
        "{document:#}"
    );
    stage.source.execute("UPDATE b SET n = 11").await?;
    stage.source.execute("UPDATE c SET n = 11").await?;

    // The file's next list does not go before the command's.
    ensure!(pipe.stop().await? == 0);
    file["exclude"] = json!([named("c")]);
    pipe.change_file(&file);
    pipe.restart()?;
    let document = pipe.wait_state("Running", START).await?;
    ensure!(
        has_reason(&document, "`exclude`")
            && table(stage, &document, "c")["state"] == "Streaming"
            && drift(&document, "exclude")["file"] == json!([named("c")]),
        "{document:#}"
    );
    let (status, problem) = pipe.change(json!({ "exclude": null })).await?;
    ensure!(status == 200, "{problem:#}");
    let document = pipe
        .wait_for("b back in the stream", CATCH_UP, back("b"))
        .await?;
    ensure!(
        table(stage, &document, "c")["state"] == "Removed" && drift(&document, "exclude").is_null(),
        "{document:#}"
    );
    stage.wait_caught_up(pipe, CATCH_UP).await?;
    for table in ["a", "b", "d", "e"] {
        stage.assert_same(table).await?;
    }
    Ok(())
}
