//! Instances that wait for their next batch.
//!
//! A binding has never more of them than calls have run at once, so places are as many as the bound tables need. What bounds
//! them is memory: beyond it the one that waited longest goes, and its table starts another, which costs about as much as a
//! batch of a cheap plugin (tens of microseconds) and far more where the guest is an interpreter.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub(super) struct Pool<T> {
    /// So many may wait whatever they hold: as many calls run at once, so their memory was in use a moment ago.
    at_once: usize,
    most_bytes: u64,
    waiting: Mutex<VecDeque<Waiting<T>>>,
}

struct Waiting<T> {
    binding: u64,
    bytes: u64,
    instance: T,
}

impl<T> Pool<T> {
    pub(super) fn new(at_once: usize, most_bytes: u64) -> Self {
        Self {
            at_once,
            most_bytes,
            waiting: Mutex::default(),
        }
    }

    /// An instance bound as `binding`, the one used last: its memory is warm.
    pub(super) fn take(&self, binding: u64) -> Option<T> {
        let mut waiting = self.lock();
        let place = waiting.iter().rposition(|one| one.binding == binding)?;
        waiting.remove(place).map(|one| one.instance)
    }

    /// Keeps an instance that may be entered again, and holds so many bytes.
    pub(super) fn put(&self, binding: u64, bytes: u64, instance: T) {
        let mut oldest = Vec::new();
        {
            let mut waiting = self.lock();
            waiting.push_back(Waiting {
                binding,
                bytes,
                instance,
            });
            let mut held: u64 = waiting.iter().map(|one| one.bytes).sum();
            while held > self.most_bytes && waiting.len() > self.at_once {
                let Some(one) = waiting.pop_front() else {
                    break;
                };
                held -= one.bytes;
                oldest.push(one);
            }
        }
        // Unmapping memory is left for after the lock.
        drop(oldest);
    }

    /// Drops the instances of a binding that is no more.
    pub(super) fn forget(&self, binding: u64) {
        let gone: VecDeque<_> = {
            let mut waiting = self.lock();
            let (gone, kept) = waiting.drain(..).partition(|one| one.binding == binding);
            *waiting = kept;
            gone
        };
        drop(gone);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Waiting<T>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_follow_the_tables_until_their_memory_is_used_up() {
        let pool = Pool::new(2, 100);
        for binding in 0..10 {
            pool.put(binding, 10, binding);
        }
        assert!((0..10).all(|binding| pool.take(binding) == Some(binding)));
        for binding in 0..12 {
            pool.put(binding, 10, binding);
        }
        let left: Vec<u64> = (0..12)
            .filter(|binding| pool.take(*binding).is_some())
            .collect();
        assert_eq!(
            left,
            [2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
            "the oldest go first"
        );
        for binding in 0..3 {
            pool.put(binding, 1_000, binding);
        }
        let left = [0, 1, 2].map(|binding| pool.take(binding));
        assert_eq!(
            left,
            [None, Some(1), Some(2)],
            "as many as run at once may be larger"
        );
        pool.put(1, 10, 1);
        pool.forget(1);
        assert_eq!(pool.take(1), None);
    }
}
