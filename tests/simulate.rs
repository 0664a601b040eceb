//! The simulation as a command: as many seeds as one has time for, on every core, or one seed told in words.
//!
//! `cargo run -p acceptance --profile simulation --example simulate -- --seeds 100000`

#[expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "test code, which clippy takes for a program's here"
)]
mod simulation;

use clap::Parser;
use simulation::{TOLD_MAX, many::many, run};
use std::{num::NonZeroU64, process::ExitCode, time::Instant};

/// Runs seeds of the simulation.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value = "10000")]
    seeds: NonZeroU64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Only this seed, told in words.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
}

#[expect(clippy::print_stdout, reason = "the command's answer")]
fn main() -> ExitCode {
    let Arguments { seeds, from, seed } = Arguments::parse();
    if let Some(seed) = seed {
        let outcome = run(seed, None, true);
        println!("{}", outcome.trace.join("\n"));
        for violation in outcome.violations.iter().take(TOLD_MAX) {
            println!("SEED={seed}: {violation}");
        }
        return verdict(outcome.violations.is_empty());
    }
    let begun = Instant::now();
    let sum = many(from..from.saturating_add(seeds.get()), None, |_| false);
    for (what, times) in &sum.seen {
        println!("{times:>12}  {what}");
    }
    for ((effect, when), times) in &sum.crashes {
        println!("{times:>12}  a process died {when} \"{effect}\"");
    }
    for (seed, violation) in sum.violated.iter().take(TOLD_MAX) {
        println!("SEED={seed}: {violation}");
    }
    println!("{}", sum.line());
    println!("in {} s", begun.elapsed().as_secs());
    verdict(sum.violated.is_empty())
}

fn verdict(holds: bool) -> ExitCode {
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
