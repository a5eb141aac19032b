//! A state folder belongs to one process at a time.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};

/// How long a process that is just ending is waited for, or one that has been forked and has not begun its own program.
const PATIENCE: Duration = Duration::from_secs(1);

const POLL: Duration = Duration::from_millis(20);

/// Makes the folder when it is absent, and takes its lock, which is held for as long as the file is open.
///
/// # Errors
/// `Busy` when another process has it, `State` when it cannot be written.
pub(super) fn take(folder: &Path) -> Result<File> {
    let failed = |error: std::io::Error| {
        Error::new(ErrorKind::State, format!("cannot use the state folder `{}`", folder.display()))
            .with_hint("check that the folder exists or can be made, is writable, and that its disk is not full")
            .with_source(error)
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let lock = File::create(folder.join("lock")).map_err(failed)?;
    let until = Instant::now() + PATIENCE;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(POLL),
            Err(TryLockError::WouldBlock) => return Err(busy(folder)),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
}

fn busy(folder: &Path) -> Error {
    Error::new(
        ErrorKind::Busy,
        format!(
            "the state folder `{}` is in use by another process",
            folder.display()
        ),
    )
    .with_hint(
        "stop the other `pipewright run`, or give this one a folder of its own with `--state`",
    )
}
