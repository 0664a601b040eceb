//! Stripe's webhooks through the real binaries: from a checkout to an invoice that waits until every token is on it.

use crate::support::{Client, Events, cloud, items, metadata, report, soon, subscribe, until};
use local::{
    cloud::Cloud,
    net,
    stripe::{self, Fault, InvoiceStatus, WebhookEndpoint},
};
use serde_json::Value;

const HOUR_S: i64 = 60 * 60;
/// As the local cloud's functions are told.
const THIN_SECRET: &str = "whsec_local_thin";

/// Asks Stripe's stand-in for something, as whoever has the key does.
async fn ask(cloud: &Cloud, path: &str, form: &[(&str, &str)]) -> Value {
    let url = format!("{}v1/{path}", cloud.stripe().unwrap().base_url());
    let asked = net::client().unwrap().post(url).bearer_auth(stripe::Options::default().api_key).form(form);
    let answer: Value = soon(asked.send()).await.unwrap().json().await.unwrap();
    assert!(answer["error"].is_null(), "{path} was refused: {answer}");
    answer
}

/// Buys Pro in a checkout, and pays. Answers the customer.
async fn buy(cloud: &Cloud, user: &str) -> String {
    let plan = &cloud.catalog().unwrap().plans["pro"];
    let customer = ask(cloud, "customers", &[("metadata[user_id]", user)]).await;
    let customer = customer["id"].as_str().unwrap().to_owned();
    let form = [
        ("mode", "subscription"),
        ("customer", customer.as_str()),
        ("client_reference_id", user),
        ("line_items[0][price]", &plan.base_price_id),
        ("line_items[0][quantity]", "1"),
        ("line_items[1][price]", &plan.metered_price_id),
        ("subscription_data[metadata][user_id]", user),
        ("success_url", "https://app.example.com/done"),
        ("cancel_url", "https://app.example.com/back"),
    ];
    let session = ask(cloud, "checkout/sessions", &form).await;
    let stripe = cloud.stripe().unwrap();
    stripe.complete_checkout(session["id"].as_str().unwrap()).unwrap();
    assert_eq!(soon(stripe.deliver_pending()).await, 0, "{:?}", stripe.undelivered());
    customer
}

/// When the current period of a customer's one subscription ends, in Unix seconds.
async fn period_end_s(cloud: &Cloud, customer: &str) -> i64 {
    let url = format!("{}v1/subscriptions?customer={customer}", cloud.stripe().unwrap().base_url());
    let asked = net::client().unwrap().get(url).bearer_auth(stripe::Options::default().api_key);
    let list: Value = soon(asked.send()).await.unwrap().json().await.unwrap();
    list["data"][0]["items"]["data"][0]["current_period_end"].as_i64().unwrap()
}

fn counted(cloud: &Cloud, customer: &str) -> u64 {
    cloud.stripe().unwrap().counted(customer, i64::MIN, i64::MAX)
}

/// The kinds of events that Stripe goes on delivering.
fn waiting(cloud: &Cloud) -> Vec<String> {
    cloud.stripe().unwrap().undelivered().into_iter().map(|event| event.kind).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn f11_i7_a_drafted_invoice_waits_for_the_last_stream_of_its_period_and_then_has_every_token() {
    let cloud = cloud(|_| {}).await;
    let stripe = cloud.stripe().unwrap();
    let client = Client::new(&cloud, "wanda");
    let customer = buy(&cloud, &client.user).await;
    assert_eq!(client.usage().await["plan"], "pro");

    let events = Events::of(client.generate("[[tokens=30]] A kettle.").await).rest().await;
    let first = metadata(&events)["charged"].as_u64().unwrap();
    // One stream is under way when the month ends; by Stripe's clock, which is the one that bills.
    let mut under_way = Events::of(client.generate("[[tokens=40 gate gate_from=1]] A kettle.").await);
    assert!(under_way.text().await.is_some());
    let ends_s = period_end_s(&cloud, &customer).await;
    stripe.advance_to(ends_s + 60).await.unwrap();
    let drafts = |status: InvoiceStatus| {
        let invoices = stripe.invoices(&customer);
        invoices.into_iter().filter(move |invoice| invoice.status == status && invoice.period_end_s == ends_s)
    };
    assert_eq!(drafts(InvoiceStatus::Draft).count(), 1);
    assert_eq!(waiting(&cloud), ["invoice.created"]);
    // What was settled is there, by this delivery or, where it had no time, by the reporter that it woke.
    until(|| (counted(&cloud, &customer) == first).then_some(())).await;
    // Stripe does not finalize it meanwhile, and asks again.
    stripe.advance_to(ends_s + 3 * HOUR_S).await.unwrap();
    assert_eq!(drafts(InvoiceStatus::Draft).count(), 1);
    assert_eq!(waiting(&cloud), ["invoice.created"]);

    cloud.openai().unwrap().release(1_000);
    let second = metadata(&under_way.rest().await)["charged"].as_u64().unwrap();
    assert_eq!(soon(stripe.deliver_all(10)).await, 0, "{:?}", stripe.undelivered());
    assert_eq!(counted(&cloud, &customer), first + second);
    stripe.advance_to(ends_s + 5 * HOUR_S).await.unwrap();
    let paid = drafts(InvoiceStatus::Paid).next().expect("it is final and paid");
    let metered: u64 = paid.lines.iter().filter(|line| line.metered).map(|line| line.quantity).sum();
    assert_eq!(metered, first + second, "{:?}", paid.lines);
    assert_eq!(client.usage().await["plan"], "pro");
    cloud.shutdown().await;
}

/// The webhook answers, and Stripe will be long in asking again: meanwhile the bus has woken the reporter.
#[tokio::test(flavor = "multi_thread")]
async fn f09_what_a_delivery_had_no_time_for_is_at_stripe_before_it_is_delivered_again() {
    let cloud = cloud(|_| {}).await;
    let stripe = cloud.stripe().unwrap();
    let client = Client::new(&cloud, "wendy");
    let customer = buy(&cloud, &client.user).await;
    let events = Events::of(client.generate("[[tokens=30]] A kettle.").await).rest().await;
    let used = metadata(&events)["charged"].as_u64().unwrap();
    let ends_s = period_end_s(&cloud, &customer).await;
    // As often as one delivery asks.
    stripe.fail_next_on("/v1/billing/meter_events", 3, Fault::Status(503));
    stripe.advance_to(ends_s + 60).await.unwrap();
    assert_eq!(waiting(&cloud), ["invoice.created"]);
    let told = || cloud.events().events().into_iter().map(|event| event.detail_type).collect::<Vec<_>>();
    // On a machine so slow that the delivery began nothing, the reporter meets what was meant for it, and says so.
    let ended = || counted(&cloud, &customer) == used || told().iter().any(|kind| kind == "Drain Failed");
    until(|| ended().then_some(())).await;
    assert_eq!(told()[0], "Drain Wanted");
    assert_eq!(soon(stripe.deliver_all(10)).await, 0, "{:?}", stripe.undelivered());
    assert_eq!(counted(&cloud, &customer), used);
    cloud.shutdown().await;
}

/// A schedule's boundary is an ordinary update of its subscription. Until then its prices are nobody's business.
#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_a_schedule_brings_to_our_prices_is_on_its_plan_from_the_boundary_on() {
    let cloud = cloud(|_| {}).await;
    let stripe = cloud.stripe().unwrap();
    let client = Client::new(&cloud, "wilbur");
    let plan = &cloud.catalog().unwrap().plans["pro"];
    let id = |object: &Value| object["id"].as_str().unwrap().to_owned();
    let customer = id(&ask(&cloud, "customers", &[("metadata[user_id]", client.user.as_str())]).await);
    let product = id(&ask(&cloud, "products", &[("name", "Old")]).await);
    let old = [
        ("product", product.as_str()),
        ("currency", "usd"),
        ("unit_amount", "1000"),
        ("recurring[interval]", "month"),
    ];
    let old = id(&ask(&cloud, "prices", &old).await);
    let form = [("customer", customer.as_str()), ("items[0][price]", &old), ("metadata[inkmeter]", "adopt")];
    let subscription = id(&ask(&cloud, "subscriptions", &form).await);
    let schedule = ask(&cloud, "subscription_schedules", &[("from_subscription", &subscription)]).await;
    let phase = |field: &str| schedule["phases"][0][field].as_i64().unwrap().to_string();
    let (start, end) = (phase("start_date"), phase("end_date"));
    let phases = [
        ("phases[0][start_date]", start.as_str()),
        ("phases[0][end_date]", &end),
        ("phases[0][items][0][price]", &old),
        ("phases[1][items][0][price]", &plan.base_price_id),
        ("phases[1][items][1][price]", &plan.metered_price_id),
        ("phases[1][proration_behavior]", "none"),
    ];
    ask(&cloud, &format!("subscription_schedules/{}", id(&schedule)), &phases).await;
    let adopted = [("metadata[inkmeter_adopted]", start.as_str())];
    ask(&cloud, &format!("subscriptions/{subscription}"), &adopted).await;
    assert_eq!(soon(stripe.deliver_pending()).await, 0, "{:?}", stripe.undelivered());
    assert_eq!(client.usage().await["plan"], "free");

    stripe.advance_to(end.parse::<i64>().unwrap() + 60).await.unwrap();
    assert_eq!(soon(stripe.deliver_all(10)).await, 0, "{:?}", stripe.undelivered());
    let usage = client.usage().await;
    assert_eq!(usage["plan"], "pro", "{usage}");
    assert!(cloud.events().events().is_empty(), "{:?}", cloud.events().events());
    cloud.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stripe_rejects_after_it_took_it_is_parked_and_told_under_the_thin_secret_only() {
    let cloud = cloud(|_| {}).await;
    let stripe = cloud.stripe().unwrap();
    let client = Client::new(&cloud, "wilma");
    let customer = subscribe(&cloud, &client.user).await;
    Events::of(client.generate("[[tokens=30]] A kettle.").await).rest().await;
    report(&cloud).await;
    assert!(counted(&cloud, &customer) > 0);
    let sent = stripe.meter_events().remove(0);
    let url = format!("{}/v1/webhooks/stripe", cloud.url());
    let hears = |secret: &str| {
        stripe.set_thin_webhook(Some(WebhookEndpoint { url: url.clone(), secret: secret.to_owned() }));
    };
    let fate = || items(&cloud, &client.user, "P#").remove(0)["fate"].clone();

    // Whoever has another secret is not believed, so Stripe goes on delivering.
    hears("whsec_other");
    stripe.reject_meter_event(&sent.identifier).unwrap();
    stripe.advance_to(stripe.now_s() + 60).await.unwrap();
    assert_eq!(waiting(&cloud), ["v1.billing.meter.error_report_triggered"]);
    assert_eq!(fate(), "accepted");
    hears(THIN_SECRET);
    assert_eq!(soon(stripe.deliver_all(3)).await, 0, "{:?}", stripe.undelivered());
    assert_eq!(fate(), "parked");
    let told: Vec<_> = cloud.events().events().into_iter().map(|event| event.detail_type).collect();
    assert_eq!(told, ["Report Rejected"]);
    cloud.shutdown().await;
}
