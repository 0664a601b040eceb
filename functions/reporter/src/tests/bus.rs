//! The bus takes some, loses some, and never fails a run.

use super::world::{bus_at, entries};
use bus::Announcement;
use serde_json::json;
use std::sync::Mutex;
use stripe::testing::{Peer, Reply};

fn announcements(count: usize) -> Vec<Announcement> {
    (0..count).map(|n| Announcement::Misconfigured { reason: n.to_string() }).collect()
}

#[tokio::test]
async fn more_than_ten_events_go_in_more_than_one_call() {
    let peer =
        Peer::start(|_| Reply::Answer(200, r#"{"FailedEntryCount":0,"Entries":[]}"#.into())).await.unwrap();
    assert_eq!(bus_at(&peer).announce(&announcements(23)).await, 0);
    let sizes: Vec<_> = peer.requests().iter().map(|request| entries(request).len()).collect();
    assert_eq!(sizes, [10, 10, 3]);
}

#[tokio::test]
async fn only_the_events_that_were_not_taken_are_put_again() {
    let first = Mutex::new(true);
    let peer = Peer::start(move |request| {
        let fails = std::mem::replace(&mut *first.lock().unwrap(), false);
        let results: Vec<_> = (0..entries(request).len())
            .map(|n| match n {
                1 if fails => json!({"ErrorCode": "ThrottlingException", "ErrorMessage": "slow down"}),
                _ => json!({"EventId": "1"}),
            })
            .collect();
        Reply::Answer(200, json!({"FailedEntryCount": u8::from(fails), "Entries": results}).to_string())
    })
    .await
    .unwrap();
    assert_eq!(bus_at(&peer).announce(&announcements(3)).await, 0);
    let requests = peer.requests();
    assert_eq!(requests.len(), 2);
    let again = entries(&requests[1]);
    assert_eq!(again.len(), 1);
    assert!(again[0]["Detail"].as_str().unwrap().contains('1'));
    assert_eq!(again[0]["Source"], "inkmeter.reporter");
    assert_eq!(again[0]["EventBusName"], "bus");
}

#[tokio::test]
async fn a_bus_that_does_not_answer_loses_events_after_a_bounded_number_of_tries() {
    let peer = Peer::start(|_| Reply::Cut).await.unwrap();
    assert_eq!(bus_at(&peer).announce(&announcements(2)).await, 2);
    assert_eq!(peer.requests().len(), 3);
}
