//! A pipe as a process of its own: started, watched over REST, killed, started again with the same state.

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::process::{self, Finished};
use super::surroundings::{Disk, Surroundings};
use crate::port;

/// Tells the hidden subcommand that its standard input is a lifeline: it ends when that closes.
pub const LIFELINE_VARIABLE: &str = "PIPEWRIGHT_TESTBED_LIFELINE";

const POLL_INTERVAL: Duration = Duration::from_millis(25);
const LOG_LINES_SHOWN: usize = 300;

/// How to start a pipe.
#[derive(Clone, Debug)]
pub struct Launch {
    program: PathBuf,
    file: String,
    name: String,
    arguments: Vec<String>,
    envs: Vec<(String, String)>,
    limited: bool,
    lockable: Option<(PathBuf, Lock)>,
    surrounded: bool,
}

/// How a folder becomes read-only under a process.
#[derive(Clone, Copy, Debug)]
enum Lock {
    /// It is a mount of the process's own, in namespaces that need no rights.
    Mount,
    /// By its mode, where no such namespaces are to be had. Whoever is root does without the capability to pass over it.
    Mode,
}

impl Lock {
    fn at_hand() -> Self {
        let unshared = Command::new("unshare")
            .args(["--map-root-user", "--mount", "true"])
            .stderr(Stdio::null())
            .status();
        match unshared {
            Ok(status) if status.success() => Self::Mount,
            _ => Self::Mode,
        }
    }

    /// What starts `program` so that [`Pipe::set_read_only`] has its effect.
    fn command(self, folder: &Path, program: &Path) -> Result<Command> {
        let is_root = fs::metadata("/proc/self")?.uid() == 0;
        Ok(match self {
            Self::Mount => {
                let mut unshare = Command::new("unshare");
                unshare.args(["--map-root-user", "--mount", "sh", "-c"]);
                unshare.arg("mount --bind \"$0\" \"$0\" && exec \"$@\"");
                unshare.arg(folder).arg(program);
                unshare
            }
            Self::Mode if is_root => {
                let mut setpriv = Command::new("setpriv");
                setpriv.arg("--bounding-set=-dac_override").arg(program);
                setpriv
            }
            Self::Mode => Command::new(program),
        })
    }

    fn set(self, folder: &Path, pid: u32, read_only: bool) -> Result<()> {
        let Self::Mount = self else {
            let mode = if read_only { 0o555 } else { 0o755 };
            return Ok(fs::set_permissions(folder, Permissions::from_mode(mode))?);
        };
        let how = if read_only { "ro" } else { "rw" };
        let output = Command::new("nsenter")
            .args(["--target", &pid.to_string(), "--user", "--mount"])
            .args(["mount", "-o", &format!("remount,bind,{how}")])
            .arg(folder)
            .output()
            .context("nsenter, of util-linux, is needed")?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "cannot mount `{}` {how}: {told}",
            folder.display()
        );
        Ok(())
    }
}

impl Launch {
    /// Runs this pipe file with the testbed's binary. JSON is YAML, so a value will do.
    pub fn new(program: &Path, file: &Value) -> Self {
        Self {
            program: program.to_owned(),
            file: format!("{file:#}"),
            name: file["pipe"].as_str().unwrap_or_default().to_owned(),
            arguments: Vec::new(),
            envs: Vec::new(),
            limited: false,
            lockable: None,
            surrounded: false,
        }
    }

    /// Lets [`Pipe::set_clock`] and [`Pipe::set_state_disk`] be used.
    #[must_use]
    pub fn with_surroundings(mut self) -> Self {
        self.surrounded = true;
        self
    }

    /// Lets [`Pipe::set_read_only`] be used on this folder.
    #[must_use]
    pub fn with_lockable(mut self, folder: &Path) -> Self {
        self.lockable = Some((folder.to_owned(), Lock::at_hand()));
        self
    }

    /// Lets [`Pipe::limit_files`] be used: a write beyond the limit is an error then, as on a full disk, and no signal.
    #[must_use]
    pub fn with_limited_files(mut self) -> Self {
        self.limited = true;
        self
    }

    /// Adds one argument to `run`.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Sets a variable of the process's environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.envs.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// The folder of a pipe, with its log; it outlives the pipe, so that a failed test can show it.
#[derive(Debug)]
pub struct PipeLog {
    folder: TempDir,
}

impl PipeLog {
    /// All that the pipe has printed, over all of its starts.
    pub fn text(&self) -> String {
        let text = fs::read(self.folder.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The last lines of it.
    pub fn tail(&self) -> String {
        let text = self.text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }
}

/// A pipe's process, present or past. Dropping it kills the process.
#[derive(Debug)]
pub struct Pipe {
    launch: Launch,
    log: Arc<PipeLog>,
    state: String,
    surroundings: Option<Surroundings>,
    port: u16,
    child: Option<Child>,
    client: reqwest::Client,
}

impl Pipe {
    /// Writes the pipe file into a folder of its own and starts the process.
    pub fn start(launch: Launch) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("pipewright-pipe-")
            .tempdir()?;
        let surroundings = match launch.surrounded {
            true => Some(Surroundings::new(folder.path())?),
            false => None,
        };
        let mut pipe = Self {
            launch,
            surroundings,
            log: Arc::new(PipeLog { folder }),
            state: "state".to_owned(),
            port: port::free_port()?,
            child: None,
            client: reqwest::Client::new(),
        };
        pipe.restart()?;
        Ok(pipe)
    }

    /// What the pipe prints.
    pub fn log(&self) -> Arc<PipeLog> {
        Arc::clone(&self.log)
    }

    /// The pipe file.
    pub fn path(&self) -> PathBuf {
        self.log.folder.path().join("pipe.yaml")
    }

    /// The state folder.
    pub fn state_dir(&self) -> PathBuf {
        self.log.folder.path().join(&self.state)
    }

    /// Another state folder, beside the first, for the next starts.
    pub fn use_state(&mut self, name: &str) {
        name.clone_into(&mut self.state);
    }

    /// Copies the state folder's files into the folder `name` beside it. The process must not run.
    pub fn copy_state(&self, name: &str) -> Result<PathBuf> {
        let copy = self.log.folder.path().join(name);
        fs::create_dir_all(&copy)?;
        for entry in fs::read_dir(self.state_dir())? {
            let path = entry?.path();
            if let (true, Some(file)) = (path.is_file(), path.file_name()) {
                fs::copy(&path, copy.join(file))?;
            }
        }
        Ok(copy)
    }

    /// Where REST answers.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Another pipe file for the next start.
    pub fn change_file(&mut self, file: &Value) {
        self.launch.file = format!("{file:#}");
    }

    /// Sets a variable of the environment for the next starts, or takes it away.
    pub fn change_env(&mut self, name: &str, value: Option<&str>) {
        self.launch.envs.retain(|(known, _)| known != name);
        if let Some(value) = value {
            self.launch.envs.push((name.to_owned(), value.to_owned()));
        }
    }

    /// Starts the process again with the same state folder.
    pub fn restart(&mut self) -> Result<()> {
        self.kill9()?;
        fs::write(self.path(), &self.launch.file)?;
        let mut log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log.folder.path().join("log"))?;
        writeln!(log, "--- start ---")?;
        let mut command = if self.launch.limited {
            let mut shell = Command::new("sh");
            shell.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]);
            shell.arg(&self.launch.program);
            shell
        } else if let Some((folder, lock)) = &self.launch.lockable {
            lock.command(folder, &self.launch.program)?
        } else {
            Command::new(&self.launch.program)
        };
        command
            .args(["pipewright", "run"])
            .arg(self.path())
            .arg("--state")
            .arg(self.state_dir());
        command
            .arg("--listen")
            .arg(format!("127.0.0.1:{}", self.port))
            .args(&self.launch.arguments);
        command
            .env(LIFELINE_VARIABLE, "1")
            .envs(self.launch.envs.iter().map(|(name, value)| (name, value)));
        if let Some(surroundings) = &self.surroundings {
            command.envs(surroundings.envs(&self.state_dir()));
        }
        command
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log);
        // Ctrl-C in a terminal is for whoever holds the pipe, who then drains it.
        command.process_group(0);
        self.child = Some(command.spawn().context("cannot start a pipe")?);
        Ok(())
    }

    /// From now on no file of the process may grow beyond `bytes`; none lifts the limit.
    pub fn limit_files(&self, bytes: Option<u64>) -> Result<()> {
        let pid = self.pid().context("the pipe does not run")?.to_string();
        let limit = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
        let status = Command::new("prlimit")
            .args(["--pid", &pid, &format!("--fsize={limit}:unlimited")])
            .status()
            .context("prlimit, of util-linux, is needed")?;
        if status.success() {
            Ok(())
        } else {
            bail!("cannot limit process {pid}")
        }
    }

    /// The folder of [`Launch::with_lockable`] is read-only for the running process, or writable again. Linux refuses it
    /// while a file in there is open for writing.
    pub fn set_read_only(&self, read_only: bool) -> Result<()> {
        let pid = self.pid().context("the pipe does not run")?;
        let (folder, lock) = self.launch.lockable.as_ref().context("no such folder")?;
        lock.set(folder, pid, read_only)
    }

    /// The wall clock of the process is off by so many seconds from now on, and after a restart as well.
    pub fn set_clock(&self, seconds: i64) -> Result<()> {
        self.surroundings()?.set_clock(seconds)
    }

    /// The disk of the state folder is like that from now on.
    pub fn set_state_disk(&self, disk: Disk) -> Result<()> {
        self.surroundings()?.set_disk(disk)
    }

    fn surroundings(&self) -> Result<&Surroundings> {
        let surroundings = self.surroundings.as_ref();
        surroundings.context("the pipe was started without surroundings")
    }

    /// SIGKILL; nothing of the process is left when this returns.
    pub fn kill9(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// SIGTERM, without waiting.
    pub fn terminate(&self) -> Result<()> {
        let pid = self.pid().context("the pipe does not run")?;
        // The standard library sends no signal but SIGKILL.
        let status = Command::new("sh")
            .args(["-c", "kill -TERM \"$0\"", &pid.to_string()])
            .status()?;
        if status.success() {
            Ok(())
        } else {
            bail!("cannot signal process {pid}")
        }
    }

    /// SIGTERM, and the exit code.
    pub async fn stop(&mut self) -> Result<i32> {
        self.terminate()?;
        self.wait_exit(Duration::from_secs(60)).await
    }

    /// Waits until the process ends by itself; its exit code.
    pub async fn wait_exit(&mut self, deadline: Duration) -> Result<i32> {
        let deadline = Instant::now() + deadline;
        loop {
            if let Some(code) = self.exited()? {
                self.child = None;
                return Ok(code);
            }
            if Instant::now() > deadline {
                bail!("the pipe's process has not ended in time");
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// The pipe's document.
    pub async fn status(&self) -> Result<Value> {
        self.get(&format!("/v1/pipes/{}", self.launch.name)).await
    }

    /// The JSON of a path that answers 200.
    pub async fn get(&self, path: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.get_text(path).await?)?)
    }

    /// The text of a path that answers 200.
    pub async fn get_text(&self, path: &str) -> Result<String> {
        let answer = self
            .client
            .get(self.url() + path)
            .timeout(Duration::from_secs(10))
            .send()
            .await?;
        let status = answer.status();
        let text = answer.text().await?;
        if status.is_success() {
            Ok(text)
        } else {
            bail!("{path} answers {status}: {text}")
        }
    }

    /// Gives a command over REST: the answer's status and document.
    pub async fn command(&self, command: &str) -> Result<(u16, Value)> {
        self.order(json!({ "command": command })).await
    }

    /// Gives a command with its arguments over REST: the answer's status and document.
    pub async fn order(&self, body: Value) -> Result<(u16, Value)> {
        self.ask(Method::PATCH, "/state", Some(body)).await
    }

    /// Asks for other tables or settings over REST: the answer's status and document.
    pub async fn change(&self, body: Value) -> Result<(u16, Value)> {
        self.ask(Method::PATCH, "", Some(body)).await
    }

    /// Drops the pipe over REST: the answer's status and document.
    pub async fn forget(&self) -> Result<(u16, Value)> {
        self.ask(Method::DELETE, "", None).await
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Result<(u16, Value)> {
        let path = format!("/v1/pipes/{}{path}", self.launch.name);
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        self.call(method, &path, body).await
    }

    /// Any request: the answer's status and document.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: impl Into<String>,
    ) -> Result<(u16, Value)> {
        let request = self.client.request(method, self.url() + path);
        let request = request
            .header("content-type", "application/json")
            .body(body.into());
        let answer = request.timeout(Duration::from_secs(90)).send().await?;
        let status = answer.status().as_u16();
        Ok((
            status,
            serde_json::from_str(&answer.text().await?).unwrap_or_default(),
        ))
    }

    /// Runs another command line of Pipewright, such as `status`, beside the process.
    pub async fn cli(&self, arguments: &[&str]) -> Result<Finished> {
        let arguments = [&["pipewright"], arguments].concat();
        process::run_to_end(
            &self.launch.program,
            arguments,
            &self.launch.envs,
            Duration::from_secs(60),
        )
        .await
    }

    /// Waits for a state of the lifecycle; a pipe that ends or fails instead is an error at once.
    pub async fn wait_state(&mut self, state: &str, deadline: Duration) -> Result<Value> {
        self.wait_for(state, deadline, |document| document["state"] == state)
            .await
    }

    /// Waits until the pipe's document is as wanted; a pipe that ends, or fails without that being wanted, is an error.
    pub async fn wait_for(
        &mut self,
        what: &str,
        deadline: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let until = Instant::now() + deadline;
        let mut newest = Value::Null;
        loop {
            if let Some(code) = self.exited()? {
                bail!(
                    "the pipe's process has ended with {code} while `{what}` was waited for; it printed:\n{}",
                    self.log.tail()
                );
            }
            if let Ok(document) = self.status().await {
                if wanted(&document) {
                    return Ok(document);
                }
                newest = document;
                if newest["state"] == "Failed" {
                    bail!("the pipe has failed while `{what}` was waited for: {newest:#}");
                }
            }
            if Instant::now() > until {
                bail!("no `{what}` within {deadline:?}; the newest document: {newest:#}");
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// The exit code, when the process has ended.
    pub fn exited(&mut self) -> Result<Option<i32>> {
        let child = self.child.as_mut().context("the pipe was not started")?;
        Ok(child.try_wait()?.map(process::code_of))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // A process that is gone already is what was wanted.
        self.kill9().ok();
    }
}
