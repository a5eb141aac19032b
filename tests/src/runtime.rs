//! Pipewright's own command line within this binary, so that tests can kill a pipe that is a process of its own: a test
//! gets the path of no other package's binaries.

use std::ffi::OsString;
use std::io::Read;
use std::process::ExitCode;
use std::thread;

use testbed::harness::LIFELINE_VARIABLE;

/// Runs Pipewright with these arguments.
pub(crate) fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    if std::env::var_os(LIFELINE_VARIABLE).is_some() {
        thread::spawn(end_with_parent);
    }
    pipewright::cli::main_from(std::iter::once("pipewright".into()).chain(arguments))
}

/// Standard input is held open by whoever started us; when it closes, nobody is left to end this process.
fn end_with_parent() {
    let mut rest = Vec::new();
    std::io::stdin().lock().read_to_end(&mut rest).ok();
    std::process::exit(137);
}
