//! Dates and times, those that no calendar has among them.

use std::fmt::Write;

use rand::Rng;
use rand::rngs::StdRng;

use super::columns::{Column, column, once_in, pick};
use super::server::Server;
use crate::SourceKind;

/// A day of the calendar between these years.
fn day(random: &mut StdRng, years: std::ops::RangeInclusive<u32>) -> String {
    let year = random.random_range(years);
    format!(
        "{year:04}-{:02}-{:02}",
        random.random_range(1..=12),
        random.random_range(1..=28)
    )
}

/// A day, or once in a while one without a day, a month or anything, or one that its month lacks.
fn day_or_none(random: &mut StdRng) -> String {
    let year = random.random_range(1000..=9999);
    let month = random.random_range(1..=12);
    match random.random_range(0..16) {
        0 => "0000-00-00".to_owned(),
        1 => format!("{year:04}-00-00"),
        2 => format!("{year:04}-{month:02}-00"),
        3 => format!("{year:04}-00-{:02}", random.random_range(1..=28)),
        4 => format!("{year:04}-02-30"),
        5 => pick(
            random,
            &["1000-01-01", "9999-12-31", "1969-12-31", "2024-02-29"],
        )
        .to_owned(),
        _ => day(random, 1000..=9999),
    }
}

fn clock(random: &mut StdRng, hours: u32, digits: u8) -> String {
    let mut text = format!(
        "{:02}:{:02}:{:02}",
        random.random_range(0..=hours),
        random.random_range(0..60),
        random.random_range(0..60)
    );
    if digits > 0 {
        let fraction = match once_in(random, 4) {
            true => 10u32.pow(digits.into()) - 1,
            false => random.random_range(0..10u32.pow(digits.into())),
        };
        write!(text, ".{fraction:0width$}", width = digits.into()).expect("a String takes it");
    }
    text
}

pub(super) fn date(_: &mut StdRng, _: &Server) -> Column {
    column("DATE", |random| format!("'{}'", day_or_none(random)))
}

/// A DATE of a key, which is one that ClickHouse has.
pub(super) fn key_date(_: &mut StdRng, _: &Server) -> Column {
    column("DATE", |random| format!("'{}'", day(random, 1900..=2299)))
}

pub(super) fn time(random: &mut StdRng, _: &Server) -> Column {
    let digits = random.random_range(0..=6);
    column(format!("TIME({digits})"), move |random| {
        let sign = if random.random() { "-" } else { "" };
        match once_in(random, 8) {
            true => format!("'{sign}838:59:59'"),
            false => format!("'{sign}{}'", clock(random, 837, digits)),
        }
    })
}

pub(super) fn datetime(random: &mut StdRng, _: &Server) -> Column {
    let digits = random.random_range(0..=6);
    column(format!("DATETIME({digits})"), move |random| {
        format!("'{} {}'", day_or_none(random), clock(random, 23, digits))
    })
}

/// A DATETIME of a key, which is a moment.
pub(super) fn key_datetime(random: &mut StdRng, _: &Server) -> Column {
    let digits = random.random_range(0..=6);
    column(format!("DATETIME({digits})"), move |random| {
        format!(
            "'{} {}'",
            day(random, 1000..=9999),
            clock(random, 23, digits)
        )
    })
}

pub(super) fn timestamp(random: &mut StdRng, server: &Server) -> Column {
    let Column {
        definition,
        literal,
        ..
    } = key_timestamp(random, server);
    column(definition, move |random| match once_in(random, 8) {
        true => "'0000-00-00 00:00:00'".to_owned(),
        false => literal(random),
    })
}

/// A TIMESTAMP of a key, which is a moment.
pub(super) fn key_timestamp(random: &mut StdRng, server: &Server) -> Column {
    let digits = random.random_range(0..=6);
    let last = match server.kind {
        SourceKind::MariaDb11 => 2105,
        SourceKind::MySql | SourceKind::MariaDb => 2037,
    };
    column(
        format!("TIMESTAMP({digits})"),
        move |random| match once_in(random, 8) {
            true => "'1970-01-01 00:00:01'".to_owned(),
            false => format!(
                "'{} {}'",
                day(random, 1971..=last),
                clock(random, 23, digits)
            ),
        },
    )
}
