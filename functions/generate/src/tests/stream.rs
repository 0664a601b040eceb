//! What becomes of a request that was admitted, whatever its provider, its client and its store do.

use super::{World, chunks, deadlines, parsed, problem, types, upstream::HEAD};
use crate::pump::Deadlines;
use bytes::Bytes;
use domain::{NanoUsd, Outcome, Receipt, Tokens, Usage};
use http::header;
use http_body_util::BodyExt;
use std::time::Duration;
use tokio::time::Instant;

const COMPLETE: [&str; 10] = [
    "start",
    "start-step",
    "text-start",
    "text-delta",
    "text-delta",
    "text-end",
    "finish-step",
    "message-metadata",
    "finish",
    "[DONE]",
];
const CUT: [&str; 7] =
    ["start", "start-step", "text-start", "text-delta", "message-metadata", "error", "[DONE]"];
/// How often a provider is called that always fails in a way that may pass.
const CALLS_MAX: u32 = 4;

/// The one receipt there is, once everything has ended.
pub(super) async fn receipt(world: &World) -> Receipt {
    let key = ledger::MeterKey::of(&world.meter().await);
    let mut receipts = world.store.inner().receipts_of(&key);
    assert_eq!(receipts.len(), 1);
    receipts.pop().unwrap()
}

#[track_caller]
fn assert_estimated(receipt: &Receipt) {
    let Outcome::Settled { usage: Usage::Estimated(classes), .. } = &receipt.outcome else {
        panic!("not an estimate: {receipt:?}")
    };
    assert!(classes.total() > Tokens::ZERO);
    assert_eq!(receipt.charged, classes.total());
}

#[tokio::test]
async fn a_complete_answer_is_settled_before_it_finishes() {
    let world = World::new().await;
    world.upstream.write(HEAD).text("Hel").text("lo").stop().usage(30, 2).done().close();
    let response = world.ask().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-cache");
    assert_eq!(response.headers()["x-vercel-ai-ui-message-stream"], "v1");
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    let mut body = response.into_body();
    let mut all = Vec::new();
    while let Some(frame) = body.frame().await {
        let bytes: Bytes = frame.unwrap().into_data().unwrap();
        if bytes.windows(8).any(|window| window == b"\"finish\"") {
            assert_eq!(world.store.inner().every_meter()[0].settled, Tokens::from_u32(32));
        }
        all.extend_from_slice(&bytes);
    }
    let chunks = parsed(&all.into());
    assert_eq!(types(&chunks), COMPLETE);
    let receipt = receipt(&world).await;
    assert_eq!(chunks[0]["messageId"], receipt.id.as_str());
    let metadata = &chunks[7]["messageMetadata"];
    assert_eq!(metadata["receipt"], receipt.id.as_str());
    assert_eq!(metadata["charged"], 32);
    assert_eq!(metadata["usage"]["totalTokens"], 32);
    assert_eq!(chunks[8]["finishReason"], "stop");
    assert_eq!(receipt.charged, Tokens::from_u32(32));
}

#[tokio::test]
async fn a_chunk_reaches_the_client_before_the_provider_writes_the_next_but_one() {
    let world = World::new().await;
    world.upstream.write(HEAD).text("one");
    let mut body = world.ask().await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    for (text, next) in [("one", "two"), ("two", "three"), ("three", "four")] {
        let bytes = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(parsed(&bytes)[0]["delta"], text);
        world.upstream.text(next);
    }
    world.upstream.stop().usage(30, 3).done().close();
    assert_eq!(world.meter().await.settled, Tokens::from_u32(33));
}

#[tokio::test]
async fn f04_a_client_that_leaves_is_settled_to_the_provider_s_end() {
    let world = World::new().await;
    world.upstream.write(HEAD).text("Hel");
    let mut body = world.ask().await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    for _ in 0..200 {
        world.upstream.text("lo");
    }
    world.upstream.stop().usage(30, 201).done().close();
    let meter = world.meter().await;
    assert_eq!(meter.settled, Tokens::from_u32(231));
    assert!(meter.holds.is_empty());
}

#[tokio::test]
async fn f04_a_client_that_reads_nothing_does_not_keep_the_provider_waiting_for_ever() {
    let world = World::new().await;
    world.upstream.write(HEAD);
    for _ in 0..200 {
        world.upstream.text("lo");
    }
    world.upstream.stop().usage(30, 200).done().close();
    let impatient = Deadlines { stall: Duration::from_millis(1), ..deadlines() };
    let response = world.ask_within(impatient).await.unwrap();
    assert_eq!(world.meter().await.settled, Tokens::from_u32(230));
    let chunks = chunks(response).await;
    let types = types(&chunks);
    assert_eq!(types[types.len() - 2..], ["error", "[DONE]"], "f28: a gap ended as success");
}

#[tokio::test]
async fn f05_an_answer_without_usage_is_an_estimate_and_never_zero() {
    let world = World::new().await;
    world.upstream.write(HEAD).text("Hel").text("lo").stop().done().close();
    let chunks = chunks(world.ask().await.unwrap()).await;
    assert_eq!(types(&chunks), COMPLETE);
    assert_eq!(chunks[7]["messageMetadata"]["usage"]["estimated"], true);
    assert_estimated(&receipt(&world).await);
}

#[tokio::test]
async fn f28_a_cut_ends_in_an_error_and_charges_an_estimate_of_what_was_streamed() {
    let world = World::new().await;
    world.upstream.write(HEAD).text("Hel").close();
    let chunks = chunks(world.ask().await.unwrap()).await;
    assert_eq!(types(&chunks), CUT);
    assert_estimated(&receipt(&world).await);
}

#[tokio::test]
async fn f28_an_error_inside_the_stream_ends_in_an_error() {
    let world = World::new().await;
    world.upstream.write(HEAD).text("Hel").event(r#"{"error":{"message":"hunter2","code":"server_error"}}"#);
    let chunks = chunks(world.ask().await.unwrap()).await;
    assert_eq!(types(&chunks), CUT);
    assert!(!chunks[5].to_string().contains("hunter2"), "the provider's words reached the client");
    assert_estimated(&receipt(&world).await);
}

#[tokio::test]
async fn f05_a_count_that_came_before_the_answer_broke_off_is_exact() {
    let world = World::new().await;
    world.upstream.write(HEAD).text("Hel").stop().usage(10, 5).event(r#"{"error":{"message":"late"}}"#);
    let chunks = chunks(world.ask().await.unwrap()).await;
    assert_eq!(chunks.last().unwrap(), "[DONE]");
    assert_eq!(types(&chunks)[4..6], ["message-metadata", "error"]);
    let receipt = receipt(&world).await;
    assert_eq!(receipt.charged, Tokens::from_u32(15));
    assert!(matches!(receipt.outcome, Outcome::Settled { usage: Usage::Exact(_), .. }), "{receipt:?}");
}

#[tokio::test]
async fn i4_an_error_in_place_of_an_answer_is_a_refusal_and_consumes_nothing() {
    let world = World::new().await;
    for _ in 0..CALLS_MAX {
        world.upstream.write(HEAD).event(r#"{"error":{"message":"no","code":"server_error"}}"#).close();
    }
    let (head, body) = problem(world.ask().await.unwrap_err());
    assert_eq!((head.status.as_u16(), body["code"].as_str()), (503, Some("provider_unavailable")));
    assert_eq!(world.upstream.calls(), CALLS_MAX);
    assert_eq!(world.meter().await.settled, Tokens::ZERO);
    assert_eq!(world.rate_count().await, 0);
    // Nobody is charged for what the provider may charge for.
    let receipt = receipt(&world).await;
    assert_eq!(
        (&receipt.outcome, receipt.charged, receipt.failed_calls),
        (&Outcome::Void, Tokens::ZERO, CALLS_MAX)
    );
    assert!(receipt.cost > NanoUsd::ZERO);
}

#[tokio::test]
async fn f19_a_call_that_failed_before_its_text_is_made_again_and_counted() {
    let world = World::new().await;
    world.upstream.write("HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n").close();
    world.upstream.write(HEAD).text("Hel").text("lo").stop().usage(30, 2).done().close();
    let chunks = chunks(world.ask().await.unwrap()).await;
    assert_eq!(types(&chunks), COMPLETE);
    assert_eq!(chunks[7]["messageMetadata"]["model"], "gpt-6-luna");
    let receipt = receipt(&world).await;
    assert_eq!((receipt.charged, receipt.failed_calls), (Tokens::from_u32(32), 1));
    // A refusal costs nothing: 30 * 100 + 2 * 500 nano-dollars are the answer's alone.
    assert_eq!(receipt.cost.get(), 30 * 100 + 2 * 500);
}

#[tokio::test]
async fn a_model_that_is_retired_is_answered_for_by_the_next() {
    let world = World::new().await;
    let body = r#"{"error":{"message":"The model does not exist","type":"invalid_request_error","code":"model_not_found"}}"#;
    let gone = format!("HTTP/1.1 404 Not Found\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    world.upstream.write(gone).close();
    world.upstream.write(HEAD).text("Hel").text("lo").stop().usage(30, 2).done().close();
    let chunks = chunks(world.ask().await.unwrap()).await;
    assert_eq!(types(&chunks), COMPLETE);
    assert_eq!(chunks[7]["messageMetadata"]["model"], "gpt-5.4-nano");
    let receipt = receipt(&world).await;
    assert!(matches!(&receipt.outcome, Outcome::Settled { model, .. } if model.as_str() == "gpt-5.4-nano"));
    assert_eq!(receipt.cost.get(), 30 * 200 + 2 * 1_250);
}

#[tokio::test]
async fn what_no_call_can_mend_is_tried_once() {
    let world = World::new().await;
    world.upstream.write("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n").close();
    let (head, body) = problem(world.ask().await.unwrap_err());
    assert_eq!((head.status.as_u16(), body["code"].as_str()), (503, Some("provider_unavailable")));
    assert_eq!(world.upstream.calls(), 1);
}

#[tokio::test]
async fn f28_an_answer_that_takes_too_long_is_cut_and_settled_before_the_function_ends() {
    let world = World::new().await;
    world.upstream.write(HEAD).text("Hel");
    // Time enough for the head and one text on a busy machine; the answer itself never ends.
    let short = Deadlines { cut_by: Instant::now() + Duration::from_secs(6), ..deadlines() };
    let chunks = chunks(world.ask_within(short).await.unwrap()).await;
    assert_eq!(types(&chunks), CUT);
    assert_estimated(&receipt(&world).await);
    // The provider sees that nobody listens any more.
    world.upstream.ended().await;
}

#[tokio::test]
async fn i4_a_provider_that_refuses_consumes_nothing_and_gives_the_rate_slot_back() {
    let world = World::new().await;
    // Longer than anybody waits within one request, so each model is asked once.
    for _ in 0..3 {
        let refusal = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 70\r\ncontent-length: 0\r\n\r\n";
        world.upstream.write(refusal).close();
    }
    let (head, body) = problem(world.ask().await.unwrap_err());
    assert_eq!((head.status.as_u16(), body["code"].as_str()), (503, Some("provider_unavailable")));
    assert_eq!((&head.headers[header::RETRY_AFTER], body["retryAfter"].as_u64()), (&70.into(), Some(70)));
    let meter = world.meter().await;
    assert_eq!((meter.settled, meter.committed), (Tokens::ZERO, Tokens::ZERO));
    assert_eq!(meter.rate.counts.values().sum::<u32>(), 0);
    assert_eq!(meter.totals.requests, 0);
    assert_eq!(world.upstream.calls(), 3);
}

#[tokio::test]
async fn i4_a_provider_that_breaks_off_before_its_head_consumes_nothing() {
    let world = World::new().await;
    for _ in 0..CALLS_MAX {
        world.upstream.close();
    }
    let (head, body) = problem(world.ask().await.unwrap_err());
    assert_eq!((head.status.as_u16(), body["retryAfter"].as_u64()), (503, Some(5)));
    assert_eq!(world.upstream.calls(), CALLS_MAX);
    assert_eq!(world.meter().await.committed, Tokens::ZERO);
    assert_eq!(world.rate_count().await, 0);
}

#[tokio::test]
async fn f14_without_the_store_nobody_generates() {
    let world = World::new().await;
    world.store.switch_off();
    let (head, body) = problem(world.ask().await.unwrap_err());
    assert_eq!((head.status.as_u16(), body["code"].as_str()), (503, Some("store_unavailable")));
    assert!(head.headers.contains_key(header::RETRY_AFTER));
    assert_eq!(world.upstream.calls(), 0);
}

#[tokio::test]
async fn a_store_that_fails_at_the_end_claims_no_receipt_and_still_ends_the_answer() {
    let world = World::new().await;
    world.upstream.write(HEAD).text("Hel").text("lo");
    let mut body = world.ask().await.unwrap().into_body();
    let mut all = Vec::new();
    while !String::from_utf8_lossy(&all).contains("\"lo\"") {
        all.extend_from_slice(&body.frame().await.unwrap().unwrap().into_data().unwrap());
    }
    world.store.switch_off();
    world.upstream.stop().usage(30, 2).done().close();
    all.extend_from_slice(&body.collect().await.unwrap().to_bytes());
    let chunks = parsed(&all.into());
    assert_eq!(types(&chunks), COMPLETE);
    assert!(chunks[7]["messageMetadata"].get("receipt").is_none());
    // The hold is left for its expiry, and the tokens stay out of everybody's reach until then.
    assert_eq!(world.meter().await.holds.len(), 1);
}

#[tokio::test]
async fn f19_after_the_first_byte_the_provider_is_never_asked_again() {
    let world = World::new().await;
    world.upstream.write(HEAD).text("H").close();
    assert_eq!(types(&chunks(world.ask().await.unwrap()).await), CUT);
    world.drain.drained().await;
    assert_eq!(world.upstream.calls(), 1);
    assert_eq!(world.rate_count().await, 1);
}

#[tokio::test]
async fn f15_a_refused_request_reaches_no_provider() {
    let world = World::new().await;
    // The free plan has two requests at the same time.
    world.upstream.write(HEAD).text("H");
    let first = world.ask().await.unwrap();
    let second = {
        // The scripted provider serves one connection at a time, so the second request waits for its head.
        let ask = world.ask();
        let refused = async {
            while world.store.inner().every_meter()[0].holds.len() < 2 {
                tokio::task::yield_now().await;
            }
            let (head, body) = problem(world.ask().await.unwrap_err());
            assert_eq!((head.status.as_u16(), body["code"].as_str()), (429, Some("concurrency")));
            assert_eq!(world.upstream.calls(), 1);
            world.upstream.close();
            world.upstream.write(HEAD).text("H").close();
        };
        tokio::join!(ask, refused).0.unwrap()
    };
    assert_eq!(types(&chunks(first).await), CUT);
    assert_eq!(types(&chunks(second).await), CUT);
    assert_eq!(world.rate_count().await, 2);
}

#[tokio::test]
async fn a_silent_provider_s_client_is_kept_connected() {
    let world = World::new().await;
    world.upstream.write(HEAD).text("H");
    let caring = Deadlines { keep_alive_after: Duration::from_millis(1), ..deadlines() };
    let mut body = world.ask_within(caring).await.unwrap().into_body();
    let mut seen = Vec::new();
    while !seen.ends_with(b": keep-alive\n\n") {
        assert!(seen.len() < 4_096, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&body.frame().await.unwrap().unwrap().into_data().unwrap());
    }
    assert!(parsed(&seen.into()).iter().any(|chunk| chunk["delta"] == "H"));
}
