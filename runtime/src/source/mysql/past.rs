//! Whether a server holds what was read before, and which of several servers to read from.
//!
//! A replica that was promoted may lack the last transactions of the server that it follows on, and rows of them may be at
//! the destination already. So what was read is compared with what the server holds, transaction by transaction: MySQL's
//! `gtid_executed`, MariaDB's `gtid_binlog_state` and `gtid_slave_pos`. A server that still follows another may yet receive what it lacks; of any
//! other that is proof that both went different ways.

use std::time::{Duration, Instant};

use super::position::{BinlogState, GtidSet, Position};
use super::snapshot::boundary::ensure_same_server;
use super::wire::{ServerError, WireConn};
use super::{Flavor, ServerVersion, Source};
use crate::config::SourceConfig;
use crate::error::{Error, ErrorKind, Result};

/// How long a server that follows no other may take to show what it has sent: a dump runs ahead of the commit by the
/// acknowledgement of a semi-synchronous replica.
const COMMIT_DEADLINE: Duration = Duration::from_secs(10);

/// How long a server that lags behind another may take.
const FOLLOWING_DEADLINE: Duration = Duration::from_secs(30);

const POLL: Duration = Duration::from_millis(200);

/// What a stream has read.
#[derive(Clone, Debug)]
pub struct Past {
    /// Up to where rows may be at the destination.
    pub newest: Position,
    /// From where on it reads again; not behind the other.
    pub checkpoint: Position,
}

/// What a server is for a stream that wants to go on behind a place. The greater, the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fitness {
    /// It lacks some of what was read, and nothing reaches it: neither writes nor another server's.
    Stalled,
    /// It has purged some of what comes next.
    Purged,
    /// It lacks some of what was read, and may receive it.
    Lags,
    /// It lacks some of what was read.
    Lacks,
    /// It holds all of it, and nobody can write to it: the writes go elsewhere.
    ReadOnly,
    /// It holds all of it, and can be written to.
    Writable,
}

impl Fitness {
    fn of(lacks: bool, purged: bool, read_only: bool, follows: bool) -> Self {
        match (lacks, purged, read_only) {
            (true, _, true) if !follows => Self::Stalled,
            (_, true, _) => Self::Purged,
            (true, false, true) => Self::Lags,
            (true, false, false) => Self::Lacks,
            (false, false, true) => Self::ReadOnly,
            (false, false, false) => Self::Writable,
        }
    }
}

/// How well a server fits a stream behind `past`.
///
/// # Errors
/// As the queries fail.
pub(super) async fn fitness(source: &Source, past: Option<&Past>) -> Result<Fitness> {
    let mut conn = WireConn::connect(source.config()).await?;
    let (mut lacks, mut purged) = (false, false);
    if let Some(Past { newest, checkpoint }) = past {
        let lacking = lacking_each(&mut conn, &[newest, checkpoint]).await?;
        lacks = lacking.iter().any(Option::is_some);
        let mut control = source.control().await?;
        let retention = source.retention(&mut control, checkpoint).await?;
        purged = retention.purged.is_some();
        control.disconnect().await.ok();
    }
    let read_only = is_read_only(&mut conn).await?;
    let follows = is_following(&mut conn, source).await?;
    conn.quit().await;
    Ok(Fitness::of(
        lacks,
        purged,
        read_only,
        follows.unwrap_or(true),
    ))
}

/// Whether a pipe whose best server is `best` waits for one that failed with `error`: what a server has purged is lost to the
/// pipe only where no other has it. What the best one lacks is told at once, for rows of it may be at the destination.
pub(super) fn is_awaited(best: Fitness, error: &Error) -> bool {
    best == Fitness::Purged && error.kind() == ErrorKind::SourceUnavailable
}

/// What such a pipe waits with.
pub(super) fn awaited(best: &SourceConfig, error: Error) -> Error {
    let SourceConfig { host, port, .. } = best;
    Error::new(
        ErrorKind::SourceUnavailable,
        format!(
            "{host}:{port} has purged transactions that this pipe has not read, and another server that may hold them cannot \
             be asked"
        ),
    )
    .with_hint(
        "bring that server back; where it is gone for good, pause the pipe, take it out of `source.hosts` with `pipewright \
         set`, and resync the pipe",
    )
    .with_source(error)
}

/// Proves that the server holds everything up to `place`.
///
/// # Errors
/// `SourceDiverged` when it never will, naming what it lacks; `SourceUnavailable` when it has not received it in time.
pub async fn ensure_holds(source: &Source, place: &Position) -> Result<()> {
    let mut conn = WireConn::connect(source.config()).await?;
    let lacked = lacked_in_time(&mut conn, source, &[place]).await?;
    conn.quit().await;
    let Some(missing) = lacked.into_iter().flatten().next() else {
        return Ok(());
    };
    Err(Error::new(
        ErrorKind::SourceDiverged,
        format!(
            "the source at {}:{} does not contain transactions whose rows may be at the destination: {missing}",
            source.config().host,
            source.config().port
        ),
    )
    .with_hint(match place {
        Position::MariaGtid { .. } => {
            "resync the pipe, or point it at a server that contains them; a domain removed by FLUSH BINARY \
             LOGS DELETE_DOMAIN_ID looks the same"
        }
        Position::Gtid { .. } | Position::File { .. } => {
            "resync the pipe, or point it at a server that contains them"
        }
    }))
}

/// What of each place the server lacks and never will receive, as text.
///
/// # Errors
/// As the queries fail; `SourceUnavailable` where another server answers than the one that is connected, or one that follows
/// another has not received it in time.
pub async fn lacked(source: &Source, places: &[&Position]) -> Result<Vec<Option<String>>> {
    let mut conn = WireConn::connect(source.config()).await?;
    ensure_same_server(&mut conn, source).await?;
    let lacked = lacked_in_time(&mut conn, source, places).await?;
    conn.quit().await;
    Ok(lacked)
}

async fn lacked_in_time(
    conn: &mut WireConn,
    source: &Source,
    places: &[&Position],
) -> Result<Vec<Option<String>>> {
    let begin = Instant::now();
    loop {
        let lacked = lacking_each(conn, places).await?;
        let Some(missing) = lacked.iter().flatten().next() else {
            return Ok(lacked);
        };
        let follows =
            is_read_only(conn).await? || is_following(conn, source).await?.unwrap_or(false);
        if follows && begin.elapsed() > FOLLOWING_DEADLINE {
            return Err(Error::new(
                ErrorKind::SourceUnavailable,
                format!(
                    "the replica at {}:{} has not received transactions that this pipe has read after {} s: {missing}",
                    source.config().host,
                    source.config().port,
                    FOLLOWING_DEADLINE.as_secs()
                ),
            )
            .with_hint(
                "wait until it has caught up; see that its replication runs; or point the pipe at a server that has them",
            ));
        }
        if !follows && begin.elapsed() > COMMIT_DEADLINE {
            return Ok(lacked);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// What of each of `places` the server does not hold, as text. Files and offsets are compared by who the server is.
async fn lacking_each(conn: &mut WireConn, places: &[&Position]) -> Result<Vec<Option<String>>> {
    let (mut executed, mut state) = (None, None);
    let mut lacking = Vec::with_capacity(places.len());
    for place in places {
        let text = match place {
            Position::Gtid { set } => {
                if executed.is_none() {
                    let value = conn.query_value("SELECT @@GLOBAL.gtid_executed").await?;
                    executed = Some(value.unwrap_or_default().parse::<GtidSet>()?);
                }
                let rest = executed.as_ref().map(|executed| set.difference(executed));
                rest.unwrap_or_default().to_string()
            }
            Position::MariaGtid { list } => {
                if state.is_none() {
                    state = Some(binlog_state(conn).await?);
                }
                let rest = state.as_ref().map(|state| state.lacks(list));
                rest.unwrap_or_default().to_string()
            }
            Position::File { .. } => String::new(),
        };
        lacking.push(Some(text).filter(|text| !text.is_empty()));
    }
    Ok(lacking)
}

/// What a MariaDB server holds.
///
/// # Errors
/// As the queries fail.
pub(super) async fn binlog_state(conn: &mut WireConn) -> Result<BinlogState> {
    let logged = conn
        .query_value("SELECT @@GLOBAL.gtid_binlog_state")
        .await?;
    let received = conn.query_value("SELECT @@GLOBAL.gtid_slave_pos").await?;
    BinlogState::parse(&logged.unwrap_or_default(), &received.unwrap_or_default())
}

/// MariaDB 12 has several words for `read_only`; all but OFF forbid writes of applications. A reader of Amazon Aurora tells
/// by the other variable.
async fn is_read_only(conn: &mut WireConn) -> Result<bool> {
    // Not every server has InnoDB.
    let sql = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('read_only', 'innodb_read_only')";
    let rows = conn.query_text(sql).await?;
    let mut values = rows.iter().filter_map(|row| row.get(1)?.as_deref());
    Ok(values.any(|value| !is_off(&String::from_utf8_lossy(value))))
}

/// Whether a variable of a server says no.
pub(super) fn is_off(value: &str) -> bool {
    matches!(value, "" | "OFF" | "0")
}

/// Whether the server applies what another one sends; none without the grant to ask.
async fn is_following(conn: &mut WireConn, source: &Source) -> Result<Option<bool>> {
    /// The column of `SHOW REPLICA STATUS` that says whether what was received is applied; MariaDB has two more before.
    const APPLIES: usize = 11;
    let (sql, column) = match source.flavor() {
        Flavor::MySql if source.version() >= ServerVersion(8, 0, 22) => {
            ("SHOW REPLICA STATUS", APPLIES)
        }
        Flavor::MySql => ("SHOW SLAVE STATUS", APPLIES),
        Flavor::MariaDb => ("SHOW ALL SLAVES STATUS", APPLIES + 2),
    };
    match conn.query_text(sql).await {
        Ok(rows) => Ok(Some(rows.iter().any(
            |row| matches!(row.get(column), Some(Some(value)) if value == b"Yes"),
        ))),
        Err(error) if ServerError::of(&error).is_some() => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_holds_the_past_beats_one_that_can_be_written_to() {
        let mut servers = [
            Fitness::Lacks,
            Fitness::Writable,
            Fitness::Lags,
            Fitness::Purged,
            Fitness::Stalled,
            Fitness::ReadOnly,
        ];
        servers.sort();
        assert_eq!(servers[..2], [Fitness::Stalled, Fitness::Purged]);
        assert_eq!(servers.last(), Some(&Fitness::Writable));
        assert!(Fitness::ReadOnly > Fitness::Lacks);
    }

    #[test]
    fn a_server_that_has_purged_what_comes_next_comes_before_those_alone_that_get_nowhere() {
        for lacks in [false, true] {
            for read_only in [false, true] {
                let other = Fitness::of(lacks, false, read_only, true);
                assert!(
                    Fitness::of(lacks, true, read_only, true) < other,
                    "{other:?}"
                );
            }
        }
        let purged = Fitness::of(false, true, false, false);
        assert!(Fitness::of(true, false, true, false) < purged);
        assert!(Fitness::of(true, false, false, false) > purged);
        assert_eq!(Fitness::of(true, false, true, true), Fitness::Lags);
    }

    #[test]
    fn what_one_server_has_purged_is_waited_for_while_another_is_away() {
        let away = Error::new(ErrorKind::SourceUnavailable, "no answer");
        assert!(is_awaited(Fitness::Purged, &away));
        let refused = Error::new(ErrorKind::SourceDenied, "refused");
        assert!(!is_awaited(Fitness::Purged, &refused));
        for fitness in [Fitness::Lags, Fitness::Lacks, Fitness::ReadOnly] {
            assert!(!is_awaited(fitness, &away), "{fitness:?}");
        }
    }
}
