//! What a plugin says and hears in the host's own words. Contract versions are translated to it, each in its own file;
//! nobody above sees a generated type.

use std::borrow::Cow;

use crate::batch::{ColumnType, Op};

pub(super) mod v0_1;

/// The contract versions that this host speaks, as a person reads them.
pub(super) const SUPPORTED: &str = "0.1";

/// The interface that a component must export; the version follows.
pub(super) const PLUGIN_INTERFACE: &str = "pipewright:transform/plugin@";

/// The interfaces that a component may import; the version follows.
pub(super) const ALLOWED_IMPORTS: [&str; 2] =
    ["pipewright:transform/log@", "pipewright:transform/types@"];

/// What a plugin says of itself.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PluginInfo {
    /// Its name, such as `mask`.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// A JSON Schema of its configuration.
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
    pub(super) reads_before: bool,
    pub(super) cardinality: Cardinality,
    pub(super) writes: Vec<(Option<u32>, GuestField)>,
    pub(super) target_count: usize,
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
    Replace,
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
    pub(super) children: bool,
}
