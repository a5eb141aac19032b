//! A plugin that asks WASI for what it may not have, and writes down what it got beside each row.

#[cfg(target_arch = "wasm32")]
mod attempts;

use pipewright_sdk::{
    Batch, Binding, BytesBuilder, DataType, Failure, Field, Outcome, Problem, Shape, Table,
    Transform, Write, export,
};
use serde::Deserialize;

export!(Asks);

/// The plugin, configured.
#[derive(Debug)]
pub struct Asks(What);

/// What the pipe file says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    ask: What,
}

/// What it asks for.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Variables, arguments, the working directory, a terminal.
    Environment,
    /// Folders that were opened for it.
    Files,
    /// The time, twice.
    Clocks,
    /// To wait for an hour.
    Sleep,
    /// Random numbers of each kind, twice.
    Random,
    /// Standard input, output and error.
    Streams,
    /// An address, and sockets of both kinds.
    Network,
    /// A request to a server.
    Http,
    /// The end of the process.
    Exit,
    /// A file by a handle that it made up.
    Forged,
    /// More random bytes than there is memory for.
    Greed,
    /// Handles without end.
    Handles,
}

impl Transform for Asks {
    type Config = Config;
    type Binding = BoundAsks;

    fn new(config: Config) -> Result<Self, Vec<Problem>> {
        Ok(Self(config.ask))
    }

    fn bind(&self, _: &Table) -> Result<BoundAsks, Failure> {
        let mut shape = Shape::new();
        let got = shape.add(Field::new("got", DataType::Utf8).not_null());
        Ok(BoundAsks {
            what: self.0,
            shape,
            got,
        })
    }
}

/// The plugin, bound to a table.
#[derive(Debug)]
pub struct BoundAsks {
    what: What,
    shape: Shape,
    got: Write,
}

impl Binding for BoundAsks {
    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn transform(&self, batch: &Batch) -> Result<Outcome, Failure> {
        let got = ask(self.what);
        let mut builder = BytesBuilder::new(DataType::Utf8, batch.len());
        for _ in 0..batch.len() {
            builder.push(Some(got.as_bytes()));
        }
        Ok(Outcome::unchanged().column(self.got, builder.finish()))
    }
}

#[cfg(target_arch = "wasm32")]
fn ask(what: What) -> String {
    attempts::attempt(what)
}

/// There is no WASI to ask outside of a sandbox.
#[cfg(not(target_arch = "wasm32"))]
fn ask(what: What) -> String {
    format!("{what:?}")
}
