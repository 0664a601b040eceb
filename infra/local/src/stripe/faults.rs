//! Faults on demand, and the locks and limits that refuse a request as the real API would.
//!
//! Owns which request fails and how. It never touches what is stored.

use std::collections::{HashSet, VecDeque};
use std::num::NonZeroU32;

/// Most faults that can wait for their requests.
const MAX_FAULTS: usize = 10_000;

/// How a request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This HTTP status (400 to 599), and nothing is done. A 409 or 429 comes before the idempotency key is looked at;
    /// a 5xx is saved under it and replayed.
    Status(u16),
    /// Everything is done, and a 500 is answered, and saved under the idempotency key.
    ErrorAfterCommit,
    /// Nothing is done and nothing is answered.
    TimeoutBeforeCommit,
    /// Everything is done and nothing is answered.
    TimeoutAfterCommit,
}

/// What is to fail.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) outage: bool,
    queue: VecDeque<(String, Fault)>,
}

impl Faults {
    /// Lets the next `n` requests whose path begins with `prefix` fail; at most [`MAX_FAULTS`] wait.
    pub(super) fn push(&mut self, prefix: &str, n: usize, fault: Fault) {
        let room = MAX_FAULTS.saturating_sub(self.queue.len());
        self.queue.extend(std::iter::repeat_n((prefix.to_owned(), fault), n.min(room)));
    }

    /// The fault of a request, if it has one.
    pub(super) fn take(&mut self, path: &str) -> Option<Fault> {
        let at = self.queue.iter().position(|(prefix, _)| path.starts_with(prefix.as_str()))?;
        self.queue.remove(at).map(|(_, fault)| fault)
    }

    pub(super) fn waiting(&self) -> usize {
        self.queue.len()
    }
}

/// The limit of requests in one second of Stripe's clock.
#[derive(Debug)]
pub(super) struct RateLimit {
    limit: Option<NonZeroU32>,
    second: i64,
    used: u32,
}

impl RateLimit {
    pub(super) fn new(limit: Option<NonZeroU32>) -> Self {
        Self { limit, second: 0, used: 0 }
    }

    /// Counts a request; whether it may pass.
    pub(super) fn admit(&mut self, now_s: i64) -> bool {
        if self.second != now_s {
            (self.second, self.used) = (now_s, 0);
        }
        self.used = self.used.saturating_add(1);
        self.limit.is_none_or(|limit| self.used <= limit.get())
    }
}

/// The pairs of meter and customer that a request is working on.
pub(super) type Busy = HashSet<(String, String)>;
