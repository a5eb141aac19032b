//! Where a load can start, and the definitions that hold there.
//!
//! The place is taken first, then the definitions are read, then the binlog between the place and now is searched for
//! statements that change one of the tables: if there is one, the definitions may belong to a later place than the start,
//! and all three are taken again. MySQL by file and offset names no better place than where its current file begins, and
//! what has made or altered the tables may be in there: then the place behind the last such statement is taken, once that
//! has ended.

use std::sync::Arc;

use super::session::Session;
use super::setup;
use crate::batch::TableName;
use crate::config::TableConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::source::mysql::binlog::ddl::Class;
use crate::source::mysql::binlog::{Statement, StreamOptions, TableFilter, statements_between};
use crate::source::mysql::catalog::SourceTable;
use crate::source::mysql::position::Position;
use crate::source::mysql::snapshot;

/// How often a start place may be spoiled by a statement before it is given up for the moment.
const ATTEMPTS: usize = 10;

/// Takes the start place and the definitions that hold there.
///
/// # Errors
/// `SourceSetting` when statements keep changing the tables, else whatever the source fails with.
pub(super) async fn take(
    session: &Session,
    matched: &[(TableConfig, TableName)],
    server_id: u32,
) -> Result<(Position, Vec<SourceTable>)> {
    let names: Vec<TableName> = matched.iter().map(|(_, name)| name.clone()).collect();
    let filter = Arc::new(TableFilter::new(names.iter().cloned()));
    let options = StreamOptions::new(server_id, &session.config.pipe);
    let (source, mode) = (&session.source, session.config.source.position);
    let mut behind: Option<Position> = None;
    for _ in 0..ATTEMPTS {
        let start = match behind.take() {
            Some(behind) => behind,
            None => snapshot::take_place(source, mode).await?,
        };
        let tables = setup::definitions(session, matched).await?;
        let now = snapshot::newest_place(source, mode).await?;
        let mut between =
            statements_between(source, &start, &now, Arc::clone(&filter), &options).await?;
        between.retain(|statement| !changes_nothing(&statement.class));
        let Some(last) = between.last() else {
            return Ok((start, tables));
        };
        tracing::info!(at = %last.end.position, "a table was altered while Setup read it; reading again");
        if let Some(table) = keeps_to_itself(last, &names)
            && snapshot::is_shown_behind(source, mode, table).await?
        {
            behind = Some(last.end.position.clone());
        }
    }
    Err(Error::new(
        ErrorKind::SourceSetting,
        "between the place that the load can start at and now, a statement changed one of the tables",
    )
    .with_hint(
        "wait until nobody alters the tables; on MySQL by file and offset also run FLUSH BINARY LOGS, since a load starts \
         where the current file begins",
    ))
}

/// Whether a table that is there stays what it is.
fn changes_nothing(class: &Class) -> bool {
    matches!(
        class,
        Class::CreateTable {
            keeps: true,
            rows_follow: false,
            ..
        }
    )
}

/// The table, of those wanted, that the statement has kept from everybody until it ended.
fn keeps_to_itself<'a>(statement: &'a Statement, wanted: &[TableName]) -> Option<&'a TableName> {
    let is_definition = match &statement.class {
        Class::AlterTable { .. }
        | Class::CreateTable { .. }
        | Class::DropTable(_)
        | Class::RenameTable(_) => true,
        // By DELETE a server says that a MEMORY table is empty, and holds nothing for it.
        Class::Truncate(_) => starts_with_truncate(&statement.text),
        Class::Control(_)
        | Class::NoEffect
        | Class::DropDatabase(_)
        | Class::Rows
        | Class::Unknown => false,
    };
    let mut tables = statement.tables.iter().filter(|_| is_definition);
    tables.find(|table| wanted.contains(table))
}

fn starts_with_truncate(text: &str) -> bool {
    let word = text.trim_start().get(.."TRUNCATE".len());
    word.is_some_and(|word| word.eq_ignore_ascii_case("TRUNCATE"))
}
