//! How many values declared policies have changed, by column: counted where the change is made, kept with the checkpoint
//! or the finished partition whose rows they were in.
//!
//! So a restart neither loses a count nor doubles it: rows that are read or replayed again were not counted before.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::faults::FaultCounts;
use super::record::Records;
use crate::batch::{Adjustment, Policy, TableName};
use crate::destination::clickhouse::Durable;
use crate::transform::Fault;

/// The counts of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueCounts(BTreeMap<String, BTreeMap<Policy, u64>>);

impl ValueCounts {
    /// Adds what was changed.
    pub fn add(&mut self, changed: &[Adjustment]) {
        for Adjustment {
            column,
            policy,
            values,
        } in changed
        {
            let policies = match self.0.get_mut(column) {
                Some(policies) => policies,
                None => self.0.entry(column.clone()).or_default(),
            };
            *policies.entry(*policy).or_default() += values;
        }
    }

    /// Adds another table's part.
    pub fn merge(&mut self, other: &Self) {
        self.add(&other.iter().collect::<Vec<_>>());
    }

    /// Column, policy and number of values, in order.
    pub fn iter(&self) -> impl Iterator<Item = Adjustment> + '_ {
        self.0.iter().flat_map(|(column, policies)| {
            policies.iter().map(|(policy, values)| Adjustment {
                column: column.clone(),
                policy: *policy,
                values: *values,
            })
        })
    }

    /// Whether nothing was changed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Records {
    /// Adds what policies changed in rows of `table` that are durable now.
    pub(super) fn add_values(&mut self, table: &TableName, changed: &ValueCounts) {
        if !changed.is_empty() {
            self.values.entry(table.clone()).or_default().merge(changed);
        }
    }
}

/// What was changed in partitions that are not finished: it counts when they are.
#[derive(Debug, Default)]
pub(super) struct Unfinished {
    values: BTreeMap<u32, ValueCounts>,
    /// Bytes sent since the last partition was finished.
    bytes: u64,
    faults: BTreeMap<u32, FaultCounts>,
}

impl Unfinished {
    /// Takes what was changed in one insert, of whose batches each belongs to a partition.
    pub(super) fn inserted(&mut self, partitions: &[u32], durable: &Durable) {
        self.bytes += durable.bytes();
        for (batch, partition) in partitions.iter().enumerate() {
            self.add(*partition, durable.adjustments(batch));
        }
    }

    /// Takes what was changed in a part of a partition.
    pub(super) fn add(&mut self, partition: u32, changed: &[Adjustment]) {
        if !changed.is_empty() {
            self.values.entry(partition).or_default().add(changed);
        }
    }

    /// What was changed in a partition that is finished.
    pub(super) fn take(&mut self, partition: u32) -> ValueCounts {
        self.values.remove(&partition).unwrap_or_default()
    }

    /// The bytes that were sent since this was last asked.
    pub(super) fn take_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.bytes)
    }

    /// Takes the rows of a part of a partition that plugins failed on.
    pub(super) fn add_faults(&mut self, partition: u32, faults: &[Fault]) {
        if !faults.is_empty() {
            self.faults.entry(partition).or_default().add(faults);
        }
    }

    /// The rows that plugins failed on in a partition that is finished.
    pub(super) fn take_faults(&mut self, partition: u32) -> FaultCounts {
        self.faults.remove(&partition).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(column: &str, policy: Policy, values: u64) -> Adjustment {
        Adjustment {
            column: column.to_owned(),
            policy,
            values,
        }
    }

    #[test]
    fn counts_add_up_by_column_and_policy() {
        let mut counts = ValueCounts::default();
        counts.add(&[changed("b", Policy::Json, 2), changed("a", Policy::Set, 1)]);
        let mut other = ValueCounts::default();
        other.add(&[
            changed("b", Policy::Json, 3),
            changed("b", Policy::NullAsDefault, 1),
        ]);
        counts.merge(&other);
        let all: Vec<Adjustment> = counts.iter().collect();
        assert_eq!(
            all,
            [
                changed("a", Policy::Set, 1),
                changed("b", Policy::NullAsDefault, 1),
                changed("b", Policy::Json, 5),
            ]
        );
    }

    #[test]
    fn counts_outlive_a_restart() {
        let mut counts = ValueCounts::default();
        counts.add(&[changed("a", Policy::ZeroDates, 7)]);
        let text = serde_json::to_string(&counts).expect("JSON");
        let again: ValueCounts = serde_json::from_str(&text).expect("what was written");
        assert_eq!(again, counts);
    }

    #[test]
    fn a_partition_counts_once_it_is_finished() {
        let mut unfinished = Unfinished::default();
        unfinished.add(1, &[changed("a", Policy::Set, 1)]);
        unfinished.add(2, &[changed("a", Policy::Set, 10)]);
        unfinished.add(1, &[changed("a", Policy::Set, 2)]);
        let first: Vec<Adjustment> = unfinished.take(1).iter().collect();
        assert_eq!(first, [changed("a", Policy::Set, 3)]);
        assert!(unfinished.take(1).is_empty());
        assert!(!unfinished.take(2).is_empty());
    }
}
