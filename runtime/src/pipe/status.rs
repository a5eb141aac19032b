//! A pipe's document, made from its records and what it shows beyond them.

use super::document::{
    ChangedColumn, CheckpointDocument, FailedRows, LagDocument, PipeDocument, Reason, ReasonKind,
    RowsDocument, SnapshotDocument, TableDocument, Timestamp,
};
use super::files;
use super::lag::Split;
use super::lifecycle::{Failure, PipeState};
use super::progress::{Failing, LoadSpeed, Progress};
use super::record::{Checkpoint, PipeRecord, Records, TableRecord};
use super::supervisor::Pipe;
use super::table_state::TableState;
use crate::batch::TableName;
use crate::config::Mode;

/// The pipe as it is now.
pub(super) fn of(pipe: &Pipe) -> PipeDocument {
    let records = pipe.store.records();
    let record = records.pipe.as_ref();
    let state = records.state();
    let written_at = records
        .checkpoint()
        .map(|checkpoint| checkpoint.written_at_us);
    let mut reasons = standing(pipe);
    if let PipeState::Failed { failure } = &state {
        reasons.push(reason(ReasonKind::Failed, failure, written_at));
    }
    reasons.extend(pipe.refused());
    PipeDocument {
        pipe: pipe.store.pipe().to_owned(),
        state: state.name().to_owned(),
        reasons,
        mode: pipe.config.mode,
        tables: in_file_order(pipe, &records),
        checkpoint: record.and_then(|record| {
            record
                .checkpoint
                .as_ref()
                .map(|checkpoint| checkpoint_document(record.term, checkpoint))
        }),
        lag_seconds: following(pipe)
            .and_then(|progress| progress.lag.now())
            .map(|lag| lag.as_secs_f64()),
        lag: following(pipe)
            .and_then(|progress| progress.lag.newest())
            .map(lag_document),
        retention: pipe.progress.retention(),
        replica: pipe.progress.replica(),
        batches: pipe.progress.batches(),
        drift: files::drift(pipe, &records),
    }
}

/// A pipe that is not open, and is tried again.
pub(super) fn of_unopened(
    name: &str,
    mode: Mode,
    records: &Records,
    failure: &Failure,
) -> PipeDocument {
    let checkpoint = |record: &PipeRecord| {
        let checkpoint = record.checkpoint.as_ref()?;
        Some(checkpoint_document(record.term, checkpoint))
    };
    // Whatever it was and will be again: nothing of it is at work.
    let state = PipeState::Failed {
        failure: failure.clone(),
    };
    let tables = records.tables.iter();
    PipeDocument {
        pipe: name.to_owned(),
        state: state.name().to_owned(),
        reasons: vec![reason(ReasonKind::Retrying, failure, None)],
        mode,
        tables: tables
            .map(|(name, table)| table_document(None, records, name, table))
            .collect(),
        checkpoint: records.pipe.as_ref().and_then(checkpoint),
        lag_seconds: None,
        lag: None,
        retention: None,
        replica: None,
        batches: Vec::new(),
        drift: Vec::new(),
    }
}

/// The progress of a pipe that follows its source: of another nobody knows how far it is behind.
fn following(pipe: &Pipe) -> Option<&Progress> {
    Some(&pipe.progress).filter(|progress| progress.is_following())
}

fn lag_document(split: Split) -> LagDocument {
    LagDocument {
        read_seconds: split.read.as_secs_f64(),
        waiting_seconds: split.waiting.as_secs_f64(),
        transform_seconds: split.transform.as_secs_f64(),
        insert_seconds: split.insert.as_secs_f64(),
    }
}

/// The tables in the order of the pipe file's entries, then by name.
fn in_file_order(pipe: &Pipe, records: &Records) -> Vec<TableDocument> {
    let entries = &pipe.config.tables;
    let place = |name: &TableName| {
        let exact = entries
            .iter()
            .position(|entry| !entry.source.is_wildcard() && entry.source.matches(name));
        exact.or_else(|| entries.iter().position(|entry| entry.source.matches(name)))
    };
    let mut tables: Vec<_> = records.tables.iter().collect();
    tables.sort_by_key(|(name, _)| place(name));
    tables
        .into_iter()
        .map(|(name, table)| {
            let speed = pipe.progress.load_speed(name);
            table_document(speed, records, name, table)
        })
        .collect()
}

/// Everything that stands against the pipe while it goes on: what it is trying again, what is beyond its objective, tables
/// whose load waits or broke off, tables that cannot be taken in, tables out of service, and tables that may differ from
/// their source.
pub(super) fn standing(pipe: &Pipe) -> Vec<Reason> {
    let mut reasons = pipe.progress.reasons();
    reasons.extend(pipe.progress.alarms());
    reasons.extend(
        pipe.progress
            .rows_failed_lately()
            .into_iter()
            .map(failing_rows),
    );
    let records = pipe.store.records();
    let is_loading = |name: &TableName| {
        let table = records.tables.get(name);
        table.is_some_and(|table| table.state.is_loading())
    };
    reasons.extend(pipe.progress.waits.reasons(is_loading));
    reasons.extend(pipe.progress.outside.reasons());
    for table in records.tables.values() {
        if let TableState::Quarantined(failure) = &table.state {
            let stands = table.place.as_ref();
            reasons.push(Reason {
                position: stands.map(|stands| stands.place.position.to_string()),
                ..reason(ReasonKind::Failed, failure, None)
            });
        }
        let is_carried = table.state != TableState::Removed;
        if let Some(failure) = table.inexact.as_ref().filter(|_| is_carried) {
            reasons.push(reason(ReasonKind::Warning, failure, None));
        }
    }
    reasons
}

/// Clears by itself once no more rows fail.
fn failing_rows((failing, at_us): (Failing, u64)) -> Reason {
    let Failing {
        table,
        plugin,
        fault,
    } = failing;
    Reason {
        kind: ReasonKind::Warning,
        code: fault,
        message: format!("plugin `{plugin}` fails on rows, which are passed over"),
        table: Some(table.to_string()),
        position: None,
        since: Timestamp::from_micros(at_us),
        remedy: Some("see which with `pipewright dead-letters list`, mend the plugin or the rows, then replay them".to_owned()),
    }
}

fn reason(kind: ReasonKind, failure: &Failure, written_at_us: Option<u64>) -> Reason {
    Reason {
        kind,
        code: failure.kind,
        message: failure.message.clone(),
        table: failure.table.as_ref().map(ToString::to_string),
        position: None,
        since: failure
            .at_us
            .or(written_at_us)
            .map_or_else(Timestamp::now, Timestamp::from_micros),
        remedy: failure.remedy.clone(),
    }
}

fn table_document(
    speed: Option<LoadSpeed>,
    records: &Records,
    name: &TableName,
    table: &TableRecord,
) -> TableDocument {
    let rows = records.rows.get(name).copied().unwrap_or_default();
    TableDocument {
        source: name.to_string(),
        target: table.target.clone(),
        state: table.state.name().to_owned(),
        snapshot: SnapshotDocument {
            partitions_done: records.done.get(name).map_or(0, |done| done.len() as u64),
            partitions_total: table
                .partitions
                .as_ref()
                .map_or(0, |partitions| partitions.len() as u64),
            rows: table.rows_loaded,
            rows_estimated: table.rows_estimated,
            bytes: table.bytes_loaded,
            rows_before: table.rows_loaded_before,
            bytes_before: table.bytes_loaded_before,
            rows_per_second: speed.map(|speed| speed.rows_per_second),
            seconds_left: speed.and_then(|speed| speed.seconds_left),
        },
        rows: RowsDocument {
            inserted: rows.inserted,
            updated: rows.updated,
            deleted: rows.deleted,
            bytes: rows.bytes,
        },
        columns: changed_columns(records, name),
        failed_rows: failed_rows(records, name),
    }
}

fn failed_rows(records: &Records, name: &TableName) -> Vec<FailedRows> {
    let faults = records.faults.get(name).into_iter();
    faults
        .flat_map(|faults| faults.iter())
        .map(|(plugin, fault, count)| FailedRows {
            plugin: plugin.to_owned(),
            fault: fault.code(),
            dead_letters: count.letters,
            skipped: count.skipped,
        })
        .collect()
}

fn changed_columns(records: &Records, name: &TableName) -> Vec<ChangedColumn> {
    let values = records.values.get(name).into_iter();
    values
        .flat_map(|values| values.iter())
        .map(|changed| ChangedColumn {
            column: changed.column,
            policy: changed.policy.name().to_owned(),
            values: changed.values,
        })
        .collect()
}

fn checkpoint_document(term: u16, checkpoint: &Checkpoint) -> CheckpointDocument {
    CheckpointDocument {
        position: checkpoint.place.position.to_string(),
        term,
        stream_offset: checkpoint.place.offset,
        committed_at: Timestamp::from_micros(checkpoint.written_at_us),
        source_committed_at: checkpoint.committed_at_us.map(Timestamp::from_micros),
    }
}
