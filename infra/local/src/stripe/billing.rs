//! What time does: periods roll, trials end, drafts become final, payments are tried again.
//!
//! Owns every transition that time causes, in the order of time, and what an invoice of a period holds. As in the real
//! Stripe a licensed price is billed in advance and a metered one in arrears: the invoice of a finished period holds that
//! period's usage and the next period's base. It never reads a clock and never delivers anything.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::calendar::{DAY_S, HOUR_S};
use super::invoices::{self, Bill};
use super::payments::{self, Asked, Card};
use super::webhooks::Subject;
use super::world::{
    Bills, Debit, Item, LinePlan, NoCard, Price, Reason, Standing, Status, Subscription, Usage, World,
};
use super::{checkout, invoice_items, meter_errors, money, proration, schedules, wire};

/// How long before a trial's end it is announced, in seconds.
const TRIAL_WARNING_S: i64 = 3 * DAY_S;
/// How long a first invoice can stay unpaid, in seconds.
const MAX_INCOMPLETE_S: i64 = 23 * HOUR_S;

/// What is due. Of what is due at the same time the first comes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// Meter events were refused and it is not told yet.
    MeterErrors,
    /// A draft becomes final.
    Finalize(String),
    /// A payment is tried again.
    Charge(String),
    /// A trial is about to end.
    Warn(String),
    /// A pause of the collection ends.
    Unpause(String),
    /// A first invoice was not paid in time.
    Expire(String),
    /// A checkout session expires.
    Checkout(String),
    /// A subscription ends before its period.
    Cancel(String),
    /// A subscription's period ends.
    Period(String),
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
    let subscriptions = world.subscriptions.iter().filter_map(due_of);
    let invoices = world.invoices.iter().filter_map(|invoice| {
        let finalizes = invoices::finalizes_at_s(world, invoice);
        let final_at = finalizes.map(|at_s| (at_s, Due::Finalize(invoice.id.clone())));
        final_at.or_else(|| Some((invoice.next_attempt_s?, Due::Charge(invoice.id.clone()))))
    });
    let errors = meter_errors::due_s(world).map(|at_s| (at_s, Due::MeterErrors));
    let checkout = checkout::next_expiry(world).map(|(at_s, id)| (at_s, Due::Checkout(id)));
    subscriptions.chain(invoices).chain(errors).chain(checkout).min()
}

fn due_of(of: &Subscription) -> Option<(i64, Due)> {
    let id = || of.id.clone();
    match of.status {
        Status::IncompleteExpired | Status::Canceled => return None,
        Status::Incomplete => return Some((of.created_s + MAX_INCOMPLETE_S, Due::Expire(id()))),
        _ => {}
    }
    let warn = of.trial.filter(|trial| of.status == Status::Trialing && !trial.warned);
    let warn = warn.map(|trial| (trial.end_s - TRIAL_WARNING_S, Due::Warn(id())));
    let unpause = of.pause.and_then(|pause| pause.resumes_s).map(|at_s| (at_s, Due::Unpause(id())));
    let cancel = of.ends_s().filter(|at_s| *at_s < of.period_end_s || of.status == Status::Paused);
    let cancel = cancel.map(|at_s| (at_s, Due::Cancel(id())));
    // A paused subscription has no periods: it waits for its customer.
    let period = (of.status != Status::Paused).then(|| (of.period_end_s, Due::Period(id())));
    [warn, unpause, cancel, period].into_iter().flatten().min()
}

/// Does everything that is due at `now_s`, in the order in which it became due.
pub(super) fn catch_up(world: &mut World, now_s: i64) {
    // Each pass moves a period on, makes a draft final or uses up one of a bounded number of attempts, so they end.
    while next_due_s(world) <= now_s {
        let Some((at_s, due)) = earliest(world) else { return };
        world.next_due_s = None;
        match due {
            Due::MeterErrors => meter_errors::tell(world, at_s),
            Due::Finalize(id) => {
                invoices::finalize(world, &id, at_s);
                payments::collect(world, &id, Asked::BySchedule, at_s);
            }
            Due::Charge(id) => {
                if let Some(invoice) = world.invoices.get_mut(&id) {
                    invoice.next_attempt_s = None;
                }
                payments::collect(world, &id, Asked::BySchedule, at_s);
            }
            Due::Warn(id) => warn_of_trial_end(world, &id, at_s),
            Due::Unpause(id) => change(world, &id, at_s, |subscription| subscription.pause = None),
            Due::Expire(id) => expire(world, &id, at_s),
            Due::Cancel(id) => finish(world, &id, at_s),
            Due::Period(id) => end_period(world, &id, at_s),
            Due::Checkout(id) => checkout::end(world, &id, at_s),
        }
    }
}

/// Announces the end of a trial, now or if it is near.
pub(super) fn warn_of_trial_end(world: &mut World, id: &str, at_s: i64) {
    let Some(trial) = world.subscriptions.get_mut(id).and_then(|found| found.trial.as_mut()) else { return };
    if trial.warned || trial.end_s - TRIAL_WARNING_S > at_s {
        return;
    }
    trial.warned = true;
    world.next_due_s = None;
    announce_subscription(world, id, "customer.subscription.trial_will_end", None, at_s);
}

fn expire(world: &mut World, id: &str, at_s: i64) {
    let invoice = world.subscriptions.get(id).and_then(|found| found.latest_invoice.clone());
    change(world, id, at_s, |subscription| {
        (subscription.status, subscription.ended_s) = (Status::IncompleteExpired, Some(at_s));
    });
    if let Some(invoice) = invoice {
        invoices::settle(world, &invoice, Standing::Void { at_s }, at_s);
    }
}

fn end_period(world: &mut World, id: &str, at_s: i64) {
    let Some(of) = world.subscriptions.get(id) else { return };
    if of.ends_s().is_some_and(|end_s| end_s <= at_s) {
        finish(world, id, at_s);
        return;
    }
    let was_trial = of.status == Status::Trialing;
    let no_card = world.customers.get(&of.customer).is_none_or(|customer| customer.card == Card::None);
    match of.trial.filter(|_| was_trial && no_card).map(|trial| trial.no_card) {
        Some(NoCard::Cancel) => {
            return cancel(world, id, "cancellation_requested", Leaves::Nothing, at_s);
        }
        Some(NoCard::Pause) => return pause(world, id, at_s),
        Some(NoCard::CreateInvoice) | None => {}
    }
    let before = snapshot(world, id);
    // What the ended period used is billed by the items that it had.
    let mut plan = plan_usage(world, id, at_s);
    let schedule_before = schedules::snapshot(world, id);
    let moved = schedules::move_on(world, id, at_s);
    let Some(of) = world.subscriptions.get_mut(id) else { return };
    let finished = (of.period_start_s, of.period_end_s);
    of.end_index += 1;
    of.period_start_s = of.period_end_s;
    // Beyond the calendar's end nothing is ever due again.
    of.period_end_s = of.cycle.boundary(of.anchor_s, of.end_index).unwrap_or(i64::MAX);
    if was_trial {
        of.status = Status::Active;
    }
    plan.splice(0..0, plan_base(world, id, Base::Whole));
    invoices::draft(world, id, Bill { plan, period: finished, reason: Reason::Cycle }, at_s);
    announce_change(world, id, before, at_s);
    schedules::announce_move(world, moved, schedule_before, at_s);
}

/// Begins a new period now, billed at once: what was used so far, and the new period's base.
///
/// The anchor, which ends the new period as its `end_index`th boundary, is set before.
pub(super) fn begin_period(world: &mut World, id: &str, base: Base, at_s: i64) {
    let mut plan = plan_usage(world, id, at_s);
    let Some(of) = world.subscriptions.get_mut(id) else { return };
    of.period_start_s = at_s;
    of.period_end_s = of.cycle.boundary(of.anchor_s, of.end_index).unwrap_or(i64::MAX);
    of.status = if base == Base::Free { Status::Trialing } else { Status::Active };
    plan.splice(0..0, plan_base(world, id, base));
    world.next_due_s = None;
    invoices::bill_at_once(world, id, Bill { plan, period: (at_s, at_s), reason: Reason::Update }, at_s);
}

fn pause(world: &mut World, id: &str, at_s: i64) {
    change(world, id, at_s, |subscription| subscription.status = Status::Paused);
    announce_subscription(world, id, "customer.subscription.paused", None, at_s);
}

/// Ends a subscription as it was asked for: its last invoice holds what was used until now, and what waited.
fn finish(world: &mut World, id: &str, at_s: i64) {
    let Some(of) = world.subscriptions.get(id) else { return };
    let period = (of.period_start_s, at_s);
    let paused = of.status == Status::Paused;
    let plan = if paused { Vec::new() } else { plan_usage(world, id, at_s) };
    end(world, id, "cancellation_requested", at_s);
    invoices::draft(world, id, Bill { plan, period, reason: Reason::Cycle }, at_s);
    announce_subscription(world, id, "customer.subscription.deleted", None, at_s);
}

fn end(world: &mut World, id: &str, reason: &'static str, at_s: i64) {
    invoices::stop_collecting(world, id);
    let Some(of) = world.subscriptions.get_mut(id) else { return };
    of.status = Status::Canceled;
    of.ended_s = Some(at_s);
    of.canceled_s = of.canceled_s.or(of.ending.map(|ending| ending.asked_s)).or(Some(at_s));
    of.end_reason = Some(reason);
    let schedule = of.schedule.take();
    world.next_due_s = None;
    if let Some(schedule) = schedule {
        schedules::end_with_subscription(world, &schedule, reason, at_s);
    }
}

/// What a subscription that ends at once leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaves {
    /// What it used, and what waited for its next invoice, is billed to nobody.
    Nothing,
    /// What waited stays, for nobody takes it.
    Pending,
    /// An invoice for what it used and what waited.
    Invoice,
}

/// Ends a subscription at once.
pub(super) fn cancel(world: &mut World, id: &str, reason: &'static str, leaves: Leaves, at_s: i64) {
    let Some(of) = world.subscriptions.get(id) else { return };
    let period = (of.period_start_s, at_s);
    let plan = if leaves == Leaves::Invoice { plan_usage(world, id, at_s) } else { Vec::new() };
    end(world, id, reason, at_s);
    match leaves {
        Leaves::Nothing => invoice_items::drop_pending(world, id),
        Leaves::Pending => {}
        Leaves::Invoice => {
            invoices::draft(world, id, Bill { plan, period, reason: Reason::Update }, at_s);
        }
    }
    announce_subscription(world, id, "customer.subscription.deleted", None, at_s);
}

/// What the base of a period costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    /// All of it.
    Whole,
    /// Nothing: a trial.
    Free,
    /// The share that the period is of one of this many seconds.
    Part { of_s: i64 },
}

pub(super) fn is_metered(price: &Price) -> bool {
    price.recurring.as_ref().is_some_and(|recurring| recurring.usage != Usage::Licensed)
}

/// Whether a price is metered and has no meter, as from before 2025-03-31.basil.
pub(super) fn is_legacy(price: &Price) -> bool {
    price.recurring.as_ref().is_some_and(|recurring| recurring.usage == Usage::Records)
}

/// The lines for the licensed items of the period that runs, which is noted as billed.
pub(super) fn plan_base(world: &mut World, id: &str, base: Base) -> Vec<LinePlan> {
    let Some(of) = world.subscriptions.get(id) else { return Vec::new() };
    let (start_s, end_s) = (of.period_start_s, of.period_end_s);
    let licensed: Vec<(Item, u64)> =
        of.items.iter().filter_map(|item| Some((item.clone(), item.quantity?))).collect();
    let mut plan = Vec::new();
    for (item, quantity) in licensed {
        let full = proration::full_cents(world, &item.price, quantity).unwrap_or_else(|| {
            tracing::error!(price = item.price, quantity, "the amount of a line does not fit");
            0
        });
        let (bills, cents) = match base {
            Base::Whole => (Bills::Quantity(quantity), full),
            Base::Free => (Bills::FreeQuantity(quantity), 0),
            Base::Part { of_s } => {
                let cents = money::share(full, end_s - start_s, of_s).unwrap_or_default();
                (Bills::Part { quantity, cents }, cents)
            }
        };
        note_debit(world, id, &item.id, Debit { cents, start_s, end_s });
        plan.push(LinePlan {
            id: world.ids.next("il"),
            item: item.id,
            price: item.price,
            bills,
            start_s,
            end_s,
        });
    }
    plan
}

fn note_debit(world: &mut World, id: &str, item: &str, debit: Debit) {
    let of = world.subscriptions.get_mut(id);
    if let Some(item) = of.and_then(|of| of.items.iter_mut().find(|found| found.id == item)) {
        item.debit = Some(debit);
    }
}

/// The lines for the metered items, for what was used until `until_s` and is on no invoice yet.
fn plan_usage(world: &mut World, id: &str, until_s: i64) -> Vec<LinePlan> {
    let Some(of) = world.subscriptions.get_mut(id) else { return Vec::new() };
    let free = of.status == Status::Trialing;
    let start_s = of.period_start_s;
    let mut metered = Vec::new();
    for item in of.items.iter_mut().filter(|item| item.quantity.is_none()) {
        let from_s = item.usage_from_s.max(start_s);
        item.usage_from_s = until_s;
        if from_s < until_s {
            metered.push((item.id.clone(), item.price.clone(), from_s));
        }
    }
    let plan = metered.into_iter().map(|(item, price, start_s)| LinePlan {
        id: world.ids.next("il"),
        item,
        price,
        bills: if free { Bills::FreeUsage } else { Bills::Usage },
        start_s,
        end_s: until_s,
    });
    plan.collect()
}

fn snapshot(world: &World, id: &str) -> Option<Value> {
    world.subscriptions.get(id).map(|found| wire::subscription(world, found, &BTreeSet::new()))
}

/// Changes a subscription and tells what changed.
pub(super) fn change(world: &mut World, id: &str, at_s: i64, edit: impl FnOnce(&mut Subscription)) {
    let before = snapshot(world, id);
    let Some(subscription) = world.subscriptions.get_mut(id) else { return };
    edit(subscription);
    world.next_due_s = None;
    announce_change(world, id, before, at_s);
}

/// Runs something that changes a subscription and tells what changed.
pub(super) fn change_by<T>(
    world: &mut World,
    id: &str,
    at_s: i64,
    edit: impl FnOnce(&mut World) -> Result<T, super::error::ApiError>,
) -> Result<T, super::error::ApiError> {
    let before = snapshot(world, id);
    let done = edit(world)?;
    world.next_due_s = None;
    announce_change(world, id, before, at_s);
    Ok(done)
}

/// Tells of what differs from before, if anything does.
fn announce_change(world: &mut World, id: &str, before: Option<Value>, at_s: i64) {
    let (Some(Value::Object(before)), Some(Value::Object(after))) = (before, snapshot(world, id)) else {
        return;
    };
    let previous: Map<String, Value> =
        before.into_iter().filter(|(name, value)| after.get(name) != Some(value)).collect();
    if !previous.is_empty() {
        let previous = Value::Object(previous);
        announce_subscription(world, id, "customer.subscription.updated", Some(&previous), at_s);
    }
}

/// Tells of a subscription.
pub(super) fn announce_subscription(
    world: &mut World,
    id: &str,
    kind: &'static str,
    previous: Option<&Value>,
    at_s: i64,
) {
    let Some(object) = snapshot(world, id) else { return };
    let subject = Subject { kind, object, previous: previous.cloned(), invoice: None };
    let event = world.ids.next("evt");
    world.outbox.emit(event, subject, at_s);
}
