//! `transforms`: plugins, what they are told, and what they may use.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::field::Field;
use super::node::{Node, Origin, Text, Value};
use super::read::is_name;
use super::{LimitsConfig, OnError, OnRejected, PluginConfig, Secrets, TransformConfig};

/// What a plugin needs for a batch of some thousand wide rows, with room.
pub(super) const PLUGIN_MEMORY: u64 = 64 << 20;
/// A plugin that takes longer for one batch holds up the stream more than the flush interval does.
pub(super) const PLUGIN_TIME: Duration = Duration::from_secs(1);
/// Twice what a guest of the usual memory could hold once.
pub(super) const PLUGIN_OUTPUT: u64 = 128 << 20;
/// Sixteen rows for each that a call is given at most.
pub(super) const PLUGIN_ROWS: u64 = 1 << 20;
/// About a thousand lines.
pub(super) const PLUGIN_LOG: u64 = 256 << 10;

/// Reads `transforms`. The names come back in any case, for the tables that use them.
pub(super) fn read(
    field: &Field<'_>,
    secrets: Secrets,
) -> (Option<BTreeMap<String, TransformConfig>>, Vec<String>) {
    let Some(entries) = field.entries_by_name() else {
        return (None, Vec::new());
    };
    let names = entries.iter().map(|(key, _)| key.name.clone()).collect();
    let mut transforms = Some(BTreeMap::new());
    for (key, field) in entries {
        let named = is_name(&key.name);
        if !named {
            field.checks.report(
                key.place,
                &field.path,
                format!("the name `{}`", key.name.escape_debug()),
                "up to 64 letters, digits, `_` and `-`",
                "choose a plain name; it appears in metrics and messages",
            );
        }
        match (transform(&field, secrets), &mut transforms) {
            (Some(transform), Some(transforms)) if named => {
                transforms.insert(key.name.clone(), transform);
            }
            _ => transforms = None,
        }
    }
    (transforms, names)
}

fn transform(field: &Field<'_>, secrets: Secrets) -> Option<TransformConfig> {
    let mut section = field.section()?;
    let plugin = section
        .required(
            "plugin",
            "the plugin's file",
            "add `plugin: path/to/plugin.wasm`",
        )
        .and_then(|field| {
            let text = field.text()?;
            if text.starts_with("oci://") {
                field.problem(
                    "a registry reference, which is not built yet",
                    "a path",
                    "download the plugin, and give the file's path",
                );
                return None;
            }
            if field.is_unresolved() {
                return Some(text.into());
            }
            field.file(text, secrets, "a WebAssembly component")
        });
    let config = section.or("config", PluginConfig::default(), |field| {
        field.ensure_map()?;
        field.ensure_unique_keys();
        Some(PluginConfig::new(
            json(field.node, false),
            json(field.node, true),
        ))
    });
    let on_error = section.or("on_error", OnError::Fail, |field| {
        field.choice(
            &[
                ("fail", OnError::Fail),
                ("dead_letter", OnError::DeadLetter),
                ("skip", OnError::Skip),
            ],
            &[],
        )
    });
    let on_rejected = section.or("on_rejected", OnRejected::Hide, |field| {
        field.choice(
            &[
                ("hide", OnRejected::Hide),
                ("keep_old", OnRejected::KeepOld),
            ],
            &[],
        )
    });
    let limits = section.or("limits", LimitsConfig::default(), |field| limits(&field));
    let lookups = section.or("grants", BTreeMap::new(), |field| grants(&field, secrets));
    section.finish();
    Some(TransformConfig {
        plugin: plugin?,
        config: config?,
        on_error: on_error?,
        on_rejected: on_rejected?,
        limits: limits?,
        lookups: lookups?,
    })
}

/// `grants`: what the plugin may read beside its rows.
fn grants(field: &Field<'_>, secrets: Secrets) -> Option<BTreeMap<String, PathBuf>> {
    let mut section = field.section()?;
    let lookups = section.or("lookup", BTreeMap::new(), |field| {
        let mut lookups = BTreeMap::new();
        for (key, field) in field.entries_by_name()? {
            let path = match field.is_unresolved() {
                true => PathBuf::from(field.text()?),
                false => field.file(field.text()?, secrets, "a file that the plugin may read")?,
            };
            lookups.insert(key.name.clone(), path);
        }
        Some(lookups)
    });
    section.finish();
    lookups
}

fn limits(field: &Field<'_>) -> Option<LimitsConfig> {
    let mut section = field.section()?;
    let defaults = LimitsConfig::default();
    // A guest has 32-bit addresses, and cannot start in less than a few pages.
    let memory_bytes = section.or("memory", defaults.memory_bytes, |field| {
        field.size(1 << 20..=4 << 30)
    });
    let time = section.or("time", defaults.time, |field| {
        field.duration(Duration::from_millis(1)..=Duration::from_secs(600))
    });
    let output_bytes = section.or("output", defaults.output_bytes, |field| {
        field.size(1 << 10..=4 << 30)
    });
    let rows = section.or("rows", defaults.rows, |field| {
        field.integer(1..=u64::from(u32::MAX))
    });
    let log_bytes = section.or("log", defaults.log_bytes, |field| field.size(0..=1 << 30));
    section.finish();
    Some(LimitsConfig {
        memory_bytes: memory_bytes?,
        time: time?,
        output_bytes: output_bytes?,
        rows: rows?,
        log_bytes: log_bytes?,
    })
}

/// A part of the document as JSON; with `redact`, `***` stands for every string that came out of `${...}`.
pub(super) fn json(node: &Node, redact: bool) -> serde_json::Value {
    match &node.value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Integer(value) => match (u64::try_from(*value), i64::try_from(*value)) {
            (Ok(value), _) => value.into(),
            (_, Ok(value)) => value.into(),
            _ => serde_json::Value::String(value.to_string()),
        },
        Value::Float(value) => (*value).into(),
        Value::Text(Text { origin, .. }) if redact && *origin != Origin::Literal => "***".into(),
        Value::Text(Text { value, .. }) => value.as_str().into(),
        Value::List(items) => items.iter().map(|item| json(item, redact)).collect(),
        Value::Map(entries) => entries
            .iter()
            .map(|(key, value)| (key.name.clone(), json(value, redact)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}

impl TransformConfig {
    /// A plugin with every default: to be looked at, before anything is said of it.
    pub fn of(plugin: &std::path::Path) -> Self {
        Self {
            plugin: plugin.to_owned(),
            config: PluginConfig::default(),
            on_error: OnError::Fail,
            on_rejected: OnRejected::Hide,
            limits: LimitsConfig::default(),
            lookups: BTreeMap::new(),
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            memory_bytes: PLUGIN_MEMORY,
            time: PLUGIN_TIME,
            output_bytes: PLUGIN_OUTPUT,
            rows: PLUGIN_ROWS,
            log_bytes: PLUGIN_LOG,
        }
    }
}
