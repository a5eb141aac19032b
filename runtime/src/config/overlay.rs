//! Changes that commands have laid over a pipe file, and how documents of one pipe differ.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde_json::{Value, json};

use super::section::Checks;
use super::{PipeConfig, Problem, TablePattern, node, read, tables};
use crate::batch::TableName;

/// `base` with the tables of `change` added, or put in the place of entries for the same source, and its settings replaced key by key. `change` is a map with any of the keys
/// `tables`, `sync` and `snapshot`, written as in the pipe file; nothing in it is replaced from the environment.
///
/// # Errors
/// All problems, each with its key.
pub fn lay_over(base: &PipeConfig, change: &Value) -> Result<PipeConfig, Vec<Problem>> {
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
/// for [`lay_over`]; `removed` are tables that were taken out, and `carried` the ones that the pipe has, which stand in
/// the place of a wildcard that means a removed one.
pub fn merged(
    document: &Value,
    overlay: &Value,
    removed: &[TableName],
    carried: &[TableName],
) -> Value {
    let mut merged = document.clone();
    for section in ["sync", "snapshot"] {
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
    let exact: Vec<String> = tables.iter().map(source_of).collect();
    let tables = tables
        .into_iter()
        .flat_map(|entry| without(entry, removed, carried, &exact))
        .collect();
    merged["tables"] = Value::Array(tables);
    merged
}

/// An entry as it is, nothing for a removed table, or the tables that a wildcard still means.
fn without(
    entry: Value,
    removed: &[TableName],
    carried: &[TableName],
    exact: &[String],
) -> Vec<Value> {
    let pattern = match (&entry["source"], source_of(&entry).split_once('.')) {
        (Value::String(_), Some((database, table))) => TablePattern {
            database: database.to_owned(),
            table: table.to_owned(),
            literal: false,
        },
        (source, _) => TablePattern {
            database: source["database"].as_str().unwrap_or_default().to_owned(),
            table: source["table"].as_str().unwrap_or_default().to_owned(),
            literal: true,
        },
    };
    let gone = |name: &&TableName| {
        pattern.matches(name) && (!pattern.is_wildcard() || !exact.contains(&name.to_string()))
    };
    if !removed.iter().any(|name| gone(&name)) {
        return vec![entry];
    }
    if !pattern.is_wildcard() {
        return Vec::new();
    }
    let own = carried.iter().filter(gone);
    own.map(|name| {
        let mut entry = entry.clone();
        entry["source"] = json!({ "database": name.database, "table": name.table });
        entry
    })
    .collect()
}

/// `document` as it may be shown: `***` stands for a password that is written out.
pub fn shown(document: &Value) -> Value {
    let mut shown = document.clone();
    for end in ["source", "destination"] {
        if let Some(password) = shown.get_mut(end).and_then(|end| end.get_mut("password"))
            && !password
                .as_str()
                .is_some_and(|text| text.is_empty() || text.contains("${"))
        {
            *password = "***".into();
        }
    }
    shown
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
            "tables": [{ "source": "s.*", "transforms": ["m"] }, { "source": "s.a" }, { "source": "t.b" }],
            "sync": { "interval": "1s" },
        });
        let overlay = json!({ "sync": { "interval": "2s" }, "tables": [{ "source": "u.c" }] });
        let name = |database: &str, table: &str| TableName::new(database, table);
        let removed = [name("t", "b"), name("s", "old")];
        let carried = [name("s", "a"), name("s", "kept"), name("u", "c")];
        let merged = merged(&document, &overlay, &removed, &carried);
        assert_eq!(merged["sync"]["interval"], "2s");
        assert_eq!(
            merged["tables"],
            json!([
                { "source": { "database": "s", "table": "kept" }, "transforms": ["m"] },
                { "source": "s.a" },
                { "source": "u.c" },
            ])
        );
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
    }
}
