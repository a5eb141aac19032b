//! Nanoseconds a cell, for each family of types and either form: `cargo bench -p pipewright`.
//!
//! A table of one column is decoded over and over, so a figure has in it what a row costs by itself; it is the median of
//! several rounds. `cargo bench -p pipewright -- text` measures what has that in its name.

mod families;

use std::hint::black_box;
use std::time::{Duration, Instant};

use families::Family;
use pipewright::source::mysql::decode::TableBuilder;

const ROUNDS: usize = 9;
const ROWS: usize = 20_000;

/// The median time of `ROWS` rows, over rounds that each begin with an empty builder which has had as many.
fn measure(builder: &mut TableBuilder, mut rows: impl FnMut(&mut TableBuilder)) -> Duration {
    let mut rounds: Vec<Duration> = (0..=ROUNDS)
        .map(|_| {
            let begin = Instant::now();
            rows(builder);
            let elapsed = begin.elapsed();
            black_box(builder.finish());
            elapsed
        })
        .skip(1)
        .collect();
    rounds.sort_unstable();
    rounds[ROUNDS / 2]
}

fn packet_time(family: &Family) -> Duration {
    let (mut builder, _) = families::builder(family);
    let packet = family.packet_row();
    measure(&mut builder, |builder| {
        for _ in 0..ROWS {
            builder
                .push_packet_row(black_box(&packet))
                .expect("a row of the bench's own");
        }
    })
}

fn image_time(family: &Family) -> Duration {
    let (mut builder, formats) = families::builder(family);
    let rows = family.image_row().repeat(ROWS);
    measure(&mut builder, |builder| {
        let mut cursor = black_box(rows.as_slice());
        while !cursor.is_empty() {
            builder
                .push_image_row(&formats, &[1], &mut cursor)
                .expect("a row of the bench's own");
        }
    })
}

fn main() {
    // Cargo adds `--bench`; a name may stand beside it.
    let wanted = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    if cfg!(debug_assertions) {
        eprintln!("a figure of a debug build says little: cargo bench -p pipewright");
    }
    println!("{:<28} {:>12} {:>12}", "ns a cell", "packet", "row image");
    let nanoseconds = |time: Duration| time.as_secs_f64() * 1e9 / ROWS as f64;
    for family in families::all() {
        if wanted
            .as_ref()
            .is_some_and(|wanted| !family.name.contains(wanted.as_str()))
        {
            continue;
        }
        println!(
            "{:<28} {:>12.1} {:>12.1}",
            family.name,
            nanoseconds(packet_time(&family)),
            nanoseconds(image_time(&family))
        );
    }
}
