//! A table of the shape of TPC-H's lineitem: 16 columns of numbers, decimals, dates and short texts.

use std::time::Instant;

use anyhow::{Context, Result};
use mysql_async::prelude::Queryable;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use testbed::harness::Source;

/// Rows of one INSERT: below the servers' default packet size.
const STEP: u64 = 10_000;

/// Connections that fill the table.
const WRITERS: u64 = 2;

pub(super) const CREATE: &str = "CREATE TABLE lineitem (
    l_orderkey INT NOT NULL, l_partkey INT NOT NULL, l_suppkey INT NOT NULL, l_linenumber INT NOT NULL,
    l_quantity DECIMAL(15,2) NOT NULL, l_extendedprice DECIMAL(15,2) NOT NULL, l_discount DECIMAL(15,2) NOT NULL,
    l_tax DECIMAL(15,2) NOT NULL, l_returnflag CHAR(1) NOT NULL, l_linestatus CHAR(1) NOT NULL, l_shipdate DATE NOT NULL,
    l_commitdate DATE NOT NULL, l_receiptdate DATE NOT NULL, l_shipinstruct CHAR(25) NOT NULL, l_shipmode CHAR(10) NOT NULL,
    l_comment VARCHAR(44) NOT NULL, PRIMARY KEY (l_orderkey, l_linenumber))";

/// The same columns in ClickHouse, without those that Pipewright adds: what a person would make for INSERT ... SELECT.
pub(super) const CREATE_PEER: &str = "(l_orderkey Int32, l_partkey Int32, l_suppkey Int32, l_linenumber Int32, \
    l_quantity Decimal(15,2), l_extendedprice Decimal(15,2), l_discount Decimal(15,2), l_tax Decimal(15,2), \
    l_returnflag String, l_linestatus String, l_shipdate Date32, l_commitdate Date32, l_receiptdate Date32, \
    l_shipinstruct String, l_shipmode String, l_comment String) ENGINE = MergeTree ORDER BY (l_orderkey, l_linenumber)";

const WORDS: [&str; 16] = [
    "carefully",
    "final",
    "deposits",
    "sleep",
    "furiously",
    "regular",
    "accounts",
    "haggle",
    "quickly",
    "bold",
    "ideas",
    "among",
    "the",
    "express",
    "packages",
    "boost",
];

/// Makes and fills the table, outside of the binlog.
pub(super) async fn fill(source: &Source, row_count: u64) -> Result<()> {
    source.execute(CREATE).await?;
    let started = Instant::now();
    let share = row_count.div_ceil(WRITERS);
    let writers: Vec<_> = (0..WRITERS)
        .map(|which| {
            let rows = which * share..row_count.min((which + 1) * share);
            tokio::spawn(write(source.clone(), rows.start, rows.end))
        })
        .collect();
    for writer in writers {
        writer.await.context("a writer panicked")??;
    }
    source.execute("ANALYZE TABLE lineitem").await?;
    eprintln!(
        "  {row_count} rows written in {:.1} s",
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

async fn write(source: Source, from: u64, until: u64) -> Result<()> {
    let mut conn = source.connect().await?;
    conn.query_drop("SET sql_log_bin = 0").await?;
    let mut generator = StdRng::seed_from_u64(from);
    let mut at = from;
    while at < until {
        let end = until.min(at + STEP);
        conn.query_drop(insert(at..end, &mut generator)).await?;
        at = end;
    }
    // The pool must not hand a connection out that does not log.
    conn.query_drop("SET sql_log_bin = 1").await?;
    Ok(())
}

/// One INSERT of these rows.
pub(super) fn insert(rows: std::ops::Range<u64>, generator: &mut StdRng) -> String {
    use std::fmt::Write;
    let mut sql = String::with_capacity(200 * (rows.end - rows.start) as usize);
    sql.push_str("INSERT INTO lineitem VALUES ");
    let first = rows.start;
    for n in rows {
        let separator = if n == first { "" } else { "," };
        let word = |generator: &mut StdRng| WORDS[generator.random_range(0..WORDS.len())];
        let (a, b, c) = (word(generator), word(generator), word(generator));
        let day = |generator: &mut StdRng| {
            format!(
                "199{}-{:02}-{:02}",
                generator.random_range(2..9),
                generator.random_range(1..13),
                generator.random_range(1..29)
            )
        };
        let (shipped, committed, received) = (day(generator), day(generator), day(generator));
        write!(
            sql,
            "{separator}({},{},{},{},{}.00,{}.{:02},0.{:02},0.0{},'{}','{}','{shipped}','{committed}','{received}','{}','{}','{a} {b} {c}')",
            n / 4 + 1,
            generator.random_range(1..200_000),
            generator.random_range(1..10_000),
            n % 4 + 1,
            generator.random_range(1..51),
            generator.random_range(900..105_000),
            generator.random_range(0..100),
            generator.random_range(0..11),
            generator.random_range(0..9),
            ["A", "N", "R"][generator.random_range(0..3)],
            ["F", "O"][generator.random_range(0..2)],
            ["DELIVER IN PERSON", "COLLECT COD", "NONE", "TAKE BACK RETURN"][generator.random_range(0..4)],
            ["AIR", "FOB", "MAIL", "RAIL", "REG AIR", "SHIP", "TRUCK"][generator.random_range(0..7)],
        )
        .expect("writing to a String does not fail");
    }
    sql
}
