//! Owns the local cloud's only reading of the wall clock and its only source of random ids.
//!
//! Decides nothing by them: deadlines are kept by the monotonic clock, wall time is only told to functions.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The clock by which functions are told what time it is: the machine's, and what a test has moved it on by. It dates
/// deadlines, scheduled events and the cloud's own session tokens. A function's own clock, and Stripe's, are moved by whoever
/// moves this one. Clones are the same clock.
#[derive(Debug, Clone, Default)]
pub struct CloudClock {
    ahead_ms: Arc<AtomicI64>,
}

impl CloudClock {
    /// Wall time in milliseconds since 1970-01-01T00:00:00Z, as functions are told it.
    pub fn now_ms(&self) -> i64 {
        now_ms().saturating_add(self.ahead_ms.load(Ordering::Relaxed))
    }

    /// Sets how far this clock is ahead of the machine's.
    pub fn set_ahead(&self, ahead: Duration) {
        self.ahead_ms.store(i64::try_from(ahead.as_millis()).unwrap_or(i64::MAX), Ordering::Relaxed);
    }
}

/// Wall time in milliseconds since 1970-01-01T00:00:00Z; 0 on a machine whose clock is before that.
#[expect(clippy::disallowed_methods, reason = "the cloud is where a function's idea of now comes from")]
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A random id in the form of a version 4 UUID, as Lambda and API Gateway name their requests.
pub fn request_id() -> String {
    let bits = (rand::random::<u128>() & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let mut id = String::with_capacity(36);
    for (index, digit) in hex.chars().enumerate() {
        if matches!(index, 8 | 12 | 16 | 20) {
            id.push('-');
        }
        id.push(digit);
    }
    id
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{CloudClock, now_ms, request_id};

    #[test]
    fn a_clock_that_was_moved_on_is_ahead_in_all_its_clones() {
        let clock = CloudClock::default();
        clock.clone().set_ahead(Duration::from_hours(48));
        assert!(clock.now_ms() >= now_ms() + 47 * 3_600_000);
    }

    #[test]
    fn a_request_id_is_a_random_uuid() {
        let id = request_id();
        let groups: Vec<&str> = id.split('-').collect();
        assert_eq!(groups.iter().map(|group| group.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert!(groups[2].starts_with('4') && groups[3].starts_with(['8', '9', 'a', 'b']), "{id}");
        assert_ne!(id, request_id());
    }
}
