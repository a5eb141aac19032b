//! What builds plugins: a compiler for wasm32-unknown-unknown, the machine's, rustup's, or Debian's in the cache; and the
//! packages that make components of Python, JavaScript and C.
//!
//! Debian's compiler is newer than the system it is run on here, so wrappers start it through its own loader. Its
//! libraries cannot be read by another compiler: guests need a target folder of their own.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::project::Language;
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::{cache, command, debian};

/// The target that plugins of Rust are built for.
const GUEST_TARGET: &str = "wasm32-unknown-unknown";

/// Moves slower than sid, with the same compiler most of the time.
const SUITE: &str = "forky";

/// With the value `cached` the machine's own toolchain is passed over, to test the other way.
const CHOICE_VARIABLE: &str = "PIPEWRIGHT_GUEST_TOOLCHAIN";

/// What the compiler, its target library and the linker load; the closure also names gcc and binutils, which the machine has.
const NEEDED: [&str; 17] = [
    "rustc",
    "libstd-rust-",
    "libllvm",
    "lld-",
    "libc6",
    "libgcc-s1",
    "libstdc++6",
    "libffi",
    "libedit",
    "libz3-",
    "zlib1g",
    "libzstd1",
    "libxml2",
    "libtinfo",
    "libbsd",
    "libmd",
    "liblzma",
];

/// componentize-py, which the component is made by; the newest of its line is taken with care, since it is young.
const PYTHON_PACKAGE: &str = "componentize-py";
const PYTHON_VERSION: &str = "0.25.1";

/// componentize-js, likewise.
const JAVASCRIPT_PACKAGE: &str = "@bytecodealliance/componentize-js";
const JAVASCRIPT_VERSION: &str = "0.23.0";

/// Zig, whose package holds clang, a linker and the C library for WebAssembly in one file of every platform.
const C_PACKAGE: &str = "ziglang";
const C_VERSION: &str = "0.17.0";

/// What builds plugins of one language.
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// The compiler, when it is not the one that cargo finds itself.
    rustc: Option<PathBuf>,
    /// A folder to put in front of the PATH: it holds the linker.
    path_prefix: Option<PathBuf>,
    /// The folder of the packages, where they are packages.
    pub(super) packages: Option<PathBuf>,
    /// What it calls itself.
    pub version: String,
}

impl Toolchain {
    /// Environment variables for cargo; none when the machine's own compiler does.
    pub fn envs(&self) -> Vec<(String, String)> {
        let mut envs = Vec::new();
        if let Some(rustc) = &self.rustc {
            envs.push(("RUSTC".to_owned(), rustc.display().to_string()));
        }
        if let Some(prefix) = &self.path_prefix {
            let path = env::var("PATH").unwrap_or_default();
            envs.push(("PATH".to_owned(), format!("{}:{path}", prefix.display())));
        }
        envs
    }

    fn of_machine(version: String) -> Self {
        Self {
            rustc: None,
            path_prefix: None,
            packages: None,
            version,
        }
    }

    fn cached_rust(item: &Path) -> anyhow::Result<Self> {
        let bin = item.join("root/bin");
        let rustc = bin.join("rustc");
        Ok(Self {
            version: version(&rustc, item)?,
            rustc: Some(rustc),
            path_prefix: Some(bin),
            packages: None,
        })
    }
}

/// What is there already: the machine's own, as it is chosen in `dir`, else what was fetched before.
///
/// # Errors
/// [`ErrorKind::PluginRefused`] with the command that gets what is missing.
pub fn find_toolchain(language: Language, dir: &Path) -> Result<Toolchain> {
    let found = match language {
        Language::Rust => find_rust(dir),
        Language::Python => find_packages(PYTHON_PACKAGE, PYTHON_VERSION),
        Language::Javascript => find_packages(JAVASCRIPT_PACKAGE, JAVASCRIPT_VERSION),
        Language::C => find_packages(C_PACKAGE, C_VERSION),
    };
    found.map_err(failed)?.ok_or_else(|| {
        let (what, command) = match language {
            Language::Rust => (
                format!("no compiler for {GUEST_TARGET} is there"),
                format!(
                    "run in `{}`: rustup target add {GUEST_TARGET}; or give --fetch, which does it, or without rustup fetches a compiler into the cache",
                    dir.display()
                ),
            ),
            Language::Python => (
                format!("{PYTHON_PACKAGE} {PYTHON_VERSION} is not there"),
                "give --fetch, which takes it from PyPI into the cache with pip".to_owned(),
            ),
            Language::Javascript => (
                format!("{JAVASCRIPT_PACKAGE} {JAVASCRIPT_VERSION} is not there"),
                "give --fetch, which takes it from npm into the cache".to_owned(),
            ),
            Language::C => (
                format!("{C_PACKAGE} {C_VERSION}, which has clang for plugins, is not there"),
                "give --fetch, which takes it from PyPI into the cache with pip".to_owned(),
            ),
        };
        Error::new(ErrorKind::PluginRefused, what).with_hint(command)
    })
}

/// As [`find_toolchain`], and fetches what is missing.
///
/// # Errors
/// [`ErrorKind::PluginRefused`] with what the client that fetches says.
pub fn fetch_toolchain(language: Language, dir: &Path) -> Result<Toolchain> {
    let fetched = match language {
        Language::Rust => fetch_rust(dir),
        Language::Python => fetch_wheel(PYTHON_PACKAGE, PYTHON_VERSION),
        Language::C => fetch_wheel(C_PACKAGE, C_VERSION),
        Language::Javascript => fetch_packages(JAVASCRIPT_PACKAGE, JAVASCRIPT_VERSION, |folder| {
            let mut npm = Command::new("npm");
            npm.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]);
            npm.arg(folder)
                .arg(format!("{JAVASCRIPT_PACKAGE}@{JAVASCRIPT_VERSION}"));
            npm
        }),
    };
    fetched.map_err(failed)
}

fn failed(error: anyhow::Error) -> Error {
    Error::new(
        ErrorKind::PluginRefused,
        format!("the tools that build plugins cannot be had: {error:#}"),
    )
}

/// The machine's compiler when it has the target, else the one that was fetched.
fn find_rust(dir: &Path) -> anyhow::Result<Option<Toolchain>> {
    let only_cached = env::var(CHOICE_VARIABLE).is_ok_and(|choice| choice == "cached");
    if !only_cached && has_target(dir) {
        return Ok(Some(Toolchain::of_machine(version(&machine_rustc(), dir)?)));
    }
    let item = cache::find("guest-rustc")?;
    item.map(|item| Toolchain::cached_rust(&item)).transpose()
}

fn fetch_rust(dir: &Path) -> anyhow::Result<Toolchain> {
    let only_cached = env::var(CHOICE_VARIABLE).is_ok_and(|choice| choice == "cached");
    if let Some(found) = find_rust(dir)? {
        return Ok(found);
    }
    if !only_cached && rustup_adds_target(dir) && has_target(dir) {
        return Ok(Toolchain::of_machine(version(&machine_rustc(), dir)?));
    }
    let item = cache::newest("guest-rustc", fetch).with_context(|| {
        format!("no compiler for plugins; by hand: rustup target add {GUEST_TARGET}")
    })?;
    Toolchain::cached_rust(&item)
}

fn item_name(package: &str) -> &str {
    package.rsplit('/').next().unwrap_or(package)
}

fn find_packages(package: &str, version: &str) -> anyhow::Result<Option<Toolchain>> {
    let item = cache::find_exact(item_name(package), version)?;
    Ok(item.map(|item| Toolchain {
        packages: Some(item),
        ..Toolchain::of_machine(format!("{package} {version}"))
    }))
}

fn fetch_packages(
    package: &str,
    version: &str,
    client: impl Fn(&Path) -> Command,
) -> anyhow::Result<Toolchain> {
    let item = cache::exact(item_name(package), version, |folder| {
        command::download(&format!("{package} {version}"), folder, || client(folder))
    })?;
    Ok(Toolchain {
        packages: Some(item),
        ..Toolchain::of_machine(format!("{package} {version}"))
    })
}

fn fetch_wheel(package: &str, version: &str) -> anyhow::Result<Toolchain> {
    fetch_packages(package, version, |folder| {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--no-input"]);
        pip.args([
            "--disable-pip-version-check",
            "--root-user-action",
            "ignore",
        ]);
        pip.arg("--target").arg(folder);
        pip.arg(format!("{package}=={version}"));
        pip
    })
}

/// As cargo finds it.
fn machine_rustc() -> PathBuf {
    env::var_os("RUSTC").map_or_else(|| "rustc".into(), PathBuf::from)
}

/// In that folder, as a build of it runs: a `rust-toolchain.toml` may choose the compiler.
fn has_target(dir: &Path) -> bool {
    let mut print = Command::new(machine_rustc());
    print.args(["--print", "target-libdir", "--target", GUEST_TARGET]);
    let printed = command::run(print.current_dir(dir));
    printed.is_ok_and(|folder| Path::new(folder.trim()).is_dir())
}

/// Offline machines are common here: one try, no long retries.
fn rustup_adds_target(dir: &Path) -> bool {
    let mut add = Command::new("rustup");
    command::run(
        add.args(["target", "add", GUEST_TARGET])
            .env("RUSTUP_MAX_RETRIES", "0")
            .current_dir(dir),
    )
    .is_ok()
}

fn version(rustc: &Path, dir: &Path) -> anyhow::Result<String> {
    command::run(Command::new(rustc).arg("--version").current_dir(dir))
        .map(|text| text.trim().to_owned())
}

fn fetch(folder: &Path) -> anyhow::Result<String> {
    let apt = debian::Apt::open(folder, SUITE)?;
    let target_library = "libstd-rust-dev-wasm32";
    // The linker's package carries the LLVM version in its name, which moves with the suite.
    let recommended = apt.recommended(target_library)?;
    let Some(linker) = recommended.iter().find(|name| name.starts_with("lld-")) else {
        bail!("{target_library} of Debian {SUITE} recommends no linker");
    };
    let closure = apt.closure(&["rustc", target_library, linker])?;
    let packages: Vec<_> = closure
        .into_iter()
        .filter(|(name, _)| is_needed(name))
        .collect();
    let version = packages
        .iter()
        .find(|(name, _)| name == "rustc")
        .map(|(_, version)| version.clone());
    let root = folder.join("root");
    apt.unpack(&packages, &root)?;
    write_wrappers(&root, linker)?;
    version.with_context(|| format!("Debian {SUITE} has no rustc"))
}

fn is_needed(package: &str) -> bool {
    let development = package.ends_with("-dev") || package.ends_with("-dev-bin");
    let rust = package.starts_with("libstd-rust-");
    (rust || !development) && NEEDED.iter().any(|prefix| package.starts_with(prefix))
}

/// Shell scripts that find everything relative to themselves, since the folder is renamed into place.
fn write_wrappers(root: &Path, linker: &str) -> anyhow::Result<()> {
    let llvm = linker.replace("lld-", "llvm-");
    let wrappers = [
        (
            "rustc",
            r#""$R/usr/bin/rustc" --sysroot "$R/usr""#.to_owned(),
        ),
        ("rust-lld", format!(r#""$R/usr/lib/{llvm}/bin/lld""#)),
        (
            "wasm-ld",
            format!(r#""$R/usr/lib/{llvm}/bin/lld" -flavor wasm"#),
        ),
    ];
    let bin = root.join("bin");
    fs::create_dir(&bin)?;
    for (name, program) in wrappers {
        let script = format!(
            "#!/bin/sh\nR=$(CDPATH= cd -- \"$(dirname -- \"$0\")/..\" && pwd)\n\
             exec \"$R/usr/lib64/ld-linux-x86-64.so.2\" --library-path \"$R/usr/lib/x86_64-linux-gnu\" {program} \"$@\"\n"
        );
        fs::write(bin.join(name), script)?;
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}
