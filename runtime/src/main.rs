//! The `pipewright` command: everything is in the library, see [`pipewright::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    pipewright::cli::main()
}
