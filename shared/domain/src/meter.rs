//! The meter: one user's counters for one period, and every transition they can make.
//!
//! Each `apply_*` is the pure form of one conditional write: it checks the write's own condition and either makes the
//! whole change or none. The memory ledger calls them under a lock; the DynamoDB ledger says the same in expressions; a
//! test holds the two to the same answers.

use crate::{
    Account, AccountChange, Admission, Attempt, Classes, CustomerId, HoldId, NanoUsd, Period, PlanId,
    Receipt, Release, Report, ReportRow, RowFate, Seal, Timestamp, Tokens, UserId, Window,
};
use std::collections::BTreeMap;

/// Tokens reserved for one request that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// What is reserved: the most that the user can be charged for this request.
    pub tokens: Tokens,
    /// The most that the provider can take for them, as far as is known when the request starts.
    pub cost_most: NanoUsd,
    /// The rate window that counted the request.
    pub window: Window,
    /// From when on nobody is working on the request any more, so that the hold may be swept.
    pub expires_at: Timestamp,
}

/// Requests counted by window: the newest window with any, and the counts that still matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RateCounts {
    /// The newest window that has counted a request. Nothing is counted in an older one any more.
    pub newest: Window,
    /// Requests by window.
    pub counts: BTreeMap<Window, u32>,
}

/// Running totals of what was settled, for people to look at; no decision reads them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests that were settled or swept.
    pub requests: u64,
    /// Tokens used above what their holds allowed to charge, or of requests whose end nobody saw.
    pub absorbed: Tokens,
    /// What the provider took, as far as known.
    pub cost: NanoUsd,
    /// Tokens by class.
    pub classes: Classes,
}

/// How what a period uses is billed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Billing {
    /// By Stripe's meter.
    #[default]
    Metered,
    /// By an invoice item once the period has ended: its subscription is not on the meter's price yet, so that an event would be
    /// billed by nothing.
    Item,
    /// By the flat price that was paid for it already, whatever it comes to.
    Flat,
    /// By Stripe's meter until the period ended, for another plan of the same subscription began. Stripe made out then what it had
    /// counted at the old price, and bills nothing at that price that it is told later: what is left goes by an invoice item.
    Replaced,
}

/// One user's counters for one period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meter {
    /// Whose.
    pub user: UserId,
    /// The period that its usage is charged to.
    pub period: Period,
    /// The account's `rev` that its limits were last confirmed under.
    pub rev: u64,
    /// The customer at Stripe who pays; none: metered and capped, not reported.
    pub customer: Option<CustomerId>,
    /// The plan that its usage is priced by.
    pub plan: PlanId,
    /// Tokens charged.
    pub settled: Tokens,
    /// `settled` plus all open holds. Never above the cap in force when a hold was added.
    pub committed: Tokens,
    /// Tokens handed to report rows, whatever became of them. Never above `settled`.
    pub sealed: Tokens,
    /// Of `sealed`, those that Stripe refused for good and that were not sealed again since.
    pub parked: Tokens,
    /// Of `sealed`, those that an item on an invoice bills, and no event of Stripe's meter.
    pub invoiced: Tokens,
    /// Whether some of `sealed` may be another payer's, or have a time that the period no longer holds: what Stripe has
    /// counted for payer and period then says nothing about a row.
    pub mixed: bool,
    /// How its usage is billed. The period in which a subscription was taken over from another billing may have another way; no
    /// period that follows takes it over.
    pub billing: Billing,
    /// Requests by rate window.
    pub rate: RateCounts,
    /// Open holds.
    pub holds: BTreeMap<HoldId, Hold>,
    /// Whether a successor has taken over: nothing is admitted any more, settling goes on.
    pub closed: bool,
    /// The one report row that is on its way.
    pub pending: Option<ReportRow>,
    /// The number of the next report row.
    pub seq: u64,
    /// Whether the reporter has to look at it.
    pub dirty: bool,
    /// For people to look at.
    pub totals: Totals,
}

/// The creation of a period's meter: the account comes to point to it, and its predecessor closes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The account as it will be.
    pub account: Account,
    /// The new meter.
    pub meter: Meter,
    /// The meter that closes; none for a user seen for the first time, whose account is created with it.
    pub predecessor: Option<Predecessor>,
}

/// A meter that closes, as it was when its rate windows were carried over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Predecessor {
    /// The start of its period.
    pub start: Timestamp,
    /// Its rate windows, which must still be these: else the successor would begin with a window that forgot someone.
    pub rate: RateCounts,
}

impl Opening {
    /// The account and first meter of a user; none when no period can be reckoned from the account's anchor.
    pub fn first(account: Account, now: Timestamp) -> Option<Self> {
        let period = crate::account::period(&account, now)?;
        let account = Account { rev: account.rev.saturating_add(1), current: period.start(), ..account };
        let meter = Meter::new(&account, period, RateCounts::default());
        Some(Self { account, meter, predecessor: None })
    }

    /// The meter that follows `meter`.
    pub(crate) fn successor(account: &Account, meter: &Meter, period: Period) -> Self {
        let account = Account { current: period.start(), ..account.clone() };
        let predecessor = Predecessor { start: meter.period.start(), rate: meter.rate.clone() };
        let meter = Meter::new(&account, period, meter.rate.clone());
        Self { account, meter, predecessor: Some(predecessor) }
    }
}

impl Meter {
    fn new(account: &Account, period: Period, rate: RateCounts) -> Self {
        Self {
            user: account.user.clone(),
            period,
            rev: account.rev,
            customer: account.billed_to().cloned(),
            plan: account.plan.clone(),
            settled: Tokens::ZERO,
            committed: Tokens::ZERO,
            sealed: Tokens::ZERO,
            parked: Tokens::ZERO,
            invoiced: Tokens::ZERO,
            mixed: false,
            billing: Billing::default(),
            rate,
            holds: BTreeMap::new(),
            closed: false,
            pending: None,
            seq: 0,
            dirty: false,
            totals: Totals::default(),
        }
    }

    /// Tokens of all open holds.
    pub fn held(&self) -> Tokens {
        self.holds.values().map(|hold| hold.tokens).sum()
    }

    /// Of `sealed`, what Stripe's own meter must come to once the pending row is on it.
    pub fn on_stripes_meter(&self) -> Tokens {
        self.sealed.saturating_sub(self.parked).saturating_sub(self.invoiced)
    }

    /// Of `settled`, what the plan's price for usage applies to.
    pub fn priced(&self) -> Tokens {
        match self.billing {
            Billing::Metered | Billing::Item | Billing::Replaced => self.settled,
            Billing::Flat => Tokens::ZERO,
        }
    }

    /// Open holds that nobody works on any more, oldest expiry first.
    pub fn expired(&self, now: Timestamp) -> Vec<(HoldId, Hold)> {
        let mut expired: Vec<_> = self
            .holds
            .iter()
            .filter(|(_, hold)| hold.expires_at <= now)
            .map(|(id, hold)| (id.clone(), hold.clone()))
            .collect();
        expired.sort_by_key(|(_, hold)| hold.expires_at);
        expired
    }

    /// Whether every fact that an admission was decided on still holds.
    pub fn admits(&self, admission: &Admission) -> bool {
        let facts = &admission.facts;
        let count = |window: Window| self.rate.counts.get(&window).copied();
        let open = u16::try_from(self.holds.len()).unwrap_or(u16::MAX);
        self.rev == facts.rev
            && !self.closed
            && self.rate.newest <= admission.window
            && count(admission.window.previous()) == facts.previous
            && count(admission.window).is_none_or(|current| current <= facts.current_most)
            && self.committed <= facts.committed_most
            && open <= facts.holds_most
            && !self.holds.contains_key(&admission.id)
    }

    /// Adds a hold, or changes nothing and says so.
    pub fn apply_admission(&mut self, admission: &Admission) -> bool {
        if !self.admits(admission) {
            return false;
        }
        for window in &admission.forget {
            self.rate.counts.remove(window);
        }
        let count = self.rate.counts.entry(admission.window).or_default();
        *count = count.saturating_add(1);
        self.rate.newest = admission.window;
        self.committed = self.committed.saturating_add(admission.hold.tokens);
        self.holds.insert(admission.id.clone(), admission.hold.clone());
        self.dirty = true;
        true
    }

    /// Removes a hold and charges what its receipt says, or changes nothing and says so: the hold is gone already.
    pub fn apply_release(&mut self, release: &Release) -> bool {
        let Some(hold) = self.holds.remove(&release.id) else { return false };
        self.settled = self.settled.saturating_add(release.charged);
        self.committed = self.committed.saturating_sub(hold.tokens).saturating_add(release.charged);
        self.totals.requests = self.totals.requests.saturating_add(u64::from(!release.returns_slot));
        self.totals.absorbed = self.totals.absorbed.saturating_add(release.absorbed);
        self.totals.cost = self.totals.cost.saturating_add(release.cost);
        self.totals.classes = self.totals.classes.saturating_add(&release.classes);
        if release.returns_slot
            && let Some(count) = self.rate.counts.get_mut(&hold.window)
        {
            *count = count.saturating_sub(1);
        }
        true
    }

    /// Takes over an account's change, or changes nothing and says so: the meter was confirmed under another `rev`, or more is
    /// used and held than the change is good for.
    pub fn apply_account(&mut self, change: &AccountChange) -> bool {
        let is_within = change.committed_most.is_none_or(|most| self.committed <= most);
        if self.rev != change.before.rev || !is_within {
            return false;
        }
        self.rev = change.after.rev;
        self.customer.clone_from(&change.meter_customer);
        self.period = change.meter_period;
        self.mixed = change.meter_mixed;
        if change.meter_replaced {
            self.billing = Billing::Replaced;
        }
        self.plan.clone_from(&change.meter_plan);
        self.dirty = true;
        true
    }

    /// Closes it to further admissions in favour of its successor, or changes nothing and says so: it is closed, or its
    /// rate windows have counted more than was carried over.
    pub fn apply_close(&mut self, rate: &RateCounts) -> bool {
        let closes = !self.closed && self.rate == *rate;
        self.closed |= closes;
        closes
    }

    /// Moves everything settled into one report row, or changes nothing and says so.
    pub fn apply_seal(&mut self, seal: &Seal) -> bool {
        let as_read = self.rev == seal.rev && self.sealed == seal.sealed_before && self.seq == seal.row.seq;
        if !as_read || self.pending.is_some() {
            return false;
        }
        self.sealed = seal.sealed_after;
        self.seq = self.seq.saturating_add(1);
        self.pending = Some(seal.row.clone());
        true
    }

    /// Notes that whoever has the lease of this fence is about to send a row, when it was sent for the first time and when for
    /// the last; or changes nothing and says so: the row is not pending any more, or a higher fence has attempted it. Whoever
    /// asks about a row, and sends nothing, says `at` as it was.
    pub fn apply_attempt(&mut self, seq: u64, at: Timestamp, fence: u64) -> Attempt {
        match &mut self.pending {
            Some(row) if row.seq == seq && row.fence > fence => Attempt::Fenced,
            Some(row) if row.seq == seq => {
                (row.fence, row.last_attempt_at) = (fence, Some(at));
                if row.first_attempt_at.replace(row.first_attempt_at.unwrap_or(at)).is_none() {
                    Attempt::First
                } else {
                    Attempt::Again
                }
            }
            _ => Attempt::Gone,
        }
    }

    /// Drops the pending row once its report item is written, or changes nothing and says so: it is another row.
    pub fn apply_drop(&mut self, seq: u64, fate: RowFate) -> bool {
        let Some(row) = self.pending.take_if(|row| row.seq == seq) else { return false };
        self.count(row.tokens, fate);
        true
    }

    /// Counts a report item of this fate.
    fn count(&mut self, tokens: Tokens, fate: RowFate) {
        match fate {
            // Whoever forgave was faster than whoever drops.
            RowFate::Parked | RowFate::Forgiven => self.parked = self.parked.saturating_add(tokens),
            RowFate::Invoiced => self.invoiced = self.invoiced.saturating_add(tokens),
            RowFate::Accepted | RowFate::Retried => {}
        }
    }

    /// Takes what was parked into a new row, or changes nothing and says so: a row is on its way, another was sealed since the
    /// decision, or so much is not parked.
    pub fn apply_retry(&mut self, row: &ReportRow) -> bool {
        let Some(parked) = self.parked.checked_sub(row.tokens) else { return false };
        if self.pending.is_some() || self.seq != row.seq {
            return false;
        }
        self.parked = parked;
        self.seq = self.seq.saturating_add(1);
        self.pending = Some(row.clone());
        self.dirty = true;
        true
    }

    /// Counts as parked what Stripe took and rejected afterwards, or changes nothing and says so: its row is pending still, and
    /// whoever drops it counts it.
    pub fn apply_reject(&mut self, seq: u64, tokens: Tokens) -> bool {
        let may = self.pending.as_ref().is_none_or(|row| row.seq != seq);
        if may {
            self.count(tokens, RowFate::Parked);
        }
        may
    }

    /// Takes over usage that was counted and reported elsewhere before, and how the rest of the period is billed; or changes
    /// nothing and says so: another row was sealed since the decision, or receipt and report are not about the same usage.
    pub fn apply_import(&mut self, receipt: &Receipt, report: &Report, billing: Billing) -> bool {
        let tokens = report.tokens;
        if self.seq != report.seq || receipt.charged != tokens {
            return false;
        }
        self.settled = self.settled.saturating_add(tokens);
        self.committed = self.committed.saturating_add(tokens);
        self.sealed = self.sealed.saturating_add(tokens);
        self.seq = self.seq.saturating_add(1);
        self.billing = billing;
        self.count(tokens, report.fate);
        true
    }

    /// Whether the reporter has nothing to do here.
    pub fn is_clean(&self) -> bool {
        let reported = self.settled == self.sealed || self.customer.is_none();
        self.holds.is_empty() && self.pending.is_none() && reported
    }

    /// Clears the dirty mark, or changes nothing and says so: there is something to do.
    pub fn apply_clear(&mut self) -> bool {
        let clean = self.is_clean();
        self.dirty &= !clean;
        clean
    }
}
