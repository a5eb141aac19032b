use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::batch::{Column, TableName, TableSchema};
use crate::config::{ColumnConfig, Engine, TablePattern};

/// `day DATE` is the key; `born DATE`, `at DATETIME`, `seen TIMESTAMP`, `note INT`.
fn table() -> SourceTable {
    let columns = [
        ("day", "date"),
        ("born", "date"),
        ("at", "datetime"),
        ("seen", "timestamp"),
        ("note", "int"),
    ];
    let source = |(index, (name, data_type)): (usize, &(&str, &str))| SourceColumn {
        name: (*name).to_owned(),
        included: Some(index),
        nullable: index > 0,
        scale: Some(0),
        ..SourceColumn::sample(data_type)
    };
    let described = |(name, data_type): &(&str, &str)| Column {
        name: (*name).to_owned(),
        column_type: match *data_type {
            "date" => ColumnType::Date,
            "datetime" => ColumnType::DateTime { digits: 0 },
            "timestamp" => ColumnType::Timestamp { digits: 0 },
            _ => ColumnType::Int32,
        },
        nullable: *name != "day",
        source_type: (*data_type).to_owned(),
    };
    SourceTable {
        schema: Arc::new(TableSchema {
            name: TableName::new("shop", "days"),
            columns: columns.iter().map(described).collect(),
            key: vec![0],
        }),
        columns: columns.iter().enumerate().map(source).collect(),
        date_rules: BTreeMap::new(),
        keeps_null: BTreeMap::new(),
        key_is_primary: true,
        transactional: None,
        unique_keys: Vec::new(),
    }
}

fn entry(columns: &[(&str, ColumnConfig)]) -> TableConfig {
    TableConfig {
        source: TablePattern {
            database: "shop".to_owned(),
            table: "days".to_owned(),
            literal: false,
            except: Vec::new(),
        },
        target: None,
        exclude_columns: Vec::new(),
        order_by: None,
        partition_by: None,
        engine: Engine::Replacing,
        keyless: crate::config::Keyless::Refuse,
        split_by: None,
        columns: columns
            .iter()
            .map(|(name, chosen)| ((*name).to_owned(), chosen.clone()))
            .collect(),
        transforms: Vec::new(),
    }
}

fn zero_dates(zero_dates: ZeroDates) -> TypePolicies {
    TypePolicies {
        zero_dates: Some(zero_dates),
        ..TypePolicies::default()
    }
}

fn date_range(date_range: DateRange) -> TypePolicies {
    TypePolicies {
        date_range: Some(date_range),
        ..TypePolicies::default()
    }
}

fn own(policies: TypePolicies) -> ColumnConfig {
    ColumnConfig {
        policies,
        ..ColumnConfig::default()
    }
}

fn rules(table: &SourceTable) -> [DateRule; 4] {
    ["day", "born", "at", "seen"].map(|name| table.date_rule(name))
}

#[test]
fn a_key_is_never_given_another_date() {
    let table = table()
        .with_policies(&TypePolicies::default(), &entry(&[]))
        .expect("the defaults");
    assert_eq!(
        rules(&table),
        [
            DateRule::Refuse,
            DateRule::Null,
            DateRule::Null,
            DateRule::Null
        ]
    );
    let mut ordered = entry(&[]);
    ordered.order_by = Some(vec!["seen".to_owned(), "day".to_owned()]);
    let table = self::table()
        .with_policies(&zero_dates(ZeroDates::Epoch), &ordered)
        .expect("an order");
    assert_eq!(
        rules(&table),
        [
            DateRule::Refuse,
            DateRule::Epoch,
            DateRule::Epoch,
            DateRule::Refuse
        ]
    );
}

#[test]
fn a_column_wins_over_the_pipe() {
    let entry = entry(&[("born", own(zero_dates(ZeroDates::Null)))]);
    let table = table()
        .with_policies(&zero_dates(ZeroDates::Clamp), &entry)
        .expect("both");
    assert_eq!(table.date_rule("born"), DateRule::Null);
    assert_eq!(table.date_rule("at"), DateRule::Clamp);
}

#[test]
fn dates_as_text_are_text_from_the_decoder_on() {
    let typed = ("born", ColumnConfig::of_type("DateTime64(0)"));
    let table = table()
        .with_policies(&date_range(DateRange::String), &entry(&[typed]))
        .expect("text");
    assert_eq!(
        rules(&table),
        [
            DateRule::Text,
            DateRule::Null,
            DateRule::Text,
            DateRule::Null
        ]
    );
    let types: Vec<ColumnType> = table.schema.columns.iter().map(|c| c.column_type).collect();
    assert_eq!(
        types,
        [
            ColumnType::Text,
            ColumnType::Date,
            ColumnType::Text,
            ColumnType::Timestamp { digits: 0 },
            ColumnType::Int32
        ]
    );
}

#[test]
fn a_choice_without_effect_is_refused_by_name() {
    for (name, policies, pipe) in [
        (
            "note",
            zero_dates(ZeroDates::Epoch),
            TypePolicies::default(),
        ),
        (
            "none",
            zero_dates(ZeroDates::Epoch),
            TypePolicies::default(),
        ),
        (
            "seen",
            date_range(DateRange::String),
            TypePolicies::default(),
        ),
        (
            "born",
            zero_dates(ZeroDates::Epoch),
            date_range(DateRange::String),
        ),
    ] {
        let entry = entry(&[(name, own(policies))]);
        let error = table().with_policies(&pipe, &entry).expect_err(name);
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.message().contains(&format!("`{name}`")), "{error}");
        assert!(error.hint().is_some() && error.table().is_some());
    }
}

#[test]
fn a_column_says_for_itself_whether_null_stays() {
    let filled = ColumnConfig {
        nullable: Some(false),
        ..ColumnConfig::default()
    };
    let kept = ColumnConfig {
        nullable: Some(true),
        ..ColumnConfig::default()
    };
    let table = table()
        .with_policies(
            &TypePolicies::default(),
            &entry(&[("note", filled), ("seen", kept)]),
        )
        .expect("a table");
    for of_pipe in [false, true] {
        assert!(table.null_as_default("note", of_pipe));
        assert!(!table.null_as_default("seen", of_pipe));
        assert_eq!(table.null_as_default("born", of_pipe), of_pipe);
    }
    let written = serde_json::to_value(&table).expect("JSON");
    let again: SourceTable = serde_json::from_value(written).expect("a table");
    assert_eq!(again, table);
}

#[test]
fn rules_are_recorded_with_the_table_and_absent_in_older_records() {
    let table = table()
        .with_policies(&zero_dates(ZeroDates::Clamp), &entry(&[]))
        .expect("a table");
    let mut written = serde_json::to_value(&table).expect("JSON");
    let again: SourceTable = serde_json::from_value(written.clone()).expect("a table");
    assert_eq!(again, table);
    written.as_object_mut().expect("a map").remove("date_rules");
    let older: SourceTable = serde_json::from_value(written).expect("an older table");
    assert_eq!(older.date_rule("born"), DateRule::Null);
}
