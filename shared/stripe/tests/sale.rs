//! What a user waits for: customers, checkout sessions, the portal, against a scripted peer.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking; the helpers are part of it")]

use domain::{CustomerId, PlanId, Timestamp, UserId};
use std::sync::atomic::{AtomicUsize, Ordering};
use stripe::testing::{Peer, Reply, Request};
use stripe::{NewCheckout, SaleError, Secret, Settings, Stripe, setup::ObjectId};

const CUSTOMER: &str = r#"{"id":"cus_1","object":"customer"}"#;
const SESSION: &str =
    r#"{"id":"cs_1","status":"open","url":"https://stripe.example/c","created":1,"expires_at":2}"#;

async fn peer(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> (Peer, Stripe) {
    let peer = Peer::start(answer).await.unwrap();
    let settings = Settings { base_url: Some(peer.url().into()), secret_key: Secret::new("sk_test_x") };
    let stripe = Stripe::new(settings).unwrap();
    (peer, stripe)
}

fn error(code: &str, param: &str) -> String {
    format!(
        r#"{{"error":{{"type":"invalid_request_error","code":"{code}","param":"{param}","message":"words"}}}}"#
    )
}

fn user() -> UserId {
    UserId::parse("user_1").unwrap()
}

fn customer() -> CustomerId {
    CustomerId::parse("cus_1").unwrap()
}

/// The peer's answers in this order, the last one for ever.
fn script(replies: Vec<Reply>) -> impl Fn(&Request) -> Reply + Send + Sync {
    let turn = AtomicUsize::new(0);
    move |_| {
        let turn = turn.fetch_add(1, Ordering::Relaxed);
        replies.get(turn).or(replies.last()).unwrap().clone()
    }
}

fn keys(peer: &Peer) -> Vec<String> {
    peer.requests().iter().filter_map(|request| request.headers.get("idempotency-key").cloned()).collect()
}

#[tokio::test]
async fn a_creation_keeps_its_key_while_stripe_is_busy_and_takes_the_next_of_its_series_after_a_failure() {
    let replies = vec![
        Reply::Answer(409, error("idempotency_key_in_use", "")),
        Reply::Cut,
        Reply::Answer(500, r#"{"error":{"type":"api_error","message":"oops"}}"#.into()),
        Reply::Answer(200, CUSTOMER.into()),
    ];
    let (peer, stripe) = peer(script(replies)).await;
    assert_eq!(stripe.create_customer(&user(), None).await, Ok(customer()));
    let [first, again, lost, next] = <[String; 4]>::try_from(keys(&peer)).unwrap();
    assert_eq!((&first, &again), (&lost, &lost), "the same object is wanted");
    assert_eq!(
        (first.as_str(), next.as_str()),
        ("inkmeter-customer-user_1-first-0", "inkmeter-customer-user_1-first-1")
    );
    assert_eq!(peer.requests()[3].form["metadata[user_id]"], "user_1");
}

#[tokio::test]
async fn i8_a_creation_is_given_up_after_four_tries_and_after_one_that_is_refused() {
    let (peer, stripe) = peer(|_| Reply::Answer(429, error("rate_limit", ""))).await;
    assert!(matches!(stripe.create_customer(&user(), None).await, Err(SaleError::Unavailable(_))));
    assert_eq!(peer.requests().len(), 4);
    let (peer, stripe) =
        self::peer(|_| Reply::Answer(400, error("parameter_invalid_empty", "metadata"))).await;
    assert!(matches!(stripe.create_customer(&user(), None).await, Err(SaleError::Refused(_))));
    assert_eq!(peer.requests().len(), 1);
}

#[tokio::test]
async fn a_customer_in_the_place_of_a_lost_one_has_a_key_of_its_own() {
    let (peer, stripe) = peer(|_| Reply::Answer(200, CUSTOMER.into())).await;
    stripe.create_customer(&user(), CustomerId::parse("cus_0").ok().as_ref()).await.unwrap();
    assert_eq!(keys(&peer), ["inkmeter-customer-user_1-cus_0-0"]);
}

#[tokio::test]
async fn a_deleted_customer_is_none() {
    for (status, body, has) in [
        (200, CUSTOMER.to_owned(), true),
        (200, r#"{"id":"cus_1","object":"customer","deleted":true}"#.to_owned(), false),
        (404, error("resource_missing", "id"), false),
    ] {
        let (_peer, stripe) = peer(move |_| Reply::Answer(status, body.clone())).await;
        assert_eq!(stripe.has_customer(&customer()).await, Ok(has));
    }
    let (_peer, stripe) = peer(|_| Reply::Answer(400, error("resource_missing", "customer"))).await;
    let opened = stripe.open_portal(&customer(), "https://app.example", None).await;
    assert!(matches!(opened, Err(SaleError::NoCustomer(_))), "{opened:?}");
}

#[tokio::test]
async fn two_wishes_share_a_key_only_if_they_are_the_same_in_everything() {
    let (peer, stripe) = peer(|_| Reply::Answer(200, SESSION.into())).await;
    let (user, customer, plan) = (user(), customer(), PlanId::parse("pro").unwrap());
    let [base, metered] = ["price_1", "price_2"].map(|id| ObjectId::parse(id).unwrap());
    let wish = NewCheckout {
        user: &user,
        customer: &customer,
        plan: &plan,
        base: &base,
        metered: &metered,
        success_url: "https://app.example/a",
        cancel_url: "https://app.example/b",
    };
    let at = Timestamp::from_s(7_200);
    let made = stripe.create_checkout(&wish, None, at).await.unwrap();
    stripe.create_checkout(&wish, None, at).await.unwrap();
    stripe.create_checkout(&wish, Some(&made), at).await.unwrap();
    stripe.create_checkout(&wish, None, Timestamp::from_s(9_000)).await.unwrap();
    let swapped = NewCheckout { success_url: wish.cancel_url, cancel_url: wish.success_url, ..wish };
    stripe.create_checkout(&swapped, None, at).await.unwrap();
    let keys = keys(&peer);
    assert_eq!(keys[0], keys[1]);
    let different: std::collections::BTreeSet<&String> = keys.iter().collect();
    assert_eq!(different.len(), 4, "{keys:?}");
    assert!(keys.iter().all(|key| key.len() <= 255));
}
