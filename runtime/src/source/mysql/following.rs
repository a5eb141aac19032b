//! A source that is a replica itself: what it receives from others, and how far it is behind them. What has not reached
//! it reaches nobody who reads from it, and its own binlog does not tell (pitfall 68).

use std::collections::HashMap;
use std::time::Duration;

use mysql_async::prelude::FromValue;
use mysql_async::{Conn, Row};

use super::past::{Fitness, Past, is_off};
use super::preflight::{ask, ask_rows};
use super::{Flavor, ServerVersion, Source};
use crate::config::SourceConfig;
use crate::error::{Error, ErrorKind, Result};

/// How a source stands to the servers that it follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Following {
    /// The longest delay of its channels; none while one of them cannot tell.
    pub behind: Option<Duration>,
    /// What of it stands still, for people; none while everything runs.
    pub stopped: Option<String>,
}

/// The channels by which the server receives from others, as it describes them; none where the account may not ask.
/// Those of group replication are left out: a member that falls behind leaves its group.
pub(super) async fn channels(source: &Source, conn: &mut Conn) -> Result<Option<Vec<Row>>> {
    let sql = match source.flavor() {
        Flavor::MySql if source.version() >= ServerVersion(8, 0, 22) => "SHOW REPLICA STATUS",
        Flavor::MySql => "SHOW SLAVE STATUS",
        Flavor::MariaDb => "SHOW ALL SLAVES STATUS",
    };
    let mut channels = ask_rows(conn, sql).await?;
    if let Some(channels) = &mut channels {
        channels.retain(|channel| {
            let name: Option<String> = value(channel, &["Channel_Name"]);
            !name.is_some_and(|name| name.starts_with("group_replication_"))
        });
    }
    Ok(channels)
}

/// A column under the first of its names that the server knows: they were renamed in MySQL 8.0.22.
fn value<T: FromValue>(channel: &Row, names: &[&str]) -> Option<T> {
    let mut found = names.iter().filter_map(|name| channel.get_opt(*name));
    found.next()?.ok()?
}

impl Source {
    /// Asks how far the server is behind those that it follows; none when it follows nobody, or does not say.
    ///
    /// # Errors
    /// A broken connection.
    pub async fn following(&self, conn: &mut Conn) -> Result<Option<Following>> {
        let channels = channels(self, conn).await?.unwrap_or_default();
        if channels.is_empty() {
            return Ok(None);
        }
        let delays = channels
            .iter()
            .map(|channel| value(channel, &["Seconds_Behind_Source", "Seconds_Behind_Master"]));
        let longest = delays
            .collect::<Option<Vec<u64>>>()
            .and_then(|delays| delays.into_iter().max());
        Ok(Some(Following {
            behind: longest.map(Duration::from_secs),
            stopped: channels.iter().find_map(stopped),
        }))
    }

    /// Whether writes go past the server for good: nobody can write to it, and it follows nobody, as a former primary after a
    /// planned switchover. Nodes of a cluster and members of a group receive by other ways, and one that does not say is not
    /// taken to.
    ///
    /// # Errors
    /// A broken connection.
    pub async fn is_stranded(&self, conn: &mut Conn) -> Result<bool> {
        let sql = "SHOW GLOBAL VARIABLES WHERE Variable_name IN \
                   ('read_only', 'innodb_read_only', 'wsrep_on', 'wsrep_provider', 'group_replication_group_name')";
        let rows = ask(conn, sql).await?.unwrap_or_default();
        let variables: HashMap<String, String> = rows
            .into_iter()
            .filter_map(|row| {
                let mut cells = row.into_iter().map(Option::unwrap_or_default);
                Some((cells.next()?, cells.next()?))
            })
            .collect();
        let shown = |name: &str| variables.get(name).map(String::as_str).unwrap_or_default();
        // Percona's cluster has no global `wsrep_on`.
        let is_node = !["", "none"].contains(&shown("wsrep_provider"))
            && variables.get("wsrep_on").is_none_or(|on| !is_off(on));
        let forbids = !is_off(shown("read_only")) || !is_off(shown("innodb_read_only"));
        if !forbids || is_node {
            return Ok(false);
        }
        if !shown("group_replication_group_name").is_empty() && is_member(conn).await? {
            return Ok(false);
        }
        Ok(channels(self, conn)
            .await?
            .is_some_and(|channels| channels.is_empty()))
    }

    /// Another one of the pipe's `config` that can be written to, and holds `past`: where the pipe had better go on than with
    /// a server of which `why` is true.
    pub async fn left_for(
        &self,
        config: &SourceConfig,
        past: Option<&Past>,
        why: &str,
    ) -> Option<Error> {
        let ours =
            |one: &SourceConfig| one.host == self.config().host && one.port == self.config().port;
        for one in config
            .each_host()
            .filter(|one| !config.hosts.is_empty() && !ours(one))
        {
            match Self::judged(&one, past).await {
                Ok((Fitness::Writable, other)) if other.identity() != self.identity() => {
                    return Some(Error::new(
                        ErrorKind::SourceUnavailable,
                        format!(
                            "the source at {}:{} {why}; {}:{} takes writes and holds all that was read",
                            self.config().host,
                            self.config().port,
                            one.host,
                            one.port
                        ),
                    )
                    .with_hint("the pipe goes on there by itself"));
                }
                Ok(_) => {}
                Err(error) => tracing::debug!("{}", error.chain()),
            }
        }
        None
    }
}

/// Whether the server is a member of its replication group, as far as the account may know. One that was expelled, or that
/// lost its majority and gave up, still has the group's name.
async fn is_member(conn: &mut Conn) -> Result<bool> {
    let sql = "SELECT COUNT(*) FROM performance_schema.replication_group_members \
               WHERE MEMBER_ID = @@GLOBAL.server_uuid AND MEMBER_STATE IN ('ONLINE', 'RECOVERING')";
    let rows = ask(conn, sql).await?;
    let count = rows.and_then(|rows| rows.into_iter().flatten().flatten().next());
    Ok(count.is_none_or(|count| count != "0"))
}

/// The thread of the channel that does not run, with the server's number for the reason: its text may hold values.
fn stopped(channel: &Row) -> Option<String> {
    let threads = [
        (
            "receives nothing from its primary",
            ["Replica_IO_Running", "Slave_IO_Running"],
            "Last_IO_Errno",
        ),
        (
            "applies nothing of what its primary sends",
            ["Replica_SQL_Running", "Slave_SQL_Running"],
            "Last_SQL_Errno",
        ),
    ];
    threads.iter().find_map(|(what, running, errno)| {
        let running: String = value(channel, running)?;
        if running == "Yes" {
            return None;
        }
        Some(match value::<u64>(channel, &[errno]) {
            Some(number) if number > 0 => format!("{what} (its error {number})"),
            _ => (*what).to_owned(),
        })
    })
}
