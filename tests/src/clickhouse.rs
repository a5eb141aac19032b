//! ClickHouse servers for tests: the `clickhouse` of the machine, or the engine as a library with a launcher around it.
//!
//! The library `libchdb` is the engine with its HTTP and native servers. Its entry point is that of `clickhouse local`:
//! a query opens the listeners, and a second one reads standard input for as long as that is open, which is what keeps
//! the process serving. Standard input is held open by the supervisor.

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::path::{self, Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::supervisor::{self, Supervised};
use crate::{cache, command, port};

const PACKAGE: &str = "@chdb/lib-linux-x64-gnu";
const PACKAGE_VERSION: &str = "26.7.3-stable.1";

const SERVE: &str = "SYSTEM START LISTEN HTTP; SYSTEM START LISTEN TCP; \
                     SELECT count() FROM file('-', LineAsString, 'line String')";

const READY_TIMEOUT: Duration = Duration::from_secs(120);
const STOP_TIMEOUT: Duration = Duration::from_secs(120);

/// What to start.
#[derive(Clone, Debug, Default)]
pub struct ClickHouseOptions {
    /// Fixed ports for HTTP and the native protocol; free ones otherwise.
    pub ports: Option<(u16, u16)>,
    /// A folder that outlives the server; otherwise the data lives in a temporary folder.
    pub data_dir: Option<PathBuf>,
    /// Adds the user `pipewright` with the password `pipewright`, beside `default` without one.
    pub password_user: bool,
}

/// A further user, who may be given other settings and passwords while the server is stopped: the engine as a library takes
/// no statement that makes users.
#[derive(Clone, Debug, Default)]
pub struct ClickHouseUser {
    /// The name.
    pub name: String,
    /// The password.
    pub password: String,
    /// Settings that the user's queries run with, each with its value.
    pub settings: Vec<(&'static str, &'static str)>,
    /// The grants, each a statement without the account; everything when empty.
    pub grants: Vec<&'static str>,
    /// What the account may do within an hour, by the names of ClickHouse's configuration.
    pub quota: Vec<(&'static str, &'static str)>,
}

/// A ClickHouse server of our own; dropping it kills it and removes its temporary folder.
#[derive(Debug)]
pub struct ClickHouseServer {
    options: ClickHouseOptions,
    engine: Engine,
    supervised: Supervised,
    data_dir: PathBuf,
    ports: (u16, u16),
    version: Mutex<String>,
    users: Mutex<Vec<ClickHouseUser>>,
    configuration: Mutex<String>,
}

#[derive(Debug)]
enum Engine {
    Binary(PathBuf),
    Library(PathBuf),
}

impl ClickHouseServer {
    /// Finds or fetches ClickHouse, starts it and waits until it answers queries.
    pub fn start(options: ClickHouseOptions) -> Result<Self> {
        let engine = Engine::find()?;
        let supervised = Supervised::new("clickhouse")?;
        let data_dir = match &options.data_dir {
            Some(chosen) => path::absolute(chosen)?,
            None => supervised.folder().join("data"),
        };
        fs::create_dir_all(&data_dir)?;
        let mut server = Self {
            options,
            engine,
            supervised,
            data_dir,
            ports: (0, 0),
            version: Mutex::new(String::new()),
            users: Mutex::default(),
            configuration: Mutex::default(),
        };
        let fixed = server.options.ports.map(<[u16; 2]>::from);
        let start_on = |server: &mut Self, ports: [u16; 2]| {
            // One that found another's port taken may still run.
            server.kill()?;
            server.ports = ports.into();
            server.start_again()
        };
        port::start_on(&mut server, fixed, start_on, Self::port_was_taken)
            .context("cannot start ClickHouse")?;
        Ok(server)
    }

    /// Always the loopback address.
    pub fn host(&self) -> &'static str {
        "127.0.0.1"
    }

    /// The port of the HTTP interface, the same after every restart.
    pub fn http_port(&self) -> u16 {
        self.ports.0
    }

    /// The port of the native protocol, the same after every restart.
    pub fn tcp_port(&self) -> u16 {
        self.ports.1
    }

    /// Address of the HTTP interface, for the user `default` without a password.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.0)
    }

    /// As `SELECT version()` answers.
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

    /// What the server has printed since the first start.
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

    /// SIGKILL; `start_again` brings the server back with what had reached the file system.
    pub fn kill(&self) -> Result<()> {
        self.supervised.kill()
    }

    /// Stops the server in order and starts it again with these users beside its own.
    pub fn start_again_with(&self, users: Vec<ClickHouseUser>) -> Result<()> {
        self.stop()?;
        *self.users.lock().unwrap_or_else(PoisonError::into_inner) = users;
        self.start_again()
    }

    /// Stops the server in order and starts it again with these elements beside its own configuration.
    pub fn start_again_configured(&self, elements: &str) -> Result<()> {
        self.stop()?;
        *self
            .configuration
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = elements.to_owned();
        self.start_again()
    }

    /// Starts a stopped or killed server at its old address with its old data.
    pub fn start_again(&self) -> Result<()> {
        let configuration = self.write_configuration()?.display().to_string();
        let line = match &self.engine {
            Engine::Binary(program) => {
                vec![
                    program.display().to_string(),
                    "server".to_owned(),
                    format!("--config-file={configuration}"),
                ]
            }
            Engine::Library(library) => {
                self.supervised.hold_stdin()?;
                let launcher = supervisor::program()?.display().to_string();
                let library = library.display().to_string();
                let arguments = [
                    "chdb",
                    &library,
                    "--config-file",
                    &configuration,
                    "--query",
                    SERVE,
                ];
                [&[launcher], &arguments.map(str::to_owned)[..]].concat()
            }
        };
        self.supervised.start(&line)?;
        self.wait_until_ready()
    }

    /// Runs one statement as `default` over HTTP and answers the text of its result, without its last line end.
    pub fn query(&self, sql: &str) -> Result<String> {
        let mut stream = port::connect(self.ports.0)?;
        stream.set_read_timeout(Some(READY_TIMEOUT))?;
        // HTTP/1.0: the answer is not chunked and ends with the connection.
        let head = format!(
            "POST / HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n\r\n",
            sql.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(sql.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .context("an answer that is not HTTP")?;
        match head.split(' ').nth(1) {
            Some("200") => Ok(body.trim_end_matches('\n').to_owned()),
            _ => bail!("ClickHouse refuses the query: {}", body.trim_end()),
        }
    }

    fn write_configuration(&self) -> Result<PathBuf> {
        let folder = self.supervised.folder();
        let data = self.data_dir.display();
        let (http_port, tcp_port) = self.ports;
        let users = folder.join("users.xml");
        let user = |name: &str, password: &str, of: &str, grants: &str| {
            format!(
                "<{name}><password>{password}</password><networks><ip>::/0</ip></networks>\
                 <profile>{of}</profile><quota>{of}</quota>{grants}</{name}>"
            )
        };
        let elements = |pairs: &[(&'static str, &'static str)]| -> String {
            let pairs = pairs.iter();
            pairs
                .map(|(key, value)| format!("<{key}>{value}</{key}>"))
                .collect()
        };
        let (mut profiles, mut quotas) = ("<default/>".to_owned(), "<default/>".to_owned());
        let mut listed = user("default", "", "default", "");
        if self.options.password_user {
            listed += &user("pipewright", "pipewright", "default", "");
        }
        let further = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        for ClickHouseUser {
            name,
            password,
            settings,
            grants,
            quota,
        } in further.iter()
        {
            profiles += &format!("<of_{name}>{}</of_{name}>", elements(settings));
            quotas += &format!(
                "<of_{name}><interval><duration>3600</duration>{}</interval></of_{name}>",
                elements(quota)
            );
            let queries = grants.iter().map(|grant| format!("<query>{grant}</query>"));
            let grants = match grants.is_empty() {
                true => String::new(),
                false => format!("<grants>{}</grants>", queries.collect::<String>()),
            };
            listed += &user(name, password, &format!("of_{name}"), &grants);
        }
        drop(further);
        fs::write(
            &users,
            format!(
                "<clickhouse><profiles>{profiles}</profiles><quotas>{quotas}</quotas>\
                 <users>{listed}</users></clickhouse>"
            ),
        )?;
        let further = self
            .configuration
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let configuration = folder.join("config.xml");
        let text = format!(
            "<clickhouse>\n<path>{data}/</path>\n<tmp_path>{data}/tmp/</tmp_path>\n\
             <user_files_path>{data}/user_files/</user_files_path>\n\
             <format_schema_path>{data}/format_schemas/</format_schema_path>\n\
             <users_config>{}</users_config>\n<listen_host>127.0.0.1</listen_host>\n\
             <http_port>{http_port}</http_port>\n<tcp_port>{tcp_port}</tcp_port>\n\
             <logger><level>warning</level><console>1</console></logger>\n{further}</clickhouse>\n",
            users.display()
        );
        fs::write(&configuration, text)?;
        Ok(configuration)
    }

    fn port_was_taken(&self) -> bool {
        self.log().contains("Address already in use")
    }

    fn wait_until_ready(&self) -> Result<()> {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            self.supervised.ensure_running()?;
            let answer = self.query("SELECT version()").and_then(|version| {
                port::connect(self.ports.1)?;
                // A stranger on the port would answer as well, while our server ends for want of it.
                self.supervised.ensure_running().map(|()| version)
            });
            match answer {
                Ok(version) => {
                    *self.version.lock().unwrap_or_else(PoisonError::into_inner) = version;
                    return Ok(());
                }
                Err(error) if Instant::now() > deadline || self.port_was_taken() => {
                    return Err(error.context(format!(
                        "not ready; the end of its log:\n{}",
                        command::tail(&self.log())
                    )));
                }
                Err(_) => thread::sleep(Duration::from_millis(50)),
            }
        }
    }
}

impl Engine {
    fn find() -> Result<Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        let on_path = env::split_paths(&path)
            .map(|folder| folder.join("clickhouse"))
            .find(|program| program.is_file());
        match on_path {
            Some(program) => Ok(Self::Binary(program)),
            None => Ok(Self::Library(library()?)),
        }
    }
}

/// The library from its package in the cache.
fn library() -> Result<PathBuf> {
    let package = format!("{PACKAGE}@{PACKAGE_VERSION}");
    let item = cache::exact("libchdb", PACKAGE_VERSION, |folder| {
        let scratch = folder.join("npm");
        // A cache of its own: the user's would keep 180 MB that are never asked for again.
        let npm_cache = scratch.join("cache");
        fs::create_dir_all(&npm_cache)?;
        command::download(&package, &npm_cache, || {
            let mut pack = Command::new("npm");
            pack.current_dir(&scratch).args(["pack", "--loglevel=error", "--cache"]).arg(&npm_cache).arg(&package);
            pack
        })?;
        let packed = fs::read_dir(&scratch)?.flatten().map(|entry| entry.path());
        let archive = packed.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "tgz"));
        let archive = archive.context("npm pack left no archive")?;
        command::run(Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(folder).arg("package/libchdb.so"))?;
        fs::remove_dir_all(&scratch)?;
        Ok(())
    })
    .with_context(|| format!("no `clickhouse` on the PATH and {package} cannot be fetched: put ClickHouse 26.7 on the PATH"))?;
    Ok(item.join("package/libchdb.so"))
}
