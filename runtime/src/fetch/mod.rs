//! What is fetched once and kept: a folder of finished items, and the ordinary clients that fill it.
//!
//! Compilers for plugins come from here when the machine has none; the servers of the tests do too. Nothing needs root,
//! and every call blocks.

pub mod cache;
pub mod command;
pub mod debian;
