//! A freshly loaded table in the place of the live one, in one atomic step.
//!
//! ClickHouse knows a table by its UUID, whatever its name. Both are written down before the exchange; afterwards the
//! live name with the fresh table's UUID says that it is done, so that it is never done twice, which would undo it.

use super::client::{ClickHouse, STATEMENT_TIMEOUT};
use super::ddl;
use super::failure::Doing;
use super::tables::Owner;
use super::target::TargetTable;
use crate::error::{Error, ErrorKind, Result};
use crate::fault;

const DOING: Doing<'static> = Doing::Definition("to exchange tables");

impl ClickHouse {
    /// The UUID of the table of that name, if there is one.
    ///
    /// # Errors
    /// As any query.
    pub async fn identity(&self, name: &str) -> Result<Option<String>> {
        Ok(self.inspect(name).await?.map(|found| found.uuid.0))
    }

    /// Puts the table `shadow`, known as `fresh`, under the name of `live`, where the table known as `old` stands, or
    /// none does. Repeatable at every step. After `Ok` the live name and its view show the fresh table, and the old one
    /// is gone. Nothing of ours may be inserting into either.
    ///
    /// # Errors
    /// `DestinationRejected` when another table than those two has taken one of the names, else as any statement.
    pub async fn exchange(
        &self,
        live: &TargetTable,
        shadow: &str,
        old: Option<&str>,
        fresh: &str,
        owner: &Owner,
    ) -> Result<()> {
        let tag = |error: Error| error.with_table(live.source());
        let standing = self.identity(live.name()).await.map_err(tag)?;
        if standing.as_deref() != Some(fresh) {
            let beside = self.identity(shadow).await.map_err(tag)?;
            if standing.as_deref() != old || beside.as_deref() != Some(fresh) {
                return Err(tag(replaced(live.name(), shadow)));
            }
            // A write of ours that nobody waits for would reach another table under the same name.
            self.end_outstanding(live.name()).await.map_err(tag)?;
            self.end_outstanding(shadow).await.map_err(tag)?;
            let sql = match old {
                Some(_) => ddl::exchange(self.database(), live.name(), shadow),
                None => ddl::rename(self.database(), shadow, live.name()),
            };
            self.run(&sql, DOING, STATEMENT_TIMEOUT)
                .await
                .map_err(tag)?;
        }
        fault::point("swap:4");
        self.refresh_view(live, owner).await?;
        fault::point("swap:5");
        if let Some(old) = old
            && self.identity(shadow).await.map_err(tag)?.as_deref() == Some(old)
        {
            self.drop_table(shadow).await.map_err(tag)?;
        }
        Ok(())
    }

    /// Drops a table that this owner made beside a live one. Another's, or none, is left alone.
    ///
    /// # Errors
    /// As any statement.
    pub async fn drop_beside(&self, name: &str, owner: &Owner) -> Result<()> {
        match self.inspect(name).await? {
            Some(found) if found.comment == owner.to_string() => self.drop_table(name).await,
            Some(_) | None => Ok(()),
        }
    }

    async fn drop_table(&self, name: &str) -> Result<()> {
        self.end_outstanding(name).await?;
        self.run(
            &ddl::drop_table(self.database(), name),
            DOING,
            STATEMENT_TIMEOUT,
        )
        .await
    }
}

/// The statement with which a person drops a table that was left.
pub fn statement_to_drop(database: &str, name: &str) -> String {
    ddl::drop_table(database, name)
}

fn replaced(live: &str, shadow: &str) -> Error {
    Error::new(
        ErrorKind::DestinationRejected,
        format!("`{live}` or `{shadow}` is no longer the table that was to be exchanged"),
    )
    .with_hint("resync the table once more; it is loaded beside whatever stands there")
}
