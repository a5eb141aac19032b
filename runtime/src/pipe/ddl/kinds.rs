//! The kinds of change to replicated columns, for each of which the pipe file has a policy.

use std::collections::BTreeSet;

use super::super::session::LiveTable;
use super::{Stand, by_hand};
use crate::batch::TableName;
use crate::config::{DdlAction, DdlPolicies};
use crate::error::Result;
use crate::source::mysql::binlog::Statement;
use crate::source::mysql::binlog::ddl::{Alter, Clause};
use crate::source::mysql::catalog::SourceColumn;
use crate::transform::StepDescription;

/// What an alteration does to columns that are replicated.
#[derive(Debug, Default)]
pub(super) struct Kinds {
    pub(super) added: Vec<String>,
    pub(super) dropped: Vec<String>,
    pub(super) renamed: Vec<(String, String)>,
    pub(super) modified: Vec<String>,
}

impl Kinds {
    /// What `alters` say, where the catalog does not tell what they did.
    pub(super) fn of_clauses<'a>(
        table: &LiveTable,
        alters: impl IntoIterator<Item = &'a Alter>,
    ) -> Self {
        let excluded = &table.config.exclude_columns;
        let alters = alters.into_iter();
        Self::said(
            &table.source.columns,
            excluded,
            alters.flat_map(|alter| &alter.clauses),
        )
    }

    fn said<'a>(
        before: &[SourceColumn],
        excluded: &[String],
        clauses: impl Iterator<Item = &'a Clause>,
    ) -> Self {
        let same = |one: &str, other: &str| one.to_lowercase() == other.to_lowercase();
        let is_replicated = |name: &str| {
            let mut included = before.iter().filter(|column| column.included.is_some());
            included.any(|column| same(&column.name, name))
        };
        let mut kinds = Self::default();
        for clause in clauses {
            match clause {
                Clause::Add(name, _) if !excluded.iter().any(|other| same(other, name)) => {
                    kinds.added.push(name.clone());
                }
                Clause::Drop(name) if is_replicated(name) => kinds.dropped.push(name.clone()),
                Clause::Rename(from, to) if is_replicated(from) => {
                    kinds.renamed.push((from.clone(), to.clone()));
                }
                Clause::Change(from, to, _) if is_replicated(from) => {
                    if from != to {
                        kinds.renamed.push((from.clone(), to.clone()));
                    }
                    kinds.modified.push(to.clone());
                }
                Clause::Convert => {
                    let texts = before
                        .iter()
                        .filter(|column| column.included.is_some() && column.charset.is_some());
                    kinds
                        .modified
                        .extend(texts.map(|column| column.name.clone()));
                }
                _ => {}
            }
        }
        kinds
    }

    /// Sees that the pipe file wants to follow all of it, and records where the live target has values from now on that no
    /// load brings: columns that are archived. Whatever leads to the next load, and whatever has their names by then, it
    /// stays.
    pub(super) async fn accept(
        &self,
        stand: Stand<'_>,
        name: &TableName,
        statement: &Statement,
    ) -> Result<()> {
        let policies = stand.session.config.ddl;
        if let Some(what) = self.left_to_a_person(policies) {
            return Err(by_hand(statement, name, &what));
        }
        let archives = policies.drop_column == DdlAction::Archive && !self.dropped.is_empty();
        let records = stand.store.records();
        if !archives || records.tables.get(name).is_none_or(|table| table.archives) {
            return Ok(());
        }
        let recorded = stand.store.commit(|draft| {
            draft.table_mut(name).archives = true;
            Ok(())
        });
        recorded.await
    }

    /// What of it the pipe file wants to decide by hand.
    fn left_to_a_person(&self, policies: DdlPolicies) -> Option<String> {
        let renamed = self.renamed.first().map(|(from, _)| from);
        let kinds = [
            ("ADD COLUMN", self.added.first(), policies.add_column),
            ("DROP COLUMN", self.dropped.first(), policies.drop_column),
            ("RENAME COLUMN", renamed, policies.rename_column),
            (
                "MODIFY COLUMN",
                self.modified.first(),
                policies.modify_column,
            ),
        ];
        kinds.into_iter().find_map(|(what, column, policy)| {
            let column = column.filter(|_| policy == DdlAction::Quarantine)?;
            Some(format!("{what} `{column}`"))
        })
    }

    /// The columns that have their names by it.
    pub(super) fn named(&self) -> Vec<String> {
        let renamed = self.renamed.iter().map(|(_, to)| to);
        self.added.iter().chain(renamed).cloned().collect()
    }

    /// What a plugin that looks at which columns there are takes up or leaves, so that earlier rows went without it.
    pub(super) fn binds_otherwise(
        &self,
        old: &StepDescription,
        new: &StepDescription,
    ) -> Option<String> {
        let name_now = |name: &String| {
            let renamed = self.renamed.iter().find(|(from, _)| from == name);
            renamed.map_or_else(|| name.clone(), |(_, to)| to.clone())
        };
        let differing = |old: &[String], new: &[String]| {
            let old: BTreeSet<String> = old.iter().map(name_now).collect();
            let new: BTreeSet<String> = new.iter().cloned().collect();
            old.symmetric_difference(&new).next().cloned()
        };
        let plugin = &new.plugin;
        if let Some(column) = differing(&old.reads, &new.reads) {
            return Some(format!(
                "plugin `{plugin}` reads column `{column}` either before or after the change"
            ));
        }
        if let Some(column) = differing(&old.writes, &new.writes) {
            return Some(format!(
                "plugin `{plugin}` writes column `{column}` either before or after the change"
            ));
        }
        (old.may_drop != new.may_drop)
            .then(|| format!("plugin `{plugin}` may drop rows either before or after the change"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::mysql::binlog::ddl::{Class, read_statement};

    #[test]
    fn a_statement_is_asked_for_each_kind_of_change_to_a_replicated_column() {
        let column = |name: &str, included: Option<usize>| SourceColumn {
            name: name.to_owned(),
            included,
            ..SourceColumn::sample("int")
        };
        let before = [
            column("id", Some(0)),
            column("a", Some(1)),
            column("secret", None),
        ];
        let policies = DdlPolicies {
            add_column: DdlAction::Quarantine,
            drop_column: DdlAction::Quarantine,
            rename_column: DdlAction::Quarantine,
            modify_column: DdlAction::Quarantine,
            ..DdlPolicies::default()
        };
        for (clauses, expected) in [
            ("ADD b INT", Some("ADD COLUMN `b`")),
            ("ADD INDEX (a), DROP COLUMN A", Some("DROP COLUMN `A`")),
            ("RENAME COLUMN a TO b", Some("RENAME COLUMN `a`")),
            ("CHANGE a b INT", Some("RENAME COLUMN `a`")),
            ("MODIFY a SMALLINT", Some("MODIFY COLUMN `a`")),
            ("DROP COLUMN secret, ADD hidden INT, ADD INDEX (a)", None),
        ] {
            let text = format!("ALTER TABLE t {clauses}");
            let (Class::AlterTable { alter, .. }, _) = read_statement("s", &text) else {
                panic!("{text}");
            };
            let kinds = Kinds::said(&before, &["hidden".to_owned()], alter.clauses.iter());
            assert_eq!(
                kinds.left_to_a_person(policies).as_deref(),
                expected,
                "{text}"
            );
            let followed = kinds.left_to_a_person(DdlPolicies::default());
            assert_eq!(followed, None, "{text}");
        }
    }
}
