//! Random tables with random rows, by both paths: every row is there before the load and comes again by the stream.
//!
//! [`TYPES`] is the one list of what may be in a table. A new type joins by one line in it, and by its comparison in the
//! harness.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::corpus::to_hex;
use crate::SourceKind;
use crate::harness::{Launch, Pipe, Stage};

/// How long a pipe may take to load or catch up with the few rows of a round.
const PATIENCE: Duration = Duration::from_secs(60);

/// Rows before the load; about as many changes come behind it.
const ROWS: u32 = 40;

/// A column: its definition, and what makes a literal for it.
struct Column {
    definition: String,
    literal: Box<dyn Fn(&mut StdRng) -> String + Send + Sync>,
}

fn column(
    definition: impl Into<String>,
    literal: impl Fn(&mut StdRng) -> String + Send + Sync + 'static,
) -> Column {
    Column {
        definition: definition.into(),
        literal: Box::new(literal),
    }
}

/// Makes a column of one family, its width, digits or labels chosen at random.
type Type = fn(&mut StdRng) -> Column;

/// Every type, and the only server that has it.
const TYPES: &[(Option<SourceKind>, Type)] = &[
    (None, integer),
    (None, integer),
    (None, decimal),
    (None, float),
    (None, bit),
    (None, year),
    (None, date),
    (None, time),
    (None, moment),
    (None, text),
    (None, text),
    (None, bytes),
    (None, label),
    (None, set),
    (None, json),
];

fn integer(random: &mut StdRng) -> Column {
    let (name, bits) = pick(
        random,
        &[
            ("TINYINT", 8),
            ("SMALLINT", 16),
            ("MEDIUMINT", 24),
            ("INT", 32),
            ("BIGINT", 64),
        ],
    );
    let unsigned = random.random();
    let definition = format!("{name}{}", if unsigned { " UNSIGNED" } else { "" });
    column(definition, move |random| {
        let number: u64 = match random.random_range(0..4) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << (bits - 1),
            _ => random.random(),
        } >> (64 - bits);
        let number = if number == 0 {
            random.random_range(0..2)
        } else {
            number
        };
        let high = 1u64 << (bits - 1);
        match (unsigned, number & high != 0) {
            (false, true) => (number as i128 - (1i128 << bits)).to_string(),
            _ => number.to_string(),
        }
    })
}

fn decimal(random: &mut StdRng) -> Column {
    let digits: u8 = random.random_range(1..=65);
    let scale: u8 = random.random_range(0..=digits.min(30));
    column(format!("DECIMAL({digits},{scale})"), move |random| {
        let mut text = String::from(if random.random() { "-" } else { "" });
        let some = |random: &mut StdRng, count: u8| -> String {
            let shown = random.random_range(0..=count);
            (0..shown)
                .map(|_| char::from(b'0' + random.random_range(0..10u8)))
                .collect()
        };
        text += "0";
        text += &some(random, digits - scale);
        if scale > 0 {
            text += ".";
            text += &some(random, scale);
            text += "0";
            text.truncate(text.find('.').unwrap_or(0) + 1 + usize::from(scale));
        }
        text
    })
}

fn float(random: &mut StdRng) -> Column {
    if random.random() {
        return column("FLOAT", |random| {
            loop {
                let number = f32::from_bits(random.random());
                if number.is_finite() {
                    break format!("{number:e}");
                }
            }
        });
    }
    column("DOUBLE", |random| {
        loop {
            let number = f64::from_bits(random.random());
            if number.is_finite() {
                break format!("{number:e}");
            }
        }
    })
}

fn bit(random: &mut StdRng) -> Column {
    let bits = random.random_range(1..=64);
    column(format!("BIT({bits})"), move |random| {
        (random.random::<u64>() >> (64 - bits)).to_string()
    })
}

fn year(_: &mut StdRng) -> Column {
    column("YEAR", |random| match random.random_range(0..10) {
        0 => "0".to_owned(),
        _ => random.random_range(1901..=2155).to_string(),
    })
}

fn day(random: &mut StdRng) -> String {
    let year = random.random_range(1000..=9999);
    format!(
        "{year:04}-{:02}-{:02}",
        random.random_range(1..=12),
        random.random_range(1..=28)
    )
}

fn clock(random: &mut StdRng, hours: u32, digits: u8) -> String {
    let mut text = format!(
        "{:02}:{:02}:{:02}",
        random.random_range(0..=hours),
        random.random_range(0..60),
        random.random_range(0..60)
    );
    if digits > 0 {
        let fraction = random.random_range(0..10u32.pow(digits.into()));
        write!(text, ".{fraction:0width$}", width = digits.into()).expect("a String takes it");
    }
    text
}

fn date(_: &mut StdRng) -> Column {
    column("DATE", |random| format!("'{}'", day(random)))
}

fn time(random: &mut StdRng) -> Column {
    let digits = random.random_range(0..=6);
    column(format!("TIME({digits})"), move |random| {
        let sign = if random.random() { "-" } else { "" };
        format!("'{sign}{}'", clock(random, 837, digits))
    })
}

fn moment(random: &mut StdRng) -> Column {
    let digits = random.random_range(0..=6);
    if random.random() {
        return column(format!("DATETIME({digits})"), move |random| {
            format!("'{} {}'", day(random), clock(random, 23, digits))
        });
    }
    column(format!("TIMESTAMP({digits})"), move |random| {
        let year = random.random_range(1971..=2037);
        format!(
            "'{year}{} {}'",
            &day(random)[4..],
            clock(random, 23, digits)
        )
    })
}

/// Any character that text may have: quotes, control characters, wide ones.
fn characters(random: &mut StdRng, at_most: usize) -> String {
    let count = random.random_range(0..=at_most);
    let one = |random: &mut StdRng| match random.random_range(0..8) {
        0 => *pick_ref(
            random,
            &['\'', '"', '\\', '\0', '\n', '\t', '%', '_', ' ', '\u{7f}'],
        ),
        1 => *pick_ref(random, &['é', 'ü', 'ß', 'ÿ', '€']),
        2 => char::from_u32(random.random_range(0x4e00..0x9fff)).unwrap_or('?'),
        3 => char::from_u32(random.random_range(0x1f300..0x1f5ff)).unwrap_or('?'),
        _ => char::from(random.random_range(b' '..b'~')),
    };
    (0..count).map(|_| one(random)).collect()
}

fn text(random: &mut StdRng) -> Column {
    let (name, at_most) = pick(
        random,
        &[
            ("CHAR(30)", 30),
            ("VARCHAR(10)", 10),
            ("VARCHAR(300)", 300),
            ("TINYTEXT", 60),
            ("TEXT", 500),
            ("LONGTEXT", 2000),
        ],
    );
    let charset = pick(random, &["utf8mb4", "utf8mb4", "latin1", "utf16", "utf32"]);
    column(format!("{name} CHARACTER SET {charset}"), move |random| {
        if charset == "latin1" {
            let bytes = raw(random, at_most);
            return format!("_latin1 X'{}'", to_hex(&bytes));
        }
        // The server strips spaces off the end of CHAR, on either path.
        format!(
            "_utf8mb4 X'{}'",
            to_hex(characters(random, at_most).as_bytes())
        )
    })
}

fn raw(random: &mut StdRng, at_most: usize) -> Vec<u8> {
    let count = random.random_range(0..=at_most);
    (0..count)
        .map(|_| {
            if random.random_range(0..4) == 0 {
                0
            } else {
                random.random()
            }
        })
        .collect()
}

fn bytes(random: &mut StdRng) -> Column {
    let (name, at_most) = pick(
        random,
        &[
            ("BINARY(12)", 12),
            ("VARBINARY(20)", 20),
            ("VARBINARY(400)", 400),
            ("TINYBLOB", 255),
            ("BLOB", 3000),
        ],
    );
    column(name, move |random| {
        format!("X'{}'", to_hex(&raw(random, at_most)))
    })
}

fn labels(random: &mut StdRng, at_most: usize) -> Vec<String> {
    let count = random.random_range(1..=at_most);
    let odd = pick(random, &["it''s", "ü", "a b", "\"quoted\"", "(", "é)"]);
    (0..count).map(|n| format!("{odd}{n}")).collect()
}

fn label(random: &mut StdRng) -> Column {
    let at_most = pick(random, &[3, 40, 300]);
    let labels = labels(random, at_most);
    let count = labels.len();
    column(
        format!("ENUM('{}') CHARACTER SET utf8mb4", labels.join("','")),
        move |random| random.random_range(1..=count).to_string(),
    )
}

fn set(random: &mut StdRng) -> Column {
    let at_most = pick(random, &[3, 9, 64]);
    let labels = labels(random, at_most);
    let count = labels.len();
    column(
        format!("SET('{}') CHARACTER SET utf8mb4", labels.join("','")),
        move |random| (random.random::<u64>() >> (64 - count)).to_string(),
    )
}

fn json(_: &mut StdRng) -> Column {
    column("JSON", |random| {
        let document = document(random, 4);
        format!("_utf8mb4 X'{}'", to_hex(document.to_string().as_bytes()))
    })
}

fn document(random: &mut StdRng, depth: u32) -> serde_json::Value {
    let key = |random: &mut StdRng| characters(random, 6).replace('\0', "");
    match random.random_range(0..if depth == 0 { 6 } else { 9 }) {
        0 => serde_json::Value::Null,
        1 => random.random::<bool>().into(),
        2 => random.random::<i64>().into(),
        3 => u64::MAX.into(),
        4 => f64::from(random.random_range(-1_000_000..1_000_000) as f32 / 64.0).into(),
        5 => characters(random, 20).into(),
        6 => (0..random.random_range(0..5))
            .map(|_| document(random, depth - 1))
            .collect(),
        _ => (0..random.random_range(0..6))
            .map(|_| (key(random), document(random, depth - 1)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}

fn pick<T: Copy>(random: &mut StdRng, from: &[T]) -> T {
    *pick_ref(random, from)
}

fn pick_ref<'a, T>(random: &mut StdRng, from: &'a [T]) -> &'a T {
    &from[random.random_range(0..from.len())]
}

/// A random table, its rows by both paths, changed and deleted on the way, compared at the end. `program` is the testbed.
///
/// # Errors
/// The first differences; what a server or the pipe fails with. The table's definition is part of the message.
pub async fn round(stage: &Stage, program: &Path, seed: u64) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let kind = stage.kind();
    let known: Vec<Type> = TYPES
        .iter()
        .filter(|(only, _)| only.is_none_or(|only| only == kind))
        .map(|(_, make)| *make)
        .collect();
    let count = random.random_range(1..=14);
    let columns: Vec<Column> = (0..count)
        .map(|_| pick_ref(&mut random, &known)(&mut random))
        .collect();
    let definitions: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(n, column)| format!("c{n} {} NULL DEFAULT NULL", column.definition))
        .collect();
    let create = format!(
        "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, {}) CHARACTER SET utf8mb4",
        definitions.join(", ")
    );
    replay(stage, program, &mut random, &columns, &create)
        .await
        .with_context(|| create)
}

async fn replay(
    stage: &Stage,
    program: &Path,
    random: &mut StdRng,
    columns: &[Column],
    create: &str,
) -> Result<()> {
    let mut conn = stage.source.connect().await?;
    conn.query_drop("SET sql_mode = 'NO_ENGINE_SUBSTITUTION'")
        .await?;
    conn.query_drop(create).await?;
    let rows: Vec<String> = (0..ROWS).map(|_| insert(random, columns)).collect();
    for row in &rows {
        conn.query_drop(row).await.with_context(|| shortened(row))?;
    }
    let mut pipe = Pipe::start(Launch::new(program, &stage.pipe_file(&["t"])))?;
    pipe.wait_state("Running", PATIENCE).await?;
    ensure!(
        stage.assert_same("t").await? == u64::from(ROWS),
        "by the load"
    );
    for row in &rows {
        conn.query_drop(row).await?;
    }
    for _ in 0..ROWS {
        let statement = change(random, columns);
        conn.query_drop(&statement)
            .await
            .with_context(|| shortened(&statement))?;
    }
    drop(conn);
    stage.wait_caught_up(&mut pipe, PATIENCE).await?;
    stage.assert_same("t").await.context("by the stream")?;
    pipe.stop().await.map(drop)
}

fn value(random: &mut StdRng, column: &Column) -> String {
    match random.random_range(0..6) {
        0 => "NULL".to_owned(),
        _ => (column.literal)(random),
    }
}

fn insert(random: &mut StdRng, columns: &[Column]) -> String {
    let names: Vec<String> = (0..columns.len()).map(|n| format!("c{n}")).collect();
    let values: Vec<String> = columns.iter().map(|column| value(random, column)).collect();
    format!(
        "INSERT INTO t ({}) VALUES ({})",
        names.join(", "),
        values.join(", ")
    )
}

fn change(random: &mut StdRng, columns: &[Column]) -> String {
    let id = random.random_range(1..=2 * ROWS);
    let n = random.random_range(0..columns.len());
    match random.random_range(0..8) {
        0 => format!("DELETE FROM t WHERE id = {id}"),
        1 => format!("UPDATE IGNORE t SET id = id + {} WHERE id = {id}", 2 * ROWS),
        2 => format!(
            "INSERT INTO t ({0}) SELECT {0} FROM t WHERE id < {id} ORDER BY id LIMIT 2",
            format_args!("c{n}")
        ),
        _ => format!(
            "UPDATE t SET c{n} = {} WHERE id BETWEEN {id} AND {}",
            value(random, &columns[n]),
            id + 3
        ),
    }
}

fn shortened(sql: &str) -> String {
    sql.chars().take(400).collect()
}

/// A round for each seed from `first` on and each kind of source.
///
/// # Errors
/// As [`round`], with the seed.
pub async fn run(program: &Path, first: u64, seeds: u64) -> Result<()> {
    for seed in first..first.saturating_add(seeds) {
        for kind in [SourceKind::MySql, SourceKind::MariaDb] {
            let stage = Stage::shared(kind).await?;
            round(&stage, program, seed)
                .await
                .with_context(|| format!("seed {seed} on {}", kind.name()))?;
        }
        println!("seed {seed}: equal by both paths");
    }
    Ok(())
}
