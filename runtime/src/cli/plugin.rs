//! `plugin build`: a crate compiled to a core module, and the module made a component.
//!
//! The target is wasm32-unknown-unknown: a component made of it imports nothing that the contract does not name, so
//! there is no WASI to take away.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use wit_component::ComponentEncoder;

use super::arguments::Build;
use super::exit::Exit;
use super::output::{self, Result};
use crate::error::{Error, ErrorKind};

const TARGET: &str = "wasm32-unknown-unknown";

pub(super) fn build(options: &Build, as_json: bool) -> Result<Exit> {
    let (component, size) = build_component(options)?;
    if as_json {
        output::data(&json!({ "component": component, "bytes": size }));
    } else {
        output::text(&format!("{}\n", component.display()));
    }
    Ok(Exit::Done)
}

fn build_component(options: &Build) -> crate::error::Result<(PathBuf, usize)> {
    let manifest = options.dir.join("Cargo.toml");
    if !manifest.is_file() {
        return Err(Error::new(
            ErrorKind::Config,
            format!("there is no `{}`", manifest.display()),
        )
        .with_hint("name the folder of the plugin's crate"));
    }
    let module = compile(&manifest)?;
    let out = match &options.out {
        Some(out) => out.clone(),
        None => default_out(&module, &options.dir)?,
    };
    let component = encode(&module)?;
    write(&out, &component)?;
    Ok((out, component.len()))
}

/// Runs cargo, whose own messages go to standard error as they come, and finds the module it made.
fn compile(manifest: &Path) -> crate::error::Result<PathBuf> {
    const HINT: &str = "plugins need Rust's wasm32-unknown-unknown target: rustup target add wasm32-unknown-unknown";
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(&cargo)
        .args(["build", "--release", "--target", TARGET])
        .args(["--message-format", "json-render-diagnostics"])
        .arg("--manifest-path")
        .arg(manifest)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| {
            Error::new(ErrorKind::Config, "cargo cannot be started")
                .with_hint("install Rust, or put cargo on the PATH")
                .with_source(error)
        })?;
    if !output.status.success() {
        return Err(Error::new(
            ErrorKind::PluginRefused,
            format!("`{}` does not compile", manifest.display()),
        )
        .with_hint(HINT));
    }
    let manifest = fs::canonicalize(manifest).unwrap_or_else(|_| manifest.to_owned());
    artifact(&String::from_utf8_lossy(&output.stdout), &manifest).ok_or_else(|| {
        Error::new(
            ErrorKind::PluginRefused,
            format!("`{}` makes no WebAssembly module", manifest.display()),
        )
        .with_hint("add to it: [lib] crate-type = [\"cdylib\"]")
    })
}

/// The `.wasm` that cargo's messages name for the crate of `manifest`.
fn artifact(messages: &str, manifest: &Path) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact")
        .filter(|message| message["manifest_path"].as_str().map(Path::new) == Some(manifest))
        .filter_map(|message| {
            let files = message["filenames"].as_array()?;
            files
                .iter()
                .filter_map(Value::as_str)
                .find(|file| file.ends_with(".wasm"))
                .map(PathBuf::from)
        })
        .next_back()
}

/// `plugins/NAME.wasm` in cargo's target folder, NAME being the crate's folder.
fn default_out(module: &Path, dir: &Path) -> crate::error::Result<PathBuf> {
    let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    // target/wasm32-unknown-unknown/release/name.wasm
    module
        .ancestors()
        .nth(3)
        .zip(dir.file_name())
        .map(|(target, name)| target.join("plugins").join(name).with_extension("wasm"))
        .ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                "cargo's target folder has an unknown shape",
            )
            .with_hint("name the component's file with --out")
        })
}

fn encode(module: &Path) -> crate::error::Result<Vec<u8>> {
    let bytes = fs::read(module).map_err(|error| {
        Error::new(
            ErrorKind::State,
            format!("cannot read `{}`", module.display()),
        )
        .with_source(error)
    })?;
    ComponentEncoder::default()
        .validate(true)
        .module(&bytes)
        .and_then(|encoder| encoder.encode())
        .map_err(|error| {
            Error::new(
                ErrorKind::PluginRefused,
                format!(
                    "`{}` cannot be made a component: {error:#}",
                    module.display()
                ),
            )
            .with_hint(
                "a plugin exports itself with the SDK's export! macro, and imports nothing else",
            )
        })
}

/// Writes aside and renames, so that a running process never reads half a plugin.
fn write(out: &Path, component: &[u8]) -> crate::error::Result<()> {
    let folder = match out.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let aside = out.with_extension(format!("{}.part", std::process::id()));
    let written = fs::create_dir_all(folder)
        .and_then(|()| fs::write(&aside, component))
        .and_then(|()| fs::rename(&aside, out));
    if written.is_err() {
        fs::remove_file(&aside).ok();
    }
    written.map_err(|error| {
        Error::new(
            ErrorKind::State,
            format!("cannot write `{}`", out.display()),
        )
        .with_source(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_of_the_crate_asked_for_is_found_among_cargos_messages() {
        let messages = r#"
not json
{"reason":"compiler-artifact","manifest_path":"/w/dep/Cargo.toml","filenames":["/w/t/dep.wasm"]}
{"reason":"compiler-artifact","manifest_path":"/w/mask/Cargo.toml","filenames":["/w/t/mask.d","/w/t/mask.wasm"]}
{"reason":"build-finished","success":true}
"#;
        let found = artifact(messages, Path::new("/w/mask/Cargo.toml"));
        assert_eq!(found, Some(PathBuf::from("/w/t/mask.wasm")));
        assert_eq!(artifact(messages, Path::new("/w/other/Cargo.toml")), None);
    }

    #[test]
    fn the_component_goes_beside_cargos_other_products() {
        let module = Path::new("/w/target/wasm32-unknown-unknown/release/mask.wasm");
        let out = default_out(module, Path::new("/w/plugins/mask")).expect("a path");
        assert_eq!(out, PathBuf::from("/w/target/plugins/mask.wasm"));
    }

    #[test]
    fn what_is_no_module_cannot_become_a_component() {
        let folder = tempfile::tempdir().expect("a folder");
        let module = folder.path().join("x.wasm");
        fs::write(&module, b"not wasm").expect("a file");
        let error = encode(&module).expect_err("no module");
        assert_eq!(error.kind(), ErrorKind::PluginRefused);
    }

    #[test]
    fn a_folder_without_a_crate_is_refused_before_anything_runs() {
        let folder = tempfile::tempdir().expect("a folder");
        let options = Build {
            dir: folder.path().to_owned(),
            out: None,
        };
        let error = build_component(&options).expect_err("no crate");
        assert!(error.message().contains("Cargo.toml"));
    }
}
