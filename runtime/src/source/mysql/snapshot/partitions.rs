//! How a table is cut without scanning it.
//!
//! The cuts are keys that exist: an aim between the first and the last key of a range is computed, the server finds the
//! next key from there on, and EXPLAIN's index dives say how many rows lie on either side; the fullest range is cut
//! next. So holes, skew and any collation cost probes and never correctness: neighbouring ranges have a cut in common,
//! the first and the last are open, and NULLs have one of their own, hence every row is in exactly one partition
//! whatever is written meanwhile. Where one leading value fills a range, the next column of the index cuts it
//! (pitfalls 121 to 124).

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use serde::{Deserialize, Serialize};

use super::super::catalog::SourceTable;
use super::super::connection::query_error;
use super::super::sql::{quote_identifier, quote_string, quote_table};
use super::super::{Flavor, Source};
use super::answer::{query, texts, value};
use super::key_space::Space;
use super::predicate::{Comparison, KeyColumn, between};
use super::samples;
use super::split_key::choose_key;
use crate::error::Result;

/// More partitions than this only cost queries.
const MAX_PARTITIONS: usize = 1000;

/// A range is cut when it holds more rows than wanted by this share; estimates are no better.
const TOLERANCE: f64 = 0.25;

/// Where so many cuts in a row take next to nothing off a range, the aims do not fit its collation.
const MAX_SLIVERS: u32 = 16;

/// One part of a table's load. Kept in the state, so that a finished one is not read again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// From 0 on, in key order.
    pub number: u32,
    /// The condition of its rows, complete in itself.
    pub predicate: String,
    /// For people; holds no values.
    pub description: String,
}

/// Cuts `table` into partitions of about `rows_per_partition` rows, by `split_by` or else by its key. A table that no
/// index can cut is one partition.
///
/// # Errors
/// Failures of the queries; `SourceMissing` when `split_by` is no column of the table.
pub async fn plan_partitions(
    conn: &mut Conn,
    source: &Source,
    table: &SourceTable,
    split_by: Option<&str>,
    rows_per_partition: u32,
) -> Result<Vec<Partition>> {
    if source.flavor() == Flavor::MySql {
        // Else row estimates may be a day old.
        query(conn, "SET SESSION information_schema_stats_expiry = 0").await?;
    }
    let Some(key) = choose_key(conn, source, table, split_by).await? else {
        return Ok(whole());
    };
    let row_count = estimated_rows(conn, table).await?;
    let mut planner = Planner {
        conn,
        table: quote_table(table.name()),
        index: quote_identifier(&key.index),
        columns: key.columns,
        wanted: f64::from(rows_per_partition.max(1)).max(row_count / (MAX_PARTITIONS as f64 - 1.0)),
    };
    let cuts = planner.plan(row_count).await?;
    Ok(number(&planner.columns, &cuts, key.nullable, &key.first))
}

fn whole() -> Vec<Partition> {
    vec![Partition {
        number: 0,
        predicate: "TRUE".to_owned(),
        description: "the whole table".to_owned(),
    }]
}

fn number(
    columns: &[KeyColumn],
    cuts: &[Vec<String>],
    nullable: bool,
    first: &str,
) -> Vec<Partition> {
    if cuts.is_empty() {
        return whole();
    }
    let name = quote_identifier(first);
    let mut predicates = Vec::with_capacity(cuts.len() + 2);
    if nullable {
        predicates.push(format!("{name} IS NULL"));
    }
    predicates.push(between(columns, None, cuts.first().map(Vec::as_slice)));
    for (index, cut) in cuts.iter().enumerate() {
        predicates.push(between(
            columns,
            Some(cut),
            cuts.get(index + 1).map(Vec::as_slice),
        ));
    }
    let total = predicates.len();
    (0u32..)
        .zip(predicates)
        .map(|(number, predicate)| Partition {
            number,
            predicate,
            description: format!("part {} of {total} by {name}", number + 1),
        })
        .collect()
}

async fn estimated_rows(conn: &mut Conn, table: &SourceTable) -> Result<f64> {
    let sql = format!(
        "SELECT TABLE_ROWS FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {}",
        quote_string(&table.name().database),
        quote_string(&table.name().table)
    );
    Ok(value(query(conn, &sql).await?)
        .and_then(|raw| String::from_utf8(raw).ok()?.parse().ok())
        .unwrap_or(0.0))
}

/// A range of keys on its way to become a partition.
pub(super) struct Segment {
    /// Where it begins; the first is open.
    pub(super) cut: Option<Vec<String>>,
    /// The leading values that all its rows share; the column after them cuts.
    pub(super) prefix: Vec<String>,
    /// Its first and last value of that column, as the server sent them.
    pub(super) first: Vec<u8>,
    pub(super) last: Vec<u8>,
    pub(super) rows: f64,
    /// How many cuts in a row have taken next to nothing off its beginning.
    pub(super) slivers: u32,
    pub(super) settled: bool,
}

pub(super) struct Planner<'a> {
    pub(super) conn: &'a mut Conn,
    table: String,
    index: String,
    pub(super) columns: Vec<KeyColumn>,
    pub(super) wanted: f64,
}

/// What a step did to a segment.
enum Step {
    /// What is cut off its end.
    Cut(Vec<Segment>),
    Descended,
    Stuck,
}

impl Planner<'_> {
    /// The cuts in ascending order.
    async fn plan(&mut self, row_count: f64) -> Result<Vec<Vec<String>>> {
        if row_count <= self.wanted {
            return Ok(Vec::new());
        }
        let Some((first, last)) = self.ends(&[]).await? else {
            return Ok(Vec::new());
        };
        let mut segments = vec![Segment {
            cut: None,
            prefix: Vec::new(),
            first,
            last,
            rows: row_count,
            slivers: 0,
            settled: false,
        }];
        while segments.len() < MAX_PARTITIONS {
            let fullest = segments
                .iter()
                .enumerate()
                .filter(|(_, segment)| {
                    !segment.settled && segment.rows > self.wanted * (1.0 + TOLERANCE)
                })
                .max_by(|(_, a), (_, b)| a.rows.total_cmp(&b.rows))
                .map(|(index, _)| index);
            let Some(index) = fullest else { break };
            let Some(segment) = segments.get_mut(index) else {
                break;
            };
            match self.step(segment).await? {
                Step::Cut(behind) => drop(segments.splice(index + 1..index + 1, behind)),
                Step::Descended => {}
                Step::Stuck => segment.settled = true,
            }
        }
        Ok(self.merge(segments))
    }

    /// Leaves out the cuts between neighbours that are no more than wanted together.
    fn merge(&self, segments: Vec<Segment>) -> Vec<Vec<String>> {
        let mut cuts = Vec::new();
        let mut rows = 0.0;
        for segment in segments {
            if let Some(cut) = segment.cut
                && rows + segment.rows > self.wanted
            {
                cuts.push(cut);
                rows = 0.0;
            }
            rows += segment.rows;
        }
        cuts
    }

    async fn step(&mut self, segment: &mut Segment) -> Result<Step> {
        let behind = self.spread(segment).await?;
        if !behind.is_empty() {
            return Ok(Step::Cut(behind));
        }
        if segment.slivers < MAX_SLIVERS
            && let Some((key, before, share)) = self.find_cut(segment).await?
            && let Some(right) = self.divide(segment, key, before, share).await?
        {
            return Ok(Step::Cut(vec![right]));
        }
        self.descend(segment).await
    }

    /// A key to cut at, the last one before it, and the share of rows hoped for before it; none where the segment has
    /// a single value.
    async fn find_cut(&mut self, segment: &Segment) -> Result<Option<(Vec<u8>, Vec<u8>, f64)>> {
        let Some(column) = self.columns.get(segment.prefix.len()) else {
            return Ok(None);
        };
        let parts = (segment.rows / self.wanted - TOLERANCE)
            .ceil()
            .clamp(2.0, 1e6) as u32;
        let (first, last) = (&segment.first, &segment.last);
        let mut aims: Vec<(String, f64)> = [(parts / 2, parts), (1, 4), (3, 4), (1, 16)]
            .into_iter()
            .filter_map(|(part, parts)| {
                let aim = column.space.between(first, last, part, parts)?;
                Some((aim, f64::from(part) / f64::from(parts)))
            })
            .collect();
        aims.extend(
            column
                .space
                .behind(first, last)
                .into_iter()
                .map(|aim| (aim, 0.5)),
        );
        if let Space::Text(alphabet) = &column.space {
            let half = (parts / 2, parts);
            let aim = samples::aim(self.conn, alphabet, first, last, half).await?;
            aims.splice(
                ..0,
                aim.map(|aim| (aim, f64::from(half.0) / f64::from(half.1))),
            );
        }
        let mut sliver = None;
        for (aim, share) in aims {
            if let Some((key, before)) = self.probe_around(segment, &aim).await? {
                if before != *first {
                    return Ok(Some((key, before, share)));
                }
                sliver.get_or_insert((key, before, share));
            }
        }
        if sliver.is_none() {
            sliver = self
                .key_after_first(segment)
                .await?
                .map(|key| (key, first.clone(), 0.0));
        }
        Ok(sliver)
    }

    /// The first key from `aim` on and the last before it, within the segment; none when no key is left from there.
    async fn probe_around(
        &mut self,
        segment: &Segment,
        aim: &str,
    ) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let Some((after, before)) = self.probes_around(segment, aim) else {
            return Ok(None);
        };
        let rows = match self
            .conn
            .query::<Row, _>(format!("SELECT ({after}), ({before})"))
            .await
        {
            Ok(rows) => texts(rows),
            // An aim that the column's charset cannot hold hits nothing.
            Err(mysql_async::Error::Server(error))
                if matches!(error.code, 1267 | 1300 | 3854 | 3988) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(query_error(error)),
        };
        let Some([Some(key), before]) = rows.first().map(Vec::as_slice) else {
            return Ok(None);
        };
        let before = before.as_ref().unwrap_or(&segment.first);
        Ok(Some((key.clone(), before.clone())))
    }

    /// The queries for the first key from `aim` on and for the last before it, within the segment.
    pub(super) fn probes_around(&self, segment: &Segment, aim: &str) -> Option<(String, String)> {
        let (first, last) = self.literals(segment)?;
        let after = self.probe(
            &segment.prefix,
            &[
                (Comparison::Greater, &first),
                (Comparison::AtLeast, aim),
                (Comparison::AtMost, &last),
            ],
            "ASC",
        );
        let before = self.probe(
            &segment.prefix,
            &[
                (Comparison::AtLeast, &first),
                (Comparison::Less, aim),
                (Comparison::AtMost, &last),
            ],
            "DESC",
        );
        Some((after, before))
    }

    async fn key_after_first(&mut self, segment: &Segment) -> Result<Option<Vec<u8>>> {
        let Some((first, last)) = self.literals(segment) else {
            return Ok(None);
        };
        let sql = self.probe(
            &segment.prefix,
            &[(Comparison::Greater, &first), (Comparison::AtMost, &last)],
            "ASC",
        );
        Ok(value(query(self.conn, &sql).await?))
    }

    /// A segment's first and last value as literals.
    fn literals(&self, segment: &Segment) -> Option<(String, String)> {
        let space = &self.columns.get(segment.prefix.len())?.space;
        Some((
            space.literal(&segment.first)?,
            space.literal(&segment.last)?,
        ))
    }

    /// Makes two of a segment: up to `before`, and from `key` on, which is returned.
    async fn divide(
        &mut self,
        segment: &mut Segment,
        key: Vec<u8>,
        before: Vec<u8>,
        share: f64,
    ) -> Result<Option<Segment>> {
        let cut = self
            .columns
            .get(segment.prefix.len())
            .and_then(|column| column.space.literal(&key));
        let (Some(cut), Some((first, last))) = (cut, self.literals(segment)) else {
            return Ok(None);
        };
        let left = self.condition(
            &segment.prefix,
            &[(Comparison::AtLeast, &first), (Comparison::Less, &cut)],
        );
        let right = self.condition(
            &segment.prefix,
            &[(Comparison::AtLeast, &cut), (Comparison::AtMost, &last)],
        );
        let (left, right) = shares(&self.estimates(&[left, right]).await?, segment.rows, share);
        let mut tuple = segment.prefix.clone();
        tuple.push(cut);
        let slivers = if left < self.wanted / 16.0 {
            segment.slivers + 1
        } else {
            0
        };
        segment.rows = left;
        segment.slivers = 0;
        Ok(Some(Segment {
            cut: Some(tuple),
            prefix: segment.prefix.clone(),
            first: key,
            last: std::mem::replace(&mut segment.last, before),
            rows: right,
            slivers,
            settled: false,
        }))
    }

    /// Goes on with the next column where a segment has a single value in this one.
    async fn descend(&mut self, segment: &mut Segment) -> Result<Step> {
        let Some(literal) = self
            .columns
            .get(segment.prefix.len())
            .and_then(|column| column.space.literal(&segment.first))
        else {
            return Ok(Step::Stuck);
        };
        let mut prefix = segment.prefix.clone();
        prefix.push(literal);
        if prefix.len() >= self.columns.len() {
            return Ok(Step::Stuck);
        }
        let Some((first, last)) = self.ends(&prefix).await? else {
            return Ok(Step::Stuck);
        };
        segment.prefix = prefix;
        segment.first = first;
        segment.last = last;
        Ok(Step::Descended)
    }

    /// The first and the last value of the column after `prefix`.
    async fn ends(&mut self, prefix: &[String]) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let sql = format!(
            "SELECT ({}), ({})",
            self.probe(prefix, &[], "ASC"),
            self.probe(prefix, &[], "DESC")
        );
        let rows = query(self.conn, &sql).await?;
        match rows.first().map(Vec::as_slice) {
            Some([Some(first), Some(last)]) => Ok(Some((first.clone(), last.clone()))),
            _ => Ok(None),
        }
    }

    fn probe(&self, prefix: &[String], bounds: &[(Comparison, &str)], order: &str) -> String {
        let Some(column) = self.columns.get(prefix.len()) else {
            return "NULL".to_owned();
        };
        format!(
            "SELECT {} FROM {} FORCE INDEX ({}) WHERE {} ORDER BY {} {order} LIMIT 1",
            column.space.select(&column.name),
            self.table,
            self.index,
            self.condition(prefix, bounds),
            column.name
        )
    }

    pub(super) fn condition(&self, prefix: &[String], bounds: &[(Comparison, &str)]) -> String {
        let mut terms: Vec<String> = self
            .columns
            .iter()
            .zip(prefix)
            .map(|(column, literal)| column.compare(Comparison::Equal, literal))
            .collect();
        if let Some(column) = self.columns.get(prefix.len()) {
            terms.extend(
                bounds
                    .iter()
                    .map(|&(comparison, literal)| column.compare(comparison, literal)),
            );
            if bounds.is_empty() {
                terms.push(format!("{} IS NOT NULL", column.name));
            }
        }
        terms.join(" AND ")
    }

    /// What the index dives say of some ranges; none where the optimizer would rather scan. All in one UNION: on a lone
    /// SELECT with FORCE INDEX, MySQL leaves the dives out and guesses.
    pub(super) async fn estimates(&mut self, ranges: &[String]) -> Result<Vec<Option<f64>>> {
        let selects: Vec<String> = ranges
            .iter()
            .map(|condition| {
                format!(
                    "SELECT * FROM {} FORCE INDEX ({}) WHERE {condition}",
                    self.table, self.index
                )
            })
            .collect();
        let sql = format!("EXPLAIN FORMAT=TRADITIONAL {}", selects.join(" UNION ALL "));
        let rows: Vec<Row> = self.conn.query(sql).await.map_err(query_error)?;
        let estimates = rows.iter().take(ranges.len()).map(|row| {
            let text = |name: &str| {
                row.get_opt::<Option<String>, _>(name)
                    .and_then(std::result::Result::ok)
                    .flatten()
            };
            match text("type").as_deref() {
                Some("ALL" | "index") => None,
                _ => Some(
                    text("rows")
                        .and_then(|rows| rows.parse().ok())
                        .unwrap_or(0.0),
                ),
            }
        });
        Ok(estimates.collect())
    }
}

/// Rows on either side of a cut. InnoDB's dives say up to double of a long range, yet never more than half the table;
/// so only their ratio counts, as long as the sum known before is not far too low.
fn shares(estimates: &[Option<f64>], rows: f64, share: f64) -> (f64, f64) {
    match *estimates {
        [Some(left), Some(right)] if left + right > 0.0 => {
            let scale = (rows / (left + right)).max(0.5);
            (left * scale, right * scale)
        }
        [Some(left), None] => (left.min(rows), (rows - left).max(0.0)),
        [None, Some(right)] => ((rows - right).max(0.0), right.min(rows)),
        _ => (rows * share, rows * (1.0 - share)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_are_brought_to_the_known_sum_unless_that_is_far_too_low() {
        assert_eq!(shares(&[Some(50.0), Some(10.0)], 120.0, 0.5), (100.0, 20.0));
        assert_eq!(shares(&[Some(90.0), Some(90.0)], 100.0, 0.5), (50.0, 50.0));
        assert_eq!(shares(&[Some(90.0), Some(30.0)], 10.0, 0.5), (45.0, 15.0));
        assert_eq!(shares(&[None, Some(30.0)], 100.0, 0.5), (70.0, 30.0));
        assert_eq!(shares(&[None, None], 100.0, 0.25), (25.0, 75.0));
    }

    #[test]
    fn a_nullable_column_gives_its_nulls_a_partition_of_their_own() {
        let columns = [KeyColumn {
            name: "`a`".to_owned(),
            space: Space::Integer,
        }];
        let predicates = |nullable, cuts: &[Vec<String>]| -> Vec<String> {
            number(&columns, cuts, nullable, "a")
                .into_iter()
                .map(|p| p.predicate)
                .collect()
        };
        let cuts = [vec!["5".to_owned()]];
        assert_eq!(
            predicates(true, &cuts),
            ["`a` IS NULL", "`a` < 5", "`a` >= 5"]
        );
        assert_eq!(predicates(false, &cuts), ["`a` < 5", "`a` >= 5"]);
        assert_eq!(predicates(true, &[]), ["TRUE"]);
    }

    #[test]
    fn a_partition_survives_the_state_store() {
        let partition = whole().remove(0);
        let text = serde_json::to_string(&partition).unwrap();
        assert_eq!(serde_json::from_str::<Partition>(&text).unwrap(), partition);
    }
}
