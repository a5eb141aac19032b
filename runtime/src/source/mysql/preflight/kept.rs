//! Whether the source keeps its binlog long enough: for a stop of a day, and for a load that breaks off and goes on.

use mysql_async::Conn;

use super::super::retention::{Expiry, expiry};
use super::{Variables, ask, finding};
use crate::batch::TableName;
use crate::config::{Mode, PipeConfig};
use crate::error::{ErrorKind, Finding, Result, Severity};

/// A stop of a day must be survivable.
const STOP_SECONDS: u64 = 86_400;

/// What a load reads in a second at the least, over a slow network or from a busy server.
const LOAD_BYTES_PER_SECOND: u64 = 10 << 20;

/// A load that breaks off in the middle, and waits for a person as long as it took, still finds its start.
const LOADS_KEPT: u64 = 3;

/// Looks at the server's setting and at the sizes of the tables.
pub(super) async fn check(
    conn: &mut Conn,
    config: &PipeConfig,
    variables: &Variables,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let Some(expiry) = expiry(variables) else {
        return Ok(());
    };
    let bytes = match config.mode {
        Mode::Cdc | Mode::Snapshot => size(conn, config).await?,
        Mode::CdcOnly => 0,
    };
    findings.extend(too_short(&expiry, bytes));
    Ok(())
}

/// The bytes of rows that a load reads, as the server estimates them.
async fn size(conn: &mut Conn, config: &PipeConfig) -> Result<u64> {
    let sql = "SELECT TABLE_SCHEMA, TABLE_NAME, DATA_LENGTH FROM information_schema.TABLES \
               WHERE DATA_LENGTH > 0 AND TABLE_SCHEMA NOT IN ('mysql', 'information_schema', 'performance_schema', 'sys')";
    let sized = |row: Vec<Option<String>>| {
        let mut cells = row.into_iter().flatten();
        let name = TableName::new(cells.next()?, cells.next()?);
        Some((name, cells.next()?.parse::<u64>().ok()?))
    };
    let rows = ask(conn, sql).await?.unwrap_or_default();
    let meant = |name: &TableName| config.tables.iter().any(|entry| entry.source.matches(name));
    let sizes = rows.into_iter().filter_map(sized);
    Ok(sizes
        .filter(|(name, _)| meant(name))
        .fold(0, |sum, (_, bytes)| sum.saturating_add(bytes)))
}

fn too_short(expiry: &Expiry, bytes: u64) -> Option<Finding> {
    let kept_seconds = expiry.keeps.as_secs();
    let load_seconds = bytes / LOAD_BYTES_PER_SECOND;
    let needed_seconds = load_seconds.saturating_mul(LOADS_KEPT).max(STOP_SECONDS);
    (kept_seconds < needed_seconds).then(|| {
        let load = match needed_seconds > STOP_SECONDS {
            true => format!(
                ", and the load of {} GiB may take {load_seconds} s",
                bytes >> 30
            ),
            false => String::new(),
        };
        finding(
            Severity::Warning,
            ErrorKind::SourceSetting,
            expiry.variable(),
            format!("{kept_seconds} s{load}"),
            format!("{needed_seconds} s or more, or 0"),
            expiry.statement(needed_seconds.max(3 * STOP_SECONDS)),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binlog_is_kept_for_a_day_and_for_three_loads() {
        let gib = |count: u64| count << 30;
        let day = STOP_SECONDS;
        let short = |variable: &str, kept: String, bytes| {
            let variables = Variables::from([(variable.to_owned(), kept)]);
            too_short(&expiry(&variables).expect("something is purged"), bytes)
        };
        let kept =
            |seconds: u64, bytes| short("binlog_expire_logs_seconds", seconds.to_string(), bytes);
        assert_eq!(kept(day, 0), None);
        assert!(kept(day - 1, 0).is_some());
        // 300 GiB are read within 8.5 hours, a third of a day and a bit.
        assert_eq!(kept(day, gib(280)), None);
        let told = kept(day, gib(300)).expect("three loads take longer than a day");
        assert!(told.found.contains("300 GiB may take 30720 s"), "{told:?}");
        assert!(told.needed.starts_with("92160 s"), "{told:?}");
        assert!(told.remedy.ends_with("= 259200"), "{told:?}");
        let told = kept(3 * day, gib(3000)).expect("so does a larger one");
        assert!(told.remedy.ends_with("= 921600"), "{told:?}");
        let told = short("expire_logs_days", "1".to_owned(), gib(300)).expect("by days too");
        assert_eq!(told.check, "expire_logs_days");
        assert_eq!(told.remedy, "SET GLOBAL expire_logs_days = 3");
    }
}
