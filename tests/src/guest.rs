//! A compiler for wasm32-unknown-unknown, in which plugins are written: rustup's, or Debian's in the cache.
//!
//! Debian's compiler is newer than the system it is run on here, so wrappers start it through its own loader. Its
//! libraries cannot be read by another compiler: guests need a target folder of their own.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{cache, command, debian};

/// The target that plugins are built for.
pub const GUEST_TARGET: &str = "wasm32-unknown-unknown";

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

/// How to call cargo so that it builds for [`GUEST_TARGET`].
#[derive(Clone, Debug)]
pub struct GuestToolchain {
    /// The compiler, when it is not the one that cargo finds itself.
    pub rustc: Option<PathBuf>,
    /// A folder to put in front of the PATH: it holds the linker.
    pub path_prefix: Option<PathBuf>,
    /// As `rustc --version` says.
    pub version: String,
}

impl GuestToolchain {
    /// Environment variables for cargo; none when the machine's own toolchain does.
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
}

/// The machine's compiler when it has the target or rustup can add it, else Debian's.
pub fn guest_toolchain() -> Result<GuestToolchain> {
    let only_cached = env::var(CHOICE_VARIABLE).is_ok_and(|choice| choice == "cached");
    if !only_cached && (has_target()? || (rustup_adds_target() && has_target()?)) {
        return Ok(GuestToolchain {
            rustc: None,
            path_prefix: None,
            version: version(Path::new("rustc"))?,
        });
    }
    let item = cache::newest("guest-rustc", fetch).with_context(|| {
        format!("no compiler for plugins; by hand: rustup target add {GUEST_TARGET}")
    })?;
    let bin = item.join("root/bin");
    let rustc = bin.join("rustc");
    Ok(GuestToolchain {
        version: version(&rustc)?,
        rustc: Some(rustc),
        path_prefix: Some(bin),
    })
}

fn has_target() -> Result<bool> {
    let sysroot = command::run(Command::new("rustc").args(["--print", "sysroot"]))?;
    Ok(Path::new(sysroot.trim())
        .join("lib/rustlib")
        .join(GUEST_TARGET)
        .join("lib")
        .is_dir())
}

/// Offline machines are common here: one try, no long retries.
fn rustup_adds_target() -> bool {
    let mut add = Command::new("rustup");
    command::run(
        add.args(["target", "add", GUEST_TARGET])
            .env("RUSTUP_MAX_RETRIES", "0"),
    )
    .is_ok()
}

fn version(rustc: &Path) -> Result<String> {
    command::run(Command::new(rustc).arg("--version")).map(|text| text.trim().to_owned())
}

fn fetch(folder: &Path) -> Result<String> {
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
fn write_wrappers(root: &Path, linker: &str) -> Result<()> {
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
