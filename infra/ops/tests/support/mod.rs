//! What the tests of more than one command need.

use stripe::testing::{Reply, Request};

/// The key of the stand-in for Stripe.
pub(crate) const KEY: &str = "sk_test_local";

/// Has the stand-in at `base` answer what was asked of a Stripe in memory.
pub(crate) async fn forward(http: &reqwest::Client, base: &str, request: Request) -> Reply {
    let kind = if request.path.starts_with("/v2/") {
        "application/json"
    } else {
        "application/x-www-form-urlencoded"
    };
    let url = format!("{base}{}", request.path.trim_start_matches('/'));
    let mut outgoing = http
        .request(request.method.parse().unwrap(), url)
        .query(&request.query)
        .bearer_auth(KEY)
        .header("stripe-version", "2026-09-30.endive");
    if let Some(key) = request.headers.get("idempotency-key") {
        outgoing = outgoing.header("idempotency-key", key);
    }
    if !request.body.is_empty() {
        outgoing = outgoing.header("content-type", kind).body(request.body);
    }
    let answer = outgoing.send().await.unwrap();
    Reply::Answer(answer.status().as_u16(), answer.text().await.unwrap())
}
