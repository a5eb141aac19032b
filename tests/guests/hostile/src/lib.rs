//! A plugin that misbehaves as its configuration says.

use pipewright_sdk::{
    Batch, Binding, BytesBuilder, Column, DataType, Failure, Field, Outcome, Problem, Selection,
    Shape, Table, Transform, Write, export, log,
};
use serde::Deserialize;

export!(Hostile);

/// The plugin, configured.
#[derive(Debug)]
pub struct Hostile(Crime);

/// What the pipe file says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    crime: Crime,
}

/// What it does.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Crime {
    /// Nothing: what the others are measured against.
    None,
    /// Never returns.
    Loop,
    /// Panics.
    Panic,
    /// Panics on every second call of an instance.
    PanicEverySecond,
    /// Allocates for ever.
    Memory,
    /// Calls itself for ever.
    Stack,
    /// Answers one row too few.
    FewRows,
    /// Answers text that is not UTF-8.
    BadText,
    /// Answers NULL for a column that may not be NULL.
    Nulls,
    /// Drops rows without having declared it.
    Drop,
    /// Replaces a key column.
    Key,
    /// Rejects the second row.
    Reject,
    /// Fills the log.
    Flood,
    /// Never returns from `configure`.
    LoopInConfigure,
}

impl Transform for Hostile {
    type Config = Config;
    type Binding = BoundHostile;

    fn new(config: Config) -> Result<Self, Vec<Problem>> {
        if config.crime == Crime::LoopInConfigure {
            loop {
                std::hint::black_box(());
            }
        }
        Ok(Self(config.crime))
    }

    fn bind(&self, table: &Table) -> Result<BoundHostile, Failure> {
        let mut shape = Shape::new();
        if self.0 == Crime::Key {
            shape.replace(0, table.fields[0].clone());
        }
        let note = shape.add(Field::new("note", DataType::Utf8).not_null());
        Ok(BoundHostile {
            crime: self.0,
            shape,
            note,
            calls: std::cell::Cell::new(0),
        })
    }
}

/// The plugin, bound to a table.
#[derive(Debug)]
pub struct BoundHostile {
    crime: Crime,
    shape: Shape,
    note: Write,
    calls: std::cell::Cell<u32>,
}

impl Binding for BoundHostile {
    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn transform(&self, batch: &Batch) -> Result<Outcome, Failure> {
        let rows = batch.len();
        self.calls.set(self.calls.get() + 1);
        let good = Outcome::unchanged().column(self.note, notes(rows, b"x"));
        match self.crime {
            Crime::None | Crime::Key | Crime::LoopInConfigure => Ok(good),
            Crime::Loop => loop {
                std::hint::black_box(());
            },
            Crime::Panic => panic!("as configured"),
            Crime::PanicEverySecond if self.calls.get().is_multiple_of(2) => {
                panic!("the second call")
            }
            Crime::PanicEverySecond => Ok(good),
            Crime::Memory => {
                let mut hoard = Vec::new();
                loop {
                    hoard.push(std::hint::black_box(vec![1_u8; 1 << 20]));
                }
            }
            Crime::Stack => Ok(good.reject(depth(1), "never", "reached")),
            Crime::FewRows => Ok(Outcome::unchanged().column(self.note, notes(rows - 1, b"x"))),
            Crime::BadText => Ok(Outcome::unchanged().column(self.note, notes(rows, b"\xff"))),
            Crime::Nulls => {
                Ok(Outcome::unchanged().column(self.note, Column::nulls(DataType::Utf8, rows)))
            }
            Crime::Drop => Ok(good.keep(Selection::from_fn(rows, |_| false))),
            Crime::Reject => Ok(good.reject(1, "bad-row", "as configured")),
            Crime::Flood => {
                for _ in 0..10_000 {
                    log::debug(&"flood ".repeat(100));
                }
                Ok(good)
            }
        }
    }
}

fn notes(rows: usize, text: &[u8]) -> Column {
    let mut builder = BytesBuilder::new(DataType::Utf8, rows);
    for _ in 0..rows {
        builder.push(Some(text));
    }
    builder.finish()
}

#[expect(unconditional_recursion, reason = "the stack is to overflow")]
fn depth(level: usize) -> usize {
    std::hint::black_box(depth(std::hint::black_box(level + 1)) + 1)
}
