//! Which tables of a source the entries of `tables` mean.

use std::collections::HashMap;
use std::fmt;

use super::values::nearest;
use super::{TableConfig, TablePattern};
use crate::batch::TableName;
use crate::error::{ErrorKind, Finding, Severity};

/// Schemas of the servers themselves, which no wildcard means.
const SYSTEM_DATABASES: [&str; 4] = ["information_schema", "mysql", "performance_schema", "sys"];

impl TablePattern {
    /// Whether it may mean several tables.
    pub fn is_wildcard(&self) -> bool {
        !self.literal && (self.database.contains('*') || self.table.contains('*'))
    }

    /// One table, whatever characters its name has.
    pub fn exact(name: &TableName) -> Self {
        Self {
            database: name.database.clone(),
            table: name.table.clone(),
            literal: true,
            except: Vec::new(),
        }
    }

    /// Whether it means `name`, compared with case.
    pub fn matches(&self, name: &TableName) -> bool {
        if self.is_wildcard() {
            self.reaches(name) && !self.excepts(name)
        } else {
            self.database == name.database && self.table == name.table
        }
    }

    /// Whether it is a wildcard that would mean `name` if that were not excluded.
    pub fn passes_over(&self, name: &TableName) -> bool {
        self.is_wildcard() && self.reaches(name) && self.excepts(name)
    }

    /// Whether it may mean a table of `database`.
    pub fn reaches_into(&self, database: &str) -> bool {
        if !self.is_wildcard() {
            return self.database == database;
        }
        let is_whole = |except: &Self| {
            except.is_wildcard() && except.table == "*" && except.reaches_into(database)
        };
        !SYSTEM_DATABASES.contains(&database.to_ascii_lowercase().as_str())
            && glob(&self.database, database)
            && !self.except.iter().any(is_whole)
    }

    fn reaches(&self, name: &TableName) -> bool {
        !SYSTEM_DATABASES.contains(&name.database.to_ascii_lowercase().as_str())
            && glob(&self.database, &name.database)
            && glob(&self.table, &name.table)
    }

    fn excepts(&self, name: &TableName) -> bool {
        self.except.iter().any(|except| except.matches(name))
    }
}

impl fmt::Display for TablePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.database, self.table)
    }
}

/// Whether `text` is `pattern`, each `*` standing for any run of characters.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(first) else {
        return false;
    };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let last = pieces.pop().unwrap_or_default();
    for piece in pieces {
        // The earliest place leaves the most for the pieces that follow.
        match text.find(piece) {
            Some(at) => text = text.split_at(at + piece.len()).1,
            None => return false,
        }
    }
    text.ends_with(last)
}

/// The tables of a source that `entries` mean, with the entry that governs each: an exact one beats a wildcard. In the
/// order of `names`.
///
/// # Errors
/// Everything that is wrong at once: an entry that means no table, a table that two wildcards mean, two tables with one
/// target.
pub fn match_tables(
    entries: &[TableConfig],
    names: &[TableName],
) -> Result<Vec<(TableConfig, TableName)>, Vec<Finding>> {
    let (matched, findings) = match_each(entries, names);
    if findings.is_empty() {
        Ok(matched)
    } else {
        Err(findings)
    }
}

/// The same, with the tables that can be told beside what stands against the others.
pub fn match_each(
    entries: &[TableConfig],
    names: &[TableName],
) -> (Vec<(TableConfig, TableName)>, Vec<Finding>) {
    let mut findings = Vec::new();
    let mut matched = Vec::new();
    let mut targets: HashMap<&str, &TableName> = HashMap::new();
    for name in names {
        let (wild, exact): (Vec<_>, Vec<_>) = entries
            .iter()
            .filter(|entry| entry.source.matches(name))
            .partition(|entry| entry.source.is_wildcard());
        let entry = match (exact.as_slice(), wild.as_slice()) {
            ([entry, ..], _) | ([], [entry]) => entry,
            ([], []) => continue,
            ([], [first, second, ..]) => {
                findings.push(finding(
                    ErrorKind::Config,
                    "wildcards",
                    format!(
                        "table `{name}` matches both `{}` and `{}`",
                        first.source, second.source
                    ),
                    "one entry for each table",
                    format!("narrow one of the wildcards, or add an entry `source: {name}`"),
                ));
                continue;
            }
        };
        let target = entry.target.as_deref().unwrap_or(&name.table);
        if let Some(other) = targets.insert(target, name) {
            findings.push(finding(
                ErrorKind::Config,
                "targets",
                format!("`{other}` and `{name}` both go to `{target}`"),
                "one source table for each target",
                format!("add an entry `source: {name}` with another `target`"),
            ));
            continue;
        }
        matched.push(((*entry).clone(), name.clone()));
    }
    for entry in entries {
        if !names.iter().any(|name| entry.source.matches(name)) {
            findings.push(without_table(&entry.source, names));
        }
    }
    (matched, findings)
}

/// An entry that means none of the tables.
pub fn without_table(source: &TablePattern, names: &[TableName]) -> Finding {
    let written = source.to_string();
    let names: Vec<String> = names.iter().map(TableName::to_string).collect();
    let remedy = match nearest(&written, names.iter().map(String::as_str)) {
        Some(name) if !source.is_wildcard() => {
            format!("did you mean `{name}`? Names are compared with case")
        }
        _ => format!("check the name, and that the account has SELECT on `{written}`"),
    };
    finding(
        ErrorKind::SourceMissing,
        "table",
        format!("no table that the account can see is `{written}`"),
        "a table for each entry",
        remedy,
    )
}

fn finding(kind: ErrorKind, check: &str, found: String, needed: &str, remedy: String) -> Finding {
    Finding {
        severity: Severity::Error,
        check: check.to_owned(),
        found,
        needed: needed.to_owned(),
        remedy,
        kind,
    }
}
