//! Compiled components on disk, so that a start costs milliseconds where a compilation costs seconds.
//!
//! Loading native code is as safe as the code is ours. A file is named by the component's digest and by the engine's
//! compatibility hash, and begins with a checksum of digest and code: what was cut short, damaged, left by another engine
//! or put under another name is not loaded but written anew. The folder must be writable by this process only, as the state beside it. What was not
//! loaded for longest goes when the folder passes its limit: former plugins, and code for engines before an upgrade.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

const CHECKSUM_BYTES: usize = 32;

/// Bytes of all files together: several of the largest plugins (an interpreter compiles to about 60 MB), hundreds of others.
const FOLDER_BYTES: u64 = 512 << 20;

pub(super) struct CompiledCache {
    folder: PathBuf,
    engine_hash: u64,
}

impl CompiledCache {
    pub(super) fn new(folder: PathBuf, engine: &Engine) -> Self {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Self {
            folder,
            engine_hash: hasher.finish(),
        }
    }

    /// The compiled component, if a sound one is here.
    pub(super) fn load(&self, engine: &Engine, digest: &str) -> Option<Component> {
        let path = self.path(digest);
        let bytes = std::fs::read(&path).ok()?;
        // Whether this succeeds decides no more than which file goes first.
        let _ = File::options()
            .append(true)
            .open(&path)
            .and_then(|file| file.set_modified(SystemTime::now()));
        let (checksum, code) = bytes.split_at_checked(CHECKSUM_BYTES)?;
        if checksum != checksum_of(digest, code) {
            return None;
        }
        #[expect(
            unsafe_code,
            reason = "the checksum proves that these are the bytes that `store` wrote for this engine"
        )]
        unsafe {
            Component::deserialize(engine, code).ok()
        }
    }

    /// Keeps a compiled component. A cache that cannot be written costs time, not correctness.
    pub(super) fn store(&self, digest: &str, component: &Component) {
        if let Err(error) = self.try_store(digest, component) {
            let folder = self.folder.display();
            tracing::warn!(%folder, %error, "a compiled plugin could not be kept; the next start compiles it again");
        }
    }

    fn try_store(&self, digest: &str, component: &Component) -> anyhow::Result<()> {
        let code = component.serialize()?;
        std::fs::create_dir_all(&self.folder)?;
        let mut file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .tempfile_in(&self.folder)?;
        file.write_all(&checksum_of(digest, &code))?;
        file.write_all(&code)?;
        file.persist(self.path(digest))?;
        prune(&self.folder, FOLDER_BYTES)
    }

    fn path(&self, digest: &str) -> PathBuf {
        Path::new(&self.folder).join(format!("{digest}-{:016x}.cwasm", self.engine_hash))
    }
}

/// Of the code and of what it was compiled from: code under another component's name is none of it.
fn checksum_of(digest: &str, code: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let both = Sha256::new().chain_update(digest).chain_update(code);
    both.finalize().into()
}

/// After this long a file that was to become one of ours was left by a process that was killed.
const LEFT_AFTER: Duration = Duration::from_hours(1);

/// What files that are being written are called by.
const UNFINISHED: &str = ".unfinished-";

/// Deletes the files that were not used for longest, until the rest stays within `limit`, and what killed processes left.
fn prune(folder: &Path, limit: u64) -> anyhow::Result<()> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        // Another process that shares the folder may have deleted it meanwhile.
        let Ok(about) = entry.metadata() else {
            continue;
        };
        let (path, modified) = (entry.path(), about.modified()?);
        let is_unfinished = entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(UNFINISHED.as_bytes());
        if is_unfinished && modified.elapsed().is_ok_and(|age| age > LEFT_AFTER) {
            delete(&path)?;
        } else if path
            .extension()
            .is_some_and(|extension| extension == "cwasm")
        {
            files.push((modified, about.len(), path));
        }
    }
    files.sort();
    let mut all: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
    // The newest stays: it was asked for just now.
    let oldest = files.split_last().map_or(&[][..], |(_, oldest)| oldest);
    for (_, bytes, path) in oldest {
        if all <= limit {
            break;
        }
        delete(path)?;
        all -= bytes;
    }
    Ok(())
}

/// Another process that shares the folder may have done so.
fn delete(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_was_not_used_for_longest_goes_first_and_other_files_stay() {
        let folder = tempfile::tempdir().unwrap();
        let others = ["notes", ".unfinished-b"];
        for (age, name) in ["new.cwasm", "old.cwasm", "oldest.cwasm"]
            .iter()
            .chain(&others)
            .enumerate()
        {
            let path = folder.path().join(name);
            std::fs::write(&path, [0; 10]).unwrap();
            let file = File::options().append(true).open(&path).unwrap();
            let age = Duration::from_secs(60 * age as u64);
            file.set_modified(SystemTime::now() - age).unwrap();
        }
        let here = || {
            let entries = std::fs::read_dir(folder.path()).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        prune(folder.path(), 20).unwrap();
        assert_eq!(here(), [".unfinished-b", "new.cwasm", "notes", "old.cwasm"]);
        prune(folder.path(), 1).unwrap();
        assert_eq!(here(), [".unfinished-b", "new.cwasm", "notes"]);
    }

    #[test]
    fn what_a_killed_process_was_writing_is_deleted_when_nobody_can_be_at_it() {
        let folder = tempfile::tempdir().unwrap();
        for (name, age) in [
            (".unfinished-a", 2 * LEFT_AFTER),
            (".unfinished-b", LEFT_AFTER / 2),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, "code").unwrap();
            let file = File::options().append(true).open(&path).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
        }
        prune(folder.path(), 1 << 20).unwrap();
        assert!(!folder.path().join(".unfinished-a").exists());
        assert!(folder.path().join(".unfinished-b").exists());
    }
}
