//! Running helper programs: captured output, errors that repeat the command line, downloads that say how far they are.

use std::fs;
use std::io::{IsTerminal, Write, stderr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

const DOWNLOAD_TRIES: u32 = 3;
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);
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

/// Runs a command that fetches into `folder`, three times at most, with the megabytes so far on standard error.
pub fn download(what: &str, folder: &Path, command: impl Fn() -> Command) -> Result<()> {
    let started = Instant::now();
    for attempt in 1.. {
        match watch_download(what, folder, command()) {
            Ok(()) => break,
            Err(error) if attempt == DOWNLOAD_TRIES => {
                return Err(
                    error.context(format!("cannot download {what} ({DOWNLOAD_TRIES} tries)"))
                );
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

fn watch_download(what: &str, folder: &Path, mut command: Command) -> Result<()> {
    say(&format!("downloading {what}"), false);
    let (sender, receiver) = channel();
    let runner = thread::spawn(move || {
        let result = run(&mut command);
        // The receiver waits until this arrives, so a failed send cannot happen.
        let _ = sender.send(());
        result
    });
    while let Err(RecvTimeoutError::Timeout) = receiver.recv_timeout(PROGRESS_INTERVAL) {
        say(
            &format!("downloading {what}: {} MB", megabytes(folder)),
            false,
        );
    }
    match runner.join() {
        Ok(result) => result.map(drop),
        Err(_) => bail!("the thread that downloads {what} panicked"),
    }
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
