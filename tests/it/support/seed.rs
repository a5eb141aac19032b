//! Randomness that can be repeated: the seed is printed, and taken from `PIPEWRIGHT_SEED` when that is set.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// The variable that repeats a run.
const VARIABLE: &str = "PIPEWRIGHT_SEED";

/// Where a test's random choices come from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seed(u64);

impl Seed {
    /// A new seed, or the one of the environment; libtest shows the line when the test fails.
    pub(crate) fn new(test: &str) -> Self {
        let given = std::env::var(VARIABLE)
            .ok()
            .and_then(|text| text.parse().ok());
        let seed = Self(given.unwrap_or_else(|| rand::rng().random_range(0..1_000_000_000)));
        eprintln!("{test}: {VARIABLE}={}", seed.0);
        seed
    }

    /// A generator of its own for each use, so that one's choices do not depend on another's timing.
    pub(crate) fn generator(self, which: u64) -> StdRng {
        StdRng::seed_from_u64(self.0.wrapping_mul(1000).wrapping_add(which))
    }
}
