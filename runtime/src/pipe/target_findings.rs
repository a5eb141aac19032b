//! What stands against the targets that rows are to go to, before anything is made.

use std::collections::{BTreeMap, BTreeSet};

use super::record::Records;
use super::session::LiveTable;
use super::setup::finding;
use super::table_state::TableState;
use crate::batch::{TableName, TableSchema};
use crate::error::{Error, ErrorKind, Finding, Severity};

/// Targets that two source tables would write to, among `tables` and those that are recorded already: versions and
/// TRUNCATE belong to one source table, and rows of another would win or vanish by them.
pub(super) fn shared(records: &Records, tables: &[LiveTable]) -> Vec<Finding> {
    let mut owners: BTreeMap<String, TableName> = BTreeMap::new();
    let bound: BTreeSet<&TableName> = tables.iter().map(|table| table.source.name()).collect();
    let unbound = |name: &TableName| !bound.contains(name);
    for (name, record) in records.tables.iter().filter(|(name, _)| unbound(name)) {
        if record.state != TableState::Removed {
            let targets = record.targets();
            owners.extend(targets.map(|target| (target.to_owned(), name.clone())));
        }
    }
    let mut findings = Vec::new();
    for table in tables {
        for target in table.targets() {
            let name = table.source.name();
            let owner = owners.insert(target.name().to_owned(), name.clone());
            if let Some(other) = owner.filter(|other| other != name) {
                let message = format!(
                    "its target `{}` is that of table `{other}` too",
                    target.name()
                );
                let error = Error::new(ErrorKind::Config, message)
                    .with_hint("give one of the two another `target`, or the plugin that sends rows there another name")
                    .with_table(name);
                findings.push(finding(&error));
            }
        }
    }
    findings
}

/// Targets of a plugin whose key leaves out a part of the source's, which the plugin alone can know to be right.
pub(super) fn narrower_keys(table: &LiveTable) -> Vec<Finding> {
    let outputs = table.chain.outputs().iter().zip(table.targets());
    let names = |schema: &TableSchema| -> Vec<String> {
        let key = schema.key.iter().map(|&place| &schema.columns[place].name);
        key.map(|name| format!("`{name}`")).collect()
    };
    let of_source = names(&table.source.schema);
    let mut findings = Vec::new();
    for (output, target) in outputs {
        let key = names(&output.schema);
        let mut left_out = of_source.clone();
        left_out.retain(|name| !key.contains(name));
        if left_out.is_empty() {
            continue;
        }
        let (left_out, key) = (left_out.join(", "), key.join(", "));
        findings.push(Finding {
            severity: Severity::Warning,
            check: "target_key".to_owned(),
            found: format!(
                "a plugin identifies the rows of target `{}` by {key}, without {left_out} of the key of `{}`",
                target.name(),
                table.source.name()
            ),
            needed: "a key that tells apart whatever the source's does: rows that are equal in it become one, and the \
                     delete of one takes the other along"
                .to_owned(),
            remedy: format!(
                "let the plugin declare a key with {left_out}, or make sure that {key} differs wherever {left_out} does; \
                 `pipewright plugin test` finds rows of a case that become one"
            ),
            kind: ErrorKind::PluginKey,
        });
    }
    findings
}
