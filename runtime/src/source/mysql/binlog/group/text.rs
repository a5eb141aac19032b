//! Statements that were logged as text: whom they concern, and which of them the catalog has to be asked about.

use std::sync::Arc;

use super::super::ddl::{Alter, Class, Classified, Clause};
use super::super::event::{FLAG_THREAD_SPECIFIC, Query, RawEvent};
use super::super::indirect::Indirect;
use super::super::refusal::statement_format;
use super::super::{Statement, TableFilter};
use super::{Grouper, Step};
use crate::error::{Error, ErrorKind, Result};
use crate::source::mysql::position::GroupGtid;

/// STRICT_TRANS_TABLES and STRICT_ALL_TABLES.
const MODES_STRICT: u64 = 0x60_0000;

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
            self.on_changes(classified)?;
        } else {
            // A view or a trigger may have come.
            self.harmless.clear();
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
    fn on_changes(&mut self, classified: Classified) -> Result<()> {
        let mut tables = classified.tables.iter();
        if let Some(table) = tables.find(|table| self.filter.wants(table)) {
            return Err(statement_format(table));
        }
        let changes = Indirect::of(classified);
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
            _ => ours,
        };
        let (end, offset) = (self.place.clone(), self.counter);
        let group = self.open()?;
        if !concerns || group.without_effect {
            return Ok(());
        }
        if group.statement.is_some() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "one transaction holds two statements that concern replicated tables",
            ));
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
        });
        Ok(())
    }

    /// Row changes in text form of which the catalog has to say whether they reach a table of ours; nothing goes on before.
    pub(in super::super) fn question(&self) -> Option<(Indirect, Arc<TableFilter>)> {
        let question = self.question.clone()?;
        Some((question, Arc::clone(&self.filter)))
    }

    /// They reach none.
    pub(in super::super) fn answered(&mut self) {
        if self.harmless.len() >= HARMLESS_MAX {
            self.harmless.clear();
        }
        self.harmless.extend(self.question.take());
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
