//! Plugins in C: clang, and bindings that are generated from the contract when this binary is built.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::scaffold::{C_BINDINGS, write_bindings};
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::cache;

/// The command that compiles every C file of the folder, with the bindings, to a module at `out`.
///
/// # Errors
/// [`ErrorKind::PluginRefused`] when the folder cannot be read or the bindings cannot be written.
pub(super) fn compiler(folder: &Path, packages: &Path, out: &Path) -> Result<Command> {
    let bindings = bindings(folder)?;
    let caches = cache::cache_folder().map_err(|error| refused(format!("{error:#}")))?;
    let mut command = Command::new(packages.join("ziglang/zig"));
    // Of WASI nothing is left but memory: what asks for more is refused when the component is made.
    command.args(["cc", "-target", "wasm32-wasi", "-mexec-model=reactor"]);
    command.args(["-std=c11", "-O3", "-Wall", "-Wl,--strip-debug", "-I"]);
    command.arg(&bindings).args(sources(folder)?);
    command.arg(bindings.join("pipewright.c"));
    command.arg(bindings.join("pipewright_component_type.o"));
    command.arg("-o").arg(out);
    command
        .env("ZIG_GLOBAL_CACHE_DIR", caches.join("zig"))
        .env("ZIG_LOCAL_CACHE_DIR", caches.join("zig"));
    Ok(command)
}

/// Those beside the plugin, which `plugin new` has written, or this binary's own.
fn bindings(folder: &Path) -> Result<PathBuf> {
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let own = folder.join(C_BINDINGS);
    if own.join("pipewright.h").is_file() {
        return Ok(own);
    }
    let made = folder.join("target/bindings");
    write_bindings(&made)?;
    Ok(made)
}

fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|error| {
        refused(format!("`{}` cannot be read", folder.display())).with_source(error)
    })?;
    let names = entries.filter_map(|entry| Some(PathBuf::from(entry.ok()?.file_name())));
    let mut sources: Vec<PathBuf> = names
        .filter(|name| name.extension().is_some_and(|ending| ending == "c"))
        .collect();
    sources.sort();
    Ok(sources)
}

fn refused(what: String) -> Error {
    Error::new(ErrorKind::PluginRefused, what)
}
