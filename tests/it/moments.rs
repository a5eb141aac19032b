//! The one moment that the load of an append table reads, and whose changes an append table has: what holds such a load up
//! or breaks it off, holds up nothing else, and no change is lost or there twice when a process, a state or ClickHouse
//! goes back to an earlier place.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mysql_async::prelude::Queryable;
use pipewright::batch::TableName;
use pipewright::config::{self, PositionMode, Secrets};
use pipewright::error::ErrorKind;
use pipewright::source::mysql;
use pipewright::source::mysql::catalog::{self, SourceTable};
use pipewright::source::mysql::snapshot::{self, Attempt, Partition, PartitionReader, Wanted};
use serde_json::json;
use testbed::SourceKind;
use testbed::harness::{Comparison, Pipe, Proxy, Stage};

use crate::support::{
    CATCH_UP, START, allow_locks, append, history, launch, newest_place, on_both_sources, once,
    reason_of, running_with, start, wait_history,
};

on_both_sources! {
    who_has_lost_the_term_stops_and_the_winner_has_each_change_once: 400,
}

once! {
    between_two_partitions_nothing_keeps_a_statement_waiting: 200,
    an_append_table_that_cannot_be_locked_holds_up_no_other: 400,
    a_load_that_breaks_off_begins_anew_by_itself: 300,
    an_insert_that_arrives_behind_a_later_claim_writes_nothing: 300,
}

async fn count(
    reader: &mut PartitionReader,
    table: &SourceTable,
    predicate: &str,
) -> pipewright::error::Result<u32> {
    let partition = Partition {
        number: 0,
        predicate: predicate.to_owned(),
        description: String::new(),
    };
    reader.start(table, &partition).await?;
    let mut rows = 0;
    let mut more = true;
    while more {
        more = reader
            .next_rows(|_| {
                rows += 1;
                Ok(())
            })
            .await?;
    }
    Ok(rows)
}

/// pitfall 126: a session in a snapshot keeps the table's metadata only while it reads. What was altered in between refuses
/// the next partition.
async fn between_two_partitions_nothing_keeps_a_statement_waiting() -> Result<()> {
    // MariaDB keeps the metadata until the transaction's end.
    let stage = Stage::shared(SourceKind::MySql).await?;
    allow_locks(&stage).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a INT)",
            "INSERT INTO t VALUES (1, 1), (2, 2)",
        ])
        .await?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("pipe.yaml");
    fs::write(&path, format!("{:#}", stage.pipe_file(&["t"])))?;
    let pipes = config::load(&[path], &|_| None, Secrets::Resolve)
        .map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
    let source = mysql::Source::connect(&pipes[0].source, None).await?;
    for (rows, statement) in [
        (2, "ALTER TABLE t ADD COLUMN b INT, ALGORITHM = COPY"),
        (3, "TRUNCATE TABLE t"),
    ] {
        waits_for_a_partition_alone(&stage, &source, rows, statement)
            .await
            .context(statement)?;
    }
    Ok(())
}

/// `t` has so many rows; one is added behind the snapshot.
async fn waits_for_a_partition_alone(
    stage: &Stage,
    source: &Arc<mysql::Source>,
    rows: u32,
    statement: &str,
) -> Result<()> {
    let name = TableName {
        database: stage.database.clone(),
        table: "t".to_owned(),
    };
    let mut control = source.control().await?;
    let tables = catalog::load_tables(&mut control, source, std::slice::from_ref(&name), |_| {
        Vec::new()
    })
    .await?;
    let wanted = Wanted {
        table: &name,
        sessions: 1,
        unlocked: None,
    };
    let attempt = snapshot::take_consistent(source, PositionMode::Auto, &wanted).await?;
    let Attempt::Taken(mut taken) = attempt else {
        bail!("something holds a table that nobody uses: {attempt:?}");
    };
    let mut reader = PartitionReader::new(taken.sessions.remove(0));
    let behind = format!("INSERT INTO t (id) VALUES ({rows} + 1)");
    stage.source.execute(behind).await?;
    ensure!(count(&mut reader, &tables[0], "id <= 1").await? == 1);
    // Without the release the snapshot keeps the definition.
    let mut conn = stage.source.connect().await?;
    conn.query_drop("SET SESSION lock_wait_timeout = 1").await?;
    let kept = conn.query_drop(statement).await;
    ensure!(kept.is_err(), "it did not wait for the snapshot");
    reader.release().await?;
    ensure!(count(&mut reader, &tables[0], "TRUE").await? == rows);
    reader.release().await?;
    conn.query_drop("SET SESSION lock_wait_timeout = 60")
        .await?;
    conn.query_drop(statement).await?;
    let refused = count(&mut reader, &tables[0], "TRUE").await;
    let kind = refused.map_err(|error| error.kind());
    ensure!(kind == Err(ErrorKind::SchemaConflict), "{kind:?}");
    Ok(())
}

/// pitfall 126: behind a transaction that stays open the lock is tried for seconds, and again; an account that may not lock
/// takes out of service what it may not lock.
async fn an_append_table_that_cannot_be_locked_holds_up_no_other() -> Result<()> {
    let stage = Stage::shared(SourceKind::MySql).await?;
    allow_locks(&stage).await?;
    for table in ["t", "u"] {
        stage
            .source
            .execute_all([
                format!("CREATE TABLE {table} (id INT PRIMARY KEY, a VARCHAR(20))"),
                format!("INSERT INTO {table} VALUES (1, 'one')"),
            ])
            .await?;
    }
    let mut open = stage.source.connect().await?;
    open.query_drop("START TRANSACTION").await?;
    open.query_drop("INSERT INTO t VALUES (2, 'open')").await?;
    let entries = vec![append(&stage, "t"), append(&stage, "u")];
    let mut pipe = start(launch(&stage.pipe_file_of(entries)))?;
    let t = format!("{}.t", stage.database);
    let held = reason_of(&mut pipe, &t).await?;
    ensure!(held["code"] == "source_unavailable", "{held:#}");
    let remedy = held["remedy"].to_string();
    ensure!(remedy.contains("end transactions"), "{held:#}");
    stage
        .source
        .execute_all([
            "INSERT INTO t VALUES (3, 'three')",
            "UPDATE u SET a = 'uno'",
        ])
        .await?;
    // Loaded before or behind the UPDATE.
    let of_u = format!(
        "SELECT countIf(a = 'uno') FROM `{}`.u_current",
        stage.database
    );
    let until = Instant::now() + CATCH_UP;
    while stage.clickhouse.number(&of_u).await.ok() != Some(1) {
        ensure!(Instant::now() < until, "`u` waits for `t`");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    ensure!(pipe.status().await?["state"] == "Snapshot");
    open.query_drop("COMMIT").await?;
    pipe.wait_state("Running", START).await?;
    wait_history(&stage, "t", OF_THREE).await?;
    without_the_right_to_lock(&stage, &mut pipe, &t).await
}

/// What `t` has before the right to lock it is taken away.
const OF_THREE: &str = "1 one insert\n2 open insert\n3 three insert";

async fn without_the_right_to_lock(stage: &Stage, pipe: &mut Pipe, t: &str) -> Result<()> {
    let grant = |verb: &str, to: &str| {
        format!(
            "{verb} LOCK TABLES ON `{}`.* {to} pipewright@'%'",
            stage.database
        )
    };
    stage.source.execute(grant("REVOKE", "FROM")).await?;
    let resync = json!({ "command": "resync", "table": t });
    let (code, answer) = pipe.order(resync.clone()).await?;
    let hint = answer["hint"].to_string();
    ensure!(
        code == 422 && hint.contains("GRANT LOCK TABLES"),
        "{code}: {answer:#}"
    );
    ensure!(pipe.status().await?["state"] == "Running");
    stage.source.execute(grant("GRANT", "TO")).await?;
    // The right goes while the load waits for its moment.
    let mut open = stage.source.connect().await?;
    open.query_drop("START TRANSACTION").await?;
    open.query_drop("INSERT INTO t VALUES (9, 'open')").await?;
    let (code, answer) = pipe.order(resync.clone()).await?;
    ensure!(code == 200, "{code}: {answer:#}");
    let held = reason_of(pipe, t).await?;
    ensure!(held["code"] == "source_unavailable", "{held:#}");
    stage.source.execute(grant("REVOKE", "FROM")).await?;
    open.query_drop("ROLLBACK").await?;
    pipe.wait_state("Degraded", START).await?;
    let denied = reason_of(pipe, t).await?;
    ensure!(denied["code"] == "source_denied", "{denied:#}");
    let remedy = denied["remedy"].to_string();
    ensure!(remedy.contains("GRANT LOCK TABLES"), "{denied:#}");
    stage.source.execute("UPDATE u SET a = 'due'").await?;
    stage.wait_caught_up(pipe, CATCH_UP).await?;
    stage.assert(Comparison::of("u").view_alone()).await?;
    stage.source.execute(grant("GRANT", "TO")).await?;
    let (code, answer) = pipe.order(resync).await?;
    ensure!(code == 200, "{code}: {answer:#}");
    pipe.wait_state("Running", START).await?;
    stage
        .source
        .execute("INSERT INTO t VALUES (4, 'four')")
        .await?;
    stage.wait_caught_up(pipe, CATCH_UP).await?;
    // What it had before is kept.
    wait_history(stage, "t_history_2", OF_THREE).await?;
    let expected = format!("{OF_THREE}\n4 four insert");
    wait_history(stage, "t", &expected).await?;
    stage.assert_no_load_left().await
}

/// pitfall 132: a target that was there knows inserts again, or Setup says how it will; and the first load breaks off, as
/// ClickHouse takes no rows for that target.
async fn a_load_that_breaks_off_begins_anew_by_itself() -> Result<()> {
    let stage = Stage::shared(SourceKind::MariaDb).await?;
    let database = &stage.database;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a VARCHAR(20))",
            "INSERT INTO t VALUES (1, 'one')",
        ])
        .await?;
    let create = [
        format!("CREATE DATABASE IF NOT EXISTS `{database}` ENGINE = Atomic"),
        format!(
            "CREATE TABLE `{database}`.t (id Int32, a Nullable(String), _version UInt64, \
             _op Enum8('insert' = 0, 'update' = 1, 'delete' = 2), _synced_at DateTime64(6, 'UTC') DEFAULT now64(6)) \
             ENGINE = MergeTree ORDER BY (id, _version) SETTINGS max_parts_in_total = 0"
        ),
    ];
    for sql in create {
        stage.clickhouse.query(&sql).await?;
    }
    let file = stage.pipe_file_of(vec![append(&stage, "t")]);
    let mut refused = start(launch(&file))?;
    let code = refused.wait_exit(START).await?;
    let said = refused.log().tail();
    let alter = format!(
        "ALTER TABLE `{database}`.`t` MODIFY SETTING non_replicated_deduplication_window = 1000"
    );
    ensure!(code == 1 && said.contains(&alter), "{code}: {said}");
    stage.clickhouse.query(&alter).await?;
    let mut pipe = start(launch(&file))?;
    let reason = reason_of(&mut pipe, &format!("{database}.t")).await?;
    let message = reason["message"].to_string();
    ensure!(message.contains("broke off"), "{reason:#}");
    // The stream goes on meanwhile, and the load beside what the first has left succeeds.
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    pipe.wait_state("Running", START).await?;
    stage
        .source
        .execute("INSERT INTO t VALUES (2, 'two')")
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    wait_history(&stage, "t", "1 one insert\n2 two insert").await?;
    let document = pipe.status().await?;
    ensure!(
        document["reasons"].as_array().is_some_and(Vec::is_empty),
        "{document:#}"
    );
    // A first load that broke off has left no history.
    ensure!(!stage.clickhouse.exists(database, "t_history_1").await?);
    stage.assert_no_load_left().await
}

/// pitfalls 131 and 132: the state goes back behind its rows, and another process claims the term while this one is at
/// work.
async fn who_has_lost_the_term_stops_and_the_winner_has_each_change_once(
    kind: SourceKind,
) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    allow_locks(&stage).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a VARCHAR(20))",
            "INSERT INTO t VALUES (1, 'one')",
        ])
        .await?;
    let mut pipe = running_with(&stage.pipe_file_of(vec![append(&stage, "t")])).await?;
    loaded_once_more(&stage, &mut pipe).await?;
    the_state_goes_back(&stage, &mut pipe).await?;
    another_claims_the_term(&stage, &mut pipe).await
}

async fn loaded_once_more(stage: &Stage, pipe: &mut Pipe) -> Result<()> {
    stage
        .source
        .execute_all([
            "INSERT INTO t VALUES (2, 'two')",
            "UPDATE t SET a = 'uno' WHERE id = 1",
        ])
        .await?;
    stage.wait_caught_up(pipe, CATCH_UP).await?;
    resync(stage, pipe).await?;
    stage
        .source
        .execute("INSERT INTO t VALUES (3, 'three')")
        .await?;
    stage.wait_caught_up(pipe, CATCH_UP).await?;
    pipe.stop().await?;
    pipe.restart()?;
    pipe.wait_state("Running", START).await?;
    stage.wait_caught_up(pipe, CATCH_UP).await?;
    // The UPDATE came before the load.
    wait_history(stage, "t", "1 uno insert\n2 two insert\n3 three insert").await?;
    let before = "1 one insert\n2 two insert\n1 uno update";
    wait_history(stage, "t_history_1", before).await
}

async fn resync(stage: &Stage, pipe: &mut Pipe) -> Result<()> {
    let resync = json!({ "command": "resync", "table": format!("{}.t", stage.database) });
    let (code, answer) = pipe.order(resync).await?;
    ensure!(code == 200, "{code}: {answer:#}");
    pipe.wait_state("Running", START).await.map(drop)
}

/// Which of the other state's changes are there cannot be told, so the table asks for a load; what it has is kept.
async fn the_state_goes_back(stage: &Stage, pipe: &mut Pipe) -> Result<()> {
    pipe.stop().await?;
    pipe.copy_state("kept")?;
    pipe.restart()?;
    stage
        .source
        .execute("UPDATE t SET a = 'due' WHERE id = 2")
        .await?;
    stage.wait_caught_up(pipe, CATCH_UP).await?;
    pipe.stop().await?;
    pipe.use_state("kept");
    pipe.restart()?;
    stage.source.execute("DELETE FROM t WHERE id = 3").await?;
    let reason = reason_of(pipe, &format!("{}.t", stage.database)).await?;
    ensure!(
        reason.to_string().contains("another state of this pipe"),
        "{reason:#}"
    );
    resync(stage, pipe).await?;
    stage.wait_caught_up(pipe, CATCH_UP).await?;
    wait_history(stage, "t", "1 uno insert\n2 due insert").await?;
    let before = "1 uno insert\n2 two insert\n3 three insert\n2 due update";
    wait_history(stage, "t_history_2", before).await
}

async fn another_claims_the_term(stage: &Stage, pipe: &mut Pipe) -> Result<()> {
    let database = &stage.database;
    let checkpoints = format!("`{database}`._pipewright_checkpoints");
    let highest = format!("SELECT max(term) FROM {checkpoints} WHERE pipe = '{database}'");
    let rival = stage.clickhouse.number(&highest).await? + 3;
    // The mirror's newest row may stand a moment before the pipe's own checkpoint.
    let place = serde_json::to_string(&newest_place(stage).await?)?;
    let claim = format!(
        "INSERT INTO {checkpoints} (pipe, term, owner, stream_offset, position, kind) \
         VALUES ('{database}', {rival}, 'another', 0, '{place}', 'claim')"
    );
    stage.clickhouse.query(&claim).await?;
    stage
        .source
        .execute("UPDATE t SET a = 'tre' WHERE id = 1")
        .await?;
    let failed = pipe.wait_state("Failed", START).await?;
    let said = failed["reasons"].to_string();
    ensure!(said.contains("another process writes"), "{said}");
    let mut expected = "1 uno insert\n2 due insert".to_owned();
    wait_history(stage, "t", &expected).await?;
    let (code, answer) = pipe.command("start").await?;
    ensure!(code == 200, "{code}: {answer:#}");
    pipe.wait_state("Running", START).await?;
    stage.wait_caught_up(pipe, CATCH_UP).await?;
    expected.push_str("\n1 tre update");
    wait_history(stage, "t", &expected).await?;
    let above =
        format!("SELECT count() FROM `{database}`.t WHERE bitShiftRight(_version, 48) > {rival}");
    ensure!(
        stage.clickhouse.number(&above).await? == 1,
        "of the rival's term"
    );
    stage.assert(Comparison::of("t").view_alone()).await?;
    Ok(())
}

/// pitfall 132: the insert was sent by a process that had the term, and reaches the server when the next one has taken out
/// what was not checkpointed, and has written it.
async fn an_insert_that_arrives_behind_a_later_claim_writes_nothing() -> Result<()> {
    let stage = Stage::shared(SourceKind::MySql).await?;
    allow_locks(&stage).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a VARCHAR(20))",
            "INSERT INTO t VALUES (1, 'one')",
        ])
        .await?;
    let proxy = Proxy::before(stage.clickhouse_server.http_port()).await?;
    let mut file = stage.pipe_file_of(vec![append(&stage, "t")]);
    file["destination"]["url"] = json!(proxy.url());
    let mut pipe = running_with(&file).await?;
    proxy.hold();
    stage
        .source
        .execute("INSERT INTO t VALUES (2, 'two')")
        .await?;
    proxy.wait_held(CATCH_UP).await?;
    pipe.kill9()?;
    pipe.restart()?;
    pipe.wait_state("Running", START).await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let expected = "1 one insert\n2 two insert";
    wait_history(&stage, "t", expected).await?;
    let answer = proxy.release().await?;
    let found = history(&stage, "t", "toString(id), a").await?;
    ensure!(found == expected, "{found}\nafter {answer}");
    ensure!(answer.contains("FUNCTION_THROW_IF"), "{answer}");
    Ok(())
}
