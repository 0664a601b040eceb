//! Webhooks: what is told, to whom, how it is signed, and what has not been heard yet.
//!
//! Owns the log of events, the outbox with its endpoints, and the signature. A delivery is kept until its endpoint has
//! answered 2xx or the retries are over. It never decides what an event means.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::calendar::{DAY_S, HOUR_S};
use super::error::ApiError;
use super::form::{Page, Params, Range};
use super::meter_errors::timestamp;
use super::world::{World, paginate};
use super::{destinations, endpoints, wire};

/// Events kept for inspection; the oldest go first.
const MAX_EVENTS: usize = 30_000;
/// How long the API shows an event, in seconds.
const EVENT_MEMORY_S: i64 = 30 * DAY_S;
/// Deliveries that can wait.
const MAX_UNDELIVERED: usize = 30_000;
/// Endpoints that can be listed.
const MAX_ENDPOINTS: usize = 32;
/// How long the endpoint has to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Waits between the attempts, in seconds of Stripe's clock: about three days in all.
const RETRY_DELAYS_S: [i64; 9] =
    [300, 1_800, 2 * HOUR_S, 5 * HOUR_S, 10 * HOUR_S, 12 * HOUR_S, 12 * HOUR_S, 12 * HOUR_S, 12 * HOUR_S];
/// The API version that events are written in.
pub(super) const API_VERSION: &str = "2026-09-30.endive";
/// The endpoints of [`super::Options`], which the API does not list.
const SIMPLE: &str = "we_options";
const SIMPLE_THIN: &str = "ed_options";

/// Where events are sent.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookEndpoint {
    /// `http://127.0.0.1:...`
    pub url: String,
    /// The signing secret, `whsec_...`.
    pub secret: String,
}

impl std::fmt::Debug for WebhookEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookEndpoint").field("url", &self.url).field("secret", &"redacted").finish()
    }
}

/// What an endpoint is sent: objects as they were, or only what to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    Snapshot,
    Thin,
}

/// An endpoint that somebody listed.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    pub(super) id: String,
    pub(super) to: WebhookEndpoint,
    /// The types of events that it wants; `None`: all.
    pub(super) kinds: Option<Vec<String>>,
    pub(super) payload: Payload,
    /// A disabled endpoint is sent nothing; what waits for it waits on.
    pub(super) enabled: bool,
}

impl Endpoint {
    fn is_simple(&self) -> bool {
        self.id == SIMPLE || self.id == SIMPLE_THIN
    }

    fn wants(&self, kind: &str, payload: Payload) -> bool {
        let listed = |kinds: &Vec<String>| kinds.iter().any(|wanted| wanted == kind || wanted == "*");
        self.enabled && self.payload == payload && self.kinds.as_ref().is_none_or(listed)
    }
}

/// What goes wrong with deliveries, the same way for the same seed and the same order of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mischief {
    /// What the random choices come from.
    pub seed: u64,
    /// Each delivery of this number is made twice; 0: none.
    pub duplicate_every: u64,
    /// Whether what is due at the same time is sent in another order.
    pub reorder: bool,
    /// How late a delivery can be, in seconds of Stripe's clock.
    pub delay_max_s: u32,
    /// From this second on deliveries are lost: Stripe hears a 200 and nobody else hears anything.
    pub drop_from_s: i64,
    /// The first second at which they are not lost any more.
    pub drop_until_s: i64,
}

/// An event that Stripe has made.
#[derive(Clone, Debug, PartialEq)]
pub struct WebhookEvent {
    /// `evt_...`
    pub id: String,
    /// Such as `invoice.created`.
    pub kind: String,
    /// When, in Unix seconds of Stripe's clock.
    pub created_s: i64,
    /// The object as it was then; of a thin event the event's data.
    pub object: Value,
}

/// A delivery that an endpoint has not answered 2xx yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// `evt_...`
    pub id: String,
    /// Such as `invoice.created`.
    pub kind: String,
    /// How often it was sent.
    pub attempts: usize,
    /// When it is sent next, in Unix seconds of Stripe's clock.
    pub next_attempt_s: i64,
}

/// What an event is about.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) kind: &'static str,
    pub(super) object: Value,
    pub(super) previous: Option<Value>,
    /// The invoice that waits for the answer.
    pub(super) invoice: Option<String>,
}

/// A thin event of API v2: what is sent names the object; the data is there for whoever fetches it.
#[derive(Debug)]
pub(super) struct Thin {
    pub(super) id: String,
    pub(super) kind: &'static str,
    /// Id, type and path of the object that it is about.
    pub(super) related: Option<(String, &'static str, String)>,
    pub(super) data: Value,
}

/// An event, as the API shows it.
#[derive(Debug)]
struct Logged {
    id: String,
    kind: &'static str,
    created_s: i64,
    payload: Payload,
    /// What was sent.
    body: Arc<str>,
    /// Of a thin event: what was not.
    data: Option<Value>,
}

impl Logged {
    /// The event as it is fetched.
    fn fetched(&self) -> Value {
        let mut event = serde_json::from_str(&self.body).unwrap_or_default();
        if let (Some(data), Value::Object(fields)) = (&self.data, &mut event) {
            fields.insert("data".to_owned(), data.clone());
        }
        event
    }
}

#[derive(Debug)]
struct Delivery {
    /// Which delivery of all this is.
    number: u64,
    endpoint: String,
    /// Whether it is made only because of some mischief.
    extra: bool,
    status: Undelivered,
    body: Arc<str>,
    invoice: Option<String>,
}

/// One attempt to be made.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) number: u64,
    pub(super) id: String,
    pub(super) body: Arc<str>,
    pub(super) endpoint: WebhookEndpoint,
    /// Whether it is lost on its way, and taken for heard.
    pub(super) lost: bool,
}

/// Which events to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// Those whose time has come.
    Due,
    /// All that wait.
    All,
}

/// What is to be told, and what was.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    endpoints: Vec<Endpoint>,
    events: VecDeque<Logged>,
    waiting: VecDeque<Delivery>,
    deliveries: u64,
    mischief: Option<Mischief>,
    lost: usize,
}

/// A number that looks random and depends on nothing but the two given (the finalizer of splitmix64).
fn mixed(seed: u64, number: u64) -> u64 {
    let mut mixed = seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

impl Outbox {
    /// Sets or takes away an endpoint that the API does not list, for all events of a payload. It is sent events only while
    /// no other endpoint of that payload is listed.
    pub(super) fn set_simple(&mut self, payload: Payload, to: Option<WebhookEndpoint>) {
        let id = if payload == Payload::Thin { SIMPLE_THIN } else { SIMPLE }.to_owned();
        match to {
            None => self.remove_endpoint(&id),
            Some(to) => self.put_endpoint(Endpoint { id, to, kinds: None, payload, enabled: true }),
        }
    }

    /// Lists an endpoint, or changes it.
    fn put_endpoint(&mut self, endpoint: Endpoint) {
        if let Some(found) = self.endpoints.iter_mut().find(|found| found.id == endpoint.id) {
            *found = endpoint;
        } else if self.endpoints.len() < MAX_ENDPOINTS {
            self.endpoints.push(endpoint);
        } else {
            tracing::error!(id = endpoint.id, "too many endpoints: this one is sent nothing");
        }
    }

    /// Forgets an endpoint; what waits for it waits on.
    fn remove_endpoint(&mut self, id: &str) {
        self.endpoints.retain(|found| found.id != id);
    }

    /// Replaces the endpoints that the API lists.
    fn list(&mut self, listed: Vec<Endpoint>) {
        self.endpoints.retain(Endpoint::is_simple);
        for endpoint in listed {
            self.put_endpoint(endpoint);
        }
    }

    pub(super) fn set_mischief(&mut self, mischief: Option<Mischief>) {
        self.mischief = mischief;
    }

    /// How many deliveries were lost on their way.
    pub(super) fn lost(&self) -> usize {
        self.lost
    }

    /// Who is sent an event of this type.
    fn listeners(&self, kind: &str, payload: Payload) -> Vec<String> {
        let of_payload = || self.endpoints.iter().filter(|endpoint| endpoint.payload == payload);
        let listed = of_payload().any(|endpoint| !endpoint.is_simple());
        let wanting = of_payload().filter(|endpoint| listed != endpoint.is_simple());
        wanting.filter(|endpoint| endpoint.wants(kind, payload)).map(|endpoint| endpoint.id.clone()).collect()
    }

    /// Whether anybody is sent such events.
    pub(super) fn hears(&self, kind: &str) -> bool {
        !self.listeners(kind, Payload::Snapshot).is_empty()
    }

    /// Makes an event and queues it for whoever listens.
    pub(super) fn emit(&mut self, id: String, subject: Subject, now_s: i64) {
        let Subject { kind, object, previous, invoice } = subject;
        let listeners = self.listeners(kind, Payload::Snapshot);
        let mut data = json!({ "object": object });
        if let (Some(previous), Some(fields)) = (previous, data.as_object_mut()) {
            fields.insert("previous_attributes".to_owned(), previous);
        }
        let body = json!({
            "id": id,
            "object": "event",
            "api_version": API_VERSION,
            "created": now_s,
            "data": data,
            "livemode": false,
            "pending_webhooks": listeners.len(),
            "request": { "id": null, "idempotency_key": null },
            "type": kind,
        });
        let logged = Logged {
            id,
            kind,
            created_s: now_s,
            payload: Payload::Snapshot,
            body: body.to_string().into(),
            data: None,
        };
        self.log_and_queue(logged, &listeners, invoice.as_deref(), now_s);
    }

    /// Makes a thin event and queues it for whoever listens.
    pub(super) fn emit_thin(&mut self, thin: Thin, now_s: i64) {
        let Thin { id, kind, related, data } = thin;
        let listeners = self.listeners(kind, Payload::Thin);
        let related = related.map(|(id, kind, url)| json!({ "id": id, "type": kind, "url": url }));
        let body = json!({
            "id": id,
            "object": "v2.core.event",
            "context": null,
            "created": timestamp(now_s),
            "livemode": false,
            "reason": null,
            "related_object": related,
            "type": kind,
        });
        let body = body.to_string().into();
        let logged = Logged { id, kind, created_s: now_s, payload: Payload::Thin, body, data: Some(data) };
        self.log_and_queue(logged, &listeners, None, now_s);
    }

    fn log_and_queue(&mut self, event: Logged, to: &[String], invoice: Option<&str>, now_s: i64) {
        for endpoint in to {
            self.queue(&event, endpoint, invoice, false, now_s);
            let every = self.mischief.map_or(0, |mischief| mischief.duplicate_every);
            if every > 0 && self.deliveries.is_multiple_of(every) {
                self.queue(&event, endpoint, invoice, true, now_s);
            }
        }
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    fn queue(&mut self, event: &Logged, endpoint: &str, invoice: Option<&str>, extra: bool, now_s: i64) {
        if self.waiting.len() >= MAX_UNDELIVERED {
            let (kind, id) = (event.kind, &event.id);
            tracing::error!(kind, id, "too many events wait for their delivery: this one is never sent");
            return;
        }
        self.deliveries += 1;
        let late = self.mischief.filter(|mischief| mischief.delay_max_s > 0);
        let late_s = late.map_or(0, |mischief| {
            mixed(mischief.seed, self.deliveries) % (u64::from(mischief.delay_max_s) + 1)
        });
        let status = Undelivered {
            id: event.id.clone(),
            kind: event.kind.to_owned(),
            attempts: 0,
            next_attempt_s: now_s.saturating_add(i64::try_from(late_s).unwrap_or(i64::MAX)),
        };
        self.waiting.push_back(Delivery {
            number: self.deliveries,
            endpoint: endpoint.to_owned(),
            extra,
            status,
            body: event.body.clone(),
            invoice: invoice.map(str::to_owned),
        });
    }

    fn endpoint_of(&self, delivery: &Delivery) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.id == delivery.endpoint && endpoint.enabled)
    }

    /// The numbers of the deliveries to make now, in their order.
    pub(super) fn ready(&self, which: Which, now_s: i64) -> Vec<u64> {
        let ready = self.waiting.iter();
        let ready = ready.filter(|found| which == Which::All || found.status.next_attempt_s <= now_s);
        let mut ready: Vec<u64> = ready.map(|delivery| delivery.number).collect();
        if let Some(mischief) = self.mischief.filter(|mischief| mischief.reorder) {
            ready.sort_by_key(|number| mixed(mischief.seed.wrapping_add(1), *number));
        }
        ready
    }

    /// Whether deliveries are to be made one after the other, so that a seed means the same each time.
    pub(super) fn one_by_one(&self) -> bool {
        self.mischief.is_some()
    }

    /// When the next delivery is to be made; those that nobody takes do not count.
    pub(super) fn next_attempt_s(&self) -> i64 {
        let sent = self.waiting.iter().filter(|delivery| self.endpoint_of(delivery).is_some());
        sent.map(|delivery| delivery.status.next_attempt_s).min().unwrap_or(i64::MAX)
    }

    /// The attempt for one delivery, if it still waits and somebody takes it.
    pub(super) fn attempt(&mut self, number: u64, now_s: i64) -> Option<Attempt> {
        let delivery = self.waiting.iter().find(|delivery| delivery.number == number)?;
        let endpoint = self.endpoint_of(delivery)?.to.clone();
        let (id, body) = (delivery.status.id.clone(), delivery.body.clone());
        let lost = self
            .mischief
            .is_some_and(|mischief| (mischief.drop_from_s..mischief.drop_until_s).contains(&now_s));
        self.lost += usize::from(lost);
        Some(Attempt { number, id, body, endpoint, lost })
    }

    /// Notes the outcome. The invoice that was waiting for this event, if it was `invoice.created` and everybody heard it.
    pub(super) fn note(&mut self, number: u64, heard: bool, now_s: i64) -> Option<String> {
        let at = self.waiting.iter().position(|delivery| delivery.number == number)?;
        if heard {
            let delivery = self.waiting.remove(at)?;
            let waits = |other: &Delivery| !other.extra && other.status.id == delivery.status.id;
            let all = !self.waiting.iter().any(waits);
            return delivery.invoice.filter(|_| all && delivery.status.kind == "invoice.created");
        }
        let status = &mut self.waiting.get_mut(at)?.status;
        let delay_s = RETRY_DELAYS_S.get(status.attempts).copied();
        status.attempts += 1;
        if let Some(delay_s) = delay_s {
            status.next_attempt_s = now_s + delay_s;
        } else {
            tracing::warn!(
                id = status.id,
                kind = status.kind,
                "the last attempt failed: the event is given up"
            );
            self.waiting.remove(at);
        }
        None
    }

    pub(super) fn events(&self) -> Vec<WebhookEvent> {
        let events = self.events.iter().map(|logged| {
            let mut fetched = logged.fetched();
            let place = if logged.payload == Payload::Thin { "/data" } else { "/data/object" };
            let object = fetched.pointer_mut(place).map(Value::take).unwrap_or_default();
            let (id, kind) = (logged.id.clone(), logged.kind.to_owned());
            WebhookEvent { id, kind, created_s: logged.created_s, object }
        });
        events.collect()
    }

    pub(super) fn undelivered(&self) -> Vec<Undelivered> {
        self.waiting.iter().map(|delivery| delivery.status.clone()).collect()
    }

    fn shown(&self, payload: Payload, now_s: i64) -> impl DoubleEndedIterator<Item = &Logged> {
        let shown = self.events.iter().filter(move |logged| logged.payload == payload);
        shown.filter(move |logged| logged.created_s > now_s - EVENT_MEMORY_S)
    }
}

/// `GET /v1/events`
pub(super) fn list_events(world: &World, mut params: Params, now_s: i64) -> Result<Value, ApiError> {
    params.refuse_unmodelled(&["delivery_success"])?;
    let kind = params.text("type")?;
    let kinds = params.texts("types")?;
    let created = Range::of(&mut params, "created")?;
    let page: Page = params.page()?;
    params.expand(&[])?;
    params.finish()?;
    if kind.is_some() && !kinds.is_empty() {
        return Err(ApiError::exclusive(
            "type",
            "You may only specify one of these parameters: type, types.",
        ));
    }
    let wanted = |logged: &&Logged| {
        created.contains(logged.created_s)
            && kind.as_ref().is_none_or(|kind| kind == logged.kind)
            && (kinds.is_empty() || kinds.iter().any(|kind| kind == logged.kind))
    };
    let found: Vec<&Logged> = world.outbox.shown(Payload::Snapshot, now_s).rev().filter(wanted).collect();
    let (found, more) = paginate(found, &page, |logged| &logged.id, "event")?;
    let data: Vec<Value> = found.into_iter().map(Logged::fetched).collect();
    Ok(wire::list("/v1/events", &data, more))
}

fn find(world: &World, payload: Payload, id: &str, now_s: i64) -> Result<Value, ApiError> {
    let found = world.outbox.shown(payload, now_s).find(|logged| logged.id == id);
    found.map(Logged::fetched).ok_or_else(|| ApiError::no_such("event", id))
}

/// `GET /v1/events/:id`
pub(super) fn retrieve_event(
    world: &World,
    id: &str,
    mut params: Params,
    now_s: i64,
) -> Result<Value, ApiError> {
    params.expand(&[])?;
    params.finish()?;
    find(world, Payload::Snapshot, id, now_s)
}

/// `GET /v2/core/events/:id`
pub(super) fn retrieve_thin_event(
    world: &World,
    id: &str,
    params: Params,
    now_s: i64,
) -> Result<Value, ApiError> {
    params.finish()?;
    find(world, Payload::Thin, id, now_s)
}

/// Sends from now on to the endpoints and destinations that the API lists.
pub(super) fn follow_lists(world: &mut World) {
    let endpoints = endpoints::alive(world).map(|found| Endpoint {
        id: found.id.clone(),
        to: WebhookEndpoint { url: found.url.clone(), secret: found.secret.clone() },
        kinds: Some(found.events.clone()),
        payload: Payload::Snapshot,
        enabled: found.enabled,
    });
    let destinations = destinations::alive(world).map(|found| Endpoint {
        id: found.id.clone(),
        to: WebhookEndpoint { url: found.url.clone(), secret: found.secret.clone() },
        kinds: Some(found.events.clone()),
        payload: if found.thin { Payload::Thin } else { Payload::Snapshot },
        enabled: found.enabled,
    });
    let listed = endpoints.chain(destinations).collect();
    world.outbox.list(listed);
}

/// The value of `Stripe-Signature` for a body; `None` for a secret that no MAC can take.
pub(super) fn signature(secret: &str, body: &str, at_s: i64) -> Option<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).ok()?;
    mac.update(format!("{at_s}.").as_bytes());
    mac.update(body.as_bytes());
    let mut header = format!("t={at_s},v1=");
    for byte in mac.finalize().into_bytes() {
        write!(header, "{byte:02x}").ok()?;
    }
    Some(header)
}

/// Sends one event; whether it was heard.
pub(super) async fn send(client: &reqwest::Client, attempt: &Attempt, at_s: i64) -> bool {
    if attempt.lost {
        return true;
    }
    let Some(signature) = signature(&attempt.endpoint.secret, &attempt.body, at_s) else { return false };
    let request = client
        .post(&attempt.endpoint.url)
        .timeout(ANSWER_TIMEOUT)
        .header("content-type", "application/json; charset=utf-8")
        .header("user-agent", "Stripe/1.0 (+https://stripe.com/docs/webhooks)")
        .header("stripe-signature", signature)
        .body(attempt.body.to_string());
    match request.send().await {
        Ok(answer) if answer.status().is_success() => true,
        Ok(answer) => {
            tracing::debug!(id = attempt.id, status = answer.status().as_u16(), "an event was refused");
            false
        }
        Err(error) => {
            tracing::debug!(id = attempt.id, %error, "an event did not arrive");
            false
        }
    }
}
