//! Subscription schedules: what a subscription becomes at the end of its periods.
//!
//! Owns the schedules of subscriptions that are there already, and the moves from phase to phase. It never decides when a
//! period ends: every phase ends with one, so that a move makes no proration.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::billing;
use super::calendar::{Cycle, Interval};
use super::catalog::{Era, merge_metadata};
use super::error::ApiError;
use super::form::{Metadata, Params, Range};
use super::subscriptions::{self, Prorates};
use super::webhooks::Subject;
use super::wire;
use super::world::{BillingMode, CancelAt, Ending, Identified, Item, Status, Subscription, World};

/// Most phases that a schedule has ahead, the current one among them.
const MAX_PHASES: usize = 10;
/// Most periods that one phase can last.
const MAX_PERIODS: u32 = 1_200;

/// One price of a phase.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PhaseItem {
    price: String,
    /// `None` for a metered price.
    quantity: Option<u64>,
    metadata: Metadata,
}

/// A stretch of time with the same items.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Phase {
    start_s: i64,
    end_s: i64,
    items: Vec<PhaseItem>,
    /// What the subscription's metadata takes over when the phase begins.
    metadata: Metadata,
    prorates: Prorates,
}

/// What becomes of the subscription after the last phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndBehavior {
    Release,
    Cancel,
}

/// How far a schedule has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Active,
    Completed { at_s: i64 },
    Released { at_s: i64 },
    Canceled { at_s: i64 },
}

impl Stage {
    /// Stripe's word for it.
    fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Completed { .. } => "completed",
            Self::Released { .. } => "released",
            Self::Canceled { .. } => "canceled",
        }
    }
}

/// A schedule.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    id: String,
    created_s: i64,
    customer: String,
    subscription: String,
    currency: String,
    mode: BillingMode,
    end_behavior: EndBehavior,
    metadata: Metadata,
    /// Those that are over, then the current one, then those to come.
    phases: Vec<Phase>,
    current: usize,
    stage: Stage,
}

impl Identified for Schedule {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Schedule {
    /// What a change of it locks besides itself.
    pub(super) fn objects(&self) -> [String; 2] {
        [self.subscription.clone(), self.customer.clone()]
    }

    fn current(&self) -> Option<&Phase> {
        self.phases.get(self.current)
    }

    fn ends_s(&self) -> Option<i64> {
        self.phases.last().map(|phase| phase.end_s)
    }

    /// Its JSON.
    pub(super) fn wire(&self, world: &World) -> Value {
        let of = world.subscriptions.get(&self.subscription);
        let (canceled_s, completed_s, released_s) = match self.stage {
            Stage::Active => (None, None, None),
            Stage::Canceled { at_s } => (Some(at_s), None, None),
            Stage::Completed { at_s } => (None, Some(at_s), None),
            Stage::Released { at_s } => (None, None, Some(at_s)),
        };
        let active = self.stage == Stage::Active;
        let current = self.current().filter(|_| active);
        let phases: Vec<Value> = self.phases.iter().map(|phase| self.wire_phase(phase)).collect();
        let method = of.and_then(|of| of.default_payment_method.clone());
        json!({
            "id": self.id,
            "object": "subscription_schedule",
            "application": null,
            "billing_mode": wire::billing_mode(of.map_or(self.mode, |of| of.mode)),
            "canceled_at": canceled_s,
            "completed_at": completed_s,
            "created": self.created_s,
            "current_phase": current.map(|phase| json!({ "end_date": phase.end_s, "start_date": phase.start_s })),
            "customer": self.customer,
            "customer_account": null,
            "default_settings": default_settings(method.as_deref()),
            "end_behavior": match self.end_behavior {
                EndBehavior::Release => "release",
                EndBehavior::Cancel => "cancel",
            },
            "livemode": false,
            "metadata": self.metadata,
            "phases": phases,
            "released_at": released_s,
            "released_subscription": released_s.map(|_| &self.subscription),
            "status": self.stage.as_str(),
            "subscription": active.then_some(&self.subscription),
            "test_clock": null,
        })
    }

    fn wire_phase(&self, phase: &Phase) -> Value {
        let items: Vec<Value> = phase.items.iter().map(wire_item).collect();
        json!({
            "add_invoice_items": [],
            "application_fee_percent": null,
            "billing_cycle_anchor": null,
            "billing_thresholds": null,
            "collection_method": null,
            "currency": self.currency,
            "default_payment_method": null,
            "default_tax_rates": [],
            "description": null,
            "discounts": [],
            "end_date": phase.end_s,
            "invoice_settings": null,
            "items": items,
            "metadata": phase.metadata,
            "on_behalf_of": null,
            "proration_behavior": phase.prorates.as_str(),
            "start_date": phase.start_s,
            "transfer_data": null,
            "trial_end": null,
        })
    }
}

fn wire_item(item: &PhaseItem) -> Value {
    let mut object = json!({
        "billing_thresholds": null,
        "discounts": [],
        "metadata": item.metadata,
        "plan": item.price,
        "price": item.price,
        "tax_rates": [],
    });
    // A metered item has no quantity at all, not a null one.
    if let (Some(quantity), Some(fields)) = (item.quantity, object.as_object_mut()) {
        fields.insert("quantity".to_owned(), json!(quantity));
    }
    object
}

fn default_settings(payment_method: Option<&str>) -> Value {
    json!({
        "application_fee_percent": null,
        "automatic_tax": { "disabled_reason": null, "enabled": false, "liability": null },
        "billing_cycle_anchor": "automatic",
        "billing_thresholds": null,
        "collection_method": "charge_automatically",
        "default_payment_method": payment_method,
        "description": null,
        "invoice_settings": {
            "account_tax_ids": null, "custom_fields": null, "days_until_due": null, "description": null,
            "footer": null, "issuer": { "type": "self" },
        },
        "on_behalf_of": null,
        "transfer_data": null,
    })
}

// ---- What time and changes of the subscription do ----

fn items_of(items: &[Item]) -> Vec<PhaseItem> {
    let items = items.iter().map(|item| PhaseItem {
        price: item.price.clone(),
        quantity: item.quantity,
        metadata: item.metadata.clone(),
    });
    items.collect()
}

/// The current phase is what the subscription is: a change of the subscription itself changes it.
pub(super) fn follow_items(world: &mut World, schedule: Option<&str>, items: &[Item], now_s: i64) {
    let Some(id) = schedule else { return };
    let before = wire_of(world, id);
    let Some(found) = world.schedules.get_mut(id) else { return };
    let current = found.current;
    if let Some(phase) = found.phases.get_mut(current) {
        phase.items = items_of(items);
    }
    announce_change(world, id, before, now_s);
}

/// What the move at the end of a phase came to.
#[derive(Debug)]
pub(super) struct Moved {
    schedule: String,
    completed: bool,
}

/// The schedule of a subscription as it is, to tell later what changed.
pub(super) fn snapshot(world: &World, of: &str) -> Option<Value> {
    wire_of(world, world.subscriptions.get(of)?.schedule.as_deref()?)
}

/// Moves a subscription on to the phase that begins now, or lets it go after the last one.
pub(super) fn move_on(world: &mut World, of: &str, at_s: i64) -> Option<Moved> {
    let id = world.subscriptions.get(of)?.schedule.clone()?;
    let found = world.schedules.get_mut(&id)?;
    if found.current()?.end_s > at_s {
        return None;
    }
    found.current += 1;
    let Some(phase) = found.current().cloned() else {
        found.stage = Stage::Completed { at_s };
        world.subscriptions.get_mut(of)?.schedule = None;
        return Some(Moved { schedule: id, completed: true });
    };
    enter(world, of, phase, at_s);
    Some(Moved { schedule: id, completed: false })
}

/// Gives a subscription the items of a phase. An item whose price stays is the same item.
fn enter(world: &mut World, of: &str, phase: Phase, at_s: i64) {
    let Some(old) = world.subscriptions.get(of).map(|found| found.items.clone()) else { return };
    let mut items = Vec::new();
    for item in phase.items {
        let same = old.iter().find(|old| old.price == item.price).cloned();
        let new = match same {
            Some(same) => Item { quantity: item.quantity, metadata: item.metadata, ..same },
            None => subscriptions::new_item(world, item.price, item.quantity, item.metadata, at_s),
        };
        items.push(new);
    }
    if let Some(found) = world.subscriptions.get_mut(of) {
        found.items = items;
        merge_metadata(&mut found.metadata, phase.metadata);
    }
}

/// Tells of a move.
pub(super) fn announce_move(world: &mut World, moved: Option<Moved>, before: Option<Value>, at_s: i64) {
    let Some(moved) = moved else { return };
    if moved.completed {
        announce(world, &moved.schedule, "subscription_schedule.completed", None, at_s);
    } else {
        announce_change(world, &moved.schedule, before, at_s);
    }
}

/// Ends the schedule of a subscription that has ended.
pub(super) fn end_with_subscription(world: &mut World, id: &str, reason: &str, at_s: i64) {
    let Some(found) = world.schedules.get_mut(id) else { return };
    let planned =
        found.end_behavior == EndBehavior::Cancel && found.ends_s().is_some_and(|end_s| end_s <= at_s);
    let (stage, kind) = match reason {
        _ if planned => (Stage::Completed { at_s }, "subscription_schedule.completed"),
        "payment_failed" => (Stage::Canceled { at_s }, "subscription_schedule.aborted"),
        _ => (Stage::Canceled { at_s }, "subscription_schedule.canceled"),
    };
    found.stage = stage;
    announce(world, id, kind, None, at_s);
}

fn wire_of(world: &World, id: &str) -> Option<Value> {
    world.schedules.get(id).map(|found| found.wire(world))
}

fn announce(world: &mut World, id: &str, kind: &'static str, previous: Option<Value>, at_s: i64) {
    let Some(object) = wire_of(world, id) else { return };
    let event = world.ids.next("evt");
    world.outbox.emit(event, Subject { kind, object, previous, invoice: None }, at_s);
}

/// Tells of what differs from before, if anything does.
fn announce_change(world: &mut World, id: &str, before: Option<Value>, at_s: i64) {
    let (Some(Value::Object(before)), Some(Value::Object(after))) = (before, wire_of(world, id)) else {
        return;
    };
    let previous: Map<String, Value> =
        before.into_iter().filter(|(name, value)| after.get(name) != Some(value)).collect();
    if !previous.is_empty() {
        announce(world, id, "subscription_schedule.updated", Some(Value::Object(previous)), at_s);
    }
}

// ---- Endpoints ----

const EXPANDABLE: &[&str] = &["subscription"];

fn answer(world: &World, id: &str, expand: &BTreeSet<String>) -> Result<Value, ApiError> {
    let found = world.schedules.get(id).ok_or_else(|| ApiError::no_such("subscription_schedule", id))?;
    let mut object = found.wire(world);
    let of = world.subscriptions.get(&found.subscription).filter(|_| found.stage == Stage::Active);
    if let (true, Some(of), Some(fields)) = (expand.contains("subscription"), of, object.as_object_mut()) {
        fields.insert("subscription".to_owned(), wire::subscription(world, of, &BTreeSet::new()));
    }
    Ok(object)
}

/// `POST /v1/subscription_schedules`
pub(super) fn create(world: &mut World, mut params: Params, now_s: i64) -> Result<Value, ApiError> {
    let Some(of) = params.text("from_subscription")? else {
        return Err(ApiError::not_modelled("a subscription schedule without from_subscription"));
    };
    let expand = params.expand(EXPANDABLE)?;
    if let Some(name) = params.nodes().keys().next() {
        let message = format!("You cannot set `{name}` if `from_subscription` is set.");
        return Err(ApiError::exclusive(name, message));
    }
    let found = world.subscriptions.get(&of).cloned();
    let of = found.ok_or_else(|| ApiError::no_such_for("from_subscription", "subscription", &of))?;
    can_be_scheduled(&of)?;
    let phase = Phase {
        start_s: of.period_start_s,
        end_s: of.period_end_s,
        items: items_of(&of.items),
        metadata: Metadata::new(),
        prorates: Prorates::Later,
    };
    let schedule = Schedule {
        id: world.ids.next("sub_sched"),
        created_s: now_s,
        customer: of.customer.clone(),
        subscription: of.id.clone(),
        currency: of.currency.clone(),
        mode: of.mode,
        end_behavior: EndBehavior::Release,
        metadata: Metadata::new(),
        phases: vec![phase],
        current: 0,
        stage: Stage::Active,
    };
    let id = schedule.id.clone();
    world.schedules.insert(schedule)?;
    billing::change(world, &of.id, now_s, |found| found.schedule = Some(id.clone()));
    announce(world, &id, "subscription_schedule.created", None, now_s);
    answer(world, &id, &expand)
}

fn can_be_scheduled(of: &Subscription) -> Result<(), ApiError> {
    if let Some(schedule) = &of.schedule {
        let message = format!(
            "You cannot migrate a subscription that is already attached to a schedule: `{schedule}`."
        );
        return Err(ApiError::invalid("from_subscription", message));
    }
    match of.status {
        Status::Canceled | Status::IncompleteExpired | Status::Incomplete => {
            let message =
                format!("You cannot migrate a subscription that is in the `{}` status.", of.status.as_str());
            return Err(ApiError::invalid("from_subscription", message));
        }
        Status::Trialing | Status::Paused => {
            return Err(ApiError::not_modelled("a schedule for a trial or a paused subscription"));
        }
        Status::Active | Status::PastDue | Status::Unpaid => {}
    }
    if of.ending.is_some() {
        return Err(ApiError::not_modelled("a schedule for a subscription that is set to end"));
    }
    Ok(())
}

/// `GET /v1/subscription_schedules/:id`
pub(super) fn retrieve(world: &World, id: &str, mut params: Params) -> Result<Value, ApiError> {
    let expand = params.expand(EXPANDABLE)?;
    params.finish()?;
    answer(world, id, &expand)
}

/// `GET /v1/subscription_schedules`
pub(super) fn list(world: &World, mut params: Params) -> Result<Value, ApiError> {
    let customer = params.text("customer")?;
    let scheduled = params.boolean("scheduled")?;
    let created = Range::of(&mut params, "created")?;
    let page = params.page()?;
    params.expand(&[])?;
    params.finish()?;
    let (found, more) = world.schedules.page(&page, |schedule| {
        // Those from a subscription have always begun.
        scheduled != Some(true)
            && created.contains(schedule.created_s)
            && customer.as_ref().is_none_or(|customer| schedule.customer == *customer)
    })?;
    let data: Vec<Value> = found.into_iter().map(|found| found.wire(world)).collect();
    Ok(wire::list("/v1/subscription_schedules", &data, more))
}

/// A schedule that goes on, and its subscription.
fn active(world: &World, id: &str, verb: &str) -> Result<(Schedule, Subscription), ApiError> {
    let found = world.schedules.get(id).ok_or_else(|| ApiError::no_such("subscription_schedule", id))?;
    let of = world.subscriptions.get(&found.subscription).filter(|_| found.stage == Stage::Active);
    let of = of.ok_or_else(|| {
        let status = found.stage.as_str();
        ApiError::invalid_request(format!(
            "You cannot {verb} a subscription schedule that is currently in the `{status}` status. It must be in \
             `not_started` or `active` status."
        ))
    })?;
    Ok((found.clone(), of.clone()))
}

/// `POST /v1/subscription_schedules/:id`
pub(super) fn update(world: &mut World, id: &str, mut params: Params, now_s: i64) -> Result<Value, ApiError> {
    let (schedule, of) = active(world, id, "update")?;
    // It is for changes of the current phase's items, which are not modelled.
    subscriptions::prorates(&mut params)?;
    let choices = [
        ("release", Some(EndBehavior::Release)),
        ("cancel", Some(EndBehavior::Cancel)),
        ("none", None),
        ("renew", None),
    ];
    let end_behavior = match params.choice("end_behavior", &choices)? {
        Some(None) => return Err(ApiError::not_modelled("end_behavior")),
        wanted => wanted.flatten().unwrap_or(schedule.end_behavior),
    };
    let phases =
        if params.has("phases") { Some(phases(world, &schedule, &of, &mut params, now_s)?) } else { None };
    let metadata = params.metadata()?;
    let expand = params.expand(EXPANDABLE)?;
    params.finish()?;
    let before = wire_of(world, id);
    let found = world.schedules.get_mut(id).ok_or_else(|| ApiError::server(500))?;
    if let Some(phases) = phases {
        found.phases.truncate(found.current);
        found.phases.extend(phases);
    }
    merge_metadata(&mut found.metadata, metadata);
    found.end_behavior = end_behavior;
    let ends_s = found.ends_s().filter(|_| end_behavior == EndBehavior::Cancel);
    billing::change(world, &of.id, now_s, |found| set_end(found, ends_s, now_s));
    announce_change(world, id, before, now_s);
    answer(world, id, &expand)
}

/// Lets a subscription end when its schedule says so; `None`: not at all.
fn set_end(of: &mut Subscription, ends_s: Option<i64>, now_s: i64) {
    let asked_s = of.ending.map_or(now_s, |ending| ending.asked_s);
    of.ending = ends_s.map(|at_s| Ending { at: CancelAt::Time(at_s), asked_s });
    of.canceled_s = of.ending.map(|ending| ending.asked_s);
}

/// The current phase and those to come, each from the end of the one before it.
fn phases(
    world: &World,
    schedule: &Schedule,
    of: &Subscription,
    params: &mut Params,
    now_s: i64,
) -> Result<Vec<Phase>, ApiError> {
    let current = schedule.current().ok_or_else(|| ApiError::server(500))?;
    let hashes = params.hashes("phases")?;
    if hashes.is_empty() {
        return Err(ApiError::missing("phases"));
    }
    if hashes.len() > MAX_PHASES {
        let message = format!("A schedule can have up to {MAX_PHASES} current and future phases.");
        return Err(ApiError::invalid("phases", message));
    }
    let mut phases: Vec<Phase> = Vec::new();
    for mut hash in hashes {
        let start_s = start(&mut hash, current.start_s, phases.last())?;
        let end_s = end(&mut hash, of, start_s, now_s)?;
        let kept: &[PhaseItem] = if phases.is_empty() { &current.items } else { &[] };
        let items = items(world, of, &mut hash, kept)?;
        if phases.is_empty() && !same_items(&items, &current.items) {
            return Err(ApiError::not_modelled("a change of the current phase's items"));
        }
        if hash.choice("billing_cycle_anchor", &[("automatic", true), ("phase_start", false)])? == Some(false)
        {
            return Err(ApiError::not_modelled("billing_cycle_anchor=phase_start"));
        }
        let metadata = hash.metadata()?;
        let prorates = subscriptions::prorates(&mut hash)?;
        hash.finish()?;
        phases.push(Phase { start_s, end_s, items, metadata, prorates });
    }
    Ok(phases)
}

fn same_items(one: &[PhaseItem], other: &[PhaseItem]) -> bool {
    let key = |items: &[PhaseItem]| -> BTreeSet<(String, Option<u64>)> {
        items.iter().map(|item| (item.price.clone(), item.quantity)).collect()
    };
    key(one) == key(other)
}

/// When a phase starts: the first one given is the current one, every other one follows the one before it.
fn start(hash: &mut Params, current_s: i64, before: Option<&Phase>) -> Result<i64, ApiError> {
    let name = hash.name("start_date");
    let given = hash.text("start_date")?;
    let given_s = match given.as_deref() {
        None | Some("now") => None,
        Some(text) => Some(text.parse().map_err(|_| ApiError::not_an_integer(&name, text))?),
    };
    match before {
        None if given.is_none() => Err(ApiError::invalid_request(
            "The subscription schedule update is missing at least one phase with a `start_date` to anchor end dates to.",
        )),
        None if given_s == Some(current_s) => Ok(current_s),
        None => Err(ApiError::invalid(&name, "You can not modify the start date of the current phase.")),
        Some(before) if given.is_none() || given_s == Some(before.end_s) => Ok(before.end_s),
        Some(_) => Err(ApiError::invalid(
            &name,
            "The start_date of a phase must be the end_date of the phase before it.",
        )),
    }
}

/// When a phase ends: at a date, after a duration, or after one period. It must be the end of a period.
fn end(hash: &mut Params, of: &Subscription, start_s: i64, now_s: i64) -> Result<i64, ApiError> {
    let name = hash.name("end_date");
    let end = hash.text("end_date")?;
    let duration = duration(hash)?;
    let boundary = |index| of.cycle.boundary(of.anchor_s, index);
    let mut boundaries =
        (1..=of.end_index.saturating_add(MAX_PERIODS)).map_while(boundary).filter(|end_s| *end_s > start_s);
    let end_s = match (end.as_deref(), duration) {
        (Some(_), Some(_)) => {
            let message = "You may only specify one of these parameters: duration, end_date.";
            return Err(ApiError::exclusive(&name, message));
        }
        (Some("now"), None) => return Err(ApiError::not_modelled(&name)),
        (Some(text), None) => text.parse().map_err(|_| ApiError::not_an_integer(&name, text))?,
        (None, None) => return boundaries.next().ok_or_else(|| too_far(&name)),
        (None, Some(Cycle { interval, count }))
            if interval == of.cycle.interval && count % of.cycle.count == 0 =>
        {
            // Whole periods are counted by the subscription's own boundaries.
            let periods = usize::try_from(count / of.cycle.count).unwrap_or(usize::MAX);
            return boundaries.nth(periods.saturating_sub(1)).ok_or_else(|| too_far(&name));
        }
        (None, Some(cycle)) => cycle.boundary(start_s, 1).ok_or_else(|| too_far(&name))?,
    };
    if end_s <= start_s {
        return Err(ApiError::invalid(&name, "The end_date of a phase must be after its start_date."));
    }
    if end_s <= now_s {
        return Err(ApiError::invalid(&name, "The end_date of a phase must be in the future."));
    }
    if boundaries.any(|boundary_s| boundary_s == end_s) {
        Ok(end_s)
    } else {
        Err(ApiError::not_modelled("a phase that ends within a period"))
    }
}

fn too_far(name: &str) -> ApiError {
    ApiError::invalid(name, "The phase ends too far in the future.")
}

fn duration(hash: &mut Params) -> Result<Option<Cycle>, ApiError> {
    let Some(mut duration) = hash.hash("duration")? else { return Ok(None) };
    let intervals = [
        ("day", Interval::Day),
        ("week", Interval::Week),
        ("month", Interval::Month),
        ("year", Interval::Year),
    ];
    let interval = duration.required_choice("interval", &intervals)?;
    let name = duration.name("interval_count");
    let count = duration.natural("interval_count")?.unwrap_or(1);
    duration.finish()?;
    let count = u32::try_from(count).ok().filter(|count| *count > 0);
    let count =
        count.ok_or_else(|| ApiError::invalid(&name, "This value must be greater than or equal to 1."))?;
    Ok(Some(Cycle { interval, count }))
}

/// The prices of a phase. One from before there were meters can stay in the current phase, and begin in none.
fn items(
    world: &World,
    of: &Subscription,
    hash: &mut Params,
    kept: &[PhaseItem],
) -> Result<Vec<PhaseItem>, ApiError> {
    let list = hash.name("items");
    let mut items: Vec<PhaseItem> = Vec::new();
    for mut item in hash.hashes("items")? {
        let (name, quantity_name) = (item.name("price"), item.name("quantity"));
        let price = item.required("price")?;
        let stays = kept.iter().any(|kept| kept.price == price) && !world.refuses_legacy_phases;
        let era = if stays { Era::BeforeMeters } else { Era::Now };
        let found = subscriptions::price_of(world, &name, &price, era)?;
        let quantity = subscriptions::quantity_of(found, &quantity_name, item.natural("quantity")?, 1)?;
        let mut metadata = Metadata::new();
        merge_metadata(&mut metadata, item.metadata()?);
        item.finish()?;
        items.push(PhaseItem { price, quantity, metadata });
    }
    if items.is_empty() {
        return Err(ApiError::missing(&list));
    }
    let prices: Vec<&str> = items.iter().map(|item| item.price.as_str()).collect();
    let (currency, cycle) = subscriptions::terms(world, &prices)?;
    if currency != of.currency {
        return Err(ApiError::invalid(&list, "The prices of a subscription must all have its currency."));
    }
    if cycle != of.cycle {
        return Err(ApiError::not_modelled("items with another interval"));
    }
    Ok(items)
}

/// `POST /v1/subscription_schedules/:id/release`
pub(super) fn release(
    world: &mut World,
    id: &str,
    mut params: Params,
    now_s: i64,
) -> Result<Value, ApiError> {
    let keeps_end = params.boolean("preserve_cancel_date")?.unwrap_or(false);
    let expand = params.expand(EXPANDABLE)?;
    params.finish()?;
    let (_, of) = active(world, id, "release")?;
    let before = wire_of(world, id);
    if let Some(found) = world.schedules.get_mut(id) {
        found.stage = Stage::Released { at_s: now_s };
    }
    billing::change(world, &of.id, now_s, |found| {
        found.schedule = None;
        if !keeps_end {
            set_end(found, None, now_s);
        }
    });
    announce_change(world, id, before, now_s);
    announce(world, id, "subscription_schedule.released", None, now_s);
    answer(world, id, &expand)
}

/// `POST /v1/subscription_schedules/:id/cancel`: the subscription ends with it, at once.
pub(super) fn cancel(world: &mut World, id: &str, mut params: Params, now_s: i64) -> Result<Value, ApiError> {
    let invoice_now = params.boolean("invoice_now")?.unwrap_or(true);
    let prorate = params.boolean("prorate")?.unwrap_or(true);
    let expand = params.expand(EXPANDABLE)?;
    params.finish()?;
    let (_, of) = active(world, id, "cancel")?;
    subscriptions::stop(world, &of, invoice_now, prorate, now_s)?;
    answer(world, id, &expand)
}
