//! Every reason for which a stream is refused or ends, with its remedy.
//!
//! Error 1236 stands for a dozen different troubles, told apart by its text alone (pitfall 62), and each has its own
//! remedy.

use std::collections::BTreeMap;

use crate::batch::TableName;
use crate::error::{Error, ErrorKind};
use crate::source::mysql::position::{MariaGtid, Position};
use crate::source::mysql::wire::ServerError;

const ER_SOURCE_FATAL_ERROR_READING_BINLOG: u16 = 1236;

/// MariaDB has a number of its own for this one trouble: ER_SLAVE_SAME_ID.
const ER_SLAVE_SAME_ID: u16 = 4052;

/// MariaDB answers with the file system's own error where a file that it lists is gone.
const EE_FILENOTFOUND: u16 = 29;

const RESYNC: &str = "resync the pipe";
const RESYNC_AND_RETAIN: &str = "resync the pipe, and keep the binlog for longer: binlog_expire_logs_seconds (MySQL), \
     expire_logs_days (MariaDB), or the provider's own retention setting";

const UNREADABLE: &str =
    "the source lists the binlog file that this pipe would read next, and cannot open it";
const PUT_BACK: &str = "put the file back into the source's binlog folder, readable for the server, and retry; else resync the pipe";
const SEE_ITS_LOG: &str = "see the source's error log for what it had to say at that moment; the pipe tries again by itself, and \
     where it never gets on, resync it";
const VERIFY_AND_RESYNC: &str =
    "look for it with mysqlbinlog --verify-binlog-checksum, then resync the pipe";
const GTIDS_ON: &str = "SET GLOBAL gtid_mode = ON, step by step, then retry; or set `source.position: file`, and resync the pipe";

/// Texts of error 1236, in lower case, with what each means; the first that occurs in the message counts.
const MEANINGS: [(&str, ErrorKind, &str, &str); 31] = [
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
        "could not find next log",
        ErrorKind::PositionPurged,
        "the source no longer has the binlog file behind the one that this pipe was reading",
        RESYNC_AND_RETAIN,
    ),
    (
        "could not open log file",
        ErrorKind::PositionPurged,
        UNREADABLE,
        PUT_BACK,
    ),
    (
        "(errcode: 2 ",
        ErrorKind::PositionPurged,
        UNREADABLE,
        PUT_BACK,
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
        "does not correspond to the location of any binlog event",
        ErrorKind::SourceDiverged,
        "the source's binlog file has no event at the place where this pipe has read one",
        RESYNC,
    ),
    (
        "position < 4",
        ErrorKind::SourceDiverged,
        "the place to read from lies before a binlog file's first event",
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
        "data in log event",
        ErrorKind::SourceCorrupt,
        "the source found no event at the place to read from",
        RESYNC,
    ),
    (
        "did not pass crc check",
        ErrorKind::SourceCorrupt,
        "the source found a damaged event in its binlog",
        VERIFY_AND_RESYNC,
    ),
    (
        "bad magic number",
        ErrorKind::SourceCorrupt,
        "the file that the source lists as its binlog is none",
        VERIFY_AND_RESYNC,
    ),
    (
        "with backwards-compatible event",
        ErrorKind::SourceCorrupt,
        "the source found a damaged event in its binlog",
        VERIFY_AND_RESYNC,
    ),
    (
        "checksum",
        ErrorKind::SourceSetting,
        "the source does not send its events with the checksum that they have",
        "SET GLOBAL binlog_checksum = CRC32 at the source, then retry",
    ),
    (
        "encryption key",
        ErrorKind::SourceSetting,
        "the source cannot decrypt its binlog",
        "load the key management plugin or keyring with which the binlog was written, then retry",
    ),
    (
        "cannot start in auto_position mode",
        ErrorKind::SourceSetting,
        "the source gives its transactions no GTIDs any more",
        GTIDS_ON,
    ),
    (
        "cannot replicate anonymous transaction when auto_position",
        ErrorKind::SourceSetting,
        "the source's binlog has a transaction without a GTID, written while gtid_mode was not ON",
        "SET GLOBAL gtid_mode = ON, or set `source.position: file`, and resync the pipe: whether it has read that transaction cannot be told",
    ),
    (
        "cannot replicate anonymous transaction",
        ErrorKind::SourceSetting,
        "the source's binlog has transactions without GTIDs, which it does not send while gtid_mode is ON",
        "SET GLOBAL gtid_mode = ON_PERMISSIVE until the pipe has read past them, then retry",
    ),
    (
        "cannot replicate gtid-transaction",
        ErrorKind::SourceSetting,
        "the source's binlog has transactions with GTIDs, which it does not send while gtid_mode is OFF",
        "SET GLOBAL gtid_mode = OFF_PERMISSIVE until the pipe has read past them, then retry",
    ),
    (
        "binary log is not open",
        ErrorKind::SourceSetting,
        "the source writes no binlog",
        "start the source with log_bin",
    ),
    (
        "misconfigured ",
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
        ER_SOURCE_FATAL_ERROR_READING_BINLOG | ER_SLAVE_SAME_ID | EE_FILENOTFOUND
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
        .with_hint(SEE_ITS_LOG)
        .with_source(error),
    }
}

fn meaning(server: &ServerError) -> Option<(ErrorKind, &'static str, &'static str)> {
    let text = server
        .message
        .to_lowercase()
        .replace("master has purged", "source has purged")
        .replace("than the master has", "than the source has");
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
    .with_hint(
        "see the source's error log, and look at the binlog with mysqlbinlog; retry, and where it recurs, resync the pipe",
    )
}

/// The source says itself that events are missing.
pub(super) fn incident() -> Error {
    Error::new(
        ErrorKind::SourceCorrupt,
        "the source wrote an incident into its binlog: events are missing from it",
    )
    // It has no GTID: MariaDB sends it to whoever begins behind it in the same file.
    .with_hint(
        "resync the pipe, on MariaDB behind a FLUSH BINARY LOGS: what the missing events changed cannot be told",
    )
}

/// What a place of GTIDs cannot go past.
pub(super) fn without_gtid() -> Error {
    Error::new(
        ErrorKind::SourceSetting,
        "the binlog holds a transaction without a GTID",
    )
    .with_hint("SET GLOBAL gtid_mode = ON and resync, or set `source.position: file`")
}

/// Numbers that fall within a domain, as MariaDB lets them without `gtid_strict_mode`: a session that sets `gtid_seq_no`, or
/// two servers that write to one domain.
pub(in crate::source::mysql) fn goes_back(newest: MariaGtid, gtid: MariaGtid) -> Error {
    Error::new(
        ErrorKind::SourceSetting,
        format!("the source's binlog goes back from GTID {newest} to {gtid} within domain {}", gtid.domain),
    )
    .with_hint(
        "SET GLOBAL gtid_strict_mode = ON, or give whoever else writes there a gtid_domain_id of its own, then resync the pipe",
    )
}

/// A rollback to a savepoint that the group does not hold, or holds two of that may be it.
pub(super) fn unknown_savepoint(table: &TableName) -> Error {
    Error::new(
        ErrorKind::SourceCorrupt,
        "a transaction was rolled back to a savepoint that its binlog does not hold, or does not tell from another",
    )
    .with_hint("resync the table")
    .with_table(table)
}

/// Rows of ours changed by a statement without row events.
///
/// Of each table by itself, with the statement where it was on others and by a view, a trigger or a function may have
/// changed this one; none where there is no table.
pub(super) fn statement_format(texts: &BTreeMap<TableName, Option<String>>) -> Option<Error> {
    let errors = texts.iter().map(|(table, by)| {
        let error = match by {
            None => as_text("rows were changed by a statement that was logged as text"),
            Some(by) => as_text(&format!(
                "{by} that was logged as text reaches the table by a view, a trigger or a function"
            )),
        };
        error.with_table(table)
    });
    Error::of_each(errors)
}

/// A statement of which nobody can tell what it did waits for the decision of its XA transaction.
pub(super) fn undecided(table: Option<&TableName>) -> Error {
    let error = as_text(
        "an XA transaction was prepared with a statement of a kind that is not known, logged as text",
    );
    match table {
        Some(table) => error.with_table(table),
        None => error,
    }
}

fn as_text(what: &str) -> Error {
    Error::new(ErrorKind::Unsupported, what).with_hint(
        "SET GLOBAL binlog_format = 'ROW', reconnect the writing sessions, and resync the table",
    )
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

    #[test]
    fn an_end_that_nobody_knows_and_an_event_out_of_place_name_a_remedy() {
        let error = Error::from(ServerError {
            code: ER_SOURCE_FATAL_ERROR_READING_BINLOG,
            message: "a trouble of tomorrow".into(),
        });
        let place = Position::Gtid {
            set: GtidSet::default(),
        };
        for error in [stream_error(error, &place), unexpected("GTID")] {
            let hint = error.hint().unwrap_or_default();
            assert!(hint.contains("error log"), "{}: {hint}", error.chain());
        }
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
                "Slave has more GTIDs than the master has, using the master's SERVER_UUID. This may indicate that the end of \
                 the binary log was truncated",
                ErrorKind::SourceDiverged,
            ),
            (
                "Replica has more GTIDs than the source has, using the source's SERVER_UUID.",
                ErrorKind::SourceDiverged,
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
            ("could not find next log", ErrorKind::PositionPurged),
            ("Could not open log file", ErrorKind::PositionPurged),
            (
                "Client requested source to start replication from position < 4",
                ErrorKind::SourceDiverged,
            ),
            (
                "event read from binlog did not pass crc check; the first event 'binlog.000001' at 4",
                ErrorKind::SourceCorrupt,
            ),
            ("corrupted data in log event", ErrorKind::SourceCorrupt),
            (
                "Binlog has bad magic number;  It's not a binary log file that can be used by this version",
                ErrorKind::SourceCorrupt,
            ),
            (
                "binlog truncated in the middle of event; consider out of disk space on source",
                ErrorKind::SourceCorrupt,
            ),
            (
                "Slave can not handle replication events with the checksum that master is configured to log",
                ErrorKind::SourceSetting,
            ),
            (
                "Could not decrypt binlog: encryption key error",
                ErrorKind::SourceSetting,
            ),
            (
                "The replication sender thread cannot start in AUTO_POSITION mode: this server has GTID_MODE = OFF",
                ErrorKind::SourceSetting,
            ),
            (
                "Cannot replicate anonymous transaction when AUTO_POSITION = 1, at file binlog.000002, position 197",
                ErrorKind::SourceSetting,
            ),
            (
                "Cannot replicate GTID-transaction when @@GLOBAL.GTID_MODE = OFF, at file binlog.000002",
                ErrorKind::SourceSetting,
            ),
            (
                "Misconfigured source - source server_id is 0",
                ErrorKind::SourceSetting,
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
        let gone = "File './binlog.000001' not found (Errcode: 2 \"No such file or directory\")";
        assert_eq!(kind(29, gone), ErrorKind::PositionPurged);
        assert_eq!(kind(1227, "Access denied"), ErrorKind::SourceDenied);
    }
}
