//! What is altered in place, and what is not.

use super::super::target::tests::{config, schema, table};
use super::*;
use crate::batch::{ColumnType, TableSchema};

fn planned(edit: impl FnOnce(&mut TableSchema)) -> TargetTable {
    let mut schema = schema();
    edit(&mut schema);
    TargetTable::plan(&config(), &table(), &schema).expect("a plan")
}

#[test]
fn wider_types_are_altered_and_others_are_not() {
    let column = |sql_type: &str| TargetColumn {
        sql_type: sql_type.to_owned(),
        ..planned(|_| {}).columns()[0].clone()
    };
    for (from, to, expected) in [
        ("Int32", "Int64", true),
        ("Int32", "Nullable(Int64)", true),
        ("UInt32", "Int64", true),
        ("UInt64", "Int64", false),
        ("Int64", "Int32", false),
        ("Int8", "UInt16", false),
        ("Nullable(Int32)", "Int64", false),
        ("Decimal(10, 2)", "Decimal(12, 2)", true),
        ("Decimal(10, 2)", "Decimal(12, 4)", true),
        ("Decimal(10, 2)", "Decimal(12, 5)", false),
        ("Decimal(10, 2)", "Decimal(9, 2)", false),
        ("Float32", "Float64", true),
        ("Float64", "Float32", false),
        ("Bool", "Int16", false),
        ("String", "Int32", false),
        (
            "Enum16('' = 0, 'a' = 1)",
            "Enum16('' = 0, 'a' = 1, 'b' = 2)",
            true,
        ),
        ("Enum16('' = 0, 'a' = 1)", "Enum16('' = 0, 'b' = 1)", false),
        ("Date32", "DateTime64(6, 'UTC')", false),
    ] {
        assert_eq!(
            keeps_values(&column(from), &column(to)),
            expected,
            "{from} {to}"
        );
    }
}

#[test]
fn another_key_or_exchanged_names_need_a_load() {
    let before = planned(|_| {});
    let other_key = planned(|schema| schema.key.push(1));
    let plan = |after: &TargetTable, renamed: &[(String, String)]| {
        Alteration::plan(&before, after, renamed, DroppedColumns::Drop)
    };
    assert!(
        plan(&other_key, &[])
            .expect_err("a load")
            .contains("the key")
    );
    let names: Vec<String> = before
        .columns()
        .iter()
        .map(|column| column.name.clone())
        .collect();
    let key = names[before.key_columns()[0]].clone();
    let renamed_key = planned(|schema| {
        let index = schema.key[0];
        schema.columns[index].name = "elsewhere".to_owned();
    });
    assert!(plan(&renamed_key, &[(key, "elsewhere".to_owned())]).is_err());
    let wider_key = planned(|schema| {
        let index = schema.key[0];
        schema.columns[index].column_type = ColumnType::Text;
    });
    assert!(
        plan(&wider_key, &[])
            .expect_err("a load")
            .contains("becomes")
    );
}

/// A column that was archived, or that a user has made, keeps its values and does not give them to a new one.
#[test]
fn a_column_under_the_name_of_a_new_one_makes_way() {
    let before = planned(|schema| {
        schema.columns.remove(3);
    });
    let after = planned(|_| {});
    let alteration = Alteration::plan(&before, &after, &[], DroppedColumns::Keep).expect("a way");
    let mut found = super::super::tables::tests::existing();
    let aside = |aside: &str| [("born".to_owned(), aside.to_owned())];
    assert_eq!(alteration.in_the_way(&found), aside("born_dropped_1"));
    let mut taken = found.columns[3].clone();
    taken.name = "born_dropped_1".to_owned();
    found.columns.push(taken);
    assert_eq!(alteration.in_the_way(&found), aside("born_dropped_2"));
    found.columns.remove(3);
    assert!(alteration.in_the_way(&found).is_empty());
    // Nothing that stood before and stays is in the way.
    found.columns.pop();
    let same = Alteration::plan(&before, &before, &[], DroppedColumns::Keep).expect("a way");
    assert!(same.in_the_way(&found).is_empty());
}

#[test]
fn what_a_crash_has_left_done_is_not_done_again() {
    let before = planned(|_| {});
    let victim = before
        .columns()
        .iter()
        .enumerate()
        .find(|(index, _)| !before.key_columns().contains(index))
        .map(|(_, column)| column.name.clone())
        .expect("a column beside the key");
    let after = planned(|schema| {
        for column in &mut schema.columns {
            if column.name == victim {
                column.name = "new name".to_owned();
            }
        }
    });
    let renamed = [(victim.clone(), "new name".to_owned())];
    let alteration =
        Alteration::plan(&before, &after, &renamed, DroppedColumns::Drop).expect("a way");
    let mut found = super::super::tables::tests::existing();
    assert_eq!(
        alteration.statements(&found),
        [format!(
            "ALTER TABLE `shop`.`orders` RENAME COLUMN `{victim}` TO `new name`"
        )]
    );
    for column in &mut found.columns {
        if column.name == victim {
            column.name = "new name".to_owned();
        }
    }
    assert!(alteration.statements(&found).is_empty());
}

/// Rows from before the column came show what they showed, also where a crash fell between two steps.
#[test]
fn a_kept_column_takes_null_and_its_fill_is_let_go_of() {
    let before = planned(|schema| schema.columns[2].nullable = false);
    let after = planned(|schema| {
        schema.columns.remove(2);
    });
    let keep = Alteration::plan(&before, &after, &[], DroppedColumns::Keep).expect("a way");
    let mut found = super::super::tables::tests::existing();
    let mut stands = |column_type: &str, default: &str| {
        let column = &mut found.columns[2];
        column.column_type = column_type.to_owned();
        column.default_kind = if default.is_empty() { "" } else { "DEFAULT" }.to_owned();
        column.default_expression = default.to_owned();
        (keep.statements(&found), keep.filled(&found))
    };
    let fill = "defaultValueOfTypeName('String')";
    let modified = "ALTER TABLE `shop`.`orders` MODIFY COLUMN `note` Nullable(String)";
    let none = (Vec::<String>::new(), Vec::<String>::new());
    assert_eq!(
        stands("String", ""),
        (vec![format!("{modified} DEFAULT {fill}")], none.1.clone())
    );
    assert_eq!(
        stands("Nullable(String)", fill),
        (none.0.clone(), vec!["note".to_owned()])
    );
    assert_eq!(stands("Nullable(String)", ""), none);
    // A literal that it was added with stays.
    assert_eq!(
        stands("String", "'z'"),
        (vec![modified.to_owned()], none.1.clone())
    );
    assert_eq!(stands("Nullable(String)", "'z'"), none);
    // It had begun to take NULL before.
    let before = planned(|_| {});
    let keep = Alteration::plan(&before, &after, &[], DroppedColumns::Keep).expect("a way");
    let column = &mut found.columns[2];
    (column.default_kind, column.default_expression) = ("DEFAULT".to_owned(), fill.to_owned());
    assert_eq!(keep.filled(&found), ["note"]);
    // One that stays in use keeps it.
    let same = Alteration::plan(&before, &before, &[], DroppedColumns::Keep).expect("a way");
    assert!(same.filled(&found).is_empty());
}
