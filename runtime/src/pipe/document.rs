//! What a pipe says of itself: the documents of the REST interface, of `status` and of the metrics.

use std::fmt;
use std::time::{Duration, SystemTime};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::config::Mode;
use crate::error::{Error, ErrorKind};

/// A pipe at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PipeDocument {
    /// The pipe's name.
    pub pipe: String,
    /// The state's name: `Running` and the like.
    pub state: String,
    /// What stands against the pipe; empty when all is well.
    pub reasons: Vec<Reason>,
    /// What is copied.
    pub mode: Mode,
    /// The tables in the order of the pipe file, or of the source where a wildcard means them.
    pub tables: Vec<TableDocument>,
    /// The place that is proved durable; none before the first.
    pub checkpoint: Option<CheckpointDocument>,
    /// Seconds since the source's commit of the oldest change that is not durable yet, by the source's clock; 0 when all
    /// is. None while the binlog is not followed.
    pub lag_seconds: Option<f64>,
    /// Where the time of the newest batch went; none before the first.
    #[serde(default)]
    pub lag: Option<LagDocument>,
    /// How long the source goes on to hold what the pipe has yet to read; none before it was asked.
    #[serde(default)]
    pub retention: Option<RetentionDocument>,
    /// How far the source itself is behind, where it is a replica; none where it follows nobody. `lag_seconds` begins
    /// where this ends.
    #[serde(default)]
    pub replica: Option<ReplicaDocument>,
    /// The newest batches, the newest first.
    #[serde(default)]
    pub batches: Vec<BatchDocument>,
    /// What commands have made different from the pipe file.
    #[serde(default)]
    pub drift: Vec<Drift>,
}

/// The seconds between a commit at the source and its durable rows, by where they went: the parts of the newest batch,
/// for its newest commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LagDocument {
    /// From the commit until it was read.
    pub read_seconds: f64,
    /// For the batch to become due, and for the one before it.
    pub waiting_seconds: f64,
    /// In plugins.
    pub transform_seconds: f64,
    /// For ClickHouse and the checkpoint.
    pub insert_seconds: f64,
}

/// How long the source holds what the pipe has yet to read.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RetentionDocument {
    /// How long the source keeps its binlog; none when it purges nothing by age.
    pub keeps_seconds: Option<f64>,
    /// How long the place that the pipe, or a table out of service, reads on from is safe; none when it is for ever.
    pub headroom_seconds: Option<f64>,
    /// When the source was asked.
    pub checked_at: Timestamp,
}

/// A source that follows another server.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReplicaDocument {
    /// Seconds by its own account; none while it cannot tell, because it has stopped to follow.
    pub behind_seconds: Option<f64>,
    /// When it was asked.
    pub checked_at: Timestamp,
}

/// Rows that were written together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BatchDocument {
    /// Where the rows came from.
    pub kind: BatchKind,
    /// The source table; none where several took part.
    pub table: Option<String>,
    /// Rows, tombstones among them.
    pub rows: u64,
    /// Bytes sent to ClickHouse.
    pub bytes: u64,
    /// How long plugins, inserts and checkpoint took.
    pub seconds: f64,
    /// When the rows were durable.
    pub finished_at: Timestamp,
}

/// Where the rows of a batch came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BatchKind {
    /// A load.
    Load,
    /// The binlog.
    #[default]
    Stream,
}

impl Default for BatchDocument {
    fn default() -> Self {
        Self {
            kind: BatchKind::default(),
            table: None,
            rows: 0,
            bytes: 0,
            seconds: 0.0,
            finished_at: Timestamp::now(),
        }
    }
}

/// A key whose value in the pipe file is not the one that the pipe runs with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Drift {
    /// The key: `sync.interval`, or `tables[shop.orders]`.
    pub key: String,
    /// What the file says; none when it says nothing.
    pub file: Option<serde_json::Value>,
    /// What the pipe runs with; none when a table was taken out, or is yet to be taken in.
    pub running: Option<serde_json::Value>,
}

/// One table of a pipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TableDocument {
    /// `database.table` at the source.
    pub source: String,
    /// The table's name at the destination.
    pub target: String,
    /// The state's name: `Snapshotting` and the like.
    pub state: String,
    /// How far the load is.
    pub snapshot: SnapshotDocument,
    /// Row changes applied since the pipe was made.
    pub rows: RowsDocument,
    /// What declared policies have changed, by column; a column of which every value is the source's own is not here.
    #[serde(default)]
    pub columns: Vec<ChangedColumn>,
    /// Rows that plugins rejected or failed on and that were passed over, since the pipe was made.
    #[serde(default)]
    pub failed_rows: Vec<FailedRows>,
}

/// How many rows a plugin failed on in one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FailedRows {
    /// The plugin's name in the pipe file.
    pub plugin: String,
    /// The stable code of the fault: `plugin_trap` and the like.
    pub fault: String,
    /// Rows kept as dead letters.
    pub dead_letters: u64,
    /// Rows counted only.
    pub skipped: u64,
}

/// How many values of a column a policy has changed since the pipe was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChangedColumn {
    /// The column's name.
    pub column: String,
    /// The policy's name: `zero_dates` and the like.
    pub policy: String,
    /// How many values of rows written, tombstones too.
    pub values: u64,
}

/// How far a load is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotDocument {
    /// Partitions whose rows are durable.
    pub partitions_done: u64,
    /// All partitions; 0 before the load is planned.
    pub partitions_total: u64,
    /// Rows read.
    pub rows: u64,
    /// Rows that the source expects the table to have; none when it does not say.
    pub rows_estimated: Option<u64>,
    /// Bytes sent to ClickHouse.
    #[serde(default)]
    pub bytes: u64,
    /// Rows that all loads before it read, since the pipe was made.
    #[serde(default)]
    pub rows_before: u64,
    /// Bytes that they sent to ClickHouse.
    #[serde(default)]
    pub bytes_before: u64,
    /// Rows a second since this process took the load up; none while it does not run.
    #[serde(default)]
    pub rows_per_second: Option<f64>,
    /// Until the last partition is read, at that pace; none while nobody can tell.
    #[serde(default)]
    pub seconds_left: Option<f64>,
}

/// Row changes by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RowsDocument {
    /// Inserts.
    pub inserted: u64,
    /// Updates.
    pub updated: u64,
    /// Deletes.
    pub deleted: u64,
    /// Bytes sent to ClickHouse for them.
    #[serde(default)]
    pub bytes: u64,
}

/// A place that is proved durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointDocument {
    /// The place as the source writes it: a GTID set, or `file:offset`.
    pub position: String,
    /// The term whose offsets count here.
    pub term: u16,
    /// The stream offset within the term.
    pub stream_offset: u64,
    /// When the checkpoint was written.
    pub committed_at: Timestamp,
    /// When the source committed the last transaction before it, by the source's clock; none when not known.
    #[serde(default)]
    pub source_committed_at: Option<Timestamp>,
}

/// Something that stands against a pipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reason {
    /// What it means for the pipe.
    pub kind: ReasonKind,
    /// The stable code of the error.
    pub code: ErrorKind,
    /// What went wrong.
    pub message: String,
    /// The source table concerned; none when it is the whole pipe.
    pub table: Option<String>,
    /// The place in the binlog at which a table that is out of service stands: what failed is behind it.
    #[serde(default)]
    pub position: Option<String>,
    /// Since when.
    pub since: Timestamp,
    /// What mends it.
    pub remedy: Option<String>,
}

/// What a reason means for its pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReasonKind {
    /// The environment is at fault, and the pipe tries again by itself.
    Retrying,
    /// The pipe is on its way to Failed.
    Failing,
    /// The pipe is Failed, or a table is out of service, until a person has mended something.
    Failed,
    /// The pipe goes on, and somebody should know.
    Warning,
}

impl Reason {
    /// The reason that `error` is, standing from now on.
    pub fn new(kind: ReasonKind, error: &Error) -> Self {
        Self {
            kind,
            code: error.kind(),
            message: error.chain(),
            table: error.table().map(ToString::to_string),
            position: None,
            since: Timestamp::now(),
            remedy: error.hint().map(str::to_owned),
        }
    }
}

impl SnapshotDocument {
    /// Rows of all loads, which never get fewer.
    pub fn rows_in_all(&self) -> u64 {
        self.rows_before + self.rows
    }

    /// Bytes of all loads, likewise.
    pub fn bytes_in_all(&self) -> u64 {
        self.bytes_before + self.bytes
    }
}

impl RowsDocument {
    /// All changes.
    pub fn total(&self) -> u64 {
        self.inserted + self.updated + self.deleted
    }
}

/// A moment, to the millisecond; as text RFC 3339 in UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(i64);

const MILLIS_PER_DAY: i64 = 86_400_000;

impl Timestamp {
    /// The present moment.
    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }

    /// The moment `micros` microseconds after the beginning of 1970.
    pub fn from_micros(micros: u64) -> Self {
        Self(i64::try_from(micros / 1000).unwrap_or(i64::MAX))
    }

    /// The moment that a text such as `2026-01-31T12:00:00Z` names.
    pub fn parse(text: &str) -> Option<Self> {
        parse(text)
    }

    /// How long ago it was; zero when it is to come.
    pub fn age(&self) -> Duration {
        Duration::from_millis(u64::try_from(Self::now().0 - self.0).unwrap_or(0))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since = time
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Self(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil(self.0.div_euclid(MILLIS_PER_DAY));
        let millis = self.0.rem_euclid(MILLIS_PER_DAY);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
            millis / 3_600_000,
            millis / 60_000 % 60,
            millis / 1000 % 60,
            millis % 1000
        )
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl JsonSchema for Timestamp {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "date-time",
            "description": "A moment, to the millisecond, in UTC.",
        })
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text)
            .ok_or_else(|| de::Error::custom("not a time of the form 2026-01-31T12:00:00.000Z"))
    }
}

/// Reads what Display writes, with any number of digits after the point, or none.
fn parse(text: &str) -> Option<Timestamp> {
    let text = text.strip_suffix('Z')?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let millis: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    let numbers: Option<Vec<i64>> = whole
        .split(['-', 'T', ':'])
        .map(|part| part.parse().ok())
        .collect();
    let [year, month, day, hour, minute, second] = numbers?[..] else {
        return None;
    };
    let possible = (0..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..=60).contains(&second);
    let seconds = hour * 3600 + minute * 60 + second;
    possible.then(|| Timestamp(days(year, month, day) * MILLIS_PER_DAY + seconds * 1000 + millis))
}

/// Year, month and day of a day counted from 1970-01-01, by the proleptic Gregorian calendar. Years are counted from
/// March, so that the leap day is a year's last.
fn civil(day: i64) -> (i64, i64, i64) {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted_month + 2) / 5 + 1)
}

/// The inverse of [`civil`].
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_in_rfc_3339() {
        let text = |micros| Timestamp::from_micros(micros).to_string();
        assert_eq!(text(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(text(951_782_400_123_456), "2000-02-29T00:00:00.123Z");
        assert_eq!(text(1_767_225_599_999_000), "2025-12-31T23:59:59.999Z");
    }

    #[test]
    fn what_is_written_is_read_again() {
        for day in 0..40_000 {
            let written = Timestamp(day * MILLIS_PER_DAY + 45_296_789);
            assert_eq!(parse(&written.to_string()), Some(written));
        }
        assert_eq!(parse("1970-01-01T00:00:01Z"), Some(Timestamp(1000)));
        assert_eq!(parse("1970-01-01T00:00:01.5Z"), Some(Timestamp(1500)));
        for wrong in [
            "yesterday",
            "1970-01-01T00:00:01",
            "1970-13-01T00:00:01Z",
            "9223372036854775807-01-01T00:00:00Z",
            "1970-01-01T00:00:01.-5Z",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
