//! Requests that are repeated, and requests that their user stops.

use super::{BODY, World, chunks, deadlines, parsed, problem, stream::receipt, types, upstream::HEAD};
use crate::wire::AnswerBody;
use domain::{Digest, Outcome, Tokens, Usage};
use edge::problem::Problem;
use http::Response;
use http_body_util::BodyExt;
use ledger::Store;
use serde_json::Value;

const KEY: u8 = 7;
const OTHER_BODY: &str = r#"{"prompt":"something else","type":"rewrite"}"#;

impl World {
    async fn repeat(&self) -> Result<Response<AnswerBody>, Problem> {
        self.ask_as(BODY, Some(KEY), deadlines()).await
    }
}

#[track_caller]
fn check(refused: Result<Response<AnswerBody>, Problem>, status: u16, code: &str) -> Value {
    let (head, body) = problem(refused.unwrap_err());
    assert_eq!((head.status.as_u16(), body["code"].as_str()), (status, Some(code)), "{body}");
    body
}

fn text(chunks: &[Value]) -> String {
    chunks.iter().filter_map(|chunk| chunk["delta"].as_str()).collect()
}

#[tokio::test]
async fn i3_a_repeat_waits_and_then_has_the_same_answer_without_a_call_or_a_charge() {
    let world = World::new().await;
    world.upstream.write(HEAD).text("Hel");
    let first = world.repeat().await.unwrap();
    assert_eq!(check(world.repeat().await, 409, "in_progress")["retryAfter"], 2);
    let other = world.ask_as(OTHER_BODY, Some(KEY), deadlines()).await;
    assert_eq!(check(other, 422, "idempotency_key_reused")["field"], "idempotency-key");
    world.upstream.text("lo").stop().usage(30, 2).done().close();
    let first = chunks(first).await;
    world.drain.drained().await;
    let replay = world.repeat().await.unwrap();
    assert_eq!(replay.headers()["idempotency-replayed"], "true");
    assert_eq!(replay.headers()["x-vercel-ai-ui-message-stream"], "v1");
    let replay = chunks(replay).await;
    assert_eq!((text(&replay), &replay[0]), ("Hello".to_owned(), &first[0]));
    let metadata = |chunks: &[Value]| {
        let of = |chunk: &&Value| chunk["type"] == "message-metadata";
        chunks.iter().find(of).unwrap()["messageMetadata"].clone()
    };
    let (mut again, once) = (metadata(&replay), metadata(&first));
    assert_eq!(again.as_object_mut().unwrap().remove("replayed"), Some(true.into()));
    assert_eq!(again, once);
    assert_eq!(types(&replay).last(), Some(&"[DONE]"));
    assert_eq!((world.upstream.calls(), world.rate_count().await), (1, 1));
    assert_eq!(world.meter().await.settled, Tokens::from_u32(32));
    check(world.ask_as(OTHER_BODY, Some(KEY), deadlines()).await, 422, "idempotency_key_reused");
}

#[tokio::test]
async fn f28_a_repeat_of_an_answer_that_was_cut_is_cut_at_the_same_place() {
    let world = World::new().await;
    world.upstream.write(HEAD).text("Hel").close();
    let first = chunks(world.repeat().await.unwrap()).await;
    world.drain.drained().await;
    let replay = chunks(world.repeat().await.unwrap()).await;
    assert_eq!(text(&replay), "Hel");
    assert_eq!(types(&replay), types(&first));
    assert_eq!(world.upstream.calls(), 1);
}

#[tokio::test]
async fn i4_a_refused_request_gives_its_key_free() {
    let world = World::new().await;
    world.upstream.write("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n").close();
    check(world.repeat().await, 503, "provider_unavailable");
    world.upstream.write(HEAD).text("Hel").stop().usage(30, 1).done().close();
    assert_eq!(text(&chunks(world.repeat().await.unwrap()).await), "Hel");
    assert_eq!(world.rate_count().await, 1);
}

#[tokio::test]
async fn an_answer_that_is_not_kept_is_not_made_again() {
    let mut world = World::new().await;
    world.generate.front =
        std::sync::Arc::new(crate::config::Front { keeps_answers: false, ..(*world.generate.front).clone() });
    world.upstream.write(HEAD).text("Hel").stop().usage(30, 1).done().close();
    let first = chunks(world.repeat().await.unwrap()).await;
    world.drain.drained().await;
    let refused = check(world.repeat().await, 409, "already_answered");
    assert_eq!(refused["receipt"], first[0]["messageId"]);
    assert_eq!(world.upstream.calls(), 1);
    let claim = world.store.inner().claim(&world.user, Digest::new([KEY; 32])).await.unwrap().unwrap();
    assert!(format!("{claim:?}").contains("answer_bytes: None"), "{claim:?}");
}

#[tokio::test]
async fn f14_without_the_store_no_key_is_claimed() {
    let world = World::new().await;
    world.store.switch_off();
    check(world.repeat().await, 503, "store_unavailable");
    assert_eq!(world.upstream.calls(), 0);
}

#[tokio::test]
async fn a_stop_ends_the_call_and_charges_what_was_streamed() {
    let world = World::new().await;
    world.upstream.write(HEAD).text("Hel").text("lo wor");
    let mut body = world.ask().await.unwrap().into_body();
    let mut all = Vec::new();
    while !String::from_utf8_lossy(&all).contains("lo wor") {
        all.extend_from_slice(&body.frame().await.unwrap().unwrap().into_data().unwrap());
    }
    let id = world.store.inner().every_meter()[0].holds.keys().next().unwrap().clone();
    let stop = world.store.inner().put_stop(&world.user, &id, edge::clock::now().plus_ms(1));
    stop.await.unwrap();
    all.extend_from_slice(&body.collect().await.unwrap().to_bytes());
    // The provider's connection is closed, though it never ended its answer.
    world.upstream.ended().await;
    let chunks = parsed(&all.into());
    assert_eq!(types(&chunks)[5..], ["text-end", "finish-step", "message-metadata", "abort", "[DONE]"]);
    let receipt = receipt(&world).await;
    let Outcome::Settled { usage: Usage::Estimated(classes), .. } = receipt.outcome else {
        panic!("not an estimate: {receipt:?}")
    };
    // 9 bytes are 3 tokens, and not the 30 that might have come.
    assert_eq!(classes.completion(), Tokens::from_u32(3));
    assert_eq!(receipt.charged, classes.total());
}

#[tokio::test]
async fn a_stop_before_the_first_text_charges_the_prompt_that_was_sent_and_is_replayed() {
    let world = World::new().await;
    world.upstream.write(HEAD);
    let stop = async {
        loop {
            let meters = world.store.inner().every_meter();
            if let Some(id) = meters.first().and_then(|meter| meter.holds.keys().next()) {
                let stop = world.store.inner().put_stop(&world.user, id, edge::clock::now().plus_ms(1));
                return stop.await.unwrap();
            }
            tokio::task::yield_now().await;
        }
    };
    let (answer, ()) = tokio::join!(world.repeat(), stop);
    let chunks = chunks(answer.unwrap()).await;
    let stopped = [
        "start",
        "start-step",
        "text-start",
        "text-end",
        "finish-step",
        "message-metadata",
        "abort",
        "[DONE]",
    ];
    assert_eq!(types(&chunks), stopped);
    world.upstream.ended().await;
    assert_eq!(world.rate_count().await, 1);
    let receipt = receipt(&world).await;
    let Outcome::Settled { usage: Usage::Estimated(classes), .. } = receipt.outcome else {
        panic!("not an estimate: {receipt:?}")
    };
    assert_eq!((classes.completion(), receipt.charged), (Tokens::ZERO, classes.prompt()));
    assert!(receipt.charged > Tokens::ZERO);
    // A repeat is not made again, whatever became of the first answer on its way.
    assert_eq!(types(&super::chunks(world.repeat().await.unwrap()).await), stopped);
    assert_eq!(world.upstream.calls(), 1);
}
