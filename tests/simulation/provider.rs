//! A provider that is strict about what it is asked and may do anything about its answer.

use crate::simulation::{
    checks::request_of,
    scenario::Mishap,
    world::{Process, Step, World},
};
use futures_util::stream;
use openai::testing::Memory;
use reqwest::{Body, Response};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, VecDeque},
    future::pending,
    io,
    sync::Arc,
    time::Duration,
};
use tokio::time::sleep;

/// Longer than the function waits for a provider that has fallen silent, in milliseconds.
const SILENCE_MS: u64 = 40_000;

/// Between two pieces of a slow answer, in milliseconds: a long one does not end before the function has to cut it.
const SLOW_MS: u64 = 6_000;

/// Calls by request.
#[derive(Debug, Default)]
pub(crate) struct Calls(BTreeMap<u64, Call>);

impl Calls {
    pub(crate) fn get(&self, request: u64) -> Option<&Call> {
        self.0.get(&request)
    }
}

/// What was written for one request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Call {
    pub(crate) times: u32,
    prompt: u64,
    hidden: u64,
    /// Tokens of text that have been read.
    pub(crate) written: u64,
    pub(crate) text: String,
    /// The answer was read to where it says why it ends: all of its text has come then.
    pub(crate) complete: bool,
    /// The provider's count has come.
    pub(crate) counted: bool,
}

impl Call {
    /// What the provider counts.
    pub(crate) fn used(&self) -> u64 {
        self.prompt + self.hidden + self.written
    }
}

enum Piece {
    Text(u64),
    Stop(&'static str),
    Usage,
    Done,
    Error,
    Cut,
    Silence,
}

struct Answer {
    world: Arc<World>,
    process: Arc<Process>,
    request: u64,
    pieces: VecDeque<Piece>,
    /// Before each piece, in milliseconds.
    pause_ms: u64,
}

/// The provider as a process reaches it.
pub(crate) fn reached_by(world: &Arc<World>, process: &Arc<Process>) -> Memory {
    let (world, process) = (Arc::clone(world), Arc::clone(process));
    Memory::new(move |body| answer(Arc::clone(&world), Arc::clone(&process), body))
}

async fn answer(world: Arc<World>, process: Arc<Process>, body: Vec<u8>) -> Response {
    let step = world.step(&process, "call provider").await;
    let body: Value = serde_json::from_slice(&body).unwrap();
    let cap = body["max_completion_tokens"].as_u64().unwrap();
    let request = request_in(&body);
    check(&world, request, cap, &body);
    let bytes: usize =
        body["messages"].as_array().unwrap().iter().map(|m| m["content"].as_str().unwrap().len()).sum();
    let bytes = u64::try_from(bytes).unwrap();
    let pieces = world.with(|inner| {
        let call = inner.calls.0.entry(request).or_default();
        call.times += 1;
        call.prompt = inner.dice.between(bytes / 5, bytes);
        call.hidden = if inner.dice.in_thousand(300) { inner.dice.below(cap / 2) } else { 0 };
        script(inner.dice.between(1, 12), cap - call.hidden)
    });
    if matches!(step, Step::DiesAfter) {
        pending::<()>().await;
    }
    if world.happens(Mishap::ProviderHangs) {
        pending::<()>().await;
    }
    if world.happens(Mishap::ProviderRefuses) {
        let status = world.with(|inner| inner.dice.pick(&[429, 500, 503]));
        let body = json!({"error": {"message": "no", "type": "server_error"}}).to_string();
        return http::Response::builder().status(status).body(Body::from(body)).unwrap().into();
    }
    let pieces = spoil(&world, pieces);
    let pause_ms = if world.happens(Mishap::ProviderSlow) { SLOW_MS } else { 0 };
    let answer = Answer { world, process, request, pieces, pause_ms };
    let body = Body::wrap_stream(stream::unfold(answer, next));
    let head = http::Response::builder().header("content-type", "text/event-stream");
    head.body(body).unwrap().into()
}

fn request_in(body: &Value) -> u64 {
    let prompt = body["messages"][1]["content"].as_str().unwrap();
    let (_, rest) = prompt.split_once("request-").unwrap();
    rest.split_once(';').unwrap().0.parse().unwrap()
}

/// I4 and I6: nobody calls but for a hold that is open, large enough, and not taken back.
fn check(world: &World, request: u64, cap: u64, body: &Value) {
    if body["stream_options"]["include_usage"] != true {
        world.violated("F5: a stream was asked for without its usage".into());
    }
    let kept = world.store.kept();
    let confirmed = kept.meters.iter().any(|(key, meter)| {
        meter.holds.iter().any(|(id, hold)| {
            let void = kept.receipts.contains_key(&(key.clone(), id.clone()));
            request_of(id) == request && hold.tokens.get() >= cap && !void
        })
    });
    drop(kept);
    if !confirmed {
        world.violated(format!("I4: request {request} called the provider without a hold"));
    }
}

/// An answer of so many pieces, if nothing goes wrong, that keeps to the cap.
fn script(pieces: u64, cap: u64) -> VecDeque<Piece> {
    let mut left = cap;
    let mut script = VecDeque::new();
    for number in 0..pieces {
        let tokens = (number * 7 % 30 + 1).min(left);
        if tokens > 0 {
            left -= tokens;
            script.push_back(Piece::Text(tokens));
        }
    }
    script.extend([Piece::Stop(if left == 0 { "length" } else { "stop" }), Piece::Usage, Piece::Done]);
    script
}

/// What becomes of it.
fn spoil(world: &World, mut script: VecDeque<Piece>) -> VecDeque<Piece> {
    if world.happens(Mishap::ProviderHidesUsage) {
        script.retain(|piece| !matches!(piece, Piece::Usage));
    }
    let at = world.with(|inner| inner.dice.below(u64::try_from(script.len()).unwrap() + 1));
    let at = usize::try_from(at).unwrap();
    if world.happens(Mishap::ProviderStalls) {
        script.insert(at, Piece::Silence);
    }
    if world.happens(Mishap::ProviderErrs) {
        script.insert(at, Piece::Error);
    }
    if world.happens(Mishap::ProviderCuts) {
        script.insert(at, Piece::Cut);
    }
    script
}

async fn next(mut answer: Answer) -> Option<(io::Result<String>, Answer)> {
    let piece = answer.pieces.pop_front()?;
    sleep(Duration::from_millis(answer.pause_ms)).await;
    if matches!(answer.world.step(&answer.process, "read the answer").await, Step::DiesAfter) {
        pending::<()>().await;
    }
    let request = answer.request;
    let data = match piece {
        Piece::Text(tokens) => {
            let text = "word".repeat(usize::try_from(tokens).unwrap());
            answer.world.with(|inner| {
                let call = inner.calls.0.get_mut(&request).unwrap();
                call.written += tokens;
                call.text.push_str(&text);
            });
            json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]})
        }
        Piece::Stop(why) => {
            answer.world.with(|inner| inner.calls.0.get_mut(&request).unwrap().complete = true);
            json!({"choices": [{"index": 0, "delta": {}, "finish_reason": why}], "usage": null})
        }
        Piece::Usage => {
            let call = answer.world.with(|inner| {
                let call = inner.calls.0.get_mut(&request).unwrap();
                call.counted = true;
                call.clone()
            });
            let cached = call.prompt / 3;
            json!({"choices": [], "usage": {"prompt_tokens": call.prompt,
                "completion_tokens": call.written + call.hidden,
                "prompt_tokens_details": {"cached_tokens": cached},
                "completion_tokens_details": {"reasoning_tokens": call.hidden}}})
        }
        Piece::Done => return Some((Ok("data: [DONE]\n\n".into()), answer)),
        Piece::Error => json!({"error": {"message": "overloaded", "type": "server_error"}}),
        Piece::Cut => return Some((Err(io::Error::other("cut")), answer)),
        Piece::Silence => {
            sleep(Duration::from_millis(SILENCE_MS)).await;
            return Some((Ok(": still here\n\n".into()), answer));
        }
    };
    Some((Ok(format!("data: {data}\n\n")), answer))
}
