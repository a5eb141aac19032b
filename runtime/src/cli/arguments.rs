//! The command line, and the help that teaches it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::plugin::arguments::Plugin;
use crate::pipe::document::Timestamp;
use crate::telemetry::LogFormat;

/// Where `run` serves and the other verbs ask.
pub(super) const LISTEN: &str = "127.0.0.1:8686";

/// MySQL and MariaDB tables in ClickHouse, kept in step, through WebAssembly transforms.
#[derive(Debug, Parser)]
#[command(name = "pipewright", version, max_term_width = 100, after_help = ROOT_EXAMPLES)]
pub(super) struct Arguments {
    /// Print one JSON document to standard output, for errors too.
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

const ROOT_EXAMPLES: &str = "\
Begin like this:
  pipewright validate pipe.yaml            is the file right?
  pipewright validate pipe.yaml --online   are the servers ready for it?
  pipewright plan pipe.yaml                which tables would be made?
  pipewright run pipe.yaml                 copy, then follow; Ctrl-C ends it, the same command goes on

Exit codes:
  0 done or drained   1 a pipe failed, or a request was refused   2 wrong command line
  3 plan --detailed-exitcode found changes   69 a server is unavailable, or the process that is asked
  78 a pipe file is wrong   130 ended at once by a second signal";

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Run pipes until they are done or Ctrl-C.
    #[command(after_help = RUN_EXAMPLES)]
    Run(Run),
    /// Check pipe files, and with --online the servers they name.
    #[command(after_help = VALIDATE_EXAMPLES)]
    Validate(Validate),
    /// Show the tables, types, statements and plugins that a start would set up. Touches nothing.
    #[command(after_help = PLAN_EXAMPLES)]
    Plan(Plan),
    /// Print the pipe file with what commands have changed since; passwords stay as `${...}`.
    #[command(after_help = EXPORT_EXAMPLES)]
    Export(Ask),
    /// Print the JSON Schema of the pipe file.
    #[command(after_help = SCHEMA_EXAMPLES)]
    Schema,
    /// Show the pipes of a running process.
    #[command(after_help = STATUS_EXAMPLES)]
    Status(Status),
    /// Show what has happened to a pipe: transitions, commands, errors.
    #[command(after_help = EVENTS_EXAMPLES)]
    Events(Events),
    /// Finish and checkpoint what is in flight, then stop reading the source.
    #[command(after_help = PAUSE_EXAMPLES)]
    Pause(Ask),
    /// Go on where a pause stopped.
    Resume(Ask),
    /// Start a failed pipe again, or resume a paused one.
    Start(Ask),
    /// Load tables again beside the live ones, and exchange them when they are whole.
    #[command(after_help = RESYNC_EXAMPLES)]
    Resync(Resync),
    /// Add tables to a pipe, take them out, or bring one back into service.
    #[command(subcommand)]
    Tables(Tables),
    /// Change how a pipe cuts its batches, at once and until it is changed again; or how a paused one reaches its servers.
    #[command(after_help = SET_EXAMPLES)]
    Set(Set),
    /// Forget a pipe. Its tables in ClickHouse stay as they are; those of unfinished loads beside them are dropped.
    Drop(Ask),
    /// See rows that plugins could not transform, and send them again.
    #[command(subcommand)]
    DeadLetters(DeadLetters),
    /// Work on transform plugins.
    #[command(subcommand)]
    Plugin(Plugin),
    /// Print a script that completes command lines in a shell.
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(Completions),
    /// Print the manual page, or write that of every verb into a folder.
    #[command(after_help = MAN_EXAMPLES)]
    Man(Man),
}

/// Verbs below `dead-letters`.
#[derive(Debug, Subcommand)]
pub(super) enum DeadLetters {
    /// Show the rows, with the reason and the plugin of each.
    #[command(after_help = LETTERS_EXAMPLES)]
    List(Shown),
    /// Send the rows through the present plugins, with the versions that they had: what has changed since wins.
    #[command(after_help = LETTERS_EXAMPLES)]
    Replay(Letters),
}

const LETTERS_EXAMPLES: &str = "\
Examples:
  pipewright dead-letters list shop --table shop.orders
  pipewright dead-letters list shop --limit 100000
  pipewright dead-letters replay shop";

/// Options of `dead-letters list`.
#[derive(Debug, Args)]
pub(super) struct Shown {
    #[command(flatten)]
    pub(super) which: Letters,
    /// How many at most.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) limit: u64,
    /// Only those behind this place, which a list that ended before the last letter has named.
    #[arg(long, value_name = "PLACE")]
    pub(super) after: Option<String>,
}

/// Options of the verbs below `dead-letters`.
#[derive(Debug, Args)]
pub(super) struct Letters {
    #[command(flatten)]
    pub(super) ask: Ask,
    /// Only those of this table, written database.table.
    #[arg(long, value_name = "TABLE")]
    pub(super) table: Option<String>,
}

/// Options of `run`.
#[derive(Debug, Args)]
pub(super) struct Run {
    /// Pipe files, or folders of *.yaml and *.yml, which are watched: a new file starts a pipe, a changed one is applied,
    /// one that is gone pauses its pipe.
    #[arg(required_unless_present_any = ["secrets_dir", "plugins_dir"], value_name = "PATH")]
    pub(super) paths: Vec<PathBuf>,
    /// The folder that remembers how far each pipe is; made when absent.
    #[arg(long, value_name = "DIR", default_value = "./pipewright-state")]
    pub(super) state: PathBuf,
    /// Where status, commands and metrics are served; loopback only, unless --token-file is given.
    #[arg(long, value_name = "ADDR", default_value = LISTEN)]
    pub(super) listen: SocketAddr,
    /// A file with a line `read TOKEN` or `admin TOKEN` each; who asks must then present one. Read again when it changes.
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// A PEM file with the certificate chain to serve TLS with.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(super) tls_cert: Option<PathBuf>,
    /// A PEM file with the certificate's private key.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(super) tls_key: Option<PathBuf>,
    /// Where `${file:...}` and certificates of pipes that are made over REST may lead; nowhere when absent.
    #[arg(long, value_name = "DIR")]
    pub(super) secrets_dir: Option<PathBuf>,
    /// Where plugins of pipes that are made over REST may lead; nowhere when absent.
    #[arg(long, value_name = "DIR")]
    pub(super) plugins_dir: Option<PathBuf>,
    /// How long a server may be unreachable at the start before giving up on the only pipe; where there are several, each
    /// waits for its own.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub(super) wait: Duration,
    /// End when every pipe is Completed (exit code 0) or one has Failed (1).
    #[arg(long)]
    pub(super) once: bool,
    /// How log lines look [default: text, with --json: json].
    #[arg(long, value_name = "FORMAT")]
    pub(super) log_format: Option<LogFormat>,
}

const RUN_EXAMPLES: &str = "\
Examples:
  pipewright run pipe.yaml
  pipewright run pipes/ --state /var/lib/pipewright --log-format json
  pipewright run load.yaml --once          for pipes of mode snapshot, in scripts

Ctrl-C or SIGTERM drains: what is in flight is written and checkpointed, and the exit code is 0.
A second one ends at once; nothing is lost, the next start repeats a little.
PIPEWRIGHT_LOG=debug logs more.";

/// Options of `validate`.
#[derive(Debug, Args)]
pub(super) struct Validate {
    /// Pipe files, or folders of *.yaml and *.yml.
    #[arg(required = true, value_name = "PATH")]
    pub(super) paths: Vec<PathBuf>,
    /// Connect to both servers, and check settings, grants, tables and plugins. Changes nothing.
    #[arg(long)]
    pub(super) online: bool,
}

const VALIDATE_EXAMPLES: &str = "\
Examples:
  pipewright validate pipe.yaml            needs no server, no plugin, no secret: good for CI
  pipewright validate pipe.yaml --online   with statements that mend what is missing";

/// Options of `plan`.
#[derive(Debug, Args)]
pub(super) struct Plan {
    /// Pipe files, or folders of *.yaml and *.yml.
    #[arg(required = true, value_name = "PATH")]
    pub(super) paths: Vec<PathBuf>,
    /// Only say what this statement of the source would lead to; no server is asked.
    #[arg(long, value_name = "STATEMENT")]
    pub(super) ddl: Option<String>,
    /// End with 3 when a start would make tables, or a pipe runs otherwise than its file says.
    #[arg(long)]
    pub(super) detailed_exitcode: bool,
    #[command(flatten)]
    pub(super) server: Server,
}

const PLAN_EXAMPLES: &str = "\
Where a process runs the pipe, the plan shows each key that it runs otherwise than the file says: what is new in the
file, and what commands have changed.

Examples:
  pipewright plan pipe.yaml
  pipewright plan pipe.yaml --ddl 'ALTER TABLE shop.orders DROP COLUMN note'
  pipewright plan pipes/ --detailed-exitcode > /dev/null || echo changes
  pipewright plan pipe.yaml --json | jq '.plans[].tables[].target'";

const EXPORT_EXAMPLES: &str = "\
Examples:
  pipewright export shop > shop.yaml
  pipewright export shop --json

A password that the file writes out is shown as ***.";

const SCHEMA_EXAMPLES: &str = "\
Example:
  pipewright schema > pipewright.schema.json
  and as a pipe file's first line, for editors with a YAML language server:
  # yaml-language-server: $schema=pipewright.schema.json";

/// Options of the verbs that ask a running process.
#[derive(Debug, Args)]
pub(super) struct Ask {
    /// The pipe; for status all when absent, for commands the only one.
    #[arg(value_parser = pipe_name)]
    pub(super) pipe: Option<String>,
    #[command(flatten)]
    pub(super) server: Server,
}

/// Where the running process is asked.
#[derive(Clone, Debug, Args)]
pub(super) struct Server {
    /// The process's address.
    #[arg(
        long = "server",
        value_name = "URL",
        default_value = "http://127.0.0.1:8686",
        env = "PIPEWRIGHT_SERVER"
    )]
    pub(super) url: String,
    /// A PEM file of the authorities that the process's certificate is checked with [default: the public ones].
    #[arg(long, value_name = "FILE", env = "PIPEWRIGHT_CA")]
    pub(super) ca: Option<PathBuf>,
}

/// Options of `status`.
#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    pub(super) ask: Ask,
    /// Show it again every second until Ctrl-C; with --json a document a line.
    #[arg(long)]
    pub(super) watch: bool,
}

const STATUS_EXAMPLES: &str = "\
Examples:
  pipewright status
  pipewright status shop --watch
  pipewright status shop --json | jq .lag_seconds

Where the process was started with --token-file, PIPEWRIGHT_TOKEN holds the token, for this verb and all others that ask
a running process.";

/// Options of `events`.
#[derive(Debug, Args)]
pub(super) struct Events {
    #[command(flatten)]
    pub(super) ask: Ask,
    /// Only what is no older: a time such as 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(super) since: Option<Timestamp>,
    /// How many at most, the newest.
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) limit: u32,
    /// Then go on with what happens, until Ctrl-C or the end of the process, or, with exit code 1, until the pipe is
    /// dropped; with --json a document a line.
    #[arg(long)]
    pub(super) follow: bool,
}

const EVENTS_EXAMPLES: &str = "\
Examples:
  pipewright events shop
  pipewright events shop --follow
  pipewright events shop --json | jq '.events[] | select(.level == \"error\")'";

/// Options of `completions`.
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell.
    pub(super) shell: clap_complete::Shell,
}

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  pipewright completions bash > /etc/bash_completion.d/pipewright
  pipewright completions zsh > \"${fpath[1]}/_pipewright\"";

/// Options of `man`.
#[derive(Debug, Args)]
pub(super) struct Man {
    /// Write a page for each verb into this folder.
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
}

const MAN_EXAMPLES: &str = "\
Examples:
  pipewright man | man -l -
  pipewright man --dir /usr/local/share/man/man1";

const PAUSE_EXAMPLES: &str = "\
Examples:
  pipewright pause shop
  pipewright resume shop";

/// Options of `resync`.
#[derive(Debug, Args)]
pub(super) struct Resync {
    #[command(flatten)]
    pub(super) ask: Ask,
    /// Only this table, written database.table.
    #[arg(long, value_name = "TABLE")]
    pub(super) table: Option<String>,
    /// A key of `snapshot` to load with from now on, such as threads_per_table=8.
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    pub(super) snapshot: Vec<(String, serde_json::Value)>,
}

const RESYNC_EXAMPLES: &str = "\
Examples:
  pipewright resync shop                         every table
  pipewright resync shop --table shop.orders     one table; the others keep streaming
  pipewright resync shop --snapshot threads_per_table=8

Readers see the old rows until the fresh table is whole, then the new ones, at once. Rows that were deleted at the
source are not carried over.";

/// Verbs below `tables`.
#[derive(Debug, Subcommand)]
pub(super) enum Tables {
    /// Take further tables into the pipe; the others keep streaming.
    #[command(after_help = TABLES_EXAMPLES)]
    Add(TableEntries),
    /// Stop replicating tables, also ones that are still being added. Their targets stay as they are.
    Remove(TableNames),
    /// Read a quarantined table from its own place on.
    Retry(OneTable),
    /// The same, and pass over the one transaction or statement that fails. The table then says that it may differ from
    /// its source until it is resynced.
    Skip(OneTable),
}

const TABLES_EXAMPLES: &str = "\
Examples:
  pipewright tables add shop shop.invoices 'shop.log_*'
  pipewright tables remove shop shop.invoices
  pipewright tables retry shop shop.orders";

/// Options of `tables add`.
#[derive(Debug, Args)]
pub(super) struct TableEntries {
    /// The pipe.
    #[arg(value_parser = pipe_name)]
    pub(super) pipe: String,
    /// Tables, written database.table; * stands for any characters.
    #[arg(required = true, value_name = "TABLE")]
    pub(super) tables: Vec<String>,
    #[command(flatten)]
    pub(super) server: Server,
}

/// Options of `tables remove`.
#[derive(Debug, Args)]
pub(super) struct TableNames {
    /// The pipe.
    #[arg(value_parser = pipe_name)]
    pub(super) pipe: String,
    /// Tables, written database.table.
    #[arg(required = true, value_name = "TABLE")]
    pub(super) tables: Vec<String>,
    #[command(flatten)]
    pub(super) server: Server,
}

/// Options of `tables retry` and `tables skip`.
#[derive(Debug, Args)]
pub(super) struct OneTable {
    /// The pipe.
    #[arg(value_parser = pipe_name)]
    pub(super) pipe: String,
    /// The table, written database.table.
    pub(super) table: String,
    #[command(flatten)]
    pub(super) server: Server,
}

/// Options of `set`.
#[derive(Debug, Args)]
pub(super) struct Set {
    /// The pipe.
    #[arg(value_parser = pipe_name)]
    pub(super) pipe: String,
    /// Keys of `sync` with their values, or of `source` and `destination`, such as source.host=db2; or `exclude` with
    /// tables, commas between them.
    #[arg(required_unless_present_any = ["source_password_file", "destination_password_file"], value_name = "KEY=VALUE", value_parser = setting)]
    pub(super) settings: Vec<(String, serde_json::Value)>,
    /// A file that holds the source's new password: an argument would show in the list of processes.
    #[arg(long, value_name = "FILE")]
    pub(super) source_password_file: Option<PathBuf>,
    /// The same for ClickHouse.
    #[arg(long, value_name = "FILE")]
    pub(super) destination_password_file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) server: Server,
}

const SET_EXAMPLES: &str = "\
Examples:
  pipewright set shop interval=5s
  pipewright set shop max_rows=50000 max_bytes=32MiB
  pipewright set shop exclude='shop.tmp_*,shop.audit'
  pipewright pause shop
  pipewright set shop source.host=db2.example.com source.tls.mode=verify_identity
  pipewright set shop --source-password-file new-password
  pipewright resume shop

`exclude` is set as a whole, and empty with exclude= alone. Tables that are listed leave the pipe, those that are no longer come
back by themselves.

How a pipe reaches its servers is changed while it is paused or has failed. The new way is tried first: a server that lacks
what was read or written is refused.";

/// A pipe's name as pipe files have it: it stands in the addresses that are asked.
fn pipe_name(text: &str) -> Result<String, String> {
    match crate::config::is_name(text) {
        true => Ok(text.to_owned()),
        false => Err("a pipe's name has letters, digits, `_` and `-`, 64 at most".to_owned()),
    }
}

/// `key=value`; the value a number where it is one.
fn setting(text: &str) -> Result<(String, serde_json::Value), String> {
    let (key, value) = text
        .split_once('=')
        .filter(|(key, _)| !key.is_empty())
        .ok_or_else(|| "write KEY=VALUE".to_owned())?;
    let value = match value.parse::<u64>() {
        Ok(number) => number.into(),
        Err(_) => value.into(),
    };
    Ok((key.to_owned(), value))
}

fn moment(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).ok_or_else(|| "write a time in UTC: 2026-01-31T12:00:00Z".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    crate::config::parse_duration(text)
        .ok_or_else(|| "write a whole number with its unit: 500ms, 60s, 5m".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn run_has_the_defaults_of_the_manual() {
        let arguments = Arguments::parse_from(["pipewright", "run", "pipe.yaml"]);
        let Verb::Run(run) = arguments.verb else {
            panic!("another verb");
        };
        assert_eq!(run.state, PathBuf::from("./pipewright-state"));
        assert_eq!(run.listen.to_string(), LISTEN);
        assert_eq!(run.wait, Duration::from_secs(60));
        assert!(!run.once && !arguments.json);
    }

    #[test]
    fn a_duration_without_unit_is_refused() {
        let line = ["pipewright", "run", "pipe.yaml", "--wait", "60"];
        assert!(Arguments::try_parse_from(line).is_err());
    }
}
