//! Statements of the binlog that change a replicated table, applied to an end state.
//!
//! TRUNCATE becomes a tombstone for every live row below its place. ADD COLUMN alters the destination and the recorded
//! definition. Everything else takes the table out of service by name: applying it wrongly would be worse. The
//! caller has made everything before the statement durable; each step here may be repeated, and the table's new
//! definition is persisted in the same write as the checkpoint that moves past the statement.

use std::sync::Arc;

use super::session::{LiveTable, Session};
use super::store::PipeStore;
use super::track::Track;
use crate::batch::{TableName, Version};
use crate::destination::clickhouse::Owner;
use crate::error::{Error, ErrorKind, Result};
use crate::source::mysql::binlog::Statement;
use crate::source::mysql::binlog::ddl::Class;
use crate::source::mysql::catalog::{self, ColumnDefault, SourceTable};
use crate::source::mysql::date_rules::DateRule;

/// Applies one statement and moves the checkpoint past it.
///
/// # Errors
/// `Unsupported`, naming table and statement class, for what this build does not apply.
pub(super) async fn apply(
    session: &Session,
    store: &PipeStore,
    track: &Track,
    term: u16,
    statement: &Statement,
) -> Result<()> {
    let mut altered = None;
    let mut durable = Vec::new();
    match &statement.class {
        Class::Truncate(name) => {
            let table = session.table(name);
            // Rows that a partition has read before the TRUNCATE must be there to get their tombstone; a partition that
            // is read from now on sees the truncated table.
            let _gate = table.gate.write().await;
            let version = Version::new(term, statement.offset);
            for target in table.stream_targets() {
                let done = session.destination.tombstone_below(target, version).await;
                durable.push(done.map_err(|error| error.with_table(name))?);
            }
        }
        Class::AlterTable(name) => {
            let table = session.table(name);
            let gate = Arc::clone(&table.gate);
            let _held = gate.write().await;
            if let Some(after) = added_columns(session, &table.source).await? {
                let mut after = session
                    .bind(&table.config, Arc::new(after), Arc::clone(&table.gate))
                    .await?;
                fill_added(&table.source, &mut after)?;
                let shadow = store
                    .records()
                    .tables
                    .get(name)
                    .and_then(|t| t.shadow.clone());
                let after = after.with_shadow(shadow.as_ref());
                let owner = Owner::new(store.pipe(), store.record().id);
                for (old, new) in table.stream_targets().zip(after.stream_targets()) {
                    let done = session.destination.add_column(old, new, &owner).await;
                    done.map_err(|error| error.with_table(name))?;
                }
                altered = Some((name.clone(), SourceTable::clone(&after.source)));
                session.put(after);
            }
        }
        Class::Control(_)
        | Class::NoEffect
        | Class::CreateTable { .. }
        | Class::DropTable(_)
        | Class::RenameTable(_)
        | Class::DropDatabase(_)
        | Class::Rows
        | Class::Unknown => return Err(refused(store, track, statement)),
    }
    let end = statement.end.clone();
    track
        .checkpoint(
            session,
            store,
            end,
            statement.committed_at_us,
            &durable,
            |draft| {
                if let Some((name, source)) = altered {
                    draft.table_mut(&name).source = source;
                }
            },
        )
        .await
}

/// Says for each column that `after` has over `before` what the rows get that were there before it.
fn fill_added(before: &SourceTable, after: &mut LiveTable) -> Result<()> {
    let source = Arc::clone(&after.source);
    for column in source
        .columns
        .iter()
        .filter(|column| !knows(before, column))
    {
        let literal = match &column.default {
            ColumnDefault::Literal(text) => Some(text.as_str()),
            ColumnDefault::None | ColumnDefault::Computed => None,
        };
        for target in std::iter::once(&mut after.target).chain(&mut after.routed) {
            target.ensure_fillable(&column.name, literal)?;
            if let Some(text) = literal {
                *target = target.clone().with_fill(&column.name, text);
            }
        }
    }
    Ok(())
}

fn refused(store: &PipeStore, track: &Track, statement: &Statement) -> Error {
    let what = match &statement.class {
        Class::Truncate(_) => "TRUNCATE",
        Class::AlterTable(_) => "ALTER TABLE",
        Class::CreateTable { .. } => "CREATE TABLE",
        Class::DropTable(_) => "DROP TABLE",
        Class::RenameTable(_) => "RENAME TABLE",
        Class::DropDatabase(_) => "DROP DATABASE",
        Class::Rows => "a row change in statement form (binlog_format is not ROW in its session)",
        Class::Control(_) | Class::NoEffect | Class::Unknown => {
            "a statement of a kind that it does not know"
        }
    };
    let error = Error::new(
        ErrorKind::Unsupported,
        format!(
            "the source ran {what} before {}, which this build does not apply",
            statement.end.position
        ),
    )
    .with_hint("resync the table, so that its new definition is loaded");
    let records = store.records();
    match statement
        .tables
        .iter()
        .find(|name| track.carries(&records, name))
    {
        Some(table) => error.with_table(table),
        None => error,
    }
}

/// The table's definition after an ALTER TABLE, if columns were added; none if nothing that concerns us changed.
///
/// The catalog may already show a later definition than the statement's. That is noticed, not believed: the row events
/// in between contradict it, and the decoder refuses them.
async fn added_columns(session: &Session, before: &SourceTable) -> Result<Option<SourceTable>> {
    let name = before.name();
    let matched = [(session.table(name).config.clone(), name.clone())];
    let after = super::setup::definitions(session, &matched).await?.pop();
    let after = after.ok_or_else(|| {
        Error::new(
            ErrorKind::SchemaConflict,
            "the table no longer exists at the source",
        )
        .with_table(name)
    })?;
    if after == *before {
        return Ok(None);
    }
    let mut old = before.columns.iter();
    let mut next_old = old.next();
    for column in &after.columns {
        match next_old {
            Some(known) if same_column(known, column) => next_old = old.next(),
            _ if !knows(before, column) => {
                ensure_addable(name, column)?;
                ensure_no_zero_date_as_text(&after, column)?;
            }
            _ => return Err(changed(name, &column.name)),
        }
    }
    match next_old {
        None if key_names(before) == key_names(&after) => Ok(Some(after)),
        None => Err(changed(name, "the key")),
        Some(gone) => Err(changed(name, &gone.name)),
    }
}

fn knows(table: &SourceTable, column: &catalog::SourceColumn) -> bool {
    table.columns.iter().any(|known| known.name == column.name)
}

/// Equal but for the place among the included columns, and for the default: rows carry their values whatever it is.
fn same_column(before: &catalog::SourceColumn, after: &catalog::SourceColumn) -> bool {
    let mut after = after.clone();
    after.included = before.included;
    after.default.clone_from(&before.default);
    *before == after
}

fn key_names(table: &SourceTable) -> Vec<&str> {
    table
        .schema
        .key
        .iter()
        .filter_map(|&index| table.schema.columns.get(index))
        .map(|c| c.name.as_str())
        .collect()
}

/// Rows that were there before an ADD COLUMN get its default without row events (pitfall 42): a literal one is given to
/// them at the destination. Without a default they get NULL or the type's own, which the destination shows by itself;
/// the type's own of an ENUM is its first label.
fn ensure_addable(table: &TableName, column: &catalog::SourceColumn) -> Result<()> {
    let plain = !matches!(
        column.data_type.as_str(),
        "bit" | "set" | "binary" | "varbinary"
    );
    match &column.default {
        ColumnDefault::None if column.nullable || column.data_type != "enum" => return Ok(()),
        ColumnDefault::Literal(_) if plain => return Ok(()),
        ColumnDefault::None | ColumnDefault::Literal(_) | ColumnDefault::Computed => {}
    }
    Err(Error::new(
        ErrorKind::Unsupported,
        format!(
            "column `{}` was added with a default that is no plain literal, which this build cannot give to earlier rows",
            column.name
        ),
    )
    .with_table(table)
    .with_hint("resync the table"))
}

/// Earlier rows of a NOT NULL date have the zero date, and a column of texts would show them the empty one.
fn ensure_no_zero_date_as_text(table: &SourceTable, column: &catalog::SourceColumn) -> Result<()> {
    let as_text = table.date_rule(&column.name) == DateRule::Text;
    if !as_text || column.nullable || column.default != ColumnDefault::None {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Unsupported,
        format!(
            "column `{}` was added as NOT NULL without a default, and earlier rows' zero dates cannot be given as text",
            column.name
        ),
    )
    .with_table(table.name())
    .with_hint("resync the table"))
}

fn changed(table: &TableName, what: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("ALTER TABLE changed or dropped `{what}`; this build applies ADD COLUMN only"),
    )
    .with_table(table)
    .with_hint("resync the table, so that its new definition is loaded")
}
