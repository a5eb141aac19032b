//! What a target table looks like, planned without a server: columns and types, key, partitions, engine.

use std::sync::Arc;

use serde::Serialize;

use super::client::ServerFacts;
use super::forms::{self, LabelsByColumn, Wish};
use super::labels::Labels;
use super::types::Conversion;
use super::{append, ddl, partition};
use crate::batch::{ColumnType, TableName, TableSchema};
use crate::config::{Durability, Engine, Keyless, PipeConfig, SystemColumns, TableConfig};
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
    /// Nothing but all columns together tells rows apart, and equal ones are counted.
    keyless: bool,
    fsync: bool,
    system: SystemColumns,
    /// Filled beside the live table, whose view stays the one that people read.
    beside: bool,
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
    /// Of an ENUM that is sent by number.
    #[serde(skip)]
    pub(super) labels: Option<Arc<Labels>>,
}

impl TargetTable {
    /// Plans the table for a server of which nothing is known, which is taken for a present one. With a connection, use
    /// [`super::ClickHouse::plan`]. `schema` is what comes out of the last transform.
    ///
    /// # Errors
    /// `Config` or `Unsupported`, naming the table, the column and the remedy.
    pub fn plan(config: &PipeConfig, table: &TableConfig, schema: &TableSchema) -> Result<Self> {
        let labels = LabelsByColumn::default();
        Self::plan_for(&ServerFacts::default(), config, table, (schema, &labels))
    }

    /// `schema` comes with the labels of its ENUM and SET columns.
    pub(super) fn plan_for(
        facts: &ServerFacts,
        config: &PipeConfig,
        table: &TableConfig,
        (schema, labels): (&TableSchema, &LabelsByColumn),
    ) -> Result<Self> {
        let planned = || -> Result<Self> {
            let name = table
                .target
                .clone()
                .unwrap_or_else(|| schema.name.table.clone());
            ensure_target_name(&name)?;
            let engine = engine(table, schema)?;
            ensure_no_collision(&config.system_columns, engine, schema)?;
            let key = sorting_key(table, schema)?;
            ensure_columns_exist(table, schema)?;
            let columns = schema
                .columns
                .iter()
                .enumerate()
                .map(|(index, column)| {
                    let wish = Wish {
                        column,
                        own: table.columns.get(&column.name),
                        pipe: config.types,
                        labels: labels.get(&column.name).map(Vec::as_slice),
                        in_key: key.contains(&index),
                        time64: facts.time64,
                    };
                    target_column(&wish, config.nullable)
                })
                .collect::<Result<Vec<_>>>()?;
            if let Some(expression) = &table.partition_by {
                let named = |index: &usize| columns[*index].name.as_str();
                let names: Vec<&str> = match engine {
                    Engine::Replacing => key.iter().map(named).collect(),
                    // Versions never meet there, but a partition's expression takes no NULL.
                    Engine::Append => columns
                        .iter()
                        .filter(|column| !column.nullable)
                        .map(|column| column.name.as_str())
                        .collect(),
                };
                partition::ensure_key_only(expression, &names)?;
            }
            Ok(Self {
                source: schema.name.clone(),
                database: config.destination.database.clone(),
                name,
                columns,
                key,
                partition_by: table.partition_by.clone(),
                engine,
                keyless: schema.key.is_empty(),
                fsync: config.destination.durability == Durability::Fsync,
                system: config.system_columns.clone(),
                beside: false,
            })
        };
        planned().map_err(|error| error.with_table(&schema.name))
    }

    /// The same table under another name in the same database, for a load beside the live one.
    #[must_use]
    pub fn with_name(&self, name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            beside: true,
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

    /// Sees that the rows which were there before `column` was added get its value: `default` as text, or what the source
    /// gives without one. ClickHouse fills them from text or with the type's own default, which in some forms is another.
    ///
    /// # Errors
    /// `Unsupported`, naming the column.
    pub fn ensure_fillable(&self, column: &str, default: Option<&str>) -> Result<()> {
        let Some(found) = self.columns.iter().find(|known| known.name == column) else {
            return Ok(());
        };
        let sound = match found.conversion {
            Conversion::NumberToText => default.is_none() && found.nullable,
            Conversion::TinyintToBool
            | Conversion::LabelToNumber
            | Conversion::BytesToHex
            | Conversion::BytesToBase64
            | Conversion::BytesToFixed(_) => default.is_none(),
            Conversion::JsonToObject => default.is_none() && found.nullable,
            Conversion::None
            | Conversion::Date(_)
            | Conversion::DateToSeconds
            | Conversion::TimeToMicros
            | Conversion::LabelToEnum16
            | Conversion::SetToArray => true,
        };
        if sound {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "column `{column}` was added with a default, which this build cannot give to earlier rows in the form {}",
                found.sql_type
            ),
        )
        .with_hint("set the pipe up anew under another name with empty targets")
        .with_table(&self.source))
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

    /// Whether it is filled beside the live table, and has no view of its own.
    pub(super) fn is_beside(&self) -> bool {
        self.beside
    }

    /// The name of the view that shows current rows only.
    pub fn view_name(&self) -> String {
        format!("{}_current", self.name)
    }

    /// The columns in the order of the schema that the table was planned from; ours are not among them.
    pub fn columns(&self) -> &[TargetColumn] {
        &self.columns
    }

    /// Indexes into [`TargetTable::columns`]: the key of DESIGN §6, in ORDER BY order. Of a table without a key what it is
    /// ordered by, which tells no rows apart.
    pub fn key_columns(&self) -> &[usize] {
        &self.key
    }

    /// Their names.
    pub(super) fn key_names(&self) -> Vec<&str> {
        let columns = self.key.iter().filter_map(|&index| self.columns.get(index));
        columns.map(|column| column.name.as_str()).collect()
    }

    /// The PARTITION BY expression.
    pub fn partition_by(&self) -> Option<&str> {
        self.partition_by.as_deref()
    }

    /// The engine.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// Whether every change is a row of its own.
    pub fn is_append(&self) -> bool {
        self.engine == Engine::Append
    }

    /// Whether nothing but all columns together tells rows apart.
    pub fn is_keyless(&self) -> bool {
        self.keyless
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
fn ensure_no_collision(system: &SystemColumns, engine: Engine, schema: &TableSchema) -> Result<()> {
    let taken = system.version == append::OP || system.synced_at == append::OP;
    if engine == Engine::Append && (taken || schema.index_of(append::OP).is_some()) {
        let op = append::OP;
        return Err(Error::new(
            ErrorKind::Config,
            format!("a column is named `{op}`, as the one that says in an append table what has happened"),
        )
        .with_hint(format!(
            "list `{op}` in `exclude_columns`, or use `engine: replacing`"
        )));
    }
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

/// A table without a key is an append table where the pipe file asks for that.
fn engine(table: &TableConfig, schema: &TableSchema) -> Result<Engine> {
    match (table.engine, table.keyless) {
        (Engine::Replacing, Keyless::Refuse) if schema.key.is_empty() => Err(Error::new(
            ErrorKind::Unsupported,
            "the table has neither a primary key nor a unique key without NULL, and the `replacing` engine would keep \
             one row of all",
        )
        .with_hint(
            "add a primary key at the source (a generated one will do), or set `keyless: append`, which keeps every \
             change as a row",
        )),
        (Engine::Replacing, Keyless::Append) if schema.key.is_empty() => Ok(Engine::Append),
        (engine, Keyless::Refuse | Keyless::Append) => Ok(engine),
    }
}

fn sorting_key(table: &TableConfig, schema: &TableSchema) -> Result<Vec<usize>> {
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

fn ensure_columns_exist(table: &TableConfig, schema: &TableSchema) -> Result<()> {
    let unknown = table
        .columns
        .keys()
        .find(|name| schema.index_of(name).is_none());
    match unknown {
        None => Ok(()),
        Some(unknown) => Err(Error::new(
            ErrorKind::Config,
            format!("`columns` names `{unknown}`, which the table does not have"),
        )
        .with_hint(format!(
            "the columns are {}",
            names(schema.columns.iter().map(|c| &c.name))
        ))),
    }
}

fn target_column(wish: &Wish<'_>, keep_null: bool) -> Result<TargetColumn> {
    let column = wish.column;
    let mapped = forms::mapped(wish)?;
    let own = wish.own.and_then(|own| own.nullable);
    if own == Some(true) && column.nullable && !mapped.takes_null {
        return Err(Error::new(
            ErrorKind::Config,
            format!(
                "`nullable: true` was chosen for column `{}`, which becomes {}, a type without NULL",
                column.name,
                mapped.sql(false)
            ),
        )
        .with_hint("remove `nullable`, or choose another form for the column"));
    }
    // Key columns are never nullable: `sorting_key` has refused those that are.
    let nullable = column.nullable && own.unwrap_or(keep_null) && mapped.takes_null;
    let by_number = matches!(
        mapped.conversion,
        Conversion::LabelToEnum16 | Conversion::LabelToNumber
    );
    Ok(TargetColumn {
        name: column.name.clone(),
        sql_type: mapped.sql(nullable),
        column_type: column.column_type,
        nullable,
        source_nullable: column.nullable,
        fill: None,
        conversion: mapped.conversion,
        labels: wish
            .labels
            .filter(|_| by_number)
            .map(|labels| Arc::new(Labels::new(labels))),
    })
}

fn names<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
#[path = "target_tests.rs"]
pub(super) mod tests;
