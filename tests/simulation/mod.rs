//! The simulation: instances of the function, reporters, webhooks, the provider, Stripe and the store, under one virtual
//! clock and one source of chance. What runs is the functions' own code; what is simulated is everything that it meets.
//!
//! A seed is a whole history: [`run`] with the same seed does the same, to the last step. Time is tokio's, paused: it jumps
//! to the next thing that is due, so that days take milliseconds. A process that crashes never comes back from its next
//! effect, which to everybody else is the same as having died.

mod actors;
mod billing;
mod bugs;
mod bus;
mod checks;
mod clients;
mod commit;
mod dice;
mod journal;
mod keys;
pub(crate) mod many;
mod oracle;
mod owed;
mod provider;
mod repairs;
mod scenario;
mod store;
mod stripe;
#[cfg(test)]
mod tests;
mod world;

pub(crate) use bugs::Bug;
pub(crate) use scenario::Mishap;

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
};
use world::World;

/// The most violations of one history that are told.
pub(crate) const TOLD_MAX: usize = 5;

/// By how many seeds a deliberate bug must be caught.
pub(crate) const BUG_SEEDS_MAX: u64 = 2_000;

/// What became of a seed.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Effects on the world.
    pub(crate) steps: u64,
    /// How often each mishap happened and each state was come to.
    pub(crate) seen: BTreeMap<&'static str, u64>,
    /// Where processes died.
    pub(crate) crashes: BTreeMap<(&'static str, &'static str), u64>,
    /// What must not be.
    pub(crate) violations: Vec<String>,
    /// The history in words, if it was asked for.
    pub(crate) trace: Vec<String>,
    /// A hash of the history.
    pub(crate) digest: u64,
}

impl Outcome {
    /// How many mishaps there were.
    pub(crate) fn mishaps(&self) -> u64 {
        let crashes: u64 = self.crashes.values().sum();
        let named = Mishap::ALL.iter().filter(|mishap| **mishap != Mishap::Crash);
        crashes + named.filter_map(|mishap| self.seen.get(mishap.name())).sum::<u64>()
    }
}

/// A hash of what is left of a history.
fn hash(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    format!("{:?}", world.store.kept()).hash(&mut hasher);
    hasher.finish()
}

/// Runs one seed, with a deliberate bug if there is to be one.
pub(crate) fn run(seed: u64, bug: Option<Bug>, traced: bool) -> Outcome {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let world = World::new(seed, bug, traced);
        actors::set_up(&world).await;
        world.with(|inner| inner.calm = false);
        let requests = actors::drive(&world).await;
        actors::come_to_rest(&world).await;
        checks::at_rest(&world, &requests);
        let left = hash(&world);
        world.with(|inner| Outcome {
            steps: inner.steps,
            seen: std::mem::take(&mut inner.seen),
            crashes: std::mem::take(&mut inner.crashes),
            violations: std::mem::take(&mut inner.violations),
            trace: inner.trace.take().unwrap_or_default(),
            digest: inner.digest ^ left,
        })
    })
}
