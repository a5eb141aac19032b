//! A target table altered to what a changed source table asks for, in place, where ClickHouse keeps every value.
//!
//! The steps go by the end state: each looks at what is there, so that all of them may be repeated after a crash. What
//! ClickHouse cannot alter (the sorting key, error 524) or would alter with loss is no alteration, and the caller loads
//! the table anew beside the live one.

use super::client::{ClickHouse, STATEMENT_TIMEOUT};
use super::ddl;
use super::failure::Doing;
use super::tables::{ExistingColumn, ExistingTable, Owner};
use super::target::{TargetColumn, TargetTable};
use crate::error::{Error, ErrorKind, Result};
use crate::fault;

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
        let work = alteration.work_before(&found);
        self.run_each(&work, &alteration.after).await.map_err(tag)
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
            // goes under it is lost (seen on 26.7), and it would have the same versions. Where columns are only added, a
            // load may go on beside it.
            self.end_outstanding(after.name()).await.map_err(tag)?;
        }
        let work = alteration.work(&found);
        self.run_each(&work, after).await.map_err(tag)?;
        fault::point("alter:3");
        self.ensure_unchanged(after, owner).await?;
        self.refresh_view(after, owner).await
    }

    async fn run_each(&self, work: &[Work], table: &TargetTable) -> Result<()> {
        let doing = Doing::Alteration(table);
        for work in work {
            match work {
                Work::Define(sql) => self.run(sql, doing, STATEMENT_TIMEOUT).await?,
                Work::Rewrite(sql) => {
                    fault::point("alter:1");
                    self.mutate(table, sql).await?;
                    fault::point("alter:2");
                }
            }
        }
        Ok(())
    }
}

/// One statement on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Work {
    /// Names and types, at once or while it is waited for.
    Define(String),
    /// Rows, in the background.
    Rewrite(String),
}

/// A column gets another name by being copied. `RENAME COLUMN` loses its values, in every part, when ClickHouse begins a
/// merge at the wrong moment (its issue 80648 and pull request 109356; seen on 26.7: 3 of 360 renames of a table that
/// nobody wrote to). What is computed whenever it is read has no values.
fn moved(table: &TargetTable, column: &ExistingColumn, to: &str) -> Vec<Work> {
    let from = &column.name;
    if ["ALIAS", "EPHEMERAL"].contains(&column.default_kind.as_str()) {
        return vec![Work::Define(ddl::rename_column(table, from, to))];
    }
    vec![
        Work::Define(ddl::add_behind(table, from, to, &column.column_type)),
        Work::Rewrite(ddl::copy_column(table, from, to)),
        Work::Define(ddl::drop_column(table, from)),
    ]
}

impl Alteration {
    /// What makes way for new columns and new names on the table as it stands. A copy that a crash has cut short stays
    /// beside the next one.
    fn work_before(&self, found: &ExistingTable) -> Vec<Work> {
        let stands = |name: &str| found.columns.iter().any(|column| column.name == name);
        let of = |table: &TargetTable, name: &str| {
            table.columns().iter().any(|column| column.name == name)
        };
        let strays = found
            .columns
            .iter()
            .filter(|column| of(&self.after, &column.name) && !of(&self.before, &column.name));
        strays
            .filter_map(|column| {
                let name = &column.name;
                let aside = (1_u64..)
                    .map(|number| format!("{name}_dropped_{number}"))
                    .find(|aside| !stands(aside) && !of(&self.after, aside))?;
                Some(moved(&self.after, column, &aside))
            })
            .flatten()
            .collect()
    }

    /// What is left to do on the table as it stands.
    fn work(&self, found: &ExistingTable) -> Vec<Work> {
        let has = |name: &str| found.columns.iter().find(|column| column.name == name);
        let mut work = Vec::new();
        for step in &self.steps {
            match step {
                // Where both stand, the copy was not known to be whole.
                Step::Rename { from, to } => work.extend(
                    has(from)
                        .into_iter()
                        .flat_map(|column| moved(&self.after, column, to)),
                ),
                Step::Drop(name) => work
                    .extend(has(name).map(|_| Work::Define(ddl::drop_column(&self.after, name)))),
                Step::Keep(name, sql_type) => {
                    let plain = !["Nullable(", "LowCardinality(", "Array(", "JSON"]
                        .iter()
                        .any(|kind| sql_type.starts_with(kind));
                    if plain && has(name).is_some_and(|column| column.column_type == *sql_type) {
                        let nullable = format!("Nullable({sql_type})");
                        work.push(Work::Define(ddl::modify_column(
                            &self.after,
                            name,
                            &nullable,
                        )));
                    }
                }
                Step::Modify(name, sql_type) => work.push(Work::Define(ddl::modify_column(
                    &self.after,
                    name,
                    sql_type,
                ))),
            }
        }
        let added: Vec<&TargetColumn> = self
            .after
            .columns()
            .iter()
            .filter(|column| !self.is_old(&column.name))
            .collect();
        work.extend(ddl::add_columns(&self.after, &added).map(Work::Define));
        work
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
