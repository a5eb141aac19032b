//! Those who share a server with a pipe: who writes at the source while it loads, who reads at the destination while it
//! writes, and the destination itself.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable;
use serde_json::{Value, json};
use testbed::harness::{Pipe, Proxy, Stage};
use testbed::{SourceKind, SourceOptions, SourceServer};

use crate::support::{
    CATCH_UP, START, assert_caught_up, launch, on_both_sources, once, running_with, start,
    table_of_many_rows,
};

on_both_sources! {
    a_load_locks_nobody_out_and_leaves_no_transaction_open: 400,
}

once! {
    who_waits_for_the_checkpoint_reads_whole_transactions: 300,
    many_small_commits_are_few_inserts: 300,
}

/// Finished partitions behind which no transaction of the first one is open any more.
const PARTITIONS: u64 = 20;

/// How long a single row's change may wait for a lock.
const LOCK_WAIT: Duration = Duration::from_secs(60);

/// The transactions that the pipe has open at the source: connection and beginning.
async fn open_transactions(stage: &Stage) -> Result<Vec<String>> {
    stage
        .source
        .rows(
            "SELECT CONCAT(trx_mysql_thread_id, ' since ', trx_started) FROM information_schema.innodb_trx trx \
             JOIN information_schema.processlist session ON session.id = trx.trx_mysql_thread_id \
             WHERE session.user = 'pipewright'",
        )
        .await
}

/// Until the load is over, for which it waits until it was looked at twice: writes go on, and no transaction outlives its
/// partition.
async fn watch_load(stage: &Stage, pipe: &mut Pipe, gate: &Proxy) -> Result<()> {
    let mut seen: HashMap<String, u64> = HashMap::new();
    let deadline = Instant::now() + START;
    let mut looks = 0;
    for id in 1.. {
        let status = pipe.status().await.unwrap_or_default();
        if status["state"] == "Running" {
            break;
        }
        ensure!(
            Instant::now() < deadline,
            "the load does not end: {status:#}"
        );
        let done = status["tables"][0]["snapshot"]["partitions_done"]
            .as_u64()
            .unwrap_or(0);
        for transaction in open_transactions(stage).await? {
            let first = *seen.entry(transaction.clone()).or_insert(done);
            ensure!(
                done < first + PARTITIONS,
                "{transaction} is open over {} partitions",
                done - first
            );
        }
        looks += u32::from(status["state"] == "Snapshot");
        if looks == 2 {
            gate.open_gate();
        }
        let change = format!("UPDATE t SET payload_of_a_row = 'changed' WHERE id = {id}");
        tokio::time::timeout(LOCK_WAIT, stage.source.execute(change))
            .await
            .context("a writer waits for the load")??;
        // One second tells beginnings apart.
        tokio::time::sleep(Duration::from_millis(1200)).await;
    }
    ensure!(looks >= 2, "the load was over at the second look");
    Ok(())
}

/// pitfall 125: each partition is read for itself. pitfall 126: FLUSH TABLES WITH READ LOCK would wait for the report, and
/// every writer for it. pitfall 90: MariaDB's place comes without a lock, from a consistent snapshot.
async fn a_load_locks_nobody_out_and_leaves_no_transaction_open(kind: SourceKind) -> Result<()> {
    let stage = Stage::with_source(move || {
        let options = SourceOptions::new(kind)
            .arg("--general-log=ON")
            .arg("--log-output=TABLE");
        SourceServer::start(options)
    })
    .await?;
    let row = ("payload_of_a_row VARCHAR(300)", "REPEAT('x', 100)");
    table_of_many_rows(&stage, "t", row, 17).await?;
    let mut conn = stage.source.connect().await?;
    let reporter = conn.id();
    let report = tokio::spawn(async move {
        // It would take days.
        let rows: Result<Vec<u64>, _> = conn.query("SELECT SLEEP(1) FROM t").await;
        rows.map(drop)
    });
    let mut file = stage.pipe_file(&["t"]);
    file["snapshot"] =
        json!({ "rows_per_partition": 100, "threads_per_table": 1, "tables_in_parallel": 1 });
    let gate = Proxy::before(stage.clickhouse_server.http_port()).await?;
    file["destination"]["url"] = json!(gate.url());
    gate.close_gate("payload_of_a_row", 1);
    let mut pipe = start(launch(&file))?;
    watch_load(&stage, &mut pipe, &gate).await?;
    ensure!(!report.is_finished(), "the report did not outlast the load");
    stage.source.execute(format!("KILL {reporter}")).await?;
    report.await?.ok();
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;

    let said = |words: &str| {
        format!(
            "SELECT COUNT(*) FROM mysql.general_log WHERE user_host LIKE 'pipewright%' AND ({words})"
        )
    };
    let locks =
        said("argument LIKE 'FLUSH%' OR argument LIKE 'LOCK %' OR argument LIKE '%FOR UPDATE%'");
    ensure!(stage.source.number(locks).await? == 0, "the pipe locks");
    if kind.is_mariadb() {
        let snapshots = said("argument LIKE 'START TRANSACTION WITH CONSISTENT SNAPSHOT%'");
        let places = said("argument LIKE '%binlog_snapshot%'");
        ensure!(
            stage.source.number(snapshots).await? > 0 && stage.source.number(places).await? > 0,
            "the place is not a snapshot's"
        );
    }
    Ok(())
}

/// The GTID set that the destination says is complete.
async fn complete_up_to(stage: &Stage) -> Result<String> {
    let sql = format!(
        "SELECT argMax(position, (term, stream_offset)) FROM `{0}`._pipewright_checkpoints FINAL WHERE pipe = '{0}'",
        stage.database
    );
    let position: Value = serde_json::from_str(&stage.clickhouse.query(&sql).await?)?;
    let set = position["set"].as_str();
    Ok(set
        .with_context(|| format!("no set: {position}"))?
        .to_owned())
}

/// pitfall 98: the rows of one transaction become visible table by table; who has seen the checkpoint pass it finds all.
async fn who_waits_for_the_checkpoint_reads_whole_transactions() -> Result<()> {
    let stage = Stage::shared(SourceKind::MySql).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE accounts (id INT PRIMARY KEY, amount INT NOT NULL)",
            "CREATE TABLE payments (id INT PRIMARY KEY, amount INT NOT NULL, note VARCHAR(2000))",
            "INSERT INTO accounts VALUES (1, 0)",
        ])
        .await?;
    let mut file = stage.pipe_file(&["accounts", "payments"]);
    file["sync"] = json!({ "interval": "400ms" });
    let mut pipe = running_with(&file).await?;
    let mut conn = stage.source.connect().await?;
    for round in 1..=10_u32 {
        conn.query_drop("START TRANSACTION").await?;
        conn.query_drop("UPDATE accounts SET amount = amount + 7")
            .await?;
        conn.query_drop(format!(
            "INSERT INTO payments VALUES ({round}, 7, REPEAT('x', 2000))"
        ))
        .await?;
        conn.query_drop("COMMIT").await?;
        let wanted: Option<String> = conn.query_first("SELECT @@GLOBAL.gtid_executed").await?;
        let wanted = wanted.context("no GTIDs")?;
        let deadline = Instant::now() + CATCH_UP;
        loop {
            let complete = complete_up_to(&stage).await?;
            let passed: Option<u8> = conn
                .exec_first(
                    "SELECT GTID_SUBSET(?, ?)",
                    (wanted.as_str(), complete.as_str()),
                )
                .await?;
            if passed == Some(1) {
                break;
            }
            ensure!(
                Instant::now() < deadline,
                "the checkpoint stays at {complete}, before {wanted}"
            );
        }
        // At once, and not within a moment.
        let sums = format!(
            "SELECT concat(toString((SELECT sum(amount) FROM `{0}`.accounts_current)), ' ', \
             toString((SELECT sum(amount) FROM `{0}`.payments_current)))",
            stage.database
        );
        let sums = stage.clickhouse.query(&sums).await?;
        let paid = 7 * round;
        ensure!(
            sums == format!("{paid} {paid}"),
            "behind the checkpoint of {paid} there is {sums}"
        );
    }
    assert_caught_up(&stage, &mut pipe, &["accounts", "payments"]).await
}

/// pitfall 134: an insert makes a part, and too many of those stop a table.
async fn many_small_commits_are_few_inserts() -> Result<()> {
    const COMMITS: u64 = 400;
    let stage = Stage::shared(SourceKind::MariaDb).await?;
    stage
        .source
        .execute("CREATE TABLE t (id INT PRIMARY KEY, a INT)")
        .await?;
    let mut file = stage.pipe_file(&["t"]);
    file["sync"] = json!({ "interval": "1s" });
    let mut pipe = running_with(&file).await?;
    let mut conn = stage.source.connect().await?;
    for id in 0..COMMITS {
        conn.query_drop(format!("INSERT INTO t VALUES ({id}, {id})"))
            .await?;
    }
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    // Every insert takes a number of its own, which a merge of parts keeps.
    let inserts = format!(
        "SELECT toUInt64(max(max_block_number)) FROM system.parts WHERE database = '{}' AND table = 't' AND active",
        stage.database
    );
    let inserts = stage.clickhouse.number(&inserts).await?;
    ensure!(
        (1..=COMMITS / 4).contains(&inserts),
        "{COMMITS} commits became {inserts} inserts"
    );
    Ok(())
}
