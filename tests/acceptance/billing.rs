//! From a subscription to what Stripe counted, through the real webhook and reporter.

use crate::support::{Client, Events, cloud, items, metadata, number, report, subscribe};
use local::{cloud::Cloud, stripe::Fault};

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
