//! Instances that wait for their next batch.
//!
//! Starting one costs about as much as a batch of a cheap plugin (tens of microseconds), so the pool may be small and
//! drop the one that waited longest: with more bound tables than places nothing breaks, and memory stays bounded.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::instance::Instance;

pub(super) struct Pool {
    capacity: usize,
    waiting: Mutex<VecDeque<(u64, Instance)>>,
}

impl Pool {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            waiting: Mutex::default(),
        }
    }

    /// An instance bound as `binding`, the one used last: its memory is warm.
    pub(super) fn take(&self, binding: u64) -> Option<Instance> {
        let mut waiting = self.lock();
        let place = waiting.iter().rposition(|(bound, _)| *bound == binding)?;
        waiting.remove(place).map(|(_, instance)| instance)
    }

    /// Keeps an instance that may be entered again.
    pub(super) fn put(&self, binding: u64, instance: Instance) {
        let oldest = {
            let mut waiting = self.lock();
            waiting.push_back((binding, instance));
            (waiting.len() > self.capacity).then(|| waiting.pop_front())
        };
        // Unmapping memory is left for after the lock.
        drop(oldest);
    }

    /// Drops the instances of a binding that is no more.
    pub(super) fn forget(&self, binding: u64) {
        let gone: VecDeque<_> = {
            let mut waiting = self.lock();
            let (gone, kept) = waiting.drain(..).partition(|(bound, _)| *bound == binding);
            *waiting = kept;
            gone
        };
        drop(gone);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(u64, Instance)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
