//! Stripe, strict: meter events with identifiers that it forgets after a day, summaries that lag, subscriptions.

use crate::simulation::{
    bugs::Bug,
    scenario::{HOUR_MS, Mishap},
    world::{Process, Step, World},
};
use domain::{Period, Report, Timestamp};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    sync::Arc,
    time::Duration,
};
use stripe::{
    Secret, Settings, Stripe,
    testing::{Memory, Reply, Request},
};
use tokio::time::sleep;

/// How long an identifier is remembered, in milliseconds.
const REMEMBERED_MS: u64 = 24 * HOUR_MS;
/// How much later than it was given up an event may be counted, in milliseconds.
const LATE_MS_MAX: u64 = HOUR_MS;
const PAST_S_MAX: u64 = 35 * 24 * 3_600;
const FUTURE_S_MAX: u64 = 5 * 60;
const IDENTIFIER_CHARS_MAX: usize = 100;
pub(crate) const EVENT_NAME: &str = "tokens";
pub(crate) const METER: &str = "mtr_1";

#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) identifier: String,
    pub(crate) customer: String,
    pub(crate) tokens: u64,
    pub(crate) timestamp_s: u64,
    counted_at_ms: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    pub(crate) user: String,
    pub(crate) customer: String,
    pub(crate) anchor: Timestamp,
    pub(crate) ended: Option<Timestamp>,
}

/// What Stripe knows.
#[derive(Debug, Default)]
pub(crate) struct Books {
    /// Every event that was counted.
    pub(crate) counted: Vec<Event>,
    pub(crate) subscriptions: BTreeMap<String, Subscription>,
    /// When an identifier was taken last.
    taken_at_ms: BTreeMap<String, u64>,
    /// Identifiers that are refused for good.
    pub(crate) refused: BTreeSet<String>,
    /// Customers of whom a call is under way.
    busy: BTreeSet<String>,
    keys: BTreeSet<String>,
    /// How often an identifier was sent.
    sends: BTreeMap<String, u64>,
}

/// Stripe as a process reaches it.
pub(crate) fn reached_by(world: &Arc<World>, process: &Arc<Process>) -> Stripe {
    let (world, process) = (Arc::clone(world), Arc::clone(process));
    let memory = Memory::new(move |request| answer(Arc::clone(&world), Arc::clone(&process), request));
    let settings = Settings { base_url: None, secret_key: Secret::new("sk_test_x") };
    Stripe::new(settings).unwrap().in_memory(memory)
}

fn no(status: u16, message: &str) -> Reply {
    let body = json!({"error": {"type": "invalid_request_error", "message": message}});
    Reply::Answer(status, body.to_string())
}

async fn answer(world: Arc<World>, process: Arc<Process>, request: Request) -> Reply {
    let effect = match request.path.as_str() {
        "/v1/billing/meter_events" => "send to Stripe",
        "/v1/billing/meters/mtr_1/event_summaries" => "ask Stripe's count",
        "/v1/invoices" => "ask Stripe's invoices",
        _ => "ask Stripe's subscription",
    };
    let step = world.step(&process, effect).await;
    let reply = if world.stripe_is_down() {
        world.saw("stripe: down");
        Reply::Cut
    } else if effect == "send to Stripe" {
        send(&world, request).await
    } else if world.happens(Mishap::StripeBusy) {
        no(429, "Too many requests")
    } else if world.happens(Mishap::StripeLostBefore) {
        Reply::Hang
    } else if effect == "ask Stripe's count" {
        count(&world, &request)
    } else if effect == "ask Stripe's invoices" {
        invoices(&request)
    } else if request.path == "/v1/subscriptions" {
        subscriptions_of(&world, &request.query["customer"])
    } else {
        subscription(&world, request.path.rsplit('/').next().unwrap())
    };
    if matches!(step, Step::DiesAfter) {
        pending::<()>().await;
    }
    world.travel().await;
    reply
}

async fn send(world: &Arc<World>, request: Request) -> Reply {
    let key = request.headers.get("idempotency-key").cloned().unwrap_or_default();
    let mut event = match read(world, &request) {
        Ok(event) => event,
        Err(wrong) => return no(400, wrong),
    };
    let sends = world.with(|inner| {
        if !inner.stripe.keys.insert(key) {
            inner.violations.push("an idempotency key was used twice".into());
        }
        let sends = inner.stripe.sends.entry(event.identifier.clone()).or_default();
        *sends += 1;
        *sends
    });
    match world.bug {
        Some(Bug::NewIdentifier) if sends > 1 => event.identifier = format!("{}-{sends}", event.identifier),
        Some(Bug::RowTimedBySend) => event.timestamp_s = world.now().s(),
        _ => {}
    }
    if !world.with(|inner| inner.stripe.busy.insert(event.customer.clone())) {
        world.saw("stripe: another call of this customer was under way");
        return no(429, "lock_timeout");
    }
    let customer = event.customer.clone();
    world.travel().await;
    let reply = take(world, event, sends);
    world.with(|inner| inner.stripe.busy.remove(&customer));
    reply
}

/// An event as Stripe would take it.
fn read(world: &World, request: &Request) -> Result<Event, &'static str> {
    let field = |name: &str| request.form.get(name).map(String::as_str).unwrap_or_default();
    let number = |name: &str| field(name).parse::<u64>();
    let now_s = world.now().s();
    let tokens = number("payload[value]").map_err(|_| "no value")?;
    let timestamp_s = number("timestamp").map_err(|_| "no timestamp")?;
    let (identifier, customer) = (field("identifier"), field("payload[stripe_customer_id]"));
    let known = world.with(|inner| inner.stripe.subscriptions.values().any(|s| s.customer == customer));
    if field("event_name") != EVENT_NAME || tokens == 0 || identifier.is_empty() {
        return Err("not an event");
    }
    if identifier.len() > IDENTIFIER_CHARS_MAX || !known {
        return Err("identifier too long, or no such customer");
    }
    if timestamp_s + PAST_S_MAX < now_s || timestamp_s > now_s + FUTURE_S_MAX {
        return Err("the timestamp is too far in the past or the future");
    }
    let (identifier, customer) = (identifier.into(), customer.into());
    Ok(Event { identifier, customer, tokens, timestamp_s, counted_at_ms: 0 })
}

/// Counts an event, or not, and says so, or not.
fn take(world: &Arc<World>, event: Event, sends: u64) -> Reply {
    if sends == 1 && world.happens(Mishap::StripeRefuses) {
        world.with(|inner| inner.stripe.refused.insert(event.identifier.clone()));
    }
    if world.with(|inner| inner.stripe.refused.contains(&event.identifier)) {
        return no(400, "this event cannot be taken");
    }
    if world.happens(Mishap::StripeBusy) {
        return no(if sends.is_multiple_of(2) { 409 } else { 429 }, "try again");
    }
    if world.happens(Mishap::StripeErrsBefore) {
        return no(500, "something went wrong");
    }
    if world.happens(Mishap::StripeLostBefore) {
        return Reply::Hang;
    }
    if world.happens(Mishap::StripeLate) {
        let late = Arc::clone(world);
        let after_ms = world.with(|inner| inner.dice.below(LATE_MS_MAX));
        #[expect(clippy::disallowed_methods, reason = "an event on its way; it ends with the simulation")]
        tokio::spawn(async move {
            sleep(Duration::from_millis(after_ms)).await;
            late.trace(|| format!("late: Stripe takes {}", event.identifier));
            count_in(&late, event);
        });
        return Reply::Hang;
    }
    let identifier = event.identifier.clone();
    if !count_in(world, event) {
        if world.bug == Some(Bug::DuplicateIsRefusal) {
            return no(400, "this event cannot be taken");
        }
        return no(400, &format!("An event already exists with identifier {identifier}."));
    }
    if world.happens(Mishap::StripeErrsAfter) {
        no(500, "something went wrong")
    } else if world.happens(Mishap::StripeLostAfter) {
        Reply::Cut
    } else {
        let event = json!({"object": "billing.meter_event", "created": 1, "event_name": EVENT_NAME,
            "identifier": identifier, "livemode": false, "payload": {}, "timestamp": 1});
        Reply::Answer(200, event.to_string())
    }
}

/// Stripe says that an event that it had taken does not count.
pub(crate) fn reject(world: &World, identifier: &str) {
    world.with(|inner| {
        inner.stripe.counted.retain(|event| event.identifier != identifier);
        inner.stripe.refused.insert(identifier.to_owned());
    });
}

/// Stripe has counted this before anybody here knew of it.
pub(crate) fn counted_before(world: &World, report: &Report) {
    let event = Event {
        identifier: report.identifier.clone(),
        customer: report.customer.to_string(),
        tokens: report.tokens.get(),
        timestamp_s: report.timestamp.s(),
        counted_at_ms: 0,
    };
    world.with(|inner| inner.stripe.counted.push(event));
}

/// Counts an event unless its identifier is remembered.
fn count_in(world: &World, event: Event) -> bool {
    let ms = world.ms();
    let identifier = event.identifier.clone();
    let before = world.with(|inner| {
        let books = &mut inner.stripe;
        let before = books.taken_at_ms.get(&identifier).copied();
        if before.is_none_or(|at| at + REMEMBERED_MS <= ms) {
            books.taken_at_ms.insert(identifier.clone(), ms);
            books.counted.push(Event { counted_at_ms: ms, ..event });
        }
        before
    });
    match before {
        None => true,
        Some(at) if at + REMEMBERED_MS <= ms => {
            world.violated(format!("F9: {identifier} was counted twice: Stripe had forgotten it"));
            true
        }
        Some(_) => {
            world.saw("stripe: an event existed already");
            false
        }
    }
}

fn count(world: &World, request: &Request) -> Reply {
    let bound = |name: &str| request.query[name].parse::<u64>().unwrap();
    let (start, end) = (bound("start_time"), bound("end_time"));
    if !start.is_multiple_of(60) || !end.is_multiple_of(60) || start >= end {
        return no(400, "bounds must be whole minutes");
    }
    let lag_ms = world.scenario.summary_lag_ms;
    let ms = world.ms();
    world.saw("stripe: asked what it has counted");
    let sum: u64 = world.with(|inner| {
        let of = |event: &&Event| event.customer == request.query["customer"];
        let events = inner.stripe.counted.iter().filter(of);
        let events = events.filter(|event| (start..end).contains(&event.timestamp_s));
        events.filter(|event| event.counted_at_ms + lag_ms <= ms).map(|event| event.tokens).sum()
    });
    let summary = json!({"id": "mtrusg_1", "object": "billing.meter_event_summary", "aggregated_value": sum,
        "start_time": start, "end_time": end, "livemode": false, "meter": METER});
    let list = json!({"object": "list", "url": "/", "has_more": false, "data": [summary]});
    Reply::Answer(200, list.to_string())
}

/// How much earlier than a period's end the reporter asks for invoices from, in seconds.
const ASKED_EARLY_S: u64 = 3_600;

/// A draft of the period that is asked about, which is never final, so that every event is in time: whoever is late is tested
/// where the reporter is.
fn invoices(request: &Request) -> Reply {
    let end_s = request.query["created[gte]"].parse::<u64>().unwrap() + ASKED_EARLY_S;
    let draft = json!({"object": "invoice", "id": "in_1", "customer": request.query["customer"], "status": "draft",
        "parent": {"subscription_details": {"subscription": "sub_1"}}, "billing_reason": "subscription_cycle",
        "period_start": 0, "period_end": end_s, "created": end_s, "automatically_finalizes_at": null,
        "status_transitions": {"finalized_at": null}, "total": 0, "hosted_invoice_url": null});
    let list = json!({"object": "list", "url": "/", "has_more": false, "data": [draft]});
    Reply::Answer(200, list.to_string())
}

fn subscription(world: &World, id: &str) -> Reply {
    let Some(subscription) = world.with(|inner| inner.stripe.subscriptions.get(id).cloned()) else {
        return no(404, "No such subscription");
    };
    Reply::Answer(200, shown(world, id, subscription).to_string())
}

/// A customer's that have not ended.
fn subscriptions_of(world: &World, customer: &str) -> Reply {
    let all = world.with(|inner| inner.stripe.subscriptions.clone());
    let of = |subscription: &Subscription| subscription.customer == customer && subscription.ended.is_none();
    let data: Vec<Value> =
        all.into_iter().filter(|(_, one)| of(one)).map(|(id, one)| shown(world, &id, one)).collect();
    Reply::Answer(200, json!({"object": "list", "url": "/", "has_more": false, "data": data}).to_string())
}

fn shown(world: &World, id: &str, subscription: Subscription) -> Value {
    let Subscription { user, customer, anchor, ended } = subscription;
    let period = Period::monthly(anchor, world.now().max(anchor)).unwrap();
    let status = if ended.is_some() { "canceled" } else { "active" };
    let item = json!({"current_period_start": period.start().s(), "current_period_end": period.end().s(),
        "price": {"lookup_key": "base"}});
    json!({"id": id, "object": "subscription", "status": status, "created": anchor.s(),
        "billing_cycle_anchor": anchor.s(), "ended_at": ended.map(Timestamp::s), "metadata": {"user_id": user},
        "customer": {"id": customer, "object": "customer", "metadata": {}},
        "items": {"object": "list", "data": [item]}})
}
