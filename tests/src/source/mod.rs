//! MySQL and MariaDB servers for tests: started on a free port, stopped, killed and started again at the same address.
//!
//! Accounts: `root` without a password, and `pipewright` with the password `pipewright` and the rights that a
//! replication user needs, no more. Durability settings are the servers' own defaults.

mod distribution;
mod extras;
mod template;

use std::env;
use std::fs;
use std::io::Read;
use std::path::{self, Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::supervisor::Supervised;
use crate::{command, port};
use distribution::Distribution;
pub use extras::MariaDbExtras;

/// Recovery after SIGKILL of a large bench data folder takes longest.
const READY_TIMEOUT: Duration = Duration::from_secs(180);
const STOP_TIMEOUT: Duration = Duration::from_secs(120);

/// The kinds of servers: two families, and of MariaDB two generations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceKind {
    /// MySQL 8.4 or later.
    MySql,
    /// MariaDB 10.11 or later.
    MariaDb,
    /// MariaDB 11.8 or later, which has types and row images of its own.
    MariaDb11,
}

/// What to start.
#[derive(Clone, Debug)]
pub struct SourceOptions {
    /// The family of the server.
    pub kind: SourceKind,
    /// Server options (`--name=value`) behind the testbed's own, which they override.
    pub extra_args: Vec<String>,
    /// A folder of programs that the server may run, in front of those that it would find.
    pub programs: Option<PathBuf>,
    /// A fixed port; a free one otherwise.
    pub port: Option<u16>,
    /// A folder that outlives the server; it is initialised when absent or empty. Otherwise the data lives in a temporary folder.
    pub data_dir: Option<PathBuf>,
}

impl SourceOptions {
    /// A server with the testbed's own settings.
    pub fn new(kind: SourceKind) -> Self {
        Self {
            kind,
            extra_args: Vec::new(),
            programs: None,
            port: None,
            data_dir: None,
        }
    }

    /// Adds one server option.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.extra_args.push(argument.into());
        self
    }
}

/// A MySQL or MariaDB server of our own; dropping it kills it and removes its temporary folder.
#[derive(Debug)]
pub struct SourceServer {
    options: SourceOptions,
    distribution: Distribution,
    supervised: Supervised,
    data_dir: PathBuf,
    port: u16,
    version: Mutex<String>,
}

impl SourceServer {
    /// Finds or fetches the server, starts it and waits until it greets a client.
    pub fn start(options: SourceOptions) -> Result<Self> {
        let distribution = Distribution::find(options.kind)?;
        let template = template::data_folder(&distribution)?;
        let supervised = Supervised::new(options.kind.label())?;
        let data_dir = match &options.data_dir {
            Some(chosen) => path::absolute(chosen)?,
            None => supervised.folder().join("data"),
        };
        if !data_dir.exists() || fs::read_dir(&data_dir)?.next().is_none() {
            fs::create_dir_all(&data_dir)?;
            let mut copy = Command::new("cp");
            command::run(
                copy.args(["-a", "--reflink=auto"])
                    .arg(template.join("."))
                    .arg(&data_dir),
            )?;
        }
        let mut server = Self {
            options,
            distribution,
            supervised,
            data_dir,
            port: 0,
            version: Mutex::new(String::new()),
        };
        let fixed = server.options.port.map(|port| [port]);
        let start_on = |server: &mut Self, [port]: [u16; 1]| {
            server.port = port;
            server.start_again()
        };
        port::start_on(&mut server, fixed, start_on, Self::port_was_taken)
            .with_context(|| format!("cannot start {}", server.options.kind.label()))?;
        Ok(server)
    }

    /// The family of the server.
    pub fn kind(&self) -> SourceKind {
        self.options.kind
    }

    /// Always the loopback address.
    pub fn host(&self) -> &'static str {
        "127.0.0.1"
    }

    /// The TCP port, the same after every restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.supervised.folder().join("sock")
    }

    /// Address for `root`, who may do everything and has no password.
    pub fn root_url(&self) -> String {
        format!("mysql://root@127.0.0.1:{}", self.port)
    }

    /// Address for `pipewright`, who may read and replicate.
    pub fn replication_url(&self) -> String {
        format!("mysql://pipewright:pipewright@127.0.0.1:{}", self.port)
    }

    /// The version from the server's greeting, such as `9.7.4-2` or `10.11.18-MariaDB-...`.
    pub fn version(&self) -> String {
        self.version
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The data folder.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The error log since the first start.
    pub fn log(&self) -> String {
        self.supervised.log()
    }

    /// The server's process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.supervised.pid()
    }

    /// Shuts the server down in order; `start_again` brings it back.
    pub fn stop(&self) -> Result<()> {
        self.supervised.terminate(STOP_TIMEOUT)
    }

    /// SIGKILL; `start_again` brings the server back through its own recovery.
    pub fn kill(&self) -> Result<()> {
        self.supervised.kill()
    }

    /// Starts a stopped or killed server at its old address with its old data.
    pub fn start_again(&self) -> Result<()> {
        self.start_again_with(&[])
    }

    /// Like `start_again`, with server options behind the present ones, for this run only.
    pub fn start_again_with(&self, more_args: &[&str]) -> Result<()> {
        let mut line = Vec::new();
        if let Some(programs) = &self.options.programs {
            let path = env::var("PATH").unwrap_or_default();
            line.extend([
                "/usr/bin/env".to_owned(),
                format!("PATH={}:{path}", programs.display()),
            ]);
        }
        line.extend(self.distribution.server_command(&self.data_dir));
        line.extend(self.settings());
        line.extend(self.options.extra_args.iter().cloned());
        line.extend(more_args.iter().map(|argument| (*argument).to_owned()));
        self.supervised.start(&line)?;
        let version = self.wait_until_ready()?;
        *self.version.lock().unwrap_or_else(PoisonError::into_inner) = version;
        Ok(())
    }

    fn settings(&self) -> Vec<String> {
        let folder = self.supervised.folder().display();
        let port = self.port;
        let mut settings = vec![
            format!("--port={port}"),
            // Distinct among the servers of one machine, as topologies of several servers need.
            format!("--server-id={port}"),
            "--bind-address=127.0.0.1".to_owned(),
            "--skip-name-resolve".to_owned(),
            format!("--socket={folder}/sock"),
            format!("--pid-file={folder}/pid"),
            format!("--tmpdir={folder}"),
            "--log-bin=binlog".to_owned(),
            "--binlog-format=ROW".to_owned(),
            "--binlog-row-image=FULL".to_owned(),
            "--binlog-row-metadata=FULL".to_owned(),
            "--character-set-server=utf8mb4".to_owned(),
            "--max-connections=300".to_owned(),
            "--innodb-buffer-pool-size=256M".to_owned(),
        ];
        if self.options.kind == SourceKind::MySql {
            settings.extend(["--gtid-mode=ON", "--enforce-gtid-consistency=ON"].map(str::to_owned));
        }
        settings
    }

    fn port_was_taken(&self) -> bool {
        self.log().contains("Address already in use")
    }

    fn wait_until_ready(&self) -> Result<String> {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            self.supervised.ensure_running()?;
            match greeting(self.port) {
                Ok(version) => {
                    // A stranger on the port would greet as well, while our server ends for want of it.
                    self.supervised.ensure_running()?;
                    return Ok(version);
                }
                Err(error) if Instant::now() > deadline => {
                    let log = command::tail(&self.log());
                    return Err(error.context(format!(
                        "not ready after {READY_TIMEOUT:?}; the end of its log:\n{log}"
                    )));
                }
                Err(_) => thread::sleep(Duration::from_millis(50)),
            }
        }
    }
}

impl SourceKind {
    /// `mysql` or `mariadb`, as in the pipe file.
    pub fn name(self) -> &'static str {
        match self {
            Self::MySql => "mysql",
            Self::MariaDb | Self::MariaDb11 => "mariadb",
        }
    }

    /// Tells the generations apart, too.
    pub fn label(self) -> &'static str {
        match self {
            Self::MariaDb11 => "mariadb11",
            Self::MySql | Self::MariaDb => self.name(),
        }
    }

    /// Whether it is of MariaDB's family.
    pub fn is_mariadb(self) -> bool {
        self != Self::MySql
    }
}

/// Reads the server's first packet, which it sends only once it accepts clients: protocol 10, then its version.
fn greeting(port: u16) -> Result<String> {
    let mut stream = port::connect(port)?;
    let mut header = [0; 4];
    stream.read_exact(&mut header)?;
    let mut body = vec![0; usize::from(header[0]) | usize::from(header[1]) << 8];
    stream.read_exact(&mut body)?;
    match body.split_first() {
        Some((10, rest)) => {
            let end = rest
                .iter()
                .position(|byte| *byte == 0)
                .context("a greeting without a version")?;
            let version = String::from_utf8_lossy(&rest[..end]).into_owned();
            // MariaDB 10 hides behind a version that old replicas understand.
            Ok(version
                .strip_prefix("5.5.5-")
                .unwrap_or(&version)
                .to_owned())
        }
        _ => bail!(
            "the server refuses clients: {}",
            String::from_utf8_lossy(&body)
        ),
    }
}
