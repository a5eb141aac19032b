//! Every type, by family: the same rows before the load and after it, so that both paths meet the same values.

mod columns;
mod families;
mod json;
mod labels;
mod large;
mod mariadb;
mod spatial;
mod vector;

use anyhow::{Result, ensure};
use mysql_async::prelude::Queryable;
use testbed::harness::Stage;
use testbed::{SourceKind, SourceOptions, SourceServer};

use self::families::{Column, Family};
use crate::support::{CATCH_UP, on_all_sources, running};

on_all_sources! {
    integers_of_every_width: 240,
    decimals_of_every_size: 240,
    floating_point_numbers_keep_every_bit: 240,
    bits_and_years: 240,
    dates_and_times_with_their_extremes: 240,
    zero_and_impossible_dates_are_null: 240,
    timestamps_are_moments_whatever_the_time_zone: 240,
    texts_in_utf8: 240,
    texts_in_other_charsets: 240,
    bytes_as_they_are: 240,
    enums_and_sets: 240,
    every_type_with_the_metadata_that_servers_write_by_default: 400,
}

/// Writes the same rows before the load and after it, in one table of these options and columns.
async fn both_paths(kind: SourceKind, options: &str, columns: &[Column<'_>]) -> Result<()> {
    of_family(kind, &Family::of(options, columns)).await
}

async fn of_family(kind: SourceKind, family: &Family) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    both_paths_on(&stage, std::slice::from_ref(family)).await
}

/// As [`both_paths`], with a table for each family: the first is `t`, and the others have numbers behind that.
async fn both_paths_on(stage: &Stage, families: &[Family]) -> Result<()> {
    let tables: Vec<(String, &Family)> = families
        .iter()
        .enumerate()
        .map(|(n, family)| {
            (
                if n == 0 {
                    "t".to_owned()
                } else {
                    format!("t{n}")
                },
                family,
            )
        })
        .collect();
    let mut conn = stage.source.connect().await?;
    conn.query_drop("SET sql_mode = 'NO_ENGINE_SUBSTITUTION'")
        .await?;
    for (table, family) in &tables {
        conn.query_drop(family.definition(table)).await?;
        for row in family.rows(table) {
            conn.query_drop(row).await?;
        }
    }
    let names: Vec<&str> = tables.iter().map(|(table, _)| table.as_str()).collect();
    let mut pipe = running(stage, &names).await?;
    for (table, family) in &tables {
        ensure!(stage.assert_same(table).await? == family.row_count() as u64);
        for row in family.rows(table) {
            conn.query_drop(row).await?;
        }
        // The same values once more, as the images of updates.
        for statement in family.moved(table) {
            conn.query_drop(statement).await?;
        }
    }
    drop(conn);
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    for (table, family) in &tables {
        ensure!(stage.assert_same(table).await? == 3 * family.row_count() as u64);
    }
    Ok(())
}

/// pitfall 46: what the servers tell of columns by default is signs and charsets (MySQL), or nothing (MariaDB); the rest
/// comes from what was recorded.
async fn every_type_with_the_metadata_that_servers_write_by_default(
    kind: SourceKind,
) -> Result<()> {
    let least = match kind {
        SourceKind::MySql => "MINIMAL",
        SourceKind::MariaDb | SourceKind::MariaDb11 => "NO_LOG",
    };
    // One setting for all sessions of a server, so the server is one's own.
    let stage = Stage::with_source(move || {
        let options = SourceOptions::new(kind);
        SourceServer::start(options.arg(format!("--binlog-row-metadata={least}")))
    })
    .await?;
    both_paths_on(&stage, &families::all(kind)).await
}

/// Pitfalls 8, 9 and 10: signs, three bytes, TINYINT(1), ZEROFILL.
async fn integers_of_every_width(kind: SourceKind) -> Result<()> {
    of_family(kind, &families::integers()).await
}

/// Pitfall 11.
async fn decimals_of_every_size(kind: SourceKind) -> Result<()> {
    of_family(kind, &families::decimals()).await
}

/// Pitfall 12.
async fn floating_point_numbers_keep_every_bit(kind: SourceKind) -> Result<()> {
    of_family(kind, &families::floating_points()).await
}

/// Pitfalls 7 and 13.
async fn bits_and_years(kind: SourceKind) -> Result<()> {
    of_family(kind, &families::bits_and_years()).await
}

/// Pitfalls 3 and 6: dates beyond the range are the nearest in it, times may be negative and longer than a day.
async fn dates_and_times_with_their_extremes(kind: SourceKind) -> Result<()> {
    of_family(kind, &families::dates_and_times()).await
}

/// Pitfalls 1 and 2.
async fn zero_and_impossible_dates_are_null(kind: SourceKind) -> Result<()> {
    of_family(kind, &families::zero_dates()).await
}

/// Pitfalls 4 and 5: a TIMESTAMP is a moment, a DATETIME a wall clock.
async fn timestamps_are_moments_whatever_the_time_zone(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute("CREATE TABLE t (id INT PRIMARY KEY, ts TIMESTAMP(3) NULL, dt DATETIME(3) NULL)")
        .await?;
    let mut conn = stage.source.connect().await?;
    let insert = |id: u32| {
        format!("INSERT INTO t VALUES ({id}, '2024-07-01 12:00:00.5', '2024-07-01 12:00:00.5')")
    };
    conn.query_drop("SET time_zone = '-07:00'").await?;
    conn.query_drop(insert(1)).await?;
    let mut pipe = running(&stage, &["t"]).await?;
    conn.query_drop(insert(2)).await?;
    conn.query_drop("SET time_zone = '+05:30'").await?;
    conn.query_drop(insert(3)).await?;
    conn.query_drop("SET time_zone = '+00:00'").await?;
    drop(conn);
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    stage.assert_same("t").await?;
    let text = |id: u32| {
        format!(
            "SELECT toString(ts) FROM `{}`.t_current WHERE id = {id}",
            stage.database
        )
    };
    ensure!(stage.clickhouse.query(&text(2)).await? == "2024-07-01 19:00:00.500000");
    ensure!(stage.clickhouse.query(&text(3)).await? == "2024-07-01 06:30:00.500000");
    Ok(())
}

/// Pitfalls 17 and 19.
async fn texts_in_utf8(kind: SourceKind) -> Result<()> {
    of_family(kind, &families::texts()).await
}

/// Pitfall 20.
async fn texts_in_other_charsets(kind: SourceKind) -> Result<()> {
    of_family(kind, &families::texts_in_other_charsets()).await
}

/// Pitfall 18.
async fn bytes_as_they_are(kind: SourceKind) -> Result<()> {
    of_family(kind, &families::bytes()).await
}

/// Pitfalls 14 and 16.
async fn enums_and_sets(kind: SourceKind) -> Result<()> {
    of_family(kind, &families::labels()).await
}
