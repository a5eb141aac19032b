//! What a guest may use: memory, time, log lines. The one page to read about the sandbox's bounds.
//!
//! A guest has no clock, files, network or environment; its imports are the log, files that the pipe file grants, and WASI
//! that gives nothing. Memory is refused at the limit, time is cut by the engine's epoch, log bytes are counted for each
//! call, and what a guest returns is counted while it is lifted, however often it names the same bytes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::{ResourceLimiter, Store, UpdateDeadline};

use crate::config::LimitsConfig;
use crate::one_line::one_line;

/// The engine's epoch advances at this pace: small against a time limit, and 200 atomic increments a second.
pub(super) const EPOCH_TICK: Duration = Duration::from_millis(5);

/// Elements of all tables of one instance: function pointers mostly, so far above what compilers make.
const TABLE_ELEMENTS: usize = 1 << 20;

/// What the host keeps for an element: a pointer.
const TABLE_ELEMENT_BYTES: usize = size_of::<usize>();

/// Core instances of one component: a Rust guest has 3, an interpreter with its adapters a few dozen.
const CORE_INSTANCES: usize = 200;

/// Linear memories of one component, each of which takes 4 GiB of the process's addresses: guests have one or two.
const MEMORIES: usize = 8;

/// Bytes of one log line: a page of text.
const LOG_BYTES_PER_LINE: usize = 4 << 10;

/// What the host's log has of a line beside the guest's text: time, level, target and the plugin's name.
const LOG_BYTES_BESIDE: u64 = 128;

/// What filters know a guest's lines by.
const TARGET: &str = "pipewright::plugin";

/// Rows of one call: the batch size that the costs of a call vanish in.
pub(super) const ROWS_PER_CALL: usize = 65_536;

/// Bytes of all answers to one batch: several times the largest batch, and half of what an Arrow column can address.
pub(super) const BATCH_ANSWER_BYTES: u64 = 1 << 30;

/// The part of the guest's memory that a call's input may take; the output and its making need the rest.
pub(super) const INPUT_PART_OF_MEMORY: u64 = 4;

/// Columns of a table as a plugin leaves it, and of a target: MySQL's tables have at most 4,096, and a plugin may add
/// as many again.
pub(super) const COLUMNS: usize = 8_192;

/// Targets of one table: each becomes a table of its own.
pub(super) const TARGETS: usize = 1_000;

/// Columns of all targets of one table together.
pub(super) const COLUMNS_OF_TARGETS: usize = 1 << 17;

/// Bytes that all instances may hold while they wait for their next batch: a Rust guest has 1 to 3 MB, an interpreter some
/// ten times as much.
pub(super) const IDLE_BYTES: u64 = 256 << 20;

/// What an instance holds of the host at least, whatever its memory is: its store and tables.
const INSTANCE_BYTES: u64 = 1 << 20;

/// Calls after which an instance is retired: guest memory never shrinks, and leaks end here.
pub(super) const CALLS_PER_INSTANCE: u32 = 1_000;

/// Bytes of a plugin's file: interpreters compiled into a component are about 20 MB.
pub(super) const PLUGIN_FILE_BYTES: u64 = 64 << 20;

/// Bytes of one function's code: the largest of CPython has 427 KB, of SpiderMonkey 172 KB, of a Rust guest 66 KB.
pub(super) const FUNCTION_BYTES: usize = 640 << 10;

/// A function's bytes times its locals: 9 million at most in the same guests. What this allows compiles in a minute or two
/// and within about a gigabyte, where one of 128 KiB with 40,000 locals takes 2.3 GB and more (measured: debug build with an
/// optimised compiler, sequences of small loops and conditions over locals picked at random).
pub(super) const FUNCTION_BYTES_BY_LOCALS: usize = 32 << 20;

/// Bytes of the schema of its configuration that a plugin gives; those of a person's making have a few thousand.
pub(super) const SCHEMA_BYTES: usize = 1 << 20;

/// Bytes of a granted file: it stands in the memory of each instance.
pub(super) const LOOKUP_FILE_BYTES: u64 = 64 << 20;

/// What the host keeps for one instance.
pub(crate) struct GuestState {
    plugin: String,
    memory_limit: u64,
    memory_bytes: u64,
    /// The size that was refused.
    pub(super) memory_refused: Option<u64>,
    /// When the call under way is cut.
    deadline: Instant,
    log_budget: u64,
    /// Whether the call under way was ended because of its log.
    pub(super) log_exceeded: bool,
    lookups: Arc<Lookups>,
    /// The last line of level error in this call: what a panic hook writes before the trap.
    pub(super) last_error: Option<String>,
}

#[derive(Clone, Copy)]
pub(crate) enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

impl GuestState {
    pub(super) fn new(plugin: &str, limits: &LimitsConfig, lookups: Arc<Lookups>) -> Self {
        Self {
            plugin: plugin.to_owned(),
            memory_limit: limits.memory_bytes,
            memory_bytes: 0,
            memory_refused: None,
            deadline: Instant::now() + limits.time,
            log_budget: limits.log_bytes,
            log_exceeded: false,
            lookups,
            last_error: None,
        }
    }

    /// What the instance holds of the host's memory.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.memory_bytes.max(INSTANCE_BYTES)
    }

    /// The whole of a granted file.
    pub(super) fn lookup(&self, name: &str) -> Result<Vec<u8>, String> {
        let found = self.lookups.get(name).map(|lookup| lookup.bytes.to_vec());
        found.ok_or_else(|| {
            format!("no file is granted as `{name}`; add it to `grants.lookup` of the transform")
        })
    }

    /// Passes a line on to the host's log; an error ends the call, once its budget is used up.
    pub(super) fn log(&mut self, level: LogLevel, message: &str) -> wasmtime::Result<()> {
        let line = one_line(message, LOG_BYTES_PER_LINE);
        if matches!(level, LogLevel::Error) {
            self.last_error = Some(line.clone());
        }
        let taken = LOG_BYTES_BESIDE.saturating_add(message.len() as u64);
        let Some(left) = self.log_budget.checked_sub(taken) else {
            self.log_exceeded = true;
            return Err(wasmtime::Error::msg("the log limit is reached"));
        };
        self.log_budget = left;
        let plugin = &self.plugin;
        // Neither a reader nor a filter takes these lines for the host's.
        match level {
            LogLevel::Debug => tracing::debug!(target: TARGET, plugin, "plugin says: {line}"),
            LogLevel::Info => tracing::info!(target: TARGET, plugin, "plugin says: {line}"),
            LogLevel::Warn => tracing::warn!(target: TARGET, plugin, "plugin says: {line}"),
            LogLevel::Error => tracing::error!(target: TARGET, plugin, "plugin says: {line}"),
        }
        Ok(())
    }
}

/// Granted files by name.
pub(super) type Lookups = BTreeMap<String, Lookup>;

/// A granted file.
pub(super) struct Lookup {
    /// SHA-256 of its bytes, in hexadecimal digits.
    pub(super) digest: String,
    pub(super) bytes: Vec<u8>,
}

/// Sets up a store's clock, once. The epoch only says when to look at the time: a machine too busy to advance it evenly
/// cuts a call neither early nor, but for the wait for one tick, late.
pub(super) fn watch_time(store: &mut Store<GuestState>) {
    store.epoch_deadline_callback(|store| {
        if Instant::now() < store.data().deadline {
            Ok(UpdateDeadline::Continue(1))
        } else {
            Ok(UpdateDeadline::Interrupt)
        }
    });
}

/// Gives a call its time and its log budget.
pub(super) fn begin_call(store: &mut Store<GuestState>, limits: &LimitsConfig) {
    store.set_epoch_deadline(1);
    let state = store.data_mut();
    state.deadline = Instant::now() + limits.time;
    state.log_budget = limits.log_bytes;
    state.log_exceeded = false;
    state.last_error = None;
}

/// Bounds what is lifted out of the guest: without this a guest could return one list thousands of times.
pub(super) fn lifted_bytes(limits: &LimitsConfig) -> usize {
    usize::try_from(limits.output_bytes).unwrap_or(usize::MAX)
}

/// What wasmtime says when a call returns more than [`lifted_bytes`]; there is no type for it.
pub(super) const LIFTED_TOO_MUCH: &str = "fuel allocated for hostcalls has been exhausted";

impl ResourceLimiter for GuestState {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = self.memory_bytes.saturating_add((desired - current) as u64);
        if total > self.memory_limit {
            self.memory_refused = Some(total);
            return Err(wasmtime::Error::msg("the memory limit is reached"));
        }
        self.memory_bytes = total;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let bytes = |elements: usize| elements.saturating_mul(TABLE_ELEMENT_BYTES);
        Ok(desired <= TABLE_ELEMENTS
            && self.memory_growing(bytes(current), bytes(desired), maximum.map(bytes))?)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES
    }

    fn tables(&self) -> usize {
        CORE_INSTANCES
    }

    fn memories(&self) -> usize {
        MEMORIES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_line_counts_with_what_the_host_writes_beside_it() {
        let limits = LimitsConfig {
            log_bytes: 10 * (LOG_BYTES_BESIDE + 1),
            ..LimitsConfig::default()
        };
        let mut state = GuestState::new("chatty", &limits, Arc::default());
        for line in 0..10 {
            let logged = state.log(LogLevel::Debug, "x");
            logged.unwrap_or_else(|error| panic!("line {line}: {error}"));
        }
        state.log(LogLevel::Debug, "").unwrap_err();
        assert!(state.log_exceeded);
    }

    #[test]
    fn elements_of_tables_are_memory_too() {
        let limits = LimitsConfig {
            memory_bytes: 1 << 20,
            ..LimitsConfig::default()
        };
        let mut state = GuestState::new("tables", &limits, Arc::default());
        let half = (1 << 19) / TABLE_ELEMENT_BYTES;
        assert!(state.table_growing(0, half, None).unwrap());
        assert!(state.memory_growing(0, 1 << 19, None).unwrap());
        state.table_growing(half, half + 1, None).unwrap_err();
        assert!(state.memory_refused.is_some());
        assert!(!state.table_growing(0, TABLE_ELEMENTS + 1, None).unwrap());
    }
}
