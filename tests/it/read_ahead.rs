//! Rows that are read from tables show more than the stream has got to: what the source then loses does not stay, and a load
//! goes on wherever nothing of it is lost.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use pipewright::fault::VARIABLE;
use serde_json::{Value, json};
use testbed::harness::replication::{follow, promote, stop_following, wait_followed};
use testbed::harness::{BinlogProxy, Pipe, Source, Stage};
use testbed::{SourceKind, SourceOptions, SourceServer};

use crate::failover::{
    LATE, TAKE_OVER, WIDE, assert_goes_on, assert_taken_over, keep_busy, late_and_wide, primary,
    server,
};
use crate::support::{
    assert_caught_up, ends_at, launch, on_both_sources, running_with, start, wait_aborted,
};

on_both_sources! {
    what_completed_an_image_and_the_new_primary_lacks_does_not_stay: 480,
    a_load_begins_anew_where_the_source_comes_back_without_what_it_has_read: 480,
    a_load_goes_on_at_a_server_of_another_identity_with_the_same_data: 480,
    a_load_goes_on_at_a_replica_that_has_all_that_it_has_read: 480,
    a_table_that_cannot_begin_anew_on_the_new_primary_keeps_no_other_from_it: 480,
}

/// pitfall 60: the row of an event is read when a later one has changed it, and that one alone is lost.
async fn what_completed_an_image_and_the_new_primary_lacks_does_not_stay(
    kind: SourceKind,
) -> Result<()> {
    let (stage, replica, mut file) = late_and_wide(kind, &["late", "wide"]).await?;
    let widened = "ALTER TABLE late ADD COLUMN b INT";
    stage.source.execute(widened).await?;
    file["row_image"] = json!("complete");
    let mut pipe = running_with(&file).await?;
    ensure!(pipe.stop().await? == 0);
    let mut conn = stage.source.connect().await?;
    let minimal = "SET SESSION binlog_row_image = 'MINIMAL'";
    conn.query_drop(minimal).await?;
    for held in [
        "UPDATE late SET a = 10 WHERE id = 1",
        "UPDATE late SET a = 20 WHERE id = 2",
    ] {
        conn.query_drop(held).await?;
    }
    keep_busy(&stage).await?;
    wait_followed(&replica, &stage.source_server).await?;
    stop_following(&replica).await?;
    for lost in [
        "UPDATE late SET b = 11 WHERE id = 1",
        "DELETE FROM late WHERE id = 2",
    ] {
        conn.query_drop(lost).await?;
    }
    // The checkpoint is past what is held, and nothing of what is lost is sent.
    ends_at(&mut pipe, "flush:1#5").await?;
    let read = format!(
        "SELECT countIf(id = 1 AND b = 11) + countIf(id = 2) * 10 FROM `{}`.late FINAL WHERE _is_deleted = 0",
        stage.database
    );
    let read = stage.clickhouse.number(&read).await?;
    ensure!(
        read == 1,
        "nothing was read that the new primary lacks: {read}"
    );
    assert_taken_over(stage, &replica, &mut pipe).await
}

/// Copies what is in one folder into another, in place of what is there.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        std::fs::remove_dir_all(to)?;
    }
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    ensure!(copied.success(), "{} is not copied", from.display());
    Ok(())
}

/// A volume is put back to what it was, or a machine has lost what its disk had not: the server is the same.
async fn a_load_begins_anew_where_the_source_comes_back_without_what_it_has_read(
    kind: SourceKind,
) -> Result<()> {
    let mut stage = primary(kind).await?;
    stage.source.execute_all(LATE).await?;
    stage.source.execute(WIDE).await?;
    let mut file = stage.pipe_file(&["late", "wide"]);
    file["sync"] = json!({ "interval": "200ms", "max_rows": 1 });
    file["snapshot"] = json!({ "tables_in_parallel": 1 });
    let mut pipe = start(launch(&file).env(VARIABLE, "load:2"))?;
    wait_aborted(&mut pipe).await?;
    keep_busy(&stage).await?;
    let folder = tempfile::tempdir()?;
    let copy = folder.path().join("copy");
    tokio::task::block_in_place(|| {
        stage.source_server.stop()?;
        copy_folder(stage.source_server.data_dir(), &copy)?;
        stage.source_server.start_again()
    })?;
    stage.source = Source::with_database(&stage.source_server, &stage.database).await?;
    stage
        .source
        .execute_all([
            "INSERT INTO late VALUES (100, 100)",
            "UPDATE late SET a = 10 WHERE id = 1",
            "DELETE FROM late WHERE id = 2",
        ])
        .await?;
    // More than are written until the pipe asks: their numbers are given once more.
    for id in 101..150 {
        let row = format!("INSERT INTO late VALUES ({id}, 0)");
        stage.source.execute(row).await?;
    }
    ends_at(&mut pipe, "load:3").await?;
    let read = format!(
        "SELECT count() FROM `{}`.late WHERE id = 100",
        stage.database
    );
    ensure!(
        stage.clickhouse.number(&read).await? == 1,
        "nothing was read that the source loses"
    );
    tokio::task::block_in_place(|| {
        stage.source_server.kill()?;
        copy_folder(&copy, stage.source_server.data_dir())?;
        stage.source_server.start_again()
    })?;
    stage.source = Source::with_database(&stage.source_server, &stage.database).await?;
    assert_goes_on(stage, &mut pipe).await
}

/// The rows of the table whose load is interrupted.
const ROWS: u64 = 120_000;

/// A table, and the pipe whose load of it was interrupted behind its first partitions, with the address that it reads.
async fn half_loaded(stage: &Stage) -> Result<(Pipe, BinlogProxy)> {
    let address = BinlogProxy::before(stage.source_server.port(), |_, _, _| {}).await?;
    let mut file = stage.pipe_file(&["late"]);
    file["source"]["port"] = json!(address.port());
    file["snapshot"] =
        json!({ "rows_per_partition": 5_000, "threads_per_table": 1, "tables_in_parallel": 1 });
    let mut pipe = start(launch(&file).env(VARIABLE, "load:3"))?;
    wait_aborted(&mut pipe).await?;
    Ok((pipe, address))
}

async fn fill(stage: &Stage) -> Result<()> {
    let made = "CREATE TABLE late (id INT PRIMARY KEY, a INT)";
    stage.source.execute(made).await?;
    for first in (0..ROWS).step_by(10_000) {
        let rows: Vec<String> = (first..first + 10_000)
            .map(|id| format!("({id}, 1)"))
            .collect();
        let rows = format!("INSERT INTO late VALUES {}", rows.join(", "));
        stage.source.execute(rows).await?;
    }
    Ok(())
}

/// How many rows of the table were written before `until`, or all, and when the last of them was.
async fn written(stage: &Stage, until: Option<&str>) -> Result<(u64, String)> {
    let until = until.map_or_else(String::new, |until| {
        format!(" WHERE toString(_synced_at) <= '{until}'")
    });
    let sql = format!(
        "SELECT toString(count()), toString(max(_synced_at)) FROM `{}`.late FINAL{until}",
        stage.database
    );
    let rows = stage.clickhouse.rows(&sql).await?;
    let cell = |index: usize| {
        let cell = rows.first().and_then(|row| row.get(index).cloned());
        cell.flatten().context("no answer")
    };
    Ok((cell(0)?.parse()?, cell(1)?))
}

/// The load goes on at `other`, and nothing that it has read is read again.
async fn assert_load_goes_on(
    mut stage: Stage,
    mut pipe: Pipe,
    address: &BinlogProxy,
    other: &SourceServer,
) -> Result<()> {
    let (rows, last) = written(&stage, None).await?;
    ensure!(
        rows > 0 && rows < ROWS,
        "{rows} rows are loaded, which is not in the middle"
    );
    address.turn_to(other.port());
    stage.source = Source::with_database(other, &stage.database).await?;
    // Rows that are yet to be read.
    stage
        .source
        .execute_all([
            "UPDATE late SET a = 2 WHERE id = 110000",
            "DELETE FROM late WHERE id = 110001",
        ])
        .await?;
    pipe.change_env(VARIABLE, None);
    pipe.restart()?;
    pipe.wait_state("Running", TAKE_OVER).await?;
    let (stayed, _) = written(&stage, Some(&last)).await?;
    ensure!(
        stayed == rows,
        "{stayed} of {rows} rows that had been read were not read again"
    );
    stage
        .source
        .execute("UPDATE late SET a = 3 WHERE id < 10")
        .await?;
    assert_caught_up(&stage, &mut pipe, &["late"]).await?;
    stage.assert_no_load_left().await
}

async fn identity(server: &SourceServer) -> Result<String> {
    let mut conn = Conn::from_url(server.root_url()).await?;
    let identity: Option<String> = conn
        .query_first(match server.kind().is_mariadb() {
            true => "SELECT @@server_uid",
            false => "SELECT @@server_uuid",
        })
        .await?;
    conn.disconnect().await?;
    identity.context("the server has no identity")
}

/// MariaDB makes its identity of a port and a MAC address, which both change where a pod is scheduled anew; MySQL reads its
/// own from a file that is not always kept.
async fn a_load_goes_on_at_a_server_of_another_identity_with_the_same_data(
    kind: SourceKind,
) -> Result<()> {
    let stage = primary(kind).await?;
    fill(&stage).await?;
    let (pipe, address) = half_loaded(&stage).await?;
    let former = identity(&stage.source_server).await?;
    let (data, id) = (
        stage.source_server.data_dir().to_owned(),
        stage.source_server.port(),
    );
    tokio::task::block_in_place(|| stage.source_server.stop())?;
    if !kind.is_mariadb() {
        std::fs::remove_file(data.join("auto.cnf"))?;
    }
    let other = tokio::task::spawn_blocking(move || {
        let mut options = SourceOptions::new(kind).arg(format!("--server-id={id}"));
        options.data_dir = Some(data);
        SourceServer::start(options)
    })
    .await??;
    ensure!(
        identity(&other).await? != former,
        "the server has kept its identity"
    );
    assert_load_goes_on(stage, pipe, &address, &other).await
}

async fn a_load_goes_on_at_a_replica_that_has_all_that_it_has_read(kind: SourceKind) -> Result<()> {
    let stage = primary(kind).await?;
    let replica = server(kind).await?;
    follow(&replica, &stage.source_server).await?;
    fill(&stage).await?;
    let (pipe, address) = half_loaded(&stage).await?;
    wait_followed(&replica, &stage.source_server).await?;
    promote(&replica).await?;
    assert_load_goes_on(stage, pipe, &address, &replica).await
}

/// pitfall 60: tables that have got further than the pipe begin together, without the one that is refused.
async fn a_table_that_cannot_begin_anew_on_the_new_primary_keeps_no_other_from_it(
    kind: SourceKind,
) -> Result<()> {
    const TABLES: [&str; 4] = ["late", "later", "latest", "unlike"];
    let (mut stage, replica, file) = late_and_wide(kind, &["wide"]).await?;
    for table in &TABLES[1..] {
        let made = format!("CREATE TABLE {table} (id INT PRIMARY KEY, a INT)");
        stage.source.execute(made).await?;
    }
    let mut pipe = running_with(&file).await?;
    ensure!(pipe.stop().await? == 0);
    pipe.change_env(VARIABLE, Some("change:2"));
    pipe.restart()?;
    pipe.wait_state("Running", TAKE_OVER).await?;
    keep_busy(&stage).await?;
    wait_followed(&replica, &stage.source_server).await?;
    stop_following(&replica).await?;
    for table in TABLES {
        let lost = format!("INSERT INTO {table} VALUES (100, 100)");
        stage.source.execute(lost).await?;
    }
    let entries = TABLES.map(|table| json!({ "source": format!("{}.{table}", stage.database) }));
    // The answer is lost with the process, or had come before.
    if let Ok((status, document)) = pipe.change(json!({ "tables": { "add": entries } })).await {
        ensure!(status == 200, "{status} {document:#}");
    }
    wait_aborted(&mut pipe).await?;
    tokio::task::block_in_place(|| stage.source_server.kill())?;
    promote(&replica).await?;
    stage.source = Source::with_database(&replica, &stage.database).await?;
    let statements = [
        "ALTER TABLE unlike DROP PRIMARY KEY",
        "INSERT INTO later VALUES (1, 1)",
    ];
    stage.source.execute_all(statements).await?;
    pipe.change_env(VARIABLE, None);
    pipe.restart()?;
    let refused = |status: &Value| {
        let tables = status["tables"].as_array().into_iter().flatten();
        let mut states = tables.map(|table| (table["state"].as_str(), table["source"].as_str()));
        states.all(
            |(state, name)| match name.is_some_and(|name| name.ends_with(".unlike")) {
                true => state == Some("Quarantined"),
                false => state == Some("Streaming"),
            },
        )
    };
    pipe.wait_for("one table out of service", TAKE_OVER, refused)
        .await?;
    assert_caught_up(&stage, &mut pipe, &["late", "later", "latest", "wide"]).await
}
