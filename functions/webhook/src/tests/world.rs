//! What the deliveries under test run in: a ledger, a Stripe that has what a test gives it, a bus that is listened to, a clock.

use crate::{
    handler::{CALL_MS_MAX, Webhook},
    sync::Accounts,
};
use aws_sdk_eventbridge::config::{
    BehaviorVersion, Credentials, Region, http::HttpResponse, retry::RetryConfig,
};
use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn},
    orchestrator::HttpRequest,
};
use aws_smithy_types::body::SdkBody;
use bus::Bus;
use domain::{Account, Classes, Demand, HoldId, ModelId, ModelPrice, Timestamp, Tokens, Usage, UserId};
use edge::plans::PlanBook;
use http::{Method, StatusCode};
use lambda_http::{Body, Request};
use ledger::{Ledger, MemoryStore, OpenHold};
use report::{Deps, Pace, StripeMeter};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    num::NonZeroU64,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};
use stripe::{
    Secret, Settings, SigningSecrets, Stripe,
    testing::{Memory, Reply, Request as Asked, sign},
};
use tokio::time::Instant;

pub(super) const NOW: Timestamp = Timestamp::from_s(1_800_000_000);
/// When Stripe made the events that are delivered, in seconds.
pub(super) const TOLD_S: u64 = 1_799_900_000;
pub(super) const SECRET: &str = "whsec_test";
pub(super) const OLD_SECRET: &str = "whsec_old";
pub(super) const THIN_SECRET: &str = "whsec_thin";
pub(super) const DAY_S: u64 = 24 * 60 * 60;
pub(super) const CREATED: &str = "customer.subscription.created";
pub(super) const UPDATED: &str = "customer.subscription.updated";
pub(super) const DELETED: &str = "customer.subscription.deleted";
/// How long an unpaid user of this book goes on, in seconds.
pub(super) const GRACE_S: u64 = 7 * DAY_S;
const HOLD_MS: u64 = 10 * 60 * 1_000;

/// A plan book with a plan to go up to.
pub(super) fn book() -> PlanBook {
    PlanBook::parse(
        r#"
        version = 7
        past_due_grace_days = 7
        [[plan]]
        id = "free"
        price_cents_per_month = 0
        included_tokens = 20_000
        cap_tokens = 20_000
        requests_per_window = 100
        window_seconds = 60
        concurrent_requests = 10
        [[plan]]
        id = "pro"
        price_cents_per_month = 2_000
        included_tokens = 500_000
        cap_tokens = 5_000_000
        overage_nano_usd_per_million_tokens = 2_000_000_000
        requests_per_window = 100
        window_seconds = 60
        concurrent_requests = 10
        base_lookup_key = "pro_base"
        metered_lookup_key = "pro_tokens"
        [[plan]]
        id = "agency"
        price_cents_per_month = 9_900
        included_tokens = 5_000_000
        cap_tokens = 50_000_000
        overage_nano_usd_per_million_tokens = 1_500_000_000
        requests_per_window = 100
        window_seconds = 60
        concurrent_requests = 10
        base_lookup_key = "agency_base"
        metered_lookup_key = "agency_tokens"
        "#,
    )
    .unwrap()
}

/// Done once, after Stripe has made up its answer to a question and before that answer is sent.
pub(super) struct Hook {
    /// How many questions from now.
    pub(super) question: u32,
    pub(super) then: Box<dyn FnOnce(&mut Books) + Send>,
}

/// What Stripe has, by the path that it is had at.
#[derive(Default)]
pub(super) struct Books {
    pub(super) objects: BTreeMap<String, Value>,
    /// What was asked, in order: method and path.
    pub(super) asked: Vec<String>,
    /// Tokens of the meter events that it took, by identifier.
    pub(super) counted: BTreeMap<String, u64>,
    pub(super) hook: Option<Hook>,
    /// It does not answer.
    pub(super) down: bool,
    /// How long it takes for each answer, in milliseconds.
    pub(super) slow_ms: u64,
    /// It says nothing to what is asked at paths that begin so.
    pub(super) silent_at: Option<&'static str>,
}

impl Books {
    pub(super) fn put(&mut self, path: &str, object: Value) {
        self.objects.insert(path.to_owned(), object);
    }

    fn answer(&mut self, request: &Asked) -> Reply {
        self.asked.push(format!("{} {}", request.method, request.path));
        if self.down {
            return Reply::Cut;
        }
        if self.silent_at.is_some_and(|prefix| request.path.starts_with(prefix)) {
            return Reply::Hang;
        }
        let reply = self.look(request);
        match self.hook.take() {
            Some(Hook { question: 1, then }) => then(self),
            Some(Hook { question, then }) => self.hook = Some(Hook { question: question - 1, then }),
            None => {}
        }
        reply
    }

    fn look(&mut self, request: &Asked) -> Reply {
        let query = |name: &str| request.query.get(name).map(String::as_str);
        match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/v1/billing/meter_events") => {
                let identifier = request.form["identifier"].clone();
                let timestamp: u64 = request.form["timestamp"].parse().unwrap();
                self.counted.insert(identifier.clone(), request.form["payload[value]"].parse().unwrap());
                let event = json!({"object": "billing.meter_event", "created": timestamp, "event_name": "tokens",
                    "identifier": identifier, "livemode": false, "payload": {}, "timestamp": timestamp});
                Reply::Answer(200, event.to_string())
            }
            ("GET", "/v1/subscriptions") => {
                let customer = query("customer").unwrap();
                self.list("/v1/subscriptions/", |object| {
                    object["customer"]["id"] == customer && object["status"] != "canceled"
                })
            }
            ("GET", "/v1/invoices") => {
                let (of, status) = (query("subscription"), query("status"));
                self.list("/v1/invoices/", |object| {
                    let subscription = &object["parent"]["subscription_details"]["subscription"];
                    of.is_none_or(|of| subscription == of)
                        && status.is_none_or(|status| object["status"] == status)
                })
            }
            ("GET", "/v1/invoiceitems") => self.list("/v1/invoiceitems/", |_| true),
            ("GET", path) => match self.objects.get(path) {
                Some(object) => Reply::Answer(200, object.to_string()),
                None => Reply::Answer(404, missing(path)),
            },
            (method, path) => panic!("nobody may {method} {path}"),
        }
    }

    fn list(&self, under: &str, fits: impl Fn(&Value) -> bool) -> Reply {
        let objects = self.objects.iter().filter(|(path, object)| path.starts_with(under) && fits(object));
        let data: Vec<_> = objects.map(|(_, object)| object).collect();
        Reply::Answer(200, json!({"object": "list", "data": data, "has_more": false, "url": "/"}).to_string())
    }
}

fn missing(path: &str) -> String {
    let message = format!("No such object: '{path}'");
    json!({"error": {"type": "invalid_request_error", "code": "resource_missing", "message": message}})
        .to_string()
}

/// Everything that a delivery touches.
pub(super) struct World {
    pub(super) webhook: Webhook<MemoryStore>,
    pub(super) ledger: Ledger<MemoryStore>,
    books: Arc<Mutex<Books>>,
    heard: Arc<Mutex<Vec<(String, Value)>>>,
    now_ms: AtomicU64,
    /// Since when the time goes on as the test's does; none: it stands.
    flows_since: Mutex<Option<Instant>>,
    ids: AtomicU32,
}

/// A subscription to Pro.
pub(super) fn subscription(id: &str, status: &str, created_s: u64) -> Value {
    let item = |key: &str, quantity: Value| {
        json!({"current_period_start": created_s, "current_period_end": created_s + 30 * DAY_S, "quantity": quantity,
            "price": {"lookup_key": key}})
    };
    json!({"id": id, "object": "subscription", "status": status, "created": created_s,
        "billing_cycle_anchor": created_s, "ended_at": null, "metadata": {"user_id": "user_1"},
        "customer": {"id": "cus_1", "object": "customer", "metadata": {}}, "pause_collection": null,
        "cancel_at_period_end": false, "latest_invoice": null,
        "items": {"object": "list", "data": [item("pro_base", json!(1)), item("pro_tokens", Value::Null)]}})
}

pub(super) fn ended(id: &str, created_s: u64, ended_s: u64) -> Value {
    let mut subscription = subscription(id, "canceled", created_s);
    subscription["ended_at"] = json!(ended_s);
    subscription
}

/// An invoice of a subscription over the period from one instant to another.
pub(super) fn invoice(id: &str, subscription: &str, status: &str, (start_s, end_s): (u64, u64)) -> Value {
    let finalized = if status == "draft" { Value::Null } else { json!(end_s + 3_600) };
    json!({"id": id, "object": "invoice", "customer": "cus_1", "status": status, "billing_reason": "subscription_cycle",
        "parent": {"subscription_details": {"subscription": subscription}}, "period_start": start_s, "period_end": end_s,
        "created": end_s, "automatically_finalizes_at": end_s + 3_600, "total": 2_000, "hosted_invoice_url": null,
        "status_transitions": {"finalized_at": finalized}})
}

/// A snapshot event. What it claims of its object is wrong on purpose: nothing may come of it.
pub(super) fn event(id: &str, kind: &str, object: &str) -> String {
    let object = json!({"id": object, "object": "subscription", "status": "active", "customer": "cus_evil",
        "metadata": {"user_id": "user_evil"}, "items": {"data": [{"price": {"lookup_key": "agency_base"}}]}});
    json!({"id": id, "object": "event", "created": TOLD_S, "type": kind, "data": {"object": object}})
        .to_string()
}

/// The update that changed the prices of a subscription.
pub(super) fn repricing(id: &str, subscription: &str) -> String {
    let mut event: Value = serde_json::from_str(&event(id, UPDATED, subscription)).unwrap();
    event["data"]["previous_attributes"] = json!({"items": {"data": [{"price": {"id": "price_before"}}]}});
    event.to_string()
}

pub(super) fn thin_event(id: &str, kind: &str) -> String {
    json!({"id": id, "object": "v2.core.event", "type": kind, "livemode": false, "created": "2027-01-15T08:00:00.000Z",
        "related_object": {"id": "mtr_1", "type": "billing.meter", "url": "/v1/billing/meters/mtr_1"}})
    .to_string()
}

pub(super) fn request(body: impl Into<Body>, signature: &str) -> Request {
    http::Request::builder()
        .method(Method::POST)
        .uri("http://gateway/v1/webhooks/stripe")
        .header("stripe-signature", signature)
        .body(body.into())
        .unwrap()
}

pub(super) fn signature(body: &str, secret: &str, at: Timestamp) -> String {
    format!("t={},v1={}", at.s(), sign(body, secret, at.s()))
}

impl World {
    pub(super) fn new() -> Self {
        let books = Arc::new(Mutex::new(Books::default()));
        let known = Arc::clone(&books);
        let memory = Memory::new(move |request| {
            let (reply, slow_ms) = {
                let mut books = known.lock().unwrap();
                (books.answer(&request), books.slow_ms)
            };
            async move {
                if slow_ms > 0 {
                    tokio::time::sleep(Duration::from_millis(slow_ms)).await;
                }
                reply
            }
        });
        let settings = Settings { base_url: None, secret_key: Secret::new("sk_test_x") };
        let stripe =
            Stripe::new(settings).unwrap().in_memory(memory).timeout(Duration::from_millis(CALL_MS_MAX));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ledger = Ledger::new(MemoryStore::new(), book().plans().clone());
        let deps = Deps {
            ledger: ledger.clone(),
            stripe: stripe.clone(),
            meter: StripeMeter { event_name: "tokens".into(), id: "mtr_1".into() },
            bus: bus_that_tells(&heard),
            pace: Pace::with_jitter(|_| 0),
            new_id: Box::new(lease_id),
        };
        let accounts = Accounts::new(ledger.clone(), stripe, book());
        let secrets = |secrets: &[&str]| secrets.iter().copied().map(Secret::new).collect();
        let secrets =
            SigningSecrets { snapshot: secrets(&[OLD_SECRET, SECRET]), thin: secrets(&[THIN_SECRET]) };
        let webhook = Webhook::new(accounts, Arc::new(deps), secrets);
        let (now_ms, ids, flows_since) = (AtomicU64::new(NOW.ms()), AtomicU32::new(0), Mutex::new(None));
        Self { webhook, ledger, books, heard, now_ms, flows_since, ids }
    }

    pub(super) fn now(&self) -> Timestamp {
        let flowed = self.flows_since.lock().unwrap().map_or(Duration::ZERO, |since| since.elapsed());
        let flowed_ms = u64::try_from(flowed.as_millis()).unwrap();
        Timestamp::from_ms(self.now_ms.load(Ordering::Relaxed) + flowed_ms)
    }

    pub(super) fn set(&self, now_s: u64) {
        self.now_ms.store(now_s * 1_000, Ordering::Relaxed);
    }

    /// From now on the time goes on, as the test's does.
    pub(super) fn flow(&self) {
        *self.flows_since.lock().unwrap() = Some(Instant::now());
    }

    pub(super) fn stripe<T>(&self, change: impl FnOnce(&mut Books) -> T) -> T {
        change(&mut self.books.lock().unwrap())
    }

    pub(super) fn stripe_has(&self, object: Value) {
        let folder = match object["object"].as_str().unwrap() {
            "subscription" => "subscriptions",
            "invoice" => "invoices",
            "dispute" => "disputes",
            "charge" => "charges",
            other => panic!("where is a {other}?"),
        };
        let path = format!("/v1/{folder}/{}", object["id"].as_str().unwrap());
        self.stripe(|books| books.put(&path, object));
    }

    /// What Stripe was asked so far.
    pub(super) fn asked(&self) -> Vec<String> {
        self.stripe(|books| books.asked.clone())
    }

    /// What was said on the bus.
    pub(super) fn heard(&self) -> Vec<(String, Value)> {
        self.heard.lock().unwrap().clone()
    }

    /// Answers to a body as it is, under this signature: status and body.
    pub(super) async fn answers(&self, body: impl Into<Body>, signature: &str) -> (StatusCode, Value) {
        let clock = || self.now();
        let response = self.webhook.handle(request(body, signature), &clock).await;
        let (head, body) = response.into_parts();
        (head.status, serde_json::from_slice(&body).unwrap())
    }

    /// Delivers a signed body: status, and outcome or problem code.
    pub(super) async fn takes(&self, body: &str, secret: &str) -> (u16, String) {
        let (status, answer) = self.answers(body, &signature(body, secret, self.now())).await;
        let word = if status == StatusCode::OK { &answer["outcome"] } else { &answer["code"] };
        (status.as_u16(), word.as_str().unwrap().to_owned())
    }

    /// Delivers the update that changed a subscription's prices.
    pub(super) async fn reprices(&self, subscription: &str) -> (u16, String) {
        let id = format!("evt_{}", self.ids.fetch_add(1, Ordering::Relaxed));
        self.takes(&repricing(&id, subscription), SECRET).await
    }

    /// Delivers an event that was not delivered before.
    pub(super) async fn delivers(&self, kind: &str, object: &str) -> (u16, String) {
        let id = format!("evt_{}", self.ids.fetch_add(1, Ordering::Relaxed));
        self.takes(&event(&id, kind, object), SECRET).await
    }

    pub(super) async fn account(&self) -> Account {
        let user = UserId::parse("user_1").unwrap();
        self.ledger.account(&user, self.now()).await.unwrap()
    }

    /// Plan, subscription and anchor of the account.
    pub(super) async fn standing(&self) -> (String, Option<String>, u64) {
        let account = self.account().await;
        (account.plan.to_string(), account.subscription.map(|id| id.to_string()), account.anchor.s())
    }

    /// A request that is under way.
    pub(super) async fn admit(&self, tokens: u32) -> OpenHold {
        let user = UserId::parse("user_1").unwrap();
        let tokens = Tokens::from_u32(tokens);
        let one = Tokens::from_u32(1);
        let demand =
            Demand { prompt_most: tokens, prompt_least: tokens, output_most: one, output_least: one };
        let new_id = || HoldId::parse(&format!("h{}", self.ids.fetch_add(1, Ordering::Relaxed))).unwrap();
        self.ledger.admit(&user, &demand, &price(), HOLD_MS, &new_id, self.now()).await.unwrap()
    }

    pub(super) async fn settle(&self, hold: OpenHold, tokens: u32) {
        let classes = Classes { input: Tokens::from_u32(tokens), ..Classes::default() };
        self.ledger.settle(hold, Usage::Exact(classes), &price(), self.now()).await.unwrap();
    }

    /// A request from its admission to its end.
    pub(super) async fn uses(&self, tokens: u32) {
        let hold = self.admit(tokens).await;
        self.settle(hold, tokens).await;
    }

    /// Tokens that Stripe has counted.
    pub(super) fn counted(&self) -> u64 {
        self.stripe(|books| books.counted.values().sum())
    }
}

fn lease_id() -> HoldId {
    static IDS: AtomicU32 = AtomicU32::new(0);
    HoldId::parse(&format!("l{}", IDS.fetch_add(1, Ordering::Relaxed))).unwrap()
}

pub(super) fn pro(subscription: &str, anchor_s: u64) -> (String, Option<String>, u64) {
    ("pro".into(), Some(subscription.into()), anchor_s)
}

pub(super) fn free(anchor_s: u64) -> (String, Option<String>, u64) {
    ("free".into(), None, anchor_s)
}

pub(super) fn answer(status: u16, word: &str) -> (u16, String) {
    (status, word.to_owned())
}

fn price() -> ModelPrice {
    let one = NonZeroU64::MIN;
    ModelPrice {
        model: ModelId::parse("m").unwrap(),
        version: 1,
        input: one,
        cached_input: one,
        cache_write: one,
        output: one,
        output_max: Tokens::from_u32(1_000),
        reasoning_effort: None,
    }
}

/// A bus that takes everything.
#[derive(Clone, Debug)]
struct Telling(Arc<Mutex<Vec<(String, Value)>>>);

impl HttpConnector for Telling {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let body: Value = serde_json::from_slice(request.body().bytes().unwrap()).unwrap();
        let entries = body["Entries"].as_array().unwrap();
        let told = entries.iter().map(|entry| {
            let detail = serde_json::from_str(entry["Detail"].as_str().unwrap()).unwrap();
            (entry["DetailType"].as_str().unwrap().to_owned(), detail)
        });
        self.0.lock().unwrap().extend(told);
        let taken: Vec<_> = entries.iter().map(|_| json!({"EventId": "1"})).collect();
        let answer = json!({"FailedEntryCount": 0, "Entries": taken}).to_string();
        HttpConnectorFuture::ready(Ok(HttpResponse::new(200.try_into().unwrap(), SdkBody::from(answer))))
    }
}

fn bus_that_tells(heard: &Arc<Mutex<Vec<(String, Value)>>>) -> Bus {
    let telling = Telling(Arc::clone(heard));
    let client = http_client_fn(move |_, _| SharedHttpConnector::new(telling.clone()));
    let config = aws_sdk_eventbridge::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .credentials_provider(Credentials::new("key", "secret", None, None, "test"))
        .http_client(client)
        .retry_config(RetryConfig::disabled())
        .build();
    Bus::new(aws_sdk_eventbridge::Client::from_conf(config), "bus".into())
}
