//! The clock. Nothing but a `main.rs`, a handler and its pump may read it; everything below takes `now`.

use domain::Timestamp;
use std::time::{SystemTime, UNIX_EPOCH};

/// The instant that it is, by the machine's clock. A clock set before 1970 reads as 1970.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_ms(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}
