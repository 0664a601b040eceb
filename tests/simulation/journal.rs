//! What the simulation itself writes down of every effect on the store, to hold the store's contents against.

use domain::{
    Account, Admission, Claim, CustomerId, HoldId, Meter, PlanId, Receipt, SubscriptionId, Timestamp, Tokens,
    UserId, Window,
};
use ledger::MeterKey;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// Every admission that took effect.
    pub(crate) held: BTreeMap<HoldId, Held>,
    /// Requests that the rate windows have to count: those admitted, less those given back.
    pub(crate) counted: BTreeMap<UserId, BTreeMap<Window, u32>>,
    /// Windows of which a slot was given back to a meter that had closed: they may count more.
    pub(crate) late_voids: BTreeSet<(UserId, Window)>,
    /// A user's account and meter after every change.
    pub(crate) history: BTreeMap<UserId, Vec<Snapshot>>,
    /// The receipt of each hold that was put first.
    pub(crate) receipts: BTreeMap<HoldId, Receipt>,
    /// What the index of dirty meters shows.
    pub(crate) index: BTreeMap<MeterKey, Mark>,
    /// Every row that was sealed, by identifier.
    pub(crate) rows: BTreeMap<String, Row>,
    /// The highest fence of each customer's leases, and who had it.
    pub(crate) leases: BTreeMap<CustomerId, (u64, HoldId)>,
    /// The highest fence under which each row was attempted.
    pub(crate) attempts: BTreeMap<(MeterKey, u64), u64>,
    /// When a user's account came to which plan of which subscription.
    pub(crate) heard: BTreeMap<UserId, Vec<Heard>>,
    /// Late rows that were parked because nobody could say what they cost.
    pub(crate) unpriced: BTreeSet<String>,
    /// What was imported.
    pub(crate) imports: BTreeMap<HoldId, Tokens>,
    /// How often the store failed while a hold's end was written.
    pub(crate) failed_ends: BTreeMap<HoldId, u32>,
    /// Owners of claims whose end the store does not take, and whether it is so.
    pub(crate) unkept: BTreeMap<HoldId, bool>,
    /// Drops of claims that were not answered, and may land yet.
    pub(crate) late_drops: Vec<Claim>,
    /// When each wish to stop was first there, in milliseconds.
    pub(crate) stops: BTreeMap<HoldId, u64>,
    /// How long the looks for it took after that, and what those cost that failed, in milliseconds.
    pub(crate) looks: BTreeMap<HoldId, u64>,
}

/// That an account came to a plan of a subscription, and when.
pub(crate) type Heard = (Timestamp, PlanId, Option<SubscriptionId>);

#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) key: MeterKey,
    /// As it was stored.
    pub(crate) admission: Admission,
    /// Who paid for the meter then.
    pub(crate) payer: Option<CustomerId>,
}

#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) account: Account,
    pub(crate) meter: Meter,
}

#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) key: MeterKey,
    pub(crate) customer: CustomerId,
    pub(crate) tokens: Tokens,
    pub(crate) timestamp: Timestamp,
}

/// An entry of an index that lags: what it shows, and what it will show from when on, in milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Mark {
    shown: bool,
    latest: bool,
    coming: VecDeque<(u64, bool)>,
}

impl Mark {
    /// Notes that the mark is this, to be shown `lag_ms` after `ms`, but not before what came earlier.
    pub(crate) fn set(&mut self, dirty: bool, ms: u64, lag_ms: u64) {
        if self.latest != dirty {
            self.latest = dirty;
            let at = self.coming.back().map_or(0, |(at, _)| *at).max(ms + lag_ms);
            self.coming.push_back((at, dirty));
        }
    }

    /// What the index shows at `ms`, and whether that is behind.
    pub(crate) fn at(&mut self, ms: u64) -> (bool, bool) {
        while let Some((_, dirty)) = self.coming.pop_front_if(|(at, _)| *at <= ms) {
            self.shown = dirty;
        }
        (self.shown, self.shown != self.latest)
    }
}
