//! `pipewright plugin build`: from a crate to a component.
//!
//! The crate is built for wasm32-unknown-unknown, which has no WASI, so that the component imports nothing but the log.
//! The contract's types travel in the module; `wit-component` makes the component of them, no other tool is needed.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

use super::instance::hex;
use crate::error::{Error, ErrorKind, Result};

const TARGET: &str = "wasm32-unknown-unknown";

/// The guest's own profile, given here and not in a manifest, so that it holds outside of this workspace too. Names of
/// functions stay in, because a trap's backtrace is made of them. Every engine of the component model has 128-bit vectors,
/// which take a fifth off the time of a hash.
const PROFILE: [&str; 7] = [
    "profile.guest.inherits=\"release\"",
    "profile.guest.opt-level=3",
    "profile.guest.lto=true",
    "profile.guest.codegen-units=1",
    "profile.guest.panic=\"abort\"",
    "profile.guest.strip=\"debuginfo\"",
    "target.wasm32-unknown-unknown.rustflags=[\"-Ctarget-feature=+simd128\"]",
];

/// Variables by which a cargo or a test around us would change the build.
const HARMFUL: [&str; 8] = [
    "RUSTFLAGS",
    "RUSTDOCFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "CARGO_MAKEFLAGS",
    "RUSTC_WORKSPACE_WRAPPER",
];

/// A component that was built.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Built {
    /// The component's file.
    pub path: PathBuf,
    /// Its bytes.
    pub size: u64,
    /// SHA-256 of it, in hexadecimal digits.
    pub digest: String,
}

/// Builds the plugin crate in `dir` and writes `out/<name>.wasm`. `envs` are set for cargo and rustc: with `RUSTC` and
/// `PATH` another toolchain builds the guest. Blocks for as long as cargo takes.
///
/// # Errors
/// [`ErrorKind::PluginRefused`] with cargo's own last lines, or with the command that installs the target.
pub fn build_plugin(dir: &Path, out: &Path, envs: &[(String, String)]) -> Result<Built> {
    build_in(dir, envs, |metadata| {
        out.join(format!("{}.wasm", plugin_name(&metadata.name)))
    })
}

/// As [`build_plugin`], into the file `out`, or into `plugins/` of cargo's target folder under the name of `dir`.
///
/// # Errors
/// As [`build_plugin`].
pub fn build_plugin_to(dir: &Path, out: Option<&Path>, envs: &[(String, String)]) -> Result<Built> {
    build_in(dir, envs, |metadata| {
        match (out, metadata.manifest.parent()) {
            (Some(out), _) => out.to_owned(),
            (None, folder) => {
                let name = folder
                    .and_then(Path::file_name)
                    .unwrap_or(metadata.name.as_ref());
                let plugins = metadata.target_directory.join("plugins");
                plugins.join(name).with_extension("wasm")
            }
        }
    })
}

/// Puts a component that another tool has written at `from` in its place.
///
/// # Errors
/// [`ErrorKind::PluginRefused`] when it is not there, or `out` cannot be written.
pub fn finish_component(from: &Path, out: &Path) -> Result<Built> {
    let component = std::fs::read(from).map_err(|error| {
        refused(format!("no component was made for `{}`", out.display())).with_source(error)
    })?;
    place(&component, out.to_owned())
}

/// Makes a component of a module that another compiler has written at `from`.
///
/// # Errors
/// [`ErrorKind::PluginRefused`] when it is not there, imports what no plugin is given, or `out` cannot be written.
pub fn finish_module(from: &Path, out: &Path) -> Result<Built> {
    let module = std::fs::read(from).map_err(|error| {
        refused(format!("no module was made for `{}`", out.display())).with_source(error)
    })?;
    let component = componentize(&module).map_err(|error| {
        refused(format!("the module does not become a component: {error:#}")).with_hint(
            "a plugin has no files, clock, environment or standard output: leave out what needs them, such as printf",
        )
    })?;
    place(&component, out.to_owned())
}

fn build_in(
    dir: &Path,
    envs: &[(String, String)],
    out: impl FnOnce(&Metadata) -> PathBuf,
) -> Result<Built> {
    if !dir.join("Cargo.toml").is_file() {
        return Err(refused(format!("`{}` holds no Cargo.toml", dir.display()))
            .with_hint("name the folder of a plugin's crate, such as plugins/mask"));
    }
    ensure_target(dir, envs)?;
    let metadata = metadata(dir, envs)?;
    let module = run_cargo(dir, &metadata, envs)?;
    let bytes = std::fs::read(&module).map_err(|error| {
        refused(format!("`{}` cannot be read", module.display())).with_source(error)
    })?;
    let component = componentize(&bytes).map_err(|error| {
        refused(format!(
            "the module of `{}` does not become a component: {error:#}",
            metadata.name
        ))
        .with_hint("does the crate call `pipewright_sdk::export!`?")
    })?;
    place(&component, out(&metadata))
}

fn place(component: &[u8], path: PathBuf) -> Result<Built> {
    write(&path, component).map_err(|error| {
        refused(format!("`{}` cannot be written", path.display())).with_source(error)
    })?;
    Ok(Built {
        size: component.len() as u64,
        digest: hex(&Sha256::digest(component)),
        path,
    })
}

struct Metadata {
    name: String,
    manifest: PathBuf,
    target_directory: PathBuf,
}

/// A missing target is told before cargo prints pages about missing `core`.
fn ensure_target(dir: &Path, envs: &[(String, String)]) -> Result<()> {
    let rustc = envs
        .iter()
        .find(|(key, _)| key == "RUSTC")
        .map(|(_, value)| OsString::from(value))
        .or_else(|| std::env::var_os("RUSTC"))
        .unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(&rustc);
    command
        .current_dir(dir)
        .args(["--print", "target-libdir", "--target", TARGET])
        .envs(envs.iter().map(|(key, value)| (key, value)));
    let output = command.output().map_err(|error| {
        refused(format!("`{}` does not start", rustc.display()))
            .with_hint("install Rust, see rustup.rs")
            .with_source(error)
    })?;
    let folder = String::from_utf8_lossy(&output.stdout);
    let has_core = std::fs::read_dir(folder.trim()).is_ok_and(|mut entries| {
        entries.any(|entry| {
            entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
        })
    });
    if has_core {
        return Ok(());
    }
    Err(refused(format!("this Rust cannot build for {TARGET}"))
        .with_hint(format!("run: rustup target add {TARGET}")))
}

fn metadata(dir: &Path, envs: &[(String, String)]) -> Result<Metadata> {
    let output = cargo(dir, envs)
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .map_err(|error| refused("cargo does not start").with_source(error))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(refused(format!(
            "cargo refuses `{}`: {}",
            dir.display(),
            text.trim()
        )));
    }
    let json: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| refused("cargo's metadata cannot be read").with_source(error))?;
    let manifest = std::fs::canonicalize(dir.join("Cargo.toml")).map_err(|error| {
        refused(format!("`{}` cannot be read", dir.display())).with_source(error)
    })?;
    let packages = json["packages"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let package = packages.iter().find(|package| {
        let path = package["manifest_path"].as_str().unwrap_or_default();
        std::fs::canonicalize(path).is_ok_and(|path| path == manifest)
    });
    let name = package.and_then(|package| package["name"].as_str());
    match (name, json["target_directory"].as_str()) {
        (Some(name), Some(target_directory)) => Ok(Metadata {
            name: name.to_owned(),
            manifest,
            target_directory: target_directory.into(),
        }),
        _ => Err(
            refused(format!("`{}` is a workspace, not a crate", dir.display()))
                .with_hint("name the folder of a plugin's crate, such as plugins/mask"),
        ),
    }
}

/// The path of the crate's WebAssembly module.
fn run_cargo(dir: &Path, metadata: &Metadata, envs: &[(String, String)]) -> Result<PathBuf> {
    let mut command = cargo(dir, envs);
    command.args(["build", "--lib", "--profile", "guest", "--target", TARGET]);
    for setting in PROFILE {
        command.args(["--config", setting]);
    }
    // A folder of its own: the build around us may hold the lock of the usual one, and another compiler may be at work.
    command
        .arg("--target-dir")
        .arg(metadata.target_directory.join("guest"))
        .arg("--message-format=json-render-diagnostics")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .map_err(|error| refused("cargo does not start").with_source(error))?;
    let errors = child
        .stderr
        .take()
        .map(|stderr| std::thread::spawn(move || pass_on(stderr)));
    let mut module = None;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout)
            .lines()
            .map_while(std::io::Result::ok)
        {
            module = module_of(&line, &metadata.manifest).or(module);
        }
    }
    let errors = errors
        .and_then(|thread| thread.join().ok())
        .unwrap_or_default();
    let status = child
        .wait()
        .map_err(|error| refused("cargo was lost").with_source(error))?;
    if !status.success() {
        return Err(refused(format!(
            "cargo cannot build `{}`:\n{errors}",
            metadata.name
        )));
    }
    module.ok_or_else(|| {
        refused(format!(
            "crate `{}` makes no WebAssembly module",
            metadata.name
        ))
        .with_hint("its Cargo.toml needs: [lib] crate-type = [\"cdylib\", \"rlib\"]")
    })
}

fn cargo(dir: &Path, envs: &[(String, String)]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(dir);
    for (key, _) in std::env::vars_os() {
        let key = key.to_string_lossy();
        let of_a_crate = [
            "CARGO_PKG_",
            "CARGO_MANIFEST_",
            "CARGO_CFG_",
            "CARGO_PROFILE_",
            "CARGO_TARGET_",
            "__CARGO_",
        ];
        if HARMFUL.contains(&&*key) || of_a_crate.iter().any(|prefix| key.starts_with(prefix)) {
            command.env_remove(&*key);
        }
    }
    command.envs(envs.iter().map(|(key, value)| (key, value)));
    command
}

/// Shows a person how far cargo is, and keeps the text for the error.
fn pass_on(stderr: impl std::io::Read) -> String {
    const KEPT_LINES: usize = 60;
    let watched = std::io::stderr().is_terminal();
    let mut kept = std::collections::VecDeque::new();
    for line in BufReader::new(stderr)
        .lines()
        .map_while(std::io::Result::ok)
    {
        if watched {
            // A terminal that is gone is no reason to stop building.
            let _ = writeln!(std::io::stderr(), "{line}");
        }
        kept.push_back(line);
        if kept.len() > KEPT_LINES {
            kept.pop_front();
        }
    }
    kept.make_contiguous().join("\n")
}

/// The module that a line of cargo's report names, if it is this crate's.
fn module_of(line: &str, manifest: &Path) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    if message["reason"] != "compiler-artifact" {
        return None;
    }
    let path = std::fs::canonicalize(message["manifest_path"].as_str()?).ok()?;
    let files = message["filenames"].as_array()?;
    let module = files
        .iter()
        .filter_map(|file| file.as_str())
        .find(|file| file.ends_with(".wasm"));
    module.filter(|_| path == manifest).map(PathBuf::from)
}

fn componentize(module: &[u8]) -> anyhow::Result<Vec<u8>> {
    wit_component::ComponentEncoder::default()
        .validate(true)
        .module(module)?
        .encode()
}

/// Whole or not at all: a pipe may be reading the old one.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let aside = path.with_extension(format!("{}.tmp", std::process::id()));
    std::fs::write(&aside, bytes)?;
    std::fs::rename(&aside, path)
}

/// Ours are called pipewright-plugin-mask, and their file mask.wasm.
fn plugin_name(package: &str) -> &str {
    package
        .strip_prefix("pipewright-plugin-")
        .unwrap_or(package)
}

fn refused(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::PluginRefused, what)
}
