//! What Setup asks of the destination, all findings at once and nothing changed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;

use super::client::ClickHouse;
use super::ddl;
use super::failure::Doing;
use super::misfits::{Misfit, misfits};
use super::tables::{
    Existing, Owner, TARGETS_A_QUERY, in_the_way, is_fit_database, occupation, remedy,
};
use super::target::TargetTable;
use crate::config::{DdlAction, DdlPolicies, Engine, PipeConfig, TableConfig};
use crate::error::{Error, ErrorKind, Finding, Result, Severity};

/// What an account needs on the database; CREATE DATABASE only while there is none. The two DROPs are what
/// CREATE OR REPLACE VIEW asks for.
const PRIVILEGES: &[&str] = &[
    "SELECT",
    "INSERT",
    "CREATE TABLE",
    "CREATE VIEW",
    "DROP VIEW",
    "DROP TABLE",
    "ALTER ADD COLUMN",
    "ALTER MODIFY COMMENT",
];

/// What it needs besides to follow statements of the source in place, by what the pipe file wants of each kind.
fn altering(policies: DdlPolicies) -> Vec<&'static str> {
    let mut privileges = match policies.drop_column {
        DdlAction::Apply => vec!["ALTER DROP COLUMN"],
        // It takes NULL from then on, with what earlier rows show in it written out, and makes way for a later one of its name.
        DdlAction::Archive => vec!["ALTER MODIFY COLUMN", "ALTER RENAME COLUMN", "ALTER UPDATE"],
        DdlAction::Ignore | DdlAction::Quarantine => Vec::new(),
    };
    for (policy, privilege) in [
        (policies.rename_column, "ALTER RENAME COLUMN"),
        (policies.modify_column, "ALTER MODIFY COLUMN"),
    ] {
        if policy == DdlAction::Apply && !privileges.contains(&privilege) {
            privileges.push(privilege);
        }
    }
    privileges
}

#[derive(Deserialize)]
struct GrantRow {
    result: u8,
}

#[derive(Deserialize)]
struct ReplicaRow {
    readonly: u8,
}

#[derive(Deserialize)]
struct DiskRow {
    name: String,
    free: u64,
}

/// Less free space than this is used up by the merges of one table of ordinary size.
const DISK_FREE_BYTES: u64 = 1 << 30;

impl ClickHouse {
    /// Looks at account, grants, database, targets, views and partition expressions. An empty answer means that
    /// [`ClickHouse::ensure_database`] and [`ClickHouse::create_each`] will do. Changes nothing.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn preflight(
        &self,
        config: &PipeConfig,
        targets: &[TargetTable],
        owner: &Owner,
    ) -> Result<Vec<Finding>> {
        let appends = targets.iter().any(TargetTable::is_append);
        let mut findings = self.check_server(config, appends).await?;
        findings.extend(self.preflight_targets(targets, owner).await?);
        Ok(findings)
    }

    /// The same of targets alone.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn preflight_targets(
        &self,
        targets: &[TargetTable],
        owner: &Owner,
    ) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        check_names(targets, &mut findings);
        for targets in targets.chunks(TARGETS_A_QUERY) {
            let views: Vec<String> = targets.iter().map(TargetTable::view_name).collect();
            let names = targets.iter().map(TargetTable::name);
            let names: Vec<&str> = names.chain(views.iter().map(String::as_str)).collect();
            let existing = self.inspect_each(&names).await?;
            for target in targets {
                self.check_target(target, owner, &existing, &mut findings)
                    .await?;
            }
        }
        Ok(findings)
    }

    /// The same without targets, for a pipe whose tables nobody knows yet.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn preflight_server(&self, config: &PipeConfig) -> Result<Vec<Finding>> {
        let is_append = |entry: &TableConfig| entry.engine == Engine::Append;
        self.check_server(config, config.tables.iter().any(is_append))
            .await
    }

    async fn check_server(&self, config: &PipeConfig, appends: bool) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        findings.extend(unprotected(&config.destination.url));
        self.check_account(&mut findings).await?;
        self.check_disks(&mut findings).await?;
        let engine = self.check_database(&mut findings).await?;
        self.check_grants(engine.is_none(), appends, &mut findings)
            .await?;
        self.check_altering(config.ddl, &mut findings).await?;
        Ok(findings)
    }

    async fn check_disks(&self, findings: &mut Vec<Finding>) -> Result<()> {
        let doing = Doing::Definition("to look at disks");
        let disks: Vec<DiskRow> = match self.rows(ddl::disks(), doing).await {
            Ok(disks) => disks,
            // Some accounts may not ask.
            Err(error) if error.kind() == ErrorKind::DestinationDenied => return Ok(()),
            Err(error) => return Err(error),
        };
        findings.extend(disks.iter().filter_map(nearly_full));
        Ok(())
    }

    async fn check_database(&self, findings: &mut Vec<Finding>) -> Result<Option<String>> {
        let name = self.database();
        let reserved = ["system", "information_schema", "INFORMATION_SCHEMA"];
        let engine = self.database_engine().await?;
        let fit = engine.as_deref().is_none_or(is_fit_database);
        if reserved.contains(&name) || !fit {
            findings.push(Finding {
                severity: Severity::Error,
                check: "database".to_owned(),
                found: format!(
                    "database `{name}` with the engine {}",
                    engine.as_deref().unwrap_or("none")
                ),
                needed: "a database with the engine Atomic, Replicated or Shared".to_owned(),
                remedy: "set `destination.database` to another name; it is created when absent"
                    .to_owned(),
                kind: ErrorKind::DestinationRejected,
            });
        }
        Ok(engine)
    }

    async fn check_grants(
        &self,
        absent: bool,
        appends: bool,
        findings: &mut Vec<Finding>,
    ) -> Result<()> {
        let database = format!("{}.*", ddl::ident(self.database()));
        let engines = absent
            .then_some("Atomic")
            .into_iter()
            .chain(["ReplacingMergeTree"])
            .chain(appends.then_some("MergeTree"));
        let mut wanted: Vec<(&str, &str)> = absent
            .then_some(&"CREATE DATABASE")
            .into_iter()
            .chain(PRIVILEGES)
            // What was written beyond a checkpoint is taken out before a term is raised.
            .chain(appends.then_some(&"ALTER DELETE"))
            .map(|privilege| (*privilege, database.as_str()))
            .collect();
        wanted.extend(engines.map(|engine| ("TABLE ENGINE", engine)));
        let needed = "the grants with which tables are created and written".to_owned();
        match self.missing_grants(&wanted).await? {
            None => findings.push(Finding {
                needed,
                ..self.untold_grants(&wanted, &database)
            }),
            Some(missing) if missing.is_empty() => {}
            Some(missing) => findings.push(Finding {
                needed,
                ..self.without_grants(&missing)
            }),
        }
        Ok(())
    }

    /// A statement that may not be followed in place stops its table, and only when it comes.
    async fn check_altering(
        &self,
        policies: DdlPolicies,
        findings: &mut Vec<Finding>,
    ) -> Result<()> {
        let database = format!("{}.*", ddl::ident(self.database()));
        let wanted: Vec<(&str, &str)> = altering(policies)
            .into_iter()
            .map(|privilege| (privilege, database.as_str()))
            .collect();
        let missing = self.missing_grants(&wanted).await?.unwrap_or_default();
        if !missing.is_empty() {
            findings.push(Finding {
                severity: Severity::Warning,
                needed:
                    "the grants with which statements of the source are followed, as `ddl` has it"
                        .to_owned(),
                ..self.without_grants(&missing)
            });
        }
        Ok(())
    }

    /// Those privileges that the account lacks; none where nobody can tell.
    async fn missing_grants(&self, wanted: &[(&str, &str)]) -> Result<Option<Vec<String>>> {
        let mut missing = Vec::new();
        for (privilege, object) in wanted {
            let sql = ddl::check_grant(privilege, object);
            let answer: Result<Vec<GrantRow>> = self
                .rows(&sql, Doing::Definition("to look at grants"))
                .await;
            match answer {
                Ok(rows) if rows.first().is_some_and(|row| row.result == 0) => {
                    missing.push(format!("{privilege} ON {object}"));
                }
                Ok(_) => {}
                // Older servers have no CHECK GRANT; there the first statement tells.
                Err(error) if error.kind() == ErrorKind::DestinationRejected => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(missing))
    }

    /// Of a server that has no CHECK GRANT, or not for all of these.
    fn untold_grants(&self, wanted: &[(&str, &str)], database: &str) -> Finding {
        // What such a server may not know either is about no database.
        let about_it = wanted.iter().filter(|(_, object)| *object == database);
        let list: Vec<&str> = about_it.map(|(privilege, _)| *privilege).collect();
        let list = list.join(", ");
        let user = ddl::ident(self.user());
        Finding {
            severity: Severity::Warning,
            check: "grants".to_owned(),
            found: format!(
                "this ClickHouse refuses CHECK GRANT: nobody can tell beforehand what user {user} lacks"
            ),
            needed: String::new(),
            remedy: format!("GRANT {list} ON {database} TO {user}"),
            kind: ErrorKind::DestinationDenied,
        }
    }

    fn without_grants(&self, missing: &[String]) -> Finding {
        let list = missing.join(", ");
        Finding {
            severity: Severity::Error,
            check: "grants".to_owned(),
            found: format!("user `{}` lacks {list}", self.user()),
            needed: String::new(),
            remedy: format!("GRANT {list} TO {}", ddl::ident(self.user())),
            kind: ErrorKind::DestinationDenied,
        }
    }

    /// A replica that has lost Keeper takes no rows: the pipe waits for it.
    async fn check_replica(&self, target: &TargetTable, findings: &mut Vec<Finding>) -> Result<()> {
        let sql = ddl::replica(target);
        let doing = Doing::Definition("to look at replicas");
        let replicas: Vec<ReplicaRow> = match self.rows(&sql, doing).await {
            Ok(replicas) => replicas,
            // Some accounts may not ask.
            Err(error) if error.kind() == ErrorKind::DestinationDenied => return Ok(()),
            Err(error) => return Err(error),
        };
        if replicas.iter().any(|replica| replica.readonly != 0) {
            findings.push(Finding {
                severity: Severity::Warning,
                check: "replica".to_owned(),
                found: format!(
                    "table `{}`: target {} is read-only",
                    target.source(),
                    ddl::table(target)
                ),
                needed: "a replica with a session at Keeper, which takes rows".to_owned(),
                remedy: format!(
                    "see that Keeper answers, and what `zookeeper_exception` in system.replicas says; then SYSTEM RESTART \
                     REPLICA {}",
                    ddl::table(target)
                ),
                kind: ErrorKind::DestinationUnavailable,
            });
        }
        Ok(())
    }

    async fn check_target(
        &self,
        target: &TargetTable,
        owner: &Owner,
        existing: &Existing,
        findings: &mut Vec<Finding>,
    ) -> Result<()> {
        let view = existing.get(&target.view_name());
        if let Some(existing) = existing.get(target.name()) {
            if existing.engine.starts_with("Replicated") {
                self.check_replica(target, findings).await?;
            }
            match occupation(target, existing, owner) {
                Some(problem) => findings.push(finding(
                    "target_table",
                    "a target that is absent, empty or this pipe's own",
                    &problem,
                )),
                None => findings.extend(
                    misfits(target, existing)
                        .iter()
                        .map(|misfit| unfit(target, misfit)),
                ),
            }
        }
        if let Some(problem) = in_the_way(target, owner, view) {
            findings.push(finding(
                "current_view",
                "a free name for the view of current rows",
                &problem,
            ));
        }
        if let Some(expression) = target.partition_by() {
            let sql = ddl::probe_partition(target, expression);
            let doing = Doing::Definition("the expression of `partition_by`");
            match self.rows::<serde_json::Value>(&sql, doing).await {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::DestinationRejected => {
                    findings.push(Finding {
                        remedy: "correct `partition_by` in the pipe file".to_owned(),
                        kind: ErrorKind::Config,
                        ..finding(
                            "partition_by",
                            "an expression that ClickHouse can evaluate over the key columns",
                            &error.with_table(target.source()),
                        )
                    });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn nearly_full(disk: &DiskRow) -> Option<Finding> {
    (disk.free < DISK_FREE_BYTES).then(|| Finding {
        severity: Severity::Warning,
        check: "disk".to_owned(),
        found: format!(
            "disk `{}` of ClickHouse has {} MiB left",
            disk.name,
            disk.free >> 20
        ),
        needed: format!("{} MiB or more", DISK_FREE_BYTES >> 20),
        remedy: "free space on the disks of ClickHouse".to_owned(),
        kind: ErrorKind::DestinationUnavailable,
    })
}

/// A connection over a network that anybody on the way can read.
fn unprotected(url: &str) -> Option<Finding> {
    let url = reqwest::Url::parse(url).ok()?;
    let host = url.host_str()?;
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    let local = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    (url.scheme() == "http" && !local).then(|| Finding {
        severity: Severity::Warning,
        check: "destination_tls".to_owned(),
        found: "http: rows and password go over the network in the clear".to_owned(),
        needed: "https".to_owned(),
        remedy: "give `destination.url` as `https://host:port`, with ClickHouse's `https_port`, 8443 by default"
            .to_owned(),
        kind: ErrorKind::Config,
    })
}

fn finding(check: &str, needed: &str, problem: &Error) -> Finding {
    Finding {
        severity: Severity::Error,
        check: check.to_owned(),
        found: problem.to_string(),
        needed: needed.to_owned(),
        remedy: problem.hint().unwrap_or_default().to_owned(),
        kind: problem.kind(),
    }
}

/// One finding for each thing that does not fit, so that each is mended by its own statement.
fn unfit(target: &TargetTable, misfit: &Misfit) -> Finding {
    Finding {
        severity: Severity::Error,
        check: "target_table".to_owned(),
        found: format!(
            "table `{}`: target {} exists and does not fit: {}",
            target.source(),
            ddl::qualified(target.database(), target.name()),
            misfit.found
        ),
        needed: misfit.needed(),
        remedy: remedy(target, misfit),
        kind: ErrorKind::DestinationOccupied,
    }
}

/// Two targets of one name, or a target with the name of another's view.
fn check_names(targets: &[TargetTable], findings: &mut Vec<Finding>) {
    let mut taken: BTreeMap<String, &TargetTable> = BTreeMap::new();
    for target in targets {
        let names = [target.name().to_owned(), target.view_name()];
        if let Some(other) = names.iter().find_map(|name| taken.get(name)) {
            findings.push(Finding {
                severity: Severity::Error,
                check: "target_names".to_owned(),
                found: format!(
                    "tables `{}` and `{}` have the targets `{}` and `{}`, each with a view `..._current`",
                    other.source(),
                    target.source(),
                    other.name(),
                    target.name()
                ),
                needed: "a name of its own for each target and each view".to_owned(),
                remedy: "set `target` of one of them to another name".to_owned(),
                kind: ErrorKind::Config,
            });
        }
        for name in names {
            taken.entry(name).or_insert(target);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_warned_of_where_it_leaves_the_machine() {
        for url in [
            "http://ch.example.com:8123",
            "http://10.0.0.7:8123",
            "http://[2001:db8::7]:8123",
        ] {
            let warned = unprotected(url).expect(url);
            assert_eq!(warned.severity, Severity::Warning);
            assert!(warned.remedy.contains("https://"), "{}", warned.remedy);
        }
        for url in [
            "https://ch.example.com:8443",
            "http://localhost:8123",
            "http://127.0.0.1:8123",
            "http://[::1]:8123",
        ] {
            assert_eq!(unprotected(url), None, "{url}");
        }
    }

    #[test]
    fn a_nearly_full_disk_is_warned_of() {
        let disk = |free| DiskRow {
            name: "default".to_owned(),
            free,
        };
        let warned = nearly_full(&disk(100 << 20)).expect("100 MiB are little");
        assert_eq!(warned.severity, Severity::Warning);
        assert!(warned.found.contains("100 MiB"), "{}", warned.found);
        assert_eq!(nearly_full(&disk(2 << 30)), None);
    }
}
