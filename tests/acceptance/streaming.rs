//! A stream that streams, lasts, is counted whoever listens, and never ends as if it were whole when it is not.

use crate::support::{Client, Events, cloud, gate, items, meter, number, soon, until};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn each_piece_reaches_the_client_before_the_provider_writes_the_next() {
    let cloud = cloud(gate).await;
    let provider = cloud.openai().unwrap();
    let client = Client::new(&cloud, "alice");
    let mut events = Events::of(client.generate("[[tokens=40]] A kettle.").await);
    for written in 1..=40 {
        // The first is written at once: the function's status waits for it.
        provider.release(usize::from(written > 1));
        assert!(events.text().await.is_some(), "piece {written} did not arrive");
        assert_eq!(provider.deltas_written(), written, "the provider was ahead of the client");
    }
    provider.release(1);
    let rest = events.rest().await;
    assert_eq!(rest.last().unwrap()["type"], "finish");
    cloud.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_lasts_longer_than_an_unconfigured_integration() {
    let cloud = cloud(|_| {}).await;
    let client = Client::new(&cloud, "bob");
    let begun = std::time::Instant::now();
    let answer = client.generate("[[tokens=16 delay_ms=2000]] A slow kettle.").await;
    let events = Events::of(answer).rest().await;
    assert!(begun.elapsed() > Duration::from_secs(29));
    assert_eq!(events.last().unwrap()["type"], "finish");
    cloud.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f04_a_client_that_leaves_is_counted_to_the_end() {
    let cloud = cloud(gate).await;
    let provider = cloud.openai().unwrap().clone();
    let client = Client::new(&cloud, "carol");
    let mut events = Events::of(client.generate("[[tokens=300]] A kettle.").await);
    provider.release(3);
    assert!(events.text().await.is_some());
    drop(events);
    provider.release(1_000);
    soon(provider.idle()).await;
    let served = provider.total_reported().total_tokens();
    // The pump settles after the provider's end; the next request of the user waits in the same table.
    let receipt = until(|| items(&cloud, &client.user, "R#").pop()).await;
    assert_eq!((number(&receipt, "charged"), number(&receipt, "absorbed")), (served, 0));
    until(|| (number(&meter(&cloud, &client.user), "settled") == served).then_some(())).await;
    cloud.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f28_a_cut_stream_ends_in_an_error_and_is_settled_as_an_estimate() {
    let cloud = cloud(|_| {}).await;
    let client = Client::new(&cloud, "dave");
    let events = Events::of(client.generate("[[tokens=200 cut=50]] A kettle.").await).rest().await;
    assert_eq!(events.last().unwrap()["type"], "error");
    assert!(events.iter().all(|event| event["type"] != "finish"));
    let receipts = items(&cloud, &client.user, "R#");
    assert_eq!(receipts.len(), 1);
    assert_eq!(receipts[0]["outcome"], "estimated");
    assert!(number(&receipts[0], "charged") > 0, "an unknown usage is never zero");
    cloud.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f08_a_killed_function_leaves_a_hold_and_no_receipt() {
    let cloud = cloud(gate).await;
    let client = Client::new(&cloud, "erin");
    let mut events = Events::of(client.generate("[[tokens=300]] A kettle.").await);
    cloud.openai().unwrap().release(2);
    assert!(events.text().await.is_some());
    assert!(cloud.runtime().kill_one("generate").is_some());
    let rest = events.rest().await;
    assert!(rest.iter().all(|event| event["type"] != "finish"), "a cut stream looked whole: {rest:?}");
    let left = meter(&cloud, &client.user);
    assert_eq!(number(&left, "settled"), 0);
    assert_eq!(left["holds"].as_object().unwrap().len(), 1);
    assert!(items(&cloud, &client.user, "R#").is_empty());
    // The next request is served by another process.
    cloud.openai().unwrap().release(1_000);
    let events = Events::of(client.generate("[[tokens=3]] A kettle.").await).rest().await;
    assert_eq!(events.last().unwrap()["type"], "finish");
    cloud.shutdown().await;
}
