//! Initialised data folders: making one takes seconds, copying one does not, so each is made once and kept in the cache.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::SourceKind;
use super::distribution::Distribution;
use crate::{cache, command};

const ACCOUNTS: &str = "\
CREATE USER IF NOT EXISTS root@localhost;
CREATE USER IF NOT EXISTS root@'127.0.0.1';
GRANT ALL ON *.* TO root@localhost WITH GRANT OPTION;
GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;
CREATE USER pipewright@'%' IDENTIFIED BY 'pipewright';
";

/// XA RECOVER needs a right of its own on MySQL only; MariaDB names the old REPLICATION CLIENT anew.
const MYSQL_RIGHTS: &str = "\
GRANT SELECT, REPLICATION SLAVE, REPLICATION CLIENT, XA_RECOVER_ADMIN ON *.* TO pipewright@'%';
";
const MARIADB_RIGHTS: &str = "\
GRANT SELECT, REPLICATION SLAVE, BINLOG MONITOR, SLAVE MONITOR ON *.* TO pipewright@'%';
";

/// The scripts of the system tables, by the names of MariaDB 10 and 11, in the order of `mariadb-install-db`.
const MARIADB_SCRIPTS: [&[&str]; 6] = [
    &["mariadb_system_tables.sql", "mysql_system_tables.sql"],
    &[
        "mariadb_performance_tables.sql",
        "mysql_performance_tables.sql",
    ],
    &[
        "mariadb_system_tables_data.sql",
        "mysql_system_tables_data.sql",
    ],
    &["fill_help_tables.sql"],
    &["maria_add_gis_sp_bootstrap.sql"],
    &["mariadb_sys_schema.sql", "mysql_sys_schema.sql"],
];

/// The cached data folder for this server, never to be started itself.
pub(super) fn data_folder(distribution: &Distribution) -> Result<PathBuf> {
    let name = format!("{}-data", distribution.kind.label());
    let item = cache::exact(&name, &version_key(distribution), |folder| {
        let data_dir = folder.join("data");
        fs::create_dir(&data_dir)?;
        let mut line = distribution.server_command(&data_dir);
        line.push(format!("--tmpdir={}", folder.display()));
        match distribution.kind {
            SourceKind::MySql => initialise_mysql(&line, folder)?,
            SourceKind::MariaDb | SourceKind::MariaDb11 => {
                initialise_mariadb(&line, folder, &distribution.share())?;
            }
        }
        Ok(())
    })?;
    Ok(item.join("data"))
}

/// Other accounts or other settings of the first start make another data folder.
fn version_key(distribution: &Distribution) -> String {
    let mut hasher = DefaultHasher::new();
    (
        ACCOUNTS,
        MYSQL_RIGHTS,
        MARIADB_RIGHTS,
        distribution.server_command(Path::new("")),
    )
        .hash(&mut hasher);
    format!(
        "{}-{:08x}",
        distribution.version,
        hasher.finish() & 0xffff_ffff
    )
}

fn initialise_mysql(line: &[String], folder: &Path) -> Result<()> {
    let accounts = folder.join("accounts.sql");
    fs::write(&accounts, format!("{ACCOUNTS}{MYSQL_RIGHTS}"))?;
    let mut initialise = Command::new(&line[0]);
    initialise
        .args(&line[1..])
        .args(["--initialize-insecure", "--skip-log-bin"]);
    initialise.arg(format!("--init-file={}", accounts.display()));
    command::run(&mut initialise)?;
    // It holds the server's UUID; two servers with one UUID could not be told apart by their GTIDs.
    let identity = folder.join("data/auto.cnf");
    fs::remove_file(&identity).with_context(|| format!("cannot remove {}", identity.display()))
}

fn initialise_mariadb(line: &[String], folder: &Path, share: &Path) -> Result<()> {
    // The bootstrap reader takes one statement a line unless the scripts change the delimiter.
    let mut script = "create database mysql;\nuse mysql;\nset @auth_root_socket=NULL;\n".to_owned();
    for names in MARIADB_SCRIPTS {
        let found = names
            .iter()
            .map(|name| share.join(name))
            .find(|path| path.exists());
        let path = found.with_context(|| format!("no {} in {}", names[0], share.display()))?;
        script.push_str(&fs::read_to_string(path)?);
        script.push('\n');
    }
    script.push_str("use mysql;\nflush privileges;\n");
    script.push_str(&format!("{ACCOUNTS}{MARIADB_RIGHTS}"));
    let (path, log) = (folder.join("bootstrap.sql"), folder.join("bootstrap.log"));
    fs::write(&path, script)?;
    let mut bootstrap = Command::new(&line[0]);
    bootstrap
        .args(&line[1..])
        .args(["--bootstrap", "--skip-log-bin", "--enforce-storage-engine="]);
    let output = File::create(&log)?;
    bootstrap
        .stdin(File::open(&path)?)
        .stdout(Stdio::null())
        .stderr(output);
    let status = bootstrap
        .status()
        .with_context(|| format!("cannot run {}", line[0]))?;
    if !status.success() {
        let text = fs::read_to_string(&log)?;
        bail!(
            "`{} < {}` failed:\n{}",
            command::command_line(&bootstrap),
            path.display(),
            command::tail(&text)
        );
    }
    Ok(())
}
