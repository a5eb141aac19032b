//! Long runs against the unexpected: mutated bytes through the decoders, random tables over both paths,
//! random commands, and everything at once under SIGKILL.
//!
//! Each has a small twin among the tests. All choices come from a seed that is printed, so that a run can be repeated.

pub mod api;
pub mod commands;
pub mod corpus;
pub mod fuzz;
pub mod large;
pub mod outage;
pub mod seeds;
pub mod types;
