//! The small twins of `testbed soak`: a few seconds of each, from a seed that is printed.

use std::time::Duration;

use anyhow::Result;
use rand::Rng;
use testbed::SourceKind;
use testbed::harness::Stage;
use testbed::soak::{corpus, fuzz, types};

use crate::support::{Seed, on_both_sources, once, program};

on_both_sources! {
    random_tables_are_equal_by_both_paths: 240,
}

once! {
    decoders_withstand_mutated_bytes: 120,
}

/// Tables of one run.
const TABLES: u64 = 2;

async fn random_tables_are_equal_by_both_paths(kind: SourceKind) -> Result<()> {
    let seed = Seed::new("random_tables_are_equal_by_both_paths");
    for which in 0..TABLES {
        let stage = Stage::shared(kind).await?;
        types::round(&stage, program(), seed.generator(which).random()).await?;
    }
    Ok(())
}

async fn decoders_withstand_mutated_bytes() -> Result<()> {
    const SEED: u64 = 20_240_229;
    eprintln!("seed {SEED}");
    let run = || fuzz::run(corpus::load()?, SEED, Duration::from_secs(5));
    let summary = tokio::task::spawn_blocking(run).await??;
    eprintln!("{summary:?}");
    anyhow::ensure!(
        summary.decoded > 100 && summary.decoded < summary.inputs,
        "{summary:?}"
    );
    Ok(())
}
