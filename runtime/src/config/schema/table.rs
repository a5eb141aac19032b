//! What an entry of `tables` means, and where its rows go.

use schemars::JsonSchema;

/// Which source table an entry means.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum TableSource {
    /// `database.table`, `*` being a wildcard.
    Pattern(String),
    /// Both names taken literally, whatever characters they hold.
    Literal(TableSourceNames),
}

/// Both names taken literally.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct TableSourceNames {
    /// The database.
    database: String,
    /// The table.
    table: String,
}

/// The target's engine.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(super) enum Engine {
    /// ReplacingMergeTree: one row for each key, the latest; read it through the view `<table>_current`.
    Replacing,
    /// MergeTree: a row for every change, with `_op` (insert, update, delete) and `_version`, in the order of the binlog. A
    /// row of the load is an insert of version 0.
    Append,
}

/// What becomes of a table without a key.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(super) enum Keyless {
    /// It is refused, with the advice to give it a key.
    Refuse,
    /// As with `engine: append`; an update is a delete and an insert, and the view `<table>_current` counts equal rows.
    Append,
}
