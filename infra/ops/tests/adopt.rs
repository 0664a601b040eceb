//! `ops adopt` against the stand-in for Stripe: subscriptions from before there were meters, taken over, moved at their cycle's
//! end and billed; crashed before every effect, with every answer lost, and seen dry.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking; the helpers are part of it"
)]

mod support;

use aws_sdk_eventbridge::config::{BehaviorVersion, Credentials, Region};
use axum::{Router, body::to_bytes, extract::Request as Incoming};
use bus::Bus;
use clap::Parser;
use domain::{
    Account as UserAccount, Billing, Classes, CustomerId, Demand, HoldId, Meter, ModelId, ModelPrice,
    Outcome, RowFate, Timestamp, Tokens, Usage, UserId,
};
use edge::plans::PlanBook;
use futures_util::FutureExt as _;
use lambda_http::Body;
use ledger::{Ledger, MemoryStore, MeterKey};
use local::cloud::Catalog;
use local::stripe::{Delivery, InvoiceView, Options, SignatureClock, Stripe as StandIn, WebhookEndpoint};
use ops::adopt::{AdoptArguments, run};
use ops::key::Account;
use ops::{Console, Exit, Global};
use report::{Deps, Finding, Pace, Reconciling, StripeMeter};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::num::{NonZeroU32, NonZeroU64};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use stripe::testing::{Memory, Reply, Request};
use stripe::{Secret, Settings, SigningSecrets, Stripe};
use support::{KEY, forward};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use webhook::{
    handler::{CALL_MS_MAX, Webhook},
    sync::Accounts,
};

const BOOK: &str = include_str!("../../plans.toml");
const SECRET: &str = "whsec_test";
/// 2030-01-01, 2030-01-20, 2030-02-01, 2030-02-10 and 2030-03-01, all at midnight.
const JANUARY_S: i64 = 1_893_456_000;
const TAKEN_OVER_S: i64 = JANUARY_S + 19 * DAY_S;
const FEBRUARY_S: i64 = JANUARY_S + 31 * DAY_S;
const WITHIN_FEBRUARY_S: i64 = FEBRUARY_S + 9 * DAY_S;
const MARCH_S: i64 = FEBRUARY_S + 28 * DAY_S;
const DAY_S: i64 = 24 * 60 * 60;
const HOLD_MS: u64 = 600_000;
/// What the old billing takes: $19 a month, and where it is metered $0.004 per 1,000 tokens.
const OLD_FLAT_CENTS: i64 = 1_900;

/// The arguments without a subcommand.
#[derive(Parser)]
struct Line {
    #[command(flatten)]
    global: Global,
    #[command(flatten)]
    adopt: AdoptArguments,
}

/// What happens to the requests that change something. They are counted from 0.
#[derive(Clone)]
enum Fault {
    None,
    /// From this one on nothing goes out, reading included: the process was killed.
    Killed(usize),
    /// This one is carried out, and its answer lost.
    AnswerLost(usize),
    /// What is asked of this path is not answered so many times.
    Unread(String, usize),
}

struct World {
    stand_in: StandIn,
    http: reqwest::Client,
    store: MemoryStore,
    ledger: Ledger<MemoryStore>,
    deps: Arc<Deps<MemoryStore>>,
    book: PlanBook,
    catalog: Catalog,
    flat: String,
    metered: String,
    asked: Arc<Mutex<Vec<String>>>,
    _endpoint: JoinSet<()>,
}

struct Ran {
    exit: Exit,
    out: String,
    err: String,
}

fn clock_of(stand_in: &StandIn) -> Timestamp {
    Timestamp::from_s(u64::try_from(stand_in.now_s()).unwrap())
}

fn client(stand_in: &StandIn) -> Stripe {
    let settings = Settings { base_url: Some(stand_in.base_url()), secret_key: Secret::new(KEY) };
    Stripe::new(settings).unwrap()
}

fn bus() -> Bus {
    let config = aws_sdk_eventbridge::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .credentials_provider(Credentials::new("key", "secret", None, None, "test"))
        .endpoint_url("http://127.0.0.1:9")
        .retry_config(aws_sdk_eventbridge::config::retry::RetryConfig::disabled())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    Bus::new(aws_sdk_eventbridge::Client::from_conf(config), "bus".into())
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn t(tokens: u32) -> Tokens {
    Tokens::from_u32(tokens)
}

async fn serve(webhook: Webhook<MemoryStore>, stand_in: StandIn, endpoint: &mut JoinSet<()>) -> String {
    let handle = move |request: Incoming| {
        let (webhook, stand_in) = (webhook.clone(), stand_in.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body = to_bytes(body, 1 << 20).await.unwrap();
            let request = lambda_http::Request::from_parts(parts, Body::Binary(body.to_vec()));
            let answer = webhook.handle(request, &|| clock_of(&stand_in)).await;
            answer.map(|body| axum::body::Body::from(body.to_vec()))
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/webhooks/stripe", listener.local_addr().unwrap());
    endpoint.spawn(async move { axum::serve(listener, Router::new().fallback(handle)).await.unwrap() });
    url
}

impl World {
    async fn start() -> Self {
        let options = Options {
            delivery: Delivery::OnDemand,
            signature_clock: SignatureClock::Stripe,
            ..Options::default()
        };
        let listener = local::net::bind_loopback().unwrap();
        let stand_in = local::stripe::start(listener, options).await.unwrap();
        stand_in.advance_to(JANUARY_S).await.unwrap();
        let catalog = Catalog::set_up(&stand_in.base_url(), KEY, BOOK).await.unwrap();
        let book = PlanBook::parse(BOOK).unwrap();
        let store = MemoryStore::new();
        let ledger = Ledger::new(store.clone(), book.plans().clone());
        let deps = Arc::new(Deps {
            ledger: ledger.clone(),
            stripe: client(&stand_in).timeout(Duration::from_millis(CALL_MS_MAX)),
            meter: StripeMeter { event_name: "inkmeter_tokens".into(), id: catalog.meter_id.clone() },
            bus: bus(),
            pace: Pace { pause_ms: 0, ..Pace::new(|_| 0, NonZeroU32::new(500).unwrap()) },
            new_id: Box::new(edge::ids::new_hold_id),
        });
        let accounts = Accounts::new(ledger.clone(), client(&stand_in), book.clone());
        let secrets = SigningSecrets { snapshot: vec![Secret::new(SECRET)], thin: Vec::new() };
        let webhook = Webhook::new(accounts, Arc::clone(&deps), secrets);
        let mut endpoint = JoinSet::new();
        let url = serve(webhook, stand_in.clone(), &mut endpoint).await;
        stand_in.set_webhook(Some(WebhookEndpoint { url, secret: SECRET.to_owned() }));
        let http = edge::http::client().unwrap();
        let mut world = Self {
            stand_in,
            http,
            store,
            ledger,
            deps,
            book,
            catalog,
            flat: String::new(),
            metered: String::new(),
            asked: Arc::default(),
            _endpoint: endpoint,
        };
        let product = world.post("products", &[("name", "Old")]).await;
        let price = |more: &[(&str, &str)]| {
            let product = product["id"].as_str().unwrap();
            let form = [("currency", "usd"), ("product", product), ("recurring[interval]", "month")];
            let form: Vec<_> = form.into_iter().chain(more.iter().copied()).collect();
            world.stand_in.legacy_price(&form).unwrap()
        };
        let flat = price(&[("unit_amount", "1900")]);
        let metered = price(&[("recurring[usage_type]", "metered"), ("unit_amount_decimal", "0.0004")]);
        (world.flat, world.metered) = (flat, metered);
        world
    }

    fn now(&self) -> Timestamp {
        clock_of(&self.stand_in)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Value {
        let answer = request.bearer_auth(KEY).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{text}");
        serde_json::from_str(&text).unwrap()
    }

    async fn post(&self, path: &str, form: &[(&str, &str)]) -> Value {
        self.send(self.http.post(format!("{}v1/{path}", self.stand_in.base_url())).form(form)).await
    }

    async fn get(&self, path: &str) -> Value {
        self.send(self.http.get(format!("{}v1/{path}", self.stand_in.base_url()))).await
    }

    async fn customer(&self, form: &[(&str, &str)]) -> String {
        self.post("customers", form).await["id"].as_str().unwrap().to_owned()
    }

    /// A customer with a subscription to old prices: their ids.
    async fn sold(&self, prices: &[&str], named: Option<&str>) -> (String, String) {
        let form: Vec<_> = named.map(|user| ("metadata[user_id]", user)).into_iter().collect();
        let customer = self.customer(&form).await;
        let fields: Vec<String> = (0..prices.len()).map(|index| format!("items[{index}][price]")).collect();
        let items = fields.iter().map(String::as_str).zip(prices.iter().copied());
        let form: Vec<_> = [("customer", customer.as_str())].into_iter().chain(items).collect();
        let subscription = self.stand_in.legacy_subscription(&form).unwrap();
        (customer, subscription)
    }

    async fn sold_metered(&self, used: u64) -> (String, String) {
        let (customer, subscription) = self.sold(&[&self.flat, &self.metered], None).await;
        let found = self.get(&format!("subscriptions/{subscription}")).await;
        let items = found["items"]["data"].as_array().unwrap();
        let item = items.iter().find(|item| item["price"]["id"] == self.metered.as_str()).unwrap();
        if used > 0 {
            self.stand_in.legacy_usage(item["id"].as_str().unwrap(), used).unwrap();
        }
        (customer, subscription)
    }

    fn stripe(&self, fault: Fault) -> Stripe {
        let (http, base, asked) = (self.http.clone(), self.stand_in.base_url(), Arc::clone(&self.asked));
        let changes = Arc::new(AtomicUsize::new(0));
        let unread = AtomicUsize::new(0);
        let memory = Memory::new(move |request: Request| {
            let (http, base, changes) = (http.clone(), base.clone(), Arc::clone(&changes));
            asked.lock().unwrap().push(format!("{} {}", request.method, request.path));
            let is_unread = matches!(&fault, Fault::Unread(path, times)
                if request.path.contains(path) && unread.fetch_add(1, Ordering::SeqCst) < *times);
            let fault = fault.clone();
            async move {
                if is_unread {
                    return Reply::Cut;
                }
                let number = (request.method != "GET").then(|| changes.fetch_add(1, Ordering::SeqCst));
                match fault {
                    Fault::Killed(at) if changes.load(Ordering::SeqCst) > at => {
                        let error = r#"{"error":{"type":"invalid_request_error","message":"killed"}}"#;
                        Reply::Answer(400, error.into())
                    }
                    Fault::AnswerLost(at) if number == Some(at) => {
                        forward(&http, &base, request).await;
                        Reply::Cut
                    }
                    _ => forward(&http, &base, request).await,
                }
            }
        });
        client(&self.stand_in).in_memory(memory)
    }

    async fn run(&self, mapping: &str, more: &[&str]) -> Ran {
        self.run_with(mapping, more, Fault::None, usize::MAX).await.unwrap()
    }

    /// Runs the command; none: it died when it looked at the clock for this time.
    async fn run_with(&self, mapping: &str, more: &[&str], fault: Fault, dies_at: usize) -> Option<Ran> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(mapping.as_bytes()).unwrap();
        let prices = [&self.flat, &self.metered].map(|old| format!("--price={old}=pro"));
        let mut words = vec!["ops", "--live", "--yes", &prices[0], &prices[1]];
        words.extend(more);
        words.push(file.path().to_str().unwrap());
        let line = Line::try_parse_from(words).unwrap();
        // The pace of a live key, for the tests' sake.
        let account = Account { stripe: self.stripe(fault), live: true };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut ask = |_: &str| None;
        let mut console = Console { out: &mut out, err: &mut err, ask: &mut ask };
        let looked = AtomicUsize::new(0);
        let now = || {
            assert!(looked.fetch_add(1, Ordering::SeqCst) < dies_at, "the process dies here");
            self.now()
        };
        let books = (&self.ledger, &self.book);
        let ran = run(&account, books, &line.global, &line.adopt, &mut console, &now);
        let exit = AssertUnwindSafe(ran).catch_unwind().await.ok()?.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Some(Ran { exit, out: text(out), err: text(err) })
    }

    /// Somebody uses so many tokens.
    async fn uses(&self, name: &str, tokens: u32) {
        let (tokens, one, now) = (t(tokens), t(1), self.now());
        let demand =
            Demand { prompt_most: tokens, prompt_least: tokens, output_most: one, output_least: one };
        let new_id = edge::ids::new_hold_id;
        let hold = self.ledger.admit(&user(name), &demand, &price(), HOLD_MS, &new_id, now).await.unwrap();
        let usage = Usage::Exact(Classes { input: tokens, ..Classes::default() });
        self.ledger.settle(hold, usage, &price(), now).await.unwrap();
    }

    fn account(&self, name: &str) -> Option<UserAccount> {
        self.store.kept().accounts.get(&user(name)).cloned()
    }

    fn meters(&self, name: &str) -> Vec<Meter> {
        self.store.every_meter().into_iter().filter(|meter| meter.user == user(name)).collect()
    }

    /// The invoices of a customer for a new cycle, the oldest first.
    fn cycles(&self, customer: &str) -> Vec<InvoiceView> {
        let mut invoices = self.stand_in.invoices(customer);
        invoices.retain(|invoice| invoice.reason == "subscription_cycle");
        invoices.sort_by_key(|invoice| invoice.created_s);
        invoices
    }

    async fn advance(&self, to_s: i64) {
        self.stand_in.advance_to(to_s).await.unwrap();
        assert_eq!(self.stand_in.deliver_all(5).await, 0, "{:?}", self.stand_in.undelivered());
    }

    async fn reconciles(&self) {
        let now = || self.now();
        let reconciling =
            Reconciling::new(&self.deps, self.now().plus_ms(3_600_000), &now).within(100 * 86_400_000);
        for meter in self.store.every_meter() {
            let checkup = reconciling.meter(&MeterKey::of(&meter)).await.unwrap();
            // Of a meter whose period was cut when its user came to pay, Stripe's count says nothing.
            let expected = if meter.mixed { Finding::Incomparable } else { Finding::Agrees };
            assert_eq!(checkup.finding, expected, "{meter:?}");
        }
    }

    /// Everything that a run has to leave behind for one customer, but for what counts how often something was written.
    async fn left(&self, name: &str, customer: &str, subscription: &str) -> BTreeMap<&'static str, Value> {
        let found = self.get(&format!("subscriptions/{subscription}")).await;
        let schedule =
            self.get(&format!("subscription_schedules/{}", found["schedule"].as_str().unwrap())).await;
        let schedules = self.get(&format!("subscription_schedules?customer={customer}")).await;
        let phases: Vec<Value> = schedule["phases"]
            .as_array()
            .unwrap()
            .iter()
            .map(|phase| {
                let items = phase["items"].as_array().unwrap().iter();
                let items: Vec<&Value> = items.map(|item| &item["price"]).collect();
                let base = &self.catalog.plans["pro"].base_price_id;
                let new = items.iter().any(|price| **price == base.as_str());
                Value::from(vec![
                    Value::from(phase["start_date"].as_i64()),
                    Value::from(phase["end_date"].as_i64()),
                    Value::from(items.len()),
                    Value::from(new),
                ])
            })
            .collect();
        let account = self.account(name).unwrap();
        let [meter] = self.meters(name).try_into().unwrap();
        let (receipts, reports) =
            (self.store.receipts_of(&MeterKey::of(&meter)), self.store.reports_of(&MeterKey::of(&meter)));
        BTreeMap::from([
            ("customer", self.get(&format!("customers/{customer}")).await["metadata"].clone()),
            ("subscription", found["metadata"].clone()),
            ("schedules", Value::from(schedules["data"].as_array().unwrap().len())),
            ("made by", schedule["metadata"].clone()),
            ("ends", schedule["end_behavior"].clone()),
            ("phases", Value::from(phases)),
            (
                "account",
                Value::from(format!(
                    "{:?}",
                    UserAccount { rev: 0, subscription: None, customer: None, ..account.clone() }
                )),
            ),
            (
                "paid by",
                Value::from(vec![
                    account.customer.as_ref().map(ToString::to_string) == Some(customer.to_owned()),
                    account.subscription.as_ref().map(ToString::to_string) == Some(subscription.to_owned()),
                ]),
            ),
            (
                "meter",
                Value::from(format!(
                    "{:?} {} {} {} {} {:?}",
                    meter.period, meter.settled, meter.committed, meter.sealed, meter.invoiced, meter.billing
                )),
            ),
            ("receipts", Value::from(receipts.len())),
            ("reports", Value::from(reports.len())),
        ])
    }
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
        output_max: t(1_000),
        reasoning_effort: None,
    }
}

fn mapping(lines: &[(&str, &str, u32)]) -> String {
    lines.iter().fold("customer,user,tokens\n".to_owned(), |text, (customer, user, tokens)| {
        format!("{text}{customer},{user},{tokens}\n")
    })
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one story of two cycles, told in order")]
async fn twelve_old_customers_are_taken_over_and_the_next_invoices_are_right_to_the_cent() {
    let world = World::start().await;
    let flat = world.sold(&[&world.flat], None).await;
    let heavy = world.sold_metered(600_000).await;
    let light = world.sold_metered(0).await;
    let named = world.sold(&[&world.flat], Some("user_named")).await;
    let was_free = world.sold_metered(1_000).await;
    let leaving = world.sold(&[&world.flat], None).await;
    world.post(&format!("subscriptions/{}", leaving.1), &[("cancel_at_period_end", "true")]).await;
    let idle = world.sold(&[&world.flat], None).await;
    // Those who cannot be taken over.
    let anothers = world.sold(&[&world.flat], Some("user_somebody_else")).await;
    let nothing = world.customer(&[]).await;
    let scheduled = world.sold(&[&world.flat], None).await;
    world.post("subscription_schedules", &[("from_subscription", scheduled.1.as_str())]).await;
    let unknown = {
        let product = world.post("products", &[("name", "Other")]).await["id"].as_str().unwrap().to_owned();
        let other = [
            ("currency", "usd"),
            ("product", product.as_str()),
            ("recurring[interval]", "month"),
            ("unit_amount", "500"),
        ];
        world.sold(&[&world.stand_in.legacy_price(&other).unwrap()], None).await
    };
    let deleted = world.customer(&[]).await;
    world.send(world.http.delete(format!("{}v1/customers/{deleted}", world.stand_in.base_url()))).await;

    world.advance(TAKEN_OVER_S).await;
    world.uses("user_free", 5_000).await;
    let lines = [
        (flat.0.as_str(), "user_flat", 100_000),
        (&heavy.0, "user_heavy", 600_000),
        (&light.0, "user_light", 0),
        (&named.0, "user_named", 0),
        (&was_free.0, "user_free", 1_000),
        (&leaving.0, "user_leaving", 10),
        (&idle.0, "user_idle", 0),
        (&anothers.0, "user_8", 0),
        (&nothing, "user_9", 0),
        (&scheduled.0, "user_10", 0),
        (&unknown.0, "user_11", 0),
        (&deleted, "user_12", 0),
    ];
    let file = mapping(&lines);
    let ran = world.run(&file, &[]).await;
    assert_eq!(ran.exit, Exit::Failed, "{}{}", ran.out, ran.err);
    for (customer, why) in [
        (&anothers.0, "user_somebody_else"),
        (&nothing, "no subscription"),
        (&scheduled.0, "somebody else's"),
        (&unknown.0, "--price price_"),
        (&deleted, "no such customer"),
    ] {
        let line = ran
            .out
            .lines()
            .find(|line| line.starts_with("REFUSED") && line.contains(customer.as_str()))
            .unwrap();
        assert!(line.contains(why), "{line}");
    }
    assert!(ran.out.contains("7 done, 0 to do, 5 refused, 0 failed"), "{}", ran.out);
    let again = world.run(&file, &[]).await;
    assert!(again.out.contains("7 as they should be, 0 done, 0 to do, 5 refused"), "{}", again.out);
    for refused in ["user_8", "user_9", "user_10", "user_11", "user_12"] {
        assert!(world.account(refused).is_none(), "{refused}");
    }
    let [meter] = world.meters("user_free").try_into().unwrap();
    assert_eq!((meter.settled, meter.sealed, meter.billing), (t(6_000), t(1_000), Billing::Item));

    // The rest of the cycle: what the flat price covers, what is an item, and what is within what is included.
    world.uses("user_flat", 450_000).await;
    world.uses("user_heavy", 100_000).await;
    world.uses("user_light", 300_000).await;
    world.advance(FEBRUARY_S + 3 * 60 * 60).await;
    world.reconciles().await;
    let totals =
        |customer: &str| world.cycles(customer).iter().map(|invoice| invoice.total_cents).collect::<Vec<_>>();
    assert_eq!(totals(&flat.0), [2_000], "the old billing has no overage");
    assert_eq!(totals(&heavy.0), [2_000 + 240], "600,000 old records at the old price, and the new month");
    assert_eq!(totals(&light.0), [2_000]);
    assert_eq!(totals(&was_free.0), [2_000], "0.4 cents round to nothing");
    assert_eq!(world.account("user_leaving").unwrap().plan.as_str(), "free");
    assert_eq!(world.stand_in.meter_events().len(), 0, "an event would be on no invoice");

    world.advance(WITHIN_FEBRUARY_S).await;
    world.uses("user_flat", 700_000).await;
    world.uses("user_heavy", 700_000).await;
    let late = world.run(&mapping(&lines[..7]), &[]).await;
    assert_eq!(late.exit, Exit::Failed, "the one who left has no subscription any more: {}", late.out);
    assert!(late.out.contains("6 done, 0 to do, 1 refused, 0 failed"), "{}", late.out);
    for (_, subscription) in [&flat, &heavy, &light] {
        let found = world.get(&format!("subscriptions/{subscription}")).await;
        assert_eq!(
            (&found["billing_mode"]["type"], &found["schedule"]),
            (&Value::from("flexible"), &Value::Null)
        );
    }
    world.advance(MARCH_S + 3 * 60 * 60).await;
    world.reconciles().await;
    assert_eq!(totals(&flat.0), [2_000, 2_000 + 40], "from the next period on as for anybody");
    assert_eq!(totals(&heavy.0), [2_240, 2_000 + 40 + 20], "100,000 tokens of the tail, once");
    assert_eq!(totals(&light.0), [2_000, 2_000]);
    assert_eq!(totals(&was_free.0), [2_000, 2_000]);
    let tail = |name: &str, fate| {
        let meters = world.meters(name);
        let first = MeterKey::of(meters.first().unwrap());
        let reports = world.store.reports_of(&first).into_iter().filter(|report| report.fate == fate);
        reports.map(|report| report.tokens).collect::<Vec<_>>()
    };
    assert_eq!(tail("user_heavy", RowFate::Invoiced), [t(600_000), t(100_000)]);
    assert_eq!(tail("user_flat", RowFate::Invoiced), [t(100_000), t(450_000)]);
    let invoices = world.stand_in.invoices(&anothers.0);
    assert!(invoices.iter().all(|invoice| invoice.total_cents == OLD_FLAT_CENTS), "{invoices:?}");
}

/// A customer before a run.
#[derive(Clone, Copy, Debug)]
enum Story {
    /// With a metered price, before the first run.
    Metered,
    /// With a flat price alone, before the first run.
    Flat,
    /// With a metered price, in the cycle after the first run.
    Second,
}

impl Story {
    /// What the run changes at Stripe: customer, subscription, its billing mode where it is flat, schedule, and what the schedule
    /// says; of the second one the mark, the schedule and the billing mode.
    fn changes(self) -> usize {
        match self {
            Self::Metered => 4,
            Self::Flat => 5,
            Self::Second => 3,
        }
    }

    /// How often the run looks at the clock: to plan, to plan again, for each of three steps in the ledger, and to see that
    /// nothing is left.
    fn looks(self) -> usize {
        match self {
            Self::Metered | Self::Flat => 6,
            Self::Second => 3,
        }
    }

    async fn begin(self) -> (World, Sold) {
        let world = World::start().await;
        let (customer, subscription) = match self {
            Self::Metered | Self::Second => world.sold_metered(400).await,
            Self::Flat => world.sold(&[&world.flat], None).await,
        };
        let file = mapping(&[(&customer, "user_1", 400)]);
        world.advance(TAKEN_OVER_S).await;
        if let Self::Second = self {
            assert_eq!(world.run(&file, &[]).await.exit, Exit::Done);
            world.advance(WITHIN_FEBRUARY_S).await;
        }
        (world, Sold { customer, subscription, file })
    }

    /// What the run has to leave behind.
    async fn left(self, world: &World, sold: &Sold) -> String {
        let Sold { customer, subscription, .. } = sold;
        let found = world.get(&format!("subscriptions/{subscription}")).await;
        let mode = found["billing_mode"]["type"].as_str().unwrap();
        match self {
            Self::Metered | Self::Flat => {
                format!("{mode} {}", by_name(&world.left("user_1", customer, subscription).await))
            }
            Self::Second => {
                let account = world.account("user_1").unwrap();
                let payers =
                    [account.customer.unwrap().to_string() == *customer, account.subscription.is_some()];
                let (mark, schedule) = (&found["metadata"]["inkmeter"], &found["schedule"]);
                format!("{mode}, mark {mark}, schedule {schedule}, plan {}, paid {payers:?}", account.plan)
            }
        }
    }
}

/// What was sold, and a mapping of it.
struct Sold {
    customer: String,
    subscription: String,
    file: String,
}

#[track_caller]
fn is_whole(ran: &Ran) {
    assert_eq!(ran.exit, Exit::Done, "{}{}", ran.out, ran.err);
}

async fn dies_and_is_finished(story: Story) {
    let (world, sold) = story.begin().await;
    is_whole(&world.run(&sold.file, &[]).await);
    let expected = story.left(&world, &sold).await;
    let killed = (0..story.changes()).map(|at| (Fault::Killed(at), usize::MAX));
    let faults = killed.chain((0..=story.looks()).map(|at| (Fault::None, at)));
    let mut died = 0;
    for (fault, dies_at) in faults {
        let (world, sold) = story.begin().await;
        let first = world.run_with(&sold.file, &[], fault, dies_at).await;
        died += usize::from(first.is_none_or(|ran| ran.exit == Exit::Failed));
        is_whole(&world.run(&sold.file, &[]).await);
        assert_eq!(story.left(&world, &sold).await, expected, "{story:?}");
        let again = world.run(&sold.file, &[]).await;
        assert!(again.out.contains("1 as they should be, 0 done, 0 to do"), "{}", again.out);
    }
    assert_eq!(died, story.changes() + story.looks(), "the last one had nothing left to die of");
}

#[tokio::test]
async fn a_run_that_dies_before_any_effect_is_finished_by_the_next() {
    dies_and_is_finished(Story::Metered).await;
}

#[tokio::test]
async fn a_run_for_a_flat_price_that_dies_before_any_effect_is_finished_by_the_next() {
    dies_and_is_finished(Story::Flat).await;
}

#[tokio::test]
async fn a_second_run_that_dies_before_any_effect_is_finished_by_the_next() {
    dies_and_is_finished(Story::Second).await;
}

/// The same, with the cycle's start, which is a second later in a slow world, by name.
fn by_name(left: &BTreeMap<&'static str, Value>) -> String {
    let text = serde_json::to_string(left).unwrap();
    let start_s: i64 = left["subscription"]["inkmeter_adopted"].as_str().unwrap().parse().unwrap();
    let named = [("start", 0), ("end", FEBRUARY_S - JANUARY_S), ("next end", MARCH_S - JANUARY_S)];
    named.into_iter().fold(text, |text, (name, after_s)| text.replace(&(start_s + after_s).to_string(), name))
}

#[tokio::test]
async fn an_answer_that_is_lost_is_looked_for_and_nothing_is_done_twice() {
    for story in [Story::Metered, Story::Flat, Story::Second] {
        let (world, sold) = story.begin().await;
        is_whole(&world.run(&sold.file, &[]).await);
        let expected = story.left(&world, &sold).await;
        for at in 0..story.changes() {
            let (world, sold) = story.begin().await;
            is_whole(&world.run_with(&sold.file, &[], Fault::AnswerLost(at), usize::MAX).await.unwrap());
            assert_eq!(story.left(&world, &sold).await, expected, "{story:?}");
            let schedules = world.get(&format!("subscription_schedules?customer={}", sold.customer)).await;
            assert_eq!(schedules["data"].as_array().unwrap().len(), 1, "{story:?}");
        }
    }
}

#[tokio::test]
async fn a_dry_run_shows_everything_and_changes_nothing() {
    let world = World::start().await;
    let (customer, subscription) = world.sold_metered(400).await;
    world.advance(TAKEN_OVER_S).await;
    let file = mapping(&[(&customer, "user_1", 400), ("cus_gone", "user_2", 0)]);
    let ran = world.run(&file, &["--dry-run", "--json"]).await;
    assert_eq!(ran.exit, Exit::Found, "{}", ran.err);
    let told: Value = serde_json::from_str(&ran.out).unwrap();
    let steps: Vec<&str> =
        told["plan"][0]["steps"].as_array().unwrap().iter().map(|step| step.as_str().unwrap()).collect();
    let expected = ["customer: no user", &subscription, &world.metered, "plan pro", "400 tokens", "paid by"];
    assert_eq!(steps.len(), expected.len(), "{steps:?}");
    for (step, expected) in steps.iter().zip(expected) {
        assert!(step.contains(expected), "{step}");
    }
    assert!(told["plan"][1]["refused"].as_str().unwrap().contains("no such customer"));
    assert_eq!((&told["dryRun"], &told["counts"]["toDo"]), (&Value::from(true), &Value::from(1)));
    let asked = world.asked.lock().unwrap().clone();
    assert!(!asked.is_empty() && asked.iter().all(|asked| asked.starts_with("GET ")), "{asked:?}");
    assert!(world.store.every_meter().is_empty() && world.store.kept().accounts.is_empty());
}

#[tokio::test]
async fn what_was_imported_stands_whatever_a_later_mapping_says() {
    let world = World::start().await;
    let (customer, _) = world.sold_metered(400).await;
    world.advance(TAKEN_OVER_S).await;
    assert_eq!(world.run(&mapping(&[(&customer, "user_1", 400)]), &[]).await.exit, Exit::Done);
    let ran = world.run(&mapping(&[(&customer, "user_1", 500)]), &[]).await;
    assert_eq!(ran.exit, Exit::Failed);
    assert!(ran.out.contains("400 tokens were imported") && ran.out.contains("says 500"), "{}", ran.out);
    let [meter] = world.meters("user_1").try_into().unwrap();
    assert_eq!(
        (meter.settled, meter.committed, meter.sealed, meter.invoiced),
        (t(400), t(400), t(400), t(400))
    );
    let receipts = world.store.receipts_of(&MeterKey::of(&meter));
    assert_eq!(receipts.len(), 1);
    assert_eq!((&receipts[0].outcome, receipts[0].charged), (&Outcome::Imported, t(400)));
    assert_eq!(receipts[0].id, HoldId::parse("adopted").unwrap());
    // Another user for the same customer is nobody's mistake to make twice.
    let ran = world.run(&mapping(&[(&customer, "user_2", 400)]), &[]).await;
    assert_eq!(ran.exit, Exit::Failed);
    assert!(ran.out.contains("is user user_1's"), "{}", ran.out);
}

#[tokio::test]
async fn what_stripe_refuses_is_said_in_its_words_and_nobody_is_half_taken_over_for_ever() {
    let world = World::start().await;
    let (customer, subscription) = world.sold_metered(400).await;
    world.advance(TAKEN_OVER_S).await;
    let file = mapping(&[(&customer, "user_1", 400)]);
    world.stand_in.refuse_legacy_phases(true);
    let ran = world.run(&file, &[]).await;
    assert_eq!(ran.exit, Exit::Failed);
    assert!(ran.out.contains("NOT DONE") && ran.out.contains("Stripe refused"), "{}", ran.out);
    assert!(world.account("user_1").is_none(), "nobody uses what would be billed by nothing");
    let found = world.get(&format!("subscriptions/{subscription}")).await;
    assert_eq!(found["schedule"], Value::Null, "or its customer could not cancel it");
    assert_eq!(found["metadata"]["inkmeter"], Value::Null);
    world.stand_in.refuse_legacy_phases(false);
    assert_eq!(world.run(&file, &[]).await.exit, Exit::Done);
    let left = world.left("user_1", &customer, &subscription).await;
    let schedules = left["schedules"].as_u64();
    assert_eq!((schedules, left["phases"].as_array().map(Vec::len)), (Some(2), Some(2)), "one was released");
}

#[tokio::test]
async fn a_reading_that_is_lost_is_repeated_and_then_only_its_customer_fails() {
    let world = World::start().await;
    let [(silent, _), (other, _)] = [world.sold_metered(0).await, world.sold_metered(0).await];
    world.advance(TAKEN_OVER_S).await;
    let file = mapping(&[(&silent, "user_1", 0), (&other, "user_2", 0)]);
    let always = Fault::Unread(format!("/customers/{silent}"), usize::MAX);
    let ran = world.run_with(&file, &[], always, usize::MAX).await.unwrap();
    assert_eq!(ran.exit, Exit::Failed);
    assert!(ran.out.contains("1 done, 0 to do, 0 refused, 1 failed"), "{}", ran.out);
    assert!(ran.out.contains(&format!("NOT DONE: {silent}")), "{}", ran.out);
    assert!(world.account("user_1").is_none() && world.account("user_2").is_some());
    let twice = Fault::Unread(format!("/customers/{silent}"), 2);
    let ran = world.run_with(&file, &[], twice, usize::MAX).await.unwrap();
    assert_eq!(ran.exit, Exit::Done, "{}{}", ran.out, ran.err);
    assert!(world.account("user_1").is_some());
}

impl World {
    /// Somebody is about to buy a plan as another customer: the customer and the session.
    async fn about_to_buy(&self, name: &str) -> (String, String) {
        let other = self.customer(&[]).await;
        let plan = &self.catalog.plans["pro"];
        let form = [
            ("mode", "subscription"),
            ("customer", other.as_str()),
            ("success_url", "https://example.com/"),
            ("metadata[inkmeter_asked]", "pro"),
            ("metadata[user_id]", name),
            ("line_items[0][price]", plan.base_price_id.as_str()),
            ("line_items[0][quantity]", "1"),
            ("line_items[1][price]", plan.metered_price_id.as_str()),
        ];
        let session = self.post("checkout/sessions", &form).await["id"].as_str().unwrap().to_owned();
        let id = CustomerId::parse(&other).unwrap();
        let named =
            |account: &UserAccount| Some(UserAccount { customer: Some(id.clone()), ..account.clone() });
        self.ledger.change_account(&user(name), self.now(), named).await.unwrap();
        (other, session)
    }
}

#[tokio::test]
async fn whoever_was_about_to_buy_a_plan_cannot_any_more_and_whoever_has_bought_it_is_not_taken_over() {
    let world = World::start().await;
    let [(one, subscription), (two, _)] = [world.sold_metered(0).await, world.sold_metered(0).await];
    world.advance(TAKEN_OVER_S).await;
    let (_, open) = world.about_to_buy("user_1").await;
    let (other, bought) = world.about_to_buy("user_2").await;
    world.stand_in.complete_checkout(&bought).unwrap();
    let ran = world.run(&mapping(&[(&one, "user_1", 0), (&two, "user_2", 0)]), &[]).await;
    assert_eq!(ran.exit, Exit::Failed);
    assert!(ran.out.contains("1 done, 0 to do, 1 refused, 0 failed"), "{}", ran.out);
    assert!(ran.out.contains(&format!("the customer {other}, who has bought a plan")), "{}", ran.out);
    assert_eq!(world.get(&format!("checkout/sessions/{open}")).await["status"], "expired");
    let account = world.account("user_1").unwrap();
    let payer = (account.customer.unwrap().to_string(), account.subscription.unwrap().to_string());
    assert_eq!(payer, (one, subscription));
    assert_eq!(world.account("user_2").unwrap().customer.unwrap().to_string(), other);
}

#[tokio::test]
async fn what_is_imported_of_one_that_was_moved_by_hand_is_not_looked_for_on_stripes_meter() {
    let world = World::start().await;
    let customer = world.customer(&[]).await;
    let plan = &world.catalog.plans["pro"];
    let form = [
        ("customer", customer.as_str()),
        ("items[0][price]", plan.base_price_id.as_str()),
        ("items[1][price]", plan.metered_price_id.as_str()),
    ];
    world.post("subscriptions", &form).await;
    world.advance(TAKEN_OVER_S).await;
    is_whole(&world.run(&mapping(&[(&customer, "user_1", 400)]), &[]).await);
    let [meter] = world.meters("user_1").try_into().unwrap();
    assert_eq!((meter.billing, meter.sealed, meter.invoiced), (Billing::Metered, t(400), t(400)));
    world.reconciles().await;
}

#[tokio::test]
async fn a_mapping_with_a_fault_is_not_used_at_all() {
    let world = World::start().await;
    let (customer, _) = world.sold(&[&world.flat], None).await;
    let ran = world.run(&format!("customer,user\n{customer},user_1\nbad id,user_2\n"), &[]).await;
    assert_eq!(ran.exit, Exit::Failed);
    assert!(ran.err.contains("line 3: no customer id"), "{}", ran.err);
    assert!(world.asked.lock().unwrap().is_empty(), "nobody is asked");
}
