//! Running helper programs: captured output, errors that repeat the command line, downloads that say how far they are.

use std::fs;
use std::io::{IsTerminal, Read, Seek, Write, stderr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

const DOWNLOAD_TRIES: u32 = 3;
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);
/// A log keeps every line.
const PROGRESS_INTERVAL_OF_A_LOG: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// For all tries of one thing. The largest is some 200 MB, which a slow mirror takes minutes for.
const DOWNLOAD_DEADLINE: Duration = Duration::from_secs(20 * 60);
const ERROR_LINES_SHOWN: usize = 20;

/// Runs to the end and answers standard output; failure repeats the command line and the last lines of its errors.
pub fn run(command: &mut Command) -> Result<String> {
    let line = command_line(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run `{line}`"))?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        bail!(
            "`{line}` failed ({}):\n{}",
            output.status,
            tail(&String::from_utf8_lossy(&text))
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command that fetches into `folder`, three times at most and until a deadline, with the megabytes so far on
/// standard error.
pub fn download(what: &str, folder: &Path, command: impl Fn() -> Command) -> Result<()> {
    download_until(what, folder, command, Instant::now() + DOWNLOAD_DEADLINE)
}

fn download_until(
    what: &str,
    folder: &Path,
    command: impl Fn() -> Command,
    deadline: Instant,
) -> Result<()> {
    let started = Instant::now();
    for attempt in 1.. {
        match watch_download(what, folder, command(), deadline) {
            Ok(()) => break,
            Err(error) if attempt == DOWNLOAD_TRIES || Instant::now() >= deadline => {
                return Err(error.context(format!(
                    "cannot download {what} (try {attempt} of {DOWNLOAD_TRIES})"
                )));
            }
            Err(error) => {
                say(
                    &format!("{what}: try {attempt} failed, again: {error:#}"),
                    true,
                );
                thread::sleep(Duration::from_secs(2 * u64::from(attempt)));
            }
        }
    }
    let seconds = started.elapsed().as_secs_f32();
    say(
        &format!(
            "downloaded {what}: {} MB in {seconds:.1} s",
            megabytes(folder)
        ),
        true,
    );
    Ok(())
}

/// One try: what the client prints is kept for its error, and it is ended at the deadline.
fn watch_download(
    what: &str,
    folder: &Path,
    mut command: Command,
    deadline: Instant,
) -> Result<()> {
    say(&format!("downloading {what}"), false);
    let line = command_line(&command);
    let mut printed = tempfile::tempfile()?;
    let mut client = command
        .stdin(Stdio::null())
        .stdout(printed.try_clone()?)
        .stderr(printed.try_clone()?)
        .spawn()
        .with_context(|| format!("cannot run `{line}`"))?;
    let interval = if stderr().is_terminal() {
        PROGRESS_INTERVAL
    } else {
        PROGRESS_INTERVAL_OF_A_LOG
    };
    let mut said = Instant::now();
    let status = loop {
        if let Some(status) = client.try_wait()? {
            break status;
        }
        if Instant::now() >= deadline {
            client.kill().ok();
            client.wait().ok();
            bail!(
                "`{line}` was ended: downloads have {} minutes",
                DOWNLOAD_DEADLINE.as_secs() / 60
            );
        }
        if said.elapsed() >= interval {
            said = Instant::now();
            say(
                &format!("downloading {what}: {} MB", megabytes(folder)),
                false,
            );
        }
        thread::sleep(POLL_INTERVAL);
    };
    if status.success() {
        return Ok(());
    }
    let mut text = Vec::new();
    printed.rewind()?;
    printed.read_to_end(&mut text)?;
    bail!(
        "`{line}` failed ({status}):\n{}",
        tail(&String::from_utf8_lossy(&text))
    )
}

/// On a terminal an unfinished line is written over by the next one; in a log every line stays.
fn say(text: &str, finished: bool) {
    let mut stream = stderr().lock();
    // Progress is a courtesy: a closed standard error must not fail a download.
    let _ = match (stream.is_terminal(), finished) {
        (true, false) => write!(stream, "\r\x1b[K{text}"),
        (true, true) => writeln!(stream, "\r\x1b[K{text}"),
        (false, _) => writeln!(stream, "{text}"),
    };
    let _ = stream.flush();
}

fn megabytes(folder: &Path) -> u64 {
    fn bytes(folder: &Path) -> u64 {
        let Ok(entries) = fs::read_dir(folder) else {
            return 0;
        };
        entries
            .flatten()
            .map(|entry| match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => bytes(&entry.path()),
                Ok(metadata) => metadata.len(),
                Err(_) => 0,
            })
            .sum()
    }
    bytes(folder) / 1_000_000
}

/// The command as a person would type it.
pub fn command_line(command: &Command) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/-_.=@:+,".contains(letter);
    let quote = |word: &str| {
        if word.chars().all(is_plain) {
            word.to_owned()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    };
    let mut words = vec![quote(&command.get_program().to_string_lossy())];
    words.extend(
        command
            .get_args()
            .map(|argument| quote(&argument.to_string_lossy())),
    );
    let line = words.join(" ");
    match command.get_current_dir() {
        Some(folder) => format!("cd {} && {line}", quote(&folder.to_string_lossy())),
        None => line,
    }
}

/// The last lines of a text, for an error message.
pub fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(ERROR_LINES_SHOWN)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]);
        shell
    }

    #[test]
    fn a_client_that_hangs_is_ended_at_the_deadline() {
        let folder = tempfile::tempdir().expect("a folder");
        let deadline = Instant::now() + Duration::from_millis(300);
        let started = Instant::now();
        let error = download_until(
            "nothing",
            folder.path(),
            || shell("exec sleep 600"),
            deadline,
        )
        .expect_err("it sleeps");
        assert!(format!("{error:#}").contains("was ended"), "{error:#}");
        assert!(started.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn a_failed_try_is_repeated_and_what_was_printed_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let mark = folder.path().join("tried").display().to_string();
        let second =
            format!("test -e '{mark}' && exit 0; touch '{mark}'; echo no route >&2; exit 7");
        let deadline = Instant::now() + Duration::from_secs(60);
        download_until("a thing", folder.path(), || shell(&second), deadline)
            .expect("the second try");
        let error = watch_download(
            "a thing",
            folder.path(),
            shell("echo no route; exit 7"),
            deadline,
        )
        .expect_err("it fails");
        assert!(error.to_string().contains("no route"), "{error}");
    }
}
