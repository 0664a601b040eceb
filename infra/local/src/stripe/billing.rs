//! The billing cycle: periods roll, drafts are made, drafts become final.
//!
//! Owns every transition that time causes, in the order of time, and the lines of an invoice. As in the real Stripe a
//! licensed price is billed in advance and a metered one in arrears: the invoice of a finished period holds that period's
//! usage and the next period's base. It never reads a clock and never delivers anything.

use std::collections::BTreeSet;

use serde_json::json;

use super::calendar::HOUR_S;
use super::checkout;
use super::money;
use super::webhooks::Subject;
use super::wire;
use super::world::{
    Invoice, InvoiceState, Item, Line, LinePlan, Price, Reason, Scheme, Subscription, SubscriptionState,
    Usage, World,
};

/// How long a draft waits after its `invoice.created` was answered, in seconds.
const DRAFT_GRACE_S: i64 = HOUR_S;
/// How long an unanswered `invoice.created` can hold a draft back, in seconds.
const MAX_DRAFT_S: i64 = 72 * HOUR_S;

/// What is due.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Due {
    /// A subscription's period ends.
    Period(String),
    /// A draft becomes final.
    Finalize(String),
    /// A checkout session expires.
    Expire(String),
}

/// When a draft becomes final by itself; `None` if it does not.
pub(super) fn finalizes_at_s(invoice: &Invoice) -> Option<i64> {
    if !invoice.auto_advance || !matches!(invoice.state, InvoiceState::Draft) {
        return None;
    }
    let latest_s = invoice.created_s + MAX_DRAFT_S;
    Some(invoice.announced_s.map_or(latest_s, |at_s| latest_s.min(at_s + DRAFT_GRACE_S)))
}

/// The next time at which something is due.
pub(super) fn next_due_s(world: &mut World) -> i64 {
    if let Some(at_s) = world.next_due_s {
        return at_s;
    }
    let at_s = earliest(world).map_or(i64::MAX, |(at_s, _)| at_s);
    world.next_due_s = Some(at_s);
    at_s
}

fn earliest(world: &World) -> Option<(i64, Due)> {
    let open =
        world.subscriptions.iter().filter(|found| !matches!(found.state, SubscriptionState::Canceled { .. }));
    let period =
        open.min_by_key(|found| found.period_end_s).map(|found| (found.period_end_s, found.id.clone()));
    let drafts = world.invoices.iter().filter_map(|found| Some((finalizes_at_s(found)?, &found.id)));
    let draft = drafts.min_by_key(|(at_s, _)| *at_s).map(|(at_s, id)| (at_s, id.clone()));
    let period = period.map(|(at_s, id)| (at_s, Due::Period(id)));
    let draft = draft.map(|(at_s, id)| (at_s, Due::Finalize(id)));
    let expiry = checkout::next_expiry(world).map(|(at_s, id)| (at_s, Due::Expire(id)));
    [period, draft, expiry].into_iter().flatten().min_by_key(|(at_s, _)| *at_s)
}

/// Does everything that is due at `now_s`, in the order in which it became due.
pub(super) fn catch_up(world: &mut World, now_s: i64) {
    // Each pass moves a period on or makes a draft final, so the passes end: a period is at least a day long.
    while next_due_s(world) <= now_s {
        let Some((at_s, due)) = earliest(world) else { return };
        world.next_due_s = None;
        match due {
            Due::Period(id) => end_period(world, &id, at_s),
            Due::Finalize(id) => finalize(world, &id, at_s),
            Due::Expire(id) => checkout::end(world, &id, at_s),
        }
    }
}

fn end_period(world: &mut World, id: &str, at_s: i64) {
    let Some(subscription) = world.subscriptions.get_mut(id) else { return };
    let finished = (subscription.period_start_s, subscription.period_end_s);
    let previous = json!({ "latest_invoice": subscription.latest_invoice });
    if let SubscriptionState::Ending { asked_s } = subscription.state {
        subscription.state = SubscriptionState::Canceled { asked_s, ended_s: at_s };
        invoice_usage(world, id, finished, Reason::Cycle, at_s);
        announce_subscription(world, id, "customer.subscription.deleted", None, at_s);
        return;
    }
    subscription.period_index += 1;
    subscription.period_start_s = subscription.period_end_s;
    let next = subscription.cycle.boundary(subscription.anchor_s, subscription.period_index + 1);
    // Beyond the calendar's end nothing is ever due again.
    subscription.period_end_s = next.unwrap_or(i64::MAX);
    let subscription = subscription.clone();
    let next_period = (subscription.period_start_s, subscription.period_end_s);
    let mut plan = plan_lines(world, &subscription, next_period, Billed::Base);
    plan.extend(plan_lines(world, &subscription, finished, Billed::Usage));
    draft(world, &subscription, plan, finished, Reason::Cycle, at_s);
    announce_subscription(world, id, "customer.subscription.updated", Some(&previous), at_s);
}

/// Bills a new subscription: its base in advance, on an invoice that is final at once.
pub(super) fn bill_start(world: &mut World, id: &str, now_s: i64) {
    let Some(subscription) = world.subscriptions.get(id).cloned() else { return };
    let period = (subscription.period_start_s, subscription.period_end_s);
    let mut plan = plan_lines(world, &subscription, period, Billed::Base);
    // Nothing has been used yet: the lines of usage are there, over no time at all, as on the real first invoice.
    plan.extend(plan_lines(world, &subscription, (now_s, now_s), Billed::Usage));
    if let Some(invoice) = draft(world, &subscription, plan, (now_s, now_s), Reason::Create, now_s) {
        finalize(world, &invoice, now_s);
    }
}

/// Makes a last draft for the usage of a canceled subscription.
pub(super) fn bill_cancellation(world: &mut World, id: &str, now_s: i64) {
    let Some(subscription) = world.subscriptions.get(id) else { return };
    let period = (subscription.period_start_s, now_s);
    invoice_usage(world, id, period, Reason::Cancel, now_s);
}

fn invoice_usage(world: &mut World, id: &str, period: (i64, i64), reason: Reason, at_s: i64) {
    let Some(subscription) = world.subscriptions.get(id).cloned() else { return };
    let plan = plan_lines(world, &subscription, period, Billed::Usage);
    if !plan.is_empty() {
        draft(world, &subscription, plan, period, reason, at_s);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Billed {
    Base,
    Usage,
}

fn is_metered(price: &Price) -> bool {
    matches!(price.recurring.as_ref().map(|recurring| &recurring.usage), Some(Usage::Metered { .. }))
}

fn plan_lines(world: &mut World, of: &Subscription, period: (i64, i64), billed: Billed) -> Vec<LinePlan> {
    let wanted = |item: &&Item| {
        let metered = world.prices.get(&item.price).is_some_and(is_metered);
        metered == (billed == Billed::Usage)
    };
    let items: Vec<Item> = of.items.iter().filter(wanted).cloned().collect();
    let plan = items.into_iter().map(|item| LinePlan {
        id: world.ids.next("il"),
        item: item.id,
        price: item.price,
        quantity: item.quantity,
        start_s: period.0,
        end_s: period.1,
    });
    plan.collect()
}

/// Stores a draft and tells of it. Its id, unless no invoice fits any more.
fn draft(
    world: &mut World,
    of: &Subscription,
    plan: Vec<LinePlan>,
    period: (i64, i64),
    reason: Reason,
    at_s: i64,
) -> Option<String> {
    let id = world.ids.next("in");
    let invoice = Invoice {
        id: id.clone(),
        created_s: at_s,
        customer: of.customer.clone(),
        subscription: of.id.clone(),
        currency: of.currency.clone(),
        reason,
        period_start_s: period.0,
        period_end_s: period.1,
        plan,
        auto_advance: true,
        announced_s: if world.outbox.has_endpoint() { None } else { Some(at_s) },
        state: InvoiceState::Draft,
    };
    if let Err(error) = world.invoices.insert(invoice) {
        tracing::error!(?error, subscription = of.id, "an invoice was not made");
        return None;
    }
    if let Some(subscription) = world.subscriptions.get_mut(&of.id) {
        subscription.latest_invoice = Some(id.clone());
    }
    world.next_due_s = None;
    announce_invoice(world, &id, "invoice.created", at_s);
    Some(id)
}

/// Makes a draft final: from here on its lines are fixed.
pub(super) fn finalize(world: &mut World, id: &str, at_s: i64) {
    let Some(invoice) = world.invoices.get(id) else { return };
    let lines = lines(world, invoice);
    world.next_invoice_number += 1;
    let number = format!("LOCAL-{:06}", world.next_invoice_number);
    if let Some(invoice) = world.invoices.get_mut(id) {
        invoice.state = InvoiceState::Finalized { at_s, number, lines };
    }
    world.next_due_s = None;
    announce_invoice(world, id, "invoice.finalized", at_s);
}

fn announce_invoice(world: &mut World, id: &str, kind: &'static str, at_s: i64) {
    let Some(invoice) = world.invoices.get(id) else { return };
    let object = wire::invoice(world, invoice);
    let subject = Subject { kind, object, previous: None, invoice: Some(id.to_owned()) };
    let event = world.ids.next("evt");
    world.outbox.emit(event, subject, at_s);
}

/// Tells of a subscription.
pub(super) fn announce_subscription(
    world: &mut World,
    id: &str,
    kind: &'static str,
    previous: Option<&serde_json::Value>,
    at_s: i64,
) {
    let Some(subscription) = world.subscriptions.get(id) else { return };
    let object = wire::subscription(world, subscription, &BTreeSet::new());
    let subject = Subject { kind, object, previous: previous.cloned(), invoice: None };
    let event = world.ids.next("evt");
    world.outbox.emit(event, subject, at_s);
}

/// The lines of an invoice: fixed ones, or what the meters say now.
pub(super) fn lines(world: &World, invoice: &Invoice) -> Vec<Line> {
    match &invoice.state {
        InvoiceState::Finalized { lines, .. } => lines.clone(),
        InvoiceState::Draft => {
            let plan = invoice.plan.iter();
            plan.flat_map(|plan| lines_of(world, &invoice.customer, plan)).collect()
        }
    }
}

/// The sum of the lines, in cents.
pub(super) fn total(lines: &[Line]) -> i64 {
    lines.iter().fold(0, |sum, line| i64::saturating_add(sum, line.cents))
}

fn lines_of(world: &World, customer: &str, plan: &LinePlan) -> Vec<Line> {
    let Some(price) = world.prices.get(&plan.price) else { return Vec::new() };
    let name = world.products.get(&price.product).map_or("", |product| product.name.as_str());
    let quantity =
        plan.quantity.unwrap_or_else(|| match price.recurring.as_ref().map(|recurring| &recurring.usage) {
            Some(Usage::Metered { meter }) => world.usage(meter, customer, plan.start_s, plan.end_s),
            _ => 0,
        });
    let charges = match &price.scheme {
        Scheme::PerUnit(unit) => unit
            .charge(quantity, money::Price::default())
            .map(|cents| vec![money::TierCharge { tier: 0, quantity, unit: *unit, cents }]),
        Scheme::Graduated(tiers) => money::graduated(tiers, quantity),
    };
    let Some(charges) = charges else {
        tracing::error!(price = plan.price, quantity, "the amount of a line does not fit");
        return Vec::new();
    };
    let lines = charges.into_iter().map(|charge| {
        let tier = if charge.tier == 0 { String::new() } else { format!("Tier {} ", charge.tier) };
        Line {
            id: if charge.tier <= 1 { plan.id.clone() } else { format!("{}t{}", plan.id, charge.tier) },
            item: plan.item.clone(),
            price: plan.price.clone(),
            description: format!("{} × {name} ({tier}at {} cents)", charge.quantity, charge.unit.decimal()),
            quantity: charge.quantity,
            unit: charge.unit,
            cents: charge.cents,
            start_s: plan.start_s,
            end_s: plan.end_s,
        }
    });
    lines.collect()
}
