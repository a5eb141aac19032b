//! A plugin that misbehaves as its configuration says.

use pipewright_sdk::{
    Batch, Binding, BytesBuilder, Column, DataType, Failure, Field, Made, Outcome, Problem, Read,
    Rows, Selection, Shape, Table, Target, To, Transform, Write, export, log, lookup,
};
use serde::Deserialize;

export!(Hostile);

/// The plugin, configured.
#[derive(Debug)]
pub struct Hostile(Config);

/// What the pipe file says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    crime: Crime,
    /// Where the crimes send rows that make several of each.
    #[serde(default = "lines")]
    lines: String,
}

fn lines() -> String {
    "lines".to_owned()
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
    /// Rejects the first row with its key in a text that a terminal would obey.
    Quote,
    /// Panics with the same.
    QuoteInPanic,
    /// Fills the log.
    Flood,
    /// Fills the log with lines of one byte, which are together as long as the limit.
    FloodShort,
    /// Writes beside each row how many calls the instance has had.
    Count,
    /// Writes beside each row what it is told has happened to it.
    Op,
    /// Adds more columns than any table has.
    Wide,
    /// Never returns from `configure`.
    LoopInConfigure,
    /// Reads a file that is granted as `words`, and writes it beside each row.
    Lookup,
    /// Panics where the first column is 3.
    PanicOnThree,
    /// Never returns where the first column is 3.
    LoopOnThree,
    /// Rejects rows whose first column is 3.
    RejectThree,
    /// Panics on more than two rows.
    PanicOnMany,
    /// Sends odd rows to the target `odd`, and even ones to the table's own.
    Route,
    /// The same, and rejects rows whose first column is 3.
    RouteRejectThree,
    /// Makes two rows of each, numbered.
    FanOut,
    /// Makes two rows of each with the same number.
    SameKey,
    /// The same where the first column is 3, else numbered.
    SameKeyOnThree,
    /// Makes one row of each, all with the same key.
    Merge,
    /// Makes a row of none that it was given.
    Stranger,
    /// Makes rows in another order.
    Shuffle,
    /// Answers a target that it does not declare.
    UnknownTarget,
    /// Leaves out a column that it makes.
    Incomplete,
    /// Answers `unchanged`, though it declares targets.
    Unchanged,
    /// Leaves the key out of a target.
    LoseKey,
    /// Declares one target twice.
    TwiceTheTarget,
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
        Ok(Self(config))
    }

    fn bind(&self, table: &Table) -> Result<BoundHostile, Failure> {
        let mut shape = Shape::new();
        let crime = self.0.crime;
        if crime == Crime::Key {
            shape.replace(0, table.fields[0].clone());
        }
        if crime == Crime::Wide {
            for number in 0..50_000 {
                shape.add(Field::new(format!("c{number}"), DataType::Int8));
            }
        }
        let id = shape.read(0);
        let way = if crime.is_of_targets() {
            targets(&self.0, table, &mut shape)
        } else {
            Way::Stays(shape.add(Field::new("note", DataType::Utf8).not_null()))
        };
        Ok(BoundHostile {
            crime,
            shape,
            id,
            way,
            calls: std::cell::Cell::new(0),
        })
    }
}

impl Crime {
    /// How many rows it makes of one.
    fn lines(self) -> u8 {
        if self == Crime::Merge { 1 } else { 2 }
    }

    fn is_of_targets(self) -> bool {
        matches!(
            self,
            Crime::Route
                | Crime::RouteRejectThree
                | Crime::FanOut
                | Crime::SameKey
                | Crime::SameKeyOnThree
                | Crime::Merge
                | Crime::Stranger
                | Crime::Shuffle
                | Crime::UnknownTarget
                | Crime::Incomplete
                | Crime::Unchanged
                | Crime::LoseKey
                | Crime::TwiceTheTarget
        )
    }
}

fn targets(config: &Config, table: &Table, shape: &mut Shape) -> Way {
    match config.crime {
        Crime::Route | Crime::RouteRejectThree => {
            let even = shape.target(Target::own().pass_all(table));
            let odd = shape.target(Target::named("odd").pass_all(table));
            Way::Routes { even, odd }
        }
        Crime::LoseKey => {
            let only = shape.target(Target::named("lost").pass(1));
            Way::Routes {
                even: only,
                odd: only,
            }
        }
        Crime::TwiceTheTarget => {
            let even = shape.target(Target::named("twin").pass_all(table));
            let odd = shape.target(Target::named("twin").pass_all(table));
            Way::Routes { even, odd }
        }
        _ => {
            let mut lines = Target::named(&config.lines).pass(0);
            let number = lines.make(Field::new("number", DataType::Utf8).not_null());
            let key = match config.crime {
                Crime::Merge => vec![1],
                _ => vec![0, 1],
            };
            let lines = shape.target(lines.pass(1).key(key));
            Way::Lines { lines, number }
        }
    }
}

/// Where the rows go.
#[derive(Debug)]
enum Way {
    Stays(Write),
    Routes { even: To, odd: To },
    Lines { lines: To, number: Made },
}

/// The plugin, bound to a table.
#[derive(Debug)]
pub struct BoundHostile {
    crime: Crime,
    shape: Shape,
    id: Read,
    way: Way,
    calls: std::cell::Cell<u32>,
}

impl Binding for BoundHostile {
    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn transform(&self, batch: &Batch) -> Result<Outcome, Failure> {
        self.calls.set(self.calls.get() + 1);
        match &self.way {
            Way::Stays(note) => self.stay(batch, *note),
            Way::Routes { even, odd } => self.route(batch, *even, *odd),
            Way::Lines { lines, number } => self.lines(batch, *lines, *number),
        }
    }
}

impl BoundHostile {
    fn ids(&self, batch: &Batch) -> Result<Vec<i64>, Failure> {
        let ids = batch.column(self.id).integers()?;
        Ok((0..batch.len())
            .map(|row| ids.get(row).unwrap_or_default())
            .collect())
    }

    fn route(&self, batch: &Batch, even: To, odd: To) -> Result<Outcome, Failure> {
        let (mut even, mut odd) = (Rows::to(even), Rows::to(odd));
        let mut rejected = None;
        for (row, id) in self.ids(batch)?.into_iter().enumerate() {
            match id % 2 {
                _ if id == 3 && self.crime == Crime::RouteRejectThree => rejected = Some(row),
                0 => even.push(row),
                _ => odd.push(row),
            }
        }
        let outcome = Outcome::replace([even, odd]);
        Ok(match rejected {
            Some(row) => outcome.reject(row, "is-three", "as configured"),
            None => outcome,
        })
    }

    fn lines(&self, batch: &Batch, lines: To, number: Made) -> Result<Outcome, Failure> {
        let ids = self.ids(batch)?;
        let mut rows = Rows::to(lines);
        let mut numbers = BytesBuilder::new(DataType::Utf8, 2 * batch.len());
        for (row, id) in ids.into_iter().enumerate() {
            for line in 0..self.crime.lines() {
                rows.push(match self.crime {
                    Crime::Stranger => batch.len(),
                    Crime::Shuffle => batch.len() - 1 - row,
                    _ => row,
                });
                let line = match self.crime {
                    Crime::SameKey => 0,
                    Crime::SameKeyOnThree if id == 3 => 0,
                    _ => line,
                };
                numbers.push(Some(&[b'0' + line]));
            }
        }
        Ok(match self.crime {
            Crime::Unchanged => Outcome::unchanged(),
            Crime::Incomplete => Outcome::replace([rows]),
            Crime::UnknownTarget => {
                let mut shape = Shape::new();
                let targets = [(); 7].map(|()| shape.target(Target::own().pass(0)));
                Outcome::replace([Rows::to(targets[6])])
            }
            _ => Outcome::replace([rows.column(number, numbers.finish())]),
        })
    }

    fn stay(&self, batch: &Batch, note: Write) -> Result<Outcome, Failure> {
        let rows = batch.len();
        let good = Outcome::unchanged().column(note, notes(rows, b"x"));
        let three = || -> Result<Option<usize>, Failure> {
            Ok(self.ids(batch)?.iter().position(|id| *id == 3))
        };
        match self.crime {
            Crime::Lookup => {
                let words = lookup::read("words").map_err(Failure::unsupported)?;
                Ok(Outcome::unchanged().column(note, notes(rows, &words)))
            }
            Crime::PanicOnThree if three()?.is_some() => panic!("as configured"),
            Crime::LoopOnThree if three()?.is_some() => loop {
                std::hint::black_box(());
            },
            Crime::RejectThree => {
                let ids = self.ids(batch)?;
                let rows = (0..).zip(ids.iter()).filter(|(_, id)| **id == 3);
                Ok(rows.fold(good, |outcome, (row, _)| {
                    outcome.reject(row, "is-three", "as configured")
                }))
            }
            Crime::PanicOnMany if rows > 2 => panic!("too many"),
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
            Crime::FewRows => Ok(Outcome::unchanged().column(note, notes(rows - 1, b"x"))),
            Crime::BadText => Ok(Outcome::unchanged().column(note, notes(rows, b"\xff"))),
            Crime::Nulls => {
                Ok(Outcome::unchanged().column(note, Column::nulls(DataType::Utf8, rows)))
            }
            Crime::Drop => Ok(good.keep(Selection::from_fn(rows, |_| false))),
            Crime::Reject => Ok(good.reject(1, "bad-row", "as configured")),
            Crime::Quote => Ok(good.reject(0, "quoted", quoted(&self.ids(batch)?))),
            Crime::QuoteInPanic => panic!("{}", quoted(&self.ids(batch)?)),
            Crime::Flood => {
                for _ in 0..10_000 {
                    log::debug(&"flood ".repeat(100));
                }
                Ok(good)
            }
            Crime::FloodShort => {
                for _ in 0..256 << 10 {
                    log::debug("x");
                }
                Ok(good)
            }
            Crime::Op => {
                let mut words = BytesBuilder::new(DataType::Utf8, rows);
                for row in 0..rows {
                    words.push(Some(format!("{:?}", batch.op(row)).as_bytes()));
                }
                Ok(Outcome::unchanged().column(note, words.finish()))
            }
            Crime::Count => {
                let calls = self.calls.get().to_string();
                Ok(Outcome::unchanged().column(note, notes(rows, calls.as_bytes())))
            }
            _ => Ok(good),
        }
    }
}

fn quoted(ids: &[i64]) -> String {
    format!("id {} of `evil`\nERROR\u{1b}[2J\u{202e}all is well", ids[0])
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
