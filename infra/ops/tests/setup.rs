//! `ops setup` against the stand-in for Stripe: from nothing, again, changed, crashed behind every step, with every answer
//! lost, live, and with a secret that is lost.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking; the helpers are part of it")]

mod support;

use clap::Parser;
use local::cloud::Catalog;
use local::stripe::{Options, Stripe as StandIn};
use ops::key::Account;
use ops::setup::{SetupArguments, run};
use ops::{Console, Exit, Global};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use stripe::testing::{Memory, Reply, Request};
use stripe::{Secret, Settings, Stripe};
use support::{KEY, forward};

const BOOK: &str = include_str!("../../plans.toml");
const AGENCY: &str = include_str!("../../../tests/agency.toml");
/// Nothing listens there.
const URL: &str = "http://127.0.0.1:9/v1/webhooks/stripe";
/// Requests that change something, from nothing to one plan: meter, product, two prices, endpoint, destination, portal.
const CHANGES: usize = 7;
/// The place among them of those whose answer has a secret.
const SECRETS: [(usize, &str); 2] = [(4, "--roll-webhook-secret"), (5, "--roll-thin-webhook-secret")];

/// The arguments without a subcommand.
#[derive(Parser)]
struct Line {
    #[command(flatten)]
    global: Global,
    #[command(flatten)]
    setup: SetupArguments,
}

/// What happens to the requests that change something. They are counted from 0.
#[derive(Clone, Copy)]
enum Fault {
    None,
    /// From this one on nothing goes out, reading included: the process was killed.
    Killed(usize),
    /// This one is carried out, and its answer lost.
    AnswerLost(usize),
    /// This one is lost, and nobody knows.
    RequestLost(usize),
}

struct World {
    stand_in: StandIn,
    http: reqwest::Client,
}

struct Ran {
    exit: Exit,
    out: String,
    err: String,
    asked: usize,
    /// Requests that changed something, or tried.
    changes: usize,
}

impl World {
    async fn start() -> Self {
        let listener = local::net::bind_loopback().unwrap();
        let stand_in = local::stripe::start(listener, Options::default()).await.unwrap();
        Self { stand_in, http: edge::http::client().unwrap() }
    }

    fn stripe(&self, fault: Fault) -> (Stripe, Arc<AtomicUsize>) {
        let changes = Arc::new(AtomicUsize::new(0));
        let (http, base, counter) = (self.http.clone(), self.stand_in.base_url(), changes.clone());
        let memory = Memory::new(move |request: Request| {
            let (http, base, counter) = (http.clone(), base.clone(), counter.clone());
            async move {
                let number = (request.method != "GET").then(|| counter.fetch_add(1, Ordering::SeqCst));
                match fault {
                    Fault::Killed(at) if counter.load(Ordering::SeqCst) > at => {
                        let error = r#"{"error":{"type":"invalid_request_error","message":"killed"}}"#;
                        return Reply::Answer(400, error.into());
                    }
                    Fault::RequestLost(at) if number == Some(at) => return Reply::Cut,
                    _ => {}
                }
                let reply = forward(&http, &base, request).await;
                match fault {
                    Fault::AnswerLost(at) if number == Some(at) => Reply::Cut,
                    _ => reply,
                }
            }
        });
        let settings = Settings { base_url: Some(self.stand_in.base_url()), secret_key: Secret::new(KEY) };
        (Stripe::new(settings).unwrap().in_memory(memory), changes)
    }

    async fn run(&self, more: &[&str]) -> Ran {
        self.run_with(Fault::None, None, more).await
    }

    async fn run_with(&self, fault: Fault, answer: Option<&str>, more: &[&str]) -> Ran {
        let words = ["ops", "--webhook-url", URL].into_iter().chain(more.iter().copied());
        let line = Line::try_parse_from(words).unwrap();
        let (stripe, changes) = self.stripe(fault);
        let account = Account { stripe, live: line.global.live };
        let (mut out, mut err, mut asked) = (Vec::new(), Vec::new(), 0);
        let mut ask = |_: &str| {
            asked += 1;
            answer.map(str::to_owned)
        };
        let mut console = Console { out: &mut out, err: &mut err, ask: &mut ask };
        let exit = run(&account, &line.global, &line.setup, &mut console).await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { exit, out: text(out), err: text(err), asked, changes: changes.load(Ordering::SeqCst) }
    }

    async fn post(&self, path: &str, form: &[(&str, &str)]) -> Value {
        let request = self.http.post(format!("{}{path}", self.stand_in.base_url())).bearer_auth(KEY);
        let answer = request.form(form).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.text().await.unwrap());
        serde_json::from_str(&answer.text().await.unwrap()).unwrap()
    }

    async fn list(&self, path: &str) -> Vec<Value> {
        let base = self.stand_in.base_url();
        let request = self.http.get(format!("{base}{path}")).bearer_auth(KEY);
        let answer = request.header("stripe-version", "2026-09-30.endive").send().await.unwrap();
        let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        body.get("data").and_then(Value::as_array).unwrap().clone()
    }

    async fn price_id(&self, lookup_key: &str) -> String {
        let price = self.list(&format!("v1/prices?lookup_keys[0]={lookup_key}")).await.remove(0);
        price.get("id").and_then(Value::as_str).unwrap().to_owned()
    }

    /// How many of each kind there are.
    async fn counts(&self) -> Vec<usize> {
        let mut counts = Vec::new();
        for path in [
            "v1/billing/meters",
            "v1/products",
            "v1/prices",
            "v1/webhook_endpoints",
            "v2/core/event_destinations",
            "v1/billing_portal/configurations",
        ] {
            counts.push(self.list(&format!("{path}?limit=100")).await.len());
        }
        counts
    }

    /// A price by its lookup key, without what differs from account to account.
    async fn price(&self, lookup_key: &str) -> Value {
        let path = format!("v1/prices?lookup_keys[0]={lookup_key}&expand[0]=data.tiers");
        let mut prices = self.list(&path).await;
        assert_eq!(prices.len(), 1, "{lookup_key}");
        let mut price = prices.remove(0);
        for field in ["id", "product", "created", "metadata"] {
            assert!(price.as_object_mut().unwrap().remove(field).is_some(), "{field}");
        }
        let meter = price.pointer_mut("/recurring/meter").unwrap();
        *meter = Value::Null;
        price
    }
}

fn book(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn path(file: &tempfile::NamedTempFile) -> &str {
    file.path().to_str().unwrap()
}

const ONE_OF_EACH: [usize; 6] = [1, 1, 2, 1, 1, 1];

#[tokio::test]
async fn from_nothing_to_what_the_functions_have_to_be_told_and_a_second_run_does_nothing() {
    let world = World::start().await;
    let first = world.run(&["--portal-return-url", "https://app.example.com/"]).await;
    assert_eq!((first.exit, first.changes), (Exit::Done, CHANGES), "{}{}", first.out, first.err);
    assert_eq!(world.counts().await, ONE_OF_EACH);
    for name in [
        "STRIPE_METER_ID=mtr_",
        "STRIPE_METER_EVENT_NAME=inkmeter_tokens",
        "STRIPE_WEBHOOK_SECRET=whsec_",
        "STRIPE_THIN_WEBHOOK_SECRET=whsec_",
        "PORTAL_URL=http",
        "PORTAL_CONFIGURATION_ID=bpc_",
    ] {
        assert!(first.out.lines().any(|line| line.starts_with(name)), "{name}: {}", first.out);
    }
    // The command does not carry the secrets into the shell's history.
    let command = first.out.lines().find(|line| line.starts_with("sam deploy")).unwrap();
    assert!(command.contains(r#"StripeWebhookSecret="$STRIPE_WEBHOOK_SECRET""#), "{command}");
    assert!(!command.contains("whsec_"), "{command}");

    let second = world.run(&["--portal-return-url", "https://app.example.com/"]).await;
    assert_eq!((second.exit, second.changes, second.asked), (Exit::Done, 0, 0));
    assert!(second.out.contains("nothing to do"), "{}", second.out);
    assert!(!second.out.contains("whsec_") && second.out.contains("--roll-webhook-secret"), "{}", second.out);
    assert!(second.out.contains("STRIPE_METER_ID=mtr_"), "{}", second.out);
}

#[tokio::test]
async fn f21_the_prices_are_those_of_the_independent_catalog() {
    let (ours, theirs) = (World::start().await, World::start().await);
    let text = format!("{BOOK}{AGENCY}");
    let file = book(&text);
    let ran = ours.run(&["--plans", path(&file)]).await;
    assert_eq!(ran.exit, Exit::Done, "{}", ran.err);
    Catalog::set_up(&theirs.stand_in.base_url(), KEY, &text).await.unwrap();
    for lookup_key in [
        "inkmeter_pro_base_v1",
        "inkmeter_pro_tokens_v1",
        "inkmeter_agency_base_v1",
        "inkmeter_agency_tokens_v1",
    ] {
        assert_eq!(ours.price(lookup_key).await, theirs.price(lookup_key).await, "{lookup_key}");
    }
    let tokens = ours.price("inkmeter_pro_tokens_v1").await;
    assert_eq!(tokens["tiers"][0]["up_to"], 500_000);
    assert_eq!(tokens["tiers"][1]["unit_amount_decimal"], "0.0002");
    assert_eq!(ours.price("inkmeter_pro_base_v1").await["unit_amount"], 2_000);
}

#[tokio::test]
async fn a_changed_amount_leaves_the_old_price_to_those_who_pay_by_it() {
    let world = World::start().await;
    world.run(&[]).await;
    let before = world.list("v1/prices?lookup_keys[0]=inkmeter_pro_base_v1").await.remove(0);
    let dearer = book(&BOOK.replace("price_cents_per_month = 2_000", "price_cents_per_month = 2_500"));
    let ran = world.run(&["--plans", path(&dearer)]).await;
    assert_eq!((ran.exit, ran.changes), (Exit::Done, 1), "{}{}", ran.out, ran.err);
    assert_eq!(world.price("inkmeter_pro_base_v1").await["unit_amount"], 2_500);
    let old = world
        .list("v1/prices?limit=100")
        .await
        .into_iter()
        .find(|price| price["id"] == before["id"])
        .unwrap();
    assert_eq!((&old["active"], &old["lookup_key"]), (&Value::Bool(true), &Value::Null));
    assert_eq!(old["unit_amount"], 2_000);
    // What the webhook knows its subscribers by from then on.
    assert_eq!(old["metadata"]["inkmeter_lookup_key"], "inkmeter_pro_base_v1");
    assert_eq!(world.run(&["--plans", path(&dearer)]).await.changes, 0);
}

#[tokio::test]
async fn a_price_without_its_mark_gets_it_before_another_takes_its_lookup_key() {
    let world = World::start().await;
    world.run(&[]).await;
    let before = world.price_id("inkmeter_pro_base_v1").await;
    world.post(&format!("v1/prices/{before}"), &[("metadata[inkmeter_lookup_key]", "")]).await;
    let dearer = book(&BOOK.replace("price_cents_per_month = 2_000", "price_cents_per_month = 2_500"));
    let ran = world.run(&["--plans", path(&dearer)]).await;
    assert_eq!((ran.exit, ran.changes), (Exit::Done, 2), "{}{}", ran.out, ran.err);
    let old = world.list("v1/prices?limit=100").await;
    let old = old.into_iter().find(|price| price["id"] == before).unwrap();
    assert_eq!(old["metadata"]["inkmeter_lookup_key"], "inkmeter_pro_base_v1");
    assert_eq!(old["lookup_key"], Value::Null);
    assert_eq!(world.run(&["--plans", path(&dearer)]).await.changes, 0);
}

#[tokio::test]
async fn a_changed_name_is_the_products_and_makes_no_price() {
    let world = World::start().await;
    world.run(&[]).await;
    let renamed = book(&BOOK.replace("Inkmeter Pro", "Ink & Co Pro"));
    let ran = world.run(&["--plans", path(&renamed)]).await;
    assert_eq!((ran.exit, ran.changes), (Exit::Done, 1), "{}{}", ran.out, ran.err);
    assert_eq!(world.list("v1/products").await[0]["name"], "Ink & Co Pro");
    assert_eq!(world.counts().await, ONE_OF_EACH);
    assert_eq!(world.run(&["--plans", path(&renamed)]).await.changes, 0);
}

#[tokio::test]
async fn killed_behind_any_step_the_next_run_makes_the_rest_and_nothing_twice() {
    for at in 0..CHANGES {
        let world = World::start().await;
        let killed = world.run_with(Fault::Killed(at), None, &[]).await;
        assert_eq!(killed.exit, Exit::Failed, "killed before change {at}");
        assert_eq!(world.counts().await.iter().sum::<usize>(), at, "killed before change {at}");
        let again = world.run(&[]).await;
        assert_eq!((again.exit, again.changes), (Exit::Done, CHANGES - at), "{}", again.err);
        assert_eq!(world.counts().await, ONE_OF_EACH, "killed before change {at}");
        assert_eq!(world.run(&[]).await.changes, 0);
    }
}

#[tokio::test]
async fn a_lost_answer_is_followed_by_a_look_and_never_by_a_second_create() {
    for at in 0..CHANGES {
        let world = World::start().await;
        let ran = world.run_with(Fault::AnswerLost(at), None, &[]).await;
        assert_eq!(world.counts().await, ONE_OF_EACH, "lost answer of change {at}");
        assert_eq!(ran.changes, CHANGES, "lost answer of change {at}");
        match SECRETS.iter().find(|(secret, _)| *secret == at) {
            None => assert_eq!(ran.exit, Exit::Done, "{}", ran.err),
            Some((_, remedy)) => {
                assert_eq!(ran.exit, Exit::Failed);
                assert!(ran.err.contains(remedy), "{}", ran.err);
            }
        }
        assert_eq!(world.run(&[]).await.changes, 0);
    }
}

#[tokio::test]
async fn a_lost_request_is_followed_by_a_look_and_then_made() {
    for at in 0..CHANGES {
        let world = World::start().await;
        let ran = world.run_with(Fault::RequestLost(at), None, &[]).await;
        assert_eq!((ran.exit, ran.changes), (Exit::Done, CHANGES + 1), "{}", ran.err);
        assert_eq!(world.counts().await, ONE_OF_EACH, "lost request of change {at}");
        assert!(ran.out.contains("STRIPE_WEBHOOK_SECRET=whsec_"), "{}", ran.out);
    }
}

#[tokio::test]
async fn nothing_live_is_done_unless_somebody_says_yes() {
    let world = World::start().await;
    for answer in [None, Some("no"), Some("")] {
        let ran = world.run_with(Fault::None, answer, &["--live"]).await;
        assert_eq!((ran.exit, ran.asked, ran.changes), (Exit::Refused, 1, 0));
        assert!(ran.out.contains("To do at Stripe (live)"), "{}", ran.out);
    }
    let dry = world.run(&["--live", "--dry-run"]).await;
    assert_eq!((dry.exit, dry.asked, dry.changes), (Exit::Done, 0, 0));
    let ran = world.run_with(Fault::None, Some("yes"), &["--live"]).await;
    assert_eq!((ran.exit, ran.asked, ran.changes), (Exit::Done, 1, CHANGES), "{}", ran.err);
    let again = World::start().await;
    let ran = again.run(&["--live", "--yes"]).await;
    assert_eq!((ran.exit, ran.asked, ran.changes), (Exit::Done, 0, CHANGES), "{}", ran.err);
}

#[tokio::test]
async fn a_dry_run_shows_everything_and_does_nothing() {
    let world = World::start().await;
    let ran = world.run(&["--dry-run"]).await;
    assert_eq!((ran.exit, ran.changes), (Exit::Done, 0), "{}", ran.err);
    assert!(ran.out.contains("create price inkmeter_pro_base_v1: 2000 cents a month"), "{}", ran.out);
    assert_eq!(world.counts().await.iter().sum::<usize>(), 0);
    // No endpoint was made, so no secret was shown.
    assert!(ran.out.contains("STRIPE_WEBHOOK_SECRET is shown once"), "{}", ran.out);
    assert!(!ran.out.contains("was shown"), "{}", ran.out);
}

#[tokio::test]
async fn json_is_one_document_whatever_happens() {
    let world = World::start().await;
    let document = |ran: &Ran| serde_json::from_str::<Value>(&ran.out).unwrap();
    let first = document(&world.run(&["--json"]).await);
    assert_eq!(first["mode"], "test");
    assert_eq!(first["done"].as_array().unwrap().len(), CHANGES);
    assert_eq!(first["done"], first["plan"]);
    assert_eq!(first["notShown"], Value::Array(Vec::new()));
    let names: BTreeSet<&str> =
        first["environment"].as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "PORTAL_CONFIGURATION_ID",
        "PORTAL_URL",
        "STRIPE_METER_EVENT_NAME",
        "STRIPE_METER_ID",
        "STRIPE_THIN_WEBHOOK_SECRET",
        "STRIPE_WEBHOOK_SECRET",
    ];
    assert_eq!(names, BTreeSet::from(expected));
    let second = document(&world.run(&["--json"]).await);
    assert_eq!(second["plan"], Value::Array(Vec::new()));
    assert_eq!(second["notShown"].as_array().unwrap().len(), 2);
    // The secret that was made before it failed is not lost.
    let killed = World::start().await.run_with(Fault::Killed(5), None, &["--json"]).await;
    assert_eq!(killed.exit, Exit::Failed);
    let killed = document(&killed);
    assert!(killed["environment"]["STRIPE_WEBHOOK_SECRET"].as_str().unwrap().starts_with("whsec_"));
    assert_eq!(killed["done"].as_array().unwrap().len(), 5);
    assert!(killed["error"].as_str().unwrap().contains("create endpoint for thin events"), "{killed}");
}

#[tokio::test]
async fn a_lost_secret_is_replaced_while_the_old_endpoint_still_sends() {
    let world = World::start().await;
    world.run(&[]).await;
    for (flag, name, path) in [
        ("--roll-webhook-secret", "STRIPE_WEBHOOK_SECRET=whsec_", "v1/webhook_endpoints"),
        ("--roll-thin-webhook-secret", "STRIPE_THIN_WEBHOOK_SECRET=whsec_", "v2/core/event_destinations"),
    ] {
        let old = world.list(path).await.remove(0)["id"].clone();
        let rolled = world.run(&[flag]).await;
        assert_eq!((rolled.exit, rolled.changes), (Exit::Done, 1), "{}", rolled.err);
        assert!(rolled.out.contains(name), "{}", rolled.out);
        assert_eq!(
            world.list(path).await.len(),
            2,
            "the old one has to stay until the functions know the new secret"
        );
        let cleaned = world.run(&[]).await;
        assert_eq!((cleaned.exit, cleaned.changes), (Exit::Done, 1), "{}", cleaned.err);
        let left = world.list(path).await;
        assert_eq!(left.len(), 1);
        assert_ne!(left[0]["id"], old);
        assert_eq!(world.run(&[]).await.changes, 0);
    }
}

#[tokio::test]
async fn what_stands_in_the_way_is_named_and_nothing_is_done() {
    let world = World::start().await;
    let meter = [
        ("display_name", "Other"),
        ("event_name", "inkmeter_tokens"),
        ("default_aggregation[formula]", "sum"),
        ("customer_mapping[type]", "by_id"),
        ("customer_mapping[event_payload_key]", "stripe_customer_id"),
        ("value_settings[event_payload_key]", "tokens"),
    ];
    world.post("v1/billing/meters", &meter).await;
    let ran = world.run(&[]).await;
    assert_eq!((ran.exit, ran.changes), (Exit::Failed, 0));
    assert!(ran.err.contains("--meter-event-name"), "{}", ran.err);
    let ran = world.run(&["--meter-event-name", "another"]).await;
    assert_eq!((ran.exit, ran.changes), (Exit::Done, CHANGES), "{}", ran.err);
}

#[tokio::test]
async fn an_outage_is_no_reason_to_change_anything() {
    let world = World::start().await;
    world.stand_in.set_outage(true);
    let ran = world.run(&[]).await;
    assert_eq!((ran.exit, ran.changes), (Exit::Failed, 0));
    assert!(ran.err.contains("cannot be read"), "{}", ran.err);
}

/// Sells the plan to somebody and goes on to the draft of the first period's invoice. What a run then says.
async fn run_beside_a_draft(grace_s: Option<u32>) -> Ran {
    let world = World::start().await;
    world.run(&[]).await;
    world.stand_in.set_finalization_grace(grace_s);
    let base = world.price_id("inkmeter_pro_base_v1").await;
    let metered = world.price_id("inkmeter_pro_tokens_v1").await;
    let customer = world.post("v1/customers", &[]).await;
    let customer = customer.get("id").unwrap().as_str().unwrap();
    let form = [("customer", customer), ("items[0][price]", &base), ("items[1][price]", &metered)];
    let subscription = world.post("v1/subscriptions", &form).await;
    let end = subscription.pointer("/items/data/0/current_period_end").unwrap().as_i64().unwrap();
    world.stand_in.advance_to(end + 60).await.unwrap();
    world.run(&[]).await
}

#[tokio::test]
async fn an_invoice_that_does_not_wait_for_us_is_found_by_its_draft() {
    let custom = run_beside_a_draft(Some(600)).await;
    assert_eq!((custom.exit, custom.changes), (Exit::Found, 0), "{}", custom.out);
    assert!(custom.out.contains("WRONG: draft in_"), "{}", custom.out);
    // Nobody answers `invoice.created` here, so that Stripe waits as long as it ever does.
    let waits = run_beside_a_draft(None).await;
    assert_eq!((waits.exit, waits.changes), (Exit::Done, 0), "{}", waits.out);
    assert!(waits.out.contains("Stripe waits for our answer"), "{}", waits.out);
}
