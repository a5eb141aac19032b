//! How a table is cut without scanning it.
//!
//! The cuts are keys that exist: an aim between the first and the last key of a range is computed, the server finds the
//! next key from there on, and EXPLAIN's index dives say how many rows lie on either side; the fullest range is cut
//! next. So holes, skew and any collation cost probes and never correctness: neighbouring ranges have a cut in common,
//! the first and the last are open, and NULLs have one of their own, hence every row is in exactly one partition
//! whatever is written meanwhile. Where one leading value fills a range, the next column of the index cuts it
//! (pitfalls 121 to 124).

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row, Value};
use serde::{Deserialize, Serialize};

use super::super::catalog::{SourceColumn, SourceTable};
use super::super::connection::query_error;
use super::super::sql::{quote_identifier, quote_string, quote_table};
use super::super::{Flavor, ServerVersion, Source};
use super::key_space::{Alphabet, Space};
use super::predicate::{Comparison, KeyColumn, between};
use super::samples;
use crate::error::{Error, ErrorKind, Result};

/// More partitions than this only cost queries.
const MAX_PARTITIONS: usize = 1000;

/// An ENUM of more labels would make lists too long to be of use.
const MAX_LABELS: usize = 256;

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

/// What cuts: the leading columns of one index.
struct Key {
    index: String,
    columns: Vec<KeyColumn>,
    first: String,
    nullable: bool,
}

async fn choose_key(
    conn: &mut Conn,
    source: &Source,
    table: &SourceTable,
    split_by: Option<&str>,
) -> Result<Option<Key>> {
    let key: Vec<&str> = table
        .schema
        .key
        .iter()
        .filter_map(|&index| table.schema.columns.get(index))
        .map(|column| column.name.as_str())
        .collect();
    let Some(leading) = split_by.or(key.first().copied()) else {
        return Ok(None);
    };
    if column(table, leading).is_none() {
        return Err(Error::new(
            ErrorKind::SourceMissing,
            format!("`split_by` names column `{leading}`, which the table does not have"),
        )
        .with_table(table.name())
        .with_hint("name an indexed column of the table in `split_by`, or leave it out"));
    }
    let indexes = indexes(conn, source, table, leading).await?;
    // The index that agrees with the key furthest; among those the primary one.
    let best = indexes.into_iter().max_by_key(|(name, columns)| {
        let agreeing = columns
            .iter()
            .zip(&key)
            .take_while(|(a, b)| same(a, b))
            .count();
        (agreeing, name == "PRIMARY", columns.len())
    });
    let Some((index, names)) = best else {
        if split_by.is_some() {
            tracing::warn!(table = %table.name(), column = leading, "no index begins with `split_by`: the table is read as one partition");
        }
        return Ok(None);
    };
    let mut columns = Vec::new();
    for (position, name) in names.iter().enumerate() {
        let Some(column) = column(table, name) else {
            break;
        };
        if position > 0 && column.nullable {
            break;
        }
        let Some(space) = space(conn, table, column).await? else {
            break;
        };
        columns.push(KeyColumn {
            name: quote_identifier(&column.name),
            space,
        });
    }
    let Some(first) = column(table, leading).filter(|_| !columns.is_empty()) else {
        return Ok(None);
    };
    Ok(Some(Key {
        index,
        columns,
        first: first.name.clone(),
        nullable: first.nullable,
    }))
}

fn same(a: &str, b: &str) -> bool {
    a.to_lowercase() == b.to_lowercase()
}

fn column<'a>(table: &'a SourceTable, name: &str) -> Option<&'a SourceColumn> {
    table.columns.iter().find(|column| same(&column.name, name))
}

/// The ordered indexes that begin with `leading`, each with its columns up to the first that is a prefix (pitfall 120)
/// or an expression.
async fn indexes(
    conn: &mut Conn,
    source: &Source,
    table: &SourceTable,
    leading: &str,
) -> Result<Vec<(String, Vec<String>)>> {
    let usable = match source.flavor() {
        Flavor::MySql => " AND IS_VISIBLE = 'YES'",
        Flavor::MariaDb if source.version() >= ServerVersion(10, 6, 0) => " AND IGNORED = 'NO'",
        Flavor::MariaDb => "",
    };
    let sql = format!(
        "SELECT INDEX_NAME, COLUMN_NAME, SUB_PART FROM information_schema.STATISTICS \
         WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {} AND INDEX_TYPE = 'BTREE'{usable} \
         ORDER BY INDEX_NAME, SEQ_IN_INDEX",
        quote_string(&table.name().database),
        quote_string(&table.name().table)
    );
    let mut indexes: Vec<(String, Vec<String>, bool)> = Vec::new();
    for row in query(conn, &sql).await? {
        let [Some(index), column, prefix] = row.as_slice() else {
            continue;
        };
        let index = String::from_utf8_lossy(index).into_owned();
        if indexes.last().is_none_or(|(name, ..)| *name != index) {
            indexes.push((index, Vec::new(), true));
        }
        let Some((_, columns, open)) = indexes.last_mut() else {
            continue;
        };
        match (column, prefix) {
            (Some(column), None) if *open => {
                columns.push(String::from_utf8_lossy(column).into_owned());
            }
            _ => *open = false,
        }
    }
    Ok(indexes
        .into_iter()
        .filter(|(_, columns, _)| columns.first().is_some_and(|first| same(first, leading)))
        .map(|(name, columns, _)| (name, columns))
        .collect())
}

/// How a column's values are counted; none for a type that is not cut.
async fn space(
    conn: &mut Conn,
    table: &SourceTable,
    column: &SourceColumn,
) -> Result<Option<Space>> {
    let space = match column.data_type.as_str() {
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "year" => Space::Integer,
        "decimal" | "numeric" => {
            let whole = column
                .precision
                .unwrap_or(10)
                .saturating_sub(column.scale.unwrap_or(0));
            // 38 digits are what the arithmetic holds.
            let Some(room) = 38u8.checked_sub(whole) else {
                return Ok(None);
            };
            Space::Decimal {
                scale: u32::from(column.scale.unwrap_or(0).min(room)),
            }
        }
        "date" => Space::Date,
        "datetime" | "timestamp" => Space::DateTime,
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => {
            // The name goes into SQL as it is.
            let Some(charset) = column.charset.as_deref().filter(|name| word(name)) else {
                return Ok(None);
            };
            let collation = collation(conn, table, column).await?;
            let ranks = ranks(conn, charset, collation.as_deref()).await?;
            Space::Text(Alphabet::new(ranks, charset).of_collation(collation))
        }
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => Space::Bytes,
        "enum" if column.labels.len() <= MAX_LABELS => Space::Enum {
            labels: u32::try_from(column.labels.len()).unwrap_or(0),
        },
        _ => return Ok(None),
    };
    Ok(Some(space))
}

/// The column's collation; none where its name is no plain word.
async fn collation(
    conn: &mut Conn,
    table: &SourceTable,
    column: &SourceColumn,
) -> Result<Option<String>> {
    let sql = format!(
        "SELECT COLLATION_NAME FROM information_schema.COLUMNS \
         WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {} AND COLUMN_NAME = {}",
        quote_string(&table.name().database),
        quote_string(&table.name().table),
        quote_string(&column.name)
    );
    let name = value(query(conn, &sql).await?);
    Ok(name
        .and_then(|name| String::from_utf8(name).ok())
        .filter(|name| word(name)))
}

/// The ranks of printable ASCII in a collation; none where the server will not say.
async fn ranks(conn: &mut Conn, charset: &str, collation: Option<&str>) -> Result<Option<Vec<u8>>> {
    let Some(collation) = collation else {
        return Ok(None);
    };
    let characters: Vec<String> = (0x20u8..0x7f)
        .map(|byte| format!("SELECT x'{byte:02X}' AS c"))
        .collect();
    let sql = format!(
        "SELECT DENSE_RANK() OVER (ORDER BY CONVERT(CONVERT(c USING utf8mb4) USING {charset}) COLLATE {collation}) \
         FROM ({}) AS ascii ORDER BY HEX(c)",
        characters.join(" UNION ALL ")
    );
    let Ok(rows) = query(conn, &sql).await else {
        return Ok(None);
    };
    Ok(rows
        .into_iter()
        .map(|row| {
            String::from_utf8(row.into_iter().next()??)
                .ok()?
                .parse()
                .ok()
        })
        .collect())
}

fn word(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
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
struct Segment {
    /// Where it begins; the first is open.
    cut: Option<Vec<String>>,
    /// The leading values that all its rows share; the column after them cuts.
    prefix: Vec<String>,
    /// Its first and last value of that column, as the server sent them.
    first: Vec<u8>,
    last: Vec<u8>,
    rows: f64,
    /// How many cuts in a row have taken next to nothing off its beginning.
    slivers: u32,
    settled: bool,
}

struct Planner<'a> {
    conn: &'a mut Conn,
    table: String,
    index: String,
    columns: Vec<KeyColumn>,
    wanted: f64,
}

/// What a step did to a segment.
enum Step {
    Cut(Segment),
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
                Step::Cut(right) => segments.insert(index + 1, right),
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
        if segment.slivers < MAX_SLIVERS
            && let Some((key, before, share)) = self.find_cut(segment).await?
            && let Some(right) = self.divide(segment, key, before, share).await?
        {
            return Ok(Step::Cut(right));
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
        let Some((first, last)) = self.literals(segment) else {
            return Ok(None);
        };
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
        let (left, right) = shares(self.estimates(&left, &right).await?, segment.rows, share);
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

    fn condition(&self, prefix: &[String], bounds: &[(Comparison, &str)]) -> String {
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

    /// What the index dives say of two ranges; none where the optimizer would rather scan. Both in one UNION: on a
    /// lone SELECT with FORCE INDEX, MySQL leaves the dives out and guesses.
    async fn estimates(&mut self, left: &str, right: &str) -> Result<(Option<f64>, Option<f64>)> {
        let select = |condition: &str| {
            format!(
                "SELECT * FROM {} FORCE INDEX ({}) WHERE {condition}",
                self.table, self.index
            )
        };
        let sql = format!(
            "EXPLAIN FORMAT=TRADITIONAL {} UNION ALL {}",
            select(left),
            select(right)
        );
        let rows: Vec<Row> = self.conn.query(sql).await.map_err(query_error)?;
        let mut estimates = rows.iter().map(|row| {
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
        Ok((estimates.next().flatten(), estimates.next().flatten()))
    }
}

/// Rows on either side of a cut. InnoDB's dives say up to double of a long range, yet never more than half the table;
/// so only their ratio counts, as long as the sum known before is not far too low.
fn shares(estimates: (Option<f64>, Option<f64>), rows: f64, share: f64) -> (f64, f64) {
    match estimates {
        (Some(left), Some(right)) if left + right > 0.0 => {
            let scale = (rows / (left + right)).max(0.5);
            (left * scale, right * scale)
        }
        (Some(left), None) => (left.min(rows), (rows - left).max(0.0)),
        (None, Some(right)) => ((rows - right).max(0.0), right.min(rows)),
        _ => (rows * share, rows * (1.0 - share)),
    }
}

async fn query(conn: &mut Conn, sql: &str) -> Result<Vec<Vec<Option<Vec<u8>>>>> {
    Ok(texts(conn.query::<Row, _>(sql).await.map_err(query_error)?))
}

fn texts(rows: Vec<Row>) -> Vec<Vec<Option<Vec<u8>>>> {
    rows.into_iter()
        .map(|row| {
            row.unwrap()
                .into_iter()
                .map(|value| match value {
                    Value::NULL => None,
                    Value::Bytes(bytes) => Some(bytes),
                    other => Some(other.as_sql(true).into_bytes()),
                })
                .collect()
        })
        .collect()
}

fn value(rows: Vec<Vec<Option<Vec<u8>>>>) -> Option<Vec<u8>> {
    rows.into_iter().next()?.into_iter().next()?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_are_brought_to_the_known_sum_unless_that_is_far_too_low() {
        assert_eq!(shares((Some(50.0), Some(10.0)), 120.0, 0.5), (100.0, 20.0));
        assert_eq!(shares((Some(90.0), Some(90.0)), 100.0, 0.5), (50.0, 50.0));
        assert_eq!(shares((Some(90.0), Some(30.0)), 10.0, 0.5), (45.0, 15.0));
        assert_eq!(shares((None, Some(30.0)), 100.0, 0.5), (70.0, 30.0));
        assert_eq!(shares((None, None), 100.0, 0.25), (25.0, 75.0));
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
