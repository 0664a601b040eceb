//! Stripe, strict: meter events with identifiers that it forgets after a day, summaries that lag, subscriptions whose plan changes.
//! What it bills of that is in `billing`.

use crate::simulation::{
    billing::{self, Items},
    bugs::Bug,
    scenario::{HOUR_MS, Mishap},
    world::{Process, Step, World},
};
use domain::{Period, Report, Timestamp, UserId};
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
/// The same of an event of a period that has ended.
const ENDED_LATE_MS_MAX: u64 = 4 * 60_000;
const PAST_S_MAX: u64 = 35 * 24 * 3_600;
const FUTURE_S_MAX: u64 = 5 * 60;
const IDENTIFIER_CHARS_MAX: usize = 100;
pub(crate) const EVENT_NAME: &str = "tokens";
pub(crate) const METER: &str = "mtr_1";
const PRICES: &str = "/v1/prices/";

#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) identifier: String,
    pub(crate) customer: String,
    pub(crate) tokens: u64,
    pub(crate) timestamp_s: u64,
    pub(crate) counted_at_ms: u64,
    /// Whether it was long on its way.
    pub(crate) was_late: bool,
}

/// From when on a subscription has a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlanChange {
    /// As Stripe dates it.
    pub(crate) since: Timestamp,
    /// When that was done.
    pub(crate) at: Timestamp,
    pub(crate) plan: &'static str,
}

#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    pub(crate) user: String,
    pub(crate) customer: String,
    pub(crate) anchor: Timestamp,
    pub(crate) ended: Option<Timestamp>,
    /// Since when it has had an invoice that Stripe has given up to collect, if it has one.
    pub(crate) debt: Option<Timestamp>,
    /// Its plans, the first one since its beginning.
    pub(crate) plans: Vec<PlanChange>,
}

impl Subscription {
    /// One that begins now.
    pub(crate) fn new(user: &UserId, customer: String, anchor: Timestamp, plan: &'static str) -> Self {
        let plans = vec![PlanChange { since: anchor, at: anchor, plan }];
        Self { user: user.to_string(), customer, anchor, ended: None, debt: None, plans }
    }

    /// The plan that it has now.
    pub(crate) fn plan(&self) -> &'static str {
        self.plans.last().unwrap().plan
    }
}

/// What Stripe knows.
#[derive(Debug, Default)]
pub(crate) struct Books {
    /// Every event that was counted.
    pub(crate) counted: Vec<Event>,
    pub(crate) subscriptions: BTreeMap<String, Subscription>,
    pub(crate) items: Items,
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

pub(crate) fn no(status: u16, message: &str) -> Reply {
    let body = json!({"error": {"type": "invalid_request_error", "message": message}});
    Reply::Answer(status, body.to_string())
}

async fn answer(world: Arc<World>, process: Arc<Process>, request: Request) -> Reply {
    let effect = match (request.path.as_str(), request.method.as_str()) {
        ("/v1/billing/meter_events", _) => "send to Stripe",
        ("/v1/billing/meters/mtr_1/event_summaries", _) => "ask Stripe's count",
        ("/v1/invoices", _) if request.query.contains_key("subscription") => "ask Stripe's unpaid invoices",
        ("/v1/invoices", _) => "ask Stripe's invoices",
        (path, _) if path.starts_with(PRICES) => "ask Stripe's price",
        ("/v1/invoiceitems", "POST") => "make an invoice item",
        ("/v1/invoiceitems", _) => "ask Stripe's items",
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
    } else {
        match effect {
            "ask Stripe's count" => count(&world, &request),
            "ask Stripe's unpaid invoices" => unpaid(&world, &request.query["subscription"]),
            "ask Stripe's invoices" => billing::invoices(&world, &request),
            "make an invoice item" => billing::make_item(&world, request).await,
            "ask Stripe's items" => billing::items(&world, &request),
            "ask Stripe's price" => price(&world, &request.path),
            _ if request.path == "/v1/subscriptions" => subscriptions_of(&world, &request.query["customer"]),
            _ => subscription(&world, request.path.rsplit('/').next().unwrap()),
        }
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
    Ok(Event { identifier, customer, tokens, timestamp_s, counted_at_ms: 0, was_late: false })
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
        // Whoever sends to a period that has ended leaves it minutes to arrive in, not more.
        let most_ms = if billing::is_ended(world, &event) { ENDED_LATE_MS_MAX } else { LATE_MS_MAX };
        let after_ms = world.with(|inner| inner.dice.below(most_ms));
        #[expect(clippy::disallowed_methods, reason = "an event on its way; it ends with the simulation")]
        tokio::spawn(async move {
            sleep(Duration::from_millis(after_ms)).await;
            late.trace(|| format!("late: Stripe takes {}", event.identifier));
            count_in(&late, Event { was_late: true, ..event });
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
        was_late: false,
    };
    world.with(|inner| inner.stripe.counted.push(event));
}

/// Counts an event unless its identifier is remembered.
pub(crate) fn count_in(world: &World, event: Event) -> bool {
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

/// A plan's metered price.
fn price(world: &World, path: &str) -> Reply {
    let id = path.trim_start_matches(PRICES);
    let plan = id.trim_start_matches("price_").trim_end_matches("_metered");
    let (included, cents) = world.scenario.tiers(plan);
    let body = json!({"id": id, "object": "price", "active": true, "currency": "usd", "product": "prod_1",
        "lookup_key": format!("{plan}_metered"), "metadata": {}, "billing_scheme": "tiered", "tiers_mode": "graduated",
        "unit_amount_decimal": null, "transform_quantity": null,
        "recurring": {"interval": "month", "interval_count": 1, "usage_type": "metered", "meter": METER},
        "tiers": [{"up_to": included, "unit_amount_decimal": "0", "flat_amount_decimal": null},
            {"up_to": null, "unit_amount_decimal": cents, "flat_amount_decimal": null}]});
    Reply::Answer(200, body.to_string())
}

/// The invoices of a subscription that are final and not paid.
fn unpaid(world: &World, id: &str) -> Reply {
    let debt =
        world.with(|inner| inner.stripe.subscriptions.get(id).and_then(|subscription| subscription.debt));
    let data: Vec<Value> =
        debt.map(|since| json!({"status_transitions": {"finalized_at": since.s()}})).into_iter().collect();
    Reply::Answer(200, json!({"object": "list", "url": "/", "has_more": false, "data": data}).to_string())
}

fn subscription(world: &World, id: &str) -> Reply {
    let Some(subscription) = world.with(|inner| inner.stripe.subscriptions.get(id).cloned()) else {
        let error = json!({"type": "invalid_request_error", "code": "resource_missing", "message": "No such subscription"});
        return Reply::Answer(404, json!({ "error": error }).to_string());
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
    let (plan, Subscription { user, customer, anchor, ended, debt, .. }) =
        (subscription.plan(), subscription);
    let period = Period::monthly(anchor, world.now().max(anchor)).unwrap();
    let status = match (ended, debt) {
        (Some(_), _) => "canceled",
        (None, Some(_)) => "unpaid",
        (None, None) => "active",
    };
    let item = |price: &str| {
        json!({"current_period_start": period.start().s(), "current_period_end": period.end().s(),
            "price": {"id": format!("price_{plan}_{price}"), "lookup_key": format!("{plan}_{price}"),
                "recurring": {"meter": (price == "metered").then_some(METER)}}})
    };
    json!({"id": id, "object": "subscription", "status": status, "created": anchor.s(),
        "billing_cycle_anchor": anchor.s(), "ended_at": ended.map(Timestamp::s), "metadata": {"user_id": user},
        "customer": {"id": customer, "object": "customer", "metadata": {}},
        "items": {"object": "list", "data": [item("base"), item("metered")]}})
}
