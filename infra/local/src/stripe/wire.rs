//! The JSON of every object, with the fields that API version 2026-09-30.endive has.
//!
//! Owns the shapes only: what is not modelled is null or empty, never left out, because clients parse whole objects. It
//! changes nothing.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde_json::{Value, json};

use super::money::{Price as Amount, Tier};
use super::world::{
    BillingMode, CancelAt, Charge, Customer, Dispute, Event, Invoice, InvoiceItem, Item, Line, Meter, NoCard,
    PauseBehavior, Price, Product, Scheme, Standing, Subscription, Usage, World,
};
use super::{billing, customers, invoices};

/// A list object.
pub(super) fn list(url: &str, data: &[Value], more: bool) -> Value {
    json!({ "object": "list", "url": url, "has_more": more, "data": data })
}

/// A customer.
pub(super) fn customer(customer: &Customer) -> Value {
    json!({
        "id": customer.id,
        "object": "customer",
        "address": null,
        "balance": customer.balance_cents,
        "created": customer.created_s,
        "currency": null,
        "default_source": null,
        "delinquent": false,
        "description": customer.description,
        "discount": null,
        "email": customer.email,
        "invoice_settings": {
            "custom_fields": null, "default_payment_method": null, "footer": null, "rendering_options": null,
        },
        "livemode": false,
        "metadata": customer.metadata,
        "name": customer.name,
        "phone": null,
        "preferred_locales": [],
        "shipping": null,
        "tax_exempt": "none",
        "test_clock": null,
    })
}

/// A product.
pub(super) fn product(product: &Product) -> Value {
    json!({
        "id": product.id,
        "object": "product",
        "active": product.active,
        "created": product.created_s,
        "default_price": null,
        "description": product.description,
        "images": [],
        "livemode": false,
        "marketing_features": [],
        "metadata": product.metadata,
        "name": product.name,
        "package_dimensions": null,
        "shippable": null,
        "statement_descriptor": null,
        "tax_code": null,
        "tax_details": null,
        "type": "service",
        "unit_label": product.unit_label,
        "updated": product.updated_s,
        "url": null,
    })
}

/// A billing meter.
pub(super) fn meter(meter: &Meter) -> Value {
    json!({
        "id": meter.id,
        "object": "billing.meter",
        "created": meter.created_s,
        "customer_mapping": { "event_payload_key": meter.customer_key, "type": "by_id" },
        "default_aggregation": { "formula": "sum" },
        "display_name": meter.display_name,
        "event_name": meter.event_name,
        "event_time_window": null,
        "livemode": false,
        "status": if meter.inactive_s.is_none() { "active" } else { "inactive" },
        "status_transitions": { "deactivated_at": meter.inactive_s },
        "updated": meter.inactive_s.unwrap_or(meter.created_s),
        "value_settings": { "event_payload_key": meter.value_key },
    })
}

/// A meter event, as the answer to the request that sent it.
pub(super) fn meter_event(event: &Event, meter: &Meter) -> Value {
    let mut payload = serde_json::Map::new();
    payload.insert(meter.customer_key.clone(), json!(event.customer));
    payload.insert(meter.value_key.clone(), json!(event.value.to_string()));
    json!({
        "object": "billing.meter_event",
        "created": event.accepted_s,
        "event_name": meter.event_name,
        "identifier": event.identifier,
        "livemode": false,
        "payload": payload,
        "timestamp": event.timestamp_s,
    })
}

/// One summary of what a meter counted for a customer.
pub(super) fn summary(id: &str, meter: &str, start_s: i64, end_s: i64, value: u64) -> Value {
    json!({
        "id": id,
        "object": "billing.meter_event_summary",
        "aggregated_value": value,
        "end_time": end_s,
        "livemode": false,
        "meter": meter,
        "start_time": start_s,
    })
}

fn tier(tier: &Tier) -> Value {
    json!({
        "flat_amount": tier.flat.and_then(Amount::whole_cents),
        "flat_amount_decimal": tier.flat.map(Amount::decimal),
        "unit_amount": tier.unit.and_then(Amount::whole_cents),
        "unit_amount_decimal": tier.unit.map(Amount::decimal),
        "up_to": tier.up_to,
    })
}

/// A price; its tiers only when they are asked for, as in the real API.
pub(super) fn price(price: &Price, with_tiers: bool) -> Value {
    let per_unit = match &price.scheme {
        Scheme::PerUnit(unit) => Some(*unit),
        Scheme::Graduated(_) => None,
    };
    let recurring = price.recurring.as_ref().map(|recurring| {
        let (usage, meter) = match &recurring.usage {
            Usage::Licensed => ("licensed", None),
            Usage::Metered { meter } => ("metered", Some(meter)),
            Usage::Records => ("metered", None),
        };
        json!({
            "interval": recurring.cycle.interval.as_str(),
            "interval_count": recurring.cycle.count,
            "meter": meter,
            "trial_period_days": null,
            "usage_type": usage,
        })
    });
    let mut object = json!({
        "id": price.id,
        "object": "price",
        "active": price.active,
        "billing_scheme": if per_unit.is_some() { "per_unit" } else { "tiered" },
        "created": price.created_s,
        "currency": price.currency,
        "custom_unit_amount": null,
        "livemode": false,
        "lookup_key": price.lookup_key,
        "metadata": price.metadata,
        "nickname": price.nickname,
        "product": price.product,
        "recurring": recurring,
        "tax_behavior": "unspecified",
        "tiers_mode": if per_unit.is_some() { None } else { Some("graduated") },
        "transform_quantity": null,
        "type": if price.recurring.is_some() { "recurring" } else { "one_time" },
        "unit_amount": per_unit.and_then(Amount::whole_cents),
        "unit_amount_decimal": per_unit.map(Amount::decimal),
    });
    if let (true, Scheme::Graduated(tiers), Some(fields)) =
        (with_tiers, &price.scheme, object.as_object_mut())
    {
        fields.insert("tiers".to_owned(), tiers.iter().map(tier).collect());
    }
    object
}

/// The older form of a recurring price, which subscription items still carry.
fn plan(price: &Price) -> Value {
    let per_unit = match &price.scheme {
        Scheme::PerUnit(unit) => Some(*unit),
        Scheme::Graduated(_) => None,
    };
    let recurring = price.recurring.as_ref();
    let meter = recurring.and_then(|recurring| match &recurring.usage {
        Usage::Licensed | Usage::Records => None,
        Usage::Metered { meter } => Some(meter),
    });
    json!({
        "id": price.id,
        "object": "plan",
        "active": price.active,
        "amount": per_unit.and_then(Amount::whole_cents),
        "amount_decimal": per_unit.map(Amount::decimal),
        "billing_scheme": if per_unit.is_some() { "per_unit" } else { "tiered" },
        "created": price.created_s,
        "currency": price.currency,
        "interval": recurring.map(|recurring| recurring.cycle.interval.as_str()),
        "interval_count": recurring.map(|recurring| recurring.cycle.count),
        "livemode": false,
        "metadata": price.metadata,
        "meter": meter,
        "nickname": price.nickname,
        "product": price.product,
        "tiers_mode": if per_unit.is_some() { None } else { Some("graduated") },
        "transform_usage": null,
        "trial_period_days": null,
        "usage_type": if billing::is_metered(price) { "metered" } else { "licensed" },
    })
}

fn item(world: &World, subscription: &Subscription, item: &Item) -> Value {
    let price_of_item = world.prices.get(&item.price);
    let mut object = json!({
        "id": item.id,
        "object": "subscription_item",
        "billing_thresholds": null,
        "created": item.created_s,
        "current_trial": null,
        "current_period_end": subscription.period_end_s,
        "current_period_start": subscription.period_start_s,
        "discounts": [],
        "metadata": item.metadata,
        "plan": price_of_item.map(plan),
        "price": price_of_item.map(|found| price(found, false)),
        "subscription": subscription.id,
        "tax_rates": [],
    });
    // A metered item has no quantity at all, not a null one.
    if let (Some(quantity), Some(fields)) = (item.quantity, object.as_object_mut()) {
        fields.insert("quantity".to_owned(), json!(quantity));
    }
    object
}

/// A subscription, with `customer` and `latest_invoice` as objects when they are asked for.
pub(super) fn subscription(world: &World, subscription: &Subscription, expand: &BTreeSet<String>) -> Value {
    let at_period_end = !subscription.status.is_over()
        && subscription.ending.is_some_and(|ending| ending.at == CancelAt::PeriodEnd);
    let reason = subscription.end_reason.or(subscription.ending.map(|_| "cancellation_requested"));
    let items: Vec<Value> = subscription.items.iter().map(|found| item(world, subscription, found)).collect();
    let items_url = format!("/v1/subscription_items?subscription={}", subscription.id);
    let customer = if expand.contains("customer") {
        let found = world.customers.get(&subscription.customer).map(customer);
        Some(found.unwrap_or_else(|| customers::tombstone(&subscription.customer)))
    } else {
        Some(json!(subscription.customer))
    };
    let latest_invoice = match &subscription.latest_invoice {
        Some(id) if expand.contains("latest_invoice") => {
            world.invoices.get(id).map(|found| invoice(world, found))
        }
        id => Some(json!(id)),
    };
    let schedule = match &subscription.schedule {
        Some(id) if expand.contains("schedule") => world.schedules.get(id).map(|found| found.wire(world)),
        id => Some(json!(id)),
    };
    let what = json!({
        "id": subscription.id,
        "object": "subscription",
        "billing_cycle_anchor": subscription.anchor_s,
        "billing_mode": billing_mode(subscription.mode),
        "cancel_at": subscription.ends_s(),
        "cancel_at_period_end": at_period_end,
        "canceled_at": subscription.canceled_s,
        "cancellation_details": { "comment": null, "feedback": null, "feedback_option": null, "reason": reason },
        "created": subscription.created_s,
        "currency": subscription.currency,
        "customer": customer,
        "customer_account": null,
        "default_payment_method": subscription.default_payment_method,
        "description": subscription.description,
        "ended_at": subscription.ended_s,
        "items": list(&items_url, &items, false),
        "latest_invoice": latest_invoice,
        "livemode": false,
        "metadata": subscription.metadata,
        "schedule": schedule,
        "start_date": subscription.created_s,
        "status": subscription.status.as_str(),
    });
    merged([PLAIN_SUBSCRIPTION.clone(), what, pauses(subscription)])
}

/// How a subscription's prorations and invoices are reckoned.
pub(super) fn billing_mode(mode: BillingMode) -> Value {
    match mode {
        BillingMode::Classic => json!({ "flexible": null, "type": "classic" }),
        BillingMode::Flexible { since_s } => {
            let mut mode = json!({ "flexible": { "proration_discounts": "included" }, "type": "flexible" });
            if let (Some(since_s), Some(fields)) = (since_s, mode.as_object_mut()) {
                fields.insert("updated_at".to_owned(), json!(since_s));
            }
            mode
        }
    }
}

fn pauses(subscription: &Subscription) -> Value {
    let pause = subscription.pause.map(|pause| {
        let behavior = match pause.behavior {
            PauseBehavior::KeepAsDraft => "keep_as_draft",
            PauseBehavior::MarkUncollectible => "mark_uncollectible",
            PauseBehavior::Void => "void",
        };
        json!({ "behavior": behavior, "resumes_at": pause.resumes_s })
    });
    let no_card = match subscription.trial.map(|trial| trial.no_card) {
        Some(NoCard::CreateInvoice) | None => "create_invoice",
        Some(NoCard::Cancel) => "cancel",
        Some(NoCard::Pause) => "pause",
    };
    json!({
        "pause_collection": pause,
        "trial_end": subscription.trial.map(|trial| trial.end_s),
        "trial_settings": { "end_behavior": { "billing_cycle_anchor": null, "missing_payment_method": no_card } },
        "trial_start": subscription.trial.map(|trial| trial.start_s),
    })
}

/// The fields of a subscription that are always the same here.
static PLAIN_SUBSCRIPTION: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "application": null,
        "application_fee_percent": null,
        "automatic_tax": { "disabled_reason": null, "enabled": false, "liability": null },
        "billing_cycle_anchor_config": null,
        "billing_schedules": [],
        "billing_thresholds": null,
        "collection_method": "charge_automatically",
        "days_until_due": null,
        "default_source": null,
        "default_tax_rates": [],
        "discounts": [],
        "invoice_settings": {
            "account_tax_ids": null, "custom_fields": null, "description": null, "footer": null,
            "issuer": { "type": "self" },
        },
        "managed_payments": null,
        "next_pending_invoice_item_invoice": null,
        "on_behalf_of": null,
        "payment_settings": {
            "payment_method_options": null, "payment_method_types": null, "save_default_payment_method": "off",
        },
        "pending_invoice_item_interval": null,
        "pending_setup_intent": null,
        "pending_update": null,
        "test_clock": null,
        "transfer_data": null,
    })
});

/// A line of an invoice.
pub(super) fn line(world: &World, invoice: &Invoice, line: &Line) -> Value {
    let mut details = json!({
        "invoice_item": line.invoice_item,
        "proration": line.proration,
        "proration_details": { "credited_items": null },
        "subscription": line.subscription,
    });
    let parent = if line.invoice_item.is_some() {
        json!({
            "invoice_item_details": details,
            "subscription_item_details": null,
            "type": "invoice_item_details",
        })
    } else {
        if let Some(fields) = details.as_object_mut() {
            fields.insert("subscription_item".to_owned(), json!(line.item));
        }
        json!({
            "invoice_item_details": null,
            "subscription_item_details": details,
            "type": "subscription_item_details",
        })
    };
    json!({
        "id": line.id,
        "object": "line_item",
        "amount": line.cents,
        "currency": invoice.currency,
        "description": line.description,
        "discount_amounts": [],
        "discountable": !line.proration,
        "discounts": [],
        "invoice": invoice.id,
        "livemode": false,
        "metadata": line.metadata,
        "parent": parent,
        "period": { "end": line.end_s, "start": line.start_s },
        "pretax_credit_amounts": [],
        "pricing": pricing(world, line.price.as_deref(), &line.unit),
        "quantity": line.quantity,
        "quantity_decimal": line.quantity.to_string(),
        "subscription": line.subscription,
        "subtotal": line.cents,
        "taxes": [],
    })
}

/// How an amount came about; `null` for an amount without a price.
fn pricing(world: &World, price: Option<&str>, unit: &str) -> Value {
    let Some(price) = price.and_then(|id| world.prices.get(id)) else { return Value::Null };
    json!({
        "price_details": { "price": price.id, "product": price.product },
        "type": "price_details",
        "unit_amount_decimal": unit,
    })
}

/// An invoice item.
pub(super) fn invoice_item(world: &World, item: &InvoiceItem) -> Value {
    let parent = item.subscription.as_ref().map(|subscription| {
        json!({
            "subscription_details": { "subscription": subscription, "subscription_item": item.item },
            "type": "subscription_details",
        })
    });
    json!({
        "id": item.id,
        "object": "invoiceitem",
        "amount": item.cents,
        "currency": item.currency,
        "customer": item.customer,
        "customer_account": null,
        "date": item.created_s,
        "description": item.description,
        "discountable": !item.proration,
        "discounts": [],
        "invoice": item.invoice,
        "livemode": false,
        "metadata": item.metadata,
        "net_amount": item.cents,
        "parent": parent,
        "period": { "end": item.end_s, "start": item.start_s },
        "pricing": pricing(world, item.price.as_deref(), &item.unit),
        "proration": item.proration,
        "proration_details": { "credited_items": null, "discount_amounts": [] },
        "quantity": item.quantity,
        "quantity_decimal": item.quantity.to_string(),
        "tax_rates": [],
        "test_clock": null,
    })
}

/// A charge.
pub(super) fn charge(world: &World, charge: &Charge) -> Value {
    let customer = world.customers.get(&charge.customer);
    let declined = (!charge.paid).then_some("card_declined");
    let what = json!({
        "id": charge.id,
        "object": "charge",
        "amount": charge.cents,
        "amount_captured": if charge.paid { charge.cents } else { 0 },
        "amount_refunded": 0,
        "billing_details": {
            "address": null, "email": customer.and_then(|customer| customer.email.as_ref()), "name": null,
            "phone": null, "tax_id": null,
        },
        "captured": charge.paid,
        "created": charge.created_s,
        "currency": charge.currency,
        "customer": charge.customer,
        "disputed": charge.disputed,
        "failure_code": declined,
        "failure_message": declined.map(|_| "Your card was declined."),
        "livemode": false,
        "paid": charge.paid,
        "payment_intent": charge.intent,
        "status": if charge.paid { "succeeded" } else { "failed" },
    });
    let plain = json!({
        "application": null,
        "application_fee": null,
        "application_fee_amount": null,
        "balance_transaction": null,
        "calculated_statement_descriptor": null,
        "description": "Subscription update",
        "failure_balance_transaction": null,
        "fraud_details": {},
        "metadata": {},
        "on_behalf_of": null,
        "outcome": null,
        "payment_method": null,
        "payment_method_details": null,
        "receipt_email": null,
        "receipt_number": null,
        "receipt_url": null,
        "refunded": false,
        "review": null,
        "shipping": null,
        "source_transfer": null,
        "source": null,
        "statement_descriptor": null,
        "statement_descriptor_suffix": null,
        "transfer_data": null,
        "transfer_group": null,
    });
    merged([plain, what])
}

/// The texts and files that a dispute can be answered with, all absent.
const EVIDENCE: [&str; 27] = [
    "access_activity_log",
    "billing_address",
    "cancellation_policy",
    "cancellation_policy_disclosure",
    "cancellation_rebuttal",
    "customer_communication",
    "customer_email_address",
    "customer_name",
    "customer_purchase_ip",
    "customer_signature",
    "duplicate_charge_documentation",
    "duplicate_charge_explanation",
    "duplicate_charge_id",
    "product_description",
    "receipt",
    "refund_policy",
    "refund_policy_disclosure",
    "refund_refusal_explanation",
    "service_date",
    "service_documentation",
    "shipping_address",
    "shipping_carrier",
    "shipping_date",
    "shipping_documentation",
    "shipping_tracking_number",
    "uncategorized_file",
    "uncategorized_text",
];

/// How long there is to answer a dispute, in seconds.
const ANSWER_DISPUTE_S: i64 = 7 * super::calendar::DAY_S;

/// A dispute: as in the real API it names the charge and not the customer.
pub(super) fn dispute(world: &World, dispute: &Dispute) -> Value {
    let charge = world.charges.get(&dispute.charge);
    let mut evidence: serde_json::Map<String, Value> =
        EVIDENCE.iter().map(|name| ((*name).to_owned(), Value::Null)).collect();
    evidence.insert("enhanced_evidence".to_owned(), json!({}));
    json!({
        "id": dispute.id,
        "object": "dispute",
        "amount": charge.map_or(0, |charge| charge.cents),
        "balance_transactions": [],
        "charge": dispute.charge,
        "created": dispute.created_s,
        "currency": charge.map(|charge| &charge.currency),
        "enhanced_eligibility_types": [],
        "evidence": evidence,
        "evidence_details": {
            "due_by": dispute.created_s + ANSWER_DISPUTE_S,
            "enhanced_eligibility": {},
            "has_evidence": false,
            "past_due": false,
            "submission_count": 0,
        },
        "is_charge_refundable": false,
        "livemode": false,
        "metadata": {},
        "payment_intent": charge.map(|charge| &charge.intent),
        "reason": "fraudulent",
        "status": "needs_response",
    })
}

/// Puts the fields of several objects into one: an object with many fields is written in parts.
pub(super) fn merged(parts: impl IntoIterator<Item = Value>) -> Value {
    let mut fields = serde_json::Map::new();
    for part in parts {
        if let Value::Object(part) = part {
            fields.extend(part);
        }
    }
    Value::Object(fields)
}

/// An invoice; a draft's lines are what the meters say now.
pub(super) fn invoice(world: &World, invoice: &Invoice) -> Value {
    let lines = invoices::lines(world, invoice);
    let total = invoices::total(&lines);
    let lines: Vec<Value> = lines.iter().map(|found| line(world, invoice, found)).collect();
    let lines = list(&format!("/v1/invoices/{}/lines", invoice.id), &lines, false);
    let subscription = world.subscriptions.get(&invoice.subscription);
    let what = json!({
        "id": invoice.id,
        "object": "invoice",
        "attempt_count": invoice.attempts,
        "attempted": invoice.attempts > 0,
        "billing_reason": invoice.reason.as_str(),
        "collection_method": "charge_automatically",
        "created": invoice.created_s,
        "currency": invoice.currency,
        "lines": lines,
        "livemode": false,
        "metadata": {},
        "next_payment_attempt": next_payment_s(world, invoice),
        "parent": {
            "quote_details": null,
            "subscription_details": {
                "metadata": subscription.map(|subscription| &subscription.metadata),
                "subscription": invoice.subscription,
            },
            "type": "subscription_details",
        },
        "period_end": invoice.period_end_s,
        "period_start": invoice.period_start_s,
        "webhooks_delivered_at": invoice.announced_s,
    });
    merged([
        PLAIN_INVOICE.clone(),
        what,
        invoice_state(world, invoice),
        invoice_customer(world, invoice),
        invoice_amounts(world, invoice, total),
    ])
}

/// A draft that becomes final by itself is charged then.
fn next_payment_s(world: &World, invoice: &Invoice) -> Option<i64> {
    invoice.next_attempt_s.or_else(|| invoices::finalizes_at_s(world, invoice))
}

/// Where an invoice stands, in Stripe's word.
pub(super) fn invoice_status(invoice: &Invoice) -> &'static str {
    match invoice.final_part().map(|fixed| fixed.standing) {
        None => "draft",
        Some(Standing::Open) => "open",
        Some(Standing::Paid { .. }) => "paid",
        Some(Standing::Uncollectible { .. }) => "uncollectible",
        Some(Standing::Void { .. }) => "void",
    }
}

fn invoice_state(world: &World, invoice: &Invoice) -> Value {
    let fixed = invoice.final_part();
    let finalized_at = fixed.map(|fixed| fixed.at_s);
    let (mut paid_at, mut uncollectible_at, mut voided_at) = (None, None, None);
    match fixed.map(|fixed| fixed.standing) {
        Some(Standing::Paid { at_s }) => paid_at = Some(at_s),
        Some(Standing::Uncollectible { at_s }) => uncollectible_at = Some(at_s),
        Some(Standing::Void { at_s }) => voided_at = Some(at_s),
        Some(Standing::Open) | None => {}
    }
    let page =
        |end: &str| fixed.map(|_| format!("https://invoice.stripe.com/i/acct_local/{}{end}", invoice.id));
    json!({
        "auto_advance": invoice.auto_advance,
        "automatically_finalizes_at": invoices::finalizes_at_s(world, invoice),
        "effective_at": finalized_at,
        "ending_balance": fixed.map(|fixed| fixed.balance_after_cents),
        "hosted_invoice_url": page(""),
        "invoice_pdf": page("/pdf"),
        "number": fixed.map(|fixed| &fixed.number),
        "status": invoice_status(invoice),
        "status_transitions": {
            "finalized_at": finalized_at,
            "marked_uncollectible_at": uncollectible_at,
            "paid_at": paid_at,
            "voided_at": voided_at,
        },
    })
}

fn invoice_customer(world: &World, invoice: &Invoice) -> Value {
    let customer = world.customers.get(&invoice.customer);
    json!({
        "customer": invoice.customer,
        "customer_account": null,
        "customer_address": null,
        "customer_email": customer.and_then(|customer| customer.email.as_ref()),
        "customer_name": customer.and_then(|customer| customer.name.as_ref()),
        "customer_phone": null,
        "customer_shipping": null,
        "customer_tax_exempt": "none",
        "customer_tax_ids": [],
    })
}

fn invoice_amounts(world: &World, invoice: &Invoice, total: i64) -> Value {
    let balance = world.customers.get(&invoice.customer).map_or(0, |customer| customer.balance_cents);
    let (due, balance, standing) = match invoice.final_part() {
        None => (invoices::amounts(total, balance).0, balance, None),
        Some(fixed) => (fixed.due_cents, fixed.balance_before_cents, Some(fixed.standing)),
    };
    let paid = if matches!(standing, Some(Standing::Paid { .. })) { due } else { 0 };
    json!({
        "amount_due": due,
        "amount_overpaid": 0,
        "amount_paid": paid,
        "amount_remaining": due - paid,
        "amount_shipping": 0,
        "post_payment_credit_notes_amount": 0,
        "pre_payment_credit_notes_amount": 0,
        "starting_balance": balance,
        "subtotal": total,
        "subtotal_excluding_tax": total,
        "total": total,
        "total_discount_amounts": [],
        "total_excluding_tax": total,
        "total_pretax_credit_amounts": [],
        "total_taxes": [],
    })
}

/// The fields of an invoice that are always the same here.
static PLAIN_INVOICE: LazyLock<Value> = LazyLock::new(|| {
    merged([
        json!({
            "account_country": "US",
            "account_name": "Local",
            "account_tax_ids": null,
            "application": null,
            "automatic_tax": {
                "disabled_reason": null, "enabled": false, "liability": null, "provider": null, "status": null,
            },
            "custom_fields": null,
            "default_payment_method": null,
            "default_source": null,
            "default_tax_rates": [],
            "description": null,
            "discounts": [],
            "due_date": null,
            "footer": null,
            "from_invoice": null,
        }),
        json!({
            "issuer": { "type": "self" },
            "last_finalization_error": null,
            "latest_revision": null,
            "on_behalf_of": null,
            "payment_settings": {
                "default_mandate": null, "payment_method_options": null, "payment_method_types": null,
            },
            "receipt_number": null,
            "rendering": null,
            "shipping_cost": null,
            "shipping_details": null,
            "statement_descriptor": null,
            "test_clock": null,
        }),
    ])
});
