//! What an ALTER TABLE, or a table put in another's place, leads to: nothing, an alteration in place, or a load.

use std::sync::Arc;

use super::super::record::{Records, random_server_id};
use super::super::session::LiveTable;
use super::super::setup;
use super::kinds::Kinds;
use super::shape::{Shape, behind_first};
use super::{Stand, Verdict, kept};
use crate::batch::TableName;
use crate::config::DdlAction;
use crate::destination::clickhouse::{Alteration, DroppedColumns, TargetTable};
use crate::error::{Error, ErrorKind, Result};
use crate::source::mysql::binlog::ddl::{Alter, Class, Clause};
use crate::source::mysql::binlog::{Statement, StreamOptions, TableFilter, statements_between};
use crate::source::mysql::catalog::{SourceColumn, SourceTable};
use crate::source::mysql::date_rules::DateRule;
use crate::source::mysql::snapshot;

/// How often the catalog is read for one statement, before a table that is altered all the while is left alone.
const CATALOG_ATTEMPTS: usize = 10;

/// A table in its new form, and the way of its targets there, in the order of the chain's outputs.
#[derive(Debug)]
pub(super) struct Altered {
    pub(super) live: LiveTable,
    pub(super) alterations: Vec<Alteration>,
    /// The columns that have their names by it: added, or called otherwise before.
    pub(super) named: Vec<String>,
}

/// What `alter` leads to for the table.
pub(super) async fn altered(
    stand: Stand<'_>,
    name: &TableName,
    alter: &Alter,
    statement: &Statement,
) -> Result<Verdict> {
    let harmless = |clause: &Clause| {
        matches!(
            clause,
            Clause::Nothing | Clause::Constraint | Clause::Repair | Clause::Default(_)
        )
    };
    if alter.clauses.iter().all(harmless) {
        return Ok(Verdict::Nothing);
    }
    followed(stand, name, (alter, false), statement).await
}

/// What it leads to that a copy with all of the table's rows has taken its place, to which `alter` was done.
pub(super) async fn copied(
    stand: Stand<'_>,
    name: &TableName,
    alter: &Alter,
    statement: &Statement,
) -> Result<Verdict> {
    followed(stand, name, (alter, true), statement).await
}

async fn followed(
    stand: Stand<'_>,
    name: &TableName,
    (alter, is_copy): (&Alter, bool),
    statement: &Statement,
) -> Result<Verdict> {
    let table = stand.session.table(name);
    let (now, later) = catalog_and_later(stand, name, statement).await?;
    let leaves = later.iter().any(|later| leaves(&later.class, name));
    let accept = async || {
        let kinds = Kinds::of_clauses(&table, [alter]);
        kinds.accept(stand, name, statement).await
    };
    let Some(now) = now else {
        return match leaves {
            // Nobody can tell any more what it was in between.
            true => Ok(Verdict::Gone),
            false => Err(Error::new(
                ErrorKind::SchemaConflict,
                "the table was altered, and its definition can no longer be read",
            )
            .with_hint(
                "see that the table and the columns that the pipe file names exist, then retry",
            )
            .with_table(name)),
        };
    };
    if leaves {
        accept().await?;
        return Ok(Verdict::Reload(
            "it was dropped, renamed or created anew since".to_owned(),
        ));
    }
    let later_alters = later.iter().filter_map(|later| match &later.class {
        Class::AlterTable { table, alter } if table == name => Some(alter),
        _ => None,
    });
    let series: Vec<&Alter> = std::iter::once(alter).chain(later_alters).collect();
    let is_last = series.len() == 1;
    let shape = behind_first(&table.source, &series, &now);
    let Some(shape) = shape else {
        accept().await?;
        return Ok(Verdict::Reload(
            "its columns cannot be told from the statement and the catalog".to_owned(),
        ));
    };
    Judge {
        stand,
        name,
        table: &table,
        alter,
        is_copy,
        is_last,
        statement,
    }
    .judge(shape)
    .await
}

/// What the catalog shows of the table, and the statements on it between this one and what is shown.
async fn catalog_and_later(
    stand: Stand<'_>,
    name: &TableName,
    statement: &Statement,
) -> Result<(Option<SourceTable>, Vec<Statement>)> {
    let mut shown = definition(stand, name).await?;
    for _ in 0..CATALOG_ATTEMPTS {
        let later = later(stand, name, statement).await?;
        // A statement that ran since the catalog was read is among `later`, but not in what was read.
        let again = definition(stand, name).await?;
        if shown == again {
            return Ok((shown, later));
        }
        shown = again;
    }
    Err(Error::new(
        ErrorKind::SchemaConflict,
        "statements keep changing the table while its definition is read",
    )
    .with_hint("wait until nobody alters the table, then retry")
    .with_table(name))
}

/// What the catalog shows of the table; none, when it has no such table.
async fn definition(stand: Stand<'_>, name: &TableName) -> Result<Option<SourceTable>> {
    let matched = [(stand.session.table(name).config.clone(), name.clone())];
    match setup::definitions(stand.session, &matched).await {
        Ok(mut shown) => Ok(shown.pop()),
        Err(error) if error.kind() == ErrorKind::SourceMissing => Ok(None),
        Err(error) => Err(error.with_table(name)),
    }
}

/// The statements on the table between this one and the newest place.
async fn later(
    stand: Stand<'_>,
    name: &TableName,
    statement: &Statement,
) -> Result<Vec<Statement>> {
    let source = &stand.session.source;
    let now = snapshot::newest_place(source, stand.session.config.source.position).await?;
    let filter = Arc::new(TableFilter::new([name.clone()]));
    // The pipe's own stream is open under the pipe's id.
    let options = StreamOptions::new(random_server_id(), &stand.session.config.pipe);
    statements_between(source, &statement.end.position, &now, filter, &options).await
}

/// Whether a statement puts another table, or none, under the name.
fn leaves(class: &Class, name: &TableName) -> bool {
    match class {
        Class::DropTable(_) | Class::RenameTable(_) | Class::DropDatabase(_) => true,
        Class::CreateTable { keeps, .. } => !keeps,
        Class::AlterTable { table, alter } => {
            alter.clauses.contains(&Clause::RenameTable) || table != name
        }
        Class::Control(_) | Class::NoEffect | Class::Truncate(_) | Class::Rows | Class::Unknown => {
            false
        }
    }
}

struct Judge<'a> {
    stand: Stand<'a>,
    name: &'a TableName,
    table: &'a LiveTable,
    alter: &'a Alter,
    /// Whether it was done to a copy, whose rows came with INSERT IGNORE.
    is_copy: bool,
    /// Whether the table has not been altered again since.
    is_last: bool,
    statement: &'a Statement,
}

impl Judge<'_> {
    async fn judge(&self, shape: Shape) -> Result<Verdict> {
        let orders_otherwise = self.orders_otherwise(&shape);
        let (kinds, compared) = self.compare(shape);
        let is_same = compared
            .as_ref()
            .is_ok_and(|after| *after == *self.table.source);
        // A load would bring what the pipe file wants to decide by hand.
        if !is_same {
            let accepted = kinds.accept(self.stand, self.name, self.statement);
            accepted.await?;
        }
        let after = match compared {
            Ok(after) => after,
            Err(why) => return Ok(Verdict::Reload(why)),
        };
        // A copy with INSERT IGNORE leaves out rows that are equal where they were not to be.
        let narrower = after.key_beyond(&self.table.source);
        if let (true, Some(key)) = (self.is_copy, narrower) {
            return Ok(Verdict::Reload(format!(
                "it has a unique key of {key}, for which rows may have been left out"
            )));
        }
        let records = self.stand.store.records();
        let loading = records
            .tables
            .get(self.name)
            .is_some_and(|table| table.state.is_loading());
        // Rows may stand in another partition than before.
        if loading && orders_otherwise {
            return Ok(Verdict::Reload("its load had not ended".to_owned()));
        }
        if is_same {
            return Ok(Verdict::Nothing);
        }
        let only_adds =
            kinds.dropped.is_empty() && kinds.renamed.is_empty() && kinds.modified.is_empty();
        if loading && !only_adds {
            return Ok(Verdict::Reload("its load had not ended".to_owned()));
        }
        if !only_adds && self.was_read_behind(&records, &kinds) {
            return Ok(Verdict::Reload(
                "rows were completed from what the source had behind the statement, where other columns may have their names"
                    .to_owned(),
            ));
        }
        let live = self.bind(after).await?;
        let remade = self.reroutes(&live, &kinds);
        if let Some(why) = remade.or_else(|| self.remakes(&live, &kinds)) {
            return Ok(Verdict::Reload(why));
        }
        let live = match self.fill(live, &kinds.added) {
            Ok(live) => live,
            Err(column) => {
                return Ok(Verdict::Reload(format!(
                    "only the source can tell what earlier rows have in `{column}`"
                )));
            }
        };
        let dropped = match self.stand.session.config.ddl.drop_column {
            DdlAction::Archive => DroppedColumns::Keep,
            DdlAction::Apply | DdlAction::Ignore | DdlAction::Quarantine => DroppedColumns::Drop,
        };
        let targets = self.table.targets().zip(live.targets());
        let alterations: std::result::Result<Vec<Alteration>, String> = targets
            .map(|(before, after)| Alteration::plan(before, after, &kinds.renamed, dropped))
            .collect();
        match alterations {
            Ok(alterations) => Ok(Verdict::Alter(Box::new(Altered {
                live,
                alterations,
                named: kinds.named(),
            }))),
            Err(why) => Ok(Verdict::Reload(why)),
        }
    }

    /// Why a plugin that chooses targets would send earlier rows elsewhere now, so that what it made of them is wrong.
    fn reroutes(&self, live: &LiveTable, kinds: &Kinds) -> Option<String> {
        let before = self.table;
        if !before.chain.is_routing() && !live.chain.is_routing() {
            return None;
        }
        if !before
            .targets()
            .map(TargetTable::name)
            .eq(live.targets().map(TargetTable::name))
        {
            return Some("a plugin sends its rows to other targets".to_owned());
        }
        let reads = |table: &LiveTable, column: &String| {
            let steps = table.chain.describe();
            steps.iter().any(|step| step.reads.contains(column))
        };
        let renamed = || kinds.renamed.iter();
        let old = kinds.dropped.iter().chain(renamed().map(|(from, _)| from));
        let new = kinds
            .added
            .iter()
            .chain(&kinds.modified)
            .chain(renamed().map(|(_, to)| to));
        let read = old
            .filter(|column| reads(before, column))
            .chain(new.filter(|column| reads(live, column)))
            .next()?;
        Some(format!(
            "a plugin chooses targets by column `{read}`, which has changed"
        ))
    }

    /// Why plugins would make something else of earlier rows now: one writes a column where another was, reads one of
    /// another type, or binds otherwise to the columns that there are.
    fn remakes(&self, live: &LiveTable, kinds: &Kinds) -> Option<String> {
        let (before, after) = (self.table.chain.describe(), live.chain.describe());
        let steps = || before.iter().chain(&after);
        let both = kinds.renamed.iter().flat_map(|(from, to)| [from, to]);
        let written = both
            .chain(&kinds.dropped)
            .find(|column| steps().any(|step| step.writes.contains(column)));
        if let Some(column) = written {
            return Some(format!(
                "a plugin writes column `{column}`, which comes, goes or has another name"
            ));
        }
        let mut bound = before.iter().zip(&after);
        if let Some(why) = bound.find_map(|(old, new)| kinds.binds_otherwise(old, new)) {
            return Some(why);
        }
        let crosses_as = |table: &LiveTable, column: &String| {
            let schema = &table.source.schema;
            let index = schema.index_of(column)?;
            Some(schema.columns[index].column_type)
        };
        let is_retyped = |column: &&String| {
            let from = kinds.renamed.iter().find(|(_, to)| to == *column);
            let old = from.map_or(*column, |(from, _)| from);
            after.iter().any(|step| step.reads.contains(column))
                && crosses_as(self.table, old) != crosses_as(live, column)
        };
        let column = kinds.modified.iter().find(is_retyped)?;
        Some(format!(
            "a plugin reads column `{column}`, which has another type"
        ))
    }

    /// Whether rows that complete partial images may have been read by names that stand for other columns since: by a later
    /// statement, or by this one, where columns exchange their names. No event brings what such a column had.
    fn was_read_behind(&self, records: &Records, kinds: &Kinds) -> bool {
        let before = &self.table.source.columns;
        let exchanges = kinds.renamed.iter().any(|(from, to)| {
            let mut others = before.iter().filter(|column| column.name != *from);
            others.any(|column| column.name.to_lowercase() == to.to_lowercase())
        });
        if self.is_last && !exchanges {
            return false;
        }
        let read = records.tables.get(self.name);
        let reach = read.and_then(|table| table.image_reach.as_ref());
        reach.is_some_and(|reach| self.statement.end.position.contains(reach) != Some(true))
    }

    /// What the statement does, and the definition to go on with, or why only a load can follow.
    fn compare(&self, shape: Shape) -> (Kinds, std::result::Result<SourceTable, String>) {
        let before = &self.table.source;
        let mut alike = self.ensure_computed_alike(&shape);
        let mut after = shape.table;
        let mut schema = (*after.schema).clone();
        let mut kinds = Kinds::default();
        let rule_before = |column: &SourceColumn| before.date_rule(&column.name);
        let rules: Vec<DateRule> = after
            .columns
            .iter()
            .map(|column| after.date_rule(&column.name))
            .collect();
        for ((column, origin), rule) in after.columns.iter_mut().zip(&shape.origins).zip(rules) {
            let Some(index) = column.included else {
                continue;
            };
            let old = origin.and_then(|origin| before.columns.get(origin));
            let Some(old) = old.filter(|old| old.included.is_some()) else {
                if before.columns.iter().any(|known| known.name == column.name) {
                    let why = format!("column `{}` is another of that name", column.name);
                    alike = alike.and(Err(why));
                }
                kinds.added.push(column.name.clone());
                continue;
            };
            if self.is_changed(old, column) {
                let as_text = rule == DateRule::Text && old.scale != column.scale;
                // The tools that put a table in another's place copy with INSERT IGNORE, whatever the session's mode.
                let mode = kept::Mode {
                    strict: self.statement.strict && !self.is_copy,
                    pads: self.statement.pads,
                };
                let kept = kept::keeps_values(old, column, mode);
                if !kept || as_text || rule != rule_before(old) {
                    let why = format!("the values of column `{}` may have changed", column.name);
                    alike = alike.and(Err(why));
                }
                kinds.modified.push(column.name.clone());
            }
            if old.name != column.name {
                kinds.renamed.push((old.name.clone(), column.name.clone()));
            }
            // ClickHouse takes no NULL away while an older version or a tombstone holds one (error 36).
            if old.nullable && !column.nullable {
                column.nullable = true;
                if let Some(described) = schema.columns.get_mut(index) {
                    described.nullable = true;
                }
            }
        }
        let stays = |ordinal: usize| shape.origins.contains(&Some(ordinal));
        let gone = before.columns.iter().enumerate();
        kinds.dropped = gone
            .filter(|(ordinal, column)| column.included.is_some() && !stays(*ordinal))
            .map(|(_, column)| column.name.clone())
            .collect();
        after.schema = Arc::new(schema);
        (kinds, alike.map(|()| after))
    }

    /// A generated column has other values where one that it is computed from has another definition, also one that is
    /// not replicated; from which it is computed no definition of ours says.
    fn ensure_computed_alike(&self, shape: &Shape) -> std::result::Result<(), String> {
        let after = &shape.table.columns;
        let computed = after
            .iter()
            .find(|column| column.generated && column.included.is_some());
        let Some(computed) = computed else {
            return Ok(());
        };
        let changed = after.iter().zip(&shape.origins).find(|(column, origin)| {
            let old = origin.and_then(|origin| self.table.source.columns.get(origin));
            old.is_some_and(|old| {
                self.is_changed(old, column) || self.compares_otherwise(old, column)
            })
        });
        changed.map_or(Ok(()), |(column, _)| {
            Err(format!(
                "column `{}` has another definition, from which `{}` may be computed",
                column.name, computed.name
            ))
        })
    }

    /// Whether rows that stay as they are for the target may come in another order at the source, or be asked for by a name
    /// that is none any more: by a collation, or by a column that is not replicated.
    fn orders_otherwise(&self, shape: &Shape) -> bool {
        let columns = shape.table.columns.iter().zip(&shape.origins);
        let mut old = columns.filter_map(|(column, origin)| {
            let old = origin.and_then(|origin| self.table.source.columns.get(origin))?;
            Some((old, column))
        });
        old.any(|(old, column)| {
            let is_kept_back = column.included.is_none();
            let is_another = || self.is_changed(old, column) || old.name != column.name;
            (is_kept_back && is_another()) || self.compares_otherwise(old, column)
        })
    }

    /// Whether the column's values may compare otherwise than before. A record of an earlier build does not say how they
    /// did, so there whatever defines it anew counts.
    fn compares_otherwise(&self, old: &SourceColumn, column: &SourceColumn) -> bool {
        if let (Some(before), Some(now)) = (&old.collation, &column.collation) {
            return before != now;
        }
        let said = |clause: &Clause| match clause {
            Clause::Change(_, to, _) => to.to_lowercase() == column.name.to_lowercase(),
            clause => *clause == Clause::Convert,
        };
        column.charset.is_some() && self.alter.clauses.iter().any(said)
    }

    /// Whether the column may hold other values or another type than before; never for its place, name and collation, nor for
    /// a default that does not count.
    fn is_changed(&self, old: &SourceColumn, column: &SourceColumn) -> bool {
        let mut same = column.clone();
        same.name.clone_from(&old.name);
        same.included = old.included;
        same.collation.clone_from(&old.collation);
        same.default.clone_from(&old.default);
        let said = |clause: &Clause| match clause {
            Clause::Change(_, to, _) => to.to_lowercase() == column.name.to_lowercase(),
            _ => false,
        };
        // A generated column's expression is not part of the definition.
        let again = column.generated && self.alter.clauses.iter().any(said);
        same != *old || again || kept::is_numbered_anew(old, column)
    }

    /// A pipe file, or a plugin, that the new form does not fit is the table's trouble, not the pipe's (pitfall 115).
    async fn bind(&self, after: SourceTable) -> Result<LiveTable> {
        let gate = Arc::clone(&self.table.gate);
        let bound = self
            .stand
            .session
            .bind(&self.table.config, Arc::new(after), gate);
        bound.await.map_err(|error| {
            let hint = error
                .hint()
                .unwrap_or("mend the pipe file, and resync the table")
                .to_owned();
            Error::new(
                ErrorKind::SchemaConflict,
                "the table was altered, and the pipe file no longer fits it",
            )
            .with_source(error)
            .with_hint(hint)
            .with_table(self.name)
        })
    }

    /// Says for each added column what the rows get that were there before it. The error is the name of one for which
    /// the destination cannot.
    fn fill(
        &self,
        mut live: LiveTable,
        added: &[String],
    ) -> std::result::Result<LiveTable, String> {
        let source = Arc::clone(&live.source);
        let steps = live.chain.describe();
        for name in added {
            let written = steps.iter().any(|step| step.writes.contains(name));
            let column = source.columns.iter().find(|column| column.name == *name);
            let copied = self.is_copy;
            let fill = column.and_then(|column| kept::fill(column, copied));
            let fill = fill.filter(|_| !written);
            let Some(fill) = fill else {
                return Err(name.clone());
            };
            let as_text = fill.is_some() && source.date_rule(name) == DateRule::Text;
            if as_text {
                return Err(name.clone());
            }
            for target in std::iter::once(&mut live.target).chain(&mut live.routed) {
                if target.ensure_fillable(name, fill).is_err() {
                    return Err(name.clone());
                }
                if let Some(text) = fill {
                    *target = target.clone().with_fill(name, text);
                }
            }
        }
        Ok(live)
    }
}
