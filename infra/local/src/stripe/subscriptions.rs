//! Subscriptions and invoices.
//!
//! Owns the parameters of their endpoints. What time does to them is in `billing`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::billing;
use super::catalog::merge_metadata;
use super::error::ApiError;
use super::form::Params;
use super::wire;
use super::world::{InvoiceState, Item, Price, Subscription, SubscriptionState, Usage, World};

/// Most items of a subscription.
const MAX_ITEMS: usize = 20;
/// Largest quantity of a licensed item.
const MAX_QUANTITY: u64 = 1_000_000;

const EXPANDABLE: &[&str] = &["customer", "latest_invoice"];

const NOT_MODELLED: &[&str] = &[
    "add_invoice_items",
    "application_fee_percent",
    "automatic_tax",
    "backdate_start_date",
    "billing_cycle_anchor",
    "billing_cycle_anchor_config",
    "billing_schedules",
    "billing_thresholds",
    "cancel_at",
    "cancellation_details",
    "customer_account",
    "days_until_due",
    "default_payment_method",
    "default_source",
    "default_tax_rates",
    "discounts",
    "invoice_settings",
    "off_session",
    "on_behalf_of",
    "pause_collection",
    "payment_behavior",
    "payment_settings",
    "pending_invoice_item_interval",
    "proration_behavior",
    "proration_date",
    "transfer_data",
    "trial_end",
    "trial_from_plan",
    "trial_period_days",
    "trial_settings",
];

fn price_of<'a>(world: &'a World, name: &str, id: &str) -> Result<&'a Price, ApiError> {
    let price = world.prices.get(id).ok_or_else(|| ApiError::no_such_for(name, "price", id))?;
    if !price.active {
        let message = format!("The price specified is inactive. This field only accepts active prices: {id}");
        return Err(ApiError::invalid(name, message));
    }
    if price.recurring.is_none() {
        let message = "The price specified is set to `type=one_time` but this field only accepts prices with \
                       `type=recurring`.";
        return Err(ApiError::invalid(name, message));
    }
    Ok(price)
}

fn quantity_of(price: &Price, hash: &mut Params) -> Result<Option<u64>, ApiError> {
    let name = hash.name("quantity");
    let quantity = hash.natural("quantity")?;
    let metered =
        matches!(price.recurring.as_ref().map(|recurring| &recurring.usage), Some(Usage::Metered { .. }));
    match (metered, quantity) {
        (true, None) => Ok(None),
        (true, Some(_)) => {
            let message = "Quantity should not be specified where usage_type is `metered`. Remove quantity from `items`.";
            Err(ApiError::invalid(&name, message))
        }
        (false, quantity) => {
            let quantity = quantity.unwrap_or(1);
            let message = format!("The quantity must be at most {MAX_QUANTITY}.");
            if quantity <= MAX_QUANTITY { Ok(Some(quantity)) } else { Err(ApiError::invalid(&name, message)) }
        }
    }
}

fn items(world: &mut World, params: &mut Params, now_s: i64) -> Result<Vec<Item>, ApiError> {
    let hashes = params.hashes("items")?;
    if hashes.is_empty() {
        return Err(ApiError::missing("items"));
    }
    if hashes.len() > MAX_ITEMS {
        return Err(ApiError::invalid("items", format!("A subscription can have up to {MAX_ITEMS} items.")));
    }
    let mut items: Vec<Item> = Vec::new();
    for mut hash in hashes {
        hash.refuse_unmodelled(&[
            "billing_thresholds",
            "current_trial",
            "discounts",
            "plan",
            "price_data",
            "tax_rates",
        ])?;
        let name = hash.name("price");
        let id = hash.required("price")?;
        let price = price_of(world, &name, &id)?;
        let quantity = quantity_of(price, &mut hash)?;
        let mut metadata = std::collections::BTreeMap::new();
        merge_metadata(&mut metadata, hash.metadata()?);
        hash.finish()?;
        if items.iter().any(|item| item.price == id) {
            let message = format!("Cannot add multiple subscription items with the same price: {id}");
            return Err(ApiError::invalid(&name, message));
        }
        items.push(Item { id: world.ids.next("si"), created_s: now_s, price: id, quantity, metadata });
    }
    Ok(items)
}

/// `POST /v1/subscriptions`
pub(super) fn create(world: &mut World, mut params: Params, now_s: i64) -> Result<Value, ApiError> {
    params.refuse_unmodelled(NOT_MODELLED)?;
    let customer = params.required("customer")?;
    let ending = params.boolean("cancel_at_period_end")?.unwrap_or(false);
    params.choice("collection_method", &[("charge_automatically", ())])?;
    let wanted_currency = params.text("currency")?;
    let description = params.text_or_unset("description")?.filter(|text| !text.is_empty());
    if let Some(mut mode) = params.hash("billing_mode")? {
        mode.required_choice("type", &[("flexible", ())])?;
        mode.finish()?;
    }
    let mut metadata = std::collections::BTreeMap::new();
    merge_metadata(&mut metadata, params.metadata()?);
    let expand = params.expand(EXPANDABLE)?;
    let items = items(world, &mut params, now_s)?;
    params.finish()?;
    if world.customers.get(&customer).is_none() {
        return Err(ApiError::no_such_for("customer", "customer", &customer));
    }
    let prices = items.iter().filter_map(|item| world.prices.get(&item.price));
    let mut terms =
        prices.filter_map(|price| Some((price.currency.clone(), price.recurring.as_ref()?.cycle)));
    let (currency, cycle) = terms.next().ok_or_else(|| ApiError::missing("items"))?;
    if terms.any(|(other, _)| other != currency) || wanted_currency.is_some_and(|wanted| wanted != currency) {
        return Err(ApiError::invalid(
            "currency",
            "The prices of a subscription must all have its currency.",
        ));
    }
    let prices = items.iter().filter_map(|item| world.prices.get(&item.price));
    if prices.filter_map(|price| price.recurring.as_ref()).any(|recurring| recurring.cycle != cycle) {
        return Err(ApiError::not_modelled("items with different intervals"));
    }
    let period_end_s = cycle.boundary(now_s, 1).ok_or_else(|| ApiError::server(500))?;
    world.invoices.ensure_room(1)?;
    let id = world.ids.next("sub");
    let subscription = Subscription {
        id: id.clone(),
        created_s: now_s,
        customer,
        currency,
        cycle,
        anchor_s: now_s,
        period_index: 0,
        period_start_s: now_s,
        period_end_s,
        state: if ending { SubscriptionState::Ending { asked_s: now_s } } else { SubscriptionState::Active },
        items,
        metadata,
        description,
        latest_invoice: None,
    };
    world.subscriptions.insert(subscription)?;
    world.next_due_s = None;
    billing::bill_start(world, &id, now_s);
    billing::announce_subscription(world, &id, "customer.subscription.created", None, now_s);
    answer(world, &id, &expand)
}

fn answer(world: &World, id: &str, expand: &BTreeSet<String>) -> Result<Value, ApiError> {
    let subscription = world.subscriptions.get(id).ok_or_else(|| ApiError::no_such("subscription", id))?;
    Ok(wire::subscription(world, subscription, expand))
}

/// `GET /v1/subscriptions/:id`
pub(super) fn retrieve(world: &World, id: &str, mut params: Params) -> Result<Value, ApiError> {
    let expand = params.expand(EXPANDABLE)?;
    params.finish()?;
    answer(world, id, &expand)
}

/// `GET /v1/subscriptions`
pub(super) fn list(world: &World, mut params: Params) -> Result<Value, ApiError> {
    params.refuse_unmodelled(&[
        "automatic_tax",
        "collection_method",
        "created",
        "current_period_end",
        "current_period_start",
        "customer_account",
        "plan",
        "test_clock",
    ])?;
    let customer = params.text("customer")?;
    let price = params.text("price")?;
    let statuses = [("active", Some(true)), ("canceled", Some(false)), ("ended", Some(false)), ("all", None)];
    let active = params.choice("status", &statuses)?.unwrap_or(Some(true));
    let page = params.page()?;
    params.expand(&[])?;
    params.finish()?;
    let (found, more) = world.subscriptions.page(&page, |subscription| {
        let is_active = !matches!(subscription.state, SubscriptionState::Canceled { .. });
        active.is_none_or(|active| active == is_active)
            && customer.as_ref().is_none_or(|customer| subscription.customer == *customer)
            && price.as_ref().is_none_or(|price| subscription.items.iter().any(|item| item.price == *price))
    })?;
    let none = BTreeSet::new();
    let data: Vec<Value> = found.into_iter().map(|found| wire::subscription(world, found, &none)).collect();
    Ok(wire::list("/v1/subscriptions", &data, more))
}

/// `POST /v1/subscriptions/:id`
pub(super) fn update(world: &mut World, id: &str, mut params: Params, now_s: i64) -> Result<Value, ApiError> {
    let subscription =
        world.subscriptions.get_mut(id).ok_or_else(|| ApiError::no_such("subscription", id))?;
    params.refuse_unmodelled(NOT_MODELLED)?;
    params.refuse_unmodelled(&["collection_method", "items"])?;
    let ending = params.boolean("cancel_at_period_end")?;
    let description = params.text_or_unset("description")?;
    let metadata = params.metadata()?;
    let expand = params.expand(EXPANDABLE)?;
    params.finish()?;
    let state = match (subscription.state, ending) {
        (SubscriptionState::Canceled { .. }, _) => {
            return Err(ApiError::invalid_request(
                "A canceled subscription can only update its cancellation_details and metadata.",
            ));
        }
        (SubscriptionState::Active, Some(true)) => SubscriptionState::Ending { asked_s: now_s },
        (SubscriptionState::Ending { .. }, Some(false)) => SubscriptionState::Active,
        (state, _) => state,
    };
    let mut previous = serde_json::Map::new();
    if state != subscription.state {
        let (was_ending, asked_s) = match subscription.state {
            SubscriptionState::Ending { asked_s } => (true, Some(asked_s)),
            _ => (false, None),
        };
        previous.insert("cancel_at_period_end".to_owned(), json!(was_ending));
        previous.insert("cancel_at".to_owned(), json!(asked_s.map(|_| subscription.period_end_s)));
        previous.insert("canceled_at".to_owned(), json!(asked_s));
    }
    if !metadata.is_empty() {
        previous.insert("metadata".to_owned(), json!(subscription.metadata));
    }
    if description.is_some() {
        previous.insert("description".to_owned(), json!(subscription.description));
        subscription.description = description.filter(|text| !text.is_empty());
    }
    subscription.state = state;
    merge_metadata(&mut subscription.metadata, metadata);
    world.next_due_s = None;
    if !previous.is_empty() {
        let previous = Value::Object(previous);
        billing::announce_subscription(world, id, "customer.subscription.updated", Some(&previous), now_s);
    }
    answer(world, id, &expand)
}

/// `DELETE /v1/subscriptions/:id`
///
/// Usage that no invoice holds yet is billed only with `invoice_now`: without it, it is lost, as in the real API.
pub(super) fn cancel(world: &mut World, id: &str, mut params: Params, now_s: i64) -> Result<Value, ApiError> {
    let subscription =
        world.subscriptions.get_mut(id).ok_or_else(|| ApiError::no_such("subscription", id))?;
    params.refuse_unmodelled(&["cancellation_details"])?;
    let invoice_now = params.boolean("invoice_now")?.unwrap_or(false);
    if params.boolean("prorate")?.unwrap_or(false) {
        return Err(ApiError::not_modelled("prorate"));
    }
    let expand = params.expand(EXPANDABLE)?;
    params.finish()?;
    if matches!(subscription.state, SubscriptionState::Canceled { .. }) {
        return Err(ApiError::no_such("subscription", id));
    }
    subscription.state = SubscriptionState::Canceled { asked_s: now_s, ended_s: now_s };
    world.next_due_s = None;
    if invoice_now {
        billing::bill_cancellation(world, id, now_s);
    }
    billing::announce_subscription(world, id, "customer.subscription.deleted", None, now_s);
    answer(world, id, &expand)
}

/// `GET /v1/invoices/:id`
pub(super) fn retrieve_invoice(world: &World, id: &str, mut params: Params) -> Result<Value, ApiError> {
    params.expand(&[])?;
    params.finish()?;
    let invoice = world.invoices.get(id).ok_or_else(|| ApiError::no_such("invoice", id))?;
    Ok(wire::invoice(world, invoice))
}

/// `GET /v1/invoices`
pub(super) fn list_invoices(world: &World, mut params: Params) -> Result<Value, ApiError> {
    params.refuse_unmodelled(&["collection_method", "created", "customer_account", "due_date"])?;
    let customer = params.text("customer")?;
    let subscription = params.text("subscription")?;
    let statuses = ["draft", "open", "paid", "uncollectible", "void"].map(|word| (word, word));
    let status = params.choice("status", &statuses)?;
    let page = params.page()?;
    params.expand(&[])?;
    params.finish()?;
    let (found, more) = world.invoices.page(&page, |invoice| {
        let paid = || billing::total(&billing::lines(world, invoice)) == 0;
        let is_status = match (status, &invoice.state) {
            (None, _) | (Some("draft"), InvoiceState::Draft) => true,
            (Some("open"), InvoiceState::Finalized { .. }) => !paid(),
            (Some("paid"), InvoiceState::Finalized { .. }) => paid(),
            _ => false,
        };
        is_status
            && customer.as_ref().is_none_or(|customer| invoice.customer == *customer)
            && subscription.as_ref().is_none_or(|subscription| invoice.subscription == *subscription)
    })?;
    let data: Vec<Value> = found.into_iter().map(|found| wire::invoice(world, found)).collect();
    Ok(wire::list("/v1/invoices", &data, more))
}

/// `POST /v1/invoices/:id/finalize`
pub(super) fn finalize_invoice(
    world: &mut World,
    id: &str,
    mut params: Params,
    now_s: i64,
) -> Result<Value, ApiError> {
    let invoice = world.invoices.get_mut(id).ok_or_else(|| ApiError::no_such("invoice", id))?;
    let auto_advance = params.boolean("auto_advance")?;
    params.expand(&[])?;
    params.finish()?;
    if matches!(invoice.state, InvoiceState::Finalized { .. }) {
        let message = "This invoice is already finalized, you can't re-finalize a non-draft invoice.";
        return Err(ApiError::invalid_request(message));
    }
    invoice.auto_advance = auto_advance.unwrap_or(invoice.auto_advance);
    billing::finalize(world, id, now_s);
    let invoice = world.invoices.get(id).ok_or_else(|| ApiError::no_such("invoice", id))?;
    Ok(wire::invoice(world, invoice))
}
