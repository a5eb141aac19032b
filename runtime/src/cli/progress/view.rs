//! Pipes as text: lines of the live view, one-line summaries, and what `status` prints.

use std::fmt::Write;
use std::time::Duration;

use super::rates::Rates;
use crate::pipe::document::{PipeDocument, Reason, ReasonKind, SnapshotDocument, TableDocument};

/// Characters of a bar.
const BAR_WIDTH: u64 = 20;

/// A pipe in the live view: its head, what stands against it, its tables.
pub(super) fn lines(pipe: &PipeDocument, rates: &Rates, tables_max: usize) -> Vec<String> {
    let mut lines = vec![format!("{}  {}", pipe.pipe, head(pipe))];
    lines.extend(
        pipe.reasons
            .iter()
            .map(|reason| format!("  {}", reason_line(reason))),
    );
    // What is loading is what people wait for.
    let (loading, others): (Vec<_>, Vec<_>) =
        pipe.tables.iter().partition(|table| is_loading(table));
    let width = pipe
        .tables
        .iter()
        .map(|table| clean(&table.source).chars().count())
        .max()
        .unwrap_or(0);
    for table in loading.iter().chain(&others).take(tables_max) {
        let rate = rates.of(pipe, table);
        let progress = if is_loading(table) {
            load(&table.snapshot, rate.loaded)
        } else {
            changes(table, rate.changed)
        };
        lines.push(format!("  {:width$}  {progress}", clean(&table.source)));
    }
    if pipe.tables.len() > tables_max {
        lines.push(format!(
            "  and {} more tables",
            pipe.tables.len() - tables_max
        ));
    }
    lines
}

/// What makes a line due when it changes.
pub(super) fn standing(pipe: &PipeDocument) -> String {
    let reasons: Vec<String> = pipe.reasons.iter().map(reason_line).collect();
    format!("{} {}", pipe.state, reasons.join(" "))
}

/// A pipe in one line, without its name and state.
pub(super) fn summary(pipe: &PipeDocument, rates: &Rates) -> String {
    let rate = rates.sum(pipe);
    let snapshot = pipe
        .tables
        .iter()
        .fold(SnapshotDocument::default(), |sum, table| {
            let snapshot = table.snapshot;
            SnapshotDocument {
                partitions_done: sum.partitions_done + snapshot.partitions_done,
                partitions_total: sum.partitions_total + snapshot.partitions_total,
                rows: sum.rows + snapshot.rows,
                ..SnapshotDocument::default()
            }
        });
    let mut parts = Vec::new();
    if pipe.tables.iter().any(is_loading) {
        parts.push(load(&snapshot, rate.loaded));
    }
    let changed: u64 = pipe.tables.iter().map(|table| table.rows.total()).sum();
    if changed > 0 {
        parts.push(format!(
            "{} changes, {}/s",
            grouped(changed),
            grouped(rate.changed as u64)
        ));
    }
    if let Some(lag) = pipe.lag_seconds {
        parts.push(format!("lag {}", seconds(lag)));
    }
    parts.extend(pipe.reasons.iter().map(reason_line));
    if parts.is_empty() {
        parts.push(pipe.state.clone());
    }
    parts.join("; ")
}

/// All pipes of a process, one a line.
pub(in crate::cli) fn table(pipes: &[PipeDocument]) -> String {
    let heads = [
        "PIPE",
        "STATE",
        "TABLES",
        "PARTITIONS",
        "ROWS LOADED",
        "CHANGES",
        "LAG",
        "CHECKPOINT",
    ];
    let mut rows = vec![heads.map(str::to_owned)];
    for pipe in pipes {
        let sum = |count: fn(&TableDocument) -> u64| pipe.tables.iter().map(count).sum::<u64>();
        rows.push([
            pipe.pipe.clone(),
            pipe.state.clone(),
            grouped(pipe.tables.len() as u64),
            format!(
                "{}/{}",
                grouped(sum(|table| table.snapshot.partitions_done)),
                grouped(sum(|table| table.snapshot.partitions_total))
            ),
            grouped(sum(|table| table.snapshot.rows)),
            grouped(sum(|table| table.rows.total())),
            pipe.lag_seconds.map_or("-".to_owned(), seconds),
            checkpoint_age(pipe).map_or("-".to_owned(), |age| format!("{age} ago")),
        ]);
    }
    let mut text = aligned(&rows);
    for pipe in pipes {
        for reason in &pipe.reasons {
            let _ = writeln!(text, "{}: {}", pipe.pipe, reason_line(reason));
        }
    }
    text
}

/// One pipe with its tables.
pub(in crate::cli) fn details(pipe: &PipeDocument) -> String {
    let mut text = format!("{}  {}\n", pipe.pipe, head(pipe));
    if let Some(checkpoint) = &pipe.checkpoint {
        let _ = writeln!(
            text,
            "checkpoint {} (term {}, offset {}) at {}",
            clean(&checkpoint.position),
            checkpoint.term,
            checkpoint.stream_offset,
            checkpoint.committed_at
        );
    }
    for reason in &pipe.reasons {
        let _ = writeln!(text, "{} since {}", reason_line(reason), reason.since);
    }
    let heads = [
        "TABLE",
        "TARGET",
        "STATE",
        "PARTITIONS",
        "ROWS LOADED",
        "INSERTED",
        "UPDATED",
        "DELETED",
    ];
    let mut rows = vec![heads.map(str::to_owned)];
    for table in &pipe.tables {
        rows.push([
            clean(&table.source),
            clean(&table.target),
            table.state.clone(),
            format!(
                "{}/{}",
                table.snapshot.partitions_done, table.snapshot.partitions_total
            ),
            grouped(table.snapshot.rows),
            grouped(table.rows.inserted),
            grouped(table.rows.updated),
            grouped(table.rows.deleted),
        ]);
    }
    text + "\n" + &aligned(&rows) + &changed_values(pipe) + &drift(pipe)
}

/// What commands have made different from the pipe file, if anything.
fn drift(pipe: &PipeDocument) -> String {
    let said = |value: &Option<serde_json::Value>| match value {
        Some(value) => clean(&value.to_string()),
        None => "-".to_owned(),
    };
    let mut rows = vec![["DRIFT", "FILE", "RUNNING"].map(str::to_owned)];
    rows.extend(
        pipe.drift
            .iter()
            .map(|drift| [clean(&drift.key), said(&drift.file), said(&drift.running)]),
    );
    if rows.len() == 1 {
        return String::new();
    }
    format!("\n{}", aligned(&rows))
}

/// What declared policies have changed, if anything.
fn changed_values(pipe: &PipeDocument) -> String {
    let mut rows = vec![["TABLE", "COLUMN", "POLICY", "VALUES CHANGED"].map(str::to_owned)];
    for table in &pipe.tables {
        rows.extend(table.columns.iter().map(|changed| {
            [
                clean(&table.source),
                clean(&changed.column),
                changed.policy.clone(),
                grouped(changed.values),
            ]
        }));
    }
    if rows.len() == 1 {
        return String::new();
    }
    format!("\n{}", aligned(&rows))
}

fn head(pipe: &PipeDocument) -> String {
    let mut text = pipe.state.clone();
    if let Some(lag) = pipe.lag_seconds {
        let _ = write!(text, "  lag {}", seconds(lag));
    }
    if let Some(age) = checkpoint_age(pipe) {
        let _ = write!(text, "  checkpoint {age} ago");
    }
    text
}

fn checkpoint_age(pipe: &PipeDocument) -> Option<String> {
    let age: Duration = pipe.checkpoint.as_ref()?.committed_at.age();
    Some(seconds(age.as_secs_f64()))
}

fn is_loading(table: &TableDocument) -> bool {
    let snapshot = &table.snapshot;
    matches!(table.state.as_str(), "Pending" | "Snapshotting")
        || snapshot.partitions_done < snapshot.partitions_total
}

fn load(snapshot: &SnapshotDocument, rate: f64) -> String {
    if snapshot.partitions_total == 0 {
        return "load not planned yet".to_owned();
    }
    let filled = BAR_WIDTH * snapshot.partitions_done.min(snapshot.partitions_total)
        / snapshot.partitions_total;
    let bar: String = (0..BAR_WIDTH)
        .map(|at| if at < filled { '#' } else { '.' })
        .collect();
    let of = match snapshot.rows_estimated {
        Some(estimated) => format!(", about {} in all", grouped(estimated.max(snapshot.rows))),
        None => String::new(),
    };
    format!(
        "[{bar}] {}/{} partitions, {} rows, {}/s{of}",
        snapshot.partitions_done,
        snapshot.partitions_total,
        grouped(snapshot.rows),
        grouped(rate as u64)
    )
}

fn changes(table: &TableDocument, rate: f64) -> String {
    format!(
        "{}  {} loaded, {} inserted, {} updated, {} deleted, {}/s",
        table.state,
        grouped(table.snapshot.rows),
        grouped(table.rows.inserted),
        grouped(table.rows.updated),
        grouped(table.rows.deleted),
        grouped(rate as u64)
    )
}

fn reason_line(reason: &Reason) -> String {
    let kind = match reason.kind {
        ReasonKind::Retrying => "retrying",
        ReasonKind::Failing => "failing",
        ReasonKind::Failed => "failed",
        ReasonKind::Warning => "warning",
    };
    let mut text = format!("{kind}: {}", clean(&reason.message));
    if let Some(position) = &reason.position {
        let _ = write!(text, ", behind {}", clean(position));
    }
    if let Some(remedy) = &reason.remedy {
        let _ = write!(text, " ({})", clean(remedy));
    }
    text
}

/// Names come from the source, where anybody may have made a table called like an escape sequence.
pub(in crate::cli) fn clean(text: &str) -> String {
    text.chars()
        .map(|character| {
            if character.is_control() {
                '\u{fffd}'
            } else {
                character
            }
        })
        .collect()
}

fn seconds(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 10.0 => format!("{seconds:.1} s"),
        seconds if seconds < 120.0 => format!("{seconds:.0} s"),
        seconds if seconds < 7200.0 => format!("{:.0} min", seconds / 60.0),
        seconds => format!("{:.0} h", seconds / 3600.0),
    }
}

/// `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths);
        let line: Vec<String> = cells
            .map(|(cell, &width)| format!("{cell:width$}"))
            .collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::config::Mode;
    use crate::error::{Error, ErrorKind};
    use crate::pipe::document::{ChangedColumn, RowsDocument};

    fn pipe() -> PipeDocument {
        let table = |source: &str, state: &str, done| TableDocument {
            source: source.to_owned(),
            target: "t".to_owned(),
            state: state.to_owned(),
            snapshot: SnapshotDocument {
                partitions_done: done,
                partitions_total: 20,
                rows: 1_000_000,
                rows_estimated: Some(2_000_000),
                ..SnapshotDocument::default()
            },
            rows: RowsDocument {
                inserted: 1204,
                updated: 22,
                deleted: 3,
                bytes: 0,
            },
            columns: Vec::new(),
            failed_rows: Vec::new(),
        };
        PipeDocument {
            pipe: "shop".to_owned(),
            state: "Snapshot".to_owned(),
            reasons: Vec::new(),
            mode: Mode::Cdc,
            tables: vec![
                table("shop.items", "Streaming", 20),
                table("shop.orders", "Snapshotting", 10),
            ],
            checkpoint: None,
            lag_seconds: Some(0.5),
            lag: None,
            retention: None,
            replica: None,
            batches: Vec::new(),
            drift: Vec::new(),
        }
    }

    #[test]
    fn loading_tables_come_first_with_a_bar() {
        assert_eq!(
            lines(&pipe(), &Rates::default(), 12),
            [
                "shop  Snapshot  lag 0.5 s",
                "  shop.orders  [##########..........] 10/20 partitions, 1,000,000 rows, 0/s, about 2,000,000 in all",
                "  shop.items   Streaming  1,000,000 loaded, 1,204 inserted, 22 updated, 3 deleted, 0/s",
            ]
        );
        let shortened = lines(&pipe(), &Rates::default(), 1);
        assert_eq!(
            shortened.last().map(String::as_str),
            Some("  and 1 more tables")
        );
    }

    #[test]
    fn rates_follow_the_counters() {
        let mut pipe = pipe();
        let mut rates = Rates::default();
        let start = Instant::now();
        for second in 0..30 {
            rates.observe(
                std::slice::from_ref(&pipe),
                start + Duration::from_secs(second),
            );
            pipe.tables[1].snapshot.rows += 5000;
        }
        let rate = rates.sum(&pipe).loaded;
        assert!((4990.0..5010.0).contains(&rate), "{rate}");
        assert!(
            summary(&pipe, &rates).contains("rows, 4,99")
                || summary(&pipe, &rates).contains("rows, 5,00")
        );
    }

    #[test]
    fn a_reason_changes_what_stands_and_is_told_with_its_remedy() {
        let mut pipe = pipe();
        let before = standing(&pipe);
        let error =
            Error::new(ErrorKind::SourceUnavailable, "no answer from a:1").with_hint("start it");
        pipe.reasons.push(Reason::new(ReasonKind::Retrying, &error));
        assert_ne!(standing(&pipe), before);
        for text in [
            summary(&pipe, &Rates::default()),
            table(&[pipe.clone()]),
            details(&pipe),
        ] {
            assert!(
                text.contains("retrying: no answer from a:1 (start it)"),
                "{text}"
            );
        }
    }

    #[test]
    fn values_that_policies_changed_are_told_by_column() {
        let mut pipe = pipe();
        assert!(!details(&pipe).contains("POLICY"));
        pipe.tables[1].columns.push(ChangedColumn {
            column: "born".to_owned(),
            policy: "zero_dates".to_owned(),
            values: 1_204,
        });
        let text = details(&pipe);
        assert!(
            text.ends_with(
                "\nTABLE        COLUMN  POLICY      VALUES CHANGED\nshop.orders  born    zero_dates  1,204\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn control_characters_of_names_never_reach_the_terminal() {
        let mut pipe = pipe();
        pipe.tables[0].source = "shop.\u{1b}[2J".to_owned();
        assert!(!details(&pipe).contains('\u{1b}'));
        assert!(
            lines(&pipe, &Rates::default(), 12)
                .iter()
                .all(|line| !line.contains('\u{1b}'))
        );
    }

    #[test]
    fn the_status_table_is_aligned() {
        let text = table(&[pipe()]);
        assert_eq!(
            text,
            "PIPE  STATE     TABLES  PARTITIONS  ROWS LOADED  CHANGES  LAG    CHECKPOINT\n\
             shop  Snapshot  2       30/40       2,000,000    2,458    0.5 s  -\n"
        );
    }
}
