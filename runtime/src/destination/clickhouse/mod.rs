//! ClickHouse: tables, inserts that answer only when the rows are durable, and a mirror of the pipe's checkpoints.
//!
//! Versions decide who wins (`ReplacingMergeTree(_version, _is_deleted)`), so everything here may be repeated, cut
//! otherwise or overtaken by a stale process: what arrives twice is identical, and what arrives late loses. Statements
//! that forget versions, such as TRUNCATE TABLE, DELETE or a merge with CLEANUP, are therefore never sent. In append
//! tables nobody wins: `append` sees that each version is there once.
//!
//! The way of a batch: [`TargetTable`] says what the table looks like, `encode` turns change batches into the bytes of an
//! Arrow stream, `writer` sends them as one insert and mints [`Durable`], without which no checkpoint is mirrored. Every
//! statement is built in `ddl`; nobody else puts SQL together.

mod account;
mod alter;
mod append;
mod archived;
mod checkpoints;
mod client;
mod convert;
mod create;
mod ddl;
mod dead_letters;
mod encode;
mod exchange;
mod failure;
mod forms;
mod labels;
mod letters_ddl;
mod misfits;
mod outstanding;
mod partition;
mod preflight;
mod retire;
mod rewind;
mod tables;
mod target;
mod transport;
mod types;
mod writer;

pub use alter::{Alteration, DroppedColumns};
pub use checkpoints::{CHECKPOINTS_TABLE, Incomplete, Mirror, MirrorRow};
pub use client::{ClickHouse, ServerFacts};
pub use dead_letters::{DEAD_LETTERS_TABLE, DeadLetter, LetterPage, LetterPlace};
pub use exchange::{Fresh, statement_to_drop};
pub use forms::LabelsByColumn;
pub use tables::{ExistingColumn, ExistingTable, Owner, TARGETS_A_QUERY, TableUuid};
pub use target::{TargetColumn, TargetTable};
pub use writer::Durable;
