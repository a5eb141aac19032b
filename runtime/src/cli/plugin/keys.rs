//! The keys of a plugin's configuration, for people: made of the JSON Schema that the plugin gives.
//!
//! The schema is the plugin's word, so it may be anything: what is no schema of keys is shown as it stands, references go
//! a few steps deep at most, and nothing in it reaches the terminal but text.

use std::fmt::Write;

use serde_json::Value;

use crate::one_line::one_line;

/// A configuration is a few levels deep; a schema may refer to itself.
const DEPTH: usize = 4;

/// Bytes of a line: a key with a paragraph about it.
const LINE_BYTES: usize = 4 << 10;

/// Of so many alternatives a line shows.
const ALTERNATIVES: usize = 12;

/// A line for each key: what it takes, whether it must be there, and what it means.
pub(super) fn described(schema: &str) -> Vec<String> {
    let root: Value = serde_json::from_str(schema).unwrap_or_default();
    let Some(keys) = root["properties"]
        .as_object()
        .filter(|keys| !keys.is_empty())
    else {
        return vec![one_line(schema, LINE_BYTES)];
    };
    let needed = |key: &str| {
        let mut names = root["required"].as_array().into_iter().flatten();
        names.any(|name| name == key)
    };
    keys.iter()
        .map(|(key, about)| {
            let mut line = format!("{key}: {}", kind(&root, about, DEPTH));
            if needed(key) {
                line.push_str(", needed");
            }
            if let Some(default) = about.get("default") {
                write!(line, ", by default {}", word(default)).ok();
            }
            if let Some(text) = about["description"].as_str() {
                write!(line, ". {text}").ok();
            }
            one_line(&line, LINE_BYTES)
        })
        .collect()
}

/// What fits, in a few words.
fn kind(root: &Value, about: &Value, depth: usize) -> String {
    let Some(depth) = depth.checked_sub(1) else {
        return "…".to_owned();
    };
    if let Some(target) = about["$ref"].as_str() {
        let found = target
            .strip_prefix('#')
            .and_then(|place| root.pointer(place));
        return found.map_or_else(|| target.to_owned(), |found| kind(root, found, depth));
    }
    if let Some(value) = about.get("const") {
        return word(value);
    }
    let listed = |key: &str| about[key].as_array();
    if let Some(values) = listed("enum") {
        return alternatives(values.iter().map(word));
    }
    if let Some(kinds) = listed("oneOf").or_else(|| listed("anyOf")) {
        let kinds = kinds.iter().filter(|about| about["type"] != "null");
        return alternatives(kinds.map(|about| kind(root, about, depth)));
    }
    match &about["type"] {
        Value::Array(names) => alternatives(names.iter().filter(|name| *name != "null").map(word)),
        Value::String(name) if name == "array" => {
            format!("list of {}", kind(root, &about["items"], depth))
        }
        Value::String(name) if name == "object" => match about["properties"].as_object() {
            Some(keys) => format!("keys {}", alternatives(keys.keys().cloned())),
            None => format!(
                "mapping to {}",
                kind(root, &about["additionalProperties"], depth)
            ),
        },
        Value::String(name) => name.clone(),
        _ => "any value".to_owned(),
    }
}

fn alternatives(words: impl Iterator<Item = String>) -> String {
    let mut words: Vec<String> = words.take(ALTERNATIVES + 1).collect();
    if words.len() > ALTERNATIVES {
        words[ALTERNATIVES] = "…".to_owned();
    }
    words.join(" | ")
}

/// A string without its quotes.
fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_is_a_line_with_what_it_takes_and_means() {
        let schema = json!({
            "required": ["columns"],
            "properties": {
                "columns": {
                    "type": "array",
                    "items": { "type": "string" },
                    "description": "The columns\nto hide.",
                },
                "method": { "$ref": "#/$defs/Method", "default": "null" },
                "salt": { "type": ["string", "null"] },
                "add": { "type": "object", "additionalProperties": { "type": "string" } },
                "policy": { "anyOf": [{ "$ref": "#/$defs/Method" }, { "type": "null" }] },
                "default": true,
                "steps": { "type": "array", "items": { "type": "object", "properties": { "a": true, "b": true } } },
            },
            "$defs": { "Method": { "oneOf": [{ "const": "hash" }, { "const": "null" }] } },
        });
        let expected = [
            "columns: list of string, needed. The columns to hide.",
            "method: hash | null, by default null",
            "salt: string",
            "add: mapping to string",
            "policy: hash | null",
            "default: any value",
            "steps: list of keys a | b",
        ];
        assert_eq!(described(&schema.to_string()), expected);
    }

    #[test]
    fn a_schema_that_is_none_or_has_no_end_is_shown_all_the_same() {
        assert_eq!(described("see\u{1b}[2J README"), ["see [2J README"]);
        assert_eq!(described("{}"), ["{}"]);
        let endless = json!({
            "properties": { "a": { "$ref": "#/properties/a" }, "b": { "$ref": "elsewhere" } },
        });
        assert_eq!(described(&endless.to_string()), ["a: …", "b: elsewhere"]);
    }
}
