//! Every reason for which a stream is refused or ends, with its remedy.
//!
//! Error 1236 stands for a dozen different troubles, told apart by its text alone (pitfall 62), and each has its own
//! remedy.

use crate::batch::TableName;
use crate::error::{Error, ErrorKind};
use crate::source::mysql::position::Position;
use crate::source::mysql::wire::ServerError;

const ER_SOURCE_FATAL_ERROR_READING_BINLOG: u16 = 1236;

/// MariaDB has a number of its own for this one trouble: ER_SLAVE_SAME_ID.
const ER_SLAVE_SAME_ID: u16 = 4052;

const RESYNC: &str = "resync the pipe";

/// What a place of GTIDs cannot go past.
pub(super) const WITHOUT_GTID: &str = "the binlog holds a transaction without a GTID";
pub(super) const GTID_OR_FILE: &str =
    "SET GLOBAL gtid_mode = ON and resync, or set `source.position: file`";

const RESYNC_AND_RETAIN: &str = "resync the pipe, and keep the binlog for longer: binlog_expire_logs_seconds (MySQL), \
     expire_logs_days (MariaDB), or the provider's own retention setting";

/// Texts of error 1236, in lower case, with what each means; the first that occurs in the message counts.
const MEANINGS: [(&str, ErrorKind, &str, &str); 20] = [
    // The server itself refuses to send one to whoever asks by GTID, and to begin at all once it writes none.
    (
        "cannot replicate anonymous transaction",
        ErrorKind::SourceSetting,
        WITHOUT_GTID,
        GTID_OR_FILE,
    ),
    (
        "cannot start in auto_position mode",
        ErrorKind::SourceSetting,
        "the source gives its transactions no GTIDs",
        GTID_OR_FILE,
    ),
    (
        "has diverged due to executing extra erroneous transactions",
        ErrorKind::SourceDiverged,
        "the source does not contain transactions that this pipe has read",
        RESYNC,
    ),
    (
        "which is not in the master's binlog",
        ErrorKind::SourceDiverged,
        "the source's binlog does not contain the last transaction that this pipe has read",
        RESYNC,
    ),
    (
        "is missing the gtid",
        ErrorKind::SourceDiverged,
        "the source's binlog does not contain a transaction that this pipe has read",
        RESYNC,
    ),
    (
        "has more gtids than the source has",
        ErrorKind::SourceDiverged,
        "the source does not contain transactions that this pipe has read",
        RESYNC,
    ),
    (
        "could not find gtid state requested",
        ErrorKind::PositionPurged,
        "the source has purged the binlog that this pipe would read next",
        RESYNC_AND_RETAIN,
    ),
    (
        "purged required binary logs",
        ErrorKind::PositionPurged,
        "the source has purged the binlog that this pipe would read next",
        RESYNC_AND_RETAIN,
    ),
    (
        "purged binary logs",
        ErrorKind::PositionPurged,
        "the source has purged the binlog that this pipe would read next",
        RESYNC_AND_RETAIN,
    ),
    (
        "could not find first log file name",
        ErrorKind::PositionPurged,
        "the source no longer has the binlog file that this pipe would read next",
        RESYNC_AND_RETAIN,
    ),
    (
        "could not find log file",
        ErrorKind::PositionPurged,
        "the source no longer has the binlog file that this pipe would read next",
        RESYNC_AND_RETAIN,
    ),
    (
        "position > file size",
        ErrorKind::SourceDiverged,
        "the source's binlog file is shorter than what this pipe has read of it",
        RESYNC,
    ),
    (
        "from impossible position",
        ErrorKind::SourceDiverged,
        "the source's binlog file is shorter than what this pipe has read of it",
        RESYNC,
    ),
    (
        "truncated in the middle of event",
        ErrorKind::SourceCorrupt,
        "the source found no whole event at the place to read from",
        RESYNC,
    ),
    (
        "with the same server_uuid/server_id",
        ErrorKind::SourceIdTaken,
        "another replica has connected to the source with our server id",
        "set `source.server_id` to a number that no replica of this source has",
    ),
    (
        "exceeded max_allowed_packet",
        ErrorKind::SourceCorrupt,
        "the source found no event at the place to read from, or one larger than it may send",
        "resync the pipe; if it recurs, raise max_allowed_packet at the source",
    ),
    (
        "bogus data in log event",
        ErrorKind::SourceCorrupt,
        "the source found no event at the place to read from",
        RESYNC,
    ),
    (
        "checksum",
        ErrorKind::SourceCorrupt,
        "the source's binlog is damaged, or its checksum cannot be negotiated",
        RESYNC,
    ),
    (
        "binary log is not open",
        ErrorKind::SourceSetting,
        "the source writes no binlog",
        "start the source with log_bin",
    ),
    (
        "misconfigured source - server id was not set",
        ErrorKind::SourceSetting,
        "the source has no server id",
        "set server_id at the source",
    ),
];

/// What `error` means for a stream that wanted to go on at `place`.
pub(super) fn stream_error(error: Error, place: &Position) -> Error {
    let Some(server) = ServerError::of(&error) else {
        return error;
    };
    if !matches!(
        server.code,
        ER_SOURCE_FATAL_ERROR_READING_BINLOG | ER_SLAVE_SAME_ID
    ) {
        return error;
    }
    match meaning(server) {
        Some((kind, message, hint)) => Error::new(kind, format!("{message} (at {place})"))
            .with_hint(hint)
            .with_source(error),
        None => Error::new(
            ErrorKind::SourceUnavailable,
            format!("the source ended the binlog stream (at {place})"),
        )
        .with_source(error),
    }
}

fn meaning(server: &ServerError) -> Option<(ErrorKind, &'static str, &'static str)> {
    let text = server
        .message
        .to_lowercase()
        .replace("master has purged", "source has purged");
    MEANINGS
        .iter()
        .find(|(needle, ..)| text.contains(needle))
        .map(|&(_, kind, message, hint)| (kind, message, hint))
}

/// The source has purged what comes next.
pub(in crate::source::mysql) fn purged(missing: &str) -> Error {
    Error::new(
        ErrorKind::PositionPurged,
        format!("the source has purged transactions that this pipe has not read: {missing}"),
    )
    .with_hint(RESYNC_AND_RETAIN)
}

/// The source lacks what we have read.
pub(super) fn diverged(extra: &str) -> Error {
    Error::new(
        ErrorKind::SourceDiverged,
        format!("the source does not contain transactions that this pipe has read: {extra}"),
    )
    .with_hint("resync the pipe, or point it at a server that contains them")
}

/// A MariaDB server that has never seen a domain of ours serves the others without a word.
pub(super) fn lost_domains(extra: &str) -> Error {
    Error::new(
        ErrorKind::SourceDiverged,
        format!("the source's binlog does not know transactions that this pipe has read: {extra}"),
    )
    .with_hint(
        "point the pipe at a server that contains them, or resync it; a domain removed by FLUSH BINARY LOGS \
         DELETE_DOMAIN_ID looks the same",
    )
}

/// An event that fits no state of the grouping.
pub(super) fn unexpected(what: &str) -> Error {
    Error::new(
        ErrorKind::SourceCorrupt,
        format!("the source sent a {what} event where none can be"),
    )
}

/// The source says itself that events are missing.
pub(super) fn incident() -> Error {
    Error::new(
        ErrorKind::SourceCorrupt,
        "the source wrote an incident into its binlog: events are missing from it",
    )
    .with_hint("resync the pipe: what the missing events changed cannot be told")
}

/// A rollback to a savepoint that the group does not hold.
pub(super) fn unknown_savepoint(table: &TableName) -> Error {
    Error::new(
        ErrorKind::SourceCorrupt,
        "a transaction was rolled back to a savepoint that its binlog does not hold",
    )
    .with_hint("resync the table")
    .with_table(table)
}

/// Rows of ours changed by a statement without row events.
pub(super) fn statement_format(table: &TableName) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "rows were changed by a statement that was logged as text",
    )
    .with_hint(
        "SET GLOBAL binlog_format = 'ROW', reconnect the writing sessions, and resync the table",
    )
    .with_table(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::mysql::position::GtidSet;

    fn kind(code: u16, message: &str) -> ErrorKind {
        let error = Error::from(ServerError {
            code,
            message: message.into(),
        });
        let place = Position::Gtid {
            set: GtidSet::default(),
        };
        stream_error(error, &place).kind()
    }

    /// pitfall 62, pitfall 63
    #[test]
    fn the_many_meanings_of_error_1236_are_told_apart() {
        for (text, expected) in [
            (
                "Could not find first log file name in binary log index file",
                ErrorKind::PositionPurged,
            ),
            (
                "Cannot replicate because the source purged required binary logs. Replicate the missing transactions",
                ErrorKind::PositionPurged,
            ),
            (
                "Could not find GTID state requested by slave in any binlog files. Probably the slave state is too old",
                ErrorKind::PositionPurged,
            ),
            (
                "Error: connecting slave requested to start from GTID 0-1-99999, which is not in the master's binlog",
                ErrorKind::SourceDiverged,
            ),
            (
                "Error: connecting slave requested to start from GTID 0-1-9, which is not in the master's binlog. Since \
                 the master's binlog contains GTIDs with higher sequence numbers, it probably means that the slave has \
                 diverged due to executing extra erroneous transactions",
                ErrorKind::SourceDiverged,
            ),
            (
                "Client requested source to start replication from position > file size",
                ErrorKind::SourceDiverged,
            ),
            (
                "Client requested master to start replication from impossible position; the first event",
                ErrorKind::SourceDiverged,
            ),
            (
                "A replica with the same server_uuid/server_id as this replica has connected to the source",
                ErrorKind::SourceIdTaken,
            ),
            (
                "log event entry exceeded max_allowed_packet; Increase max_allowed_packet on source",
                ErrorKind::SourceCorrupt,
            ),
            (
                "Cannot replicate anonymous transaction when AUTO_POSITION = 1, at file ./binlog.000003, position 4.",
                ErrorKind::SourceSetting,
            ),
            (
                "The replication sender thread cannot start in AUTO_POSITION mode: this server has GTID_MODE = \
                 OFF_PERMISSIVE instead of ON.",
                ErrorKind::SourceSetting,
            ),
            ("something unheard of", ErrorKind::SourceUnavailable),
        ] {
            assert_eq!(kind(1236, text), expected, "{text}");
        }
        let of_maria =
            "A slave with the same server_uuid/server_id is already connected; the first event";
        assert_eq!(kind(4052, of_maria), ErrorKind::SourceIdTaken);
        assert_eq!(kind(1227, "Access denied"), ErrorKind::SourceDenied);
    }
}
