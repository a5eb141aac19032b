//! What other programs show of the command line: completions and manual pages, made from its own definition.

use std::path::Path;

use clap::CommandFactory;

use super::arguments::Arguments;
use super::exit::Exit;
use super::output::{self, Result};
use crate::error::{Error, ErrorKind};

const PROGRAM: &str = "pipewright";

pub(super) fn completions(shell: clap_complete::Shell) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), PROGRAM, &mut script);
    output::text(&String::from_utf8_lossy(&script));
    Ok(Exit::Done)
}

pub(super) fn man(folder: Option<&Path>) -> Result<Exit> {
    let failed = |error: std::io::Error| {
        Error::new(ErrorKind::Internal, "the manual cannot be written").with_source(error)
    };
    match folder {
        Some(folder) => {
            std::fs::create_dir_all(folder).map_err(failed)?;
            clap_mangen::generate_to(Arguments::command(), folder).map_err(failed)?;
        }
        None => {
            let mut page = Vec::new();
            let manual = clap_mangen::Man::new(Arguments::command());
            manual.render(&mut page).map_err(failed)?;
            output::text(&String::from_utf8_lossy(&page));
        }
    }
    Ok(Exit::Done)
}
