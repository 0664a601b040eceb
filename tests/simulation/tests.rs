//! That no seed breaks an invariant, that every deliberate bug is caught, and that the simulation comes to the states that it
//! is there for. `SEED=n cargo test -p acceptance the_seed -- --nocapture` tells one seed in words; `BUG=name` tries those bugs alone
//! whose names have that in them.

use super::{
    BUG_SEEDS_MAX, Bug, TOLD_MAX,
    many::{caught, many, told},
    run,
};
use std::io::{self, Write};

/// Seeds of every run of the tests, unless `SEEDS` says how many. The command runs more.
const SEEDS: u64 = 1_500;

/// How many steps before a violation are told.
const STEPS_TOLD: usize = 40;

/// Effects of the functions on the world. Processes have to die before and after each.
const EFFECTS: [&str; 35] = [
    "admit",
    "ask Stripe's count",
    "ask Stripe's invoices",
    "ask Stripe's items",
    "ask Stripe's subscription",
    "ask Stripe's unpaid invoices",
    "call provider",
    "change account",
    "change claim",
    "clear",
    "drop claim",
    "drop lease",
    "drop row",
    "import",
    "list dirty",
    "load",
    "make an invoice item",
    "note attempt",
    "open",
    "put claim",
    "put denial",
    "put receipt",
    "put report",
    "put stop",
    "read claim",
    "read meter",
    "read receipt",
    "read stop",
    "read the answer",
    "reject report",
    "release",
    "retry report",
    "seal",
    "send to Stripe",
    "take lease",
];

/// States that a thousand seeds have to come to, or the simulation proves less than it says.
const STATES: [&str; 65] = [
    "a claim to be dropped was somebody else's, or gone",
    "a hold ended after its period was closed",
    "a hold had been released before",
    "a lease was out of time, and somebody else's",
    "a lease was somebody else's",
    "a meter was not clean when it was to be cleared",
    "a parked row was forgiven",
    "a period rolled over",
    "a period's price has an event's part and an item's",
    "a period's price was held against its parts",
    "a plan changed",
    "a period rolled over with open holds",
    "a rejection came second",
    "a repeat was given the answer again",
    "a request was settled by an estimate",
    "a retry came second",
    "a retry worked",
    "a row had been dropped before",
    "a seal came second",
    "a spend cap below what is used and held",
    "a sweep found a receipt",
    "an abandoned claim was taken over",
    "an accepted row was rejected afterwards",
    "an account changed",
    "an account changed under open holds",
    "an admission's facts were stale",
    "an attempt was fenced",
    "an import came second",
    "another model answered",
    "forgiving came second",
    "late usage: an item bills it",
    "late usage: it costs nothing",
    "refused: already_answered",
    "refused: concurrency",
    "refused: idempotency_key_reused",
    "refused: in_progress",
    "refused: past_due",
    "refused: provider_unavailable",
    "refused: quota_exceeded",
    "refused: quota_held",
    "refused: rate_limited",
    "refused: spend_cap_reached",
    "refused: store_unavailable",
    "repair: a parked row was retried",
    "repair: a retry waits for another row",
    "reporter: accepted a row",
    "reporter: billed a late row",
    "reporter: found a row late",
    "reporter: heard that a row existed",
    "reporter: left a meter for later",
    "reporter: parked a row",
    "reporter: reconciled a row",
    "reporter: swept holds",
    "stop: after the end",
    "stop: before the first text",
    "stop: in the middle",
    "stopped before the first text",
    "stopped in the middle",
    "store: down",
    "stripe: an invoice was final",
    "stripe: an item was made",
    "stripe: an item was made after it was given up",
    "stripe: down",
    "the index of dirty meters lagged",
    "usage was imported",
];

/// What somebody asks for in the environment.
#[expect(clippy::disallowed_methods, reason = "a test's own switch")]
fn asked_for(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[test]
fn the_seed_that_was_asked_for_is_told_in_words() {
    let Some(seed) = asked_for("SEED").map(|seed| seed.parse().unwrap()) else { return };
    let outcome = run(seed, None, true);
    println!("{}", outcome.trace.join("\n"));
    assert!(outcome.violations.is_empty(), "seed {seed}: {:#?}", outcome.violations);
}

/// Says something whether the test passes or not: `print!` is kept back where it does.
fn say(line: &str) {
    writeln!(io::stdout(), "{line}").unwrap();
}

#[test]
fn i1_i2_i3_i4_i5_i7_no_seed_breaks_an_invariant() {
    let seeds = asked_for("SEEDS").map_or(SEEDS, |seeds| seeds.parse().unwrap());
    let sum = many(0..seeds, None, |_| false);
    say(&sum.line());
    for (what, times) in &sum.seen {
        println!("{times:>9}  {what}");
    }
    for ((effect, when), times) in &sum.crashes {
        println!("{times:>9}  a process died {when} \"{effect}\"");
    }
    for (seed, violation) in sum.violated.iter().take(TOLD_MAX) {
        println!("SEED={seed}: {violation}");
    }
    if let Some(seed) = sum.violated.keys().next() {
        println!("{}", the_end_of(*seed));
    }
    assert!(sum.violated.is_empty(), "{} seeds broke an invariant", sum.violated.len());
    assert_eq!(sum.unseen(), Vec::<&str>::new(), "mishaps that never happened");
    let missing: Vec<_> = STATES.into_iter().filter(|state| !sum.seen.contains_key(state)).collect();
    assert_eq!(missing, Vec::<&str>::new(), "states that were never come to");
    let places = EFFECTS.into_iter().flat_map(|effect| [(effect, "before"), (effect, "after")]);
    let missing: Vec<_> = places.filter(|place| !sum.crashes.contains_key(place)).collect();
    assert_eq!(missing, [], "places where no process died");
}

/// The steps of a history up to its first violation.
fn the_end_of(seed: u64) -> String {
    let trace = run(seed, None, true).trace;
    let end = trace.iter().position(|step| step.contains("VIOLATION")).unwrap_or(trace.len());
    trace.get(end.saturating_sub(STEPS_TOLD)..end).unwrap_or_default().join("\n")
}

#[test]
fn every_deliberate_bug_is_caught() {
    let mut missed = Vec::new();
    let some = asked_for("BUG").unwrap_or_default();
    for bug in Bug::ALL.into_iter().filter(|bug| format!("{bug:?}").contains(&some)) {
        match caught(bug, BUG_SEEDS_MAX) {
            Some((seed, violation)) => say(&told(bug, seed, &violation)),
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
