//! What a statement would lead to, told from its text and the pipe file alone: no server is asked.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::super::tables::is_named;
use super::Fate;
use super::copies::is_ghost;
use super::moves::moved;
use crate::batch::TableName;
use crate::config::{DdlAction, Mode, PipeConfig};
use crate::source::mysql::binlog::ddl::{Alter, Class, Clause, read_statement};

/// What one part of a statement leads to for one table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Forecast {
    /// The source table.
    pub table: String,
    /// The part of the statement.
    pub part: String,
    /// What the pipe file says of its kind; none where it has no say.
    pub policy: Option<DdlAction>,
    /// What happens.
    pub effect: String,
}

const RELOAD: &str = "the table is loaded anew beside the live one, and exchanged for it";

const GONE: &str = "the target is dropped, and the table leaves the pipe until it is there again";

/// What `text` would lead to for the pipe's tables: nothing, where the list is empty. Names without a database are taken
/// for one of the only database that the pipe file names.
pub fn forecast(config: &PipeConfig, text: &str) -> Vec<Forecast> {
    let databases: BTreeSet<&str> = config
        .tables
        .iter()
        .map(|entry| entry.source.database.as_str())
        .collect();
    let database = match databases.first() {
        Some(only) if databases.len() == 1 => only,
        _ => "",
    };
    let (class, mut tables) = read_statement(database, text);
    let mut teller = Teller {
        config,
        found: Vec::new(),
    };
    tables.retain(|name| teller.is_ours(name));
    let policies = config.ddl;
    match &class {
        Class::AlterTable { table, alter } => teller.alter(table, alter, &tables),
        Class::Truncate(table) if teller.is_ours(table) => teller.tell(
            table,
            "TRUNCATE",
            policies.truncate,
            "every row gets a tombstone; versions are kept",
        ),
        Class::DropTable(_) => {
            for name in &tables {
                teller.tell(name, "DROP TABLE", policies.drop_table, GONE);
            }
        }
        Class::RenameTable(pairs) => teller.rename(pairs),
        Class::DropDatabase(database) => {
            let sources = config.tables.iter().map(|entry| &entry.source);
            for source in sources.filter(|source| source.reaches_into(database)) {
                teller.put(
                    format_args!("{database}.{}", source.table),
                    "DROP DATABASE",
                    Some(policies.drop_table),
                    effect(policies.drop_table, GONE),
                );
            }
        }
        Class::CreateTable {
            table,
            keeps: false,
            replaces,
            ..
        } if teller.is_ours(table) => match replaces {
            true => teller.tell_load(table, "CREATE OR REPLACE TABLE"),
            // Where a table stands, the server refuses it.
            false => teller.tell_new(table, "CREATE TABLE"),
        },
        Class::Rows | Class::Unknown => {
            for name in &tables {
                let out = "the table is taken out of service".to_owned();
                teller.put(name, "a statement that is not followed", None, out);
            }
        }
        Class::Truncate(_) | Class::CreateTable { .. } | Class::Control(_) | Class::NoEffect => {}
    }
    teller.found
}

/// What has been told so far, and what decides on the rest.
struct Teller<'a> {
    config: &'a PipeConfig,
    found: Vec<Forecast>,
}

impl Teller<'_> {
    fn is_ours(&self, name: &TableName) -> bool {
        let mut entries = self.config.tables.iter();
        entries.any(|entry| entry.source.matches(name))
    }

    fn put(
        &mut self,
        table: impl fmt::Display,
        part: &str,
        policy: Option<DdlAction>,
        effect: String,
    ) {
        self.found.push(Forecast {
            table: table.to_string(),
            part: part.to_owned(),
            policy,
            effect,
        });
    }

    fn tell(&mut self, table: &TableName, part: &str, policy: DdlAction, applied: &str) {
        self.put(table, part, Some(policy), effect(policy, applied));
    }

    fn tell_load(&mut self, table: &TableName, part: &str) {
        self.put(table, part, Some(self.config.ddl.reload), self.load());
    }

    /// What becomes of a table that only a load can follow.
    fn load(&self) -> String {
        match (self.config.ddl.reload, self.config.mode) {
            (DdlAction::Apply, Mode::CdcOnly) => {
                "`mode: cdc_only` has no load, and the table is taken out of service".to_owned()
            }
            (policy, _) => effect(policy, RELOAD),
        }
    }

    fn rename(&mut self, pairs: &[(TableName, TableName)]) {
        let (part, policies) = ("RENAME", self.config.ddl);
        for (from, to) in pairs {
            if self.is_ours(to) && is_ghost(pairs, from, to) {
                let applied = "the target stays, and follows the new definition";
                for (part, policy) in [
                    ("columns that it adds", policies.add_column),
                    ("columns that it drops", policies.drop_column),
                    ("columns that it renames", policies.rename_column),
                    ("columns that it modifies", policies.modify_column),
                ] {
                    self.tell(to, part, policy, applied);
                }
                let narrower = "unique keys, collations, CHECKs, foreign keys or partitions beyond those of before, and columns \
                                of another name";
                let load = format!(
                    "nothing, where the statements on its copy have none; rows may have been left out, or stand elsewhere: {}",
                    self.load()
                );
                self.put(to, narrower, Some(policies.reload), load);
            } else if self.is_ours(to) {
                self.tell_load(to, part);
            } else if self.is_ours(from) && !pairs.iter().any(|(_, to)| to == from) {
                self.tell(from, part, policies.drop_table, GONE);
            }
        }
    }

    /// `named` are the tables of ours that the statement names.
    fn alter(&mut self, table: &TableName, alter: &Alter, named: &[TableName]) {
        if let Some(moved) = moved(table, alter, named) {
            let new = |name: &TableName| name != table && alter.clauses.contains(&Clause::GiveOut);
            for (name, fate, why) in moved {
                match fate {
                    Fate::Reload if new(&name) => self.tell_new(&name, why),
                    Fate::Reload if alter.clauses.contains(&Clause::Discard) => {
                        self.tell_discard(&name, why);
                    }
                    Fate::Reload => self.tell_load(&name, why),
                    Fate::Gone => self.tell(&name, why, self.config.ddl.drop_table, GONE),
                }
            }
        } else if named.contains(table) {
            for clause in &alter.clauses {
                self.clause(table, clause);
            }
        }
    }

    /// A load that finds the table without its rows takes it out of service.
    fn tell_discard(&mut self, table: &TableName, part: &str) {
        let until = "until IMPORT TABLESPACE and a load the table is out of service".to_owned();
        let load = self.load();
        let effect = if load == RELOAD { until } else { load };
        self.put(table, part, Some(self.config.ddl.reload), effect);
    }

    /// A table that was not there before.
    fn tell_new(&mut self, table: &TableName, part: &str) {
        let joins = self.config.follow_new_tables || is_named(self.config, table);
        let effect = match joins {
            true => "it joins the pipe, and is loaded",
            false => {
                "it joins the pipe and is loaded, where it has been there before; else it stays out, since \
                 `follow_new_tables` is off"
            }
        };
        self.put(table, part, None, effect.to_owned());
    }

    fn tell_renamed(&mut self, table: &TableName, from: &str, to: &str) {
        let applied = format!(
            "renamed in place; where it is part of the key, {}",
            self.load()
        );
        let part = format!("RENAME COLUMN `{from}` TO `{to}`");
        self.tell(table, &part, self.config.ddl.rename_column, &applied);
    }

    fn clause(&mut self, table: &TableName, clause: &Clause) {
        let (policies, load) = (self.config.ddl, self.load());
        match clause {
            Clause::Add(name, _) => self.tell(
                table,
                &format!("ADD COLUMN `{name}`"),
                policies.add_column,
                &format!("added in place; where earlier rows do not get NULL, 0, '' or a plain literal, {load}"),
            ),
            Clause::Drop(name) => self.tell(
                table,
                &format!("DROP COLUMN `{name}`"),
                policies.drop_column,
                &format!("dropped in place; where it is part of the key, {load}"),
            ),
            Clause::Rename(from, to) => self.tell_renamed(table, from, to),
            Clause::Change(from, to, _) => {
                if from != to {
                    self.tell_renamed(table, from, to);
                }
                self.tell(
                    table,
                    &format!("new definition of `{to}`"),
                    policies.modify_column,
                    &format!("altered in place where every value stays (wider numbers, longer texts, further labels); else {load}"),
                );
            }
            Clause::Convert => self.tell(
                table,
                "CONVERT TO CHARACTER SET",
                policies.modify_column,
                &format!("nothing, where the charset is utf8mb4; else {load}"),
            ),
            Clause::Key => {
                let kept = format!("nothing, where the key that tells rows apart stays; else {load}");
                self.put(table, "a primary or unique key", Some(policies.reload), kept);
            }
            Clause::Repair => {
                let kept = format!("nothing, where the engine rolls back; else {load}");
                self.put(table, "REPAIR", Some(policies.reload), kept);
            }
            Clause::Unknown => self.tell_load(table, "a clause that is not known"),
            // What moves rows or tables is told of the statement as a whole.
            Clause::Constraint
            | Clause::RenameTable
            | Clause::Rows
            | Clause::Discard
            | Clause::GiveOut
            | Clause::TakeIn
            | Clause::Unvalidated
            | Clause::Engine
            | Clause::Default(_)
            | Clause::Nothing => {}
        }
    }
}

fn effect(policy: DdlAction, applied: &str) -> String {
    match policy {
        DdlAction::Apply => applied.to_owned(),
        DdlAction::Archive => {
            "what was there is kept aside; then the destination follows".to_owned()
        }
        DdlAction::Ignore => "the destination stays as it is".to_owned(),
        DdlAction::Quarantine => {
            "the table is taken out of service until a person decides".to_owned()
        }
    }
}

impl fmt::Display for Forecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.table, self.part, self.effect)
    }
}

#[cfg(test)]
#[path = "forecast_tests.rs"]
mod tests;
