use super::*;

impl SourceColumn {
    /// A nullable, included column `c` of that type and of nothing else, for tests to begin from.
    pub(crate) fn sample(data_type: &str) -> SourceColumn {
        SourceColumn {
            name: "c".to_owned(),
            included: Some(0),
            data_type: data_type.to_owned(),
            column_type: data_type.to_owned(),
            unsigned: false,
            nullable: true,
            charset: None,
            collation: None,
            length: None,
            precision: None,
            scale: None,
            labels: Vec::new(),
            generated: false,
            row_end: false,
            geometry: None,
            default: ColumnDefault::None,
        }
    }
}

fn int(name: &str, nullable: bool) -> SourceColumn {
    SourceColumn {
        name: name.into(),
        included: None,
        nullable,
        ..SourceColumn::sample("int")
    }
}

fn part(index: &str, column: &str, prefix: bool) -> KeyPart {
    KeyPart {
        index: index.into(),
        column: Some(column.into()),
        prefix: prefix.then_some(1),
        hash: false,
    }
}

fn assemble(keys: &[KeyPart], excluded: &[&str]) -> Result<SourceTable> {
    let columns = vec![int("a", false), int("b", false), int("c", true)];
    let excluded: Vec<String> = excluded.iter().map(|name| (*name).to_owned()).collect();
    build_table(&TableName::new("d", "t"), columns, keys, &excluded)
}

#[test]
fn the_primary_key_is_the_key_in_its_own_order() {
    let keys = [
        part("PRIMARY", "b", false),
        part("PRIMARY", "a", true),
        part("u", "a", false),
    ];
    let table = assemble(&keys, &[]).expect("a table");
    assert_eq!(table.schema.key, [1, 0]);
}

#[test]
fn else_a_unique_index_without_null_prefix_or_expression_is() {
    let keys = [
        part("k1", "c", false),
        part("k2", "a", true),
        KeyPart {
            index: "k3".into(),
            column: None,
            prefix: None,
            hash: false,
        },
        part("k4", "b", false),
        part("k4", "a", false),
        part("k5", "a", false),
    ];
    assert_eq!(assemble(&keys, &[]).expect("a table").schema.key, [1, 0]);
    let nullable = [part("k1", "c", false)];
    assert!(
        assemble(&nullable, &[])
            .expect("a table")
            .schema
            .key
            .is_empty()
    );
}

#[test]
fn excluded_columns_keep_their_ordinal_and_leave_the_schema() {
    let keys = [part("PRIMARY", "b", false)];
    let table = assemble(&keys, &["A"]).expect("names ignore case");
    assert_eq!(
        table
            .columns
            .iter()
            .map(|column| column.included)
            .collect::<Vec<_>>(),
        [None, Some(0), Some(1)]
    );
    assert_eq!(table.schema.key, [0]);
    let error = assemble(&keys, &["b"]).expect_err("a key column");
    assert_eq!(error.kind(), ErrorKind::Config);
    let error = assemble(&keys, &["nope"]).expect_err("no such column");
    assert_eq!(error.kind(), ErrorKind::SourceMissing);
}

#[test]
fn a_unique_key_is_another_by_its_columns_prefix_and_collation_and_not_by_its_name() {
    let table = |keys: &[KeyPart], collation: &str| {
        let collations = [("b".to_owned(), collation.to_owned())].into();
        let mut table = assemble(keys, &[]).expect("a table");
        table.unique_keys = keys::of_rows(keys, Some(&collations));
        table
    };
    let primary = part("PRIMARY", "a", false);
    let before = table(
        &[part("PRIMARY", "a", false), part("u", "b", false)],
        "utf8mb4_bin",
    );
    let renamed = [part("PRIMARY", "a", false), part("v", "b", false)];
    assert_eq!(table(&renamed, "utf8mb4_bin"), before);
    let beyond = |keys: &[KeyPart], collation: &str| table(keys, collation).key_beyond(&before);
    assert_eq!(beyond(&[primary], "utf8mb4_bin"), None);
    let wider = [part("v", "b", false), part("v", "c", false)];
    assert_eq!(beyond(&wider, "utf8mb4_bin"), None);
    let other = Some("`b`".to_owned());
    assert_eq!(beyond(&renamed, "utf8mb4_general_ci"), other);
    assert_eq!(beyond(&[part("v", "b", true)], "utf8mb4_bin"), other);
    let expression = [KeyPart {
        column: None,
        ..part("v", "b", false)
    }];
    assert_eq!(
        beyond(&expression, "utf8mb4_bin"),
        Some("an expression".to_owned())
    );
    let unknown = SourceTable {
        unique_keys: Vec::new(),
        ..before.clone()
    };
    assert_eq!(before.key_beyond(&unknown), Some("`a`".to_owned()));
}

#[test]
fn a_default_with_a_question_mark_is_not_taken_as_printed() {
    // Both servers print a character beyond three bytes of UTF-8 in this way.
    let of = |flavor, text: &str| ColumnDefault::of(flavor, Some(text.into()), "");
    assert_eq!(of(Flavor::MySql, "x?"), ColumnDefault::Computed);
    assert_eq!(of(Flavor::MariaDb, "'x?'"), ColumnDefault::Computed);
    assert_eq!(of(Flavor::MySql, "x"), ColumnDefault::Literal("x".into()));
    assert_eq!(
        of(Flavor::MariaDb, "'x'"),
        ColumnDefault::Literal("x".into())
    );
}

/// pitfall 38
#[test]
fn the_end_of_a_period_belongs_to_no_key_and_stands_behind_all_columns_where_it_is_not_listed() {
    let keys = || {
        vec![
            part("PRIMARY", "a", false),
            part("PRIMARY", "row_end", false),
        ]
    };
    let (mut columns, mut parts) = (vec![int("a", false), int("b", true)], keys());
    let unlisted = history::prepare(&[], &mut columns, &mut parts);
    let names: Vec<_> = unlisted
        .iter()
        .map(|column| (&*column.name, column.row_end))
        .collect();
    assert_eq!(names, [("row_start", false), ("row_end", true)]);
    assert_eq!(parts.len(), 1);
    let mut columns = vec![int("a", false), int("since", false), int("Row_End", false)];
    let mut parts = keys();
    let declared = [("since".to_owned(), false), ("row_end".to_owned(), true)];
    assert!(history::prepare(&declared, &mut columns, &mut parts).is_empty());
    let ends: Vec<_> = columns.iter().map(|column| column.row_end).collect();
    assert_eq!(ends, [false, false, true]);
    assert_eq!(parts.len(), 1);
}
