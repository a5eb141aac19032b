//! Tables that the pipe file means and that stay outside, because they cannot be replicated as they are.
//!
//! Each stands against the pipe by itself, and keeps no other out. It is looked at again and again: its reason goes when
//! it can be taken in, is gone, or is no longer meant.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::document::{Reason, ReasonKind};
use crate::batch::TableName;
use crate::error::Error;

/// By table; for as long as the process lives.
#[derive(Debug, Default)]
pub(super) struct Outside(Mutex<BTreeMap<TableName, Reason>>);

impl Outside {
    fn all(&self) -> MutexGuard<'_, BTreeMap<TableName, Reason>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These are outside now, and no others. Returns the reasons that have not stood before.
    pub(super) fn set(&self, refused: &[(TableName, Error)]) -> Vec<Reason> {
        let mut all = self.all();
        let before = std::mem::take(&mut *all);
        let mut new = Vec::new();
        for (name, error) in refused {
            let mut reason = reason(name, error);
            match before.get(name) {
                Some(standing) if standing.message == reason.message => {
                    reason.since = standing.since;
                }
                _ => new.push(reason.clone()),
            }
            all.insert(name.clone(), reason);
        }
        new
    }

    /// What stands against the pipe for them.
    pub(super) fn reasons(&self) -> Vec<Reason> {
        self.all().values().cloned().collect()
    }
}

fn reason(name: &TableName, error: &Error) -> Reason {
    let exclude = format!("list `{name}` under `exclude`");
    let remedy = match error.hint() {
        Some(hint) => format!("{hint}; or {exclude}"),
        None => exclude,
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
