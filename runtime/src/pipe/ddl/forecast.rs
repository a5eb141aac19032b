//! What a statement would lead to, told from its text and the pipe file alone: no server is asked.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::is_ghost;
use crate::batch::TableName;
use crate::config::{DdlAction, DdlPolicies, PipeConfig};
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
    let (class, tables) = read_statement(database, text);
    let ours = |name: &TableName| config.tables.iter().any(|entry| entry.source.matches(name));
    let policies = config.ddl;
    let mut found = Vec::new();
    match &class {
        Class::AlterTable { table, alter } if ours(table) => {
            alter_table(table, alter, policies, &mut found)
        }
        Class::Truncate(table) if ours(table) => found.push(of(
            table,
            "TRUNCATE",
            policies.truncate,
            "every row gets a tombstone; versions are kept",
        )),
        Class::DropTable(names) => {
            for name in names.iter().filter(|name| ours(name)) {
                found.push(of(name, "DROP TABLE", policies.drop_table, GONE));
            }
        }
        Class::RenameTable(pairs) => rename(pairs, ours, policies, &mut found),
        Class::DropDatabase(database) => {
            let entries = config
                .tables
                .iter()
                .filter(|entry| entry.source.database == *database);
            for entry in entries {
                let part = "DROP DATABASE".to_owned();
                found.push(Forecast {
                    table: entry.source.to_string(),
                    part,
                    policy: Some(policies.drop_table),
                    effect: effect(policies.drop_table, GONE),
                });
            }
        }
        Class::CreateTable {
            table,
            keeps: false,
            ..
        } if ours(table) => {
            found.push(of(table, "CREATE TABLE", policies.reload, RELOAD));
        }
        Class::Rows | Class::Unknown => {
            for name in tables.iter().filter(|name| ours(name)) {
                found.push(Forecast {
                    table: name.to_string(),
                    part: "a statement that is not followed".to_owned(),
                    policy: None,
                    effect: "the table is taken out of service".to_owned(),
                });
            }
        }
        Class::AlterTable { .. }
        | Class::Truncate(_)
        | Class::CreateTable { .. }
        | Class::Control(_)
        | Class::NoEffect => {}
    }
    found
}

fn rename(
    pairs: &[(TableName, TableName)],
    ours: impl Fn(&TableName) -> bool,
    policies: DdlPolicies,
    found: &mut Vec<Forecast>,
) {
    let part = "RENAME";
    for (from, to) in pairs {
        if ours(to) && is_ghost(pairs, from, to) {
            let applied = "the target stays, and follows the new definition";
            found.push(of(to, part, policies.modify_column, applied));
            found.push(Forecast {
                table: to.to_string(),
                part: "unique keys or collations beyond those of before".to_owned(),
                policy: Some(policies.reload),
                effect: format!(
                    "nothing, where there are none; rows may have been left out for one: {}",
                    effect(policies.reload, RELOAD)
                ),
            });
        } else if ours(to) {
            found.push(of(to, part, policies.reload, RELOAD));
        } else if ours(from) && !pairs.iter().any(|(_, to)| to == from) {
            found.push(of(from, part, policies.drop_table, GONE));
        }
    }
}

const GONE: &str = "the target is dropped, and the table leaves the pipe until it is there again";

fn alter_table(table: &TableName, alter: &Alter, policies: DdlPolicies, found: &mut Vec<Forecast>) {
    let moved = |clause: &Clause| matches!(clause, Clause::Rows | Clause::TakeIn);
    let moves = alter.ignore || alter.clauses.iter().any(moved);
    if moves {
        found.push(of(
            table,
            "rows that move without row events",
            policies.reload,
            RELOAD,
        ));
        return;
    }
    for clause in &alter.clauses {
        found.push(match clause {
            Clause::Add(name, _) => of(
                table,
                &format!("ADD COLUMN `{name}`"),
                policies.add_column,
                &format!("added in place; where earlier rows do not get NULL, 0, '' or a plain literal, {RELOAD}"),
            ),
            Clause::Drop(name) => of(
                table,
                &format!("DROP COLUMN `{name}`"),
                policies.drop_column,
                &format!("dropped in place; where it is part of the key, {RELOAD}"),
            ),
            Clause::Rename(from, to) => of(
                table,
                &format!("RENAME COLUMN `{from}` TO `{to}`"),
                policies.rename_column,
                &format!("renamed in place; where it is part of the key, {RELOAD}"),
            ),
            Clause::Change(_, to, _) => of(
                table,
                &format!("new definition of `{to}`"),
                policies.modify_column,
                &format!("altered in place where every value stays (wider numbers, longer texts, further labels); else {RELOAD}"),
            ),
            Clause::Convert => of(
                table,
                "CONVERT TO CHARACTER SET",
                policies.modify_column,
                &format!("nothing, where the charset is utf8mb4; else {RELOAD}"),
            ),
            Clause::Key => Forecast {
                table: table.to_string(),
                part: "a primary or unique key".to_owned(),
                policy: Some(policies.reload),
                effect: format!(
                    "nothing, where the key that tells rows apart stays; else {}",
                    effect(policies.reload, RELOAD)
                ),
            },
            Clause::RenameTable => of(table, "RENAME", policies.drop_table, GONE),
            Clause::Rows | Clause::TakeIn | Clause::Unknown => of(table, "a clause that is not known", policies.reload, RELOAD),
            Clause::Repair => of(
                table,
                "REPAIR",
                policies.reload,
                &format!("nothing, where the engine rolls back; else {RELOAD}"),
            ),
            Clause::Engine | Clause::Default(_) | Clause::Nothing => continue,
        });
    }
}

fn of(table: &TableName, part: &str, policy: DdlAction, applied: &str) -> Forecast {
    Forecast {
        table: table.to_string(),
        part: part.to_owned(),
        policy: Some(policy),
        effect: effect(policy, applied),
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
