//! Columns that the source has dropped and the target keeps: what earlier rows show in them stays, later rows show NULL.
//!
//! What a part from before a column was added lacks of it is read as the column's default, which a row that leaves the
//! column out gets too. So before the default goes, each such part gets the column with what is read there. By an UPDATE,
//! since MATERIALIZE COLUMN of a ClickHouse before 24.2 writes the default over every value (its pull request 58023).

use std::time::{Duration, Instant};

use serde::Deserialize;

use super::client::{ClickHouse, STATEMENT_TIMEOUT};
use super::ddl;
use super::failure::Doing;
use super::target::TargetTable;
use crate::error::{Error, ErrorKind, Result};

/// How long one that nobody can be asked about may take: all parts are rewritten.
const REWRITE_TIMEOUT: Duration = Duration::from_secs(6 * 3600);

/// How often it is looked how many parts are left.
const POLL: Duration = Duration::from_millis(200);

/// And later on: a look goes over all parts of the table.
const POLL_LONGEST: Duration = Duration::from_secs(5);

fn write_out(target: &TargetTable, column: &str, sync: u8) -> String {
    format!(
        "ALTER TABLE {} UPDATE {column} = {column} WHERE 1 SETTINGS mutations_sync = {sync}",
        ddl::table(target),
        column = ddl::ident(column)
    )
}

fn remove_default(target: &TargetTable, column: &str) -> String {
    format!(
        "ALTER TABLE {} MODIFY COLUMN {} REMOVE DEFAULT",
        ddl::table(target),
        ddl::ident(column)
    )
}

/// The parts with rows that do not have the column.
fn count_without(target: &TargetTable, column: &str) -> String {
    let of_table = format!(
        "database = {} AND table = {} AND active",
        ddl::text(target.database()),
        ddl::text(target.name())
    );
    format!(
        "SELECT count() AS parts FROM system.parts WHERE {of_table} AND rows > 0 AND name NOT IN \
         (SELECT name FROM system.parts_columns WHERE {of_table} AND column = {})",
        ddl::text(column)
    )
}

#[derive(Deserialize)]
struct PartsRow {
    parts: u64,
}

impl ClickHouse {
    /// Takes the default from a column that is not written any more, and lets all rows keep what they show. Repeatable.
    ///
    /// # Errors
    /// `DestinationUnavailable` while parts are being rewritten, which goes on by itself; else as any statement.
    pub(super) async fn let_go_of_fill(&self, target: &TargetTable, column: &str) -> Result<()> {
        self.write_into_parts(target, column).await?;
        let sql = remove_default(target, column);
        self.run(&sql, Doing::Alteration(target), STATEMENT_TIMEOUT)
            .await
    }

    /// The parts are looked at meanwhile: a statement that waited for all of them would end with the connection, and be
    /// begun once more.
    async fn write_into_parts(&self, target: &TargetTable, column: &str) -> Result<()> {
        let doing = Doing::Alteration(target);
        let until = Instant::now() + STATEMENT_TIMEOUT;
        let (mut asked, mut pause) = (false, POLL);
        loop {
            // Before the parts are counted: what is done by now is not among them.
            let unfinished = self.unfinished(target).await?;
            let lacking = self.parts_without(target, column).await?;
            let (Some(unfinished), Some(lacking)) = (unfinished, lacking) else {
                let sql = write_out(target, column, 1);
                return self.run(&sql, doing, REWRITE_TIMEOUT).await;
            };
            if lacking == 0 {
                return Ok(());
            }
            // One that an earlier attempt has asked for goes on by itself; of one that was asked for here a replica may not
            // have heard yet.
            if unfinished.count == 0 && !asked {
                let sql = write_out(target, column, 0);
                self.run(&sql, doing, STATEMENT_TIMEOUT).await?;
                asked = true;
            }
            if Instant::now() > until {
                return Err(under_way(target, column, lacking, unfinished.failure));
            }
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(POLL_LONGEST);
        }
    }

    /// None where the account may not look.
    async fn parts_without(&self, target: &TargetTable, column: &str) -> Result<Option<u64>> {
        let doing = Doing::Definition("to look at the parts of a table");
        match self.rows(&count_without(target, column), doing).await {
            Ok(rows) => Ok(rows.first().map(|row: &PartsRow| row.parts)),
            Err(error) if error.kind() == ErrorKind::DestinationDenied => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn under_way(target: &TargetTable, column: &str, parts: u64, failure: String) -> Error {
    let error = Error::new(
        ErrorKind::DestinationUnavailable,
        format!(
            "{parts} parts of {} have not been given the dropped column `{column}` yet, which they show by its default",
            ddl::table(target)
        ),
    )
    .with_hint("wait; or look at system.mutations, and whether merges are stopped: SYSTEM START MERGES");
    match failure.is_empty() {
        true => error,
        false => error.with_source(failure),
    }
}
