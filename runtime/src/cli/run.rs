//! `run`: the pipes of one process, from the files to the exit code.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::arguments::Run;
use super::exit::Exit;
use super::output::{self, Failure, Result};
use super::progress::Screen;
use crate::api;
use crate::config::{self, Folders, PipeFile, Secrets};
use crate::error::{Error, ErrorKind};
use crate::pipe::{Outcome, RunOptions, Runtime};
use crate::telemetry::{self, LogFormat};

pub(super) fn run(options: Run, as_json: bool) -> Result<Exit> {
    // Before anything else: a bad file ends here, with nothing touched.
    let files = config::load_files(&options.paths, &config::environment, Secrets::Resolve)
        .map_err(Failure::Problems)?;
    let format = match options.log_format {
        Some(format) => format,
        None if as_json => LogFormat::Json,
        None => LogFormat::Text,
    };
    let screen = Screen::new(format);
    telemetry::init(format, screen.log_writer());
    super::block_on(run_pipes(files, options, screen, as_json))
}

async fn run_pipes(
    files: Vec<PipeFile>,
    options: Run,
    screen: Screen,
    as_json: bool,
) -> Result<Exit> {
    let mut signals = Signals::new()?;
    let access = api::Access {
        address: options.listen,
        token_file: options.token_file,
        tls: options.tls_cert.zip(options.tls_key),
    };
    let interface = api::listen(&access).await.map_err(|error| Failure::Error {
        exit: match error.kind() {
            ErrorKind::Config => Exit::Usage,
            kind => Exit::over(kind),
        },
        error,
    })?;
    let folders = options
        .paths
        .into_iter()
        .filter(|path| path.is_dir())
        .collect();
    let runtime = Runtime::start(
        files,
        RunOptions {
            state_dir: options.state,
            wait: options.wait,
            once: options.once,
            folders: Folders {
                secrets: options.secrets_dir,
                plugins: options.plugins_dir,
            },
        },
    )
    .await?;
    tracing::info!("status, commands and metrics at {}", interface.url());

    let draining = CancellationToken::new();
    let ended = CancellationToken::new();
    let server =
        tokio::spawn(interface.serve(Arc::clone(&runtime), draining.clone(), ended.clone()));
    let view = tokio::spawn(screen.show(Arc::clone(&runtime), ended.clone()));
    let watcher = tokio::spawn(watch(Arc::clone(&runtime), folders));

    let outcome = tokio::select! {
        outcome = runtime.wait() => Some(outcome),
        () = signals.next() => None,
    };
    draining.cancel();
    // A pipe that is being changed is either the former or the new one when the drain begins.
    watcher.abort();
    if outcome.is_none() {
        tracing::info!(
            "draining: what is in flight is written and checkpointed; once more to end at once"
        );
    }
    let drained = tokio::select! {
        () = runtime.drain() => true,
        () = signals.next() => false,
    };
    if !drained {
        // Nothing is lost: the next start goes on from the last checkpoint.
        tracing::warn!("ended at once");
        std::process::exit(Exit::Interrupted as i32);
    }
    ended.cancel();
    view.await.ok();
    // A client that holds its connection open must not hold the process.
    server.abort();
    report(&runtime, outcome, as_json)
}

async fn watch(runtime: Arc<Runtime>, folders: Vec<PathBuf>) {
    tokio::join!(runtime.watch(folders), runtime.open_as_mended());
}

/// The last word: how it ended, and where the pipes stand.
fn report(runtime: &Runtime, outcome: Option<Outcome>, as_json: bool) -> Result<Exit> {
    let ending = match outcome {
        None => "drained",
        Some(Outcome::Completed) => "completed",
        Some(Outcome::Failed { pipe, failure }) => {
            let message = format!("pipe `{pipe}` failed: {}", failure.message);
            let error = Error::new(failure.kind, message);
            return Err(Failure::Error {
                exit: Exit::Failed,
                error: match failure.remedy {
                    Some(remedy) => error.with_hint(remedy),
                    None => error,
                },
            });
        }
        Some(Outcome::Unreachable { pipe, message }) => {
            let message = format!("pipe `{pipe}` could not begin: {message}");
            let error = Error::new(ErrorKind::SourceUnavailable, message)
                .with_hint("start the server, or wait longer with --wait; nothing was made yet");
            return Err(Failure::Error {
                exit: Exit::Unavailable,
                error,
            });
        }
    };
    if as_json {
        output::data(&json!({ "outcome": ending, "pipes": runtime.pipes() }));
    } else {
        tracing::info!("{ending}");
    }
    Ok(Exit::Done)
}

/// SIGINT and SIGTERM, which mean the same.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Error::new(ErrorKind::Internal, "signals cannot be received").with_source(error)
            })
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// The next of either. Safe to drop: a signal that came stays pending.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
