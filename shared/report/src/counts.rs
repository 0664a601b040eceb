//! What a run did, in numbers.

use serde::Serialize;

/// The counts of one run: its answer and its log line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Meters looked at.
    pub meters: u32,
    /// Expired holds released.
    pub swept: u32,
    /// Rows taken up: sealed now, or found pending.
    pub sealed: u32,
    /// Calls that sent a meter event, repeats included.
    pub sent: u32,
    /// Rows that Stripe took.
    pub accepted: u32,
    /// Rows that Stripe had already: an earlier attempt had arrived.
    pub already_existed: u32,
    /// Rows that Stripe refused for good.
    pub parked: u32,
    /// Rows whose outcome Stripe's count made clear, either way.
    pub reconciled: u32,
    /// Rows whose outcome even Stripe's count left unclear.
    pub unclear: u32,
    /// Rows that no run has brought to their end for over a day.
    pub stuck: u32,
    /// Meters that were not brought to their end; the next run finds them again.
    pub failed: u32,
    /// Meters that were not begun because the deadline was near; the next run finds them again.
    pub postponed: u32,
    /// Shards whose dirty meters could not be listed to the end.
    pub shards_failed: u32,
    /// Rows left to whoever has their customer's lease; the next run finds what is left of them.
    pub leased: u32,
    /// Rows that came too late for the invoice of their period.
    pub late: u32,
    /// Of these, rows that an invoice item bills now, or that come to nothing.
    pub invoiced: u32,
    /// Shards that were not looked at to their end because the deadline was near.
    pub shards_postponed: u32,
    /// Meters with nothing left to do.
    pub cleared: u32,
    /// Tokens of the rows that Stripe has, now or already.
    pub tokens: u64,
    /// Calls to Stripe, of whatever kind.
    pub calls: u64,
    /// The most keys of meters that were in memory at a time.
    pub keys_most: usize,
}

impl Report {
    /// Adds another's counts.
    #[must_use]
    pub fn plus(self, other: &Self) -> Self {
        Self {
            meters: self.meters.saturating_add(other.meters),
            swept: self.swept.saturating_add(other.swept),
            sealed: self.sealed.saturating_add(other.sealed),
            sent: self.sent.saturating_add(other.sent),
            accepted: self.accepted.saturating_add(other.accepted),
            already_existed: self.already_existed.saturating_add(other.already_existed),
            parked: self.parked.saturating_add(other.parked),
            reconciled: self.reconciled.saturating_add(other.reconciled),
            unclear: self.unclear.saturating_add(other.unclear),
            stuck: self.stuck.saturating_add(other.stuck),
            failed: self.failed.saturating_add(other.failed),
            postponed: self.postponed.saturating_add(other.postponed),
            shards_failed: self.shards_failed.saturating_add(other.shards_failed),
            cleared: self.cleared.saturating_add(other.cleared),
            leased: self.leased.saturating_add(other.leased),
            late: self.late.saturating_add(other.late),
            invoiced: self.invoiced.saturating_add(other.invoiced),
            shards_postponed: self.shards_postponed.saturating_add(other.shards_postponed),
            tokens: self.tokens.saturating_add(other.tokens),
            calls: self.calls.saturating_add(other.calls),
            keys_most: self.keys_most.max(other.keys_most),
        }
    }

    /// Whether time ran out before everything was looked at.
    pub const fn is_unfinished(&self) -> bool {
        self.postponed > 0 || self.shards_postponed > 0
    }

    /// Writes the run's one line.
    pub fn log(&self) {
        tracing::info!(
            meters = self.meters,
            swept = self.swept,
            sealed = self.sealed,
            sent = self.sent,
            accepted = self.accepted,
            already_existed = self.already_existed,
            parked = self.parked,
            reconciled = self.reconciled,
            unclear = self.unclear,
            stuck = self.stuck,
            failed = self.failed,
            postponed = self.postponed,
            shards_failed = self.shards_failed,
            cleared = self.cleared,
            leased = self.leased,
            late = self.late,
            invoiced = self.invoiced,
            shards_postponed = self.shards_postponed,
            tokens = self.tokens,
            calls = self.calls,
            keys_most = self.keys_most,
            "run"
        );
    }
}
