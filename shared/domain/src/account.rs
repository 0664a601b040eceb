//! The account: what a user bought, and which meter counts for it now.

use crate::{CustomerId, Meter, Opening, Period, PlanId, SubscriptionId, Timestamp, Tokens, UserId};

/// One user's standing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Whose.
    pub user: UserId,
    /// Counts every change. The current meter carries the same number, so that a decision made from an older account
    /// is refused by the meter's own condition.
    pub rev: u64,
    /// The plan in force.
    pub plan: PlanId,
    /// The customer at Stripe; none for a user who never bought anything.
    pub customer: Option<CustomerId>,
    /// The subscription that the plan came with.
    pub subscription: Option<SubscriptionId>,
    /// The instant that monthly periods are counted from.
    pub anchor: Timestamp,
    /// The start of the period of the meter that counts now.
    pub current: Timestamp,
    /// The user's own cap for a period, in tokens; the plan's cap holds besides.
    pub spend_cap: Option<Tokens>,
}

impl Account {
    /// The account of a user seen for the first time: the first plan, periods counted from now.
    pub fn first_seen(user: UserId, plan: PlanId, now: Timestamp) -> Self {
        let anchor = now.floor_s();
        Self {
            user,
            rev: 1,
            plan,
            customer: None,
            subscription: None,
            anchor,
            current: anchor,
            spend_cap: None,
        }
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
    /// Who pays for the current meter's period from now on.
    pub meter_customer: Option<CustomerId>,
}

impl AccountChange {
    /// The change from `before`, whose current meter is `meter`, to what `after` says; `rev`, user and current period
    /// are kept right whatever it says.
    ///
    /// The current meter keeps its payer, unless the new anchor counts the very same period for somebody who pays: then
    /// its usage is on the new subscription's invoice. The end of a subscription takes no payer away: what was used
    /// under it is still owed.
    pub fn new(before: Account, after: Account, meter: &Meter) -> Self {
        let after = Account {
            user: before.user.clone(),
            rev: before.rev.saturating_add(1),
            current: before.current,
            ..after
        };
        let reckoned = Period::monthly(after.anchor, meter.period.start());
        let same_period = reckoned.is_some_and(|period| is_rest_of(meter.period, period));
        let payer = after.billed_to().filter(|_| same_period).or(meter.customer.as_ref());
        let meter_customer = payer.cloned();
        Self { before, after, meter_customer }
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

/// How far ahead of a clock an anchor may lie and be taken as reached: a subscription begins on Stripe's clock, and no
/// two clocks differ by more. A minute.
const ANCHOR_AHEAD_MS: u64 = 60_000;

/// Decides which period a request belongs to.
///
/// A clock that lags behind the start of the current period does not reopen the one before: usage goes to the current
/// meter, which is the period that everybody else already writes to. Nor does one that lags behind a new anchor open
/// the period before it.
///
/// Each meter begins later than the one before, whatever happens to the anchor: a start is a key, and is used once.
/// Where the anchor was moved to before the current meter, the rest of the period that it counts gets the meter.
pub fn place(account: &Account, meter: &Meter, now: Timestamp) -> Placement {
    let is_reached = account.anchor.ms_since(now) <= ANCHOR_AHEAD_MS;
    let now = if is_reached { now.max(account.anchor) } else { now };
    let Some(period) = Period::monthly(account.anchor, now) else { return Placement::OutOfCalendar };
    if is_rest_of(meter.period, period) && !meter.closed {
        return Placement::Current;
    }
    let is_later = |period: &Period| period.start() > meter.period.start();
    let rest = || Period::new(now, period.end()).filter(is_later);
    match Some(period).filter(is_later).or_else(rest) {
        Some(period) => Placement::Open(Box::new(Opening::successor(account, meter, period))),
        // The current meter begins in this very second or, by a clock that lags, later: it counts.
        None => Placement::Current,
    }
}

/// Whether `rest` is `whole`, or what was left of it when an account came to count so.
fn is_rest_of(rest: Period, whole: Period) -> bool {
    rest.end() == whole.end() && rest.start() >= whole.start()
}
