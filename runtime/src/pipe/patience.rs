//! Waiting for ClickHouse in the middle of a run.
//!
//! While ClickHouse is away the rows that are due stay where they are, and so does the source's stream: it is not read and
//! keeps its connection, and nothing has to be read again when ClickHouse is back. What it then holds may be less than it
//! had acknowledged; its newest checkpoint tells, and a run that finds it older ends, so that the next one goes back to it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::lost;
use super::progress::Progress;
use super::session::Session;
use super::store::PipeStore;
use super::track::Track;
use crate::error::{Error, ErrorKind, Result};

/// The first wait; doubled each time.
const FIRST: Duration = Duration::from_millis(200);

/// The longest: a server that is back is noticed within it.
const LONGEST: Duration = Duration::from_secs(5);

/// Between the attempts of one piece of work, which must be of a kind that may be repeated.
#[derive(Debug)]
pub(super) struct Patience<'a> {
    pub(super) session: &'a Session,
    pub(super) store: &'a PipeStore,
    pub(super) progress: &'a Progress,
    pub(super) track: &'a Track,
    /// Ends the waiting: then the error is the run's.
    pub(super) stop: &'a CancellationToken,
    /// None before the first failure.
    pub(super) delay: Option<Duration>,
}

impl Patience<'_> {
    /// The work has failed: waits until it is time to try again.
    ///
    /// # Errors
    /// `error` itself when waiting does not help: it is of another kind, the run is to stop, or ClickHouse is back without
    /// all that it had.
    pub(super) async fn again(&mut self, error: Error) -> Result<()> {
        if error.kind() != ErrorKind::DestinationUnavailable {
            return Err(error);
        }
        let mut delay = self.delay.unwrap_or(FIRST);
        self.wait(&error, &mut delay).await;
        self.delay = Some(delay);
        if self.stop.is_cancelled() || !self.holds_the_checkpoint().await {
            return Err(error);
        }
        Ok(())
    }

    /// The work is done.
    pub(super) fn over(self) {
        if self.delay.is_some() {
            self.progress.set_reasons(Vec::new());
        }
    }

    async fn wait(&self, error: &Error, delay: &mut Duration) {
        tracing::warn!(
            pipe = self.store.pipe(),
            retry_in_ms = delay.as_millis() as u64,
            "{}",
            error.chain()
        );
        self.progress.retrying(error);
        // Jitter keeps tables that lost one server from returning all at once.
        let jittered = delay.mul_f64(rand::random_range(0.75..1.25));
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(jittered) => {}
        }
        *delay = (*delay * 2).min(LONGEST);
    }

    /// Whether what ClickHouse holds is not proved to be older than what it had acknowledged. While it does not answer
    /// there is no proof.
    async fn holds_the_checkpoint(&self) -> bool {
        if *self.track != Track::Pipe {
            return true;
        }
        let record = self.store.record();
        if record.checkpoint.is_none() {
            return true;
        }
        let destination = &self.session.destination;
        match destination.read_mirror(self.store.pipe()).await {
            Ok(mirror) => mirror.is_some_and(|mirror| lost::is_held(&record, &mirror)),
            Err(error) => error.kind() == ErrorKind::DestinationUnavailable,
        }
    }
}
