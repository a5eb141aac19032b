//! Equality of a source table and its target: every row, every column, value by value.
//!
//! Rows are matched by the canonical text of their key, so neither end's sort order matters. Both the target read with
//! FINAL and its current-rows view must agree with the source. What plugins change is restated in the source's own SQL.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::canonical::{End, Kind};
use super::clickhouse::ClickHouse;
use super::source::{Source, quoted, text};

const DIFFERENCES_SHOWN: usize = 5;

/// Tables of one flush may become visible a moment after each other.
const SETTLING_TIME: Duration = Duration::from_secs(20);

/// What is compared, and how the target is meant to differ.
#[derive(Clone, Debug)]
pub struct Comparison {
    table: String,
    target: String,
    deleted: String,
    expressions: BTreeMap<String, String>,
    condition: Option<String>,
    left_out: Vec<String>,
    key: Option<Vec<String>>,
    view_alone: bool,
}

type Rows = BTreeMap<Vec<Option<String>>, Vec<Option<String>>>;

struct Column {
    name: String,
    kind: Kind,
    nullable: bool,
    source_sql: String,
}

impl Comparison {
    /// A table whose target has its name and all its columns.
    pub fn of(table: &str) -> Self {
        Self {
            table: table.to_owned(),
            target: table.to_owned(),
            deleted: "_is_deleted".to_owned(),
            expressions: BTreeMap::new(),
            condition: None,
            left_out: Vec::new(),
            key: None,
            view_alone: false,
        }
    }

    /// The target has another name.
    #[must_use]
    pub fn target(mut self, target: &str) -> Self {
        self.target = target.to_owned();
        self
    }

    /// The column that marks tombstones has another name.
    #[must_use]
    pub fn deleted_column(mut self, name: &str) -> Self {
        self.deleted = name.to_owned();
        self
    }

    /// The target's text column holds what this expression of the source gives, not the column's own value.
    #[must_use]
    pub fn text_is(mut self, column: &str, source_sql: &str) -> Self {
        self.expressions.insert(
            column.to_owned(),
            format!("HEX(CONVERT({source_sql} USING utf8mb4))"),
        );
        self
    }

    /// The target has only the rows for which this condition of the source holds.
    #[must_use]
    pub fn only_where(mut self, condition: &str) -> Self {
        self.condition = Some(condition.to_owned());
        self
    }

    /// The target does not have this column.
    #[must_use]
    pub fn without(mut self, column: &str) -> Self {
        self.left_out.push(column.to_owned());
        self
    }

    /// Rows are told apart by these columns instead of the primary key.
    #[must_use]
    pub fn by(mut self, columns: &[&str]) -> Self {
        self.key = Some(columns.iter().map(|&name| name.to_owned()).collect());
        self
    }

    /// The target keeps every change as a row, so its view alone shows what the source has.
    #[must_use]
    pub fn view_alone(mut self) -> Self {
        self.view_alone = true;
        self
    }

    /// Both ends are equal now or within a moment.
    ///
    /// # Errors
    /// The first differences: table, key, column, both values.
    pub async fn assert(
        &self,
        source: &Source,
        clickhouse: &ClickHouse,
        database: &str,
    ) -> Result<u64> {
        let deadline = Instant::now() + SETTLING_TIME;
        loop {
            match self.compare(source, clickhouse, database).await {
                Ok(row_count) => return Ok(row_count),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    async fn compare(
        &self,
        source: &Source,
        clickhouse: &ClickHouse,
        database: &str,
    ) -> Result<u64> {
        let columns = self.columns(source, clickhouse, database).await?;
        let names = match &self.key {
            Some(names) => names.clone(),
            None => source.key(&self.table).await?,
        };
        let key: Vec<usize> = names
            .iter()
            .filter_map(|name| columns.iter().position(|column| column.name == *name))
            .collect();
        ensure!(
            !key.is_empty() && key.len() == names.len(),
            "`{}` has no key to compare by",
            self.table
        );
        let expected = self.source_rows(source, &columns, &key).await?;
        let database = quoted(database);
        let table = format!(
            "{database}.{} FINAL WHERE {} = 0",
            quoted(&self.target),
            quoted(&self.deleted)
        );
        let view = format!("{database}.{}", quoted(&format!("{}_current", self.target)));
        let compared = match self.view_alone {
            true => vec![view],
            false => vec![table, view],
        };
        for from in compared {
            let actual = self
                .destination_rows(clickhouse, &from, &columns, &key)
                .await?;
            self.ensure_same(&from, &columns, &expected, &actual)?;
        }
        Ok(expected.len() as u64)
    }

    async fn columns(
        &self,
        source: &Source,
        clickhouse: &ClickHouse,
        database: &str,
    ) -> Result<Vec<Column>> {
        let at_source = source.columns(&self.table).await?;
        ensure!(
            !at_source.is_empty(),
            "the source has no table `{}`",
            self.table
        );
        let sql = format!(
            "SELECT name, type FROM system.columns WHERE database = '{database}' AND table = {}",
            text(&self.target)
        );
        let at_target: BTreeMap<String, String> = clickhouse
            .rows(&sql)
            .await?
            .into_iter()
            .filter_map(|row| match row.as_slice() {
                [Some(name), Some(kind)] => Some((name.clone(), kind.clone())),
                _ => None,
            })
            .collect();
        let mut columns = Vec::new();
        for (name, data_type) in at_source {
            let target_type = at_target.get(&name);
            if self.left_out.contains(&name) {
                ensure!(
                    target_type.is_none(),
                    "`{}` has the column `{name}` all the same",
                    self.target
                );
                continue;
            }
            let Some(target_type) = target_type else {
                bail!("`{}` has no column `{name}`", self.target)
            };
            let kind = Kind::of(&data_type)?;
            let source_sql = self
                .expressions
                .get(&name)
                .cloned()
                .unwrap_or_else(|| kind.source_sql(&name));
            columns.push(Column {
                kind,
                nullable: target_type.contains("Nullable("),
                source_sql,
                name,
            });
        }
        Ok(columns)
    }

    async fn source_rows(
        &self,
        source: &Source,
        columns: &[Column],
        key: &[usize],
    ) -> Result<Rows> {
        let list: Vec<&str> = columns
            .iter()
            .map(|column| column.source_sql.as_str())
            .collect();
        let condition = self
            .condition
            .as_deref()
            .map(|sql| format!(" WHERE {sql}"))
            .unwrap_or_default();
        let sql = format!(
            "SELECT {} FROM {}{condition}",
            list.join(", "),
            quoted(&self.table)
        );
        let rows: Vec<mysql_async::Row> = source.rows(sql).await?;
        let texts = rows.into_iter().map(|row| {
            let values = row.unwrap();
            values
                .into_iter()
                .map(mysql_async::from_value::<Option<String>>)
                .collect()
        });
        keyed(End::Source, columns, key, texts, &self.table)
    }

    async fn destination_rows(
        &self,
        clickhouse: &ClickHouse,
        from: &str,
        columns: &[Column],
        key: &[usize],
    ) -> Result<Rows> {
        let list: Vec<String> = columns
            .iter()
            .map(|column| column.kind.destination_sql(&column.name))
            .collect();
        let rows = clickhouse
            .rows(&format!("SELECT {} FROM {from}", list.join(", ")))
            .await?;
        keyed(End::Destination, columns, key, rows, from)
    }

    fn ensure_same(
        &self,
        from: &str,
        columns: &[Column],
        expected: &Rows,
        actual: &Rows,
    ) -> Result<()> {
        let mut differences = Vec::new();
        for (key, row) in expected {
            match actual.get(key) {
                None => differences.push(format!("{key:?}: missing at the destination")),
                Some(found) => differences.extend(
                    columns
                        .iter()
                        .zip(row.iter().zip(found))
                        .filter(|(_, (expected, found))| expected != found)
                        .map(|(column, (expected, found))| {
                            format!(
                                "{key:?}, column `{}`: source {}, destination {}",
                                column.name,
                                column.kind.shown(expected.as_deref()),
                                column.kind.shown(found.as_deref())
                            )
                        }),
                ),
            }
        }
        for key in actual.keys().filter(|key| !expected.contains_key(*key)) {
            differences.push(format!("{key:?}: not at the source (any more)"));
        }
        if differences.is_empty() {
            return Ok(());
        }
        let count = differences.len();
        differences.truncate(DIFFERENCES_SHOWN);
        bail!(
            "`{}` and {from} differ in {count} places ({} and {} rows):\n  {}",
            self.table,
            expected.len(),
            actual.len(),
            differences.join("\n  ")
        );
    }
}

fn keyed(
    end: End,
    columns: &[Column],
    key: &[usize],
    rows: impl IntoIterator<Item = Vec<Option<String>>>,
    from: &str,
) -> Result<Rows> {
    let mut keyed = Rows::new();
    for row in rows {
        let row: Vec<Option<String>> = columns
            .iter()
            .zip(row)
            .map(|(column, text)| column.kind.canonical(end, text, column.nullable))
            .collect::<Result<_>>()?;
        let its_key: Vec<Option<String>> = key.iter().map(|&index| row[index].clone()).collect();
        if let Some(twin) = keyed.insert(its_key.clone(), row) {
            bail!("{from} has two rows with the key {its_key:?}; one is {twin:?}");
        }
    }
    Ok(keyed)
}
