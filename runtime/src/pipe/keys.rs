//! Under which keys the state keeps what belongs to a pipe: the kind, the pipe's name, and what tells its records of that
//! kind apart.

use crate::batch::TableName;

/// What pipes were told, one record each.
pub(super) const APPLIED: &str = "file/";

pub(super) const TABLES: Kind = Kind("table");
/// Finished partitions of loads.
pub(super) const PARTS: Kind = Kind("part");
pub(super) const ROWS: Kind = Kind("rows");
pub(super) const VALUES: Kind = Kind("values");
pub(super) const FAULTS: Kind = Kind("faults");
/// XA transactions between PREPARE and decision.
pub(super) const PREPARED: Kind = Kind("xa");
/// Their rows.
const PREPARED_ROWS: Kind = Kind("xarows");
pub(super) const EVENTS: Kind = Kind("event");

/// A kind of which a pipe has several.
#[derive(Clone, Copy)]
pub(super) struct Kind(&'static str);

impl Kind {
    /// What the keys of all of them begin with.
    pub(super) fn prefix(self, pipe: &str) -> String {
        format!("{}/{pipe}/", self.0)
    }

    /// Of the one of that table.
    pub(super) fn of_table(self, pipe: &str, name: &TableName) -> String {
        format!("{}{}", self.prefix(pipe), name.key())
    }
}

pub(super) fn pipe_key(pipe: &str) -> String {
    format!("pipe/{pipe}")
}

pub(super) fn applied_key(pipe: &str) -> String {
    format!("{APPLIED}{pipe}")
}

pub(super) fn part_key(pipe: &str, name: &TableName, part: u32) -> String {
    format!("{}/{part}", PARTS.of_table(pipe, name))
}

pub(super) fn prepared_key(pipe: &str, id: &str) -> String {
    format!("{}{id}", PREPARED.prefix(pipe))
}

/// Rows of a prepared transaction, or with the beginning of their own key those of several.
pub(super) fn prepared_rows_key(pipe: &str, key: &str) -> String {
    format!("{}{key}", PREPARED_ROWS.prefix(pipe))
}

pub(super) fn event_key(pipe: &str, id: u64) -> String {
    format!("{}{id:020}", EVENTS.prefix(pipe))
}
