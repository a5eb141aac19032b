//! What a plugin says and hears in the host's own words. Contract versions are translated to it, each in its own file;
//! nobody above sees a generated type.

use std::borrow::Cow;

use wasmtime::component::Component;
use wasmtime::{Result, Store};

use super::limits::GuestState;
use crate::batch::{ColumnType, Op, TableSchema};

mod nothing;
mod v0_1;

pub(super) use nothing::gives_nothing;

/// The contract versions that this host speaks, as a person reads them.
pub(super) const SUPPORTED: &str = "0.1";

/// The interface that a component must export; the version follows.
pub(super) const PLUGIN_INTERFACE: &str = "pipewright:transform/plugin@";

/// The interfaces that every component may import; the version follows.
pub(super) const ALLOWED_IMPORTS: [&str; 2] =
    ["pipewright:transform/log@", "pipewright:transform/types@"];

/// The interface that a component may import where the pipe file grants it files; the version follows.
pub(super) const LOOKUP_INTERFACE: &str = "pipewright:transform/lookup@";

/// A component of some contract version, linked and ready to be instantiated.
pub(super) trait Linked: Send + Sync {
    /// A running guest. The store's limits hold from here on.
    fn instantiate(&self, store: &mut Store<GuestState>) -> Result<Box<dyn Guest>>;
}

/// A running guest of some contract version, which the host speaks to in its own words. Calls come in the order of the
/// methods; an `Err` of wasmtime ends the guest.
pub(super) trait Guest: Send {
    fn describe(&mut self, store: &mut Store<GuestState>) -> Result<PluginInfo>;

    fn configure(
        &mut self,
        store: &mut Store<GuestState>,
        json: &str,
    ) -> Result<Result<(), Vec<Problem>>>;

    /// Binds the guest to the one table that it will serve; what it will do to it, or why it will not.
    fn bind_table(
        &mut self,
        store: &mut Store<GuestState>,
        schema: &TableSchema,
    ) -> Result<Result<(), String>>;

    fn shape(&mut self, store: &mut Store<GuestState>) -> Result<GuestShape>;

    fn transform(
        &mut self,
        store: &mut Store<GuestState>,
        input: &GuestInput<'_>,
    ) -> Result<Result<GuestOutcome, String>>;
}

/// Links a component whose contract version is among [`SUPPORTED`], with the imports that it may have.
pub(super) fn link(engine: &wasmtime::Engine, component: &Component) -> Result<Box<dyn Linked>> {
    Ok(Box::new(v0_1::link(engine, component)?))
}

/// What a plugin says of itself.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PluginInfo {
    /// Its name, such as `mask`.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// A JSON Schema of its configuration, if it gives one.
    pub config_schema: Option<String>,
}

/// One thing that a plugin finds wrong with its configuration.
pub(super) struct Problem {
    pub(super) path: String,
    pub(super) message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cardinality {
    SameRows,
    MayDrop,
    Any,
}

/// A shape as the guest gave it, unchecked.
#[derive(Debug)]
pub(super) struct GuestShape {
    pub(super) reads: Vec<u32>,
    pub(super) cardinality: Cardinality,
    pub(super) writes: Vec<(Option<u32>, GuestField)>,
    pub(super) targets: Vec<GuestTarget>,
}

#[derive(Debug)]
pub(super) struct GuestTarget {
    pub(super) name: Option<String>,
    pub(super) columns: Vec<GuestTargetColumn>,
    pub(super) key: Vec<u32>,
}

#[derive(Debug)]
pub(super) enum GuestTargetColumn {
    Passed(u32),
    Made(GuestField),
}

#[derive(Debug)]
pub(super) struct GuestField {
    pub(super) name: String,
    /// Err names a type that this build has no column for.
    pub(super) column_type: Result<ColumnType, &'static str>,
    pub(super) nullable: bool,
    pub(super) key: bool,
    pub(super) source_type: String,
}

/// What crosses into the guest: borrowed from the batch wherever Arrow's layout is the contract's.
pub(super) struct GuestInput<'a> {
    pub(super) row_count: u32,
    pub(super) ops: GuestOps<'a>,
    pub(super) columns: Vec<InputColumn<'a>>,
}

#[derive(Clone, Copy)]
pub(super) enum GuestOps<'a> {
    AllInserts,
    Each(&'a [Op]),
}

pub(super) struct InputColumn<'a> {
    pub(super) validity: Option<Cow<'a, [u8]>>,
    pub(super) offsets: Option<Cow<'a, [u8]>>,
    pub(super) values: Cow<'a, [u8]>,
}

/// An answer as the guest gave it, unchecked.
pub(super) struct GuestOutcome {
    pub(super) verdict: GuestVerdict,
    pub(super) rejected: Vec<GuestRejection>,
}

pub(super) enum GuestVerdict {
    Unchanged,
    Rows {
        keep: Option<Vec<u8>>,
        columns: Vec<(u32, GuestColumn)>,
    },
    Replace(Vec<GuestOutput>),
}

pub(super) struct GuestOutput {
    pub(super) target: u32,
    pub(super) parents: Vec<u32>,
    pub(super) columns: Vec<GuestColumn>,
}

pub(super) struct GuestRejection {
    pub(super) row: u32,
    pub(super) code: String,
    pub(super) message: String,
}

#[derive(Default)]
pub(super) struct GuestColumn {
    pub(super) validity: Option<Vec<u8>>,
    pub(super) absent: bool,
    pub(super) offsets: Option<Vec<u8>>,
    pub(super) values: Vec<u8>,
    pub(super) child_validity: Option<Vec<u8>>,
    pub(super) child_offsets: bool,
}
