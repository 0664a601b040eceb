//! The JSON of every object, with the fields that API version 2026-09-30.endive has.
//!
//! Owns the shapes only: what is not modelled is null or empty, never left out, because clients parse whole objects. It
//! changes nothing.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde_json::{Value, json};

use super::billing;
use super::money::{Price as Amount, Tier};
use super::world::{
    Customer, Event, Invoice, InvoiceState, Item, Line, Meter, Price, Product, Reason, Scheme, Subscription,
    SubscriptionState, Usage, World,
};

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
        "balance": 0,
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
        "status": "active",
        "status_transitions": { "deactivated_at": null },
        "updated": meter.created_s,
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
        Usage::Licensed => None,
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
        "usage_type": if meter.is_some() { "metered" } else { "licensed" },
    })
}

fn item(world: &World, subscription: &Subscription, item: &Item) -> Value {
    let price_of_item = world.prices.get(&item.price);
    let mut object = json!({
        "id": item.id,
        "object": "subscription_item",
        "billing_thresholds": null,
        "created": item.created_s,
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
    let (status, ending, cancel_at, canceled_at, ended_at) = match subscription.state {
        SubscriptionState::Active => ("active", false, None, None, None),
        SubscriptionState::Ending { asked_s } => {
            ("active", true, Some(subscription.period_end_s), Some(asked_s), None)
        }
        SubscriptionState::Canceled { asked_s, ended_s } => {
            ("canceled", false, None, Some(asked_s), Some(ended_s))
        }
    };
    let reason = canceled_at.map(|_| "cancellation_requested");
    let items: Vec<Value> = subscription.items.iter().map(|found| item(world, subscription, found)).collect();
    let items_url = format!("/v1/subscription_items?subscription={}", subscription.id);
    let customer = if expand.contains("customer") {
        world.customers.get(&subscription.customer).map(customer)
    } else {
        Some(json!(subscription.customer))
    };
    let latest_invoice = match &subscription.latest_invoice {
        Some(id) if expand.contains("latest_invoice") => {
            world.invoices.get(id).map(|found| invoice(world, found))
        }
        id => Some(json!(id)),
    };
    let what = json!({
        "id": subscription.id,
        "object": "subscription",
        "billing_cycle_anchor": subscription.anchor_s,
        "cancel_at": cancel_at,
        "cancel_at_period_end": ending,
        "canceled_at": canceled_at,
        "cancellation_details": { "comment": null, "feedback": null, "reason": reason },
        "created": subscription.created_s,
        "currency": subscription.currency,
        "customer": customer,
        "description": subscription.description,
        "ended_at": ended_at,
        "items": list(&items_url, &items, false),
        "latest_invoice": latest_invoice,
        "livemode": false,
        "metadata": subscription.metadata,
        "start_date": subscription.created_s,
        "status": status,
    });
    merged([what, PLAIN_SUBSCRIPTION.clone()])
}

/// The fields of a subscription that are always the same here.
static PLAIN_SUBSCRIPTION: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "application": null,
        "application_fee_percent": null,
        "automatic_tax": { "disabled_reason": null, "enabled": false, "liability": null },
        "billing_cycle_anchor_config": null,
        "billing_mode": { "flexible": { "proration_discounts": "included" }, "type": "flexible" },
        "billing_schedules": [],
        "billing_thresholds": null,
        "collection_method": "charge_automatically",
        "days_until_due": null,
        "default_payment_method": null,
        "default_source": null,
        "default_tax_rates": [],
        "discounts": [],
        "invoice_settings": { "account_tax_ids": null, "issuer": { "type": "self" } },
        "next_pending_invoice_item_invoice": null,
        "on_behalf_of": null,
        "pause_collection": null,
        "payment_settings": {
            "payment_method_options": null, "payment_method_types": null, "save_default_payment_method": "off",
        },
        "pending_invoice_item_interval": null,
        "pending_setup_intent": null,
        "pending_update": null,
        "schedule": null,
        "test_clock": null,
        "transfer_data": null,
        "trial_end": null,
        "trial_settings": { "end_behavior": { "missing_payment_method": "create_invoice" } },
        "trial_start": null,
    })
});

fn line(world: &World, invoice: &Invoice, line: &Line) -> Value {
    let price = world.prices.get(&line.price);
    json!({
        "id": line.id,
        "object": "line_item",
        "amount": line.cents,
        "currency": invoice.currency,
        "description": line.description,
        "discount_amounts": [],
        "discountable": true,
        "discounts": [],
        "invoice": invoice.id,
        "livemode": false,
        "metadata": {},
        "parent": {
            "invoice_item_details": null,
            "subscription_item_details": {
                "invoice_item": null,
                "proration": false,
                "proration_details": { "credited_items": null },
                "subscription": invoice.subscription,
                "subscription_item": line.item,
            },
            "type": "subscription_item_details",
        },
        "period": { "end": line.end_s, "start": line.start_s },
        "pretax_credit_amounts": [],
        "pricing": {
            "price_details": { "price": line.price, "product": price.map(|price| &price.product) },
            "type": "price_details",
            "unit_amount_decimal": line.unit.decimal(),
        },
        "quantity": line.quantity,
        "quantity_decimal": line.quantity.to_string(),
        "subtotal": line.cents,
        "taxes": [],
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
    let lines = billing::lines(world, invoice);
    let total = billing::total(&lines);
    let lines: Vec<Value> = lines.iter().map(|found| line(world, invoice, found)).collect();
    let lines = list(&format!("/v1/invoices/{}/lines", invoice.id), &lines, false);
    let subscription = world.subscriptions.get(&invoice.subscription);
    let reason = match invoice.reason {
        Reason::Create => "subscription_create",
        Reason::Cycle => "subscription_cycle",
        Reason::Cancel => "subscription_update",
    };
    let what = json!({
        "id": invoice.id,
        "object": "invoice",
        "billing_reason": reason,
        "collection_method": "charge_automatically",
        "created": invoice.created_s,
        "currency": invoice.currency,
        "lines": lines,
        "livemode": false,
        "metadata": {},
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
        what,
        invoice_state(invoice, total),
        invoice_customer(world, invoice),
        invoice_amounts(total),
        PLAIN_INVOICE.clone(),
    ])
}

fn invoice_state(invoice: &Invoice, total: i64) -> Value {
    let (status, finalized_at, number) = match &invoice.state {
        InvoiceState::Draft => ("draft", None, None),
        InvoiceState::Finalized { at_s, number, .. } if total == 0 => ("paid", Some(at_s), Some(number)),
        InvoiceState::Finalized { at_s, number, .. } => ("open", Some(at_s), Some(number)),
    };
    let paid_at = if status == "paid" { finalized_at } else { None };
    json!({
        "auto_advance": invoice.auto_advance && finalized_at.is_none(),
        "automatically_finalizes_at": billing::finalizes_at_s(invoice),
        "effective_at": finalized_at,
        "ending_balance": finalized_at.map(|_| 0),
        "number": number,
        "status": status,
        "status_transitions": {
            "finalized_at": finalized_at, "marked_uncollectible_at": null, "paid_at": paid_at, "voided_at": null,
        },
    })
}

fn invoice_customer(world: &World, invoice: &Invoice) -> Value {
    let customer = world.customers.get(&invoice.customer);
    json!({
        "customer": invoice.customer,
        "customer_address": null,
        "customer_email": customer.and_then(|customer| customer.email.as_ref()),
        "customer_name": customer.and_then(|customer| customer.name.as_ref()),
        "customer_phone": null,
        "customer_shipping": null,
        "customer_tax_exempt": "none",
        "customer_tax_ids": [],
    })
}

fn invoice_amounts(total: i64) -> Value {
    json!({
        "amount_due": total,
        "amount_overpaid": 0,
        "amount_paid": 0,
        "amount_remaining": total,
        "amount_shipping": 0,
        "post_payment_credit_notes_amount": 0,
        "pre_payment_credit_notes_amount": 0,
        "starting_balance": 0,
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
            "attempt_count": 0,
            "attempted": false,
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
            "hosted_invoice_url": null,
            "invoice_pdf": null,
            "issuer": { "type": "self" },
            "last_finalization_error": null,
            "latest_revision": null,
            "next_payment_attempt": null,
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
            "threshold_reason": null,
        }),
    ])
});
