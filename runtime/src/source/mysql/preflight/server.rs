//! What kind of server this is, what it leaves out of its binlog, and how it is reached.

use std::net::IpAddr;

use mysql_async::{Conn, Row};

use super::super::snapshot::boundary::binlog_status_sql;
use super::super::{Flavor, ServerVersion, Source};
use super::{Variables, ask, ask_rows, finding, tables, to_gtids};
use crate::batch::TableName;
use crate::config::{PipeConfig, PositionMode, SourceConfig, TablePattern, TlsMode};
use crate::error::{ErrorKind, Finding, Result, Severity};

/// What providers keep the binlog for at the least, so that a stop of a day is survivable.
const RDS_RETENTION_HOURS: u64 = 24;

/// The smallest value at which a row of ordinary texts and documents fits into one packet of a result.
const PACKET_BYTES: u64 = 16 << 20;

/// Servers that speak the protocol and have no binlog of their own that could be followed.
const OTHERS: [(&str, &str); 5] = [
    ("tidb", "TiDB"),
    ("vitess", "Vitess"),
    ("planetscale", "PlanetScale"),
    ("proxysql", "ProxySQL"),
    ("maxscale", "MaxScale"),
];

/// By what a server names itself. A proxy hands the former on to a server behind it; ProxySQL answers the latter itself, as
/// it is written here, with which the client of every MySQL begins.
const NAMES: [&str; 2] = [
    "SELECT VERSION(), @@version_comment",
    "select @@version_comment limit 1",
];

/// Looks at the server apart from its binlog's format and the account's grants.
pub(super) async fn check(
    source: &Source,
    conn: &mut Conn,
    config: &PipeConfig,
    variables: &Variables,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let mut named = Vec::new();
    for sql in NAMES {
        named.extend(
            ask(conn, sql)
                .await?
                .into_iter()
                .flatten()
                .flatten()
                .flatten(),
        );
    }
    match other(&named.join(" ")) {
        Some(other) => findings.push(other),
        None => findings.extend(between(conn.server_version(), source.version())),
    }
    findings.extend(no_gtid(source, config, variables));
    findings.extend(no_server_id(variables));
    findings.extend(unprotected(&config.source));
    check_filters(source, conn, config, findings).await?;
    check_prepared(conn, findings).await?;
    check_provider(conn, findings).await?;
    check_packet(conn, config, findings).await
}

/// `VERSION()` and the comment of a server that is something else.
fn other(named: &str) -> Option<Finding> {
    let named = named.to_lowercase();
    let (_, name) = OTHERS.iter().find(|(part, _)| named.contains(part))?;
    Some(finding(
        Severity::Error,
        ErrorKind::Unsupported,
        "server",
        format!("{name} answers at this address"),
        "a MySQL or MariaDB server itself, whose binlog can be followed",
        "set `source.host` and `source.port` to the server behind it",
    ))
}

/// What greets with a version of its own, before it knows which server it will speak for.
fn between(greeted: (u16, u16, u16), version: ServerVersion) -> Option<Finding> {
    let greeted = ServerVersion(greeted.0, greeted.1, greeted.2);
    // None, and what MariaDB once put before its own, which the driver takes for all of it where more follows than that.
    let unknown = [ServerVersion(0, 0, 0), ServerVersion(5, 5, 5)];
    (greeted != version && !unknown.contains(&greeted)).then(|| {
        finding(
            Severity::Warning,
            ErrorKind::SourceSetting,
            "proxy",
            format!("the connection begins as one to version {greeted}, and is one to {version}: a proxy stands between"),
            "the server itself: a proxy may hand on no binlog, or that of another server each time",
            "set `source.host` and `source.port` to the server behind it",
        )
    })
}

/// By file and offset the pipe is bound to this one server.
fn no_gtid(source: &Source, config: &PipeConfig, variables: &Variables) -> Option<Finding> {
    let bound = source.flavor() == Flavor::MySql
        && !source.has_gtid()
        && config.source.position == PositionMode::Auto;
    bound.then(|| {
        finding(
            Severity::Warning,
            ErrorKind::SourceSetting,
            "gtid_mode",
            "not ON: places are binlog files and offsets, which mean nothing on another server",
            "ON, in the server's configuration too, so that the pipe can go on at a promoted replica; or \
             `source.position: file`, if that is meant",
            to_gtids(variables),
        )
    })
}

fn no_server_id(variables: &Variables) -> Option<Finding> {
    let zero = variables.get("server_id").is_some_and(|id| id == "0");
    zero.then(|| {
        finding(
            Severity::Error,
            ErrorKind::SourceSetting,
            "source_server_id",
            "0, with which the server refuses every replica",
            "a number that no other server has, in the server's configuration too",
            "SET GLOBAL server_id = 1",
        )
    })
}

/// A connection over a network that anybody on the way can read, or answer.
fn unprotected(source: &SourceConfig) -> Option<Finding> {
    let local = source.host == "localhost"
        || source
            .host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    let found = match source.tls.mode {
        _ if local => return None,
        TlsMode::Disabled => "disabled: rows and password go over the network in the clear",
        TlsMode::Required => "required: encrypted, but whoever answers is believed",
        TlsMode::VerifyCa | TlsMode::VerifyIdentity => return None,
    };
    Some(finding(
        Severity::Warning,
        ErrorKind::Config,
        "tls",
        found,
        "verify_identity",
        "leave `source.tls.mode` out, and name the authority in `source.tls.ca` where it is not a public one",
    ))
}

/// A database that the server leaves out of its binlog changes without a trace there.
async fn check_filters(
    source: &Source,
    conn: &mut Conn,
    config: &PipeConfig,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let status = ask(conn, binlog_status_sql(source)).await?;
    let row = status.and_then(|rows| rows.into_iter().next());
    let list = |index: usize| -> Vec<String> {
        let cell = row.as_ref().and_then(|row| row.get(index)?.clone());
        let cell = cell.unwrap_or_default();
        let names = cell.split(',').filter(|name| !name.is_empty());
        names.map(str::to_owned).collect()
    };
    let (only, never) = (list(2), list(3));
    if only.is_empty() && never.is_empty() {
        return Ok(());
    }
    let existing = tables::existing(conn).await?;
    let is_left_out =
        |name: &String| never.contains(name) || !(only.is_empty() || only.contains(name));
    let mut left_out: Vec<&String> = databases(config, &existing).collect();
    left_out.retain(|name| is_left_out(name));
    left_out.sort();
    left_out.dedup();
    findings.extend(left_out.into_iter().map(|name| {
        finding(
            Severity::Error,
            ErrorKind::SourceSetting,
            "binlog_filter",
            format!("the binlog leaves out database `{name}`"),
            "changes of every replicated database in the binlog",
            "restart the server without binlog-do-db and binlog-ignore-db, or with the database among them",
        )
    }));
    Ok(())
}

/// The databases that the entries name, and those whose tables a wildcard of databases means.
fn databases<'a>(
    config: &'a PipeConfig,
    existing: &'a [TableName],
) -> impl Iterator<Item = &'a String> {
    let entries = config.tables.iter().map(|entry| &entry.source);
    let is_open = |source: &&TablePattern| source.is_wildcard() && source.database.contains('*');
    let (open, named): (Vec<_>, Vec<_>) = entries.partition(is_open);
    let meant = existing
        .iter()
        .filter(move |name| open.iter().any(|source| source.matches(name)));
    let named = named.into_iter().map(|source| &source.database);
    named.chain(meant.map(|name| &name.database))
}

/// A load starts at no place between the PREPARE and the end of an XA transaction.
async fn check_prepared(conn: &mut Conn, findings: &mut Vec<Finding>) -> Result<()> {
    let prepared = ask_rows(conn, "XA RECOVER").await?.unwrap_or_default();
    findings.extend(prepared.iter().filter_map(xid).map(|xid| {
        finding(
            Severity::Warning,
            ErrorKind::SourceSetting,
            "xa_prepared",
            format!("the XA transaction {xid} is prepared"),
            "none, while the load's start place is taken",
            format!("XA COMMIT {xid}; or XA ROLLBACK {xid}"),
        )
    }));
    Ok(())
}

/// How statements name the transaction of a line of XA RECOVER.
fn xid(line: &Row) -> Option<String> {
    let number = |index: usize| line.get_opt::<i64, _>(index)?.ok();
    let data: Vec<u8> = line.get_opt(3)?.ok()?;
    let (global, branch) = data.split_at_checked(usize::try_from(number(1)?).ok()?)?;
    let hex = |bytes: &[u8]| -> String {
        let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
        digits.collect()
    };
    let format = number(0)?;
    Some(format!("X'{}',X'{}',{format}", hex(global), hex(branch)))
}

/// The provider's own purging, which the server's variables do not show.
async fn check_provider(conn: &mut Conn, findings: &mut Vec<Finding>) -> Result<()> {
    let sql = "SELECT value FROM mysql.rds_configuration WHERE name = 'binlog retention hours'";
    // Absent anywhere else, and out of reach for some accounts.
    let Some(rows) = ask(conn, sql).await? else {
        return Ok(());
    };
    let Some(hours) = rows
        .into_iter()
        .next()
        .and_then(|row| row.into_iter().next())
    else {
        return Ok(());
    };
    if hours.as_deref().and_then(|hours| hours.parse::<u64>().ok()) < Some(RDS_RETENTION_HOURS) {
        findings.push(finding(
            Severity::Error,
            ErrorKind::SourceSetting,
            "rds_retention",
            match hours {
                Some(hours) => format!("{hours} hours"),
                None => "NULL: the provider purges the binlog as soon as it can".to_owned(),
            },
            format!("{RDS_RETENTION_HOURS} hours or more"),
            "CALL mysql.rds_set_configuration('binlog retention hours', 72)",
        ));
    }
    Ok(())
}

/// A row that is larger than the server may send ends its load.
async fn check_packet(
    conn: &mut Conn,
    config: &PipeConfig,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let bytes = ask(conn, "SELECT @@GLOBAL.max_allowed_packet").await?;
    let bytes = bytes.and_then(|rows| rows.first()?.first()?.as_ref()?.parse::<u64>().ok());
    let Some(bytes) = bytes.filter(|bytes| *bytes < PACKET_BYTES) else {
        return Ok(());
    };
    let large = tables::with_large_columns(conn, config).await?;
    if let Some(table) = large.first() {
        findings.push(finding(
            Severity::Warning,
            ErrorKind::SourceSetting,
            "max_allowed_packet",
            format!("{bytes}, and `{table}` has columns that hold more"),
            format!("{PACKET_BYTES} or more"),
            format!("SET GLOBAL max_allowed_packet = {}", 4 * PACKET_BYTES),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_with_another_version_is_a_proxys() {
        let version = ServerVersion(8, 0, 36);
        let told = between((8, 0, 11), version).expect("another version");
        assert!(told.found.contains("8.0.11") && told.found.contains("8.0.36"));
        for itself in [(8, 0, 36), (0, 0, 0), (5, 5, 5)] {
            assert_eq!(between(itself, version), None, "{itself:?}");
        }
    }

    /// pitfall 137
    #[test]
    fn servers_that_only_speak_the_protocol_are_named() {
        let check = |named: &str| other(named).map(|finding| finding.found);
        let tidb = check("8.0.11-TiDB-v8.5.0 TiDB Server (Apache License 2.0)");
        assert!(tidb.is_some_and(|found| found.contains("TiDB")));
        assert!(check("8.0.30-Vitess vitess").is_some());
        assert!(check("8.0.36 MySQL Community Server - GPL (ProxySQL)").is_some());
        for itself in [
            "9.7.0 MySQL Community Server - GPL",
            "10.11.11-MariaDB-deb12 Debian 12",
            "8.0.36-28 Percona Server (GPL), Release 28",
        ] {
            assert_eq!(check(itself), None, "{itself}");
        }
    }
}
