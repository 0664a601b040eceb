//! What has to be done about one customer. Pure: it decides from what Stripe and the ledger show, and asks nobody.
//!
//! Every step says what is and what will be. A step that is done already is not planned again, so that a run that was cut off
//! anywhere is finished by the next one.

use super::mapping::Mapped;
use domain::{
    Account, Billing, CustomerId, Meter, Period, PlanId, SubscriptionId, Timestamp, Tokens, UserId,
};
use edge::plans::PlanBook;
use std::collections::BTreeMap;
use std::fmt;
use stripe::setup::ObjectId;
use stripe::{Move, OldCustomer, OldItem, OldSubscription, Phase, PhaseItem, Schedule, Status};

/// Which old price becomes which plan, and what the plan's prices are at Stripe now.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The plan book.
    pub book: PlanBook,
    /// The plan of each old price.
    pub old: BTreeMap<ObjectId, PlanId>,
    /// The flat and the metered price of each plan that is sold.
    pub prices: BTreeMap<PlanId, [ObjectId; 2]>,
}

/// What was imported before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Imported {
    /// How much.
    pub tokens: Tokens,
}

/// What Stripe and the ledger show of one customer.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The customer; none: Stripe has none, or has it no more.
    pub customer: Option<OldCustomer>,
    /// The customer's subscriptions that have not ended.
    pub subscriptions: Vec<OldSubscription>,
    /// The schedules of those that are candidates.
    pub schedules: Vec<Schedule>,
    /// The user's account and current meter; none: the ledger does not know the user.
    pub account: Option<(Account, Meter)>,
    /// Whether the account's customer is another one, and has a subscription to a plan of the book's that has not ended.
    pub pays_elsewhere: bool,
    /// What was imported for this user; none: nothing yet.
    pub imported: Option<Imported>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The customer comes to say whose it is.
    NameCustomer,
    /// The subscription comes to say whose it is, and that it was taken over in this period.
    MarkSubscription {
        /// The subscription.
        id: SubscriptionId,
        /// The period's start.
        cycle: Timestamp,
    },
    /// The subscription, which has the plan's prices, loses the mark that keeps the webhook quiet about its old ones.
    Unmark(SubscriptionId),
    /// The subscription changes its billing mode.
    MakeFlexible(SubscriptionId),
    /// The subscription gets a schedule that brings it to the plan's prices at its cycle's end.
    Schedule {
        /// The subscription.
        subscription: SubscriptionId,
        /// The schedule that is there; none: it has to be made.
        id: Option<ObjectId>,
        /// What it says.
        planned: Move,
        /// The plan.
        plan: PlanId,
    },
    /// The schedule has done its work, and lets the subscription go.
    Release(ObjectId),
    /// The account gets the plan and the subscription's periods; nobody pays for it yet.
    OpenAccount(Target),
    /// What was used already is taken over, and how the rest of the period is billed is noted.
    Import {
        /// Where.
        target: Target,
        /// How much.
        tokens: Tokens,
        /// How the rest is billed.
        billing: Billing,
    },
    /// The account gets its subscription: from here on its customer pays.
    Attach {
        /// Where.
        target: Target,
        /// The customer that the account has instead, who pays for nothing.
        instead_of: Option<CustomerId>,
    },
}

/// What an account is to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The plan.
    pub plan: PlanId,
    /// The subscription.
    pub subscription: SubscriptionId,
    /// The instant that its periods are counted from.
    pub anchor: Timestamp,
    /// The current period.
    pub cycle: Period,
    /// When the subscription is set to end.
    pub ends_at: Option<Timestamp>,
}

impl Target {
    /// The account before anybody pays for it; none: it is so.
    pub fn opened(&self, account: &Account) -> Option<Account> {
        let after = Account {
            plan: self.plan.clone(),
            anchor: self.anchor,
            plan_since: None,
            pay_by: None,
            ..account.clone()
        };
        (account.subscription.is_none() && after != *account).then_some(after)
    }

    /// The account with its subscription; none: it has one, or a customer who is not `instead_of`.
    pub fn attached(
        &self,
        account: &Account,
        customer: &CustomerId,
        instead_of: Option<&CustomerId>,
    ) -> Option<Account> {
        let known = |has: &CustomerId| has == customer || Some(has) == instead_of;
        let is_free = account.subscription.is_none() && account.customer.as_ref().is_none_or(known);
        is_free.then(|| Account {
            plan: self.plan.clone(),
            customer: Some(customer.clone()),
            subscription: Some(self.subscription.clone()),
            anchor: self.anchor,
            plan_since: None,
            pay_by: None,
            ends_at: self.ends_at,
            ..account.clone()
        })
    }
}

/// Why a customer cannot be taken over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// No such customer.
    #[error("Stripe has no such customer, or has deleted it: take the line out")]
    NoCustomer,
    /// Somebody else's.
    #[error(
        "the {what} is user {user}'s by its metadata: correct the mapping, or the metadata in the dashboard"
    )]
    AnothersUser {
        /// Customer or subscription.
        what: &'static str,
        /// Whose.
        user: String,
    },
    /// Nothing is in force.
    #[error("it has no subscription: take the line out; the user can buy a plan as anybody")]
    NoSubscription,
    /// None or not all of the prices are known.
    #[error(
        "{subscription} has the price {price}, which is neither the book's nor named: say --price {price}=PLAN, or move it by hand"
    )]
    UnknownPrice {
        /// The subscription.
        subscription: SubscriptionId,
        /// The price.
        price: ObjectId,
    },
    /// More than one candidate.
    #[error("{0} subscriptions could be meant: end all but one")]
    SeveralSubscriptions(usize),
    /// Its prices belong to more than one plan.
    #[error("its prices become {0} and {1}: name one plan for all of its prices")]
    TwoPlans(PlanId, PlanId),
    /// Not simply in force.
    #[error("its status is {0}, not active: wait until it is, or settle what is open")]
    NotActive(String),
    /// Its collection is paused.
    #[error("its collection is paused: resume it first")]
    Paused,
    /// It is for several.
    #[error("its quantity is {0}: a plan is for one user; move it by hand")]
    Quantity(u64),
    /// Something that would be lost.
    #[error("it has {0}, which its schedule would lose: move it in the dashboard, and run this again")]
    Special(&'static str),
    /// It ends, but not yet.
    #[error(
        "it is set to end at {0}, after its cycle: a schedule would keep it, and without one its next cycle is on the old prices; take that back, or run this again in its last cycle"
    )]
    EndsLater(Timestamp),
    /// Another calendar than a plan's.
    #[error("its period is not the month that its anchor makes: move it to a monthly price first")]
    NotMonthly,
    /// Somebody else planned something.
    #[error("schedule {0} is somebody else's: release it, or move the subscription in it")]
    ForeignSchedule(ObjectId),
    /// The account has another payer.
    #[error("the user's account has {0} already: end that first, or correct the mapping")]
    AccountTaken(String),
    /// What is imported is something else.
    #[error(
        "{imported} tokens were imported before, and the mapping says {said}: what was imported stands; correct the mapping"
    )]
    AnotherNumber {
        /// What was imported.
        imported: Tokens,
        /// What the mapping says.
        said: Tokens,
    },
    /// It came too late.
    #[error(
        "it was begun in the cycle from {began}, which has ended before its {tokens} tokens were imported: say 0 tokens, or bill them by hand"
    )]
    CycleOver {
        /// The cycle's start.
        began: Timestamp,
        /// What would have been imported.
        tokens: Tokens,
    },
    /// It counts here already.
    #[error("its usage has been counted here since it was sold: there is nothing to import, say 0 tokens")]
    CountedHere,
}

/// What is to be done about a customer, and what else is worth saying.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order.
    pub steps: Vec<Step>,
    /// In words.
    pub notes: Vec<String>,
}

/// The one subscription, and what it becomes.
struct Candidate<'a> {
    of: &'a OldSubscription,
    plan: PlanId,
    target: Target,
    /// Whether it has the plan's prices and no other.
    moved: bool,
    billing: Billing,
}

/// Plans for one customer.
///
/// # Errors
/// What stands in the way; nothing is to be done then.
pub fn plan(mapped: &Mapped, seen: &Seen, rules: &Rules, now: Timestamp) -> Result<Plan, Obstacle> {
    let customer = seen.customer.as_ref().ok_or(Obstacle::NoCustomer)?;
    is_of("customer", customer.user.as_deref(), &mapped.user)?;
    let of = candidate(seen, rules, now)?;
    is_of("subscription", of.of.user.as_deref(), &mapped.user)?;
    let mut plan = Plan::default();
    if customer.user.is_none() {
        plan.steps.push(Step::NameCustomer);
    }
    let cycle = of.target.cycle;
    // What was sold here was not taken over.
    let attached = seen.account.as_ref().is_some_and(|(account, _)| account.subscription.is_some());
    let unmarked = of.of.adopted.is_none() && !attached || !of.of.marked && !of.moved;
    if of.of.user.is_none() || unmarked {
        // Of one that was taken over in an earlier cycle, that stays said.
        let cycle = of.of.adopted.unwrap_or(cycle.start());
        plan.steps.push(Step::MarkSubscription { id: of.of.id.clone(), cycle });
    }
    let began = of.of.adopted.filter(|began| *began < cycle.start() && attached && !of.moved);
    plan.notes.extend(began.map(|began| {
        format!(
            "it was taken over in the cycle from {began} and is on its old prices still: what this cycle uses above what the plan includes is on no invoice, bill it by hand"
        )
    }));
    at_stripe(&of, seen, rules, &mut plan)?;
    in_the_ledger(mapped, &of, seen, now, &mut plan)?;
    Ok(plan)
}

fn is_of(what: &'static str, said: Option<&str>, user: &UserId) -> Result<(), Obstacle> {
    match said {
        Some(other) if other != user.as_str() => Err(Obstacle::AnothersUser { what, user: other.to_owned() }),
        Some(_) | None => Ok(()),
    }
}

/// The plan of a price; none: nobody named it.
fn plan_of<'a>(item: &OldItem, rules: &'a Rules) -> Option<&'a PlanId> {
    let of_book = item.lookup_key.as_deref().and_then(|key| rules.book.plan_of_price(key));
    of_book.map(|plan| &plan.id).or_else(|| rules.old.get(&item.price))
}

fn candidate<'a>(seen: &'a Seen, rules: &Rules, now: Timestamp) -> Result<Candidate<'a>, Obstacle> {
    let known = |of: &&OldSubscription| of.items.iter().any(|item| plan_of(item, rules).is_some());
    let candidates: Vec<&OldSubscription> = seen.subscriptions.iter().filter(known).collect();
    let of = match candidates.as_slice() {
        [of] => *of,
        [] => return Err(none_known(seen)),
        several => return Err(Obstacle::SeveralSubscriptions(several.len())),
    };
    let mut plan: Option<&PlanId> = None;
    for item in &of.items {
        let unknown = || Obstacle::UnknownPrice { subscription: of.id.clone(), price: item.price.clone() };
        let found = plan_of(item, rules).ok_or_else(unknown)?;
        match plan {
            Some(plan) if plan != found => return Err(Obstacle::TwoPlans(plan.clone(), found.clone())),
            Some(_) | None => plan = Some(found),
        }
    }
    let plan = plan.ok_or(Obstacle::NoSubscription)?.clone();
    let moved = is_moved(of, &plan, rules);
    let attached = seen.account.as_ref().is_some_and(|(account, _)| account.subscription.is_some());
    is_plain(of, moved, attached)?;
    let period = of.items.iter().find_map(|item| item.period).ok_or(Obstacle::NotMonthly)?;
    let cycle = Period::monthly(of.anchor, now).filter(|month| *month == period && of.anchor <= now);
    let same = of.items.iter().all(|item| item.period == Some(period));
    let cycle = cycle.filter(|_| same).ok_or(Obstacle::NotMonthly)?;
    let billing = match () {
        () if moved => Billing::Metered,
        () if of.items.iter().any(|item| item.metered) => Billing::Item,
        () => Billing::Flat,
    };
    let target = Target {
        plan: plan.clone(),
        subscription: of.id.clone(),
        anchor: of.anchor,
        cycle,
        ends_at: of.ends_at,
    };
    Ok(Candidate { of, plan, target, moved, billing })
}

/// Whether it has the plan's prices and no other.
fn is_moved(of: &OldSubscription, plan: &PlanId, rules: &Rules) -> bool {
    let is_of_book = |item: &OldItem| {
        item.lookup_key.as_deref().is_some_and(|key| rules.book.plan_of_price(key).is_some())
    };
    let has_both = rules.book.lookup_keys(plan).is_some_and(|keys| {
        let has = |key: &str| of.items.iter().any(|item| item.lookup_key.as_deref() == Some(key));
        has(&keys.base) && has(&keys.metered)
    });
    has_both && of.items.iter().all(is_of_book)
}

fn none_known(seen: &Seen) -> Obstacle {
    let item = seen.subscriptions.iter().find_map(|of| of.items.first().map(|item| (of, item)));
    match item {
        None => Obstacle::NoSubscription,
        Some((of, item)) => Obstacle::UnknownPrice { subscription: of.id.clone(), price: item.price.clone() },
    }
}

/// Whether it is as simple as what can be moved without anybody's looking. One that is moved gets no schedule, which could lose
/// something; and once it is its account's, that it waits for its money hinders nothing.
fn is_plain(of: &OldSubscription, moved: bool, attached: bool) -> Result<(), Obstacle> {
    match &of.status {
        Status::Active => {}
        Status::PastDue if moved && attached => {}
        other => return Err(Obstacle::NotActive(status_name(other))),
    }
    if of.paused {
        return Err(Obstacle::Paused);
    }
    if let Some(quantity) = of.items.iter().filter_map(|item| item.quantity).find(|quantity| *quantity != 1) {
        return Err(Obstacle::Quantity(quantity));
    }
    let special = of.special.first().filter(|_| !moved);
    special.map_or(Ok(()), |special| Err(Obstacle::Special(special)))
}

fn status_name(status: &Status) -> String {
    let name = match status {
        Status::Active => "active",
        Status::Trialing => "trialing",
        Status::PastDue => "past_due",
        Status::Incomplete => "incomplete",
        Status::IncompleteExpired => "incomplete_expired",
        Status::Canceled => "canceled",
        Status::Unpaid => "unpaid",
        Status::Paused => "paused",
        Status::Other(other) => other,
    };
    name.to_owned()
}

/// Its schedule and its billing mode.
///
/// A subscription with a metered price without a meter stays in classic mode, for Stripe refuses to change that; once it has
/// the plan's prices, it is changed, or a later change of plan would lose what was used before (docs/adr/0009).
fn at_stripe(of: &Candidate<'_>, seen: &Seen, rules: &Rules, plan: &mut Plan) -> Result<(), Obstacle> {
    let Candidate { of: subscription, moved, .. } = of;
    let schedule = subscription.schedule.as_ref().map(|id| {
        let found = seen.schedules.iter().find(|schedule| schedule.id == *id);
        found.ok_or_else(|| Obstacle::ForeignSchedule(id.clone()))
    });
    let schedule = schedule.transpose()?;
    let is_legacy = of.billing == Billing::Item;
    if *moved {
        if subscription.marked {
            plan.steps.push(Step::Unmark(subscription.id.clone()));
        }
        match schedule {
            Some(schedule) if schedule.is_ours => plan.steps.push(Step::Release(schedule.id.clone())),
            // It is on the plan's prices: what else is planned for it is somebody else's business.
            Some(_) if !subscription.flexible => {
                plan.notes
                    .push("it is in classic billing mode, and has a schedule of somebody else".to_owned());
                return Ok(());
            }
            Some(_) | None => {}
        }
        if !subscription.flexible {
            plan.steps.push(Step::MakeFlexible(subscription.id.clone()));
        }
        return Ok(());
    }
    match subscription.ends_at {
        Some(at) if at > of.target.cycle.end() => return Err(Obstacle::EndsLater(at)),
        Some(_) => {
            plan.notes.push("it is set to end: its prices stay as they are until then".to_owned());
            return Ok(());
        }
        None => {}
    }
    let planned = planned(of, rules);
    if schedule.is_none() && !subscription.flexible && !is_legacy {
        plan.steps.push(Step::MakeFlexible(subscription.id.clone()));
    }
    if is_legacy && !subscription.flexible {
        plan.notes.push(format!(
            "run this again after {}, to change its billing mode from classic to flexible",
            of.target.cycle.end()
        ));
    }
    let step = |id| Step::Schedule {
        subscription: subscription.id.clone(),
        id,
        planned: planned.clone(),
        plan: of.plan.clone(),
    };
    match schedule {
        None => plan.steps.push(step(None)),
        Some(schedule) if schedule.is_ours && says(schedule, &planned) => {}
        Some(schedule) if schedule.is_ours || is_half_made(schedule, subscription, &planned) => {
            plan.steps.push(step(Some(schedule.id.clone())));
        }
        Some(schedule) => return Err(Obstacle::ForeignSchedule(schedule.id.clone())),
    }
    Ok(())
}

fn planned(of: &Candidate<'_>, rules: &Rules) -> Move {
    let items = of.of.items.iter();
    let now = items.map(|item| PhaseItem {
        price: item.price.clone(),
        quantity: item.quantity.filter(|_| !item.metered),
    });
    let then = rules.prices.get(&of.plan).into_iter().flat_map(|[base, metered]| {
        [(base, Some(1)), (metered, None)]
            .map(|(price, quantity)| PhaseItem { price: price.clone(), quantity })
    });
    Move {
        now: Phase { period: of.target.cycle, items: now.collect() },
        then: then.collect(),
        automatic_tax: of.of.automatic_tax,
    }
}

fn same(one: &[PhaseItem], other: &[PhaseItem]) -> bool {
    let sorted = |items: &[PhaseItem]| {
        let mut items = items.to_vec();
        items.sort();
        items
    };
    sorted(one) == sorted(other)
}

/// Whether a schedule brings its subscription to these prices at the cycle's end.
fn says(schedule: &Schedule, planned: &Move) -> bool {
    let cycle_end = planned.now.period.end();
    let mut ahead = schedule.phases.iter().filter(|phase| phase.period.end() > planned.now.period.start());
    let now = ahead
        .next()
        .is_some_and(|phase| phase.period.end() == cycle_end && same(&phase.items, &planned.now.items));
    let then = ahead
        .next()
        .is_some_and(|phase| phase.period.start() == cycle_end && same(&phase.items, &planned.then));
    now && then && ahead.next().is_none() && schedule.releases
}

/// Whether a schedule is one that was made here, and lacks its second step: the subscription was marked before, and the schedule
/// repeats what is and nothing else.
fn is_half_made(schedule: &Schedule, of: &OldSubscription, planned: &Move) -> bool {
    let repeats = match schedule.phases.as_slice() {
        [only] => same(&only.items, &planned.now.items),
        _ => false,
    };
    of.adopted.is_some() && schedule.is_unmarked && schedule.releases && repeats
}

fn in_the_ledger(
    mapped: &Mapped,
    of: &Candidate<'_>,
    seen: &Seen,
    now: Timestamp,
    plan: &mut Plan,
) -> Result<(), Obstacle> {
    let target = &of.target;
    if let Some(imported) = seen.imported.filter(|imported| imported.tokens != mapped.tokens) {
        return Err(Obstacle::AnotherNumber { imported: imported.tokens, said: mapped.tokens });
    }
    let account = seen.account.as_ref().map(|(account, _)| account);
    if let Some(taken) = account.and_then(|account| taken(account, mapped, target, seen.pays_elsewhere)) {
        return Err(Obstacle::AccountTaken(taken));
    }
    let attached = account.is_some_and(|account| account.subscription.is_some());
    let to_import = seen.imported.is_none() && !attached;
    if attached && seen.imported.is_none() && mapped.tokens > Tokens::ZERO {
        return Err(Obstacle::CountedHere);
    }
    // What a cycle used that is over is on its invoice, or is lost: it is not moved into another.
    let over = of.of.adopted.filter(|began| *began < target.cycle.start());
    if let Some(began) = over.filter(|_| to_import && mapped.tokens > Tokens::ZERO) {
        return Err(Obstacle::CycleOver { began, tokens: mapped.tokens });
    }
    if attached {
        return Ok(());
    }
    let is_open = seen.account.as_ref().is_some_and(|(account, meter)| {
        target.opened(account).is_none() && meter.period.contains(now) && !meter.closed
    });
    if !is_open {
        plan.steps.push(Step::OpenAccount(target.clone()));
    }
    if to_import {
        let (target, tokens, billing) = (target.clone(), mapped.tokens, of.billing);
        plan.steps.push(Step::Import { target, tokens, billing });
    }
    let other = account.and_then(|account| account.customer.as_ref());
    let instead_of = other.filter(|id| **id != mapped.customer).cloned();
    plan.steps.push(Step::Attach { target: target.clone(), instead_of });
    Ok(())
}

/// What an account has that is not to be taken from it. A customer who was only about to buy has nothing.
fn taken(account: &Account, mapped: &Mapped, target: &Target, pays_elsewhere: bool) -> Option<String> {
    let subscription = account.subscription.as_ref().filter(|id| **id != target.subscription);
    let customer = account.customer.as_ref().filter(|id| **id != mapped.customer);
    let customer = customer.filter(|_| account.subscription.is_some() || pays_elsewhere);
    subscription
        .map(|id| format!("the subscription {id}"))
        .or_else(|| customer.map(|id| format!("the customer {id}, who has bought a plan")))
}

/// How a period is billed, for people.
pub fn billing_name(billing: Billing) -> &'static str {
    match billing {
        Billing::Metered | Billing::Replaced => "by Stripe's meter",
        Billing::Item => "by an invoice item once the cycle has ended",
        Billing::Flat => "by the flat price that is paid already",
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameCustomer => f.write_str("customer: no user -> the mapping's"),
            Self::MarkSubscription { id, cycle } => {
                write!(f, "{id}: no user -> the mapping's, taken over in the cycle from {cycle}")
            }
            Self::Unmark(id) => write!(f, "{id}: marked as on its way -> not any more"),
            Self::MakeFlexible(id) => write!(f, "{id}: billing mode classic -> flexible"),
            Self::Schedule { subscription, id, planned, plan } => {
                let prices = |items: &[PhaseItem]| {
                    items.iter().map(|item| item.price.to_string()).collect::<Vec<_>>().join(" + ")
                };
                let by = id.as_ref().map_or_else(String::new, |id| format!(", in the schedule {id}"));
                let (now, then) = (prices(&planned.now.items), prices(&planned.then));
                write!(f, "{subscription}: {now} -> {then} ({plan}) at {}{by}", planned.now.period.end())
            }
            Self::Release(id) => write!(f, "{id}: it has done its work -> released"),
            Self::OpenAccount(target) => {
                write!(f, "account: -> plan {}, counted from {}, unpaid", target.plan, target.cycle.start())
            }
            Self::Import { tokens, billing, .. } => {
                write!(
                    f,
                    "usage: -> {tokens} tokens settled and reported; the rest is billed {}",
                    billing_name(*billing)
                )
            }
            Self::Attach { target, instead_of } => {
                write!(f, "account: -> paid by {}", target.subscription)?;
                let instead = |id| write!(f, ", and no more by {id}, whose open checkouts end");
                instead_of.as_ref().map_or(Ok(()), instead)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Opening;

    /// 2030-01-01, 2030-02-01, and a day in between.
    const START: Timestamp = Timestamp::from_s(1_893_456_000);
    const END: Timestamp = Timestamp::from_s(1_893_456_000 + 31 * 86_400);
    const NOW: Timestamp = Timestamp::from_s(1_893_456_000 + 86_400);

    fn id(text: &str) -> ObjectId {
        ObjectId::parse(text).unwrap()
    }

    fn pro() -> PlanId {
        PlanId::parse("pro").unwrap()
    }

    fn rules() -> Rules {
        let agency = include_str!("../../../../tests/agency.toml");
        let book = format!("{}\n{agency}", include_str!("../../../plans.toml"));
        let agency = PlanId::parse("agency").unwrap();
        let old = [("price_flat", pro()), ("price_used", pro()), ("price_dear", agency.clone())];
        Rules {
            book: PlanBook::parse(&book).unwrap(),
            old: old.map(|(price, plan)| (id(price), plan)).into(),
            prices: BTreeMap::from([
                (pro(), [id("price_base"), id("price_tokens")]),
                (agency, [id("price_base2"), id("price_tokens2")]),
            ]),
        }
    }

    fn item(price: &str, metered: bool) -> OldItem {
        let quantity = (!metered).then_some(1);
        OldItem { price: id(price), lookup_key: None, metered, quantity, period: Period::new(START, END) }
    }

    fn sold(items: Vec<OldItem>) -> OldSubscription {
        OldSubscription {
            id: SubscriptionId::parse("sub_1").unwrap(),
            user: None,
            adopted: None,
            marked: false,
            status: Status::Active,
            paused: false,
            ends_at: None,
            flexible: false,
            automatic_tax: false,
            schedule: None,
            anchor: START,
            items,
            special: Vec::new(),
        }
    }

    fn seen(subscription: OldSubscription) -> Seen {
        Seen {
            customer: Some(OldCustomer { user: None }),
            subscriptions: vec![subscription],
            schedules: Vec::new(),
            account: None,
            pays_elsewhere: false,
            imported: None,
        }
    }

    fn mapped(tokens: u32) -> Mapped {
        Mapped {
            line: 2,
            customer: CustomerId::parse("cus_1").unwrap(),
            user: UserId::parse("user_1").unwrap(),
            tokens: Tokens::from_u32(tokens),
        }
    }

    fn account(change: impl FnOnce(&mut Account)) -> (Account, Meter) {
        let mut account = Account::first_seen(mapped(0).user, PlanId::parse("free").unwrap(), START);
        change(&mut account);
        let Opening { account, meter, .. } = Opening::first(account, NOW).unwrap();
        (account, meter)
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Seen), expected: &str) {
        let mut seen = seen(sold(vec![item("price_flat", false), item("price_used", true)]));
        change(&mut seen);
        let obstacle = plan(&mapped(7), &seen, &rules(), NOW).unwrap_err().to_string();
        assert!(obstacle.contains(expected), "{obstacle}");
    }

    fn first(seen: &mut Seen) -> &mut OldSubscription {
        &mut seen.subscriptions[0]
    }

    #[test]
    fn whatever_stands_in_the_way_is_named_and_nothing_is_planned() {
        check(|seen| seen.customer = None, "no such customer");
        check(|seen| seen.customer = Some(OldCustomer { user: Some("user_2".into()) }), "user user_2's");
        check(|seen| first(seen).user = Some("user_2".into()), "subscription is user user_2's");
        check(|seen| seen.subscriptions.clear(), "no subscription");
        check(|seen| first(seen).items = vec![item("price_x", false)], "--price price_x=PLAN");
        check(|seen| first(seen).items.push(item("price_x", false)), "--price price_x=PLAN");
        check(|seen| first(seen).items.push(item("price_dear", false)), "become pro and agency");
        check(|seen| seen.subscriptions.push(sold(vec![item("price_flat", false)])), "2 subscriptions");
        check(|seen| first(seen).status = Status::Trialing, "trialing, not active");
        check(|seen| first(seen).status = Status::PastDue, "past_due, not active");
        check(|seen| first(seen).paused = true, "paused");
        check(|seen| first(seen).items[0].quantity = Some(3), "quantity is 3");
        check(|seen| first(seen).special = vec!["a discount"], "has a discount");
        check(|seen| first(seen).ends_at = Some(END.plus_ms(1_000)), "after its cycle");
        check(|seen| first(seen).items[0].period = Period::new(START, END.plus_ms(1_000)), "not the month");
        check(|seen| first(seen).anchor = NOW.plus_ms(1), "not the month");
        check(|seen| first(seen).schedule = Some(id("sub_sched_1")), "somebody else's");
        let bought = |account: &mut Account| account.subscription = SubscriptionId::parse("sub_2").ok();
        check(|seen| seen.account = Some(account(bought)), "the subscription sub_2");
        let paid = |account: &mut Account| account.customer = CustomerId::parse("cus_2").ok();
        let elsewhere = |seen: &mut Seen| (seen.account, seen.pays_elsewhere) = (Some(account(paid)), true);
        check(elsewhere, "the customer cus_2, who");
        let own = |account: &mut Account| account.subscription = SubscriptionId::parse("sub_1").ok();
        check(|seen| seen.account = Some(account(own)), "nothing to import");
        check(
            |seen| seen.imported = Some(Imported { tokens: Tokens::from_u32(8) }),
            "8 tokens were imported",
        );
        let before = Timestamp::from_ms(START.ms() - 1_000);
        check(|seen| first(seen).adopted = Some(before), "has ended before its 7 tokens");
    }

    #[track_caller]
    fn steps(seen: &Seen, expected: &[&str]) {
        let plan = plan(&mapped(7), seen, &rules(), NOW).unwrap();
        let steps: Vec<String> = plan.steps.iter().map(ToString::to_string).collect();
        assert_eq!(steps.len(), expected.len(), "{steps:?}");
        for (step, expected) in steps.iter().zip(expected) {
            assert!(step.contains(expected), "{step}");
        }
    }

    #[test]
    fn a_flat_price_changes_its_billing_mode_first_and_a_metered_one_once_it_is_moved() {
        let flat = seen(sold(vec![item("price_flat", false)]));
        let ledger = ["plan pro", "7 tokens", "paid by sub_1"];
        let expected = [&["user", "user", "-> flexible", "price_base + price_tokens"], &ledger[..]].concat();
        steps(&flat, &expected);
        let mut metered = seen(sold(vec![item("price_flat", false), item("price_used", true)]));
        steps(&metered, &[&["user", "user", "price_base + price_tokens"], &ledger[..]].concat());
        move_by_hand(first(&mut metered));
        metered.customer = Some(OldCustomer { user: Some("user_1".into()) });
        let moved = first(&mut metered);
        (moved.user, moved.adopted, moved.marked) = (Some("user_1".into()), Some(START), true);
        moved.schedule = Some(id("sub_sched_1"));
        let own = |account: &mut Account| account.subscription = SubscriptionId::parse("sub_1").ok();
        metered.account = Some(account(own));
        metered.imported = Some(Imported { tokens: Tokens::from_u32(7) });
        metered.schedules = vec![Schedule {
            id: id("sub_sched_1"),
            is_ours: true,
            is_unmarked: false,
            releases: true,
            phases: Vec::new(),
        }];
        steps(&metered, &["not any more", "released", "-> flexible"]);
        let done = first(&mut metered);
        (done.schedule, done.flexible, done.marked) = (None, true, false);
        steps(&metered, &[]);
    }

    /// The prices are the plan's.
    fn move_by_hand(subscription: &mut OldSubscription) {
        for (item, key) in
            subscription.items.iter_mut().zip(["inkmeter_pro_base_v1", "inkmeter_pro_tokens_v1"])
        {
            item.lookup_key = Some(key.to_owned());
        }
    }

    #[test]
    fn a_customer_who_was_only_about_to_buy_gives_way_and_one_who_came_since_does_not() {
        let mut seen = seen(sold(vec![item("price_flat", false)]));
        let named = |account: &mut Account| account.customer = CustomerId::parse("cus_2").ok();
        seen.account = Some(account(named));
        let expected = [
            "user",
            "user",
            "-> flexible",
            "price_base",
            "plan pro",
            "7 tokens",
            "sub_1, and no more by cus_2",
        ];
        steps(&seen, &expected);
        let plan = plan(&mapped(7), &seen, &rules(), NOW).unwrap();
        let Some(Step::Attach { target, instead_of }) = plan.steps.last() else { panic!("{plan:?}") };
        let (before, _) = account(named);
        let after = target.attached(&before, &mapped(7).customer, instead_of.as_ref()).unwrap();
        assert_eq!(after.customer, Some(mapped(7).customer));
        assert_eq!(target.attached(&before, &mapped(7).customer, None), None, "nobody looked at it");
    }

    #[test]
    fn one_that_ends_with_its_cycle_gets_no_schedule_and_one_that_ends_later_none_and_no_account() {
        let mut seen = seen(sold(vec![item("price_flat", false)]));
        first(&mut seen).ends_at = Some(END);
        steps(&seen, &["user", "user", "plan pro", "7 tokens", "paid by sub_1"]);
        first(&mut seen).ends_at = Some(END.plus_ms(1_000));
        let obstacle = plan(&mapped(7), &seen, &rules(), NOW).unwrap_err();
        assert_eq!(obstacle, Obstacle::EndsLater(END.plus_ms(1_000)));
    }

    #[test]
    fn one_that_was_not_moved_at_its_cycles_end_is_scheduled_and_said() {
        let mut seen = seen(sold(vec![item("price_flat", false), item("price_used", true)]));
        let began = Timestamp::from_ms(START.ms() - 1_000);
        let subscription = first(&mut seen);
        (subscription.user, subscription.adopted, subscription.marked) =
            (Some("user_1".into()), Some(began), true);
        seen.customer = Some(OldCustomer { user: Some("user_1".into()) });
        let own = |account: &mut Account| account.subscription = SubscriptionId::parse("sub_1").ok();
        seen.account = Some(account(own));
        seen.imported = Some(Imported { tokens: Tokens::from_u32(7) });
        steps(&seen, &["price_base + price_tokens"]);
        let plan = plan(&mapped(7), &seen, &rules(), NOW).unwrap();
        assert!(plan.notes.iter().any(|note| note.contains("on its old prices still")), "{:?}", plan.notes);
    }

    #[test]
    fn one_that_was_moved_by_hand_keeps_its_discount_and_is_finished_while_it_waits_for_its_money() {
        let mut seen = seen(sold(vec![item("price_flat", false), item("price_used", true)]));
        move_by_hand(first(&mut seen));
        first(&mut seen).special = vec!["a discount"];
        steps(&seen, &["user", "user", "-> flexible", "plan pro", "7 tokens", "paid by sub_1"]);
        first(&mut seen).status = Status::PastDue;
        let obstacle = plan(&mapped(7), &seen, &rules(), NOW).unwrap_err();
        assert_eq!(obstacle, Obstacle::NotActive("past_due".to_owned()));
        let subscription = first(&mut seen);
        (subscription.user, subscription.adopted, subscription.marked) =
            (Some("user_1".into()), Some(START), true);
        seen.customer = Some(OldCustomer { user: Some("user_1".into()) });
        let own = |account: &mut Account| account.subscription = SubscriptionId::parse("sub_1").ok();
        seen.account = Some(account(own));
        seen.imported = Some(Imported { tokens: Tokens::from_u32(7) });
        steps(&seen, &["not any more", "-> flexible"]);
    }
}
