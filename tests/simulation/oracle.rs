//! The rules of admission once more, written from what they promise and not from how they are kept: to hold refusals
//! against what the ledger really was at some instant of the request.

use crate::simulation::journal::Snapshot;
use domain::{Demand, Hold, Plan, Timestamp, Tokens, Window};

/// What a request should have been told, in the words of its refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Admitted,
    /// An invoice has been unpaid for too long.
    PastDue,
    /// Cap, what is settled leaves, and when the period ends.
    Quota {
        code: &'static str,
        cap: u64,
        left: u64,
        resets_at: String,
    },
    /// Cap, what is left of it, and the latest instant at which enough of the holds have ended.
    Held {
        cap: u64,
        left: u64,
        until_most: String,
    },
    Concurrency {
        limit: u64,
        until_most: String,
    },
    /// The first instant at which it passes.
    Rate {
        limit: u64,
        retry_at: String,
    },
}

/// Whether some hold of this request fits.
fn fits(demand: &Demand, room: u64) -> bool {
    room >= demand.prompt_most.get() + demand.output_most.get()
        || room >= demand.prompt_least.get() + demand.output_least.get()
}

fn by_expiry(snapshot: &Snapshot) -> Vec<&Hold> {
    let mut holds: Vec<&Hold> = snapshot.meter.holds.values().collect();
    holds.sort_by_key(|hold| hold.expires_at);
    holds
}

/// What this request is told at `now`, if account and meter are these. None: not to be said, because expired holds have to be
/// swept first.
pub(crate) fn verdict(snapshot: &Snapshot, plan: &Plan, demand: &Demand, now: Timestamp) -> Option<Verdict> {
    let Snapshot { account, meter } = snapshot;
    if account.pay_by.is_some_and(|pay_by| pay_by <= now) {
        return Some(Verdict::PastDue);
    }
    let own = account.spend_cap.map_or(u64::MAX, Tokens::get);
    let (cap, code) =
        if own < plan.cap.get() { (own, "spend_cap_reached") } else { (plan.cap.get(), "quota_exceeded") };
    let open: u64 = meter.holds.values().map(|hold| hold.tokens.get()).sum();
    let committed = meter.settled.get() + open;
    let expired = meter.holds.values().any(|hold| hold.expires_at <= now);
    if !fits(demand, cap.saturating_sub(committed)) {
        let left = cap.saturating_sub(meter.settled.get());
        if !fits(demand, left) {
            let resets_at = meter.period.end().to_string();
            return Some(Verdict::Quota { code, cap, left, resets_at });
        }
        // Enough holds must end; the last of the earliest of them says when.
        let mut ended = 0;
        let enough = by_expiry(snapshot).into_iter().find(|hold| {
            ended += hold.tokens.get();
            fits(demand, cap.saturating_sub(committed - ended))
        });
        let until_most = enough.map(|hold| hold.expires_at.to_string())?;
        let left = cap.saturating_sub(committed);
        return (!expired).then_some(Verdict::Held { cap, left, until_most });
    }
    let limit = usize::from(plan.concurrency.get());
    if meter.holds.len() >= limit {
        let must_end = meter.holds.len() - limit;
        let until_most = by_expiry(snapshot)[must_end].expires_at.to_string();
        let limit = u64::from(plan.concurrency.get());
        return (!expired).then_some(Verdict::Concurrency { limit, until_most });
    }
    let retry_at = earliest(snapshot, plan, now);
    let limit = u64::from(plan.rate.requests.get());
    let late = retry_at > now.max(meter.rate.newest.start(plan.rate));
    Some(if late { Verdict::Rate { limit, retry_at: retry_at.to_string() } } else { Verdict::Admitted })
}

/// The first instant at which one more request passes the sliding window, found by trying: within a window it only gets
/// easier, so that halving finds it.
fn earliest(snapshot: &Snapshot, plan: &Plan, now: Timestamp) -> Timestamp {
    let rate = &snapshot.meter.rate;
    let width = plan.rate.window_ms.get();
    let limit = u64::from(plan.rate.requests.get());
    let count = |index: u64| u64::from(rate.counts.get(&Window::from_index(index)).copied().unwrap_or(0));
    let passes = |ms: u64| {
        let index = ms / width;
        let left = width - ms % width;
        let before = index.checked_sub(1).map_or(0, count);
        count(index) + before * left / width < limit
    };
    let now = now.ms().max(rate.newest.index() * width);
    let mut from = now;
    loop {
        let last = (from / width + 1) * width - 1;
        if passes(last) {
            let (mut low, mut high) = (from, last);
            while low < high {
                let middle = low.midpoint(high);
                if passes(middle) { high = middle } else { low = middle + 1 }
            }
            return Timestamp::from_ms(low);
        }
        from = last + 1;
    }
}
