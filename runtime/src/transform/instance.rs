//! A plugin with its configuration, and its instances: each configured once, bound to one table, entered by one call at
//! a time. After a trap an instance cannot be entered again; its owner drops it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use wasmtime::{Store, Trap};

use super::component::{self, refused};
use super::engine::{Engine, blocking};
use super::limits::{
    CALLS_PER_INSTANCE, GuestState, LIFTED_TOO_MUCH, Lookups, begin_call, lifted_bytes, watch_time,
};
use super::verdict::Breach;
use super::version::{self, Guest, GuestInput, GuestOutcome, GuestShape, Linked, PluginInfo};
use crate::batch::TableSchema;
use crate::config::{LimitsConfig, OnError, OnRejected, TransformConfig};
use crate::error::{Error, ErrorKind, Result};

/// A plugin, loaded and configured.
pub struct Plugin {
    name: String,
    digest: String,
    bytes: Vec<u8>,
    info: PluginInfo,
    pub(super) engine: Arc<Engine>,
    pub(super) limits: LimitsConfig,
    pub(super) on_error: OnError,
    pub(super) on_rejected: OnRejected,
    config_json: String,
    lookups: Arc<Lookups>,
    linked: Box<dyn Linked>,
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.name)
            .field("digest", &self.digest)
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

impl Plugin {
    /// The name under which the pipe file knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// SHA-256 of the component's bytes, in hexadecimal digits.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// SHA-256 of each granted file, in hexadecimal digits, by name.
    pub fn lookup_digests(&self) -> BTreeMap<String, String> {
        let lookups = self.lookups.iter();
        lookups
            .map(|(name, lookup)| (name.clone(), lookup.digest.clone()))
            .collect()
    }

    /// All that it is made of beside its configuration: the component and the granted files, each with its digest.
    pub fn sources(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let lookups = self.lookups.values();
        std::iter::once((self.digest.as_str(), self.bytes.as_slice()))
            .chain(lookups.map(|lookup| (lookup.digest.as_str(), lookup.bytes.as_slice())))
    }

    /// What the plugin says of itself.
    pub fn info(&self) -> &PluginInfo {
        &self.info
    }

    pub(super) fn load(
        engine: Arc<Engine>,
        name: String,
        bytes: Vec<u8>,
        lookups: Lookups,
        config: TransformConfig,
    ) -> Result<Self> {
        let plugin = Self::described(engine, name, bytes, Some(lookups), config)?;
        plugin.start()?;
        Ok(plugin)
    }

    /// What the plugin says of itself, without a configuration.
    pub(super) fn describe_only(
        engine: Arc<Engine>,
        bytes: Vec<u8>,
        config: TransformConfig,
    ) -> Result<PluginInfo> {
        let name = "inspected".to_owned();
        Ok(Self::described(engine, name, bytes, None, config)?.info)
    }

    /// Without `lookups` it is only looked at, so asking for one is no fault yet.
    fn described(
        engine: Arc<Engine>,
        name: String,
        bytes: Vec<u8>,
        lookups: Option<Lookups>,
        config: TransformConfig,
    ) -> Result<Self> {
        let may_look_up = lookups.as_ref().is_none_or(|lookups| !lookups.is_empty());
        let digest = hex(&Sha256::digest(&bytes));
        let component = engine
            .compile(&digest, &bytes)
            .map_err(|error| refused(&name, "the component does not compile").with_source(error))?;
        component::ensure_contract(&name, engine.wasmtime(), &component, may_look_up)?;
        let linked = version::link(engine.wasmtime(), &component).map_err(|error| {
            refused(
                &name,
                "the component does not fit the contract that it names",
            )
            .with_source(error)
        })?;
        // A pipe file without `config` means no settings, which to a plugin is the empty object.
        let config_json = match config.config.expose() {
            serde_json::Value::Null => "{}".to_owned(),
            value => value.to_string(),
        };
        let mut plugin = Self {
            info: PluginInfo {
                name: String::new(),
                version: String::new(),
                config_schema: None,
            },
            name,
            digest,
            bytes,
            engine,
            limits: config.limits,
            on_error: config.on_error,
            on_rejected: config.on_rejected,
            config_json,
            lookups: Arc::new(lookups.unwrap_or_default()),
            linked,
        };
        plugin.info = plugin.describe()?;
        Ok(plugin)
    }

    /// How long one more instance takes to be there: what the first batch of a table waits for, and each after a trap,
    /// beside configuration and binding.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn time_to_instantiate(self: &Arc<Self>) -> Result<Duration> {
        let plugin = Arc::clone(self);
        blocking(move || {
            let began = Instant::now();
            let mut store = plugin.store();
            let guest = plugin.linked.instantiate(&mut store);
            let took = began.elapsed();
            let made = guest.map(drop);
            made.map_err(|error| plugin.call_error(&store, error))?;
            Ok(took)
        })
        .await
    }

    fn describe(&self) -> Result<PluginInfo> {
        let mut store = self.store();
        self.linked
            .instantiate(&mut store)
            .and_then(|mut guest| guest.describe(&mut store))
            .map_err(|error| self.call_error(&store, error))
    }

    /// An instance that has taken the configuration.
    fn start(&self) -> Result<(Store<GuestState>, Box<dyn Guest>)> {
        let mut store = self.store();
        let answer = self.linked.instantiate(&mut store).and_then(|mut guest| {
            let answer = guest.configure(&mut store, &self.config_json)?;
            Ok((guest, answer))
        });
        let (guest, answer) = answer.map_err(|error| self.call_error(&store, error))?;
        answer.map_err(|problems| {
            let problems: Vec<_> = problems
                .iter()
                .map(|problem| match problem.path.as_str() {
                    "" => problem.message.clone(),
                    path => format!("{path}: {}", problem.message),
                })
                .collect();
            let name = &self.name;
            Error::new(
                ErrorKind::PluginRefused,
                format!(
                    "plugin `{name}` refuses its configuration: {}",
                    problems.join("; ")
                ),
            )
            .with_hint(format!("edit `transforms.{name}.config`"))
        })?;
        Ok((store, guest))
    }

    /// An instance bound to a table.
    pub(super) fn instance(&self, schema: &TableSchema) -> Result<Instance> {
        let (mut store, mut guest) = self
            .start()
            .map_err(|error| error.with_table(&schema.name))?;
        begin_call(&mut store, &self.limits);
        let answer = guest.bind_table(&mut store, schema);
        let answer = answer.map_err(|error| self.table_error(&store, error, schema))?;
        answer.map_err(|text| {
            let name = &self.name;
            Error::new(
                ErrorKind::PluginRefused,
                format!("plugin `{name}` refuses the table: {text}"),
            )
            .with_table(&schema.name)
            .with_hint(format!(
                "edit `transforms.{name}.config`, or take `{name}` out of the table's `transforms`"
            ))
        })?;
        Ok(Instance {
            store,
            guest,
            calls: 0,
        })
    }

    fn store(&self) -> Store<GuestState> {
        let state = GuestState::new(&self.name, &self.limits, Arc::clone(&self.lookups));
        let mut store = Store::new(self.engine.wasmtime(), state);
        store.limiter(|state| state);
        watch_time(&mut store);
        store.set_hostcall_fuel(lifted_bytes(&self.limits));
        begin_call(&mut store, &self.limits);
        store
    }

    fn table_error(
        &self,
        store: &Store<GuestState>,
        error: wasmtime::Error,
        schema: &TableSchema,
    ) -> Error {
        self.call_error(store, error).with_table(&schema.name)
    }

    /// Which of a guest's ways to fail this was.
    fn call_error(&self, store: &Store<GuestState>, error: wasmtime::Error) -> Error {
        let name = &self.name;
        let state = store.data();
        if state.memory_refused.is_some() {
            let limit = mebibytes(self.limits.memory_bytes);
            return Error::new(
                ErrorKind::PluginMemory,
                format!("plugin `{name}` needs more memory than its limit of {limit}"),
            )
            .with_hint(format!("raise `transforms.{name}.limits.memory`"))
            .with_source(error);
        }
        if state.log_exceeded {
            let limit = mebibytes(self.limits.log_bytes);
            return Error::new(
                ErrorKind::PluginLog,
                format!("plugin `{name}` logs more in one call than its limit of {limit}"),
            )
            .with_hint(format!("raise `transforms.{name}.limits.log`"))
            .with_source(error);
        }
        let trap = error.downcast_ref::<Trap>().copied();
        if trap == Some(Trap::Interrupt) {
            let limit = self.limits.time;
            return Error::new(
                ErrorKind::PluginTimeout,
                format!("plugin `{name}` took longer than its limit of {limit:?}"),
            )
            .with_hint(format!("raise `transforms.{name}.limits.time`"))
            .with_source(error);
        }
        if let Some(trap) = trap {
            let words = match &state.last_error {
                Some(line) => format!("; its last words: {line}"),
                None => String::new(),
            };
            return Error::new(
                ErrorKind::PluginTrap,
                format!("plugin `{name}` trapped: {trap}{words}"),
            )
            .with_hint(format!(
                "report this to the author of plugin `{name}`, with the backtrace"
            ))
            .with_source(error);
        }
        if format!("{error:#}").contains(LIFTED_TOO_MUCH) {
            return self.too_much(mebibytes(self.limits.output_bytes), "output");
        }
        // No trap and no limit: what it returned could not be lifted out of its memory.
        self.output_error("returned what breaks the contract")
            .with_source(error)
    }

    /// One call returned more than its limit, which the key `limit` sets.
    pub(super) fn too_much(&self, most: impl std::fmt::Display, limit: &str) -> Error {
        let name = &self.name;
        Error::new(
            ErrorKind::PluginOutputSize,
            format!("plugin `{name}` returns more in one call than its limit of {most}"),
        )
        .with_hint(format!("raise `transforms.{name}.limits.{limit}`"))
    }

    pub(super) fn output_error(&self, what: impl std::fmt::Display) -> Error {
        self.breach(&Breach::from(what.to_string()))
    }

    /// What the guest returned breaks the contract.
    pub(super) fn breach(&self, breach: &Breach) -> Error {
        let name = &self.name;
        Error::new(breach.kind, format!("plugin `{name}` {}", breach.what))
            .with_hint(format!("report this to the author of plugin `{name}`"))
    }
}

/// One running guest, bound to one table.
pub(super) struct Instance {
    store: Store<GuestState>,
    guest: Box<dyn Guest>,
    calls: u32,
}

impl Instance {
    pub(super) fn shape(&mut self, plugin: &Plugin, schema: &TableSchema) -> Result<GuestShape> {
        begin_call(&mut self.store, &plugin.limits);
        self.guest
            .shape(&mut self.store)
            .map_err(|error| plugin.table_error(&self.store, error, schema))
    }

    /// Transforms one batch. After an error the instance must be dropped.
    pub(super) fn transform(
        &mut self,
        plugin: &Plugin,
        schema: &TableSchema,
        input: &GuestInput<'_>,
    ) -> Result<GuestOutcome> {
        self.calls += 1;
        begin_call(&mut self.store, &plugin.limits);
        let answer = self
            .guest
            .transform(&mut self.store, input)
            .map_err(|error| plugin.table_error(&self.store, error, schema))?;
        answer.map_err(|text| {
            Error::new(
                ErrorKind::PluginRejected,
                format!("plugin `{}` cannot transform a batch: {text}", plugin.name),
            )
            .with_table(&schema.name)
        })
    }

    /// Whether it may serve another batch.
    pub(super) fn is_fresh(&self) -> bool {
        self.calls < CALLS_PER_INSTANCE
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn mebibytes(bytes: u64) -> String {
    match bytes {
        _ if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ => format!("{bytes} bytes"),
    }
}
