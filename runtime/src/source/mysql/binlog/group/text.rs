//! Statements that were logged as text: whom they concern, and which of them the catalog has to be asked about.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::ddl::{Alter, Class, Classified, Clause, merged};
use super::super::event::{FLAG_THREAD_SPECIFIC, Query, RawEvent};
use super::super::indirect::Indirect;
use super::super::refusal::statement_format;
use super::super::{Statement, TableFilter};
use super::{Grouper, Step};
use crate::batch::TableName;
use crate::error::{Error, ErrorKind, Result};
use crate::source::mysql::position::GroupGtid;

/// STRICT_TRANS_TABLES and STRICT_ALL_TABLES.
const MODES_STRICT: u64 = 0x60_0000;

/// PAD_CHAR_TO_FULL_LENGTH, by the same number in both families.
const MODE_PADS: u64 = 1 << 31;

/// Statements that are known to reach no table of ours: an application that logs text repeats few.
const HARMLESS_MAX: usize = 1000;

impl Grouper {
    pub(super) fn on_statement(
        &mut self,
        event: &RawEvent<'_>,
        query: &Query<'_>,
        classified: Classified,
    ) -> Result<Step> {
        self.open()?;
        self.count(1)?;
        let rows_follow = matches!(
            classified.class,
            Class::CreateTable {
                rows_follow: true,
                ..
            }
        );
        if classified.class == Class::Rows {
            self.on_changes(classified, event.flags & FLAG_THREAD_SPECIFIC != 0)?;
        } else {
            if classified.changes_objects {
                self.harmless.clear();
            }
            self.on_definition(event, query, classified)?;
        }
        let group = self.open()?;
        group.begun |= rows_follow;
        if group.begun {
            return Ok(Step::Nothing);
        }
        self.on_commit(event)
    }

    /// Row changes in text form (pitfall 66): of a table of ours they cannot be followed, of another they may reach ours.
    fn on_changes(&mut self, classified: Classified, temporary: bool) -> Result<()> {
        let ours = classified.tables.iter();
        let ours = ours.filter(|table| self.filter.wants(table)).cloned();
        let ours: Vec<TableName> = ours.collect();
        let texts = &mut self.open()?.texts;
        texts.extend(ours.into_iter().map(|table| (table, None)));
        let changes = Indirect::of(classified, temporary);
        if !self.harmless.contains(&changes) {
            self.question = Some(changes);
        }
        Ok(())
    }

    fn on_definition(
        &mut self,
        event: &RawEvent<'_>,
        query: &Query<'_>,
        classified: Classified,
    ) -> Result<()> {
        let Classified { class, tables, .. } = classified;
        let ours = tables.iter().any(|table| self.filter.wants(table));
        let concerns = match &class {
            Class::NoEffect => false,
            Class::Unknown => true,
            Class::DropDatabase(database) => self.filter.wants_database(database),
            // What a tool does to its copy tells what it puts in the table's place; through a MERGE table others are written.
            Class::CreateTable { table, .. } | Class::AlterTable { table, .. } => {
                let writes_ours = || {
                    let merged = merged(&table.database, &String::from_utf8_lossy(query.text));
                    self.filter.wants_merge(&merged)
                };
                ours || self.filter.wants_copy(table) || writes_ours()
            }
            _ => ours,
        };
        let (end, offset) = (self.place.clone(), self.counter);
        let group = self.open()?;
        if !concerns || group.without_effect {
            return Ok(());
        }
        if let Some(known) = &mut group.statement {
            if (&known.class, &class) == (&Class::Unknown, &Class::Unknown) {
                // What one of them tells says nothing of the other.
                if known.tables != tables {
                    known.tables.clear();
                }
                return Ok(());
            }
            let named = known.tables.iter().chain(&tables);
            let named: BTreeSet<String> = named.map(TableName::to_string).collect();
            let named = Vec::from_iter(named).join(", ");
            let message = format!(
                "one transaction holds two statements that concern replicated tables: {named}"
            );
            return Err(Error::new(ErrorKind::Unsupported, message).with_hint("resync the pipe"));
        }
        let temporary = event.flags & FLAG_THREAD_SPECIFIC != 0;
        group.statement = Some(Statement {
            gtid: GroupGtid::None,
            end,
            committed_at_us: None,
            offset,
            class: match temporary {
                true => perhaps_of_another(class),
                false => class,
            },
            tables,
            database: String::from_utf8_lossy(query.database).into_owned(),
            text: String::from_utf8_lossy(query.text)
                .trim_end_matches('\0')
                .to_owned(),
            strict: query.sql_mode & MODES_STRICT != 0,
            pads: query.sql_mode & MODE_PADS != 0,
        });
        Ok(())
    }

    /// Row changes in text form of which the catalog has to say whether they reach a table of ours; nothing goes on before.
    pub(in super::super) fn question(&self) -> Option<(Indirect, Arc<TableFilter>)> {
        let question = self.question.clone()?;
        Some((question, Arc::clone(&self.filter)))
    }

    /// The tables of ours that they reach.
    ///
    /// # Errors
    /// Where their group has ended with them.
    pub(in super::super) fn answered(&mut self, reached: Vec<TableName>) -> Result<()> {
        let Some(changes) = self.question.take() else {
            return Ok(());
        };
        if reached.is_empty() {
            if self.harmless.len() >= HARMLESS_MAX {
                self.harmless.clear();
            }
            if changes.is_short() {
                self.harmless.insert(changes);
            }
            return Ok(());
        }
        let by = changes.named();
        let reached = reached.into_iter().map(|table| (table, Some(by.clone())));
        let mut texts: BTreeMap<TableName, Option<String>> = reached.collect();
        match &mut self.group {
            Some(group) => {
                // By its own name is the plainer word.
                texts.append(&mut group.texts);
                group.texts = texts;
                Ok(())
            }
            None => statement_format(&texts).map_or(Ok(()), Err),
        }
    }
}

/// A temporary table hides the one of its name, and what was done to either is logged alike. A load shows what is right.
fn perhaps_of_another(class: Class) -> Class {
    match class {
        Class::Truncate(table) | Class::AlterTable { table, .. } => Class::AlterTable {
            table,
            alter: Alter {
                ignore: false,
                clauses: vec![Clause::Rows],
            },
        },
        class => class,
    }
}
