//! Rows through the first-party plugins, on the load and on the stream alike. Every folder of `plugins/` has its case here.

mod made_anew;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pipewright::fault::VARIABLE;
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{Comparison, Pipe, Stage, workspace_folder};

use crate::support::{
    CATCH_UP, START, launch, on_both_sources, once, plugins, running_with, start,
};

on_both_sources! {
    mask_hides_addresses_on_load_and_stream: 300,
    filter_shows_exactly_the_rows_that_match: 300,
    mask_and_filter_work_one_after_the_other: 300,
    expressions_and_json_paths_make_the_same_columns_on_load_and_stream: 300,
    route_sends_each_row_to_the_table_that_its_expression_names: 300,
    a_chain_keeps_its_columns_right_when_the_table_changes: 400,
}

once! {
    mask_has_a_method_for_every_need: 300,
    a_dropped_column_that_a_plugin_needs_takes_the_table_out_in_the_plugins_words: 300,
    filter_sees_the_row_before_masking_in_the_order_of_the_file: 300,
    a_changed_plugin_configuration_is_taken_up_at_a_restart_for_new_rows: 300,
    a_plugin_is_taken_up_behind_all_that_was_sent: 300,
    lookup_adds_columns_from_a_granted_file_whose_change_is_noticed: 300,
}

async fn people(kind: SourceKind) -> Result<Stage> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE people (id INT PRIMARY KEY, email VARCHAR(100) NULL, name VARCHAR(50) NOT NULL, age INT NULL)",
            "INSERT INTO people VALUES (1, 'ada@example.com', 'Ada', 36), (2, NULL, 'Nobody', NULL), \
             (3, '', 'Empty', 0), (4, 'zoë@beispiel.de', 'Zoë', 17), (5, 'ada@example.com', 'Twin', 18)",
        ])
        .await?;
    Ok(stage)
}

/// A pipe file for `people` through these transforms.
async fn through(stage: &Stage, transforms: &[(&str, &str, Value)]) -> Result<Value> {
    let plugins = plugins().await?;
    let names: Vec<&str> = transforms.iter().map(|(name, ..)| *name).collect();
    let entry = json!({ "source": format!("{}.people", stage.database), "transforms": names });
    let mut file = stage.pipe_file_of(vec![entry]);
    for (name, plugin, config) in transforms {
        file["transforms"][*name] = json!({ "plugin": plugins.path(plugin), "config": config });
    }
    Ok(file)
}

fn masked() -> Comparison {
    Comparison::of("people").text_is("email", "SHA2(CONCAT('pepper', email), 256)")
}

async fn mask_hides_addresses_on_load_and_stream(kind: SourceKind) -> Result<()> {
    let stage = people(kind).await?;
    let config = json!({ "columns": ["email"], "method": "sha256", "salt": "pepper" });
    let mut pipe = running_with(&through(&stage, &[("mask_email", "mask", config)]).await?).await?;
    stage.assert(masked()).await?;
    stage
        .source
        .execute_all([
            "INSERT INTO people VALUES (6, 'ada@example.com', 'Late', 1), (7, NULL, 'Later', 2)",
            "UPDATE people SET email = 'new@example.com' WHERE id = 1",
            "UPDATE people SET email = NULL WHERE id = 5",
            "UPDATE people SET name = 'Renamed' WHERE id = 4",
            "UPDATE people SET id = 60 WHERE id = 6",
            "DELETE FROM people WHERE id = 3",
        ])
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    stage.assert(masked()).await?;
    // Not in old versions and tombstones either.
    let leaks = format!(
        "SELECT count() FROM `{}`.people WHERE position(email, '@') > 0",
        stage.database
    );
    ensure!(
        stage.clickhouse.number(&leaks).await? == 0,
        "an address is stored in the clear"
    );
    Ok(())
}

async fn filter_shows_exactly_the_rows_that_match(kind: SourceKind) -> Result<()> {
    let stage = people(kind).await?;
    let config = json!({ "where": "age >= 18 AND name <> 'Hidden'" });
    let mut pipe = running_with(&through(&stage, &[("adults", "filter", config)]).await?).await?;
    let adults = Comparison::of("people").only_where("age >= 18 AND name <> 'Hidden'");
    ensure!(stage.assert(adults.clone()).await? == 2);
    for statement in [
        "INSERT INTO people VALUES (6, NULL, 'Young', 5), (7, NULL, 'Old', 99)",
        // Begins to match, and ceases to.
        "UPDATE people SET age = 18 WHERE id = 4",
        "UPDATE people SET age = 3 WHERE id = 1",
        "UPDATE people SET age = NULL WHERE id = 5",
        "UPDATE people SET name = 'Hidden' WHERE id = 7",
        "UPDATE people SET name = 'Found' WHERE id = 7",
        // A key change of a row that does not match, of one that does, and of one that ceases to on the way.
        "UPDATE people SET id = 10 WHERE id = 6",
        "UPDATE people SET id = 11 WHERE id = 7",
        "UPDATE people SET id = 12, age = 1 WHERE id = 11",
        "UPDATE people SET id = 13, age = 50 WHERE id = 12",
        "DELETE FROM people WHERE id = 4",
        "DELETE FROM people WHERE id = 10",
    ] {
        stage.source.execute(statement).await?;
        stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
        stage.assert(adults.clone()).await?;
    }
    Ok(())
}

async fn mask_and_filter_work_one_after_the_other(kind: SourceKind) -> Result<()> {
    let stage = people(kind).await?;
    let transforms = [
        (
            "adults",
            "filter",
            json!({ "where": "age >= 18 OR age IS NULL" }),
        ),
        (
            "mask_email",
            "mask",
            json!({ "columns": ["email"], "method": "sha256", "salt": "pepper" }),
        ),
    ];
    let mut pipe = running_with(&through(&stage, &transforms).await?).await?;
    let expected = masked().only_where("age >= 18 OR age IS NULL");
    stage.assert(expected.clone()).await?;
    stage
        .source
        .execute_all([
            "UPDATE people SET age = age + 1",
            "UPDATE people SET email = CONCAT(email, 'x')",
            "UPDATE people SET id = id + 1 ORDER BY id DESC",
        ])
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    stage.assert(expected).await.map(drop)
}

async fn expressions_and_json_paths_make_the_same_columns_on_load_and_stream(
    kind: SourceKind,
) -> Result<()> {
    let stage = people(kind).await?;
    stage
        .source
        .execute_all([
            "ALTER TABLE people ADD COLUMN doc JSON NULL",
            "UPDATE people SET doc = '{\"address\": {\"city\": \"Berlin\"}, \"tags\": [1, 2], \"fresh\": true}' WHERE id = 1",
        ])
        .await?;
    let paths = json!([
        { "name": "city", "path": "/address/city", "type": "text" },
        { "name": "tags", "path": "/tags", "type": "list(int64)" },
        { "name": "fresh", "path": "/fresh", "type": "bool" },
    ]);
    let transforms = [
        (
            "paths",
            "flatten_json",
            json!({ "column": "doc", "columns": paths }),
        ),
        (
            "columns",
            "compute",
            json!({ "columns": { "name": "upper(name)", "months": "age * 12" } }),
        ),
        (
            "select",
            "sql",
            json!({ "query": "SELECT *, coalesce(city, 'none') AS place FROM people WHERE months IS NULL OR months >= 216" }),
        ),
    ];
    let mut pipe = running_with(&through(&stage, &transforms).await?).await?;
    stage
        .source
        .execute_all([
            "INSERT INTO people VALUES (6, NULL, 'six', 20, '{\"address\": {\"city\": \"Köln\"}, \"tags\": [3], \"fresh\": false}'), (7, NULL, 'young', 5, NULL)",
            "UPDATE people SET age = 18 WHERE id = 4",
            "UPDATE people SET age = 3 WHERE id = 5",
            "UPDATE people SET id = 60 WHERE id = 6",
            "DELETE FROM people WHERE id = 2",
        ])
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let shown = format!(
        "SELECT arrayStringConcat(groupArray(line), ';') FROM (SELECT concat(toString(id), ' ', name, ' ', toString(months), ' ', place, ' ', toString(tags), ' ', ifNull(toString(fresh), '-')) AS line \
         FROM `{}`.people_current ORDER BY id)",
        stage.database
    );
    let shown = stage.clickhouse.query(&shown).await?;
    ensure!(
        shown.trim() == "1 ADA 432 Berlin [1,2] true;4 ZOË 216 none [] -;60 SIX 240 Köln [3] false",
        "{shown}"
    );
    Ok(())
}

/// What the plugins of the chain make, made by the source: its `CASE` is the file of countries.
const CHAINED: &str = "SELECT CONCAT_WS('|', id, name, CASE country WHEN 'DE' THEN 'Germany' ELSE '-' END, \
    IFNULL(SHA2(CONCAT('pepper', email), 256), '-'), IFNULL(JSON_UNQUOTE(JSON_EXTRACT(doc, '$.address.city')), 'none'), \
    IFNULL(age * 12, '-')) FROM people WHERE age IS NULL OR age >= 18 ORDER BY id";

async fn assert_chained(stage: &Stage) -> Result<()> {
    let expected: Vec<String> = stage.source.rows(CHAINED).await?;
    let shown = format!(
        "SELECT concatWithSeparator('|', toString(id), name, ifNull(country_name, '-'), ifNull(email, '-'), place, \
         ifNull(toString(months), '-')) FROM `{}`.people_current ORDER BY id",
        stage.database
    );
    let shown = stage.clickhouse.rows(&shown).await?;
    let shown: Vec<_> = shown.into_iter().flatten().flatten().collect();
    ensure!(shown == expected, "{shown:#?} are not {expected:#?}");
    Ok(())
}

async fn a_chain_keeps_its_columns_right_when_the_table_changes(kind: SourceKind) -> Result<()> {
    let stage = people(kind).await?;
    stage
        .source
        .execute_all([
            "ALTER TABLE people ADD COLUMN country CHAR(2) NULL, ADD COLUMN doc JSON NULL",
            "UPDATE people SET country = 'DE', doc = '{\"address\": {\"city\": \"Köln\"}}' WHERE id IN (1, 4)",
        ])
        .await?;
    let transforms = [
        (
            "countries",
            "lookup",
            json!({ "file": "countries", "column": "country", "key": "code", "add": { "country_name": "name" } }),
        ),
        (
            "paths",
            "flatten_json",
            json!({ "column": "doc", "columns": [{ "name": "city", "path": "/address/city", "type": "text" }] }),
        ),
        (
            "numbers",
            "compute",
            json!({ "columns": { "months": "age * 12" } }),
        ),
        (
            "select",
            "sql",
            json!({ "query": "SELECT *, coalesce(city, 'none') AS place FROM people" }),
        ),
        (
            "adults",
            "filter",
            json!({ "where": "months IS NULL OR months >= 216" }),
        ),
        (
            "mask_email",
            "mask",
            json!({ "columns": ["email"], "method": "sha256", "salt": "pepper" }),
        ),
    ];
    let mut file = through(&stage, &transforms).await?;
    let countries = workspace_folder().join("plugins/lookup/cases/joins_parquet/countries.parquet");
    file["transforms"]["countries"]["grants"] = json!({ "lookup": { "countries": countries } });
    let mut pipe = running_with(&file).await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    assert_chained(&stage).await?;
    for statement in [
        "INSERT INTO people VALUES (6, 'six@example.com', 'six', 20, 'DE', '{\"address\": {\"city\": \"Ulm\"}}')",
        // A column in front of those that the plugins read, with a value for the rows that were there.
        "ALTER TABLE people ADD COLUMN note VARCHAR(20) NOT NULL DEFAULT 'none' AFTER id, MODIFY name VARCHAR(300) NOT NULL",
        "INSERT INTO people (id, note, email, name, age, country) VALUES (7, 'x', NULL, 'seven', 5, 'DE'), (8, 'y', 'e@f.g', 'eight', 80, NULL)",
        "UPDATE people SET age = 18, country = 'DE' WHERE id = 7",
        "ALTER TABLE people RENAME COLUMN note TO remark",
        "UPDATE people SET remark = 'z', age = 3 WHERE id = 5",
        "UPDATE people SET id = 60, doc = NULL WHERE id = 6",
        "ALTER TABLE people DROP COLUMN remark",
        "UPDATE people SET id = id + 100, email = CONCAT(email, 'x') ORDER BY id DESC",
        "DELETE FROM people WHERE id = 102",
    ] {
        stage.source.execute(statement).await?;
        if statement.starts_with("ALTER") {
            // Before the next one, of which the catalog would tell: the table would be loaded anew.
            stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
        }
    }
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    assert_chained(&stage).await
}

async fn route_sends_each_row_to_the_table_that_its_expression_names(
    kind: SourceKind,
) -> Result<()> {
    let stage = people(kind).await?;
    let routes = json!([{ "when": "age >= 18", "to": "adults" }]);
    let by_age = ("by_age", "route", json!({ "routes": routes }));
    let mut pipe = running_with(&through(&stage, &[by_age]).await?).await?;
    stage
        .source
        .execute_all([
            "INSERT INTO people VALUES (6, NULL, 'six', 20), (7, NULL, 'young', 5)",
            "UPDATE people SET age = 18 WHERE id = 4",
            "UPDATE people SET age = 3 WHERE id = 5",
            "UPDATE people SET id = 60 WHERE id = 6",
            "DELETE FROM people WHERE id IN (1, 2)",
            // All targets have the table's columns.
            "ALTER TABLE people ADD COLUMN town VARCHAR(30) NOT NULL DEFAULT 'none', MODIFY name VARCHAR(200) NOT NULL",
            "INSERT INTO people VALUES (8, NULL, 'eight', 40, 'Rome'), (9, NULL, 'nine', 4, 'Bern')",
            "UPDATE people SET age = 70, town = 'Paris' WHERE id = 7",
        ])
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let adults = Comparison::of("people").target("adults");
    stage.assert(adults.only_where("age >= 18")).await?;
    let others = Comparison::of("people").only_where("age < 18 OR age IS NULL");
    stage.assert(others).await.map(drop)
}

async fn mask_has_a_method_for_every_need() -> Result<()> {
    let cases = [
        (
            json!({ "columns": ["name"], "method": "redact" }),
            "name",
            "'***'",
        ),
        (
            json!({ "columns": ["name"], "method": "redact", "text": "gone" }),
            "name",
            "'gone'",
        ),
        (
            json!({ "columns": ["email", "age"], "method": "null" }),
            "email",
            "NULL",
        ),
    ];
    for (config, column, expected) in cases {
        let stage = people(SourceKind::MySql).await?;
        let file = through(&stage, &[("hide", "mask", config.clone())]).await?;
        let mut pipe = running_with(&file).await?;
        stage
            .source
            .execute("INSERT INTO people VALUES (8, 'x@y.z', 'Eight', NULL)")
            .await?;
        // What `null` does to a number is not compared as text.
        stage.source.execute("UPDATE people SET age = NULL").await?;
        stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
        stage
            .assert(Comparison::of("people").text_is(column, expected))
            .await?;
    }
    Ok(())
}

/// pitfall 115: the plugin is asked before the statement is applied, and what it masks is never shown without it.
async fn a_dropped_column_that_a_plugin_needs_takes_the_table_out_in_the_plugins_words()
-> Result<()> {
    let stage = people(SourceKind::MariaDb).await?;
    let statements = [
        "CREATE TABLE others (id INT PRIMARY KEY)",
        "INSERT INTO others VALUES (1)",
    ];
    stage.source.execute_all(statements).await?;
    let config = json!({ "columns": ["email"], "method": "sha256", "salt": "pepper" });
    let mut file = through(&stage, &[("mask_email", "mask", config)]).await?;
    let others = json!({ "source": format!("{}.others", stage.database) });
    file["tables"].as_array_mut().expect("a list").push(others);
    let mut pipe = running_with(&file).await?;
    stage
        .source
        .execute_all([
            "INSERT INTO people VALUES (6, 'six@example.com', 'Six', 6)",
            "ALTER TABLE people DROP COLUMN email",
            "INSERT INTO people VALUES (7, 'Seven', 7)",
            "INSERT INTO others VALUES (2)",
        ])
        .await?;
    let status = pipe.wait_state("Degraded", CATCH_UP).await?;
    let reason = &status["reasons"][0];
    let message = reason["message"].to_string();
    ensure!(
        reason["table"] == format!("{}.people", stage.database)
            && message.contains("mask_email")
            && message.contains("email"),
        "{status:#}"
    );
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    stage.assert(Comparison::of("others")).await?;
    let count = format!("SELECT count() FROM `{}`.people_current", stage.database);
    ensure!(stage.clickhouse.number(&count).await? == 6);
    let mended = "ALTER TABLE people ADD COLUMN email VARCHAR(100) NULL AFTER id";
    stage.source.execute(mended).await?;
    let order = json!({ "command": "resync", "table": format!("{}.people", stage.database) });
    let (answer, document) = pipe.order(order).await?;
    ensure!(answer == 200, "{document:#}");
    pipe.wait_state("Running", CATCH_UP).await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    stage.assert(masked()).await.map(drop)
}

async fn filter_sees_the_row_before_masking_in_the_order_of_the_file() -> Result<()> {
    let stage = people(SourceKind::MariaDb).await?;
    let transforms = [
        (
            "mask_email",
            "mask",
            json!({ "columns": ["email"], "method": "redact", "text": "hidden" }),
        ),
        (
            "hidden_only",
            "filter",
            json!({ "where": "email = 'hidden'" }),
        ),
    ];
    let mut pipe = running_with(&through(&stage, &transforms).await?).await?;
    stage
        .source
        .execute(
            "INSERT INTO people VALUES (9, 'late@example.com', 'Late', 1), (10, NULL, 'None', 1)",
        )
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let expected = Comparison::of("people")
        .text_is("email", "'hidden'")
        .only_where("email IS NOT NULL");
    stage.assert(expected).await.map(drop)
}

async fn a_changed_plugin_configuration_is_taken_up_at_a_restart_for_new_rows() -> Result<()> {
    let stage = people(SourceKind::MySql).await?;
    let with = |text: &str| json!({ "columns": ["name"], "method": "redact", "text": text });
    let before = through(&stage, &[("hide", "mask", with("before"))]).await?;
    let after = through(&stage, &[("hide", "mask", with("after"))]).await?;
    let mut pipe = start(launch(&before))?;
    pipe.wait_state("Running", START).await?;
    ensure!(pipe.stop().await? == 0);
    pipe.change_file(&after);
    pipe.restart()?;
    pipe.wait_state("Running", START).await?;
    stage
        .source
        .execute("INSERT INTO people VALUES (20, NULL, 'New', 1)")
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    stage
        .assert(Comparison::of("people").text_is("name", "IF(id = 20, 'after', 'before')"))
        .await
        .map(drop)
}

/// A pipe that was Running says so before it is.
const TAKEN_UP: &str = "plugins or their configurations have changed";

async fn wait_told(pipe: &Pipe, words: &str) -> Result<()> {
    let deadline = Instant::now() + START;
    while !pipe.log().tail().contains(words) {
        ensure!(Instant::now() < deadline, "never told: {words}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Ends the pipe's process when the rows of `insert` are at the destination, and no checkpoint says so.
async fn sent_and_killed(stage: &Stage, pipe: &mut Pipe, insert: &str) -> Result<()> {
    ensure!(pipe.stop().await? == 0);
    pipe.change_env(VARIABLE, Some("flush:1"));
    pipe.restart()?;
    pipe.wait_state("Running", START).await?;
    stage.source.execute(insert).await?;
    pipe.wait_exit(START).await?;
    pipe.change_env(VARIABLE, None);
    Ok(())
}

async fn a_plugin_is_taken_up_behind_all_that_was_sent() -> Result<()> {
    let stage = people(SourceKind::MySql).await?;
    let with = |text: &str| json!({ "columns": ["name"], "method": "redact", "text": text });
    let before = through(&stage, &[("hide", "mask", with("before"))]).await?;
    let after = through(&stage, &[("hide", "mask", with("after"))]).await?;
    let mut pipe = start(launch(&before))?;
    pipe.wait_state("Running", START).await?;
    let insert = "INSERT INTO people VALUES (20, NULL, 'Sent', 1)";
    sent_and_killed(&stage, &mut pipe, insert).await?;
    pipe.change_file(&after);
    pipe.restart()?;
    wait_told(&pipe, TAKEN_UP).await?;
    stage
        .source
        .execute("INSERT INTO people VALUES (21, NULL, 'New', 1)")
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    stage
        .assert(Comparison::of("people").text_is("name", "IF(id = 21, 'after', 'before')"))
        .await?;
    let people = format!("`{}`.people", stage.database);
    let versions = format!("SELECT uniqExact(_version) FROM {people} WHERE id = 20");
    ensure!(
        stage.clickhouse.number(&versions).await? == 1,
        "what was sent again is not what had been sent"
    );
    let terms =
        format!("SELECT uniqExact(bitShiftRight(_version, 48)) FROM {people} WHERE id >= 20");
    ensure!(
        stage.clickhouse.number(&terms).await? == 2,
        "the present plugin has no term of its own"
    );
    Ok(())
}

async fn lookup_adds_columns_from_a_granted_file_whose_change_is_noticed() -> Result<()> {
    let stage = people(SourceKind::MariaDb).await?;
    let folder = tempfile::tempdir()?;
    let teams = folder.path().join("teams.csv");
    std::fs::write(&teams, "person,team\nAda,blue\n\"Zoë\",green\n")?;
    let config =
        json!({ "file": "teams", "column": "name", "key": "person", "add": { "team": "team" } });
    let mut file = through(&stage, &[("teams", "lookup", config)]).await?;
    file["transforms"]["teams"]["grants"] = json!({ "lookup": { "teams": teams } });
    let mut pipe = start(launch(&file))?;
    pipe.wait_state("Running", START).await?;
    stage
        .source
        .execute_all([
            "INSERT INTO people VALUES (6, NULL, 'Zoë', 1)",
            "UPDATE people SET name = 'Ada' WHERE id = 3",
        ])
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    ensure!(pipe.stop().await? == 0);
    std::fs::write(&teams, "person,team\nAda,red\n")?;
    pipe.restart()?;
    wait_told(&pipe, TAKEN_UP).await?;
    stage
        .source
        .execute("INSERT INTO people VALUES (7, NULL, 'Ada', 1), (8, NULL, 'Zoë', 1)")
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let shown = format!(
        "SELECT groupArray((id, team)) FROM (SELECT id, team FROM `{}`.people_current ORDER BY id)",
        stage.database
    );
    let shown = stage.clickhouse.query(&shown).await?;
    let expected =
        "[(1,'blue'),(2,NULL),(3,'blue'),(4,'green'),(5,NULL),(6,'green'),(7,'red'),(8,NULL)]";
    ensure!(shown == expected, "found {shown}");
    Ok(())
}
