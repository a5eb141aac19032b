//! One change at a time of each pipe of a process: a pipe that takes long to stop holds up no other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

/// Who is making a pipe of some name, or puts another in its place.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// Waits for whoever works on the pipe of that name; the next waits until the guard is dropped.
    pub(super) async fn of(&self, name: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Whoever works or waits holds one as well.
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(name.to_owned()).or_default())
        };
        turn.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn who_works_on_a_pipe_is_waited_for_and_holds_up_no_other() {
        let turns = Turns::default();
        let slow = turns.of("slow").await;
        assert!(turns.of("other").now_or_never().is_some());
        assert!(turns.of("slow").now_or_never().is_none());
        drop(slow);
        assert!(turns.of("slow").now_or_never().is_some());
        drop(turns.of("last").await);
        assert_eq!(turns.0.lock().expect("nobody panicked").len(), 1);
    }
}
