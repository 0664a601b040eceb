//! From a subscription to what Stripe counted, through the real webhook and reporter.

use crate::support::{Client, Events, cloud, items, metadata, number, report, soon, subscribe, until};
use local::{cloud::Cloud, net, stripe::Fault};
use serde_json::json;

const METER_EVENTS: &str = "/v1/billing/meter_events";

async fn charged(client: &Client, tokens: u32) -> u64 {
    let events = Events::of(client.generate(&format!("[[tokens={tokens}]] A kettle.")).await).rest().await;
    metadata(&events)["charged"].as_u64().unwrap()
}

fn counted(cloud: &Cloud, customer: &str) -> u64 {
    cloud.stripe().unwrap().counted(customer, i64::MIN, i64::MAX)
}

#[tokio::test(flavor = "multi_thread")]
async fn i6_while_stripe_is_down_everybody_generates_and_nothing_is_lost() {
    let cloud = cloud(|_| {}).await;
    let client = Client::new(&cloud, "paula");
    let customer = subscribe(&cloud, &client.user).await;
    assert_eq!(client.usage().await["plan"], "pro");

    cloud.stripe().unwrap().set_outage(true);
    let first = charged(&client, 30).await;
    let run = report(&cloud).await;
    assert_eq!((&run["sealed"], &run["accepted"]), (&1.into(), &0.into()), "{run}");
    let second = charged(&client, 40).await;
    assert_eq!(counted(&cloud, &customer), 0);

    cloud.stripe().unwrap().set_outage(false);
    report(&cloud).await;
    assert_eq!(counted(&cloud, &customer), first + second);
    let quiet = report(&cloud).await;
    assert_eq!((&quiet["meters"], &quiet["sent"]), (&0.into(), &0.into()), "{quiet}");
    let reports = items(&cloud, &client.user, "P#");
    assert_eq!(reports.iter().map(|report| number(report, "tokens")).sum::<u64>(), first + second);
    cloud.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f09_f10_a_report_whose_answer_was_lost_is_counted_once() {
    let cloud = cloud(|_| {}).await;
    let client = Client::new(&cloud, "petra");
    let customer = subscribe(&cloud, &client.user).await;
    let used = charged(&client, 30).await;
    cloud.stripe().unwrap().fail_next_on(METER_EVENTS, 1, Fault::ErrorAfterCommit);
    let run = report(&cloud).await;
    assert_eq!((&run["sent"], &run["already_existed"]), (&2.into(), &1.into()), "{run}");
    assert_eq!(counted(&cloud, &customer), used);
    cloud.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f10_a_customer_that_stripe_refuses_holds_up_nobody_else() {
    let cloud = cloud(|_| {}).await;
    let (one, other) = (Client::new(&cloud, "pia"), Client::new(&cloud, "paul"));
    let customers = [subscribe(&cloud, &one.user).await, subscribe(&cloud, &other.user).await];
    let used = [charged(&one, 20).await, charged(&other, 30).await];
    // Whichever is sent first is refused for good.
    cloud.stripe().unwrap().fail_next_on(METER_EVENTS, 1, Fault::Status(400));
    let run = report(&cloud).await;
    assert_eq!((&run["parked"], &run["accepted"]), (&1.into(), &1.into()), "{run}");
    let counted = customers.map(|customer| counted(&cloud, &customer));
    assert!(counted == [used[0], 0] || counted == [0, used[1]], "{counted:?}");
    assert_eq!(cloud.events().events().len(), 1, "somebody is told");
    cloud.shutdown().await;
}

/// Puts an event on the cloud's bus, as a run of the reporter does whose time ran out.
async fn unfinished(cloud: &Cloud) {
    let detail = json!({"run": "r", "n": 1, "mode": "report", "shard": 3, "after": null}).to_string();
    let entry = json!({"Source": "inkmeter.reporter", "DetailType": "Reporter Unfinished", "Detail": detail,
        "EventBusName": "inkmeter-events"});
    let signature = format!(
        "AWS4-HMAC-SHA256 Credential=k/20270115/us-east-1/events/aws4_request, \
         SignedHeaders=host;x-amz-date;x-amz-target, Signature={}",
        "0".repeat(64)
    );
    let put = net::client()
        .unwrap()
        .post(format!("{}/", cloud.events().base_url()))
        .header("content-type", "application/x-amz-json-1.1")
        .header("x-amz-target", "AWSEvents.PutEvents")
        .header("x-amz-date", "20270115T080000Z")
        .header("authorization", signature)
        .body(json!({ "Entries": [entry] }).to_string());
    let answer = soon(put.send()).await.unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_a_run_whose_time_ran_out_wakes_the_next_and_the_books_agree_afterwards() {
    let cloud = cloud(|_| {}).await;
    let client = Client::new(&cloud, "pablo");
    let customer = subscribe(&cloud, &client.user).await;
    let used = charged(&client, 30).await;
    unfinished(&cloud).await;
    until(|| (counted(&cloud, &customer) == used).then_some(())).await;
    // Whoever is at it ends first: one run at a time has the customer's lease.
    until(|| items(&cloud, &client.user, "M#")[0]["dirty"].is_null().then_some(())).await;
    let payload = json!({"mode": "reconcile"});
    let checked = soon(cloud.runtime().invoke("reporter", &payload)).await.unwrap().payload;
    let figures = ["users", "drifted", "moving", "unasked", "failed"].map(|name| checked[name].as_u64());
    assert_eq!(figures, [1, 0, 0, 0, 0].map(Some), "{checked}");
    assert!(checked["meters"].as_u64() >= Some(1), "{checked}");
    cloud.shutdown().await;
}
