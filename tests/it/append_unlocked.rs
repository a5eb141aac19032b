//! Append tables of MySQL whose loads begin without a lock: what changes while the snapshots begin is in the load or in the
//! stream, and in one of them alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use testbed::harness::{Comparison, Pipe, Source, Stage};
use testbed::{SourceKind, SourceOptions, SourceServer};
use tokio::task::JoinHandle;

use crate::support::{
    CATCH_UP, START, Seed, append, assert_caught_up, assert_each_change_once, history, launch,
    once, reason_of, running_with, start, wait_aborted,
};

once! {
    what_changes_while_the_snapshots_begin_is_in_the_load_alone: 240,
    by_file_and_offset_what_the_current_file_says_is_in_the_load_alone: 240,
    append_tables_have_each_change_once_without_a_lock_wherever_the_process_ends: 400,
    a_table_that_takes_a_lock_is_refused_by_name_where_none_is_allowed: 240,
    a_session_that_keeps_a_gtid_holds_up_a_load_and_not_the_stream: 240,
    a_statement_in_the_file_that_a_load_reads_holds_up_the_load_and_not_the_stream: 240,
    a_load_that_cannot_begin_anew_takes_its_table_alone_out_of_service: 300,
}

/// What the pipe says of a load that began while rows changed.
const CHANGED: &str = "rows have changed while the snapshots of a load began";

fn without_locks(stage: &Stage, entries: Vec<Value>) -> Value {
    let mut file = stage.pipe_file_of(entries);
    file["snapshot"] =
        json!({ "rows_per_partition": 100, "threads_per_table": 2, "allow_locks": false });
    file
}

/// An account that may do no more than the pipe must, and is nobody else's.
async fn account(stage: &Stage, file: &mut Value) -> Result<String> {
    let user = format!("u{:08x}", rand::random::<u32>());
    stage
        .source
        .execute_all([
            format!("CREATE USER {user} IDENTIFIED BY 'pipewright'"),
            format!("GRANT SELECT ON `{}`.* TO {user}", stage.database),
            format!("GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO {user}"),
        ])
        .await?;
    file["source"]["user"] = json!(user);
    Ok(user)
}

/// Waits until the account has so many transactions open.
async fn wait_for_snapshots(source: &Source, user: &str, wanted: u64) -> Result<()> {
    let sql = format!(
        "SELECT COUNT(*) FROM information_schema.INNODB_TRX AS t \
         JOIN information_schema.PROCESSLIST AS p ON p.ID = t.trx_mysql_thread_id WHERE p.USER = '{user}'"
    );
    let until = Instant::now() + START;
    while source.number(&sql).await? < wanted {
        ensure!(Instant::now() < until, "no snapshot has begun");
        // The server answers from what it has gathered until nobody has asked for a tenth of a second.
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    Ok(())
}

/// What happens to `t` while the window is open.
const OF_THE_WINDOW: [&str; 11] = [
    "UPDATE t SET a = 10 WHERE id = 'a'",
    "UPDATE t SET id = 'A', a = 11 WHERE id = 'a'",
    "UPDATE t SET id = 'x' WHERE id = 'b'",
    "DELETE FROM t WHERE id = 'c'",
    "INSERT INTO t VALUES ('gone', 5), ('C', 6)",
    "DELETE FROM t WHERE id = 'gone'",
    "XA START 'of_a_window'",
    "INSERT INTO t VALUES ('xa', 7)",
    "XA END 'of_a_window'",
    "XA PREPARE 'of_a_window'",
    "XA COMMIT 'of_a_window'",
];

/// A transaction that has a GTID and is not committed keeps the window open. The account may not lock.
async fn what_changes_while_the_snapshots_begin_is_in_the_load_alone() -> Result<()> {
    let stage = Stage::shared(SourceKind::MySql).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id VARCHAR(20) PRIMARY KEY, a INT) COLLATE utf8mb4_0900_ai_ci",
            "INSERT INTO t VALUES ('a', 1), ('b', 2), ('c', 3), ('d', 4)",
        ])
        .await?;
    let mut file = without_locks(&stage, vec![append(&stage, "t")]);
    let user = account(&stage, &mut file).await?;
    let mut holder = stage.source.connect().await?;
    let [server]: [String; 1] = holder
        .query("SELECT UUID()")
        .await?
        .try_into()
        .ok()
        .context("a UUID")?;
    holder
        .query_drop(format!("SET SESSION gtid_next = '{server}:1'"))
        .await?;
    holder.query_drop("START TRANSACTION").await?;
    holder
        .query_drop("INSERT INTO t VALUES ('held', 0)")
        .await?;
    let mut pipe = start(launch(&file))?;
    wait_for_snapshots(&stage.source, &user, 2).await?;
    let mut conn = stage.source.connect().await?;
    for sql in OF_THE_WINDOW {
        conn.query_drop(sql).await?;
    }
    holder.query_drop("COMMIT").await?;
    holder
        .query_drop("SET SESSION gtid_next = 'AUTOMATIC'")
        .await?;
    pipe.wait_state("Running", START).await?;
    stage
        .source
        .execute_all([
            "UPDATE t SET a = 12 WHERE id = 'A'",
            "DELETE FROM t WHERE id = 'xa'",
        ])
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let expected = "A 11 insert\nC 6 insert\nd 4 insert\nheld 0 insert\nx 2 insert\nxa 7 insert\nA 12 update\nxa 7 delete";
    wait_for_history(&stage, expected).await?;
    let loaded = format!("SELECT countIf(_version = 0) FROM `{}`.t", stage.database);
    ensure!(stage.clickhouse.number(&loaded).await? == 6);
    ensure!(
        pipe.log().text().contains(CHANGED),
        "the load began where nothing changed"
    );
    Ok(())
}

/// Without the right to ask for a better place, low is where the file begins.
async fn by_file_and_offset_what_the_current_file_says_is_in_the_load_alone() -> Result<()> {
    let stage = Stage::shared(SourceKind::MySql).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id VARCHAR(20) PRIMARY KEY, a INT) COLLATE utf8mb4_0900_ai_ci",
            "INSERT INTO t VALUES ('a', 1), ('b', 2), ('c', 3)",
            "FLUSH BINARY LOGS",
            "UPDATE t SET id = 'A', a = 10 WHERE id = 'a'",
            "DELETE FROM t WHERE id = 'b'",
            "INSERT INTO t VALUES ('d', 4)",
        ])
        .await?;
    let mut file = without_locks(&stage, vec![append(&stage, "t")]);
    file["source"]["position"] = json!("file");
    account(&stage, &mut file).await?;
    let mut pipe = running_with(&file).await?;
    stage
        .source
        .execute("UPDATE t SET a = 5 WHERE id = 'd'")
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    wait_for_history(&stage, "A 10 insert\nc 3 insert\nd 4 insert\nd 5 update").await
}

/// What the pipe says when its stream is about to stop for a load.
const NEXT: &str = "the load of an append table is next";

/// A stage of a server's own, with `t` and `u`.
async fn with_two_tables() -> Result<Stage> {
    let stage =
        Stage::with_source(|| SourceServer::start(SourceOptions::new(SourceKind::MySql))).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a INT)",
            "CREATE TABLE u (id INT PRIMARY KEY, a INT)",
            "INSERT INTO t VALUES (1, 1), (2, 2)",
            "INSERT INTO u VALUES (1, 1)",
        ])
        .await?;
    Ok(stage)
}

/// `t` as an append table, and `u`.
fn file_of_two(stage: &Stage) -> Value {
    let u = json!({ "source": format!("{}.u", stage.database) });
    without_locks(stage, vec![append(stage, "t"), u])
}

/// The load of `t` is held up, by what the remedy tells of; once `let_go` has run it comes to its end.
async fn assert_held_beside_the_stream(
    stage: &Stage,
    mut pipe: Pipe,
    remedy: &str,
    let_go: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    let held = reason_of(&mut pipe, &format!("{}.t", stage.database)).await?;
    ensure!(
        held["code"] == "source_unavailable" && held["remedy"].to_string().contains(remedy),
        "{held:#}"
    );
    // It is tried again a second after it was held.
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        stage.source.execute("UPDATE u SET a = a + 1").await?;
        stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    }
    ensure!(
        !pipe.log().text().contains(NEXT),
        "the stream stood still for a load that could not begin"
    );
    stage
        .source
        .execute("UPDATE t SET a = 3 WHERE id = 1")
        .await?;
    let_go().await?;
    pipe.wait_state("Running", START).await?;
    ensure!(pipe.log().text().contains(NEXT));
    stage.source.execute("DELETE FROM t WHERE id = 2").await?;
    assert_caught_up(stage, &mut pipe, &["u"]).await?;
    assert_each_change_once(stage, "t", 1).await
}

async fn a_session_that_keeps_a_gtid_holds_up_a_load_and_not_the_stream() -> Result<()> {
    let stage = with_two_tables().await?;
    let mut holder = stage.source.connect().await?;
    holder
        .query_drop("SET SESSION gtid_next = '3e11fa47-71ca-11e1-9e33-c80aa9429562:1'")
        .await?;
    let pipe = start(launch(&file_of_two(&stage)))?;
    assert_held_beside_the_stream(&stage, pipe, "gtid_next", async || {
        holder.query_drop("ROLLBACK").await?;
        Ok(holder
            .query_drop("SET SESSION gtid_next = 'AUTOMATIC'")
            .await?)
    })
    .await
}

/// By file and offset. The pipe's own place is behind the statement that has made `u`, which is in that file too.
async fn a_statement_in_the_file_that_a_load_reads_holds_up_the_load_and_not_the_stream()
-> Result<()> {
    let stage = with_two_tables().await?;
    let mut file = file_of_two(&stage);
    file["source"]["position"] = json!("file");
    let pipe = start(launch(&file))?;
    assert_held_beside_the_stream(&stage, pipe, "FLUSH BINARY LOGS", async || {
        stage.source.execute("FLUSH BINARY LOGS").await
    })
    .await
}

/// A server that commits in another order than it writes its binlog does not tell when a statement's place is shown.
async fn a_load_that_cannot_begin_anew_takes_its_table_alone_out_of_service() -> Result<()> {
    let stage = with_two_tables().await?;
    stage
        .source
        .execute_all(["SET GLOBAL binlog_order_commits = OFF", "FLUSH BINARY LOGS"])
        .await?;
    let mut file = file_of_two(&stage);
    file["source"]["position"] = json!("file");
    let point = pipewright::fault::VARIABLE;
    let mut pipe = start(launch(&file).env(point, "load:3"))?;
    wait_aborted(&mut pipe).await?;
    stage
        .source
        .execute("ALTER TABLE t ADD COLUMN b INT")
        .await?;
    pipe.change_env(point, None);
    pipe.restart()?;
    let t = format!("{}.t", stage.database);
    let out = reason_of(&mut pipe, &t).await?;
    ensure!(
        out["code"] == "source_setting" && out["remedy"].to_string().contains("FLUSH BINARY LOGS"),
        "{out:#}"
    );
    stage.source.execute("UPDATE u SET a = 2").await?;
    assert_caught_up(&stage, &mut pipe, &["u"]).await?;
    stage.source.execute("FLUSH BINARY LOGS").await?;
    let order = json!({ "command": "resync", "table": t });
    let (code, answer) = pipe.order(order).await?;
    ensure!(code == 200, "{code} {answer}");
    pipe.wait_state("Running", START).await?;
    stage
        .source
        .execute("UPDATE t SET b = 5 WHERE id = 1")
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    assert_each_change_once(&stage, "t", 1).await
}

async fn wait_for_history(stage: &Stage, expected: &str) -> Result<()> {
    let until = Instant::now() + CATCH_UP;
    loop {
        let found = history(stage, "t", "id, toString(a)").await?;
        if found == expected {
            return Ok(());
        }
        ensure!(Instant::now() < until, "{found}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Keys of `hot`, in one spelling or the other.
const HOT_KEYS: u32 = 30;

/// One change of `hot`: `n` of a row counts up with each.
fn change(random: &mut StdRng) -> String {
    let mut key = || {
        let spelling = ["k", "K"][random.random_range(0..2)];
        format!("'{spelling}{}'", random.random_range(0..HOT_KEYS))
    };
    let (one, other) = (key(), key());
    match random.random_range(0..10) {
        0..4 => format!("UPDATE hot SET n = n + 1 WHERE id = {one}"),
        4 => format!("UPDATE hot SET n = n + 1 WHERE id > {one} LIMIT 5"),
        5..7 => format!("UPDATE IGNORE hot SET id = {other}, n = n + 1 WHERE id = {one}"),
        7 => format!("DELETE FROM hot WHERE id = {one}"),
        _ => format!("INSERT IGNORE INTO hot VALUES ({one}, 1)"),
    }
}

async fn transaction(conn: &mut Conn, random: &mut StdRng) -> Result<()> {
    conn.query_drop("START TRANSACTION").await?;
    for _ in 0..random.random_range(1..4) {
        match conn.query_drop(change(random)).await {
            Ok(()) => {}
            // A deadlock, which has rolled all back.
            Err(Error::Server(error)) if error.code == 1213 => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    let end = ["COMMIT", "ROLLBACK"][usize::from(random.random_range(0..8) == 0)];
    Ok(conn.query_drop(end).await?)
}

/// Changes `hot` without a pause until it is stopped.
fn hammer(source: &Source, mut random: StdRng, stop: &Arc<AtomicBool>) -> JoinHandle<Result<()>> {
    let (source, stop) = (source.clone(), Arc::clone(stop));
    tokio::spawn(async move {
        let mut conn = source.connect().await?;
        while !stop.load(Ordering::Relaxed) {
            transaction(&mut conn, &mut random).await?;
        }
        Ok(())
    })
}

/// Each row's changes make a chain: it is there once, each update has the number behind the one before, and a delete has the
/// number that the row had. A change that the load lacks, or has although the stream brings it, breaks it.
async fn assert_chains(stage: &Stage, table: &str) -> Result<()> {
    let sql = format!(
        "SELECT id, toString(_op), n FROM `{}`.`{table}` ORDER BY id, _version",
        stage.database
    );
    let rows = stage.clickhouse.query(&sql).await?;
    let mut key = "";
    let mut stands: Option<u64> = None;
    for row in rows.lines() {
        let [id, op, n] = row.split('\t').collect::<Vec<_>>()[..] else {
            bail!("`{row}` is no row of `{table}`");
        };
        let n: u64 = n.parse()?;
        if id != key {
            (key, stands) = (id, None);
        }
        stands = match (op, stands) {
            ("insert", None) => Some(n),
            ("update", Some(before)) if n == before + 1 => Some(n),
            ("delete", Some(before)) if n == before => None,
            (_, before) => bail!("`{table}`: {id} is {op} {n} behind {before:?}"),
        };
    }
    Ok(())
}

/// pitfall 132: the process ends at steps of the load, and at any moment; three writers never stop meanwhile.
async fn append_tables_have_each_change_once_without_a_lock_wherever_the_process_ends() -> Result<()>
{
    let seed =
        Seed::new("append_tables_have_each_change_once_without_a_lock_wherever_the_process_ends");
    let mut moments = seed.generator(0);
    let stage = Stage::shared(SourceKind::MySql).await?;
    stage
        .source
        .execute(
            "CREATE TABLE hot (id VARCHAR(20) PRIMARY KEY, n BIGINT NOT NULL) COLLATE utf8mb4_0900_ai_ci",
        )
        .await?;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (1..=3)
        .map(|which| hammer(&stage.source, seed.generator(which), &stop))
        .collect();
    let mut file = without_locks(&stage, vec![append(&stage, "hot")]);
    account(&stage, &mut file).await?;
    file["sync"] = json!({ "interval": "100ms", "max_rows": 300 });
    file["destination"]["durability"] = json!("fsync");
    let mut pipe = running_with(&file).await?;
    for point in ["load:2", "load:3", "load:4"] {
        order_resync(&pipe).await?;
        pipe.wait_state("Running", START).await?;
        // The next one ends the process where it gets to, and then begins anew.
        pipe.stop().await?;
        pipe.change_env(pipewright::fault::VARIABLE, Some(point));
        pipe.restart()?;
        pipe.wait_for("an answer", START, |_| true).await?;
        order_resync(&pipe).await?;
        wait_aborted(&mut pipe).await?;
        pipe.change_env(pipewright::fault::VARIABLE, None);
        pipe.restart()?;
        pipe.wait_state("Running", START).await?;
    }
    for _ in 0..2 {
        order_resync(&pipe).await?;
        tokio::time::sleep(Duration::from_millis(moments.random_range(0..1500))).await;
        pipe.kill9()?;
        pipe.restart()?;
        pipe.wait_for("an answer", START, |_| true).await?;
    }
    pipe.wait_state("Running", START).await?;
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await??;
    }
    ended(&stage, &mut pipe).await
}

async fn order_resync(pipe: &Pipe) -> Result<()> {
    let (code, answer) = pipe.command("resync").await?;
    ensure!(matches!(code, 200 | 409), "{code}: {answer:#}");
    Ok(())
}

/// What was before each load is kept, and is exact too.
async fn ended(stage: &Stage, pipe: &mut Pipe) -> Result<()> {
    stage.wait_caught_up(pipe, CATCH_UP).await?;
    stage.assert(Comparison::of("hot").view_alone()).await?;
    assert_chains(stage, "hot").await?;
    let kept = format!(
        "SELECT name FROM system.tables WHERE database = '{}' AND name LIKE 'hot_history_%'",
        stage.database
    );
    let kept = stage.clickhouse.query(&kept).await?;
    ensure!(kept.lines().count() >= 3, "{kept}");
    for table in kept.lines() {
        assert_chains(stage, table).await?;
    }
    ensure!(
        pipe.log().text().contains(CHANGED),
        "every load began where nothing changed"
    );
    stage.assert_no_load_left().await
}

async fn a_table_that_takes_a_lock_is_refused_by_name_where_none_is_allowed() -> Result<()> {
    let stage = Stage::shared(SourceKind::MySql).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE bag (a INT, b INT)",
            "CREATE TABLE parents (id INT PRIMARY KEY)",
            "CREATE TABLE children (id INT PRIMARY KEY, parent INT, \
             FOREIGN KEY (parent) REFERENCES parents (id) ON DELETE CASCADE)",
        ])
        .await?;
    let bag = json!({ "source": format!("{}.bag", stage.database), "keyless": "append" });
    let mut refused = start(launch(&without_locks(&stage, vec![bag])))?;
    let code = refused.wait_exit(START).await?;
    let said = refused.log().tail();
    ensure!(
        code == 1 && said.contains(".bag") && said.contains("allow_locks: true"),
        "{code}: {said}"
    );
    let mut pipe = start(launch(&without_locks(
        &stage,
        vec![append(&stage, "children")],
    )))?;
    let degraded = pipe.wait_state("Degraded", START).await?;
    let reasons = degraded["reasons"].to_string();
    ensure!(
        reasons.contains(".children") && reasons.contains("allow_locks: true"),
        "{degraded:#}"
    );
    Ok(())
}
