//! Deliveries to the whole handler, over the ledger in memory and a small Stripe behind real HTTP. Stripe's state and what the
//! deliveries claim are two things here, as they are outside.

use crate::{handler::Webhook, sync::Accounts};
use domain::{Account, Timestamp, UserId};
use edge::plans::PlanBook;
use http::{Method, StatusCode};
use lambda_http::{Body, Request};
use ledger::{Ledger, MemoryStore};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};
use stripe::{
    Secret, Settings, Stripe,
    testing::{Peer, Reply, sign},
};

const NOW: Timestamp = Timestamp::from_s(1_800_000_000);
const SECRET: &str = "whsec_test";
const PRO: &str = "inkmeter_pro_base_v1";
const CREATED: &str = "customer.subscription.created";
const UPDATED: &str = "customer.subscription.updated";
const DELETED: &str = "customer.subscription.deleted";

/// Stripe's subscriptions by id.
type Subscriptions = BTreeMap<String, Value>;

/// Done once, after Stripe has made up its answer to a question and before that answer is sent.
struct Hook {
    /// How many questions from now.
    question: u32,
    then: Box<dyn FnOnce(&mut Subscriptions) + Send>,
}

struct World {
    webhook: Webhook<MemoryStore>,
    ledger: Ledger<MemoryStore>,
    subscriptions: Arc<Mutex<Subscriptions>>,
    hook: Arc<Mutex<Option<Hook>>>,
    stripe: Peer,
}

fn subscription(id: &str, status: &str, created_s: u64) -> Value {
    json!({"id": id, "object": "subscription", "status": status, "created": created_s,
        "billing_cycle_anchor": created_s, "ended_at": null, "metadata": {"user_id": "user_1"},
        "customer": {"id": "cus_1", "object": "customer", "metadata": {}},
        "items": {"object": "list", "data": [
            {"current_period_start": created_s, "current_period_end": created_s + 2_592_000, "price": {"lookup_key": PRO}}]}})
}

fn ended(id: &str, created_s: u64, ended_s: u64) -> Value {
    let mut subscription = subscription(id, "canceled", created_s);
    subscription["ended_at"] = json!(ended_s);
    subscription
}

fn event(id: &str, kind: &str, object: &str) -> String {
    // What the event claims is wrong on purpose: nothing may come of it.
    let object = json!({"id": object, "object": "subscription", "status": "active", "metadata": {"user_id": "user_evil"}});
    json!({"id": id, "object": "event", "type": kind, "data": {"object": object}}).to_string()
}

fn request(body: &str, signature: &str) -> Request {
    http::Request::builder()
        .method(Method::POST)
        .uri("http://gateway/v1/webhooks/stripe")
        .header("stripe-signature", signature)
        .body(Body::from(body.to_owned()))
        .unwrap()
}

impl World {
    async fn new() -> Self {
        let subscriptions = Arc::new(Mutex::new(Subscriptions::new()));
        let hook = Arc::new(Mutex::new(None::<Hook>));
        let (known, hooked) = (Arc::clone(&subscriptions), Arc::clone(&hook));
        let stripe = Peer::start(move |request| {
            let id = request.path.strip_prefix("/v1/subscriptions/").unwrap();
            let mut known = known.lock().unwrap();
            let reply = match known.get(id) {
                Some(subscription) => Reply::Answer(200, subscription.to_string()),
                None => Reply::Answer(404, json!({"error": {"type": "invalid_request_error"}}).to_string()),
            };
            let mut hook = hooked.lock().unwrap();
            match hook.take() {
                Some(Hook { question: 1, then }) => then(&mut known),
                Some(Hook { question, then }) => *hook = Some(Hook { question: question - 1, then }),
                None => {}
            }
            reply
        })
        .await
        .unwrap();
        let book = PlanBook::built_in().unwrap();
        let ledger = Ledger::new(MemoryStore::new(), book.plans().clone());
        let client = client(stripe.url());
        let accounts = Accounts::new(ledger.clone(), client, book);
        let webhook = Webhook::new(accounts, vec![Secret::new(SECRET)]);
        Self { webhook, ledger, subscriptions, hook, stripe }
    }

    fn stripe_has(&self, subscription: Value) {
        let id = subscription["id"].as_str().unwrap().to_owned();
        self.subscriptions.lock().unwrap().insert(id, subscription);
    }

    /// Delivers an event and answers the status.
    async fn delivers(&self, kind: &str, object: &str) -> StatusCode {
        let body = event("evt_1", kind, object);
        let signature = format!("t={},v1={}", NOW.s(), sign(&body, SECRET, NOW.s()));
        self.webhook.handle(request(&body, &signature), NOW).await.status()
    }

    async fn account(&self) -> Account {
        let user = UserId::parse("user_1").unwrap();
        self.ledger.standing(&user, NOW).await.unwrap().account
    }

    /// Plan, subscription and anchor of the account.
    async fn standing(&self) -> (String, Option<String>, u64) {
        let account = self.account().await;
        (account.plan.to_string(), account.subscription.map(|id| id.to_string()), account.anchor.s())
    }
}

fn client(url: &str) -> Stripe {
    Stripe::new(Settings { base_url: Some(url.into()), secret_key: Secret::new("sk_test_x") }).unwrap()
}

fn pro(subscription: &str, anchor_s: u64) -> (String, Option<String>, u64) {
    ("pro".into(), Some(subscription.into()), anchor_s)
}

fn free(anchor_s: u64) -> (String, Option<String>, u64) {
    ("free".into(), None, anchor_s)
}

#[tokio::test]
async fn a_bought_subscription_gives_its_plan_customer_and_periods() {
    let world = World::new().await;
    world.stripe_has(subscription("sub_1", "active", 1_799_000_000));
    assert_eq!(world.delivers(CREATED, "sub_1").await, StatusCode::OK);
    assert_eq!(world.standing().await, pro("sub_1", 1_799_000_000));
    assert_eq!(world.account().await.billed_to().unwrap().as_str(), "cus_1");
}

#[tokio::test]
async fn f16_an_event_delivered_twice_changes_the_account_once() {
    let world = World::new().await;
    world.stripe_has(subscription("sub_1", "active", 1_799_000_000));
    world.delivers(CREATED, "sub_1").await;
    let once = world.account().await;
    world.delivers(CREATED, "sub_1").await;
    world.delivers(UPDATED, "sub_1").await;
    let again = world.account().await;
    assert_eq!(Account { rev: once.rev, ..again.clone() }, once);
    assert!(again.rev > once.rev, "a write of an older answer would not be refused");
}

/// Every order of the three deliveries of a subscription's life, after its end: what Stripe has now decides.
#[tokio::test]
async fn f16_events_in_any_order_end_in_what_stripe_has() {
    for order in [
        [CREATED, UPDATED, DELETED],
        [CREATED, DELETED, UPDATED],
        [DELETED, CREATED, UPDATED],
        [DELETED, UPDATED, CREATED],
        [UPDATED, DELETED, CREATED],
        [UPDATED, CREATED, DELETED],
    ] {
        let world = World::new().await;
        world.stripe_has(subscription("sub_1", "active", 1_799_000_000));
        assert_eq!(world.delivers(order[0], "sub_1").await, StatusCode::OK);
        world.stripe_has(ended("sub_1", 1_799_000_000, 1_799_900_000));
        for kind in &order[1..] {
            assert_eq!(world.delivers(kind, "sub_1").await, StatusCode::OK);
        }
        assert_eq!(world.standing().await, free(1_799_900_000), "{order:?}");
    }
}

#[tokio::test]
async fn f16_an_older_subscriptions_end_does_not_touch_the_newer_one() {
    let world = World::new().await;
    world.stripe_has(subscription("sub_old", "active", 1_798_000_000));
    world.delivers(CREATED, "sub_old").await;
    world.stripe_has(ended("sub_old", 1_798_000_000, 1_799_000_000));
    world.stripe_has(subscription("sub_new", "active", 1_799_000_001));
    world.delivers(CREATED, "sub_new").await;
    world.delivers(DELETED, "sub_old").await;
    world.delivers(UPDATED, "sub_old").await;
    assert_eq!(world.standing().await, pro("sub_new", 1_799_000_001));
}

#[tokio::test]
async fn f16_of_two_subscriptions_in_force_the_younger_counts_in_any_order() {
    for order in [["sub_old", "sub_new"], ["sub_new", "sub_old"]] {
        let world = World::new().await;
        world.stripe_has(subscription("sub_old", "active", 1_798_000_000));
        world.stripe_has(subscription("sub_new", "past_due", 1_799_000_000));
        for id in order {
            world.delivers(UPDATED, id).await;
        }
        assert_eq!(world.standing().await, pro("sub_new", 1_799_000_000), "{order:?}");
    }
}

/// The subscription ends between Stripe's answer and the write, and another delivery writes that first: the older answer must
/// not be written over it.
#[tokio::test]
async fn f16_an_answer_that_is_older_than_the_account_is_never_written() {
    let world = World::new().await;
    world.stripe_has(subscription("sub_1", "active", 1_799_000_000));
    world.delivers(CREATED, "sub_1").await;
    let mut moved = subscription("sub_1", "active", 1_799_000_000);
    moved["billing_cycle_anchor"] = json!(1_799_500_000);
    world.stripe_has(moved);
    let ledger = world.ledger.clone();
    let end = move |known: &mut Subscriptions| {
        known.insert("sub_1".into(), ended("sub_1", 1_799_000_000, 1_799_900_000));
        let user = UserId::parse("user_1").unwrap();
        let plan = ledger.plans().first().id.clone();
        let anchor = Timestamp::from_s(1_799_900_000);
        let after = |account: &Account| {
            Some(Account { plan: plan.clone(), subscription: None, anchor, ..account.clone() })
        };
        at_once(ledger.change_account(&user, NOW, after)).unwrap();
    };
    let before = world.account().await;
    // The first question is whose the subscription is; the answer to the second is what would be written.
    *world.hook.lock().unwrap() = Some(Hook { question: 2, then: Box::new(end) });
    assert_eq!(world.delivers(UPDATED, "sub_1").await, StatusCode::OK);
    assert_eq!(world.standing().await, free(1_799_900_000));
    assert_eq!(
        world.account().await.rev,
        before.rev + 2,
        "the other delivery wrote, then this one its fence"
    );
    assert!(world.hook.lock().unwrap().is_none());
}

/// The subscription ends after Stripe's answer, and the delivery that says so finds nothing to change: the older answer is
/// still not to be written, neither late nor over an account that was not there when it was asked for.
#[tokio::test]
async fn f16_a_delivery_that_changes_nothing_still_refuses_the_writes_of_older_answers() {
    for known_before in [true, false] {
        let world = World::new().await;
        if known_before {
            world.account().await;
        }
        let ledger = world.ledger.clone();
        let user = UserId::parse("user_1").unwrap();
        let read = ledger.account(&user, NOW).await.unwrap();
        world.stripe_has(ended("sub_1", 1_799_000_000, 1_799_900_000));
        assert_eq!(world.delivers(DELETED, "sub_1").await, StatusCode::OK);
        // What a slower delivery made of the older answer, on condition of what it had read.
        let active = |account: &Account| {
            let pro = Account { plan: domain::PlanId::parse("pro").unwrap(), ..account.clone() };
            (account.rev == read.rev).then_some(pro)
        };
        ledger.change_account(&user, NOW, active).await.unwrap();
        assert_eq!(world.account().await.plan.as_str(), "free", "known before: {known_before}");
    }
}

/// What the ledger in memory answers without waiting.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    let mut context = Context::from_waker(Waker::noop());
    match pin!(future).poll(&mut context) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the ledger in memory waits"),
    }
}

#[tokio::test]
async fn each_status_has_its_consequence() {
    for (status, expected) in [
        ("active", pro("sub_1", 1_799_000_000)),
        ("trialing", pro("sub_1", 1_799_000_000)),
        ("past_due", pro("sub_1", 1_799_000_000)),
        ("canceled", free(NOW.s())),
        ("unpaid", free(NOW.s())),
        ("incomplete_expired", free(NOW.s())),
        ("paused", free(NOW.s())),
        ("incomplete", pro("sub_1", 1_799_000_000)),
        ("of_the_future", pro("sub_1", 1_799_000_000)),
    ] {
        let world = World::new().await;
        world.stripe_has(subscription("sub_1", "active", 1_799_000_000));
        world.delivers(CREATED, "sub_1").await;
        world.stripe_has(subscription("sub_1", status, 1_799_000_000));
        assert_eq!(world.delivers(UPDATED, "sub_1").await, StatusCode::OK);
        assert_eq!(world.standing().await, expected, "{status}");
    }
}

#[tokio::test]
async fn a_price_outside_the_plan_book_gives_nothing() {
    let world = World::new().await;
    let mut foreign = subscription("sub_1", "active", 1_799_000_000);
    foreign["items"]["data"][0]["price"]["lookup_key"] = json!("somebody_elses");
    world.stripe_has(foreign);
    assert_eq!(world.delivers(CREATED, "sub_1").await, StatusCode::OK);
    assert_eq!(world.standing().await.0, "free");
}

#[tokio::test]
async fn a_subscription_of_nobody_is_answered_and_changes_nothing() {
    let world = World::new().await;
    let mut nobodys = subscription("sub_1", "active", 1_799_000_000);
    nobodys["metadata"] = json!({});
    world.stripe_has(nobodys);
    assert_eq!(world.delivers(CREATED, "sub_1").await, StatusCode::OK);
    assert_eq!(world.standing().await.0, "free");
}

#[tokio::test]
async fn other_events_are_ignored_without_asking_stripe() {
    let world = World::new().await;
    assert_eq!(world.delivers("invoice.created", "in_1").await, StatusCode::OK);
    assert!(world.stripe.requests().is_empty());
}

#[tokio::test]
async fn what_stripe_does_not_show_is_to_be_delivered_again() {
    let world = World::new().await;
    assert_eq!(world.delivers(CREATED, "sub_unknown").await, StatusCode::SERVICE_UNAVAILABLE);

    let down = Peer::start(|_| Reply::Cut).await.unwrap();
    let book = PlanBook::built_in().unwrap();
    let accounts = Accounts::new(world.ledger.clone(), client(down.url()), book);
    let world = World { webhook: Webhook::new(accounts, vec![Secret::new(SECRET)]), ..world };
    assert_eq!(world.delivers(CREATED, "sub_1").await, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn nothing_is_done_for_a_body_that_stripe_did_not_sign() {
    let world = World::new().await;
    world.stripe_has(subscription("sub_1", "active", 1_799_000_000));
    let body = event("evt_1", CREATED, "sub_1");
    let good = sign(&body, SECRET, NOW.s());
    let stale_s = NOW.s() - 301;
    for (body, signature, status) in [
        (body.clone(), String::new(), StatusCode::UNAUTHORIZED),
        (
            body.clone(),
            format!("t={},v1={}", NOW.s(), sign(&body, "other", NOW.s())),
            StatusCode::UNAUTHORIZED,
        ),
        (body.clone() + " ", format!("t={},v1={good}", NOW.s()), StatusCode::UNAUTHORIZED),
        (body.clone(), format!("t={stale_s},v1={}", sign(&body, SECRET, stale_s)), StatusCode::UNAUTHORIZED),
        (
            "{".into(),
            format!("t={},v1={}", NOW.s(), sign("{", SECRET, NOW.s())),
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        (" ".repeat(256 * 1024 + 1), String::new(), StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        assert_eq!(world.webhook.handle(request(&body, &signature), NOW).await.status(), status);
    }
    assert!(world.stripe.requests().is_empty());
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let world = World::new().await;
    let mut get = request("", "");
    *get.method_mut() = Method::GET;
    assert_eq!(world.webhook.handle(get, NOW).await.status(), StatusCode::METHOD_NOT_ALLOWED);
    let mut elsewhere = request("", "");
    *elsewhere.uri_mut() = "http://gateway/v1/other".parse().unwrap();
    assert_eq!(world.webhook.handle(elsewhere, NOW).await.status(), StatusCode::NOT_FOUND);
}
