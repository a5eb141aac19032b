//! The command line: one variant a subcommand, each carried out by one function.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::{bench, demo};
use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use pipewright::author::{Language, fetch_toolchain};
use testbed::charsets;
use testbed::harness::Stage;
use testbed::soak::{api, commands, corpus, fuzz, large, outage, seeds, types};
use testbed::{
    ClickHouseOptions, ClickHouseServer, MariaDbExtras, SourceKind, SourceOptions, SourceServer,
};

/// Real MySQL, MariaDB and ClickHouse servers without root or containers.
///
/// Servers found on this machine are used; what is missing is fetched once into the cache folder (PIPEWRIGHT_CACHE,
/// else `pipewright` in the user's cache folder). Servers listen on 127.0.0.1 only and end with this program, also when
/// it is killed; their data is removed then.
#[derive(Debug, Parser)]
#[command(name = "testbed", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  testbed up                          all three servers, until Ctrl-C
  testbed up --mysql --clickhouse     only these
  testbed up --mariadb --data /tmp/m  keeps the data in /tmp/m/mariadb for the next time
  testbed fetch                       downloads and initialises everything, for work without a network
  eval \"$(testbed env)\"               then: cargo build --target wasm32-unknown-unknown";

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts servers, prints their addresses and waits for Ctrl-C
    Up(Up),
    /// Downloads and initialises everything that `up` and the tests need, with the seconds for each
    Fetch,
    /// Prints, for `eval`, the variables with which cargo builds plugins for wasm32-unknown-unknown
    Env,
    /// Asks MySQL and MariaDB for every code of their charsets, and writes the table that decoding is done with
    Charsets,
    /// Shows a pipe at work: a shop in MariaDB, masked on its way into ClickHouse
    Demo(demo::Options),
    /// Takes the figures: side by side with ClickHouse's own reading of MySQL, in one run on one machine
    Bench(bench::Options),
    /// Runs for long against the unexpected; choices come from a seed that is printed
    Soak(Soak),
}

#[derive(Args, Debug)]
struct Soak {
    #[command(subcommand)]
    what: SoakWhat,
}

#[derive(Clone, Debug, Subcommand)]
enum SoakWhat {
    /// Mutated event bodies of real servers through the decoders: no panic, no memory out of proportion
    Fuzz {
        /// How long
        #[arg(long, default_value_t = 600)]
        seconds: u64,
        /// Repeats a run
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Random tables and rows by both paths, from every kind of server and setting, compared
    Types {
        /// How many tables on each server
        #[arg(long, default_value_t = 20)]
        seeds: u64,
        /// The first seed; the others follow it
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Random sequences of commands, kills among them, under write load; both ends are equal after each
    Commands {
        /// How many sequences, by turns on MySQL and MariaDB
        #[arg(long, default_value_t = 50)]
        sequences: u64,
        /// The first seed; the others follow it
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Pipes under writers, XA, definitions, restarts and SIGKILL, on both servers, compared in the end
    Seeds {
        /// How many rounds on each server
        #[arg(long, default_value_t = 100)]
        count: u64,
        /// The first seed; the others follow it
        #[arg(long)]
        seed: Option<u64>,
        /// A folder for what a failed round leaves: the source's data with its binlog, all row versions, the pipe's log
        #[arg(long)]
        keep: Option<PathBuf>,
    },
    /// One transaction of 2 GiB through a budget of 256 MiB, on both servers
    Spill {
        /// How large the transaction is
        #[arg(long, default_value_t = 2_048)]
        mebibytes: u64,
        /// The pipe's budget
        #[arg(long, default_value = "256MiB")]
        memory: String,
    },
    /// One INSERT and one UPDATE of a million rows each through a budget of 64 MiB, on both servers
    Statement {
        /// How many thousand rows, 1,000 at the most
        #[arg(long, default_value_t = 1_000)]
        thousands: u64,
        /// The pipe's budget
        #[arg(long, default_value = "64MiB")]
        memory: String,
    },
    /// Thousands of tables behind a wildcard, one with 4,096 columns, on both servers
    Tables {
        /// How many
        #[arg(long, default_value_t = 10_000)]
        count: u32,
    },
    /// ClickHouse away under writers, beside both servers at once: one binlog connection, bounded memory, both ends equal
    Outage {
        /// How long
        #[arg(long, default_value_t = 60)]
        minutes: u64,
        /// Repeats the writers' transactions
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Requests that a property-based checker makes up from the OpenAPI document, against a running pipe: no 5xx, and
    /// every answer as described
    Api {
        /// How long
        #[arg(long, default_value_t = 600)]
        seconds: u64,
        /// Repeats a run
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Takes the event bodies in tests/corpus anew from every kind of server
    Corpus,
}

#[derive(Args, Debug)]
struct Up {
    /// Starts MySQL (it, MariaDB and ClickHouse are started when none is named)
    #[arg(long)]
    mysql: bool,
    /// Starts MariaDB
    #[arg(long)]
    mariadb: bool,
    /// Starts MariaDB 11.8 or later as well, which is started only when named
    #[arg(long)]
    mariadb11: bool,
    /// Starts ClickHouse
    #[arg(long)]
    clickhouse: bool,
    /// Keeps the data in a folder below this one, instead of a temporary one
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Adds the ClickHouse user `pipewright` with the password `pipewright`
    #[arg(long)]
    clickhouse_password: bool,
    /// An option for the MySQL and MariaDB servers, such as `--binlog-row-image=MINIMAL`; may be repeated
    #[arg(long = "server-arg", value_name = "OPTION", allow_hyphen_values = true)]
    server_args: Vec<String>,
}

/// Parses the arguments and carries the subcommand out.
pub(crate) fn run() -> Result<()> {
    match Cli::parse().command {
        Command::Up(options) => up(options),
        Command::Fetch => fetch(),
        Command::Env => env(),
        Command::Charsets => write_charsets(),
        Command::Demo(options) => demo::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Soak(options) => soak(options.what),
    }
}

fn soak(what: SoakWhat) -> Result<()> {
    let chosen = |seed: Option<u64>| {
        let seed = seed.unwrap_or_else(|| rand::random_range(0..1_000_000_000));
        println!("seed {seed}");
        seed
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    match what {
        SoakWhat::Fuzz { seconds, seed } => {
            let duration = Duration::from_secs(seconds);
            let summary = fuzz::run(corpus::load()?, chosen(seed), duration)?;
            println!(
                "{} inputs, {} of them decoded to the end; no panic, memory in proportion",
                summary.inputs, summary.decoded
            );
            Ok(())
        }
        SoakWhat::Types { seeds, seed } => {
            let program = std::env::current_exe()?;
            runtime.block_on(types::run_seeds(&program, chosen(seed), seeds))
        }
        SoakWhat::Commands { sequences, seed } => {
            let program = std::env::current_exe()?;
            runtime.block_on(commands::run(&program, sequences, chosen(seed)))
        }
        SoakWhat::Seeds { count, seed, keep } => {
            let program = std::env::current_exe()?;
            runtime.block_on(seeds::run(&program, chosen(seed), count, keep.as_deref()))
        }
        SoakWhat::Spill { mebibytes, memory } => runtime.block_on(async {
            let program = std::env::current_exe()?;
            for kind in [SourceKind::MySql, SourceKind::MariaDb] {
                let server = move || SourceServer::start(SourceOptions::new(kind));
                let stage = Stage::with_source(server).await?;
                let peak = large::spill(&stage, &program, mebibytes, &memory).await?;
                ensure!(peak < mebibytes << 18, "{} MiB of memory", peak >> 20);
                println!("{}: equal, {} MiB at the most", kind.label(), peak >> 20);
            }
            Ok(())
        }),
        SoakWhat::Statement { thousands, memory } => runtime.block_on(async {
            let program = std::env::current_exe()?;
            for kind in [SourceKind::MySql, SourceKind::MariaDb] {
                let server = move || SourceServer::start(SourceOptions::new(kind));
                let stage = Stage::with_source(server).await?;
                large::statement(&stage, &program, thousands, &memory).await?;
                println!("{}: equal", kind.label());
            }
            Ok(())
        }),
        SoakWhat::Tables { count } => runtime.block_on(async {
            let program = std::env::current_exe()?;
            for kind in [SourceKind::MySql, SourceKind::MariaDb] {
                large::tables(kind, &program, count).await?;
                println!("{}: equal", kind.label());
            }
            Ok(())
        }),
        SoakWhat::Outage { minutes, seed } => {
            let (program, seed) = (std::env::current_exe()?, chosen(seed));
            let away = Duration::from_secs(60 * minutes);
            let run = |kind| outage::run(kind, &program, away, seed);
            let (mysql, mariadb) = runtime
                .block_on(async { tokio::join!(run(SourceKind::MySql), run(SourceKind::MariaDb)) });
            println!("{}", mysql.context("MySQL")?);
            println!("{}", mariadb.context("MariaDB")?);
            Ok(())
        }
        SoakWhat::Api { seconds, seed } => {
            let program = std::env::current_exe()?;
            let duration = Duration::from_secs(seconds);
            let told = runtime.block_on(api::soak(&program, chosen(seed), duration))?;
            println!("{told}");
            Ok(())
        }
        SoakWhat::Corpus => runtime.block_on(corpus::capture()),
    }
}

fn up(options: Up) -> Result<()> {
    let all = !(options.mysql || options.mariadb || options.mariadb11 || options.clickhouse);
    let mut sources = Vec::new();
    for (kind, wanted) in [
        (SourceKind::MySql, all || options.mysql),
        (SourceKind::MariaDb, all || options.mariadb),
        (SourceKind::MariaDb11, options.mariadb11),
    ] {
        if wanted {
            let mut source = SourceOptions::new(kind);
            source.extra_args.clone_from(&options.server_args);
            source.data_dir = options
                .data
                .as_ref()
                .map(|folder| folder.join(kind.label()));
            sources.push(start_source(source)?);
        }
    }
    let clickhouse = match all || options.clickhouse {
        true => Some(start_clickhouse(&options)?),
        false => None,
    };
    println!("ready; Ctrl-C ends the servers");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime
        .block_on(tokio::signal::ctrl_c())
        .context("cannot wait for Ctrl-C")?;
    // Temporary data needs no farewell; kept data should not need a recovery next time.
    if options.data.is_some() {
        sources.iter().try_for_each(SourceServer::stop)?;
        clickhouse.iter().try_for_each(ClickHouseServer::stop)?;
    }
    Ok(())
}

fn start_source(options: SourceOptions) -> Result<SourceServer> {
    let name = options.kind.label();
    let server = SourceServer::start(options)?;
    println!("{name} {}", server.version());
    println!(
        "  host 127.0.0.1, port {}, socket {}",
        server.port(),
        server.socket().display()
    );
    println!("  root            {}", server.root_url());
    println!("  replication     {}", server.replication_url());
    println!(
        "  process {}, data {}",
        server.pid().unwrap_or_default(),
        server.data_dir().display()
    );
    Ok(server)
}

fn start_clickhouse(options: &Up) -> Result<ClickHouseServer> {
    let server = ClickHouseServer::start(ClickHouseOptions {
        data_dir: options
            .data
            .as_ref()
            .map(|folder| folder.join("clickhouse")),
        password_user: options.clickhouse_password,
        ports: None,
    })?;
    println!("clickhouse {}", server.version());
    println!(
        "  HTTP            {} (user default, no password)",
        server.url()
    );
    println!("  native          127.0.0.1:{}", server.tcp_port());
    println!(
        "  process {}, data {}",
        server.pid().unwrap_or_default(),
        server.data_dir().display()
    );
    Ok(server)
}

/// Starting a server once fetches it and initialises its data folder, and proves that it runs here.
fn fetch() -> Result<()> {
    timed("mysql", || {
        Ok(SourceServer::start(SourceOptions::new(SourceKind::MySql))?.version())
    })?;
    timed("mariadb", || {
        Ok(SourceServer::start(SourceOptions::new(SourceKind::MariaDb))?.version())
    })?;
    timed("mariadb11", || {
        Ok(SourceServer::start(SourceOptions::new(SourceKind::MariaDb11))?.version())
    })?;
    timed("plugins of mariadb", || {
        Ok(MariaDbExtras::find()?.plugins.display().to_string())
    })?;
    timed("clickhouse", || {
        Ok(ClickHouseServer::start(ClickHouseOptions::default())?.version())
    })?;
    for language in Language::value_variants() {
        timed(&format!("plugins in {language:?}"), || {
            Ok(fetch_toolchain(*language, Path::new("."))?.version)
        })?;
    }
    println!("cache {}", testbed::cache_folder()?.display());
    Ok(())
}

/// Nothing is printed when the machine's own compiler has the target.
fn env() -> Result<()> {
    let toolchain = fetch_toolchain(Language::Rust, Path::new("."))?;
    eprintln!("{}", toolchain.version);
    for (name, value) in toolchain.envs() {
        println!("export {name}='{}'", value.replace('\'', r"'\''"));
    }
    Ok(())
}

fn write_charsets() -> Result<()> {
    let servers = [SourceKind::MySql, SourceKind::MariaDb].map(testbed::shared_source);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let text = runtime.block_on(async {
        let mut conns = Vec::new();
        for server in servers {
            conns.push(mysql_async::Conn::from_url(server.root_url()).await?);
        }
        charsets::tables(&mut conns).await
    })?;
    let path = charsets::committed();
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("{}", path.display());
    Ok(())
}

fn timed(what: &str, work: impl FnOnce() -> Result<String>) -> Result<()> {
    let started = Instant::now();
    let version = work().with_context(|| format!("cannot fetch {what}"))?;
    println!("{what} {version}: {:.1} s", started.elapsed().as_secs_f32());
    Ok(())
}
