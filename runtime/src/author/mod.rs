//! What an author of plugins works with, away from any server: a first crate, cases that run in the real sandbox, figures.
//!
//! Everything goes through the same [`crate::transform`] as a pipe does; nothing here knows a source or a destination.

mod bench;
mod c;
mod cases;
mod check;
mod csv;
mod keys;
mod project;
mod rows;
mod scaffold;
mod table;
mod toolchain;

pub use bench::{Figures, bench};
pub use cases::{Case, CaseBatch, applied_to_json, read_cases};
pub use check::{Difference, Report, bind, check};
pub use project::{Language, Project};
pub use rows::row_to_json;
pub use scaffold::scaffold;
pub use table::read_table;
pub use toolchain::{Toolchain, fetch_toolchain, find_toolchain};
