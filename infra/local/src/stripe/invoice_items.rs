//! Invoice items: amounts that wait for the next invoice.
//!
//! Owns the waiting: an item goes on the next invoice of its subscription, or of its customer if it names none, once.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::catalog::merge_metadata;
use super::error::ApiError;
use super::form::{Params, Range};
use super::world::{InvoiceItem, InvoiceState, World};
use super::{money, wire};

/// Largest amount of one item, in cents.
const MAX_CENTS: u64 = 99_999_999;
/// Largest quantity of one item.
const MAX_QUANTITY: u64 = 1_000_000;
/// Most items that wait for one invoice, as in the real API.
const MAX_PENDING: usize = 250;

const NOT_MODELLED: &[&str] = &[
    "customer_account",
    "discountable",
    "discounts",
    "price_data",
    "pricing",
    "tax_behavior",
    "tax_code",
    "tax_rates",
];

/// Puts everything that waits for this invoice on it: their ids, the latest first.
pub(super) fn take_pending(
    world: &mut World,
    customer: &str,
    subscription: &str,
    currency: &str,
    invoice: &str,
) -> Vec<String> {
    let waits = |item: &&InvoiceItem| {
        item.invoice.is_none()
            && item.customer == customer
            && item.currency == currency
            && item.subscription.as_ref().is_none_or(|of| of == subscription)
    };
    let ids: Vec<String> = world
        .invoice_items
        .iter()
        .rev()
        .filter(waits)
        .map(|item| item.id.clone())
        .take(MAX_PENDING)
        .collect();
    for id in &ids {
        if let Some(item) = world.invoice_items.get_mut(id) {
            item.invoice = Some(invoice.to_owned());
        }
    }
    ids
}

/// Removes the prorations that wait for a subscription which has no next invoice.
pub(super) fn drop_pending(world: &mut World, subscription: &str) {
    let waits = |item: &&InvoiceItem| {
        item.invoice.is_none() && item.item.is_some() && item.subscription.as_deref() == Some(subscription)
    };
    let ids: Vec<String> = world.invoice_items.iter().filter(waits).map(|item| item.id.clone()).collect();
    for id in ids {
        world.invoice_items.remove(&id);
    }
}

fn cents(params: &mut Params) -> Result<(i64, u64), ApiError> {
    let amount = params.integer("amount")?;
    let unit = params.text("unit_amount_decimal")?;
    let quantity = params.natural("quantity")?;
    let fits = |cents: &i64| cents.unsigned_abs() <= MAX_CENTS;
    let too_large = |name| ApiError::invalid(name, "Amount must be no more than $999,999.99");
    match (amount, unit) {
        (Some(_), Some(_)) => Err(ApiError::exclusive(
            "amount",
            "You may only specify one of these parameters: amount, unit_amount_decimal.",
        )),
        (Some(_), None) if quantity.is_some() => Err(ApiError::exclusive(
            "quantity",
            "You may only specify one of these parameters: amount, quantity.",
        )),
        (Some(amount), None) => {
            Some(amount).filter(fits).map(|cents| (cents, 1)).ok_or_else(|| too_large("amount"))
        }
        (None, Some(unit)) => {
            let quantity = quantity.unwrap_or(1);
            if quantity > MAX_QUANTITY {
                return Err(ApiError::invalid(
                    "quantity",
                    format!("quantity can be at most {MAX_QUANTITY}."),
                ));
            }
            let price = money::Price::parse(&unit).ok_or_else(|| {
                ApiError::invalid("unit_amount_decimal", format!("Invalid decimal: {unit}"))
            })?;
            let cents = price.charge(quantity, money::Price::default()).filter(fits);
            cents.map(|cents| (cents, quantity)).ok_or_else(|| too_large("unit_amount_decimal"))
        }
        (None, None) => Err(ApiError::missing("amount")),
    }
}

/// The invoice or subscription that an item is for must be the customer's; the invoice a draft.
fn target(
    world: &World,
    customer: &str,
    invoice: Option<&str>,
    subscription: Option<&str>,
) -> Result<(), ApiError> {
    if let Some(id) = invoice {
        let found = world.invoices.get(id).filter(|found| found.customer == customer);
        let found = found.ok_or_else(|| ApiError::no_such_for("invoice", "invoice", id))?;
        if !matches!(found.state, InvoiceState::Draft) {
            return Err(ApiError::invalid(
                "invoice",
                "The invoice is no longer a draft: nothing can be added.",
            ));
        }
    }
    if let Some(id) = subscription {
        let found = world.subscriptions.get(id).filter(|found| found.customer == customer);
        let found = found.ok_or_else(|| ApiError::no_such_for("subscription", "subscription", id))?;
        if found.status.is_over() {
            return Err(ApiError::invalid(
                "subscription",
                "The subscription is canceled: it has no next invoice.",
            ));
        }
    }
    Ok(())
}

fn period(params: &mut Params, now_s: i64) -> Result<(i64, i64), ApiError> {
    let Some(mut period) = params.hash("period")? else { return Ok((now_s, now_s)) };
    let (start_s, end_s) = (period.required_integer("start")?, period.required_integer("end")?);
    let name = period.name("end");
    period.finish()?;
    if start_s > end_s {
        return Err(ApiError::invalid(&name, "period[end] must not lie before period[start]."));
    }
    Ok((start_s, end_s))
}

/// `POST /v1/invoiceitems`
pub(super) fn create(world: &mut World, mut params: Params, now_s: i64) -> Result<Value, ApiError> {
    params.refuse_unmodelled(NOT_MODELLED)?;
    let customer = params.required("customer")?;
    let (cents, quantity) = cents(&mut params)?;
    let currency = params.required("currency")?;
    let description = params.text_or_unset("description")?.unwrap_or_default();
    let invoice = params.text("invoice")?;
    let subscription = params.text("subscription")?;
    let (start_s, end_s) = period(&mut params, now_s)?;
    let mut metadata = BTreeMap::new();
    merge_metadata(&mut metadata, params.metadata()?);
    params.expand(&[])?;
    params.finish()?;
    if world.customers.get(&customer).is_none() {
        return Err(ApiError::no_such_for("customer", "customer", &customer));
    }
    target(world, &customer, invoice.as_deref(), subscription.as_deref())?;
    let pending =
        world.invoice_items.iter().filter(|item| item.customer == customer && item.invoice.is_none());
    if pending.count() >= MAX_PENDING {
        return Err(ApiError::invalid(
            "customer",
            format!("A customer can have up to {MAX_PENDING} pending items."),
        ));
    }
    let id = world.ids.next("ii");
    let item = InvoiceItem {
        id: id.clone(),
        created_s: now_s,
        customer,
        subscription,
        item: None,
        price: None,
        currency,
        description,
        quantity,
        unit: money::per_unit(cents, quantity),
        cents,
        start_s,
        end_s,
        proration: false,
        metadata,
        invoice: invoice.clone(),
    };
    let answer = wire::invoice_item(world, &item);
    world.invoice_items.insert(item)?;
    if let Some(invoice) = invoice.and_then(|id| world.invoices.get_mut(&id)) {
        invoice.added.push(id);
    }
    Ok(answer)
}

/// `GET /v1/invoiceitems/:id`
pub(super) fn retrieve(world: &World, id: &str, mut params: Params) -> Result<Value, ApiError> {
    params.expand(&[])?;
    params.finish()?;
    let item = world.invoice_items.get(id).ok_or_else(|| ApiError::no_such("invoiceitem", id))?;
    Ok(wire::invoice_item(world, item))
}

/// `GET /v1/invoiceitems`
pub(super) fn list(world: &World, mut params: Params) -> Result<Value, ApiError> {
    params.refuse_unmodelled(&["customer_account"])?;
    let customer = params.text("customer")?;
    let invoice = params.text("invoice")?;
    let pending = params.boolean("pending")?;
    let created = Range::of(&mut params, "created")?;
    let page = params.page()?;
    params.expand(&[])?;
    params.finish()?;
    let (found, more) = world.invoice_items.page(&page, |item| {
        pending.is_none_or(|pending| pending == item.invoice.is_none())
            && created.contains(item.created_s)
            && customer.as_ref().is_none_or(|customer| item.customer == *customer)
            && invoice.as_ref().is_none_or(|invoice| item.invoice.as_ref() == Some(invoice))
    })?;
    let data: Vec<Value> = found.into_iter().map(|item| wire::invoice_item(world, item)).collect();
    Ok(wire::list("/v1/invoiceitems", &data, more))
}

/// `DELETE /v1/invoiceitems/:id`
pub(super) fn delete(world: &mut World, id: &str, params: Params) -> Result<Value, ApiError> {
    params.finish()?;
    let item = world.invoice_items.get(id).ok_or_else(|| ApiError::no_such("invoiceitem", id))?;
    let invoice = item.invoice.clone();
    if let Some(invoice) = invoice.and_then(|invoice| world.invoices.get_mut(&invoice)) {
        if !matches!(invoice.state, InvoiceState::Draft) {
            return Err(ApiError::invalid_request("The item is on an invoice that is no longer a draft."));
        }
        invoice.pending.retain(|on| on != id);
        invoice.added.retain(|on| on != id);
    }
    world.invoice_items.remove(id);
    Ok(json!({ "id": id, "object": "invoiceitem", "deleted": true }))
}
