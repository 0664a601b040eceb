//! Meter events and their summaries.
//!
//! Owns what is counted: which events are taken, how long their identifiers are remembered, and how they sum. An event
//! for a customer that does not exist is taken and never counted, as the real API does it; it shows only among the
//! asynchronous rejections.

use serde_json::Value;

use super::calendar::{DAY_S, HOUR_S};
use super::error::ApiError;
use super::form::Params;
use super::world::{Event, Meter, Rejected, World, paginate};
use super::{billing, wire};

/// Longest identifier, in characters.
const MAX_IDENTIFIER_CHARS: usize = 100;
/// How far back an event's timestamp may lie, in seconds.
const MAX_AGE_S: i64 = 35 * DAY_S;
/// How far ahead an event's timestamp may lie, in seconds.
const MAX_AHEAD_S: i64 = 300;
/// How long an identifier is remembered, in seconds.
const IDENTIFIER_MEMORY_S: i64 = DAY_S;
/// Most digits of a value.
const MAX_VALUE_DIGITS: usize = 15;
/// Most that one customer can use on one meter: keeps every sum and every line within 64 bits.
const MAX_USAGE: u64 = 1_000_000_000_000_000;
/// Most events of the account.
const MAX_EVENTS: usize = 1_000_000;
/// Most buckets of one query of summaries.
const MAX_BUCKETS: i64 = 10_000;

/// A meter event that is well formed.
#[derive(Clone, Debug)]
pub(super) struct Proposed {
    pub(super) meter: Meter,
    pub(super) customer: String,
    value: u64,
    identifier: Option<String>,
    timestamp_s: Option<i64>,
}

/// Reads the parameters of `POST /v1/billing/meter_events`.
pub(super) fn propose(world: &World, mut params: Params) -> Result<Proposed, ApiError> {
    let event_name = params.required("event_name")?;
    let identifier = params.text("identifier")?;
    let timestamp_s = params.integer("timestamp")?;
    let mut payload = params.free_hash("payload")?.ok_or_else(|| ApiError::missing("payload"))?;
    params.expand(&[])?;
    params.finish()?;
    if identifier.as_ref().is_some_and(|identifier| identifier.chars().count() > MAX_IDENTIFIER_CHARS) {
        let message = format!("identifier can have up to {MAX_IDENTIFIER_CHARS} characters.");
        return Err(ApiError::invalid("identifier", message));
    }
    let named = |meter: &&Meter| meter.event_name == event_name && meter.inactive_s.is_none();
    let meter = world.meters.iter().find(named).cloned();
    let meter = meter.ok_or_else(|| {
        let message = format!("No active meter found for event name {event_name}.");
        ApiError::invalid("event_name", message)
    })?;
    let mut field = |key: &str| {
        let name = format!("payload[{key}]");
        let value = payload.remove(key).ok_or_else(|| ApiError::missing(&name))?;
        if value.is_empty() { Err(ApiError::empty(&name)) } else { Ok(value) }
    };
    let customer = field(&meter.customer_key)?;
    let text = field(&meter.value_key)?;
    let value = text
        .parse()
        .ok()
        .filter(|_| text.len() <= MAX_VALUE_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit()));
    let value = value.ok_or_else(|| {
        let name = format!("payload[{}]", meter.value_key);
        ApiError::invalid(&name, format!("Invalid value: {text} must be a whole number of up to 15 digits."))
    })?;
    // Further keys are dimensions, which need a meter that defines them.
    if let Some(key) = payload.keys().next() {
        return Err(ApiError::not_modelled(&format!("payload[{key}]")));
    }
    Ok(Proposed { meter, customer, value, identifier, timestamp_s })
}

/// Takes an event, or says why not.
pub(super) fn accept(world: &mut World, proposed: Proposed, now_s: i64) -> Result<Value, ApiError> {
    let Proposed { meter, customer, value, identifier, timestamp_s } = proposed;
    let timestamp_s = timestamp_s.unwrap_or(now_s);
    if timestamp_s < now_s.saturating_sub(MAX_AGE_S) {
        return Err(ApiError::invalid("timestamp", "Timestamp must be within the past 35 calendar days."));
    }
    if timestamp_s > now_s.saturating_add(MAX_AHEAD_S) {
        return Err(ApiError::invalid(
            "timestamp",
            "Timestamp must be no more than 5 minutes in the future.",
        ));
    }
    forget_identifiers(world, now_s);
    let identifier = identifier.unwrap_or_else(|| world.ids.next("identifier"));
    if world.identifiers.contains_key(&identifier) {
        return Err(ApiError::duplicate_event(&identifier));
    }
    if world.counted_len.saturating_add(world.rejected.len()) >= MAX_EVENTS {
        return Err(ApiError::full("meter events"));
    }
    let key = (meter.id.clone(), customer.clone());
    let used = world.counted.get(&key).map_or(0, |counted| counted.total);
    if used.saturating_add(value) > MAX_USAGE {
        return Err(ApiError::full("tokens of one customer"));
    }
    world.identifiers.insert(identifier.clone(), now_s);
    world.identifier_order.push_back((now_s, identifier.clone()));
    let event = Event { identifier, customer, value, timestamp_s, accepted_s: now_s };
    let answer = wire::meter_event(&event, &meter);
    if world.customers.get(&event.customer).is_none() {
        let code = "meter_event_customer_not_found";
        reject(world, meter.id, event, code, now_s);
    } else {
        world.counted_len += 1;
        let counted = world.counted.entry(key).or_default();
        counted.total += event.value;
        counted.events.push(event);
    }
    Ok(answer)
}

fn reject(world: &mut World, meter: String, event: Event, code: &'static str, now_s: i64) {
    world.rejected.push(Rejected { meter, event, code, at_s: now_s, told: false });
    world.next_due_s = None;
}

/// Refuses an event that was taken and counted, as if it had been found wrong only now. Whether there is such an event.
pub(super) fn reject_counted(world: &mut World, identifier: &str, code: &'static str, now_s: i64) -> bool {
    let found = world.counted.iter_mut().find_map(|((meter, _), counted)| {
        let at = counted.events.iter().position(|event| event.identifier == identifier)?;
        let event = counted.events.remove(at);
        counted.total -= event.value;
        Some((meter.clone(), event))
    });
    let Some((meter, event)) = found else { return false };
    world.counted_len -= 1;
    reject(world, meter, event, code, now_s);
    true
}

/// `POST /v1/billing/meters/:id/deactivate` and `/reactivate`
pub(super) fn set_meter_active(
    world: &mut World,
    id: &str,
    mut params: Params,
    active: bool,
    now_s: i64,
) -> Result<Value, ApiError> {
    params.expand(&[])?;
    params.finish()?;
    let meter = world.meters.get(id).ok_or_else(|| ApiError::no_such("billing meter", id))?;
    if meter.inactive_s.is_none() == active {
        let message = if active { "The meter is already active." } else { "The meter is already inactive." };
        return Err(ApiError::invalid_request(message));
    }
    let same_name = |other: &Meter| other.event_name == meter.event_name && other.inactive_s.is_none();
    if active && world.meters.iter().any(same_name) {
        let message = format!("An active meter already exists with event name {}.", meter.event_name);
        return Err(ApiError::invalid_request(message));
    }
    let meter = world.meters.get_mut(id).ok_or_else(|| ApiError::no_such("billing meter", id))?;
    meter.inactive_s = (!active).then_some(now_s);
    Ok(wire::meter(meter))
}

fn forget_identifiers(world: &mut World, now_s: i64) {
    while let Some((taken_s, _)) = world.identifier_order.front() {
        if now_s.saturating_sub(*taken_s) < IDENTIFIER_MEMORY_S {
            return;
        }
        if let Some((_, identifier)) = world.identifier_order.pop_front() {
            world.identifiers.remove(&identifier);
        }
    }
}

impl World {
    /// What a meter counted for a customer, for events from `start_s` until before `end_s`.
    pub(super) fn usage(&self, meter: &str, customer: &str, start_s: i64, end_s: i64) -> u64 {
        let key = (meter.to_owned(), customer.to_owned());
        let events = self.counted.get(&key).into_iter().flat_map(|counted| &counted.events);
        events.filter(|event| (start_s..end_s).contains(&event.timestamp_s)).map(|event| event.value).sum()
    }
}

/// Notes usage for an item whose price has no meter. Whether there is such an item, and room.
pub(super) fn record(world: &mut World, item: &str, quantity: u64, now_s: i64) -> bool {
    let alive = world.subscriptions.iter().filter(|found| !found.status.is_over());
    let found = alive.flat_map(|found| &found.items).find(|found| found.id == item);
    let legacy = found.and_then(|found| world.prices.get(&found.price)).is_some_and(billing::is_legacy);
    let used: u64 = world.records.get(item).into_iter().flatten().map(|(_, quantity)| quantity).sum();
    let fits = used.checked_add(quantity).is_some_and(|sum| sum <= MAX_USAGE);
    if !legacy || !fits || world.records_len >= MAX_EVENTS {
        return false;
    }
    world.records_len += 1;
    world.records.entry(item.to_owned()).or_default().push((now_s, quantity));
    true
}

/// `GET /v1/billing/meters/:id/event_summaries`
pub(super) fn summaries(world: &World, id: &str, mut params: Params, now_s: i64) -> Result<Value, ApiError> {
    let meter = world.meters.get(id).ok_or_else(|| ApiError::no_such("billing meter", id))?;
    let customer = params.required("customer")?;
    let start_s = params.required_integer("start_time")?;
    let end_s = params.required_integer("end_time")?;
    let window_s = params.choice("value_grouping_window", &[("hour", HOUR_S), ("day", DAY_S)])?;
    let page = params.page()?;
    params.expand(&[])?;
    params.finish()?;
    if world.customers.get(&customer).is_none() {
        return Err(ApiError::no_such_for("customer", "customer", &customer));
    }
    let (alignment_s, unit) = match window_s {
        None => (60, "minute"),
        Some(HOUR_S) => (HOUR_S, "hour"),
        Some(_) => (DAY_S, "UTC day"),
    };
    for (name, at_s) in [("start_time", start_s), ("end_time", end_s)] {
        if at_s < 0 || at_s % alignment_s != 0 {
            return Err(ApiError::invalid(name, format!("{name} must be aligned with {unit} boundaries.")));
        }
    }
    if start_s >= end_s {
        return Err(ApiError::invalid("end_time", "end_time must be after start_time."));
    }
    let width_s = window_s.unwrap_or(end_s - start_s);
    if (end_s - start_s) / width_s > MAX_BUCKETS {
        return Err(ApiError::invalid("end_time", "The time range has too many windows."));
    }
    let key = (meter.id.clone(), customer.clone());
    let shown = world.counted.get(&key).into_iter().flat_map(|counted| &counted.events);
    let shown: Vec<&Event> =
        shown.filter(|event| event.accepted_s.saturating_add(world.summary_lag_s) <= now_s).collect();
    let mut found = Vec::new();
    let mut bucket_s = end_s - width_s;
    while bucket_s >= start_s {
        let within = bucket_s..bucket_s + width_s;
        let mut events = shown.iter().filter(|event| within.contains(&event.timestamp_s)).peekable();
        if events.peek().is_some() {
            let value = events.map(|event| event.value).sum();
            let id = format!("mtrusg_{}_{}_{}_{}", meter.id, customer, within.start, within.end);
            let summary = wire::summary(&id, &meter.id, within.start, within.end, value);
            found.push((id, summary));
        }
        bucket_s -= width_s;
    }
    let (found, more) = paginate(found, &page, |(id, _)| id, "billing meter event summary")?;
    let data: Vec<Value> = found.into_iter().map(|(_, summary)| summary).collect();
    Ok(wire::list(&format!("/v1/billing/meters/{id}/event_summaries"), &data, more))
}
