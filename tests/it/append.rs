//! Tables whose every change is a row of its own: each change once, whatever happens to the pipe or to ClickHouse; and
//! tables without a key, which are kept in this way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable;
use pipewright::fault::VARIABLE;
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use testbed::harness::{Comparison, Pipe, Proxy, Source, Stage};
use testbed::{ClickHouseOptions, ClickHouseServer, SourceKind};
use tokio::task::JoinHandle;

use crate::support::{
    CATCH_UP, START, Seed, allow_locks, append, assert_caught_up, ends_at, history, killed_at,
    launch, on_both_sources, once, running_with, start, wait_aborted, wait_history,
};

on_both_sources! {
    every_change_is_a_row_of_its_own: 300,
    a_table_without_a_key_is_kept_as_its_changes_and_shown_as_its_rows: 400,
    a_key_that_comes_or_goes_loads_the_table_also_where_the_file_orders_by_it: 300,
    append_tables_have_each_change_once_wherever_the_process_ends: 600,
}

once! {
    append_tables_have_each_change_once_when_answers_are_lost: 400,
    a_load_given_up_in_mid_exchange_leaves_history_alone: 240,
}

/// Rows of `counts`, each changed again and again.
const COUNTS: u32 = 2_000;

async fn every_change_is_a_row_of_its_own(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    allow_locks(&stage).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a VARCHAR(20))",
            "INSERT INTO t VALUES (1, 'one'), (2, 'two')",
        ])
        .await?;
    let mut pipe = running_with(&stage.pipe_file_of(vec![append(&stage, "t")])).await?;
    stage
        .source
        .execute_all([
            "INSERT INTO t VALUES (3, 'three')",
            "UPDATE t SET a = 'uno' WHERE id = 1",
            "UPDATE t SET id = 4 WHERE id = 2",
            "DELETE FROM t WHERE id = 3",
        ])
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let mut expected =
        "1 one insert\n2 two insert\n3 three insert\n1 uno update\n2 two delete\n4 two insert\n\
                        3 three delete"
            .to_owned();
    wait_history(&stage, "t", &expected).await?;
    stage.assert(Comparison::of("t").view_alone()).await?;
    stage
        .source
        .execute_all([
            "TRUNCATE TABLE t",
            "INSERT INTO t VALUES (1, 'again')",
            "ALTER TABLE t ADD COLUMN n INT NOT NULL DEFAULT 7",
            "UPDATE t SET n = 8",
        ])
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    expected.push_str("\n1 uno delete\n4 two delete\n1 again insert\n1 again update");
    wait_history(&stage, "t", &expected).await?;
    stage.assert(Comparison::of("t").view_alone()).await?;
    // A clean restart brings nothing twice.
    pipe.stop().await?;
    pipe.restart()?;
    pipe.wait_state("Running", START).await?;
    stage.source.execute("UPDATE t SET a = 'last'").await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    expected.push_str("\n1 last update");
    wait_history(&stage, "t", &expected).await?;
    stage.assert(Comparison::of("t").view_alone()).await?;
    what_the_source_does_not_have_is_kept(&stage, &mut pipe, &expected).await
}

/// Only a load can follow the statement: the changes from before it stay beside the table.
async fn what_the_source_does_not_have_is_kept(
    stage: &Stage,
    pipe: &mut Pipe,
    expected: &str,
) -> Result<()> {
    stage
        .source
        .execute("ALTER TABLE t MODIFY COLUMN n VARCHAR(10) NOT NULL")
        .await?;
    let kept = "t_history_1";
    let until = Instant::now() + CATCH_UP;
    while !stage.clickhouse.exists(&stage.database, kept).await? {
        ensure!(Instant::now() < until, "no history is kept");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    pipe.wait_state("Running", START).await?;
    stage.wait_caught_up(pipe, CATCH_UP).await?;
    stage.assert(Comparison::of("t").view_alone()).await?;
    let found = history(stage, kept, "toString(id), a").await?;
    ensure!(found == expected, "{found}");
    let events = pipe
        .get_text(&format!("/v1/pipes/{}/events", stage.database))
        .await?;
    ensure!(events.contains(kept), "{events}");
    Ok(())
}

/// By then the next try is seconds away, and a command comes before it.
const LATER_TRIES: Duration = Duration::from_secs(4);

/// A resync that comes before an exchange goes on gives its load up; what that exchange has put aside is history. It was
/// identified, or done.
async fn a_load_given_up_in_mid_exchange_leaves_history_alone() -> Result<()> {
    for point in ["swap:3", "swap:4"] {
        let stage = Stage::shared(SourceKind::MariaDb).await?;
        stage
            .source
            .execute_all([
                "CREATE TABLE t (id INT PRIMARY KEY, a VARCHAR(20))",
                "INSERT INTO t VALUES (1, 'one'), (2, 'two')",
            ])
            .await?;
        let proxy = Proxy::before(stage.clickhouse_server.http_port()).await?;
        let mut file = stage.pipe_file_of(vec![append(&stage, "t")]);
        file["destination"]["url"] = json!(proxy.url());
        let mut pipe = start(launch(&file).env(VARIABLE, point))?;
        pipe.wait_state("Running", START).await?;
        stage
            .source
            .execute("UPDATE t SET a = 'uno' WHERE id = 1")
            .await?;
        stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
        let before = "1 one insert\n2 two insert\n1 uno update";
        wait_history(&stage, "t", before).await?;
        pipe.command("resync").await?;
        wait_aborted(&mut pipe).await?;
        // The exchange does not go on where ClickHouse is away.
        proxy.set_shut(true);
        pipe.change_env(VARIABLE, None);
        pipe.restart()?;
        let waits = |document: &Value| document.to_string().contains("destination_unavailable");
        pipe.wait_for("a try", START, waits).await?;
        tokio::time::sleep(LATER_TRIES).await;
        proxy.set_shut(false);
        let (code, answer) = pipe.command("resync").await?;
        ensure!(code == 200, "{point}: {code}: {answer:#}");
        pipe.wait_state("Running", START).await?;
        stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
        stage.assert(Comparison::of("t").view_alone()).await?;
        stage.assert_no_load_left().await?;
        let kept = format!(
            "SELECT name FROM system.tables WHERE database = '{}' AND name LIKE 't_history_%' ORDER BY name",
            stage.database
        );
        let kept = stage.clickhouse.query(&kept).await?;
        let kept: Vec<&str> = kept.lines().collect();
        let first = kept.first().context("a history")?;
        let found = history(&stage, first, "toString(id), a").await?;
        ensure!(found == before, "{point}: {found}");
    }
    Ok(())
}

/// The rows of `bag` at the source and in the target's view, equal ones counted.
async fn assert_same_bag(stage: &Stage) -> Result<()> {
    let columns = "COALESCE(a, -1), COALESCE(b, '-'), c";
    let at_source: Vec<(i64, String, i64, u64)> = stage
        .source
        .rows(format!(
            "SELECT {columns}, COUNT(*) FROM bag GROUP BY a, b, c ORDER BY 1, 2, c"
        ))
        .await?;
    let expected: Vec<String> = at_source
        .into_iter()
        .map(|(a, b, c, count)| format!("{a}\t{b}\t{c}\t{count}"))
        .collect();
    let sql = format!(
        "SELECT coalesce(a, -1) AS a_, coalesce(b, '-') AS b_, c, count() FROM `{}`.bag_current GROUP BY a_, b_, c \
         ORDER BY a_, b_, c",
        stage.database
    );
    let mut found = String::new();
    for _ in 0..100 {
        found = stage.clickhouse.query(&sql).await?;
        if found == expected.join("\n") {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    anyhow::bail!(
        "the source has\n{}\nand the target\n{found}",
        expected.join("\n")
    )
}

/// pitfall 119: what tells rows apart is another, though the target is ordered as before.
async fn a_key_that_comes_or_goes_loads_the_table_also_where_the_file_orders_by_it(
    kind: SourceKind,
) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    allow_locks(&stage).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE bag (a INT NULL, b VARCHAR(20) NULL, c INT NOT NULL PRIMARY KEY)",
            "INSERT INTO bag VALUES (1, 'x', 5), (1, 'y', 6)",
        ])
        .await?;
    let mut entry = append(&stage, "bag");
    entry["order_by"] = json!(["c"]);
    let mut file = stage.pipe_file_of(vec![entry]);
    file["keyless"] = json!("append");
    let mut pipe = running_with(&file).await?;
    for statement in [
        "UPDATE bag SET a = 2",
        "ALTER TABLE bag DROP PRIMARY KEY",
        "INSERT INTO bag VALUES (2, 'x', 5), (2, 'x', 5)",
        "DELETE FROM bag WHERE c = 5 LIMIT 2",
        "ALTER TABLE bag ADD PRIMARY KEY (c)",
        "UPDATE bag SET a = 3",
    ] {
        stage.source.execute(statement).await?;
        stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
        assert_same_bag(&stage).await.context(statement)?;
    }
    Ok(())
}

/// pitfall 119: refused with the advice, kept by setting; and a table that gets a key becomes one that goes by it.
async fn a_table_without_a_key_is_kept_as_its_changes_and_shown_as_its_rows(
    kind: SourceKind,
) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    allow_locks(&stage).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE bag (a INT NULL, b VARCHAR(20) COLLATE utf8mb4_bin NULL, c INT NOT NULL) \
             CHARACTER SET utf8mb4",
            "INSERT INTO bag VALUES (1, 'x', 1), (1, 'x', 1), (1, 'x', 1), (NULL, NULL, 2), (NULL, NULL, 2), (3, 'y', 3)",
        ])
        .await?;
    let mut file = stage.pipe_file(&["bag"]);
    let mut refused = start(launch(&file))?;
    let code = refused.wait_exit(START).await?;
    let said = refused.log().tail();
    ensure!(
        code == 1 && said.contains("keyless: append"),
        "{code}: {said}"
    );
    file["keyless"] = json!("append");
    let mut pipe = running_with(&file).await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    assert_same_bag(&stage).await?;
    stage
        .source
        .execute_all([
            "UPDATE bag SET c = 9 WHERE a = 1 LIMIT 1",
            "DELETE FROM bag WHERE a IS NULL LIMIT 1",
            "INSERT INTO bag VALUES (3, 'y', 3), (3, 'Y', 3), (4, 'z ', 4)",
            "UPDATE bag SET b = 'X', a = NULL WHERE a = 1 AND c = 1",
        ])
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    assert_same_bag(&stage).await?;
    pipe.kill9()?;
    stage
        .source
        .execute_all([
            "DELETE FROM bag WHERE a = 3 LIMIT 1",
            "TRUNCATE TABLE bag",
            "INSERT INTO bag VALUES (1, 'x', 1), (1, 'x', 1), (NULL, 'x', 1)",
            "DELETE FROM bag WHERE a = 1 LIMIT 1",
        ])
        .await?;
    pipe.restart()?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    assert_same_bag(&stage).await?;
    // With a key it goes by that, after a load.
    stage
        .source
        .execute_all([
            "ALTER TABLE bag ADD COLUMN id INT AUTO_INCREMENT PRIMARY KEY",
            "UPDATE bag SET c = c + 1",
        ])
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(&stage, &mut pipe, &["bag"]).await?;
    // The changes from before are not in the table that goes by its key.
    ensure!(
        stage
            .clickhouse
            .exists(&stage.database, "bag_history_1")
            .await?
    );
    Ok(())
}

/// Tables whose targets show by themselves whether a change is missing or there twice.
async fn countable(stage: &Stage) -> Result<Value> {
    allow_locks(stage).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE counts (id INT PRIMARY KEY, c INT NOT NULL)".to_owned(),
            "CREATE TABLE log (id BIGINT AUTO_INCREMENT PRIMARY KEY, a INT)".to_owned(),
            "CREATE TABLE bag (a INT NULL, b VARCHAR(20) COLLATE utf8mb4_bin NULL, c INT NOT NULL) CHARACTER SET utf8mb4"
                .to_owned(),
        ])
        .await?;
    let rows: Vec<String> = (0..COUNTS).map(|id| format!("({id}, 0)")).collect();
    stage
        .source
        .execute(format!("INSERT INTO counts VALUES {}", rows.join(", ")))
        .await?;
    let mut file = stage.pipe_file_of(vec![
        append(stage, "counts"),
        append(stage, "log"),
        json!({ "source": format!("{}.bag", stage.database), "keyless": "append" }),
    ]);
    file["snapshot"] = json!({ "rows_per_partition": 100, "threads_per_table": 2 });
    file["sync"] = json!({ "interval": "100ms", "max_rows": 300 });
    file["destination"]["durability"] = json!("fsync");
    Ok(file)
}

/// Changes the countable tables until it is stopped.
fn count_on(source: &Source, mut random: StdRng) -> (Arc<AtomicBool>, JoinHandle<Result<u64>>) {
    let stop = Arc::new(AtomicBool::new(false));
    let (source, stopped) = (source.clone(), Arc::clone(&stop));
    let task = tokio::spawn(async move {
        let mut conn = source.connect().await?;
        let mut transactions = 0;
        while !stopped.load(Ordering::Relaxed) {
            conn.query_drop("START TRANSACTION").await?;
            for _ in 0..random.random_range(1..5) {
                let (id, a) = (random.random_range(0..COUNTS), random.random_range(0..5));
                let statement = match random.random_range(0..6) {
                    0..3 => {
                        format!("UPDATE counts SET c = c + 1 WHERE id BETWEEN {id} AND {id} + 20")
                    }
                    3 => format!("INSERT INTO log (a) VALUES ({a}), ({a}), ({id})"),
                    4 => format!(
                        "INSERT INTO bag VALUES ({a}, 'x', 1), ({a}, NULL, 1), (NULL, 'y', {a})"
                    ),
                    _ => format!("DELETE FROM bag WHERE a = {a} LIMIT 2"),
                };
                conn.query_drop(statement).await?;
            }
            conn.query_drop("COMMIT").await?;
            transactions += 1;
            tokio::time::sleep(Duration::from_millis(random.random_range(0..10))).await;
        }
        Ok(transactions)
    });
    (stop, task)
}

/// Each change once: of a row that is counted up every number from the one that was loaded to the last, of a log every id.
async fn assert_counted(stage: &Stage) -> Result<()> {
    let database = &stage.database;
    stage.assert(Comparison::of("counts").view_alone()).await?;
    stage.assert(Comparison::of("log").view_alone()).await?;
    assert_same_bag(stage).await?;
    for (what, sql) in [
        (
            "rows that lack a change or have one twice",
            format!(
                "SELECT count() FROM (SELECT count() AS n, uniqExact(c) AS u, max(c) - min(c) + 1 AS w \
                 FROM `{database}`.counts GROUP BY id HAVING n != u OR n != w)"
            ),
        ),
        (
            "rows that were not loaded once",
            format!(
                "SELECT abs(countIf(_version = 0) - {COUNTS}) + abs(uniqExactIf(id, _version = 0) - {COUNTS}) \
                 FROM `{database}`.counts"
            ),
        ),
        (
            "entries of the log too many",
            format!("SELECT count() - uniqExact(id) FROM `{database}`.log"),
        ),
        (
            "versions that are there twice",
            format!(
                "SELECT countIf(_version > 0) - uniqExactIf(_version, _version > 0) FROM `{database}`.bag"
            ),
        ),
    ] {
        let count = stage.clickhouse.number(&sql).await?;
        ensure!(count == 0, "{count} {what}");
    }
    Ok(())
}

/// pitfall 132: at the steps of the load, of the exchange that follows on an interrupted one, of an alteration and of the
/// stream.
async fn append_tables_have_each_change_once_wherever_the_process_ends(
    kind: SourceKind,
) -> Result<()> {
    let seed = Seed::new("append_tables_have_each_change_once_wherever_the_process_ends");
    let mut moments = seed.generator(0);
    let stage = Stage::shared(kind).await?;
    let file = countable(&stage).await?;
    let (stop, writer) = count_on(&stage.source, seed.generator(1));
    let points = [
        "term:1", "load:1", "load:2", "load:3", "load:4", "load:5", "load:6", "swap:1", "swap:2",
        "swap:3", "swap:4", "swap:5", "swap:6", "swap:7", "swap:8",
    ];
    let mut pipe = start(launch(&file).env(VARIABLE, points[0]))?;
    for next in points[1..].iter().map(|point| Some(*point)).chain([None]) {
        wait_aborted(&mut pipe)
            .await
            .with_context(|| format!("before {next:?}"))?;
        pipe.change_env(VARIABLE, next);
        pipe.restart()?;
    }
    pipe.wait_state("Running", START).await?;
    for point in ["alter:1", "alter:2", "alter:3"] {
        let column = point.replace(':', "_");
        killed_at(&mut pipe, point, async |_| {
            let alter = format!("ALTER TABLE log ADD COLUMN {column} INT");
            stage.source.execute(alter).await?;
            Ok((200, Value::Null))
        })
        .await?;
    }
    killed_at(&mut pipe, "resync:1", async |pipe| {
        pipe.command("resync").await
    })
    .await?;
    for _ in 0..3 {
        ends_at(&mut pipe, "flush:1").await?;
        pipe.restart()?;
        pipe.wait_state("Running", START).await?;
        tokio::time::sleep(Duration::from_millis(moments.random_range(50..1500))).await;
    }
    // Loaded again, and ended somewhere on the way.
    for _ in 0..2 {
        let (code, answer) = pipe.command("resync").await?;
        ensure!(matches!(code, 200 | 409), "{code}: {answer:#}");
        tokio::time::sleep(Duration::from_millis(moments.random_range(0..2000))).await;
        pipe.kill9()?;
        pipe.restart()?;
        pipe.wait_for("an answer", START, |_| true).await?;
    }
    ended(&stage, &mut pipe, stop, writer).await
}

async fn ended(
    stage: &Stage,
    pipe: &mut Pipe,
    stop: Arc<AtomicBool>,
    writer: JoinHandle<Result<u64>>,
) -> Result<()> {
    pipe.wait_state("Running", START).await?;
    stop.store(true, Ordering::Relaxed);
    let written = writer.await??;
    ensure!(written > 50, "only {written} transactions were written");
    stage.wait_caught_up(pipe, CATCH_UP).await?;
    assert_counted(stage).await?;
    stage.assert_no_load_left().await
}

/// pitfall 132: ClickHouse is killed with inserts under way, and the pipe sends them again.
async fn append_tables_have_each_change_once_when_answers_are_lost() -> Result<()> {
    let seed = Seed::new("append_tables_have_each_change_once_when_answers_are_lost");
    let mut moments = seed.generator(0);
    let stage = Stage::with_clickhouse(SourceKind::MariaDb, || {
        ClickHouseServer::start(ClickHouseOptions::default())
    })
    .await?;
    let file = countable(&stage).await?;
    let mut pipe = running_with(&file).await?;
    let (stop, writer) = count_on(&stage.source, seed.generator(1));
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(moments.random_range(300..2500))).await;
        tokio::task::block_in_place(|| stage.clickhouse_server.kill())?;
        tokio::time::sleep(Duration::from_millis(moments.random_range(0..1500))).await;
        tokio::task::block_in_place(|| stage.clickhouse_server.start_again())?;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    ended(&stage, &mut pipe, stop, writer).await
}
