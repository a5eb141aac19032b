//! What every end-to-end test runs in: a place in the queue, a deadline (for a hang, not for speed), and the pipe's log when it fails.

mod binlog;
mod ends;
mod guests;
mod json_schema;
mod kills;
mod many_rows;
mod seed;
mod slow_inserts;
mod slow_reader;

use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{Comparison, Launch, Pipe, PipeLog, Plugins, Stage};
use tokio::sync::Semaphore;

pub(crate) use binlog::{
    Event, end_of_binlog, events_behind, has_kinds, newest_file, newest_place, place,
    purge_all_but_the_newest,
};
pub(crate) use ends::{ends_at, killed_at, wait_aborted};
pub(crate) use guests::{hostile_guest, wasi_guest};
pub(crate) use json_schema::ensure_fits;
pub(crate) use kills::{KILLS, assert_filtered, assert_stream_survives_kills, filtered};
pub(crate) use many_rows::{double, fixed_rows, table_of_many_rows};
pub(crate) use seed::Seed;
pub(crate) use slow_inserts::SlowInserts;
pub(crate) use slow_reader::SlowReader;
pub(crate) use testbed::harness::Workload;

/// More pipes at once than this only wait for each other on two cores, and run into deadlines.
const CASES_AT_ONCE: usize = 4;

/// How long a pipe may take from its start to Running with the small tables of these tests.
pub(crate) const START: Duration = Duration::from_secs(120);

/// How long a pipe may take to show what has been committed.
pub(crate) const CATCH_UP: Duration = Duration::from_secs(120);

static QUEUE: Semaphore = Semaphore::const_new(CASES_AT_ONCE);

tokio::task_local! {
    static LOGS: Arc<Mutex<Vec<Arc<PipeLog>>>>;
}

/// Makes a test of an async function over the kind of source, once for MySQL and once for MariaDB, each with a deadline in
/// seconds.
macro_rules! on_both_sources {
    ($($name:ident: $seconds:literal),+ $(,)?) => {
        $(mod $name {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_mysql() {
                crate::support::case($seconds, super::$name(testbed::SourceKind::MySql)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_mariadb() {
                crate::support::case($seconds, super::$name(testbed::SourceKind::MariaDb)).await;
            }
        })+
    };
}

/// As `on_both_sources!`, and once more for MariaDB's newer generation: for what may differ there.
macro_rules! on_all_sources {
    ($($name:ident: $seconds:literal),+ $(,)?) => {
        $(mod $name {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_mysql() {
                crate::support::case($seconds, super::$name(testbed::SourceKind::MySql)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_mariadb() {
                crate::support::case($seconds, super::$name(testbed::SourceKind::MariaDb)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_mariadb11() {
                crate::support::case($seconds, super::$name(testbed::SourceKind::MariaDb11)).await;
            }
        })+
    };
}

/// As `on_both_sources!`, for the two generations of MariaDB.
macro_rules! on_both_mariadbs {
    ($($name:ident: $seconds:literal),+ $(,)?) => {
        $(mod $name {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_mariadb() {
                crate::support::case($seconds, super::$name(testbed::SourceKind::MariaDb)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_mariadb11() {
                crate::support::case($seconds, super::$name(testbed::SourceKind::MariaDb11)).await;
            }
        })+
    };
}

/// Makes a test of an async function, with a deadline in seconds.
macro_rules! once {
    ($($name:ident: $seconds:literal),+ $(,)?) => {
        $(mod $name {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn once() {
                crate::support::case($seconds, super::$name()).await;
            }
        })+
    };
}

pub(crate) use {on_all_sources, on_both_mariadbs, on_both_sources, once};

/// Runs one test: waits for its turn, then holds it to its deadline. A failure shows the log of every pipe it started.
pub(crate) async fn case(seconds: u64, body: impl Future<Output = Result<()>> + Send + 'static) {
    let _turn = QUEUE.acquire().await.expect("the queue is never closed");
    let logs = Arc::new(Mutex::new(Vec::new()));
    let mut task = tokio::spawn(LOGS.scope(Arc::clone(&logs), body));
    let failure = match tokio::time::timeout(Duration::from_secs(seconds), &mut task).await {
        Ok(Ok(Ok(()))) => return,
        // Without the backtrace, which would hide the sentence.
        Ok(Ok(Err(error))) => format!("{error:#}"),
        Ok(Err(panicked)) => format!("{panicked}"),
        Err(_) => {
            task.abort();
            format!("not done after {seconds} s")
        }
    };
    for log in logs.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        eprintln!("===== the pipe printed =====\n{}\n=====", log.tail());
    }
    panic!("{failure}");
}

/// The testbed's binary, which is also Pipewright's.
pub(crate) fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_testbed"))
}

/// How to run this pipe file.
pub(crate) fn launch(file: &Value) -> Launch {
    Launch::new(program(), file)
}

/// Starts a pipe whose log is shown when the test fails.
pub(crate) fn start(launch: Launch) -> Result<Pipe> {
    let pipe = Pipe::start(launch)?;
    // Outside of a case nobody would show it.
    LOGS.try_with(|logs| {
        logs.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(pipe.log())
    })
    .ok();
    Ok(pipe)
}

/// The loads of append tables lock them for a moment.
pub(crate) async fn allow_locks(stage: &Stage) -> Result<()> {
    let grant = format!(
        "GRANT LOCK TABLES ON `{}`.* TO pipewright@'%'",
        stage.database
    );
    stage.source.execute(grant).await
}

/// The entry of an append table.
pub(crate) fn append(stage: &Stage, table: &str) -> Value {
    json!({ "source": format!("{}.{table}", stage.database), "engine": "append" })
}

/// An append table has each change once, besides the rows of its load, and its view shows the source's rows.
pub(crate) async fn assert_each_change_once(
    stage: &Stage,
    table: &str,
    changes: u64,
) -> Result<()> {
    stage.assert(Comparison::of(table).view_alone()).await?;
    let sql = format!(
        "SELECT count() FROM `{}`.`{table}` WHERE _version > 0",
        stage.database
    );
    let found = stage.clickhouse.number(&sql).await?;
    ensure!(found == changes, "{found} rows of {changes} changes");
    Ok(())
}

/// What an append table has, one row a line, in the order of the binlog.
pub(crate) async fn history(stage: &Stage, table: &str, columns: &str) -> Result<String> {
    let sql = format!(
        "SELECT concatWithSeparator(' ', {columns}, toString(_op)) FROM `{}`.{table} ORDER BY _version, id",
        stage.database
    );
    stage.clickhouse.query(&sql).await
}

/// Waits until the history of a table is as expected: rows of one flush reach several tables at once, so that the marker of
/// [`Stage::wait_caught_up`] may be there before them.
pub(crate) async fn wait_history(stage: &Stage, table: &str, expected: &str) -> Result<()> {
    let until = Instant::now() + CATCH_UP;
    loop {
        // The table may not be there yet.
        let found = history(stage, table, "toString(id), a").await;
        if found.as_ref().is_ok_and(|found| found == expected) {
            return Ok(());
        }
        ensure!(Instant::now() < until, "{table} has {found:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Starts a pipe over these tables and waits until it is Running.
pub(crate) async fn running(stage: &Stage, tables: &[&str]) -> Result<Pipe> {
    running_with(&stage.pipe_file(tables)).await
}

/// Starts a pipe and waits until it is Running.
pub(crate) async fn running_with(file: &Value) -> Result<Pipe> {
    let mut pipe = start(launch(file))?;
    pipe.wait_state("Running", START).await?;
    Ok(pipe)
}

/// The first reason of the table, once one stands.
pub(crate) async fn reason_of(pipe: &mut Pipe, table: &str) -> Result<Value> {
    let mine = |document: &Value| {
        let reasons = document["reasons"].as_array().into_iter().flatten();
        reasons
            .clone()
            .find(|reason| reason["table"] == table)
            .cloned()
    };
    let document = pipe
        .wait_for("a reason of the table", START, |document| {
            mine(document).is_some()
        })
        .await?;
    mine(&document).context("it stands")
}

/// Waits until a pipe of the process, by name, is as wanted: for processes with more pipes than one.
pub(crate) async fn wait_for_pipe(
    pipe: &Pipe,
    name: &str,
    what: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Result<Value> {
    let until = Instant::now() + START;
    loop {
        let document = pipe.get(&format!("/v1/pipes/{name}")).await;
        if let Ok(document) = &document
            && wanted(document)
        {
            return Ok(document.clone());
        }
        ensure!(Instant::now() < until, "no `{what}` in time: {document:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The newest events of the stage's pipe.
pub(crate) async fn events(stage: &Stage, pipe: &Pipe) -> Result<Value> {
    let path = format!("/v1/pipes/{}/events?limit=1000", stage.database);
    pipe.get(&path).await
}

/// Waits until ClickHouse answers so: what was committed together becomes visible table by table.
pub(crate) async fn wait_answer(stage: &Stage, sql: &str, wanted: &str) -> Result<()> {
    let until = Instant::now() + CATCH_UP;
    loop {
        let answer = stage.clickhouse.query(sql).await?;
        if answer.trim() == wanted {
            return Ok(());
        }
        ensure!(
            Instant::now() < until,
            "`{sql}`: {answer:?} in place of {wanted:?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits for everything committed so far, and compares these tables.
pub(crate) async fn assert_caught_up(
    stage: &Stage,
    pipe: &mut Pipe,
    tables: &[&str],
) -> Result<()> {
    stage.wait_caught_up(pipe, CATCH_UP).await?;
    for table in tables {
        stage.assert_same(table).await?;
    }
    Ok(())
}

/// The first-party plugins.
pub(crate) async fn plugins() -> Result<&'static Plugins> {
    Plugins::built(program()).await
}

/// Both kinds of sources, for tests that need no server.
pub(crate) const KINDS: [SourceKind; 2] = [SourceKind::MySql, SourceKind::MariaDb];
