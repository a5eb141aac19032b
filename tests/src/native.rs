//! Small C programs and libraries, compiled once into the cache: what Rust's standard library cannot do without unsafe code.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{cache, command};

/// Compiles `source` with these options of the C compiler, unless that was done before; where the result is.
pub(crate) fn compiled(name: &str, source: &str, options: &[&str]) -> Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    source.hash(&mut hasher);
    options.hash(&mut hasher);
    let version = format!("{:016x}", hasher.finish());
    let item = cache::exact(name, &version, |folder| {
        let path = folder.join(format!("{name}.c"));
        fs::write(&path, source)?;
        let mut compile = Command::new("cc");
        compile
            .args(["-O1", "-o"])
            .arg(folder.join(name))
            .arg(&path)
            .args(options);
        command::run(&mut compile)
            .context("a C compiler is needed: sudo apt-get install gcc libc6-dev")
            .map(drop)
    })?;
    Ok(item.join(name))
}
