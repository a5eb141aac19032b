//! A target table altered to what a changed source table asks for, in place, where ClickHouse keeps every value.
//!
//! The steps go by the end state: each looks at what is there, so that all of them may be repeated after a crash. What
//! ClickHouse cannot alter (the sorting key, error 524) or would alter with loss is no alteration, and the caller loads
//! the table anew beside the live one.

use std::time::Duration;

use serde::Deserialize;

use super::client::{ClickHouse, STATEMENT_TIMEOUT};
use super::ddl;
use super::failure::Doing;
use super::tables::{ExistingTable, Owner};
use super::target::{TargetColumn, TargetTable};
use crate::batch::ColumnType;
use crate::error::{Error, ErrorKind, Result};
use crate::fault;

/// How long the values of renamed columns may take: all of them are read.
const COMPARISON_TIMEOUT: Duration = Duration::from_secs(6 * 3600);

#[derive(Deserialize)]
struct HeldRow {
    held: String,
}

/// What becomes of columns that the source has dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DroppedColumns {
    /// They are dropped.
    Drop,
    /// They stay, and later rows have NULL in them.
    Keep,
}

/// The way from one form of a target table to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alteration {
    before: TargetTable,
    after: TargetTable,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Rename {
        from: String,
        to: String,
    },
    Drop(String),
    /// The column's type before; it becomes Nullable where it can.
    Keep(String, String),
    Modify(String, String),
}

impl Alteration {
    /// Plans the way from `before` to `after`; `renamed` holds old and new names.
    ///
    /// # Errors
    /// The reason, as the end of a sentence, for which only a fresh load leads there.
    pub fn plan(
        before: &TargetTable,
        after: &TargetTable,
        renamed: &[(String, String)],
        dropped: DroppedColumns,
    ) -> std::result::Result<Self, String> {
        let new_name = |name: &str| {
            let found = renamed.iter().find(|(from, _)| from == name);
            found.map_or(name.to_owned(), |(_, to)| to.clone())
        };
        let (key, next_key) = (before.key_names(), after.key_names());
        if key != next_key {
            return Err(format!(
                "the key is ({}) in the place of ({})",
                next_key.join(", "),
                key.join(", ")
            ));
        }
        let kept = |target: &TargetTable| (target.engine(), target.is_keyless());
        if kept(before) != kept(after) {
            return Err("its rows are told apart in another way".to_owned());
        }
        let mut steps = Vec::new();
        for column in before.columns() {
            let name = new_name(&column.name);
            let Some(next) = after.columns().iter().find(|next| next.name == name) else {
                steps.push(match dropped {
                    DroppedColumns::Drop => Step::Drop(name),
                    DroppedColumns::Keep => Step::Keep(name, column.sql_type.clone()),
                });
                continue;
            };
            if name != column.name {
                if before.columns().iter().any(|other| other.name == name) {
                    return Err(format!("columns exchange the name `{name}`"));
                }
                // Renames come before drops, whose names they may take.
                steps.insert(
                    0,
                    Step::Rename {
                        from: column.name.clone(),
                        to: name.clone(),
                    },
                );
            }
            if scale_as_text(column) != scale_as_text(next) {
                return Err(format!("column `{name}` shows other digits as text"));
            }
            if column.sql_type != next.sql_type {
                if key.contains(&name.as_str()) || !keeps_values(column, next) {
                    return Err(format!(
                        "column `{name}` becomes {} from {}",
                        next.sql_type, column.sql_type
                    ));
                }
                steps.push(Step::Modify(name, next.sql_type.clone()));
            }
        }
        Ok(Self {
            before: before.clone(),
            after: after.clone(),
            steps,
        })
    }

    /// The same for the table under another name.
    #[must_use]
    fn of(&self, target: &TargetTable) -> Self {
        if target.name() == self.after.name() {
            return self.clone();
        }
        Self {
            before: self.before.with_name(target.name()),
            after: self.after.with_name(target.name()),
            steps: self.steps.clone(),
        }
    }

    /// What the table becomes.
    pub fn after(&self) -> &TargetTable {
        &self.after
    }
}

impl ClickHouse {
    /// Gives columns of `target` that stand under a name which the alteration gives to a new one a name that is free:
    /// archived ones of the source, and a user's own. To be called before the alteration is begun, since afterwards such a
    /// column may be the new one. Repeatable.
    ///
    /// # Errors
    /// As any statement.
    pub async fn make_way(&self, alteration: &Alteration, target: &TargetTable) -> Result<()> {
        let alteration = alteration.of(target);
        let tag = |error: Error| error.with_table(alteration.after.source());
        // One that is gone is the alteration's to tell.
        let Some(found) = self.inspect(alteration.after.name()).await.map_err(tag)? else {
            return Ok(());
        };
        for (name, aside) in alteration.in_the_way(&found) {
            let target = &alteration.after;
            let held = self.held_in(target, &[&name]).await.map_err(tag)?;
            let sql = ddl::rename_column(target, &name, &aside);
            self.run_each(&[sql], target).await.map_err(tag)?;
            if self.held_in(target, &[&aside]).await.map_err(tag)? != held {
                return Err(tag(values_lost(target, &aside)));
            }
        }
        Ok(())
    }

    /// Alters `target`, which is the planned table or one beside it, and shows the columns in the view. Repeatable.
    ///
    /// # Errors
    /// As any statement, and as [`ClickHouse::ensure_unchanged`], which sees that the table comes out as planned.
    pub async fn alter(
        &self,
        alteration: &Alteration,
        target: &TargetTable,
        owner: &Owner,
    ) -> Result<()> {
        let alteration = alteration.of(target);
        let after = &alteration.after;
        let tag = |error: Error| error.with_table(after.source());
        let Some(found) = self.inspect(after.name()).await.map_err(tag)? else {
            return Err(tag(Error::new(
                ErrorKind::DestinationRejected,
                format!("target `{}` is gone", after.name()),
            )
            .with_hint("resync the table")));
        };
        if !alteration.steps.is_empty() {
            // Nobody waits for such an insert any more, and its rows have been written again. What it has in a column that
            // is renamed under it is lost (seen on 26.7), and it would have the same versions. Where columns are only
            // added, a load may go on beside it.
            self.end_outstanding(after.name()).await.map_err(tag)?;
        }
        let statements = alteration.statements(&found);
        fault::point("alter:1");
        self.run_each(&statements, after).await.map_err(tag)?;
        fault::point("alter:2");
        for column in self.kept_with_fill(&alteration).await.map_err(tag)? {
            self.let_go_of_fill(after, &column).await.map_err(tag)?;
        }
        self.ensure_unchanged(after, owner).await?;
        self.refresh_view(after, owner).await?;
        fault::point("alter:3");
        Ok(())
    }

    /// What the columns hold that the alteration gives another name, on the table as it stands: equal before and behind.
    /// None where it renames none.
    ///
    /// ClickHouse loses the values of a renamed column in every part that it merges at the wrong moment (its issue 80648
    /// and pull request 109356; seen on 26.7: 3 of 360 renames of a table that nobody wrote to).
    ///
    /// # Errors
    /// As any statement.
    pub async fn renamed_values(
        &self,
        alteration: &Alteration,
        target: &TargetTable,
    ) -> Result<Option<String>> {
        let alteration = alteration.of(target);
        let after = &alteration.after;
        let tag = |error: Error| error.with_table(after.source());
        let Some(found) = self.inspect(after.name()).await.map_err(tag)? else {
            return Ok(None);
        };
        let stands = |name: &str| found.columns.iter().any(|column| column.name == name);
        let columns: Vec<&str> = alteration
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::Rename { from, .. } if stands(from) => Some(from.as_str()),
                Step::Rename { to, .. } => Some(to.as_str()),
                Step::Drop(_) | Step::Keep(..) | Step::Modify(..) => None,
            })
            .collect();
        if columns.is_empty() {
            return Ok(None);
        }
        let held = self.held_in(after, &columns).await.map_err(tag)?;
        Ok(Some(held))
    }

    /// The kept columns, on the table as it stands, that still have a default for what parts lack.
    async fn kept_with_fill(&self, alteration: &Alteration) -> Result<Vec<String>> {
        let keeps = |step: &Step| matches!(step, Step::Keep(..));
        if !alteration.steps.iter().any(keeps) {
            return Ok(Vec::new());
        }
        let found = self.inspect(alteration.after.name()).await?;
        Ok(found.map_or_else(Vec::new, |found| alteration.filled(&found)))
    }

    async fn held_in(&self, target: &TargetTable, columns: &[&str]) -> Result<String> {
        let sql = ddl::held_in(target, columns);
        let doing = Doing::Rows("the comparison of renamed columns", target);
        let rows: Vec<HeldRow> = self.rows_within(&sql, doing, COMPARISON_TIMEOUT).await?;
        Ok(rows.into_iter().map(|row| row.held).collect())
    }

    async fn run_each(&self, statements: &[String], table: &TargetTable) -> Result<()> {
        for sql in statements {
            self.run(sql, Doing::Alteration(table), STATEMENT_TIMEOUT)
                .await?;
        }
        Ok(())
    }
}

impl Alteration {
    /// The columns that make way for new ones and new names on the table as it stands, each with its other name.
    fn in_the_way(&self, found: &ExistingTable) -> Vec<(String, String)> {
        let stands = |name: &str| found.columns.iter().any(|column| column.name == name);
        let of = |table: &TargetTable, name: &str| {
            table.columns().iter().any(|column| column.name == name)
        };
        let strays = self
            .after
            .columns()
            .iter()
            .filter(|column| stands(&column.name) && !of(&self.before, &column.name));
        strays
            .filter_map(|column| {
                let name = &column.name;
                let aside = (1_u64..)
                    .map(|number| format!("{name}_dropped_{number}"))
                    .find(|aside| !stands(aside) && !of(&self.after, aside))?;
                Some((name.clone(), aside))
            })
            .collect()
    }

    /// What is left to do on the table as it stands.
    fn statements(&self, found: &ExistingTable) -> Vec<String> {
        let has = |name: &str| found.columns.iter().find(|column| column.name == name);
        let stands = |name: &String| {
            let before = self.steps.iter().find_map(|step| match step {
                Step::Rename { from, to } if to == name => has(from),
                _ => None,
            });
            has(name).or(before)
        };
        let mut statements: Vec<String> =
            self.steps
                .iter()
                .filter_map(|step| match step {
                    Step::Rename { from, to } => (has(from).is_some() && has(to).is_none())
                        .then(|| ddl::rename_column(&self.after, from, to)),
                    Step::Drop(name) => has(name).map(|_| ddl::drop_column(&self.after, name)),
                    Step::Keep(name, sql_type) => {
                        let plain = !["Nullable(", "LowCardinality(", "Array(", "JSON"]
                            .iter()
                            .any(|kind| sql_type.starts_with(kind));
                        (plain && has(name).is_some_and(|column| column.column_type == *sql_type))
                            .then(|| {
                                let nullable = format!("Nullable({sql_type})");
                                ddl::modify_column(&self.after, name, &nullable, has(name))
                            })
                    }
                    Step::Modify(name, sql_type) => Some(ddl::modify_column(
                        &self.after,
                        name,
                        sql_type,
                        stands(name),
                    )),
                })
                .collect();
        let added: Vec<&TargetColumn> = self
            .after
            .columns()
            .iter()
            .filter(|column| !self.is_old(&column.name))
            .collect();
        statements.extend(ddl::add_columns(&self.after, &added));
        statements
    }

    /// The kept columns that have a default for what parts from before them lack, which later rows would get too.
    fn filled(&self, found: &ExistingTable) -> Vec<String> {
        let is_kept = |name: &str| {
            let mut steps = self.steps.iter();
            steps.any(|step| matches!(step, Step::Keep(kept, _) if kept == name))
        };
        let columns = found.columns.iter();
        columns
            .filter(|column| ddl::is_filled(column) && is_kept(&column.name))
            .map(|column| column.name.clone())
            .collect()
    }

    /// Whether a column of `after` stood before, under that name or another.
    fn is_old(&self, name: &str) -> bool {
        let renamed = |step: &Step| matches!(step, Step::Rename { to, .. } if to == name);
        self.steps.iter().any(renamed)
            || self
                .before
                .columns()
                .iter()
                .any(|column| column.name == name)
    }
}

fn values_lost(target: &TargetTable, column: &str) -> Error {
    Error::new(
        ErrorKind::DestinationRejected,
        format!(
            "column `{column}` of {} does not hold what it held before it made way for a new one",
            ddl::table(target)
        ),
    )
    .with_hint(
        "ClickHouse lost values when it renamed the column beside a merge (its issue 80648): restore it from a backup if it \
         is needed, and retry; a later ClickHouse does not",
    )
}

/// The digits behind the point of a DECIMAL that is kept as text.
fn scale_as_text(column: &TargetColumn) -> Option<u8> {
    match column.column_type {
        ColumnType::Decimal { scale, .. } if column.sql_type.contains("String") => Some(scale),
        _ => None,
    }
}

/// Whether ClickHouse turns each value of the one type into the same value of the other.
fn keeps_values(before: &TargetColumn, after: &TargetColumn) -> bool {
    let inner = |sql_type: &str| {
        let inner = sql_type
            .strip_prefix("Nullable(")
            .and_then(|rest| rest.strip_suffix(')'));
        inner.map_or((sql_type.to_owned(), false), |inner| {
            (inner.to_owned(), true)
        })
    };
    let ((from, from_null), (to, to_null)) = (inner(&before.sql_type), inner(&after.sql_type));
    if from_null && !to_null {
        return false;
    }
    if from == to {
        return true;
    }
    if let (Some(from), Some(to)) = (integer(&from), integer(&to)) {
        return match (from, to) {
            ((true, from), (true, to)) | ((false, from), (false, to)) => to >= from,
            ((false, from), (true, to)) => to > from,
            ((true, _), (false, _)) => false,
        };
    }
    if let (Some((digits, scale)), Some((wider, finer))) = (decimal(&from), decimal(&to)) {
        return finer >= scale && wider - finer >= digits - scale;
    }
    if from.starts_with("Enum16(") {
        return to.starts_with(from.trim_end_matches(')'));
    }
    matches!(
        (from.as_str(), to.as_str()),
        ("Float32", "Float64") | ("LowCardinality(String)", "LowCardinality(Nullable(String))")
    )
}

/// Whether signed, and bits.
fn integer(sql_type: &str) -> Option<(bool, u16)> {
    let (signed, bits) = match sql_type.strip_prefix("UInt") {
        Some(bits) => (false, bits),
        None => (true, sql_type.strip_prefix("Int")?),
    };
    Some((signed, bits.parse().ok()?))
}

fn decimal(sql_type: &str) -> Option<(i16, i16)> {
    let (digits, scale) = sql_type
        .strip_prefix("Decimal(")?
        .strip_suffix(')')?
        .split_once(',')?;
    Some((digits.trim().parse().ok()?, scale.trim().parse().ok()?))
}

#[cfg(test)]
#[path = "alter_tests.rs"]
mod tests;
