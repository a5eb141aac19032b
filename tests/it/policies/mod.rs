//! Policies: every choice of `types`, for the pipe and for a column, on both sources and both paths, with its counter.

mod choices;
mod dates;
mod keys;
mod lifetime;
mod overrides;
mod trial;
