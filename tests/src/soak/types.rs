//! Random tables with random rows, by both paths: every row is there before the load and comes again by the stream.
//!
//! [`columns::TYPES`] is the one list of what may be in a table. A new type joins by one line in it, and by its comparison
//! in the harness. Keys, defaults, generated and invisible columns, charsets and collations are chosen at random, too, and
//! so is how much of a row the source logs.

mod columns;
mod documents;
mod keys;
mod numbers;
mod places;
mod server;
mod table;
mod texts;
mod times;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::harness::{Comparison, Held, Launch, Pipe, Stage};
use crate::{SourceKind, SourceOptions, SourceServer, shared_clickhouse};
use server::Server;
use table::Table;

/// How long a pipe may take to load or catch up with the few rows of a round.
const PATIENCE: Duration = Duration::from_secs(120);

/// Rows before the load; about as many changes come behind it.
const ROWS: u32 = 40;

/// An insert or update that would make a key a second time.
const DUPLICATE_KEY: u16 = 1062;

/// Literals are ASCII; dates may be what no calendar has.
const SQL_MODE: &str = "SET sql_mode = 'NO_ENGINE_SUBSTITUTION,ALLOW_INVALID_DATES'";

/// Whole rows are sorted, and some are larger than what MySQL sorts by itself.
const SORTED: &str = "SET sort_buffer_size = 134217728";

/// Servers of a long run: each kind as the testbed sets it up, and as others have it, so that row events tell less of
/// their tables, or hold times in MariaDB's layouts of before 10.1.
const SERVERS: [(SourceKind, &[&str]); 6] = [
    (SourceKind::MySql, &[]),
    (SourceKind::MariaDb, &[]),
    (SourceKind::MariaDb11, &[]),
    (SourceKind::MySql, &["--binlog-row-metadata=MINIMAL"]),
    (
        SourceKind::MariaDb,
        &[
            "--binlog-row-metadata=NO_LOG",
            "--mysql56-temporal-format=OFF",
        ],
    ),
    (
        SourceKind::MariaDb11,
        &[
            "--binlog-row-metadata=MINIMAL",
            "--mysql56-temporal-format=OFF",
        ],
    ),
];

/// Which columns a table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breadth {
    /// Some of the types, as many of each as it comes.
    Some,
    /// One of every type that the server has, and every kind of generated column.
    Every,
}

/// A random table, its rows by both paths, changed and deleted on the way, compared at the end. `program` is the testbed.
///
/// # Errors
/// The first differences; what a server or the pipe fails with. The table's definition is part of the message.
pub async fn round(stage: &Stage, program: &Path, seed: u64, breadth: Breadth) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let server = Server::ask(stage, &mut random).await?;
    let table = Table::random(&mut random, &server, breadth);
    let definition = table.definition();
    replay(stage, program, &mut random, &table)
        .await
        .context(definition)
}

async fn replay(stage: &Stage, program: &Path, random: &mut StdRng, table: &Table) -> Result<()> {
    let mut conn = stage.source.connect().await?;
    conn.query_drop(SQL_MODE).await?;
    conn.query_drop(SORTED).await?;
    for statement in table.statements() {
        conn.query_drop(statement).await?;
    }
    let rows: Vec<String> = (0..ROWS).map(|_| table.values(random)).collect();
    for row in &rows {
        run(&mut conn, &table.insert(random, &[row])).await?;
    }
    let comparison = table.comparison();
    let file = pipe_file(stage, random, table);
    let mut pipe = Pipe::start(Launch::new(program, &file))?;
    let replayed = async {
        pipe.wait_state("Running", PATIENCE).await?;
        let loaded = stage.assert(comparison.clone()).await;
        ensure!(loaded.context("by the load")? > 0, "no row was loaded");
        for session in table.sessions(random) {
            conn.query_drop(session).await?;
        }
        // Several rows in an event, and one.
        let mut rest = rows.as_slice();
        while !rest.is_empty() {
            let count = random.random_range(1..=6).min(rest.len());
            let (some, behind) = rest.split_at(count);
            let some: Vec<&String> = some.iter().collect();
            run(&mut conn, &table.insert(random, &some)).await?;
            rest = behind;
        }
        for _ in 0..ROWS {
            run(&mut conn, &table.change(random)).await?;
        }
        drop(conn);
        stage.wait_caught_up(&mut pipe, PATIENCE).await?;
        stage.assert(comparison).await.context("by the stream")
    };
    let replayed = replayed.await.map(drop);
    let replayed = replayed.with_context(|| format!("the pipe printed:\n{}", pipe.log().tail()));
    replayed?;
    pipe.stop().await.map(drop)
}

/// The load in few partitions or many; rows read by key where images may lack columns.
fn pipe_file(stage: &Stage, random: &mut StdRng, table: &Table) -> Value {
    let mut file = stage.pipe_file(&["t"]);
    if random.random_range(0..3) == 0 {
        file["snapshot"] = json!({ "rows_per_partition": random.random_range(1..20) });
    }
    if table.reads_by_key() {
        file["row_image"] = json!("complete");
    }
    file
}

/// Runs a statement, which may meet a key that is there.
async fn run(conn: &mut Conn, statement: &str) -> Result<()> {
    match conn.query_drop(statement).await {
        Err(Error::Server(error)) if error.code == DUPLICATE_KEY => Ok(()),
        done => done.with_context(|| statement.chars().take(600).collect::<String>()),
    }
}

/// A round for each seed from `first` on and each of the servers, with every type in every fourth.
///
/// # Errors
/// As [`round`], with the seed.
pub async fn run_seeds(program: &Path, first: u64, seeds: u64) -> Result<()> {
    let mut servers = Vec::new();
    for (kind, settings) in SERVERS {
        let mut options = SourceOptions::new(kind);
        options.extra_args = settings.iter().map(|&setting| setting.to_owned()).collect();
        let server = tokio::task::spawn_blocking(move || SourceServer::start(options)).await??;
        // As long as the process, as those are that tests share.
        let server: &'static SourceServer = Box::leak(Box::new(server));
        servers.push((server, settings));
    }
    let clickhouse = tokio::task::spawn_blocking(shared_clickhouse).await?;
    for seed in first..first.saturating_add(seeds) {
        let breadth = match seed % 4 {
            0 => Breadth::Every,
            _ => Breadth::Some,
        };
        for &(server, settings) in &servers {
            let stage = Stage::on(Held::Shared(server), Held::Shared(clickhouse)).await?;
            round(&stage, program, seed, breadth)
                .await
                .with_context(|| {
                    let kind = server.kind().label();
                    format!("seed {seed} on {kind} {}", settings.join(" "))
                })?;
        }
        println!("seed {seed}: equal by both paths");
    }
    Ok(())
}

/// Whatever tells rows apart at both ends.
fn comparison_by(key: Option<Vec<String>>) -> Comparison {
    let comparison = Comparison::of("t");
    match key {
        None => comparison,
        Some(names) => {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            comparison.by(&names)
        }
    }
}
