//! That no seed breaks an invariant, that every deliberate bug is caught, and that the simulation comes to the states that it
//! is there for. `SEED=n cargo test -p acceptance simulation::tests::the_seed` tells one seed in words.

use super::{Bug, Mishap, TOLD_MAX, many::many, run};

/// Seeds of every run of the tests. The command runs more.
const SEEDS: u64 = 1_000;
/// By how many seeds a deliberate bug must be caught.
const BUG_SEEDS_MAX: u64 = 2_000;

/// States that a thousand seeds have to come to, or the simulation proves less than it says.
const STATES: [&str; 29] = [
    "a hold ended after its period was closed",
    "a hold had been released before",
    "a meter was not clean when it was to be cleared",
    "a period rolled over",
    "a period rolled over with open holds",
    "a receipt came second",
    "a request was settled by an estimate",
    "a row had been dropped before",
    "a seal came second",
    "a sweep found a receipt",
    "an account changed",
    "an account changed under open holds",
    "an admission's facts were stale",
    "refused: concurrency",
    "refused: provider_unavailable",
    "refused: quota_exceeded",
    "refused: quota_held",
    "refused: rate_limited",
    "refused: spend_cap_reached",
    "refused: store_unavailable",
    "reporter: accepted a row",
    "reporter: heard that a row existed",
    "reporter: left a meter for later",
    "reporter: parked a row",
    "reporter: reconciled a row",
    "reporter: swept holds",
    "store: down",
    "stripe: down",
    "the index of dirty meters lagged",
];

/// The seed to be told, from the environment.
#[expect(clippy::disallowed_methods, reason = "a test's own switch")]
fn asked_for() -> Option<u64> {
    std::env::var("SEED").ok().map(|seed| seed.parse().unwrap())
}

#[test]
fn the_seed_that_was_asked_for_is_told_in_words() {
    let Some(seed) = asked_for() else { return };
    let outcome = run(seed, None, true);
    println!("{}", outcome.trace.join("\n"));
    assert!(outcome.violations.is_empty(), "seed {seed}: {:#?}", outcome.violations);
}

#[test]
fn i1_i2_i3_i4_i5_i7_no_seed_breaks_an_invariant() {
    let sum = many(0..SEEDS, None, |_| false);
    println!("{}", sum.line());
    for (what, times) in &sum.seen {
        println!("{times:>9}  {what}");
    }
    for ((effect, when), times) in &sum.crashes {
        println!("{times:>9}  a process died {when} \"{effect}\"");
    }
    let mut kinds = std::collections::BTreeMap::<&str, (u64, u32)>::new();
    for (seed, violation) in &sum.violated {
        kinds.entry(violation.split(':').next().unwrap()).or_insert((*seed, 0)).1 += 1;
    }
    println!("{kinds:?}");
    for (seed, violation) in sum.violated.iter().take(TOLD_MAX) {
        println!("SEED={seed}: {violation}");
    }
    assert!(sum.violated.is_empty(), "{} seeds broke an invariant", sum.violated.len());
    assert_eq!(sum.unseen(), Vec::<&str>::new(), "mishaps that never happened");
    let missing: Vec<_> = STATES.into_iter().filter(|state| !sum.seen.contains_key(state)).collect();
    assert_eq!(missing, Vec::<&str>::new(), "states that were never come to");
}

#[test]
fn every_deliberate_bug_is_caught() {
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        let sum = many(0..BUG_SEEDS_MAX, Some(bug), |sum| !sum.violated.is_empty());
        match sum.violated.iter().next() {
            Some((seed, violation)) => {
                let violation: String = violation.chars().take(90).collect();
                println!("{bug:?}: caught after {} seeds, by seed {seed}: {violation}", sum.seeds);
            }
            None => missed.push(bug),
        }
    }
    assert_eq!(missed, [], "bugs that {BUG_SEEDS_MAX} seeds did not catch");
}

#[test]
fn a_seed_does_the_same_whenever_it_is_run() {
    for seed in 0..20 {
        assert_eq!(run(seed, None, false).digest, run(seed, None, true).digest, "seed {seed}");
    }
    assert_ne!(run(0, None, false).digest, run(1, None, false).digest);
}

#[test]
fn every_mishap_has_a_name_of_its_own() {
    let names: std::collections::BTreeSet<_> = Mishap::ALL.iter().map(|mishap| mishap.name()).collect();
    assert_eq!(names.len(), Mishap::ALL.len());
}
