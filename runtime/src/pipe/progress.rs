//! What a running pipe shows beyond its records: lag, and the reasons that stand against it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::clock::now_us;
use super::document::Reason;

/// Shared by the tasks of one pipe; read by whoever asks for its status.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Microseconds between the source's commit and now, for the newest transaction applied; 0 when caught up.
    lag_us: AtomicU64,
    loading: AtomicBool,
    following: AtomicBool,
    reasons: Mutex<Vec<Reason>>,
    /// When a plugin last failed on a row that was passed over, microseconds since 1970; 0 when none has.
    rows_failed_us: AtomicU64,
}

/// For how long rows that were passed over stand against the pipe after the last of them.
const ROWS_FAILED_STAND_US: u64 = 60_000_000;

impl Progress {
    /// A flush has been checkpointed.
    pub(super) fn applied(&self, committed_at_us: Option<u64>) {
        if let Some(committed_at_us) = committed_at_us {
            self.lag_us
                .store(now_us().saturating_sub(committed_at_us), Ordering::Relaxed);
        }
    }

    /// The source has nothing for us that is not applied.
    pub(super) fn caught_up(&self) {
        self.lag_us.store(0, Ordering::Relaxed);
    }

    /// Whether tables are being loaded.
    pub(super) fn is_loading(&self) -> bool {
        self.loading.load(Ordering::Relaxed)
    }

    /// Says whether tables are being loaded.
    pub(super) fn set_loading(&self, loading: bool) {
        self.loading.store(loading, Ordering::Relaxed);
    }

    /// Says whether the binlog is being followed: without that there is no lag to show.
    pub(super) fn set_following(&self, following: bool) {
        self.following.store(following, Ordering::Relaxed);
    }

    /// Seconds behind the source, while the binlog is followed.
    pub(super) fn lag_seconds(&self) -> Option<f64> {
        let lag_us = self.lag_us.load(Ordering::Relaxed);
        self.following
            .load(Ordering::Relaxed)
            .then_some(lag_us as f64 / 1e6)
    }

    /// A plugin has failed on rows of the stream, which were passed over.
    pub(super) fn rows_failed(&self) {
        self.rows_failed_us.store(now_us(), Ordering::Relaxed);
    }

    /// When rows were last passed over, if that was lately.
    pub(super) fn rows_failed_lately(&self) -> Option<u64> {
        let at = self.rows_failed_us.load(Ordering::Relaxed);
        (at > 0 && now_us().saturating_sub(at) < ROWS_FAILED_STAND_US).then_some(at)
    }

    /// Replaces the standing reasons.
    pub(super) fn set_reasons(&self, reasons: Vec<Reason>) {
        *self.reasons.lock().unwrap_or_else(PoisonError::into_inner) = reasons;
    }

    /// The standing reasons.
    pub(super) fn reasons(&self) -> Vec<Reason> {
        self.reasons
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
