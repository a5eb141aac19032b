//! Processes of ours: run to their end with what they print, or measured while they run.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::process::Command;

/// The kernel counts processor time in these, on every Linux that this runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Its exit code; 128 and the signal's number when a signal ended it.
    pub code: i32,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

/// Runs a program until it ends; one that is still there at the deadline is killed, which is an error.
pub async fn run_to_end<S: AsRef<OsStr>>(
    program: &Path,
    arguments: impl IntoIterator<Item = S>,
    envs: &[(String, String)],
    deadline: Duration,
) -> Result<Finished> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .envs(envs.iter().map(|(name, value)| (name, value)));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let line = format!("{:?}", command.as_std());
    let child = command
        .spawn()
        .with_context(|| format!("cannot run {line}"))?;
    let output = tokio::time::timeout(deadline, child.wait_with_output())
        .await
        .with_context(|| format!("{line} has not ended within {deadline:?}"))??;
    Ok(Finished {
        code: code_of(output.status),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Processor seconds and the peak of resident memory in bytes of a running process.
pub fn usage_of(pid: u32) -> Result<(f64, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The program's name, in parentheses, may hold spaces: fields are counted behind it.
    let (_, fields) = stat
        .rsplit_once(')')
        .context("a process status without a name")?;
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .context("a process without memory")?;
    let kilobytes: u64 = peak.trim().trim_end_matches(" kB").parse()?;
    Ok((ticks as f64 / TICKS_PER_SECOND, kilobytes * 1024))
}

pub(super) fn code_of(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}
