//! What reporting works with.

use bus::Bus;
use domain::HoldId;
use ledger::Ledger;
use std::num::NonZeroU32;
use stripe::Stripe;

/// The pause before the second call for one row, in milliseconds, at most; it doubles with each further one.
const PAUSE_MS: u64 = 500;
/// Calls a second with a test key: below the 25 that Stripe takes from a sandbox.
const CALLS_PER_S_TEST: NonZeroU32 = NonZeroU32::new(20).unwrap();
/// Calls a second with a live key: of meter events a tenth of what Stripe takes; of what else is asked, [`stripe::Pace`] asks
/// less, so that the account's other business goes on.
const CALLS_PER_S_LIVE: NonZeroU32 = NonZeroU32::new(100).unwrap();
/// The most calls a second that may be asked for.
pub const CALLS_PER_S_MAX: u32 = 500;

/// Where the meter is at Stripe.
#[derive(Clone, Debug)]
pub struct StripeMeter {
    /// What its events are called.
    pub event_name: String,
    /// Its id, `mtr_...`.
    pub id: String,
}

/// How calls are spaced.
#[derive(Clone, Debug)]
pub struct Pace {
    /// The pause before the second call for one row, in milliseconds, at most; it doubles with each further one.
    pub pause_ms: u64,
    /// A random number from 0 to its argument, both included: how long a pause really is.
    pub jitter: fn(u64) -> u64,
    /// The bucket that all calls come from.
    pub calls: stripe::Pace,
}

impl Pace {
    /// The usual pause under this source of randomness, at the rate of a test key.
    pub fn with_jitter(jitter: fn(u64) -> u64) -> Self {
        Self::new(jitter, CALLS_PER_S_TEST)
    }

    /// The usual pause under this source of randomness, at so many calls a second.
    pub fn new(jitter: fn(u64) -> u64, calls_per_s: NonZeroU32) -> Self {
        Self { pause_ms: PAUSE_MS, jitter, calls: stripe::Pace::per_second(calls_per_s) }
    }
}

/// The rate that suits a key of this kind.
pub const fn calls_per_s(live: bool) -> NonZeroU32 {
    if live { CALLS_PER_S_LIVE } else { CALLS_PER_S_TEST }
}

/// What reporting works with.
pub struct Deps<S> {
    /// The ledger.
    pub ledger: Ledger<S>,
    /// Stripe. Each run paces it.
    pub stripe: Stripe,
    /// The meter at Stripe.
    pub meter: StripeMeter,
    /// The bus.
    pub bus: Bus,
    /// The spacing of calls.
    pub pace: Pace,
    /// A new id: who takes a lease.
    pub new_id: Box<dyn Fn() -> HoldId + Send + Sync>,
}
