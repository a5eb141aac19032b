//! Changes of rows that ClickHouse carries out in the background, one part after the other (mutations). A statement that
//! waited for one would end with the connection, however near it was, so it is looked how far they are.

use std::time::{Duration, Instant};

use serde::Deserialize;

use super::client::{ClickHouse, STATEMENT_TIMEOUT};
use super::ddl;
use super::failure::Doing;
use super::target::TargetTable;
use crate::error::{Error, ErrorKind, Result};

/// How long nothing may be done: one part is rewritten at a time, of up to 150 GB
/// (`max_bytes_to_merge_at_max_space_in_pool`).
const PATIENCE: Duration = Duration::from_secs(6 * 3600);

/// The same where ClickHouse says that it fails, which it tries again by itself.
const PATIENCE_FAILING: Duration = Duration::from_secs(300);

/// How often it is looked how much is left, and how often that is told.
pub(super) const POLL: Duration = Duration::from_millis(200);
pub(super) const TELL: Duration = Duration::from_secs(30);

const DOING: Doing<'static> = Doing::Definition("to look how far changes of rows are");

/// One of `system.mutations`.
#[derive(Debug, Deserialize)]
struct Mutation {
    mutation_id: String,
    is_done: u8,
    parts_to_do: i64,
    latest_fail_reason: String,
    /// Older servers have no such column, and list none that was killed.
    #[serde(default)]
    is_killed: u8,
}

/// What is left to do.
#[derive(Debug, Default)]
pub(super) struct Unfinished {
    pub(super) count: usize,
    parts: i64,
    /// Whether one of them has failed. Why is not shown: it may quote values of the table.
    failing: bool,
}

impl Unfinished {
    fn of<'a>(mutations: impl Iterator<Item = &'a Mutation>) -> Self {
        let mut left = Self::default();
        for mutation in mutations.filter(|mutation| mutation.is_done == 0) {
            left.count += 1;
            left.parts += mutation.parts_to_do;
            left.failing |= !mutation.latest_fail_reason.is_empty();
        }
        left
    }

    /// How long nothing may be done of it.
    pub(super) fn patience(&self) -> Duration {
        match self.failing {
            true => PATIENCE_FAILING,
            false => PATIENCE,
        }
    }
}

/// The error where `what` gets no further.
pub(super) fn stuck(what: String) -> Error {
    Error::new(ErrorKind::DestinationUnavailable, what)
        .with_hint("look at system.mutations, and whether merges are stopped: SYSTEM START MERGES")
}

impl ClickHouse {
    /// What is not done on the table. None where the account may not look.
    pub(super) async fn unfinished(&self, target: &TargetTable) -> Result<Option<Unfinished>> {
        let mutations = self.mutations(target).await?;
        Ok(mutations.map(|mutations| Unfinished::of(mutations.iter())))
    }

    async fn mutations(&self, target: &TargetTable) -> Result<Option<Vec<Mutation>>> {
        let sql = format!(
            "SELECT * FROM system.mutations WHERE database = {} AND table = {}",
            ddl::text(target.database()),
            ddl::text(target.name())
        );
        match self.rows(&sql, DOING).await {
            Ok(rows) => Ok(Some(rows)),
            Err(error) if error.kind() == ErrorKind::DestinationDenied => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends `sql`, which changes rows of the table, and waits until that is done in every part.
    ///
    /// # Errors
    /// `DestinationUnavailable` when it gets no further or is ended, else as any statement.
    pub(super) async fn mutate(&self, target: &TargetTable, sql: &str) -> Result<()> {
        let doing = Doing::Alteration(target);
        // One that an earlier attempt has sent goes on by itself, and does not show that this one is done.
        let Some(earlier) = self.settled(target, &[]).await? else {
            let sql = format!("{sql} SETTINGS mutations_sync = 1");
            return self.run(&sql, doing, PATIENCE).await;
        };
        let sql = format!("{sql} SETTINGS mutations_sync = 0");
        self.run(&sql, doing, STATEMENT_TIMEOUT).await?;
        match self.settled(target, &earlier).await? {
            Some(done) if done.is_empty() => Err(stuck(format!(
                "a rewriting of {} was ended before it was done",
                ddl::table(target)
            ))),
            _ => Ok(()),
        }
    }

    /// Waits until nothing is left to do on the table. The ids of what is done, beside those in `earlier`; what was killed
    /// is not. None where the account may not look.
    async fn settled(
        &self,
        target: &TargetTable,
        earlier: &[String],
    ) -> Result<Option<Vec<String>>> {
        let mut fewest = i64::MAX;
        let (mut progress, mut told) = (Instant::now(), Instant::now());
        loop {
            let Some(mutations) = self.mutations(target).await? else {
                return Ok(None);
            };
            let left = Unfinished::of(mutations.iter());
            if left.count == 0 {
                let done = mutations.into_iter().filter(|one| one.is_killed == 0);
                let ids = done.map(|one| one.mutation_id);
                return Ok(Some(ids.filter(|id| !earlier.contains(id)).collect()));
            }
            if left.parts < fewest {
                (fewest, progress) = (left.parts, Instant::now());
            }
            if progress.elapsed() > left.patience() {
                return Err(stuck(format!(
                    "{} is to be rewritten, and ClickHouse leaves {} parts of it as they are",
                    ddl::table(target),
                    left.parts
                )));
            }
            if told.elapsed() > TELL {
                told = Instant::now();
                tracing::info!(table = %target.source(), parts = left.parts, "waiting until the table is rewritten");
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
