use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use super::*;
use crate::batch::Column;
use crate::config::{
    ColumnConfig, DestinationConfig, Mode, PositionMode, Secret, SnapshotConfig, SourceConfig,
    SourceType, SyncConfig, TablePattern, TlsConfig, TlsMode,
};

pub(in super::super) fn config() -> PipeConfig {
    PipeConfig {
        pipe: "shop".to_owned(),
        mode: Mode::Cdc,
        source: SourceConfig {
            source_type: SourceType::Mysql,
            host: "h".to_owned(),
            port: 3306,
            hosts: Vec::new(),
            user: "u".to_owned(),
            password: Secret::default(),
            tls: TlsConfig {
                mode: TlsMode::Disabled,
                ca: None,
            },
            position: PositionMode::Auto,
            server_id: None,
        },
        destination: DestinationConfig {
            url: "http://127.0.0.1:8123".to_owned(),
            database: "shop".to_owned(),
            user: "default".to_owned(),
            password: Secret::default(),
            durability: Durability::Fsync,
        },
        tables: Vec::new(),
        transforms: BTreeMap::new(),
        snapshot: SnapshotConfig {
            threads_per_table: NonZeroU32::MIN,
            tables_in_parallel: NonZeroU32::MIN,
            rows_per_partition: NonZeroU32::MIN,
            allow_locks: true,
        },
        sync: SyncConfig {
            interval: Duration::from_secs(1),
            max_rows: 1,
            max_bytes: 1,
        },
        system_columns: SystemColumns {
            version: "_version".to_owned(),
            deleted: "_is_deleted".to_owned(),
            synced_at: "_synced_at".to_owned(),
        },
        nullable: true,
        keyless: Keyless::Refuse,
        follow_new_tables: false,
        row_image: crate::config::RowImage::Refuse,
        objectives: crate::config::ObjectivesConfig::default(),
        memory_bytes: 512 << 20,
        spill_dir: None,
        exclude: Vec::new(),
        types: crate::config::TypePolicies::default(),
        cascades: crate::config::Cascades::Warn,
        ddl: crate::config::DdlPolicies::default(),
    }
}

pub(in super::super) fn table() -> TableConfig {
    TableConfig {
        source: TablePattern {
            database: "shop".to_owned(),
            table: "orders".to_owned(),
            literal: false,
            except: Vec::new(),
        },
        target: None,
        exclude_columns: Vec::new(),
        order_by: None,
        partition_by: None,
        engine: Engine::Replacing,
        keyless: Keyless::Refuse,
        split_by: None,
        columns: BTreeMap::new(),
        transforms: Vec::new(),
    }
}

pub(in super::super) fn schema() -> TableSchema {
    let column = |name: &str, column_type, nullable| Column {
        name: name.to_owned(),
        column_type,
        nullable,
        source_type: String::new(),
    };
    TableSchema {
        name: TableName::new("shop", "orders"),
        columns: vec![
            column("id", ColumnType::Int64, false),
            column("tenant", ColumnType::UInt32, false),
            column("note", ColumnType::Text, true),
            column("born", ColumnType::Date, true),
        ],
        key: vec![0],
    }
}

fn planned(
    change: impl FnOnce(&mut PipeConfig, &mut TableConfig, &mut TableSchema),
) -> Result<TargetTable> {
    let (mut config, mut table, mut schema) = (config(), table(), schema());
    change(&mut config, &mut table, &mut schema);
    TargetTable::plan(&config, &table, &schema)
}

fn refusal(change: impl FnOnce(&mut PipeConfig, &mut TableConfig, &mut TableSchema)) -> String {
    let error = planned(change).expect_err("refused");
    assert_eq!(error.table(), Some(&TableName::new("shop", "orders")));
    assert!(error.hint().is_some(), "a remedy");
    error.message().to_owned()
}

fn columns(names: &[&str]) -> Option<Vec<String>> {
    Some(names.iter().map(|name| (*name).to_owned()).collect())
}

#[test]
fn the_statements_hold_key_engine_durability_and_view() {
    let target = planned(|_, table, _| {
        table.order_by = columns(&["tenant", "id"]);
        table.partition_by = Some("tenant % 16".to_owned());
    })
    .expect("a plan");
    let statements = target.create_statements();
    assert_eq!(
        statements[0],
        "CREATE TABLE IF NOT EXISTS `shop`.`orders`\n(\n    `id` Int64,\n    `tenant` UInt32,\n    `note` \
         Nullable(String),\n    `born` Nullable(Date32),\n    `_version` UInt64,\n    `_is_deleted` UInt8,\n    \
         `_synced_at` DateTime64(6, 'UTC') DEFAULT now64(6)\n)\nENGINE = ReplacingMergeTree(`_version`, \
         `_is_deleted`)\nPARTITION BY tenant % 16\nORDER BY (`tenant`, `id`)\nSETTINGS fsync_after_insert = 1, \
         fsync_part_directory = 1"
    );
    assert!(statements[1].contains("`shop`.`orders_current`"));
    assert!(statements[1].contains("FINAL\nWHERE `_is_deleted` = 0"));
    assert_eq!(target.key_columns(), [1, 0]);
}

#[test]
fn answered_durability_leaves_the_fsync_settings_out() {
    let target = planned(|config, _, _| config.destination.durability = Durability::Answered)
        .expect("a plan");
    assert!(!target.create_statements()[0].contains("fsync"));
}

#[test]
fn nullable_false_makes_no_column_nullable() {
    let target = planned(|config, _, _| config.nullable = false).expect("a plan");
    assert!(target.columns().iter().all(|column| !column.nullable));
    assert_eq!(target.columns()[2].sql_type, "String");
}

#[test]
fn a_column_says_for_itself_whether_it_is_nullable() {
    for (of_pipe, of_note, expected) in [
        (true, false, ["String", "Nullable(Date32)"]),
        (false, true, ["Nullable(String)", "Date32"]),
    ] {
        let target = planned(|config, table, _| {
            config.nullable = of_pipe;
            // A key is never nullable, whatever is said of it.
            for name in ["note", "id"] {
                table.columns.insert(name.to_owned(), nullable(of_note));
            }
        })
        .expect("a plan");
        let types: Vec<&str> = target.columns()[2..]
            .iter()
            .map(|column| column.sql_type.as_str())
            .collect();
        assert_eq!(types, expected);
        assert_eq!(target.columns()[0].sql_type, "Int64");
    }
    // Nothing is NULL in an array.
    let refused = refusal(|_, table, schema| {
        schema.columns[2].column_type = ColumnType::Vector;
        table.columns.insert("note".to_owned(), nullable(true));
    });
    assert!(
        refused.contains("`note`") && refused.contains("Array(Float32)"),
        "{refused}"
    );
}

fn nullable(nullable: bool) -> ColumnConfig {
    ColumnConfig {
        nullable: Some(nullable),
        ..ColumnConfig::default()
    }
}

#[test]
fn a_key_that_merges_different_rows_is_refused_by_name() {
    assert!(refusal(|_, table, _| table.order_by = columns(&["tenant"])).contains("lacks `id`"));
    assert!(
        refusal(|_, table, _| table.order_by = columns(&["id", "note"]))
            .contains("`note`, which can be NULL")
    );
    assert!(refusal(|_, table, _| table.order_by = columns(&["id", "gone"])).contains("`gone`"));
    assert!(refusal(|_, table, _| table.order_by = columns(&["id", "id"])).contains("twice"));
    assert!(refusal(|_, _, schema| schema.key.clear()).contains("neither a primary key"));
    assert!(
        refusal(|_, table, _| table.partition_by = Some("tenant".to_owned())).contains("`tenant`")
    );
}

#[test]
fn names_that_collide_with_ours_are_refused() {
    assert!(
        refusal(|config, _, _| config.system_columns.version = "note".to_owned())
            .contains("`note`")
    );
    assert!(
        refusal(|config, _, _| config.system_columns.version = "_is_deleted".to_owned())
            .contains("both")
    );
    assert!(
        refusal(|_, table, _| table.target = Some("_pipewright_x".to_owned())).contains("our own")
    );
}

#[test]
fn a_chosen_type_for_a_column_that_is_not_there_is_refused() {
    let add = |name: &str, chosen: &str| {
        let entry = (name.to_owned(), ColumnConfig::of_type(chosen));
        move |_: &mut PipeConfig, table: &mut TableConfig, _: &mut TableSchema| {
            table.columns.extend([entry]);
        }
    };
    assert!(refusal(add("gone", "String")).contains("`gone`"));
    assert!(refusal(add("id", "Int32")).contains("`id`"));
    let target = planned(add("note", "LowCardinality(String)")).expect("a plan");
    assert_eq!(
        target.columns()[2].sql_type,
        "LowCardinality(Nullable(String))"
    );
}

#[test]
fn a_default_that_a_form_cannot_give_to_earlier_rows_is_refused() {
    let target = planned(|config, _, schema| {
        config.types.decimal_form = Some(crate::config::DecimalForm::String);
        config.types.binary_form = Some(crate::config::BinaryForm::Hex);
        let decimal = ColumnType::Decimal {
            precision: 10,
            scale: 2,
        };
        for (name, column_type, nullable) in [
            ("price", decimal, false),
            ("rebate", decimal, true),
            ("photo", ColumnType::Bytes, false),
        ] {
            schema.columns.push(Column {
                name: name.to_owned(),
                column_type,
                nullable,
                source_type: String::new(),
            });
        }
    })
    .expect("a plan");
    for (column, default) in [
        ("price", None),
        ("price", Some("1.5")),
        ("rebate", Some("1.5")),
        ("photo", Some("x")),
    ] {
        let error = target.ensure_fillable(column, default).expect_err(column);
        assert!(error.message().contains(&format!("`{column}`")), "{error}");
    }
    for (column, default) in [
        ("rebate", None),
        ("photo", None),
        ("note", Some("x")),
        ("gone", None),
    ] {
        assert!(target.ensure_fillable(column, default).is_ok(), "{column}");
    }
}

#[test]
fn an_append_table_keeps_every_row_and_its_view_shows_the_newest_of_each_key() {
    let target = planned(|_, table, _| {
        table.engine = Engine::Append;
        table.partition_by = Some("tenant".to_owned());
    })
    .expect("a plan");
    let statements = target.create_statements();
    assert_eq!(
        statements[0],
        "CREATE TABLE IF NOT EXISTS `shop`.`orders`\n(\n    `id` Int64,\n    `tenant` UInt32,\n    `note` \
         Nullable(String),\n    `born` Nullable(Date32),\n    `_version` UInt64,\n    `_op` Enum8('insert' = 0, 'update' = \
         1, 'delete' = 2),\n    `_synced_at` DateTime64(6, 'UTC') DEFAULT now64(6),\n    INDEX pipewright_version `_version` \
         TYPE minmax GRANULARITY 1\n)\nENGINE = MergeTree\nPARTITION BY tenant\nORDER BY (`id`, `_version`)\nSETTINGS \
         fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 1000"
    );
    assert!(
        statements[1].contains("LIMIT 1 BY `id`"),
        "{}",
        statements[1]
    );
}

#[test]
fn a_table_without_a_key_is_an_append_table_where_the_file_asks_for_that() {
    let target = planned(|_, table, schema| {
        schema.key.clear();
        table.keyless = Keyless::Append;
    })
    .expect("a plan");
    assert!(target.is_append() && target.is_keyless());
    let statements = target.create_statements();
    assert!(statements[0].contains("ORDER BY (`_version`)"));
    assert!(statements[1].contains("GROUP BY `id`, `tenant`, `note`, `born`"));
    let taken = refusal(|_, table, schema| {
        table.engine = Engine::Append;
        schema.columns[2].name = "_op".to_owned();
    });
    assert!(taken.contains("`_op`"), "{taken}");
}
