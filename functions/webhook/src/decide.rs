//! What a subscription makes of an account. Pure: no clock, no Stripe, no ledger.

use domain::{Account, Plan, SubscriptionId, Timestamp};
use edge::plans::PlanBook;
use stripe::{Status, Subscription};

/// What a subscription entitles to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entitlement<'a> {
    /// A plan.
    To(&'a Plan),
    /// Something that is not in the plan book: sold by somebody else under this account of Stripe's, or a price that the book
    /// has lost.
    Unknown,
    /// Nothing any more.
    Ended,
    /// Nothing yet, or a status that this code does not know.
    Undecided,
}

/// What this subscription entitles to.
pub(crate) fn entitlement<'a>(subscription: &Subscription, book: &'a PlanBook) -> Entitlement<'a> {
    match subscription.status {
        Status::Active | Status::Trialing | Status::PastDue => {
            let plan = subscription.lookup_keys.iter().find_map(|key| book.plan_of_price(key));
            plan.map_or(Entitlement::Unknown, Entitlement::To)
        }
        // A paused subscription is not invoiced: what its user consumed would be nobody's.
        Status::Canceled | Status::Unpaid | Status::IncompleteExpired | Status::Paused => Entitlement::Ended,
        Status::Incomplete | Status::Other(_) => Entitlement::Undecided,
    }
}

/// The other subscription of an account that has to be asked about before `of`, which entitles to a plan, may replace it.
pub(crate) fn rival<'a>(
    account: &'a Account,
    of: &Subscription,
    book: &PlanBook,
) -> Option<&'a SubscriptionId> {
    let entitles = matches!(entitlement(of, book), Entitlement::To(_));
    account.subscription.as_ref().filter(|id| entitles && **id != of.id)
}

/// Whether `rival`, which the account has, goes on counting although `of` was heard of: it is in force, and younger.
pub(crate) fn rival_prevails(rival: &Subscription, of: &Subscription, book: &PlanBook) -> bool {
    let in_force = matches!(entitlement(rival, book), Entitlement::To(_));
    in_force && rival.created >= of.created
}

/// The account as `subscription` makes it; none: as it is. That the account's own subscription does not prevail has been
/// established.
pub(crate) fn decide(
    account: &Account,
    subscription: &Subscription,
    book: &PlanBook,
    now: Timestamp,
) -> Option<Account> {
    let after = match entitlement(subscription, book) {
        Entitlement::To(plan) => Account {
            plan: plan.id.clone(),
            customer: Some(subscription.customer.clone()),
            subscription: Some(subscription.id.clone()),
            // An anchor that is still to come ends the period that counts now; the boundary's event brings the anchor itself.
            anchor: match subscription.period {
                Some(period) if subscription.anchor > now => period.start(),
                Some(_) | None => subscription.anchor,
            },
            ..account.clone()
        },
        Entitlement::Ended if account.subscription.as_ref() == Some(&subscription.id) => Account {
            plan: book.plans().first().id.clone(),
            subscription: None,
            anchor: subscription.ended_at.unwrap_or(now).floor_s(),
            ..account.clone()
        },
        Entitlement::Ended | Entitlement::Unknown | Entitlement::Undecided => return None,
    };
    (after != *account).then_some(after)
}
