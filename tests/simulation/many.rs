//! Many seeds, on every core.

use crate::simulation::{Bug, Mishap, Outcome, run};
use std::{
    collections::BTreeMap,
    ops::Range,
    panic::catch_unwind,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

/// How much of the violation by which a deliberate bug was caught is told.
const VIOLATION_CHARS_TOLD: usize = 70;

/// What many histories came to.
#[derive(Debug, Default)]
pub(crate) struct Sum {
    /// Histories.
    pub(crate) seeds: u64,
    /// Effects on the world.
    pub(crate) steps: u64,
    /// Mishaps.
    pub(crate) mishaps: u64,
    /// How often each mishap happened and each state was come to.
    pub(crate) seen: BTreeMap<&'static str, u64>,
    /// Where processes died: before or after which effect.
    pub(crate) crashes: BTreeMap<(&'static str, &'static str), u64>,
    /// Seeds with violations, and the first of each.
    pub(crate) violated: BTreeMap<u64, String>,
}

impl Sum {
    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.seeds += 1;
        self.steps += outcome.steps;
        self.mishaps += outcome.mishaps();
        for (what, times) in outcome.seen {
            *self.seen.entry(what).or_default() += times;
        }
        for (place, times) in outcome.crashes {
            *self.crashes.entry(place).or_default() += times;
        }
        if let Some(violation) = outcome.violations.into_iter().next() {
            self.violated.insert(seed, violation);
        }
    }

    /// The line that sums it up.
    pub(crate) fn line(&self) -> String {
        let Self { seeds, steps, mishaps, violated, .. } = self;
        format!("simulation: seeds={seeds} steps={steps} faults={mishaps} violations={}", violated.len())
    }

    /// Mishaps that never happened.
    pub(crate) fn unseen(&self) -> Vec<&'static str> {
        let named = Mishap::ALL.into_iter().filter(|mishap| *mishap != Mishap::Crash).map(Mishap::name);
        named.filter(|name| !self.seen.contains_key(name)).collect()
    }
}

/// The first seed that catches a deliberate bug, of so many, and by which violation.
pub(crate) fn caught(bug: Bug, seeds_max: u64) -> Option<(u64, String)> {
    many(0..seeds_max, Some(bug), |sum| !sum.violated.is_empty()).violated.into_iter().next()
}

/// How a deliberate bug was caught, in a line.
pub(crate) fn told(bug: Bug, seed: u64, violation: &str) -> String {
    let violation: String = violation.chars().take(VIOLATION_CHARS_TOLD).collect();
    format!("{bug:?}: caught by seed {seed}: {violation}")
}

/// Runs these seeds; once `enough` says so of what there is, no further one is begun.
pub(crate) fn many(seeds: Range<u64>, bug: Option<Bug>, enough: impl Fn(&Sum) -> bool + Sync) -> Sum {
    let next = AtomicU64::new(seeds.start);
    let sum = Mutex::new(Sum::default());
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || enough(&sum.lock().unwrap()) {
                        return;
                    }
                    let outcome = catch_unwind(|| run(seed, bug, false));
                    let mut sum = sum.lock().unwrap();
                    if let Ok(outcome) = outcome {
                        sum.add(seed, outcome);
                    } else {
                        sum.seeds += 1;
                        sum.violated.insert(seed, "it panicked".into());
                    }
                }
            });
        }
    });
    sum.into_inner().unwrap()
}
