//! Whether the source server can be replicated from: every finding at once, each with its remedy.
//!
//! A check that the account may not make is passed over where another finding names the missing grant, since a person
//! mends that first and asks again.

use std::collections::HashMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row, Value};

use super::connection::query_error;
use super::replica::{Registered, reported_host};
use super::snapshot::boundary::binlog_status_sql;
use super::sql::quote_identifier;
use super::{Flavor, ServerVersion, Source};
use crate::config::{PipeConfig, PositionMode, RowImage};
use crate::error::{ErrorKind, Finding, Result, Severity};

mod galera;
mod kept;
mod locks;
mod replica;
mod server;
mod tables;

pub use locks::{locked, pass_over_locks};
pub(super) use tables::hindrance;

/// Clocks further apart make every lag figure a riddle.
const CLOCK_SECONDS: f64 = 5.0;

/// Looks at the server, the account and the tables, and reports everything that stands in the way or is worth knowing.
/// `mode: snapshot` needs the binlog too: the changes during the load come from it.
///
/// # Errors
/// Only a broken connection; what the server refuses to tell is a finding or left out.
pub async fn preflight(
    source: &Source,
    conn: &mut Conn,
    config: &PipeConfig,
) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    findings.extend(too_old(source.flavor(), source.version()));
    let variables = variables(conn).await?;
    check_binlog(source, config, &variables, &mut findings);
    check_completion(source, config, &variables, &mut findings);
    galera::check(&config.source, &variables, &mut findings);
    kept::check(conn, config, &variables, &mut findings).await?;
    replica::check(source, conn, &variables, &mut findings).await?;
    check_grants(source, conn, config, &variables, &mut findings).await?;
    check_clock(conn, &mut findings).await?;
    server::check(source, conn, config, &variables, &mut findings).await?;
    tables::check(source, conn, config, &mut findings).await?;
    Ok(findings)
}

fn finding(
    severity: Severity,
    kind: ErrorKind,
    check: &str,
    found: impl Into<String>,
    needed: impl Into<String>,
    remedy: impl Into<String>,
) -> Finding {
    Finding {
        severity,
        check: check.to_owned(),
        found: found.into(),
        needed: needed.into(),
        remedy: remedy.into(),
        kind,
    }
}

fn too_old(flavor: Flavor, version: ServerVersion) -> Option<Finding> {
    let (name, least) = match flavor {
        Flavor::MySql => ("MySQL", ServerVersion(8, 0, 0)),
        Flavor::MariaDb => ("MariaDB", ServerVersion(10, 5, 0)),
    };
    (version < least).then(|| {
        finding(
            Severity::Error,
            ErrorKind::Unsupported,
            "version",
            format!("{name} {version}"),
            format!("{name} {least} or later"),
            format!("upgrade the server to {name} {least} or later"),
        )
    })
}

pub(super) type Variables = HashMap<String, String>;

pub(super) async fn variables(conn: &mut Conn) -> Result<Variables> {
    let rows = ask(
        conn,
        "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('log_bin', 'binlog_format', 'binlog_row_image', \
         'binlog_row_metadata', 'gtid_mode', 'enforce_gtid_consistency', 'log_replica_updates', 'log_slave_updates', \
         'binlog_expire_logs_seconds', 'binlog_expire_logs_auto_purge', 'expire_logs_days', 'server_id', 'wsrep_on', \
         'wsrep_gtid_mode')",
    )
    .await?
    .unwrap_or_default();
    Ok(rows
        .into_iter()
        .filter_map(|row| {
            let mut values = row.into_iter();
            Some((values.next()??.to_lowercase(), values.next()??))
        })
        .collect())
}

fn check_binlog(
    source: &Source,
    config: &PipeConfig,
    variables: &Variables,
    findings: &mut Vec<Finding>,
) {
    let get = |name: &str| variables.get(name).map(String::as_str);
    if get("log_bin") == Some("OFF") {
        findings.push(finding(
            Severity::Error,
            ErrorKind::SourceSetting,
            "log_bin",
            "OFF",
            "ON",
            "start the server with log_bin=binlog and a server_id",
        ));
        return;
    }
    let mut wants = |name: &str, wanted: &str, severity: Severity, besides: &str, set: String| {
        if let Some(found) = get(name)
            && found != wanted
        {
            findings.push(finding(
                severity,
                ErrorKind::SourceSetting,
                name,
                found,
                format!("{wanted}{besides}"),
                set,
            ));
        }
    };
    let set = |name: &str, value: &str| format!("SET GLOBAL {name} = '{value}'");
    let everywhere = ", in the server's configuration too; connections that are open keep theirs";
    wants(
        "binlog_format",
        "ROW",
        Severity::Error,
        everywhere,
        set("binlog_format", "ROW"),
    );
    // Other images cost a SELECT for each row that was changed in part.
    let (partial_images, or_complete) = match config.row_image {
        RowImage::Refuse => (Severity::Error, "; or `row_image: complete`"),
        RowImage::Complete => (Severity::Warning, ""),
    };
    wants(
        "binlog_row_image",
        "FULL",
        partial_images,
        &format!("{everywhere}{or_complete}"),
        set("binlog_row_image", "FULL"),
    );
    wants(
        "binlog_row_metadata",
        "FULL",
        Severity::Warning,
        ", in the server's configuration too",
        set("binlog_row_metadata", "FULL"),
    );
    if source.flavor() == Flavor::MySql && config.source.position == PositionMode::Gtid {
        wants(
            "gtid_mode",
            "ON",
            Severity::Error,
            ", in the server's configuration too; or `source.position: file`",
            to_gtids(variables),
        );
    }
}

/// The statements that lead MySQL to GTIDs, one after the other, from where it is.
fn to_gtids(variables: &Variables) -> String {
    let steps = ["OFF_PERMISSIVE", "ON_PERMISSIVE", "ON"];
    let get = |name: &str| variables.get(name).map(String::as_str);
    let mode = get("gtid_mode");
    let done = steps.iter().position(|step| Some(*step) == mode);
    let left = steps.iter().skip(done.map_or(0, |step| step + 1));
    let mut statements: Vec<String> = left
        .map(|step| format!("SET GLOBAL gtid_mode = {step}"))
        .collect();
    if get("enforce_gtid_consistency") != Some("ON") {
        statements.insert(0, "SET GLOBAL enforce_gtid_consistency = ON".to_owned());
    }
    statements.join("; ")
}

/// A row that is read again must be no older than its event, which only GTIDs can prove.
fn check_completion(
    source: &Source,
    config: &PipeConfig,
    variables: &Variables,
    findings: &mut Vec<Finding>,
) {
    let partial = variables
        .get("binlog_row_image")
        .is_some_and(|image| image != "FULL");
    let by_file = config.source.position == PositionMode::File || !source.has_gtid();
    if config.row_image == RowImage::Complete && partial && by_file {
        findings.push(finding(
            Severity::Error,
            ErrorKind::SourceSetting,
            "row_image",
            "complete, with places in binlog files",
            "whole images; or GTIDs and no `source.position: file`: without them nobody knows whether a row that is read \
             is older than its event",
            "SET GLOBAL binlog_row_image = 'FULL'",
        ));
    }
}

async fn check_grants(
    source: &Source,
    conn: &mut Conn,
    config: &PipeConfig,
    variables: &Variables,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let account = account(conn).await?;
    let (client, see_xa) = match source.flavor() {
        Flavor::MySql => ("REPLICATION CLIENT", Some("XA_RECOVER_ADMIN")),
        Flavor::MariaDb => ("BINLOG MONITOR", None),
    };
    let mut lacks = |severity: Severity, privilege: &str, found: &str| {
        findings.push(finding(
            severity,
            ErrorKind::SourceDenied,
            &privilege.to_lowercase().replace(' ', "_"),
            found,
            format!("{privilege} on *.*"),
            format!("GRANT {privilege} ON *.* TO {account}"),
        ));
    };
    if ask(conn, binlog_status_sql(source)).await?.is_none() {
        lacks(Severity::Error, client, "not granted");
    }
    let replicas = source.replicas(conn).await?;
    match source.flavor() {
        // The statement takes exactly the privilege that reading the binlog takes.
        Flavor::MySql if replicas.is_none() => {
            lacks(Severity::Error, "REPLICATION SLAVE", "not granted");
        }
        Flavor::MySql => {}
        // Here it takes another one, so the grants are read.
        Flavor::MariaDb => {
            if Grants::read(conn).await?.has("REPLICATION SLAVE", None) == Some(false) {
                lacks(Severity::Error, "REPLICATION SLAVE", "not granted");
            }
            if replicas.is_none() && config.source.server_id.is_some() {
                lacks(
                    Severity::Warning,
                    "REPLICATION MASTER ADMIN",
                    "not granted: nobody notices another replica that has the number in `source.server_id`",
                );
            }
        }
    }
    if ask(conn, "XA RECOVER").await?.is_none()
        && let Some(privilege) = see_xa
    {
        lacks(
            Severity::Warning,
            privilege,
            "not granted: rows of XA transactions that are prepared while the load starts may be missed",
        );
    }
    check_server_id(config, variables, &replicas.unwrap_or_default(), findings);
    Ok(())
}

/// Two replicas of one id push each other out of the server without end.
fn check_server_id(
    config: &PipeConfig,
    variables: &Variables,
    replicas: &[Registered],
    findings: &mut Vec<Finding>,
) {
    let Some(pinned) = config.source.server_id else {
        return;
    };
    let pinned = pinned.get();
    let own = reported_host(&config.pipe);
    let taken = replicas.iter().find(|replica| replica.server_id == pinned);
    let (severity, found) = match taken {
        _ if variables.get("server_id") == Some(&pinned.to_string()) => {
            (Severity::Error, format!("{pinned} is the source's own"))
        }
        // Its last connection, which the server has not missed yet, or itself at work.
        Some(replica) if replica.host == own => (
            Severity::Warning,
            format!("{pinned} is registered by a pipe of this name"),
        ),
        Some(replica) => (
            Severity::Error,
            format!("{pinned} is registered by a replica, `{}`", replica.host),
        ),
        None => return,
    };
    findings.push(finding(
        severity,
        ErrorKind::Config,
        "server_id",
        found,
        "a number that no other server or replica uses",
        "choose another `source.server_id`, or leave it out",
    ));
}

async fn check_clock(conn: &mut Conn, findings: &mut Vec<Finding>) -> Result<()> {
    let begin = Instant::now();
    let rows = ask(conn, "SELECT UNIX_TIMESTAMP(NOW(6))")
        .await?
        .unwrap_or_default();
    let trip = begin.elapsed().as_secs_f64();
    let theirs = rows
        .first()
        .and_then(|row| row.first()?.as_ref()?.parse::<f64>().ok());
    let (Some(theirs), Ok(ours)) = (theirs, SystemTime::now().duration_since(UNIX_EPOCH)) else {
        return Ok(());
    };
    let offset = theirs - ours.as_secs_f64();
    if offset.abs() > CLOCK_SECONDS + trip {
        findings.push(finding(
            Severity::Warning,
            ErrorKind::SourceSetting,
            "clock",
            format!("the source's clock is {offset:+.0} s from this machine's"),
            format!("within {CLOCK_SECONDS:.0} s"),
            "set both clocks by NTP; lag is measured between them, rows are not touched",
        ));
    }
    Ok(())
}

/// The account as GRANT writes it.
pub(super) async fn account(conn: &mut Conn) -> Result<String> {
    let rows = ask(conn, "SELECT CURRENT_USER()")
        .await?
        .unwrap_or_default();
    let name = rows
        .first()
        .and_then(|row| row.first()?.clone())
        .unwrap_or_default();
    let (user, host) = name.rsplit_once('@').unwrap_or((&name, "%"));
    Ok(format!(
        "'{}'@'{}'",
        user.replace('\'', "''"),
        host.replace('\'', "''")
    ))
}

/// The account's own grants as the server tells them; none where it refuses to.
pub(super) struct Grants(Option<Vec<String>>);

impl Grants {
    pub(super) async fn read(conn: &mut Conn) -> Result<Self> {
        let rows = ask(conn, "SHOW GRANTS").await?;
        Ok(Self(rows.map(|rows| {
            rows.into_iter()
                .filter_map(|row| row.into_iter().next().flatten())
                .collect()
        })))
    }

    /// Whether they give a privilege on everything or on `database`; none where a role or a pattern may give it.
    pub(super) fn has(&self, privilege: &str, database: Option<&str>) -> Option<bool> {
        let grants = self.0.as_ref()?;
        let objects: Vec<&str> = grants
            .iter()
            .filter_map(|grant| {
                let (privileges, rest) = grant.split_once(" ON ")?;
                let gives = privileges == "GRANT ALL PRIVILEGES"
                    || privileges
                        .trim_start_matches("GRANT ")
                        .split(", ")
                        .any(|one| one == privilege);
                rest.split_once(" TO ")
                    .filter(|_| gives)
                    .map(|(object, _)| object)
            })
            .collect();
        let here = database.map(|database| format!("{}.*", quote_identifier(database)));
        let granted = objects
            .iter()
            .any(|object| *object == "*.*" || here.as_deref() == Some(object));
        let patterns = here.is_some() && objects.iter().any(|object| object.contains(['%', '\\']));
        let roles = grants.iter().any(|grant| !grant.contains(" ON "));
        (granted || !(roles || patterns)).then_some(granted)
    }
}

/// The rows as text; none where the server refuses the statement.
pub(super) async fn ask(conn: &mut Conn, sql: &str) -> Result<Option<Vec<Vec<Option<String>>>>> {
    let texts = |row: Row| -> Vec<Option<String>> { row.unwrap().into_iter().map(text).collect() };
    let rows = ask_rows(conn, sql).await?;
    Ok(rows.map(|rows| rows.into_iter().map(texts).collect()))
}

/// The rows with their columns' names; none where the server refuses the statement.
pub(super) async fn ask_rows(conn: &mut Conn, sql: &str) -> Result<Option<Vec<Row>>> {
    match conn.query::<Row, _>(sql).await {
        Ok(rows) => Ok(Some(rows)),
        Err(error) => {
            let refused = matches!(error, mysql_async::Error::Server(_));
            let error = query_error(error);
            if refused && error.kind() != ErrorKind::SourceUnavailable {
                Ok(None)
            } else {
                Err(error)
            }
        }
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        other => Some(other.as_sql(true)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_older_than_the_oldest_of_its_family_is_refused() {
        let told = too_old(Flavor::MySql, ServerVersion(5, 7, 44)).expect("it is too old");
        assert_eq!(
            (told.check.as_str(), told.found.as_str()),
            ("version", "MySQL 5.7.44")
        );
        assert_eq!(told.needed, "MySQL 8.0.0 or later");
        assert_eq!(too_old(Flavor::MySql, ServerVersion(8, 0, 0)), None);
        assert!(too_old(Flavor::MariaDb, ServerVersion(10, 4, 34)).is_some());
        assert_eq!(too_old(Flavor::MariaDb, ServerVersion(10, 5, 0)), None);
    }

    #[test]
    fn gtids_are_reached_by_one_statement_a_step() {
        let steps = |mode: &str, enforced: &str| {
            to_gtids(&Variables::from([
                ("gtid_mode".to_owned(), mode.to_owned()),
                ("enforce_gtid_consistency".to_owned(), enforced.to_owned()),
            ]))
        };
        assert_eq!(
            steps("OFF", "WARN"),
            "SET GLOBAL enforce_gtid_consistency = ON; SET GLOBAL gtid_mode = OFF_PERMISSIVE; \
             SET GLOBAL gtid_mode = ON_PERMISSIVE; SET GLOBAL gtid_mode = ON"
        );
        assert_eq!(steps("ON_PERMISSIVE", "ON"), "SET GLOBAL gtid_mode = ON");
    }
}
