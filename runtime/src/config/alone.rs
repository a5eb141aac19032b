//! One entry of `transforms` without a pipe around it: what an author's case says of a plugin.

use std::path::Path;

use super::section::Checks;
use super::{Problem, Secrets, TransformConfig, node, transforms};

/// Reads an entry, written as in the pipe file. Relative paths are relative to `file`; nothing is replaced from the
/// environment.
///
/// # Errors
/// All problems, each with its key.
pub fn transform_alone(
    name: &str,
    entry: &serde_json::Value,
    file: &Path,
) -> Result<TransformConfig, Vec<Problem>> {
    let checks = Checks::new(file);
    // Every JSON document is a YAML document.
    let document = serde_json::json!({ "transforms": { name: entry } });
    let documents = node::parse(&document.to_string(), &checks);
    let root = documents.first().map(|document| super::field::Field {
        checks: &checks,
        node: document,
        path: String::new(),
    });
    let mut found = None;
    if let Some(mut root) = root.as_ref().and_then(super::field::Field::section)
        && let Some(field) = root.get("transforms")
    {
        let (transforms, _) = transforms::read(&field, Secrets::Resolve);
        found = transforms.and_then(|mut transforms| transforms.remove(name));
    }
    let problems = checks.into_problems();
    match found {
        Some(transform) if problems.is_empty() => Ok(transform),
        _ => Err(problems),
    }
}
