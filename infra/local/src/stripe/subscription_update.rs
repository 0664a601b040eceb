//! Changes of a subscription: its items, its end, its trial, its billing date, pauses of its collection.
//!
//! Owns the parameters of the update and of the resumption, and in which order they take effect. A refused change changes
//! nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::billing::{self, Base};
use super::catalog::{Era, merge_metadata};
use super::error::ApiError;
use super::form::{Metadata, Params};
use super::invoices::{self, Bill};
use super::payments::Card;
use super::subscriptions::{self, MAX_ITEMS, PaymentBehavior, Prorates, TrialEnd, Wanted};
use super::world::{
    BillingMode, CancelAt, Ending, Item, NoCard, Pause, PauseBehavior, Reason, Status, Subscription, Trial,
    World,
};
use super::{proration, schedules};

/// Most invoice items that one change makes: a credit, a debit and the tiers of each item.
const MAX_MADE: usize = 1_000;

/// What an item was and what it is to be; the one that is added was not, the one that is removed will not be.
#[derive(Debug)]
struct ItemChange {
    old: Option<Item>,
    new: Option<Item>,
}

/// A change, read.
#[derive(Debug)]
struct Update {
    items: Option<Vec<ItemChange>>,
    ending: Option<Wanted<CancelAt>>,
    pause: Option<Wanted<Pause>>,
    trial_end: Option<TrialEnd>,
    no_card: Option<NoCard>,
    anchor_now: bool,
    prorates: Prorates,
    behavior: PaymentBehavior,
    metadata: Metadata,
    description: Option<String>,
    default_payment_method: Option<String>,
    expand: BTreeSet<String>,
}

impl Update {
    /// Whether it changes nothing but what a subscription that is over, or not begun, may still change.
    fn is_plain(&self) -> bool {
        self.items.is_none()
            && self.ending.is_none()
            && self.pause.is_none()
            && self.trial_end.is_none()
            && self.no_card.is_none()
            && !self.anchor_now
            && self.description.is_none()
    }
}

fn changed_item(
    world: &World,
    of: &Subscription,
    hash: &mut Params,
    id: &str,
    now_s: i64,
) -> Result<ItemChange, ApiError> {
    let old = of.items.iter().find(|item| item.id == id).cloned();
    let old = old.ok_or_else(|| ApiError::no_such_for(&hash.name("id"), "subscription_item", id))?;
    let (price_name, quantity_name) = (hash.name("price"), hash.name("quantity"));
    let price = hash.text("price")?;
    let quantity = hash.natural("quantity")?;
    let metadata = hash.metadata()?;
    if hash.boolean("deleted")? == Some(true) {
        return Ok(ItemChange { old: Some(old), new: None });
    }
    let mut new = old.clone();
    merge_metadata(&mut new.metadata, metadata);
    if let Some(price) = price.filter(|price| *price != old.price) {
        subscriptions::price_of(world, &price_name, &price, Era::Now)?;
        new.price = price;
        new.usage_from_s = now_s;
    }
    let price = world
        .prices
        .get(&new.price)
        .ok_or_else(|| ApiError::no_such_for(&price_name, "price", &new.price))?;
    new.quantity = subscriptions::quantity_of(price, &quantity_name, quantity, old.quantity.unwrap_or(1))?;
    Ok(ItemChange { old: Some(old), new: Some(new) })
}

/// The items as they will be, in order: those that nobody mentions stay.
fn items(
    world: &mut World,
    of: &Subscription,
    params: &mut Params,
    now_s: i64,
) -> Result<Option<Vec<ItemChange>>, ApiError> {
    if !params.has("items") {
        return Ok(None);
    }
    let mut changes: Vec<ItemChange> = Vec::new();
    for mut hash in params.hashes("items")? {
        hash.refuse_unmodelled(subscriptions::ITEM_NOT_MODELLED)?;
        hash.refuse_unmodelled(&["clear_usage"])?;
        let change = match hash.text("id")? {
            Some(id) if changes.iter().any(|change| change.old.as_ref().is_some_and(|old| old.id == id)) => {
                return Err(ApiError::invalid(&hash.name("id"), format!("The item {id} is given twice.")));
            }
            Some(id) => changed_item(world, of, &mut hash, &id, now_s)?,
            None => {
                let (name, quantity_name) = (hash.name("price"), hash.name("quantity"));
                let price = hash.required("price")?;
                let quantity = hash.natural("quantity")?;
                let found = subscriptions::price_of(world, &name, &price, Era::Now)?;
                let quantity = subscriptions::quantity_of(found, &quantity_name, quantity, 1)?;
                let mut metadata = BTreeMap::new();
                merge_metadata(&mut metadata, hash.metadata()?);
                let new = subscriptions::new_item(world, price, quantity, metadata, now_s);
                ItemChange { old: None, new: Some(new) }
            }
        };
        hash.finish()?;
        changes.push(change);
    }
    let mentioned: BTreeSet<String> =
        changes.iter().filter_map(|change| Some(change.old.as_ref()?.id.clone())).collect();
    let kept = of.items.iter().filter(|item| !mentioned.contains(&item.id));
    let mut all: Vec<ItemChange> =
        kept.map(|item| ItemChange { old: Some(item.clone()), new: Some(item.clone()) }).collect();
    all.extend(changes);
    let left: Vec<Item> = all.iter().filter_map(|change| change.new.clone()).collect();
    if left.is_empty() {
        return Err(ApiError::invalid("items", "A subscription must have at least one active plan."));
    }
    let prices: Vec<&str> = left.iter().map(|item| item.price.as_str()).collect();
    let (currency, cycle) = subscriptions::terms(world, &prices)?;
    if cycle != of.cycle {
        return Err(ApiError::not_modelled("items with another interval"));
    }
    if currency != of.currency {
        return Err(ApiError::invalid("items", "The prices of a subscription must all have its currency."));
    }
    Ok(Some(all))
}

fn pause(params: &mut Params, now_s: i64) -> Result<Option<Wanted<Pause>>, ApiError> {
    if params.take_unset("pause_collection") {
        return Ok(Some(Wanted::Unset));
    }
    let Some(mut hash) = params.hash("pause_collection")? else { return Ok(None) };
    let choices = [
        ("keep_as_draft", PauseBehavior::KeepAsDraft),
        ("mark_uncollectible", PauseBehavior::MarkUncollectible),
        ("void", PauseBehavior::Void),
    ];
    let behavior = hash.required_choice("behavior", &choices)?;
    let (name, resumes_s) = (hash.name("resumes_at"), hash.integer("resumes_at")?);
    hash.finish()?;
    if resumes_s.is_some_and(|at_s| at_s <= now_s) {
        return Err(ApiError::invalid(&name, "resumes_at must be in the future."));
    }
    Ok(Some(Wanted::Set(Pause { behavior, resumes_s })))
}

/// Whether the billing date is to become now: since 2026-09-30.endive a hash says so.
fn anchor_now(params: &mut Params) -> Result<Option<bool>, ApiError> {
    let Some(mut anchor) = params.hash("billing_cycle_anchor")? else { return Ok(None) };
    let now = anchor.required_choice("type", &[("now", true), ("unchanged", false)])?;
    anchor.finish()?;
    Ok(Some(now))
}

fn read(world: &mut World, of: &Subscription, mut params: Params, now_s: i64) -> Result<Update, ApiError> {
    params.refuse_unmodelled(subscriptions::NOT_MODELLED)?;
    params.refuse_unmodelled(&["collection_method"])?;
    params.boolean("off_session")?;
    let update = Update {
        items: items(world, of, &mut params, now_s)?,
        ending: subscriptions::ending(&mut params, of.period_end_s, now_s)?,
        pause: pause(&mut params, now_s)?,
        trial_end: subscriptions::trial_end(&mut params, now_s)?,
        no_card: subscriptions::no_card(&mut params)?,
        anchor_now: anchor_now(&mut params)?.unwrap_or(false),
        prorates: subscriptions::prorates(&mut params)?,
        behavior: subscriptions::payment_behavior(&mut params)?,
        metadata: params.metadata()?,
        description: params.text_or_unset("description")?,
        default_payment_method: params.text_or_unset("default_payment_method")?,
        expand: subscriptions::expand(&mut params)?,
    };
    params.finish()?;
    Ok(update)
}

/// Whether a subscription in this state can be changed so.
fn allows(world: &World, of: &Subscription, update: &Update) -> Result<(), ApiError> {
    if !update.is_plain() {
        match of.status {
            Status::Canceled | Status::IncompleteExpired => {
                return Err(ApiError::invalid_request(
                    "A canceled subscription can only update its cancellation_details and metadata.",
                ));
            }
            Status::Incomplete => {
                let message = "A subscription whose first invoice is not paid can only update its metadata and its \
                               payment method.";
                return Err(ApiError::invalid_request(message));
            }
            Status::Paused if update.items.is_some() || update.anchor_now || update.trial_end.is_some() => {
                return Err(ApiError::not_modelled("a change of a paused subscription"));
            }
            _ => {}
        }
    }
    let moves = update.anchor_now || update.trial_end.is_some();
    if of.mode == BillingMode::Classic && (moves || update.items.is_some()) {
        return Err(ApiError::not_modelled("a change in classic billing mode"));
    }
    if let Some(schedule) = &of.schedule {
        if update.ending.is_some() {
            return Err(ApiError::managed_by_a_schedule(schedule));
        }
        if moves {
            return Err(ApiError::not_modelled("another billing date of a subscription with a schedule"));
        }
    }
    let trialing = of.status == Status::Trialing;
    if update.anchor_now && (trialing || update.trial_end.is_some()) {
        return Err(ApiError::not_modelled("billing_cycle_anchor[type]=now with a trial"));
    }
    if update.trial_end.is_some() && update.items.is_some() {
        return Err(ApiError::not_modelled("items together with trial_end"));
    }
    if let Some(Wanted::Set(at)) = update.ending {
        subscriptions::ends_with_a_period(of, at, update.prorates)?;
    }
    let at_once = update.anchor_now
        || (update.trial_end == Some(TrialEnd::Now) && trialing)
        || (update.items.is_some() && update.prorates == Prorates::AtOnce);
    let works = world.customers.get(&of.customer).is_some_and(|customer| customer.card == Card::Works);
    if at_once && !works && update.behavior == PaymentBehavior::Error {
        return Err(ApiError::card_declined());
    }
    world.invoices.ensure_room(1)?;
    world.invoice_items.ensure_room(MAX_ITEMS.saturating_mul(2).max(MAX_MADE))
}

/// `POST /v1/subscriptions/:id`
pub(super) fn update(world: &mut World, id: &str, params: Params, now_s: i64) -> Result<Value, ApiError> {
    let of = world.subscriptions.get(id).cloned().ok_or_else(|| ApiError::no_such("subscription", id))?;
    let update = read(world, &of, params, now_s)?;
    allows(world, &of, &update)?;
    let expand = update.expand.clone();
    billing::change_by(world, id, now_s, |world| apply(world, &of, update, now_s))?;
    billing::warn_of_trial_end(world, id, now_s);
    subscriptions::answer(world, id, &expand)
}

fn apply(world: &mut World, of: &Subscription, update: Update, now_s: i64) -> Result<(), ApiError> {
    let resets = update.anchor_now
        || matches!(update.trial_end, Some(TrialEnd::At(_))) && of.status != Status::Trialing;
    let changes = update.items.unwrap_or_else(|| {
        let kept = of.items.iter().cloned();
        kept.map(|item| ItemChange { old: Some(item.clone()), new: Some(item) }).collect()
    });
    let items = prorate(world, of, changes, update.prorates, resets, now_s)?;
    schedules::follow_items(world, of.schedule.as_deref(), &items, now_s);
    let found = world.subscriptions.get_mut(&of.id).ok_or_else(|| ApiError::server(500))?;
    found.items = items;
    merge_metadata(&mut found.metadata, update.metadata);
    if let Some(description) = update.description {
        found.description = Some(description).filter(|text| !text.is_empty());
    }
    if let Some(method) = update.default_payment_method {
        found.default_payment_method = Some(method).filter(|text| !text.is_empty());
    }
    if let Some(pause) = update.pause {
        found.pause = pause.set();
    }
    if let (Some(no_card), Some(trial)) = (update.no_card, found.trial.as_mut()) {
        trial.no_card = no_card;
    }
    if let Some(at) = update.ending.map(Wanted::set) {
        let same = found.ending.filter(|ending| Some(ending.at) == at);
        found.ending = same.or(at.map(|at| Ending { at, asked_s: now_s }));
        found.canceled_s = found.ending.map(|ending| ending.asked_s);
    }
    move_dates(world, of, update.anchor_now, update.trial_end, update.no_card, now_s);
    if update.prorates == Prorates::AtOnce {
        // What the change made; nothing, if it made nothing.
        let bill = Bill { plan: Vec::new(), period: (now_s, now_s), reason: Reason::Update };
        invoices::bill_at_once(world, &of.id, bill, now_s);
    }
    Ok(())
}

/// Gives back and bills what the changes of the items come to. The items as they are then.
fn prorate(
    world: &mut World,
    of: &Subscription,
    changes: Vec<ItemChange>,
    prorates: Prorates,
    resets: bool,
    now_s: i64,
) -> Result<Vec<Item>, ApiError> {
    // In a trial nothing was billed and nothing is.
    let prorates = prorates != Prorates::Not && of.status != Status::Trialing;
    let mut items = Vec::new();
    for ItemChange { old, new } in changes {
        let same = |old: &Item, new: &Item| old.price == new.price && old.quantity == new.quantity;
        let moved = match (&old, &new) {
            (Some(old), Some(new)) => !same(old, new),
            _ => true,
        };
        let licensed = old.as_ref().is_some_and(|old| old.quantity.is_some());
        if let Some(old) = old.as_ref().filter(|_| prorates && (moved || resets && licensed)) {
            if licensed {
                proration::credit(world, of, old, now_s)?;
            } else {
                proration::usage(world, of, old, now_s)?;
            }
        }
        let Some(mut new) = new else { continue };
        if moved && prorates && !resets {
            new.debit = proration::debit(world, of, &new, now_s)?;
        }
        items.push(new);
    }
    Ok(items)
}

/// Moves the billing date: to now, or to where a trial ends.
fn move_dates(
    world: &mut World,
    of: &Subscription,
    anchor_now: bool,
    trial_end: Option<TrialEnd>,
    no_card: Option<NoCard>,
    now_s: i64,
) {
    let trialing = of.status == Status::Trialing;
    let Some(found) = world.subscriptions.get_mut(&of.id) else { return };
    match trial_end {
        Some(TrialEnd::At(end_s)) => {
            let before = found.trial.filter(|_| trialing);
            let no_card = no_card.or(before.map(|trial| trial.no_card)).unwrap_or(NoCard::CreateInvoice);
            let start_s = before.map_or(now_s, |trial| trial.start_s);
            found.trial = Some(Trial { start_s, end_s, warned: false, no_card });
            (found.anchor_s, found.end_index) = (end_s, 0);
            if trialing {
                found.period_end_s = end_s;
            } else {
                billing::begin_period(world, &of.id, Base::Free, now_s);
            }
        }
        Some(TrialEnd::Now) if trialing => {
            if let Some(trial) = found.trial.as_mut() {
                trial.end_s = now_s;
            }
            (found.anchor_s, found.end_index) = (now_s, 1);
            billing::begin_period(world, &of.id, Base::Whole, now_s);
        }
        _ if anchor_now => {
            (found.anchor_s, found.end_index) = (now_s, 1);
            billing::begin_period(world, &of.id, Base::Whole, now_s);
        }
        _ => {}
    }
}

/// `POST /v1/subscriptions/:id/migrate`
pub(super) fn migrate(
    world: &mut World,
    id: &str,
    mut params: Params,
    now_s: i64,
) -> Result<Value, ApiError> {
    let of = world.subscriptions.get(id).filter(|found| !found.status.is_over());
    let of = of.ok_or_else(|| ApiError::no_such("subscription", id))?;
    let mut mode = params.required_hash("billing_mode")?;
    mode.required_choice("type", &[("flexible", ())])?;
    mode.finish()?;
    let expand = subscriptions::expand(&mut params)?;
    params.finish()?;
    let legacy = |item: &Item| world.prices.get(&item.price).is_some_and(billing::is_legacy);
    if of.items.iter().any(legacy) {
        let message = "Flexible billing mode is not compatible with legacy usage-based billing.";
        return Err(ApiError::invalid("billing_mode", message));
    }
    if of.mode != BillingMode::Classic {
        let message = "The subscription is in flexible billing mode already.";
        return Err(ApiError::invalid("billing_mode", message));
    }
    if of.schedule.is_some() {
        return Err(ApiError::not_modelled("a migration of a subscription with a schedule"));
    }
    billing::change(world, id, now_s, |found| found.mode = BillingMode::Flexible { since_s: Some(now_s) });
    subscriptions::answer(world, id, &expand)
}

/// `POST /v1/subscriptions/:id/resume`
pub(super) fn resume(world: &mut World, id: &str, mut params: Params, now_s: i64) -> Result<Value, ApiError> {
    let of = world.subscriptions.get(id).ok_or_else(|| ApiError::no_such("subscription", id))?;
    let status = of.status;
    params.refuse_unmodelled(&["proration_date"])?;
    if anchor_now(&mut params)? == Some(false) {
        return Err(ApiError::not_modelled("billing_cycle_anchor[type]=unchanged"));
    }
    subscriptions::prorates(&mut params)?;
    subscriptions::payment_behavior(&mut params)?;
    let expand = subscriptions::expand(&mut params)?;
    params.finish()?;
    if status != Status::Paused {
        let message = "You can only resume a subscription whose status is paused.";
        return Err(ApiError::invalid_request(message));
    }
    world.invoices.ensure_room(1)?;
    billing::change_by(world, id, now_s, |world| {
        if let Some(found) = world.subscriptions.get_mut(id) {
            (found.anchor_s, found.end_index) = (now_s, 1);
            // What was used while it was paused is billed to nobody.
            for item in &mut found.items {
                item.usage_from_s = now_s;
            }
        }
        billing::begin_period(world, id, Base::Whole, now_s);
        Ok(())
    })?;
    billing::announce_subscription(world, id, "customer.subscription.resumed", None, now_s);
    subscriptions::answer(world, id, &expand)
}
