//! The plugin host: user code in a sandbox, over record batches.
//!
//! A plugin is a WebAssembly component of the world `transform` in `wit/`. [`Engine::load`] makes a [`Plugin`] of a file
//! and its configuration, [`Chain::bind`] binds plugins to a table's columns, [`Chain::apply`] sends batches through. Only
//! the columns that a plugin declares cross into the sandbox, only those that it makes cross back; all others pass by
//! reference.
//!
//! A guest is not trusted with anything: it reaches nothing but a log and the files that it is granted, its memory, its time
//! and its output are bounded, and what it returns is checked whole before use. It cannot set what happened to a row or
//! when, and cannot keep a delete from the destination. Rows on which it fails are found by halving, and become what the
//! pipe file says.

mod addresses;
mod binding;
mod blank;
mod build;
mod cache;
mod chain;
mod component;
mod convert;
mod engine;
mod faults;
mod hold_up;
mod inspect;
mod instance;
mod limits;
mod outputs;
mod passing;
mod pool;
mod target;
mod verdict;
mod version;

pub use build::{Built, build_plugin, build_plugin_to, finish_component, finish_module};
pub use chain::{Applied, Chain, ChainOutput, StepDescription};
pub use engine::Engine;
pub use faults::Fault;
pub(crate) use faults::first_start;
pub use inspect::Inspection;
pub use instance::Plugin;
pub use version::PluginInfo;
