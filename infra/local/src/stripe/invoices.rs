//! The life of an invoice: its lines, its draft, its finalization, and what becomes of it then.
//!
//! Owns every change of an invoice but the payment itself. A draft's lines follow the meters; a final invoice's never
//! change. It never decides when a period ends.

use serde_json::Value;

use super::calendar::HOUR_S;
use super::error::ApiError;
use super::form::{Params, Range};
use super::webhooks::Subject;
use super::world::{
    Bills, Final, Invoice, InvoiceItem, InvoiceState, Line, LinePlan, Pause, PauseBehavior, Reason, Scheme,
    Standing, Status, Subscription, Usage, World,
};
use super::{invoice_items, money, payments, wire};

/// How long a draft waits after its `invoice.created` was answered, in seconds.
const DRAFT_GRACE_S: i64 = HOUR_S;
/// How long an unanswered `invoice.created` can hold a draft back, in seconds.
const MAX_DRAFT_S: i64 = 72 * HOUR_S;
/// How long after a finalization by request the payment is tried, in seconds.
const PAYMENT_DELAY_S: i64 = HOUR_S;
/// The smallest amount that is charged, in cents: a smaller one is left to the next invoice.
const MIN_CHARGE_CENTS: i64 = 50;

/// What an invoice is to bill.
#[derive(Debug)]
pub(super) struct Bill {
    pub(super) plan: Vec<LinePlan>,
    pub(super) period: (i64, i64),
    pub(super) reason: Reason,
}

/// When a draft becomes final by itself; `None` if it does not.
pub(super) fn finalizes_at_s(world: &World, invoice: &Invoice) -> Option<i64> {
    if !invoice.auto_advance || !matches!(invoice.state, InvoiceState::Draft) {
        return None;
    }
    // A finalization time of the account's own waits for no webhook.
    if let Some(grace_s) = world.finalization_grace_s {
        return Some(invoice.created_s + grace_s);
    }
    let latest_s = invoice.created_s + MAX_DRAFT_S;
    Some(invoice.announced_s.map_or(latest_s, |at_s| latest_s.min(at_s + DRAFT_GRACE_S)))
}

/// Stores a draft and tells of it. Its id, unless it would be empty or no invoice fits any more.
pub(super) fn draft(world: &mut World, of: &str, bill: Bill, at_s: i64) -> Option<String> {
    let of = world.subscriptions.get(of)?;
    let (of_id, customer, currency) = (of.id.clone(), of.customer.clone(), of.currency.clone());
    let (status, pause) = (of.status, of.pause);
    if let Err(error) = world.invoices.ensure_room(1) {
        tracing::error!(?error, subscription = of_id, "an invoice was not made");
        return None;
    }
    let id = world.ids.next("in");
    let pending = invoice_items::take_pending(world, &customer, &of_id, &currency, &id);
    if bill.plan.is_empty() && pending.is_empty() {
        return None;
    }
    let kept = matches!(pause, Some(Pause { behavior: PauseBehavior::KeepAsDraft, .. }));
    let invoice = Invoice {
        id: id.clone(),
        created_s: at_s,
        customer,
        subscription: of_id.clone(),
        currency,
        reason: bill.reason,
        period_start_s: bill.period.0,
        period_end_s: bill.period.1,
        plan: bill.plan,
        pending,
        added: Vec::new(),
        auto_advance: !kept && status != Status::Unpaid,
        announced_s: if world.outbox.hears("invoice.created") { None } else { Some(at_s) },
        attempts: 0,
        next_attempt_s: None,
        state: InvoiceState::Draft,
    };
    if let Err(error) = world.invoices.insert(invoice) {
        tracing::error!(?error, subscription = of_id, "an invoice was not made");
        return None;
    }
    if let Some(subscription) = world.subscriptions.get_mut(&of_id) {
        subscription.latest_invoice = Some(id.clone());
    }
    world.next_due_s = None;
    announce(world, &id, "invoice.created", at_s);
    let fate = match pause.map(|pause| pause.behavior) {
        Some(PauseBehavior::Void) => Standing::Void { at_s },
        Some(PauseBehavior::MarkUncollectible) => Standing::Uncollectible { at_s },
        Some(PauseBehavior::KeepAsDraft) | None => return Some(id),
    };
    finalize_as(world, &id, Some(fate), at_s);
    Some(id)
}

/// Makes a draft final: from here on its lines are fixed. With nothing to pay it is paid.
pub(super) fn finalize(world: &mut World, id: &str, at_s: i64) {
    finalize_as(world, id, None, at_s);
}

fn finalize_as(world: &mut World, id: &str, fate: Option<Standing>, at_s: i64) {
    let Some(invoice) = world.invoices.get(id) else { return };
    if !matches!(invoice.state, InvoiceState::Draft) {
        return;
    }
    let lines = lines(world, invoice);
    let customer = invoice.customer.clone();
    let before = world.customers.get(&customer).map_or(0, |customer| customer.balance_cents);
    let (due_cents, after) = amounts(total(&lines), before);
    if let Some(customer) = world.customers.get_mut(&customer) {
        customer.balance_cents = after;
    }
    world.next_invoice_number += 1;
    let fixed = Final {
        at_s,
        number: format!("LOCAL-{:06}", world.next_invoice_number),
        lines,
        due_cents,
        balance_before_cents: before,
        balance_after_cents: after,
        standing: Standing::Open,
    };
    if let Some(invoice) = world.invoices.get_mut(id) {
        invoice.state = InvoiceState::Final(Box::new(fixed));
    }
    world.next_due_s = None;
    announce(world, id, "invoice.finalized", at_s);
    match fate {
        Some(fate) => settle(world, id, fate, at_s),
        None if due_cents == 0 => settle(world, id, Standing::Paid { at_s }, at_s),
        None => {}
    }
}

/// What is to be paid of a total, given the customer's balance, and the balance after it, both in cents.
pub(super) fn amounts(total: i64, balance: i64) -> (i64, i64) {
    let owed = total.saturating_add(balance);
    if owed < MIN_CHARGE_CENTS { (0, owed) } else { (owed, 0) }
}

/// Moves a final invoice on to where it stands now, tells of it, and lets its subscription follow.
pub(super) fn settle(world: &mut World, id: &str, standing: Standing, at_s: i64) {
    let Some(invoice) = world.invoices.get_mut(id) else { return };
    let InvoiceState::Final(fixed) = &mut invoice.state else { return };
    fixed.standing = standing;
    let refund = fixed.balance_before_cents - fixed.balance_after_cents;
    invoice.next_attempt_s = None;
    invoice.auto_advance = false;
    let (customer, subscription) = (invoice.customer.clone(), invoice.subscription.clone());
    world.next_due_s = None;
    match standing {
        Standing::Open => return,
        Standing::Paid { .. } => {
            announce(world, id, "invoice.paid", at_s);
            announce(world, id, "invoice.payment_succeeded", at_s);
        }
        Standing::Uncollectible { .. } => announce(world, id, "invoice.marked_uncollectible", at_s),
        Standing::Void { .. } => {
            // Whatever it took from the balance goes back.
            if let Some(customer) = world.customers.get_mut(&customer) {
                customer.balance_cents = customer.balance_cents.saturating_add(refund);
            }
            announce(world, id, "invoice.voided", at_s);
        }
    }
    payments::follow(world, &subscription, at_s);
}

/// Makes an invoice, makes it final and charges it, all at once. Whether it is paid; `None`: there was nothing to bill.
pub(super) fn bill_at_once(world: &mut World, of: &str, bill: Bill, at_s: i64) -> Option<bool> {
    let id = draft(world, of, bill, at_s)?;
    if !world.invoices.get(&id)?.auto_advance {
        return None;
    }
    finalize(world, &id, at_s);
    Some(payments::collect(world, &id, payments::Asked::BySchedule, at_s))
}

/// Tells of an invoice.
pub(super) fn announce(world: &mut World, id: &str, kind: &'static str, at_s: i64) {
    let Some(invoice) = world.invoices.get(id) else { return };
    let object = wire::invoice(world, invoice);
    let subject = Subject { kind, object, previous: None, invoice: Some(id.to_owned()) };
    let event = world.ids.next("evt");
    world.outbox.emit(event, subject, at_s);
}

/// The lines of an invoice: fixed ones, or what the meters say now. First what waited, the latest first; then the
/// subscription's own; then what was added.
pub(super) fn lines(world: &World, invoice: &Invoice) -> Vec<Line> {
    if let InvoiceState::Final(fixed) = &invoice.state {
        return fixed.lines.clone();
    }
    let of_items = |ids: &[String]| -> Vec<Line> {
        ids.iter().filter_map(|id| world.invoice_items.get(id)).map(line_of_item).collect()
    };
    let mut lines = of_items(&invoice.pending);
    for plan in &invoice.plan {
        lines.extend(lines_of(world, invoice, plan));
    }
    lines.extend(of_items(&invoice.added));
    lines
}

/// The sum of the lines, in cents.
pub(super) fn total(lines: &[Line]) -> i64 {
    lines.iter().fold(0, |sum, line| i64::saturating_add(sum, line.cents))
}

fn line_of_item(item: &InvoiceItem) -> Line {
    Line {
        id: item.id.replacen("ii_", "il_", 1),
        item: item.item.clone(),
        price: item.price.clone(),
        invoice_item: Some(item.id.clone()),
        subscription: item.subscription.clone(),
        description: item.description.clone(),
        quantity: item.quantity,
        unit: item.unit.clone(),
        cents: item.cents,
        start_s: item.start_s,
        end_s: item.end_s,
        proration: item.proration,
        metadata: item.metadata.clone(),
    }
}

/// The name of a price's product.
pub(super) fn product_name<'a>(world: &'a World, price: &str) -> &'a str {
    let product = world.prices.get(price).and_then(|price| world.products.get(&price.product));
    product.map_or("", |product| product.name.as_str())
}

/// What a quantity of a price costs: one charge for each tier reached, or one at all. `None` if an amount does not fit.
pub(super) fn charges(world: &World, price: &str, quantity: u64) -> Option<Vec<money::TierCharge>> {
    match &world.prices.get(price)?.scheme {
        Scheme::PerUnit(unit) => {
            let cents = unit.charge(quantity, money::Price::default())?;
            Some(vec![money::TierCharge { tier: 0, quantity, unit: *unit, cents }])
        }
        Scheme::Graduated(tiers) => money::graduated(tiers, quantity),
    }
}

/// Whose usage is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct User<'a> {
    pub(super) customer: &'a str,
    /// The subscription's item.
    pub(super) item: &'a str,
    pub(super) price: &'a str,
}

/// What a price's meter counted for a customer, or what was recorded for the item of a price without one.
pub(super) fn usage(world: &World, of: User<'_>, start_s: i64, end_s: i64) -> u64 {
    let recurring = world.prices.get(of.price).and_then(|price| price.recurring.as_ref());
    match recurring.map(|recurring| &recurring.usage) {
        Some(Usage::Metered { meter }) => world.usage(meter, of.customer, start_s, end_s),
        Some(Usage::Records) => {
            let records = world.records.get(of.item).into_iter().flatten();
            records.filter(|(at_s, _)| (start_s..end_s).contains(at_s)).map(|(_, quantity)| quantity).sum()
        }
        Some(Usage::Licensed) | None => 0,
    }
}

/// How a charge is called on a line.
pub(super) fn describe(charge: &money::TierCharge, name: &str) -> String {
    let tier = if charge.tier == 0 { String::new() } else { format!("Tier {} ", charge.tier) };
    format!("{} × {name} ({tier}at {} cents)", charge.quantity, charge.unit.decimal())
}

fn lines_of(world: &World, invoice: &Invoice, plan: &LinePlan) -> Vec<Line> {
    let name = product_name(world, &plan.price);
    let whose = User { customer: &invoice.customer, item: &plan.item, price: &plan.price };
    let used = || usage(world, whose, plan.start_s, plan.end_s);
    let line = |id: String, description: String, quantity, unit: String, cents, proration| Line {
        id,
        item: Some(plan.item.clone()),
        price: Some(plan.price.clone()),
        invoice_item: None,
        subscription: Some(invoice.subscription.clone()),
        description,
        quantity,
        unit,
        cents,
        start_s: plan.start_s,
        end_s: plan.end_s,
        proration,
        metadata: std::collections::BTreeMap::new(),
    };
    let free = |quantity| {
        let description = format!("Free trial for {quantity} × {name}");
        vec![line(plan.id.clone(), description, quantity, "0".to_owned(), 0, false)]
    };
    let quantity = match plan.bills {
        Bills::Usage => used(),
        Bills::Quantity(quantity) => quantity,
        Bills::FreeUsage => return free(used()),
        Bills::FreeQuantity(quantity) => return free(quantity),
        Bills::Part { quantity, cents } => {
            let description = format!("Remaining time on {quantity} × {name}");
            let unit = money::per_unit(cents, quantity);
            return vec![line(plan.id.clone(), description, quantity, unit, cents, true)];
        }
    };
    let Some(charges) = charges(world, &plan.price, quantity) else {
        tracing::error!(price = plan.price, quantity, "the amount of a line does not fit");
        return Vec::new();
    };
    let lines = charges.into_iter().map(|charge| {
        let id = if charge.tier <= 1 { plan.id.clone() } else { format!("{}t{}", plan.id, charge.tier) };
        let description = describe(&charge, name);
        line(id, description, charge.quantity, charge.unit.decimal(), charge.cents, false)
    });
    lines.collect()
}

/// The latest final invoice of a subscription: the one that its status follows.
pub(super) fn latest_final<'a>(world: &'a World, of: &Subscription) -> Option<&'a Invoice> {
    let mut finals = world.invoices.iter().rev().filter(|invoice| invoice.subscription == of.id);
    finals.find(|invoice| invoice.final_part().is_some())
}

/// Stops the automatic collection of a subscription's final invoices.
pub(super) fn stop_collecting(world: &mut World, of: &str) {
    let open = world.invoices.iter().filter(|invoice| invoice.subscription == of);
    let open: Vec<String> =
        open.filter(|invoice| invoice.open_cents().is_some()).map(|invoice| invoice.id.clone()).collect();
    for id in open {
        if let Some(invoice) = world.invoices.get_mut(&id) {
            (invoice.auto_advance, invoice.next_attempt_s) = (false, None);
        }
    }
    world.next_due_s = None;
}

// ---- Endpoints ----

fn answer(world: &World, id: &str) -> Result<Value, ApiError> {
    let invoice = world.invoices.get(id).ok_or_else(|| ApiError::no_such("invoice", id))?;
    Ok(wire::invoice(world, invoice))
}

/// What an invoice can hold as objects: its lines are always there.
const EXPANDABLE: &[&str] = &["lines"];

/// `GET /v1/invoices/:id`
pub(super) fn retrieve(world: &World, id: &str, mut params: Params) -> Result<Value, ApiError> {
    params.expand(EXPANDABLE)?;
    params.finish()?;
    answer(world, id)
}

/// `GET /v1/invoices/:id/lines`
pub(super) fn list_lines(world: &World, id: &str, mut params: Params) -> Result<Value, ApiError> {
    let invoice = world.invoices.get(id).ok_or_else(|| ApiError::no_such("invoice", id))?;
    let page = params.page()?;
    params.expand(&[])?;
    params.finish()?;
    let lines = lines(world, invoice);
    let (found, more) = super::world::paginate(lines, &page, |line| &line.id, "line item")?;
    let data: Vec<Value> = found.iter().map(|line| wire::line(world, invoice, line)).collect();
    Ok(wire::list(&format!("/v1/invoices/{id}/lines"), &data, more))
}

/// `GET /v1/invoices`
pub(super) fn list(world: &World, mut params: Params) -> Result<Value, ApiError> {
    params.refuse_unmodelled(&["collection_method", "customer_account", "due_date"])?;
    let customer = params.text("customer")?;
    let subscription = params.text("subscription")?;
    let statuses = ["draft", "open", "paid", "uncollectible", "void"].map(|word| (word, word));
    let status = params.choice("status", &statuses)?;
    let created = Range::of(&mut params, "created")?;
    let page = params.page()?;
    params.expand(&["data.lines"])?;
    params.finish()?;
    let (found, more) = world.invoices.page(&page, |invoice| {
        status.is_none_or(|status| status == wire::invoice_status(invoice))
            && created.contains(invoice.created_s)
            && customer.as_ref().is_none_or(|customer| invoice.customer == *customer)
            && subscription.as_ref().is_none_or(|subscription| invoice.subscription == *subscription)
    })?;
    let data: Vec<Value> = found.into_iter().map(|found| wire::invoice(world, found)).collect();
    Ok(wire::list("/v1/invoices", &data, more))
}

/// `POST /v1/invoices/:id/finalize`
pub(super) fn finalize_now(
    world: &mut World,
    id: &str,
    mut params: Params,
    now_s: i64,
) -> Result<Value, ApiError> {
    let invoice = world.invoices.get_mut(id).ok_or_else(|| ApiError::no_such("invoice", id))?;
    let auto_advance = params.boolean("auto_advance")?;
    params.expand(EXPANDABLE)?;
    params.finish()?;
    if invoice.final_part().is_some() {
        let message = "This invoice is already finalized, you can't re-finalize a non-draft invoice.";
        return Err(ApiError::invalid_request(message));
    }
    let advances = auto_advance.unwrap_or(invoice.auto_advance);
    invoice.auto_advance = advances;
    finalize(world, id, now_s);
    if let Some(invoice) = world.invoices.get_mut(id).filter(|invoice| advances && invoice.auto_advance) {
        invoice.next_attempt_s = Some(now_s + PAYMENT_DELAY_S);
    }
    answer(world, id)
}

/// Refuses unless the invoice is final and neither paid nor void.
fn unpaid<'a>(world: &'a World, id: &str) -> Result<&'a Final, ApiError> {
    let invoice = world.invoices.get(id).ok_or_else(|| ApiError::no_such("invoice", id))?;
    let Some(fixed) = invoice.final_part() else {
        return Err(ApiError::invalid_request(
            "You can only do this to an open invoice. This one is a draft: finalize it first.",
        ));
    };
    match fixed.standing {
        Standing::Open | Standing::Uncollectible { .. } => Ok(fixed),
        Standing::Paid { .. } => Err(ApiError::invalid_request("Invoice is already paid")),
        Standing::Void { .. } => {
            Err(ApiError::invalid_request("Invoice is void: nothing can be done to it."))
        }
    }
}

/// `POST /v1/invoices/:id/pay`
pub(super) fn pay(world: &mut World, id: &str, mut params: Params, now_s: i64) -> Result<Value, ApiError> {
    params.refuse_unmodelled(&[
        "forgive",
        "mandate",
        "off_session",
        "paid_out_of_band",
        "payment_method",
        "source",
    ])?;
    params.expand(EXPANDABLE)?;
    params.finish()?;
    unpaid(world, id)?;
    if payments::collect(world, id, payments::Asked::ByRequest, now_s) {
        answer(world, id)
    } else {
        Err(ApiError::card_declined())
    }
}

/// `POST /v1/invoices/:id/void`
pub(super) fn void(world: &mut World, id: &str, mut params: Params, now_s: i64) -> Result<Value, ApiError> {
    params.expand(EXPANDABLE)?;
    params.finish()?;
    unpaid(world, id)?;
    settle(world, id, Standing::Void { at_s: now_s }, now_s);
    answer(world, id)
}

/// `POST /v1/invoices/:id/mark_uncollectible`
pub(super) fn mark_uncollectible(
    world: &mut World,
    id: &str,
    mut params: Params,
    now_s: i64,
) -> Result<Value, ApiError> {
    params.expand(EXPANDABLE)?;
    params.finish()?;
    if !matches!(unpaid(world, id)?.standing, Standing::Open) {
        return Err(ApiError::invalid_request("You can only mark an open invoice as uncollectible."));
    }
    settle(world, id, Standing::Uncollectible { at_s: now_s }, now_s);
    answer(world, id)
}
