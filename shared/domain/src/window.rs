//! The sliding rate window: two fixed windows, the previous one weighted by how much of it still overlaps.
//!
//! Source: the approximation that Cloudflare described in "How we built rate limiting capable of scaling to millions of
//! domains" (2017), with the rounding of Upstash's `ratelimit` 2.2.0: `floor((1 - elapsed/window) * previous) + current +
//! cost <= limit`. In integers: `floor((window - elapsed) * previous / window)`. Two deviations, on purpose: a refused
//! request consumes nothing, and a refusal names the first instant at which the same request would pass.

use crate::Timestamp;
use std::num::{NonZeroU32, NonZeroU64};

/// So many requests in so long a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// The most requests in one window.
    pub requests: NonZeroU32,
    /// The window's length in milliseconds.
    pub window_ms: NonZeroU64,
}

/// The index of a fixed window: `floor(now / window_ms)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window(u64);

impl Window {
    /// A window by its index.
    pub const fn from_index(index: u64) -> Self {
        Self(index)
    }

    /// Its index.
    pub const fn index(self) -> u64 {
        self.0
    }

    /// The window before; the first one is its own.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// Its first instant.
    pub fn start(self, limit: RateLimit) -> Timestamp {
        Timestamp::from_ms(self.0.saturating_mul(limit.window_ms.get()))
    }
}

impl RateLimit {
    /// The window that `now` lies in.
    pub fn window(self, now: Timestamp) -> Window {
        Window(now.ms() / self.window_ms)
    }

    /// How much of the previous window's count still weighs at `now`.
    pub fn weighted(self, now: Timestamp, previous: u32) -> u64 {
        let left = self.window_ms.get().saturating_sub(now.ms() % self.window_ms);
        left.saturating_mul(u64::from(previous)) / self.window_ms
    }

    /// The highest count of the current window to which `cost` may be added at `now`; none when even an empty current
    /// window is too full.
    pub fn current_most(self, now: Timestamp, previous: u32, cost: u32) -> Option<u32> {
        let room = u64::from(self.requests.get()).checked_sub(self.weighted(now, previous))?;
        room.checked_sub(u64::from(cost)).and_then(|most| u32::try_from(most).ok())
    }

    /// The first instant, not before `now`, at which `cost` passes if nothing else is counted meanwhile; none when the
    /// cost alone is above the limit.
    pub fn earliest(self, now: Timestamp, previous: u32, current: u32, cost: u32) -> Option<Timestamp> {
        if cost > self.requests.get() {
            return None;
        }
        if self.current_most(now, previous, cost).is_some_and(|most| current <= most) {
            return Some(now);
        }
        let window = self.window(now);
        let next = Window(window.0.saturating_add(1));
        self.within(window, previous, current, cost)
            .map(|at| at.max(now))
            .or_else(|| self.within(next, current, 0, cost))
            .or_else(|| Some(Window(next.0.saturating_add(1)).start(self)))
    }

    /// The first instant of this window at which `cost` passes: the smallest elapsed `e` with
    /// `(window - e) * previous < (room + 1) * window`, where `room` is what the weighted count may come to.
    fn within(self, window: Window, previous: u32, current: u32, cost: u32) -> Option<Timestamp> {
        let width = self.window_ms.get();
        let taken = u64::from(current).saturating_add(u64::from(cost));
        let room = u64::from(self.requests.get()).checked_sub(taken)?;
        let Some(previous) = NonZeroU64::new(u64::from(previous)) else { return Some(window.start(self)) };
        let below = room.saturating_add(1).saturating_mul(width);
        // The largest `left` with `left * previous < below`.
        let left = below.saturating_sub(1) / previous;
        let elapsed = width.saturating_sub(left);
        (elapsed < width).then(|| window.start(self).plus_ms(elapsed))
    }
}
