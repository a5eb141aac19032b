//! What becomes of dates that no calendar has, column by column: decided once a definition is read, and recorded with it.
//!
//! `0000-00-00`, `2024-00-15` and `2023-02-30` have no equal in Arrow or ClickHouse. Any replacement may be the value of
//! another row, so in a key none is made: a row with such a key stops the table, unless the column is kept as text.

use serde::{Deserialize, Serialize};

use super::catalog::{SourceColumn, SourceTable};
use super::types::column_type;
use crate::batch::ColumnType;
use crate::config::{DateRange, TableConfig, TypePolicies, ZeroDates};
use crate::error::{Error, ErrorKind, Result};

/// What the decoder makes of the dates of a column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DateRule {
    /// One that no calendar has becomes NULL, or 1970-01-01 where the column takes no NULL (pitfall 1).
    #[default]
    Null,
    /// It becomes 1970-01-01.
    Epoch,
    /// It becomes a real date near to it.
    Clamp,
    /// All dates are texts as the source prints them.
    Text,
    /// It is an error: the column is part of the key.
    Refuse,
}

impl SourceTable {
    /// The rule for the column of that name.
    pub fn date_rule(&self, column: &str) -> DateRule {
        self.date_rules.get(column).copied().unwrap_or_default()
    }

    /// Whether NULL becomes the type's default in the column of that name; `of_pipe` holds where nothing was chosen for it.
    pub fn null_as_default(&self, column: &str, of_pipe: bool) -> bool {
        self.keeps_null.get(column).map_or(of_pipe, |keeps| !keeps)
    }

    /// The table as the pipe's and the entry's policies want it decoded.
    ///
    /// # Errors
    /// `Config` for a policy on a column of a type that it does not concern, naming the column.
    pub fn with_policies(mut self, pipe: &TypePolicies, entry: &TableConfig) -> Result<Self> {
        self.ensure_has_effect(entry)
            .map_err(|error| error.with_table(self.name()))?;
        let mut schema = (*self.schema).clone();
        for column in &self.columns {
            let Some(index) = column.included.filter(|_| has_date(column)) else {
                continue;
            };
            let own = entry.columns.get(&column.name);
            let policies = own.map(|own| own.policies).unwrap_or_default().or(*pipe);
            let in_key = schema.key.contains(&index)
                || entry
                    .order_by
                    .as_ref()
                    .is_some_and(|names| names.contains(&column.name));
            let rule = if has_range(column)
                && policies.date_range == Some(DateRange::String)
                && own.is_none_or(|own| own.column_type.is_none())
            {
                DateRule::Text
            } else if in_key {
                DateRule::Refuse
            } else {
                match policies.zero_dates.unwrap_or_default() {
                    ZeroDates::Null => DateRule::Null,
                    ZeroDates::Epoch => DateRule::Epoch,
                    ZeroDates::Clamp => DateRule::Clamp,
                }
            };
            if rule == DateRule::Text {
                if own.is_some_and(|own| own.policies.zero_dates.is_some()) {
                    return Err(without_effect(&column.name).with_table(self.name()));
                }
                if let Some(described) = schema.columns.get_mut(index) {
                    described.column_type = ColumnType::Text;
                }
            }
            if rule != DateRule::Null {
                self.date_rules.insert(column.name.clone(), rule);
            }
        }
        self.keeps_null = entry
            .columns
            .iter()
            .filter_map(|(name, own)| Some((name.clone(), own.nullable?)))
            .collect();
        for column in &mut self.columns {
            let own = entry.columns.get(&column.name).map(|own| own.policies);
            if let (Some(geometry), Some(form)) = (
                &mut column.geometry,
                own.unwrap_or_default().or(*pipe).geometry_form,
            ) {
                geometry.form = form;
                let described = column.included.and_then(|at| schema.columns.get_mut(at));
                if let Some(described) = described {
                    described.column_type = column_type(column)?;
                }
            }
        }
        self.schema = schema.into();
        Ok(self)
    }

    /// A key that is accepted has an effect, so the column must be the source's and of a type that it concerns.
    fn ensure_has_effect(&self, entry: &TableConfig) -> Result<()> {
        for (name, chosen) in &entry.columns {
            let as_text = chosen.policies.date_range == Some(DateRange::String);
            let (key, kinds, fits): (_, _, fn(&SourceColumn) -> bool) =
                match chosen.policies.zero_dates {
                    Some(_) => ("zero_dates", "DATE, DATETIME and TIMESTAMP", has_date),
                    None if as_text => ("date_range: string", "DATE and DATETIME", has_range),
                    None if chosen.policies.geometry_form.is_some() => {
                        ("geometry", "geometry", |column| column.geometry.is_some())
                    }
                    None => continue,
                };
            let found = self.columns.iter().find(|column| column.name == *name);
            if found.is_some_and(fits) {
                continue;
            }
            let what = found.map_or("no column of the source", |column| &column.data_type);
            return Err(Error::new(
                ErrorKind::Config,
                format!("`{key}` was chosen for column `{name}`, which is {what}"),
            )
            .with_hint(format!(
                "remove the key: it concerns {kinds} columns of the source"
            )));
        }
        Ok(())
    }
}

fn without_effect(column: &str) -> Error {
    Error::new(
        ErrorKind::Config,
        format!("`zero_dates` was chosen for column `{column}`, whose dates are all kept as text"),
    )
    .with_hint(format!(
        "remove it, or set `columns: {{{column}: {{date_range: clamp}}}}` over the pipe's `date_range: string`"
    ))
}

fn has_date(column: &SourceColumn) -> bool {
    has_range(column) || column.data_type == "timestamp"
}

/// TIMESTAMP reaches from 1970 to 2106, which every type holds.
fn has_range(column: &SourceColumn) -> bool {
    matches!(column.data_type.as_str(), "date" | "datetime")
}

#[cfg(test)]
#[path = "date_rules_tests.rs"]
mod tests;
