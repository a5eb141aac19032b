//! Compiled components on disk, so that a start costs milliseconds where a compilation costs seconds.
//!
//! Loading native code is as safe as the code is ours. A file is named by the component's digest and by the engine's
//! compatibility hash, and begins with a checksum of the rest: what was cut short, damaged or left by another engine is
//! not loaded but written anew. The folder must be writable by this process only, as the state beside it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

const CHECKSUM_BYTES: usize = 32;

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
        let bytes = std::fs::read(self.path(digest)).ok()?;
        let (checksum, code) = bytes.split_at_checked(CHECKSUM_BYTES)?;
        if checksum != Sha256::digest(code).as_slice() {
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
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(&Sha256::digest(&code))?;
        file.write_all(&code)?;
        file.persist(self.path(digest))?;
        Ok(())
    }

    fn path(&self, digest: &str) -> PathBuf {
        Path::new(&self.folder).join(format!("{digest}-{:016x}.cwasm", self.engine_hash))
    }
}
