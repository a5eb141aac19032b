//! What is told of tables that cannot join, and for how long it stands.

use super::*;
use crate::error::ErrorKind;

fn refusal(name: &TableName, message: &str) -> Refused {
    Refused {
        name: name.clone(),
        error: Error::new(ErrorKind::Unsupported, message.to_owned()).with_hint("mend it"),
        named: false,
    }
}

#[test]
fn a_table_outside_is_told_of_once_and_again_when_it_is_refused_for_something_else() {
    let outside = Outside::default();
    let (a, b) = (TableName::new("s", "a"), TableName::new("s", "b"));
    let told = outside.set(&[refusal(&a, "no key")]);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].table.as_deref(), Some("s.a"));
    let remedy = told[0].remedy.clone().unwrap_or_default();
    assert!(
        remedy.contains("mend it") && remedy.contains("exclude"),
        "{remedy}"
    );
    let since = told[0].since;

    let told = outside.set(&[refusal(&a, "no key"), refusal(&b, "no key")]);
    let tables: Vec<_> = told.iter().map(|reason| reason.table.as_deref()).collect();
    assert_eq!(tables, [Some("s.b")]);
    assert_eq!(outside.reasons().len(), 2);
    assert_eq!(outside.reasons()[0].since, since);

    let told = outside.set(&[refusal(&b, "another thing")]);
    assert_eq!(told.len(), 1);
    assert_eq!(
        outside.reasons().len(),
        1,
        "the first can join, or has gone"
    );
    assert!(outside.set(&[]).is_empty());
    assert!(outside.reasons().is_empty());
}

#[test]
fn a_table_that_is_added_to_those_outside_lets_them_stand_and_is_told_how_to_leave_it_out() {
    let outside = Outside::default();
    let (a, b) = (TableName::new("s", "a"), TableName::new("s", "b"));
    outside.set(&[refusal(&a, "no key")]);
    let named = Refused {
        named: true,
        ..refusal(&b, "no key")
    };
    let told = outside.add([&named, &refusal(&a, "no key")]);
    let tables: Vec<_> = told.iter().map(|reason| reason.table.as_deref()).collect();
    assert_eq!(tables, [Some("s.b")], "only what is new is told of");
    let remedy = told[0].remedy.clone().unwrap_or_default();
    assert!(
        remedy.contains("`tables`") && !remedy.contains("exclude"),
        "{remedy}"
    );
    assert_eq!(outside.reasons().len(), 2);
}
