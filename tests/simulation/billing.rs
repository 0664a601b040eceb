//! What Stripe bills: the parts of a subscription's periods, each at its own price, what of the meter each has on it by the moment
//! at which it becomes final, and the items that wait for the next invoice.
//!
//! A change of plan makes out at once what the meter has counted at the old price; a period's end drafts an invoice, which is
//! final an hour later, or after 72 hours where nobody answers for it. What is counted after that is on no invoice.

use crate::simulation::{
    bugs::Bug,
    scenario::{HOUR_MS, Mishap},
    stripe::{Event, PlanChange, Subscription, count_in, no},
    world::World,
};
use domain::{Period, Timestamp};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use stripe::testing::{Reply, Request};
use tokio::time::sleep;

/// How long a draft may be changed before it is final, in milliseconds.
const DRAFT_MS: u64 = HOUR_MS;
/// How long Stripe waits for an answer to `invoice.created`, in milliseconds.
const HELD_MS: u64 = 72 * HOUR_MS;
/// How long an idempotency key is remembered, in milliseconds.
const KEY_REMEMBERED_MS: u64 = 24 * HOUR_MS;
/// How much later than it was given up an item may be made, in milliseconds: less than a lease lasts.
const ITEM_LATE_MS_MAX: u64 = 100_000;
/// Items that end so close to each other are not told apart, in milliseconds.
const HASTY_MS: u64 = 61_000;
/// Longer than any history, in periods.
const PERIODS_MAX: u32 = 6;

/// An item that waits for the next invoice.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    id: String,
    pub(crate) customer: String,
    /// The report that it bills.
    pub(crate) report: String,
    pub(crate) cents: u64,
}

/// Items, and under which keys they were made.
#[derive(Debug, Default)]
pub(crate) struct Items {
    pub(crate) all: Vec<Item>,
    /// What was asked for under a key, when, and what was answered.
    keys: BTreeMap<String, (u64, String, Reply)>,
    /// Keys under which a request is under way.
    busy: BTreeSet<String>,
}

/// A part of a period under one plan, as Stripe bills it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) subscription: String,
    pub(crate) plan: &'static str,
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
    /// From when on nothing that is counted is billed any more.
    pub(crate) final_at: Timestamp,
    /// Since when the subscription has had the plan.
    pub(crate) since: Timestamp,
    /// How it ended, if it did before its period.
    pub(crate) cut: Option<Cut>,
}

/// Why a part of a period ended before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Another plan began.
    ByPlan(&'static str),
    /// The subscription ended.
    ByEnd,
}

/// An invoice of a period that has ended.
struct Drafted {
    subscription: String,
    period: Period,
    created: Timestamp,
    final_at: Timestamp,
}

/// When the invoice of a period that ends at `end` is drawn up, and when it is final.
fn dates(world: &World, end: Timestamp) -> (Timestamp, Timestamp) {
    let created = end.plus_ms(world.scenario.drawn_up_ms);
    let held_ms = if world.scenario.drafts_are_held { HELD_MS } else { DRAFT_MS };
    (created, created.plus_ms(held_ms))
}

/// The period of a subscription that holds `at`, as far as the subscription goes.
fn period(subscription: &Subscription, at: Timestamp) -> Option<Period> {
    let month = Period::monthly(subscription.anchor, at).filter(|_| subscription.anchor <= at)?;
    Period::new(month.start(), subscription.ended.map_or(month.end(), |ended| month.end().min(ended)))
        .filter(|period| period.contains(at))
}

/// The part of a customer's periods that `at` lies in. Of two subscriptions, the younger one's.
pub(crate) fn segment(world: &World, customer: &str, at: Timestamp) -> Option<Segment> {
    let of_customer: Vec<(String, Subscription)> = world.with(|inner| {
        let all = inner.stripe.subscriptions.iter();
        all.filter(|(_, s)| s.customer == customer).map(|(id, s)| (id.clone(), s.clone())).collect()
    });
    let within = of_customer.into_iter().filter_map(|(id, s)| period(&s, at).map(|period| (id, s, period)));
    let (id, subscription, period) = within.max_by_key(|(_, s, _)| s.anchor)?;
    let current = subscription.plans.iter().rposition(|change| change.since <= at)?;
    let change = subscription.plans[current];
    let left = subscription.plans.get(current + 1).filter(|next| next.since < period.end());
    let (to, final_at) =
        left.map_or((period.end(), dates(world, period.end()).1), |next| (next.since, next.at));
    Some(Segment {
        subscription: id,
        plan: change.plan,
        from: change.since.max(period.start()),
        to,
        final_at,
        since: change.since,
        cut: match (left, subscription.ended) {
            (Some(next), _) => Some(Cut::ByPlan(next.plan)),
            (None, Some(ended)) if ended == period.end() => Some(Cut::ByEnd),
            (None, _) => None,
        },
    })
}

/// The part that bills an event; none: nothing does.
pub(crate) fn billed_by(world: &World, event: &Event) -> Option<Segment> {
    let counted_at = world.scenario.base.plus_ms(event.counted_at_ms);
    segment(world, &event.customer, Timestamp::from_s(event.timestamp_s))
        .filter(|segment| counted_at < segment.final_at)
}

/// Whether the invoice of a period that held `at` is drawn up or final by now.
pub(crate) fn is_ended(world: &World, event: &Event) -> bool {
    let segment = segment(world, &event.customer, Timestamp::from_s(event.timestamp_s));
    segment.is_some_and(|segment| segment.to <= world.now())
}

fn drafted(world: &World, customer: &str) -> Vec<Drafted> {
    let now = world.now();
    let of_customer: Vec<(String, Subscription)> = world.with(|inner| {
        let all = inner.stripe.subscriptions.iter();
        all.filter(|(_, s)| s.customer == customer).map(|(id, s)| (id.clone(), s.clone())).collect()
    });
    let mut drafted = Vec::new();
    for (id, subscription) in of_customer {
        let mut at = subscription.anchor;
        for _ in 0..PERIODS_MAX {
            let Some(period) = period(&subscription, at) else { break };
            let (created, final_at) = dates(world, period.end());
            if created <= now {
                drafted.push(Drafted { subscription: id.clone(), period, created, final_at });
            }
            at = period.end();
        }
    }
    drafted.sort_by_key(|invoice| std::cmp::Reverse(invoice.created));
    drafted
}

fn list(data: &[Value]) -> Reply {
    Reply::Answer(200, json!({"object": "list", "url": "/", "has_more": false, "data": data}).to_string())
}

/// A customer's invoices since some time, the newest first.
pub(crate) fn invoices(world: &World, request: &Request) -> Reply {
    let since_s = request.query["created[gte]"].parse::<u64>().unwrap();
    let customer = &request.query["customer"];
    let now = world.now();
    let shown = drafted(world, customer).into_iter().filter(|invoice| invoice.created.s() >= since_s);
    let data: Vec<Value> = shown
        .map(|invoice| {
            let is_final = invoice.final_at <= now && world.bug != Some(Bug::FinalUnseen);
            let finalized_at = is_final.then(|| invoice.final_at.s());
            if is_final {
                world.saw("stripe: an invoice was final");
            }
            json!({"object": "invoice", "id": format!("in_{}_{}", invoice.subscription, invoice.period.end().s()),
                "customer": customer, "status": if is_final { "paid" } else { "draft" },
                "parent": {"subscription_details": {"subscription": invoice.subscription}},
                "billing_reason": "subscription_cycle", "period_start": invoice.period.start().s(),
                "period_end": invoice.period.end().s(), "created": invoice.created.s(),
                "automatically_finalizes_at": invoice.created.plus_ms(DRAFT_MS).s(),
                "status_transitions": {"finalized_at": finalized_at}, "total": 0, "hosted_invoice_url": null})
        })
        .collect();
    list(&data)
}

fn shown(item: &Item) -> Value {
    json!({"object": "invoiceitem", "id": item.id, "customer": item.customer, "amount": item.cents,
        "currency": "usd", "metadata": {"inkmeter_report": item.report}, "invoice": null})
}

/// The items that changes of plan made of what was counted at the old price. What they come to is `billed_by`'s.
fn items_of_changes(world: &World, customer: &str) -> Vec<Value> {
    world.with(|inner| {
        let of_customer = inner.stripe.subscriptions.iter().filter(|(_, s)| s.customer == customer);
        let changes =
            of_customer.flat_map(|(id, s)| s.plans.windows(2).map(move |pair| (id, pair[0], pair[1])));
        let item = |(id, old, new): (&String, PlanChange, PlanChange)| {
            json!({"object": "invoiceitem", "id": format!("ii_{id}_{}", new.since.s()), "customer": customer,
                "amount": 0, "currency": "usd", "metadata": {}, "invoice": null,
                "period": {"start": old.since.s(), "end": new.since.s()},
                "pricing": {"price_details": {"price": format!("price_{}_metered", old.plan)}}})
        };
        changes.map(item).collect()
    })
}

/// Whether more than one change of plan was so close to the end of a part that its items are of one time.
pub(crate) fn is_hasty(world: &World, segment: &Segment) -> bool {
    world.with(|inner| {
        let changes = inner.stripe.subscriptions[&segment.subscription].plans.iter();
        let is_near = |change: &&PlanChange| {
            change.since.ms_since(segment.to).max(segment.to.ms_since(change.since)) <= HASTY_MS
        };
        changes.filter(is_near).count() > 1
    })
}

/// Whether a part's subscription has had more than one plan.
pub(crate) fn has_changed(world: &World, segment: &Segment) -> bool {
    world.with(|inner| inner.stripe.subscriptions[&segment.subscription].plans.len() > 1)
}

/// Every item of a customer.
pub(crate) fn items(world: &World, request: &Request) -> Reply {
    let customer = &request.query["customer"];
    let items: Vec<Item> = world.with(|inner| {
        let of = inner.stripe.items.all.iter().filter(|item| item.customer == *customer);
        of.rev().cloned().collect()
    });
    if world.bug == Some(Bug::ItemUnlooked) {
        return list(&[]);
    }
    let of_changes = items_of_changes(world, customer);
    list(&items.iter().map(shown).chain(of_changes).collect::<Vec<_>>())
}

/// Makes an item, once under its key, and says so, or not.
pub(crate) async fn make_item(world: &Arc<World>, request: Request) -> Reply {
    let key = request.headers.get("idempotency-key").cloned().unwrap_or_default();
    if world.happens(Mishap::StripeErrsBefore) {
        return no(503, "something went wrong");
    }
    if world.happens(Mishap::StripeLate) {
        let late = Arc::clone(world);
        let after_ms = world.with(|inner| inner.dice.below(ITEM_LATE_MS_MAX));
        #[expect(clippy::disallowed_methods, reason = "a request on its way; it ends with the simulation")]
        tokio::spawn(async move {
            sleep(Duration::from_millis(after_ms)).await;
            late.trace(|| format!("late: Stripe makes an item under {key}"));
            late.saw("stripe: an item was made after it was given up");
            drop(under_key(&late, &key, &request));
        });
        return Reply::Hang;
    }
    if !world.with(|inner| inner.stripe.items.busy.insert(key.clone())) {
        return no(409, "a request under this key is under way");
    }
    world.travel().await;
    let reply = under_key(world, &key, &request);
    world.with(|inner| inner.stripe.items.busy.remove(&key));
    if world.happens(Mishap::StripeErrsAfter) {
        no(500, "something went wrong")
    } else if world.happens(Mishap::StripeLostAfter) {
        Reply::Cut
    } else {
        reply
    }
}

/// What is answered under a key: within a day what was answered first.
fn under_key(world: &Arc<World>, key: &str, request: &Request) -> Reply {
    let ms = world.ms();
    let before = world.with(|inner| inner.stripe.items.keys.get(key).cloned());
    let before = before.filter(|(at_ms, ..)| ms < at_ms + KEY_REMEMBERED_MS);
    if let Some((_, asked, reply)) = before.filter(|_| world.bug != Some(Bug::ItemUnlooked)) {
        world.saw("stripe: an item was asked for again under its key");
        if asked != request.body {
            world.violated(format!("F11: another item is asked for under the key {key}: {}", request.body));
        }
        return reply;
    }
    let reply = made(world, request);
    let kept = (ms, request.body.clone(), reply.clone());
    world.with(|inner| inner.stripe.items.keys.insert(key.to_owned(), kept));
    reply
}

fn made(world: &Arc<World>, request: &Request) -> Reply {
    let field = |name: &str| request.form.get(name).cloned().unwrap_or_default();
    let (customer, report) = (field("customer"), field("metadata[inkmeter_report]"));
    let known = world.with(|inner| inner.stripe.subscriptions.values().any(|s| s.customer == customer));
    let cents = field("amount").parse::<u64>().ok().filter(|cents| *cents > 0);
    let bounds = [field("period[start]"), field("period[end]")].map(|text| text.parse::<u64>().unwrap_or(0));
    let (Some(mut cents), true, true) = (cents, known, bounds[0] < bounds[1]) else {
        return no(400, "not an item");
    };
    if field("currency") != "usd" || report.is_empty() {
        return no(400, "not an item of this product");
    }
    if world.happens(Mishap::StripeRefuses) {
        world.with(|inner| inner.stripe.refused.insert(report));
        return no(400, "this item cannot be taken");
    }
    let row = world.with(|inner| inner.journal.rows.get(&report).map(|row| (row.tokens, row.timestamp)));
    let Some((tokens, timestamp)) = row else {
        world.violated(format!("F11: an item of {report}, which was never sealed"));
        return no(400, "not an item of this product");
    };
    match world.bug {
        Some(Bug::ItemPricedAlone) => cents = tokens.get(),
        Some(Bug::ItemAndEvent) => {
            let event = Event {
                identifier: report.clone(),
                customer: customer.clone(),
                tokens: tokens.get(),
                timestamp_s: timestamp.s(),
                counted_at_ms: 0,
                was_late: false,
            };
            count_in(world, event);
        }
        _ => {}
    }
    world.saw("stripe: an item was made");
    let (twice, item) = world.with(|inner| {
        let all = &mut inner.stripe.items.all;
        let twice = all.iter().any(|item| item.report == report);
        let item = Item { id: format!("ii_{}", all.len()), customer, report, cents };
        all.push(item.clone());
        (twice, item)
    });
    if twice {
        world.violated(format!("F11: two items bill one report: {item:?}"));
    }
    Reply::Answer(200, shown(&item).to_string())
}
