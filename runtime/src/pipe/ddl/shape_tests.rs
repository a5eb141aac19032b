//! Columns through several ALTERs.

use super::*;
use crate::batch::{Column, ColumnType, TableName};

fn table(columns: &[(&str, &str)]) -> SourceTable {
    let described = columns.iter().map(|(name, data_type)| Column {
        name: (*name).to_owned(),
        column_type: ColumnType::Text,
        nullable: false,
        source_type: (*data_type).to_owned(),
    });
    let column = |(index, (name, data_type)): (usize, &(&str, &str))| SourceColumn {
        name: (*name).to_owned(),
        included: Some(index),
        nullable: false,
        ..SourceColumn::sample(data_type)
    };
    SourceTable {
        schema: Arc::new(TableSchema {
            name: TableName::new("d", "t"),
            columns: described.collect(),
            key: vec![0],
        }),
        columns: columns.iter().enumerate().map(column).collect(),
        date_rules: BTreeMap::new(),
        keeps_null: BTreeMap::new(),
        key_is_primary: true,
        transactional: Some(true),
        unique_keys: Vec::new(),
    }
}

fn alter(clauses: &[Clause]) -> Alter {
    Alter {
        ignore: false,
        clauses: clauses.to_vec(),
    }
}

fn s(text: &str) -> String {
    text.to_owned()
}

fn rename(from: &str, to: &str) -> Clause {
    Clause::Rename(s(from), s(to))
}

/// The columns behind the first statement, with their types and origins.
fn first(
    before: &[(&str, &str)],
    series: &[Alter],
    now: &[(&str, &str)],
) -> Option<Vec<(String, String, Option<usize>)>> {
    let series: Vec<&Alter> = series.iter().collect();
    let shape = behind_first(&table(before), &series, &table(now))?;
    let columns = shape.table.columns.into_iter().zip(shape.origins);
    Some(
        columns
            .map(|(column, origin)| (column.name, column.data_type, origin))
            .collect(),
    )
}

const OLD: [(&str, &str); 3] = [("id", "int"), ("a", "int"), ("b", "text")];

#[test]
fn one_statement_is_as_the_catalog_shows_it() {
    let swap = alter(&[rename("a", "b"), rename("b", "a")]);
    let now = [("id", "int"), ("b", "int"), ("a", "text")];
    let expected = vec![
        (s("id"), s("int"), Some(0)),
        (s("b"), s("int"), Some(1)),
        (s("a"), s("text"), Some(2)),
    ];
    assert_eq!(first(&OLD, &[swap], &now), Some(expected));
    let replaced = alter(&[Clause::Drop(s("a")), Clause::Add(s("a"), Place::First)]);
    let now = [("a", "date"), ("id", "int"), ("b", "text")];
    let found = first(&OLD, &[replaced], &now).expect("a shape");
    assert_eq!(found[0], (s("a"), s("date"), None));
}

/// pitfall 113: the catalog is ahead of the binlog.
#[test]
fn what_later_statements_did_is_taken_back() {
    let series = [
        alter(&[Clause::Add(s("c"), Place::After(s("id")))]),
        alter(&[rename("c", "d"), Clause::Drop(s("a"))]),
        alter(&[Clause::Change(s("b"), s("b"), Place::First)]),
    ];
    let now = [("b", "longtext"), ("id", "int"), ("d", "date")];
    let expected = vec![
        (s("id"), s("int"), Some(0)),
        (s("c"), s("date"), None),
        (s("a"), s("int"), Some(1)),
        (s("b"), s("text"), Some(2)),
    ];
    assert_eq!(first(&OLD, &series, &now), Some(expected));
}

/// What is taken for a key that was not there yet would let a table pass that has left rows out.
#[test]
fn unique_keys_are_the_catalogs_unless_a_later_statement_may_have_changed_one() {
    let mut now = table(&OLD);
    now.unique_keys = vec![UniqueKey::sample("a")];
    let (key, nothing) = (alter(&[Clause::Key]), alter(&[Clause::Nothing]));
    let convert = alter(&[Clause::Convert]);
    for (series, expected) in [
        (vec![&key], 1),
        (vec![&key, &nothing, &nothing], 1),
        (vec![&nothing, &key], 0),
        (vec![&key, &nothing, &convert], 0),
    ] {
        let shape = behind_first(&table(&OLD), &series, &now).expect("a shape");
        assert_eq!(shape.table.unique_keys.len(), expected, "{series:?}");
    }
}

#[test]
fn nothing_is_concluded_where_text_and_catalog_disagree_or_a_definition_is_lost() {
    let add = || alter(&[Clause::Add(s("c"), Place::Unsaid)]);
    let now = [("id", "int"), ("a", "int"), ("b", "text"), ("other", "int")];
    assert_eq!(first(&OLD, &[add()], &now), None);
    assert_eq!(
        first(&OLD, &[add(), alter(&[Clause::Drop(s("c"))])], &OLD),
        None
    );
    let again = alter(&[Clause::Change(s("c"), s("c"), Place::Unsaid)]);
    let now = [("id", "int"), ("a", "int"), ("b", "text"), ("c", "int")];
    assert_eq!(first(&OLD, &[add(), again], &now), None);
    // Earlier rows have the default that the column came with.
    let default = |name: &str| alter(&[Clause::Default(s(name))]);
    assert_eq!(first(&OLD, &[add(), default("C")], &now), None);
    let both = alter(&[Clause::Add(s("c"), Place::Unsaid), Clause::Default(s("c"))]);
    assert_eq!(first(&OLD, &[both], &now), None);
    assert!(first(&OLD, &[add(), default("a")], &now).is_some());
    assert_eq!(first(&OLD, &[alter(&[Clause::Unknown])], &OLD), None);
    let keys = [alter(&[Clause::Key]), alter(&[Clause::Key])];
    assert_eq!(first(&OLD, &keys, &OLD), None);
}
