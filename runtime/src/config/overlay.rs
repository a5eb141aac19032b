//! Changes that commands have laid over a pipe file.

use std::path::Path;

use super::section::Checks;
use super::{PipeConfig, Problem, node, read, tables};

/// `base` with the tables of `change` added, or put in the place of entries for the same source, and its settings replaced key by key. `change` is a map with any of the keys
/// `tables`, `sync` and `snapshot`, written as in the pipe file; nothing in it is replaced from the environment.
///
/// # Errors
/// All problems, each with its key.
pub fn lay_over(base: &PipeConfig, change: &serde_json::Value) -> Result<PipeConfig, Vec<Problem>> {
    let checks = Checks::new(Path::new("request"));
    // Every JSON document is a YAML document.
    let documents = node::parse(&change.to_string(), &checks);
    let mut config = base.clone();
    let root = documents.first().map(|document| super::field::Field {
        checks: &checks,
        node: document,
        path: String::new(),
    });
    if let Some(mut root) = root.as_ref().and_then(super::field::Field::section) {
        let transforms: Vec<String> = base.transforms.keys().cloned().collect();
        if let Some(field) = root.get("tables") {
            for entry in tables::read(&field, &transforms).0.unwrap_or_default() {
                // What a command says of a table counts, whatever the file says of it.
                config.tables.retain(|known| known.source != entry.source);
                config.tables.push(entry);
            }
        }
        if let Some(field) = root.get("sync")
            && let Some(sync) = read::sync(&field, &base.sync)
        {
            config.sync = sync;
        }
        if let Some(field) = root.get("snapshot")
            && let Some(snapshot) = read::snapshot(&field, &base.snapshot)
        {
            config.snapshot = snapshot;
        }
        root.finish();
    }
    let problems = checks.into_problems();
    if problems.is_empty() {
        Ok(config)
    } else {
        Err(problems)
    }
}
