//! The command line: each verb is a function from its options to an exit code or a failure.

mod arguments;
mod client;
mod connection;
mod events;
mod exit;
mod letters;
mod manual;
mod output;
mod plugin;
mod progress;
mod run;
mod validate;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind as ClapErrorKind;
use serde_json::json;

use self::arguments::{Arguments, Verb};
use self::exit::Exit;
use self::output::{Failure, Result};
use crate::config::{PipeConfig, Secrets};
use crate::error::{Error, ErrorKind};
use crate::telemetry::{self, LogFormat};

/// Reads the process's command line, does what it says, and gives the process's exit code.
pub fn main() -> ExitCode {
    main_from(std::env::args_os())
}

/// The same for a command line that another program hands over; its first word is the program's name.
pub fn main_from(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let wants_json = arguments.iter().any(|argument| argument == "--json");
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error, wants_json).into(),
    };
    let as_json = arguments.json;
    match verb(arguments) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.print(as_json);
            failure.exit().into()
        }
    }
}

fn verb(arguments: Arguments) -> Result<Exit> {
    let as_json = arguments.json;
    match arguments.verb {
        Verb::Run(options) => run::run(options, as_json),
        Verb::Validate(options) => {
            quiet_log();
            validate::validate(&options, as_json)
        }
        Verb::Plan(options) => {
            quiet_log();
            validate::plan(&options, as_json)
        }
        Verb::Schema => {
            output::data(&crate::config::json_schema());
            Ok(Exit::Done)
        }
        Verb::Status(options) => block_on(client::status(&options, as_json)),
        Verb::Export(options) => block_on(client::export(&options, as_json)),
        Verb::Events(options) => block_on(events::events(&options, as_json)),
        Verb::Pause(options) => command(&options, json!({ "command": "pause" }), as_json),
        Verb::Resume(options) => command(&options, json!({ "command": "resume" }), as_json),
        Verb::Start(options) => command(&options, json!({ "command": "start" }), as_json),
        Verb::Resync(options) => {
            let mut body = json!({ "command": "resync" });
            if let Some(table) = options.table {
                body["table"] = json!(table);
            }
            if !options.snapshot.is_empty() {
                body["snapshot"] = options.snapshot.into_iter().collect();
            }
            command(&options.ask, body, as_json)
        }
        Verb::Tables(verb) => block_on(client::tables(verb, as_json)),
        Verb::Set(options) => block_on(client::set(options, as_json)),
        Verb::Drop(options) => block_on(client::drop_pipe(&options, as_json)),
        Verb::DeadLetters(verb) => block_on(letters::dead_letters(verb, as_json)),
        Verb::Plugin(verb) => plugin::plugin(&verb, as_json),
        Verb::Completions(options) => manual::completions(options.shell),
        Verb::Man(options) => manual::man(options.dir.as_deref()),
    }
}

fn command(options: &arguments::Ask, body: serde_json::Value, as_json: bool) -> Result<Exit> {
    block_on(client::command(options, &body, as_json))
}

/// The verbs that look and end print their result; a log is for `run`.
fn quiet_log() {
    if std::env::var_os("PIPEWRIGHT_LOG").is_some() || std::env::var_os("RUST_LOG").is_some() {
        telemetry::init(LogFormat::Text, None);
    }
}

/// Ends over a command line that makes no sense, or over `--help` and `--version`.
fn refuse(error: &clap::Error, as_json: bool) -> Exit {
    let asked = matches!(
        error.kind(),
        ClapErrorKind::DisplayHelp | ClapErrorKind::DisplayVersion
    );
    if !asked && as_json {
        let message = error.render().to_string();
        let message = message.trim_start_matches("error: ").trim_end();
        output::data(&json!({ "error": { "code": "usage", "message": message } }));
    } else {
        error.print().ok();
    }
    if asked { Exit::Done } else { Exit::Usage }
}

fn load(paths: &[PathBuf], secrets: Secrets) -> Result<Vec<PipeConfig>> {
    crate::config::load(paths, &crate::config::environment, secrets).map_err(Failure::Problems)
}

fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Error::new(
                ErrorKind::Internal,
                "the process's threads cannot be started",
            )
            .with_source(error)
        })?;
    let result = runtime.block_on(future);
    // A look-up of a host name that hangs must not keep a finished process alive.
    runtime.shutdown_background();
    result
}
