//! A table whose columns each have a choice of `types` and the values that show it, on both paths.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable;
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{Pipe, Stage};

use crate::support::{CATCH_UP, running_with, wait_answer};

/// Shown of a value that arrives as NULL.
pub(super) const NULL: &str = "\\N";

/// What is added to the key of rows that are to be read again.
const MOVED: u32 = 1_000_000;

/// A value as the source takes it, as ClickHouse shows it, and whether that was counted as a change.
pub(super) type Row<'a> = (&'a str, &'a str, bool);

/// One column of a trial.
pub(super) struct Column<'a> {
    pub(super) definition: &'a str,
    /// What stands below `columns`.
    pub(super) chosen: Value,
    pub(super) sql_type: &'a str,
    /// The policy under whose name changes are counted.
    pub(super) policy: &'a str,
    /// What NULL arrives as; none for NULL.
    pub(super) null: Option<&'a str>,
    /// The source's column takes no NULL, and none is written.
    pub(super) not_null: bool,
    pub(super) values: &'a [Row<'a>],
    /// What the source itself shows for every value, instead of what `values` says.
    pub(super) source_sql: Option<&'a str>,
    /// What ClickHouse is asked to show.
    pub(super) target_sql: &'a str,
}

impl Default for Column<'_> {
    fn default() -> Self {
        Self {
            definition: "",
            chosen: Value::Null,
            sql_type: "",
            policy: "",
            null: None,
            not_null: false,
            values: &[],
            source_sql: None,
            target_sql: "toString({})",
        }
    }
}

pub(super) struct Trial<'a> {
    pub(super) stage: Stage,
    columns: &'a [Column<'a>],
    row_count: usize,
}

impl Trial<'_> {
    fn names(&self) -> String {
        let names: Vec<String> = (0..self.columns.len()).map(|n| format!("c{n}")).collect();
        names.join(", ")
    }

    /// The n-th value of each column, going round; the last of each that takes it is NULL.
    fn value(&self, row: usize, column: &Column<'_>) -> Option<(String, Option<String>, bool)> {
        let at = row % (column.values.len() + usize::from(!column.not_null));
        column.values.get(at).map(|(literal, shown, changed)| {
            let shown = (*shown != NULL).then(|| (*shown).to_owned());
            ((*literal).to_owned(), shown, *changed)
        })
    }

    async fn insert(&self) -> Result<()> {
        let mut conn = self.stage.source.connect().await?;
        conn.query_drop("SET sql_mode = 'ALLOW_INVALID_DATES'")
            .await?;
        for row in 0..self.row_count {
            let literals: Vec<String> = self
                .columns
                .iter()
                .map(|column| {
                    self.value(row, column)
                        .map_or("NULL".to_owned(), |value| value.0)
                })
                .collect();
            conn.query_drop(format!(
                "INSERT INTO t ({}) VALUES ({})",
                self.names(),
                literals.join(", ")
            ))
            .await?;
        }
        Ok(())
    }

    /// Every column holds what is expected of it, in all rows so far.
    pub(super) async fn check(&self, times: usize) -> Result<()> {
        let database = &self.stage.database;
        for (n, column) in self.columns.iter().enumerate() {
            let sql_type = self
                .stage
                .clickhouse
                .query(&format!(
                    "SELECT type FROM system.columns WHERE database = '{database}' AND table = 't' AND name = 'c{n}' FORMAT TSVRaw"
                ))
                .await?;
            ensure!(
                sql_type == column.sql_type,
                "c{n} ({}) is {sql_type}",
                column.definition
            );
            let found: Vec<Option<String>> = self
                .stage
                .clickhouse
                .rows(&format!(
                    "SELECT {} FROM `{database}`.t_current ORDER BY id",
                    column.target_sql.replace("{}", &format!("c{n}"))
                ))
                .await?
                .into_iter()
                .flatten()
                .collect();
            let expected = self.expected(n, column, times).await?;
            ensure!(
                found == expected,
                "c{n} ({}, {}): {found:?} and not {expected:?}",
                column.definition,
                column.chosen
            );
        }
        Ok(())
    }

    async fn expected(
        &self,
        n: usize,
        column: &Column<'_>,
        times: usize,
    ) -> Result<Vec<Option<String>>> {
        if let Some(sql) = column.source_sql {
            let sql = sql.replace("{}", &format!("c{n}"));
            return self
                .stage
                .source
                .rows(format!("SELECT CAST({sql} AS CHAR) FROM t ORDER BY id"))
                .await;
        }
        let once: Vec<Option<String>> = (0..self.row_count)
            .map(|row| match self.value(row, column) {
                Some((_, shown, _)) => shown,
                None => column.null.map(str::to_owned),
            })
            .collect();
        Ok(vec![once; times].concat())
    }

    /// What status must say of all rows so far.
    pub(super) fn changed(&self, times: usize) -> Vec<Value> {
        let mut changed = Vec::new();
        for (n, column) in self.columns.iter().enumerate() {
            let values = (0..self.row_count)
                .filter(|row| match self.value(*row, column) {
                    Some((_, _, changed)) => changed,
                    None => column.null.is_some(),
                })
                .count();
            if values > 0 {
                changed.push(json!({
                    "column": format!("c{n}"),
                    "policy": column.policy,
                    "values": values * times,
                }));
            }
        }
        // Status is in the order of names.
        changed.sort_by_key(|entry| entry["column"].as_str().map(str::to_owned));
        changed
    }
}

/// Writes the same rows before the load and after it, and checks values, types and counters.
pub(super) async fn both_paths<'a>(
    kind: SourceKind,
    more: Value,
    columns: &'a [Column<'a>],
) -> Result<(Trial<'a>, Pipe)> {
    let stage = Stage::shared(kind).await?;
    let definitions: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(n, column)| match column.not_null {
            true => format!("c{n} {} NOT NULL", column.definition),
            false => format!("c{n} {} NULL DEFAULT NULL", column.definition),
        })
        .collect();
    let trial = Trial {
        row_count: columns
            .iter()
            .map(|column| column.values.len() + 1)
            .max()
            .unwrap_or(1),
        stage,
        columns,
    };
    let create = format!(
        "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, {}) CHARACTER SET utf8mb4",
        definitions.join(", ")
    );
    trial.stage.source.execute(create).await?;
    trial.insert().await?;
    let chosen: serde_json::Map<String, Value> = columns
        .iter()
        .enumerate()
        .filter(|(_, column)| !column.chosen.is_null())
        .map(|(n, column)| (format!("c{n}"), column.chosen.clone()))
        .collect();
    let entry = json!({ "source": format!("{}.t", trial.stage.database), "columns": chosen });
    let mut file = trial.stage.pipe_file_of(vec![entry]);
    if let (Some(file), Some(more)) = (file.as_object_mut(), more.as_object()) {
        file.extend(more.clone());
    }
    let mut pipe = running_with(&file).await?;
    trial.check(1).await?;
    ensure_changed(&pipe, &trial.changed(1))
        .await
        .context("after the load")?;
    trial.insert().await?;
    trial.stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    settled(&pipe, &trial.changed(2)).await?;
    trial.check(2).await?;
    Ok((trial, pipe))
}

/// The rows that were written twice have other keys, and events that leave all else out, so that they are read again.
pub(super) async fn read_again(trial: &Trial<'_>, pipe: &mut Pipe) -> Result<()> {
    let mut conn = trial.stage.source.connect().await?;
    conn.query_drop("SET SESSION binlog_row_image = 'MINIMAL'")
        .await?;
    conn.query_drop(format!("UPDATE t SET id = id + {MOVED}"))
        .await?;
    drop(conn);
    trial.stage.wait_caught_up(pipe, CATCH_UP).await?;
    // What had to be read is written behind the tombstones of the old keys.
    let keys = format!(
        "SELECT countIf(id <= {MOVED}), countIf(id > {MOVED}) FROM `{}`.t_current",
        trial.stage.database
    );
    wait_answer(&trial.stage, &keys, &format!("0\t{}", 2 * trial.row_count)).await?;
    trial.check(2).await.context("read again")
}

pub(super) async fn changed(pipe: &Pipe) -> Result<Vec<Value>> {
    let status = pipe.status().await?;
    Ok(status["tables"][0]["columns"]
        .as_array()
        .context("no columns in the document")?
        .clone())
}

pub(super) async fn ensure_changed(pipe: &Pipe, expected: &[Value]) -> Result<()> {
    let found = changed(pipe).await?;
    ensure!(found == expected, "{found:#?} and not {expected:#?}");
    Ok(())
}

/// The checkpoint with its counts follows the rows a moment later.
pub(super) async fn settled(pipe: &Pipe, expected: &[Value]) -> Result<()> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while changed(pipe).await? != expected && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ensure_changed(pipe, expected).await
}
