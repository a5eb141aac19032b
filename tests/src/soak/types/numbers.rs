//! Numbers, bits and years.

use rand::Rng;
use rand::rngs::StdRng;

use super::columns::{Column, column, once_in, pick};
use super::server::Server;

const SIGNS: [&str; 5] = ["", "", "", " UNSIGNED", " ZEROFILL"];

pub(super) fn integer(random: &mut StdRng, _: &Server) -> Column {
    let (name, bits) = pick(
        random,
        &[
            ("TINYINT", 8),
            ("TINYINT(1)", 8),
            ("SMALLINT", 16),
            ("MEDIUMINT", 24),
            ("INT", 32),
            ("BIGINT", 64),
        ],
    );
    let sign = match random.random() {
        true => pick(random, &SIGNS),
        false => " UNSIGNED",
    };
    column(format!("{name}{sign}"), move |random| {
        integer_of(random, bits, sign.is_empty())
    })
}

/// An integer of so many bits, its ends as often as those between.
fn integer_of(random: &mut StdRng, bits: u32, signed: bool) -> String {
    let number: u64 = match random.random_range(0..5) {
        0 => random.random_range(0..2),
        1 => u64::MAX >> (64 - bits),
        2 => 1 << (bits - 1),
        3 => (1 << (bits - 1)) - 1,
        _ => random.random::<u64>() >> (64 - bits),
    };
    if signed && number >> (bits - 1) & 1 == 1 {
        return (i128::from(number) - (1i128 << bits)).to_string();
    }
    number.to_string()
}

pub(super) fn decimal(random: &mut StdRng, _: &Server) -> Column {
    let digits: u8 = random.random_range(1..=65);
    let scale: u8 = random.random_range(0..=digits.min(30));
    let sign = pick(random, &SIGNS);
    column(format!("DECIMAL({digits},{scale}){sign}"), move |random| {
        let minus = if sign.is_empty() && random.random() {
            "-"
        } else {
            ""
        };
        let whole = some_digits(random, digits - scale);
        match some_digits(random, scale).as_str() {
            "" => format!("{minus}0{whole}"),
            fraction => format!("{minus}0{whole}.{fraction}"),
        }
    })
}

/// At most `count` digits; all of them, and nines alone, as often as not.
fn some_digits(random: &mut StdRng, count: u8) -> String {
    let shown = match random.random() {
        true => count,
        false => random.random_range(0..=count),
    };
    let nines = once_in(random, 4);
    (0..shown)
        .map(|_| match nines {
            true => '9',
            false => char::from(b'0' + random.random_range(0..10u8)),
        })
        .collect()
}

pub(super) fn float(random: &mut StdRng, _: &Server) -> Column {
    let sign = pick(random, &SIGNS);
    column(format!("FLOAT{sign}"), move |random| {
        let number = loop {
            let number = f32::from_bits(random.random());
            if number.is_finite() {
                break number;
            }
        };
        let special = pick(
            random,
            &[0.0, -0.0, f32::MAX, f32::MIN_POSITIVE, 1e-45, 0.1],
        );
        let number = if once_in(random, 4) { special } else { number };
        let number = if sign.is_empty() {
            number
        } else {
            number.abs()
        };
        // In full: the shortest text of the largest one is beyond what a FLOAT holds, and as a DEFAULT refused.
        format!("{:e}", f64::from(number))
    })
}

pub(super) fn double(random: &mut StdRng, _: &Server) -> Column {
    let sign = pick(random, &SIGNS);
    column(format!("DOUBLE{sign}"), move |random| {
        let number = loop {
            let number = f64::from_bits(random.random());
            if number.is_finite() {
                break number;
            }
        };
        let special = pick(
            random,
            &[0.0, -0.0, f64::MAX, f64::MIN_POSITIVE, 5e-324, 0.1],
        );
        let number = if once_in(random, 4) { special } else { number };
        let number = if sign.is_empty() {
            number
        } else {
            number.abs()
        };
        format!("{number:e}")
    })
}

pub(super) fn bit(random: &mut StdRng, _: &Server) -> Column {
    let bits = random.random_range(1..=64);
    column(format!("BIT({bits})"), move |random| {
        integer_of(random, bits, false)
    })
}

pub(super) fn year(_: &mut StdRng, _: &Server) -> Column {
    column("YEAR", |random| match random.random_range(0..6) {
        0 => "0".to_owned(),
        1 => "1901".to_owned(),
        2 => "2155".to_owned(),
        _ => random.random_range(1901..=2155).to_string(),
    })
}
