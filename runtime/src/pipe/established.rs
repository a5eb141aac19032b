//! The settings that a pipe is set up with: which of them are fixed from then on, and what a changed file says otherwise.

use super::store::PipeStore;
use crate::config::{Difference, PipeConfig, TablePattern};
use crate::error::{Error, ErrorKind, Result};

/// The settings that Setup builds on, which a running pipe cannot take a change of.
pub(super) fn fingerprint(config: &PipeConfig) -> Result<serde_json::Value> {
    let failed = |error| {
        Error::new(ErrorKind::Internal, "the configuration does not serialise").with_source(error)
    };
    let mut value = serde_json::to_value(config).map_err(failed)?;
    if let Some(map) = value.as_object_mut() {
        // Taken up at each start; plugins are pinned by their digests instead.
        for free in [
            "sync",
            "snapshot",
            "transforms",
            "exclude",
            "follow_new_tables",
            "ddl",
            "cascades",
            "objectives",
            "memory_bytes",
            "spill_dir",
        ] {
            map.remove(free);
        }
        for (end, free) in [
            (
                "source",
                &["host", "port", "hosts", "user", "password", "tls"][..],
            ),
            ("destination", &["url", "user", "password"]),
        ] {
            if let Some(end) = map.get_mut(end).and_then(serde_json::Value::as_object_mut) {
                free.iter().for_each(|key| drop(end.remove(*key)));
            }
        }
    }
    Ok(value)
}

/// Refuses a pipe file whose fixed settings are not those that the targets were made with.
///
/// # Errors
/// `Config`, naming every changed key.
pub(super) fn ensure_unchanged(config: &PipeConfig, store: &PipeStore) -> Result<()> {
    let changed = changed(config, store)?;
    if changed.is_empty() {
        return Ok(());
    }
    let keys: Vec<String> = changed
        .iter()
        .map(|found| format!("`{}`", found.key))
        .collect();
    Err(Error::new(
        ErrorKind::Config,
        format!("pipe `{}` was set up with other values of {}", config.pipe, keys.join(", ")),
    )
    .with_hint(
        "put the former values back and start the pipe again, or resync it, which loads every table beside the live one \
         as the file says now",
    ))
}

/// The fixed settings that the pipe file has other values of than those that the targets were made with, which come first.
///
/// # Errors
/// `Internal` where the configuration does not serialise.
pub(super) fn changed(config: &PipeConfig, store: &PipeStore) -> Result<Vec<Difference>> {
    let records = store.records();
    let Some(established) = records
        .pipe
        .as_ref()
        .and_then(|record| record.established.clone())
    else {
        return Ok(Vec::new());
    };
    let mut changed = Vec::new();
    let (mut before, mut after) = (established, fingerprint(config)?);
    keep_common_tables(&mut before, &mut after);
    // Nothing was made of an entry whose tables could not be taken in.
    if records.checkpoint().is_some() {
        let met = |source: &TablePattern| records.tables.keys().any(|name| source.matches(name));
        for entry in config.tables.iter().filter(|entry| !met(&entry.source)) {
            let key = format!("[{}]", entry.source);
            for tables in [&mut before["tables"], &mut after["tables"]] {
                tables.as_object_mut().map(|tables| tables.remove(&key));
            }
        }
    }
    differences("", &before, &after, &mut changed);
    Ok(changed)
}

/// Leaves the entries of `tables` that both have, by their sources: one that was added or taken out changes nothing of the
/// others.
fn keep_common_tables(before: &mut serde_json::Value, after: &mut serde_json::Value) {
    let by_source = |value: &mut serde_json::Value| -> serde_json::Map<_, _> {
        let entries = match value.get_mut("tables").map(serde_json::Value::take) {
            Some(serde_json::Value::Array(entries)) => entries,
            _ => Vec::new(),
        };
        let named = |entry: serde_json::Value| {
            let part = |part: &str| {
                entry["source"][part]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            };
            // As the keys of other differences are written: `tables[shop.orders]`.
            (format!("[{}.{}]", part("database"), part("table")), entry)
        };
        entries.into_iter().map(named).collect()
    };
    let (mut old, mut new) = (by_source(before), by_source(after));
    old.retain(|source, _| new.contains_key(source));
    new.retain(|source, _| old.contains_key(source));
    before["tables"] = old.into();
    after["tables"] = new.into();
}

/// The keys below `path` that differ.
pub(super) fn differences(
    path: &str,
    before: &serde_json::Value,
    after: &serde_json::Value,
    changed: &mut Vec<Difference>,
) {
    use serde_json::Value;
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            let keys: std::collections::BTreeSet<&String> =
                before.keys().chain(after.keys()).collect();
            for key in keys {
                let joint = if path.is_empty() || key.starts_with('[') {
                    ""
                } else {
                    "."
                };
                let null = Value::Null;
                differences(
                    &format!("{path}{joint}{key}"),
                    before.get(key).unwrap_or(&null),
                    after.get(key).unwrap_or(&null),
                    changed,
                );
            }
        }
        (before, after) if before == after => {}
        _ => {
            let said = |value: &Value| Some(value.clone()).filter(|value| !value.is_null());
            changed.push(Difference {
                key: path.to_owned(),
                before: said(before),
                after: said(after),
            });
        }
    }
}
