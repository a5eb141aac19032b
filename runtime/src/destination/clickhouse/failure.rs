//! What a failure of the `clickhouse` crate means for a pipe.
//!
//! ClickHouse's texts may quote cell values ("Cannot parse 'secret' as Int32"), so the text of a refused insert or
//! select is dropped: its code, its name and the column it mentions stay. A refused definition statement contains only
//! names and types, and its text is kept.

use super::target::TargetTable;
use crate::error::{Error, ErrorKind};

/// What was being done, which decides how much of the server's text may be shown.
#[derive(Clone, Copy, Debug)]
pub(super) enum Doing<'a> {
    /// A statement over names and types only.
    Definition(&'a str),
    /// Altering this target: the account that may not do so may do everything else, so the others go on.
    Alteration(&'a TargetTable),
    /// Moving rows of this table.
    Rows(&'a str, &'a TargetTable),
}

/// The longest piece of a server's text that is shown.
const TEXT_MAX: usize = 600;

/// TABLE_IS_PERMANENTLY_READ_ONLY: by the table's own setting, as a rule.
const TABLE_READ_ONLY: u16 = 774;

/// ACCESS_DENIED.
const NO_GRANT: u16 = 497;

/// Classifies `error`. `place` is the server's URL, `user` the account.
pub(super) fn failure(
    error: clickhouse::error::Error,
    place: &str,
    user: &str,
    doing: Doing<'_>,
) -> Error {
    let told = match error {
        clickhouse::error::Error::BadResponse(text) => text,
        clickhouse::error::Error::TimedOut => return silent(place),
        clickhouse::error::Error::Network(source) => {
            return Error::new(
                ErrorKind::DestinationUnavailable,
                format!("ClickHouse at {place} cannot be reached, or the connection broke"),
            )
            .with_hint("check `destination.url`, and that the server runs and listens there")
            .with_source(source);
        }
        other => {
            return Error::new(
                ErrorKind::DestinationUnavailable,
                format!("the answer of ClickHouse at {place} cannot be read"),
            )
            .with_source(other.to_string());
        }
    };
    match Exception::parse(&told) {
        Some(exception) => refused(&exception, user, doing),
        None => foreign(&told, place),
    }
}

/// No answer within the time that we wait.
pub(super) fn silent(place: &str) -> Error {
    Error::new(
        ErrorKind::DestinationUnavailable,
        format!("ClickHouse at {place} did not answer in time"),
    )
    .with_hint(
        "check that the server is not overloaded, and that nothing between drops the connection",
    )
}

/// An exception as ClickHouse prints it: `Code: 60. DB::Exception: text. (NAME) (version ...)`.
#[derive(Debug, PartialEq, Eq)]
struct Exception<'a> {
    code: u16,
    name: &'a str,
    text: &'a str,
}

impl<'a> Exception<'a> {
    fn parse(told: &'a str) -> Option<Self> {
        let (code, rest) = told.trim_start().strip_prefix("Code: ")?.split_once('.')?;
        let code = code.trim().parse().ok()?;
        let rest = rest.trim_start().trim_start_matches("DB::Exception: ");
        let rest = rest
            .rsplit_once(" (version ")
            .map_or(rest, |(text, _)| text)
            .trim_end();
        let named = rest
            .strip_suffix(')')
            .and_then(|rest| rest.rsplit_once('('));
        let (text, name) = match named {
            Some((text, name)) if is_error_name(name) => (text.trim_end(), name),
            _ => (rest, "no name"),
        };
        Some(Self { code, name, text })
    }
}

fn is_error_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

fn refused(exception: &Exception<'_>, user: &str, doing: Doing<'_>) -> Error {
    let Exception { code, name, text } = *exception;
    let (kind, what) = match doing {
        Doing::Alteration(_) if code == NO_GRANT => {
            (ErrorKind::DestinationRejected, "to alter a table")
        }
        Doing::Alteration(_) => (kind_of(code), "to alter a table"),
        Doing::Definition(what) | Doing::Rows(what, _) => (kind_of(code), what),
    };
    let verb = if kind == ErrorKind::DestinationUnavailable {
        "could not do"
    } else {
        "refused"
    };
    let mut message = format!("ClickHouse {verb} {what}: {name} ({code})");
    let mut table = None;
    let mut hint = hint(code, text, user);
    if let (TABLE_READ_ONLY, Doing::Rows(_, target) | Doing::Alteration(target)) = (code, doing) {
        hint = format!(
            "ALTER TABLE `{}`.`{}` RESET SETTING table_readonly, then retry the table",
            target.database(),
            target.name()
        );
    }
    match doing {
        Doing::Definition(_) | Doing::Alteration(_) => {
            message.push_str(": ");
            message.extend(
                text.chars()
                    .take(TEXT_MAX)
                    .map(|c| if c == '\n' { ' ' } else { c }),
            );
        }
        Doing::Rows(_, target) => {
            table = Some(target.source());
            message.push_str(&format!(
                ", target `{}`.`{}`",
                target.database(),
                target.name()
            ));
            if let Some(column) = mentioned(target, text) {
                message.push_str(&format!(", column `{column}`"));
            }
        }
    }
    if let Doing::Alteration(target) = doing {
        table = Some(target.source());
        if code == NO_GRANT {
            hint.push_str(", then retry the table");
        }
    }
    let error = Error::new(kind, message).with_hint(hint);
    match table {
        Some(table) => error.with_table(table),
        None => error,
    }
}

/// The first column of ours that the text names in quotes: a name may be shown, the rest may not.
fn mentioned<'a>(target: &'a TargetTable, text: &str) -> Option<&'a str> {
    target
        .columns()
        .iter()
        .map(|column| column.name.as_str())
        .find(|name| {
            ['`', '\'', '"']
                .iter()
                .any(|quote| text.contains(&format!("{quote}{name}{quote}")))
        })
}

/// Codes of states that pass by themselves, or by what an operator does to the server, without a change to the pipe.
fn kind_of(code: u16) -> ErrorKind {
    match code {
        // Credentials and grants.
        164 | 192..=195 | 291 | 495 | NO_GRANT | 516 => ErrorKind::DestinationDenied,
        // The body broke off on its way, or a disk did not take it.
        3 | 23 | 24 | 33 | 74..=77 | 243 | 298 | 425 | 499 => ErrorKind::DestinationUnavailable,
        // Time, network, name service.
        159 | 160 | 198 | 209 | 210 | 279 | 341 | 364 | 394 | 734 | 735 => {
            ErrorKind::DestinationUnavailable
        }
        // Load: queries, memory, parts, mutations, threads.
        202 | 203 | 236 | 241 | 252 | 373 | 439 | 473 | 574 | 692 | 745 => {
            ErrorKind::DestinationUnavailable
        }
        // Keeper and replicas.
        225
        | 226
        | 242
        | 254
        | 265
        | 285
        | 286
        | 289
        | 319
        | 415..=417
        | 517
        | 529
        | 571
        | 659
        | 667
        | 733
        | 999 => ErrorKind::DestinationUnavailable,
        // Exceptions of the libraries underneath: sockets and disks as a rule.
        1000..=1002 => ErrorKind::DestinationUnavailable,
        _ => ErrorKind::DestinationRejected,
    }
}

fn hint(code: u16, text: &str, user: &str) -> String {
    match code {
        192..=195 | 516 => "check `destination.user` and `destination.password`, and the networks that the account may \
                            come from; `pipewright set` gives a paused or failed pipe others"
            .to_owned(),
        NO_GRANT => match text.split_once("have the grant ") {
            Some((_, grant)) => {
                let grant = grant.split(". (").next().unwrap_or(grant);
                format!("GRANT {} TO {user}", grant.trim_end_matches(['.', ' ']))
            }
            None => format!("grant `{user}` what the message names"),
        },
        164 | 291 | 495 => "use an account that may write".to_owned(),
        60 => "the table was dropped or renamed at the destination: restore it, or resync the table".to_owned(),
        81 => "create the database, or start the pipe anew so that Setup creates it".to_owned(),
        252 => "merges fall behind: raise `sync.interval`, or look at `system.merges`".to_owned(),
        243 => "free space on the disks of ClickHouse".to_owned(),
        241 => "raise `max_server_memory_usage` of the server, or `max_memory_usage` of the account where that is lower; or \
                lower `sync.max_rows` and `snapshot.rows_per_partition`"
            .to_owned(),
        242 => "look at `system.replicas`: the table is read-only".to_owned(),
        202 => "raise `max_concurrent_queries` of the server".to_owned(),
        8 | 10 | 16 | 44 | 47 | 53 | 70 => {
            "the target's columns were changed at the destination: undo that, or resync the table".to_owned()
        }
        _ if kind_of(code) == ErrorKind::DestinationUnavailable => {
            "it is tried again; the server's log says more".to_owned()
        }
        _ => "the server's log has the whole text under this code".to_owned(),
    }
}

/// Something answered that is no ClickHouse, or not its HTTP interface.
fn foreign(told: &str, place: &str) -> Error {
    let hint = if told.contains("clickhouse-client") {
        "this is the native port: `destination.url` takes the HTTP port, 8123 unless configured otherwise"
    } else {
        "check that `destination.url` is ClickHouse's HTTP interface, and what stands between"
    };
    Error::new(
        ErrorKind::DestinationUnavailable,
        format!("what answers at {place} does not answer as ClickHouse"),
    )
    .with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_is_taken_apart() {
        let told = "Code: 497. DB::Exception: narrow: Not enough privileges. To execute this query, it's necessary to \
                    have the grant CREATE TABLE ON default.x. (ACCESS_DENIED) (version 26.7.2.1)";
        let exception = Exception::parse(told).expect("an exception");
        assert_eq!((exception.code, exception.name), (497, "ACCESS_DENIED"));
        let error = refused(&exception, "narrow", Doing::Definition("the statement"));
        assert_eq!(error.kind(), ErrorKind::DestinationDenied);
        assert_eq!(
            error.hint(),
            Some("GRANT CREATE TABLE ON default.x TO narrow")
        );
        assert_eq!(Exception::parse("<html>"), None);
        assert_eq!(Exception::parse("Code: x. what"), None);
    }

    #[test]
    fn overload_is_transient_and_a_missing_table_is_not() {
        for code in [252, 241, 243, 242, 209, 999] {
            assert_eq!(kind_of(code), ErrorKind::DestinationUnavailable, "{code}");
        }
        for code in [60, 16, 53, 349] {
            assert_eq!(kind_of(code), ErrorKind::DestinationRejected, "{code}");
        }
    }

    #[test]
    fn a_foreign_answer_names_the_likely_mistake() {
        let error = foreign(
            "Port 9000 is for clickhouse-client program",
            "http://h:9000",
        );
        assert_eq!(error.kind(), ErrorKind::DestinationUnavailable);
        assert!(
            error
                .hint()
                .is_some_and(|hint| hint.contains("native port"))
        );
    }
}
