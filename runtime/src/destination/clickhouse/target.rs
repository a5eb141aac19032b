//! What a target table looks like, planned without a server: columns and types, key, partitions, engine.

use serde::Serialize;

use super::client::ServerFacts;
use super::types::{self, Conversion};
use super::{ddl, partition};
use crate::batch::{ColumnType, TableName, TableSchema};
use crate::config::{Durability, Engine, PipeConfig, SystemColumns, TableConfig};
use crate::error::{Error, ErrorKind, Result};

/// A target table, whole: everything that its statements and its inserts need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TargetTable {
    source: TableName,
    database: String,
    name: String,
    columns: Vec<TargetColumn>,
    key: Vec<usize>,
    partition_by: Option<String>,
    engine: Engine,
    fsync: bool,
    system: SystemColumns,
}

/// One column of a target table that comes from the source or a plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TargetColumn {
    /// The name, the same at both ends.
    pub name: String,
    /// The ClickHouse type as `system.columns` prints it.
    pub sql_type: String,
    /// What the arrays hold.
    pub column_type: ColumnType,
    /// Whether the ClickHouse type takes NULL.
    pub nullable: bool,
    /// Whether the source column takes NULL.
    pub source_nullable: bool,
    /// For an added column: what the source gave to the rows that were there before, as text; NULL or the type's
    /// default when absent.
    pub fill: Option<String>,
    pub(super) conversion: Conversion,
}

impl TargetTable {
    /// Plans the table for a server of which nothing is known, which is taken for a present one. With a connection, use
    /// [`super::ClickHouse::plan`]. `schema` is what comes out of the last transform.
    ///
    /// # Errors
    /// `Config` or `Unsupported`, naming the table, the column and the remedy.
    pub fn plan(config: &PipeConfig, table: &TableConfig, schema: &TableSchema) -> Result<Self> {
        Self::plan_for(&ServerFacts::default(), config, table, schema)
    }

    pub(super) fn plan_for(
        facts: &ServerFacts,
        config: &PipeConfig,
        table: &TableConfig,
        schema: &TableSchema,
    ) -> Result<Self> {
        let planned = || -> Result<Self> {
            let name = table
                .target
                .clone()
                .unwrap_or_else(|| schema.name.table.clone());
            ensure_target_name(&name)?;
            ensure_no_collision(&config.system_columns, schema)?;
            let key = sorting_key(table, schema)?;
            let columns = columns(facts, config, table, schema)?;
            if let Some(expression) = &table.partition_by {
                let names: Vec<&str> = key
                    .iter()
                    .map(|&index| columns[index].name.as_str())
                    .collect();
                partition::ensure_key_only(expression, &names)?;
            }
            Ok(Self {
                source: schema.name.clone(),
                database: config.destination.database.clone(),
                name,
                columns,
                key,
                partition_by: table.partition_by.clone(),
                engine: table.engine,
                fsync: config.destination.durability == Durability::Fsync,
                system: config.system_columns.clone(),
            })
        };
        planned().map_err(|error| error.with_table(&schema.name))
    }

    /// The same table under another name in the same database, for a load beside the live one.
    #[must_use]
    pub fn with_name(&self, name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..self.clone()
        }
    }

    /// Says what the source gave to existing rows when it added `column`, as text. Unknown names are passed over.
    #[must_use]
    pub fn with_fill(mut self, column: &str, text: impl Into<String>) -> Self {
        if let Some(found) = self.columns.iter_mut().find(|known| known.name == column) {
            found.fill = Some(text.into());
        }
        self
    }

    /// The statements that make table and view, for people to read.
    pub fn create_statements(&self) -> Vec<String> {
        vec![ddl::create_table(self, None), ddl::create_view(self, None)]
    }

    /// The source table.
    pub fn source(&self) -> &TableName {
        &self.source
    }

    /// The database that holds it.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The table's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of the view that shows current rows only.
    pub fn view_name(&self) -> String {
        format!("{}_current", self.name)
    }

    /// The columns in the order of the schema that the table was planned from; ours are not among them.
    pub fn columns(&self) -> &[TargetColumn] {
        &self.columns
    }

    /// Indexes into [`TargetTable::columns`]: the key of DESIGN §6, in ORDER BY order.
    pub fn key_columns(&self) -> &[usize] {
        &self.key
    }

    /// The PARTITION BY expression.
    pub fn partition_by(&self) -> Option<&str> {
        self.partition_by.as_deref()
    }

    /// The engine.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// Whether the table is created with fsync settings.
    pub fn is_fsync(&self) -> bool {
        self.fsync
    }

    /// The names of our own columns.
    pub fn system_columns(&self) -> &SystemColumns {
        &self.system
    }
}

fn ensure_target_name(name: &str) -> Result<()> {
    let problem = if name.is_empty() {
        "is empty"
    } else if name.starts_with("_pipewright_") {
        "is kept for our own tables"
    } else {
        return Ok(());
    };
    Err(Error::new(
        ErrorKind::Config,
        format!("the target name `{name}` {problem}"),
    )
    .with_hint("set `target` to another name"))
}

/// A source column with the name of one of ours would make two columns of one name (pitfall 40).
fn ensure_no_collision(system: &SystemColumns, schema: &TableSchema) -> Result<()> {
    let ours = [
        ("version", &system.version),
        ("deleted", &system.deleted),
        ("synced_at", &system.synced_at),
    ];
    for (index, (key, name)) in ours.iter().enumerate() {
        if schema.index_of(name).is_some() {
            return Err(Error::new(
                ErrorKind::Config,
                format!("the source has a column `{name}`, which is also our system column"),
            )
            .with_hint(format!(
                "set `system_columns.{key}` to another name, or list `{name}` in `exclude_columns`"
            )));
        }
        if let Some((other, _)) = ours.iter().take(index).find(|(_, known)| known == name) {
            return Err(Error::new(
                ErrorKind::Config,
                format!("`system_columns.{other}` and `system_columns.{key}` are both `{name}`"),
            )
            .with_hint("give each system column a name of its own"));
        }
    }
    Ok(())
}

fn sorting_key(table: &TableConfig, schema: &TableSchema) -> Result<Vec<usize>> {
    if schema.key.is_empty() {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "the table has neither a primary key nor a unique key without NULL, and the `replacing` engine would keep \
             one row of all",
        )
        .with_hint(
            "add a primary key at the source (a generated one will do), or use `engine: append` once this build has it",
        ));
    }
    let Some(order_by) = &table.order_by else {
        return Ok(schema.key.clone());
    };
    let mut key = Vec::with_capacity(order_by.len());
    for name in order_by {
        let Some(index) = schema.index_of(name) else {
            return Err(Error::new(
                ErrorKind::Config,
                format!("`order_by` names `{name}`, which the table does not have"),
            )
            .with_hint(format!(
                "the columns are {}",
                names(schema.columns.iter().map(|c| &c.name))
            )));
        };
        if key.contains(&index) {
            return Err(Error::new(
                ErrorKind::Config,
                format!("`order_by` names `{name}` twice"),
            )
            .with_hint("name each column once"));
        }
        if schema.columns[index].nullable {
            return Err(Error::new(
                ErrorKind::Config,
                format!("`order_by` names `{name}`, which can be NULL"),
            )
            .with_hint("order by columns that are NOT NULL at the source"));
        }
        key.push(index);
    }
    let missing: Vec<&String> = schema
        .key
        .iter()
        .filter(|index| !key.contains(index))
        .map(|&index| &schema.columns[index].name)
        .collect();
    if !missing.is_empty() {
        return Err(Error::new(
            ErrorKind::Config,
            format!(
                "`order_by` lacks {} of the source key, so different rows would replace each other",
                names(missing.iter().copied())
            ),
        )
        .with_hint(format!(
            "append it: `order_by: [{}]`",
            order_by
                .iter()
                .chain(missing)
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(", ")
        )));
    }
    Ok(key)
}

fn columns(
    facts: &ServerFacts,
    config: &PipeConfig,
    table: &TableConfig,
    schema: &TableSchema,
) -> Result<Vec<TargetColumn>> {
    if let Some(unknown) = table
        .columns
        .keys()
        .find(|name| schema.index_of(name).is_none())
    {
        return Err(Error::new(
            ErrorKind::Config,
            format!("`columns` names `{unknown}`, which the table does not have"),
        )
        .with_hint(format!(
            "the columns are {}",
            names(schema.columns.iter().map(|c| &c.name))
        )));
    }
    schema
        .columns
        .iter()
        .map(|column| {
            let mapped = match table.columns.get(&column.name) {
                Some(chosen) => {
                    types::chosen_type(&column.name, column.column_type, chosen, facts.time64)?
                }
                None => types::default_type(column.column_type, facts.time64),
            };
            // Key columns are never nullable: `sorting_key` has refused those that are.
            let nullable = column.nullable && config.nullable;
            Ok(TargetColumn {
                name: column.name.clone(),
                sql_type: mapped.sql(nullable),
                column_type: column.column_type,
                nullable,
                source_nullable: column.nullable,
                fill: None,
                conversion: mapped.conversion,
            })
        })
        .collect()
}

fn names<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::*;
    use crate::batch::Column;
    use crate::config::{
        DestinationConfig, Mode, PositionMode, RowImage, Secret, SnapshotConfig, SourceConfig,
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
            row_image: RowImage::Refuse,
        }
    }

    pub(in super::super) fn table() -> TableConfig {
        TableConfig {
            source: TablePattern {
                database: "shop".to_owned(),
                table: "orders".to_owned(),
                literal: false,
            },
            target: None,
            exclude_columns: Vec::new(),
            order_by: None,
            partition_by: None,
            engine: Engine::Replacing,
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
    fn a_key_that_merges_different_rows_is_refused_by_name() {
        assert!(
            refusal(|_, table, _| table.order_by = columns(&["tenant"])).contains("lacks `id`")
        );
        assert!(
            refusal(|_, table, _| table.order_by = columns(&["id", "note"]))
                .contains("`note`, which can be NULL")
        );
        assert!(
            refusal(|_, table, _| table.order_by = columns(&["id", "gone"])).contains("`gone`")
        );
        assert!(refusal(|_, table, _| table.order_by = columns(&["id", "id"])).contains("twice"));
        assert!(refusal(|_, _, schema| schema.key.clear()).contains("neither a primary key"));
        assert!(
            refusal(|_, table, _| table.partition_by = Some("tenant".to_owned()))
                .contains("`tenant`")
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
            refusal(|_, table, _| table.target = Some("_pipewright_x".to_owned()))
                .contains("our own")
        );
    }

    #[test]
    fn a_chosen_type_for_a_column_that_is_not_there_is_refused() {
        let add = |name: &str, chosen: &str| {
            let entry = (name.to_owned(), chosen.to_owned());
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
}
