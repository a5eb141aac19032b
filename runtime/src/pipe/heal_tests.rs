//! Which tables' rows follow those of which.

use super::*;
use crate::pipe::lost::tests::table;
use crate::source::mysql::catalog::SourceColumn;

fn name(table: &str) -> TableName {
    TableName::new("d", table)
}

fn reached(kinship: &Kinship, parent: &str, changes: Silent) -> Vec<String> {
    let reached = kinship.reached(&name(parent), changes);
    reached.into_iter().map(|name| name.table).collect()
}

#[test]
fn rows_follow_what_their_keys_say_and_in_turn_whatever_has_become_of_those() {
    let kinship = Kinship::default();
    let key = |parent: &str, on_delete, on_update| Cascade {
        parent: name(parent),
        on_delete,
        on_update,
        columns: vec!["id".to_owned()],
    };
    kinship.take_in([
        // Two keys of one child, and one that refers to itself.
        (
            name("line"),
            vec![key("bill", true, false), key("item", false, true)],
        ),
        (name("note"), vec![key("line", false, true)]),
        (
            name("bill"),
            vec![key("bill", true, false), key("buyer", true, true)],
        ),
    ]);
    let deletes = Silent {
        deletes: true,
        updates: false,
    };
    let updates = Silent {
        deletes: false,
        updates: true,
    };
    assert_eq!(
        reached(&kinship, "buyer", updates),
        ["bill", "line", "note"]
    );
    assert_eq!(reached(&kinship, "bill", deletes), ["bill", "line", "note"]);
    assert!(reached(&kinship, "bill", updates).is_empty());
    assert!(reached(&kinship, "item", deletes).is_empty());
    assert_eq!(reached(&kinship, "item", Silent::ANY), ["line", "note"]);
    assert!(reached(&kinship, "note", Silent::ANY).is_empty());
    // What a statement adds to a key that is known.
    kinship.take_in([(name("line"), vec![key("item", true, false)])]);
    assert_eq!(reached(&kinship, "item", deletes), ["line", "note"]);
    assert_eq!(reached(&kinship, "item", updates), ["line", "note"]);
}

/// pitfall 99
#[test]
fn updates_are_followed_by_what_keys_refer_to_until_a_column_may_have_another_name() {
    let column = |name: &str| SourceColumn {
        name: name.to_owned(),
        ..SourceColumn::sample("int")
    };
    let (parent, record) = table("buyer", |record| {
        record.source.columns = ["Id", "no", "x"].map(column).to_vec();
    });
    let key = |columns: &[&str], on_update| Cascade {
        parent: parent.clone(),
        on_delete: true,
        on_update,
        columns: columns.iter().map(ToString::to_string).collect(),
    };
    let kinship = Kinship::default();
    let followed = || kinship.followed_columns(&record.source);
    assert_eq!(followed(), Watched::default());
    kinship.take_in([(name("note"), vec![key(&["x"], false)])]);
    assert_eq!(followed(), Watched::default());
    kinship.take_in([(name("bill"), vec![key(&["iD"], true), key(&["no"], true)])]);
    assert_eq!(followed(), Watched::Columns(vec![0, 1]));
    kinship.lose_columns_of(|other| *other != parent);
    assert_eq!(followed(), Watched::Columns(vec![0, 1]));
    kinship.lose_columns_of(|other| *other == parent);
    assert_eq!(followed(), Watched::Any);
    for unknown in [&["gone"][..], &[]] {
        let kinship = Kinship::default();
        kinship.take_in([(name("bill"), vec![key(unknown, true)])]);
        assert_eq!(kinship.followed_columns(&record.source), Watched::Any);
    }
}
