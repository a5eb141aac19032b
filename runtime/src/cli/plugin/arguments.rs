//! The command line of `pipewright plugin`, and the help that teaches it.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::author::Language;

/// What to do with a plugin.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Plugin {
    /// Make a new plugin that builds and passes its own cases at once.
    #[command(after_help = NEW_EXAMPLES)]
    New(New),
    /// Make a WebAssembly component of a plugin.
    #[command(after_help = BUILD_EXAMPLES)]
    Build(Build),
    /// Show what a component is, what it asks for, and what it would do to a table.
    #[command(after_help = INSPECT_EXAMPLES)]
    Inspect(Inspect),
    /// Run a plugin's cases in the sandbox, without any server.
    #[command(after_help = TEST_EXAMPLES)]
    Test(Test),
    /// Measure a plugin over the rows of a case.
    #[command(after_help = BENCH_EXAMPLES)]
    Bench(Bench),
    /// Show rows of a real table before and after its plugins; writes nothing.
    #[command(after_help = RUN_EXAMPLES)]
    Run(Run),
}

/// Options of `plugin new`.
#[derive(Debug, Args)]
pub(in crate::cli) struct New {
    /// The folder to make; its last part is the plugin's name.
    #[arg(value_name = "NAME")]
    pub(super) folder: PathBuf,
    /// What to write it in.
    #[arg(long, value_name = "LANGUAGE", default_value = "rust")]
    pub(super) lang: Language,
}

const NEW_EXAMPLES: &str = "\
Examples:
  pipewright plugin new mask-phone
  pipewright plugin new mask-phone --lang python

Then, in the new folder:
  pipewright plugin build     add --fetch when the tools that build plugins are not there yet
  pipewright plugin test      runs cases/ in the sandbox
  pipewright plugin inspect   what it reads, replaces and adds

No repository is needed: the SDK and the contract are written into .pipewright beside the plugin.";

/// Options of `plugin build`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Build {
    /// The plugin's folder.
    #[arg(value_name = "DIR", default_value = ".")]
    pub(super) dir: PathBuf,
    /// Where the component goes [default: plugins/NAME.wasm in the folder of build products].
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
    /// Get the tools that build it when they are not there.
    #[arg(long)]
    pub(super) fetch: bool,
}

const BUILD_EXAMPLES: &str = "\
Examples:
  pipewright plugin build
  pipewright plugin build plugins/mask --out mask.wasm

A folder with Cargo.toml is built by cargo for wasm32-unknown-unknown, optimised and without debug data;
one with transform.py by componentize-py, one with transform.js by componentize-js, one with transform.c by
clang. --fetch gets what is missing: the target by rustup, else a compiler from Debian; the packages from
PyPI or npm.";

/// A component, or a folder that is built first.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// A component's file, or a plugin's folder, which is built first.
    #[arg(value_name = "PATH", default_value = ".")]
    pub(super) path: PathBuf,
    /// Get the tools that build it when they are not there.
    #[arg(long)]
    pub(super) fetch: bool,
}

/// Cases of a plugin.
#[derive(Debug, Args)]
pub(super) struct Cases {
    #[command(flatten)]
    pub(super) which: Which,
    /// The folder of the cases [default: cases in the plugin's folder].
    #[arg(long, value_name = "DIR")]
    pub(super) cases: Option<PathBuf>,
    /// Only the cases whose names contain this.
    #[arg(long, value_name = "TEXT")]
    pub(super) only: Option<String>,
}

/// Options of `plugin inspect`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Inspect {
    #[command(flatten)]
    pub(super) which: Which,
    /// Bind it to this table: a YAML file as cases/table.yaml.
    #[arg(long, value_name = "FILE")]
    pub(super) table: Option<PathBuf>,
    /// The configuration to bind it with, as JSON.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    pub(super) config: String,
    /// Bind it as this case does.
    #[arg(long, value_name = "NAME", conflicts_with = "table")]
    pub(super) case: Option<String>,
    /// Show what the transforms of this pipe file do to its tables, at the real source.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["table", "case"])]
    pub(super) pipe: Option<PathBuf>,
}

const INSPECT_EXAMPLES: &str = "\
Examples:
  pipewright plugin inspect
  pipewright plugin inspect mask.wasm --table table.yaml --config '{\"columns\": [\"email\"], \"method\": \"redact\"}'
  pipewright plugin inspect --case trims_and_lowers
  pipewright plugin inspect --pipe pipe.yaml";

/// Options of `plugin test`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Test {
    #[command(flatten)]
    pub(super) of: Cases,
    /// Write down what the plugin gives as what is expected. Read the difference before you commit it.
    #[arg(long)]
    pub(super) update: bool,
}

const TEST_EXAMPLES: &str = "\
Examples:
  pipewright plugin test
  pipewright plugin test plugins/mask --only redact
  pipewright plugin test --update

A case is a folder in cases/:
  case.yaml             config and limits, as in the pipe file; table, or ../table.yaml holds it
  rows.jsonl, rows.csv  the rows; with `_op` (insert, update, delete) in one of them they are a stream, else a load
  expected.jsonl        what they become; a row dropped from a stream is a delete
  expected-error.txt    or a part of the message with which the plugin refuses

Each case runs whole, row by row, and in two instances, and fails when the three differ: after a crash rows are
sent again, cut into other batches. Exit codes: 0 all passed, 1 some did not.";

/// Options of `plugin bench`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Bench {
    #[command(flatten)]
    pub(super) of: Cases,
    /// Rows of a batch: the case's, again and again.
    #[arg(long, value_name = "N", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) rows: u32,
}

const BENCH_EXAMPLES: &str = "\
Examples:
  pipewright plugin bench
  pipewright plugin bench plugins/mask --only sha256 --rows 65536

The boundary is a plugin that reads the same columns and does nothing: its share of the time is
what the sandbox costs, the rest is the plugin's own. Times are medians, on one core.";

/// Options of `plugin run`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Run {
    /// The pipe file.
    #[arg(value_name = "PIPE_FILE")]
    pub(super) path: PathBuf,
    /// The table [default: the only one that has transforms].
    #[arg(long, value_name = "DATABASE.TABLE")]
    pub(super) table: Option<String>,
    /// How many rows.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) rows: u32,
}

const RUN_EXAMPLES: &str = "\
Examples:
  pipewright plugin run pipe.yaml
  pipewright plugin run pipe.yaml --table shop.customers --rows 3 --json

Reads the source; the destination is not asked. The rows are shown as they are, so look at who looks on.";
