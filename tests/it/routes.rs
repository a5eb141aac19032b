//! Rows that a plugin sends to several targets, on the load and on the stream alike, with what makes that hard: updates that
//! change where a row goes, its key, or both.

use anyhow::{Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{Comparison, Pipe, Stage, workspace_folder};

use crate::preflight::{codes, findings, said_of};
use crate::support::{
    CATCH_UP, START, hostile_guest, launch, on_both_sources, once, start, wait_answer,
};

on_both_sources! {
    rows_are_in_the_target_that_they_belong_to_and_in_no_other: 400,
    a_row_becomes_several_and_all_of_them_go_with_it: 400,
}

once! {
    statements_and_ways_back_keep_every_target: 600,
    a_row_of_which_too_many_were_made_is_a_letter_that_passes_once_it_may: 300,
    a_changed_plugin_that_chooses_targets_is_taken_up_by_a_resync_only: 400,
    two_tables_never_share_a_target: 300,
    setup_warns_of_a_target_whose_key_leaves_out_the_sources: 240,
}

async fn numbers(kind: SourceKind) -> Result<Stage> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE numbers (id BIGINT PRIMARY KEY, note VARCHAR(50) NULL)",
            "INSERT INTO numbers VALUES (1, 'one'), (2, 'two'), (3, NULL), (4, 'four'), (5, 'five')",
        ])
        .await?;
    Ok(stage)
}

async fn through(stage: &Stage, crime: &str) -> Result<Value> {
    let guest = hostile_guest().await?;
    let entry = json!({ "source": format!("{}.numbers", stage.database), "transforms": ["sent"] });
    let mut file = stage.pipe_file_of(vec![entry]);
    file["transforms"]["sent"] = json!({
        "plugin": guest,
        "config": { "crime": crime },
        "grants": { "lookup": { "any": workspace_folder().join("Cargo.toml") } },
    });
    Ok(file)
}

async fn assert_routed(stage: &Stage) -> Result<()> {
    let even = Comparison::of("numbers").only_where("id % 2 = 0");
    stage.assert(even).await?;
    let odd = Comparison::of("numbers")
        .target("odd")
        .only_where("id % 2 = 1");
    stage.assert(odd).await.map(drop)
}

async fn rows_are_in_the_target_that_they_belong_to_and_in_no_other(
    kind: SourceKind,
) -> Result<()> {
    let stage = numbers(kind).await?;
    let file = through(&stage, "route").await?;
    let mut pipe = start(launch(&file))?;
    pipe.wait_state("Running", START).await?;
    assert_routed(&stage).await?;
    for statement in [
        "INSERT INTO numbers VALUES (6, 'six'), (7, 'seven'), (8, NULL)",
        "UPDATE numbers SET note = CONCAT(id, ' changed') WHERE id < 4",
        // Goes from one target to the other, and back.
        "UPDATE numbers SET id = 11 WHERE id = 2",
        "UPDATE numbers SET id = 12 WHERE id = 11",
        "UPDATE numbers SET id = id + 100 ORDER BY id DESC",
        "DELETE FROM numbers WHERE id IN (101, 104)",
        "INSERT INTO numbers VALUES (101, 'again')",
    ] {
        stage.source.execute(statement).await?;
        stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
        assert_routed(&stage).await?;
    }
    // A replay gives the same rows: killed in the middle of changes, and started again.
    for round in 0..3 {
        stage
            .source
            .execute_all([
                format!("UPDATE numbers SET id = id + 1, note = 'round {round}' ORDER BY id DESC"),
                format!("INSERT INTO numbers VALUES ({}, NULL)", 500 + 10 * round),
            ])
            .await?;
        pipe.kill9()?;
        pipe.restart()?;
    }
    stage
        .source
        .execute("ALTER TABLE numbers ADD COLUMN more INT NULL")
        .await?;
    stage.source.execute("UPDATE numbers SET more = id").await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    assert_routed(&stage).await?;
    // Loaded beside the live tables, and all of them exchanged.
    pipe.command("resync").await?;
    pipe.wait_state("Running", START).await?;
    stage
        .source
        .execute("UPDATE numbers SET id = id + 1, more = 1 ORDER BY id DESC")
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    assert_routed(&stage).await?;
    stage.source.execute("TRUNCATE TABLE numbers").await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    assert_routed(&stage).await
}

async fn exists(stage: &Stage, pattern: &str) -> Result<u64> {
    let sql = format!(
        "SELECT count() FROM system.tables WHERE database = '{}' AND name LIKE '{pattern}'",
        stage.database
    );
    stage.clickhouse.number(&sql).await
}

async fn wait_table(pipe: &mut Pipe, state: &str) -> Result<()> {
    pipe.wait_for(state, CATCH_UP, |status| {
        status["tables"][0]["state"] == state
    })
    .await
    .map(drop)
}

/// What alters, empties, drops or takes out of service a table does so to each of its targets.
async fn statements_and_ways_back_keep_every_target() -> Result<()> {
    let stage = numbers(SourceKind::MySql).await?;
    let mut file = through(&stage, "route").await?;
    file["ddl"] = json!({ "truncate": "archive", "drop_table": "archive" });
    let mut pipe = start(launch(&file))?;
    pipe.wait_state("Running", START).await?;
    for statement in [
        "ALTER TABLE numbers MODIFY note VARCHAR(300) NULL, ADD COLUMN more INT NOT NULL DEFAULT 7",
        "ALTER TABLE numbers RENAME COLUMN note TO remark, DROP COLUMN more",
        // All targets are loaded anew: by this column the plugin chooses.
        "ALTER TABLE numbers MODIFY id INT NOT NULL",
    ] {
        stage
            .source
            .execute_all([
                statement,
                "UPDATE numbers SET id = id + 11 ORDER BY id DESC",
            ])
            .await?;
        stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
        pipe.wait_state("Running", CATCH_UP).await?;
        assert_routed(&stage).await?;
    }
    // Out of service, and back by a stream of its own.
    let odd = format!("`{}`.odd", stage.database);
    let rename = |from: &str, to: &str| format!("ALTER TABLE {odd} RENAME COLUMN {from} TO {to}");
    stage.clickhouse.query(&rename("remark", "other")).await?;
    stage
        .source
        .execute("UPDATE numbers SET remark = 'while away' WHERE id < 37")
        .await?;
    wait_table(&mut pipe, "Quarantined").await?;
    stage
        .source
        .execute("UPDATE numbers SET id = id + 1 ORDER BY id DESC")
        .await?;
    stage.clickhouse.query(&rename("other", "remark")).await?;
    let table = format!("{}.numbers", stage.database);
    let order = json!({ "command": "retry", "table": table });
    ensure!(pipe.order(order).await?.0 == 200);
    wait_table(&mut pipe, "Streaming").await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    assert_routed(&stage).await?;
    stage
        .source
        .execute_all([
            "TRUNCATE TABLE numbers",
            "INSERT INTO numbers VALUES (2, 'later'), (3, 'later')",
        ])
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    assert_routed(&stage).await?;
    ensure!(exists(&stage, "numbers_truncated_%").await? == 1);
    ensure!(exists(&stage, "odd_truncated_%").await? == 1);
    stage.source.execute("DROP TABLE numbers").await?;
    wait_table(&mut pipe, "Removed").await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    ensure!(exists(&stage, "numbers_dropped_%").await? == 1);
    ensure!(exists(&stage, "odd_dropped_%").await? == 1);
    stage
        .source
        .execute_all([
            "CREATE TABLE numbers (id BIGINT PRIMARY KEY, note VARCHAR(50) NULL)",
            "INSERT INTO numbers VALUES (1, 'again'), (2, 'again')",
        ])
        .await?;
    wait_table(&mut pipe, "Streaming").await?;
    stage
        .source
        .execute("UPDATE numbers SET id = id + 1 ORDER BY id DESC")
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    assert_routed(&stage).await
}

async fn a_row_becomes_several_and_all_of_them_go_with_it(kind: SourceKind) -> Result<()> {
    let stage = numbers(kind).await?;
    let file = through(&stage, "fan_out").await?;
    let mut pipe = start(launch(&file))?;
    let plan = pipe
        .cli(&["plan", &pipe.path().display().to_string()])
        .await?;
    ensure!(
        plan.stdout.contains("-> lines"),
        "plan does not show the target: {}",
        plan.stdout
    );
    pipe.wait_state("Running", START).await?;
    let shown = format!(
        "SELECT groupArray((id, number, note)) FROM (SELECT id, number, note FROM `{}`.lines_current ORDER BY id, number)",
        stage.database
    );
    let two = format!("SELECT count() FROM `{}`.lines_current", stage.database);
    wait_answer(&stage, &two, "10").await?;
    stage
        .source
        .execute_all([
            "UPDATE numbers SET note = 'changed' WHERE id = 1",
            "UPDATE numbers SET id = 20 WHERE id = 2",
            "DELETE FROM numbers WHERE id > 2 AND id < 6",
        ])
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let lines = "[(1,'0','changed'),(1,'1','changed'),(20,'0','two'),(20,'1','two')]";
    wait_answer(&stage, &shown, lines).await?;
    // Killed among changes, and with another column, it gives the same lines.
    stage
        .source
        .execute("UPDATE numbers SET id = 10 * id, note = 'again' ORDER BY id DESC")
        .await?;
    pipe.kill9()?;
    pipe.restart()?;
    for statement in [
        "ALTER TABLE numbers MODIFY note VARCHAR(300) NULL, ADD COLUMN more INT NULL",
        "UPDATE numbers SET more = id WHERE id = 10",
        "DELETE FROM numbers WHERE id = 200",
    ] {
        stage.source.execute(statement).await?;
        stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    }
    wait_answer(&stage, &shown, "[(10,'0','again'),(10,'1','again')]").await
}

/// The limits are no part of what a plugin is: raising them takes no load.
async fn a_row_of_which_too_many_were_made_is_a_letter_that_passes_once_it_may() -> Result<()> {
    let stage = numbers(SourceKind::MySql).await?;
    let mut file = through(&stage, "fan_out").await?;
    file["transforms"]["sent"]["on_error"] = json!("dead_letter");
    let allowed = file.clone();
    file["transforms"]["sent"]["limits"] = json!({ "rows": 1 });
    let mut pipe = start(launch(&file))?;
    pipe.wait_state("Running", START).await?;
    stage
        .source
        .execute("INSERT INTO numbers VALUES (6, 'six')")
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let lines = format!("SELECT count() FROM `{}`.lines_current", stage.database);
    ensure!(stage.clickhouse.number(&lines).await? == 0);
    ensure!(pipe.stop().await? == 0);
    pipe.change_file(&allowed);
    pipe.restart()?;
    pipe.wait_state("Running", START).await?;
    let path = format!("/v1/pipes/{}/dead-letters/replay", stage.database);
    let (status, answer) = pipe.call(Method::POST, &path, "").await?;
    ensure!(
        status == 200 && answer["failing"] == 0,
        "{status}: {answer:#}"
    );
    let shown = format!(
        "SELECT groupArray((id, number, note)) FROM (SELECT id, number, note FROM `{}`.lines_current WHERE id IN (1, 6) ORDER BY id, number)",
        stage.database
    );
    let twice = "[(1,'0','one'),(1,'1','one'),(6,'0','six'),(6,'1','six')]";
    wait_answer(&stage, &shown, twice).await?;
    wait_answer(&stage, &lines, "12").await?;
    // They are taken back as any others.
    stage
        .source
        .execute("DELETE FROM numbers WHERE id < 6")
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    wait_answer(&stage, &lines, "2").await
}

async fn a_changed_plugin_that_chooses_targets_is_taken_up_by_a_resync_only() -> Result<()> {
    let stage = numbers(SourceKind::MySql).await?;
    let file = through(&stage, "route").await?;
    let mut pipe = start(launch(&file))?;
    pipe.wait_state("Running", START).await?;
    ensure!(pipe.stop().await? == 0);
    pipe.change_file(&through(&stage, "fan_out").await?);
    pipe.restart()?;
    let failed = pipe.wait_state("Failed", START).await?;
    let reason = failed["reasons"][0]["remedy"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    ensure!(reason.contains("resync"), "no remedy: {failed}");
    pipe.command("resync").await?;
    pipe.wait_state("Running", START).await?;
    stage
        .source
        .execute("UPDATE numbers SET id = 30 WHERE id = 3")
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let sql = format!(
        "SELECT count() FROM `{}`.lines_current WHERE id IN (1, 2, 4, 5, 30)",
        stage.database
    );
    ensure!(stage.clickhouse.number(&sql).await? == 10);
    let sql = format!("SELECT count() FROM `{}`.lines_current", stage.database);
    ensure!(stage.clickhouse.number(&sql).await? == 10);
    // What only the former plugin sent rows to stays, and is nobody's.
    let left = format!(
        "SELECT count() FROM system.tables WHERE database = '{}' AND name IN ('numbers', 'odd') AND comment LIKE 'left by%'",
        stage.database
    );
    ensure!(stage.clickhouse.number(&left).await? == 2);
    // Back again while it is paused: nothing of the one passes through the other.
    ensure!(pipe.command("pause").await?.0 == 200);
    pipe.wait_state("Paused", CATCH_UP).await?;
    ensure!(pipe.stop().await? == 0);
    pipe.change_file(&file);
    pipe.restart()?;
    pipe.wait_state("Paused", START).await?;
    stage
        .source
        .execute("UPDATE numbers SET id = 40 WHERE id = 4")
        .await?;
    ensure!(pipe.command("resync").await?.0 == 200);
    pipe.wait_state("Running", START).await?;
    stage
        .source
        .execute("UPDATE numbers SET id = 41 WHERE id = 40")
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    assert_routed(&stage).await
}

async fn two_tables_never_share_a_target() -> Result<()> {
    let stage = numbers(SourceKind::MySql).await?;
    stage
        .source
        .execute("CREATE TABLE odd (id BIGINT PRIMARY KEY)")
        .await?;
    let mut file = through(&stage, "route").await?;
    let other = json!({ "source": format!("{}.odd", stage.database) });
    if let Some(tables) = file["tables"].as_array_mut() {
        tables.push(other);
    }
    let mut pipe = start(launch(&file))?;
    let failed = pipe.wait_exit(START).await?;
    ensure!(failed == 1, "ended with {failed}");
    let told = pipe.log().tail();
    ensure!(told.contains("its target `odd` is that of table"), "{told}");
    Ok(())
}

async fn setup_warns_of_a_target_whose_key_leaves_out_the_sources() -> Result<()> {
    let stage = numbers(SourceKind::MySql).await?;
    // Its lines are told apart by their number alone.
    let mut pipe = start(launch(&through(&stage, "merge").await?))?;
    pipe.wait_state("Running", START).await?;
    let found = findings(&pipe).await?;
    ensure!(codes(&found, "warning").contains("target_key"), "{found:?}");
    let told = said_of(&found, "target_key");
    let table = format!("of the key of `{}.numbers`", stage.database);
    for part in ["by `number`, without `id`", table.as_str()] {
        ensure!(told.contains(part), "{told}");
    }
    pipe.stop().await?;
    pipe.change_file(&through(&stage, "fan_out").await?);
    pipe.restart()?;
    let wider = findings(&pipe).await?;
    ensure!(
        !codes(&wider, "warning").contains("target_key"),
        "{wider:?}"
    );
    Ok(())
}
