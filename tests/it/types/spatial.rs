//! Geometries (pitfall 31), compared with the text that the source's own `ST_AsText` prints, coordinates in stored order.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use rand::Rng;
use testbed::SourceKind;
use testbed::harness::Stage;

use super::both_paths;
use crate::support::{CATCH_UP, Seed, on_all_sources, on_both_mariadbs, running};

on_both_mariadbs! {
    a_geometry_that_is_none_is_named: 240,
}

on_all_sources! {
    geometries_of_every_kind: 240,
    coordinates_of_every_size: 240,
}

async fn geometries_of_every_kind(kind: SourceKind) -> Result<()> {
    let wkt = |text: &str| format!("ST_GeomFromText('{text}')");
    let geographic = |text: &str| format!("ST_GeomFromText('{text}', 4326)");
    let line = wkt("LINESTRING(0 0,1.5 -2,1e100 -1e-100)");
    let polygon = wkt("POLYGON((0 0,10 0,10 10,0 0),(1 1,2 1,2 2,1 1))");
    let points = wkt("MULTIPOINT(1 2,3 4)");
    let lines = wkt("MULTILINESTRING((0 0,1 1),(2 2,3 3,4 5))");
    let polygons =
        wkt("MULTIPOLYGON(((0 0,9 0,9 9,0 0),(1 1,2 1,2 2,1 1)),((20 20,30 20,30 30,20 20)))");
    let mixed =
        wkt("GEOMETRYCOLLECTION(POINT(1 2),MULTIPOINT(3 4,5 6),POLYGON((0 0,1 0,1 1,0 0)))");
    let empty = wkt("GEOMETRYCOLLECTION EMPTY");
    let (point, place, way) = (
        wkt("POINT(-1.25 2)"),
        geographic("POINT(52.5 13.25)"),
        geographic("LINESTRING(1 2,-3 4)"),
    );
    // MariaDB's own functions make no collections within collections.
    let nested = match kind {
        SourceKind::MySql => wkt(
            "GEOMETRYCOLLECTION(GEOMETRYCOLLECTION(POINT(1 2)),GEOMETRYCOLLECTION EMPTY,LINESTRING(0 0,1 1))",
        ),
        SourceKind::MariaDb | SourceKind::MariaDb11 => empty.clone(),
    };
    both_paths(
        kind,
        "",
        &[
            (
                "GEOMETRY",
                &[
                    &point, &line, &polygon, &points, &lines, &polygons, &mixed, &empty, &nested,
                    &place, &way,
                ],
            ),
            ("POINT", &[&point, &place, "ST_GeomFromText('POINT(0 0)')"]),
            ("LINESTRING", &[&line, &way]),
            ("POLYGON", &[&polygon]),
            (
                "MULTIPOINT",
                &[&points, "ST_GeomFromText('MULTIPOINT(7 8)')"],
            ),
            ("MULTILINESTRING", &[&lines]),
            ("MULTIPOLYGON", &[&polygons]),
            ("GEOMETRYCOLLECTION", &[&mixed, &empty, &nested]),
        ],
    )
    .await
}

/// Every power of ten and random bit patterns: where exponents begin, which digits there are, what zero looks like.
async fn coordinates_of_every_size(kind: SourceKind) -> Result<()> {
    let mut numbers: Vec<f64> = vec![0.0, -0.0, f64::MAX, f64::MIN, f64::MIN_POSITIVE, 5e-324];
    for exponent in -30..30 {
        let power = 10f64.powi(exponent);
        numbers.extend([power, -power, 1.5 * power, 1.234_567_890_123_456_7 * power]);
    }
    let mut random = Seed::new("coordinates_of_every_size").generator(0);
    while numbers.len() < 3000 {
        let bits: u64 = random.random();
        let number = match numbers.len() % 3 {
            0 => f64::from_bits(bits),
            // Degrees, and small distances: what people store.
            1 => (bits >> 11) as f64 / (1u64 << 53) as f64 * 360.0 - 180.0,
            _ => (bits >> 11) as f64 / (1u64 << 53) as f64 * 10f64.powi((bits % 40) as i32 - 30),
        };
        if number.is_finite() {
            numbers.push(number);
        }
    }
    let lines: Vec<String> = numbers.chunks(100).map(line_of).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    both_paths(kind, "", &[("LINESTRING", &lines)]).await
}

/// A line whose points have the numbers as both coordinates, bit by bit.
fn line_of(numbers: &[f64]) -> String {
    let mut wkb = vec![1, 2, 0, 0, 0];
    wkb.extend((numbers.len() as u32).to_le_bytes());
    for number in numbers {
        wkb.extend(number.to_le_bytes());
        wkb.extend(number.to_le_bytes());
    }
    let mut hex = String::new();
    for byte in wkb {
        write!(hex, "{byte:02x}").expect("writing to a string does not fail");
    }
    format!("ST_GeomFromWKB(X'{hex}')")
}

/// MariaDB stores what is written as bytes, also with a byte too many, which no text would show.
async fn a_geometry_that_is_none_is_named(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, place GEOMETRY)",
            "INSERT INTO t VALUES (1, ST_GeomFromText('POINT(1 2)'))",
        ])
        .await?;
    let mut pipe = running(&stage, &["t"]).await?;
    stage
        .source
        .execute(
            "INSERT INTO t VALUES (2, X'000000000101000000000000000000F03F000000000000004099')",
        )
        .await?;
    let shown = pipe
        .wait_for("the broken geometry", CATCH_UP, |status| {
            status.to_string().contains("a geometry is broken")
        })
        .await?
        .to_string();
    for word in ["column `place`", "exclude_columns"] {
        ensure!(shown.contains(word), "no {word} in {shown}");
    }
    Ok(())
}
