//! A source that is a replica itself: whether its binlog holds what it applies, and all of it.

use mysql_async::{Conn, Row};

use super::super::Source;
use super::super::following::channels;
use super::{Variables, finding};
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
    let channels = channels(source, conn).await?.unwrap_or_default();
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

/// The filters of one channel that are set.
fn filters(channel: &Row) -> Vec<(&'static str, String)> {
    let value = |name: &str| channel.get_opt::<String, _>(name)?.ok();
    FILTERS
        .into_iter()
        .filter_map(|name| Some((name, value(name).filter(|value| !value.is_empty())?)))
        .collect()
}
