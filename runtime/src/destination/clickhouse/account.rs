//! What the account may do beyond its grants: settings that it may not change, and quotas.

use serde::Deserialize;

use super::client::ClickHouse;
use super::ddl;
use super::failure::Doing;
use super::writer;
use crate::error::{ErrorKind, Finding, Result, Severity};

/// What is sent with statements and questions, beside what an insert is sent with.
const OTHER_SETTINGS: &[(&str, &str)] = &[
    ("output_format_json_quote_64bit_integers", "0"),
    ("enable_time_time64_type", "1"),
];

#[derive(Deserialize)]
struct ReadonlyRow {
    readonly: u8,
}

#[derive(Deserialize)]
struct SettingRow {
    name: String,
    value: String,
    fixed: u8,
    least: Option<String>,
    most: Option<String>,
}

/// The limits of one quota over one interval; none where there is no limit.
#[derive(Deserialize)]
struct QuotaRow {
    name: String,
    seconds: u64,
    queries: Option<u64>,
    query_inserts: Option<u64>,
    errors: Option<u64>,
    written_bytes: Option<u64>,
    execution_time: Option<f64>,
}

impl ClickHouse {
    /// Finds what keeps the account from writing, or will.
    pub(super) async fn check_account(&self, findings: &mut Vec<Finding>) -> Result<()> {
        if !self.check_readonly(findings).await? {
            self.check_settings(findings).await?;
        }
        self.check_quotas(findings).await
    }

    /// With `readonly = 1` nothing of ours gets this far; with 2 questions are answered and rows are not taken.
    async fn check_readonly(&self, findings: &mut Vec<Finding>) -> Result<bool> {
        let doing = Doing::Definition("to look at settings");
        let rows: Vec<ReadonlyRow> = self.rows(ddl::readonly(), doing).await?;
        let readonly = rows.first().map_or(0, |row| row.readonly);
        if readonly != 0 {
            findings.push(Finding {
                severity: Severity::Error,
                check: "readonly".to_owned(),
                found: format!("user `{}` has readonly = {readonly}", self.user()),
                needed: "an account that may write, this one or another in `destination.user`"
                    .to_owned(),
                remedy: format!(
                    "ALTER USER {} SETTINGS readonly = 0",
                    ddl::ident(self.user())
                ),
                kind: ErrorKind::DestinationDenied,
            });
        }
        Ok(readonly != 0)
    }

    /// A setting that an insert is sent with and the account may not change refuses the insert.
    async fn check_settings(&self, findings: &mut Vec<Finding>) -> Result<()> {
        let wanted = || writer::SETTINGS.iter().chain(OTHER_SETTINGS);
        let sql = ddl::settings_of_account(wanted().map(|(name, _)| *name));
        let doing = Doing::Definition("to look at settings");
        let rows: Vec<SettingRow> = match self.rows(&sql, doing).await {
            Ok(rows) => rows,
            Err(error) if is_kept_secret(error.kind()) => return Ok(()),
            Err(error) => return Err(error),
        };
        for row in rows {
            let wanted = wanted().find(|(name, _)| *name == row.name);
            let Some((name, value)) = wanted.filter(|(_, value)| row.refuses(value)) else {
                continue;
            };
            findings.push(Finding {
                severity: Severity::Error,
                check: "settings".to_owned(),
                found: format!("user `{}` may not set {name} = {value}", self.user()),
                needed: format!(
                    "{name} = {value} with each insert: by the account, or without the constraint of its settings profile"
                ),
                remedy: format!(
                    "ALTER USER {} SETTINGS {name} = {value}",
                    ddl::ident(self.user())
                ),
                kind: ErrorKind::DestinationDenied,
            });
        }
        Ok(())
    }

    /// A pipe writes again and again, for as long as it runs.
    async fn check_quotas(&self, findings: &mut Vec<Finding>) -> Result<()> {
        let doing = Doing::Definition("to look at quotas");
        let rows: Vec<QuotaRow> = match self.rows(ddl::quotas_of_account(), doing).await {
            Ok(rows) => rows,
            Err(error) if is_kept_secret(error.kind()) => return Ok(()),
            Err(error) => return Err(error),
        };
        findings.extend(rows.iter().filter_map(limited));
        Ok(())
    }
}

/// Some accounts may not ask, and older servers have other columns.
fn is_kept_secret(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::DestinationDenied | ErrorKind::DestinationRejected
    )
}

impl SettingRow {
    /// Whether the account may not give the setting this value.
    fn refuses(&self, wanted: &str) -> bool {
        let number = |text: &Option<String>| text.as_ref()?.parse::<f64>().ok();
        let is_below = |most: f64| wanted.parse::<f64>().is_ok_and(|wanted| wanted > most);
        let is_above = |least: f64| wanted.parse::<f64>().is_ok_and(|wanted| wanted < least);
        self.value != wanted
            && (self.fixed != 0
                || number(&self.most).is_some_and(is_below)
                || number(&self.least).is_some_and(is_above))
    }
}

fn limited(quota: &QuotaRow) -> Option<Finding> {
    let limits: Vec<String> = [
        ("queries", quota.queries),
        ("inserts", quota.query_inserts),
        ("errors", quota.errors),
        ("written bytes", quota.written_bytes),
        (
            "seconds of work",
            quota.execution_time.map(|seconds| seconds as u64),
        ),
    ]
    .into_iter()
    .filter_map(|(what, most)| Some(format!("{} {what}", most?)))
    .collect();
    (!limits.is_empty()).then(|| Finding {
        severity: Severity::Warning,
        check: "quota".to_owned(),
        found: format!(
            "quota `{}` allows {} in {} s",
            quota.name,
            limits.join(", "),
            quota.seconds
        ),
        needed: "an account, this one or another in `destination.user`, whose queries, inserts and written bytes are not \
                 counted; beyond a limit the pipe waits"
            .to_owned(),
        remedy: format!(
            "ALTER QUOTA {} FOR INTERVAL {} SECOND NO LIMITS",
            ddl::ident(&quota.name),
            quota.seconds
        ),
        kind: ErrorKind::DestinationDenied,
    })
}

#[cfg(test)]
#[path = "account_tests.rs"]
mod tests;
