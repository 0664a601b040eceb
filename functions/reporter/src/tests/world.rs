//! What the runs under test run in: a ledger, users who pay, and a Stripe that counts, forgets and fails as told.

use crate::run::run;
use aws_sdk_eventbridge::config::{BehaviorVersion, Credentials, Region};
use bus::Bus;
use domain::{
    Account, Classes, CustomerId, Demand, HoldId, ModelId, ModelPrice, Period, Plan, PlanId, Plans,
    RateLimit, SubscriptionId, Timestamp, Tokens, Usage, UserId,
};
use ledger::{Ledger, MemoryStore, MeterKey, OpenHold};
use report::{CALLS_PER_S_MAX, Deps, Pace, Report, StripeMeter};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, VecDeque},
    num::{NonZeroU16, NonZeroU32, NonZeroU64},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};
use stripe::{
    Secret, Settings, Stripe,
    testing::{Memory, Peer, Reply, Request},
};

/// The first period starts here: a whole minute, 2027-01-15T08:00:00Z.
pub(super) const START: Timestamp = Timestamp::from_s(1_800_000_000);
pub(super) const HOUR_MS: u64 = 60 * 60 * 1_000;
pub(super) const DAY_MS: u64 = 24 * HOUR_MS;
/// What the plan that is paid for includes, in tokens. Above that, each costs a cent.
pub(super) const INCLUDED: u32 = 1_000;
/// In nano-dollars a million tokens.
const CENT_A_TOKEN: u64 = 10_000_000_000_000;
const HOLD_MS: u64 = 10 * 60 * 1_000;

/// What Stripe does with the next event of a customer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mishap {
    /// Counts it, and the answer is lost.
    AnswerLost,
    /// The call is lost.
    CallLost,
    /// Answers this status, without counting.
    Status(u16),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) customer: String,
    pub(super) tokens: u64,
    pub(super) timestamp_s: u64,
}

/// What Stripe knows.
#[derive(Default)]
pub(super) struct Book {
    pub(super) events: BTreeMap<String, Counted>,
    pub(super) mishaps: BTreeMap<String, VecDeque<Mishap>>,
    /// Every invoice, as Stripe tells of it.
    pub(super) invoices: Vec<Value>,
    /// Every invoice item, the oldest first.
    pub(super) items: Vec<Value>,
    /// Those that somebody else made.
    pub(super) foreign_items: Vec<Value>,
    /// The subscription's trial; none: it had none.
    pub(super) trial: Option<Period>,
    /// When the subscription ended; none: it goes on.
    pub(super) ended: Option<Timestamp>,
    /// What the price of usage includes, in tokens, and what each further one costs, in cents; none: what the book says. Without
    /// any tokens the subscription has no such price.
    pub(super) sold_at: Option<(u64, &'static str)>,
    /// Counts are refused for good: the customer was deleted.
    pub(super) counts_are_refused: bool,
    /// Answers by idempotency key.
    saved: BTreeMap<String, Reply>,
    /// Every request, in order.
    pub(super) requests: Vec<Request>,
    /// Done once, when the next event comes in.
    pub(super) meanwhile: Option<Box<dyn FnOnce() + Send>>,
    /// Done each time when a count is asked for, by a Stripe in memory that looks for it.
    pub(super) at_count: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Book {
    pub(super) fn answer(&mut self, request: &Request) -> Reply {
        self.requests.push(request.clone());
        match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/v1/billing/meter_events") => self.take(&request.form),
            ("GET", "/v1/billing/meters/mtr_1/event_summaries") => self.count(&request.query),
            ("GET", "/v1/invoices") => list(&self.invoices, &request.query["customer"]),
            ("GET", "/v1/invoiceitems") => {
                let all: Vec<Value> = self.foreign_items.iter().chain(&self.items).cloned().collect();
                list(&all, &request.query["customer"])
            }
            ("GET", "/v1/subscriptions/sub_1") => Reply::Answer(200, self.subscription().to_string()),
            ("GET", "/v1/subscriptions") => {
                assert_eq!(request.query["status"], "all");
                list(&[self.subscription()], "cus_a")
            }
            ("GET", path) if path.starts_with("/v1/prices/") => self.price(path),
            ("POST", "/v1/invoiceitems") => self.add_item(request),
            (method, path) => panic!("no such endpoint: {method} {path}"),
        }
    }

    /// Puts an item on a customer, once for each idempotency key.
    fn add_item(&mut self, request: &Request) -> Reply {
        let key = request.headers["idempotency-key"].clone();
        if let Some(saved) = self.saved.get(&key) {
            return saved.clone();
        }
        let form = &request.form;
        let mishap = self.mishaps.get_mut("items").and_then(VecDeque::pop_front);
        match mishap {
            Some(Mishap::CallLost) => return Reply::Cut,
            Some(Mishap::Status(status)) => return error(status, "no"),
            Some(Mishap::AnswerLost) | None => {}
        }
        assert_eq!(form["currency"], "usd");
        let item = json!({"object": "invoiceitem", "id": format!("ii_{}", self.items.len()),
            "customer": form["customer"], "amount": form["amount"].parse::<i64>().unwrap(), "invoice": null,
            "description": form["description"], "metadata": {"inkmeter_report": form["metadata[inkmeter_report]"]},
            "period": {"start": form["period[start]"].parse::<u64>().unwrap(), "end": form["period[end]"].parse::<u64>().unwrap()}});
        self.items.push(item.clone());
        let answer = Reply::Answer(200, item.to_string());
        self.saved.insert(key, answer.clone());
        if mishap.is_some() { Reply::Cut } else { answer }
    }

    fn subscription(&self) -> Value {
        let meter = self.sold_at.is_none_or(|(included, _)| included > 0).then_some("mtr_1");
        let items = json!({"data": [{"price": {"id": "price_1", "recurring": {"meter": meter}}}]});
        json!({"id": "sub_1", "object": "subscription", "customer": "cus_a", "created": START.s(),
            "ended_at": self.ended.map(Timestamp::s), "trial_start": self.trial.map(|trial| trial.start().s()),
            "trial_end": self.trial.map(|trial| trial.end().s()), "items": items})
    }

    fn price(&self, path: &str) -> Reply {
        let (included, cents) = self.sold_at.unwrap_or((u64::from(INCLUDED), "1"));
        let tier = |up_to: Option<u64>, cents: &str| json!({"up_to": up_to, "unit_amount_decimal": cents, "flat_amount_decimal": null});
        let recurring =
            json!({"interval": "month", "interval_count": 1, "usage_type": "metered", "meter": "mtr_1"});
        let price = json!({"id": path.rsplit('/').next(), "active": true, "currency": "usd", "product": "prod_1",
            "lookup_key": null, "billing_scheme": "tiered", "tiers_mode": "graduated", "unit_amount_decimal": null,
            "transform_quantity": null, "recurring": recurring,
            "tiers": [tier(Some(included), "0"), tier(None, cents)]});
        Reply::Answer(200, price.to_string())
    }

    /// What Stripe makes of the usage of a price that a change of plan takes off its subscription.
    pub(super) fn usage_until_a_change(&mut self, customer: &str, at: Timestamp) {
        self.foreign_items.push(json!({"object": "invoiceitem", "id": format!("ii_foreign_{}", self.foreign_items.len()),
            "customer": customer, "amount": 0, "invoice": null, "metadata": {},
            "pricing": {"type": "price_details", "price_details": {"price": "price_old", "product": "prod_1"}},
            "period": {"start": at.s() - 60, "end": at.s()}}));
    }

    /// Draws up the invoice of a customer's period: a draft that becomes final an hour after it, or one that is final.
    pub(super) fn invoice(&mut self, customer: &str, period: Period, finalized: Option<Timestamp>) {
        let (start, end) = (period.start().s(), period.end().s());
        self.invoices.push(json!({"object": "invoice", "id": format!("in_{}", self.invoices.len()),
            "customer": customer, "status": if finalized.is_some() { "paid" } else { "draft" },
            "parent": {"subscription_details": {"subscription": "sub_1"}}, "billing_reason": "subscription_cycle",
            "period_start": start, "period_end": end, "created": end,
            "automatically_finalizes_at": finalized.is_none().then_some(end + 3_600),
            "status_transitions": {"finalized_at": finalized.map(Timestamp::s)}, "total": 2_000,
            "hosted_invoice_url": null}));
    }

    fn take(&mut self, form: &BTreeMap<String, String>) -> Reply {
        assert_eq!(form["event_name"], "tokens");
        if let Some(meanwhile) = self.meanwhile.take() {
            meanwhile();
        }
        let customer = form["payload[stripe_customer_id]"].clone();
        let (identifier, timestamp) = (form["identifier"].clone(), form["timestamp"].clone());
        let mishap = self.mishaps.get_mut(&customer).and_then(VecDeque::pop_front);
        match mishap {
            Some(Mishap::CallLost) => return Reply::Cut,
            Some(Mishap::Status(status)) => return error(status, "no"),
            Some(Mishap::AnswerLost) | None => {}
        }
        if self.events.contains_key(&identifier) {
            let words = format!("An event already exists with identifier {identifier}.");
            return error(400, &words);
        }
        let counted = Counted {
            customer,
            tokens: form["payload[value]"].parse().unwrap(),
            timestamp_s: timestamp.parse().unwrap(),
        };
        let body = json!({"object": "billing.meter_event", "created": counted.timestamp_s, "event_name": "tokens",
            "identifier": identifier, "livemode": false, "payload": {}, "timestamp": counted.timestamp_s});
        self.events.insert(identifier, counted);
        if mishap.is_some() { Reply::Cut } else { Reply::Answer(200, body.to_string()) }
    }

    fn count(&self, query: &BTreeMap<String, String>) -> Reply {
        if self.counts_are_refused {
            return error(400, "No such customer");
        }
        let bound = |name: &str| query[name].parse::<u64>().unwrap();
        let (start, end) = (bound("start_time"), bound("end_time"));
        assert!(start.is_multiple_of(60) && end.is_multiple_of(60) && start < end);
        let of_customer = self.events.values().filter(|event| event.customer == query["customer"]);
        let sum: u64 =
            of_customer.filter(|e| start <= e.timestamp_s && e.timestamp_s < end).map(|e| e.tokens).sum();
        let summary = json!({"id": "mtrusg_1", "object": "billing.meter_event_summary", "aggregated_value": sum,
            "start_time": start, "end_time": end, "livemode": false, "meter": "mtr_1"});
        let list = json!({"object": "list", "url": "/", "has_more": false, "data": [summary]});
        Reply::Answer(200, list.to_string())
    }
}

/// Those of a customer, the newest first, all on one page.
fn list(all: &[Value], customer: &str) -> Reply {
    let data: Vec<&Value> = all.iter().rev().filter(|one| one["customer"] == customer).collect();
    Reply::Answer(200, json!({"object": "list", "url": "/", "has_more": false, "data": data}).to_string())
}

fn error(status: u16, words: &str) -> Reply {
    let body = json!({"error": {"type": "invalid_request_error", "message": words}});
    Reply::Answer(status, body.to_string())
}

/// Everything that a run touches.
pub(super) struct World {
    pub(super) deps: Deps<MemoryStore>,
    pub(super) store: MemoryStore,
    pub(super) book: Arc<Mutex<Book>>,
    pub(super) bus: Peer,
    /// Stripe, unless it is in memory.
    _stripe: Option<Peer>,
    clock_ms: AtomicU64,
    ids: AtomicU32,
}

/// A bus behind this peer.
pub(super) fn bus_at(peer: &Peer) -> Bus {
    let config = aws_sdk_eventbridge::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .credentials_provider(Credentials::new("key", "secret", None, None, "test"))
        .endpoint_url(peer.url())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .retry_config(aws_config::retry::RetryConfig::disabled())
        .build();
    Bus::new(aws_sdk_eventbridge::Client::from_conf(config), "bus".into())
}

/// The entries of a call to the bus.
pub(super) fn entries(request: &Request) -> Vec<Value> {
    let body: Value = serde_json::from_str(&request.body).unwrap();
    body["Entries"].as_array().unwrap().clone()
}

impl World {
    pub(super) async fn new() -> Self {
        let book = Arc::new(Mutex::new(Book::default()));
        let shared = Arc::clone(&book);
        let peer = Peer::start(move |request| shared.lock().unwrap().answer(request)).await.unwrap();
        let settings = Settings { base_url: Some(peer.url().into()), secret_key: Secret::new("sk_test_x") };
        let stripe = Stripe::new(settings).unwrap();
        Self { _stripe: Some(peer), ..Self::with(book, stripe).await }
    }

    /// The same, with a Stripe of the test's own, which answers from the book.
    pub(super) async fn in_memory(memory: impl FnOnce(Arc<Mutex<Book>>) -> Memory) -> Self {
        let book = Arc::new(Mutex::new(Book::default()));
        let settings = Settings { base_url: None, secret_key: Secret::new("sk_test_x") };
        let stripe = Stripe::new(settings).unwrap().in_memory(memory(Arc::clone(&book)));
        Self::with(book, stripe).await
    }

    async fn with(book: Arc<Mutex<Book>>, stripe: Stripe) -> Self {
        let bus = Peer::start(|request| {
            let taken: Vec<_> = entries(request).iter().map(|_| json!({"EventId": "1"})).collect();
            Reply::Answer(200, json!({"FailedEntryCount": 0, "Entries": taken}).to_string())
        })
        .await
        .unwrap();
        let store = MemoryStore::new();
        let pace = Pace::new(|_| 0, NonZeroU32::new(CALLS_PER_S_MAX).unwrap());
        let leases = AtomicU32::new(0);
        let deps = Deps {
            ledger: Ledger::new(store.clone(), plans()),
            stripe,
            meter: StripeMeter { event_name: "tokens".into(), id: "mtr_1".into() },
            bus: bus_at(&bus),
            pace: Pace { pause_ms: 0, ..pace },
            new_id: Box::new(move || {
                HoldId::parse(&format!("l{}", leases.fetch_add(1, Ordering::Relaxed))).unwrap()
            }),
        };
        let (clock_ms, ids) = (AtomicU64::new(START.ms()), AtomicU32::new(0));
        Self { deps, store, book, bus, _stripe: None, clock_ms, ids }
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.clock_ms.load(Ordering::Relaxed))
    }

    pub(super) fn set(&self, now: Timestamp) {
        self.clock_ms.store(now.ms(), Ordering::Relaxed);
    }

    pub(super) fn pass(&self, ms: u64) {
        self.set(self.now().plus_ms(ms));
    }

    /// A run with all the time it wants.
    pub(super) async fn run(&self) -> Report {
        run(&self.deps, self.now().plus_ms(HOUR_MS), || self.now()).await
    }

    /// A user whose plan is paid by the customer of the same name, in periods counted from `anchor`.
    pub(super) async fn pays(&self, name: &str, anchor: Timestamp) -> UserId {
        let user = UserId::parse(name).unwrap();
        let bought = |account: &Account| {
            Some(Account {
                plan: PlanId::parse("pro").unwrap(),
                customer: Some(CustomerId::parse(name).unwrap()),
                subscription: Some(SubscriptionId::parse("sub_1").unwrap()),
                anchor,
                ..account.clone()
            })
        };
        self.deps.ledger.change_account(&user, anchor, bought).await.unwrap();
        user
    }

    /// A request that is under way.
    pub(super) async fn admit(&self, user: &UserId, tokens: u32) -> OpenHold {
        let tokens = Tokens::from_u32(tokens);
        let demand = Demand {
            prompt_most: tokens,
            prompt_least: tokens,
            output_most: Tokens::from_u32(1),
            output_least: Tokens::from_u32(1),
        };
        let new_id = || HoldId::parse(&format!("h{}", self.ids.fetch_add(1, Ordering::Relaxed))).unwrap();
        self.deps.ledger.admit(user, &demand, &price(), HOLD_MS, &new_id, self.now()).await.unwrap()
    }

    /// A request from its admission to its end.
    pub(super) async fn uses(&self, user: &UserId, tokens: u32) -> MeterKey {
        let hold = self.admit(user, tokens).await;
        let key = MeterKey { user: user.clone(), period_start: hold.period().start() };
        self.deps.ledger.settle(hold, usage(tokens), &price(), self.now()).await.unwrap();
        key
    }

    pub(super) fn mishap(&self, customer: &str, mishaps: &[Mishap]) {
        let mishaps = mishaps.iter().copied().collect();
        self.book.lock().unwrap().mishaps.insert(customer.into(), mishaps);
    }

    /// What Stripe has counted for a customer: tokens by event, in the order of their identifiers.
    pub(super) fn counted(&self, customer: &str) -> Vec<u64> {
        let book = self.book.lock().unwrap();
        book.events.values().filter(|event| event.customer == customer).map(|event| event.tokens).collect()
    }

    /// The identifiers of all meter events sent, in order, repeats included.
    pub(super) fn identifiers_sent(&self) -> Vec<String> {
        let book = self.book.lock().unwrap();
        book.requests.iter().filter_map(|request| request.form.get("identifier").cloned()).collect()
    }

    /// What was said on the bus.
    pub(super) fn announced(&self) -> Vec<String> {
        let entries = self.bus.requests().iter().flat_map(entries).collect::<Vec<_>>();
        entries.iter().map(|entry| entry["DetailType"].as_str().unwrap().to_owned()).collect()
    }
}

pub(super) fn usage(tokens: u32) -> Usage {
    Usage::Exact(Classes { input: Tokens::from_u32(tokens), ..Classes::default() })
}

pub(super) fn price() -> ModelPrice {
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

fn plans() -> Plans {
    let plan = |id: &str, overage: Option<NonZeroU64>| Plan {
        id: PlanId::parse(id).unwrap(),
        price_cents: 0,
        included: Tokens::from_u32(if overage.is_some() { INCLUDED } else { 1_000_000 }),
        cap: Tokens::from_u32(1_000_000),
        overage_per_million: overage,
        rate: RateLimit {
            requests: NonZeroU32::new(1_000).unwrap(),
            window_ms: NonZeroU64::new(60_000).unwrap(),
        },
        concurrency: NonZeroU16::new(10).unwrap(),
    };
    Plans::new(vec![plan("free", None), plan("pro", NonZeroU64::new(CENT_A_TOKEN))]).unwrap()
}
