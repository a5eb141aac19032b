//! Statements that begin, mark and end transactions.

use super::super::compress::Compressed;
use super::super::ddl::{self, Class, Control};
use super::super::event::{Query, RawEvent};
use super::super::refusal::{statement_format, undecided, unexpected, unknown_savepoint};
use super::super::xa::{Prepared, Xid};
use super::{Decision, Grouper, Step};
use crate::error::Result;

impl Grouper {
    pub(super) fn on_compressed_query(&mut self, event: &RawEvent<'_>) -> Result<Step> {
        let query = Query::parse(event.body, false)?;
        let compressed = Compressed::parse(query.text)?;
        let mut text = Vec::new();
        compressed.inflate(&mut text)?;
        self.on_query(
            event,
            &Query {
                text: &text,
                ..query
            },
        )
    }

    pub(super) fn on_query(&mut self, event: &RawEvent<'_>, query: &Query<'_>) -> Result<Step> {
        let classified = match ddl::frequent_control(query) {
            Some(control) => return self.on_control(event, control),
            None => ddl::classify(query, self.options.dialect),
        };
        match classified.class {
            Class::Control(control) => self.on_control(event, control),
            _ => self.on_statement(event, query, classified),
        }
    }

    fn on_control(&mut self, event: &RawEvent<'_>, control: Control) -> Result<Step> {
        match control {
            Control::Begin => self.open()?.begun = true,
            Control::XaStart => self.open()?.begun = true,
            Control::Commit => return self.on_commit(event),
            Control::Rollback => return self.on_rollback(event),
            Control::Savepoint(name) => {
                let group = self.open()?;
                let mark = group.rows.length();
                group.savepoints.push((name, mark));
            }
            Control::RollbackTo(name) => self.on_rollback_to(&name)?,
            Control::Release | Control::XaEnd => {}
            Control::XaCommit(xid) => return self.on_decision(event, xid, true),
            Control::XaRollback(xid) => return self.on_decision(event, xid, false),
        }
        Ok(Step::Nothing)
    }

    /// Logged only when something in the transaction cannot be rolled back (pitfall 94), and whether that is a row of
    /// ours depends on its table's engine. Which of two savepoints is meant whose names may be the same to the
    /// server is for nobody here to tell.
    fn on_rollback_to(&mut self, name: &[u8]) -> Result<()> {
        let group = self.open()?;
        let newest = group.savepoints.iter().enumerate().rev();
        let mut found = newest.filter(|(_, (known, _))| is_perhaps_same(known, name));
        match (found.next(), group.rows.first_table()) {
            (Some((index, &(ref known, length))), _) if known == name => {
                group.savepoints.truncate(index + 1);
                group.rows.undo_from(length);
            }
            (_, Some(table)) => return Err(unknown_savepoint(&table.name)),
            (_, None) => {}
        }
        Ok(())
    }

    /// A rollback is logged only when the transaction changed a table that cannot be rolled back (pitfall 93).
    fn on_rollback(&mut self, event: &RawEvent<'_>) -> Result<Step> {
        match &mut self.group {
            Some(group) => group.rows.undo_from(0),
            None => return Err(unexpected("rollback")),
        }
        self.on_commit(event)
    }

    /// The end of a group whose rows wait for a decision, unless it was taken at once.
    pub(super) fn on_xa_prepare(&mut self, event: &RawEvent<'_>) -> Result<Step> {
        let (one_phase, xid) = Xid::in_event(event.body)?;
        if one_phase {
            return self.on_commit(event);
        }
        let Some(group) = self.group.take() else {
            return Err(unexpected("XA PREPARE"));
        };
        // Only rows can wait for a decision.
        if let Some(error) = statement_format(&group.texts) {
            return Err(error);
        }
        if let Some(statement) = &group.statement {
            let named = statement
                .tables
                .iter()
                .find(|table| self.filter.wants(table));
            return Err(undecided(named.or(self.filter.tables().first().copied())));
        }
        let length = self.counter - group.base;
        self.close(&group, event.log_pos, event.timestamp)?;
        self.prepared.insert(xid.clone(), length);
        Ok(Step::Prepared(Prepared {
            xid,
            id: group
                .gtid
                .text()
                .unwrap_or_else(|| self.place.position.to_string()),
            end: self.place.clone(),
            committed_at_us: self.committed_at_us,
            length,
            rows: group.rows,
            base: group.base,
        }))
    }

    /// The rows of a decided transaction count here, where they become visible. One whose PREPARE was not read has a
    /// decision all the same: what it touched cannot be told.
    fn on_decision(&mut self, event: &RawEvent<'_>, xid: Xid, commit: bool) -> Result<Step> {
        self.open()?;
        let base = self.counter;
        let length = self.prepared.remove(&xid);
        if commit {
            self.count(length.unwrap_or(0))?;
        }
        if !commit {
            // Rows of the group that it ends.
            self.open()?.rows.undo_from(0);
        }
        if length.is_some() || commit {
            self.open()?.decided = Some(Decision { xid, commit, base });
        }
        self.on_commit(event)
    }
}

/// Whether the server may take both for one savepoint, whose names have no case of ASCII any more. It compares them by
/// utf8mb3_general_ci, which weighs character by character and knows no accents.
fn is_perhaps_same(one: &[u8], other: &[u8]) -> bool {
    if one.is_ascii() && other.is_ascii() {
        return one == other;
    }
    let (one, other) = (String::from_utf8_lossy(one), String::from_utf8_lossy(other));
    one.chars().count() == other.chars().count()
        && one
            .chars()
            .zip(other.chars())
            .all(|(one, other)| one == other || !one.is_ascii() || !other.is_ascii())
}
