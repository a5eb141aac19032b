//! Tables that the pipe file means and that stay outside, because they cannot be replicated as they are.
//!
//! Each stands against the pipe by itself, and keeps no other out. It is looked at again and again: its reason goes when
//! it can be taken in, is no longer meant, or, of one that a wildcard means, is gone.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::document::{Reason, ReasonKind};
use crate::batch::TableName;
use crate::error::Error;

/// A table that cannot be taken in.
#[derive(Debug)]
pub(super) struct Refused {
    /// The table.
    pub(super) name: TableName,
    /// What is wrong with it.
    pub(super) error: Error,
    /// Whether an entry means it alone; else it is one of those that a wildcard means.
    pub(super) named: bool,
}

/// By table; for as long as the process lives.
#[derive(Debug, Default)]
pub(super) struct Outside(Mutex<BTreeMap<TableName, Reason>>);

impl Outside {
    fn all(&self) -> MutexGuard<'_, BTreeMap<TableName, Reason>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These are outside now, and no others. Returns the reasons that have not stood before.
    pub(super) fn set<'a>(&self, refused: impl IntoIterator<Item = &'a Refused>) -> Vec<Reason> {
        let mut all = self.all();
        let before = std::mem::take(&mut *all);
        put(&mut all, refused, &before)
    }

    /// These are outside as well. Returns the reasons that have not stood before.
    pub(super) fn add<'a>(&self, refused: impl IntoIterator<Item = &'a Refused>) -> Vec<Reason> {
        let mut all = self.all();
        let before = all.clone();
        put(&mut all, refused, &before)
    }

    /// What stands against the pipe for them.
    pub(super) fn reasons(&self) -> Vec<Reason> {
        self.all().values().cloned().collect()
    }
}

fn put<'a>(
    all: &mut BTreeMap<TableName, Reason>,
    refused: impl IntoIterator<Item = &'a Refused>,
    before: &BTreeMap<TableName, Reason>,
) -> Vec<Reason> {
    let mut new = Vec::new();
    for refused in refused {
        let mut reason = reason(refused);
        match before.get(&refused.name) {
            Some(standing) if standing.message == reason.message => {
                reason.since = standing.since;
            }
            _ => new.push(reason.clone()),
        }
        all.insert(refused.name.clone(), reason);
    }
    new
}

fn reason(refused: &Refused) -> Reason {
    let Refused { name, error, named } = refused;
    let leave_out = match named {
        true => format!("take `{name}` out of `tables` of the pipe file"),
        false => format!("list `{name}` under `exclude`"),
    };
    let remedy = match error.hint() {
        Some(hint) => format!("{hint}; or {leave_out}"),
        None => leave_out,
    };
    Reason {
        message: format!("table `{name}` is not taken in: {}", error.chain()),
        table: Some(name.to_string()),
        remedy: Some(remedy),
        ..Reason::new(ReasonKind::Warning, error)
    }
}

#[cfg(test)]
#[path = "outside_tests.rs"]
mod tests;
