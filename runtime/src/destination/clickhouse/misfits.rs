//! What keeps a table that exists from holding what a target plans: everything at once, each with the statement that mends
//! it where one can.

use super::tables::{ExistingColumn, ExistingTable};
use super::target::TargetTable;
use super::{append, ddl, partition};
use crate::config::Engine;

/// One thing that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Misfit {
    /// What the table has, as the end of a sentence that begins with the table.
    pub(super) found: String,
    /// What is needed in its place.
    pub(super) needed: String,
    /// The ALTER that mends it; none where ClickHouse has none.
    pub(super) alter: Option<String>,
}

impl Misfit {
    /// What is needed, and what else than its statement leads there.
    pub(super) fn needed(&self) -> String {
        match self.alter {
            Some(_) => self.needed.clone(),
            None => format!(
                "{}: no ALTER does this, but a table that is dropped is created anew; or set `target` to another name",
                self.needed
            ),
        }
    }
}

/// Everything of `existing` that does not fit `target`. Further columns are allowed: they get their defaults.
pub(super) fn misfits(target: &TargetTable, existing: &ExistingTable) -> Vec<Misfit> {
    let mut found = Vec::new();
    engine(target, existing, &mut found);
    keys(target, existing, &mut found);
    // What is no table of a MergeTree has no columns to mend.
    if existing.engine.ends_with("MergeTree") {
        columns(target, existing, &mut found);
    }
    found
}

/// The misfits in one line.
pub(super) fn in_words(misfits: &[Misfit]) -> String {
    misfits
        .iter()
        .map(|misfit| format!("{}, and needed is {}", misfit.found, misfit.needed()))
        .collect::<Vec<_>>()
        .join("; ")
}

fn engine(target: &TargetTable, existing: &ExistingTable, found: &mut Vec<Misfit>) {
    let system = target.system_columns();
    if target.is_append() {
        if existing.keeps_every_row() {
            window(target, existing, found);
        } else {
            found.push(Misfit {
                found: format!("its engine is {}", existing.engine),
                needed: "MergeTree, in which every row stays".to_owned(),
                alter: None,
            });
        }
        return;
    }
    let needed = || {
        format!(
            "ReplacingMergeTree({}, {})",
            ddl::ident(&system.version),
            ddl::ident(&system.deleted)
        )
    };
    if !existing.engine.ends_with("ReplacingMergeTree") {
        found.push(Misfit {
            found: format!("its engine is {}", existing.engine),
            needed: needed(),
            alter: None,
        });
        return;
    }
    let arguments = format!("{},{})", system.version, system.deleted);
    if !bare(&existing.engine_full).contains(&bare(&arguments)) {
        found.push(Misfit {
            found: format!(
                "its engine does not take `{}` and `{}`",
                system.version, system.deleted
            ),
            needed: needed(),
            alter: None,
        });
    }
}

/// An append table must know an insert again that reaches it twice: by default a table that is not replicated knows none.
fn window(target: &TargetTable, existing: &ExistingTable, found: &mut Vec<Misfit>) {
    let (setting, absent) = match existing.engine.as_str() {
        "MergeTree" => (append::WINDOW, 0),
        // As many as a table that we make, or more, by default.
        _ => (append::REPLICATED_WINDOW, u64::MAX),
    };
    let kept = existing.setting(setting).unwrap_or(absent);
    if kept == 0 {
        found.push(Misfit {
            found: format!("it knows no insert again that comes twice ({setting} = 0)"),
            needed: format!("{setting} = {}", append::WINDOW_BLOCKS),
            alter: Some(format!(
                "ALTER TABLE {} MODIFY SETTING {setting} = {}",
                ddl::table(target),
                append::WINDOW_BLOCKS
            )),
        });
    }
}

fn keys(target: &TargetTable, existing: &ExistingTable, found: &mut Vec<Misfit>) {
    let mut key = target.key_names();
    if target.is_append() {
        key.push(&target.system_columns().version);
    }
    // `ORDER BY (a)` is printed with its parentheses, `ORDER BY (a, b)` without.
    let ordered = bare(&existing.sorting_key);
    if ordered.trim_matches(['(', ')']) != bare(&key.join(",")).trim_matches(['(', ')']) {
        found.push(Misfit {
            found: format!("it is ordered by ({})", existing.sorting_key),
            needed: format!("ORDER BY ({})", key.join(", ")),
            alter: None,
        });
    }
    if !target.is_append()
        && !existing.partition_key.is_empty()
        && partition::ensure_key_only(&existing.partition_key, &key).is_err()
    {
        found.push(Misfit {
            found: format!("it is partitioned by {}", existing.partition_key),
            needed:
                "an expression of key columns only, since versions never merge across partitions"
                    .to_owned(),
            alter: None,
        });
    }
}

/// A column that is planned.
struct Planned<'a> {
    name: &'a str,
    sql_type: &'a str,
    /// ClickHouse alters no column of the sorting key.
    in_key: bool,
    /// Whether the type's own default must be what rows get that leave it out.
    bare_default: bool,
    /// The default that it must have.
    default: Option<&'static str>,
}

fn columns(target: &TargetTable, existing: &ExistingTable, found: &mut Vec<Misfit>) {
    let system = target.system_columns();
    let of_source = target
        .columns()
        .iter()
        .enumerate()
        .map(|(index, column)| Planned {
            name: &column.name,
            sql_type: &column.sql_type,
            in_key: target.key_columns().contains(&index),
            bare_default: false,
            default: None,
        });
    let own = |name, sql_type, default: Option<&'static str>| Planned {
        name,
        sql_type,
        in_key: false,
        // A load leaves version and deleted to the type's default, which another default would replace.
        bare_default: default.is_none(),
        default,
    };
    let of_ours = [
        own(system.version.as_str(), "UInt64", None),
        match target.engine() {
            Engine::Replacing => own(system.deleted.as_str(), "UInt8", None),
            Engine::Append => own(append::OP, append::OP_TYPE, None),
        },
        own(
            system.synced_at.as_str(),
            ddl::SYNCED_AT_TYPE,
            Some(ddl::SYNCED_AT_DEFAULT),
        ),
    ];
    let altered = Altered {
        table: ddl::qualified(target.database(), target.name()),
        empty: !existing.rows_present,
    };
    let mut previous: Option<&str> = None;
    let planned: Vec<Planned<'_>> = of_source.chain(of_ours).collect();
    for planned in &planned {
        match existing
            .columns
            .iter()
            .find(|column| column.name == planned.name)
        {
            None => found.push(Misfit {
                found: format!("it has no column `{}`", planned.name),
                needed: planned.definition(),
                alter: altered.add(planned, previous),
            }),
            Some(column) => found.extend(column_misfits(planned, column, &altered, previous)),
        }
        previous = Some(planned.name);
    }
}

fn column_misfits(
    planned: &Planned<'_>,
    column: &ExistingColumn,
    altered: &Altered,
    previous: Option<&str>,
) -> Vec<Misfit> {
    let name = planned.name;
    let mut found = Vec::new();
    if column.column_type != planned.sql_type {
        found.push(Misfit {
            found: format!("its column `{name}` is {}", column.column_type),
            needed: planned.sql_type.to_owned(),
            alter: if is_nullable(&column.column_type) && !is_nullable(planned.sql_type) {
                altered.anew(planned, previous)
            } else {
                altered.modify(planned)
            },
        });
    }
    let kind = column.default_kind.as_str();
    if !matches!(kind, "" | "DEFAULT") {
        found.push(Misfit {
            found: format!("its column `{name}` is {kind}"),
            needed: "a column that rows can be written into".to_owned(),
            alter: altered.replace(planned, kind, previous),
        });
    } else if planned.bare_default && kind == "DEFAULT" {
        found.push(Misfit {
            found: format!("its column `{name}` has a default"),
            needed: "none, since rows of a load leave it to the type's".to_owned(),
            alter: Some(format!(
                "ALTER TABLE {} MODIFY COLUMN {} REMOVE DEFAULT",
                altered.table,
                ddl::ident(name)
            )),
        });
    } else if planned.default.is_some() && kind.is_empty() {
        found.push(Misfit {
            found: format!("its column `{name}` has no default"),
            needed: planned.definition(),
            alter: altered.modify(planned),
        });
    }
    found
}

impl Planned<'_> {
    fn definition(&self) -> String {
        let default = self
            .default
            .map(|default| format!(" DEFAULT {default}"))
            .unwrap_or_default();
        format!("{} {}{default}", ddl::ident(self.name), self.sql_type)
    }
}

/// The table, in statements.
struct Altered {
    table: String,
    /// Whether there are no rows to lose.
    empty: bool,
}

impl Altered {
    /// A column of the sorting key cannot be added to one that stands.
    fn add(&self, planned: &Planned<'_>, previous: Option<&str>) -> Option<String> {
        let place = place(previous);
        (!planned.in_key).then(|| {
            format!(
                "ALTER TABLE {} ADD COLUMN {} {place}",
                self.table,
                planned.definition()
            )
        })
    }

    fn modify(&self, planned: &Planned<'_>) -> Option<String> {
        (!planned.in_key).then(|| {
            format!(
                "ALTER TABLE {} MODIFY COLUMN {}",
                self.table,
                planned.definition()
            )
        })
    }

    /// An expression is taken off. What exists in the INSERT only has none.
    fn replace(&self, planned: &Planned<'_>, kind: &str, previous: Option<&str>) -> Option<String> {
        if kind == "EPHEMERAL" {
            return self.anew(planned, previous);
        }
        (!planned.in_key).then(|| {
            format!(
                "ALTER TABLE {} MODIFY COLUMN {} REMOVE {kind}",
                self.table,
                ddl::ident(planned.name)
            )
        })
    }

    /// Made anew where it stood: ClickHouse takes no NULL away without a default to put in its place (Code 36), though
    /// there are no rows.
    fn anew(&self, planned: &Planned<'_>, previous: Option<&str>) -> Option<String> {
        (!planned.in_key && self.empty).then(|| {
            format!(
                "ALTER TABLE {} DROP COLUMN {}, ADD COLUMN {} {}",
                self.table,
                ddl::ident(planned.name),
                planned.definition(),
                place(previous)
            )
        })
    }
}

fn is_nullable(sql_type: &str) -> bool {
    sql_type.starts_with("Nullable(") || sql_type.starts_with("LowCardinality(Nullable(")
}

fn place(previous: Option<&str>) -> String {
    match previous {
        Some(previous) => format!("AFTER {}", ddl::ident(previous)),
        None => "FIRST".to_owned(),
    }
}

/// Names without quotes and blanks, so that one's own spelling compares with the server's.
fn bare(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_whitespace() && !matches!(c, '`' | '\\'))
        .collect()
}

#[cfg(test)]
#[path = "misfits_tests.rs"]
mod tests;
