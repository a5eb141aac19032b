//! What surrounds a pipe's process, as a test says: the wall clock that it reads, and the disk that its state is on.
//!
//! A library is preloaded (`native/surroundings.c`), which needs no rights and leaves every other process alone.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::native;

const SOURCE: &str = include_str!("../native/surroundings.c");

/// What becomes of writes to a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// They are done.
    Sound,
    /// They are refused as on one without room.
    Full,
    /// They are refused as on one that the kernel has made read-only because of an error.
    ReadOnly,
}

impl Disk {
    /// The error number of a write.
    fn error(self) -> i64 {
        match self {
            Self::Sound => 0,
            Self::Full => 28,
            Self::ReadOnly => 30,
        }
    }
}

/// The surroundings of one pipe's process.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    library: PathBuf,
    control: PathBuf,
}

impl Surroundings {
    /// Sound ones, controlled by a file in `folder`.
    pub(super) fn new(folder: &Path) -> Result<Self> {
        let options = ["-shared", "-fPIC"];
        let library = native::compiled("surroundings", SOURCE, &options)?;
        let control = folder.join("surroundings");
        fs::write(&control, [0; 16])?;
        Ok(Self { library, control })
    }

    /// The environment of a process that is in them; `disk` is the folder whose disk it is.
    pub(super) fn envs(&self, disk: &Path) -> [(&'static str, PathBuf); 3] {
        [
            ("LD_PRELOAD", self.library.clone()),
            ("PIPEWRIGHT_SURROUNDINGS", self.control.clone()),
            ("PIPEWRIGHT_DISK", disk.to_owned()),
        ]
    }

    /// The wall clock is off by so many seconds from now on.
    pub(super) fn set_clock(&self, seconds: i64) -> Result<()> {
        self.write(seconds, 0)
    }

    /// The disk is like that from now on.
    pub(super) fn set_disk(&self, disk: Disk) -> Result<()> {
        self.write(disk.error(), 8)
    }

    fn write(&self, value: i64, at: u64) -> Result<()> {
        let file = OpenOptions::new().write(true).open(&self.control)?;
        Ok(file.write_all_at(&value.to_ne_bytes(), at)?)
    }
}
