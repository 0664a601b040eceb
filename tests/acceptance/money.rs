//! What a user sees of money, through the real binaries and Stripe's own pages.

use crate::support::{Client, Events, cloud, metadata, one_plan, soon, wide_plans};
use futures_util::future::join_all;
use local::{cloud::Cloud, net};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// How often an event is delivered that was not taken: two that come together may be in each other's way.
const DELIVERIES_MAX: u32 = 20;

fn wish(cloud: &Cloud) -> Value {
    json!({
        "plan": "pro",
        "successUrl": format!("{}/?bought={{CHECKOUT_SESSION_ID}}", cloud.url()),
        "cancelUrl": cloud.url(),
    })
}

/// Presses the one button of Stripe's page to pay. Where the browser is sent then.
async fn pay(url: &str) -> String {
    let http = net::client().unwrap();
    let page = soon(http.get(url).send()).await.unwrap();
    assert_eq!(page.status(), 200);
    soon(http.post(url).send()).await.unwrap().url().to_string()
}

pub(crate) async fn webhooks(cloud: &Cloud) {
    let left = soon(cloud.stripe().unwrap().deliver_all(DELIVERIES_MAX)).await;
    assert_eq!(left, 0, "an event was not taken: {:?}", cloud.stripe().unwrap().undelivered());
}

async fn receipts(client: &Client, query: &str) -> Value {
    let (status, body) = client.call(Method::GET, &format!("/v1/receipts{query}"), &Value::Null).await;
    assert_eq!(status, 200, "{body}");
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_bought_once_by_whoever_asks_twice_at_once_and_then_it_counts() {
    let cloud = cloud(|_| {}).await;
    let client = Client::new(&cloud, "mona");
    let wish = wish(&cloud);
    let ask = || client.call(Method::POST, "/v1/checkout", &wish);
    let both = join_all([ask(), ask()]).await;
    assert_eq!((both[0].0, both[1].0), (200, 200), "{both:?}");
    assert_eq!(both[0].1["url"], both[1].1["url"], "one page for one user");
    let usage = client.usage().await;
    assert_eq!(
        (&usage["plan"], &usage["status"], &usage["invoice"]),
        (&"free".into(), &"none".into(), &Value::Null)
    );

    let landed = pay(both[0].1["url"].as_str().unwrap()).await;
    assert!(landed.starts_with(&format!("{}/?bought=cs_test_", cloud.url())), "{landed}");
    // Stripe knows, and nobody else does yet.
    let (status, problem) = ask().await;
    assert_eq!((status, &problem["code"]), (409, &"already_subscribed".into()));
    webhooks(&cloud).await;
    let (status, _) = ask().await;
    assert_eq!(status, 409);

    let answer = client.generate("[[tokens=40]] A kettle.").await;
    let charged = metadata(&Events::of(answer).rest().await)["charged"].clone();
    let usage = client.usage().await;
    assert_eq!((&usage["plan"], &usage["status"]), (&"pro".into(), &"active".into()));
    assert_eq!(usage["usage"]["settled"], charged);
    assert_eq!(
        (&usage["invoice"]["estimateUsd"], &usage["invoice"]["at"]),
        (&"20.00".into(), &usage["resetsAt"])
    );
    assert_eq!(receipts(&client, "").await["receipts"][0]["costUsd"], "0.00", "it is included");

    let back = json!({ "returnUrl": cloud.url() });
    let (status, portal) = client.call(Method::POST, "/v1/portal", &back).await;
    assert_eq!(status, 200, "{portal}");
    let page = soon(net::client().unwrap().get(portal["url"].as_str().unwrap()).send()).await.unwrap();
    assert_eq!(page.status(), 200);
    cloud.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_stripe_is_down_nobody_buys_and_everybody_sees_the_usage() {
    let cloud = cloud(|_| {}).await;
    let client = Client::new(&cloud, "moritz");
    cloud.stripe().unwrap().set_outage(true);
    let (status, problem) = client.call(Method::POST, "/v1/checkout", &wish(&cloud)).await;
    assert_eq!((status, &problem["code"]), (503, &"stripe_unavailable".into()));
    assert_eq!(client.usage().await["plan"], "free");
    cloud.stripe().unwrap().set_outage(false);
    let (status, page) = client.call(Method::POST, "/v1/checkout", &wish(&cloud)).await;
    assert_eq!(status, 200, "{page}");
    cloud.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spend_cap_below_what_is_used_takes_a_second_word_and_then_stops_everything() {
    let cloud = cloud(|_| {}).await;
    let client = Client::new(&cloud, "mira");
    let answer = client.generate("[[tokens=40]] A kettle.").await;
    let used = metadata(&Events::of(answer).rest().await)["charged"].as_u64().unwrap();
    let put = async |body: Value| client.call(Method::PUT, "/v1/spend-cap", &body).await;
    let (status, problem) = put(json!({ "tokens": used - 1 })).await;
    assert_eq!((status, &problem["code"]), (409, &"spend_cap_below_used".into()));
    assert_eq!((&problem["used"], &problem["held"]), (&used.into(), &0.into()));
    let (status, usage) = put(json!({ "tokens": used - 1, "confirm": true })).await;
    assert_eq!((status, &usage["spendCap"], &usage["usage"]["left"]), (200, &(used - 1).into(), &0.into()));
    let refused = client.generate("A kettle.").await;
    assert_eq!(refused.status(), 402);
    assert_eq!(refused.json::<Value>().await.unwrap()["code"], "spend_cap_reached");
    let (_, usage) = put(json!({ "tokens": null })).await;
    assert_eq!(usage["spendCap"], Value::Null);
    assert_eq!(client.generate("A kettle.").await.status(), 200);
    cloud.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_and_twenty_receipts_come_newest_first_in_pages_each_once() {
    const REQUESTS: usize = 120;
    let plans = wide_plans(16);
    let cloud = cloud(|options| options.plans = Some(plans.path().to_owned())).await;
    let client = Client::new(&cloud, "milo");
    let mut charged = 0;
    for _ in 0..REQUESTS / 12 {
        let some = join_all((0..12).map(|_| async {
            let answer = client.generate("[[tokens=2 delay_ms=0]] A kettle.").await;
            metadata(&Events::of(answer).rest().await)["charged"].as_u64().unwrap()
        }));
        charged += some.await.iter().sum::<u64>();
    }
    let (mut query, mut all, mut pages) = ("?limit=50".to_owned(), Vec::new(), Vec::new());
    loop {
        let page = receipts(&client, &query).await;
        let some = page["receipts"].as_array().unwrap().clone();
        pages.push(some.len());
        all.extend(some);
        let Some(next) = page["next"].as_str() else { break };
        query = format!("?limit=50&cursor={next}");
    }
    assert_eq!(pages, [50, 50, 20]);
    let ids: Vec<&str> = all.iter().map(|receipt| receipt["id"].as_str().unwrap()).collect();
    assert!(ids.is_sorted_by(|newer, older| newer > older));
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), REQUESTS);
    assert_eq!(all.iter().map(|receipt| receipt["charged"].as_u64().unwrap()).sum::<u64>(), charged);
    assert!(all.iter().all(|receipt| receipt["outcome"] == "settled" && receipt["model"] == "gpt-6-luna"));
    assert_eq!(client.usage().await["usage"]["settled"], charged);
    cloud.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_seen_later_with_its_reason() {
    let plans = one_plan(500, 1_000, 8);
    let cloud = cloud(|options| options.plans = Some(plans.path().to_owned())).await;
    let client = Client::new(&cloud, "minna");
    let refused = client.generate(&"A kettle. ".repeat(200)).await;
    assert_eq!(refused.status(), 402);
    let problem: Value = refused.json().await.unwrap();
    let mut seen = receipts(&client, "").await;
    // Nobody waits for it to be noted.
    for _ in 0..100 {
        if seen["denials"] != json!([]) {
            break;
        }
        seen = receipts(&client, "").await;
    }
    let denial = &seen["denials"][0];
    assert_eq!((&denial["code"], &denial["reason"]), (&problem["code"], &problem["title"]));
    assert_eq!((&denial["needed"], &denial["left"]), (&problem["needed"], &problem["left"]));
    assert_eq!(denial["until"], problem["resetsAt"]);
    assert_eq!(seen["receipts"], json!([]), "it used nothing");
    cloud.shutdown().await;
}

/// Asks Stripe as the owner would.
pub(crate) async fn stripe(cloud: &Cloud, method: Method, path: &str, form: &[(&str, &str)]) -> Value {
    let url = format!("{}v1/{path}", cloud.stripe().unwrap().base_url());
    let asked = net::client().unwrap().request(method.clone(), url);
    let asked = asked.bearer_auth(local::stripe::Options::default().api_key);
    let asked = if method == Method::POST { asked.form(form) } else { asked.query(form) };
    let answer: Value = soon(asked.send()).await.unwrap().json().await.unwrap();
    assert!(answer["error"].is_null(), "{path}: {answer}");
    answer
}

/// Presses a button of Stripe's portal.
async fn press(cloud: &Cloud, client: &Client, action: &str) {
    let (status, portal) =
        client.call(Method::POST, "/v1/portal", &json!({ "returnUrl": cloud.url() })).await;
    assert_eq!(status, 200, "{portal}");
    let pressed = net::client().unwrap().post(portal["url"].as_str().unwrap()).form(&[("action", action)]);
    assert!(soon(pressed.send()).await.unwrap().status().is_success());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_pay_is_told_since_when_and_where_to_pay_and_goes_on_once_it_is_paid() {
    let plans = tempfile::NamedTempFile::new().unwrap();
    let book = local::cloud::PLANS.replace("past_due_grace_days = 7", "past_due_grace_days = 0");
    assert_ne!(book, local::cloud::PLANS);
    std::fs::write(plans.path(), book).unwrap();
    let cloud = cloud(|options| options.plans = Some(plans.path().to_owned())).await;
    let client = Client::new(&cloud, "marlene");
    let (_, page) = client.call(Method::POST, "/v1/checkout", &wish(&cloud)).await;
    pay(page["url"].as_str().unwrap()).await;
    webhooks(&cloud).await;
    assert_eq!(client.usage().await["status"], "active");

    press(&cloud, &client, "card_fails").await;
    let all = stripe(&cloud, Method::GET, "subscriptions", &[]).await;
    let subscription = format!("subscriptions/{}", all["data"][0]["id"].as_str().unwrap());
    let base = &cloud.catalog().unwrap().plans["pro"].base_price_id;
    let items = all["data"][0]["items"]["data"].as_array().unwrap();
    let item = items.iter().find(|item| item["price"]["id"] == *base).unwrap();
    // A second seat from today on, to be paid today.
    let seat = [
        ("items[0][id]", item["id"].as_str().unwrap()),
        ("items[0][quantity]", "2"),
        ("proration_behavior", "always_invoice"),
    ];
    stripe(&cloud, Method::POST, &subscription, &seat).await;
    webhooks(&cloud).await;
    let usage = client.usage().await;
    assert_eq!(usage["status"], "overdue", "{usage}");
    let refused = client.generate("A kettle.").await;
    assert_eq!(refused.status(), 402);
    assert!(refused.headers().get("retry-after").is_none(), "waiting does not help");
    let problem: Value = refused.json().await.unwrap();
    assert_eq!((&problem["code"], &problem["payBy"]), (&"past_due".into(), &usage["payBy"]));
    assert_eq!(problem["portalUrl"], cloud.catalog().unwrap().portal_url);
    assert_eq!(cloud.openai().unwrap().requests().len(), 0, "nobody was asked");

    press(&cloud, &client, "card_works").await;
    let open = stripe(&cloud, Method::GET, "invoices", &[("status", "open")]).await;
    stripe(&cloud, Method::POST, &format!("invoices/{}/pay", open["data"][0]["id"].as_str().unwrap()), &[])
        .await;
    webhooks(&cloud).await;
    let usage = client.usage().await;
    assert_eq!((&usage["status"], &usage["payBy"]), (&"active".into(), &Value::Null));
    assert_eq!(client.generate("A kettle.").await.status(), 200);
    cloud.shutdown().await;
}
