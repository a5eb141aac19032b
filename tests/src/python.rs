//! Command-line tools written in Python, of exact versions, fetched once into the cache.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{cache, command};

/// Runs one of the tools: the packages that hold it, with their versions, and the expression that calls it.
///
/// The packages stand in a folder of their own, which is named to the interpreter; nothing of the machine's own
/// packages is used or changed.
pub fn python_tool(name: &str, packages: &[&str], call: &str) -> Result<Command> {
    let interpreter = command::run(Command::new("python3").arg("--version"))
        .context("python3 is needed on this machine")?;
    // Compiled packages belong to one version of the interpreter.
    let version = format!("{}-{}", packages.join("-"), interpreter.trim());
    let folder = cache::exact(name, &version, |folder| {
        command::download(name, folder, || {
            let mut pip = Command::new("python3");
            pip.args(["-m", "pip", "install", "--quiet", "--no-input", "--target"]);
            pip.arg(folder).args(packages);
            pip
        })
    })?;
    let Some(path) = folder.to_str() else {
        bail!("the cache folder's path is no UTF-8: {}", folder.display());
    };
    let mut tool = Command::new("python3");
    tool.env("PYTHONPATH", path)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    tool.args(["-c", call]);
    Ok(tool)
}
