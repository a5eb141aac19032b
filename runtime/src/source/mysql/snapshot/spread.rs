//! Many cuts at once where the order of values is known: two queries for a range, in place of two for each of its cuts.
//!
//! A table of 2,000,000 rows with a whole-number key took 19 cuts, one after the other, before its first row was read.

use super::answer::query;
use super::key_space::Space;
use super::partitions::{Planner, Segment};
use super::predicate::Comparison;
use crate::error::Result;

/// Aims of one query: its text stays short and EXPLAIN's answer small.
const MAX_AIMS: u32 = 64;

/// Fewer parts are found as fast by halving.
const MIN_PARTS: f64 = 4.0;

/// A key that exists, and the last one before it.
type Cut = (Vec<u8>, Vec<u8>);

impl Planner<'_> {
    /// Cuts a range at aims that are spread evenly over its values, and returns what comes behind its first part; empty
    /// where halving does as well. Where values are not spread evenly, the full parts are cut again.
    pub(super) async fn spread(&mut self, segment: &mut Segment) -> Result<Vec<Segment>> {
        let parts = (segment.rows / self.wanted).ceil();
        let Some(column) = self.columns.get(segment.prefix.len()) else {
            return Ok(Vec::new());
        };
        // The order of texts is the collation's, and aims may leave it.
        let ordered = matches!(
            column.space,
            Space::Integer | Space::Decimal { .. } | Space::Date | Space::DateTime
        );
        if !ordered || parts < MIN_PARTS {
            return Ok(Vec::new());
        }
        let parts = parts.min(f64::from(MAX_AIMS) + 1.0) as u32;
        let aims: Vec<String> = (1..parts)
            .filter_map(|part| {
                column
                    .space
                    .between(&segment.first, &segment.last, part, parts)
            })
            .collect();
        let cuts = self.cuts_at(segment, &aims).await?;
        let Some(bounds) = self.bounds(segment, &cuts) else {
            return Ok(Vec::new());
        };
        let estimates = self.estimates(&bounds).await?;
        Ok(self.pieces(segment, cuts, &estimates))
    }

    /// The first key from each aim on, each once.
    async fn cuts_at(&mut self, segment: &Segment, aims: &[String]) -> Result<Vec<Cut>> {
        let probes: Vec<String> = aims
            .iter()
            .filter_map(|aim| self.probes_around(segment, aim))
            .map(|(after, before)| format!("({after}), ({before})"))
            .collect();
        if probes.is_empty() {
            return Ok(Vec::new());
        }
        let rows = query(self.conn, &format!("SELECT {}", probes.join(", "))).await?;
        let mut cuts: Vec<Cut> = Vec::new();
        for found in rows.first().map_or(&[][..], Vec::as_slice).chunks(2) {
            let [Some(key), before] = found else {
                continue;
            };
            if cuts.last().is_none_or(|(known, _)| known != key) {
                let before = before.as_ref().unwrap_or(&segment.first);
                cuts.push((key.clone(), before.clone()));
            }
        }
        Ok(cuts)
    }

    /// The conditions of the parts between the cuts; none without a cut.
    fn bounds(&self, segment: &Segment, cuts: &[Cut]) -> Option<Vec<String>> {
        let space = &self.columns.get(segment.prefix.len())?.space;
        let mut literals = vec![space.literal(&segment.first)?];
        for (key, _) in cuts {
            literals.push(space.literal(key)?);
        }
        let last = space.literal(&segment.last)?;
        (!cuts.is_empty()).then(|| {
            (0..literals.len())
                .map(|index| {
                    let from = (Comparison::AtLeast, literals[index].as_str());
                    let until = match literals.get(index + 1) {
                        Some(next) => (Comparison::Less, next.as_str()),
                        None => (Comparison::AtMost, last.as_str()),
                    };
                    self.condition(&segment.prefix, &[from, until])
                })
                .collect()
        })
    }

    /// Makes the segment its own first part, and returns the others.
    fn pieces(
        &self,
        segment: &mut Segment,
        cuts: Vec<Cut>,
        estimates: &[Option<f64>],
    ) -> Vec<Segment> {
        let rows = spread_rows(estimates, segment.rows);
        let space = self
            .columns
            .get(segment.prefix.len())
            .map(|column| &column.space);
        let mut end = segment.last.clone();
        let mut pieces = Vec::with_capacity(cuts.len());
        for (index, (key, before)) in cuts.into_iter().enumerate().rev() {
            let mut tuple = segment.prefix.clone();
            tuple.extend(space.and_then(|space| space.literal(&key)));
            pieces.push(Segment {
                cut: Some(tuple),
                prefix: segment.prefix.clone(),
                first: key,
                last: std::mem::replace(&mut end, before),
                rows: rows.get(index + 1).copied().unwrap_or(0.0),
                slivers: 0,
                settled: false,
            });
        }
        segment.last = end;
        segment.rows = rows.first().copied().unwrap_or(segment.rows);
        segment.slivers = 0;
        pieces.reverse();
        pieces
    }
}

/// The dives' estimates brought to the known sum, as for two parts; a part without one counts as an even share.
fn spread_rows(estimates: &[Option<f64>], rows: f64) -> Vec<f64> {
    let even = rows / estimates.len().max(1) as f64;
    let known: Vec<f64> = estimates
        .iter()
        .map(|estimate| estimate.unwrap_or(even))
        .collect();
    let sum: f64 = known.iter().sum();
    if sum <= 0.0 {
        return vec![even; estimates.len()];
    }
    let scale = (rows / sum).max(0.5);
    known.into_iter().map(|rows| rows * scale).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_of_many_parts_are_brought_to_the_known_sum() {
        let rows = spread_rows(&[Some(10.0), Some(30.0), Some(20.0)], 120.0);
        assert_eq!(rows, [20.0, 60.0, 40.0]);
        assert_eq!(spread_rows(&[Some(50.0), None], 100.0), [50.0, 50.0]);
        assert_eq!(spread_rows(&[None, None], 100.0), [50.0, 50.0]);
        assert_eq!(spread_rows(&[Some(0.0), Some(0.0)], 8.0), [4.0, 4.0]);
    }
}
