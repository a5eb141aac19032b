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

/// What takes part in an exchange beside the live table.
#[derive(Clone, Copy, Debug)]
pub struct Fresh<'a> {
    /// The name of the freshly loaded table.
    pub shadow: &'a str,
    /// What it is known as.
    pub fresh: &'a str,
    /// What the live one is known as, if there is one.
    pub old: Option<&'a str>,
    /// The name to keep the old one under, whose rows the fresh one does not have; without one it is dropped.
    pub history: Option<&'a str>,
}

impl ClickHouse {
    /// The UUID of the table of that name, if there is one.
    ///
    /// # Errors
    /// As any query.
    pub async fn identity(&self, name: &str) -> Result<Option<String>> {
        Ok(self.inspect(name).await?.map(|found| found.uuid.0))
    }

    /// Puts the fresh table under the name of `live`, where the old one stands, or none does. Repeatable at every step.
    /// After `Ok` the live name and its view show the fresh table, and the old one is gone, or kept under the name that is
    /// returned, where nobody writes to it. Nothing of ours may be inserting into either.
    ///
    /// # Errors
    /// `DestinationRejected` when another table than those two has taken one of the names, else as any statement.
    pub async fn exchange(
        &self,
        live: &TargetTable,
        fresh: Fresh<'_>,
        owner: &Owner,
    ) -> Result<Option<String>> {
        let Fresh {
            shadow,
            fresh,
            old,
            history,
        } = fresh;
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
            // A former statement, whose answer was lost, may have come through as well: two exchanges are none.
            if self.identity(live.name()).await.map_err(tag)?.as_deref() != Some(fresh) {
                return Err(tag(undone(live.name(), shadow)));
            }
        }
        fault::point("swap:4");
        self.refresh_view(live, owner).await?;
        fault::point("swap:5");
        let Some(old) = old else {
            return Ok(None);
        };
        if self.identity(shadow).await.map_err(tag)?.as_deref() != Some(old) {
            return Ok(None);
        }
        match history {
            Some(name) => self.put_away(shadow, old, name, owner).await.map(Some),
            None => self.drop_table(shadow).await.map(|()| None),
        }
        .map_err(tag)
    }

    /// Renames the table `shadow`, known as `old`, to `name`, or to one that is free where a former pipe has left that.
    ///
    /// # Errors
    /// As any statement.
    pub async fn put_away(
        &self,
        shadow: &str,
        old: &str,
        name: &str,
        owner: &Owner,
    ) -> Result<String> {
        let free = self.free_name(name, old).await?;
        self.let_go(shadow, owner).await?;
        let sql = ddl::rename(self.database(), shadow, &free);
        self.run(&sql, DOING, STATEMENT_TIMEOUT).await?;
        Ok(free)
    }

    /// `name`, or where a table has it one that no other gets: with the beginning of the identity of the table to be named.
    pub(super) async fn free_name(&self, name: &str, identity: &str) -> Result<String> {
        Ok(match self.identity(name).await? {
            None => name.to_owned(),
            Some(_) => format!("{name}_{}", identity.split('-').next().unwrap_or(identity)),
        })
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

    pub(super) async fn drop_table(&self, name: &str) -> Result<()> {
        self.end_outstanding(name).await?;
        if self.facts().drops_any_size {
            let sql = ddl::drop_any_size(self.database(), name);
            match self.run(&sql, DOING, STATEMENT_TIMEOUT).await {
                // A profile may forbid the setting, and the size be no matter.
                Err(error) if error.kind() != ErrorKind::DestinationUnavailable => {}
                ended => return ended,
            }
        }
        let sql = ddl::drop_table(self.database(), name);
        self.run(&sql, DOING, STATEMENT_TIMEOUT).await
    }
}

/// The statement with which a person drops a table that was left.
pub fn statement_to_drop(database: &str, name: &str) -> String {
    ddl::drop_table(database, name)
}

fn undone(live: &str, shadow: &str) -> Error {
    Error::new(
        ErrorKind::DestinationUnavailable,
        format!("`{live}` and `{shadow}` were exchanged, and exchanged again by an earlier statement that came late"),
    )
    .with_hint("nothing: it is tried again")
}

fn replaced(live: &str, shadow: &str) -> Error {
    Error::new(
        ErrorKind::DestinationRejected,
        format!("`{live}` or `{shadow}` is no longer the table that was to be exchanged"),
    )
    .with_hint("resync the table once more; it is loaded beside whatever stands there")
}
