//! The section `transforms`.

use std::collections::BTreeMap;

use schemars::JsonSchema;

use super::super::transforms;
use super::{duration, show_duration, show_size, size};

/// A plugin and how it is used.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Transform {
    /// The plugin's file, a WebAssembly component.
    plugin: String,
    /// The plugin's own configuration; the plugin says what it takes.
    config: Option<serde_json::Map<String, serde_json::Value>>,
    /// What becomes of a row that the plugin cannot process.
    #[schemars(extend("default" = "fail"))]
    on_error: Option<OnError>,
    /// What readers see of a row that failed and was passed over.
    #[schemars(extend("default" = "hide"))]
    on_rejected: Option<OnRejected>,
    /// What one call may use.
    limits: Option<Limits>,
    /// What it may read beside its rows.
    grants: Option<Grants>,
}

/// What a plugin may read beside its rows.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Grants {
    /// Files, by the name under which the plugin asks for them.
    lookup: Option<BTreeMap<String, String>>,
}

/// What readers see of a row that failed and was passed over.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum OnRejected {
    /// Nothing: the row that was there disappears.
    Hide,
    /// The row as it last passed.
    KeepOld,
}

/// What becomes of a row that the plugin cannot process.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum OnError {
    /// Its table is taken out of service with the row's reason.
    Fail,
    /// It goes to `_pipewright_dead_letters`, and the table goes on.
    DeadLetter,
    /// It is counted, and the table goes on.
    Skip,
}

/// What one call of a plugin may use.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Limits {
    /// Memory of the guest, such as `64MiB`.
    #[schemars(schema_with = "size", extend("default" = show_size(transforms::PLUGIN_MEMORY)))]
    memory: Option<String>,
    /// Wall time, such as `1s`.
    #[schemars(schema_with = "duration", extend("default" = show_duration(transforms::PLUGIN_TIME)))]
    time: Option<String>,
    /// Bytes that it may return, such as `128MiB`.
    #[schemars(schema_with = "size", extend("default" = show_size(transforms::PLUGIN_OUTPUT)))]
    output: Option<String>,
    /// Rows that it may return.
    #[schemars(extend("default" = transforms::PLUGIN_ROWS))]
    rows: Option<u64>,
    /// Bytes that it may write to the log, such as `256KiB`; each line counts for 128 more.
    #[schemars(schema_with = "size", extend("default" = show_size(transforms::PLUGIN_LOG)))]
    log: Option<String>,
}
