//! The engine that all plugins of the process share: compiler settings, the clock of time limits, compiled code, pools.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::component::Component;

use super::cache::CompiledCache;
use super::component;
use super::instance::{Instance, Plugin, hex};
use super::limits::{EPOCH_TICK, IDLE_BYTES, Lookup, Lookups};
use super::pool::Pool;
use crate::config::TransformConfig;
use crate::error::{Error, ErrorKind, Result};

/// A component's code, once it is compiled.
type Code = Mutex<Option<Component>>;

/// Pieces of code that are kept for whoever asks next: more than the plugins of one process. Those in use stay in any case.
const CODES_KEPT: usize = 32;

/// The plugin engine: one for each process, whatever the number of pipes.
pub struct Engine {
    wasmtime: wasmtime::Engine,
    cache: Option<CompiledCache>,
    /// By digest, the one asked for last at the end. Several pipes, and several configurations of one plugin, share one
    /// piece of code.
    compiled: Mutex<VecDeque<(String, Arc<Code>)>>,
    pub(super) pool: Pool<Instance>,
    /// Of this machine, asked for once: the answer is read from files of the control group.
    pub(super) cores: usize,
    calls: Arc<Semaphore>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine that keeps compiled plugins in `cache_dir`, or only in memory.
    pub fn new(cache_dir: Option<PathBuf>) -> Result<Arc<Self>> {
        let mut config = wasmtime::Config::new();
        config.epoch_interruption(true);
        config.cranelift_opt_level(wasmtime::OptLevel::Speed);
        // The same answer on every machine: the image before a change is made again there.
        config.relaxed_simd_deterministic(true);
        config.cranelift_nan_canonicalization(true);
        let wasmtime = wasmtime::Engine::new(&config).map_err(|error| {
            Error::new(ErrorKind::Internal, "the plugin engine does not start").with_source(error)
        })?;
        start_clock(&wasmtime)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Arc::new(Self {
            cache: cache_dir.map(|folder| CompiledCache::new(folder, &wasmtime)),
            compiled: Mutex::default(),
            wasmtime,
            pool: Pool::new(2 * cores, IDLE_BYTES),
            cores,
            calls: Arc::new(Semaphore::new(2 * cores)),
        }))
    }

    /// Reads, compiles and configures the plugin that the pipe file calls `name`.
    ///
    /// # Errors
    /// [`ErrorKind::PluginRefused`] when the file is no plugin for this host or refuses its configuration, and the kinds
    /// of a trap or an exceeded limit.
    pub async fn load(
        self: &Arc<Self>,
        name: &str,
        config: &TransformConfig,
    ) -> Result<Arc<Plugin>> {
        let bytes = component::read(name, &config.plugin).await?;
        let mut lookups = BTreeMap::new();
        for (lookup, path) in &config.lookups {
            let bytes = component::read_lookup(name, lookup, path).await?;
            lookups.insert(lookup.clone(), bytes);
        }
        self.restore(name, config.clone(), bytes, lookups).await
    }

    /// The same of bytes that were read before, whatever has become of the files that `config` names.
    ///
    /// # Errors
    /// As [`Engine::load`].
    pub async fn restore(
        self: &Arc<Self>,
        name: &str,
        config: TransformConfig,
        component: Vec<u8>,
        lookups: BTreeMap<String, Vec<u8>>,
    ) -> Result<Arc<Plugin>> {
        let engine = Arc::clone(self);
        let name = name.to_owned();
        blocking(move || {
            let digested = lookups.into_iter().map(|(lookup, bytes)| {
                let digest = hex(&Sha256::digest(&bytes));
                (lookup, Lookup { digest, bytes })
            });
            let lookups: Lookups = digested.collect();
            Plugin::load(engine, name, component, lookups, config).map(Arc::new)
        })
        .await
    }

    pub(super) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.wasmtime
    }

    /// The code of the component with that digest: from memory, from disk, or compiled now.
    pub(super) fn compile(&self, digest: &str, bytes: &[u8]) -> wasmtime::Result<Component> {
        let code = self.place_of(digest);
        // Held while compiling, so that two pipes with one plugin do not compile it twice; other plugins have their own.
        let mut code = code.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(component) = &*code {
            return Ok(component.clone());
        }
        let cached = self
            .cache
            .as_ref()
            .and_then(|cache| cache.load(&self.wasmtime, digest));
        let component = match cached {
            Some(component) => component,
            None => {
                component::ensure_compiles_soon(bytes).map_err(wasmtime::Error::msg)?;
                let component = Component::from_binary(&self.wasmtime, bytes)?;
                if let Some(cache) = &self.cache {
                    cache.store(digest, &component);
                }
                component
            }
        };
        *code = Some(component.clone());
        Ok(component)
    }

    fn place_of(&self, digest: &str) -> Arc<Code> {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        let known = compiled.iter().position(|(known, _)| known == digest);
        let entry = match known.and_then(|place| compiled.remove(place)) {
            Some(entry) => entry,
            None => (digest.to_owned(), Arc::default()),
        };
        let code = Arc::clone(&entry.1);
        compiled.push_back(entry);
        if compiled.len() > CODES_KEPT {
            compiled.pop_front();
        }
        code
    }

    /// Waits for a place among the calls that run at once, over all plugins: cores, not batches, bound the memory in use.
    pub(super) async fn permit(&self) -> Result<OwnedSemaphorePermit> {
        Arc::clone(&self.calls)
            .acquire_owned()
            .await
            .map_err(|_| Error::new(ErrorKind::Stopped, "the plugin engine is closed"))
    }
}

/// Runs guest code or a compilation where it blocks no other task.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        Error::new(ErrorKind::Internal, "a plugin call panicked").with_source(error)
    })?
}

/// Advances the epoch for as long as the engine lives.
fn start_clock(engine: &wasmtime::Engine) -> Result<()> {
    let engine = engine.weak();
    let tick: Duration = EPOCH_TICK;
    std::thread::Builder::new()
        .name("plugin-clock".to_owned())
        .spawn(move || {
            while let Some(engine) = engine.upgrade() {
                engine.increment_epoch();
                drop(engine);
                std::thread::sleep(tick);
            }
        })
        .map(drop)
        .map_err(|error| {
            Error::new(ErrorKind::Internal, "the plugin clock does not start").with_source(error)
        })
}
