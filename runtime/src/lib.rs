//! MySQL and MariaDB tables in ClickHouse, kept in step, through WebAssembly transforms.
//!
//! The modules stand in the order in which data flows. `source`, `transform`, `destination` and `state` know `batch`
//! and never each other; only `pipe` joins them; `config`, `api` and `cli` stand at the rim. ARCHITECTURE.md beside
//! this crate says why, and a test holds the arrows to it.

pub mod error;

pub mod fault;

mod one_line;

mod tls;

pub mod config;

pub mod source;

pub mod batch;

pub mod transform;

pub mod destination;

pub mod state;

pub mod pipe;

pub mod author;

pub mod fetch;

pub mod api;

pub mod cli;

pub mod telemetry;
