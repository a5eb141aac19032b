//! The section `ddl`.

use schemars::JsonSchema;

/// What becomes of statements that change tables.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Ddl {
    /// ADD COLUMN.
    #[schemars(extend("default" = "apply"))]
    add_column: Option<Follow>,
    /// DROP COLUMN. Archived, the column stays, and later rows have NULL in it.
    #[schemars(extend("default" = "apply"))]
    drop_column: Option<FollowOrArchive>,
    /// RENAME COLUMN, and CHANGE to another name.
    #[schemars(extend("default" = "apply"))]
    rename_column: Option<Follow>,
    /// MODIFY that keeps every value: wider numbers, longer texts, further labels.
    #[schemars(extend("default" = "apply"))]
    modify_column: Option<Follow>,
    /// What only a fresh load beside the live table can follow: another key, values that change, defaults by expression,
    /// partitions that move rows, another table under the name.
    #[schemars(extend("default" = "apply"))]
    reload: Option<Follow>,
    /// TRUNCATE. Archived, the rows are copied into `<target>_truncated_<version>` first.
    #[schemars(extend("default" = "apply"))]
    truncate: Option<FollowArchiveOrIgnore>,
    /// DROP TABLE, DROP DATABASE, and RENAME away. Archived, the target becomes `<target>_dropped_<n>`; applied, it is
    /// dropped; ignored, it stays. A table that is there again is loaded again.
    #[schemars(extend("default" = "archive"))]
    drop_table: Option<FollowArchiveOrIgnore>,
}

/// What becomes of a statement.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Follow {
    /// The destination follows.
    Apply,
    /// The table is taken out of service until a person decides.
    Quarantine,
}

/// What becomes of a statement that takes something away.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum FollowOrArchive {
    /// The destination follows.
    Apply,
    /// What was there is kept.
    Archive,
    /// The table is taken out of service until a person decides.
    Quarantine,
}

/// What becomes of a statement that takes everything away.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum FollowArchiveOrIgnore {
    /// The destination follows.
    Apply,
    /// What was there is kept under another name.
    Archive,
    /// The destination stays as it is.
    Ignore,
    /// The table is taken out of service until a person decides.
    Quarantine,
}
