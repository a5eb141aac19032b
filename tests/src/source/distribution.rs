//! Where a server's program, libraries and messages are: on the machine, or unpacked in the cache.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::SourceKind;
use crate::{cache, command, debian};

/// The oldest MySQL taken as found: earlier ones lack `SHOW BINARY LOG STATUS` and tagged GTIDs.
const OLDEST_MYSQL: (u32, u32) = (8, 4);
const OLDEST_MARIADB: (u32, u32) = (10, 11);
/// Has VECTOR, and leaves generated columns out of row images.
const OLDEST_MARIADB11: (u32, u32) = (11, 8);

/// One usable server program.
#[derive(Clone, Debug)]
pub(super) struct Distribution {
    pub(super) kind: SourceKind,
    /// As `--version` says it; names the data folder in the cache.
    pub(super) version: String,
    /// The program, behind its own loader when it comes from the cache.
    program: Vec<String>,
    /// The folder that holds `share` and `lib`.
    base: PathBuf,
}

impl Distribution {
    /// A server on the machine when it is new enough, else the Debian package in the cache.
    pub(super) fn find(kind: SourceKind) -> Result<Self> {
        match Self::on_machine(kind) {
            Some(found) => Ok(found),
            None => Self::fetched(kind),
        }
    }

    fn on_machine(kind: SourceKind) -> Option<Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        let folders =
            env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
        folders
            .map(|folder| folder.join(program_name(kind)))
            .filter(|program| program.is_file())
            .find_map(|program| {
                let version = version_of(&[program.display().to_string()]).ok()?;
                // MariaDB packages install a `mysqld` as well.
                let same_kind = version.contains("MariaDB") == kind.is_mariadb();
                let oldest = match kind {
                    SourceKind::MySql => OLDEST_MYSQL,
                    SourceKind::MariaDb => OLDEST_MARIADB,
                    SourceKind::MariaDb11 => OLDEST_MARIADB11,
                };
                let base = fs::canonicalize(&program)
                    .ok()?
                    .parent()?
                    .parent()?
                    .to_owned();
                let program = vec![program.display().to_string()];
                (same_kind && major_minor(&version)? >= oldest).then_some(Self {
                    kind,
                    version,
                    program,
                    base,
                })
            })
    }

    fn fetched(kind: SourceKind) -> Result<Self> {
        let (item, package, suite, by_hand) = match kind {
            SourceKind::MySql => (
                "mysql-server-core",
                "mysql-server-core",
                "sid",
                "install MySQL 8.4 or later so that `mysqld` is on the PATH",
            ),
            SourceKind::MariaDb => (
                "mariadb-server-core",
                "mariadb-server-core",
                "bookworm",
                "install it by `sudo apt-get install mariadb-server-core`",
            ),
            SourceKind::MariaDb11 => (
                "mariadb-server-core-trixie",
                "mariadb-server-core",
                "trixie",
                "install MariaDB 11.8 or later so that `mariadbd` is on the PATH",
            ),
        };
        let item = cache::newest(item, |folder| {
            let apt = debian::Apt::open(folder, suite)?;
            let closure = apt.closure(&[package])?;
            let version = closure
                .iter()
                .find(|(name, _)| name == package)
                .map(|(_, version)| version.clone());
            apt.unpack(&closure, &folder.join("root"))?;
            version.with_context(|| format!("Debian {suite} has no {package}"))
        })
        .with_context(|| format!("cannot fetch {}; {by_hand}", kind.label()))?;
        let root = item.join("root");
        let mut program = debian::loader(&root)?;
        program.push(
            root.join("usr/sbin")
                .join(program_name(kind))
                .display()
                .to_string(),
        );
        let version = version_of(&program)?;
        Ok(Self {
            kind,
            version,
            program,
            base: root.join("usr"),
        })
    }

    /// Whether it comes from the cache.
    pub(super) fn is_fetched(&self) -> bool {
        self.program.len() > 1
    }

    /// The folder that holds `share` and `lib`.
    pub(super) fn base(&self) -> &Path {
        &self.base
    }

    /// The command line up to and including the data folder.
    pub(super) fn server_command(&self, data_dir: &Path) -> Vec<String> {
        let base = self.base.display();
        let mut line = self.program.clone();
        line.extend([
            // First by rule: the machine's own my.cnf must not reach in.
            "--no-defaults".to_owned(),
            format!("--basedir={base}"),
            format!("--lc-messages-dir={}", self.share().display()),
            format!(
                "--character-sets-dir={}",
                self.share().join("charsets").display()
            ),
            format!("--datadir={}", data_dir.display()),
        ]);
        // Both servers refuse to run as root unless told so.
        if fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0) {
            line.push("--user=root".to_owned());
        }
        match self.kind {
            SourceKind::MySql => line.extend([
                format!("--plugin-dir={base}/lib/mysql/plugin"),
                "--secure-file-priv=NULL".to_owned(),
                "--mysqlx=OFF".to_owned(),
                "--innodb-redo-log-capacity=128M".to_owned(),
            ]),
            SourceKind::MariaDb | SourceKind::MariaDb11 => line.extend([
                "--innodb-log-file-size=64M".to_owned(),
                "--plugin-maturity=stable".to_owned(),
            ]),
        }
        line
    }

    /// Messages, character sets and the scripts of the system tables.
    pub(super) fn share(&self) -> PathBuf {
        let places = ["share/mysql", "share/mariadb", "share"].map(|place| self.base.join(place));
        let found = places.iter().find(|place| place.join("charsets").is_dir());
        found.unwrap_or(&places[0]).clone()
    }
}

fn program_name(kind: SourceKind) -> &'static str {
    match kind {
        SourceKind::MySql => "mysqld",
        SourceKind::MariaDb | SourceKind::MariaDb11 => "mariadbd",
    }
}

/// The word behind `Ver` in `mysqld  Ver 9.7.4-2 for Linux on x86_64 (Debian)`.
fn version_of(program: &[String]) -> Result<String> {
    let text = command::run(
        Command::new(&program[0])
            .args(&program[1..])
            .args(["--no-defaults", "--version"]),
    )?;
    let mut words = text.split_whitespace().skip_while(|word| *word != "Ver");
    words
        .nth(1)
        .map(str::to_owned)
        .with_context(|| format!("no version in {text:?}"))
}

fn major_minor(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}
