//! Geometries and vectors, and MariaDB's UUIDs and addresses.

use rand::Rng;
use rand::rngs::StdRng;

use super::columns::{Column, Defaults, column, once_in, pick};
use super::server::Server;
use crate::SourceKind;
use crate::soak::corpus::to_hex;

const SHAPES: [&str; 7] = [
    "POINT",
    "LINESTRING",
    "POLYGON",
    "MULTIPOINT",
    "MULTILINESTRING",
    "MULTIPOLYGON",
    "GEOMETRYCOLLECTION",
];

pub(super) fn geometry(random: &mut StdRng, server: &Server) -> Column {
    let kind = server.kind;
    let name = match once_in(random, 3) {
        true => "GEOMETRY",
        false => pick(random, &SHAPES),
    };
    // Of one reference system, which only MySQL's columns can be.
    let geographic = kind == SourceKind::MySql && once_in(random, 4);
    let clause = if geographic { " SRID 4326" } else { "" };
    column(format!("{name}{clause}"), move |random| {
        let geographic = geographic || once_in(random, 5);
        let name = match name {
            "GEOMETRY" => pick(random, &SHAPES),
            name => name,
        };
        let text = shape(random, name, geographic, kind == SourceKind::MySql);
        match geographic {
            true => format!("ST_GeomFromText('{text}', 4326)"),
            false => format!("ST_GeomFromText('{text}')"),
        }
    })
    .with_default(Defaults::Never)
}

/// The text of a geometry; collections within collections where the server makes them.
fn shape(random: &mut StdRng, name: &str, geographic: bool, nests: bool) -> String {
    let count = random.random_range(1..4);
    let many = |random: &mut StdRng, one: &dyn Fn(&mut StdRng) -> String| -> String {
        let parts: Vec<String> = (0..count).map(|_| one(random)).collect();
        parts.join(",")
    };
    let point = |random: &mut StdRng| pair(random, geographic);
    let line =
        |random: &mut StdRng| format!("({},{},{})", point(random), point(random), point(random));
    let polygon = |random: &mut StdRng| format!("({})", ring(random));
    match name {
        "POINT" => format!("POINT({})", point(random)),
        "LINESTRING" => format!("LINESTRING{}", line(random)),
        "POLYGON" => format!("POLYGON{}", polygon(random)),
        "MULTIPOINT" => format!("MULTIPOINT({})", many(random, &point)),
        "MULTILINESTRING" => format!("MULTILINESTRING({})", many(random, &line)),
        "MULTIPOLYGON" => format!("MULTIPOLYGON({})", many(random, &polygon)),
        _ if once_in(random, 4) => "GEOMETRYCOLLECTION EMPTY".to_owned(),
        _ => {
            let inner = |random: &mut StdRng| {
                let last = SHAPES.len() - usize::from(!nests);
                let name = pick(random, &SHAPES[..last]);
                shape(random, name, geographic, nests)
            };
            format!("GEOMETRYCOLLECTION({})", many(random, &inner))
        }
    }
}

/// The two coordinates of a point; within degrees for a place on earth.
fn pair(random: &mut StdRng, geographic: bool) -> String {
    let one = |random: &mut StdRng| -> f64 {
        let degrees = random.random_range(-89.0..89.0);
        match random.random_range(0..4) {
            _ if geographic => degrees,
            0 => f64::from(random.random_range(-1000..1000)),
            1 => degrees,
            2 => degrees * 10f64.powi(random.random_range(-40..40)),
            _ => pick(
                random,
                &[0.0, -0.0, 1e15, 1e-15, 1e300, 0.1, -7.872_746_955_888_16e-9],
            ),
        }
    };
    format!("{:?} {:?}", one(random), one(random))
}

/// A closed ring, of a triangle.
fn ring(random: &mut StdRng) -> String {
    let (x, y) = (random.random_range(-60..60), random.random_range(-60..60));
    let (right, up) = (random.random_range(1..20), random.random_range(1..20));
    format!("({x} {y},{} {y},{x}.5 {},{x} {y})", x + right, y + up)
}

pub(super) fn vector(random: &mut StdRng, server: &Server) -> Column {
    let floats: usize = pick(random, &[1, 3, 70, 500]);
    // Shorter ones than declared only MySQL takes.
    let at_least = match server.kind {
        SourceKind::MySql => 1,
        SourceKind::MariaDb | SourceKind::MariaDb11 => floats,
    };
    column(format!("VECTOR({floats})"), move |random| {
        let count = random.random_range(at_least..=floats);
        let bytes: Vec<u8> = (0..count)
            .flat_map(|_| finite(random).to_le_bytes())
            .collect();
        format!("X'{}'", to_hex(&bytes))
    })
    .with_default(Defaults::Never)
}

fn finite(random: &mut StdRng) -> f32 {
    loop {
        let number = f32::from_bits(random.random());
        if number.is_finite() {
            break number;
        }
    }
}

/// Bytes with zeros at the front and at the end, which row images leave out.
fn address<const N: usize>(random: &mut StdRng) -> [u8; N] {
    let mut bytes: [u8; N] = std::array::from_fn(|_| random.random());
    let (front, end) = (random.random_range(0..=N), random.random_range(0..=N));
    if once_in(random, 3) {
        bytes[..front].fill(0);
    }
    if random.random() {
        bytes[end..].fill(0);
    }
    bytes
}

pub(super) fn uuid(_: &mut StdRng, _: &Server) -> Column {
    column("UUID", |random| {
        let digits = to_hex(&address::<16>(random));
        let part = |from, to| &digits[from..to];
        format!(
            "'{}-{}-{}-{}-{}'",
            part(0, 8),
            part(8, 12),
            part(12, 16),
            part(16, 20),
            part(20, 32)
        )
    })
    // MariaDB refuses some as a DEFAULT that it takes as a value.
    .with_default(Defaults::Text("'01234567-89ab-4def-8123-456789abcdef'"))
}

pub(super) fn inet4(_: &mut StdRng, _: &Server) -> Column {
    column("INET4", |random| {
        format!("'{}'", std::net::Ipv4Addr::from(address::<4>(random)))
    })
}

pub(super) fn inet6(_: &mut StdRng, _: &Server) -> Column {
    column("INET6", |random| {
        format!("'{}'", std::net::Ipv6Addr::from(address::<16>(random)))
    })
}
