//! `${NAME}`, `${NAME:-default}`, `${file:path}` and `$$` inside the strings of a parsed document.
//!
//! It runs on the tree, so a value can hold colons, quotes and line ends without changing the document's shape, and
//! comments are never looked at.

use std::path::Path;

use super::Secrets;
use super::node::{Node, Origin, Place, Text, Value};
use super::section::{Checks, Whose};

/// A mounted secret longer than this is some other file.
const SECRET_FILE_BYTES_MAX: u64 = 64 * 1024;

/// Replaces the references in every string of `node`. Keys are left alone.
pub(super) fn interpolate(
    node: &mut Node,
    checks: &Checks,
    environment: &dyn Fn(&str) -> Option<String>,
    secrets: Secrets,
) {
    Interpolation {
        checks,
        environment,
        secrets,
    }
    .walk(node, "");
}

/// The same in the values of `keys` alone.
pub(super) fn interpolate_at(
    node: &mut Node,
    keys: &[&str],
    checks: &Checks,
    environment: &dyn Fn(&str) -> Option<String>,
) {
    let interpolation = Interpolation {
        checks,
        environment,
        secrets: Secrets::Resolve,
    };
    if let Value::Map(entries) = &mut node.value {
        for (key, value) in entries {
            if keys.contains(&key.name.as_str()) {
                interpolation.walk(value, &key.name);
            }
        }
    }
}

struct Interpolation<'a> {
    checks: &'a Checks,
    environment: &'a dyn Fn(&str) -> Option<String>,
    secrets: Secrets,
}

/// Why a reference has no value: what was found, and what to do.
struct Missing {
    found: String,
    expected: String,
    remedy: String,
}

impl Interpolation<'_> {
    fn walk(&self, node: &mut Node, path: &str) {
        match &mut node.value {
            Value::Text(text) => self.text(text, node.place, path),
            Value::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.walk(item, &format!("{path}[{index}]"));
                }
            }
            Value::Map(entries) => {
                for (key, value) in entries {
                    let path = if path.is_empty() {
                        key.name.clone()
                    } else {
                        format!("{path}.{}", key.name)
                    };
                    self.walk(value, &path);
                }
            }
            Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) => {}
        }
    }

    fn text(&self, text: &mut Text, place: Place, path: &str) {
        if !text.value.contains('$') {
            return;
        }
        let mut out = String::new();
        let mut origin = Origin::Literal;
        let mut rest = text.value.as_str();
        while let Some((before, after)) = rest.split_once('$') {
            out.push_str(before);
            if let Some(after) = after.strip_prefix('$') {
                out.push('$');
                rest = after;
            } else if let Some(after) = after.strip_prefix('{') {
                let Some((reference, after)) = after.split_once('}') else {
                    self.checks.report(
                        place,
                        path,
                        "`${` without its `}`",
                        "`${NAME}`, `${NAME:-default}` or `${file:path}`",
                        "close the reference, or write `$${` for the characters themselves",
                    );
                    text.origin = Origin::Unresolved;
                    return;
                };
                match self.resolve(reference) {
                    Ok(Some(value)) => {
                        out.push_str(&value);
                        if origin == Origin::Literal {
                            origin = Origin::Resolved;
                        }
                    }
                    Ok(None) => {
                        out.push_str("${");
                        out.push_str(reference);
                        out.push('}');
                        origin = Origin::Unresolved;
                    }
                    Err(missing) => {
                        self.checks.report(
                            place,
                            path,
                            missing.found,
                            missing.expected,
                            missing.remedy,
                        );
                        origin = Origin::Unresolved;
                    }
                }
                rest = after;
            } else {
                out.push('$');
                rest = after;
            }
        }
        out.push_str(rest);
        text.value = out;
        text.origin = origin;
    }

    /// The value of what stands between `${` and `}`; none when it is left as written.
    fn resolve(&self, reference: &str) -> Result<Option<String>, Missing> {
        if let Some(path) = reference.strip_prefix("file:") {
            return self.file(path);
        }
        let (name, default) = match reference.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (reference, None),
        };
        if !is_variable(name) {
            return Err(Missing {
                found: "a reference that names no variable".to_owned(),
                expected: "`${NAME}`, `${NAME:-default}` or `${file:path}`".to_owned(),
                remedy: "use letters, digits and `_`, or write `$${` for the characters themselves"
                    .to_owned(),
            });
        }
        match ((self.environment)(name), default) {
            // As shells have it, an empty variable takes the default too.
            (Some(value), Some(default)) if value.is_empty() => Ok(Some(default.to_owned())),
            (Some(value), _) => Ok(Some(value)),
            (None, Some(default)) => Ok(Some(default.to_owned())),
            (None, None) if self.secrets == Secrets::Offline => Ok(None),
            (None, None) => Err(Missing {
                found: format!("`${{{name}}}`, which is not set"),
                expected: "a variable of the environment".to_owned(),
                remedy: format!("set {name}, or give a default: `${{{name}:-value}}`"),
            }),
        }
    }

    fn file(&self, path: &str) -> Result<Option<String>, Missing> {
        if self.secrets == Secrets::Offline {
            return Ok(None);
        }
        let found = |why: String| format!("`${{file:{path}}}`, {why}");
        let expected = "a readable text file; the path is relative to the pipe file";
        let full = self.checks.relative(Path::new(path), Whose::Secret);
        let full = full.map_err(|why| Missing {
            found: found(why),
            expected: expected.to_owned(),
            remedy: "give a plain path relative to that folder".to_owned(),
        })?;
        let missing = |why: String| Missing {
            found: found(why),
            expected: expected.to_owned(),
            remedy: format!("mount the secret at {}, or change the path", full.display()),
        };
        let bytes = std::fs::metadata(&full)
            .map_err(|error| missing(format!("which cannot be read ({error})")))?
            .len();
        if bytes > SECRET_FILE_BYTES_MAX {
            return Err(missing(format!(
                "which holds {bytes} bytes, more than {SECRET_FILE_BYTES_MAX}"
            )));
        }
        let mut text = std::fs::read_to_string(&full)
            .map_err(|error| missing(format!("which cannot be read ({error})")))?;
        // Editors and `echo` end a file with a line end that is no part of the secret.
        if text.ends_with('\n') {
            text.pop();
            if text.ends_with('\r') {
                text.pop();
            }
        }
        Ok(Some(text))
    }
}

fn is_variable(name: &str) -> bool {
    let mut characters = name.chars();
    characters
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && characters.all(|next| next.is_ascii_alphanumeric() || next == '_')
}
