//! Stripe's clock: real time plus an offset that can be set.
//!
//! Owns the only reading of the system's clock in this stand-in.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Stripe's clock.
#[derive(Debug, Default)]
pub(super) struct Clock {
    offset_s: AtomicI64,
}

impl Clock {
    /// The time of the machine, in Unix seconds.
    pub(super) fn real_s() -> i64 {
        #[expect(clippy::disallowed_methods, reason = "a stand-in for a vendor has the vendor's own clock")]
        let now = SystemTime::now();
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    }

    /// Stripe's time, in Unix seconds.
    pub(super) fn now_s(&self) -> i64 {
        Self::real_s().saturating_add(self.offset_s.load(Ordering::SeqCst))
    }

    pub(super) fn set_offset_s(&self, offset_s: i64) {
        self.offset_s.store(offset_s, Ordering::SeqCst);
    }

    /// Moves the clock on to a time; a time that has passed leaves it alone.
    pub(super) fn move_on_to(&self, at_s: i64) {
        self.offset_s.fetch_max(at_s.saturating_sub(Self::real_s()), Ordering::SeqCst);
    }
}
