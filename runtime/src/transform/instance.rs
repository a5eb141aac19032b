//! A plugin with its configuration, and its instances: each configured once, bound to one table, entered by one call at
//! a time. After a trap an instance cannot be entered again; its owner drops it.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use wasmtime::{Store, Trap};

use super::component::{self, refused};
use super::engine::Engine;
use super::limits::{CALLS_PER_INSTANCE, GuestState, begin_call, lifted_bytes, watch_time};
use super::version::v0_1::{self, BindingHandle, Exports, Linked};
use super::version::{GuestInput, GuestOutcome, GuestShape, PluginInfo};
use crate::batch::TableSchema;
use crate::config::{LimitsConfig, TransformConfig};
use crate::error::{Error, ErrorKind, Result};

/// A plugin, loaded and configured.
pub struct Plugin {
    name: String,
    digest: String,
    info: PluginInfo,
    pub(super) engine: Arc<Engine>,
    pub(super) limits: LimitsConfig,
    config_json: String,
    linked: Linked,
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

    /// What the plugin says of itself.
    pub fn info(&self) -> &PluginInfo {
        &self.info
    }

    pub(super) fn load(
        engine: Arc<Engine>,
        name: String,
        bytes: &[u8],
        config: TransformConfig,
    ) -> Result<Self> {
        let plugin = Self::described(engine, name, bytes, config)?;
        plugin.start()?;
        Ok(plugin)
    }

    /// What the plugin says of itself, without a configuration.
    pub(super) fn describe_only(
        engine: Arc<Engine>,
        bytes: &[u8],
        config: TransformConfig,
    ) -> Result<PluginInfo> {
        Ok(Self::described(engine, "inspected".to_owned(), bytes, config)?.info)
    }

    fn described(
        engine: Arc<Engine>,
        name: String,
        bytes: &[u8],
        config: TransformConfig,
    ) -> Result<Self> {
        let digest = hex(&Sha256::digest(bytes));
        let component = engine
            .compile(&digest, bytes)
            .map_err(|error| refused(&name, "the component does not compile").with_source(error))?;
        component::ensure_contract(&name, engine.wasmtime(), &component)?;
        let linked = v0_1::link(engine.wasmtime(), &component).map_err(|error| {
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
            engine,
            limits: config.limits,
            config_json,
            linked,
        };
        plugin.info = plugin.describe()?;
        Ok(plugin)
    }

    fn describe(&self) -> Result<PluginInfo> {
        let mut store = self.store();
        self.linked
            .instantiate(&mut store)
            .and_then(|exports| exports.describe(&mut store))
            .map_err(|error| self.call_error(&store, error))
    }

    /// An instance that has taken the configuration.
    fn start(&self) -> Result<(Store<GuestState>, Exports)> {
        let mut store = self.store();
        let answer = self.linked.instantiate(&mut store).and_then(|exports| {
            let answer = exports.configure(&mut store, &self.config_json)?;
            Ok((exports, answer))
        });
        let (exports, answer) = answer.map_err(|error| self.call_error(&store, error))?;
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
        Ok((store, exports))
    }

    /// An instance bound to a table.
    pub(super) fn instance(&self, schema: &TableSchema) -> Result<Instance> {
        let (mut store, exports) = self
            .start()
            .map_err(|error| error.with_table(&schema.name))?;
        begin_call(&mut store, &self.limits);
        let answer = exports.bind_table(&mut store, schema);
        let answer = answer.map_err(|error| self.table_error(&store, error, schema))?;
        let binding = answer.map_err(|text| {
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
            exports,
            binding,
            calls: 0,
        })
    }

    fn store(&self) -> Store<GuestState> {
        let state = GuestState::new(&self.name, &self.limits);
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
        // No trap and no limit: what it returned could not be lifted out of its memory.
        self.output_error("returned what breaks the contract")
            .with_source(error)
    }

    pub(super) fn output_error(&self, what: impl std::fmt::Display) -> Error {
        let name = &self.name;
        Error::new(ErrorKind::PluginOutput, format!("plugin `{name}` {what}"))
            .with_hint(format!("report this to the author of plugin `{name}`"))
    }
}

/// One running guest, bound to one table.
pub(super) struct Instance {
    store: Store<GuestState>,
    exports: Exports,
    binding: BindingHandle,
    calls: u32,
}

impl Instance {
    pub(super) fn shape(&mut self, plugin: &Plugin, schema: &TableSchema) -> Result<GuestShape> {
        begin_call(&mut self.store, &plugin.limits);
        self.exports
            .shape(&mut self.store, self.binding)
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
            .exports
            .transform(&mut self.store, self.binding, input)
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
