//! Databases, tables and views: looked at, and told apart by who made them.
//!
//! A table of ours carries its owner in its comment: the pipe, and an id that the pipe keeps in its state. After a crash
//! in the middle of Setup or of a load the same id is found again and the work goes on; any other table with rows is
//! somebody else's and is never written to.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::client::{ClickHouse, STATEMENT_TIMEOUT};
use super::ddl;
use super::failure::Doing;
use super::misfits::{Misfit, in_words, misfits};
use super::target::TargetTable;
use crate::error::{Error, ErrorKind, Result};

/// Who made a table: a pipe, and an id that stands in that pipe's state and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    pipe: String,
    id: String,
}

impl Owner {
    /// `id` is random and kept in the pipe's state before the first table is created.
    pub fn new(pipe: impl Into<String>, id: impl Into<String>) -> Self {
        Self {
            pipe: pipe.into(),
            id: id.into(),
        }
    }

    /// The pipe.
    pub fn pipe(&self) -> &str {
        &self.pipe
    }

    fn is_pipe_of(&self, comment: &str) -> bool {
        comment.starts_with(&format!("{TOKEN}{} ", self.pipe))
    }
}

const TOKEN: &str = "pipewright pipe=";

/// Targets that are looked at, or made, together: some may have thousands of columns, which come in one answer.
pub const TARGETS_A_QUERY: usize = 100;

/// What stands under the names that were asked for.
pub(super) type Existing = BTreeMap<String, ExistingTable>;

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{TOKEN}{} id={}", self.pipe, self.id)
    }
}

/// What ClickHouse knows a table by, whatever its name: EXCHANGE moves it, and DROP with CREATE makes another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TableUuid(pub String);

/// A table, view or other thing that stands where a target should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExistingTable {
    /// Its identity.
    pub uuid: TableUuid,
    /// The engine's name.
    pub engine: String,
    /// The engine with its arguments and clauses.
    pub engine_full: String,
    /// The ORDER BY expression.
    pub sorting_key: String,
    /// The PARTITION BY expression, or empty.
    pub partition_key: String,
    /// The comment, in which our tables carry their owner.
    pub comment: String,
    /// Whether at least one row is there, a tombstone also being one.
    pub rows_present: bool,
    /// The columns in order.
    pub columns: Vec<ExistingColumn>,
}

impl ExistingTable {
    /// Whether no row of it replaces another.
    pub fn keeps_every_row(&self) -> bool {
        ["MergeTree", "ReplicatedMergeTree", "SharedMergeTree"].contains(&self.engine.as_str())
    }

    /// The columns that it stores and the other lacks.
    pub fn columns_beyond<'a>(&'a self, other: &'a ExistingTable) -> impl Iterator<Item = &'a str> {
        let is_there = |name: &str| other.columns.iter().any(|column| column.name == name);
        let stored = self.columns.iter().filter(|column| column.is_stored());
        let names = stored.map(|column| column.name.as_str());
        names.filter(move |name| !is_there(name))
    }

    /// A number among its settings; none where the server's default holds.
    pub(super) fn setting(&self, name: &str) -> Option<u64> {
        let (_, settings) = self.engine_full.split_once(" SETTINGS ")?;
        let mut pairs = settings.split(',').filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.find(|(key, _)| key.trim() == name)?;
        value.trim().parse().ok()
    }
}

/// A column of an existing table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ExistingColumn {
    /// Its name.
    pub name: String,
    /// Its type as ClickHouse prints it.
    pub column_type: String,
    /// Empty, DEFAULT, MATERIALIZED, ALIAS or EPHEMERAL.
    pub default_kind: String,
    /// The expression of that as ClickHouse prints it, or empty.
    pub default_expression: String,
}

impl ExistingColumn {
    /// Whether it has values of its own, and is not computed.
    pub(super) fn is_stored(&self) -> bool {
        matches!(self.default_kind.as_str(), "" | "DEFAULT")
    }
}

#[derive(Deserialize)]
struct TableRow {
    name: String,
    uuid: String,
    engine: String,
    engine_full: String,
    sorting_key: String,
    partition_key: String,
    comment: String,
    total_rows: Option<u64>,
}

#[derive(Deserialize)]
struct ColumnRow {
    of_table: String,
    #[serde(flatten)]
    column: ExistingColumn,
}

#[derive(Deserialize)]
struct EngineRow {
    engine: String,
}

#[derive(Deserialize)]
struct OneRow {
    #[serde(rename = "one")]
    _one: u8,
}

impl ClickHouse {
    /// Creates the database when it is absent. Idempotent.
    ///
    /// # Errors
    /// `DestinationRejected` for a database whose engine cannot exchange tables, else as any statement.
    pub async fn ensure_database(&self) -> Result<()> {
        if self.database_engine().await?.is_none() {
            let sql = ddl::create_database(self.database());
            self.run(
                &sql,
                Doing::Definition("to create the database"),
                STATEMENT_TIMEOUT,
            )
            .await?;
        }
        match self.database_engine().await? {
            Some(engine) if is_fit_database(&engine) => Ok(()),
            Some(engine) => Err(Error::new(
                ErrorKind::DestinationRejected,
                format!("database `{}` has the engine {engine}", self.database()),
            )
            .with_hint("set `destination.database` to one with the engine Atomic, Replicated or Shared, or to a new name")),
            None => Err(Error::new(
                ErrorKind::DestinationDenied,
                format!("database `{}` was created and is not visible", self.database()),
            )
            .with_hint(format!("GRANT SHOW ON {}.* TO {}", ddl::ident(self.database()), self.user()))),
        }
    }

    pub(super) async fn database_engine(&self) -> Result<Option<String>> {
        let rows: Vec<EngineRow> = self
            .rows(
                &ddl::database_engine(self.database()),
                Doing::Definition("to look at the database"),
            )
            .await?;
        Ok(rows.into_iter().next().map(|row| row.engine))
    }

    /// What stands under the name `target` in the database, if anything.
    ///
    /// # Errors
    /// As any query.
    pub async fn inspect(&self, target: &str) -> Result<Option<ExistingTable>> {
        Ok(self.inspect_each(&[target]).await?.remove(target))
    }

    /// The same for several names, in two queries: for each query ClickHouse goes through all tables of the database, which
    /// takes tens of milliseconds where it has 20,000.
    ///
    /// # Errors
    /// As any query.
    pub(super) async fn inspect_each(&self, names: &[&str]) -> Result<Existing> {
        let doing = Doing::Definition("to look at tables");
        let found: Vec<TableRow> = self
            .rows(&ddl::describe_tables(self.database(), names), doing)
            .await?;
        if found.is_empty() {
            return Ok(Existing::new());
        }
        let rows: Vec<ColumnRow> = self
            .rows(&ddl::describe_columns(self.database(), names), doing)
            .await?;
        let mut columns: BTreeMap<String, Vec<ExistingColumn>> = BTreeMap::new();
        for row in rows {
            columns.entry(row.of_table).or_default().push(row.column);
        }
        let mut existing = Existing::new();
        for table in found {
            let rows_present = match table.total_rows {
                Some(rows) => rows > 0,
                None if table.engine.ends_with("View") => false,
                None => {
                    let sql = ddl::any_row(self.database(), &table.name);
                    let any: Vec<OneRow> = self.rows(&sql, doing).await?;
                    !any.is_empty()
                }
            };
            let columns = columns.remove(&table.name).unwrap_or_default();
            let described = ExistingTable {
                uuid: TableUuid(table.uuid),
                engine: table.engine,
                engine_full: table.engine_full,
                sorting_key: table.sorting_key,
                partition_key: table.partition_key,
                comment: table.comment,
                rows_present,
                columns,
            };
            existing.insert(table.name, described);
        }
        Ok(existing)
    }

    /// Sees that the table still is what `target` plans, before a pipe that was away writes on: ClickHouse would wrap a
    /// number into a column that has been narrowed meanwhile. `Ok` carries the table's identity.
    ///
    /// # Errors
    /// `DestinationRejected` when it is gone or does not fit, `DestinationOccupied` when it is somebody else's, else as
    /// any query.
    pub async fn ensure_unchanged(&self, target: &TargetTable, owner: &Owner) -> Result<TableUuid> {
        let existing = self.inspect(target.name()).await?;
        unchanged(target, owner, existing.as_ref())
    }

    /// The same of several.
    ///
    /// # Errors
    /// The same of the first that is not.
    pub async fn ensure_each_unchanged(
        &self,
        targets: &[&TargetTable],
        owner: &Owner,
    ) -> Result<()> {
        for some in targets.chunks(TARGETS_A_QUERY) {
            let names: Vec<&str> = some.iter().map(|target| target.name()).collect();
            let existing = self.inspect_each(&names).await?;
            for target in some {
                unchanged(target, owner, existing.get(target.name()))?;
            }
        }
        Ok(())
    }
}

/// What keeps the view of `target` from being made; `existing` stands under its name.
pub(super) fn in_the_way(
    target: &TargetTable,
    owner: &Owner,
    existing: Option<&ExistingTable>,
) -> Option<Error> {
    let view = target.view_name();
    let existing = existing?;
    if existing.engine == "View" && owner.is_pipe_of(&existing.comment) {
        return None;
    }
    Some(
        Error::new(
            ErrorKind::DestinationOccupied,
            format!(
                "`{view}`, the name of the view of current rows, is taken by a {}",
                existing.engine
            ),
        )
        .with_hint(format!(
            "rename it, or set `target` to another name than `{}`",
            target.name()
        ))
        .with_table(target.source()),
    )
}

/// Whether what stands for `target` is the owner's, and as it was left.
fn unchanged(
    target: &TargetTable,
    owner: &Owner,
    existing: Option<&ExistingTable>,
) -> Result<TableUuid> {
    let rejected = |problem: String| {
        Error::new(
            ErrorKind::DestinationRejected,
            format!(
                "target `{}` is not as this pipe left it: {problem}",
                target.name()
            ),
        )
        .with_hint("undo what was changed at the destination by hand, or resync the table")
        .with_table(target.source())
    };
    let Some(existing) = existing else {
        return Err(rejected("it is gone".to_owned()));
    };
    let problems = misfits(target, existing);
    if !problems.is_empty() {
        return Err(rejected(in_words(&problems)));
    }
    match occupation(target, existing, owner) {
        Some(occupied) => Err(occupied),
        None => Ok(existing.uuid.clone()),
    }
}

pub(super) fn is_fit_database(engine: &str) -> bool {
    matches!(engine, "Atomic" | "Replicated" | "Shared")
}

/// Why `owner` must not write into `existing`, if so.
pub(super) fn occupation(
    target: &TargetTable,
    existing: &ExistingTable,
    owner: &Owner,
) -> Option<Error> {
    let name = ddl::qualified(target.database(), target.name());
    let occupied = |message: String, hint: String| {
        Some(
            Error::new(ErrorKind::DestinationOccupied, message)
                .with_hint(hint)
                .with_table(target.source()),
        )
    };
    let own = existing.comment == owner.to_string();
    if !own
        && existing.comment.starts_with(TOKEN)
        && (existing.rows_present || !owner.is_pipe_of(&existing.comment))
    {
        let whose = if owner.is_pipe_of(&existing.comment) {
            "an earlier pipe of this name, or to a table that has left this one"
        } else {
            "another pipe"
        };
        return occupied(
            format!("target {name} belongs to {whose}"),
            format!(
                "set `target` to another name, or, if its rows are no longer needed, DROP TABLE {name}"
            ),
        );
    }
    if !own && existing.rows_present {
        return occupied(
            format!("target {name} has rows that this pipe did not write"),
            format!(
                "set `target` to another name; or resync, which loads beside the table and swaps; or, if its rows are no \
                 longer needed, DROP TABLE {name}"
            ),
        );
    }
    None
}

/// The statement that mends `misfit`.
pub(super) fn remedy(target: &TargetTable, misfit: &Misfit) -> String {
    misfit.alter.clone().unwrap_or_else(|| {
        format!(
            "DROP TABLE {}",
            ddl::qualified(target.database(), target.name())
        )
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::target::tests::{config, schema, table};
    use super::*;

    pub(in super::super) fn target() -> TargetTable {
        TargetTable::plan(&config(), &table(), &schema()).expect("a plan")
    }

    pub(in super::super) fn existing() -> ExistingTable {
        let column = |name: &str, column_type: &str, default_kind: &str| ExistingColumn {
            name: name.to_owned(),
            column_type: column_type.to_owned(),
            default_kind: default_kind.to_owned(),
            default_expression: String::new(),
        };
        ExistingTable {
            uuid: TableUuid("u".to_owned()),
            engine: "ReplacingMergeTree".to_owned(),
            engine_full: "ReplacingMergeTree(_version, _is_deleted) ORDER BY (id)".to_owned(),
            sorting_key: "(id)".to_owned(),
            partition_key: String::new(),
            comment: String::new(),
            rows_present: false,
            columns: vec![
                column("id", "Int64", ""),
                column("tenant", "UInt32", ""),
                column("note", "Nullable(String)", ""),
                column("born", "Nullable(Date32)", ""),
                column("_version", "UInt64", ""),
                column("_is_deleted", "UInt8", ""),
                column("_synced_at", "DateTime64(6, 'UTC')", "DEFAULT"),
            ],
        }
    }

    fn owner() -> Owner {
        Owner::new("shop", "1")
    }

    #[test]
    fn an_empty_table_that_fits_may_be_taken_over() {
        assert!(occupation(&target(), &existing(), &owner()).is_none());
    }

    #[test]
    fn rows_of_somebody_else_are_never_written_to() {
        for comment in [
            "",
            "hello",
            "pipewright pipe=shop id=2",
            "pipewright pipe=sho id=1",
        ] {
            let table = ExistingTable {
                rows_present: true,
                comment: comment.to_owned(),
                ..existing()
            };
            let refused = occupation(&target(), &table, &owner()).expect(comment);
            assert_eq!(refused.kind(), ErrorKind::DestinationOccupied);
            assert!(refused.hint().is_some());
        }
    }

    #[test]
    fn rows_of_the_own_unfinished_load_are_no_hindrance() {
        let table = ExistingTable {
            rows_present: true,
            comment: owner().to_string(),
            ..existing()
        };
        assert!(occupation(&target(), &table, &owner()).is_none());
    }

    #[test]
    fn an_empty_table_of_another_pipe_is_left_alone() {
        let table = ExistingTable {
            comment: "pipewright pipe=shop2 id=1".to_owned(),
            ..existing()
        };
        assert!(occupation(&target(), &table, &owner()).is_some());
    }
}
