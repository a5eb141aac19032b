//! One server process and the folder it runs in, both gone as soon as this process is gone, even by SIGKILL.
//!
//! The work is done by a small C program (`native/supervisor.c`), compiled into the cache: it holds the other end of a
//! pipe, and the kernel closes ours however we end. It outlives stops and restarts of the server, so that the folder is
//! watched over in between as well.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::{command, native};

const SOURCE: &str = include_str!("native/supervisor.c");

/// Starting is a fork; the answer takes longer only when the machine is badly overloaded.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The compiled helper, which is also the ClickHouse launcher.
pub(crate) fn program() -> Result<PathBuf> {
    native::compiled("supervisor", SOURCE, &["-ldl"])
}

/// What the supervisor has said last about its server.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Idle,
    Running(u32),
    Exited(i32),
}

type Shared = Arc<(Mutex<State>, Condvar)>;

/// A supervised server process; dropping it kills the server and removes the run folder.
#[derive(Debug)]
pub(crate) struct Supervised {
    folder: PathBuf,
    child: Child,
    commands: Mutex<Option<ChildStdin>>,
    shared: Shared,
}

impl Supervised {
    /// Makes a run folder in the system's temporary folder and its supervisor; no server runs yet.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix(&format!("pipewright-{name}-"))
            .tempdir()?;
        let mut spawn = Command::new(program()?);
        spawn.arg("supervise").arg(folder.path());
        let mut child = spawn
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let (Some(commands), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("the supervisor has no pipes");
        };
        let shared = Shared::new((Mutex::new(State::Idle), Condvar::new()));
        let listener = Arc::clone(&shared);
        thread::spawn(move || listen(answers, &listener));
        Ok(Self {
            folder: folder.keep(),
            child,
            commands: Mutex::new(Some(commands)),
            shared,
        })
    }

    /// Holds the log, the socket and, unless chosen elsewhere, the data.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes the server's standard input a pipe that stays open until it is told to terminate.
    pub(crate) fn hold_stdin(&self) -> Result<()> {
        Ok(fs::write(self.folder.join("hold-stdin"), "")?)
    }

    /// Starts the server with this command line.
    pub(crate) fn start<S: AsRef<OsStr>>(&self, command: &[S]) -> Result<()> {
        let mut line = Vec::new();
        for argument in command {
            line.extend_from_slice(argument.as_ref().as_bytes());
            line.push(0);
        }
        fs::write(self.folder.join("command"), line)?;
        {
            let mut state = self.state();
            if let State::Running(pid) = *state {
                bail!("the server already runs as process {pid}");
            }
            *state = State::Idle;
        }
        self.send(b"s")?;
        match self.wait_until(ANSWER_TIMEOUT, |state| state != State::Idle)? {
            State::Idle | State::Running(_) => Ok(()),
            State::Exited(status) => Err(self.ended(status)),
        }
    }

    /// The server's process id while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        match *self.state() {
            State::Running(pid) => Some(pid),
            State::Idle | State::Exited(_) => None,
        }
    }

    /// An error with the end of the log once the server has ended.
    pub(crate) fn ensure_running(&self) -> Result<()> {
        match *self.state() {
            State::Running(_) => Ok(()),
            State::Idle => bail!("the server was never started"),
            State::Exited(status) => Err(self.ended(status)),
        }
    }

    /// Asks the server to end, and kills it when it has not within the time, which is an error: what it then leaves is not
    /// what a server leaves that was stopped.
    pub(crate) fn terminate(&self, timeout: Duration) -> Result<()> {
        if self.pid().is_none() {
            return Ok(());
        }
        self.send(b"t")?;
        let ended = |state| !matches!(state, State::Running(_));
        if self.wait_until(timeout, ended).is_err() {
            self.kill()?;
            bail!("the server did not end within {timeout:?} and was killed");
        }
        Ok(())
    }

    /// SIGKILL to the server and whatever it started; returns when it is gone.
    pub(crate) fn kill(&self) -> Result<()> {
        if self.pid().is_none() {
            return Ok(());
        }
        self.send(b"k")?;
        self.wait_until(ANSWER_TIMEOUT, |state| !matches!(state, State::Running(_)))
            .map(drop)
    }

    /// All that the server has written to its standard output and error.
    pub(crate) fn log(&self) -> String {
        fs::read(self.folder.join("log"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    fn ended(&self, status: i32) -> anyhow::Error {
        anyhow!(
            "the server ended (wait status {status}); the end of its log:\n{}",
            command::tail(&self.log())
        )
    }

    fn send(&self, letter: &[u8]) -> Result<()> {
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        let pipe = commands.as_mut().context("the supervisor is gone")?;
        pipe.write_all(letter).context("the supervisor is gone")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_until(&self, timeout: Duration, done: impl Fn(State) -> bool) -> Result<State> {
        let deadline = Instant::now() + timeout;
        let mut state = self.state();
        while !done(*state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!(
                    "no answer from the supervisor of {} in {} s",
                    self.folder.display(),
                    timeout.as_secs()
                );
            }
            state = self
                .shared
                .1
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        Ok(*state)
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        // End of input is the order to kill and to remove the folder; waiting makes the removal visible to the caller.
        self.commands
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let _ = self.child.wait();
    }
}

fn listen(answers: ChildStdout, shared: &Shared) {
    let set = |state| {
        *shared.0.lock().unwrap_or_else(PoisonError::into_inner) = state;
        shared.1.notify_all();
    };
    for line in BufReader::new(answers).lines().map_while(Result::ok) {
        match line.split_once(' ') {
            Some(("started", pid)) => set(State::Running(pid.parse().unwrap_or_default())),
            Some(("exited", status)) => set(State::Exited(status.parse().unwrap_or(-1))),
            _ => {}
        }
    }
    set(State::Exited(-1));
}
