//! A replica that takes over: the pipe goes on there by GTID, unless rows of its own are missing there.

mod group;
mod kept;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use pipewright::fault::VARIABLE;
use serde_json::{Value, json};
use testbed::harness::replication::{follow, promote, stop_following, wait_followed};
use testbed::harness::{BinlogProxy, Galera, Pipe, Source, Stage};
use testbed::{SourceKind, SourceOptions, SourceServer};

use crate::preflight::{asked_pipe, assert_setup_tells, codes, findings, told};
use crate::support::{
    CATCH_UP, START, Seed, Workload, assert_caught_up, ends_at, launch, on_both_sources, once,
    running_with, start, wait_aborted,
};

/// How long connecting elsewhere, proving the past there and catching up may take.
pub(crate) const TAKE_OVER: Duration = Duration::from_secs(180);

on_both_sources! {
    a_promoted_replica_carries_the_pipe_on_and_the_old_primary_takes_over_again: 480,
    a_planned_switchover_carries_the_pipe_on_while_the_old_primary_lives_read_only: 360,
    a_writable_server_is_read_before_its_replica_and_rows_that_the_new_primary_lacks_fail_the_pipe_by_name: 360,
    a_statement_that_the_new_primary_lacks_fails_the_pipe_by_name: 480,
    a_place_in_a_file_is_refused_on_another_server: 300,
    another_server_behind_one_address_is_read_where_it_has_all_that_was_read: 360,
    rows_that_a_load_has_read_and_the_new_primary_lacks_do_not_stay: 600,
    a_table_that_was_taken_in_at_a_place_that_the_new_primary_lacks_is_whole: 600,
}

once! {
    a_pipe_goes_from_one_node_of_a_galera_cluster_to_another: 480,
}

pub(crate) async fn server(kind: SourceKind) -> Result<SourceServer> {
    tokio::task::spawn_blocking(move || {
        let options = SourceOptions::new(kind);
        SourceServer::start(match kind.is_mariadb() {
            true => options.arg("--log-slave-updates=ON"),
            false => options,
        })
    })
    .await?
}

pub(crate) async fn primary(kind: SourceKind) -> Result<Stage> {
    let server = server(kind).await?;
    Stage::with_source(move || Ok(server)).await
}

/// A primary behind these statements, and a replica of it.
async fn followed(kind: SourceKind, made: &[&str]) -> Result<(Stage, SourceServer)> {
    let stage = primary(kind).await?;
    stage.source.execute_all(made.to_vec()).await?;
    let replica = server(kind).await?;
    follow(&replica, &stage.source_server).await?;
    Ok((stage, replica))
}

/// A pipe file that also names another server.
fn file_with(stage: &Stage, other: &SourceServer, tables: &[&str]) -> Value {
    let mut file = stage.pipe_file(tables);
    file["source"]["hosts"] = json!([format!("127.0.0.1:{}", other.port())]);
    file
}

/// pitfall 59, pitfall 80, pitfall 136
async fn a_promoted_replica_carries_the_pipe_on_and_the_old_primary_takes_over_again(
    kind: SourceKind,
) -> Result<()> {
    let seed = Seed::new("a_promoted_replica_carries_the_pipe_on");
    let mut stage = primary(kind).await?;
    let workload = Workload { row_count: 1_000 };
    workload.create(&stage).await?;
    let replica = server(kind).await?;
    follow(&replica, &stage.source_server).await?;
    let mut pipe = running_with(&file_with(&stage, &replica, &Workload::TABLES)).await?;
    let writer = workload.write(&stage.source, seed.generator(1));
    tokio::time::sleep(Duration::from_secs(2)).await;
    writer.stop().await?;
    wait_followed(&replica, &stage.source_server).await?;
    tokio::task::block_in_place(|| stage.source_server.kill())?;
    promote(&replica).await?;
    stage.source = Source::with_database(&replica, &stage.database).await?;
    let writer = workload.write(&stage.source, seed.generator(2));
    stage.wait_caught_up(&mut pipe, TAKE_OVER).await?;
    writer.stop().await?;
    assert_caught_up(&stage, &mut pipe, &Workload::TABLES).await?;

    // And back, with the pipe away in the meantime.
    ensure!(pipe.stop().await? == 0);
    tokio::task::block_in_place(|| stage.source_server.start_again_with(&["--read-only=ON"]))?;
    follow(&stage.source_server, &replica).await?;
    let writer = workload.write(&stage.source, seed.generator(3));
    tokio::time::sleep(Duration::from_secs(1)).await;
    writer.stop().await?;
    wait_followed(&stage.source_server, &replica).await?;
    tokio::task::block_in_place(|| replica.kill())?;
    promote(&stage.source_server).await?;
    stage.source = Source::with_database(&stage.source_server, &stage.database).await?;
    pipe.restart()?;
    let writer = workload.write(&stage.source, seed.generator(4));
    stage.wait_caught_up(&mut pipe, TAKE_OVER).await?;
    writer.stop().await?;
    assert_caught_up(&stage, &mut pipe, &Workload::TABLES).await
}

/// pitfall 136: nothing ends the stream from a server that lives on, and to the pipe it is only idle. Between the two steps
/// nobody takes writes, which is told.
async fn a_planned_switchover_carries_the_pipe_on_while_the_old_primary_lives_read_only(
    kind: SourceKind,
) -> Result<()> {
    let (mut stage, replica) = followed(kind, &["CREATE TABLE t (id INT PRIMARY KEY)"]).await?;
    let mut pipe = running_with(&file_with(&stage, &replica, &["t"])).await?;
    stage.source.execute("INSERT INTO t VALUES (1)").await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;

    let mut conn = Conn::from_url(stage.source_server.root_url()).await?;
    conn.query_drop("SET GLOBAL read_only = ON").await?;
    conn.disconnect().await?;
    wait_followed(&replica, &stage.source_server).await?;
    let status = pipe.wait_state("Degraded", TAKE_OVER).await?;
    let reason = &status["reasons"][0];
    ensure!(
        reason["code"] == "replica_stopped"
            && reason["message"]
                .to_string()
                .contains("follows no other server"),
        "{status:#}"
    );
    promote(&replica).await?;
    stage.source = Source::with_database(&replica, &stage.database).await?;
    stage.source.execute("INSERT INTO t VALUES (2)").await?;
    stage.wait_caught_up(&mut pipe, TAKE_OVER).await?;
    ensure!(stage.assert_same("t").await? == 2);
    pipe.wait_state("Running", TAKE_OVER).await?;
    // An idle server notices only at its next heartbeat that a reader has left it.
    let read = read_by_pipes(&replica).await?;
    ensure!(read == 1, "the new primary is read by {read}");
    Ok(())
}

/// The connections of pipes that read a server's binlog.
async fn read_by_pipes(server: &SourceServer) -> Result<usize> {
    let mut conn = Conn::from_url(server.root_url()).await?;
    let replicas: Vec<Row> = conn
        .query(match server.kind().is_mariadb() {
            true => "SHOW SLAVE HOSTS",
            false => "SHOW REPLICAS",
        })
        .await?;
    conn.disconnect().await?;
    let of_pipe = |row: &&Row| {
        let host: Option<String> = row.get(1);
        host.is_some_and(|host| host.starts_with("pipewright/"))
    };
    Ok(replicas.iter().filter(of_pipe).count())
}

/// pitfall 60: on MariaDB the new primary's own transactions have the numbers of those that it lacks. pitfall 136: the
/// replica is named first, has all that the pipe has read, and is left alone as long as it takes no writes.
async fn a_writable_server_is_read_before_its_replica_and_rows_that_the_new_primary_lacks_fail_the_pipe_by_name(
    kind: SourceKind,
) -> Result<()> {
    let (mut stage, replica) =
        followed(kind, &["CREATE TABLE t (id INT PRIMARY KEY, a INT)"]).await?;
    let mut file = file_with(&stage, &stage.source_server, &["t"]);
    file["source"]["port"] = json!(replica.port());
    let mut pipe = running_with(&file).await?;
    stage.source.execute("INSERT INTO t VALUES (1, 1)").await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    wait_followed(&replica, &stage.source_server).await?;
    ensure!(pipe.stop().await? == 0);
    pipe.restart()?;
    pipe.wait_state("Running", START).await?;
    let read = (
        read_by_pipes(&replica).await?,
        read_by_pipes(&stage.source_server).await?,
    );
    ensure!(
        read == (0, 1),
        "the replica and the primary are read by {read:?}"
    );
    stop_following(&replica).await?;
    stage.source.execute("INSERT INTO t VALUES (2, 2)").await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    tokio::task::block_in_place(|| stage.source_server.kill())?;
    promote(&replica).await?;
    stage.source = Source::with_database(&replica, &stage.database).await?;
    for id in 10..20 {
        stage
            .source
            .execute(format!("INSERT INTO t VALUES ({id}, 0)"))
            .await?;
    }
    let status = pipe
        .wait_for("Failed", TAKE_OVER, |status| status["state"] == "Failed")
        .await?;
    let text = status.to_string();
    ensure!(
        text.contains("source_diverged") && text.contains("does not contain transactions"),
        "{status:#}"
    );
    let rows = format!("SELECT groupArray(id) FROM `{}`.t_current", stage.database);
    let rows = stage.clickhouse.query(&rows).await?;
    ensure!(rows == "[1,2]" || rows == "[2,1]", "{rows}");
    Ok(())
}

/// pitfall 136: what was done to a target, and not recorded when the process ended, is found out as rows are.
async fn a_statement_that_the_new_primary_lacks_fails_the_pipe_by_name(
    kind: SourceKind,
) -> Result<()> {
    for (statement, done) in [
        ("ALTER TABLE t ADD COLUMN b INT NULL", "alter:3"),
        ("TRUNCATE TABLE t", "truncate:1"),
    ] {
        ensure_missed(kind, statement, done)
            .await
            .with_context(|| statement)?;
    }
    Ok(())
}

/// The process ends at `done`, and goes on at a server without the statement.
async fn ensure_missed(kind: SourceKind, statement: &str, done: &str) -> Result<()> {
    let (mut stage, replica) =
        followed(kind, &["CREATE TABLE t (id INT PRIMARY KEY, a INT)"]).await?;
    let mut pipe = running_with(&file_with(&stage, &replica, &["t"])).await?;
    stage.source.execute("INSERT INTO t VALUES (1, 1)").await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    wait_followed(&replica, &stage.source_server).await?;
    stop_following(&replica).await?;
    ensure!(pipe.stop().await? == 0);
    pipe.change_env(VARIABLE, Some(done));
    pipe.restart()?;
    pipe.wait_state("Running", START).await?;
    stage.source.execute(statement).await?;
    wait_aborted(&mut pipe).await?;
    pipe.change_env(VARIABLE, None);
    tokio::task::block_in_place(|| stage.source_server.kill())?;
    promote(&replica).await?;
    stage.source = Source::with_database(&replica, &stage.database).await?;
    stage
        .source
        .execute("INSERT INTO t (id) VALUES (2)")
        .await?;
    pipe.restart()?;
    let status = pipe
        .wait_for("Failed", TAKE_OVER, |status| status["state"] == "Failed")
        .await?;
    ensure!(status.to_string().contains("source_diverged"), "{status:#}");
    Ok(())
}

/// pitfall 91: nodes have the same GTIDs and files of their own; what is written at any of them is in the binlog of each.
async fn a_pipe_goes_from_one_node_of_a_galera_cluster_to_another() -> Result<()> {
    let seed = Seed::new("a_pipe_goes_from_one_node_of_a_galera_cluster_to_another");
    let Galera {
        first,
        second,
        folder: _folder,
    } = tokio::task::spawn_blocking(Galera::start).await??;
    let mut stage = Stage::with_source(move || Ok(first)).await?;
    let workload = Workload { row_count: 500 };
    workload.create(&stage).await?;
    let mut by_file = stage.pipe_file(&Workload::TABLES);
    by_file["source"]["position"] = json!("file");
    let mut pipe = start(launch(&by_file))?;
    ensure!(pipe.wait_exit(START).await? == 1);
    let refused = codes(&findings(&pipe).await?, "error");
    ensure!(refused.contains("galera_position"), "{refused:?}");

    let file = file_with(&stage, &second, &Workload::TABLES);
    gtids_that_nodes_do_not_share(&stage, &file).await?;
    let mut pipe = running_with(&file).await?;
    let other = Source::with_database(&second, &stage.database).await?;
    let writer = workload.write(&other, seed.generator(1));
    tokio::time::sleep(Duration::from_secs(1)).await;
    writer.stop().await?;
    // Certified with the other's, so that it is behind them.
    assert_caught_up(&stage, &mut pipe, &Workload::TABLES).await?;
    tokio::task::block_in_place(|| stage.source_server.stop())?;
    stage.source = other;
    let writer = workload.write(&stage.source, seed.generator(2));
    stage.wait_caught_up(&mut pipe, TAKE_OVER).await?;
    writer.stop().await?;
    assert_caught_up(&stage, &mut pipe, &Workload::TABLES).await?;
    ensure!(pipe.stop().await? == 0);
    a_node_that_logs_nothing_of_the_others(&stage, &second).await
}

/// One node may be followed all the same, and no other after it.
async fn gtids_that_nodes_do_not_share(stage: &Stage, file: &Value) -> Result<()> {
    let set = |mode: &str| format!("SET GLOBAL wsrep_gtid_mode = {mode}");
    stage.source.execute(set("OFF")).await?;
    let asked = Stage::shared(SourceKind::MariaDb).await?;
    let pipe = asked_pipe(&asked, None).await?;
    let alone = told(&pipe, &stage.pipe_file(&Workload::TABLES)).await?;
    alone.ensure(&[], &["wsrep_gtid_mode"])?;
    ensure!(alone.errors.is_empty(), "{alone:#?}");
    let both = told(&pipe, file).await?;
    both.ensure(&["wsrep_gtid_mode"], &[])?;
    assert_setup_tells(file, &both).await?;
    stage.source.execute(set("ON")).await
}

/// The last node of the cluster begins it anew.
async fn a_node_that_logs_nothing_of_the_others(stage: &Stage, node: &SourceServer) -> Result<()> {
    tokio::task::block_in_place(|| {
        node.stop()?;
        node.start_again_with(&[
            "--log-slave-updates=OFF",
            // With which the server would not start so.
            "--wsrep-gtid-mode=OFF",
            "--wsrep-cluster-address=gcomm://",
        ])
    })?;
    let asked = Stage::shared(SourceKind::MariaDb).await?;
    let pipe = asked_pipe(&asked, None).await?;
    let mut file = stage.pipe_file(&Workload::TABLES);
    file["source"]["port"] = json!(node.port());
    file["destination"]["database"] = json!(format!("{}_unlogged", stage.database));
    let told = told(&pipe, &file).await?;
    told.ensure(&["log_slave_updates"], &["wsrep_gtid_mode"])?;
    assert_setup_tells(&file, &told).await
}

/// pitfall 61
async fn a_place_in_a_file_is_refused_on_another_server(kind: SourceKind) -> Result<()> {
    let stage = primary(kind).await?;
    stage
        .source
        .execute("CREATE TABLE t (id INT PRIMARY KEY)")
        .await?;
    let other = server(kind).await?;
    follow(&other, &stage.source_server).await?;
    let mut file = stage.pipe_file(&["t"]);
    file["source"]["position"] = json!("file");
    let mut pipe = start(launch(&file))?;
    pipe.wait_state("Running", START).await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    wait_followed(&other, &stage.source_server).await?;
    pipe.kill9()?;
    file["source"]["port"] = json!(other.port());
    pipe.change_file(&file);
    pipe.restart()?;
    let status = pipe
        .wait_for("Failed", START, |status| status["state"] == "Failed")
        .await?;
    ensure!(status.to_string().contains("source_diverged"), "{status:#}");
    Ok(())
}

/// pitfall 136: an address that moves is told by the server behind it, and not by its name.
async fn another_server_behind_one_address_is_read_where_it_has_all_that_was_read(
    kind: SourceKind,
) -> Result<()> {
    let made = [
        "CREATE TABLE t (id INT PRIMARY KEY)",
        "INSERT INTO t VALUES (1)",
    ];
    let (mut stage, replica) = followed(kind, &made).await?;
    let address = BinlogProxy::before(stage.source_server.port(), |_, _, _| {}).await?;
    let mut file = stage.pipe_file(&["t"]);
    file["source"]["port"] = json!(address.port());
    let mut pipe = running_with(&file).await?;
    stage.source.execute("INSERT INTO t VALUES (2)").await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    wait_followed(&replica, &stage.source_server).await?;
    promote(&replica).await?;
    address.turn_to(replica.port());
    stage.source = Source::with_database(&replica, &stage.database).await?;
    stage.source.execute("INSERT INTO t VALUES (3)").await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;

    let stranger = server(kind).await?;
    address.turn_to(stranger.port());
    let status = pipe
        .wait_for("Failed", TAKE_OVER, |status| status["state"] == "Failed")
        .await?;
    ensure!(status.to_string().contains("source_diverged"), "{status:#}");
    ensure!(stage.assert_same("t").await? == 3);
    Ok(())
}

/// The table whose load is broken off by the failover.
pub(crate) const LATE: [&str; 2] = [
    "CREATE TABLE late (id INT PRIMARY KEY, a INT)",
    "INSERT INTO late VALUES (1, 1), (2, 2), (3, 3)",
];

/// The table of which each row makes a flush of its own.
pub(crate) const WIDE: &str = "CREATE TABLE wide (id INT AUTO_INCREMENT PRIMARY KEY, a TEXT)";

/// Both tables at a primary, its replica, and a pipe file of some of them.
pub(crate) async fn late_and_wide(
    kind: SourceKind,
    tables: &[&str],
) -> Result<(Stage, SourceServer, Value)> {
    let (stage, replica) = followed(kind, &[&LATE[..], &[WIDE]].concat()).await?;
    let mut file = file_with(&stage, &replica, tables);
    file["sync"] = json!({ "interval": "200ms", "max_rows": 1 });
    // In the order of their names.
    file["snapshot"] = json!({ "tables_in_parallel": 1 });
    Ok((stage, replica, file))
}

/// Transactions that the stream takes seconds for.
pub(crate) async fn keep_busy(stage: &Stage) -> Result<()> {
    let rows = vec!["(REPEAT('x', 8100))"; 300].join(", ");
    let wide = format!("INSERT INTO wide (a) VALUES {rows}");
    stage.source.execute_all([&wide, &wide]).await
}

/// Changes the table at the primary alone, behind transactions that keep the pipe's stream busy for seconds: a load reads
/// the changes long before the stream does.
async fn change_unseen(stage: &Stage, replica: &SourceServer) -> Result<()> {
    keep_busy(stage).await?;
    wait_followed(replica, &stage.source_server).await?;
    stop_following(replica).await?;
    stage
        .source
        .execute_all([
            "INSERT INTO late VALUES (100, 100)",
            "UPDATE late SET a = 10 WHERE id = 1",
            "DELETE FROM late WHERE id = 2",
        ])
        .await
}

/// The replica takes over and goes on; what is changed first has the numbers of what it lacks, where these are MariaDB's.
/// The pipe, which had ended, is then equal to it.
pub(crate) async fn assert_taken_over(
    mut stage: Stage,
    replica: &SourceServer,
    pipe: &mut Pipe,
) -> Result<()> {
    tokio::task::block_in_place(|| stage.source_server.kill())?;
    promote(replica).await?;
    stage.source = Source::with_database(replica, &stage.database).await?;
    assert_goes_on(stage, pipe).await
}

/// Changes the table at the source, and starts the pipe, which is then equal to it.
pub(crate) async fn assert_goes_on(stage: Stage, pipe: &mut Pipe) -> Result<()> {
    stage
        .source
        .execute("UPDATE late SET a = 30 WHERE id = 3")
        .await?;
    for id in 10..20 {
        let row = format!("INSERT INTO late (id, a) VALUES ({id}, 0)");
        stage.source.execute(row).await?;
    }
    pipe.change_env(VARIABLE, None);
    pipe.restart()?;
    stage.wait_caught_up(pipe, TAKE_OVER).await?;
    pipe.wait_state("Running", TAKE_OVER).await?;
    assert_caught_up(&stage, pipe, &["late", "wide"]).await?;
    ensure!(stage.assert_same("late").await? == 13);
    stage.assert_no_load_left().await
}

/// pitfall 60: no event of the new primary mentions what a load has read of transactions that are lost.
async fn rows_that_a_load_has_read_and_the_new_primary_lacks_do_not_stay(
    kind: SourceKind,
) -> Result<()> {
    // A partition is done; the end place is taken.
    for point in ["load:3", "load:4"] {
        let (stage, replica, file) = late_and_wide(kind, &["late", "wide"]).await?;
        let mut pipe = start(launch(&file).env(VARIABLE, "load:2"))?;
        wait_aborted(&mut pipe).await?;
        change_unseen(&stage, &replica).await?;
        ends_at(&mut pipe, point).await?;
        let read = format!(
            "SELECT count() FROM `{}`.late WHERE id = 100",
            stage.database
        );
        ensure!(
            stage.clickhouse.number(&read).await? == 1,
            "{point}: nothing was read that the new primary lacks"
        );
        let taken_over = assert_taken_over(stage, &replica, &mut pipe).await;
        taken_over.with_context(|| point)?;
    }
    Ok(())
}

/// pitfall 60: up to its own place the stream's rows are passed over.
async fn a_table_that_was_taken_in_at_a_place_that_the_new_primary_lacks_is_whole(
    kind: SourceKind,
) -> Result<()> {
    // It is in the pipe, and nothing of it is read; its load has ended.
    for point in ["change:2", "load:4"] {
        let (stage, replica, file) = late_and_wide(kind, &["wide"]).await?;
        let mut pipe = running_with(&file).await?;
        ensure!(pipe.stop().await? == 0);
        pipe.change_env(VARIABLE, Some(point));
        pipe.restart()?;
        pipe.wait_state("Running", START).await?;
        change_unseen(&stage, &replica).await?;
        let entry = json!({ "source": format!("{}.late", stage.database) });
        let added = pipe.change(json!({ "tables": { "add": [entry] } })).await;
        // The answer is lost with the process, or had come before.
        if let Ok((status, document)) = added {
            ensure!(status == 200, "{point}: {status} {document:#}");
        }
        wait_aborted(&mut pipe).await.with_context(|| point)?;
        let taken_over = assert_taken_over(stage, &replica, &mut pipe).await;
        taken_over.with_context(|| point)?;
    }
    Ok(())
}
