//! The small twins of `testbed soak`: a few seconds of each, from a seed that is printed.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use rand::Rng;
use testbed::harness::{Stage, run_to_end};
use testbed::soak::types::Breadth;
use testbed::soak::{commands, large, outage, seeds, types};
use testbed::{SourceKind, SourceOptions, SourceServer};

use crate::support::{Seed, on_all_sources, on_both_sources, once, program};

on_all_sources! {
    random_tables_are_equal_by_both_paths: 300,
}

on_both_sources! {
    random_commands_under_write_load_end_equal: 600,
    everything_at_once_under_sigkill_ends_equal: 900,
    many_tables_behind_a_wildcard_and_one_of_as_many_columns_as_can_be_are_equal: 480,
    an_outage_under_writers_costs_no_row_no_binlog_connection_and_no_memory_without_bound: 360,
}

once! {
    decoders_withstand_mutated_bytes: 240,
}

/// Of each: a table of every type, and one as it comes.
const TABLES: [Breadth; 2] = [Breadth::Every, Breadth::Some];

async fn random_tables_are_equal_by_both_paths(kind: SourceKind) -> Result<()> {
    let seed = Seed::new("random_tables_are_equal_by_both_paths");
    for (which, breadth) in (0..).zip(TABLES) {
        let stage = Stage::shared(kind).await?;
        types::round(&stage, program(), seed.generator(which).random(), breadth).await?;
    }
    Ok(())
}

/// Sequences of commands on each source.
const SEQUENCES: u64 = 2;

async fn random_commands_under_write_load_end_equal(kind: SourceKind) -> Result<()> {
    let seed = Seed::new("random_commands_under_write_load_end_equal");
    for which in 0..SEQUENCES {
        let stage = Stage::shared(kind).await?;
        commands::round(&stage, program(), seed.generator(which).random()).await?;
    }
    Ok(())
}

/// Rounds of everything at once on each server; `testbed soak seeds` has as many as are asked for.
const ROUNDS: u64 = 5;

async fn everything_at_once_under_sigkill_ends_equal(kind: SourceKind) -> Result<()> {
    let seed = Seed::new("everything_at_once_under_sigkill_ends_equal");
    for which in 0..ROUNDS {
        let server = move || SourceServer::start(SourceOptions::new(kind));
        let stage = Stage::with_source(server).await?;
        seeds::round(
            &stage,
            program(),
            seed.generator(which).random_range(0..1_000_000),
        )
        .await?;
    }
    Ok(())
}

/// Of which each is written to; `testbed soak tables` has thousands.
const TABLE_COUNT: u32 = 60;

async fn many_tables_behind_a_wildcard_and_one_of_as_many_columns_as_can_be_are_equal(
    kind: SourceKind,
) -> Result<()> {
    large::tables(kind, program(), TABLE_COUNT).await
}

/// How long ClickHouse is away; with `testbed soak outage` for minutes.
const AWAY: Duration = Duration::from_secs(8);

async fn an_outage_under_writers_costs_no_row_no_binlog_connection_and_no_memory_without_bound(
    kind: SourceKind,
) -> Result<()> {
    let seed = Seed::new("an_outage_under_writers_costs_no_row_no_binlog_connection");
    let told = outage::run(kind, program(), AWAY, seed.generator(1).random()).await?;
    println!("{told}");
    Ok(())
}

/// In a process of its own: what the other tests of this one hold in memory is nothing to it.
async fn decoders_withstand_mutated_bytes() -> Result<()> {
    const SEED: &str = "20240229";
    let arguments = ["soak", "fuzz", "--seconds", "5", "--seed", SEED];
    let finished = run_to_end(program(), arguments, &[], Duration::from_secs(100)).await?;
    ensure!(finished.code == 0, "{finished:?}");
    let numbers: Vec<u64> = finished
        .stdout
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let [.., inputs, decoded] = numbers[..] else {
        bail!("{finished:?}");
    };
    ensure!(decoded > 100 && decoded < inputs, "{finished:?}");
    Ok(())
}
