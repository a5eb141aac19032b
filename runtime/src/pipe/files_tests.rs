//! What a changed file may not take back from a command, key by key.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::pipe::lost::tests::table;

fn removed(name: &str) -> Records {
    let removed = table(name, |record| record.state = TableState::Removed);
    Records {
        tables: BTreeMap::from([removed]),
        ..Records::default()
    }
}

fn document() -> Value {
    json!({
        "source": { "host": "a", "password": "first" },
        "destination": { "url": "http://a" },
        "snapshot": { "rows_per_partition": 1 },
        "sync": { "interval": "1s" },
        "tables": [{ "source": "s.removed" }, { "source": "s.added", "target": "one" }],
    })
}

fn overlay(set: &Value) -> Overlay {
    serde_json::from_value(set.clone()).expect("an overlay")
}

/// A conflict for each key that a command has set and the file sets otherwise; the command's value stays.
#[test]
fn each_key_that_a_command_was_first_with_is_refused_by_name() {
    let cases = [
        (
            json!({ "sync": { "interval": "5s" } }),
            "/sync/interval",
            json!("2s"),
            "sync.interval",
        ),
        (
            json!({ "snapshot": { "rows_per_partition": 7 } }),
            "/snapshot/rows_per_partition",
            json!(9),
            "snapshot.rows_per_partition",
        ),
        (
            json!({ "source": { "host": "b" } }),
            "/source/host",
            json!("c"),
            "source.host",
        ),
        (
            json!({ "destination": { "url": "http://b" } }),
            "/destination/url",
            json!("http://c"),
            "destination.url",
        ),
        (
            json!({ "tables": [{ "source": "s.added", "target": "two" }] }),
            "/tables/1/target",
            json!("three"),
            "tables[s.added]",
        ),
        (
            json!({}),
            "/tables/0",
            json!({ "source": "s.removed", "target": "x" }),
            "tables[s.removed]",
        ),
    ];
    let records = removed("removed");
    for (set, pointer, after, key) in cases {
        let (before, mut changed) = (document(), document());
        let place = changed.pointer_mut(pointer);
        *place.unwrap_or_else(|| panic!("{pointer}")) = after;
        let mut change = FileChange::new(overlay(&set), &records);
        let differences = config::compare(&before, &changed);
        assert_eq!(differences.len(), 1, "{differences:?}");
        differences
            .iter()
            .for_each(|difference| change.weigh(difference));
        assert_eq!(change.overlay, overlay(&set), "{key}");
        assert!(change.added.is_empty(), "{key}");
        let [conflict] = change.conflicts.as_slice() else {
            panic!("{key}: {:?}", change.conflicts);
        };
        assert!(
            conflict.message.contains(&format!("`{key}`")),
            "{conflict:?}"
        );
        assert!(conflict.remedy.is_some(), "{conflict:?}");
    }
}

#[test]
fn a_key_that_the_file_sets_as_a_command_did_is_the_files_own() {
    let set = json!({
        "sync": { "interval": "5s" },
        "snapshot": { "rows_per_partition": 7 },
        "tables": [{ "source": "s.added", "target": "two" }],
    });
    let mut changed = document();
    changed["sync"]["interval"] = json!("5s");
    changed["snapshot"]["rows_per_partition"] = json!(7);
    changed["tables"][1]["target"] = json!("two");
    let records = removed("removed");
    let mut change = FileChange::new(overlay(&set), &records);
    let differences = config::compare(&document(), &changed);
    assert_eq!(differences.len(), 3, "{differences:?}");
    differences
        .iter()
        .for_each(|difference| change.weigh(difference));
    assert!(change.conflicts.is_empty(), "{:?}", change.conflicts);
    assert!(change.overlay.is_empty(), "{:?}", change.overlay);
}

/// The values of secrets stand in no conflict.
#[test]
fn a_conflict_over_a_password_shows_neither_of_the_two() {
    let mut changed = document();
    changed["source"]["password"] = json!("hunter2");
    let set = json!({ "source": { "password": "letmein" } });
    let records = Records::default();
    let mut change = FileChange::new(overlay(&set), &records);
    let differences = config::compare(&document(), &changed);
    differences
        .iter()
        .for_each(|difference| change.weigh(difference));
    let told = format!("{:?}", change.conflicts);
    assert!(told.contains("source.password"), "{told}");
    for secret in ["hunter2", "letmein", "first"] {
        assert!(!told.contains(secret), "{told}");
    }
}
