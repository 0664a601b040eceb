//! What reporting works with.

use bus::Bus;
use ledger::Ledger;
use stripe::Stripe;

/// The pause before the second call for one row, in milliseconds, at most; it doubles with each further one.
const PAUSE_MS: u64 = 500;

/// Where the meter is at Stripe.
#[derive(Clone, Debug)]
pub struct StripeMeter {
    /// What its events are called.
    pub event_name: String,
    /// Its id, `mtr_...`.
    pub id: String,
}

/// How calls are spaced.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The pause before the second call for one row, in milliseconds, at most; it doubles with each further one.
    pub pause_ms: u64,
    /// A random number from 0 to its argument, both included: how long a pause really is.
    pub jitter: fn(u64) -> u64,
}

impl Pace {
    /// The usual pause under this source of randomness.
    pub fn with_jitter(jitter: fn(u64) -> u64) -> Self {
        Self { pause_ms: PAUSE_MS, jitter }
    }
}

/// What reporting works with.
pub struct Deps<S> {
    /// The ledger.
    pub ledger: Ledger<S>,
    /// Stripe.
    pub stripe: Stripe,
    /// The meter at Stripe.
    pub meter: StripeMeter,
    /// The bus.
    pub bus: Bus,
    /// The spacing of calls.
    pub pace: Pace,
}
