//! Rows that plugins rejected or failed on and that were passed over: counted with the checkpoint or the finished partition
//! that they belong to, and kept as dead letters where the pipe file says so.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::record::Records;
use super::session::{LiveTable, Session};
use crate::batch::{ChangeBatch, Changes, Op, TableName, row_texts};
use crate::destination::clickhouse::{DeadLetter, Durable};
use crate::error::{Error, ErrorKind, Result};
use crate::transform::Fault;

/// How many rows of one table were passed over, by plugin and fault.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultCounts(BTreeMap<String, BTreeMap<ErrorKind, FaultCount>>);

/// Rows of one plugin and one fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultCount {
    /// Kept as dead letters.
    pub letters: u64,
    /// Counted only.
    pub skipped: u64,
}

impl FaultCounts {
    /// Adds rows.
    pub(super) fn add(&mut self, faults: &[Fault]) {
        for fault in faults {
            let kinds = self.0.entry(fault.plugin.clone()).or_default();
            let count = kinds.entry(fault.kind).or_default();
            match fault.is_letter {
                true => count.letters += 1,
                false => count.skipped += 1,
            }
        }
    }

    /// Adds another part of the same table's.
    pub(super) fn merge(&mut self, other: &Self) {
        for (plugin, fault, more) in other.iter() {
            let kinds = self.0.entry(plugin.to_owned()).or_default();
            let count = kinds.entry(fault).or_default();
            count.letters += more.letters;
            count.skipped += more.skipped;
        }
    }

    /// Plugin, fault and number of rows, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, ErrorKind, FaultCount)> {
        self.0.iter().flat_map(|(plugin, faults)| {
            let faults = faults.iter();
            faults.map(move |(fault, count)| (plugin.as_str(), *fault, *count))
        })
    }

    /// One line for each plugin and fault of a batch. What the guest said of a row is in its dead letter alone: a line of
    /// the log is read by more people.
    pub(super) fn log(&self, pipe: &str, table: &TableName) {
        for (plugin, fault, count) in self.iter() {
            for (on_error, rows) in [("dead_letter", count.letters), ("skip", count.skipped)] {
                if rows > 0 {
                    let fault = fault.code();
                    tracing::warn!(pipe, %table, plugin, fault, rows, on_error, "a plugin fails on rows, which are passed over");
                }
            }
        }
    }

    /// Whether no row was passed over.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Records {
    /// Adds rows of `table` that were passed over beside rows that are durable now.
    pub(super) fn add_faults(&mut self, table: &TableName, faults: &FaultCounts) {
        if !faults.is_empty() {
            self.faults.entry(table.clone()).or_default().merge(faults);
        }
    }
}

/// What letters are made of at once, as bytes of their rows: their texts take a few times as much.
const LETTER_BYTES: usize = 16 << 20;

/// Writes the dead letters among `faults`, whose rows are those of `batch` as it was before the first plugin.
///
/// # Errors
/// Whatever the destination fails with.
pub(super) async fn keep_letters(
    session: &Session,
    table: &LiveTable,
    batch: &ChangeBatch,
    faults: &[Fault],
    at: &str,
) -> Result<Vec<Durable>> {
    let letters: Vec<&Fault> = faults.iter().filter(|fault| fault.is_letter).collect();
    let row_bytes = batch.byte_count() / batch.row_count.max(1);
    let at_once = (LETTER_BYTES / row_bytes.max(1)).max(1);
    let mut durable = Vec::new();
    for letters in letters.chunks(at_once) {
        let letters = made_of(session, table, batch, letters, at)?;
        durable.push(session.destination.write_letters(&letters).await?);
    }
    Ok(durable)
}

fn made_of(
    session: &Session,
    table: &LiveTable,
    batch: &ChangeBatch,
    faults: &[&Fault],
    at: &str,
) -> Result<Vec<DeadLetter>> {
    let rows: Vec<usize> = faults.iter().map(|fault| fault.row).collect();
    let texts = row_texts(batch, &rows).map_err(|error| {
        Error::new(ErrorKind::Internal, "a row cannot be kept as a dead letter")
            .with_table(table.source.name())
            .with_source(error)
    })?;
    let letters = faults.iter().zip(texts).map(|(fault, texts)| {
        let (op, version) = match &batch.changes {
            Changes::Load => ("load", 0),
            Changes::Stream { ops, versions } => (name(ops[fault.row]), versions[fault.row]),
        };
        DeadLetter {
            pipe: session.config.pipe.clone(),
            table: table.source.name().to_string(),
            load: table.load.clone(),
            version,
            key: texts.key,
            op: op.to_owned(),
            row: texts.row,
            position: at.to_owned(),
            plugin: fault.plugin.clone(),
            digest: fault.digest.clone(),
            code: fault.code.clone(),
            reason: fault.message.clone(),
            replayed: 0,
        }
    });
    Ok(letters.collect())
}

fn name(op: Op) -> &'static str {
    match op {
        Op::Insert => "insert",
        Op::Update => "update",
        Op::Delete => "delete",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(plugin: &str, kind: ErrorKind, is_letter: bool) -> Fault {
        Fault {
            row: 0,
            plugin: plugin.to_owned(),
            digest: String::new(),
            kind,
            code: String::new(),
            message: String::new(),
            is_letter,
        }
    }

    #[test]
    fn rows_are_counted_by_plugin_and_fault_and_survive_a_restart() {
        let mut counts = FaultCounts::default();
        counts.add(&[
            fault("b", ErrorKind::PluginTrap, true),
            fault("a", ErrorKind::PluginRejected, false),
        ]);
        let mut more = FaultCounts::default();
        more.add(&[fault("b", ErrorKind::PluginTrap, true)]);
        counts.merge(&more);
        let text = serde_json::to_string(&counts).expect("JSON");
        assert!(text.contains(r#"{"plugin_trap":{"letters":2"#), "{text}");
        let again: FaultCounts = serde_json::from_str(&text).expect("what was written");
        let all: Vec<_> = again.iter().collect();
        let (skipped, letters) = (
            FaultCount {
                letters: 0,
                skipped: 1,
            },
            FaultCount {
                letters: 2,
                skipped: 0,
            },
        );
        assert_eq!(
            all,
            [
                ("a", ErrorKind::PluginRejected, skipped),
                ("b", ErrorKind::PluginTrap, letters)
            ]
        );
    }
}
