//! Every key of the pipe file has an effect that a reader of the destination, or of the source's own lists, can see.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::StreamExt;
use mysql_async::prelude::Queryable;
use mysql_async::{BinlogStreamRequest, Conn, Row};
use serde_json::json;
use testbed::SourceKind;
use testbed::harness::{Comparison, Stage};
use tokio::task::JoinHandle;

use crate::support::{
    CATCH_UP, START, launch, on_both_sources, once, running_with, start, table_of_many_rows,
};

on_both_sources! {
    excluded_columns_never_leave_the_source: 240,
    a_wildcard_takes_every_table_that_matches: 240,
    cdc_only_takes_only_what_comes_later: 240,
    the_chosen_server_id_is_shown_to_the_source: 240,
    a_random_server_id_that_another_replica_takes_is_given_up_for_another: 240,
    a_chosen_server_id_that_another_replica_takes_fails_the_pipe_until_a_person_has_decided: 240,
    snapshot_settings_cut_the_load: 240,
}

once! {
    target_order_and_partitions_are_as_the_file_says: 240,
    types_chosen_by_hand_are_used: 240,
    null_becomes_the_default_where_nullable_is_false: 240,
    system_columns_take_the_names_of_the_file: 240,
    durability_stands_in_the_tables_definition: 240,
    a_flush_comes_after_the_interval_or_the_rows: 240,
    credentials_come_from_the_environment: 240,
    several_pipes_run_in_one_process: 240,
}

/// A table that the checks of settings share.
async fn with_orders(kind: SourceKind) -> Result<Stage> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE orders (tenant INT NOT NULL, id INT NOT NULL, card VARCHAR(20) NULL, note VARCHAR(20) NULL, \
             total INT NULL, PRIMARY KEY (id))",
            "INSERT INTO orders VALUES (1, 1, 'secret', 'a', 10), (2, 2, NULL, NULL, NULL), (1, 3, 'secret too', 'a', 30)",
        ])
        .await?;
    Ok(stage)
}

fn orders(stage: &Stage, more: serde_json::Value) -> serde_json::Value {
    let mut entry = json!({ "source": format!("{}.orders", stage.database) });
    if let (Some(entry), Some(more)) = (entry.as_object_mut(), more.as_object()) {
        entry.extend(more.clone());
    }
    stage.pipe_file_of(vec![entry])
}

async fn excluded_columns_never_leave_the_source(kind: SourceKind) -> Result<()> {
    let stage = with_orders(kind).await?;
    let mut pipe = running_with(&orders(
        &stage,
        json!({ "exclude_columns": ["card", "tenant"] }),
    ))
    .await?;
    let comparison = Comparison::of("orders").without("card").without("tenant");
    stage.assert(comparison.clone()).await?;
    stage
        .source
        .execute_all([
            "UPDATE orders SET card = 'other', note = 'b' WHERE id = 1",
            "INSERT INTO orders VALUES (9, 9, 'x', 'y', 1)",
        ])
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    stage.assert(comparison).await.map(drop)
}

async fn a_wildcard_takes_every_table_that_matches(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    for name in ["log_a", "log_b", "other"] {
        stage
            .source
            .execute(format!("CREATE TABLE {name} (id INT PRIMARY KEY)"))
            .await?;
        stage
            .source
            .execute(format!("INSERT INTO {name} VALUES (1)"))
            .await?;
    }
    let entry = json!({ "source": format!("{}.log_*", stage.database) });
    let mut pipe = running_with(&stage.pipe_file_of(vec![entry])).await?;
    stage
        .source
        .execute_all(["INSERT INTO log_a VALUES (2)", "DELETE FROM log_b"])
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    stage.assert_same("log_a").await?;
    stage.assert_same("log_b").await?;
    ensure!(
        !stage.clickhouse.exists(&stage.database, "other").await?,
        "a table that no entry names is there"
    );
    Ok(())
}

async fn cdc_only_takes_only_what_comes_later(kind: SourceKind) -> Result<()> {
    let stage = with_orders(kind).await?;
    let mut file = orders(&stage, json!({}));
    file["mode"] = json!("cdc_only");
    let mut pipe = running_with(&file).await?;
    stage
        .source
        .execute_all([
            "INSERT INTO orders VALUES (5, 5, NULL, 'late', 5)",
            "DELETE FROM orders WHERE id = 1",
        ])
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    stage
        .assert(Comparison::of("orders").only_where("id = 5"))
        .await?;
    // A table that joins later has a target as well, and nothing of before in it.
    stage
        .source
        .execute_all([
            "CREATE TABLE later (id INT PRIMARY KEY, a INT)",
            "INSERT INTO later VALUES (1, 1)",
        ])
        .await?;
    let entry = json!({ "source": format!("{}.later", stage.database) });
    let (status, document) = pipe.change(json!({ "tables": { "add": [entry] } })).await?;
    ensure!(status == 200, "{status} {document}");
    stage
        .source
        .execute_all([
            "INSERT INTO later VALUES (2, 2)",
            "UPDATE orders SET note = 'later' WHERE id = 5",
        ])
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let document = pipe.wait_state("Running", CATCH_UP).await?;
    ensure!(document["reasons"] == json!([]), "{document:#}");
    stage
        .assert(Comparison::of("later").only_where("id = 2"))
        .await?;
    let rows = format!("SELECT count() FROM `{}`.later_current", stage.database);
    ensure!(stage.clickhouse.number(&rows).await? == 1);
    stage
        .assert(Comparison::of("orders").only_where("id = 5"))
        .await
        .map(drop)
}

async fn the_chosen_server_id_is_shown_to_the_source(kind: SourceKind) -> Result<()> {
    let stage = with_orders(kind).await?;
    let server_id = 1_000_000 + u64::from(std::process::id());
    let mut file = orders(&stage, json!({}));
    file["source"]["server_id"] = json!(server_id);
    let mut pipe = running_with(&file).await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let sql = match kind {
        SourceKind::MySql => "SHOW REPLICAS",
        SourceKind::MariaDb | SourceKind::MariaDb11 => "SHOW SLAVE HOSTS",
    };
    let replicas: Vec<Row> = stage.source.rows(sql).await?;
    ensure!(
        replicas
            .iter()
            .any(|row| row.get::<u64, _>(0) == Some(server_id)),
        "{server_id} is not among {replicas:?}"
    );
    Ok(())
}

/// The pipe's number and, on MySQL, its UUID, as the source lists them.
async fn registered(stage: &Stage) -> Result<Option<(u32, String)>> {
    let sql = match stage.kind() {
        SourceKind::MySql => "SHOW REPLICAS",
        SourceKind::MariaDb | SourceKind::MariaDb11 => "SHOW SLAVE HOSTS",
    };
    let replicas: Vec<Row> = stage.source.rows(sql).await?;
    let host = format!("pipewright/{}", stage.database);
    let own = |row: &&Row| row.get::<String, _>(1).as_deref() == Some(host.as_str());
    let own = replicas.iter().find(own);
    Ok(own.and_then(|row| Some((row.get(0)?, row.get(4).unwrap_or_default()))))
}

/// Another client that reads the source's binlog under these.
async fn rival(stage: &Stage, (number, uuid): (u32, &str)) -> Result<JoinHandle<String>> {
    let place = match stage.kind() {
        SourceKind::MySql => "SHOW BINARY LOG STATUS",
        SourceKind::MariaDb | SourceKind::MariaDb11 => "SHOW MASTER STATUS",
    };
    let mut conn = Conn::from_url(stage.source_server.root_url()).await?;
    let row: Row = conn.query_first(place).await?.context("a binlog")?;
    let (file, offset): (String, u64) = (
        row.get(0).context("a file")?,
        row.get(1).context("an offset")?,
    );
    if stage.kind() == SourceKind::MySql {
        let set = format!("SET @replica_uuid = '{uuid}', @slave_uuid = '{uuid}'");
        conn.query_drop(set).await?;
    }
    let request = BinlogStreamRequest::new(number)
        .with_filename(file.as_bytes())
        .with_pos(offset);
    let mut stream = conn.get_binlog_stream(request).await?;
    Ok(tokio::spawn(async move {
        loop {
            match stream.next().await {
                Some(Ok(_)) => {}
                ended => return format!("{ended:?}"),
            }
        }
    }))
}

/// pitfall 63: the pipe that is pushed out pushes nobody out in turn.
async fn a_random_server_id_that_another_replica_takes_is_given_up_for_another(
    kind: SourceKind,
) -> Result<()> {
    let stage = with_orders(kind).await?;
    let mut pipe = running_with(&orders(&stage, json!({}))).await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let (before, uuid) = registered(&stage).await?.context("the pipe's own")?;
    let rival = rival(&stage, (before, &uuid)).await?;
    let until = Instant::now() + CATCH_UP;
    let chosen = loop {
        match registered(&stage).await? {
            Some((number, _)) if number != before => break number,
            now => ensure!(Instant::now() < until, "{now:?} after {before}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let document = pipe.wait_state("Running", CATCH_UP).await?;
    ensure!(document["reasons"] == json!([]), "{document:#}");
    ensure!(
        !rival.is_finished(),
        "the pipe has ended the other's stream: {}",
        rival.await?
    );
    // It is the pipe's own from now on.
    ensure!(pipe.stop().await? == 0);
    pipe.restart()?;
    pipe.wait_state("Running", START).await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let again = registered(&stage).await?.map(|(number, _)| number);
    ensure!(again == Some(chosen), "{again:?} after {chosen}");
    ensure!(!rival.is_finished(), "{}", rival.await?);
    rival.abort();
    stage.assert_same("orders").await.map(drop)
}

/// pitfall 62, pitfall 63: a number that a person chose is not exchanged for another.
async fn a_chosen_server_id_that_another_replica_takes_fails_the_pipe_until_a_person_has_decided(
    kind: SourceKind,
) -> Result<()> {
    let stage = with_orders(kind).await?;
    let mut file = orders(&stage, json!({}));
    file["source"]["server_id"] = json!(2_000_000 + u64::from(std::process::id()));
    let mut pipe = running_with(&file).await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let (number, uuid) = registered(&stage).await?.context("the pipe's own")?;
    let rival = rival(&stage, (number, &uuid)).await?;
    let failed = pipe.wait_state("Failed", CATCH_UP).await?;
    let reason = &failed["reasons"][0];
    ensure!(
        reason["code"] == "source_id_taken"
            && reason["remedy"].to_string().contains("source.server_id"),
        "{failed:#}"
    );
    ensure!(!rival.is_finished(), "{}", rival.await?);
    rival.abort();
    let (status, answer) = pipe.command("start").await?;
    ensure!(status == 200, "{status} {answer}");
    pipe.wait_state("Running", CATCH_UP).await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    stage.assert_same("orders").await.map(drop)
}

async fn snapshot_settings_cut_the_load(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    table_of_many_rows(&stage, "t", ("a VARCHAR(50)", "'x'"), 13).await?;
    let mut file = stage.pipe_file(&["t"]);
    file["snapshot"] =
        json!({ "threads_per_table": 2, "tables_in_parallel": 2, "rows_per_partition": 500 });
    let pipe = running_with(&file).await?;
    let snapshot = pipe.status().await?["tables"][0]["snapshot"].clone();
    let total = snapshot["partitions_total"].as_u64().unwrap_or_default();
    ensure!(
        (8..=64).contains(&total),
        "{total} partitions of 500 rows for 8,192 rows: {snapshot}"
    );
    ensure!(
        snapshot["partitions_done"] == snapshot["partitions_total"],
        "{snapshot}"
    );
    ensure!(stage.assert_same("t").await? == 8_192);
    Ok(())
}

async fn target_order_and_partitions_are_as_the_file_says() -> Result<()> {
    let stage = with_orders(SourceKind::MariaDb).await?;
    let more = json!({ "target": "sales", "order_by": ["tenant", "id"], "partition_by": "tenant % 4", "split_by": "id" });
    let mut pipe = running_with(&orders(&stage, more)).await?;
    stage
        .source
        // The second moves a row into another partition: its old place needs a tombstone there.
        .execute_all([
            "UPDATE orders SET note = 'new' WHERE id = 1",
            "UPDATE orders SET tenant = 3 WHERE id = 3",
            "DELETE FROM orders WHERE id = 2",
        ])
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    stage
        .assert(Comparison::of("orders").target("sales"))
        .await?;
    let sql = format!(
        "SELECT concat(sorting_key, ' / ', partition_key) FROM system.tables WHERE database = '{}' AND name = 'sales'",
        stage.database
    );
    let keys = stage.clickhouse.query(&sql).await?;
    ensure!(keys == "tenant, id / tenant % 4", "{keys}");
    Ok(())
}

async fn types_chosen_by_hand_are_used() -> Result<()> {
    let stage = with_orders(SourceKind::MySql).await?;
    let columns =
        json!({ "note": { "type": "LowCardinality(String)" }, "total": { "type": "Int64" } });
    let mut pipe = running_with(&orders(&stage, json!({ "columns": columns }))).await?;
    stage
        .source
        .execute("INSERT INTO orders VALUES (4, 4, 'c', 'd', -4)")
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    stage.assert_same("orders").await?;
    let sql = format!(
        "SELECT arrayStringConcat(groupArray(type), '; ') FROM (SELECT type FROM system.columns WHERE database = '{}' \
         AND table = 'orders' AND name IN ('note', 'total') ORDER BY name)",
        stage.database
    );
    let types = stage.clickhouse.query(&sql).await?;
    ensure!(
        types == "LowCardinality(Nullable(String)); Nullable(Int64)",
        "{types}"
    );
    Ok(())
}

async fn null_becomes_the_default_where_nullable_is_false() -> Result<()> {
    let stage = with_orders(SourceKind::MySql).await?;
    let mut file = orders(&stage, json!({}));
    file["nullable"] = json!(false);
    let mut pipe = running_with(&file).await?;
    stage
        .source
        .execute("INSERT INTO orders VALUES (4, 4, NULL, NULL, NULL)")
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let sql = format!(
        "SELECT count() FROM `{}`.orders_current WHERE id IN (2, 4) AND card = '' AND note = '' AND total = 0",
        stage.database
    );
    ensure!(stage.clickhouse.number(&sql).await? == 2);
    let sql = format!(
        "SELECT count() FROM system.columns WHERE database = '{}' AND table = 'orders' AND type LIKE '%Nullable%'",
        stage.database
    );
    ensure!(stage.clickhouse.number(&sql).await? == 0);
    Ok(())
}

async fn system_columns_take_the_names_of_the_file() -> Result<()> {
    let stage = with_orders(SourceKind::MariaDb).await?;
    let mut file = orders(&stage, json!({}));
    file["system_columns"] =
        json!({ "version": "pw_version", "deleted": "pw_gone", "synced_at": "pw_when" });
    let mut pipe = running_with(&file).await?;
    stage
        .source
        .execute("DELETE FROM orders WHERE id = 1")
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    stage
        .assert(Comparison::of("orders").deleted_column("pw_gone"))
        .await?;
    let sql = format!(
        "SELECT count() FROM `{}`.orders WHERE pw_gone = 1 AND pw_version > 0 AND pw_when > '2020-01-01'",
        stage.database
    );
    ensure!(stage.clickhouse.number(&sql).await? == 1);
    Ok(())
}

async fn durability_stands_in_the_tables_definition() -> Result<()> {
    for (durability, expected) in [("fsync", 1), ("answered", 0)] {
        let stage = with_orders(SourceKind::MariaDb).await?;
        let mut file = orders(&stage, json!({}));
        file["destination"]["durability"] = json!(durability);
        running_with(&file).await?;
        let sql = format!(
            "SELECT count() FROM system.tables WHERE database = '{}' AND name = 'orders' \
             AND create_table_query LIKE '%fsync_after_insert = 1%'",
            stage.database
        );
        ensure!(
            stage.clickhouse.number(&sql).await? == expected,
            "{durability}"
        );
    }
    Ok(())
}

async fn a_flush_comes_after_the_interval_or_the_rows() -> Result<()> {
    let stage = with_orders(SourceKind::MySql).await?;
    let mut file = orders(&stage, json!({}));
    file["sync"] = json!({ "interval": "1h", "max_rows": 50 });
    let pipe = running_with(&file).await?;
    let count = format!(
        "SELECT count() FROM `{}`.orders_current WHERE id > 100",
        stage.database
    );
    let insert = |from: u32, until: u32| {
        let rows: Vec<String> = (from..until)
            .map(|id| format!("(1, {id}, NULL, NULL, 0)"))
            .collect();
        format!("INSERT INTO orders VALUES {}", rows.join(", "))
    };
    stage.source.execute(insert(101, 121)).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    ensure!(
        stage.clickhouse.number(&count).await? == 0,
        "rows came before the interval"
    );
    stage.source.execute(insert(121, 161)).await?;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while stage.clickhouse.number(&count).await? < 60 {
        ensure!(
            tokio::time::Instant::now() < deadline,
            "sixty rows wait although fifty are enough"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(pipe);
    Ok(())
}

async fn credentials_come_from_the_environment() -> Result<()> {
    let stage = with_orders(SourceKind::MySql).await?;
    let mut file = orders(&stage, json!({}));
    file["source"]["password"] = json!("${PW_TEST_PASSWORD}");
    file["destination"]["user"] = json!("${PW_TEST_USER:-pipewright}");
    file["destination"]["password"] = json!("pipe${PW_TEST_HALF}");
    let launch = launch(&file)
        .env("PW_TEST_PASSWORD", "pipewright")
        .env("PW_TEST_HALF", "wright");
    let mut pipe = start(launch)?;
    pipe.wait_state("Running", START).await?;
    stage.assert_same("orders").await?;
    let text = pipe
        .get_text(&format!("/v1/pipes/{}", stage.database))
        .await?
        + &pipe.get_text("/metrics").await?;
    ensure!(!text.contains("wright\""), "a password is shown: {text}");
    Ok(())
}

async fn several_pipes_run_in_one_process() -> Result<()> {
    let stages = [
        with_orders(SourceKind::MySql).await?,
        with_orders(SourceKind::MariaDb).await?,
    ];
    let files = stages.each_ref().map(|stage| orders(stage, json!({})));
    // The first is the pipe whose status is watched; the second stands in a folder beside it.
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("second.yaml"), format!("{:#}", files[1]))?;
    let mut pipe = start(launch(&files[0]).argument(folder.path().display().to_string()))?;
    pipe.wait_state("Running", START).await?;
    let deadline = tokio::time::Instant::now() + START;
    while pipe
        .get(&format!("/v1/pipes/{}", stages[1].database))
        .await?["state"]
        != "Running"
    {
        ensure!(
            tokio::time::Instant::now() < deadline,
            "the second pipe is not Running"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for stage in &stages {
        stage
            .source
            .execute("UPDATE orders SET total = total + 1")
            .await?;
        stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
        stage.assert_same("orders").await?;
    }
    Ok(())
}
