//! What a user is told that the next invoice will be, against the invoice that Stripe then makes.

use crate::{
    days::Time,
    kills::charged,
    money::{stripe, webhooks},
    support::{Client, cloud, report, subscribe},
};
use local::cloud::Cloud;
use reqwest::Method;
use serde_json::Value;
use std::collections::BTreeMap;

/// Prices at which a few tokens are cents, and parts of one.
const PLANS: &str = r#"
version = 1
past_due_grace_days = 7
[[plan]]
id = "free"
included_tokens = 50_000_000
cap_tokens = 50_000_000
requests_per_window = 100_000
window_seconds = 315_360_000
concurrent_requests = 16
price_cents_per_month = 0
[[plan]]
id = "pro"
included_tokens = 10
cap_tokens = 50_000_000
requests_per_window = 100_000
window_seconds = 315_360_000
concurrent_requests = 16
price_cents_per_month = 2_000
overage_nano_usd_per_million_tokens = 3_300_000_000_000
base_lookup_key = "base"
metered_lookup_key = "metered"
[[plan]]
id = "agency"
included_tokens = 20
cap_tokens = 50_000_000
requests_per_window = 100_000
window_seconds = 315_360_000
concurrent_requests = 16
price_cents_per_month = 9_900
overage_nano_usd_per_million_tokens = 7_700_000_000_000
base_lookup_key = "agency_base"
metered_lookup_key = "agency_metered"
"#;
const HOUR_S: i64 = 3_600;
/// Within the month, and not at its middle.
const CHANGE_HOUR: u64 = 11 * 24;

/// The one subscription of a customer.
async fn subscription(cloud: &Cloud, customer: &str) -> Value {
    let all = stripe(cloud, Method::GET, "subscriptions", &[("customer", customer)]).await;
    all["data"][0].clone()
}

async fn change_to_agency(cloud: &Cloud, customer: &str) {
    let of = subscription(cloud, customer).await;
    let plans = &cloud.catalog().unwrap().plans;
    let items = of["items"]["data"].as_array().unwrap();
    let item = |price: &String| {
        let item = items.iter().find(|item| item["price"]["id"] == *price);
        item.unwrap()["id"].as_str().unwrap()
    };
    let (pro, agency) = (&plans["pro"], &plans["agency"]);
    let form = [
        ("items[0][id]", item(&pro.base_price_id)),
        ("items[0][price]", &agency.base_price_id),
        ("items[1][id]", item(&pro.metered_price_id)),
        ("items[1][price]", &agency.metered_price_id),
    ];
    stripe(cloud, Method::POST, &format!("subscriptions/{}", of["id"].as_str().unwrap()), &form).await;
}

/// An amount of dollars, in cents.
fn cents(usd: &Value) -> i64 {
    let (dollars, cents) = usd.as_str().unwrap().split_once('.').unwrap();
    assert_eq!(cents.len(), 2, "{usd}");
    format!("{dollars}{cents}").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn f21_f22_what_is_told_just_before_the_months_end_is_the_invoice_that_is_made() {
    let time = Time::new();
    let plans = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(plans.path(), PLANS).unwrap();
    let cloud = cloud(|options| time.rule(options, plans.path())).await;
    let mut customers = BTreeMap::new();
    for name in ["plain", "ending", "changing", "idle"] {
        customers.insert(name, subscribe(&cloud, &Client::new(&cloud, name).user).await);
    }
    let use_some = async |tokens: usize| {
        for (more, name) in (0..).zip(customers.keys()) {
            // A session lives for minutes: each is of its own hour.
            charged(&Client::new(&cloud, name), tokens + more).await;
        }
    };
    for (more, name) in (0..).zip(["plain", "ending", "changing"]) {
        charged(&Client::new(&cloud, name), 101 + more).await;
    }
    report(&cloud).await;

    time.move_to(&cloud, CHANGE_HOUR);
    let ending = subscription(&cloud, &customers["ending"]).await;
    let ending = format!("subscriptions/{}", ending["id"].as_str().unwrap());
    stripe(&cloud, Method::POST, &ending, &[("cancel_at_period_end", "true")]).await;
    // Stripe hears of it after the change: it is an item on the next invoice.
    charged(&Client::new(&cloud, "changing"), 57).await;
    change_to_agency(&cloud, &customers["changing"]).await;
    // Who has asked for nothing yet has two lines for the change all the same.
    change_to_agency(&cloud, &customers["idle"]).await;
    webhooks(&cloud).await;
    use_some(203).await;
    report(&cloud).await;

    let items = subscription(&cloud, &customers["plain"]).await["items"]["data"].clone();
    let period = |name: &str| items[0][name].as_i64().unwrap();
    let month_h = (period("current_period_end") - period("current_period_start")) / HOUR_S;
    let month_h = u64::try_from(month_h).unwrap();
    time.move_to(&cloud, month_h - 1);
    use_some(307).await;
    let mut told = BTreeMap::new();
    for name in customers.keys() {
        let usage = Client::new(&cloud, name).usage().await;
        assert_eq!(usage["endsAt"].is_null(), *name != "ending", "{usage}");
        let invoice = &usage["invoice"];
        assert!(cents(&invoice["overageUsd"]) > 100, "{invoice}");
        assert_eq!(cents(&invoice["baseUsd"]) == 0, *name == "ending", "{invoice}");
        assert_eq!(cents(&invoice["planChangeUsd"]) > 0, ["changing", "idle"].contains(name), "{invoice}");
        assert_eq!(invoice["at"], usage["resetsAt"]);
        told.insert(*name, cents(&invoice["estimateUsd"]));
    }

    time.move_to(&cloud, month_h);
    webhooks(&cloud).await;
    time.move_to(&cloud, month_h + 2);
    webhooks(&cloud).await;
    for (name, customer) in &customers {
        let made = stripe(&cloud, Method::GET, "invoices", &[("customer", customer)]).await;
        let newest = &made["data"][0];
        assert_eq!(made["data"].as_array().unwrap().len(), 2, "{name}: the first month's, and this one");
        assert_ne!(newest["status"], "draft", "{name}: {newest}");
        assert_eq!(newest["total"], told[name], "{name}: {newest}");
    }
    cloud.shutdown().await;
}
