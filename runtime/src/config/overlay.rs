//! Changes that commands have laid over a pipe file, and how documents of one pipe differ.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use super::section::{Checks, Folders, Section};
use super::{
    PipeConfig, Problem, Secrets, TablePattern, ends, environment, interpolate, node, read, tables,
};
use crate::batch::TableName;

/// The ends of a pipe, whose passwords are never shown.
const ENDS: [&str; 2] = ["source", "destination"];

/// `base` with the tables of `change` added, or put in the place of entries for the same source, its settings replaced key
/// by key, and its `exclude` as a whole. `change` is a map with any of the keys `source`, `destination`, `tables`, `exclude`,
/// `sync` and `snapshot`, written as in the pipe file; `${...}` is replaced in the first two alone, files of secrets lying in
/// `folders`. A table that an entry of `tables` names beats the list.
///
/// # Errors
/// All problems, each with its key.
pub fn lay_over(
    base: &PipeConfig,
    change: &Value,
    folders: &Folders,
) -> Result<PipeConfig, Vec<Problem>> {
    let checks = Checks::of_sent(folders);
    // Every JSON document is a YAML document.
    let mut documents = node::parse(&change.to_string(), &checks);
    for document in &mut documents {
        interpolate::interpolate_at(document, &ENDS, &checks, &environment);
    }
    let mut config = base.clone();
    let root = documents.first().map(|document| super::field::Field {
        checks: &checks,
        node: document,
        path: String::new(),
    });
    if let Some(mut root) = root.as_ref().and_then(super::field::Field::section) {
        lay_over_ends(base, &mut root, &mut config);
        let transforms: Vec<String> = base.transforms.keys().cloned().collect();
        if let Some(field) = root.get("tables") {
            let read = tables::read(&field, &transforms, base.keyless);
            let mut entries = read.0.unwrap_or_default();
            tables::exclude(&mut entries, &base.exclude);
            for entry in entries {
                // What a command says of a table counts, whatever the file says of it.
                config.tables.retain(|known| known.source != entry.source);
                config.tables.push(entry);
            }
        }
        if let Some(field) = root.get("exclude")
            && let Some(excluded) = tables::excluded(&field, &[])
        {
            tables::exclude(&mut config.tables, &excluded);
            config.exclude = excluded;
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

fn lay_over_ends(base: &PipeConfig, root: &mut Section<'_>, config: &mut PipeConfig) {
    if let Some(field) = root.get("source")
        && let Some(source) = ends::source_over(&field, Secrets::Resolve, &base.source)
    {
        config.source = source;
    }
    if let Some(field) = root.get("destination")
        && let Some(destination) = ends::destination_over(&field, &base.destination)
    {
        config.destination = destination;
    }
}

/// The name of an entry of `tables`, whichever way its source is written.
pub fn source_of(entry: &Value) -> String {
    let source = entry.get("source").unwrap_or(&Value::Null);
    let part = |key: &str| source.get(key).and_then(Value::as_str);
    match (source.as_str(), part("database"), part("table")) {
        (Some(text), ..) => text.to_owned(),
        // A star or a dot is then a character of the name, which the other form cannot say.
        (None, Some(database), Some(table)) if table.contains(['*', '.']) => {
            format!("{{{database}, {table}}}")
        }
        (None, Some(database), Some(table)) => format!("{database}.{table}"),
        _ => source.to_string(),
    }
}

/// A key that stands otherwise, or not at all, in one of two documents.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The key: `sync.interval`, or `tables[shop.orders]` for a whole entry.
    pub key: String,
    /// What the first document says; none when it says nothing.
    pub before: Option<Value>,
    /// What the second says.
    pub after: Option<Value>,
}

/// What has changed between two documents of one pipe. Entries of `tables` are told apart by their sources, so their order
/// does not matter.
pub fn compare(before: &Value, after: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare_at("", Some(before), Some(after), &mut found);
    found
}

fn compare_at(
    key: &str,
    before: Option<&Value>,
    after: Option<&Value>,
    found: &mut Vec<Difference>,
) {
    if before == after {
        return;
    }
    let below = |value: Option<&Value>| -> Option<Vec<(String, Value)>> {
        match (key, value?) {
            ("tables", Value::Array(entries)) => {
                let name = |entry: &Value| format!("tables[{}]", source_of(entry));
                Some(
                    entries
                        .iter()
                        .map(|entry| (name(entry), entry.clone()))
                        .collect(),
                )
            }
            // One table and one plugin are taken up whole or not at all.
            (_, Value::Object(map))
                if !key.starts_with("tables[") && key.matches('.').count() < 1 =>
            {
                let name = |name: &String| match key {
                    "" => name.clone(),
                    key => format!("{key}.{name}"),
                };
                Some(
                    map.iter()
                        .map(|(key, value)| (name(key), value.clone()))
                        .collect(),
                )
            }
            _ => None,
        }
    };
    let (old, new) = match (below(before), below(after)) {
        (Some(old), Some(new)) => (old, new),
        (None, Some(new)) if before.is_none() => (Vec::new(), new),
        (Some(old), None) if after.is_none() => (old, Vec::new()),
        _ => {
            found.push(Difference {
                key: key.to_owned(),
                before: before.cloned(),
                after: after.cloned(),
            });
            return;
        }
    };
    let known: HashSet<&String> = old.iter().map(|(key, _)| key).collect();
    let now: HashMap<&String, &Value> = new.iter().map(|(key, value)| (key, value)).collect();
    for (key, before) in &old {
        compare_at(key, Some(before), now.get(key).copied(), found);
    }
    for (key, after) in new.iter().filter(|(key, _)| !known.contains(key)) {
        compare_at(key, None, Some(after), found);
    }
}

/// `document` with an overlay laid over it: what a file would have to say for the pipe to run as it does. `overlay` is as
/// for [`lay_over`]; `removed` are tables that were taken out, which no wildcard means any more.
pub fn merged(document: &Value, overlay: &Value, removed: &[TableName]) -> Value {
    let mut merged = document.clone();
    for section in ["source", "destination", "sync", "snapshot"] {
        if let Some(Value::Object(set)) = overlay.get(section) {
            for (key, value) in set {
                merged[section][key] = value.clone();
            }
        }
    }
    let mut tables = document["tables"].as_array().cloned().unwrap_or_default();
    for entry in overlay["tables"].as_array().into_iter().flatten() {
        tables.retain(|known| source_of(known) != source_of(entry));
        tables.push(entry.clone());
    }
    let is_removed = |source: &TablePattern| removed.iter().any(|name| source.matches(name));
    tables.retain(|entry| {
        let source = written(&entry["source"]);
        source.is_wildcard() || !is_removed(&source)
    });
    let before = document["exclude"].as_array();
    let set = overlay["exclude"].as_array().or(before);
    let excluded = excluded(set.map_or(&[], Vec::as_slice), &tables, removed);
    if excluded.as_slice() != before.map_or(&[][..], Vec::as_slice) {
        merged["exclude"] = Value::Array(excluded);
    }
    merged["tables"] = Value::Array(tables);
    merged
}

/// What no wildcard of `tables` may mean: what was so `before`, less what an entry names by now, and what was taken out.
fn excluded(before: &[Value], tables: &[Value], removed: &[TableName]) -> Vec<Value> {
    let sources = tables.iter().map(|entry| written(&entry["source"]));
    let (wild, exact): (Vec<_>, Vec<_>) = sources.partition(TablePattern::is_wildcard);
    let names = |one: &TablePattern| TableName::new(one.database.as_str(), one.table.as_str());
    let mut excluded = before.to_vec();
    excluded.retain(|item| {
        let item = written(item);
        item.is_wildcard() || !exact.iter().any(|entry| entry.matches(&names(&item)))
    });
    for name in removed {
        let known = excluded.iter().any(|item| written(item).matches(name));
        if !known && wild.iter().any(|entry| entry.matches(name)) {
            excluded.push(source_for(name));
        }
    }
    excluded
}

/// What an entry of `tables` means.
pub fn pattern_of(entry: &Value) -> TablePattern {
    written(&entry["source"])
}

/// What the value of a `source`, or of an item of `exclude`, means.
fn written(source: &Value) -> TablePattern {
    let text = source.as_str().and_then(|text| text.split_once('.'));
    let part = |key: &str| source[key].as_str().unwrap_or_default();
    let (database, table) = text.unwrap_or_else(|| (part("database"), part("table")));
    TablePattern {
        database: database.to_owned(),
        table: table.to_owned(),
        literal: text.is_none(),
        except: Vec::new(),
    }
}

/// The shortest way to write one table.
fn source_for(name: &TableName) -> Value {
    let plain = |part: &String| !part.is_empty() && !part.contains(['.', '*', '`', '"']);
    match plain(&name.database) && plain(&name.table) {
        true => name.to_string().into(),
        false => json!({ "database": name.database, "table": name.table }),
    }
}

/// `document` as it may be shown: `***` stands for a password that is written out.
pub fn shown(document: &Value) -> Value {
    let mut shown = document.clone();
    for end in ENDS {
        if let Some(password) = shown.get_mut(end).and_then(|end| end.get_mut("password")) {
            *password = shown_password(password);
        }
    }
    shown
}

/// The value of a key as it may be shown.
pub fn shown_at(key: &str, value: &Value) -> Value {
    match key {
        "source.password" | "destination.password" => shown_password(value),
        // A section that one of two documents lacks.
        "source" | "destination" => shown(&json!({ key: value }))[key].clone(),
        _ => value.clone(),
    }
}

fn shown_password(password: &Value) -> Value {
    match password {
        Value::Null => Value::Null,
        Value::String(text) if text.is_empty() || is_reference(text) => password.clone(),
        _ => "***".into(),
    }
}

/// Whether a text is one `${...}` that writes nothing out, not even as its default.
fn is_reference(text: &str) -> bool {
    let inner = text
        .strip_prefix("${")
        .and_then(|rest| rest.strip_suffix('}'));
    inner.is_some_and(|inner| {
        let written = inner.split_once(":-").map_or("", |(_, default)| default);
        !inner.contains(['{', '}']) && written.is_empty()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(before: &Value, after: &Value) -> Vec<String> {
        let found = compare(before, after);
        found.into_iter().map(|difference| difference.key).collect()
    }

    #[test]
    fn documents_are_compared_key_by_key_and_tables_by_source() {
        let before = json!({
            "pipe": "shop",
            "tables": [{ "source": "s.a" }, { "source": "s.b", "target": "x" }, { "source": "s.gone" }],
            "sync": { "interval": "1s", "max_rows": 5 },
        });
        let after = json!({
            "pipe": "shop",
            "tables": [
                { "source": { "database": "s", "table": "b" }, "target": "x" },
                { "source": "s.a", "order_by": ["id"] },
                { "source": "s.new" },
            ],
            "sync": { "interval": "2s", "max_rows": 5 },
            "snapshot": { "threads_per_table": 2 },
        });
        let found = keys(&before, &after);
        for key in [
            "tables[s.a]",
            "tables[s.gone]",
            "tables[s.new]",
            "sync.interval",
            "snapshot.threads_per_table",
        ] {
            assert!(
                found.contains(&key.to_owned()),
                "{key} is not among {found:?}"
            );
        }
        assert!(!found.contains(&"sync.max_rows".to_owned()), "{found:?}");
        assert!(keys(&after, &after).is_empty());
    }

    #[test]
    fn the_merged_document_says_what_runs() {
        let document = json!({
            "source": { "host": "a", "port": 1 },
            "tables": [{ "source": "s.*", "transforms": ["m"] }, { "source": "s.a" }, { "source": "t.b" }],
            "exclude": ["s.tmp_*", "u.c"],
            "sync": { "interval": "1s" },
        });
        let overlay = json!({
            "source": { "host": "b" },
            "sync": { "interval": "2s" },
            "tables": [{ "source": "u.c" }],
        });
        let name = |database: &str, table: &str| TableName::new(database, table);
        let removed = [
            name("t", "b"),
            name("s", "old"),
            name("s", "o*d"),
            name("s", "tmp_1"),
        ];
        let merged = merged(&document, &overlay, &removed);
        assert_eq!(merged["source"], json!({ "host": "b", "port": 1 }));
        assert_eq!(merged["sync"]["interval"], "2s");
        let tables = json!([
            { "source": "s.*", "transforms": ["m"] },
            { "source": "s.a" },
            { "source": "u.c" },
        ]);
        assert_eq!(merged["tables"], tables);
        let exclude = json!(["s.tmp_*", "s.old", { "database": "s", "table": "o*d" }]);
        assert_eq!(merged["exclude"], exclude);
        let set = json!({ "exclude": ["s.x"] });
        let merged_with_set = super::merged(&document, &set, &removed);
        let exclude = json!(["s.x", "s.old", { "database": "s", "table": "o*d" }, "s.tmp_1"]);
        assert_eq!(merged_with_set["exclude"], exclude);
        // What it says already needs no second word.
        let again = super::merged(&merged, &json!({}), &removed);
        assert_eq!(again, merged);
    }

    #[test]
    fn a_password_that_is_written_out_is_not_shown() {
        let document = json!({
            "source": { "password": "canary" },
            "destination": { "password": "${FROM_ELSEWHERE}" },
        });
        let shown = shown(&document);
        assert_eq!(shown["source"]["password"], "***");
        assert_eq!(shown["destination"]["password"], "${FROM_ELSEWHERE}");
        for (written, expected) in [
            ("${file:secret}", "${file:secret}"),
            ("${NAME:-}", "${NAME:-}"),
            ("", ""),
            ("${NAME:-canary}", "***"),
            ("canary${NAME}", "***"),
            ("$${canary}", "***"),
            ("${A}canary${B}", "***"),
        ] {
            let password = shown_at("source.password", &json!(written));
            assert_eq!(password, expected, "{written}");
        }
        let section = shown_at("destination", &json!({ "password": "canary", "user": "u" }));
        assert_eq!(section, json!({ "password": "***", "user": "u" }));
    }
}
