//! Queries of ours that may still run although nobody waits for them any more.
//!
//! When an answer is lost, or the process that waited for it, ClickHouse goes on with the insert. Its rows are harmless
//! by their versions as long as tables stay what they are. Before a table is exchanged, dropped, emptied or altered, its
//! outstanding queries are therefore ended. Each write carries an id that says to which table it goes, so whoever owns
//! the table finds them, in whichever process they were begun.

use super::client::{ClickHouse, STATEMENT_TIMEOUT};
use super::ddl;
use super::failure::Doing;
use crate::error::Result;

/// What the ids of all writes into a table begin with.
fn prefix(database: &str, table: &str) -> String {
    format!("pipewright/{database}/{table}/")
}

/// What the ids of changes begin with that are written into an append table, beside a load of it.
fn changes_prefix(database: &str, table: &str) -> String {
    format!("{}change-", prefix(database, table))
}

/// The id of one more write into the table; no other query has it.
pub(super) fn query_id(database: &str, table: &str) -> String {
    format!("{}{:032x}", prefix(database, table), rand::random::<u128>())
}

/// The same for changes that go into an append table.
pub(super) fn change_id(database: &str, table: &str) -> String {
    format!(
        "{}{:032x}",
        changes_prefix(database, table),
        rand::random::<u128>()
    )
}

impl ClickHouse {
    /// Ends every write of ours into the table, and waits until they have gone. Tables that do not exist have none.
    ///
    /// # Errors
    /// As any statement.
    pub(super) async fn end_outstanding(&self, table: &str) -> Result<()> {
        self.end_queries(&prefix(self.database(), table)).await
    }

    /// Ends those that write changes into an append table, and leaves a load of it alone.
    ///
    /// # Errors
    /// As any statement.
    pub(super) async fn end_outstanding_changes(&self, table: &str) -> Result<()> {
        self.end_queries(&changes_prefix(self.database(), table))
            .await
    }

    async fn end_queries(&self, prefix: &str) -> Result<()> {
        let sql = ddl::kill_queries(prefix);
        let doing = Doing::Definition("to end what still writes into a table");
        self.run(&sql, doing, STATEMENT_TIMEOUT).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_whose_name_begins_alike_is_another() {
        assert!(query_id("d", "t").starts_with(&prefix("d", "t")));
        assert!(!query_id("d", "t_resync_1").starts_with(&prefix("d", "t")));
        assert_ne!(query_id("d", "t"), query_id("d", "t"));
        assert!(change_id("d", "t").starts_with(&prefix("d", "t")));
        assert!(!query_id("d", "t").starts_with(&changes_prefix("d", "t")));
    }
}
