//! The demo: a shop in MariaDB, a pipe that masks e-mail addresses, and the rows arriving in ClickHouse.
//!
//! Everything is started here and ends here: the servers, the pipe's process, the writer. Ctrl-C and the end of
//! `--seconds` take the same way out, which drains the pipe; a second Ctrl-C ends at once.

mod shop;
mod view;

use std::env;
use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::json;
use testbed::harness::{Held, Launch, Pipe, Stage, build_guest, workspace_folder};
use testbed::{ClickHouseOptions, ClickHouseServer, SourceKind, SourceOptions, SourceServer};

use view::View;

const START_TIMEOUT: Duration = Duration::from_secs(120);
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(60);

/// How often the view is drawn on a terminal; in a log, lines come less often.
const REDRAW_INTERVAL: Duration = Duration::from_millis(250);
const LINE_INTERVAL: Duration = Duration::from_secs(2);

/// Without one, hashes of addresses can be guessed; a real one comes from the environment or a file.
const SALT: &str = "a salt of the demo";

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Ends after this many seconds of streaming instead of at Ctrl-C
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
}

/// Runs the demo to its end.
pub(crate) fn run(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        tokio::select! {
            result = show(options) => result,
            // The first Ctrl-C is `show`'s; by the second, patience has run out. Servers and pipe end with this process.
            () = second_interrupt() => Ok(()),
        }
    });
    // A download that hangs must not hold the process.
    runtime.shutdown_background();
    result
}

async fn second_interrupt() {
    for _ in 0..2 {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn show(options: &Options) -> Result<()> {
    let interrupted = tokio::spawn(tokio::signal::ctrl_c());
    say("starting MariaDB and ClickHouse");
    let stage = stage().await?;
    say(&format!(
        "  MariaDB {} at 127.0.0.1:{}",
        stage.source_server.version(),
        stage.source_server.port()
    ));
    say(&format!(
        "  ClickHouse {} at {}",
        stage.clickhouse_server.version(),
        stage.clickhouse_server.url()
    ));
    say("filling a shop: customers, orders, order items");
    let row_count = shop::fill(&stage.source).await?;
    say(&format!("  {row_count} rows"));
    say("building plugins/mask");
    let program = env::current_exe()?;
    let mask = build_guest(&program, &workspace_folder().join("plugins/mask")).await?;
    let mut pipe = Pipe::start(Launch::new(
        &program,
        &pipe_file(&stage, &mask.display().to_string()),
    ))?;
    say(&format!(
        "pipe `shop` runs in a process of its own: {}/v1/pipes/shop",
        pipe.url()
    ));
    let writer = shop::Writer::start(&stage.source);
    let result = watch(options, &mut pipe, interrupted).await;
    let written = writer.stop().await?;
    if let Err(error) = result {
        return Err(error.context(format!("the pipe printed:\n{}", pipe.log().tail())));
    }
    say(&format!(
        "{written} transactions were written meanwhile; the writer has stopped"
    ));
    stage.wait_caught_up(&mut pipe, CATCH_UP_TIMEOUT).await?;
    shop::compare(&stage, SALT).await?;
    let code = pipe.stop().await?;
    ensure!(
        code == 0,
        "the pipe ended with {code}:\n{}",
        pipe.log().tail()
    );
    say("the pipe has drained, the servers stop");
    Ok(())
}

async fn stage() -> Result<Stage> {
    let servers = tokio::task::spawn_blocking(|| -> Result<_> {
        let source = SourceServer::start(SourceOptions::new(SourceKind::MariaDb))?;
        Ok((
            source,
            ClickHouseServer::start(ClickHouseOptions::default())?,
        ))
    });
    let (source, clickhouse) = servers.await??;
    Stage::named(
        "shop",
        Held::Own(Box::new(source)),
        Held::Own(Box::new(clickhouse)),
    )
    .await
}

fn pipe_file(stage: &Stage, mask: &str) -> serde_json::Value {
    let entry = |table: &str| json!({ "source": format!("shop.{table}") });
    let customers = json!({ "source": "shop.customers", "transforms": ["mask_email"] });
    let mut file = stage.pipe_file_of(vec![customers, entry("orders"), entry("order_items")]);
    file["transforms"] = json!({
        "mask_email": { "plugin": mask, "config": { "columns": ["email"], "method": "sha256", "salt": SALT } },
    });
    file["sync"] = json!({ "interval": "1s" });
    file["snapshot"] = json!({ "rows_per_partition": 10000 });
    file["destination"]["durability"] = json!("fsync");
    file
}

/// Draws the pipe until Ctrl-C or the end of the time, which begins when the pipe is Running.
async fn watch(
    options: &Options,
    pipe: &mut Pipe,
    mut interrupted: tokio::task::JoinHandle<std::io::Result<()>>,
) -> Result<()> {
    let terminal = stderr().is_terminal();
    let interval = if terminal {
        REDRAW_INTERVAL
    } else {
        LINE_INTERVAL
    };
    let mut view = View::new(terminal);
    let started = Instant::now();
    let mut running_since = None;
    loop {
        if let Some(code) = pipe.exited()? {
            bail!("the pipe ended with {code}");
        }
        // No answer: the listener is not up yet.
        if let Ok(status) = pipe.status().await {
            view.draw(&status);
            ensure!(status["state"] != "Failed", "the pipe has failed");
            if status["state"] == "Running" {
                running_since.get_or_insert_with(Instant::now);
            }
        }
        let over = |since: Instant| {
            options
                .seconds
                .is_some_and(|seconds| since.elapsed() >= Duration::from_secs(seconds))
        };
        match running_since {
            None if started.elapsed() > START_TIMEOUT => {
                bail!("the pipe is not Running after {START_TIMEOUT:?}")
            }
            Some(since) if over(since) => return Ok(()),
            _ => {}
        }
        tokio::select! {
            ended = &mut interrupted => return ended?.context("cannot wait for Ctrl-C"),
            () = tokio::time::sleep(interval) => {}
        }
    }
}

fn say(text: &str) {
    eprintln!("{text}");
}
