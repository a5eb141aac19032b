//! Databases, tables and views: looked at, created, and told apart by who made them.
//!
//! A table of ours carries its owner in its comment: the pipe, and an id that the pipe keeps in its state. After a crash
//! in the middle of Setup or of a load the same id is found again and the work goes on; any other table with rows is
//! somebody else's and is never written to.

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
}

#[derive(Deserialize)]
struct TableRow {
    uuid: String,
    engine: String,
    engine_full: String,
    sorting_key: String,
    partition_key: String,
    comment: String,
    total_rows: Option<u64>,
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
        let doing = Doing::Definition("to look at a table");
        let found: Vec<TableRow> = self
            .rows(&ddl::describe_table(self.database(), target), doing)
            .await?;
        let Some(found) = found.into_iter().next() else {
            return Ok(None);
        };
        let columns = self
            .rows(&ddl::describe_columns(self.database(), target), doing)
            .await?;
        let rows_present = match found.total_rows {
            Some(rows) => rows > 0,
            None if found.engine.ends_with("View") => false,
            None => {
                let any: Vec<OneRow> = self
                    .rows(&ddl::any_row(self.database(), target), doing)
                    .await?;
                !any.is_empty()
            }
        };
        Ok(Some(ExistingTable {
            uuid: TableUuid(found.uuid),
            engine: found.engine,
            engine_full: found.engine_full,
            sorting_key: found.sorting_key,
            partition_key: found.partition_key,
            comment: found.comment,
            rows_present,
            columns,
        }))
    }

    /// Creates table and view, or finds them from an attempt of the same owner before. An empty table that fits is
    /// taken over. Never touches a table with rows that is not the owner's.
    ///
    /// # Errors
    /// `DestinationOccupied` for what is somebody else's or does not fit, else as any statement.
    pub async fn create(&self, target: &TargetTable, owner: &Owner) -> Result<TableUuid> {
        let tag = |error: Error| error.with_table(target.source());
        let doing = Doing::Definition("to create a table");
        self.run(
            &ddl::create_table(target, Some(owner)),
            doing,
            STATEMENT_TIMEOUT,
        )
        .await
        .map_err(tag)?;
        let Some(existing) = self.inspect(target.name()).await? else {
            return Err(tag(Error::new(
                ErrorKind::DestinationDenied,
                format!("table `{}` was created and is not visible", target.name()),
            )
            .with_hint(format!(
                "GRANT SHOW ON {}.* TO {}",
                ddl::ident(self.database()),
                self.user()
            ))));
        };
        if let Some(occupied) = occupation(target, &existing, owner) {
            return Err(occupied);
        }
        if let Some(unfit) = unfit(target, &misfits(target, &existing)) {
            return Err(unfit);
        }
        if existing.comment != owner.to_string() {
            let sql = ddl::set_comment(target.database(), target.name(), &owner.to_string());
            self.run(&sql, doing, STATEMENT_TIMEOUT)
                .await
                .map_err(tag)?;
        }
        self.refresh_view(target, owner).await?;
        Ok(existing.uuid)
    }

    /// Sees that the table still is what `target` plans, before a pipe that was away writes on: ClickHouse would wrap a
    /// number into a column that has been narrowed meanwhile. `Ok` carries the table's identity.
    ///
    /// # Errors
    /// `DestinationRejected` when it is gone or does not fit, `DestinationOccupied` when it is somebody else's, else as
    /// any query.
    pub async fn ensure_unchanged(&self, target: &TargetTable, owner: &Owner) -> Result<TableUuid> {
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
        let Some(existing) = self.inspect(target.name()).await? else {
            return Err(rejected("it is gone".to_owned()));
        };
        let problems = misfits(target, &existing);
        if !problems.is_empty() {
            return Err(rejected(in_words(&problems)));
        }
        match occupation(target, &existing, owner) {
            Some(occupied) => Err(occupied),
            None => Ok(existing.uuid),
        }
    }

    pub(super) async fn refresh_view(&self, target: &TargetTable, owner: &Owner) -> Result<()> {
        if target.is_beside() {
            return Ok(());
        }
        if let Some(problem) = self.view_in_the_way(target, owner).await? {
            return Err(problem);
        }
        self.run(
            &ddl::create_view(target, Some(owner)),
            Doing::Definition("to create a view"),
            STATEMENT_TIMEOUT,
        )
        .await
        .map_err(|error| error.with_table(target.source()))
    }

    pub(super) async fn view_in_the_way(
        &self,
        target: &TargetTable,
        owner: &Owner,
    ) -> Result<Option<Error>> {
        let view = target.view_name();
        let Some(existing) = self.inspect(&view).await? else {
            return Ok(None);
        };
        if existing.engine == "View" && owner.is_pipe_of(&existing.comment) {
            return Ok(None);
        }
        Ok(Some(
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
        ))
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

/// All of `misfits` as one error, and the statements that mend them.
fn unfit(target: &TargetTable, misfits: &[Misfit]) -> Option<Error> {
    if misfits.is_empty() {
        return None;
    }
    let name = ddl::qualified(target.database(), target.name());
    let remedies: Vec<String> = misfits
        .iter()
        .map(|misfit| remedy(target, misfit))
        .collect();
    let mut distinct = remedies;
    distinct.dedup();
    Some(
        Error::new(
            ErrorKind::DestinationOccupied,
            format!(
                "target {name} exists and does not fit: {}",
                in_words(misfits)
            ),
        )
        .with_hint(distinct.join("; "))
        .with_table(target.source()),
    )
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
