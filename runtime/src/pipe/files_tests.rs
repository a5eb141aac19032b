//! What a changed file may not take back from a command, key by key.

use serde_json::json;

use super::*;
use crate::pipe::lifecycle::Resume;
use crate::pipe::lost::tests::table;
use crate::state::StateStore;

fn removed(name: &str) -> Records {
    let removed = table(name, |record| record.state = TableState::Removed);
    Records {
        tables: [removed].into_iter().collect(),
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
        let differences = config::compare(&before, &changed);
        assert_eq!(differences.len(), 1, "{differences:?}");
        let change = FileChange::weighed(overlay(&set), &records, &differences);
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
    let differences = config::compare(&document(), &changed);
    assert_eq!(differences.len(), 3, "{differences:?}");
    let change = FileChange::weighed(overlay(&set), &records, &differences);
    assert!(change.conflicts.is_empty(), "{:?}", change.conflicts);
    assert!(change.overlay.is_empty(), "{:?}", change.overlay);
}

#[test]
fn an_entry_whose_table_was_never_taken_in_is_new_when_it_is_written_otherwise() {
    let mut changed = document();
    changed["tables"][1]["target"] = json!("two");
    let differences = config::compare(&document(), &changed);
    for (had, added) in [("other", 1), ("added", 0)] {
        let record = table(had, |record| record.state = TableState::Streaming);
        let records = Records {
            tables: [record].into_iter().collect(),
            ..Records::default()
        };
        let change = FileChange::weighed(Overlay::default(), &records, &differences);
        assert_eq!(change.added.len(), added, "{had}: {:?}", change.added);
        assert!(change.conflicts.is_empty(), "{:?}", change.conflicts);
    }
}

/// The values of secrets stand in no conflict.
#[test]
fn a_conflict_over_a_password_shows_neither_of_the_two() {
    let mut changed = document();
    changed["source"]["password"] = json!("hunter2");
    let set = json!({ "source": { "password": "letmein" } });
    let records = Records::default();
    let differences = config::compare(&document(), &changed);
    let change = FileChange::weighed(overlay(&set), &records, &differences);
    let told = format!("{:?}", change.conflicts);
    assert!(told.contains("source.password"), "{told}");
    for secret in ["hunter2", "letmein", "first"] {
        assert!(!told.contains(secret), "{told}");
    }
}

/// Whether it is paused still, being paused, or was about to take in other tables; one that is at work is left alone.
#[tokio::test]
async fn a_pipe_that_was_paused_for_want_of_its_file_goes_on_from_every_stage_of_the_pause() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = StateStore::open(folder.path()).expect("an empty folder opens");
    let store = PipeStore::open(state, "shop").await.expect("it opens");
    store.begin(1).await.expect("a record");
    let running = Resume::Running;
    let at_work = PipeState::Modifying {
        paused: false,
        resume: running,
    };
    for (before, after) in [
        (PipeState::Pausing { resume: running }, PipeState::Running),
        (PipeState::Paused { resume: running }, PipeState::Running),
        (
            PipeState::Modifying {
                paused: true,
                resume: Resume::Snapshot,
            },
            PipeState::Snapshot,
        ),
        (at_work.clone(), at_work),
    ] {
        let set = before.clone();
        store
            .commit(|draft| {
                draft.pipe_mut().state = set;
                Ok(())
            })
            .await
            .expect("written");
        resume(&store).await.expect("written");
        assert_eq!(store.records().state(), after, "from {before:?}");
    }
}
