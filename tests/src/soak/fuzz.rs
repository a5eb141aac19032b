//! Mutated event bodies through the decoders of table maps, row images, documents and changes of documents.
//!
//! Whatever the bytes are, a decoder ends with values or an error: it does not panic, and what it has built stays in
//! proportion to what it was given. Arithmetic that overflows is a panic too in builds of the profile `dev`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use pipewright::source::mysql::binlog::{ChangeBuilder, TableMap};
use pipewright::source::mysql::catalog::SourceTable;
use pipewright::source::mysql::decode::{Cell, print_changed_document, print_document, take_cells};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::corpus::{Body, Case, to_hex};
use crate::harness::usage_of;

/// Text is at most this many times as long as its document: a control character of one byte takes six.
const TEXT_GROWTH: usize = 6;

/// Deflate makes at most this many bytes of one.
const EXPANSION: usize = 1032;

/// A document of a few bytes may have a text of this many more.
const TEXT_SLACK: usize = 64;

/// The whole process, its corpus and servers' libraries included, never holds more.
const MEMORY_BYTES: u64 = 1 << 30;

/// How many inputs there were, and how many of them were taken for good.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Inputs.
    pub inputs: u64,
    /// Inputs that were decoded to their end.
    pub decoded: u64,
}

/// The bytes that mutations begin from.
struct Seeds {
    cases: Vec<Prepared>,
    documents: Vec<Vec<u8>>,
    changes: Vec<(Vec<u8>, Vec<u8>)>,
}

struct Prepared {
    case: Case,
    map: Arc<TableMap>,
    table: Arc<SourceTable>,
    /// Bytes that a row of nothing may take in the builders.
    row_bytes: usize,
    /// How many bytes one may become.
    growth: usize,
}

/// Decodes mutated inputs for as long as told.
///
/// # Errors
/// The first input on which a decoder panicked or grew out of proportion, in hexadecimal, with the seed.
pub fn run(cases: Vec<Case>, seed: u64, duration: Duration) -> Result<Summary> {
    let seeds = Seeds::prepare(cases)?;
    let mut random = StdRng::seed_from_u64(seed);
    let mut summary = Summary::default();
    let until = Instant::now() + duration;
    while Instant::now() < until {
        for _ in 0..200 {
            summary.inputs += 1;
            let decoded = seeds
                .one(&mut random)
                .with_context(|| format!("input {} of seed {seed}", summary.inputs))?;
            summary.decoded += u64::from(decoded);
        }
    }
    let (_, peak) = usage_of(std::process::id())?;
    ensure!(peak < MEMORY_BYTES, "the process held {peak} bytes");
    Ok(summary)
}

impl Seeds {
    fn prepare(cases: Vec<Case>) -> Result<Self> {
        let mut seeds = Self {
            cases: Vec::new(),
            documents: Vec::new(),
            changes: Vec::new(),
        };
        for case in cases {
            let map = Arc::new(TableMap::parse(&case.map)?);
            let table = Arc::new(case.table.clone());
            for body in &case.events {
                let mut builder = builder(&table)?;
                let event = body.event(Arc::clone(&map), &body.bytes);
                let event = event.with_context(|| format!("{}: no row event", case.name))?;
                builder
                    .push_event(&event, 1)
                    .with_context(|| format!("{}: an event as it was written", case.name))?;
                seeds.take_documents(&map, body);
            }
            let row_bytes = row_bytes(&table);
            let mut types = table.columns.iter().map(|column| &column.column_type);
            let growth = match types.any(|text| text.contains("COMPRESSED")) {
                true => TEXT_GROWTH * EXPANSION,
                false => TEXT_GROWTH,
            };
            seeds.cases.push(Prepared {
                case,
                map,
                table,
                row_bytes,
                growth,
            });
        }
        ensure!(!seeds.documents.is_empty() && !seeds.changes.is_empty());
        Ok(seeds)
    }

    /// The documents of an event's first images, found by their type; those of the second image of a partial event are
    /// changes.
    fn take_documents(&mut self, map: &TableMap, body: &Body) {
        let front = if body.kind < 30 { 8 } else { 10 };
        let bitmaps = if matches!(body.kind, 24 | 31 | 39) {
            2
        } else {
            1
        };
        let width = map.formats.len().div_ceil(8);
        let Some(rest) = body.bytes.get(front + 1..) else {
            return;
        };
        let (Some(present), Some(mut cursor)) = (rest.get(..width), rest.get(bitmaps * width..))
        else {
            return;
        };
        let mut before = Vec::new();
        if take_cells(&map.formats, present, &mut cursor, &mut before).is_err() {
            return;
        }
        let old = documents(map, &before);
        self.documents.extend(old.iter().flatten().cloned());
        if body.kind != 39 || cursor.first() != Some(&1) {
            return;
        }
        let (Some(mut cursor), Some(present)) = (cursor.get(2..), rest.get(width..2 * width))
        else {
            return;
        };
        let mut after = Vec::new();
        if take_cells(&map.formats, present, &mut cursor, &mut after).is_ok() {
            let pairs = old.into_iter().zip(documents(map, &after));
            self.changes
                .extend(pairs.filter_map(|(old, new)| Some((old?, new?))));
        }
    }

    fn one(&self, random: &mut StdRng) -> Result<bool> {
        match random.random_range(0..10) {
            0 => self.table_map(random),
            1 | 2 => self.document(random),
            3 | 4 => self.changed_document(random),
            _ => self.rows(random),
        }
    }

    fn table_map(&self, random: &mut StdRng) -> Result<bool> {
        let prepared = pick(random, &self.cases);
        let map = self.mutated(random, &prepared.case.map);
        guarded(&[&map], || {
            let Ok(parsed) = TableMap::parse(&map) else {
                return Ok(false);
            };
            ensure!(parsed.formats.len() <= map.len());
            // A map that differs is another table, or the rows do not fit it: either way nothing is taken on trust.
            let body = &prepared.case.events[0];
            let mut builder = builder(&prepared.table)?;
            if let Some(event) = body.event(Arc::new(parsed), &body.bytes) {
                builder.push_event(&event, 1).ok();
            }
            Ok(true)
        })
    }

    fn rows(&self, random: &mut StdRng) -> Result<bool> {
        let prepared = pick(random, &self.cases);
        let body = pick(random, &prepared.case.events);
        let bytes = self.mutated(random, &body.bytes);
        let complete = random.random();
        guarded(&[&bytes], || {
            let mut builder = match complete {
                true => builder(&prepared.table)?,
                false => ChangeBuilder::new(Arc::clone(&prepared.table), vec![0], true)?,
            };
            let Some(event) = body.event(Arc::clone(&prepared.map), &bytes) else {
                return Ok(false);
            };
            let decoded = builder.push_event(&event, 1).is_ok();
            let limit = (bytes.len() + 1) * prepared.row_bytes + prepared.growth * bytes.len();
            ensure!(
                builder.byte_count() <= limit,
                "{} bytes became {}",
                bytes.len(),
                builder.byte_count()
            );
            if decoded {
                if let Some(rows) = builder.take_incomplete() {
                    ensure!(!rows.conditions().is_empty());
                    rows.gone()?;
                }
                builder.finish();
            }
            Ok(decoded)
        })
    }

    fn document(&self, random: &mut StdRng) -> Result<bool> {
        let document = pick(random, &self.documents);
        let document = self.mutated(random, document);
        guarded(&[&document], || {
            let mut out = Vec::new();
            let printed = print_document(&document, &mut out).is_ok();
            in_proportion(out.len(), document.len())?;
            Ok(printed)
        })
    }

    fn changed_document(&self, random: &mut StdRng) -> Result<bool> {
        let (document, changes) = pick(random, &self.changes);
        let (mut document, mut changes) = (document.clone(), changes.clone());
        // One of the two alone reaches deeper than both.
        let which = random.random_range(0..3);
        if which != 0 {
            document = self.mutated(random, &document);
        }
        if which != 1 {
            changes = self.mutated(random, &changes);
        }
        guarded(&[&document, &changes], || {
            let mut out = Vec::new();
            let printed = print_changed_document(&document, &changes, &mut out).is_ok();
            in_proportion(out.len(), document.len() + changes.len())?;
            Ok(printed)
        })
    }

    /// A few changes of the kinds that find faults: bits, lengths, cuts, repetitions, bytes of another input.
    fn mutated(&self, random: &mut StdRng, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..random.random_range(1..6) {
            let length = bytes.len();
            let place = random.random_range(0..=length);
            let count = random.random_range(0..=8usize).min(length - place);
            match random.random_range(0..9) {
                0 if place < length => bytes[place] ^= 1 << random.random_range(0..8),
                1 if place < length => {
                    bytes[place] = *pick(random, &[0, 1, 0x7f, 0x80, 0xfa, 0xfb, 0xfc, 0xff])
                }
                2 if place < length => {
                    bytes[place] = bytes[place].wrapping_add(random.random_range(1..4))
                }
                3 if place < length => {
                    bytes[place] = bytes[place].wrapping_sub(random.random_range(1..4))
                }
                4 => bytes.truncate(place),
                5 => drop(bytes.drain(place..place + count)),
                6 => {
                    let again = bytes[place..place + count].to_vec();
                    bytes.splice(place..place, again);
                }
                7 => {
                    let case = pick(random, &self.cases);
                    let other = &pick(random, &case.case.events).bytes;
                    let from = random.random_range(0..other.len());
                    let until = (from + random.random_range(1..40)).min(other.len());
                    bytes.splice(place..place, other[from..until].iter().copied());
                }
                _ => bytes.extend((0..count).map(|_| random.random::<u8>())),
            }
        }
        bytes
    }
}

fn builder(table: &Arc<SourceTable>) -> Result<ChangeBuilder> {
    Ok(ChangeBuilder::new(Arc::clone(table), vec![0], false)?.completing(false)?)
}

/// The documents among the cells, without their length; a place for each column.
fn documents(map: &TableMap, cells: &[Cell<'_>]) -> Vec<Option<Vec<u8>>> {
    const JSON: u8 = 245;
    map.formats
        .iter()
        .zip(cells)
        .map(|(format, cell)| match cell {
            Cell::Value([_, _, _, _, document @ ..]) if format.wire_type == JSON => {
                Some(document.to_vec())
            }
            _ => None,
        })
        .collect()
}

/// What a row may take beyond its own bytes: fixed widths and offsets twice, padding, every label; a condition.
fn row_bytes(table: &SourceTable) -> usize {
    let columns = table.columns.iter().map(|column| {
        let labels: usize = column.labels.iter().map(|label| label.len() + 1).sum();
        let padding = usize::try_from(column.length.unwrap_or(0))
            .unwrap_or(0)
            .min(256);
        2 * (40 + labels + padding)
    });
    columns.sum::<usize>() + 256
}

fn in_proportion(text: usize, bytes: usize) -> Result<()> {
    if text > TEXT_GROWTH * bytes + TEXT_SLACK {
        bail!("a text of {text} bytes came from {bytes}");
    }
    Ok(())
}

fn pick<'a, T>(random: &mut StdRng, from: &'a [T]) -> &'a T {
    &from[random.random_range(0..from.len())]
}

/// Runs a decoder; what goes wrong is reported with the input.
fn guarded(input: &[&Vec<u8>], decode: impl FnOnce() -> Result<bool>) -> Result<bool> {
    let shown = || {
        input
            .iter()
            .map(|bytes| to_hex(bytes))
            .collect::<Vec<_>>()
            .join(" ")
    };
    match catch_unwind(AssertUnwindSafe(decode)) {
        Ok(Ok(decoded)) => Ok(decoded),
        Ok(Err(error)) => Err(error.context(shown())),
        Err(_) => bail!("a decoder panicked on {}", shown()),
    }
}
