//! What becomes of statements that change tables: one choice for each kind, under `ddl`.

use serde::{Deserialize, Serialize};

use super::field::Field;

/// What becomes of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DdlAction {
    /// The destination follows.
    Apply,
    /// The destination follows, and keeps what was there under another name or out of use.
    Archive,
    /// The destination stays as it is, and differs from the source from then on.
    Ignore,
    /// The table is taken out of service until a person decides.
    Quarantine,
}

/// The choices by kind of statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DdlPolicies {
    /// ADD COLUMN.
    pub add_column: DdlAction,
    /// DROP COLUMN; archived, the column stays and gets no more values.
    pub drop_column: DdlAction,
    /// RENAME COLUMN, and CHANGE to another name.
    pub rename_column: DdlAction,
    /// MODIFY that keeps every value.
    pub modify_column: DdlAction,
    /// What only a fresh load can follow: another key, values that change, defaults by expression, partitions that move
    /// rows, another table under the name.
    pub reload: DdlAction,
    /// TRUNCATE; archived, the rows are copied first.
    pub truncate: DdlAction,
    /// DROP TABLE, DROP DATABASE, and RENAME away.
    pub drop_table: DdlAction,
}

impl Default for DdlPolicies {
    /// Everything is followed, and only a whole table is too much to lose to one statement.
    fn default() -> Self {
        Self {
            add_column: DdlAction::Apply,
            drop_column: DdlAction::Apply,
            rename_column: DdlAction::Apply,
            modify_column: DdlAction::Apply,
            reload: DdlAction::Apply,
            truncate: DdlAction::Apply,
            drop_table: DdlAction::Archive,
        }
    }
}

impl DdlPolicies {
    /// Whether nothing was chosen.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

const APPLY: (&str, DdlAction) = ("apply", DdlAction::Apply);
const ARCHIVE: (&str, DdlAction) = ("archive", DdlAction::Archive);
const IGNORE: (&str, DdlAction) = ("ignore", DdlAction::Ignore);
const QUARANTINE: (&str, DdlAction) = ("quarantine", DdlAction::Quarantine);

/// Reads `ddl`.
pub(super) fn read(field: &Field<'_>) -> Option<DdlPolicies> {
    let defaults = DdlPolicies::default();
    let mut section = field.section()?;
    let add_column = section.or("add_column", defaults.add_column, |field| {
        field.choice(&[APPLY, QUARANTINE], &[])
    });
    let drop_column = section.or("drop_column", defaults.drop_column, |field| {
        field.choice(&[APPLY, ARCHIVE, QUARANTINE], &[])
    });
    let rename_column = section.or("rename_column", defaults.rename_column, |field| {
        field.choice(&[APPLY, QUARANTINE], &[])
    });
    let modify_column = section.or("modify_column", defaults.modify_column, |field| {
        field.choice(&[APPLY, QUARANTINE], &[])
    });
    let reload = section.or("reload", defaults.reload, |field| {
        field.choice(&[APPLY, QUARANTINE], &[])
    });
    let truncate = section.or("truncate", defaults.truncate, |field| {
        field.choice(&[APPLY, ARCHIVE, IGNORE, QUARANTINE], &[])
    });
    let drop_table = section.or("drop_table", defaults.drop_table, |field| {
        field.choice(&[APPLY, ARCHIVE, IGNORE, QUARANTINE], &[])
    });
    section.finish();
    Some(DdlPolicies {
        add_column: add_column?,
        drop_column: drop_column?,
        rename_column: rename_column?,
        modify_column: modify_column?,
        reload: reload?,
        truncate: truncate?,
        drop_table: drop_table?,
    })
}
