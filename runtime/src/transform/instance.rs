//! A plugin with its configuration, and its instances: each configured once, bound to one table, entered by one call at
//! a time. After a trap an instance cannot be entered again; its owner drops it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use wasmtime::{Store, Trap};

use super::component::{self, BUILD_HINT, refused};
use super::engine::{Engine, blocking};
use super::faults::short;
use super::hold_up::HoldUps;
use super::limits::{
    BATCH_ANSWER_BYTES, CALLS_PER_INSTANCE, GuestState, LIFTED_TOO_MUCH, Lookups, SCHEMA_BYTES,
    begin_call, lifted_bytes, watch_time,
};
use super::verdict::Breach;
use super::version::{self, Guest, GuestInput, GuestOutcome, GuestShape, Linked, PluginInfo};
use crate::batch::TableSchema;
use crate::config::{LimitsConfig, OnError, OnRejected, TransformConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::one_line::one_line;

/// Of the problems of a configuration so many are told.
const PROBLEMS: usize = 20;

/// Bytes of a longer text of a guest: a backtrace of a few dozen frames.
const TOLD_BYTES: usize = 2 << 10;

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
    pub(super) hold_ups: HoldUps,
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
        let component = engine.compile(&digest, &bytes).map_err(|error| {
            refused(&name, "the component does not compile")
                .with_hint(BUILD_HINT)
                .with_source(told(&error))
        })?;
        component::ensure_contract(&name, engine.wasmtime(), &component, may_look_up)?;
        let linked = version::link(engine.wasmtime(), &component).map_err(|error| {
            refused(
                &name,
                "the component does not fit the contract that it names",
            )
            .with_hint(BUILD_HINT)
            .with_source(told(&error))
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
            hold_ups: HoldUps::new(config.limits.time),
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
            made.map_err(|error| plugin.call_error(&store, error).telling())?;
            Ok(took)
        })
        .await
    }

    fn describe(&self) -> Result<PluginInfo> {
        let mut store = self.store();
        let info = self
            .linked
            .instantiate(&mut store)
            .and_then(|mut guest| guest.describe(&mut store))
            .map_err(|error| self.call_error(&store, error).telling())?;
        let schema_bytes = info.config_schema.as_ref().map_or(0, String::len);
        if schema_bytes > SCHEMA_BYTES {
            let what = format!(
                "it gives a schema of its configuration of {schema_bytes} bytes, and may give {SCHEMA_BYTES}"
            );
            return Err(refused(&self.name, what));
        }
        Ok(PluginInfo {
            name: short(&info.name),
            version: short(&info.version),
            ..info
        })
    }

    /// An instance that has taken the configuration.
    fn start(&self) -> Result<(Store<GuestState>, Box<dyn Guest>)> {
        let mut store = self.store();
        let answer = self.linked.instantiate(&mut store).and_then(|mut guest| {
            let answer = guest.configure(&mut store, &self.config_json)?;
            Ok((guest, answer))
        });
        let (guest, answer) = answer.map_err(|error| self.call_error(&store, error).telling())?;
        answer.map_err(|problems| {
            let problems = problems.iter().take(PROBLEMS);
            let problems: Vec<_> = problems
                .map(|problem| (short(&problem.path), said(&problem.message)))
                .map(|(path, message)| match path.as_str() {
                    "" => message,
                    path => format!("{path}: {message}"),
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
        let answer = answer.map_err(|error| self.table_error(&store, error, schema).telling())?;
        answer.map_err(|text| {
            let name = &self.name;
            Error::new(
                ErrorKind::PluginRefused,
                format!("plugin `{name}` refuses the table: {}", said(&text)),
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

    /// Which of a guest's ways to fail this was. What it says is kept apart: it may hold values of the call's rows.
    fn call_error(&self, store: &Store<GuestState>, error: wasmtime::Error) -> Error {
        let fault = self.fault(store.data(), &error);
        fault.with_source(told(&error))
    }

    fn fault(&self, state: &GuestState, error: &wasmtime::Error) -> Error {
        let name = &self.name;
        if state.memory_refused.is_some() {
            let limit = mebibytes(self.limits.memory_bytes);
            return Error::new(
                ErrorKind::PluginMemory,
                format!("plugin `{name}` needs more memory than its limit of {limit}"),
            )
            .with_hint(format!("raise `transforms.{name}.limits.memory`"));
        }
        if state.log_exceeded {
            let limit = mebibytes(self.limits.log_bytes);
            return Error::new(
                ErrorKind::PluginLog,
                format!("plugin `{name}` logs more in one call than its limit of {limit}"),
            )
            .with_hint(format!("raise `transforms.{name}.limits.log`"));
        }
        let trap = error.downcast_ref::<Trap>().copied();
        if trap == Some(Trap::Interrupt) {
            let limit = self.limits.time;
            return Error::new(
                ErrorKind::PluginTimeout,
                format!("plugin `{name}` took longer than its limit of {limit:?}"),
            )
            .with_hint(format!("raise `transforms.{name}.limits.time`"));
        }
        if let Some(trap) = trap {
            return Error::new(
                ErrorKind::PluginTrap,
                format!("plugin `{name}` trapped: {trap}"),
            )
            .with_hint(format!(
                "report this to the author of plugin `{name}`, with the backtrace; what it said last is among its own lines of the log, and with `transforms.{name}.on_error: dead_letter` beside each row that is kept"
            ))
            .with_words(state.last_error.as_deref().map(short));
        }
        if format!("{error:#}").contains(LIFTED_TOO_MUCH) {
            return self.returns_too_much();
        }
        // No trap and no limit: what it returned could not be lifted out of its memory.
        self.output_error("returned what breaks the contract")
    }

    /// One call returned more bytes than it may.
    pub(super) fn returns_too_much(&self) -> Error {
        self.too_much(mebibytes(self.limits.output_bytes), "output")
    }

    /// What it has returned for one batch is more than the host holds.
    pub(super) fn fills_batch(&self) -> Error {
        let name = &self.name;
        Error::new(
            ErrorKind::PluginOutputSize,
            format!(
                "plugin `{name}` returns more for one batch than {}",
                mebibytes(BATCH_ANSWER_BYTES)
            ),
        )
        .with_hint(
            "have it make less of a row, or lower `sync.max_bytes`, so that batches are smaller",
        )
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
            .map_err(|error| plugin.table_error(&self.store, error, schema).telling())
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
            let name = &plugin.name;
            Error::new(
                ErrorKind::PluginRejected,
                format!("plugin `{name}` refuses a batch"),
            )
            .with_table(&schema.name)
            .with_hint(keeps_reasons(name))
            .with_words(short(&text))
        })
    }

    /// Whether it has had a call before, which may have left something behind.
    pub(super) fn has_served(&self) -> bool {
        self.calls > 0
    }

    /// Whether it may serve another batch.
    pub(super) fn may_serve(&self) -> bool {
        self.calls < CALLS_PER_INSTANCE
    }

    /// What it holds of the host's memory while it waits.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.store.data().memory_bytes()
    }
}

/// Where an operator finds what a plugin says of rows.
pub(super) fn keeps_reasons(name: &str) -> String {
    format!(
        "mend the rows at the source, edit `transforms.{name}.config`, or set `transforms.{name}.on_error` to dead_letter, which keeps each row that fails with the plugin's reason"
    )
}

/// What a guest says of its configuration or of a table.
fn said(text: &str) -> String {
    one_line(text, TOLD_BYTES)
}

/// What wasmtime says, in which names come from the guest.
pub(super) fn told(error: &wasmtime::Error) -> String {
    one_line(&format!("{error:#}"), TOLD_BYTES)
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
