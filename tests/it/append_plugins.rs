//! Plugins over append tables: what they drop is not there, what passes no more is a delete, and each change is there once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mysql_async::prelude::Queryable;
use pipewright::fault::VARIABLE;
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{Source, Stage};
use tokio::task::JoinHandle;

use crate::support::{
    CATCH_UP, START, Seed, allow_locks, append, ends_at, launch, on_both_sources, plugins, start,
    wait_aborted,
};

on_both_sources! {
    plugins_change_and_drop_rows_of_an_append_table_wherever_the_process_ends: 600,
}

/// Rows that are loaded. Those with `a` of 7 or more do not pass; `a0` is what `a` was at first.
const ROWS: u32 = 1_000;

async fn filtered_and_masked(stage: &Stage) -> Result<Value> {
    allow_locks(stage).await?;
    let rows: Vec<String> = (0..ROWS)
        .map(|id| format!("({id}, {0}, {0}, 'secret', 0)", id % 10))
        .collect();
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a0 INT NOT NULL, a INT NOT NULL, b VARCHAR(20) NOT NULL, c INT NOT NULL)"
                .to_owned(),
            format!("INSERT INTO t VALUES {}", rows.join(", ")),
        ])
        .await?;
    let built = plugins().await?;
    let mut entry = append(stage, "t");
    entry["transforms"] = json!(["kept", "hidden"]);
    let mut file = stage.pipe_file_of(vec![entry]);
    file["transforms"]["kept"] =
        json!({ "plugin": built.path("filter"), "config": { "where": "a < 7" } });
    file["transforms"]["hidden"] =
        json!({ "plugin": built.path("mask"), "config": { "columns": ["b"], "method": "redact" } });
    file["snapshot"] = json!({ "rows_per_partition": 100, "threads_per_table": 2 });
    file["sync"] = json!({ "interval": "100ms", "max_rows": 300 });
    file["destination"]["durability"] = json!("fsync");
    Ok(file)
}

/// Changes the table until it is stopped: each UPDATE of a row counts its `c` up.
fn change_on(source: &Source, mut random: StdRng) -> (Arc<AtomicBool>, JoinHandle<Result<u64>>) {
    let stop = Arc::new(AtomicBool::new(false));
    let (source, stopped) = (source.clone(), Arc::clone(&stop));
    let task = tokio::spawn(async move {
        let mut conn = source.connect().await?;
        let (mut transactions, mut next) = (0, ROWS);
        while !stopped.load(Ordering::Relaxed) {
            conn.query_drop("START TRANSACTION").await?;
            for _ in 0..random.random_range(1..5) {
                let (id, a) = (random.random_range(0..next), random.random_range(0..10));
                let statement = match random.random_range(0..8) {
                    0..3 => format!("UPDATE t SET c = c + 1 WHERE id BETWEEN {id} AND {id} + 20"),
                    3..6 => format!(
                        "UPDATE t SET c = c + 1, a = (a + {a}) % 10 WHERE id BETWEEN {id} AND {id} + 5"
                    ),
                    6 => format!("DELETE FROM t WHERE id = {id}"),
                    _ => {
                        next += 1;
                        format!(
                            "INSERT INTO t (id, a0, a, b, c) VALUES ({next}, {a}, {a}, 'secret', 0)"
                        )
                    }
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

/// What is wrong with the target's rows, none of which stands at another version twice: of each row at the source, that
/// it was inserted once if it passed then and never if not, and that each of its updates is there once; and what the view
/// shows. Empty when nothing is.
async fn faults(stage: &Stage) -> Result<String> {
    let at_source: Vec<(u32, u32, u32, u32)> = stage
        .source
        .rows("SELECT id, a0, a, c FROM t ORDER BY id")
        .await?;
    let database = &stage.database;
    let expected: Vec<String> = at_source
        .iter()
        .filter(|(_, a0, _, c)| *a0 < 7 || *c > 0)
        .map(|(id, a0, _, c)| format!("{id}\t{}\t{c}\t{c}\t{c}", u32::from(*a0 < 7)))
        .collect();
    let ids: Vec<String> = at_source.iter().map(|(id, ..)| id.to_string()).collect();
    let found = stage
        .clickhouse
        .query(&format!(
            "SELECT id, countIf(_op = 'insert'), countIf(_op != 'insert'), uniqExactIf(c, _op != 'insert'), \
             maxIf(c, _op != 'insert') FROM `{database}`.t WHERE id IN ({}) GROUP BY id ORDER BY id",
            ids.join(", ")
        ))
        .await?;
    if found != expected.join("\n") {
        let found: Vec<&str> = found.lines().collect();
        let wrong = expected
            .iter()
            .filter(|line| !found.contains(&line.as_str()));
        let wrong: Vec<&String> = wrong.take(5).collect();
        return Ok(format!("rows without each change once, such as {wrong:?}"));
    }
    let expected: Vec<String> = at_source
        .iter()
        .filter(|(_, _, a, _)| *a < 7)
        .map(|(id, _, a, c)| format!("{id}\t{a}\t{c}\t5"))
        .collect();
    let view = format!("SELECT id, a, c, n FROM `{database}`.t_current ORDER BY id");
    if stage.clickhouse.query(&view).await? != expected.join("\n") {
        return Ok("the view shows other rows than pass".to_owned());
    }
    for (what, sql) in [
        (
            "versions twice",
            "countIf(_version > 0) - uniqExactIf(_version, _version > 0)",
        ),
        (
            "rows that passed and are deletes, or the other way round",
            "countIf(_version > 0 AND id IN (SELECT id FROM t_current) AND (_op = 'delete') != (a >= 7))",
        ),
        ("values bare", "countIf(b = 'secret')"),
    ] {
        let sql = sql.replace("t_current", &format!("`{database}`.t_current"));
        let count = stage
            .clickhouse
            .number(&format!("SELECT {sql} FROM `{database}`.t"))
            .await?;
        if count > 0 {
            return Ok(format!("{count} {what}"));
        }
    }
    Ok(String::new())
}

/// Rows of one flush reach several tables at once, so that the marker of [`Stage::wait_caught_up`] may be there before
/// the table's own: it is looked again until nothing is wrong.
async fn assert_exact(stage: &Stage) -> Result<()> {
    let until = Instant::now() + CATCH_UP;
    loop {
        let wrong = faults(stage).await?;
        if wrong.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < until, "{wrong}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn dead_letters_are_refused(file: &Value) -> Result<()> {
    let mut letters = file.clone();
    letters["transforms"]["kept"]["on_error"] = json!("dead_letter");
    let mut refused = start(launch(&letters))?;
    let code = refused.wait_exit(START).await?;
    let said = refused.log().tail();
    ensure!(code == 1 && said.contains("dead letters"), "{code}: {said}");
    Ok(())
}

/// pitfall 132: at a step of the load, behind a flush that has no checkpoint, and somewhere.
async fn plugins_change_and_drop_rows_of_an_append_table_wherever_the_process_ends(
    kind: SourceKind,
) -> Result<()> {
    let seed =
        Seed::new("plugins_change_and_drop_rows_of_an_append_table_wherever_the_process_ends");
    let mut moments = seed.generator(0);
    let stage = Stage::shared(kind).await?;
    let file = filtered_and_masked(&stage).await?;
    dead_letters_are_refused(&file).await?;
    let mut pipe = start(launch(&file).env(VARIABLE, "load:3"))?;
    wait_aborted(&mut pipe).await?;
    pipe.change_env(VARIABLE, None);
    pipe.restart()?;
    pipe.wait_state("Running", START).await?;
    let (stop, writer) = change_on(&stage.source, seed.generator(1));
    for round in 0..4 {
        tokio::time::sleep(Duration::from_millis(moments.random_range(50..1500))).await;
        pipe.kill9()?;
        if round == 1 {
            stage
                .source
                .execute("ALTER TABLE t ADD COLUMN n INT NOT NULL DEFAULT 5")
                .await?;
        }
        if round % 2 == 0 {
            ends_at(&mut pipe, "flush:1").await?;
        }
        pipe.restart()?;
        pipe.wait_for("an answer", START, |_| true).await?;
    }
    pipe.wait_state("Running", START).await?;
    stop.store(true, Ordering::Relaxed);
    let written = writer.await??;
    ensure!(written > 50, "only {written} transactions were written");
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    assert_exact(&stage).await?;
    stage.assert_no_load_left().await
}
