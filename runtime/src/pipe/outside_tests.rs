//! What is told of tables that cannot join, and for how long it stands.

use super::*;
use crate::error::ErrorKind;

fn refusal(message: &str) -> Error {
    Error::new(ErrorKind::Unsupported, message.to_owned()).with_hint("mend it")
}

#[test]
fn a_table_outside_is_told_of_once_and_again_when_it_is_refused_for_something_else() {
    let outside = Outside::default();
    let (a, b) = (TableName::new("s", "a"), TableName::new("s", "b"));
    let told = outside.set(&[(a.clone(), refusal("no key"))]);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].table.as_deref(), Some("s.a"));
    let remedy = told[0].remedy.clone().unwrap_or_default();
    assert!(
        remedy.contains("mend it") && remedy.contains("exclude"),
        "{remedy}"
    );
    let since = told[0].since;

    let told = outside.set(&[(a, refusal("no key")), (b.clone(), refusal("no key"))]);
    let tables: Vec<_> = told.iter().map(|reason| reason.table.as_deref()).collect();
    assert_eq!(tables, [Some("s.b")]);
    assert_eq!(outside.reasons().len(), 2);
    assert_eq!(outside.reasons()[0].since, since);

    let told = outside.set(&[(b, refusal("another thing"))]);
    assert_eq!(told.len(), 1);
    assert_eq!(
        outside.reasons().len(),
        1,
        "the first can join, or has gone"
    );
    assert!(outside.set(&[]).is_empty());
    assert!(outside.reasons().is_empty());
}
