//! The simulation as a command: as many seeds as one has time for, on every core, or one seed told in words.
//!
//! `cargo run -p acceptance --profile simulation --example simulate -- --seeds 100000`

#[expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "test code, which clippy takes for a program's here"
)]
mod simulation;

use clap::Parser;
use simulation::{
    BUG_SEEDS_MAX, Bug, TOLD_MAX,
    many::{caught, many, told},
    run,
};
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
    /// The deliberate bugs, and the first seed that catches each.
    #[arg(long, conflicts_with_all = ["seeds", "from", "seed"])]
    bugs: bool,
}

#[expect(clippy::print_stdout, reason = "the command's answer")]
fn main() -> ExitCode {
    let Arguments { seeds, from, seed, bugs } = Arguments::parse();
    if bugs {
        let mut missed = 0;
        for bug in Bug::ALL {
            if let Some((seed, violation)) = caught(bug, BUG_SEEDS_MAX) {
                println!("{}", told(bug, seed, &violation));
            } else {
                println!("{bug:?}: NOT CAUGHT by {BUG_SEEDS_MAX} seeds");
                missed += 1;
            }
        }
        return verdict(missed == 0);
    }
    if let Some(seed) = seed {
        let outcome = run(seed, None, true);
        println!("{}", outcome.trace.join("\n"));
        for violation in outcome.violations.iter().take(TOLD_MAX) {
            println!("SEED={seed}: {violation}");
        }
        println!("digest {:016x}", outcome.digest);
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
    for mishap in sum.unseen() {
        println!("       never  {mishap}");
    }
    println!("{}", sum.line());
    println!("in {} s", begun.elapsed().as_secs());
    verdict(sum.violated.is_empty())
}

fn verdict(holds: bool) -> ExitCode {
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
