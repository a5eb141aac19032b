//! What a pipe that is dropped leaves at the destination, and what of it is cleared away.
//!
//! Targets stay as they are. A table that a load was filling beside one is nobody's any more and is dropped; its comment
//! must carry the pipe's own id. The pipe's claims in `_pipewright_checkpoints` stay: a later pipe of that name counts its
//! terms on from them, so that nothing which a process of the dropped pipe still inserts outranks its rows. The newest row
//! says that the pipe is dropped. All this comes after the pipe's records are gone: were the table of a load dropped
//! before them, a process that ends in between would go on with that load in an empty one.

use std::sync::Arc;
use std::time::Duration;

use super::document::{Reason, ReasonKind};
use super::record::TableRecord;
use super::supervisor::Pipe;
use crate::config::DestinationConfig;
use crate::destination::clickhouse::{ClickHouse, Owner, statement_to_drop};
use crate::error::{Error, ErrorKind, Result};

/// How long a person who drops a pipe waits for a destination that does not answer.
const CLEARING_TIME: Duration = Duration::from_secs(30);

/// What is still to be cleared away.
pub(super) struct Leftovers {
    destination: DestinationConfig,
    owner: Owner,
    /// The tables of loads, and of loads that were given up.
    beside: Vec<String>,
    /// The id with which the pipe has claimed its term; none when it never did, or its rows say already that it is dropped.
    claimant: Option<String>,
}

impl Leftovers {
    /// Those of a pipe as it is recorded.
    pub(super) fn of(pipe: &Pipe) -> Self {
        let (records, record) = (pipe.store.records(), pipe.store.record());
        let config = pipe.effective_config();
        let config = config.unwrap_or_else(|_| Arc::clone(&pipe.config));
        Self {
            destination: config.destination.clone(),
            owner: Owner::new(pipe.store.pipe(), record.id),
            beside: records
                .tables
                .values()
                .flat_map(|table| beside(table))
                .collect(),
            claimant: (record.term > 0).then_some(record.owner),
        }
    }

    /// Clears away what can be; a reason when something is left.
    pub(super) async fn clear_away(mut self) -> Option<Reason> {
        if self.beside.is_empty() && self.claimant.is_none() {
            return None;
        }
        let cleared = tokio::time::timeout(CLEARING_TIME, self.clear()).await;
        let cleared = cleared.unwrap_or_else(|_| {
            let seconds = CLEARING_TIME.as_secs();
            Err(Error::new(
                ErrorKind::DestinationUnavailable,
                format!("ClickHouse has not answered within {seconds} s"),
            ))
        });
        cleared.err().map(|error| self.left(&error))
    }

    async fn clear(&mut self) -> Result<()> {
        let destination = ClickHouse::connect(&self.destination).await?;
        while let Some(name) = self.beside.last() {
            destination.drop_beside(name, &self.owner).await?;
            self.beside.pop();
        }
        if let Some(claimant) = &self.claimant {
            destination
                .mark_dropped(self.owner.pipe(), claimant)
                .await?;
            self.claimant = None;
        }
        Ok(())
    }

    fn left(&self, error: &Error) -> Reason {
        let statements = self.beside.iter().map(|name| {
            let statement = statement_to_drop(&self.destination.database, name);
            format!("{statement};")
        });
        let statements: Vec<String> = statements.collect();
        let (what, remedy) = match self.beside.is_empty() {
            true => (
                "its rows in `_pipewright_checkpoints` do not say so".to_owned(),
                "nothing needs to be done: a pipe of that name can be made all the same".to_owned(),
            ),
            false => (
                format!(
                    "tables of its unfinished loads are left: {}",
                    self.beside.join(", ")
                ),
                statements.join(" "),
            ),
        };
        let message = format!("the pipe is dropped, and {what}");
        // Underneath, as the chain tells it.
        let cause = error.chain();
        let error = Error::new(error.kind(), message)
            .with_hint(remedy)
            .with_source(cause);
        Reason::new(ReasonKind::Warning, &error)
    }
}

/// The tables that loads of this one have made beside its targets.
fn beside(table: &TableRecord) -> Vec<String> {
    let filled = table.beside().into_iter();
    let filled = filled.filter_map(|(name, holds_history)| (!holds_history).then_some(name));
    filled.chain(table.orphans.iter().cloned()).collect()
}
