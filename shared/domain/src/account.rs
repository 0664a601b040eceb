//! The account: what a user bought, and which meter counts for it now.

use crate::{Billing, CustomerId, Meter, Opening, Period, PlanId, SubscriptionId, Timestamp, Tokens, UserId};

/// One user's standing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Whose.
    pub user: UserId,
    /// Counts every change; 0: not stored yet. The current meter carries the same number, so that a decision made from an
    /// older account is refused by the meter's own condition.
    pub rev: u64,
    /// The plan in force.
    pub plan: PlanId,
    /// The customer at Stripe; none for a user who never bought anything.
    pub customer: Option<CustomerId>,
    /// The subscription that the plan came with.
    pub subscription: Option<SubscriptionId>,
    /// The instant that monthly periods are counted from.
    pub anchor: Timestamp,
    /// From when on the plan's price counts, where another came before it under the same anchor; none: from the anchor. Stripe
    /// bills what is used before a change of plan at the old price, with the old price's tiers, so that a change within a
    /// period begins a meter of its own.
    pub plan_since: Option<Timestamp>,
    /// When the subscription ends, where that is settled: no period begins then, and none is billed. None: it goes on. Nothing is
    /// decided by it; it is for whoever wants to know what the next invoice has.
    pub ends_at: Option<Timestamp>,
    /// The start of the period of the meter that counts now.
    pub current: Timestamp,
    /// The user's own cap for a period, in tokens; the plan's cap holds besides.
    pub spend_cap: Option<Tokens>,
    /// From this instant on nothing is admitted, because an invoice is unpaid; none: all is paid.
    pub pay_by: Option<Timestamp>,
}

impl Account {
    /// The account of a user seen for the first time: the first plan, periods counted from now.
    pub fn first_seen(user: UserId, plan: PlanId, now: Timestamp) -> Self {
        let anchor = now.floor_s();
        Self {
            user,
            rev: 0,
            plan,
            customer: None,
            subscription: None,
            anchor,
            plan_since: None,
            ends_at: None,
            current: anchor,
            spend_cap: None,
            pay_by: None,
        }
    }

    /// From when on the account is what it is: its anchor, or the change of plan since.
    pub fn began(&self) -> Timestamp {
        self.plan_since.map_or(self.anchor, |since| since.max(self.anchor))
    }

    /// Whether an invoice has been unpaid for longer than its user may go on.
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        self.pay_by.is_some_and(|pay_by| pay_by <= now)
    }

    /// The customer whose meter at Stripe this user's tokens go to: none without a subscription, whose invoice they
    /// would be on.
    pub fn billed_to(&self) -> Option<&CustomerId> {
        self.subscription.as_ref().and(self.customer.as_ref())
    }
}

/// A change of an account, and what it does to the meter that the account points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountChange {
    /// The account as it must still be.
    pub before: Account,
    /// The account as it will be: one `rev` on.
    pub after: Account,
    /// Who pays for the current meter's usage from now on.
    pub meter_customer: Option<CustomerId>,
    /// The current meter's period from now on: its start never changes.
    pub meter_period: Period,
    /// [`Meter::mixed`] from now on.
    pub meter_mixed: bool,
    /// Whether [`Meter::billing`] is [`Billing::Replaced`] from now on; if not, it is as it was.
    pub meter_replaced: bool,
    /// [`Meter::plan`] from now on.
    pub meter_plan: PlanId,
    /// What the meter may have used and held at the most, in tokens, for the change to be made; none: whatever it has.
    pub committed_most: Option<Tokens>,
}

impl AccountChange {
    /// The change from `before`, whose current meter is `meter`, to what `after` says; `rev`, user and current period
    /// are kept right whatever it says.
    ///
    /// A meter that began under the new anchor (a subscription that somebody heard of a little late, or that was
    /// backdated) is part of that subscription's period: it ends with it, and whoever pays for the subscription pays
    /// for it. A meter that began at or after a subscription's end, before somebody heard of that, is nobody's to pay. Any
    /// other keeps its payer: the end of a subscription takes none away, for what was used under it is still owed. Its
    /// period ends where the new anchor begins another, so that what it still reports is on the last invoice of what ended.
    /// It ends as well where another plan begins, and keeps the price that it began with.
    ///
    /// A meter that nobody pays for and that began before the plan did stays nobody's: what was used while a subscription was paused
    /// is on no invoice, though that subscription's anchor lies before it.
    ///
    /// What its usage costs is what the subscription that pays for it says: the end of one does not make it cheaper or
    /// dearer. A meter that nobody pays for has the account's plan.
    pub fn new(before: Account, after: Account, meter: &Meter) -> Self {
        let after = Account {
            user: before.user.clone(),
            rev: before.rev.saturating_add(1),
            current: before.current,
            ..after
        };
        let start = meter.period.start();
        let adopted = Period::monthly(after.anchor, start)
            .filter(|_| after.anchor <= start)
            .and_then(|period| Period::new(start, period.end()));
        let cut = Period::new(start, after.anchor.min(meter.period.end()));
        let began_after_the_end =
            after.billed_to().is_none() && before.anchor < after.anchor && after.anchor <= start;
        let is_of_the_plan = after.began() <= start;
        let may_pay = adopted.is_some() && (meter.customer.is_some() || is_of_the_plan);
        let new_payer = after.billed_to().filter(|_| may_pay);
        let payer = new_payer.or(meter.customer.as_ref()).filter(|_| !began_after_the_end);
        let meter_customer = payer.cloned();
        let repriced = (new_payer.is_some() || meter_customer.is_none()) && is_of_the_plan;
        let meter_plan = if repriced { after.plan.clone() } else { meter.plan.clone() };
        let whole = adopted.or(cut).unwrap_or(meter.period);
        let until_the_plan = Period::new(start, after.began().min(whole.end()));
        let meter_period = until_the_plan.unwrap_or(whole);
        let another_pays = meter.customer.is_some() && meter.customer != meter_customer;
        let meter_mixed = meter.mixed || another_pays || meter_period.end() < meter.period.end();
        // It is kept on the meter, for the account may have changed again before anything else is asked of it.
        let meter_replaced = meter.billing == Billing::Metered
            && meter_customer.is_some()
            && after.subscription.is_some()
            && after.subscription == before.subscription
            && after.plan_since == Some(meter_period.end())
            && after.plan_since != before.plan_since;
        Self {
            before,
            after,
            meter_customer,
            meter_period,
            meter_mixed,
            meter_replaced,
            meter_plan,
            committed_most: None,
        }
    }

    /// The same, made only if no more than so much is used and held.
    #[must_use]
    pub fn within(self, committed_most: Option<Tokens>) -> Self {
        Self { committed_most, ..self }
    }
}

/// Where a request of `now` belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// In the meter that the account points to.
    Current,
    /// In a period that has no meter yet: open it first.
    Open(Box<Opening>),
    /// Nowhere: the account's anchor and the clock lie too far apart to reckon a period.
    OutOfCalendar,
}

/// Decides which period a request belongs to.
///
/// A clock that lags behind the start of the current period does not reopen the one before: usage goes to the current
/// meter, which is the period that everybody else already writes to. A clock that has not reached the anchor yet opens no month
/// before it, and an anchor that moved back opens none either: a period never begins before, or together with, the one that
/// counts. A plan that came within a period begins a meter of the rest of it.
pub fn place(account: &Account, meter: &Meter, now: Timestamp) -> Placement {
    let now = now.max(account.current);
    if now < account.began() && now < meter.period.end() && !meter.closed {
        return Placement::Current;
    }
    match period(account, now) {
        None => Placement::OutOfCalendar,
        Some(period) if period.start() <= meter.period.start() && !meter.closed => Placement::Current,
        Some(period) => Placement::Open(Box::new(Opening::successor(account, meter, period))),
    }
}

/// The period of an account that holds `now`, or its first one where that is still to come: a month from the anchor, or what
/// the plan in force has of it.
pub(crate) fn period(account: &Account, now: Timestamp) -> Option<Period> {
    let month = Period::monthly(account.anchor, now.max(account.began()))?;
    Period::new(month.start().max(account.began()), month.end())
}
