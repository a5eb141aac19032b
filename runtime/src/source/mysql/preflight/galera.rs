//! A source that is a node of a Galera cluster: every node has a binlog of its own, and only under conditions do they
//! say the same (pitfall 91).

use super::{Variables, finding};
use crate::config::{PositionMode, SourceConfig};
use crate::error::{ErrorKind, Finding, Severity};

/// Looks at what makes the nodes' binlogs agree.
pub(super) fn check(config: &SourceConfig, variables: &Variables, findings: &mut Vec<Finding>) {
    let is_on = |name: &str| variables.get(name).is_some_and(|value| value == "ON");
    if !is_on("wsrep_on") {
        return;
    }
    if !is_on("log_slave_updates") {
        findings.push(finding(
            Severity::Error,
            ErrorKind::SourceSetting,
            "log_slave_updates",
            "OFF on a node of a Galera cluster, so that its binlog lacks what is written at the other nodes",
            "ON",
            "restart the node with log_slave_updates=ON",
        ));
    }
    if config.position == PositionMode::File {
        findings.push(finding(
            Severity::Error,
            ErrorKind::SourceSetting,
            "galera_position",
            "`source.position: file` on a node of a Galera cluster, where each node has files of its own",
            "positions that hold at every node",
            "set `source.position: gtid`",
        ));
    }
    if !is_on("wsrep_gtid_mode") {
        findings.push(finding(
            match config.hosts.is_empty() {
                true => Severity::Warning,
                false => Severity::Error,
            },
            ErrorKind::SourceSetting,
            "wsrep_gtid_mode",
            "OFF, so that each node of the cluster gives a transaction another GTID",
            "ON on all nodes, with one wsrep_gtid_domain_id and one server_id, before a pipe can go from one node to another",
            "set wsrep_gtid_mode=ON, the same wsrep_gtid_domain_id and the same server_id on all nodes, and restart them",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{HostPort, Secret, SourceType, TlsConfig, TlsMode};

    fn found(variables: &[(&str, &str)], position: PositionMode, hosts: usize) -> Vec<String> {
        let other = HostPort {
            host: "db2".into(),
            port: 3306,
        };
        let config = SourceConfig {
            source_type: SourceType::Mariadb,
            host: "db".into(),
            port: 3306,
            hosts: vec![other; hosts],
            user: "u".into(),
            password: Secret::default(),
            tls: TlsConfig {
                mode: TlsMode::Disabled,
                ca: None,
            },
            position,
            server_id: None,
        };
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let mut findings = Vec::new();
        check(&config, &variables, &mut findings);
        let told = findings
            .iter()
            .map(|finding| format!("{:?} {}", finding.severity, finding.check));
        told.collect()
    }

    /// pitfall 91: what a node of a cluster must be set to, and nothing of it elsewhere.
    #[test]
    fn a_node_of_a_cluster_logs_what_others_write_and_is_read_by_gtid() {
        let sound = [
            ("wsrep_on", "ON"),
            ("log_slave_updates", "ON"),
            ("wsrep_gtid_mode", "ON"),
        ];
        assert_eq!(found(&sound, PositionMode::Auto, 1), [""; 0]);
        let bare = [("wsrep_on", "ON"), ("log_slave_updates", "OFF")];
        assert_eq!(
            found(&bare, PositionMode::File, 0),
            [
                "Error log_slave_updates",
                "Error galera_position",
                "Warning wsrep_gtid_mode"
            ]
        );
        assert_eq!(
            found(&sound[..2], PositionMode::Auto, 1),
            ["Error wsrep_gtid_mode"]
        );
        let alone = [("wsrep_on", "OFF"), ("log_slave_updates", "OFF")];
        assert_eq!(found(&alone, PositionMode::File, 0), [""; 0]);
    }
}
