use super::super::tables::tests::{existing, target};
use super::super::target::tests::{config, schema, table};
use super::*;
use crate::config::TableConfig;

fn append_target() -> TargetTable {
    let table = TableConfig {
        engine: Engine::Append,
        ..table()
    };
    TargetTable::plan(&config(), &table, &schema()).expect("a plan")
}

fn of(change: impl FnOnce(&mut ExistingTable)) -> Vec<Misfit> {
    let mut table = existing();
    change(&mut table);
    misfits(&target(), &table)
}

fn only(change: impl FnOnce(&mut ExistingTable)) -> Misfit {
    let mut found = of(change);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[test]
fn a_table_like_ours_fits_and_may_have_more_columns() {
    assert_eq!(of(|_| ()), []);
    let more = of(|table| {
        table.columns.push(ExistingColumn {
            name: "more".to_owned(),
            column_type: "String".to_owned(),
            default_kind: "MATERIALIZED".to_owned(),
            default_expression: String::new(),
        });
    });
    assert_eq!(more, []);
}

#[test]
fn what_no_alter_mends_says_so() {
    for misfit in [
        only(|table| table.engine = "MergeTree".to_owned()),
        only(|table| table.engine_full = "ReplacingMergeTree(_version) ".to_owned()),
        only(|table| table.sorting_key = "tenant, id".to_owned()),
        only(|table| table.partition_key = "toYYYYMM(born)".to_owned()),
        only(|table| table.columns[0].column_type = "Int32".to_owned()),
    ] {
        assert_eq!(misfit.alter, None, "{misfit:?}");
        assert!(super::super::tables::remedy(&target(), &misfit).starts_with("DROP TABLE"));
    }
}

#[test]
fn each_column_comes_with_the_alter_that_mends_it() {
    let alter = |change: &dyn Fn(&mut ExistingTable)| only(change).alter.expect("an ALTER");
    assert_eq!(
        alter(&|table| drop(table.columns.remove(1))),
        "ALTER TABLE `shop`.`orders` ADD COLUMN `tenant` UInt32 AFTER `id`"
    );
    assert_eq!(
        alter(&|table| table.columns[2].column_type = "String".to_owned()),
        "ALTER TABLE `shop`.`orders` MODIFY COLUMN `note` Nullable(String)"
    );
    assert_eq!(
        alter(&|table| table.columns[2].default_kind = "ALIAS".to_owned()),
        "ALTER TABLE `shop`.`orders` MODIFY COLUMN `note` REMOVE ALIAS"
    );
    assert_eq!(
        alter(&|table| table.columns[2].default_kind = "EPHEMERAL".to_owned()),
        "ALTER TABLE `shop`.`orders` DROP COLUMN `note`, ADD COLUMN `note` Nullable(String) AFTER `tenant`"
    );
    assert_eq!(
        alter(&|table| table.columns[4].default_kind = "DEFAULT".to_owned()),
        "ALTER TABLE `shop`.`orders` MODIFY COLUMN `_version` REMOVE DEFAULT"
    );
    assert_eq!(
        alter(&|table| table.columns[6].default_kind = String::new()),
        "ALTER TABLE `shop`.`orders` MODIFY COLUMN `_synced_at` DateTime64(6, 'UTC') DEFAULT now64(6)"
    );
}

#[test]
fn a_column_loses_its_null_by_being_made_anew_and_only_without_rows() {
    let change =
        |table: &mut ExistingTable| table.columns[1].column_type = "Nullable(UInt32)".to_owned();
    assert_eq!(
        only(change).alter.as_deref(),
        Some(
            "ALTER TABLE `shop`.`orders` DROP COLUMN `tenant`, ADD COLUMN `tenant` UInt32 AFTER `id`"
        )
    );
    let with_rows = only(|table| {
        change(table);
        table.rows_present = true;
    });
    assert_eq!(with_rows.alter, None);
}

#[test]
fn all_differences_are_found_at_once() {
    let found = of(|table| {
        table.engine_full = "ReplacingMergeTree(_version) ".to_owned();
        table.sorting_key = "tenant".to_owned();
        table.columns[3].column_type = "Date".to_owned();
        table.columns.remove(6);
        table.columns.remove(2);
    });
    let words = in_words(&found);
    assert_eq!(found.len(), 5, "{words}");
    for part in [
        "engine",
        "ordered by (tenant)",
        "`note`",
        "`born` is Date",
        "`_synced_at`",
    ] {
        assert!(words.contains(part), "no {part} in {words}");
    }
}

/// pitfall 132: by default a table that is not replicated takes the same rows twice.
#[test]
fn an_append_table_that_knows_no_insert_again_is_told_the_alter() {
    let target = append_target();
    let of = |engine: &str, settings: &str| {
        let mut table = existing();
        table.engine = engine.to_owned();
        table.engine_full = format!("{engine} ORDER BY (id, _version) SETTINGS {settings}");
        let all = misfits(&target, &table);
        let mut windows = all.into_iter().filter(|m| m.needed.contains("window"));
        windows.next().map(|misfit| misfit.alter.expect("an ALTER"))
    };
    let alter =
        "ALTER TABLE `shop`.`orders` MODIFY SETTING non_replicated_deduplication_window = 1000";
    let granularity = "index_granularity = 8192";
    assert_eq!(of("MergeTree", granularity).as_deref(), Some(alter));
    let window = |name: &str, blocks: u32| format!("{granularity}, {name} = {blocks}");
    let own = "non_replicated_deduplication_window";
    assert_eq!(of("MergeTree", &window(own, 0)).as_deref(), Some(alter));
    assert_eq!(of("MergeTree", &window(own, 10)), None);
    let replicated = "replicated_deduplication_window";
    assert_eq!(of("ReplicatedMergeTree", granularity), None);
    let alter = of("ReplicatedMergeTree", &window(replicated, 0)).expect("an ALTER");
    assert!(
        alter.ends_with("SETTING replicated_deduplication_window = 1000"),
        "{alter}"
    );
}
