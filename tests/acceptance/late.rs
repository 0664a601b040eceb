//! Usage that misses the invoice of its period, through the real binaries: Stripe answers nobody while the period ends and its
//! invoice becomes final, so that what was used last becomes an item on the next invoice. Once, although the reporter is killed
//! when the item is made and nobody knows of it; and whoever pays for it can see why.

use crate::{
    books::Books,
    days::Time,
    kills::{charged, kill, leases_run_out},
    store::{Caught, cloud_with_store},
    support::{Client, items, number, report, soon, subscribe},
};
use local::{
    cloud::Cloud,
    net,
    stripe::{self, InvoiceStatus, InvoiceView},
};
use reqwest::Method;
use serde_json::Value;
use std::io::Write;
use tempfile::NamedTempFile;

/// Tokens that a period includes; a token above them is a cent.
const INCLUDED: u64 = 10;
/// When Stripe has counted the first usage, and when the rest is used, in hours from the start: well within the period.
const COUNTED_HOUR: u64 = 1;
const UNCOUNTED_HOUR: u64 = 2;
/// After every length that a month can have, and the 72 hours that Stripe waits for an answer about a draft.
const FINAL_HOUR: u64 = 31 * 24 + 75;
/// The same of the next period.
const NEXT_FINAL_HOUR: u64 = 62 * 24 + 75;
/// How often an event is delivered that was not taken.
const DELIVERIES_MAX: u32 = 20;

/// A free plan, and one whose usage is dear enough that a few tokens show on an invoice.
fn dear_plans() -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    let plan = |id: &str, included: u64, more: &str| {
        format!(
            "[[plan]]\nid = \"{id}\"\nincluded_tokens = {included}\ncap_tokens = 50_000_000\nrequests_per_window = 100_000\n\
             window_seconds = 315_360_000\nconcurrent_requests = 16\n{more}\n"
        )
    };
    let free = plan("free", 50_000_000, "price_cents_per_month = 0");
    let dear = "price_cents_per_month = 2_000\noverage_nano_usd_per_million_tokens = 10_000_000_000_000\n\
                base_lookup_key = \"base\"\nmetered_lookup_key = \"metered\"";
    write!(file, "version = 1\n{free}{}", plan("pro", INCLUDED, dear)).unwrap();
    file
}

/// Every item of a customer: its id, its cents, and the report that it bills.
async fn items_at_stripe(cloud: &Cloud, customer: &str) -> Vec<(String, u64, String)> {
    let url = format!("{}v1/invoiceitems?customer={customer}", cloud.stripe().unwrap().base_url());
    let asked = net::client().unwrap().get(url).bearer_auth(stripe::Options::default().api_key).send();
    let list: Value = soon(asked).await.unwrap().json().await.unwrap();
    let of = |item: &Value| {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&item["id"]), number(item, "amount"), text(&item["metadata"]["inkmeter_report"]))
    };
    list["data"].as_array().unwrap().iter().map(of).collect()
}

/// The customer's invoices, the oldest first, each of which is final.
fn invoices(cloud: &Cloud, customer: &str) -> Vec<InvoiceView> {
    let invoices = cloud.stripe().unwrap().invoices(customer);
    assert!(invoices.iter().all(|invoice| invoice.status == InvoiceStatus::Paid), "{invoices:?}");
    invoices
}

/// What an invoice has of items: their ids and cents.
fn lines_of_items(invoice: &InvoiceView) -> Vec<(&str, i64)> {
    invoice.lines.iter().filter_map(|line| Some((line.invoice_item.as_deref()?, line.cents))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn i3_f09_f11_f23_usage_that_misses_its_invoice_is_on_the_next_one_once_and_its_user_sees_it() {
    let (time, plans) = (Time::new(), dear_plans());
    let (cloud, store) = cloud_with_store(|options| time.rule(options, plans.path())).await;
    let stripe = cloud.stripe().unwrap();
    let customer = subscribe(&cloud, &Client::new(&cloud, "lata").user).await;

    time.move_to(&cloud, COUNTED_HOUR);
    let counted = charged(&Client::new(&cloud, "lata"), 30).await;
    assert_eq!(report(&cloud).await["accepted"], 1);
    time.move_to(&cloud, UNCOUNTED_HOUR);
    stripe.set_outage(true);
    let client = Client::new(&cloud, "lata");
    let missed = charged(&client, 40).await;
    let run = report(&cloud).await;
    assert_eq!(
        (&run["sealed"], &run["accepted"], &run["failed"]),
        (&1.into(), &0.into(), &1.into()),
        "{run}"
    );

    // The period ends, and three days later its invoice is final without what nobody could report.
    time.move_to(&cloud, FINAL_HOUR);
    stripe.set_outage(false);
    let due = i64::try_from(counted - INCLUDED).unwrap();
    let first = invoices(&cloud, &customer);
    assert_eq!(first.iter().map(InvoiceView::metered_cents).collect::<Vec<_>>(), [0, due]);
    // The reporter makes an item of it, and is killed before it has noted that.
    let mut snare = store.catch("PutItem", &client.user, 0, Caught::Undone);
    let killed = async {
        snare.sprung().await;
        kill(&cloud, "reporter").await;
    };
    let (run, ()) = tokio::join!(soon(cloud.run_reporter()), soon(killed));
    assert!(run.is_err(), "the run was not killed: {run:?}");
    drop(snare);
    let made = items_at_stripe(&cloud, &customer).await;
    assert_eq!(made.iter().map(|item| item.1).collect::<Vec<_>>(), [missed], "{made:?}");
    Books::read(&cloud).agree();
    leases_run_out(&cloud);
    let run = report(&cloud).await;
    assert_eq!(
        (&run["late"], &run["invoiced"], &run["sent"], &run["failed"]),
        (&1.into(), &1.into(), &0.into(), &0.into()),
        "{run}"
    );
    assert_eq!(items_at_stripe(&cloud, &customer).await, made, "a second item");
    let quiet = report(&cloud).await;
    assert_eq!((&quiet["meters"], &quiet["calls"]), (&0.into(), &0.into()), "{quiet}");
    let reported: Vec<Value> = items(&cloud, &client.user, "P#");
    let late: Vec<&Value> = reported.iter().filter(|item| item["fate"] == "invoiced").collect();
    assert_eq!(late.len(), 1, "{reported:?}");
    assert_eq!((number(late[0], "tokens"), &late[0]["identifier"]), (missed, &made[0].2.clone().into()));

    // It is on the next invoice, once, beside nothing else.
    time.move_to(&cloud, NEXT_FINAL_HOUR);
    assert_eq!(soon(stripe.deliver_all(DELIVERIES_MAX)).await, 0, "{:?}", stripe.undelivered());
    let all = invoices(&cloud, &customer);
    assert_eq!(all[..2], first, "an invoice that was final has changed");
    let on_items: Vec<_> = all.iter().flat_map(lines_of_items).collect();
    assert_eq!(on_items, [(made[0].0.as_str(), i64::try_from(missed).unwrap())]);
    assert_eq!(lines_of_items(&all[2]).len(), 1, "{:?}", all[2]);
    assert_eq!(stripe.counted(&customer, i64::MIN, i64::MAX), counted);

    let (status, seen) = Client::new(&cloud, "lata").call(Method::GET, "/v1/receipts", &Value::Null).await;
    assert_eq!(status, 200, "{seen}");
    let late = seen["lateUsage"].as_array().unwrap();
    assert_eq!(late.len(), 1, "{seen}");
    assert_eq!(
        (number(&late[0], "tokens"), &late[0]["invoiceItem"]),
        (missed, &made[0].0.clone().into()),
        "{seen}"
    );
    cloud.shutdown().await;
}
