//! The figures, each taken beside what it is compared with, in one run on the same servers.
//!
//! Run it in release: `cargo run --release -p testbed -- bench snapshot`. The table goes to standard error, the same figures
//! as JSON to standard output.

mod boundary;
mod changes;
mod latency;
mod lineitem;
mod loads;
mod report;

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use testbed::harness::{Held, Stage};
use testbed::{ClickHouseOptions, ClickHouseServer, SourceKind, SourceOptions, SourceServer};

#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
    /// The source; both, one after the other, when absent
    #[arg(long, global = true, value_enum)]
    source: Option<Kind>,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum What {
    /// Load of a lineitem table, beside ClickHouse's own INSERT ... SELECT FROM mysql()
    Snapshot {
        /// Rows of the table
        #[arg(long, default_value_t = 2_000_000)]
        rows: u64,
        /// Runs of each contestant, taken in turns; medians are shown
        #[arg(long, default_value_t = 5)]
        rounds: u32,
    },
    /// Catching up with inserts, updates and deletes that were written while the pipe was paused
    Stream {
        /// Rows inserted; a fifth of them is updated and a tenth deleted
        #[arg(long, default_value_t = 500_000)]
        rows: u64,
        /// Rows of one statement; each transaction has 100 rows
        #[arg(long, default_value_t = 100)]
        rows_per_statement: u64,
    },
    /// From commit to visible, at a steady rate of single-row transactions
    Latency {
        /// Transactions a second
        #[arg(long, default_value_t = 200)]
        rate: u32,
        /// How long
        #[arg(long, default_value_t = 30)]
        seconds: u32,
    },
    /// What a plugin costs: a batch by itself beside native Rust, then a load, with one that does nothing, and mask
    Plugin {
        /// Rows of the table
        #[arg(long, default_value_t = 2_000_000)]
        rows: u64,
        /// Runs of each contestant, taken in turns; medians are shown
        #[arg(long, default_value_t = 5)]
        rounds: u32,
        /// Batches of 65,536 rows through each plugin, and through the same work in native Rust
        #[arg(long, default_value_t = 200)]
        batches: u32,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Mysql,
    Mariadb,
}

/// Takes the figures and prints them.
pub(crate) fn run(options: &Options) -> Result<()> {
    if cfg!(debug_assertions) {
        eprintln!(
            "a figure of a debug build says little: cargo run --release -p testbed -- bench ..."
        );
    }
    let kinds = match options.source {
        Some(Kind::Mysql) => vec![SourceKind::MySql],
        Some(Kind::Mariadb) => vec![SourceKind::MariaDb],
        None => vec![SourceKind::MySql, SourceKind::MariaDb],
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let mut figures = Vec::new();
    if let What::Plugin { batches, .. } = options.what {
        figures.push(runtime.block_on(boundary::boundary(batches))?);
    }
    for kind in kinds {
        figures.push(runtime.block_on(measure(options.what, kind))?);
    }
    println!(
        "{:#}",
        json!({ "machine": report::machine(), "figures": figures })
    );
    Ok(())
}

async fn measure(what: What, kind: SourceKind) -> Result<Value> {
    let stage = stage(kind).await?;
    let servers = format!(
        "{} {}, ClickHouse {}",
        kind.name(),
        stage.source_server.version(),
        stage.clickhouse_server.version()
    );
    eprintln!("{servers}");
    let figures = match what {
        What::Snapshot { rows, rounds } => loads::snapshot(&stage, rows, rounds).await?,
        What::Plugin { rows, rounds, .. } => loads::plugin(&stage, rows, rounds).await?,
        What::Stream {
            rows,
            rows_per_statement,
        } => changes::stream(&stage, rows, rows_per_statement).await?,
        What::Latency { rate, seconds } => latency::latency(&stage, rate, seconds).await?,
    };
    Ok(json!({ "servers": servers, "figures": figures }))
}

/// Servers of the bench's own. The source does not wait for its disk: it is written to before, not while, it is measured,
/// but for the latency, where its commit is not part of the figure.
async fn stage(kind: SourceKind) -> Result<Stage> {
    let servers = tokio::task::spawn_blocking(move || -> Result<_> {
        let options = SourceOptions::new(kind)
            .arg("--innodb-buffer-pool-size=1G")
            .arg("--innodb-flush-log-at-trx-commit=2")
            .arg("--sync-binlog=0");
        Ok((
            SourceServer::start(options)?,
            ClickHouseServer::start(ClickHouseOptions::default())?,
        ))
    });
    let (source, clickhouse) = servers.await??;
    Stage::on(Held::Own(Box::new(source)), Held::Own(Box::new(clickhouse))).await
}
