//! What a subscription makes of an account. Pure: no clock, no Stripe, no ledger.
//!
//! It follows from what Stripe has now and from nothing that was heard before, so that neither the order of deliveries nor
//! their number matters.

use domain::{Account, Period, Plan, PlanId, SubscriptionId, Timestamp, UserId};
use edge::plans::{LookupKeys, PlanBook};
use stripe::{Collection, Item, Status, Subscription};

/// A subscription as Stripe showed it, with what else had to be asked about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The subscription.
    pub(crate) subscription: Subscription,
    /// Since when it has had an unpaid invoice, if it is behind with one and Stripe still has it open.
    pub(crate) unpaid_since: Option<Timestamp>,
}

/// What a subscription entitles to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entitlement<'a> {
    /// A plan, up to an instant by which an unpaid invoice has to be paid, if there is one.
    To(&'a Plan, Option<Timestamp>),
    /// Something that is not in the plan book: sold by somebody else under this account of Stripe's, or a price that the book
    /// has lost.
    Unknown,
    /// Nothing any more.
    Ended,
    /// Nothing yet, or a status that this code does not know.
    Undecided,
}

/// What an owner should look at: what Stripe has is not what this product sells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Oddity {
    /// Its prices are not those of one plan of the book. The account stays as it was.
    UnknownPrice,
    /// It lacks the plan's metered price: what is used above the included tokens is on no invoice.
    NotMetered,
    /// It lacks the plan's flat price.
    NoBase,
    /// It is for several. Its flat price is multiplied, what it includes and its limits are not.
    Quantity,
    /// Its customer has another one in force: each bills what the customer uses under any.
    TwoOfOneCustomer,
}

impl Oddity {
    /// What it is called on the bus.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::UnknownPrice => "unknown_price",
            Self::NotMetered => "not_metered",
            Self::NoBase => "no_base_price",
            Self::Quantity => "quantity",
            Self::TwoOfOneCustomer => "two_of_one_customer",
        }
    }
}

/// Whether it takes more than the subscription to say what it entitles to: since when it is behind.
pub(crate) fn is_behind(subscription: &Subscription) -> bool {
    matches!(subscription.status, Status::PastDue | Status::Unpaid)
}

/// Whether any of its prices is in the plan book.
pub(crate) fn is_ours(subscription: &Subscription, book: &PlanBook) -> bool {
    subscription.lookup_keys().any(|key| book.plan_of_price(key).is_some())
}

/// What this subscription entitles to.
pub(crate) fn entitlement<'a>(seen: &Seen, book: &'a PlanBook) -> Entitlement<'a> {
    let subscription = &seen.subscription;
    match subscription.status {
        // Nobody would pay for what is used meanwhile.
        Status::Active | Status::Trialing | Status::PastDue | Status::Unpaid
            if is_given_away(subscription) =>
        {
            Entitlement::Ended
        }
        Status::Active | Status::Trialing | Status::PastDue | Status::Unpaid => {
            let plan = plan(subscription, book);
            plan.map_or(Entitlement::Unknown, |plan| Entitlement::To(plan, pay_by(seen, book)))
        }
        // A paused subscription is not invoiced: what its user consumed would be nobody's.
        Status::Canceled | Status::IncompleteExpired | Status::Paused => Entitlement::Ended,
        Status::Incomplete | Status::Other(_) => Entitlement::Undecided,
    }
}

/// Whether its invoices are made for nobody to pay.
fn is_given_away(subscription: &Subscription) -> bool {
    match subscription.paused_collection {
        Some(Collection::Void | Collection::MarkUncollectible) => true,
        Some(Collection::KeepAsDraft | Collection::Other(_)) | None => false,
    }
}

/// By when an unpaid invoice has to be paid: the oldest one's finalization and the book's grace, or at once where Stripe has
/// given up on it.
fn pay_by(seen: &Seen, book: &PlanBook) -> Option<Timestamp> {
    let subscription = &seen.subscription;
    let grace_ms = match subscription.status {
        Status::PastDue => book.grace_ms(),
        Status::Unpaid => 0,
        _ => return None,
    };
    // Where Stripe has no open invoice any more, and the status says that one was not paid: its newest one.
    let newest = subscription.latest_invoice.as_ref().and_then(|invoice| invoice.finalized_at);
    let period = subscription.items.iter().find_map(|item| item.period);
    let start = period.map_or(subscription.created, Period::start);
    Some(seen.unpaid_since.or(newest).unwrap_or(start).plus_ms(grace_ms))
}

/// The plan whose prices it has: the flat one's, for a subscription may have the metered price of another while it changes; or
/// the only one's.
fn plan<'a>(subscription: &Subscription, book: &'a PlanBook) -> Option<&'a Plan> {
    let plans: Vec<&Plan> = subscription.lookup_keys().filter_map(|key| book.plan_of_price(key)).collect();
    let is_base =
        |plan: &Plan| keys(book, &plan.id).is_some_and(|keys| has(subscription, &keys.base).is_some());
    let mut based: Vec<&Plan> = plans.iter().copied().filter(|plan| is_base(plan)).collect();
    if based.is_empty() {
        based = plans;
    }
    let first = *based.first()?;
    based.iter().all(|plan| plan.id == first.id).then_some(first)
}

fn keys<'a>(book: &'a PlanBook, plan: &PlanId) -> Option<&'a LookupKeys> {
    book.lookup_keys(plan)
}

fn has<'a>(subscription: &'a Subscription, key: &str) -> Option<&'a Item> {
    subscription.items.iter().find(|item| item.lookup_key.as_deref() == Some(key))
}

/// What an owner should look at. `others`: the customer's subscriptions that have not ended.
pub(crate) fn oddities(seen: &Seen, others: &[Subscription], book: &PlanBook) -> Vec<Oddity> {
    let subscription = &seen.subscription;
    let plan = match entitlement(seen, book) {
        Entitlement::To(plan, _) => plan,
        // Its schedule is about to bring it to ours.
        Entitlement::Unknown if subscription.adopted_soon => return Vec::new(),
        Entitlement::Unknown => return vec![Oddity::UnknownPrice],
        Entitlement::Ended | Entitlement::Undecided => return Vec::new(),
    };
    let mut found = Vec::new();
    if let Some(keys) = keys(book, &plan.id) {
        let base = has(subscription, &keys.base);
        if has(subscription, &keys.metered).is_none() {
            found.push(Oddity::NotMetered);
        }
        if base.is_none() {
            found.push(Oddity::NoBase);
        }
        if base.and_then(|item| item.quantity).is_some_and(|quantity| quantity > 1) {
            found.push(Oddity::Quantity);
        }
    }
    let is_another = |other: &&Subscription| other.id != subscription.id && is_in_force(other, book);
    if others.iter().any(|other| is_another(&other)) {
        found.push(Oddity::TwoOfOneCustomer);
    }
    found
}

/// Whether it entitles to a plan.
pub(crate) fn is_in_force(subscription: &Subscription, book: &PlanBook) -> bool {
    let seen = Seen { subscription: subscription.clone(), unpaid_since: None };
    matches!(entitlement(&seen, book), Entitlement::To(..))
}

/// Whether a subscription that has ended, or never was, leaves its account to another one of the same customer.
pub(crate) fn is_over(seen: &Seen, book: &PlanBook) -> bool {
    matches!(entitlement(seen, book), Entitlement::Ended)
}

/// Those of a customer's subscriptions, but one, that a user's account may have instead of that one: in force, and not named to
/// another user. The youngest first, as where two prevail over each other.
pub(crate) fn next_of<'a>(
    others: &'a [Subscription],
    but: &SubscriptionId,
    user: &UserId,
    book: &PlanBook,
) -> Vec<&'a Subscription> {
    // One that names nobody may be its customer's, who is not shown in a list.
    let may_be = |other: &&Subscription| {
        other.id != *but && other.user.as_ref().is_none_or(|named| named == user) && is_in_force(other, book)
    };
    let mut next: Vec<_> = others.iter().filter(may_be).collect();
    next.sort_by(|one, other| age(other).cmp(&age(one)));
    next
}

/// What says which of two subscriptions is the younger. Of two of the same second, the one whose id comes last, so that the order
/// of hearing does not matter.
fn age(subscription: &Subscription) -> (Timestamp, &str) {
    (subscription.created, subscription.id.as_str())
}

/// The other subscription of an account that has to be asked about before `of`, which entitles to a plan, may replace it.
pub(crate) fn rival<'a>(account: &'a Account, of: &Seen, book: &PlanBook) -> Option<&'a SubscriptionId> {
    let entitles = matches!(entitlement(of, book), Entitlement::To(..));
    account.subscription.as_ref().filter(|id| entitles && **id != of.subscription.id)
}

/// Whether `rival`, which the account has, goes on counting although `of` was heard of: it is in force, and younger.
pub(crate) fn rival_prevails(rival: &Subscription, of: &Subscription, book: &PlanBook) -> bool {
    is_in_force(rival, book) && age(rival) > age(of)
}

/// The account as a subscription makes it; none: as it is. That the account's own subscription does not prevail has been
/// established.
///
/// `told_at` is when Stripe told of a change of prices, if that is what it told of, and else `now`.
pub(crate) fn decide(
    account: &Account,
    seen: &Seen,
    book: &PlanBook,
    told_at: Timestamp,
    now: Timestamp,
) -> Option<Account> {
    let subscription = &seen.subscription;
    let after = match entitlement(seen, book) {
        Entitlement::To(plan, pay_by) => Account {
            plan: plan.id.clone(),
            customer: Some(subscription.customer.clone()),
            subscription: Some(subscription.id.clone()),
            anchor: anchor(subscription, plan, book, now),
            plan_since: plan_since(account, subscription, plan, (told_at, now)),
            ends_at: subscription.cancel_at,
            pay_by,
            ..account.clone()
        },
        Entitlement::Ended if account.subscription.as_ref() == Some(&subscription.id) => {
            end(account, subscription.ended_at.unwrap_or(now), book)
        }
        Entitlement::Ended | Entitlement::Unknown | Entitlement::Undecided => return None,
    };
    (after != *account).then_some(after)
}

/// The account once its subscription has ended, or is no more.
pub(crate) fn end(account: &Account, ended_at: Timestamp, book: &PlanBook) -> Account {
    Account {
        plan: book.plans().first().id.clone(),
        subscription: None,
        anchor: ended_at.floor_s(),
        plan_since: None,
        ends_at: None,
        pay_by: None,
        ..account.clone()
    }
}

/// From when on the plan counts. A subscription that is new to the account begins with its plan, unless it goes on where the account
/// was free for a while: what was used meanwhile is nobody's to pay. A plan that is new to the subscription begins when Stripe told
/// of it, once; or when its item was added, for an event that told of an earlier change may come after this one.
fn plan_since(
    account: &Account,
    subscription: &Subscription,
    plan: &Plan,
    (told_at, now): (Timestamp, Timestamp),
) -> Option<Timestamp> {
    if account.subscription.as_ref() != Some(&subscription.id) {
        let was_free = account.subscription.is_none() && account.customer.is_some();
        return (was_free && subscription.anchor < account.anchor).then(|| now.floor_s());
    }
    if account.plan == plan.id {
        return account.plan_since;
    }
    let added = |item: &Item| item.created.filter(|created| *created > subscription.created);
    let added = subscription.items.iter().filter_map(added).max();
    // Nor before the change that is known already: what was told of this one may have been held up behind it.
    added.into_iter().chain(account.plan_since).chain([told_at]).max().map(Timestamp::floor_s)
}

/// An anchor that is still to come, as in a trial, ends the period that counts now; the boundary's event brings the anchor itself.
fn anchor(subscription: &Subscription, plan: &Plan, book: &PlanBook, now: Timestamp) -> Timestamp {
    let metered = keys(book, &plan.id).and_then(|keys| has(subscription, &keys.metered));
    let first = subscription.items.first();
    match metered.or(first).and_then(|item| item.period) {
        Some(period) if subscription.anchor > now => period.start(),
        Some(_) | None => subscription.anchor,
    }
}
