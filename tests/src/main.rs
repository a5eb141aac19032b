//! The testbed on the command line: brings up the real servers and fetches what they need, shows the demo and takes the
//! figures.

mod bench;
mod cli;
mod demo;
mod runtime;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Not a subcommand for clap: whatever follows is Pipewright's own to parse.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == "pipewright") {
        return runtime::run(arguments);
    }
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("testbed: {error:#}");
            ExitCode::FAILURE
        }
    }
}
