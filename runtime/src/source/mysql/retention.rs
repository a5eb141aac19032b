//! How long the source goes on to hold what a pipe has yet to read, and the source's clock.
//!
//! A binlog file is purged by age, by size or by hand. Its age counts from its last write, which is no earlier than the
//! commit behind the pipe's place; so what the server keeps, less the age of the pipe's newest commit, is a lower bound
//! of the time that is left. What has been purged is proved by comparing places, not by age.

use std::time::{Duration, Instant};

use mysql_async::Conn;

use super::Source;
use super::position::{GtidList, GtidSet, Position};
use super::preflight::{Variables, ask, variables};
use super::snapshot::boundary::binlog_status_sql;
use super::sql::quote_string;
use crate::error::{Error, Result};

/// The source's clock at a moment of ours.
#[derive(Clone, Copy, Debug)]
pub struct SourceClock {
    /// Microseconds since 1970 by the source.
    pub micros: u64,
    /// The same moment here. Counted on from it, our own wall clock takes no part.
    pub at: Instant,
}

impl SourceClock {
    /// What the source's clock shows now.
    pub fn shows_us(&self) -> u64 {
        self.micros.saturating_add(micros_of(self.at.elapsed()))
    }

    /// How long ago the source's clock showed `micros`; zero when that is to come.
    pub fn age_of(&self, micros: u64) -> Duration {
        Duration::from_micros(self.shows_us().saturating_sub(micros))
    }
}

fn micros_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

const DAY_SECONDS: u64 = 86_400;

/// No server takes more for `expire_logs_days`.
const MOST_DAYS: u64 = 99;

/// What a server is told of its binlog's age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// How long it keeps its binlog.
    pub keeps: Duration,
    by: Variable,
}

/// By which of its two variables a server purges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variable {
    Seconds,
    /// MySQL 8.0, where the seconds are 0.
    DaysBesideSeconds,
    /// MariaDB before 10.6, which has no other.
    Days,
}

impl Expiry {
    /// The variable's name.
    pub fn variable(&self) -> &'static str {
        match self.by {
            Variable::Seconds => "binlog_expire_logs_seconds",
            Variable::DaysBesideSeconds | Variable::Days => "expire_logs_days",
        }
    }

    /// What is said to the server so that it keeps its binlog for `seconds`, or longer.
    pub fn statement(&self, seconds: u64) -> String {
        let in_seconds = format!("SET GLOBAL binlog_expire_logs_seconds = {seconds}");
        match (self.by, seconds.div_ceil(DAY_SECONDS)) {
            (Variable::Seconds, _) => in_seconds,
            // MySQL refuses seconds while there are days.
            (Variable::DaysBesideSeconds, _) => {
                format!("SET GLOBAL expire_logs_days = 0; {in_seconds}")
            }
            (Variable::Days, days @ ..=MOST_DAYS) => {
                format!("SET GLOBAL expire_logs_days = {days}")
            }
            (Variable::Days, _) => "SET GLOBAL expire_logs_days = 0".to_owned(),
        }
    }
}

/// What the source holds beyond a place.
#[derive(Debug)]
pub struct Retention {
    /// What the server purges by age; none when that is nothing.
    pub expiry: Option<Expiry>,
    /// Whether anything was committed behind the place.
    pub behind: bool,
    /// What has been purged that was not read yet; none while all is there.
    pub purged: Option<Error>,
}

impl Retention {
    /// How long the place is safe, when the newest commit before it is `age` old; none when it is for ever.
    pub fn headroom(&self, age: Duration) -> Option<Duration> {
        let Expiry { keeps, .. } = self.expiry?;
        Some(match self.behind {
            true => keeps.saturating_sub(age),
            false => keeps,
        })
    }
}

impl Source {
    /// Asks for the source's clock.
    ///
    /// # Errors
    /// A broken connection.
    pub async fn clock(&self, conn: &mut Conn) -> Result<Option<SourceClock>> {
        let begin = Instant::now();
        let micros = ask(
            conn,
            "SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED)",
        )
        .await?
        .and_then(|rows| rows.first()?.first()?.as_ref()?.parse().ok());
        // The server read its clock about half-way through the round trip.
        let at = begin + begin.elapsed() / 2;
        Ok(micros.map(|micros| SourceClock { micros, at }))
    }

    /// What the source's clock shows now, in microseconds since 1970, over a connection of its own.
    ///
    /// # Errors
    /// When the source cannot be asked.
    pub async fn moment_us(&self) -> Result<Option<u64>> {
        let mut conn = self.control().await?;
        let clock = self.clock(&mut conn).await?;
        conn.disconnect().await.ok();
        Ok(clock.map(|clock| clock.shows_us()))
    }

    /// Compares what the source still holds with `place`. What the account may not ask counts as held.
    ///
    /// # Errors
    /// A broken connection.
    pub async fn retention(&self, conn: &mut Conn, place: &Position) -> Result<Retention> {
        let expiry = expiry(&variables(conn).await?);
        let (behind, purged) = match place {
            Position::Gtid { set } => beyond_set(conn, set).await?,
            Position::MariaGtid { list } => beyond_list(conn, list).await?,
            Position::File { file, offset, .. } => self.beyond_file(conn, (file, *offset)).await?,
        };
        Ok(Retention {
            expiry,
            behind,
            purged,
        })
    }

    async fn beyond_file(
        &self,
        conn: &mut Conn,
        (file, offset): (&str, u64),
    ) -> Result<(bool, Option<Error>)> {
        let files = binlogs(conn).await?;
        if !files.is_empty() && !files.iter().any(|held| held == file) {
            let oldest = files.first().map_or("", String::as_str);
            let missing = format!("{file} from {offset} on; the oldest file is {oldest}");
            return Ok((true, Some(super::binlog::purged(&missing))));
        }
        let end = ask(conn, binlog_status_sql(self)).await?;
        let end = end.as_ref().and_then(|rows| rows.first());
        let at_end = end.is_some_and(|row| {
            let cell = |index: usize| row.get(index).and_then(Option::as_deref);
            cell(0) == Some(file) && cell(1) == Some(&offset.to_string())
        });
        Ok((!at_end, None))
    }
}

async fn beyond_set(conn: &mut Conn, ours: &GtidSet) -> Result<(bool, Option<Error>)> {
    let sql = "SELECT @@GLOBAL.gtid_purged, @@GLOBAL.gtid_executed";
    let row = ask(conn, sql)
        .await?
        .and_then(|rows| rows.into_iter().next());
    let mut sets = row.into_iter().flatten().flatten();
    let (Some(purged), Some(executed)) = (sets.next(), sets.next()) else {
        return Ok((true, None));
    };
    let missing = purged.parse::<GtidSet>()?.difference(ours);
    let behind = !executed.parse::<GtidSet>()?.difference(ours).is_empty();
    let purged = (!missing.is_empty()).then(|| super::binlog::purged(&missing.to_string()));
    Ok((behind, purged))
}

/// What a MariaDB server has purged is what stands before the start of its oldest file (pitfall 81).
async fn beyond_list(conn: &mut Conn, ours: &GtidList) -> Result<(bool, Option<Error>)> {
    let list = |rows: Option<Vec<Vec<Option<String>>>>| {
        rows.and_then(|rows| rows.into_iter().next()?.into_iter().next()?)
            .unwrap_or_default()
            .parse::<GtidList>()
    };
    let newest = list(ask(conn, "SELECT @@GLOBAL.gtid_binlog_pos").await?)?;
    let behind = !newest.difference(ours).is_empty();
    let Some(oldest) = binlogs(conn).await?.into_iter().next() else {
        return Ok((behind, None));
    };
    let sql = format!("SELECT BINLOG_GTID_POS({}, 4)", quote_string(&oldest));
    let missing = list(ask(conn, &sql).await?)?.difference(ours);
    let purged = (!missing.is_empty()).then(|| {
        super::binlog::purged(&format!(
            "{missing} and before; the oldest file is {oldest}"
        ))
    });
    Ok((behind, purged))
}

/// The names of the files that the server holds, the oldest first.
async fn binlogs(conn: &mut Conn) -> Result<Vec<String>> {
    let rows = ask(conn, "SHOW BINARY LOGS").await?.unwrap_or_default();
    Ok(rows
        .into_iter()
        .filter_map(|row| row.into_iter().next().flatten())
        .collect())
}

/// How long the server keeps its binlog by age. MariaDB before 10.6 knows days only, and MySQL 8.0 goes by them where the
/// seconds are 0. Nothing but zeros keeps everything, and so does a server that was told not to purge by itself.
pub(super) fn expiry(variables: &Variables) -> Option<Expiry> {
    let number = |name: &str| variables.get(name)?.parse::<f64>().ok();
    let automatic = variables
        .get("binlog_expire_logs_auto_purge")
        .is_none_or(|value| value != "OFF");
    let seconds = number("binlog_expire_logs_seconds");
    let days = number("expire_logs_days").map(|days| days * DAY_SECONDS as f64);
    let (by, kept) = match (seconds, days) {
        (Some(0.0), Some(days)) => (Variable::DaysBesideSeconds, days),
        (Some(seconds), _) => (Variable::Seconds, seconds),
        (None, days) => (Variable::Days, days?),
    };
    (automatic && kept >= 1.0).then(|| Expiry {
        keeps: Duration::from_secs_f64(kept),
        by,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retention(keeps: Option<u64>, behind: bool) -> Retention {
        Retention {
            expiry: keeps.map(|seconds| Expiry {
                keeps: Duration::from_secs(seconds),
                by: Variable::Seconds,
            }),
            behind,
            purged: None,
        }
    }

    #[test]
    fn an_idle_source_takes_nothing_from_the_headroom() {
        let age = Duration::from_secs(50);
        let headroom = |keeps, behind| {
            retention(keeps, behind)
                .headroom(age)
                .map(|left| left.as_secs())
        };
        assert_eq!(headroom(Some(60), true), Some(10));
        assert_eq!(headroom(Some(60), false), Some(60));
        assert_eq!(headroom(Some(40), true), Some(0));
        assert_eq!(headroom(None, true), None);
    }

    fn read(pairs: &[(&str, &str)]) -> Option<Expiry> {
        let variables = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        expiry(&variables)
    }

    #[test]
    fn what_is_kept_is_read_from_either_variable() {
        let of = |pairs: &[(&str, &str)]| read(pairs).map(|expiry| expiry.keeps.as_secs());
        assert_eq!(of(&[("binlog_expire_logs_seconds", "3600")]), Some(3600));
        assert_eq!(of(&[("expire_logs_days", "0.5")]), Some(43_200));
        assert_eq!(of(&[("binlog_expire_logs_seconds", "0")]), None);
        let none = ("binlog_expire_logs_seconds", "0");
        assert_eq!(of(&[none, ("expire_logs_days", "2")]), Some(172_800));
        assert_eq!(of(&[none, ("expire_logs_days", "0")]), None);
        let off = ("binlog_expire_logs_auto_purge", "OFF");
        assert_eq!(of(&[("binlog_expire_logs_seconds", "3600"), off]), None);
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn each_server_is_told_by_a_variable_that_it_has() {
        let of = |pairs: &[(&str, &str)], seconds| {
            let expiry = read(pairs).expect("something is purged");
            (expiry.variable(), expiry.statement(seconds))
        };
        let days = ("expire_logs_days", "1");
        for (pairs, seconds, variable, statement) in [
            (
                // MariaDB 10.6 shows one by the other.
                &[("binlog_expire_logs_seconds", "86400"), days][..],
                259_200,
                "binlog_expire_logs_seconds",
                "SET GLOBAL binlog_expire_logs_seconds = 259200",
            ),
            (
                &[("binlog_expire_logs_seconds", "0"), days],
                259_200,
                "expire_logs_days",
                "SET GLOBAL expire_logs_days = 0; SET GLOBAL binlog_expire_logs_seconds = 259200",
            ),
            (
                &[days],
                259_201,
                "expire_logs_days",
                "SET GLOBAL expire_logs_days = 4",
            ),
            (
                &[days],
                100 * DAY_SECONDS,
                "expire_logs_days",
                "SET GLOBAL expire_logs_days = 0",
            ),
        ] {
            assert_eq!(of(pairs, seconds), (variable, statement.to_owned()));
        }
    }

    #[test]
    fn an_age_counts_on_without_the_wall_clock() {
        let clock = SourceClock {
            micros: 10_000_000,
            at: Instant::now() - Duration::from_secs(5),
        };
        let age = clock.age_of(8_000_000);
        assert!(age >= Duration::from_secs(7), "{age:?}");
        assert_eq!(clock.age_of(99_000_000), Duration::ZERO);
    }
}
