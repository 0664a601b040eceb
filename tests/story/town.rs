//! Where the story happens: the functions' own code over a ledger in memory, the stand-in for Stripe over real HTTP, and one
//! clock for all of them, which is Stripe's.

use crate::story::{
    bus_stand_in::bus,
    cast::Deed,
    provider::{prompt, provider},
    sums::Price,
};
use account::{
    config::Front as AccountFront,
    handler::{AccountApi, Sale},
};
use axum::{Router, body::to_bytes, extract::Request};
use clerk::{Settings as ClerkSettings, Verifier, VerifyingKey};
use domain::{NanoUsd, Timestamp, Tokens, UserId};
use edge::{cors::Cors, drain::Drain, ids, models, plans::PlanBook};
use generate::{
    budget::Ceilings,
    config::{Front, Menu},
    generation::Asked,
    handler::{Generate, Outside},
    parse,
    pump::Deadlines,
    wire::Protocol,
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use lambda_http::Body;
use ledger::{Ledger, MemoryStore};
use local::{
    clerk::{self as clerk_stand_in, Claims},
    cloud::Catalog,
    stripe::{self as stand_in, Card, Delivery, Fault, SignatureClock, WebhookEndpoint},
};
use openai::{BaseUrl, Timeouts};
use report::{CALLS_PER_S_MAX, Deps, Pace, StripeMeter};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use stripe::{Secret, Settings, SigningSecrets, Stripe};
use tokio::{net::TcpListener, task::JoinSet};
use webhook::{handler::Webhook, sync::Accounts};

const SECRET: &str = "whsec_story";
const EVENT_NAME: &str = "inkmeter_tokens";
/// How long an invocation of a function has, in milliseconds.
const FUNCTION_MS: u64 = 120_000;
/// How long one run of the reporter has, in milliseconds.
const REPORTER_MS: u64 = 15 * 60_000;
/// The most bytes of a webhook.
const WEBHOOK_BYTES_MAX: usize = 1 << 20;

/// The page that everybody comes from and is sent back to.
const APP: &str = "https://app.example.com";

/// One in so many tries to buy a second time.
const PERSEVERING: usize = 5;
/// A plan for those to whom Pro has become too small.
const AGENCY: &str = include_str!("../agency.toml");

/// One answer that somebody got.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Served {
    pub(crate) who: usize,
    pub(crate) at_s: i64,
    /// What the provider counted.
    pub(crate) tokens: u64,
    /// Whether it counts for what its user has bought: not before that, nor while the product is not told of the purchase.
    pub(crate) bought: bool,
}

/// A subscription, as whoever bought it knows it.
#[derive(Clone, Debug)]
pub(crate) struct Bought {
    pub(crate) customer: String,
    subscription: String,
    /// When, which is what its periods are counted from.
    pub(crate) joined_s: i64,
    pub(crate) ended: Option<Ended>,
    /// What it costs, and since when.
    pub(crate) plans: Vec<(i64, Price)>,
    /// The flat price's and the metered price's items.
    items: [String; 2],
    /// The events by which Stripe tells of the purchase, as long as it has told none of them.
    untold: Vec<String>,
}

/// How a subscription ended, in Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Canceled at once, with a last invoice.
    Now(i64),
    /// Canceled then, for the end of the period.
    AtEnd(i64),
    /// By Stripe, because nobody paid.
    ByStripe(i64),
}

pub(crate) struct Town {
    pub(crate) stripe: stand_in::Stripe,
    pub(crate) catalog: Catalog,
    pub(crate) store: MemoryStore,
    generate: Generate<MemoryStore>,
    account: AccountApi<MemoryStore>,
    clerk: clerk_stand_in::Handle,
    /// The page to pay on that somebody was shown.
    pages: BTreeMap<usize, String>,
    /// How often somebody who came back was shown the same page to pay on.
    pub(crate) same_pages: usize,
    deps: Arc<Deps<MemoryStore>>,
    http: reqwest::Client,
    endpoint_is_down: Arc<AtomicBool>,
    /// Takes the webhooks as long as there is a town.
    _endpoint: JoinSet<()>,
    /// What somebody has bought.
    pub(crate) bought: BTreeMap<usize, Bought>,
    /// Everything that was served.
    pub(crate) served: Vec<Served>,
    /// Requests that were refused, by code.
    pub(crate) refused: BTreeMap<String, u64>,
    /// When a reporter died.
    pub(crate) deaths_s: Vec<i64>,
    /// Joins and cancellations that had to wait until Stripe was there again.
    waiting: Vec<Deed>,
    stripe_is_down: bool,
}

/// Somebody's id.
pub(crate) fn user(who: usize) -> UserId {
    UserId::parse(&format!("user_{who:03}")).unwrap()
}

fn client(stand_in: &stand_in::Stripe) -> Stripe {
    let secret_key = Secret::new(stand_in::Options::default().api_key);
    Stripe::new(Settings { base_url: Some(stand_in.base_url()), secret_key }).unwrap()
}

fn clock_of(stripe: &stand_in::Stripe) -> Timestamp {
    Timestamp::from_s(u64::try_from(stripe.now_s()).unwrap())
}

impl Town {
    pub(crate) async fn new(begin_s: i64) -> Self {
        let options = stand_in::Options {
            delivery: Delivery::OnDemand,
            signature_clock: SignatureClock::Stripe,
            ..stand_in::Options::default()
        };
        let api_key = options.api_key.clone();
        let stripe = stand_in::start(TcpListener::bind("127.0.0.1:0").await.unwrap(), options).await.unwrap();
        stripe.advance_to(begin_s).await.unwrap();
        let plans = format!("{}\n{AGENCY}", include_str!("../../infra/plans.toml"));
        let catalog = Catalog::set_up(&stripe.base_url(), &api_key, &plans).await.unwrap();
        let book = PlanBook::parse(&plans).unwrap();
        let store = MemoryStore::new();
        let ledger = Ledger::new(store.clone(), book.plans().clone());
        let endpoint_is_down = Arc::new(AtomicBool::new(false));
        let accounts = Accounts::new(ledger.clone(), client(&stripe), book.clone());
        let deps = Arc::new(deps(ledger.clone(), &stripe, &catalog));
        let secrets = SigningSecrets { snapshot: vec![Secret::new(SECRET)], thin: Vec::new() };
        let webhook = Webhook::new(accounts, Arc::clone(&deps), secrets);
        let mut endpoint = JoinSet::new();
        let url = serve_webhook(webhook, stripe.clone(), Arc::clone(&endpoint_is_down), &mut endpoint).await;
        stripe.set_webhook(Some(WebhookEndpoint { url, secret: SECRET.to_owned() }));
        let clerk = clerk().await;
        Self {
            account: account(&ledger, &stripe, book, &clerk),
            clerk,
            pages: BTreeMap::new(),
            same_pages: 0,
            generate: generate(ledger, &stripe),
            deps,
            http: reqwest_client(),
            stripe,
            catalog,
            store,
            endpoint_is_down,
            _endpoint: endpoint,
            bought: BTreeMap::new(),
            served: Vec::new(),
            refused: BTreeMap::new(),
            deaths_s: Vec::new(),
            waiting: Vec::new(),
            stripe_is_down: false,
        }
    }

    fn now(&self) -> Timestamp {
        clock_of(&self.stripe)
    }

    /// Moves everybody's clock on, and lets the deed happen.
    pub(crate) async fn live(&mut self, at_s: i64, deed: Deed) {
        self.stripe.advance_to(at_s).await.unwrap();
        match deed {
            // Who cannot pay or cancel because Stripe is away does it when it is back.
            Deed::Shop(_)
            | Deed::Join(_)
            | Deed::CancelAtEnd(_)
            | Deed::CancelNow(_)
            | Deed::ChangePlan { .. }
                if self.stripe_is_down =>
            {
                self.waiting.push(deed);
            }
            Deed::ChangePlan { who, to_agency } => self.change_plan(who, to_agency).await,
            Deed::Card { who, works } => {
                let card = if works { Card::Works } else { Card::Fails };
                self.stripe.set_card(&self.bought[&who].customer, card).unwrap();
            }
            Deed::Dispute(who) => self.dispute(who),
            Deed::Shop(who) => {
                let page = self.page_to_pay(who).await;
                self.pages.insert(who, page);
            }
            Deed::Join(who) => self.join(who).await,
            Deed::CancelAtEnd(who) => self.cancel(who, false).await,
            Deed::CancelNow(who) => self.cancel(who, true).await,
            Deed::Ask { who, prompt, answer, leaves } => self.ask(who, (prompt, answer), leaves).await,
            Deed::StripeDown(down) => self.outage(down).await,
            Deed::EndpointDown(down) => self.endpoint_is_down.store(down, Ordering::Relaxed),
            Deed::Report => self.report().await,
            Deed::ReportAndDie => self.report_and_die().await,
        }
    }

    async fn outage(&mut self, down: bool) {
        self.stripe.set_outage(down);
        self.stripe_is_down = down;
        if !down {
            for deed in std::mem::take(&mut self.waiting) {
                let now_s = self.stripe.now_s();
                Box::pin(self.live(now_s, deed)).await;
            }
        }
    }

    async fn post(&self, path: &str, form: &[(&str, &str)]) -> Value {
        answered(self.http.post(format!("{}v1/{path}", self.stripe.base_url())).form(form)).await
    }

    /// Asks the product, signed in, for the page where Pro is bought: its status and what it answers.
    async fn checkout(&self, who: usize) -> (StatusCode, Value) {
        let now = self.now();
        let token = self.clerk.mint_with(Claims::new(user(who).as_str(), now.s()));
        let wish = json!({
            "plan": "pro",
            "successUrl": format!("{APP}/?bought={{CHECKOUT_SESSION_ID}}"),
            "cancelUrl": APP,
        });
        let request = http::Request::post("/v1/checkout")
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::Text(wish.to_string()))
            .unwrap();
        let answer = self.account.handle(request, now).await;
        (answer.status(), serde_json::from_slice(answer.body()).unwrap())
    }

    async fn page_to_pay(&self, who: usize) -> String {
        let (status, answer) = self.checkout(who).await;
        assert_eq!(status, StatusCode::OK, "user {who} cannot buy: {answer}");
        answer["url"].as_str().unwrap().to_owned()
    }

    /// Comes back to the page to pay on, which is another where the first one has ended, and presses its button.
    async fn join(&mut self, who: usize) {
        let page = self.page_to_pay(who).await;
        self.same_pages += usize::from(self.pages.remove(&who).as_ref() == Some(&page));
        let before: BTreeSet<String> = self.stripe.undelivered().into_iter().map(|event| event.id).collect();
        let landed = self.http.post(&page).send().await.unwrap();
        let landed = landed.headers()[header::LOCATION].to_str().unwrap().to_owned();
        let session = landed.strip_prefix(&format!("{APP}/?bought=")).unwrap();
        let session = self.get(&format!("checkout/sessions/{session}")).await;
        let untold = self.stripe.undelivered().into_iter().map(|event| event.id);
        let untold = untold.filter(|id| !before.contains(id)).collect();
        let id = session["subscription"].as_str().unwrap();
        let subscription = self.get(&format!("subscriptions/{id}")).await;
        let plan = &self.catalog.plans["pro"];
        let joined_s = subscription["billing_cycle_anchor"].as_i64().unwrap();
        let bought = Bought {
            customer: subscription["customer"].as_str().unwrap().to_owned(),
            subscription: id.to_owned(),
            joined_s,
            ended: None,
            plans: vec![(joined_s, Price::Pro)],
            items: [&plan.base_price_id, &plan.metered_price_id].map(|price| item_of(&subscription, price)),
            untold,
        };
        self.bought.insert(who, bought);
        if who.is_multiple_of(PERSEVERING) {
            // Stripe knows, whether the product is told yet or not.
            let (status, answer) = self.checkout(who).await;
            assert_eq!((status, &answer["code"]), (StatusCode::CONFLICT, &"already_subscribed".into()));
        }
    }

    /// Whether somebody has bought, and Stripe has told so.
    fn is_told(&mut self, who: usize) -> bool {
        let Some(bought) = self.bought.get_mut(&who) else { return false };
        if !bought.untold.is_empty() {
            let waiting: BTreeSet<String> =
                self.stripe.undelivered().into_iter().map(|event| event.id).collect();
            if !bought.untold.iter().all(|id| waiting.contains(id)) {
                bought.untold.clear();
            }
        }
        bought.untold.is_empty()
    }

    async fn cancel(&mut self, who: usize, at_once: bool) {
        let path = format!("subscriptions/{}", self.bought[&who].subscription);
        let at_s = if at_once {
            let request = self.http.delete(format!("{}v1/{path}", self.stripe.base_url()));
            answered(request.form(&[("invoice_now", "true")])).await["ended_at"].as_i64().unwrap()
        } else {
            self.post(&path, &[("cancel_at_period_end", "true")]).await["canceled_at"].as_i64().unwrap()
        };
        let ended = if at_once { Ended::Now(at_s) } else { Ended::AtEnd(at_s) };
        self.bought.get_mut(&who).unwrap().ended = Some(ended);
    }

    async fn change_plan(&mut self, who: usize, to_agency: bool) {
        let bought = &self.bought[&who];
        let plan = &self.catalog.plans[if to_agency { "agency" } else { "pro" }];
        let form = [
            ("items[0][id]", bought.items[0].as_str()),
            ("items[0][price]", &plan.base_price_id),
            ("items[1][id]", &bought.items[1]),
            ("items[1][price]", &plan.metered_price_id),
            ("proration_behavior", "create_prorations"),
        ];
        let changed_s = self.stripe.now_s();
        let subscription = self.post(&format!("subscriptions/{}", bought.subscription), &form).await;
        let items = [&plan.base_price_id, &plan.metered_price_id].map(|price| item_of(&subscription, price));
        let price = if to_agency { Price::Agency } else { Price::Pro };
        let bought = self.bought.get_mut(&who).unwrap();
        bought.items = items;
        bought.plans.push((changed_s, price));
    }

    fn dispute(&self, who: usize) {
        let invoices = self.stripe.invoices(&self.bought[&who].customer);
        let paid = invoices
            .iter()
            .rev()
            .find(|invoice| invoice.paid_s.is_some() && invoice.total_cents > 0)
            .unwrap();
        self.stripe.open_dispute(&paid.id).unwrap();
    }

    /// Notes which subscriptions Stripe has ended.
    pub(crate) async fn see_who_was_cut_off(&mut self) {
        for who in self.bought.keys().copied().collect::<Vec<_>>() {
            let bought = &self.bought[&who];
            if bought.ended.is_none() {
                let subscription = self.get(&format!("subscriptions/{}", bought.subscription)).await;
                self.bought.get_mut(&who).unwrap().ended =
                    subscription["ended_at"].as_i64().map(Ended::ByStripe);
            }
        }
    }

    /// What waits for somebody's next invoice, in cents.
    pub(crate) async fn pending_cents(&self, who: usize) -> i64 {
        let items =
            self.get(&format!("invoiceitems?customer={}&pending=true", self.bought[&who].customer)).await;
        items["data"].as_array().unwrap().iter().map(|item| item["amount"].as_i64().unwrap()).sum()
    }

    async fn get(&self, path: &str) -> Value {
        answered(self.http.get(format!("{}v1/{path}", self.stripe.base_url()))).await
    }

    /// Somebody has a text written, and perhaps closes the browser in the middle of it.
    async fn ask(&mut self, who: usize, counts: (u32, u32), leaves: bool) {
        let now = self.now();
        let body = json!({"prompt": prompt(counts.0, counts.1), "type": "rewrite"}).to_string();
        let json =
            HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        let wish = parse::parse(&json, body.as_bytes(), &menu()).unwrap();
        let asked = Asked { user: user(who), wish, protocol: Protocol::UiMessage, repeatable: None };
        let deadlines = Deadlines::of(Some(now.plus_ms(FUNCTION_MS)), now).unwrap();
        let drain = Drain::new();
        match self.generate.generate(&asked, deadlines, &drain, now).await {
            Ok(answer) => {
                let mut body = answer.into_body();
                while let Some(Ok(_)) = body.frame().await {
                    if leaves {
                        break;
                    }
                }
                drop(body);
                let tokens = u64::from(counts.0) + u64::from(counts.1);
                let bought = self.is_told(who);
                self.served.push(Served { who, at_s: i64::try_from(now.s()).unwrap(), tokens, bought });
            }
            Err(problem) => {
                let body: Value = serde_json::from_str(problem.into_response::<String>().body()).unwrap();
                *self.refused.entry(body["code"].as_str().unwrap().to_owned()).or_default() += 1;
            }
        }
        drain.drained().await;
    }

    async fn report(&self) {
        let deadline = self.now().plus_ms(REPORTER_MS);
        reporter::run::run(&self.deps, deadline, || self.now()).await;
    }

    /// Stripe counts a report, and the process that sent it dies before it hears of that.
    async fn report_and_die(&mut self) {
        let before = self.stripe.meter_events().len();
        self.stripe.fail_next_on("/v1/billing/meter_events", 1, Fault::TimeoutAfterCommit);
        let deadline = self.now().plus_ms(REPORTER_MS);
        let stripe = &self.stripe;
        let counted = async {
            while stripe.meter_events().len() == before || stripe.faults_waiting() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            _ = reporter::run::run(&self.deps, deadline, || self.now()) => {}
            () = counted => self.deaths_s.push(self.stripe.now_s()),
        }
    }
}

fn item_of(subscription: &Value, price: &str) -> String {
    let items = subscription["items"]["data"].as_array().unwrap();
    items.iter().find(|item| item["price"]["id"] == price).unwrap()["id"].as_str().unwrap().to_owned()
}

async fn answered(request: reqwest::RequestBuilder) -> Value {
    let request = request.bearer_auth(stand_in::Options::default().api_key);
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let body: Value = answer.json().await.unwrap();
    assert!(status.is_success(), "Stripe refused: {body}");
    body
}

fn deps(ledger: Ledger<MemoryStore>, stripe: &stand_in::Stripe, catalog: &Catalog) -> Deps<MemoryStore> {
    let calls_per_s = NonZeroU32::new(CALLS_PER_S_MAX).unwrap();
    Deps {
        ledger,
        stripe: client(stripe),
        meter: StripeMeter { event_name: EVENT_NAME.to_owned(), id: catalog.meter_id.clone() },
        bus: bus(),
        pace: Pace { pause_ms: 0, ..Pace::new(|_| 0, calls_per_s) },
        new_id: Box::new(ids::new_hold_id),
    }
}

fn reqwest_client() -> reqwest::Client {
    edge::http::client().unwrap()
}

fn menu() -> Menu {
    let prices = models::built_in().unwrap();
    let default = prices.iter().next().unwrap().clone();
    Menu { prices, default, output_max: Tokens::from_u32(1_024) }
}

/// Signs everybody in, at the story's time.
async fn clerk() -> clerk_stand_in::Handle {
    let options =
        clerk_stand_in::Options { authorized_party: APP.to_owned(), ..clerk_stand_in::Options::default() };
    clerk_stand_in::start(TcpListener::bind("127.0.0.1:0").await.unwrap(), options).await.unwrap()
}

fn account(
    ledger: &Ledger<MemoryStore>,
    stripe: &stand_in::Stripe,
    book: PlanBook,
    clerk: &clerk_stand_in::Handle,
) -> AccountApi<MemoryStore> {
    let settings = ClerkSettings {
        issuer: clerk.issuer().to_owned(),
        keys: VerifyingKey::from_pem(&clerk.public_key_pem()).unwrap().into(),
        authorized_parties: vec![APP.to_owned()],
    };
    let front = AccountFront {
        verifier: Verifier::new(settings).unwrap(),
        cors: Cors::new(&[APP.to_owned()]).unwrap(),
    };
    AccountApi::new(ledger.clone(), Sale::new(client(stripe), book, None), front)
}

fn generate(ledger: Ledger<MemoryStore>, stripe: &stand_in::Stripe) -> Generate<MemoryStore> {
    let origin = vec![APP.to_owned()];
    let settings = ClerkSettings {
        issuer: "https://clerk.example.com".to_owned(),
        keys: VerifyingKey::from_pem(include_str!("../simulation/clerk_jwt_key.pem")).unwrap().into(),
        authorized_parties: origin.clone(),
    };
    let front = Front {
        verifier: Verifier::new(settings).unwrap(),
        cors: Cors::new(&origin).unwrap(),
        menu: menu(),
        keeps_answers: true,
        portal_url: None,
        ceilings: Ceilings { everyone: NanoUsd::MAX, trial: NanoUsd::MAX },
    };
    let settings = openai::Settings {
        base_url: BaseUrl::parse("http://127.0.0.1:1/v1").unwrap(),
        api_key: None,
        timeouts: Timeouts { first_token_ms: 20_000, idle_ms: 20_000 },
    };
    let provider = openai::Client::new(reqwest_client(), settings).in_memory(provider());
    let stripe = stripe.clone();
    let outside = Outside {
        now: Arc::new(move || clock_of(&stripe)),
        new_id: Arc::new(ids::new_hold_id),
        chance: Arc::new(|_| 0),
    };
    Generate::new(ledger, provider, front, outside)
}

/// Serves the webhook as the gateway would. Answers its URL.
async fn serve_webhook(
    webhook: Webhook<MemoryStore>,
    stripe: stand_in::Stripe,
    is_down: Arc<AtomicBool>,
    endpoint: &mut JoinSet<()>,
) -> String {
    let handle = move |request: Request| {
        let (webhook, stripe, is_down) = (webhook.clone(), stripe.clone(), Arc::clone(&is_down));
        async move {
            if is_down.load(Ordering::Relaxed) {
                return http::Response::builder()
                    .status(StatusCode::BAD_GATEWAY)
                    .body(axum::body::Body::empty())
                    .unwrap();
            }
            let (parts, body) = request.into_parts();
            let body = to_bytes(body, WEBHOOK_BYTES_MAX).await.unwrap();
            let request = http::Request::from_parts(parts, Body::Binary(body.to_vec()));
            let answer = webhook.handle(request, &|| clock_of(&stripe)).await;
            answer.map(|body| axum::body::Body::from(body.to_vec()))
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/webhooks/stripe", listener.local_addr().unwrap());
    let router = Router::new().fallback(handle);
    endpoint.spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}
