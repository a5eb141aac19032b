//! A source that is a replica itself: whether its binlog holds what it applies, and all of it.

use mysql_async::{Conn, Row};

use super::super::following::channels;
use super::super::{Flavor, Source};
use super::{Variables, account, finding};
use crate::error::{ErrorKind, Finding, Result, Severity};

/// The columns of `SHOW REPLICA STATUS` that say what a replica leaves out of what its primary sends. The last two are
/// MariaDB's.
const FILTERS: [&str; 8] = [
    "Replicate_Do_DB",
    "Replicate_Ignore_DB",
    "Replicate_Do_Table",
    "Replicate_Ignore_Table",
    "Replicate_Wild_Do_Table",
    "Replicate_Wild_Ignore_Table",
    "Replicate_Do_Domain_Ids",
    "Replicate_Ignore_Domain_Ids",
];

/// Looks at what the server receives from others.
pub(super) async fn check(
    source: &Source,
    conn: &mut Conn,
    variables: &Variables,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let Some(channels) = channels(source, conn).await? else {
        // On MySQL it takes the right to see the binlog's end, which is told of.
        if source.flavor() == Flavor::MariaDb {
            findings.push(hidden(&account(conn).await?));
        }
        return Ok(());
    };
    let logs = variables
        .get("log_replica_updates")
        .or_else(|| variables.get("log_slave_updates"));
    if !channels.is_empty() && logs.map(String::as_str) == Some("OFF") {
        findings.push(finding(
            Severity::Error,
            ErrorKind::SourceSetting,
            "log_replica_updates",
            "OFF on a server that is a replica itself",
            "ON",
            "restart the server with log_replica_updates=ON (log_slave_updates on MariaDB), or replicate from its \
             primary",
        ));
    }
    for (filter, value) in channels.iter().flat_map(filters) {
        findings.push(finding(
            Severity::Warning,
            ErrorKind::SourceSetting,
            "replication_filter",
            format!("the server is a replica with {filter} = {value}"),
            "a replica that applies all that its primary writes to the replicated tables",
            "see that none of `tables` is left out, or replicate from its primary",
        ));
    }
    Ok(())
}

/// Such a source has an empty binlog that looks like an idle one.
fn hidden(account: &str) -> Finding {
    finding(
        Severity::Warning,
        ErrorKind::SourceDenied,
        "slave_monitor",
        "not granted: nobody notices a source that is a replica itself and logs nothing or not all of what its primary \
         sends, or that lags or stands still",
        "SLAVE MONITOR on *.*",
        format!("GRANT SLAVE MONITOR ON *.* TO {account}"),
    )
}

/// The filters of one channel that are set.
fn filters(channel: &Row) -> Vec<(&'static str, String)> {
    let value = |name: &str| channel.get_opt::<String, _>(name)?.ok();
    FILTERS
        .into_iter()
        .filter_map(|name| Some((name, value(name).filter(|value| !value.is_empty())?)))
        .collect()
}
