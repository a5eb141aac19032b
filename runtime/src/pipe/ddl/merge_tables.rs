//! Tables of the engine MERGE that come over tables of the pipe: rows that go through one are logged under its name.

use super::super::journal::{EventKind, Level, Note};
use super::super::store::PipeStore;
use crate::error::Result;
use crate::source::mysql::binlog::Statement;
use crate::source::mysql::binlog::ddl::{Class, merged};

/// Warns of what Setup would have warned of, had it been there. By the text, since the catalog may be ahead of it.
///
/// # Errors
/// When the store fails.
pub(in crate::pipe) async fn warn_of_merge(store: &PipeStore, statement: &Statement) -> Result<()> {
    let (Class::AlterTable { table: merge, .. } | Class::CreateTable { table: merge, .. }) =
        &statement.class
    else {
        return Ok(());
    };
    let records = store.records();
    for table in merged(&merge.database, &statement.text) {
        if !records.tables.contains_key(&table) {
            continue;
        }
        let text = format!(
            "a MERGE table has come: rows of `{table}` can be written through `{merge}`, under whose name the binlog has \
             them; write to the table itself, or resync it after such changes"
        );
        tracing::warn!(pipe = store.pipe(), table = %table, "{text}");
        let note = Note::new(Level::Warning, EventKind::Transition, text).of_table(&table);
        store.note(note).await?;
    }
    Ok(())
}
