//! The metrics, made from the same documents as everything else, at the moment of asking. All names stand here.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::pipe::document::PipeDocument;

/// OpenMetrics, which Prometheus reads.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Every state a pipe can show, so that a query for a state that no pipe is in finds a 0.
const STATES: [&str; 11] = [
    "Provisioning",
    "Setup",
    "Snapshot",
    "Running",
    "Degraded",
    "Pausing",
    "Paused",
    "Modifying",
    "Resync",
    "Completed",
    "Failed",
];

type Labels = Vec<(&'static str, String)>;
type Seconds = Family<Labels, Gauge<f64, AtomicU64>>;

/// The text of all metrics.
pub(super) fn render(pipes: &[PipeDocument]) -> String {
    let mut registry = Registry::with_prefix("pipewright");
    registry.register(
        "build",
        "The version of this process",
        Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]),
    );
    register_states(&mut registry, pipes);
    register_rows(&mut registry, pipes);
    register_values(&mut registry, pipes);
    register_failed_rows(&mut registry, pipes);
    register_snapshot(&mut registry, pipes);
    register_times(&mut registry, pipes);
    register_batches(&mut registry, pipes);
    let mut text = String::new();
    encode(&mut text, &registry).expect("writing to a string cannot fail");
    text
}

fn register_states(registry: &mut Registry, pipes: &[PipeDocument]) {
    let states: Family<Labels, Gauge> = Family::default();
    let reasons: Family<Labels, Gauge> = Family::default();
    let standing: Family<Labels, Gauge> = Family::default();
    for pipe in pipes {
        for state in STATES {
            let labels = vec![("pipe", pipe.pipe.clone()), ("state", state.to_owned())];
            states
                .get_or_create(&labels)
                .set(i64::from(pipe.state == state));
        }
        reasons
            .get_or_create(&of(pipe))
            .set(pipe.reasons.len() as i64);
        for reason in &pipe.reasons {
            let labels = vec![
                ("pipe", pipe.pipe.clone()),
                ("table", reason.table.clone().unwrap_or_default()),
                ("code", reason.code.code()),
            ];
            standing.get_or_create(&labels).set(1);
        }
    }
    registry.register("pipe_state", "1 for the state that the pipe is in", states);
    registry.register("pipe_reasons", "What stands against the pipe", reasons);
    registry.register(
        "reason",
        "1 for what stands against the pipe, by its code and the table that it concerns",
        standing,
    );
}

fn register_rows(registry: &mut Registry, pipes: &[PipeDocument]) {
    let rows: Family<Labels, Counter> = Family::default();
    for pipe in pipes {
        let sum = |count: fn(&crate::pipe::document::TableDocument) -> u64| -> u64 {
            pipe.tables.iter().map(count).sum()
        };
        for (op, count) in [
            ("load", sum(|table| table.snapshot.rows_in_all())),
            ("insert", sum(|table| table.rows.inserted)),
            ("update", sum(|table| table.rows.updated)),
            ("delete", sum(|table| table.rows.deleted)),
        ] {
            let labels = vec![("pipe", pipe.pipe.clone()), ("op", op.to_owned())];
            rows.get_or_create(&labels).inc_by(count);
        }
    }
    registry.register(
        "rows_written",
        "Rows written, by what happened to them",
        rows,
    );
    let bytes: Family<Labels, Counter> = Family::default();
    for pipe in pipes {
        let snapshots = pipe.tables.iter().map(|table| table.snapshot);
        let loads = snapshots.map(|snapshot| snapshot.bytes_in_all()).sum();
        let streamed = pipe.tables.iter().map(|table| table.rows.bytes).sum();
        for (kind, count) in [("load", loads), ("stream", streamed)] {
            let labels = vec![("pipe", pipe.pipe.clone()), ("kind", kind.to_owned())];
            bytes.get_or_create(&labels).inc_by(count);
        }
    }
    registry.register("bytes_written", "Bytes sent to the destination", bytes);
}

fn register_values(registry: &mut Registry, pipes: &[PipeDocument]) {
    let values: Family<Labels, Counter> = Family::default();
    for pipe in pipes {
        for table in &pipe.tables {
            for changed in &table.columns {
                let labels = vec![
                    ("pipe", pipe.pipe.clone()),
                    ("table", table.source.clone()),
                    ("column", changed.column.clone()),
                    ("policy", changed.policy.clone()),
                ];
                values.get_or_create(&labels).inc_by(changed.values);
            }
        }
    }
    registry.register(
        "values_changed",
        "Values that arrive as others because of a declared policy",
        values,
    );
}

fn register_failed_rows(registry: &mut Registry, pipes: &[PipeDocument]) {
    let rows: Family<Labels, Counter> = Family::default();
    for pipe in pipes {
        for table in &pipe.tables {
            for failed in &table.failed_rows {
                for (action, count) in [
                    ("dead_letter", failed.dead_letters),
                    ("skip", failed.skipped),
                ] {
                    let labels = vec![
                        ("pipe", pipe.pipe.clone()),
                        ("table", table.source.clone()),
                        ("plugin", failed.plugin.clone()),
                        ("fault", failed.fault.clone()),
                        ("action", action.to_owned()),
                    ];
                    rows.get_or_create(&labels).inc_by(count);
                }
            }
        }
    }
    registry.register(
        "plugin_rows_failed",
        "Rows that plugins rejected or failed on and that were passed over",
        rows,
    );
}

fn register_snapshot(registry: &mut Registry, pipes: &[PipeDocument]) {
    let partitions: Family<Labels, Gauge> = Family::default();
    let done: Family<Labels, Gauge> = Family::default();
    let estimated: Family<Labels, Gauge> = Family::default();
    for pipe in pipes {
        let snapshots = || pipe.tables.iter().map(|table| table.snapshot);
        let finished: u64 = snapshots().map(|snapshot| snapshot.partitions_done).sum();
        let all: u64 = snapshots().map(|snapshot| snapshot.partitions_total).sum();
        for (state, count) in [
            ("done", finished),
            ("pending", all.saturating_sub(finished)),
        ] {
            let labels = vec![("pipe", pipe.pipe.clone()), ("state", state.to_owned())];
            partitions.get_or_create(&labels).set(count as i64);
        }
        let rows: u64 = snapshots().map(|snapshot| snapshot.rows).sum();
        done.get_or_create(&of(pipe)).set(rows as i64);
        let rows: u64 = snapshots()
            .filter_map(|snapshot| snapshot.rows_estimated)
            .sum();
        estimated.get_or_create(&of(pipe)).set(rows as i64);
    }
    let speed = Seconds::default();
    let left = Seconds::default();
    for pipe in pipes {
        let snapshots = || pipe.tables.iter().map(|table| table.snapshot);
        let loading: Vec<f64> = snapshots()
            .filter_map(|snapshot| snapshot.rows_per_second)
            .collect();
        // Absent rather than 0: what does not load has no speed.
        if !loading.is_empty() {
            speed.get_or_create(&of(pipe)).set(loading.iter().sum());
        }
        let longest = snapshots()
            .filter_map(|snapshot| snapshot.seconds_left)
            .reduce(f64::max);
        if let Some(seconds) = longest {
            left.get_or_create(&of(pipe)).set(seconds);
        }
    }
    registry.register(
        "snapshot_rows_per_second",
        "Rows that the running loads read a second",
        speed,
    );
    registry.register(
        "snapshot_seconds_left",
        "Until the longest of the running loads has read its last partition",
        left,
    );
    registry.register("snapshot_partitions", "Partitions of the loads", partitions);
    registry.register("snapshot_rows_done", "Rows that the loads have read", done);
    registry.register(
        "snapshot_rows_estimated",
        "Rows that the source expects its tables to have",
        estimated,
    );
}

fn register_times(registry: &mut Registry, pipes: &[PipeDocument]) {
    let lag = Seconds::default();
    let age = Seconds::default();
    for pipe in pipes {
        // Absent rather than 0: a pipe that follows nothing is not up to date.
        if let Some(seconds) = pipe.lag_seconds {
            lag.get_or_create(&of(pipe)).set(seconds);
        }
        if let Some(checkpoint) = &pipe.checkpoint {
            let seconds = checkpoint.committed_at.age().as_secs_f64();
            age.get_or_create(&of(pipe)).set(seconds);
        }
    }
    registry.register(
        "source_lag_seconds",
        "Time since the source's commit of the oldest change that is not durable yet",
        lag,
    );
    registry.register(
        "checkpoint_age_seconds",
        "Time since the checkpoint was written",
        age,
    );
}

fn register_batches(registry: &mut Registry, pipes: &[PipeDocument]) {
    let parts = Seconds::default();
    let headroom = Seconds::default();
    let replica = Seconds::default();
    let rows: Family<Labels, Gauge> = Family::default();
    let bytes: Family<Labels, Gauge> = Family::default();
    let took = Seconds::default();
    for pipe in pipes {
        if let Some(lag) = pipe.lag {
            for (part, seconds) in [
                ("read", lag.read_seconds),
                ("waiting", lag.waiting_seconds),
                ("transform", lag.transform_seconds),
                ("insert", lag.insert_seconds),
            ] {
                let labels = vec![("pipe", pipe.pipe.clone()), ("part", part.to_owned())];
                parts.get_or_create(&labels).set(seconds);
            }
        }
        if let Some(seconds) = pipe.retention.and_then(|found| found.headroom_seconds) {
            headroom.get_or_create(&of(pipe)).set(seconds);
        }
        if let Some(seconds) = pipe.replica.and_then(|found| found.behind_seconds) {
            replica.get_or_create(&of(pipe)).set(seconds);
        }
        if let Some(newest) = pipe.batches.first() {
            rows.get_or_create(&of(pipe)).set(newest.rows as i64);
            bytes.get_or_create(&of(pipe)).set(newest.bytes as i64);
            took.get_or_create(&of(pipe)).set(newest.seconds);
        }
    }
    registry.register(
        "lag_part_seconds",
        "Where the time between the newest commit and its durable rows went",
        parts,
    );
    registry.register(
        "retention_headroom_seconds",
        "Until the source may purge what the pipe has yet to read",
        headroom,
    );
    registry.register(
        "replica_lag_seconds",
        "How far a source that is a replica is behind its primary; absent when it has stopped to follow",
        replica,
    );
    registry.register("batch_rows", "Rows of the newest batch", rows);
    registry.register("batch_bytes", "Bytes of the newest batch", bytes);
    registry.register("batch_seconds", "How long the newest batch took", took);
}

fn of(pipe: &PipeDocument) -> Labels {
    vec![("pipe", pipe.pipe.clone())]
}
